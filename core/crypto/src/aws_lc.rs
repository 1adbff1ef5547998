//! The production implementation: aws-lc through aws-lc-rs. Called by the provider only.

use crate::provider::{KEY_BYTES, NONCE_BYTES, NotAuthentic, TAG_BYTES};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// "Less safe" because nonces are the caller's: sealed records carry theirs.
pub type Key = LessSafeKey;

pub fn key(bytes: &[u8; KEY_BYTES]) -> Key {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("AES-256 takes 32 bytes"))
}

pub fn seal(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], buf: &mut [u8]) -> [u8; TAG_BYTES] {
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), buf)
        .expect("AES-GCM seals up to 64 GiB, far above every limit of the machine");
    tag.as_ref().try_into().expect("the tag has 16 bytes")
}

pub fn open(
    key: &Key,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    buf: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), NotAuthentic> {
    key.open_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), tag, buf)
        .map(|_| ())
        .map_err(|_| NotAuthentic)
}
