//! `token`: make, look up, renew and revoke tokens, and ask what they may do.

use super::client::{CallError, Request};
use super::session::{Outcome, Session, doing, usage};
use super::verb::{Kind, Verb, flag, verb};
use ringfence_base::duration;
use serde_json::{Map, Value, json};

/// The verbs below `token`.
pub const VERBS: &[Verb] = &[
    verb(
        "create",
        "",
        "Make a token",
        &[
            flag("id", Kind::Text, "The token itself; made by the server when absent."),
            flag("display-name", Kind::Text, "Name in audit logs."),
            flag("ttl", Kind::Duration, "How long it lives."),
            flag("explicit-max-ttl", Kind::Duration, "How long it lives at most, renewals included."),
            flag("period", Kind::Duration, "Renewable for ever, each time for so long."),
            flag("renewable", Kind::Bool, "Can be renewed; default true."),
            flag("orphan", Kind::Bool, "Has no parent."),
            flag("no-default-policy", Kind::Bool, "Without the default policy."),
            flag("use-limit", Kind::Int, "How many requests it is good for; 0: no limit."),
            flag("type", Kind::Text, "service or batch."),
            flag("metadata", Kind::Map, "A note as key=value. Repeatable."),
            flag("policy", Kind::List, "A policy. Repeatable."),
            flag("role", Kind::Text, "Token role to make it by."),
            flag("entity-alias", Kind::Text, "Alias of the entity it belongs to."),
        ],
        create,
    ),
    verb(
        "lookup",
        "[token]",
        "Tell about a token",
        &[flag("accessor", Kind::Bool, "The argument is an accessor.")],
        lookup,
    ),
    verb(
        "renew",
        "[token]",
        "Renew a token",
        &[
            flag("accessor", Kind::Bool, "The argument is an accessor."),
            flag("increment", Kind::Duration, "How long it shall live from now."),
        ],
        renew,
    ),
    verb(
        "revoke",
        "[token]",
        "Revoke a token and its children",
        &[
            flag("accessor", Kind::Bool, "The argument is an accessor."),
            flag("self", Kind::Bool, "Revoke the token in use."),
            flag("mode", Kind::Text, "orphan: leave the children; path: all tokens made below a path."),
        ],
        revoke,
    ),
    verb(
        "capabilities",
        "[token] <path>",
        "Tell what a token may do",
        &[flag("accessor", Kind::Bool, "The argument is an accessor.")],
        capabilities,
    ),
];

/// A duration as Go prints it, `0s` when absent: how upstream's client fills these fields.
fn go_duration(session: &Session<'_, '_>, name: &str) -> String {
    duration::go_string(session.flags.duration_ns(name).unwrap_or(0))
}

fn create(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let flags = &session.flags;
    let kind = flags.text_or("type", "service");
    let mut body = Map::new();
    let mut add = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    if let Some(id) = flags.text("id").filter(|id| !id.is_empty()) {
        add("id", json!(id));
    }
    if flags.given("policy") {
        add("policies", json!(flags.list("policy")));
    }
    if flags.given("metadata") {
        add("meta", json!(flags.map("metadata")));
    }
    for (name, key) in [("ttl", "ttl"), ("explicit-max-ttl", "explicit_max_ttl"), ("period", "period")] {
        add(key, json!(go_duration(session, name)));
    }
    if flags.is_set("orphan") {
        add("no_parent", json!(true));
    }
    if flags.is_set("no-default-policy") {
        add("no_default_policy", json!(true));
    }
    add("display_name", json!(flags.text_or("display-name", "")));
    add("num_uses", json!(flags.int("use-limit").unwrap_or(0)));
    // a batch token cannot be renewed
    let renewable = kind != "batch" && (!flags.given("renewable") || flags.is_set("renewable"));
    add("renewable", json!(renewable));
    add("type", json!(kind));
    add("entity_alias", json!(flags.text_or("entity-alias", "")));
    let path = match flags.text("role").filter(|role| !role.is_empty()) {
        Some(role) => format!("auth/token/create/{role}"),
        None => "auth/token/create".to_owned(),
    };
    let answer =
        session.call_secret(&Request::post(path, Value::Object(body))).map_err(doing("Error creating token"))?;
    match answer {
        Some(secret) => session.print_secret_or_field(&secret),
        None => Ok(0),
    }
}

