//! The flags of `server`. Only read here: starting the server is the caller's business.

use super::flags::Flags;
use super::io::Io;
use super::verb::{Does, Flag, Kind, Verb, flag};
use std::path::PathBuf;

/// `server`
pub const SERVER: Verb =
    Verb { name: "server", about: "Start a server", takes: "", flags: FLAGS, does: Does::Server };

const FLAGS: &[Flag] = &[
    flag("config", Kind::List, "Configuration file, or a folder of them. Repeatable."),
    flag("recovery", Kind::Bool, "Start in recovery mode."),
    flag("exit-on-core-shutdown", Kind::Bool, "Leave when the engine stops."),
    flag("log-level", Kind::Text, "trace, debug, info, warn or error; also VAULT_LOG_LEVEL."),
    flag("log-format", Kind::Text, "standard or json; also VAULT_LOG_FORMAT."),
    flag("log-file", Kind::Text, "File to log to."),
    flag("log-rotate-bytes", Kind::Int, "Begin a new log file at this size."),
    flag("log-rotate-duration", Kind::Duration, "Begin a new log file at this age."),
    flag("log-rotate-max-files", Kind::Int, "How many old log files to keep."),
    flag("dev", Kind::Bool, "Start in memory, initialised and unsealed. Never for production."),
    flag("dev-tls", Kind::Bool, "As -dev, with TLS and certificates made for it."),
    flag("dev-tls-cert-dir", Kind::Text, "Folder for those certificates."),
    flag("dev-tls-san", Kind::List, "A further name in them. Repeatable."),
    flag("dev-root-token-id", Kind::Text, "Root token of -dev; also VAULT_DEV_ROOT_TOKEN_ID."),
    flag("dev-listen-address", Kind::Text, "Address of -dev; also VAULT_DEV_LISTEN_ADDRESS."),
    flag("dev-no-store-token", Kind::Bool, "Do not keep the root token of -dev in the token file."),
    flag("dev-no-kv", Kind::Bool, "No key-value engine at secret/ in -dev."),
    flag("dev-kv-v1", Kind::Bool, "Version 1 of the key-value engine in -dev."),
    flag("dev-plugin-dir", Kind::Text, "Folder of plugins in -dev."),
    flag("dev-plugin-init", Kind::Bool, "Start the plugins at once in -dev."),
    flag("dev-ha", Kind::Bool, "Accepted for old scripts."),
    flag("dev-transactional", Kind::Bool, "Accepted for old scripts."),
    flag("dev-leased-kv", Kind::Bool, "Leases on reads of the key-value engine in -dev."),
    flag("dev-skip-init", Kind::Bool, "Do not initialise in -dev."),
    flag("dev-auto-seal", Kind::Bool, "Accepted for old scripts."),
    flag("dev-three-node", Kind::Bool, "Accepted for old scripts."),
    flag("dev-four-cluster", Kind::Bool, "Accepted for old scripts."),
    flag("dev-consul", Kind::Bool, "Accepted for old scripts."),
    flag("dev-cluster-json", Kind::Text, "File to describe the dev cluster in."),
    flag("dev-latency", Kind::Int, "Milliseconds to delay storage in -dev."),
    flag("dev-latency-jitter", Kind::Int, "Per cent of jitter of -dev-latency."),
    flag("non-interactive", Kind::Bool, "Accepted for old scripts."),
];

/// How the server is to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerArgs {
    /// Configuration files and folders, in the order given.
    pub config: Vec<PathBuf>,
    /// Recovery mode.
    pub recovery: bool,
    /// Leave when the engine stops.
    pub exit_on_core_shutdown: bool,
    /// Log level, if flag or environment says one; it wins over the configuration.
    pub log_level: Option<String>,
    /// Log format, if flag or environment says one.
    pub log_format: Option<String>,
    /// Log file, if the flag says one.
    pub log_file: Option<String>,
    /// Size at which a new log file begins, bytes.
    pub log_rotate_bytes: Option<u64>,
    /// Age at which a new log file begins, seconds.
    pub log_rotate_seconds: Option<u64>,
    /// How many old log files to keep.
    pub log_rotate_max_files: Option<i64>,
    /// Dev mode, if asked for.
    pub dev: Option<DevArgs>,
}

