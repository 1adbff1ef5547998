//! Unsealing: shares arrive one at a time, in any order, until they join to the unseal key.
//!
//! Driven by the node while it is sealed. Lives in memory of one node only; nothing of it is replicated.

use crate::seal::{Progress, SealConfig, SealError, Unsealed};
use crate::view::View;
use ringfence_base::{Entropy, entropy};
use ringfence_crypto::Provider;

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
}
