//! Derived keys by issuer or salt: filled once, read by every core without a lock.
//!
//! Reading follows one or two pointers that never change again, so cores share the cache lines instead of passing
//! them around as a reader-writer lock would. Entries are never removed; the count is bounded, and what finds no
//! room is derived again each time (about a microsecond), which is slow but right.

use ringfence_crypto::AeadKey;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const BUCKETS: usize = 4096;
/// With an issuer a node every five minutes: two months of them, 10 MB when full.
const MAX_ENTRIES: usize = 16_384;

/// A bounded, append-only map to expanded keys. Only keys under which a tag has verified are put in: what an
/// attacker invents is derived, refused and forgotten.
pub(crate) struct KeyCache<K> {
    buckets: OnceLock<Box<[Link<K>]>>,
    entries: AtomicUsize,
}

type Link<K> = OnceLock<Box<Entry<K>>>;

struct Entry<K> {
    id: K,
    key: AeadKey,
    next: Link<K>,
}

/// What can name a key.
pub(crate) trait CacheId: PartialEq {
    fn bucket(&self) -> usize;
}

impl CacheId for u32 {
    fn bucket(&self) -> usize {
        *self as usize
    }
}

impl CacheId for [u8; 16] {
    /// Salts are random already.
    fn bucket(&self) -> usize {
        usize::from(self[0]) | usize::from(self[1]) << 8
    }
}

impl<K: CacheId> KeyCache<K> {
    pub fn new() -> Self {
        KeyCache { buckets: OnceLock::new(), entries: AtomicUsize::new(0) }
    }

    #[inline]
    pub fn find(&self, id: &K) -> Option<&AeadKey> {
        let mut link = &self.buckets.get()?[id.bucket() % BUCKETS];
        while let Some(entry) = link.get() {
            if entry.id == *id {
                return Some(&entry.key);
            }
            link = &entry.next;
        }
        None
    }

    /// Puts a key at the end of its chain. When two cores race, both entries hold the same key and the first is found.
    pub fn insert(&self, id: K, key: AeadKey) {
        if self.entries.fetch_add(1, Ordering::Relaxed) >= MAX_ENTRIES {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let buckets = self.buckets.get_or_init(|| (0..BUCKETS).map(|_| OnceLock::new()).collect());
        let mut link = &buckets[id.bucket() % BUCKETS];
        let mut entry = Box::new(Entry { id, key, next: OnceLock::new() });
        while let Err(again) = link.set(entry) {
            entry = again;
            link = &link.get().expect("a link that refuses is set").next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_crypto::Provider;

    #[test]
    fn finds_what_was_put_in_and_nothing_else() {
        let cache = KeyCache::new();
        assert!(cache.find(&1u32).is_none());
        let seal = |k: &AeadKey| k.seal_in_place(&[0; 12], b"", &mut []);
        let key = |n: u32| Provider::AwsLc.aead_key(&[n as u8; 32]);
        let ids = [1, 1 + BUCKETS as u32, 1 + 2 * BUCKETS as u32, 2];
        for &id in &ids {
            cache.insert(id, key(id + id / BUCKETS as u32));
        }
        for &id in &ids {
            assert_eq!(seal(cache.find(&id).unwrap()), seal(&key(id + id / BUCKETS as u32)));
        }
        assert!(cache.find(&(1 + 3 * BUCKETS as u32)).is_none());
    }

    #[test]
    fn it_is_bounded() {
        let cache = KeyCache::new();
        for id in 0..MAX_ENTRIES as u32 + 10 {
            cache.insert(id, Provider::AwsLc.aead_key(&[1; 32]));
        }
        assert!(cache.find(&(MAX_ENTRIES as u32 - 1)).is_some());
        assert!(cache.find(&(MAX_ENTRIES as u32)).is_none());
    }
}
