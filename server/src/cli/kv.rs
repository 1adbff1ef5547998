//! `kv`: the key-value engine, version 1 and 2, under one set of verbs.
//!
//! Every verb first asks the server which version stands at the path (the preflight), then speaks to `data/`, `metadata/`,
//! `delete/`, `undelete/` or `destroy/` below the mount for version 2, or to the path itself for version 1.

use super::client::{CallError, Request};
use super::kv_metadata;
use super::kvargs;
use super::logical::print_listed;
use super::output::{heading, object_heading};
use super::secret::Secret;
use super::session::{Fail, Outcome, Session, doing, remote, sanitized, usage, with_slash};
use super::verb::{Flag, Kind, Verb, flag, group, verb};
use serde_json::{Map, Value, json};

/// `-mount`, which every verb has.
pub const MOUNT: Flag = flag("mount", Kind::Text, "Mount of the engine; the argument is then the key below it.");
const VERSIONS: Flag = flag("versions", Kind::List, "Versions, comma-separated or repeated.");
const CAS: Flag = flag("cas", Kind::Int, "Write only if this is the current version; 0: only if there is none.");

/// The verbs below `kv`.
pub const VERBS: &[Verb] = &[
    verb("get", "<key>", "Read a secret", &[MOUNT, flag("version", Kind::Int, "The version to read.")], get),
    verb("put", "<key> <key=value...>", "Write a secret, replacing it", &[MOUNT, CAS], put),
    verb(
        "patch",
        "<key> <key=value...>",
        "Change some fields of a secret",
        &[
            MOUNT,
            CAS,
            flag("method", Kind::Text, "patch, or rw: read and write again."),
            flag("remove-data", Kind::List, "A field to remove. Repeatable."),
        ],
        patch,
    ),
    verb("delete", "<key>", "Delete versions; they can be brought back", &[MOUNT, VERSIONS], delete),
    verb("undelete", "<key>", "Bring deleted versions back", &[MOUNT, VERSIONS], undelete),
    verb("destroy", "<key>", "Remove versions for good", &[MOUNT, VERSIONS], destroy),
    verb("list", "<path>", "List keys", &[MOUNT], list),
    verb(
        "rollback",
        "<key>",
        "Write an old version again",
        &[MOUNT, flag("version", Kind::Int, "The version to go back to.")],
        rollback,
    ),
    verb("enable-versioning", "<mount>", "Turn version 1 into version 2", &[], enable_versioning),
    group("metadata", "Work with what is kept about a secret", kv_metadata::VERBS),
];

/// A key and the engine it lies in.
pub struct Place {
    /// Mount, with a slash at its end; empty when the server did not say.
    pub mount: String,
    /// The whole path of the key, the mount included.
    pub path: String,
    /// The engine keeps versions.
    pub is_v2: bool,
}

impl Place {
    /// Asks the server where the first argument lies.
    pub fn find(session: &mut Session<'_, '_>) -> Result<Place, Fail> {
        let key = sanitized(session.arg(0));
        let asked = match session.flags.text("mount").map(sanitized).filter(|mount| !mount.is_empty()) {
            Some(mount) => mount,
            None => key.clone(),
        };
        let dry = session.flags.is_set("output-curl-string") || session.flags.is_set("output-policy");
        let request = Request::get(format!("sys/internal/ui/mounts/{asked}")).aside();
        let answer = match session.call_secret(&request) {
            Ok(answer) => answer,
            // a server from before this call existed: version 1
            Err(CallError::Refused(refused)) if refused.status == 404 => {
                let path = join(session.flags.text("mount").unwrap_or_default(), &key);
                return Ok(Place { mount: String::new(), path, is_v2: false });
            }
            Err(CallError::Refused(refused)) if refused.status == 403 && dry => {
                return Err(remote(format!(
                    "This output flag needs a preflight request that tells the version of the engine, and it was \
                     refused. Run the command again with a token that may read {asked} (on a version 2 engine: \
                     'mount/data/key', not 'mount/key')."
                )));
            }
            Err(error) => return Err(remote(error.to_string())),
        };
        let answer = answer.ok_or_else(|| remote("nil response from pre-flight request"))?;
        let mount = answer.field("path").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_v2 = answer.field("options").is_some_and(|options| options["version"] == "2");
        let path = if session.flags.given("mount") { join(&mount, &key) } else { key };
        Ok(Place { mount, path, is_v2 })
    }

