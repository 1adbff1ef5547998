//! `listener` stanzas: where the API is served and how.

use super::ConfigError;
use super::ast::Value;
use super::reader::{Block, Reader};
use super::units::Cidr;
use ringfence_base::limit;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: Address,
    /// Where the cluster port of the same node listens; the API's port and one more when absent.
    pub cluster_address: Option<String>,
    /// TLS, or none.
    pub tls: Option<ListenerTls>,
    /// An idle connection is closed after so long.
    pub http_idle_timeout: Duration,
    /// Headers must arrive within so long.
    pub http_read_header_timeout: Duration,
    /// A request must arrive within so long.
    pub http_read_timeout: Duration,
    /// A response must be taken within so long; zero for ever.
    pub http_write_timeout: Duration,
    /// Largest request body, bytes.
    pub max_request_size_bytes: u64,
    /// A request may take so long; the server's own default when absent.
    pub max_request_duration: Option<Duration>,
    /// Limits of JSON bodies.
    pub json: JsonLimits,
    /// Refuse requests without the `X-Vault-Request` header.
    pub require_request_header: bool,
    /// A call that demands a later position than the node has goes to the active node, unless it says otherwise itself.
    pub forwards_when_inconsistent: bool,
    /// The PROXY protocol in front of each connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `X-Forwarded-For`, or not believed.
    pub forwarded_for: Option<ForwardedFor>,
    /// Headers of responses: by `default`, by class (`2xx`) or by status (`404`).
    pub custom_response_headers: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// CORS of this listener alone.
    pub cors_enabled: bool,
    /// Origins it allows.
    pub cors_allowed_origins: Vec<String>,
    /// Headers it allows.
    pub cors_allowed_headers: Vec<String>,
    /// Metrics.
    pub metrics: Metrics,
    /// Profiles without a token.
    pub unauthenticated_pprof_access: bool,
    /// Requests in flight without a token.
    pub unauthenticated_in_flight_requests_access: bool,
    /// Every request is made in this namespace or below.
    pub chroot_namespace: Option<String>,
    /// Leave addresses out of unauthenticated answers.
    pub redact_addresses: bool,
    /// Leave the cluster's name out of them.
    pub redact_cluster_name: bool,
    /// Leave the version out of them.
    pub redact_version: bool,
    /// No unauthenticated replication status.
    pub disable_replication_status_endpoints: bool,
    /// No unauthenticated rekey endpoints.
    pub disable_unauthed_rekey_endpoints: bool,
    /// No unauthenticated endpoints to generate a root token.
    pub disable_unauthed_generate_root_endpoints: bool,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A socket file.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: Option<u32>,
        /// Its owner, name or number.
        user: Option<String>,
        /// Its group, name or number.
        group: Option<String>,
    },
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificate chain.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Oldest version.
    pub min_version: TlsVersion,
    /// Newest version.
    pub max_version: TlsVersion,
    /// Cipher suites of TLS 1.2 by name; empty: the usual ones.
    pub cipher_suites: Vec<String>,
    /// Certificates that clients' certificates must come from.
    pub client_ca_file: Option<PathBuf>,
    /// What is asked of clients.
    pub client_certs: ClientCerts,
}

/// What is asked of a TLS client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCerts {
    /// Nothing.
    Disabled,
    /// A certificate, if it has one: the cert auth method needs it.
    Requested,
    /// A certificate from the configured CA, or no connection.
    Required,
}

/// A version of TLS. Versions before 1.2 are accepted in a configuration and mean 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// Limits of JSON bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// Deepest nesting.
    pub depth: u64,
    /// Longest text, bytes.
    pub string_bytes: u64,
    /// Most entries of an object.
    pub object_entries: u64,
    /// Most elements of a list.
    pub array_elements: u64,
}

/// How PROXY headers are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Whose header counts.
    pub behavior: ProxyBehavior,
    /// The proxies.
    pub authorized: Vec<Cidr>,
}

/// Whose PROXY header counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyBehavior {
    /// Everybody's.
    UseAlways,
    /// The proxies'; others are taken as they come.
    AllowAuthorized,
    /// The proxies'; others are refused.
    DenyUnauthorized,
}

/// How `X-Forwarded-For` is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedFor {
    /// Whose header counts.
    pub authorized: Vec<Cidr>,
    /// How many addresses at the end of the header are skipped.
    pub hop_skips: u64,
    /// Refuse a header from anybody else.
    pub reject_not_authorized: bool,
    /// Refuse requests without the header.
    pub reject_not_present: bool,
    /// Header with the client's certificate.
    pub client_cert_header: Option<String>,
    /// How that header is decoded, in order.
    pub client_cert_decoders: Vec<String>,
}

