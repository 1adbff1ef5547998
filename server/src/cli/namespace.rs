//! `namespace`: make, list, look up, change, delete, lock and unlock namespaces.

use super::client::{CallError, Request};
use super::session::{Outcome, Session, doing, no_data, remote, sanitized, usage};
use super::verb::{Flag, Kind, Verb, flag, verb};
use serde_json::{Map, Value, json};

const CUSTOM: Flag = flag("custom-metadata", Kind::Map, "A note as key=value. Repeatable.");

/// The verbs below `namespace`.
pub const VERBS: &[Verb] = &[
    verb("create", "<path>", "Make a namespace", &[CUSTOM], create),
    verb("list", "", "List child namespaces", &[], list),
    verb("delete", "<path>", "Delete a namespace", &[], delete),
    verb("lookup", "<path>", "Tell about a namespace", &[], lookup),
    verb(
        "patch",
        "<path>",
        "Change a namespace's notes",
        &[CUSTOM, flag("remove-custom-metadata", Kind::List, "A note to remove. Repeatable.")],
        patch,
    ),
    verb("lock", "[path]", "Lock a namespace's API", &[], lock),
    verb("unlock", "[path]", "Unlock a namespace's API", &[], unlock),
];

fn at(session: &Session<'_, '_>) -> String {
    format!("sys/namespaces/{}", sanitized(session.arg(0)))
}

fn print_namespace(session: &mut Session<'_, '_>, data: &Map<String, Value>) -> Outcome {
    match session.flags.text("field").map(str::to_owned) {
        Some(name) => session.print_field(data.get(&name).cloned(), &name, "map"),
        None => session.print_object(data),
    }
}

fn create(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let body = json!({ "custom_metadata": session.flags.map("custom-metadata") });
    let answer = session.call_secret(&Request::put(at(session), body)).map_err(doing("Error creating namespace"))?;
    let data = answer.and_then(|secret| secret.data).unwrap_or_default();
    if data.is_empty() {
        return session.say_in_table(&format!("Success! Namespace created at: {}/", sanitized(session.arg(0))));
    }
    print_namespace(session, &data)
}

fn list(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let answer = session.read_secret(&Request::list("sys/namespaces")).map_err(doing("Error listing namespaces"))?;
    let Some(secret) = answer.filter(|secret| secret.keys().is_some()) else {
        if session.is_table() {
            return Err(remote("No namespaces found"));
        }
        session.print_data(&json!({}))?;
        return Ok(2);
    };
    match secret.field("key_info") {
        Some(info) if session.detailed && !session.is_table() => session.print_data(info),
        _ => session.print_list(&secret),
    }
}

fn delete(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let path = format!("{}/", sanitized(session.arg(0)));
    let answer = session.call_secret(&Request::delete(at(session))).map_err(doing("Error deleting namespace"))?;
    let Some(secret) = answer else { return session.say(&format!("Success! Namespace deleted at: {path}")) };
    match secret.field("status").and_then(Value::as_str).filter(|status| !status.is_empty()) {
        Some(_) => session.say(&format!("Success! Namespace deletion scheduled: {path}")),
        None => {
            session.io.err("Requested namespace does not exist");
            Ok(0)
        }
    }
}

fn lookup(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let answer = session.read_secret(&Request::get(at(session))).map_err(doing("Error looking up namespace"))?;
    match answer.and_then(|secret| secret.data) {
        Some(data) => print_namespace(session, &data),
        None => Err(remote("Namespace not found")),
    }
}

fn patch(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let mut notes: Map<String, Value> =
        session.flags.map("custom-metadata").into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    notes.extend(session.flags.list("remove-custom-metadata").iter().map(|key| (key.clone(), Value::Null)));
    if notes.is_empty() {
        return Err(usage("Must supply at least one of -custom-metadata or -remove-custom-metadata"));
    }
    match session.call_secret(&Request::patch(at(session), json!({ "custom_metadata": notes }))) {
        Ok(answer) => print_namespace(session, &answer.and_then(|secret| secret.data).unwrap_or_default()),
        Err(CallError::Refused(refused)) if refused.status == 404 => Err(remote("Namespace not found")),
        Err(error) => Err(doing("Error patching namespace")(error)),
    }
}

fn lock_path(session: &Session<'_, '_>, word: &str) -> String {
    let below = sanitized(session.arg(0));
    if below.is_empty() {
        format!("sys/namespaces/api-lock/{word}")
    } else {
        format!("sys/namespaces/api-lock/{word}/{below}")
    }
}

fn lock(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let request = Request { body: no_data(), ..Request::new("PUT", lock_path(session, "lock")) };
    let answer = session.call_secret(&request).map_err(doing("Error locking namespace"))?;
    let data = answer.and_then(|secret| secret.data).unwrap_or_default();
    if !session.is_table() {
        return session.print_data(&data);
    }
    session.io.out(&format!("Unlock Key: {}", data.get("unlock_key").and_then(Value::as_str).unwrap_or_default()));
    session.say(
        "\nNamespace is now locked. Keep the unlock key printed above in a safe place: it is needed to\n\
         unlock the namespace. If it is lost, only a token with the sudo capability can unlock it.",
    )
}

fn unlock(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let body = json!({ "unlock_key": session.flags.text_or("unlock-key", "") });
    let answer = session
        .call_secret(&Request::put(lock_path(session, "unlock"), body))
        .map_err(doing("Error unlocking namespace"))?;
    match answer.and_then(|secret| secret.warnings).and_then(|warnings| warnings.into_iter().next()) {
        Some(warning) => {
            session.io.err(&warning);
            Ok(0)
        }
        None => session.say("Namespace unlocked successfully!"),
    }
}
