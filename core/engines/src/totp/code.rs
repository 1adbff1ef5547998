//! Codes: made (RFC 4226, RFC 6238) and checked, each once.

use super::key::{KEYS, Key, USED};
use ringfence_base::secret::same_bytes;
use ringfence_crypto::hash::Hash;
use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use serde_json::json;

/// The code of a time step (RFC 4226 5.3).
pub fn code(hash: Hash, secret: &[u8], step: u64, digits: u32) -> String {
    let mac = hash.hmac(secret, &step.to_be_bytes());
    let offset = usize::from(mac[mac.len() - 1] & 0x0f);
    let word = mac[offset..offset + 4].iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) & 0x7fff_ffff;
    format!("{:0width$}", u64::from(word) % 10u64.pow(digits), width = digits as usize)
}

fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Key, Error> {
    let found = cx.get_json::<Key>(KEYS, name.as_bytes())?;
    found.ok_or_else(|| Error::invalid(format!("unknown key: {name}")))
}

fn hash_of(key: &Key) -> Result<Hash, Error> {
    key.hash().ok_or_else(|| Error::internal("a stored key of an unknown algorithm"))
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let key = load(cx, args.str("name"))?;
    let step = cx.now.seconds() / key.period;
    Response::json(json!({ "code": code(hash_of(&key)?, &key.secret_bytes()?, step, key.digits) })).done()
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let shown = args.str("code");
    if shown.is_empty() {
        return Err(Error::invalid("the code value is required"));
    }
    let name = args.str("name");
    let key = load(cx, name)?;
    let (hash, secret) = (hash_of(&key)?, key.secret_bytes()?);
    let now = cx.now.seconds() / key.period;
    let window = now.saturating_sub(key.skew)..=now + key.skew;
    // every step is looked at, so that the time taken tells nothing
    let matching: Vec<u64> = window
        .filter(|step| same_bytes(code(hash, &secret, *step, key.digits).as_bytes(), shown.trim().as_bytes()))
        .collect();
    if matching.is_empty() {
        return Response::json(json!({ "valid": false })).done();
    }
    let mut used: Vec<u64> = cx.get_json(USED, name.as_bytes())?.unwrap_or_default();
    let Some(step) = matching.iter().find(|s| !used.contains(s)) else {
        return Err(Error::invalid("code already used; wait until the next time period"));
    };
    // what no clock of ours can accept again is forgotten
    used.retain(|s| s + 2 * key.skew + 2 > now);
    used.push(*step);
    cx.put_json(USED, name.as_bytes(), &used);
    Response::json(json!({ "valid": true })).done()
}
