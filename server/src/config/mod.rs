//! The server's configuration: files and environment in, one typed [`Config`] out.
//!
//! ```text
//! files, folders ─ read ─> texts ─ ast::parse ─> trees ─ fill, in order ─> Config ─ environment ─ check ─> Loaded
//! ```
//! Driven by the binary at start and again on a reload. Files are read here and nowhere else; [`from_texts`] is a function of
//! its arguments, the environment among them. What the files say that nobody asked for becomes a warning, never an error:
//! configurations travel between versions and products. Nothing here starts, opens or binds anything.

pub mod ast;
pub mod listener;
pub mod reader;
pub mod seal;
pub mod storage;
pub mod telemetry;
mod top;
pub mod units;

#[cfg(test)]
mod tests;

pub use listener::{Address, ClientCerts, Listener, ListenerTls, TlsVersion};
pub use seal::{Seal, SealKind};
pub use storage::{JoinTarget, Pem, RaftStorage, RetryJoin, Storage};
pub use telemetry::Telemetry;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest configuration file, bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Most files of one folder.
const MAX_FILES: usize = 1024;

/// Everything that the operator decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the API is served.
    pub listeners: Vec<Listener>,
    /// Where the data lies. Always there in what [`load`] answers, unless dev mode was the base.
    pub storage: Option<Storage>,
    /// What protects the root key; never empty after loading.
    pub seals: Vec<Seal>,
    /// What is measured.
    pub telemetry: Telemetry,
    /// Full URL under which clients reach this node.
    pub api_addr: Option<String>,
    /// Full URL under which other nodes reach this node.
    pub cluster_addr: Option<String>,
    /// Name of the cluster; made when absent.
    pub cluster_name: Option<String>,
    /// No cluster port.
    pub disable_clustering: bool,
    /// Life of leases that ask for none.
    pub default_lease_ttl: Duration,
    /// Longest life of leases.
    pub max_lease_ttl: Duration,
    /// How long a request may take.
    pub default_max_request_duration: Duration,
    /// Do not lock memory.
    pub disable_mlock: bool,
    /// The web interface.
    pub ui: bool,
    /// `trace` to `error`.
    pub log_level: String,
    /// Whether a flag or the environment decides the level: a reload then leaves it.
    pub log_level_is_fixed: bool,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// File to log to.
    pub log_file: Option<PathBuf>,
    /// Size at which a new log file begins, bytes; zero never.
    pub log_rotate_bytes: u64,
    /// Age at which a new log file begins.
    pub log_rotate_duration: Duration,
    /// Old log files to keep: zero all, negative none.
    pub log_rotate_max_files: i64,
    /// Level at which completed requests are logged.
    pub log_requests_level: Option<String>,
    /// File that holds the process id.
    pub pid_file: Option<PathBuf>,
    /// Folder of plugins.
    pub plugin_directory: Option<PathBuf>,
    /// Serve `sys/raw`.
    pub raw_storage_endpoint: bool,
    /// Serve `sys/internal/inspect`.
    pub introspection_endpoint: bool,
    /// Take paths with unprintable characters.
    pub disable_printable_check: bool,
    /// Standbys serve no reads.
    pub disable_standby_reads: bool,
    /// The same, by Vault's name.
    pub disable_performance_standby: bool,
    /// A client may have its call passed on to the active node by `X-Vault-Forward`.
    pub allow_forwarding_via_header: bool,
    /// A call waits so long for the index that it demands.
    pub index_wait: Duration,
    /// Tell the host's name in a header.
    pub enable_response_header_hostname: bool,
    /// Tell the raft node's name in a header.
    pub enable_response_header_raft_node_id: bool,
    /// Take audit devices over the API.
    pub allow_api_audit_creation: bool,
    /// Take the `prefix` option of audit devices.
    pub allow_audit_log_prefixing: bool,
    /// Namespace whose operators may use what is the root namespace's alone.
    pub administrative_namespace_path: Option<String>,
    /// When users are locked after failed logins; by method, `all` for the rest.
    pub user_lockout: BTreeMap<String, UserLockout>,
    /// Audit devices that the files declare.
    pub audit: Vec<AuditDevice>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Standard,
    /// One JSON object a line.
    Json,
}

