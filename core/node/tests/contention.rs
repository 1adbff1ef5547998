//! Many clients at one key: each is answered, none loses more than twice, and no update is lost.
//!
//! Two shards and the owner over a disk that completes only when the schedule says so; the schedule comes from a seed.

use proptest::prelude::*;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Mono, Now, Secret, Wall, entropy};
use ringfence_node::raft::{DiskOp, OpId};
use ringfence_node::{
    Body, Call, Code, FileOp, Headers, Map, Operation, Owner, OwnerConfig, OwnerIn, OwnerOut, Provider, Reply,
    Settings, Shard, ShardId, ShardIn, ShardOut, TipDone, Vault, perform, registry,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const SHARDS: u16 = 2;
/// Steps within which everything must have been answered.
const PATIENCE: usize = 100_000;

struct Node {
    rng: SeededEntropy,
    now: Now,
    owner: Owner,
    shards: Vec<Shard>,
    cell: Arc<ringfence_node::Cell>,
    to_owner: VecDeque<OwnerIn>,
    to_shard: Vec<VecDeque<ShardIn>>,
    disk: VecDeque<OpId>,
    replies: BTreeMap<u64, Reply>,
    next_tag: u64,
    /// Proposals and runs over the tip of all calls since the node was ready.
    proposals: u64,
    tips: u64,
    /// Runs over the tip by what they came to: given back, use counted, answered.
    ended: [u64; 3],
    /// Calls by shard and ticket, with the number of their proposals and of their runs over the tip.
    by_call: BTreeMap<(u16, u64), (u32, u32)>,
    root: String,
}

impl Node {
    /// Initialised, unsealed, with a kv mount.
    fn ready(seed: u64) -> Node {
        let vault = Arc::new(Vault::new(registry(), Settings::default()));
        let now = Now { mono: Mono(1), wall: Wall::from_seconds(1_700_000_000) };
        let config = OwnerConfig { shards: SHARDS, provider: Provider::Seeded, ..OwnerConfig::default() };
        let owner = Owner::blank(config, vault.clone(), now);
        let cell = owner.cell();
        let mut node = Node {
            rng: SeededEntropy(seed),
            now,
            shards: (0..SHARDS).map(|i| Shard::new(i, vault.clone(), cell.clone())).collect(),
            owner,
            cell,
            to_owner: VecDeque::new(),
            to_shard: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            disk: VecDeque::new(),
            replies: BTreeMap::new(),
            next_tag: 1,
            proposals: 0,
            tips: 0,
            ended: [0; 3],
            by_call: BTreeMap::new(),
            root: String::new(),
        };
        let made = node.ask("sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}));
        node.root = made["root_token"].as_str().expect("a root token").to_owned();
        node.ask("sys/unseal", "", json!({"key": made["keys_base64"][0]}));
        let root = node.root.clone();
        node.ask("sys/mounts/secret", &root, json!({"type": "kv", "options": {"version": "2"}}));
        // the mount's own upgrade notes and the like
        node.settle_all();
        (node.proposals, node.tips, node.ended) = (0, 0, [0; 3]);
        node.by_call.clear();
        node
    }

    fn send(&mut self, op: Operation, path: &str, token: &str, body: Value) -> u64 {
        let shard = (self.rng.next_u64() % u64::from(SHARDS)) as usize;
        self.send_to(shard, op, path, token, body)
    }

    fn send_to(&mut self, shard: usize, op: Operation, path: &str, token: &str, body: Value) -> u64 {
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
            wrap_ttl: 0,
            wrap_jwt: false,
            headers: Headers::default(),
            raw_body: None,
            peer_certificates: Default::default(),
            mfa: Vec::new(),
        };
        let mut out = Vec::new();
        self.shards[shard].observe(self.cell.clone());
        self.shards[shard].call(tag, call, self.now, &mut self.rng, &mut out);
        self.shard_out(shard, out);
        tag
    }

    fn ask(&mut self, path: &str, token: &str, body: Value) -> Value {
        let tag = self.send(Operation::Update, path, token, body);
        json_of(&self.wait(tag))
    }

    fn read(&mut self, path: &str) -> Value {
        let root = self.root.clone();
        let tag = self.send(Operation::Read, path, &root, Value::Null);
        json_of(&self.wait(tag))
    }

    fn wait(&mut self, tag: u64) -> Reply {
        for _ in 0..PATIENCE {
            if let Some(reply) = self.replies.remove(&tag) {
                return reply;
            }
            self.step();
        }
        panic!("call {tag} is never answered");
    }

    fn settle_all(&mut self) {
        for _ in 0..PATIENCE {
            if self.to_owner.is_empty() && self.disk.is_empty() && self.to_shard.iter().all(VecDeque::is_empty) {
                return;
            }
            self.step();
        }
        panic!("the node never rests");
    }

    /// One thing happens, somewhere.
    fn step(&mut self) {
        match self.rng.next_u64() % 12 {
            0 => self.complete(),
            1 => {
                self.now.mono = self.now.mono.plus_ns(20_000_000);
                self.now.wall = self.now.wall.plus_ns(20_000_000);
                self.give(OwnerIn::Tick);
                self.settle();
            }
            2..7 => self.step_owner(),
            _ => {
                let shard = (self.rng.next_u64() % u64::from(SHARDS)) as usize;
                self.step_shard(shard);
            }
        }
    }

    fn complete(&mut self) {
        if let Some(id) = self.disk.pop_front() {
            self.give(OwnerIn::DiskDone(id, Ok(())));
            self.settle();
        }
    }

    fn step_owner(&mut self) {
        if let Some(input) = self.to_owner.pop_front() {
            self.give(input);
            self.settle();
        }
    }

    fn step_shard(&mut self, shard: usize) {
        if let Some(input) = self.to_shard[shard].pop_front() {
            let mut out = Vec::new();
            self.shards[shard].observe(self.cell.clone());
            self.shards[shard].step(input, self.now, &mut self.rng, &mut out);
            self.shard_out(shard, out);
        }
    }

    /// Everything but the disk goes on until nothing moves.
    fn rest_without_disk(&mut self) {
        for _ in 0..PATIENCE {
            if self.to_owner.is_empty() && self.to_shard.iter().all(VecDeque::is_empty) {
                return;
            }
            self.step_owner();
            (0..SHARDS as usize).for_each(|shard| self.step_shard(shard));
        }
        panic!("the node turns in circles without its disk");
    }

    fn give(&mut self, input: OwnerIn) {
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
                OwnerOut::Disk(op) => match op {
                    // beside the log, and of no interest here
                    DiskOp::PrepareSegment { id, .. } | DiskOp::RemoveSegment { id, .. } => {
                        self.to_owner.push_back(OwnerIn::DiskDone(id, Ok(())));
                    }
                    op => self.disk.push_back(op.id()),
                },
                OwnerOut::Publish(cell) => self.cell = cell,
                OwnerOut::Settled(s, t, settled) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::Settled(t, settled))
                }
                OwnerOut::TipDone(s, t, done) => {
                    self.ended[match &*done {
                        TipDone::Again | TipDone::Side { .. } => 0,
                        TipDone::UseCounted => 1,
                        TipDone::Answer { .. } => 2,
                    }] += 1;
                    self.to_shard[s.0 as usize].push_back(ShardIn::TipDone(t, done));
                }
                OwnerOut::ControlDone(s, t, reply) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::ControlDone(t, reply));
                }
                OwnerOut::OperateDone(s, t, result) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::SideDone(t, result));
                }
                OwnerOut::Side(job, op) => self.to_owner.push_back(OwnerIn::SideDone(job, perform(&op))),
                OwnerOut::File(FileOp::WriteIdentity { .. }) | OwnerOut::Log(..) => {}
                OwnerOut::Members(_) => {}
                other => panic!("not expected here: {other:?}"),
            }
        }
    }

    fn shard_out(&mut self, shard: usize, out: Vec<ShardOut>) {
        let id = ShardId(shard as u16);
        for o in out {
            match o {
                ShardOut::Reply(tag, reply) => {
                    self.replies.insert(tag, reply);
                }
                ShardOut::Propose(p) => {
                    self.proposals += 1;
                    self.by_call.entry((id.0, p.ticket.0)).or_default().0 += 1;
                    self.to_owner.push_back(OwnerIn::Propose(id, p));
                }
                ShardOut::Tip(c) => {
                    self.tips += 1;
                    self.by_call.entry((id.0, c.ticket.0)).or_default().1 += 1;
                    self.to_owner.push_back(OwnerIn::Tip(id, c));
                }
                ShardOut::Owner(t, op) => self.to_owner.push_back(OwnerIn::Operate(id, t, op)),
                ShardOut::Control(t, c) => self.to_owner.push_back(OwnerIn::Control(id, t, c)),
                ShardOut::Withdrawn(s) => self.to_owner.push_back(OwnerIn::Withdrawn(id, s)),
                ShardOut::Side(t, op) => self.to_shard[shard].push_back(ShardIn::SideDone(t, perform(&op))),
                ShardOut::Login(note) => self.to_owner.push_back(OwnerIn::Login(note)),
                ShardOut::Audit(t, _) => self.to_shard[shard].push_back(ShardIn::AuditDone(t, true)),
                ShardOut::Fault(_, cause) => panic!("internal error: {cause}"),
                ShardOut::Forward(..) | ShardOut::NotDone(_) | ShardOut::Await(..) => {
                    panic!("the one node of this test is always the leader")
                }
            }
        }
    }

    /// Writes of one key, all sent before anything is answered, and their replies.
    fn write_all(&mut self, count: u64, body: impl Fn(u64) -> Value) -> Vec<Reply> {
        let root = self.root.clone();
        let tags: Vec<u64> =
            (0..count).map(|n| self.send(Operation::Update, "secret/data/hot", &root, body(n))).collect();
        tags.into_iter().map(|tag| self.wait(tag)).collect()
    }

    /// No call was refused more than twice; a run over the tip never loses.
    fn assert_fair(&self, runs_a_call: u32) {
        for (call, (proposals, tips)) in &self.by_call {
            assert!(*proposals <= 2 * runs_a_call && *tips <= runs_a_call, "{call:?}: {proposals} and {tips}");
        }
    }
}