/// How dev mode is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevArgs {
    /// The root token, or one is made.
    pub root_token_id: Option<String>,
    /// Where to listen.
    pub listen_address: String,
    /// Leave the token file alone.
    pub no_store_token: bool,
    /// TLS, with certificates made for it.
    pub tls: bool,
    /// Folder for the certificates.
    pub tls_cert_dir: Option<PathBuf>,
    /// Further names in the certificate.
    pub tls_san: Vec<String>,
    /// What stands at `secret/`.
    pub kv: DevKv,
    /// Leases on reads of the key-value engine.
    pub leased_kv: bool,
    /// Do not initialise.
    pub skip_init: bool,
    /// Folder of plugins.
    pub plugin_dir: Option<PathBuf>,
}

/// What stands at `secret/` in dev mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevKv {
    /// Nothing.
    None,
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

impl ServerArgs {
    /// Reads the flags, and the environment for those that were not given.
    pub fn from_flags(flags: &Flags, io: &Io<'_>) -> Result<Self, String> {
        if !flags.args.is_empty() {
            return Err(format!("Too many arguments (expected 0, got {})", flags.args.len()));
        }
        let text = |flag: &str| flags.text(flag).filter(|text| !text.is_empty()).map(str::to_owned);
        let named = |flag: &str, setting: &str| text(flag).or_else(|| io.setting(setting).map(str::to_owned));
        let path = |flag: &str| text(flag).map(|path| io.expand(&path));
        let count = |flag: &str| flags.int(flag).and_then(|count| u64::try_from(count).ok());
        // as upstream: these imply -dev, the others only shape it
        let switches = ["dev", "dev-tls", "dev-ha", "dev-transactional", "dev-leased-kv"];
        let dev = switches.iter().any(|flag| flags.is_set(flag));
        let config: Vec<PathBuf> = flags.list("config").iter().map(|path| io.expand(path)).collect();
        if !dev && config.is_empty() {
            return Err("Must specify at least one config path using -config".to_owned());
        }
        let dev = dev.then(|| DevArgs {
            root_token_id: named("dev-root-token-id", "DEV_ROOT_TOKEN_ID"),
            listen_address: named("dev-listen-address", "DEV_LISTEN_ADDRESS")
                .unwrap_or_else(|| "127.0.0.1:8200".to_owned()),
            no_store_token: flags.is_set("dev-no-store-token"),
            tls: flags.is_set("dev-tls"),
            tls_cert_dir: path("dev-tls-cert-dir"),
            tls_san: flags.list("dev-tls-san").to_vec(),
            kv: match (flags.is_set("dev-no-kv"), flags.is_set("dev-kv-v1")) {
                (true, _) => DevKv::None,
                (_, true) => DevKv::V1,
                _ => DevKv::V2,
            },
            leased_kv: flags.is_set("dev-leased-kv"),
            skip_init: flags.is_set("dev-skip-init"),
            plugin_dir: path("dev-plugin-dir"),
        });
        let log_level = named("log-level", "LOG_LEVEL").map(|level| level.to_ascii_lowercase());
        if let Some(level) = log_level.as_deref().filter(|level| !crate::config::is_log_level(level)) {
            return Err(format!("unknown log level: {level}"));
        }
        let log_format = named("log-format", "LOG_FORMAT").map(|format| format.to_ascii_lowercase());
        if let Some(format) = log_format.as_deref().filter(|format| !matches!(*format, "standard" | "json")) {
            return Err(format!("unknown log format: {format}"));
        }
        Ok(ServerArgs {
            config,
            recovery: flags.is_set("recovery"),
            exit_on_core_shutdown: flags.is_set("exit-on-core-shutdown"),
            log_level,
            log_format,
            log_file: text("log-file"),
            log_rotate_bytes: count("log-rotate-bytes"),
            log_rotate_seconds: flags
                .duration_ns("log-rotate-duration")
                .and_then(|ns| u64::try_from(ns).ok())
                .map(|ns| ns / ringfence_base::duration::SECOND_NS),
            log_rotate_max_files: flags.int("log-rotate-max-files"),
            dev,
        })
    }
}
