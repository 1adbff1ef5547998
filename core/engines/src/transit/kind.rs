//! The types of keys and what each can do.

use ringfence_crypto::asymmetric::ec::Curve;
use ringfence_crypto::asymmetric::ml_dsa::ParameterSet;
use ringfence_crypto::cipher::Cipher;
use ringfence_logical::Error;

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An authenticated cipher.
    Aead(Cipher),
    /// Ed25519 signatures.
    Ed25519,
    /// ECDSA signatures.
    Ecdsa(Curve),
    /// RSA encryption and signatures; bits of the modulus.
    Rsa(u32),
    /// ML-DSA signatures.
    MlDsa(ParameterSet),
    /// Keyed hashes only.
    Hmac,
    /// Codes by AES; bits of the key.
    Cmac(u32),
}

const NAMES: &[(&str, KeyKind)] = &[
    ("aes128-gcm96", KeyKind::Aead(Cipher::Aes128Gcm)),
    ("aes256-gcm96", KeyKind::Aead(Cipher::Aes256Gcm)),
    ("chacha20-poly1305", KeyKind::Aead(Cipher::ChaCha20Poly1305)),
    ("xchacha20-poly1305", KeyKind::Aead(Cipher::XChaCha20Poly1305)),
    ("ed25519", KeyKind::Ed25519),
    ("ecdsa-p256", KeyKind::Ecdsa(Curve::P256)),
    ("ecdsa-p384", KeyKind::Ecdsa(Curve::P384)),
    ("ecdsa-p521", KeyKind::Ecdsa(Curve::P521)),
    ("rsa-2048", KeyKind::Rsa(2048)),
    ("rsa-3072", KeyKind::Rsa(3072)),
    ("rsa-4096", KeyKind::Rsa(4096)),
    ("hmac", KeyKind::Hmac),
    ("aes128-cmac", KeyKind::Cmac(128)),
    ("aes192-cmac", KeyKind::Cmac(192)),
    ("aes256-cmac", KeyKind::Cmac(256)),
];

/// The API's name of the ML-DSA types; the parameter set is a field of its own.
const ML_DSA: &str = "ml-dsa";

impl KeyKind {
    /// By type and parameter set of a request.
    pub fn parse(name: &str, parameter_set: &str) -> Result<KeyKind, Error> {
        if name == ML_DSA {
            return ParameterSet::parse(parameter_set)
                .map(KeyKind::MlDsa)
                .ok_or_else(|| Error::invalid(format!("invalid parameter set {parameter_set} for key type {name}")));
        }
        let found = NAMES.iter().find(|(n, _)| *n == name).map(|(_, k)| *k);
        found.ok_or_else(|| Error::invalid(format!("unknown key type {name}")))
    }

    /// As the API names it.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, k)| *k == self).map_or(ML_DSA, |(n, _)| n)
    }

    /// The name in stored records, which tells parameter sets apart.
    pub fn stored(self) -> String {
        match self {
            KeyKind::MlDsa(set) => format!("{ML_DSA}-{}", set.name()),
            other => other.name().to_owned(),
        }
    }

    /// Reads [`KeyKind::stored`].
    pub fn from_stored(text: &str) -> Option<KeyKind> {
        match text.strip_prefix("ml-dsa-") {
            Some(set) => ParameterSet::parse(set).map(KeyKind::MlDsa),
            None => NAMES.iter().find(|(n, _)| *n == text).map(|(_, k)| *k),
        }
    }

    /// Encrypts and decrypts.
    pub fn encrypts(self) -> bool {
        matches!(self, KeyKind::Aead(_) | KeyKind::Rsa(_))
    }

    /// Signs and verifies.
    pub fn signs(self) -> bool {
        !matches!(self, KeyKind::Aead(_) | KeyKind::Hmac | KeyKind::Cmac(_))
    }

    /// Keys may be derived from a context.
    pub fn derives(self) -> bool {
        matches!(self, KeyKind::Aead(_) | KeyKind::Ed25519)
    }

    /// Has a public half.
    pub fn is_asymmetric(self) -> bool {
        self.signs()
    }

    /// The name printed with each version of an asymmetric key.
    pub fn version_name(self) -> String {
        match self {
            KeyKind::Ecdsa(curve) => curve.name().to_owned(),
            KeyKind::MlDsa(set) => format!("ml-dsa-{}", set.name()),
            other => other.name().to_owned(),
        }
    }
}

impl serde::Serialize for KeyKind {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.stored())
    }
}

impl<'de> serde::Deserialize<'de> for KeyKind {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<KeyKind, D::Error> {
        let text = String::deserialize(d)?;
        KeyKind::from_stored(&text).ok_or_else(|| serde::de::Error::custom("unknown key type"))
    }
}