/// Metrics of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Without a token.
    pub unauthenticated_access: bool,
    /// Not at all.
    pub disallowed: bool,
    /// Nothing else.
    pub only: bool,
    /// Where, instead of the usual path.
    pub path: Option<String>,
}

impl Listener {
    /// A listener on an address, without TLS, everything else by default.
    pub fn plain(address: &str) -> Self {
        Listener {
            address: Address::Tcp(address.to_owned()),
            cluster_address: None,
            tls: None,
            http_idle_timeout: Duration::from_secs(300),
            http_read_header_timeout: Duration::from_secs(10),
            http_read_timeout: Duration::from_secs(30),
            http_write_timeout: Duration::ZERO,
            max_request_size_bytes: limit::MAX_REQUEST_BYTES as u64,
            max_request_duration: None,
            json: JsonLimits {
                depth: limit::MAX_JSON_DEPTH as u64,
                string_bytes: limit::MAX_JSON_STRING_BYTES as u64,
                object_entries: limit::MAX_JSON_OBJECT_ENTRIES as u64,
                array_elements: limit::MAX_JSON_ARRAY_ELEMENTS as u64,
            },
            require_request_header: false,
            forwards_when_inconsistent: false,
            proxy_protocol: None,
            forwarded_for: None,
            custom_response_headers: BTreeMap::new(),
            cors_enabled: false,
            cors_allowed_origins: Vec::new(),
            cors_allowed_headers: Vec::new(),
            metrics: Metrics::default(),
            unauthenticated_pprof_access: false,
            unauthenticated_in_flight_requests_access: false,
            chroot_namespace: None,
            redact_addresses: false,
            redact_cluster_name: false,
            redact_version: false,
            disable_replication_status_endpoints: false,
            disable_unauthed_rekey_endpoints: false,
            disable_unauthed_generate_root_endpoints: false,
        }
    }

    /// Reads a stanza.
    pub fn read(block: &Block<'_>, warnings: &mut Vec<String>) -> Result<Listener, ConfigError> {
        let from = &block.reader;
        let kind = from.filled("type")?.unwrap_or_else(|| block.labels[0].clone());
        let mut listener = Listener::plain("127.0.0.1:8200");
        let address = from.filled("address")?;
        match kind.to_ascii_lowercase().as_str() {
            "tcp" => {
                if let Some(address) = address {
                    listener.address = Address::Tcp(with_port(from, &address)?);
                }
                listener.tls = read_tls(from)?;
            }
            "unix" => {
                let path = address.ok_or_else(|| from.refuse("address must be set to the path of the socket"))?;
                let mode = match from.filled("socket_mode")? {
                    Some(text) => Some(
                        u32::from_str_radix(&text, 8)
                            .ok()
                            .filter(|mode| *mode <= 0o7777)
                            .ok_or_else(|| from.refuse("socket_mode must be permission bits such as \"0600\""))?,
                    ),
                    None => None,
                };
                let (user, group) = (from.filled("socket_user")?, from.filled("socket_group")?);
                listener.address = Address::Unix { path: path.into(), mode, user, group };
                from.know(&["tls_disable"]);
            }
            other => return Err(from.refuse(format!("unknown listener type {other:?}"))),
        }
        listener.cluster_address = from.filled("cluster_address")?;
        read_limits(from, &mut listener)?;
        read_trust(from, &mut listener)?;
        read_nested(from, &mut listener, warnings)?;
        let set = |target: &mut bool, name| from.yes(name).map(|given| *target = given.unwrap_or(*target));
        set(&mut listener.require_request_header, "require_request_header")?;
        set(&mut listener.cors_enabled, "cors_enabled")?;
        set(&mut listener.redact_addresses, "redact_addresses")?;
        set(&mut listener.redact_cluster_name, "redact_cluster_name")?;
        set(&mut listener.redact_version, "redact_version")?;
        set(&mut listener.disable_replication_status_endpoints, "disable_replication_status_endpoints")?;
        set(&mut listener.disable_unauthed_rekey_endpoints, "disable_unauthed_rekey_endpoints")?;
        set(&mut listener.disable_unauthed_generate_root_endpoints, "disable_unauthed_generate_root_endpoints")?;
        listener.cors_allowed_origins = from.texts("cors_allowed_origins")?.unwrap_or_default();
        listener.cors_allowed_headers = from.texts("cors_allowed_headers")?.unwrap_or_default();
        listener.chroot_namespace =
            from.filled("chroot_namespace")?.map(|ns| format!("{}/", ns.trim_matches('/'))).filter(|ns| ns != "/");
        // known, without a meaning here
        from.know(&[
            "purpose",
            "role",
            "max_request_json_memory",
            "max_request_json_strings",
            "disable_request_limiter",
        ]);
        from.finish(warnings);
        Ok(listener)
    }
}

