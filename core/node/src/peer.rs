//! What nodes say to each other, and the owner's side of it: raft's messages, a word about oneself every second, a
//! checkpoint's chunks, and calls that a standby passes on.
//!
//! ```text
//! u8 kind, then
//!   1 raft         an encoded message of `ringfence_raft::wire`
//!   2 echo         the sender's record; bool willing; num applied index, term; num wall clock; bool known, num log time
//!   3 fetch        num checkpoint index, chunk
//!   4 chunk        num checkpoint index, chunk; bool there; the chunk file's bytes
//!   5 installed    num checkpoint index; bool well
//!   6 forward      num id; a call (see `forward`)
//!   7 forwarded    num id; num applied index; a reply (see `forward`)
//!   8 not done     num id
//!   9 ask          num number
//!  10 told         num number; num applied index, log time; bool failures are being counted (see `standby`)
//! ```
//! Three lanes: what is [`Lane::Control`] never waits behind what is [`Lane::Bulk`], nor do calls. Who `from` is, is the transport's to
//! prove; nothing else in a message is trusted, and any bytes are safe.

use crate::cell::LogClock;
use crate::clock;
use crate::forward;
use crate::members::{self, MemberRecord};
use crate::owner::{Level, Owner, OwnerOut, TICK_NS};
use crate::standby::Told;
use ringfence_base::{CodecError, Index, Mono, Reader, Term, Wall, Writer};
use ringfence_raft::wire::{self, Weight};
use ringfence_raft::{CommandError, WireError};
use ringfence_store::stream::MAX_CHUNK_BYTES;
use ringfence_vault::call::{Call, Reply};
use std::collections::BTreeMap;

/// Every node tells the others about itself this often, ns.
const ECHO_NS: u64 = 10 * TICK_NS;
/// A follower that asks for no chunk for so long is offered a checkpoint again, ns.
const OFFER_NS: u64 = 10_000_000_000;
/// A node that was not heard for so long is not handed the lead, ns.
const FRESH_NS: u64 = 3 * ECHO_NS;
/// After giving the lead away a node stays out of elections for so long, ns. Source: Vault's ten seconds.
const STEP_DOWN_NS: u64 = 10_000_000_000;
/// After an attempt to hand over nothing is read by lease for so long, ns: longer than raft follows the attempt.
const HANDING_NS: u64 = 2_000_000_000;
/// A lease to read lasts so long from the moment its round was sent, ns: the shortest election timeout of 10 ticks, less
/// the tick that may come at once, less a tenth for clocks that run apart.
const LEASE_NS: u64 = 8 * TICK_NS;

/// Clocks of two nodes that are further apart are warned of, ns.
const SKEW_NS: u64 = 10_000_000_000;
/// A clock is warned of so often at most, ns.
const SKEW_EVERY_NS: u64 = 3_600_000_000_000;

/// Largest message, bytes.
pub const MAX_PEER_BYTES: usize = forward::MAX_FORWARD_BYTES;
const _: () = assert!(MAX_PEER_BYTES > wire::MAX_MESSAGE_BYTES && MAX_PEER_BYTES > MAX_CHUNK_BYTES + 64);

/// Which connection a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Heartbeats, votes, small answers.
    Control,
    /// Everything that may be long.
    Bulk,
    /// Calls and, on the way back, their answers.
    Calls,
    /// A member that starts again, and is not one yet: see `repair`.
    Return,
}

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// As it would be written into the table now; the vote wished is not its to say.
    pub record: MemberRecord,
    /// Has keys, and would lead.
    pub willing: bool,
    /// Last applied index.
    pub applied: Index,
    /// Its term.
    pub term: Term,
    /// Its wall clock.
    pub wall: Wall,
    /// Log time, if it leads or was told.
    pub log_time: Option<Wall>,
}

