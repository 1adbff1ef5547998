//! OpenPGP encryption (RFC 4880, RFC 9580) of short texts to operators' public keys: unseal shares, root tokens.
//!
//! Only the public side exists here: parse a key, name it by its fingerprint, encrypt to it. Expiry is not judged,
//! because the machine hands out shares to exactly the keys the operator named, and a key's dates are the operator's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgp::composed::{Deserializable, MessageBuilder, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::SignatureType;
use pgp::types::KeyDetails;
use ringfence_base::Entropy;

/// Longest public key accepted, bytes after base64.
pub const MAX_KEY_BYTES: usize = 128 * 1024;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PgpError {
    /// Not base64, or too long.
    NotBase64,
    /// Not one OpenPGP public key, or its self-signatures are wrong.
    NotAKey,
    /// No part of the key may encrypt.
    CannotEncrypt,
    /// A name at keybase, which is not asked.
    Keybase,
}

impl std::fmt::Display for PgpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PgpError::NotBase64 => "error decoding given PGP key: illegal base64 data",
            PgpError::NotAKey => "error parsing given PGP key: not an OpenPGP public key",
            PgpError::Keybase => {
                "error decoding given PGP key: keybase names are not looked up by this server; give the key itself in base64"
            }
            PgpError::CannotEncrypt => "error parsing given PGP key: no key that can encrypt",
        })
    }
}

impl std::error::Error for PgpError {}

/// A public key whose self-signatures were verified and that can encrypt.
#[derive(Clone, Debug)]
pub struct PublicKey {
    key: SignedPublicKey,
}

impl PublicKey {
    /// Parses the base64 text of a binary key, as the API takes it. White space is ignored.
    pub fn from_base64(text: &str) -> Result<PublicKey, PgpError> {
        if text.trim_start().starts_with("keybase:") {
            return Err(PgpError::Keybase);
        }
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if compact.len() > MAX_KEY_BYTES / 3 * 4 {
            return Err(PgpError::NotBase64);
        }
        PublicKey::from_bytes(&STANDARD.decode(compact).map_err(|_| PgpError::NotBase64)?)
    }

    /// Parses a binary key.
    pub fn from_bytes(bytes: &[u8]) -> Result<PublicKey, PgpError> {
        let key = SignedPublicKey::from_bytes(bytes).map_err(|_| PgpError::NotAKey)?;
        key.verify_bindings().map_err(|_| PgpError::NotAKey)?;
        let key = PublicKey { key };
        if key.encryption_subkey().is_none() && !key.primary_encrypts() {
            return Err(PgpError::CannotEncrypt);
        }
        Ok(key)
    }

    /// The fingerprint of the primary key, lower-case hexadecimal (40 digits for version 4).
    pub fn fingerprint(&self) -> String {
        hex::encode(self.key.fingerprint().as_bytes())
    }

    /// Encrypts to this key; the result is a binary OpenPGP message (AES-256, integrity protected).
    pub fn encrypt(&self, plaintext: &[u8], rng: &mut dyn Entropy) -> Result<Vec<u8>, PgpError> {
        let mut rng = Rng(rng);
        let mut message =
            MessageBuilder::from_bytes("", plaintext.to_vec()).seipd_v1(&mut rng, SymmetricKeyAlgorithm::AES256);
        match self.encryption_subkey() {
            Some(subkey) => message.encrypt_to_key(&mut rng, subkey),
            None => message.encrypt_to_key(&mut rng, &self.key),
        }
        .map_err(|_| PgpError::CannotEncrypt)?;
        message.to_vec(&mut rng).map_err(|_| PgpError::CannotEncrypt)
    }

    /// The newest subkey that is meant for encryption and not revoked.
    fn encryption_subkey(&self) -> Option<&SignedPublicSubKey> {
        self.key
            .public_subkeys
            .iter()
            .filter(|sub| sub.key.algorithm().can_encrypt())
            .filter(|sub| {
                !sub.signatures.iter().any(|s| s.typ() == Some(SignatureType::SubkeyRevocation))
                    && sub.signatures.iter().any(|s| {
                        let flags = s.key_flags();
                        flags.encrypt_comms() || flags.encrypt_storage()
                    })
            })
            .max_by_key(|sub| sub.key.created_at())
    }

    /// Keys without flags predate them and may encrypt if the algorithm can.
    fn primary_encrypts(&self) -> bool {
        let mut flags = self.key.details.users.iter().flat_map(|user| &user.signatures).map(|s| s.key_flags());
        self.key.algorithm().can_encrypt()
            && flags.any(|f| f.encrypt_comms() || f.encrypt_storage() || !(f.sign() || f.certify()))
    }
}

/// Our entropy under the library's generator trait.
struct Rng<'a>(&'a mut dyn Entropy);

