//! The simulated world: the real node (one owner, several shards) on simulated time and a simulated disk, driven from
//! one seed. The same seed replays the same run to the byte.
//!
//! [`cluster`] has several nodes and a network between them. [`world`] has one node: the disk loses what was not durable and tears the write in flight, at every operation; clients
//! write, revoke, unwrap and count uses meanwhile; after each crash the node is recovered from what the disk kept and
//! every acknowledgement is checked.

pub mod cluster;
pub mod disk;
pub mod history;
pub mod mutant;
pub mod promise;
pub mod world;

pub use cluster::{ClusterReport, ClusterRun};
pub use mutant::Mutant;
pub use world::{Report, Run, Violation};
