//! The committed tail of the log behind a checkpoint, as one sorted run.
//!
//! ```text
//!   entry 7: put b, put a      a 7│ b 9│ c deleted 8        merged with the checkpoint's sorted records
//!   entry 8: put c, delete c  ────sort, last word wins────> while the image is built, bottom up, in one pass
//!   entry 9: put b
//! ```
//!
//! Filled by whoever recovers a data directory, consumed by [`super::Loader`]. Keys and values stay where they lie in the
//! log's entries until the image is built of them: nothing is copied twice, and each key goes into the image once,
//! however often it was written. What comes out is what applying the entries one by one would have come to.

use std::collections::BTreeMap;

use ringfence_base::{CodecError, Index, MountId, Wall, invariant};

use crate::batch::Writes;
use crate::image::scope_of;
use crate::page::head;

/// Committed entries after an index.
pub struct Tail<'t> {
    rows: Vec<Row<'t>>,
    /// When a table, and a mount's keys in it, last changed.
    marks: BTreeMap<(u8, Option<MountId>), Index>,
    /// Entries up to here are in what the tail is merged with.
    after: Index,
    index: Index,
    log_time: Wall,
}

/// What an entry says of a key.
#[derive(Clone, Copy)]
pub(super) struct Row<'t> {
    /// The first bytes of the key as a number: nearly all comparisons end there.
    head: u64,
    pub(super) key: &'t [u8],
    pub(super) at: Index,
    /// `None`: deleted.
    pub(super) value: Option<&'t [u8]>,
}

/// Rows in order, one a key, and what else the tail says.
pub(super) struct Sorted<'t> {
    pub(super) rows: std::iter::Peekable<std::vec::IntoIter<Row<'t>>>,
    pub(super) marks: BTreeMap<(u8, Option<MountId>), Index>,
    pub(super) index: Index,
    pub(super) log_time: Wall,
}

impl<'t> Tail<'t> {
    /// No entries after `index`.
    pub fn after(index: Index) -> Tail<'t> {
        Tail { rows: Vec::new(), marks: BTreeMap::new(), after: index, index, log_time: Wall(0) }
    }

    /// Takes the encoded batch of the entry at `at`. Indexes ascend; entries at or below the beginning are skipped.
    ///
    /// # Errors
    /// It cannot be decoded.
    pub fn push(&mut self, at: Index, batch: &'t [u8]) -> Result<(), CodecError> {
        if at <= self.after {
            return Ok(());
        }
        self.pass(at);
        let mut writes = Writes::of(batch)?;
        self.log_time = self.log_time.max(writes.log_time);
        let mut marked = None;
        while let Some((key, value)) = writes.next_write()? {
            self.rows.push(Row { head: head(key, 0), key, at, value });
            let scope = scope_of(key);
            if scope == marked {
                continue;
            }
            marked = scope;
            if let Some((table, mount)) = scope {
                self.marks.insert((table, None), at);
                self.marks.insert((table, mount), at);
            }
        }
        Ok(())
    }

    /// The log holds an entry at `at` that changes nothing in the image.
    pub fn pass(&mut self, at: Index) {
        if at > self.after {
            invariant!(at >= self.index, "the tail goes back from {} to {at}", self.index);
            self.index = at;
        }
    }

    /// An entry wrote into the table.
    pub fn touches(&self, table: u8) -> bool {
        self.marks.contains_key(&(table, None))
    }

    /// The last word on each key, in the order of the keys.
    pub(super) fn sort(mut self) -> Sorted<'t> {
        // stable, so that of a key's rows the last one pushed stays last
        self.rows.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| a.key.cmp(b.key)));
        self.rows.dedup_by(|later, kept| {
            let same = later.head == kept.head && later.key == kept.key;
            if same {
                *kept = *later;
            }
            same
        });
        Sorted {
            rows: self.rows.into_iter().peekable(),
            marks: self.marks,
            index: self.index,
            log_time: self.log_time,
        }
    }
}
