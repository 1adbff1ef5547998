//! Accounts in a database are the accounts of live leases: one node that crashes at its disk operations, one database
//! that takes its time, refuses, loses answers and carries out what it was told after the node is dead. At every quiet
//! moment, that is when the database is well and nothing is under way but time, both sides are compared.

use crate::disk::SimDisk;
use crate::world::{Violation, World, json_of};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Mono, Now, Wall};
use ringfence_node::{Code, Operation, Reply, Settings, SideResult, SqlAsk, Ticket, Vault, registry};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SECOND_NS: u64 = 1_000_000_000;
/// The database answers within this time or not at all: less than the engine waits before it undoes an account that
/// nobody told it of.
const SLOWEST_ANSWER_NS: u64 = 8 * SECOND_NS;
/// Time in which everything must come to rest once the database is well: intents wait half a minute, what failed
/// backs off to minutes.
const REST_NS: u64 = 3600 * SECOND_NS;
/// Life of the leases of the role `short`, seconds.
const SHORT_TTL: u64 = 15;
const PATIENCE_STEPS: u64 = 400_000;

/// Who asked a database.
pub(crate) enum Whom {
    /// A request's run.
    Shard(usize, Ticket),
    /// The worker of leases and jobs.
    Worker(u64),
}

/// What becomes of what a database was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Done, and said so.
    Done,
    /// Not done, and said so.
    Refused,
    /// Done, but the answer is lost and the client sees a failure.
    AnswerLost,
}

struct Pending {
    /// `None`: whoever asked is dead.
    whom: Option<Whom>,
    statements: Vec<String>,
    done_at: Mono,
    fate: Fate,
}

/// A database with accounts, beside the node. It knows two statements: `CREATE "name"` and `DROP "name"`.
pub(crate) struct Service {
    accounts: BTreeSet<String>,
    pending: Vec<Pending>,
    rng: SeededEntropy,
    /// Nothing fails any more.
    well: bool,
    /// Says that accounts are dropped and keeps some of them: what the comparison must notice.
    lies: bool,
    created: u64,
    failures: u64,
}

impl Service {
    fn new(seed: u64, lies: bool) -> Service {
        Service {
            accounts: BTreeSet::new(),
            pending: Vec::new(),
            rng: SeededEntropy(seed),
            well: true,
            lies,
            created: 0,
            failures: 0,
        }
    }

    /// Statements arrive.
    pub(crate) fn take(&mut self, whom: Whom, ask: &SqlAsk, now: Mono) {
        let fate = match self.rng.next_u64() % 8 {
            _ if self.well => Fate::Done,
            0 | 1 => Fate::Refused,
            2 => Fate::AnswerLost,
            _ => Fate::Done,
        };
        self.failures += u64::from(fate != Fate::Done);
        // most are quick
        let slowest = if self.rng.next_u64().is_multiple_of(4) { SLOWEST_ANSWER_NS } else { SECOND_NS / 20 };
        let done_at = now.plus_ns(self.rng.next_u64() % slowest);
        let statements = ask.statements.iter().map(|s| s.expose().clone()).collect();
        self.pending.push(Pending { whom: Some(whom), statements, done_at, fate });
    }

    /// Carries out what is due.
    pub(crate) fn turn(&mut self, now: Mono) -> Vec<(Whom, SideResult)> {
        let mut answers = Vec::new();
        for p in std::mem::take(&mut self.pending) {
            if p.done_at > now {
                self.pending.push(p);
                continue;
            }
            if p.fate != Fate::Refused {
                p.statements.iter().for_each(|s| self.execute(s));
            }
            let result = match p.fate {
                Fate::Done => SideResult::Json(Value::Null),
                Fate::Refused => SideResult::Failed("failed to connect: the simulated database refuses".into()),
                Fate::AnswerLost => SideResult::Failed("the connection broke".into()),
            };
            answers.extend(p.whom.map(|w| (w, result)));
        }
        answers
    }

    fn execute(&mut self, statement: &str) {
        let Some((verb, name)) = statement.trim_end_matches('"').split_once(" \"") else { return };
        match verb {
            "CREATE" => {
                self.created += 1;
                self.accounts.insert(name.to_owned());
            }
            "DROP" if self.lies && self.rng.next_u64().is_multiple_of(4) => {}
            "DROP" => {
                self.accounts.remove(name);
            }
            _ => {}
        }
    }

