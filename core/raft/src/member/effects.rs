//! What a member hands to the loop that drives it, and the answers it gives at once.

use crate::conf::ConfState;
use crate::disk::DiskOp;
use bytes::Bytes;
use ringfence_base::{Index, Term};

/// Everything one [`crate::Member::poll`] asks to be done. Reuse one value: poll appends, the loop drains.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the executor, in this order (see [`crate::disk`]).
    pub disk: Vec<DiskOp>,
    /// Encoded messages for peers, in this order per peer.
    pub send: Vec<Envelope>,
    /// Committed and locally durable entries, in index order without gaps; apply each, then call
    /// [`crate::Member::applied`].
    pub committed: Vec<Committed>,
    /// The newest role, if it changed.
    pub role: Option<Role>,
    /// Read indexes that a quorum confirmed: a read at an image at or past `index` is linearizable.
    pub reads: Vec<ReadReady>,
    /// A leader sent a checkpoint: fetch and install it, then call [`crate::Member::snapshot_installed`].
    pub snapshot: Option<SnapshotOffer>,
    /// A follower needs a checkpoint newer than the one known; make one and call [`crate::Member::checkpointed`].
    pub want_snapshot: bool,
    /// The entries in memory passed the configured bound: make a checkpoint and call
    /// [`crate::Member::checkpointed`]. Stays set at each poll until then.
    pub want_checkpoint: bool,
    /// The process must stop: what it holds is no longer backed by the disk. Nothing else follows.
    pub halt: Option<HaltReason>,
}

impl Effects {
    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.disk.is_empty()
            && self.send.is_empty()
            && self.committed.is_empty()
            && self.role.is_none()
            && self.reads.is_empty()
            && self.snapshot.is_none()
            && !self.want_snapshot
            && !self.want_checkpoint
            && self.halt.is_none()
    }

    /// Empties all fields and keeps their memory.
    pub fn clear(&mut self) {
        self.disk.clear();
        self.send.clear();
        self.committed.clear();
        self.role = None;
        self.reads.clear();
        self.snapshot = None;
        self.want_snapshot = false;
        self.want_checkpoint = false;
        self.halt = None;
    }
}

/// One encoded message (see [`crate::wire`]) for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Raft id of the peer.
    pub to: u64,
    /// What goes to its [`crate::Member::step`].
    pub bytes: Vec<u8>,
}

/// A place in the log that tells one proposal from all others: a different term at the same index is another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term it was proposed in.
    pub term: Term,
    /// Its index.
    pub index: Index,
}

/// A committed entry. A waiter whose [`Position`] has this index and another term knows that its proposal was *not*
/// done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where.
    pub position: Position,
    /// What.
    pub payload: Payload,
}

/// What a committed entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// What was proposed, as it was proposed.
    Data(Bytes),
    /// Raft's own entry at the start of a term; changes nothing, but the index counts as applied.
    Noop,
    /// Membership changed (the member has taken it up already). A checkpoint made at this index or later, until the
    /// next such entry, carries this state.
    Conf(ConfState),
}

/// Who this member is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Role {
    /// The current term.
    pub term: Term,
    /// Raft id of the leader, 0 if none is known.
    pub leader_id: u64,
    /// This member is the leader of `term`.
    pub is_leader: bool,
    /// Leader, and its own term's first entry is applied here: only now may requests be evaluated and proposed.
    /// Invariant: `ready` implies `is_leader`.
    pub ready: bool,
}

/// A confirmed read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// The number given to [`crate::Member::read_index`].
    pub ctx: u64,
    /// Wait until this is applied.
    pub index: Index,
}

/// A checkpoint that the leader offers in place of entries it no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The offering peer.
    pub from: u64,
    /// Its place and membership.
    pub checkpoint: crate::Checkpoint,
    /// The manifest given to the leader's [`crate::Member::checkpointed`].
    pub manifest: Bytes,
}

/// Why the member stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltReason {
    /// A durable write failed. Never retried: what the kernel dropped cannot be known.
    WriteFailed(crate::disk::OpId),
    /// A segment could neither be made nor removed, for another reason than space.
    SegmentFailed(crate::disk::OpId),
    /// A committed membership entry cannot be read or does not fit the configuration before it.
    BadConfChange(Index),
}

/// Why a proposal was refused. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Not the leader, or its term's first entry is not applied yet.
    NotLeader,
    /// The disk has no space for the next segment. Reads go on; a retry runs by itself.
    NoRoom,
    /// Larger than `max_entry_bytes`, or empty (empty entries are raft's own).
    TooLarge,
    /// Leadership is being handed over.
    Transferring,
    /// The entries in memory are at their bound because a checkpoint or the disk is behind.
    Backlog,
}

/// Why a command (read index, transfer, membership) was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No leader is known.
    NoLeader,
    /// This member is not the leader, or not ready.
    NotLeader,
    /// The target is not a voter, or is this member.
    BadTarget,
    /// Another membership change or transfer is under way, or the disk has no room.
    Busy,
    /// The member has halted.
    Halted,
}

/// For humans and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member's raft id.
    pub raft_id: u64,
    /// Its role.
    pub role: Role,
    /// Last index of the log in memory.
    pub last: Index,
    /// Last index known durable here. Invariant: `durable <= last`.
    pub durable: Index,
    /// Committed by the cluster. Invariant: `committed <= last`.
    pub committed: Index,
    /// Applied by the node. Invariant: `applied <= min(committed, durable)`.
    pub applied: Index,
    /// Index of the newest checkpoint.
    pub checkpoint: Index,
    /// Bytes of entries held in memory.
    pub tail_bytes: u64,
    /// The segment being written.
    pub segment: u64,
    /// Bytes of it used.
    pub segment_used: u64,
    /// The disk has no room for the next segment.
    pub no_room: bool,
    /// Membership in force.
    pub conf: ConfState,
    /// Followers by raft id: (matched index, active since the last check). Only a leader knows them.
    pub peers: Vec<(u64, Index, bool)>,
}