/// When users are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLockout {
    /// Failed logins before it.
    pub threshold: u64,
    /// How long.
    pub duration: Duration,
    /// When the count of failed logins restarts.
    pub counter_reset: Duration,
    /// Never.
    pub disabled: bool,
}

impl Default for UserLockout {
    fn default() -> Self {
        let quarter_hour = Duration::from_secs(900);
        UserLockout { threshold: 5, duration: quarter_hour, counter_reset: quarter_hour, disabled: false }
    }
}

/// An audit device that the files declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditDevice {
    /// `file`, `socket`, ...
    pub kind: String,
    /// Its name, with a slash at its end.
    pub path: String,
    /// What it is for.
    pub description: String,
    /// Not replicated.
    pub local: bool,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// A configuration, and what was odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Lines to log.
    pub warnings: Vec<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// First line is 1.
    pub line: u32,
    /// First column is 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file is neither HCL nor JSON.
    Syntax {
        /// Where.
        place: Place,
        /// What was expected or found.
        message: String,
    },
    /// A value does not fit its key.
    Value {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A variable of the environment does not fit.
    Environment {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Something that must be said is not said.
    Missing(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, cause } => {
                write!(f, "error loading configuration from {}: {cause}", file.display())
            }
            ConfigError::Syntax { place, message } => {
                write!(f, "error parsing configuration: {place}: {message}")
            }
            ConfigError::Value { place, message } => write!(f, "error in configuration: {place}: {message}"),
            ConfigError::Environment { name, message } => write!(f, "error in environment: {name}: {message}"),
            ConfigError::Missing(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The environment, as far as the configuration looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a>(pub &'a BTreeMap<String, String>);

impl<'a> Environment<'a> {
    /// `BAO_<name>`, else `VAULT_<name>`; empty counts as unset.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.plain(&format!("BAO_{name}")).or_else(|| self.plain(&format!("VAULT_{name}")))
    }

    /// A variable by its whole name; one that begins with `VAULT_` is looked for as `BAO_` first.
    pub fn exact(&self, name: &str) -> Option<&'a str> {
        match name.strip_prefix("VAULT_") {
            Some(rest) => self.get(rest),
            None => self.plain(name),
        }
    }

    fn plain(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Default for Config {
    fn default() -> Self {
        let lease_ttl = Duration::from_secs(768 * 3600);
        Config {
            listeners: Vec::new(),
            storage: None,
            seals: Vec::new(),
            telemetry: Telemetry::default(),
            api_addr: None,
            cluster_addr: None,
            cluster_name: None,
            disable_clustering: false,
            default_lease_ttl: lease_ttl,
            max_lease_ttl: lease_ttl,
            default_max_request_duration: Duration::from_secs(90),
            disable_mlock: false,
            ui: false,
            log_level: "info".to_owned(),
            log_level_is_fixed: false,
            log_format: LogFormat::Standard,
            log_file: None,
            log_rotate_bytes: 0,
            log_rotate_duration: Duration::from_secs(24 * 3600),
            log_rotate_max_files: 0,
            log_requests_level: None,
            pid_file: None,
            plugin_directory: None,
            raw_storage_endpoint: false,
            introspection_endpoint: false,
            disable_printable_check: false,
            disable_standby_reads: false,
            disable_performance_standby: false,
            allow_forwarding_via_header: false,
            index_wait: Duration::from_secs(2),
            enable_response_header_hostname: false,
            enable_response_header_raft_node_id: false,
            allow_api_audit_creation: true,
            allow_audit_log_prefixing: false,
            administrative_namespace_path: None,
            user_lockout: BTreeMap::new(),
            audit: Vec::new(),
        }
    }
}

impl Config {
    /// Dev mode: in memory, one listener without TLS, everything open for a look.
    pub fn dev(listen_address: &str) -> Self {
        let listener = Listener {
            metrics: listener::Metrics { unauthenticated_access: true, ..Default::default() },
            unauthenticated_pprof_access: true,
            ..Listener::plain(listen_address)
        };
        Config {
            listeners: vec![listener],
            storage: Some(Storage::Inmem),
            seals: vec![Seal::shamir()],
            disable_mlock: true,
            ui: true,
            raw_storage_endpoint: true,
            introspection_endpoint: true,
            telemetry: Telemetry { disable_hostname: true, ..Telemetry::default() },
            ..Config::default()
        }
    }

    /// When users of a method are locked.
    pub fn lockout_of(&self, method: &str) -> UserLockout {
        let found = self.user_lockout.get(method).or_else(|| self.user_lockout.get("all"));
        found.copied().unwrap_or_default()
    }

    /// Lays the server command's own flags over what was loaded.
    pub fn take_flags(&mut self, args: &crate::cli::ServerArgs) {
        if let Some(level) = &args.log_level {
            self.log_level.clone_from(level);
            self.log_level_is_fixed = true;
        }
        if let Some(format) = &args.log_format {
            self.log_format = if format == "json" { LogFormat::Json } else { LogFormat::Standard };
        }
        if let Some(file) = &args.log_file {
            self.log_file = Some(file.into());
        }
        self.log_rotate_bytes = args.log_rotate_bytes.unwrap_or(self.log_rotate_bytes);
        self.log_rotate_duration = args.log_rotate_seconds.map_or(self.log_rotate_duration, Duration::from_secs);
        self.log_rotate_max_files = args.log_rotate_max_files.unwrap_or(self.log_rotate_max_files);
    }
}

/// Is the word a log level?
pub fn is_log_level(word: &str) -> bool {
    matches!(word, "trace" | "debug" | "info" | "notice" | "warn" | "warning" | "error" | "err")
}

/// Reads files and folders, in the order given, over `base` ([`Config::default`], or [`Config::dev`] in dev mode).
pub fn load(paths: &[PathBuf], env: &BTreeMap<String, String>, base: Config) -> Result<Loaded, ConfigError> {
    let mut texts = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let text = read_file(&file)?;
            texts.push((file.display().to_string(), text));
        }
    }
    from_texts(&texts, env, base)
}

/// Reads texts that were already read, each with the name of its file.
pub fn from_texts(
    texts: &[(String, String)],
    env: &BTreeMap<String, String>,
    base: Config,
) -> Result<Loaded, ConfigError> {
    let env = Environment(env);
    let mut loaded = Loaded { config: base, warnings: Vec::new() };
    // the first file that names listeners replaces those of dev mode, each further one adds to them
    let mut accumulated = top::Accumulated::default();
    for (file, text) in texts {
        let body = ast::parse(text).map_err(|error| ConfigError::Syntax {
            place: Place { file: file.clone(), line: error.line, column: error.column },
            message: error.message,
        })?;
        top::fill(&mut loaded, &mut accumulated, file, &body, &env)?;
    }
    top::take_environment(&mut loaded.config, &env)?;
    top::check(&mut loaded.config)?;
    Ok(loaded)
}

/// The files that a path means: itself, or a folder's `.hcl` and `.json` files in the order of their names.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable =
        |error: std::io::Error| ConfigError::Unreadable { file: path.to_owned(), cause: error.to_string() };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let named = file.extension().is_some_and(|extension| extension == "hcl" || extension == "json");
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '#']));
        if named && !hidden && file.is_file() {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(ConfigError::Unreadable {
                file: path.to_owned(),
                cause: format!("more than {MAX_FILES} files"),
            });
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause: String| ConfigError::Unreadable { file: file.to_owned(), cause };
    let size = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))
}
