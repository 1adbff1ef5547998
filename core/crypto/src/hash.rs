//! Hashes and keyed hashes by name, for engines that let the client choose. Pure functions. The SHA-1 and SHA-2
//! families run on aws-lc, SHA-3 on RustCrypto, which has all four lengths of it.

use aws_lc_rs::{digest, hkdf, hmac};
use hmac_generic::{Hmac, Mac};
use ringfence_base::Entropy;
use sha3::Digest as _;
use zeroize::Zeroizing;

use ::hmac as hmac_generic;

/// A hash function that a client may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-1 (FIPS 180-4), for what is old.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA3-224 (FIPS 202).
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
}

impl Hash {
    /// Every hash there is.
    pub const ALL: [Hash; 9] = [
        Hash::Sha1,
        Hash::Sha224,
        Hash::Sha256,
        Hash::Sha384,
        Hash::Sha512,
        Hash::Sha3_224,
        Hash::Sha3_256,
        Hash::Sha3_384,
        Hash::Sha3_512,
    ];

    /// By the API's name: `sha1`, `sha2-224` ... `sha2-512`, `sha3-224` ... `sha3-512`.
    pub fn parse(name: &str) -> Option<Hash> {
        Hash::ALL.into_iter().find(|h| h.name() == name)
    }

    /// The API's name.
    pub fn name(self) -> &'static str {
        match self {
            Hash::Sha1 => "sha1",
            Hash::Sha224 => "sha2-224",
            Hash::Sha256 => "sha2-256",
            Hash::Sha384 => "sha2-384",
            Hash::Sha512 => "sha2-512",
            Hash::Sha3_224 => "sha3-224",
            Hash::Sha3_256 => "sha3-256",
            Hash::Sha3_384 => "sha3-384",
            Hash::Sha3_512 => "sha3-512",
        }
    }

    /// Bytes of a digest.
    pub fn output_bytes(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha224 | Hash::Sha3_224 => 28,
            Hash::Sha256 | Hash::Sha3_256 => 32,
            Hash::Sha384 | Hash::Sha3_384 => 48,
            Hash::Sha512 | Hash::Sha3_512 => 64,
        }
    }

    /// The digest of a text.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        let aws = |a: &'static digest::Algorithm| digest::digest(a, data).as_ref().to_vec();
        match self {
            Hash::Sha1 => aws(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Hash::Sha224 => aws(&digest::SHA224),
            Hash::Sha256 => aws(&digest::SHA256),
            Hash::Sha384 => aws(&digest::SHA384),
            Hash::Sha512 => aws(&digest::SHA512),
            Hash::Sha3_224 => sha3::Sha3_224::digest(data).to_vec(),
            Hash::Sha3_256 => sha3::Sha3_256::digest(data).to_vec(),
            Hash::Sha3_384 => sha3::Sha3_384::digest(data).to_vec(),
            Hash::Sha3_512 => sha3::Sha3_512::digest(data).to_vec(),
        }
    }

    /// HMAC (RFC 2104) of a text under a key of any length.
    pub fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let aws = |a| hmac::sign(&hmac::Key::new(a, key), data).as_ref().to_vec();
        match self {
            Hash::Sha1 => aws(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Hash::Sha224 => aws(hmac::HMAC_SHA224),
            Hash::Sha256 => aws(hmac::HMAC_SHA256),
            Hash::Sha384 => aws(hmac::HMAC_SHA384),
            Hash::Sha512 => aws(hmac::HMAC_SHA512),
            Hash::Sha3_224 => generic::<Hmac<sha3::Sha3_224>>(key, data),
            Hash::Sha3_256 => generic::<Hmac<sha3::Sha3_256>>(key, data),
            Hash::Sha3_384 => generic::<Hmac<sha3::Sha3_384>>(key, data),
            Hash::Sha3_512 => generic::<Hmac<sha3::Sha3_512>>(key, data),
        }
    }
}

fn generic<M: Mac + hmac_generic::digest::KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// HKDF-SHA256 (RFC 5869) with an empty salt into a buffer of at most 8160 bytes.
pub fn hkdf_sha256_into(secret: &[u8], info: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(secret)
        .expand(&[info], Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("callers ask for at most 64 bytes, HKDF-SHA256 gives 8160");
}

/// Randomness for work that owns nothing but what it was given: a drawn seed, expanded by HMAC-SHA256 in counter mode
/// (NIST SP 800-108, 4.1). For blinding and salts; keys are drawn from the machine's own source.
pub struct Expanded {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Expanded {
    /// From a seed that is used for nothing else.
    pub fn new(seed: [u8; 32]) -> Expanded {
        Expanded { seed: Zeroizing::new(seed), counter: 0 }
    }
}

impl Entropy for Expanded {
    fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(32) {
            self.counter += 1;
            let block = Zeroizing::new(Hash::Sha256.hmac(&self.seed[..], &self.counter.to_be_bytes()));
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        // FIPS 180-4 and FIPS 202, the message "abc".
        for (hash, hex_digest) in [
            (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Hash::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            (Hash::Sha3_224, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
            (Hash::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        ] {
            assert_eq!(hex::encode(hash.digest(b"abc")), hex_digest, "{hash:?}");
        }
        // RFC 4231 case 2 and NIST's example of HMAC-SHA3-256 by the same key and message.
        let (key, text) = (b"Jefe", b"what do ya want for nothing?");
        for (hash, code) in [
            (Hash::Sha224, "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44"),
            (Hash::Sha3_256, "c7d4072e788877ae3596bbb0da73b887c9171f93095b294ae857fbe2645e1ba5"),
            (Hash::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        ] {
            assert_eq!(hex::encode(hash.hmac(key, text)), code, "{hash:?}");
        }
        // RFC 5869 A.3: no salt, no info.
        let mut okm = [0; 42];
        hkdf_sha256_into(&[0x0b; 22], b"", &mut okm);
        assert_eq!(
            hex::encode(okm),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        );
    }

    #[test]
    fn expanded_randomness_does_not_repeat() {
        let (mut a, mut b) = ([0; 70], [0; 70]);
        let mut source = Expanded::new([1; 32]);
        source.fill(&mut a);
        source.fill(&mut b);
        assert!(a != b && a[..32] != a[32..64] && a != [0; 70]);
    }

    #[test]
    fn names_and_lengths_agree() {
        for hash in Hash::ALL {
            assert_eq!(Hash::parse(hash.name()), Some(hash));
            assert_eq!(hash.digest(b"").len(), hash.output_bytes());
            assert_eq!(hash.hmac(b"", b"").len(), hash.output_bytes());
        }
        assert_eq!(Hash::parse("SHA2-256"), None);
    }
}
