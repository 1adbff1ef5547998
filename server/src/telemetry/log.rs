//! The process's log on standard error and, if wished, in a file: one line a message, never a secret. Levels and formats
//! are Vault's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

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

/// Name of the file in a folder given as `log_file`.
const FILE_NAME: &str = "vault.log";

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// The configuration's level, which a reset goes back to.
static CONFIGURED: AtomicU8 = AtomicU8::new(Level::Info as u8);
static JSON: AtomicU8 = AtomicU8::new(0);
static FILE: Mutex<Option<LogFile>> = Mutex::new(None);

struct LogFile {
    path: PathBuf,
    file: File,
}

impl Level {
    /// Parses a level's name.
    pub fn parse(s: &str) -> Option<Level> {
        Some(match s.to_ascii_lowercase().as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" | "notice" | "" => Level::Info,
            "warn" | "warning" => Level::Warn,
            "error" | "err" => Level::Error,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    fn of(number: u8) -> Level {
        [Level::Trace, Level::Debug, Level::Info, Level::Warn].get(number as usize).copied().unwrap_or(Level::Error)
    }
}

/// Messages below this level are dropped, until the configuration says otherwise.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// The level in force.
pub fn level() -> Level {
    Level::of(LEVEL.load(Ordering::Relaxed))
}

/// The configuration's word: it is in force at once, and what [`reset_level`] goes back to.
pub fn configure_level(level: Level) {
    CONFIGURED.store(level as u8, Ordering::Relaxed);
    set_level(level);
}

/// Back to the configuration's level.
pub fn reset_level() {
    LEVEL.store(CONFIGURED.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Chooses the format.
pub fn set_format(format: Format) {
    JSON.store(u8::from(format == Format::Json), Ordering::Relaxed);
}

/// Writes messages to the end of a file too, or to a file in a folder.
///
/// # Errors
/// It cannot be opened; the file of before stays.
pub fn set_file(path: &Path) -> io::Result<()> {
    let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
    let file = open(&path)?;
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(LogFile { path, file });
    Ok(())
}

/// Opens the file anew after somebody has moved it away.
///
/// # Errors
/// It cannot be opened; the open one stays in use.
pub fn reopen_file() -> io::Result<()> {
    if let Some(log) = FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        log.file = open(&log.path)?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Writes a message.
pub fn log(level: Level, message: &str) {
    if (level as u8) < LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let line = line(level, message, &crate::rt::now().wall.rfc3339(), JSON.load(Ordering::Relaxed) == 1);
    // a log that cannot be written must not stop the server
    let _ = io::stderr().lock().write_all(line.as_bytes());
    if let Some(log) = FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        let _ = log.file.write_all(line.as_bytes());
    }
}

fn line(level: Level, message: &str, time: &str, json: bool) -> String {
    if json {
        let v = serde_json::json!({"@level": level.name(), "@message": message, "@timestamp": time});
        format!("{v}\n")
    } else {
        format!("{time} {:7} {message}\n", format!("[{}]", level.name().to_uppercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(Level::Warn, "x", "T", false), "T [WARN]  x\n");
        let json: serde_json::Value = serde_json::from_str(&line(Level::Error, "a\"\nb", "T", true)).expect("json");
        assert_eq!(json["@level"], "error");
        assert_eq!(json["@message"], "a\"\nb");
    }

    #[test]
    fn levels_are_numbers_and_back() {
        for level in [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error] {
            assert_eq!(Level::of(level as u8), level);
            assert_eq!(Level::parse(level.name()), Some(level));
        }
    }
}
