//! What the seal state machines share: the seal's configuration, shares, the keys of an unsealed node, and refusals
//! with the words of Vault's documented API.

use crate::View;
use crate::blob::{self, BlobPurpose};
use crate::keyring::{Keyring, OpenError};
use crate::keys::{HANDOVER, KEYRING, ROOT_KEY, SEAL_CONFIG};
use crate::txn::Txn;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringfence_base::limit::MAX_SHARES;
use ringfence_base::{CodecError, Entropy, Reader, Secret, Wall, Writer};
use ringfence_crypto::shamir::{self, SHARE_OVERHEAD, ShamirError};
use ringfence_crypto::{KEY_BYTES, Provider, pgp};
use ringfence_store::Key;
use std::sync::Arc;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
/// Shortest share accepted, bytes: Vault's smallest AES key.
pub(crate) const MIN_SHARE_BYTES: usize = 16;
/// Longest share accepted, bytes: a whole key and a point.
pub(crate) const MAX_SHARE_BYTES: usize = KEY_BYTES + SHARE_OVERHEAD;
const MAX_FINGERPRINT_BYTES: usize = 128;

/// How the unseal key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    /// Split into shares that operators hold.
    Shamir,
    /// Wrapped by an outside service; shares are recovery keys. The wrapping itself is a side operation.
    Auto,
}

impl SealKind {
    /// Its name in `sys/seal-status`; an automatic seal's name is the service's.
    pub fn name(self) -> &'static str {
        match self {
            SealKind::Shamir => "shamir",
            SealKind::Auto => "auto",
        }
    }
}

/// How the unseal key is shared. Stands in the image in clear: a sealed node must answer `sys/seal-status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealConfig {
    /// Who holds the unseal key.
    pub kind: SealKind,
    /// Shares made. Invariant: `1 <= threshold <= shares`, and a threshold of 1 means one share.
    pub shares: u8,
    /// Shares needed.
    pub threshold: u8,
    /// Fingerprints of the OpenPGP keys the shares were encrypted to, in the order of the shares; empty if none.
    pub pgp_fingerprints: Vec<String>,
    /// True if the encrypted shares were kept ([`crate::ShareBackup`]).
    pub backup: bool,
}

impl SealConfig {
    /// Reads the configuration of a view; none before init.
    pub fn load(view: &dyn View) -> Result<Option<SealConfig>, SealError> {
        view.get(&SEAL_CONFIG).map(SealConfig::decode).transpose().map_err(|_| SealError::Corrupt)
    }

    /// The bytes of the core record.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let kind = match self.kind {
            SealKind::Shamir => 1,
            SealKind::Auto => 2,
        };
        w.u8(FORMAT).u8(kind).u8(self.shares).u8(self.threshold).bool(self.backup);
        w.num(self.pgp_fingerprints.len() as u64);
        self.pgp_fingerprints.iter().for_each(|f| {
            w.text(f);
        });
        w.finish()
    }

    /// Reads [`SealConfig::encode`].
    pub fn decode(bytes: &[u8]) -> Result<SealConfig, CodecError> {
        let mut r = Reader::new(bytes);
        let format = r.u8()?;
        if format != FORMAT {
            return Err(CodecError::BadTag(format));
        }
        let kind = match r.u8()? {
            1 => SealKind::Shamir,
            2 => SealKind::Auto,
            other => return Err(CodecError::BadTag(other)),
        };
        let (shares, threshold, backup) = (r.u8()?, r.u8()?, r.bool()?);
        if threshold == 0 || threshold > shares || (threshold == 1 && shares != 1) {
            return Err(CodecError::BadNumber);
        }
        let count = r.num()?;
        if count > MAX_SHARES as u64 {
            return Err(CodecError::TooLong);
        }
        let read = (0..count).map(|_| r.text(MAX_FINGERPRINT_BYTES).map(str::to_owned));
        let pgp_fingerprints = read.collect::<Result<_, _>>()?;
        r.end()?;
        Ok(SealConfig { kind, shares, threshold, pgp_fingerprints, backup })
    }
}

