//! The nodes of the cluster: who they are, where they listen, which certificates they show, whether they vote. Records
//! in the clear, one a raft id, so that a sealed node knows its peers.
//!
//! The table is what is *wished*; raft's configuration follows it. The active node looks at both after every tick and
//! proposes the one change that brings them together, so a crash between the two leaves nothing half done:
//!
//! ```text
//!   record, not in raft          -> add as a learner
//!   voter wished, learner        -> promote, once it has kept up for the stabilisation time
//!   non-voter wished, voter      -> demote
//!   in raft, no record           -> remove; the leader itself hands over first
//! ```
//!
//! A node that is alone has no records at all: the first join writes two.

use crate::owner::{Level, Owner, OwnerOut, Purpose};
use ringfence_barrier::Txn;
use ringfence_base::{CodecError, Entropy, Mono, Reader, Writer};
use ringfence_logical::{Error, SideResult};
use ringfence_raft::{ConfChange, ConfState, Status};
use ringfence_store::Version;
use ringfence_vault::sys::raft::{Autopilot, autopilot};
use ringfence_vault::tables::NODE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Longest name, address or version of a member, bytes.
pub const MAX_TEXT_BYTES: usize = 512;
/// Most certificates that a member may show: one in use, and some while it changes them.
pub const MAX_PINS: usize = 8;
/// Most members of a cluster.
pub const MAX_MEMBERS: usize = 32;

const FORMAT: u8 = 1;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its name, `node_id` of the configuration.
    pub name: String,
    /// Its cluster port, as a URL.
    pub cluster_addr: String,
    /// Its API, as a URL.
    pub api_addr: String,
    /// SHA-256 of each certificate it may show on the cluster port.
    pub pins: Vec<[u8; 32]>,
    /// It is to vote.
    pub voter: bool,
    /// The version of its program.
    pub version: String,
}

/// Key of a member's record.
pub fn key(raft_id: u64) -> Vec<u8> {
    let mut k = vec![NODE];
    k.extend_from_slice(&raft_id.to_be_bytes());
    k
}

impl MemberRecord {
    /// As the image keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(FORMAT);
        self.write(&mut w);
        w.finish()
    }

    /// Reads [`MemberRecord::encode`].
    ///
    /// # Errors
    /// Not in that format.
    pub fn decode(bytes: &[u8]) -> Result<MemberRecord, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            FORMAT => {}
            t => return Err(CodecError::BadTag(t)),
        }
        let record = MemberRecord::read(&mut r)?;
        r.end()?;
        Ok(record)
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.text(&self.name).text(&self.cluster_addr).text(&self.api_addr).text(&self.version).bool(self.voter);
        w.num(self.pins.len() as u64);
        for pin in &self.pins {
            w.raw(pin);
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<MemberRecord, CodecError> {
        let mut text = || r.text(MAX_TEXT_BYTES).map(str::to_owned);
        let (name, cluster_addr, api_addr, version) = (text()?, text()?, text()?, text()?);
        let voter = r.bool()?;
        let count = r.num()?;
        if count > MAX_PINS as u64 {
            return Err(CodecError::TooLong);
        }
        let mut pins = Vec::new();
        for _ in 0..count {
            pins.push(r.raw(32)?.try_into().map_err(|_| CodecError::BadNumber)?);
        }
        Ok(MemberRecord { name, cluster_addr, api_addr, pins, voter, version })
    }
}

/// All members of a version, by raft id. A record that cannot be read is left out.
pub fn all(version: &Version) -> BTreeMap<u64, MemberRecord> {
    let scan = version.scan(Bound::Included(&[NODE][..]), Bound::Excluded(&[NODE + 1][..]));
    scan.filter_map(|(k, v)| {
        let id = k.get(1..)?.try_into().ok().map(u64::from_be_bytes)?;
        Some((id, MemberRecord::decode(v).ok()?))
    })
    .collect()
}

