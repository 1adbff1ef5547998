//! A harness that does to a cluster of real processes whatever may happen to one, and judges what its clients were told.
//!
//! ```text
//!   scenario ──> run ──┬── workloads: clients over HTTP ──┐
//!                      ├── nemeses: faults by name        ├──> history.jsonl ──> checkers ──> report, JUnit, exit code
//!                      └── cluster: processes, network,   ┘
//!                          disks, clocks
//! ```
//! Everything that is drawn comes from one seed: the order of operations and faults, though not how they fall in time.
//! Nothing here imports a crate of the server: what judges must not share code with what is judged.

pub mod check;
pub mod cli;
pub mod client;
pub mod cluster;
mod command;
pub mod gaps;
pub mod history;
pub mod nemesis;
pub mod net;
pub mod report;
pub mod run;
pub mod scenario;
pub mod work;
