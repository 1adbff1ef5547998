//! Making, describing, configuring and deleting keys.

use super::kind::KeyKind;
use super::policy::{CONVERGENT_VERSION, Policy};
use super::version::{Material, Version};
use super::{derive, rotate, store, text};
use crate::page;
use ringfence_crypto::pem;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// Shortest period of rotation by itself, seconds.
const MIN_ROTATION_SECONDS: u64 = 3600;
const ROTATION_TOO_SHORT: &str = "auto rotate period must be 0 to disable or at least an hour";
/// Bytes of an HMAC key: the least, the usual and the most.
const HMAC_KEY_BYTES: std::ops::RangeInclusive<i64> = 32..=512;

pub fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if let Some(policy) = store::load(cx, name)? {
        return describe(cx, &policy, &[format!("key {name} already existed")]);
    }
    let kind = KeyKind::parse(args.str("type"), args.str("parameter_set"))?;
    let policy = settings(args, kind)?;
    let key_size = policy.key_size;
    store::with_fresh(cx, kind, key_size, move |cx, fresh| {
        if let Some(known) = store::load(cx, &policy.name)? {
            return describe(cx, &known, &[format!("key {} already existed", known.name)]);
        }
        let mut policy = policy.clone();
        store::add_version(cx, &mut policy, fresh);
        describe(cx, &policy, &[])
    })
}

/// The settings that a request gives a new key.
pub fn settings(args: &Args, kind: KeyKind) -> Result<Policy, Error> {
    let mut policy = Policy::new(args.str("name"), kind);
    policy.derived = args.bool("derived");
    if args.bool("convergent_encryption") {
        if !policy.derived {
            return Err(Error::invalid("convergent encryption requires derivation to be enabled"));
        }
        policy.convergent = CONVERGENT_VERSION;
    }
    let convergent_signer = policy.convergent > 0 && !matches!(kind, KeyKind::Aead(_));
    if policy.derived && (!kind.derives() || convergent_signer) {
        return Err(Error::invalid(format!(
            "key derivation and convergent encryption not supported for keys of type {}",
            kind.name()
        )));
    }
    policy.auto_rotate = rotation(args.seconds("auto_rotate_period"))?;
    policy.key_size = match (kind, args.int("key_size")) {
        (KeyKind::Hmac, 0) => 32,
        (KeyKind::Hmac, n) if HMAC_KEY_BYTES.contains(&n) => n as usize,
        (KeyKind::Hmac, n) => return Err(Error::invalid(format!("invalid key_size {n}"))),
        (_, 0) => 0,
        (other, _) => return Err(Error::invalid(format!("key_size is not valid for algorithm {}", other.name()))),
    };
    policy.exportable = args.bool("exportable");
    policy.plaintext_backup = args.bool("allow_plaintext_backup");
    Ok(policy)
}

fn rotation(seconds: u64) -> Result<u64, Error> {
    match seconds {
        0 => Ok(0),
        s if s < MIN_ROTATION_SECONDS => Err(Error::invalid(ROTATION_TOO_SHORT)),
        s => Ok(s),
    }
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(policy) = store::load(cx, args.str("name"))? else { return nothing() };
    let context = text::decode(args.str("context")).map_err(|_| Error::invalid("failed to base64-decode context"))?;
    describe_with(cx, &policy, &context, &[])
}

/// The answer that shows a key.
pub fn describe(cx: &mut Cx<'_, '_>, policy: &Policy, warnings: &[String]) -> Outcome {
    describe_with(cx, policy, &[], warnings)
}

fn describe_with(cx: &mut Cx<'_, '_>, policy: &Policy, context: &[u8], warnings: &[String]) -> Outcome {
    let mut versions = Map::new();
    for n in policy.min_decryption.max(policy.min_available).max(1)..=policy.latest {
        let version = store::load_version(cx, policy, n)?;
        versions.insert(n.to_string(), describe_version(policy, &version, context)?);
    }
    let kind = policy.kind;
    let mut m = match json!({
        "allow_plaintext_backup": policy.plaintext_backup,
        "auto_rotate_period": policy.auto_rotate,
        "deletion_allowed": policy.deletion_allowed,
        "derived": policy.derived,
        "exportable": policy.exportable,
        "imported_key": policy.imported,
        "keys": versions,
        "latest_version": policy.latest,
        "min_available_version": policy.min_available,
        "min_decryption_version": policy.min_decryption,
        "min_encryption_version": policy.min_encryption,
        "name": policy.name,
        "soft_deleted": policy.soft_deleted,
        "supports_decryption": kind.encrypts(),
        "supports_derivation": kind.derives(),
        "supports_encryption": kind.encrypts(),
        "supports_signing": kind.signs(),
        "type": kind.name(),
    }) {
        Value::Object(m) => m,
        _ => Map::new(),
    };
    if kind == KeyKind::Hmac {
        m.insert("key_size".into(), policy.key_size.into());
    }
    if let KeyKind::MlDsa(set) = kind {
        m.insert("parameter_set".into(), set.name().into());
    }
    if policy.imported {
        m.insert("imported_key_allow_rotation".into(), policy.imported_rotation.into());
    }
    for (name, event) in [("backup_info", &policy.backup), ("restore_info", &policy.restore)] {
        if let Some(e) = event {
            m.insert(name.into(), json!({"time": e.at.rfc3339(), "version": e.version}));
        }
    }
    if policy.derived {
        m.insert("kdf".into(), "hkdf_sha256".into());
        m.insert("convergent_encryption".into(), (policy.convergent > 0).into());
        if policy.convergent > 0 {
            // "each version's own", as Vault prints it
            m.insert("convergent_encryption_version".into(), json!(-1));
        }
    }
    let mut response = Response::data(m);
    response.warnings = warnings.to_vec();
    response.done()
}

