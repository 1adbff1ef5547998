//! What a token may do at a path: `sys/capabilities*`.

use super::check::{self, Holder};
use super::entry::TokenEntry;
use crate::host::host;
use crate::identity::Identity;
use ringfence_logical::{Cx, Error, Map};
use ringfence_policy::acl::Acl;
use serde_json::json;
use std::rc::Rc;

/// Whose capabilities are asked for.
pub enum Whose<'w> {
    /// The caller's.
    Caller,
    /// A token's.
    Token(&'w str),
    /// A token's, by accessor.
    Accessor(&'w str),
}

/// The capabilities at each path (within the namespace of the request), and under `capabilities` again when there is
/// one path only.
///
/// # Errors
/// `paths must be supplied`, `invalid token`, `invalid accessor`.
pub fn capabilities(cx: &mut Cx<'_, '_>, whose: Whose<'_>, paths: &[String]) -> Result<Map, Error> {
    if paths.is_empty() {
        return Err(Error::invalid("paths must be supplied"));
    }
    let entry = entry_of(cx, whose)?;
    let acl = acl_of(cx, &entry)?;
    let ns_path = host(cx).namespace.path.clone();
    let mut out = Map::new();
    for path in paths {
        let at = match &acl {
            Some(acl) => sorted(acl.capabilities(&format!("{ns_path}{}", path.trim_start_matches('/')))),
            // the entity is gone or disabled
            None => vec!["deny"],
        };
        if paths.len() == 1 {
            out.insert("capabilities".into(), json!(at));
        }
        out.insert(path.clone(), json!(at));
    }
    Ok(out)
}

/// The compiled ACL of a token; `None` if its entity is gone or disabled.
pub fn acl_of(cx: &mut Cx<'_, '_>, entry: &TokenEntry) -> Result<Option<Rc<Acl>>, Error> {
    let Some(identity) = Identity::of(cx.txn, entry.ns, &entry.entity_id)? else { return Ok(None) };
    let mut names = [entry.policies.clone(), identity.policies.clone()].concat();
    names.sort();
    names.dedup();
    let h = host(cx);
    let home = h.router.namespace_by_id(entry.ns).map_or("", |n| n.path.as_str());
    let acl = h.core.caches.borrow_mut().acl(cx.txn, entry.ns, home, &names, &identity, cx.now)?;
    Ok(Some(acl))
}

fn entry_of(cx: &mut Cx<'_, '_>, whose: Whose<'_>) -> Result<TokenEntry, Error> {
    let token = |found: Option<Holder>| found.map(|t| t.entry).ok_or_else(|| Error::invalid("invalid token"));
    match whose {
        Whose::Caller => Ok(super::caller(cx)?.entry),
        Whose::Token(raw) => token(super::shown(cx, raw)?),
        Whose::Accessor(accessor) => {
            let h = host(cx);
            let found = check::by_accessor(cx.txn, &h.keyring, &h.router, cx.mount.ns, accessor, cx.now)?;
            found.map(|(_, e)| e).ok_or_else(|| Error::invalid("invalid accessor"))
        }
    }
}

fn sorted(mut list: Vec<&'static str>) -> Vec<&'static str> {
    list.sort_unstable();
    list
}
