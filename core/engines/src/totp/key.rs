//! Keys: made here, given as base32, or read from an `otpauth` address.

use super::picture;
use crate::page;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use ringfence_crypto::hash::Hash;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

/// Area of keys.
pub const KEYS: u8 = b'k';
/// Area of used steps.
pub const USED: u8 = b'u';
/// Most bytes of a secret.
const MAX_SECRET_BYTES: usize = 1024;

/// A key.
#[derive(Serialize, Deserialize)]
pub struct Key {
    /// The secret, base32 without padding.
    pub secret: String,
    pub issuer: String,
    pub account_name: String,
    /// Seconds.
    pub period: u64,
    /// `SHA1`, `SHA256`, `SHA512`.
    pub algorithm: String,
    pub digits: u32,
    /// Periods before and after.
    pub skew: u64,
}

impl Drop for Key {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Key {
    /// The hash of its codes.
    pub fn hash(&self) -> Option<Hash> {
        hash(&self.algorithm)
    }

    /// The secret's bytes.
    pub fn secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = BASE32_NOPAD.decode(self.secret.as_bytes());
        bytes.map(Zeroizing::new).map_err(|_| Error::internal("a stored secret is no base32"))
    }

    /// The address that authenticators read.
    fn url(&self) -> String {
        let part =
            |s: &str| url::form_urlencoded::byte_serialize(s.as_bytes()).collect::<String>().replace('+', "%20");
        format!(
            "otpauth://totp/{}:{}?algorithm={}&digits={}&issuer={}&period={}&secret={}",
            part(&self.issuer),
            part(&self.account_name),
            self.algorithm,
            self.digits,
            part(&self.issuer),
            self.period,
            self.secret
        )
    }
}

fn hash(name: &str) -> Option<Hash> {
    Some(match name {
        "SHA1" => Hash::Sha1,
        "SHA256" => Hash::Sha256,
        "SHA512" => Hash::Sha512,
        _ => return None,
    })
}

/// What a request says of a key, from its fields or from its address.
struct Wanted {
    key: Zeroizing<String>,
    issuer: String,
    account_name: String,
    period: i64,
    algorithm: String,
    digits: i64,
}

impl Wanted {
    fn read(args: &Args) -> Result<Wanted, Error> {
        let mut wanted = Wanted {
            key: Zeroizing::new(args.str("key").to_owned()),
            issuer: args.str("issuer").to_owned(),
            account_name: args.str("account_name").to_owned(),
            period: args.int("period"),
            algorithm: args.str("algorithm").to_owned(),
            digits: args.int("digits"),
        };
        if !args.str("url").is_empty() {
            wanted.take_url(args.str("url"))?;
        }
        Ok(wanted)
    }

    /// What an address says wins.
    fn take_url(&mut self, text: &str) -> Result<(), Error> {
        let bad = |what: &str| Error::invalid(format!("an error occurred while parsing {what}"));
        let parsed = url::Url::parse(text).map_err(|_| bad("url string"))?;
        let query = |name: &str| parsed.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned());
        let encoded = parsed.path().trim_start_matches('/').replace('+', "%2B");
        // a path's escapes are a form's, but for the plus sign
        let label =
            url::form_urlencoded::parse(encoded.as_bytes()).next().map_or(String::new(), |(n, _)| n.into_owned());
        let (issuer, account) = match label.split_once(':') {
            Some((issuer, account)) => (issuer, account),
            None => ("", label.as_str()),
        };
        match query("issuer").filter(|i| !i.is_empty()) {
            Some(given) => self.issuer = given,
            None if !issuer.is_empty() => self.issuer = issuer.to_owned(),
            None => {}
        }
        self.account_name = account.trim_start().to_owned();
        self.key = Zeroizing::new(query("secret").unwrap_or_default());
        if let Some(period) = query("period") {
            self.period = period.parse().map_err(|_| bad("period value in url"))?;
        }
        if let Some(digits) = query("digits") {
            self.digits = digits.parse().map_err(|_| bad("digits value in url"))?;
        }
        if let Some(algorithm) = query("algorithm") {
            self.algorithm = algorithm;
        }
        Ok(())
    }
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(KEYS, args.str("name").as_bytes()))
}

