//! The outside world on behalf of handlers: HTTP questions, and those that prove who controls a name. Driven by the cores, which hand in what a handler asks and
//! go on with other calls until the answer is there.
//!
//! Peers may be slow or gone, so they have threads of their own: no question ever stands in front of a password
//! comparison. One target gets a few connections at a time; what is too much for it waits a bounded while in a bounded
//! line and then fails, and other targets do not notice. Questions that allow it are answered from memory, and the
//! same question asked by many at once is asked once.

mod dns;
mod http;
mod names;
mod probe;

use crate::rt::Pool;
use crate::rt::channel::{self, Replier};
use crate::sql;
use ringfence_node::{HttpAsk, Probe, ProbeKind, SideOp, SideResult, perform};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many questions of a kind may be under way and wait.
#[derive(Clone, Copy)]
struct Bounds {
    /// Of the pool's threads.
    name: &'static str,
    /// Questions under way at once.
    threads: usize,
    /// Of these, to one target.
    running_per_target: usize,
    /// Questions that wait for one target.
    waiting_per_target: usize,
    /// Questions under way and waiting, to all targets.
    all: usize,
}

/// Targets that the configuration names.
const CONFIGURED: Bounds =
    Bounds { name: "outside", threads: 32, running_per_target: 8, waiting_per_target: 256, all: 8192 };
/// Targets that whoever asks chooses (challenges of ACME): few, and apart, so that hosts which never answer cost those
/// that were configured nothing.
const STRANGERS: Bounds =
    Bounds { name: "strangers", threads: 8, running_per_target: 2, waiting_per_target: 16, all: 64 };
/// Answers kept in memory, and their bytes.
const MAX_REMEMBERED: usize = 256;
const MAX_REMEMBERED_BYTES: usize = 16 * 1024 * 1024;

/// The threads of a process on which side operations run.
pub struct Threads {
    /// For computations, which end by themselves.
    pub pool: Arc<Pool>,
    outside: Arc<Outside>,
    strangers: Arc<Outside>,
}

impl Threads {
    /// No thread is started before its first work.
    pub fn new() -> Arc<Threads> {
        Arc::new(Threads {
            pool: Arc::new(Pool::new("side", 4)),
            outside: Outside::new(),
            strangers: Outside::of(STRANGERS),
        })
    }

    /// Carries a side operation out, and waits for it without blocking.
    pub async fn perform(&self, op: SideOp) -> SideResult {
        match op {
            SideOp::Http(ask) if ask.reach.public_addresses_only => self.strangers.ask(Question::Http(*ask)).await,
            SideOp::Http(ask) => self.outside.ask(Question::Http(*ask)).await,
            SideOp::Probe(probe) => self.strangers.ask(Question::Probe(*probe)).await,
            SideOp::Sql(ask) => sql::run(*ask).await,
            op => self.pool.run(move || perform(&op)).await,
        }
    }
}

/// What is asked.
#[derive(Debug, PartialEq)]
pub enum Question {
    /// An HTTP server.
    Http(HttpAsk),
    /// A name server, or a TLS server for its certificate.
    Probe(Probe),
}

impl Question {
    /// Whose connections it takes a share of.
    fn target(&self) -> String {
        match self {
            Question::Http(ask) => target_of(&ask.url),
            // one resolver answers for all names, so it is names that are told apart
            Question::Probe(Probe { what: ProbeKind::Texts { name }, .. }) => format!("dns://{name}"),
            Question::Probe(Probe { what: ProbeKind::Leaf { host, .. }, .. }) => format!("tls://{host}"),
        }
    }

    fn timeout_ms(&self) -> u32 {
        match self {
            Question::Http(ask) => ask.timeout_ms,
            Question::Probe(probe) => probe.timeout_ms,
        }
    }

    /// How old a remembered answer may be; 0 = none is wanted.
    fn fresh_s(&self) -> u32 {
        match self {
            Question::Http(ask) => ask.fresh_s,
            Question::Probe(_) => 0,
        }
    }
}

impl From<HttpAsk> for Question {
    fn from(ask: HttpAsk) -> Question {
        Question::Http(ask)
    }
}

/// Questions to the outside world.
pub struct Outside {
    bounds: Bounds,
    pool: Pool,
    state: Mutex<State>,
    carrier: http::Carrier,
}

#[derive(Default)]
struct State {
    /// Questions under way and waiting.
    all: usize,
    targets: BTreeMap<String, Target>,
    remembered: VecDeque<Remembered>,
    remembered_bytes: usize,
    next_id: u64,
}

/// Invariant: there is one only while `running > 0`.
#[derive(Default)]
struct Target {
    running: usize,
    waiting: VecDeque<Job>,
}

/// A question whose answer may serve others.
struct Remembered {
    id: u64,
    ask: Arc<Question>,
    /// The answer and when it came; `None` while it is under way.
    answer: Option<(Instant, SideResult)>,
    waiters: Vec<Replier<SideResult>>,
}

struct Job {
    ask: Arc<Question>,
    /// Who waits for it: one, or those of a remembered question.
    whose: Whose,
    since: Instant,
}

enum Whose {
    One(Replier<SideResult>),
    Remembered(u64),
}

impl Outside {
    /// Nothing is started before the first question.
    pub fn new() -> Arc<Outside> {
        Outside::of(CONFIGURED)
    }

    fn of(bounds: Bounds) -> Arc<Outside> {
        Arc::new(Outside {
            bounds,
            pool: Pool::new(bounds.name, bounds.threads),
            state: Mutex::default(),
            carrier: http::Carrier::default(),
        })
    }

