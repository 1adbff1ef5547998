//! Batch tokens: sealed bytes that a client carries and that any unsealed node opens without a record of them.
//!
//! ```text
//!    0        format = 1
//!    1..5     key term           be32
//!    5..21    salt of the minter
//!   21..23    core               be16  ┐ the nonce, after four zero bytes
//!   23..29    counter            be48  ┘
//!   29..      AES-256-GCM ciphertext
//!   last 16   tag
//! ```
//!
//! Key: HKDF-SHA256(salt, the term's token secret), a family apart from records, so a hundred million tokens do not
//! bring the storage key a step nearer to rotation. A minter counts its nonces up and draws nothing, and openers
//! cache the key of a salt once a tag under it has verified: both sides cost one AES-GCM call. Associated data: the
//! 29 bytes before the ciphertext.

use crate::keyring::{Keyring, OpenError};
use crate::record::MAX_COUNTER;
use ringfence_crypto::{AeadKey, NONCE_BYTES, NotAuthentic, TAG_BYTES};

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 29;
const STAMP_AT: usize = 21;
/// Bytes that a blob is longer than its plaintext.
pub const TOKEN_OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// A blob taken apart but not verified.
pub(crate) struct TokenBlob<'b> {
    pub term: u32,
    pub salt: &'b [u8; 16],
    head: &'b [u8],
    ciphertext: &'b [u8],
    tag: &'b [u8; TAG_BYTES],
}

impl<'b> TokenBlob<'b> {
    /// Takes a blob apart. Never panics, whatever the bytes.
    pub fn parse(blob: &'b [u8]) -> Result<TokenBlob<'b>, OpenError> {
        match blob.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(OpenError::UnknownFormat(other)),
            None => return Err(OpenError::Malformed),
        }
        let (head, sealed) = blob.split_at_checked(HEAD_BYTES).ok_or(OpenError::Malformed)?;
        let (ciphertext, tag) = sealed.split_last_chunk().ok_or(OpenError::Malformed)?;
        let term = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let salt = head[5..STAMP_AT].first_chunk().expect("16 bytes stand there");
        Ok(TokenBlob { term, salt, head, ciphertext, tag })
    }

    /// Verifies and decrypts.
    pub fn open(&self, key: &AeadKey) -> Result<Vec<u8>, NotAuthentic> {
        key.open(&nonce(self.head), self.head, self.ciphertext, self.tag)
    }
}

fn nonce(head: &[u8]) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&head[STAMP_AT..HEAD_BYTES]);
    nonce
}

/// Mints batch tokens on one core. Made by [`crate::Issuer`], which gives every core another number; not `Clone`.
pub struct Minter {
    /// Format, term, salt, core; the counter is filled in for each token.
    head: [u8; HEAD_BYTES],
    term: u32,
    counter: u64,
    key: AeadKey,
}

impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Minter(term {}, {} minted)", self.term, self.counter)
    }
}

impl Minter {
    pub(crate) fn new(keyring: &Keyring, salt: &[u8; 16], core: u16) -> Minter {
        let (term, key) = keyring.token_key(salt);
        let mut head = [0; HEAD_BYTES];
        head[0] = FORMAT;
        head[1..5].copy_from_slice(&term.to_be_bytes());
        head[5..STAMP_AT].copy_from_slice(salt);
        head[STAMP_AT..STAMP_AT + 2].copy_from_slice(&core.to_be_bytes());
        Minter { head, term, counter: 0, key }
    }

    /// Moves to the keyring's active term if that is newer.
    pub fn follow(&mut self, keyring: &Keyring) {
        if keyring.active_term() > self.term {
            let salt = self.head[5..STAMP_AT].first_chunk().expect("16 bytes stand there");
            (self.term, self.key) = keyring.token_key(salt);
            self.head[1..5].copy_from_slice(&self.term.to_be_bytes());
        }
    }

