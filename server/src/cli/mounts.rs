//! `secrets` and `auth`: engines and auth methods are mounted, listed, moved and tuned the same way.

use super::client::Request;
use super::output::{go_value, table, wrap};
use super::session::{Fail, Outcome, Session, doing, remote, sanitized, usage, with_slash};
use super::verb::{Flag, Kind, Verb, flag, verb};
use ringfence_base::duration;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const DESCRIPTION: Flag = flag("description", Kind::Text, "What it is for.");
const DEFAULT_TTL: Flag = flag("default-lease-ttl", Kind::Duration, "Default life of leases and tokens.");
const MAX_TTL: Flag = flag("max-lease-ttl", Kind::Duration, "Longest life of leases and tokens.");
const REQUEST_KEYS: Flag = flag("audit-non-hmac-request-keys", Kind::List, "A request field to audit in clear.");
const RESPONSE_KEYS: Flag = flag("audit-non-hmac-response-keys", Kind::List, "A response field to audit in clear.");
const VISIBILITY: Flag = flag("listing-visibility", Kind::Text, "unauth or hidden.");
const PASSTHROUGH: Flag = flag("passthrough-request-headers", Kind::List, "A request header to pass to the engine.");
const ALLOWED: Flag = flag("allowed-response-headers", Kind::List, "A response header that the engine may set.");
const OPTIONS: Flag = flag("options", Kind::Map, "An option of the engine as key=value. Repeatable.");
const VERSION: Flag = flag("version", Kind::Int, "Version of the engine.");
const PLUGIN_VERSION: Flag = flag("plugin-version", Kind::Text, "Version of the plugin.");
const PLUGIN_NAME: Flag = flag("plugin-name", Kind::Text, "Name of the plugin.");
const TOKEN_TYPE: Flag = flag("token-type", Kind::Text, "Type of the tokens it makes.");
const PATH: Flag = flag("path", Kind::Text, "Where to mount it; default its type.");
const LOCAL: Flag = flag("local", Kind::Bool, "Not replicated.");
const SEAL_WRAP: Flag = flag("seal-wrap", Kind::Bool, "Wrap its critical values with the seal as well.");
const ENTROPY: Flag = flag("external-entropy-access", Kind::Bool, "Let it use the seal's entropy.");
const NO_CACHE: Flag = flag("force-no-cache", Kind::Bool, "Read from storage always.");
const TRIM: Flag = flag("trim-request-trailing-slashes", Kind::Bool, "Ignore a slash at the end of requests.");
const IDENTITY_KEY: Flag = flag("identity-token-key", Kind::Text, "Key that signs its identity tokens.");
const MANAGED_KEYS: Flag = flag("allowed-managed-keys", Kind::List, "A managed key that it may use.");
const DELEGATED: Flag = flag("delegated-auth-accessors", Kind::List, "Accessor of a method it may log in with.");
const LOCKOUT_THRESHOLD: Flag = flag("user-lockout-threshold", Kind::Int, "Failed logins before a user is locked.");
const LOCKOUT_DURATION: Flag = flag("user-lockout-duration", Kind::Duration, "How long a user stays locked.");
const LOCKOUT_RESET: Flag =
    flag("user-lockout-counter-reset-duration", Kind::Duration, "When the count of failed logins restarts.");
const LOCKOUT_DISABLE: Flag = flag("user-lockout-disable", Kind::Bool, "Never lock users.");

