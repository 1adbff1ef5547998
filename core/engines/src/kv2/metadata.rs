//! Metadata of keys: read, write, patch, delete, lists.

use super::config::{self, Config};
use super::record::Key;
use super::store::{self, KEYS};
use super::upgrade;
use super::{custom, invalid};
use crate::kv1::OBJECTS;
use crate::page;
use ringfence_base::Wall;
use ringfence_base::duration::go_seconds;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = args.str("path");
    if path.is_empty() {
        return invalid::root();
    }
    match store::load(cx, path)? {
        Some(key) => Response::data(shown(&key)).done(),
        None => nothing(),
    }
}

/// The whole metadata of a key.
fn shown(key: &Key) -> Map {
    let mut versions = Map::new();
    for (n, v) in (key.first()..).zip(&key.versions) {
        let state = json!({
            "created_time": v.created.rfc3339(), "deletion_time": v.deletion_text(), "destroyed": v.destroyed,
        });
        versions.insert(n.to_string(), state);
    }
    let custom = if key.custom.is_empty() { Value::Null } else { json!(key.custom) };
    let all = json!({
        "cas_required": key.cas_required,
        "created_time": date(key.created),
        "current_metadata_version": key.metadata_version,
        "current_version": key.current,
        "custom_metadata": custom,
        "delete_version_after": go_seconds(key.delete_version_after),
        "max_versions": key.max_versions,
        "metadata_cas_required": key.metadata_cas_required,
        "oldest_version": key.oldest,
        "updated_time": date(key.updated),
        "versions": versions,
    });
    match all {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}

fn date(t: Wall) -> String {
    if t == Wall::default() { String::new() } else { t.rfc3339() }
}

/// The fields that a write or patch changes.
const CHANGED: &[&str] =
    &["max_versions", "cas_required", "metadata_cas_required", "delete_version_after", "custom_metadata"];

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = args.str("path");
    if path.is_empty() {
        return invalid::root();
    }
    if !CHANGED.iter().any(|f| args.supplied(f)) {
        return nothing();
    }
    let config = Config::load(cx)?;
    let stored = store::load(cx, path)?;
    check_and_set(args, &config, stored.as_ref())?;
    let mut key = stored.unwrap_or_else(|| Key { created: cx.now, ..Key::default() });
    let warnings = apply(args, &config, &mut key)?;
    if args.supplied("custom_metadata") {
        key.custom = custom::texts(args.object("custom_metadata").unwrap_or(&Map::new()))?;
        custom::check(&key.custom)?;
    }
    finish(cx, path, key)?;
    if warnings.is_empty() { nothing() } else { warned(warnings) }
}

pub fn patch(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = args.str("path");
    if path.is_empty() {
        return invalid::root();
    }
    let config = Config::load(cx)?;
    let Some(mut key) = store::load(cx, path)? else { return nothing() };
    if !CHANGED.iter().any(|f| args.raw().contains_key(*f)) {
        return crate::no_content();
    }
    check_and_set(args, &config, Some(&key))?;
    let warnings = apply(args, &config, &mut key)?;
    // a duration that is null counts as not supplied; in a merge patch it resets the field
    if args.raw().get("delete_version_after").is_some_and(Value::is_null) {
        key.delete_version_after = 0;
    }
    match args.json("custom_metadata") {
        Some(Value::Object(changes)) => {
            for (name, text) in custom::texts(changes)? {
                if changes[&name].is_null() {
                    key.custom.remove(&name);
                } else {
                    key.custom.insert(name, text);
                }
            }
            custom::check(&key.custom)?;
        }
        Some(_) => key.custom.clear(),
        None => {}
    }
    finish(cx, path, key)?;
    if warnings.is_empty() { crate::no_content() } else { warned(warnings) }
}

