//! One node in its world: queues between its machines, a clock, a disk, clients, and the checks.

use crate::accounts::{Service, Whom};
use crate::disk::{Done, SimDisk};
use crate::history::{History, Register, Token, Wrapping};
use crate::mutant::Mutant;
use crate::promise;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Mono, Now, Secret, Wall, entropy};
use ringfence_node::{
    Body, Call, Code, Headers, Map, Operation, Owner, OwnerConfig, OwnerIn, OwnerOut, Provider, Reply, Settings,
    Shard, ShardId, ShardIn, ShardOut, SideOp, SideResult, Vault, perform, registry,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const SHARDS: u16 = 2;
const KEYS: u64 = 6;
const STEP_NS: u64 = 1_000_000;
/// Steps within which a healthy node must have answered everything.
const PATIENCE_STEPS: u64 = 200_000;
const CANARY: &str = "canary-8d1f0c77";

/// What broke.
#[derive(Debug)]
pub struct Violation {
    /// Replays it.
    pub seed: u64,
    /// What was promised and not kept: its name from [`promise`], and what was seen.
    pub what: String,
}

impl Violation {
    /// The promise's name.
    pub fn promise(&self) -> &str {
        self.what.split_once(": ").map_or("", |(name, _)| name)
    }
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Crashes.
    pub crashes: u64,
    /// Disk operations completed.
    pub operations: u64,
    /// Acknowledged requests.
    pub acknowledged: u64,
    /// Index of the last checkpoint.
    pub checkpoint: u64,
    /// Calls that were run over the tip.
    pub tips: u64,
    /// A hash over everything that was answered: equal for equal seeds.
    pub digest: u64,
}

/// A run: how often to crash, and at which operations.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Everything comes from it.
    pub seed: u64,
    /// Lives of the node.
    pub lives: u64,
    /// Disk operations of a life, at most; the crash falls on one of them.
    pub operations_a_life: u64,
    /// Broken on purpose.
    pub mutant: Option<Mutant>,
}

/// What a client is waiting for.
#[derive(Debug)]
enum Asked {
    Write(u64, u64),
    Read(u64),
    Hot,
    Create { uses: u64 },
    Use(usize),
    Revoke(usize),
    Wrap,
    Unwrap(usize),
}

pub(crate) struct World {
    pub(crate) rng: SeededEntropy,
    pub(crate) now: Now,
    vault: Arc<Vault>,
    owner: Owner,
    shards: Vec<Shard>,
    cell: Arc<ringfence_node::Cell>,
    to_owner: VecDeque<OwnerIn>,
    to_shard: Vec<VecDeque<ShardIn>>,
    pub(crate) disk: SimDisk,
    asked: BTreeMap<u64, Asked>,
    pub(crate) replies: VecDeque<(u64, Reply)>,
    next_tag: u64,
    pub(crate) halted: Option<String>,
    pub(crate) digest: u64,
    tips: u64,
    /// A database, in worlds that have one.
    pub(crate) service: Option<Service>,
}

impl Run {
    /// Runs to the end or to the first broken promise.
    pub fn go(&self) -> Result<Report, Violation> {
        let fail = |what: String| Violation { seed: self.seed, what };
        let mut rng = SeededEntropy(self.seed);
        let vault = Arc::new(Vault::new(registry(), Settings::default()));
        let (mut disk, mut history, mut report) = (SimDisk::default(), History::default(), Report::default());
        if self.mutant == Some(Mutant::SkippedFsync) {
            disk.held_writes = 12;
        }
        let mut keys: Option<(String, String)> = None;
        let mut now = Now { mono: Mono(1), wall: Wall::from_seconds(1_700_000_000) };
        for life in 0..self.lives {
            let found = disk
                .recover()
                .map_err(|e| fail(format!("{}: life {life}: the node does not start: {e}", promise::SERVES)))?;
            let mut w = World::new(vault.clone(), disk, found, SeededEntropy(rng.next_u64()), now);
            if keys.is_none() || !w.initialized() {
                // an answer that never came may have been lost with its keys: then the cluster begins anew
                history = History::default();
                keys = w.begin().map_err(&fail)?;
            } else if let Some((key, _)) = &keys {
                w.unseal(key).map_err(&fail)?;
            }
            if let Some((_, root)) = &keys {
                w.check(root, &mut history).map_err(|e| fail(format!("{e} (life {life})")))?;
                let last = life + 1 == self.lives;
                let budget = 1 + rng.next_u64() % self.operations_a_life;
                w.live(root, &mut history, budget, !last).map_err(|e| fail(format!("{e} (life {life})")))?;
            }
            report.acknowledged = history.acknowledged;
            report.tips += w.tips;
            report.digest = report.digest.rotate_left(7) ^ w.digest;
            now = w.now;
            disk = w.disk;
            disk.crash(&mut rng);
            report.crashes += 1;
            report.operations = disk.completed;
            for part in disk.contents() {
                if part.windows(CANARY.len()).any(|b| b == CANARY.as_bytes()) {
                    return Err(fail(format!("{}: life {life}: a secret stands on the disk", promise::CLEAR)));
                }
            }
        }
        report.checkpoint = disk.checkpoint_index().0;
        Ok(report)
    }
}

