//! The top level of a configuration file: which keys there are, how files come together, what must be said in the end.

use super::ast::Body;
use super::reader::Reader;
use super::{
    AuditDevice, Config, ConfigError, Environment, Listener, Loaded, LogFormat, Seal, Storage, UserLockout,
    is_log_level,
};
use std::time::Duration;

/// Keys that are understood elsewhere and mean nothing here: no warning that they are unknown, but one that they do nothing.
const WITHOUT_EFFECT: [&str; 21] = [
    "adaptive_overload_protection",
    "cache_size",
    "cluster_cipher_suites",
    "detect_deadlocks",
    "disable_cache",
    "disable_indexing",
    "disable_sealwrap",
    "disable_sentinel_trace",
    "entropy",
    "experiments",
    "ha_storage",
    "imprecise_lease_role_tracking",
    "kms_library",
    "license_path",
    "plugin_file_permissions",
    "plugin_file_uid",
    "plugin_tmpdir",
    "reporting",
    "request_limiter",
    "service_registration",
    "strict_transport_security",
];

/// What more than one file adds to.
#[derive(Debug, Default)]
pub struct Accumulated {
    listeners: Vec<Listener>,
    seals: Vec<Seal>,
}

/// Lays one file over what is there. Scalars replace, listeners, seals and audit devices add up, storage replaces.
pub fn fill(
    loaded: &mut Loaded,
    sum: &mut Accumulated,
    file: &str,
    body: &Body,
    env: &Environment<'_>,
) -> Result<(), ConfigError> {
    let from = Reader::of_file(file, body);
    let Loaded { config, warnings } = loaded;
    fill_scalars(config, &from)?;
    let stanzas = [from.blocks("storage", 1)?, from.blocks("backend", 1)?].into_iter().flatten().collect::<Vec<_>>();
    if let [_, second, ..] = stanzas.as_slice() {
        return Err(second.reader.refuse("only one storage stanza is permitted"));
    }
    for block in &stanzas {
        let (storage, addresses) = Storage::read(block, env, warnings)?;
        config.storage = Some(storage);
        config.api_addr = config.api_addr.take().or(addresses.api);
        config.cluster_addr = config.cluster_addr.take().or(addresses.cluster);
        config.disable_clustering = addresses.disable_clustering.unwrap_or(config.disable_clustering);
    }
    for block in from.blocks("listener", 1)? {
        sum.listeners.push(Listener::read(&block, warnings)?);
    }
    if !sum.listeners.is_empty() {
        config.listeners.clone_from(&sum.listeners);
    }
    for name in ["seal", "hsm"] {
        for block in from.blocks(name, 1)? {
            sum.seals.push(Seal::read(&block, env)?);
        }
    }
    if !sum.seals.is_empty() {
        config.seals.clone_from(&sum.seals);
    }
    for block in from.blocks("telemetry", 0)? {
        config.telemetry.fill(&block.reader, warnings)?;
    }
    for block in from.blocks("replication", 0)? {
        read_replication(config, &block.reader, warnings)?;
    }
    for block in from.blocks("user_lockout", 1)? {
        read_lockout(config, &block.labels[0], &block.reader, warnings)?;
    }
    for block in from.blocks("audit", 2)? {
        let inner = &block.reader;
        let name = inner.filled("path")?.unwrap_or_else(|| block.labels[1].clone());
        config.audit.push(AuditDevice {
            kind: block.labels[0].clone(),
            path: format!("{}/", name.trim_matches('/')),
            description: inner.text("description")?.unwrap_or_default(),
            local: inner.yes("local")?.unwrap_or(false),
            options: inner.map("options")?,
        });
        inner.finish(warnings);
    }
    for item in from.items().iter().filter(|item| WITHOUT_EFFECT.contains(&item.keys[0].as_str())) {
        warnings
            .push(format!("{} has no effect and is ignored at {file}:{}:{}", item.keys[0], item.line, item.column));
    }
    from.know(&WITHOUT_EFFECT);
    from.finish(warnings);
    Ok(())
}

