//! One node in one process without HTTP: the real owner and a shard, driven as the server drives them, over a real data
//! directory.
//!
//! ```text
//!   calls ──> Shard ──Propose──> Owner ──WriteLog──> file
//!     ^          └───<─Settled────┘ └──Pack, WriteChunk──> a helper thread ──> files
//!     └─replies─┘
//! ```
//!
//! Log writes go to the file and are not flushed: what is measured over this is the engine; `limits` measures the disk.
//! Checkpoints are packed and written beside, as in the server. The clock is the machine's, and can be moved on.

use ringfence_barrier::{Finished, Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Entropy, Mono, Now, Secret, Wall, entropy};
use ringfence_node::raft::{DiskOp, OpId, SegmentNo, log};
use ringfence_node::shard::{Proposal, Ticket};
use ringfence_node::{
    Body, Call, Cell, FileFault, FileOp, Found, Gauges, Map, Operation, Owner, OwnerConfig, OwnerIn, OwnerOut,
    Packed, Reply, Settings, Shard, ShardId, ShardIn, ShardOut, SideResult, Vault, perform, registry, snapshot,
};
use ringfence_server::disk::{Directory, OpenError, identity_bytes};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the owner is told the time.
const TICK: Duration = Duration::from_millis(20);
/// How long a single question may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cores that a node's configuration must name: its shard's, one that may read beside it, one for [`Node::write`].
pub const CORES: u16 = 3;
const BULK_CORE: u16 = 2;

/// The published cell, for shards on other threads.
pub type Published = Arc<Mutex<Arc<Cell>>>;

/// A node.
pub struct Node {
    /// What the machine of the owner core knows.
    pub owner: Owner,
    shard: Shard,
    vault: Arc<Vault>,
    published: Published,
    to_owner: VecDeque<OwnerIn>,
    to_shard: VecDeque<ShardIn>,
    replies: VecDeque<(u64, Reply)>,
    disk: Disk,
    rng: SeededEntropy,
    clock: Clock,
    ticked: Instant,
    next_tag: u64,
    bulk: Option<(u64, Sealer)>,
    turns: Vec<u64>,
    measures_turns: bool,
}

/// The machine's clock, which can be moved on.
#[derive(Clone)]
pub struct Clock {
    began: Instant,
    at_begin: Now,
    skipped_ns: Arc<AtomicU64>,
}

impl Clock {
    /// The time as the node is told it.
    pub fn now(&self) -> Now {
        let passed = self.began.elapsed().as_nanos() as u64 + self.skipped_ns.load(Ordering::SeqCst);
        Now { mono: self.at_begin.mono.plus_ns(passed), wall: self.at_begin.wall.plus_ns(passed) }
    }
}

/// What a stream of calls took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// Calls answered.
    pub calls: u64,
    /// Of the wall clock.
    pub time: Duration,
    /// CPU time of the thread that drives the node: what a core has to give for it, whatever else the machine does.
    pub cpu: Duration,
}

impl Took {
    /// Calls in a second of one core's time.
    pub fn per_core_second(&self) -> f64 {
        self.calls as f64 / self.cpu.as_secs_f64()
    }

    /// Two streams one after the other.
    pub fn and(self, other: Took) -> Took {
        Took { calls: self.calls + other.calls, time: self.time + other.time, cpu: self.cpu + other.cpu }
    }
}

impl Node {
    /// A node over a directory: a new one, or what the directory holds.
    ///
    /// # Errors
    /// As [`Directory::recover`].
    pub fn open(path: &Path, config: OwnerConfig) -> Result<Node, OpenError> {
        let found = Directory::open(path)?.recover()?;
        Ok(Node::over(path, config, found))
    }

