//! `operator raft snapshot`: save, restore and inspect snapshot files.
//!
//! A snapshot is a gzip-compressed tar of `meta.json`, `state.bin`, `SHA256SUMS` and `SHA256SUMS.sealed`. It is streamed to
//! the file and then read again to compare its sums, so that a file cut short by a full disk or a lost connection is not
//! taken for a snapshot.

use super::client::Request;
use super::output::{columns, go_value};
use super::session::{Outcome, Session, doing, no_data, remote, usage};
use super::verb::{Kind, Verb, flag, verb};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Largest `meta.json` or list of sums that is believed, bytes.
const MAX_SMALL_ENTRY_BYTES: u64 = 1024 * 1024;
/// The list of sums.
const SUMS: &str = "SHA256SUMS";

/// The verbs below `operator raft snapshot`.
pub const VERBS: &[Verb] = &[
    verb("save", "<file>", "Save a snapshot", &[], save),
    verb(
        "restore",
        "<file>",
        "Restore a snapshot",
        &[flag("force", Kind::Bool, "Even if it is sealed with other keys.")],
        restore,
    ),
    verb("inspect", "<file>", "Check a snapshot file and tell what it is", &[], inspect),
];

fn file_argument(session: &Session<'_, '_>, what: &str) -> Result<std::path::PathBuf, super::session::Fail> {
    session.expect_args(1, 1)?;
    match session.arg(0) {
        "" => Err(usage(format!("{what} file name is required"))),
        name => Ok(session.io.expand(name)),
    }
}

fn save(session: &mut Session<'_, '_>) -> Outcome {
    let path = file_argument(session, "Output")?;
    let what = "Error taking the snapshot";
    let mut request = Request::get("sys/storage/raft/snapshot");
    request.wrap = false;
    if session.flags.is_set("output-curl-string") || session.flags.is_set("output-policy") {
        session.call(&request).map_err(doing(what))?;
    }
    let client = session.client()?;
    let mut sink = LateFile { path: &path, file: None };
    client.download(&request, &mut sink).map_err(doing(what))?;
    let failed = |error: String| remote(format!("{what}: {error}"));
    if let Some(file) = sink.file {
        file.sync_all().map_err(|error| failed(format!("{}: {error}", path.display())))?;
    }
    check(&path).map_err(failed)?;
    Ok(0)
}

/// A file that is made when the first byte arrives, so that a refused request leaves none behind.
struct LateFile<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl Write for LateFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.file.is_none() {
            let mut options = std::fs::OpenOptions::new();
            self.file = Some(options.write(true).create(true).truncate(true).mode(0o600).open(self.path)?);
        }
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn restore(session: &mut Session<'_, '_>) -> Outcome {
    let path = file_argument(session, "Snapshot")?;
    let file = File::open(&path)
        .map_err(|error| remote(format!("Error opening snapshot file: {}: {error}", path.display())))?;
    let name = if session.flags.is_set("force") { "snapshot-force" } else { "snapshot" };
    let mut request = Request::new("POST", format!("sys/storage/raft/{name}"));
    request.wrap = false;
    if session.flags.is_set("output-curl-string") || session.flags.is_set("output-policy") {
        request.body = no_data();
        session.call(&request).map_err(doing("Error installing the snapshot"))?;
    }
    session.client()?.upload(&request, file).map_err(doing("Error installing the snapshot"))?;
    Ok(0)
}

/// What a snapshot file holds.
struct Contents {
    /// `meta.json`.
    meta: Value,
    /// Sizes of the entries, bytes.
    sizes: BTreeMap<String, u64>,
}

