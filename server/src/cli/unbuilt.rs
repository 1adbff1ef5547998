//! Commands of Vault's that this command line does not have: named, so that a script is told plainly and not by
//! "unknown command".

use super::session::{Outcome, Session, usage};
use super::verb::{Verb, verb};

const fn absent(name: &'static str, run: fn(&mut Session<'_, '_>) -> Outcome) -> Verb {
    verb(name, "", "Not built yet; says so and leaves with 1", &[], run)
}

fn say(what: &str, instead: &str) -> Outcome {
    Err(usage(format!("{what} is not built into this command line yet; {instead}.")))
}

/// At the top.
pub const VERBS: [Verb; 4] = [
    absent("agent", |_| say("agent", "run HashiCorp's or OpenBao's agent against this server")),
    absent("proxy", |_| say("proxy", "run HashiCorp's or OpenBao's proxy against this server")),
    absent("events", |_| say("events", "the server has no event stream")),
    absent("hcp", |_| say("hcp", "there is no such service behind this server")),
];

/// Below `operator`.
pub const OPERATOR: [Verb; 4] = [
    absent("migrate", |_| say("operator migrate", "save a snapshot there and restore it here")),
    absent("import", |_| say("operator import", "use write or kv put")),
    absent("usage", |_| say("operator usage", "the server does not count clients")),
    absent("utilization", |_| say("operator utilization", "the server does not count clients")),
];
