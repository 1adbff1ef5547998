//! Clients by the certificate of their TLS connection. Called by the vault floor for auth mounts of type `cert`.
//!
//! The listener asks for a certificate and checks that the client has its key; whether it is one to let in is decided
//! here: against authorities (`webpki` judges the chain) or against single certificates, which must be the same to the
//! last byte; then by constraints, revocation lists and OCSP.
//!
//! ```text
//! area c   (empty)     Config, JSON
//! area e   name        Entry, JSON
//! area l   name        List, JSON: what is known of a revocation list
//! area s   name        its serial numbers, sorted, 20 bytes each
//! ```

mod chain;
mod config;
mod constraints;
mod crl;
mod entry;
mod login;
mod ocsp;
mod paths;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Map, Outcome, Renewal};

/// The auth method.
pub struct Cert;

static TABLE: Table = Table {
    kind: "cert",
    class: Class::Auth,
    help: "Logs clients in by the certificate of their TLS connection.",
    paths: paths::PATHS,
};

impl Engine for Cert {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn prove_renewal(&self, cx: &mut Cx<'_, '_>, internal: &Map) -> Outcome {
        login::prove_renewal(cx, internal)
    }

    fn renew_token(&self, cx: &mut Cx<'_, '_>, policies: &[String], internal: &Map) -> Result<Renewal, Error> {
        login::renew(cx, policies, internal)
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        crl::due(cx, job)
    }
}
