//! The window: what was written lately, so that the owner can refuse a Txn whose reads have been overtaken.
//!
//! The owner notes every batch as it proposes it and asks about every Txn before. Most reads are of tables that stand
//! still, and end there. Else points are answered from a hash table, and ranges by walking the notes newer than the
//! Txn's read index, of which there are few.
//! The window is bounded: a Txn that read before its floor is told to read again.

use crate::read_set::{ReadSet, key_hash, table_of, table_of_hash};
use ringfence_base::Index;
use ringfence_store::Batch;
use std::collections::VecDeque;

/// What the owner learns about a Txn's reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing it read was written since.
    Clean,
    /// Something it read was written after its read index, or its read index was rolled back.
    Conflict,
    /// It read before the window begins: nobody can tell, so it runs again.
    TooOld,
}

/// Recent writes by key.
#[derive(Debug)]
pub struct Window {
    /// Writes at or below this index are forgotten.
    floor: Index,
    /// Invariant: `floor <= top`, and every note stands between them.
    top: Index,
    notes: VecDeque<Note>,
    /// Keys in all notes. Invariant: at most `max_ops`.
    ops: usize,
    max_ops: usize,
    latest: Latest,
    /// Index of the last write by table, which is a key's first byte. Never too low; after a rollback perhaps too high.
    tables: [Index; 256],
}

/// The keys of one batch in one buffer, each after its length: one allocation, as notes live long and are many.
#[derive(Debug)]
struct Note {
    index: Index,
    ops: u32,
    bytes: Box<[u8]>,
}

/// Bytes of a key's length in a note.
const LENGTH: usize = 4;

impl Note {
    fn of(index: Index, batch: &Batch) -> Note {
        let mut bytes = Vec::with_capacity(batch.ops.iter().map(|op| LENGTH + op.key().len()).sum());
        for op in &batch.ops {
            bytes.extend_from_slice(&(op.key().len() as u32).to_le_bytes());
            bytes.extend_from_slice(op.key());
        }
        Note { index, ops: batch.ops.len() as u32, bytes: bytes.into_boxed_slice() }
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<LENGTH>()?;
            let (key, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            rest = tail;
            Some(key)
        })
    }
}

impl Window {
    /// Enough for tens of milliseconds at the highest write rates seen, in a megabyte or two.
    pub const DEFAULT_OPS: usize = 32_768;

    /// A window that begins at an index and remembers at most `max_ops` writes.
    pub fn new(floor: Index, max_ops: usize) -> Window {
        let latest = Latest::with_room_for(max_ops);
        Window { floor, top: floor, notes: VecDeque::new(), ops: 0, max_ops, latest, tables: [Index(0); 256] }
    }

    /// The last index noted.
    pub fn top(&self) -> Index {
        self.top
    }

    /// Reads at or above this index can be judged.
    pub fn floor(&self) -> Index {
        self.floor
    }

    /// Notes a batch at the index where it is proposed. Several batches may share one index (one log entry); a Txn
    /// that ran at the tip is judged before anything else is noted.
    pub fn note(&mut self, index: Index, batch: &Batch) {
        ringfence_base::invariant!(
            index >= self.top && index > Index(0),
            "batches are noted in the order of their indexes"
        );
        self.top = index;
        if batch.ops.is_empty() {
            return;
        }
        let note = Note::of(index, batch);
        self.ops += note.ops as usize;
        self.notes.push_back(note);
        while self.ops > self.max_ops {
            let old = self.notes.pop_front().expect("there are ops, so there are notes");
            self.ops -= old.ops as usize;
            self.floor = old.index;
        }
        for op in &batch.ops {
            self.tables[table_of(op.key())] = index;
            self.latest.put(key_hash(op.key()), index);
        }
    }

    /// Judges the reads of a Txn that read at `read_index`.
    pub fn conflicts(&self, reads: &ReadSet, read_index: Index) -> Verdict {
        if read_index > self.top {
            return Verdict::Conflict; // it read from a batch that was since rolled back
        }
        if reads.is_empty() || read_index == self.top {
            return Verdict::Clean;
        }
        if read_index < self.floor {
            return Verdict::TooOld;
        }
        match self.overtaken_at(reads, read_index) {
            Some(_) => Verdict::Conflict,
            None => Verdict::Clean,
        }
    }

