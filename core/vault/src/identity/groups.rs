//! `identity/group*`: sets of entities and of other groups, and the policies that they lend.

use super::model::{self, BY_HAND, ENTITY_MEMBER, GROUP_MEMBER, Group, GroupKind, Ref};
use super::{login, view};
use crate::host::host;
use crate::namespace;
use crate::tables::{self, IndexKind};
use ringfence_base::{NsId, entropy};
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, nothing};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ID: Field = Field::str("id", "Id of the group. If set, updates the group with this id.");
const NAME: Field = Field::str("name", "Name of the group.");
const TYPE: Field = Field::str("type", "internal (the default) or external. Cannot be changed.");
const METADATA: Field = Field::new("metadata", Kind::KvPairs, "Pairs that templates may name.");
const POLICIES: Field = Field::list("policies", "Policies of every member.");
const MEMBER_GROUPS: Field = Field::list("member_group_ids", "Ids of the groups that are members.");
const MEMBER_ENTITIES: Field = Field::list("member_entity_ids", "Ids of the entities that are members.");
const AFTER: Field = Field::str("after", "List only entries behind this one.").query();
const LIMIT: Field = Field::int("limit", "List at most so many entries.").query();

/// Members that one transaction removes; the rest of a large group's is a job.
const CLEAR_STEP: usize = 1000;
/// Begins the name of the job that removes the memberships of a deleted group.
pub const CLEAR_JOB: &str = "group-clear/";

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("group")
        .fields(&[ID, NAME, TYPE, METADATA, POLICIES, MEMBER_GROUPS, MEMBER_ENTITIES])
        .help("Create or update a group.", "")
        .write(write_any),
    Path::new("group/id/?").fields(&[AFTER, LIMIT]).help("List groups by id.", "").list(list_ids),
    Path::new("group/id/{id:any}")
        .fields(&[ID, NAME, TYPE, METADATA, POLICIES, MEMBER_GROUPS, MEMBER_ENTITIES])
        .help("Read, update or delete a group by id.", "")
        .read(read_id)
        .write(write_id)
        .delete(delete_id),
    Path::new("group/name/?").fields(&[AFTER, LIMIT]).help("List groups by name.", "").list(list_names),
    Path::new("group/name/{name..}")
        .fields(&[NAME, TYPE, METADATA, POLICIES, MEMBER_GROUPS, MEMBER_ENTITIES])
        .help("Read, create, update or delete a group by name.", "")
        .read(read_name)
        .write(write_name)
        .delete(delete_name),
];

fn by_name(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Group>, Error> {
    let keyring = host(cx).keyring.clone();
    match model::id_of_name(cx.txn, &keyring, cx.mount.ns, IndexKind::GroupName, name)? {
        Some(id) => model::load_group(cx.txn, cx.mount.ns, &id),
        None => Ok(None),
    }
}

fn write_any(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if !args.str("id").is_empty() {
        return write_id(cx, args);
    }
    write_name(cx, args)
}

fn write_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(mut g) = model::load_group(cx.txn, cx.mount.ns, args.str("id"))? else {
        return Err(Error::invalid("group not found from id"));
    };
    let name = args.str("name").trim().to_owned();
    if !name.is_empty() && name != g.name {
        let keyring = host(cx).keyring.clone();
        let kind = IndexKind::GroupName;
        if model::id_of_name(cx.txn, &keyring, g.ns, kind, &name)?.is_some_and(|id| id != g.id) {
            return Err(Error::invalid("group name is already in use"));
        }
        model::free_name(cx.txn, &keyring, g.ns, kind, &g.name);
        model::take_name(cx.txn, &keyring, g.ns, kind, &name, &g.id);
        g.name = name;
    }
    update(cx, g, args)
}

fn write_name(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").trim().to_owned();
    if !name.is_empty()
        && let Some(g) = by_name(cx, &name)?
    {
        return update(cx, g, args);
    }
    let kind = kind_of(args)?.unwrap_or(GroupKind::Internal);
    let mut g = fresh(cx, &name, kind)?;
    apply(cx, &mut g, args)?;
    model::save_group(cx.txn, &g);
    Response::json(json!({"id": g.id, "name": g.name})).done()
}

/// A new group with its name taken, not yet saved. An empty name becomes `group_<8 hex>`.
pub fn fresh(cx: &mut Cx<'_, '_>, name: &str, kind: GroupKind) -> Result<Group, Error> {
    let keyring = host(cx).keyring.clone();
    let ns = cx.mount.ns;
    let name = match name {
        "" => login::free_name(cx.txn, &keyring, cx.rng, ns, IndexKind::GroupName, "group")?,
        given => given.to_owned(),
    };
    let id = entropy::uuid4(cx.rng);
    model::take_name(cx.txn, &keyring, ns, IndexKind::GroupName, &name, &id);
    Ok(Group {
        id,
        name,
        ns,
        kind,
        metadata: BTreeMap::new(),
        policies: Vec::new(),
        alias: None,
        created: cx.now,
        updated: cx.now,
        modify_index: 1,
    })
}

