//! One core's machine: it takes calls, runs the pipeline over the published version, and follows each call through
//! what it waits for: audit devices, the log, a side operation, the owner.
//!
//! ```text
//!            run ──read only──> [audit both lines] ──────────────────────────────> reply
//!   call ──>  │
//!     ^       ├──writes──> [audit request] ──> propose ──committed──> [audit response] ──> reply
//!     │       │                                   ├─refused─> run again on a fresh version
//!     │       │                                   └─refused twice─> the owner runs it over the tip, where none loses
//!     │       └──side──> [audit request] ──> side operation or owner ──> run again with its result
//!     └──────────────────────────────── use of a use-limited token committed ──┘
//! ```
//!
//! A standby's core runs calls too, over transactions that are never committed. A run that turns out to write, or to do
//! anything beyond a computation, is dropped before any effect, and the call goes to the active node whole.
//!
//! Pure: driven by `server` (one per core) and by the simulator. Never blocks, never holds a transaction over a wait.

use crate::cell::{Cell, Keys};
use crate::control;
use crate::forward;
use crate::position::{self, Demand};
use crate::tip::{TipCall, TipDone, TipLine};
use crate::writing_reads::WritingReads;
use ringfence_barrier::{BarrierError, Finished, ReadSet, Sealer, Txn};
use ringfence_base::{Code, Entropy, Index, Mono, Now, Wall};
use ringfence_logical::{Error, Map, Operation, OwnerOp, Response, Resume, SideOp, SideResult};
use ringfence_store::Batch;
use ringfence_vault::audit::{Line, Lines};
use ringfence_vault::call::{Body, Call, Reply};
use ringfence_vault::host::{ClusterFacts, CoreState, Vault};
use ringfence_vault::pipeline::{self, LoginNote, Next, Pass, Ran, Stage, Told};
use ringfence_vault::sys::config::{Cors, cors};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Runs of one call before it is given up. Only a call that goes on from a side operation can get there: any other is
/// run by the owner when it has lost [`LOSSES`] times.
const MAX_ATTEMPTS: u32 = 1000;
/// Lost races after which a call is handed to the owner.
const LOSSES: u32 = 2;
/// While no active node is known, a call that may be done elsewhere waits so long for one, ns: longer than an election
/// takes.
const PATIENCE_NS: u64 = 4_000_000_000;
/// Calls that wait so on one core; a further one is refused at once.
const MAX_PARKED: usize = 4096;

/// Names a call while the shard waits for something on its behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Writes handed to the owner.
#[derive(Debug)]
pub struct Proposal {
    /// Answered by [`ShardIn::Settled`].
    pub ticket: Ticket,
    /// Sealed writes.
    pub batch: Batch,
    /// What they rest on.
    pub reads: ReadSet,
    /// The index they were read at.
    pub read_index: Index,
    /// Records sealed on this core since its last proposal, for the rotation's count.
    pub sealed: u64,
    /// Refused, it will be run here again: the answer waits until this core can read what overtook it.
    pub returns: bool,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Committed and applied; the cell that holds it is published.
    Committed(Index),
    /// Something it read was written meanwhile, or its read index is too old: run again.
    Refused,
    /// Not appended, and nothing changed: this node does not lead, or the batch is over a limit.
    NotDone(NotDone),
    /// It may or may not have been done.
    Unknown,
}

/// Why a proposal was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// This node does not lead.
    NotActive,
    /// The disk is full: reads go on.
    NoRoom,
    /// The batch is larger than a log entry may be.
    TooLarge,
    /// Too much is waiting already.
    Busy,
    /// The image is as large as the configuration allows: reads and deletes go on.
    NoMemory,
}

/// What became of a call that was passed on.
#[derive(Debug)]
pub enum Forwarded {
    /// The active node's answer, and the index of the image that it rests on.
    Answer(Reply, Index),
    /// Not a byte of it was sent: nothing was done.
    NotSent,
    /// It was sent and no answer came: it may or may not have been done.
    Unknown,
}

/// What a call waits for an index for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// To be run.
    Call,
    /// Its answer, which another node gave, is to go out: whoever hears it finds no less here.
    Answer,
}

/// What a shard is told.
#[derive(Debug)]
pub enum ShardIn {
    /// The index that a call waits for can be read (true), or it has waited long enough.
    Reached(Ticket, bool),
    /// What became of a proposal, or why a run over the tip has no answer.
    Settled(Ticket, Settled),
    /// The owner ran the call over the tip, and what that rests on is committed.
    TipDone(Ticket, Box<TipDone>),
    /// A side operation, or an owner operation, is finished.
    SideDone(Ticket, SideResult),
    /// The audit devices took the lines (true), or none did.
    AuditDone(Ticket, bool),
    /// The owner answered a status or key-ceremony call.
    ControlDone(Ticket, Reply),
    /// What became of a call that was passed on to the active node.
    Forwarded(Ticket, Forwarded),
    /// Look again for the active node on behalf of the calls that wait for one; while [`Shard::has_parked`], every
    /// few hundredths of a second.
    Retry,
    /// Drop the keyring now and say so.
    Withdraw(u64),
}

/// What a shard asks for.
#[derive(Debug)]
pub enum ShardOut {
    /// The answer to the call that was given this tag.
    Reply(u64, Reply),
    /// The call with this tag, which a standby passed on, was not done: this node is not active.
    NotDone(u64),
    /// Append these writes.
    Propose(Proposal),
    /// Run this over the tip.
    Tip(Box<TipCall>),
    /// Do this outside.
    Side(Ticket, SideOp),
    /// The owner does this.
    Owner(Ticket, OwnerOp),
    /// The owner answers this.
    Control(Ticket, control::ControlCall),
    /// Write these lines; one device that succeeds is enough.
    Audit(Ticket, Vec<Line>),
    /// The keyring of this sequence or older is gone from this core.
    Withdrawn(u64),
    /// A login that the owner counts.
    Login(LoginNote),
    /// Say when this index can be read; answered by [`ShardIn::Reached`].
    Await(Ticket, Index, Awaiting),
    /// Pass this call on to the node with this raft id; answered once by [`ShardIn::Forwarded`].
    Forward(Ticket, u64, Box<Call>),
    /// For the log: why a request got an internal error.
    Fault(String, String),
}

