//! `sys/leases/*` and the older `sys/renew`, `sys/revoke*`. A revocation by prefix is one committed tombstone; it
//! counts from its commit on and is answered at once.

use crate::host::host;
use crate::lease::{self, Standing, engine, tombstone};
use crate::mount::{MountEntry, Routed};
use crate::page;
use crate::tables;
use crate::token::entry::TokenEntry;
use crate::token::paths::tidy_started;
use crate::token::ttl;
use ringfence_base::{MountId, NsId, Reader};
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Class, Cx, Error, Field, Map, Outcome, Path, Response, nothing};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows of the irrevocable list by default. Source: Vault's documented limit.
const DEFAULT_LIMIT: usize = 10_000;
/// Token records that one list reads at most: they stand by hash, not by path.
const MAX_TOKENS_READ: usize = 50_000;

const LEASE_ID: Field = Field::str("lease_id", "The lease.");
const URL_ID: Field = Field::str("url_lease_id", "The lease, as part of the path.");
const INCREMENT: Field = Field::seconds("increment", "Wanted time from now on, seconds or a duration.");
const SYNC: Field =
    Field::bool("sync", "Answer when the work is done, else when it is queued.").preset(Preset::Bool(true));
const PREFIX: Field = Field::str("prefix", "Path below which leases are meant, for instance database/creds/web.");
const RENEW: &[Field] = &[LEASE_ID, URL_ID, INCREMENT];
const REVOKE: &[Field] = &[LEASE_ID, URL_ID, SYNC];
const BELOW: &[Field] = &[PREFIX, SYNC];
const LIST_FIELDS: &[Field] = &[
    Field::str("type", "Kind of lease: irrevocable.").query(),
    Field::str("limit", "Most leases shown; none for all.").query(),
    Field::bool("include_child_namespaces", "Count those of child namespaces too.").query(),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("leases/lookup").computes().fields(&[LEASE_ID]).help("What is known of a lease.", "").write(lookup),
    Path::new("leases/lookup/{prefix..?}")
        .computes()
        .fields(&[PREFIX, page::AFTER, page::LIMIT])
        .sudo()
        .help("Leases and folders below a path; scanned: every lease below it.", "")
        .list(list)
        .scan(scan),
    Path::new("leases/renew/?").fields(RENEW).help("Renew a lease.", "").write(renew),
    Path::new("leases/renew/{url_lease_id..}").fields(RENEW).help("Renew a lease.", "").write(renew),
    Path::new("leases/revoke/?").fields(REVOKE).help("Revoke a lease.", "").write(revoke),
    Path::new("leases/revoke/{url_lease_id..}").fields(REVOKE).help("Revoke a lease.", "").write(revoke),
    Path::new("leases/revoke-prefix/{prefix..}")
        .fields(BELOW)
        .sudo()
        .help("Revoke every lease or token below a path.", "")
        .write(revoke_prefix),
    Path::new("leases/revoke-force/{prefix..}")
        .fields(BELOW)
        .sudo()
        .help("As revoke-prefix, and give up leases that their engine cannot revoke.", "")
        .write(revoke_force),
    Path::new("leases/tidy")
        .sudo()
        .help("Nothing here needs tidying; kept for clients that call it.", "")
        .write(tidy),
    Path::new("leases/count").fields(LIST_FIELDS).help("Counts leases of a kind by mount.", "").read(count),
    Path::new("leases").fields(LIST_FIELDS).sudo().help("Lists irrevocable leases.", "").read(irrevocable),
    Path::new("renew/?").fields(RENEW).help("Old name of leases/renew.", "").write(renew),
    Path::new("renew/{url_lease_id..}").fields(RENEW).help("Old name of leases/renew.", "").write(renew),
    Path::new("revoke/?").fields(REVOKE).help("Old name of leases/revoke.", "").write(revoke),
    Path::new("revoke/{url_lease_id..}").fields(REVOKE).help("Old name of leases/revoke.", "").write(revoke),
    Path::new("revoke-prefix/{prefix..}")
        .fields(BELOW)
        .sudo()
        .help("Old name of leases/revoke-prefix.", "")
        .write(revoke_prefix),
    Path::new("revoke-force/{prefix..}")
        .fields(BELOW)
        .sudo()
        .help("Old name of leases/revoke-force.", "")
        .write(revoke_force),
];

