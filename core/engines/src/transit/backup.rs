//! Backup and restore. The text is base64 of the JSON that Vault makes of a key, so that keys move both ways: settings
//! under `policy`, every version under `archived_keys` (by version less `min_available_version`), and those that
//! decrypt once more under `policy.keys`.

use super::kind::KeyKind;
use super::policy::{CONVERGENT_VERSION, Event, Policy};
use super::version::{Fresh, Material, Version, material};
use super::{keys, rotate, store, text};
use ringfence_base::Wall;
use ringfence_crypto::asymmetric::ec::{Curve, EcPrivate};
use ringfence_crypto::asymmetric::rsa::RsaPrivate;
use ringfence_crypto::asymmetric::{decimal, ed25519, from_decimal};
use ringfence_crypto::cipher::Cipher;
use ringfence_crypto::pem;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Vault's numbers of the key types. ML-DSA has none that is published; ours begins far above.
const NUMBERS: &[(i64, KeyKind)] = &[
    (0, KeyKind::Aead(Cipher::Aes256Gcm)),
    (1, KeyKind::Ecdsa(Curve::P256)),
    (2, KeyKind::Ed25519),
    (3, KeyKind::Rsa(2048)),
    (4, KeyKind::Rsa(4096)),
    (5, KeyKind::Aead(Cipher::ChaCha20Poly1305)),
    (6, KeyKind::Ecdsa(Curve::P384)),
    (7, KeyKind::Ecdsa(Curve::P521)),
    (8, KeyKind::Aead(Cipher::Aes128Gcm)),
    (9, KeyKind::Rsa(3072)),
    (11, KeyKind::Hmac),
    (11, KeyKind::Aead(Cipher::XChaCha20Poly1305)),
    // as no number of Vault's is published for these either
    (10_128, KeyKind::Cmac(128)),
    (10_192, KeyKind::Cmac(192)),
    (10_256, KeyKind::Cmac(256)),
    (10_044, KeyKind::MlDsa(ringfence_crypto::asymmetric::ml_dsa::ParameterSet::MlDsa44)),
    (10_065, KeyKind::MlDsa(ringfence_crypto::asymmetric::ml_dsa::ParameterSet::MlDsa65)),
    (10_087, KeyKind::MlDsa(ringfence_crypto::asymmetric::ml_dsa::ParameterSet::MlDsa87)),
];
/// OpenBao's number of HMAC keys; Vault's at that place cannot be backed up.
const OPENBAO_HMAC: i64 = 10;
/// HKDF-SHA256, the only derivation there is here.
const HKDF: i64 = 1;
/// Most versions of a key that is restored: one transaction holds them all.
const MAX_VERSIONS: u64 = 4000;

fn number(kind: KeyKind) -> i64 {
    NUMBERS.iter().find(|(_, k)| *k == kind).map_or(-1, |(n, _)| *n)
}

