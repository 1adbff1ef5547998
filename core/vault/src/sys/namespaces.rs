//! `sys/namespaces/*`: tenants made, shown, changed, locked and taken down, below the namespace of the request.
//!
//! Making one is a handful of records: itself and its four mounts. Taking one down is one committed tombstone: from
//! its commit on nothing routes there and every token of it is dead; the owner's worker then ends its leases through
//! their engines and removes what it held, at its own pace. Locking writes a keyed hash of the unlock key into the
//! record; the pipeline refuses everything below it but the unlock.

use super::bootstrap::default_mounts;
use super::mounts::dir;
use crate::host::host;
use crate::lease::tombstone;
use crate::namespace::{Namespace, check_name};
use crate::page;
use crate::tables;
use ringfence_barrier::HashKind;
use ringfence_base::entropy;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Map, Outcome, Path, Response, nothing};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kind of the keyed hash that stands for an unlock key.
const UNLOCK_HASH: HashKind = HashKind(72);
/// The kind of locks of before, which names of entities have too.
const OLD_UNLOCK_HASH: HashKind = HashKind(66);
/// Characters of an unlock key.
const UNLOCK_CHARS: usize = 24;
/// What a namespace's notes may take, bytes: names and values together.
const MAX_METADATA_BYTES: usize = 64 * 1024;

const PATH: Field = Field::str("path", "Path of the namespace below this one.");
const FIELDS: &[Field] = &[
    PATH,
    Field::new("custom_metadata", Kind::Object, "Free pairs of texts."),
    Field::bool("force", "When deleting: do not wait for engines that cannot revoke their leases.").query(),
];
const LOCKING: &[Field] = &[PATH, Field::str("unlock_key", "The key that locking answered.").secret()];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("namespaces/api-lock/lock")
        .fields(LOCKING)
        .help("Lock the API of this namespace and of all below it.", "The answer holds the key that unlocks it.")
        .write(lock),
    Path::new("namespaces/api-lock/lock/{path..}")
        .fields(LOCKING)
        .help("Lock the API of a namespace and of all below it.", "The answer holds the key that unlocks it.")
        .write(lock),
    Path::new("namespaces/api-lock/unlock")
        .fields(LOCKING)
        .help("Unlock this namespace.", "With the sudo capability no key is needed.")
        .write(unlock),
    Path::new("namespaces/api-lock/unlock/{path..}")
        .fields(LOCKING)
        .help("Unlock a namespace.", "With the sudo capability no key is needed.")
        .write(unlock),
    Path::new("namespaces/?")
        .fields(page::FIELDS)
        .help("Lists the namespaces directly below this one; scanned: all below it.", "")
        .list(list)
        .scan(scan),
    Path::new("namespaces/{path..}")
        .fields(FIELDS)
        .help(
            "A namespace.",
            "It has mounts, auth methods, policies, identities, tokens and leases of its own. Deleting it revokes its \
             leases first and then removes everything in it.",
        )
        .read(read)
        .write(create)
        .patch(patch)
        .delete(delete),
];

/// Names of the namespaces directly below the request's, for the user interface.
pub(super) fn children(cx: &Cx<'_, '_>) -> Vec<String> {
    let h = host(cx);
    let base = &h.namespace.path;
    let live = h.router.below(base, "").filter(|n| !n.tainted);
    live.filter(|n| is_child(base, n)).map(|n| n.path[base.len()..].to_owned()).collect()
}

fn is_child(base: &str, ns: &Namespace) -> bool {
    Namespace::split(&ns.path).0 == base
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    shown_below(cx, args, is_child)
}

fn scan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    shown_below(cx, args, |_, _| true)
}

fn shown_below(cx: &mut Cx<'_, '_>, args: &Args, takes: fn(&str, &Namespace) -> bool) -> Outcome {
    let h = host(cx);
    let base = &h.namespace.path;
    let after = match args.str("after") {
        "" => String::new(),
        name => format!("{base}{}", dir(name)),
    };
    let (mut keys, mut info) = (Vec::new(), Map::new());
    for ns in h.router.below(base, &after).filter(|n| takes(base, n)).take(page::limit(args)) {
        let name = ns.path[base.len()..].to_owned();
        info.insert(name.clone(), Value::Object(describe(ns)));
        keys.push(name);
    }
    page::with_info(keys, info).done()
}