/// A call under way.
struct Live {
    tag: u64,
    call: Rc<Call>,
    /// It came from a standby: it is never passed on again.
    from_peer: bool,
    use_counted: bool,
    request_audited: bool,
    resume: Option<(Resume, SideResult)>,
    attempts: u32,
    losses: u32,
    /// Counted towards rate limits: once, however often it runs.
    metered: bool,
    /// The index that it demands was looked for.
    demanded: bool,
    /// What it went on from, or waits for, is a computation that a standby began: it can begin again anywhere.
    computed: bool,
    begun: Wall,
    /// When it is given up if no active node is found.
    patience: Option<Mono>,
    waits: Waits,
}

/// What a call waits for, with what happens next.
enum Waits {
    /// Nothing: it is being run.
    Run,
    /// Audit of the request line, then the proposal.
    AuditThenPropose { finished: Box<Finished>, reply: Reply, response: Vec<Line> },
    /// Audit of the request line, then the side operation.
    AuditThenSide { op: SideOp, resume: Resume },
    /// Audit of the request line, then the proposal of an intent, then its side operation.
    AuditThenIntent { finished: Box<Finished>, op: SideOp, resume: Resume },
    /// The log: an intent; then its side operation.
    CommitIntent { op: SideOp, resume: Resume },
    /// Audit, then the reply of a call that wrote nothing.
    AuditThenReply { reply: Reply },
    /// Audit of the response line, then the reply of what is committed.
    AuditThenAcknowledge { reply: Reply },
    /// The log, then audit of the response line and the reply.
    Commit { reply: Reply, response: Vec<Line> },
    /// The log: a use is being counted.
    CommitUse,
    /// The owner's run over the tip.
    Tip,
    /// A side operation or the owner.
    Side { resume: Resume },
    /// The owner answers the whole call.
    Control,
    /// The active node answers the whole call.
    Forward,
    /// There is no active node to be seen; nothing was done.
    Parked,
    /// The index that it demands; nothing was done.
    Demand,
    /// The index that the active node's answer rests on.
    Level { reply: Reply },
    /// Audit of the request line, then the owner.
    AuditThenControl { call: control::ControlCall },
    /// Audit of what the owner answered; the answer goes out whatever the devices say.
    AuditThenAnswer { reply: Reply },
}

/// One core's machine.
pub struct Shard {
    /// Number of the core; also in the nonces of what it seals.
    number: u16,
    core: Rc<CoreState>,
    cell: Arc<Cell>,
    cluster: Rc<ClusterFacts>,
    sealer: Option<Rc<RefCell<Sealer>>>,
    /// Of the licences that the sealer is from.
    generation: u64,
    /// In boxes: calls come and go, and a tree moves its values about.
    live: BTreeMap<Ticket, Box<Live>>,
    next_ticket: u64,
    parked: Vec<Ticket>,
    writing_reads: WritingReads,
}

impl Shard {
    /// A shard that has seen this cell.
    pub fn new(number: u16, vault: Arc<Vault>, cell: Arc<Cell>) -> Shard {
        let mut s = Shard {
            number,
            core: CoreState::new(vault),
            cell: cell.clone(),
            cluster: Rc::default(),
            sealer: None,
            generation: 0,
            live: BTreeMap::new(),
            next_ticket: 1,
            parked: Vec::new(),
            writing_reads: WritingReads::default(),
        };
        s.take_keys(&cell);
        s
    }

    /// Takes a newer cell. The driver calls this before every step if the published sequence moved.
    pub fn observe(&mut self, cell: Arc<Cell>) {
        if cell.sequence > self.cell.sequence {
            self.take_keys(&cell);
            std::mem::replace(&mut self.cell, cell).let_go();
        }
    }

    /// The sequence of the cell in use.
    pub fn sequence(&self) -> u64 {
        self.cell.sequence
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.live.len()
    }

    /// The calls under way, oldest first, and when each began.
    pub fn under_way(&self) -> impl Iterator<Item = (&Call, Wall)> {
        self.live.values().map(|l| (&*l.call, l.begun))
    }

    /// The cross-origin settings as this core sees them; none while sealed.
    pub fn cors(&self) -> Option<Cors> {
        let keys = self.cell.keys.as_ref()?;
        let mut txn = Txn::new(&self.cell.version, Some(&keys.keyring));
        // a record that cannot be read opens nothing
        cors(&mut txn).ok()
    }

    fn take_keys(&mut self, cell: &Arc<Cell>) {
        match &cell.keys {
            None => {
                self.sealer = None;
                self.core.forget();
            }
            Some(Keys { keyring, licences }) => {
                if self.sealer.is_none() || self.generation != licences.generation {
                    self.generation = licences.generation;
                    self.sealer = licences.take(self.number).map(|s| Rc::new(RefCell::new(s)));
                    // a restored image goes on at the index of the one it replaced, and this core may have slept over
                    // the cell without keys between the two
                    self.core.forget();
                    self.core.caches.borrow_mut().begin_epoch(licences.generation);
                }
                if let Some(s) = &self.sealer {
                    s.borrow_mut().follow(keyring);
                }
            }
        }
        if *cell.facts.cluster_name != self.cluster.name || *cell.facts.cluster_id != self.cluster.id {
            self.cluster =
                Rc::new(ClusterFacts { name: cell.facts.cluster_name.clone(), id: cell.facts.cluster_id.clone() });
        }
    }

