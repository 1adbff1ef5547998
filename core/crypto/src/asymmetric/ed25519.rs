//! Ed25519 (RFC 8032). A private key is its 32-byte seed; where an API shows 64 bytes it is `seed || public key`.

use super::NotAKey;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Bytes of a seed and of a public key.
pub const SEED_BYTES: usize = 32;

/// A private key.
pub struct Ed25519Private {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for Ed25519Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ed25519Private(..)")
    }
}

impl Ed25519Private {
    /// From its seed.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Ed25519Private {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        Ed25519Private { seed: Zeroizing::new(*seed), pair }
    }

    /// From PKCS #8 DER, version 1 or 2 (RFC 8410).
    ///
    /// # Errors
    /// It is no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Ed25519Private, NotAKey> {
        use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| NotAKey)?;
        let seed = pair.seed().map_err(|_| NotAKey)?;
        let seed: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| NotAKey)?;
        let seed: &[u8; SEED_BYTES] = seed.as_ref().try_into().map_err(|_| NotAKey)?;
        Ok(Ed25519Private::from_seed(seed))
    }

    /// PKCS #8 DER, version 1.
    ///
    /// # Errors
    /// The library failed.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, NotAKey> {
        Ok(Zeroizing::new(self.pair.to_pkcs8v1().map_err(|_| NotAKey)?.as_ref().to_vec()))
    }

    /// The seed.
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// The public key's 32 bytes.
    pub fn public(&self) -> [u8; SEED_BYTES] {
        self.pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// `SubjectPublicKeyInfo` of the public key, DER.
    ///
    /// # Errors
    /// The library failed.
    pub fn public_spki(&self) -> Result<Vec<u8>, NotAKey> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| NotAKey)?;
        Ok(der.as_ref().to_vec())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// True if the signature is one of this message by this public key.
pub fn verify(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// The 32 bytes of a public key out of its `SubjectPublicKeyInfo`.
///
/// # Errors
/// It is no such key.
pub fn public_from_spki(der: &[u8]) -> Result<[u8; SEED_BYTES], NotAKey> {
    use rsa::pkcs8::der::Decode;
    use rsa::pkcs8::spki::SubjectPublicKeyInfoRef;
    let parsed = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| NotAKey)?;
    if parsed.algorithm.oid.to_string() != "1.3.101.112" {
        return Err(NotAKey);
    }
    parsed.subject_public_key.as_bytes().ok_or(NotAKey)?.try_into().map_err(|_| NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vector_and_encodings() {
        // RFC 8032 7.1, test 2.
        let unhex = |s: &str| hex::decode(s).unwrap();
        let seed: [u8; 32] =
            unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").try_into().unwrap();
        let key = Ed25519Private::from_seed(&seed);
        assert_eq!(hex::encode(key.public()), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = key.sign(&[0x72]);
        assert!(
            hex::encode(&signature).starts_with("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
        );
        assert!(verify(&key.public(), &[0x72], &signature) && !verify(&key.public(), &[0x73], &signature));
        let again = Ed25519Private::from_pkcs8(&key.pkcs8().unwrap()).unwrap();
        assert_eq!(again.seed(), key.seed());
        assert_eq!(public_from_spki(&key.public_spki().unwrap()), Ok(key.public()));
        assert!(Ed25519Private::from_pkcs8(b"junk").is_err() && public_from_spki(b"junk").is_err());
        assert!(!verify(b"short", b"", b""));
    }
}
