//! Identity: who stands behind tokens. Entities and their aliases, groups and theirs, and identity tokens; the engine
//! behind every namespace's `identity/`.
//!
//! ```text
//! model     records and the rows that lead to them        resolve   entity -> policies, groups, template values
//! login     what a login proves -> entity, memberships    entities, merge, aliases, groups, group_aliases, lookup: API
//! oidc      identity tokens: keys, roles, discovery; the OpenID provider
//! ```
//!
//! A login proves an alias (a name at a mount); the alias leads to an entity. Tokens carry the entity's id only, so what
//! an entity may do is found out anew at each request.

pub mod aliases;
pub mod entities;
pub mod group_aliases;
pub mod groups;
pub mod login;
pub mod lookup;
pub mod merge;
pub mod model;
pub mod oidc;
pub mod resolve;
mod view;

#[cfg(test)]
mod tests;

pub use login::{of_login, refresh_groups};
pub use model::{Entity, EntityAlias, Group, find, load, save};
pub use resolve::{Identity, Template, stamp};

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Outcome, Path, nothing};

const TOPICS: [&[Path]; 18] = [
    entities::PATHS,
    aliases::PATHS,
    groups::PATHS,
    group_aliases::PATHS,
    lookup::PATHS,
    oidc::keys::PATHS,
    oidc::roles::PATHS,
    oidc::tokens::PATHS,
    oidc::discovery::PATHS,
    oidc::provider::scopes::PATHS,
    oidc::provider::assignments::PATHS,
    oidc::provider::clients::PATHS,
    oidc::provider::providers::PATHS,
    oidc::provider::authorize::PATHS,
    oidc::provider::exchange::PATHS,
    oidc::provider::userinfo::PATHS,
    crate::mfa::methods::PATHS,
    crate::mfa::enforcement::PATHS,
];

const COUNT: usize = {
    let (mut n, mut topic) = (0, 0);
    while topic < TOPICS.len() {
        n += TOPICS[topic].len();
        topic += 1;
    }
    n
};

static ALL: [Path; COUNT] = {
    let mut all = [Path::new(""); COUNT];
    let (mut n, mut topic) = (0, 0);
    while topic < TOPICS.len() {
        let mut at = 0;
        while at < TOPICS[topic].len() {
            all[n] = TOPICS[topic][at];
            n += 1;
            at += 1;
        }
        topic += 1;
    }
    all
};

/// Its table.
pub static TABLE: Table = Table {
    kind: "identity",
    class: Class::Secret,
    help: "Entities, groups and their aliases, login MFA, and identity tokens. Always mounted at identity/; each \
           namespace has its own.",
    paths: &ALL,
};

/// The engine behind `identity/`.
pub struct IdentityStore;

impl Engine for IdentityStore {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        if let Some(group) = job.strip_prefix(groups::CLEAR_JOB) {
            return groups::clear_some(cx, group);
        }
        if let Some(login) = job.strip_prefix(crate::mfa::pending::EXPIRY_JOB) {
            return crate::mfa::pending::expire(cx, login);
        }
        if let Some(key) = job.strip_prefix(oidc::keys::ROTATION_JOB) {
            return oidc::keys::rotate_due(cx, key);
        }
        nothing()
    }
}
