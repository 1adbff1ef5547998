//! From the files of a data directory to what a node starts again with.
//!
//! ```text
//!   manifest ─────> log read behind it ─────> committed tail, sorted ──┐
//!      └──> chunks, one after another ─────────────────────────────────┴merged──> image at the last commit known
//! ```
//! Driven by whoever holds the files, the server or the simulator. The committed entries go into the image while it is
//! built, in one sorted pass, instead of being applied to it one by one afterwards: building costs a fraction of editing.
//! Only what may still be overturned is left to raft. Nothing is written here, and a place that is damaged is named.

use crate::checkpoint::decode_conf;
use crate::restage::{adopted, is_adoption};
use ringfence_base::{Index, Term};
use ringfence_raft::{self as raft, ConfState};
use ringfence_store::{Batch, Image, Loader, Manifest, Tail};
use ringfence_vault::tables::ADOPT;

/// What a data directory holds after recovery.
pub struct Found {
    /// The cluster the directory belongs to.
    pub(crate) cluster: [u8; 16],
    /// The image at the last index that was committed for certain.
    pub(crate) image: Image,
    /// Term of the entry at the image's index.
    pub(crate) term: Term,
    /// Membership at the image's index.
    pub(crate) conf_state: ConfState,
    /// The newest checkpoint.
    pub(crate) manifest: Option<Manifest>,
    /// Bytes of the entries between it and the image.
    pub(crate) log_bytes: u64,
    /// The log.
    pub(crate) recovered: raft::Recovered,
}

/// Why a directory cannot be started from.
#[derive(Debug)]
pub enum Broken<E> {
    /// A file could not be had.
    Read(E),
    /// The log is damaged.
    Log(raft::Corruption),
    /// Anything else, told for an operator.
    Other(String),
}

/// The files of a data directory.
pub struct Files<'f> {
    /// The cluster that its identity file names.
    pub cluster: [u8; 16],
    /// The manifest of its checkpoint, if one was made.
    pub manifest: Option<Manifest>,
    /// The slots file.
    pub slots: &'f [u8],
    /// All segments of the log, in any order.
    pub segments: Vec<raft::SegmentInput<'f>>,
}

/// Where a checkpoint was made, as raft is told.
///
/// # Errors
/// Its membership cannot be read.
fn place_of(manifest: &Manifest) -> Result<raft::Checkpoint, String> {
    let conf = decode_conf(&manifest.identity.conf_state).map_err(|e| format!("checkpoint: {e}"))?;
    Ok(raft::Checkpoint { index: manifest.index, term: manifest.identity.term, conf })
}

/// The tail up to a restored snapshot that becomes the image, which no last word on a key tells, and what is to be
/// applied after it one by one.
#[expect(clippy::type_complexity, reason = "named by its two parts where it is taken apart")]
fn up_to_adoption<E>(
    recovered: &raft::Recovered,
    base: Index,
) -> Result<(Tail<'_>, Vec<(Index, Option<Batch>)>), Broken<E>> {
    let broken = |index, e| Broken::Other(format!("log entry {index} cannot be decoded: {e}"));
    let (mut tail, mut later) = (Tail::after(base), Vec::new());
    for (index, body) in recovered.committed().filter(|(index, _)| *index > base) {
        let batch = match body.is_empty() {
            true => None,
            false => Some(Batch::decode(body).map_err(|e| broken(index, e))?),
        };
        if !later.is_empty() || batch.as_ref().is_some_and(is_adoption) {
            later.push((index, batch));
        } else if batch.is_some() {
            tail.push(index, body).map_err(|e| broken(index, e))?;
        } else {
            tail.pass(index);
        }
    }
    Ok((tail, later))
}

impl Found {
    /// Set if an unfinished last write was cut off the log.
    pub fn cut(&self) -> Option<&raft::TornTail> {
        self.recovered.cut.as_ref()
    }

    /// The last index of the log.
    pub fn last(&self) -> Index {
        self.recovered.last
    }

    /// Recovers log and image. `chunk` answers the bytes of a chunk file of the checkpoint; it is asked for each once, in
    /// the manifest's order.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing is built of a part.
    pub fn read<E, B: AsRef<[u8]>>(
        files: Files<'_>,
        mut chunk: impl FnMut(u64) -> Result<B, E>,
    ) -> Result<Found, Broken<E>> {
        let Files { cluster, manifest, slots, segments } = files;
        let checkpoint = manifest.as_ref().map(place_of).transpose().map_err(Broken::Other)?;
        let base = checkpoint.as_ref().map_or(Index(0), |c| c.index);
        let input = raft::RecoveryInput { cluster_id: Some(cluster), slots, segments, checkpoint };
        let mut recovered = raft::recover(input).map_err(Broken::Log)?;
        let (mut tail, mut log_bytes) = (Tail::after(base), 0);
        for (index, body) in recovered.committed() {
            log_bytes += body.len() as u64;
            match body.is_empty() {
                true => tail.pass(index),
                // it carried a good checksum: another build wrote it, or memory is broken
                false => tail
                    .push(index, body)
                    .map_err(|e| Broken::Other(format!("log entry {index} cannot be decoded: {e}")))?,
            }
        }
        let later = match tail.touches(ADOPT) {
            false => Vec::new(),
            true => {
                let (before, later) = up_to_adoption(&recovered, base)?;
                tail = before;
                later
            }
        };
        let mut loader = Loader::new(manifest.as_ref(), tail);
        while let Some(id) = loader.wanted() {
            let bytes = chunk(id).map_err(Broken::Read)?;
            loader.push(bytes.as_ref()).map_err(|e| Broken::Other(format!("checkpoint chunk {id}: {e}")))?;
        }
        let mut image = loader.finish().map_err(|e| Broken::Other(format!("checkpoint: {e}")))?;
        for (index, batch) in later {
            match batch {
                None => image.advance(index, image.log_time()),
                Some(batch) => {
                    image.apply(index, &batch);
                    if is_adoption(&batch) {
                        image = adopted(&mut image, index);
                    }
                }
            }
        }
        let raft::Checkpoint { index, term, conf } = recovered.settle().map_err(Broken::Log)?;
        ringfence_base::invariant!(
            image.applied() == index,
            "the image stands at {}, the log at {index}",
            image.applied()
        );
        Ok(Found { cluster, image, term, conf_state: conf, manifest, log_bytes, recovered })
    }
}
