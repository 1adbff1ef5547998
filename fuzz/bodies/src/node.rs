//! A whole node in memory (an owner, two shards, a simulated disk), for the targets that send it requests or drive its
//! inputs in any order. It begins each run from the same prepared disk.

use crate::input::Input;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Mono, Now, Secret, Wall, entropy};
use ringfence_node::{
    Body, Call, Code, Headers, Operation, Owner, OwnerConfig, OwnerIn, OwnerOut, Provider, Reply, Settings, Shard,
    ShardId, ShardIn, ShardOut, SideResult, Vault, perform, registry, snapshot,
};
use ringfence_sim::disk::{Done, SimDisk};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const SHARDS: u16 = 2;
/// Rounds within which a healthy node has answered everything.
const PATIENCE: usize = 20_000;

/// A prepared disk and what opens it.
#[derive(Clone)]
pub struct Prepared {
    disk: SimDisk,
    vault: Arc<Vault>,
    key: String,
    /// The root token.
    pub root: String,
}

/// See the module text.
pub struct Node {
    rng: SeededEntropy,
    now: Now,
    vault: Arc<Vault>,
    owner: Owner,
    shards: Vec<Shard>,
    cell: Arc<ringfence_node::Cell>,
    to_owner: VecDeque<OwnerIn>,
    to_shard: Vec<VecDeque<ShardIn>>,
    disk: SimDisk,
    replies: BTreeMap<u64, Reply>,
    asked: u64,
    stopped: Option<String>,
}

impl Prepared {
    /// Initialises a node, opens it and mounts what requests may reach.
    pub fn new() -> Prepared {
        let vault = Arc::new(Vault::new(registry(), Settings::default()));
        let mut node = Node::over(vault.clone(), SimDisk::default());
        let init = node.must("sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}));
        let text = |name: &str| init[name].as_str().map(str::to_owned);
        let key = init["keys_base64"][0].as_str().expect("sys/init answers a key").to_owned();
        let root = text("root_token").expect("sys/init answers a token");
        node.must("sys/unseal", "", json!({"key": key}));
        node.must("sys/mounts/secret", &root, json!({"type": "kv", "options": {"version": "2"}}));
        node.must("sys/mounts/kv1", &root, json!({"type": "kv", "options": {"version": "1"}}));
        node.must("sys/mounts/database", &root, json!({"type": "database"}));
        node.must("sys/auth/userpass", &root, json!({"type": "userpass"}));
        node.must("sys/auth/approle", &root, json!({"type": "approle"}));
        node.must("auth/approle/role/r", &root, json!({"token_policies": "default"}));
        node.must("secret/data/a", &root, json!({"data": {"k": "v"}}));
        node.must("kv1/a", &root, json!({"k": "v"}));
        node.quiet();
        Prepared { disk: node.disk, vault, key, root }
    }

    /// The node started from this disk and opened.
    pub fn start(&self) -> Node {
        let mut node = Node::over(self.vault.clone(), self.disk.clone());
        node.open(&self.key);
        node
    }
}

impl Default for Prepared {
    fn default() -> Prepared {
        Prepared::new()
    }
}

impl Node {
    fn over(vault: Arc<Vault>, disk: SimDisk) -> Node {
        let now = Now { mono: Mono(1), wall: Wall::from_seconds(1_800_000_000) };
        let config = OwnerConfig {
            shards: SHARDS,
            segment_bytes: 256 * 1024,
            max_batch_bytes: 64 * 1024,
            checkpoint_log_bytes: 100 * 1024,
            provider: Provider::Seeded,
            ..OwnerConfig::default()
        };
        let owner = match disk.recover().expect("a crash leaves a disk that can be read") {
            Some(found) => Owner::restart(config, vault.clone(), found, now),
            None => Owner::blank(config, vault.clone(), now),
        };
        let cell = owner.cell();
        Node {
            rng: SeededEntropy(11),
            now,
            shards: (0..SHARDS).map(|i| Shard::new(i, vault.clone(), cell.clone())).collect(),
            vault,
            owner,
            cell,
            to_owner: VecDeque::new(),
            to_shard: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            disk,
            replies: BTreeMap::new(),
            asked: 0,
            stopped: None,
        }
    }

    /// Power is cut and comes back; what was in flight is torn as `noise` says.
    fn crash(&mut self, noise: u64) {
        let mut disk = std::mem::take(&mut self.disk);
        disk.crash(&mut SeededEntropy(noise));
        disk.full = false;
        let (asked, now) = (self.asked, self.now);
        *self = Node::over(self.vault.clone(), disk);
        (self.asked, self.now) = (asked, now);
    }