/// How long each learner has kept up.
#[derive(Debug, Default)]
pub(crate) struct Stabilising(BTreeMap<u64, Mono>);

/// What the leader knows when it compares the table with raft's configuration.
struct Picture<'a> {
    own: u64,
    records: &'a BTreeMap<u64, MemberRecord>,
    conf: &'a ConfState,
    /// Learners that have kept up long enough.
    stable: &'a dyn Fn(u64) -> bool,
}

/// The one thing to do next.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Change(ConfChange),
    /// This node is to leave: another must lead first.
    HandOver,
}

fn next_wish(p: &Picture<'_>) -> Wish {
    if p.records.is_empty() || !p.conf.voters_outgoing.is_empty() {
        return Wish::Nothing;
    }
    for (id, record) in p.records {
        let (votes, learns) = (p.conf.voters.contains(id), p.conf.learners.contains(id));
        match (record.voter, votes, learns) {
            (_, false, false) => return Wish::Change(ConfChange::AddLearner(*id)),
            (true, false, true) if (p.stable)(*id) => return Wish::Change(ConfChange::AddVoter(*id)),
            // the last voter stays one, and a leader that is to lose its vote hands over first
            (false, true, _) if p.conf.voters.len() > 1 => {
                return if *id == p.own { Wish::HandOver } else { Wish::Change(ConfChange::AddLearner(*id)) };
            }
            _ => {}
        }
    }
    let gone = p.conf.voters.iter().chain(&p.conf.learners).find(|id| !p.records.contains_key(id));
    match gone {
        Some(id) if *id == p.own => Wish::HandOver,
        Some(id) => Wish::Change(ConfChange::Remove(*id)),
        None => Wish::Nothing,
    }
}

impl Owner {
    /// This node's own record, as it would be written now.
    pub(crate) fn own_record(&self, voter: bool) -> MemberRecord {
        MemberRecord {
            name: self.config.node_id.clone(),
            cluster_addr: self.config.cluster_addr.clone(),
            api_addr: self.config.api_addr.clone(),
            pins: self.config.pins.clone(),
            voter,
            version: self.vault.settings.own_version.clone(),
        }
    }

    /// Writes and deletes records of members in one batch.
    pub(crate) fn write_members(
        &mut self,
        changes: Vec<(u64, Option<MemberRecord>)>,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let version = self.version.clone();
        let mut txn = Txn::new(&version, None);
        for (id, record) in changes {
            match record {
                Some(record) => txn.put_clear(key(id), record.encode()),
                None => {
                    txn.guard(&key(id));
                    txn.delete(&key(id));
                }
            }
        }
        let finished = txn.finish_clear(self.now.wall);
        self.propose_records(finished, purpose, rng, out);
    }

    /// A change of the table is under way: what it will say is not known yet.
    pub(crate) fn members_in_flight(&self) -> bool {
        let mut ops = self.in_flight_after(self.version.index()).flat_map(|(_, batch)| &batch.ops);
        ops.any(|op| op.key().first() == Some(&NODE))
    }

    /// Takes a node in: its record, and this node's own if it is the first.
    pub(crate) fn admit(
        &mut self,
        raft_id: u64,
        record: MemberRecord,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let records = all(&self.version);
        let mut changes = Vec::new();
        if !records.contains_key(&self.raft_id) {
            changes.push((self.raft_id, Some(self.own_record(true))));
        }
        // an emptied directory comes back under a new id and takes the place of the one it had
        let replaced = records.iter().filter(|(id, r)| r.name == record.name && **id != raft_id);
        changes.extend(replaced.map(|(id, _)| (*id, None)));
        out.push(OwnerOut::Log(
            Level::Info,
            format!("node {:?} at {} joins the cluster", record.name, record.cluster_addr),
        ));
        changes.push((raft_id, Some(record)));
        self.write_members(changes, purpose, rng, out);
    }

