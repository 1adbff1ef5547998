//! Bulk loading: strictly ascending entries become full pages, full pages become nodes, bottom up, in one pass.

use crate::Key;
use crate::node::{Branch, Part};
use crate::page::{Entry, PAGE_BYTES, Page, entry_bytes};
use crate::tree::{Tree, separator};

/// A page is closed at this: the first writes after a load find room before they must divide it.
const FILL_BYTES: usize = PAGE_BYTES * 7 / 8;
/// A key was not above the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsorted {
    /// The key that came too late.
    pub key: Key,
}

impl std::fmt::Display for Unsorted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a key of {} bytes is not above the one before it", self.key.len())
    }
}

impl std::error::Error for Unsorted {}

/// Builds a tree from ascending entries.
pub(crate) struct Builder {
    /// Entries of the page being filled: bytes of keys and values, and the lengths of each.
    pending: Vec<u8>,
    lengths: Vec<(usize, usize)>,
    pending_bytes: usize,
    /// Last key of the page before.
    page_end: Key,
    /// Index of the last change of what goes into the page being filled.
    changed: u64,
    /// Index of the last deletion after the last entry: whether its key belongs to this page or to the next one is
    /// known only once the separator is, so both are marked.
    deleted: u64,
    /// Parts waiting for a parent, by height.
    levels: Vec<Vec<Part>>,
    payload: u64,
    scratch: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            pending: Vec::new(),
            lengths: Vec::new(),
            pending_bytes: 16,
            page_end: Vec::new(),
            changed: 0,
            deleted: 0,
            levels: vec![Vec::new()],
            payload: 0,
            scratch: Vec::new(),
        }
    }

    /// Appends an entry that last changed at index `at`.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8], at: u64) -> Result<(), Unsorted> {
        let bytes = entry_bytes(key, value);
        if let Some(last) = self.last_key() {
            if key <= last {
                return Err(Unsorted { key: key.to_vec() });
            }
            if self.pending_bytes + bytes > FILL_BYTES {
                self.close_page();
                self.changed = self.deleted;
            }
        }
        self.deleted = 0;
        self.pending.extend_from_slice(key);
        self.pending.extend_from_slice(value);
        self.lengths.push((key.len(), value.len()));
        self.pending_bytes += bytes;
        self.payload += (key.len() + value.len()) as u64;
        self.changed = self.changed.max(at);
        Ok(())
    }

    /// Notes that something between the last entry and the next was deleted at index `at`.
    pub(crate) fn deleted(&mut self, at: u64) {
        self.changed = self.changed.max(at);
        self.deleted = self.deleted.max(at);
    }

    /// The tree of all entries pushed.
    pub(crate) fn finish(mut self) -> Tree {
        if !self.lengths.is_empty() || self.levels[0].is_empty() {
            self.close_page();
        }
        let mut height = 0;
        loop {
            let parts = std::mem::take(&mut self.levels[height]);
            let topmost = self.levels[height + 1..].iter().all(Vec::is_empty);
            match parts.len() {
                0 => {}
                1 if topmost => {
                    let root = parts.into_iter().next().expect("there is one").branch;
                    return Tree::from_root(root, self.payload);
                }
                _ => self.raise(height + 1, parts),
            }
            height += 1;
        }
    }

    fn last_key(&self) -> Option<&[u8]> {
        match self.lengths.last() {
            Some((key, value)) => {
                let start = self.pending.len() - key - value;
                Some(&self.pending[start..start + key])
            }
            None => None,
        }
    }

    fn close_page(&mut self) {
        let mut rest = &self.pending[..];
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(self.lengths.len());
        for (key, value) in &self.lengths {
            let (entry, tail) = rest.split_at(key + value);
            entries.push(entry.split_at(*key));
            rest = tail;
        }
        let between = match entries.first() {
            Some((first, _)) => separator(&self.page_end, first).to_vec(),
            None => Vec::new(),
        };
        let page = Page::build(&entries, 0, &mut self.scratch);
        self.page_end.clear();
        self.page_end.extend_from_slice(entries.last().map_or(&[], |(last, _)| last));
        self.pending.clear();
        self.lengths.clear();
        self.pending_bytes = 16;
        let changed = std::mem::take(&mut self.changed);
        self.add(0, Part { separator: between, branch: Branch::leaf(page, changed) });
    }

    fn add(&mut self, height: usize, part: Part) {
        if self.levels.len() == height {
            self.levels.push(Vec::new());
        }
        if self.levels[height].len() == part.branch.fan_above() * 7 / 8 {
            let full = std::mem::take(&mut self.levels[height]);
            self.raise(height + 1, full);
        }
        self.levels[height].push(part);
    }

    /// Puts parts under a node one level up.
    fn raise(&mut self, height: usize, parts: Vec<Part>) {
        let separator = parts[0].separator.clone();
        self.add(height, Part { separator, branch: Branch::over(parts) });
    }
}
