//! Signing certificates by the rules of a role.

use super::ca;
use super::certificate::{Certificate, Unsigned};
use super::key::{KeyType, Private, with_fresh};
use super::role::{self, Role, parts};
use ringfence_base::Wall;
use ringfence_crypto::hash::Expanded;
use ringfence_logical::side::Compute;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, SideResult, Step};
use serde_json::json;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Said of certificates that would be good for everybody.
pub const EVERYBODY: &str = "refusing to issue unsafe, globally-valid certificate with no principals specified; set valid_principals or default_user";

fn load_role(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Role, Error> {
    let name = args.str("role");
    match role::load(cx, name)? {
        Some(role) if role.key_type == "ca" => Ok(role),
        Some(_) => Err(Error::invalid(format!("role key type '{}' not allowed to sign keys", "otp"))),
        None => Err(Error::invalid(format!("Unknown role: {name}"))),
    }
}

pub fn sign(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role = load_role(cx, args)?;
    let text = args.str("public_key").trim();
    if text.is_empty() {
        return Err(Error::invalid("missing public_key"));
    }
    let key = PublicKey::from_openssh(text)
        .map_err(|e| Error::invalid(format!("failed to parse public_key as SSH key: {e}")))?;
    check_length(&role, &key)
        .map_err(|why| Error::invalid(format!("public_key failed to meet the key requirements: {why}")))?;
    let prepared = prepare(cx, args, &role, &key)?;
    finish(cx, prepared, |serial, line| Response::json(json!({ "serial_number": serial, "signed_key": line })).done())
}

pub fn issue(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role = load_role(cx, args)?;
    let kind = KeyType::parse(args.str("key_type"), args.int("key_bits"))?;
    let shown_type = args.str("key_type").to_owned();
    allowed_type(&role, kind).map_err(|why| Error::invalid(format!("cannot use this key: {why}")))?;
    let args = args.clone();
    with_fresh(cx, kind, move |cx, private| {
        let role = load_role(cx, &args)?;
        let key = PublicKey::from_bytes(&private.public_blob()?).map_err(|_| Error::internal("encoding a key"))?;
        let prepared = prepare(cx, &args, &role, &key)?;
        let (pem, shown_type) = (private.pem()?, shown_type.clone());
        finish(cx, prepared, move |serial, line| {
            Response::json(json!({
                "serial_number": serial,
                "signed_key": line,
                "private_key": pem.as_str(),
                "private_key_type": shown_type,
            }))
            .done()
        })
    })
}

/// A certificate to sign, and who signs it.
struct Prepared {
    serial: String,
    unsigned: Unsigned,
    ca: Arc<Private>,
    rsa_algorithm: String,
}

/// Signs and goes on: at once, or in a side operation for an RSA key, which takes milliseconds.
fn finish(cx: &mut Cx<'_, '_>, prepared: Prepared, then: impl Fn(&str, &str) -> Outcome + Send + 'static) -> Outcome {
    let Prepared { serial, unsigned, ca, rsa_algorithm } = prepared;
    if !matches!(*ca, Private::Rsa(_)) {
        let signature = ca.sign(&rsa_algorithm, &unsigned.bytes, cx.rng)?;
        return then(&serial, &unsigned.line(&signature));
    }
    let mut seed = [0u8; 32];
    cx.rng.fill(&mut seed);
    let op = Compute::op("sign a certificate with RSA", move || {
        match ca.sign(&rsa_algorithm, &unsigned.bytes, &mut Expanded::new(seed)) {
            Ok(signature) => SideResult::Text(unsigned.line(&signature)),
            Err(e) => SideResult::Failed(e.cause.unwrap_or_default()),
        }
    });
    let resume = Box::new(move |_: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Text(line) => then(&serial, line),
        other => Err(Error::internal(format!("signing a certificate: {other:?}"))),
    });
    Ok(Step::Side { op, resume })
}

/// The names a role may know a type by, and the bits of a key of it.
fn type_and_bits(key: &PublicKey) -> Option<(&'static [&'static str], u64)> {
    Some(match key.key_data() {
        KeyData::Rsa(k) => {
            let n = k.n.as_positive_bytes()?;
            let bits = n.len() as u64 * 8 - u64::from(n.first()?.leading_zeros());
            (&["rsa", "ssh-rsa"], bits)
        }
        KeyData::Ecdsa(k) => match k.curve() {
            ssh_key::EcdsaCurve::NistP256 => (&["ec", "ecdsa-sha2-nistp256"], 256),
            ssh_key::EcdsaCurve::NistP384 => (&["ec", "ecdsa-sha2-nistp384"], 384),
            ssh_key::EcdsaCurve::NistP521 => (&["ec", "ecdsa-sha2-nistp521"], 521),
        },
        KeyData::Ed25519(_) => (&["ed25519", "ssh-ed25519"], 256),
        KeyData::Dsa(_) => (&["dsa", "ssh-dss"], 1024),
        KeyData::SkEd25519(_) => (&["ed25519-sk", "sk-ssh-ed25519@openssh.com"], 256),
        KeyData::SkEcdsaSha2NistP256(_) => (&["ecdsa-sk", "sk-ecdsa-sha2-nistp256@openssh.com"], 256),
        _ => return None,
    })
}

