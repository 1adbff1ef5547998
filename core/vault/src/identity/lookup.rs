//! `identity/lookup/entity` and `identity/lookup/group`: an entity or group by whatever is known of it.

use super::model;
use super::{entities, groups};
use crate::host::host;
use crate::tables::IndexKind;
use ringfence_base::MountId;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, nothing};

const FIELDS: &[Field] = &[
    Field::str("id", "Its id."),
    Field::str("name", "Its name."),
    Field::str("alias_id", "Id of an alias of it."),
    Field::str("alias_name", "Name of an alias of it; with alias_mount_accessor."),
    Field::str("alias_mount_accessor", "Accessor of the mount of the alias; with alias_name."),
];

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("lookup/entity")
        .computes()
        .fields(FIELDS)
        .help("Find an entity by name, id or alias.", "")
        .write(entity),
    Path::new("lookup/group").computes().fields(FIELDS).help("Find a group by name, id or alias.", "").write(group),
];

/// By what is searched.
enum By<'a> {
    Id(&'a str),
    Name(&'a str),
    AliasId(&'a str),
    /// `None`: there is no such mount here.
    Alias(Option<MountId>, &'a str),
}

fn asked<'a>(cx: &Cx<'_, '_>, args: &'a Args) -> Result<By<'a>, Error> {
    let [id, name, alias_id, alias, accessor] =
        ["id", "name", "alias_id", "alias_name", "alias_mount_accessor"].map(|f| args.str(f));
    let pair = !alias.is_empty() || !accessor.is_empty();
    let given = [!id.is_empty(), !name.is_empty(), !alias_id.is_empty(), pair];
    match given.iter().filter(|g| **g).count() {
        0 => return Err(Error::invalid("query parameter not supplied")),
        1 => {}
        _ => {
            return Err(Error::invalid("query parameter conflict; please supply distinct set of query parameters"));
        }
    }
    if pair && (alias.is_empty() || accessor.is_empty()) {
        return Err(Error::invalid("both 'alias_name' and 'alias_mount_accessor' needs to be set"));
    }
    Ok(match given {
        [true, ..] => By::Id(id),
        [_, true, ..] => By::Name(name),
        [_, _, true, _] => By::AliasId(alias_id),
        _ => {
            let mount = host(cx).router.by_accessor(cx.txn, cx.mount.ns, accessor)?;
            By::Alias(mount.map(|m| m.entry.id), alias)
        }
    })
}

fn entity(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let by = asked(cx, args)?;
    let (ns, keyring) = (cx.mount.ns, host(cx).keyring.clone());
    let id = match by {
        By::Id(id) => Some(id.to_owned()),
        By::Name(name) => model::id_of_name(cx.txn, &keyring, ns, IndexKind::EntityName, name)?,
        By::AliasId(id) => model::owner_of_alias(cx.txn, ns, IndexKind::EntityAlias, id)?,
        By::Alias(Some(mount), name) => model::entity_of_alias(cx.txn, &keyring, mount, name)?,
        By::Alias(None, _) => None,
    };
    match model::load(cx.txn, ns, &id.unwrap_or_default())? {
        Some(e) => entities::show(cx, &e),
        None => nothing(),
    }
}

fn group(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let by = asked(cx, args)?;
    let (ns, keyring) = (cx.mount.ns, host(cx).keyring.clone());
    let id = match by {
        By::Id(id) => Some(id.to_owned()),
        By::Name(name) => model::id_of_name(cx.txn, &keyring, ns, IndexKind::GroupName, name)?,
        By::AliasId(id) => model::owner_of_alias(cx.txn, ns, IndexKind::GroupAlias, id)?,
        By::Alias(Some(mount), name) => model::group_of_alias(cx.txn, &keyring, mount, name)?,
        By::Alias(None, _) => None,
    };
    match model::load_group(cx.txn, ns, &id.unwrap_or_default())? {
        Some(g) => groups::show(cx, &g),
        None => nothing(),
    }
}
