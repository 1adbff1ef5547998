//! The owner core's machine: consensus, the log, the image, the window of recent writes, the seal, the log's clock,
//! checkpoints, and the paced work on leases. There is one per node; shards hand it their writes.
//!
//! ```text
//!  Propose ──window──> Member.propose ──DiskOp──> executor ──DiskDone──> Member ──committed──> Image.apply
//!                                                                                               │
//!  Settled <──────── publish(cell) <────────────────────────────────────────────────────────────┘
//! ```
//!
//! Group commit needs no timer: everything proposed while a write is in flight is the next write. A cell is published
//! *before* the waiters of its batches are told. Guards end here: the log carries puts and deletes only.

use crate::cell::{Cell, Facts, Keys, Leader};
use crate::checkpoint::{Checkpointer, FileFault, FileOp, Packed, Packing};
use crate::clock::LogTime;
use crate::control::ControlCall;
use crate::install::{Install, Loaded, Loading};
use crate::join::{Join, JoinAsk, JoinSaid};
use crate::members::{self, MemberRecord, Stabilising};
use crate::peer::{PeerMessage, Peers};
use crate::position;
use crate::recovery::Found;
use crate::seal::SealState;
use crate::shard::{Awaiting, NotDone, Proposal, Settled, Ticket};
use crate::standby::Standby;
use crate::tip::{TipCall, TipDone, TipReader};
use crate::work::LeaseWork;
use ringfence_barrier::{Finished, Overlay, ReadSet, Verdict, Window};
use ringfence_base::{Entropy, Index, Mono, Now, Term, Wall, invariant};
use ringfence_crypto::Provider;
use ringfence_logical::{OwnerOp, SideOp, SideResult};
use ringfence_raft::{
    Checkpoint, ConfState, DiskFault, DiskOp, Effects, HaltReason, Member, MemberConfig, OpId, Payload, ProposeError,
    Role,
};
use ringfence_store::{Batch, Image, Version};
use ringfence_vault::call::Reply;
use ringfence_vault::host::Vault;
use ringfence_vault::lease::index::SideIndex;
use ringfence_vault::tables::NODE;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Writes that the window remembers.
const WINDOW_OPS: usize = 64 * 1024;
/// Proposed and not yet applied, bytes; beyond it new writes are told to try again.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// The cell is published at least this often, so that its clock and facts stay fresh, ns.
const PUBLISH_EVERY_NS: u64 = 1_000_000_000;
/// The active node compares the members wished with raft's so often, ns.
const RECONCILE_NS: u64 = 500_000_000;
/// After the lead was lost, what was proposed is waited for so long: the new leader's log tells what became of it, ns.
const ORPHAN_NS: u64 = 3_000_000_000;
/// A call waits so long for the index that it demands, unless the configuration says otherwise, ns. Source: Vault's
/// `best_effort_wal_wait_duration`.
pub const INDEX_WAIT_NS: u64 = 2_000_000_000;
/// Raft ticks, ns. Elections count in these.
pub const TICK_NS: u64 = 60_000_000;

/// Which core asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// Number of shards.
    pub shards: u16,
    /// The node's name, shown in raft configuration.
    pub node_id: String,
    /// Address of the cluster port, shown in raft configuration.
    pub cluster_addr: String,
    /// URL of the API, shown in `sys/leader`.
    pub api_addr: String,
    /// Name of the cluster, if configured.
    pub cluster_name: Option<String>,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of log after which a checkpoint is made.
    pub checkpoint_log_bytes: u64,
    /// Entries kept in memory behind a checkpoint for nodes that are a little behind.
    pub trailing_entries: u64,
    /// Bytes that the image may take; writes beyond it are refused.
    pub memory_limit_bytes: u64,
    /// Largest batch, bytes encoded.
    pub max_batch_bytes: usize,
    /// SHA-256 of each certificate that this node may show on the cluster port.
    pub pins: Vec<[u8; 32]>,
    /// It may have peers: its storage is raft, and clustering is not switched off.
    pub clustered: bool,
    /// While it stands by, it answers what it can without writing.
    pub performance_standby: bool,
    /// A call waits so long for the index that it demands, ns.
    pub index_wait_ns: u64,
    /// Which implementation of the primitives; the simulator's is the seeded one.
    pub provider: Provider,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        OwnerConfig {
            shards: 1,
            node_id: "node1".into(),
            cluster_addr: "https://127.0.0.1:8201".into(),
            api_addr: "http://127.0.0.1:8200".into(),
            cluster_name: None,
            segment_bytes: 64 << 20,
            checkpoint_log_bytes: 256 << 20,
            trailing_entries: 10_000,
            memory_limit_bytes: u64::MAX,
            max_batch_bytes: ringfence_base::limit::MAX_BATCH_BYTES,
            pins: Vec::new(),
            clustered: false,
            performance_standby: true,
            index_wait_ns: INDEX_WAIT_NS,
            provider: Provider::default(),
        }
    }
}

