//! The record of a key: its metadata, the state of its retained versions and the current version's data if that is
//! short, in bytes that a read takes apart without allocating:
//!
//! ```text
//!    0        format = 1, or 2 with data
//!    1..9     created               be64, nanoseconds since 1970
//!    9..17    updated               be64
//!   17..25    current version       be64
//!   25..33    oldest version        be64, 0 until the first pruning
//!   33..37    max_versions          be32
//!   37        flags                 1 = cas_required, 2 = metadata_cas_required
//!   38..46    delete_version_after  be64, seconds
//!   46..54    metadata version      be64
//!   54..58    retained versions n   be32
//!   58..      n × 17                created be64, deletion be64 (0 = none), destroyed u8; the last is the current one
//!   [4        data bytes d          be32; of format 2 only, as the next line
//!    d        data                  JSON text of the current version's data]
//!   rest      custom metadata       JSON text of an object; nothing if there is none
//! ```
//!
//! Most secrets are short and most reads want the newest version, so one look-up and one opened record answer them.
//! Data of an older version, or longer than [`INLINE_BYTES`], is a record of its own.
//!
//! Retained versions have no gaps: they are pruned from the oldest on. A record that contradicts itself is an error,
//! never a panic.

use ringfence_base::{CodecError, Reader, Wall, Writer};
use std::collections::BTreeMap;

const FORMAT: u8 = 1;
const FORMAT_WITH_DATA: u8 = 2;
/// Data up to this stands in the key's record.
pub const INLINE_BYTES: usize = 1024;
const HEAD_BYTES: usize = 58;
const VERSION_BYTES: usize = 17;
const CAS_REQUIRED: u8 = 1;
const METADATA_CAS_REQUIRED: u8 = 2;

/// The state of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionState {
    pub created: Wall,
    /// When it was, or will be, deleted.
    pub deletion: Option<Wall>,
    pub destroyed: bool,
}

impl VersionState {
    /// Deleted by now; a deletion that lies ahead does not count.
    pub fn is_deleted(&self, now: Wall) -> bool {
        self.deletion.is_some_and(|d| d <= now)
    }

    /// Its data can be read.
    pub fn is_live(&self, now: Wall) -> bool {
        !self.destroyed && !self.is_deleted(now)
    }

    /// As the API prints it: empty if unset.
    pub fn deletion_text(&self) -> String {
        self.deletion.map(Wall::rfc3339).unwrap_or_default()
    }
}

/// A key, to be changed and encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Key {
    pub created: Wall,
    pub updated: Wall,
    /// 0 = there is metadata only. Invariant: `current` >= number of `versions`.
    pub current: u64,
    pub oldest: u64,
    pub max_versions: u32,
    pub cas_required: bool,
    pub metadata_cas_required: bool,
    /// Seconds; 0 = not said.
    pub delete_version_after: u64,
    /// Counts the writes of metadata.
    pub metadata_version: u64,
    /// The retained versions; the last one is `current`.
    pub versions: Vec<VersionState>,
    /// JSON text of the current version's data, if it stands here.
    pub data: Option<String>,
    pub custom: BTreeMap<String, String>,
}

impl Key {
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        if self.cas_required {
            flags |= CAS_REQUIRED;
        }
        if self.metadata_cas_required {
            flags |= METADATA_CAS_REQUIRED;
        }
        let data_bytes = self.data.as_ref().map_or(0, |d| d.len() + 4);
        let room = HEAD_BYTES + self.versions.len() * VERSION_BYTES + data_bytes + 16;
        let mut w = Writer::over(Vec::with_capacity(room));
        w.u8(if self.data.is_some() { FORMAT_WITH_DATA } else { FORMAT });
        w.be64(self.created.0).be64(self.updated.0).be64(self.current).be64(self.oldest);
        w.be32(self.max_versions).u8(flags).be64(self.delete_version_after).be64(self.metadata_version);
        w.be32(self.versions.len() as u32);
        for v in &self.versions {
            w.be64(v.created.0).be64(v.deletion.map_or(0, |d| d.0)).bool(v.destroyed);
        }
        if let Some(data) = &self.data {
            w.be32(data.len() as u32).raw(data.as_bytes());
        }
        if !self.custom.is_empty() {
            w.raw(&serde_json::to_vec(&self.custom).expect("texts always serialise"));
        }
        w.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Key, CodecError> {
        let r = KeyRecord::parse(bytes)?;
        let versions = (0..r.retained()).map(|i| r.version_at(i)).collect();
        let mut key = Key { versions, data: r.data.map(str::to_owned), ..r.head };
        if !r.custom.is_empty() {
            key.custom = serde_json::from_str(r.custom).map_err(|_| CodecError::NotText)?;
        }
        Ok(key)
    }

