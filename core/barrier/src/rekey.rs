//! Rekey: new shares of a new unseal key, authorised by a threshold of the present ones.
//!
//! ```text
//!   idle ──init──> collecting old shares ──threshold──> done: records to write
//!                                        └─ verification asked ─> collecting new shares ──threshold──> done
//! ```
//!
//! Driven by the active node's owner; lost with it, as the operators' attempt is. A rekey also makes a new root key
//! and seals the keyring by it, so the old unseal key opens nothing that is written from then on. Keys in force
//! change only when the records are applied ([`Unsealed::refresh`]).

use crate::keys::{SEAL_CONFIG, SHARE_BACKUP};
use crate::seal::{
    KeyRecords, Progress, SealConfig, SealError, SealKind, Shares, Unsealed, check_shares, parse_pgp_keys,
};
use crate::view::View;
use ringfence_base::{CodecError, Entropy, Reader, Writer, entropy};
use ringfence_crypto::{KEY_BYTES, pgp};
use zeroize::Zeroizing;

/// What the client asked for.
#[derive(Clone, Debug, Default)]
pub struct RekeyParams {
    /// `secret_shares`.
    pub secret_shares: i64,
    /// `secret_threshold`.
    pub secret_threshold: i64,
    /// `pgp_keys`: base64 of binary OpenPGP keys, one a share or none.
    pub pgp_keys: Vec<String>,
    /// `backup`: keep the encrypted shares in the image.
    pub backup: bool,
    /// `require_verification`: the new key is used only after its shares were shown back.
    pub require_verification: bool,
}

/// `GET sys/rekey/init`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RekeyStatus {
    /// Empty when idle.
    pub nonce: String,
    /// True while one is under way.
    pub started: bool,
    /// New threshold.
    pub t: u8,
    /// New shares.
    pub n: u8,
    /// Old shares given.
    pub progress: usize,
    /// Old shares needed.
    pub required: u8,
    /// Fingerprints of the OpenPGP keys; empty if none.
    pub pgp_fingerprints: Vec<String>,
    /// True if a backup will be kept.
    pub backup: bool,
    /// True if verification was asked for.
    pub verification_required: bool,
    /// Set once the new shares exist and await verification.
    pub verification_nonce: Option<String>,
}

/// `GET sys/rekey/verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RekeyVerifyStatus {
    /// Names the verification.
    pub nonce: String,
    /// True while it is under way.
    pub started: bool,
    /// New threshold.
    pub t: u8,
    /// New shares.
    pub n: u8,
    /// New shares given.
    pub progress: usize,
}

/// What an old share led to.
#[derive(Debug)]
pub enum RekeyStep {
    /// More are needed.
    Waiting(RekeyStatus),
    /// The new shares exist.
    Complete {
        /// Names the rekey.
        nonce: String,
        /// To answer once `records`, if any, are committed.
        shares: Shares,
        /// True if a backup is kept.
        backup: bool,
        /// Set if the shares must be verified before anything is written.
        verification_nonce: Option<String>,
        /// To write at once; none while verification is pending.
        records: Option<KeyRecords>,
    },
}

/// What a new share led to.
#[derive(Debug)]
pub enum RekeyVerifyStep {
    /// More are needed.
    Waiting(RekeyVerifyStatus),
    /// The new key is proven.
    Complete {
        /// Names the verification.
        nonce: String,
        /// To write now.
        records: KeyRecords,
    },
}

/// The rekey of one cluster.
#[derive(Default)]
pub struct Rekey {
    attempt: Option<Attempt>,
}

struct Attempt {
    nonce: String,
    config: SealConfig,
    pgp_keys: Vec<pgp::PublicKey>,
    verify: bool,
    progress: Progress,
    verification: Option<Verification>,
}

/// New shares that were handed out and are not yet in force.
struct Verification {
    nonce: String,
    key: Zeroizing<[u8; KEY_BYTES]>,
    backup: Option<ShareBackup>,
    progress: Progress,
}

impl std::fmt::Debug for Rekey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rekey({})", if self.attempt.is_some() { "under way" } else { "idle" })
    }
}

impl Rekey {
    /// Idle.
    pub fn new() -> Rekey {
        Rekey::default()
    }