/// Sets the plain fields that were supplied; answers warnings.
fn apply(args: &Args, config: &Config, key: &mut Key) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    if let Some(n) = args.opt_int("max_versions") {
        key.max_versions = config::max_versions(n)?;
        warnings.extend(config::too_many_versions(key.max_versions));
    }
    if let Some(b) = args.opt_bool("cas_required") {
        key.cas_required = b;
        if !b && config.cas_required {
            let text =
                "\"cas_required\" set to false, but is mandated by backend config. This value will be ignored.";
            warnings.push(text.into());
        }
    }
    if let Some(b) = args.opt_bool("metadata_cas_required") {
        key.metadata_cas_required = b;
        if !b && config.metadata_cas_required {
            let text = "\"metadata_cas_required\" set to false, but is mandated by backend config. This value will be ignored.";
            warnings.push(text.into());
        }
    }
    if let Some(s) = args.opt_seconds("delete_version_after") {
        key.delete_version_after = s;
    }
    Ok(warnings)
}

/// The rule of `metadata_cas`.
fn check_and_set(args: &Args, config: &Config, key: Option<&Key>) -> Result<(), Error> {
    let required = config.metadata_cas_required || key.is_some_and(|k| k.metadata_cas_required);
    match (args.opt_int("metadata_cas"), key) {
        (None, _) if required => Err(Error::invalid("metadata check-and-set parameter required for this call")),
        (Some(n), None) if n != 0 => Err(Error::invalid("metadata_cas must be 0 when creating new metadata")),
        (Some(n), Some(k)) if u64::try_from(n) != Ok(k.metadata_version) => {
            Err(Error::invalid("metadata check-and-set parameter does not match the current version"))
        }
        _ => Ok(()),
    }
}

fn finish(cx: &mut Cx<'_, '_>, path: &str, mut key: Key) -> Result<(), Error> {
    key.updated = cx.now;
    key.metadata_version += 1;
    store::save(cx, path, &key)
}

fn warned(warnings: Vec<String>) -> Outcome {
    Response { warnings, ..Response::default() }.done()
}

/// Removes a key with all its versions.
pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = args.str("path");
    if path.is_empty() {
        return invalid::root();
    }
    let Some(key) = store::load(cx, path)? else { return nothing() };
    for (n, state) in (key.first()..).zip(&key.versions) {
        if !state.destroyed && (n != key.current || key.data.is_none()) {
            store::erase_version(cx, path, n);
        }
    }
    cx.delete(KEYS, path.as_bytes());
    nothing()
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(names(cx, args, Depth::Level)?).done()
}

pub fn scan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(names(cx, args, Depth::All)?).done()
}

pub fn list_detailed(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    detailed(cx, args, Depth::Level)
}

pub fn scan_detailed(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    detailed(cx, args, Depth::All)
}

#[derive(Clone, Copy)]
enum Depth {
    Level,
    All,
}

fn names(cx: &mut Cx<'_, '_>, args: &Args, depth: Depth) -> Result<Vec<String>, Error> {
    let folder = page::folder(args.str("path"));
    let (after, limit) = (args.str("after"), page::limit(args));
    let mut names = below(cx, KEYS, &folder, after, limit, depth)?;
    if upgrade::any_old(cx, &folder)? {
        names.extend(below(cx, OBJECTS, &folder, after, limit, depth)?);
        names.sort_unstable();
        names.dedup();
        names.truncate(if limit == 0 { usize::MAX } else { limit });
    }
    Ok(names)
}

fn below(
    cx: &mut Cx<'_, '_>,
    area: u8,
    folder: &str,
    after: &str,
    limit: usize,
    depth: Depth,
) -> Result<Vec<String>, Error> {
    match depth {
        Depth::Level => cx.list(area, folder, after, limit),
        Depth::All => cx.scan_keys(area, folder, after, limit),
    }
}

fn detailed(cx: &mut Cx<'_, '_>, args: &Args, depth: Depth) -> Outcome {
    let folder = page::folder(args.str("path"));
    let names = names(cx, args, depth)?;
    let mut info = Map::new();
    for name in &names {
        let of_key = match name.ends_with('/') {
            true => Map::new(),
            false => store::load(cx, &format!("{folder}{name}"))?.as_ref().map(shown).unwrap_or_default(),
        };
        info.insert(name.clone(), Value::Object(of_key));
    }
    let mut response = Map::new();
    if !names.is_empty() {
        response.insert("keys".into(), names.into());
        response.insert("key_info".into(), Value::Object(info));
    }
    Response::data(response).done()
}
