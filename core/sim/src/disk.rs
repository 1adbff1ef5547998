//! A disk that tears. Durable state is what completed operations wrote; at a crash the operation in flight leaves any
//! subset of its sectors behind, and what was queued behind it leaves nothing.

use ringfence_base::Index;
use ringfence_base::entropy::SeededEntropy;
use ringfence_node::raft::{self, DiskFault, DiskOp, OpId, SECTOR, SegmentNo, log};
use ringfence_node::store::Manifest;
use ringfence_node::{Broken, FileFault, FileOp, Files, Found};
use std::collections::{BTreeMap, VecDeque};

/// What a completed operation is reported as.
#[derive(Debug)]
pub enum Done {
    /// A log operation.
    Disk(OpId, Result<(), DiskFault>),
    /// A file operation.
    File(u64, Result<(), FileFault>),
}

/// The disk of one node.
#[derive(Clone, Default)]
pub struct SimDisk {
    identity: Option<[u8; 16]>,
    slots: Vec<u8>,
    segments: BTreeMap<SegmentNo, Vec<u8>>,
    chunks: BTreeMap<u64, Vec<u8>>,
    manifest: Option<Vec<u8>>,
    writes: VecDeque<DiskOp>,
    beside: VecDeque<Beside>,
    /// Operations completed over the life of the disk.
    pub completed: u64,
    /// The device takes no more: preparing a segment or a file fails.
    pub full: bool,
    /// The device says that a write is durable when it only holds it, for so many writes: a broken one.
    pub held_writes: usize,
    held: VecDeque<DiskOp>,
}

#[derive(Clone)]
enum Beside {
    Disk(DiskOp),
    File(FileOp),
}

impl SimDisk {
    /// Queues a log operation.
    pub fn disk(&mut self, op: DiskOp) {
        match op {
            DiskOp::WriteLog { .. } | DiskOp::WriteSlot { .. } => self.writes.push_back(op),
            other => self.beside.push_back(Beside::Disk(other)),
        }
    }

    /// Queues a file operation.
    pub fn file(&mut self, op: FileOp) {
        match op {
            // as the real executor: named before the first vote
            FileOp::WriteIdentity { cluster, .. } => self.identity = Some(cluster),
            other => self.beside.push_back(Beside::File(other)),
        }
    }

    /// Operations waiting.
    pub fn waiting(&self) -> usize {
        self.writes.len() + self.beside.len()
    }

    /// Completes the next operation of one of the two queues.
    pub fn complete(&mut self, prefer_beside: bool) -> Option<Done> {
        let from_beside = !self.beside.is_empty() && (prefer_beside || self.writes.is_empty());
        self.completed += 1;
        if !from_beside {
            let op = self.writes.pop_front()?;
            let id = op.id();
            self.held.push_back(op);
            while self.held.len() > self.held_writes {
                if let Some(op) = self.held.pop_front() {
                    self.write(&op, |_| true);
                }
            }
            return Some(Done::Disk(id, Ok(())));
        }
        match self.beside.pop_front()? {
            Beside::Disk(op) => {
                let id = op.id();
                if self.full && matches!(op, DiskOp::PrepareSegment { recycle: None, .. }) {
                    return Some(Done::Disk(id, Err(DiskFault::Full)));
                }
                self.segment(&op);
                Some(Done::Disk(id, Ok(())))
            }
            Beside::File(op) => self.perform_file(op),
        }
    }

    fn perform_file(&mut self, op: FileOp) -> Option<Done> {
        match op {
            FileOp::WriteChunk { id, .. } | FileOp::WriteManifest { id, .. } if self.full => {
                Some(Done::File(id, Err(FileFault::Full)))
            }
            FileOp::WriteChunk { id, chunk, bytes } => {
                self.chunks.insert(chunk, bytes);
                Some(Done::File(id, Ok(())))
            }
            FileOp::WriteManifest { id, bytes } => {
                self.manifest = Some(bytes);
                Some(Done::File(id, Ok(())))
            }
            FileOp::RemoveChunk { chunk } => {
                self.chunks.remove(&chunk);
                None
            }
            FileOp::WriteIdentity { .. } => None,
        }
    }

