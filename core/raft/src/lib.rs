//! The log and the raft member, pure: bytes, ticks and completions in; disk operations, messages and committed
//! entries out.
//!
//! ```text
//!            propose / step / tick / applied / disk_done
//!                              |
//!                       +------v------+   entries, votes   +---------+   DiskOp (data)
//!                       |   Member    |------------------->|  Plan   |------------------> executor in server/disk
//!                       |  (RawNode)  |<-------------------| segments|<------------------ disk_done(id, result)
//!                       +------+------+   durable up to    +---------+
//!                              |
//!                        poll(&mut Effects): disk, send, committed, role, reads, snapshot, halt
//! ```
//!
//! * [`Member`] wraps tikv's `raft` crate (no consensus algorithm of our own) and is driven by one loop: feed inputs,
//!   [`Member::poll`], carry out the [`Effects`], report back. One voter alone runs the same path as a cluster.
//! * [`log`] draws the bytes on disk, plans group commit and recovers.
//! * [`wire`] is the bounded codec of peer messages. No protobuf is parsed from bytes that a peer or a disk gave us.
//!
//! The crate never opens a file or socket, never reads a clock and never depends on the system's random source: the
//! election timeout is drawn from the caller's [`ringfence_base::Entropy`].

pub mod conf;
pub mod disk;
pub mod log;
mod member;
mod storage;
pub mod wire;

pub use conf::{ConfChange, ConfState};
pub use disk::{DiskFault, DiskOp, OpId, SECTOR, SegmentNo};
pub use log::recover::{
    Checkpoint, Corruption, Damage, ReadFault, Recovered, RecoveryInput, SegmentInput, SegmentRead, TornTail, recover,
};
pub use member::effects::{
    CommandError, Committed, Effects, Envelope, HaltReason, Payload, Position, ProposeError, ReadReady, Role,
    SnapshotOffer, Status,
};
pub use member::{Member, MemberConfig};
pub use wire::WireError;
