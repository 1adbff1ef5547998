//! What the process tells of itself: its log, and its counters.

mod log;
pub mod metrics;

pub use log::{Format, Level, log, set_format, set_level};
