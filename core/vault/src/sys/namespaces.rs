//! `sys/namespaces`: the root namespace is the only one yet, so there is nothing to list, and making one is refused.

use crate::host::host;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, nothing};
use serde_json::json;

const FIELDS: &[Field] = &[
    Field::str("path", "Path of the namespace below this one."),
    Field::new("custom_metadata", Kind::KvPairs, "Free pairs."),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("namespaces/?").help("Lists the namespaces below this one.", "").list(list),
    Path::new("namespaces/{path..}")
        .fields(FIELDS)
        .help("A namespace.", "This version serves the root namespace only.")
        .read(read)
        .write(create)
        .patch(create)
        .delete(delete),
];

/// Names of the namespaces directly below the request's.
pub(super) fn children(cx: &Cx<'_, '_>) -> Vec<String> {
    let h = host(cx);
    let below = &h.namespace.path;
    let mut names: Vec<String> = h
        .router
        .all()
        .filter_map(|m| m.info.ns_path.strip_prefix(below.as_str()))
        .filter(|rest| !rest.is_empty() && rest.find('/') == Some(rest.len() - 1))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(children(cx)).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let h = host(cx);
    let path = format!("{}{}", h.namespace.path, super::mounts::dir(args.str("path")));
    let Some(ns) = h.router.namespace(&path) else { return nothing() };
    Response::json(json!({ "id": ns.external_id, "path": ns.path, "custom_metadata": ns.custom_metadata })).done()
}

fn create(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Err(Error::invalid("child namespaces cannot be created by this version: it serves the root namespace only"))
}

fn delete(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    nothing()
}
