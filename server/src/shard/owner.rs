//! Core 0's second machine: the owner, its mailbox, its disk, its clock.

use super::{AbortOnPanic, Published, ToOwner, ToShard};
use crate::disk::{DirExecutor, Directory, Done, Executor, MemoryExecutor};
use crate::peer::Peers;
use crate::rt::channel::{Inlet, Sender};
use crate::rt::{self, OsEntropy};
use crate::side::Threads;
use crate::telemetry::metrics::{self, Gauge, Metrics};
use crate::telemetry::statsd::Sink;
use crate::telemetry::{self, Level};
use ringfence_base::Now;
use ringfence_node::{FileOp, Loaded, Owner, OwnerIn, OwnerOut, ShardIn, SideResult, snapshot};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two ticks of the owner: a third of a raft tick, so that none is missed.
const TICK: Duration = Duration::from_millis(20);

/// Where the log lives.
pub enum Storage {
    /// In memory, gone with the process.
    Memory,
    /// In a data directory.
    Directory(Directory),
}

/// The owner and what drives it.
pub struct OwnerCore {
    owner: RefCell<Owner>,
    rng: RefCell<OsEntropy>,
    out: RefCell<Vec<OwnerOut>>,
    /// An emptied `out`, for the next round.
    spare: RefCell<Vec<OwnerOut>>,
    /// What a round has for each shard.
    mail: RefCell<Vec<Vec<ToShard>>>,
    /// Completions that arrive while the owner is at work.
    done: Rc<RefCell<Vec<Done>>>,
    published: Arc<Published>,
    shards: Vec<Sender<ToShard>>,
    itself: Sender<ToOwner>,
    threads: Arc<Threads>,
    executor: Box<dyn Executor>,
    wake: Rc<RefCell<Option<std::task::Waker>>>,
    metrics: Metrics,
    sinks: Vec<Sink>,
    peers: Option<Rc<Peers>>,
    /// Holds the directory's lock.
    directory: Option<Directory>,
}

