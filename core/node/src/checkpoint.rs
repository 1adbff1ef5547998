//! Checkpoints while writes go on: a version of the image is streamed into chunk files, one at a time, and a manifest
//! makes them count. Until the manifest is durable nothing of it is used; afterwards the log below it is recycled.
//!
//! ```text
//!   step ──> Pack ──outside──> packed ──> WriteChunk ──durable──> done ──> Pack ... ──> WriteManifest ──> done
//! ```
//!
//! Driven by the owner after each step. Versions are immutable, so a chunk's milliseconds of packing are spent outside of
//! the owner's core. A chunk is asked for only when the one before is durable: a checkpoint never holds more than one in
//! memory.

use crate::owner::{Level, OwnerOut};
use ringfence_base::{Index, Mono, Now, Term};
use ringfence_raft::ConfState;
use ringfence_store::stream::{ChunkReader, Identity};
use ringfence_store::{CheckpointWriter, Chunk, Manifest, Version};

/// After a failed write of a checkpoint file, ns until the next attempt.
const RETRY_NS: u64 = 10_000_000_000;
/// However small the image, a checkpoint is not made for less log than this, bytes.
const LOG_FLOOR_BYTES: u64 = 64 << 20;
/// Files of an older checkpoint are kept so long after a follower asked for one, ns.
const KEEP_NS: u64 = 60_000_000_000;

/// An operation on the files beside the log. All are durable, name included, when reported done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Who this directory belongs to; written once, before anything else. Not reported.
    WriteIdentity {
        /// The cluster.
        cluster: [u8; 16],
        /// Raft id of this directory.
        raft_id: u64,
    },
    /// A new chunk file; written under another name and renamed.
    WriteChunk {
        /// Reported back.
        id: u64,
        /// Its number, which names the file.
        chunk: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Replaces the manifest atomically.
    WriteManifest {
        /// Reported back.
        id: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A chunk that no manifest lists any more. Not reported; absent is fine.
    RemoveChunk {
        /// Its number.
        chunk: u64,
    },
}

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// No space left.
    Full,
    /// Anything else.
    Io(String),
}

/// A checkpoint whose next chunk is to be packed: milliseconds of work that needs nothing but itself.
pub struct Packing(CheckpointWriter);

/// A checkpoint whose next chunk was packed, if there was one.
pub struct Packed(CheckpointWriter, Option<Chunk>);

impl Packing {
    /// Packs the next chunk that is not kept from the last checkpoint.
    pub fn pack(mut self) -> Packed {
        let chunk = std::iter::from_fn(|| self.0.next_chunk()).find(|chunk| !chunk.unchanged);
        Packed(self.0, chunk)
    }
}

impl std::fmt::Debug for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packing")
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({:?})", self.1.as_ref().map(|chunk| chunk.meta.id))
    }
}

/// A finished checkpoint.
pub struct Made {
    /// Last index in it.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Membership at that index.
    pub conf_state: ConfState,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

/// Makes checkpoints when the log has grown.
pub struct Checkpointer {
    last: Option<Manifest>,
    log_bytes: u64,
    threshold: u64,
    wanted: bool,
    not_before: Mono,
    next_id: u64,
    run: Option<Run>,
    /// Files that no manifest lists any more, kept while a follower may still fetch them.
    doomed: Vec<u64>,
    /// When a follower last asked for one.
    fetched: Option<Mono>,
    /// A chunk was read back damaged: the next checkpoint keeps none.
    distrusted: bool,
}

struct Run {
    awaiting: u64,
    index: Index,
    term: Term,
    conf_state: ConfState,
    cluster: [u8; 16],
    stage: Stage,
}

enum Stage {
    /// The next chunk is being packed outside.
    Packing,
    /// A chunk is being written.
    Chunk(CheckpointWriter),
    Manifest(Manifest, Vec<u8>),
}

impl Checkpointer {
    /// After the checkpoint `last`; a new one is made for every `threshold` bytes of log at the latest. Of an image
    /// that is small beside that it is made earlier: a restart reads image and log, and the log is to be the lesser part.
    pub fn new(last: Option<Manifest>, threshold: u64) -> Checkpointer {
        Checkpointer {
            last,
            log_bytes: 0,
            threshold,
            wanted: false,
            not_before: Mono(0),
            next_id: 1,
            run: None,
            doomed: Vec::new(),
            fetched: None,
            distrusted: false,
        }
    }

    /// True if these are the bytes that the chunk's file should hold. If they are not, the next checkpoint, which is due at
    /// once, is written whole from memory. What no manifest lists any more cannot be told.
    pub fn judge(&mut self, chunk: u64, bytes: &[u8]) -> bool {
        let listed = self.last.as_ref().and_then(|m| m.chunks.iter().find(|c| c.id == chunk));
        let whole = listed.is_none_or(|meta| ChunkReader::open(bytes, meta).is_ok());
        if !whole {
            (self.distrusted, self.wanted) = (true, true);
        }
        whole
    }

