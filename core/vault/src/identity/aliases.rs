//! `identity/entity-alias*` and its historical names `alias*` and `persona*`: who an entity is at which mount.

use super::model::{self, Entity, EntityAlias};
use super::{login, view};
use crate::host::host;
use crate::tables::{self, IndexKind};
use ringfence_base::{MountId, entropy};
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, nothing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ID: Field = Field::str("id", "Id of the alias. If set, updates the alias with this id.");
const NAME: Field = Field::str("name", "Name at the mount: user name, subject, role id.");
const ENTITY: Field = Field::str("canonical_id", "Entity that the alias belongs to; without one, a new entity.");
const OLD_ENTITY: Field = Field::str("entity_id", "Historical name of canonical_id.").deprecated();
const ACCESSOR: Field = Field::str("mount_accessor", "Accessor of the mount that proves the alias.");
const CUSTOM: Field = Field::new("custom_metadata", Kind::KvPairs, "Pairs that templates may name.");
const METADATA: Field =
    Field::new("metadata", Kind::KvPairs, "Accepted and ignored; set by the auth method.").deprecated();
const AFTER: Field = Field::str("after", "List only entries behind this one.").query();
const LIMIT: Field = Field::int("limit", "List at most so many entries.").query();

const fn whole(pattern: &'static str) -> Path {
    Path::new(pattern)
        .fields(&[ID, NAME, ENTITY, OLD_ENTITY, ACCESSOR, CUSTOM, METADATA])
        .help("Create or update an alias of an entity.", "")
        .write(write_any)
}

const fn listed(pattern: &'static str) -> Path {
    Path::new(pattern).fields(&[AFTER, LIMIT]).help("List aliases by id.", "").list(list)
}

const fn one(pattern: &'static str) -> Path {
    Path::new(pattern)
        .fields(&[ID, NAME, ENTITY, OLD_ENTITY, ACCESSOR, CUSTOM, METADATA])
        .help("Read, update or delete an alias of an entity.", "")
        .read(read)
        .write(write_any)
        .delete(delete)
}

/// The paths.
pub const PATHS: &[Path] = &[
    whole("entity-alias"),
    listed("entity-alias/id/?"),
    one("entity-alias/id/{id:any}"),
    whole("alias"),
    listed("alias/id/?"),
    one("alias/id/{id:any}"),
    whole("persona"),
    listed("persona/id/?"),
    one("persona/id/{id:any}"),
];

/// An alias and its entity, by the alias's id.
fn find(cx: &mut Cx<'_, '_>, id: &str) -> Result<Option<(Entity, EntityAlias)>, Error> {
    if id.is_empty() {
        return Ok(None);
    }
    let ns = cx.mount.ns;
    let Some(owner) = model::owner_of_alias(cx.txn, ns, IndexKind::EntityAlias, id)? else { return Ok(None) };
    let Some(e) = model::load(cx.txn, ns, &owner)? else { return Ok(None) };
    let alias = e.aliases.iter().find(|a| a.id == id).cloned();
    Ok(alias.map(|a| (e, a)))
}

fn write_any(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let custom = args.opt_pairs("custom_metadata").map(view::metadata).transpose()?;
    let owner = match args.str("canonical_id") {
        "" => args.str("entity_id").to_owned(),
        id => id.to_owned(),
    };
    let (name, accessor) = (args.str("name").trim().to_owned(), args.str("mount_accessor").to_owned());
    let id = args.str("id").to_owned();
    if !id.is_empty() {
        let Some((entity, alias)) = find(cx, &id)? else {
            return Err(Error::invalid("invalid alias ID provided"));
        };
        let mount = match accessor.as_str() {
            "" => alias.mount,
            given => view::mount_of(cx, given)?.entry.id,
        };
        let name = if name.is_empty() { alias.name.clone() } else { name };
        return update(cx, entity, alias, Wanted { name, mount, owner, custom });
    }
    if name.is_empty() || accessor.is_empty() {
        return Err(Error::invalid("'id' or 'mount_accessor' and 'name' must be provided"));
    }
    let mount = view::mount_of(cx, &accessor)?.entry.id;
    let keyring = host(cx).keyring.clone();
    if let Some(holder) = model::entity_of_alias(cx.txn, &keyring, mount, &name)?
        && let Some(entity) = model::load(cx.txn, cx.mount.ns, &holder)?
        && let Some(alias) = entity.alias_at(mount).cloned()
    {
        let name = alias.name.clone();
        return update(cx, entity, alias, Wanted { name, mount, owner, custom });
    }
    create(cx, Wanted { name, mount, owner, custom })
}

/// What a request wants an alias to be.
struct Wanted {
    name: String,
    mount: MountId,
    /// Entity; empty = a new one, or the one it has.
    owner: String,
    custom: Option<BTreeMap<String, String>>,
}

