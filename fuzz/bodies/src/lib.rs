//! The bodies of the fuzz targets, as plain functions of bytes, and the table of them.
//!
//! ```text
//!   TARGETS ──> fuzz_targets/*.rs    three lines each, under libFuzzer
//!          ├──> corpus/<name>/        small seeds, written from `seeds.rs` by a command
//!          ├──> dictionaries/*.dict   written by the same command
//!          └──> tests/replay.rs       corpora and some thousand mutations, on the stable toolchain
//! ```
//!
//! A body panics if a promise is broken and returns otherwise; it never judges whether its bytes make sense. The same
//! bytes do the same each time: no clock, no file, no socket, and randomness from seeds in the code.

pub mod database;
#[cfg(feature = "shell")]
pub mod edge;
pub mod input;
pub mod lone;
pub mod mounts;
pub mod mutate;
pub mod node;
pub mod policies;
pub mod seeds;
pub mod stored;
pub mod values;

use std::cell::OnceCell;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Names its fuzz target, corpus and dictionary.
    pub name: &'static str,
    /// Takes any bytes; panics if a promise is broken.
    pub body: fn(&[u8]),
    /// Inputs that reach its parts, by name.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
    /// Words worth inserting.
    pub words: &'static [&'static str],
    /// Mutations that the smoke run on stable makes: as many as take about a second unoptimised.
    pub smoke: u32,
}

const fn target(
    name: &'static str,
    body: fn(&[u8]),
    seeds: fn() -> Vec<(String, Vec<u8>)>,
    words: &'static [&'static str],
    smoke: u32,
) -> Target {
    Target { name, body, seeds, words, smoke }
}

/// Every target.
pub static TARGETS: &[Target] = &[
    target("acl_model", policies::acl_model, seeds::scripts, seeds::CHOICES, 4000),
    target("acme_request", mounts::acme_request, seeds::acme_request, seeds::ACME, 400),
    target("batch", stored::batch, seeds::batch, seeds::NUMBERS, 8000),
    target("batch_token", stored::batch_token, seeds::scripts, seeds::NUMBERS, 2000),
    target("certificate_bundle", mounts::certificate_bundle, seeds::none, seeds::PEM, 350),
    target("certificate_request", mounts::certificate_request, seeds::none, seeds::DER, 400),
    target("checkpoint", stored::checkpoint, seeds::checkpoint, seeds::FORMATS, 400),
    #[cfg(feature = "shell")]
    target("cli_arguments", edge::cli_arguments, seeds::cli_arguments, seeds::CLI, 400),
    #[cfg(feature = "shell")]
    target("configuration", edge::configuration, seeds::configuration, seeds::CONFIG, 1500),
    target("duration", values::duration, seeds::duration, seeds::DURATIONS, 8000),
    target("fields", values::fields, seeds::fields, seeds::JSON, 2000),
    target("hcl", policies::hcl_text, seeds::hcl, seeds::HCL, 4000),
    #[cfg(feature = "shell")]
    target("http_request", edge::http_request, seeds::http_request, seeds::HTTP, 150),
    #[cfg(feature = "shell")]
    target("json_envelope", edge::json_envelope, seeds::json_envelope, seeds::JSON, 4000),
    target("log_recovery", stored::log_recovery, seeds::log_recovery, seeds::FORMATS, 400),
    target("node_step", node::node_step, seeds::node_step, seeds::CHOICES, 40),
    target("ocsp_request", mounts::ocsp_request, seeds::none, seeds::DER, 700),
    target("password_policy", policies::password, seeds::password, seeds::HCL, 200),
    target("path", values::path, seeds::path, seeds::PATHS, 8000),
    target("peer_frames", lone::peer_frames, seeds::peer_frames, seeds::NUMBERS, 2000),
    target("policy", policies::policy, seeds::policy, seeds::HCL, 1500),
    target("revocation_list", mounts::revocation_list, seeds::none, seeds::DER, 4000),
    target("sealed_record", stored::sealed_record, seeds::scripts, seeds::NUMBERS, 2000),
    target("shamir_combine", stored::shamir_combine, seeds::shamir, seeds::NUMBERS, 2000),
    target("snapshot_archive", stored::snapshot_archive, seeds::snapshot, seeds::FORMATS, 500),
    target("sql_statements", database::statements, seeds::sql, seeds::SQL, 4000),
    target("ssh_key", mounts::ssh_key, seeds::none, seeds::SSH, 3000),
    target("template", policies::template, seeds::template, seeds::TEMPLATES, 4000),
    target("totp_address", mounts::totp_address, seeds::totp_address, seeds::TOTP, 4000),
    target("username_template", database::username, seeds::username, seeds::TEMPLATES, 3000),
];

/// Runs the body of a target.
///
/// # Panics
/// A promise is broken, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == name);
    (target.expect("the targets under libFuzzer are those of the table").body)(data);
}

thread_local! {
    static PREPARED: OnceCell<node::Prepared> = const { OnceCell::new() };
}

/// Lends the prepared disk of a node; it is made once a thread.
pub(crate) fn with_prepared<T>(run: impl FnOnce(&node::Prepared) -> T) -> T {
    PREPARED.with(|p| run(p.get_or_init(node::Prepared::new)))
}
