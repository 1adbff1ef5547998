//! Transit: encryption, signatures and keyed hashes as a service. Called by the vault floor for mounts of type
//! `transit`.
//!
//! ```text
//! area p   name                          settings of a key, JSON (`policy`)
//! area v   name, 0x00, version as be64   one version's key material (`version`)
//! area c   `keys`, `cache`               settings of the mount, JSON
//! ```
//!
//! Ciphertexts, signatures and derivations are Vault's, so that either server opens what the other made. What uses a
//! key writes nothing and so runs on every core and on standbys; decoded versions stay in the core's memo. Private
//! RSA operations take milliseconds and run as side operations. Key material leaves the barrier by an export, a backup
//! or a wrapped export that the key's settings allow, and in no other way.

mod backup;
mod batch;
mod certificate;
mod ciphertext;
mod cmac;
mod config;
mod derive;
mod encrypt;
mod export;
mod hmac;
mod import;
mod keys;
mod kind;
mod paths;
mod policy;
mod rotate;
mod sign;
mod store;
mod text;
mod tools;
mod version;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Outcome};

/// The engine.
pub struct Transit;

static TABLE: Table = Table {
    kind: "transit",
    class: Class::Secret,
    help: "Encrypts, decrypts, signs and verifies data in transit, under named keys that never leave.",
    paths: paths::PATHS,
};

impl Engine for Transit {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        rotate::due(cx, job)
    }
}
