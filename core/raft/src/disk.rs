//! What the log asks of a disk, as data. The executor in `server/` performs it; the simulator plays it.
//!
//! # Contract of the executor
//! 1. [`DiskOp::WriteSlot`] and [`DiskOp::WriteLog`] are performed one after another in the order given: one is
//!    durable before the next begins. [`DiskOp::PrepareSegment`] and [`DiskOp::RemoveSegment`] keep their order among
//!    themselves and may run beside the writes.
//! 2. Each operation is reported once through `Member::disk_done` with its id.
//! 3. `Ok` for a write means durable (FUA or flush), not merely handed over. `Ok` for a segment means that its
//!    contents, its length and its name in the directory are durable. A new segment is made and zero-filled under
//!    another name and renamed when complete, so recovery never meets half a segment.
//! 4. [`DiskFault::Full`] may be reported for `PrepareSegment` alone: a write into a prepared segment takes no space.
//! 5. After an `Io` fault of a write nothing is tried again: the member halts, and the process with it.

/// Every write is a whole number of sectors and aligned to them.
pub const SECTOR: usize = 4096;

/// Number of a segment file: counts up from 1, never used twice; it is also the segment's *generation*, so frames
/// left over in a recycled file are never taken for new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(pub u64);

impl std::fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Names an operation until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// One disk operation. See the module text for the executor's contract.
#[derive(Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// Write into a prepared segment; done when durable.
    WriteLog {
        /// Reported back.
        id: OpId,
        /// A segment whose `PrepareSegment` is done, or that recovery read.
        segment: SegmentNo,
        /// In bytes, a multiple of [`SECTOR`].
        offset: u64,
        /// A multiple of [`SECTOR`] long.
        bytes: Vec<u8>,
    },
    /// Write into the slots file (term, vote, commit), [`crate::log::slots::FILE_BYTES`] long; done when durable.
    WriteSlot {
        /// Reported back.
        id: OpId,
        /// In bytes, a multiple of [`SECTOR`].
        offset: u64,
        /// A multiple of [`SECTOR`] long.
        bytes: Vec<u8>,
    },
    /// Make a segment: create and zero-fill it, or rename a recycled one (its old content may stay).
    PrepareSegment {
        /// Reported back.
        id: OpId,
        /// The number of the new segment.
        segment: SegmentNo,
        /// Its length in bytes, a multiple of [`SECTOR`].
        size: u64,
        /// The segment whose file is renamed and used again; it has this size already.
        recycle: Option<SegmentNo>,
    },
    /// Delete a segment that holds nothing that is needed.
    RemoveSegment {
        /// Reported back.
        id: OpId,
        /// The segment to delete.
        segment: SegmentNo,
    },
}

impl DiskOp {
    /// The operation's id.
    pub fn id(&self) -> OpId {
        match self {
            DiskOp::WriteLog { id, .. }
            | DiskOp::WriteSlot { id, .. }
            | DiskOp::PrepareSegment { id, .. }
            | DiskOp::RemoveSegment { id, .. } => *id,
        }
    }
}

impl std::fmt::Debug for DiskOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskOp::WriteLog { id, segment, offset, bytes } => {
                write!(f, "WriteLog({} segment {segment} at {offset}, {} bytes)", id.0, bytes.len())
            }
            DiskOp::WriteSlot { id, offset, bytes } => {
                write!(f, "WriteSlot({} at {offset}, {} bytes)", id.0, bytes.len())
            }
            DiskOp::PrepareSegment { id, segment, size, recycle } => {
                write!(f, "PrepareSegment({} segment {segment}, {size} bytes, recycle {recycle:?})", id.0)
            }
            DiskOp::RemoveSegment { id, segment } => write!(f, "RemoveSegment({} segment {segment})", id.0),
        }
    }
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No space left; only [`DiskOp::PrepareSegment`] may say so. New writes are refused until a retry works.
    Full,
    /// Anything else. After a write it halts the member.
    Io,
}
