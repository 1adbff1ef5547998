//! The image: the owner's handle on the current state.
//!
//! The owner applies committed batches and publishes a [`Version`] per group commit. Between two publications an edit
//! copies a page at most once; what no Version holds any more is edited in place. Applying needs no key, reads no
//! clock and yields equal contents on every node at an equal index.

use std::sync::Arc;

use ringfence_base::{Index, MountId, Wall, invariant};

use crate::build::{Builder, Unsorted};
use crate::dismantle::Dismantle;
use crate::tree::Tree;
use crate::version::Version;
use crate::{Batch, MOUNT_TABLES, Op};

/// Everything a Version shows, by reference; cloning is O(1).
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) records: Tree,
    /// Index of the last change by table. An array, because every request asks for several of them to know that
    /// what it derived from those tables still holds.
    pub(crate) tables: Arc<[u64; 256]>,
    /// Index of the last change by table and mount (key: table byte, mount number big endian); values are eight bytes
    /// big endian.
    pub(crate) marks: Tree,
    /// Everything may have changed at this index: it is where a checkpoint was loaded.
    pub(crate) floor: Index,
    pub(crate) index: Index,
    pub(crate) log_time: Wall,
}

/// Marks kept back until a publication; more are written at once, so that looking for one stays cheap.
const MAX_CHANGED: usize = 32;

/// The replicated map at the owner.
pub struct Image {
    state: State,
    scratch: Vec<u8>,
    /// Tables and mounts changed since the last publication, and when: a group commit touches few of them many times.
    changed: Vec<(u8, Option<MountId>, Index)>,
}

impl Default for Image {
    fn default() -> Self {
        Image::new()
    }
}

impl Image {
    /// An empty image at index 0.
    pub fn new() -> Image {
        Image::over(Tree::new(), Index(0), Wall(0))
    }

    /// An image of records that all may have changed at `index`.
    pub(crate) fn over(records: Tree, index: Index, log_time: Wall) -> Image {
        let tables = Arc::new([0; 256]);
        let state = State { records, tables, marks: Tree::new(), floor: index, index, log_time };
        Image { state, scratch: Vec::new(), changed: Vec::new() }
    }

    /// Loads strictly ascending entries, many times faster than putting them.
    ///
    /// # Errors
    /// The first key that is not above its predecessor.
    pub fn from_sorted<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        entries: impl IntoIterator<Item = (K, V)>,
        index: Index,
        log_time: Wall,
    ) -> Result<Image, Unsorted> {
        let mut builder = Builder::new();
        for (key, value) in entries {
            builder.push(key.as_ref(), value.as_ref(), index.0)?;
        }
        Ok(Image::over(builder.finish(), index, log_time))
    }

    /// Applies the batch committed at `index`, which is never below the one before. Several batches of one index are
    /// applied before the next publication.
    pub fn apply(&mut self, index: Index, batch: &Batch) {
        self.advance(index, batch.log_time);
        let mut marked = None;
        for op in &batch.ops {
            match op {
                Op::Put { key, value } => self.state.records.put(key, value, index.0, &mut self.scratch),
                Op::Delete { key } => self.state.records.delete(key, index.0, &mut self.scratch),
            }
            let scope = scope_of(op.key());
            if scope == marked {
                continue;
            }
            marked = scope;
            if let Some((table, mount)) = scope {
                self.note_change(table, None, index);
                if mount.is_some() {
                    self.note_change(table, mount, index);
                }
            }
        }
    }

    /// Remembers a mark for the next publication.
    fn note_change(&mut self, table: u8, mount: Option<MountId>, index: Index) {
        // newest last: those of one request are looked for again at once
        match self.changed.iter_mut().rev().find(|(t, m, _)| (*t, *m) == (table, mount)) {
            Some((_, _, at)) => *at = index,
            None => self.changed.push((table, mount, index)),
        }
        if self.changed.len() >= MAX_CHANGED {
            self.mark_changed();
        }
    }

    fn mark_changed(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        for (table, mount, index) in changed.drain(..) {
            self.mark(table, mount, index);
        }
        self.changed = changed;
    }

    /// Notes that the log reached `index` without a change (an entry of raft's own). Log time never goes back.
    pub fn advance(&mut self, index: Index, log_time: Wall) {
        invariant!(index >= self.state.index, "index {index} applied after {}", self.state.index);
        self.state.index = index;
        self.state.log_time = self.state.log_time.max(log_time);
    }

    /// Seals the current nodes against in-place edits and hands them out. O(1).
    pub fn publish(&mut self) -> Version {
        self.mark_changed();
        Version::new(self.state.clone())
    }

    /// Index of the last batch applied.
    pub fn applied(&self) -> Index {
        self.state.index
    }

    /// Log time of the last batch applied.
    pub fn log_time(&self) -> Wall {
        self.state.log_time
    }

    /// Frees the image step by step; dropping a large one at once takes a noticeable fraction of a second.
    pub fn dismantle(self) -> Dismantle {
        Dismantle::new([self.state.records.into_root(), self.state.marks.into_root()])
    }

    /// Remembers when a table, or a mount's keys in it, last changed.
    pub(crate) fn mark(&mut self, table: u8, mount: Option<MountId>, index: Index) {
        match mount {
            None => Arc::make_mut(&mut self.state.tables)[usize::from(table)] = index.0,
            Some(mount) => {
                let (key, at) = (mark_key(table, mount), index.0);
                self.state.marks.put(&key, &at.to_be_bytes(), at, &mut self.scratch);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.state.records.check();
        self.state.marks.check();
    }
}

/// Table and mount of a key; `None` for the empty key, which belongs to no table.
pub(crate) fn scope_of(key: &[u8]) -> Option<(u8, Option<MountId>)> {
    let table = *key.first()?;
    let mount = match key {
        [_, a, b, c, d, ..] if table >= MOUNT_TABLES => Some(MountId(u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => None,
    };
    Some((table, mount))
}

/// Key of a mount's mark.
pub(crate) fn mark_key(table: u8, mount: MountId) -> [u8; 5] {
    let [a, b, c, d] = mount.0.to_be_bytes();
    [table, a, b, c, d]
}