const ENABLE_FLAGS: &[Flag] = &[
    DESCRIPTION,
    PATH,
    DEFAULT_TTL,
    MAX_TTL,
    REQUEST_KEYS,
    RESPONSE_KEYS,
    VISIBILITY,
    PASSTHROUGH,
    ALLOWED,
    NO_CACHE,
    PLUGIN_NAME,
    PLUGIN_VERSION,
    OPTIONS,
    LOCAL,
    SEAL_WRAP,
    ENTROPY,
    VERSION,
    TRIM,
    IDENTITY_KEY,
    MANAGED_KEYS,
    DELEGATED,
];
const AUTH_ENABLE_FLAGS: &[Flag] = &[
    DESCRIPTION,
    PATH,
    DEFAULT_TTL,
    MAX_TTL,
    REQUEST_KEYS,
    RESPONSE_KEYS,
    VISIBILITY,
    PASSTHROUGH,
    ALLOWED,
    PLUGIN_NAME,
    PLUGIN_VERSION,
    OPTIONS,
    LOCAL,
    SEAL_WRAP,
    ENTROPY,
    VERSION,
    TOKEN_TYPE,
    TRIM,
    IDENTITY_KEY,
];
const TUNE_FLAGS: &[Flag] = &[
    DESCRIPTION,
    DEFAULT_TTL,
    MAX_TTL,
    REQUEST_KEYS,
    RESPONSE_KEYS,
    VISIBILITY,
    PASSTHROUGH,
    ALLOWED,
    OPTIONS,
    VERSION,
    PLUGIN_VERSION,
    TRIM,
    IDENTITY_KEY,
    MANAGED_KEYS,
    DELEGATED,
];
const AUTH_TUNE_FLAGS: &[Flag] = &[
    DESCRIPTION,
    DEFAULT_TTL,
    MAX_TTL,
    REQUEST_KEYS,
    RESPONSE_KEYS,
    VISIBILITY,
    PASSTHROUGH,
    ALLOWED,
    OPTIONS,
    VERSION,
    PLUGIN_VERSION,
    TOKEN_TYPE,
    TRIM,
    IDENTITY_KEY,
    LOCKOUT_THRESHOLD,
    LOCKOUT_DURATION,
    LOCKOUT_RESET,
    LOCKOUT_DISABLE,
];

/// The verbs below `secrets`.
pub const SECRETS_VERBS: &[Verb] = &[
    verb("enable", "<type>", "Enable a secrets engine", ENABLE_FLAGS, |session| enable(session, &SECRETS)),
    verb("disable", "<path>", "Disable a secrets engine", &[], |session| disable(session, &SECRETS)),
    verb("list", "", "List secrets engines", &[], |session| list(session, &SECRETS)),
    verb("move", "<from> <to>", "Move a secrets engine", &[], |session| move_mount(session, &SECRETS)),
    verb("tune", "<path>", "Change a secrets engine's settings", TUNE_FLAGS, |session| tune(session, &SECRETS)),
];

/// The verbs below `auth`.
pub const AUTH_VERBS: &[Verb] = &[
    verb("enable", "<type>", "Enable an auth method", AUTH_ENABLE_FLAGS, |session| enable(session, &AUTH)),
    verb("disable", "<path>", "Disable an auth method", &[], |session| disable(session, &AUTH)),
    verb("list", "", "List auth methods", &[], |session| list(session, &AUTH)),
    verb("move", "<from> <to>", "Move an auth method", &[], |session| move_mount(session, &AUTH)),
    verb("tune", "<path>", "Change an auth method's settings", AUTH_TUNE_FLAGS, |session| tune(session, &AUTH)),
    verb("help", "<type or path>", "Tell how to log in with a method", &[], auth_help),
];

/// What differs between the two.
struct Side {
    table: &'static str,
    tune: &'static str,
    noun: &'static str,
    is_auth: bool,
}

const SECRETS: Side = Side { table: "sys/mounts", tune: "sys/mounts", noun: "secrets engine", is_auth: false };
const AUTH: Side = Side { table: "sys/auth", tune: "sys/mounts/auth", noun: "auth method", is_auth: true };

/// A lifetime as the API takes it: unset is empty, negative is "back to the system's".
fn ttl(session: &Session<'_, '_>, name: &str) -> String {
    match session.flags.duration_ns(name) {
        None | Some(0) => String::new(),
        Some(ns) if ns < 0 => "system".to_owned(),
        Some(ns) => duration::go_string(ns),
    }
}