    /// Takes a call. A reply that needs nothing but this core comes back at once in `out`.
    pub fn call(&mut self, tag: u64, call: Call, now: Now, rng: &mut dyn Entropy, out: &mut Vec<ShardOut>) {
        self.take_call(tag, call, false, now, rng, out);
    }

    /// Takes a call that a standby passed on.
    pub fn call_from_peer(&mut self, tag: u64, call: Call, now: Now, rng: &mut dyn Entropy, out: &mut Vec<ShardOut>) {
        self.take_call(tag, call, true, now, rng, out);
    }

    fn take_call(
        &mut self,
        tag: u64,
        call: Call,
        from_peer: bool,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let ticket = self.fresh_ticket();
        let mut live = Live::new(tag, Rc::new(call), now.wall, Waits::Run);
        live.from_peer = from_peer;
        self.place(ticket, live, now, rng, out);
    }

    fn fresh_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Begins a call, or begins it again: nothing of it was done.
    fn place(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let Some(c) = control::ControlCall::of(&live.call) else {
            self.run(ticket, live, now, rng, out);
            return;
        };
        live.waits = Waits::Control;
        if live.from_peer && forward::stays(&live.call) {
            // a standby never passes these on
            out.push(ShardOut::Reply(live.tag, internal()));
            return;
        }
        let facts = &self.cell.facts;
        if !facts.active && !facts.sealed && facts.initialized && !self.is_alone() && !forward::stays(&live.call) {
            self.elsewhere(ticket, live, now, rng, out);
            return;
        }
        self.control(ticket, live, c, now, rng, out);
    }

    /// No other node can ever be active.
    fn is_alone(&self) -> bool {
        self.cell.is_alone()
    }

    /// Calls wait for an active node.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Nothing of this call was done, and whoever is active may do it: it waits until one is seen, for a while.
    fn park(&mut self, ticket: Ticket, mut live: Box<Live>, now: Now, out: &mut Vec<ShardOut>) {
        if live.from_peer {
            out.push(ShardOut::NotDone(live.tag));
            return;
        }
        let until = *live.patience.get_or_insert(now.mono.plus_ns(PATIENCE_NS));
        let facts = &self.cell.facts;
        let hopeless = facts.sealed || !facts.initialized || self.is_alone();
        if hopeless || now.mono >= until || self.parked.len() >= MAX_PARKED {
            out.push(ShardOut::Reply(live.tag, unavailable(&self.cell)));
            return;
        }
        live.waits = Waits::Parked;
        self.live.insert(ticket, live);
        self.parked.push(ticket);
    }

    /// Begins the calls again that wait for an active node.
    fn retry(&mut self, now: Now, rng: &mut dyn Entropy, out: &mut Vec<ShardOut>) {
        for ticket in std::mem::take(&mut self.parked) {
            if let Some(mut live) = self.live.remove(&ticket) {
                live.waits = Waits::Run;
                // another name: an answer to an earlier attempt is none to this one
                let ticket = self.fresh_ticket();
                self.place(ticket, live, now, rng, out);
            }
        }
    }

    /// Hands a call to the owner, after the audit devices if it is a ceremony.
    fn control(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        call: control::ControlCall,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let lines = match call.endpoint.is_audited() {
            true => self.ceremony_lines(&live.call, Told::Nothing, false, now, rng).map(|l| l.request),
            false => Ok(Vec::new()),
        };
        match lines {
            Ok(lines) if lines.is_empty() => out.push(ShardOut::Control(ticket, call)),
            Ok(lines) => {
                live.waits = Waits::AuditThenControl { call };
                out.push(ShardOut::Audit(ticket, lines));
            }
            Err(e) => {
                out.push(ShardOut::Fault(live.call.id.clone(), e.cause.unwrap_or_default()));
                out.push(ShardOut::Reply(live.tag, internal()));
                return;
            }
        }
        self.live.insert(ticket, live);
    }

    /// Lines of a ceremony; none while sealed, for then no device is known and the owner refuses it anyway.
    fn ceremony_lines(
        &self,
        call: &Rc<Call>,
        told: Told<'_>,
        request_taken: bool,
        now: Now,
        rng: &mut dyn Entropy,
    ) -> Result<Lines, Error> {
        let (Some(keys), Some(sealer)) = (&self.cell.keys, &self.sealer) else { return Ok(Lines::default()) };
        let mut txn = Txn::new(&self.cell.version, Some(&keys.keyring));
        let mut pass = Pass {
            core: &self.core,
            keyring: &keys.keyring,
            sealer,
            cluster: &self.cluster,
            now: self.cell.clock.now(now),
            wall: now.wall,
            rng,
        };
        pipeline::ceremony_lines(&mut pass, &mut txn, call, told, request_taken)
    }

    /// The owner answered a call. A ceremony's answer is told to the audit devices first, but it goes out even if none
    /// takes it: new shares that nobody ever saw would lock the cluster for good. Vault does the same.
    fn controlled(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        reply: Reply,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        if !live.request_audited {
            out.push(ShardOut::Reply(live.tag, reply));
            return;
        }
        let body = match &reply.body {
            Body::Json(bytes) => serde_json::from_slice::<Map>(bytes).unwrap_or_default(),
            _ => Map::new(),
        };
        let lines = if matches!(reply.code, Code::Ok | Code::NoContent) {
            let response = Response::data(body);
            let told = Told::Response { response: Some(&response), wrapped: None };
            self.ceremony_lines(&live.call, told, true, now, rng)
        } else {
            let texts = body.get("errors").and_then(|e| e.as_array()).cloned().unwrap_or_default();
            let mut refusal = Error::bare(reply.code);
            refusal.errors = texts.iter().filter_map(|t| Some(t.as_str()?.to_owned().into())).collect();
            self.ceremony_lines(&live.call, Told::Refusal(&refusal), true, now, rng)
        };
        match lines {
            Ok(lines) if !lines.response.is_empty() => {
                live.waits = Waits::AuditThenAnswer { reply };
                self.live.insert(ticket, live);
                out.push(ShardOut::Audit(ticket, lines.response));
            }
            Ok(_) => out.push(ShardOut::Reply(live.tag, reply)),
            Err(e) => {
                out.push(ShardOut::Fault(live.call.id.clone(), e.cause.unwrap_or_default()));
                out.push(ShardOut::Reply(live.tag, reply));
            }
        }
    }