fn fill_scalars(config: &mut Config, from: &Reader<'_>) -> Result<(), ConfigError> {
    for (target, name) in [
        (&mut config.api_addr, "api_addr"),
        (&mut config.cluster_addr, "cluster_addr"),
        (&mut config.cluster_name, "cluster_name"),
        (&mut config.administrative_namespace_path, "administrative_namespace_path"),
    ] {
        if let Some(text) = from.filled(name)? {
            *target = Some(text);
        }
    }
    for (target, name) in [
        (&mut config.log_file, "log_file"),
        (&mut config.pid_file, "pid_file"),
        (&mut config.plugin_directory, "plugin_directory"),
    ] {
        if let Some(text) = from.filled(name)? {
            *target = Some(text.into());
        }
    }
    for (target, name) in [
        (&mut config.disable_clustering, "disable_clustering"),
        (&mut config.disable_mlock, "disable_mlock"),
        (&mut config.ui, "ui"),
        (&mut config.raw_storage_endpoint, "raw_storage_endpoint"),
        (&mut config.introspection_endpoint, "introspection_endpoint"),
        (&mut config.disable_printable_check, "disable_printable_check"),
        (&mut config.disable_standby_reads, "disable_standby_reads"),
        (&mut config.disable_performance_standby, "disable_performance_standby"),
        (&mut config.enable_response_header_hostname, "enable_response_header_hostname"),
        (&mut config.enable_response_header_raft_node_id, "enable_response_header_raft_node_id"),
        (&mut config.allow_api_audit_creation, "unsafe_allow_api_audit_creation"),
        (&mut config.allow_audit_log_prefixing, "allow_audit_log_prefixing"),
    ] {
        *target = from.yes(name)?.unwrap_or(*target);
    }
    for (target, name) in [
        (&mut config.default_lease_ttl, "default_lease_ttl"),
        (&mut config.max_lease_ttl, "max_lease_ttl"),
        (&mut config.default_max_request_duration, "default_max_request_duration"),
        (&mut config.log_rotate_duration, "log_rotate_duration"),
    ] {
        // zero is "not set" for all of them
        *target = from.time(name)?.filter(|time| !time.is_zero()).unwrap_or(*target);
    }
    config.log_rotate_bytes = from.bytes("log_rotate_bytes")?.unwrap_or(config.log_rotate_bytes);
    config.log_rotate_max_files = from.integer("log_rotate_max_files")?.unwrap_or(config.log_rotate_max_files);
    if let Some(level) = from.filled("log_level")? {
        config.log_level = level_of(&level).ok_or_else(|| from.refuse(format!("unknown log level {level:?}")))?;
    }
    if let Some(level) = from.filled("log_requests_level")? {
        config.log_requests_level = match level.as_str() {
            "off" => None,
            level => Some(level_of(level).ok_or_else(|| from.refuse(format!("unknown log level {level:?}")))?),
        };
    }
    if let Some(format) = from.filled("log_format")? {
        config.log_format =
            format_of(&format).ok_or_else(|| from.refuse(format!("unknown log format {format:?}")))?;
    }
    Ok(())
}

fn level_of(word: &str) -> Option<String> {
    let word = word.to_ascii_lowercase();
    if !is_log_level(&word) {
        return None;
    }
    Some(match word.as_str() {
        "notice" => "info".to_owned(),
        "warning" => "warn".to_owned(),
        "err" => "error".to_owned(),
        _ => word,
    })
}