fn with_port(from: &Reader<'_>, address: &str) -> Result<String, ConfigError> {
    if address.contains("{{") {
        return Err(from.refuse(format!("address templates are not supported, write the address itself: {address}")));
    }
    let host_end = address.rfind(']').map_or(0, |at| at + 1);
    let text = match address[host_end..].rfind(':') {
        Some(_) if host_end > 0 || address.matches(':').count() == 1 => address.to_owned(),
        Some(_) => format!("[{address}]:8200"),
        None => format!("{address}:8200"),
    };
    let port = text.rsplit_once(':').map(|(_, port)| port).unwrap_or_default();
    port.parse::<u16>().map_err(|_| from.refuse(format!("address {address:?} has no valid port")))?;
    Ok(text)
}

fn read_tls(from: &Reader<'_>) -> Result<Option<ListenerTls>, ConfigError> {
    let disabled = from.yes("tls_disable")?.unwrap_or(false);
    let (cert, key) = (from.filled("tls_cert_file")?, from.filled("tls_key_file")?);
    let min = from.filled("tls_min_version")?;
    let max = from.filled("tls_max_version")?;
    let cipher_suites = from.texts("tls_cipher_suites")?.unwrap_or_default();
    let client_ca_file = from.filled("tls_client_ca_file")?.map(PathBuf::from);
    let required = from.yes("tls_require_and_verify_client_cert")?.unwrap_or(false);
    let without = from.yes("tls_disable_client_certs")?.unwrap_or(false);
    from.know(&["tls_prefer_server_cipher_suites"]);
    if disabled {
        return Ok(None);
    }
    let version = |text: Option<String>, default| match text.as_deref() {
        None => Ok(default),
        Some("tls10" | "tls11" | "tls12") => Ok(TlsVersion::Tls12),
        Some("tls13") => Ok(TlsVersion::Tls13),
        Some(other) => Err(from.refuse(format!("unknown TLS version {other:?}: use tls12 or tls13"))),
    };
    let (min_version, max_version) = (version(min, TlsVersion::Tls12)?, version(max, TlsVersion::Tls13)?);
    if min_version > max_version {
        return Err(from.refuse("tls_min_version is newer than tls_max_version"));
    }
    let client_certs = match (required, without) {
        (true, true) => {
            return Err(
                from.refuse("tls_require_and_verify_client_cert and tls_disable_client_certs exclude each other")
            );
        }
        (true, false) => ClientCerts::Required,
        (false, true) => ClientCerts::Disabled,
        (false, false) => ClientCerts::Requested,
    };
    let (Some(cert), Some(key)) = (cert, key) else {
        return Err(from.refuse("tls_cert_file and tls_key_file must be set, or tls_disable = true"));
    };
    let (cert_file, key_file) = (cert.into(), key.into());
    Ok(Some(ListenerTls {
        cert_file,
        key_file,
        min_version,
        max_version,
        cipher_suites,
        client_ca_file,
        client_certs,
    }))
}

fn read_limits(from: &Reader<'_>, listener: &mut Listener) -> Result<(), ConfigError> {
    let time = |target: &mut Duration, name| from.time(name).map(|given| *target = given.unwrap_or(*target));
    time(&mut listener.http_idle_timeout, "http_idle_timeout")?;
    time(&mut listener.http_read_header_timeout, "http_read_header_timeout")?;
    time(&mut listener.http_read_timeout, "http_read_timeout")?;
    time(&mut listener.http_write_timeout, "http_write_timeout")?;
    listener.max_request_duration = from.time("max_request_duration")?.filter(|time| !time.is_zero());
    let bytes = from.bytes("max_request_size")?;
    listener.max_request_size_bytes = bytes.filter(|size| *size > 0).unwrap_or(listener.max_request_size_bytes);
    let count =
        |target: &mut u64, name| from.count(name).map(|given| *target = given.filter(|n| *n > 0).unwrap_or(*target));
    count(&mut listener.json.depth, "max_json_depth")?;
    count(&mut listener.json.string_bytes, "max_json_string_value_length")?;
    count(&mut listener.json.object_entries, "max_json_object_entry_count")?;
    count(&mut listener.json.array_elements, "max_json_array_element_count")
}

fn ranges(from: &Reader<'_>, name: &'static str) -> Result<Vec<Cidr>, ConfigError> {
    let texts = from.texts(name)?.unwrap_or_default();
    texts
        .iter()
        .map(|text| Cidr::parse(text).ok_or_else(|| from.refuse(format!("{name}: {text:?} is no address range"))))
        .collect()
}