fn describe_version(policy: &Policy, version: &Version, context: &[u8]) -> Result<Value, Error> {
    if !policy.kind.is_asymmetric() {
        return Ok(version.created.seconds().into());
    }
    let public_key = match (&version.material, policy.derived) {
        (Material::Ed25519(_), true) if context.is_empty() => String::new(),
        (Material::Ed25519(_), true) => {
            text::encode(&derive::ed25519(version, context).map_err(Error::invalid)?.public())
        }
        _ => public_text(version),
    };
    let chain: String = version.chain.iter().map(|c| pem::encode("CERTIFICATE", c).to_string()).collect();
    Ok(json!({
        "name": policy.kind.version_name(),
        "public_key": public_key,
        "creation_time": version.created.rfc3339(),
        "certificate_chain": chain,
    }))
}

/// A public key as the API shows it.
pub fn public_text(version: &Version) -> String {
    match &version.material {
        Material::Ed25519(_) => text::encode(&version.public),
        Material::Aead(_) | Material::Hmac | Material::Cmac => String::new(),
        _ => pem::encode("PUBLIC KEY", &version.public).to_string(),
    }
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut names = cx.list(store::POLICIES, "", args.str("after"), page::limit(args))?;
    // the wrapping key of imports stands in a folder of its own, which is no key
    names.retain(|n| !n.ends_with('/'));
    Response::keys(names).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let refuse = |why: &str| Error::invalid(format!("error deleting policy {name}: {why}"));
    let policy = store::load(cx, name)?.ok_or_else(|| refuse("could not delete key; not found"))?;
    if !policy.deletion_allowed {
        return Err(refuse("deletion is not allowed for this key"));
    }
    store::erase(cx, &policy);
    nothing()
}

pub fn soft_delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    mark(cx, args.str("name"), true)
}

pub fn soft_delete_restore(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    mark(cx, args.str("name"), false)
}

fn mark(cx: &mut Cx<'_, '_>, name: &str, deleted: bool) -> Outcome {
    let policy = load_to_configure(cx, name)?;
    let mut policy = (*policy).clone();
    policy.soft_deleted = deleted;
    store::save(cx, &policy);
    if !deleted {
        let newest = store::load_version(cx, &policy, policy.latest)?.created;
        rotate::reschedule(cx, &policy, newest);
    }
    nothing()
}

fn load_to_configure(cx: &mut Cx<'_, '_>, name: &str) -> Result<std::sync::Arc<Policy>, Error> {
    store::load(cx, name)?.ok_or_else(|| Error::invalid(format!("no existing key named {name} could be found")))
}

pub fn configure(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let old = load_to_configure(cx, args.str("name"))?;
    let newest = store::load_version(cx, &old, old.latest)?.created;
    let mut policy = (*old).clone();
    let mut warnings = Vec::new();
    let above = |what: &str, v: u64| {
        Error::invalid(format!("cannot set min {what} version of {v}, latest key version is {}", old.latest))
    };
    if let Some(v) = args.opt_int("min_decryption_version") {
        let mut v = u64::try_from(v).map_err(|_| Error::invalid("min decryption version cannot be negative"))?;
        if v == 0 {
            v = 1;
            warnings.push("since Vault 0.3, transit key numbering starts at 1; forcing minimum to 1".to_owned());
        }
        if v > policy.latest {
            return Err(above("decryption", v));
        }
        policy.min_decryption = v;
    }
    if let Some(v) = args.opt_int("min_encryption_version") {
        let v = u64::try_from(v).map_err(|_| Error::invalid("min encryption version cannot be negative"))?;
        if v > policy.latest {
            return Err(above("encryption", v));
        }
        policy.min_encryption = v;
    }
    if policy.min_encryption > 0 && policy.min_encryption < policy.min_decryption {
        return Err(Error::invalid(format!(
            "cannot set min encryption/decryption values; min encryption version of {} must be greater than or equal to min decryption version of {}",
            policy.min_encryption, policy.min_decryption
        )));
    }
    if policy.min_available > policy.min_encryption {
        return Err(Error::invalid("min encryption version should not be less than min available version"));
    }
    if policy.min_available > policy.min_decryption {
        return Err(Error::invalid("min decryption version should not be less then min available version"));
    }
    if let Some(allowed) = args.opt_bool("deletion_allowed") {
        policy.deletion_allowed = allowed;
    }
    // both can be turned on only: what could once leave is not made safe by turning it off
    policy.exportable |= args.bool("exportable");
    policy.plaintext_backup |= args.bool("allow_plaintext_backup");
    if let Some(seconds) = args.opt_seconds("auto_rotate_period") {
        policy.auto_rotate = rotation(seconds)?;
        if policy.auto_rotate > 0 && policy.imported && !policy.imported_rotation {
            return Err(Error::invalid("key does not allow rotation within Vault"));
        }
    }
    store::save(cx, &policy);
    rotate::reschedule(cx, &policy, newest);
    describe(cx, &policy, &warnings)
}
