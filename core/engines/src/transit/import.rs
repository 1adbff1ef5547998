//! Keys from outside: `RSA-OAEP(one-time AES key) || AES-KWP(target key)` under this mount's wrapping key.

use super::kind::KeyKind;
use super::policy::Policy;
use super::version::{self, Fresh, Material, Version};
use super::{keys, rotate, store, text};
use ringfence_base::Entropy;
use ringfence_crypto::asymmetric::ec::{EcPrivate, EcPublic};
use ringfence_crypto::asymmetric::ed25519::{self, Ed25519Private};
use ringfence_crypto::asymmetric::rsa::{RsaPrivate, RsaPublic};
use ringfence_crypto::hash::Hash;
use ringfence_crypto::{KEY_BYTES, kwp, pem};
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::json;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Stored beside the other keys under a name that no request can make.
const WRAPPING_KEY: &str = "import/wrapping-key";
const WRAPPING_KIND: KeyKind = KeyKind::Rsa(4096);
/// Bytes of the RSA part.
const BLOCK_BYTES: usize = 512;
const EXISTS: &str =
    "the import path cannot be used with an existing key; use import-version to rotate an existing imported key";

/// The hash of the OAEP block.
pub fn hash(name: &str) -> Result<Hash, Error> {
    kwp::oaep_hash(name).ok_or_else(|| Error::invalid(format!("unsupported hash function: {name}")))
}

/// Goes on with the wrapping key, which is made at its first use.
fn with_wrapping_key(
    cx: &mut Cx<'_, '_>,
    then: impl Fn(&mut Cx<'_, '_>, &Version) -> Outcome + Send + 'static,
) -> Outcome {
    if let Some(policy) = store::load(cx, WRAPPING_KEY)? {
        let version = store::load_version(cx, &policy, policy.latest)?;
        return then(cx, &version);
    }
    store::with_fresh(cx, WRAPPING_KIND, 0, move |cx, fresh| {
        let policy = match store::load(cx, WRAPPING_KEY)? {
            Some(known) => known,
            None => {
                let mut policy = Policy::new(WRAPPING_KEY, WRAPPING_KIND);
                store::add_version(cx, &mut policy, fresh);
                Arc::new(policy)
            }
        };
        let version = store::load_version(cx, &policy, policy.latest)?;
        then(cx, &version)
    })
}

pub fn wrapping_key(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    with_wrapping_key(cx, |_, version| Response::json(json!({ "public_key": keys::public_text(version) })).done())
}

/// What a request brings.
enum Brought {
    Wrapped(Vec<u8>),
    Public(String),
}

fn brought(args: &Args) -> Result<Brought, Error> {
    match (args.opt_str("ciphertext"), args.opt_str("public_key")) {
        (Some(c), None) => {
            let bytes = text::decode(c).map_err(Error::invalid)?;
            if bytes.len() <= BLOCK_BYTES {
                return Err(Error::invalid("provided ciphertext is too short"));
            }
            Ok(Brought::Wrapped(bytes))
        }
        (None, Some(p)) => Ok(Brought::Public(p.to_owned())),
        (None, None) => Err(Error::invalid("the 'ciphertext' or 'public_key' field is required")),
        (Some(_), Some(_)) => {
            Err(Error::invalid("only one of the following fields, 'ciphertext' and 'public_key', can be set"))
        }
    }
}

