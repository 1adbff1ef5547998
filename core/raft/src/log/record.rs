//! The bytes of one write. All numbers are little endian; checksums are CRC-32C.
//!
//! ```text
//! sector (4096 bytes)
//!   0  u8   marker: b'W' first sector of a write, b'C' a later one
//!   1  u8   format version, 1
//!   2  u16  ordinal of the sector in its write
//!   4  u32  checksum of bytes 0..4 and 8..4096
//!   8  u64  sequence number of the write
//!  16  ..   4080 bytes of the write's payload
//!
//! payload: write header, frames, zeros up to the end of the last sector
//!
//! write header (144 bytes)
//!   0  [8]  b"RFWRITE1"
//!   8  [16] cluster id
//!  24  u64  generation: the segment's number
//!  32  u64  sequence number: 1, 2, 3 .. over all segments
//!  40  u32  sectors in this write
//!  44  u32  frames in this write
//!  48  u32  bytes of all frames
//!  52  u32  checksum of all frames
//!  56  u64  commit index, never past the last index of this write
//!  64  [64] mark of the write before: zeros for the first write ever
//!          0 u64 sequence number   8 u64 segment   16 u64 offset   24 u32 sectors   28 u32 checksum of all frames
//!         32 u64 first index      40 u64 last index   48 u64 last term   56 u64 zero
//! 128  [12] zeros
//! 140  u32  checksum of bytes 0..140
//!
//! frame: header (32 bytes), body, zeros up to a multiple of 8
//!   0  u8   kind: 1 entry, 2 membership entry, 3 reset (the log begins anew after this index and term)
//!   1  [3]  zeros
//!   4  u32  length of the body
//!   8  u64  term
//!  16  u64  index
//!  24  u32  checksum of the body
//!  28  u32  checksum of bytes 0..28
//! ```
//! Every sector starts with a head of ours, so no body, whoever wrote it, can look like the beginning of a write.
//! What all frames of a write share (cluster, generation, commit) stands once in the write header. The mark lets a
//! repair prove entries fetched from a peer: frames are deterministic, so the rebuilt bytes must have the checksum.
//! The indexes within one write ascend by one, except that a reset stands alone at the front.

use crate::disk::{SECTOR, SegmentNo};
use bytes::Bytes;
use ringfence_base::limit::{MAX_BATCH_BYTES, MAX_FRAME_BYTES};

/// Bytes of a sector's head.
pub const SECTOR_HEAD: usize = 16;
/// Bytes of a write that one sector carries.
pub const SECTOR_PAYLOAD: usize = SECTOR - SECTOR_HEAD;
/// Bytes of the write header.
pub const WRITE_HEADER: usize = 144;
/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 32;
/// Most frame bytes that are put into one write unless a single frame is larger.
pub const WRITE_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Most sectors a write can have: the ordinal has 16 bits, and no write is larger than its largest frame or the soft
/// bound and one frame.
pub const MAX_WRITE_SECTORS: usize = 1 + (WRITE_HEADER + WRITE_BYTES_SOFT_MAX + MAX_FRAME_BYTES) / SECTOR_PAYLOAD;

const _: () = assert!(MAX_WRITE_SECTORS <= u16::MAX as usize);
const _: () = assert!(MAX_FRAME_BYTES >= FRAME_HEADER + MAX_BATCH_BYTES + 8);
const _: () = assert!(WRITE_HEADER <= SECTOR_PAYLOAD);
const _: () = assert!(WRITE_HEADER.is_multiple_of(8) && FRAME_HEADER.is_multiple_of(8));

const MAGIC: &[u8; 8] = b"RFWRITE1";
const FORMAT: u8 = 1;
const MARK_FIRST: u8 = b'W';
const MARK_LATER: u8 = b'C';

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A proposal, or raft's empty entry.
    Entry,
    /// A membership entry.
    Conf,
    /// The log begins anew after this index and term, which a checkpoint holds. No body.
    Reset,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// The entry's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
    /// The entry's body.
    pub body: Bytes,
}

impl Frame {
    /// Bytes of the encoded frame.
    pub fn encoded_len(&self) -> usize {
        frame_len(self.body.len())
    }
}

