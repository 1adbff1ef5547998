//! A log as one member writes it, and a follower that hears from anybody: the machines behind the targets of log
//! recovery and of peers' frames. Disk operations are done at once, in memory.

use crate::input::Input;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, Term};
use ringfence_raft::log::slots;
use ringfence_raft::{
    Corruption, DiskOp, Effects, Member, MemberConfig, Payload, Recovered, RecoveryInput, SECTOR, SegmentInput,
    SegmentNo, recover, wire,
};
use std::collections::BTreeMap;

const CLUSTER: [u8; 16] = *b"cluster-for-fuzz";
/// Small, so that a short run fills several.
const SEGMENT_BYTES: u64 = 8 * SECTOR as u64;

/// A data directory's log, and what was written to it.
#[derive(Clone, Debug, Default)]
pub struct Platter {
    /// The slots file.
    pub slots: Vec<u8>,
    /// Segments by number.
    pub segments: BTreeMap<u64, Vec<u8>>,
    /// Term, index and body of each entry, in order.
    pub log: Vec<(u64, u64, Vec<u8>)>,
}

impl Platter {
    /// Reads it as a node does at its start.
    ///
    /// # Errors
    /// What the node would name.
    pub fn recover(&self, knows_cluster: bool) -> Result<Recovered, Corruption> {
        recover(RecoveryInput {
            cluster_id: knows_cluster.then_some(CLUSTER),
            slots: &self.slots,
            segments: self
                .segments
                .iter()
                .map(|(&no, bytes)| SegmentInput { segment: SegmentNo(no), content: bytes })
                .collect(),
            checkpoint: None,
        })
    }

    fn perform(&mut self, op: &DiskOp) {
        match op {
            DiskOp::WriteLog { segment, offset, bytes, .. } => {
                let file = self.segments.get_mut(&segment.0).expect("writes go to prepared segments");
                file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            DiskOp::WriteSlot { offset, bytes, .. } => {
                self.slots.resize(slots::FILE_BYTES, 0);
                self.slots[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            DiskOp::PrepareSegment { segment, size, recycle, .. } => {
                let old = recycle.and_then(|old| self.segments.remove(&old.0));
                self.segments.insert(segment.0, old.unwrap_or_else(|| vec![0; *size as usize]));
            }
            DiskOp::RemoveSegment { segment, .. } => {
                self.segments.remove(&segment.0);
            }
        }
    }
}

fn config(raft_id: u64) -> MemberConfig {
    MemberConfig { segment_bytes: SEGMENT_BYTES, max_entry_bytes: 16_000, ..MemberConfig::new(raft_id, CLUSTER) }
}

/// Drives a member until it wants nothing; true unless it halted.
fn settle(member: &mut Member, platter: &mut Platter, heard: &mut Vec<(u64, Payload)>) -> bool {
    let mut effects = Effects::default();
    loop {
        effects.clear();
        member.poll(&mut effects);
        if effects.halt.is_some() {
            return false;
        }
        for op in &effects.disk {
            platter.perform(op);
            member.disk_done(op.id(), Ok(()));
        }
        for entry in effects.committed.drain(..) {
            let index = entry.position.index;
            heard.push((index.0, entry.payload));
            member.applied(index);
        }
        if let Some(offer) = effects.snapshot.take() {
            let index = offer.checkpoint.index;
            heard.clear();
            member.snapshot_installed(index);
            member.checkpointed(offer.checkpoint, offer.manifest);
            continue;
        }
        if effects.disk.is_empty() {
            return true;
        }
    }
}

/// The directory of a lone member that wrote entries of many sizes.
pub fn written() -> Platter {
    let (mut rng, mut platter, mut heard) = (SeededEntropy(3), Platter::default(), Vec::new());
    let mut member = Member::bootstrap(config(1));
    for _ in 0..100 {
        settle(&mut member, &mut platter, &mut heard);
        member.tick(&mut rng);
    }
    for n in 0..40u64 {
        let body = vec![n as u8 + 1; 1 + (rng.next_u64() % 3000) as usize];
        member.propose(body).expect("a lone member leads");
        if n % 3 == 0 {
            settle(&mut member, &mut platter, &mut heard);
        }
    }
    settle(&mut member, &mut platter, &mut heard);
    let found = platter.recover(true).expect("just written");
    assert_eq!(found.last, Index(heard.len() as u64), "every entry was committed");
    platter.log = found.entries().map(|(Term(t), Index(i), b)| (t, i, b.to_vec())).collect();
    platter
}

/// The first byte chooses. Even: the rest is one frame, which has one encoding if it can be read. Odd: a member of
/// three, given frames (`sender, length u16, bytes`) and time by the script: it never stops, and what it was told to
/// be committed stays as it is.
pub fn peer_frames(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        let frame = input.all();
        if let Ok(message) = wire::decode(frame) {
            assert_eq!(wire::encode(&message).as_deref(), Some(frame), "one message has one encoding");
        }
        return;
    }
    let (mut rng, mut platter, mut heard) = (SeededEntropy(9), Platter::default(), Vec::new());
    let mut member = Member::found(config(1), &[1, 2, 3]);
    settle(&mut member, &mut platter, &mut heard);
    let mut steps = 0;
    while !input.is_empty() && steps < 64 {
        steps += 1;
        match input.u8() {
            0xff => member.tick(&mut rng),
            0xfe => drop(member.propose(input.short().to_vec())),
            from => {
                let n = input.u16() as usize;
                let _ = member.step(u64::from(from), input.bytes(n));
            }
        }
        let before = heard.clone();
        if !settle(&mut member, &mut platter, &mut heard) {
            return;
        }
        let indexes: Vec<u64> = heard.iter().map(|(i, _)| *i).collect();
        assert!(indexes.windows(2).all(|w| w[1] == w[0] + 1), "committed without gaps: {indexes:?}");
        assert!(heard.len() < before.len() || heard[..before.len()] == before, "what was committed stays");
    }
}