/// Both servers' numbers: OpenBao's XChaCha20 and Vault's HMAC share one, but only HMAC has a key size.
fn kind_of(number: i64, key_size: u64) -> Option<KeyKind> {
    match (number, key_size) {
        (OPENBAO_HMAC, _) => Some(KeyKind::Hmac),
        (11, 0) => Some(KeyKind::Aead(Cipher::XChaCha20Poly1305)),
        (n, _) => NUMBERS.iter().find(|(m, _)| *m == n).map(|(_, k)| *k),
    }
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let policy = store::load(cx, name)?.ok_or_else(|| Error::plain(&format!("key {name:?} not found")))?;
    policy.alive()?;
    if !policy.exportable {
        return Err(Error::plain("exporting is disallowed on the policy"));
    }
    if !policy.plaintext_backup {
        return Err(Error::plain("plaintext backup is disallowed on the policy"));
    }
    let mut policy = (*policy).clone();
    policy.backup = Some(Event { at: cx.now, version: policy.latest });
    let mut archive = Vec::new();
    let mut current = serde_json::Map::new();
    if policy.min_available == 0 {
        // the place of version 0, which never was
        archive.push(json!({"key": null, "hmac_key": null, "time": "0001-01-01T00:00:00Z", "creation_time": 0}));
    }
    for n in policy.min_available.max(1)..=policy.latest {
        let version = store::load_version(cx, &policy, n)?;
        let entry = entry_of(&policy, &version)?;
        if n >= policy.min_decryption {
            current.insert(n.to_string(), entry.clone());
        }
        archive.push(entry);
    }
    let event = |e: &Option<Event>| e.as_ref().map(|e| json!({"time": e.at.rfc3339(), "version": e.version}));
    let mut body = json!({
        "name": policy.name,
        "keys": current,
        "derived": policy.derived,
        "kdf": if policy.derived { HKDF } else { 0 },
        "convergent_encryption": policy.convergent > 0,
        "exportable": policy.exportable,
        "min_decryption_version": policy.min_decryption,
        "min_encryption_version": policy.min_encryption,
        "latest_version": policy.latest,
        "archive_version": policy.latest,
        "archive_min_version": 0,
        "min_available_version": policy.min_available,
        "deletion_allowed": policy.deletion_allowed,
        "convergent_version": if policy.convergent > 0 { -1 } else { 0 },
        "type": number(policy.kind),
        "backup_info": event(&policy.backup),
        "restore_info": event(&policy.restore),
        "allow_plaintext_backup": policy.plaintext_backup,
        "version_template": "",
        "storage_prefix": "",
        "auto_rotate_period": policy.auto_rotate.saturating_mul(1_000_000_000),
        "Imported": policy.imported,
        "AllowImportedKeyRotation": policy.imported_rotation,
        "soft_deleted": policy.soft_deleted,
    });
    if policy.kind == KeyKind::Hmac {
        body["key_size"] = policy.key_size.into();
    }
    let whole = json!({"policy": body, "archived_keys": {"keys": archive}});
    let bytes = Zeroizing::new(serde_json::to_vec(&whole).expect("a JSON tree always serialises"));
    store::save(cx, &policy);
    Response::json(json!({ "backup": text::encode(&bytes) })).done()
}

/// A number too long for the usual JSON reader.
fn numeral(digits: &str) -> Result<Value, Error> {
    serde_json::from_str(digits).map_err(|_| Error::internal("a number that is none"))
}

fn entry_of(policy: &Policy, version: &Version) -> Result<Value, Error> {
    let failed = |_| Error::internal("encoding a key");
    let mut e = json!({
        "key": null,
        "hmac_key": text::encode(&version.hmac_key),
        "time": version.created.rfc3339(),
        "ec_x": null, "ec_y": null, "ec_d": null, "rsa_key": null, "rsa_public_key": null,
        "public_key": keys::public_text(version),
        "convergent_version": if policy.convergent > 0 { policy.convergent } else { 0 },
        "creation_time": version.created.seconds(),
        "certificate_chain": version.chain.iter().map(|c| text::encode(c)).collect::<Vec<_>>(),
    });
    match &version.material {
        Material::Ecdsa(private, public) => {
            let (x, y) = public.point()[1..].split_at(public.curve().field_bytes());
            e["ec_x"] = numeral(&decimal(x))?;
            e["ec_y"] = numeral(&decimal(y))?;
            if let Some(private) = private {
                e["ec_d"] = numeral(&decimal(&private.scalar().map_err(failed)?))?;
            }
        }
        Material::Rsa(private, public) => {
            let (n, exponent) = public.numbers();
            let public = json!({"N": numeral(&decimal(&n))?, "E": numeral(&decimal(&exponent))?});
            if let Some(private) = private {
                let (_, _, d, primes) = private.decimals();
                let primes: Result<Vec<Value>, Error> = primes.iter().map(|p| numeral(p)).collect();
                e["rsa_key"] = json!({"N": public["N"], "E": public["E"], "D": numeral(&d)?, "Primes": primes?});
            }
            e["rsa_public_key"] = public;
        }
        _ if version.is_public_only() => {}
        _ => e["key"] = text::encode(&version.key).into(),
    }
    Ok(e)
}

/// Words for a backup that is not one.
fn unreadable(why: &str) -> Error {
    Error::invalid(format!("failed to restore the key: {why}"))
}

