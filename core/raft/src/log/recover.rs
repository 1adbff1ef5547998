//! From any bytes to the acknowledged entries or a named corruption.
//!
//! The scan walks the writes from the oldest segment on. Where no good write stands, it looks for a later one:
//! ```text
//!   nothing good later, sector blank or old     clean end
//!   nothing good later, else                    torn tail: cut (ambiguous, see `log`)
//!   next segment begins with the next write     the log went on there
//!   anything else good later                    rot at this place: a corruption, named
//!                                               (unless all of it is below the checkpoint: skipped)
//! ```
//! It never writes; a cut is only a tail position, and the next write overwrites what was cut.

use super::record::{self, Frame, FrameKind, SectorHead, WriteHeader, WriteMark};
use super::slots::{self, Slot, SlotsFound};
use crate::conf::{self, ConfState};
use crate::disk::{SECTOR, SegmentNo};
use ringfence_base::{Index, Term};

/// A sector could not be read from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFault;

/// A segment file, read only.
pub trait SegmentRead {
    /// Its length in bytes.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset`; both lie within the file.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFault>;
}

impl SegmentRead for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFault> {
        let at = usize::try_from(offset).map_err(|_| ReadFault)?;
        let from = self.get(at..).and_then(|s| s.get(..buf.len())).ok_or(ReadFault)?;
        buf.copy_from_slice(from);
        Ok(())
    }
}

/// One segment found in the directory.
#[derive(Clone, Copy)]
pub struct SegmentInput<'a> {
    /// From its name.
    pub segment: SegmentNo,
    /// Its bytes.
    pub content: &'a dyn SegmentRead,
}

/// The place of an image and the membership at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// All entries up to here are in the image.
    pub index: Index,
    /// Term of the entry at `index`.
    pub term: Term,
    /// Membership at `index`.
    pub conf: ConfState,
}

/// Everything that was found on disk.
pub struct RecoveryInput<'a> {
    /// The cluster this directory must belong to, if the caller knows.
    pub cluster_id: Option<[u8; 16]>,
    /// The slots file, empty if there is none.
    pub slots: &'a [u8],
    /// All segments, in any order.
    pub segments: Vec<SegmentInput<'a>>,
    /// The newest complete checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
}

/// The last write was not whole and nothing follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment it stands in.
    pub segment: SegmentNo,
    /// Where it begins.
    pub offset: u64,
    /// The last index that is left. A lone node goes on from here; in a cluster the node must not start the member
    /// before its peers confirmed that nothing acknowledged is missing, for its vote could elect a leader without it.
    pub after: Index,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A write that was acknowledged is unreadable: a later one is whole.
    Rot,
    /// The disk refused to read.
    Unreadable,
    /// A segment between others is missing.
    SegmentMissing,
    /// The entries do not follow each other, though their checksums hold.
    OutOfOrder,
    /// The log begins after the checkpoint ends, or was reset for a newer checkpoint than the one found.
    CheckpointMissing,
    /// The checkpoint's membership is none that a cluster can have.
    CheckpointUnsound,
    /// The commit index recorded lies past the last entry: acknowledged entries are missing.
    CommittedLost,
    /// The directory belongs to another cluster.
    ForeignCluster,
    /// The slots file is unreadable or missing while the log is not empty.
    SlotsLost,
    /// The slots are older than the log: votes are missing.
    SlotsBehind,
    /// Nothing was ever acknowledged here: a bootstrap that did not finish. Bootstrap again.
    NeverBegan,
}