    /// Seals a token's content into the blob the client carries.
    pub fn mint(&mut self, plaintext: &[u8]) -> Vec<u8> {
        ringfence_base::invariant!(self.counter < MAX_COUNTER, "a minter's counter never passes 48 bits");
        self.counter += 1;
        self.head[STAMP_AT + 2..].copy_from_slice(&self.counter.to_be_bytes()[2..]);
        let mut out = Vec::with_capacity(TOKEN_OVERHEAD_BYTES + plaintext.len());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(plaintext);
        let tag = self.key.seal_in_place(&nonce(&self.head), &self.head, &mut out[HEAD_BYTES..]);
        out.extend_from_slice(&tag);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Issuer;
    use proptest::prelude::*;
    use ringfence_base::Wall;
    use ringfence_base::entropy::SeededEntropy;
    use ringfence_crypto::Provider;

    #[test]
    fn opens_across_terms_and_never_with_another_keyring() {
        let rng = &mut SeededEntropy(1);
        let one = Keyring::generate(Provider::AwsLc, Wall(0), rng);
        let two = one.rotated(Wall(1), rng);
        let other = Keyring::generate(Provider::AwsLc, Wall(0), rng);
        let mut minter = Issuer::unregistered(rng).minter(&one);
        let (a, b) = (minter.mint(b"token"), minter.mint(b"token"));
        assert_ne!(a, b, "a nonce is never used twice");
        assert_eq!(a.len(), 5 + TOKEN_OVERHEAD_BYTES);
        minter.follow(&two);
        let c = minter.mint(b"token");
        for blob in [&a, &b, &c] {
            for _ in 0..2 {
                assert_eq!(two.open_batch_token(blob).unwrap(), b"token", "first derived, then cached");
            }
            assert!(other.open_batch_token(blob).is_err());
        }
        assert_eq!(one.open_batch_token(&c), Err(OpenError::UnknownTerm(2)));
    }

    /// A hundred million tokens bring neither the storage key nor the tokens' own a step nearer to its end.
    ///
    /// Tokens are sealed under keys of a family apart, one a salt, so they are not among the seals that rotation counts
    /// (NIST SP 800-38D 8.3 bounds the invocations of a key only where nonces are drawn; here they are counted up).
    /// What wears such a key is the blocks it encrypts: b of them are told from noise with probability below
    /// b^2 / 2^129.
    #[test]
    fn a_hundred_million_tokens_wear_no_key() {
        let rng = &mut SeededEntropy(1);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(0), rng);
        let empty = ringfence_store::Image::new().publish();
        let mut issuer = Issuer::register(&mut crate::Txn::new(&empty, None), "test", Wall(1), rng);
        let mut sealer = issuer.sealer(&keyring);
        let first = sealer.seal_batch_token(b"token");
        for _ in 0..100_000 {
            sealer.seal_batch_token(b"token");
        }
        assert_eq!(sealer.take_count(), 0, "no token is counted as a seal of the storage key");
        sealer.seal(b"key", b"", b"record");
        assert_eq!(sealer.take_count(), 1);
        let last = sealer.seal_batch_token(b"token");
        let counter =
            |blob: &[u8]| u64::from_be_bytes([0, 0, blob[23], blob[24], blob[25], blob[26], blob[27], blob[28]]);
        assert_eq!((counter(&first), counter(&last)), (1, 100_002), "one nonce a token, none of them drawn");

        const MINTED: u64 = 100_000_000;
        // 300 characters are 225 bytes; one more block is the tag's
        const BLOCKS: u64 = MINTED * (225_u64.div_ceil(16) + 1);
        const { assert!(MINTED < MAX_COUNTER / 1_000_000) };
        const { assert!(2 * BLOCKS.ilog2() + 2 < 129 - 64, "distinguished with less than 2^-64") };
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_safe_and_any_change_is_refused(noise: Vec<u8>, plain: Vec<u8>, bit: usize) {
            let rng = &mut SeededEntropy(1);
            let keyring = Keyring::generate(Provider::AwsLc, Wall(0), rng);
            prop_assert!(keyring.open_batch_token(&noise).is_err());
            prop_assert!(keyring.open_batch_token(&[&[FORMAT, 0, 0, 0, 1], &noise[..]].concat()).is_err());
            let mut blob = Issuer::unregistered(rng).minter(&keyring).mint(&plain);
            prop_assert_eq!(keyring.open_batch_token(&blob), Ok(plain));
            let cut = bit % blob.len();
            prop_assert!(keyring.open_batch_token(&blob[..cut]).is_err());
            let at = bit % (blob.len() * 8);
            blob[at / 8] ^= 1 << (at % 8);
            prop_assert!(keyring.open_batch_token(&blob).is_err());
        }
    }
}
