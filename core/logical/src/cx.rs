//! The context of a handler: one transaction, scoped to the mount, and what the machine tells of caller and time.
//!
//! Keys of a mount: `[0x80][mount number, 4 bytes BE][area byte][suffix]`. An area is the engine's own division
//! (configuration, metadata, versions); a suffix is usually a path. Values are sealed by the transaction.

use crate::error::Error;
use crate::memo::Memo;
use crate::request::{MountInfo, Request};
use ringfence_barrier::Txn;
use ringfence_base::{Entropy, MountId, NsId, Secret, Wall};
use ringfence_crypto::TAG_BYTES;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Table number of the data of mounts.
pub const MOUNT_DATA: u8 = 0x80;

/// Table number of cubbyholes: `[0x82][mount number, 4 bytes BE][keyed hash of the token][path]`, JSON objects.
pub const CUBBYHOLE: u8 = 0x82;

/// Table number of the jobs that engines scheduled: `[0x83][mount number, 4 bytes BE][job]`, with a clear header that
/// holds the due time.
pub const JOB: u8 = 0x83;

/// Who makes the request, after the token was verified.
#[derive(Clone, Debug, Default)]
pub struct Principal {
    /// Keyed hash of the token id (all zero for a batch token).
    pub token_hash: [u8; 16],
    /// Accessor; empty for a batch token.
    pub accessor: String,
    /// Display name.
    pub display_name: String,
    /// Entity, or empty.
    pub entity_id: String,
    /// Policies of the token itself.
    pub token_policies: Vec<String>,
    /// Policies of entity and groups.
    pub identity_policies: Vec<String>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// A batch token.
    pub is_batch: bool,
    /// Holds the root policy.
    pub is_root: bool,
    /// The policies granted sudo for this request.
    pub sudo: bool,
}

/// Services of the machine that an engine may use. The vault floor implements it; its own handlers reach their wider
/// services by `as_any`.
pub trait Host {
    /// For the vault's own handlers.
    fn as_any(&self) -> &dyn Any;

    /// Checks a client address against `a.b.c.d/n` texts; an empty list allows all.
    fn cidr_allows(&self, cidrs: &[String], remote: Option<std::net::IpAddr>) -> bool {
        crate::cx::cidr_allows(cidrs, remote)
    }

