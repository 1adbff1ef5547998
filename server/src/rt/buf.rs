//! Page-aligned buffers for direct disk IO.
//!
//! `O_DIRECT` wants memory, offset and length in multiples of the device's block; 4096 satisfies every device we
//! know. A buffer is owned by the operation while the kernel works on it and comes back with the result, so it is
//! allocated once and reused for every write of the log.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of memory, offsets and lengths of direct IO, bytes.
pub const BLOCK_BYTES: usize = 4096;

/// A growable byte buffer whose memory starts on a 4096-byte boundary.
///
/// Invariant: `len <= capacity`, `capacity` is a non-zero multiple of [`BLOCK_BYTES`], and all of the capacity is
/// initialised memory (zero until written).
pub struct AlignedBuf {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: the buffer owns its memory alone, like a Vec<u8>; nothing in it is bound to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// An empty buffer with room for at least `bytes`, rounded up to whole blocks.
    pub fn with_capacity(bytes: usize) -> AlignedBuf {
        let capacity = round_up(bytes.max(1));
        AlignedBuf { memory: allocate(capacity), capacity, len: 0 }
    }

    /// A buffer of `bytes` zeros.
    pub fn zeroed(bytes: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::with_capacity(bytes);
        buf.len = bytes;
        buf
    }

    /// Bytes it can hold without moving.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the content; the memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends, growing by doubling when there is no room.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.reserve(end);
        self.whole()[end - bytes.len()..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Shortens, or lengthens with zeros.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len);
        let old = self.len;
        if len > old {
            self.whole()[old..len].fill(0);
        }
        self.len = len;
    }

    /// Lengthens with zeros to a whole number of blocks.
    pub fn pad_to_block(&mut self) {
        self.resize(round_up(self.len));
    }

    fn reserve(&mut self, bytes: usize) {
        if bytes <= self.capacity {
            return;
        }
        let mut larger = AlignedBuf::with_capacity(bytes.max(self.capacity * 2));
        larger.whole()[..self.len].copy_from_slice(self);
        larger.len = self.len;
        *self = larger;
    }

    fn whole(&mut self) -> &mut [u8] {
        // SAFETY: `memory` points at `capacity` initialised bytes that this value owns.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.capacity) }
    }
}

/// The next multiple of [`BLOCK_BYTES`].
pub fn round_up(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BLOCK_BYTES).expect("a buffer is far smaller than the address space")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    // SAFETY: the layout's size is not zero, as capacity is at least one block.
    let memory = unsafe { alloc_zeroed(layout(capacity)) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout(capacity)))
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: the memory came from `alloc_zeroed` with the same layout and is released once.
        unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` of `capacity` initialised bytes, owned by this value.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.whole()[..len]
    }
}

impl std::fmt::Debug for AlignedBuf {
    /// Sizes only: the content may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_and_keeps_its_bytes_while_growing() {
        let mut buf = AlignedBuf::with_capacity(10);
        let mut model = Vec::new();
        for i in 0..2000u32 {
            buf.extend_from_slice(&i.to_le_bytes());
            model.extend_from_slice(&i.to_le_bytes());
            assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
        }
        assert_eq!(&buf[..], &model[..]);
        buf.pad_to_block();
        model.resize(8192, 0);
        assert_eq!(&buf[..], &model[..]);
    }

    #[test]
    fn lengthening_after_clear_shows_no_old_bytes() {
        let mut buf = AlignedBuf::with_capacity(BLOCK_BYTES);
        buf.extend_from_slice(&[7; 100]);
        buf.clear();
        buf.resize(50);
        assert_eq!(&buf[..], &[0; 50]);
    }
}
