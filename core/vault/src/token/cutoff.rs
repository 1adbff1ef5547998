//! Cut-offs: how batch tokens, which nobody stores, are revoked. A cut-off names a namespace, an entity, or a role at
//! a mount, and covers every batch token made in an earlier era (see [`crate::lease::tombstone`]).
//!
//! One record each, overwritten by the next, never removed: a token that it covers may be about for as long as the
//! longest lease time. A restore is the cut-off of all: see [`tombstone::floor`].

use super::entry::TokenEntry;
use crate::identity;
use crate::lease::tombstone;
use crate::tables::{self, CUTOFF};
use ringfence_barrier::{BarrierError, Txn};
use ringfence_base::{MountId, NsId, Reader};
use ringfence_logical::Error;

/// Whose batch tokens are cut off.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// All of a namespace.
    All,
    /// Those of an entity.
    Entity(String),
    /// Those that a login at a mount gave to a role.
    Role(MountId, String),
}

impl Subject {
    fn key(&self, ns: NsId) -> Vec<u8> {
        match self {
            Subject::All => tables::cutoff(ns, b'a', &[]),
            Subject::Entity(id) => tables::cutoff(ns, b'e', id.as_bytes()),
            Subject::Role(mount, role) => {
                tables::cutoff(ns, b'r', &[&mount.0.to_be_bytes()[..], role.as_bytes()].concat())
            }
        }
    }
}

/// Kills every batch token of the subject that was made before this commit. An entity's are also those that name an
/// entity which was merged into it since.
pub fn cut_off(txn: &mut Txn<'_>, ns: NsId, subject: &Subject) -> Result<(), Error> {
    let era = tombstone::begin_era(txn)?;
    let mut all = vec![subject.clone()];
    if let Subject::Entity(id) = subject
        && let Some(e) = identity::find(txn, ns, id)?
    {
        all.extend(e.merged.into_iter().chain([e.id]).map(Subject::Entity));
    }
    for one in all {
        txn.put(one.key(ns), &[], &era.to_be_bytes());
    }
    Ok(())
}

/// True if a cut-off covers a batch token. The counter of eras is in the read set, and every cut-off changes it, so the
/// rows themselves need not be in it.
///
/// It is asked for every batch token that a core does not know yet: at most three searches of the ordered image,
/// however many cut-offs of others stand, and nothing is opened unless it is this token's.
pub fn covers(txn: &mut Txn<'_>, entry: &TokenEntry) -> Result<bool, Error> {
    tombstone::guard(txn);
    if entry.era < tombstone::floor(txn)? {
        return Ok(true);
    }
    let view = txn.view();
    if view.changed(CUTOFF, None).0 == 0 {
        return Ok(false);
    }
    let keyring = txn.keyring().ok_or(BarrierError::Sealed)?;
    let cuts = |key: &[u8]| -> Result<bool, Error> {
        let Some(record) = view.get(key) else { return Ok(false) };
        let plain = keyring.open(view, key, record).map_err(BarrierError::from)?;
        Ok(Reader::new(&plain.bytes).be64()? > entry.era)
    };
    let mut key = tables::cutoff(entry.ns, b'a', &[]);
    let subject = key.len();
    if cuts(&key)? {
        return Ok(true);
    }
    if !entry.entity_id.is_empty() {
        key[subject - 1] = b'e';
        key.extend_from_slice(entry.entity_id.as_bytes());
        if cuts(&key)? {
            return Ok(true);
        }
        key.truncate(subject);
    }
    if entry.role.is_empty() {
        return Ok(false);
    }
    key[subject - 1] = b'r';
    key.extend_from_slice(&entry.mount.0.to_be_bytes());
    key.extend_from_slice(entry.role.as_bytes());
    cuts(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search builds its keys in place; they are those that a cut-off is written under.
    #[test]
    fn keys_are_the_subjects_own() {
        let all = Subject::All.key(NsId(7));
        let as_kind = |kind: u8, rest: &[u8]| {
            let mut key = all.clone();
            *key.last_mut().expect("a key has a kind") = kind;
            key.extend_from_slice(rest);
            key
        };
        assert_eq!(Subject::Entity("abc".into()).key(NsId(7)), as_kind(b'e', b"abc"));
        assert_eq!(Subject::Role(MountId(258), "r".into()).key(NsId(7)), as_kind(b'r', b"\0\0\x01\x02r"));
    }
}
