//! The tip: the image and the batches in flight over it, as the owner sees them.
//!
//! A Txn that lost twice runs here, on the owner, alone, so it cannot lose again. Whatever it yields is answered only
//! when the tip's index is committed.

use crate::view::{Entries, View, bounds};
use ringfence_base::{Index, MountId, Wall};
use ringfence_store::{Batch, Key, MOUNT_TABLES, Op};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The writes in flight by key, kept from one run to the next: a run pays for the batches that came since the last one,
/// not for all that are in flight.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Latest write by key: at which index, and the record or its deletion. What a view contains by now may still
    /// stand here, and older than it does there.
    latest: BTreeMap<Key, (Index, Option<Vec<u8>>)>,
    index: Index,
    log_time: Wall,
    /// Keys at which the overlay looks for what the view contains by now.
    prune_at: usize,
}

/// Keys below which an overlay is not searched for what may go.
const PRUNE_AT: usize = 1024;

impl Overlay {
    /// Index of the newest batch laid.
    pub fn index(&self) -> Index {
        self.index
    }

    /// Lays a batch over those before it. Batches come in the order of their indexes; those that every later view
    /// contains may be left out.
    pub fn lay(&mut self, index: Index, batch: &Batch) {
        ringfence_base::invariant!(index >= self.index, "batches are laid in the order of their indexes");
        (self.index, self.log_time) = (index, batch.log_time);
        for op in &batch.ops {
            match op {
                Op::Put { key, value } => self.latest.insert(key.clone(), (index, Some(value.clone()))),
                Op::Delete { key } => self.latest.insert(key.clone(), (index, None)),
            };
        }
    }

    /// Forgets what a view of this index contains.
    pub fn prune(&mut self, shown: Index) {
        if shown >= self.index {
            self.latest.clear();
        } else if self.latest.len() >= self.prune_at.max(PRUNE_AT) {
            self.latest.retain(|_, (index, _)| *index > shown);
            self.prune_at = 2 * self.latest.len();
        }
    }
}

/// A view over the latest Version and the batches that are proposed but not applied to it. It borrows both.
pub struct Tip<'a> {
    base: &'a dyn View,
    overlay: &'a Overlay,
}

impl<'a> Tip<'a> {
    /// The tip over a view. The overlay holds every batch in flight over it.
    pub fn new(base: &'a dyn View, overlay: &'a Overlay) -> Tip<'a> {
        Tip { base, overlay }
    }

    /// Writes in flight between two bounds.
    fn in_flight<'v>(
        &'v self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'v [u8], Index, Option<&'v [u8]>)> + use<'v, 'a> {
        let shown = self.base.index();
        let latest = self.overlay.latest.range::<[u8], _>((from, to));
        latest
            .filter(move |(_, (index, _))| *index > shown)
            .map(|(key, (index, value))| (&key[..], *index, value.as_deref()))
    }
}

impl View for Tip<'_> {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        match self.overlay.latest.get(key) {
            Some((index, value)) if *index > self.base.index() => value.as_deref(),
            _ => self.base.get(key),
        }
    }

    fn scan<'v>(&'v self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Entries<'v> {
        if is_empty_range(from, to) {
            return Box::new(std::iter::empty());
        }
        let over = self.in_flight(from, to).map(|(key, _, value)| (key, value));
        Box::new(Merge { base: self.base.scan(from, to), over, base_ends: [None, None], over_ends: [None, None] })
    }

    fn count_prefix(&self, prefix: &[u8]) -> u64 {
        let end = crate::prefix_end(prefix);
        let (from, to) = bounds(prefix, end.as_deref());
        let before = self.base.count_prefix(prefix);
        self.in_flight(from, to).fold(before, |n, (key, _, value)| {
            match (self.base.get(key).is_some(), value.is_some()) {
                (false, true) => n + 1,
                (true, false) => n - 1,
                _ => n,
            }
        })
    }

    fn index(&self) -> Index {
        self.base.index().max(self.overlay.index)
    }

    fn log_time(&self) -> Wall {
        if self.overlay.index > self.base.index() { self.overlay.log_time } else { self.base.log_time() }
    }

    fn changed(&self, table: u8, mount: Option<MountId>) -> Index {
        let mut prefix = vec![table];
        if let Some(mount) = mount.filter(|_| table >= MOUNT_TABLES) {
            prefix.extend_from_slice(&mount.0.to_be_bytes());
        }
        let end = crate::prefix_end(&prefix);
        let (from, to) = bounds(&prefix, end.as_deref());
        let newest = self.in_flight(from, to).map(|(_, index, _)| index).max();
        newest.unwrap_or_default().max(self.base.changed(table, mount))
    }
}

/// Maps panic on a range that ends before it starts; here it is empty.
pub(crate) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    use Bound::{Excluded, Included, Unbounded};
    match (from, to) {
        (Unbounded, _) | (_, Unbounded) => false,
        (Included(a), Included(b)) => a > b,
        (Included(a) | Excluded(a), Included(b) | Excluded(b)) => a >= b,
    }
}

/// A write in flight: a key and its record, or its deletion.
type InFlight<'v> = (&'v [u8], Option<&'v [u8]>);

/// Two ordered walks as one, from either end; the overlay wins and its deletions hide.
struct Merge<'v, O> {
    base: Entries<'v>,
    over: O,
    /// Entries taken but not yielded, front and back.
    base_ends: [Option<(&'v [u8], &'v [u8])>; 2],
    over_ends: [Option<InFlight<'v>>; 2],
}

impl<'v, O: DoubleEndedIterator<Item = InFlight<'v>>> Merge<'v, O> {
    /// The next entry at one end (0 front, 1 back). Each side's other end is its last resort.
    fn step(&mut self, end: usize) -> Option<(&'v [u8], &'v [u8])> {
        loop {
            let front = end == 0;
            if self.base_ends[end].is_none() {
                self.base_ends[end] = if front { self.base.next() } else { self.base.next_back() }
                    .or_else(|| self.base_ends[1 - end].take());
            }
            if self.over_ends[end].is_none() {
                self.over_ends[end] = if front { self.over.next() } else { self.over.next_back() }
                    .or_else(|| self.over_ends[1 - end].take());
            }
            match (self.base_ends[end], self.over_ends[end]) {
                (None, None) => return None,
                (Some(base), None) => {
                    self.base_ends[end] = None;
                    return Some(base);
                }
                (Some(base), Some(over)) if base.0 != over.0 && (base.0 < over.0) == front => {
                    self.base_ends[end] = None;
                    return Some(base);
                }
                (base, Some(over)) => {
                    if base.is_some_and(|base| base.0 == over.0) {
                        self.base_ends[end] = None;
                    }
                    self.over_ends[end] = None;
                    if let Some(value) = over.1 {
                        return Some((over.0, value));
                    }
                }
            }
        }
    }
}

impl<'v, O: DoubleEndedIterator<Item = InFlight<'v>>> Iterator for Merge<'v, O> {
    type Item = (&'v [u8], &'v [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.step(0)
    }
}

impl<'v, O: DoubleEndedIterator<Item = InFlight<'v>>> DoubleEndedIterator for Merge<'v, O> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(1)
    }
}
