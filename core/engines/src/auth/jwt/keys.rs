//! Whose signature counts: static keys, or a key set that is fetched, kept in the image and fetched anew when it is
//! old or does not know a token's key.
//!
//! How often an issuer is asked is bounded: a set is fetched anew for an unknown key only if the kept one is older
//! than [`MIN_AGE_S`], and the shell answers the same question again from its memory for as long, so that tokens
//! with made-up key names (whose logins are refused and leave nothing) do not become requests either.

use super::config::Config;
use crate::jose::{Key, Token};
use crate::outside::{HttpAsk, Outside, Stop};
use ringfence_base::Wall;
use ringfence_logical::{Cx, Error, Map};
use serde_json::{Value, json};

/// Area of what was fetched.
const KNOWN: u8 = b'k';
/// A key set younger than this is not fetched anew, and the shell answers from memory for as long. Seconds.
pub const MIN_AGE_S: u64 = 10;
/// A key set older than this is fetched anew at the next login: keys that the issuer withdrew die with it. Seconds.
const MAX_AGE_S: u64 = 3600;
/// While the issuer does not answer, a set is good for so long. Seconds.
const MAX_STALE_S: u64 = 24 * 3600;
/// Most key sets of `jwks_pairs`.
pub const MAX_SETS: usize = 16;
/// Longest answer of an issuer that is looked at.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// What was fetched.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Known {
    pub fetched: Wall,
    pub discovery: Discovery,
    /// The usable keys of all sets, as they came.
    pub keys: Vec<Value>,
}

/// What is needed of a discovery document (OpenID Connect Discovery 1.0, 3).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Discovery {
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub userinfo_endpoint: String,
    pub jwks_uri: String,
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

pub fn load(cx: &mut Cx<'_, '_>) -> Result<Known, Error> {
    Ok(cx.get_json(KNOWN, b"")?.unwrap_or_default())
}

/// Keeps what was fetched.
pub fn keep(cx: &mut Cx<'_, '_>, config: &Config, known: Known) -> Result<(), Stop> {
    let known = Known { fetched: cx.now, ..known };
    if !config.jwt_validation_pubkeys.is_empty() {
        if cx.exists(KNOWN, b"") {
            cx.delete(KNOWN, b"");
        }
        return Ok(());
    }
    let bytes = serde_json::to_vec(&known).expect("a plain record always serialises");
    crate::check_size(bytes.len())?;
    cx.put(KNOWN, b"", &bytes);
    Ok(())
}

/// Asks the issuer for everything. A refusal's text is for a person who sets the mount up.
pub fn fetch(config: &Config, out: &Outside) -> Result<Known, Stop> {
    let mut known = Known::default();
    if !config.oidc_discovery_url.is_empty() {
        known.discovery = discover(config, out)?;
        let uri = known.discovery.jwks_uri.clone();
        known.keys = key_set(&uri, &config.oidc_discovery_ca_pem, out)?;
    }
    if !config.jwks_url.is_empty() {
        known.keys = key_set(&config.jwks_url, &config.jwks_ca_pem, out)?;
    }
    for pair in &config.jwks_pairs {
        known.keys.extend(key_set(&pair.jwks_url, &pair.jwks_ca_pem, out)?);
    }
    known.keys.truncate(crate::jose::MAX_KEYS);
    Ok(known)
}

fn discover(config: &Config, out: &Outside) -> Result<Discovery, Stop> {
    let issuer = config.oidc_discovery_url.trim_end_matches('/');
    let document =
        fetch_json(&format!("{issuer}/.well-known/openid-configuration"), &config.oidc_discovery_ca_pem, out)?;
    let discovery: Discovery =
        serde_json::from_value(document).map_err(|_| refusal("the discovery document is not as it should be"))?;
    // OpenID Connect Discovery 4.3: an issuer speaks for itself only
    if discovery.issuer.trim_end_matches('/') != issuer {
        return Err(refusal(format!(
            "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
            config.oidc_discovery_url, discovery.issuer
        )));
    }
    Ok(discovery)
}