/// Which rule a number of shares breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareRule {
    /// Fewer than one share.
    NoShares,
    /// Threshold under one.
    NoThreshold,
    /// One of many: a share would be the key.
    OneOfMany,
    /// Threshold over shares.
    ThresholdOverShares,
    /// More than 255 shares.
    TooManyShares,
    /// Not one OpenPGP key a share.
    PgpKeyCount,
}

impl ShareRule {
    /// Vault's words.
    pub fn text(self) -> &'static str {
        match self {
            ShareRule::NoShares => "shares must be at least one",
            ShareRule::NoThreshold => "threshold must be at least one",
            ShareRule::OneOfMany => "invalid threshold while shares is greater than one",
            ShareRule::ThresholdOverShares => "threshold cannot be larger than shares",
            ShareRule::TooManyShares => "shares must be less than 256",
            ShareRule::PgpKeyCount => "count mismatch between number of provided PGP keys and number of shares",
        }
    }
}

/// Checks numbers as a client sent them.
pub(crate) fn check_shares(shares: i64, threshold: i64, pgp_keys: usize) -> Result<(u8, u8), ShareRule> {
    if shares < 1 {
        return Err(ShareRule::NoShares);
    }
    if threshold < 1 {
        return Err(ShareRule::NoThreshold);
    }
    if shares > 1 && threshold == 1 {
        return Err(ShareRule::OneOfMany);
    }
    if shares > MAX_SHARES as i64 {
        return Err(ShareRule::TooManyShares);
    }
    if threshold > shares {
        return Err(ShareRule::ThresholdOverShares);
    }
    if pgp_keys > 0 && pgp_keys as i64 != shares {
        return Err(ShareRule::PgpKeyCount);
    }
    Ok((shares as u8, threshold as u8))
}

/// A refusal of a seal state machine. [`SealError::text`] is what the client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealError {
    /// Init of an initialised cluster.
    AlreadyInitialized,
    /// Anything else before init.
    NotInitialized,
    /// Numbers of shares that cannot be, at init.
    InvalidSealConfig(ShareRule),
    /// Numbers of shares that cannot be, at rekey.
    InvalidRekeyConfig(ShareRule),
    /// An OpenPGP key that cannot be used.
    Pgp(pgp::PgpError),
    /// Neither a share nor a reset.
    MissingKey,
    /// The same in a ceremony of an unsealed server, which has nothing to reset.
    MissingShare,
    /// A share that is neither hexadecimal nor base64.
    BadKeyEncoding,
    /// A share of too few bytes.
    KeyTooShort,
    /// A share of too many bytes.
    KeyTooLong,
    /// Shares that cannot be joined.
    CannotCombine(ShamirError),
    /// Shares that join to no 32-byte key; the length they joined to.
    BadKeySize(usize),
    /// Shares that join to another key.
    WrongKey,
    /// Reset of an unsealed node.
    Unsealed,
    /// A second rekey.
    RekeyInProgress,
    /// No rekey to update.
    NoRekey,
    /// No rekey to verify.
    NoVerification,
    /// The nonce of another rekey; the right one.
    RekeyNonce(String),
    /// A share given to a rekey whose new shares await verification; the verification's nonce.
    RekeyAwaitsVerification(String),
    /// The nonce of another verification; the right one.
    VerificationNonce(String),
    /// New shares that do not join to the new key.
    VerificationFailed,
    /// A share given twice to a rekey, verification or root generation.
    DuplicateShare,
    /// Not one OpenPGP key a share, at rekey.
    RekeyPgpCount,
    /// A backup asked for without OpenPGP keys.
    BackupWithoutPgp,
    /// No backup kept.
    NoBackup,
    /// Recovery keys exist with an automatic seal only.
    RecoveryUnsupported,
    /// A second root generation.
    GenerateInProgress,
    /// No root generation to update.
    NoGenerate,
    /// The nonce of another root generation; the right one.
    GenerateNonce(String),
    /// A one-time password of the wrong length.
    OtpLength,
    /// A token and a one-time password of different lengths.
    TokenLength,
    /// An encoded token or password that cannot be decoded.
    BadEncodedToken,
    /// Rotation after too few or too many operations.
    RotateOperations,
    /// Rotation more often than daily.
    RotateInterval,
    /// A core record of the image cannot be read: not the client's fault.
    Corrupt,
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for SealError {}