    /// Whether a rate limit refuses a call as things stand: asked before its body is taken in. A standby takes it in: it
    /// may pass the call on to where less was counted.
    pub fn is_over_limit(&self, call: &Call, now: Now, rng: &mut dyn Entropy) -> bool {
        let keys = self.cell.keys.as_ref().filter(|_| self.cell.facts.active);
        let (Some(keys), Some(sealer)) = (keys, &self.sealer) else { return false };
        let mut txn = Txn::new(&self.cell.version, Some(&keys.keyring));
        if !pipeline::limits_rates(&self.core, &txn) {
            return false;
        }
        let mut pass = Pass {
            core: &self.core,
            keyring: &keys.keyring,
            sealer,
            cluster: &self.cluster,
            now: self.cell.clock.now(now),
            wall: now.wall,
            rng,
        };
        pipeline::is_over_limit(&mut pass, &mut txn, &Rc::new(call.clone()))
    }

    /// Whether a call would be let through as things stand: asked before its body is taken in. A standby takes no large
    /// body: it sends the client to the active node.
    pub fn would_admit(&self, call: &Call, now: Now, rng: &mut dyn Entropy) -> bool {
        let keys = self.cell.keys.as_ref().filter(|_| self.cell.facts.active);
        let (Some(keys), Some(sealer)) = (keys, &self.sealer) else { return false };
        let mut txn = Txn::new(&self.cell.version, Some(&keys.keyring));
        let mut pass = Pass {
            core: &self.core,
            keyring: &keys.keyring,
            sealer,
            cluster: &self.cluster,
            now: self.cell.clock.now(now),
            wall: now.wall,
            rng,
        };
        pipeline::would_admit(&mut pass, &mut txn, &Rc::new(call.clone()))
    }

    /// Takes an event.
    pub fn step(&mut self, input: ShardIn, now: Now, rng: &mut dyn Entropy, out: &mut Vec<ShardOut>) {
        match input {
            ShardIn::Retry => self.retry(now, rng, out),
            ShardIn::Withdraw(sequence) => {
                self.withdraw(sequence, out);
            }
            ShardIn::ControlDone(ticket, reply) => {
                if let Some(live) = self.live.remove(&ticket) {
                    self.controlled(ticket, live, reply, now, rng, out);
                }
            }
            ShardIn::SideDone(ticket, result) => {
                let Some(mut live) = self.live.remove(&ticket) else { return };
                if control::ends_the_view(&live.call) {
                    // the image that authorised it is gone, so no resume can check again what it relied on
                    let reply = match result {
                        SideResult::Refused(e) => Reply::error(&e),
                        SideResult::Failed(why) => {
                            out.push(ShardOut::Fault(live.call.id.clone(), why));
                            internal()
                        }
                        _ => Reply::empty(Code::NoContent),
                    };
                    out.push(ShardOut::Reply(live.tag, reply));
                    return;
                }
                if let Waits::Side { resume } = std::mem::replace(&mut live.waits, Waits::Run) {
                    live.resume = Some((resume, result));
                    self.run(ticket, live, now, rng, out);
                }
            }
            ShardIn::Forwarded(ticket, outcome) => {
                if let Some(live) = self.live.remove(&ticket) {
                    match outcome {
                        Forwarded::Answer(reply, index) => self.passed_back(ticket, live, reply, index, out),
                        Forwarded::NotSent => self.park(ticket, live, now, out),
                        Forwarded::Unknown => out.push(ShardOut::Reply(live.tag, Reply::error(&unknown()))),
                    }
                }
            }
            ShardIn::Reached(ticket, reached) => {
                if let Some(live) = self.live.remove(&ticket) {
                    self.reached(ticket, live, reached, now, rng, out);
                }
            }
            ShardIn::AuditDone(ticket, taken) => {
                if let Some(live) = self.live.remove(&ticket) {
                    self.audited(ticket, live, taken, out);
                }
            }
            ShardIn::TipDone(ticket, done) => {
                if let Some(live) = self.live.remove(&ticket) {
                    self.tip_done(ticket, live, *done, now, rng, out);
                }
            }
            ShardIn::Settled(ticket, settled) => {
                if let Some(live) = self.live.remove(&ticket) {
                    self.settled(ticket, live, settled, now, rng, out);
                }
            }
        }
    }