pub fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let refuse = |text: &'static str| Err(Error::invalid(text));
    let generate = args.bool("generate");
    if generate && !args.str("key").is_empty() {
        return refuse("a key should not be passed if generate is true");
    }
    if generate && !args.str("url").is_empty() {
        return refuse("a url should not be passed if generate is true");
    }
    let wanted = Wanted::read(args)?;
    if !matches!(wanted.digits, 6 | 8) {
        return refuse("the digits value can only be 6 or 8");
    }
    if hash(&wanted.algorithm).is_none() {
        return refuse("the algorithm value is not valid");
    }
    if wanted.period <= 0 {
        return refuse("the period value must be greater than zero");
    }
    let skew = args.int("skew");
    if !matches!(skew, 0 | 1) {
        return refuse("the skew value must be 0 or 1");
    }
    let qr_size = args.int("qr_size");
    if qr_size < 0 {
        return refuse("the qr_size value must be greater than or equal to zero");
    }
    let key_size = args.int("key_size");
    if key_size <= 0 {
        return refuse("the key_size value must be greater than zero");
    }
    if key_size as u64 > MAX_SECRET_BYTES as u64 {
        return Err(Error::invalid(format!("the key_size value must be at most {MAX_SECRET_BYTES}")));
    }
    let secret = match generate {
        true => {
            if wanted.account_name.is_empty() {
                return refuse("the account_name value is required for generated keys");
            }
            if wanted.issuer.is_empty() {
                return refuse("the issuer value is required for generated keys");
            }
            let mut bytes = Zeroizing::new(vec![0; key_size as usize]);
            cx.rng.fill(&mut bytes);
            BASE32_NOPAD.encode(&bytes)
        }
        false if wanted.key.is_empty() => return refuse("the key value is required"),
        false => {
            let text = Zeroizing::new(wanted.key.to_uppercase());
            let text = text.trim_end_matches('=');
            let bytes = BASE32_NOPAD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|e| {
                Error::invalid(format!("invalid key value: illegal base32 data at input byte {}", e.position))
            })?;
            if bytes.is_empty() || bytes.len() > MAX_SECRET_BYTES {
                return Err(Error::invalid(format!("invalid key value: 1 to {MAX_SECRET_BYTES} bytes are accepted")));
            }
            text.to_owned()
        }
    };
    let key = Key {
        secret,
        issuer: wanted.issuer.clone(),
        account_name: wanted.account_name.clone(),
        period: wanted.period as u64,
        algorithm: wanted.algorithm.clone(),
        digits: wanted.digits as u32,
        skew: skew as u64,
    };
    let answer = match generate && args.bool("exported") {
        true => {
            let url = key.url();
            let mut m = Map::new();
            if qr_size > 0 {
                let png = picture::png(&url, qr_size as u64).map_err(Error::invalid)?;
                m.insert("barcode".into(), STANDARD.encode(png).into());
            }
            m.insert("url".into(), url.into());
            Some(Response::data(m))
        }
        false => None,
    };
    let name = args.str("name").as_bytes();
    cx.put_json(KEYS, name, &key);
    // codes of the key before say nothing of this one's
    if cx.exists(USED, name) {
        cx.delete(USED, name);
    }
    match answer {
        Some(response) => response.done(),
        None => nothing(),
    }
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(key) = cx.get_json::<Key>(KEYS, args.str("name").as_bytes())? else { return nothing() };
    Response::json(json!({
        "account_name": key.account_name,
        "algorithm": key.algorithm,
        "digits": key.digits,
        "issuer": key.issuer,
        "period": key.period,
    }))
    .done()
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(KEYS, "", args.str("after"), page::limit(args))?).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    for area in [KEYS, USED] {
        if cx.exists(area, args.str("name").as_bytes()) {
            cx.delete(area, args.str("name").as_bytes());
        }
    }
    nothing()
}
