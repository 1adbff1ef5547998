//! Checkpoints while writes go on: a version of the image is streamed into chunk files, one at a time, and a manifest
//! makes them count. Until the manifest is durable nothing of it is used; afterwards the log below it is recycled.
//!
//! Driven by the owner after each step; a chunk is asked for only when the one before is durable, so a checkpoint
//! never holds more than one chunk in memory and yields to foreground writes between any two.

use crate::owner::{Level, OwnerOut};
use ringfence_base::{Index, Mono, Now, Term};
use ringfence_raft::ConfState;
use ringfence_store::stream::Identity;
use ringfence_store::{CheckpointWriter, Manifest, Version};

/// After a failed write of a checkpoint file, ns until the next attempt.
const RETRY_NS: u64 = 10_000_000_000;

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
    Chunks(CheckpointWriter),
    Manifest(Manifest, Vec<u8>),
}

impl Checkpointer {
    /// After the checkpoint `last`; a new one is made for every `threshold` bytes of log.
    pub fn new(last: Option<Manifest>, threshold: u64) -> Checkpointer {
        Checkpointer { last, log_bytes: 0, threshold, wanted: false, not_before: Mono(0), next_id: 1, run: None }
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

    /// Time passes.
    pub fn tick(&mut self, _now: Now) {}

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
        let due = self.wanted || self.log_bytes >= self.threshold;
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
            stage: Stage::Chunks(CheckpointWriter::new(version.clone(), self.last.as_ref())),
        });
        self.advance(out);
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
        // no chunk is kept, but no name is given twice either: the old files stand until the manifest is replaced
        let names = self.last.as_ref().map(|m| Manifest { chunks: Vec::new(), ..m.clone() });
        self.run = Some(Run {
            awaiting: 0,
            index: version.index(),
            term,
            conf_state: conf_state.clone(),
            cluster,
            stage: Stage::Chunks(CheckpointWriter::new(version, names.as_ref())),
        });
        self.advance(out);
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
        if matches!(self.run.as_ref()?.stage, Stage::Chunks(_)) {
            self.advance(out);
            return None;
        }
        let run = self.run.take()?;
        let Stage::Manifest(manifest, bytes) = run.stage else { return None };
        let old = self.last.replace(manifest);
        let kept = self.last.as_ref().map(|m| &m.chunks);
        for chunk in old.into_iter().flat_map(|m| m.chunks) {
            if kept.is_none_or(|k| k.iter().all(|c| c.id != chunk.id)) {
                out.push(OwnerOut::File(FileOp::RemoveChunk { chunk: chunk.id }));
            }
        }
        self.not_before = Mono(0);
        Some(Made { index: run.index, term: run.term, conf_state: run.conf_state, manifest: bytes })
    }

    /// Asks for the next file.
    fn advance(&mut self, out: &mut Vec<OwnerOut>) {
        let Some(run) = &mut self.run else { return };
        let Stage::Chunks(writer) = &mut run.stage else { return };
        let id = self.next_id;
        self.next_id += 1;
        run.awaiting = id;
        while let Some(chunk) = writer.next_chunk() {
            if !chunk.unchanged {
                out.push(OwnerOut::File(FileOp::WriteChunk { id, chunk: chunk.meta.id, bytes: chunk.bytes }));
                return;
            }
        }
        let empty = CheckpointWriter::new(ringfence_store::Image::new().publish(), None);
        let Stage::Chunks(writer) = std::mem::replace(&mut run.stage, Stage::Chunks(empty)) else { return };
        let manifest = writer.finish(Identity {
            cluster: run.cluster,
            term: run.term,
            conf_state: encode_conf(&run.conf_state),
        });
        let bytes = manifest.encode();
        out.push(OwnerOut::File(FileOp::WriteManifest { id, bytes: bytes.clone() }));
        run.stage = Stage::Manifest(manifest, bytes);
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

    #[test]
    fn membership_survives() {
        let c = ConfState { voters: vec![1, 2, 9], learners: vec![7], ..ConfState::default() };
        assert_eq!(decode_conf(&encode_conf(&c)), Ok(c));
        assert!(decode_conf(&[]).is_err());
        assert!(decode_conf(&[2]).is_err());
    }
}