fn key_set(url: &str, ca_pem: &str, out: &Outside) -> Result<Vec<Value>, Stop> {
    let set = fetch_json(url, ca_pem, out)?;
    let keys = set["keys"].as_array().ok_or_else(|| refusal("the answer is no JSON Web Key Set"))?;
    let usable = keys.iter().take(crate::jose::MAX_KEYS).filter(|k| Key::from_jwk(k).is_some());
    // private parts would be an issuer's blunder; they are not kept here too
    Ok(usable.map(public_part).collect())
}

fn public_part(jwk: &Value) -> Value {
    let mut kept = Map::new();
    for name in ["kty", "kid", "alg", "use", "crv", "n", "e", "x", "y"] {
        if let Some(v) = jwk.get(name) {
            kept.insert(name.into(), v.clone());
        }
    }
    Value::Object(kept)
}

fn fetch_json(url: &str, ca_pem: &str, out: &Outside) -> Result<Value, Stop> {
    let ask =
        HttpAsk { max_answer_bytes: MAX_BODY_BYTES, fresh_s: MIN_AGE_S as u32, ..HttpAsk::get(url).trusting(ca_pem) };
    let answer = out.ask(ask)?.map_err(refusal)?;
    if answer.status != 200 {
        return Err(refusal(format!("{url}: the answer has status {}", answer.status)));
    }
    serde_json::from_slice(&answer.body).map_err(|_| refusal(format!("{url}: the answer is not JSON")))
}

fn refusal(text: impl Into<String>) -> Stop {
    Stop::Refuse(Error::invalid(text.into()))
}

/// Checks the signature of a token and answers its claims. Asks the issuer for its keys where the kept ones do not
/// do, and keeps what it said.
///
/// # Errors
/// The text that stands after `error validating token: `.
pub fn verify(cx: &mut Cx<'_, '_>, config: &Config, out: &Outside, text: &str) -> Result<Result<Map, String>, Stop> {
    let refused = |why: &str| Ok(Err(format!("error verifying token: {why}")));
    let token = match Token::parse(text) {
        Ok(t) => t,
        Err(why) => return refused(why),
    };
    if !config.allows(&token.algorithm) {
        return refused(&format!("unsupported signing algorithm {:?}", token.algorithm));
    }
    const NO_KEY: &str = "no known key successfully validated the token signature";
    if !config.jwt_validation_pubkeys.is_empty() {
        let keys: Vec<Key> = config.jwt_validation_pubkeys.iter().filter_map(|p| Key::from_pem(p).ok()).collect();
        return match token.verify(&keys) {
            Some(claims) => Ok(Ok(claims.clone())),
            None => refused(NO_KEY),
        };
    }
    let mut known = load(cx)?;
    let age = cx.now.since(known.fetched) / 1_000_000_000;
    let verified = token.verify(&usable(&known)).cloned();
    let renew = age >= MAX_AGE_S || (verified.is_none() && age >= MIN_AGE_S);
    if !renew {
        return verified.map_or_else(|| refused(NO_KEY), |claims| Ok(Ok(claims)));
    }
    match fetch(config, out) {
        Ok(fresh) => {
            known = fresh;
            keep(cx, config, known.clone())?;
        }
        Err(Stop::Refuse(e)) if age >= MAX_STALE_S || verified.is_none() => {
            return refused(&format!("fetching keys: {}", e.text()));
        }
        Err(Stop::Refuse(_)) => {}
        Err(ask) => return Err(ask),
    }
    match token.verify(&usable(&known)) {
        Some(claims) => Ok(Ok(claims.clone())),
        None => refused(NO_KEY),
    }
}

fn usable(known: &Known) -> Vec<Key> {
    Key::of_set(&json!({ "keys": known.keys }))
}
