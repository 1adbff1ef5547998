//! OpenAPI 3.0.2 from the engines' tables: what `?help=1` answers of one path or mount, and `sys/internal/specs/openapi`
//! of everything mounted that the caller may see.

use crate::host::host;
use crate::token;
use crate::token::capabilities::acl_of;
use ringfence_logical::field::Preset;
use ringfence_logical::path::{Access, Table};
use ringfence_logical::{Args, Cx, Field, Kind, Map, Outcome, Path, Response};
use serde_json::{Value, json};

/// Query fields of the document.
const FIELDS: &[Field] = &[
    Field::bool("generic_mount_paths", "Write mounts as parameters.").query(),
    Field::str("context", "Kept for older clients.").query(),
];

/// The path that gives the whole document.
pub static PATHS: &[Path] = &[Path::new("internal/specs/openapi")
    .fields(FIELDS)
    .public()
    .help("This API as an OpenAPI document.", "Holds the mounts that the caller may see.")
    .read(whole)
    .write(whole)];

/// Mounts whose paths are the same on every server: shown to anybody.
const KNOWN: &[&str] = &["sys/", "auth/token/"];

fn whole(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let acl = match cx.principal {
        None => None,
        Some(_) => {
            let caller = token::caller(cx)?;
            acl_of(cx, &caller.entry)?
        }
    };
    let h = host(cx);
    let generic = args.bool("generic_mount_paths");
    let mut paths = Map::new();
    for m in h.router.mounts(cx.txn, cx.mount.ns)? {
        let granted = acl.as_ref().is_some_and(|a| a.has_access_below(&format!("{}{}", m.info.ns_path, m.info.path)));
        let known = KNOWN.contains(&m.info.path.as_str());
        if !(granted || known || m.entry.config.listing_visibility == "unauth") {
            continue;
        }
        let Some(engine) = h.registry().find(m.entry.class, &m.entry.kind, m.entry.version()) else { continue };
        let table = engine.engine.table();
        let place = match generic && !known {
            true => Place { root: generic_root(&m.info.path, table), parameter: Some(mount_parameter(table)) },
            false => Place { root: m.info.path.clone(), parameter: None },
        };
        add_table(&mut paths, table, &place);
    }
    let mut body =
        serde_json::to_vec(&document(paths, &h.settings().api_version)).expect("a JSON tree always serialises");
    body.push(b'\n');
    Response::raw("application/json", body).done()
}

/// Where a table's paths begin.
struct Place {
    /// Ends in a slash, or is empty.
    root: String,
    /// The name of the mount's path, if it is a parameter.
    parameter: Option<String>,
}

fn mount_parameter(table: &Table) -> String {
    format!("{}_mount_path", table.kind.replace('-', "_"))
}

fn generic_root(path: &str, table: &Table) -> String {
    let below_auth = if path.starts_with("auth/") { "auth/" } else { "" };
    format!("{below_auth}{{{}}}/", mount_parameter(table))
}

/// The paths object of one declared path, relative to the mount.
pub(super) fn of_path(table: &Table, path: &Path) -> Map {
    let mut paths = Map::new();
    add_path(&mut paths, table, path, &Place { root: String::new(), parameter: None });
    paths
}

/// The paths object of a table, relative to the mount.
pub(super) fn of_table(table: &Table) -> Map {
    let mut paths = Map::new();
    add_table(&mut paths, table, &Place { root: String::new(), parameter: None });
    paths
}

/// A document of some paths.
pub(super) fn document(paths: Map, version: &str) -> Value {
    json!({
        "openapi": "3.0.2",
        "info": {
            "title": "Ringfence API",
            "description": "HTTP API, compatible with HashiCorp Vault's. All API routes are prefixed with `/v1/`.",
            "version": version,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "paths": paths,
        "components": { "schemas": {} },
    })
}

fn add_table(paths: &mut Map, table: &Table, place: &Place) {
    for p in table.paths {
        add_path(paths, table, p, place);
    }
}

fn add_path(paths: &mut Map, table: &Table, path: &Path, place: &Place) {
    let (route, captures) = route(path.pattern);
    let lists_only = path.read.is_none() && path.list.is_some();
    let more = path.write.is_some() || path.patch.is_some() || path.delete.is_some();
    if lists_only && more && !route.ends_with('/') {
        // a list is asked of the folder, and nothing else can be: the two stand apart
        add_path(paths, table, &Path { write: None, patch: None, delete: None, ..*path }, place);
        return add_path(paths, table, &Path { list: None, ..*path }, place);
    }
    let slash = if lists_only && !route.ends_with('/') { "/" } else { "" };
    let full = format!("/{}{route}{slash}", place.root);
    let mut item = Map::new();
    if !path.synopsis.is_empty() {
        item.insert("description".into(), path.synopsis.into());
    }
    let mut parameters: Vec<Value> = captures.iter().map(|c| path_parameter(c, path.fields)).collect();
    if let Some(name) = &place.parameter {
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "schema": { "type": "string" },
            "description": "Path that the backend was mounted at",
        }));
    }
    if !parameters.is_empty() {
        item.insert("parameters".into(), parameters.into());
    }
    match path.access {
        Access::Sudo => drop(item.insert("x-vault-sudo".into(), true.into())),
        Access::Public => drop(item.insert("x-vault-unauthenticated".into(), true.into())),
        Access::Token => {}
    }
    if path.exists.is_some() {
        item.insert("x-vault-createSupported".into(), true.into());
    }
    let id = |verb: &str| operation_id(table, &full, verb);
    let tag = if table.class == ringfence_logical::Class::Auth { "auth" } else { tag_of(table) };
    let operation = |verb: &str, success: &str| {
        json!({
            "summary": path.synopsis,
            "operationId": id(verb),
            "tags": [tag],
            "responses": { success: { "description": "OK" } },
        })
    };
    if path.read.is_some() || path.list.is_some() {
        let mut get = operation(if lists_only { "list" } else { "read" }, "200");
        let mut query: Vec<Value> =
            path.fields.iter().filter(|f| f.query).map(|f| query_parameter(f, false)).collect();
        if path.list.is_some() {
            query.push(query_parameter(&LIST, lists_only));
        }
        if !query.is_empty() {
            get["parameters"] = query.into();
        }
        item.insert("get".into(), get);
    }
    for (method, verb, there) in [("post", "write", path.write.is_some()), ("patch", "patch", path.patch.is_some())] {
        if there {
            let mut op = operation(verb, "200");
            let body = body_of(path.fields, &captures);
            if let Some(schema) = body {
                op["requestBody"] = json!({
                    "required": true, "content": { "application/json": { "schema": schema } },
                });
            }
            item.insert(method.into(), op);
        }
    }
    if path.delete.is_some() {
        item.insert("delete".into(), operation("delete", "204"));
    }
    match paths.get_mut(&full) {
        // two patterns of one shape: the first is the one that routes
        Some(Value::Object(standing)) => {
            for (k, v) in item {
                standing.entry(k).or_insert(v);
            }
        }
        _ => drop(paths.insert(full, Value::Object(item))),
    }
}