/// What the owner is told.
#[derive(Debug)]
pub enum OwnerIn {
    /// Time passes; called at least every [`TICK_NS`] while the node runs.
    Tick,
    /// A shard's writes.
    Propose(ShardId, Proposal),
    /// A shard's call that lost its race twice.
    Tip(ShardId, Box<TipCall>),
    /// A shard's call for the owner.
    Control(ShardId, Ticket, ControlCall),
    /// An operation that a handler asked for.
    Operate(ShardId, Ticket, OwnerOp),
    /// A log operation is done.
    DiskDone(OpId, Result<(), DiskFault>),
    /// A checkpoint file operation is done.
    FileDone(u64, Result<(), FileFault>),
    /// A checkpoint's chunk was packed.
    Packed(u64, Box<Packed>),
    /// A side operation of the lease worker is done.
    SideDone(u64, SideResult),
    /// A snapshot archive was taken apart.
    Unpacked(ShardId, Ticket, Result<crate::snapshot::Unpacked, String>),
    /// A core has dropped its keyring.
    Withdrawn(ShardId, u64),
    /// A message of the peer with this raft id, as the transport proved.
    Peer(u64, PeerMessage),
    /// A chunk file was read for a follower, or is not there.
    ChunkRead(u64, Option<Vec<u8>>),
    /// A leader's checkpoint was loaded.
    Loaded(u64, Box<Loaded>),
    /// The process is to end: another node takes the lead, if there is one.
    StepDown,
    /// The connection to this peer broke.
    Unreachable(u64),
    /// What another node's API answered to a joiner.
    LeaderSaid(u64, JoinSaid),
    /// Become a member of this cluster; for a node without data.
    Join([u8; 16]),
    /// Take a node in, if this one is active.
    Admit(u64, Box<MemberRecord>),
    /// A member starts again and asks over this connection, under the raft id it had.
    Returning(u64, u64, crate::repair::Returning),
    /// The certificates that this node may show from now on, by their SHA-256.
    Pins(Vec<[u8; 32]>),
    /// A login that counts towards a lockout.
    Login(ringfence_vault::pipeline::LoginNote),
    /// A shard waits until this index can be read.
    Await(ShardId, Ticket, Index, Awaiting),
}

/// What the owner asks for.
#[derive(Debug)]
pub enum OwnerOut {
    /// Log operations, to be performed in this order.
    Disk(DiskOp),
    /// Checkpoint files and the node's identity file.
    File(FileOp),
    /// Pack a checkpoint's next chunk outside of this core.
    Pack(u64, Box<Packing>),
    /// Swap the cell that all cores read; before anything that follows in this list.
    Publish(Arc<Cell>),
    /// Tell a shard what became of its writes.
    Settled(ShardId, Ticket, Settled),
    /// Tell a shard that the index it waits for can be read, or that it has waited long enough.
    Reached(ShardId, Ticket, bool),
    /// Tell a shard what a run over the tip came to.
    TipDone(ShardId, Ticket, Box<TipDone>),
    /// Answer a control call.
    ControlDone(ShardId, Ticket, Reply),
    /// An owner operation is finished.
    OperateDone(ShardId, Ticket, SideResult),
    /// Every core is to drop its keyring and say so.
    Withdraw(u64),
    /// A side operation for the lease worker.
    Side(u64, SideOp),
    /// Something only the server knows (machine, sinks, counters), by name; answered to the shard by the server.
    Serve(ShardId, Ticket, &'static str, serde_json::Value),
    /// Write a snapshot archive of this version outside; answered to the shard.
    Snapshot(ShardId, Ticket, Box<crate::snapshot::Job>),
    /// Build a snapshot archive outside and keep it in a directory; answered as the worker's side operation.
    KeepSnapshot(u64, Box<crate::snapshot::Job>, Box<ringfence_logical::KeepSnapshot>),
    /// Take a snapshot archive apart outside; `true`: whoever sealed it.
    Unpack(ShardId, Ticket, Arc<Vec<u8>>, bool),
    /// Send to the peer with this raft id; it may be lost.
    Send(u64, PeerMessage),
    /// Read a chunk file for a follower.
    ReadChunk(u64, u64),
    /// Who belongs to the cluster, and which of them this node is; whoever is not among them is not spoken to.
    Members(Box<Membership>),
    /// Ask another node's API on behalf of a joiner.
    AskLeader(u64, Box<JoinAsk>),
    /// Load a leader's checkpoint outside of this core.
    Load(u64, Box<Loading>),
    /// The answer to a member that asked over this connection.
    Returned(u64, Box<crate::repair::Returned>),
    /// This directory has lost what the cluster counts on: the process must stop, and its next start begins anew.
    Lost(String),
    /// A message for the log.
    Log(Level, String),
    /// The process must stop.
    Halt(String),
}

/// A cluster as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// This node's raft id.
    pub raft_id: u64,
    /// All members by raft id, this node among them if it is one.
    pub members: BTreeMap<u64, MemberRecord>,
}

/// How loud a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Usual.
    Info,
    /// An operator should look.
    Warn,
    /// Something failed.
    Error,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cell({} at {})", self.sequence, self.version.index())
    }
}

/// Who waits for an entry.
#[derive(Debug)]
pub(crate) enum Waiter {
    Shard(ShardId, Ticket),
    /// What a run over the tip wrote, and its answer.
    Tip(ShardId, Ticket, Box<TipDone>),
    Own(Purpose),
}

/// Why the owner itself proposed a batch.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The first records of a cluster; answers `sys/init` with this reply.
    Init(ShardId, Ticket, Reply),
    /// The issuer of an unseal; the keys are published when it is committed.
    Unseal,
    /// Something whose caller gets a result.
    Operate(ShardId, Ticket, SideResult),
    /// Something whose caller gets a control reply.
    Control(ShardId, Ticket, Reply),
    /// Records of members.
    Members,
    /// Rows of active clients.
    Activity,
    /// Core records: the keyring is read again when they are committed.
    Keyring,
    /// A new issuer, published when committed.
    Reissue,
    /// A step of the lease worker.
    Lease,
    /// A part of a snapshot that is restored.
    Restore,
}

struct Waiting {
    index: Index,
    term: Term,
    bytes: usize,
    /// What was proposed: the tip is made of these, and what comes back committed need not be read from its bytes.
    batch: Batch,
    waiter: Waiter,
}

