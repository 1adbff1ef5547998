//! What the process tells of itself: its log, and its counters.

mod log;
pub mod metrics;

pub use log::{
    Format, Level, configure_level, level, log, reopen_file, reset_level, set_file, set_format, set_level,
};
