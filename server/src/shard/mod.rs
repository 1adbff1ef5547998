//! One core of the server: the shard machine with what drives it, and on core 0 the owner beside it. Cores share the
//! published cell and talk through mailboxes; everything else stays on its core.

mod owner;
mod published;

pub use owner::{OwnerCore, Storage};
pub use published::Published;

use crate::audit::Sinks;
use crate::peer::{ToPeers, call_number};
use crate::rt::channel::{self, Answer, Sender};
use crate::rt::{self, OsEntropy};
use crate::side::Threads;
use crate::telemetry::metrics::CoreMetrics;
use crate::telemetry::{self, Level};
use ringfence_base::{Index, Now, Wall};
use ringfence_node::control::ControlCall;
use ringfence_node::peer::MAX_PEER_BYTES;
use ringfence_node::shard::Proposal;
use ringfence_node::{
    Awaiting, Call, Code, Cors, Error, Forwarded, JoinSaid, Loaded, LoginNote, Operation, OwnerOp, PeerMessage,
    Reply, Shard, ShardId, ShardIn, ShardOut, SideResult, Ticket, TipCall, Vault,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Calls that wait for an active node look for one so often.
const RETRY: Duration = Duration::from_millis(20);

/// From a shard to the owner.
#[derive(Debug)]
pub enum ToOwner {
    /// Writes to append.
    Propose(ShardId, Proposal),
    /// A call to run over the tip.
    Tip(ShardId, Box<TipCall>),
    /// A status or key-ceremony call.
    Control(ShardId, Ticket, ControlCall),
    /// An operation of a handler.
    Operate(ShardId, Ticket, OwnerOp),
    /// A core dropped its keyring.
    Withdrawn(ShardId, u64),
    /// A side operation of the lease worker is done.
    LeaseSideDone(u64, SideResult),
    /// A login that counts towards a lockout.
    Login(LoginNote),
    /// A shard waits until this index can be read.
    Await(ShardId, Ticket, Index, Awaiting),
    /// A snapshot archive was taken apart.
    Unpacked(ShardId, Ticket, Result<ringfence_node::snapshot::Unpacked, String>),
    /// A checkpoint's chunk was packed.
    Packed(u64, Box<ringfence_node::Packed>),
    /// A message of the member with this raft id.
    Peer(u64, PeerMessage),
    /// The process is to end: another node takes the lead, if there is one.
    StepDown,
    /// The connection to a member broke.
    Unreachable(u64),
    /// A chunk file was read for a follower, or is not there.
    ChunkRead(u64, Option<Vec<u8>>),
    /// A leader's checkpoint was loaded.
    Loaded(u64, Box<Loaded>),
    /// A member starts again and asks over this connection, under the raft id it had.
    Returning(u64, u64, ringfence_node::Returning),
    /// Become a member of this cluster, which took this node in.
    Join([u8; 16]),
    /// The certificates that this node may show from now on, by their SHA-256.
    Pins(Vec<[u8; 32]>),
    /// Another node says that this directory is an older copy.
    Lost(String),
    /// What another node's API answered to a joiner.
    LeaderSaid(u64, JoinSaid),
    /// The process ends: seal and stop.
    Shutdown,
}

/// From the owner to a shard.
#[derive(Debug)]
pub enum ToShard {
    /// An event for the machine.
    Event(ShardIn),
    /// A call that a standby passed on over this connection, as it came.
    Passed(u64, Vec<u8>),
    /// Something that the server answers itself, by name.
    Serve(Ticket, &'static str, serde_json::Value),
    /// Open the audit files anew.
    Reopen,
    /// Tell the requests under way to whoever asks.
    UnderWay(Sender<Vec<UnderWay>>),
}

/// A request under way, as `sys/in-flight-req` shows it.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Its id and what is told of it.
    pub row: (String, serde_json::Value),
}

impl UnderWay {
    fn of(call: &Call, begun: Wall) -> UnderWay {
        let method = match call.op {
            Operation::Read | Operation::Help => "GET",
            Operation::List => "LIST",
            Operation::Scan => "SCAN",
            Operation::Delete => "DELETE",
            Operation::Patch => "PATCH",
            Operation::Header => "HEAD",
            _ => "PUT",
        };
        let remote = call.remote.map_or(String::new(), |ip| SocketAddr::new(ip, call.remote_port).to_string());
        let row = serde_json::json!({
            "start_time": begun.rfc3339(), "client_remote_address": remote,
            "request_path": format!("/v1/{}", call.path), "request_method": method, "client_id": "",
        });
        UnderWay { row: (call.id.clone(), row) }
    }
}

/// A panic in the machines of the spine ends the process: what half a step left behind must not be served.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            telemetry::log(Level::Error, "an invariant of the machine is broken: stopping");
            std::process::abort();
        }
    }
}