/// A message between nodes.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// Raft's.
    Raft(Vec<u8>),
    /// About the sender.
    Echo(Box<Echo>),
    /// Asks for a chunk of a checkpoint that was offered.
    Fetch(Index, u64),
    /// The chunk, or `None`: it is gone.
    Chunk(Index, u64, Option<Vec<u8>>),
    /// How a follower fared with the checkpoint offered.
    Installed(Index, bool),
    /// A call that the active node is to answer, by the sender's number for it.
    Forward(u64, Box<Call>),
    /// Its answer, and how far the image was that it rests on.
    Forwarded(u64, Index, Box<Reply>),
    /// Instead of an answer: the node is not active, and nothing was done.
    NotDone(u64),
    /// A standby asks the active node how far it is.
    Ask(u64),
    /// So far.
    Told(u64, Told),
}

impl PeerMessage {
    /// The connection to use.
    pub fn lane(&self) -> Lane {
        match self {
            PeerMessage::Raft(bytes) if wire::weight(bytes) != Weight::Light => Lane::Bulk,
            PeerMessage::Raft(_)
            | PeerMessage::Echo(_)
            | PeerMessage::Fetch(..)
            | PeerMessage::Installed(..)
            | PeerMessage::Ask(_)
            | PeerMessage::Told(..) => Lane::Control,
            PeerMessage::Chunk(..) => Lane::Bulk,
            PeerMessage::Forward(..) | PeerMessage::Forwarded(..) | PeerMessage::NotDone(_) => Lane::Calls,
        }
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            PeerMessage::Raft(bytes) => {
                w.u8(1).raw(bytes);
            }
            PeerMessage::Echo(e) => {
                w.u8(2);
                e.record.write(&mut w);
                w.bool(e.willing).num(e.applied.0).num(e.term.0).num(e.wall.0);
                w.bool(e.log_time.is_some()).num(e.log_time.unwrap_or_default().0);
            }
            PeerMessage::Fetch(index, chunk) => {
                w.u8(3).num(index.0).num(*chunk);
            }
            PeerMessage::Chunk(index, chunk, bytes) => {
                w.u8(4).num(index.0).num(*chunk).bool(bytes.is_some()).raw(bytes.as_deref().unwrap_or_default());
            }
            PeerMessage::Installed(index, well) => {
                w.u8(5).num(index.0).bool(*well);
            }
            PeerMessage::Forward(id, call) => {
                w.u8(6).num(*id);
                forward::write_call(&mut w, call);
            }
            PeerMessage::Forwarded(id, index, reply) => {
                w.u8(7).num(*id).num(index.0);
                forward::write_reply(&mut w, reply);
            }
            PeerMessage::NotDone(id) => {
                w.u8(8).num(*id);
            }
            PeerMessage::Ask(number) => {
                w.u8(9).num(*number);
            }
            PeerMessage::Told(number, told) => {
                w.u8(10).num(*number).num(told.index.0).num(told.log_time.0).bool(told.counting_failures);
            }
        }
        w.finish()
    }

    /// The number of a call, without reading the call.
    pub fn call_number(bytes: &[u8]) -> Option<u64> {
        let mut r = Reader::new(bytes);
        r.u8().ok().filter(|kind| *kind == 6)?;
        r.num().ok()
    }

    /// Reads [`PeerMessage::encode`]; any bytes are safe.
    ///
    /// # Errors
    /// Not in that format, or over a limit.
    pub fn decode(bytes: &[u8]) -> Result<PeerMessage, CodecError> {
        if bytes.len() > MAX_PEER_BYTES {
            return Err(CodecError::TooLong);
        }
        let mut r = Reader::new(bytes);
        let message = match r.u8()? {
            1 => return Ok(PeerMessage::Raft(r.rest().to_vec())),
            2 => PeerMessage::Echo(Box::new(Echo {
                record: MemberRecord::read(&mut r)?,
                willing: r.bool()?,
                applied: Index(r.num()?),
                term: Term(r.num()?),
                wall: Wall(r.num()?),
                log_time: {
                    let (known, time) = (r.bool()?, Wall(r.num()?));
                    known.then_some(time)
                },
            })),
            3 => PeerMessage::Fetch(Index(r.num()?), r.num()?),
            4 => {
                let (index, chunk, there) = (Index(r.num()?), r.num()?, r.bool()?);
                if r.rest().len() > MAX_CHUNK_BYTES {
                    return Err(CodecError::TooLong);
                }
                return Ok(PeerMessage::Chunk(index, chunk, there.then(|| r.rest().to_vec())));
            }
            5 => PeerMessage::Installed(Index(r.num()?), r.bool()?),
            6 => PeerMessage::Forward(r.num()?, Box::new(forward::read_call(&mut r)?)),
            7 => PeerMessage::Forwarded(r.num()?, Index(r.num()?), Box::new(forward::read_reply(&mut r)?)),
            8 => PeerMessage::NotDone(r.num()?),
            9 => PeerMessage::Ask(r.num()?),
            10 => PeerMessage::Told(
                r.num()?,
                Told { index: Index(r.num()?), log_time: Wall(r.num()?), counting_failures: r.bool()? },
            ),
            t => return Err(CodecError::BadTag(t)),
        };
        r.end()?;
        Ok(message)
    }
}

