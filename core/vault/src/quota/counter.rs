//! Counters of rate limits: one table of atomics that all cores of the process share, so that a limit is one limit
//! however many cores there are. No lock, no message: a request costs one compare-and-swap.
//!
//! ```text
//! slot   key of (quota, group)   window number << 24 | requests in it   blocked until   expires
//! ```
//!
//! Time is cut into windows of the quota's interval, aligned to log time. So within any stretch as long as one
//! interval at most twice the limit passes; that is the whole error, and it is that of Vault's limiter too. The table
//! is of fixed size: a group whose places are all taken by others that are still counting shares one counter per quota
//! with the rest of its kind, which can only make the limit stricter. Nothing is stored: a restart begins anew.

use ringfence_base::Wall;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Groups counted at a time.
const SLOTS: usize = 1 << 16;
/// Counters for groups that found no place.
const SHARED: usize = 64;
/// Places a key may stand at.
const PROBES: usize = 8;
/// Bits of the count of a window; a limit above it never refuses.
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

#[derive(Default)]
struct Slot {
    /// Zero: free.
    key: AtomicU64,
    window: AtomicU64,
    /// Log time, ns.
    blocked_until: AtomicU64,
    /// Log time, ns: from then on the place may be given to another key.
    expires: AtomicU64,
}

/// The counters of one process.
#[derive(Default)]
pub struct Counters {
    /// Made when the first request is counted: most servers have no quota.
    slots: OnceLock<Box<[Slot]>>,
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Requests in an interval.
    pub requests: u64,
    /// Nanoseconds; not zero.
    pub interval_ns: u64,
    /// How long a group is refused after it went over; zero: until the interval ends.
    pub block_ns: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metered {
    /// It is within the limit.
    pub allowed: bool,
    /// Requests left in this interval.
    pub remaining: u64,
    /// Nanoseconds until more are allowed.
    pub wait_ns: u64,
}

impl Counters {
    /// Counts a request of a group and says whether it is within the limit.
    pub fn take(&self, key: u64, quota: u64, limit: &Limit, now: Wall) -> Metered {
        let slot = self.slot(key.max(1), quota, now);
        let blocked_until = slot.blocked_until.load(Ordering::Relaxed);
        if blocked_until > now.0 {
            return Metered { allowed: false, remaining: 0, wait_ns: blocked_until - now.0 };
        }
        let (number, left_ns) = window(limit, now);
        slot.expires.fetch_max(now.0 + left_ns + limit.block_ns, Ordering::Relaxed);
        let mut seen = slot.window.load(Ordering::Relaxed);
        loop {
            let used = if seen >> COUNT_BITS == number { seen & COUNT_MAX } else { 0 };
            if used >= limit.requests {
                if limit.block_ns > 0 {
                    slot.blocked_until.fetch_max(now.0 + limit.block_ns, Ordering::Relaxed);
                }
                return Metered { allowed: false, remaining: 0, wait_ns: left_ns.max(limit.block_ns) };
            }
            let next = number << COUNT_BITS | (used + 1).min(COUNT_MAX);
            match slot.window.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    return Metered { allowed: true, remaining: limit.requests - used - 1, wait_ns: left_ns };
                }
                Err(other) => seen = other,
            }
        }
    }

    /// What a group has left, without counting; `allowed` says whether one more would be.
    pub fn peek(&self, key: u64, quota: u64, limit: &Limit, now: Wall) -> Metered {
        let slot = self.slot(key.max(1), quota, now);
        let seen = slot.window.load(Ordering::Relaxed);
        let (number, wait_ns) = window(limit, now);
        let used = if seen >> COUNT_BITS == number { seen & COUNT_MAX } else { 0 };
        let remaining = limit.requests.saturating_sub(used);
        let allowed = remaining > 0 && slot.blocked_until.load(Ordering::Relaxed) <= now.0;
        Metered { allowed, remaining, wait_ns }
    }

    fn slot(&self, key: u64, quota: u64, now: Wall) -> &Slot {
        let slots = self.slots.get_or_init(|| (0..SLOTS + SHARED).map(|_| Slot::default()).collect());
        let places = || (0..PROBES).map(|i| &slots[(key as usize).wrapping_add(i) % SLOTS]);
        for slot in places() {
            match slot.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return slot,
                Err(there) if there == key => return slot,
                Err(_) => {}
            }
        }
        for slot in places() {
            let there = slot.key.load(Ordering::Relaxed);
            if slot.expires.load(Ordering::Relaxed) <= now.0
                && slot.key.compare_exchange(there, key, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                slot.window.store(0, Ordering::Relaxed);
                slot.blocked_until.store(0, Ordering::Relaxed);
                return slot;
            }
        }
        &slots[SLOTS + quota as usize % SHARED]
    }
}

