//! The keyring: the secrets that an unsealed node holds, shared by all its cores.
//!
//! ```text
//!   term 1 ── key ── HKDF by issuer salt ──> record keys     sealed records name term and issuer
//!          └ token ─ HKDF by token salt  ──> token keys      batch tokens carry term and salt
//!   term 2 ...      the newest term seals, all open
//!   index key, for all time ──HMAC──> how token ids, accessors and secret-ids stand in the image
//! ```
//!
//! A keyring never changes: rotation makes another that shares the terms (and their caches) of this one, and the
//! owner publishes it. Dropping the last reference overwrites every key.

use crate::View;
use crate::cache::KeyCache;
use crate::issuer::issuer_salt;
use crate::record::Record;
use crate::token::TokenBlob;
use crate::txn::Plain;
use ringfence_base::{CodecError, Entropy, Reader, Secret, Wall, Writer};
use ringfence_crypto::{AeadKey, HmacKey, KEY_BYTES, NotAuthentic, Provider, hkdf_sha256};
use std::sync::Arc;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
/// Daily rotation for 170 years.
const MAX_TERMS: u64 = 65_536;
const RECORD_INFO: &[u8] = b"ringfence record v1";
const TOKEN_INFO: &[u8] = b"ringfence batch token v1";

/// Why sealed bytes do not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Too short, or fields that contradict each other.
    Malformed,
    /// A format of a later build, or no sealed bytes at all.
    UnknownFormat(u8),
    /// The keyring has no such term.
    UnknownTerm(u32),
    /// The image has no such issuer.
    UnknownIssuer(u32),
    /// Changed, moved to another key, or sealed by another key.
    NotAuthentic,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Malformed => f.write_str("malformed sealed bytes"),
            OpenError::UnknownFormat(n) => write!(f, "unknown format {n} of sealed bytes"),
            OpenError::UnknownTerm(n) => write!(f, "key term {n} is not in the keyring"),
            OpenError::UnknownIssuer(n) => write!(f, "issuer {n} is not registered"),
            OpenError::NotAuthentic => f.write_str("cipher: message authentication failed"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<NotAuthentic> for OpenError {
    fn from(_: NotAuthentic) -> Self {
        OpenError::NotAuthentic
    }
}

impl From<CodecError> for OpenError {
    fn from(_: CodecError) -> Self {
        OpenError::Malformed
    }
}

/// What is hashed into the image; the kind keeps a token id and an equal secret-id apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKind(pub u8);

impl HashKind {
    /// A service token's id.
    pub const TOKEN: HashKind = HashKind(1);
    /// A token's accessor.
    pub const ACCESSOR: HashKind = HashKind(2);
    /// An AppRole secret-id.
    pub const SECRET_ID: HashKind = HashKind(3);
    /// A secret-id's accessor.
    pub const SECRET_ID_ACCESSOR: HashKind = HashKind(4);
    /// A wrapping token's id.
    pub const WRAPPING: HashKind = HashKind(5);
    /// The owner of leases, in their clear header.
    pub const LEASE_OWNER: HashKind = HashKind(6);
    /// Positions in the log that clients carry.
    pub const POSITION: HashKind = HashKind(7);
    // numbers from 64 up are free for upper floors
}

/// The secrets of one term.
struct TermKeys {
    term: u32,
    installed: Wall,
    key: Secret<[u8; KEY_BYTES]>,
    token: Secret<[u8; KEY_BYTES]>,
    record_keys: KeyCache<u32>,
    token_keys: KeyCache<[u8; 16]>,
}

impl TermKeys {
    fn new(term: u32, installed: Wall, key: &[u8; KEY_BYTES], token: &[u8; KEY_BYTES]) -> Arc<TermKeys> {
        Arc::new(TermKeys {
            term,
            installed,
            key: Secret::new(*key),
            token: Secret::new(*token),
            record_keys: KeyCache::new(),
            token_keys: KeyCache::new(),
        })
    }

    fn random(term: u32, installed: Wall, provider: Provider, rng: &mut dyn Entropy) -> Arc<TermKeys> {
        TermKeys::new(term, installed, &provider.random_key(rng), &provider.random_key(rng))
    }
}

/// All terms and the index key. `Send + Sync`; cores share it behind an `Arc`.
pub struct Keyring {
    provider: Provider,
    index_secret: Secret<[u8; KEY_BYTES]>,
    index_key: HmacKey,
    /// Invariant: not empty, terms strictly ascending; the last is active.
    terms: Vec<Arc<TermKeys>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} terms, active {})", self.terms.len(), self.active_term())
    }
}