impl OwnerCore {
    /// Over an owner that was recovered or is blank.
    // each is made once, at the start, by its own part of the process
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        owner: Owner,
        storage: Storage,
        published: Arc<Published>,
        shards: Vec<Sender<ToShard>>,
        itself: Sender<ToOwner>,
        threads: Arc<Threads>,
        metrics: Metrics,
        sinks: Vec<Sink>,
        peers: Option<Rc<Peers>>,
    ) -> Rc<OwnerCore> {
        let done: Rc<RefCell<Vec<Done>>> = Rc::default();
        let wake: Rc<RefCell<Option<std::task::Waker>>> = Rc::default();
        let report: Rc<dyn Fn(Done)> = {
            let (done, wake) = (done.clone(), wake.clone());
            Rc::new(move |d| {
                done.borrow_mut().push(d);
                if let Some(w) = wake.borrow_mut().take() {
                    w.wake();
                }
            })
        };
        let (executor, directory): (Box<dyn Executor>, _) = match storage {
            Storage::Memory => (Box::new(MemoryExecutor::new(report)), None),
            Storage::Directory(d) => (Box::new(DirExecutor::new(d.path(), report)), Some(d)),
        };
        Rc::new(OwnerCore {
            owner: RefCell::new(owner),
            rng: RefCell::new(OsEntropy::new()),
            out: RefCell::default(),
            spare: RefCell::default(),
            mail: RefCell::new(shards.iter().map(|_| Vec::new()).collect()),
            done,
            published,
            shards,
            itself,
            threads,
            executor,
            wake,
            metrics,
            sinks,
            peers,
            directory,
        })
    }

    /// Runs until the process ends: mail, completions and ticks, in that order, settled once a round.
    pub async fn serve(self: Rc<Self>, inlet: Inlet<ToOwner>) {
        let ticker = self.clone();
        rt::spawn_local(async move {
            loop {
                rt::sleep(TICK).await;
                ticker.give(OwnerIn::Tick);
                ticker.round();
            }
        });
        let reporter = self.clone();
        rt::spawn_local(async move {
            loop {
                rt::sleep(metrics::INTERVAL).await;
                reporter.report();
                reporter.metrics.tick(rt::now());
                reporter.push_metrics();
            }
        });
        let completions = self.clone();
        rt::spawn_local(async move {
            loop {
                completions.completed().await;
                completions.round();
            }
        });
        self.give(OwnerIn::Tick);
        self.round();
        let mut mail = inlet.open();
        let mut batch = Vec::new();
        while mail.drain(&mut batch).await > 0 {
            let now = rt::now();
            for message in batch.drain(..) {
                match message {
                    ToOwner::Propose(shard, p) => self.give_at(now, OwnerIn::Propose(shard, p)),
                    ToOwner::Tip(shard, call) => self.give_at(now, OwnerIn::Tip(shard, call)),
                    ToOwner::Control(shard, ticket, c) => self.give_at(now, OwnerIn::Control(shard, ticket, c)),
                    ToOwner::Operate(shard, ticket, op) => self.give_at(now, OwnerIn::Operate(shard, ticket, op)),
                    ToOwner::Withdrawn(shard, sequence) => self.give_at(now, OwnerIn::Withdrawn(shard, sequence)),
                    ToOwner::LeaseSideDone(job, result) => self.give_at(now, OwnerIn::SideDone(job, result)),
                    ToOwner::Login(note) => self.give_at(now, OwnerIn::Login(note)),
                    ToOwner::Await(shard, t, index, what) => {
                        self.give_at(now, OwnerIn::Await(shard, t, index, what));
                    }
                    ToOwner::Unpacked(shard, ticket, u) => self.give_at(now, OwnerIn::Unpacked(shard, ticket, u)),
                    ToOwner::Packed(id, packed) => self.give_at(now, OwnerIn::Packed(id, packed)),
                    ToOwner::Peer(from, m) => self.give_at(now, OwnerIn::Peer(from, m)),
                    ToOwner::StepDown => self.give_at(now, OwnerIn::StepDown),
                    ToOwner::Unreachable(to) => self.give_at(now, OwnerIn::Unreachable(to)),
                    ToOwner::ChunkRead(id, bytes) => self.give_at(now, OwnerIn::ChunkRead(id, bytes)),
                    ToOwner::Loaded(number, loaded) => self.give_at(now, OwnerIn::Loaded(number, loaded)),
                    ToOwner::LeaderSaid(number, said) => self.give_at(now, OwnerIn::LeaderSaid(number, said)),
                    ToOwner::Returning(link, from, asks) => {
                        self.give_at(now, OwnerIn::Returning(link, from, asks));
                    }
                    ToOwner::Join(cluster) => self.give_at(now, OwnerIn::Join(cluster)),
                    ToOwner::Pins(pins) => self.give_at(now, OwnerIn::Pins(pins)),
                    ToOwner::Lost(why) => self.lost(&why),
                    ToOwner::Shutdown => return,
                }
            }
            self.round();
        }
    }

    /// Tells the metrics how the owner stands.
    fn report(&self) {
        let (owner, m) = (self.owner.borrow(), &self.metrics);
        let g = owner.gauges();
        m.set(Gauge::CoreUnsealed, u64::from(g.unsealed));
        m.set(Gauge::CoreActive, u64::from(g.active));
        m.set(Gauge::CorePerformanceStandby, u64::from(g.performance_standby));
        m.set(Gauge::ExpireNumLeases, g.leases);
        m.set(Gauge::RaftAppliedIndex, g.applied);
        m.set(Gauge::RaftCommitIndex, g.committed);
        m.set(Gauge::RaftFsmPending, g.pending);
        m.set(Gauge::RaftPeers, g.peers);
        m.set(Gauge::BarrierEstimatedEncryptions, g.encryptions);
        m.set_cluster(&self.published.cell().facts.cluster_name);
    }

    /// Sends the last interval's measurements out, on helper threads.
    fn push_metrics(&self) {
        if self.sinks.is_empty() {
            return;
        }
        let interval = Arc::new(self.metrics.json(rt::now()));
        for sink in &self.sinks {
            let (pool, sink, interval) = (self.threads.pool.clone(), sink.clone(), interval.clone());
            rt::spawn_local(async move {
                if let Err(why) = pool.run(move || sink.push(&interval)).await {
                    telemetry::log(Level::Debug, &why);
                }
            });
        }
    }

    /// Waits for a disk completion.
    async fn completed(&self) {
        std::future::poll_fn(|cx| {
            if !self.done.borrow().is_empty() {
                return std::task::Poll::Ready(());
            }
            *self.wake.borrow_mut() = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await
    }

    fn give(&self, input: OwnerIn) {
        self.give_at(rt::now(), input);
    }

    fn give_at(&self, now: Now, input: OwnerIn) {
        let _guard = AbortOnPanic;
        self.owner.borrow_mut().step(input, now, &mut *self.rng.borrow_mut(), &mut self.out.borrow_mut());
    }

    /// Settles and carries out what the owner asks for, until it rests. A memory disk completes within the round.
    fn round(&self) {
        let _guard = AbortOnPanic;
        loop {
            let finished = std::mem::take(&mut *self.done.borrow_mut());
            for d in finished {
                self.give(match d {
                    Done::Disk(id, result) => OwnerIn::DiskDone(id, result),
                    Done::File(id, result) => OwnerIn::FileDone(id, result),
                });
            }
            self.owner.borrow_mut().settle(&mut *self.rng.borrow_mut(), &mut self.out.borrow_mut());
            let mut batch = self.out.replace(self.spare.take());
            if batch.is_empty() && self.done.borrow().is_empty() {
                self.spare.replace(batch);
                return;
            }
            for out in batch.drain(..) {
                self.perform(out);
            }
            self.spare.replace(batch);
            self.post();
        }
    }

    /// Sends what the round has for each shard: one lock and one wake a shard, however many waited for the same write.
    fn post(&self) {
        for (to, mail) in self.shards.iter().zip(&mut *self.mail.borrow_mut()) {
            if !mail.is_empty() {
                // a core that has ended has no calls to answer
                let _ = to.send_all(mail.drain(..));
            }
        }
    }

    fn perform(&self, out: OwnerOut) {
        match out {
            OwnerOut::Disk(op) => self.executor.disk(op),
            OwnerOut::File(op @ FileOp::WriteIdentity { .. }) => self.executor.file(op),
            OwnerOut::File(op) => self.executor.file(op),
            OwnerOut::Pack(id, packing) => {
                let itself = self.itself.clone();
                rt::spawn_local(async move {
                    let packed = rt::background(move || packing.pack()).await;
                    let _ = itself.try_send(ToOwner::Packed(id, Box::new(packed)));
                });
            }
            OwnerOut::Publish(cell) => self.published.swap(cell),
            OwnerOut::Settled(shard, ticket, settled) => {
                self.tell(shard.0, ToShard::Event(ShardIn::Settled(ticket, settled)));
            }
            OwnerOut::Reached(shard, ticket, reached) => {
                self.tell(shard.0, ToShard::Event(ShardIn::Reached(ticket, reached)));
            }
            OwnerOut::TipDone(shard, ticket, done) => {
                self.tell(shard.0, ToShard::Event(ShardIn::TipDone(ticket, done)));
            }
            OwnerOut::ControlDone(shard, ticket, reply) => {
                self.tell(shard.0, ToShard::Event(ShardIn::ControlDone(ticket, reply)));
            }
            OwnerOut::OperateDone(shard, ticket, result) => {
                self.tell(shard.0, ToShard::Event(ShardIn::SideDone(ticket, result)));
            }
            OwnerOut::Withdraw(sequence) => {
                for shard in 0..self.shards.len() as u16 {
                    self.tell(shard, ToShard::Event(ShardIn::Withdraw(sequence)));
                }
            }
            OwnerOut::Serve(shard, ticket, name, argument) => {
                self.tell(shard.0, ToShard::Serve(ticket, name, argument));
            }
            OwnerOut::Side(job, op) => {
                let (threads, itself) = (self.threads.clone(), self.itself.clone());
                rt::spawn_local(async move {
                    let result = threads.perform(op).await;
                    let _ = itself.try_send(ToOwner::LeaseSideDone(job, result));
                });
            }
            OwnerOut::Snapshot(shard, ticket, job) => {
                let (pool, to) = (self.threads.pool.clone(), self.shards[shard.0 as usize].clone());
                rt::spawn_local(async move {
                    let result: SideResult = pool.run(move || snapshot::build(&job)).await;
                    let _ = to.try_send(ToShard::Event(ShardIn::SideDone(ticket, result)));
                });
            }
            OwnerOut::KeepSnapshot(number, job, place) => {
                let (pool, itself, now) = (self.threads.pool.clone(), self.itself.clone(), rt::now().wall);
                rt::spawn_local(async move {
                    let kept = pool.run(move || match snapshot::build(&job) {
                        SideResult::Bytes(archive) => crate::disk::snapshots::keep(&place, &archive, now),
                        other => other,
                    });
                    let _ = itself.try_send(ToOwner::LeaseSideDone(number, kept.await));
                });
            }
            OwnerOut::Unpack(shard, ticket, archive, force) => {
                let (pool, itself) = (self.threads.pool.clone(), self.itself.clone());
                rt::spawn_local(async move {
                    let unpacked = pool.run(move || snapshot::unpack(&archive, force)).await;
                    let _ = itself.try_send(ToOwner::Unpacked(shard, ticket, unpacked));
                });
            }
            OwnerOut::Send(to, message) => {
                if let Some(peers) = &self.peers {
                    peers.send(to, &message);
                }
            }
            OwnerOut::Members(membership) => {
                if let Some(peers) = &self.peers {
                    peers.members(*membership);
                }
            }
            OwnerOut::ReadChunk(id, chunk) => {
                let path = self.directory.as_ref().map(|d| d.chunk_path(chunk));
                let itself = self.itself.clone();
                rt::spawn_local(async move {
                    // one that was replaced meanwhile is not there any more
                    let bytes = rt::background(move || path.and_then(|p| std::fs::read(p).ok())).await;
                    let _ = itself.try_send(ToOwner::ChunkRead(id, bytes));
                });
            }
            OwnerOut::Load(number, loading) => {
                let itself = self.itself.clone();
                rt::spawn_local(async move {
                    let loaded = rt::background(move || Loaded(loading.load())).await;
                    let _ = itself.try_send(ToOwner::Loaded(number, Box::new(loaded)));
                });
            }
            OwnerOut::AskLeader(number, ask) => {
                let (pool, itself) = (self.threads.pool.clone(), self.itself.clone());
                rt::spawn_local(async move {
                    let said = pool.run(move || crate::peer::ask(*ask)).await;
                    let _ = itself.try_send(ToOwner::LeaderSaid(number, said));
                });
            }
            OwnerOut::Log(level, text) => {
                let level = match level {
                    ringfence_node::Level::Info => Level::Info,
                    ringfence_node::Level::Warn => Level::Warn,
                    ringfence_node::Level::Error => Level::Error,
                };
                telemetry::log(level, &text);
            }
            OwnerOut::Returned(link, said) => {
                if let Some(peers) = &self.peers {
                    peers.returned(link, &said);
                }
            }
            OwnerOut::Lost(why) => self.lost(&why),
            OwnerOut::Halt(why) => {
                telemetry::log(Level::Error, &format!("stopping: {why}"));
                // the spine is broken: nothing more may be acknowledged, and no destructor may pretend otherwise
                std::process::abort();
            }
        }
    }

    /// The directory lost something, and another process of it is to begin anew: this one must not say another word.
    fn lost(&self, why: &str) {
        let remedy = match self.directory.as_ref().map(|d| crate::disk::mark_lost(d.path(), why)) {
            Some(Ok(())) => "start it again: it comes back as a new member and gets the data from the others",
            _ => "move the data directory away and let the node join again with an empty one",
        };
        telemetry::log(Level::Error, &format!("stopping: this data directory cannot go on: {why}; {remedy}"));
        std::process::exit(1);
    }

    fn tell(&self, shard: u16, message: ToShard) {
        if let Some(mail) = self.mail.borrow_mut().get_mut(shard as usize) {
            mail.push(message);
        }
    }
}
