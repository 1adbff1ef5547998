//! Faults, by name, alone and composed.
//!
//! Each name belongs to a lane: network, processes, disks and files, clocks, administration. Lanes run at the same time, so
//! that faults of different kinds meet; within a lane one fault follows the other. What is done, and when, is drawn from
//! the seed; the clock of the machine decides what it falls together with.

use crate::cluster::{PATIENCE, wait_for};
use crate::net::{End, Weather};
use crate::work::World;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nemesis {
    /// Its name.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Faults of one lane never meet.
    pub lane: Lane,
    /// Clusters smaller than this have nothing to suffer from it.
    pub nodes: usize,
}

/// Which faults exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The network.
    Network,
    /// Processes and their files.
    Process,
    /// Disks under running processes.
    Disk,
    /// Clocks.
    Clock,
    /// What an operator does.
    Admin,
}

const fn nemesis(name: &'static str, lane: Lane, nodes: usize, about: &'static str) -> Nemesis {
    Nemesis { name, about, lane, nodes }
}

/// All faults.
pub const ALL: [Nemesis; 29] = [
    nemesis("partition-one", Lane::Network, 2, "one node is cut off from the others"),
    nemesis("partition-leader", Lane::Network, 2, "the active node is cut off from the others"),
    nemesis("partition-majority", Lane::Network, 3, "a minority and a majority are cut apart"),
    nemesis("partition-ring", Lane::Network, 4, "each node sees its neighbours in a ring only"),
    nemesis("partition-bridge", Lane::Network, 3, "two halves that share one node"),
    nemesis("partition-oneway", Lane::Network, 2, "packets of one direction are lost between two nodes"),
    nemesis("partition-clients", Lane::Network, 1, "clients do not reach one node, the nodes reach each other"),
    nemesis("net-slow", Lane::Network, 1, "packets wait 20 to 120 ms"),
    nemesis("net-lossy", Lane::Network, 1, "one packet in twelve is lost, one in fifty comes twice"),
    nemesis("net-reorder", Lane::Network, 1, "packets overtake each other"),
    nemesis("kill", Lane::Process, 1, "SIGKILL of one node, started again"),
    nemesis("kill-leader", Lane::Process, 1, "SIGKILL of the active node, started again"),
    nemesis("kill-all", Lane::Process, 1, "SIGKILL of all nodes at once, started again"),
    nemesis("restart", Lane::Process, 1, "SIGTERM of one node, started again"),
    nemesis("pause", Lane::Process, 1, "SIGSTOP of one node for some seconds"),
    nemesis("pause-leader", Lane::Process, 1, "SIGSTOP of the active node for some seconds"),
    nemesis("flip", Lane::Process, 1, "a byte of a stopped node's log is changed"),
    nemesis("truncate", Lane::Process, 1, "a file of a stopped node's log loses its second half"),
    nemesis("upgrade", Lane::Process, 1, "nodes are restarted one by one with the other binary"),
    nemesis("disk-full", Lane::Disk, 1, "no room is left on one node's disk"),
    nemesis("disk-slow", Lane::Disk, 1, "one node's disk does 40 writes a second"),
    nemesis("clock-jump", Lane::Clock, 1, "one node's wall clock jumps by up to an hour, and back"),
    nemesis("clock-strobe", Lane::Clock, 1, "one node's wall clock jumps to and fro ten times a second"),
    nemesis("clock-all", Lane::Clock, 1, "every node's wall clock jumps, each by something else"),
    nemesis("seal", Lane::Admin, 1, "a node is sealed for a while, then unsealed"),
    nemesis("rotate", Lane::Admin, 1, "the keyring gets a new term"),
    nemesis("step-down", Lane::Admin, 2, "the active node hands over"),
    nemesis("restore", Lane::Admin, 1, "a snapshot is taken and restored under load"),
    nemesis("churn", Lane::Admin, 3, "a node leaves the cluster and comes back with an empty disk"),
];

