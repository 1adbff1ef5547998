//! `identity/mfa/login-enforcement/*`: which logins owe which methods.

use super::records::{self, Enforcement};
use crate::host::host;
use crate::identity::model;
use ringfence_base::entropy;
use ringfence_logical::{Args, Class, Cx, Error, Field, Map, Outcome, Path, Response, nothing};
use serde_json::{Value, json};

const NAME: Field = Field::str("name", "Name of the enforcement.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("mfa/login-enforcement/?").help("List login enforcements.", "").list(list),
    Path::new("mfa/login-enforcement/{name}")
        .fields(&[
            NAME,
            Field::list("mfa_method_ids", "Ids of the methods; any one of them is enough."),
            Field::list("auth_method_accessors", "Accessors of the auth mounts whose logins owe it."),
            Field::list("auth_method_types", "Types of the auth methods whose logins owe it."),
            Field::list("identity_group_ids", "Ids of the groups whose members owe it."),
            Field::list("identity_entity_ids", "Ids of the entities that owe it."),
        ])
        .help("Read, write or delete a login enforcement.", "")
        .read(read)
        .write(write)
        .delete(delete),
];

fn shown(cx: &Cx<'_, '_>, e: &Enforcement) -> Value {
    let ns = &host(cx).namespace;
    json!({
        "id": e.id, "name": e.name, "namespace_id": ns.external_id, "namespace_path": ns.path,
        "mfa_method_ids": e.methods, "auth_method_accessors": e.accessors, "auth_method_types": e.types,
        "identity_group_ids": e.groups, "identity_entity_ids": e.entities,
    })
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let all = records::enforcements(cx.txn, cx.mount.ns)?;
    let mut data = Map::new();
    if !all.is_empty() {
        let info: Map = all.iter().map(|e| (e.name.clone(), shown(cx, e))).collect();
        data.insert("keys".into(), all.iter().map(|e| e.name.clone()).collect::<Vec<_>>().into());
        data.insert("key_info".into(), Value::Object(info));
    }
    Response::data(data).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match records::enforcement(cx.txn, cx.mount.ns, args.str("name"))? {
        Some(e) => Response::json(shown(cx, &e)).done(),
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let name = args.str("name").to_owned();
    let old = records::enforcement(cx.txn, ns, &name)?;
    let mut e = old.unwrap_or_else(|| Enforcement { id: entropy::uuid4(cx.rng), name, ..Enforcement::default() });
    for (field, list) in [
        ("mfa_method_ids", &mut e.methods),
        ("auth_method_accessors", &mut e.accessors),
        ("auth_method_types", &mut e.types),
        ("identity_group_ids", &mut e.groups),
        ("identity_entity_ids", &mut e.entities),
    ] {
        if let Some(mut given) = args.opt_list(field) {
            given.retain(|v| !v.is_empty());
            given.sort();
            given.dedup();
            *list = given;
        }
    }
    check(cx, &e)?;
    records::save_enforcement(cx.txn, ns, &e);
    nothing()
}

/// An enforcement that names something that is not there would protect nothing, silently.
fn check(cx: &mut Cx<'_, '_>, e: &Enforcement) -> Result<(), Error> {
    let ns = cx.mount.ns;
    if e.methods.is_empty() {
        return Err(Error::invalid("missing method ids"));
    }
    for id in &e.methods {
        if records::method(cx.txn, ns, id)?.is_none() {
            return Err(Error::invalid(format!("one of the provided method ids doesn't exist: {id:?}")));
        }
    }
    if e.accessors.is_empty() && e.types.is_empty() && e.groups.is_empty() && e.entities.is_empty() {
        return Err(Error::invalid(
            "One of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified",
        ));
    }
    let h = host(cx);
    for accessor in &e.accessors {
        let known = h
            .router
            .by_accessor(cx.txn, ns, accessor)?
            .is_some_and(|m| m.entry.class == Class::Auth && m.entry.kind != crate::token::TABLE.kind);
        if !known {
            return Err(Error::invalid(format!(
                "one of the auth method accessors provided is invalid: {accessor:?}"
            )));
        }
    }
    for kind in &e.types {
        let known = h.registry().iter().any(|r| r.name == kind && r.engine.table().class == Class::Auth);
        if !known || kind == crate::token::TABLE.kind {
            return Err(Error::invalid(format!("one of the auth method types provided is invalid: {kind:?}")));
        }
    }
    for id in &e.groups {
        if model::load_group(cx.txn, ns, id)?.is_none() {
            return Err(Error::invalid(format!("one of the provided group ids doesn't exist: {id:?}")));
        }
    }
    for id in &e.entities {
        if model::load(cx.txn, ns, id)?.is_none() {
            return Err(Error::invalid(format!("one of the provided entity ids doesn't exist: {id:?}")));
        }
    }
    Ok(())
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if records::enforcement(cx.txn, cx.mount.ns, name)?.is_some() {
        records::delete_enforcement(cx.txn, cx.mount.ns, name);
    }
    nothing()
}
