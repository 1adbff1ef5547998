//! A standby that answers reads: how it knows how old its image is, what it tells the time by, and who waits until the
//! image holds more.
//!
//! ```text
//! standby  at T:  Ask n ────────────> active   while its lease to read lasts:
//!                                              Told n, applied index I, log time, are failed logins being counted
//! standby  <──────────────────────────
//!          image at I or later: level as of T, and answers by itself until T + STALE_NS
//! ```
//! What was acknowledged before T is at or before I: nobody else acknowledges anything while the active node's lease
//! lasts. So the bound counts from the moment of asking, and neither a slow network nor a stopped process on either side
//! stretches it. The rest is as on the active node: caches are derived from the image, by index.
//!
//! Part of the owner's machine. It proposes nothing: what turns out to write goes to the active node whole.

use crate::cell::{Keys, Licences, LogClock};
use crate::owner::{Owner, OwnerOut, ShardId, TICK_NS};
use crate::peer::PeerMessage;
use crate::seal::REISSUE_NS;
use crate::shard::Ticket;
use ringfence_barrier::Issuer;
use ringfence_base::{Entropy, Index, Mono, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A standby answers from an image that was the cluster's at most so long before the request, ns: an election timeout.
pub const STALE_NS: u64 = 10 * TICK_NS;
/// Questions without an answer that are remembered.
const MAX_ASKED: usize = 64;
/// Calls that wait for an index; a further one is told at once that it is not there.
const MAX_WAITING: usize = 65_536;

/// What an active node tells a standby that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Everything that was acknowledged when it answered is at or before this index.
    pub index: Index,
    /// The log's clock.
    pub log_time: Wall,
    /// Failed logins are being counted, so it wants to hear of good ones too.
    pub counting_failures: bool,
}

/// The owner's part of standing by.
#[derive(Default)]
pub(crate) struct Standby {
    /// The keyring, and licences that mint tokens only. None while this node does not stand by.
    pub(crate) keys: Option<Keys>,
    issued_at: Mono,
    asked: BTreeMap<u64, Mono>,
    next_ask: u64,
    /// Answers whose index the image does not hold yet: when they were asked for.
    ahead: BTreeMap<Index, Mono>,
    /// What was acknowledged before this moment is in the image.
    level: Mono,
    /// A client was told of this index through this node while it was behind.
    floor: Index,
    /// The log's clock as the active node told it.
    pub(crate) clock: LogClock,
    /// See [`Told::counting_failures`].
    pub(crate) counting_failures: bool,
    waiting: BTreeMap<Index, Vec<Waiting>>,
    waiting_count: usize,
}

/// A call that waits for an index.
struct Waiting {
    shard: ShardId,
    ticket: Ticket,
    until: Mono,
}

impl Owner {
    /// Until when this node may answer as a standby; in the past if it may not.
    pub(crate) fn stands_by_until(&self) -> Mono {
        match self.standby.keys.is_some() && self.version.index() >= self.standby.floor {
            true if self.standby.level != Mono(0) => self.standby.level.plus_ns(STALE_NS),
            _ => Mono(0),
        }
    }

    /// It answers reads itself.
    pub(crate) fn is_performance_standby(&self) -> bool {
        self.now.mono < self.stands_by_until()
    }

    /// Begins and ends standing by, and asks the active node how far it is.
    pub(crate) fn standby_tick(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(role) = self.member.as_ref().map(|m| m.role()) else { return };
        let wanted = self.config.performance_standby && !role.is_leader && !self.removed && self.has_peers();
        let Some(unsealed) = self.seal.unsealed.as_ref().filter(|_| wanted) else {
            self.stand_by_no_more();
            return;
        };
        if self.standby.keys.is_none() || self.now.mono.since(self.standby.issued_at) >= REISSUE_NS {
            let keyring = unsealed.keyring().clone();
            self.licence_count += 1;
            // tokens carry the salt, so no image need know it
            let issuer = Issuer::unregistered(rng);
            let licences = Licences::minting(issuer, &keyring, self.config.shards as usize, self.licence_count);
            self.standby.keys = Some(Keys { keyring, licences: Arc::new(licences) });
            self.standby.issued_at = self.now.mono;
            self.mark_dirty();
        }
        if role.leader_id == 0 || role.leader_id == self.raft_id {
            return;
        }
        let number = self.standby.next_ask;
        self.standby.next_ask += 1;
        self.standby.asked.insert(number, self.now.mono);
        while self.standby.asked.len() > MAX_ASKED {
            self.standby.asked.pop_first();
        }
        out.push(OwnerOut::Send(role.leader_id, PeerMessage::Ask(number)));
    }