/// What the owner knows of its peers, in this process only.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    heard: BTreeMap<u64, (Mono, Echo)>,
    echoed: Mono,
    /// Followers that were offered a checkpoint, and when they last asked for a part of it.
    offers: BTreeMap<u64, Mono>,
    /// Chunks being read for followers.
    reads: BTreeMap<u64, (u64, Index, u64)>,
    next_read: u64,
    /// Not electable before.
    not_before: Mono,
    /// Rounds that confirm that this node still leads, by number: when they were sent.
    rounds: BTreeMap<u64, Mono>,
    next_round: u64,
    /// Reads are linearizable before.
    lease_until: Mono,
    /// Another may lead at any moment: no lease before.
    no_lease_before: Mono,
    /// Log time as nodes told each other, or as this one kept it while it led.
    pub(crate) log_clock: Option<LogClock>,
    /// Who led when this node last told about itself.
    echoed_leader: u64,
    /// Whose clock was warned of, and when.
    skews: BTreeMap<u64, Mono>,
}

impl Peers {
    /// What a peer last said of itself.
    pub(crate) fn told(&self, id: u64) -> Option<MemberRecord> {
        self.heard.get(&id).map(|(_, echo)| echo.record.clone())
    }

    /// When a peer was last heard, and what it said.
    pub(crate) fn last(&self, id: u64) -> Option<(Mono, &Echo)> {
        self.heard.get(&id).map(|(at, echo)| (*at, echo))
    }

    /// Nothing is read by lease until a new round is confirmed.
    pub(crate) fn drop_lease(&mut self) {
        self.lease_until = Mono(0);
        self.rounds.clear();
    }
}

impl Owner {
    /// Until when what is published may be read here without asking anybody. A node alone need not ask.
    pub(crate) fn lease_until(&self) -> Mono {
        match self.is_lone_voter() {
            true => Mono(u64::MAX),
            false => self.peers.lease_until,
        }
    }

    /// The only voter, or not yet anything.
    pub(crate) fn is_lone_voter(&self) -> bool {
        self.member.as_ref().is_none_or(|m| {
            let conf = m.conf();
            conf.is_lone_voter(self.raft_id) || (conf.voters.is_empty() && !self.joining)
        })
    }

    /// A quorum heard this node after `sent`: it takes an election timeout until it could follow another.
    pub(crate) fn extend_lease(&mut self, sent: Mono) {
        let until = sent.plus_ns(LEASE_NS);
        if sent >= self.peers.no_lease_before && until > self.peers.lease_until {
            self.peers.lease_until = until;
            self.mark_dirty();
        }
    }

    pub(crate) fn round_confirmed(&mut self, number: u64) {
        if let Some(sent) = self.peers.rounds.remove(&number) {
            self.peers.rounds = self.peers.rounds.split_off(&number);
            self.extend_lease(sent);
        }
    }

