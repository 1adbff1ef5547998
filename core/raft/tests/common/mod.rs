//! A simulated disk and a lone node over it, shared by the tests of this folder.
#![allow(dead_code, reason = "each test binary uses its own part")]

use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Entropy, Index, Term};
use ringfence_raft::log::slots;
use ringfence_raft::{
    Checkpoint, Corruption, DiskFault, DiskOp, Effects, Member, MemberConfig, Payload, Position, Recovered,
    RecoveryInput, SECTOR, SegmentInput, SegmentNo, recover,
};
use std::collections::{BTreeMap, VecDeque};

pub const CLUSTER: [u8; 16] = *b"cluster-for-test";

/// Small segments, so that a short run crosses many of them.
pub fn config(raft_id: u64) -> MemberConfig {
    MemberConfig {
        segment_bytes: 16 * SECTOR as u64,
        max_entry_bytes: 20_000,
        checkpoint_bytes: 60_000,
        backlog_bytes: 10_000_000,
        trailing_entries: 5,
        ..MemberConfig::new(raft_id, CLUSTER)
    }
}

pub struct Dice(pub SeededEntropy);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(SeededEntropy(seed))
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut b = vec![0; len];
        self.0.fill(&mut b);
        b
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Platter {
    pub slots: Vec<u8>,
    pub segments: BTreeMap<u64, Vec<u8>>,
    pub checkpoint: Option<Checkpoint>,
}

impl Platter {
    pub fn recover(&self) -> Result<Recovered, Corruption> {
        recover(RecoveryInput {
            cluster_id: Some(CLUSTER),
            slots: &self.slots,
            segments: self
                .segments
                .iter()
                .map(|(&no, bytes)| SegmentInput { segment: SegmentNo(no), content: bytes })
                .collect(),
            checkpoint: self.checkpoint.clone(),
        })
    }

    fn apply(&mut self, op: &DiskOp) {
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
                let file = match recycle {
                    Some(old) => self.segments.remove(&old.0).expect("recycled segments exist"),
                    None => vec![0; *size as usize],
                };
                assert_eq!(file.len() as u64, *size);
                assert!(self.segments.insert(segment.0, file).is_none(), "a segment number is used once");
            }
            DiskOp::RemoveSegment { segment, .. } => {
                self.segments.remove(&segment.0).expect("removed segments exist");
            }
        }
    }

    /// A crash in the middle of an operation: each sector is old or new.
    fn tear(&mut self, op: &DiskOp, rng: &mut Dice) {
        let (file, offset, bytes) = match op {
            DiskOp::WriteLog { segment, offset, bytes, .. } => {
                (self.segments.get_mut(&segment.0).expect("prepared"), *offset, bytes)
            }
            DiskOp::WriteSlot { offset, bytes, .. } => {
                self.slots.resize(slots::FILE_BYTES, 0);
                (&mut self.slots, *offset, bytes)
            }
            _ => {
                if rng.one_in(2) {
                    self.apply(op);
                }
                return;
            }
        };
        let keep_all = rng.one_in(8);
        for (k, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            if keep_all || rng.one_in(2) {
                file[offset as usize + k * SECTOR..][..SECTOR].copy_from_slice(sector);
            }
        }
    }
}

/// A lone node: member, disk queues, and an image that is the list of what was applied.
pub struct Node {
    pub member: Member,
    pub disk: Platter,
    /// Writes, performed one after another.
    pub writes: VecDeque<DiskOp>,
    /// Preparations and removals, beside the writes.
    pub files: VecDeque<DiskOp>,
    pub effects: Effects,
    /// Everything ever handed out as committed, over all restarts.
    pub image: BTreeMap<u64, (u64, Payload)>,
    /// Everything ever proposed and accepted.
    pub proposed: BTreeMap<(u64, u64), Vec<u8>>,
    pub applied: u64,
    /// All log writes performed to their end since the start: (segment, offset, bytes).
    pub log_writes: Vec<(u64, u64, usize)>,
    pub wants_checkpoint: bool,
    pub halted: bool,
    pub full: bool,
    pub conf: ringfence_raft::ConfState,
}

impl Node {
    pub fn bootstrap(cfg: MemberConfig) -> Node {
        Node::over(Member::bootstrap(cfg), Platter::default())
    }

    pub fn over(member: Member, disk: Platter) -> Node {
        let checkpoint = disk.checkpoint.clone().unwrap_or_default();
        Node {
            member,
            applied: checkpoint.index.0,
            conf: checkpoint.conf,
            disk,
            writes: VecDeque::new(),
            files: VecDeque::new(),
            effects: Effects::default(),
            image: BTreeMap::new(),
            proposed: BTreeMap::new(),
            log_writes: Vec::new(),
            wants_checkpoint: false,
            halted: false,
            full: false,
        }
    }

