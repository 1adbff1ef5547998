//! RSA (RFC 8017): OAEP encryption, PSS and PKCS #1 v1.5 signatures.
//!
//! Private operations run on aws-lc wherever its safe interface has the form: all of OAEP but SHA-224's, PKCS #1 v1.5
//! with SHA-2, PSS whose salt is as long as the hash. What is left (SHA-1, SHA-3, other salts, bare PKCS #1) runs on
//! RustCrypto's `rsa` with blinding, which costs about three times as much. Key generation takes up to seconds and
//! belongs off the core.

use super::{NotAKey, Refused};
use crate::hash::Hash;
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use ringfence_base::Entropy;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BigUint, Oaep, Pkcs1v15Sign, Pss, RsaPrivateKey, RsaPublicKey};
use zeroize::Zeroizing;

/// How the digest is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// RSASSA-PSS.
    Pss(Salt),
    /// RSASSA-PKCS1-v1_5.
    Pkcs1v15,
}

/// The length of a PSS salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Salt {
    /// The longest when signing, any when verifying.
    Auto,
    /// As long as the digest.
    Hash,
    /// So many bytes.
    Bytes(usize),
}

/// A private key.
pub struct RsaPrivate {
    key: RsaPrivateKey,
    signer: KeyPair,
    decrypter: OaepPrivateDecryptingKey,
}

impl std::fmt::Debug for RsaPrivate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RsaPrivate({} bits)", self.bits())
    }
}

/// Does `$body` with `$H` as the hash's type.
macro_rules! with_hash {
    ($hash:expr, $H:ident => $body:expr) => {
        match $hash {
            Hash::Sha1 => {
                type $H = sha1::Sha1;
                $body
            }
            Hash::Sha224 => {
                type $H = sha2::Sha224;
                $body
            }
            Hash::Sha256 => {
                type $H = sha2::Sha256;
                $body
            }
            Hash::Sha384 => {
                type $H = sha2::Sha384;
                $body
            }
            Hash::Sha512 => {
                type $H = sha2::Sha512;
                $body
            }
            Hash::Sha3_224 => {
                type $H = sha3::Sha3_224;
                $body
            }
            Hash::Sha3_256 => {
                type $H = sha3::Sha3_256;
                $body
            }
            Hash::Sha3_384 => {
                type $H = sha3::Sha3_384;
                $body
            }
            Hash::Sha3_512 => {
                type $H = sha3::Sha3_512;
                $body
            }
        }
    };
}

/// A fresh key of 2048, 3072 or 4096 bits as PKCS #8 DER. Slow: tenths of a second to seconds.
///
/// # Errors
/// The size is another, or the library failed.
pub fn generate(bits: u32) -> Result<Zeroizing<Vec<u8>>, Refused> {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        8192 => KeySize::Rsa8192,
        _ => return Err(Refused),
    };
    let pair = KeyPair::generate(size).map_err(|_| Refused)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| Refused)?;
    Ok(Zeroizing::new(der.as_ref().to_vec()))
}

impl RsaPrivate {
    /// From PKCS #8 DER.
    ///
    /// # Errors
    /// It is no valid key of 2048 to 8192 bits.
    pub fn from_pkcs8(der: &[u8]) -> Result<RsaPrivate, NotAKey> {
        RsaPrivate::new(RsaPrivateKey::from_pkcs8_der(der).map_err(|_| NotAKey)?)
    }

    /// From PKCS #1 DER.
    ///
    /// # Errors
    /// As [`RsaPrivate::from_pkcs8`].
    pub fn from_pkcs1(der: &[u8]) -> Result<RsaPrivate, NotAKey> {
        RsaPrivate::new(RsaPrivateKey::from_pkcs1_der(der).map_err(|_| NotAKey)?)
    }

    /// From modulus, exponents and primes, decimal texts.
    ///
    /// # Errors
    /// As [`RsaPrivate::from_pkcs8`].
    pub fn from_decimals(n: &str, e: &str, d: &str, primes: &[String]) -> Result<RsaPrivate, NotAKey> {
        let number = |t: &str| BigUint::parse_bytes(t.as_bytes(), 10).ok_or(NotAKey);
        let primes: Result<Vec<BigUint>, NotAKey> = primes.iter().map(|p| number(p)).collect();
        let key = RsaPrivateKey::from_components(number(n)?, number(e)?, number(d)?, primes?).map_err(|_| NotAKey)?;
        RsaPrivate::new(key)
    }

