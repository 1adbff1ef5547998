//! Named scenarios: which faults meet which workloads.

use crate::nemesis::{self, Nemesis};
use crate::work;
use std::time::Duration;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Faults or families of them.
    pub faults: &'static [&'static str],
    /// Workloads; none stands for all.
    pub workloads: &'static [&'static str],
    /// Length.
    pub seconds: u64,
}

const fn scenario(
    name: &'static str,
    seconds: u64,
    faults: &'static [&'static str],
    workloads: &'static [&'static str],
    about: &'static str,
) -> Scenario {
    Scenario { name, about, faults, workloads, seconds }
}

/// All scenarios.
pub const ALL: [Scenario; 14] = [
    scenario(
        "calm",
        20,
        &[],
        &[],
        "no fault at all: whatever is found here is the harness's or the server's everyday",
    ),
    scenario("smoke", 20, &["kill", "pause", "seal"], &[], "a few faults of each kind, short: for every change"),
    scenario("kill", 60, &["kill", "restart"], &[], "processes end and come back"),
    scenario("pause", 60, &["pause"], &[], "processes stop for a while: a deposed leader wakes up"),
    scenario("partition", 90, &["partition"], &[], "the network falls apart in every way"),
    scenario("weather", 60, &["net"], &[], "packets are late, lost, doubled, out of order"),
    scenario(
        "clock",
        60,
        &["clock", "kill", "pause"],
        &["lease", "batch", "revoked", "register"],
        "clocks jump and strobe",
    ),
    scenario("disk", 60, &["disk", "kill"], &[], "disks are full or slow"),
    scenario(
        "rot",
        60,
        &["flip", "truncate"],
        &["register", "append", "revoked"],
        "bytes of stopped nodes' files change",
    ),
    scenario("operator", 60, &["seal", "rotate", "step-down"], &[], "what operators do on a busy day"),
    scenario("restore", 60, &["restore"], &[], "snapshots are restored under load"),
    scenario("churn", 90, &["churn", "partition-one"], &[], "members leave and come back empty"),
    scenario("upgrade", 60, &["upgrade"], &[], "nodes are replaced one by one by another build"),
    scenario("chaos", 120, &["all"], &[], "everything, composed"),
];

/// A scenario by its name.
///
/// # Errors
/// There is none.
pub fn named(name: &str) -> Result<Scenario, String> {
    let unknown = || format!("no scenario is called {name:?}; `ringfence-jepsen list` tells all");
    ALL.into_iter().find(|s| s.name == name).ok_or_else(unknown)
}

impl Scenario {
    /// Its workloads.
    pub fn workload_names(&self) -> Vec<String> {
        let all = if self.workloads.is_empty() { &work::ALL[..] } else { self.workloads };
        all.iter().map(|w| (*w).to_owned()).collect()
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Faults by names and families, each once.
///
/// # Errors
/// A name that is none.
pub fn faults(names: &[String]) -> Result<Vec<Nemesis>, String> {
    let mut found: Vec<Nemesis> = Vec::new();
    for name in names {
        for n in nemesis::named(name)? {
            if !found.contains(&n) {
                found.push(n);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_name_what_exists() {
        for s in ALL {
            let names: Vec<String> = s.faults.iter().map(|f| (*f).to_owned()).collect();
            faults(&names).unwrap();
            assert!(s.workload_names().iter().all(|w| work::ALL.contains(&w.as_str())), "{}", s.name);
        }
    }
}
