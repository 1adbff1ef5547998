//! Three members in memory, over the wire codec, with lost and late messages: election, replication, change of
//! leader, membership, checkpoints for followers.

mod common;

use bytes::Bytes;
use common::{Dice, Node, Platter, config};
use ringfence_base::{Index, Term};
use ringfence_raft::{
    Checkpoint, CommandError, ConfChange, DiskFault, Effects, Member, Payload, ProposeError, WireError,
};
use std::collections::{BTreeMap, VecDeque};

struct Net {
    nodes: BTreeMap<u64, Node>,
    /// (from, to, bytes)
    mail: VecDeque<(u64, u64, Vec<u8>)>,
    dice: Dice,
    cut_off: Vec<u64>,
    lossy: bool,
    /// All members' images by index; they must agree.
    truth: BTreeMap<u64, (u64, Payload)>,
}

impl Net {
    fn founded(ids: &[u64], seed: u64) -> Net {
        let nodes =
            ids.iter().map(|&id| (id, Node::over(Member::found(config(id), ids), Platter::default()))).collect();
        Net {
            nodes,
            mail: VecDeque::new(),
            dice: Dice::new(seed),
            cut_off: Vec::new(),
            lossy: false,
            truth: BTreeMap::new(),
        }
    }

    /// Takes one member's messages and installs a snapshot offered to it.
    fn collect(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("known");
        for e in node.effects.send.drain(..) {
            self.mail.push_back((id, e.to, e.bytes));
        }
        if let Some(offer) = node.effects.snapshot.take() {
            // the checkpoint arrives and is durable
            let Checkpoint { index, conf, .. } = offer.checkpoint.clone();
            node.disk.checkpoint = Some(offer.checkpoint);
            (node.applied, node.conf) = (index.0, conf);
            node.member.snapshot_installed(index);
            node.settle();
            self.collect(id);
            return;
        }
        if std::mem::take(&mut node.effects.want_snapshot) {
            node.checkpoint();
        }
        for (index, entry) in &node.image {
            let before = self.truth.entry(*index).or_insert_with(|| entry.clone());
            assert_eq!(before, entry, "images agree at index {index}");
        }
    }

    fn step(&mut self, ticks: bool) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).expect("listed");
            if ticks {
                node.tick(&mut self.dice);
            }
            node.settle();
            self.collect(id);
        }
        for _ in 0..self.mail.len() {
            let (from, to, bytes) = self.mail.pop_front().expect("counted");
            if self.cut_off.contains(&from) || self.cut_off.contains(&to) || (self.lossy && self.dice.one_in(8)) {
                continue;
            }
            if self.lossy && self.dice.one_in(6) {
                self.mail.push_back((from, to, bytes));
                continue;
            }
            if let Some(node) = self.nodes.get_mut(&to) {
                match node.member.step(from, &bytes) {
                    Ok(()) | Err(WireError::NotExpected) => {}
                    Err(e) => panic!("{from} to {to}: {e}"),
                }
                node.settle();
                self.collect(to);
            }
        }
    }

    fn leader(&self) -> Option<u64> {
        let ready = self.nodes.iter().filter(|(id, n)| n.member.role().ready && !self.cut_off.contains(id));
        ready.max_by_key(|(_, n)| n.member.role().term).map(|(&id, _)| id)
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Net) -> bool) {
        for _ in 0..2000 {
            if done(self) {
                return;
            }
            self.step(true);
        }
        panic!("never happened: {what}");
    }

    fn propose(&mut self, id: u64, data: Vec<u8>) -> u64 {
        let node = self.nodes.get_mut(&id).expect("known");
        let position = node.member.propose(data.clone()).expect("a ready leader takes it");
        // all members check what they apply against what was proposed
        for node in self.nodes.values_mut() {
            node.proposed.insert((position.term.0, position.index.0), data.clone());
        }
        position.index.0
    }

    fn all_applied(&self, index: u64) -> bool {
        self.nodes.iter().all(|(id, n)| self.cut_off.contains(id) || n.applied >= index)
    }
}

