//! The texts that carry a key version: `vault:v<version>:<base64>`, for ciphertexts, signatures and HMACs.

use super::policy::Policy;

/// Said when a version is below what the key allows.
pub const TOO_OLD: &str = "ciphertext or signature version is disallowed by policy (too old)";

/// Splits a text; `what` is `ciphertext` or `signature` and words the refusals.
pub fn parse<'t>(text: &'t str, policy: &Policy, what: &str) -> Result<(u64, &'t str), String> {
    let rest = text.strip_prefix("vault:v").ok_or_else(|| format!("invalid {what}: no prefix"))?;
    let (version, payload) = rest.split_once(':').ok_or_else(|| format!("invalid {what}: wrong number of fields"))?;
    let version: i64 = version.parse().map_err(|_| format!("invalid {what}: version number could not be decoded"))?;
    // the first ciphertexts there were had no number
    let version = if version == 0 { 1 } else { version };
    let version = u64::try_from(version).map_err(|_| TOO_OLD.to_owned())?;
    if version > policy.latest {
        return Err(format!("invalid {what}: version is too new"));
    }
    if version < policy.min_decryption || version < policy.min_available {
        return Err(TOO_OLD.to_owned());
    }
    Ok((version, payload))
}

/// What stands before the payload.
pub fn prefix(version: u64) -> String {
    format!("vault:v{version}:")
}
