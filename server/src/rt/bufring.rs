//! The ring of receive buffers that the kernel picks from, so that an idle connection holds no memory.
//!
//! Driven by `uring`. A buffer is with the kernel until a completion names it, then with a socket until its bytes are
//! read, then goes back. Never blocks, never grows: when it runs dry, receives end with ENOBUFS and the socket reads
//! straight into its caller's memory instead.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{Submitter, types::BufRingEntry};

/// Bytes of one buffer: an API request with its headers fits.
pub(super) const BUFFER_BYTES: usize = 4096;
/// Buffers of one core.
const BUFFERS: u16 = 512;
/// Distance of two buffers. One cache line more than a buffer, or the first lines of all of them, the only ones small
/// requests touch, would compete for the same few cache sets.
const STRIDE: usize = BUFFER_BYTES + 64;
/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();

const _: () = assert!(BUFFERS.is_power_of_two());

/// Buffers and the ring of descriptors shared with the kernel, one anonymous mapping.
pub(super) struct BufRing {
    base: *mut u8,
    /// Next position to publish; the shared tail trails it only inside `give`.
    tail: u16,
    /// Buffers that sockets hold.
    lent: u16,
}

impl BufRing {
    /// Maps and fills it; [`BufRing::register`] tells the kernel.
    pub fn new() -> io::Result<BufRing> {
        // SAFETY: a fresh private anonymous mapping; its result is checked.
        let base = unsafe {
            let (read_write, anonymous) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), mapping_bytes(), read_write, anonymous, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut ring = BufRing { base: base.cast(), tail: 0, lent: BUFFERS };
        (0..BUFFERS).for_each(|id| ring.give(id));
        Ok(ring)
    }

    /// Registers the buffers with a ring. They must outlive it.
    pub fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the mapping is page aligned, holds BUFFERS entries, and `Uring` drops it after the ring.
        unsafe { submitter.register_buf_ring_with_flags(self.base as u64, BUFFERS, GROUP, 0) }
    }

    /// The kernel handed a buffer to us.
    pub fn took(&mut self) {
        self.lent += 1;
    }

    /// The first `len` bytes of a lent buffer.
    pub fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < BUFFERS && len <= BUFFER_BYTES, "the kernel names buffers it was given");
        // SAFETY: within the mapping by the assertion; a lent buffer is not written by the kernel until `give`.
        unsafe { std::slice::from_raw_parts(self.buffer(id), len) }
    }

    /// Gives a buffer (back) to the kernel.
    pub fn give(&mut self, id: u16) {
        let slot = (self.tail & (BUFFERS - 1)) as usize;
        self.tail = self.tail.wrapping_add(1);
        self.lent -= 1;
        // SAFETY: `slot` is below BUFFERS, so the entry lies in the mapping. The kernel reads entries only below the
        // shared tail, which is moved past this one by the release store; the tail lies in the first entry's unused
        // field, which set_addr, set_len and set_bid do not touch.
        unsafe {
            let entries = self.base.cast::<BufRingEntry>();
            let entry = &mut *entries.add(slot);
            entry.set_addr(self.buffer(id) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    /// More than three quarters are held by sockets: time not to hoard.
    pub fn is_scarce(&self) -> bool {
        self.lent > BUFFERS / 4 * 3
    }

    fn buffer(&self, id: u16) -> *mut u8 {
        // SAFETY: `id` is below BUFFERS, so the address lies in the mapping.
        unsafe { self.base.add(ENTRIES_BYTES + id as usize * STRIDE) }
    }
}

fn mapping_bytes() -> usize {
    ENTRIES_BYTES + BUFFERS as usize * STRIDE
}

impl Drop for BufRing {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; `Uring` makes sure that the kernel no longer writes to it.
        unsafe { libc::munmap(self.base.cast(), mapping_bytes()) };
    }
}
