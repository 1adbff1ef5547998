//! The user's snapshot file in Vault's container: a gzip of a tar with `meta.json`, `state.bin`, `SHA256SUMS` and
//! `SHA256SUMS.sealed`, in that order. The entries of `state.bin` are ours: key and sealed record, length-prefixed.
//!
//! A [`Job`] is built outside the cores from an immutable version; nothing in it is plaintext. It carries one key use
//! only: the sealing of the checksums.

use crate::owner::{Level, Owner, OwnerOut, ShardId};
use crate::restage::{self, Staging};
use crate::shard::Ticket;
use ringfence_barrier::{BlobPurpose, SealConfig, Unsealed};
use ringfence_base::{Code, Entropy, Writer, limit};
use ringfence_crypto::{Sha256, sha256};
use ringfence_logical::{Error, OwnerOp, SideResult};
use ringfence_store::{Image, Version};
use ringfence_vault::lease::tombstone;
use ringfence_vault::tables::{ADOPT, ERA_FLOOR, NODE, STAGED};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Bound;
use std::sync::Arc;

/// Begins `state.bin`.
const MAGIC: &[u8; 8] = b"RFSNAP\x00\x01";

/// Largest `state.bin`, bytes: an archive that unpacks to more than any node holds is not read to its end.
const MAX_STATE_BYTES: u64 = 64 << 30;
/// Largest other member, bytes. Source: Vault's limit.
const MAX_SMALL_BYTES: u64 = 8192;

/// Keys and sealed records in key order.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// A snapshot to be written.
pub struct Job {
    version: Version,
    node_id: String,
    address: String,
    term: u64,
    unsealed: Unsealed,
    /// Drawn beforehand: the pool has no randomness of its own.
    noise: [u8; 64],
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job(snapshot at {})", self.version.index())
    }
}

/// Gives out the noise drawn beforehand; one use.
struct Drawn<'n>(&'n [u8; 64], usize);

impl Entropy for Drawn<'_> {
    fn fill(&mut self, buf: &mut [u8]) {
        ringfence_base::invariant!(self.1 + buf.len() <= self.0.len(), "a snapshot draws one nonce");
        buf.copy_from_slice(&self.0[self.1..self.1 + buf.len()]);
        self.1 += buf.len();
    }
}

/// Builds the archive. Called outside the cores.
pub fn build(job: &Job) -> SideResult {
    match try_build(job) {
        Ok(bytes) => SideResult::Bytes(Arc::new(bytes)),
        Err(e) => SideResult::Failed(format!("snapshot: {e}")),
    }
}

fn try_build(job: &Job) -> std::io::Result<Vec<u8>> {
    let v = &job.version;
    let mut w = Writer::over(MAGIC.to_vec());
    w.num(v.len());
    for (key, value) in v.scan(Bound::Unbounded, Bound::Unbounded) {
        w.bytes(key).bytes(value);
    }
    let state = w.finish();
    let meta = serde_json::to_vec(&json!({
        "Version": 1, "ID": "ringfence-snapshot", "Index": v.index().0, "Term": job.term, "Peers": "",
        "Configuration": {"Servers": [{"Suffrage": 0, "ID": job.node_id, "Address": job.address}]},
        "ConfigurationIndex": 0, "Size": state.len(),
    }))?;
    let sums = sums_of(&meta, &sha256(&state));
    let sealed = job.unsealed.seal_blob(BlobPurpose::SnapshotSums, sums.as_bytes(), &mut Drawn(&job.noise, 0));
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, bytes) in [
        ("meta.json", &meta[..]),
        ("state.bin", &state[..]),
        ("SHA256SUMS", sums.as_bytes()),
        ("SHA256SUMS.sealed", &sealed[..]),
    ] {
        let mut h = tar::Header::new_gnu();
        h.set_size(bytes.len() as u64);
        h.set_mode(0o600);
        h.set_mtime(v.log_time().seconds());
        h.set_cksum();
        tar.append_data(&mut h, name, bytes)?;
    }
    let mut gz = tar.into_inner()?;
    gz.flush()?;
    gz.finish()
}

