//! Group commit and segments: what must be durable goes in, disk operations come out.
//!
//! Each ready of raft is queued as one [`Batch`]. While a *flight* (one slot write, one log write, or both) is on its
//! way, batches gather; when it is done, everything gathered is the next flight. There is no timer: a lone proposal
//! leaves at once, and under load a write is as large as what came in during the one before.
//!
//! The segment after the active one is always prepared ahead. If that meets a full disk, the member refuses proposals
//! while the active segment still has room for what raft itself must write; [`Plan::tick`] tries again.

use super::record::{self, Frame, FrameKind, WriteMark};
use super::recover::{Recovered, SegmentFound};
use super::slots::{self, Slot};
use crate::disk::{DiskFault, DiskOp, OpId, SegmentNo};
use crate::member::effects::HaltReason;
use std::collections::{BTreeSet, VecDeque};

/// Ticks between two tries to prepare a segment on a full disk.
const ROOM_RETRY_TICKS: u32 = 10;
/// Segments kept for recycling; more are deleted.
const RETIRED_MAX: usize = 2;

/// What one ready of raft wants durable.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Number of the ready.
    pub(crate) ready: u64,
    /// Term and vote, if they changed.
    pub(crate) vote: Option<(u64, u64)>,
    /// Frames in log order.
    pub(crate) frames: VecDeque<Frame>,
    /// Waits for [`Plan::release`]: a checkpoint is being installed.
    pub(crate) held: bool,
}

/// What a completion means to the member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Nothing new.
    Nothing,
    /// All batches up to this ready are durable.
    Durable(u64),
    /// Stop.
    Halt(HaltReason),
}

#[derive(Debug)]
struct Flight {
    slot: Option<OpId>,
    log: Option<OpId>,
    /// Largest ready that is durable once the flight is, 0 if none ends with it.
    ready: u64,
}

#[derive(Debug)]
struct Preparing {
    id: OpId,
    segment: SegmentNo,
    size: u64,
    recycle: Option<SegmentFound>,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Plan {
    segment_bytes: u64,
    op_next: u64,
    /// Oldest first; the last one is active.
    segments: VecDeque<SegmentFound>,
    /// Where the next write goes in the active segment.
    offset: u64,
    /// Empty segments after the active one.
    prepared: VecDeque<SegmentFound>,
    preparing: Option<Preparing>,
    /// Segments below the checkpoint, kept for recycling.
    retired: VecDeque<SegmentFound>,
    /// Deletions under way, and those to ask for.
    removing: BTreeSet<OpId>,
    surplus: VecDeque<SegmentNo>,
    segment_next: u64,
    no_room: bool,
    retry_in: u32,
    /// The newest slot state, on its way or durable.
    slot: Slot,
    /// Mark of the newest write, on its way or durable.
    mark: WriteMark,
    queue: VecDeque<Batch>,
    /// Bytes of all frames in `queue`.
    queue_bytes: u64,
    flight: Option<Flight>,
}

impl Plan {
    /// For a new, empty directory. The first slot state is `number` 1.
    pub(crate) fn new(segment_bytes: u64, cluster_id: [u8; 16], raft_id: u64) -> Plan {
        Plan {
            segment_bytes,
            op_next: 1,
            segments: VecDeque::new(),
            offset: 0,
            prepared: VecDeque::new(),
            preparing: None,
            retired: VecDeque::new(),
            removing: BTreeSet::new(),
            surplus: VecDeque::new(),
            segment_next: 1,
            no_room: false,
            retry_in: 0,
            slot: Slot { cluster_id, raft_id, number: 0, term: 0, vote: 0, commit: 0 },
            mark: WriteMark::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            flight: None,
        }
    }

    /// Goes on where recovery ended.
    pub(crate) fn recovered(segment_bytes: u64, found: &Recovered) -> Plan {
        let mut plan = Plan::new(segment_bytes, found.cluster_id, found.raft_id);
        plan.segments = found.segments.iter().copied().collect();
        plan.offset = found.tail_offset;
        plan.slot = found.slot;
        plan.mark = found.mark;
        for segment in &found.prepared {
            if segment.size == segment_bytes && plan.prepared.is_empty() {
                plan.prepared.push_back(*segment);
            } else {
                plan.surplus.push_back(segment.segment);
            }
        }
        let newest = found.prepared.last().or(found.segments.last());
        plan.segment_next = newest.map_or(1, |s| s.segment.0 + 1);
        plan.purge(found.base.index.0);
        plan
    }

