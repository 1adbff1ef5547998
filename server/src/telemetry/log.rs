//! The process's log on standard error: one line a message, never a secret. Levels and formats are Vault's.

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

/// How loud a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For developers.
    Trace,
    /// For developers.
    Debug,
    /// Usual.
    Info,
    /// An operator should look.
    Warn,
    /// Something failed.
    Error,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2024-05-01T12:00:00.123Z [INFO]  message`
    Standard,
    /// One JSON object a line.
    Json,
}

static LEVEL: AtomicU8 = AtomicU8::new(2);
static JSON: AtomicU8 = AtomicU8::new(0);

impl Level {
    /// Parses a level's name.
    pub fn parse(s: &str) -> Option<Level> {
        Some(match s.to_ascii_lowercase().as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" | "" => Level::Info,
            "warn" | "warning" => Level::Warn,
            "error" | "err" => Level::Error,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Level::Trace => "TRACE",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        }
    }
}

/// Messages below this level are dropped.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Chooses the format.
pub fn set_format(format: Format) {
    JSON.store(u8::from(format == Format::Json), Ordering::Relaxed);
}

/// Writes a message.
pub fn log(level: Level, message: &str) {
    if (level as u8) < LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let time = crate::rt::now().wall.rfc3339();
    let line = if JSON.load(Ordering::Relaxed) == 1 {
        let v = serde_json::json!({"@level": level.name().to_lowercase(), "@message": message, "@timestamp": time});
        format!("{v}\n")
    } else {
        format!("{time} {:7} {message}\n", format!("[{}]", level.name()))
    };
    // a log that cannot be written must not stop the server
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}
