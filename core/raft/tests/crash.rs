//! Pulls the plug at thousands of places and looks at what is left; flips bits; fills the disk; fails flushes.

mod common;

use common::{CLUSTER, Dice, Node, config};
use ringfence_base::{Index, Term};
use ringfence_raft::{Damage, DiskFault, Member, ProposeError, RecoveryInput, SegmentInput, SegmentNo, recover};

/// Random life of a lone node up to a random moment.
fn live(node: &mut Node, rng: &mut Dice, steps: u64) {
    for _ in 0..steps {
        match rng.below(10) {
            0..=3 => {
                let len = match rng.below(6) {
                    0 => 1 + rng.below(20_000),
                    _ => 1 + rng.below(500),
                };
                let data = rng.bytes(len as usize);
                let _ = node.propose(data);
                if rng.one_in(3) {
                    node.poll();
                }
            }
            4 => node.tick(rng),
            5 => {
                if node.wants_checkpoint || rng.one_in(20) {
                    node.checkpoint();
                }
            }
            6 => {
                node.perform(false);
            }
            _ => {
                node.perform(true);
            }
        }
        assert!(!node.halted);
    }
}

/// Story: power fails while a write is under way, again and again, also during recovery's first writes. Nothing that
/// was acknowledged may be missing or half there.
#[test]
fn acknowledged_entries_survive_any_crash() {
    let (mut cuts, mut crashes, mut segments) = (0, 0, 0);
    for seed in 0..150 {
        let mut rng = Dice::new(seed);
        let mut node = Node::bootstrap(config(7));
        for _generation in 0..12 {
            let steps = 1 + rng.below(160);
            live(&mut node, &mut rng, steps);
            crashes += 1;
            let (image, proposed, acknowledged) = (node.image.clone(), node.proposed.clone(), node.applied);
            let disk = node.crash(&mut rng);
            let found = match disk.recover() {
                Ok(found) => found,
                Err(c) => {
                    assert_eq!(c.what, Damage::NeverBegan, "seed {seed}: {c}");
                    assert_eq!(acknowledged, 0, "seed {seed}: acknowledged entries are missing");
                    node = Node::bootstrap(config(7));
                    continue;
                }
            };
            cuts += found.cut.is_some() as u32;
            segments = segments.max(disk.segments.keys().last().copied().unwrap_or(0));
            assert!(found.last.0 >= acknowledged, "seed {seed}: {} < {acknowledged}", found.last);
            for (Term(term), Index(index), body) in found.entries() {
                if let Some((t, _)) = image.get(&index) {
                    assert_eq!(*t, term, "seed {seed}: acknowledged entry {index} has another term");
                }
                if let Some(data) = proposed.get(&(term, index)) {
                    assert_eq!(&data[..], &body[..], "seed {seed}: entry {index} is not what was proposed");
                }
            }
            node = Node::again(config(7), found, disk, rng.one_in(2));
            node.remember(image, proposed);
            if rng.one_in(3) {
                node.settle();
                assert!(node.member.role().ready, "seed {seed}: a lone voter leads at once");
                assert!(node.applied > acknowledged);
            }
        }
    }
    assert!(crashes > 1500 && cuts > 100, "the test reaches what it is about: {crashes} crashes, {cuts} cuts");
    assert!(segments > 8, "segments were crossed and recycled: {segments}");
}

/// Story: a bit rots in a write that was acknowledged long ago. Recovery must not cut the log there, but name the
/// place; only the very last write can pass for a tear.
#[test]
fn rot_in_the_middle_is_named() {
    let (mut named, mut cut) = (0, 0);
    for seed in 0..300 {
        let mut rng = Dice::new(1000 + seed);
        let mut node = Node::bootstrap(config(7));
        live(&mut node, &mut rng, 120);
        node.settle();
        let last = node.log_writes.last().copied();
        let writes: Vec<_> =
            node.log_writes.iter().copied().filter(|w| node.disk.segments.contains_key(&w.0)).collect();
        let mut disk = node.disk.clone();
        let whole = disk.recover().expect("the disk is whole");
        assert!(whole.cut.is_none());
        let (segment, offset, len) = writes[rng.below(writes.len() as u64) as usize];
        let bit = rng.below(len as u64 * 8);
        disk.segments.get_mut(&segment).expect("filtered")[(offset + bit / 8) as usize] ^= 1 << (bit % 8);
        match disk.recover() {
            Err(c) => {
                assert_eq!(c.what, Damage::Rot, "seed {seed}");
                assert_eq!((c.segment, c.offset), (Some(SegmentNo(segment)), offset), "seed {seed}");
                named += 1;
            }
            Ok(found) if Some((segment, offset, len)) == last => {
                let tail = found.cut.expect("a bad last write is reported as cut");
                assert_eq!((tail.segment, tail.offset), (SegmentNo(segment), offset));
                let covered = disk.checkpoint.as_ref().map_or(Index(0), |c| c.index);
                assert!(found.last < whole.last || found.last == covered);
                cut += 1;
            }
            // below the checkpoint nothing is needed
            Ok(found) => assert!(found.entries().eq(whole.entries()), "seed {seed}"),
        }
    }
    assert!(named > 40 && cut > 2, "{named} named, {cut} cut");
}

