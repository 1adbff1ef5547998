//! Totals of all cores at a moment, and what is kept of past moments.

use super::histogram::Distribution;
use ringfence_base::{Mono, Now};
use std::collections::VecDeque;
use std::time::Duration;

/// Quantiles are of the observations of so long.
const RECENT: Duration = Duration::from_secs(600);
/// A moment is kept every so often.
const STEP: Duration = Duration::from_secs(60);

/// Everything counted since the start, summed over the cores.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// By number of the fixed counter.
    pub counters: Vec<u64>,
    /// By HTTP status less 100.
    pub statuses: Vec<u64>,
    /// By number of the fixed sample.
    pub samples: Vec<Distribution>,
    /// By name. Only ever grows at its end.
    pub named: Vec<(String, Distribution)>,
    /// By key of name and labels. Only ever grows at its end.
    pub labelled: Vec<(String, u64)>,
}

impl Totals {
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Totals) -> Totals {
        fn counts(now: &[u64], then: &[u64]) -> Vec<u64> {
            let then = then.iter().copied().chain(std::iter::repeat(0));
            now.iter().zip(then).map(|(now, then)| now.saturating_sub(then)).collect()
        }
        let nothing = Distribution::default();
        let sample = |at: usize| earlier.samples.get(at).unwrap_or(&nothing);
        let named = |at: usize| earlier.named.get(at).map_or(&nothing, |(_, then)| then);
        let labelled = |at: usize| earlier.labelled.get(at).map_or(0, |(_, then)| *then);
        Totals {
            counters: counts(&self.counters, &earlier.counters),
            statuses: counts(&self.statuses, &earlier.statuses),
            samples: self.samples.iter().enumerate().map(|(at, now)| now.since(sample(at))).collect(),
            named: self
                .named
                .iter()
                .enumerate()
                .map(|(at, (name, now))| (name.clone(), now.since(named(at))))
                .collect(),
            labelled: self
                .labelled
                .iter()
                .enumerate()
                .map(|(at, (key, now))| (key.clone(), now.saturating_sub(labelled(at))))
                .collect(),
        }
    }
}

/// An interval and what was counted in it.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    pub began: Now,
    pub lasted: Duration,
    pub counted: Totals,
}

/// Past moments.
#[derive(Default)]
pub(super) struct History {
    /// The end of the last interval.
    last: Option<(Now, Totals)>,
    interval: Option<Interval>,
    /// Moments a step apart, oldest first, the first at least as old as the window of quantiles once it can be.
    moments: VecDeque<(Mono, Totals)>,
}

impl History {
    /// Ends an interval.
    pub fn tick(&mut self, now: Now, totals: Totals) {
        if let Some((then, before)) = self.last.take() {
            self.interval =
                Some(Interval { began: then, lasted: between(then.mono, now.mono), counted: totals.since(&before) });
        }
        if self.moments.back().is_none_or(|(then, _)| between(*then, now.mono) >= STEP) {
            self.moments.push_back((now.mono, totals.clone()));
            while self.moments.get(1).is_some_and(|(then, _)| between(*then, now.mono) >= RECENT) {
                self.moments.pop_front();
            }
        }
        self.last = Some((now, totals));
    }

    /// How many moments are kept.
    #[cfg(test)]
    pub fn moments_kept(&self) -> usize {
        self.moments.len()
    }

    /// What was counted lately: in the last ten to eleven minutes, or since the start.
    pub fn recent(&self, now: Mono, totals: &Totals) -> Totals {
        match self.moments.front() {
            Some((then, before)) if between(*then, now) >= RECENT => totals.since(before),
            _ => totals.clone(),
        }
    }

    /// The last completed interval; before the first is complete, what there is.
    pub fn last_interval(&self, now: Now, totals: Totals) -> Interval {
        match (&self.interval, &self.last) {
            (Some(interval), _) => interval.clone(),
            (None, Some((then, before))) => {
                Interval { began: *then, lasted: between(then.mono, now.mono), counted: totals.since(before) }
            }
            (None, None) => Interval { began: now, lasted: Duration::ZERO, counted: totals },
        }
    }
}

fn between(then: Mono, now: Mono) -> Duration {
    Duration::from_nanos(now.since(then))
}