const LIST: Field = Field::str("list", "Must be set to `true`");

fn tag_of(table: &Table) -> &'static str {
    if table.kind == "system" { "system" } else { "secrets" }
}

/// A pattern as an OpenAPI route, and the names it captures.
fn route(pattern: &str) -> (String, Vec<&str>) {
    let body = pattern.strip_suffix("/?").unwrap_or(pattern);
    let mut captures = Vec::new();
    let segments: Vec<String> = body
        .split('/')
        .map(|s| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            None => s.to_owned(),
            Some(inner) => {
                let name = inner.trim_end_matches("..?").trim_end_matches("..");
                let name = name.split_once(':').map_or(name, |(n, _)| n);
                captures.push(name);
                format!("{{{name}}}")
            }
        })
        .collect();
    (segments.join("/"), captures)
}

/// Unique within a document: it is made of the whole route.
fn operation_id(table: &Table, full: &str, verb: &str) -> String {
    let words: Vec<String> = full
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let folder = if full.ends_with('/') { "-all" } else { "" };
    format!("{}-{verb}-{}{folder}", table.kind, words.join("-"))
}

fn path_parameter(name: &str, fields: &[Field]) -> Value {
    let field = fields.iter().find(|f| f.name == name);
    json!({
        "name": name, "in": "path", "required": true,
        "description": field.map_or("", |f| f.help),
        "schema": field.map_or_else(|| json!({ "type": "string" }), |f| schema(f.kind)),
    })
}

fn query_parameter(field: &Field, required: bool) -> Value {
    let mut v = json!({
        "name": field.name, "in": "query", "description": field.help, "schema": schema(field.kind),
    });
    if required {
        v["required"] = true.into();
        v["schema"]["enum"] = json!(["true"]);
    }
    v
}

fn body_of(fields: &[Field], captures: &[&str]) -> Option<Value> {
    let mut properties = Map::new();
    for f in fields.iter().filter(|f| !captures.contains(&f.name) && !f.query) {
        let mut v = schema(f.kind);
        v["description"] = f.help.into();
        match f.preset {
            Preset::Zero => {}
            Preset::Str(s) => v["default"] = s.into(),
            Preset::Int(n) => v["default"] = n.into(),
            Preset::Bool(b) => v["default"] = b.into(),
        }
        if !f.allowed.is_empty() {
            v["enum"] = json!(f.allowed);
        }
        if f.deprecated {
            v["deprecated"] = true.into();
        }
        if f.secret {
            v["x-vault-displayAttrs"] = json!({ "sensitive": true });
        }
        properties.insert(f.name.into(), v);
    }
    (!properties.is_empty()).then(|| json!({ "type": "object", "properties": properties }))
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Str | Kind::LowerStr => json!({ "type": "string" }),
        Kind::Int => json!({ "type": "integer" }),
        Kind::Float => json!({ "type": "number", "format": "float" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Seconds | Kind::SignedSeconds => json!({ "type": "string", "format": "duration" }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::CommaList | Kind::StrList => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::CommaIntList => json!({ "type": "array", "items": { "type": "integer" } }),
        Kind::KvPairs | Kind::Object => json!({ "type": "object" }),
        Kind::Any => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(route("roles/?"), ("roles".into(), vec![]));
        assert_eq!(route("a/{n:any}/id/{p..?}"), ("a/{n}/id/{p}".into(), vec!["n", "p"]));
        assert_eq!(route(""), (String::new(), vec![]));
    }

    #[test]
    fn every_operation_of_the_system_backend_has_its_own_id() {
        let paths = of_table(&crate::sys::TABLE);
        let mut ids: Vec<&str> = paths
            .values()
            .flat_map(|item| item.as_object().expect("item").values())
            .filter_map(|op| op.get("operationId").and_then(Value::as_str))
            .collect();
        let count = ids.len();
        assert!(count > 100, "{count}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        for (route, item) in &paths {
            let declared = item["parameters"].as_array().map_or(0, Vec::len);
            assert_eq!(route.matches('{').count(), declared, "{route}");
        }
    }
}