fn kind_of(args: &Args) -> Result<Option<GroupKind>, Error> {
    match args.str("type") {
        "" => Ok(None),
        "internal" => Ok(Some(GroupKind::Internal)),
        "external" => Ok(Some(GroupKind::External)),
        other => Err(Error::invalid(format!("invalid group type {other:?}"))),
    }
}

fn update(cx: &mut Cx<'_, '_>, mut g: Group, args: &Args) -> Outcome {
    if kind_of(args)?.is_some_and(|k| k != g.kind) {
        return Err(Error::invalid("group type cannot be changed"));
    }
    apply(cx, &mut g, args)?;
    g.updated = cx.now;
    g.modify_index += 1;
    model::save_group(cx.txn, &g);
    nothing()
}

fn apply(cx: &mut Cx<'_, '_>, g: &mut Group, args: &Args) -> Result<(), Error> {
    if let Some(given) = args.opt_pairs("metadata") {
        g.metadata = view::metadata(given)?;
    }
    if let Some(given) = args.opt_list("policies") {
        g.policies = view::policies(&given)?;
    }
    let entities = args.opt_list("member_entity_ids");
    let groups = args.opt_list("member_group_ids");
    if g.kind == GroupKind::External {
        if entities.is_some_and(|l| !l.is_empty()) {
            return Err(Error::invalid("member entities can't be set manually for external groups"));
        }
        if groups.is_some_and(|l| !l.is_empty()) {
            return Err(Error::invalid("member groups can't be set for external groups"));
        }
        return Ok(());
    }
    let own = g.as_ref();
    if let Some(ids) = entities {
        let wanted = resolve(cx, &ids, "entity", |cx, ns, id| Ok(model::load(cx.txn, ns, id)?.is_some()))?;
        set_members(cx, &own, ENTITY_MEMBER, wanted)?;
    }
    if let Some(ids) = groups {
        let wanted =
            resolve(
                cx,
                &ids,
                "group",
                |cx, ns, id| Ok(id == own.id || model::load_group(cx.txn, ns, id)?.is_some()),
            )?;
        refuse_cycle(cx, &own, &wanted)?;
        set_members(cx, &own, GROUP_MEMBER, wanted)?;
    }
    Ok(())
}

/// Ids as members: each must exist here, or in a namespace above, whose people a child's groups may hold.
fn resolve(
    cx: &mut Cx<'_, '_>,
    ids: &[String],
    what: &str,
    exists: impl Fn(&mut Cx<'_, '_>, NsId, &str) -> Result<bool, Error>,
) -> Result<BTreeSet<Ref>, Error> {
    let mut found = BTreeSet::new();
    for id in ids.iter().filter(|id| !id.is_empty()) {
        let mut at = None;
        for ns in namespace::lineage(&host(cx).router, cx.mount.ns, &cx.mount.ns_path) {
            if exists(cx, ns, id)? {
                at = Some(ns);
                break;
            }
        }
        match at {
            Some(ns) => found.insert(Ref { ns, id: id.clone() }),
            None => return Err(Error::invalid(format!("invalid {what} ID {id:?}"))),
        };
    }
    Ok(found)
}

/// A group must not come to be among its own members, however far down.
fn refuse_cycle(cx: &mut Cx<'_, '_>, own: &Ref, wanted: &BTreeSet<Ref>) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut above = BTreeSet::from([own.clone()]);
    let mut next = vec![own.clone()];
    while let Some(at) = next.pop() {
        for (parent, _) in model::groups_of(cx.txn, &at)? {
            if above.insert(parent.clone()) {
                next.push(parent);
            }
        }
    }
    match wanted.iter().any(|g| above.contains(g)) {
        true => Err(Error::invalid("member_group_ids cycle detected")),
        false => Ok(()),
    }
}

fn set_members(cx: &mut Cx<'_, '_>, group: &Ref, kind: u8, wanted: BTreeSet<Ref>) -> Result<(), Error> {
    let held: BTreeSet<Ref> = model::members(cx.txn, group, kind, usize::MAX)?.into_iter().collect();
    for gone in held.difference(&wanted) {
        model::leave(cx.txn, group, kind, gone);
    }
    for new in wanted.difference(&held) {
        model::join(cx.txn, group, kind, new, BY_HAND);
    }
    Ok(())
}

