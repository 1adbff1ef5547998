//! What the machine is told from outside: the time and randomness. Also the thread's place.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{Ordering, compiler_fence};

use ringfence_base::{Entropy, Mono, Now, Wall};

/// The time: one clock that counts suspension and never steps, and the wall clock.
pub fn now() -> Now {
    let wall = clock_ns(libc::CLOCK_REALTIME);
    #[cfg(feature = "test-clock")]
    let wall = super::test_clock::shifted(wall);
    Now { mono: Mono(clock_ns(libc::CLOCK_BOOTTIME)), wall: Wall(wall) }
}

/// The monotonic time alone, for who measures a span.
pub fn mono() -> Mono {
    Mono(clock_ns(libc::CLOCK_BOOTTIME))
}

/// A monotonic time of a few milliseconds' grain, which costs next to nothing: for limits of seconds that are looked at
/// several times a request. Not to be compared with [`now`]: it stands still while the machine sleeps.
pub fn coarse() -> Mono {
    Mono(clock_ns(libc::CLOCK_MONOTONIC_COARSE))
}

/// Nanoseconds of a clock; a wall clock before 1970 reads as zero.
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into a live one.
    let rc = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(rc, 0, "both clocks exist on every Linux that can run this");
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000) + time.tv_nsec as u64
}

/// Random bytes drawn ahead, so that a nonce does not cost a system call.
const POOL_BYTES: usize = 512;

/// The operating system's random source with a small pool. One per core; what was handed out is wiped from the pool
/// at once, the rest when dropped.
pub struct OsEntropy {
    pool: Box<[u8; POOL_BYTES]>,
    /// Invariant: bytes before `used` are zero, the rest fresh.
    used: usize,
}

impl OsEntropy {
    /// An empty pool; it fills at first use.
    pub fn new() -> OsEntropy {
        OsEntropy { pool: Box::new([0; POOL_BYTES]), used: POOL_BYTES }
    }
}

impl Default for OsEntropy {
    fn default() -> Self {
        OsEntropy::new()
    }
}

impl Entropy for OsEntropy {
    fn fill(&mut self, buf: &mut [u8]) {
        if buf.len() > POOL_BYTES {
            return from_system(buf);
        }
        if POOL_BYTES - self.used < buf.len() {
            from_system(&mut self.pool[..]);
            self.used = 0;
        }
        let end = self.used + buf.len();
        let taken = &mut self.pool[self.used..end];
        buf.copy_from_slice(taken);
        wipe(taken);
        self.used = end;
    }
}

impl Drop for OsEntropy {
    fn drop(&mut self) {
        wipe(&mut self.pool[..]);
    }
}

impl std::fmt::Debug for OsEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OsEntropy(..)")
    }
}

/// Fills from getrandom(2); blocks only before the system's pool is seeded, early at boot.
///
/// # Panics
/// When the system has no random source: nothing can be kept secret then.
fn from_system(buf: &mut [u8]) {
    let mut filled = 0;
    while filled < buf.len() {
        let rest = &mut buf[filled..];
        // SAFETY: the kernel writes at most `rest.len()` bytes into it.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        if n < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "no random source: {error}");
            continue;
        }
        filled += n as usize;
    }
}

/// Zeroes in a way the compiler may not leave out.
fn wipe(bytes: &mut [u8]) {
    for byte in bytes.iter_mut() {
        // SAFETY: a plain write through an exclusive reference.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    compiler_fence(Ordering::SeqCst);
}

/// Pins the calling thread to one CPU.
pub(super) fn pin_thread(cpu: usize) -> io::Result<()> {
    // before the first thread is pinned this is what the process was given
    std::sync::LazyLock::force(&ALLOWED);
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: cpu_set_t is plain data for which zero is valid, the index is within it, and the kernel only reads.
    let rc = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The CPUs that the process was started with; none if the kernel would not say.
static ALLOWED: std::sync::LazyLock<Option<libc::cpu_set_t>> = std::sync::LazyLock::new(|| {
    // SAFETY: cpu_set_t is plain data for which zero is valid, and the kernel writes at most its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0).then_some(set)
    }
});

/// Lets the calling thread run on every CPU of the process, whatever the thread that started it was pinned to.
pub(super) fn unpin_thread() {
    if let Some(set) = &*ALLOWED {
        // SAFETY: the kernel only reads a live set. A refusal leaves the thread where it is, which is slower, not wrong.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    }
}

/// Lowers the calling thread's share of a CPU that others want too, to about a tenth of theirs.
pub(super) fn lower_thread() {
    // SAFETY: no pointers; on Linux the number 0 is the calling thread. A refusal leaves the usual priority.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_move_and_mean_what_they_say() {
        let before = now();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let after = now();
        assert!(after.mono >= before.mono);
        assert!(before.wall.0 <= wall && wall <= after.wall.0);
    }

    #[test]
    fn draws_differ_and_leave_nothing_behind() {
        let mut source = OsEntropy::new();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut draw = [0u8; 24];
            source.fill(&mut draw);
            assert!(seen.insert(draw), "192 random bits repeated");
            assert!(source.pool[..source.used].iter().all(|b| *b == 0), "handed-out bytes stayed in the pool");
        }
        let mut long = vec![0u8; 3 * POOL_BYTES];
        source.fill(&mut long);
        assert!(long.chunks(POOL_BYTES).all(|c| c.iter().any(|b| *b != 0)));
    }
}