    /// A node over what was found in its directory.
    pub fn over(path: &Path, config: OwnerConfig, found: Option<Found>) -> Node {
        let vault = Arc::new(Vault::new(registry(), Settings::default()));
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = Now { mono: Mono(1), wall: Wall(wall.as_nanos() as u64) };
        let owner = match found {
            Some(f) => Owner::restart(config, vault.clone(), f, now),
            None => Owner::blank(config, vault.clone(), now),
        };
        let cell = owner.cell();
        Node {
            shard: Shard::new(0, vault.clone(), cell.clone()),
            published: Arc::new(Mutex::new(cell)),
            owner,
            vault,
            to_owner: VecDeque::new(),
            to_shard: VecDeque::new(),
            replies: VecDeque::new(),
            disk: Disk::new(path),
            rng: SeededEntropy(wall.as_nanos() as u64),
            clock: Clock { began: Instant::now(), at_begin: now, skipped_ns: Arc::default() },
            ticked: Instant::now(),
            next_tag: 1,
            bulk: None,
            turns: Vec::new(),
            measures_turns: false,
        }
    }

    /// From now on a log write is answered when it is durable, and segments are zero-filled, as in the server.
    pub fn flush_writes(&mut self) {
        self.disk.flushes = true;
    }

    /// Bytes and writes that the log has taken.
    pub fn log_written(&self) -> (u64, u64) {
        self.disk.written
    }

