//! Leases of secrets: registered with the answer that makes the secret, renewed and ended through the engine that made
//! it. A service token's record is its own lease; both share the clear header and the machinery here.
//!
//! ```text
//! entry      the record                       rows, wheel   the compact tables behind the side index
//! tombstone  mass revocation as one record    index         what is due, what hangs on whom
//! work       the owner's worker               engine        renew and revoke through the engine
//! ```
//!
//! A lease's id is `<path of mount><path of request>/<24 characters>[.<namespace>]`; its key holds the mount's number
//! instead of its path.

pub mod engine;
pub mod entry;
pub mod index;
pub mod rows;
pub mod tombstone;
pub mod wheel;
pub mod work;

#[cfg(test)]
mod job_tests;
#[cfg(test)]
mod tests;

use crate::mount::{Routed, Router};
use crate::namespace::Namespace;
use crate::pipeline::Pass;
use crate::tables;
use crate::token::check::{self, Holder};
use crate::token::mint::RANDOM_CHARS;
use crate::token::ttl;
pub use entry::LeaseEntry;
use ringfence_barrier::{Plain, Txn};
use ringfence_base::{MountId, NsId, Wall, entropy};
use ringfence_logical::{Error, LeaseTerms, Leased};
use std::ops::Bound;
use std::sync::Arc;

/// Registers the lease of a secret that an engine just made, in the same transaction. Answers id and life, and
/// warnings.
pub fn register(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    routed: &Routed,
    inner_path: &str,
    holder: Option<&Holder>,
    terms: LeaseTerms,
) -> Result<(Leased, Vec<String>), Error> {
    let mount = &routed.info;
    let ask = ttl::Ask {
        increment: 0,
        ttl: terms.ttl,
        period: 0,
        max_ttl: terms.max_ttl,
        explicit_max_ttl: 0,
        start: pass.now,
        now: pass.now,
    };
    let granted = ttl::calculate(mount, &ask)?;
    let path = inner_path.trim_end_matches('/');
    let by_batch = holder.is_some_and(Holder::is_batch);
    let mut lease = LeaseEntry {
        ns: mount.ns,
        secret: terms.secret.to_owned(),
        internal: serde_json::to_string(&terms.internal).expect("a JSON tree always serialises"),
        path: path.to_owned(),
        owner: holder.map(Holder::owner).unwrap_or_default(),
        batch_due: holder.filter(|_| by_batch).map(|h| h.entry.due).unwrap_or_default(),
        by_batch,
        issued: pass.now,
        ttl: granted.ttl,
        max_ttl: terms.max_ttl,
        renewable: terms.renewable,
        era: tombstone::era(txn)?,
        ..LeaseEntry::default()
    };
    lease.due = cap(&lease, pass.now.plus_seconds(granted.ttl));
    let ttl = ttl::left(lease.due, pass.now);
    lease.ttl = ttl;
    let key_path = format!("{path}/{}", entropy::base62(pass.rng, RANDOM_CHARS));
    save(txn, mount.id, &key_path, &lease);
    let router = pass.core.caches.borrow_mut().router(txn, &pass.core.vault.settings.ttls)?;
    let lease_id = format!("{}{key_path}{}", mount.path, check::suffix(&router, mount.ns));
    Ok((Leased { lease_id, duration: ttl, renewable: terms.renewable }, granted.warnings))
}

/// A lease that a batch token made ends with the token at the latest.
pub(crate) fn cap(lease: &LeaseEntry, due: Wall) -> Wall {
    if lease.by_batch { due.min(lease.batch_due) } else { due }
}

/// Writes a lease.
pub fn save(txn: &mut Txn<'_>, mount: MountId, key_path: &str, lease: &LeaseEntry) {
    txn.put(tables::lease(mount, key_path), &lease.header(mount).encode(), &lease.encode());
}

/// Reads a lease, dead or alive.
pub fn load(txn: &mut Txn<'_>, mount: MountId, key_path: &str) -> Result<Option<LeaseEntry>, Error> {
    match txn.get(&tables::lease(mount, key_path))? {
        None => Ok(None),
        Some(p) => Ok(Some(LeaseEntry::decode(&p.bytes)?)),
    }
}

