//! Upkeep of the cluster by the active node: how healthy each member is, and taking out those that have been dead for
//! long, if the operator wishes it. When a new member votes is [`crate::members`]' to say.

use crate::members::{self, MemberRecord};
use crate::owner::{Level, Owner, OwnerOut, Purpose};
use crate::status::strip_scheme;
use ringfence_base::duration::go_string;
use ringfence_base::{Entropy, Wall};
use ringfence_logical::Map;
use ringfence_raft::ConfState;
use ringfence_vault::sys::raft::Autopilot;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SECOND_NS: u64 = 1_000_000_000;

/// The member to take out, if there is one: silent for longer than the rules allow, and neither the least number of
/// voters nor the majority of those that are up is touched.
fn dead_member(
    rules: &Autopilot,
    conf: &ConfState,
    records: &BTreeMap<u64, MemberRecord>,
    own: u64,
    silent_ns: &dyn Fn(u64) -> u64,
) -> Option<u64> {
    if !rules.cleanup_dead_servers || !conf.voters_outgoing.is_empty() {
        return None;
    }
    let dead_ns = rules.dead_server_last_contact_threshold.saturating_mul(SECOND_NS);
    let dead = |id: u64| id != own && silent_ns(id) >= dead_ns;
    let candidate = records.keys().copied().find(|id| dead(*id))?;
    if !conf.voters.contains(&candidate) {
        return Some(candidate);
    }
    let alive = conf.voters.iter().filter(|id| !dead(**id)).count();
    let left = conf.voters.len() - 1;
    (left as u64 >= rules.min_quorum && alive > conf.voters.len() / 2).then_some(candidate)
}

impl Owner {
    /// How long a member has not been heard, ns; since this node leads at most.
    fn silent_ns(&self, id: u64) -> u64 {
        let heard = self.peers.last(id).map_or(self.leading_since, |(at, _)| at.max(self.leading_since));
        self.now.mono.since(heard)
    }

    /// Takes one dead member out. True if it did.
    pub(crate) fn clean_up(
        &mut self,
        records: &BTreeMap<u64, MemberRecord>,
        conf: &ConfState,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> bool {
        let found = dead_member(&self.autopilot(), conf, records, self.raft_id, &|id| self.silent_ns(id));
        let Some(id) = found else { return false };
        let name = records.get(&id).map_or("", |r| r.name.as_str());
        out.push(OwnerOut::Log(
            Level::Warn,
            format!("node {name:?} is dead for long and is taken out of the cluster"),
        ));
        self.write_members(vec![(id, None)], Purpose::Members, rng, out);
        true
    }

    /// `sys/storage/raft/autopilot/state`.
    pub(crate) fn autopilot_state(&self) -> Value {
        let Some(status) = self.raft_status() else { return Value::Null };
        let rules = self.autopilot();
        let mut records = members::all(&self.version);
        if records.is_empty() {
            // a node that nobody has joined has no records
            records.insert(self.raft_id, self.own_record(true));
        }
        let (mut servers, mut voters, mut others) = (Map::new(), Vec::new(), Vec::new());
        let (mut all_well, mut voters_well, mut leader) = (true, 0usize, String::new());
        for (id, record) in &records {
            let is_own = *id == self.raft_id;
            let votes = self.conf_state().voters.contains(id);
            let heard = self.peers.last(*id);
            let silent_ns = if is_own { 0 } else { self.silent_ns(*id) };
            let matched = status.peers.iter().find(|(peer, ..)| peer == id).map_or(0, |(_, matched, _)| matched.0);
            let last_index = if is_own { status.last.0 } else { matched };
            let term = if is_own { status.role.term } else { heard.map_or(Default::default(), |(_, e)| e.term) };
            let well = is_own
                || (heard.is_some()
                    && silent_ns <= rules.last_contact_threshold.saturating_mul(SECOND_NS)
                    && term == status.role.term
                    && last_index.saturating_add(rules.max_trailing_logs) >= status.committed.0);
            all_well &= well;
            voters_well += usize::from(votes && well);
            let shown = match (*id == status.role.leader_id, votes) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "non-voter",
            };
            if *id == status.role.leader_id {
                leader = record.name.clone();
            }
            if votes {
                voters.push(record.name.clone())
            } else {
                others.push(record.name.clone())
            }
            let since = match is_own {
                true => self.seal.active_since.unwrap_or(self.now.wall),
                false => match self.stable_since(*id) {
                    Some(at) => Wall(self.now.wall.0.saturating_sub(self.now.mono.since(at))),
                    None => self.now.wall,
                },
            };
            let row = json!({
                "id": record.name, "name": record.name, "address": strip_scheme(&record.cluster_addr),
                "node_status": if well { "alive" } else { "failed" },
                "last_contact": go_string(i64::try_from(silent_ns / 1_000_000).unwrap_or(0).saturating_mul(1_000_000)),
                "last_term": term.0, "last_index": last_index, "healthy": well, "stable_since": since.rfc3339(),
                "status": shown, "version": self.vault.settings.api_version,
                "node_type": if votes { "voter" } else { "non-voter" }, "meta": Value::Null,
            });
            servers.insert(record.name.clone(), row);
        }
        let quorum = voters.len() / 2 + 1;
        let tolerance = voters_well.saturating_sub(quorum);
        json!({
            "healthy": all_well, "failure_tolerance": tolerance, "servers": servers, "leader": leader,
            "voters": voters, "non_voters": if others.is_empty() { Value::Null } else { json!(others) },
            "optimistic_failure_tolerance": tolerance,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_taken_out_while_enough_are_left() {
        let records: BTreeMap<u64, MemberRecord> = (1..=5).map(|id| (id, MemberRecord::default())).collect();
        let rules = Autopilot {
            cleanup_dead_servers: true,
            min_quorum: 3,
            dead_server_last_contact_threshold: 60,
            ..Autopilot::default()
        };
        let conf = |voters: &[u64]| ConfState { voters: voters.to_vec(), ..ConfState::default() };
        let silent = |dead: &'static [u64]| move |id: u64| if dead.contains(&id) { 61 * SECOND_NS } else { 0 };
        let five = conf(&[1, 2, 3, 4, 5]);
        assert_eq!(dead_member(&rules, &five, &records, 1, &silent(&[])), None);
        assert_eq!(dead_member(&rules, &five, &records, 1, &silent(&[4, 5])), Some(4));
        // two of five are up: whoever is silent may only be cut off
        assert_eq!(dead_member(&rules, &five, &records, 1, &silent(&[3, 4, 5])), None);
        // three voters stay
        let three: BTreeMap<_, _> = records.clone().into_iter().filter(|(id, _)| *id <= 3).collect();
        assert_eq!(dead_member(&rules, &conf(&[1, 2, 3]), &three, 1, &silent(&[3])), None);
        // one without a vote does not count
        assert_eq!(dead_member(&rules, &conf(&[1, 2]), &three, 1, &silent(&[3])), Some(3));
        assert_eq!(
            dead_member(&Autopilot { cleanup_dead_servers: false, ..rules }, &five, &records, 1, &silent(&[4])),
            None
        );
    }
}
