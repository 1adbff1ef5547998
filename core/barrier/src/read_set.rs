//! What a Txn relied on: the keys it read, as hashes, and the ranges it listed.

use ringfence_store::Key;

/// Keys and ranges read. A key is kept as a 64-bit hash: two keys that collide cost a needless retry, never a missed
/// conflict, because equal keys have equal hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    points: Vec<u64>,
    /// First key, and the key before which the range ends (none: the end of the image).
    ranges: Vec<(Key, Option<Key>)>,
    tables: Tables,
}

/// Tables by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables([u64; 4]);

impl Tables {
    fn add(&mut self, table: u8) {
        self.0[usize::from(table >> 6)] |= 1 << (table & 63);
    }

    /// Their numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0u8..=255).filter(move |t| self.0[usize::from(t >> 6)] >> (t & 63) & 1 == 1)
    }
}

impl ReadSet {
    /// True if nothing was read.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    /// Hashes of the keys read, by [`key_hash`].
    pub fn points(&self) -> &[u64] {
        &self.points
    }

    /// The ranges read: from a key, up to but without another.
    pub fn ranges(&self) -> &[(Key, Option<Key>)] {
        &self.ranges
    }

    /// True if a write to `key` touches what was read.
    pub fn touches(&self, key: &[u8]) -> bool {
        self.points.contains(&key_hash(key)) || self.covers(key)
    }

    /// The tables that its keys and ranges begin in: while none of them changes, what was read reads the same.
    pub fn tables(&self) -> Tables {
        self.tables
    }

    /// Takes over what another read.
    pub(crate) fn extend(&mut self, other: &ReadSet) {
        self.points.extend_from_slice(&other.points);
        self.ranges.extend_from_slice(&other.ranges);
        for (mine, theirs) in self.tables.0.iter_mut().zip(other.tables.0) {
            *mine |= theirs;
        }
    }

    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|(from, to)| key >= &from[..] && to.as_ref().is_none_or(|to| key < &to[..]))
    }

    pub(crate) fn add_point(&mut self, key: &[u8]) {
        let hash = key_hash(key);
        if self.points.is_empty() {
            self.points.reserve(16); // one allocation serves nearly every Txn
        }
        key.first().into_iter().for_each(|table| self.tables.add(*table));
        if self.points.last() != Some(&hash) {
            self.points.push(hash);
        }
    }

    pub(crate) fn add_range(&mut self, from: Key, to: Option<Key>) {
        if to.as_ref().is_none_or(|to| from < *to) {
            from.first().into_iter().for_each(|table| self.tables.add(*table));
            self.ranges.push((from, to));
        }
    }
}

/// The hash of a key in a [`ReadSet`]: eight bytes a step, each multiplied to 128 bits and folded; the upper byte is the
/// key's first, its table, so that what was read of a table that stands still need not be looked up. Fixed for all
/// processes; it needs speed and spread, not secrecy.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xe703_7ed1_a0b4_28db;
    let fold = |x: u64, y: u64| {
        let m = u128::from(x) * u128::from(y);
        m as u64 ^ (m >> 64) as u64
    };
    let (chunks, rest) = key.as_chunks::<8>();
    let mut h = A ^ key.len() as u64;
    for chunk in chunks {
        h = fold(h ^ u64::from_le_bytes(*chunk), B);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let h = fold(fold(h ^ u64::from_le_bytes(last), B) ^ A, B);
    h >> 8 | (table_of(key) as u64) << 56
}

/// The table of a key, which is its first byte; the empty key counts to the first.
#[inline]
pub(crate) fn table_of(key: &[u8]) -> usize {
    key.first().map_or(0, |&byte| usize::from(byte))
}

/// The table of the key that has this [`key_hash`].
#[inline]
pub(crate) fn table_of_hash(hash: u64) -> usize {
    (hash >> 56) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hashes_spread() {
        let mut seen = BTreeSet::new();
        for n in 0..20_000u32 {
            seen.insert(key_hash(format!("\u{1}mount/secret/{n}").as_bytes()));
            seen.insert(key_hash(&n.to_be_bytes()));
        }
        assert_eq!(seen.len(), 40_000);
        assert_ne!(key_hash(b""), key_hash(b"\0"), "length counts");
        assert_eq!((table_of_hash(key_hash(b"")), table_of_hash(key_hash(b"\x81x"))), (0, 0x81));
    }

    #[test]
    fn tables_are_known_by_their_keys() {
        let (mut set, mut more) = (ReadSet::default(), ReadSet::default());
        set.add_point(&[3, 1]);
        set.add_point(&[]);
        more.add_range(vec![0x80, 1], None);
        more.add_point(&[255]);
        set.extend(&more);
        assert_eq!(set.tables().iter().collect::<Vec<_>>(), [3, 0x80, 255]);
        assert!(set.touches(&[255]) && set.touches(&[0x81]) && !set.touches(&[4]));
    }

    #[test]
    fn ranges_are_half_open() {
        let mut set = ReadSet::default();
        set.add_range(b"b".to_vec(), Some(b"d".to_vec()));
        set.add_range(b"x".to_vec(), None);
        set.add_range(b"z".to_vec(), Some(b"z".to_vec()));
        assert_eq!(set.ranges().len(), 2, "an empty range is none");
        for (key, inside) in [("a", false), ("b", true), ("c", true), ("d", false), ("x", true), ("zz", true)] {
            assert_eq!(set.touches(key.as_bytes()), inside, "{key}");
        }
    }
}
