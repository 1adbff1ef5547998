//! Init: the keys of a new cluster, its shares, and the records that let it be unsealed.
//!
//! Driven by the owner of a node whose image is empty. It writes nothing itself and mints no root token: the caller
//! does that in the same Txn, with the keyring it is handed.

use crate::issuer::Issuer;
use crate::keys::{ROTATE_CONFIG, SEAL_CONFIG, USAGE};
use crate::rotate::{RotateConfig, Usage};
use crate::seal::{KeyRecords, SealConfig, SealError, SealKind, Shares, Unsealed, check_shares, parse_pgp_keys};
use crate::view::View;
use ringfence_base::{Entropy, Wall};
use ringfence_crypto::{Provider, pgp};

/// What the client asked for.
#[derive(Clone, Debug, Default)]
pub struct InitParams {
    /// `secret_shares`.
    pub secret_shares: i64,
    /// `secret_threshold`.
    pub secret_threshold: i64,
    /// `pgp_keys`: base64 of binary OpenPGP keys, one a share or none.
    pub pgp_keys: Vec<String>,
    /// `root_token_pgp_key`: base64 of a binary OpenPGP key.
    pub root_token_pgp_key: Option<String>,
    /// Name of the node, for the issuer's record.
    pub node: String,
}

/// A cluster about to exist.
#[derive(Debug)]
pub struct Initialized {
    /// To be written first, in the same Txn as root token and default mounts.
    pub records: KeyRecords,
    /// The shares to answer, once the batch is committed.
    pub shares: Shares,
    /// The keys in force. The node forgets them after the Txn: init leaves it sealed.
    pub unsealed: Unsealed,
    /// Issuer 1, registered by `records`; it may seal the records of the same batch.
    pub issuer: Issuer,
    /// To encrypt the root token to, if asked.
    pub root_token_key: Option<pgp::PublicKey>,
}

/// Makes a cluster's keys.
///
/// # Errors
/// An image that is initialised, numbers of shares that cannot be, unusable OpenPGP keys.
pub fn run(
    params: &InitParams,
    view: &dyn View,
    provider: Provider,
    now: Wall,
    rng: &mut dyn Entropy,
) -> Result<Initialized, SealError> {
    if SealConfig::load(view)?.is_some() {
        return Err(SealError::AlreadyInitialized);
    }
    let numbers = check_shares(params.secret_shares, params.secret_threshold, params.pgp_keys.len())
        .map_err(SealError::InvalidSealConfig)?;
    let pgp_keys = parse_pgp_keys(&params.pgp_keys)?;
    let root_token_key = params.root_token_pgp_key.as_deref().map(pgp::PublicKey::from_base64);
    let root_token_key = root_token_key.transpose().map_err(SealError::Pgp)?;

    let unsealed = Unsealed::generate(provider, now, rng);
    let shares = unsealed.split(numbers, &pgp_keys, rng)?;
    let config = SealConfig {
        kind: SealKind::Shamir,
        shares: numbers.0,
        threshold: numbers.1,
        pgp_fingerprints: shares.fingerprints.clone(),
        backup: false,
    };
    let issuer = Issuer::draw(1, rng);
    let mut records = unsealed.records(rng);
    let (issuer_key, issuer_value) = issuer.record(&params.node, now);
    records.clear.extend([
        (SEAL_CONFIG.to_vec(), config.encode()),
        (ROTATE_CONFIG.to_vec(), RotateConfig::default().encode()),
        (USAGE.to_vec(), Usage { term: 1, encryptions: 0 }.encode()),
        (issuer_key.to_vec(), issuer_value),
    ]);
    Ok(Initialized { records, shares, unsealed, issuer, root_token_key })
}
