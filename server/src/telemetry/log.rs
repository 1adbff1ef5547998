//! The process's log on standard error and, if wished, in a file: one line a message, never a secret. Levels and formats
//! are Vault's.

use super::monitor;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
/// At which level each request is logged; [`NO_REQUESTS`] for not at all.
static REQUESTS: AtomicU8 = AtomicU8::new(NO_REQUESTS);
const NO_REQUESTS: u8 = u8::MAX;
static FILE: Mutex<Option<LogFile>> = Mutex::new(None);

struct LogFile {
    path: PathBuf,
    file: File,
    rotation: Rotation,
    /// Bytes in the open file.
    bytes: u64,
    /// When it was opened, nanoseconds of the wall clock.
    opened: u64,
}

/// When the log file is put aside for a new one, and how many of the old are kept. Source: Vault's `log_rotate_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// After so many bytes; 0 is never.
    pub bytes: u64,
    /// After so long; zero is never.
    pub every: Duration,
    /// Old files that are kept; 0 keeps all, a negative number none.
    pub files_max: i64,
}

impl LogFile {
    fn open(path: PathBuf, rotation: Rotation) -> io::Result<LogFile> {
        let file = open(&path)?;
        let bytes = file.metadata().map_or(0, |m| m.len());
        Ok(LogFile { path, file, rotation, bytes, opened: crate::rt::now().wall.0 })
    }

    fn write(&mut self, line: &str) {
        let now = crate::rt::now().wall.0;
        let full = self.rotation.bytes > 0 && self.bytes > 0 && self.bytes + line.len() as u64 > self.rotation.bytes;
        let every = u64::try_from(self.rotation.every.as_nanos()).unwrap_or(u64::MAX);
        let old = every > 0 && self.bytes > 0 && now.saturating_sub(self.opened) >= every;
        if full || old {
            // where it cannot be put aside, the open one grows on: a line is worth more than a bound
            let _ = self.rotate(now);
        }
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.bytes += line.len() as u64;
        }
    }

    /// `vault.log` becomes `vault-<nanoseconds>.log`, and the oldest of these go.
    fn rotate(&mut self, now: u64) -> io::Result<()> {
        let (stem, ext) = name_of(&self.path);
        let aside = self.path.with_file_name(format!("{stem}-{now}{ext}"));
        std::fs::rename(&self.path, &aside)?;
        *self = LogFile::open(self.path.clone(), self.rotation)?;
        let kept = match self.rotation.files_max {
            0 => return Ok(()),
            n => usize::try_from(n).unwrap_or(0),
        };
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<(u64, PathBuf)> = std::fs::read_dir(folder)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path.file_name()?.to_str()?;
                let at = name.strip_prefix(&format!("{stem}-"))?.strip_suffix(&ext)?.parse().ok()?;
                Some((at, path))
            })
            .collect();
        old.sort_unstable();
        old.truncate(old.len().saturating_sub(kept));
        old.into_iter().try_for_each(|(_, path)| std::fs::remove_file(path))
    }
}

/// A file's name without its ending, and the ending with its dot.
fn name_of(path: &Path) -> (String, String) {
    let text = |s: Option<&std::ffi::OsStr>| s.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let ext = text(path.extension());
    (text(path.file_stem()), if ext.is_empty() { ext } else { format!(".{ext}") })
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

/// At which level a finished request is logged, if it is.
pub fn requests_level() -> Option<Level> {
    match REQUESTS.load(Ordering::Relaxed) {
        NO_REQUESTS => None,
        level => Some(Level::of(level)),
    }
}

/// Has finished requests logged at a level, or not at all.
pub fn configure_requests_level(level: Option<Level>) {
    REQUESTS.store(level.map_or(NO_REQUESTS, |l| l as u8), Ordering::Relaxed);
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
pub fn set_file(path: &Path, rotation: Rotation) -> io::Result<()> {
    let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = if is_folder { path.join(FILE_NAME) } else { path.to_owned() };
    let log = LogFile::open(path, rotation)?;
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    Ok(())
}

/// Opens the file anew after somebody has moved it away.
///
/// # Errors
/// It cannot be opened; the open one stays in use.
pub fn reopen_file() -> io::Result<()> {
    if let Some(log) = FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        *log = LogFile::open(log.path.clone(), log.rotation)?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Writes a message.
pub fn log(level: Level, message: &str) {
    let quiet = (level as u8) < LEVEL.load(Ordering::Relaxed);
    if quiet && monitor::wanted().is_none_or(|wanted| level < wanted) {
        return;
    }
    let time = crate::rt::now().wall.rfc3339();
    monitor::tell(level, |format| line(level, message, &time, format == Format::Json));
    if quiet {
        return;
    }
    let line = line(level, message, &time, JSON.load(Ordering::Relaxed) == 1);
    // a log that cannot be written must not stop the server
    let _ = io::stderr().lock().write_all(line.as_bytes());
    if let Some(log) = FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        log.write(&line);
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
    fn files_are_put_aside_and_the_oldest_go() {
        let folder = std::env::temp_dir().join(format!("ringfence-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let rotation = Rotation { bytes: 20, every: Duration::ZERO, files_max: 2 };
        let mut log = LogFile::open(folder.join("vault.log"), rotation).expect("a file");
        (0..6).for_each(|i| log.write(&format!("a line of text {i}\n")));
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .expect("a folder")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"vault.log".to_owned()), "{names:?}");
        let newest = std::fs::read_to_string(folder.join("vault.log")).expect("text");
        assert_eq!(newest, "a line of text 5\n");
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn levels_are_numbers_and_back() {
        for level in [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error] {
            assert_eq!(Level::of(level as u8), level);
            assert_eq!(Level::parse(level.name()), Some(level));
        }
    }
}
