//! The record of a token: what a service token's row holds, sealed, and what a batch token carries within itself.
//!
//! The clear header of a service token's row is its lease: due time and owner, see [`Header`].

use crate::tables::Hash;
use ringfence_base::{CodecError, MountId, NsId, Reader, Wall, Writer};
use std::collections::BTreeMap;

/// Format of the body.
const VERSION: u8 = 1;
const MAX_TEXT: usize = 64 * 1024;
const MAX_ITEMS: u64 = 10_000;
/// Deepest chain of parents. Every use of a token looks at all of its ancestors, so a chain costs.
pub const MAX_DEPTH: u32 = 64;

/// Bits of the second byte.
mod flag {
    pub const BATCH: u8 = 1;
    pub const PARENT: u8 = 1 << 1;
    pub const META: u8 = 1 << 2;
    pub const RENEWABLE: u8 = 1 << 3;
    pub const NO_DEFAULT: u8 = 1 << 4;
    /// The entity is a UUID and stands as 16 bytes. This and the next keep a batch token short.
    pub const UUID_ENTITY: u8 = 1 << 5;
    /// The due time is creation plus lifetime and is left out.
    pub const PLAIN_DUE: u8 = 1 << 6;
    pub const ALL: u8 = 0x7f;
}

/// Service or batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TokenKind {
    /// A record in the image, a lease, an accessor, a cubbyhole.
    #[default]
    Service,
    /// Self-contained: nothing is stored.
    Batch,
}

/// The clear header of a token's or lease's row: what the keyless side indexes need.
///
/// ```text
/// 0..8   due time, ns since the epoch, BE; 0 = never
/// 8..24  owner: hash of the parent token, or of the token that holds the lease; zero = none
/// 24..28 mount that issued it, BE
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// When it ends; zero = never.
    pub due: Wall,
    /// Parent or holder; zero = none.
    pub owner: Hash,
    /// The mount that issued it.
    pub mount: MountId,
}

impl Header {
    /// Bytes of an encoded header.
    pub const LEN: usize = 28;

    /// The bytes.
    pub fn encode(&self) -> [u8; Header::LEN] {
        let mut b = [0; Header::LEN];
        b[..8].copy_from_slice(&self.due.0.to_be_bytes());
        b[8..24].copy_from_slice(&self.owner);
        b[24..].copy_from_slice(&self.mount.0.to_be_bytes());
        b
    }

    /// From the bytes.
    pub fn decode(b: &[u8]) -> Result<Header, CodecError> {
        let mut r = Reader::new(b);
        let due = Wall(r.be64()?);
        let owner = r.raw(16)?.try_into().map_err(|_| CodecError::Truncated)?;
        let mount = MountId(r.be32()?);
        r.end()?;
        Ok(Header { due, owner, mount })
    }

    /// True if the time is past.
    pub fn is_due(&self, now: Wall) -> bool {
        self.due.0 != 0 && self.due <= now
    }
}

/// A token.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TokenEntry {
    /// Service or batch.
    pub kind: TokenKind,
    /// Namespace it was made in.
    pub ns: NsId,
    /// Mount that issued it (the token mount for `auth/token/create`).
    pub mount: MountId,
    /// 24 characters; empty for a batch token.
    pub accessor: String,
    /// Hash of the parent; `None` for an orphan.
    pub parent: Option<Hash>,
    /// Sorted, lower case.
    pub policies: Vec<String>,
    /// `auth/userpass/login/bob`.
    pub path: String,
    /// `None` prints as null: never set.
    pub meta: Option<BTreeMap<String, String>>,
    /// `userpass-bob`.
    pub display_name: String,
    /// Uses left; 0 = unlimited; negative = spent, the last request is under way.
    pub num_uses: i64,
    /// When it was made, log time.
    pub created: Wall,
    /// Seconds given at creation; 0 = never expires.
    pub creation_ttl: u64,
    /// When it ends; zero = never.
    pub due: Wall,
    /// Seconds; 0 = none.
    pub explicit_max_ttl: u64,
    /// Seconds; 0 = not periodic.
    pub period: u64,
    /// Longest life by the role at login, seconds; 0 = none.
    pub max_ttl: u64,
    /// May be renewed.
    pub renewable: bool,
    /// Log time of the last renewal; zero = never renewed.
    pub last_renewal: Wall,
    /// Entity, or empty.
    pub entity_id: String,
    /// Where it may be used from.
    pub bound_cidrs: Vec<String>,
    /// Token role, or the role of the login; for renewal and cut-offs.
    pub role: String,
    /// No `default` policy (affects nothing later; kept for audit).
    pub no_default_policy: bool,
    /// Number of mass revocations that had been committed when it was made ([`crate::lease::tombstone::era`]): a
    /// cut-off or tombstone of a later era covers it. An era is exact where an index is not: a Txn does not know the
    /// index at which it will be committed, and a batch token is never committed at all.
    pub era: u64,
    /// Ancestors above it, orphans' forgotten ones included; bounded, see [`MAX_DEPTH`].
    pub depth: u32,
    /// JSON text that the auth method kept for renewal; empty = none.
    pub internal: String,
}

