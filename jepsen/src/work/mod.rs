//! Workloads: what clients do, by name. Each client is a thread with its own random numbers; each call is noted with its
//! beginning and its end, and judged later from these notes alone.

mod kv;
mod policy;
mod token;

use crate::client::{Answer, Client, Trouble};
use crate::cluster::Cluster;
use crate::history::{Event, Kind, Recorder};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Names of all workloads.
pub const ALL: [&str; 8] = ["register", "append", "policy", "unwrap", "uses", "revoked", "lease", "batch"];

/// What a workload is for, for people.
pub fn about(name: &str) -> &'static str {
    match name {
        "register" => "reads, writes and check-and-sets of KV v2 keys",
        "append" => "lists that clients append to by check-and-set",
        "policy" => "a policy that changes while tokens under it are used",
        "unwrap" => "wrapping tokens that several clients try to open",
        "uses" => "tokens of N uses, used more often",
        "revoked" => "tokens that are revoked while they are used",
        "lease" => "tokens of a few seconds, used before and after",
        "batch" => "batch tokens, and the revocation of their parent",
        _ => "unknown",
    }
}

/// What all clients and faults share.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The history.
    pub recorder: Recorder,
    /// Held for reading during each call. Odd while a snapshot is being restored; see [`crate::history::is_limbo`].
    pub era: RwLock<u64>,
    /// No more faults.
    pub calm: AtomicBool,
    /// Clients stop.
    pub stop: AtomicBool,
    /// Everything stops: somebody interrupted the run.
    pub interrupted: Arc<AtomicBool>,
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// Rest of a client between two calls.
    pub rest: Duration,
}

impl World {
    /// The era of now.
    pub fn era_now(&self) -> u64 {
        *self.era.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next era, as soon as no call of this one is under way.
    pub fn next_era(&self) {
        *self.era.write().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// Faults are to end.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed) || self.is_over()
    }

    /// Clients are to end.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.interrupted.load(Ordering::Relaxed)
    }
}

/// How a call ended, for the client that made it.
pub enum Ended {
    /// Done, with the answer.
    Ok(Answer),
    /// Not done.
    Fail,
    /// Nobody knows.
    Info,
    /// Nothing was asked: the era had changed.
    Moved,
}

/// Whether an error of the server means that nothing was done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing: whatever is not answered was not done.
    Read,
    /// Changes something: an answer of the kind 5xx leaves open whether it did.
    Write,
}

/// A call to be made.
pub struct Ask<'a> {
    /// Workload.
    pub workload: &'static str,
    /// Operation.
    pub f: &'static str,
    /// Key, with its era.
    pub key: &'a str,
    /// Noted as the input.
    pub input: Value,
    /// What it may change.
    pub effect: Effect,
}

/// A client.
pub struct Worker {
    /// What it shares.
    pub world: Arc<World>,
    /// Its number.
    pub process: i64,
    /// Its random numbers.
    pub rng: fastrand::Rng,
    /// Its HTTP.
    pub client: Client,
    /// The root token.
    pub root: String,
    /// Asks this node only.
    pub node: Option<usize>,
}

/// A key in an era.
pub fn key_of(name: &str, era: u64) -> String {
    format!("{name}~{era}")
}

fn era_of(key: &str) -> u64 {
    key.rsplit_once('~').and_then(|(_, e)| e.parse().ok()).unwrap_or(0)
}

impl Worker {
    /// A client of a run.
    pub fn new(world: Arc<World>, process: i64, seed: u64) -> Worker {
        let root = world.cluster.root();
        let client = Client::new(world.patience);
        Worker { world, process, rng: fastrand::Rng::with_seed(seed), client, root, node: None }
    }

    /// A node that is drawn, or the one this client keeps to.
    pub fn pick(&mut self) -> usize {
        let drawn = self.rng.usize(0..self.world.cluster.len());
        self.node.unwrap_or(drawn)
    }

    /// Makes a call and notes it. `run` makes it, given the base of the node's API; `read` says what an `ok` is noted with.
    pub fn call(
        &mut self,
        ask: Ask<'_>,
        run: impl FnOnce(&Client, &str) -> Result<Answer, Trouble>,
        read: impl FnOnce(&Answer) -> Value,
    ) -> Ended {
        let node = self.pick();
        let world = self.world.clone();
        let era = world.era.read().unwrap_or_else(PoisonError::into_inner);
        if *era != era_of(ask.key) {
            return Ended::Moved;
        }
        let name = world.cluster.nodes[node].name.clone();
        let event = |kind, value, error| Event {
            time: 0,
            process: self.process,
            kind,
            workload: ask.workload.into(),
            f: ask.f.into(),
            key: ask.key.into(),
            value,
            node: name.clone(),
            error,
        };
        world.recorder.note(event(Kind::Invoke, ask.input, None));
        let answer = run(&self.client, &world.cluster.nodes[node].base());
        let lost = if ask.effect == Effect::Read { Kind::Fail } else { Kind::Info };
        let (kind, value, error) = match &answer {
            Ok(a) if a.is_ok() || (a.status == 404 && ask.f == "read") => (Kind::Ok, read(a), None),
            Ok(a) => {
                (if (400..=429).contains(&a.status) { Kind::Fail } else { lost }, Value::Null, Some(error_of(a)))
            }
            Err(Trouble::NotSent(_)) => (Kind::Fail, Value::Null, Some("connect".into())),
            Err(e) => (lost, Value::Null, Some(e.to_string())),
        };
        world.recorder.note(event(kind, value, error));
        match (kind, answer) {
            (Kind::Ok, Ok(a)) => Ended::Ok(a),
            (Kind::Fail, _) => Ended::Fail,
            _ => Ended::Info,
        }
    }

