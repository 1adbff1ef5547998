//! The outside of the command line as a value: the three streams, the environment and whether a person watches.
//!
//! The binary builds it from the process; tests build it from buffers, so that no test reads the real environment, writes
//! to a terminal or touches a home folder.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

/// What the system said of a file, in the words that scripts know from Go's programs: `open /x: no such file or
/// directory`.
pub fn of_file(path: &str, error: &std::io::Error) -> String {
    let told = error.to_string();
    let plain = told.split(" (os error ").next().unwrap_or_default();
    let mut letters = plain.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase()).into_iter().collect::<String>();
    format!("open {path}: {first}{}", letters.as_str())
}

/// The outside of one run.
pub struct Io<'a> {
    /// Where piped data comes from.
    pub stdin: &'a mut dyn Read,
    /// Results.
    pub stdout: &'a mut dyn Write,
    /// Errors, warnings and prompts.
    pub stderr: &'a mut dyn Write,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The folder of the person, where the token is kept.
    pub home: Option<PathBuf>,
    /// Standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Standard input is a terminal.
    pub stdin_is_terminal: bool,
}

impl<'a> Io<'a> {
    /// The outside of this process.
    pub fn of_process(stdin: &'a mut dyn Read, stdout: &'a mut dyn Write, stderr: &'a mut dyn Write) -> Self {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let home = env.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Io {
            stdin,
            stdout,
            stderr,
            env,
            home,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
        }
    }

    /// A setting of the environment: `BAO_<name>`, else `VAULT_<name>`. Empty counts as unset.
    pub fn setting(&self, name: &str) -> Option<&str> {
        ["BAO_", "VAULT_"]
            .iter()
            .filter_map(|prefix| self.env.get(&format!("{prefix}{name}")))
            .map(String::as_str)
            .find(|value| !value.is_empty())
    }

    /// Is the setting present, even if empty? Answers its value.
    pub fn setting_or_empty(&self, name: &str) -> Option<&str> {
        ["BAO_", "VAULT_"].iter().find_map(|prefix| self.env.get(&format!("{prefix}{name}"))).map(String::as_str)
    }

    /// A path with a leading `~` replaced.
    pub fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }
    }

    /// Writes a line to standard output. A closed pipe is no error of ours.
    pub fn out(&mut self, text: &str) {
        let _ = writeln!(self.stdout, "{text}");
    }

    /// Writes a line to standard error.
    pub fn err(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{text}");
    }

    /// Reads standard input to its end, at most `limit` bytes.
    pub fn read_all(&mut self, limit: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        match self.stdin.take(limit as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() > limit => Err(format!("standard input is larger than {limit} bytes")),
            Ok(_) => Ok(bytes),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads one line of standard input, at most 64 KiB. Byte by byte, so that nothing behind the line is swallowed.
    pub fn read_line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let mut byte = [0u8; 1];
        while line.len() < 64 * 1024 {
            match self.stdin.read(&mut byte) {
                Ok(0) => break,
                Ok(_) if byte[0] == b'\n' => break,
                Ok(_) => line.push(byte[0]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        String::from_utf8(line).map(|line| line.trim_end_matches('\r').to_owned()).map_err(|_| "not UTF-8".to_owned())
    }

    /// Asks for a value that must not be shown. On a terminal the echo is off while it is typed.
    pub fn ask_hidden(&mut self, prompt: &str) -> Result<String, String> {
        let _ = write!(self.stderr, "{prompt}");
        let _ = self.stderr.flush();
        let quiet = if self.stdin_is_terminal { Quiet::begin() } else { None };
        let line = self.read_line();
        drop(quiet);
        let _ = writeln!(self.stderr);
        let line = line?;
        if line.is_empty() { Err("nothing was entered".to_owned()) } else { Ok(line) }
    }

    /// Asks for a value.
    pub fn ask(&mut self, prompt: &str) -> Result<String, String> {
        let _ = write!(self.stderr, "{prompt}");
        let _ = self.stderr.flush();
        let line = self.read_line()?;
        if line.is_empty() { Err("nothing was entered".to_owned()) } else { Ok(line) }
    }
}

/// Switches the terminal's echo off and on again when dropped.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn begin() -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).ok()?;
        Some(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}
