//! Loading a checkpoint, and the committed tail of the log with it, in one sorted pass.

use ringfence_base::{Index, Wall};

use super::tail::{Sorted, Tail};
use super::{ChunkMeta, ChunkReader, Corruption, Flaw, Manifest, Place};
use crate::build::{Builder, Unsorted};
use crate::{Image, Key};

/// Takes the chunks of a manifest in its order, one at a time, and ends with an image.
pub struct Loader<'m> {
    chunks: &'m [ChunkMeta],
    index: Index,
    log_time: Wall,
    next: usize,
    builder: Builder,
    tail: Sorted<'m>,
    last_key: Option<Key>,
}

/// Loads a checkpoint from its chunks, given in the manifest's order.
///
/// # Errors
/// The first damage found; never a partial image.
pub fn load<C: AsRef<[u8]>>(manifest: &Manifest, chunks: impl IntoIterator<Item = C>) -> Result<Image, Corruption> {
    let mut loader = Loader::new(Some(manifest), Tail::after(manifest.index));
    for chunk in chunks {
        loader.push(chunk.as_ref())?;
    }
    loader.finish()
}

impl<'m> Loader<'m> {
    /// Expects the chunks of `manifest`, or none if no checkpoint was made yet; `tail` is what was committed since.
    pub fn new(manifest: Option<&'m Manifest>, tail: Tail<'m>) -> Loader<'m> {
        Loader {
            chunks: manifest.map_or(&[], |m| &m.chunks),
            index: manifest.map_or(Index(0), |m| m.index),
            log_time: manifest.map_or(Wall(0), |m| m.log_time),
            next: 0,
            builder: Builder::new(),
            tail: tail.sort(),
            last_key: None,
        }
    }

    /// Number of the chunk to be pushed next, or `None` when all are in.
    pub fn wanted(&self) -> Option<u64> {
        self.chunks.get(self.next).map(|c| c.id)
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// The first damage found; the loader is of no more use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Corruption> {
        let Some(meta) = self.chunks.get(self.next) else {
            return Place::Manifest.flaw(0, Flaw::NotAsListed);
        };
        let place = Place::Chunk(meta.id);
        let mut reader = ChunkReader::open(bytes, meta)?;
        if self.last_key.as_ref().is_some_and(|last| *last >= meta.first_key) {
            return place.flaw(reader.offset(), Flaw::Unsorted);
        }
        let loaded_at = self.index.0;
        let mut last_key = Vec::new();
        loop {
            let offset = reader.offset();
            let Some((key, value)) = reader.next_record()? else { break };
            let unsorted = |_: Unsorted| Corruption { place, offset, why: Flaw::Unsorted };
            self.drain_tail(|k| k < key).map_err(unsorted)?;
            match self.tail.rows.next_if(|row| row.key == key) {
                Some(row) => match row.value {
                    Some(newer) => self.builder.push(key, newer, row.at.0).map_err(unsorted)?,
                    None => self.builder.deleted(row.at.0),
                },
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
        let mut image = Image::over(self.builder.finish(), self.index, self.log_time);
        for ((table, mount), at) in self.tail.marks {
            image.mark(table, mount, at);
        }
        image.advance(self.tail.index.max(self.index), self.tail.log_time);
        Ok(image)
    }

    /// Moves what the tail put before a key into the image.
    fn drain_tail(&mut self, before: impl Fn(&[u8]) -> bool) -> Result<(), Unsorted> {
        while let Some(row) = self.tail.rows.next_if(|row| before(row.key)) {
            match row.value {
                Some(value) => self.builder.push(row.key, value, row.at.0)?,
                None => self.builder.deleted(row.at.0),
            }
        }
        Ok(())
    }
}