/// An archive taken apart and checked against its own sums, in the pool.
#[derive(Debug)]
pub struct Unpacked {
    entries: Records,
    sums: Vec<u8>,
    sealed: Vec<u8>,
    force: bool,
}

/// Takes an archive apart. Called outside the cores; any bytes are safe.
///
/// # Errors
/// What the client is told.
pub fn unpack(archive: &[u8], force: bool) -> Result<Unpacked, String> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut state = None;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let broken = |e: std::io::Error| format!("failed to read the snapshot: {e}");
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.display().to_string();
        let limit = match name.as_str() {
            "state.bin" => {
                // by far the largest: its records are made as it is read, so that it is never there twice
                let mut hashed = Hashed { inner: entry.by_ref().take(MAX_STATE_BYTES), hash: Sha256::default() };
                let entries =
                    read_state(&mut hashed).map_err(|e| format!("the snapshot's state cannot be read: {e}"))?;
                state = Some((entries, hashed.hash.finish()));
                continue;
            }
            "meta.json" | "SHA256SUMS" | "SHA256SUMS.sealed" => MAX_SMALL_BYTES,
            _ => return Err(format!("unexpected file {name:?} in snapshot")),
        };
        let mut bytes = Vec::new();
        entry.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 > limit {
            return Err(format!("file {name:?} of the snapshot is too large"));
        }
        files.insert(name, bytes);
    }
    let mut take =
        |name: &str| files.remove(name).ok_or_else(|| format!("incomplete snapshot, unable to read {name} file"));
    let meta = take("meta.json")?;
    let (entries, state_sum) = state.ok_or("incomplete snapshot, unable to read state.bin file")?;
    let (sums, sealed) = (take("SHA256SUMS")?, take("SHA256SUMS.sealed")?);
    if sums != sums_of(&meta, &state_sum).as_bytes() {
        return Err("the snapshot is damaged: its checksums do not match its contents".into());
    }
    Ok(Unpacked { entries, sums, sealed, force })
}

/// Passes bytes on and hashes them.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}

/// A number as the codec writes it: seven bits a byte, the least first, in the shortest form.
fn read_num(r: &mut impl Read) -> Result<u64, String> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        r.read_exact(&mut byte).map_err(|e| e.to_string())?;
        let b = byte[0];
        if shift == 63 && b > 1 || b == 0 && shift > 0 {
            return Err("not a number".into());
        }
        v |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            return Ok(v);
        }
    }
    Err("not a number".into())
}

/// Bytes with their length before them. Room is made as they come, not as the length promises.
fn read_bytes(r: &mut impl Read, most: usize) -> Result<Vec<u8>, String> {
    let n = read_num(r)?;
    if n > most as u64 {
        return Err("a key or record is too long".into());
    }
    let mut bytes = Vec::new();
    r.take(n).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 == n { Ok(bytes) } else { Err("it ends too early".into()) }
}

fn read_state(state: &mut impl Read) -> Result<Records, String> {
    let mut r = std::io::BufReader::with_capacity(1 << 16, state);
    let mut magic = [0; MAGIC.len()];
    if r.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err("it is not of this product and format".into());
    }
    let count = read_num(&mut r)?;
    let mut entries = Records::new();
    for _ in 0..count {
        let key = read_bytes(&mut r, limit::MAX_KEY_BYTES)?;
        let value = read_bytes(&mut r, limit::MAX_VALUE_BYTES)?;
        if entries.last().is_some_and(|(last, _)| *last >= key) {
            return Err("keys out of order".into());
        }
        entries.push((key, value));
    }
    match r.read(&mut [0]) {
        Ok(0) => Ok(entries),
        _ => Err("something follows the last record".into()),
    }
}

/// A restore under way. Alone: the image that is to replace the present one, once its checkpoint is durable. With other
/// nodes: what goes through the log.
pub(crate) struct Restore {
    pub(crate) asker: (ShardId, Ticket),
    entries: Records,
    by_our_key: bool,
    pub(crate) image: Option<Image>,
    pub(crate) staging: Option<Staging>,
}

/// Why no share would ever open an image, as far as that can be told.
fn unopenable(unsealed: Option<&Unsealed>, by_our_key: bool, version: &Version) -> Option<String> {
    match unsealed {
        None => Some("the node was sealed meanwhile".into()),
        Some(u) if by_our_key => u.reopen(version).err().map(|e| e.text()),
        Some(u) => u.check_restorable(version).err().map(|e| e.text()),
    }
}