/// Where and what, for the operator. A member must not start from this directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The segment, if the place is in the log.
    pub segment: Option<SegmentNo>,
    /// The offset in the segment or the slots file.
    pub offset: u64,
    /// The first index that is affected, if known.
    pub index: Option<Index>,
    /// What is wrong.
    pub what: Damage,
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.segment {
            Some(segment) => write!(f, "{:?} in log segment {segment} at offset {}", self.what, self.offset)?,
            None => write!(f, "{:?}", self.what)?,
        }
        match self.index {
            Some(index) => write!(f, ", from index {index} on"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Corruption {}

/// A segment that recovery leaves in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFound {
    pub(crate) segment: SegmentNo,
    pub(crate) size: u64,
    /// Last index of the log after the last write in it; for those before the tail.
    pub(crate) last_index: u64,
}

/// A whole log, ready for [`crate::Member::restart`].
#[derive(Clone, Debug)]
pub struct Recovered {
    /// This directory's raft id.
    pub raft_id: u64,
    /// Its cluster.
    pub cluster_id: [u8; 16],
    /// The term voted in last.
    pub term: Term,
    /// Committed for certain; more may turn out to be.
    pub commit: Index,
    /// The last index there is.
    pub last: Index,
    /// Set if an unfinished last write was cut off.
    pub cut: Option<TornTail>,
    pub(crate) slot: Slot,
    /// The checkpoint given, or index 0 without members.
    pub(crate) base: Checkpoint,
    /// The place of the image that the member goes on with; see [`Recovered::settle`]. Invariant: `base <= image <=
    /// commit`.
    pub(crate) image: Checkpoint,
    /// Entries after `base`, without gaps.
    pub(crate) entries: Vec<Frame>,
    /// The log on disk does not reach the checkpoint or contradicts it: a reset is written first.
    pub(crate) needs_reset: bool,
    /// Segments up to and including the tail's, ascending; the last one is where `tail_offset` is.
    pub(crate) segments: Vec<SegmentFound>,
    /// Segments after the tail: prepared, without content.
    pub(crate) prepared: Vec<SegmentFound>,
    /// Where the next write goes, in the last of `segments`.
    pub(crate) tail_offset: u64,
    /// Mark of the last good write.
    pub(crate) mark: WriteMark,
}

impl Recovered {
    /// The recovered entries after the checkpoint, as (term, index, body length).
    pub fn entries(&self) -> impl Iterator<Item = (Term, Index, &bytes::Bytes)> {
        self.entries.iter().map(|f| (Term(f.term), Index(f.index), &f.body))
    }

    /// The proposals after the checkpoint that are committed for certain, in order; empty where the entry is raft's own.
    pub fn committed(&self) -> impl Iterator<Item = (Index, &[u8])> {
        let entries = self.entries.iter().take_while(|f| f.index <= self.commit.0);
        entries.map(|f| (Index(f.index), if f.kind == FrameKind::Entry { &f.body[..] } else { &[] }))
    }

    /// All that [`Recovered::committed`] yields was put into the image: the member goes on behind it and does not hand
    /// it out again. Answers the place and the membership there.
    ///
    /// # Errors
    /// A membership entry that cannot be read.
    pub fn settle(&mut self) -> Result<Checkpoint, Corruption> {
        let committed = self.entries.iter().take_while(|f| f.index <= self.commit.0);
        let (mut last, mut changes) = (None, Vec::new());
        for frame in committed {
            last = Some(frame);
            if frame.kind == FrameKind::Conf {
                let change = conf::decode(&frame.body).map_err(|_| Corruption {
                    segment: None,
                    offset: 0,
                    index: Some(Index(frame.index)),
                    what: Damage::OutOfOrder,
                })?;
                changes.push(change);
            }
        }
        if let Some(last) = last {
            let conf = self.base.conf.after(self.raft_id, &changes);
            self.image = Checkpoint { index: Index(last.index), term: Term(last.term), conf };
        }
        Ok(self.image.clone())
    }
}

/// Reads a directory. Any bytes in: no panic, and either all acknowledged entries or a named corruption out.
pub fn recover(input: RecoveryInput<'_>) -> Result<Recovered, Corruption> {
    let RecoveryInput { cluster_id, slots, mut segments, checkpoint } = input;
    segments.sort_by_key(|s| s.segment);
    let base = checkpoint.unwrap_or_default();
    let nowhere = |what, index| Corruption { segment: None, offset: 0, index, what };
    if !base.conf.is_sound() || (base.index.0 == 0) != (base.term.0 == 0) {
        return Err(nowhere(Damage::CheckpointUnsound, Some(base.index)));
    }
    let found = slots::decode(slots);
    let known = match (cluster_id, &found) {
        (Some(id), _) => Some(id),
        (None, SlotsFound::State(slot)) => Some(slot.cluster_id),
        _ => None,
    };
    let mut scan = Scan::new(&segments, &base, known);
    scan.run()?;

    let began = scan.mark.seq > 0 || base.index.0 > 0;
    let slot = match found {
        SlotsFound::State(slot) => slot,
        _ if !began => return Err(nowhere(Damage::NeverBegan, None)),
        _ => return Err(nowhere(Damage::SlotsLost, None)),
    };
    if known != Some(slot.cluster_id) {
        return Err(nowhere(Damage::ForeignCluster, None));
    }
    // a founder writes its slot (state 1, term 1) before its first entries; a joining member begins at term 0
    if !began && slot.number == 1 && slot.term == 1 {
        return Err(nowhere(Damage::NeverBegan, None));
    }
    scan.finish(slot)
}

/// A segment, by its place among those given, and an offset in it.
type Position = (usize, u64);

/// The walk over the segments.
struct Scan<'a> {
    segments: &'a [SegmentInput<'a>],
    base: &'a Checkpoint,
    cluster_id: Option<[u8; 16]>,
    /// The last good write; all zeros before the first.
    mark: WriteMark,
    /// Last (index, term) of the log so far; `None` before the first frame.
    last: Option<(u64, u64)>,
    /// Entries past the checkpoint so far, without gaps.
    entries: Vec<Frame>,
    /// Term of the log's entry at the checkpoint's index, if it was seen.
    term_at_base: Option<u64>,
    /// Largest commit index recorded, and where.
    commit: (u64, usize, u64),
    /// Position: segment by its place in `segments`, offset.
    at: Position,
    /// Last index of the log after each segment that was walked to its end.
    last_index_of: Vec<u64>,
    cut: bool,
}

