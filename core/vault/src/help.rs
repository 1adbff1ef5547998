//! `?help=1`: what a path takes, from the engine's own table. The help of a mount's root lists its paths.

pub mod openapi;

use ringfence_logical::engine::Registered;
use ringfence_logical::path::{Access, Matched, Table};
use ringfence_logical::{Field, Kind, Path, Response};
use serde_json::{Value, json};

/// Paths of the system backend that stand here.
pub static PATHS: &[Path] = openapi::PATHS;

/// The answer to a help request: a declared path's, or the mount's.
///
/// A mount's root is never one of its paths, also where an engine takes whatever lies below it.
pub fn answer(engine: &Registered, inner: &str, matched: Option<&Matched<'_, '_>>) -> Response {
    let table = engine.engine.table();
    let (text, paths) = match matched.filter(|_| !inner.trim_matches('/').is_empty()) {
        Some(m) => (of_path(m.path), openapi::of_path(table, m.path)),
        None => (of_mount(table), openapi::of_table(table)),
    };
    let v = json!({ "help": text, "see_also": Value::Null, "openapi": openapi::document(paths, "") });
    let mut body = serde_json::to_vec(&v).expect("a JSON tree always serialises");
    body.push(b'\n');
    Response::raw("application/json", body)
}

fn of_path(path: &Path) -> String {
    let mut out = format!("Route: {}\n\n{}\n", expression(path.pattern), path.synopsis);
    if !path.fields.is_empty() {
        out.push_str("\n## PARAMETERS\n");
    }
    let mut fields: Vec<&Field> = path.fields.iter().collect();
    fields.sort_by_key(|f| f.name);
    for f in fields {
        out.push_str(&format!("\n    {} ({})\n", f.name, kind_name(f.kind)));
        let deprecated = if f.deprecated { "(DEPRECATED) " } else { "" };
        for line in f.help.lines() {
            out.push_str(&format!("        {deprecated}{line}\n"));
        }
    }
    out.push_str("\n## OPERATIONS\n\n");
    out.push_str(&format!("    {}{}\n", verbs(path).join(", "), access(path.access)));
    if !path.description.is_empty() {
        out.push_str(&format!("\n## DESCRIPTION\n\n{}\n", path.description));
    }
    out
}

fn of_mount(table: &Table) -> String {
    let mut out = format!("## DESCRIPTION\n\n{}\n\n## PATHS\n\n", table.help);
    out.push_str("Each path below is a pattern; ask for its help by appending ?help=1 to a request that fits.\n");
    let mut paths: Vec<&Path> = table.paths.iter().collect();
    paths.sort_by_key(|p| p.pattern);
    for p in paths {
        out.push_str(&format!("\n    {}\n        {}\n", expression(p.pattern), p.synopsis));
    }
    out
}

fn access(a: Access) -> &'static str {
    match a {
        Access::Token => "",
        Access::Public => "; no token needed",
        Access::Sudo => "; needs sudo",
    }
}

/// The verbs a path answers.
fn verbs(path: &Path) -> Vec<&'static str> {
    [
        ("read", path.read.is_some()),
        ("list", path.list.is_some()),
        ("scan", path.scan.is_some()),
        ("write", path.write.is_some()),
        ("patch", path.patch.is_some()),
        ("delete", path.delete.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

/// A pattern as the regular expression that clients are used to see.
fn expression(pattern: &str) -> String {
    let mut out = String::from("^");
    for (i, segment) in pattern.split('/').enumerate() {
        if segment == "?" {
            out.push_str("/?");
            continue;
        }
        let rest_may_be_empty = segment.ends_with("..?}");
        if i > 0 && !rest_may_be_empty {
            out.push('/');
        }
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            None => out.push_str(segment),
            Some(capture) => out.push_str(&match (capture.strip_suffix("..?"), capture.strip_suffix("..")) {
                (Some(name), _) => format!("/?(?P<{name}>.*)"),
                (None, Some(name)) => format!("(?P<{name}>.+)"),
                (None, None) => match capture.split_once(':') {
                    Some((name, "at")) => format!(r"(?P<{name}>\w(([\w-.@]+)?\w)?)"),
                    Some((name, _)) => format!("(?P<{name}>[^/]+)"),
                    None => format!(r"(?P<{capture}>\w(([\w-.]+)?\w)?)"),
                },
            }),
        }
    }
    out.push('$');
    out
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Str | Kind::LowerStr => "string",
        Kind::Int => "int",
        Kind::Float => "float",
        Kind::Bool => "bool",
        Kind::Seconds | Kind::SignedSeconds => "duration (sec)",
        Kind::Time => "time",
        Kind::CommaList | Kind::StrList => "slice",
        Kind::CommaIntList => "slice of ints",
        Kind::KvPairs => "keypair",
        Kind::Object | Kind::Any => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_read_as_expressions() {
        assert_eq!(expression("config/cors"), "^config/cors$");
        assert_eq!(expression("roles/?"), "^roles/?$");
        assert_eq!(expression("mounts/{path..}"), "^mounts/(?P<path>.+)$");
        assert_eq!(expression("metadata/{path..?}"), "^metadata/?(?P<path>.*)$");
        assert_eq!(expression("a/{n:any}/b"), "^a/(?P<n>[^/]+)/b$");
    }
}