pub fn restore(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let backup = args.opt_str("backup").filter(|b| !b.is_empty());
    let backup = backup.ok_or_else(|| Error::invalid("'backup' must be supplied"))?;
    let bytes = Zeroizing::new(text::decode(backup).map_err(|e| unreadable(&e))?);
    let whole: Value = serde_json::from_slice(&bytes).map_err(|_| unreadable("it is no JSON"))?;
    let body = &whole["policy"];
    let wanted = args.str("name");
    let name = if wanted.is_empty() { body["name"].as_str().unwrap_or("") } else { wanted };
    if name.contains('/') {
        return Err(Error::invalid("key names cannot be paths"));
    }
    if !ringfence_base::path::is_name(name) {
        return Err(unreadable("it has no name"));
    }
    let existing = store::load(cx, name)?;
    if existing.is_some() && !args.bool("force") {
        return Err(Error::plain(&format!("key {name:?} already exists")));
    }
    let (mut policy, entries) = read_backup(name, &whole)?;
    policy.restore = Some(Event { at: cx.now, version: policy.latest });
    if let Some(existing) = existing {
        store::erase(cx, &existing);
    }
    let mut newest = cx.now;
    for (n, entry) in entries {
        newest = entry.created;
        let record = Version::record(entry.created, &entry.fresh, &entry.hmac_key, &entry.chain);
        store::save_version(cx, &policy, n, &record);
    }
    store::save(cx, &policy);
    rotate::reschedule(cx, &policy, newest);
    nothing()
}

struct Entry {
    created: Wall,
    fresh: Fresh,
    hmac_key: Zeroizing<Vec<u8>>,
    chain: Vec<Vec<u8>>,
}

/// Settings and versions of a backup, all checked before anything is written.
fn read_backup(name: &str, whole: &Value) -> Result<(Policy, Vec<(u64, Entry)>), Error> {
    let body = &whole["policy"];
    let int = |key: &str| body[key].as_u64().unwrap_or(0);
    let flag = |key: &str| body[key].as_bool().unwrap_or(false);
    let number = body["type"].as_i64().ok_or_else(|| unreadable("it has no key type"))?;
    let kind = kind_of(number, int("key_size")).ok_or_else(|| unreadable("its key type is unknown"))?;
    let mut policy = Policy::new(name, kind);
    policy.derived = flag("derived");
    if policy.derived && int("kdf") != HKDF as u64 {
        return Err(unreadable("its key derivation is one that is no longer used"));
    }
    policy.exportable = flag("exportable");
    policy.plaintext_backup = flag("allow_plaintext_backup");
    policy.deletion_allowed = flag("deletion_allowed");
    policy.min_decryption = int("min_decryption_version").max(1);
    policy.min_encryption = int("min_encryption_version");
    policy.min_available = int("min_available_version");
    policy.latest = int("latest_version");
    policy.auto_rotate = int("auto_rotate_period") / 1_000_000_000;
    policy.imported = flag("Imported");
    policy.imported_rotation = flag("AllowImportedKeyRotation");
    policy.soft_deleted = flag("soft_deleted");
    policy.backup = body["backup_info"]["time"]
        .as_str()
        .and_then(Wall::parse_rfc3339)
        .map(|at| Event { at, version: body["backup_info"]["version"].as_u64().unwrap_or(0) });
    let oldest = policy.min_available.max(1);
    let in_order = policy.min_available <= policy.min_decryption
        && policy.min_decryption <= policy.latest
        && policy.min_encryption <= policy.latest
        && (policy.min_encryption == 0 || policy.min_encryption >= policy.min_decryption);
    if policy.latest == 0 || policy.latest - oldest.min(policy.latest) >= MAX_VERSIONS || !in_order {
        return Err(unreadable("its versions do not fit each other"));
    }
    let mut entries = Vec::new();
    for n in oldest..=policy.latest {
        let current = &body["keys"][n.to_string()];
        let place = usize::try_from(n - policy.min_available).unwrap_or(usize::MAX);
        let archived = &whole["archived_keys"]["keys"][place];
        let found = if current.is_object() { current } else { archived };
        if flag("convergent_encryption") {
            // either the version says, or the whole key does
            let own = found["convergent_version"].as_i64().filter(|v| *v > 0);
            let shared = body["convergent_version"].as_i64().filter(|v| *v > 0);
            policy.convergent = match own.or(shared) {
                Some(2) => 2,
                Some(3) | None => CONVERGENT_VERSION,
                Some(_) => return Err(unreadable("its convergent nonces are of a form that is no longer used")),
            };
        }
        entries.push((n, read_entry(kind, found).ok_or_else(|| unreadable(&format!("version {n} is no key")))?));
    }
    if kind == KeyKind::Hmac {
        policy.key_size = entries.last().map_or(0, |(_, e)| e.fresh.key.len());
    }
    Ok((policy, entries))
}

