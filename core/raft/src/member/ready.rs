//! The part of [`Member`] that takes raft's readies apart.

use super::effects::{Committed, Effects, Envelope, HaltReason, Payload, Position, ReadReady, SnapshotOffer};
use super::{Batch, Member};
use crate::conf::{self, ConfState};
use crate::log::record::{Frame, FrameKind};
use crate::log::recover::Checkpoint;
use crate::wire::{self, WireError};
use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{ProgressTracker, Ready, StateRole};
use ringfence_base::{Index, Term};

/// The frame of an entry.
pub(super) fn frame_of(e: &Entry) -> Frame {
    let kind = match e.get_entry_type() {
        EntryType::EntryNormal => FrameKind::Entry,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => FrameKind::Conf,
    };
    Frame { kind, term: e.term, index: e.index, body: e.data.clone() }
}

/// The entry of a frame.
pub(super) fn entry_of(f: &Frame) -> Entry {
    let mut e = Entry { term: f.term, index: f.index, data: f.body.clone(), ..Default::default() };
    if f.kind == FrameKind::Conf {
        e.set_entry_type(EntryType::EntryConfChangeV2);
    }
    e
}

/// Would this change be accepted on top of the configuration in force?
pub(super) fn fits(prs: &ProgressTracker, change: &ConfChangeV2) -> bool {
    let mut changer = raft::Changer::new(prs);
    match change.enter_joint() {
        Some(auto_leave) => changer.enter_joint(auto_leave, change.get_changes()).is_ok(),
        None => changer.simple(change.get_changes()).is_ok(),
    }
}

impl Member {
    /// Runs raft until it has nothing more to say.
    pub(super) fn drive(&mut self, out: &mut Effects) {
        self.advance_applied();
        self.campaign_if_alone();
        while self.halted.is_none() && self.raw.has_ready() {
            let ready = self.raw.ready();
            self.take(ready, out);
        }
    }

    /// Tells raft what the node applied, as far as raft's own bookkeeping allows.
    pub(super) fn advance_applied(&mut self) {
        let log = &self.raw.raft.raft_log;
        let applied = self.applied.min(log.committed).min(log.persisted);
        if applied > log.applied {
            self.raw.advance_apply_to(applied);
        }
    }