    /// The node died: nobody hears the answers, and what is on its way may still arrive.
    fn survive(&mut self) {
        let rng = &mut self.rng;
        self.pending.retain(|_| rng.next_u64().is_multiple_of(2));
        self.pending.iter_mut().for_each(|p| p.whom = None);
    }
}

/// A run over a node with a database.
#[derive(Clone, Copy, Debug)]
pub struct AccountsRun {
    /// Everything comes from it.
    pub seed: u64,
    /// Lives of the node.
    pub lives: u64,
    /// Disk operations of a life, at most; the crash falls on one of them.
    pub operations_a_life: u64,
    /// The database lies about what it dropped; the run must find that out.
    pub lies: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct AccountsReport {
    /// Accounts that were made, undone ones with them.
    pub created: u64,
    /// Statements that failed or whose answer was lost.
    pub failures: u64,
    /// Comparisons.
    pub compared: u64,
    /// Accounts that clients were told of.
    pub told: u64,
    /// Leases that clients ended.
    pub revoked: u64,
    /// A hash over everything that was answered: equal for equal seeds.
    pub digest: u64,
}

/// What clients know of an account.
struct Known {
    lease: String,
    username: String,
    revoked: bool,
}

enum Asked {
    Creds,
    Revoke(usize),
    Other,
}

impl AccountsRun {
    /// Runs to the end or to the first broken promise.
    pub fn go(&self) -> Result<AccountsReport, Violation> {
        let fail = |what: String| Violation { seed: self.seed, what };
        let mut rng = SeededEntropy(self.seed);
        let vault = Arc::new(Vault::new(registry(), Settings::default()));
        let (mut disk, mut report) = (SimDisk::default(), AccountsReport::default());
        let mut service = Service::new(rng.next_u64(), self.lies);
        let mut keys: Option<(String, String)> = None;
        let mut known: Vec<Known> = Vec::new();
        let mut now = Now { mono: Mono(1), wall: Wall::from_seconds(1_700_000_000) };
        for life in 0..self.lives {
            let at = |e: String| fail(format!("life {life}: {e}"));
            let found = disk.recover().map_err(|e| at(format!("the node does not start: {e}")))?;
            let mut w = World::new(vault.clone(), disk, found, SeededEntropy(rng.next_u64()), now);
            w.service = Some(service);
            w.initialized();
            match &keys {
                Some((key, _)) => w.unseal(key).map_err(at)?,
                None => {
                    keys = w.begin().map_err(at)?;
                    let root = keys.as_ref().map_or("", |(_, root)| root.as_str());
                    prepare(&mut w, root).map_err(at)?;
                }
            }
            let root = keys.as_ref().map(|(_, root)| root.clone()).unwrap_or_default();
            // some crashes follow upon each other, without time to heal
            if !rng.next_u64().is_multiple_of(3) {
                compare(&mut w, &root, &known).map_err(at)?;
                report.compared += 1;
            }
            let budget = 1 + rng.next_u64() % self.operations_a_life;
            live(&mut w, &root, &mut known, &mut report, budget).map_err(at)?;
            if life + 1 == self.lives {
                compare(&mut w, &root, &known).map_err(at)?;
                report.compared += 1;
            }
            report.digest = report.digest.rotate_left(7) ^ w.digest;
            now = w.now;
            disk = w.disk;
            disk.crash(&mut rng);
            service = w.service.take().expect("it was put there above and nothing takes it");
            service.survive();
        }
        report.told = known.len() as u64;
        (report.created, report.failures) = (service.created, service.failures);
        Ok(report)
    }
}

/// Mount, connection and roles.
fn prepare(w: &mut World, root: &str) -> Result<(), String> {
    let role = |ttl: u64| {
        json!({
            "db_name": "db", "creation_statements": ["CREATE \"{{name}}\"", "GRANT \"{{name}}\""],
            "revocation_statements": ["DROP \"{{name}}\""], "renew_statements": ["EXTEND \"{{name}}\""],
            "default_ttl": ttl, "max_ttl": 0,
        })
    };
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": "admin", "password": "x",
        "connection_url": "postgresql://{{username}}:{{password}}@db.example:5432/db",
    });
    for (path, body) in [
        ("sys/mounts/database", json!({"type": "database"})),
        ("database/config/db", connection),
        ("database/roles/long", role(864_000)),
        ("database/roles/short", role(SHORT_TTL)),
    ] {
        let a = w.ask(path, root, body)?;
        if !matches!(a.code, Code::Ok | Code::NoContent) {
            return Err(format!("{path}: {}", json_of(&a)));
        }
    }
    Ok(())
}