    /// Time passes for what has to do with peers.
    pub(crate) fn peer_tick(&mut self, out: &mut Vec<OwnerOut>) {
        let now = self.now.mono;
        let lone = self.is_lone_voter();
        let electable = lone || (self.seal.unsealed.is_some() && now >= self.peers.not_before && !self.removed);
        let Some(member) = &mut self.member else { return };
        member.set_electable(electable);
        let conf = member.conf();
        if conf.voters.len() + conf.learners.len() + usize::from(self.joining) < 2 {
            return;
        }
        let role = member.role();
        if role.ready {
            let number = self.peers.next_round;
            self.peers.next_round += 1;
            if member.read_index(number).is_ok() {
                self.peers.rounds.insert(number, now);
            }
            // a round that was never confirmed
            while self.peers.rounds.len() > 64 {
                self.peers.rounds.pop_first();
            }
            let silent: Vec<u64> =
                self.peers.offers.iter().filter(|(_, at)| now.since(**at) >= OFFER_NS).map(|(id, _)| *id).collect();
            for id in silent {
                self.peers.offers.remove(&id);
                member.snapshot_sent(id, false);
            }
            if !electable && !lone {
                // whoever has keys is to lead, and an attempt to give the lead away may have come to nothing
                self.hand_over(out);
            }
        }
        self.watch_clocks(out);
        // a new leader may have to know the time before it begins
        if now.since(self.peers.echoed) >= ECHO_NS || role.leader_id != self.peers.echoed_leader {
            self.peers.echoed = now;
            self.peers.echoed_leader = role.leader_id;
            let log_time = match self.is_active() {
                true => Some(self.log_now()),
                false => self.peers.log_clock.map(|c| c.now(self.now)),
            };
            let echo = Echo {
                record: self.own_record(false),
                willing: electable && self.seal.unsealed.is_some(),
                applied: self.version.index(),
                term: role.term,
                wall: self.now.wall,
                log_time,
            };
            for id in conf.voters.iter().chain(&conf.learners).filter(|id| **id != self.raft_id) {
                out.push(OwnerOut::Send(*id, PeerMessage::Echo(Box::new(echo.clone()))));
            }
        }
    }

    /// A peer spoke lately.
    pub(crate) fn is_fresh(&self, id: u64) -> bool {
        self.peers.heard.get(&id).is_some_and(|(at, _)| self.now.mono.since(*at) < FRESH_NS)
    }

    /// Whether this node may begin to lead: it knows log time, or what a majority of clocks says.
    pub(crate) fn knows_time(&self) -> bool {
        self.is_lone_voter() || self.peers.log_clock.is_some() || self.majority_clock().is_some()
    }

    /// This node begins to lead: log time goes on from where the nodes know it to be.
    pub(crate) fn take_clock(&mut self, image: Wall) {
        let now = self.now;
        if self.is_lone_voter() {
            self.clock.start(image, now);
            return;
        }
        match self.peers.log_clock {
            Some(known) => self.clock.follow(image.max(known.now(now)), now),
            // an outage of all: the one step forward
            None => self.clock.follow(image.max(self.majority_clock().unwrap_or_default()), now),
        }
    }

    /// Another node says what log time is. What is known already does not go back.
    pub(crate) fn hear_log_time(&mut self, told: Wall) {
        let known = self.peers.log_clock.map_or(Wall(0), |c| c.now(self.now));
        self.peers.log_clock = Some(LogClock { log_time: told.max(known), at: self.now.mono });
    }

    /// The lead is lost; what this node knows of log time may be asked for again.
    pub(crate) fn keep_clock(&mut self) {
        self.peers.log_clock = Some(LogClock { log_time: self.log_now(), at: self.now.mono });
    }

    /// The wall clocks of the other voters that were heard lately.
    fn voters_clocks(&self) -> Vec<(u64, Wall)> {
        let voters = self.member.as_ref().map(|m| m.conf().voters).unwrap_or_default();
        let heard = |id: u64| {
            let (at, echo) = self.peers.heard.get(&id)?;
            let age = self.now.mono.since(*at);
            (age < FRESH_NS).then(|| (id, echo.wall.plus_ns(age)))
        };
        voters.into_iter().filter(|id| *id != self.raft_id).filter_map(heard).collect()
    }

