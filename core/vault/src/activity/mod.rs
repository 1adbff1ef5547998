//! Who was active: which clients used the server in which month, for `sys/internal/counters`.
//!
//! A client is an entity, or, of tokens without one, the set of their policies in their namespace. It counts once a
//! month, with its first use, at the auth method that gave the token. Root and wrapping tokens are nobody. Off unless
//! switched on, as in Vault.
//!
//! ```text
//! request ──> its holder is known to be counted until ...? ──> nothing to do
//!               └─> the month's row stands in the image?   ──> known until the month ends
//!                     └─> Waiting, shared by all cores     ──every few seconds──> the owner writes rows, one batch
//! ```
//!
//! A request writes nothing to the log and waits for nothing; a client that this core remembers costs a comparison.
//! What waits when the process dies is not lost for long: its clients are noted again when they come again. Reports
//! count what waits too.

mod report;

pub use report::{Line, Report, month_json, namespaces_json};

use crate::host::CoreState;
use crate::mount::Router;
use crate::sys::CONFIG_ACTIVITY;
use crate::tables::{self, Hash};
use crate::token::check::Holder;
use crate::token::entry::TokenEntry;
use crate::wrap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::Txn;
use ringfence_base::time::Civil;
use ringfence_base::{Index, MountId, NsId, Wall};
use ringfence_crypto::sha256;
use ringfence_logical::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Clients that wait to be written at most; further ones are noted when there is room again.
const MAX_WAITING: usize = 100_000;
/// Rows written or removed in one batch.
const MAX_ROWS_A_BATCH: usize = 1_000;
/// Seconds between two batches of rows.
pub const WRITE_EVERY_SECONDS: u64 = 5;
/// Seconds after which a client that found no room is looked at again.
const NO_ROOM_SECONDS: u64 = 10;
/// Bytes of a key before the month, the client, the namespace, the mount and the kind.
const KEY_BYTES: usize = 1 + 4 + 16 + 4 + 4 + 1;

/// What is set, at `sys/internal/counters/config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `default` (off), `enable` or `disable`.
    pub enabled: String,
    /// Months that rows are kept.
    pub retention_months: u32,
    /// Months that a report goes back if it is not told.
    pub default_report_months: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        // source: Vault's defaults; 48 months since 1.17
        Settings { enabled: "default".into(), retention_months: 48, default_report_months: 12 }
    }
}

impl Settings {
    /// Whether clients are counted.
    pub fn is_on(&self) -> bool {
        self.enabled == "enable"
    }

    /// As they stand in the view; the read is not recorded.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn peek(txn: &Txn<'_>) -> Result<Settings, Error> {
        let rows = crate::lease::peek(txn, &tables::config(NsId::ROOT, CONFIG_ACTIVITY), None, 1)?;
        match rows.first() {
            None => Ok(Settings::default()),
            Some((_, p)) => serde_json::from_slice(&p.bytes)
                .map_err(|e| Error::internal(format!("stored configuration {CONFIG_ACTIVITY:?}: {e}"))),
        }
    }
}

/// A calendar month, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(pub u32);

impl Month {
    /// The month of a time.
    pub fn of(t: Wall) -> Month {
        let c = Civil::of(t);
        Month(c.year as u32 * 12 + c.month - 1)
    }

    /// So many months earlier.
    pub fn minus(self, months: u32) -> Month {
        Month(self.0.saturating_sub(months))
    }

    /// The month after.
    pub fn next(self) -> Month {
        Month(self.0 + 1)
    }

    /// Its first moment; zero for months before 1970.
    pub fn begin(self) -> Wall {
        let text = format!("{:04}-{:02}-01T00:00:00Z", self.0 / 12, self.0 % 12 + 1);
        Wall::parse_rfc3339(&text).unwrap_or_default()
    }

    /// Its last second.
    pub fn last_second(self) -> Wall {
        Wall::from_seconds(self.next().begin().seconds().saturating_sub(1))
    }
}

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An entity.
    Entity,
    /// Tokens without an entity.
    Token,
}

/// What a holder remembers of having been counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    until: Wall,
    /// When any configuration had last changed.
    settings: Index,
}

/// The first use of a client in a month.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstUse {
    /// Namespace of the token.
    pub ns: NsId,
    /// Auth method that gave it.
    pub mount: MountId,
    /// Entity or not.
    pub kind: Kind,
    /// When.
    pub at: Wall,
    /// As the API names it.
    pub client_id: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    at: Wall,
}

/// Clients that are not in the image yet. One for all cores of a process.
#[derive(Default)]
pub struct Waiting(Mutex<BTreeMap<(Month, Hash), FirstUse>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Month, Hash), FirstUse>> {
        // a map of finished entries is whole whoever panicked
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client in; false if there is no room.
    fn add(&self, month: Month, client: Hash, first: FirstUse) -> bool {
        let mut all = self.lock();
        if all.len() >= MAX_WAITING {
            return false;
        }
        all.entry((month, client)).or_insert(first);
        true
    }
}

/// How the API names the client behind a token: its entity, or the hash of policies and namespace.
pub fn client_id(entry: &TokenEntry, namespace: &str) -> String {
    if !entry.entity_id.is_empty() {
        return entry.entity_id.clone();
    }
    // policies are sorted already, and hold neither of the separators
    let text = format!("{}.{namespace}", entry.policies.join("\x7f"));
    STANDARD.encode(sha256(text.as_bytes()))
}

