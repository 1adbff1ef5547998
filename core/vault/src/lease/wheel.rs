//! A hierarchical timing wheel: which rows are due, at a cost that does not depend on how many wait.
//!
//! ```text
//!  level 0   256 slots of a second      the next four minutes
//!  level 1   256 slots of 256 seconds   the next eighteen hours
//!  level 2   256 slots of 18 hours      half a year
//!  level 3   256 slots of half a year   136 years
//! ```
//!
//! A row stands in the slot of the highest byte in which its tick differs from the present one. When time reaches a
//! slot, its rows move down. Slots are lists threaded through one table of links, so a row is put in, moved and taken
//! out in constant time and nothing stale is left behind. It knows numbers only: no key, no record.
//!
//! Driven by the side index. Time is told, never asked; a step is bounded by a budget and goes on at the next call.

use ringfence_base::{Wall, duration::SECOND_NS};

/// No row.
const NONE: u32 = u32::MAX;
const LEVELS: usize = 4;
const SLOTS: usize = 256;
/// The list of rows whose time has come.
const DUE: u16 = (LEVELS * SLOTS) as u16;
/// In no list.
const OUT: u16 = DUE + 1;
/// Links are kept in blocks, so that growth copies nothing.
const BLOCK: usize = 4096;

#[derive(Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
    tick: u32,
    list: u16,
}

const UNLINKED: Link = Link { next: NONE, previous: NONE, tick: 0, list: OUT };

/// The wheel.
pub struct Wheel {
    /// The present tick, seconds since the epoch.
    base: u32,
    heads: Vec<u32>,
    /// End of the list of due rows: they are taken in order.
    due_tail: u32,
    links: Vec<Box<[Link; BLOCK]>>,
    /// Rows by level; the last is the list of due rows.
    counts: [usize; LEVELS + 1],
}

impl Wheel {
    /// An empty wheel at a time.
    pub fn new(now: Wall) -> Wheel {
        Wheel {
            base: tick_of(now),
            heads: vec![NONE; LEVELS * SLOTS + 1],
            due_tail: NONE,
            links: Vec::new(),
            counts: [0; LEVELS + 1],
        }
    }

    /// Puts a row in, or moves it. Its number indexes the table of links, so numbers are small and reused.
    pub fn insert(&mut self, row: u32, due: Wall) {
        self.remove(row);
        // rounded up: what comes out is due, never early
        self.place(row, tick_of(Wall(due.0.saturating_add(SECOND_NS - 1))));
    }

    /// Takes a row out; absent is fine.
    pub fn remove(&mut self, row: u32) {
        let Some(link) = self.link(row).copied().filter(|l| l.list != OUT) else { return };
        match link.previous {
            NONE => self.heads[usize::from(link.list)] = link.next,
            p => self.link_mut(p).next = link.next,
        }
        match link.next {
            NONE if link.list == DUE => self.due_tail = link.previous,
            NONE => {}
            n => self.link_mut(n).previous = link.previous,
        }
        self.counts[level_of(link.list)] -= 1;
        *self.link_mut(row) = UNLINKED;
    }

    /// True if the row waits, or is due and not taken.
    pub fn holds(&self, row: u32) -> bool {
        self.link(row).is_some_and(|l| l.list != OUT)
    }

    /// Moves time on; rows that become due stand in line for [`Wheel::take_due`]. Moves at most `budget` rows, then
    /// stops short: false means that more is left to do at this time.
    pub fn advance(&mut self, now: Wall, mut budget: usize) -> bool {
        let target = tick_of(now);
        loop {
            for level in (0..LEVELS).rev() {
                let list = (level * SLOTS) as u16 + u16::from(self.base.to_be_bytes()[LEVELS - 1 - level]);
                while self.heads[usize::from(list)] != NONE {
                    if budget == 0 {
                        return false;
                    }
                    budget -= 1;
                    let row = self.heads[usize::from(list)];
                    let tick = self.link(row).map_or(0, |l| l.tick);
                    self.remove(row);
                    self.place(row, tick);
                }
            }
            if self.base >= target {
                return true;
            }
            self.base = self.next_stop(target);
        }
    }

    /// Takes the row that has been due longest.
    pub fn take_due(&mut self) -> Option<u32> {
        let row = self.heads[usize::from(DUE)];
        if row == NONE {
            return None;
        }
        self.remove(row);
        Some(row)
    }

    /// Rows that are due and not taken.
    pub fn due_count(&self) -> usize {
        self.counts[LEVELS]
    }

    /// All rows in it.
    pub fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A time before which nothing becomes due. Exact for the next four minutes, else the next cascade.
    pub fn wake_at(&self) -> Option<Wall> {
        if self.due_count() > 0 {
            return Some(Wall::from_seconds(self.base.into()));
        }
        if self.is_empty() {
            return None;
        }
        let end = self.base | 0xff;
        let first = (self.base.saturating_add(1)..=end).find(|t| self.heads[(*t & 0xff) as usize] != NONE);
        Some(Wall::from_seconds(u64::from(first.unwrap_or_else(|| end.saturating_add(1)))))
    }