impl rand_core::RngCore for Rng<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut b = [0; 4];
        self.0.fill(&mut b);
        u32::from_le_bytes(b)
    }

    fn next_u64(&mut self) -> u64 {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        u64::from_le_bytes(b)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

impl rand_core::CryptoRng for Rng<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use pgp::composed::{
        EncryptionCaps, KeyType, Message, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
    };
    use pgp::crypto::ecc_curve::ECCCurve;
    use pgp::ser::Serialize;
    use proptest::prelude::*;
    use ringfence_base::entropy::SeededEntropy;

    /// Made by GnuPG 2: an Ed25519 primary that signs and a Curve25519 subkey that encrypts.
    const GNUPG_KEY: &str = "mDMEawR1oRYJKwYBBAHaRw8BAQdAd3hs/GgqTY9nHlB0g7dDxQqCV0KI6f6AX/6wNpzkVSC0IVNoYXJl\
        IEhvbGRlciA8aG9sZGVyQGV4YW1wbGUub3JnPoiQBBMWCAA4FiEE0MlPnk7x9RZuO7PZOtNLT63ZaHUFAmsEdaECGwMFCwkIBwIGFQoJ\
        CAsCBBYCAwECHgECF4AACgkQOtNLT63ZaHW+XwEAgAW43A19hUZwVvqT/+43QZD+r4FcvUrb0ITHooA5MuEBAI7HiNwIKvU096Nq8/HI\
        SzPSINzvLz9JRl88dyPGLVoKuDgEawR1oRIKKwYBBAGXVQEFAQEHQA4OkHfOrNbTDFTTh9mUWtw/QGqGt2de4mhZGhf0Lg4bAwEIB4h4\
        BBgWCAAgFiEE0MlPnk7x9RZuO7PZOtNLT63ZaHUFAmsEdaECGwwACgkQOtNLT63ZaHUikwD/SSKEOSg5IvRXVa9N8MJz80TaPt3NCROc\
        FiXpym+kZqgBAIJOYGyLB6vVZ4FwHZ1Yh3Uqkf3tfad5TCCPfTVT4ugB";

    /// A private key whose encryption subkey, if any, comes after one that only signs.
    fn private_key(with_encryption: bool) -> SignedSecretKey {
        let mut rng = SeededEntropy(8);
        let mut rng = Rng(&mut rng);
        let subkey = |kind, sign, encrypt| {
            let mut b = SubkeyParamsBuilder::default();
            b.key_type(kind).can_sign(sign).can_encrypt(encrypt);
            b.build().unwrap()
        };
        let mut subkeys = vec![subkey(KeyType::Ed25519Legacy, true, EncryptionCaps::None)];
        if with_encryption {
            subkeys.push(subkey(KeyType::ECDH(ECCCurve::Curve25519Legacy), false, EncryptionCaps::All));
        }
        let mut params = SecretKeyParamsBuilder::default();
        params
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(true)
            .can_encrypt(EncryptionCaps::None)
            .primary_user_id("Holder <holder@example.org>".into())
            .subkeys(subkeys);
        params.build().unwrap().generate(&mut rng).unwrap()
    }

    fn public(private: &SignedSecretKey) -> Vec<u8> {
        SignedPublicKey::from(private.clone()).to_bytes().unwrap()
    }

    #[test]
    fn the_holder_reads_it_and_nobody_else() {
        let private = private_key(true);
        let key = PublicKey::from_base64(&STANDARD.encode(public(&private))).unwrap();
        assert_eq!(key.fingerprint(), hex::encode(private.fingerprint().as_bytes()));
        let sealed = key.encrypt(b"a share", &mut SeededEntropy(1)).unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"a share"));
        let mut opened = Message::from_bytes(&sealed[..]).unwrap().decrypt(&"".into(), &private).unwrap();
        assert_eq!(opened.as_data_vec().unwrap(), b"a share");
        assert_ne!(sealed, key.encrypt(b"a share", &mut SeededEntropy(2)).unwrap());
        assert_eq!(sealed, key.encrypt(b"a share", &mut SeededEntropy(1)).unwrap(), "randomness is the argument");

        let other = PublicKey::from_base64(GNUPG_KEY).unwrap().encrypt(b"a share", &mut SeededEntropy(1)).unwrap();
        assert!(Message::from_bytes(&other[..]).unwrap().decrypt(&"".into(), &private).is_err());
    }

    #[test]
    fn gnupg_keys_are_read() {
        let key = PublicKey::from_base64(GNUPG_KEY).unwrap();
        assert_eq!(key.fingerprint(), "d0c94f9e4ef1f5166e3bb3d93ad34b4fadd96875");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert_eq!(PublicKey::from_base64("*").unwrap_err(), PgpError::NotBase64);
        assert_eq!(PublicKey::from_base64("").unwrap_err(), PgpError::NotAKey);
        assert_eq!(PublicKey::from_bytes(&public(&private_key(false))).unwrap_err(), PgpError::CannotEncrypt);
        let mut forged = public(&private_key(true));
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(PublicKey::from_bytes(&forged).is_err(), "self-signatures are checked");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_safe(noise: Vec<u8>, at: usize, bit in 0u8..8) {
            let _ = PublicKey::from_bytes(&noise);
            let mut key = STANDARD.decode(GNUPG_KEY).unwrap();
            let at = at % key.len();
            let _ = PublicKey::from_bytes(&key[..at]);
            key[at] ^= 1 << bit;
            let _ = PublicKey::from_bytes(&key);
        }
    }
}