    /// A lone voter has nobody to wait for.
    fn campaign_if_alone(&mut self) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader
            && raft.promotable()
            && raft.prs().is_singleton()
            && self.may_campaign()
            && self.conf().is_lone_voter(self.cfg.raft_id)
        {
            // raft itself declines while a membership entry is not applied
            let _ = self.raw.campaign();
        }
    }

    fn take(&mut self, mut ready: Ready, out: &mut Effects) {
        self.ready = ready.number();
        let mut batch = Batch { ready: ready.number(), ..Default::default() };

        out.reads.extend(ready.take_read_states().iter().filter_map(|r| {
            let ctx = r.request_ctx.get(8..)?.try_into().ok()?;
            Some(ReadReady { ctx: u64::from_be_bytes(ctx), index: Index(r.index) })
        }));
        if let Some(hs) = ready.hs()
            && (hs.term, hs.vote) != self.vote
        {
            self.vote = (hs.term, hs.vote);
            batch.vote = Some(self.vote);
            self.terms_in_flight.push_back((batch.ready, hs.term));
        }
        if !ready.snapshot().is_empty() {
            self.take_snapshot(&ready, &mut batch, out);
        }
        if !ready.entries().is_empty() {
            batch.frames.extend(ready.entries().iter().map(frame_of));
            // copied, not taken: raft compares them when the ready is given back
            self.raw.mut_store().append(ready.entries());
        }

        let mut messages = ready.take_messages();
        // A leader's messages may leave at once, except that nobody may hear of a term that a crash could undo: a lone
        // voter becomes leader before its own vote is durable.
        if self.term_durable < self.raw.raft.term && !messages.is_empty() {
            self.held.push_back((batch.ready, std::mem::take(&mut messages)));
        }
        self.mail(messages);
        let after = ready.take_persisted_messages();
        if !after.is_empty() {
            self.held.push_back((batch.ready, after));
        }

        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        self.deliver(committed, out);

        let nothing = batch.vote.is_none() && batch.frames.is_empty();
        if nothing && self.plan.is_idle() {
            self.durable(batch.ready);
        } else {
            self.plan.push(batch);
        }
    }

    fn take_snapshot(&mut self, ready: &Ready, batch: &mut Batch, out: &mut Effects) {
        let snapshot = ready.snapshot();
        let metadata = snapshot.get_metadata();
        let checkpoint = Checkpoint {
            index: Index(metadata.index),
            term: Term(metadata.term),
            conf: ConfState::from_raft(metadata.get_conf_state()),
        };
        batch.frames.push_back(Frame {
            kind: FrameKind::Reset,
            term: metadata.term,
            index: metadata.index,
            body: Bytes::new(),
        });
        batch.held = true;
        self.plan.supersede();
        self.installing = Some((batch.ready, metadata.index));
        self.raw.mut_store().reset(checkpoint.clone(), snapshot.data.clone());
        out.snapshot =
            Some(SnapshotOffer { from: self.raw.raft.leader_id, checkpoint, manifest: snapshot.data.clone() });
    }

    /// Everything up to this ready is durable.
    pub(super) fn durable(&mut self, ready: u64) {
        if self.founding {
            self.founding = false;
            self.term_durable = self.vote.0;
            return;
        }
        while let Some(&(number, term)) = self.terms_in_flight.front()
            && number <= ready
        {
            self.term_durable = self.term_durable.max(term);
            self.terms_in_flight.pop_front();
        }
        self.raw.on_persist_ready(ready);
        self.advance_applied();
        while let Some((number, _)) = self.held.front()
            && *number <= ready
        {
            let (_, messages) = self.held.pop_front().expect("looked at just above");
            self.mail(messages);
        }
    }

    fn mail(&mut self, messages: Vec<Message>) {
        for m in messages {
            if let Some(bytes) = wire::encode(&m) {
                self.outbox.push(Envelope { to: m.to, bytes });
            }
        }
    }

    fn deliver(&mut self, entries: Vec<Entry>, out: &mut Effects) {
        for e in entries {
            let payload = match e.get_entry_type() {
                EntryType::EntryNormal if e.data.is_empty() => Payload::Noop,
                EntryType::EntryNormal => Payload::Data(e.data.clone()),
                _ => {
                    let Ok(change) = conf::decode(&e.data) else {
                        self.halted = Some(HaltReason::BadConfChange(Index(e.index)));
                        return;
                    };
                    // A change that does not fit is refused by every member alike and leaves the configuration as
                    // it was.
                    let _ = self.raw.apply_conf_change(&change);
                    Payload::Conf(self.conf())
                }
            };
            assert!(e.index > self.delivered, "committed entries ascend");
            self.delivered = e.index;
            out.committed
                .push(Committed { position: Position { term: Term(e.term), index: Index(e.index) }, payload });
        }
    }

    /// Refuses what would trip an assertion inside raft. Nothing here happens between correct members with whole
    /// directories.
    pub(super) fn check_against_log(&self, m: &Message) -> Result<(), WireError> {
        let raft = &self.raw.raft;
        let (last, committed) = (raft.raft_log.last_index(), raft.raft_log.committed);
        let current = m.term >= raft.term;
        let leads = raft.state == StateRole::Leader;
        match m.get_msg_type() {
            MessageType::MsgHeartbeat if current && m.commit > last => Err(WireError::LostEntries),
            MessageType::MsgAppend if current => {
                let contradicts = |e: &Entry| {
                    e.index <= committed && raft.raft_log.term(e.index).is_ok_and(|t| t != 0 && t != e.term)
                };
                // the leader builds on entries this member has acknowledged to it
                if m.index >= committed && m.entries.iter().any(contradicts) {
                    return Err(WireError::LostEntries);
                }
                let too_large = |e: &Entry| e.data.len() > self.cfg.max_entry_bytes;
                if m.entries.iter().any(too_large) { Err(WireError::Unsound) } else { Ok(()) }
            }
            MessageType::MsgSnapshot if m.get_snapshot().get_metadata().term > m.term => Err(WireError::Unsound),
            MessageType::MsgAppendResponse if leads && m.term == raft.term && !m.reject && m.index > last => {
                Err(WireError::Unsound)
            }
            MessageType::MsgTimeoutNow if !self.may_campaign() => Err(WireError::NotExpected),
            // never passed on to a third member
            MessageType::MsgReadIndex if !leads => Err(WireError::NotExpected),
            _ => Ok(()),
        }
    }
}