    /// The text of a password policy (HCL) of the mount's namespace; `None` if there is none of this name.
    fn password_policy(&self, _txn: &mut Txn<'_>, _ns: NsId, _name: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// A hash keyed by the keyring, under which a secret name (a secret-id, an accessor) may stand in a readable key.
    /// `kind` separates families of names; equal names of one kind give equal hashes, on every node and in every term.
    fn keyed_hash(&self, kind: &str, bytes: &[u8]) -> [u8; 16];

    /// Fills `{{identity...}}` in a text from an entity; `None` if it names what the entity has not, or nobody has.
    fn fill_template(&self, _txn: &mut Txn<'_>, _entity_id: &str, _text: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// What this core keeps of decoded records, if it keeps any.
    fn memo(&self) -> Option<&Memo> {
        None
    }
}

/// The context of a handler.
pub struct Cx<'a, 't> {
    /// The transaction.
    pub txn: &'a mut Txn<'t>,
    /// The mount that serves the request.
    pub mount: &'a MountInfo,
    /// The request.
    pub req: &'a Request,
    /// The caller; `None` on public paths.
    pub principal: Option<&'a Principal>,
    /// Log time: what every expiry check uses and every stored date takes.
    pub now: Wall,
    /// Randomness.
    pub rng: &'a mut dyn Entropy,
    /// The machine's services.
    pub host: &'a dyn Host,
}

impl Cx<'_, '_> {
    /// The key of a suffix in an area of this mount.
    pub fn key(&self, area: u8, suffix: &[u8]) -> Vec<u8> {
        mount_key(self.mount.id, area, suffix)
    }

    /// Reads and opens a record.
    pub fn get(&mut self, area: u8, suffix: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = self.key(area, suffix);
        Ok(self.txn.get(&key)?.map(|p| p.bytes))
    }

    /// Reads a record that holds JSON.
    pub fn get_json<T: serde::de::DeserializeOwned>(&mut self, area: u8, suffix: &[u8]) -> Result<Option<T>, Error> {
        match self.get(area, suffix)? {
            None => Ok(None),
            Some(b) => {
                serde_json::from_slice(&b).map(Some).map_err(|e| Error::internal(format!("stored record: {e}")))
            }
        }
    }

    /// Reads a record in decoded form. The core keeps what `decode` made and gives it out again for as long as the very
    /// same sealed record stands in the image, whose tag no other record has: hot engines neither open nor parse it
    /// anew. The record is in the read set either way. Of one area of a mount no more than `most` are kept, which is
    /// asked when something is to be kept.
    pub fn decoded<T: Any + Send + Sync>(
        &mut self,
        area: u8,
        suffix: &[u8],
        most: fn(&mut Cx<'_, '_>) -> Result<usize, Error>,
        decode: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<Option<Arc<T>>, Error> {
        let key = self.key(area, suffix);
        // what this transaction itself wrote is not in the image yet
        let standing = if self.txn.is_read_only() { self.txn.view().get(&key) } else { None };
        let tag: Option<[u8; TAG_BYTES]> = standing.and_then(|r| r.last_chunk()).copied();
        if let (Some(memo), Some(tag)) = (self.host.memo(), &tag)
            && let Some(known) = memo.find(&key, tag)
        {
            self.txn.guard(&key);
            return Ok(Some(known));
        }
        let Some(plain) = self.txn.get(&key)? else { return Ok(None) };
        let bytes = Secret::new(plain.bytes);
        let made = Arc::new(decode(bytes.expose())?);
        if let (Some(_), Some(tag)) = (self.host.memo(), tag) {
            let most = most(self)?;
            let area = key.len() - suffix.len();
            if let Some(memo) = self.host.memo() {
                memo.keep(key, area, most, tag, made.clone());
            }
        }
        Ok(Some(made))
    }

    /// Writes a record; it is sealed when the transaction finishes.
    pub fn put(&mut self, area: u8, suffix: &[u8], value: &[u8]) {
        let key = self.key(area, suffix);
        self.txn.put(key, &[], value);
    }

    /// Writes a record that holds JSON.
    pub fn put_json<T: serde::Serialize>(&mut self, area: u8, suffix: &[u8], value: &T) {
        let bytes = serde_json::to_vec(value).expect("a plain record always serialises");
        self.put(area, suffix, &bytes);
    }

    /// Deletes a record.
    pub fn delete(&mut self, area: u8, suffix: &[u8]) {
        let key = self.key(area, suffix);
        self.txn.delete(&key);
    }

    /// Tells whether a record exists, without opening it.
    pub fn exists(&mut self, area: u8, suffix: &[u8]) -> bool {
        let key = self.key(area, suffix);
        self.txn.exists(&key)
    }

    /// One level of names below a prefix that is empty or ends in `/`: leaves, and folders with a slash, in byte
    /// order, after `after`, at most `limit` (0 = all).
    pub fn list(&mut self, area: u8, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, Error> {
        let key = self.key(area, prefix.as_bytes());
        let after = (!after.is_empty()).then_some(after);
        Ok(self.txn.list_children_page(&key, after, unlimited(limit))?)
    }

    /// Every suffix below a prefix, in byte order, at most `limit` (0 = all).
    pub fn scan_keys(&mut self, area: u8, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, Error> {
        let key = self.key(area, prefix.as_bytes());
        let after_key = (!after.is_empty()).then(|| self.key(area, format!("{prefix}{after}").as_bytes()));
        let keys = self.txn.list(&key, after_key.as_deref(), unlimited(limit));
        Ok(keys.into_iter().map(|k| String::from_utf8_lossy(&k[key.len()..]).into_owned()).collect())
    }

    /// Has the engine's [`due`](crate::Engine::due) called for this job at (or soon after) a time, on the active node,
    /// in a transaction of its own. One time a job: the latest call counts.
    pub fn schedule(&mut self, job: &str, at: Wall) {
        self.txn.put(job_key(self.mount.id, job), &job_header(self.mount.id, at), &[]);
    }

    /// Forgets a job.
    pub fn unschedule(&mut self, job: &str) {
        let key = job_key(self.mount.id, job);
        if self.txn.exists(&key) {
            self.txn.delete(&key);
        }
    }

    /// The caller, who must be there.
    pub fn caller(&self) -> Result<&Principal, Error> {
        self.principal.ok_or_else(Error::denied_plain)
    }
}

/// The API's `limit`: 0 means all.
pub fn unlimited(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// The key of a suffix in an area of a mount.
pub fn mount_key(mount: MountId, area: u8, suffix: &[u8]) -> Vec<u8> {
    let mut k = Vec::with_capacity(6 + suffix.len());
    k.push(MOUNT_DATA);
    k.extend_from_slice(&mount.0.to_be_bytes());
    k.push(area);
    k.extend_from_slice(suffix);
    k
}

/// The key of a job; an empty name gives the prefix of a mount's jobs.
pub fn job_key(mount: MountId, job: &str) -> Vec<u8> {
    let mut k = Vec::with_capacity(5 + job.len());
    k.push(JOB);
    k.extend_from_slice(&mount.0.to_be_bytes());
    k.extend_from_slice(job.as_bytes());
    k
}

/// The clear header of a job's record, laid out as that of a lease: due time, no owner, mount.
pub fn job_header(mount: MountId, at: Wall) -> [u8; 28] {
    let mut h = [0; 28];
    h[..8].copy_from_slice(&at.0.to_be_bytes());
    h[24..].copy_from_slice(&mount.0.to_be_bytes());
    h
}

/// The key of a cubbyhole entry; an empty path gives the prefix of a token's whole cubbyhole.
pub fn cubbyhole_key(mount: MountId, token_hash: &[u8; 16], path: &str) -> Vec<u8> {
    let mut k = Vec::with_capacity(21 + path.len());
    k.push(CUBBYHOLE);
    k.extend_from_slice(&mount.0.to_be_bytes());
    k.extend_from_slice(token_hash);
    k.extend_from_slice(path.as_bytes());
    k
}

/// Checks an address against CIDR texts (`10.0.0.0/8`, a bare address is itself); an empty list allows all.
pub fn cidr_allows(cidrs: &[String], remote: Option<std::net::IpAddr>) -> bool {
    if cidrs.is_empty() {
        return true;
    }
    let Some(ip) = remote else { return false };
    cidrs.iter().any(|c| cidr_contains(c, ip).unwrap_or(false))
}

/// True if the text is an address or an address with a prefix length.
pub fn is_cidr(text: &str) -> bool {
    cidr_contains(text, std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)).is_some()
}

fn cidr_contains(text: &str, ip: std::net::IpAddr) -> Option<bool> {
    use std::net::IpAddr;
    let (addr, bits) = match text.split_once('/') {
        Some((a, b)) => (a.parse::<IpAddr>().ok()?, Some(b.parse::<u32>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let ip = match (addr, ip) {
        // a mapped IPv4 client matches IPv4 ranges
        (IpAddr::V4(_), IpAddr::V6(v6)) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        _ => ip,
    };
    match (addr, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            let bits = bits.unwrap_or(32);
            (bits <= 32).then(|| {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                u32::from(net) & mask == u32::from(ip) & mask
            })
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            let bits = bits.unwrap_or(128);
            (bits <= 128).then(|| {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                u128::from(net) & mask == u128::from(ip) & mask
            })
        }
        (IpAddr::V4(_), _) => (bits.unwrap_or(32) <= 32).then_some(false),
        (IpAddr::V6(_), _) => (bits.unwrap_or(128) <= 128).then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs() {
        let ip = |s: &str| Some(s.parse().expect("address"));
        let l = |s: &[&str]| s.iter().map(|x| (*x).to_owned()).collect::<Vec<_>>();
        assert!(cidr_allows(&[], None));
        assert!(!cidr_allows(&l(&["10.0.0.0/8"]), None));
        assert!(cidr_allows(&l(&["10.0.0.0/8"]), ip("10.9.9.9")));
        assert!(!cidr_allows(&l(&["10.0.0.0/8"]), ip("11.0.0.1")));
        assert!(cidr_allows(&l(&["127.0.0.1"]), ip("127.0.0.1")));
        assert!(cidr_allows(&l(&["10.0.0.0/8"]), ip("::ffff:10.1.2.3")));
        assert!(cidr_allows(&l(&["0.0.0.0/0"]), ip("1.2.3.4")));
        assert!(cidr_allows(&l(&["fd00::/8"]), ip("fd00::1")));
        assert!(!cidr_allows(&l(&["fd00::/8"]), ip("10.0.0.1")));
        assert!(is_cidr("10.0.0.0/8") && is_cidr("::1") && !is_cidr("10.0.0.0/33") && !is_cidr("x"));
    }
}
