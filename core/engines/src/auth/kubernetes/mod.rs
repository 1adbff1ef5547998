//! Service account tokens of a Kubernetes cluster. The cluster's API server judges each token (TokenReview); this
//! method judges whether the account that it belongs to may have the role. Called by the vault floor for auth mounts
//! of type `kubernetes`.
//!
//! ```text
//! area c   (empty)     Config, JSON
//! area r   role name   Role, JSON
//! ```

mod config;
mod login;
mod paths;
mod role;
mod selector;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Map, Renewal};

/// The auth method.
pub struct Kubernetes;

static TABLE: Table = Table {
    kind: "kubernetes",
    class: Class::Auth,
    help: "Logs in service accounts of a Kubernetes cluster.",
    paths: paths::PATHS,
};

impl Engine for Kubernetes {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn renew_token(&self, cx: &mut Cx<'_, '_>, _policies: &[String], internal: &Map) -> Result<Renewal, Error> {
        let name = internal.get("role").and_then(|v| v.as_str()).unwrap_or("");
        match role::load(cx, name)? {
            Some(role) => Ok(role.token.renewal()),
            None => Err(Error::invalid(format!("failed to validate role {name} during renewal"))),
        }
    }
}