    /// Initialises with one share and unseals; answers share and root token.
    ///
    /// # Panics
    /// If the node answers otherwise.
    pub fn begin(&mut self) -> (String, String) {
        let v = self.must(Operation::Update, "sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}));
        let share = v["keys_base64"][0].as_str().expect("a share").to_owned();
        let root = v["root_token"].as_str().expect("a token").to_owned();
        self.unseal(&share);
        (share, root)
    }

    /// Unseals; answers how long it took until a read was served.
    ///
    /// # Panics
    /// If the node stays sealed.
    pub fn unseal(&mut self, share: &str) -> Duration {
        let from = Instant::now();
        let v = self.must(Operation::Update, "sys/unseal", "", json!({"key": share}));
        assert_eq!(v["sealed"], json!(false), "{v}");
        while !self.cell().facts.active {
            assert!(from.elapsed() < PATIENCE, "the node becomes active");
            self.turn();
        }
        from.elapsed()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Panics
    /// If none comes.
    pub fn ask(&mut self, op: Operation, path: &str, token: &str, data: Value) -> Reply {
        let call = self.call(op, path, token, data);
        let tag = self.send(call);
        let from = Instant::now();
        loop {
            if let Some(i) = self.replies.iter().position(|(t, _)| *t == tag)
                && let Some((_, reply)) = self.replies.remove(i)
            {
                return reply;
            }
            assert!(from.elapsed() < PATIENCE, "{path} is answered");
            self.turn();
        }
    }

    /// Asks for what must succeed; answers the body.
    ///
    /// # Panics
    /// If it does not.
    pub fn must(&mut self, op: Operation, path: &str, token: &str, data: Value) -> Value {
        let reply = self.ask(op, path, token, data);
        let v = body(&reply);
        assert!(is_good(&reply), "{path}: {:?} {v}", reply.code);
        v
    }

    /// Makes a call as the edge would.
    pub fn call(&mut self, op: Operation, path: &str, token: &str, data: Value) -> Call {
        call(&mut self.rng, op, path, token, data)
    }

    /// Sends so many calls with so many under way. `next` makes them, `each` gets every answer, which must be a good
    /// one.
    ///
    /// # Panics
    /// If a call fails.
    pub fn stream(
        &mut self,
        count: u64,
        under_way: u64,
        mut next: impl FnMut(&mut SeededEntropy) -> Call,
        mut each: impl FnMut(&Reply),
    ) -> Took {
        let (from, cpu) = (Instant::now(), thread_cpu());
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent - answered < under_way {
                let call = next(&mut self.rng);
                self.send(call);
                sent += 1;
                while let Some((_, reply)) = self.replies.pop_front() {
                    assert!(is_good(&reply), "{:?} {}", reply.code, body(&reply));
                    each(&reply);
                    answered += 1;
                }
            }
            self.turn();
            while let Some((_, reply)) = self.replies.pop_front() {
                assert!(is_good(&reply), "{:?} {}", reply.code, body(&reply));
                each(&reply);
                answered += 1;
            }
        }
        Took { calls: count, time: from.elapsed(), cpu: thread_cpu() - cpu }
    }

    /// Drives the node until a condition holds; answers what that took.
    ///
    /// # Panics
    /// If it takes longer than `patience`.
    pub fn until(&mut self, patience: Duration, mut done: impl FnMut(&Node) -> bool) -> Took {
        let (from, cpu) = (Instant::now(), thread_cpu());
        while !done(self) {
            assert!(from.elapsed() < patience, "it happens in time: {:?}", self.gauges());
            self.turn();
        }
        Took { calls: 1, time: from.elapsed(), cpu: thread_cpu() - cpu }
    }

    /// Writes records past the pipeline, sealed and committed as any: for many, of which some were made through it.
    ///
    /// # Panics
    /// If the node is sealed, or what is written is over a limit.
    pub fn write(&mut self, fill: impl FnOnce(&mut Txn<'_>, &Keyring, &mut SeededEntropy, Wall)) {
        // nobody would hear that it was refused because too much is under way
        self.until(PATIENCE, |node| node.gauges().pending <= 8);
        let cell = self.cell();
        let keys = cell.keys.as_ref().expect("an unsealed node");
        if self.bulk.as_ref().is_none_or(|(generation, _)| *generation != keys.licences.generation) {
            let sealer = keys.licences.take(BULK_CORE).expect("a licence for one more core");
            self.bulk = Some((keys.licences.generation, sealer));
        }
        let (_, sealer) = self.bulk.as_mut().expect("it was just taken");
        sealer.follow(&keys.keyring);
        let now = cell.clock.now(self.clock.now());
        let mut txn = Txn::new(&cell.version, Some(&keys.keyring));
        fill(&mut txn, &keys.keyring, &mut self.rng, now);
        let Finished { batch, reads, read_index } = txn.finish(sealer, now).expect("within limits");
        // no call waits for it: the shard knows no such ticket
        let ticket = Ticket(u64::MAX);
        let batch = batch.expect("something is written");
        let proposal = Proposal { ticket, batch, reads, read_index, sealed: 0, returns: false };
        self.to_owner.push_back(OwnerIn::Propose(ShardId(0), proposal));
        self.turn();
    }

    /// Drives the node for a while.
    pub fn run_for(&mut self, span: Duration) {
        let from = Instant::now();
        while from.elapsed() < span {
            self.turn();
        }
    }

    /// Moves the clock on.
    pub fn skip_seconds(&mut self, seconds: u64) {
        self.clock.skipped_ns.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    /// Checkpoints finished.
    pub fn checkpoints(&self) -> u64 {
        self.disk.manifests
    }

    /// Size of its checkpoint files, bytes.
    pub fn checkpoint_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.disk.path.join("checkpoint")).expect("the directory is there");
        entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
    }

    /// Gauges of the owner.
    pub fn gauges(&self) -> Gauges {
        self.owner.gauges()
    }

    /// From now on the CPU time of each turn of the owner's loop that did something is kept, ns.
    pub fn measure_turns(&mut self) {
        self.turns.clear();
        self.measures_turns = true;
    }

    /// Lengths of the turns since [`Node::measure_turns`], sorted, ns.
    pub fn take_turns(&mut self) -> Vec<u64> {
        self.measures_turns = false;
        let mut turns = std::mem::take(&mut self.turns);
        turns.sort_unstable();
        turns
    }

    /// What a shard on another thread is made of, where it finds newer cells, and its clock.
    pub fn beside(&self) -> (Arc<Vault>, Published, Clock) {
        (self.vault.clone(), self.published.clone(), self.clock.clone())
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn cell(&self) -> Arc<Cell> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&mut self, call: Call) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let (now, mut out) = (self.now(), Vec::new());
        self.shard.call(tag, call, now, &mut self.rng, &mut out);
        self.shard_out(out);
        tag
    }