/// The owner.
pub struct Owner {
    pub(crate) config: OwnerConfig,
    pub(crate) vault: Arc<Vault>,
    pub(crate) member: Option<Member>,
    /// This data directory's id among the members; 0 before it has one.
    pub(crate) raft_id: u64,
    /// A member that has not yet got anything from the cluster it joins.
    pub(crate) joining: bool,
    pub(crate) peers: Peers,
    pub(crate) standby: Standby,
    pub(crate) stabilising: Stabilising,
    pub(crate) install: Option<Install>,
    pub(crate) installs: u64,
    pub(crate) join: Join,
    /// It was a member, and the table says that it is not one any more.
    pub(crate) removed: bool,
    /// Change of the table of members that was last told.
    told_at: Option<Index>,
    /// Since when it leads.
    pub(crate) leading_since: Mono,
    role: Role,
    effects: Effects,
    image: Image,
    pub(crate) version: Version,
    window: Window,
    /// The batches in flight by key, as far as runs over the tip have asked.
    pub(crate) overlay: Overlay,
    /// Refusals that wait until what overtook them can be read, by its index.
    overtaken: BTreeMap<Index, Vec<(ShardId, Ticket)>>,
    /// Answers of runs over the tip that wrote nothing, by the index they read.
    pub(crate) tip_readers: BTreeMap<Index, Vec<TipReader>>,
    /// Proposed and not applied. Invariant: indexes ascend.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Proposed before the lead was lost, oldest first, and until when their fate is waited for.
    orphans: VecDeque<Waiting>,
    orphans_until: Mono,
    pub(crate) index: SideIndex,
    pub(crate) lease_work: LeaseWork,
    pub(crate) seal: SealState,
    pub(crate) keys: Option<Keys>,
    /// Licences cut since the process began.
    pub(crate) licence_count: u64,
    pub(crate) clock: LogTime,
    /// It is raft's leader, and will be active when it knows what time it is.
    waits_for_clocks: bool,
    pub(crate) cluster: [u8; 16],
    pub(crate) facts: Arc<Facts>,
    cell: Arc<Cell>,
    published: Now,
    ticked: Now,
    reconciled: Now,
    pub(crate) checkpointer: Checkpointer,
    conf_state: ConfState,
    applied_term: Term,
    pub(crate) now: Now,
    dirty: bool,
    halted: bool,
    /// Seals reported by the cores since they were last written down.
    pub(crate) encryptions: u64,
    pub(crate) failures: crate::lockout::Failures,
    /// When rows of active clients were last written.
    pub(crate) clients_written: Mono,
    pub(crate) restore: Option<crate::snapshot::Restore>,
    /// The image was replaced by what was staged, and the rest of the node does not know yet.
    adopted: bool,
}

/// What stands at some number at the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Keys in memory.
    pub unsealed: bool,
    /// Evaluates requests.
    pub active: bool,
    /// Answers reads while another node is active.
    pub performance_standby: bool,
    /// Rows with a due time or an owner: tokens and leases.
    pub leases: u64,
    /// Last applied index.
    pub applied: u64,
    /// Last committed index.
    pub committed: u64,
    /// Voters and learners.
    pub peers: u64,
    /// Writes in flight.
    pub pending: u64,
    /// Accounted size of the image.
    pub image_bytes: u64,
    /// Seals not yet written into the usage record.
    pub encryptions: u64,
}

impl Owner {
    /// A node without data: it waits for `sys/init`.
    pub fn blank(config: OwnerConfig, vault: Arc<Vault>, now: Now) -> Owner {
        let mut image = Image::new();
        let version = image.publish();
        Owner::over(config, vault, image, version, None, [0; 16], ConfState::default(), None, now)
    }

    /// A node that starts again over its data directory.
    pub fn restart(config: OwnerConfig, vault: Arc<Vault>, found: Found, now: Now) -> Owner {
        let Found { cluster, mut image, term, conf_state, manifest, log_bytes, recovered } = found;
        let version = image.publish();
        let joining = version.index() == Index(0) && recovered.entries().next().is_none();
        let member = Member::restart(member_config(&config, 1, cluster), recovered);
        let mut owner = Owner::over(config, vault, image, version, Some(member), cluster, conf_state, manifest, now);
        owner.joining = joining;
        owner.applied_term = term;
        owner.checkpointer.grew(log_bytes);
        owner
    }

    #[allow(clippy::too_many_arguments)]
    fn over(
        config: OwnerConfig,
        vault: Arc<Vault>,
        image: Image,
        version: Version,
        member: Option<Member>,
        cluster: [u8; 16],
        conf_state: ConfState,
        manifest: Option<ringfence_store::Manifest>,
        now: Now,
    ) -> Owner {
        let facts = Arc::new(Facts { sealed: true, initialized: member.is_some(), ..Facts::default() });
        let clock = LogTime::default();
        let cell = Arc::new(Cell {
            sequence: 1,
            version: version.clone(),
            keys: None,
            clock: clock.reading(),
            facts: facts.clone(),
            lease_until: Mono(0),
            bin: Arc::default(),
        });
        let index = SideIndex::rebuild(&version);
        let config_provider = config.provider;
        Owner {
            window: Window::new(version.index(), WINDOW_OPS),
            checkpointer: Checkpointer::new(manifest, config.checkpoint_log_bytes),
            config,
            vault,
            raft_id: member.as_ref().map_or(0, |m| m.status().raft_id),
            member,
            waits_for_clocks: false,
            joining: false,
            peers: Peers::default(),
            standby: Standby::default(),
            stabilising: Stabilising::default(),
            install: None,
            installs: 0,
            join: Join::default(),
            removed: false,
            told_at: None,
            leading_since: Mono(0),
            role: Role::default(),
            effects: Effects::default(),
            image,
            version,
            overlay: Overlay::default(),
            overtaken: BTreeMap::new(),
            tip_readers: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            orphans: VecDeque::new(),
            orphans_until: Mono(0),
            index,
            lease_work: LeaseWork::default(),
            seal: SealState::sealed(config_provider),
            keys: None,
            licence_count: 0,
            clock,
            cluster,
            facts,
            cell,
            published: now,
            ticked: now,
            reconciled: now,
            conf_state,
            applied_term: Term(0),
            now,
            dirty: true,
            halted: false,
            encryptions: 0,
            failures: crate::lockout::Failures::default(),
            clients_written: now.mono,
            restore: None,
            adopted: false,
        }
    }