fn id(args: &Args) -> String {
    // the body wins over the path
    let body = args.str("lease_id");
    if body.is_empty() { args.str("url_lease_id") } else { body }.to_owned()
}

fn lookup(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let id = id(args);
    if id.is_empty() {
        return Err(Error::invalid("lease_id must be specified"));
    }
    let invalid = || Error::invalid("invalid lease");
    let h = host(cx);
    let (routed, key_path) = lease::locate(cx.txn, &h.router, &h.namespace, &id)?.ok_or_else(invalid)?;
    let mount = routed.entry.id;
    let found = lease::load(cx.txn, mount, &key_path)?.ok_or_else(invalid)?;
    let standing = lease::standing(cx.txn, &h.router, (h.namespace.id, mount), &key_path, &found, cx.now)?;
    if !matches!(standing, Standing::Alive | Standing::Irrevocable) {
        return Err(invalid());
    }
    let renewed = (found.last_renewal.0 != 0).then(|| found.last_renewal.rfc3339());
    Response::json(json!({
        "id": id,
        "issue_time": found.issued.rfc3339(),
        "expire_time": found.due.rfc3339(),
        "last_renewal": renewed,
        "renewable": found.renewable && standing == Standing::Alive,
        "ttl": ttl::left(found.due, cx.now),
    }))
    .done()
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    shown_below(cx, args, Depth::Level)
}

fn scan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    shown_below(cx, args, Depth::All)
}

/// How deep a listing goes.
#[derive(Clone, Copy, PartialEq)]
enum Depth {
    /// Leases and folders.
    Level,
    /// Every lease.
    All,
}

/// Rows looked at at a time while a page is filled: leases that ended are in the table and not on the page.
const STRETCH: usize = 1000;

fn shown_below(cx: &mut Cx<'_, '_>, args: &Args, depth: Depth) -> Outcome {
    let h = host(cx);
    let home = &h.namespace;
    let prefix = args.str("prefix").trim_start_matches('/');
    let prefix = if prefix.is_empty() || prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
    let suffix = crate::token::check::suffix(&h.router, home.id);
    let limit = page::limit(args);
    let after = args.str("after");
    let after = after.strip_suffix(suffix.as_str()).unwrap_or(after);
    let Some((routed, inner)) = h.router.route(cx.txn, home.id, &prefix)? else {
        let names = match depth {
            Depth::Level => folders_of_mounts(cx, &prefix)?,
            Depth::All => of_all_mounts(cx, &prefix, after, limit, &suffix)?,
        };
        return Response::keys(page::of(args, names)).done();
    };
    if routed.entry.class == Class::Auth {
        return list_tokens(cx, home.id, &prefix);
    }
    let (mount, inner) = (routed.entry.id, inner.to_owned());
    let names = match depth {
        Depth::Level => level_of(cx, mount, &inner, after, limit)?,
        Depth::All => all_of(cx, mount, &inner, after, limit)?,
    };
    let shown = |n: String| if n.ends_with('/') { n } else { format!("{n}{suffix}") };
    Response::keys(names.into_iter().map(shown).collect()).done()
}

/// One level below a path of a mount: folders, and leases that stand.
fn level_of(
    cx: &mut Cx<'_, '_>,
    mount: MountId,
    inner: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    let mut from = (!after.is_empty()).then(|| after.to_owned());
    loop {
        let names = cx.txn.list_children_page(&tables::lease(mount, inner), from.as_deref(), STRETCH)?;
        let full = names.len() == STRETCH;
        from = names.last().cloned();
        for name in names {
            if name.ends_with('/') || stands(cx, mount, &format!("{inner}{name}"))? {
                keys.push(name);
            }
            if keys.len() == limit {
                return Ok(keys);
            }
        }
        if !full {
            return Ok(keys);
        }
    }
}