    fn new(key: RsaPrivateKey) -> Result<RsaPrivate, NotAKey> {
        let der = key.to_pkcs8_der().map_err(|_| NotAKey)?;
        let signer = KeyPair::from_pkcs8(der.as_bytes()).map_err(|_| NotAKey)?;
        let decrypter = PrivateDecryptingKey::from_pkcs8(der.as_bytes()).map_err(|_| NotAKey)?;
        let decrypter = OaepPrivateDecryptingKey::new(decrypter).map_err(|_| NotAKey)?;
        Ok(RsaPrivate { key, signer, decrypter })
    }

    /// Bits of the modulus.
    pub fn bits(&self) -> u32 {
        self.key.n().bits() as u32
    }

    /// PKCS #8 DER.
    ///
    /// # Errors
    /// The library failed.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Refused> {
        Ok(Zeroizing::new(self.key.to_pkcs8_der().map_err(|_| Refused)?.as_bytes().to_vec()))
    }

    /// PKCS #1 DER.
    ///
    /// # Errors
    /// The library failed.
    pub fn pkcs1(&self) -> Result<Zeroizing<Vec<u8>>, Refused> {
        Ok(Zeroizing::new(self.key.to_pkcs1_der().map_err(|_| Refused)?.as_bytes().to_vec()))
    }

    /// Modulus, public exponent, private exponent and primes as decimal texts.
    pub fn decimals(&self) -> (String, String, Zeroizing<String>, Vec<Zeroizing<String>>) {
        let primes = self.key.primes().iter().map(|p| Zeroizing::new(p.to_string())).collect();
        (self.key.n().to_string(), self.key.e().to_string(), Zeroizing::new(self.key.d().to_string()), primes)
    }

    /// The public half.
    ///
    /// # Errors
    /// The library failed.
    pub fn public(&self) -> Result<RsaPublic, NotAKey> {
        RsaPublic::new(self.key.to_public_key())
    }

    /// Signs a digest; without a hash the input is signed bare (PKCS #1 v1.5 only).
    ///
    /// # Errors
    /// The salt or digest does not fit the key.
    pub fn sign(
        &self,
        hash: Option<Hash>,
        digest: &[u8],
        padding: Padding,
        rng: &mut dyn Entropy,
    ) -> Result<Vec<u8>, Refused> {
        if let Some(hash) = hash
            && let Some((encoding, algorithm)) = fast_path(hash, padding)
        {
            let digest = Digest::import_less_safe(digest, algorithm).map_err(|_| Refused)?;
            let mut signature = vec![0; self.signer.public_modulus_len()];
            self.signer.sign_digest(encoding, &digest, &mut signature).map_err(|_| Refused)?;
            return Ok(signature);
        }
        let rng = &mut Drawn(rng);
        let signed = match (padding, hash) {
            (Padding::Pkcs1v15, None) => self.key.sign_with_rng(rng, Pkcs1v15Sign::new_unprefixed(), digest),
            (Padding::Pkcs1v15, Some(hash)) => {
                with_hash!(hash, H => self.key.sign_with_rng(rng, Pkcs1v15Sign::new::<H>(), digest))
            }
            (Padding::Pss(salt), Some(hash)) => {
                let length = salt_bytes(salt, hash, self.bits()).ok_or(Refused)?;
                with_hash!(hash, H => self.key.sign_with_rng(rng, Pss::new_blinded_with_salt::<H>(length), digest))
            }
            (Padding::Pss(_), None) => return Err(Refused),
        };
        signed.map_err(|_| Refused)
    }

    /// Decrypts an OAEP block with an empty label; the hash is also the mask's.
    ///
    /// # Errors
    /// It was not made for this key, or the hash is none of SHA-1 and SHA-2.
    pub fn decrypt(&self, hash: Hash, block: &[u8], rng: &mut dyn Entropy) -> Result<Zeroizing<Vec<u8>>, Refused> {
        if block.len() != self.key.size() {
            return Err(Refused);
        }
        let Some(algorithm) = oaep(hash) else {
            return match hash {
                Hash::Sha224 => {
                    let text = self.key.decrypt_blinded(&mut Drawn(rng), Oaep::new::<sha2::Sha224>(), block);
                    text.map(Zeroizing::new).map_err(|_| Refused)
                }
                _ => Err(Refused),
            };
        };
        let mut text = Zeroizing::new(vec![0; block.len()]);
        let length = self.decrypter.decrypt(algorithm, block, &mut text, None).map_err(|_| Refused)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// A public key.
pub struct RsaPublic {
    key: RsaPublicKey,
    spki: Vec<u8>,
    encrypter: OaepPublicEncryptingKey,
}

impl std::fmt::Debug for RsaPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RsaPublic({} bits)", self.bits())
    }
}