    /// The cell to start shards with.
    pub fn cell(&self) -> Arc<Cell> {
        self.cell.clone()
    }

    /// The image as of the last publication.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// True if this node may evaluate and propose.
    pub fn is_active(&self) -> bool {
        self.role.ready && self.member.is_some()
    }

    /// What stands at some number, for metrics.
    pub fn gauges(&self) -> Gauges {
        let status = self.raft_status();
        Gauges {
            unsealed: !self.is_sealed(),
            active: self.facts.active,
            performance_standby: self.is_performance_standby(),
            leases: self.index.len() as u64,
            applied: self.version.index().0,
            committed: status.as_ref().map_or(0, |s| s.committed.0),
            peers: (self.conf_state.voters.len() + self.conf_state.learners.len()).max(1) as u64,
            pending: self.waiting.len() as u64,
            image_bytes: self.version.bytes(),
            encryptions: self.encryptions,
        }
    }

    /// The member's status, if there is a member.
    pub fn raft_status(&self) -> Option<ringfence_raft::Status> {
        self.member.as_ref().map(Member::status)
    }

    /// Membership as of the last applied entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Takes one input. Inputs that arrive together are given one after another and then [`Owner::settle`] is called
    /// once, so that their writes share one disk write.
    pub fn step(&mut self, input: OwnerIn, now: Now, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if self.halted {
            return;
        }
        self.now = now;
        match input {
            OwnerIn::Tick => self.tick(rng, out),
            OwnerIn::Propose(shard, p) => self.propose_for(shard, p, out),
            OwnerIn::Tip(shard, call) => self.tip(shard, *call, rng, out),
            OwnerIn::Control(shard, ticket, call) => self.control(shard, ticket, call, rng, out),
            OwnerIn::Operate(shard, ticket, op) => self.operate(shard, ticket, op, rng, out),
            OwnerIn::DiskDone(id, result) => {
                if let Some(m) = &mut self.member {
                    m.disk_done(id, result);
                }
            }
            OwnerIn::FileDone(id, result) => self.file_done(id, result, rng, out),
            OwnerIn::Packed(id, packed) => self.checkpointer.packed(id, *packed, out),
            OwnerIn::SideDone(id, result) => self.lease_side_done(id, result, rng, out),
            OwnerIn::Withdrawn(shard, sequence) => self.withdrawn(shard, sequence, out),
            OwnerIn::Unpacked(shard, ticket, unpacked) => self.unpacked(shard, ticket, unpacked, out),
            OwnerIn::Login(note) => self.login(note, rng, out),
            OwnerIn::Await(shard, ticket, index, Awaiting::Call) => self.await_index(shard, ticket, index, out),
            OwnerIn::Await(shard, ticket, index, Awaiting::Answer) => self.catch_up(shard, ticket, index, out),
            OwnerIn::Peer(from, message) => self.peer(from, message, out),
            OwnerIn::ChunkRead(id, bytes) => self.chunk_read(id, bytes, out),
            OwnerIn::Loaded(number, loaded) => self.install_loaded(number, *loaded, out),
            OwnerIn::StepDown => self.step_down(out),
            OwnerIn::Unreachable(to) => self.unreachable(to),
            OwnerIn::LeaderSaid(number, said) => self.leader_said(number, said, rng, out),
            OwnerIn::Join(cluster) => self.join_cluster(cluster, rng, out),
            OwnerIn::Admit(id, record) if self.is_active() => self.admit(id, *record, Purpose::Members, rng, out),
            OwnerIn::Admit(..) => {}
            OwnerIn::Pins(pins) => self.config.pins = pins,
            OwnerIn::Returning(link, from, asks) => {
                let said = self.returning(from, &asks, rng, out);
                out.push(OwnerOut::Returned(link, Box::new(said)));
            }
        }
    }

    /// Lets the member act on all that was given, applies what is committed, publishes and tells the waiters. Called
    /// after a batch of inputs, before the driver waits.
    pub fn settle(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        // what is told to the owner's own waiters may propose again, so the member is polled until it rests
        while !self.halted && self.settle_once(rng, out) {}
        if self.restore.is_some() && !self.halted {
            self.stage_step(out);
            while !self.halted && self.settle_once(rng, out) {}
        }
        self.open_joined(out);
        self.tell_members(out);
        self.publish_if_needed(out);
        self.release_waiting(out);
        if self.checkpointer.is_running() {
            return;
        }
        if self.install.is_some() {
            self.install_step(out);
            return;
        }
        // what goes through the log fills it, and needs checkpoints as anything else
        match self.restore.as_ref().is_some_and(|r| r.staging.is_none()) {
            true => self.restore_step(out),
            false => self.checkpoint_step(out),
        }
    }