impl SealError {
    /// The words a client reads; Vault's where it documents them.
    pub fn text(&self) -> String {
        let fixed = match self {
            SealError::AlreadyInitialized => "Vault is already initialized",
            SealError::NotInitialized => "Vault is not initialized",
            SealError::InvalidSealConfig(rule) => return format!("invalid seal configuration: {}", rule.text()),
            SealError::InvalidRekeyConfig(rule) => {
                return format!("invalid rekey seal configuration: {}", rule.text());
            }
            SealError::Pgp(e) => return e.to_string(),
            SealError::MissingKey => "'key' must be specified in request body as JSON, or 'reset' set to true",
            SealError::MissingShare => "'key' must be specified in request body as JSON",
            SealError::BadKeyEncoding => "'key' must be a valid hex or base64 string",
            SealError::KeyTooShort => "invalid key: key is shorter than minimum 16 bytes",
            SealError::KeyTooLong => "invalid key: key is longer than maximum 33 bytes",
            SealError::CannotCombine(e) => {
                return format!("invalid key: failed to compute combined key: {}", combine_text(*e));
            }
            SealError::BadKeySize(n) => {
                return format!("invalid key: failed to setup unseal key: crypto/aes: invalid key size {n}");
            }
            SealError::WrongKey => {
                "invalid key: failed to decrypt keys from storage: cipher: message authentication failed"
            }
            SealError::Unsealed => "vault is unsealed",
            SealError::RekeyInProgress => "rekey already in progress",
            SealError::NoRekey => "no barrier rekey in progress",
            SealError::NoVerification => "no rekey verification in progress",
            SealError::RekeyNonce(n) => {
                return format!("incorrect nonce supplied; nonce for this rekey operation is {n:?}");
            }
            SealError::RekeyAwaitsVerification(n) => {
                return format!(
                    "rekey operation already finished; verification must be performed; nonce for the verification \
                     operation is {n:?}"
                );
            }
            SealError::VerificationNonce(n) => {
                return format!("incorrect nonce supplied; nonce for this verify operation is {n:?}");
            }
            SealError::VerificationFailed => "rekey verification failed; incorrect key shares supplied",
            SealError::DuplicateShare => "given key has already been provided during this generation operation",
            SealError::RekeyPgpCount => "incorrect number of PGP keys for rekey",
            SealError::BackupWithoutPgp => {
                "cannot request a backup of the new keys without providing PGP keys for encryption"
            }
            SealError::NoBackup => "no backed-up keys found",
            SealError::RecoveryUnsupported => "recovery rekeying not supported",
            SealError::GenerateInProgress => "root generation already in progress",
            SealError::NoGenerate => "no root generation in progress",
            SealError::GenerateNonce(n) => {
                return format!("incorrect nonce supplied; nonce for this root generation operation is {n:?}");
            }
            SealError::OtpLength => "OTP string has incorrect length",
            SealError::TokenLength => "length of token and OTP do not match",
            SealError::BadEncodedToken => "error decoding token",
            SealError::RotateOperations => "max_operations must be between 1000000 and 3865470566",
            SealError::RotateInterval => "interval must be 0 or at least 24 hours",
            SealError::Corrupt => "a core record of the storage cannot be read",
        };
        fixed.to_owned()
    }
}

fn combine_text(e: ShamirError) -> &'static str {
    match e {
        ShamirError::Empty => "less than two parts cannot be used to reconstruct the secret",
        ShamirError::TooShort => "parts must be at least two bytes",
        ShamirError::UnequalLengths => "all parts must be the same length",
        ShamirError::DuplicatePoint | ShamirError::ZeroPoint => "duplicate part detected",
        ShamirError::BadThreshold => "threshold cannot exceed parts",
    }
}

