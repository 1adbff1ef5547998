//! The provider: which implementation seals and opens, and the hashes both share.
//!
//! An enum rather than a trait object: the calls are a hundred nanoseconds each, and a branch that always goes the
//! same way is free where an indirect call is not.

use crate::{aws_lc, seeded};
use aws_lc_rs::{digest, hkdf, hmac};
use ringfence_base::Entropy;
use zeroize::Zeroizing;

/// Bytes of every symmetric key.
pub const KEY_BYTES: usize = 32;
/// Bytes of an AES-GCM nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of an AES-GCM tag.
pub const TAG_BYTES: usize = 16;

/// The tag does not fit the key, nonce, associated data and ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAuthentic;

impl std::fmt::Display for NotAuthentic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("message authentication failed")
    }
}

impl std::error::Error for NotAuthentic {}

/// Which implementation does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Provider {
    /// aws-lc, for production.
    #[default]
    AwsLc,
    /// RustCrypto, for the simulator and as an oracle in tests.
    Seeded,
}

impl Provider {
    /// Expands an AES-256-GCM key once (about 160 ns); keep the result as long as the key is used.
    pub fn aead_key(self, key: &[u8; KEY_BYTES]) -> AeadKey {
        match self {
            Provider::AwsLc => AeadKey::AwsLc(Box::new(aws_lc::key(key))),
            Provider::Seeded => AeadKey::Seeded(Box::new(seeded::key(key))),
        }
    }

    /// A fresh random key.
    pub fn random_key(self, rng: &mut dyn Entropy) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rng.fill(&mut key[..]);
        key
    }

    /// The expanded form of an HMAC-SHA256 key: saves two compressions a call.
    pub fn hmac_key(self, key: &[u8]) -> HmacKey {
        HmacKey(hmac::Key::new(hmac::HMAC_SHA256, key))
    }
}

/// An expanded AES-256-GCM key (NIST SP 800-38D), 96-bit nonces and 128-bit tags. Zeroed when dropped.
///
/// The caller answers for nonces: one is never used twice to seal under the same key.
pub enum AeadKey {
    /// aws-lc. Boxed: the expanded key is large and the caches above move it.
    AwsLc(Box<aws_lc::Key>),
    /// RustCrypto.
    Seeded(Box<seeded::Key>),
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

impl AeadKey {
    /// Encrypts `buf` where it stands and returns the tag.
    #[inline]
    pub fn seal_in_place(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], buf: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            AeadKey::AwsLc(key) => aws_lc::seal(key, nonce, aad, buf),
            AeadKey::Seeded(key) => seeded::seal(key, nonce, aad, buf),
        }
    }

    /// Decrypts `buf` where it stands. On failure its content is unspecified and must not be used.
    #[inline]
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), NotAuthentic> {
        match self {
            AeadKey::AwsLc(key) => aws_lc::open(key, nonce, aad, buf, tag),
            AeadKey::Seeded(key) => seeded::open(key, nonce, aad, buf, tag),
        }
    }

    /// Decrypts out of a borrowed ciphertext into a new buffer.
    #[inline]
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<Vec<u8>, NotAuthentic> {
        let mut out = ciphertext.to_vec();
        self.open_in_place(nonce, aad, &mut out, tag)?;
        Ok(out)
    }
}

/// An expanded HMAC-SHA256 key (RFC 2104).
#[derive(Clone)]
pub struct HmacKey(hmac::Key);

impl std::fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HmacKey(..)")
    }
}

impl HmacKey {
    /// The code of the concatenation of `parts`.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let tag = match parts {
            [one] => hmac::sign(&self.0, one),
            many => {
                let mut cx = hmac::Context::with_key(&self.0);
                many.iter().for_each(|part| cx.update(part));
                cx.sign()
            }
        };
        tag.as_ref().try_into().expect("an HMAC-SHA256 code has 32 bytes")
    }
}

/// HMAC-SHA256 of `data` (RFC 2104).
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    HmacKey(hmac::Key::new(hmac::HMAC_SHA256, key)).sign(&[data])
}

/// SHA-256 of bytes that come in pieces.
pub struct Sha256(aws_lc_rs::digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Sha256(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Sha256 {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all of them.
    pub fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// SHA-256 of `data` (FIPS 180-4).
pub fn sha256(data: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, data).as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

/// HKDF-SHA256, extract then expand to one key (RFC 5869 2.2, 2.3).
pub fn hkdf_sha256(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out[..]))
        .expect("32 bytes are within HKDF-SHA256's 8160");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unhex(s: &str) -> Vec<u8> {
        hex::decode(s).unwrap()
    }

    #[test]
    fn published_hash_vectors() {
        // FIPS 180-4 example, RFC 4231 case 2, RFC 5869 A.1 (first 32 bytes of its output).
        assert_eq!(hex::encode(sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hex::encode(hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let key = hkdf_sha256(&unhex("000102030405060708090a0b0c"), &[0x0b; 22], &[&unhex("f0f1f2f3f4f5f6f7f8f9")]);
        assert_eq!(hex::encode(&key[..]), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
    }

    #[test]
    fn published_gcm_vector() {
        // The GCM specification's test case 16: AES-256 with associated data.
        let key = unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce: [u8; 12] = unhex("cafebabefacedbaddecaf888").try_into().unwrap();
        let aad = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = unhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        for provider in [Provider::AwsLc, Provider::Seeded] {
            let k = provider.aead_key(&key.clone().try_into().unwrap());
            let mut buf = plain.clone();
            let tag = k.seal_in_place(&nonce, &aad, &mut buf);
            assert_eq!(
                hex::encode(&buf),
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
                 c5f61e6393ba7a0abcc9f662"
            );
            assert_eq!(hex::encode(tag), "76fc6ece0f4e1768cddf8853bb2d551b");
        }
    }

    #[test]
    fn parts_are_concatenated() {
        let k = Provider::AwsLc.hmac_key(b"k");
        assert_eq!(k.sign(&[b"ab", b"", b"c"]), k.sign(&[b"abc"]));
        assert_eq!(k.sign(&[b"abc"]), hmac_sha256(b"k", b"abc"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn providers_agree(key: [u8; 32], nonce: [u8; 12], aad: Vec<u8>, plain: Vec<u8>) {
            let (a, b) = (Provider::AwsLc.aead_key(&key), Provider::Seeded.aead_key(&key));
            let (mut sealed_a, mut sealed_b) = (plain.clone(), plain.clone());
            let tag = a.seal_in_place(&nonce, &aad, &mut sealed_a);
            prop_assert_eq!(tag, b.seal_in_place(&nonce, &aad, &mut sealed_b));
            prop_assert_eq!(&sealed_a, &sealed_b);
            prop_assert_eq!(b.open(&nonce, &aad, &sealed_a, &tag), Ok(plain.clone()));
            prop_assert_eq!(a.open(&nonce, &aad, &sealed_b, &tag), Ok(plain));
        }

        #[test]
        fn any_flipped_bit_is_refused(key: [u8; 32], mut plain: Vec<u8>, bit: usize) {
            for provider in [Provider::AwsLc, Provider::Seeded] {
                let k = provider.aead_key(&key);
                let tag = k.seal_in_place(&[7; 12], b"aad", &mut plain);
                let mut whole = [&plain[..], &tag[..]].concat();
                let at = bit % (whole.len() * 8);
                whole[at / 8] ^= 1 << (at % 8);
                let (text, tag) = whole.split_at(plain.len());
                prop_assert_eq!(k.open(&[7; 12], b"aad", text, tag.try_into().unwrap()), Err(NotAuthentic));
            }
        }
    }
}
