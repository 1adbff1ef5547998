//! Tokens signed by others: JSON Web Tokens presented as they are (roles of type `jwt`), and the OpenID Connect code
//! flow through a browser (roles of type `oidc`). Called by the vault floor for auth mounts of type `jwt` or `oidc`,
//! which are one method under two names.
//!
//! ```text
//! area c   (empty)                      Config, JSON
//! area k   (empty)                      Known, JSON: discovery document and key set, as last fetched
//! area r   role name                    Role, JSON
//! area u   end of life, 8 bytes, state  (empty): a state that was used
//! area w   end of life, 8 bytes, state  Given, JSON: a provider's answer that its client has not come for yet
//! ```
//!
//! A login reads the kept key set and writes nothing. A token whose key is not in it makes the set be fetched anew, at
//! most once in a while whatever the number of tokens ([`keys`]). The `state` of the code flow is its own record: an
//! authenticated text, so that nobody fills the image by beginning logins ([`state`]).

mod config;
mod keys;
mod login;
mod oidc;
mod paths;
mod role;
mod state;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Map, Renewal};

/// The auth method.
pub struct Jwt;

static TABLE: Table = Table {
    kind: "jwt",
    class: Class::Auth,
    help: "Logs clients in by signed tokens of other issuers, or through an OpenID provider.",
    paths: paths::PATHS,
};

impl Engine for Jwt {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn renew_token(&self, cx: &mut Cx<'_, '_>, _policies: &[String], internal: &Map) -> Result<Renewal, Error> {
        let name = internal.get("role").and_then(|v| v.as_str()).unwrap_or("");
        match role::load(cx, name)? {
            Some(role) => Ok(role.token.renewal()),
            None => Err(Error::invalid(format!("role {name} does not exist during renewal"))),
        }
    }
}
