//! Dynamic and static credentials of SQL servers. Called by the vault floor for mounts of type `database`.
//!
//! ```text
//! area c  connections    [name]       Connection
//! area r  dynamic roles  [name]       Role
//! area s  static roles   [name]       StaticRole
//! area i  intents        [uuid]       Intent: an account that may be being made
//! ```
//!
//! Every effect on a server is an intent first. A dynamic account: the intent is committed, the account is made, and
//! the lease takes the intent's place in one transaction; an intent that is still there at its due time is undone. A
//! password: the next one is stored as *pending* before the server hears of it, and whoever finds it pending goes on
//! with the same one. So accounts equal leases at every quiet moment, and no password is ever set that is not stored.
//!
//! Statements are complete texts when they leave; the engine never sees a socket ([`ringfence_logical::sql`]).

mod certificate;
mod connection;
mod creds;
mod dsn;
mod paths;
pub mod plugin;
mod role;
mod root;
mod schedule;
mod scram;
pub mod statement;
mod statics;
pub mod template;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Lease, Outcome, nothing};

/// The secrets engine.
pub struct Database;

static TABLE: Table = Table {
    kind: "database",
    class: Class::Secret,
    help: "Makes accounts on SQL servers for as long as a lease lives, and rotates the passwords of standing ones.",
    paths: paths::PATHS,
};

/// Area of connections.
const CONNECTIONS: u8 = b'c';
/// Area of dynamic roles.
const ROLES: u8 = b'r';
/// Area of static roles.
const STATICS: u8 = b's';
/// Area of intents.
const INTENTS: u8 = b'i';

/// Beginnings of the names of jobs.
const UNDO_JOB: &str = "undo/";
const ROOT_JOB: &str = "root/";
const STATIC_JOB: &str = "static/";

impl Engine for Database {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn renew(&self, cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        creds::renew(cx, lease)
    }

    fn revoke(&self, cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        creds::revoke(cx, lease)
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        if let Some(id) = job.strip_prefix(UNDO_JOB) {
            creds::undo(cx, id)
        } else if let Some(name) = job.strip_prefix(ROOT_JOB) {
            root::settle(cx, name)
        } else if let Some(name) = job.strip_prefix(STATIC_JOB) {
            statics::rotate_due(cx, name)
        } else {
            nothing()
        }
    }
}

/// A fault of the server as the client sees it (500), with secrets blotted out.
fn server_fault(text: &str, secrets: &[&str]) -> Error {
    let mut text = text.to_owned();
    for s in secrets.iter().filter(|s| !s.is_empty()) {
        text = text.replace(*s, "[password]");
    }
    Error::plain(&text)
}
