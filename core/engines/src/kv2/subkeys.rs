//! The keys of a secret without its values.

use super::data::{wanted_version, write_state};
use super::record::KeyRecord;
use super::store;
use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::Value;

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = args.str("path");
    let depth = usize::try_from(args.int("depth")).unwrap_or(0);
    let Some(bytes) = store::record(cx, path)? else { return nothing() };
    let key = KeyRecord::parse(&bytes)?;
    let version = wanted_version(args, key.head.current);
    let Some(state) = key.version(version) else { return nothing() };
    let live = state.is_live(cx.now);
    let mut text = String::from("{\"metadata\":");
    write_state(&mut text, version, &state, key.custom_json());
    text.push_str(",\"subkeys\":");
    if live {
        let stored = store::text(cx, path, &key, version)?;
        let mut data =
            serde_json::from_str(&stored).map_err(|e| Error::internal(format!("a version's data: {e}")))?;
        if let Value::Object(object) = &mut data {
            for value in object.values_mut() {
                strip(value, depth, 1);
            }
        }
        text.push_str(&data.to_string());
    } else {
        text.push_str("null");
    }
    text.push('}');
    let response = Response::text(text);
    if live { response.done() } else { response.code(Code::NotFound).done() }
}

/// Leaves the keys of objects down to `depth` (0 = all the way) and nulls for everything else. Recursion is bounded by
/// the depth of JSON that the edge lets in.
fn strip(value: &mut Value, depth: usize, level: usize) {
    match value {
        Value::Object(object) if !object.is_empty() && (depth == 0 || level < depth) => {
            for inner in object.values_mut() {
                strip(inner, depth, level + 1);
            }
        }
        _ => *value = Value::Null,
    }
}
