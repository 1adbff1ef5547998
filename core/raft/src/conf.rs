//! Membership: our own types, and the bounded reading of the one protobuf message that raft itself writes into the
//! log (`ConfChangeV2`).
//!
//! A membership entry's body is what raft's `propose_conf_change` serialises. It comes back from peers and from the
//! disk, so it is read by the small strict reader below and never by the protobuf crate (RUSTSEC-2024-0437:
//! unbounded recursion over unknown fields). The reader knows three fields, refuses all others and does not recurse.

use crate::log::recover::Checkpoint;
use crate::storage::Tail;
use raft::eraftpb;
use ringfence_base::CodecError;

/// Most members named in one change or one configuration.
pub const MAX_MEMBERS: usize = 64;

/// Who votes and who follows. Sorted, without doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters of the incoming (or only) configuration.
    pub voters: Vec<u64>,
    /// Followers without a vote.
    pub learners: Vec<u64>,
    /// Voters of the outgoing configuration while a joint change is under way.
    pub voters_outgoing: Vec<u64>,
    /// Voters of the outgoing configuration that become learners when it ends.
    pub learners_next: Vec<u64>,
    /// The joint configuration ends by itself.
    pub auto_leave: bool,
}

/// One step of a membership change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChange {
    /// Add a voter, or promote a learner.
    AddVoter(u64),
    /// Add a learner, or demote a voter.
    AddLearner(u64),
    /// Remove a voter or learner.
    Remove(u64),
}

impl ConfState {
    /// Checks what raft's own restore takes for granted and would panic over.
    pub fn is_sound(&self) -> bool {
        let lists = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next];
        let sorted = |l: &Vec<u64>| l.windows(2).all(|w| w[0] < w[1]);
        let joint = !self.voters_outgoing.is_empty();
        lists.iter().all(|l| l.len() <= MAX_MEMBERS && sorted(l) && l.first() != Some(&0))
            && (!self.voters.is_empty() || (self.learners.is_empty() && !joint))
            && self.learners.iter().all(|id| !self.voters.contains(id) && !self.voters_outgoing.contains(id))
            && self.learners_next.iter().all(|id| self.voters_outgoing.contains(id) && !self.voters.contains(id))
            && (joint || !self.auto_leave)
    }

    /// True if this id is a member in any part.
    pub fn contains(&self, raft_id: u64) -> bool {
        [&self.voters, &self.learners, &self.voters_outgoing].iter().any(|l| l.contains(&raft_id))
    }

    /// True if this member alone decides.
    pub fn is_lone_voter(&self, raft_id: u64) -> bool {
        self.voters == [raft_id] && self.voters_outgoing.is_empty()
    }

    /// The membership after these changes, as raft itself comes to it. A change that does not fit leaves it as it was,
    /// at every member alike.
    pub(crate) fn after(&self, raft_id: u64, changes: &[eraftpb::ConfChangeV2]) -> ConfState {
        if changes.is_empty() {
            return self.clone();
        }
        let at_base = Checkpoint { conf: self.clone(), ..Checkpoint::default() };
        let tail = Tail::new(at_base, ConfState::clone(self), Vec::new(), eraftpb::HardState::default());
        let config = raft::Config { id: raft_id, election_tick: 10, heartbeat_tick: 1, ..Default::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut raw = raft::RawNode::new(&config, tail, &logger).expect("a fixed configuration over an empty log");
        for change in changes {
            let _ = raw.apply_conf_change(change);
        }
        ConfState::from_raft(&raw.raft.prs().conf().to_conf_state())
    }

    pub(crate) fn to_raft(&self) -> eraftpb::ConfState {
        let mut cs = eraftpb::ConfState::default();
        cs.set_voters(self.voters.clone());
        cs.set_learners(self.learners.clone());
        cs.set_voters_outgoing(self.voters_outgoing.clone());
        cs.set_learners_next(self.learners_next.clone());
        cs.auto_leave = self.auto_leave;
        cs
    }

    pub(crate) fn from_raft(cs: &eraftpb::ConfState) -> ConfState {
        let sorted = |l: &[u64]| {
            let mut l = l.to_vec();
            l.sort_unstable();
            l
        };
        ConfState {
            voters: sorted(cs.get_voters()),
            learners: sorted(cs.get_learners()),
            voters_outgoing: sorted(cs.get_voters_outgoing()),
            learners_next: sorted(cs.get_learners_next()),
            auto_leave: cs.auto_leave,
        }
    }
}