    /// One round; false when there was nothing to do.
    fn settle_once(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) -> bool {
        let Some(member) = self.member.as_mut() else { return false };
        let mut effects = std::mem::take(&mut self.effects);
        member.poll(&mut effects);
        let want_checkpoint = effects.want_checkpoint || effects.want_snapshot;
        if want_checkpoint {
            self.checkpointer.wanted();
            effects.want_checkpoint = false;
            effects.want_snapshot = false;
        }
        if effects.is_empty() {
            self.effects = effects;
            return false;
        }
        out.extend(effects.disk.drain(..).map(OwnerOut::Disk));
        self.send_raft(effects.send.drain(..), out);
        for read in effects.reads.drain(..) {
            self.round_confirmed(read.ctx);
        }
        if let Some(offer) = effects.snapshot.take() {
            self.install_begin(offer, out);
        }
        let mut done: Vec<(Settled, Waiter)> = Vec::new();
        for entry in effects.committed.drain(..) {
            self.apply(entry, &mut done, out);
        }
        if self.image.applied() != self.version.index() {
            self.version = self.image.publish();
            if let Some(m) = &mut self.member {
                m.applied(self.version.index());
            }
            self.dirty = true;
            self.joining = false;
            self.find_level();
            self.lease_nudge();
            if std::mem::take(&mut self.adopted) {
                self.follow_adoption(rng, out);
            }
            if !self.role.ready {
                self.follow_keyring(out);
            }
        }
        if let Some(role) = effects.role.take() {
            self.role_changed(role, &mut done, out);
        }
        if let Some(reason) = effects.halt.take() {
            self.halt(reason, out);
        }
        effects.clear();
        self.effects = effects;
        // the owner's own first: they decide what the cell holds
        let mut theirs = Vec::with_capacity(done.len());
        for (settled, waiter) in done {
            match waiter {
                Waiter::Own(purpose) => self.own_settled(settled, purpose, rng, out),
                Waiter::Tip(shard, ticket, mut done) if matches!(settled, Settled::Committed(_)) => {
                    if let (Settled::Committed(index), TipDone::Answer { reply, .. }) = (settled, &mut *done) {
                        self.tell_position(reply, index);
                    }
                    theirs.push(OwnerOut::TipDone(shard, ticket, done));
                }
                Waiter::Tip(shard, ticket, _) | Waiter::Shard(shard, ticket) => {
                    theirs.push(OwnerOut::Settled(shard, ticket, settled));
                }
            }
        }
        self.publish_if_needed(out);
        out.append(&mut theirs);
        self.release_readers(out);
        if self.is_active() {
            self.try_pending(rng, out);
        }
        true
    }

    /// Tells those who wait for a version that shows what overtook them, and those who read at the tip.
    fn release_readers(&mut self, out: &mut Vec<OwnerOut>) {
        let shown = self.version.index();
        while let Some(first) = self.overtaken.first_entry().filter(|e| *e.key() <= shown) {
            let refused = first.remove().into_iter();
            out.extend(refused.map(|(shard, ticket)| OwnerOut::Settled(shard, ticket, Settled::Refused)));
        }
        self.tip_reached(shown, self.applied_term, out);
    }

    fn tick(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        // ticks are never caught up after a pause: one call, one tick
        if self.now.mono.since(self.ticked.mono) >= TICK_NS
            && let Some(m) = &mut self.member
        {
            m.tick(rng);
            self.ticked = self.now;
            self.peer_tick(out);
            self.lead_when_clocks_are_known(out);
            self.standby_tick(rng, out);
            self.install_tick(out);
            self.check_removed(out);
            self.give_up_orphans(out);
            if self.is_active() && self.now.mono.since(self.reconciled.mono) >= RECONCILE_NS {
                self.reconciled = self.now;
                self.reconcile(rng, out);
            }
        }
        self.join_tick(rng, out);
        self.give_up_waiting(out);
        if self.is_active() {
            self.clock.tick(self.now);
            self.lease_tick(rng, out);
            self.seal_tick(rng, out);
            self.activity_tick(rng, out);
            if self.failures.forget(self.now) {
                self.dirty = true;
            }
        }
        if self.now.mono.since(self.published.mono) >= PUBLISH_EVERY_NS {
            self.dirty = true;
        }
        self.checkpointer.tick(self.now, out);
        self.cell.bin.empty();
    }

    fn apply(
        &mut self,
        entry: ringfence_raft::Committed,
        done: &mut Vec<(Settled, Waiter)>,
        out: &mut Vec<OwnerOut>,
    ) {
        let index = entry.position.index;
        let ours = self.waiting.front().is_some_and(|w| w.index == index);
        let ours = if ours { self.waiting.pop_front() } else { None };
        let same = ours.as_ref().filter(|w| w.term == entry.position.term);
        match entry.payload {
            Payload::Data(bytes) => {
                let decoded;
                let batch = match same {
                    Some(w) => &w.batch,
                    None => match Batch::decode(&bytes) {
                        Ok(batch) => {
                            decoded = batch;
                            &decoded
                        }
                        Err(e) => {
                            // it carried a good checksum: another build wrote it, or memory is broken
                            self.halted = true;
                            out.push(OwnerOut::Halt(format!("log entry {index} cannot be decoded: {e}")));
                            return;
                        }
                    },
                };
                self.image.apply(index, batch);
                self.index.apply(batch);
                if crate::restage::is_adoption(batch) {
                    self.image = crate::restage::adopted(&mut self.image, index);
                    self.adopted = true;
                }
                self.checkpointer.grew(bytes.len() as u64);
            }
            Payload::Noop => {
                self.window.pass(index);
                self.image.advance(index, self.image.log_time());
            }
            Payload::Conf(conf) => {
                self.conf_state = conf;
                self.window.pass(index);
                self.image.advance(index, self.image.log_time());
            }
        }
        self.applied_term = entry.position.term;
        while let Some(w) = self.orphans.pop_front_if(|w| w.index <= index) {
            let settled = match (w.index == index, w.term == entry.position.term) {
                (true, true) => Settled::Committed(index),
                // another leader's entry stands in its place, for good
                (true, false) => Settled::NotDone(NotDone::NotActive),
                // a checkpoint was taken over in between
                (false, _) => Settled::Unknown,
            };
            done.push((settled, w.waiter));
        }
        if let Some(w) = ours {
            self.waiting_bytes -= w.bytes;
            let settled = if w.term == entry.position.term {
                Settled::Committed(index)
            } else {
                Settled::NotDone(NotDone::NotActive)
            };
            done.push((settled, w.waiter));
        }
    }