    /// Brings raft's configuration one step nearer to the table.
    pub(crate) fn reconcile(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(status) = self.raft_status().filter(|s| s.role.ready) else { return };
        self.clear_staged();
        let records = all(&self.version);
        if records.is_empty() {
            return;
        }
        self.note_stability(&status);
        let wait_ns = self.autopilot().server_stabilization_time.saturating_mul(1_000_000_000);
        let (now, stabilising) = (self.now.mono, &self.stabilising);
        let stable = |id: u64| stabilising.0.get(&id).is_some_and(|since| now.since(*since) >= wait_ns);
        let picture = Picture { own: self.raft_id, records: &records, conf: &status.conf, stable: &stable };
        match next_wish(&picture) {
            Wish::Nothing => {
                if self.clean_up(&records, &status.conf, rng, out) {
                    return;
                }
            }
            Wish::HandOver => {
                self.hand_over(out);
            }
            Wish::Change(change) => {
                if let Some(m) = &mut self.member
                    && m.propose_conf_change(&[change]).is_ok()
                {
                    out.push(OwnerOut::Log(Level::Info, format!("membership: {change:?}")));
                }
            }
        }
        self.correct_record(&records, rng, out);
    }

    /// This node's addresses or certificates are others than its record says.
    fn correct_record(
        &mut self,
        records: &BTreeMap<u64, MemberRecord>,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let mut changes: Vec<(u64, Option<MemberRecord>)> = Vec::new();
        for (id, record) in records {
            let told = match *id == self.raft_id {
                true => Some(self.own_record(record.voter)),
                false => self.peers.told(*id).map(|told| MemberRecord { voter: record.voter, ..told }),
            };
            changes.extend(told.filter(|t| t != record).map(|t| (*id, Some(t))));
        }
        if !changes.is_empty() && !self.members_in_flight() {
            self.write_members(changes, Purpose::Members, rng, out);
        }
    }

    /// Since when a member has kept up.
    pub(crate) fn stable_since(&self, id: u64) -> Option<Mono> {
        self.stabilising.0.get(&id).copied()
    }

    fn note_stability(&mut self, status: &Status) {
        let behind = self.autopilot().max_trailing_logs;
        for (id, matched, _) in &status.peers {
            // raft's own mark of activity is cleared at each of its checks, just before this looks
            if self.is_fresh(*id) && matched.0 > 0 && matched.0 + behind >= status.committed.0 {
                self.stabilising.0.entry(*id).or_insert(self.now.mono);
            } else {
                self.stabilising.0.remove(id);
            }
        }
    }

    /// The rules of upkeep in force; the presets while sealed.
    pub(crate) fn autopilot(&self) -> Autopilot {
        let Some(unsealed) = &self.seal.unsealed else { return Autopilot::default() };
        autopilot(&mut Txn::new(&self.version, Some(unsealed.keyring()))).unwrap_or_default()
    }

