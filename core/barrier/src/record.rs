//! The sealed record, format 1: how a value stands in the image, in the log, on disk and between nodes.
//!
//! ```text
//!    0        format = 1
//!    1..5     key term              be32
//!    5..9     issuer                be32  ┐
//!    9..11    core of the issuer    be16  ├ these twelve bytes are the nonce
//!   11..17    counter of the core   be48  ┘
//!   17..19    length of the header  be16
//!   19..h     clear header          what `apply` must read without keys (leases: due time, owner)
//!    h..      AES-256-GCM ciphertext
//!   last 16   tag
//! ```
//!
//! Key: HKDF-SHA256(salt = the issuer's 16 bytes, secret = the term's key). Associated data: everything before the
//! ciphertext, then the image key; the length of the header makes that one-to-one. A record moved to another key, or
//! with any byte changed, does not open. 35 bytes longer than header and plaintext together.
//!
//! Nonces never repeat under one key: an issuer's salt is drawn once and used by one process, a core's number is
//! given out once by its issuer, and a core counts up (NIST SP 800-38D 8.2.1, deterministic construction).

use crate::keyring::OpenError;
use ringfence_crypto::{AeadKey, NONCE_BYTES, NotAuthentic, TAG_BYTES};

pub(crate) const FORMAT: u8 = 1;
const NONCE_AT: usize = 5;
const HEADER_AT: usize = 19;
/// Bytes that a record is longer than its header and plaintext.
pub const RECORD_OVERHEAD_BYTES: usize = HEADER_AT + TAG_BYTES;
/// Longest clear header.
pub const MAX_HEADER_BYTES: usize = u16::MAX as usize;
/// The counter has six bytes.
pub(crate) const MAX_COUNTER: u64 = (1 << 48) - 1;

/// Which key seals, and the nonce's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub term: u32,
    pub issuer: u32,
    pub core: u16,
    pub counter: u64,
}

/// A record taken apart but not verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'r> {
    pub term: u32,
    pub issuer: u32,
    /// Not verified: good for `apply`, whose input raft has already authenticated, and for sorting.
    pub header: &'r [u8],
    /// Everything before the ciphertext.
    head: &'r [u8],
    ciphertext: &'r [u8],
    tag: &'r [u8; TAG_BYTES],
}

impl<'r> Record<'r> {
    /// Takes a record apart. Never panics, whatever the bytes.
    pub fn parse(bytes: &'r [u8]) -> Result<Record<'r>, OpenError> {
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(OpenError::UnknownFormat(other)),
            None => return Err(OpenError::Malformed),
        }
        let (fixed, _) = bytes.split_at_checked(HEADER_AT).ok_or(OpenError::Malformed)?;
        let be32 = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let header_len = u16::from_be_bytes([fixed[17], fixed[18]]) as usize;
        let (head, sealed) = bytes.split_at_checked(HEADER_AT + header_len).ok_or(OpenError::Malformed)?;
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(OpenError::Malformed)?;
        Ok(Record { term: be32(1), issuer: be32(NONCE_AT), header: &head[HEADER_AT..], head, ciphertext, tag })
    }

    /// Verifies and decrypts.
    pub fn open(&self, key: &AeadKey, image_key: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let nonce: &[u8; NONCE_BYTES] = self.head[NONCE_AT..].first_chunk().expect("the head has 19 bytes or more");
        with_aad(self.head, image_key, |aad| key.open(nonce, aad, self.ciphertext, self.tag))
    }
}

/// Seals a record. The caller vouches that the stamp was never used before.
pub(crate) fn seal(key: &AeadKey, stamp: Stamp, image_key: &[u8], header: &[u8], plaintext: &[u8]) -> Vec<u8> {
    ringfence_base::invariant!(header.len() <= MAX_HEADER_BYTES, "a clear header has at most 65535 bytes");
    ringfence_base::invariant!(stamp.counter <= MAX_COUNTER, "an issuer's counter never passes 48 bits");
    let mut out = Vec::with_capacity(RECORD_OVERHEAD_BYTES + header.len() + plaintext.len());
    out.push(FORMAT);
    out.extend_from_slice(&stamp.term.to_be_bytes());
    out.extend_from_slice(&stamp.issuer.to_be_bytes());
    out.extend_from_slice(&stamp.core.to_be_bytes());
    out.extend_from_slice(&stamp.counter.to_be_bytes()[2..]);
    out.extend_from_slice(&(header.len() as u16).to_be_bytes());
    out.extend_from_slice(header);
    let head_len = out.len();
    out.extend_from_slice(plaintext);
    let (head, text) = out.split_at_mut(head_len);
    let nonce: &[u8; NONCE_BYTES] = head[NONCE_AT..].first_chunk().expect("the head has 19 bytes or more");
    let tag = with_aad(head, image_key, |aad| key.seal_in_place(nonce, aad, text));
    out.extend_from_slice(&tag);
    out
}

/// Lends head and image key as one slice, on the stack when they are as short as nearly all are.
#[inline]
fn with_aad<T>(head: &[u8], image_key: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
    let total = head.len() + image_key.len();
    let mut short = [0u8; 224];
    if let Some(room) = short.get_mut(..total) {
        room[..head.len()].copy_from_slice(head);
        room[head.len()..].copy_from_slice(image_key);
        f(room)
    } else {
        f(&[head, image_key].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringfence_crypto::Provider;

    const STAMP: Stamp = Stamp { term: 1, issuer: 2, core: 3, counter: 4 };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = Record::parse(&bytes);
            let _ = Record::parse(&[&[FORMAT], &bytes[..]].concat());
        }

        #[test]
        fn a_changed_bit_or_key_does_not_open(
            header: Vec<u8>, plain: Vec<u8>, image_key in proptest::collection::vec(any::<u8>(), 0..300), bit: usize,
        ) {
            let key = Provider::AwsLc.aead_key(&[7; 32]);
            let record = seal(&key, STAMP, &image_key, &header, &plain);
            prop_assert_eq!(record.len(), RECORD_OVERHEAD_BYTES + header.len() + plain.len());
            let parsed = Record::parse(&record).unwrap();
            prop_assert_eq!(parsed.header, &header[..]);
            prop_assert_eq!(parsed.open(&key, &image_key), Ok(plain));
            prop_assert!(parsed.open(&key, &[&image_key[..], b"x"].concat()).is_err());

            let mut bad = record.clone();
            let at = bit % (bad.len() * 8);
            bad[at / 8] ^= 1 << (at % 8);
            prop_assert!(Record::parse(&bad).map_or(true, |r| r.open(&key, &image_key).is_err()));
            let cut = bit % record.len();
            prop_assert!(Record::parse(&record[..cut]).map_or(true, |r| r.open(&key, &image_key).is_err()));
        }
    }
}
