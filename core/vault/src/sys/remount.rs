//! `sys/remount`: a mount moves to another path. Keys hold the mount's number, so one record is rewritten, whatever
//! the mount holds; its leases and tokens, whose ids name the old path, are revoked.

use super::mounts::{check_free, check_path, dir, is_reserved};
use crate::host::host;
use crate::lease::tombstone;
use crate::mfa::records;
use crate::mount::MountEntry;
use crate::namespace::Namespace;
use ringfence_barrier::Txn;
use ringfence_base::{NsId, entropy};
use ringfence_logical::{Args, Class, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// Finished moves that are remembered for who asks.
const REMEMBERED: usize = 32;
const TOPIC: &str = "core/remounts";

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("remount")
        .fields(&[Field::str("from", "The mount's path."), Field::str("to", "Its new path.")])
        .sudo()
        .help("Move a mount to another path.", "Its leases and tokens are revoked; data and accessor stay.")
        .write(remount),
    Path::new("remount/status/{migration_id:any}")
        .fields(&[Field::str("migration_id", "As the move answered it.")])
        .help("What became of a move.", "")
        .read(status),
];

/// A move that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Move {
    id: String,
    source: String,
    target: String,
}

/// One end of a move.
struct End {
    ns: Arc<Namespace>,
    class: Class,
    /// Without `auth/`, one slash at the end.
    path: String,
    /// Within the namespace, with `auth/`.
    shown: String,
}

fn end(cx: &Cx<'_, '_>, text: &str) -> End {
    let h = host(cx);
    let shown = dir(text);
    let (ns, rest) = h.router.descend(&h.namespace, &shown);
    let (class, path) = match rest.strip_prefix("auth/") {
        Some(method) => (Class::Auth, method),
        None => (Class::Secret, rest),
    };
    End { class, path: path.to_owned(), shown: rest.to_owned(), ns }
}

fn remount(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let h = host(cx);
    if args.str("from").is_empty() || args.str("to").is_empty() {
        return Err(Error::invalid("both 'from' and 'to' path must be specified as a string"));
    }
    let (from, to) = (end(cx, args.str("from")), end(cx, args.str("to")));
    match (from.class, to.class) {
        (Class::Auth, Class::Secret) => {
            return Err(Error::invalid(format!("cannot remount auth mount to non-auth mount {:?}", to.shown)));
        }
        (Class::Secret, Class::Auth) => {
            return Err(Error::invalid(format!("cannot remount secrets mount to auth mount {:?}", to.shown)));
        }
        _ => {}
    }
    if is_fixed(&from) {
        return Err(Error::invalid(format!("cannot remount {:?}", from.shown)));
    }
    if is_fixed(&to) {
        return Err(Error::invalid(format!("cannot remount to {:?}", to.shown)));
    }
    check_path(&to.path)?;
    let missing = || Error::invalid(format!("no matching mount at {:?}", from.shown));
    let id = h.router.at(cx.txn, from.ns.id, &from.shown)?.ok_or_else(missing)?.entry.id;
    check_free(cx.txn, &h.router, to.ns.id, to.class, &to.path)
        .map_err(|_| Error::invalid(format!("path already in use at {:?}", to.shown)))?;
    let mut entry = MountEntry::load(cx.txn, id)?.ok_or_else(missing)?;
    match entry.class {
        Class::Secret => tombstone::leases(cx.txn, cx.now, id, "", false)?,
        Class::Auth => tombstone::tokens(cx.txn, cx.now, id, &entry.full_path())?,
    }
    // a locked namespace keeps its mounts and takes none in
    for n in h.router.lineage(&from.ns).chain(h.router.lineage(&to.ns)) {
        cx.txn.guard(&crate::tables::namespace(n.id));
    }
    if let Some(locked) = h.router.locked_by(&from.ns).or_else(|| h.router.locked_by(&to.ns)) {
        return Err(Error::invalid(format!("namespace {:?} is locked", locked.path)));
    }
    check_second_factors(cx, &entry.accessor, &from.ns, &to.ns)?;
    entry.path = to.path;
    if entry.ns != to.ns.id {
        entry.move_to(cx.txn, to.ns.id);
    }
    entry.save(cx.txn);
    let done = Move {
        id: entropy::uuid4(cx.rng),
        source: format!("{}{}", from.ns.path, from.shown),
        target: format!("{}{}", to.ns.path, to.shown),
    };
    let id = done.id.clone();
    remember(cx.txn, done)?;
    Response::json(json!({ "migration_id": id }))
        .warn("Mount move has been queued. Progress will be reported in Vault's server log, tagged with the returned migration_id")
        .done()
}

/// An enforcement that names an auth method holds in its own namespace and below. A method that would move out from
/// under it stays until the enforcement is changed: its users would get in without their second factor.
fn check_second_factors(
    cx: &mut Cx<'_, '_>,
    accessor: &str,
    from: &Arc<Namespace>,
    to: &Arc<Namespace>,
) -> Result<(), Error> {
    let h = host(cx);
    let kept: Vec<NsId> = h.router.lineage(to).map(|n| n.id).collect();
    let left: Vec<NsId> = h.router.lineage(from).map(|n| n.id).filter(|n| !kept.contains(n)).collect();
    for left in left {
        for e in records::enforcements(cx.txn, left)? {
            if e.accessors.iter().any(|a| a == accessor) {
                return Err(Error::invalid(format!(
                    "cannot remount: login enforcement {:?} names this auth method and would no longer hold there",
                    e.name
                )));
            }
        }
    }
    Ok(())
}

fn is_fixed(end: &End) -> bool {
    match end.class {
        Class::Secret => is_reserved(&end.path),
        Class::Auth => end.path.starts_with("token/"),
    }
}

fn remembered(txn: &mut Txn<'_>) -> Result<Vec<Move>, Error> {
    super::config_record(txn, NsId::ROOT, TOPIC).map(Option::unwrap_or_default)
}

fn remember(txn: &mut Txn<'_>, done: Move) -> Result<(), Error> {
    let mut moves = remembered(txn)?;
    moves.push(done);
    let excess = moves.len().saturating_sub(REMEMBERED);
    moves.drain(..excess);
    super::save_config(txn, NsId::ROOT, TOPIC, &moves);
    Ok(())
}

fn status(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let id = args.str("migration_id");
    let Some(m) = remembered(cx.txn)?.into_iter().find(|m| m.id == id) else { return nothing() };
    Response::json(json!({
        "migration_id": m.id,
        "migration_info": { "source_mount": m.source, "target_mount": m.target, "status": "success" },
    }))
    .done()
}
