//! Signatures: made and checked, one or a batch. Private RSA operations run in a side operation.

use super::batch::{objects, quote, string, weak_int};
use super::kind::KeyKind;
use super::policy::{Policy, Use};
use super::version::{Material, Version};
use super::{ciphertext, cmac, derive, hmac, store, text};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::Entropy;
use ringfence_crypto::asymmetric::ec::Form;
use ringfence_crypto::asymmetric::ed25519;
use ringfence_crypto::asymmetric::rsa::{Padding, Salt, longest_salt};
use ringfence_crypto::hash::{Expanded, Hash};
use ringfence_logical::side::{Compute, Computed};
use ringfence_logical::{Args, Cx, Error, Outcome, Response, SideResult, Step};
use std::sync::Arc;
use zeroize::Zeroizing;

/// How a request wants its signatures.
#[derive(Clone, Copy)]
pub struct Options {
    /// `None`: the input is signed bare.
    pub hash: Option<Hash>,
    pub prehashed: bool,
    pub form: Form,
    pub padding: Padding,
}

impl Options {
    fn read(args: &Args) -> Result<Options, Error> {
        let name = [args.str("urlalgorithm"), args.str("algorithm"), args.str("hash_algorithm")]
            .into_iter()
            .find(|n| !n.is_empty())
            .unwrap_or("sha2-256");
        let signature_algorithm = args.str("signature_algorithm");
        let prehashed = args.bool("prehashed");
        let hash = match name {
            "none" if !prehashed || signature_algorithm != "pkcs1v15" => {
                return Err(Error::invalid(
                    "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
                ));
            }
            "none" => None,
            name => {
                Some(Hash::parse(name).ok_or_else(|| Error::invalid(format!("invalid hash algorithm {name:?}")))?)
            }
        };
        let form = match args.str("marshaling_algorithm") {
            "" | "asn1" => Form::Asn1,
            "jws" => Form::Fixed,
            other => return Err(Error::invalid(format!("invalid marshaling type {other:?}"))),
        };
        let salt = match args.str("salt_length") {
            "" | "auto" | "0" => Salt::Auto,
            "hash" | "-1" => Salt::Hash,
            n => Salt::Bytes(n.parse().map_err(|_| Error::invalid(format!("requested salt length {n} is invalid")))?),
        };
        let padding = match signature_algorithm {
            "" | "pss" => Padding::Pss(salt),
            "pkcs1v15" => Padding::Pkcs1v15,
            other => return Err(Error::invalid(format!("unsupported rsa signature algorithm {other}"))),
        };
        Ok(Options { hash, prehashed, form, padding })
    }

    /// What is signed: the digest, where the type signs digests.
    fn message(&self, kind: KeyKind, input: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
        match (kind, self.prehashed, self.hash) {
            (KeyKind::Ecdsa(_) | KeyKind::Rsa(_), false, Some(hash)) => Zeroizing::new(hash.digest(&input)),
            _ => input,
        }
    }

    /// A salt that the key has no room for.
    fn check_salt(&self, kind: KeyKind) -> Result<(), String> {
        if let (KeyKind::Rsa(bits), Padding::Pss(Salt::Bytes(n)), Some(hash)) = (kind, self.padding, self.hash)
            && longest_salt(hash, bits).is_none_or(|longest| n > longest)
        {
            return Err(format!("requested salt length {n} is invalid"));
        }
        Ok(())
    }
}

/// One item: what is to be signed, or checked.
struct Item {
    input: Option<String>,
    context: String,
    key_version: Option<i64>,
    signature: Option<String>,
    hmac: Option<String>,
    cmac: Option<String>,
    reference: String,
}