    /// A leader that waited for the others' clocks begins.
    fn lead_when_clocks_are_known(&mut self, out: &mut Vec<OwnerOut>) {
        if let Some(m) = self.member.as_ref().filter(|_| self.waits_for_clocks) {
            let role = m.role();
            // nothing was proposed by a node that did not lead
            self.role_changed(role, &mut Vec::new(), out);
        }
    }

    fn role_changed(&mut self, mut role: Role, done: &mut Vec<(Settled, Waiter)>, out: &mut Vec<OwnerOut>) {
        let was_ready = self.role.ready;
        self.waits_for_clocks = role.ready && !was_ready && !self.knows_time();
        role.ready &= !self.waits_for_clocks;
        self.role = role;
        self.dirty = true;
        if role.ready && !was_ready {
            self.window.reset(self.version.index());
            let image_time = self.image.log_time();
            if image_time.since(self.now.wall) > crate::clock::FAR_BACK_NS {
                out.push(OwnerOut::Log(
                    Level::Warn,
                    format!(
                        "this machine's clock says {}, the log says {}: set the clock; until then leases and tokens \
                         keep the log's time",
                        self.now.wall.rfc3339_seconds(),
                        image_time.rfc3339_seconds()
                    ),
                ));
            }
            self.take_clock(image_time);
            self.peers.drop_lease();
            self.leading_since = self.now.mono;
            self.follow_keyring(out);
        }
        if was_ready && !role.ready {
            // what was proposed may still be committed by the next leader, and its log will tell
            for w in std::mem::take(&mut self.waiting) {
                match w.waiter {
                    Waiter::Own(_) => done.push((Settled::Unknown, w.waiter)),
                    Waiter::Shard(..) | Waiter::Tip(..) => self.orphans.push_back(w),
                }
            }
            self.orphans_until = self.now.mono.plus_ns(ORPHAN_NS);
            self.restore_loses_lead(out);
            self.waiting_bytes = 0;
            let refused = std::mem::take(&mut self.overtaken).into_values().flatten();
            done.extend(refused.map(|(shard, ticket)| (Settled::Refused, Waiter::Shard(shard, ticket))));
            self.overlay = Overlay::default();
            self.tip_lost(out);
            self.peers.drop_lease();
            self.keep_clock();
            self.stabilising = Stabilising::default();
            self.withdraw_keys(out);
        }
    }

    /// Nobody tells what became of what was proposed before the lead was lost.
    fn give_up_orphans(&mut self, out: &mut Vec<OwnerOut>) {
        if self.orphans.is_empty() || self.now.mono < self.orphans_until {
            return;
        }
        for w in std::mem::take(&mut self.orphans) {
            if let Waiter::Shard(shard, ticket) | Waiter::Tip(shard, ticket, _) = w.waiter {
                out.push(OwnerOut::Settled(shard, ticket, Settled::Unknown));
            }
        }
    }

    /// Tells the transport who belongs to the cluster, if that has changed.
    fn tell_members(&mut self, out: &mut Vec<OwnerOut>) {
        if self.member.is_none() || self.told_at == Some(self.version.changed(NODE, None)) {
            return;
        }
        self.told_at = Some(self.version.changed(NODE, None));
        let mut members = members::all(&self.version);
        if members.is_empty() {
            members = self.join.welcome.clone();
        }
        out.push(OwnerOut::Members(Box::new(Membership { cluster: self.cluster, raft_id: self.raft_id, members })));
    }

    /// The present term.
    pub(crate) fn term(&self) -> Term {
        self.role.term
    }

    fn propose_for(&mut self, shard: ShardId, p: Proposal, out: &mut Vec<OwnerOut>) {
        let Proposal { ticket, batch, reads, read_index, sealed, returns } = p;
        self.encryptions += sealed;
        if self.keys.is_none() {
            out.push(OwnerOut::Settled(shard, ticket, Settled::NotDone(NotDone::NotActive)));
            return;
        }
        let Err(settled) = self.propose(batch, &reads, read_index, Waiter::Shard(shard, ticket)) else { return };
        if settled == Settled::Refused
            && returns
            && let Some(at) = self.window.overtaken_at(&reads, read_index)
            && at > self.version.index()
        {
            // run again at once, it would lose again: it could not see what it lost to
            self.overtaken.entry(at).or_default().push((shard, ticket));
            return;
        }
        out.push(OwnerOut::Settled(shard, ticket, settled));
    }

    /// Judges a transaction and appends its batch. On `Err` the waiter was not taken.
    pub(crate) fn propose(
        &mut self,
        mut batch: Batch,
        reads: &ReadSet,
        read_index: Index,
        waiter: Waiter,
    ) -> Result<Index, Settled> {
        if !self.is_active() {
            return Err(Settled::NotDone(NotDone::NotActive));
        }
        match self.window.conflicts(reads, read_index) {
            Verdict::Clean => {}
            Verdict::Conflict | Verdict::TooOld => return Err(Settled::Refused),
        }
        let held = self.restore.is_some() && !matches!(waiter, Waiter::Own(Purpose::Restore));
        if self.waiting_bytes > MAX_WAITING_BYTES || held {
            return Err(Settled::NotDone(NotDone::Busy));
        }
        let grows = batch.ops.iter().any(|op| matches!(op, ringfence_store::Op::Put { .. }));
        if grows && self.version.bytes() > self.config.memory_limit_bytes {
            return Err(Settled::NotDone(NotDone::NoMemory));
        }
        if !batch.fits() {
            return Err(Settled::NotDone(NotDone::TooLarge));
        }
        let now = self.now;
        batch.log_time = self.clock.tick(now).max(self.image.log_time());
        let bytes = batch.encode();
        let len = bytes.len();
        let member = self.member.as_mut().ok_or(Settled::NotDone(NotDone::NotActive))?;
        let position = member.propose(bytes).map_err(|e| {
            Settled::NotDone(match e {
                ProposeError::NotLeader | ProposeError::Transferring => NotDone::NotActive,
                ProposeError::NoRoom => NotDone::NoRoom,
                ProposeError::TooLarge => NotDone::TooLarge,
                ProposeError::Backlog => NotDone::Busy,
            })
        })?;
        self.window.note(position.index, &batch);
        self.waiting_bytes += len;
        self.waiting.push_back(Waiting { index: position.index, term: position.term, bytes: len, batch, waiter });
        Ok(position.index)
    }