impl RsaPublic {
    /// From a `SubjectPublicKeyInfo`, DER.
    ///
    /// # Errors
    /// It is no key of 2048 to 8192 bits.
    pub fn from_spki(der: &[u8]) -> Result<RsaPublic, NotAKey> {
        RsaPublic::new(RsaPublicKey::from_public_key_der(der).map_err(|_| NotAKey)?)
    }

    fn new(key: RsaPublicKey) -> Result<RsaPublic, NotAKey> {
        let spki = key.to_public_key_der().map_err(|_| NotAKey)?.into_vec();
        let encrypter = PublicEncryptingKey::from_der(&spki).map_err(|_| NotAKey)?;
        let encrypter = OaepPublicEncryptingKey::new(encrypter).map_err(|_| NotAKey)?;
        Ok(RsaPublic { key, spki, encrypter })
    }

    /// Bits of the modulus.
    pub fn bits(&self) -> u32 {
        self.key.n().bits() as u32
    }

    /// `SubjectPublicKeyInfo`, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Modulus and exponent, big endian.
    pub fn numbers(&self) -> (Vec<u8>, Vec<u8>) {
        (self.key.n().to_bytes_be(), self.key.e().to_bytes_be())
    }

    /// True if the signature is one of this digest by this key.
    pub fn verify(&self, hash: Option<Hash>, digest: &[u8], signature: &[u8], padding: Padding) -> bool {
        let verified = match (padding, hash) {
            (Padding::Pkcs1v15, None) => self.key.verify(Pkcs1v15Sign::new_unprefixed(), digest, signature),
            (Padding::Pkcs1v15, Some(hash)) => {
                with_hash!(hash, H => self.key.verify(Pkcs1v15Sign::new::<H>(), digest, signature))
            }
            (Padding::Pss(salt), Some(hash)) => {
                let length = match salt {
                    Salt::Auto => self.salt_of(hash, signature),
                    _ => salt_bytes(salt, hash, self.bits()),
                };
                let Some(length) = length else { return false };
                with_hash!(hash, H => self.key.verify(Pss::new_with_salt::<H>(length), digest, signature))
            }
            (Padding::Pss(_), None) => return false,
        };
        verified.is_ok()
    }

    /// Encrypts to an OAEP block with an empty label.
    ///
    /// # Errors
    /// The text is too long for the key, or the hash is none of SHA-1 and SHA-2 without SHA-224.
    pub fn encrypt(&self, hash: Hash, text: &[u8]) -> Result<Vec<u8>, Refused> {
        let algorithm = oaep(hash).ok_or(Refused)?;
        if text.len() > self.encrypter.max_plaintext_size(algorithm) {
            return Err(Refused);
        }
        let mut block = vec![0; self.encrypter.ciphertext_size()];
        self.encrypter.encrypt(algorithm, text, &mut block, None).map_err(|_| Refused)?;
        Ok(block)
    }

