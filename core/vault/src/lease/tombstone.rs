//! Tombstones: a mass revocation is one committed record. It counts from its commit on, whatever is left to be worked
//! off; the owner's worker ([`super::work`]) does the rest and removes it.
//!
//! Which records it covers is told by *eras*. One record counts the mass revocations that were ever committed: each
//! reads and raises it, so their numbers are in the order of their commits. A token or lease keeps the era that it
//! saw, and has the counter in its read set: it commits before a tombstone and is covered by it, or it is tried again
//! and saw it. A batch token, which nobody commits, is covered if it was made from a view without the cut-off. No
//! clock is involved.
//!
//! ```text
//! 0x13 '#'                      the counter                       be64
//! 0x13 'l' [mount][path…]       leases below a path               Tombstone
//! 0x13 't' [mount][path…]       tokens made below a path          Tombstone
//! 0x13 'm' [mount]              a mount that was disabled         Tombstone
//! 0x13 'n' [ns]                 a namespace that was deleted      Tombstone
//! 0x13 'o' [hash of token]      its children became orphans       Tombstone
//! 0x13 'c' [mount][hash]        the rest of a large cubbyhole     Tombstone
//! 0x13 'i' [mount][path of lease]  an irrevocable lease           text: why
//! ```
//!
//! A restored snapshot brings an older counter back, and with it numbers of namespaces and mounts that are given again.
//! So that what was made after the snapshot is never taken for something newer, a restore raises the *floor* of eras
//! (`0x18`): the counter goes on from there, and every batch token made before the restore is dead. Whatever else was
//! made after the snapshot is gone with the records that the restore threw away; a batch token has none.
//!
//! A token that is revoked needs no tombstone for what hangs on it: children and leases name their owner in their
//! clear header, and an owner that is not there is dead.

use crate::tables::{self, ERA_FLOOR, Hash, TOMBSTONE};
use ringfence_barrier::{BarrierError, Txn};
use ringfence_base::{MountId, NsId, Reader, Wall};
use ringfence_logical::Error;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// Eras between two restores within one second of log time. More mass revocations than that are never committed.
const ERAS_A_RESTORE: u64 = 1 << 24;
/// Counter of mass revocations.
const ERA: u8 = b'#';
/// Leases below a path.
pub const LEASES: u8 = b'l';
/// Tokens made below a path.
pub const TOKENS: u8 = b't';
/// A disabled mount.
pub const MOUNT: u8 = b'm';
/// A deleted namespace.
pub const NAMESPACE: u8 = b'n';
/// The children of a token became orphans.
pub const ORPHANED: u8 = b'o';
/// The rest of a large cubbyhole.
pub const CUBBYHOLE: u8 = b'c';
/// A lease that could not be revoked.
pub const IRREVOCABLE: u8 = b'i';

/// A mass revocation under way.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Tombstone {
    /// Records of an earlier era are covered.
    pub era: u64,
    /// An engine that cannot revoke is not waited for.
    pub force: bool,
    /// Log time, for those who watch the queue.
    pub since: Wall,
}

/// The number of mass revocations committed so far. In the read set afterwards: a write that depends on it loses
/// against a mass revocation that commits first.
pub fn era(txn: &mut Txn<'_>) -> Result<u64, Error> {
    let counted = match txn.get(&tables::tombstone(ERA, &[]))? {
        None => 0,
        Some(p) => Reader::new(&p.bytes).be64()?,
    };
    Ok(counted.max(floor(txn)?))
}

/// What was made in an era below this was made before the last restore; 0 if there was none. It changes only when the
/// whole image is replaced, so it needs no place in the read set.
pub fn floor(txn: &Txn<'_>) -> Result<u64, Error> {
    match txn.view().get(&[ERA_FLOOR]) {
        None => Ok(0),
        Some(bytes) => Ok(Reader::new(bytes).be64()?),
    }
}

