//! The vault floor: pipeline, namespaces, mounts, router, tokens, leases, identity, audit entries, wrapping and
//! `sys/*`. It knows no engine; it is given a registry. Pure: time and randomness are arguments.

pub mod audit;
pub mod caches;
pub mod call;
pub mod envelope;
pub mod help;
pub mod host;
pub mod identity;
mod known;
pub mod lease;
pub mod lockout;
pub mod mount;
pub mod namespace;
pub mod pipeline;
pub mod policies;
pub mod sys;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod token;
pub mod wrap;

pub use ringfence_logical::Map;