    /// Runs the pipeline and files what it says.
    fn run(&mut self, ticket: Ticket, mut live: Box<Live>, now: Now, rng: &mut dyn Entropy, out: &mut Vec<ShardOut>) {
        live.attempts += 1;
        let (Some(keys), Some(sealer)) = (&self.cell.keys, self.sealer.clone()) else {
            self.elsewhere(ticket, live, now, rng, out);
            return;
        };
        let stands_by = !self.cell.facts.active;
        if stands_by && !self.may_try(&live, now) {
            self.elsewhere(ticket, live, now, rng, out);
            return;
        }
        if !std::mem::replace(&mut live.demanded, true) {
            match position::demand(&keys.keyring, &self.cluster.id, &live.call) {
                Ok(Some(demand)) if demand.index > self.cell.version.index() => {
                    self.demand(ticket, live, demand, now, rng, out);
                    return;
                }
                Ok(_) => {}
                Err(position::Foreign) => {
                    out.push(ShardOut::Reply(live.tag, Reply::error(&Error::invalid("invalid x-vault-index"))));
                    return;
                }
            }
        }
        let log_now = self.cell.clock.now(now);
        let mut pass = Pass {
            core: &self.core,
            keyring: &keys.keyring,
            sealer: &sealer,
            cluster: &self.cluster,
            now: log_now,
            wall: now.wall,
            rng,
        };
        let stage = Stage {
            use_counted: live.use_counted,
            request_audited: live.request_audited,
            again: std::mem::replace(&mut live.metered, true),
            on_standby: stands_by,
            resume: live.resume.as_ref().map(|(f, r)| (f, r)),
        };
        // what a read relies on is asked by nobody, unless it turns out to write
        let is_read = live.attempts == 1 && matches!(live.call.op, Operation::Read | Operation::List);
        let reads_only = stands_by || (is_read && !self.writing_reads.contains(&live.call.path));
        let view = &self.cell.version;
        let mut txn =
            if reads_only { Txn::reading(view, Some(&keys.keyring)) } else { Txn::new(view, Some(&keys.keyring)) };
        let mut ran = pipeline::run(&mut pass, &mut txn, &live.call, &stage);
        if is_read && !reads_only && txn.is_read_only() {
            self.writing_reads.forget(&live.call.path);
        }
        if stands_by && !(txn.is_read_only() && self.is_final(&live.call, &ran)) {
            drop(txn);
            self.elsewhere(ticket, live, now, rng, out);
            return;
        }
        if reads_only && !txn.is_read_only() {
            self.writing_reads.note(&live.call.path);
            txn = Txn::new(view, Some(&keys.keyring));
            ran = pipeline::run(&mut pass, &mut txn, &live.call, &Stage { again: true, ..stage });
        }
        if let Some(cause) = ran.cause {
            out.push(ShardOut::Fault(live.call.id.clone(), cause));
        }
        // while nobody has failed there is nothing to end
        if let Some(note) = ran.login
            && (!note.good || self.cell.facts.counting_failures)
        {
            out.push(ShardOut::Login(note));
        }
        match ran.next {
            // a standby's, which was sent there above
            Next::Elsewhere => self.elsewhere(ticket, live, now, rng, out),
            Next::CountUse => {
                live.waits = Waits::CommitUse;
                // the sealer is not lent any more when the proposal asks it for its count
                let finished = txn.finish(&mut sealer.borrow_mut(), log_now);
                match finished {
                    Ok(finished) => self.propose(ticket, live, finished, out),
                    Err(e) => self.unwritable(ticket, live, e, now, rng, out),
                }
            }
            Next::Side { op, resume, intent: true } if !txn.is_read_only() => {
                live.computed = false;
                let finished = match txn.finish(&mut sealer.borrow_mut(), log_now) {
                    Ok(f) => f,
                    Err(e) => return self.unwritable(ticket, live, e, now, rng, out),
                };
                if ran.audit.request.is_empty() {
                    live.waits = Waits::CommitIntent { op, resume };
                    self.propose(ticket, live, finished, out);
                } else {
                    live.waits = Waits::AuditThenIntent { finished: Box::new(finished), op, resume };
                    out.push(ShardOut::Audit(ticket, ran.audit.request));
                    self.live.insert(ticket, live);
                }
            }
            // a computation has no effect, so its lines go together with those of what comes of it
            Next::Side { op, resume, .. } if stands_by => {
                drop(txn);
                live.computed = true;
                self.side(ticket, live, op, resume, out);
            }
            Next::Side { op, resume, .. } => {
                drop(txn);
                live.computed = false;
                if ran.audit.request.is_empty() {
                    self.side(ticket, live, op, resume, out);
                } else {
                    live.waits = Waits::AuditThenSide { op, resume };
                    out.push(ShardOut::Audit(ticket, ran.audit.request));
                    self.live.insert(ticket, live);
                }
            }
            // another node may have taken over and written since: what was read may be of the past
            Next::Answer(_) if txn.is_read_only() && now.mono >= self.cell.lease_until => {
                drop(txn);
                self.elsewhere(ticket, live, now, rng, out);
            }
            Next::Answer(reply) if txn.is_read_only() => {
                let mut lines = ran.audit.request;
                lines.extend(ran.audit.response);
                if lines.is_empty() {
                    out.push(ShardOut::Reply(live.tag, reply));
                } else {
                    live.waits = Waits::AuditThenReply { reply };
                    self.live.insert(ticket, live);
                    out.push(ShardOut::Audit(ticket, lines));
                }
            }
            Next::Answer(reply) => {
                let finished = match txn.finish(&mut sealer.borrow_mut(), log_now) {
                    Ok(f) => f,
                    Err(e) => return self.unwritable(ticket, live, e, now, rng, out),
                };
                let response = ran.audit.response;
                if ran.audit.request.is_empty() {
                    live.waits = Waits::Commit { reply, response };
                    self.propose(ticket, live, finished, out);
                } else {
                    live.waits = Waits::AuditThenPropose { finished: Box::new(finished), reply, response };
                    self.live.insert(ticket, live);
                    out.push(ShardOut::Audit(ticket, ran.audit.request));
                }
            }
        }
    }