    /// The number of the oldest retained version.
    pub fn first(&self) -> u64 {
        self.current + 1 - self.versions.len() as u64
    }

    /// A retained version.
    pub fn version(&self, n: u64) -> Option<&VersionState> {
        self.versions.get(position(self.current, self.versions.len(), n)?)
    }

    /// A retained version, to be changed.
    pub fn version_mut(&mut self, n: u64) -> Option<&mut VersionState> {
        let at = position(self.current, self.versions.len(), n)?;
        self.versions.get_mut(at)
    }

    /// Adds a version and drops those that are over the number kept; answers the numbers of the dropped ones.
    pub fn add_version(&mut self, state: VersionState, kept: u32) -> std::ops::Range<u64> {
        if self.created == Wall::default() {
            self.created = state.created;
        }
        self.updated = state.created;
        self.current += 1;
        self.versions.push(state);
        let kept = u64::from(kept.max(1));
        if self.current - self.oldest >= kept {
            self.oldest = self.current - kept + 1;
        }
        let first = self.first();
        let pruned = first..self.oldest.max(first);
        self.versions.drain(..(pruned.end - pruned.start) as usize);
        pruned
    }
}

/// Where version `n` stands among the retained ones.
fn position(current: u64, retained: usize, n: u64) -> Option<usize> {
    let from_end = current.checked_sub(n)?;
    (retained as u64).checked_sub(from_end + 1).map(|at| at as usize)
}

/// A key's record as it was read: the head decoded, versions and custom metadata in place.
#[derive(Debug)]
pub struct KeyRecord<'r> {
    /// Without versions and custom metadata.
    pub head: Key,
    versions: &'r [u8],
    /// JSON text of the current version's data, if it stands here.
    pub data: Option<&'r str>,
    /// JSON text of the custom metadata; empty if there is none.
    custom: &'r str,
}

impl<'r> KeyRecord<'r> {
    pub fn parse(bytes: &'r [u8]) -> Result<KeyRecord<'r>, CodecError> {
        let mut r = Reader::new(bytes);
        let with_data = match r.u8()? {
            FORMAT => false,
            FORMAT_WITH_DATA => true,
            other => return Err(CodecError::BadTag(other)),
        };
        let (created, updated, current, oldest) = (Wall(r.be64()?), Wall(r.be64()?), r.be64()?, r.be64()?);
        let (max_versions, flags) = (r.be32()?, r.u8()?);
        let (delete_version_after, metadata_version, retained) = (r.be64()?, r.be64()?, r.be32()?);
        if flags & !(CAS_REQUIRED | METADATA_CAS_REQUIRED) != 0 {
            return Err(CodecError::BadTag(flags));
        }
        if u64::from(retained) > current || current == u64::MAX || oldest > current {
            return Err(CodecError::BadNumber);
        }
        let versions = r.raw((retained as usize).checked_mul(VERSION_BYTES).ok_or(CodecError::TooLong)?)?;
        if let Some(v) = versions.chunks_exact(VERSION_BYTES).find(|v| v[16] > 1) {
            return Err(CodecError::BadTag(v[16]));
        }
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| CodecError::NotText);
        let data = match with_data {
            false => None,
            true if retained == 0 => return Err(CodecError::BadNumber),
            true => {
                let bytes = r.be32()? as usize;
                Some(text(r.raw(bytes)?)?)
            }
        };
        let custom = text(r.rest())?;
        let head = Key {
            created,
            updated,
            current,
            oldest,
            max_versions,
            cas_required: flags & CAS_REQUIRED != 0,
            metadata_cas_required: flags & METADATA_CAS_REQUIRED != 0,
            delete_version_after,
            metadata_version,
            versions: Vec::new(),
            data: None,
            custom: BTreeMap::new(),
        };
        Ok(KeyRecord { head, versions, data, custom })
    }

    /// A retained version.
    pub fn version(&self, n: u64) -> Option<VersionState> {
        Some(self.version_at(position(self.head.current, self.retained(), n)?))
    }

