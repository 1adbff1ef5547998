//! AES key wrap with padding (RFC 5649), 256-bit keys: how keys travel when they are imported.

use crate::asymmetric::rsa::RsaPublic;
use crate::hash::Hash;
use crate::pem;
use crate::provider::{KEY_BYTES, NotAuthentic};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use ringfence_base::Entropy;
use zeroize::Zeroizing;

/// Wraps a key of at least one byte.
pub fn wrap(kek: &[u8; KEY_BYTES], key: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; key.len() + 16];
    let length = AesKek::new(&AES_256, kek).ok()?.wrap_with_padding(key, &mut out).ok()?.len();
    out.truncate(length);
    Some(out)
}

/// Unwraps a key.
///
/// # Errors
/// It was not wrapped under this key.
pub fn unwrap(kek: &[u8; KEY_BYTES], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    let mut out = Zeroizing::new(vec![0; wrapped.len()]);
    let unwrapped = AesKek::new(&AES_256, kek)
        .and_then(|k| k.unwrap_with_padding(wrapped, &mut out))
        .map_err(|_| NotAuthentic)?;
    let length = unwrapped.len();
    out.truncate(length);
    Ok(out)
}

/// Wraps a key for the holder of an RSA key: `RSA-OAEP(one-time key) || AES-KWP(key)`.
pub fn wrap_for(to: &RsaPublic, hash: Hash, key: &[u8], rng: &mut dyn Entropy) -> Option<Vec<u8>> {
    let mut one_time = Zeroizing::new([0; KEY_BYTES]);
    rng.fill(&mut one_time[..]);
    let mut out = to.encrypt(hash, &one_time[..]).ok()?;
    out.extend_from_slice(&wrap(&one_time, key)?);
    Some(out)
}

/// The hash of an OAEP block, as the API names it.
pub fn oaep_hash(name: &str) -> Option<Hash> {
    Some(match name {
        "" | "SHA256" => Hash::Sha256,
        "SHA1" => Hash::Sha1,
        "SHA224" => Hash::Sha224,
        "SHA384" => Hash::Sha384,
        "SHA512" => Hash::Sha512,
        _ => return None,
    })
}

/// [`wrap_for`] a public key in PEM, by the API's name of the hash.
///
/// # Errors
/// The reason, for people.
pub fn wrap_for_pem(public: &str, hash: &str, key: &[u8], rng: &mut dyn Entropy) -> Result<Vec<u8>, String> {
    let (_, der) = pem::decode(public).ok_or("the wrapping key is not in PEM format")?;
    let to = RsaPublic::from_spki(&der).map_err(|_| "the wrapping key is no RSA key")?;
    let hash = oaep_hash(hash).ok_or_else(|| format!("unsupported hash function: {hash}"))?;
    wrap_for(&to, hash, key, rng).ok_or_else(|| "this hash function or key cannot be used here".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unwraps_what_it_wrapped_and_nothing_else(kek: [u8; 32], key in prop::collection::vec(any::<u8>(), 1..300), bit: usize) {
            let mut wrapped = wrap(&kek, &key).unwrap();
            prop_assert_eq!(wrapped.len(), key.len().div_ceil(8) * 8 + 8);
            prop_assert_eq!(&unwrap(&kek, &wrapped).unwrap()[..], &key[..]);
            let at = bit % (wrapped.len() * 8);
            wrapped[at / 8] ^= 1 << (at % 8);
            prop_assert!(unwrap(&kek, &wrapped).is_err());
            prop_assert!(unwrap(&kek, &key).is_err());
        }
    }
}