    /// One turn: what the shard waits for, what the owner is told, what that leads to.
    fn turn(&mut self) {
        let (from, cpu) = (Instant::now(), self.measures_turns.then(thread_cpu));
        let mut worked = false;
        if self.ticked.elapsed() >= TICK {
            self.ticked = from;
            self.to_owner.push_back(OwnerIn::Tick);
        }
        self.to_owner.extend(self.disk.take_done());
        if !self.to_owner.is_empty() {
            worked = true;
            let (now, mut out) = (self.now(), Vec::new());
            while let Some(input) = self.to_owner.pop_front() {
                self.owner.step(input, now, &mut self.rng, &mut out);
            }
            self.owner.settle(&mut self.rng, &mut out);
            self.owner_out(out);
        }
        while let Some(input) = self.to_shard.pop_front() {
            worked = true;
            let (now, mut out) = (self.now(), Vec::new());
            self.shard.step(input, now, &mut self.rng, &mut out);
            self.shard_out(out);
        }
        if !worked {
            std::thread::sleep(Duration::from_micros(50));
        } else if let Some(cpu) = cpu {
            self.turns.push((thread_cpu() - cpu).as_nanos() as u64);
        }
    }

    fn owner_out(&mut self, out: Vec<OwnerOut>) {
        for o in out {
            match o {
                OwnerOut::Disk(op) => self.disk.log(op),
                OwnerOut::File(op) => self.disk.file(op),
                OwnerOut::Pack(id, packing) => self.disk.helper(move || Beside::Packed(id, Box::new(packing.pack()))),
                OwnerOut::Publish(cell) => {
                    *self.published.lock().unwrap_or_else(PoisonError::into_inner) = cell.clone();
                    self.shard.observe(cell);
                }
                OwnerOut::Settled(_, t, settled) => self.to_shard.push_back(ShardIn::Settled(t, settled)),
                OwnerOut::Reached(_, t, reached) => self.to_shard.push_back(ShardIn::Reached(t, reached)),
                OwnerOut::TipDone(_, t, done) => self.to_shard.push_back(ShardIn::TipDone(t, done)),
                OwnerOut::ControlDone(_, t, reply) => self.to_shard.push_back(ShardIn::ControlDone(t, reply)),
                OwnerOut::OperateDone(_, t, result) => self.to_shard.push_back(ShardIn::SideDone(t, result)),
                OwnerOut::Withdraw(sequence) => self.to_shard.push_back(ShardIn::Withdraw(sequence)),
                OwnerOut::Side(job, op) => self.to_owner.push_back(OwnerIn::SideDone(job, perform(&op))),
                OwnerOut::Serve(_, t, what, _) => {
                    let result = SideResult::Failed(format!("nobody serves {what} here"));
                    self.to_shard.push_back(ShardIn::SideDone(t, result));
                }
                OwnerOut::Snapshot(_, t, job) => {
                    self.to_shard.push_back(ShardIn::SideDone(t, snapshot::build(&job)));
                }
                OwnerOut::Unpack(s, t, archive, force) => {
                    self.to_owner.push_back(OwnerIn::Unpacked(s, t, snapshot::unpack(&archive, force)));
                }
                OwnerOut::Log(_, text) => eprintln!("node: {text}"),
                OwnerOut::Halt(why) | OwnerOut::Lost(why) => panic!("the node halted: {why}"),
                OwnerOut::Members(..) | OwnerOut::Returned(..) => {}
                OwnerOut::KeepSnapshot(..) => panic!("no schedule of snapshots was made"),
                OwnerOut::Send(..) | OwnerOut::ReadChunk(..) | OwnerOut::Load(..) | OwnerOut::AskLeader(..) => {
                    panic!("a node alone has nobody to talk to")
                }
            }
        }
    }

