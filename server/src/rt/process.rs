#![allow(unsafe_code)]
//! Limits that a process with keys sets for itself: no core dump, no debugger, memory that is not written to swap.

use std::io;
use std::ptr;

/// Turns core dumps off and raises the number of files to what is allowed. Failures are not fatal: an unprivileged
/// process may keep what it has.
pub fn harden() {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads the struct it is given, which lives here.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &no_core) };
    // a core pattern that is a pipe ignores the limit; this it does not ignore
    // SAFETY: PR_SET_DUMPABLE takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the struct it is given, setrlimit reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut files) == 0 {
            files.rlim_cur = files.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &files);
        }
    }
}

/// Whether the process's memory can reach a swap device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryLock {
    /// Every page, those mapped later too, stays in memory from its first touch.
    Locked,
    /// It could not be locked, but this machine has no swap switched on now.
    NoSwap(String),
    /// It could not be locked, and there is swap. The text tells why.
    Swappable(String),
}

/// Locks all memory, of now and of later, page by page as it is touched.
///
/// Keys lie on the heap among everything else, so there is no smaller piece to lock: it is the whole process or nothing.
/// A limit that a growing image would run into would end the process in the middle of its work; so the lock is taken
/// only where the limit does not bind, and given back otherwise. What it does not cover: suspending the machine to
/// disk, and the snapshots a hypervisor takes.
pub fn lock_memory() -> MemoryLock {
    let why = match lock_all() {
        Ok(()) => return MemoryLock::Locked,
        Err(e) => e,
    };
    // the first line is the table's head
    match std::fs::read_to_string("/proc/swaps") {
        Ok(text) if text.lines().count() <= 1 => MemoryLock::NoSwap(why),
        _ => MemoryLock::Swappable(why),
    }
}

fn lock_all() -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the struct it is given, setrlimit reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
    let too_small = || match limit.rlim_cur {
        libc::RLIM_INFINITY => "the kernel refused it".to_owned(),
        bytes => format!("the memlock limit is {} KiB", bytes / 1024),
    };
    // SAFETY: changes how pages are kept, not what they hold.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } != 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENOMEM | libc::EPERM) => too_small(),
            _ => error.to_string(),
        });
    }
    // a privileged process is not bound by its limit; whether this one is, only a mapping beyond it can tell
    if limit.rlim_cur != libc::RLIM_INFINITY && !can_map(limit.rlim_cur) {
        // SAFETY: as above.
        unsafe { libc::munlockall() };
        return Err(too_small());
    }
    Ok(())
}

/// May so many bytes be mapped? Nothing of them is touched.
fn can_map(bytes: u64) -> bool {
    let Ok(length) = usize::try_from(bytes.saturating_add(1 << 20)) else { return false };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at a place of the kernel's choice, taken away by its own address and length.
    unsafe {
        let place = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, flags, -1, 0);
        if place == libc::MAP_FAILED {
            return false;
        }
        libc::munmap(place, length);
    }
    true
}
