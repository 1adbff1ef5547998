//! What a Txn reads: an ordered map at one index, which never changes while it is lent.

use ringfence_base::{Index, MountId, Wall};
use ringfence_store::Version;
use std::ops::Bound;

/// Entries in key order, from either end.
pub type Entries<'v> = Box<dyn DoubleEndedIterator<Item = (&'v [u8], &'v [u8])> + 'v>;

/// A readable state of the image. A [`Version`] is one; the owner's [`crate::Tip`] is another.
pub trait View {
    /// The record at a key.
    fn get(&self, key: &[u8]) -> Option<&[u8]>;
    /// The records between two bounds, in order.
    fn scan<'v>(&'v self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Entries<'v>;
    /// How many keys begin with a prefix.
    fn count_prefix(&self, prefix: &[u8]) -> u64;
    /// Index of the last batch in it.
    fn index(&self) -> Index;
    /// Log time of the last batch in it.
    fn log_time(&self) -> Wall;
    /// Index of the last change of a table, or of one mount's part of it.
    fn changed(&self, table: u8, mount: Option<MountId>) -> Index;
}

impl View for Version {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        Version::get(self, key)
    }

    fn scan<'v>(&'v self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Entries<'v> {
        Box::new(Version::scan(self, from, to))
    }

    fn count_prefix(&self, prefix: &[u8]) -> u64 {
        Version::count_prefix(self, prefix)
    }

    fn index(&self) -> Index {
        Version::index(self)
    }

    fn log_time(&self) -> Wall {
        Version::log_time(self)
    }

    fn changed(&self, table: u8, mount: Option<MountId>) -> Index {
        Version::changed(self, table, mount)
    }
}

/// The first key after all those that begin with `prefix`; none if the prefix is all 0xff.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

/// The bounds of a range from a first key to an optional end.
pub(crate) fn bounds<'k>(from: &'k [u8], to: Option<&'k [u8]>) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded))
}