    /// The newest write that touches what was read at `read_index`: a run over a view without it would lose again.
    pub fn overtaken_at(&self, reads: &ReadSet, read_index: Index) -> Option<Index> {
        let moved = |hash: &&u64| self.tables[table_of_hash(**hash)] > read_index;
        let point = reads.points().iter().filter(moved).map(|&hash| self.latest.find(hash)).max();
        let range = match self.table_moved(reads, read_index) {
            false => None,
            true => {
                let mut newer = self.notes.iter().rev().take_while(|note| note.index > read_index);
                newer.find(|note| note.keys().any(|key| reads.covers(key))).map(|note| note.index)
            }
        };
        point.max(range).filter(|&at| at > read_index)
    }

    /// Whether a table that a range touches was written after `read_index`.
    fn table_moved(&self, reads: &ReadSet, read_index: Index) -> bool {
        reads.ranges().iter().any(|(from, to)| {
            let last = to.as_ref().map_or(255, |to| table_of(to));
            self.tables[table_of(from)..=last].iter().any(|&at| at > read_index)
        })
    }

    /// The log went on to `index` by an entry that writes nothing: what reads there has missed nothing.
    pub fn pass(&mut self, index: Index) {
        self.top = self.top.max(index);
    }

    /// Forgets batches above `index`: they were proposed and lost.
    pub fn rollback(&mut self, index: Index) {
        while self.notes.back().is_some_and(|note| note.index > index) {
            self.ops -= self.notes.pop_back().expect("seen just now").ops as usize;
        }
        self.top = self.top.min(index);
        self.floor = self.floor.min(self.top);
        // the marks of tables may stay too high: that costs a walk, never a conflict
        self.rebuild();
    }

    /// Begins again at an index, as a new leader does.
    pub fn reset(&mut self, index: Index) {
        self.notes.clear();
        self.ops = 0;
        (self.floor, self.top) = (index, index);
        self.latest.clear();
    }

    fn rebuild(&mut self) {
        self.latest.clear();
        for note in &self.notes {
            note.keys().for_each(|key| self.latest.put(key_hash(key), note.index));
        }
    }
}

/// Hash of a key -> index of its latest write, in two generations: when the younger has taken in as many writes as the
/// window remembers, all of the older stand below the floor, and it is emptied to become the younger. So no note pays
/// for more than the clearing of one table, and nothing is ever built anew while the node works.
#[derive(Debug)]
struct Latest {
    young: Slots,
    old: Slots,
    max_ops: usize,
}

