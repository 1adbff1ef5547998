//! `invariant!`: an assertion that also holds in release builds. A broken invariant stops the process, because the
//! spine (log, image, barrier) must never guess.

/// Aborts the machine with a message when the condition does not hold.
#[macro_export]
macro_rules! invariant {
    ($cond:expr, $($why:tt)+) => {
        if !$cond {
            $crate::invariant::broken(format_args!($($why)+), file!(), line!());
        }
    };
}

/// Panics with the place and the reason; marked cold so that checks cost one branch.
#[cold]
#[inline(never)]
#[track_caller]
pub fn broken(why: std::fmt::Arguments<'_>, file: &str, line: u32) -> ! {
    panic!("broken invariant at {file}:{line}: {why}");
}