    fn shard_out(&mut self, out: Vec<ShardOut>) {
        let id = ShardId(0);
        for o in out {
            match o {
                ShardOut::Reply(tag, reply) => self.replies.push_back((tag, reply)),
                ShardOut::Propose(p) => self.to_owner.push_back(OwnerIn::Propose(id, p)),
                ShardOut::Tip(c) => self.to_owner.push_back(OwnerIn::Tip(id, c)),
                ShardOut::Owner(t, op) => self.to_owner.push_back(OwnerIn::Operate(id, t, op)),
                ShardOut::Control(t, c) => self.to_owner.push_back(OwnerIn::Control(id, t, c)),
                ShardOut::Withdrawn(s) => self.to_owner.push_back(OwnerIn::Withdrawn(id, s)),
                ShardOut::Side(t, op) => self.to_shard.push_back(ShardIn::SideDone(t, perform(&op))),
                ShardOut::Login(note) => self.to_owner.push_back(OwnerIn::Login(note)),
                ShardOut::Await(t, index, what) => self.to_owner.push_back(OwnerIn::Await(id, t, index, what)),
                ShardOut::Audit(t, _) => self.to_shard.push_back(ShardIn::AuditDone(t, true)),
                ShardOut::Forward(..) | ShardOut::NotDone(..) => panic!("a node alone passes nothing on"),
                ShardOut::Fault(_, cause) => panic!("internal error: {cause}"),
            }
        }
    }
}