/// Answers what only the process can tell, by name.
pub type FactsOf = Rc<dyn Fn(&str, &serde_json::Value) -> SideResult>;

/// One core.
pub struct Core {
    /// Its number.
    pub id: ShardId,
    shard: RefCell<Shard>,
    rng: RefCell<OsEntropy>,
    out: RefCell<Vec<ShardOut>>,
    /// An emptied `out`, for the next round: its room is as large as a call ever needed.
    spare: RefCell<Vec<ShardOut>>,
    waiting: RefCell<BTreeMap<u64, Answer<Reply>>>,
    next_tag: Cell<u64>,
    immediate: RefCell<Option<(u64, Reply)>>,
    published: Arc<Published>,
    owner: Sender<ToOwner>,
    peers: Sender<ToPeers>,
    /// Calls that a standby passed on: by tag the connection and their number there.
    passed: RefCell<BTreeMap<u64, (u64, u64)>>,
    /// A task looks for the active node on behalf of waiting calls.
    retrying: Cell<bool>,
    /// Every core's mailbox, this one's included.
    cores: Vec<Sender<ToShard>>,
    /// Requests whose body is still coming in.
    arriving: RefCell<BTreeMap<u64, UnderWay>>,
    sinks: Sinks,
    threads: Arc<Threads>,
    facts: FactsOf,
    /// What this core counts.
    pub metrics: CoreMetrics,
}