fn lookup(session: &mut Session<'_, '_>) -> Outcome {
    let by_accessor = session.flags.is_set("accessor");
    let count = session.flags.args.len();
    match (by_accessor, count) {
        (true, 0) => return Err(usage("Not enough arguments with -accessor (expected 1, got 0)")),
        (true, 2..) => return Err(usage(format!("Too many arguments with -accessor (expected 1, got {count})"))),
        _ => session.expect_args(0, 1)?,
    }
    let token = session.arg(0).to_owned();
    let request = match (token.is_empty(), by_accessor) {
        (true, _) => Request::get("auth/token/lookup-self"),
        (_, true) => Request::post("auth/token/lookup-accessor", json!({ "accessor": token })),
        (_, false) => Request::post("auth/token/lookup", json!({ "token": token })),
    };
    match session.call_secret(&request).map_err(doing("Error looking up token"))? {
        Some(secret) => session.print_secret_or_field(&secret),
        None => Ok(0),
    }
}

fn renew(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let token = session.arg(0).to_owned();
    let increment = session.flags.duration_ns("increment").unwrap_or(0) / duration::SECOND_NS as i64;
    let request = match (token.is_empty(), session.flags.is_set("accessor")) {
        (true, _) => Request::put("auth/token/renew-self", json!({ "increment": increment })),
        (_, true) => Request::post("auth/token/renew-accessor", json!({ "accessor": token, "increment": increment })),
        (_, false) => Request::put("auth/token/renew", json!({ "token": token, "increment": increment })),
    };
    match session.call_secret(&request).map_err(doing("Error renewing token"))? {
        Some(secret) => session.print_secret_or_field(&secret),
        None => Ok(0),
    }
}

fn revoke(session: &mut Session<'_, '_>) -> Outcome {
    let (own, by_accessor) = (session.flags.is_set("self"), session.flags.is_set("accessor"));
    let mode = session.flags.text_or("mode", "").to_owned();
    let count = session.flags.args.len();
    let refusal = match (own, by_accessor, mode.as_str()) {
        (_, _, mode) if !matches!(mode, "" | "orphan" | "path") => Some(format!("Invalid mode: {mode}")),
        (true, ..) if count > 0 => Some(format!("Too many arguments with -self (expected 0, got {count})")),
        (false, ..) if count > 1 => Some(format!("Too many arguments (expected 1 or -self, got {count})")),
        (false, ..) if count < 1 => Some(format!("Not enough arguments (expected 1 or -self, got {count})")),
        (true, true, _) => Some("Cannot use -self with -accessor!".to_owned()),
        (true, _, mode) if !mode.is_empty() => Some("Cannot use -self with -mode!".to_owned()),
        (_, true, mode) if !mode.is_empty() => Some(format!("Cannot use -accessor with -mode={mode}!")),
        _ => None,
    };
    if let Some(text) = refusal {
        return Err(usage(text));
    }
    let token = session.arg(0).to_owned();
    let request = match (own, by_accessor, mode.as_str()) {
        (true, ..) => Request { body: super::session::no_data(), ..Request::new("PUT", "auth/token/revoke-self") },
        (_, true, _) => Request::post("auth/token/revoke-accessor", json!({ "accessor": token })),
        (_, _, "orphan") => Request::put("auth/token/revoke-orphan", json!({ "token": token })),
        (_, _, "path") => Request::put(format!("sys/leases/revoke-prefix/{token}"), json!({})),
        _ => Request::put("auth/token/revoke", json!({ "token": token })),
    };
    session.call(&request).map_err(doing("Error revoking token"))?;
    session.say("Success! Revoked token (if it existed)")
}

fn capabilities(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 2)?;
    let (token, path) = match session.flags.args.len() {
        1 => (String::new(), session.arg(0).to_owned()),
        _ => (session.arg(0).to_owned(), session.arg(1).to_owned()),
    };
    let request = match (token.is_empty(), session.flags.is_set("accessor")) {
        (true, true) => return Err(usage("Not enough arguments with -accessor (expected 2, got 1)")),
        (true, false) => Request::post("sys/capabilities-self", json!({ "paths": [path] })),
        (false, true) => Request::post("sys/capabilities-accessor", json!({ "accessor": token, "paths": [path] })),
        (false, false) => Request::post("sys/capabilities", json!({ "token": token, "paths": [path] })),
    };
    let answer: Result<_, CallError> = session.call_secret(&request);
    let answer = answer.map_err(doing("Error listing capabilities"))?;
    let found = answer.as_ref().and_then(|secret| secret.field(&path).or_else(|| secret.field("capabilities")));
    let Some(found) = found.and_then(Value::as_array) else { return Err(usage("No capabilities found")) };
    let mut names: Vec<String> = found.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    if !session.is_table() {
        return session.print_data(&names);
    }
    names.sort();
    session.say(&names.join(", "))
}
