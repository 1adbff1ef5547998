//! The slots file: raft id, term, vote and commit, each state written twice beside the one before.
//!
//! ```text
//! file, 16384 bytes: pair 0 = sectors 0 and 1, pair 1 = sectors 2 and 3
//! state number n is written to pair n % 2, the same bytes in both sectors, in one write
//!
//! sector
//!   0  [8]  b"RFSLOT01"
//!   8  [16] cluster id
//!  24  u64  raft id
//!  32  u64  number of the state: 1, 2, 3 ..
//!  40  u64  term
//!  48  u64  vote: raft id of the candidate, 0 for none
//!  56  u64  commit index known durable at that time
//!  64  u32  checksum of bytes 0..64
//!  68  ..   zeros
//! ```
//! A torn write spoils one pair and the other still holds the state before, which is the acknowledged one. Rot of a
//! single sector leaves its twin. If all that is readable is older than the log says, a vote could be given twice:
//! recovery names that instead of starting.

use super::record::{u32_at, u64_at};
use crate::disk::SECTOR;

/// Length of the slots file.
pub const FILE_BYTES: usize = 4 * SECTOR;

const MAGIC: &[u8; 8] = b"RFSLOT01";
const PAIR: usize = 2 * SECTOR;

/// One durable state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// This data directory's raft id.
    pub raft_id: u64,
    /// Number of the state.
    pub number: u64,
    /// Raft term.
    pub term: u64,
    /// Raft id voted for in `term`, 0 for none.
    pub vote: u64,
    /// Commit index, never past what was durable.
    pub commit: u64,
}

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotsFound {
    /// Nothing was ever written.
    Blank,
    /// The newest readable state.
    State(Slot),
    /// Something was written and nothing of it is readable, or the states contradict each other.
    Damaged,
}

/// Where a state goes, and its bytes.
pub fn encode(slot: &Slot) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; PAIR];
    let (a, b) = bytes.split_at_mut(SECTOR);
    a[..8].copy_from_slice(MAGIC);
    a[8..24].copy_from_slice(&slot.cluster_id);
    for (at, v) in [(24, slot.raft_id), (32, slot.number), (40, slot.term), (48, slot.vote), (56, slot.commit)] {
        a[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }
    let crc = crc32c::crc32c(&a[..64]);
    a[64..68].copy_from_slice(&crc.to_le_bytes());
    b.copy_from_slice(a);
    ((slot.number % 2) * PAIR as u64, bytes)
}

/// Reads the file; a short one is read as if zeros followed.
pub fn decode(file: &[u8]) -> SlotsFound {
    let mut newest: Option<Slot> = None;
    for (i, sector) in file.chunks_exact(SECTOR).take(4).enumerate() {
        let Some(slot) = decode_sector(sector) else { continue };
        if slot.number % 2 != i as u64 / 2 {
            return SlotsFound::Damaged;
        }
        match newest {
            None => newest = Some(slot),
            Some(n) => {
                let (old, new) = if n.number <= slot.number { (n, slot) } else { (slot, n) };
                let contradiction = old.cluster_id != new.cluster_id
                    || old.raft_id != new.raft_id
                    || old.term > new.term
                    || (old.number == new.number && old != new)
                    || (old.term == new.term && old.vote != 0 && old.vote != new.vote);
                if contradiction {
                    return SlotsFound::Damaged;
                }
                newest = Some(new);
            }
        }
    }
    match newest {
        Some(slot) => SlotsFound::State(slot),
        None if file.iter().all(|&b| b == 0) => SlotsFound::Blank,
        None => SlotsFound::Damaged,
    }
}

fn decode_sector(s: &[u8]) -> Option<Slot> {
    if &s[..8] != MAGIC || u32_at(s, 64) != crc32c::crc32c(&s[..64]) {
        return None;
    }
    let mut cluster_id = [0; 16];
    cluster_id.copy_from_slice(&s[8..24]);
    let slot = Slot {
        cluster_id,
        raft_id: u64_at(s, 24),
        number: u64_at(s, 32),
        term: u64_at(s, 40),
        vote: u64_at(s, 48),
        commit: u64_at(s, 56),
    };
    let sane = slot.raft_id > 0 && slot.number > 0 && slot.term < 1 << 56 && slot.commit < 1 << 56;
    sane.then_some(slot)
}