/// Reads a share as a client sends it: hexadecimal first, then base64.
pub fn parse_share(text: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if text.is_empty() {
        return Err(SealError::MissingShare);
    }
    let in_range = |b: &Vec<u8>| (MIN_SHARE_BYTES..=MAX_SHARE_BYTES).contains(&b.len());
    // a base64 share may consist of hexadecimal digits alone; its length as such is then out of range
    let as_hex = hex::decode(text).ok();
    if let Some(bytes) = as_hex.clone().filter(in_range) {
        return Ok(Zeroizing::new(bytes));
    }
    STANDARD.decode(text).ok().or(as_hex).map(Zeroizing::new).ok_or(SealError::BadKeyEncoding)
}

/// Shares collected towards a threshold. Zeroed when dropped.
#[derive(Default)]
pub(crate) struct Progress(Vec<Zeroizing<Vec<u8>>>);

impl Progress {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a share; false if it was there.
    pub fn add(&mut self, share: &[u8]) -> Result<bool, SealError> {
        if share.len() < MIN_SHARE_BYTES {
            return Err(SealError::KeyTooShort);
        }
        if share.len() > MAX_SHARE_BYTES {
            return Err(SealError::KeyTooLong);
        }
        if self.0.iter().any(|s| ringfence_base::secret::same_bytes(s, share)) {
            return Ok(false);
        }
        self.0.push(Zeroizing::new(share.to_vec()));
        Ok(true)
    }

    /// Joins what was collected and starts over, whatever comes of it.
    pub fn take_key(&mut self) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        let shares = std::mem::take(&mut self.0);
        let views: Vec<&[u8]> = shares.iter().map(|s| &s[..]).collect();
        let joined = Zeroizing::new(shamir::combine(&views).map_err(SealError::CannotCombine)?);
        let key: [u8; KEY_BYTES] = joined[..].try_into().map_err(|_| SealError::BadKeySize(joined.len()))?;
        Ok(Zeroizing::new(key))
    }
}

/// New shares as they are answered: plain, or encrypted to one OpenPGP key each.
#[derive(Clone, Debug)]
pub struct Shares {
    keys: Vec<Secret<Vec<u8>>>,
    /// Fingerprints in the order of the shares; empty without OpenPGP keys.
    pub fingerprints: Vec<String>,
}

impl Shares {
    /// Splits a key. With OpenPGP keys what is encrypted is the hexadecimal text of a share, as Vault's command line
    /// expects.
    pub(crate) fn make(
        key: &[u8; KEY_BYTES],
        (shares, threshold): (u8, u8),
        pgp_keys: &[pgp::PublicKey],
        rng: &mut dyn Entropy,
    ) -> Result<Shares, SealError> {
        let split = shamir::split(key, shares, threshold, rng).map_err(SealError::CannotCombine)?;
        let split: Vec<_> = split.into_iter().map(Secret::new).collect();
        if pgp_keys.is_empty() {
            return Ok(Shares { keys: split, fingerprints: Vec::new() });
        }
        let mut keys = Vec::with_capacity(split.len());
        for (share, to) in split.iter().zip(pgp_keys) {
            let text = Zeroizing::new(hex::encode(share.expose()));
            keys.push(Secret::new(to.encrypt(text.as_bytes(), rng).map_err(SealError::Pgp)?));
        }
        Ok(Shares { keys, fingerprints: pgp_keys.iter().map(pgp::PublicKey::fingerprint).collect() })
    }

    /// The shares as bytes.
    pub fn raw(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|k| &k.expose()[..])
    }

    /// `keys` of the answer.
    pub fn hex(&self) -> Vec<String> {
        self.raw().map(hex::encode).collect()
    }

    /// `keys_base64` of the answer.
    pub fn base64(&self) -> Vec<String> {
        self.raw().map(|k| STANDARD.encode(k)).collect()
    }
}

/// Parses OpenPGP keys as a client sends them.
pub(crate) fn parse_pgp_keys(texts: &[String]) -> Result<Vec<pgp::PublicKey>, SealError> {
    texts.iter().map(|t| pgp::PublicKey::from_base64(t).map_err(SealError::Pgp)).collect()
}

/// Records that a seal machine wants written, all in one Txn.
#[derive(Debug, Default)]
pub struct KeyRecords {
    pub(crate) clear: Vec<(Key, Vec<u8>)>,
    pub(crate) sealed: Vec<(Key, Zeroizing<Vec<u8>>)>,
    pub(crate) deleted: Vec<Key>,
}

