//! Wrapping tokens as JWT: the same wrapping token inside a signed envelope, so that whoever receives one can check
//! where it comes from before he spends it. The key is made at its first use and stands among the configuration.
//! Called by [`crate::wrap`] when one is asked for, and by the token check when one comes back. Source: Vault signs
//! with ES512 and names the claims `jti`, `iat`, `exp`, `type`, `addr` and `accessor`.

use crate::tables;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_barrier::Txn;
use ringfence_base::{NsId, Wall};
use ringfence_crypto::es512::Es512Key;
use ringfence_logical::Error;
use serde_json::{Value, json};

const KEY_TOPIC: &str = "core/wrapping-jwt-key";
const HEADER: &str = "{\"alg\":\"ES512\",\"typ\":\"JWT\"}";

/// What a token says of itself.
pub struct Claims<'c> {
    /// The wrapping token inside.
    pub token: &'c str,
    /// When it was made.
    pub created: Wall,
    /// Seconds it lives.
    pub ttl: u64,
    /// Where it can be opened.
    pub address: &'c str,
    /// Accessor of the credential inside.
    pub accessor: Option<&'c str>,
}

/// Signs a wrapping token.
///
/// # Errors
/// Internal ones of the library or of the stored key.
pub fn sign(txn: &mut Txn<'_>, claims: &Claims<'_>) -> Result<String, Error> {
    let key = key(txn)?;
    let issued = claims.created.0 / ringfence_base::duration::SECOND_NS;
    let mut body = json!({
        "addr": claims.address, "exp": issued + claims.ttl, "iat": issued, "jti": claims.token, "type": "wrapping",
    });
    if let Some(accessor) = claims.accessor {
        body["accessor"] = accessor.into();
    }
    let mut text = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(body.to_string()));
    let signature = key.sign(text.as_bytes()).map_err(|_| Error::internal("a wrapping token was not signed"))?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}

/// Whether a token's text has the form of a JWT: no other token has two dots.
pub fn is_one(raw: &str) -> bool {
    raw.starts_with("eyJ") && raw.matches('.').count() == 2
}

/// The wrapping token inside a JWT that this cluster signed; `None` for any other.
///
/// # Errors
/// The stored key cannot be read.
pub fn inside(txn: &mut Txn<'_>, raw: &str) -> Result<Option<String>, Error> {
    let Some(key) = stored(txn)? else { return Ok(None) };
    let Some((signed, signature)) = raw.rsplit_once('.') else { return Ok(None) };
    let Some((header, body)) = signed.split_once('.') else { return Ok(None) };
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let (Some(signature), Some(header), Some(body)) = (decoded(signature), decoded(header), decoded(body)) else {
        return Ok(None);
    };
    // the key has one algorithm; what the header asks for cannot choose another, and must not pretend to
    let said: Value = serde_json::from_slice(&header).unwrap_or_default();
    if said["alg"] != "ES512" || !key.verifies(signed.as_bytes(), &signature) {
        return Ok(None);
    }
    let claims: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(claims["jti"].as_str().filter(|id| claims["type"] == "wrapping" && !is_one(id)).map(str::to_owned))
}

/// The public key as PEM.
///
/// # Errors
/// As [`sign`].
pub fn public_pem(txn: &mut Txn<'_>) -> Result<String, Error> {
    key(txn)?.public_pem().map_err(|_| Error::internal("the public key cannot be written"))
}

/// The key, made if there is none.
fn key(txn: &mut Txn<'_>) -> Result<Es512Key, Error> {
    if let Some(key) = stored(txn)? {
        return Ok(key);
    }
    let unable = |_| Error::internal("a signing key cannot be made");
    let key = Es512Key::generate().map_err(unable)?;
    let bytes = key.to_pkcs8().map_err(unable)?;
    txn.put(tables::config(NsId::ROOT, KEY_TOPIC), &[], &bytes);
    Ok(key)
}

fn stored(txn: &mut Txn<'_>) -> Result<Option<Es512Key>, Error> {
    match txn.get(&tables::config(NsId::ROOT, KEY_TOPIC))? {
        None => Ok(None),
        Some(plain) => Es512Key::from_pkcs8(&plain.bytes)
            .map(Some)
            .map_err(|_| Error::internal("the stored signing key is none")),
    }
}
