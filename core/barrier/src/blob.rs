//! Blobs: what is sealed directly by the unseal key or the root key, outside the keyring.
//!
//! ```text
//!   0  format = 1 │ 1  purpose │ 2..18  salt │ ciphertext │ tag (16)
//! ```
//!
//! Key: HKDF-SHA256(salt, wrapping key, purpose), used once, with a zero nonce: sixteen random bytes a blob, so no
//! count of blobs wears the wrapping key. Associated data: format and purpose, so one kind never opens as another.

use crate::keyring::OpenError;
use ringfence_base::Entropy;
use ringfence_crypto::{KEY_BYTES, NONCE_BYTES, Provider, TAG_BYTES, hkdf_sha256};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
const HEAD_BYTES: usize = 2 + SALT_BYTES;

/// What a blob is for; bound into its key and its associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobPurpose {
    /// The root key under the unseal key.
    RootKey,
    /// The keyring under the root key.
    Keyring,
    /// The sealed checksums of a snapshot under the unseal key.
    SnapshotSums,
    /// The challenge that a joining node must answer, under the unseal key.
    JoinChallenge,
    /// Its answer: the challenge, and who joins.
    JoinAnswer,
    /// What it is told then: the cluster and its members.
    JoinWelcome,
}

impl BlobPurpose {
    fn byte(self) -> u8 {
        match self {
            BlobPurpose::RootKey => 1,
            BlobPurpose::Keyring => 2,
            BlobPurpose::SnapshotSums => 3,
            BlobPurpose::JoinChallenge => 4,
            BlobPurpose::JoinAnswer => 5,
            BlobPurpose::JoinWelcome => 6,
        }
    }
}

pub(crate) fn wrap(
    provider: Provider,
    key: &[u8; KEY_BYTES],
    purpose: BlobPurpose,
    plaintext: &[u8],
    rng: &mut dyn Entropy,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + plaintext.len() + TAG_BYTES);
    out.extend_from_slice(&[FORMAT, purpose.byte()]);
    out.resize(HEAD_BYTES, 0);
    rng.fill(&mut out[2..]);
    out.extend_from_slice(plaintext);
    let (head, text) = out.split_at_mut(HEAD_BYTES);
    let tag = derive(provider, key, head).seal_in_place(&[0; NONCE_BYTES], &head[..2], text);
    out.extend_from_slice(&tag);
    out
}

pub(crate) fn unwrap(
    provider: Provider,
    key: &[u8; KEY_BYTES],
    purpose: BlobPurpose,
    blob: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (head, sealed) = blob.split_at_checked(HEAD_BYTES).ok_or(OpenError::Malformed)?;
    let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(OpenError::Malformed)?;
    if head[0] != FORMAT {
        return Err(OpenError::UnknownFormat(head[0]));
    }
    if head[1] != purpose.byte() {
        return Err(OpenError::Malformed);
    }
    let plain = derive(provider, key, head).open(&[0; NONCE_BYTES], &head[..2], text, tag);
    plain.map(Zeroizing::new).map_err(|_| OpenError::NotAuthentic)
}

/// Whether these bytes have the form of a blob with at least so much in it. Nothing is verified.
pub(crate) fn is_shaped(blob: &[u8], least_bytes: usize) -> bool {
    blob.first() == Some(&FORMAT) && blob.len() >= HEAD_BYTES + least_bytes + TAG_BYTES
}

fn derive(provider: Provider, key: &[u8; KEY_BYTES], head: &[u8]) -> ringfence_crypto::AeadKey {
    provider.aead_key(&hkdf_sha256(&head[2..], key, &[b"ringfence blob v1", &head[..2]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringfence_base::entropy::SeededEntropy;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn opens_as_what_it_is_and_nothing_else(plain: Vec<u8>, bit: usize, noise: Vec<u8>) {
            let p = Provider::AwsLc;
            let blob = wrap(p, &[1; 32], BlobPurpose::RootKey, &plain, &mut SeededEntropy(9));
            prop_assert_eq!(&unwrap(p, &[1; 32], BlobPurpose::RootKey, &blob).unwrap()[..], &plain[..]);
            prop_assert_eq!(unwrap(p, &[2; 32], BlobPurpose::RootKey, &blob), Err(OpenError::NotAuthentic));
            prop_assert!(unwrap(p, &[1; 32], BlobPurpose::Keyring, &blob).is_err());
            let mut bad = blob.clone();
            let at = bit % (bad.len() * 8);
            bad[at / 8] ^= 1 << (at % 8);
            prop_assert!(unwrap(p, &[1; 32], BlobPurpose::RootKey, &bad).is_err());
            bad[1] = 2;
            prop_assert!(unwrap(p, &[1; 32], BlobPurpose::Keyring, &bad).is_err(), "the purpose is bound");
            let _ = unwrap(p, &[1; 32], BlobPurpose::RootKey, &noise);
        }
    }
}