    /// The path with `infix` behind the mount, for version 2.
    ///
    /// The server may name the mount with the namespace in front of it that the path does not have; leading segments of the
    /// mount are dropped until it is a prefix of the path.
    pub fn below(&self, infix: &str) -> String {
        let mut mount = self.mount.trim_end_matches('/');
        loop {
            if self.path == mount {
                return join(mount, infix);
            }
            if let Some(key) = self.path.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/')) {
                return join(&join(mount, infix), key);
            }
            match mount.split_once('/') {
                Some((_, rest)) if !rest.is_empty() => mount = rest,
                _ => return join(&join(mount, infix), &self.path),
            }
        }
    }

    /// The path of the data.
    pub fn data(&self) -> String {
        if self.is_v2 { self.below("data") } else { self.path.clone() }
    }
}

fn join(left: &str, right: &str) -> String {
    let (left, right) = (left.trim_matches('/'), right.trim_matches('/'));
    match (left.is_empty(), right.is_empty()) {
        (true, _) => right.to_owned(),
        (_, true) => left.to_owned(),
        _ => format!("{left}/{right}"),
    }
}

fn get(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let place = Place::find(session)?;
    let path = place.data();
    let mut request = Request::get(&path);
    if let Some(version) = session.flags.int("version").filter(|version| *version > 0 && place.is_v2) {
        request = request.with_query("version", &version.to_string());
    }
    let secret = session.read_secret(&request).map_err(doing(format!("Error reading {path}")))?;
    let Some(secret) = secret else { return Err(remote(format!("No value found at {path}"))) };
    if session.flags.text("field").is_some_and(|name| !name.is_empty()) && secret.wrap_info.is_none() && place.is_v2 {
        return get_field(session, &secret, &path);
    }
    if session.flags.given("field") || secret.wrap_info.is_some() || !session.is_table() {
        return session.print_secret_or_field(&secret);
    }
    session.warn_of(&secret);
    if !place.is_v2 {
        let data = secret.data.clone().unwrap_or_default();
        session.io.out(&object_heading("Data", &data));
        return session.print_object(&data);
    }
    print_path(session, &path, "Secret Path");
    if let Some(metadata) = secret.field("metadata").and_then(Value::as_object) {
        session.io.out(&object_heading("Metadata", metadata));
        session.print_object(metadata)?;
        session.io.out("");
    }
    if let Some(data) = secret.field("data").and_then(Value::as_object) {
        session.io.out(&object_heading("Data", data));
        session.print_object(data)?;
    }
    Ok(0)
}

fn get_field(session: &mut Session<'_, '_>, secret: &Secret, path: &str) -> Outcome {
    let name = session.flags.text("field").unwrap_or_default().to_owned();
    let Some(data) = secret.field("data").and_then(Value::as_object) else {
        return Err(remote(format!("No data found at {path}")));
    };
    // `-field=data` is the whole object, unless the secret has a field of that name
    match data.get(&name) {
        None if name == "data" => session.print_field(Some(Value::Object(data.clone())), &name, "secret"),
        found => session.print_field(found.cloned(), &name, "secret"),
    }
}

/// The heading that names the path.
pub fn print_path(session: &mut Session<'_, '_>, path: &str, title: &str) {
    session.io.out(&heading(title, path.len()));
    session.io.out(path);
    session.io.out("");
}

fn arguments(session: &mut Session<'_, '_>) -> Result<Map<String, Value>, Fail> {
    let args = session.flags.args[1..].to_vec();
    let interactive = session.interactive();
    kvargs::parse(session.io, &args, interactive).map_err(|error| usage(format!("Failed to parse K=V data: {error}")))
}

fn put(session: &mut Session<'_, '_>) -> Outcome {
    match session.flags.args.len() {
        0 => return Err(usage("Not enough arguments (expected >1, got 0)")),
        1 => return Err(usage("Must supply data")),
        _ => {}
    }
    let data = arguments(session)?;
    let place = Place::find(session)?;
    let path = place.data();
    let body = if place.is_v2 { versioned(session, Value::Object(data), -1) } else { Value::Object(data) };
    let outcome = session.call_secret(&Request::put(&path, body));
    print_written(session, &path, outcome)
}

