//! `kv metadata`: what version 2 keeps about a secret besides its versions' data.

use super::client::Request;
use super::kv::{MOUNT, Place, print_path};
use super::output::object_heading;
use super::session::{Fail, Outcome, Session, doing, remote, usage};
use super::verb::{Flag, Kind, Verb, flag, verb};
use ringfence_base::duration;
use serde_json::{Map, Value, json};

const MAX_VERSIONS: Flag = flag("max-versions", Kind::Int, "How many versions to keep.");
const CAS_REQUIRED: Flag = flag("cas-required", Kind::Bool, "Refuse writes without -cas.");
const DELETE_AFTER: Flag = flag("delete-version-after", Kind::Duration, "Delete each version after so long.");
const CUSTOM: Flag = flag("custom-metadata", Kind::Map, "A note as key=value. Repeatable.");

/// The verbs below `kv metadata`.
pub const VERBS: &[Verb] = &[
    verb("get", "<key>", "Read metadata", &[MOUNT], get),
    verb("put", "<key>", "Write metadata", &[MOUNT, MAX_VERSIONS, CAS_REQUIRED, DELETE_AFTER, CUSTOM], put),
    verb(
        "patch",
        "<key>",
        "Change some metadata",
        &[
            MOUNT,
            MAX_VERSIONS,
            CAS_REQUIRED,
            DELETE_AFTER,
            CUSTOM,
            flag("remove-custom-metadata", Kind::List, "A note to remove. Repeatable."),
        ],
        patch,
    ),
    verb("delete", "<key>", "Remove a secret with all its versions", &[MOUNT], delete),
];

fn metadata_path(session: &mut Session<'_, '_>) -> Result<String, Fail> {
    session.expect_args(1, 1)?;
    let place = Place::find(session)?;
    if !place.is_v2 {
        return Err(usage("Metadata not supported on KV Version 1"));
    }
    Ok(place.below("metadata"))
}

fn get(session: &mut Session<'_, '_>) -> Outcome {
    let path = metadata_path(session)?;
    let secret = session.read_secret(&Request::get(&path)).map_err(doing(format!("Error reading {path}")))?;
    let Some(mut secret) = secret else { return Err(remote(format!("No value found at {path}"))) };
    if session.flags.given("field") || secret.wrap_info.is_some() || !session.is_table() {
        return session.print_secret_or_field(&secret);
    }
    let Some(Value::Object(versions)) = secret.data.as_mut().and_then(|data| data.remove("versions")) else {
        return Err(remote(format!("No value found at {path}")));
    };
    print_path(session, &path, "Metadata Path");
    session.io.out(&object_heading("Metadata", secret.data.as_ref().unwrap_or(&Map::new())));
    session.print_secret(&secret)?;
    let mut numbers: Vec<(u64, &Value)> =
        versions.iter().filter_map(|(number, version)| Some((number.parse().ok()?, version))).collect();
    numbers.sort_by_key(|(number, _)| *number);
    for (number, version) in numbers {
        let Some(version) = version.as_object() else { continue };
        session.io.out(&format!("\n{}", object_heading(&format!("Version {number}"), version)));
        session.print_object(version)?;
    }
    Ok(0)
}

/// The fields that were given, and only those.
fn given_fields(session: &Session<'_, '_>) -> Map<String, Value> {
    let mut data = Map::new();
    if let Some(count) = session.flags.int("max-versions").filter(|count| *count >= 0) {
        data.insert("max_versions".to_owned(), json!(count));
    }
    if let Some(ns) = session.flags.duration_ns("delete-version-after").filter(|ns| *ns >= 0) {
        data.insert("delete_version_after".to_owned(), json!(duration::go_string(ns)));
    }
    if session.flags.given("cas-required") {
        data.insert("cas_required".to_owned(), json!(session.flags.is_set("cas-required")));
    }
    data
}

fn put(session: &mut Session<'_, '_>) -> Outcome {
    let path = metadata_path(session)?;
    let mut data = given_fields(session);
    let notes = session.flags.map("custom-metadata");
    if !notes.is_empty() {
        data.insert("custom_metadata".to_owned(), json!(notes));
    }
    let outcome = session.call_secret(&Request::put(&path, Value::Object(data)));
    session.finish_write(&path, outcome)
}

fn patch(session: &mut Session<'_, '_>) -> Outcome {
    let path = metadata_path(session)?;
    let mut data = given_fields(session);
    let mut notes: Map<String, Value> =
        session.flags.map("custom-metadata").into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    notes.extend(session.flags.list("remove-custom-metadata").iter().map(|key| (key.clone(), Value::Null)));
    data.insert("custom_metadata".to_owned(), Value::Object(notes));
    let outcome = session.call_secret(&Request::patch(&path, Value::Object(data)));
    session.finish_write(&path, outcome)
}

fn delete(session: &mut Session<'_, '_>) -> Outcome {
    let path = metadata_path(session)?;
    session.call(&Request::delete(&path)).map_err(doing(format!("Error deleting {path}")))?;
    session.say_in_table(&format!("Success! Data deleted (if it existed) at: {path}"))
}
