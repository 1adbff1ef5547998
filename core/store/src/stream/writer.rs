//! Writing a checkpoint: what to keep of the previous one, and the chunks that replace the rest.
//!
//! The previous manifest's first keys divide the keys into ranges. A range whose pages stand still since its index is
//! kept: its file is referenced, not written. Ranges that changed are packed anew; a chunk that has become small is
//! packed with what follows it, so that small ones never pile up.

use std::collections::VecDeque;
use std::ops::Bound;

use super::{CHUNK_BYTES, ChunkBuilder, ChunkMeta, Identity, Manifest};
use crate::{Key, Version};

/// A kept chunk below this is packed again with its neighbours.
const SMALL_CHUNK_BYTES: usize = CHUNK_BYTES / 4;
/// A chunk is closed here whatever follows.
const FULL_CHUNK_BYTES: usize = CHUNK_BYTES + CHUNK_BYTES / 2;

/// One chunk of a checkpoint.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What the manifest will say of it.
    pub meta: ChunkMeta,
    /// Its last key.
    pub last_key: Key,
    /// The file's bytes; empty if it is unchanged.
    pub bytes: Vec<u8>,
    /// True if the file of the previous checkpoint is kept.
    pub unchanged: bool,
}

/// A range of the previous manifest that changed, or all keys if there is none.
struct Range {
    /// Where it ends, exclusive; `None`: no bound.
    to: Option<Key>,
    /// The chunk to keep, if the range stands still.
    kept: Option<ChunkMeta>,
}

/// Yields the chunks of a version, in order.
pub struct CheckpointWriter {
    version: Version,
    ranges: VecDeque<Range>,
    /// Everything up to here is in a chunk.
    from: Bound<Key>,
    next_id: u64,
    chunks: Vec<ChunkMeta>,
}

impl CheckpointWriter {
    /// Plans a checkpoint of `version`. The previous manifest must belong to the same history: the same cluster and
    /// not from before a restore.
    pub fn new(version: Version, previous: Option<&Manifest>) -> CheckpointWriter {
        let mut ranges = VecDeque::new();
        let chunks = previous.map_or(&[][..], |m| &m.chunks);
        for (i, chunk) in chunks.iter().enumerate() {
            // Keys below the first chunk's first key belong to its range.
            let from = (i > 0).then_some(&chunk.first_key[..]);
            let to = chunks.get(i + 1).map(|next| next.first_key.clone());
            let index = previous.map_or(0, |m| m.index.0);
            let still = version.changed_within(from, to.as_deref()) <= index && index <= version.index().0;
            let kept = (still && chunk.len as usize >= SMALL_CHUNK_BYTES).then(|| chunk.clone());
            ranges.push_back(Range { to, kept });
        }
        if ranges.is_empty() {
            ranges.push_back(Range { to: None, kept: None });
        }
        let next_id = previous.map_or(1, |m| m.next_id);
        CheckpointWriter { version, ranges, from: Bound::Unbounded, next_id, chunks: Vec::new() }
    }

    /// The next chunk, or `None` when all are out. Costs a few milliseconds at most.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let mut open: Option<ChunkBuilder> = None;
        while let Some(range) = self.ranges.front_mut() {
            if let Some(meta) = range.kept.take_if(|_| open.is_none()) {
                return Some(self.keep(meta));
            }
            if range.kept.is_some() {
                break;
            }
            let to = range.to.clone();
            let next_id = self.next_id;
            let chunk = open.get_or_insert_with(|| ChunkBuilder::new(next_id));
            if !fill(chunk, &self.version, &self.from, to.as_deref()) {
                self.from = Bound::Excluded(chunk.last_key().expect("a full chunk has entries").to_vec());
                break;
            }
            self.ranges.pop_front();
            self.from = to.map_or(Bound::Unbounded, Bound::Included);
            if chunk.last_key().is_none() {
                open = None;
            } else if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        let (meta, last_key, bytes) = open?.finish();
        self.next_id += 1;
        self.chunks.push(meta.clone());
        Some(Chunk { meta, last_key, bytes, unchanged: false })
    }

    /// The manifest, once all chunks are out and their files are durable.
    pub fn finish(mut self, identity: Identity) -> Manifest {
        while self.next_chunk().is_some() {}
        Manifest {
            identity,
            index: self.version.index(),
            log_time: self.version.log_time(),
            next_id: self.next_id,
            chunks: self.chunks,
        }
    }

    fn keep(&mut self, meta: ChunkMeta) -> Chunk {
        let to = self.ranges.pop_front().and_then(|range| range.to);
        let last = match &to {
            Some(to) => self.version.scan(Bound::Unbounded, Bound::Excluded(to)).next_back(),
            None => self.version.scan(Bound::Unbounded, Bound::Unbounded).next_back(),
        };
        let last_key = last.map_or_else(Vec::new, |(key, _)| key.to_vec());
        self.from = to.map_or(Bound::Unbounded, Bound::Included);
        self.chunks.push(meta.clone());
        Chunk { meta, last_key, bytes: Vec::new(), unchanged: true }
    }
}

/// Packs the range into the chunk. False if the chunk is full before the range is through.
fn fill(chunk: &mut ChunkBuilder, version: &Version, from: &Bound<Key>, to: Option<&[u8]>) -> bool {
    let from = from.as_ref().map(|key| &key[..]);
    let mut scan = version.scan(from, to.map_or(Bound::Unbounded, Bound::Excluded));
    while let Some((key, value)) = scan.next() {
        chunk.push(key, value);
        let entry = key.len() + value.len() + 8;
        // What little remains of the range is taken along rather than left as a chunk of its own.
        let remains = scan.len() > 0 && scan.len() * entry > CHUNK_BYTES / 2;
        if chunk.len() >= FULL_CHUNK_BYTES || (chunk.len() >= CHUNK_BYTES && remains) {
            return scan.len() == 0;
        }
    }
    true
}