fn items(args: &Args) -> Result<(Vec<Item>, bool), Error> {
    let Some(batch) = args.json("batch_input").filter(|b| !b.is_null()) else {
        let owned = |name: &str| args.opt_str(name).filter(|s| !s.is_empty()).map(str::to_owned);
        let item = Item {
            input: args.opt_str("input").map(str::to_owned),
            context: args.str("context").to_owned(),
            key_version: None,
            signature: owned("signature"),
            hmac: owned("hmac"),
            cmac: owned("cmac"),
            reference: String::new(),
        };
        return Ok((vec![item], false));
    };
    let items = objects(batch)?
        .enumerate()
        .map(|(i, o)| {
            let owned = |name: &str| string(o, i, name).map(|s| s.map(str::to_owned));
            Ok(Item {
                input: owned("input")?,
                context: owned("context")?.unwrap_or_default(),
                key_version: o.get("key_version").and_then(weak_int),
                signature: owned("signature")?.filter(|s| !s.is_empty()),
                hmac: owned("hmac")?.filter(|s| !s.is_empty()),
                cmac: owned("cmac")?.filter(|s| !s.is_empty()),
                reference: owned("reference")?.unwrap_or_default(),
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if items.is_empty() {
        return Err(Error::invalid("missing batch input to process"));
    }
    Ok((items, true))
}

/// What is to be signed, everything looked up.
struct Job {
    version: Arc<Version>,
    number: u64,
    message: Zeroizing<Vec<u8>>,
    context: Vec<u8>,
}

/// A signature with its version, and the public key if it was derived.
struct Signed {
    signature: String,
    number: u64,
    public: Option<Vec<u8>>,
}

pub fn sign(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let options = Options::read(args)?;
    let (items, _) = items(args)?;
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid("signing key not found"))?;
    policy.alive()?;
    let kind = policy.kind;
    if !kind.signs() {
        return Err(Error::invalid(format!("key type {} does not support signing", kind.name())));
    }
    options.check_salt(kind).map_err(Error::invalid)?;
    let asked = args.int("key_version");
    let jobs: Vec<Result<Job, String>> = items
        .iter()
        .map(|item| {
            let input = item.input.as_deref().ok_or("missing input")?;
            let input = text::decode(input).map_err(|e| format!("unable to decode input as base64: {e}"))?;
            let input = Zeroizing::new(input);
            let context = text::decode(&item.context).map_err(|_| "failed to base64-decode context".to_owned())?;
            let told = |e: Error| e.cause.clone().unwrap_or_else(|| e.errors.join("; "));
            let number = policy.version_to(Use::Sign, item.key_version.unwrap_or(asked)).map_err(told)?;
            let version = store::load_version(cx, &policy, number).map_err(told)?;
            if version.is_public_only() {
                return Err("requested version for signing does not contain a private part".to_owned());
            }
            Ok(Job { version, number, message: options.message(kind, input), context })
        })
        .collect();
    let derived = policy.derived;
    if !matches!(kind, KeyKind::Rsa(_)) {
        let done: Vec<_> = jobs.iter().map(|j| work(j, derived, options, cx.rng)).collect();
        return answer(args, &done);
    }
    let mut seed = [0u8; 32];
    cx.rng.fill(&mut seed);
    let op = Compute::op("sign with RSA", move || {
        let mut rng = Expanded::new(seed);
        Computed::of(jobs.iter().map(|j| work(j, derived, options, &mut rng)).collect::<Vec<_>>())
    });
    let args = args.clone();
    let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| {
        let SideResult::Value(value) = result else {
            return Err(Error::internal(format!("signing: {result:?}")));
        };
        // the key may have gone meanwhile
        let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid("signing key not found"))?;
        policy.alive()?;
        let done = value.get::<Vec<Result<Signed, String>>>();
        answer(&args, done.ok_or_else(|| Error::internal("another value than signatures"))?)
    });
    Ok(Step::Side { op, resume })
}

fn work(job: &Result<Job, String>, derived: bool, options: Options, rng: &mut dyn Entropy) -> Result<Signed, String> {
    let job = job.as_ref().map_err(Clone::clone)?;
    let failed = |_| "signature could not be computed".to_owned();
    let mut public = None;
    let bytes = match &job.version.material {
        Material::Ed25519(_) if derived => {
            let key = derive::ed25519(&job.version, &job.context)?;
            public = Some(key.public().to_vec());
            key.sign(&job.message)
        }
        Material::Ed25519(Some(key)) => key.sign(&job.message),
        Material::Ecdsa(Some(key), _) => key.sign(&job.message, options.form).map_err(failed)?,
        Material::Rsa(Some(key), _) => key.sign(options.hash, &job.message, options.padding, rng).map_err(failed)?,
        Material::MlDsa(Some(key)) => key.sign(&job.message).map_err(failed)?,
        _ => return Err("requested version for signing does not contain a private part".to_owned()),
    };
    let mut signature = ciphertext::prefix(job.number);
    match (&job.version.material, options.form) {
        (Material::Ecdsa(..), Form::Fixed) => URL_SAFE_NO_PAD.encode_string(&bytes, &mut signature),
        _ => signature.push_str(&text::encode(&bytes)),
    }
    Ok(Signed { signature, number: job.number, public })
}

fn answer(args: &Args, done: &[Result<Signed, String>]) -> Outcome {
    let (items, is_batch) = items(args)?;
    if !is_batch && let Some(Err(text)) = done.first() {
        return Err(Error::invalid(text.clone()));
    }
    let mut out = String::new();
    if is_batch {
        out.push_str("{\"batch_results\":[");
    }
    for (i, (item, signed)) in items.iter().zip(done).enumerate() {
        out.push_str(if i > 0 { ",{" } else { "{" });
        match signed {
            Ok(s) => {
                out.push_str("\"signature\":");
                quote(&mut out, &s.signature);
                out.push_str(&format!(",\"key_version\":{}", s.number));
                if let Some(public) = &s.public {
                    // the batch's field has no underscore in Vault's answers
                    out.push_str(if is_batch { ",\"publickey\":" } else { ",\"public_key\":" });
                    quote(&mut out, &text::encode(public));
                }
            }
            Err(text) => {
                out.push_str("\"error\":");
                quote(&mut out, text);
            }
        }
        refer(&mut out, &item.reference, is_batch);
        out.push('}');
    }
    out.push_str(if is_batch { "]}" } else { "" });
    Response::text(out).done()
}

/// The reference of an item, printed if it has one.
fn refer(out: &mut String, reference: &str, is_batch: bool) {
    if is_batch && !reference.is_empty() {
        out.push_str(",\"reference\":");
        quote(out, reference);
    }
}

pub fn verify(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (items, is_batch) = items(args)?;
    let count = |has: fn(&Item) -> bool| items.iter().filter(|i| has(i)).count();
    let given = [count(|i| i.signature.is_some()), count(|i| i.hmac.is_some()), count(|i| i.cmac.is_some())];
    let (with_hmac, with_cmac) = (given[1], given[2]);
    match given.iter().filter(|n| **n > 0).count() {
        0 => return Err(Error::invalid("neither a 'signature' nor an 'hmac' were given to verify")),
        1 if given.iter().sum::<usize>() == items.len() => {}
        _ if !is_batch => return Err(Error::invalid("provide one of 'signature' or 'hmac'")),
        _ => {
            return Err(Error::invalid("elements of batch_input must all provide 'signature' or all provide 'hmac'"));
        }
    }
    let policy =
        store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid("signature verification key not found"))?;
    policy.alive()?;
    let results: Vec<Result<bool, String>> = if with_hmac > 0 {
        let hash = hmac::hash(args)?;
        items
            .iter()
            .map(|i| {
                let input = input_of(i)?;
                hmac::verify(cx, &policy, hash, &input, i.hmac.as_deref().unwrap_or(""))
            })
            .collect()
    } else if with_cmac > 0 {
        let length = cmac::length(args)?;
        let one = |i: &Item| {
            let input = input_of(i)?;
            cmac::verify(cx, &policy, length, &input, i.cmac.as_deref().unwrap_or(""))
        };
        items.iter().map(one).collect()
    } else {
        if !policy.kind.signs() {
            return Err(Error::invalid(format!("key type {} does not support verification", policy.kind.name())));
        }
        let options = Options::read(args)?;
        options.check_salt(policy.kind).map_err(Error::invalid)?;
        items.iter().map(|i| check(cx, &policy, options, i)).collect()
    };
    if !is_batch {
        return match results.into_iter().next() {
            Some(Ok(valid)) => Response::json(serde_json::json!({ "valid": valid })).done(),
            Some(Err(text)) => Err(Error::invalid(text)),
            None => Err(Error::internal("an item without result")),
        };
    }
    let mut out = String::from("{\"batch_results\":[");
    for (i, (item, result)) in items.iter().zip(&results).enumerate() {
        out.push_str(if i > 0 { ",{" } else { "{" });
        match result {
            Ok(valid) => out.push_str(&format!("\"valid\":{valid}")),
            Err(text) => {
                out.push_str("\"valid\":false,\"error\":");
                quote(&mut out, text);
            }
        }
        refer(&mut out, &item.reference, true);
        out.push('}');
    }
    out.push_str("]}");
    Response::text(out).done()
}

