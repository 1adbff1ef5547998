//! The image: a persistent, ordered map from binary keys to sealed records, held in memory.
//!
//! ```text
//!   raft log ──Batch──> Image ──publish──> Version ──get, scan──> readers on every core
//!                         │                   └────CheckpointWriter──> chunks + Manifest ──Loader──> Image
//!                         └ owner only, edits in place what no Version shares
//! ```
//!
//! The owner core drives [`Image`]; everybody else holds a [`Version`], which never changes and never waits. Nothing
//! here reads a clock, a file or a key: values are opaque bytes, applying a batch is trivial and the same on every
//! node.
//!
//! Keys begin with a table number (byte 0). Tables from [`MOUNT_TABLES`] up are scoped: bytes 1 to 4 are the mount's
//! number, big endian. The image relies on that only to remember when a table or a mount last changed.

mod batch;
mod build;
mod dismantle;
mod image;
mod node;
mod page;
mod scan;
pub mod stream;
mod tree;
mod version;

pub use batch::{Batch, Op};
pub use build::Unsorted;
pub use dismantle::Dismantle;
pub use image::Image;
pub use scan::Scan;
pub use stream::{
    CheckpointWriter, Chunk, ChunkMeta, ChunkReader, Corruption, Flaw, Identity, Loader, Manifest, Place, Tail,
};
pub use version::Version;

/// A key of the image: at most [`ringfence_base::limit::MAX_KEY_BYTES`] bytes, ordered bytewise.
pub type Key = Vec<u8>;

/// First table number whose keys carry a mount number after the table byte.
pub const MOUNT_TABLES: u8 = 0x80;

/// What one entry costs beside its key and value, bytes: its slot and head in the page, and its part of the page's,
/// the branch's and the allocator's overhead. Measured; content alone decides [`Version::bytes`], so that it is equal
/// on every node.
pub const ENTRY_OVERHEAD_BYTES: u64 = 40;

#[cfg(test)]
mod model_tests;