/// Puts other records in the place of those of a table.
fn replace(entries: &mut Records, table: u8, records: Records) {
    let from = entries.partition_point(|(key, _)| key[..] < [table][..]);
    let to = entries.partition_point(|(key, _)| key[..] < [table + 1][..]);
    entries.splice(from..to, records);
}

/// The text of `SHA256SUMS`.
fn sums_of(meta: &[u8], state_sum: &[u8; 32]) -> String {
    format!("{}  meta.json\n{}  state.bin\n", hex::encode(sha256(meta)), hex::encode(state_sum))
}

impl Owner {
    pub(crate) fn snapshot(
        &mut self,
        shard: ShardId,
        ticket: Ticket,
        op: OwnerOp,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let refused = |e| OwnerOut::OperateDone(shard, ticket, SideResult::Refused(e));
        let Some(job) = self.snapshot_job(rng) else {
            return out.push(refused(Error::new(Code::Unavailable, "Vault is sealed")));
        };
        out.push(match op {
            OwnerOp::SnapshotRestore { archive, force } => OwnerOut::Unpack(shard, ticket, archive, force),
            OwnerOp::SnapshotKeep(_) => refused(Error::invalid("snapshots are kept by schedule only")),
            _ => OwnerOut::Snapshot(shard, ticket, Box::new(job)),
        });
    }

    /// A snapshot of the image as it is now; `None` while the node is sealed.
    pub(crate) fn snapshot_job(&mut self, rng: &mut dyn Entropy) -> Option<Job> {
        let unsealed = self.unsealed().cloned()?;
        let mut noise = [0; 64];
        rng.fill(&mut noise);
        Some(Job {
            version: self.version.clone(),
            node_id: self.config.node_id.clone(),
            address: self.config.cluster_addr.clone(),
            term: self.raft_status().map_or(0, |s| s.role.term.0),
            unsealed,
            noise,
        })
    }

