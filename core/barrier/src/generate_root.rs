//! Root generation: a threshold of shares makes a new root token, which leaves hidden under a one-time password or
//! an OpenPGP key.
//!
//! Driven by the active node's owner. It mints nothing: when the shares are proven it hands back a
//! [`RootTokenRequest`], the token store makes the token, and the request hides it for the answer.

use crate::seal::{Progress, SealConfig, SealError, Unsealed};
use crate::view::View;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ringfence_base::{Entropy, entropy};
use ringfence_crypto::pgp;
use zeroize::Zeroizing;

/// Length of a root token in text (`hvs.` and 24 characters), and so of its one-time password.
pub const OTP_LENGTH: usize = 28;

/// What the client asked for.
#[derive(Clone, Debug, Default)]
pub struct GenerateParams {
    /// `pgp_key`: base64 of a binary OpenPGP key.
    pub pgp_key: Option<String>,
    /// `otp`: the client's own password (deprecated). With neither, one is made and shown once.
    pub otp: Option<String>,
}

/// `GET sys/generate-root/attempt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerateStatus {
    /// Empty when idle.
    pub nonce: String,
    /// True while one is under way.
    pub started: bool,
    /// Shares given.
    pub progress: usize,
    /// Shares needed.
    pub required: u8,
    /// Fingerprint of the OpenPGP key; empty if none.
    pub pgp_fingerprint: String,
    /// The one-time password, in the answer to the start alone and only if it was made here.
    pub otp: String,
    /// Its length.
    pub otp_length: usize,
}

/// What a share led to.
#[derive(Debug)]
pub enum GenerateStep {
    /// More are needed.
    Waiting(GenerateStatus),
    /// The shares are proven: mint a root token now, hide it with the request, answer when it is committed.
    Mint(RootTokenRequest),
}

/// The root generation of one cluster.
#[derive(Default)]
pub struct GenerateRoot {
    attempt: Option<Attempt>,
}

struct Attempt {
    nonce: String,
    cover: Cover,
    progress: Progress,
}

/// What hides the token.
#[derive(Clone)]
enum Cover {
    Otp(Zeroizing<String>),
    Pgp(Box<pgp::PublicKey>),
}

/// Shares were proven; a token may be minted once.
pub struct RootTokenRequest {
    /// The attempt it ends.
    pub nonce: String,
    /// Shares that were given and needed.
    pub required: u8,
    /// Fingerprint of the OpenPGP key; empty if none.
    pub pgp_fingerprint: String,
    cover: Cover,
}

impl std::fmt::Debug for GenerateRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GenerateRoot({})", if self.attempt.is_some() { "under way" } else { "idle" })
    }
}

impl std::fmt::Debug for RootTokenRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootTokenRequest({})", self.nonce)
    }
}

impl GenerateRoot {
    /// Idle.
    pub fn new() -> GenerateRoot {
        GenerateRoot::default()
    }

    /// Where it stands.
    pub fn status(&self, view: &dyn View) -> Result<GenerateStatus, SealError> {
        let required = SealConfig::load(view)?.ok_or(SealError::NotInitialized)?.threshold;
        let idle = GenerateStatus { required, otp_length: OTP_LENGTH, ..GenerateStatus::default() };
        Ok(match &self.attempt {
            None => idle,
            Some(a) => GenerateStatus {
                nonce: a.nonce.clone(),
                started: true,
                progress: a.progress.count(),
                pgp_fingerprint: a.cover.fingerprint(),
                ..idle
            },
        })
    }

    /// Begins one.
    pub fn start(
        &mut self,
        params: &GenerateParams,
        view: &dyn View,
        rng: &mut dyn Entropy,
    ) -> Result<GenerateStatus, SealError> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let (cover, shown) = match (given(&params.pgp_key), given(&params.otp)) {
            (Some(key), _) => {
                let key = pgp::PublicKey::from_base64(&key).map_err(SealError::Pgp)?;
                (Cover::Pgp(Box::new(key)), String::new())
            }
            (None, Some(otp)) if otp.len() != OTP_LENGTH => return Err(SealError::OtpLength),
            (None, Some(otp)) => (Cover::Otp(Zeroizing::new(otp)), String::new()),
            (None, None) => {
                let otp = entropy::base62(rng, OTP_LENGTH);
                (Cover::Otp(Zeroizing::new(otp.clone())), otp)
            }
        };
        if self.attempt.is_some() {
            return Err(SealError::GenerateInProgress);
        }
        self.attempt = Some(Attempt { nonce: entropy::uuid4(rng), cover, progress: Progress::default() });
        Ok(GenerateStatus { otp: shown, ..self.status(view)? })
    }

    /// Ends one; nothing to do when idle.
    pub fn cancel(&mut self) {
        self.attempt = None;
    }

    /// Takes a share.
    pub fn update(
        &mut self,
        share: &[u8],
        nonce: &str,
        unsealed: &Unsealed,
        view: &dyn View,
    ) -> Result<GenerateStep, SealError> {
        let required = SealConfig::load(view)?.ok_or(SealError::NotInitialized)?.threshold;
        let attempt = self.attempt.as_mut().ok_or(SealError::NoGenerate)?;
        if nonce != attempt.nonce {
            return Err(SealError::GenerateNonce(attempt.nonce.clone()));
        }
        if !attempt.progress.add(share)? {
            return Err(SealError::DuplicateShare);
        }
        if attempt.progress.count() < usize::from(required) {
            return self.status(view).map(GenerateStep::Waiting);
        }
        if !unsealed.is_unseal_key(&*attempt.progress.take_key()?) {
            return Err(SealError::WrongKey);
        }
        let proven = self.attempt.take().ok_or(SealError::NoGenerate)?;
        Ok(GenerateStep::Mint(RootTokenRequest {
            nonce: proven.nonce,
            required,
            pgp_fingerprint: proven.cover.fingerprint(),
            cover: proven.cover,
        }))
    }
}

impl Cover {
    fn fingerprint(&self) -> String {
        match self {
            Cover::Otp(_) => String::new(),
            Cover::Pgp(key) => key.fingerprint(),
        }
    }
}

impl RootTokenRequest {
    /// `encoded_token`: the token under the one-time password (exclusive or, base64 without padding) or encrypted to
    /// the OpenPGP key (base64).
    pub fn encode(&self, token: &str, rng: &mut dyn Entropy) -> Result<String, SealError> {
        match &self.cover {
            Cover::Otp(otp) => Ok(STANDARD_NO_PAD.encode(xor(token.as_bytes(), otp.as_bytes())?)),
            Cover::Pgp(key) => Ok(STANDARD.encode(key.encrypt(token.as_bytes(), rng).map_err(SealError::Pgp)?)),
        }
    }
}

/// `sys/decode-token`: takes the one-time password off again.
pub fn decode_token(encoded: &str, otp: &str) -> Result<String, SealError> {
    let covered = STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).map_err(|_| SealError::BadEncodedToken)?;
    String::from_utf8(xor(&covered, otp.as_bytes())?).map_err(|_| SealError::BadEncodedToken)
}

fn xor(a: &[u8], b: &[u8]) -> Result<Vec<u8>, SealError> {
    if a.len() != b.len() {
        return Err(SealError::TokenLength);
    }
    Ok(a.iter().zip(b).map(|(a, b)| a ^ b).collect())
}
