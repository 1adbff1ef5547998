//! `identity/entity*`: entities made, read, listed and deleted by operators.

use super::model::{self, ENTITY_MEMBER, Entity};
use super::resolve::Memberships;
use super::{login, merge, view};
use crate::host::host;
use crate::tables::{self, IndexKind};
use ringfence_barrier::Keyring;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, nothing};
use serde_json::{Value, json};
use std::sync::Arc;

const ID: Field = Field::str("id", "Id of the entity. If set, updates the entity with this id.");
const NAME: Field = Field::str("name", "Name of the entity.");
const METADATA: Field = Field::new("metadata", Kind::KvPairs, "Pairs that templates may name.");
const POLICIES: Field = Field::list("policies", "Policies of every token of this entity.");
const DISABLED: Field = Field::bool("disabled", "Refuse every token of this entity.");
const AFTER: Field = Field::str("after", "List only entries behind this one.").query();
const LIMIT: Field = Field::int("limit", "List at most so many entries.").query();

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("entity")
        .fields(&[ID, NAME, METADATA, POLICIES, DISABLED])
        .help("Create or update an entity.", "")
        .write(write_any),
    Path::new("entity/id/?").fields(&[AFTER, LIMIT]).help("List entities by id.", "").list(list_ids),
    Path::new("entity/id/{id:any}")
        .fields(&[ID, NAME, METADATA, POLICIES, DISABLED])
        .help("Read, update or delete an entity by id.", "")
        .read(read_id)
        .write(write_id)
        .delete(delete_id),
    Path::new("entity/name/?").fields(&[AFTER, LIMIT]).help("List entities by name.", "").list(list_names),
    Path::new("entity/name/{name..}")
        .fields(&[NAME, METADATA, POLICIES, DISABLED])
        .help("Read, create, update or delete an entity by name.", "")
        .read(read_name)
        .write(write_name)
        .delete(delete_name),
    Path::new("entity/batch-delete")
        .fields(&[Field::list("entity_ids", "Ids of the entities to delete.")])
        .help("Delete several entities.", "")
        .write(delete_many),
    Path::new("entity/merge")
        .fields(&[
            Field::list("from_entity_ids", "Ids of the entities to merge from. They are deleted."),
            Field::str("to_entity_id", "Id of the entity to merge into."),
            Field::bool("force", "Keep the target's MFA secrets where both have one."),
            Field::list("conflicting_alias_ids_to_keep", "Of two aliases at the same mount, the ones that stay."),
        ])
        .help("Merge entities into one.", "Aliases, group memberships and MFA secrets move; policies do not.")
        .sudo()
        .write(merge::merge),
];

fn keyring(cx: &Cx<'_, '_>) -> Arc<Keyring> {
    host(cx).keyring.clone()
}

fn by_name(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Entity>, Error> {
    let keyring = keyring(cx);
    match model::id_of_name(cx.txn, &keyring, cx.mount.ns, IndexKind::EntityName, name)? {
        Some(id) => model::load(cx.txn, cx.mount.ns, &id),
        None => Ok(None),
    }
}

fn write_any(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let id = args.str("id");
    if !id.is_empty() {
        return write_id(cx, args);
    }
    write_name(cx, args)
}

fn write_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match model::load(cx.txn, cx.mount.ns, args.str("id"))? {
        Some(e) => update(cx, e, args),
        None => Err(Error::invalid("entity not found from id")),
    }
}

fn write_name(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").trim().to_owned();
    if !name.is_empty()
        && let Some(e) = by_name(cx, &name)?
    {
        return update(cx, e, args);
    }
    let keyring = keyring(cx);
    let mut e = login::fresh(cx.txn, &keyring, cx.rng, cx.now, cx.mount.ns, &name)?;
    apply(&mut e, args)?;
    model::save(cx.txn, &e);
    Response::json(json!({"id": e.id, "name": e.name, "aliases": Value::Null})).done()
}

fn update(cx: &mut Cx<'_, '_>, mut e: Entity, args: &Args) -> Outcome {
    let name = args.str("name").trim().to_owned();
    if !name.is_empty() && name != e.name {
        rename(cx, &mut e, name)?;
    }
    apply(&mut e, args)?;
    e.updated = cx.now;
    model::save(cx.txn, &e);
    nothing()
}

fn rename(cx: &mut Cx<'_, '_>, e: &mut Entity, name: String) -> Result<(), Error> {
    let keyring = keyring(cx);
    let kind = IndexKind::EntityName;
    let taken = model::id_of_name(cx.txn, &keyring, e.ns, kind, &name)?;
    if taken.is_some_and(|id| id != e.id) {
        return Err(Error::invalid("entity name is already in use"));
    }
    model::free_name(cx.txn, &keyring, e.ns, kind, &e.name);
    model::take_name(cx.txn, &keyring, e.ns, kind, &name, &e.id);
    e.name = name;
    Ok(())
}