    /// The log grew by this much.
    pub fn grew(&mut self, bytes: u64) {
        self.log_bytes += bytes;
    }

    /// One is needed now: the log's memory is at its bound, or a follower needs it.
    pub fn wanted(&mut self) {
        self.wanted = true;
    }

    /// The newest manifest.
    pub fn last(&self) -> Option<&Manifest> {
        self.last.as_ref()
    }

    /// True while files are being written.
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// A follower fetches files.
    pub fn fetched(&mut self, now: Now) {
        self.fetched = Some(now.mono);
    }

    /// True if this chunk's file is there for a follower.
    pub fn holds(&self, chunk: u64) -> bool {
        self.doomed.contains(&chunk) || self.last.as_ref().is_some_and(|m| m.chunks.iter().any(|c| c.id == chunk))
    }

    /// Time passes.
    pub fn tick(&mut self, now: Now, out: &mut Vec<OwnerOut>) {
        if self.fetched.is_none_or(|at| now.mono.since(at) >= KEEP_NS) {
            self.fetched = None;
            out.extend(self.doomed.drain(..).map(|chunk| OwnerOut::File(FileOp::RemoveChunk { chunk })));
        }
    }

    /// Begins a checkpoint if one is due.
    pub fn step(
        &mut self,
        version: &Version,
        cluster: [u8; 16],
        term: Term,
        conf_state: &ConfState,
        now: Now,
        out: &mut Vec<OwnerOut>,
    ) {
        let enough = self.threshold.min(LOG_FLOOR_BYTES.max(version.bytes() / 2));
        let due = self.wanted || self.log_bytes >= enough;
        let newer = self.last.as_ref().is_none_or(|m| m.index < version.index());
        if self.run.is_some() || !due || !newer || now.mono < self.not_before || term == Term(0) {
            return;
        }
        self.wanted = false;
        self.log_bytes = 0;
        // should it fail, the next attempt waits
        self.not_before = now.mono.plus_ns(RETRY_NS);
        self.run = Some(Run {
            awaiting: 0,
            index: version.index(),
            term,
            conf_state: conf_state.clone(),
            cluster,
            stage: Stage::Packing,
        });
        match std::mem::take(&mut self.distrusted) {
            true => self.pack(CheckpointWriter::new(version.clone(), self.names().as_ref()), out),
            false => self.pack(CheckpointWriter::new(version.clone(), self.last.as_ref()), out),
        }
    }

    /// No chunk is kept, but no name is given twice either: the old files stand until the manifest is replaced.
    fn names(&self) -> Option<Manifest> {
        self.last.as_ref().map(|m| Manifest { chunks: Vec::new(), ..m.clone() })
    }

    /// Begins the checkpoint of an image that shares nothing with the last one: a restored snapshot. The caller has
    /// seen that none is running.
    pub fn replace(
        &mut self,
        version: Version,
        cluster: [u8; 16],
        term: Term,
        conf_state: &ConfState,
        out: &mut Vec<OwnerOut>,
    ) {
        let names = self.names();
        self.run = Some(Run {
            awaiting: 0,
            index: version.index(),
            term,
            conf_state: conf_state.clone(),
            cluster,
            stage: Stage::Packing,
        });
        self.pack(CheckpointWriter::new(version, names.as_ref()), out);
    }

    /// A file operation is done. Answers the checkpoint when its manifest is durable.
    pub fn done(&mut self, id: u64, result: Result<(), FileFault>, out: &mut Vec<OwnerOut>) -> Option<Made> {
        if self.run.as_ref()?.awaiting != id {
            return None;
        }
        if let Err(fault) = result {
            self.run = None;
            self.wanted = true;
            let why = match fault {
                FileFault::Full => "no space left on the device".to_owned(),
                FileFault::Io(e) => e,
            };
            out.push(OwnerOut::Log(Level::Warn, format!("checkpoint abandoned, the log is kept: {why}")));
            return None;
        }
        let mut run = self.run.take()?;
        let (manifest, bytes) = match run.stage {
            Stage::Manifest(manifest, bytes) => (manifest, bytes),
            Stage::Chunk(writer) => {
                run.stage = Stage::Packing;
                self.run = Some(run);
                self.pack(writer, out);
                return None;
            }
            // no file is being written
            Stage::Packing => {
                self.run = Some(run);
                return None;
            }
        };
        let old = self.last.replace(manifest);
        let kept = self.last.as_ref().map(|m| &m.chunks);
        for chunk in old.into_iter().flat_map(|m| m.chunks) {
            if kept.is_none_or(|k| k.iter().all(|c| c.id != chunk.id)) {
                self.doomed.push(chunk.id);
            }
        }
        self.not_before = Mono(0);
        Some(Made { index: run.index, term: run.term, conf_state: run.conf_state, manifest: bytes })
    }

