//! Users that are locked out after wrong credentials: one record a user, that says until when. Wrong attempts are
//! counted by the owner core, in memory; only the lock itself is a record.

use crate::mount::{Routed, UserLockout};
use crate::sys::settings::LOCKABLE;
use crate::tables;
use ringfence_barrier::{HashKind, Keyring, Txn};
use ringfence_base::{MountId, Wall};
use ringfence_logical::{Class, Error};
use serde::{Deserialize, Serialize};

/// Kind of the keyed hash that stands for a user's name.
const USER_HASH: HashKind = HashKind(65);

/// A lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lock {
    /// Name at the mount.
    alias: String,
    /// Log time.
    until: Wall,
}

fn key(keyring: &Keyring, mount: MountId, alias: &str) -> Vec<u8> {
    tables::locked_user(mount, &keyring.index_hash(USER_HASH, alias.as_bytes()))
}

/// The rules of a mount: `None` if its users are never locked out.
pub fn rules(routed: &Routed, server: &UserLockout) -> Option<UserLockout> {
    let e = &routed.entry;
    if e.class != Class::Auth || !LOCKABLE.contains(&e.kind.as_str()) {
        return None;
    }
    let rules = e.config.user_lockout.as_ref().unwrap_or(server);
    (!rules.disable && rules.threshold > 0).then(|| rules.clone())
}

/// True if a user may not log in now. In the read set: a lock that commits first makes the login try again.
pub fn is_locked(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    mount: MountId,
    alias: &str,
    now: Wall,
) -> Result<bool, Error> {
    let Some(p) = txn.get(&key(keyring, mount, alias))? else { return Ok(false) };
    Ok(parse(&p.bytes)?.until > now)
}

/// Locks a user out until a time.
pub fn lock(txn: &mut Txn<'_>, keyring: &Keyring, mount: MountId, alias: &str, until: Wall) {
    let bytes = serde_json::to_vec(&Lock { alias: alias.to_owned(), until }).expect("a lock always serialises");
    txn.put(key(keyring, mount, alias), &[], &bytes);
}

/// Lets a user in again; one who was not locked out too.
pub fn unlock(txn: &mut Txn<'_>, keyring: &Keyring, mount: MountId, alias: &str) {
    let key = key(keyring, mount, alias);
    if txn.exists(&key) {
        txn.delete(&key);
    }
}

/// Names of a mount's users that are locked out now, sorted.
pub fn locked(txn: &mut Txn<'_>, mount: MountId, now: Wall) -> Result<Vec<String>, Error> {
    let rows = txn.scan(&[&[tables::LOCKED_USER][..], &mount.0.to_be_bytes()].concat(), None, usize::MAX)?;
    let mut names = Vec::new();
    for (_, p) in rows {
        let lock = parse(&p.bytes)?;
        if lock.until > now {
            names.push(lock.alias);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn parse(bytes: &[u8]) -> Result<Lock, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored lock of a user: {e}")))
}