fn read_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match model::load_group(cx.txn, cx.mount.ns, args.str("id"))? {
        Some(g) => show(cx, &g),
        None => nothing(),
    }
}

fn read_name(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match by_name(cx, args.str("name"))? {
        Some(g) => show(cx, &g),
        None => nothing(),
    }
}

/// The page of a group.
pub fn show(cx: &mut Cx<'_, '_>, g: &Group) -> Outcome {
    let own = g.as_ref();
    let ids = |refs: Vec<Ref>| refs.into_iter().map(|r| r.id).collect::<Vec<_>>();
    let mut page = view::group(cx, g);
    let entities = ids(model::members(cx.txn, &own, ENTITY_MEMBER, usize::MAX)?);
    let groups = ids(model::members(cx.txn, &own, GROUP_MEMBER, usize::MAX)?);
    let parents: Vec<String> = model::groups_of(cx.txn, &own)?.into_iter().map(|(r, _)| r.id).collect();
    page.insert("member_entity_ids".into(), entities.into());
    page.insert("member_group_ids".into(), groups.into());
    page.insert("parent_group_ids".into(), if parents.is_empty() { Value::Null } else { parents.into() });
    Response::data(page).done()
}

fn row(cx: &mut Cx<'_, '_>, g: &Group) -> Result<Value, Error> {
    let own = g.as_ref();
    Ok(json!({
        "name": g.name,
        "num_member_entities": model::count_members(cx.txn, &own, ENTITY_MEMBER),
        "num_parent_groups": model::groups_of(cx.txn, &own)?.len(),
    }))
}

fn list_ids(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let after = args.str("after");
    let after = (!after.is_empty()).then(|| tables::group(ns, after));
    let mut rows = Vec::new();
    for (_, plain) in cx.txn.scan(&tables::group(ns, ""), after.as_deref(), view::limit(args))? {
        let g = parse(&plain.bytes)?;
        rows.push((g.id.clone(), row(cx, &g)?));
    }
    view::listing(rows)
}

fn list_names(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut found = Vec::new();
    for (_, plain) in cx.txn.scan(&tables::group(cx.mount.ns, ""), None, usize::MAX)? {
        let g = parse(&plain.bytes)?;
        found.push((g.name.clone(), g));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut rows = Vec::new();
    for (name, g) in view::page(found, args) {
        rows.push((name, row(cx, &g)?));
    }
    view::listing(rows)
}

fn parse(bytes: &[u8]) -> Result<Group, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored group: {e}")))
}

fn delete_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some(g) = model::load_group(cx.txn, cx.mount.ns, args.str("id"))? {
        forget(cx, &g)?;
    }
    nothing()
}

fn delete_name(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some(g) = by_name(cx, args.str("name"))? {
        forget(cx, &g)?;
    }
    nothing()
}

/// Removes a group. It lends nothing from the next request on; the rows of its members go here or, of a large group,
/// little by little.
fn forget(cx: &mut Cx<'_, '_>, g: &Group) -> Result<(), Error> {
    let keyring = host(cx).keyring.clone();
    let own = g.as_ref();
    if let Some(alias) = &g.alias {
        model::unlink_group_alias(cx.txn, &keyring, g.ns, alias);
    }
    for (parent, _) in model::groups_of(cx.txn, &own)? {
        model::leave(cx.txn, &parent, GROUP_MEMBER, &own);
    }
    model::free_name(cx.txn, &keyring, g.ns, IndexKind::GroupName, &g.name);
    cx.txn.delete(&tables::group(g.ns, &g.id));
    if !clear_members(cx, &own)? {
        cx.schedule(&format!("{CLEAR_JOB}{}", g.id), cx.now);
    }
    Ok(())
}

/// Removes memberships of a group, a bounded number; true if none are left.
fn clear_members(cx: &mut Cx<'_, '_>, group: &Ref) -> Result<bool, Error> {
    for kind in [GROUP_MEMBER, ENTITY_MEMBER] {
        let members = model::members(cx.txn, group, kind, CLEAR_STEP)?;
        let full = members.len() == CLEAR_STEP;
        for member in members {
            model::leave(cx.txn, group, kind, &member);
        }
        if full {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A step of the job that removes the memberships of a deleted group.
pub fn clear_some(cx: &mut Cx<'_, '_>, group: &str) -> Outcome {
    let own = Ref { ns: cx.mount.ns, id: group.to_owned() };
    if !clear_members(cx, &own)? {
        cx.schedule(&format!("{CLEAR_JOB}{group}"), cx.now.plus_seconds(1));
    }
    nothing()
}