    /// Proposed after an index and not applied, oldest first.
    pub(crate) fn in_flight_after(&self, index: Index) -> impl Iterator<Item = (Index, &Batch)> {
        let first = self.waiting.partition_point(|w| w.index <= index);
        self.waiting.range(first..).map(|w| (w.index, &w.batch))
    }

    /// Proposes what a transaction of the owner's own holds. Those run over the published version like any other and
    /// are refused like any other.
    #[allow(clippy::result_large_err)] // the purpose comes back whole, on a rare path
    pub(crate) fn propose_own(&mut self, finished: Finished, purpose: Purpose) -> Result<Index, (Settled, Purpose)> {
        let Finished { batch: Some(batch), reads, read_index } = finished else {
            return Err((Settled::Refused, purpose));
        };
        match self.propose_taking(batch, &reads, read_index, Waiter::Own(purpose)) {
            Ok(i) => Ok(i),
            Err((settled, Waiter::Own(p))) => Err((settled, p)),
            Err((_, Waiter::Shard(..) | Waiter::Tip(..))) => unreachable!("the waiter that went in comes out"),
        }
    }

    #[allow(clippy::result_large_err)] // the waiter comes back whole, on a rare path
    fn propose_taking(
        &mut self,
        batch: Batch,
        reads: &ReadSet,
        read_index: Index,
        waiter: Waiter,
    ) -> Result<Index, (Settled, Waiter)> {
        // a placeholder stands in the map for an instant: propose() inserts it, then the real waiter replaces it
        let placeholder = match waiter {
            Waiter::Own(Purpose::Restore) => Purpose::Restore,
            _ => Purpose::Lease,
        };
        match self.propose(batch, reads, read_index, Waiter::Own(placeholder)) {
            Ok(index) => {
                if let Some(w) = self.waiting.back_mut() {
                    w.waiter = waiter;
                }
                Ok(index)
            }
            Err(settled) => Err((settled, waiter)),
        }
    }

    /// Begins a cluster of one: the identity file, the log's first segment, and a leader of term 1.
    pub(crate) fn bootstrap(&mut self, cluster: [u8; 16], rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        invariant!(self.member.is_none(), "a node is initialised once");
        self.cluster = cluster;
        self.raft_id = fresh_raft_id(rng);
        out.push(OwnerOut::File(FileOp::WriteIdentity { cluster, raft_id: self.raft_id }));
        self.member = Some(Member::bootstrap(member_config(&self.config, self.raft_id, cluster)));
    }

    /// Begins as a member of a cluster that exists: it waits for that cluster's leader.
    pub(crate) fn join_cluster(&mut self, cluster: [u8; 16], rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if self.member.is_some() {
            return;
        }
        self.cluster = cluster;
        self.joining = true;
        if self.raft_id == 0 {
            self.raft_id = fresh_raft_id(rng);
        }
        out.push(OwnerOut::File(FileOp::WriteIdentity { cluster, raft_id: self.raft_id }));
        let config = MemberConfig { electable: false, ..member_config(&self.config, self.raft_id, cluster) };
        self.member = Some(Member::join(config));
    }

    /// The cluster this node belongs to; zeros before it belongs to one.
    pub fn cluster(&self) -> [u8; 16] {
        self.cluster
    }

    /// This data directory's id among the members; 0 before it has one.
    pub fn raft_id(&self) -> u64 {
        self.raft_id
    }

    /// A leader's checkpoint, written here under this manifest, becomes the image.
    pub(crate) fn take_checkpoint(
        &mut self,
        image: Image,
        term: Term,
        conf_state: ConfState,
        manifest: bytes::Bytes,
    ) {
        self.image = image;
        self.version = self.image.publish();
        let index = self.version.index();
        self.window.reset(index);
        self.index = SideIndex::rebuild(&self.version);
        self.conf_state = conf_state;
        self.applied_term = term;
        // a restore may have been among what was skipped
        self.begin_standby_anew();
        self.orphans_until = Mono(0);
        if let Some(m) = &mut self.member {
            m.renamed(index, manifest);
            m.snapshot_installed(index);
        }
        self.joining = false;
        self.dirty = true;
    }

    pub(crate) fn has_member(&self) -> bool {
        self.member.is_some()
    }

    /// Writes in flight.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The cluster has other nodes.
    pub(crate) fn has_peers(&self) -> bool {
        self.conf_state.voters.len() + self.conf_state.learners.len() > 1
    }

    /// The index that every core can read.
    pub(crate) fn shown_index(&self) -> Index {
        self.cell.version.index()
    }

    /// The client is told where in the log its write stands.
    fn tell_position(&self, reply: &mut Reply, index: Index) {
        if let (true, Some(keys)) = (self.has_peers(), &self.keys) {
            let text = position::write(&keys.keyring, &self.facts.cluster_id, index);
            reply.headers.push((position::HEADER, text));
        }
    }