/// Goes on with the material that a request brings.
fn with_material(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    kind: KeyKind,
    then: impl Fn(&mut Cx<'_, '_>, Fresh) -> Outcome + Send + 'static,
) -> Outcome {
    let hash = hash(args.str("hash_function"))?;
    match brought(args)? {
        Brought::Public(text) => then(cx, public_material(kind, &text)?),
        Brought::Wrapped(bytes) => with_wrapping_key(cx, move |cx, wrapping| {
            let Material::Rsa(Some(private), _) = &wrapping.material else {
                return Err(Error::internal("the wrapping key is no RSA key"));
            };
            let (block, wrapped) = bytes.split_at(BLOCK_BYTES);
            let one_time = private
                .decrypt(hash, block, cx.rng)
                .map_err(|_| Error::invalid("failed to decrypt the wrapped key: crypto/rsa: decryption error"))?;
            let one_time: &[u8; KEY_BYTES] =
                one_time[..].try_into().map_err(|_| Error::invalid("the ephemeral key of an import has 256 bits"))?;
            let target = kwp::unwrap(one_time, wrapped)
                .map_err(|_| Error::invalid("failed to unwrap the key: integrity check failed"))?;
            then(cx, private_material(kind, &target)?)
        }),
    }
}

/// A private or secret key in the form in which keys travel: raw, or PKCS #8.
fn private_material(kind: KeyKind, bytes: &[u8]) -> Result<Fresh, Error> {
    let bad = |_| Error::invalid(format!("error parsing asymmetric key of type {}", kind.name()));
    let size = |expected: usize| {
        Error::invalid(format!(
            "invalid key size {} bytes for key type {}, expected {expected}",
            bytes.len(),
            kind.name()
        ))
    };
    let secret = |public: Vec<u8>, key: &[u8]| Fresh { key: Zeroizing::new(key.to_vec()), public };
    Ok(match kind {
        KeyKind::Aead(cipher) if bytes.len() == cipher.key_bytes() => secret(Vec::new(), bytes),
        KeyKind::Aead(cipher) => return Err(size(cipher.key_bytes())),
        KeyKind::Hmac if (32..=512).contains(&bytes.len()) => secret(Vec::new(), bytes),
        KeyKind::Hmac => return Err(size(32)),
        KeyKind::Cmac(bits) if bytes.len() * 8 == bits as usize => secret(Vec::new(), bytes),
        KeyKind::Cmac(bits) => return Err(size(bits as usize / 8)),
        KeyKind::Ed25519 => version::from_seed(Ed25519Private::from_pkcs8(bytes).map_err(bad)?.seed()),
        KeyKind::Ecdsa(curve) => {
            let key = EcPrivate::from_pkcs8(curve, bytes).map_err(bad)?;
            let public = key.public().map_err(|_| Error::internal("a key without public half"))?;
            secret(public.spki().to_vec(), key.pkcs8())
        }
        KeyKind::Rsa(bits) => {
            let key = RsaPrivate::from_pkcs8(bytes).map_err(bad)?;
            if key.bits() != bits {
                return Err(Error::invalid(format!(
                    "invalid key size: expected {bits} bits, got {} bits",
                    key.bits()
                )));
            }
            let public = key.public().map_err(bad)?;
            Fresh { key: key.pkcs8().map_err(|_| Error::internal("encoding a key"))?, public: public.spki().to_vec() }
        }
        KeyKind::MlDsa(set) => {
            let seed: &[u8; 32] = bytes.try_into().map_err(|_| size(32))?;
            let key = ringfence_crypto::asymmetric::ml_dsa::MlDsaPrivate::from_seed(set, seed).map_err(bad)?;
            secret(key.public_spki().map_err(|_| Error::internal("encoding a key"))?, bytes)
        }
    })
}

fn public_material(kind: KeyKind, text: &str) -> Result<Fresh, Error> {
    if !kind.is_asymmetric() {
        return Err(Error::invalid("provided type does not support public_key import"));
    }
    let (_, der) = pem::decode(text).ok_or_else(|| Error::invalid("error parsing public key: not in PEM format"))?;
    public_from_der(kind, &der)
}