    /// Asks, and waits for the answer without blocking.
    pub async fn ask(self: &Arc<Self>, ask: impl Into<Question>) -> SideResult {
        let (replier, reply) = channel::reply();
        self.admit(Arc::new(ask.into()), replier);
        reply.await.unwrap_or_else(|_| SideResult::Failed("the question was dropped".into()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, ask: Arc<Question>, replier: Replier<SideResult>) {
        let mut state = self.lock();
        let whose = match ask.fresh_s() {
            0 => Whose::One(replier),
            seconds => match state.recall(&ask, Duration::from_secs(seconds.into())) {
                Recalled::Answer(answer) => {
                    drop(state);
                    let _ = replier.send(answer);
                    return;
                }
                Recalled::UnderWay(entry) => {
                    entry.waiters.push(replier);
                    return;
                }
                Recalled::Unknown => Whose::Remembered(state.remember(ask.clone(), replier)),
            },
        };
        let job = Job { whose, since: Instant::now(), ask };
        let has_room = state.all < self.bounds.all;
        let target = state.targets.entry(job.ask.target()).or_default();
        if has_room && target.running < self.bounds.running_per_target {
            target.running += 1;
            state.all += 1;
            drop(state);
            self.start(job);
        } else if has_room && target.waiting.len() < self.bounds.waiting_per_target {
            target.waiting.push_back(job);
            state.all += 1;
        } else {
            if target.running == 0 {
                state.targets.remove(&job.ask.target());
            }
            let why = format!("too many requests wait for {}", job.ask.target());
            let waiters = state.settle(job.whose, &SideResult::Failed(why.clone()));
            drop(state);
            tell(waiters, &SideResult::Failed(why));
        }
    }

    fn start(self: &Arc<Self>, job: Job) {
        let outside = self.clone();
        self.pool.push(Box::new(move || outside.carry_out(job)));
    }

    /// On a thread of the pool.
    fn carry_out(self: &Arc<Self>, job: Job) {
        let patience = Duration::from_millis(job.ask.timeout_ms().into());
        let result = if job.since.elapsed() > patience {
            SideResult::Failed(format!("{}: no connection became free in time", job.ask.target()))
        } else {
            // a fault of a library costs its question, not the thread's place at the target
            catch_unwind(AssertUnwindSafe(|| match &*job.ask {
                Question::Http(ask) => self.carrier.carry_out(ask),
                Question::Probe(probe) => probe::carry_out(probe),
            }))
            .unwrap_or_else(|_| SideResult::Failed("the client of the question failed".into()))
        };
        let name = job.ask.target();
        let mut state = self.lock();
        state.all -= 1;
        let waiters = state.settle(job.whose, &result);
        let next = match state.targets.get_mut(&name) {
            None => None,
            Some(target) => {
                let next = target.waiting.pop_front();
                if next.is_none() {
                    target.running -= 1;
                    if target.running == 0 {
                        state.targets.remove(&name);
                    }
                }
                next
            }
        };
        drop(state);
        tell(waiters, &result);
        if let Some(next) = next {
            self.start(next);
        }
    }
}

fn tell(waiters: Vec<Replier<SideResult>>, result: &SideResult) {
    for waiter in waiters {
        // whoever went away does not wait any more
        let _ = waiter.send(result.clone());
    }
}

/// What memory knows of a question.
enum Recalled<'s> {
    Answer(SideResult),
    UnderWay(&'s mut Remembered),
    Unknown,
}

impl State {
    fn recall(&mut self, ask: &Question, youth: Duration) -> Recalled<'_> {
        let Some(at) = self.remembered.iter().rposition(|r| *r.ask == *ask) else { return Recalled::Unknown };
        match &self.remembered[at].answer {
            None => Recalled::UnderWay(&mut self.remembered[at]),
            Some((when, answer)) if when.elapsed() <= youth => Recalled::Answer(answer.clone()),
            Some(_) => {
                self.forget(at);
                Recalled::Unknown
            }
        }
    }

    fn remember(&mut self, ask: Arc<Question>, replier: Replier<SideResult>) -> u64 {
        self.next_id += 1;
        self.remembered.push_back(Remembered { id: self.next_id, ask, answer: None, waiters: vec![replier] });
        self.next_id
    }

    /// Takes an answer in and gives those who wait for it.
    fn settle(&mut self, whose: Whose, result: &SideResult) -> Vec<Replier<SideResult>> {
        let id = match whose {
            Whose::One(replier) => return vec![replier],
            Whose::Remembered(id) => id,
        };
        let Some(entry) = self.remembered.iter_mut().find(|r| r.id == id) else { return Vec::new() };
        entry.answer = Some((Instant::now(), result.clone()));
        let waiters = std::mem::take(&mut entry.waiters);
        self.remembered_bytes += bytes_of(result);
        while self.remembered.len() > MAX_REMEMBERED || self.remembered_bytes > MAX_REMEMBERED_BYTES {
            // the oldest that is not under way: somebody waits for those
            match self.remembered.iter().position(|r| r.answer.is_some()) {
                Some(at) => self.forget(at),
                None => break,
            }
        }
        waiters
    }

    fn forget(&mut self, at: usize) {
        if let Some(gone) = self.remembered.remove(at)
            && let Some((_, answer)) = gone.answer
        {
            self.remembered_bytes -= bytes_of(&answer);
        }
    }
}

fn bytes_of(result: &SideResult) -> usize {
    match result {
        SideResult::Http(answer) => answer.body.len(),
        _ => 0,
    }
}

/// Scheme, host and port of a URL.
fn target_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{}://{}", scheme.to_ascii_lowercase(), host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
