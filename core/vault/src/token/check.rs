//! From the text a client sends to a token that is alive.
//!
//! Everything that speaks for the token is in the transaction's read set: its record, each ancestor's, its mount's,
//! its namespace's, the cut-offs, the counter of mass revocations. A write that a revocation has overtaken loses.
//!
//! Called by the pipeline for every request; never writes, but for the count of a use.

use super::entry::{MAX_DEPTH, TokenEntry, TokenKind};
use super::{ACCESSOR_HASH, BATCH_PREFIX, TOKEN_HASH, cutoff};
use crate::activity::Counted;
use crate::jwt;
use crate::lease::tombstone;
use crate::mount::Router;
use crate::namespace::Namespace;
use crate::tables::{self, Hash};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_barrier::{Keyring, Txn};
use ringfence_base::{NsId, Reader, Secret, Wall, limit};
use ringfence_logical::{Error, cx};
use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::sync::Arc;

/// A verified token.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What it is.
    pub entry: TokenEntry,
    /// Keyed hash of the id; zero for a batch token.
    pub hash: Hash,
    /// As the client sent it.
    pub raw: Secret<String>,
    /// The first end among its own time and those of its ancestors; `None` if none of them ends.
    pub until: Option<Wall>,
    /// Whether it has been counted as an active client.
    pub counted: Cell<Counted>,
    /// The client behind it, once somebody asked; empty for a wrapping token.
    pub client: OnceCell<String>,
}

impl Holder {
    /// True for a token that is not stored.
    pub fn is_batch(&self) -> bool {
        self.entry.kind == TokenKind::Batch
    }

    /// Who owns what this token makes: the token, or the parent of a batch token; zero = nobody.
    pub fn owner(&self) -> Hash {
        match self.entry.kind {
            TokenKind::Service => self.hash,
            TokenKind::Batch => self.entry.parent.unwrap_or_default(),
        }
    }
}

/// Verifies a caller's token: alive, and used from where it may be. A token whose last use is under way passes; its
/// `num_uses` is negative.
///
/// # Errors
/// 403 for anything that is not a living token.
pub fn authenticate(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    raw: &str,
    now: Wall,
    remote: Option<IpAddr>,
) -> Result<Holder, Error> {
    let holder = find(txn, keyring, router, raw, now)?.ok_or_else(Error::bad_token)?;
    // source: Vault binds every token but a root token that never expires
    let unbound = holder.entry.is_root() && holder.entry.due.0 == 0;
    if !unbound && !cx::cidr_allows(&holder.entry.bound_cidrs, remote) {
        return Err(Error::denied_plain());
    }
    Ok(holder)
}

/// Finds a living token by its text; `None` for everything else.
pub fn find(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    raw: &str,
    now: Wall,
) -> Result<Option<Holder>, Error> {
    if raw.is_empty() || raw.len() > limit::MAX_TOKEN_BYTES || !raw.is_ascii() {
        return Ok(None);
    }
    if jwt::is_one(raw) {
        return match jwt::inside(txn, raw)? {
            Some(inner) => find(txn, keyring, router, &inner, now),
            None => Ok(None),
        };
    }
    if let Some(body) = raw.strip_prefix(BATCH_PREFIX) {
        let found = open_batch(txn, keyring, router, body, now)?;
        return Ok(found.map(|(entry, until)| Holder {
            entry,
            hash: Hash::default(),
            raw: secret(raw),
            until,
            counted: Cell::default(),
            client: OnceCell::new(),
        }));
    }
    let hash = keyring.index_hash(TOKEN_HASH, raw.as_bytes());
    let found = living(txn, router, &hash, now)?;
    Ok(found.map(|(entry, until)| Holder {
        entry,
        hash,
        raw: secret(raw),
        until,
        counted: Cell::default(),
        client: OnceCell::new(),
    }))
}

fn secret(raw: &str) -> Secret<String> {
    Secret::new(raw.to_owned())
}

/// Reads a service token by hash if it is alive: not past its time, mount and namespace there, not under a tombstone,
/// and every ancestor alive.
pub fn alive(txn: &mut Txn<'_>, router: &Router, hash: &Hash, now: Wall) -> Result<Option<TokenEntry>, Error> {
    Ok(living(txn, router, hash, now)?.map(|(entry, _)| entry))
}

/// As [`alive`], with the first end among the token's time and its ancestors'.
fn living(
    txn: &mut Txn<'_>,
    router: &Router,
    hash: &Hash,
    now: Wall,
) -> Result<Option<(TokenEntry, Option<Wall>)>, Error> {
    let Some(entry) = load(txn, hash)? else { return Ok(None) };
    if !stands(txn, router, &entry, now)? {
        return Ok(None);
    }
    let (mut above, mut until) = (entry.parent, entry.end());
    for _ in 0..=MAX_DEPTH {
        let Some(parent) = above else { return Ok(Some((entry, until))) };
        above = match load(txn, &parent)? {
            Some(p) if stands(txn, router, &p, now)? => {
                until = earlier(until, p.end());
                p.parent
            }
            Some(_) => return Ok(None),
            // revoked with revoke-orphan: those below it live on
            None if tombstone::is_orphaned(txn, &parent) => None,
            None => return Ok(None),
        };
    }
    Ok(None)
}