fn create(cx: &mut Cx<'_, '_>, wanted: Wanted) -> Outcome {
    let ns = cx.mount.ns;
    let keyring = host(cx).keyring.clone();
    let mut entity = match wanted.owner.as_str() {
        "" => login::fresh(cx.txn, &keyring, cx.rng, cx.now, ns, "")?,
        id => model::load(cx.txn, ns, id)?.ok_or_else(|| Error::invalid("invalid canonical ID"))?,
    };
    if entity.alias_at(wanted.mount).is_some() {
        return Err(taken());
    }
    let alias = EntityAlias {
        id: entropy::uuid4(cx.rng),
        mount: wanted.mount,
        name: wanted.name,
        metadata: BTreeMap::new(),
        custom_metadata: wanted.custom.unwrap_or_default(),
        created: cx.now,
        updated: cx.now,
        merged_from: Vec::new(),
    };
    model::link_alias(cx.txn, &keyring, ns, &alias, &entity.id);
    let answer = json!({"id": alias.id, "canonical_id": entity.id});
    entity.aliases.push(alias);
    entity.updated = cx.now;
    model::save(cx.txn, &entity);
    Response::json(answer).done()
}

fn update(cx: &mut Cx<'_, '_>, mut entity: Entity, alias: EntityAlias, wanted: Wanted) -> Outcome {
    let ns = cx.mount.ns;
    let keyring = host(cx).keyring.clone();
    let mut changed = alias.clone();
    changed.name = wanted.name;
    changed.mount = wanted.mount;
    if let Some(custom) = wanted.custom {
        changed.custom_metadata = custom;
    }
    let moves = !wanted.owner.is_empty() && wanted.owner != entity.id;
    if !moves && changed == alias {
        return nothing();
    }
    if changed.mount != alias.mount || model::normal(&changed.name) != model::normal(&alias.name) {
        let holder = model::entity_of_alias(cx.txn, &keyring, changed.mount, &changed.name)?;
        if holder.is_some() {
            return Err(Error::invalid("alias with combination of mount accessor and name already exists"));
        }
        if !moves && changed.mount != alias.mount && entity.alias_at(changed.mount).is_some() {
            return Err(taken());
        }
    }
    changed.updated = cx.now;
    model::unlink_alias(cx.txn, &keyring, ns, &alias);
    entity.aliases.retain(|a| a.id != alias.id);
    entity.updated = cx.now;
    let mut owner = match moves {
        false => entity,
        true => {
            if host(cx).router.by_id(cx.txn, ns, alias.mount)?.is_some_and(|m| m.entry.local) {
                return Err(Error::invalid("local aliases can't be moved between entities"));
            }
            let target = model::load(cx.txn, ns, &wanted.owner)?;
            let mut target = target.ok_or_else(|| Error::invalid("invalid canonical ID"))?;
            if target.alias_at(changed.mount).is_some() {
                return Err(taken());
            }
            model::save(cx.txn, &entity);
            target.updated = cx.now;
            target
        }
    };
    model::link_alias(cx.txn, &keyring, ns, &changed, &owner.id);
    let answer = json!({"id": changed.id, "canonical_id": owner.id});
    owner.aliases.push(changed);
    model::save(cx.txn, &owner);
    Response::json(answer).done()
}

fn taken() -> Error {
    Error::invalid("Alias already exists for requested entity and mount accessor")
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some((e, a)) = find(cx, args.str("id"))? else { return nothing() };
    let mut shown = view::alias(cx, &a, &e.id);
    shown["namespace_id"] = view::namespace_id(cx).into();
    Response::json(shown).done()
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some((mut e, a)) = find(cx, args.str("id"))? {
        let keyring = host(cx).keyring.clone();
        model::unlink_alias(cx.txn, &keyring, e.ns, &a);
        e.aliases.retain(|other| other.id != a.id);
        e.updated = cx.now;
        model::save(cx.txn, &e);
    }
    nothing()
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let prefix = tables::identity_index(ns, IndexKind::EntityAlias, b"");
    let after = args.str("after");
    let after = (!after.is_empty()).then(|| tables::identity_index(ns, IndexKind::EntityAlias, after.as_bytes()));
    let mut rows = Vec::new();
    for (key, owner) in cx.txn.scan(&prefix, after.as_deref(), view::limit(args))? {
        let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let owner = String::from_utf8_lossy(&owner.bytes).into_owned();
        let Some(e) = model::load(cx.txn, ns, &owner)? else { continue };
        if let Some(a) = e.aliases.iter().find(|a| a.id == id) {
            rows.push((id, Value::Object(view::alias_row(cx, a, &e.id))));
        }
    }
    view::listing(rows)
}
