//! Who we say we are to those who check identity tokens: the issuer, and the two documents under `.well-known`.

use super::signing::ALGORITHMS;
use super::{CONFIG, keys, load, save};
use crate::host::host;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Raw, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long the documents may be kept, seconds.
pub const MAX_AGE_SECONDS: u64 = 3600;
/// Told with every issuer that is set.
pub const ISSUER_WARNING: &str = "If \"issuer\" is set explicitly, all tokens must be validated against that address, \
    including those issued by secondary clusters. Setting issuer to \"\" will restore the default behavior of using the \
    cluster's api_addr as the issuer.";

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/config")
        .fields(&[Field::str("issuer", "Scheme, host and port of the issuer; empty for our own address.")])
        .help("Read or set the issuer of identity tokens.", "")
        .read(read)
        .write(write),
    Path::new("oidc/.well-known/openid-configuration")
        .help("Discovery of identity tokens.", "")
        .public()
        .read(configuration),
    Path::new("oidc/.well-known/keys").help("Public keys of identity tokens.", "").public().read(key_set),
];

#[derive(Default, Serialize, Deserialize)]
struct Config {
    issuer: String,
}

fn read(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let config: Config = load(cx.txn, cx.mount.ns, CONFIG, "")?.unwrap_or_default();
    Response::json(json!({"issuer": config.issuer})).done()
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(issuer) = args.opt_str("issuer") else { return nothing() };
    let issuer = origin(issuer)?;
    let set = !issuer.is_empty();
    save(cx.txn, cx.mount.ns, CONFIG, "", &Config { issuer });
    match set {
        true => Response::default().warn(ISSUER_WARNING).done(),
        false => nothing(),
    }
}

/// An issuer as it is kept: scheme, host and port, or nothing.
///
/// # Errors
/// It is something else.
pub fn origin(text: &str) -> Result<String, Error> {
    let issuer = text.trim_end_matches('/').to_owned();
    match issuer.is_empty() || is_origin(&issuer) {
        true => Ok(issuer),
        false => Err(Error::invalid(
            "invalid issuer, which must include only a scheme, host, and optional port (e.g. https://example.com:8200)",
        )),
    }
}

fn is_origin(text: &str) -> bool {
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let port_at = if host.starts_with('[') { host.find("]:").map(|i| i + 1) } else { host.find(':') };
    let (name, port) = match port_at {
        Some(i) => (&host[..i], Some(&host[i + 1..])),
        None => (host, None),
    };
    !name.is_empty()
        && !name.contains(['/', '?', '#', '@', ' ', '\\'])
        && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// The issuer of this namespace's identity tokens.
pub fn issuer(cx: &mut Cx<'_, '_>) -> Result<String, Error> {
    let config: Config = load(cx.txn, cx.mount.ns, CONFIG, "")?.unwrap_or_default();
    Ok(address(cx, &config.issuer, "identity/oidc"))
}

/// The address of something in this namespace, for outsiders: below an issuer that is set, else below our own address.
pub fn address(cx: &Cx<'_, '_>, set: &str, path: &str) -> String {
    let base = match set {
        "" => host(cx).settings().api_addr.trim_end_matches('/'),
        set => set,
    };
    format!("{base}/v1/{}{path}", cx.mount.ns_path)
}

/// A public document, which may be kept for so many seconds.
pub fn document(v: &Value, max_age: u64) -> Outcome {
    let raw = Raw {
        content_type: "application/json".into(),
        body: v.to_string().into_bytes(),
        headers: vec![("Cache-Control".into(), format!("max-age={max_age}"))],
    };
    Response { raw: Some(raw), ..Response::default() }.done()
}

fn configuration(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let issuer = issuer(cx)?;
    let v = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/keys"),
        "id_token_signing_alg_values_supported": ALGORITHMS.map(|a| a.as_str()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
    });
    document(&v, MAX_AGE_SECONDS)
}

fn key_set(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let set = keys::key_set(cx)?;
    let age = keys::key_set_age(cx)?;
    document(&set, age)
}
