//! Keyed hashes: made and checked.

use super::batch::{objects, quote, string};
use super::policy::Policy;
use super::{store, text};
use ringfence_base::secret::same_bytes;
use ringfence_crypto::hash::Hash;
use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use zeroize::Zeroizing;

/// The hash that a request names, in the path or the body.
pub fn hash(args: &Args) -> Result<Hash, Error> {
    let name =
        [args.str("urlalgorithm"), args.str("algorithm")].into_iter().find(|n| !n.is_empty()).unwrap_or("sha2-256");
    Hash::parse(name).ok_or_else(|| Error::invalid(format!("unsupported algorithm {name:?}")))
}

fn code(cx: &mut Cx<'_, '_>, policy: &Policy, version: u64, hash: Hash, input: &[u8]) -> Result<Vec<u8>, Error> {
    let version = store::load_version(cx, policy, version)?;
    if version.hmac_key.is_empty() {
        return Err(Error::invalid("no HMAC key exists for that key version"));
    }
    Ok(hash.hmac(&version.hmac_key, input))
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid("encryption key not found"))?;
    policy.alive()?;
    let hash = hash(args)?;
    let version = match args.int("key_version") {
        0 => policy.latest,
        v => match u64::try_from(v) {
            Err(_) => return Err(Error::invalid("key version does not exist (cannot be negative)")),
            Ok(v) if v > policy.latest => {
                return Err(Error::invalid(format!(
                    "key version does not exist; latest key version is {}",
                    policy.latest
                )));
            }
            Ok(v) if v < policy.min_encryption.max(policy.min_available) => {
                return Err(Error::invalid("cannot generate HMAC: version is too old (disallowed by policy)"));
            }
            Ok(v) => v,
        },
    };
    let one = |cx: &mut Cx<'_, '_>, input: &str| -> Result<String, Error> {
        let input = Zeroizing::new(
            text::decode(input).map_err(|e| Error::invalid(format!("unable to decode input as base64: {e}")))?,
        );
        Ok(format!("vault:v{version}:{}", text::encode(&code(cx, &policy, version, hash, &input)?)))
    };
    let Some(batch) = args.json("batch_input").filter(|b| !b.is_null()) else {
        let input = args.opt_str("input").ok_or_else(|| Error::invalid("missing input for HMAC"))?;
        return Response::json(serde_json::json!({ "hmac": one(cx, input)? })).done();
    };
    let mut out = String::from("{\"batch_results\":[");
    let mut failed = false;
    let mut count = 0;
    for (i, item) in objects(batch)?.enumerate() {
        count += 1;
        out.push_str(if i > 0 { ",{" } else { "{" });
        let made = match string(item, i, "input")? {
            Some(input) => one(cx, input),
            None => Err(Error::invalid("missing input for HMAC")),
        };
        match made {
            Ok(code) => {
                out.push_str("\"hmac\":");
                quote(&mut out, &code);
            }
            Err(e) => {
                failed = true;
                out.push_str("\"error\":");
                quote(&mut out, &e.text());
            }
        }
        if let Some(reference) = string(item, i, "reference")?.filter(|r| !r.is_empty()) {
            out.push_str(",\"reference\":");
            quote(&mut out, reference);
        }
        out.push('}');
    }
    if count == 0 {
        return Err(Error::invalid("missing batch input to process"));
    }
    out.push_str("]}");
    let response = Response::text(out);
    if failed { response.code(ringfence_base::Code::Invalid).done() } else { response.done() }
}

/// Compares an HMAC with the one it should be.
pub fn verify(cx: &mut Cx<'_, '_>, policy: &Policy, hash: Hash, input: &[u8], shown: &str) -> Result<bool, String> {
    let rest = shown.strip_prefix("vault:v").ok_or("invalid HMAC to verify: no prefix")?;
    let (version, payload) = rest.split_once(':').ok_or("invalid HMAC: wrong number of fields")?;
    let version: i64 = version.parse().map_err(|_| "invalid HMAC: version number could not be decoded")?;
    let too_old = "cannot verify HMAC: version is too old (disallowed by policy)";
    let version = u64::try_from(version).map_err(|_| too_old)?;
    if version > policy.latest {
        return Err("invalid HMAC: version is too new".to_owned());
    }
    if version < policy.min_decryption.max(policy.min_available) {
        return Err(too_old.to_owned());
    }
    let payload =
        text::decode(payload).map_err(|e| format!("unable to decode verification string as base64: {e}"))?;
    let should = code(cx, policy, version, hash, input).map_err(|e| e.text())?;
    Ok(same_bytes(&payload, &should))
}
