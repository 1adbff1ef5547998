//! `sys/mounts*` and `sys/auth*`: what is mounted where. Every change is one transaction that writes the mount's
//! record; the router follows by itself. The two families differ in a handful of words, so one set of functions serves
//! both and is told which.

use super::settings::{self, given};
use crate::host::host;
use crate::lease::tombstone;
use crate::mount::{MountEntry, Routed, Router, next_mount_id};
use crate::namespace::Namespace;
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::path::is_printable;
use ringfence_base::{Entropy, NsId, entropy};
use ringfence_logical::{Args, Class, Cx, Error, Field, Kind, Map, Outcome, Path, Response, TokenType, nothing};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Secrets engines that stand in every namespace, at these paths; nothing else may be mounted below.
const RESERVED: &[&str] = &["audit/", "auth/", "cubbyhole/", "identity/", "sys/"];
/// Types of which there is one mount in a namespace.
const SINGLE: &[&str] = &["cubbyhole", "identity", "ns_cubbyhole", "ns_identity", "ns_system", "ns_token", "system"];
/// Longest path of a mount, bytes.
const MAX_MOUNT_PATH_BYTES: usize = 1024;
/// Path of the token store below `auth/`.
const TOKEN_PATH: &str = "token/";

const PATH: Field = Field::str("path", "Where the mount is.");
const ENABLE: &[Field] = &[
    PATH,
    Field::str("type", "Type of the engine or auth method: kv, userpass, ..."),
    Field::str("description", "Free text."),
    Field::new("config", Kind::Object, "Settings, as the tune endpoint takes them."),
    Field::new("options", Kind::KvPairs, "Options of the engine; version of kv."),
    Field::bool("local", "Not replicated to other clusters."),
    Field::bool("seal_wrap", "Kept and shown; every record is sealed."),
    Field::bool("external_entropy_access", "Kept and shown."),
    Field::str("plugin_name", "Old name of type.").deprecated(),
    Field::str("plugin_version", "Kept and shown."),
    // a mount two segments deep is tuned through the same pattern
    Field::str("default_lease_ttl", "As in config, when the path ends in /tune."),
    Field::str("max_lease_ttl", "As in config, when the path ends in /tune."),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("mounts/?").help("Lists the secrets engines.", "").read(list_engines),
    Path::new("mounts/auth/{path..}")
        .fields(settings::TUNE)
        .sudo()
        .help("Settings of an auth method, under its full path and /tune.", "")
        .read(read_below_auth)
        .write(write_below_auth)
        .delete(delete_below_auth),
    Path::new("mounts/{path:any}/tune")
        .fields(settings::TUNE)
        .help("Settings of a secrets engine.", "What is not given stays as it is.")
        .read(read_engine_settings)
        .write(tune_engine),
    Path::new("mounts/{path..}")
        .fields(ENABLE)
        .help("A secrets engine.", "Mounting one is answered when every core routes to it.")
        .read(read_engine)
        .write(enable_engine)
        .delete(disable_engine),
    Path::new("auth/?").help("Lists the auth methods.", "").read(list_methods),
    Path::new("auth/{path:any}/tune")
        .fields(settings::TUNE)
        .sudo()
        .help("Settings of an auth method.", "What is not given stays as it is.")
        .read(read_method_settings)
        .write(tune_method),
    Path::new("auth/{path..}")
        .fields(ENABLE)
        .sudo()
        .help("An auth method.", "Disabling one revokes every token it gave.")
        .read(read_method)
        .write(enable_method)
        .delete(disable_method),
];

fn list_engines(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    list(cx, Class::Secret)
}

fn list_methods(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    list(cx, Class::Auth)
}

fn read_engine(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match deep_tune(args) {
        Some(path) => read_settings(cx, Class::Secret, &path),
        None => read(cx, args, Class::Secret),
    }
}

fn read_method(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match deep_tune(args) {
        Some(path) => read_settings(cx, Class::Auth, &path),
        None => read(cx, args, Class::Auth),
    }
}

fn enable_engine(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match deep_tune(args) {
        Some(path) => tune(cx, &Args::parse(settings::TUNE, &[], args.raw().clone())?, Class::Secret, &path),
        None => enable(cx, args, Class::Secret),
    }
}

fn enable_method(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match deep_tune(args) {
        Some(path) => tune(cx, &Args::parse(settings::TUNE, &[], args.raw().clone())?, Class::Auth, &path),
        None => enable(cx, args, Class::Auth),
    }
}