#[test]
fn three_members_elect_replicate_and_change_leader() {
    for seed in 0..10 {
        let mut net = Net::founded(&[1, 2, 3], seed);
        net.lossy = seed % 2 == 1;
        net.until("an election", |n| n.leader().is_some());
        let first = net.leader().expect("elected");
        let mut last = 0;
        for i in 0..30u8 {
            if let Some(leader) = net.leader() {
                last = net.propose(leader, vec![i; 100 + 10 * i as usize]);
            }
            net.step(true);
        }
        net.lossy = false;
        net.until("replication", |n| n.all_applied(last));

        // the leader is cut off: another is elected, what was committed stays
        let first = net.leader().unwrap_or(first);
        net.cut_off = vec![first];
        net.until("another leader", |n| n.leader().is_some());
        let second = net.leader().expect("elected");
        assert_ne!(first, second);
        let index = net.propose(second, b"while the old leader is away".to_vec());
        net.until("commit by two", |n| n.all_applied(index));
        // the old leader noticed by itself, and refuses
        net.until("the old leader steps down", |n| !n.nodes[&first].member.role().is_leader);
        let old = net.nodes.get_mut(&first).expect("known");
        assert_eq!(old.member.propose(vec![1]), Err(ProposeError::NotLeader));
        net.cut_off.clear();
        net.until("the old leader catches up", |n| n.all_applied(index));
        for (index, node) in &net.nodes {
            let found = node.disk.recover().expect("whole");
            assert_eq!(found.last.0, node.member.status().last.0, "member {index}");
        }
    }
}