impl World {
    pub(crate) fn new(
        vault: Arc<Vault>,
        disk: SimDisk,
        found: Option<ringfence_node::Found>,
        rng: SeededEntropy,
        now: Now,
    ) -> World {
        let config = OwnerConfig {
            shards: SHARDS,
            segment_bytes: 256 * 1024,
            max_batch_bytes: 64 * 1024,
            checkpoint_log_bytes: 100 * 1024,
            provider: Provider::Seeded,
            ..OwnerConfig::default()
        };
        let owner = match found {
            Some(f) => Owner::restart(config, vault.clone(), f, now),
            None => Owner::blank(config, vault.clone(), now),
        };
        let cell = owner.cell();
        let shards = (0..SHARDS).map(|i| Shard::new(i, vault.clone(), cell.clone())).collect();
        World {
            rng,
            now,
            vault,
            owner,
            shards,
            cell,
            to_owner: VecDeque::new(),
            to_shard: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            disk,
            asked: BTreeMap::new(),
            replies: VecDeque::new(),
            next_tag: 1,
            halted: None,
            digest: 0,
            tips: 0,
            service: None,
        }
    }

    pub(crate) fn initialized(&mut self) -> bool {
        // recovery hands committed entries to the owner over its first rounds
        for _ in 0..2000 {
            self.step();
        }
        self.owner.cell().facts.initialized || self.cell.facts.initialized
    }

