//! The server around the machine: HTTP, cores, disk, audit sinks, telemetry and the command line. `node` and `base`
//! are all it knows of the engine.

pub mod api;
pub mod audit;
pub mod boot;
pub mod cli;
pub mod config;
pub mod dev;
pub mod disk;
pub mod facts;
pub mod rt;
pub mod shard;
pub mod telemetry;
pub mod tls;
