//! Cut-offs: how batch tokens, which nobody stores, are revoked. A cut-off names a namespace, an entity, or a role at
//! a mount, and covers every batch token made in an earlier era (see [`crate::lease::tombstone`]).
//!
//! One record each, overwritten by the next, never removed: a token that it covers may be about for as long as the
//! longest lease time. A restore is the cut-off of all: see [`tombstone::floor`].

use super::entry::TokenEntry;
use crate::identity;
use crate::lease::tombstone;
use crate::tables::{self, CUTOFF};
use ringfence_barrier::Txn;
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

/// True if a cut-off covers a batch token. The counter of eras is in the read set, and every cut-off changes it.
pub fn covers(txn: &mut Txn<'_>, entry: &TokenEntry) -> Result<bool, Error> {
    tombstone::guard(txn);
    if entry.era < tombstone::floor(txn)? {
        return Ok(true);
    }
    if txn.view().changed(CUTOFF, None).0 == 0 {
        return Ok(false);
    }
    let mut subjects = vec![Subject::All];
    if !entry.entity_id.is_empty() {
        subjects.push(Subject::Entity(entry.entity_id.clone()));
    }
    if !entry.role.is_empty() {
        subjects.push(Subject::Role(entry.mount, entry.role.clone()));
    }
    for subject in subjects {
        if let Some(p) = txn.get(&subject.key(entry.ns))?
            && Reader::new(&p.bytes).be64()? > entry.era
        {
            return Ok(true);
        }
    }
    Ok(false)
}