fn versioned(session: &Session<'_, '_>, data: Value, above: i64) -> Value {
    let options = match session.flags.int("cas").filter(|cas| *cas > above) {
        Some(cas) => json!({ "cas": cas }),
        None => json!({}),
    };
    json!({ "data": data, "options": options })
}

/// Prints what a write of a version answers: its metadata.
fn print_written(session: &mut Session<'_, '_>, path: &str, outcome: Result<Option<Secret>, CallError>) -> Outcome {
    match outcome {
        Ok(Some(secret)) if session.is_table() && !session.flags.given("field") && !secret.is_wrapped() => {
            session.warn_of(&secret);
            print_path(session, path, "Secret Path");
            let metadata = secret.data.unwrap_or_default();
            session.io.out(&object_heading("Metadata", &metadata));
            session.print_object(&metadata)
        }
        other => session.finish_write(path, other),
    }
}

fn patch(session: &mut Session<'_, '_>) -> Outcome {
    let removed = session.flags.list("remove-data").to_vec();
    match session.flags.args.len() {
        0 => return Err(usage("Not enough arguments (expected >1, got 0)")),
        1 if removed.is_empty() => return Err(usage("Must supply data")),
        _ => {}
    }
    let mut changes = arguments(session)?;
    changes.extend(removed.into_iter().map(|key| (key, Value::Null)));
    let method = session.flags.text_or("method", "").to_owned();
    if !matches!(method.as_str(), "" | "patch" | "rw") {
        return Err(remote(format!("Unsupported method provided to -method flag: {method}")));
    }
    let place = Place::find(session)?;
    if !place.is_v2 {
        return Err(remote("K/V engine mount must be version 2 for patch support"));
    }
    let path = place.data();
    if method == "rw" {
        return read_then_write(session, &path, changes);
    }
    let body = versioned(session, Value::Object(changes.clone()), 0);
    let outcome = session.call_secret(&Request::patch(&path, body));
    match outcome.as_ref().err().and_then(CallError::status).filter(|_| method.is_empty()) {
        Some(405) => read_then_write(session, &path, changes),
        Some(403) => {
            // older policies grant no patch; the same change can still be read and written
            let code = read_then_write(session, &path, changes)?;
            session.io.err(&format!(
                "Data was written to {path} but we recommend that you add the \"patch\" capability to your ACL policy \
                 in order to use HTTP PATCH in the future."
            ));
            Ok(code)
        }
        _ => print_written(session, &path, outcome),
    }
}

/// A version as it is now: its number and its data.
fn current(
    session: &mut Session<'_, '_>,
    path: &str,
    version: Option<i64>,
    what: &str,
) -> Result<(Value, Map<String, Value>), Fail> {
    let mut request = Request::get(path).aside();
    if let Some(version) = version {
        request = request.with_query("version", &version.to_string());
    }
    let secret = session.read_secret(&request).map_err(doing(format!("Error doing pre-read at {path}")))?;
    let Some(secret) = secret.filter(|secret| secret.data.is_some()) else {
        return Err(remote(format!("No value found at {path}")));
    };
    let Some(metadata) = secret.field("metadata").and_then(Value::as_object) else {
        return Err(remote(format!("No metadata found at {path}; {what} only works on existing data")));
    };
    if version.is_some() {
        if metadata.get("deletion_time").and_then(Value::as_str).is_some_and(|time| !time.is_empty()) {
            return Err(remote("Cannot roll back to a version that has been deleted"));
        }
        if metadata.get("destroyed") == Some(&Value::Bool(true)) {
            return Err(remote("Cannot roll back to a version that has been destroyed"));
        }
    }
    let number = metadata.get("version").cloned().unwrap_or(Value::Null);
    match secret.field("data").and_then(Value::as_object) {
        Some(data) => Ok((number, data.clone())),
        None => Err(remote(format!("No data found at {path}; {what} only works on existing data"))),
    }
}

fn read_then_write(session: &mut Session<'_, '_>, path: &str, changes: Map<String, Value>) -> Outcome {
    let (version, mut data) = current(session, path, None, "patch")?;
    for (key, value) in changes {
        if value.is_null() {
            data.remove(&key);
        } else {
            data.insert(key, value);
        }
    }
    let outcome = session.call_secret(&Request::put(path, json!({ "data": data, "options": { "cas": version } })));
    print_written(session, path, outcome)
}