    /// The image was replaced, perhaps by another one under another keyring: cores forget what they derived from the one
    /// before, and go on under new licences with the next tick. It would do to go by the marks of tables while every
    /// restored record carries the index of the restore; nothing here rests on that.
    pub(crate) fn begin_standby_anew(&mut self) {
        self.stand_by_no_more();
    }

    /// It leads, is sealed, or may not: no core answers as a standby any more.
    pub(crate) fn stand_by_no_more(&mut self) {
        if self.standby.keys.take().is_some() {
            self.standby.asked.clear();
            self.standby.ahead.clear();
            self.mark_dirty();
        }
    }

    /// A standby asks how far this node is. Only one that is certain to be the active one answers.
    pub(crate) fn asked(&mut self, from: u64, number: u64, out: &mut Vec<OwnerOut>) {
        if !self.is_active() || self.keys.is_none() || self.now.mono >= self.lease_until() {
            return;
        }
        let told =
            Told { index: self.version.index(), log_time: self.log_now(), counting_failures: self.failures.any() };
        out.push(OwnerOut::Send(from, PeerMessage::Told(number, told)));
    }

    /// The active node answered.
    pub(crate) fn told(&mut self, number: u64, told: Told) {
        let now = self.now.mono;
        let Some(sent) = self.standby.asked.remove(&number) else { return };
        if self.standby.keys.is_none() {
            return;
        }
        // older questions tell nothing that this does not
        self.standby.asked = self.standby.asked.split_off(&number);
        let at = self.standby.ahead.entry(told.index).or_default();
        *at = sent.max(*at);
        while self.standby.ahead.len() > MAX_ASKED {
            self.standby.ahead.pop_first();
        }
        self.standby.counting_failures = told.counting_failures;
        self.hear_log_time(told.log_time);
        let own = self.standby.clock.log_time.plus_ns(now.since(self.standby.clock.at));
        // it never goes back: ahead of the active node's it stands until that has caught up
        self.standby.clock = LogClock { log_time: own.max(told.log_time), at: now.plus_ns(own.since(told.log_time)) };
        self.find_level();
    }

    /// Whether the image holds what was answered by now.
    pub(crate) fn find_level(&mut self) {
        let shown = self.version.index();
        let mut level = self.standby.level;
        while let Some(first) = self.standby.ahead.first_entry().filter(|e| *e.key() <= shown) {
            level = level.max(first.remove());
        }
        if level > self.standby.level {
            self.standby.level = level;
            self.mark_dirty();
        }
    }

    /// A core wants to be told when the image it can read holds an index.
    pub(crate) fn await_index(&mut self, shard: ShardId, ticket: Ticket, index: Index, out: &mut Vec<OwnerOut>) {
        let there = index <= self.shown_index();
        if there || self.standby.waiting_count >= MAX_WAITING {
            out.push(OwnerOut::Reached(shard, ticket, there));
            return;
        }
        let until = self.now.mono.plus_ns(self.config.index_wait_ns);
        self.standby.waiting.entry(index).or_default().push(Waiting { shard, ticket, until });
        self.standby.waiting_count += 1;
    }

    /// A core is about to give out an answer of the active node that rests on this index. If the image is far behind,
    /// nobody waits for it, and this node answers nothing itself before it is there.
    pub(crate) fn catch_up(&mut self, shard: ShardId, ticket: Ticket, index: Index, out: &mut Vec<OwnerOut>) {
        if index > self.shown_index() && !self.is_performance_standby() {
            self.standby.floor = self.standby.floor.max(index);
            out.push(OwnerOut::Reached(shard, ticket, true));
            return;
        }
        self.await_index(shard, ticket, index, out);
    }

    /// Tells those whose index can be read. Called after publication.
    pub(crate) fn release_waiting(&mut self, out: &mut Vec<OwnerOut>) {
        let shown = self.shown_index();
        while let Some(first) = self.standby.waiting.first_entry().filter(|e| *e.key() <= shown) {
            for w in first.remove() {
                self.standby.waiting_count -= 1;
                out.push(OwnerOut::Reached(w.shard, w.ticket, true));
            }
        }
    }

    /// Tells those who have waited long enough.
    pub(crate) fn give_up_waiting(&mut self, out: &mut Vec<OwnerOut>) {
        if self.standby.waiting_count == 0 {
            return;
        }
        let now = self.now.mono;
        let mut floor = self.standby.floor;
        for (index, all) in &mut self.standby.waiting {
            for w in all.extract_if(.., |w| w.until <= now) {
                self.standby.waiting_count -= 1;
                // it may have been an answer that goes out now
                floor = floor.max(*index);
                out.push(OwnerOut::Reached(w.shard, w.ticket, false));
            }
        }
        self.standby.waiting.retain(|_, all| !all.is_empty());
        if floor > self.standby.floor {
            self.standby.floor = floor;
            self.mark_dirty();
        }
    }
}
