//! What the process tells of itself: its log, and its counters.

mod log;
pub mod metrics;
mod monitor;
pub mod statsd;

pub use log::{
    Format, Level, Rotation, configure_level, configure_requests_level, level, log, reopen_file, requests_level,
    reset_level, set_file, set_format, set_level,
};
pub use monitor::{Monitor, close_all as close_monitors, listen as monitor};