/// What stands at a position.
enum Place {
    Write(WriteHeader, Vec<Frame>),
    /// Zeros, or a sound sector that is older than the next write would be.
    Clean,
    Torn,
}

impl<'a> Scan<'a> {
    fn new(segments: &'a [SegmentInput<'a>], base: &'a Checkpoint, cluster_id: Option<[u8; 16]>) -> Self {
        Scan {
            segments,
            base,
            cluster_id,
            mark: WriteMark::default(),
            last: None,
            entries: Vec::new(),
            term_at_base: None,
            commit: (0, 0, 0),
            at: (0, 0),
            last_index_of: Vec::new(),
            cut: false,
        }
    }

    fn run(&mut self) -> Result<(), Corruption> {
        while self.at.0 < self.segments.len() {
            let place = self.place()?;
            if let Place::Write(header, frames) = place {
                self.take(&header, frames)?;
                continue;
            }
            match self.later()? {
                Some((next, header)) if header.prev == self.mark && next.1 == 0 => self.go_to(next),
                // the first good write of a log whose older part was recycled or is not needed
                Some((next, header)) if header.prev.last_index <= self.base.index.0 && header.prev.seq > 0 => {
                    self.skip_to(next, &header)
                }
                Some((next, header)) => return Err(self.rot(next, &header.prev, &place)),
                None => {
                    self.cut = self.cut_here(&place)?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What stands at the current position.
    fn place(&self) -> Result<Place, Corruption> {
        let segment = &self.segments[self.at.0];
        let room = segment.content.size().saturating_sub(self.at.1);
        if room < SECTOR as u64 {
            return Ok(Place::Clean);
        }
        let mut bytes = vec![0; SECTOR];
        self.read(self.at, &mut bytes)?;
        let head = record::sector_head(&bytes);
        if let Some(header) = record::read_header(&bytes)
            && header.generation == segment.segment.0
            && (self.mark.seq == 0 || header.seq > self.mark.seq)
        {
            if self.cluster_id.is_some_and(|id| id != header.cluster_id) {
                return Err(self.corrupt(Damage::ForeignCluster));
            }
            let len = header.sectors as u64 * SECTOR as u64;
            // the first write of all is taken as it is; its predecessors were recycled
            let follows = self.mark.seq == 0 || header.prev == self.mark;
            if !follows || len > room {
                return Ok(Place::Torn);
            }
            bytes.resize(len as usize, 0);
            self.read(self.at, &mut bytes)?;
            return Ok(match record::read_frames(&header, &bytes) {
                Some(frames) => Place::Write(header, frames),
                None => Place::Torn,
            });
        }
        Ok(match head {
            SectorHead::Blank => Place::Clean,
            SectorHead::First { seq } | SectorHead::Later { seq, .. } if seq <= self.mark.seq => Place::Clean,
            _ => Place::Torn,
        })
    }

    /// The next write header past the current position that belongs to the log and is newer than the last good one.
    fn later(&self) -> Result<Option<(Position, WriteHeader)>, Corruption> {
        let mut chunk = vec![0; 256 * SECTOR];
        for i in self.at.0..self.segments.len() {
            let segment = &self.segments[i];
            let mut offset = if i == self.at.0 { self.at.1 + SECTOR as u64 } else { 0 };
            while offset + SECTOR as u64 <= segment.content.size() {
                let n = (segment.content.size() - offset).min(chunk.len() as u64) as usize / SECTOR * SECTOR;
                self.read((i, offset), &mut chunk[..n])?;
                for (k, sector) in chunk[..n].chunks_exact(SECTOR).enumerate() {
                    if !record::may_begin(sector, segment.segment) {
                        continue;
                    }
                    if let Some(header) = record::read_header(sector)
                        && header.generation == segment.segment.0
                        && header.seq > self.mark.seq
                        && self.cluster_id.is_none_or(|id| id == header.cluster_id)
                    {
                        return Ok(Some(((i, offset + (k * SECTOR) as u64), header)));
                    }
                }
                offset += n as u64;
            }
        }
        Ok(None)
    }

    /// Nothing good follows: is this a clean end, or the place of a torn write? A torn write may have lost its first
    /// sector, and may stand at the beginning of the next segment. Sound sectors of smaller sequence numbers are what
    /// a recycled segment held before, and nothing.
    fn cut_here(&mut self, place: &Place) -> Result<bool, Corruption> {
        if matches!(place, Place::Torn) || self.has_newer_sector(self.at)? {
            return Ok(true);
        }
        let next = (self.at.0 + 1, 0);
        if next.0 < self.segments.len() && self.has_newer_sector(next)? {
            self.go_to(next);
            return Ok(true);
        }
        Ok(false)
    }

    /// True if a write that is not good seems to stand at `at`.
    fn has_newer_sector(&self, at: Position) -> Result<bool, Corruption> {
        let size = self.segments[at.0].content.size();
        let mut sector = vec![0; SECTOR];
        for k in 0..record::MAX_WRITE_SECTORS as u64 {
            let offset = at.1 + k * SECTOR as u64;
            if offset + SECTOR as u64 > size {
                break;
            }
            self.read((at.0, offset), &mut sector)?;
            match record::sector_head(&sector) {
                SectorHead::First { seq } | SectorHead::Later { seq, .. } if seq > self.mark.seq => return Ok(true),
                SectorHead::Bad if k == 0 => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// The log went on at the beginning of a later segment.
    fn go_to(&mut self, next: Position) {
        let last = self.last.map_or(0, |l| l.0);
        self.last_index_of.resize(next.0, last);
        self.at = next;
    }

    /// What lies before `next` is below the checkpoint and unreadable or gone; begin there.
    fn skip_to(&mut self, next: Position, header: &WriteHeader) {
        self.last = Some((header.prev.last_index, header.prev.last_term));
        self.mark = header.prev;
        self.entries.clear();
        self.term_at_base = (header.prev.last_index == self.base.index.0).then_some(header.prev.last_term);
        self.last_index_of.resize(next.0, header.prev.last_index);
        self.at = next;
    }

    /// Takes the frames of a good write and steps behind it.
    fn take(&mut self, header: &WriteHeader, frames: Vec<Frame>) -> Result<(), Corruption> {
        self.cluster_id = Some(header.cluster_id);
        for frame in frames {
            self.take_frame(frame)?;
        }
        let (last_index, last_term) = self.last.unwrap_or_default();
        if header.commit > last_index {
            return Err(self.corrupt(Damage::OutOfOrder));
        }
        if header.commit > self.commit.0 {
            self.commit = (header.commit, self.at.0, self.at.1);
        }
        self.mark = WriteMark {
            seq: header.seq,
            segment: header.generation,
            offset: self.at.1,
            sectors: header.sectors,
            frames_crc: header.frames_crc,
            first_index: last_index + 1 - header.frames as u64,
            last_index,
            last_term,
        };
        self.at.1 += header.sectors as u64 * SECTOR as u64;
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), Corruption> {
        let base = self.base.index.0;
        if frame.kind == FrameKind::Reset {
            if frame.index > base {
                return Err(self.corrupt(Damage::CheckpointMissing));
            }
            self.entries.clear();
            self.term_at_base = (frame.index == base).then_some(frame.term);
            self.last = Some((frame.index, frame.term));
            return Ok(());
        }
        match self.last {
            // the beginning of what is left of the log
            None if frame.index > base + 1 => return Err(self.corrupt(Damage::CheckpointMissing)),
            None => {}
            Some((last, term)) => {
                // A replaced entry may have had a higher term than its successor, its predecessor may not.
                let before = match (frame.index <= last, frame.index.checked_sub(base + 2)) {
                    (false, _) => term,
                    (true, Some(i)) => self.entries.get(i as usize).map_or(0, |e| e.term),
                    (true, None) => 0,
                };
                let sound = frame.index <= last + 1
                    && frame.term >= before
                    && (frame.index == last + 1 || frame.index > self.commit.0);
                if !sound {
                    return Err(self.corrupt(Damage::OutOfOrder));
                }
            }
        }
        if frame.index <= base {
            self.entries.clear();
            self.term_at_base = (frame.index == base).then_some(frame.term);
        }
        self.last = Some((frame.index, frame.term));
        if frame.index > base {
            self.entries.truncate((frame.index - base - 1) as usize);
            self.entries.push(frame);
        }
        Ok(())
    }

    /// Checks the whole against slots and checkpoint.
    fn finish(mut self, slot: Slot) -> Result<Recovered, Corruption> {
        let base = self.base.clone();
        let here = |at: Position, what, index| Corruption {
            segment: self.segments.get(at.0).map(|s| s.segment),
            offset: at.1,
            index: Some(Index(index)),
            what,
        };
        let (mut last, mut last_term) = self.last.unwrap_or_default();
        // A log that ends before the checkpoint, or holds another term at its index, was left behind by a checkpoint
        // received from a leader.
        let contradicts = self.term_at_base.is_some_and(|term| term != base.term.0);
        let needs_reset = last < base.index.0 || contradicts;
        if needs_reset {
            self.entries.clear();
            (last, last_term) = (base.index.0, base.term.0);
        }
        if slot.term < last_term {
            return Err(here(self.at, Damage::SlotsBehind, last));
        }
        let commit = self.commit.0.max(base.index.0).max(slot.commit);
        if commit > last {
            return Err(here(self.at, Damage::CommittedLost, last + 1));
        }
        let active = self.at.0.min(self.segments.len().saturating_sub(1));
        let mut all = self.segments.iter().enumerate().map(|(i, s)| SegmentFound {
            segment: s.segment,
            size: s.content.size() / SECTOR as u64 * SECTOR as u64,
            last_index: self.last_index_of.get(i).copied().unwrap_or(last),
        });
        let segments: Vec<_> = all.by_ref().take(active + 1).collect();
        let prepared: Vec<_> = all.collect();
        Ok(Recovered {
            raft_id: slot.raft_id,
            cluster_id: slot.cluster_id,
            term: Term(slot.term),
            commit: Index(commit),
            last: Index(last),
            cut: segments.last().filter(|_| self.cut).map(|s| TornTail {
                segment: s.segment,
                offset: self.at.1,
                after: Index(last),
            }),
            slot,
            image: base.clone(),
            base,
            entries: self.entries,
            needs_reset,
            segments,
            prepared,
            tail_offset: self.at.1,
            mark: self.mark,
        })
    }

    fn read(&self, at: Position, buf: &mut [u8]) -> Result<(), Corruption> {
        let segment = &self.segments[at.0];
        segment.content.read(at.1, buf).map_err(|ReadFault| Corruption {
            segment: Some(segment.segment),
            offset: at.1,
            index: self.last.map(|l| Index(l.0 + 1)),
            what: Damage::Unreadable,
        })
    }

    /// A good write stands at `next`, and the one before it, `prev`, is not good.
    fn rot(&self, next: Position, prev: &WriteMark, place: &Place) -> Corruption {
        let gap = self.segments[self.at.0].segment.0 + 1 < self.segments[next.0].segment.0;
        if self.mark.seq > 0 && gap && matches!(place, Place::Clean) {
            return self.corrupt(Damage::SegmentMissing);
        }
        let mut rot = self.corrupt(Damage::Rot);
        // one bad write: its successor knows where it stands, be it at the beginning of the next segment
        if prev.seq == self.mark.seq + 1 {
            (rot.segment, rot.offset) = (Some(SegmentNo(prev.segment)), prev.offset);
            rot.index = Some(Index(prev.first_index));
        }
        rot
    }

    fn corrupt(&self, what: Damage) -> Corruption {
        Corruption {
            segment: self.segments.get(self.at.0).map(|s| s.segment),
            offset: self.at.1,
            index: self.last.map(|l| Index(l.0 + 1)),
            what,
        }
    }
}