/// The same seed gives the same bytes on every disk, election timeouts included.
#[test]
fn runs_are_reproducible() {
    let run = |seed| {
        let mut net = Net::founded(&[1, 2, 3], seed);
        net.lossy = true;
        for i in 0..300u32 {
            if let Some(leader) = net.leader() {
                net.propose(leader, i.to_le_bytes().repeat(20));
            }
            if i % 100 == 99 {
                net.cut_off = net.leader().into_iter().collect();
            }
            net.step(true);
        }
        net.nodes.into_values().map(|n| (n.disk.slots, n.disk.segments, n.applied)).collect::<Vec<_>>()
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}

/// A proposal that lost its leader is overwritten: the waiter sees another term at its index.
#[test]
fn a_lost_proposal_is_seen_as_another_term() {
    let mut net = Net::founded(&[1, 2, 3], 7);
    net.until("an election", |n| n.leader().is_some());
    let old = net.leader().expect("elected");
    net.until("all in step", |n| n.nodes.values().all(|m| m.applied == n.nodes[&old].applied));
    net.cut_off = vec![old];
    let index = net.propose(old, b"nobody hears this".to_vec());
    let term = net.nodes[&old].member.role().term.0;
    net.until("another leader", |n| n.leader().is_some());
    let new = net.leader().expect("elected");
    let next = net.propose(new, b"this one counts".to_vec());
    net.until("commit", |n| n.all_applied(next));
    net.cut_off.clear();
    net.until("the old leader follows", |n| n.all_applied(next));
    let (there, _) = &net.nodes[&old].image[&index];
    assert!(*there > term, "another term at the waiter's index");
    // the log on disk holds both, and recovery takes the later one
    let found = net.nodes[&old].disk.recover().expect("whole");
    let entry = found.entries().find(|e| e.1 == Index(index)).expect("there");
    assert_eq!(entry.0, Term(*there));
}

#[test]
fn members_crash_and_return() {
    for seed in 20..30 {
        let mut net = Net::founded(&[1, 2, 3], seed);
        net.until("an election", |n| n.leader().is_some());
        for round in 0..12u8 {
            if let Some(leader) = net.leader() {
                net.propose(leader, vec![round; 3000]);
                let node = net.nodes.get_mut(&leader).expect("known");
                node.poll();
            }
            let victim = 1 + net.dice.below(3);
            let node = net.nodes.remove(&victim).expect("known");
            let (image, proposed, applied) = (node.image.clone(), node.proposed.clone(), node.applied);
            let disk = node.crash(&mut net.dice);
            let found = disk.recover().expect("a tear is not a corruption");
            assert!(found.last.0 >= applied);
            let mut node = Node::again(config(victim), found, disk, net.dice.one_in(2));
            node.remember(image, proposed);
            net.nodes.insert(victim, node);
            for _ in 0..net.dice.below(40) {
                net.step(true);
            }
        }
        net.until("a leader again", |n| n.leader().is_some());
        let leader = net.leader().expect("elected");
        let index = net.propose(leader, b"served again after healing".to_vec());
        net.until("commit", |n| n.all_applied(index));
    }
}

#[test]
fn transfer_membership_and_read_index() {
    let mut net = Net::founded(&[1], 3);
    net.until("a lone voter leads", |n| n.leader() == Some(1));
    for i in 0..30u8 {
        net.propose(1, vec![i; 5000]);
        net.step(false);
    }
    // entries are gone from memory: whoever joins needs the checkpoint
    net.nodes.get_mut(&1).expect("known").checkpoint();
    net.step(false);
    for id in [2, 3] {
        net.nodes.insert(id, Node::over(Member::join(config(id)), Platter::default()));
        let proposed = net.nodes[&1].proposed.clone();
        net.nodes.get_mut(&id).expect("added").proposed = proposed;
        let one = net.nodes.get_mut(&1).expect("known");
        one.member.propose_conf_change(&[ConfChange::AddLearner(id)]).expect("a ready leader");
        net.until("the learner", |n| n.nodes[&1].conf.learners.contains(&id));
        net.until("caught up", |n| n.nodes[&id].applied >= n.nodes[&1].applied && n.nodes[&id].applied > 0);
    }
    let one = net.nodes.get_mut(&1).expect("known");
    assert_eq!(one.member.transfer_leader(2), Err(CommandError::BadTarget), "a learner cannot lead");
    let both = [ConfChange::AddVoter(2), ConfChange::AddVoter(3)];
    one.member.propose_conf_change(&both).expect("a joint change");
    assert_eq!(one.member.propose_conf_change(&both), Err(CommandError::Busy));
    net.until("three voters", |n| n.nodes.values().all(|m| m.conf.voters == [1, 2, 3]));
    net.until("the joint configuration ends", |n| n.nodes.values().all(|m| m.conf.voters_outgoing.is_empty()));

    net.nodes.get_mut(&1).expect("known").member.transfer_leader(2).expect("a voter");
    let refused = net.nodes.get_mut(&1).expect("known").member.propose(vec![1]);
    assert_eq!(refused, Err(ProposeError::Transferring));
    net.until("member 2 leads", |n| n.leader() == Some(2));

    // a follower asks the leader for a read index
    let index = net.propose(2, b"read me".to_vec());
    net.until("settled", |n| n.nodes[&3].member.role().leader_id == 2 && n.all_applied(index));
    net.nodes.get_mut(&3).expect("known").member.read_index(77).expect("a leader is known");
    net.until("the read index", |n| !n.nodes[&3].effects.reads.is_empty());
    let read = net.nodes[&3].effects.reads[0];
    assert_eq!(read.ctx, 77);
    assert!(read.index.0 <= net.nodes[&2].applied && read.index.0 >= index);

    // a restart recomputes membership from the checkpoint and the log, whether the log is handed out again or not
    for ahead in [false, true] {
        let node = net.nodes.remove(&3).expect("known");
        let (image, proposed, conf) = (node.image.clone(), node.proposed.clone(), node.conf.clone());
        let found = node.disk.recover().expect("whole");
        let mut node = Node::again(config(3), found, node.disk, ahead);
        node.remember(image, proposed);
        net.nodes.insert(3, node);
        let index = net.propose(2, b"one more".to_vec());
        net.until("caught up", |n| n.all_applied(index));
        assert_eq!(net.nodes[&3].member.conf(), conf);
    }
}

/// A sealed node ticks, votes and follows but never campaigns.
#[test]
fn an_unelectable_member_never_campaigns() {
    let mut net = Net::founded(&[1, 2, 3], 11);
    for id in [2, 3] {
        net.nodes.get_mut(&id).expect("known").member.set_electable(false);
    }
    net.until("member 1 leads", |n| n.leader() == Some(1));
    net.cut_off = vec![1];
    for _ in 0..200 {
        net.step(true);
    }
    assert_eq!(net.leader(), None);
    net.nodes.get_mut(&3).expect("known").member.set_electable(true);
    net.until("member 3 leads", |n| n.leader() == Some(3));
}

/// Story: a follower's directory was put back from an old copy. The leader knows better, and it is said by name.
#[test]
fn an_older_copy_of_a_directory_is_noticed() {
    let mut net = Net::founded(&[1, 2, 3], 5);
    net.until("an election", |n| n.leader().is_some());
    let leader = net.leader().expect("elected");
    let victim = 1 + leader % 3;
    let old = net.nodes[&victim].disk.clone();
    let index = net.propose(leader, b"acknowledged by all".to_vec());
    net.until("commit", |n| n.all_applied(index));
    let found = old.recover().expect("whole, only old");
    net.nodes.insert(victim, Node::over(Member::restart(config(victim), found), old));
    for _ in 0..100 {
        let node = net.nodes.get_mut(&leader).expect("known");
        node.tick(&mut net.dice);
        node.settle();
        for e in net.nodes.get_mut(&leader).expect("known").effects.send.drain(..).collect::<Vec<_>>() {
            let to = net.nodes.get_mut(&e.to).expect("known");
            if let Err(e) = to.member.step(leader, &e.bytes) {
                assert_eq!(e, WireError::LostEntries);
                return;
            }
        }
    }
    panic!("nobody noticed");
}

/// Whatever a peer sends, in any order: no panic.
#[test]
fn hostile_peers_are_survived() {
    use raft::eraftpb::{Entry, Message, MessageType, Snapshot};
    const TYPES: [MessageType; 12] = [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
    ];
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..600 {
        let mut dice = Dice::new(seed);
        let mut node = Node::over(Member::found(config(1), &[1, 2, 3]), Platter::default());
        node.settle();
        let mut effects = Effects::default();
        for _ in 0..120 {
            let term = node.member.status().role.term.0;
            let small = |d: &mut Dice| d.below(8);
            let mut m = Message { to: 1, from: 2 + dice.below(3), ..Default::default() };
            let kind = TYPES[dice.below(12) as usize];
            m.set_msg_type(kind);
            if kind != MessageType::MsgReadIndex {
                m.term = (term + dice.below(3)).saturating_sub(1);
            }
            (m.log_term, m.index, m.commit) = (small(&mut dice), small(&mut dice), small(&mut dice));
            (m.commit_term, m.reject, m.reject_hint) = (small(&mut dice), dice.one_in(3), small(&mut dice));
            if dice.one_in(6) {
                m.request_snapshot = small(&mut dice);
            }
            match kind {
                MessageType::MsgAppend => {
                    for i in 0..dice.below(4) {
                        let term = m.log_term + dice.below(2);
                        m.entries.push(Entry {
                            term,
                            index: m.index + 1 + i,
                            data: vec![7].into(),
                            ..Default::default()
                        });
                    }
                }
                MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
                    m.entries.push(Entry { data: dice.bytes(16).into(), ..Default::default() });
                }
                MessageType::MsgSnapshot => {
                    let mut s = Snapshot { data: Bytes::from_static(b"m"), ..Default::default() };
                    s.mut_metadata().index = dice.below(12);
                    s.mut_metadata().term = small(&mut dice);
                    s.mut_metadata().mut_conf_state().set_voters(vec![1, 2, 3]);
                    m.set_snapshot(s);
                }
                _ => {}
            }
            let bytes = ringfence_raft::wire::encode(&m).expect("a type for the wire");
            match node.member.step(m.from, &bytes) {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
            if dice.one_in(3) {
                node.member.tick(&mut dice.0);
            }
            if dice.one_in(2) {
                node.member.poll(&mut effects);
                if let Some(last) = effects.committed.last() {
                    node.member.applied(last.position.index);
                }
                for op in effects.disk.drain(..) {
                    node.member.disk_done(op.id(), Ok::<(), DiskFault>(()));
                }
                if let Some(offer) = effects.snapshot.take()
                    && dice.one_in(2)
                {
                    node.member.snapshot_installed(offer.checkpoint.index);
                }
                effects.clear();
            }
        }
    }
    assert!(taken > 5000 && refused > 1000, "{taken} taken, {refused} refused");
}