    /// The length of the salt in a PSS signature (RFC 8017 9.1.2, steps 4 to 10, without judging what it finds: the
    /// library does that afterwards).
    fn salt_of(&self, hash: Hash, signature: &[u8]) -> Option<usize> {
        if signature.len() != self.key.size() {
            return None;
        }
        let number = BigUint::from_bytes_be(signature);
        if &number >= self.key.n() {
            return None;
        }
        let message = rsa::hazmat::rsa_encrypt(&self.key, &number).ok()?.to_bytes_be();
        let (em_bits, h_len) = (self.key.n().bits() - 1, hash.output_bytes());
        let em_len = em_bits.div_ceil(8);
        let mut em = vec![0; em_len.checked_sub(message.len())?];
        em.extend_from_slice(&message);
        let db_len = em_len.checked_sub(h_len + 1)?;
        let (db, rest) = em.split_at_mut(db_len);
        let mask = mgf1(hash, &rest[..h_len], db_len);
        db.iter_mut().zip(&mask).for_each(|(b, m)| *b ^= m);
        *db.first_mut()? &= 0xff >> (8 * em_len - em_bits);
        let zeros = db.iter().take_while(|b| **b == 0).count();
        (db.get(zeros) == Some(&1)).then(|| db_len - zeros - 1)
    }
}

/// The mask generation function (RFC 8017 B.2.1).
fn mgf1(hash: Hash, seed: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + hash.output_bytes());
    let mut counter = 0u32;
    while out.len() < length {
        out.extend_from_slice(&hash.digest(&[seed, &counter.to_be_bytes()].concat()));
        counter += 1;
    }
    out.truncate(length);
    out
}

/// The longest salt that fits; `None` if the hash itself does not.
pub fn longest_salt(hash: Hash, bits: u32) -> Option<usize> {
    (bits as usize - 1).div_ceil(8).checked_sub(2 + hash.output_bytes())
}

fn salt_bytes(salt: Salt, hash: Hash, bits: u32) -> Option<usize> {
    let longest = longest_salt(hash, bits)?;
    match salt {
        Salt::Auto => Some(longest),
        Salt::Hash => Some(hash.output_bytes()),
        Salt::Bytes(n) => (n <= longest).then_some(n),
    }
}

/// What aws-lc does itself.
fn fast_path(hash: Hash, padding: Padding) -> Option<(&'static dyn RsaEncoding, &'static digest::Algorithm)> {
    let bare = match padding {
        Padding::Pkcs1v15 => true,
        Padding::Pss(Salt::Hash) => false,
        Padding::Pss(Salt::Bytes(n)) if n == hash.output_bytes() => false,
        Padding::Pss(_) => return None,
    };
    Some(match (hash, bare) {
        (Hash::Sha256, true) => (&RSA_PKCS1_SHA256, &digest::SHA256),
        (Hash::Sha384, true) => (&RSA_PKCS1_SHA384, &digest::SHA384),
        (Hash::Sha512, true) => (&RSA_PKCS1_SHA512, &digest::SHA512),
        (Hash::Sha256, false) => (&RSA_PSS_SHA256, &digest::SHA256),
        (Hash::Sha384, false) => (&RSA_PSS_SHA384, &digest::SHA384),
        (Hash::Sha512, false) => (&RSA_PSS_SHA512, &digest::SHA512),
        _ => return None,
    })
}

fn oaep(hash: Hash) -> Option<&'static OaepAlgorithm> {
    Some(match hash {
        Hash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        Hash::Sha384 => &OAEP_SHA384_MGF1SHA384,
        Hash::Sha512 => &OAEP_SHA512_MGF1SHA512,
        _ => return None,
    })
}

/// Our entropy as the library wants it.
struct Drawn<'a>(&'a mut dyn Entropy);

impl rand_core::RngCore for Drawn<'_> {
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