/// Bytes of an encoded frame with a body of this length.
pub const fn frame_len(body: usize) -> usize {
    FRAME_HEADER + body.next_multiple_of(8)
}

/// Bytes on disk of a write whose frames have this many bytes together.
pub const fn write_len(frames_bytes: usize) -> usize {
    (WRITE_HEADER + frames_bytes).div_ceil(SECTOR_PAYLOAD) * SECTOR
}

/// What identifies a write to the one after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteMark {
    /// Sequence number; 0 means "no write before".
    pub seq: u64,
    /// Segment it stands in.
    pub segment: u64,
    /// Where in the segment.
    pub offset: u64,
    /// How many sectors.
    pub sectors: u32,
    /// Checksum of its frames.
    pub frames_crc: u32,
    /// Index of its first frame.
    pub first_index: u64,
    /// Index of its last frame.
    pub last_index: u64,
    /// Term of its last frame.
    pub last_term: u64,
}

/// A write header whose checksum held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteHeader {
    /// The cluster it belongs to.
    pub cluster_id: [u8; 16],
    /// The segment it was written for.
    pub generation: u64,
    /// Sequence number.
    pub seq: u64,
    /// How many sectors.
    pub sectors: u32,
    /// How many frames.
    pub frames: u32,
    /// Bytes of all frames.
    pub frames_bytes: u32,
    /// Checksum of all frames.
    pub frames_crc: u32,
    /// Commit index when it was written.
    pub commit: u64,
    /// The write before.
    pub prev: WriteMark,
}

/// Encodes a write for `segment` at `offset`, and its mark for the next one.
///
/// `frames` is not empty. `commit` may be any index; what is written never passes the last frame's.
pub fn encode_write(
    cluster_id: &[u8; 16],
    segment: SegmentNo,
    offset: u64,
    commit: u64,
    prev: &WriteMark,
    frames: &[Frame],
) -> (Vec<u8>, WriteMark) {
    let (first, last) = match frames {
        [] => panic!("a write holds at least one frame"),
        [first, .., last] => (first, last),
        [only] => (only, only),
    };
    let seq = prev.seq + 1;
    let frames_bytes: usize = frames.iter().map(Frame::encoded_len).sum();
    let mut out = Stuffer::new(write_len(frames_bytes));
    assert!(out.len / SECTOR <= MAX_WRITE_SECTORS, "the plan bounds a write");
    out.push(&[0; WRITE_HEADER]);
    let mut frames_crc = 0;
    for frame in frames {
        let head = frame_header(frame);
        let padding = &[0u8; 8][..frame.body.len().next_multiple_of(8) - frame.body.len()];
        for part in [&head[..], &frame.body, padding] {
            frames_crc = crc32c::crc32c_append(frames_crc, part);
            out.push(part);
        }
    }
    let mark = WriteMark {
        seq,
        segment: segment.0,
        offset,
        sectors: (out.len / SECTOR) as u32,
        frames_crc,
        first_index: first.index,
        last_index: last.index,
        last_term: last.term,
    };
    let header = WriteHeader {
        cluster_id: *cluster_id,
        generation: segment.0,
        seq,
        sectors: mark.sectors,
        frames: frames.len() as u32,
        frames_bytes: frames_bytes as u32,
        frames_crc,
        commit: commit.min(last.index),
        prev: *prev,
    };
    (out.finish(&write_header(&header), seq), mark)
}

/// What one sector says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorHead {
    /// All zeros.
    Blank,
    /// The first sector of write `seq`; its checksum holds.
    First {
        /// Sequence number of its write.
        seq: u64,
    },
    /// A later sector; its checksum holds.
    Later {
        /// Sequence number of its write.
        seq: u64,
        /// Its ordinal.
        ordinal: u16,
    },
    /// Anything else.
    Bad,
}