impl Keyring {
    /// A new cluster's keyring: one term and a fresh index key.
    pub fn generate(provider: Provider, now: Wall, rng: &mut dyn Entropy) -> Keyring {
        let index = provider.random_key(rng);
        Keyring::assemble(provider, &index, vec![TermKeys::random(1, now, provider, rng)])
    }

    /// The keyring with one more term, which is active.
    pub fn rotated(&self, now: Wall, rng: &mut dyn Entropy) -> Keyring {
        let mut terms = self.terms.clone();
        terms.push(TermKeys::random(self.active_term() + 1, now, self.provider, rng));
        Keyring::assemble(self.provider, self.index_secret.expose(), terms)
    }

    fn assemble(provider: Provider, index: &[u8; KEY_BYTES], terms: Vec<Arc<TermKeys>>) -> Keyring {
        Keyring { provider, index_secret: Secret::new(*index), index_key: provider.hmac_key(index), terms }
    }

    /// The implementation its keys run on.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The term that seals.
    pub fn active_term(&self) -> u32 {
        self.active().term
    }

    /// When the active term was installed.
    pub fn active_since(&self) -> Wall {
        self.active().installed
    }

    fn active(&self) -> &TermKeys {
        self.terms.last().expect("a keyring is never empty")
    }

    fn find(&self, term: u32) -> Result<&TermKeys, OpenError> {
        // terms are numbered from 1 without gaps in practice, but only their order is relied on
        match self.terms.last() {
            Some(active) if active.term == term => Ok(active),
            _ => self
                .terms
                .binary_search_by_key(&term, |t| t.term)
                .map(|at| &*self.terms[at])
                .map_err(|_| OpenError::UnknownTerm(term)),
        }
    }

    /// Opens a record that stands at `image_key`. The view is asked for the issuer's salt only the first time an
    /// issuer is met.
    pub fn open(&self, view: &dyn View, image_key: &[u8], record: &[u8]) -> Result<Plain, OpenError> {
        let record = Record::parse(record)?;
        let term = self.find(record.term)?;
        if let Some(key) = term.record_keys.find(&record.issuer) {
            let bytes = record.open(key, image_key)?;
            return Ok(Plain { header: record.header.to_vec(), bytes });
        }
        let salt = issuer_salt(view, record.issuer).ok_or(OpenError::UnknownIssuer(record.issuer))?;
        let key = self.provider.aead_key(&hkdf_sha256(&salt, term.key.expose(), &[RECORD_INFO]));
        let bytes = record.open(&key, image_key)?;
        term.record_keys.insert(record.issuer, key);
        Ok(Plain { header: record.header.to_vec(), bytes })
    }

    /// Opens a batch token's blob. Needs no image: term and salt are in it.
    pub fn open_batch_token(&self, blob: &[u8]) -> Result<Vec<u8>, OpenError> {
        let blob = TokenBlob::parse(blob)?;
        let term = self.find(blob.term)?;
        if let Some(key) = term.token_keys.find(blob.salt) {
            return Ok(blob.open(key)?);
        }
        let key = self.provider.aead_key(&hkdf_sha256(blob.salt, term.token.expose(), &[TOKEN_INFO]));
        let bytes = blob.open(&key)?;
        term.token_keys.insert(*blob.salt, key);
        Ok(bytes)
    }

    /// How an id stands in the image: a keyed hash, stable for the life of the cluster.
    pub fn index_hash(&self, kind: HashKind, bytes: &[u8]) -> [u8; 16] {
        let full = self.index_key.sign(&[&[kind.0], bytes]);
        *full.first_chunk().expect("an HMAC has 32 bytes")
    }

    /// Proves to any node of the cluster that another one wrote this text. Stable for the life of the cluster.
    pub fn mac(&self, kind: HashKind, text: &[u8]) -> [u8; 32] {
        self.index_key.sign(&[&[kind.0], text])
    }