impl KeyRecords {
    /// Writes them into a Txn, which must hold the keyring that is in force before them.
    pub fn write(self, txn: &mut Txn<'_>) {
        txn.guard(&KEYRING);
        txn.guard(&SEAL_CONFIG);
        self.clear.into_iter().for_each(|(key, bytes)| txn.put_clear(key, bytes));
        self.sealed.into_iter().for_each(|(key, plain)| txn.put(key, b"", &plain));
        self.deleted.iter().for_each(|key| txn.delete(key));
    }
}

/// The keys of an unsealed node. Zeroed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Unsealed {
    unseal_key: Secret<[u8; KEY_BYTES]>,
    root_key: Secret<[u8; KEY_BYTES]>,
    keyring: Arc<Keyring>,
}

impl Unsealed {
    /// Fresh keys of a new cluster.
    pub(crate) fn generate(provider: Provider, now: Wall, rng: &mut dyn Entropy) -> Unsealed {
        let keyring = Arc::new(Keyring::generate(provider, now, rng));
        Unsealed::assemble(provider.random_key(rng), provider.random_key(rng), keyring)
    }

    fn assemble(
        unseal_key: Zeroizing<[u8; KEY_BYTES]>,
        root_key: Zeroizing<[u8; KEY_BYTES]>,
        keyring: Arc<Keyring>,
    ) -> Unsealed {
        Unsealed { unseal_key: Secret::new(*unseal_key), root_key: Secret::new(*root_key), keyring }
    }

    /// The same keyring under new unseal and root keys.
    pub(crate) fn rekeyed(&self, unseal_key: &[u8; KEY_BYTES], rng: &mut dyn Entropy) -> Unsealed {
        let root_key = self.provider().random_key(rng);
        Unsealed::assemble(Zeroizing::new(*unseal_key), root_key, self.keyring.clone())
    }

    /// The same unseal and root keys over another keyring.
    pub(crate) fn with_keyring(&self, keyring: Keyring) -> Unsealed {
        Unsealed { keyring: Arc::new(keyring), ..self.clone() }
    }

    /// Opens the root key and the keyring of a view with an unseal key: the check of every set of shares.
    pub fn open(
        provider: Provider,
        view: &dyn View,
        unseal_key: Zeroizing<[u8; KEY_BYTES]>,
    ) -> Result<Unsealed, SealError> {
        let blob = view.get(&ROOT_KEY).ok_or(SealError::NotInitialized)?;
        let root = blob::unwrap(provider, &unseal_key, BlobPurpose::RootKey, blob).map_err(|e| match e {
            OpenError::NotAuthentic => SealError::WrongKey,
            _ => SealError::Corrupt,
        })?;
        let root: [u8; KEY_BYTES] = root[..].try_into().map_err(|_| SealError::Corrupt)?;
        let root = Zeroizing::new(root);
        let keyring = open_keyring(provider, view, &root, None).map_err(|_| SealError::Corrupt)?;
        Ok(Unsealed::assemble(unseal_key, root, Arc::new(keyring)))
    }

    /// Opens another image by the unseal key held, with nothing remembered of the present one: after a restore.
    pub fn reopen(&self, view: &dyn View) -> Result<Unsealed, SealError> {
        Unsealed::open(self.provider(), view, Zeroizing::new(*self.unseal_key.expose()))
    }

    /// Whether an image that is to replace the present one can ever be opened: by the unseal key held, or, if it is
    /// sealed by other keys, as far as the shape of its key records tells.
    ///
    /// # Errors
    /// What is wrong with its key records.
    pub fn check_restorable(&self, view: &dyn View) -> Result<(), SealError> {
        match self.reopen(view) {
            Ok(_) => Ok(()),
            Err(SealError::WrongKey) => {
                let shaped = |key: &[u8], least| view.get(key).is_some_and(|b| blob::is_shaped(b, least));
                if shaped(&ROOT_KEY, KEY_BYTES) && shaped(&KEYRING, 2 * KEY_BYTES) {
                    Ok(())
                } else {
                    Err(SealError::Corrupt)
                }
            }
            Err(e) => Err(e),
        }
    }

