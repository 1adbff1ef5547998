//! The token store: every token's life from creation to its end, and `auth/token/*`.
//!
//! ```text
//! check    text a client sends -> living token          mint    ids and rows; the end of a token
//! login    what a method proved -> token                 create  auth/token/create
//! renew    a longer life, by method, role or period      cutoff  revocation of batch tokens
//! ```
//!
//! Handlers run in the pipeline like any engine's; the functions beside them are the pipeline's own.

pub mod capabilities;
pub mod check;
pub mod create;
pub mod cutoff;
pub mod entry;
pub mod login;
pub mod mint;
pub mod paths;
pub mod renew;
pub mod roles;
pub mod ttl;

#[cfg(test)]
mod tests;

use crate::host::{VaultHost, host};
use check::Holder;
use ringfence_barrier::HashKind;
use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error};

/// Begins a service token.
pub const SERVICE_PREFIX: &str = "hvs.";
/// Begins a batch token.
pub const BATCH_PREFIX: &str = "hvb.";
/// How a service token's id stands in the image.
pub const TOKEN_HASH: HashKind = HashKind::TOKEN;
/// How an accessor stands in the image.
pub const ACCESSOR_HASH: HashKind = HashKind::ACCESSOR;
/// Where every namespace has its token store.
pub const TOKEN_MOUNT_PATH: &str = "auth/token/";

/// The engine behind `auth/token/`.
pub struct TokenStore;

/// Its paths.
pub static TABLE: Table = Table {
    kind: "token",
    class: Class::Auth,
    help: "Makes, looks up, renews and revokes tokens. Always mounted at auth/token/; each namespace has its own.",
    paths: paths::PATHS,
};

impl Engine for TokenStore {
    fn table(&self) -> &'static Table {
        &TABLE
    }
}

/// The one form of a list of policy names: trimmed, lower case, sorted, without duplicates; `root` stands alone.
pub fn sanitize(names: &[String]) -> Vec<String> {
    let mut out: Vec<String> = names.iter().map(|n| n.trim().to_lowercase()).filter(|n| !n.is_empty()).collect();
    out.sort();
    out.dedup();
    if out.iter().any(|p| p == "root") {
        return vec!["root".into()];
    }
    out
}

/// The caller's own token.
pub(crate) fn caller(cx: &mut Cx<'_, '_>) -> Result<Holder, Error> {
    let h: &VaultHost = host(cx);
    let Some(raw) = &h.call.token else { return Err(Error::denied_plain()) };
    let holder = check::find(cx.txn, &h.keyring, &h.router, raw.expose(), cx.now)?;
    holder.ok_or_else(Error::bad_token)
}

/// A token that a request names; `None` if it is not alive, or spent, or of another namespace than the one that serves
/// the request: a caller may do with it what the policies say here, and they say nothing of other tenants' tokens.
pub(crate) fn named(cx: &mut Cx<'_, '_>, raw: &str) -> Result<Option<Holder>, Error> {
    let ns = cx.mount.ns;
    let own = host(cx).call.token.as_ref().is_some_and(|t| t.expose() == raw);
    Ok(shown(cx, raw)?.filter(|t| own || t.entry.ns == ns))
}

/// As [`named`], from any namespace: for what the bearer of a token could do by himself.
pub(crate) fn shown(cx: &mut Cx<'_, '_>, raw: &str) -> Result<Option<Holder>, Error> {
    let h: &VaultHost = host(cx);
    let own = h.call.token.as_ref().is_some_and(|t| t.expose() == raw);
    // a token on its last use may still look at itself
    Ok(check::find(cx.txn, &h.keyring, &h.router, raw, cx.now)?.filter(|t| own || t.entry.num_uses >= 0))
}
