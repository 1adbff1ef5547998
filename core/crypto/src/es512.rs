//! ECDSA over P-521 with SHA-512 (`ES512` of RFC 7518 3.4): the signature of wrapping tokens in JWT form. The library
//! draws the randomness of key and signature itself.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A signing key.
pub struct Es512Key(EcdsaKeyPair);

/// The library refused: what it was given is no key of this curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl Es512Key {
    /// A fresh key.
    ///
    /// # Errors
    /// The library has no randomness.
    pub fn generate() -> Result<Es512Key, NotAKey> {
        EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).map(Es512Key).map_err(|_| NotAKey)
    }

    /// From PKCS #8.
    ///
    /// # Errors
    /// These are not the bytes of a key of this curve.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Es512Key, NotAKey> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, bytes).map(Es512Key).map_err(|_| NotAKey)
    }

    /// As PKCS #8.
    ///
    /// # Errors
    /// The library cannot write it.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, NotAKey> {
        self.0.to_pkcs8v1().map(|d| d.as_ref().to_vec()).map_err(|_| NotAKey)
    }

    /// Signs a message: r and s, 66 bytes each.
    ///
    /// # Errors
    /// The library has no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotAKey> {
        self.0.sign(&SystemRandom::new(), message).map(|s| s.as_ref().to_vec()).map_err(|_| NotAKey)
    }

    /// Whether a signature over a message was made with this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, self.0.public_key().as_ref());
        public.verify(message, signature).is_ok()
    }

    /// The public half as PEM.
    ///
    /// # Errors
    /// The library cannot write it.
    pub fn public_pem(&self) -> Result<String, NotAKey> {
        let der = self.0.public_key().as_der().map_err(|_| NotAKey)?;
        let text = STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Ok(pem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_bytes_and_signs_for_itself_alone() {
        let key = Es512Key::generate().expect("key");
        let same = Es512Key::from_pkcs8(&key.to_pkcs8().expect("bytes")).expect("key");
        let signature = key.sign(b"message").expect("signature");
        assert_eq!(signature.len(), 132);
        assert!(same.verifies(b"message", &signature) && !same.verifies(b"massage", &signature));
        assert!(!Es512Key::generate().expect("key").verifies(b"message", &signature));
        assert!(Es512Key::from_pkcs8(b"x").is_err());
        assert!(key.public_pem().expect("pem").starts_with("-----BEGIN PUBLIC KEY-----\nMIGb"));
    }
}