    /// The archive was taken apart: if our seal made it (or the operator insists), it becomes the image as soon as
    /// nothing is in flight. Until then writes are told to try again.
    pub(crate) fn unpacked(
        &mut self,
        shard: ShardId,
        ticket: Ticket,
        unpacked: Result<Unpacked, String>,
        out: &mut Vec<OwnerOut>,
    ) {
        let refuse = |e: Error, out: &mut Vec<OwnerOut>| {
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Refused(e)));
        };
        let u = match unpacked {
            Ok(u) => u,
            Err(why) => return refuse(Error::invalid(why), out),
        };
        let Some(unsealed) = self.unsealed() else {
            return refuse(Error::new(Code::Unavailable, "Vault is sealed"), out);
        };
        let sealed_sums = unsealed.open_blob(BlobPurpose::SnapshotSums, &u.sealed);
        let ours = sealed_sums.as_ref().is_ok_and(|plain| plain[..] == u.sums[..]);
        if !ours && !u.force {
            return refuse(
                Error::invalid(
                    "could not verify hash file, possibly the snapshot is using a different set of unseal keys; use \
                     the snapshot-force API to bypass this check",
                ),
                out,
            );
        }
        if self.restore.is_some() {
            return refuse(Error::invalid("another restore is under way"), out);
        }
        // made under our unseal key, whatever became of its contents: then that key must open them
        let by_our_key = sealed_sums.is_ok();
        self.restore =
            Some(Restore { asker: (shard, ticket), entries: u.entries, by_our_key, image: None, staging: None });
        self.restore_step(out);
    }

    /// Goes on with a restore when the log is quiet and no checkpoint is being written.
    pub(crate) fn restore_step(&mut self, out: &mut Vec<OwnerOut>) {
        let nodes: Records = crate::members::all(&self.version)
            .into_iter()
            .map(|(id, record)| (crate::members::key(id), record.encode()))
            .collect();
        let quiet = self.waiting_count() == 0;
        let (index, log_time) = (self.version.index(), self.version.log_time());
        let alone = self.is_lone_voter() && nodes.len() <= 1;
        let begins = |r: &&mut Restore| quiet && r.image.is_none() && r.staging.is_none();
        let Some(r) = self.restore.as_mut().filter(begins) else { return };
        let mut entries = std::mem::take(&mut r.entries);
        let restored = entries.iter().find(|(key, _)| key[..] == [ERA_FLOOR]).map(|(_, floor)| floor.clone());
        let floor = tombstone::floor_of_restore(self.version.get(&[ERA_FLOOR]), restored.as_deref(), log_time);
        let Some(floor) = floor else {
            let asker = r.asker;
            self.restore = None;
            let e =
                Error::invalid("the snapshot cannot be restored, nothing was changed: its floor of eras is damaged");
            out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Refused(e)));
            return;
        };
        // an archive that was written while another came in
        replace(&mut entries, STAGED, Records::new());
        replace(&mut entries, ADOPT, Records::new());
        // who the nodes are is of this cluster's present, not of the snapshot's past
        replace(&mut entries, NODE, nodes);
        // batch tokens of before die, and no era comes a second time
        replace(&mut entries, ERA_FLOOR, vec![(vec![ERA_FLOOR], floor.to_be_bytes().to_vec())]);
        match Image::from_sorted(entries, index, log_time) {
            Ok(mut image) => {
                let version = image.publish();
                if !matches!(SealConfig::load(&version), Ok(Some(_))) {
                    // no share could ever open it
                    let asker = r.asker;
                    self.restore = None;
                    let e = Error::invalid("the snapshot holds no seal configuration");
                    out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Refused(e)));
                    return;
                }
                let asker = r.asker;
                if let Some(why) = unopenable(self.seal.unsealed.as_ref(), r.by_our_key, &version) {
                    // found out now, while the present data still stands
                    self.restore = None;
                    let e = Error::invalid(format!("the snapshot's keys cannot be read, nothing was changed: {why}"));
                    out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Refused(e)));
                    return;
                }
                if alone {
                    r.image = Some(image);
                    self.checkpoint_restored(version, out);
                    return;
                }
                if !restage::is_stageable(&version) {
                    let e = Error::invalid("a key of the snapshot is too long to be restored in a cluster");
                    return self.give_restore_up(e, out);
                }
                out.push(OwnerOut::Log(Level::Info, "a snapshot goes to all nodes through the log".into()));
                r.staging = Some(Staging::new(version));
                self.stage_step(out);
            }
            Err(_) => {
                let asker = r.asker;
                self.restore = None;
                let e = Error::internal("a snapshot that was checked is out of order");
                out.push(OwnerOut::OperateDone(asker.0, asker.1, SideResult::Refused(e)));
            }
        }
    }

    /// The restored image is durable: it takes effect. The keyring in it is opened by the unseal key held; if that
    /// does not open it, the node seals and waits for the keys of the snapshot's cluster.
    pub(crate) fn restored(&mut self, made: bool, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(Restore { asker: (shard, ticket), image, .. }) = self.restore.take() else { return };
        let (true, Some(image)) = (made, image) else {
            let e = Error::new(Code::NoRoom, "the restored data could not be written; the present data is unchanged");
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Refused(e)));
            return;
        };
        let reopened = self.adopt_image(image);
        out.push(OwnerOut::Log(Level::Info, "a snapshot was restored".into()));
        if !reopened {
            out.push(OwnerOut::Log(
                Level::Warn,
                "the snapshot is sealed by other keys: unseal with the keys of its cluster".into(),
            ));
        }
        // who is told that the restore is done finds the node open again, or sealed for good
        self.seal_or_reissue(reopened, (shard, ticket), rng, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_no_archive() {
        for bytes in [&b""[..], b"hello", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(unpack(bytes, false).is_err());
        }
        assert!(read_state(&mut &b"nonsense"[..]).is_err());
        assert!(read_state(&mut &[&MAGIC[..], &[200, 200, 200]].concat()[..]).is_err());
        // a count and a length that nothing stands behind make no room
        assert!(read_state(&mut &[&MAGIC[..], &[255, 255, 255, 255, 127]].concat()[..]).is_err());
        assert!(read_state(&mut &[&MAGIC[..], &[1, 255, 127, b'k']].concat()[..]).is_err());
    }
}