/// CPU time of the calling thread so far.
#[allow(unsafe_code)]
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one timespec is written into a live one.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(rc, 0, "every thread has a CPU clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A call as the edge makes it.
pub fn call(rng: &mut dyn Entropy, op: Operation, path: &str, token: &str, data: Value) -> Call {
    let data = match data {
        Value::Object(m) => m,
        _ => Map::new(),
    };
    Call {
        id: entropy::uuid4(rng),
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
        headers: Default::default(),
        raw_body: None,
        peer_certificates: Default::default(),
        mfa: Vec::new(),
    }
}

/// A reply's body; null if it has none.
pub fn body(reply: &Reply) -> Value {
    match &reply.body {
        Body::Json(b) => serde_json::from_slice(b).unwrap_or(Value::Null),
        Body::Raw(r) => serde_json::from_slice(&r.body).unwrap_or(Value::Null),
        Body::Empty => Value::Null,
    }
}

/// True for a reply that says it was done.
pub fn is_good(reply: &Reply) -> bool {
    use ringfence_node::Code;
    matches!(reply.code, Code::Ok | Code::NoContent | Code::Accepted)
}

/// What a helper thread finished.
enum Beside {
    Packed(u64, Box<Packed>),
    File(u64, Result<(), FileFault>),
}

type Job = Box<dyn FnOnce() -> Option<Beside> + Send>;

/// The data directory, in the server's layout.
struct Disk {
    path: PathBuf,
    segments: BTreeMap<SegmentNo, File>,
    slots: Option<File>,
    done: Vec<(OpId, Result<(), ringfence_node::raft::DiskFault>)>,
    jobs: Sender<Job>,
    beside: Receiver<Beside>,
    manifests: u64,
    manifest_ids: Vec<u64>,
    flushes: bool,
    /// Bytes and writes of the log.
    written: (u64, u64),
}

impl Disk {
    fn new(path: &Path) -> Disk {
        let (jobs, todo) = channel::<Job>();
        let (tell, beside) = channel();
        // ends when the sender of jobs is dropped
        std::thread::spawn(move || {
            for job in todo {
                if let Some(done) = job()
                    && tell.send(done).is_err()
                {
                    return;
                }
            }
        });
        Disk {
            path: path.to_owned(),
            segments: BTreeMap::new(),
            slots: None,
            done: Vec::new(),
            jobs,
            beside,
            manifests: 0,
            manifest_ids: Vec::new(),
            flushes: false,
            written: (0, 0),
        }
    }

    fn helper(&self, job: impl FnOnce() -> Beside + Send + 'static) {
        self.jobs.send(Box::new(move || Some(job()))).expect("the helper lives as long as its queue");
    }

    fn segment_path(&self, no: SegmentNo) -> PathBuf {
        self.path.join(format!("log/{:016}.seg", no.0))
    }

    fn log(&mut self, op: DiskOp) {
        let id = op.id();
        match op {
            DiskOp::WriteLog { segment, offset, bytes, .. } => {
                let path = self.segment_path(segment);
                let flags = if self.flushes { libc::O_DSYNC } else { 0 };
                let file = self.segments.entry(segment).or_insert_with(|| {
                    let file = File::options().write(true).custom_flags(flags).open(path);
                    file.expect("a segment is prepared before it is written")
                });
                file.write_all_at(&bytes, offset).expect("the disk takes it");
                self.written = (self.written.0 + bytes.len() as u64, self.written.1 + 1);
            }
            DiskOp::WriteSlot { offset, bytes, .. } => {
                let path = self.path.join("slots");
                let file = self.slots.get_or_insert_with(|| {
                    let file = File::options().create(true).truncate(false).write(true).open(path);
                    let file = file.expect("the directory takes files");
                    file.set_len(log::slots::FILE_BYTES as u64).expect("there is room");
                    file
                });
                file.write_all_at(&bytes, offset).expect("the disk takes it");
            }
            DiskOp::PrepareSegment { segment, size, recycle, .. } => match recycle {
                Some(old) => {
                    self.segments.remove(&old);
                    std::fs::rename(self.segment_path(old), self.segment_path(segment)).expect("it was there");
                }
                None => {
                    let file = File::create(self.segment_path(segment)).expect("the directory takes files");
                    file.set_len(size).expect("there is room");
                    if self.flushes {
                        for at in (0..size).step_by(1 << 20) {
                            let zeros = vec![0; (size - at).min(1 << 20) as usize];
                            file.write_all_at(&zeros, at).expect("there is room");
                        }
                        file.sync_all().expect("the disk takes it");
                    }
                }
            },
            DiskOp::RemoveSegment { segment, .. } => {
                self.segments.remove(&segment);
                // absent is fine
                let _ = std::fs::remove_file(self.segment_path(segment));
            }
        }
        self.done.push((id, Ok(())));
    }

    fn file(&mut self, op: FileOp) {
        let write =
            |path: PathBuf, bytes: Vec<u8>| std::fs::write(path, bytes).map_err(|e| FileFault::Io(e.to_string()));
        match op {
            FileOp::WriteIdentity { cluster, raft_id } => {
                write(self.path.join("identity"), identity_bytes(cluster, raft_id))
                    .expect("the directory takes files");
            }
            FileOp::WriteChunk { id, chunk, bytes } => {
                let path = self.path.join(format!("checkpoint/{chunk}.chunk"));
                self.helper(move || Beside::File(id, write(path, bytes)));
            }
            FileOp::WriteManifest { id, bytes } => {
                let path = self.path.join("checkpoint/manifest");
                self.manifest_ids.push(id);
                self.helper(move || Beside::File(id, write(path, bytes)));
            }
            FileOp::RemoveChunk { chunk } => {
                // absent is fine
                let _ = std::fs::remove_file(self.path.join(format!("checkpoint/{chunk}.chunk")));
            }
        }
    }

    fn take_done(&mut self) -> Vec<OwnerIn> {
        let mut all: Vec<OwnerIn> = self.done.drain(..).map(|(id, r)| OwnerIn::DiskDone(id, r)).collect();
        for done in self.beside.try_iter() {
            all.push(match done {
                Beside::Packed(id, packed) => OwnerIn::Packed(id, packed),
                Beside::File(id, result) => {
                    if self.manifest_ids.contains(&id) {
                        self.manifest_ids.clear();
                        self.manifests += 1;
                    }
                    OwnerIn::FileDone(id, result)
                }
            });
        }
        all
    }
}