    /// The next tick at which a slot can hold anything: empty levels are stepped over.
    fn next_stop(&self, target: u32) -> u32 {
        let mut stop = self.base + 1;
        for level in 0..LEVELS - 1 {
            if self.counts[level] > 0 {
                break;
            }
            let low = (1u32 << (8 * (level + 1))) - 1;
            // the end of this block, one before the slot of the level above begins
            stop = (self.base | low).saturating_add(1);
        }
        if self.counts[..LEVELS].iter().all(|n| *n == 0) {
            stop = target;
        }
        stop.min(target)
    }

    fn place(&mut self, row: u32, tick: u32) {
        while self.links.len() * BLOCK <= row as usize {
            self.links.push(Box::new([UNLINKED; BLOCK]));
        }
        let list = if tick <= self.base {
            DUE
        } else {
            let level = (31 - (tick ^ self.base).leading_zeros()) as usize / 8;
            (level * SLOTS) as u16 + u16::from(tick.to_be_bytes()[LEVELS - 1 - level])
        };
        self.counts[level_of(list)] += 1;
        if list == DUE {
            let tail = self.due_tail;
            *self.link_mut(row) = Link { next: NONE, previous: tail, tick, list };
            match tail {
                NONE => self.heads[usize::from(DUE)] = row,
                t => self.link_mut(t).next = row,
            }
            self.due_tail = row;
            return;
        }
        let head = self.heads[usize::from(list)];
        *self.link_mut(row) = Link { next: head, previous: NONE, tick, list };
        if head != NONE {
            self.link_mut(head).previous = row;
        }
        self.heads[usize::from(list)] = row;
    }

    fn link(&self, row: u32) -> Option<&Link> {
        self.links.get(row as usize / BLOCK).map(|b| &b[row as usize % BLOCK])
    }

    fn link_mut(&mut self, row: u32) -> &mut Link {
        &mut self.links[row as usize / BLOCK][row as usize % BLOCK]
    }
}

fn tick_of(t: Wall) -> u32 {
    u32::try_from(t.0 / SECOND_NS).unwrap_or(u32::MAX - 1)
}

fn level_of(list: u16) -> usize {
    usize::from(list) / SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u32, u64),
        Remove(u32),
        Advance(u64, usize),
        Take,
    }

    fn act() -> impl Strategy<Value = Act> {
        // distances that fall into every level
        let far = prop_oneof![0u64..4, 0u64..300, 0u64..100_000, 0u64..30_000_000, 0u64..2_000_000_000];
        prop_oneof![
            4 => (0u32..40, far.clone()).prop_map(|(r, d)| Act::Insert(r, d)),
            1 => (0u32..40).prop_map(Act::Remove),
            3 => (far, prop_oneof![Just(usize::MAX), 0usize..6]).prop_map(|(d, b)| Act::Advance(d, b)),
            2 => Just(Act::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Against the naive model: rows with their due second.
        #[test]
        fn it_yields_what_a_sorted_list_yields(start in 0u64..4_000_000_000, acts in prop::collection::vec(act(), 0..60)) {
            let mut now = start.min(2_000_000_000);
            let mut wheel = Wheel::new(Wall::from_seconds(now));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for a in acts {
                match a {
                    Act::Insert(row, d) => {
                        let due = (now + d).saturating_sub(2);
                        wheel.insert(row, Wall::from_seconds(due));
                        model.insert(row, due);
                    }
                    Act::Remove(row) => {
                        wheel.remove(row);
                        model.remove(&row);
                    }
                    Act::Advance(d, budget) => {
                        let to = (now + d).min(4_200_000_000);
                        if wheel.advance(Wall::from_seconds(to), budget) {
                            now = to;
                            let due = model.values().filter(|t| **t <= now).count();
                            prop_assert_eq!(wheel.due_count(), due, "at {}", now);
                        } else {
                            // stopped short: nothing may be due that is not, and going on gives all of it
                            prop_assert!(wheel.advance(Wall::from_seconds(to), usize::MAX));
                            now = to;
                            prop_assert_eq!(wheel.due_count(), model.values().filter(|t| **t <= now).count());
                        }
                    }
                    Act::Take => {
                        if let Some(row) = wheel.take_due() {
                            let due = model.remove(&row);
                            prop_assert!(due.is_some_and(|t| t <= now), "{} taken at {} is due at {:?}", row, now, due);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                if let (Some(wake), Some(first)) = (wheel.wake_at(), model.values().min()) {
                    prop_assert!(wake.seconds() <= (*first).max(now), "wakes at {:?} for {}", wake, first);
                }
            }
        }
    }

    #[test]
    fn a_million_rows_in_one_slot_move_step_by_step() {
        let mut w = Wheel::new(Wall(0));
        for row in 0..10_000 {
            w.insert(row, Wall::from_seconds(100_000));
        }
        let mut calls = 0;
        while !w.advance(Wall::from_seconds(100_001), 1000) {
            calls += 1;
        }
        assert!(calls >= 20, "ten thousand rows move through three levels, a thousand at a time");
        assert_eq!(w.due_count(), 10_000);
        assert_eq!(w.take_due().is_some(), w.due_count() == 9_999);
    }
}