impl TokenEntry {
    /// The clear header of the row.
    pub fn header(&self) -> Header {
        Header { due: self.due, owner: self.parent.unwrap_or_default(), mount: self.mount }
    }

    /// True if the token holds the root policy.
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|p| p == "root")
    }

    /// True if its time is past.
    pub fn is_expired(&self, now: Wall) -> bool {
        self.due.0 != 0 && self.due <= now
    }

    /// When it ends; `None` for a token that never expires.
    pub fn end(&self) -> Option<Wall> {
        (self.due.0 != 0).then_some(self.due)
    }

    /// Seconds left, rounded to the nearest; 0 for a token that never expires.
    pub fn ttl_left(&self, now: Wall) -> u64 {
        if self.due.0 == 0 { 0 } else { (self.due.since(now) + 500_000_000) / 1_000_000_000 }
    }

    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let entity = pack_uuid(&self.entity_id);
        let plain_due = self.creation_ttl > 0 && self.due == self.created.plus_seconds(self.creation_ttl);
        let on = |yes: bool, bit: u8| if yes { bit } else { 0 };
        let flags = on(self.kind == TokenKind::Batch, flag::BATCH)
            | on(self.parent.is_some(), flag::PARENT)
            | on(self.meta.is_some(), flag::META)
            | on(self.renewable, flag::RENEWABLE)
            | on(self.no_default_policy, flag::NO_DEFAULT)
            | on(entity.is_some(), flag::UUID_ENTITY)
            | on(plain_due, flag::PLAIN_DUE);
        w.u8(VERSION).u8(flags).num(self.ns.0.into()).num(self.mount.0.into()).text(&self.accessor);
        if let Some(p) = &self.parent {
            w.raw(p);
        }
        texts(&mut w, &self.policies);
        w.text(&self.path);
        if let Some(meta) = &self.meta {
            w.num(meta.len() as u64);
            for (k, v) in meta {
                w.text(k).text(v);
            }
        }
        // zigzag: the count can be negative for a moment
        w.text(&self.display_name).num(((self.num_uses << 1) ^ (self.num_uses >> 63)) as u64);
        w.num(self.created.0).num(self.creation_ttl);
        if !plain_due {
            w.num(self.due.0);
        }
        w.num(self.explicit_max_ttl).num(self.period).num(self.max_ttl).num(self.last_renewal.0);
        match &entity {
            Some(uuid) => w.raw(uuid),
            None => w.text(&self.entity_id),
        };
        texts(&mut w, &self.bound_cidrs);
        w.text(&self.role).num(self.era).num(self.depth.into()).text(&self.internal);
        w.finish()
    }

    /// From the bytes.
    ///
    /// # Errors
    /// Any [`CodecError`]; a body of a later version is `BadTag`.
    pub fn decode(bytes: &[u8]) -> Result<TokenEntry, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => return Err(CodecError::BadTag(other)),
        }
        let flags = r.u8()?;
        if flags & !flag::ALL != 0 {
            return Err(CodecError::BadTag(flags));
        }
        let has = |bit: u8| flags & bit != 0;
        let kind = if has(flag::BATCH) { TokenKind::Batch } else { TokenKind::Service };
        let ns = NsId(r.num32()?);
        let mount = MountId(r.num32()?);
        let accessor = r.text(MAX_TEXT)?.to_owned();
        let parent = match has(flag::PARENT) {
            false => None,
            true => Some(r.raw(16)?.try_into().map_err(|_| CodecError::Truncated)?),
        };
        let policies = read_texts(&mut r)?;
        let path = r.text(MAX_TEXT)?.to_owned();
        let meta = match has(flag::META) {
            false => None,
            true => {
                let mut m = BTreeMap::new();
                for _ in 0..count(&mut r)? {
                    let k = r.text(MAX_TEXT)?.to_owned();
                    m.insert(k, r.text(MAX_TEXT)?.to_owned());
                }
                Some(m)
            }
        };
        let display_name = r.text(MAX_TEXT)?.to_owned();
        let zigzag = r.num()?;
        let num_uses = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let (created, creation_ttl) = (Wall(r.num()?), r.num()?);
        let due = if has(flag::PLAIN_DUE) { created.plus_seconds(creation_ttl) } else { Wall(r.num()?) };
        let entry = TokenEntry {
            kind,
            ns,
            mount,
            accessor,
            parent,
            policies,
            path,
            meta,
            display_name,
            num_uses,
            created,
            creation_ttl,
            due,
            explicit_max_ttl: r.num()?,
            period: r.num()?,
            max_ttl: r.num()?,
            last_renewal: Wall(r.num()?),
            entity_id: match has(flag::UUID_ENTITY) {
                true => unpack_uuid(r.raw(16)?),
                false => r.text(MAX_TEXT)?.to_owned(),
            },
            bound_cidrs: read_texts(&mut r)?,
            role: r.text(MAX_TEXT)?.to_owned(),
            era: r.num()?,
            depth: r.num32()?,
            internal: r.text(1 << 20)?.to_owned(),
            renewable: has(flag::RENEWABLE),
            no_default_policy: has(flag::NO_DEFAULT),
        };
        r.end()?;
        Ok(entry)
    }
}