/// Reads the file once, summing as it goes, and compares with the sums in it.
fn check(path: &Path) -> Result<Contents, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)));
    let mut contents = Contents { meta: Value::Null, sizes: BTreeMap::new() };
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut listed: Option<String> = None;
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.display().to_string();
        let size = entry.header().size().map_err(failed)?;
        if matches!(name.as_str(), "meta.json" | SUMS) && size > MAX_SMALL_ENTRY_BYTES {
            return Err(format!("{}: {name} is too large", path.display()));
        }
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut kept = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let count = entry.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            context.update(&buffer[..count]);
            if matches!(name.as_str(), "meta.json" | SUMS) {
                kept.extend_from_slice(&buffer[..count]);
            }
        }
        match name.as_str() {
            "meta.json" => {
                contents.meta = serde_json::from_slice(&kept).map_err(|error| format!("meta.json: {error}"))?;
            }
            SUMS => listed = Some(String::from_utf8_lossy(&kept).into_owned()),
            _ => {}
        }
        found.insert(name.clone(), hex::encode(context.finish()));
        contents.sizes.insert(name, size);
    }
    let listed = listed.ok_or_else(|| format!("{}: incomplete: it has no {SUMS}", path.display()))?;
    for line in listed.lines().filter(|line| !line.trim().is_empty()) {
        let (sum, name) = line.split_once(' ').ok_or_else(|| format!("{SUMS}: line {line:?} is not understood"))?;
        let name = name.trim().trim_start_matches('*');
        match found.get(name) {
            Some(actual) if actual.eq_ignore_ascii_case(sum) => {}
            Some(_) => return Err(format!("{}: damaged: the sum of {name} does not match", path.display())),
            None => return Err(format!("{}: incomplete: {name} is missing", path.display())),
        }
    }
    for needed in ["meta.json", "state.bin"] {
        if !listed.contains(needed) {
            return Err(format!("{}: incomplete: {needed} is not among its sums", path.display()));
        }
    }
    Ok(contents)
}

fn inspect(session: &mut Session<'_, '_>) -> Outcome {
    let path = file_argument(session, "Snapshot")?;
    let contents = check(&path).map_err(|error| usage(format!("Error reading snapshot: {error}")))?;
    if !session.is_table() {
        return session.print_data(&json!({ "meta": contents.meta, "entries": contents.sizes }));
    }
    let meta =
        |name: &str| contents.meta.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
    let size = contents.sizes.get("state.bin").copied().unwrap_or(0);
    let rows = [
        ("ID", meta("ID")),
        ("Size", size.to_string()),
        ("Index", meta("Index")),
        ("Term", meta("Term")),
        ("Version", meta("Version")),
    ];
    session.io.out(&columns(&rows.map(|(key, value)| vec![key.to_owned(), value])));
    session.io.out("");
    let mut entries = vec![vec!["Entry".to_owned(), "Size".to_owned()]];
    entries.extend(contents.sizes.iter().map(|(name, size)| vec![name.clone(), size.to_string()]));
    session.say(&super::output::table(entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fake::scratch_file;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn sum(bytes: &[u8]) -> String {
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
    }

    #[test]
    fn damage_is_found() {
        let (meta, state) = (br#"{"ID":"x","Index":7,"Term":2,"Version":1}"#.as_slice(), b"state".as_slice());
        let sums = format!("{}  meta.json\n{}  state.bin\n", sum(meta), sum(state));
        let path = scratch_file("snapshot", "");
        let try_it = |entries: &[(&str, &[u8])]| {
            std::fs::write(&*path, archive(entries)).unwrap();
            check(&path)
        };
        let good = try_it(&[("meta.json", meta), ("state.bin", state), (SUMS, sums.as_bytes())]).unwrap();
        assert_eq!((good.meta["Index"].as_u64(), good.sizes["state.bin"]), (Some(7), 5));
        assert!(try_it(&[("meta.json", meta), ("state.bin", b"stale"), (SUMS, sums.as_bytes())]).is_err());
        assert!(try_it(&[("meta.json", meta), (SUMS, sums.as_bytes())]).is_err());
        assert!(try_it(&[("meta.json", meta), ("state.bin", state)]).is_err());
        std::fs::write(&*path, &archive(&[("meta.json", meta), ("state.bin", state), (SUMS, sums.as_bytes())])[..40])
            .unwrap();
        assert!(check(&path).is_err());
    }
}
