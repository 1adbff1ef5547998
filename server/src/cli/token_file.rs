//! The file that keeps a person's token between commands: `~/.vault-token`, or where `VAULT_TOKEN_PATH` says.
//!
//! Written whole and readable by its owner only. External token helper programs are not run.

use super::io::Io;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Where the token is kept.
pub fn place(io: &Io<'_>) -> Option<PathBuf> {
    match io.setting("TOKEN_PATH") {
        Some(path) => Some(io.expand(path)),
        None => io.home.as_ref().map(|home| home.join(".vault-token")),
    }
}

/// Reads the token; empty when there is none.
pub fn load(io: &Io<'_>) -> Result<String, String> {
    let Some(path) = place(io) else { return Ok(String::new()) };
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("failed to get token from token helper: {}: {error}", path.display())),
    }
}

/// Keeps a token. The file is replaced whole, so that a full disk leaves the old one.
pub fn store(io: &Io<'_>, token: &str) -> Result<(), String> {
    let path = place(io).ok_or("there is no home folder to keep it in: set VAULT_TOKEN_PATH")?;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
    let written = file.write_all(token.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&fresh, &path)) {
        let _ = std::fs::remove_file(&fresh);
        return Err(failed(error));
    }
    Ok(())
}