    /// A node that starts again: with `ahead`, what is committed for certain is in its image before the member begins.
    pub fn again(cfg: MemberConfig, mut found: Recovered, disk: Platter, ahead: bool) -> Node {
        let before: Vec<(u64, Vec<u8>)> = found.committed().map(|(i, body)| (i.0, body.to_vec())).collect();
        let terms: BTreeMap<u64, u64> = found.entries().map(|(t, i, _)| (i.0, t.0)).collect();
        let place = ahead.then(|| found.settle().expect("membership entries were written by raft"));
        let mut node = Node::over(Member::restart(cfg, found), disk);
        let Some(Checkpoint { index, conf, .. }) = place else { return node };
        assert_eq!(node.applied + before.len() as u64, index.0, "all of the committed entries, and no more");
        for (at, body) in before {
            node.applied += 1;
            assert_eq!(at, node.applied, "committed entries come in order");
            let payload = if body.is_empty() { Payload::Noop } else { Payload::Data(body.into()) };
            node.image.insert(at, (terms[&at], payload));
        }
        assert_eq!(node.member.conf(), conf, "raft begins with the membership there");
        node.conf = conf;
        node
    }

    /// What was seen before a restart agrees with what is seen after it.
    pub fn remember(&mut self, image: BTreeMap<u64, (u64, Payload)>, proposed: BTreeMap<(u64, u64), Vec<u8>>) {
        for (index, (term, payload)) in std::mem::replace(&mut self.image, image) {
            let known = self.image.entry(index).or_insert((term, payload.clone()));
            assert_eq!(known.0, term, "entry {index} has another term");
            if matches!(known.1, Payload::Data(_)) {
                assert_eq!(known.1, payload, "entry {index} is another");
            }
        }
        self.proposed = proposed;
    }

    /// Polls, applies what is committed and queues the disk operations.
    pub fn poll(&mut self) {
        self.member.poll(&mut self.effects);
        for op in self.effects.disk.drain(..) {
            match op {
                DiskOp::WriteLog { .. } | DiskOp::WriteSlot { .. } => self.writes.push_back(op),
                _ => self.files.push_back(op),
            }
        }
        let mut news = false;
        for c in self.effects.committed.drain(..) {
            let (index, term) = (c.position.index.0, c.position.term.0);
            assert_eq!(index, self.applied + 1, "committed entries come in order");
            self.applied = index;
            news = true;
            match &c.payload {
                Payload::Conf(conf) => self.conf = conf.clone(),
                Payload::Data(data) => {
                    let proposed = self.proposed.get(&(term, index)).expect("only what was proposed is committed");
                    assert_eq!(&data[..], &proposed[..]);
                }
                Payload::Noop => {}
            }
            let before = self.image.insert(index, (term, c.payload.clone()));
            assert!(before.is_none_or(|b| b == (term, c.payload)), "an applied entry never changes");
        }
        self.wants_checkpoint |= std::mem::take(&mut self.effects.want_checkpoint);
        self.halted |= self.effects.halt.is_some();
        if news {
            self.member.applied(Index(self.applied));
            self.poll();
        }
    }

    pub fn propose(&mut self, data: Vec<u8>) -> Result<Position, ringfence_raft::ProposeError> {
        let position = self.member.propose(data.clone())?;
        self.proposed.insert((position.term.0, position.index.0), data);
        Ok(position)
    }

    /// Performs the next operation of one of the two queues.
    pub fn perform(&mut self, write: bool) -> bool {
        let queue = if write { &mut self.writes } else { &mut self.files };
        let Some(op) = queue.pop_front() else { return false };
        if self.full && matches!(op, DiskOp::PrepareSegment { recycle: None, .. }) {
            self.member.disk_done(op.id(), Err(DiskFault::Full));
        } else {
            self.disk.apply(&op);
            if let DiskOp::WriteLog { segment, offset, bytes, .. } = &op {
                self.log_writes.push((segment.0, *offset, bytes.len()));
            }
            self.member.disk_done(op.id(), Ok(()));
        }
        self.poll();
        true
    }

    /// Performs everything until nothing is left.
    pub fn settle(&mut self) {
        self.poll();
        while self.perform(true) || self.perform(false) {}
    }

    pub fn tick(&mut self, rng: &mut Dice) {
        self.member.tick(&mut rng.0);
        self.poll();
    }

    /// A complete, durable checkpoint of what is applied.
    pub fn checkpoint(&mut self) {
        let Some((term, _)) = self.image.get(&self.applied) else { return };
        let checkpoint = Checkpoint { index: Index(self.applied), term: Term(*term), conf: self.conf.clone() };
        self.disk.checkpoint = Some(checkpoint.clone());
        self.wants_checkpoint = false;
        self.member.checkpointed(checkpoint, bytes::Bytes::from_static(b"manifest"));
        self.poll();
    }

    /// Pulls the plug: the operations under way are torn, those behind them never began.
    pub fn crash(mut self, rng: &mut Dice) -> Platter {
        if let Some(op) = self.writes.pop_front() {
            self.disk.tear(&op, rng);
        }
        if let Some(op) = self.files.pop_front() {
            self.disk.tear(&op, rng);
        }
        self.disk
    }
}