fn apply(e: &mut Entity, args: &Args) -> Result<(), Error> {
    if let Some(given) = args.opt_pairs("metadata") {
        e.metadata = view::metadata(given)?;
    }
    if let Some(given) = args.opt_list("policies") {
        e.policies = view::policies(&given)?;
    }
    if let Some(disabled) = args.opt_bool("disabled") {
        e.disabled = disabled;
    }
    Ok(())
}

fn read_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match model::load(cx.txn, cx.mount.ns, args.str("id"))? {
        Some(e) => show(cx, &e),
        None => nothing(),
    }
}

fn read_name(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match by_name(cx, args.str("name"))? {
        Some(e) => show(cx, &e),
        None => nothing(),
    }
}

/// The page of an entity.
pub fn show(cx: &mut Cx<'_, '_>, e: &Entity) -> Outcome {
    let groups = Memberships::of(cx.txn, &e.as_ref())?;
    let ids = |groups: &[super::Group]| groups.iter().map(|g| g.id.clone()).collect::<Vec<_>>();
    let (direct, inherited) = (ids(&groups.direct), ids(&groups.inherited));
    let all = [&direct[..], &inherited[..]].concat();
    let methods = crate::mfa::records::secrets_of(cx.txn, e.ns, &e.id)?;
    let mut secrets = crate::Map::new();
    for method in methods {
        secrets.insert(method, json!({"type": "totp"}));
    }
    let aliases: Vec<Value> = e.aliases.iter().map(|a| view::alias(cx, a, &e.id)).collect();
    Response::json(json!({
        "id": e.id, "name": e.name, "namespace_id": view::namespace_id(cx), "disabled": e.disabled,
        "metadata": view::or_null(&e.metadata), "policies": e.policies, "aliases": aliases,
        "creation_time": e.created.rfc3339(), "last_update_time": e.updated.rfc3339(),
        "merged_entity_ids": if e.merged.is_empty() { Value::Null } else { json!(e.merged) },
        "direct_group_ids": direct, "inherited_group_ids": inherited,
        "group_ids": all,
        "mfa_secrets": secrets, "bucket_key_hash": "",
    }))
    .done()
}

fn list_ids(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let after = args.str("after");
    let after = (!after.is_empty()).then(|| tables::entity(ns, after));
    let rows = cx.txn.scan(&tables::entity(ns, ""), after.as_deref(), view::limit(args))?;
    let mut out = Vec::with_capacity(rows.len());
    for (_, plain) in rows {
        let e = parse(&plain.bytes)?;
        out.push((e.id.clone(), view::entity_row(cx, &e)));
    }
    view::listing(out)
}

/// In the order of the names, which the keys do not have: costs the whole table, whatever the limit.
fn list_names(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut found = Vec::new();
    for (_, plain) in cx.txn.scan(&tables::entity(cx.mount.ns, ""), None, usize::MAX)? {
        let e = parse(&plain.bytes)?;
        found.push((e.name.clone(), e));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = view::page(found, args).into_iter().map(|(name, e)| (name, view::entity_row(cx, &e))).collect();
    view::listing(rows)
}

fn parse(bytes: &[u8]) -> Result<Entity, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored entity: {e}")))
}

fn delete_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some(e) = model::load(cx.txn, cx.mount.ns, args.str("id"))? {
        forget(cx, &e)?;
    }
    nothing()
}

fn delete_name(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some(e) = by_name(cx, args.str("name"))? {
        forget(cx, &e)?;
    }
    nothing()
}

fn delete_many(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut ids = args.list("entity_ids");
    ids.retain(|id| !id.is_empty());
    if ids.is_empty() {
        return Err(Error::invalid("missing entity ids to delete"));
    }
    for id in ids {
        if let Some(e) = model::load(cx.txn, cx.mount.ns, &id)? {
            forget(cx, &e)?;
        }
    }
    nothing()
}

/// Removes an entity and all that leads to it. Its tokens stay, and are refused from the next request on.
pub fn forget(cx: &mut Cx<'_, '_>, e: &Entity) -> Result<(), Error> {
    let keyring = keyring(cx);
    for alias in &e.aliases {
        model::unlink_alias(cx.txn, &keyring, e.ns, alias);
    }
    let member = e.as_ref();
    for (group, _) in model::groups_of(cx.txn, &member)? {
        model::leave(cx.txn, &group, ENTITY_MEMBER, &member);
    }
    crate::mfa::records::forget_entity(cx.txn, e.ns, &e.id)?;
    for merged in &e.merged {
        cx.txn.delete(&tables::identity_index(e.ns, IndexKind::Merged, merged.as_bytes()));
    }
    model::free_name(cx.txn, &keyring, e.ns, IndexKind::EntityName, &e.name);
    cx.txn.delete(&tables::entity(e.ns, &e.id));
    Ok(())
}