    /// The lower middle of the clocks of a majority of the voters, this one's among them.
    fn majority_clock(&self) -> Option<Wall> {
        let voters = self.member.as_ref().map_or(0, |m| m.conf().voters.len());
        let mut clocks: Vec<Wall> = self.voters_clocks().iter().map(|(_, w)| *w).chain([self.now.wall]).collect();
        if clocks.len() <= voters / 2 {
            return None;
        }
        clock::lower_middle(&mut clocks)
    }

    /// The active node warns of clocks that differ from its own.
    fn watch_clocks(&mut self, out: &mut Vec<OwnerOut>) {
        if !self.is_active() {
            return;
        }
        let now = self.now;
        for (id, wall) in self.voters_clocks() {
            let apart = wall.since(now.wall).max(now.wall.since(wall));
            let warned = self.peers.skews.get(&id).is_some_and(|at| now.mono.since(*at) < SKEW_EVERY_NS);
            if apart > SKEW_NS && !warned {
                self.peers.skews.insert(id, now.mono);
                let name = self.peers.told(id).map_or_else(|| format!("{id:x}"), |r| r.name);
                let seconds = apart / 1_000_000_000;
                out.push(OwnerOut::Log(
                    Level::Warn,
                    format!("the clocks of this node and of {name} are {seconds} s apart: set them"),
                ));
            }
        }
        while self.peers.skews.len() > 2 * members::MAX_MEMBERS {
            self.peers.skews.pop_first();
        }
    }

    /// Gives the lead to the unsealed voter that has most of the log. False if there is none.
    pub(crate) fn hand_over(&mut self, out: &mut Vec<OwnerOut>) -> bool {
        let Some(status) = self.raft_status().filter(|s| s.role.ready) else { return false };
        let fresh = |id: &u64| self.is_fresh(*id) && self.peers.heard.get(id).is_some_and(|(_, e)| e.willing);
        let best = status
            .peers
            .iter()
            .filter(|(id, ..)| status.conf.voters.contains(id) && fresh(id))
            .max_by_key(|(_, matched, _)| *matched);
        let (Some((to, ..)), Some(member)) = (best, &mut self.member) else { return false };
        // from now on another may lead before this node knows
        match member.transfer_leader(*to) {
            Ok(()) => {
                self.peers.drop_lease();
                self.peers.no_lease_before = self.now.mono.plus_ns(HANDING_NS);
                self.mark_dirty();
                out.push(OwnerOut::Log(Level::Info, "handing the lead over".into()));
                true
            }
            Err(CommandError::Busy) => true,
            Err(_) => false,
        }
    }

    /// `sys/step-down`: another takes the lead, and this node stays out of elections for a while.
    pub(crate) fn step_down(&mut self, out: &mut Vec<OwnerOut>) {
        if !self.is_lone_voter() && self.hand_over(out) {
            self.peers.not_before = self.now.mono.plus_ns(STEP_DOWN_NS);
            // the others hear of it with the next tick
            self.peers.echoed = Mono(0);
        }
    }

    /// What the member wants said.
    pub(crate) fn send_raft(
        &mut self,
        envelopes: impl Iterator<Item = ringfence_raft::Envelope>,
        out: &mut Vec<OwnerOut>,
    ) {
        for e in envelopes {
            if wire::weight(&e.bytes) == Weight::Offer {
                self.peers.offers.insert(e.to, self.now.mono);
                self.checkpointer.fetched(self.now);
            }
            out.push(OwnerOut::Send(e.to, PeerMessage::Raft(e.bytes)));
        }
    }

    /// The connection to a peer broke, or there was no room for what it was sent.
    pub(crate) fn unreachable(&mut self, to: u64) {
        if let Some(m) = &mut self.member {
            m.unreachable(to);
        }
    }