    /// This node may not answer: the active node does, or the client is told where it is.
    fn elsewhere(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let facts = &self.cell.facts;
        if facts.sealed || !facts.initialized {
            out.push(ShardOut::Reply(live.tag, unavailable(&self.cell)));
            return;
        }
        if std::mem::take(&mut live.computed) {
            live.resume = None;
        }
        // what went outside, or was resumed, began here and cannot begin again elsewhere
        if live.resume.is_some() || live.use_counted {
            self.refuse(ticket, live, unknown(), now, rng, out);
            return;
        }
        if !live.from_peer
            && let Some(reply) = forward::of_standby(&live.call)
        {
            out.push(ShardOut::Reply(live.tag, reply));
            return;
        }
        let Some(leader) = facts.leader.as_ref().filter(|_| !live.from_peer) else {
            self.park(ticket, live, now, out);
            return;
        };
        if forward::redirects(&live.call) || forward::declined(&live.call) {
            out.push(ShardOut::Reply(live.tag, forward::redirect(&live.call, &leader.api_addr)));
            return;
        }
        let (to, call) = (leader.raft_id, Box::new(Call::clone(&live.call)));
        live.waits = Waits::Forward;
        self.live.insert(ticket, live);
        out.push(ShardOut::Forward(ticket, to, call));
    }

    /// Whether a standby tries a call at all.
    fn may_try(&self, live: &Live, now: Now) -> bool {
        !live.from_peer
            && !live.use_counted
            && (live.resume.is_none() || live.computed)
            && now.mono < self.cell.lease_until
            && !forward::surely_writes(&live.call)
            && !(self.core.vault.settings.forwards_by_header && forward::wished(&live.call))
    }

    /// Whether what a standby's run came to, which wrote nothing, may stand as it is.
    fn is_final(&self, call: &Call, ran: &Ran) -> bool {
        // the active node counts who fails, and who succeeds after others have failed
        let counted = ran.login.as_ref().is_some_and(|l| !l.good || self.cell.facts.counting_failures);
        !counted
            && match &ran.next {
                Next::Answer(reply) => !forward::may_be_too_early(call, reply),
                Next::Side { op, intent, .. } => !intent && op.is_computation(),
                Next::CountUse | Next::Elsewhere => false,
            }
    }

    /// A call demands more than this core can read yet.
    fn demand(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        demand: Demand,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        if demand.or_forward && !self.cell.facts.active {
            self.elsewhere(ticket, live, now, rng, out);
            return;
        }
        live.waits = Waits::Demand;
        self.live.insert(ticket, live);
        out.push(ShardOut::Await(ticket, demand.index, Awaiting::Call));
    }

    /// The active node's answer goes out when this node's image is as far as the one it rests on, so that a client
    /// finds through this node what it was told through it.
    fn passed_back(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        reply: Reply,
        index: Index,
        out: &mut Vec<ShardOut>,
    ) {
        if index <= self.cell.version.index() || !self.cell.facts.performance_standby {
            out.push(ShardOut::Reply(live.tag, reply));
            return;
        }
        live.waits = Waits::Level { reply };
        self.live.insert(ticket, live);
        out.push(ShardOut::Await(ticket, index, Awaiting::Answer));
    }

    /// An index that was waited for can be read, or does not come.
    fn reached(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        reached: bool,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        match std::mem::replace(&mut live.waits, Waits::Run) {
            // who was told of a write is told so late or not at all; the owner remembers that it is behind
            Waits::Level { reply } => out.push(ShardOut::Reply(live.tag, reply)),
            Waits::Demand if reached => self.run(ticket, live, now, rng, out),
            Waits::Demand => {
                let e = Error::new(Code::Precondition, "required index state not present");
                out.push(ShardOut::Reply(live.tag, Reply::error(&e)));
            }
            other => {
                live.waits = other;
                self.live.insert(ticket, live);
            }
        }
    }

    /// The index of the image that this core reads.
    pub fn applied(&self) -> Index {
        self.cell.version.index()
    }

    /// The batch is over a limit.
    fn unwritable(
        &mut self,
        ticket: Ticket,
        live: Box<Live>,
        e: BarrierError,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let e = match e {
            BarrierError::TooLarge => not_done(NotDone::TooLarge),
            other => {
                out.push(ShardOut::Fault(live.call.id.clone(), format!("barrier: {other}")));
                Error::multi(Code::Internal, "internal error")
            }
        };
        self.refuse(ticket, live, e, now, rng, out);
    }

    /// Ends a call that ran and was not committed, or of which nobody knows. The audit devices are told, as of every
    /// refusal; the answer goes out even if none takes it, because it says that nothing may be relied on.
    fn refuse(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        e: Error,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let reply = Reply::error(&e);
        let lines = match (&self.cell.keys, &self.sealer) {
            (Some(keys), Some(sealer)) => {
                let mut txn = Txn::reading(&self.cell.version, Some(&keys.keyring));
                let mut pass = Pass {
                    core: &self.core,
                    keyring: &keys.keyring,
                    sealer,
                    cluster: &self.cluster,
                    now: self.cell.clock.now(now),
                    wall: now.wall,
                    rng,
                };
                let stage = Stage {
                    use_counted: live.use_counted,
                    request_audited: live.request_audited,
                    ..Stage::default()
                };
                pipeline::refusal_lines(&mut pass, &mut txn, &live.call, &stage, &e)
            }
            _ => Ok(Lines::default()),
        };
        let lines = lines.unwrap_or_else(|e| {
            out.push(ShardOut::Fault(live.call.id.clone(), e.cause.unwrap_or_default()));
            Lines::default()
        });
        let all: Vec<_> = lines.request.into_iter().chain(lines.response).collect();
        if all.is_empty() {
            out.push(ShardOut::Reply(live.tag, reply));
            return;
        }
        live.waits = Waits::AuditThenAnswer { reply };
        self.live.insert(ticket, live);
        out.push(ShardOut::Audit(ticket, all));
    }