    /// Where it stands. `view` tells how many old shares are needed.
    pub fn status(&self, view: &dyn View) -> Result<RekeyStatus, SealError> {
        let required = SealConfig::load(view)?.ok_or(SealError::NotInitialized)?.threshold;
        Ok(match &self.attempt {
            None => RekeyStatus { required, ..RekeyStatus::default() },
            Some(a) => RekeyStatus {
                nonce: a.nonce.clone(),
                started: true,
                t: a.config.threshold,
                n: a.config.shares,
                progress: a.progress.count(),
                required,
                pgp_fingerprints: a.config.pgp_fingerprints.clone(),
                backup: a.config.backup,
                verification_required: a.verify,
                verification_nonce: a.verification.as_ref().map(|v| v.nonce.clone()),
            },
        })
    }

    /// Begins one.
    pub fn start(
        &mut self,
        params: &RekeyParams,
        view: &dyn View,
        rng: &mut dyn Entropy,
    ) -> Result<RekeyStatus, SealError> {
        if params.backup && params.pgp_keys.is_empty() {
            return Err(SealError::BackupWithoutPgp);
        }
        let count = params.pgp_keys.len();
        if count > 0 && count as i64 != params.secret_shares {
            return Err(SealError::RekeyPgpCount);
        }
        let (shares, threshold) = check_shares(params.secret_shares, params.secret_threshold, count)
            .map_err(SealError::InvalidRekeyConfig)?;
        if self.attempt.is_some() {
            return Err(SealError::RekeyInProgress);
        }
        let pgp_keys = parse_pgp_keys(&params.pgp_keys)?;
        self.attempt = Some(Attempt {
            nonce: entropy::uuid4(rng),
            config: SealConfig {
                kind: SealKind::Shamir,
                shares,
                threshold,
                pgp_fingerprints: pgp_keys.iter().map(pgp::PublicKey::fingerprint).collect(),
                backup: params.backup,
            },
            pgp_keys,
            verify: params.require_verification,
            progress: Progress::default(),
            verification: None,
        });
        self.status(view)
    }

    /// Ends one without effect; nothing to do when idle. New shares that were handed out are worthless then.
    pub fn cancel(&mut self) {
        self.attempt = None;
    }

    /// Takes a present share.
    pub fn update(
        &mut self,
        share: &[u8],
        nonce: &str,
        unsealed: &Unsealed,
        view: &dyn View,
        rng: &mut dyn Entropy,
    ) -> Result<RekeyStep, SealError> {
        let present = SealConfig::load(view)?.ok_or(SealError::NotInitialized)?;
        let attempt = self.attempt.as_mut().ok_or(SealError::NoRekey)?;
        if let Some(v) = &attempt.verification {
            return Err(SealError::RekeyAwaitsVerification(v.nonce.clone()));
        }
        if nonce != attempt.nonce {
            return Err(SealError::RekeyNonce(attempt.nonce.clone()));
        }
        if !attempt.progress.add(share)? {
            return Err(SealError::DuplicateShare);
        }
        if attempt.progress.count() < usize::from(present.threshold) {
            return self.status(view).map(RekeyStep::Waiting);
        }
        if !unsealed.is_unseal_key(&*attempt.progress.take_key()?) {
            return Err(SealError::WrongKey);
        }

        let key = unsealed.provider().random_key(rng);
        let numbers = (attempt.config.shares, attempt.config.threshold);
        let shares = Shares::make(&key, numbers, &attempt.pgp_keys, rng)?;
        let backup = attempt.config.backup.then(|| ShareBackup::of(&attempt.nonce, &shares));
        let complete = |verification_nonce, records| RekeyStep::Complete {
            nonce: attempt.nonce.clone(),
            shares: shares.clone(),
            backup: attempt.config.backup,
            verification_nonce,
            records,
        };
        if attempt.verify {
            let nonce = entropy::uuid4(rng);
            let step = complete(Some(nonce.clone()), None);
            attempt.verification = Some(Verification { nonce, key, backup, progress: Progress::default() });
            return Ok(step);
        }
        let records = records(unsealed, &key, &attempt.config, backup, rng);
        let step = complete(None, Some(records));
        self.attempt = None;
        Ok(step)
    }

    /// Where the verification stands; all zero when there is none.
    pub fn verify_status(&self) -> RekeyVerifyStatus {
        match &self.attempt {
            Some(Attempt { verification: Some(v), config, .. }) => RekeyVerifyStatus {
                nonce: v.nonce.clone(),
                started: true,
                t: config.threshold,
                n: config.shares,
                progress: v.progress.count(),
            },
            _ => RekeyVerifyStatus::default(),
        }
    }

