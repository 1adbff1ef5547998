//! `identity/group-alias*`: by which name a login at a mount proves membership of an external group.

use super::model::{self, Group, GroupAlias, GroupKind};
use super::{groups, view};
use crate::host::host;
use crate::tables::{self, IndexKind};
use ringfence_base::entropy;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde_json::json;

const ID: Field = Field::str("id", "Id of the group alias. If set, updates the alias with this id.");
const NAME: Field = Field::str("name", "Name of the group at the mount.");
const ACCESSOR: Field = Field::str("mount_accessor", "Accessor of the mount whose logins carry the name.");
const GROUP: Field = Field::str("canonical_id", "External group; without one, a new group.");
const AFTER: Field = Field::str("after", "List only entries behind this one.").query();
const LIMIT: Field = Field::int("limit", "List at most so many entries.").query();

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("group-alias")
        .fields(&[ID, NAME, ACCESSOR, GROUP])
        .help("Create or update the alias of an external group.", "")
        .write(write),
    Path::new("group-alias/id/?").fields(&[AFTER, LIMIT]).help("List group aliases by id.", "").list(list),
    Path::new("group-alias/id/{id:any}")
        .fields(&[ID, NAME, ACCESSOR, GROUP])
        .help("Read, update or delete the alias of an external group.", "")
        .read(read)
        .write(write)
        .delete(delete),
];

fn find(cx: &mut Cx<'_, '_>, id: &str) -> Result<Option<Group>, Error> {
    if id.is_empty() {
        return Ok(None);
    }
    let ns = cx.mount.ns;
    match model::owner_of_alias(cx.txn, ns, IndexKind::GroupAlias, id)? {
        Some(group) => model::load_group(cx.txn, ns, &group),
        None => Ok(None),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let id = args.str("id").to_owned();
    let mut holder = find(cx, &id)?;
    if !id.is_empty() && holder.is_none() {
        return Err(Error::invalid("invalid group alias ID provided"));
    }
    let old = holder.as_ref().and_then(|g| g.alias.clone());
    let name = match (args.str("name").trim(), &old) {
        ("", Some(a)) => a.name.clone(),
        ("", None) => return Err(Error::invalid("missing alias name")),
        (given, _) => given.to_owned(),
    };
    let mount = match (args.str("mount_accessor"), &old) {
        ("", Some(a)) => a.mount,
        ("", None) => return Err(Error::invalid("missing mount_accessor")),
        (accessor, _) => {
            let m = view::mount_of(cx, accessor)?;
            if m.entry.local {
                return Err(Error::invalid(format!("mount accessor {accessor:?} is a local mount")));
            }
            m.entry.id
        }
    };
    let keyring = host(cx).keyring.clone();
    let at_name = model::group_of_alias(cx.txn, &keyring, mount, &name)?;
    if holder.is_none()
        && let Some(group) = &at_name
    {
        holder = model::load_group(cx.txn, ns, group)?;
    }
    let wanted = args.str("canonical_id").to_owned();
    let mut group = match (wanted.as_str(), &holder) {
        ("", Some(g)) => g.clone(),
        ("", None) => groups::fresh(cx, "", GroupKind::External)?,
        (id, _) => model::load_group(cx.txn, ns, id)?
            .ok_or_else(|| Error::invalid("invalid group ID given in 'canonical_id'"))?,
    };
    if group.kind != GroupKind::External {
        return Err(Error::invalid("alias can't be set on an internal group"));
    }
    // a name at a mount is one group's; with the alias's own id given, it may move with it
    let own_name =
        holder.as_ref().is_some_and(|h| at_name.as_ref() == Some(&h.id) && (h.id == group.id || !id.is_empty()));
    if at_name.is_some() && !own_name {
        return Err(Error::invalid("combination of mount and group alias name is already in use"));
    }
    let alias_id = match (&old, &group.alias) {
        (Some(a), _) | (None, Some(a)) => a.id.clone(),
        (None, None) => entropy::uuid4(cx.rng),
    };
    if let (Some(mut before), Some(a)) = (holder, &old)
        && before.id != group.id
    {
        model::unlink_group_alias(cx.txn, &keyring, ns, a);
        before.alias = None;
        before.updated = cx.now;
        before.modify_index += 1;
        model::save_group(cx.txn, &before);
    }
    let mut created = cx.now;
    if let Some(a) = &group.alias {
        model::unlink_group_alias(cx.txn, &keyring, ns, a);
        created = a.created;
    }
    let alias = GroupAlias { id: alias_id, mount, name, created, updated: cx.now };
    model::link_group_alias(cx.txn, &keyring, ns, &alias, &group.id);
    let answer = json!({"id": alias.id, "canonical_id": group.id});
    group.alias = Some(alias);
    group.updated = cx.now;
    group.modify_index += 1;
    model::save_group(cx.txn, &group);
    Response::json(answer).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(g) = find(cx, args.str("id"))? else { return nothing() };
    let mut shown = view::group_alias(cx, g.alias.as_ref(), &g.id);
    shown["namespace_id"] = view::namespace_id(cx).into();
    Response::json(shown).done()
}

/// The memberships that logins by this alias made count no more from the next request on; their rows go at the next login
/// of each member at that mount.
fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some(mut g) = find(cx, args.str("id"))?
        && let Some(a) = g.alias.take()
    {
        let keyring = host(cx).keyring.clone();
        model::unlink_group_alias(cx.txn, &keyring, g.ns, &a);
        g.updated = cx.now;
        g.modify_index += 1;
        model::save_group(cx.txn, &g);
    }
    nothing()
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let prefix = tables::identity_index(ns, IndexKind::GroupAlias, b"");
    let after = args.str("after");
    let after = (!after.is_empty()).then(|| tables::identity_index(ns, IndexKind::GroupAlias, after.as_bytes()));
    let mut rows = Vec::new();
    for (key, owner) in cx.txn.scan(&prefix, after.as_deref(), view::limit(args))? {
        let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let owner = String::from_utf8_lossy(&owner.bytes).into_owned();
        if let Some(g) = model::load_group(cx.txn, ns, &owner)?
            && let Some(a) = &g.alias
        {
            rows.push((id, view::group_alias_row(cx, a, &g.id)));
        }
    }
    view::listing(rows)
}
