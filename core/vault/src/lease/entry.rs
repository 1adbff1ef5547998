//! The record of a lease: the sealed body, and the clear header that it shares with tokens
//! ([`crate::token::entry::Header`]).
//!
//! The header's due time is when the lease is looked at next: its end, or the next attempt to revoke it. The body
//! keeps its true end.

use crate::tables::Hash;
pub use crate::token::entry::Header;
use ringfence_base::{CodecError, MountId, NsId, Reader, Wall, Writer};

/// Format of the body.
const VERSION: u8 = 1;
const MAX_TEXT: usize = 64 * 1024;
const MAX_INTERNAL: usize = 1 << 20;
/// Failed attempts after which a lease counts as irrevocable. Source: Vault's `maxRevokeAttempts`.
pub const MAX_ATTEMPTS: u8 = 6;
/// An irrevocable lease is tried again once a day.
const IRREVOCABLE_RETRY_SECONDS: u64 = 86_400;

const RENEWABLE: u8 = 1;
const HELD_BY_BATCH: u8 = 1 << 1;

/// A lease of a secret.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LeaseEntry {
    /// Namespace it was made in.
    pub ns: NsId,
    /// The secret type that the engine named.
    pub secret: String,
    /// JSON text of what the engine keeps with it.
    pub internal: String,
    /// Path of the request within the mount.
    pub path: String,
    /// Hash of the token that dies before it; zero = none.
    pub owner: Hash,
    /// End of the batch token that made it; zero = a service token, or none. The lease never outlives it.
    pub batch_due: Wall,
    /// The token was a batch token.
    pub by_batch: bool,
    /// Log time.
    pub issued: Wall,
    /// Its end.
    pub due: Wall,
    /// Zero = never renewed.
    pub last_renewal: Wall,
    /// Seconds given at first.
    pub ttl: u64,
    /// Seconds by the engine; 0 = the mount's.
    pub max_ttl: u64,
    /// May be renewed.
    pub renewable: bool,
    /// Mass revocations it has seen ([`super::tombstone::era`]).
    pub era: u64,
    /// Failed revocations.
    pub attempts: u8,
    /// When to try again; zero = at its end.
    pub retry: Wall,
    /// Why the last revocation failed.
    pub error: String,
}

impl LeaseEntry {
    /// The clear header of the row. A lease that is being revoked waits for its next attempt alone, so it has no owner
    /// there any more.
    pub fn header(&self, mount: MountId) -> Header {
        match self.attempts {
            0 => Header { due: self.due, owner: self.owner, mount },
            _ => Header { due: self.retry, owner: Hash::default(), mount },
        }
    }

    /// True if its time is past.
    pub fn is_expired(&self, now: Wall) -> bool {
        self.due <= now
    }

    /// True after the last attempt.
    pub fn is_irrevocable(&self) -> bool {
        self.attempts >= MAX_ATTEMPTS
    }

    /// Notes a failed revocation: tried again after 1, 2, 4, 8, 16 seconds, then once a day.
    pub fn failed(&mut self, now: Wall, why: &str) {
        self.attempts = self.attempts.saturating_add(1).min(MAX_ATTEMPTS);
        self.error = why.chars().take(1024).collect();
        self.retry = match self.is_irrevocable() {
            true => now.plus_seconds(IRREVOCABLE_RETRY_SECONDS),
            false => now.plus_seconds(1 << (self.attempts - 1)),
        };
        self.due = self.due.min(now);
    }

    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let flags = if self.renewable { RENEWABLE } else { 0 } | if self.by_batch { HELD_BY_BATCH } else { 0 };
        w.u8(VERSION).u8(flags).num(self.ns.0.into()).text(&self.secret).text(&self.internal).text(&self.path);
        w.raw(&self.owner).num(self.batch_due.0).num(self.issued.0).num(self.due.0).num(self.last_renewal.0);
        w.num(self.ttl).num(self.max_ttl).num(self.era).u8(self.attempts).num(self.retry.0).text(&self.error);
        w.finish()
    }

    /// From the bytes.
    ///
    /// # Errors
    /// Any [`CodecError`]; a body of a later version is `BadTag`.
    pub fn decode(bytes: &[u8]) -> Result<LeaseEntry, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => return Err(CodecError::BadTag(other)),
        }
        let flags = r.u8()?;
        if flags & !(RENEWABLE | HELD_BY_BATCH) != 0 {
            return Err(CodecError::BadTag(flags));
        }
        let entry = LeaseEntry {
            ns: NsId(r.num32()?),
            secret: r.text(MAX_TEXT)?.to_owned(),
            internal: r.text(MAX_INTERNAL)?.to_owned(),
            path: r.text(MAX_TEXT)?.to_owned(),
            owner: r.raw(16)?.try_into().map_err(|_| CodecError::Truncated)?,
            batch_due: Wall(r.num()?),
            by_batch: flags & HELD_BY_BATCH != 0,
            issued: Wall(r.num()?),
            due: Wall(r.num()?),
            last_renewal: Wall(r.num()?),
            ttl: r.num()?,
            max_ttl: r.num()?,
            renewable: flags & RENEWABLE != 0,
            era: r.num()?,
            attempts: r.u8()?,
            retry: Wall(r.num()?),
            error: r.text(MAX_TEXT)?.to_owned(),
        };
        r.end()?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> LeaseEntry {
        LeaseEntry {
            ns: NsId(1),
            secret: "creds".into(),
            internal: "{\"user\":\"x\"}".into(),
            path: "creds/web".into(),
            owner: [3; 16],
            batch_due: Wall(9),
            by_batch: true,
            issued: Wall(1),
            due: Wall(5_000_000_000),
            last_renewal: Wall(2),
            ttl: 60,
            max_ttl: 120,
            renewable: true,
            era: 4,
            attempts: 0,
            retry: Wall(0),
            error: String::new(),
        }
    }

    #[test]
    fn a_lease_survives_its_codec() {
        let l = sample();
        assert_eq!(LeaseEntry::decode(&l.encode()), Ok(l));
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let mut l = sample();
        let now = Wall::from_seconds(100);
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                l.failed(now, "no");
                l.header(MountId(1)).due.since(now) / 1_000_000_000
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 86_400, 86_400, 86_400]);
        assert!(l.is_irrevocable());
        assert_eq!(l.header(MountId(1)).owner, [0; 16]);
        assert_eq!(LeaseEntry::decode(&l.encode()), Ok(l));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(b: Vec<u8>, at: usize, x: u8) {
            let _ = LeaseEntry::decode(&b);
            let mut b = sample().encode();
            let at = at % b.len();
            b[at] ^= x;
            let _ = LeaseEntry::decode(&b);
        }
    }
}