/// Story: the vote of a term was durable and its slot rots. The older state must not be used: the log knows the term.
#[test]
fn slots_that_fell_behind_are_refused() {
    let mut node = Node::bootstrap(config(7));
    node.settle();
    node.propose(vec![1; 10]).expect("a lone voter leads");
    node.settle();
    let mut disk = node.disk.clone();
    // one rotten sector of the newest pair: its twin serves
    let newest = disk.slots.len() / 2 * (disk.recover().expect("whole").term.0 % 2) as usize;
    disk.slots[newest + 50] ^= 1;
    assert_eq!(disk.recover().expect("the twin serves").term, Term(2));
    disk.slots[newest + 4096 + 50] ^= 1;
    assert_eq!(disk.recover().expect_err("only the older state is left").what, Damage::SlotsBehind);
    disk.slots.clear();
    assert_eq!(disk.recover().expect_err("no slots").what, Damage::SlotsLost);
}

#[test]
fn missing_segments_and_checkpoints_are_named() {
    let mut rng = Dice::new(5);
    let mut node = Node::bootstrap(config(7));
    node.settle();
    for _ in 0..40 {
        node.propose(rng.bytes(9000)).expect("leads");
        node.settle();
    }
    assert!(node.disk.segments.len() > 4);
    let mut disk = node.disk.clone();
    disk.segments.remove(&2);
    let c = disk.recover().expect_err("a segment is gone");
    assert_eq!((c.what, c.segment), (Damage::SegmentMissing, Some(SegmentNo(1))));

    node.checkpoint();
    node.settle();
    let mut disk = node.disk.clone();
    assert!(!disk.segments.contains_key(&1), "old segments are recycled or removed");
    assert!(disk.segments.len() <= 4, "{:?}", disk.segments.keys());
    disk.recover().expect("whole");
    disk.checkpoint = None;
    assert_eq!(disk.recover().expect_err("no checkpoint").what, Damage::CheckpointMissing);
    let foreign = recover(RecoveryInput {
        cluster_id: Some(*b"another cluster!"),
        slots: &node.disk.slots,
        segments: Vec::new(),
        checkpoint: None,
    });
    assert_eq!(foreign.expect_err("foreign").what, Damage::ForeignCluster);
    assert_ne!(*b"another cluster!", CLUSTER);
}

/// Story: the disk fills up. Writes are refused in time, reads go on, and when there is space again so do writes.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut rng = Dice::new(1);
    let mut node = Node::bootstrap(config(7));
    node.settle();
    node.full = true;
    let mut accepted = 0;
    let refused = loop {
        match node.propose(rng.bytes(3000)) {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
        node.settle();
        assert!(accepted < 100, "the disk must be noticed");
    };
    assert_eq!(refused, ProposeError::NoRoom);
    assert!(node.member.status().no_room);
    assert_eq!(node.applied, 2 + accepted, "everything accepted was committed");
    node.member.read_index(9).expect("reads go on");
    node.member.poll(&mut node.effects);
    assert_eq!(node.effects.reads.len(), 1);

    for _ in 0..30 {
        node.tick(&mut rng);
        node.settle();
    }
    assert_eq!(node.propose(vec![1]), Err(ProposeError::NoRoom), "still full");
    node.full = false;
    for _ in 0..30 {
        node.tick(&mut rng);
        node.settle();
    }
    for _ in 0..50 {
        node.propose(rng.bytes(3000)).expect("there is room again");
        node.settle();
    }
    assert_eq!(node.applied, 2 + accepted + 50);
    assert_eq!(node.disk.recover().expect("whole").last, Index(node.applied));
}

