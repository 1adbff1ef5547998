//! The PKI engine: authorities, roles, certificates, revocation lists, OCSP. A table of paths with plain functions as
//! handlers over one transaction, driven by the vault floor like any other engine.
//!
//! Certificates, requests, lists and OCSP answers are values of the `x509-cert` and `x509-ocsp` types, encoded by their
//! DER codec and signed by aws-lc-rs; nothing here knows a tag byte. Keys leave the barrier only when a request asked
//! for an exported one. No socket, no clock: time is the transaction's, serial numbers and ids are drawn from its
//! randomness, keys and signatures from the library's.

mod acme;
mod authority;
pub mod cert;
mod config;
mod crl;
mod fetch;
mod import;
mod issue;
mod issuers;
pub mod key;
mod keys;
mod metadata;
mod names;
mod ocsp;
mod paths;
mod pem;
pub mod relation;
mod revoke;
mod role;
mod root;
mod store;
mod tidy;

// the same mount in memory as the engines' tests have
#[cfg(test)]
#[path = "../../engines/src/fixture.rs"]
#[allow(dead_code)]
mod fixture;
#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Lease, Outcome, Registry};
use std::sync::LazyLock;

/// The engine.
pub struct Pki;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table {
    kind: "pki",
    class: Class::Secret,
    help: "Issues, signs and revokes X.509 certificates.",
    paths: [paths::PATHS, acme::PATHS].concat().leak(),
});

impl Engine for Pki {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn revoke(&self, cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        let serial = lease.internal.get("serial_number").and_then(|s| s.as_str()).unwrap_or("");
        revoke::by_lease(cx, serial)
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        acme::due(cx, job).unwrap_or_else(|| tidy::due(cx, job))
    }
}

/// Adds the engine to a registry.
pub fn register(registry: &mut Registry) {
    registry.add("pki", Box::new(Pki));
}