    /// A token by the root token, without being noted; several tries.
    pub fn token(&mut self, body: &Value) -> Option<String> {
        for _ in 0..3 {
            let node = self.pick();
            let base = self.world.cluster.nodes[node].base();
            if let Ok(a) = self.client.call(&base, "POST", "auth/token/create", &self.root, body)
                && let Some(text) = a.body["auth"]["client_token"].as_str()
            {
                return Some(text.to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}

/// What the checkers tell errors by: `cas`, or the status, with the server's words where they matter to people.
fn error_of(a: &Answer) -> String {
    let text = a.error();
    match a.status {
        400 if text.contains("check-and-set") => "cas".into(),
        // the wrapping endpoints say 400 for a token that is not there
        400 if text.contains("wrapping token") => crate::check::REFUSED.into(),
        403 => crate::check::REFUSED.into(),
        _ => text,
    }
}

/// What the clients of all workloads share.
#[derive(Default)]
pub struct Shared {
    ops: AtomicU64,
    policy_values: Mutex<std::collections::BTreeMap<String, i64>>,
    tokens: token::Pools,
}

/// Makes what the workloads need in the cluster.
///
/// # Errors
/// The server's refusal.
pub fn set_up(cluster: &Cluster) -> Result<(), String> {
    let body = json!({"type": "kv", "options": {"version": "2"}});
    let a = cluster.ask(0, "POST", "sys/mounts/secret", &body).map_err(|e| format!("mount: {e}"))?;
    if !a.is_ok() {
        return Err(format!("mount: {}", a.error()));
    }
    // a mount of version 2 may answer 503 while it is made ready
    crate::cluster::wait_for("the mount serves", crate::cluster::PATIENCE, || {
        cluster.ask(0, "POST", "secret/data/ready", &json!({"data": {"value": 1}})).is_ok_and(|a| a.is_ok())
    })
}

/// Runs one client of a workload until the world is over.
pub fn client(name: &str, mut w: Worker, shared: &Shared) {
    let mut step: Box<dyn FnMut(&mut Worker)> = match name {
        "register" => {
            let mut state = kv::Register::default();
            Box::new(move |w| state.step(w, shared))
        }
        "append" => Box::new(move |w| kv::append(w, shared)),
        "policy" => {
            let mut state = policy::Policies::default();
            Box::new(move |w| state.step(w, shared))
        }
        "lease" => {
            let mut state = token::Leases::default();
            Box::new(move |w| state.step(w, shared))
        }
        "batch" => {
            let mut state = token::Batch::default();
            Box::new(move |w| state.step(w, shared))
        }
        "unwrap" => Box::new(move |w| token::unwrap(w, shared)),
        "uses" => Box::new(move |w| token::uses(w, shared)),
        _ => Box::new(move |w| token::revoked(w, shared)),
    };
    while !w.world.is_over() {
        step(&mut w);
        let rest = w.world.rest.mul_f64(0.5 + w.rng.f64());
        std::thread::sleep(rest);
    }
}

/// When the faults are over: every key is read through every node, and every node writes.
pub fn last_look(world: &Arc<World>, names: &[String], shared: &Shared, process: i64) {
    for node in 0..world.cluster.len() {
        let mut w = Worker::new(world.clone(), process, node as u64);
        w.node = Some(node);
        let key = key_of(&format!("final{node}"), world.era_now());
        for (f, method) in [("write", "POST"), ("read", "GET")] {
            let body = if f == "write" { json!({"data": {"value": 1}}) } else { Value::Null };
            let (root, path) = (w.root.clone(), format!("secret/data/{}", path_of(&key)));
            let ask = Ask { workload: "final", f, key: &key, input: body.clone(), effect: Effect::Write };
            w.call(ask, |c, base| c.call(base, method, &path, &root, &body), |a| json!({"status": a.status}));
        }
        if names.iter().any(|n| n == "register") {
            kv::read_all_registers(&mut w, shared);
        }
        if names.iter().any(|n| n == "append") {
            kv::read_all_lists(&mut w, shared);
        }
    }
}

/// The path of a key.
fn path_of(key: &str) -> String {
    key.replace('~', "-era")
}

fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}