/// A UUID in its one canonical text form as 16 bytes; any other text is `None`.
fn pack_uuid(text: &str) -> Option<[u8; 16]> {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    let bytes: [u8; 16] = hex::decode(&bare).ok()?.try_into().ok()?;
    (unpack_uuid(&bytes) == text).then_some(bytes)
}

fn unpack_uuid(bytes: &[u8]) -> String {
    let mut text = hex::encode(bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

fn texts(w: &mut Writer, list: &[String]) {
    w.num(list.len() as u64);
    for s in list {
        w.text(s);
    }
}

fn count(r: &mut Reader<'_>) -> Result<u64, CodecError> {
    let n = r.num()?;
    if n > MAX_ITEMS { Err(CodecError::TooLong) } else { Ok(n) }
}

fn read_texts(r: &mut Reader<'_>) -> Result<Vec<String>, CodecError> {
    (0..count(r)?).map(|_| Ok(r.text(MAX_TEXT)?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> TokenEntry {
        TokenEntry {
            kind: TokenKind::Service,
            ns: NsId(3),
            mount: MountId(9),
            accessor: "abc".into(),
            parent: Some([7; 16]),
            policies: vec!["default".into(), "dev".into()],
            path: "auth/userpass/login/bob".into(),
            meta: Some([("username".to_owned(), "bob".to_owned())].into()),
            display_name: "userpass-bob".into(),
            num_uses: -1,
            created: Wall(1),
            creation_ttl: 3600,
            due: Wall(2),
            explicit_max_ttl: 0,
            period: 0,
            max_ttl: 7,
            renewable: true,
            last_renewal: Wall(0),
            entity_id: "e".into(),
            bound_cidrs: vec!["127.0.0.0/8".into()],
            role: "r".into(),
            no_default_policy: false,
            era: 5,
            depth: 1,
            internal: "{}".into(),
        }
    }

    #[test]
    fn a_token_survives_its_codec() {
        let t = sample();
        assert_eq!(TokenEntry::decode(&t.encode()), Ok(t.clone()));
        let h = t.header();
        assert_eq!(Header::decode(&h.encode()), Ok(h));
    }

    #[test]
    fn short_forms_give_back_the_same() {
        let uuid = "0123abcd-0000-4000-8000-0123456789ab";
        for (entity, due) in [(uuid, 3_600_000_000_001), ("0123ABCD-0000-4000-8000-0123456789ab", 7), ("", 0)] {
            let t = TokenEntry { entity_id: entity.into(), due: Wall(due), ..sample() };
            assert_eq!(TokenEntry::decode(&t.encode()), Ok(t.clone()));
        }
        let short = TokenEntry { entity_id: uuid.into(), due: Wall(3_600_000_000_001), ..sample() };
        let long = TokenEntry { entity_id: format!("{}X", &uuid[..35]), due: Wall(3_600_000_000_002), ..sample() };
        assert!(short.encode().len() + 20 < long.encode().len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(b: Vec<u8>) {
            let _ = TokenEntry::decode(&b);
            let _ = Header::decode(&b);
        }

        #[test]
        fn a_flipped_byte_is_never_a_panic(at in 0usize..100, x: u8) {
            let mut b = sample().encode();
            let at = at % b.len();
            b[at] ^= x;
            let _ = TokenEntry::decode(&b);
        }
    }
}
