//! Opening and recovering a data directory, before any core runs: blocking calls are fine here.

use ringfence_node::raft::{self, SegmentNo};
use ringfence_node::store::Manifest;
use ringfence_node::{Broken, Files, Found};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// Chunks of a checkpoint that wait in memory, read and not loaded yet.
const CHUNKS_AHEAD: usize = 4;
/// Begins the identity file.
const IDENTITY_MAGIC: &[u8; 8] = b"RFNODE\x00\x01";

/// A data directory that this process holds.
pub struct Directory {
    path: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

/// Why a directory cannot be used. Each names the place and the remedy.
#[derive(Debug)]
pub enum OpenError {
    /// A call of the operating system failed.
    Io(&'static str, PathBuf, io::Error),
    /// Another process has it.
    Locked(PathBuf),
    /// It belongs to something else, or to a later build.
    Foreign(PathBuf, String),
    /// What it holds is damaged.
    Corrupt(PathBuf, String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io(what, path, e) => write!(
                f,
                "cannot {what} {}: {e}; check that the directory exists, is writable by this user and has room",
                path.display()
            ),
            OpenError::Locked(path) => write!(
                f,
                "data directory {} is in use by another process; stop it, or give this node a directory of its own",
                path.display()
            ),
            OpenError::Foreign(path, why) => write!(f, "data directory {} cannot be used: {why}", path.display()),
            OpenError::Corrupt(path, why) => write!(
                f,
                "data directory {} is damaged: {why}; nothing was changed. Restore a snapshot or a copy of the disk",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

struct SegmentFile(File, u64);

impl raft::SegmentRead for SegmentFile {
    fn size(&self) -> u64 {
        self.1
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), raft::ReadFault> {
        self.0.read_exact_at(buf, offset).map_err(|_| raft::ReadFault)
    }
}

impl SegmentFile {
    /// Something was written to it.
    fn has_begun(&self) -> bool {
        let mut first = [0; 8];
        self.0.read_exact_at(&mut first, 0).is_ok() && first != [0; 8]
    }
}

impl Directory {
    /// Opens or makes a directory and takes its lock.
    pub fn open(path: &Path) -> Result<Directory, OpenError> {
        for dir in [path.to_owned(), path.join("log"), path.join("checkpoint")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|e| OpenError::Io("make", dir.clone(), e))?;
        }
        let lock_path = path.join("lock");
        let mut lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| OpenError::Io("open", lock_path.clone(), e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(fs::TryLockError::Error(e)) => return Err(OpenError::Io("lock", lock_path, e)),
        }
        // the lock file tells who holds it; that it can be written proves that the directory is writable
        let _ = lock.as_raw_fd();
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| OpenError::Io("write", lock_path, e))?;
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything: `None` for a directory that was never initialised.
    pub fn recover(&self) -> Result<Option<Found>, OpenError> {
        let read = |name: &Path| fs::read(name).map_err(|e| OpenError::Io("read", name.to_owned(), e));
        let identity_path = self.path.join("identity");
        if !identity_path.exists() {
            if self.path.join("slots").exists() {
                return Err(OpenError::Foreign(self.path.clone(), "it has a log but no identity file".into()));
            }
            return Ok(None);
        }
        let (cluster, _) =
            parse_identity(&read(&identity_path)?).map_err(|why| OpenError::Foreign(self.path.clone(), why))?;
        let corrupt = |why: String| OpenError::Corrupt(self.path.clone(), why);
        let slots_path = self.path.join("slots");
        let files = self.segments()?;
        if !slots_path.exists() {
            if files.iter().any(|(_, f)| f.has_begun()) || self.path.join("checkpoint/manifest").exists() {
                return Err(corrupt("the slots file, which keeps its votes, is missing".into()));
            }
            // the process ended between naming itself and its first vote: nothing was ever acknowledged
            return Ok(None);
        }
        let manifest = self.read_manifest()?;
        if manifest.as_ref().is_some_and(|m| m.identity.cluster != cluster) {
            return Err(OpenError::Foreign(self.path.clone(), "its checkpoint is another cluster's".into()));
        }
        let slots = read(&slots_path)?;
        let inputs = files.iter().map(|(no, f)| raft::SegmentInput { segment: SegmentNo(*no), content: f });
        let files = Files { cluster, manifest, slots: &slots, segments: inputs.collect() };
        let paths: Vec<PathBuf> = chunks_of(&files).map(|id| self.chunk_path(id)).collect();
        // the next chunks are read while the one before is built into the image
        let found = std::thread::scope(|scope| {
            let (ahead, chunks) = sync_channel(CHUNKS_AHEAD);
            scope.spawn(move || {
                for path in paths {
                    let bytes = fs::read(&path);
                    // nobody waits any more: something else was wrong
                    if ahead.send(bytes.map_err(|e| OpenError::Io("read", path, e))).is_err() {
                        return;
                    }
                }
            });
            // the thread reads what the manifest lists and ends after the last
            Found::read(files, |id| chunks.recv().unwrap_or_else(|_| read(&self.chunk_path(id))))
        });
        match found {
            Ok(found) => Ok(Some(found)),
            // a chunk that is gone is as good as a rotten one
            Err(Broken::Read(OpenError::Io(_, path, e))) if is_loss(&e) => {
                Err(corrupt(format!("{}: {e}", path.display())))
            }
            Err(Broken::Read(e)) => Err(e),
            Err(Broken::Log(e)) => Err(corrupt(e.to_string())),
            Err(Broken::Other(why)) => Err(corrupt(why)),
        }
    }

    /// Why a process that ran before gave the directory up, if one did.
    pub fn lost(&self) -> Option<String> {
        fs::read_to_string(self.path.join("lost")).ok()
    }

    /// What was lost has been made good.
    ///
    /// # Errors
    /// The note could not be removed.
    pub fn forget_lost(&self) -> Result<(), OpenError> {
        let path = self.path.join("lost");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(OpenError::Io("remove", path, e)),
            _ => Ok(()),
        }
    }

    /// The cluster and raft id of the identity file, if that is whole.
    pub fn identity(&self) -> Option<([u8; 16], u64)> {
        parse_identity(&fs::read(self.path.join("identity")).ok()?).ok()
    }

    /// Moves what belongs to the raft id of before into a folder named by it, where nobody reads it again but its
    /// operator; what earlier repairs put aside goes. May be called again after it was cut short.
    ///
    /// # Errors
    /// Something could not be moved.
    pub fn set_aside(&self, raft_id: u64) -> Result<PathBuf, OpenError> {
        let name = format!("damaged-{raft_id:x}");
        let aside = self.path.join(&name);
        let io_error = |e| OpenError::Io("set aside into", aside.clone(), e);
        for entry in fs::read_dir(&self.path).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            let earlier =
                path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("damaged-") && n != name);
            if earlier {
                fs::remove_dir_all(&path).map_err(io_error)?;
            }
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside).map_err(io_error)?;
        // the identity goes last: while it is there, this is not done
        for name in ["slots", "log", "checkpoint", "identity"] {
            let (from, to) = (self.path.join(name), aside.join(name));
            // a folder that was moved already was made anew, empty, when the directory was opened
            match to.is_dir() {
                true => fs::remove_dir(&from).map_err(io_error)?,
                false if from.exists() => fs::rename(&from, to).map_err(io_error)?,
                false => {}
            }
        }
        for name in ["log", "checkpoint"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path.join(name)).map_err(io_error)?;
        }
        File::open(&self.path).and_then(|d| d.sync_all()).map_err(io_error)?;
        Ok(aside)
    }