/// Deletes a lease and what was noted of it.
pub fn forget(txn: &mut Txn<'_>, mount: MountId, key_path: &str) {
    txn.delete(&tables::lease(mount, key_path));
    if txn.view().changed(tables::TOMBSTONE, None).0 != 0 {
        tombstone::irrevocable(txn, mount, key_path, None);
    }
}

/// What a lease is for those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Counts.
    Alive,
    /// Its time is past.
    Expired,
    /// Its token is gone or a mass revocation covers it; it waits for the worker.
    Revoked,
    /// Six attempts to revoke it failed.
    Irrevocable,
}

/// Tells how a lease stands, whatever the worker has done so far. Its mount is looked for in the namespace beside it
/// first.
pub fn standing(
    txn: &mut Txn<'_>,
    router: &Router,
    (near, mount): (NsId, MountId),
    key_path: &str,
    lease: &LeaseEntry,
    now: Wall,
) -> Result<Standing, Error> {
    if lease.is_irrevocable() {
        return Ok(Standing::Irrevocable);
    }
    let orphaned = lease.owner != [0; 16] && check::alive(txn, router, &lease.owner, now)?.is_none();
    if lease.attempts > 0
        || orphaned
        || tombstone::covers(txn, tombstone::LEASES, mount, key_path, lease.era)?
        || router.by_id(txn, near, mount)?.is_none()
    {
        return Ok(Standing::Revoked);
    }
    Ok(if lease.is_expired(now) { Standing::Expired } else { Standing::Alive })
}

/// Where a lease id leads: the mount and the path of the key. An id that names another namespace leads nowhere: its
/// request was taken there whole, before it was judged.
pub fn locate(
    txn: &Txn<'_>,
    router: &Router,
    ns: &Arc<Namespace>,
    id: &str,
) -> Result<Option<(Arc<Routed>, String)>, Error> {
    let Some(id) = bare(router, ns, id) else { return Ok(None) };
    let found = router.route(txn, ns.id, id)?;
    Ok(found.map(|(routed, inner)| (routed.clone(), inner.to_owned())))
}

/// A lease id of a namespace without its suffix; `None` if it is of another.
pub fn bare<'i>(router: &Router, ns: &Namespace, id: &'i str) -> Option<&'i str> {
    let id = id.trim_start_matches('/');
    let name_at = id.rfind('/').map_or(0, |slash| slash + 1);
    match id[name_at..].rsplit_once('.') {
        Some((_, external)) if external == ns.external_id && !ns.is_root() => {
            Some(&id[..id.len() - external.len() - 1])
        }
        Some((_, external)) if check::namespace_by_external_id(router, external).is_some() => None,
        _ => Some(id),
    }
}

/// Records under a prefix as they stand in the view: neither recorded in the read set nor aware of own writes. For
/// what is read only to be shown or to find work.
pub fn peek(
    txn: &Txn<'_>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Plain)>, Error> {
    let view = txn.view();
    let keyring = txn.keyring().ok_or(ringfence_barrier::BarrierError::Sealed)?;
    let mut rows = Vec::new();
    for (key, record) in peek_entries(txn, prefix, after).take(limit) {
        let plain = keyring.open(view, key, record).map_err(ringfence_barrier::BarrierError::from)?;
        rows.push((key.to_vec(), plain));
    }
    Ok(rows)
}

/// Keys under a prefix, as [`peek`].
pub fn peek_keys(txn: &Txn<'_>, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    peek_entries(txn, prefix, after).take(limit).map(|(k, _)| k.to_vec()).collect()
}

fn peek_entries<'v>(txn: &Txn<'v>, prefix: &[u8], after: Option<&[u8]>) -> ringfence_barrier::Entries<'v> {
    let end = ringfence_barrier::prefix_end(prefix);
    let from = match after {
        Some(key) if key >= prefix => Bound::Excluded(key),
        _ => Bound::Included(prefix),
    };
    txn.view().scan(from, end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
}
