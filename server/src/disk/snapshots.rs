//! Snapshots kept in a directory by schedule: written whole under another name, synced, read back and checked, renamed,
//! and those over the number kept removed. Called on a helper thread.

use ringfence_base::Wall;
use ringfence_node::{KeepSnapshot, SideResult, snapshot};
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes an archive among the others of its schedule.
pub fn keep(place: &KeepSnapshot, archive: &[u8], now: Wall) -> SideResult {
    match try_keep(place, archive, now) {
        Ok(path) => SideResult::Json(json!({"url": format!("file://{}", path.display()), "bytes": archive.len()})),
        Err(why) => SideResult::Failed(why),
    }
}

fn try_keep(place: &KeepSnapshot, archive: &[u8], now: Wall) -> Result<PathBuf, String> {
    let directory = Path::new(&place.directory);
    let at = |what: &'static str| move |e: io::Error| format!("{what} {}: {e}", directory.display());
    std::fs::create_dir_all(directory).map_err(at("creating directory"))?;
    let mut kept = others(directory, &place.file_prefix).map_err(at("reading directory"))?;
    kept.sort();
    // the ones that go make room first: counting them would refuse what will fit
    let stays = usize::try_from(place.retain - 1).unwrap_or(usize::MAX).min(kept.len());
    let bytes: u64 = kept[kept.len() - stays..].iter().map(|(_, _, bytes)| bytes).sum();
    if bytes + archive.len() as u64 > place.max_bytes {
        return Err(format!(
            "not enough space: {} bytes of snapshots stay and {} would come, local_max_space is {}",
            bytes,
            archive.len(),
            place.max_bytes
        ));
    }
    let path = directory.join(format!("{}-{}.snap", place.file_prefix, now.0));
    let unfinished = directory.join(format!(".{}-{}.part", place.file_prefix, now.0));
    if let Err(why) = write(&unfinished, archive) {
        // it may not even have been made
        let _ = std::fs::remove_file(&unfinished);
        return Err(why);
    }
    std::fs::rename(&unfinished, &path).map_err(at("renaming in"))?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(at("syncing"))?;
    for (_, old, _) in &kept[..kept.len() - stays] {
        std::fs::remove_file(old).map_err(|e| format!("removing {}: {e}", old.display()))?;
    }
    Ok(path)
}

/// Writes, syncs, and reads back what the disk holds now.
fn write(path: &Path, archive: &[u8]) -> Result<(), String> {
    let fault = |e: io::Error| format!("writing {}: {e}", path.display());
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(archive).and_then(|()| file.sync_all()).map_err(fault)?;
    let back = std::fs::read(path).map_err(|e| format!("reading {} back: {e}", path.display()))?;
    snapshot::unpack(&back, false).map(drop).map_err(|why| format!("{} reads back otherwise: {why}", path.display()))
}

/// The snapshots of a schedule: when they were made, where they are, their bytes.
fn others(directory: &Path, prefix: &str) -> io::Result<Vec<(u64, PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let made = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_prefix('-')?.strip_suffix(".snap"));
        if let Some(made) = made.and_then(|digits| digits.parse().ok()) {
            found.push((made, entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(found)
}