/// The fault of a name; a family's name (`partition`, `clock`) stands for all of it.
///
/// # Errors
/// There is none.
pub fn named(name: &str) -> Result<Vec<Nemesis>, String> {
    let family = format!("{name}-");
    let exact: Vec<Nemesis> = ALL.into_iter().filter(|n| n.name == name).collect();
    let found = match exact.is_empty() {
        false => exact,
        true => ALL.into_iter().filter(|n| name == "all" || n.name.starts_with(&family)).collect(),
    };
    if found.is_empty() {
        return Err(format!("no fault is called {name:?}; `ringfence-jepsen list` tells all"));
    }
    Ok(found)
}

/// How faults follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Mean rest between two faults of a lane.
    pub rest: Duration,
    /// Mean length of a fault.
    pub length: Duration,
}

/// What the faults of a run may need.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// The other binary of an upgrade.
    pub other_binary: Option<PathBuf>,
    /// The first binary.
    pub binary: PathBuf,
}

/// One lane at work. Returns what could not be healed.
pub fn lane(world: &Arc<World>, kinds: &[Nemesis], pace: Pace, means: &Means, seed: u64) -> Result<u64, String> {
    let mut l = LaneRun { world, rng: fastrand::Rng::with_seed(seed), means, done: 0 };
    while !world.is_calm() {
        let rest = pace.rest.mul_f64(0.5 + l.rng.f64());
        l.sleep(rest);
        if world.is_calm() {
            break;
        }
        let kind = kinds[l.rng.usize(0..kinds.len())];
        let length = pace.length.mul_f64(0.5 + l.rng.f64());
        l.fault(kind, length)?;
        l.done += 1;
    }
    Ok(l.done)
}

struct LaneRun<'a> {
    world: &'a Arc<World>,
    rng: fastrand::Rng,
    means: &'a Means,
    done: u64,
}