/// Clients at work, with a database that fails, until the disk has done `budget` operations. Then the node crashes.
fn live(
    w: &mut World,
    root: &str,
    known: &mut Vec<Known>,
    report: &mut AccountsReport,
    budget: u64,
) -> Result<(), String> {
    let end = w.disk.completed + budget;
    let mut asked: BTreeMap<u64, Asked> = BTreeMap::new();
    if let Some(s) = &mut w.service {
        s.well = false;
    }
    for _ in 0..PATIENCE_STEPS {
        if w.disk.completed >= end {
            return Ok(());
        }
        if asked.len() < 6 {
            let pick = w.rng.next_u64() % 100;
            let some = (!known.is_empty()).then(|| (w.rng.next_u64() as usize) % known.len().max(1));
            let (what, op, path, body) = match (pick, some) {
                (0..40, _) => (Asked::Creds, Operation::Read, "database/creds/long", Value::Null),
                (40..60, _) => (Asked::Creds, Operation::Read, "database/creds/short", Value::Null),
                (60..80, Some(i)) => {
                    let body = json!({"lease_id": known[i].lease});
                    (Asked::Revoke(i), Operation::Update, "sys/leases/revoke", body)
                }
                (80..90, Some(i)) => {
                    (Asked::Other, Operation::Update, "sys/leases/renew", json!({"lease_id": known[i].lease}))
                }
                (90..91, _) => {
                    (Asked::Other, Operation::Update, "sys/leases/revoke-prefix/database/creds/long", Value::Null)
                }
                _ => (Asked::Other, Operation::Read, "database/roles/long", Value::Null),
            };
            let shard = (w.rng.next_u64() % 2) as usize;
            let tag = w.send(shard, op, path, root, body, 0);
            asked.insert(tag, what);
        }
        w.step();
        while let Some((tag, reply)) = w.replies.pop_front() {
            let ok = matches!(reply.code, Code::Ok | Code::NoContent);
            match asked.remove(&tag) {
                Some(Asked::Creds) if ok => known.push(told(&reply)),
                Some(Asked::Revoke(i)) if ok => {
                    known[i].revoked = true;
                    report.revoked += 1;
                }
                _ => {}
            }
        }
        if let Some(why) = w.halted.take() {
            return Err(format!("the node halted: {why}"));
        }
    }
    Err("the node does nothing any more".into())
}

fn told(reply: &Reply) -> Known {
    let v = json_of(reply);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Known { lease: text(&v["lease_id"]), username: text(&v["data"]["username"]), revoked: false }
}

/// The database is well; waits until all is still, and compares.
fn compare(w: &mut World, root: &str, known: &[Known]) -> Result<(), String> {
    if let Some(s) = &mut w.service {
        s.well = true;
    }
    let until = w.now.mono.plus_ns(REST_NS);
    while w.now.mono < until {
        w.step();
        // nothing but time is waited for: much of it may pass at once
        if w.is_still() && w.service.as_ref().is_none_or(|s| s.pending.is_empty()) {
            w.pass(SECOND_NS / 2);
        }
        if let Some(why) = w.halted.take() {
            return Err(format!("the node halted: {why}"));
        }
    }
    w.replies.clear();
    let mut leases = BTreeSet::new();
    for role in ["long", "short"] {
        let path = format!("sys/leases/lookup/database/creds/{role}/");
        let a = w.ask_op(Operation::List, &path, root, Value::Null)?;
        let v = json_of(&a);
        let keys = v["data"]["keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
        leases.extend(keys.map(|k| format!("database/creds/{role}/{k}")));
    }
    let accounts = w.service.as_ref().map(|s| s.accounts.clone()).unwrap_or_default();
    for k in known {
        let (lives, stands) = (leases.contains(&k.lease), accounts.contains(&k.username));
        if lives != stands {
            let word = |b| if b { "is there" } else { "is not there" };
            return Err(format!(
                "the lease {} {}, its account {} {}",
                k.lease,
                word(lives),
                k.username,
                word(stands)
            ));
        }
        if k.revoked && stands {
            return Err(format!("the account {} of a revoked lease is there", k.username));
        }
    }
    // those nobody was told of have leases too, or are gone
    if accounts.len() != leases.len() {
        return Err(format!("{} accounts and {} leases: {accounts:?} {leases:?}", accounts.len(), leases.len()));
    }
    Ok(())
}
