//! Reading, writing and patching data. The read is this engine's hot path: one record of a short secret, two of a long one, no JSON tree.

use super::config::Config;
use super::record::{Key, KeyRecord, VersionState};
use super::store;
use ringfence_base::{Code, Wall};
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::Value;

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(store::exists(cx, args.str("path")))
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = args.str("path");
    let Some(bytes) = store::record(cx, path)? else { return nothing() };
    let key = KeyRecord::parse(&bytes)?;
    let version = wanted_version(args, key.head.current);
    let Some(state) = key.version(version) else { return nothing() };
    let live = state.is_live(cx.now);
    let data = if live { store::text(cx, path, &key, version)? } else { "null".into() };
    let mut text = String::with_capacity(data.len() + key.custom_json().len() + 160);
    text.push_str("{\"data\":");
    text.push_str(&data);
    text.push_str(",\"metadata\":");
    write_state(&mut text, version, &state, key.custom_json());
    text.push('}');
    let response = Response::text(text);
    if live { response.done() } else { response.code(Code::NotFound).done() }
}

/// The version asked for; none, zero and negative numbers mean the current one.
pub fn wanted_version(args: &Args, current: u64) -> u64 {
    match u64::try_from(args.int("version")) {
        Ok(0) | Err(_) => current,
        Ok(n) => n,
    }
}

/// Writes the JSON of a version's state. Only numbers, dates and the already escaped custom metadata go in.
pub fn write_state(out: &mut String, version: u64, state: &VersionState, custom_json: &str) {
    out.push_str("{\"created_time\":\"");
    out.push_str(&state.created.rfc3339());
    out.push_str("\",\"custom_metadata\":");
    out.push_str(custom_json);
    out.push_str(",\"deletion_time\":\"");
    out.push_str(&state.deletion_text());
    out.push_str(if state.destroyed {
        "\",\"destroyed\":true,\"version\":"
    } else {
        "\",\"destroyed\":false,\"version\":"
    });
    out.push_str(&version.to_string());
    out.push('}');
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let data = args.json("data").ok_or_else(|| Error::invalid("no data provided"))?;
    let path = args.str("path");
    let config = Config::load(cx)?;
    let mut key = store::load(cx, path)?.unwrap_or_default();
    check_and_set(args, &config, &key)?;
    add_version(cx, path, &config, &mut key, data)
}

pub fn patch(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let change = args.json("data").ok_or_else(|| Error::invalid("no data provided"))?;
    let path = args.str("path");
    let config = Config::load(cx)?;
    let Some(mut key) = store::load(cx, path)? else { return nothing() };
    let Some(state) = key.version(key.current).copied() else { return nothing() };
    check_and_set(args, &config, &key)?;
    if !state.is_live(cx.now) {
        return Response::text(state_text(&key, &state)).code(Code::NotFound).done();
    }
    let stored = match key.data.clone() {
        Some(data) => data,
        None => store::load_version(cx, path, key.current)?,
    };
    let mut data = serde_json::from_str(&stored).map_err(|e| Error::internal(format!("a version's data: {e}")))?;
    // a change of nothing leaves the data as it is; `null` for the whole object is no change either
    if change.is_object() {
        merge(&mut data, change);
    }
    add_version(cx, path, &config, &mut key, &data)
}

/// Applies a merge patch. RFC 7396, section 2.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(object) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// The rule of `options.cas`.
fn check_and_set(args: &Args, config: &Config, key: &Key) -> Result<(), Error> {
    match args.object("options").and_then(|o| o.get("cas")) {
        Some(v) => {
            let cas = weak_int(v).ok_or_else(|| Error::invalid("error parsing check-and-set parameter"))?;
            if u64::try_from(cas) != Ok(key.current) {
                return Err(Error::invalid("check-and-set parameter did not match the current version"));
            }
        }
        None if config.cas_required || key.cas_required => {
            return Err(Error::invalid("check-and-set parameter required for this call"));
        }
        None => {}
    }
    Ok(())
}

/// An integer in one of the forms that Vault's weak decoding takes.
fn weak_int(v: &Value) -> Option<i64> {
    match v {
        Value::Null => Some(0),
        Value::Bool(b) => Some(i64::from(*b)),
        Value::Number(n) => n.as_i64(),
        Value::String(s) if s.is_empty() => Some(0),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

fn add_version(cx: &mut Cx<'_, '_>, path: &str, config: &Config, key: &mut Key, data: &Value) -> Outcome {
    let text = serde_json::to_string(data).expect("a JSON tree always serialises");
    let state = VersionState { created: cx.now, deletion: deletion_time(cx.now, config, key), destroyed: false };
    let (before, data_before) = (key.current, key.data.take());
    let pruned = key.add_version(state, config.versions_kept(key.max_versions));
    for n in pruned.clone() {
        if n != before || data_before.is_none() {
            store::erase_version(cx, path, n);
        }
    }
    if let Some(data) = data_before
        && !pruned.contains(&before)
    {
        store::save_version(cx, path, before, &data)?;
    }
    store::set_current(cx, path, key, text)?;
    store::save(cx, path, key)?;
    Response::text(state_text(key, &state)).done()
}

/// When a version that lives from now on will delete itself.
pub fn deletion_time(now: Wall, config: &Config, key: &Key) -> Option<Wall> {
    config.version_lifetime(key.delete_version_after).map(|s| now.plus_seconds(s))
}

/// The state of the current version as JSON text.
fn state_text(key: &Key, state: &VersionState) -> String {
    let custom = match key.custom.is_empty() {
        true => "null".to_owned(),
        false => serde_json::to_string(&key.custom).expect("texts always serialise"),
    };
    let mut out = String::with_capacity(160 + custom.len());
    write_state(&mut out, key.current, state, &custom);
    out
}
