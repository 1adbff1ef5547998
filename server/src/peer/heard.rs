//! Which start of each member's directory was last heard. A directory counts its starts; each process says which one it
//! is before anything else, and a node writes that down before it listens to more. So a directory that was put back from
//! an older copy, and has forgotten what it promised since, gives itself away: its count is one that has passed.
//!
//! Kept in `cluster/heard`, one line a member: raft id, start, nonce. Driven by the cluster port. It cannot tell a copy
//! that was taken of a running directory from one that was killed at that moment: what such a copy lacks shows by its log
//! only, when the active node remembers more of it.

use super::hello::Refusal;
use super::identity;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A start of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Counted by the directory.
    pub number: u64,
    /// Drawn at the start: two starts with one number are two.
    pub nonce: [u8; 8],
}

/// The starts heard.
#[derive(Debug, Default)]
pub struct Heard {
    folder: PathBuf,
    known: BTreeMap<u64, Boot>,
}

impl Heard {
    /// As last kept; none if that cannot be read.
    pub fn open(folder: PathBuf) -> Heard {
        let text = std::fs::read_to_string(folder.join("heard")).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let id = u64::from_str_radix(words.next()?, 16).ok()?;
            let number = words.next()?.parse().ok()?;
            let nonce = hex::decode(words.next()?).ok()?.try_into().ok()?;
            Some((id, Boot { number, nonce }))
        };
        Heard { folder, known: text.lines().filter_map(line).collect() }
    }

    /// A member says which start it is; what is new is durable when this returns. Who is no member any more is forgotten.
    ///
    /// # Errors
    /// Another start came later, or this one cannot be written down.
    pub fn note(&mut self, id: u64, boot: Boot, is_member: impl Fn(u64) -> bool) -> Result<(), Refusal> {
        match self.known.get(&id) {
            Some(known) if *known == boot => return Ok(()),
            Some(known) if known.number >= boot.number => {
                return Err(Refusal {
                    older: true,
                    refused: true,
                    why: format!(
                        "its data directory is an older copy: it was started {} times, and this node has heard its \
                         start number {}",
                        boot.number, known.number
                    ),
                });
            }
            _ => {}
        }
        let mut next: BTreeMap<u64, Boot> =
            self.known.iter().filter(|(id, _)| is_member(**id)).map(|(id, boot)| (*id, *boot)).collect();
        next.insert(id, boot);
        let text: String =
            next.iter().map(|(id, b)| format!("{id:x} {} {}\n", b.number, hex::encode(b.nonce))).collect();
        identity::write(&self.folder, "heard", text.as_bytes())?;
        self.known = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_has_passed_is_refused() {
        let dir = std::env::temp_dir().join(format!("ringfence-heard-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let boot = |number, n| Boot { number, nonce: [n; 8] };
        let all = |_: u64| true;
        let mut heard = Heard::open(dir.clone());
        assert_eq!(heard.note(7, boot(1, 1), all), Ok(()));
        assert_eq!(heard.note(7, boot(3, 2), all), Ok(()));
        assert_eq!(heard.note(7, boot(3, 2), all), Ok(()), "it may come again");
        // remembered by the next process
        let mut heard = Heard::open(dir.clone());
        for passed in [boot(1, 1), boot(2, 9), boot(3, 9)] {
            assert!(heard.note(7, passed, all).expect_err("passed").older, "{passed:?}");
        }
        assert_eq!(heard.note(8, boot(1, 4), all), Ok(()), "each directory counts for itself");
        assert_eq!(heard.note(7, boot(4, 5), |id| id != 8), Ok(()));
        assert_eq!(Heard::open(dir.clone()).known, BTreeMap::from([(7, boot(4, 5))]));
        std::fs::write(dir.join("heard"), "rubbish\n7 x y\n").expect("written");
        assert!(Heard::open(dir.clone()).known.is_empty());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