    fn read_manifest(&self) -> Result<Option<Manifest>, OpenError> {
        let path = self.path.join("checkpoint/manifest");
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(OpenError::Io("read", path, e)),
            Ok(bytes) => match Manifest::decode(&bytes) {
                Ok(m) => Ok(Some(m)),
                Err(e) => Err(OpenError::Corrupt(self.path.clone(), format!("checkpoint manifest: {e}"))),
            },
        }
    }

    fn segments(&self) -> Result<Vec<(u64, SegmentFile)>, OpenError> {
        let dir = self.path.join("log");
        let io_error = |e| OpenError::Io("list", dir.clone(), e);
        let mut out = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            let Some(number) = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.strip_suffix(".seg"))
                .and_then(|n| n.parse().ok())
            else {
                // half-made segments of an earlier process have another name
                let _ = fs::remove_file(&path);
                continue;
            };
            let file = File::open(&path).map_err(|e| OpenError::Io("open", path.clone(), e))?;
            let size = file.metadata().map_err(|e| OpenError::Io("read", path.clone(), e))?.len();
            out.push((number, SegmentFile(file, size)));
        }
        Ok(out)
    }

    /// Where a chunk of the checkpoint lies.
    pub fn chunk_path(&self, id: u64) -> PathBuf {
        self.path.join(format!("checkpoint/{id}.chunk"))
    }
}