fn rollback(session: &mut Session<'_, '_>) -> Outcome {
    if session.flags.args.len() != 1 {
        return Err(usage(format!("Invalid number of arguments (expected 1, got {})", session.flags.args.len())));
    }
    let version = match session.flags.int("version") {
        None => return Err(usage("Version flag must be specified")),
        Some(version) if version <= 0 => return Err(usage(format!("Invalid value {version} for the version flag"))),
        Some(version) => version,
    };
    let place = Place::find(session)?;
    if !place.is_v2 {
        return Err(remote("K/V engine mount must be version 2 for rollback support"));
    }
    let path = place.data();
    let newest = current_number(session, &path)?;
    let (_, data) = current(session, &path, Some(version), "rollback")?;
    let outcome = session.call_secret(&Request::put(&path, json!({ "data": data, "options": { "cas": newest } })));
    session.finish_write(&path, outcome)
}

/// The number of the newest version, deleted or not: the one a check-and-set must name.
fn current_number(session: &mut Session<'_, '_>, path: &str) -> Result<Value, Fail> {
    let secret = session
        .read_secret(&Request::get(path).aside())
        .map_err(doing(format!("Error doing pre-read at {path}")))?
        .ok_or_else(|| remote(format!("No value found at {path}")))?;
    secret
        .field("metadata")
        .and_then(|metadata| metadata.get("version"))
        .cloned()
        .ok_or_else(|| remote(format!("No metadata found at {path}; rollback only works on existing data")))
}

fn delete(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let versions = session.flags.split_list("versions");
    let place = Place::find(session)?;
    let path = place.data();
    let request = if place.is_v2 && !versions.is_empty() {
        Request::put(place.below("delete"), json!({ "versions": versions }))
    } else {
        Request::delete(&path)
    };
    match session.call_secret(&request) {
        Ok(Some(secret)) => session.print_secret_or_field(&secret),
        Ok(None) => session.say_in_table(&format!("Success! Data deleted (if it existed) at: {path}")),
        Err(error) => session.refused_with_data(&format!("Error deleting {path}"), error),
    }
}

fn undelete(session: &mut Session<'_, '_>) -> Outcome {
    on_versions(session, "undelete", "Undelete")
}

fn destroy(session: &mut Session<'_, '_>) -> Outcome {
    on_versions(session, "destroy", "Destroy")
}

fn on_versions(session: &mut Session<'_, '_>, infix: &str, title: &str) -> Outcome {
    session.expect_args(1, 1)?;
    let versions = session.flags.split_list("versions");
    if versions.is_empty() {
        return Err(usage(format!(
            "No versions provided, use the \"-versions\" flag to specify the version to {infix}."
        )));
    }
    let place = Place::find(session)?;
    if !place.is_v2 {
        return Err(usage(format!("{title} not supported on KV Version 1")));
    }
    let path = place.below(infix);
    let outcome = session.call_secret(&Request::put(&path, json!({ "versions": versions })));
    session.finish_write(&path, outcome)
}

fn list(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(usize::from(!session.flags.given("mount")), 1)?;
    let place = Place::find(session)?;
    let path = if place.is_v2 { place.below("metadata") } else { place.path.clone() };
    let secret = session.read_secret(&Request::list(&path)).map_err(doing(format!("Error listing {path}")))?;
    print_listed(session, &path, secret)
}

fn enable_versioning(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let mount = with_slash(&sanitized(session.arg(0)));
    let body = json!({
        "options": { "version": "2" }, "default_lease_ttl": "", "max_lease_ttl": "", "force_no_cache": false
    });
    session
        .call(&Request::post(format!("sys/mounts/{mount}tune"), body))
        .map_err(doing(format!("Error tuning secrets engine {mount}")))?;
    session.say(&format!("Success! Tuned the secrets engine at: {mount}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_a_mount() {
        for (mount, path, expected) in [
            ("secret/", "secret/a/b", "secret/data/a/b"),
            ("secret/", "secret", "secret/data"),
            ("a/b/", "a/b/c", "a/b/data/c"),
            ("ns1/secret/", "secret/x", "secret/data/x"),
            ("secret/", "secret/data/x", "secret/data/data/x"),
            ("secret/", "secretive/x", "secret/data/secretive/x"),
        ] {
            let place = Place { mount: mount.into(), path: path.into(), is_v2: true };
            assert_eq!(place.below("data"), expected, "{mount} {path}");
        }
    }
}