    /// The table has no record of this node any more: it was taken out while it could still hear of it.
    pub(crate) fn check_removed(&mut self, out: &mut Vec<OwnerOut>) {
        let records = members::all(&self.version);
        let removed = !self.joining && !records.is_empty() && !records.contains_key(&self.raft_id);
        if removed && !self.removed {
            out.push(OwnerOut::Log(
                Level::Error,
                "this node was removed from the cluster; to let it join again, stop it and empty its data directory"
                    .into(),
            ));
            if self.seal.unsealed.is_some() {
                self.seal_now(None, out);
            }
        }
        if removed != self.removed {
            self.removed = removed;
            self.mark_dirty();
        }
    }

    /// Takes a message of the authenticated peer `from`.
    pub(crate) fn peer(&mut self, from: u64, message: PeerMessage, out: &mut Vec<OwnerOut>) {
        match message {
            PeerMessage::Raft(bytes) => {
                let Some(member) = &mut self.member else { return };
                match member.step(from, &bytes) {
                    Ok(()) | Err(WireError::NotExpected) => {}
                    Err(WireError::LostEntries) => {
                        self.lost("it has lost entries that the cluster counts on, or is an older copy", out);
                    }
                    Err(e) => out.push(OwnerOut::Log(Level::Warn, format!("from member {from:x}: {e}"))),
                }
            }
            PeerMessage::Echo(echo) => {
                if let Some(told) = echo.log_time {
                    self.hear_log_time(told);
                }
                self.peers.heard.insert(from, (self.now.mono, *echo));
                while self.peers.heard.len() > 2 * members::MAX_MEMBERS {
                    self.peers.heard.pop_first();
                }
            }
            PeerMessage::Fetch(index, chunk) => {
                self.checkpointer.fetched(self.now);
                if let Some(at) = self.peers.offers.get_mut(&from) {
                    *at = self.now.mono;
                }
                // one at a time for each follower, and no file that is not part of a checkpoint
                let busy = self.peers.reads.values().any(|(to, ..)| *to == from);
                if busy {
                    return;
                }
                if !self.checkpointer.holds(chunk) {
                    out.push(OwnerOut::Send(from, PeerMessage::Chunk(index, chunk, None)));
                    return;
                }
                self.peers.next_read += 1;
                self.peers.reads.insert(self.peers.next_read, (from, index, chunk));
                out.push(OwnerOut::ReadChunk(self.peers.next_read, chunk));
            }
            PeerMessage::Chunk(index, chunk, bytes) => self.install_chunk(from, index, chunk, bytes, out),
            PeerMessage::Installed(_, well) => {
                if self.peers.offers.remove(&from).is_some()
                    && let Some(m) = &mut self.member
                {
                    m.snapshot_sent(from, well);
                }
            }
            PeerMessage::Ask(number) => self.asked(from, number, out),
            PeerMessage::Told(number, told) => self.told(number, told),
            // calls do not come this way: the transport hands them to a core
            PeerMessage::Forward(..) | PeerMessage::Forwarded(..) | PeerMessage::NotDone(_) => {}
        }
    }

