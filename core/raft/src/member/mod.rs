//! One raft member: tikv's `RawNode` over our log, as a value that a loop drives.
//!
//! ```text
//! loop {
//!     inputs:  tick(rng)  step(from, bytes)  propose(data)  disk_done(id, result)  applied(index)  ...
//!     poll(&mut effects)
//!     effects: perform disk operations, send messages, apply committed entries, look at role and halt
//! }
//! ```
//! An entry is delivered as committed only when a quorum has it durable *and* it is durable here; with one voter that
//! is the same thing, by the same code. Messages of a follower or candidate leave only after what they promise is
//! durable; a leader's appends leave at once, beside its own write.
//!
//! The member draws its election timeout from the caller's entropy at each tick, so raft's own draw from the
//! thread's generator never decides anything. It never campaigns while its own log is not durable, nor while the
//! node forbids it ([`Member::set_electable`]).

pub(crate) mod effects;
mod ready;

use crate::conf::{self, ConfChange, ConfState};
use crate::disk::{DiskFault, OpId};
use crate::log::plan::{Batch, Done, Plan};
use crate::log::record::{self, Frame, FrameKind};
use crate::log::recover::{Checkpoint, Recovered};
use crate::storage::Tail;
use crate::wire::{self, WireError};
use bytes::Bytes;
use effects::{CommandError, Effects, Envelope, HaltReason, Position, ProposeError, Role, Status};
use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use ringfence_base::limit::MAX_BATCH_BYTES;
use ringfence_base::{Entropy, Index, Term};
use std::collections::VecDeque;

/// What a member is started with. Times are in ticks; the node decides how long one is.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// This data directory's raft id, drawn fresh when the directory was made; not 0.
    pub raft_id: u64,
    /// The cluster's id.
    pub cluster_id: [u8; 16],
    /// Shortest election timeout; the drawn one lies between this and twice this.
    pub election_ticks: usize,
    /// Time between heartbeats.
    pub heartbeat_ticks: usize,
    /// Length of a segment; a multiple of 4096 that holds the largest entry.
    pub segment_bytes: u64,
    /// Largest proposal.
    pub max_entry_bytes: usize,
    /// Entries in memory after the last checkpoint that ask for a new one.
    pub checkpoint_bytes: u64,
    /// Entries in memory after the last checkpoint, or waiting for the disk, that stop proposals.
    pub backlog_bytes: u64,
    /// Entries kept in memory behind a checkpoint for followers that are a little behind. A lone voter keeps none.
    pub trailing_entries: u64,
    /// Most bytes of these.
    pub trailing_bytes: u64,
    /// May this member campaign from the start? See [`Member::set_electable`].
    pub electable: bool,
}

impl MemberConfig {
    /// The usual values: elections after 10 to 20 ticks, heartbeats each 2, segments of 64 MiB, a checkpoint each
    /// 256 MiB.
    pub fn new(raft_id: u64, cluster_id: [u8; 16]) -> MemberConfig {
        MemberConfig {
            raft_id,
            cluster_id,
            election_ticks: 10,
            heartbeat_ticks: 2,
            segment_bytes: 64 * 1024 * 1024,
            max_entry_bytes: MAX_BATCH_BYTES,
            checkpoint_bytes: 256 * 1024 * 1024,
            backlog_bytes: 1024 * 1024 * 1024,
            trailing_entries: 10_000,
            trailing_bytes: 64 * 1024 * 1024,
            electable: true,
        }
    }

    fn check(&self) {
        assert!(self.raft_id != 0, "a raft id is not 0");
        assert!(self.heartbeat_ticks >= 1 && self.election_ticks >= self.heartbeat_ticks + 2, "timeouts in order");
        assert!(self.segment_bytes.is_multiple_of(crate::SECTOR as u64), "segments are whole sectors");
        assert!(self.max_entry_bytes <= MAX_BATCH_BYTES, "entries fit a frame");
        let largest = record::write_len(record::frame_len(self.max_entry_bytes)) as u64;
        assert!(largest <= self.segment_bytes, "the largest entry fits a segment");
        assert!(self.backlog_bytes > self.checkpoint_bytes, "a checkpoint is asked for before proposals stop");
    }
}

