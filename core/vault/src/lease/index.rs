//! The side index: what is due and what hangs on whom, kept in memory beside the image on every node.
//!
//! It is derived from the keys and clear headers of the token, lease and job tables, so it needs no key, is never logged
//! and never checkpointed: each applied batch moves it on, and a restart reads the two tables once. Unsealing and
//! failover therefore do no lease work, whatever the count.
//!
//! Driven by the node: [`SideIndex::apply`] after each applied batch, [`SideIndex::rebuild`] after a load. Its rows are
//! hints: whoever acts on one reads the record first.

use super::rows::Rows;
use super::wheel::Wheel;
use crate::tables::{self, Hash};
use crate::token::entry::Header;
use ringfence_base::{MountId, Wall};
use ringfence_store::{Batch, Op, Version};
use std::collections::BTreeSet;

/// Where the clear header begins in a sealed record, and where its length stands: the record format 1 of the barrier
/// floor.
const HEADER_AT: usize = 19;
const HEADER_LEN_AT: usize = 17;

/// Wheel, owners, and the owners that are dead.
pub struct SideIndex {
    rows: Rows,
    wheel: Wheel,
    /// Owners that rows name and that are not there: what names them is dead.
    dead: BTreeSet<Hash>,
}

impl SideIndex {
    /// An empty one.
    pub fn new(now: Wall) -> SideIndex {
        SideIndex { rows: Rows::default(), wheel: Wheel::new(now), dead: BTreeSet::new() }
    }

    /// Reads the tables of a version that carry due times.
    pub fn rebuild(version: &Version) -> SideIndex {
        let mut index = SideIndex::new(version.log_time());
        let records = [tables::TOKEN, tables::LEASE, tables::JOB].map(|table| version.scan_prefix(&[table]));
        let rows = records.into_iter().flatten();
        // a record without a readable header has no due time; who reads it finds out what is wrong with it
        let rows = rows.filter_map(|(key, record)| Some((key, Header::decode(clear_header(record)?).ok()?)));
        let wheel = &mut index.wheel;
        index.rows.load(rows, |row, header| {
            if header.due.0 != 0 {
                wheel.insert(row, header.due);
            }
        });
        let rows = &index.rows;
        index.dead = rows.owners().filter(|o| rows.find(&tables::token(o)).is_none()).copied().collect();
        index
    }

    /// Follows a batch that was applied to the image.
    pub fn apply(&mut self, batch: &Batch) {
        for op in &batch.ops {
            if !matches!(op.key().first(), Some(&(tables::TOKEN | tables::LEASE | tables::JOB))) {
                continue;
            }
            match op {
                Op::Put { key, value } => {
                    if let Some(header) = self.put(key, value)
                        && self.rows.find(&tables::token(&header.owner)).is_none()
                        && self.rows.has_owned(&header.owner)
                    {
                        self.dead.insert(header.owner);
                    }
                }
                Op::Delete { key } => {
                    if let Some(row) = self.rows.remove(key) {
                        self.wheel.remove(row);
                    }
                    if let Some(hash) = token_of(key)
                        && self.rows.has_owned(&hash)
                    {
                        self.dead.insert(hash);
                    }
                }
            }
        }
    }

    /// Moves time on. False if the budget of rows moved ended it early.
    pub fn advance(&mut self, now: Wall, budget: usize) -> bool {
        self.wheel.advance(now, budget)
    }

    /// Takes keys that are due. Each stays out of the wheel until it is put back or its record changes.
    pub fn take_due(&mut self, max: usize) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        while keys.len() < max {
            let Some(row) = self.wheel.take_due() else { break };
            keys.push(self.rows.key(row));
        }
        keys
    }

    /// Puts a taken key back, due when its header says. A key that is gone is forgotten.
    pub fn put_back(&mut self, key: &[u8]) {
        if let Some(row) = self.rows.find(key)
            && !self.wheel.holds(row)
            && self.rows.due(row).0 != 0
        {
            self.wheel.insert(row, self.rows.due(row));
        }
    }

    /// A dead owner after `after`, in the order of the hashes.
    pub fn dead_owner(&self, after: Option<&Hash>) -> Option<Hash> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.dead.range::<Hash, _>((from, Unbounded)).next().copied()
    }

    /// A dead owner on which nothing hangs any more is forgotten; true if it was.
    pub fn bury(&mut self, owner: &Hash) -> bool {
        !self.rows.has_owned(owner) && self.dead.remove(owner)
    }

    /// True if anything names this owner.
    pub fn has_owned(&self, owner: &Hash) -> bool {
        self.rows.has_owned(owner)
    }

    /// At most `max` keys that name this owner.
    pub fn owned(&self, owner: &Hash, max: usize) -> Vec<Vec<u8>> {
        self.rows.owned(owner).take(max).map(|r| self.rows.key(r)).collect()
    }

    /// Tokens that a mount issued, a stretch of the index at a time: keys, and where to go on.
    pub fn tokens_of(&self, mount: MountId, from: u32, places: u32) -> (Vec<Vec<u8>>, Option<u32>) {
        let (rows, next) = self.rows.tokens_of(mount, from, places);
        (rows.into_iter().map(|r| self.rows.key(r)).collect(), next)
    }

    /// Rows known: service tokens and leases.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows that are due and wait for the worker.
    pub fn due_count(&self) -> usize {
        self.wheel.due_count()
    }

    /// Dead owners whose rows wait for the worker.
    pub fn dead_count(&self) -> usize {
        self.dead.len()
    }

    /// A time before which nothing becomes due.
    pub fn wake_at(&self) -> Option<Wall> {
        self.wheel.wake_at()
    }

    fn put(&mut self, key: &[u8], record: &[u8]) -> Option<Header> {
        // a record without a readable header has no due time; who reads it finds out what is wrong with it
        let header = Header::decode(clear_header(record)?).ok()?;
        let row = self.rows.put(key, &header);
        match header.due.0 {
            0 => self.wheel.remove(row),
            _ => self.wheel.insert(row, header.due),
        }
        if let Some(hash) = token_of(key) {
            self.dead.remove(&hash);
        }
        Some(header)
    }
}

fn token_of(key: &[u8]) -> Option<Hash> {
    match key.split_first() {
        Some((&tables::TOKEN, hash)) => hash.try_into().ok(),
        _ => None,
    }
}

/// The clear header of a sealed record.
pub(crate) fn clear_header(record: &[u8]) -> Option<&[u8]> {
    let len = record.get(HEADER_LEN_AT..HEADER_AT)?;
    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
    record.get(HEADER_AT..HEADER_AT + len)
}
