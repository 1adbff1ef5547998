//! Decoded records that one core keeps. An entry belongs to one sealed record of the image, named by its key and its
//! tag; when another record stands at the key, the entry is not found any more and is replaced. So nothing need be
//! invalidated, on standbys either. It may hold key material: the core drops it all when it is sealed.

use ringfence_crypto::TAG_BYTES;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Decoded records kept per core; beyond it the memo starts anew.
const MAX_ENTRIES: usize = 10_000;

type Entry = ([u8; TAG_BYTES], Arc<dyn Any + Send + Sync>);

/// The decoded records of one core.
#[derive(Default)]
pub struct Memo {
    entries: RefCell<BTreeMap<Vec<u8>, Entry>>,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memo({} entries)", self.entries.borrow().len())
    }
}

impl Memo {
    /// What was made of the record with this key and tag.
    pub fn find<T: Any + Send + Sync>(&self, key: &[u8], tag: &[u8; TAG_BYTES]) -> Option<Arc<T>> {
        let entries = self.entries.borrow();
        let (made_of, made) = entries.get(key)?;
        if made_of != tag {
            return None;
        }
        made.clone().downcast().ok()
    }

    /// Keeps what was made of a record, and at most so many whose keys begin with the same `area` bytes: others of
    /// them make room.
    pub fn keep(
        &self,
        key: Vec<u8>,
        area: usize,
        most: usize,
        tag: [u8; TAG_BYTES],
        made: Arc<dyn Any + Send + Sync>,
    ) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        if most < MAX_ENTRIES && !entries.contains_key(&key) {
            let area = &key[..area];
            let same = entries.range(area.to_vec()..).map(|(k, _)| k).take_while(|k| k.starts_with(area));
            let kept: Vec<Vec<u8>> = same.cloned().collect();
            for gone in kept.iter().take((kept.len() + 1).saturating_sub(most)) {
                entries.remove(gone);
            }
        }
        entries.insert(key, (tag, made));
    }

    /// How much is kept.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Forgets everything: the core was sealed.
    pub fn clear(&self) {
        self.entries.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_of_one_record_and_one_type() {
        let memo = Memo::default();
        memo.keep(b"k".to_vec(), 0, usize::MAX, [1; 16], Arc::new(7u32));
        assert_eq!(memo.find::<u32>(b"k", &[1; 16]).as_deref(), Some(&7));
        assert!(memo.find::<u32>(b"k", &[2; 16]).is_none(), "another record stands there");
        assert!(memo.find::<u32>(b"l", &[1; 16]).is_none());
        assert!(memo.find::<u64>(b"k", &[1; 16]).is_none());
        memo.clear();
        assert!(memo.find::<u32>(b"k", &[1; 16]).is_none());
    }

    #[test]
    fn it_is_bounded() {
        let memo = Memo::default();
        for n in 0..=MAX_ENTRIES as u32 {
            memo.keep(n.to_be_bytes().to_vec(), 0, usize::MAX, [0; 16], Arc::new(n));
        }
        assert_eq!(memo.entries.borrow().len(), 1);
    }

    #[test]
    fn an_area_keeps_no_more_than_it_may() {
        let memo = Memo::default();
        memo.keep(b"bz".to_vec(), 1, 3, [0; 16], Arc::new(0u8));
        for n in 0..20u8 {
            memo.keep(vec![b'a', n], 1, 3, [0; 16], Arc::new(n));
            assert!(memo.find::<u8>(&[b'a', n], &[0; 16]).is_some(), "the newest is there");
        }
        assert_eq!(memo.entries.borrow().len(), 4, "another area's are left alone");
        memo.keep(vec![b'a', 19], 1, 3, [1; 16], Arc::new(1u8));
        assert_eq!(memo.entries.borrow().len(), 4, "one that is replaced takes no room");
    }
}