    /// Waits until the node knows that it was initialised, and unseals it.
    fn open(&mut self, key: &str) {
        for _ in 0..PATIENCE {
            if self.cell.facts.initialized && self.owner.is_active() {
                break;
            }
            self.round();
        }
        self.must("sys/unseal", "", json!({"key": key}));
    }

    /// Randomness of the request's edge.
    pub fn rng(&mut self) -> &mut SeededEntropy {
        &mut self.rng
    }

    /// Gives a call to a shard; the number names its answer.
    pub fn send(&mut self, shard: u16, call: Call) -> u64 {
        self.asked += 1;
        let (tag, shard) = (self.asked, usize::from(shard % SHARDS));
        let mut out = Vec::new();
        self.shards[shard].observe(self.cell.clone());
        self.shards[shard].call(tag, call, self.now, &mut self.rng, &mut out);
        self.shard_out(shard, out);
        tag
    }

    /// Waits for an answer.
    pub fn answer(&mut self, tag: u64) -> Reply {
        for _ in 0..PATIENCE {
            if let Some(reply) = self.replies.remove(&tag) {
                check_reply(&reply);
                return reply;
            }
            assert!(self.stopped.is_none(), "{:?}", self.stopped);
            self.round();
        }
        panic!("a call is never answered");
    }

    fn must(&mut self, path: &str, token: &str, body: Value) -> Value {
        let tag = self.send(0, call(Operation::Update, path, token, body));
        let reply = self.answer(tag);
        assert!(matches!(reply.code, Code::Ok | Code::NoContent), "{path}: {:?} {}", reply.code, json_of(&reply));
        json_of(&reply)
    }

    fn quiet(&mut self) {
        for _ in 0..200 {
            self.round();
        }
    }

    /// Everything that waits is done once, and time passes.
    pub fn round(&mut self) {
        self.owner_takes(usize::MAX);
        for shard in 0..usize::from(SHARDS) {
            while self.shard_takes(shard) {}
        }
        while self.disk_completes(false) {}
        self.passes(20_000_000);
    }

    fn passes(&mut self, ns: u64) {
        self.now = Now { mono: self.now.mono.plus_ns(ns), wall: self.now.wall.plus_ns(ns) };
        self.owner_in(OwnerIn::Tick);
        self.settle();
    }

    fn owner_takes(&mut self, most: usize) {
        for _ in 0..most.min(self.to_owner.len()) {
            if let Some(input) = self.to_owner.pop_front() {
                self.owner_in(input);
            }
        }
        self.settle();
    }

    fn shard_takes(&mut self, shard: usize) -> bool {
        let Some(input) = self.to_shard[shard].pop_front() else { return false };
        let mut out = Vec::new();
        self.shards[shard].observe(self.cell.clone());
        self.shards[shard].step(input, self.now, &mut self.rng, &mut out);
        self.shard_out(shard, out);
        true
    }

    fn disk_completes(&mut self, beside: bool) -> bool {
        if self.disk.waiting() == 0 {
            return false;
        }
        if let Some(done) = self.disk.complete(beside) {
            self.owner_in(match done {
                Done::Disk(id, r) => OwnerIn::DiskDone(id, r),
                Done::File(id, r) => OwnerIn::FileDone(id, r),
            });
            self.settle();
        }
        true
    }

    fn owner_in(&mut self, input: OwnerIn) {
        let mut out = Vec::new();
        self.owner.step(input, self.now, &mut self.rng, &mut out);
        self.owner_out(out);
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        self.owner.settle(&mut self.rng, &mut out);
        self.owner_out(out);
    }

    fn owner_out(&mut self, out: Vec<OwnerOut>) {
        for o in out {
            match o {
                OwnerOut::Disk(op) => self.disk.disk(op),
                OwnerOut::File(op) => self.disk.file(op),
                OwnerOut::Pack(id, packing) => self.to_owner.push_back(OwnerIn::Packed(id, Box::new(packing.pack()))),
                OwnerOut::Publish(cell) => self.cell = cell,
                OwnerOut::Settled(s, t, settled) => self.tell(s, ShardIn::Settled(t, settled)),
                OwnerOut::Reached(s, t, reached) => self.tell(s, ShardIn::Reached(t, reached)),
                OwnerOut::TipDone(s, t, done) => self.tell(s, ShardIn::TipDone(t, done)),
                OwnerOut::ControlDone(s, t, reply) => self.tell(s, ShardIn::ControlDone(t, reply)),
                OwnerOut::OperateDone(s, t, result) => self.tell(s, ShardIn::SideDone(t, result)),
                OwnerOut::Withdraw(sequence) => {
                    self.to_shard.iter_mut().for_each(|q| q.push_back(ShardIn::Withdraw(sequence)));
                }
                OwnerOut::Side(job, op) => self.to_owner.push_back(OwnerIn::SideDone(job, perform(&op))),
                OwnerOut::Serve(s, t, ..) => {
                    self.tell(s, ShardIn::SideDone(t, SideResult::Failed("there is no machine here".into())));
                }
                OwnerOut::Snapshot(s, t, job) => self.tell(s, ShardIn::SideDone(t, snapshot::build(&job))),
                OwnerOut::KeepSnapshot(number, job, _) => {
                    self.to_owner.push_back(OwnerIn::SideDone(number, snapshot::build(&job)));
                }
                OwnerOut::Unpack(s, t, archive, force) => {
                    self.to_owner.push_back(OwnerIn::Unpacked(s, t, snapshot::unpack(&archive, force)));
                }
                // the one node here has no peers
                OwnerOut::Log(..)
                | OwnerOut::Send(..)
                | OwnerOut::ReadChunk(..)
                | OwnerOut::Load(..)
                | OwnerOut::Members(..)
                | OwnerOut::Returned(..)
                | OwnerOut::AskLeader(..) => {}
                OwnerOut::Halt(why) | OwnerOut::Lost(why) => self.stopped = Some(why),
            }
        }
    }

