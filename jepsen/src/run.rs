//! A run from its beginning to its end: cluster, clients, faults, calm, last look, verdicts.

use crate::check::{self, Finding, Limits, Verdict};
use crate::cluster::{Cluster, NetKind, Plan};
use crate::history::{History, Recorder};
use crate::nemesis::{self, Lane, Means, Nemesis, Pace};
use crate::work::{self, Shared, Worker, World};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name of the scenario.
    pub name: String,
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// Time under faults.
    pub length: Duration,
    /// Nodes.
    pub nodes: usize,
    /// Workloads.
    pub workloads: Vec<String>,
    /// Faults.
    pub faults: Vec<Nemesis>,
    /// Clients of each workload.
    pub clients: usize,
    /// Mean rest of a client between two calls.
    pub rest: Duration,
    /// How long a client waits.
    pub patience: Duration,
    /// How faults follow each other.
    pub pace: Pace,
    /// The server.
    pub binary: PathBuf,
    /// Another build of it, for upgrades.
    pub other_binary: Option<PathBuf>,
    /// The binary obeys a test clock.
    pub clocks: bool,
    /// The network.
    pub net: NetKind,
    /// Where the report goes.
    pub folder: PathBuf,
    /// What the checkers are told.
    pub limits: Limits,
}

/// What is known of a run beside its history.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Scenario.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// What the server's binary says of itself.
    pub build: String,
    /// Nodes.
    pub nodes: usize,
    /// How the network was made.
    pub network: String,
    /// Workloads.
    pub workloads: Vec<String>,
    /// Faults that took part.
    pub faults: Vec<String>,
    /// Faults that could not, and why.
    pub left_out: Vec<String>,
    /// Seconds under faults.
    pub seconds: f64,
    /// The command.
    pub command: String,
    /// Somebody ended it early.
    pub interrupted: bool,
}

/// A finished run.
pub struct Outcome {
    /// About it.
    pub facts: Facts,
    /// The history.
    pub history: History,
    /// The verdicts.
    pub findings: Vec<Finding>,
}

impl Run {
    /// Which faults can be, and why others cannot.
    fn possible(&self, net: &str) -> (Vec<Nemesis>, Vec<String>) {
        let (mut can, mut cannot) = (Vec::new(), Vec::new());
        for n in &self.faults {
            let why = if self.nodes < n.nodes {
                Some(format!("needs {} nodes", n.nodes))
            } else if n.lane == Lane::Clock && !self.clocks {
                Some("the server is no build with a test clock (--test-clock)".into())
            } else if n.lane == Lane::Disk && !is_root() {
                Some("only root can mount a disk for each node".into())
            } else if n.name == "upgrade" && self.other_binary.is_none() {
                Some("no other build was given (--other-binary)".into())
            } else if matches!(n.name, "net-lossy" | "net-reorder") && net == "proxies" {
                Some("proxies carry bytes, not packets".into())
            } else {
                None
            };
            match why {
                Some(why) => cannot.push(format!("{}: {why}", n.name)),
                None => can.push(*n),
            }
        }
        (can, cannot)
    }