    fn propose(&mut self, ticket: Ticket, live: Box<Live>, finished: Finished, out: &mut Vec<ShardOut>) {
        let Finished { batch: Some(batch), reads, read_index } = finished else {
            // a run that counted a use or wrote something has a batch
            out.push(ShardOut::Reply(live.tag, internal()));
            return;
        };
        let sealed = self.sealer.as_ref().map_or(0, |s| s.borrow_mut().take_count());
        let returns = live.losses + 1 < LOSSES || live.resume.is_some();
        self.live.insert(ticket, live);
        out.push(ShardOut::Propose(Proposal { ticket, batch, reads, read_index, sealed, returns }));
    }

    /// Hands a call that lost too often to the owner.
    fn hand_over(&mut self, ticket: Ticket, mut live: Box<Live>, out: &mut Vec<ShardOut>) {
        live.waits = Waits::Tip;
        let call = TipCall {
            ticket,
            call: Call::clone(&live.call),
            use_counted: live.use_counted,
            request_audited: live.request_audited,
        };
        self.live.insert(ticket, live);
        out.push(ShardOut::Tip(Box::new(call)));
    }

    fn tip_done(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        done: TipDone,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        live.waits = Waits::Run;
        match done {
            TipDone::Again => self.run(ticket, live, now, rng, out),
            TipDone::UseCounted => {
                live.use_counted = true;
                (live.attempts, live.losses) = (0, 0);
                self.run(ticket, live, now, rng, out);
            }
            TipDone::Side { .. } if self.sealer.is_none() => {
                // nothing is done outside; whoever finds an intent undoes it
                out.push(ShardOut::Reply(live.tag, sealed_reply()));
            }
            TipDone::Side { op, resume, .. } => {
                (live.attempts, live.losses) = (0, 0);
                self.side(ticket, live, *op, resume, out);
            }
            TipDone::Answer { reply, lines } if lines.is_empty() => out.push(ShardOut::Reply(live.tag, reply)),
            TipDone::Answer { reply, lines } => {
                live.waits = Waits::AuditThenReply { reply };
                self.live.insert(ticket, live);
                out.push(ShardOut::Audit(ticket, lines.into_iter().map(TipLine::into_line).collect()));
            }
        }
    }

    fn side(&mut self, ticket: Ticket, mut live: Box<Live>, op: SideOp, resume: Resume, out: &mut Vec<ShardOut>) {
        if live.call.raw_body.is_some() && control::ends_the_view(&live.call) {
            // the operation holds the body; the call is not run again, so a second hold would only keep it in memory
            live.call = Rc::new(Call { raw_body: None, ..(*live.call).clone() });
        }
        live.waits = Waits::Side { resume };
        self.live.insert(ticket, live);
        out.push(match op {
            SideOp::Owner(op) => ShardOut::Owner(ticket, op),
            op => ShardOut::Side(ticket, op),
        });
    }

    fn audited(&mut self, ticket: Ticket, mut live: Box<Live>, taken: bool, out: &mut Vec<ShardOut>) {
        if let Waits::AuditThenAnswer { reply } = live.waits {
            if !taken {
                out.push(ShardOut::Fault(live.call.id.clone(), "no audit device took the response entry".into()));
            }
            out.push(ShardOut::Reply(live.tag, reply));
            return;
        }
        if !taken {
            // no line, no effect; and after an effect: no line, no answer
            out.push(ShardOut::Fault(live.call.id.clone(), "no audit device took the entry".into()));
            out.push(ShardOut::Reply(live.tag, internal()));
            return;
        }
        match std::mem::replace(&mut live.waits, Waits::Run) {
            Waits::AuditThenReply { reply } | Waits::AuditThenAcknowledge { reply } => {
                out.push(ShardOut::Reply(live.tag, reply));
            }
            Waits::AuditThenPropose { finished, reply, response } => {
                live.request_audited = true;
                live.waits = Waits::Commit { reply, response };
                self.propose(ticket, live, *finished, out);
            }
            Waits::AuditThenControl { call } => {
                live.request_audited = true;
                live.waits = Waits::Control;
                self.live.insert(ticket, live);
                out.push(ShardOut::Control(ticket, call));
            }
            Waits::AuditThenSide { op, resume } => {
                live.request_audited = true;
                self.side(ticket, live, op, resume, out);
            }
            Waits::AuditThenIntent { finished, op, resume } => {
                live.request_audited = true;
                live.waits = Waits::CommitIntent { op, resume };
                self.propose(ticket, live, *finished, out);
            }
            other => {
                live.waits = other;
                self.live.insert(ticket, live);
            }
        }
    }

