//! Distributions of durations: a log-linear histogram that one core writes and anybody reads.
//!
//! Eight buckets to each power of two, so that a bucket is at most an eighth as wide as its values are large and a
//! quantile is off by at most 6.25 %. Durations below 8 ns have buckets of their own, those above 18 minutes share one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets to a power of two, as a power of two.
const FINE_BITS: u32 = 3;
const FINE: usize = 1 << FINE_BITS;
/// Durations of 2^40 ns and more share the last bucket.
const TOP_BIT: u32 = 40;
const BUCKETS: usize = (TOP_BIT - FINE_BITS + 1) as usize * FINE;

/// Adds to a cell that only one thread writes: a load and a store, no locked instruction.
pub(super) fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// A histogram that one thread writes.
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }

    pub fn observe(&self, ns: u64) {
        bump(&self.buckets[bucket(ns)], 1);
        bump(&self.sum_ns, ns);
    }

    /// Adds what was observed here.
    pub fn add_to(&self, total: &mut Distribution) {
        let counts = self.buckets.iter().map(|cell| cell.load(Ordering::Relaxed)).enumerate();
        let here = Distribution {
            buckets: counts.filter(|(_, n)| *n > 0).map(|(at, n)| (at as u16, n)).collect(),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        };
        total.merge(&here);
    }
}

/// The bucket of a duration.
fn bucket(ns: u64) -> usize {
    if ns < FINE as u64 {
        return ns as usize;
    }
    let top = 63 - ns.leading_zeros();
    if top >= TOP_BIT {
        return BUCKETS - 1;
    }
    let fine = (ns >> (top - FINE_BITS)) as usize & (FINE - 1);
    (top - FINE_BITS + 1) as usize * FINE + fine
}

/// The smallest duration of a bucket, and how many it has.
fn bounds(bucket: usize) -> (u64, u64) {
    if bucket < FINE {
        return (bucket as u64, 1);
    }
    let shift = (bucket / FINE - 1) as u32;
    (((FINE + bucket % FINE) as u64) << shift, 1 << shift)
}

/// What a histogram held at a moment, or between two.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distribution {
    /// Bucket and count, in order, none of them zero.
    buckets: Vec<(u16, u64)>,
    pub sum_ns: u64,
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }

    pub fn merge(&mut self, other: &Distribution) {
        self.combine(other, u64::wrapping_add);
    }

    /// What came after `earlier`.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut later = self.clone();
        // counts were read while they grew, each by itself: never let a late one wrap
        later.combine(earlier, u64::saturating_sub);
        later
    }

    fn combine(&mut self, other: &Distribution, with: fn(u64, u64) -> u64) {
        self.sum_ns = with(self.sum_ns, other.sum_ns);
        for (bucket, n) in &other.buckets {
            match self.buckets.binary_search_by_key(bucket, |(at, _)| *at) {
                Ok(at) => self.buckets[at].1 = with(self.buckets[at].1, *n),
                Err(at) => self.buckets.insert(at, (*bucket, with(0, *n))),
            }
        }
        self.buckets.retain(|(_, n)| *n > 0);
    }

    /// The duration, nanoseconds, below which this share of the observations lies; none without observations.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.middles()
            .find(|(_, n)| {
                seen += n;
                seen >= rank
            })
            .map(|(ns, _)| ns)
    }

    /// Smallest and largest, nanoseconds, as exact as the buckets are.
    pub fn extremes(&self) -> Option<(f64, f64)> {
        Some((self.middles().next()?.0, self.middles().last()?.0))
    }

    /// Standard deviation of the sample, nanoseconds, as exact as the buckets are.
    pub fn deviation(&self) -> f64 {
        let count = self.count();
        if count < 2 {
            return 0.0;
        }
        let mean = self.middles().map(|(ns, n)| ns * n as f64).sum::<f64>() / count as f64;
        let squares: f64 = self.middles().map(|(ns, n)| (ns - mean).powi(2) * n as f64).sum();
        (squares / (count - 1) as f64).sqrt()
    }

    /// The middle of each bucket with its count.
    fn middles(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets.iter().map(|(bucket, n)| {
            let (low, width) = bounds(*bucket as usize);
            (low as f64 + (width - 1) as f64 / 2.0, *n)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    #[test]
    fn every_duration_lies_in_its_bucket() {
        let mut next = 0;
        for at in 0..BUCKETS {
            let (low, width) = bounds(at);
            assert_eq!(low, next, "buckets follow each other without a gap");
            next = low + width;
            for ns in [low, low + width / 2, next - 1] {
                assert_eq!(bucket(ns), at, "{ns}");
            }
        }
        assert_eq!(next, 1 << TOP_BIT);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    /// Against the sorted list of what was observed.
    #[test]
    fn quantiles_are_within_their_bound() {
        let mut random = SeededEntropy(5);
        for round in 0..50 {
            let count = 1 + random.next_u64() % 400;
            let mut all: Vec<u64> = (0..count).map(|_| random.next_u64() >> (25 + round % 38)).collect();
            let histogram = Histogram::new();
            all.iter().for_each(|ns| histogram.observe(*ns));
            all.sort_unstable();
            let mut seen = Distribution::default();
            histogram.add_to(&mut seen);
            assert_eq!(seen.count(), count);
            assert_eq!(seen.sum_ns, all.iter().sum::<u64>());
            let near = |told: f64, exact: u64| (told - exact as f64).abs() <= exact as f64 / 16.0 + 0.5;
            for share in [0.0, 0.5, 0.9, 0.99, 1.0] {
                let exact = all[((count as f64 * share).ceil() as usize).max(1) - 1];
                let told = seen.quantile(share).unwrap();
                assert!(near(told, exact), "{share}: {told} for {exact}");
            }
            let (least, most) = seen.extremes().unwrap();
            assert!(near(least, all[0]) && near(most, all[all.len() - 1]));
            let mean = seen.sum_ns as f64 / count as f64;
            let exact = all.iter().map(|ns| (*ns as f64 - mean).powi(2)).sum::<f64>() / (count.max(2) - 1) as f64;
            assert!((seen.deviation() - exact.sqrt()).abs() <= all[all.len() - 1] as f64 / 8.0 + 1.0);
        }
        assert_eq!(Distribution::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_between_two_moments_is_their_difference() {
        let histogram = Histogram::new();
        let at = |histogram: &Histogram| {
            let mut now = Distribution::default();
            histogram.add_to(&mut now);
            now
        };
        histogram.observe(5);
        histogram.observe(1000);
        let before = at(&histogram);
        histogram.observe(1000);
        histogram.observe(70_000);
        let between = at(&histogram).since(&before);
        assert_eq!((between.count(), between.sum_ns), (2, 71_000));
        assert_eq!(before.since(&before), Distribution::default());
        let mut whole = before.clone();
        whole.merge(&between);
        assert_eq!(whole, at(&histogram));
    }
}
