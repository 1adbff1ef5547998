//! A cluster in its world: several nodes, each with a disk of its own, over a network that loses, delays, doubles and
//! cuts, under clients that write and read through every node while nodes crash, are sealed, and hand over.
//!
//! What must hold, whatever happens:
//! - one leader a term;
//! - equal images at equal indexes;
//! - what was acknowledged is read by everybody afterwards, and never anything older: reads are linearizable;
//! - a revoked token is dead, a wrapping token opens once, two writers are never told the same version;
//! - a sealed node answers no data;
//! - no secret stands on a disk, nor in what nodes replicate;
//! - when the faults end, the cluster serves through every node.

use crate::disk::{Done, SimDisk};
use crate::mutant::{self, Mutant, Nonces};
use crate::promise;
use crate::world::Violation;
use ringfence_barrier::issuer_key;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, Mono, Now, Secret, Wall, entropy};
use ringfence_node::standby::STALE_NS;
use ringfence_node::{
    Body, Call, Cell, Code, Forwarded, Headers, Loaded, Map, MemberRecord, Operation, Owner, OwnerConfig, OwnerIn,
    OwnerOut, PeerMessage, Provider, Reply, Returned, Returning, Settings, Shard, ShardId, ShardIn, ShardOut,
    SideResult, Ticket, Vault, perform, registry,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

const STEP_NS: u64 = 200_000;
const TICK_NS: u64 = 100_000_000;
/// Log time may be apart from the time by so much more than the slew, ns: what a message takes to say it.
const CLOCK_SLACK_NS: u64 = 3_000_000_000;
const KEYS: u64 = 5;
/// Steps within which a healthy cluster must have done anything asked of it: 200 simulated seconds.
const PATIENCE_STEPS: u64 = 1_000_000;
/// A client takes a call for lost after so many steps: 4 simulated seconds.
const CLIENT_STEPS: u64 = 20_000;
const CANARY: &str = "canary-8d1f0c77";

/// A run of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterRun {
    /// Everything comes from it.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Steps under faults, of 0.2 simulated milliseconds each.
    pub steps: u64,
    /// Broken on purpose.
    pub mutant: Option<Mutant>,
}

/// A run of a cluster into which a snapshot is restored while nodes crash and links are cut.
#[derive(Clone, Copy, Debug)]
pub struct RestoreRun {
    /// Everything comes from it.
    pub seed: u64,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct ClusterReport {
    /// Crashes of nodes.
    pub crashes: u64,
    /// Cuts of the network.
    pub cuts: u64,
    /// Pauses of nodes.
    pub pauses: u64,
    /// Wall clocks that jumped.
    pub jumps: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Requests acknowledged.
    pub acknowledged: u64,
    /// Calls passed on from one node to another.
    pub forwarded: u64,
    /// Calls that a standby answered by itself.
    pub stood_by: u64,
    /// Checkpoints that a follower took over.
    pub installs: u64,
    /// Restores that nodes took part in.
    pub restores: u64,
    /// Restores that were told to be done.
    pub restored: u64,
    /// Disks lost or rotten, whose nodes came back as new members.
    pub losses: u64,
    /// Images compared at an equal index.
    pub compared: u64,
    /// Simulated milliseconds.
    pub milliseconds: u64,
    /// A hash over everything that was answered: equal for equal seeds.
    pub digest: u64,
}

/// A node that runs.
struct Machine {
    owner: Owner,
    shard: Shard,
    cell: Arc<Cell>,
    to_owner: VecDeque<OwnerIn>,
    to_shard: VecDeque<ShardIn>,
    next_tick: Mono,
}

struct Node {
    disk: SimDisk,
    machine: Option<Machine>,
    /// Counts its lives.
    life: u64,
    raft_id: u64,
    /// The operator gave it the share in this life.
    opened: bool,
    /// The newest index whose image was looked at.
    looked_at: u64,
    /// How far its wall clock is from the time, ns.
    skew: i64,
    /// The process stands still until then; its disk and the network do not know.
    paused_until: Mono,
    /// Its disk was lost: the raft id it had, the one it is to have, and when it asks the others next.
    coming: Option<(u64, u64, Mono)>,
    /// Calls that wait in the sockets of a paused process: who made them, and whether a peer did.
    held: Vec<(u64, Call, bool)>,
}

/// A message under way.
struct Packet {
    from: usize,
    to: usize,
    /// Life of the sender when it was sent.
    life: u64,
    bytes: Vec<u8>,
}

/// A register: what the last acknowledged write put there, and what writes without an answer may still put.
#[derive(Clone, Default)]
struct Register {
    acknowledged: u64,
    tried: u64,
    maybe: BTreeSet<u64>,
    writing: bool,
    /// What was acknowledged before, and when something else was.
    before: Vec<(u64, Mono)>,
    /// Where in the log the last acknowledged write stands, as its client was told.
    position: Option<String>,
}

enum Asked {
    Write(u64, u64),
    /// The key, every value that the read may show, and the name of what is broken by another one.
    Read(u64, BTreeSet<u64>, &'static str),
    Hot,
    Create,
    Use(usize),
    Revoke(usize),
    Wrap,
    Unwrap(usize),
    StepDown,
}

#[derive(Default)]
struct Known {
    registers: BTreeMap<u64, Register>,
    hot: BTreeSet<u64>,
    /// Text, and when its revocation was acknowledged.
    tokens: Vec<(String, Option<Mono>)>,
    wrappings: Vec<(String, u64)>,
}

struct Cluster {
    seed: u64,
    rng: SeededEntropy,
    now: Now,
    nodes: Vec<Node>,
    packets: BTreeMap<(u64, u64), Packet>,
    next_packet: u64,
    /// Nothing goes from the first to the second.
    cut: BTreeSet<(usize, usize)>,
    asked: BTreeMap<u64, (Asked, u64, usize)>,
    /// Calls that came from a node: which, its life, its number.
    passed: BTreeMap<u64, (usize, u64, u64)>,
    /// All of them: none is carried out twice.
    delivered: BTreeSet<(usize, u64, u64)>,
    replies: VecDeque<(u64, usize, Reply)>,
    next_tag: u64,
    steps: u64,
    leaders: BTreeMap<u64, u64>,
    images: BTreeMap<u64, u64>,
    known: Known,
    report: ClusterReport,
    broken: Option<String>,
    /// Faults may happen.
    rough: bool,
    /// There was a moment when no node ran.
    outage: bool,
    mutant: Option<Mutant>,
    nonces: Nonces,
    /// A restore that was asked for, and whether it was told to be done.
    awaited: Option<(Ticket, Option<bool>)>,
    /// A node that may think it leads while another does, and until when clients ask it more than others.
    suspect: Option<(usize, Mono)>,
}

impl ClusterRun {
    /// Runs to the end or to the first broken promise.
    ///
    /// # Errors
    /// What was broken, with the seed.
    pub fn go(&self) -> Result<ClusterReport, Violation> {
        let fail = |what: String| Violation { seed: self.seed, what };
        let mut c = Cluster::new(self.seed, self.nodes);
        c.mutant = self.mutant;
        let (key, root) = c.form().map_err(&fail)?;
        c.trouble(self.steps, &key, &root).map_err(&fail)?;
        c.heal(&key, &root).map_err(&fail)?;
        c.report.terms = c.leaders.len() as u64;
        c.report.milliseconds = c.now.mono.0 / 1_000_000;
        Ok(c.report)
    }
}

/// What a restored run writes first, and what over it.
const BEFORE: u64 = 1;
const AFTER: u64 = 2;
/// Keys of a restored run: enough that they are staged in several batches.
const RESTORED_KEYS: u64 = 40;

impl RestoreRun {
    /// Runs to the end or to the first broken promise: the image of before or the restored one, whole, the same on every
    /// node, and the restored one if somebody was told so.
    ///
    /// # Errors
    /// What was broken, with the seed.
    pub fn go(&self) -> Result<ClusterReport, Violation> {
        let fail = |what: String| Violation { seed: self.seed, what };
        let mut c = Cluster::new(self.seed, 3);
        let (key, root) = c.form().map_err(&fail)?;
        c.restores(&key, &root).map_err(&fail)?;
        Ok(c.report)
    }
}

impl Cluster {
    /// Writes, saves, writes over it, and restores what was saved under faults.
    fn restores(&mut self, key: &str, root: &str) -> Result<(), String> {
        // the registers of other runs are not written in this one
        self.known.registers.extend((0..KEYS).map(|k| (k, Register::default())));
        self.fill(root, BEFORE)?;
        let leader = self.leader().ok_or("nobody leads")?;
        let archive = self.save(leader, root)?;
        self.fill(root, AFTER)?;
        let mut sure = false;
        for _ in 0..4 {
            let Some(l) = self.leader() else { continue };
            let unpacked = ringfence_node::snapshot::unpack(&archive, false);
            let ticket = Ticket(u64::MAX - self.steps);
            self.awaited = Some((ticket, None));
            self.owner_in(l, OwnerIn::Unpacked(ShardId(0), ticket, unpacked));
            self.settle(l);
            let wait = 2000 + self.draw(20_000);
            self.rough = true;
            for _ in 0..wait {
                self.step()?;
                if self.draw(3000) == 0 {
                    self.fault(key, root)?;
                }
            }
            self.rough = false;
            sure |= matches!(self.awaited.take(), Some((_, Some(true))));
        }
        self.report.restored += u64::from(sure);
        self.heal(key, root)?;
        let mut found = BTreeSet::new();
        for i in 0..self.nodes.len() {
            for k in 0..RESTORED_KEYS {
                let path = format!("secret/data/r{k}");
                let a = self.ask_until(i, Operation::Read, &path, root, Value::Null, |a| a.code == Code::Ok)?;
                found.insert(value_of(&a)?);
            }
        }
        match found.len() {
            1 if sure && found.contains(&AFTER) => {
                Err(format!("{}: a restore was acknowledged and is not there", promise::ACKNOWLEDGED))
            }
            1 => Ok(()),
            _ => Err(format!("{}: reads show both the restored data and that of before", promise::READS)),
        }
    }