/// The floor that a restore writes, from the floors (as they are stored) of the image that goes and of the one that
/// comes, and the log time: above every era of either. By the time it is above those of a third too, a cluster that
/// restored the same snapshot earlier. `None` if a stored floor is none that this wrote.
pub fn floor_of_restore(gone: Option<&[u8]>, restored: Option<&[u8]>, now: Wall) -> Option<u64> {
    let stored = |bytes: Option<&[u8]>| match bytes {
        None => Some(0),
        Some(b) => b.try_into().ok().map(u64::from_be_bytes),
    };
    let above = stored(gone)?.max(stored(restored)?).checked_add(ERAS_A_RESTORE)?;
    let floor = now.seconds().checked_mul(ERAS_A_RESTORE)?.max(above);
    // far below the end of the numbers, so that counting on never gets there
    (floor < u64::MAX / 2).then_some(floor)
}

/// Puts the counter into the read set: what [`era`] does for who does not need the number.
pub fn guard(txn: &mut Txn<'_>) {
    txn.guard(&tables::tombstone(ERA, &[]));
}

/// Begins an era: records that exist now, and those made from a view before this commit, are of an earlier one.
pub fn begin_era(txn: &mut Txn<'_>) -> Result<u64, Error> {
    let next = era(txn)? + 1;
    txn.put(tables::tombstone(ERA, &[]), &[], &next.to_be_bytes());
    Ok(next)
}

/// Revokes every lease below a path of a mount (empty = all of them).
pub fn leases(txn: &mut Txn<'_>, now: Wall, mount: MountId, path: &str, force: bool) -> Result<(), Error> {
    bury(txn, now, LEASES, &scoped(mount, path.as_bytes()), force)
}

/// Revokes every token that a mount issued below a path within the namespace (`auth/userpass/login/`).
pub fn tokens(txn: &mut Txn<'_>, now: Wall, mount: MountId, path: &str) -> Result<(), Error> {
    bury(txn, now, TOKENS, &scoped(mount, path.as_bytes()), false)
}

/// Takes down a mount that was marked as tainted: leases, tokens, data, then its record.
pub fn mount_removed(txn: &mut Txn<'_>, now: Wall, mount: MountId) -> Result<(), Error> {
    bury(txn, now, MOUNT, &mount.0.to_be_bytes(), false)
}

/// As [`mount_removed`], without waiting for an engine that cannot revoke.
pub fn mount_forced(txn: &mut Txn<'_>, now: Wall, mount: MountId) -> Result<(), Error> {
    bury(txn, now, MOUNT, &mount.0.to_be_bytes(), true)
}

/// True if a disabled mount's tombstone does not wait for its engine.
pub fn is_forced(txn: &mut Txn<'_>, mount: MountId) -> Result<bool, Error> {
    let standing = txn.get(&tables::tombstone(MOUNT, &mount.0.to_be_bytes()))?;
    Ok(standing.and_then(|p| serde_json::from_slice::<Tombstone>(&p.bytes).ok()).is_some_and(|t| t.force))
}

/// Takes down a namespace: its mounts, tokens, policies and all else, then its record.
pub fn namespace_removed(txn: &mut Txn<'_>, now: Wall, ns: NsId, force: bool) -> Result<(), Error> {
    bury(txn, now, NAMESPACE, &ns.0.to_be_bytes(), force)
}

/// Lets the children of a token that is being revoked live on.
pub fn orphaned(txn: &mut Txn<'_>, now: Wall, token: &Hash) {
    put(txn, ORPHANED, token, &Tombstone { since: now, ..Tombstone::default() });
}

/// True while the children of a revoked token are being made orphans.
pub fn is_orphaned(txn: &mut Txn<'_>, token: &Hash) -> bool {
    txn.exists(&tables::tombstone(ORPHANED, token))
}

/// Leaves the rest of a cubbyhole to the worker.
pub fn cubbyhole_rest(txn: &mut Txn<'_>, now: Wall, mount: MountId, token: &Hash) {
    put(txn, CUBBYHOLE, &scoped(mount, token), &Tombstone { since: now, ..Tombstone::default() });
}