/// The chunks of a checkpoint, in the order in which they are loaded.
fn chunks_of<'f>(files: &'f Files<'_>) -> impl Iterator<Item = u64> + 'f {
    files.manifest.iter().flat_map(|m| m.chunks.iter().map(|c| c.id))
}

/// The identity file: magic, cluster, raft id, checksum-free because it is compared with every frame of the log.
pub fn identity_bytes(cluster: [u8; 16], raft_id: u64) -> Vec<u8> {
    let mut b = IDENTITY_MAGIC.to_vec();
    b.extend_from_slice(&cluster);
    b.extend_from_slice(&raft_id.to_be_bytes());
    b
}

/// Notes durably that the directory has lost something, for the next start.
///
/// # Errors
/// It could not be written.
pub fn mark_lost(path: &Path, why: &str) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path.join("lost"))?;
    file.write_all(why.as_bytes())?;
    file.sync_all()?;
    File::open(path)?.sync_all()
}

/// A file that should be there is gone, or the disk does not give it back.
fn is_loss(e: &io::Error) -> bool {
    const EIO: i32 = 5;
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(EIO)
}

fn parse_identity(bytes: &[u8]) -> Result<([u8; 16], u64), String> {
    if bytes.len() >= 8 && bytes[..6] == IDENTITY_MAGIC[..6] && bytes[..8] != IDENTITY_MAGIC[..] {
        return Err("it was written by a later version of this program; start that version".into());
    }
    if bytes.len() != 32 || bytes[..8] != IDENTITY_MAGIC[..] {
        return Err("its identity file is not one of ours".into());
    }
    let short = |_| "its identity file is short".to_owned();
    let cluster = bytes[8..24].try_into().map_err(short)?;
    Ok((cluster, u64::from_be_bytes(bytes[24..32].try_into().map_err(short)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        let b = identity_bytes([7; 16], 1);
        assert_eq!(parse_identity(&b), Ok(([7; 16], 1)));
        let mut newer = b.clone();
        newer[7] = 9;
        assert!(parse_identity(&newer).expect_err("newer").contains("later version"));
        assert!(parse_identity(b"hello").is_err());
    }

    #[test]
    fn what_is_damaged_is_set_aside_whole() {
        let dir = std::env::temp_dir().join(format!("ringfence-aside-{}", std::process::id()));
        let held = Directory::open(&dir).expect("opens");
        for round in 1..=2u8 {
            fs::write(dir.join("identity"), identity_bytes([round; 16], 5)).expect("written");
            fs::write(dir.join("slots"), [round]).expect("written");
            fs::write(dir.join("log/1.seg"), [round; 9]).expect("written");
            assert_eq!(held.identity(), Some(([round; 16], 5)));
            let aside = held.set_aside(u64::from(round)).expect("moved");
            assert_eq!(fs::read(aside.join("log/1.seg")).expect("kept"), [round; 9]);
            // again, after a crash: nothing is lost
            held.set_aside(u64::from(round)).expect("moved");
            assert_eq!(fs::read(aside.join("slots")).expect("kept"), [round]);
            assert_eq!(dir.join("damaged-1").is_dir(), round == 1, "the last repair only");
            assert!(held.recover().expect("empty").is_none() && dir.join("log").is_dir());
        }
        drop(held);
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_log_without_votes_is_damage() {
        let dir = std::env::temp_dir().join(format!("ringfence-votes-{}", std::process::id()));
        let held = Directory::open(&dir).expect("opens");
        fs::write(dir.join("identity"), identity_bytes([1; 16], 5)).expect("written");
        assert!(held.recover().expect("it never began").is_none());
        fs::write(dir.join("log/1.seg"), [0; 4096]).expect("written");
        assert!(held.recover().expect("prepared, and nothing more").is_none());
        fs::write(dir.join("log/1.seg"), [1; 4096]).expect("written");
        assert!(matches!(held.recover(), Err(OpenError::Corrupt(..))));
        drop(held);
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_directory_is_held_once() {
        let dir = std::env::temp_dir().join(format!("ringfence-lock-{}", std::process::id()));
        let held = Directory::open(&dir).expect("opens");
        assert!(matches!(Directory::open(&dir), Err(OpenError::Locked(_))));
        assert!(held.recover().expect("reads").is_none());
        drop(held);
        Directory::open(&dir).expect("opens again");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