    /// Init and unseal with one share; `None` if the cluster exists already without known keys.
    pub(crate) fn begin(&mut self) -> Result<Option<(String, String)>, String> {
        if self.cell.facts.initialized {
            return Ok(None);
        }
        let a = self.ask("sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}))?;
        let v = json_of(&a);
        let key = v["keys_base64"][0].as_str().ok_or_else(|| format!("init: {v}"))?.to_owned();
        let root = v["root_token"].as_str().ok_or("no root token")?.to_owned();
        self.unseal(&key)?;
        let a = self.ask("sys/mounts/secret", &root, json!({"type": "kv", "options": {"version": "2"}}))?;
        if a.code != Code::NoContent {
            return Err(format!("mount: {}", json_of(&a)));
        }
        Ok(Some((key, root)))
    }

    pub(crate) fn unseal(&mut self, key: &str) -> Result<(), String> {
        let a = self.ask("sys/unseal", "", json!({"key": key}))?;
        match json_of(&a)["sealed"] {
            Value::Bool(false) => Ok(()),
            _ => Err(format!("{}: unseal: {}", promise::SERVES, json_of(&a))),
        }
    }

    /// Every acknowledgement of earlier lives holds.
    fn check(&mut self, root: &str, history: &mut History) -> Result<(), String> {
        // the mount may have been lost with a first life that crashed before it was acknowledged
        let mounted = self.ask_op(Operation::Read, "sys/mounts/secret", root, Value::Null)?;
        if mounted.code != Code::Ok {
            if history.acknowledged > 0 {
                return Err(format!("{}: the mount is gone: {}", promise::ACKNOWLEDGED, json_of(&mounted)));
            }
            self.ask("sys/mounts/secret", root, json!({"type": "kv", "options": {"version": "2"}}))?;
        }
        for (key, r) in &mut history.registers {
            let a = self.ask_op(Operation::Read, &format!("secret/data/k{key}"), root, Value::Null)?;
            let n = value_of(&a, *key)?;
            if n < r.acknowledged || n > r.tried {
                return Err(format!(
                    "{}: k{key} is {n}, not in {}..={}",
                    promise::ACKNOWLEDGED,
                    r.acknowledged,
                    r.tried
                ));
            }
            r.acknowledged = n;
        }
        let a = self.ask_op(Operation::Read, "secret/metadata/hot", root, Value::Null)?;
        let version = json_of(&a)["data"]["current_version"].as_u64().unwrap_or(0);
        let told = history.hot.versions.last().copied().unwrap_or(0);
        if version < told || version > history.hot.tried {
            let tried = history.hot.tried;
            return Err(format!(
                "{}: the contended key is at {version}, not in {told}..={tried}",
                promise::ACKNOWLEDGED
            ));
        }
        for t in &mut history.tokens {
            let a = self.ask_op(Operation::Read, "auth/token/lookup-self", &t.text, Value::Null)?;
            if a.code == Code::Ok {
                t.worked += 1;
            }
            if t.revoked && a.code == Code::Ok {
                return Err(format!("{}: a revoked token lives", promise::REVOKED));
            }
            if !t.revoking && t.uses == 0 && a.code != Code::Ok {
                return Err(format!("{}: a token is gone: {}", promise::ACKNOWLEDGED, json_of(&a)));
            }
            if t.uses > 0 && t.worked > t.uses {
                return Err(format!("{}: a token of {} uses worked {} times", promise::USES, t.uses, t.worked));
            }
        }
        for w in &mut history.wrappings {
            let a = self.ask("sys/wrapping/unwrap", &w.text, Value::Null)?;
            w.opened += u64::from(a.code == Code::Ok);
            if w.opened > 1 {
                return Err(format!("{}: a wrapping token opened twice", promise::UNWRAP));
            }
        }
        Ok(())
    }

    /// Clients at work until the disk has done `budget` operations; then, unless it is a crash, until all is answered.
    fn live(&mut self, root: &str, history: &mut History, budget: u64, crash: bool) -> Result<(), String> {
        let end = self.disk.completed + budget;
        let mut steps = 0u64;
        while self.disk.completed < end {
            if self.asked.len() < 8 {
                self.invent(root, history);
            }
            self.step();
            self.hear(history)?;
            steps += 1;
            if let Some(why) = &self.halted {
                return Err(format!("{}: the node halted: {why}", promise::SERVES));
            }
            if steps > PATIENCE_STEPS {
                return Err(format!("{}: the node does nothing any more", promise::SERVES));
            }
        }
        let mut left = PATIENCE_STEPS;
        while !crash && !self.asked.is_empty() {
            self.step();
            self.hear(history)?;
            left -= 1;
            if left == 0 {
                return Err(format!("{}: not answered: {:?}", promise::SERVES, self.asked));
            }
        }
        Ok(())
    }

    /// A client thinks of something.
    fn invent(&mut self, root: &str, history: &mut History) {
        let pick = self.rng.next_u64() % 100;
        let key = self.rng.next_u64() % KEYS;
        let (asked, op, path, token, body, wrap) = match pick {
            // one writer a key, as the check of its value supposes
            0..45 if !self.asked.values().any(|a| matches!(a, Asked::Write(k, _) if *k == key)) => {
                let r: &mut Register = history.registers.entry(key).or_default();
                r.tried += 1;
                let n = r.tried;
                let pad = "p".repeat((self.rng.next_u64() % 3000) as usize);
                let body = json!({"data": {"n": n, "again": n, "pad": pad, "secret": CANARY}});
                (Asked::Write(key, n), Operation::Update, format!("secret/data/k{key}"), root.to_owned(), body, 0)
            }
            45..55 => {
                history.hot.tried += 1;
                // half of them check what they saw last; who loses is refused, and the version stays
                let body = match history.hot.versions.last() {
                    Some(last) if pick.is_multiple_of(2) => json!({"options": {"cas": last}, "data": {"s": CANARY}}),
                    _ => json!({"data": {"s": CANARY}}),
                };
                (Asked::Hot, Operation::Update, "secret/data/hot".to_owned(), root.to_owned(), body, 0)
            }
            55..60 => {
                (Asked::Read(key), Operation::Read, format!("secret/data/k{key}"), root.to_owned(), Value::Null, 0)
            }
            60..70 => {
                let uses = if pick.is_multiple_of(2) { 3 } else { 0 };
                let body = json!({"policies": ["default"], "num_uses": uses});
                (Asked::Create { uses }, Operation::Update, "auth/token/create".into(), root.to_owned(), body, 0)
            }
            70..80 if !history.tokens.is_empty() => {
                let i = (self.rng.next_u64() as usize) % history.tokens.len();
                let t = history.tokens[i].text.clone();
                (Asked::Use(i), Operation::Read, "auth/token/lookup-self".into(), t, Value::Null, 0)
            }
            80..86 if !history.tokens.is_empty() => {
                let i = (self.rng.next_u64() as usize) % history.tokens.len();
                history.tokens[i].revoking = true;
                let body = json!({"token": history.tokens[i].text});
                (Asked::Revoke(i), Operation::Update, "auth/token/revoke".into(), root.to_owned(), body, 0)
            }
            86..93 => {
                let body = json!({"hidden": CANARY});
                (Asked::Wrap, Operation::Update, "sys/wrapping/wrap".into(), root.to_owned(), body, 600)
            }
            _ if !history.wrappings.is_empty() => {
                let i = (self.rng.next_u64() as usize) % history.wrappings.len();
                let t = history.wrappings[i].text.clone();
                (Asked::Unwrap(i), Operation::Update, "sys/wrapping/unwrap".into(), t, Value::Null, 0)
            }
            _ => return,
        };
        let shard = (self.rng.next_u64() % u64::from(SHARDS)) as usize;
        let tag = self.send(shard, op, &path, &token, body, wrap);
        self.asked.insert(tag, asked);
    }

    /// Clients take note of their answers.
    fn hear(&mut self, history: &mut History) -> Result<(), String> {
        while let Some((tag, reply)) = self.replies.pop_front() {
            let Some(asked) = self.asked.remove(&tag) else { continue };
            let ok = matches!(reply.code, Code::Ok | Code::NoContent);
            history.acknowledged += u64::from(ok);
            match asked {
                Asked::Write(key, n) if ok => {
                    let r = history.registers.entry(key).or_default();
                    r.acknowledged = r.acknowledged.max(n);
                }
                Asked::Write(..) => {}
                Asked::Hot if ok => {
                    let version = json_of(&reply)["data"]["version"].as_u64().unwrap_or(0);
                    if !history.hot.versions.insert(version) {
                        return Err(format!(
                            "{}: two writers of one key were told version {version}",
                            promise::VERSIONS
                        ));
                    }
                }
                Asked::Read(key) if ok => {
                    let n = value_of(&reply, key)?;
                    let r = history.registers.get(&key).copied().unwrap_or_default();
                    if n > r.tried {
                        return Err(format!("{}: k{key} reads {n}, which nobody wrote", promise::READS));
                    }
                }
                Asked::Create { uses } if ok => {
                    let v = json_of(&reply);
                    let text = v["auth"]["client_token"].as_str().unwrap_or_default().to_owned();
                    history.tokens.push(Token { text, uses, ..Token::default() });
                }
                Asked::Use(i) => {
                    let t = &mut history.tokens[i];
                    t.worked += u64::from(ok);
                    if t.uses > 0 && t.worked > t.uses {
                        return Err(format!(
                            "{}: a token of {} uses worked {} times",
                            promise::USES,
                            t.uses,
                            t.worked
                        ));
                    }
                }
                Asked::Revoke(i) if ok => history.tokens[i].revoked = true,
                Asked::Wrap if ok => {
                    let v = json_of(&reply);
                    let text = v["wrap_info"]["token"].as_str().unwrap_or_default().to_owned();
                    history.wrappings.push(Wrapping { text, opened: 0 });
                }
                Asked::Unwrap(i) if ok => {
                    history.wrappings[i].opened += 1;
                    if history.wrappings[i].opened > 1 {
                        return Err(format!("{}: a wrapping token opened twice", promise::UNWRAP));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn send(
        &mut self,
        shard: usize,
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

    /// Asks and waits for the answer: for what a life begins with.
    pub(crate) fn ask(&mut self, path: &str, token: &str, body: Value) -> Result<Reply, String> {
        self.ask_op(Operation::Update, path, token, body)
    }

    pub(crate) fn ask_op(&mut self, op: Operation, path: &str, token: &str, body: Value) -> Result<Reply, String> {
        let tag = self.send(0, op, path, token, body, 0);
        for _ in 0..PATIENCE_STEPS {
            if let Some(i) = self.replies.iter().position(|(t, _)| *t == tag)
                && let Some((_, reply)) = self.replies.remove(i)
            {
                return Ok(reply);
            }
            if let Some(why) = &self.halted {
                return Err(format!("{}: the node halted: {why}", promise::SERVES));
            }
            self.step();
        }
        Err(format!("{}: {path} is never answered", promise::SERVES))
    }

    /// One thing happens, somewhere.
    pub(crate) fn step(&mut self) {
        self.pass(STEP_NS);
        let answers = self.service.as_mut().map(|s| s.turn(self.now.mono)).unwrap_or_default();
        for (whom, result) in answers {
            match whom {
                Whom::Shard(shard, t) => self.to_shard[shard].push_back(ShardIn::SideDone(t, result)),
                Whom::Worker(job) => self.to_owner.push_back(OwnerIn::SideDone(job, result)),
            }
        }
        let pick = self.rng.next_u64() % 8;
        match pick {
            0 | 1 => {
                let take = 1 + (self.rng.next_u64() % 4) as usize;
                for _ in 0..take {
                    if let Some(input) = self.to_owner.pop_front() {
                        self.owner_in(input);
                    }
                }
                self.settle();
            }
            2 | 3 => {
                let shard = (self.rng.next_u64() % u64::from(SHARDS)) as usize;
                if let Some(input) = self.to_shard[shard].pop_front() {
                    let mut out = Vec::new();
                    self.shards[shard].observe(self.cell.clone());
                    self.shards[shard].step(input, self.now, &mut self.rng, &mut out);
                    self.shard_out(shard, out);
                }
            }
            4 | 5 if self.disk.waiting() > 0 => {
                let beside = self.rng.next_u64().is_multiple_of(2);
                if let Some(done) = self.disk.complete(beside) {
                    self.owner_in(match done {
                        Done::Disk(id, r) => OwnerIn::DiskDone(id, r),
                        Done::File(id, r) => OwnerIn::FileDone(id, r),
                    });
                    self.settle();
                }
            }
            6 => {
                self.pass(20_000_000);
                self.owner_in(OwnerIn::Tick);
                self.settle();
            }
            _ => {}
        }
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.now.mono = self.now.mono.plus_ns(ns);
        self.now.wall = self.now.wall.plus_ns(ns);
    }

    /// Nothing is under way anywhere: only time can make something happen.
    pub(crate) fn is_still(&self) -> bool {
        self.to_owner.is_empty() && self.to_shard.iter().all(VecDeque::is_empty) && self.disk.waiting() == 0
    }

    /// Takes a side operation on: a database takes its time, everything else is done at once.
    fn side(&mut self, whom: Whom, op: &SideOp) {
        match (op, &mut self.service) {
            (SideOp::Sql(ask), Some(service)) => service.take(whom, ask, self.now.mono),
            _ => match whom {
                Whom::Shard(shard, t) => self.to_shard[shard].push_back(ShardIn::SideDone(t, perform(op))),
                Whom::Worker(job) => self.to_owner.push_back(OwnerIn::SideDone(job, perform(op))),
            },
        }
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
                OwnerOut::Pack(id, packing) => {
                    self.to_owner.push_back(OwnerIn::Packed(id, Box::new(packing.pack())));
                }
                OwnerOut::Publish(cell) => self.cell = cell,
                OwnerOut::Settled(s, t, settled) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::Settled(t, settled))
                }
                OwnerOut::Reached(s, t, reached) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::Reached(t, reached));
                }
                OwnerOut::TipDone(s, t, done) => self.to_shard[s.0 as usize].push_back(ShardIn::TipDone(t, done)),
                OwnerOut::ControlDone(s, t, reply) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::ControlDone(t, reply));
                }
                OwnerOut::OperateDone(s, t, result) => {
                    self.to_shard[s.0 as usize].push_back(ShardIn::SideDone(t, result));
                }
                OwnerOut::Withdraw(sequence) => {
                    self.to_shard.iter_mut().for_each(|q| q.push_back(ShardIn::Withdraw(sequence)));
                }
                OwnerOut::Side(job, op) => self.side(Whom::Worker(job), &op),
                OwnerOut::Serve(s, t, ..) => {
                    let result = SideResult::Failed("the simulated world knows no machine".into());
                    self.to_shard[s.0 as usize].push_back(ShardIn::SideDone(t, result));
                }
                OwnerOut::KeepSnapshot(number, job, _) => {
                    self.to_owner.push_back(OwnerIn::SideDone(number, crate::kept(&job)));
                }
                OwnerOut::Snapshot(s, t, job) => {
                    let result = ringfence_node::snapshot::build(&job);
                    self.to_shard[s.0 as usize].push_back(ShardIn::SideDone(t, result));
                }
                OwnerOut::Unpack(s, t, archive, force) => {
                    let unpacked = ringfence_node::snapshot::unpack(&archive, force);
                    self.to_owner.push_back(OwnerIn::Unpacked(s, t, unpacked));
                }
                // tells that it is alone
                OwnerOut::Members(..) | OwnerOut::Returned(..) => {}
                OwnerOut::Send(..) | OwnerOut::ReadChunk(..) | OwnerOut::Load(..) | OwnerOut::AskLeader(..) => {
                    self.halted = Some("a node alone has nobody to talk to".into());
                }
                OwnerOut::Log(..) => {}
                OwnerOut::Halt(why) | OwnerOut::Lost(why) => self.halted = Some(why),
            }
        }
    }

    fn shard_out(&mut self, shard: usize, out: Vec<ShardOut>) {
        let id = ShardId(shard as u16);
        for o in out {
            match o {
                ShardOut::Reply(tag, reply) => {
                    self.note(tag, &reply);
                    self.replies.push_back((tag, reply));
                }
                ShardOut::Propose(p) => self.to_owner.push_back(OwnerIn::Propose(id, p)),
                ShardOut::Tip(c) => {
                    self.tips += 1;
                    self.to_owner.push_back(OwnerIn::Tip(id, c));
                }
                ShardOut::Owner(t, op) => self.to_owner.push_back(OwnerIn::Operate(id, t, op)),
                ShardOut::Control(t, c) => self.to_owner.push_back(OwnerIn::Control(id, t, c)),
                ShardOut::Withdrawn(s) => self.to_owner.push_back(OwnerIn::Withdrawn(id, s)),
                ShardOut::Side(t, op) => self.side(Whom::Shard(shard, t), &op),
                ShardOut::Login(note) => self.to_owner.push_back(OwnerIn::Login(note)),
                ShardOut::Await(t, index, what) => self.to_owner.push_back(OwnerIn::Await(id, t, index, what)),
                ShardOut::Audit(t, _) => self.to_shard[shard].push_back(ShardIn::AuditDone(t, true)),
                ShardOut::Forward(..) | ShardOut::NotDone(..) => {
                    self.halted = Some("a node alone passes nothing on".into())
                }
                ShardOut::Fault(_, cause) => self.halted = Some(format!("internal error: {cause}")),
            }
        }
    }

    /// Folds an answer into the digest.
    fn note(&mut self, tag: u64, reply: &Reply) {
        let mut h = self.digest ^ tag.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if let Body::Json(b) = &reply.body {
            for chunk in b.chunks(8) {
                let mut w = [0u8; 8];
                w[..chunk.len()].copy_from_slice(chunk);
                h = (h ^ u64::from_le_bytes(w)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
            }
        }
        self.digest = h;
        let _ = &self.vault;
    }
}

pub(crate) fn json_of(reply: &Reply) -> Value {
    match &reply.body {
        Body::Json(b) => serde_json::from_slice(b).unwrap_or(Value::Null),
        Body::Raw(r) => serde_json::from_slice(&r.body).unwrap_or(Value::Null),
        Body::Empty => Value::Null,
    }
}

/// The value of a register, checked to be whole; 0 if it was never written.
fn value_of(reply: &Reply, key: u64) -> Result<u64, String> {
    if reply.code == Code::NotFound {
        return Ok(0);
    }
    let v = json_of(reply);
    let data = &v["data"]["data"];
    match (data["n"].as_u64(), data["again"].as_u64()) {
        (Some(n), Some(again)) if n == again && data["secret"] == CANARY => Ok(n),
        _ => Err(format!("{}: k{key} holds half a write or none: {:?} {v}", promise::ACKNOWLEDGED, reply.code)),
    }
}
