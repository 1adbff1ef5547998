//! Makes tokens and ends them. What a token may be is decided by who calls ([`super::create`], [`super::login`],
//! wrapping); here it gets its id, its rows, and its end.
//!
//! ```text
//! service   hvs.<24 base62>[.namespace]        three rows: token, accessor, later a cubbyhole
//! batch     hvb.<base64url of sealed bytes>[.namespace]   no row at all
//! ```

use super::check::{self, suffix};
use super::entry::{MAX_DEPTH, TokenEntry, TokenKind};
use super::{ACCESSOR_HASH, BATCH_PREFIX, SERVICE_PREFIX, TOKEN_HASH};
use crate::lease::tombstone;
use crate::mount::Router;
use crate::tables::{self, Hash};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_barrier::{Keyring, Sealer, Txn};
use ringfence_base::{Entropy, MountId, NsId, Wall, Writer, entropy};
use ringfence_logical::Error;
use std::cell::RefCell;

/// Random characters of a token, an accessor and a lease: 143 bits.
pub const RANDOM_CHARS: usize = 24;
/// Rows of a cubbyhole that die in the same transaction as their token.
const MAX_CUBBYHOLE_ROWS: usize = 64;
/// Where every namespace has its cubbyholes.
pub const CUBBYHOLE_PATH: &str = "cubbyhole/";

/// Makes a service token of an entry and writes its rows. Accessor and era of the entry are filled in. `id` is a
/// custom id, already judged.
///
/// # Errors
/// `cannot create a token with a duplicate ID`; a chain of parents that is too long.
pub fn service(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    rng: &mut dyn Entropy,
    entry: &mut TokenEntry,
    id: Option<String>,
) -> Result<(String, Hash), Error> {
    if entry.depth > MAX_DEPTH {
        return Err(Error::invalid(format!("token has more than {MAX_DEPTH} ancestors")));
    }
    let suffix = suffix(router, entry.ns);
    let custom = id.is_some();
    let token = id.unwrap_or_else(|| format!("{SERVICE_PREFIX}{}{suffix}", entropy::base62(rng, RANDOM_CHARS)));
    let hash = keyring.index_hash(TOKEN_HASH, token.as_bytes());
    if custom && (txn.exists(&tables::token(&hash)) || tombstone::is_orphaned(txn, &hash)) {
        return Err(Error::invalid("cannot create a token with a duplicate ID"));
    }
    entry.kind = TokenKind::Service;
    entry.accessor = format!("{}{suffix}", entropy::base62(rng, RANDOM_CHARS));
    entry.era = tombstone::era(txn)?;
    check::save(txn, &hash, entry);
    let mut row = Writer::new();
    row.text(&entry.accessor).raw(&hash);
    txn.put(accessor_key(keyring, entry), &[], &row.finish());
    Ok((token, hash))
}

/// Makes a batch token of an entry. Writes nothing.
pub fn batch(
    txn: &mut Txn<'_>,
    sealer: &RefCell<Sealer>,
    router: &Router,
    entry: &mut TokenEntry,
) -> Result<String, Error> {
    entry.kind = TokenKind::Batch;
    entry.accessor = String::new();
    entry.renewable = false;
    // never renewed, so there is nothing to give back to the method
    entry.internal = String::new();
    entry.era = tombstone::era(txn)?;
    let blob = sealer.borrow_mut().seal_batch_token(&entry.encode());
    Ok(format!("{BATCH_PREFIX}{}{}", URL_SAFE_NO_PAD.encode(blob), suffix(router, entry.ns)))
}

/// Path of the tokens that [`root`] makes; no request can lead to it.
pub const ROOT_PATH: &str = "auth/token/root";

/// Makes a root token: initialisation and `generate-root`. `ttl` in seconds, 0 = it never expires.
#[allow(clippy::too_many_arguments)]
pub fn root(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    rng: &mut dyn Entropy,
    token_mount: MountId,
    now: Wall,
    ttl: u64,
    id: Option<String>,
) -> Result<(String, TokenEntry), Error> {
    let mut entry = TokenEntry {
        ns: NsId::ROOT,
        mount: token_mount,
        policies: vec!["root".into()],
        path: ROOT_PATH.into(),
        display_name: "root".into(),
        created: now,
        creation_ttl: ttl,
        due: if ttl > 0 { now.plus_seconds(ttl) } else { Wall::default() },
        ..TokenEntry::default()
    };
    let (token, _) = service(txn, keyring, router, rng, &mut entry, id)?;
    Ok((token, entry))
}

/// Ends a service token: its record, accessor and cubbyhole go now. What it owns, children and leases, is dead with it
/// and is worked off by the owner, who learns of it from the deletion. A batch token is left alone.
pub fn revoke(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    hash: &Hash,
    entry: &TokenEntry,
) -> Result<(), Error> {
    revoke_counted(txn, keyring, router, hash, entry).map(drop)
}

/// As [`revoke`]; answers how many rows it deleted.
pub fn revoke_counted(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    hash: &Hash,
    entry: &TokenEntry,
) -> Result<usize, Error> {
    if entry.kind == TokenKind::Batch {
        return Ok(0);
    }
    txn.delete(&tables::token(hash));
    txn.delete(&accessor_key(keyring, entry));
    let Some(cubbyhole) = router.at(txn, entry.ns, CUBBYHOLE_PATH)?.map(|m| m.entry.id) else { return Ok(2) };
    let rows = txn.list(&tables::cubbyhole(cubbyhole, hash, ""), None, MAX_CUBBYHOLE_ROWS);
    for key in &rows {
        txn.delete(key);
    }
    if rows.len() == MAX_CUBBYHOLE_ROWS {
        let now = txn.log_time();
        tombstone::cubbyhole_rest(txn, now, cubbyhole, hash);
    }
    Ok(2 + rows.len())
}

/// As [`revoke`], but the children live on without a parent. Leases die with the token all the same.
pub fn revoke_orphan(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    now: Wall,
    hash: &Hash,
    entry: &TokenEntry,
) -> Result<(), Error> {
    revoke(txn, keyring, router, hash, entry)?;
    if entry.kind == TokenKind::Service {
        tombstone::orphaned(txn, now, hash);
    }
    Ok(())
}

fn accessor_key(keyring: &Keyring, entry: &TokenEntry) -> Vec<u8> {
    tables::accessor(entry.ns, &keyring.index_hash(ACCESSOR_HASH, entry.accessor.as_bytes()))
}
