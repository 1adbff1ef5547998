//! Runs over the tip: a call that lost its race twice is run by the owner over the image and the batches in flight.
//! Nothing is proposed between its reads and its own proposal, so it cannot lose again: every call is answered after
//! at most two lost runs, however many write the same key.
//!
//! ```text
//! shard ──TipCall──> owner: pipeline over Tip ──writes──> propose ──committed──> TipDone ──> shard
//!                                └──reads only──> tip's index committed ────────────^
//! ```
//!
//! Whatever such a run yields, a refusal too, rests on writes that are not yet committed, and is told only when they
//! are; if leadership goes first, the outcome is unknown. A side operation is the shard's to start, and a run whose
//! request the audit devices have not seen is given back to it: no line, no effect.
//!
//! Part of the owner's machine; it never runs what goes on from a side operation.

use crate::owner::{Owner, OwnerOut, ShardId, Waiter};
use crate::shard::{NotDone, Settled, Ticket};
use ringfence_barrier::{BarrierError, Finished, Tip, Txn};
use ringfence_base::{Entropy, Index, Term};
use ringfence_logical::{Resume, SideOp};
use ringfence_vault::audit::{Device, Line};
use ringfence_vault::call::{Call, Reply};
use ringfence_vault::host::ClusterFacts;
use ringfence_vault::pipeline::{self, Next, Pass, Stage};
use std::rc::Rc;

/// A call that lost too often on its shard.
#[derive(Debug)]
pub struct TipCall {
    /// Names it at the shard.
    pub ticket: Ticket,
    /// The call itself.
    pub call: Call,
    /// The use of its token was committed.
    pub use_counted: bool,
    /// The audit devices have its request line.
    pub request_audited: bool,
}

/// What a run over the tip came to.
pub enum TipDone {
    /// The audit devices have not seen the request: run it on its shard again.
    Again,
    /// Do this outside, then go on with its result.
    Side {
        /// What is to be done.
        op: Box<SideOp>,
        /// What goes on.
        resume: Resume,
        /// An intent of it was committed.
        intent: bool,
    },
    /// A use of its token was counted.
    UseCounted,
    /// The answer, after these lines were taken.
    Answer {
        /// To the client.
        reply: Reply,
        /// To the audit devices.
        lines: Vec<TipLine>,
    },
}

impl std::fmt::Debug for TipDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TipDone::Again => "Again",
            TipDone::Side { .. } => "Side",
            TipDone::UseCounted => "UseCounted",
            TipDone::Answer { .. } => "Answer",
        })
    }
}

/// A line for an audit device, on its way to another core.
#[derive(Debug)]
pub struct TipLine {
    device: Device,
    bytes: Vec<u8>,
}

impl TipLine {
    fn of(line: Line) -> TipLine {
        TipLine { device: Device::clone(&line.device), bytes: line.bytes }
    }

    pub(crate) fn into_line(self) -> Line {
        Line { device: Rc::new(self.device), bytes: self.bytes }
    }
}

/// An answer that rests on writes in flight.
pub(crate) struct TipReader {
    pub(crate) term: Term,
    pub(crate) shard: ShardId,
    pub(crate) ticket: Ticket,
    pub(crate) done: Box<TipDone>,
}

/// What a run leaves, when its transaction is closed.
enum Yield {
    /// Nothing was written; it read up to this index.
    Read(Index, TipDone),
    Write(Finished, TipDone),
    /// It cannot be written.
    Unwritable(Settled),
    /// Broken, with the cause for the log.
    Fault(String),
}

impl Owner {
    /// Runs a call over the tip and proposes what it writes.
    pub(crate) fn tip(&mut self, shard: ShardId, call: TipCall, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let TipCall { ticket, call, use_counted, request_audited } = call;
        let call = Rc::new(call);
        let stage = Stage { use_counted, request_audited, again: true, on_standby: false, resume: None };
        match self.run_at_tip(&call, &stage, rng, out) {
            None => out.push(OwnerOut::Settled(shard, ticket, Settled::NotDone(NotDone::NotActive))),
            Some(Yield::Unwritable(settled)) => out.push(OwnerOut::Settled(shard, ticket, settled)),
            Some(Yield::Fault(cause)) => {
                out.push(OwnerOut::Log(crate::owner::Level::Error, format!("request {}: {cause}", call.id)));
                let reply = crate::shard::internal();
                self.answer_at(
                    self.version.index(),
                    shard,
                    ticket,
                    TipDone::Answer { reply, lines: Vec::new() },
                    out,
                );
            }
            Some(Yield::Read(index, done)) => self.answer_at(index, shard, ticket, done, out),
            Some(Yield::Write(Finished { batch: Some(batch), reads, read_index }, done)) => {
                let waiter = Waiter::Tip(shard, ticket, Box::new(done));
                if let Err(settled) = self.propose(batch, &reads, read_index, waiter) {
                    out.push(OwnerOut::Settled(shard, ticket, settled));
                }
            }
            Some(Yield::Write(Finished { batch: None, read_index, .. }, done)) => {
                self.answer_at(read_index, shard, ticket, done, out);
            }
        }
    }