    /// Queues a batch; ready numbers ascend.
    ///
    /// Frames that it replaces and that are not on their way yet are dropped. This is more than thrift: were entry 3
    /// of term 2 in flight, its replacement queued, and the same entry 3 of term 2 queued behind that, raft would
    /// count it durable after the flight, and the write of the replacement would make it untrue for a while.
    pub(crate) fn push(&mut self, batch: Batch) {
        let first = batch.frames.front().map_or(u64::MAX, |f| f.index);
        for queued in self.queue.iter_mut().rev() {
            while queued.frames.back().is_some_and(|f| f.index >= first && f.kind != FrameKind::Reset) {
                self.queue_bytes -= queued.frames.pop_back().map_or(0, |f| f.encoded_len() as u64);
            }
        }
        self.queue_bytes += batch.frames.iter().map(|f| f.encoded_len() as u64).sum::<u64>();
        self.queue.push_back(batch);
    }

    /// True if nothing is queued or on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    /// Bytes of frames that wait.
    pub(crate) fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// The disk has no room for the next segment.
    pub(crate) fn no_room(&self) -> bool {
        self.no_room
    }

    /// The active segment and the bytes of it used.
    pub(crate) fn active(&self) -> (u64, u64) {
        (self.segments.back().map_or(0, |s| s.segment.0), self.offset)
    }

    /// The checkpoint that the batch of this ready waits for is installed.
    pub(crate) fn release(&mut self, ready: u64) {
        for batch in self.queue.iter_mut().filter(|b| b.ready <= ready) {
            batch.held = false;
        }
    }

    /// A newer checkpoint takes the place of one that is still being installed: what was to follow the older one in
    /// the log is not written, and counts as durable together with the newer one.
    pub(crate) fn supersede(&mut self) {
        for batch in self.queue.iter_mut().skip_while(|b| !b.held) {
            self.queue_bytes -= batch.frames.drain(..).map(|f| f.encoded_len() as u64).sum::<u64>();
            batch.held = true;
        }
    }

    /// One tick: a preparation that met a full disk is tried again after a while.
    pub(crate) fn tick(&mut self) {
        self.retry_in = self.retry_in.saturating_sub(1);
    }

    /// No entry up to and including `floor` is needed any more.
    pub(crate) fn purge(&mut self, floor: u64) {
        while self.segments.len() > 1 && self.segments[0].last_index <= floor {
            // oldest first, so that what is left stays a row without gaps
            self.retired.extend(self.segments.pop_front());
        }
        while self.retired.len() > RETIRED_MAX || self.retired.front().is_some_and(|s| s.size != self.segment_bytes) {
            self.surplus.extend(self.retired.pop_front().map(|s| s.segment));
        }
    }

    /// Adds all operations that can begin now. `committed` is raft's commit index, `durable` its last durable index.
    /// Batches without anything to write may be durable at once.
    pub(crate) fn plan(&mut self, committed: u64, durable: u64, out: &mut Vec<DiskOp>) -> Done {
        let done = match self.flight {
            None => self.take_off(committed, durable, out),
            Some(_) => Done::Nothing,
        };
        self.prepare_ahead(out);
        while let Some(segment) = self.surplus.pop_front() {
            let id = self.op();
            self.removing.insert(id);
            out.push(DiskOp::RemoveSegment { id, segment });
        }
        done
    }

    /// Takes a completion. Unknown ids are ignored.
    pub(crate) fn done(&mut self, id: OpId, result: Result<(), DiskFault>) -> Done {
        if self.removing.remove(&id) {
            return if result.is_ok() { Done::Nothing } else { Done::Halt(HaltReason::SegmentFailed(id)) };
        }
        if self.preparing.as_ref().is_some_and(|p| p.id == id) {
            return self.prepared(id, result);
        }
        let Some(flight) = &mut self.flight else { return Done::Nothing };
        if flight.slot != Some(id) && flight.log != Some(id) {
            return Done::Nothing;
        }
        if result.is_err() {
            return Done::Halt(HaltReason::WriteFailed(id));
        }
        flight.slot = flight.slot.filter(|&s| s != id);
        flight.log = flight.log.filter(|&l| l != id);
        if flight.slot.is_some() || flight.log.is_some() {
            return Done::Nothing;
        }
        let ready = flight.ready;
        self.flight = None;
        if ready == 0 { Done::Nothing } else { Done::Durable(ready) }
    }

    fn op(&mut self) -> OpId {
        self.op_next += 1;
        OpId(self.op_next - 1)
    }

