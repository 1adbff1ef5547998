//! ML-DSA (FIPS 204), signatures that a quantum computer does not forge. A private key is its 32-byte seed.

use super::{NotAKey, Refused};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair,
    PqdsaSigningAlgorithm, PqdsaVerificationAlgorithm, UnparsedPublicKey,
};
use zeroize::Zeroizing;

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;

/// A parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParameterSet {
    /// ML-DSA-44, NIST category 2.
    MlDsa44,
    /// ML-DSA-65, category 3.
    MlDsa65,
    /// ML-DSA-87, category 5.
    MlDsa87,
}

impl ParameterSet {
    /// `44`, `65`, `87`.
    pub fn name(self) -> &'static str {
        match self {
            ParameterSet::MlDsa44 => "44",
            ParameterSet::MlDsa65 => "65",
            ParameterSet::MlDsa87 => "87",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<ParameterSet> {
        [ParameterSet::MlDsa44, ParameterSet::MlDsa65, ParameterSet::MlDsa87].into_iter().find(|p| p.name() == name)
    }

    fn signing(self) -> &'static PqdsaSigningAlgorithm {
        match self {
            ParameterSet::MlDsa44 => &ML_DSA_44_SIGNING,
            ParameterSet::MlDsa65 => &ML_DSA_65_SIGNING,
            ParameterSet::MlDsa87 => &ML_DSA_87_SIGNING,
        }
    }

    fn verification(self) -> &'static PqdsaVerificationAlgorithm {
        match self {
            ParameterSet::MlDsa44 => &ML_DSA_44,
            ParameterSet::MlDsa65 => &ML_DSA_65,
            ParameterSet::MlDsa87 => &ML_DSA_87,
        }
    }

    /// True if the signature is one of this message by this public key (raw or `SubjectPublicKeyInfo`).
    pub fn verify(self, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.verification(), public).verify(message, signature).is_ok()
    }

    /// True if the bytes are a public key of this set.
    pub fn is_public_key(self, public: &[u8]) -> bool {
        UnparsedPublicKey::new(self.verification(), public).parse().is_ok()
    }
}

/// A private key.
pub struct MlDsaPrivate {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    pair: PqdsaKeyPair,
    set: ParameterSet,
}

impl std::fmt::Debug for MlDsaPrivate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MlDsaPrivate({})", self.set.name())
    }
}

impl MlDsaPrivate {
    /// From its seed (FIPS 204, algorithm 6).
    ///
    /// # Errors
    /// The library refused it.
    pub fn from_seed(set: ParameterSet, seed: &[u8; SEED_BYTES]) -> Result<MlDsaPrivate, NotAKey> {
        let pair = PqdsaKeyPair::from_seed(set.signing(), seed).map_err(|_| NotAKey)?;
        Ok(MlDsaPrivate { seed: Zeroizing::new(*seed), pair, set })
    }

    /// The seed.
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// The public key, raw.
    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// `SubjectPublicKeyInfo` of the public key, DER (RFC 9881).
    ///
    /// # Errors
    /// The library failed.
    pub fn public_spki(&self) -> Result<Vec<u8>, Refused> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| Refused)?;
        Ok(der.as_ref().to_vec())
    }

    /// Signs a message (pure ML-DSA, empty context).
    ///
    /// # Errors
    /// The library failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut signature = vec![0; self.set.signing().signature_len()];
        let length = self.pair.sign(message, &mut signature).map_err(|_| Refused)?;
        signature.truncate(length);
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_verifies_and_comes_back_from_its_seed() {
        for (set, public_bytes, signature_bytes) in [
            (ParameterSet::MlDsa44, 1312, 2420),
            (ParameterSet::MlDsa65, 1952, 3309),
            (ParameterSet::MlDsa87, 2592, 4627),
        ] {
            let key = MlDsaPrivate::from_seed(set, &[7; 32]).unwrap();
            let signature = key.sign(b"text").unwrap();
            // the sizes of FIPS 204, table 2
            assert_eq!((key.public().len(), signature.len()), (public_bytes, signature_bytes));
            let again = MlDsaPrivate::from_seed(set, key.seed()).unwrap();
            assert_eq!(again.public(), key.public());
            assert!(set.verify(&key.public(), b"text", &signature));
            assert!(set.verify(&key.public_spki().unwrap(), b"text", &signature));
            assert!(!set.verify(&key.public(), b"other", &signature));
            assert!(set.is_public_key(&key.public()) && !set.is_public_key(b"junk"));
            assert_eq!(ParameterSet::parse(set.name()), Some(set));
        }
    }
}
