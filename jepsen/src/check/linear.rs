//! Is a history of one register linearizable? Wing and Gong's search with Lowe's memory of what was tried: is there an
//! order of the calls, each between its beginning and its end, in which a single register would have told each client
//! what it was told?
//!
//! A call without an answer may be placed anywhere after its beginning, or nowhere. The search ends when every call with
//! an answer is placed. It is exponential in the worst case, so it has a deadline, and then the verdict is *unknown*.

use std::collections::HashSet;
use std::time::Instant;

/// What a client did, and was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Saw a value; 0 if nothing was there. With the version, if it was told one.
    Read(i64, Option<u64>),
    /// Put a value. Answered with a version, if it was.
    Write(i64, Option<u64>),
    /// Put a value over the version named first; answered with a version, if it was.
    Cas(u64, i64, Option<u64>),
    /// Was refused because the version was not the one named.
    CasRefused(u64),
}

/// A call of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// What was done.
    pub action: Action,
    /// When it began.
    pub from: u64,
    /// When it ended; `None` if nobody knows whether it was done.
    pub to: Option<u64>,
    /// A name for people: index of the call in the history.
    pub name: usize,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is such an order.
    Linearizable,
    /// There is none. Name of a call that no order could place, the furthest that any order came.
    Broken(usize),
    /// The deadline came first.
    OutOfTime,
}

/// The register: how often it was written, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Register {
    version: u64,
    value: i64,
}

impl Register {
    /// The register after an action; `None` if a register in this state would not have told that.
    fn after(self, action: Action) -> Option<Register> {
        let put = |value, told: Option<u64>| {
            let version = self.version + 1;
            told.is_none_or(|t| t == version).then_some(Register { version, value })
        };
        match action {
            Action::Read(value, told) => {
                (value == self.value && told.is_none_or(|t| t == self.version)).then_some(self)
            }
            Action::Write(value, told) => put(value, told),
            Action::Cas(expected, value, told) if expected == self.version => put(value, told),
            Action::Cas(..) => None,
            Action::CasRefused(expected) => (expected != self.version).then_some(self),
        }
    }
}

/// Beginnings and ends in order of time, linked, so that a placed call can be lifted out and put back.
struct Line {
    /// Per place: the call, and whether it is its beginning.
    places: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Per call: place of its end.
    end_of: Vec<Option<usize>>,
}

const HEAD: usize = 0;

impl Line {
    fn of(ops: &[Op]) -> Line {
        let mut marks: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * ops.len());
        for (i, op) in ops.iter().enumerate() {
            marks.push((op.from, false, i));
            if let Some(to) = op.to {
                marks.push((to, true, i));
            }
        }
        // at the same moment beginnings come first: the calls count as concurrent
        marks.sort_unstable();
        let mut line = Line {
            places: vec![(usize::MAX, false)],
            next: Vec::new(),
            previous: Vec::new(),
            end_of: vec![None; ops.len()],
        };
        for (_, is_end, i) in marks {
            if is_end {
                line.end_of[i] = Some(line.places.len());
            }
            line.places.push((i, !is_end));
        }
        let n = line.places.len();
        line.next = (1..=n).collect();
        line.previous = (0..=n).map(|i| i.saturating_sub(1)).collect();
        line
    }

    fn is_after_last(&self, place: usize) -> bool {
        place >= self.places.len()
    }

    fn cut(&mut self, place: usize) {
        let (p, n) = (self.previous[place], self.next[place]);
        self.next[p] = n;
        self.previous[n] = p;
    }

    fn put_back(&mut self, place: usize) {
        let (p, n) = (self.previous[place], self.next[place]);
        self.next[p] = place;
        self.previous[n] = place;
    }

    fn lift(&mut self, place: usize) {
        self.cut(place);
        if let Some(end) = self.end_of[self.places[place].0] {
            self.cut(end);
        }
    }

    fn drop_back(&mut self, place: usize) {
        if let Some(end) = self.end_of[self.places[place].0] {
            self.put_back(end);
        }
        self.put_back(place);
    }
}