    /// Follows a rotation or a rekey that was applied: reads the keyring of a newer view, by the root key held or by
    /// the one that the rekey left sealed for nodes like this. Call it when the core table has changed.
    pub fn refresh(&self, view: &dyn View) -> Result<Unsealed, SealError> {
        let provider = self.provider();
        if let Ok(keyring) = open_keyring(provider, view, self.root_key.expose(), Some(&self.keyring)) {
            return Ok(self.with_keyring(keyring));
        }
        let record = view.get(&HANDOVER).ok_or(SealError::Corrupt)?;
        let plain = self.keyring.open(view, &HANDOVER, record).map_err(|_| SealError::Corrupt)?;
        let both = Zeroizing::new(plain.bytes);
        let (unseal, root) = both.split_first_chunk::<KEY_BYTES>().ok_or(SealError::Corrupt)?;
        let root: [u8; KEY_BYTES] = root.try_into().map_err(|_| SealError::Corrupt)?;
        let keyring = open_keyring(provider, view, &root, Some(&self.keyring)).map_err(|_| SealError::Corrupt)?;
        Ok(Unsealed::assemble(Zeroizing::new(*unseal), Zeroizing::new(root), Arc::new(keyring)))
    }

    /// Splits the unseal key into shares.
    pub(crate) fn split(
        &self,
        numbers: (u8, u8),
        pgp_keys: &[pgp::PublicKey],
        rng: &mut dyn Entropy,
    ) -> Result<Shares, SealError> {
        Shares::make(self.unseal_key.expose(), numbers, pgp_keys, rng)
    }

    /// The keyring, to be shared with every core.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The implementation its keys run on.
    pub fn provider(&self) -> Provider {
        self.keyring.provider()
    }

    /// True if this is the unseal key; in constant time.
    pub(crate) fn is_unseal_key(&self, key: &[u8; KEY_BYTES]) -> bool {
        ringfence_base::secret::same_bytes(self.unseal_key.expose(), key)
    }

    /// Seals something outside the barrier by the unseal key (a snapshot's checksums, a join challenge).
    pub fn seal_blob(&self, purpose: BlobPurpose, plaintext: &[u8], rng: &mut dyn Entropy) -> Vec<u8> {
        blob::wrap(self.provider(), self.unseal_key.expose(), purpose, plaintext, rng)
    }

    /// Opens what [`Unsealed::seal_blob`] made, on any node with the same unseal key.
    pub fn open_blob(&self, purpose: BlobPurpose, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        blob::unwrap(self.provider(), self.unseal_key.expose(), purpose, blob)
    }

    /// The records of root key and keyring.
    pub(crate) fn records(&self, rng: &mut dyn Entropy) -> KeyRecords {
        let (unseal, root) = (self.unseal_key.expose(), self.root_key.expose());
        let blob = blob::wrap(self.provider(), unseal, BlobPurpose::RootKey, root, rng);
        KeyRecords { clear: vec![(ROOT_KEY.to_vec(), blob), self.keyring_record(rng)], ..KeyRecords::default() }
    }

    /// The record by which nodes that hold the present keyring follow to these keys.
    pub(crate) fn handover(&self) -> (Key, Zeroizing<Vec<u8>>) {
        let both = [&self.unseal_key.expose()[..], &self.root_key.expose()[..]].concat();
        (HANDOVER.to_vec(), Zeroizing::new(both))
    }

    /// The keyring's record alone.
    pub(crate) fn keyring_record(&self, rng: &mut dyn Entropy) -> (Key, Vec<u8>) {
        let plain = self.keyring.encode();
        let blob = blob::wrap(self.provider(), self.root_key.expose(), BlobPurpose::Keyring, &plain, rng);
        (KEYRING.to_vec(), blob)
    }
}

fn open_keyring(
    provider: Provider,
    view: &dyn View,
    root: &[u8; KEY_BYTES],
    previous: Option<&Keyring>,
) -> Result<Keyring, OpenError> {
    let blob = view.get(&KEYRING).ok_or(OpenError::Malformed)?;
    Keyring::decode(provider, &blob::unwrap(provider, root, BlobPurpose::Keyring, blob)?, previous)
}