fn disable_engine(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    disable(cx, args, Class::Secret)
}

fn disable_method(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    disable(cx, args, Class::Auth)
}

fn read_engine_settings(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    read_settings(cx, Class::Secret, &dir(args.str("path")))
}

fn read_method_settings(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    read_settings(cx, Class::Auth, &dir(args.str("path")))
}

fn tune_engine(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    tune(cx, args, Class::Secret, &dir(args.str("path")))
}

fn tune_method(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    tune(cx, args, Class::Auth, &dir(args.str("path")))
}

fn read_below_auth(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match deep_tune(args) {
        Some(path) => read_settings(cx, Class::Auth, &path),
        None => Err(Error::invalid(format!("No secret engine mount at auth/{}", dir(args.str("path"))))),
    }
}

fn write_below_auth(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match deep_tune(args) {
        Some(path) => tune(cx, args, Class::Auth, &path),
        None => Err(Error::invalid(format!("cannot mount \"auth/{}\"", dir(args.str("path"))))),
    }
}

fn delete_below_auth(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Err(Error::invalid(format!("cannot unmount \"auth/{}\"", dir(args.str("path")))))
}

/// The mount that `a/b/tune` is about. The pattern above takes one segment only.
fn deep_tune(args: &Args) -> Option<String> {
    args.str("path").strip_suffix("/tune").map(dir)
}

/// One slash at the end.
pub(super) fn dir(path: &str) -> String {
    format!("{}/", path.trim_matches('/'))
}

/// The path within the namespace.
pub(super) fn full(class: Class, path: &str) -> String {
    match class {
        Class::Secret => path.to_owned(),
        Class::Auth => format!("auth/{path}"),
    }
}

/// A mount of this class; the pipeline's router is of this very view.
fn find<'r>(
    txn: &Txn<'_>,
    router: &'r Router,
    ns: NsId,
    class: Class,
    path: &str,
) -> Result<Option<&'r Arc<Routed>>, Error> {
    Ok(router.at(txn, ns, &full(class, path))?.filter(|m| m.entry.class == class))
}

fn list(cx: &mut Cx<'_, '_>, class: Class) -> Outcome {
    let h = host(cx);
    let rows = h.router.mounts(cx.txn, cx.mount.ns)?.filter(|m| m.entry.class == class);
    Response::data(rows.map(|m| (m.entry.path.clone(), Value::Object(describe(&m.entry)))).collect()).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args, class: Class) -> Outcome {
    let h = host(cx);
    let path = dir(args.str("path"));
    match find(cx.txn, &h.router, cx.mount.ns, class, &path)? {
        Some(m) => Response::data(describe(&m.entry)).done(),
        None => Err(Error::invalid(match class {
            Class::Secret => format!("No secret engine mount at {path}"),
            Class::Auth => format!("No auth engine at {path}"),
        })),
    }
}