    /// The active term's key for a sealer with this salt.
    pub(crate) fn record_key(&self, salt: &[u8; 16]) -> (u32, AeadKey) {
        let active = self.active();
        (active.term, self.provider.aead_key(&hkdf_sha256(salt, active.key.expose(), &[RECORD_INFO])))
    }

    /// The active term's key for a minter with this salt.
    pub(crate) fn token_key(&self, salt: &[u8; 16]) -> (u32, AeadKey) {
        let active = self.active();
        (active.term, self.provider.aead_key(&hkdf_sha256(salt, active.token.expose(), &[TOKEN_INFO])))
    }

    /// The secrets as bytes, to be sealed by the root key: format, index key, count, then a term each (number, wall
    /// time, two keys).
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // reserved in full: a growing buffer would leave copies of keys behind
        let mut w = Writer::over(Vec::with_capacity(64 + self.terms.len() * 96));
        w.u8(FORMAT).raw(self.index_secret.expose()).num(self.terms.len() as u64);
        for t in &self.terms {
            w.be32(t.term).be64(t.installed.0).raw(t.key.expose()).raw(t.token.expose());
        }
        Zeroizing::new(w.finish())
    }

    /// Reads [`Keyring::encode`]. Terms that `previous` already holds are shared with it, caches and all.
    pub(crate) fn decode(provider: Provider, bytes: &[u8], previous: Option<&Keyring>) -> Result<Keyring, OpenError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            FORMAT => {}
            other => return Err(OpenError::UnknownFormat(other)),
        }
        let key_of = |r: &mut Reader<'_>| -> Result<Zeroizing<[u8; KEY_BYTES]>, OpenError> {
            Ok(Zeroizing::new(r.raw(KEY_BYTES)?.try_into().map_err(|_| OpenError::Malformed)?))
        };
        let index = key_of(&mut r)?;
        let count = r.num()?;
        if count == 0 || count > MAX_TERMS {
            return Err(OpenError::Malformed);
        }
        let mut terms: Vec<Arc<TermKeys>> = Vec::new();
        for _ in 0..count {
            let (term, installed) = (r.be32()?, Wall(r.be64()?));
            let (key, token) = (key_of(&mut r)?, key_of(&mut r)?);
            if terms.last().is_some_and(|before| before.term >= term) {
                return Err(OpenError::Malformed);
            }
            let known = previous.and_then(|p| p.terms.iter().find(|t| t.term == term)).filter(|t| {
                ringfence_base::secret::same_bytes(t.key.expose(), &key[..])
                    && ringfence_base::secret::same_bytes(t.token.expose(), &token[..])
            });
            terms.push(match known {
                Some(shared) => shared.clone(),
                None => TermKeys::new(term, installed, &key, &token),
            });
        }
        r.end()?;
        Ok(Keyring::assemble(provider, &index, terms))
    }
}

const _: () = {
    const fn shared_between_cores<T: Send + Sync>() {}
    shared_between_cores::<Keyring>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringfence_base::entropy::SeededEntropy;

    #[test]
    fn encoding_survives_and_shares_known_terms() {
        let rng = &mut SeededEntropy(1);
        let one = Keyring::generate(Provider::AwsLc, Wall(5), rng);
        let two = one.rotated(Wall(6), rng);
        assert_eq!((one.active_term(), two.active_term(), two.active_since()), (1, 2, Wall(6)));
        let back = Keyring::decode(Provider::AwsLc, &two.encode(), Some(&one)).unwrap();
        assert_eq!(back.encode(), two.encode());
        assert!(Arc::ptr_eq(&back.terms[0], &one.terms[0]));
        assert_eq!(back.index_hash(HashKind::TOKEN, b"x"), one.index_hash(HashKind::TOKEN, b"x"), "stable");
        assert_ne!(back.index_hash(HashKind::TOKEN, b"x"), one.index_hash(HashKind::ACCESSOR, b"x"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>, cut: usize) {
            let _ = Keyring::decode(Provider::AwsLc, &bytes, None);
            let real = Keyring::generate(Provider::AwsLc, Wall(5), &mut SeededEntropy(1)).encode();
            prop_assert!(Keyring::decode(Provider::AwsLc, &real[..cut % real.len()], None).is_err());
            prop_assert!(Keyring::decode(Provider::AwsLc, &[&real[..], b"x"].concat(), None).is_err());
        }
    }
}