    pub(crate) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.cell.sequence
    }

    /// Publishes the state if it changed. Everything that is released afterwards sees it.
    pub(crate) fn publish_if_needed(&mut self, out: &mut Vec<OwnerOut>) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let sealed = self.is_sealed();
        let active = self.is_active() && self.keys.is_some();
        let stands_by = !active && !sealed && self.standby.keys.is_some();
        let facts = Facts {
            initialized: self.facts_initialized(),
            sealed,
            active,
            performance_standby: stands_by,
            has_peers: self.has_peers(),
            leader: self.known_leader(),
            cluster_name: if sealed { String::new() } else { self.facts.cluster_name.clone() },
            cluster_id: if sealed { String::new() } else { self.facts.cluster_id.clone() },
            counting_failures: if stands_by { self.standby.counting_failures } else { self.failures.any() },
        };
        if *self.facts != facts {
            self.facts = Arc::new(facts);
        }
        let (keys, clock, lease_until) = match (active, stands_by) {
            (true, _) => (self.keys.clone(), self.clock.reading(), self.lease_until()),
            (false, true) => (self.standby.keys.clone(), self.standby.clock, self.stands_by_until()),
            (false, false) => (None, self.clock.reading(), self.lease_until()),
        };
        self.cell.bin.empty();
        self.cell = Arc::new(Cell {
            sequence: self.cell.sequence + 1,
            version: self.version.clone(),
            keys,
            clock,
            facts: self.facts.clone(),
            lease_until,
            bin: self.cell.bin.clone(),
        });
        self.published = self.now;
        out.push(OwnerOut::Publish(self.cell.clone()));
    }

    fn file_done(&mut self, id: u64, result: Result<(), FileFault>, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let restoring = self.restore.as_ref().is_some_and(|r| r.image.is_some());
        let was_running = self.checkpointer.is_running();
        let made = self.checkpointer.done(id, result, out);
        let done = made.is_some();
        if self.install_writes() && was_running && !self.checkpointer.is_running() {
            self.installed(made.map(|m| (m.index, m.manifest.into())), out);
            return;
        }
        if let (Some(made), Some(m)) = (made, &mut self.member) {
            let conf = made.conf_state.clone();
            m.checkpointed(Checkpoint { index: made.index, term: made.term, conf }, made.manifest.into());
        }
        if restoring && was_running && !self.checkpointer.is_running() {
            self.restored(done, rng, out);
        }
    }

    /// Writes the checkpoint of an image that is to replace the present one.
    pub(crate) fn checkpoint_restored(&mut self, version: Version, out: &mut Vec<OwnerOut>) {
        self.checkpointer.replace(version, self.cluster, self.applied_term, &self.conf_state, out);
    }

    /// Refuses every transaction that read before the present index.
    pub(crate) fn reset_window(&mut self) {
        self.window.reset(self.version.index());
    }

    /// Takes a restored image at the present index. Answers whether the unseal key held opens its keyring.
    pub(crate) fn adopt_image(&mut self, image: Image) -> bool {
        self.image = image;
        self.version = self.image.publish();
        self.window.reset(self.version.index());
        self.index = SideIndex::rebuild(&self.version);
        self.dirty = true;
        self.reopen_keys()
    }

    /// Everything that was derived from the image before is made anew.
    pub(crate) fn mark_adopted(&mut self) {
        self.window.reset(self.version.index());
        self.index = SideIndex::rebuild(&self.version);
        self.overlay = Overlay::default();
        self.begin_standby_anew();
        self.dirty = true;
    }

    fn checkpoint_step(&mut self, out: &mut Vec<OwnerOut>) {
        if self.member.is_some() && self.version.index() > Index(0) {
            self.checkpointer.step(&self.version, self.cluster, self.applied_term, &self.conf_state, self.now, out);
        }
    }

    /// The process cannot go on as this member.
    pub(crate) fn stop(&mut self, why: &str, out: &mut Vec<OwnerOut>) {
        self.halted = true;
        out.push(OwnerOut::Halt(why.to_owned()));
    }

    /// This directory has lost something, or is an older copy.
    pub(crate) fn lost(&mut self, why: &str, out: &mut Vec<OwnerOut>) {
        self.halted = true;
        out.push(OwnerOut::Lost(why.to_owned()));
    }

    /// No key in memory. A node alone counts as sealed until it may evaluate.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal.unsealed.is_none() || (self.keys.is_none() && self.is_lone_voter())
    }

    /// Who evaluates requests, if this node knows of another.
    pub(crate) fn known_leader(&self) -> Option<Leader> {
        let raft_id = self.role.leader_id;
        if raft_id == 0 || raft_id == self.raft_id {
            return None;
        }
        let record = MemberRecord::decode(self.version.get(&members::key(raft_id))?).ok()?;
        Some(Leader { raft_id, api_addr: record.api_addr, cluster_addr: record.cluster_addr })
    }

    fn halt(&mut self, reason: HaltReason, out: &mut Vec<OwnerOut>) {
        self.halted = true;
        let text = match reason {
            HaltReason::WriteFailed(_) => {
                "a durable write to the log failed; the process stops and never retries it: what the kernel dropped \
                 cannot be known"
                    .to_owned()
            }
            HaltReason::SegmentFailed(_) => "a log segment could neither be made nor removed".to_owned(),
            HaltReason::BadConfChange(i) => format!("the membership entry {i} cannot be read"),
        };
        out.push(OwnerOut::Halt(text));
    }

    /// Log time now.
    pub(crate) fn log_now(&mut self) -> Wall {
        let now = self.now;
        self.clock.tick(now).max(self.image.log_time())
    }
}

/// A data directory's raft id: drawn when the directory is made, so an emptied one never speaks for the one it was.
pub fn fresh_raft_id(rng: &mut dyn Entropy) -> u64 {
    loop {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes);
        // 63 bits: some clients read it as a signed number
        let id = u64::from_le_bytes(bytes) >> 1;
        if id > 1 {
            return id;
        }
    }
}

/// The member's configuration; of a directory that has a log, the raft id there takes the place of this one.
pub fn member_config(config: &OwnerConfig, raft_id: u64, cluster: [u8; 16]) -> MemberConfig {
    MemberConfig {
        segment_bytes: config.segment_bytes,
        max_entry_bytes: config.max_batch_bytes,
        trailing_entries: config.trailing_entries,
        ..MemberConfig::new(raft_id, cluster)
    }
}