/// A mount as lists show it.
pub(super) fn describe(e: &MountEntry) -> Map {
    let mut config = settings::shown(e);
    config.insert("default_lease_ttl".into(), e.config.default_lease_ttl.into());
    config.insert("max_lease_ttl".into(), e.config.max_lease_ttl.into());
    config.insert("force_no_cache".into(), e.config.force_no_cache.into());
    if let Some(l) = &e.config.user_lockout {
        let shown = json!({
            "user_lockout_threshold": l.threshold,
            "user_lockout_duration": l.duration,
            "user_lockout_counter_reset_duration": l.counter_reset,
            "user_lockout_disable": l.disable,
        });
        config.insert("user_lockout_config".into(), shown);
    }
    let v = json!({
        "accessor": e.accessor,
        "config": config,
        "deprecation_status": "supported",
        "description": e.description,
        "external_entropy_access": e.external_entropy_access,
        "local": e.local,
        "options": e.options,
        "plugin_version": "",
        "running_plugin_version": running_version(),
        "running_sha256": "",
        "seal_wrap": e.seal_wrap,
        "type": shown_kind(e),
        "uuid": e.uuid,
    });
    match v {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}

/// The type as answers show it: the mounts that every namespace has are named apart in child namespaces.
fn shown_kind(e: &MountEntry) -> String {
    let of_every_namespace = matches!(e.kind.as_str(), "system" | "cubbyhole" | "identity" | "token");
    if e.ns != NsId::ROOT && of_every_namespace { format!("ns_{}", e.kind) } else { e.kind.clone() }
}

/// The version of every engine: they are built in, and speak the level of the whole API. The audit lines say the same.
pub(super) fn running_version() -> String {
    format!("v{}+builtin.vault", crate::host::API_VERSION)
}

fn enable(cx: &mut Cx<'_, '_>, args: &Args, class: Class) -> Outcome {
    let h = host(cx);
    let path = dir(args.str("path"));
    let mut kind = args.str("type").to_owned();
    let mut options = args.opt_pairs("options").filter(|o| !o.is_empty());
    let config = Args::parse(settings::CONFIG, &[], args.object("config").cloned().unwrap_or_default())?;
    if kind.is_empty() || kind == "plugin" {
        kind = args.str("plugin_name").to_owned();
    }
    if kind.is_empty() {
        return Err(Error::invalid("backend type must be specified as a string"));
    }
    if class == Class::Secret {
        resolve_alias(&mut kind, &mut options);
    }
    check_version(class, &kind, options.as_ref())?;
    check_place(cx, class, &kind, &path)?;
    let version = options.as_ref().and_then(|o| o.get("version")).map(String::as_str);
    if h.registry().find(class, &kind, version).is_none() {
        return Err(Error::invalid(format!("plugin not found in the catalog: {}", args.str("type"))));
    }
    let mut entry = MountEntry {
        description: args.str("description").to_owned(),
        local: args.bool("local"),
        seal_wrap: args.bool("seal_wrap"),
        external_entropy_access: args.bool("external_entropy_access"),
        options,
        ..fresh(cx.txn, cx.rng, cx.mount.ns, class, &path, &kind)?
    };
    settings::apply(&config, &mut entry)?;
    entry.config.force_no_cache = config.bool("force_no_cache");
    if given(args, "plugin_version") && !args.str("plugin_version").is_empty() {
        entry.config.other.insert("plugin_version".into(), args.str("plugin_version").into());
    }
    check_new_ttls(&entry, h.settings().ttls.max)?;
    entry.save(cx.txn);
    nothing()
}

/// `kv-v1` and `kv-v2` are the two versions of `kv`, `generic` is the first one's old name.
fn resolve_alias(kind: &mut String, options: &mut Option<BTreeMap<String, String>>) {
    let version = match kind.as_str() {
        "kv-v1" | "generic" => "1",
        "kv-v2" => "2",
        _ => return,
    };
    *kind = "kv".into();
    options.get_or_insert_default().insert("version".into(), version.into());
}

fn check_version(class: Class, kind: &str, options: Option<&BTreeMap<String, String>>) -> Result<(), Error> {
    let version = options.and_then(|o| o.get("version")).map_or("", String::as_str);
    match (class, kind, version) {
        (_, _, "") | (Class::Secret, "kv", "1" | "2") => Ok(()),
        (Class::Secret, "kv", v) => Err(Error::invalid(format!("invalid version provided: {v}"))),
        (Class::Secret, ..) => {
            Err(Error::invalid(format!("secrets engine {kind:?} does not allow setting a version")))
        }
        (Class::Auth, ..) => Err(Error::invalid(format!("auth method {kind:?} does not allow setting a version"))),
    }
}

/// Refuses a place that is taken, reserved or badly named, and types that are mounted by the server only.
fn check_place(cx: &mut Cx<'_, '_>, class: Class, kind: &str, path: &str) -> Result<(), Error> {
    check_path(path)?;
    match class {
        Class::Secret if is_reserved(path) => return Err(Error::invalid(format!("cannot mount {path:?}"))),
        Class::Secret if SINGLE.contains(&kind) => {
            return Err(Error::invalid(format!("mount type of {kind:?} is not mountable")));
        }
        Class::Auth if matches!(kind, "token" | "ns_token") => {
            return Err(Error::invalid("token credential backend cannot be instantiated"));
        }
        _ => {}
    }
    check_free(cx.txn, &host(cx).router, cx.mount.ns, class, path)
}

/// Refuses a path that no router could hold.
pub(super) fn check_path(path: &str) -> Result<(), Error> {
    if path == "/" || path.contains("//") || path.split('/').any(|s| s == "." || s == "..") {
        return Err(Error::invalid(format!("path {path:?} does not match cleaned path")));
    }
    if !path.chars().all(is_printable) {
        return Err(Error::invalid("path cannot contain non-printable characters"));
    }
    if path.len() > MAX_MOUNT_PATH_BYTES {
        return Err(Error::invalid(format!("a mount's path has at most {MAX_MOUNT_PATH_BYTES} bytes")));
    }
    if path.split('/').any(|s| s.trim() != s) {
        return Err(Error::invalid("path cannot contain a leading or trailing whitespace"));
    }
    Ok(())
}

/// Secrets engines may not be mounted here.
pub(super) fn is_reserved(path: &str) -> bool {
    RESERVED.iter().any(|r| path.starts_with(r))
}

/// Refuses a path that nests with a mount or a child namespace. Rests on the mounts of the namespace and on all
/// namespaces: one that commits first makes this one try again.
pub(super) fn check_free(
    txn: &mut Txn<'_>,
    router: &Router,
    ns: NsId,
    class: Class,
    path: &str,
) -> Result<(), Error> {
    txn.guard_prefix(&tables::mounts_of(ns));
    txn.guard_prefix(&[tables::NAMESPACE]);
    if let Some(m) = router.conflict(txn, ns, &full(class, path))? {
        return Err(Error::invalid(format!("path is already in use at {}", m.entry.path)));
    }
    match router.conflicting_namespace(ns, &full(class, path)) {
        None => Ok(()),
        Some(n) => Err(Error::invalid(format!("path is already in use at {}", Namespace::split(&n.path).1))),
    }
}

/// A new entry with its number, accessor and UUID.
pub(super) fn fresh(
    txn: &mut Txn<'_>,
    rng: &mut dyn Entropy,
    ns: NsId,
    class: Class,
    path: &str,
    kind: &str,
) -> Result<MountEntry, Error> {
    let mut tail = [0u8; 4];
    rng.fill(&mut tail);
    let prefix = if class == Class::Auth { "auth_" } else { "" };
    let mut entry = MountEntry {
        id: next_mount_id(txn)?,
        ns,
        class,
        path: path.to_owned(),
        kind: kind.to_owned(),
        description: String::new(),
        uuid: entropy::uuid4(rng),
        accessor: format!("{prefix}{kind}_{}", hex::encode(tail)),
        local: false,
        seal_wrap: false,
        external_entropy_access: false,
        options: None,
        config: Default::default(),
        tainted: false,
    };
    if class == Class::Auth {
        entry.config.token_type = TokenType::DefaultService;
    }
    Ok(entry)
}

fn check_new_ttls(e: &MountEntry, system_max: u64) -> Result<(), Error> {
    let (default, max) = (e.config.default_lease_ttl, e.config.max_lease_ttl);
    if max != 0 && default > max {
        return Err(Error::invalid("given default lease TTL greater than given max lease TTL"));
    }
    if max == 0 && default > system_max {
        return Err(Error::invalid(format!(
            "given default lease TTL greater than system max lease TTL of {system_max}"
        )));
    }
    Ok(())
}

fn disable(cx: &mut Cx<'_, '_>, args: &Args, class: Class) -> Outcome {
    let path = dir(args.str("path"));
    match class {
        Class::Secret if is_reserved(&path) => return Err(Error::invalid(format!("cannot unmount {path:?}"))),
        Class::Auth if path == TOKEN_PATH => {
            return Err(Error::invalid("token credential backend cannot be disabled"));
        }
        _ => {}
    }
    let h = host(cx);
    let Some(id) = find(cx.txn, &h.router, cx.mount.ns, class, &path)?.map(|m| m.entry.id) else { return nothing() };
    let Some(mut entry) = MountEntry::load(cx.txn, id)? else { return nothing() };
    // from here on nothing routes there; leases, tokens and data are worked off behind the answer
    entry.tainted = true;
    entry.save(cx.txn);
    tombstone::mount_removed(cx.txn, cx.now, id)?;
    nothing()
}

fn read_settings(cx: &mut Cx<'_, '_>, class: Class, path: &str) -> Outcome {
    let h = host(cx);
    let shown_path = full(class, path);
    let Some(m) = find(cx.txn, &h.router, cx.mount.ns, class, path)? else {
        return Err(Error::invalid(format!("cannot fetch sysview for path {shown_path:?}")));
    };
    let mut data = settings::shown(&m.entry);
    data.insert("default_lease_ttl".into(), m.info.default_ttl.into());
    data.insert("max_lease_ttl".into(), m.info.max_ttl.into());
    data.insert("description".into(), m.entry.description.clone().into());
    data.insert("force_no_cache".into(), m.entry.config.force_no_cache.into());
    if let Some(options) = &m.entry.options {
        data.insert("options".into(), json!(options));
    }
    if let Some(l) = &m.entry.config.user_lockout {
        data.insert("user_lockout_threshold".into(), l.threshold.into());
        data.insert("user_lockout_duration".into(), l.duration.into());
        data.insert("user_lockout_counter_reset_duration".into(), l.counter_reset.into());
        data.insert("user_lockout_disable".into(), l.disable.into());
    }
    Response::data(data).done()
}

fn tune(cx: &mut Cx<'_, '_>, args: &Args, class: Class, path: &str) -> Outcome {
    let h = host(cx);
    let shown_path = full(class, path);
    if class == Class::Secret && is_reserved(path) && !tunes_audit_only(args) {
        return Err(Error::invalid(format!("cannot tune {path:?}")));
    }
    let missing = || Error::invalid(format!("tune of path {shown_path:?} failed: no mount entry found"));
    let routed = find(cx.txn, &h.router, cx.mount.ns, class, path)?.ok_or_else(missing)?;
    let mut entry = MountEntry::load(cx.txn, routed.entry.id)?.ok_or_else(missing)?;
    let before = entry.clone();
    check_token_type(args, &entry)?;
    settings::apply(args, &mut entry)?;
    if given(args, "description") {
        entry.description = args.str("description").to_owned();
    }
    let (default, max) = (entry.config.default_lease_ttl, entry.config.max_lease_ttl);
    if default != 0 && max != 0 && max < default {
        return Err(Error::invalid(format!(
            "backend max lease TTL of {max} would be less than backend default lease TTL of {default}"
        )));
    }
    let warnings = match args.opt_pairs("options").filter(|o| !o.is_empty()) {
        Some(wanted) => reconfigure(cx, routed, &mut entry, wanted)?,
        None => Vec::new(),
    };
    if entry != before {
        entry.save(cx.txn);
    }
    if warnings.is_empty() {
        return nothing();
    }
    Response { warnings, ..Response::default() }.done()
}

/// True if the request sets nothing but what audit hides. Empty texts and `null` set nothing.
fn tunes_audit_only(args: &Args) -> bool {
    let sets = |v: &Value| !matches!(v, Value::Null | Value::Bool(false)) && v.as_str() != Some("");
    args.raw().iter().filter(|(_, v)| sets(v)).all(|(k, _)| k.starts_with("audit_non_hmac_"))
}

fn check_token_type(args: &Args, entry: &MountEntry) -> Result<(), Error> {
    if args.str("token_type").is_empty() {
        return Ok(());
    }
    if entry.class != Class::Auth {
        return Err(Error::invalid("'token_type' can only be modified on auth mounts"));
    }
    if matches!(entry.kind.as_str(), "token" | "ns_token") {
        return Err(Error::invalid("'token_type' cannot be set for 'token' or 'ns_token' auth mounts"));
    }
    Ok(())
}

/// Merges options into the mount's and lets its engine judge the change, within the same transaction.
fn reconfigure(
    cx: &mut Cx<'_, '_>,
    routed: &Routed,
    entry: &mut MountEntry,
    wanted: BTreeMap<String, String>,
) -> Result<Vec<String>, Error> {
    let h = host(cx);
    let old = entry.options.clone().unwrap_or_default();
    let mut new = old.clone();
    for (k, v) in wanted {
        match v.is_empty() {
            true => drop(new.remove(&k)),
            false => drop(new.insert(k, v)),
        }
    }
    check_version(entry.class, &entry.kind, Some(&new))?;
    if let (Some(before), after) = (old.get("version"), new.get("version"))
        && after.is_none_or(|after| after < before)
    {
        return Err(Error::invalid(format!("cannot downgrade mount from version {before}")));
    }
    let engine = h.registry().find(entry.class, &entry.kind, entry.version());
    let engine = engine.ok_or_else(|| Error::internal("a mount's engine is not registered"))?;
    let mut inner = Cx {
        txn: cx.txn,
        mount: &routed.info,
        req: cx.req,
        principal: cx.principal,
        now: cx.now,
        rng: cx.rng,
        host: cx.host,
    };
    let warnings = engine.engine.reconfigure(&mut inner, &old, &new)?;
    entry.options = (!new.is_empty()).then_some(new);
    Ok(warnings)
}