impl rand_core::CryptoRng for Drawn<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    fn key() -> RsaPrivate {
        RsaPrivate::from_pkcs8(&generate(2048).unwrap()).unwrap()
    }

    #[test]
    fn every_hash_padding_and_salt() {
        let (key, rng) = (key(), &mut SeededEntropy(1));
        let public = key.public().unwrap();
        for hash in Hash::ALL {
            let (digest, other) = (hash.digest(b"text"), hash.digest(b"other"));
            for padding in [
                Padding::Pkcs1v15,
                Padding::Pss(Salt::Auto),
                Padding::Pss(Salt::Hash),
                Padding::Pss(Salt::Bytes(0)),
                Padding::Pss(Salt::Bytes(11)),
            ] {
                let signature = key.sign(Some(hash), &digest, padding, rng).unwrap();
                assert!(public.verify(Some(hash), &digest, &signature, padding), "{hash:?} {padding:?}");
                assert!(!public.verify(Some(hash), &other, &signature, padding), "{hash:?} {padding:?}");
                if let Padding::Pss(_) = padding {
                    assert!(public.verify(Some(hash), &digest, &signature, Padding::Pss(Salt::Auto)));
                    assert!(!public.verify(Some(hash), &digest, &signature, Padding::Pss(Salt::Bytes(5))));
                }
            }
        }
        let digest = Hash::Sha256.digest(b"");
        let longest = longest_salt(Hash::Sha256, 2048).unwrap();
        assert!(key.sign(Some(Hash::Sha256), &digest, Padding::Pss(Salt::Bytes(longest + 1)), rng).is_err());
        assert!(key.sign(None, &digest, Padding::Pss(Salt::Hash), rng).is_err());
        assert!(key.sign(Some(Hash::Sha256), b"short", Padding::Pkcs1v15, rng).is_err());
    }

    #[test]
    fn bare_signatures_and_the_padding_oracle_of_both_libraries_agree() {
        let (key, rng) = (key(), &mut SeededEntropy(1));
        let public = key.public().unwrap();
        let signature = key.sign(None, b"bare text", Padding::Pkcs1v15, rng).unwrap();
        assert!(public.verify(None, b"bare text", &signature, Padding::Pkcs1v15));
        assert!(!public.verify(None, b"bare texT", &signature, Padding::Pkcs1v15));
        // PKCS #1 v1.5 has no randomness: both libraries must give the same bytes
        let digest = Hash::Sha384.digest(b"x");
        let ours = key.sign(Some(Hash::Sha384), &digest, Padding::Pkcs1v15, rng).unwrap();
        let theirs = key.key.sign(Pkcs1v15Sign::new::<sha2::Sha384>(), &digest).unwrap();
        assert_eq!(ours, theirs);
        for junk in [&b""[..], &[0; 256], &[0xff; 256], &[1; 255], &[1; 257]] {
            assert!(!public.verify(Some(Hash::Sha256), &Hash::Sha256.digest(b""), junk, Padding::Pss(Salt::Auto)));
            assert!(!public.verify(Some(Hash::Sha256), &Hash::Sha256.digest(b""), junk, Padding::Pkcs1v15));
        }
    }

    #[test]
    fn oaep_and_encodings() {
        let (key, rng) = (key(), &mut SeededEntropy(1));
        let public = key.public().unwrap();
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            let block = public.encrypt(hash, b"secret").unwrap();
            assert_eq!(&key.decrypt(hash, &block, rng).unwrap()[..], b"secret");
        }
        let block = public.key.encrypt(&mut Drawn(rng), Oaep::new::<sha2::Sha224>(), b"secret").unwrap();
        assert_eq!(&key.decrypt(Hash::Sha224, &block, rng).unwrap()[..], b"secret");
        assert!(key.decrypt(Hash::Sha256, &block, rng).is_err() && key.decrypt(Hash::Sha256, b"", rng).is_err());
        assert!(public.encrypt(Hash::Sha256, &[0; 191]).is_err(), "190 bytes fit");
        let (n, e, d, primes) = key.decimals();
        let primes: Vec<String> = primes.iter().map(|p| p.to_string()).collect();
        let again = RsaPrivate::from_decimals(&n, &e, &d, &primes).unwrap();
        assert_eq!(again.pkcs8().unwrap(), key.pkcs8().unwrap());
        assert_eq!(RsaPrivate::from_pkcs1(&key.pkcs1().unwrap()).unwrap().bits(), 2048);
        assert_eq!(RsaPublic::from_spki(public.spki()).unwrap().numbers(), public.numbers());
        assert!(RsaPrivate::from_pkcs8(b"junk").is_err() && RsaPublic::from_spki(b"junk").is_err());
        assert_eq!(generate(1024).err(), Some(Refused));
    }
}
