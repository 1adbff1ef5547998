//! `identity/oidc/assignment/*`: entities and groups who may log in to a client. `allow_all` is always there.

use super::super::{load, names, save};
use super::{ASSIGNMENT, clients};
use crate::identity::Entity;
use crate::identity::resolve::Memberships;
use crate::tables;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The assignment of everybody.
pub const ALLOW_ALL: &str = "allow_all";
const NAME: Field = Field::str("name", "Name of the assignment.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/assignment/?").help("List assignments of the OpenID provider.", "").list(list),
    Path::new("oidc/assignment/{name}")
        .fields(&[
            NAME,
            Field::list("entity_ids", "Entities that may log in."),
            Field::list("group_ids", "Groups whose members may."),
        ])
        .help("Read, write or delete an assignment of the OpenID provider.", "")
        .exists(|cx, args| Ok(find(cx, args.str("name"))?.is_some()))
        .read(read)
        .write(write)
        .delete(delete),
];

/// An assignment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Ids, lower case.
    pub entity_ids: Vec<String>,
    /// Ids, lower case.
    pub group_ids: Vec<String>,
}

/// Reads an assignment.
pub fn find(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Assignment>, Error> {
    if name == ALLOW_ALL {
        return Ok(Some(Assignment { entity_ids: vec!["*".into()], group_ids: vec!["*".into()] }));
    }
    load(cx.txn, cx.mount.ns, ASSIGNMENT, name)
}

/// True if a client with these assignments is open to an entity.
pub fn admits(cx: &mut Cx<'_, '_>, assignments: &[String], entity: &Entity) -> Result<bool, Error> {
    if entity.disabled {
        return Ok(false);
    }
    if assignments.iter().any(|a| a == ALLOW_ALL) {
        return Ok(true);
    }
    let groups = Memberships::of(cx.txn, &entity.as_ref())?;
    for name in assignments {
        let Some(assignment) = find(cx, name)? else { continue };
        let by_group = groups.all().any(|g| assignment.group_ids.contains(&g.id));
        if by_group || assignment.entity_ids.contains(&entity.id) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let mut all = names(cx.txn, cx.mount.ns, ASSIGNMENT);
    all.push(ALLOW_ALL.to_owned());
    all.sort();
    Response::keys(all).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match find(cx, args.str("name"))? {
        Some(a) => Response::json(json!({"entity_ids": a.entity_ids, "group_ids": a.group_ids})).done(),
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if name == ALLOW_ALL {
        return Err(Error::invalid("modification of assignment \"allow_all\" not allowed"));
    }
    let mut assignment = find(cx, name)?.unwrap_or_default();
    let ids = |given: Vec<String>| {
        let mut ids: Vec<String> = given.iter().map(|id| id.to_lowercase()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    if let Some(given) = args.opt_list("entity_ids") {
        assignment.entity_ids = ids(given);
    }
    if let Some(given) = args.opt_list("group_ids") {
        assignment.group_ids = ids(given);
    }
    save(cx.txn, cx.mount.ns, ASSIGNMENT, name, &assignment);
    nothing()
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if name == ALLOW_ALL {
        return Err(Error::invalid("deletion of assignment \"allow_all\" not allowed"));
    }
    let all = clients::all(cx)?;
    let users: Vec<&str> =
        all.iter().filter(|c| c.assignments.iter().any(|a| a == name)).map(|c| c.name.as_str()).collect();
    if !users.is_empty() {
        return Err(Error::invalid(format!(
            "unable to delete assignment {name:?} because it is currently referenced by these clients: {}",
            users.join(", ")
        )));
    }
    if find(cx, name)?.is_some() {
        cx.txn.delete(&tables::oidc(cx.mount.ns, ASSIGNMENT, name));
    }
    nothing()
}
