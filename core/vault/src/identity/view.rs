//! How entities, groups and aliases are shown, and the checks that every write of them shares.

use super::model::{Entity, EntityAlias, Group, GroupAlias};
use crate::host::host;
use crate::mount::Routed;
use crate::token::sanitize;
use ringfence_base::MountId;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most pairs of metadata. Source: Vault's identity store.
const MAX_METADATA_PAIRS: usize = 64;
/// Longest key of metadata, bytes.
const MAX_METADATA_KEY_BYTES: usize = 128;
/// Longest value of metadata, bytes.
const MAX_METADATA_VALUE_BYTES: usize = 512;

/// The external id of the namespace of a request, and so of everything in its identity store.
pub fn namespace_id(cx: &Cx<'_, '_>) -> String {
    host(cx).namespace.external_id.clone()
}

/// The auth mount with an accessor, in the namespace of the request.
///
/// # Errors
/// `invalid mount accessor "x"`.
pub fn mount_of(cx: &Cx<'_, '_>, accessor: &str) -> Result<Arc<Routed>, Error> {
    let found = host(cx).router.by_accessor(cx.txn, cx.mount.ns, accessor)?;
    found.cloned().ok_or_else(|| Error::invalid(format!("invalid mount accessor {accessor:?}")))
}

/// Policies as a request gives them, in their one form.
///
/// # Errors
/// `policies cannot contain root`.
pub fn policies(given: &[String]) -> Result<Vec<String>, Error> {
    let names = sanitize(given);
    match names.iter().any(|n| n == "root") {
        true => Err(Error::invalid("policies cannot contain root")),
        false => Ok(names),
    }
}

/// Metadata as a request gives it, within its bounds.
pub fn metadata(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    if given.len() > MAX_METADATA_PAIRS {
        return Err(Error::invalid(format!(
            "metadata cannot contain more than {MAX_METADATA_PAIRS} key/value pairs"
        )));
    }
    for (key, value) in &given {
        let flaw = match (key.len(), value.len()) {
            (0, _) => "key cannot be blank".to_owned(),
            (n, _) if n > MAX_METADATA_KEY_BYTES => {
                format!("key is too long (limit: {MAX_METADATA_KEY_BYTES} characters)")
            }
            (_, n) if n > MAX_METADATA_VALUE_BYTES => {
                format!("value is too long (limit: {MAX_METADATA_VALUE_BYTES} characters)")
            }
            _ => continue,
        };
        let shown: String = key.chars().take(MAX_METADATA_KEY_BYTES).collect();
        return Err(Error::invalid(format!("failed to load metadata pair {shown:?}: {flaw}")));
    }
    Ok(given)
}

/// A map that prints as null when empty.
pub fn or_null(map: &BTreeMap<String, String>) -> Value {
    if map.is_empty() { Value::Null } else { json!(map) }
}

/// What is told of the mount of an alias; a mount that is gone has no path.
pub fn mount_facts(cx: &Cx<'_, '_>, mount: MountId) -> (String, String, String, bool) {
    match host(cx).router.by_id(cx.txn, cx.mount.ns, mount) {
        Ok(Some(m)) => (m.entry.accessor.clone(), m.info.path.clone(), m.entry.kind.clone(), m.entry.local),
        // what is shown beside is worth showing all the same
        Ok(None) | Err(_) => Default::default(),
    }
}

/// An alias of an entity.
pub fn alias(cx: &Cx<'_, '_>, a: &EntityAlias, entity: &str) -> Value {
    let (accessor, path, kind, local) = mount_facts(cx, a.mount);
    json!({
        "id": a.id, "canonical_id": entity, "name": a.name,
        "mount_accessor": accessor, "mount_path": path, "mount_type": kind, "local": local,
        "metadata": or_null(&a.metadata), "custom_metadata": or_null(&a.custom_metadata),
        "merged_from_canonical_ids": if a.merged_from.is_empty() { Value::Null } else { json!(a.merged_from) },
        "creation_time": a.created.rfc3339(), "last_update_time": a.updated.rfc3339(),
    })
}

