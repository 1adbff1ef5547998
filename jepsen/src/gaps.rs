//! How long nobody serves writes: after the active node was killed, and while it hands the lead over.
//!
//! Clients write through all nodes without a rest, one connection each call, until the rounds are done. A gap after a kill
//! lasts from the signal to the first acknowledged write that was sent after it. The gap of a hand-over is the longest time
//! between two acknowledged writes from just before the request to two seconds after it; a write that was refused or has
//! no answer in that time counts as lost.

use crate::client::Client;
use crate::cluster::{Cluster, PATIENCE, wait_for};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clients that write.
const WRITERS: usize = 4;
/// Time between two rounds, in which the cluster settles.
const REST: Duration = Duration::from_millis(1500);
/// A hand-over is watched for so long.
const WATCH: Duration = Duration::from_secs(2);

/// Gaps in milliseconds, in rising order, and what was lost.
#[derive(Debug, Default)]
pub struct Gaps {
    /// After `kill -9` of the active node.
    pub kills: Vec<f64>,
    /// While it hands over.
    pub hand_overs: Vec<f64>,
    /// Writes that a hand-over failed.
    pub lost: Vec<String>,
}

/// A write: when it was sent and ended, and what was wrong with it.
struct Write {
    sent: Instant,
    ended: Instant,
    trouble: Option<String>,
}

/// The value that so many parts of a hundred do not exceed; none of an empty list.
pub fn percentile(rising: &[f64], part: usize) -> Option<f64> {
    let rank = (rising.len() * part).div_ceil(100).max(1);
    rising.get(rank - 1).copied()
}

/// Measures over a cluster that serves.
///
/// # Errors
/// The cluster does not come back.
pub fn measure(cluster: &Cluster, rounds: usize, interrupted: &AtomicBool) -> Result<Gaps, String> {
    let over = AtomicBool::new(false);
    let writes: Mutex<Vec<Write>> = Mutex::default();
    std::thread::scope(|scope| {
        for w in 0..WRITERS {
            let (over, writes) = (&over, &writes);
            scope.spawn(move || writer(cluster, w, over, writes));
        }
        let done = run(cluster, rounds, &writes, interrupted);
        over.store(true, Ordering::Relaxed);
        done
    })
}

fn writer(cluster: &Cluster, w: usize, over: &AtomicBool, writes: &Mutex<Vec<Write>>) {
    let client = Client::new(Duration::from_secs(8));
    let root = cluster.root();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let base = cluster.nodes[(w + n) % cluster.len()].base();
        let sent = Instant::now();
        let body = json!({"data": {"value": n}});
        let trouble = match client.call(&base, "POST", &format!("secret/data/gap{w}"), &root, &body) {
            Ok(a) if a.is_ok() => None,
            Ok(a) => Some(a.error()),
            Err(e) => Some(e.to_string()),
        };
        let rest = trouble.is_some();
        writes.lock().unwrap_or_else(PoisonError::into_inner).push(Write { sent, ended: Instant::now(), trouble });
        if rest {
            // a node that is down refuses at once
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn run(
    cluster: &Cluster,
    rounds: usize,
    writes: &Mutex<Vec<Write>>,
    interrupted: &AtomicBool,
) -> Result<Gaps, String> {
    let writes = || writes.lock().unwrap_or_else(PoisonError::into_inner);
    let mut gaps = Gaps::default();
    for _ in 0..rounds {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(REST);
        let leader = wait_leader(cluster)?;
        writes().clear();
        std::thread::sleep(Duration::from_millis(200));
        let asked = Instant::now();
        cluster.ask(leader, "PUT", "sys/step-down", &json!({})).map_err(|e| format!("step-down: {e}"))?;
        std::thread::sleep(WATCH);
        let mut ends: Vec<Instant> = Vec::new();
        for w in writes().iter() {
            match &w.trouble {
                None => ends.push(w.ended),
                Some(why) => gaps.lost.push(format!("{why}, {} ms after", w.ended.duration_since(asked).as_millis())),
            }
        }
        ends.sort();
        let longest = ends.windows(2).map(|p| p[1] - p[0]).max().ok_or("no write was acknowledged")?;
        gaps.hand_overs.push(longest.as_secs_f64() * 1e3);

        std::thread::sleep(REST);
        let leader = wait_leader(cluster)?;
        writes().clear();
        let killed = Instant::now();
        cluster.kill(leader);
        wait_for("writes are served again", PATIENCE, || {
            writes().iter().any(|w| w.trouble.is_none() && w.sent > killed)
        })?;
        let first = writes().iter().filter(|w| w.trouble.is_none() && w.sent > killed).map(|w| w.ended).min();
        gaps.kills.push(first.map_or(0.0, |at| at.duration_since(killed).as_secs_f64() * 1e3));
        cluster.bring_up(leader)?;
        wait_for("every node serves", PATIENCE, || (0..cluster.len()).all(|i| cluster.is_sealed(i) == Some(false)))?;
    }
    gaps.kills.sort_by(f64::total_cmp);
    gaps.hand_overs.sort_by(f64::total_cmp);
    Ok(gaps)
}

fn wait_leader(cluster: &Cluster) -> Result<usize, String> {
    let mut leader = None;
    wait_for("a node is active", PATIENCE, || {
        leader = cluster.leader();
        leader.is_some()
    })?;
    leader.ok_or_else(|| "no node is active".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let all: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (percentile(&all, 50), percentile(&all, 99), percentile(&all, 100)),
            (Some(50.), Some(99.), Some(100.))
        );
        assert_eq!((percentile(&[7.0], 99), percentile(&[], 50)), (Some(7.0), None));
    }
}