/// Notes or forgets that a lease could not be revoked.
pub fn irrevocable(txn: &mut Txn<'_>, mount: MountId, path: &str, why: Option<&str>) {
    let key = tables::tombstone(IRREVOCABLE, &scoped(mount, path.as_bytes()));
    match why {
        Some(text) => txn.put(key, &[], text.as_bytes()),
        None => txn.delete(&key),
    }
}

/// True if a tombstone over leases or tokens of a mount covers a record of this era at this path. The read set holds
/// the counter, which every tombstone changes, so the rows themselves need not be in it.
///
/// It is asked for every use of a token, while any number of tombstones may be worked off: folders that contain the
/// path are found from the longest down, one step of the ordered image each, and no other row is looked at.
pub fn covers(txn: &mut Txn<'_>, kind: u8, mount: MountId, path: &str, era: u64) -> Result<bool, Error> {
    guard(txn);
    let view = txn.view();
    if view.changed(TOMBSTONE, None).0 == 0 {
        return Ok(false);
    }
    let keyring = txn.keyring().ok_or(BarrierError::Sealed)?;
    let buries = |key: &[u8], record: &[u8]| -> Result<bool, Error> {
        let plain = keyring.open(view, key, record).map_err(BarrierError::from)?;
        Ok(parse(&plain.bytes)?.era > era)
    };
    let prefix = tables::tombstone(kind, &mount.0.to_be_bytes());
    let mut upto = [&prefix[..], path.as_bytes(), b"/"].concat();
    loop {
        let below = (Bound::Included(&prefix[..]), Bound::Included(&upto[..]));
        let Some((key, record)) = view.scan(below.0, below.1).next_back() else { return Ok(false) };
        let shared = key.iter().zip(&upto).take_while(|(x, y)| x == y).count();
        if shared == key.len() {
            if buries(key, record)? {
                return Ok(true);
            }
            if shared == prefix.len() {
                return Ok(false);
            }
            upto.truncate(shared - 1);
        } else {
            // a folder of the path that is longer than what they share would stand between the two
            upto.truncate(shared);
        }
    }
}

/// True if a path stands below a folder, or is the folder's name itself: a token's path has no random part of its own.
pub fn is_below(path: &str, folder: &[u8]) -> bool {
    path.as_bytes().starts_with(folder) || folder.strip_suffix(b"/") == Some(path.as_bytes())
}

/// Where the path begins in the key of a tombstone over a part of a mount.
pub const SUBJECT: usize = 6;

/// The tombstones under a key prefix, as they stand in the view.
pub fn rows(txn: &Txn<'_>, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Tombstone)>, Error> {
    let view = txn.view();
    if view.changed(TOMBSTONE, None).0 == 0 {
        return Ok(Vec::new());
    }
    super::peek(txn, prefix, None, usize::MAX)?
        .into_iter()
        .map(|(key, plain)| Ok((key, parse(&plain.bytes)?)))
        .collect()
}

fn parse(bytes: &[u8]) -> Result<Tombstone, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored tombstone: {e}")))
}

fn bury(txn: &mut Txn<'_>, now: Wall, kind: u8, subject: &[u8], force: bool) -> Result<(), Error> {
    let era = begin_era(txn)?;
    // one that stands already is only made stronger
    let force = force || {
        let standing = txn.get(&tables::tombstone(kind, subject))?;
        standing.and_then(|p| serde_json::from_slice::<Tombstone>(&p.bytes).ok()).is_some_and(|t| t.force)
    };
    put(txn, kind, subject, &Tombstone { era, force, since: now });
    Ok(())
}

fn put(txn: &mut Txn<'_>, kind: u8, subject: &[u8], stone: &Tombstone) {
    let bytes = serde_json::to_vec(stone).expect("a tombstone always serialises");
    txn.put(tables::tombstone(kind, subject), &[], &bytes);
}

fn scoped(mount: MountId, rest: &[u8]) -> Vec<u8> {
    [&mount.0.to_be_bytes()[..], rest].concat()
}