    fn fill(&mut self, root: &str, n: u64) -> Result<(), String> {
        for k in 0..RESTORED_KEYS {
            let body = json!({"data": {"n": n, "secret": CANARY, "again": n}});
            self.ask_until(0, Operation::Update, &format!("secret/data/r{k}"), root, body, |a| a.code == Code::Ok)?;
        }
        Ok(())
    }

    fn save(&mut self, i: usize, root: &str) -> Result<Vec<u8>, String> {
        let path = "sys/storage/raft/snapshot";
        let a = self.ask_until(i, Operation::Read, path, root, Value::Null, |a| a.code == Code::Ok)?;
        match &a.body {
            Body::Raw(r) => Ok(r.body.to_vec()),
            _ => Err(format!("a snapshot is no file: {}", json_of(&a))),
        }
    }

    fn new(seed: u64, count: usize) -> Cluster {
        let mut c = Cluster {
            seed,
            rng: SeededEntropy(seed ^ 0x636c_7573_7465_7221),
            now: Now { mono: Mono(1), wall: Wall::from_seconds(1_700_000_000) },
            nodes: Vec::new(),
            packets: BTreeMap::new(),
            next_packet: 0,
            cut: BTreeSet::new(),
            asked: BTreeMap::new(),
            passed: BTreeMap::new(),
            delivered: BTreeSet::new(),
            replies: VecDeque::new(),
            next_tag: 1,
            steps: 0,
            leaders: BTreeMap::new(),
            images: BTreeMap::new(),
            known: Known::default(),
            report: ClusterReport::default(),
            broken: None,
            rough: false,
            outage: false,
            mutant: None,
            nonces: Nonces::default(),
            awaited: None,
            suspect: None,
        };
        for i in 0..count {
            c.nodes.push(Node {
                disk: SimDisk::default(),
                machine: None,
                life: 0,
                raft_id: 0,
                opened: false,
                looked_at: 0,
                skew: 0,
                paused_until: Mono(0),
                coming: None,
                held: Vec::new(),
            });
            // an empty disk always starts
            let _ = c.start(i);
        }
        c
    }

    fn start(&mut self, i: usize) -> Result<(), String> {
        let config = OwnerConfig {
            shards: 1,
            node_id: format!("node{i}"),
            cluster_addr: format!("https://node{i}:8201"),
            api_addr: format!("http://node{i}:8200"),
            segment_bytes: 256 * 1024,
            max_batch_bytes: 64 * 1024,
            checkpoint_log_bytes: 100 * 1024,
            // so few that a node which was away is offered a checkpoint
            trailing_entries: 20,
            provider: Provider::Seeded,
            ..OwnerConfig::default()
        };
        // what the cores of a process share, no other process does
        let vault = Arc::new(Vault::new(registry(), Settings { forwards_by_header: true, ..Settings::default() }));
        let now = self.now_of(i);
        let node = &mut self.nodes[i];
        let found = node.disk.recover().map_err(|e| format!("{}: node{i} does not start: {e}", promise::SERVES))?;
        let owner = match found {
            Some(f) => Owner::restart(config, vault.clone(), f, now),
            None => Owner::blank(config, vault.clone(), now),
        };
        if owner.raft_id() != 0 {
            // a directory with a log is a member, whatever it was before
            node.coming = None;
        }
        let cell = owner.cell();
        let shard = Shard::new(0, vault, cell.clone());
        node.life += 1;
        node.opened = false;
        node.paused_until = Mono(0);
        node.machine = Some(Machine {
            owner,
            shard,
            cell,
            to_owner: VecDeque::new(),
            to_shard: VecDeque::new(),
            next_tick: self.now.mono,
        });
        Ok(())
    }