/// The raft form of a list of changes; more than one goes through a joint configuration that ends by itself. An empty
/// list leaves a joint configuration.
pub(crate) fn to_raft(changes: &[ConfChange]) -> eraftpb::ConfChangeV2 {
    let mut cc = eraftpb::ConfChangeV2::default();
    for change in changes {
        let (id, kind) = match *change {
            ConfChange::AddVoter(id) => (id, eraftpb::ConfChangeType::AddNode),
            ConfChange::AddLearner(id) => (id, eraftpb::ConfChangeType::AddLearnerNode),
            ConfChange::Remove(id) => (id, eraftpb::ConfChangeType::RemoveNode),
        };
        let mut single = eraftpb::ConfChangeSingle { node_id: id, ..Default::default() };
        single.set_change_type(kind);
        cc.mut_changes().push(single);
    }
    cc
}

/// Writes what [`to_raft`] built, in the bytes that the protobuf crate would write.
pub(crate) fn encode(cc: &eraftpb::ConfChangeV2) -> Vec<u8> {
    use protobuf::Message;
    cc.write_to_bytes().expect("a message without required fields serialises into a growing buffer")
}

/// Reads the body of a membership entry. Strict: known fields only, at most [`MAX_MEMBERS`] changes, no context.
pub(crate) fn decode(body: &[u8]) -> Result<eraftpb::ConfChangeV2, CodecError> {
    let mut cc = eraftpb::ConfChangeV2::default();
    let mut r = ringfence_base::Reader::new(body);
    while !r.is_empty() {
        match r.u8()? {
            // field 1, varint: transition
            0x08 => cc.set_transition(match r.num()? {
                0 => eraftpb::ConfChangeTransition::Auto,
                1 => eraftpb::ConfChangeTransition::Implicit,
                2 => eraftpb::ConfChangeTransition::Explicit,
                _ => return Err(CodecError::BadNumber),
            }),
            // field 2, bytes: one change
            0x12 => {
                if cc.get_changes().len() >= MAX_MEMBERS {
                    return Err(CodecError::TooLong);
                }
                let single = decode_single(r.bytes(32)?)?;
                cc.mut_changes().push(single);
            }
            tag => return Err(CodecError::BadTag(tag)),
        }
    }
    Ok(cc)
}

fn decode_single(body: &[u8]) -> Result<eraftpb::ConfChangeSingle, CodecError> {
    let mut single = eraftpb::ConfChangeSingle::default();
    let mut r = ringfence_base::Reader::new(body);
    while !r.is_empty() {
        match r.u8()? {
            0x08 => single.set_change_type(match r.num()? {
                0 => eraftpb::ConfChangeType::AddNode,
                1 => eraftpb::ConfChangeType::RemoveNode,
                2 => eraftpb::ConfChangeType::AddLearnerNode,
                _ => return Err(CodecError::BadNumber),
            }),
            0x10 => single.node_id = r.num()?,
            tag => return Err(CodecError::BadTag(tag)),
        }
    }
    if single.node_id == 0 {
        return Err(CodecError::BadNumber);
    }
    Ok(single)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = ConfChange> {
        (0..3u8, 1..u64::MAX).prop_map(|(k, id)| match k {
            0 => ConfChange::AddVoter(id),
            1 => ConfChange::AddLearner(id),
            _ => ConfChange::Remove(id),
        })
    }

    proptest! {
        #[test]
        fn reads_what_raft_writes(changes in prop::collection::vec(change(), 0..8), transition in 0..3u8) {
            let mut cc = to_raft(&changes);
            cc.set_transition(match transition {
                0 => eraftpb::ConfChangeTransition::Auto,
                1 => eraftpb::ConfChangeTransition::Implicit,
                _ => eraftpb::ConfChangeTransition::Explicit,
            });
            prop_assert_eq!(decode(&encode(&cc)), Ok(cc));
        }

        #[test]
        fn any_bytes_are_safe(b: Vec<u8>) {
            let _ = decode(&b);
        }
    }

    #[test]
    fn unsound_configurations_are_named() {
        let ok = ConfState { voters: vec![1, 2], learners: vec![3], ..Default::default() };
        assert!(ok.is_sound() && ConfState::default().is_sound());
        for bad in [
            ConfState { voters: vec![2, 1], ..Default::default() },
            ConfState { voters: vec![0, 1], ..Default::default() },
            ConfState { voters: vec![1, 1], ..Default::default() },
            ConfState { voters: vec![1], learners: vec![1], ..Default::default() },
            ConfState { voters: vec![1], learners_next: vec![2], ..Default::default() },
            ConfState { voters: vec![1], auto_leave: true, ..Default::default() },
            ConfState { learners: vec![1], ..Default::default() },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }
}