    /// Runs. An error means that there was nothing to judge.
    ///
    /// # Errors
    /// The cluster could not be made.
    pub fn go(&self, interrupted: Arc<AtomicBool>, say: impl Fn(&str)) -> Result<Outcome, String> {
        std::fs::create_dir_all(&self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))?;
        let history = self.folder.join("history.jsonl");
        let cluster = Cluster::build(Plan {
            nodes: self.nodes,
            binary: self.binary.clone(),
            folder: self.folder.clone(),
            net: self.net,
            own_disks: is_root() && self.faults.iter().any(|f| f.lane == Lane::Disk),
            clocks: self.clocks,
        })?;
        let (faults, left_out) = self.possible(cluster.net_name);
        say(&format!("{} nodes over {}", self.nodes, cluster.net_name));
        cluster.form()?;
        work::set_up(&cluster)?;
        let mut facts = Facts {
            scenario: self.name.clone(),
            seed: self.seed,
            build: cluster.build_text(),
            nodes: self.nodes,
            network: cluster.net_name.into(),
            workloads: self.workloads.clone(),
            faults: faults.iter().map(|f| f.name.to_owned()).collect(),
            left_out,
            seconds: 0.0,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            interrupted: false,
        };
        let world = Arc::new(World {
            cluster,
            recorder: Recorder::begin(&history).map_err(|e| format!("{}: {e}", history.display()))?,
            era: RwLock::new(0),
            calm: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            interrupted,
            patience: self.patience,
            rest: self.rest,
        });
        let begun = Instant::now();
        let troubles = self.work(&world, &faults, &say);
        facts.seconds = begun.elapsed().as_secs_f64();
        facts.interrupted = world.interrupted.load(Ordering::Relaxed);
        world.recorder.finish().map_err(|e| format!("{}: {e}", history.display()))?;
        drop(world);
        say("judging");
        let history = History::read(&history)?;
        let mut findings = check::judge(&history, &self.workloads, self.limits);
        findings.push(came_back(&history, troubles));
        Ok(Outcome { facts, history, findings })
    }

    /// Clients and faults, until both are over. Answers what did not come back.
    fn work(&self, world: &Arc<World>, faults: &[Nemesis], say: &impl Fn(&str)) -> Vec<String> {
        let mut lanes: BTreeMap<Lane, Vec<Nemesis>> = BTreeMap::new();
        for f in faults {
            lanes.entry(f.lane).or_default().push(*f);
        }
        let means = Means { other_binary: self.other_binary.clone(), binary: self.binary.clone() };
        let shared = Shared::default();
        let mut troubles = Vec::new();
        std::thread::scope(|s| {
            let mut process = 0;
            for name in &self.workloads {
                for _ in 0..self.clients {
                    let worker = Worker::new(world.clone(), process, mix(self.seed, process as u64));
                    let shared = &shared;
                    s.spawn(move || work::client(name, worker, shared));
                    process += 1;
                }
            }
            let running: Vec<_> = lanes
                .iter()
                .map(|(lane, kinds)| {
                    let (means, seed) = (&means, mix(self.seed, 1_000_000 + *lane as u64));
                    s.spawn(move || nemesis::lane(world, kinds, self.pace, means, seed))
                })
                .collect();
            let rest = |length: Duration| {
                let until = Instant::now() + length;
                while Instant::now() < until && !world.is_over() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            };
            rest(self.length);
            world.calm.store(true, Ordering::Relaxed);
            say("the faults end");
            for lane in running {
                match lane.join() {
                    Ok(Ok(_)) => {}
                    Ok(Err(e)) => troubles.push(e),
                    Err(_) => troubles.push("a lane of faults died: a fault of the harness".into()),
                }
            }
            if !world.interrupted.load(Ordering::Relaxed) {
                if let Err(e) = world.cluster.heal() {
                    troubles.push(e);
                }
                // clients see the healed cluster for a while
                rest(Duration::from_secs(3));
            }
            world.stop.store(true, Ordering::Relaxed);
        });
        if !world.interrupted.load(Ordering::Relaxed) {
            work::last_look(world, &self.workloads, &shared, 1_000_000);
        }
        troubles
    }
}

/// Every node came back after every fault, and refused to start only where its disk was damaged.
fn came_back(h: &History, troubles: Vec<String>) -> Finding {
    let mut notes = vec![format!("{} faults", h.faults.len())];
    let verdict = if troubles.is_empty() { Verdict::Passed } else { Verdict::Broken };
    notes.extend(troubles);
    Finding {
        property: "nodes-come-back",
        promise: "after every fault every node comes back and is unsealed",
        verdict,
        notes,
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(1) == Some("0")))
}

/// A seed for a part of the run, so that parts do not share their numbers.
fn mix(seed: u64, part: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
}