    /// One node begins, the others join it, and all are unsealed.
    fn form(&mut self) -> Result<(String, String), String> {
        let a = self.ask(0, "sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}))?;
        let v = json_of(&a);
        let key = v["keys_base64"][0].as_str().ok_or_else(|| format!("init: {v}"))?.to_owned();
        let root = v["root_token"].as_str().ok_or("no root token")?.to_owned();
        self.unseal(0, &key)?;
        let a = self.ask(0, "sys/mounts/secret", &root, json!({"type": "kv", "options": {"version": "2"}}))?;
        if a.code != Code::NoContent {
            return Err(format!("mount: {}", json_of(&a)));
        }
        let cluster = self.nodes[0].machine.as_ref().map(|m| m.owner.cluster()).unwrap_or_default();
        for i in 1..self.nodes.len() {
            self.owner_in(i, OwnerIn::Join(cluster));
            self.settle(i);
            let record = MemberRecord {
                name: format!("node{i}"),
                cluster_addr: format!("https://node{i}:8201"),
                api_addr: format!("http://node{i}:8200"),
                voter: true,
                ..MemberRecord::default()
            };
            let raft_id = self.nodes[i].raft_id;
            self.owner_in(0, OwnerIn::Admit(raft_id, Box::new(record)));
            self.settle(0);
            self.wait_for(&format!("node{i} gets the image"), |c| {
                c.nodes[i].machine.as_ref().is_some_and(|m| m.cell.facts.initialized)
            })?;
            self.unseal(i, &key)?;
            self.wait_for(&format!("node{i} votes"), |c| {
                c.nodes[0].machine.as_ref().is_some_and(|m| m.owner.conf_state().voters.contains(&raft_id))
            })?;
        }
        Ok((key, root))
    }

    fn unseal(&mut self, i: usize, key: &str) -> Result<(), String> {
        self.nodes[i].opened = true;
        let a = self.ask(i, "sys/unseal", "", json!({"key": key}))?;
        match json_of(&a)["sealed"] {
            Value::Bool(false) => Ok(()),
            _ => Err(format!("{}: unseal of node{i}: {}", promise::SERVES, json_of(&a))),
        }
    }

    fn wait_for(&mut self, what: &str, done: impl Fn(&Cluster) -> bool) -> Result<(), String> {
        for _ in 0..PATIENCE_STEPS {
            if done(self) {
                return Ok(());
            }
            self.step()?;
        }
        Err(format!("{}: never: {what}", promise::SERVES))
    }

    /// Clients at work while everything goes wrong.
    fn trouble(&mut self, steps: u64, key: &str, root: &str) -> Result<(), String> {
        self.rough = true;
        for _ in 0..steps {
            if self.asked.len() < 16 {
                self.invent(root);
            }
            self.step()?;
            self.hear()?;
            if self.draw(2000) == 0 {
                self.fault(key, root)?;
            }
        }
        self.rough = false;
        Ok(())
    }

    fn fault(&mut self, key: &str, root: &str) -> Result<(), String> {
        let count = self.nodes.len();
        let i = self.draw(count as u64) as usize;
        let down = self.nodes.iter().filter(|n| n.machine.is_none()).count();
        match self.draw(15) {
            14 => self.lose_disk(i),
            0 | 1 if down == 0 || self.draw(4) == 0 => self.crash(i),
            0..=3 => {
                if let Some(i) = self.nodes.iter().position(|n| n.machine.is_none()) {
                    self.start(i)?;
                }
            }
            4 => {
                // one node alone
                self.report.cuts += 1;
                for j in (0..count).filter(|j| *j != i) {
                    self.cut.extend([(i, j), (j, i)]);
                }
            }
            5 => {
                // one direction of one link
                self.report.cuts += 1;
                let j = (i + 1) % count;
                self.cut.insert((i, j));
            }
            6 | 7 => self.cut.clear(),
            8 => {
                let closed = self.nodes.iter().position(|n| n.machine.is_some() && !n.opened);
                if let Some(i) = closed {
                    self.nodes[i].opened = true;
                    self.send(i, Operation::Update, "sys/unseal", "", json!({"key": key}), 0);
                }
            }
            9 | 10 => {
                // a process stands still, the leader rather than another
                let i = self.leader().unwrap_or(i);
                let length = 1_000_000_000 + self.draw(2_000_000_000);
                if self.nodes[i].machine.is_some() {
                    self.report.pauses += 1;
                    self.nodes[i].paused_until = self.now.mono.plus_ns(length);
                    self.suspect = Some((i, self.now.mono.plus_ns(length + 100_000_000)));
                }
            }
            11 => {
                // the leader alone, until the next time that cuts are mended
                let Some(i) = self.leader() else { return Ok(()) };
                self.report.cuts += 1;
                for j in (0..count).filter(|j| *j != i) {
                    self.cut.extend([(i, j), (j, i)]);
                }
                self.suspect = Some((i, self.now.mono.plus_ns(4_000_000_000)));
            }
            12 => {
                // a clock jumps by up to an hour, and all others are right: a majority tells the time
                self.report.jumps += 1;
                let hour = 3_600_000_000_000;
                self.nodes.iter_mut().for_each(|n| n.skew = 0);
                self.nodes[i].skew = i64::try_from(self.draw(2 * hour)).unwrap_or(0) - hour as i64;
            }
            _ if self.nodes[i].machine.is_some() => {
                let tag = self.send(i, Operation::Update, "sys/step-down", root, Value::Null, 0);
                self.asked.insert(tag, (Asked::StepDown, self.steps, i));
            }
            _ => {}
        }
        Ok(())
    }

    /// Who says it is active, the newest of several.
    fn leader(&self) -> Option<usize> {
        let term =
            |n: &Node| n.machine.as_ref()?.owner.raft_status().filter(|s| s.role.is_leader).map(|s| s.role.term);
        (0..self.nodes.len()).filter(|i| term(&self.nodes[*i]).is_some()).max_by_key(|i| term(&self.nodes[*i]))
    }

    /// What its clocks show a node.
    fn now_of(&self, i: usize) -> Now {
        Now { mono: self.now.mono, wall: Wall(self.now.wall.0.saturating_add_signed(self.nodes[i].skew)) }
    }

    fn is_paused(&self, i: usize) -> bool {
        self.nodes[i].paused_until > self.now.mono
    }

    fn crash(&mut self, i: usize) {
        if self.nodes[i].machine.take().is_none() {
            return;
        }
        self.nodes[i].held.clear();
        self.nodes[i].paused_until = Mono(0);
        self.outage |= self.nodes.iter().all(|n| n.machine.is_none());
        let mut rng = SeededEntropy(self.rng.next_u64());
        let node = &mut self.nodes[i];
        node.disk.crash(&mut rng);
        node.opened = false;
        self.report.crashes += 1;
        self.passed.retain(|_, (from, ..)| *from != i);
        let lost: Vec<u64> = self.asked.iter().filter(|(_, (_, _, at))| *at == i).map(|(t, _)| *t).collect();
        for tag in lost {
            self.forget(tag);
        }
        for part in self.nodes[i].disk.contents() {
            if holds_canary(part) {
                self.broken = Some(format!("{}: a secret stands on the disk of node{i}", promise::CLEAR));
            }
        }
    }

    /// A disk is emptied, or rots where it is found out, while its node is down. One at a time: raft survives a minority.
    fn lose_disk(&mut self, i: usize) {
        let ids: BTreeSet<u64> = self.nodes.iter().map(|n| n.raft_id).collect();
        let whole = |m: &Machine| {
            let conf = m.owner.conf_state();
            let voters: BTreeSet<u64> = conf.voters.iter().copied().collect();
            voters == ids && conf.learners.is_empty() && conf.voters_outgoing.is_empty()
        };
        // everybody votes, and everybody knows it: nobody still needs the disk that goes
        let all_vote = self.nodes.iter().all(|n| n.coming.is_none() && n.machine.as_ref().is_none_or(whole));
        let leads = self.leader().and_then(|l| self.nodes[l].machine.as_ref());
        if !all_vote || !leads.is_some_and(whole) || self.leader() == Some(i) {
            return;
        }
        self.crash(i);
        let mut rng = SeededEntropy(self.rng.next_u64());
        let new = 2 + (self.rng.next_u64() >> 2);
        let node = &mut self.nodes[i];
        let before = node.disk.clone();
        let found_out = rng.next_u64().is_multiple_of(2) && {
            node.disk.rot(&mut rng);
            node.disk.recover().is_err()
        };
        let emptied = rng.next_u64().is_multiple_of(2);
        if !found_out && !emptied {
            // what no checksum shows is the active node's to remember, and there may be none
            node.disk = before;
            return;
        }
        node.disk = SimDisk::default();
        node.coming = Some((node.raft_id, new, self.now.mono));
        node.raft_id = 0;
        node.looked_at = 0;
        self.report.losses += 1;
    }

    /// A node that lost its disk asks whoever leads, as the cluster port would.
    fn ask_to_come_back(&mut self, i: usize) {
        let Some((old, new, _)) = self.nodes[i].coming.filter(|(.., at)| *at <= self.now.mono) else { return };
        self.nodes[i].coming = Some((old, new, self.now.mono.plus_ns(300_000_000)));
        let Some(l) = self.leader() else { return };
        let parted =
            self.cut.contains(&(i, l)) || self.cut.contains(&(l, i)) || self.is_paused(l) || self.is_paused(i);
        if parted || self.nodes[i].machine.is_none() || self.nodes[i].raft_id != 0 {
            return;
        }
        let asks = Returning { last: Index(0), replace: Some(new) };
        self.owner_in(l, OwnerIn::Returning(i as u64, old, asks));
        self.settle(l);
    }

    /// The faults end: everything starts, is connected and unsealed, and serves.
    fn heal(&mut self, key: &str, root: &str) -> Result<(), String> {
        self.cut.clear();
        self.nodes.iter_mut().for_each(|n| n.paused_until = n.paused_until.min(self.now.mono));
        for i in 0..self.nodes.len() {
            if self.nodes[i].machine.is_none() {
                self.start(i)?;
            }
        }
        // who lost its disk comes back when somebody leads, and that may need everybody else unsealed
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|i| self.nodes[*i].coming.is_some());
        for i in order {
            self.wait_for(&format!("node{i} knows its seal"), |c| {
                c.nodes[i].machine.as_ref().is_some_and(|m| m.cell.facts.initialized)
            })?;
            if self.nodes[i].machine.as_ref().is_some_and(|m| m.cell.facts.sealed) {
                self.unseal(i, key)?;
            }
        }
        self.wait_for("one node is active", |c| {
            c.nodes.iter().any(|n| n.machine.as_ref().is_some_and(|m| m.cell.facts.active))
        })?;
        let mut quiet = 0;
        while !self.asked.is_empty() {
            self.step()?;
            self.hear()?;
            quiet += 1;
            if quiet > PATIENCE_STEPS {
                return Err(format!("{}: calls are never answered", promise::SERVES));
            }
        }
        // a standby shows what was acknowledged within its bound, unless it is asked for more
        for _ in 0..=STALE_NS / STEP_NS {
            self.step()?;
        }
        for i in 0..self.nodes.len() {
            for k in 0..KEYS {
                let allowed = self.known.registers.get(&k).map(Register::values).unwrap_or_default();
                let a = self.ask_until(i, Operation::Read, &format!("secret/data/k{k}"), root, Value::Null, |a| {
                    matches!(a.code, Code::Ok | Code::NotFound)
                })?;
                let n = value_of(&a)?;
                if !allowed.contains(&n) {
                    let name = promise::ACKNOWLEDGED;
                    return Err(format!("{name}: after healing node{i} reads k{k} as {n}, not one of {allowed:?}"));
                }
            }
            let body = json!({"data": {"s": CANARY}});
            self.ask_until(i, Operation::Update, "secret/data/last", root, body, |a| a.code == Code::Ok)?;
        }
        // nobody is behind for good
        let everybody = |c: &Cluster| {
            let at = |n: &Node| n.machine.as_ref().map_or(Index(0), |m| m.owner.version().index());
            c.nodes.iter().all(|n| at(n) == at(&c.nodes[0]))
        };
        self.wait_for("all nodes are level", everybody)?;
        let images: BTreeSet<u64> = self.nodes.iter().filter_map(|n| n.machine.as_ref()).map(image_hash).collect();
        match images.len() {
            1 => Ok(()),
            n => Err(format!("{}: {n} different images at one index", promise::IMAGES)),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    /// A client thinks of something, and asks any node that runs.
    fn invent(&mut self, root: &str) {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].machine.is_some()).collect();
        if up.is_empty() {
            return;
        }
        let mut i = up[self.draw(up.len() as u64) as usize];
        let (key, mut pick, mut suspected) = (self.draw(KEYS), self.draw(100), false);
        // what a deposed leader says shows only to who reads from it, after others were written through
        if let Some((suspect, until)) = self.suspect
            && self.now.mono < until
        {
            if up.contains(&suspect) && self.draw(3) == 0 {
                (i, pick, suspected) = (suspect, 60, true);
            } else if i == suspect && up.len() > 1 {
                i = up.iter().copied().find(|j| *j != suspect).unwrap_or(i);
            }
        }
        let path = format!("secret/data/k{key}");
        let root = root.to_owned();
        let mut headers = Headers::default();
        let (asked, op, path, token, body, wrap) = match pick {
            0..40 => {
                let r = self.known.registers.entry(key).or_default();
                if r.writing {
                    return;
                }
                r.tried += 1;
                r.writing = true;
                r.maybe.insert(r.tried);
                let n = r.tried;
                // reads under way may show it from now on
                for (asked, ..) in self.asked.values_mut() {
                    if let Asked::Read(k, allowed, _) = asked
                        && *k == key
                    {
                        allowed.insert(n);
                    }
                }
                let body = json!({"data": {"n": n, "secret": CANARY, "again": n}});
                (Asked::Write(key, n), Operation::Update, path, root, body, 0)
            }
            40..50 => {
                let body = json!({"data": {"s": CANARY}});
                (Asked::Hot, Operation::Update, "secret/data/hot".into(), root, body, 0)
            }
            50..75 => {
                let now = self.now.mono;
                let demanding = suspected || self.draw(3) > 0;
                let r = self.known.registers.entry(key).or_default();
                let (allowed, name) = match r.position.as_ref().filter(|_| demanding && !suspected) {
                    // what a client was told of it finds on every node, or is told that it is not there yet
                    Some(position) => {
                        headers.push("x-vault-index", position);
                        (r.values(), promise::POSITIONS)
                    }
                    None if demanding => {
                        headers.push("x-vault-forward", "active-node");
                        (r.values(), promise::READS)
                    }
                    None => (r.values_of_late(now), promise::BOUND),
                };
                (Asked::Read(key, allowed, name), Operation::Read, path, root, Value::Null, 0)
            }
            75..80 => {
                let body = json!({"policies": ["default"]});
                (Asked::Create, Operation::Update, "auth/token/create".into(), root, body, 0)
            }
            80..86 if !self.known.tokens.is_empty() => {
                let t = self.draw(self.known.tokens.len() as u64) as usize;
                let text = self.known.tokens[t].0.clone();
                // what was revoked before the call began must be refused, by a standby within its bound
                let strict = self.draw(2) == 0;
                if strict {
                    headers.push("x-vault-forward", "active-node");
                }
                let grace = if strict { 0 } else { STALE_NS };
                let dead = self.known.tokens[t].1.is_some_and(|at| at.plus_ns(grace) < self.now.mono);
                let asked = if dead { Asked::Use(t) } else { Asked::Use(usize::MAX) };
                (asked, Operation::Read, "auth/token/lookup-self".into(), text, Value::Null, 0)
            }
            86..90 if !self.known.tokens.is_empty() => {
                let t = self.draw(self.known.tokens.len() as u64) as usize;
                let body = json!({"token": self.known.tokens[t].0});
                (Asked::Revoke(t), Operation::Update, "auth/token/revoke".into(), root, body, 0)
            }
            90..95 => {
                let body = json!({"hidden": CANARY});
                (Asked::Wrap, Operation::Update, "sys/wrapping/wrap".into(), root, body, 600)
            }
            95.. if !self.known.wrappings.is_empty() => {
                let w = self.draw(self.known.wrappings.len() as u64) as usize;
                let text = self.known.wrappings[w].0.clone();
                (Asked::Unwrap(w), Operation::Update, "sys/wrapping/unwrap".into(), text, Value::Null, 0)
            }
            _ => return,
        };
        let tag = self.send_with(headers, i, op, &path, &token, body, wrap);
        self.asked.insert(tag, (asked, self.steps, i));
    }

