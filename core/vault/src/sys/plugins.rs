//! `sys/plugins/*`: engines as Vault's catalogue shows them. All are built in; none can be added.

use super::mounts::running_version;
use crate::host::host;
use ringfence_logical::{Args, Class, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde_json::{Value, json};

const KIND: Field = Field::str("type", "auth, secret or database.");
const ONE: &[Field] = &[KIND, Field::str("name", "Name of the plugin.")];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("plugins/catalog/?").root_namespace_only().help("Lists what can be mounted.", "").read(all).list(all),
    Path::new("plugins/catalog/{type:any}/?")
        .fields(&[KIND])
        .sudo()
        .root_namespace_only()
        .help("Lists what can be mounted, of one kind.", "")
        .list(list),
    Path::new("plugins/catalog/{type:any}/{name:any}")
        .fields(ONE)
        .sudo()
        .root_namespace_only()
        .help("What can be mounted.", "Everything is built in; plugins cannot be registered.")
        .read(read)
        .write(register)
        .delete(deregister),
];

/// Engines that the server mounts itself.
const HIDDEN: &[&str] = &["cubbyhole", "identity", "system", "token"];

fn kind(class: Class) -> &'static str {
    match class {
        Class::Secret => "secret",
        Class::Auth => "auth",
    }
}

/// Kind and name of everything that can be mounted; a second version is the same plugin.
fn catalog(cx: &Cx<'_, '_>) -> Vec<(&'static str, &'static str)> {
    let tables = host(cx).registry().iter().map(|r| r.engine.table());
    let mut rows: Vec<_> = tables.filter(|t| !HIDDEN.contains(&t.kind)).map(|t| (kind(t.class), t.kind)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn all(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let version = running_version();
    let rows = catalog(cx);
    let of = |kind: &str| rows.iter().filter(|r| r.0 == kind).map(|r| r.1).collect::<Vec<_>>();
    let detailed: Vec<Value> = rows
        .iter()
        .map(|(kind, name)| {
            json!({
                "builtin": true, "deprecation_status": "supported", "name": name, "type": kind, "version": version,
            })
        })
        .collect();
    Response::json(json!({
        "auth": of("auth"), "database": of("database"), "secret": of("secret"), "detailed": detailed,
    }))
    .done()
}

fn checked(args: &Args) -> Result<&str, Error> {
    match args.str("type") {
        known @ ("auth" | "secret" | "database") => Ok(known),
        other => Err(Error::invalid(format!("{other:?} is not a supported plugin type"))),
    }
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let wanted = checked(args)?;
    Response::keys(catalog(cx).into_iter().filter(|r| r.0 == wanted).map(|r| r.1.to_owned()).collect()).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let wanted = checked(args)?;
    let Some((_, name)) = catalog(cx).into_iter().find(|r| r.0 == wanted && r.1 == args.str("name")) else {
        return nothing();
    };
    Response::json(json!({
        "name": name, "args": [], "builtin": true, "command": "", "deprecation_status": "supported", "sha256": "",
        "version": running_version(),
    }))
    .done()
}

fn register(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Err(Error::invalid("plugins cannot be registered: every engine of this server is built in"))
}

fn deregister(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    nothing()
}
