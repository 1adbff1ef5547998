//! What the owner publishes and every shard reads: the only state that cores share.
//!
//! The owner swaps the cell *before* it releases any reply of the batches in it; a shard compares the sequence when a
//! transaction begins. So a request that starts after an acknowledgement sees it on every core.

use ringfence_barrier::{Issuer, Keyring, Sealer};
use ringfence_base::{Mono, Now, Wall};
use ringfence_store::Version;
use std::sync::{Arc, Mutex, PoisonError};

/// One published state.
pub struct Cell {
    /// Counts up with every publication.
    pub sequence: u64,
    /// The image.
    pub version: Version,
    /// `None` while sealed, or while this node may not evaluate. A standby's open everything and seal nothing.
    pub keys: Option<Keys>,
    /// The log's clock at the moment of publication.
    pub clock: LogClock,
    /// What status endpoints tell.
    pub facts: Arc<Facts>,
    /// Answers may be given from this image until then. On the active node: before this moment no other node can have
    /// acknowledged anything, so what is read here is the latest; without end for a node alone. On a standby: the image
    /// was the cluster's at most [`crate::standby::STALE_NS`] before.
    pub lease_until: Mono,
    /// Where cores leave the versions that they let go of.
    pub bin: Arc<Bin>,
}

/// Versions that a core has done with. Whoever lets go of a version last frees what it alone held: of an image under
/// load some hundred pages, tens of microseconds. So the cores leave theirs here, and the owner, who makes versions,
/// frees them between two of its turns instead of a reader in the middle of a request.
#[derive(Default)]
pub struct Bin(Mutex<Vec<Version>>);

/// More are not kept, should the owner not come by: then they are freed where they are.
const BIN_MAX: usize = 256;

impl Bin {
    fn leave(&self, version: Version) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < BIN_MAX {
            left.push(version);
        }
    }

    /// Frees what was left here.
    pub fn empty(&self) {
        // not under the lock
        drop(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

impl Cell {
    /// A core goes on with another version than this one's.
    pub fn let_go(self: Arc<Cell>) {
        self.bin.leave(self.version.clone());
    }

    /// No other node can ever be active.
    pub fn is_alone(&self) -> bool {
        self.lease_until == Mono(u64::MAX)
    }
}

/// What a core needs to open and seal records.
#[derive(Clone)]
pub struct Keys {
    /// All terms.
    pub keyring: Arc<Keyring>,
    /// The licences of one issuer, one a core.
    pub licences: Arc<Licences>,
}

/// One issuer's sealers, each taken once by its core: two copies of a sealer would repeat nonces.
pub struct Licences {
    /// Counts up in this process: an issuer's number may come again with another salt when an older image is restored.
    pub generation: u64,
    by_core: Mutex<Vec<Option<Sealer>>>,
}

impl Licences {
    /// Cuts an issuer into one sealer a core.
    pub fn new(mut issuer: Issuer, keyring: &Keyring, cores: usize, generation: u64) -> Licences {
        let by_core = (0..cores).map(|_| Some(issuer.sealer(keyring))).collect();
        Licences { generation, by_core: Mutex::new(by_core) }
    }

    /// Cuts an issuer that no image knows into one sealer a core that mints tokens and nothing else.
    pub fn minting(mut issuer: Issuer, keyring: &Keyring, cores: usize, generation: u64) -> Licences {
        let by_core = (0..cores).map(|_| Some(issuer.minting_sealer(keyring))).collect();
        Licences { generation, by_core: Mutex::new(by_core) }
    }

    /// Takes a core's sealer; the second time there is none.
    pub fn take(&self, core: u16) -> Option<Sealer> {
        let mut all = self.by_core.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(core as usize).and_then(Option::take)
    }
}

/// Log time: it moves with the owner's monotonic clock from what the last batch said, and never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogClock {
    /// Log time at `at`.
    pub log_time: Wall,
    /// Monotonic time of the reading.
    pub at: Mono,
}

impl LogClock {
    /// Log time now.
    pub fn now(&self, now: Now) -> Wall {
        self.log_time.plus_ns(now.mono.since(self.at))
    }
}

/// Facts about the node that need no key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// `sys/init` was done.
    pub initialized: bool,
    /// No key in memory.
    pub sealed: bool,
    /// This node evaluates requests.
    pub active: bool,
    /// This node answers what it can without writing, and passes the rest on.
    pub performance_standby: bool,
    /// The cluster has other nodes.
    pub has_peers: bool,
    /// `vault-cluster-1a2b3c4d`; empty while sealed.
    pub cluster_name: String,
    /// A UUID; empty while sealed.
    pub cluster_id: String,
    /// Who evaluates requests, if another node does.
    pub leader: Option<Leader>,
    /// Somebody gave wrong credentials lately: the active node hears of good logins too.
    pub counting_failures: bool,
}

/// The node to pass calls on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// Its raft id.
    pub raft_id: u64,
    /// URL of its API.
    pub api_addr: String,
    /// URL of its cluster port.
    pub cluster_addr: String,
}