    /// Asks for the next chunk.
    fn pack(&mut self, writer: CheckpointWriter, out: &mut Vec<OwnerOut>) {
        let id = self.next_id();
        out.push(OwnerOut::Pack(id, Box::new(Packing(writer))));
    }

    /// A chunk was packed, or there are no more.
    pub fn packed(&mut self, id: u64, packed: Packed, out: &mut Vec<OwnerOut>) {
        let expected = self.run.as_ref().is_some_and(|r| r.awaiting == id && matches!(r.stage, Stage::Packing));
        if !expected {
            return;
        }
        let id = self.next_id();
        let Some(run) = &mut self.run else { return };
        let Packed(writer, chunk) = packed;
        if let Some(chunk) = chunk {
            run.stage = Stage::Chunk(writer);
            out.push(OwnerOut::File(FileOp::WriteChunk { id, chunk: chunk.meta.id, bytes: chunk.bytes }));
            return;
        }
        let manifest = writer.finish(Identity {
            cluster: run.cluster,
            term: run.term,
            conf_state: encode_conf(&run.conf_state),
        });
        let bytes = manifest.encode();
        out.push(OwnerOut::File(FileOp::WriteManifest { id, bytes: bytes.clone() }));
        run.stage = Stage::Manifest(manifest, bytes);
    }

    /// A number for what is asked for now; it is awaited.
    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(run) = &mut self.run {
            run.awaiting = id;
        }
        id
    }
}

/// Membership as the manifest keeps it.
pub fn encode_conf(c: &ConfState) -> Vec<u8> {
    let mut w = ringfence_base::Writer::new();
    w.u8(1);
    for list in [&c.voters, &c.learners, &c.voters_outgoing, &c.learners_next] {
        w.num(list.len() as u64);
        for id in list {
            w.num(*id);
        }
    }
    w.bool(c.auto_leave);
    w.finish()
}