impl Core {
    /// A core over what the owner has published so far.
    // each is made once, at the start, by its own part of the process
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: ShardId,
        vault: Arc<Vault>,
        published: Arc<Published>,
        owner: Sender<ToOwner>,
        peers: Sender<ToPeers>,
        cores: Vec<Sender<ToShard>>,
        threads: Arc<Threads>,
        facts: FactsOf,
        metrics: CoreMetrics,
    ) -> Rc<Core> {
        Rc::new(Core {
            id,
            shard: RefCell::new(Shard::new(id.0, vault, published.cell())),
            rng: RefCell::new(OsEntropy::new()),
            out: RefCell::default(),
            spare: RefCell::default(),
            waiting: RefCell::default(),
            next_tag: Cell::new(1),
            immediate: RefCell::default(),
            published,
            owner,
            peers,
            passed: RefCell::default(),
            retrying: Cell::new(false),
            cores,
            arriving: RefCell::default(),
            sinks: Sinks::new(),
            threads,
            facts,
            metrics,
        })
    }

    /// Serves a call, which is whole since `now`, to its end.
    pub async fn call(self: &Rc<Self>, call: Call, now: Now) -> Reply {
        let tag = self.next_tag.get();
        self.next_tag.set(tag + 1);
        {
            let _guard = AbortOnPanic;
            let mut shard = self.shard.borrow_mut();
            self.observe(&mut shard);
            shard.call(tag, call, now, &mut *self.rng.borrow_mut(), &mut self.out.borrow_mut());
        }
        self.dispatch(Some(tag));
        let at_once = self.immediate.borrow_mut().take_if(|(t, _)| *t == tag);
        if let Some((_, reply)) = at_once {
            return reply;
        }
        let (answer, question) = channel::oneshot();
        self.waiting.borrow_mut().insert(tag, answer);
        match question.await {
            Ok(reply) => reply,
            Err(_) => Reply::error(&Error::new(Code::Unavailable, "the server is shutting down")),
        }
    }

    /// Whether a call would be let through as things stand: asked before its body is taken in.
    pub fn would_admit(&self, call: &Call) -> bool {
        let _guard = AbortOnPanic;
        let mut shard = self.shard.borrow_mut();
        self.observe(&mut shard);
        shard.would_admit(call, rt::now(), &mut *self.rng.borrow_mut())
    }

    /// Whether a rate limit refuses a call, before its body is taken in.
    pub fn is_over_limit(&self, call: &Call) -> bool {
        let _guard = AbortOnPanic;
        let mut shard = self.shard.borrow_mut();
        self.observe(&mut shard);
        shard.is_over_limit(call, rt::now(), &mut *self.rng.borrow_mut())
    }

    /// What only the process can tell, by name.
    pub fn fact(&self, name: &str, argument: &serde_json::Value) -> SideResult {
        (self.facts)(name, argument)
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.waiting.borrow().len() + self.passed.borrow().len()
    }

    /// The cross-origin settings, as this core sees them.
    pub fn cors(&self) -> Option<Cors> {
        let mut shard = self.shard.borrow_mut();
        self.observe(&mut shard);
        shard.cors()
    }

    /// Shows a request whose body is awaited among those under way, for as long as the answer lives.
    pub fn arriving(self: &Rc<Self>, call: &Call) -> Arriving {
        let tag = self.next_tag.get();
        self.next_tag.set(tag + 1);
        self.arriving.borrow_mut().insert(tag, UnderWay::of(call, rt::now().wall));
        Arriving(self.clone(), tag)
    }

    /// The requests under way on this core.
    fn under_way(&self) -> Vec<UnderWay> {
        let shard = self.shard.borrow();
        let mut all: Vec<UnderWay> = shard.under_way().map(|(call, begun)| UnderWay::of(call, begun)).collect();
        all.extend(self.arriving.borrow().values().cloned());
        all
    }

    /// The requests under way on all cores, by id.
    pub async fn all_under_way(self: Rc<Self>) -> serde_json::Value {
        let (to, inlet) = channel::unbounded();
        // a core that is gone has none
        self.cores.iter().for_each(|c| drop(c.try_send(ToShard::UnderWay(to.clone()))));
        drop(to);
        let (mut mail, mut batch) = (inlet.open(), Vec::new());
        // ends when every core has answered or dropped its end
        while mail.drain(&mut batch).await > 0 {}
        batch.into_iter().flatten().map(|u: UnderWay| u.row).collect::<serde_json::Map<_, _>>().into()
    }

    /// Randomness of this core.
    pub fn with_rng<T>(&self, f: impl FnOnce(&mut OsEntropy) -> T) -> T {
        f(&mut self.rng.borrow_mut())
    }

    /// The mailbox of this core, emptied for ever.
    pub async fn serve(self: Rc<Self>, inlet: channel::Inlet<ToShard>) {
        let mut mail = inlet.open();
        let mut batch = Vec::new();
        while mail.drain(&mut batch).await > 0 {
            let now = rt::now();
            for message in batch.drain(..) {
                match message {
                    ToShard::Event(event) => self.step_at(event, now),
                    ToShard::Passed(link, frame) => self.take_passed(link, &frame, now),
                    ToShard::Serve(ticket, name, argument) => {
                        if name == "audit-test" {
                            self.test_sink(ticket, &argument);
                        } else if name == "in-flight-req" {
                            let core = self.clone();
                            rt::spawn_local(async move {
                                let all = core.clone().all_under_way().await;
                                core.step(ShardIn::SideDone(ticket, SideResult::Json(all)));
                                core.dispatch(None);
                            });
                        } else {
                            let result = (self.facts)(name, &argument);
                            self.step(ShardIn::SideDone(ticket, result));
                        }
                    }
                    ToShard::Reopen => self.sinks.reopen(),
                    ToShard::UnderWay(to) => {
                        // who asked may be gone
                        let _ = to.try_send(self.under_way());
                    }
                }
            }
            self.dispatch(None);
        }
    }

    /// Serves a call that a standby passed on.
    fn take_passed(self: &Rc<Self>, link: u64, frame: &[u8], now: Now) {
        let Ok(PeerMessage::Forward(number, call)) = PeerMessage::decode(frame) else {
            // without a cluster port nothing comes over one
            let _ = self.peers.try_send(ToPeers::Broken(link));
            return;
        };
        let tag = self.next_tag.get();
        self.next_tag.set(tag + 1);
        self.passed.borrow_mut().insert(tag, (link, number));
        let _guard = AbortOnPanic;
        let mut shard = self.shard.borrow_mut();
        self.observe(&mut shard);
        shard.call_from_peer(tag, *call, now, &mut *self.rng.borrow_mut(), &mut self.out.borrow_mut());
    }

    /// Answers a standby; true if one waits under this tag.
    fn answer_passed(&self, tag: u64, answer: impl FnOnce(u64) -> PeerMessage) -> bool {
        let Some((link, number)) = self.passed.borrow_mut().remove(&tag) else { return false };
        let mut bytes = answer(number).encode();
        if bytes.len() > MAX_PEER_BYTES {
            let reply = Reply::error(&Error::new(Code::Internal, "the answer is too large to be passed back"));
            bytes = PeerMessage::Forwarded(number, self.applied(), Box::new(reply)).encode();
        }
        let _ = self.peers.try_send(ToPeers::Answer(link, bytes));
        true
    }

    /// The index that this core reads at.
    fn applied(&self) -> Index {
        self.shard.borrow().applied()
    }

    /// Passes a call on to the active node.
    fn pass_on(self: &Rc<Self>, ticket: Ticket, to: u64, call: Box<Call>) {
        let number = call_number(self.id.0, ticket);
        let bytes = PeerMessage::Forward(number, call).encode();
        if bytes.len() > MAX_PEER_BYTES {
            let e = Error::new(Code::TooLarge, "http: request body too large");
            self.step(ShardIn::Forwarded(ticket, Forwarded::Answer(Reply::error(&e), Index(0))));
        } else if self.peers.try_send(ToPeers::Forward(to, number, bytes)).is_err() {
            // there is no cluster port: not a byte was sent
            self.step(ShardIn::Forwarded(ticket, Forwarded::NotSent));
        }
    }

    /// While calls wait for an active node, looks for it.
    fn keep_retrying(self: &Rc<Self>) {
        if !self.shard.borrow().has_parked() || self.retrying.replace(true) {
            return;
        }
        let core = self.clone();
        rt::spawn_local(async move {
            while core.shard.borrow().has_parked() {
                rt::sleep(RETRY).await;
                core.step(ShardIn::Retry);
                core.dispatch(None);
            }
            core.retrying.set(false);
        });
    }

    /// Tries a device that is about to be enabled.
    fn test_sink(self: &Rc<Self>, ticket: Ticket, device: &serde_json::Value) {
        let (core, tried) = (self.clone(), self.sinks.self_test_json(device));
        rt::spawn_local(async move {
            let result = match tried.await {
                Ok(()) => SideResult::Json(serde_json::Value::Null),
                Err(why) => SideResult::Refused(Error::invalid(why)),
            };
            core.step(ShardIn::SideDone(ticket, result));
            core.dispatch(None);
        });
    }

    fn observe(&self, shard: &mut Shard) {
        if self.published.sequence() != shard.sequence() {
            shard.observe(self.published.cell());
        }
    }

    fn step(self: &Rc<Self>, event: ShardIn) {
        self.step_at(event, rt::now());
    }

    fn step_at(self: &Rc<Self>, event: ShardIn, now: Now) {
        let _guard = AbortOnPanic;
        let mut shard = self.shard.borrow_mut();
        self.observe(&mut shard);
        shard.step(event, now, &mut *self.rng.borrow_mut(), &mut self.out.borrow_mut());
    }

    /// Carries out what the machine asked for. A reply to `now_serving` is kept for its caller instead of being sent.
    fn dispatch(self: &Rc<Self>, now_serving: Option<u64>) {
        loop {
            if self.out.borrow().is_empty() {
                self.keep_retrying();
                return;
            }
            let mut batch = self.out.replace(self.spare.take());
            for out in batch.drain(..) {
                match out {
                    ShardOut::Reply(tag, reply) if now_serving == Some(tag) => {
                        *self.immediate.borrow_mut() = Some((tag, reply));
                    }
                    ShardOut::NotDone(tag) => {
                        self.answer_passed(tag, PeerMessage::NotDone);
                    }
                    ShardOut::Reply(tag, reply) if self.passed.borrow().contains_key(&tag) => {
                        let index = self.applied();
                        self.answer_passed(tag, |n| PeerMessage::Forwarded(n, index, Box::new(reply)));
                    }
                    ShardOut::Reply(tag, reply) => {
                        let answer = self.waiting.borrow_mut().remove(&tag);
                        // a client that went away does not wait any more
                        let _ = answer.map(|a| a.send(reply));
                    }
                    ShardOut::Propose(p) => self.to_owner(ToOwner::Propose(self.id, p)),
                    ShardOut::Tip(call) => self.to_owner(ToOwner::Tip(self.id, call)),
                    ShardOut::Owner(ticket, op) => self.to_owner(ToOwner::Operate(self.id, ticket, op)),
                    ShardOut::Control(ticket, call) => self.to_owner(ToOwner::Control(self.id, ticket, call)),
                    ShardOut::Withdrawn(sequence) => self.to_owner(ToOwner::Withdrawn(self.id, sequence)),
                    ShardOut::Side(ticket, op) => {
                        let core = self.clone();
                        rt::spawn_local(async move {
                            let result = core.threads.perform(op).await;
                            core.step(ShardIn::SideDone(ticket, result));
                            core.dispatch(None);
                        });
                    }
                    ShardOut::Audit(ticket, lines) => {
                        let core = self.clone();
                        self.sinks.submit(lines, move |taken| {
                            core.step(ShardIn::AuditDone(ticket, taken));
                            core.dispatch(None);
                        });
                    }
                    ShardOut::Forward(ticket, to, call) => self.pass_on(ticket, to, call),
                    ShardOut::Login(note) => self.to_owner(ToOwner::Login(note)),
                    ShardOut::Await(ticket, index, what) => {
                        self.to_owner(ToOwner::Await(self.id, ticket, index, what));
                    }
                    ShardOut::Fault(request, cause) => {
                        telemetry::log(Level::Error, &format!("request {request}: {cause}"));
                    }
                }
            }
            self.spare.replace(batch);
        }
    }

    fn to_owner(&self, message: ToOwner) {
        if self.owner.try_send(message).is_err() {
            telemetry::log(Level::Error, "the owner core is gone");
        }
    }
}

/// A request whose body is awaited.
pub struct Arriving(Rc<Core>, u64);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.borrow_mut().remove(&self.1);
    }
}