/// Number of the window and what is left of it.
fn window(limit: &Limit, now: Wall) -> (u64, u64) {
    let number = now.0 / limit.interval_ns;
    (number & (u64::MAX >> COUNT_BITS), (number + 1) * limit.interval_ns - now.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_group_over_its_limit_waits_and_may_be_blocked() {
        let c = Counters::default();
        let limit = Limit { requests: 2, interval_ns: SECOND, block_ns: 0 };
        let at = |ns: u64| Wall(1_000 * SECOND + ns);
        assert_eq!(c.take(7, 1, &limit, at(0)), Metered { allowed: true, remaining: 1, wait_ns: SECOND });
        assert!(c.peek(7, 1, &limit, at(1)).allowed && c.take(7, 1, &limit, at(1)).allowed);
        assert!(!c.peek(7, 1, &limit, at(1)).allowed);
        assert_eq!(
            c.take(7, 1, &limit, at(SECOND / 2)),
            Metered { allowed: false, remaining: 0, wait_ns: SECOND / 2 }
        );
        assert!(c.take(8, 1, &limit, at(SECOND / 2)).allowed, "another group has its own count");
        assert!(c.take(7, 1, &limit, at(SECOND)).allowed, "the next interval");
        let blocking = Limit { block_ns: 10 * SECOND, ..limit };
        c.take(9, 1, &blocking, at(0));
        c.take(9, 1, &blocking, at(0));
        assert_eq!(c.take(9, 1, &blocking, at(0)).wait_ns, 10 * SECOND);
        assert!(!c.take(9, 1, &blocking, at(9 * SECOND)).allowed);
        assert!(c.take(9, 1, &blocking, at(10 * SECOND)).allowed);
    }

    #[test]
    fn cores_share_one_limit() {
        let c = Counters::default();
        let limit = Limit { requests: 1000, interval_ns: SECOND, block_ns: 0 };
        let passed: usize = std::thread::scope(|s| {
            let cores: Vec<_> = (0..4)
                .map(|_| s.spawn(|| (0..1000).filter(|_| c.take(7, 1, &limit, Wall(SECOND)).allowed).count()))
                .collect();
            cores.into_iter().map(|t| t.join().expect("no panic")).sum()
        });
        assert_eq!(passed, 1000);
    }

    proptest! {
        #[test]
        fn it_counts_as_a_map_does(steps in prop::collection::vec((0u64..40, 0u64..3), 1..300)) {
            let c = Counters::default();
            let limit = Limit { requests: 3, interval_ns: SECOND, block_ns: 0 };
            let mut model: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            let mut now = 5 * SECOND;
            for (key, pause) in steps {
                now += pause * SECOND / 7;
                let used = model.entry((key, now / SECOND)).or_default();
                // keys that are far apart, so that none shares a counter
                let got = c.take(1 + key * 1000, 1, &limit, Wall(now));
                prop_assert_eq!(got.allowed, *used < 3);
                *used += u64::from(*used < 3);
                prop_assert_eq!(got.remaining, 3 - *used);
            }
        }

        #[test]
        fn a_crowd_is_never_allowed_more(groups in 1u64..200) {
            // all at the same places: most of them share the quota's counter
            let c = Counters::default();
            let limit = Limit { requests: 2, interval_ns: SECOND, block_ns: 0 };
            for group in 0..groups {
                let key = 1 + group * SLOTS as u64;
                let passed = (0..5).filter(|_| c.take(key, 1, &limit, Wall(SECOND)).allowed).count();
                prop_assert!(passed <= 2, "{passed}");
            }
        }
    }
}
