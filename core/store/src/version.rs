//! A version: the image at one index, immutable, shared by every core.

use std::ops::Bound;
use std::sync::Arc;

use ringfence_base::{Index, MountId, Wall};

use crate::ENTRY_OVERHEAD_BYTES;
use crate::dismantle::Dismantle;
use crate::image::{State, mark_key};
use crate::scan::{Gap, Scan, after_prefix, rank};

/// The image as it was at [`Version::index`]. Cloning adds one reference; nothing ever changes underneath.
#[derive(Clone)]
pub struct Version(Arc<State>);

impl Version {
    pub(crate) fn new(state: State) -> Version {
        Version(Arc::new(state))
    }

    /// The record at a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.records.get(key)
    }

    /// The records between two bounds, in order; `.rev()` walks down. An empty or inverted range yields nothing.
    pub fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Scan<'_> {
        Scan::new(&self.0.records, Gap::lower(from), Gap::upper(to))
    }

    /// The records whose keys begin with `prefix`, in order.
    pub fn scan_prefix(&self, prefix: &[u8]) -> Scan<'_> {
        match after_prefix(prefix) {
            Some(end) => Scan::new(&self.0.records, Gap::Before(prefix), Gap::Before(&end)),
            None => Scan::new(&self.0.records, Gap::Before(prefix), Gap::End),
        }
    }

    /// How many keys begin with `prefix`; logarithmic, nothing is walked.
    pub fn count_prefix(&self, prefix: &[u8]) -> u64 {
        let end = match after_prefix(prefix) {
            Some(end) => rank(&self.0.records, Gap::Before(&end)),
            None => self.len(),
        };
        end - rank(&self.0.records, Gap::Before(prefix))
    }

    /// Index of the last batch in it.
    pub fn index(&self) -> Index {
        self.0.index
    }

    /// Log time of the last batch in it.
    pub fn log_time(&self) -> Wall {
        self.0.log_time
    }

    /// Number of records.
    pub fn len(&self) -> u64 {
        self.0.records.len()
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory accounted for: keys, values and [`ENTRY_OVERHEAD_BYTES`] an entry. Depends on the contents alone, so it
    /// is equal on every node; what older Versions keep alive is not in it.
    pub fn bytes(&self) -> u64 {
        self.0.records.payload() + self.len() * ENTRY_OVERHEAD_BYTES
    }

    /// Index of the last change of a table, or of a mount's keys in a scoped one. What was compiled from them at that
    /// index or later still holds. Never below the index at which this image was loaded; deleting a key that is not
    /// there counts as a change.
    pub fn changed(&self, table: u8, mount: Option<MountId>) -> Index {
        let mark = match mount {
            None => self.0.tables[usize::from(table)],
            Some(mount) => {
                let mark = self.0.marks.get(&mark_key(table, mount));
                mark.and_then(|m| m.first_chunk::<8>()).map_or(0, |m| u64::from_be_bytes(*m))
            }
        };
        self.0.floor.max(Index(mark))
    }

    /// Frees what only this Version holds step by step.
    pub fn dismantle(self) -> Dismantle {
        match Arc::into_inner(self.0) {
            Some(state) => Dismantle::new([state.records.into_root(), state.marks.into_root()]),
            None => Dismantle::new([]),
        }
    }

    /// An upper bound of the index of the last change in a range, exact to a page.
    pub(crate) fn changed_within(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> u64 {
        self.0.records.changed_within(from, to)
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Version({} records at {})", self.len(), self.index())
    }
}

const _: () = {
    const fn shared_between_cores<T: Send + Sync>() {}
    shared_between_cores::<Version>();
};