fn check_length(role: &Role, key: &PublicKey) -> Result<(), String> {
    if role.allowed_user_key_lengths.is_empty() {
        return Ok(());
    }
    let (names, bits) = type_and_bits(key).ok_or("unknown key type")?;
    judge(role, names, bits)
}

fn allowed_type(role: &Role, kind: KeyType) -> Result<(), String> {
    use ringfence_crypto::asymmetric::ec::Curve;
    if role.allowed_user_key_lengths.is_empty() {
        return Ok(());
    }
    match kind {
        KeyType::Rsa(bits) => judge(role, &["rsa", "ssh-rsa"], u64::from(bits)),
        KeyType::Ed25519 => judge(role, &["ed25519", "ssh-ed25519"], 256),
        KeyType::Ec(Curve::P256) => judge(role, &["ec", "ecdsa-sha2-nistp256"], 256),
        KeyType::Ec(Curve::P384) => judge(role, &["ec", "ecdsa-sha2-nistp384"], 384),
        KeyType::Ec(Curve::P521) => judge(role, &["ec", "ecdsa-sha2-nistp521"], 521),
    }
}

fn judge(role: &Role, names: &[&str], bits: u64) -> Result<(), String> {
    let Some(lengths) = names.iter().find_map(|n| role.allowed_user_key_lengths.get(*n)) else {
        return Err(format!("key type of {} is not allowed", names[0]));
    };
    // zero leaves the length open
    match lengths.iter().any(|l| *l == bits || *l == 0) {
        true => Ok(()),
        false => Err(format!("key is of an invalid size: {bits}")),
    }
}

/// Judges a request by the role's rules and makes what is to be signed.
fn prepare(cx: &mut Cx<'_, '_>, args: &Args, role: &Role, key: &PublicKey) -> Result<Prepared, Error> {
    let is_host = match args.str("cert_type") {
        "user" if !role.allow_user_certificates => {
            return Err(Error::invalid("cert_type 'user' is not allowed by role"));
        }
        "host" if !role.allow_host_certificates => {
            return Err(Error::invalid("cert_type 'host' is not allowed by role"));
        }
        "user" => false,
        "host" => true,
        _ => return Err(Error::invalid("cert_type must be either 'user' or 'host'")),
    };
    let principals = principals(cx, args, role, is_host)?;
    let ttl = time_to_live(cx, args, role)?;
    let key_id = key_id(cx, args, role, key)?;
    let critical = critical_options(args, role)?;
    let extensions = extensions(cx, args, role)?;
    let ca = ca::private(cx)?
        .ok_or_else(|| Error::invalid("failed to read CA private key: keys haven't been configured yet"))?;
    let mut serial = [0; 8];
    cx.rng.fill(&mut serial);
    let serial = u64::from_be_bytes(serial);
    let now = cx.now.seconds();
    let certificate = Certificate {
        key,
        serial,
        is_host,
        key_id: &key_id,
        principals: &principals,
        valid_after: now.saturating_sub(role.not_before),
        valid_before: Wall::from_seconds(now).plus_seconds(ttl).seconds(),
        critical_options: &critical,
        extensions: &extensions,
    };
    let unsigned = certificate.unsigned(&ca, cx.rng)?;
    Ok(Prepared { serial: format!("{serial:x}"), unsigned, ca, rsa_algorithm: role.algorithm_signer.clone() })
}

/// Fills a text from the caller's identity; what the identity has not is no match.
fn fill(cx: &mut Cx<'_, '_>, text: &str) -> Result<Option<String>, Error> {
    let entity = cx.principal.map_or("", |p| p.entity_id.as_str());
    let host = cx.host;
    host.fill_template(cx.txn, entity, text)
}