fn earlier(a: Option<Wall>, b: Option<Wall>) -> Option<Wall> {
    [a, b].into_iter().flatten().min()
}

/// A living token by accessor: its hash and record. Accessors of another namespace are not found.
pub fn by_accessor(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    ns: NsId,
    accessor: &str,
    now: Wall,
) -> Result<Option<(Hash, TokenEntry)>, Error> {
    if accessor.is_empty() || accessor.len() > limit::MAX_TOKEN_BYTES {
        return Ok(None);
    }
    // an accessor that names another namespace was taken there with its whole request; here it is nobody's
    let row = tables::accessor(ns, &keyring.index_hash(ACCESSOR_HASH, accessor.as_bytes()));
    let Some(plain) = txn.get(&row)? else { return Ok(None) };
    let (_, hash) = decode_accessor(&plain.bytes)?;
    Ok(alive(txn, router, &hash, now)?.filter(|e| e.num_uses >= 0).map(|e| (hash, e)))
}

/// The record of an accessor: its text and the token's hash.
pub fn decode_accessor(bytes: &[u8]) -> Result<(String, Hash), Error> {
    let mut r = Reader::new(bytes);
    let text = r.text(1024)?.to_owned();
    let hash = r.raw(16)?.try_into().expect("raw(16) gives sixteen bytes");
    r.end()?;
    Ok((text, hash))
}

/// Reads the record of a service token, dead or alive.
pub fn load(txn: &mut Txn<'_>, hash: &Hash) -> Result<Option<TokenEntry>, Error> {
    match txn.get(&tables::token(hash))? {
        None => Ok(None),
        Some(p) => Ok(Some(TokenEntry::decode(&p.bytes)?)),
    }
}

/// Writes the record of a service token.
pub fn save(txn: &mut Txn<'_>, hash: &Hash, entry: &TokenEntry) {
    txn.put(tables::token(hash), &entry.header().encode(), &entry.encode());
}

/// Requests whose use is counted finish within this many seconds; then a spent token ends.
const SPENT_SECONDS: u64 = 120;

/// Counts one use of a use-limited token: its record with one less, or spent (-1) when this was the last. A spent
/// token takes no further request; it ends a little later, because requests that were counted before may still run.
pub fn count_use(txn: &mut Txn<'_>, holder: &Holder, now: Wall) {
    let mut entry = holder.entry.clone();
    entry.num_uses = if entry.num_uses <= 1 { -1 } else { entry.num_uses - 1 };
    let end = now.plus_seconds(SPENT_SECONDS);
    if entry.num_uses < 0 && (entry.due.0 == 0 || entry.due > end) {
        entry.due = end;
    }
    save(txn, &holder.hash, &entry);
}

/// The namespace whose tokens, accessors and leases carry this suffix.
pub fn namespace_by_external_id<'r>(router: &'r Router, external_id: &str) -> Option<&'r Arc<Namespace>> {
    router.namespace_by_external_id(external_id)
}

/// The suffix of what is made in a namespace: empty in root, else a dot and its short name.
pub fn suffix(router: &Router, ns: NsId) -> String {
    match router.namespace_by_id(ns) {
        Some(n) if ns != NsId::ROOT => format!(".{}", n.external_id),
        _ => String::new(),
    }
}

/// What a token's own record says, without its ancestors.
fn stands(txn: &mut Txn<'_>, router: &Router, entry: &TokenEntry, now: Wall) -> Result<bool, Error> {
    if entry.is_expired(now) {
        return Ok(false);
    }
    txn.guard(&tables::mount(entry.mount));
    txn.guard(&tables::namespace(entry.ns));
    if router.by_id(txn, entry.ns, entry.mount)?.is_none() || router.namespace_by_id(entry.ns).is_none() {
        return Ok(false);
    }
    Ok(!tombstone::covers(txn, tombstone::TOKENS, entry.mount, &entry.path, entry.era)?)
}

/// Opens a batch token: authentic, not past its time, mount and namespace there, parent alive, not cut off.
fn open_batch(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    body: &str,
    now: Wall,
) -> Result<Option<(TokenEntry, Option<Wall>)>, Error> {
    let (text, external_id) = body.split_once('.').unwrap_or((body, ""));
    let mut blob = Vec::with_capacity(text.len());
    if URL_SAFE_NO_PAD.decode_vec(text, &mut blob).is_err() {
        return Ok(None);
    }
    let Ok(bytes) = keyring.open_batch_token(&blob) else { return Ok(None) };
    let entry = TokenEntry::decode(&bytes)?;
    let home = suffix(router, entry.ns);
    if entry.kind != TokenKind::Batch || home.strip_prefix('.').unwrap_or("") != external_id {
        return Ok(None);
    }
    if !stands(txn, router, &entry, now)? {
        return Ok(None);
    }
    let mut until = entry.end();
    if let Some(parent) = &entry.parent {
        let Some((_, above)) = living(txn, router, parent, now)? else { return Ok(None) };
        until = earlier(until, above);
    }
    Ok((!cutoff::covers(txn, &entry)?).then_some((entry, until)))
}
