//! Loading a checkpoint, and the committed tail of the log with it, in one sorted pass.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::iter::Peekable;

use ringfence_base::{Index, MountId, Wall};

use super::{ChunkReader, Corruption, Flaw, Manifest, Place};
use crate::build::{Builder, Unsorted};
use crate::image::scope_of;
use crate::{Batch, Image, Key, Op};

/// The last word of the tail on a key: its index, and the value unless it was deleted.
type Last = (Index, Option<Vec<u8>>);

/// Takes the chunks of a manifest in its order, one at a time, and ends with an image.
pub struct Loader<'m> {
    manifest: &'m Manifest,
    next: usize,
    builder: Builder,
    tail: Peekable<IntoIter<Key, Last>>,
    marks: BTreeMap<(u8, Option<MountId>), Index>,
    index: Index,
    log_time: Wall,
    last_key: Option<Key>,
}

/// Loads a checkpoint from its chunks, given in the manifest's order.
///
/// # Errors
/// The first damage found; never a partial image.
pub fn load<C: AsRef<[u8]>>(manifest: &Manifest, chunks: impl IntoIterator<Item = C>) -> Result<Image, Corruption> {
    let mut loader = Loader::new(manifest, []);
    for chunk in chunks {
        loader.push(chunk.as_ref())?;
    }
    loader.finish()
}

impl Image {
    /// Rebuilds the image after a start: the checkpoint and the committed batches after it, merged in one sorted
    /// pass. Batches at or below the checkpoint's index are skipped.
    ///
    /// # Errors
    /// The first damage found; never a partial image.
    pub fn recover<C: AsRef<[u8]>>(
        manifest: &Manifest,
        chunks: impl IntoIterator<Item = C>,
        tail: impl IntoIterator<Item = (Index, Batch)>,
    ) -> Result<Image, Corruption> {
        let mut loader = Loader::new(manifest, tail);
        for chunk in chunks {
            loader.push(chunk.as_ref())?;
        }
        loader.finish()
    }
}

impl<'m> Loader<'m> {
    /// Expects the chunks of `manifest`; `tail` is what was committed since, in order.
    pub fn new(manifest: &'m Manifest, tail: impl IntoIterator<Item = (Index, Batch)>) -> Loader<'m> {
        let (mut index, mut log_time) = (manifest.index, manifest.log_time);
        let (mut last, mut marks) = (BTreeMap::new(), BTreeMap::new());
        for (at, batch) in tail.into_iter().filter(|(at, _)| *at > manifest.index) {
            ringfence_base::invariant!(at >= index, "the tail goes back from {index} to {at}");
            index = at;
            log_time = log_time.max(batch.log_time);
            for op in batch.ops {
                if let Some((table, mount)) = scope_of(op.key()) {
                    marks.insert((table, None), at);
                    marks.insert((table, mount), at);
                }
                match op {
                    Op::Put { key, value } => last.insert(key, (at, Some(value))),
                    Op::Delete { key } => last.insert(key, (at, None)),
                };
            }
        }
        let tail = last.into_iter().peekable();
        Loader { manifest, next: 0, builder: Builder::new(), tail, marks, index, log_time, last_key: None }
    }

    /// Number of the chunk to be pushed next, or `None` when all are in.
    pub fn wanted(&self) -> Option<u64> {
        self.manifest.chunks.get(self.next).map(|c| c.id)
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// The first damage found; the loader is of no more use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Corruption> {
        let Some(meta) = self.manifest.chunks.get(self.next) else {
            return Place::Manifest.flaw(0, Flaw::NotAsListed);
        };
        let place = Place::Chunk(meta.id);
        let mut reader = ChunkReader::open(bytes, meta)?;
        if self.last_key.as_ref().is_some_and(|last| *last >= meta.first_key) {
            return place.flaw(reader.offset(), Flaw::Unsorted);
        }
        let loaded_at = self.manifest.index.0;
        let mut last_key = Vec::new();
        loop {
            let offset = reader.offset();
            let Some((key, value)) = reader.next_record()? else { break };
            let unsorted = |_: Unsorted| Corruption { place, offset, why: Flaw::Unsorted };
            self.drain_tail(|k| k < key).map_err(unsorted)?;
            match self.tail.next_if(|(k, _)| k == key) {
                Some((_, (at, Some(newer)))) => self.builder.push(key, &newer, at.0).map_err(unsorted)?,
                Some((_, (at, None))) => self.builder.deleted(at.0),
                None => self.builder.push(key, value, loaded_at).map_err(unsorted)?,
            }
            last_key.clear();
            last_key.extend_from_slice(key);
        }
        self.last_key = Some(last_key);
        self.next += 1;
        Ok(())
    }

    /// The image.
    ///
    /// # Errors
    /// A chunk is missing.
    pub fn finish(mut self) -> Result<Image, Corruption> {
        if let Some(id) = self.wanted() {
            return Place::Chunk(id).flaw(0, Flaw::Missing);
        }
        let after_all = |_: Unsorted| Corruption { place: Place::Manifest, offset: 0, why: Flaw::Unsorted };
        self.drain_tail(|_| true).map_err(after_all)?;
        let mut image = Image::over(self.builder.finish(), self.manifest.index, self.manifest.log_time);
        for ((table, mount), at) in self.marks {
            image.mark(table, mount, at);
        }
        image.advance(self.index, self.log_time);
        Ok(image)
    }

    /// Moves what the tail put before a key into the image.
    fn drain_tail(&mut self, before: impl Fn(&[u8]) -> bool) -> Result<(), Unsorted> {
        while let Some((key, (at, value))) = self.tail.next_if(|(key, _)| before(key)) {
            match value {
                Some(value) => self.builder.push(&key, &value, at.0)?,
                None => self.builder.deleted(at.0),
            }
        }
        Ok(())
    }
}