fn principals(cx: &mut Cx<'_, '_>, args: &Args, role: &Role, is_host: bool) -> Result<Vec<String>, Error> {
    let asked: Vec<String> = parts(args.str("valid_principals")).map(str::to_owned).collect();
    let (allowed, templated) = match is_host {
        true => (&role.allowed_domains, role.allowed_domains_template),
        false => (&role.allowed_users, role.allowed_users_template),
    };
    let mut valid = Vec::new();
    for entry in parts(allowed) {
        if !templated {
            valid.push(entry.to_owned());
        } else if let Some(filled) = fill(cx, entry)? {
            // a comma would be two names where the role has one
            if !filled.contains(',') {
                valid.push(filled);
            }
        }
    }
    if asked.is_empty() {
        let default = match (is_host, role.default_user.is_empty()) {
            (false, false) if role.default_user_template => {
                fill(cx, &role.default_user)?.filter(|u| !u.contains(','))
            }
            (false, false) => Some(role.default_user.clone()),
            _ => None,
        };
        return match default {
            Some(user) => Ok(vec![user]),
            None if role.allow_empty_principals => Ok(Vec::new()),
            None => Err(Error::invalid(EVERYBODY)),
        };
    }
    if valid.iter().any(|v| v == "*") {
        return Ok(asked);
    }
    if valid.is_empty() {
        return Err(Error::invalid("role is not configured to allow any principals"));
    }
    for name in &asked {
        let good = match is_host {
            false => valid.contains(name),
            true => valid.iter().any(|domain| {
                let below = name.strip_suffix(domain.as_str()).and_then(|n| n.strip_suffix('.'));
                (role.allow_bare_domains && name == domain)
                    || (role.allow_subdomains && below.is_some_and(|n| !n.is_empty()))
            }),
        };
        if !good {
            return Err(Error::invalid(format!("{name} is not a valid value for valid_principals")));
        }
    }
    Ok(asked)
}

fn time_to_live(cx: &Cx<'_, '_>, args: &Args, role: &Role) -> Result<u64, Error> {
    let max = if role.max_ttl > 0 { role.max_ttl } else { cx.mount.max_ttl };
    match args.seconds("ttl") {
        0 => Ok(if role.ttl > 0 { role.ttl } else { cx.mount.default_ttl }.min(max)),
        asked if asked > max => Err(Error::invalid(format!("ttl is larger than maximum allowed {max}"))),
        asked => Ok(asked),
    }
}

fn key_id(cx: &Cx<'_, '_>, args: &Args, role: &Role, key: &PublicKey) -> Result<String, Error> {
    let asked = args.str("key_id");
    if !asked.is_empty() {
        return match role.allow_user_key_ids {
            true => Ok(asked.to_owned()),
            false => Err(Error::invalid("setting key_id is not allowed by role")),
        };
    }
    let display = cx.principal.map_or("", |p| p.display_name.as_str());
    let fingerprint = key.fingerprint(HashAlg::Sha256);
    let hash: String = fingerprint.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let format = match (role.key_id_format.as_str(), display) {
        ("", "") => "vault-{{public_key_hash}}",
        ("", _) => "vault-{{token_display_name}}-{{public_key_hash}}",
        (own, _) => own,
    };
    Ok(format
        .replace("{{token_display_name}}", display)
        .replace("{{role_name}}", args.str("role"))
        .replace("{{public_key_hash}}", &hash))
}

/// The names of a map that are not on a comma list.
fn strangers<'m>(map: &'m BTreeMap<String, String>, allowed: &str) -> Vec<&'m str> {
    map.keys().map(String::as_str).filter(|k| !parts(allowed).any(|a| a == *k)).collect()
}

fn critical_options(args: &Args, role: &Role) -> Result<BTreeMap<String, String>, Error> {
    let asked = role::texts(args.json("critical_options"), "critical_options")?;
    if asked.is_empty() {
        return Ok(role.default_critical_options.clone());
    }
    if !role.allowed_critical_options.is_empty() {
        let bad = strangers(&asked, &role.allowed_critical_options);
        if !bad.is_empty() {
            return Err(Error::invalid(format!("critical options not on allowed list: [{}]", bad.join(" "))));
        }
    }
    Ok(asked)
}

fn extensions(cx: &mut Cx<'_, '_>, args: &Args, role: &Role) -> Result<BTreeMap<String, String>, Error> {
    let asked = role::texts(args.json("extensions"), "extensions")?;
    if !asked.is_empty() {
        if role.allowed_extensions.trim() != "*" {
            let bad = strangers(&asked, &role.allowed_extensions);
            if !bad.is_empty() {
                return Err(Error::invalid(format!("extensions [{}] are not on allowed list", bad.join(" "))));
            }
        }
        return Ok(asked);
    }
    if !role.default_extensions_template {
        return Ok(role.default_extensions.clone());
    }
    let mut filled = BTreeMap::new();
    for (name, value) in &role.default_extensions {
        let value =
            fill(cx, value)?.ok_or_else(|| Error::invalid(format!("template '{value}' could not be rendered")))?;
        filled.insert(name.clone(), value);
    }
    Ok(filled)
}
