//! `sys/locked-users`: who is locked out, and the key to let them in again.

use crate::host::host;
use crate::lockout;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde_json::{Value, json};

const ACCESSOR: Field = Field::str("mount_accessor", "Accessor of the auth method.");
const ALIAS: Field = Field::str("alias_identifier", "Name of the user at the auth method.");

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("locked-users/?").fields(&[ACCESSOR.query()]).help("Users that are locked out.", "").read(list),
    Path::new("locked-users/{mount_accessor:any}/unlock/{alias_identifier..}")
        .fields(&[ACCESSOR, ALIAS])
        .help("Let a user in again.", "")
        .write(unlock),
];

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let h = host(cx);
    let wanted = args.str("mount_accessor");
    let (mut total, mut namespaces) = (0, Vec::new());
    let mut mounts: Vec<Value> = Vec::new();
    for m in h.router.mounts(cx.txn, cx.mount.ns)? {
        if !wanted.is_empty() && m.entry.accessor != wanted {
            continue;
        }
        let users = lockout::locked(cx.txn, m.entry.id, cx.now)?;
        if users.is_empty() {
            continue;
        }
        total += users.len();
        mounts.push(json!({
            "mount_accessor": m.entry.accessor, "counts": users.len(), "alias_identifiers": users,
        }));
    }
    if total > 0 {
        namespaces.push(json!({
            "namespace_id": h.namespace.external_id,
            "namespace_path": h.namespace.path,
            "counts": total,
            "mount_accessors": mounts,
        }));
    }
    Response::json(json!({ "by_namespace": namespaces, "total": total })).done()
}

fn unlock(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let h = host(cx);
    let accessor = args.str("mount_accessor");
    let routed = h.router.by_accessor(cx.txn, cx.mount.ns, accessor)?;
    let Some(routed) = routed else {
        return Err(Error::invalid(format!("mount accessor {accessor:?} not found")));
    };
    lockout::unlock(cx.txn, &h.keyring, routed.entry.id, args.str("alias_identifier"));
    nothing()
}
