//! Raft's view of the log: the entries after the last checkpoint, in memory. What is durable is the plan's business;
//! raft itself counts an entry only after `on_persist_ready`.

use crate::conf::ConfState;
use crate::log::recover::Checkpoint;
use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// Entries in memory.
pub(crate) struct Tail {
    /// Entries after `base`, without gaps.
    entries: VecDeque<Entry>,
    /// Index and term of the entry before the first one.
    base: (u64, u64),
    /// Bytes of all entries' bodies, with a fixed cost each.
    bytes: u64,
    /// Of all entries after the newest checkpoint, also of those that are not in memory any more. Exact to [`STRETCH`].
    bytes_since_checkpoint: u64,
    /// Entries after the newest checkpoint that left memory: last index and bytes of each stretch, oldest first.
    gone: VecDeque<(u64, u64)>,
    /// State at start; raft reads it once.
    hard_state: HardState,
    conf: ConfState,
    /// The newest checkpoint, for followers that are too far behind.
    checkpoint: Checkpoint,
    manifest: Bytes,
    /// A follower asked for more than `checkpoint` offers.
    snapshot_wanted: Cell<bool>,
}

/// Bytes of entries that left memory which are counted as one.
const STRETCH: u64 = 1024 * 1024;

/// What an entry costs beside its body.
const ENTRY_COST: u64 = 128;

fn cost(e: &Entry) -> u64 {
    e.data.len() as u64 + ENTRY_COST
}

impl Tail {
    /// `conf` is the membership that raft begins with: that of the last applied entry, which may lie behind the
    /// checkpoint.
    pub(crate) fn new(checkpoint: Checkpoint, conf: ConfState, entries: Vec<Entry>, hard_state: HardState) -> Tail {
        let bytes = entries.iter().map(cost).sum();
        Tail {
            entries: entries.into(),
            base: (checkpoint.index.0, checkpoint.term.0),
            bytes,
            bytes_since_checkpoint: bytes,
            gone: VecDeque::new(),
            hard_state,
            conf,
            checkpoint,
            manifest: Bytes::new(),
            snapshot_wanted: Cell::new(false),
        }
    }

    /// Replaces everything from the first of `new` on.
    pub(crate) fn append(&mut self, new: &[Entry]) {
        let Some(first) = new.first() else { return };
        let keep = first.index.checked_sub(self.base.0 + 1).expect("raft never replaces a compacted entry") as usize;
        assert!(keep <= self.entries.len(), "raft appends without gaps");
        for dropped in self.entries.drain(keep..) {
            self.bytes -= cost(&dropped);
            self.bytes_since_checkpoint -= cost(&dropped);
        }
        let added: u64 = new.iter().map(cost).sum();
        self.bytes += added;
        self.bytes_since_checkpoint += added;
        self.entries.extend(new.iter().cloned());
    }

    /// Forgets everything in favour of a checkpoint received.
    pub(crate) fn reset(&mut self, checkpoint: Checkpoint, manifest: Bytes) {
        self.entries.clear();
        (self.bytes, self.bytes_since_checkpoint) = (0, 0);
        self.gone.clear();
        self.base = (checkpoint.index.0, checkpoint.term.0);
        self.checkpoint = checkpoint;
        self.manifest = manifest;
    }

    /// A newer checkpoint exists.
    pub(crate) fn checkpointed(&mut self, checkpoint: Checkpoint, manifest: Bytes) {
        while self.gone.front().is_some_and(|(last, _)| *last <= checkpoint.index.0) {
            self.gone.pop_front();
        }
        let keep = checkpoint.index.0.saturating_sub(self.base.0).min(self.entries.len() as u64) as usize;
        let gone: u64 = self.gone.iter().map(|(_, bytes)| bytes).sum();
        self.bytes_since_checkpoint = gone + self.entries.range(keep..).map(cost).sum::<u64>();
        self.checkpoint = checkpoint;
        self.manifest = manifest;
        // asked again if this one does not serve either
        self.snapshot_wanted.set(false);
    }

    /// The newest checkpoint has another manifest.
    pub(crate) fn rename(&mut self, manifest: Bytes) {
        self.manifest = manifest;
    }

    /// Up to where entries may be forgotten when a checkpoint at `index` was made: behind it at most so many stay for
    /// members that are a little behind, and no more than so many bytes. Who is further behind begins with the
    /// checkpoint, which costs less than sending more log than it has.
    pub(crate) fn floor_behind(&self, index: u64, entries: u64, bytes: u64) -> u64 {
        let lowest = index.saturating_sub(entries).max(self.base.0);
        let (mut floor, mut kept) = (index, 0);
        while floor > lowest {
            kept += self.entries.get((floor - self.base.0 - 1) as usize).map_or(0, cost);
            if kept > bytes {
                break;
            }
            floor -= 1;
        }
        floor
    }

    /// Forgets entries up to and including `index`, which must be in memory and applied.
    pub(crate) fn compact(&mut self, index: u64) {
        if index <= self.base.0 {
            return;
        }
        let n = ((index - self.base.0) as usize).min(self.entries.len());
        let mut last = self.base;
        let since = self.checkpoint.index.0;
        for dropped in self.entries.drain(..n) {
            self.bytes -= cost(&dropped);
            last = (dropped.index, dropped.term);
            if dropped.index > since {
                match self.gone.back_mut().filter(|(_, bytes)| *bytes < STRETCH) {
                    Some(stretch) => *stretch = (dropped.index, stretch.1 + cost(&dropped)),
                    None => self.gone.push_back((dropped.index, cost(&dropped))),
                }
            }
        }
        self.base = last;
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn bytes_since_checkpoint(&self) -> u64 {
        self.bytes_since_checkpoint
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(crate) fn snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.get()
    }

    /// Term at an index, if it is in memory.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        let i = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(i as usize).map(|e| e.term)
    }
}

impl raft::Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.to_raft()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 || low > high {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let range = (low - self.base.0 - 1) as usize..(high - self.base.0 - 1) as usize;
        let mut out = Vec::with_capacity(range.len().min(1024));
        let mut size = 0u64;
        for e in self.entries.range(range) {
            size = size.saturating_add(cost(e));
            // at least one, however large
            if size > max && !out.is_empty() {
                break;
            }
            out.push(e.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or(Error::Store(if index < self.base.0 {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let c = &self.checkpoint;
        // a follower ignores a checkpoint from before it was a member
        let of_use = c.index.0 > 0 && c.index.0 >= request_index && c.conf.contains(to);
        if !of_use || c.index.0 < self.base.0 || self.manifest.is_empty() {
            self.snapshot_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot { data: self.manifest.clone(), ..Default::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = c.index.0;
        metadata.term = c.term.0;
        metadata.set_conf_state(c.conf.to_raft());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trails_is_bounded_in_number_and_bytes() {
        let entry = |index: u64| Entry {
            index,
            term: 1,
            data: vec![0; 1000 - ENTRY_COST as usize].into(),
            ..Entry::default()
        };
        let base = Checkpoint::default();
        let mut tail = Tail::new(base.clone(), base.conf, (1..=100).map(entry).collect(), HardState::default());
        assert_eq!(tail.floor_behind(90, 20, 1_000_000), 70, "by number");
        assert_eq!(tail.floor_behind(90, 20, 5_000), 85, "by bytes");
        assert_eq!(tail.floor_behind(90, 0, 1_000_000), 90, "none");
        assert_eq!(tail.floor_behind(90, 1000, 1_000_000), 0, "all there are");
        tail.compact(80);
        assert_eq!(tail.floor_behind(90, 20, 1_000_000), 80, "what is gone stays gone");
    }
}