    /// `None`: this node may not evaluate.
    fn run_at_tip(
        &mut self,
        call: &Rc<Call>,
        stage: &Stage<'_>,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Yield> {
        let (keys, sealer, core) = (self.keys.clone()?, self.seal.sealer.clone()?, self.seal.core.clone()?);
        if !self.is_active() {
            return None;
        }
        let now = self.log_now();
        let cluster =
            Rc::new(ClusterFacts { name: self.facts.cluster_name.clone(), id: self.facts.cluster_id.clone() });
        let version = self.version.clone();
        let mut overlay = std::mem::take(&mut self.overlay);
        overlay.prune(version.index());
        for (index, batch) in self.in_flight_after(overlay.index()) {
            overlay.lay(index, batch);
        }
        let tip = Tip::new(&version, &overlay);
        let mut txn = Txn::new(&tip, Some(&keys.keyring));
        let mut pass = Pass {
            core: &core,
            keyring: &keys.keyring,
            sealer: &sealer,
            cluster: &cluster,
            now,
            wall: self.now.wall,
            rng,
        };
        core.caches.borrow_mut().begin_epoch(keys.licences.generation);
        let ran = pipeline::run(&mut pass, &mut txn, call, stage);
        let read_only = txn.is_read_only();
        let index = txn.read_index();
        let finish = |txn: Txn<'_>, done: TipDone| match txn.finish(&mut sealer.borrow_mut(), now) {
            Ok(finished) => Yield::Write(finished, done),
            Err(BarrierError::TooLarge) => Yield::Unwritable(Settled::NotDone(NotDone::TooLarge)),
            Err(e) => Yield::Fault(format!("barrier: {e}")),
        };
        let ended = match ran.next {
            // a device was enabled since the call was last run
            Next::Side { .. } if !ran.audit.request.is_empty() => Yield::Read(index, TipDone::Again),
            Next::Side { op, resume, intent } => {
                let done = TipDone::Side { op: Box::new(op), resume, intent };
                if intent { finish(txn, done) } else { Yield::Read(index, done) }
            }
            // a standby's only
            Next::Elsewhere => Yield::Unwritable(Settled::NotDone(NotDone::NotActive)),
            Next::CountUse => finish(txn, TipDone::UseCounted),
            Next::Answer(reply) if read_only => {
                let lines = ran.audit.request.into_iter().chain(ran.audit.response).map(TipLine::of).collect();
                Yield::Read(index, TipDone::Answer { reply, lines })
            }
            Next::Answer(_) if !ran.audit.request.is_empty() => Yield::Read(index, TipDone::Again),
            Next::Answer(reply) => {
                let lines = ran.audit.response.into_iter().map(TipLine::of).collect();
                finish(txn, TipDone::Answer { reply, lines })
            }
        };
        self.overlay = overlay;
        self.encryptions += sealer.borrow_mut().take_count();
        if let Some(cause) = ran.cause {
            out.push(OwnerOut::Log(crate::owner::Level::Error, format!("request {}: {cause}", call.id)));
        }
        if let Some(note) = ran.login
            && !matches!(ended, Yield::Read(_, TipDone::Again))
        {
            self.login(note, rng, out);
        }
        Some(ended)
    }

    /// Answers when everything up to `index` is committed.
    fn answer_at(&mut self, index: Index, shard: ShardId, ticket: Ticket, done: TipDone, out: &mut Vec<OwnerOut>) {
        let done = Box::new(done);
        if index <= self.version.index() && self.now.mono >= self.lease_until() && !matches!(*done, TipDone::Again) {
            // another node may have taken over and written since
            out.push(OwnerOut::Settled(shard, ticket, Settled::NotDone(NotDone::NotActive)));
            return;
        }
        if index <= self.version.index() || matches!(*done, TipDone::Again) {
            out.push(OwnerOut::TipDone(shard, ticket, done));
            return;
        }
        let reader = TipReader { term: self.term(), shard, ticket, done };
        self.tip_readers.entry(index).or_default().push(reader);
    }

    /// What rests on entries up to `index` is told after publication.
    pub(crate) fn tip_reached(&mut self, index: Index, term: Term, out: &mut Vec<OwnerOut>) {
        while let Some(first) = self.tip_readers.first_entry().filter(|e| *e.key() <= index) {
            for r in first.remove() {
                out.push(match r.term == term {
                    true => OwnerOut::TipDone(r.shard, r.ticket, r.done),
                    // another entry stands where the one it read was
                    false => OwnerOut::Settled(r.shard, r.ticket, Settled::Unknown),
                });
            }
        }
    }

    /// Leadership went: nobody knows whether what they read stays. They wrote nothing and may run elsewhere.
    pub(crate) fn tip_lost(&mut self, out: &mut Vec<OwnerOut>) {
        for r in std::mem::take(&mut self.tip_readers).into_values().flatten() {
            out.push(OwnerOut::Settled(r.shard, r.ticket, Settled::NotDone(NotDone::NotActive)));
        }
    }
}