/// Searches until the deadline.
pub fn search(ops: &[Op], deadline: Instant) -> Found {
    let mut line = Line::of(ops);
    let mut missing = ops.iter().filter(|o| o.to.is_some()).count();
    let mut state = Register::default();
    let mut placed = vec![0u64; ops.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Register)> = HashSet::new();
    let mut stack: Vec<(usize, Register)> = Vec::new();
    let (mut furthest, mut blocked) = (0, ops.first().map_or(0, |o| o.name));
    let mut place = line.next[HEAD];
    let mut turns = 0u32;
    while missing > 0 {
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(1024) && Instant::now() >= deadline {
            return Found::OutOfTime;
        }
        let over = line.is_after_last(place);
        if !over && line.places[place].1 {
            let i = line.places[place].0;
            if let Some(next) = state.after(ops[i].action) {
                placed[i / 64] |= 1 << (i % 64);
                if tried.insert((placed.clone(), next)) {
                    stack.push((place, state));
                    state = next;
                    line.lift(place);
                    missing -= usize::from(ops[i].to.is_some());
                    place = line.next[HEAD];
                    continue;
                }
                placed[i / 64] &= !(1 << (i % 64));
            }
            place = line.next[place];
            continue;
        }
        // the end of a call that is not placed, or of all: whatever was placed last must go elsewhere
        if !over && place > furthest {
            (furthest, blocked) = (place, ops[line.places[place].0].name);
        }
        let Some((back, before)) = stack.pop() else { return Found::Broken(blocked) };
        let i = line.places[back].0;
        state = before;
        placed[i / 64] &= !(1 << (i % 64));
        missing += usize::from(ops[i].to.is_some());
        line.drop_back(back);
        place = line.next[back];
    }
    Found::Linearizable
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn op(action: Action, from: u64, to: Option<u64>) -> Op {
        Op { action, from, to, name: from as usize }
    }

    fn judge(ops: &[Op]) -> Found {
        search(ops, Instant::now() + Duration::from_secs(20))
    }

    #[test]
    fn known_good_histories_pass() {
        use Action::*;
        assert_eq!(judge(&[]), Found::Linearizable);
        // concurrent writes, read either way round
        let good = [
            op(Write(1, None), 0, Some(10)),
            op(Write(2, None), 1, Some(9)),
            op(Read(2, None), 2, Some(8)),
            op(Read(1, None), 11, Some(12)),
        ];
        assert_eq!(judge(&good), Found::Linearizable);
        // a write without an answer shows up late
        let late = [
            op(Write(1, Some(1)), 0, Some(1)),
            op(Write(2, None), 2, None),
            op(Read(1, Some(1)), 3, Some(4)),
            op(Read(2, Some(2)), 5, Some(6)),
        ];
        assert_eq!(judge(&late), Found::Linearizable);
        // compare and set: one of two wins
        let cas =
            [op(Cas(0, 1, Some(1)), 0, Some(5)), op(CasRefused(0), 1, Some(6)), op(Read(1, Some(1)), 7, Some(8))];
        assert_eq!(judge(&cas), Found::Linearizable);
    }

    #[test]
    fn known_bad_histories_are_caught() {
        use Action::*;
        let stale = [op(Write(1, None), 0, Some(1)), op(Write(2, None), 2, Some(3)), op(Read(1, None), 4, Some(5))];
        assert_eq!(judge(&stale), Found::Broken(4), "a stale read");
        let lost = [op(Write(1, None), 0, Some(1)), op(Read(0, None), 2, Some(3))];
        assert_eq!(judge(&lost), Found::Broken(2), "a lost write");
        let twice = [op(Cas(0, 1, Some(1)), 0, Some(5)), op(Cas(0, 2, Some(1)), 1, Some(6))];
        assert!(matches!(judge(&twice), Found::Broken(_)), "two writers told the same version");
        let back = [op(Write(2, None), 0, None), op(Read(2, None), 1, Some(2)), op(Read(0, None), 3, Some(4))];
        assert_eq!(judge(&back), Found::Broken(3), "a value that goes away again");
        let thin_air = [op(Read(9, None), 0, Some(1))];
        assert_eq!(judge(&thin_air), Found::Broken(0), "a value that nobody wrote");
        let refused = [op(CasRefused(0), 0, Some(1))];
        assert_eq!(judge(&refused), Found::Broken(0), "refused over the version that was there");
    }

    #[test]
    fn out_of_time_is_unknown_and_never_passed() {
        // many concurrent writes whose order no read tells, then a read of a value that nobody wrote
        let mut ops: Vec<Op> = (0..40).map(|i| op(Action::Write(i, None), 0, Some(100))).collect();
        ops.push(op(Action::Read(99, None), 101, Some(102)));
        assert_eq!(search(&ops, Instant::now()), Found::OutOfTime);
    }

    /// All orders, by hand.
    fn brute(ops: &[Op], placed: u32, state: Register) -> bool {
        let is_in = |i: usize| placed & (1 << i) != 0;
        if (0..ops.len()).all(|i| is_in(i) || ops[i].to.is_none()) {
            return true;
        }
        (0..ops.len()).filter(|i| !is_in(*i)).any(|i| {
            let first = (0..ops.len()).all(|j| is_in(j) || ops[j].to.is_none_or(|to| to >= ops[i].from));
            first && state.after(ops[i].action).is_some_and(|s| brute(ops, placed | (1 << i), s))
        })
    }

    fn action() -> impl Strategy<Value = Action> {
        let version = || proptest::option::of(1u64..4);
        prop_oneof![
            3 => (0i64..3, proptest::option::of(0u64..4)).prop_map(|(v, n)| Action::Read(v, n)),
            2 => (1i64..3, version()).prop_map(|(v, n)| Action::Write(v, n)),
            2 => (0u64..3, 1i64..3, version()).prop_map(|(e, v, n)| Action::Cas(e, v, n)),
            1 => (0u64..3).prop_map(Action::CasRefused),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn agrees_with_brute_force(raw in proptest::collection::vec((action(), 0u64..12, proptest::option::of(1u64..8)), 0..7)) {
            let ops: Vec<Op> = raw.into_iter().map(|(a, from, len)| op(a, from, len.map(|l| from + l))).collect();
            let good = judge(&ops) == Found::Linearizable;
            prop_assert_eq!(good, brute(&ops, 0, Register::default()), "{:?}", ops);
        }

        /// A history made by a real register is linearizable, and most that were tampered with are not.
        #[test]
        fn real_registers_pass(steps in proptest::collection::vec((0u8..3, 1i64..5, 0u64..3, 0u64..3), 1..60)) {
            let mut state = Register::default();
            let mut ops = Vec::new();
            for (n, (what, value, early, late)) in steps.into_iter().enumerate() {
                // calls overlap with their neighbours, but take effect in this order
                let at = 10 * n as u64 + 10;
                let action = match what {
                    0 => Action::Read(state.value, Some(state.version)),
                    1 => Action::Write(value, Some(state.version + 1)),
                    _ => Action::Cas(state.version, value, Some(state.version + 1)),
                };
                state = state.after(action).unwrap();
                ops.push(op(action, at - 4 * early, Some(at + 4 * late)));
            }
            prop_assert_eq!(judge(&ops), Found::Linearizable);
            let last = ops.iter().map(|o| o.to.unwrap_or(0)).max().unwrap_or(0);
            ops.push(op(Action::Read(state.value, Some(state.version + 1)), last + 1, Some(last + 2)));
            prop_assert!(matches!(judge(&ops), Found::Broken(_)));
        }
    }
}