fn options(session: &Session<'_, '_>) -> Value {
    let mut options: BTreeMap<String, String> = session.flags.map("options");
    if let Some(version) = session.flags.int("version").filter(|version| *version > 0) {
        options.insert("version".to_owned(), version.to_string());
    }
    if options.is_empty() { Value::Null } else { json!(options) }
}

/// Settings that are sent only when they were given.
fn given_settings(session: &Session<'_, '_>, config: &mut Map<String, Value>) {
    for name in [
        "audit-non-hmac-request-keys",
        "audit-non-hmac-response-keys",
        "passthrough-request-headers",
        "allowed-response-headers",
        "allowed-managed-keys",
        "delegated-auth-accessors",
    ] {
        if session.flags.given(name) {
            config.insert(name.replace('-', "_"), json!(session.flags.split_list(name)));
        }
    }
    for name in ["listing-visibility", "token-type", "plugin-version", "identity-token-key"] {
        if let Some(text) = session.flags.text(name) {
            config.insert(name.replace('-', "_"), json!(text));
        }
    }
    if session.flags.given("trim-request-trailing-slashes") {
        let trim = session.flags.is_set("trim-request-trailing-slashes");
        config.insert("trim_request_trailing_slashes".to_owned(), json!(trim));
    }
}

fn base_config(session: &Session<'_, '_>) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("options".to_owned(), Value::Null);
    config.insert("default_lease_ttl".to_owned(), json!(ttl(session, "default-lease-ttl")));
    config.insert("max_lease_ttl".to_owned(), json!(ttl(session, "max-lease-ttl")));
    config.insert("force_no_cache".to_owned(), json!(session.flags.is_set("force-no-cache")));
    config
}

fn enable(session: &mut Session<'_, '_>, side: &Side) -> Outcome {
    session.expect_args(1, 1)?;
    let mut kind = session.arg(0).to_owned();
    if kind == "plugin" {
        kind = session
            .flags
            .text("plugin-name")
            .filter(|name| !name.is_empty())
            .ok_or_else(|| usage("The -plugin-name flag is required with type \"plugin\""))?
            .to_owned();
    }
    let path = with_slash(session.flags.text("path").filter(|path| !path.trim().is_empty()).unwrap_or(&kind));
    let mut config = base_config(session);
    given_settings(session, &mut config);
    let body = json!({
        "type": kind,
        "description": session.flags.text_or("description", ""),
        "config": config,
        "local": session.flags.is_set("local"),
        "seal_wrap": session.flags.is_set("seal-wrap"),
        "external_entropy_access": session.flags.is_set("external-entropy-access"),
        "options": options(session),
    });
    let what = if side.is_auth { format!("Error enabling {kind} auth") } else { "Error enabling".to_owned() };
    let request = Request::post(format!("{}/{}", side.table, path.trim_matches('/')), body);
    session.call(&request).map_err(doing(what))?;
    let mut thing = format!("{kind} {}", side.noun);
    if let Some(version) = session.flags.text("plugin-version").filter(|version| !version.is_empty()) {
        thing = format!("{thing} version {version}");
    }
    let article = if side.is_auth { "" } else { "the " };
    session.say(&format!("Success! Enabled {article}{thing} at: {path}"))
}

fn disable(session: &mut Session<'_, '_>, side: &Side) -> Outcome {
    session.expect_args(1, 1)?;
    let path = with_slash(&sanitized(session.arg(0)));
    session
        .call(&Request::delete(format!("{}/{}", side.table, path.trim_end_matches('/'))))
        .map_err(doing(format!("Error disabling {} at {path}", side.noun)))?;
    session.say(&format!("Success! Disabled the {} (if it existed) at: {path}", side.noun))
}

