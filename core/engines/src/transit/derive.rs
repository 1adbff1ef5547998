//! Keys derived from a context, and nonces derived from the text.

use super::policy::Policy;
use super::version::Version;
use ringfence_crypto::asymmetric::ed25519::Ed25519Private;
use ringfence_crypto::cipher::{Cipher, CipherKey};
use ringfence_crypto::hash::{Hash, hkdf_sha256_into};
use zeroize::Zeroizing;

/// Said when a derived key is used without a context.
pub const MISSING_CONTEXT: &str = "missing 'context' for key derivation; the key was created using a derived key, which means additional, per-request information must be included in order to perform operations with the key";

/// Bytes of the key that convergent nonces are made with.
const NONCE_KEY_BYTES: usize = 32;

/// A cipher's key for one context, and the key of its convergent nonces.
pub struct Derived {
    /// The cipher's key.
    pub cipher: CipherKey,
    /// Empty unless the key is convergent.
    pub nonce_key: Zeroizing<Vec<u8>>,
}

/// Derives a cipher's key: HKDF-SHA256 of the key with the context as info; a convergent key takes 32 bytes more.
pub fn cipher(policy: &Policy, version: &Version, cipher: Cipher, context: &[u8]) -> Result<Derived, String> {
    if context.is_empty() {
        return Err(MISSING_CONTEXT.to_owned());
    }
    let key_bytes = cipher.key_bytes();
    let mut okm = Zeroizing::new([0; 32 + NONCE_KEY_BYTES]);
    let okm = &mut okm[..key_bytes + NONCE_KEY_BYTES];
    hkdf_sha256_into(&version.key, context, okm);
    let nonce_key = match policy.convergent {
        0 => Zeroizing::new(Vec::new()),
        // the second form made nonces with the context itself
        2 => Zeroizing::new(context.to_vec()),
        _ => Zeroizing::new(okm[key_bytes..].to_vec()),
    };
    let expanded = cipher.key(&okm[..key_bytes]).ok_or("could not derive key, length not correct")?;
    Ok(Derived { cipher: expanded, nonce_key })
}

/// The convergent nonce of a text.
pub fn nonce(nonce_key: &[u8], text: &[u8], bytes: usize) -> Vec<u8> {
    let mut code = Hash::Sha256.hmac(nonce_key, text);
    code.truncate(bytes);
    code
}

/// Derives an Ed25519 key: the derived bytes are its seed.
pub fn ed25519(version: &Version, context: &[u8]) -> Result<Ed25519Private, String> {
    if context.is_empty() {
        return Err(MISSING_CONTEXT.to_owned());
    }
    let mut seed = Zeroizing::new([0; 32]);
    hkdf_sha256_into(&version.key, context, &mut seed[..]);
    Ok(Ed25519Private::from_seed(&seed))
}