/// Every lease below a path of a mount that stands, its path from there on.
fn all_of(cx: &mut Cx<'_, '_>, mount: MountId, inner: &str, after: &str, limit: usize) -> Result<Vec<String>, Error> {
    let prefix = tables::lease(mount, inner);
    let mut names = Vec::new();
    let mut from = (!after.is_empty()).then(|| [&prefix[..], after.as_bytes()].concat());
    loop {
        let keys = cx.txn.list(&prefix, from.as_deref(), STRETCH);
        let full = keys.len() == STRETCH;
        from = keys.last().cloned();
        for key in keys {
            let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            if stands(cx, mount, &format!("{inner}{name}"))? {
                names.push(name);
            }
            if names.len() == limit {
                return Ok(names);
            }
        }
        if !full {
            return Ok(names);
        }
    }
}

fn stands(cx: &mut Cx<'_, '_>, mount: MountId, key_path: &str) -> Result<bool, Error> {
    let h = host(cx);
    let Some(found) = lease::load(cx.txn, mount, key_path)? else { return Ok(false) };
    let standing = lease::standing(cx.txn, &h.router, (h.namespace.id, mount), key_path, &found, cx.now)?;
    Ok(matches!(standing, Standing::Alive | Standing::Irrevocable))
}

/// Tokens below a path of auth methods. A token's record is its own lease, and no key holds the path it was made at, so
/// this reads records until it has seen [`MAX_TOKENS_READ`] of them. What is shown of a token is its hash, as in
/// Vault: nobody can use it.
fn list_tokens(cx: &mut Cx<'_, '_>, ns: NsId, prefix: &str) -> Outcome {
    let rows = lease::peek(cx.txn, &[tables::TOKEN], None, MAX_TOKENS_READ + 1)?;
    let cut = rows.len() > MAX_TOKENS_READ;
    let exact = prefix.trim_end_matches('/');
    let mut keys = BTreeSet::new();
    for (key, plain) in rows.iter().take(MAX_TOKENS_READ) {
        let entry = TokenEntry::decode(&plain.bytes)?;
        if entry.ns != ns || entry.is_expired(cx.now) {
            continue;
        }
        if entry.path == exact {
            keys.insert(format!("h{}", hex::encode(&key[1..])));
        } else if let Some(rest) = entry.path.strip_prefix(prefix) {
            // a path is a folder, its tokens are the leaves
            keys.insert(format!("{}/", rest.split('/').next().unwrap_or(rest)));
        }
    }
    let response = Response::keys(keys.into_iter().collect());
    match cut {
        true => response.warn(format!("Only the first {MAX_TOKENS_READ} tokens were looked through.")),
        false => response,
    }
    .done()
}

/// Above the mounts: the next segment of each mount that has leases.
fn folders_of_mounts(cx: &mut Cx<'_, '_>, prefix: &str) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    for m in mounts_below(cx, prefix)? {
        // whether an auth method has tokens is told one level below
        let is_auth = m.entry.class == Class::Auth;
        if !is_auth && lease::peek_keys(cx.txn, &tables::lease(m.entry.id, ""), None, 1).is_empty() {
            continue;
        }
        if let Some((head, _)) = m.info.path[prefix.len()..].split_once('/') {
            keys.push(format!("{head}/"));
        }
    }
    keys.dedup();
    Ok(keys)
}

/// Above the mounts: every lease of each of them.
fn of_all_mounts(
    cx: &mut Cx<'_, '_>,
    prefix: &str,
    after: &str,
    limit: usize,
    suffix: &str,
) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for m in mounts_below(cx, prefix)? {
        let path = m.info.path[prefix.len()..].to_owned();
        let within = match after.strip_prefix(path.as_str()) {
            Some(within) => within,
            None if path.as_str() < after => continue,
            None => "",
        };
        for name in all_of(cx, m.entry.id, "", within, limit - names.len())? {
            names.push(format!("{path}{name}{suffix}"));
        }
        if names.len() == limit {
            break;
        }
    }
    Ok(names)
}

fn mounts_below(cx: &Cx<'_, '_>, prefix: &str) -> Result<Vec<Arc<Routed>>, Error> {
    let h = host(cx);
    let mounts = h.router.mounts(cx.txn, h.namespace.id)?;
    Ok(mounts.filter(|m| m.info.path.starts_with(prefix)).cloned().collect())
}

fn renew(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    engine::renew(cx, &id(args), args.seconds("increment"))
}

fn revoke(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    engine::revoke(cx, &id(args), args.bool("sync"))
}

