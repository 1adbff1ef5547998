//! Roles for machines: a role-id names the role, a secret-id proves it. Called by the vault floor for auth mounts of
//! type `approle`.
//!
//! ```text
//! area r   role name                        Role, JSON
//! area u   role's number, 8 bytes           role name
//! area i   hash of role-id                  role name
//! area s   role's number, hash of secret-id SecretId, JSON
//! area a   hash of accessor                 role's number, hash of secret-id
//! area t   (empty)                          where the last tidy stopped
//! ```
//!
//! Role-ids, secret-ids and accessors stand in keys only as keyed hashes. A role draws a fresh number when it is made:
//! secret-ids belong to the number, so those of a deleted role are dead at once, even if a role of the same name comes
//! back, and [`tidy`] clears them away later. A login with a secret-id without use limit writes nothing.

mod field;
mod login;
mod paths;
mod role;
mod secret_id;
mod secret_paths;
mod tidy;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Map, Outcome, Renewal, nothing};

/// The auth method.
pub struct Approle;

static TABLE: Table = Table {
    kind: "approle",
    class: Class::Auth,
    help: "Logs machines in by role-id and secret-id.",
    paths: paths::PATHS,
};

impl Engine for Approle {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        if job == tidy::JOB { tidy::due(cx) } else { nothing() }
    }

    fn renew_token(&self, cx: &mut Cx<'_, '_>, _policies: &[String], internal: &Map) -> Result<Renewal, Error> {
        let name = internal.get("role_name").and_then(|v| v.as_str()).unwrap_or("");
        match role::load(cx, name)? {
            Some(role) => Ok(role.token.renewal()),
            None => Err(Error::invalid(format!("role {name:?} does not exist during renewal"))),
        }
    }
}

/// A keyed hash of a name of this mount.
fn hash(cx: &Cx<'_, '_>, kind: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut bytes = cx.mount.id.0.to_be_bytes().to_vec();
    for p in parts {
        bytes.extend_from_slice(p);
    }
    cx.host.keyed_hash(kind, &bytes)
}