    fn settled(
        &mut self,
        ticket: Ticket,
        mut live: Box<Live>,
        settled: Settled,
        now: Now,
        rng: &mut dyn Entropy,
        out: &mut Vec<ShardOut>,
    ) {
        let waits = std::mem::replace(&mut live.waits, Waits::Run);
        match (settled, waits) {
            (Settled::Committed(_), Waits::CommitUse) => {
                live.use_counted = true;
                (live.attempts, live.losses) = (0, 0);
                self.run(ticket, live, now, rng, out);
            }
            (Settled::Committed(_), Waits::CommitIntent { .. }) if self.sealer.is_none() => {
                // nothing is done outside; whoever finds the intent undoes it
                out.push(ShardOut::Reply(live.tag, sealed_reply()));
            }
            (Settled::Committed(_), Waits::CommitIntent { op, resume }) => {
                (live.attempts, live.losses) = (0, 0);
                self.side(ticket, live, op, resume, out);
            }
            (Settled::Committed(index), Waits::Commit { mut reply, response }) => {
                if let (true, Some(keys)) = (self.cell.facts.has_peers, &self.cell.keys) {
                    let text = position::write(&keys.keyring, &self.cluster.id, index);
                    reply.headers.push((position::HEADER, text));
                }
                if response.is_empty() {
                    out.push(ShardOut::Reply(live.tag, reply));
                } else {
                    live.waits = Waits::AuditThenAcknowledge { reply };
                    self.live.insert(ticket, live);
                    out.push(ShardOut::Audit(ticket, response));
                }
            }
            (Settled::Refused, Waits::Commit { .. } | Waits::CommitIntent { .. } | Waits::CommitUse | Waits::Tip)
                if live.attempts < MAX_ATTEMPTS =>
            {
                live.losses += 1;
                if live.losses < LOSSES || live.resume.is_some() {
                    self.run(ticket, live, now, rng, out);
                } else {
                    self.hand_over(ticket, live, out);
                }
            }
            (Settled::Refused, Waits::Commit { .. } | Waits::CommitIntent { .. } | Waits::CommitUse | Waits::Tip) => {
                self.refuse(ticket, live, busy("too many conflicting writes; try again"), now, rng, out);
            }
            // the owner was sealed before the proposal reached it
            (
                Settled::NotDone(NotDone::NotActive),
                Waits::Commit { .. } | Waits::CommitIntent { .. } | Waits::CommitUse | Waits::Tip,
            ) if !live.use_counted && live.resume.is_none() && !self.is_alone() => {
                // the lead is being handed over, or is lost: whoever has it next may do the call
                self.park(ticket, live, now, out);
            }
            (
                Settled::NotDone(NotDone::NotActive),
                Waits::Commit { .. } | Waits::CommitIntent { .. } | Waits::CommitUse | Waits::Tip,
            ) if self.cell.keys.is_none() => {
                out.push(ShardOut::Reply(live.tag, unavailable(&self.cell)));
            }
            (
                Settled::NotDone(why),
                Waits::Commit { .. } | Waits::CommitIntent { .. } | Waits::CommitUse | Waits::Tip,
            ) => {
                self.refuse(ticket, live, not_done(why), now, rng, out);
            }
            (Settled::Unknown, Waits::Commit { .. } | Waits::CommitIntent { .. } | Waits::CommitUse | Waits::Tip) => {
                self.refuse(ticket, live, unknown(), now, rng, out);
            }
            (_, other) => {
                live.waits = other;
                self.live.insert(ticket, live);
            }
        }
    }

    /// Drops the keyring and answers every call whose fate is decided here: no resume may run any more, nothing may be
    /// proposed, and what was read is not told any more. What the log has, and what it has committed, is waited for.
    fn withdraw(&mut self, sequence: u64, out: &mut Vec<ShardOut>) {
        if self.cell.sequence <= sequence || self.cell.keys.is_none() {
            self.sealer = None;
            self.core.forget();
            let sealed = Cell {
                sequence: self.cell.sequence.max(sequence),
                version: self.cell.version.clone(),
                keys: None,
                lease_until: self.cell.lease_until,
                clock: self.cell.clock,
                facts: self.cell.facts.clone(),
                bin: self.cell.bin.clone(),
            };
            self.cell = Arc::new(sealed);
            let waiting: Vec<Ticket> =
                self.live.iter().filter(|(_, l)| !l.is_decided_elsewhere()).map(|(t, _)| *t).collect();
            for t in waiting {
                // the call that seals waits for the owner itself and is answered by it
                if let Some(l) = self.live.get(&t)
                    && control::ends_the_view(&l.call)
                {
                    continue;
                }
                if let Some(l) = self.live.remove(&t) {
                    out.push(ShardOut::Reply(l.tag, sealed_reply()));
                }
            }
        }
        out.push(ShardOut::Withdrawn(sequence));
    }
}

impl Live {
    fn new(tag: u64, call: Rc<Call>, begun: Wall, waits: Waits) -> Box<Live> {
        Box::new(Live {
            tag,
            call,
            from_peer: false,
            use_counted: false,
            request_audited: false,
            resume: None,
            attempts: 0,
            losses: 0,
            metered: false,
            demanded: false,
            computed: false,
            begun,
            patience: None,
            waits,
        })
    }

    /// Somebody else decides what it is answered: the log, the owner, or what is committed already.
    fn is_decided_elsewhere(&self) -> bool {
        matches!(
            self.waits,
            Waits::Commit { .. }
                | Waits::CommitIntent { .. }
                | Waits::CommitUse
                | Waits::Tip
                | Waits::AuditThenAcknowledge { .. }
                | Waits::AuditThenAnswer { .. }
                | Waits::Control
                | Waits::Level { .. }
        )
    }
}

fn unavailable(cell: &Cell) -> Reply {
    if cell.facts.sealed || !cell.facts.initialized {
        return sealed_reply();
    }
    Reply::error(&Error::new(Code::Internal, "local node not active but active cluster node not found"))
}

fn sealed_reply() -> Reply {
    Reply::error(&Error::new(Code::Unavailable, "Vault is sealed"))
}

pub(crate) fn internal() -> Reply {
    Reply::error(&Error::multi(Code::Internal, "internal error"))
}

fn unknown() -> Error {
    Error::new(Code::Internal, "the outcome of the write is unknown: leadership was lost")
}

fn busy(text: &'static str) -> Error {
    Error::new(Code::Unavailable, text)
}

fn not_done(why: NotDone) -> Error {
    match why {
        NotDone::NotActive => Error::new(Code::Internal, "local node not active but active cluster node not found"),
        NotDone::NoRoom => Error::new(
            Code::NoRoom,
            "no space left on the storage device: the write was refused and nothing was changed; reads go on",
        ),
        NotDone::TooLarge => Error::new(
            Code::Internal,
            format!("put failed due to value being too large; max: {} bytes", ringfence_base::limit::MAX_VALUE_BYTES),
        ),
        NotDone::NoMemory => Error::new(
            Code::NoRoom,
            "the configured memory limit is reached: the write was refused and nothing was changed; reads and deletes \
             go on",
        ),
        NotDone::Busy => Error::new(Code::Unavailable, "too many writes are waiting for the log; try again"),
    }
}