/// Classifies one sector.
pub fn sector_head(sector: &[u8]) -> SectorHead {
    if sector.len() != SECTOR {
        return SectorHead::Bad;
    }
    if sector[0] == 0 {
        return if sector.iter().all(|&b| b == 0) { SectorHead::Blank } else { SectorHead::Bad };
    }
    if sector[1] != FORMAT || u32_at(sector, 4) != sector_crc(sector) {
        return SectorHead::Bad;
    }
    let (seq, ordinal) = (u64_at(sector, 8), u16::from_le_bytes([sector[2], sector[3]]));
    match (sector[0], ordinal) {
        (MARK_FIRST, 0) => SectorHead::First { seq },
        (MARK_LATER, 1..) => SectorHead::Later { seq, ordinal },
        _ => SectorHead::Bad,
    }
}

/// False for nearly every sector that is not the first of a write made for this segment: what a recycled segment held
/// before names another one. Tells without a checksum.
pub fn may_begin(sector: &[u8], segment: SegmentNo) -> bool {
    sector.len() == SECTOR && sector[0] == MARK_FIRST && u64_at(sector, SECTOR_HEAD + 24) == segment.0
}

/// Reads the write header from a write's first sector. `None` if any checksum or number is wrong.
pub fn read_header(sector: &[u8]) -> Option<WriteHeader> {
    let SectorHead::First { seq } = sector_head(sector) else { return None };
    let h = &sector[SECTOR_HEAD..SECTOR_HEAD + WRITE_HEADER];
    if &h[..8] != MAGIC || u32_at(h, 140) != crc32c::crc32c(&h[..140]) || h[128..140] != [0; 12] {
        return None;
    }
    let mut cluster_id = [0; 16];
    cluster_id.copy_from_slice(&h[8..24]);
    let header = WriteHeader {
        cluster_id,
        generation: u64_at(h, 24),
        seq: u64_at(h, 32),
        sectors: u32_at(h, 40),
        frames: u32_at(h, 44),
        frames_bytes: u32_at(h, 48),
        frames_crc: u32_at(h, 52),
        commit: u64_at(h, 56),
        prev: WriteMark {
            seq: u64_at(h, 64),
            segment: u64_at(h, 72),
            offset: u64_at(h, 80),
            sectors: u32_at(h, 88),
            frames_crc: u32_at(h, 92),
            first_index: u64_at(h, 96),
            last_index: u64_at(h, 104),
            last_term: u64_at(h, 112),
        },
    };
    let sane = header.seq == seq
        && seq > 0
        && header.prev.seq == seq - 1
        && (1..=MAX_WRITE_SECTORS).contains(&(header.sectors as usize))
        && write_len(header.frames_bytes as usize) == header.sectors as usize * SECTOR;
    sane.then_some(header)
}

/// Reads the frames of a whole write, `header.sectors` sectors. `None` if any checksum or number is wrong.
pub fn read_frames(header: &WriteHeader, sectors: &[u8]) -> Option<Vec<Frame>> {
    if sectors.len() != header.sectors as usize * SECTOR {
        return None;
    }
    let mut payload = Vec::with_capacity(header.sectors as usize * SECTOR_PAYLOAD);
    for (ordinal, sector) in sectors.chunks_exact(SECTOR).enumerate() {
        let expected = match ordinal {
            0 => SectorHead::First { seq: header.seq },
            _ => SectorHead::Later { seq: header.seq, ordinal: ordinal as u16 },
        };
        if sector_head(sector) != expected {
            return None;
        }
        payload.extend_from_slice(&sector[SECTOR_HEAD..]);
    }
    let end = WRITE_HEADER + header.frames_bytes as usize;
    let payload = Bytes::from(payload);
    if crc32c::crc32c(payload.get(WRITE_HEADER..end)?) != header.frames_crc {
        return None;
    }
    let mut frames = Vec::with_capacity((header.frames as usize).min(header.frames_bytes as usize / FRAME_HEADER));
    let mut at = WRITE_HEADER;
    while at < end {
        let frame = read_frame(&payload.slice(at..end))?;
        at += frame.encoded_len();
        frames.push(frame);
    }
    let ascending = frames.windows(2).all(|w| w[1].index == w[0].index + 1 && w[1].term >= w[0].term);
    let reset_in_front = frames.iter().skip(1).all(|f| f.kind != FrameKind::Reset);
    (frames.len() == header.frames as usize && !frames.is_empty() && ascending && reset_in_front).then_some(frames)
}

