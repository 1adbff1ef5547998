//! Paths whose reads write: those that yield leases. Such a call would run twice, once without a read set and once with
//! one; a path that did so last time gets its read set at once.
//!
//! Driven by the shard. A few bits of memory and no truth: a path that was forgotten, or taken for another, costs a run or
//! a read set, never more.

/// See the module.
#[derive(Default)]
pub(crate) struct WritingReads {
    /// Hashes of paths, each at its place; empty until there is one, so that others do not pay.
    seen: Vec<u64>,
}

impl WritingReads {
    /// Paths kept, at most. A power of two.
    const PLACES: usize = 1024;

    /// True if the path's last read wrote.
    pub(crate) fn contains(&self, path: &str) -> bool {
        !self.seen.is_empty() && self.seen[Self::place(path)] == Self::hash(path)
    }

    /// A read of this path wrote.
    pub(crate) fn note(&mut self, path: &str) {
        self.seen.resize(Self::PLACES, 0);
        self.seen[Self::place(path)] = Self::hash(path);
    }

    /// A read of this path did not write after all.
    pub(crate) fn forget(&mut self, path: &str) {
        if self.contains(path) {
            self.seen[Self::place(path)] = 0;
        }
    }

    fn place(path: &str) -> usize {
        // the high bits: every byte has moved them
        (Self::hash(path) >> 54) as usize % Self::PLACES
    }

    fn hash(path: &str) -> u64 {
        path.as_bytes().chunks(8).fold(path.len() as u64 + 1, |h, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (h ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_what_was_noted_and_forgets_what_is_told() {
        let mut reads = WritingReads::default();
        assert!(!reads.contains("database/creds/app"));
        reads.forget("database/creds/app");
        reads.note("database/creds/app");
        assert!(reads.contains("database/creds/app"));
        assert!(!reads.contains("database/creds/apq") && !reads.contains(""));
        reads.forget("database/creds/apq");
        assert!(reads.contains("database/creds/app"));
        reads.forget("database/creds/app");
        assert!(!reads.contains("database/creds/app"));
    }

    #[test]
    fn many_paths_take_no_more_room() {
        let mut reads = WritingReads::default();
        let path = |n| format!("database-{}/creds/role-{n}", n % 7);
        (0..10_000).for_each(|n| reads.note(&path(n)));
        assert_eq!(reads.seen.len(), WritingReads::PLACES);
        // the latest of each place are there, so most of the places are taken
        assert!((0..10_000).filter(|n| reads.contains(&path(*n))).count() > WritingReads::PLACES / 2);
        assert!(reads.contains(&path(9_999)));
    }
}
