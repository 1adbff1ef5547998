//! `sys/internal/ui/*`: what user interfaces and command lines ask to find their way. Some of it is open to callers
//! without a token; then the answer holds only what its owner declared visible.

use super::mounts::{describe, dir};
use crate::host::{VaultHost, host};
use crate::mount::Routed;
use crate::token;
use crate::token::capabilities::acl_of;
use ringfence_base::Code;
use ringfence_logical::{Args, Class, Cx, Error, Field, Map, Outcome, Path, Response};
use ringfence_policy::Acl;
use serde_json::{Value, json};
use std::rc::Rc;

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("internal/ui/mounts/?").public().help("Mounts that the caller may see.", "").read(mounts),
    Path::new("internal/ui/mounts/{path..}")
        .fields(&[Field::str("path", "A path at or below the mount.")])
        .public()
        .help("The mount that serves a path.", "")
        .read(mount),
    Path::new("internal/ui/resultant-acl").help("What the caller's policies grant, by path.", "").read(resultant),
    Path::new("internal/ui/namespaces/?").public().help("Namespaces below this one.", "").read(namespaces),
    Path::new("internal/ui/feature-flags").public().help("Flags of the user interface.", "").read(flags),
];

/// The ACL of the caller, if there is a living token.
fn acl(cx: &mut Cx<'_, '_>) -> Result<Option<Rc<Acl>>, Error> {
    if cx.principal.is_none() {
        return Ok(None);
    }
    let caller = token::caller(cx)?;
    acl_of(cx, &caller.entry)
}

fn sees(acl: Option<&Rc<Acl>>, m: &Routed) -> bool {
    acl.is_some_and(|a| a.has_access_below(&format!("{}{}", m.info.ns_path, m.info.path)))
}

fn mounts(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let acl = acl(cx)?;
    let h = host(cx);
    let (mut secret, mut auth) = (Map::new(), Map::new());
    for m in h.router.mounts(cx.txn, cx.mount.ns)? {
        let shown = if sees(acl.as_ref(), m) {
            Value::Object(describe(&m.entry))
        } else if m.entry.config.listing_visibility == "unauth" {
            json!({ "type": m.entry.kind, "description": m.entry.description, "options": m.entry.options })
        } else {
            continue;
        };
        let side = if m.entry.class == Class::Auth { &mut auth } else { &mut secret };
        side.insert(m.entry.path.clone(), shown);
    }
    Response::json(json!({ "secret": secret, "auth": auth })).done()
}

fn mount(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = dir(args.str("path"));
    let refused = || {
        Error::new(
            Code::Denied,
            format!(
                "preflight capability check returned 403, please ensure client's policies grant access to path {path:?}"
            ),
        )
    };
    let acl = acl(cx)?;
    let h: &VaultHost = host(cx);
    let (m, _) = h.router.route(cx.txn, cx.mount.ns, &path)?.ok_or_else(refused)?;
    if !sees(acl.as_ref(), m) {
        return Err(refused());
    }
    let mut data = describe(&m.entry);
    data.insert("path".into(), m.info.path.clone().into());
    Response::data(data).done()
}

fn resultant(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let Some(acl) = acl(cx)? else { return Err(Error::denied_plain()) };
    let found = acl.resultant();
    Response::json(json!({
        "root": found.root, "exact_paths": found.exact_paths, "glob_paths": found.glob_paths,
    }))
    .done()
}

fn namespaces(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    // names below in which the caller may do something; without a token nothing is told
    let acl = acl(cx)?;
    let base = host(cx).namespace.path.clone();
    let mut keys = super::namespaces::children(cx);
    keys.retain(|name| acl.as_ref().is_some_and(|a| a.has_access_below(&format!("{base}{name}"))));
    Response::json(json!({ "keys": keys })).done()
}

fn flags(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    super::bare(&json!({ "feature_flags": [] }))
}
