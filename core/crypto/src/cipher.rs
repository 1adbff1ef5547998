//! Authenticated ciphers by name, for engines that let the client choose: a text in, `ciphertext || tag` out. Nonces
//! are the caller's. AES-GCM and ChaCha20-Poly1305 run on aws-lc, XChaCha20-Poly1305 on RustCrypto.

use crate::provider::{NotAuthentic, TAG_BYTES};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use zeroize::Zeroizing;

/// An authenticated cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cipher {
    /// AES-GCM with a 128-bit key (NIST SP 800-38D).
    Aes128Gcm,
    /// AES-GCM with a 256-bit key.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
    /// The same with a 192-bit nonce (draft-irtf-cfrg-xchacha).
    XChaCha20Poly1305,
}

impl Cipher {
    /// Bytes of a key.
    pub fn key_bytes(self) -> usize {
        if self == Cipher::Aes128Gcm { 16 } else { 32 }
    }

    /// Bytes of a nonce.
    pub fn nonce_bytes(self) -> usize {
        if self == Cipher::XChaCha20Poly1305 { 24 } else { 12 }
    }

    /// Expands a key; `None` if it has not [`Cipher::key_bytes`].
    pub fn key(self, bytes: &[u8]) -> Option<CipherKey> {
        let aws =
            |a: &'static Algorithm| UnboundKey::new(a, bytes).ok().map(|k| Inner::Aws(Box::new(LessSafeKey::new(k))));
        let inner = match self {
            Cipher::Aes128Gcm => aws(&AES_128_GCM),
            Cipher::Aes256Gcm => aws(&AES_256_GCM),
            Cipher::ChaCha20Poly1305 => aws(&CHACHA20_POLY1305),
            Cipher::XChaCha20Poly1305 => {
                chacha20poly1305::XChaCha20Poly1305::new_from_slice(bytes).ok().map(|k| Inner::XChaCha(Box::new(k)))
            }
        };
        inner.map(|inner| CipherKey { cipher: self, inner })
    }
}

enum Inner {
    // boxed: an expanded key is large, and those who hold one move it
    Aws(Box<LessSafeKey>),
    XChaCha(Box<chacha20poly1305::XChaCha20Poly1305>),
}

/// An expanded key. The libraries zero theirs when dropped.
pub struct CipherKey {
    cipher: Cipher,
    inner: Inner,
}

impl std::fmt::Debug for CipherKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CipherKey({:?})", self.cipher)
    }
}

impl CipherKey {
    /// Which cipher it is of.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Encrypts `buf` from `start` on where it stands and appends the tag. The nonce is of [`Cipher::nonce_bytes`].
    pub fn seal(&self, nonce: &[u8], aad: &[u8], buf: &mut Vec<u8>, start: usize) {
        let text = &mut buf[start..];
        let tag: [u8; TAG_BYTES] = match &self.inner {
            Inner::Aws(key) => {
                let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the caller's nonce has 12 bytes");
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
                    .expect("the ciphers seal gigabytes, far above every limit of the machine");
                tag.as_ref().try_into().expect("the tag has 16 bytes")
            }
            Inner::XChaCha(key) => key
                .encrypt_in_place_detached(chacha20poly1305::XNonce::from_slice(nonce), aad, text)
                .expect("the ciphers seal gigabytes, far above every limit of the machine")
                .into(),
        };
        buf.extend_from_slice(&tag);
    }

    /// Decrypts `ciphertext || tag`.
    ///
    /// # Errors
    /// The tag does not fit, or nonce or text are too short to be anything.
    pub fn open(&self, nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        if nonce.len() != self.cipher.nonce_bytes() || sealed.len() < TAG_BYTES {
            return Err(NotAuthentic);
        }
        let mut buf = Zeroizing::new(sealed.to_vec());
        let length = sealed.len() - TAG_BYTES;
        match &self.inner {
            Inner::Aws(key) => {
                let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotAuthentic)?;
                key.open_in_place(nonce, Aad::from(aad), &mut buf[..]).map_err(|_| NotAuthentic)?;
            }
            Inner::XChaCha(key) => {
                let (text, tag) = buf.split_at_mut(length);
                let tag = chacha20poly1305::Tag::from_slice(tag);
                key.decrypt_in_place_detached(chacha20poly1305::XNonce::from_slice(nonce), aad, text, tag)
                    .map_err(|_| NotAuthentic)?;
            }
        }
        buf.truncate(length);
        Ok(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Cipher; 4] =
        [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305, Cipher::XChaCha20Poly1305];

    fn seal(cipher: Cipher, key: &str, nonce: &str, aad: &str, text: &[u8]) -> String {
        let unhex = |s: &str| hex::decode(s).unwrap();
        let mut buf = text.to_vec();
        cipher.key(&unhex(key)).unwrap().seal(&unhex(nonce), &unhex(aad), &mut buf, 0);
        hex::encode(buf)
    }

    const SUNSCREEN: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                               future, sunscreen would be it.";

    #[test]
    fn published_vectors() {
        // the GCM specification's test case 2
        let zero = "00000000000000000000000000000000";
        assert_eq!(
            seal(Cipher::Aes128Gcm, zero, "000000000000000000000000", "", &[0; 16]),
            "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"
        );
        // RFC 8439 2.8.2
        let key = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f";
        let aad = "50515253c0c1c2c3c4c5c6c7";
        let sealed = seal(Cipher::ChaCha20Poly1305, key, "070000004041424344454647", aad, SUNSCREEN);
        assert!(
            sealed.starts_with("d31a8d34648e60db7b86afbc53ef7ec2")
                && sealed.ends_with("1ae10b594f09e26a7e902ecbd0600691")
        );
        // draft-irtf-cfrg-xchacha-03 A.3.1
        let nonce = "404142434445464748494a4b4c4d4e4f5051525354555657";
        let sealed = seal(Cipher::XChaCha20Poly1305, key, nonce, aad, SUNSCREEN);
        assert!(
            sealed.starts_with("bd6d179d3e83d43b9576579493c0e939")
                && sealed.ends_with("c0875924c1c7987947deafd8780acf49")
        );
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for cipher in ALL {
            assert!(cipher.key(&[0; 15]).is_none() && cipher.key(&[]).is_none());
            let key = cipher.key(&vec![1; cipher.key_bytes()]).unwrap();
            assert_eq!(key.open(&[0; 11], b"", &[0; 40]).err(), Some(NotAuthentic));
            assert_eq!(key.open(&vec![0; cipher.nonce_bytes()], b"", &[0; 15]).err(), Some(NotAuthentic));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn opens_what_it_sealed_and_nothing_else(text: Vec<u8>, aad: Vec<u8>, key: [u8; 32], nonce: [u8; 24], bit: usize) {
            for cipher in ALL {
                let key = cipher.key(&key[..cipher.key_bytes()]).unwrap();
                let nonce = &nonce[..cipher.nonce_bytes()];
                let mut buf = [b"head", &text[..]].concat();
                key.seal(nonce, &aad, &mut buf, 4);
                let mut sealed = buf.split_off(4);
                prop_assert_eq!(&buf[..], b"head");
                prop_assert_eq!(&key.open(nonce, &aad, &sealed).unwrap()[..], &text[..]);
                let at = bit % (sealed.len() * 8);
                sealed[at / 8] ^= 1 << (at % 8);
                prop_assert!(key.open(nonce, &aad, &sealed).is_err());
            }
        }
    }
}
