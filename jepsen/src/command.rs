//! Commands of the system, each run to its end.

use std::process::{Command, Stdio};

/// Runs a command.
///
/// # Errors
/// It cannot be run, or what it said when it failed.
pub fn run(words: &[&str]) -> Result<(), String> {
    let line = words.join(" ");
    let out =
        Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().map_err(|e| format!("{line}: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// Runs a command whose failure changes nothing: taking away what may be gone already.
pub fn try_run(words: &[&str]) -> bool {
    run(words).is_ok()
}