/// See the module text.
pub struct Member {
    cfg: MemberConfig,
    raw: RawNode<Tail>,
    plan: Plan,
    /// The founding entries are not durable yet: raft is not driven.
    founding: bool,
    /// Messages that leave when the ready of that number is durable.
    held: VecDeque<(u64, Vec<Message>)>,
    /// Messages that may leave.
    outbox: Vec<Envelope>,
    /// Number of the newest ready.
    ready: u64,
    /// The newest (term, vote) queued for the slots.
    vote: (u64, u64),
    /// The newest term that is durable in the slots. Invariant: `vote_durable <= vote.0`.
    term_durable: u64,
    /// (ready, term) of slot writes not durable yet.
    terms_in_flight: VecDeque<(u64, u64)>,
    /// Last index handed out as committed.
    delivered: u64,
    /// Last index the node said it applied. Invariant: `applied <= delivered`.
    applied: u64,
    /// A checkpoint being installed: (ready, index).
    installing: Option<(u64, u64)>,
    role: Role,
    electable: bool,
    /// The drawn election timeout and the (term, role) it was drawn for.
    timeout: Option<((u64, StateRole), usize)>,
    halted: Option<HaltReason>,
}

impl Member {
    /// A brand-new cluster of one voter. The directory is empty; poll yields its first operations.
    pub fn bootstrap(cfg: MemberConfig) -> Member {
        let voters = [cfg.raft_id];
        Member::found(cfg, &voters)
    }

    /// A founder of a brand-new cluster whose founders all start with the same voters.
    pub fn found(cfg: MemberConfig, voters: &[u64]) -> Member {
        assert!(voters.contains(&cfg.raft_id), "a founder votes");
        // Membership is recomputed from the log, so it begins as entries: a later member that replays from index 1
        // arrives at the same configuration.
        let mut voters = voters.to_vec();
        voters.sort_unstable();
        voters.dedup();
        let entries: Vec<Entry> = (1u64..)
            .zip(&voters)
            .map(|(index, &id)| {
                let mut e = Entry { term: 1, index, ..Default::default() };
                e.set_entry_type(EntryType::EntryConfChangeV2);
                e.data = conf::encode(&conf::to_raft(&[ConfChange::AddVoter(id)])).into();
                e
            })
            .collect();
        let hard_state = HardState { term: 1, commit: entries.len() as u64, ..Default::default() };
        let frames = entries.iter().map(ready::frame_of).collect();
        let plan = Plan::new(cfg.segment_bytes, cfg.cluster_id, cfg.raft_id);
        let nothing = Checkpoint::default();
        let mut member = Member::new(cfg, nothing.clone(), &nothing, entries, hard_state, plan);
        member.term_durable = 0;
        member.founding = true;
        member.plan.push(Batch { ready: 1, vote: Some((1, 0)), frames, held: false });
        member
    }

    /// A member that was given nothing yet and waits for the leader of the cluster it joins.
    pub fn join(cfg: MemberConfig) -> Member {
        let plan = Plan::new(cfg.segment_bytes, cfg.cluster_id, cfg.raft_id);
        let nothing = Checkpoint::default();
        let mut member = Member::new(cfg, nothing.clone(), &nothing, Vec::new(), HardState::default(), plan);
        member.founding = true;
        member.plan.push(Batch { ready: 1, vote: Some((0, 0)), ..Default::default() });
        member
    }

    /// Goes on from what recovery found.
    ///
    /// The raft id and cluster id found take the place of those configured.
    pub fn restart(mut cfg: MemberConfig, found: Recovered) -> Member {
        (cfg.raft_id, cfg.cluster_id) = (found.raft_id, found.cluster_id);
        let mut plan = Plan::recovered(cfg.segment_bytes, &found);
        if found.needs_reset {
            let reset = Frame {
                kind: FrameKind::Reset,
                term: found.base.term.0,
                index: found.base.index.0,
                body: Bytes::new(),
            };
            plan.push(Batch { frames: [reset].into(), ..Default::default() });
        }
        let hard_state =
            HardState { term: found.slot.term, vote: found.slot.vote, commit: found.commit.0, ..Default::default() };
        let entries = found.entries.iter().map(ready::entry_of).collect();
        let mut member = Member::new(cfg, found.base, &found.image, entries, hard_state, plan);
        member.forget_if_alone();
        member
    }