impl Latest {
    fn with_room_for(max_ops: usize) -> Latest {
        Latest { young: Slots::with_room_for(max_ops), old: Slots::with_room_for(max_ops), max_ops }
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    fn put(&mut self, hash: u64, index: Index) {
        if self.young.puts >= self.max_ops {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.put(hash, index);
    }

    fn find(&self, hash: u64) -> Index {
        // a key of both generations was last written in the younger
        match self.young.find(hash) {
            Index(0) => self.old.find(hash),
            at => at,
        }
    }
}

/// Open addressing, linear probing; never more than half full.
#[derive(Debug)]
struct Slots {
    /// (hash, index); index 0 is empty: the log begins at 1.
    slots: Vec<(u64, u64)>,
    /// Writes taken in since it was emptied; the slots in use are no more.
    puts: usize,
}

impl Slots {
    fn with_room_for(puts: usize) -> Slots {
        Slots { slots: vec![(0, 0); (puts.max(16) * 2).next_power_of_two()], puts: 0 }
    }

    fn clear(&mut self) {
        self.slots.fill((0, 0));
        self.puts = 0;
    }

    fn slot(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].1 != 0 && self.slots[at].0 != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn put(&mut self, hash: u64, index: Index) {
        let at = self.slot(hash);
        self.slots[at] = (hash, index.0);
        self.puts += 1;
    }

    fn find(&self, hash: u64) -> Index {
        Index(self.slots[self.slot(hash)].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringfence_base::Wall;
    use ringfence_store::Op;

    fn batch(keys: &[u8]) -> Batch {
        Batch { log_time: Wall(0), ops: keys.iter().map(|&k| Op::Delete { key: vec![b'k', k] }).collect() }
    }

    fn reads(points: &[u8], ranges: &[(u8, u8)]) -> ReadSet {
        let mut set = ReadSet::default();
        points.iter().for_each(|&p| set.add_point(&[b'k', p]));
        ranges.iter().for_each(|&(a, b)| set.add_range(vec![b'k', a], Some(vec![b'k', b])));
        set
    }

    /// Every write ever noted and not rolled back.
    #[derive(Default)]
    struct Model {
        writes: Vec<(u64, u8)>,
        top: u64,
    }

    impl Model {
        fn overtaken_at(&self, points: &[u8], ranges: &[(u8, u8)], read_index: u64) -> Option<Index> {
            self.writes
                .iter()
                .filter(|(at, _)| *at > read_index)
                .filter(|(_, key)| points.contains(key) || ranges.iter().any(|(a, b)| a <= key && key < b))
                .map(|(at, _)| Index(*at))
                .max()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Note(u64, Vec<u8>),
        Rollback(u64),
        Ask(Vec<u8>, Vec<(u8, u8)>, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0u8..24;
        let keys = proptest::collection::vec(key.clone(), 0..6);
        prop_oneof![
            4 => (0u64..3, keys.clone()).prop_map(|(gap, keys)| Step::Note(gap, keys)),
            1 => (0u64..4).prop_map(Step::Rollback),
            6 => (keys, proptest::collection::vec((key.clone(), key), 0..3), 0u64..12)
                .prop_map(|(points, ranges, back)| Step::Ask(points, ranges, back)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn agrees_with_brute_force(steps in proptest::collection::vec(step(), 0..80), max_ops in 1usize..24) {
            let mut window = Window::new(Index(10), max_ops);
            let mut model = Model { top: 10, ..Model::default() };
            for step in steps {
                match step {
                    Step::Note(gap, keys) => {
                        model.top += gap;
                        window.note(Index(model.top), &batch(&keys));
                        model.writes.extend(keys.iter().map(|&k| (model.top, k)));
                    }
                    Step::Rollback(back) => {
                        model.top = model.top.saturating_sub(back).max(10);
                        window.rollback(Index(model.top));
                        model.writes.retain(|(at, _)| *at <= model.top);
                    }
                    Step::Ask(points, ranges, back) => {
                        let read_index = model.top.saturating_sub(back);
                        let set = reads(&points, &ranges);
                        match window.conflicts(&set, Index(read_index)) {
                            Verdict::Clean => {
                                prop_assert_eq!(model.overtaken_at(&points, &ranges, read_index), None);
                            }
                            Verdict::Conflict => {
                                let at = model.overtaken_at(&points, &ranges, read_index);
                                prop_assert!(at.is_some());
                                prop_assert_eq!(window.overtaken_at(&set, Index(read_index)), at);
                            }
                            Verdict::TooOld => prop_assert!(read_index < window.floor().0 && !set.is_empty()),
                        }
                    }
                }
                prop_assert!(window.ops <= max_ops && window.floor <= window.top);
                prop_assert_eq!(window.ops, window.notes.iter().map(|n| n.ops as usize).sum::<usize>());
            }
        }
    }

    #[test]
    fn remembers_as_much_as_it_has_room_for() {
        let mut window = Window::new(Index(0), 4);
        for i in 1..=4 {
            window.note(Index(i), &batch(&[i as u8]));
        }
        assert_eq!(window.floor(), Index(0));
        assert_eq!(window.conflicts(&reads(&[9], &[]), Index(0)), Verdict::Clean);
        window.note(Index(5), &batch(&[5]));
        assert_eq!(window.conflicts(&reads(&[9], &[]), Index(0)), Verdict::TooOld);
        assert_eq!(window.conflicts(&reads(&[9], &[]), Index(1)), Verdict::Clean);
        assert_eq!(window.conflicts(&reads(&[2], &[]), Index(1)), Verdict::Conflict);
    }

    #[test]
    fn an_entry_that_writes_nothing_overtakes_nobody() {
        let mut window = Window::new(Index(5), 100);
        window.note(Index(6), &batch(&[1]));
        window.pass(Index(8));
        assert_eq!(window.conflicts(&reads(&[1], &[]), Index(8)), Verdict::Clean);
        assert_eq!(window.conflicts(&reads(&[1], &[]), Index(5)), Verdict::Conflict);
        window.pass(Index(7));
        assert_eq!(window.top(), Index(8), "the window never goes back");
    }

    #[test]
    fn what_was_read_from_a_lost_batch_conflicts() {
        let mut window = Window::new(Index(5), 100);
        window.note(Index(6), &batch(&[1]));
        window.rollback(Index(5));
        assert_eq!(window.conflicts(&reads(&[1], &[]), Index(6)), Verdict::Conflict);
        assert_eq!(window.conflicts(&reads(&[], &[]), Index(6)), Verdict::Conflict);
        assert_eq!(window.conflicts(&reads(&[1], &[]), Index(5)), Verdict::Clean);
        window.reset(Index(9));
        assert_eq!(window.conflicts(&reads(&[1], &[]), Index(8)), Verdict::TooOld);
    }
}
