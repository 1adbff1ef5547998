//! Callers that this core has verified: token, identity and compiled policies, so that the next request of the same
//! caller need not be proved from the image again.
//!
//! An entry remembers which tables its proof read and when the last of them changed; it is good while they stand
//! still, the log's time has not reached the first end of anything it rests on, and the token is the same to the last
//! byte. So a revocation, a changed policy, a moved mount or a cut-off is seen by the first request over a view that
//! holds it, on every core, without a message. A writing transaction takes over what the proof relied on, and loses
//! against whoever changed it meanwhile.
//!
//! Asked and filled by the pipeline. Never holds a caller whose use is counted or who is bound to addresses: those
//! are judged by more than their token.

use crate::identity;
use crate::mount::Router;
use crate::token::check::Holder;
use ringfence_barrier::{ReadSet, Txn, key_hash};
use ringfence_base::{Index, Wall};
use ringfence_logical::Principal;
use ringfence_policy::Acl;
use std::hint::black_box;
use std::rc::Rc;

/// Callers remembered at most, per core; a power of two. One who falls on another's place takes it.
const PLACES: usize = 4096;
/// Bytes of a token that choose its place: the last ones, which are random in every kind of token.
const TAIL_BYTES: usize = 32;

/// A verified caller.
#[derive(Clone)]
pub struct Known {
    /// The token.
    pub holder: Rc<Holder>,
    /// What engines are told of it.
    pub principal: Rc<Principal>,
    /// What it may do.
    pub acl: Rc<Acl>,
}

/// A caller and how long it stays known.
struct Entry {
    known: Known,
    reads: ReadSet,
    /// Tables of `reads`.
    tables: Vec<u8>,
    /// Index of the last change of anything the proof rests on.
    at: Index,
    /// First end of token, ancestors and policy rules.
    until: Option<Wall>,
}

/// The callers of one core.
#[derive(Default)]
pub struct KnownCallers {
    /// Empty, or of [`PLACES`] places.
    places: Vec<Option<Box<Entry>>>,
}

impl KnownCallers {
    /// A caller that was verified before and still is. What its proof relied on is in the read set afterwards.
    pub fn find(&self, txn: &mut Txn<'_>, token: &str, now: Wall) -> Option<Known> {
        let entry = self.places.get(place_of(token))?.as_deref()?;
        let stands = same_secret(entry.known.holder.raw.expose(), token)
            && entry.until.is_none_or(|until| now < until)
            && entry.at == stamp(txn, &entry.tables);
        stands.then(|| {
            txn.rely_on(&entry.reads);
            entry.known.clone()
        })
    }

    /// Remembers a caller that was just verified from this view, with what that relied on.
    pub fn remember(&mut self, txn: &Txn<'_>, known: &Known, reads: ReadSet) {
        let entry = &known.holder.entry;
        if entry.num_uses != 0 || !entry.bound_cidrs.is_empty() || !txn.is_read_only() {
            return;
        }
        let until = [known.holder.until, known.acl.valid_until()].into_iter().flatten().min();
        let tables: Vec<u8> = reads.tables().iter().collect();
        let at = stamp(txn, &tables);
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let place = place_of(known.holder.raw.expose());
        self.places[place] = Some(Box::new(Entry { known: known.clone(), reads, tables, at, until }));
    }
}

/// When anything changed that a proof rests on: the tables it read, and those that derived state was built from.
fn stamp(txn: &Txn<'_>, tables: &[u8]) -> Index {
    let derived = Router::stamp(txn).max(identity::stamp(txn));
    tables.iter().map(|t| txn.changed(*t, None)).fold(derived, Index::max)
}

fn place_of(token: &str) -> usize {
    let bytes = token.as_bytes();
    key_hash(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]) as usize % PLACES
}

/// True if two secrets are equal; takes a time that depends on their lengths alone.
pub(crate) fn same_secret(a: &str, b: &str) -> bool {
    same(a.as_bytes(), b.as_bytes())
}

fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let eights = a.iter().zip(b).fold(0, |all, (x, y)| all | (u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y)));
    let ones = a_rest.iter().zip(b_rest).fold(0, |all, (x, y)| all | (x ^ y));
    black_box(eights) == 0 && black_box(ones) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ghsa_34fc_comparison_is_equality(a: Vec<u8>, at: usize, bit in 0u8..8) {
            prop_assert!(same(&a, &a.clone()));
            if !a.is_empty() {
                let mut b = a.clone();
                let at = at % a.len();
                b[at] ^= 1 << bit;
                prop_assert!(!same(&a, &b));
                prop_assert!(!same(&a, &a[1..]));
            }
        }
    }
}
