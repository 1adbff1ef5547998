//! The simulated world: the real node (one owner, several shards) on simulated time and a simulated disk, driven from
//! one seed. The same seed replays the same run to the byte.
//!
//! [`cluster`] has several nodes and a network between them. [`world`] has one node: the disk loses what was not durable and tears the write in flight, at every operation; clients
//! write, revoke, unwrap and count uses meanwhile; after each crash the node is recovered from what the disk kept and
//! every acknowledgement is checked. [`accounts`] gives that node a database that fails.

pub mod accounts;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod mutant;
pub mod promise;
pub mod world;

pub use accounts::{AccountsReport, AccountsRun};
pub use cluster::{ClusterReport, ClusterRun, RestoreRun};
pub use mutant::Mutant;
pub use world::{Report, Run, Violation};

/// What a schedule of snapshots hears from a directory that always has room.
pub(crate) fn kept(job: &ringfence_node::snapshot::Job) -> ringfence_node::SideResult {
    match ringfence_node::snapshot::build(job) {
        ringfence_node::SideResult::Bytes(archive) => {
            ringfence_node::SideResult::Json(serde_json::json!({"url": "sim", "bytes": archive.len()}))
        }
        other => other,
    }
}