fn format_of(word: &str) -> Option<LogFormat> {
    match word.to_ascii_lowercase().as_str() {
        "standard" => Some(LogFormat::Standard),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

/// What the `replication` stanza says of the standbys of one cluster; the rest is about clusters that follow others.
fn read_replication(config: &mut Config, from: &Reader<'_>, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let known = &mut config.allow_forwarding_via_header;
    *known = from.yes("allow_forwarding_via_header")?.unwrap_or(*known);
    if let Some(wait) = from.time("best_effort_wal_wait_duration")? {
        config.index_wait = wait;
    }
    const ELSEWHERE: [&str; 4] = [
        "resolver_discover_servers",
        "logshipper_buffer_length",
        "logshipper_buffer_size",
        "allow_forwarding_via_token",
    ];
    from.know(&ELSEWHERE);
    from.finish(warnings);
    Ok(())
}

fn read_lockout(
    config: &mut Config,
    method: &str,
    from: &Reader<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let method = method.to_ascii_lowercase();
    if !matches!(method.as_str(), "all" | "userpass" | "ldap" | "approle") {
        return Err(from.refuse("users can be locked for all, userpass, ldap or approle"));
    }
    let mut lockout = config.user_lockout.get(&method).copied().unwrap_or_default();
    lockout.threshold = from.count("lockout_threshold")?.unwrap_or(lockout.threshold);
    let time = |target: &mut Duration, name| from.time(name).map(|given| *target = given.unwrap_or(*target));
    time(&mut lockout.duration, "lockout_duration")?;
    time(&mut lockout.counter_reset, "lockout_counter_reset")?;
    lockout.disabled = from.yes("disable_lockout")?.unwrap_or(lockout.disabled);
    // a threshold of zero is how it is switched off as well
    if lockout.threshold == 0 {
        lockout = UserLockout { disabled: true, ..lockout };
    }
    from.finish(warnings);
    config.user_lockout.insert(method, lockout);
    Ok(())
}

/// Lays the environment over what the files say.
pub fn take_environment(config: &mut Config, env: &Environment<'_>) -> Result<(), ConfigError> {
    let wrong = |name: &str, message: String| ConfigError::Environment { name: format!("VAULT_{name}"), message };
    if let Some(address) = env.get("API_ADDR").or_else(|| env.get("REDIRECT_ADDR")) {
        config.api_addr = Some(address.to_owned());
    }
    if let Some(address) = env.get("CLUSTER_ADDR") {
        config.cluster_addr = Some(address.to_owned());
    }
    for (target, name) in [
        (&mut config.ui, "UI"),
        (&mut config.disable_mlock, "DISABLE_MLOCK"),
        (&mut config.raw_storage_endpoint, "RAW_STORAGE_ENDPOINT"),
        (&mut config.introspection_endpoint, "INTROSPECTION_ENDPOINT"),
    ] {
        if let Some(text) = env.get(name) {
            *target = super::units::boolean(text).ok_or_else(|| wrong(name, format!("{text:?} is no boolean")))?;
        }
    }
    if let Some(text) = env.get("LOG_LEVEL") {
        config.log_level = level_of(text).ok_or_else(|| wrong("LOG_LEVEL", format!("unknown log level {text:?}")))?;
        config.log_level_is_fixed = true;
    }
    if let Some(text) = env.get("LOG_FORMAT") {
        config.log_format =
            format_of(text).ok_or_else(|| wrong("LOG_FORMAT", format!("unknown log format {text:?}")))?;
    }
    if let Some(seal) = Seal::from_environment(env)? {
        match config.seals.iter_mut().find(|known| known.kind == seal.kind) {
            Some(known) => known.settings.extend(seal.settings),
            None => config.seals = vec![seal],
        }
    }
    Ok(())
}

/// Says what is missing, and fills what follows from the rest.
pub fn check(config: &mut Config) -> Result<(), ConfigError> {
    if config.seals.is_empty() {
        config.seals.push(Seal::shamir());
    }
    config.seals.sort_by_key(|seal| seal.priority);
    for (name, address) in [("api_addr", &config.api_addr), ("cluster_addr", &config.cluster_addr)] {
        let Some(address) = address else { continue };
        if address.contains("{{") {
            return Err(ConfigError::Missing(match name {
                "api_addr" => "api_addr: address templates are not supported, write the address itself",
                _ => "cluster_addr: address templates are not supported, write the address itself",
            }));
        }
    }
    match &config.storage {
        None => return Err(ConfigError::Missing("A storage backend must be specified")),
        Some(Storage::Raft(_)) if config.cluster_addr.is_none() => {
            return Err(ConfigError::Missing("Cluster address must be set when using raft storage"));
        }
        Some(_) => {}
    }
    if config.listeners.is_empty() {
        return Err(ConfigError::Missing("At least one listener must be specified"));
    }
    if config.default_lease_ttl > config.max_lease_ttl {
        return Err(ConfigError::Missing("default_lease_ttl is longer than max_lease_ttl"));
    }
    for (name, address) in [(true, &mut config.api_addr), (false, &mut config.cluster_addr)] {
        let Some(text) = address else { continue };
        *text = text.trim_end_matches('/').to_owned();
        if !text.contains("://") {
            // upstream takes a bare host and port for the cluster's address
            *text = format!("{}://{text}", if name { "http" } else { "https" });
        }
        if let (false, Some(rest)) = (name, text.strip_prefix("http://")) {
            // whatever was written: the cluster port speaks TLS only, and upstream shows it so
            *text = format!("https://{rest}");
        }
    }
    if config.cluster_addr.is_none() {
        config.cluster_addr = config.api_addr.as_deref().and_then(next_port);
    }
    Ok(())
}

/// The cluster's address beside an API address: the next port, always with TLS.
fn next_port(api: &str) -> Option<String> {
    let (scheme, rest) = api.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[host_end..].rfind(':') {
        Some(at) => (&authority[..host_end + at], authority[host_end + at + 1..].parse::<u16>().ok()?),
        None => (authority, if scheme == "https" { 443 } else { 80 }),
    };
    Some(format!("https://{host}:{}", port.checked_add(1)?))
}
