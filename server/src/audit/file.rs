//! Audit files: lines of one turn are appended by one write, whole or not at all.
//!
//! Every core appends through a descriptor of its own to the same file. A write that the disk takes only a part of
//! (it is full) would leave half a line, and the next line, perhaps of another core, would be glued to it and lost
//! as well. So cores that append to one file take turns (the kernel makes them anyway, on the inode), and whoever
//! left half a line cuts it off before the next has its turn.

use super::target::{Rules, plain};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Files that are open for audit in this process.
#[derive(Default)]
pub(super) struct Files {
    open: Mutex<Vec<(Inode, Weak<Turn>)>>,
}

/// Device and inode: two paths may lead to one file.
type Inode = (u64, u64);

/// Held while a core appends.
type Turn = Mutex<Tail>;

/// What the end of a file is like.
#[derive(Default)]
struct Tail {
    /// Half a line stands there that could not be cut off; the next write ends it first.
    torn: bool,
}

/// A file open for appending, on one core.
pub(super) struct Appender {
    file: File,
    turn: Arc<Turn>,
}

impl Files {
    /// Opens a file, makes it if it is not there, gives it its mode. Directories are not made.
    ///
    /// # Errors
    /// What failed, naming the file.
    pub fn open(&self, path: &Path, mode: Option<u32>, rules: &Rules) -> Result<Appender, String> {
        rules.check(path)?;
        let file = OpenOptions::new().append(true).create(true).mode(mode.unwrap_or(0o600)).open(path);
        let told = |what: &str, error: &io::Error| format!("{what} {}: {}", path.display(), plain(error));
        let file = file.map_err(|error| told("open", &error))?;
        let data = file.metadata().map_err(|error| told("stat", &error))?;
        if let Some(mode) = mode
            && data.is_file()
            && data.permissions().mode() & 0o7777 != mode
        {
            file.set_permissions(PermissionsExt::from_mode(mode)).map_err(|error| told("chmod", &error))?;
        }
        Ok(Appender { file, turn: self.turn((data.dev(), data.ino())) })
    }

    fn turn(&self, inode: Inode) -> Arc<Turn> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, turn)| turn.strong_count() > 0);
        if let Some(turn) = open.iter().find(|(known, _)| *known == inode).and_then(|(_, turn)| turn.upgrade()) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        open.push((inode, Arc::downgrade(&turn)));
        turn
    }
}

impl Appender {
    /// Appends lines, each of which ends with a newline. Answers how many bytes of them stand in the file, always a
    /// number of whole lines, and what kept the rest out.
    pub fn append(&mut self, lines: &[u8]) -> (usize, Option<io::Error>) {
        let mut tail = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        append(&mut self.file, &mut tail, lines)
    }
}

/// What an audit file can do; tests put a full disk in its place.
trait Append: Write {
    /// Cuts off the last `bytes`, if nobody has appended to them.
    fn cut(&mut self, bytes: u64) -> bool;
}

impl Append for File {
    fn cut(&mut self, bytes: u64) -> bool {
        // after an appending write the position is the end of what was written
        let Ok(end) = self.stream_position() else { return false };
        let still_last = self.metadata().is_ok_and(|data| data.is_file() && data.len() == end);
        still_last && bytes <= end && self.set_len(end - bytes).is_ok()
    }
}

fn append(file: &mut impl Append, tail: &mut Tail, lines: &[u8]) -> (usize, Option<io::Error>) {
    if tail.torn {
        match write_all(file, b"\n") {
            (1, _) => tail.torn = false,
            (_, error) => return (0, error),
        }
    }
    let (written, error) = write_all(file, lines);
    let whole = whole_lines(&lines[..written]);
    if whole < written && !file.cut((written - whole) as u64) {
        tail.torn = true;
    }
    (whole, error)
}

/// Bytes up to the end of the last whole line.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

/// As much as it takes, and the error that ended it.
fn write_all(file: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::Scratch;
    use ringfence_base::entropy::SeededEntropy;

    /// A disk with so much room, that may or may not cut.
    struct Disk {
        content: Vec<u8>,
        room: usize,
        cuts: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            // pieces, so that a write has to be continued
            let n = bytes.len().min(self.room).min(7);
            self.content.extend_from_slice(&bytes[..n]);
            self.room -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Append for Disk {
        fn cut(&mut self, bytes: u64) -> bool {
            if self.cuts {
                self.content.truncate(self.content.len() - bytes as usize);
                self.room += bytes as usize;
            }
            self.cuts
        }
    }

    /// Whatever the disk takes, the lines that were reported as taken stand there whole and in order, and lines that
    /// come after half a line are not glued to it.
    #[test]
    fn a_full_disk_never_spoils_a_line_that_was_taken() {
        for seed in 0..300 {
            let mut random = Random(SeededEntropy(seed));
            let mut disk = Disk { content: Vec::new(), room: random.below(60), cuts: random.below(2) == 0 };
            let mut tail = Tail::default();
            let mut taken = Vec::new();
            for call in 0..12 {
                let lines: Vec<String> = (0..1 + random.below(4))
                    .map(|n| format!("{call}-{n}-{}\n", "x".repeat(random.below(9))))
                    .collect();
                let bytes = lines.concat();
                let (written, error) = append(&mut disk, &mut tail, bytes.as_bytes());
                assert_eq!(error.is_some(), written < bytes.len());
                let mut end = 0;
                taken.extend(lines.into_iter().filter(|line| {
                    end += line.len();
                    end <= written
                }));
                disk.room += random.below(30);
            }
            let text = String::from_utf8(disk.content).unwrap();
            let standing: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
            let mut rest = standing.iter();
            for line in &taken {
                assert!(rest.any(|standing| standing == line), "seed {seed}: {line:?} is not whole in {text:?}");
            }
            if disk.cuts {
                assert_eq!(standing, taken, "seed {seed}: nothing but what was taken");
            }
        }
    }

    #[test]
    fn half_a_line_is_cut_off_a_real_file_only_while_it_is_last() {
        let scratch = Scratch::new();
        let path = scratch.path.join("log");
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert!(file.cut(2));
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        file.write_all(b"two\nthr").unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"other\n").unwrap();
        assert!(!file.cut(3), "a stranger's line would be lost");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthrother\n");
    }

    #[test]
    fn one_turn_per_file_whatever_its_path() {
        let scratch = Scratch::new();
        let (files, rules) = (Files::default(), Rules::default());
        let path = scratch.path.join("log");
        let first = files.open(&path, Some(0o640), &rules).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        std::os::unix::fs::symlink(&path, scratch.path.join("link")).unwrap();
        let second = files.open(&scratch.path.join("link"), None, &rules).unwrap();
        assert!(Arc::ptr_eq(&first.turn, &second.turn));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640, "kept");
        let other = files.open(&scratch.path.join("other"), None, &rules).unwrap();
        assert!(!Arc::ptr_eq(&first.turn, &other.turn));
        let refused = files.open(&scratch.path.join("no/dir"), None, &rules).err().unwrap();
        assert!(refused.ends_with("no/dir: no such file or directory"), "{refused}");
    }

    struct Random(SeededEntropy);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            (self.0.next_u64() >> 16) as usize % n
        }
    }
}
