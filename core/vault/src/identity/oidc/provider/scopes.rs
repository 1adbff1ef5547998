//! `identity/oidc/scope/*`: names that a client asks for, each a template of claims; and the claims of an entity.

use super::super::{load, names, save, template};
use super::{OPENID, PROVIDER, SCOPE, providers};
use crate::identity::{Entity, Template};
use crate::tables;
use ringfence_logical::{Args, Cx, Error, Field, Map, Outcome, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

const NAME: Field = Field::str("name", "Name of the scope.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/scope/?").help("List scopes of the OpenID provider.", "").list(list),
    Path::new("oidc/scope/{name}")
        .fields(&[
            NAME,
            Field::str("template", "Claims: a JSON object with places to fill, as text or in base64."),
            Field::str("description", "What it is for."),
        ])
        .help("Read, write or delete a scope of the OpenID provider.", "")
        .exists(|cx, args| Ok(find(cx, args.str("name"))?.is_some()))
        .read(read)
        .write(write)
        .delete(delete),
];

/// A scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Claims, as text.
    pub template: String,
    /// For people.
    pub description: String,
}

/// Reads a scope.
pub fn find(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Scope>, Error> {
    load(cx.txn, cx.mount.ns, SCOPE, name)
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(names(cx.txn, cx.mount.ns, SCOPE)).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match find(cx, args.str("name"))? {
        Some(s) => Response::json(json!({"template": s.template, "description": s.description})).done(),
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if name == OPENID {
        return Err(Error::invalid("the \"openid\" scope name is reserved"));
    }
    let mut scope = find(cx, name)?.unwrap_or_default();
    if let Some(text) = args.opt_str("description") {
        scope.description = text.to_owned();
    }
    if let Some(given) = args.opt_str("template") {
        scope.template = template::plain(given);
    }
    template::check(&scope.template).map_err(Error::invalid)?;
    save(cx.txn, cx.mount.ns, SCOPE, name, &scope);
    nothing()
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let mut users = Vec::new();
    for provider in names(cx.txn, cx.mount.ns, PROVIDER) {
        let found = providers::find(cx, &provider)?;
        if found.is_some_and(|p| p.scopes_supported.iter().any(|s| s == name)) {
            users.push(provider);
        }
    }
    if !users.is_empty() {
        return Err(Error::invalid(format!(
            "unable to delete scope {name:?} because it is currently referenced by these providers: {}",
            users.join(", ")
        )));
    }
    if find(cx, name)?.is_some() {
        cx.txn.delete(&tables::oidc(cx.mount.ns, SCOPE, name));
    }
    nothing()
}

/// The claims of an entity that these scopes stand for; scopes that there are not are passed over (OpenID Connect Core
/// 3.1.2.1). `Err` inside: two scopes set one claim.
pub fn claims(cx: &mut Cx<'_, '_>, scopes: &[String], entity: Entity) -> Result<Result<Map, String>, Error> {
    let who = Template::of(cx.txn, entity)?;
    let mut claims = Map::new();
    let mut by: BTreeMap<String, &str> = BTreeMap::new();
    for name in scopes {
        let Some(scope) = find(cx, name)? else { continue };
        // judged when it was written; what does not fill all the same gives no claims
        let filled = template::fill(&scope.template, &who, cx.now).unwrap_or_default();
        for (claim, value) in filled {
            if let Some(other) = by.insert(claim.clone(), name) {
                return Ok(Err(format!(
                    "found scopes with conflicting top-level claim: claim {claim:?} in scopes {name:?}, {other:?}"
                )));
            }
            claims.insert(claim, value);
        }
    }
    Ok(Ok(claims))
}
