//! Names and passwords. Called by the vault floor for auth mounts of type `userpass`.
//!
//! Users stand in area `u` under their lower-cased name. Passwords are kept as bcrypt hashes; hashing and comparing
//! are side operations, a core never does them. An unknown name costs the same comparison as a wrong password and is
//! answered in the same words.

mod login;
mod paths;
mod user;

#[cfg(test)]
mod tests;

use crate::tokenutil::same_policies;
use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Map, Renewal};

/// The auth method.
pub struct Userpass;

static TABLE: Table = Table {
    kind: "userpass",
    class: Class::Auth,
    help: "Logs clients in by name and password.",
    paths: paths::PATHS,
};

impl Engine for Userpass {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn renew_token(&self, cx: &mut Cx<'_, '_>, policies: &[String], internal: &Map) -> Result<Renewal, Error> {
        let name = internal.get("username").and_then(|v| v.as_str()).unwrap_or("");
        let Some(user) = user::load(cx, name)? else {
            return Err(Error::invalid("user does not exist anymore, not renewing"));
        };
        if !same_policies(&user.token.policies, policies) {
            return Err(Error::invalid("policies have changed, not renewing"));
        }
        Ok(user.token.renewal())
    }
}