    /// JSON of the custom metadata: an object, or `null`.
    pub fn custom_json(&self) -> &'r str {
        if self.custom.is_empty() { "null" } else { self.custom }
    }

    fn retained(&self) -> usize {
        self.versions.len() / VERSION_BYTES
    }

    fn version_at(&self, i: usize) -> VersionState {
        let v = &self.versions[i * VERSION_BYTES..(i + 1) * VERSION_BYTES];
        let be64 = |at: usize| u64::from_be_bytes(std::array::from_fn(|k| v[at + k]));
        let deletion = be64(8);
        VersionState {
            created: Wall(be64(0)),
            deletion: (deletion > 0).then_some(Wall(deletion)),
            destroyed: v[16] == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(created: u64) -> VersionState {
        VersionState { created: Wall(created), deletion: None, destroyed: false }
    }

    #[test]
    fn golden_bytes() {
        let mut key =
            Key { created: Wall(1), updated: Wall(2), current: 1, oldest: 0, max_versions: 3, ..Key::default() };
        key.cas_required = true;
        key.delete_version_after = 4;
        key.metadata_version = 5;
        key.versions = vec![VersionState { created: Wall(6), deletion: Some(Wall(7)), destroyed: true }];
        key.custom.insert("k".into(), "v\"".into());
        let hex = concat!(
            "01",
            "0000000000000001",
            "0000000000000002",
            "0000000000000001",
            "0000000000000000",
            "00000003",
            "01",
            "0000000000000004",
            "0000000000000005",
            "00000001",
            "0000000000000006",
            "0000000000000007",
            "01",
            "7b226b223a22765c22227d"
        );
        assert_eq!(hex::encode(key.encode()), hex);
        assert_eq!(Key::decode(&hex::decode(hex).unwrap()), Ok(key));
    }

    #[test]
    fn golden_bytes_with_data() {
        let mut key = Key { current: 1, versions: vec![state(6)], data: Some("{\"a\":1}".into()), ..Key::default() };
        key.custom.insert("k".into(), "v".into());
        let hex = concat!(
            "02",
            "00000000000000000000000000000000",
            "00000000000000010000000000000000",
            "0000000000",
            "00000000000000000000000000000000",
            "00000001",
            "0000000000000006000000000000000000",
            "000000077b2261223a317d",
            "7b226b223a2276227d"
        );
        assert_eq!(hex::encode(key.encode()), hex);
        assert_eq!(Key::decode(&hex::decode(hex).unwrap()), Ok(key));
    }

    #[test]
    fn pruning_keeps_the_newest() {
        let mut key = Key::default();
        for n in 1..=9 {
            assert!(key.add_version(state(n), 10).is_empty());
        }
        assert_eq!((key.oldest, key.first()), (0, 1));
        assert!(key.add_version(state(10), 10).is_empty());
        assert_eq!(key.add_version(state(11), 10), 1..2);
        assert_eq!((key.oldest, key.first(), key.versions.len()), (2, 2, 10));
        assert!(key.version(1).is_none() && key.version(12).is_none() && key.version(0).is_none());
        assert_eq!(key.version(11), Some(&state(11)));
        // fewer versions are kept from now on: the next write drops the rest at once
        assert_eq!(key.add_version(state(12), 3), 2..10);
        assert_eq!(key.versions.len(), 3);
        // more are kept again: nothing is dropped, nothing comes back
        assert!(key.add_version(state(13), 20).is_empty());
        assert_eq!((key.first(), key.versions.len()), (10, 4));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_safe(mut b: Vec<u8>, with_data: bool, n: u64) {
            if let Some(first) = b.first_mut() { *first = if with_data { FORMAT_WITH_DATA } else { FORMAT } }
            if let Ok(r) = KeyRecord::parse(&b) {
                let _ = r.version(n);
            }
            let _ = Key::decode(&b);
        }

        #[test]
        fn keys_survive(
            current in 0u64..50, more in 0u64..1_000_000, max: u32, after: u64, flags in 0u8..4, data: Option<String>,
            custom: BTreeMap<String, String>,
        ) {
            let key = Key {
                created: Wall(9), updated: Wall(10), current: current + more, oldest: 0, max_versions: max,
                cas_required: flags & 1 > 0, metadata_cas_required: flags & 2 > 0, delete_version_after: after,
                metadata_version: more, custom, data: data.filter(|_| current > 0),
                versions: (0..current).map(|i| VersionState {
                    created: Wall(i), deletion: (i % 3 == 0).then_some(Wall(i + 1)), destroyed: i % 5 == 0,
                }).collect(),
            };
            let bytes = key.encode();
            prop_assert_eq!(Key::decode(&bytes), Ok(key.clone()));
            let r = KeyRecord::parse(&bytes).unwrap();
            prop_assert_eq!(r.data, key.data.as_deref());
            for n in 0..=current + more + 1 {
                if n > 100 && n + 100 < current + more { continue }
                prop_assert_eq!(r.version(n), key.version(n).copied());
            }
        }
    }
}