    /// The power goes: the write in flight leaves any of its sectors, an operation beside may or may not have been
    /// finished, everything else that was queued is gone.
    pub fn crash(&mut self, rng: &mut SeededEntropy) {
        self.held.clear();
        if let Some(op) = self.writes.pop_front() {
            let style = rng.next_u64() % 4;
            let cut = rng.next_u64() % 64;
            let mut noise = SeededEntropy(rng.next_u64());
            self.write(&op, |sector| match style {
                0 => false,
                1 => true,
                2 => (sector as u64) < cut,
                _ => noise.next_u64().is_multiple_of(2),
            });
        }
        if let Some(op) = self.beside.pop_front()
            && rng.next_u64().is_multiple_of(2)
        {
            match op {
                Beside::Disk(op) => self.segment(&op),
                Beside::File(op) => {
                    self.perform_file(op);
                }
            }
        }
        self.writes.clear();
        self.beside.clear();
    }

    /// A bit flips in something that is kept.
    pub fn rot(&mut self, rng: &mut SeededEntropy) {
        let mut kept: Vec<&mut Vec<u8>> = self.segments.values_mut().chain(self.chunks.values_mut()).collect();
        kept.retain(|bytes| bytes.iter().any(|b| *b != 0));
        if kept.is_empty() {
            return;
        }
        let n = rng.next_u64() as usize % kept.len();
        let used = kept[n].iter().rposition(|b| *b != 0).map_or(1, |at| at + 1);
        kept[n][rng.next_u64() as usize % used] ^= 1 << (rng.next_u64() % 8);
    }

    fn write(&mut self, op: &DiskOp, mut keep: impl FnMut(usize) -> bool) {
        let (target, offset, bytes) = match op {
            DiskOp::WriteLog { segment, offset, bytes, .. } => {
                (self.segments.entry(*segment).or_default(), offset, bytes)
            }
            DiskOp::WriteSlot { offset, bytes, .. } => {
                if self.slots.is_empty() {
                    self.slots = vec![0; log::slots::FILE_BYTES];
                }
                (&mut self.slots, offset, bytes)
            }
            _ => return,
        };
        for (i, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = *offset as usize + i * SECTOR;
            if keep(i) && at + sector.len() <= target.len() {
                target[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }

    fn segment(&mut self, op: &DiskOp) {
        match op {
            DiskOp::PrepareSegment { segment, size, recycle, .. } => {
                let old = recycle.and_then(|r| self.segments.remove(&r));
                self.segments.insert(*segment, old.unwrap_or_else(|| vec![0; *size as usize]));
            }
            DiskOp::RemoveSegment { segment, .. } => {
                self.segments.remove(segment);
            }
            _ => {}
        }
    }

    /// Reads everything, as the server does at its start. `None`: never initialised.
    ///
    /// # Errors
    /// What the node would stop with.
    pub fn recover(&self) -> Result<Option<Found>, String> {
        let Some(cluster) = self.identity else { return Ok(None) };
        if self.slots.is_empty() {
            return Ok(None);
        }
        let manifest = self.manifest.as_ref().map(|bytes| Manifest::decode(bytes).map_err(|e| e.to_string()));
        let files = Files {
            cluster,
            manifest: manifest.transpose()?,
            slots: &self.slots,
            segments: self
                .segments
                .iter()
                .map(|(no, bytes)| raft::SegmentInput { segment: *no, content: bytes })
                .collect(),
        };
        match Found::read(files, |id| self.chunks.get(&id).ok_or_else(|| format!("chunk {id} is missing"))) {
            Ok(found) => Ok(Some(found)),
            Err(Broken::Log(e)) if matches!(e.what, raft::Damage::NeverBegan) => Ok(None),
            Err(Broken::Log(e)) => Err(e.to_string()),
            Err(Broken::Read(e) | Broken::Other(e)) => Err(e),
        }
    }

    /// Every byte that is durable, for a search of secrets.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.segments
            .values()
            .chain(self.chunks.values())
            .chain(self.manifest.as_ref())
            .map(Vec::as_slice)
            .chain(std::iter::once(self.slots.as_slice()))
    }

    /// A chunk file.
    pub fn chunk(&self, id: u64) -> Option<Vec<u8>> {
        self.chunks.get(&id).cloned()
    }

    /// Index of the checkpoint, 0 without one.
    pub fn checkpoint_index(&self) -> Index {
        self.manifest.as_ref().and_then(|b| Manifest::decode(b).ok()).map_or(Index(0), |m| m.index)
    }
}
