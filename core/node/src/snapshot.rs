//! The user's snapshot file in Vault's container: a gzip of a tar with `meta.json`, `state.bin`, `SHA256SUMS` and
//! `SHA256SUMS.sealed`, in that order. The entries of `state.bin` are ours: key and sealed record, length-prefixed.
//!
//! A [`Job`] is built outside the cores from an immutable version; nothing in it is plaintext. It carries one key use
//! only: the sealing of the checksums.

use crate::owner::{Owner, OwnerOut, ShardId};
use crate::shard::Ticket;
use ringfence_barrier::{BlobPurpose, Unsealed};
use ringfence_base::{Code, Entropy, Writer};
use ringfence_crypto::sha256;
use ringfence_logical::{Error, OwnerOp, SideResult};
use ringfence_store::Version;
use serde_json::json;
use std::io::Write;
use std::ops::Bound;
use std::sync::Arc;

/// Begins `state.bin`.
const MAGIC: &[u8; 8] = b"RFSNAP\x00\x01";

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
    let sums = format!("{}  meta.json\n{}  state.bin\n", hex::encode(sha256(&meta)), hex::encode(sha256(&state)));
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

impl Owner {
    pub(crate) fn snapshot(
        &mut self,
        shard: ShardId,
        ticket: Ticket,
        op: OwnerOp,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let Some(unsealed) = self.unsealed().cloned() else {
            let e = Error::new(Code::Unavailable, "Vault is sealed");
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Refused(e)));
            return;
        };
        if let OwnerOp::SnapshotRestore { .. } = op {
            let e = Error::invalid("restoring a snapshot is not served yet; the data was not touched");
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Refused(e)));
            return;
        }
        let mut noise = [0; 64];
        rng.fill(&mut noise);
        let job = Job {
            version: self.version.clone(),
            node_id: self.config.node_id.clone(),
            address: self.config.cluster_addr.clone(),
            term: self.raft_status().map_or(0, |s| s.role.term.0),
            unsealed,
            noise,
        };
        out.push(OwnerOut::Snapshot(shard, ticket, Box::new(job)));
    }
}