/// Story: a flush fails. What the kernel dropped cannot be known, so nothing may be acknowledged or tried again.
#[test]
fn a_failed_flush_halts() {
    let mut node = Node::bootstrap(config(7));
    node.settle();
    node.propose(vec![1; 100]).expect("leads");
    node.poll();
    let op = node.writes.pop_front().expect("a write is under way");
    node.propose(vec![2; 100]).expect("goes into the next write");
    let applied = node.applied;
    node.member.disk_done(op.id(), Err(DiskFault::Io));
    node.poll();
    assert!(node.halted);
    assert!(node.writes.is_empty() && node.effects.send.is_empty());
    assert_eq!(node.applied, applied);
    assert_eq!(node.propose(vec![3]), Err(ProposeError::NotLeader));
    node.member.disk_done(op.id(), Ok(()));
    node.poll();
    assert_eq!(node.applied, applied, "a late success changes nothing");
}

/// Everything proposed during a write is the next write, and nothing is committed before its write is done.
#[test]
fn proposals_gather_while_a_write_is_under_way() {
    let mut node = Node::bootstrap(config(7));
    node.settle();
    let before = node.log_writes.len();
    for i in 0..100u8 {
        node.propose(vec![i; 50]).expect("leads");
        node.poll();
    }
    let applied = node.applied;
    assert_eq!(node.writes.len(), 1, "one write in flight");
    node.perform(true);
    assert_eq!(node.applied, applied + 1, "the first write held the first proposal alone");
    node.settle();
    assert_eq!(node.applied, applied + 100);
    assert_eq!(node.log_writes.len() - before, 2, "the other 99 went together");
}

/// The same seed gives the same operations, byte for byte.
#[test]
fn runs_are_reproducible() {
    let run = |seed| {
        let mut rng = Dice::new(seed);
        let mut node = Node::bootstrap(config(7));
        live(&mut node, &mut rng, 400);
        (node.disk.slots.clone(), node.disk.segments.clone(), node.applied)
    };
    assert!(run(3) == run(3));
    assert!(run(3) != run(4));
}

mod any_bytes {
    use super::*;
    use proptest::prelude::*;

    fn grown(seed: u64) -> common::Platter {
        let mut rng = Dice::new(seed);
        let mut node = Node::bootstrap(config(7));
        live(&mut node, &mut rng, 100);
        node.settle();
        node.disk
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

        /// Damage of any kind: no panic, and entries that are handed out are a prefix of what was written.
        #[test]
        fn any_damage_is_safe(
            seed in 0..8u64,
            hits in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u8>(), 1..5000usize), 1..6),
        ) {
            let mut disk = grown(seed);
            let whole = disk.recover().expect("whole");
            for (place, at, byte, len) in hits {
                let keys: Vec<u64> = disk.segments.keys().copied().collect();
                let key = keys[(place % keys.len() as u64) as usize];
                let file = match place % 7 {
                    0 => &mut disk.slots,
                    _ => disk.segments.get_mut(&key).expect("listed"),
                };
                let at = (at % file.len() as u64) as usize;
                let end = (at + len).min(file.len());
                file[at..end].fill(byte);
                if byte == 7 {
                    file.truncate(at);
                    file.push(0);
                }
            }
            if let Ok(found) = disk.recover() {
                let all: Vec<_> = whole.entries().collect();
                let left: Vec<_> = found.entries().collect();
                prop_assert!(all.starts_with(&left));
                let _ = Member::restart(config(7), found);
            }
        }

        #[test]
        fn noise_is_safe(slots: Vec<u8>, mut file in prop::collection::vec(any::<u8>(), 0..20_000)) {
            for (k, sector) in file.chunks_mut(4096).enumerate() {
                if k % 2 == 0 {
                    sector[0] = b'W';
                }
            }
            let input = RecoveryInput {
                cluster_id: None,
                slots: &slots,
                segments: vec![SegmentInput { segment: SegmentNo(1), content: &file }],
                checkpoint: None,
            };
            prop_assert!(recover(input).is_err());
        }
    }
}