    /// Takes a node out by name.
    pub(crate) fn remove_peer(
        &mut self,
        asker: (crate::ShardId, crate::Ticket),
        argument: &Value,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let name = argument.get("server_id").and_then(Value::as_str).unwrap_or("");
        let records = all(&self.version);
        let found = records.iter().find(|(_, r)| r.name == name).map(|(id, _)| *id);
        let others = records.values().any(|r| r.voter && r.name != name);
        let refuse = |text: &'static str| SideResult::Refused(Error::invalid(text));
        match found {
            Some(id) if others => {
                let purpose = Purpose::Operate(asker.0, asker.1, SideResult::Json(Value::Null));
                self.write_members(vec![(id, None)], purpose, rng, out);
            }
            Some(_) => out.push(OwnerOut::OperateDone(asker.0, asker.1, refuse("the last voter cannot be removed"))),
            // Vault answers well for a name that it does not know
            None => out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Json(Value::Null))),
        }
    }

    /// Says whether a node is to vote.
    pub(crate) fn set_voter(
        &mut self,
        asker: (crate::ShardId, crate::Ticket),
        argument: &Value,
        voter: bool,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let name = argument.get("server_id").and_then(Value::as_str).unwrap_or("");
        let records = all(&self.version);
        let others = records.values().any(|r| r.voter && r.name != name);
        let found = records.into_iter().find(|(_, r)| r.name == name);
        match found {
            Some((id, record)) if voter || others => {
                let purpose = Purpose::Operate(asker.0, asker.1, SideResult::Json(Value::Null));
                self.write_members(vec![(id, Some(MemberRecord { voter, ..record }))], purpose, rng, out);
            }
            Some(_) => {
                let e = Error::invalid("the last voter cannot be demoted");
                out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Refused(e)));
            }
            None => {
                let e = Error::invalid(format!("no node {name:?} in the cluster"));
                out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Refused(e)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(name: &str, voter: bool) -> MemberRecord {
        MemberRecord { name: name.into(), voter, pins: vec![[7; 32]], ..MemberRecord::default() }
    }

    #[test]
    fn records_survive() {
        let r = MemberRecord {
            name: "a".into(),
            cluster_addr: "https://127.0.0.1:8201".into(),
            api_addr: "http://127.0.0.1:8200".into(),
            pins: vec![[1; 32], [2; 32]],
            voter: true,
            version: "1".into(),
        };
        assert_eq!(MemberRecord::decode(&r.encode()), Ok(r));
        assert!(MemberRecord::decode(&[]).is_err() && MemberRecord::decode(&[9]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_record(bytes: Vec<u8>) {
            let _ = MemberRecord::decode(&bytes);
        }

        /// Whatever table and configuration: following the wishes ends, with raft as the table says.
        #[test]
        fn wishes_lead_to_the_table(
            table in prop::collection::btree_map(1u64..8, any::<bool>(), 1..6),
            members in prop::collection::btree_map(1u64..8, any::<bool>(), 0..6),
        ) {
            let mut records: BTreeMap<u64, MemberRecord> =
                table.into_iter().map(|(id, voter)| (id, record("n", voter))).collect();
            // the leader votes, and is wished to
            records.insert(1, record("leader", true));
            let mut voters: Vec<u64> = members.iter().filter(|(id, v)| **v && **id != 1).map(|(id, _)| *id).collect();
            voters.insert(0, 1);
            let learners = members.iter().filter(|(id, v)| !**v && **id != 1).map(|(id, _)| *id).collect();
            let mut conf = ConfState { voters, learners, ..ConfState::default() };
            for _ in 0..40 {
                match next_wish(&Picture { own: 1, records: &records, conf: &conf, stable: &|_| true }) {
                    Wish::Nothing => break,
                    Wish::HandOver => prop_assert!(false, "the leader is to stay"),
                    Wish::Change(change) => {
                        let (ConfChange::AddVoter(id) | ConfChange::AddLearner(id) | ConfChange::Remove(id)) = change;
                        conf.voters.retain(|v| *v != id);
                        conf.learners.retain(|v| *v != id);
                        match change {
                            ConfChange::AddVoter(id) => conf.voters.push(id),
                            ConfChange::AddLearner(id) => conf.learners.push(id),
                            ConfChange::Remove(_) => {}
                        }
                    }
                }
            }
            conf.voters.sort_unstable();
            conf.learners.sort_unstable();
            let wished = |v: bool| records.iter().filter(|(_, r)| r.voter == v).map(|(id, _)| *id).collect::<Vec<_>>();
            prop_assert_eq!(conf.voters, wished(true));
            prop_assert_eq!(conf.learners, wished(false));
        }
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over() {
        let records = BTreeMap::from([(2, record("b", true))]);
        let conf = ConfState { voters: vec![1, 2], ..ConfState::default() };
        let picture = Picture { own: 1, records: &records, conf: &conf, stable: &|_| true };
        assert_eq!(next_wish(&picture), Wish::HandOver);
    }
}
