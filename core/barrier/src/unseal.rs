//! Unsealing: shares arrive one at a time, in any order, until they join to the unseal key.
//!
//! Driven by the node while it is sealed. Lives in memory of one node only; nothing of it is replicated.

use crate::blob::{self, BlobPurpose};
use crate::keyring::OpenError;
use crate::seal::{Progress, SealConfig, SealError, Unsealed};
use crate::view::View;
use ringfence_base::{Entropy, Secret, entropy};
use ringfence_crypto::{KEY_BYTES, Provider};
use zeroize::Zeroizing;

/// An attempt to unseal.
#[derive(Default)]
pub struct Unseal {
    progress: Progress,
    nonce: String,
}

impl std::fmt::Debug for Unseal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unseal({} shares, {})", self.progress.count(), self.nonce)
    }
}

/// What a share led to.
#[derive(Debug)]
pub enum UnsealStep {
    /// More shares are needed.
    Waiting,
    /// The keys are open.
    Opened(Box<Unsealed>),
}

impl Unseal {
    /// No share yet.
    pub fn new() -> Unseal {
        Unseal::default()
    }

    /// Different shares given so far.
    pub fn progress(&self) -> usize {
        self.progress.count()
    }

    /// Names the attempt; empty before its first share.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Forgets the shares given.
    pub fn reset(&mut self) {
        *self = Unseal::default();
    }

    /// Takes a share. One that was given before changes nothing and is no error. When the threshold is reached the
    /// attempt ends, well or not.
    pub fn submit(
        &mut self,
        share: &[u8],
        view: &dyn View,
        provider: Provider,
        rng: &mut dyn Entropy,
    ) -> Result<UnsealStep, SealError> {
        let config = SealConfig::load(view)?.ok_or(SealError::NotInitialized)?;
        self.progress.add(share)?;
        if self.nonce.is_empty() {
            self.nonce = entropy::uuid4(rng);
        }
        if self.progress.count() < usize::from(config.threshold) {
            return Ok(UnsealStep::Waiting);
        }
        let joined = self.progress.take_key();
        self.reset();
        Ok(UnsealStep::Opened(Box::new(Unsealed::open(provider, view, joined?)?)))
    }

    /// As [`Unseal::submit`], on a node that has no image yet: the shares must open the challenge of the cluster that
    /// it is to join. `None`: more shares are needed.
    pub fn submit_to_join(
        &mut self,
        share: &[u8],
        config: &SealConfig,
        challenge: &[u8],
        provider: Provider,
        rng: &mut dyn Entropy,
    ) -> Result<Option<JoinKey>, SealError> {
        self.progress.add(share)?;
        if self.nonce.is_empty() {
            self.nonce = entropy::uuid4(rng);
        }
        if self.progress.count() < usize::from(config.threshold) {
            return Ok(None);
        }
        let joined = self.progress.take_key();
        self.reset();
        let key = JoinKey { provider, key: Secret::new(*joined?) };
        match key.open_blob(BlobPurpose::JoinChallenge, challenge) {
            Ok(_) => Ok(Some(key)),
            Err(OpenError::NotAuthentic) => Err(SealError::WrongKey),
            Err(_) => Err(SealError::Corrupt),
        }
    }
}

/// The unseal key of a cluster that this node joins, before it has that cluster's image. It has opened a challenge.
/// Zeroed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct JoinKey {
    provider: Provider,
    key: Secret<[u8; KEY_BYTES]>,
}

impl JoinKey {
    /// Seals something for the nodes that hold the same unseal key.
    pub fn seal_blob(&self, purpose: BlobPurpose, plaintext: &[u8], rng: &mut dyn Entropy) -> Vec<u8> {
        blob::wrap(self.provider, self.key.expose(), purpose, plaintext, rng)
    }

    /// Opens what one of them sealed.
    pub fn open_blob(&self, purpose: BlobPurpose, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        blob::unwrap(self.provider, self.key.expose(), purpose, bytes)
    }

    /// Opens the keyring of the image that came.
    pub fn open(&self, view: &dyn View) -> Result<Unsealed, SealError> {
        Unsealed::open(self.provider, view, Zeroizing::new(*self.key.expose()))
    }
}
