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

    /// Keeps what was made of a record.
    pub fn keep(&self, key: Vec<u8>, tag: [u8; TAG_BYTES], made: Arc<dyn Any + Send + Sync>) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, (tag, made));
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
        memo.keep(b"k".to_vec(), [1; 16], Arc::new(7u32));
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
            memo.keep(n.to_be_bytes().to_vec(), [0; 16], Arc::new(n));
        }
        assert_eq!(memo.entries.borrow().len(), 1);
    }
}
