//! Step search: the highest rate of an open loop that the server keeps within a latency bound.
//!
//! A closed loop with all connections tells about where the server saturates; from a quarter of that the rate doubles
//! until a step fails, and the interval between the last good and the first bad rate is halved a few times.

use crate::ops::Stage;
use crate::report::Step;
use crate::run::{self, Seen};
use crate::settings::{Bound, Settings};
use crate::target::Target;

/// A step whose rate falls behind what was asked by more than this has failed.
const KEPT_UP: f64 = 0.98;
/// As does one with more errors than this, as a share of all.
const ERRORS_MAX: f64 = 0.001;

/// Each step, and what the best one saw with its rate.
pub type Found = (Vec<Step>, Option<(f64, Seen)>);

/// Searches for the highest rate that holds the bound.
pub fn highest(
    target: &Target,
    settings: &Settings,
    stage: &Stage,
    server: Option<u32>,
    bound: Bound,
    halvings: usize,
    tell: &mut dyn FnMut(&Step),
) -> Result<Found, String> {
    let mut closed = settings.clone();
    closed.rate = None;
    let top = run::measure(target, &closed, stage, server, &mut |_| {})?.rate();
    if top <= 0.0 {
        return Err("the server answers nothing well; a run without --search tells why".into());
    }
    let (mut steps, mut best): Found = (Vec::new(), None);
    let mut attempt = |rate: f64| -> Result<bool, String> {
        let mut open = settings.clone();
        open.rate = Some(rate);
        let seen = run::measure(target, &open, stage, server, &mut |_| {})?;
        let step = judge(rate, &seen, bound);
        tell(&step);
        let holds = step.holds;
        steps.push(step);
        if holds {
            best = Some((rate, seen));
        }
        Ok(holds)
    };
    let (low, high) = bracket(top / 4.0, &mut attempt)?;
    bisect(low, high, halvings, &mut attempt)?;
    Ok((steps, best))
}

/// Doubles until a rate fails, or halves until one holds; answers the highest that held and the lowest that failed.
fn bracket(begin: f64, attempt: &mut impl FnMut(f64) -> Result<bool, String>) -> Result<(f64, f64), String> {
    let (mut low, mut high, mut rate) = (0.0, f64::INFINITY, begin);
    // a server that gets faster without end would be a broken measurement
    for _ in 0..12 {
        if attempt(rate)? {
            low = rate;
            rate *= 2.0;
        } else {
            high = rate;
            rate /= 2.0;
        }
        if (low > 0.0 && high.is_finite()) || rate < 1.0 {
            break;
        }
    }
    Ok((low, high))
}

fn bisect(
    mut low: f64,
    mut high: f64,
    halvings: usize,
    attempt: &mut impl FnMut(f64) -> Result<bool, String>,
) -> Result<(), String> {
    if low <= 0.0 || !high.is_finite() {
        return Ok(());
    }
    for _ in 0..halvings {
        let middle = f64::midpoint(low, high);
        if attempt(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(())
}

fn judge(rate: f64, seen: &Seen, bound: Bound) -> Step {
    let latency_us = seen.percentile_us(bound.percentile);
    let errors = seen.errors() as f64 / (seen.handled.max(1)) as f64;
    let within = latency_us <= bound.latency.as_secs_f64() * 1e6;
    let holds = within && seen.rate() >= rate * KEPT_UP && errors <= ERRORS_MAX && seen.unanswered == 0;
    Step { asked_per_second: rate, got_per_second: seen.rate(), latency_us, errors: seen.errors(), holds }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a server that holds any rate below 1000, wherever the search begins.
    #[test]
    fn closes_in() {
        for begin in [10.0, 300.0, 5000.0] {
            let mut best: f64 = 0.0;
            let mut tries = 0;
            let mut attempt = |rate: f64| {
                tries += 1;
                if rate <= 1000.0 {
                    best = best.max(rate);
                }
                Ok(rate <= 1000.0)
            };
            let (low, high) = bracket(begin, &mut attempt).expect("no error");
            bisect(low, high, 6, &mut attempt).expect("no error");
            assert!((970.0..=1000.0).contains(&best), "{best} from {begin}");
            assert!(tries <= 18, "{tries}");
        }
    }

    #[test]
    fn nothing_holds() {
        let mut rates = Vec::new();
        let mut attempt = |rate: f64| {
            rates.push(rate);
            Ok(false)
        };
        let (low, high) = bracket(8.0, &mut attempt).expect("no error");
        bisect(low, high, 3, &mut attempt).expect("no error");
        assert_eq!(rates, [8.0, 4.0, 2.0, 1.0]);
    }
}
