//! The generic verbs: read, write, list, delete, patch, scan, unwrap and path-help work on any path.

use super::client::{Body, CallError, Request};
use super::kvargs;
use super::output::wrap;
use super::secret::Secret;
use super::session::{Format, Outcome, Session, doing, no_data, remote, sanitized, usage};
use super::verb::{Flag, Kind, Verb, aliased, flag, verb};
use serde_json::{Map, Value, json};

const FORCE: Flag = aliased("force", "f", Kind::Bool, "Send the request without data.");
const PAGES: &[Flag] = &[
    flag("after", Kind::Text, "List only entries behind this one."),
    flag("limit", Kind::Int, "List at most so many entries."),
];

/// `read`
pub const READ: Verb = verb("read", "<path> [key=value...]", "Read data", &[], read);
/// `write`
pub const WRITE: Verb = verb("write", "<path> [key=value...]", "Write data", &[FORCE], write);
/// `list`
pub const LIST: Verb = verb("list", "<path>", "List keys", PAGES, list);
/// `scan`
pub const SCAN: Verb = verb("scan", "<path>", "List keys of all levels", PAGES, scan);
/// `delete`
pub const DELETE: Verb = verb("delete", "<path> [key=value...]", "Delete data", &[], delete);
/// `patch`
pub const PATCH: Verb = verb("patch", "<path> [key=value...]", "Change some fields of data", &[FORCE], patch);
/// `unwrap`
pub const UNWRAP: Verb = verb("unwrap", "[token]", "Unwrap a wrapped answer", &[], unwrap);
/// `path-help`
pub const PATH_HELP: Verb = verb("path-help", "<path>", "Print the help of a path", &[], path_help);

fn read(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, usize::MAX)?;
    let path = sanitized(session.arg(0));
    let args = session.flags.args[1..].to_vec();
    let interactive = session.interactive();
    let query = kvargs::parse_query(session.io, &args, interactive)
        .map_err(|error| usage(format!("Failed to parse K=V data: {error}")))?;
    let request = Request { query, ..Request::get(&path) };
    if session.format == Format::Raw {
        let reply = session.call(&request).map_err(doing(format!("Error reading: {path}")))?;
        let _ = session.io.stdout.write_all(&reply.body);
        return Ok(0);
    }
    match session.read_secret(&request).map_err(doing(format!("Error reading {path}")))? {
        Some(secret) => session.print_secret_or_field(&secret),
        None => Err(remote(format!("No value found at {path}"))),
    }
}

/// The data of a write: its arguments, or `null` when it is forced without any.
fn written_data(session: &mut Session<'_, '_>) -> Result<Value, super::session::Fail> {
    session.expect_args(1, usize::MAX)?;
    if session.flags.args.len() == 1 && !session.flags.is_set("force") {
        return Err(usage("Must supply data or use -force"));
    }
    let args = session.flags.args[1..].to_vec();
    if args.is_empty() {
        return Ok(Value::Null);
    }
    let interactive = session.interactive();
    kvargs::parse(session.io, &args, interactive)
        .map(Value::Object)
        .map_err(|error| usage(format!("Failed to parse K=V data: {error}")))
}

fn write(session: &mut Session<'_, '_>) -> Outcome {
    let data = written_data(session)?;
    let path = sanitized(session.arg(0));
    let outcome = session.call_secret(&Request::put(&path, data));
    finish(session, &path, outcome)
}

fn patch(session: &mut Session<'_, '_>) -> Outcome {
    let data = written_data(session)?;
    let path = sanitized(session.arg(0));
    let outcome = session.call_secret(&Request::patch(&path, data));
    finish(session, &path, outcome)
}

/// Ends a write; one that was a login and still owes a second factor is completed if a person can be asked.
fn finish(session: &mut Session<'_, '_>, path: &str, outcome: Result<Option<Secret>, CallError>) -> Outcome {
    if let Ok(Some(secret)) = &outcome
        && secret.auth.as_ref().is_some_and(|auth| auth.mfa_requirement.is_some())
    {
        match super::login::second_factor(session, secret)? {
            Some(complete) => return session.print_secret_or_field(&complete),
            None => session.io.err(&format!("{}\n", wrap(super::login::SECOND_FACTOR_OWED))),
        }
    }
    session.finish_write(path, outcome)
}

