//! Broken machines, on purpose: each is what one careless line would make of the node. A property that does not catch its
//! mutant proves nothing (`tests/mutants.rs`).
//!
//! They are made where the simulated world drives the machines, not inside of them: nothing that is shipped holds a
//! switch that breaks it.

use ringfence_barrier::{Issuer, issuer_key, next_issuer};
use ringfence_base::{Entropy, Mono, Now};
use ringfence_node::cell::{Keys, Licences};
use ringfence_node::shard::NotDone;
use ringfence_node::{Call, Cell, Headers, PeerMessage, Settled};
use ringfence_store::{Batch, Op};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The disk says that a write is durable before it is.
    SkippedFsync,
    /// The active node answers reads without asking whether it may still be active.
    StaleRead,
    /// A standby answers reads without asking how old its image is.
    AgelessStandby,
    /// A node does not look at the position that a call shows.
    UnheardPosition,
    /// The owner appends without looking at what the transaction had read.
    LostGuard,
    /// A waiter whose write was in the hands of a leader that has lost its term is told that it was committed: nobody
    /// compared the term.
    UncheckedTerm,
    /// A core's counter begins again under the same issuer.
    ReusedNonce,
    /// Who takes the lead goes by its own wall clock.
    OwnClock,
}

/// All of them.
pub const ALL: [Mutant; 8] = [
    Mutant::SkippedFsync,
    Mutant::StaleRead,
    Mutant::AgelessStandby,
    Mutant::UnheardPosition,
    Mutant::LostGuard,
    Mutant::UncheckedTerm,
    Mutant::ReusedNonce,
    Mutant::OwnClock,
];

/// Draws the same bytes again: the salt that an issuer has already.
struct Again([u8; 16]);

impl Entropy for Again {
    fn fill(&mut self, buf: &mut [u8]) {
        for (to, from) in buf.iter_mut().zip(self.0.iter().cycle()) {
            *to = *from;
        }
    }
}

/// What the mutant publishes instead of a cell.
pub(crate) fn published(mutant: Option<Mutant>, cell: Arc<Cell>) -> Arc<Cell> {
    let copy = |keys: Option<Keys>, lease_until: Mono| {
        let (sequence, version, clock) = (cell.sequence, cell.version.clone(), cell.clock);
        let (facts, bin) = (cell.facts.clone(), cell.bin.clone());
        Arc::new(Cell { sequence, version, keys, clock, facts, lease_until, bin })
    };
    match (mutant, &cell.keys) {
        (Some(Mutant::StaleRead), keys) if cell.facts.active => copy(keys.clone(), Mono(u64::MAX)),
        (Some(Mutant::AgelessStandby), keys) if cell.facts.performance_standby => {
            copy(keys.clone(), Mono(u64::MAX - 1))
        }
        (Some(Mutant::ReusedNonce), Some(keys)) if cell.facts.active => {
            let number = next_issuer(&cell.version) - 1;
            let record = cell.version.get(&issuer_key(number));
            let Some(salt) = record.and_then(|r| r.get(1..17)?.first_chunk().copied()) else { return cell };
            let issuer = Issuer::draw(number, &mut Again(salt));
            let generation = keys.licences.generation + (cell.sequence << 20);
            let licences = Arc::new(Licences::new(issuer, &keys.keyring, 1, generation));
            copy(Some(Keys { keyring: keys.keyring.clone(), licences }), cell.lease_until)
        }
        _ => cell,
    }
}

/// What the mutant hears from a peer.
pub(crate) fn told(mutant: Option<Mutant>, mut message: PeerMessage, now: Now) -> PeerMessage {
    if mutant == Some(Mutant::OwnClock) {
        match &mut message {
            PeerMessage::Echo(echo) => (echo.wall, echo.log_time) = (now.wall, Some(now.wall)),
            PeerMessage::Told(_, told) => told.log_time = now.wall,
            _ => {}
        }
    }
    message
}

/// What the mutant hears of a call.
pub(crate) fn heard(mutant: Option<Mutant>, call: &mut Call) {
    if mutant == Some(Mutant::UnheardPosition) {
        let mut headers = Headers::default();
        call.headers.iter().filter(|(name, _)| *name != "x-vault-index").for_each(|(n, v)| headers.push(n, v));
        call.headers = headers;
    }
}

/// What the mutant tells a waiter.
pub(crate) fn settled(mutant: Option<Mutant>, settled: Settled, index: ringfence_base::Index) -> Settled {
    match (mutant, settled) {
        (Some(Mutant::UncheckedTerm), Settled::Unknown | Settled::NotDone(NotDone::NotActive)) => {
            Settled::Committed(index)
        }
        (_, other) => other,
    }
}

/// Every nonce that was used, and what for: the twelve bytes and the term of a sealed record.
#[derive(Default)]
pub(crate) struct Nonces(BTreeMap<[u8; 16], u64>);

impl Nonces {
    /// Takes note of what a core wants to write. Answers a nonce that was used before, for something else.
    pub(crate) fn note(&mut self, batch: &Batch, known: impl Fn(u32) -> bool) -> Option<[u8; 16]> {
        for op in &batch.ops {
            let Op::Put { key, value } = op else { continue };
            // clear records have other beginnings; one that looks like a stamp of an issuer that is registered is one
            let Some(stamp) = value.get(1..17).and_then(|s| s.first_chunk::<16>().copied()) else { continue };
            let word = |at: usize| u32::from_be_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]]);
            if value[0] != 1 || value.len() < 35 || word(0) == 0 || word(0) > 1000 || !known(word(4)) {
                continue;
            }
            let hash = crate::cluster::fold(crate::cluster::fold(0, key), value);
            if self.0.insert(stamp, hash).is_some_and(|other| other != hash) {
                return Some(stamp);
            }
        }
        None
    }
}