impl LaneRun<'_> {
    /// Sleeps, unless the run ends first.
    fn sleep(&self, length: Duration) {
        let until = Instant::now() + length;
        while Instant::now() < until && !self.world.is_calm() {
            std::thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn name(&self, i: usize) -> &str {
        &self.world.cluster.nodes[i].name
    }

    fn shuffled(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.world.cluster.len()).collect();
        self.rng.shuffle(&mut all);
        all
    }

    /// The active node, or any if there is none.
    fn leader_or_any(&mut self) -> usize {
        let any = self.rng.usize(0..self.world.cluster.len());
        self.world.cluster.leader().unwrap_or(any)
    }

    fn start(&self, kind: Nemesis, on: &Value, what: Value) {
        self.world.recorder.fault(kind.name, "start", on.clone(), what);
    }

    fn stop(&self, kind: Nemesis, on: &Value, what: Value) {
        self.world.recorder.fault(kind.name, "stop", on.clone(), what);
    }

    fn fault(&mut self, kind: Nemesis, length: Duration) -> Result<(), String> {
        match kind.lane {
            Lane::Network => self.network(kind, length),
            Lane::Process => return self.process(kind, length),
            Lane::Disk => self.disk(kind, length),
            Lane::Clock => self.clock(kind, length),
            Lane::Admin => return self.admin(kind, length),
        }
        Ok(())
    }

    fn network(&mut self, kind: Nemesis, length: Duration) {
        let rules = self.world.cluster.rules.clone();
        let all = self.shuffled();
        let count = all.len();
        let node = End::Node;
        let apart = |a: &[usize], b: &[usize]| {
            for (x, y) in a.iter().flat_map(|x| b.iter().map(move |y| (*x, *y))) {
                rules.cut(node(x), node(y));
                rules.cut(node(y), node(x));
            }
        };
        let weather = |w: Weather| {
            let ends = || (0..count).map(End::Node).chain([End::Clients]);
            for (a, b) in ends().flat_map(|a| ends().map(move |b| (a, b))) {
                rules.weather(a, b, w);
            }
        };
        let what = match kind.name {
            "partition-leader" => {
                let l = self.leader_or_any();
                let others: Vec<usize> = all.iter().copied().filter(|i| *i != l).collect();
                apart(&[l], &others);
                json!(format!("{} | rest", self.name(l)))
            }
            "partition-majority" => {
                let (few, many) = all.split_at((count - 1) / 2);
                apart(few, many);
                json!(format!("{few:?} | {many:?}"))
            }
            "partition-ring" => {
                for (x, a) in all.iter().enumerate() {
                    for (y, b) in all.iter().enumerate() {
                        let steps = (count + x - y) % count;
                        if x != y && steps != 1 && steps != count - 1 {
                            rules.cut(node(*a), node(*b));
                        }
                    }
                }
                json!(format!("ring {all:?}"))
            }
            "partition-bridge" => {
                let (bridge, rest) = (all[0], &all[1..]);
                let (left, right) = rest.split_at(rest.len() / 2);
                apart(left, right);
                json!(format!("{left:?} | {} | {right:?}", self.name(bridge)))
            }
            "partition-oneway" => {
                // half of the time the active node is the one that is not heard
                let from = if self.rng.bool() { self.leader_or_any() } else { all[0] };
                let others: Vec<usize> = all.into_iter().filter(|i| *i != from).collect();
                others.iter().for_each(|to| rules.cut(node(from), node(*to)));
                json!(format!("{} is not heard", self.name(from)))
            }
            "partition-clients" => {
                rules.cut(End::Clients, node(all[0]));
                rules.cut(node(all[0]), End::Clients);
                json!(format!("clients | {}", self.name(all[0])))
            }
            "net-slow" => {
                let ms = self.rng.u64(10..60);
                let delay = Duration::from_millis(ms);
                weather(Weather { delay, jitter: delay / 5, ..Weather::default() });
                json!(format!("{ms} ms each way"))
            }
            "net-lossy" => {
                weather(Weather { lost_permille: 80, doubled_permille: 20, ..Weather::default() });
                json!("80 of 1000 lost, 20 doubled")
            }
            "net-reorder" => {
                weather(Weather { jitter: Duration::from_millis(30), ..Weather::default() });
                json!("up to 30 ms, each packet for itself")
            }
            _ => {
                apart(&all[..1], &all[1..]);
                json!(format!("{} | rest", self.name(all[0])))
            }
        };
        self.start(kind, &json!("network"), what);
        self.sleep(length);
        rules.heal();
        self.stop(kind, &json!("network"), Value::Null);
    }

    fn process(&mut self, kind: Nemesis, length: Duration) -> Result<(), String> {
        let world = self.world.clone();
        let c = &world.cluster;
        let victims = match kind.name {
            "kill-all" | "upgrade" => self.shuffled(),
            name if name.ends_with("leader") => vec![self.leader_or_any()],
            _ => vec![self.rng.usize(0..c.len())],
        };
        let on = json!(victims.iter().map(|i| self.name(*i)).collect::<Vec<_>>().join(" "));
        let hands: Vec<_> = victims
            .iter()
            .map(|i| c.nodes[*i].hands.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
            .collect();
        match kind.name {
            "pause" | "pause-leader" => {
                self.start(kind, &on, Value::Null);
                victims.iter().for_each(|i| c.pause(*i));
                self.sleep(length);
                victims.iter().for_each(|i| c.resume(*i));
            }
            "upgrade" => {
                let other = self.means.other_binary.clone().unwrap_or_else(|| self.means.binary.clone());
                let back = self.done % 2 == 1;
                self.start(kind, &on, json!({"binary": if back { &self.means.binary } else { &other }}));
                for i in &victims {
                    c.nodes[*i].use_binary(if back { &self.means.binary } else { &other });
                    c.terminate(*i);
                    c.bring_up(*i)?;
                    self.sleep(length / 4);
                }
            }
            "flip" | "truncate" => {
                let i = victims[0];
                c.kill(i);
                let what = self.damage(kind, &c.nodes[i].data_dir());
                self.start(kind, &on, json!(what.as_ref().map_or("nothing to damage", |d| d.what.as_str())));
                self.sleep(length / 2);
                let came_up = c.start(i);
                let outcome = match (came_up, what) {
                    // whatever it lost, clients will see; unless it finds out itself, and says what is to be done
                    (Ok(()), _) => {
                        let watched = c.unseal(i).and_then(|()| {
                            wait_for("it stops", Duration::from_secs(2), || c.last_words(i).is_some())
                        });
                        match (watched, c.last_words(i)) {
                            (Err(_), None) => "it starts".to_owned(),
                            (_, words) if c.len() > 1 => {
                                self.rejoin(i, Duration::ZERO)?;
                                format!("it stops: {}; joined again", words.unwrap_or_default())
                            }
                            (_, words) => return Err(format!("it stops: {}", words.unwrap_or_default())),
                        }
                    }
                    // the disk is repaired, as an operator would from a copy
                    (Err(e), Some(damage)) => {
                        damage.undo()?;
                        c.start(i)?;
                        format!("it refuses: {e}; undone")
                    }
                    (Err(e), None) => return Err(e),
                };
                c.unseal(i)?;
                self.stop(kind, &on, json!(outcome));
                return Ok(());
            }
            _ => {
                self.start(kind, &on, Value::Null);
                for i in &victims {
                    if kind.name == "restart" { c.terminate(*i) } else { c.kill(*i) }
                }
                self.sleep(length);
                victims.iter().try_for_each(|i| c.start(*i))?;
                victims.iter().try_for_each(|i| c.unseal(*i))?;
            }
        }
        drop(hands);
        self.stop(kind, &on, Value::Null);
        Ok(())
    }

    /// Damages a log segment of a stopped node.
    fn damage(&mut self, kind: Nemesis, data: &Path) -> Option<Damage> {
        let mut files: Vec<PathBuf> = fs::read_dir(data.join("log")).ok()?.flatten().map(|f| f.path()).collect();
        files.sort();
        let (path, whole) = files.into_iter().find_map(|f| {
            let bytes = fs::read(&f).ok()?;
            let used = bytes.iter().rposition(|b| *b != 0)? + 1;
            // enough that what is damaged lies well before the last write, which a node alone may take for torn
            (used > 128 * 1024).then(|| (f, bytes[..used].to_vec()))
        })?;
        let half = whole.len() / 2;
        let file = fs::OpenOptions::new().write(true).open(&path).ok()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        if kind.name == "flip" {
            // a byte that is something: padding is nobody's data
            let from = self.rng.usize(4096..half);
            let at = (from..half).find(|i| whole[*i] != 0)?;
            file.write_all_at(&[whole[at] ^ 0x20], at as u64).ok()?;
            let old = vec![whole[at]];
            return Some(Damage { path, at: at as u64, old, length: None, what: format!("byte {at} of {name}") });
        }
        let length = fs::metadata(&path).ok()?.len();
        file.set_len(half as u64).ok()?;
        let old = whole[half..].to_vec();
        Some(Damage { path, at: half as u64, old, length: Some(length), what: format!("{name} ends at {half}") })
    }

    fn disk(&mut self, kind: Nemesis, length: Duration) {
        let i = self.rng.usize(0..self.world.cluster.len());
        let n = &self.world.cluster.nodes[i];
        let on = json!(n.name);
        if kind.name == "disk-full" {
            let ballast = n.dir.join("data/ballast");
            // a partial write is what fills the disk to its last block
            let filled = fill(&ballast);
            self.start(kind, &on, json!(format!("{filled} bytes of ballast")));
            self.sleep(length);
            let _ = fs::remove_file(&ballast);
        } else {
            let throttle = n.pid().and_then(|pid| Throttle::on(&n.dir.join("data"), pid).ok());
            let what = if throttle.is_some() { "40 writes a second" } else { "cannot be slowed here" };
            self.start(kind, &on, json!(what));
            self.sleep(length);
            drop(throttle);
        }
        self.stop(kind, &on, Value::Null);
    }

    fn clock(&mut self, kind: Nemesis, length: Duration) {
        let c = &self.world.cluster;
        let i = self.rng.usize(0..c.len());
        let hour = 3_600_000;
        match kind.name {
            "clock-strobe" => {
                let on = json!(c.nodes[i].name);
                let ms = self.rng.i64(200..60_000);
                self.start(kind, &on, json!(format!("{ms} ms to and fro")));
                let until = Instant::now() + length;
                let mut ahead = false;
                while Instant::now() < until && !self.world.is_calm() {
                    ahead = !ahead;
                    c.set_clock(i, if ahead { ms } else { 0 });
                    std::thread::sleep(Duration::from_millis(50));
                }
                c.set_clock(i, 0);
                self.stop(kind, &on, Value::Null);
            }
            "clock-all" => {
                let offsets: Vec<i64> = (0..c.len()).map(|_| self.rng.i64(-hour..hour)).collect();
                self.start(kind, &json!("all"), json!(offsets));
                offsets.iter().enumerate().for_each(|(i, ms)| c.set_clock(i, *ms));
                self.sleep(length);
                (0..c.len()).for_each(|i| c.set_clock(i, 0));
                self.stop(kind, &json!("all"), Value::Null);
            }
            _ => {
                let on = json!(c.nodes[i].name);
                let ms = self.rng.i64(-hour..hour);
                self.start(kind, &on, json!(format!("{ms} ms")));
                c.set_clock(i, ms);
                self.sleep(length);
                c.set_clock(i, 0);
                self.stop(kind, &on, Value::Null);
            }
        }
    }

    fn admin(&mut self, kind: Nemesis, length: Duration) -> Result<(), String> {
        let world = self.world.clone();
        let c = &world.cluster;
        let i = if kind.name == "seal" { self.rng.usize(0..c.len()) } else { self.leader_or_any() };
        let n = &c.nodes[i];
        let on = json!(n.name);
        let post = |path: &str| c.ask(i, "PUT", path, &Value::Null).map_or_else(|e| e.to_string(), |a| a.error());
        match kind.name {
            "seal" => {
                let _hands = n.hands.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                n.keep_sealed(true);
                let mut said = post("sys/seal");
                if c.is_sealed(i) == Some(false) {
                    // a standby seals by being restarted, as its answer says
                    c.terminate(i);
                    c.start(i)?;
                    said = "restarted and left sealed".into();
                }
                self.start(kind, &on, json!(said));
                self.sleep(length);
                n.keep_sealed(false);
                c.bring_up(i)?;
                self.stop(kind, &on, Value::Null);
            }
            "rotate" | "step-down" => {
                let said = post(if kind.name == "rotate" { "sys/rotate" } else { "sys/step-down" });
                self.start(kind, &on, json!(said));
                self.stop(kind, &on, Value::Null);
            }
            "restore" => {
                // what is asked from now on may be undone, and does not count
                world.next_era();
                self.start(kind, &on, Value::Null);
                let said = self.restore(i, length);
                self.stop(kind, &on, json!(said));
                world.next_era();
            }
            _ => return self.churn(kind, length),
        }
        Ok(())
    }

    fn restore(&self, i: usize, length: Duration) -> String {
        let c = &self.world.cluster;
        let (base, root) = (c.nodes[i].base(), c.root());
        let headers = [("x-vault-token", root.as_str())];
        let snapshot = match c.client.raw(&base, "GET", "sys/storage/raft/snapshot", &headers, Vec::new()) {
            Ok((200, bytes)) => bytes,
            Ok((status, bytes)) => return format!("save: {status} {}", String::from_utf8_lossy(&bytes)),
            Err(e) => return format!("save: {e}"),
        };
        let size = snapshot.len();
        // clients go on meanwhile, so that there is something to undo
        self.sleep(length / 2);
        let said = match c.client.raw(&base, "POST", "sys/storage/raft/snapshot", &headers, snapshot) {
            Ok((204 | 200, _)) => format!("{size} bytes restored"),
            Ok((status, bytes)) => format!("restore: {status} {}", String::from_utf8_lossy(&bytes)),
            Err(e) => format!("restore: {e}"),
        };
        // a restore that nobody answered may still be under way: the era ends when the cluster serves again
        let serves = wait_for("the cluster serves after the restore", PATIENCE, || {
            (0..c.len()).filter(|j| c.is_sealed(*j) == Some(true)).for_each(|j| {
                let _ = c.unseal(j);
            });
            let body = json!({"data": {"value": 1}});
            c.ask(i, "POST", "secret/data/after-restore", &body).is_ok_and(|a| a.is_ok())
        });
        match serves {
            Ok(()) => said,
            Err(e) => format!("{said}; {e}"),
        }
    }

    /// A node leaves, loses its disk, and comes back as a new member under its old name.
    fn churn(&mut self, kind: Nemesis, length: Duration) -> Result<(), String> {
        let world = self.world.clone();
        let c = &world.cluster;
        let i = self.rng.usize(0..c.len());
        let n = &c.nodes[i];
        let _hands = n.hands.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let on = json!(n.name);
        self.start(kind, &on, Value::Null);
        let said = self.rejoin(i, length)?;
        self.stop(kind, &on, json!(said));
        Ok(())
    }

    /// Takes a node out of the cluster, empties its disk, and lets it join as a new member.
    fn rejoin(&mut self, i: usize, away: Duration) -> Result<String, String> {
        let world = self.world.clone();
        let c = &world.cluster;
        let n = &c.nodes[i];
        let leader = self.leader_or_any();
        let removed = c.ask(leader, "POST", "sys/storage/raft/remove-peer", &json!({"server_id": n.name}));
        let said = removed.map_or_else(|e| e.to_string(), |a| a.error());
        c.kill(i);
        let data = n.data_dir();
        fs::remove_dir_all(&data)
            .and_then(|()| fs::create_dir_all(&data))
            .map_err(|e| format!("{}: {e}", data.display()))?;
        self.sleep(away);
        c.bring_up(i)?;
        let back = wait_for("it belongs to the cluster again", PATIENCE, || c.is_voter(i));
        Ok(back.map_or_else(|e| format!("removed: {said}; {e}"), |()| format!("removed: {said}")))
    }
}

/// What was changed in a file.
struct Damage {
    path: PathBuf,
    at: u64,
    old: Vec<u8>,
    length: Option<u64>,
    what: String,
}

impl Damage {
    fn undo(&self) -> Result<(), String> {
        let text = |e: std::io::Error| format!("{}: {e}", self.path.display());
        let file = fs::OpenOptions::new().write(true).open(&self.path).map_err(text)?;
        if let Some(length) = self.length {
            file.set_len(length).map_err(text)?;
        }
        file.write_all_at(&self.old, self.at).map_err(text)
    }
}

/// Fills a file system to its last block.
fn fill(ballast: &Path) -> u64 {
    use std::io::Write;
    let Ok(mut file) = fs::File::create(ballast) else { return 0 };
    let (big, small) = (vec![0x5a; 1 << 20], vec![0x5a; 4096]);
    let mut filled = 0;
    for piece in [&big, &small] {
        while file.write_all(piece).is_ok() {
            filled += piece.len() as u64;
        }
    }
    filled
}

/// A bound on the writes of one process to one disk, by the kernel's control groups. Ends when dropped.
struct Throttle {
    group: PathBuf,
    parent: PathBuf,
    pid: u32,
}

impl Throttle {
    const WRITES_A_SECOND: u32 = 40;

    fn on(place: &Path, pid: u32) -> std::io::Result<Throttle> {
        use std::os::unix::fs::MetadataExt;
        let device = fs::metadata(place)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let parent = PathBuf::from("/sys/fs/cgroup/blkio");
        let group = parent.join(format!("ringfence-jepsen-{}-{pid}", std::process::id()));
        fs::create_dir(&group)?;
        let t = Throttle { group, parent, pid };
        let bound = format!("{major}:{minor} {}", Self::WRITES_A_SECOND);
        fs::write(t.group.join("blkio.throttle.write_iops_device"), bound)?;
        fs::write(t.group.join("cgroup.procs"), pid.to_string())?;
        Ok(t)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // the process may be gone, and with it its place in the group
        let _ = fs::write(self.parent.join("cgroup.procs"), self.pid.to_string());
        let begun = Instant::now();
        while fs::remove_dir(&self.group).is_err() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_families() {
        assert_eq!(named("kill").unwrap().len(), 1, "a fault before its family");
        assert_eq!(named("clock").unwrap().len(), 3);
        assert_eq!(named("all").unwrap().len(), ALL.len());
        assert!(named("meteor").is_err());
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|n| n.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn damage_can_be_undone() {
        let dir = std::env::temp_dir().join(format!("ringfence-jepsen-damage-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a");
        fs::write(&path, b"0123456789").unwrap();
        let d = Damage { path: path.clone(), at: 5, old: b"56789".to_vec(), length: Some(10), what: String::new() };
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
        d.undo().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"0123456789");
        fs::remove_dir_all(&dir).unwrap();
    }
}