fn list(session: &mut Session<'_, '_>) -> Outcome {
    list_with(session, "list", "Error listing")
}

fn scan(session: &mut Session<'_, '_>) -> Outcome {
    list_with(session, "scan", "Error scanning")
}

fn list_with(session: &mut Session<'_, '_>, parameter: &str, what: &str) -> Outcome {
    session.expect_args(1, 1)?;
    let path = sanitized(session.arg(0));
    let mut request = Request::get(&path).with_query(parameter, "true");
    if let Some(after) = session.flags.text("after") {
        request = request.with_query("after", after);
    }
    if let Some(limit) = session.flags.int("limit").filter(|limit| *limit > 0) {
        request = request.with_query("limit", &limit.to_string());
    }
    let secret = session.read_secret(&request).map_err(doing(format!("{what} {path}")))?;
    print_listed(session, &path, secret)
}

/// Prints the answer of a list, or that there was nothing.
pub fn print_listed(session: &mut Session<'_, '_>, path: &str, secret: Option<Secret>) -> Outcome {
    if let Some(secret) = secret.as_ref().filter(|secret| secret.is_wrapped()) {
        return session.print_secret_or_field(secret);
    }
    let listed = secret.as_ref().is_some_and(|secret| secret.keys().is_some());
    if !session.is_table() && !listed {
        session.print_data(&json!({}))?;
        return Ok(2);
    }
    match secret {
        None => Err(remote(format!("No value found at {path}"))),
        Some(secret) if secret.data.is_none() => {
            session.print_secret(&secret)?;
            Err(remote(format!("No value found at {path}")))
        }
        Some(_) if !listed => Err(remote(format!("No entries found at {path}"))),
        Some(secret) => session.print_list(&secret),
    }
}

fn delete(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, usize::MAX)?;
    let path = sanitized(session.arg(0));
    let args = session.flags.args[1..].to_vec();
    let interactive = session.interactive();
    let query = kvargs::parse_query(session.io, &args, interactive)
        .map_err(|error| usage(format!("Failed to parse string list data: {error}")))?;
    match session.call_secret(&Request { query, ..Request::delete(&path) }) {
        Ok(Some(secret)) => session.print_secret_or_field(&secret),
        Ok(None) => session.say_in_table(&format!("Success! Data deleted (if it existed) at: {path}")),
        Err(error) => session.refused_with_data(&format!("Error deleting {path}"), error),
    }
}

fn unwrap(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let token = session.arg(0).to_owned();
    let request = unwrap_request(&token, &session.client()?.settings.token);
    match session.call_secret(&request).map_err(doing("Error unwrapping"))? {
        None => session.say_in_table("Successfully unwrapped. There was no data in the wrapped secret."),
        Some(secret) if secret.keys().is_some() && !session.flags.given("field") => session.print_list(&secret),
        Some(secret) => session.print_secret_or_field(&secret),
    }
}

/// The request that opens `token`. Someone who is not logged in uses the wrapping token itself.
pub fn unwrap_request(token: &str, own: &str) -> Request {
    let mut request = Request::new("PUT", "sys/wrapping/unwrap");
    request.wrap = false;
    if token.is_empty() || token == own {
        request.body = no_data();
    } else if own.is_empty() {
        request.token = Some(token.to_owned());
        request.body = no_data();
    } else {
        request.body = Body::Json(json!({ "token": token }));
    }
    request
}

fn path_help(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let path = sanitized(session.arg(0));
    let help = match session.call_json(&Request::get(&path).with_query("help", "1")) {
        Ok(help) => help,
        Err(error) if error.to_string().contains("Vault is sealed") => {
            return Err(remote(wrap(
                "The server is sealed: it has no help to give until it is unsealed, since it cannot know which engine \
                 stands at a path.",
            )));
        }
        Err(error) => return Err(doing("Error retrieving help")(error)),
    };
    match session.format {
        Format::Json => session.print_data(help.get("openapi").unwrap_or(&Value::Object(Map::new()))),
        _ => session.say(help["help"].as_str().unwrap_or_default().trim_end()),
    }
}