    /// An answer that never came: what was asked may or may not have been done.
    fn forget(&mut self, tag: u64) {
        if let Some((Asked::Write(key, _), ..)) = self.asked.remove(&tag) {
            self.known.registers.entry(key).or_default().writing = false;
        }
    }

    /// Clients take note of their answers.
    fn hear(&mut self) -> Result<(), String> {
        let late: Vec<u64> =
            self.asked.iter().filter(|(_, (_, at, _))| self.steps - at > CLIENT_STEPS).map(|(t, _)| *t).collect();
        for tag in late {
            self.forget(tag);
        }
        while let Some((tag, at, reply)) = self.replies.pop_front() {
            let Some((asked, ..)) = self.asked.remove(&tag) else { continue };
            let ok = matches!(reply.code, Code::Ok | Code::NoContent);
            self.report.acknowledged += u64::from(ok);
            match asked {
                Asked::Write(key, n) => {
                    let r = self.known.registers.entry(key).or_default();
                    r.writing = false;
                    if ok {
                        r.maybe.remove(&n);
                        r.before.push((r.acknowledged, self.now.mono));
                        r.acknowledged = n;
                        r.position = reply
                            .headers
                            .iter()
                            .find(|(name, _)| *name == "x-vault-index")
                            .map(|(_, position)| position.clone());
                    }
                }
                Asked::Read(key, allowed, name) if ok || reply.code == Code::NotFound => {
                    let n = value_of(&reply)?;
                    if !allowed.contains(&n) {
                        return Err(format!("{name}: node{at} reads k{key} as {n}, which is none of {allowed:?}"));
                    }
                }
                Asked::Hot if ok => {
                    let version = json_of(&reply)["data"]["version"].as_u64().unwrap_or(0);
                    if !self.known.hot.insert(version) {
                        let name = promise::VERSIONS;
                        return Err(format!("{name}: two writers of one key were told version {version}"));
                    }
                }
                Asked::Create if ok => {
                    let v = json_of(&reply);
                    self.known.tokens.push((v["auth"]["client_token"].as_str().unwrap_or_default().to_owned(), None));
                }
                Asked::Use(t) if ok && t != usize::MAX => {
                    return Err(format!("{}: a revoked token lives on node{at}", promise::REVOKED));
                }
                Asked::Revoke(t) if ok => {
                    self.known.tokens[t].1.get_or_insert(self.now.mono);
                }
                Asked::Wrap if ok => {
                    let v = json_of(&reply);
                    self.known.wrappings.push((v["wrap_info"]["token"].as_str().unwrap_or_default().to_owned(), 0));
                }
                Asked::Unwrap(w) if ok => {
                    self.known.wrappings[w].1 += 1;
                    if self.known.wrappings[w].1 > 1 {
                        return Err(format!("{}: a wrapping token opened twice", promise::UNWRAP));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, i: usize, op: Operation, path: &str, token: &str, body: Value, wrap_ttl: u64) -> u64 {
        self.send_with(Headers::default(), i, op, path, token, body, wrap_ttl)
    }

    #[allow(clippy::too_many_arguments)] // a request has as many parts
    fn send_with(
        &mut self,
        headers: Headers,
        i: usize,
        op: Operation,
        path: &str,
        token: &str,
        body: Value,
        wrap_ttl: u64,
    ) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let data = match body {
            Value::Object(m) => m,
            _ => Map::new(),
        };
        let call = Call {
            id: entropy::uuid4(&mut self.rng),
            op,
            path: path.to_owned(),
            namespace: None,
            token: (!token.is_empty()).then(|| Secret::new(token.to_owned())),
            no_body: data.is_empty(),
            data: data.into(),
            remote: None,
            remote_port: 0,
            wrap_ttl,
            wrap_jwt: false,
            headers,
            raw_body: None,
            peer_certificates: Default::default(),
            mfa: Vec::new(),
        };
        self.call(i, tag, call, false);
        tag
    }

    fn call(&mut self, i: usize, tag: u64, mut call: Call, from_peer: bool) {
        mutant::heard(self.mutant, &mut call);
        if self.is_paused(i) {
            self.nodes[i].held.push((tag, call, from_peer));
            return;
        }
        let now = self.now_of(i);
        let Some(m) = &mut self.nodes[i].machine else { return };
        let mut out = Vec::new();
        m.shard.observe(m.cell.clone());
        match from_peer {
            true => m.shard.call_from_peer(tag, call, now, &mut self.rng, &mut out),
            false => m.shard.call(tag, call, now, &mut self.rng, &mut out),
        }
        let at_once = out.iter().any(|o| matches!(o, ShardOut::Reply(_, reply) if reply.code == Code::Ok));
        self.report.stood_by += u64::from(at_once && !m.cell.facts.active);
        self.shard_out(i, out);
    }

    fn ask(&mut self, i: usize, path: &str, token: &str, body: Value) -> Result<Reply, String> {
        let tag = self.send(i, Operation::Update, path, token, body, 0);
        self.answer_to(tag)?.ok_or_else(|| format!("{}: {path} on node{i} is never answered", promise::SERVES))
    }

    fn answer_to(&mut self, tag: u64) -> Result<Option<Reply>, String> {
        for _ in 0..CLIENT_STEPS {
            if let Some(n) = self.replies.iter().position(|(t, ..)| *t == tag)
                && let Some((_, _, reply)) = self.replies.remove(n)
            {
                return Ok(Some(reply));
            }
            self.step()?;
        }
        Ok(None)
    }

    /// Asks again until the answer is good.
    fn ask_until(
        &mut self,
        i: usize,
        op: Operation,
        path: &str,
        token: &str,
        body: Value,
        good: impl Fn(&Reply) -> bool,
    ) -> Result<Reply, String> {
        let mut last = String::new();
        for _ in 0..50 {
            let tag = self.send(i, op, path, token, body.clone(), 0);
            match self.answer_to(tag)? {
                Some(reply) if good(&reply) => return Ok(reply),
                Some(reply) => last = format!("{:?} {}", reply.code, json_of(&reply)),
                None => last = "no answer".into(),
            }
            for _ in 0..500 {
                self.step()?;
            }
        }
        Err(format!("{}: after healing node{i} does not serve {path}: {last}", promise::SERVES))
    }

    /// One thing happens, somewhere.
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        self.now.mono = self.now.mono.plus_ns(STEP_NS);
        self.now.wall = self.now.wall.plus_ns(STEP_NS);
        while let Some(first) = self.packets.first_entry()
            && first.key().0 <= self.now.mono.0
        {
            let packet = first.remove();
            self.arrive(packet);
        }
        for i in 0..self.nodes.len() {
            // who wakes up answers what waits in its sockets first: the worst of all orders
            if !self.nodes[i].held.is_empty() && !self.is_paused(i) {
                for (tag, call, from_peer) in std::mem::take(&mut self.nodes[i].held) {
                    self.call(i, tag, call, from_peer);
                }
            }
            // no tick is caught up: a late one is one
            let late = self.rng.next_u64() % 2_000_000;
            let paused = self.is_paused(i);
            if let Some(m) = &mut self.nodes[i].machine
                && m.next_tick <= self.now.mono
                && !paused
            {
                m.next_tick = self.now.mono.plus_ns(TICK_NS + late);
                m.to_owner.push_back(OwnerIn::Tick);
                if m.shard.has_parked() {
                    m.to_shard.push_back(ShardIn::Retry);
                }
            }
        }
        for i in 0..self.nodes.len() {
            self.ask_to_come_back(i);
        }
        let i = self.draw(self.nodes.len() as u64) as usize;
        match self.draw(4) {
            _ if self.is_paused(i) => {}
            0 => {
                let take = 1 + self.draw(8);
                for _ in 0..take {
                    let next = self.nodes[i].machine.as_mut().and_then(|m| m.to_owner.pop_front());
                    let Some(input) = next else { break };
                    self.owner_in(i, input);
                }
                self.settle(i);
            }
            1 => {
                let now = self.now_of(i);
                for _ in 0..4 {
                    let Some(m) = &mut self.nodes[i].machine else { break };
                    let Some(input) = m.to_shard.pop_front() else { break };
                    let mut out = Vec::new();
                    m.shard.observe(m.cell.clone());
                    m.shard.step(input, now, &mut self.rng, &mut out);
                    self.shard_out(i, out);
                }
            }
            _ => {
                let beside = self.draw(2) == 0;
                if self.nodes[i].machine.is_some()
                    && self.nodes[i].disk.waiting() > 0
                    && let Some(done) = self.nodes[i].disk.complete(beside)
                {
                    let input = match done {
                        Done::Disk(id, r) => OwnerIn::DiskDone(id, r),
                        Done::File(id, r) => OwnerIn::FileDone(id, r),
                    };
                    self.owner_in(i, input);
                    self.settle(i);
                }
            }
        }
        match self.broken.take() {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    fn owner_in(&mut self, i: usize, input: OwnerIn) {
        let now = self.now_of(i);
        let Some(m) = &mut self.nodes[i].machine else { return };
        let mut out = Vec::new();
        m.owner.step(input, now, &mut self.rng, &mut out);
        self.owner_out(i, out);
    }

    fn settle(&mut self, i: usize) {
        let Some(m) = &mut self.nodes[i].machine else { return };
        let mut out = Vec::new();
        m.owner.settle(&mut self.rng, &mut out);
        self.nodes[i].raft_id = m.owner.raft_id();
        self.owner_out(i, out);
        self.look(i);
    }

    /// What must hold after every step of a node.
    fn look(&mut self, i: usize) {
        let Some(m) = &self.nodes[i].machine else { return };
        let id = self.nodes[i].raft_id;
        if let Some(role) = m.owner.raft_status().map(|s| s.role).filter(|r| r.is_leader) {
            let first = *self.leaders.entry(role.term.0).or_insert(id);
            if first != id {
                self.broken = Some(format!("{}: two leaders in term {}", promise::LEADERS, role.term));
            }
        }
        let index = m.owner.version().index().0;
        let seen = std::mem::replace(&mut self.nodes[i].looked_at, index);
        let Some(m) = &self.nodes[i].machine else { return };
        if index.is_multiple_of(8) && index > seen {
            let hash = image_hash(m);
            match self.images.insert(index, hash) {
                Some(other) if other != hash => {
                    self.broken =
                        Some(format!("{}: node{i} has another image at {index} than one before", promise::IMAGES));
                }
                Some(_) => self.report.compared += 1,
                None => {}
            }
        }
        if m.cell.facts.active {
            // a twentieth of all the time that passed is what a clock may add or take
            let (shown, bound) = (m.cell.clock.now(self.now), self.now.mono.0 / 20 + CLOCK_SLACK_NS);
            let ahead = shown.since(self.now.wall);
            if ahead > bound {
                self.broken =
                    Some(format!("{}: node{i} is {} ms ahead of the time", promise::TIME, ahead / 1_000_000));
            }
            // after an outage of all, a clock that stands back may be what two of three go by
            let behind = self.now.wall.since(shown);
            if behind > bound && !self.outage {
                self.broken =
                    Some(format!("{}: node{i} is {} ms behind the time", promise::TIME, behind / 1_000_000));
            }
        }
        if m.cell.keys.is_some() && !self.nodes[i].opened {
            self.broken = Some(format!("{}: node{i} has keys that nobody gave it", promise::SEALED));
        }
    }

    fn owner_out(&mut self, i: usize, out: Vec<OwnerOut>) {
        for o in out {
            let Some(m) = &mut self.nodes[i].machine else { return };
            match o {
                OwnerOut::Disk(op) => self.nodes[i].disk.disk(op),
                OwnerOut::File(op) => self.nodes[i].disk.file(op),
                OwnerOut::Pack(id, packing) => m.to_owner.push_back(OwnerIn::Packed(id, Box::new(packing.pack()))),
                OwnerOut::Publish(cell) => m.cell = mutant::published(self.mutant, cell),
                OwnerOut::Settled(_, t, settled) => {
                    let settled = mutant::settled(self.mutant, settled, m.owner.version().index());
                    m.to_shard.push_back(ShardIn::Settled(t, settled));
                }
                OwnerOut::Reached(_, t, reached) => m.to_shard.push_back(ShardIn::Reached(t, reached)),
                OwnerOut::TipDone(_, t, done) => m.to_shard.push_back(ShardIn::TipDone(t, done)),
                OwnerOut::ControlDone(_, t, reply) => m.to_shard.push_back(ShardIn::ControlDone(t, reply)),
                OwnerOut::OperateDone(_, t, result) if self.awaited.as_ref().is_some_and(|(a, _)| *a == t) => {
                    let done = matches!(result, SideResult::Json(_));
                    self.awaited = Some((t, Some(done)));
                }
                OwnerOut::OperateDone(_, t, result) => m.to_shard.push_back(ShardIn::SideDone(t, result)),
                OwnerOut::Withdraw(sequence) => m.to_shard.push_back(ShardIn::Withdraw(sequence)),
                OwnerOut::Side(job, op) => m.to_owner.push_back(OwnerIn::SideDone(job, perform(&op))),
                OwnerOut::Serve(_, t, ..) => {
                    let result = SideResult::Failed("the simulated world knows no machine".into());
                    m.to_shard.push_back(ShardIn::SideDone(t, result));
                }
                OwnerOut::Snapshot(_, t, job) => {
                    m.to_shard.push_back(ShardIn::SideDone(t, ringfence_node::snapshot::build(&job)));
                }
                OwnerOut::KeepSnapshot(number, job, _) => {
                    m.to_owner.push_back(OwnerIn::SideDone(number, crate::kept(&job)));
                }
                OwnerOut::Unpack(s, t, archive, force) => {
                    let unpacked = ringfence_node::snapshot::unpack(&archive, force);
                    m.to_owner.push_back(OwnerIn::Unpacked(s, t, unpacked));
                }
                OwnerOut::ReadChunk(id, chunk) => {
                    let node = &mut self.nodes[i];
                    let bytes = node.disk.chunk(chunk);
                    if let Some(m) = &mut node.machine {
                        m.to_owner.push_back(OwnerIn::ChunkRead(id, bytes));
                    }
                }
                OwnerOut::Load(number, loading) => {
                    self.report.installs += 1;
                    m.to_owner.push_back(OwnerIn::Loaded(number, Box::new(Loaded(loading.load()))));
                }
                OwnerOut::Send(to, message) => {
                    if let Some(j) = self.nodes.iter().position(|n| n.raft_id == to && to != 0) {
                        self.post(i, j, &message);
                    }
                }
                OwnerOut::Log(_, text) if text == "a snapshot was restored" => self.report.restores += 1,
                OwnerOut::Log(..) | OwnerOut::Members(..) | OwnerOut::AskLeader(..) => {}
                OwnerOut::Returned(j, said) => self.came_back(j as usize, *said),
                OwnerOut::Halt(why) | OwnerOut::Lost(why) => {
                    self.broken = Some(format!("{}: node{i} halted: {why}", promise::SERVES));
                }
            }
        }
    }

    /// The cluster has answered a node that lost its disk.
    fn came_back(&mut self, i: usize, said: Returned) {
        let (Some((_, new, _)), Returned::Taken { cluster, members }) = (self.nodes[i].coming, said) else { return };
        if let Some(m) = &mut self.nodes[i].machine
            && m.owner.raft_id() == 0
        {
            m.owner.come_back(new, members);
            self.owner_in(i, OwnerIn::Join(cluster));
            self.settle(i);
        }
    }

    /// Puts a message on the wire: it may be lost, doubled, late.
    fn post(&mut self, from: usize, to: usize, message: &PeerMessage) {
        let bytes = message.encode();
        let replicated = matches!(message, PeerMessage::Raft(_) | PeerMessage::Chunk(..));
        if replicated && holds_canary(&bytes) {
            self.broken = Some(format!("{}: a secret is replicated in the clear", promise::CLEAR));
        }
        if self.cut.contains(&(from, to)) || (self.rough && self.draw(100) == 0) {
            return;
        }
        let copies = if self.rough && self.draw(100) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let slow = if self.rough && self.draw(50) == 0 { 150_000_000 } else { 4_000_000 };
            let at = self.now.mono.0 + 100_000 + self.draw(slow);
            self.next_packet += 1;
            let life = self.nodes[from].life;
            self.packets.insert((at, self.next_packet), Packet { from, to, life, bytes: bytes.clone() });
        }
    }

    fn arrive(&mut self, p: Packet) {
        let (id, life) = (self.nodes[p.from].raft_id, self.nodes[p.from].life);
        let Ok(message) = PeerMessage::decode(&p.bytes) else {
            self.broken = Some(format!("{}: a node sends what nobody can read", promise::SERVES));
            return;
        };
        match message {
            PeerMessage::Forward(number, call) => {
                // a connection that broke says so; a call is never delivered twice
                if life != p.life || !self.delivered.insert((p.from, life, number)) {
                    return;
                }
                let tag = self.next_tag;
                self.next_tag += 1;
                self.passed.insert(tag, (p.from, life, number));
                self.report.forwarded += 1;
                self.call(p.to, tag, *call, true);
            }
            PeerMessage::NotDone(number) => {
                if let Some(m) = &mut self.nodes[p.to].machine {
                    m.to_shard.push_back(ShardIn::Forwarded(Ticket(number), Forwarded::NotSent));
                }
            }
            PeerMessage::Forwarded(number, index, reply) => {
                if let Some(m) = &mut self.nodes[p.to].machine {
                    m.to_shard.push_back(ShardIn::Forwarded(Ticket(number), Forwarded::Answer(*reply, index)));
                }
            }
            other => {
                let other = mutant::told(self.mutant, other, self.now_of(p.to));
                if let Some(m) = &mut self.nodes[p.to].machine {
                    m.to_owner.push_back(OwnerIn::Peer(id, other));
                }
            }
        }
    }

    fn shard_out(&mut self, i: usize, out: Vec<ShardOut>) {
        let id = ShardId(0);
        for o in out {
            if let ShardOut::Reply(tag, reply) = o {
                self.replied(i, tag, reply);
                continue;
            }
            if let ShardOut::NotDone(tag) = o {
                if let Some((from, life, number)) = self.passed.remove(&tag)
                    && self.nodes[from].life == life
                {
                    self.post(i, from, &PeerMessage::NotDone(number));
                }
                continue;
            }
            let Some(m) = &mut self.nodes[i].machine else { return };
            match o {
                ShardOut::Reply(..) | ShardOut::NotDone(..) => {}
                ShardOut::Propose(mut p) => {
                    let known = |issuer: u32| m.owner.version().get(&issuer_key(issuer)).is_some();
                    if let Some(stamp) = self.nonces.note(&p.batch, known) {
                        self.broken = Some(format!("{}: node{i} seals twice under {stamp:02x?}", promise::NONCES));
                    }
                    if self.mutant == Some(Mutant::LostGuard) {
                        p.reads = Default::default();
                    }
                    m.to_owner.push_back(OwnerIn::Propose(id, p));
                }
                ShardOut::Tip(c) => m.to_owner.push_back(OwnerIn::Tip(id, c)),
                ShardOut::Owner(t, op) => m.to_owner.push_back(OwnerIn::Operate(id, t, op)),
                ShardOut::Control(t, c) => m.to_owner.push_back(OwnerIn::Control(id, t, c)),
                ShardOut::Withdrawn(s) => m.to_owner.push_back(OwnerIn::Withdrawn(id, s)),
                ShardOut::Side(t, op) => m.to_shard.push_back(ShardIn::SideDone(t, perform(&op))),
                ShardOut::Login(note) => m.to_owner.push_back(OwnerIn::Login(note)),
                ShardOut::Await(t, index, what) => m.to_owner.push_back(OwnerIn::Await(id, t, index, what)),
                ShardOut::Audit(t, _) => m.to_shard.push_back(ShardIn::AuditDone(t, true)),
                ShardOut::Fault(_, cause) => {
                    self.broken = Some(format!("{}: internal error on node{i}: {cause}", promise::SERVES))
                }
                ShardOut::Forward(t, to, call) => {
                    if let Some(j) = self.nodes.iter().position(|n| n.raft_id == to) {
                        self.post(i, j, &PeerMessage::Forward(t.0, call));
                    }
                }
            }
        }
    }

    fn replied(&mut self, i: usize, tag: u64, reply: Reply) {
        if let Some((from, life, number)) = self.passed.remove(&tag) {
            if self.nodes[from].life == life {
                let index = self.nodes[i].machine.as_ref().map_or(Index(0), |m| m.shard.applied());
                self.post(i, from, &PeerMessage::Forwarded(number, index, Box::new(reply)));
            }
            return;
        }
        if let Body::Json(b) = &reply.body
            && holds_canary(b)
            && !self.nodes[i].opened
        {
            self.broken = Some(format!("{}: node{i} is sealed and answers data", promise::SEALED));
        }
        let mut h = self.report.digest ^ tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed;
        if let Body::Json(b) = &reply.body {
            h = fold(h, b);
        }
        self.report.digest = h;
        self.replies.push_back((tag, i, reply));
    }
}

impl Register {
    /// Everything that a read which begins now may show.
    fn values(&self) -> BTreeSet<u64> {
        self.maybe.iter().copied().chain([self.acknowledged]).collect()
    }

    /// As [`Register::values`], of a standby: what was the newest within its bound as well.
    fn values_of_late(&self, now: Mono) -> BTreeSet<u64> {
        let late = self.before.iter().rev().take_while(|(_, until)| until.plus_ns(STALE_NS) >= now);
        late.map(|(n, _)| *n).chain(self.values()).collect()
    }
}

fn holds_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|b| b == CANARY.as_bytes())
}

pub(crate) fn fold(mut h: u64, bytes: &[u8]) -> u64 {
    for chunk in bytes.chunks(8) {
        let mut w = [0u8; 8];
        w[..chunk.len()].copy_from_slice(chunk);
        h = (h ^ u64::from_le_bytes(w)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
    h
}

fn image_hash(m: &Machine) -> u64 {
    let mut h = m.owner.version().log_time().0;
    for (key, value) in m.owner.version().scan(Bound::Unbounded, Bound::Unbounded) {
        h = fold(fold(h, key), value);
    }
    h
}

fn json_of(reply: &Reply) -> Value {
    match &reply.body {
        Body::Json(b) => serde_json::from_slice(b).unwrap_or(Value::Null),
        Body::Raw(r) => serde_json::from_slice(&r.body).unwrap_or(Value::Null),
        Body::Empty => Value::Null,
    }
}

/// The value of a register, checked to be whole; 0 if it was never written.
fn value_of(reply: &Reply) -> Result<u64, String> {
    if reply.code == Code::NotFound {
        return Ok(0);
    }
    let v = json_of(reply);
    let data = &v["data"]["data"];
    match (data["n"].as_u64(), data["again"].as_u64()) {
        (Some(n), Some(again)) if n == again && data["secret"] == CANARY => Ok(n),
        _ => Err(format!("{}: a register holds half a write or none: {:?} {v}", promise::ACKNOWLEDGED, reply.code)),
    }
}
