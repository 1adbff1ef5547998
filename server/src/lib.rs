//! The server around the machine: HTTP, cores, disk, audit sinks, telemetry and the command line. `node` and `base`
//! are all it knows of the engine.

/// See the reason beside the dependency; measured by `cargo bench -p ringfence-benches --bench http`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod api;
pub mod audit;
pub mod boot;
pub mod cli;
pub mod config;
pub mod dev;
mod dev_tls;
pub mod disk;
pub mod facts;
mod peer;
mod ports;
mod reload;
pub mod rt;
pub mod shard;
pub mod side;
mod sql;
pub mod telemetry;
pub mod tls;
