//! A chunk: a run of records in one checked file.
//!
//! ```text
//!   0       4         6      14         18                                          len-4      len
//!   ├ magic ┼ format ─┼─ id ─┼ entries ─┼ record │ record │ ...                      ┼ checksum ┤
//!     "RFCK"  u16 = 1   u64    u32                                                     CRC-32C of all before
//!   record: shared u16 │ rest length u16 │ value length u32 │ rest of the key │ value
//! ```
//!
//! Integers are big endian. A key is the first `shared` bytes of the key before it and the rest; the first record
//! shares none. Keys ascend strictly. The id numbers chunks of one data directory and names the file.

use ringfence_base::limit::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

use super::{ChunkMeta, Corruption, Flaw, MAX_CHUNK_BYTES, PREAMBLE, Place, unframe};
use crate::page::shared_prefix;

const MAGIC: [u8; 4] = *b"RFCK";
const FORMAT: u16 = 1;
const BODY: usize = PREAMBLE + 12;
const RECORD_HEADER: usize = 8;

/// Packs records into a chunk.
pub(crate) struct ChunkBuilder {
    id: u64,
    bytes: Vec<u8>,
    entries: u32,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl ChunkBuilder {
    pub(crate) fn new(id: u64) -> ChunkBuilder {
        let mut bytes = Vec::with_capacity(super::CHUNK_BYTES + super::CHUNK_BYTES / 8);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        ChunkBuilder { id, bytes, entries: 0, first: Vec::new(), last: Vec::new() }
    }

    /// Appends a record; keys ascend.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        let shared = if self.entries == 0 { 0 } else { shared_prefix(&self.last, key) };
        let rest = &key[shared..];
        self.bytes.extend_from_slice(&(shared as u16).to_be_bytes());
        self.bytes.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(value);
        if self.entries == 0 {
            self.first = key.to_vec();
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.entries += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        (self.entries > 0).then_some(&self.last[..])
    }

    /// What the manifest says of it, its last key, its bytes.
    pub(crate) fn finish(mut self) -> (ChunkMeta, Vec<u8>, Vec<u8>) {
        self.bytes[BODY - 4..BODY].copy_from_slice(&self.entries.to_be_bytes());
        let crc32c = crc32c::crc32c(&self.bytes);
        self.bytes.extend_from_slice(&crc32c.to_be_bytes());
        let meta = ChunkMeta {
            id: self.id,
            first_key: self.first,
            entries: self.entries,
            len: self.bytes.len() as u32,
            crc32c,
        };
        (meta, self.last, self.bytes)
    }
}

/// Key and value; the key lives until the next record is read, the value as long as the chunk's bytes.
pub type Record<'r, 'a> = (&'r [u8], &'a [u8]);

/// Yields the records of a chunk after checking it against the manifest.
pub struct ChunkReader<'a> {
    place: Place,
    body: &'a [u8],
    at: usize,
    left: u32,
    key: Vec<u8>,
    started: bool,
}

impl<'a> ChunkReader<'a> {
    /// Checks the whole chunk: that it is the one described, its format, its checksum.
    ///
    /// # Errors
    /// The first flaw found.
    pub fn open(bytes: &'a [u8], meta: &ChunkMeta) -> Result<ChunkReader<'a>, Corruption> {
        let place = Place::Chunk(meta.id);
        if bytes.len() > MAX_CHUNK_BYTES {
            return place.flaw(MAX_CHUNK_BYTES, Flaw::TooLong);
        }
        let body = unframe(bytes, MAGIC, FORMAT, place)?;
        let Some((head, body)) = body.split_first_chunk::<12>() else {
            return place.flaw(bytes.len(), Flaw::Truncated);
        };
        let [id @ .., a, b, c, d] = *head;
        let (id, entries) = (u64::from_be_bytes(id), u32::from_be_bytes([a, b, c, d]));
        let sum = bytes.last_chunk::<4>().map(|s| u32::from_be_bytes(*s));
        if bytes.len() as u64 != u64::from(meta.len)
            || sum != Some(meta.crc32c)
            || id != meta.id
            || entries != meta.entries
        {
            return place.flaw(PREAMBLE, Flaw::NotAsListed);
        }
        let unread = || ChunkReader { place, body, at: 0, left: entries, key: Vec::new(), started: false };
        match unread().next_record()? {
            Some((key, _)) if key == meta.first_key => Ok(unread()),
            _ => place.flaw(BODY, Flaw::NotAsListed),
        }
    }

    /// The next record, or `None` after the last.
    ///
    /// # Errors
    /// Whatever a chunk that passed its checksum could still be: written wrongly. After an error there is nothing to
    /// be read.
    pub fn next_record(&mut self) -> Result<Option<Record<'_, 'a>>, Corruption> {
        if self.left == 0 {
            let end = self.at == self.body.len();
            return if end { Ok(None) } else { self.fail(Flaw::Malformed) };
        }
        let Some((head, rest)) = self.body[self.at..].split_first_chunk::<RECORD_HEADER>() else {
            return self.fail(Flaw::Truncated);
        };
        let shared = u16::from_be_bytes([head[0], head[1]]) as usize;
        let rest_len = u16::from_be_bytes([head[2], head[3]]) as usize;
        let value_len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if shared + rest_len > MAX_KEY_BYTES || value_len > MAX_VALUE_BYTES {
            return self.fail(Flaw::TooLong);
        }
        if rest.len() < rest_len + value_len {
            return self.fail(Flaw::Truncated);
        }
        let (key_rest, rest) = rest.split_at(rest_len);
        if shared > self.key.len() {
            return self.fail(Flaw::Malformed);
        }
        if self.started && key_rest <= &self.key[shared..] {
            return self.fail(Flaw::Unsorted);
        }
        self.started = true;
        self.key.truncate(shared);
        self.key.extend_from_slice(key_rest);
        self.at += RECORD_HEADER + rest_len + value_len;
        self.left -= 1;
        Ok(Some((&self.key, &rest[..value_len])))
    }

    /// Where the next record starts in the file.
    pub fn offset(&self) -> usize {
        BODY + self.at
    }

    fn fail<T>(&mut self, why: Flaw) -> Result<T, Corruption> {
        let offset = self.offset();
        self.left = 0;
        self.at = self.body.len();
        self.place.flaw(offset, why)
    }
}