/// A public key from its `SubjectPublicKeyInfo`.
pub fn public_from_der(kind: KeyKind, der: &[u8]) -> Result<Fresh, Error> {
    let bad = |_| Error::invalid(format!("error parsing public key of type {}", kind.name()));
    let public = match kind {
        KeyKind::Ed25519 => ed25519::public_from_spki(der).map_err(bad)?.to_vec(),
        KeyKind::Ecdsa(curve) => EcPublic::from_spki(curve, der).map_err(bad)?.spki().to_vec(),
        KeyKind::Rsa(bits) => {
            let key = RsaPublic::from_spki(der).map_err(bad)?;
            if key.bits() != bits {
                return Err(Error::invalid(format!(
                    "invalid key size: expected {bits} bits, got {} bits",
                    key.bits()
                )));
            }
            key.spki().to_vec()
        }
        KeyKind::MlDsa(set) if set.is_public_key(der) => der.to_vec(),
        _ => return Err(Error::invalid(format!("error parsing public key of type {}", kind.name()))),
    };
    Ok(Fresh { key: Zeroizing::new(Vec::new()), public })
}

pub fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let kind = KeyKind::parse(args.str("type"), args.str("parameter_set"))?;
    if store::load(cx, args.str("name"))?.is_some() {
        return Err(Error::plain(EXISTS));
    }
    let mut policy = keys::settings(args, kind)?;
    policy.imported = true;
    policy.imported_rotation = args.bool("allow_rotation");
    if policy.auto_rotate > 0 && !policy.imported_rotation {
        return Err(Error::invalid("allow_rotation must be set to true if auto-rotation is enabled"));
    }
    with_material(cx, args, kind, move |cx, fresh| {
        if store::load(cx, &policy.name)?.is_some() {
            return Err(Error::plain(EXISTS));
        }
        let mut policy = policy.clone();
        if kind == KeyKind::Hmac {
            policy.key_size = fresh.key.len();
        }
        store::add_version(cx, &mut policy, &fresh);
        nothing()
    })
}

pub fn create_version(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let policy = imported(cx, args.str("name"))?;
    let name = policy.name.clone();
    let kind = policy.kind;
    let into = args.opt_int("version");
    with_material(cx, args, kind, move |cx, fresh| {
        let mut policy = (*imported(cx, &name)?).clone();
        let Some(n) = into else {
            store::add_version(cx, &mut policy, &fresh);
            return nothing();
        };
        let n = u64::try_from(n).ok().filter(|n| (policy.min_available.max(1)..=policy.latest).contains(n));
        let n = n.ok_or_else(|| Error::invalid("key version does not exist"))?;
        let known = store::load_version(cx, &policy, n)?;
        if !known.is_public_only() {
            return Err(Error::invalid("private key imported, key version cannot be updated"));
        }
        if fresh.key.is_empty() || known.public != fresh.public {
            return Err(Error::invalid("cannot import key, key pair does not match"));
        }
        let record = Version::record(known.created, &fresh, &known.hmac_key, &known.chain);
        store::save_version(cx, &policy, n, &record);
        rotate::reschedule(cx, &policy, known.created);
        nothing()
    })
}

fn imported(cx: &mut Cx<'_, '_>, name: &str) -> Result<Arc<Policy>, Error> {
    let policy = store::load(cx, name)?.ok_or_else(|| {
        Error::invalid(format!("no key found with name {name}; to import a new key, use the import/ endpoint"))
    })?;
    policy.alive()?;
    if !policy.imported {
        return Err(Error::invalid("the import_version endpoint can only be used with an imported key"));
    }
    Ok(policy)
}

/// A version in the form in which keys travel.
pub fn wrappable(version: &Version) -> Result<Zeroizing<Vec<u8>>, Error> {
    if version.is_public_only() {
        return Err(Error::invalid("requested version for export does not contain a private part"));
    }
    Ok(match &version.material {
        Material::Ed25519(Some(key)) => key.pkcs8().map_err(|_| Error::internal("encoding a key"))?,
        _ => version.key.clone(),
    })
}

/// Wraps a key for the holder of an RSA key.
pub fn wrap(to: &RsaPublic, hash: Hash, key: &[u8], rng: &mut dyn Entropy) -> Result<Vec<u8>, Error> {
    kwp::wrap_for(to, hash, key, rng).ok_or_else(|| Error::internal("wrapping a key"))
}