fn read_frame(b: &Bytes) -> Option<Frame> {
    let h = b.get(..FRAME_HEADER)?;
    if u32_at(h, 28) != crc32c::crc32c(&h[..28]) || h[1..4] != [0; 3] {
        return None;
    }
    let kind = match h[0] {
        1 => FrameKind::Entry,
        2 => FrameKind::Conf,
        3 => FrameKind::Reset,
        _ => return None,
    };
    let length = u32_at(h, 4) as usize;
    if length > MAX_BATCH_BYTES || (kind == FrameKind::Reset && length > 0) || b.len() < frame_len(length) {
        return None;
    }
    let body = b.slice(FRAME_HEADER..FRAME_HEADER + length);
    let (term, index) = (u64_at(h, 8), u64_at(h, 16));
    // room for arithmetic above: no cluster lives to see 2^56 of anything
    let sane = term > 0 && index > 0 && term < 1 << 56 && index < 1 << 56;
    (sane && crc32c::crc32c(&body) == u32_at(h, 24)).then_some(Frame { kind, term, index, body })
}

fn frame_header(frame: &Frame) -> [u8; FRAME_HEADER] {
    let mut h = [0; FRAME_HEADER];
    h[0] = match frame.kind {
        FrameKind::Entry => 1,
        FrameKind::Conf => 2,
        FrameKind::Reset => 3,
    };
    h[4..8].copy_from_slice(&(frame.body.len() as u32).to_le_bytes());
    h[8..16].copy_from_slice(&frame.term.to_le_bytes());
    h[16..24].copy_from_slice(&frame.index.to_le_bytes());
    h[24..28].copy_from_slice(&crc32c::crc32c(&frame.body).to_le_bytes());
    let crc = crc32c::crc32c(&h[..28]);
    h[28..].copy_from_slice(&crc.to_le_bytes());
    h
}

fn write_header(header: &WriteHeader) -> [u8; WRITE_HEADER] {
    let mut h = [0; WRITE_HEADER];
    h[..8].copy_from_slice(MAGIC);
    h[8..24].copy_from_slice(&header.cluster_id);
    let p = &header.prev;
    for (at, v) in [
        (24, header.generation),
        (32, header.seq),
        (56, header.commit),
        (64, p.seq),
        (72, p.segment),
        (80, p.offset),
        (96, p.first_index),
        (104, p.last_index),
        (112, p.last_term),
    ] {
        h[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }
    for (at, v) in [
        (40, header.sectors),
        (44, header.frames),
        (48, header.frames_bytes),
        (52, header.frames_crc),
        (88, p.sectors),
        (92, p.frames_crc),
    ] {
        h[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }
    let crc = crc32c::crc32c(&h[..140]);
    h[140..].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Spreads a payload over sectors, leaving room for each head. Bytes are written once, in order: a write is large and
/// as many of them are made as the disk takes.
struct Stuffer {
    sectors: Vec<u8>,
    /// Bytes of all sectors in the end.
    len: usize,
}

impl Stuffer {
    fn new(len: usize) -> Stuffer {
        Stuffer { sectors: Vec::with_capacity(len), len }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.sectors.len().is_multiple_of(SECTOR) {
                self.sectors.extend_from_slice(&[0; SECTOR_HEAD]);
            }
            let n = bytes.len().min(SECTOR - self.sectors.len() % SECTOR);
            self.sectors.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
        }
    }

    fn finish(mut self, header: &[u8; WRITE_HEADER], seq: u64) -> Vec<u8> {
        self.sectors.resize(self.len, 0);
        self.sectors[SECTOR_HEAD..SECTOR_HEAD + WRITE_HEADER].copy_from_slice(header);
        for (ordinal, sector) in self.sectors.chunks_exact_mut(SECTOR).enumerate() {
            sector[0] = if ordinal == 0 { MARK_FIRST } else { MARK_LATER };
            sector[1] = FORMAT;
            sector[2..4].copy_from_slice(&(ordinal as u16).to_le_bytes());
            sector[8..16].copy_from_slice(&seq.to_le_bytes());
            let crc = sector_crc(sector);
            sector[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        self.sectors
    }
}

fn sector_crc(sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..4]), &sector[8..])
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut v = [0; 8];
    v.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(v)
}
