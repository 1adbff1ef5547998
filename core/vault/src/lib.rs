//! The vault floor: pipeline, namespaces, mounts, router, tokens, leases, identity, audit entries, wrapping and
//! `sys/*`. It knows no engine; it is given a registry. Pure: time and randomness are arguments.

pub mod activity;
pub mod audit;
pub mod caches;
pub mod call;
pub mod envelope;
pub mod help;
pub mod host;
pub mod identity;
pub mod jwt;
mod known;
pub mod lease;
pub mod list_filter;
pub mod lockout;
pub mod mfa;
pub mod mount;
pub mod namespace;
pub mod namespace_reroute;
pub mod page;
pub mod pipeline;
pub mod policies;
pub mod quota;
pub mod sys;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod token;
pub mod wrap;

pub use ringfence_logical::Map;