    /// Takes a new share.
    pub fn verify(
        &mut self,
        share: &[u8],
        nonce: &str,
        unsealed: &Unsealed,
        rng: &mut dyn Entropy,
    ) -> Result<RekeyVerifyStep, SealError> {
        let attempt = self.attempt.as_mut().ok_or(SealError::NoRekey)?;
        let v = attempt.verification.as_mut().ok_or(SealError::NoVerification)?;
        if nonce != v.nonce {
            return Err(SealError::VerificationNonce(v.nonce.clone()));
        }
        if !v.progress.add(share)? {
            return Err(SealError::DuplicateShare);
        }
        if v.progress.count() < usize::from(attempt.config.threshold) {
            return Ok(RekeyVerifyStep::Waiting(self.verify_status()));
        }
        let proven = v.progress.take_key().map_err(|_| SealError::VerificationFailed)?;
        if !ringfence_base::secret::same_bytes(&proven[..], &v.key[..]) {
            return Err(SealError::VerificationFailed);
        }
        let records = records(unsealed, &v.key, &attempt.config, v.backup.take(), rng);
        let nonce = v.nonce.clone();
        self.attempt = None;
        Ok(RekeyVerifyStep::Complete { nonce, records })
    }

    /// Begins the verification again under another nonce.
    pub fn restart_verification(&mut self, rng: &mut dyn Entropy) -> Result<RekeyVerifyStatus, SealError> {
        let attempt = self.attempt.as_mut().ok_or(SealError::NoRekey)?;
        let v = attempt.verification.as_mut().ok_or(SealError::NoVerification)?;
        v.nonce = entropy::uuid4(rng);
        v.progress.clear();
        Ok(self.verify_status())
    }
}

/// What puts a new unseal key in force.
fn records(
    unsealed: &Unsealed,
    key: &[u8; KEY_BYTES],
    config: &SealConfig,
    backup: Option<ShareBackup>,
    rng: &mut dyn Entropy,
) -> KeyRecords {
    let next = unsealed.rekeyed(key, rng);
    let mut records = next.records(rng);
    records.sealed.push(next.handover());
    records.clear.push((SEAL_CONFIG.to_vec(), config.encode()));
    match backup {
        Some(backup) => records.clear.push((SHARE_BACKUP.to_vec(), backup.encode())),
        // an older backup holds shares of a key that opens nothing any more
        None => records.deleted.push(SHARE_BACKUP.to_vec()),
    }
    records
}

/// The encrypted shares of the last rekey, kept on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareBackup {
    /// The rekey's nonce.
    pub nonce: String,
    /// Fingerprint and encrypted share, in the order of the shares; a fingerprint may stand more than once.
    pub keys: Vec<(String, Vec<u8>)>,
}

impl ShareBackup {
    fn of(nonce: &str, shares: &Shares) -> ShareBackup {
        let keys = shares.fingerprints.iter().cloned().zip(shares.raw().map(<[u8]>::to_vec)).collect();
        ShareBackup { nonce: nonce.to_owned(), keys }
    }

    /// Reads the backup of a view.
    pub fn load(view: &dyn View) -> Result<ShareBackup, SealError> {
        let bytes = view.get(&SHARE_BACKUP).ok_or(SealError::NoBackup)?;
        ShareBackup::decode(bytes).map_err(|_| SealError::Corrupt)
    }

    /// What deletes it.
    pub fn removal() -> KeyRecords {
        KeyRecords { deleted: vec![SHARE_BACKUP.to_vec()], ..KeyRecords::default() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(1).text(&self.nonce).num(self.keys.len() as u64);
        for (fingerprint, share) in &self.keys {
            w.text(fingerprint).bytes(share);
        }
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<ShareBackup, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {}
            other => return Err(CodecError::BadTag(other)),
        }
        let nonce = r.text(64)?.to_owned();
        let count = r.num()?;
        if count > ringfence_base::limit::MAX_SHARES as u64 {
            return Err(CodecError::TooLong);
        }
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push((r.text(128)?.to_owned(), r.bytes(64 * 1024)?.to_vec()));
        }
        r.end()?;
        Ok(ShareBackup { nonce, keys })
    }
}