fn read_trust(from: &Reader<'_>, listener: &mut Listener) -> Result<(), ConfigError> {
    // the name and the words that Vault's proxy has for it
    if let Some(text) = from.filled("when_inconsistent")? {
        listener.forwards_when_inconsistent = match text.as_str() {
            "fail" => false,
            "forward" => true,
            other => return Err(from.refuse(format!("when_inconsistent is {other:?}; use fail or forward"))),
        };
    }
    let authorized = ranges(from, "proxy_protocol_authorized_addrs")?;
    if let Some(text) = from.filled("proxy_protocol_behavior")? {
        let behavior = match text.as_str() {
            "use_always" => ProxyBehavior::UseAlways,
            "allow_authorized" => ProxyBehavior::AllowAuthorized,
            "deny_unauthorized" => ProxyBehavior::DenyUnauthorized,
            other => return Err(from.refuse(format!("unknown proxy_protocol_behavior {other:?}"))),
        };
        if behavior != ProxyBehavior::UseAlways && authorized.is_empty() {
            return Err(from.refuse("proxy_protocol_authorized_addrs must be set for this proxy_protocol_behavior"));
        }
        listener.proxy_protocol = Some(ProxyProtocol { behavior, authorized });
    }
    let authorized = ranges(from, "x_forwarded_for_authorized_addrs")?;
    let forwarded_for = ForwardedFor {
        hop_skips: from.count("x_forwarded_for_hop_skips")?.unwrap_or(0),
        reject_not_authorized: from.yes("x_forwarded_for_reject_not_authorized")?.unwrap_or(true),
        reject_not_present: from.yes("x_forwarded_for_reject_not_present")?.unwrap_or(true),
        client_cert_header: from.filled("x_forwarded_for_client_cert_header")?,
        client_cert_decoders: from.texts("x_forwarded_for_client_cert_header_decoders")?.unwrap_or_default(),
        authorized,
    };
    listener.forwarded_for = (!forwarded_for.authorized.is_empty()).then_some(forwarded_for);
    Ok(())
}

fn read_nested(from: &Reader<'_>, listener: &mut Listener, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for block in from.blocks("telemetry", 0)? {
        let inner = &block.reader;
        listener.metrics = Metrics {
            unauthenticated_access: inner.yes("unauthenticated_metrics_access")?.unwrap_or(false),
            disallowed: inner.yes("disallow_metrics")?.unwrap_or(false),
            only: inner.yes("metrics_only")?.unwrap_or(false),
            path: inner.filled("metrics_path")?,
        };
        inner.finish(warnings);
    }
    for block in from.blocks("profiling", 0)? {
        let inner = &block.reader;
        listener.unauthenticated_pprof_access = inner.yes("unauthenticated_pprof_access")?.unwrap_or(false);
        listener.unauthenticated_in_flight_requests_access |=
            inner.yes("unauthenticated_in_flight_request_access")?.unwrap_or(false);
        inner.finish(warnings);
    }
    for block in from.blocks("inflight_requests_logging", 0)? {
        let inner = &block.reader;
        listener.unauthenticated_in_flight_requests_access |=
            inner.yes("unauthenticated_in_flight_requests_access")?.unwrap_or(false);
        inner.finish(warnings);
    }
    for block in from.blocks("custom_response_headers", 0)? {
        read_headers(&block.reader, &mut listener.custom_response_headers)?;
    }
    Ok(())
}

fn read_headers(
    from: &Reader<'_>,
    all: &mut BTreeMap<String, BTreeMap<String, Vec<String>>>,
) -> Result<(), ConfigError> {
    for item in from.items() {
        let class = item.keys[0].to_ascii_lowercase();
        let digits = class.as_bytes();
        let is_class = digits.len() == 3 && (b'1'..=b'5').contains(&digits[0]) && &digits[1..] == b"xx";
        let is_status = class.parse::<u16>().is_ok_and(|status| (100..600).contains(&status));
        if class != "default" && !is_class && !is_status {
            return Err(from.refuse(format!("{class:?} is no status: use \"default\", \"2xx\" or \"404\"")));
        }
        let bodies: Vec<_> = match &item.value {
            Value::Object(body) => vec![body],
            Value::List(values) => values
                .iter()
                .filter_map(|value| match value {
                    Value::Object(body) => Some(body),
                    _ => None,
                })
                .collect(),
            _ => return Err(from.refuse(format!("{class:?} must hold headers"))),
        };
        let headers = all.entry(class.clone()).or_default();
        for header in bodies.iter().flat_map(|body| &body.items) {
            let name = header.keys[0].clone();
            if name.to_ascii_lowercase().starts_with("x-vault-") {
                return Err(from.refuse(format!("{name}: headers that begin with X-Vault- cannot be set")));
            }
            let values = match &header.value {
                Value::List(values) => values.iter().filter_map(Value::scalar).map(str::to_owned).collect(),
                value => value.scalar().map(|text| vec![text.to_owned()]).unwrap_or_default(),
            };
            headers.insert(name, values);
        }
    }
    Ok(())
}