    /// A chunk was read for a follower.
    pub(crate) fn chunk_read(&mut self, id: u64, bytes: Option<Vec<u8>>, out: &mut Vec<OwnerOut>) {
        if let Some((to, index, chunk)) = self.peers.reads.remove(&id) {
            let bytes = bytes.filter(|bytes| {
                let whole = self.checkpointer.judge(chunk, bytes);
                if !whole {
                    let text = format!("checkpoint chunk {chunk} is damaged on disk; the checkpoint is written anew");
                    out.push(OwnerOut::Log(Level::Error, text));
                }
                whole
            });
            out.push(OwnerOut::Send(to, PeerMessage::Chunk(index, chunk, bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            if let Ok(m) = PeerMessage::decode(&bytes) {
                let again = PeerMessage::decode(&m.encode()).expect("what was read is written readably");
                prop_assert_eq!(m.encode(), again.encode());
            }
        }

        #[test]
        fn messages_survive(index: u64, chunk: u64, bytes: Option<Vec<u8>>, well: bool, name in ".{0,20}") {
            let echo = Echo {
                record: MemberRecord { name, pins: vec![[3; 32]], ..MemberRecord::default() },
                willing: well, applied: Index(index), term: Term(chunk),
                wall: Wall(index), log_time: well.then_some(Wall(chunk)),
            };
            for m in [
                PeerMessage::Raft(bytes.clone().unwrap_or_default()),
                PeerMessage::Echo(Box::new(echo)),
                PeerMessage::Fetch(Index(index), chunk),
                PeerMessage::Chunk(Index(index), chunk, bytes.clone()),
                PeerMessage::Installed(Index(index), well),
                PeerMessage::NotDone(chunk),
                PeerMessage::Ask(chunk),
                PeerMessage::Told(
                    chunk,
                    Told { index: Index(index), log_time: Wall(chunk), counting_failures: well },
                ),
            ] {
                let bytes = m.encode();
                let back = PeerMessage::decode(&bytes).expect("reads");
                prop_assert_eq!(back.encode(), bytes);
                prop_assert_eq!(back.lane(), m.lane());
                prop_assert_eq!(format!("{back:?}"), format!("{m:?}"));
            }
        }
    }

    /// One message of each kind, as it goes over the wire. These bytes are what nodes of the last release send and
    /// understand: a later build reads them, and says the same to a node that knows no more.
    #[test]
    fn frames_are_golden() {
        let record = MemberRecord {
            name: "n1".into(),
            cluster_addr: "https://a:8201".into(),
            api_addr: "https://a:8200".into(),
            pins: vec![[7; 32]],
            voter: true,
            version: "0.1.0".into(),
        };
        let echo = Echo {
            record,
            willing: true,
            applied: Index(300),
            term: Term(5),
            wall: Wall(6_000_000_000),
            log_time: Some(Wall(5_000_000_000)),
        };
        let call = Call {
            id: "id".into(),
            op: ringfence_logical::Operation::Update,
            path: "secret/data/x".into(),
            namespace: Some("ns/".into()),
            token: Some(ringfence_base::Secret::new("t".to_owned())),
            no_body: true,
            data: Default::default(),
            remote: None,
            remote_port: 7,
            wrap_ttl: 60,
            wrap_jwt: false,
            headers: Default::default(),
            raw_body: None,
            peer_certificates: Default::default(),
            mfa: Vec::new(),
        };
        let messages = [
            PeerMessage::Raft(vec![1, 2, 3]),
            PeerMessage::Echo(Box::new(echo)),
            PeerMessage::Fetch(Index(300), 4),
            PeerMessage::Chunk(Index(300), 4, Some(vec![9, 9])),
            PeerMessage::Chunk(Index(300), 4, None),
            PeerMessage::Installed(Index(300), true),
            PeerMessage::Forward(9, Box::new(call)),
            PeerMessage::NotDone(9),
            PeerMessage::Ask(9),
            PeerMessage::Told(9, Told { index: Index(300), log_time: Wall(5_000_000_000), counting_failures: true }),
        ];
        let told: String = messages.iter().map(|m| format!("{}\n", hex::encode(m.encode()))).collect();
        assert_eq!(told, include_str!("../../../tests/golden/peer-messages-v1.txt"));
        for line in told.lines() {
            let bytes = hex::decode(line).expect("hex");
            assert_eq!(PeerMessage::decode(&bytes).expect("reads").encode(), bytes);
        }
    }

    #[test]
    fn heartbeats_and_votes_have_their_own_lane() {
        for kind in 2..=12u8 {
            let lane = PeerMessage::Raft(vec![1, kind]).lane();
            assert_eq!(lane == Lane::Bulk, kind == 7, "type {kind}");
        }
        assert_eq!(PeerMessage::Raft(vec![1, 1]).lane(), Lane::Bulk);
    }
}