    fn tell(&mut self, shard: ShardId, input: ShardIn) {
        self.to_shard[usize::from(shard.0)].push_back(input);
    }

    fn shard_out(&mut self, shard: usize, out: Vec<ShardOut>) {
        let id = ShardId(shard as u16);
        for o in out {
            match o {
                ShardOut::Reply(tag, reply) => drop(self.replies.insert(tag, reply)),
                ShardOut::Propose(p) => self.to_owner.push_back(OwnerIn::Propose(id, p)),
                ShardOut::Tip(c) => self.to_owner.push_back(OwnerIn::Tip(id, c)),
                ShardOut::Owner(t, op) => self.to_owner.push_back(OwnerIn::Operate(id, t, op)),
                ShardOut::Control(t, c) => self.to_owner.push_back(OwnerIn::Control(id, t, c)),
                ShardOut::Withdrawn(s) => self.to_owner.push_back(OwnerIn::Withdrawn(id, s)),
                ShardOut::Side(t, op) => self.to_shard[shard].push_back(ShardIn::SideDone(t, perform(&op))),
                ShardOut::Await(t, index, what) => self.to_owner.push_back(OwnerIn::Await(id, t, index, what)),
                ShardOut::Login(note) => self.to_owner.push_back(OwnerIn::Login(note)),
                ShardOut::Audit(t, _) => self.to_shard[shard].push_back(ShardIn::AuditDone(t, true)),
                ShardOut::Forward(..) | ShardOut::NotDone(..) => {
                    self.stopped = Some("a lone node passed a call on".to_owned())
                }
                // what only a machine could answer is no fault of the node's
                ShardOut::Fault(_, cause) if cause.contains("there is no machine here") => {}
                ShardOut::Fault(_, cause) if cause.contains("nothing here reaches out") => {}
                ShardOut::Fault(_, cause) => self.stopped = Some(format!("internal error: {cause}")),
            }
        }
    }
}

/// A call as the edge would make it.
fn call(op: Operation, path: &str, token: &str, body: Value) -> Call {
    let data = body.as_object().cloned().unwrap_or_default();
    Call {
        id: entropy::uuid4(&mut SeededEntropy(1)),
        op,
        path: path.to_owned(),
        namespace: None,
        token: (!token.is_empty()).then(|| Secret::new(token.to_owned())),
        no_body: data.is_empty(),
        data: data.into(),
        remote: None,
        remote_port: 0,
        wrap_ttl: 0,
        wrap_jwt: false,
        headers: Headers::default(),
        raw_body: None,
        peer_certificates: Default::default(),
        mfa: Vec::new(),
    }
}

fn json_of(reply: &Reply) -> Value {
    match &reply.body {
        Body::Json(b) => serde_json::from_slice(b).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

fn check_reply(reply: &Reply) {
    if let Body::Json(b) = &reply.body {
        assert!(serde_json::from_slice::<Value>(b).is_ok(), "not JSON: {}", String::from_utf8_lossy(b));
    }
    for (name, value) in &reply.headers {
        assert!(!value.contains(['\r', '\n']), "header {name} would end early: {value:?}");
    }
}

/// Opcodes: send a call of a kind, hand one input to a machine, complete one disk operation, let time pass, cut the
/// power, fill the disk. Whatever the order: nothing stops, everything asked after the last crash is answered, and an
/// acknowledged write is there.
pub fn node_step(data: &[u8]) {
    crate::with_prepared(|prepared| {
        let mut input = Input::new(data);
        let mut node = prepared.start();
        let mut last: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, Option<(u8, u64)>> = BTreeMap::new();
        let mut sealed = false;
        for _ in 0..256 {
            if input.is_empty() {
                break;
            }
            let op = input.u8();
            let detail = input.u8();
            match op % 12 {
                0 | 1 => {
                    let key = detail % 4;
                    let in_flight = waiting.values().flatten().any(|(k, _)| *k == key);
                    // one writer a key, so that the last value tried is the newest
                    if !in_flight {
                        let entry = last.entry(key).or_default();
                        entry.1 += 1;
                        let n = entry.1;
                        let c = call(Operation::Update, &format!("kv1/k{key}"), &prepared.root, json!({"n": n}));
                        waiting.insert(node.send(u16::from(op >> 4), c), Some((key, n)));
                    }
                }
                2 => {
                    let c = plain_call(prepared, detail);
                    sealed |= c.path == "sys/seal";
                    waiting.insert(node.send(u16::from(op >> 4), c), None);
                }
                3 => node.owner_takes(usize::from(detail % 4) + 1),
                4 | 5 => drop(node.shard_takes(usize::from(detail % 2))),
                6 | 7 => drop(node.disk_completes(detail % 2 == 1)),
                8 => node.passes(u64::from(detail) * 10_000_000),
                9 => node.disk.full = detail % 2 == 1,
                10 => {
                    node.crash(u64::from(detail));
                    node.open(&prepared.key);
                    waiting.clear();
                    sealed = false;
                }
                _ => node.round(),
            }
            assert!(node.stopped.is_none(), "{:?}", node.stopped);
            heard(&mut node, &mut waiting, &mut last);
        }
        node.disk.full = false;
        for _ in 0..PATIENCE {
            if waiting.is_empty() {
                break;
            }
            node.round();
            assert!(node.stopped.is_none(), "{:?}", node.stopped);
            heard(&mut node, &mut waiting, &mut last);
        }
        assert!(waiting.is_empty(), "never answered: {waiting:?}");
        if sealed {
            node.open(&prepared.key);
        }
        for (key, (acknowledged, tried)) in last {
            let tag = node.send(0, call(Operation::Read, &format!("kv1/k{key}"), &prepared.root, Value::Null));
            let n = json_of(&node.answer(tag))["data"]["n"].as_u64().unwrap_or(0);
            assert!((acknowledged..=tried).contains(&n), "k{key} is {n}, not in {acknowledged}..={tried}");
        }
    });
}

/// Takes note of what was answered.
fn heard(node: &mut Node, waiting: &mut BTreeMap<u64, Option<(u8, u64)>>, last: &mut BTreeMap<u8, (u64, u64)>) {
    for (tag, reply) in std::mem::take(&mut node.replies) {
        check_reply(&reply);
        if let Some(Some((key, n))) = waiting.remove(&tag)
            && matches!(reply.code, Code::Ok | Code::NoContent)
        {
            let acknowledged = &mut last.entry(key).or_default().0;
            *acknowledged = (*acknowledged).max(n);
        }
    }
}

fn plain_call(prepared: &Prepared, detail: u8) -> Call {
    use Operation::{Delete, List, Read, Update};
    let root = prepared.root.as_str();
    let (op, path, token, body) = match detail % 20 {
        0 => (Update, "auth/token/create", root, json!({"ttl": "1s", "num_uses": 2})),
        1 => (Update, "auth/token/create", root, json!({"type": "batch", "policies": "default"})),
        2 => (Read, "auth/token/lookup-self", root, Value::Null),
        3 => (Update, "sys/wrapping/wrap", root, json!({"a": 1})),
        4 => (Update, "sys/rotate", root, Value::Null),
        5 => (Update, "sys/seal", root, Value::Null),
        6 => (Read, "sys/seal-status", "", Value::Null),
        7 => (Update, "sys/unseal", "", json!({"key": prepared.key})),
        8 => (Update, "sys/mounts/m", root, json!({"type": "kv"})),
        9 => (Delete, "sys/mounts/m", root, Value::Null),
        10 => (Update, "sys/remount", root, json!({"from": "m", "to": "m2"})),
        11 => (Update, "secret/data/a", root, json!({"data": {"x": "y"}})),
        12 => (List, "secret/metadata/", root, Value::Null),
        13 => (Update, "auth/userpass/users/u", root, json!({"password": "p"})),
        14 => (Update, "auth/approle/role/r/secret-id", root, json!({"ttl": "1s"})),
        15 => (Read, "sys/storage/raft/snapshot", root, Value::Null),
        16 => (Update, "sys/policies/acl/p", root, json!({"policy": "path \"a\" { capabilities = [\"read\"] }"})),
        17 => (Update, "sys/leases/tidy", root, Value::Null),
        18 => (Update, "sys/rekey/init", "", json!({"secret_shares": 3, "secret_threshold": 2})),
        _ => (Update, "sys/step-down", root, Value::Null),
    };
    call(op, path, token, body)
}
