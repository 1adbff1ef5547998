//! The second implementation: RustCrypto's aes-gcm, used by the simulator and as an oracle. Called by the provider
//! only.

use crate::provider::{KEY_BYTES, NONCE_BYTES, NotAuthentic, TAG_BYTES};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};

pub type Key = Aes256Gcm;

pub fn key(bytes: &[u8; KEY_BYTES]) -> Key {
    Aes256Gcm::new(bytes.into())
}

pub fn seal(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], buf: &mut [u8]) -> [u8; TAG_BYTES] {
    let nonce: &Nonce<_> = nonce.into();
    key.encrypt_inout_detached(nonce, aad, buf.into())
        .expect("AES-GCM seals up to 64 GiB, far above every limit of the machine")
        .into()
}

pub fn open(
    key: &Key,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    buf: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), NotAuthentic> {
    let nonce: &Nonce<_> = nonce.into();
    let tag: &Tag = tag.into();
    key.decrypt_inout_detached(nonce, aad, buf.into(), tag).map_err(|_| NotAuthentic)
}