    /// Builds the next flight from the front of the queue.
    fn take_off(&mut self, committed: u64, durable: u64, out: &mut Vec<DiskOp>) -> Done {
        let mut vote = None;
        let mut ready = 0;
        let mut frames: Vec<Frame> = Vec::new();
        let mut frames_bytes = 0;
        let mut room = 0;
        'batches: while let Some(batch) = self.queue.front() {
            if batch.held {
                break;
            }
            if !batch.frames.is_empty() && frames.is_empty() {
                match self.room_for(&batch.frames[0]) {
                    Some(bytes) => room = bytes,
                    None => break,
                }
            }
            let batch = self.queue.front_mut().expect("looked at just above");
            vote = batch.vote.take().or(vote);
            while let Some(next) = batch.frames.front() {
                let bytes = next.encoded_len();
                if let Some(last) = frames.last() {
                    let follows =
                        next.index == last.index + 1 && next.term >= last.term && next.kind != FrameKind::Reset;
                    let fits = frames_bytes + bytes <= record::WRITE_BYTES_SOFT_MAX
                        && record::write_len(frames_bytes + bytes) as u64 <= room;
                    if !follows || !fits {
                        break 'batches;
                    }
                }
                frames_bytes += bytes;
                frames.extend(batch.frames.pop_front());
            }
            ready = batch.ready;
            self.queue.pop_front();
        }
        self.queue_bytes -= frames_bytes as u64;
        let slot = vote.map(|(term, vote)| self.write_slot(term, vote, committed.min(durable), out));
        let log = (!frames.is_empty()).then(|| self.write_log(committed, &frames, room, out));
        if slot.is_some() || log.is_some() {
            self.flight = Some(Flight { slot, log, ready });
            Done::Nothing
        } else if ready > 0 {
            Done::Durable(ready)
        } else {
            Done::Nothing
        }
    }

    /// Bytes that the write beginning with `first` may have: what is left of the active segment if the frame fits,
    /// else a prepared one.
    fn room_for(&self, first: &Frame) -> Option<u64> {
        let need = record::write_len(first.encoded_len()) as u64;
        let left = self.segments.back().map_or(0, |s| s.size - self.offset);
        if need <= left {
            return Some(left);
        }
        self.prepared.front().map(|s| s.size).filter(|&size| need <= size)
    }

    fn write_log(&mut self, committed: u64, frames: &[Frame], room: u64, out: &mut Vec<DiskOp>) -> OpId {
        let left = self.segments.back().map_or(0, |s| s.size - self.offset);
        if room != left || self.segments.is_empty() {
            let next = self.prepared.pop_front().expect("room_for found it");
            self.segments.push_back(next);
            self.offset = 0;
        }
        let active = self.segments.back_mut().expect("pushed just above if it was empty");
        let (bytes, mark) =
            record::encode_write(&self.slot.cluster_id, active.segment, self.offset, committed, &self.mark, frames);
        assert!(self.offset + bytes.len() as u64 <= active.size, "a write stays within its segment");
        active.last_index = mark.last_index;
        let (segment, offset) = (active.segment, self.offset);
        self.offset += bytes.len() as u64;
        self.mark = mark;
        let id = self.op();
        out.push(DiskOp::WriteLog { id, segment, offset, bytes });
        id
    }

    fn write_slot(&mut self, term: u64, vote: u64, commit: u64, out: &mut Vec<DiskOp>) -> OpId {
        let commit = commit.max(self.slot.commit);
        self.slot = Slot { number: self.slot.number + 1, term, vote, commit, ..self.slot };
        let (offset, bytes) = slots::encode(&self.slot);
        let id = self.op();
        out.push(DiskOp::WriteSlot { id, offset, bytes });
        id
    }

    fn prepare_ahead(&mut self, out: &mut Vec<DiskOp>) {
        if !self.prepared.is_empty() || self.preparing.is_some() || (self.no_room && self.retry_in > 0) {
            return;
        }
        let id = self.op();
        let segment = SegmentNo(self.segment_next);
        self.segment_next += 1;
        let recycle = self.retired.pop_front();
        let size = self.segment_bytes;
        self.preparing = Some(Preparing { id, segment, size, recycle });
        out.push(DiskOp::PrepareSegment { id, segment, size, recycle: recycle.map(|s| s.segment) });
    }

    fn prepared(&mut self, id: OpId, result: Result<(), DiskFault>) -> Done {
        let Some(Preparing { segment, size, recycle, .. }) = self.preparing.take() else { return Done::Nothing };
        match result {
            Ok(()) => {
                self.prepared.push_back(SegmentFound { segment, size, last_index: 0 });
                self.no_room = false;
                Done::Nothing
            }
            Err(DiskFault::Full) => {
                // the number is used again: nothing of this name exists
                self.segment_next = segment.0;
                if let Some(segment) = recycle {
                    self.retired.push_front(segment);
                }
                self.no_room = true;
                self.retry_in = ROOM_RETRY_TICKS;
                Done::Nothing
            }
            Err(DiskFault::Io) => Done::Halt(HaltReason::SegmentFailed(id)),
        }
    }
}
