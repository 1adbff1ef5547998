//! The data directory: what it is made of, how it is opened and recovered, and the executor of disk operations.
//!
//! ```text
//! <path>/identity            cluster, raft id, format: written once, at init
//! <path>/lock                held while a process runs
//! <path>/slots               term, vote, commit (rotating slots)
//! <path>/log/<number>.seg    log segments, zero-filled, recycled
//! <path>/checkpoint/<id>.chunk, <path>/checkpoint/manifest
//! <path>/lost                why a process found while it ran that the next one must begin anew
//! <path>/damaged-<raft id>/  slots, log, checkpoint and identity of before the last repair
//! ```

mod directory;
mod executor;
pub mod snapshots;

pub use directory::{Directory, OpenError, identity_bytes, mark_lost};
pub use executor::{DirExecutor, Done, Executor, MemoryExecutor};