fn read_entry(kind: KeyKind, e: &Value) -> Option<Entry> {
    let bytes = |key: &str| -> Option<Zeroizing<Vec<u8>>> {
        match &e[key] {
            Value::Null => Some(Zeroizing::new(Vec::new())),
            Value::String(s) => text::decode(s).ok().map(Zeroizing::new),
            _ => None,
        }
    };
    let key = bytes("key")?;
    let spki = || pem::decode(e["public_key"].as_str()?).map(|(_, der)| der.to_vec());
    let fresh = match kind {
        KeyKind::Ed25519 => {
            let public = match key.get(32..) {
                Some(public) => public.to_vec(),
                None => {
                    let shown = e["public_key"].as_str()?;
                    match pem::decode(shown) {
                        Some((_, der)) => ed25519::public_from_spki(&der).ok()?.to_vec(),
                        None => text::decode(shown).ok()?,
                    }
                }
            };
            Fresh { key, public }
        }
        KeyKind::Ecdsa(curve) => {
            let digits = |key: &str| from_decimal(&e[key].as_number()?.to_string());
            match e["ec_d"].is_null() {
                true => Fresh { key: Zeroizing::new(Vec::new()), public: spki()? },
                false => {
                    let private =
                        EcPrivate::from_numbers(curve, &digits("ec_d")?, &digits("ec_x")?, &digits("ec_y")?).ok()?;
                    let public = private.public().ok()?.spki().to_vec();
                    Fresh { key: Zeroizing::new(private.pkcs8().to_vec()), public }
                }
            }
        }
        KeyKind::Rsa(_) => match e["rsa_key"].is_null() {
            true => Fresh { key: Zeroizing::new(Vec::new()), public: spki()? },
            false => {
                let digits = |v: &Value| v.as_number().map(ToString::to_string).filter(|d| from_decimal(d).is_some());
                let k = &e["rsa_key"];
                let primes: Option<Vec<String>> = k["Primes"].as_array()?.iter().map(digits).collect();
                let primes = primes?;
                if primes.len() != 2 {
                    return None;
                }
                let private =
                    RsaPrivate::from_decimals(&digits(&k["N"])?, &digits(&k["E"])?, &digits(&k["D"])?, &primes)
                        .ok()?;
                let public = private.public().ok()?.spki().to_vec();
                Fresh { key: private.pkcs8().ok()?, public }
            }
        },
        KeyKind::MlDsa(_) => Fresh { key, public: spki()? },
        KeyKind::Aead(_) | KeyKind::Hmac | KeyKind::Cmac(_) => Fresh { key, public: Vec::new() },
    };
    if matches!(kind, KeyKind::Hmac) && fresh.key.is_empty() {
        return None;
    }
    material(kind, &fresh.key, &fresh.public)?;
    let seconds = e["creation_time"].as_u64().map(Wall::from_seconds);
    let created = e["time"].as_str().and_then(Wall::parse_rfc3339).or(seconds)?;
    let hmac_key = bytes("hmac_key")?;
    let hmac_key = if hmac_key.is_empty() && kind == KeyKind::Hmac { fresh.key.clone() } else { hmac_key };
    let chain = match &e["certificate_chain"] {
        Value::Array(list) => list.iter().map(|c| text::decode(c.as_str()?).ok()).collect::<Option<Vec<_>>>()?,
        _ => Vec::new(),
    };
    Some(Entry { created, fresh, hmac_key, chain })
}