/// The alias of a group; an empty object without one.
pub fn group_alias(cx: &Cx<'_, '_>, a: Option<&GroupAlias>, group: &str) -> Value {
    let Some(a) = a else { return json!({}) };
    let (accessor, path, kind, _) = mount_facts(cx, a.mount);
    json!({
        "id": a.id, "canonical_id": group, "name": a.name,
        "mount_accessor": accessor, "mount_path": path, "mount_type": kind,
        "metadata": null, "merged_from_canonical_ids": null,
        "creation_time": a.created.rfc3339(), "last_update_time": a.updated.rfc3339(),
    })
}

/// An alias as lists show it.
pub fn alias_row(cx: &Cx<'_, '_>, a: &EntityAlias, entity: &str) -> Map {
    let (accessor, path, kind, local) = mount_facts(cx, a.mount);
    let mut row = Map::new();
    row.insert("canonical_id".into(), entity.into());
    row.insert("mount_accessor".into(), accessor.into());
    row.insert("mount_path".into(), path.into());
    row.insert("mount_type".into(), kind.into());
    row.insert("name".into(), a.name.clone().into());
    row.insert("local".into(), local.into());
    row.insert("custom_metadata".into(), or_null(&a.custom_metadata));
    row
}

/// The alias of a group as lists show it.
pub fn group_alias_row(cx: &Cx<'_, '_>, a: &GroupAlias, group: &str) -> Value {
    let (accessor, path, kind, _) = mount_facts(cx, a.mount);
    json!({"canonical_id": group, "mount_accessor": accessor, "mount_path": path, "mount_type": kind, "name": a.name})
}

/// The row of an entity in lists.
pub fn entity_row(cx: &Cx<'_, '_>, e: &Entity) -> Value {
    let aliases: Vec<Value> = e
        .aliases
        .iter()
        .map(|a| {
            let mut row = alias_row(cx, a, &e.id);
            row.insert("id".into(), a.id.clone().into());
            row.insert("metadata".into(), or_null(&a.metadata));
            row.insert("creation_time".into(), a.created.rfc3339().into());
            Value::Object(row)
        })
        .collect();
    json!({"name": e.name, "aliases": aliases})
}

/// A list answer with `key_info`; 404 at the edge when empty.
pub fn listing(rows: Vec<(String, Value)>) -> Outcome {
    let mut data = Map::new();
    if !rows.is_empty() {
        data.insert("keys".into(), rows.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>().into());
        data.insert("key_info".into(), Value::Object(rows.into_iter().collect()));
    }
    Response::data(data).done()
}

/// The page of a sorted list that `after` and `limit` ask for.
pub fn page<T>(rows: Vec<(String, T)>, args: &Args) -> Vec<(String, T)> {
    let after = args.str("after");
    let limit = limit(args);
    rows.into_iter().filter(|(k, _)| after.is_empty() || k.as_str() > after).take(limit).collect()
}

/// The `limit` of a list; none or less than one means all.
pub fn limit(args: &Args) -> usize {
    ringfence_logical::cx::unlimited(usize::try_from(args.int("limit")).unwrap_or(0))
}

/// The group as its own page shows it, without members and parents.
pub fn group(cx: &Cx<'_, '_>, g: &Group) -> Map {
    let shown = json!({
        "id": g.id, "name": g.name, "type": g.kind.as_str(), "namespace_id": namespace_id(cx),
        "metadata": or_null(&g.metadata), "policies": g.policies,
        "alias": group_alias(cx, g.alias.as_ref(), &g.id),
        "creation_time": g.created.rfc3339(), "last_update_time": g.updated.rfc3339(),
        "modify_index": g.modify_index,
    });
    match shown {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}
