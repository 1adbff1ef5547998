//! Checkpoints: a version as chunk files by key range under a manifest.
//!
//! [`CheckpointWriter`] yields chunks one at a time, so that its driver can serve requests in between; a chunk whose
//! range stands still since the previous manifest is kept as it is. The driver writes the new chunks, flushes them,
//! then writes the manifest: a checkpoint is what a durable manifest says. [`Loader`] takes the chunks back in order,
//! merges the committed tail of the log in the same pass, and ends with an image. Nothing here opens a file.
//!
//! Every byte is under a checksum, every length under a limit, and what is wrong is told by its [`Place`]. The
//! checksums find rot, not malice: values are sealed with their keys, so nobody can forge one.

mod chunk;
mod load;
mod manifest;
mod tail;
mod writer;

pub use chunk::{ChunkReader, Record};
pub use load::{Loader, load};
pub use manifest::{ChunkMeta, Identity, Manifest};
pub use tail::Tail;
pub use writer::{CheckpointWriter, Chunk};

pub(crate) use chunk::ChunkBuilder;

/// A chunk is closed at about this many bytes.
pub const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// No chunk is longer.
pub const MAX_CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// Most chunks of a manifest: four terabytes of records.
pub const MAX_CHUNKS: usize = 1 << 20;
/// Longest configuration state in a manifest, bytes.
pub const MAX_CONF_STATE_BYTES: usize = 64 * 1024;

const _: () = {
    use ringfence_base::limit::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
    assert!(CHUNK_BYTES + CHUNK_BYTES / 2 + MAX_KEY_BYTES + MAX_VALUE_BYTES + 64 <= MAX_CHUNK_BYTES);
};

/// Where a checkpoint is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the manifest.
    Manifest,
    /// In the chunk of this number.
    Chunk(u64),
}

/// What is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It does not begin as such a file does.
    NotOurs,
    /// A later build wrote it; this is its format number.
    NewerFormat(u16),
    /// It ends too early.
    Truncated,
    /// Its checksum does not match its bytes.
    Checksum,
    /// It is not the chunk that the manifest describes.
    NotAsListed,
    /// A field has an impossible value.
    Malformed,
    /// A length or count is over its limit.
    TooLong,
    /// Keys do not ascend.
    Unsorted,
    /// A chunk that the manifest lists was not given.
    Missing,
}

/// Damage found in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The file.
    pub place: Place,
    /// Where in it the flaw was noticed, bytes from its start.
    pub offset: usize,
    /// The flaw.
    pub why: Flaw,
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Place::Manifest => f.write_str("checkpoint manifest")?,
            Place::Chunk(id) => write!(f, "checkpoint chunk {id}")?,
        }
        write!(f, " at byte {}: ", self.offset)?;
        match self.why {
            Flaw::NotOurs => f.write_str("not a file of this kind"),
            Flaw::NewerFormat(v) => write!(f, "format {v} was written by a later build; use that build"),
            Flaw::Truncated => f.write_str("ends too early"),
            Flaw::Checksum => f.write_str("checksum mismatch"),
            Flaw::NotAsListed => f.write_str("not the chunk that the manifest lists"),
            Flaw::Malformed => f.write_str("impossible value"),
            Flaw::TooLong => f.write_str("length over its limit"),
            Flaw::Unsorted => f.write_str("keys out of order"),
            Flaw::Missing => f.write_str("missing"),
        }
    }
}

impl std::error::Error for Corruption {}

impl Place {
    pub(crate) fn flaw<T>(self, offset: usize, why: Flaw) -> Result<T, Corruption> {
        Err(Corruption { place: self, offset, why })
    }
}

/// Checks what both kinds of file share: magic, format, and the checksum in the last four bytes. Returns what stands
/// between the format and the checksum; it starts at byte [`PREAMBLE`].
fn unframe(bytes: &[u8], magic: [u8; 4], format: u16, place: Place) -> Result<&[u8], Corruption> {
    let Some((head, rest)) = bytes.split_first_chunk::<PREAMBLE>() else {
        return place.flaw(bytes.len(), Flaw::Truncated);
    };
    if head[..4] != magic {
        return place.flaw(0, Flaw::NotOurs);
    }
    match u16::from_be_bytes([head[4], head[5]]) {
        v if v > format => return place.flaw(4, Flaw::NewerFormat(v)),
        v if v != format => return place.flaw(4, Flaw::Malformed),
        _ => {}
    }
    let Some((body, sum)) = rest.split_last_chunk::<4>() else {
        return place.flaw(bytes.len(), Flaw::Truncated);
    };
    let covered = &bytes[..bytes.len() - 4];
    if crc32c::crc32c(covered) != u32::from_be_bytes(*sum) {
        return place.flaw(covered.len(), Flaw::Checksum);
    }
    Ok(body)
}

/// Bytes of magic and format.
const PREAMBLE: usize = 6;

#[cfg(test)]
mod tests;
