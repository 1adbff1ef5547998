//! AES key wrap with padding (RFC 5649), 256-bit keys: how keys travel when they are imported.

use crate::provider::{KEY_BYTES, NotAuthentic};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
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
