//! The log on disk: format, plan of the writes, recovery, vote slots.
//!
//! | file | what |
//! |---|---|
//! | [`record`] | the bytes of a write: sector heads, write header, frames |
//! | [`slots`] | the bytes of the slots file: raft id, term, vote, commit |
//! | `plan` | group commit and segments: entries in, [`crate::DiskOp`]s out |
//! | [`mod@recover`] | any bytes in, the acknowledged entries or a named corruption out |
//!
//! # Files
//! ```text
//! slots            16 KiB, see `slots`
//! segment 7        oldest that is still needed      | written front to back, never past its end;
//! segment 8        active: writes are appended here | an acknowledged sector is never written again
//! segment 9        prepared: zero-filled or recycled|
//! ```
//! # A segment is a row of writes, a write is a row of sectors
//! ```text
//! offset 0          4096        8192                    20480                          size
//! | write 41        | write 42  | write 43              | zeros, or sectors of an older generation |
//! | head  payload   | head ..   | head .. head .. head..|
//! ```
//! One write is in flight at a time, so after a crash only the last one can be torn. Each write header repeats what
//! identifies the write before it: a bad write followed by a good one was acknowledged and is *rot*; a bad write
//! followed by nothing is the one ambiguous case: recovery cuts it and says so ([`crate::TornTail`]). Alone, that
//! is all that can be done; in a cluster the node treats the cut as damage to be repaired by its peers.

pub(crate) mod plan;
pub mod record;
pub mod recover;
pub mod slots;

#[cfg(test)]
mod tests;