    /// `base` is the newest checkpoint, after which `entries` stand; `image` is the place of what was applied of them.
    fn new(
        cfg: MemberConfig,
        base: Checkpoint,
        image: &Checkpoint,
        entries: Vec<Entry>,
        hs: HardState,
        plan: Plan,
    ) -> Member {
        cfg.check();
        let applied = image.index.0;
        let (term, vote) = (hs.term, hs.vote);
        let config = raft::Config {
            id: cfg.raft_id,
            election_tick: cfg.election_ticks,
            heartbeat_tick: cfg.heartbeat_ticks,
            applied,
            max_size_per_msg: wire::MESSAGE_SOFT_MAX,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: 8 * 1024 * 1024,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, Tail::new(base, image.conf.clone(), entries, hs), &logger)
            .expect("the configuration was checked and the tail is whole");
        Member {
            electable: cfg.electable,
            cfg,
            raw,
            plan,
            founding: false,
            held: VecDeque::new(),
            outbox: Vec::new(),
            ready: 0,
            vote: (term, vote),
            term_durable: term,
            terms_in_flight: VecDeque::new(),
            delivered: applied,
            applied,
            installing: None,
            role: Role { term: Term(term), ..Role::default() },
            timeout: None,
            halted: None,
        }
    }

    /// One tick of time. `rng` is asked only when a new election timeout is needed.
    pub fn tick(&mut self, rng: &mut dyn Entropy) {
        if self.halted.is_some() {
            return;
        }
        self.plan.tick();
        if self.founding {
            return;
        }
        let shortest = self.cfg.election_ticks;
        let state = (self.raw.raft.term, self.raw.raft.state);
        let mut timeout = match self.timeout {
            Some((drawn_for, timeout)) if drawn_for == state => timeout,
            _ => {
                let mut bytes = [0; 8];
                rng.fill(&mut bytes);
                shortest + (u64::from_le_bytes(bytes) % shortest as u64) as usize
            }
        };
        self.timeout = Some((state, timeout));
        if !self.may_campaign() && self.raw.raft.state != StateRole::Leader {
            // long enough to know that no leader was heard, never long enough to campaign
            timeout = 2 * shortest - 1;
            self.raw.raft.election_elapsed = self.raw.raft.election_elapsed.min(2 * shortest - 3);
        }
        self.raw.raft.set_randomized_election_timeout(timeout);
        self.raw.tick();
    }

