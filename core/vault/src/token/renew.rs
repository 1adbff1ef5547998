//! Renewal: of a token made here by its role or period, of a login's by its method. The time granted counts from now.

use super::check;
use super::entry::TokenEntry;
use super::{login, roles, ttl};
use crate::host::host;
use crate::identity::{self, Identity};
use crate::tables::Hash;
use ringfence_base::Wall;
use ringfence_logical::{
    Cx, Engine, Error, Issued, Map, Operation, Outcome, Renewal, Request, Resume, SideResult, nothing,
};

/// Asks the auth method of a token what it has to ask outside before a renewal. A token that cannot be renewed anyway
/// is nobody's question: [`renew`] tells why.
pub fn proof(cx: &mut Cx<'_, '_>, entry: &TokenEntry) -> Outcome {
    if entry.due.0 == 0 || entry.is_expired(cx.now) || !entry.renewable {
        return nothing();
    }
    by_its_method(cx, entry, |engine, sub, internal| engine.prove_renewal(sub, internal))
}

/// Goes on with [`proof`] after its side operation.
pub fn proof_resumed(cx: &mut Cx<'_, '_>, entry: &TokenEntry, resume: &Resume, result: &SideResult) -> Outcome {
    by_its_method(cx, entry, |_, sub, _| resume(sub, result))
}

/// Runs something in the context of the auth method that gave a token; nothing if it is the token store.
fn by_its_method(
    cx: &mut Cx<'_, '_>,
    entry: &TokenEntry,
    run: impl FnOnce(&dyn Engine, &mut Cx<'_, '_>, &Map) -> Outcome,
) -> Outcome {
    match host(cx).router.by_id(cx.txn, entry.ns, entry.mount)?.cloned() {
        Some(issuer) if issuer.entry.kind != super::TABLE.kind => within(cx, &issuer, entry, run)?,
        // what is missing is told by the renewal
        _ => nothing(),
    }
}

/// Renews a service token and answers its `auth` block and warnings.
///
/// # Errors
/// What the API says of tokens that are not renewable, by kind.
pub fn renew(
    cx: &mut Cx<'_, '_>,
    hash: &Hash,
    entry: &TokenEntry,
    increment: u64,
    client_token: String,
) -> Result<(Issued, Vec<String>), Error> {
    if entry.due.0 == 0 {
        return Err(Error::invalid("invalid lease ID"));
    }
    if entry.is_expired(cx.now) {
        return Err(Error::invalid("lease expired"));
    }
    if !entry.renewable {
        return Err(Error::invalid("lease is not renewable"));
    }
    let Some(identity) = Identity::of(cx.txn, entry.ns, &entry.entity_id)? else {
        return Err(Error::denied_plain());
    };
    let mut entry = entry.clone();
    let h = host(cx);
    let Some(issuer) = h.router.by_id(cx.txn, entry.ns, entry.mount)?.cloned() else {
        return Err(Error::invalid("lease not found"));
    };
    let mut identity = identity;
    let terms = if issuer.entry.kind == super::TABLE.kind {
        by_role(cx, &mut entry)?
    } else {
        by_method(cx, &issuer, &entry)?
    };
    if let (Some(aliases), false) = (&terms.group_aliases, entry.entity_id.is_empty()) {
        let at = (entry.ns, issuer.entry.id);
        identity::refresh_groups(cx.txn, &h.keyring, at.0, at.1, &entry.entity_id, aliases)?;
        identity = Identity::of(cx.txn, entry.ns, &entry.entity_id)?.ok_or_else(Error::denied_plain)?;
    }
    let ask = ttl::Ask {
        increment,
        ttl: if terms.ttl > 0 { terms.ttl } else { entry.creation_ttl },
        period: terms.period,
        max_ttl: terms.max_ttl,
        explicit_max_ttl: entry.explicit_max_ttl,
        start: entry.created,
        now: cx.now,
    };
    let granted = ttl::calculate(&issuer.info, &ask)?;
    entry.due = cx.now.plus_seconds(granted.ttl);
    entry.last_renewal = cx.now;
    entry.period = terms.period;
    check::save(cx.txn, hash, &entry);
    let issued = login::issued(client_token, &entry, identity.policies, granted.ttl, entry.created);
    Ok((issued, granted.warnings))
}

/// A token of the token store: period and explicit maximum are those of its role today, else its own.
fn by_role(cx: &mut Cx<'_, '_>, entry: &mut TokenEntry) -> Result<Renewal, Error> {
    if entry.role.is_empty() {
        return Ok(Renewal { period: entry.period, ..Renewal::default() });
    }
    let Some(role) = roles::load(cx.txn, entry.ns, &entry.role)? else {
        return Err(Error::plain(&format!("original token role {:?} could not be found, not renewing", entry.role)));
    };
    entry.explicit_max_ttl = role.explicit_max_ttl;
    Ok(Renewal { period: role.period, ..Renewal::default() })
}

/// A login's token: the method decides.
fn by_method(cx: &mut Cx<'_, '_>, issuer: &crate::mount::Routed, entry: &TokenEntry) -> Result<Renewal, Error> {
    let mut terms =
        within(cx, issuer, entry, |engine, sub, internal| engine.renew_token(sub, &entry.policies, internal))??;
    // a method that says nothing leaves what the login was given
    if terms == Renewal::default() {
        terms = Renewal { max_ttl: entry.max_ttl, period: entry.period, ..Renewal::default() };
    }
    Ok(terms)
}

/// Runs something of a token's auth method, in the context of its mount.
fn within<R>(
    cx: &mut Cx<'_, '_>,
    issuer: &crate::mount::Routed,
    entry: &TokenEntry,
    run: impl FnOnce(&dyn Engine, &mut Cx<'_, '_>, &Map) -> R,
) -> Result<R, Error> {
    let h = host(cx);
    let found = h.registry().find(issuer.entry.class, &issuer.entry.kind, issuer.entry.version());
    let Some(registered) = found else { return Err(Error::internal(format!("no engine {:?}", issuer.entry.kind))) };
    let internal = login::internal_of(entry)?;
    let inner = entry.path.strip_prefix(&issuer.info.path).unwrap_or(&entry.path).to_owned();
    let req = Request { op: Operation::Renew, path: inner, ..cx.req.clone() };
    let mut sub = Cx {
        txn: &mut *cx.txn,
        mount: &issuer.info,
        req: &req,
        principal: cx.principal,
        now: cx.now,
        rng: &mut *cx.rng,
        host: cx.host,
    };
    Ok(run(&*registered.engine, &mut sub, &internal))
}

/// Seconds left and the texts of a lookup that depend on the due time.
pub fn times(entry: &TokenEntry, now: Wall) -> (u64, Option<String>) {
    match entry.due.0 {
        0 => (0, None),
        _ => (ttl::left(entry.due, now), Some(entry.due.rfc3339())),
    }
}