fn input_of(item: &Item) -> Result<Zeroizing<Vec<u8>>, String> {
    let input = item.input.as_deref().ok_or("missing input")?;
    text::decode(input).map(Zeroizing::new).map_err(|e| format!("unable to decode input as base64: {e}"))
}

fn check(cx: &mut Cx<'_, '_>, policy: &Policy, options: Options, item: &Item) -> Result<bool, String> {
    let input = input_of(item)?;
    let context = text::decode(&item.context).map_err(|_| "failed to base64-decode context".to_owned())?;
    let (number, payload) = ciphertext::parse(item.signature.as_deref().unwrap_or(""), policy, "signature")?;
    let is_jws = matches!((policy.kind, options.form), (KeyKind::Ecdsa(_), Form::Fixed));
    let invalid = "invalid base64 signature value";
    let signature = match is_jws {
        true => URL_SAFE_NO_PAD.decode(payload).map_err(|_| invalid.to_owned())?,
        false => text::decode(payload).map_err(|_| invalid.to_owned())?,
    };
    let version = store::load_version(cx, policy, number)
        .map_err(|e| e.cause.clone().unwrap_or_else(|| e.errors.join("; ")))?;
    let message = options.message(policy.kind, input);
    Ok(match &version.material {
        Material::Ed25519(_) if policy.derived => {
            let key = derive::ed25519(&version, &context)?;
            ed25519::verify(&key.public(), &message, &signature)
        }
        Material::Ed25519(_) => ed25519::verify(&version.public, &message, &signature),
        Material::Ecdsa(_, public) => {
            if options.form == Form::Asn1 && signature.first() != Some(&0x30) {
                return Err("supplied signature is invalid".to_owned());
            }
            public.verify(&message, &signature, options.form)
        }
        Material::Rsa(_, public) => public.verify(options.hash, &message, &signature, options.padding),
        Material::MlDsa(_) => match policy.kind {
            KeyKind::MlDsa(set) => set.verify(&version.public, &message, &signature),
            _ => false,
        },
        Material::Aead(_) | Material::Hmac | Material::Cmac => false,
    })
}