/// A namespace as answers show it.
fn describe(ns: &Namespace) -> Map {
    let shown = json!({
        "id": ns.external_id,
        "uuid": ns.uuid,
        "path": ns.path,
        "custom_metadata": ns.custom_metadata,
        "locked": ns.lock.is_some(),
        "tainted": ns.tainted,
    });
    match shown {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}

/// The whole path that a request names.
fn whole(cx: &Cx<'_, '_>, args: &Args) -> String {
    let base = &host(cx).namespace.path;
    match args.str("path").trim_matches('/') {
        "" => base.clone(),
        below => format!("{base}{below}/"),
    }
}

/// The living namespace that a request names, and its record as the transaction reads it.
fn find(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Option<Namespace>, Error> {
    let path = whole(cx, args);
    let id = match host(cx).router.namespace(&path) {
        Some(n) => n.id,
        None => return Ok(None),
    };
    Ok(Namespace::load(cx.txn, id)?.filter(|n| !n.tainted))
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = whole(cx, args);
    let h = host(cx);
    match h.router.namespace(&path).or_else(|| h.router.dying(&path)) {
        Some(ns) => Response::data(describe(ns)).done(),
        None => nothing(),
    }
}

fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let metadata = match args.object("custom_metadata") {
        Some(given) => Some(texts(given)?),
        None => None,
    };
    if let Some(mut ns) = find(cx, args)? {
        if let Some(metadata) = metadata {
            ns.custom_metadata = checked(metadata)?;
            ns.save(cx.txn);
        }
        return Response::data(describe(&ns)).done();
    }
    let path = whole(cx, args);
    let h = host(cx);
    let (parent_path, name) = Namespace::split(&path);
    check_name(name.trim_end_matches('/'), &path)?;
    if h.router.dying(&path).is_some() {
        return Err(Error::invalid("namespace with that name exists and is currently tainted"));
    }
    let parent: Arc<Namespace> = match h.router.namespace(parent_path) {
        Some(p) => p.clone(),
        None => return Err(Error::invalid(format!("parent namespace {parent_path:?} does not exist"))),
    };
    if let Some(m) = h.router.conflict(cx.txn, parent.id, name)? {
        return Err(Error::invalid(format!("path is already in use at {}", m.info.path)));
    }
    // two that are made at once must not both see the place free; and the parent must still stand
    cx.txn.guard_prefix(&tables::mounts_of(parent.id));
    cx.txn.guard(&tables::namespace(parent.id));
    let mut ns = Namespace::fresh(cx.txn, cx.rng, path.clone(), |id| h.router.is_external_id_taken(id))?;
    ns.custom_metadata = checked(metadata.unwrap_or_default())?;
    ns.save(cx.txn);
    default_mounts(cx.txn, cx.rng, ns.id)?;
    Response::data(describe(&ns)).done()
}

/// The pairs of a request; a value that is `null` is none.
fn texts(given: &Map) -> Result<BTreeMap<String, String>, Error> {
    let mut pairs = BTreeMap::new();
    for (name, value) in given {
        match value {
            Value::String(text) => drop(pairs.insert(name.clone(), text.clone())),
            Value::Null => {}
            _ => return Err(Error::invalid("custom_metadata values must be strings")),
        }
    }
    Ok(pairs)
}

fn checked(pairs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let bytes: usize = pairs.iter().map(|(k, v)| k.len() + v.len()).sum();
    match bytes > MAX_METADATA_BYTES {
        true => Err(Error::invalid(format!("custom_metadata has at most {MAX_METADATA_BYTES} bytes"))),
        false => Ok(pairs),
    }
}

/// A merge patch: a name with `null` goes, the others are set.
fn patch(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(mut ns) = find(cx, args)?.filter(|n| !n.is_root()) else { return nothing() };
    match args.raw().get("custom_metadata") {
        Some(Value::Object(changes)) => {
            let set = texts(changes)?;
            for name in changes.iter().filter(|(_, v)| v.is_null()).map(|(name, _)| name) {
                ns.custom_metadata.remove(name);
            }
            ns.custom_metadata.extend(set);
        }
        Some(Value::Null) => ns.custom_metadata.clear(),
        Some(_) => return Err(Error::invalid("custom_metadata values must be strings")),
        None => {}
    }
    ns.custom_metadata = checked(std::mem::take(&mut ns.custom_metadata))?;
    ns.save(cx.txn);
    Response::data(describe(&ns)).done()
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = whole(cx, args);
    let h = host(cx);
    let force = args.bool("force");
    if let Some(dying) = h.router.dying(&path) {
        if force {
            tombstone::namespace_removed(cx.txn, cx.now, dying.id, true)?;
        }
        return under_way();
    }
    let Some(mut ns) = find(cx, args)? else {
        let data = Some(ringfence_logical::Data::Map(Map::new()));
        return Response { data, ..Response::default() }.warn("requested namespace does not exist").done();
    };
    if ns.is_root() {
        return Err(Error::invalid("unable to delete root namespace"));
    }
    if h.router.has_children(&ns) {
        return Err(Error::invalid(format!("cannot delete namespace ({:?}) containing child namespaces", ns.path)));
    }
    // a child, or a mount, that is made meanwhile makes this one look again
    cx.txn.guard_prefix(&[tables::NAMESPACE]);
    cx.txn.guard_prefix(&tables::mounts_of(ns.id));
    ns.tainted = true;
    ns.save(cx.txn);
    tombstone::namespace_removed(cx.txn, cx.now, ns.id, force)?;
    under_way()
}

fn under_way() -> Outcome {
    Response::json(json!({ "status": "in-progress" })).done()
}

fn lock(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(mut ns) = find(cx, args)? else { return Err(absent(cx, args)) };
    if ns.is_root() {
        return Err(Error::invalid("root namespace cannot be locked"));
    }
    if ns.lock.is_some() {
        return Err(Error::invalid(format!("namespace {:?} is already locked", ns.path)));
    }
    let key = entropy::base62(cx.rng, UNLOCK_CHARS);
    ns.lock = Some(host(cx).keyring.index_hash(UNLOCK_HASH, key.as_bytes()));
    ns.save(cx.txn);
    Response::json(json!({ "unlock_key": key })).done()
}

fn unlock(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(mut ns) = find(cx, args)? else { return Err(absent(cx, args)) };
    // one that is not locked is no matter for its key (GHSA-8w8f: it was a crash)
    let Some(stored) = ns.lock.take() else {
        return Err(Error::invalid(format!("namespace {:?} is not locked", ns.path)));
    };
    let given = args.str("unlock_key");
    let sudo = cx.principal.is_some_and(|p| p.sudo);
    // two keyed hashes are compared, so how long it takes tells nothing of the key
    let is_of = |kind| host(cx).keyring.index_hash(kind, given.as_bytes()) == stored;
    let fits = !given.is_empty() && (is_of(UNLOCK_HASH) || is_of(OLD_UNLOCK_HASH));
    match (fits, sudo) {
        (true, _) => {
            ns.save(cx.txn);
            nothing()
        }
        (false, true) => {
            ns.save(cx.txn);
            let data = Some(ringfence_logical::Data::Map(Map::new()));
            Response { data, ..Response::default() }.warn("Namespace unlocked using sudo capabilities").done()
        }
        (false, false) if given.is_empty() => Err(Error::invalid("provided empty unlock key")),
        (false, false) => Err(Error::invalid("incorrect unlock key")),
    }
}

fn absent(cx: &Cx<'_, '_>, args: &Args) -> Error {
    Error::invalid(format!("requested namespace {:?} does not exist", whole(cx, args)))
}
