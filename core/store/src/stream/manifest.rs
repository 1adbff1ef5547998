//! A manifest: what makes chunk files a checkpoint.
//!
//! ```text
//!   0       4         6          22      30     38         46        54                  58
//!   ├ magic ┼ format ─┼ cluster ─┼ index ┼ term ┼ log time ┼ next id ┼ conf state length ─┼ conf state ...
//!     "RFMF"  u16 = 1   16 bytes   u64     u64    u64, ns    u64       u32
//!   ... ┼ chunks ┼ chunk │ chunk │ ... ┼ checksum ┤
//!         u32                            CRC-32C of all before
//!   chunk: id u64 │ entries u32 │ length u32 │ checksum u32 │ first key length u16 │ first key
//! ```
//!
//! Integers are big endian. Chunks stand in key order. `next id` is above the id of every chunk that this or an
//! earlier manifest of the directory listed, so that a name is never given twice.

use ringfence_base::limit::MAX_KEY_BYTES;
use ringfence_base::{Index, Reader, Term, Wall, Writer};

use super::{Corruption, Flaw, MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_CONF_STATE_BYTES, PREAMBLE, Place, unframe};
use crate::Key;

const MAGIC: [u8; 4] = *b"RFMF";
const FORMAT: u16 = 1;

/// What the manifest knows of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Its number, which names the file.
    pub id: u64,
    /// Its first key.
    pub first_key: Key,
    /// Number of records.
    pub entries: u32,
    /// Length of the file, bytes.
    pub len: u32,
    /// The checksum that the file ends with.
    pub crc32c: u32,
}

/// What the caller knows of the checkpoint and the store does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: [u8; 16],
    /// Term of the entry at the checkpoint's index.
    pub term: Term,
    /// Raft's configuration at that index, opaque here.
    pub conf_state: Vec<u8>,
}

/// A checkpoint's table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose it is.
    pub identity: Identity,
    /// The last batch in it.
    pub index: Index,
    /// Log time at that index.
    pub log_time: Wall,
    /// Number of the next new chunk.
    pub next_id: u64,
    /// The chunks in key order.
    pub chunks: Vec<ChunkMeta>,
}

impl Manifest {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(&MAGIC).raw(&FORMAT.to_be_bytes()).raw(&self.identity.cluster);
        w.be64(self.index.0).be64(self.identity.term.0).be64(self.log_time.0).be64(self.next_id);
        w.be32(self.identity.conf_state.len() as u32).raw(&self.identity.conf_state);
        w.be32(self.chunks.len() as u32);
        for chunk in &self.chunks {
            w.be64(chunk.id).be32(chunk.entries).be32(chunk.len).be32(chunk.crc32c);
            w.raw(&(chunk.first_key.len() as u16).to_be_bytes()).raw(&chunk.first_key);
        }
        let sum = crc32c::crc32c(w.as_slice());
        w.be32(sum);
        w.finish()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The first flaw found.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, Corruption> {
        let body = unframe(bytes, MAGIC, FORMAT, Place::Manifest)?;
        let mut fields = Fields { r: Reader::new(body), len: body.len() };
        let mut cluster = [0; 16];
        cluster.copy_from_slice(fields.raw(16)?);
        let (index, term) = (Index(fields.be64()?), Term(fields.be64()?));
        let (log_time, next_id) = (Wall(fields.be64()?), fields.be64()?);
        let conf_len = fields.be32()? as usize;
        if conf_len > MAX_CONF_STATE_BYTES {
            return fields.fail(Flaw::TooLong);
        }
        let conf_state = fields.raw(conf_len)?.to_vec();
        let count = fields.be32()? as usize;
        if count > MAX_CHUNKS {
            return fields.fail(Flaw::TooLong);
        }
        let mut chunks: Vec<ChunkMeta> = Vec::new();
        for _ in 0..count {
            let chunk = fields.chunk()?;
            if chunk.id >= next_id || chunk.entries == 0 || chunk.len as usize > MAX_CHUNK_BYTES {
                return fields.fail(Flaw::Malformed);
            }
            if chunks.last().is_some_and(|last| last.first_key >= chunk.first_key) {
                return fields.fail(Flaw::Unsorted);
            }
            chunks.push(chunk);
        }
        if !fields.r.is_empty() {
            return fields.fail(Flaw::Malformed);
        }
        Ok(Manifest { identity: Identity { cluster, term, conf_state }, index, log_time, next_id, chunks })
    }

    /// Number of records in all chunks.
    pub fn entries(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.entries)).sum()
    }

    /// Length of all chunk files, bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len)).sum()
    }
}

/// Takes fields and knows where it is.
struct Fields<'a> {
    r: Reader<'a>,
    len: usize,
}

impl<'a> Fields<'a> {
    fn fail<T>(&self, why: Flaw) -> Result<T, Corruption> {
        Place::Manifest.flaw(PREAMBLE + self.len - self.r.rest().len(), why)
    }

    fn raw(&mut self, n: usize) -> Result<&'a [u8], Corruption> {
        match self.r.raw(n) {
            Ok(b) => Ok(b),
            Err(_) => self.fail(Flaw::Truncated),
        }
    }

    fn be32(&mut self) -> Result<u32, Corruption> {
        let b = self.raw(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn be64(&mut self) -> Result<u64, Corruption> {
        Ok(u64::from(self.be32()?) << 32 | u64::from(self.be32()?))
    }

    fn chunk(&mut self) -> Result<ChunkMeta, Corruption> {
        let id = self.be64()?;
        let (entries, len, crc32c) = (self.be32()?, self.be32()?, self.be32()?);
        let key_len = self.raw(2)?;
        let key_len = u16::from_be_bytes([key_len[0], key_len[1]]) as usize;
        if key_len > MAX_KEY_BYTES {
            return self.fail(Flaw::TooLong);
        }
        Ok(ChunkMeta { id, entries, len, crc32c, first_key: self.raw(key_len)?.to_vec() })
    }
}
