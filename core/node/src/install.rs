//! Taking over a checkpoint that the leader offers in place of log entries it no longer has: the chunks are fetched one
//! by one and checked by the manifest, loaded outside of this core, written again under names of this directory, and
//! only then does the image change.
//!
//! ```text
//!   offer ──> Fetch ──> Chunk ──> Fetch ... ──> Load ──outside──> Loaded ──> checkpoint files ──durable──> image
//! ```
//! The leader's files are not kept as they are: chunk numbers name files of one directory, and two directories number
//! their own. Until the manifest is durable a crash leaves the node as it was before the offer.

use crate::owner::{Level, Owner, OwnerOut};
use crate::peer::PeerMessage;
use bytes::Bytes;
use ringfence_base::{Index, Mono, Term};
use ringfence_raft::{ConfState, SnapshotOffer};
use ringfence_store::{Image, Manifest, stream};

/// A chunk that does not come is asked for again after so long, ns.
const ASK_AGAIN_NS: u64 = 1_000_000_000;

/// All chunks of a checkpoint, to be loaded: seconds of work for a large one, and it needs nothing but itself.
pub struct Loading {
    manifest: Manifest,
    chunks: Vec<Vec<u8>>,
}

impl Loading {
    /// Checks everything and builds the image.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(self) -> Result<Image, String> {
        stream::load(&self.manifest, self.chunks).map_err(|e| e.to_string())
    }
}

impl std::fmt::Debug for Loading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loading(checkpoint at {})", self.manifest.index)
    }
}

/// An image that was loaded outside.
pub struct Loaded(pub Result<Image, String>);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loaded")
    }
}

/// A checkpoint on its way in.
pub(crate) struct Install {
    number: u64,
    from: u64,
    index: Index,
    term: Term,
    conf: ConfState,
    manifest: Manifest,
    chunks: Vec<Vec<u8>>,
    asked: Mono,
    stage: Stage,
}

enum Stage {
    Fetching,
    Loading,
    /// Waits until no other checkpoint is being written.
    Loaded(Image),
    Writing(Image),
}

impl Owner {
    /// The leader offers a checkpoint; a newer offer takes the place of an older one.
    pub(crate) fn install_begin(&mut self, offer: SnapshotOffer, out: &mut Vec<OwnerOut>) {
        let SnapshotOffer { from, checkpoint, manifest } = offer;
        let fits = |m: &Manifest| {
            m.identity.cluster == self.cluster && m.index == checkpoint.index && m.identity.term == checkpoint.term
        };
        let manifest = match Manifest::decode(&manifest) {
            Ok(m) if fits(&m) => m,
            _ => return self.stop("the leader's checkpoint is not one of this cluster", out),
        };
        out.push(OwnerOut::Log(
            Level::Info,
            format!("taking over the checkpoint at {} in {} chunks", checkpoint.index, manifest.chunks.len()),
        ));
        self.installs += 1;
        self.install = Some(Install {
            number: self.installs,
            from,
            index: checkpoint.index,
            term: checkpoint.term,
            conf: checkpoint.conf,
            manifest,
            chunks: Vec::new(),
            asked: Mono(0),
            stage: Stage::Fetching,
        });
        self.install_fetch(out);
    }

    /// Asks for the next chunk, or has them loaded when all are here.
    fn install_fetch(&mut self, out: &mut Vec<OwnerOut>) {
        let Some(i) = self.install.as_mut().filter(|i| matches!(i.stage, Stage::Fetching)) else { return };
        match i.manifest.chunks.get(i.chunks.len()) {
            Some(next) => {
                i.asked = self.now.mono;
                out.push(OwnerOut::Send(i.from, PeerMessage::Fetch(i.index, next.id)));
            }
            None => {
                i.stage = Stage::Loading;
                let loading = Loading { manifest: i.manifest.clone(), chunks: std::mem::take(&mut i.chunks) };
                out.push(OwnerOut::Load(i.number, Box::new(loading)));
            }
        }
    }

    /// A chunk came, or is gone at the leader.
    pub(crate) fn install_chunk(
        &mut self,
        from: u64,
        index: Index,
        chunk: u64,
        bytes: Option<Vec<u8>>,
        out: &mut Vec<OwnerOut>,
    ) {
        let Some(i) = self.install.as_mut().filter(|i| i.from == from && i.index == index) else { return };
        let wanted = i.manifest.chunks.get(i.chunks.len()).filter(|_| matches!(i.stage, Stage::Fetching));
        let Some(wanted) = wanted.filter(|w| w.id == chunk) else { return };
        match bytes {
            // it goes on where it stopped: only this one is asked for again
            Some(bytes) if stream::ChunkReader::open(&bytes, wanted).is_err() => {
                out.push(OwnerOut::Log(Level::Warn, format!("chunk {chunk} came damaged and is asked for again")));
            }
            Some(bytes) => {
                i.chunks.push(bytes);
                self.install_fetch(out);
            }
            // a newer offer will come
            None => out.push(OwnerOut::Send(from, PeerMessage::Installed(index, false))),
        }
    }

    /// Time passes.
    pub(crate) fn install_tick(&mut self, out: &mut Vec<OwnerOut>) {
        let Some(i) = &mut self.install else { return };
        if self.now.mono.since(i.asked) < ASK_AGAIN_NS {
            return;
        }
        // whoever leads now has the newest word, but only who offered it has these files
        self.install_fetch(out);
    }

    /// The chunks are an image now.
    pub(crate) fn install_loaded(&mut self, number: u64, loaded: Loaded, out: &mut Vec<OwnerOut>) {
        let Some(i) = self.install.as_mut().filter(|i| i.number == number) else { return };
        match loaded.0 {
            Ok(image) => i.stage = Stage::Loaded(image),
            // each chunk was what the manifest says, so the leader's own files are wrong
            Err(e) => self.stop(&format!("the leader's checkpoint cannot be loaded: {e}"), out),
        }
    }

    /// Writes the image's own checkpoint as soon as no other is being written.
    pub(crate) fn install_step(&mut self, out: &mut Vec<OwnerOut>) {
        let cluster = self.cluster;
        let Some(i) = &mut self.install else { return };
        let Stage::Loaded(_) = i.stage else { return };
        let Stage::Loaded(mut image) = std::mem::replace(&mut i.stage, Stage::Loading) else { return };
        let version = image.publish();
        i.stage = Stage::Writing(image);
        self.checkpointer.replace(version, cluster, i.term, &i.conf, out);
    }

    /// True while the files of an offered checkpoint are being written.
    pub(crate) fn install_writes(&self) -> bool {
        self.install.as_ref().is_some_and(|i| matches!(i.stage, Stage::Writing(_)))
    }

    /// The checkpoint's files are durable (with this manifest), or could not be written.
    pub(crate) fn installed(&mut self, made: Option<(Index, Bytes)>, out: &mut Vec<OwnerOut>) {
        if !self.install_writes() {
            return;
        }
        let Some(mut i) = self.install.take() else { return };
        let Stage::Writing(image) = i.stage else { return };
        match made {
            Some((index, manifest)) if index == i.index => {
                self.take_checkpoint(image, i.term, i.conf, manifest);
                out.push(OwnerOut::Send(i.from, PeerMessage::Installed(index, true)));
                out.push(OwnerOut::Log(Level::Info, format!("the checkpoint at {index} is in force")));
            }
            _ => {
                // tried again until there is room
                i.stage = Stage::Loaded(image);
                self.install = Some(i);
            }
        }
    }
}