/// Reads [`encode_conf`].
pub fn decode_conf(bytes: &[u8]) -> Result<ConfState, ringfence_base::CodecError> {
    let mut r = ringfence_base::Reader::new(bytes);
    match r.u8()? {
        1 => {}
        t => return Err(ringfence_base::CodecError::BadTag(t)),
    }
    let mut list = || -> Result<Vec<u64>, ringfence_base::CodecError> {
        let n = r.num()?;
        if n > 64 {
            return Err(ringfence_base::CodecError::TooLong);
        }
        (0..n).map(|_| r.num()).collect()
    };
    let (voters, learners, voters_outgoing, learners_next) = (list()?, list()?, list()?, list()?);
    let auto_leave = r.bool()?;
    r.end()?;
    Ok(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::Wall;
    use ringfence_store::{Batch, Image, Op};

    fn image(records: u32) -> Image {
        let mut image = Image::new();
        for n in 1..=records {
            let put = Op::Put { key: [&[0x81, 0, 0, 0, 1][..], &n.to_be_bytes()].concat(), value: vec![7; 60_000] };
            image.apply(Index(u64::from(n)), &Batch { log_time: Wall(0), ops: vec![put] });
        }
        image
    }

    fn begin(c: &mut Checkpointer, version: &Version) -> (u64, Packing) {
        let mut out = Vec::new();
        c.wanted();
        let now = Now { mono: Mono(1 << 50), wall: Wall(0) };
        c.step(version, [1; 16], Term(1), &ConfState::default(), now, &mut out);
        match out.pop() {
            Some(OwnerOut::Pack(id, packing)) => (id, *packing),
            other => panic!("a checkpoint begins with packing: {other:?}"),
        }
    }

    /// Carries a checkpoint through; answers what it made and the chunks it wrote.
    fn finish(c: &mut Checkpointer, id: u64, packing: Packing) -> (Made, usize) {
        let (mut out, mut chunks) = (Vec::new(), 0);
        c.packed(id, packing.pack(), &mut out);
        loop {
            let asked = out.remove(0);
            let made = match asked {
                OwnerOut::Pack(id, packing) => {
                    c.packed(id, packing.pack(), &mut out);
                    None
                }
                OwnerOut::File(FileOp::WriteChunk { id, .. }) => {
                    chunks += 1;
                    c.done(id, Ok(()), &mut out)
                }
                OwnerOut::File(FileOp::WriteManifest { id, .. }) => c.done(id, Ok(()), &mut out),
                other => panic!("a checkpoint asks for packing and files: {other:?}"),
            };
            if let Some(made) = made {
                return (made, chunks);
            }
        }
    }

    #[test]
    fn chunks_are_packed_outside_and_kept_when_they_stand_still() {
        let mut image = image(300);
        let mut c = Checkpointer::new(None, u64::MAX);
        let (id, packing) = begin(&mut c, &image.publish());
        // writes that come while it is packed belong to the next one
        let put = Op::Put { key: vec![0x81, 0, 0, 0, 1, 0, 0, 0, 9], value: vec![8; 10] };
        image.apply(Index(301), &Batch { log_time: Wall(0), ops: vec![put] });
        let (made, first) = finish(&mut c, id, packing);
        assert_eq!(made.index, Index(300));
        assert!(first >= 3 && !c.is_running(), "18 MB are several chunks");
        let (id, packing) = begin(&mut c, &image.publish());
        let (made, second) = finish(&mut c, id, packing);
        assert_eq!((made.index, second), (Index(301), 1), "one chunk changed");
    }

    #[test]
    fn a_damaged_chunk_is_not_kept() {
        let mut image = image(300);
        let mut c = Checkpointer::new(None, u64::MAX);
        let mut out = Vec::new();
        let (id, packing) = begin(&mut c, &image.publish());
        c.packed(id, packing.pack(), &mut out);
        let Some(OwnerOut::File(FileOp::WriteChunk { id, chunk, bytes })) = out.pop() else { panic!("a chunk") };
        c.done(id, Ok(()), &mut out);
        let Some(OwnerOut::Pack(id, packing)) = out.pop() else { panic!("another chunk") };
        let (_, first) = finish(&mut c, id, *packing);
        assert!(c.judge(chunk, &bytes) && c.judge(chunk + 1000, b"of an older one"));
        let mut rotten = bytes.clone();
        rotten[bytes.len() / 2] ^= 1;
        assert!(!c.judge(chunk, &rotten) && !c.judge(chunk, b""));
        let put = Op::Put { key: vec![0x81, 0, 0, 0, 1, 0, 0, 0, 9], value: vec![8; 10] };
        image.apply(Index(301), &Batch { log_time: Wall(0), ops: vec![put] });
        let (id, packing) = begin(&mut c, &image.publish());
        let (_, second) = finish(&mut c, id, packing);
        assert_eq!(second, first + 1, "all chunks are written anew");
    }

    #[test]
    fn what_comes_late_to_an_abandoned_checkpoint_is_nothing() {
        let mut image = image(10);
        let mut c = Checkpointer::new(None, u64::MAX);
        let (id, packing) = begin(&mut c, &image.publish());
        let mut out = Vec::new();
        c.packed(id, packing.pack(), &mut out);
        let Some(OwnerOut::File(FileOp::WriteChunk { id: chunk, .. })) = out.pop() else { panic!("a chunk") };
        assert!(c.done(chunk, Err(FileFault::Full), &mut out).is_none());
        assert!(!c.is_running() && matches!(out[..], [OwnerOut::Log(Level::Warn, _)]));
        out.clear();
        assert!(c.done(chunk, Ok(()), &mut out).is_none(), "reported twice");
        let late = Packing(CheckpointWriter::new(image.publish(), None)).pack();
        c.packed(id, late, &mut out);
        assert!(out.is_empty() && !c.is_running());
    }

    #[test]
    fn a_small_image_waits_for_less_log() {
        let begins_after = |version: &Version, threshold: u64| {
            let mut c = Checkpointer::new(None, threshold);
            let now = Now { mono: Mono(1 << 50), wall: Wall(0) };
            let mut log_mib = 0;
            while !c.is_running() {
                c.grew(1 << 20);
                log_mib += 1;
                c.step(version, [1; 16], Term(1), &ConfState::default(), now, &mut Vec::new());
            }
            log_mib
        };
        let (small, large) = (image(10).publish(), image(3000).publish());
        assert_eq!(begins_after(&small, 256 << 20), 64, "the floor");
        let half = large.bytes().div_ceil(2 << 20);
        assert!(half > 64 && begins_after(&large, 256 << 20) == half, "half of the image");
        assert_eq!(begins_after(&large, 20 << 20), 20, "what is configured is the most");
    }

    #[test]
    fn membership_survives() {
        let c = ConfState { voters: vec![1, 2, 9], learners: vec![7], ..ConfState::default() };
        assert_eq!(decode_conf(&encode_conf(&c)), Ok(c));
        assert!(decode_conf(&[]).is_err());
        assert!(decode_conf(&[2]).is_err());
    }
}
