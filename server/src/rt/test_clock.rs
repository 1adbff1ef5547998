//! A wall clock that a test may set: the cluster harness makes nodes' clocks jump and strobe without touching the
//! machine's. Only a build with the feature `test-clock` obeys; every other one refuses to start when it is asked to, so
//! that nobody mistakes one for the other. The monotonic clock is never shifted: no kernel lets it step.

/// Names the file that holds the offset in milliseconds, signed; read anew a few times a second.
pub const TEST_CLOCK: &str = "RINGFENCE_TEST_CLOCK";

/// Whether a test clock is asked of a build that has none.
pub fn is_test_clock_refused(asked: bool) -> bool {
    asked && !cfg!(feature = "test-clock")
}

/// The wall clock with the offset of the moment, nanoseconds.
#[cfg(feature = "test-clock")]
pub(super) fn shifted(wall_ns: u64) -> u64 {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    /// How long a read of the file is good for: well below the period of any strobe.
    const GRAIN_NS: u64 = 5_000_000;
    static FILE: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os(TEST_CLOCK).map(std::path::PathBuf::from));
    static OFFSET_MS: AtomicI64 = AtomicI64::new(0);
    static READ_NS: AtomicU64 = AtomicU64::new(0);

    let Some(file) = &*FILE else { return wall_ns };
    if wall_ns.abs_diff(READ_NS.load(Ordering::Relaxed)) > GRAIN_NS {
        READ_NS.store(wall_ns, Ordering::Relaxed);
        // a file that is being replaced leaves the offset as it was
        if let Some(ms) = std::fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()) {
            OFFSET_MS.store(ms, Ordering::Relaxed);
        }
    }
    wall_ns.saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed).saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_for_tests_is_refused_by_builds_for_people() {
        assert!(!is_test_clock_refused(false));
        assert_eq!(is_test_clock_refused(true), !cfg!(feature = "test-clock"));
    }
}
