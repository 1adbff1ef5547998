//! Private and public keys of the signature and encryption schemes that engines offer: ECDSA on the NIST curves,
//! Ed25519, RSA, ML-DSA. A key is decoded once and then used many times; what leaves a private key as bytes is zeroed
//! when dropped. Signing is a pure function of its inputs or draws randomness inside the library.

pub mod ec;
pub mod ed25519;
pub mod ml_dsa;
pub mod rsa;

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl std::fmt::Display for NotAKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes are no key of this kind")
    }
}

impl std::error::Error for NotAKey {}

/// A private key operation that the library refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the cryptographic library refused the operation")
    }
}

impl std::error::Error for Refused {}

/// A big-endian number in decimal digits.
pub fn decimal(number: &[u8]) -> String {
    ::rsa::BigUint::from_bytes_be(number).to_string()
}

/// The big-endian bytes of a number in decimal digits.
pub fn from_decimal(text: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // the longest number in a key has 16384 bits, 4933 digits
    if !digits || text.len() > 5000 {
        return None;
    }
    Some(zeroize::Zeroizing::new(::rsa::BigUint::parse_bytes(text.as_bytes(), 10)?.to_bytes_be()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_trip() {
        assert_eq!(decimal(&[1, 0]), "256");
        assert_eq!(from_decimal("256").as_deref(), Some(&vec![1, 0]));
        for bad in ["", "-1", "1e3", "0x10", "1.5", &"9".repeat(5001)] {
            assert!(from_decimal(bad).is_none(), "{bad}");
        }
    }
}