/// As [`client_id`], of a token that was proved; nobody stands behind a wrapping token.
pub fn client_of<'h>(router: &Router, holder: &'h Holder) -> Option<&'h str> {
    let named = holder.client.get_or_init(|| {
        let entry = &holder.entry;
        let namespace = router.namespace_by_id(entry.ns).map_or("", |n| n.external_id.as_str());
        if wrap::is_wrapping(entry) { String::new() } else { client_id(entry, namespace) }
    });
    Some(named.as_str()).filter(|name| !name.is_empty())
}

/// Notes that a token was used, after the policy let the request through.
///
/// # Errors
/// The view cannot be read.
pub fn note(core: &CoreState, txn: &Txn<'_>, router: &Router, holder: &Holder, now: Wall) -> Result<(), Error> {
    let settings = txn.changed(tables::CONFIG, None);
    let counted = holder.counted.get();
    if now < counted.until && counted.settings == settings {
        return Ok(());
    }
    let until = judge(core, txn, router, holder, now)?;
    holder.counted.set(Counted { until, settings });
    Ok(())
}

/// Until when nothing is to be done about this client.
fn judge(core: &CoreState, txn: &Txn<'_>, router: &Router, holder: &Holder, now: Wall) -> Result<Wall, Error> {
    let entry = &holder.entry;
    let month = Month::of(now);
    let end = month.next().begin();
    let is_root = entry.policies.iter().any(|p| p == "root");
    let Some(client_id) = client_of(router, holder).filter(|_| !is_root) else { return Ok(end) };
    if !Settings::peek(txn)?.is_on() {
        return Ok(end);
    }
    let client = hash_of(client_id);
    if stands(txn, month, &client) {
        return Ok(end);
    }
    let kind = if entry.entity_id.is_empty() { Kind::Token } else { Kind::Entity };
    let first = FirstUse { ns: entry.ns, mount: entry.mount, kind, at: now, client_id: client_id.to_owned() };
    match core.vault.activity.add(month, client, first) {
        true => Ok(end),
        false => Ok(now.plus_seconds(NO_ROOM_SECONDS)),
    }
}

fn hash_of(client_id: &str) -> Hash {
    let mut short = Hash::default();
    short.copy_from_slice(&sha256(client_id.as_bytes())[..16]);
    short
}

fn stands(txn: &Txn<'_>, month: Month, client: &Hash) -> bool {
    txn.view().count_prefix(&tables::activity(month.0, client)) > 0
}

/// Rows of a range of months, up to a limit, oldest first: by key alone.
fn rows<'v>(txn: &Txn<'v>, from: Month, to: Month) -> impl Iterator<Item = (&'v [u8], &'v [u8])> {
    let (from, to) = (tables::activity(from.0, &[]), tables::activity(to.next().0, &[]));
    txn.view().scan(Bound::Included(&from), Bound::Excluded(&to))
}

/// What a key tells: month, client, namespace, mount, kind.
fn read_key(key: &[u8]) -> Option<(Month, Hash, NsId, MountId, Kind)> {
    if key.len() != KEY_BYTES {
        return None;
    }
    let be32 = |at: usize| key[at..at + 4].try_into().map(u32::from_be_bytes).ok();
    let kind = if key[29] == 0 { Kind::Entity } else { Kind::Token };
    Some((Month(be32(1)?), key[5..21].try_into().ok()?, NsId(be32(21)?), MountId(be32(25)?), kind))
}

fn key_of(month: Month, client: &Hash, first: &FirstUse) -> Vec<u8> {
    let mut key = tables::activity(month.0, client);
    key.extend_from_slice(&first.ns.0.to_be_bytes());
    key.extend_from_slice(&first.mount.0.to_be_bytes());
    key.push(u8::from(first.kind == Kind::Token));
    key
}

/// One batch of the owner's: rows of clients that wait, and the end of rows that are too old. What waits goes on
/// waiting until it is seen in the image, so a batch that comes to nothing is written again. True if anything is to
/// be committed.
///
/// # Errors
/// The view cannot be read.
pub fn write(txn: &mut Txn<'_>, waiting: &Waiting, now: Wall) -> Result<bool, Error> {
    let settings = Settings::peek(txn)?;
    let this = Month::of(now);
    let (on, mut written) = (settings.is_on(), 0);
    {
        let mut all = waiting.lock();
        if !on {
            all.clear();
        }
        all.retain(|(month, client), _| !stands(txn, *month, client));
        for ((month, client), first) in all.iter().take(MAX_ROWS_A_BATCH) {
            let row = Row { id: first.client_id.clone(), at: first.at };
            let bytes = serde_json::to_vec(&row).expect("a row always serialises");
            txn.put(key_of(*month, client, first), &[], &bytes);
            written += 1;
        }
    }
    // switched off, the month that runs is forgotten, as in Vault
    let old = (Month(0), this.minus(settings.retention_months.saturating_add(1)));
    let running = (!on).then_some((this, this));
    for (from, to) in std::iter::once(old).chain(running) {
        let stale: Vec<Vec<u8>> = rows(txn, from, to).take(MAX_ROWS_A_BATCH).map(|(k, _)| k.to_vec()).collect();
        for key in stale {
            txn.delete(&key);
            written += 1;
        }
    }
    Ok(written > 0)
}

/// True if any row stands in the image.
pub fn has_rows(txn: &Txn<'_>) -> bool {
    txn.view().count_prefix(&[tables::ACTIVITY]) > 0
}

#[cfg(test)]
mod tests;