fn json_of(reply: &Reply) -> Value {
    match &reply.body {
        Body::Json(b) => serde_json::from_slice(b).expect("JSON"),
        Body::Raw(r) => serde_json::from_slice(&r.body).expect("JSON"),
        Body::Empty => Value::Null,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_writer_of_a_key_gets_through(seed in any::<u64>(), writers in 2u64..40) {
        let mut node = Node::ready(seed);
        let replies = node.write_all(writers, |n| json!({"data": {"n": n}}));
        let versions: BTreeSet<u64> =
            replies.iter().map(|r| json_of(r)["data"]["version"].as_u64().expect("a version")).collect();
        prop_assert_eq!(versions, (1..=writers).collect::<BTreeSet<_>>(), "each write is a version of its own");
        let now = node.read("secret/metadata/hot");
        prop_assert_eq!(now["data"]["current_version"].as_u64(), Some(writers));
        node.assert_fair(1);
    }

    #[test]
    fn one_of_many_wins_a_check_and_set(seed in any::<u64>(), writers in 2u64..40) {
        let mut node = Node::ready(seed);
        for version in 0..3u64 {
            let replies = node.write_all(writers, |n| json!({"options": {"cas": version}, "data": {"n": n}}));
            let won: Vec<_> = (0u64..).zip(&replies).filter(|(_, r)| r.code == Code::Ok).map(|(n, _)| n).collect();
            prop_assert_eq!(won.len(), 1, "of version {}", version);
            for r in replies.iter().filter(|r| r.code != Code::Ok) {
                prop_assert_eq!(r.code, Code::Invalid);
                prop_assert!(json_of(r)["errors"][0].as_str().is_some_and(|e| e.contains("check-and-set")));
            }
            let now = node.read("secret/data/hot");
            prop_assert_eq!(now["data"]["data"]["n"].as_u64(), Some(won[0]));
        }
        node.assert_fair(1);
    }

    #[test]
    fn a_use_limited_token_works_as_often_as_it_says(seed in any::<u64>(), uses in 1u64..12, tries in 1u64..30) {
        let mut node = Node::ready(seed);
        let root = node.root.clone();
        let made = node.ask("auth/token/create", &root, json!({"policies": ["default"], "num_uses": uses}));
        let token = made["auth"]["client_token"].as_str().expect("a token").to_owned();
        let tags: Vec<u64> = (0..tries)
            .map(|_| node.send(Operation::Read, "auth/token/lookup-self", &token, Value::Null))
            .collect();
        let good = tags.into_iter().map(|tag| node.wait(tag)).filter(|r| r.code == Code::Ok).count() as u64;
        prop_assert_eq!(good, uses.min(tries));
        // one for the use, one for what the request itself writes
        node.assert_fair(2);
    }
}

/// What a run over the tip saw may still be lost with the leader, so not even a refusal is told before it is durable.
///
/// A check-and-set of version 1 loses first to a change of the key's metadata, then to a plain write, and is run over
/// the tip while that write is on its way to the disk.
#[test]
fn a_refusal_that_rests_on_a_write_in_flight_waits_for_it() {
    let mut node = Node::ready(7);
    let root = node.root.clone();
    let hot = "secret/data/hot";
    node.ask(hot, &root, json!({"data": {"n": 1}}));
    node.settle_all();
    let metadata = json!({"custom_metadata": {"a": "b"}});
    let first = node.send_to(0, Operation::Update, "secret/metadata/hot", &root, metadata);
    node.rest_without_disk();
    let plain = node.send_to(0, Operation::Update, hot, &root, json!({"data": {"n": 2}}));
    let check = node.send_to(1, Operation::Update, hot, &root, json!({"options": {"cas": 1}, "data": {"n": 3}}));
    node.rest_without_disk();
    assert!(node.replies.is_empty() && node.tips == 0, "two have lost, and cannot see yet what they lost to");
    node.complete();
    // the plain write is proposed before the check is run again
    while !node.to_shard[0].is_empty() {
        node.step_shard(0);
    }
    node.step_owner();
    node.rest_without_disk();
    assert_eq!((node.tips, node.ended), (1, [0, 0, 0]), "the check was run over the tip, and nothing was told");
    assert!(node.replies.remove(&first).is_some() && node.replies.is_empty());
    node.complete();
    node.rest_without_disk();
    assert_eq!(node.ended, [0, 0, 1]);
    assert_eq!(node.replies.remove(&plain).expect("durable").code, Code::Ok);
    assert_eq!(node.replies.remove(&check).expect("answered").code, Code::Invalid);
    let now = node.read(hot);
    assert_eq!(now["data"]["data"]["n"].as_u64(), Some(2));
}

/// The properties above would hold for nothing if nobody ever met at the tip.
#[test]
fn many_at_one_key_meet_at_the_tip() {
    let mut node = Node::ready(11);
    node.write_all(40, |n| json!({"data": {"n": n}}));
    assert!(node.ended[2] > 20 && node.ended[0] == 0, "{:?}", node.ended);
    let root = node.root.clone();
    let made = node.ask("auth/token/create", &root, json!({"policies": ["default"], "num_uses": 50}));
    let token = made["auth"]["client_token"].as_str().expect("a token").to_owned();
    let tags: Vec<u64> =
        (0..40).map(|_| node.send(Operation::Read, "auth/token/lookup-self", &token, Value::Null)).collect();
    for tag in tags {
        assert_eq!(node.wait(tag).code, Code::Ok);
    }
    assert!(node.ended[1] > 20, "{:?}", node.ended);
    node.assert_fair(2);
}