/// The mounts of an answer: in `data` where the server has it, else at the top as older servers answer.
fn mounts_of(answer: &Value) -> Map<String, Value> {
    let from = answer.get("data").filter(|data| data.is_object()).unwrap_or(answer);
    let entries = from.as_object().into_iter().flatten();
    entries
        .filter(|(path, mount)| path.ends_with('/') && mount.is_object())
        .map(|(p, m)| (p.clone(), m.clone()))
        .collect()
}

fn list(session: &mut Session<'_, '_>, side: &Side) -> Outcome {
    session.expect_args(0, 0)?;
    let what = if side.is_auth { "Error listing enabled authentications" } else { "Error listing secrets engines" };
    let mounts = mounts_of(&session.call_json(&Request::get(side.table)).map_err(doing(what))?);
    if !session.is_table() {
        return session.print_data(&mounts);
    }
    let rows = if session.detailed { detailed_rows(&mounts, side) } else { simple_rows(&mounts, side) };
    session.say(&table(rows))
}

fn text_of(mount: &Value, name: &str) -> String {
    mount.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default()
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn simple_rows(mounts: &Map<String, Value>, side: &Side) -> Vec<Vec<String>> {
    let mut rows = vec![texts(&["Path", "Type", "Accessor", "Description"])];
    if side.is_auth {
        rows[0].push("Version".to_owned());
    }
    for (path, mount) in mounts {
        let mut row = vec![path.clone()];
        row.extend(["type", "accessor", "description"].map(|name| text_of(mount, name)));
        if side.is_auth {
            row.push(text_of(mount, "plugin_version"));
        }
        rows.push(row);
    }
    rows
}

fn detailed_rows(mounts: &Map<String, Value>, side: &Side) -> Vec<Vec<String>> {
    let fifth = if side.is_auth { "Token Type" } else { "Force No Cache" };
    let mut rows = vec![texts(&[
        "Path",
        "Plugin",
        "Accessor",
        "Default TTL",
        "Max TTL",
        fifth,
        "Replication",
        "Seal Wrap",
        "External Entropy Access",
        "Options",
        "Description",
        "UUID",
        "Version",
        "Running Version",
        "Running SHA256",
        "Deprecation Status",
    ])];
    for (path, mount) in mounts {
        let kind = text_of(mount, "type");
        let life = |name: &str| match mount["config"][name].as_i64() {
            _ if matches!(kind.as_str(), "system" | "cubbyhole") => String::new(),
            None | Some(0) => "system".to_owned(),
            Some(seconds) => seconds.to_string(),
        };
        let fifth = if side.is_auth { "token_type" } else { "force_no_cache" };
        let local = mount["local"].as_bool().unwrap_or(false);
        let options = mount.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut row = vec![path.clone(), kind.clone(), text_of(mount, "accessor")];
        row.extend([life("default_lease_ttl"), life("max_lease_ttl"), text_of(&mount["config"], fifth)]);
        row.push(if local { "local" } else { "replicated" }.to_owned());
        row.extend([text_of(mount, "seal_wrap"), text_of(mount, "external_entropy_access")]);
        row.push(go_value(&Value::Object(options)));
        row.extend(
            [
                "description",
                "uuid",
                "plugin_version",
                "running_plugin_version",
                "running_sha256",
                "deprecation_status",
            ]
            .map(|name| text_of(mount, name)),
        );
        rows.push(row);
    }
    rows
}

fn tune(session: &mut Session<'_, '_>, side: &Side) -> Outcome {
    session.expect_args(1, 1)?;
    let path = with_slash(&sanitized(session.arg(0)));
    let mut config = base_config(session);
    config.insert("options".to_owned(), options(session));
    given_settings(session, &mut config);
    if let Some(text) = session.flags.text("description") {
        config.insert("description".to_owned(), json!(text));
    }
    let lockout = lockout_settings(session);
    if !lockout.is_empty() {
        config.insert("user_lockout_config".to_owned(), Value::Object(lockout));
    }
    let request = Request::post(format!("{}/{path}tune", side.tune), Value::Object(config));
    let reply = session.call_secret(&request).map_err(doing(format!("Error tuning {} {path}", side.noun)))?;
    if let Some(secret) = reply.filter(|_| session.is_table()) {
        session.warn_of(&secret);
    }
    session.say(&format!("Success! Tuned the {} at: {path}", side.noun))
}

fn lockout_settings(session: &Session<'_, '_>) -> Map<String, Value> {
    let mut lockout = Map::new();
    if let Some(count) = session.flags.text("user-lockout-threshold") {
        lockout.insert("lockout_threshold".to_owned(), json!(count));
    }
    for (name, key) in [
        ("user-lockout-duration", "lockout_duration"),
        ("user-lockout-counter-reset-duration", "lockout_counter_reset_duration"),
    ] {
        if session.flags.given(name) {
            lockout.insert(key.to_owned(), json!(ttl(session, name)));
        }
    }
    if session.flags.given("user-lockout-disable") {
        lockout.insert("lockout_disable".to_owned(), json!(session.flags.is_set("user-lockout-disable")));
    }
    lockout
}

/// How often a move is asked about, and how many times at most: half an hour in all.
const MOVE_POLL: std::time::Duration = std::time::Duration::from_millis(500);
const MOVE_POLLS: u32 = 3600;

fn move_mount(session: &mut Session<'_, '_>, side: &Side) -> Outcome {
    session.expect_args(2, 2)?;
    let (from, to) = (with_slash(session.arg(0)), with_slash(session.arg(1)));
    let prefix = if side.is_auth && !sanitized(&from).starts_with("auth/") { "auth/" } else { "" };
    let body = json!({ "from": format!("{prefix}{from}"), "to": format!("{prefix}{to}") });
    let noun = side.noun;
    let answer = session
        .call_secret(&Request::post("sys/remount", body))
        .map_err(doing(format!("Error moving {noun} {from} to {to}")))?;
    let id = answer.as_ref().and_then(|secret| secret.field("migration_id")).map(go_value).unwrap_or_default();
    if id.is_empty() {
        // older servers move before they answer
        return session.say(&format!("Success! Moved {noun} {from} to: {to}"));
    }
    let tail = format!("{noun} {from} to {to}, with migration ID {id}");
    session.io.out(&format!("Started moving {tail}"));
    for _ in 0..MOVE_POLLS {
        let status = session
            .call_secret(&Request::get(format!("sys/remount/status/{id}")))
            .map_err(doing(format!("Error checking migration status of {noun} {from} to {to}")))?;
        let info = status.as_ref().and_then(|secret| secret.field("migration_info"));
        match info.and_then(|info| info["status"].as_str()) {
            Some("success") => return session.say(&format!("Success! Finished moving {tail}")),
            Some("failure") => return Err(remote(format!("Failure! Error encountered moving {tail}"))),
            _ => std::thread::sleep(MOVE_POLL),
        }
    }
    Err(remote(format!("Gave up waiting for the end of moving {tail}")))
}

fn auth_help(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let asked = session.arg(0).to_owned();
    let program = session.program;
    if let Some(text) = super::login::help(&asked, program) {
        return session.say(&text);
    }
    let mounts =
        mounts_of(&session.call_json(&Request::get("sys/auth")).map_err(doing("Error listing auth methods"))?);
    let path = with_slash(&sanitized(&asked));
    let Some(mount) = mounts.get(&path) else {
        return Err(Fail::Error { code: 1, text: format!("No auth method available on the server at {path:?}") });
    };
    let kind = text_of(mount, "type");
    match super::login::help(&kind, program) {
        Some(text) => session.say(&text),
        None => Err(remote(wrap(&format!("No method-specific CLI handler available for auth method {kind:?}")))),
    }
}