    /// Appends a proposal to the log; its fate is told by [`Effects::committed`].
    ///
    /// Nothing is appended unless this member is a ready leader. An answer may be given when an entry with exactly
    /// this position is applied; another term at this index means *not done*.
    pub fn propose(&mut self, data: impl Into<Bytes>) -> Result<Position, ProposeError> {
        let data = data.into();
        if self.halted.is_some() || !self.is_ready_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Err(ProposeError::Transferring);
        }
        if data.is_empty() || data.len() > self.cfg.max_entry_bytes {
            return Err(ProposeError::TooLarge);
        }
        if self.plan.no_room() {
            return Err(ProposeError::NoRoom);
        }
        let waiting = self.raw.store().bytes_since_checkpoint().max(self.plan.queue_bytes());
        if waiting + data.len() as u64 > self.cfg.backlog_bytes {
            return Err(ProposeError::Backlog);
        }
        let mut m = Message { from: self.cfg.raft_id, ..Default::default() };
        m.set_msg_type(MessageType::MsgPropose);
        m.mut_entries().push(Entry { data, ..Default::default() });
        // refused only by a leader that was removed from its own configuration
        self.raw.step(m).map_err(|_| ProposeError::NotLeader)?;
        Ok(Position { term: Term(self.raw.raft.term), index: Index(self.raw.raft.raft_log.last_index()) })
    }

    /// Takes a message that the authenticated peer `from` sent.
    pub fn step(&mut self, from: u64, bytes: &[u8]) -> Result<(), WireError> {
        if self.halted.is_some() {
            return Err(WireError::Halted);
        }
        let m = wire::decode(bytes)?;
        if m.from != from || m.to != self.cfg.raft_id {
            return Err(WireError::WrongParty);
        }
        if self.founding {
            return Err(WireError::NotExpected);
        }
        self.check_against_log(&m)?;
        self.raw.step(m).map_err(|_| WireError::NotExpected)
    }

    /// A disk operation is done. Report each id once, in any order.
    pub fn disk_done(&mut self, id: OpId, result: Result<(), DiskFault>) {
        if self.halted.is_some() {
            return;
        }
        match self.plan.done(id, result) {
            Done::Nothing => {}
            Done::Durable(ready) => self.durable(ready),
            Done::Halt(reason) => self.halted = Some(reason),
        }
    }

    /// Collects what is to be done now. Call after every input; it does not loop without new inputs.
    pub fn poll(&mut self, out: &mut Effects) {
        loop {
            if self.halted.is_some() {
                break;
            }
            if !self.founding {
                self.drive(out);
            }
            let log = &self.raw.raft.raft_log;
            match self.plan.plan(log.committed, log.persisted, &mut out.disk) {
                Done::Durable(ready) => self.durable(ready),
                Done::Nothing => break,
                Done::Halt(reason) => self.halted = Some(reason),
            }
        }
        if self.halted.is_some() {
            // what is not sent yet may promise what the disk does not hold
            out.clear();
            self.outbox.clear();
            out.halt = self.halted;
            return;
        }
        out.send.append(&mut self.outbox);
        out.want_snapshot |= self.raw.store().snapshot_wanted();
        out.want_checkpoint |= self.raw.store().bytes_since_checkpoint() > self.cfg.checkpoint_bytes;
        let role = self.current_role();
        if role != self.role {
            self.role = role;
            out.role = Some(role);
        }
    }

    /// The node applied everything up to `index`.
    ///
    /// # Panics
    /// If `index` lies past what was handed out: the image would hold what the log does not.
    pub fn applied(&mut self, index: Index) {
        assert!(index.0 <= self.delivered, "applied {index} past what was delivered");
        self.applied = self.applied.max(index.0);
        self.advance_applied();
        self.forget_if_alone();
    }

    /// Of a node alone nobody will ask for applied entries: a member that joins later begins with a checkpoint.
    fn forget_if_alone(&mut self) {
        if self.is_alone() {
            let floor = self.applied.min(self.raw.raft.raft_log.applied);
            self.raw.mut_store().compact(floor);
        }
    }

    /// A checkpoint at an applied index is complete and durable: the entries up to it are not needed for recovery
    /// any more. `manifest` is what a follower will be offered; a lone node may leave it empty.
    ///
    /// # Panics
    /// If the checkpoint is of an index that was not applied, or the manifest larger than a message.
    pub fn checkpointed(&mut self, checkpoint: Checkpoint, manifest: Bytes) {
        assert!(checkpoint.index.0 <= self.applied, "a checkpoint holds applied entries");
        assert!(manifest.len() <= wire::MAX_MANIFEST_BYTES, "the manifest fits a message");
        let index = checkpoint.index.0;
        if index <= self.raw.store().checkpoint().index.0 {
            return;
        }
        self.advance_applied();
        let lone = self.conf().is_lone_voter(self.cfg.raft_id) && self.conf().learners.is_empty();
        let trailing = if lone { 0 } else { self.cfg.trailing_entries };
        let applied = self.raw.raft.raft_log.applied;
        let store = self.raw.mut_store();
        let floor = store.floor_behind(index, trailing, self.cfg.trailing_bytes).min(applied);
        store.checkpointed(checkpoint, manifest);
        store.compact(floor);
        self.plan.purge(index);
    }

    /// The checkpoint of the last [`effects::SnapshotOffer`] is installed and durable; the node's image stands at
    /// its index. (A node that cannot install it restarts: raft has already moved on.)
    pub fn snapshot_installed(&mut self, index: Index) {
        if let Some((ready, expected)) = self.installing
            && expected == index.0
        {
            self.plan.release(ready);
            self.installing = None;
            self.delivered = self.delivered.max(index.0);
            self.applied = self.applied.max(index.0);
            self.advance_applied();
        }
    }

    /// The newest checkpoint is kept here in other files than its manifest named so far: one that came from a leader was
    /// written again under names of this directory. Followers are offered these from now on.
    ///
    /// # Panics
    /// If the manifest is larger than a message.
    pub fn renamed(&mut self, index: Index, manifest: Bytes) {
        assert!(manifest.len() <= wire::MAX_MANIFEST_BYTES, "the manifest fits a message");
        if self.raw.store().checkpoint().index == index {
            self.raw.mut_store().rename(manifest);
        }
    }

    /// How sending a snapshot message to a follower ended; without it the follower is not sent entries.
    pub fn snapshot_sent(&mut self, to: u64, ok: bool) {
        self.raw.report_snapshot(to, if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    /// A message to this peer was lost.
    pub fn unreachable(&mut self, peer: u64) {
        self.raw.report_unreachable(peer);
    }

    /// Asks for a read index; the answer is in [`Effects::reads`] under `ctx`, or never comes if leadership changes:
    /// ask again after a while with another number.
    pub fn read_index(&mut self, ctx: u64) -> Result<(), CommandError> {
        self.alive()?;
        match self.raw.raft.leader_id {
            0 => return Err(CommandError::NoLeader),
            id if id == self.cfg.raft_id && !self.raw.raft.commit_to_current_term() => {
                return Err(CommandError::NotLeader);
            }
            _ => {}
        }
        // contexts are one space for all members, so each carries its asker
        let mut context = self.cfg.raft_id.to_be_bytes().to_vec();
        context.extend_from_slice(&ctx.to_be_bytes());
        self.raw.read_index(context);
        Ok(())
    }

    /// Hands leadership to a voter. Proposals are refused until it is over, at most one election timeout.
    pub fn transfer_leader(&mut self, to: u64) -> Result<(), CommandError> {
        self.alive()?;
        if !self.is_ready_leader() {
            return Err(CommandError::NotLeader);
        }
        let conf = self.conf();
        if to == self.cfg.raft_id || !conf.voters.contains(&to) {
            return Err(CommandError::BadTarget);
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Err(CommandError::Busy);
        }
        self.raw.transfer_leader(to);
        Ok(())
    }

    /// Proposes a membership change; more than one step goes through a joint configuration that ends by itself. It is
    /// in force when it comes back as [`effects::Payload::Conf`].
    pub fn propose_conf_change(&mut self, changes: &[ConfChange]) -> Result<Position, CommandError> {
        self.alive()?;
        if !self.is_ready_leader() {
            return Err(CommandError::NotLeader);
        }
        if changes.is_empty() || changes.len() > conf::MAX_MEMBERS {
            return Err(CommandError::BadTarget);
        }
        let busy = self.raw.raft.has_pending_conf()
            || self.raw.raft.lead_transferee.is_some()
            || !self.conf().voters_outgoing.is_empty()
            || self.plan.no_room();
        if busy {
            return Err(CommandError::Busy);
        }
        let change = conf::to_raft(changes);
        if !ready::fits(self.raw.raft.prs(), &change) {
            return Err(CommandError::BadTarget);
        }
        self.raw.propose_conf_change(Vec::new(), change).map_err(|_| CommandError::Busy)?;
        Ok(Position { term: Term(self.raw.raft.term), index: Index(self.raw.raft.raft_log.last_index()) })
    }

    /// May this member campaign? A sealed node follows and votes but does not. A leader stays leader.
    pub fn set_electable(&mut self, electable: bool) {
        self.electable = electable;
    }

    /// The role at the last poll.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Membership in force.
    pub fn conf(&self) -> ConfState {
        ConfState::from_raft(&self.raw.raft.prs().conf().to_conf_state())
    }

    /// For humans and metrics.
    pub fn status(&self) -> Status {
        let log = &self.raw.raft.raft_log;
        let (segment, segment_used) = self.plan.active();
        let leads = self.raw.raft.state == StateRole::Leader;
        let mut peers: Vec<_> = match leads {
            true => self.raw.raft.prs().iter().map(|(&id, p)| (id, Index(p.matched), p.recent_active)).collect(),
            false => Vec::new(),
        };
        peers.retain(|p| p.0 != self.cfg.raft_id);
        peers.sort_unstable();
        Status {
            raft_id: self.cfg.raft_id,
            role: self.role,
            last: Index(log.last_index()),
            durable: Index(log.persisted),
            committed: Index(log.committed),
            applied: Index(self.applied),
            checkpoint: self.raw.store().checkpoint().index,
            tail_bytes: self.raw.store().bytes(),
            segment,
            segment_used,
            no_room: self.plan.no_room(),
            conf: self.conf(),
            peers,
        }
    }

    /// The only member there is, learners included.
    fn is_alone(&self) -> bool {
        let mut members = self.raw.raft.prs().iter().map(|(id, _)| *id);
        members.next() == Some(self.cfg.raft_id) && members.next().is_none()
    }

    fn alive(&self) -> Result<(), CommandError> {
        if self.halted.is_some() { Err(CommandError::Halted) } else { Ok(()) }
    }

    fn is_ready_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.apply_to_current_term()
    }

    fn current_role(&self) -> Role {
        let raft = &self.raw.raft;
        Role {
            term: Term(raft.term),
            leader_id: raft.leader_id,
            is_leader: raft.state == StateRole::Leader,
            ready: self.is_ready_leader(),
        }
    }

    /// The node allows it, and everything in the log is durable: raft counts on that when it becomes a leader.
    fn may_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        // after a checkpoint from the leader, raft would look for entries that are gone until this is applied
        let settled = self.installing.is_none() && self.raw.snap().is_none();
        let whole = settled && log.applied + 1 >= log.first_index();
        self.electable && whole && self.plan.is_idle() && log.persisted == log.last_index()
    }
}