fn revoke_prefix(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    bury(cx, args, false)
}

fn revoke_force(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    bury(cx, args, true)
}

/// Puts a tombstone over what a prefix names in each mount that it touches, disabled ones included: their leases may
/// still wait for a revocation that never works.
fn bury(cx: &mut Cx<'_, '_>, args: &Args, force: bool) -> Outcome {
    let sync = args.bool("sync");
    let h = host(cx);
    let home = &h.namespace;
    let given = args.str("prefix").trim_start_matches('/');
    // a prefix without slash at the end may be one lease
    if let Some((routed, key_path)) = lease::locate(cx.txn, &h.router, home, given)?
        && !given.ends_with('/')
        && !force
        && lease::load(cx.txn, routed.entry.id, &key_path)?.is_some()
    {
        return engine::revoke(cx, args.str("prefix"), sync);
    }
    let prefix = if given.ends_with('/') { given.to_owned() } else { format!("{given}/") };
    for id in MountEntry::numbers_of(cx.txn, home.id, None, usize::MAX) {
        let Some(entry) = MountEntry::load(cx.txn, id)? else { continue };
        let path = entry.full_path();
        let below = match (prefix.strip_prefix(&path), path.starts_with(&prefix)) {
            (Some(inner), _) => inner,
            (None, true) => "",
            (None, false) => continue,
        };
        match entry.class {
            Class::Secret => tombstone::leases(cx.txn, cx.now, entry.id, below, force)?,
            Class::Auth => tombstone::tokens(cx.txn, cx.now, entry.id, &format!("{path}{below}"))?,
        }
    }
    engine::finished(sync)
}

fn tidy(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    tidy_started()
}

/// Its mount, the path of its key, why it cannot be revoked.
type Irrevocable = (MountEntry, String, String);

/// Each irrevocable lease of the namespace: its mount, the path of its key, why.
/// `None` for any other kind of lease than that: of those nothing is told, which reads as an absent object.
fn irrevocable_rows(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Option<Vec<Irrevocable>>, Error> {
    if !args.str("type").eq_ignore_ascii_case("irrevocable") {
        return Ok(None);
    }
    let h = host(cx);
    let deep = args.bool("include_child_namespaces");
    let mut rows = Vec::new();
    for (key, plain) in lease::peek(cx.txn, &tables::tombstone(tombstone::IRREVOCABLE, &[]), None, usize::MAX)? {
        let mut r = Reader::new(&key[2..]);
        let mount = MountId(r.be32()?);
        let path = String::from_utf8_lossy(r.rest()).into_owned();
        let Some(entry) = MountEntry::load(cx.txn, mount)? else { continue };
        let home = h.router.namespace_by_id(entry.ns);
        let below = home.is_some_and(|n| n.path.starts_with(&h.namespace.path));
        if entry.ns == h.namespace.id || deep && below {
            rows.push((entry, path, String::from_utf8_lossy(&plain.bytes).into_owned()));
        }
    }
    Ok(Some(rows))
}

fn count(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(rows) = irrevocable_rows(cx, args)? else { return nothing() };
    let mut counts: Map = Map::new();
    for (mount, _, _) in &rows {
        let n = counts.get(&mount.accessor).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(mount.accessor.clone(), (n + 1).into());
    }
    Response::json(json!({ "lease_count": rows.len(), "counts": counts })).done()
}

fn irrevocable(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let limit = match args.str("limit") {
        "" => DEFAULT_LIMIT,
        "none" => usize::MAX,
        n => n.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::invalid("invalid limit"))?,
    };
    let Some(rows) = irrevocable_rows(cx, args)? else { return nothing() };
    let h = host(cx);
    let leases: Vec<Value> = rows
        .iter()
        .take(limit)
        .map(|(mount, path, why)| {
            let suffix = crate::token::check::suffix(&h.router, mount.ns);
            json!({ "lease_id": format!("{}{path}{suffix}", mount.full_path()), "error": why })
        })
        .collect();
    let response = Response::json(json!({ "lease_count": rows.len(), "leases": leases }));
    match rows.len() > limit {
        true => response.warn(format!("Only {limit} of {} leases are shown; use limit=none for all.", rows.len())),
        false => response,
    }
    .done()
}
