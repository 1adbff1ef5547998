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
