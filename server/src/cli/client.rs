//! The HTTP side of the command line: one blocking client of the server's API.
//!
//! Driven by [`super::session::Session`]. It knows requests and replies, retries, the one redirect and the two dry modes; it
//! knows nothing of commands or of how anything is printed, and imports nothing of the server.

use super::dry;
pub use super::request::{Body, CallError, Refused, Reply, Request};
use super::tls::Tls;
use super::unix::UnixConnector;
use serde_json::Value;
use std::io::Read;
use std::time::Duration;
use ureq::http;

/// Largest answer that is read into memory, bytes.
const MAX_REPLY_BYTES: u64 = 256 * 1024 * 1024;

/// Everything that a request needs to know besides itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of every URL, without a trailing slash.
    pub address: String,
    /// The token, or empty.
    pub token: String,
    /// Namespace header, if any; an empty one is sent as such.
    pub namespace: Option<String>,
    /// Wrap every response for so long.
    pub wrap_ttl: Option<String>,
    /// Second-factor headers.
    pub mfa: Vec<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Override soft-mandatory policies.
    pub policy_override: bool,
    /// Follow one redirect.
    pub follow_redirect: bool,
    /// How often a failed request is sent again.
    pub max_retries: u32,
    /// Pause before the first retry; each further one doubles, at most 8 times.
    pub retry_pause: Duration,
    /// Time a request may take, zero for ever.
    pub timeout: Duration,
    /// A proxy to go through.
    pub proxy: Option<String>,
    /// Honour the proxy variables of the environment.
    pub proxy_from_environment: bool,
    /// How servers are verified and what is shown to them.
    pub tls: Tls,
    /// Print instead of sending.
    pub dry: Dry,
    /// Name of the program, for the curl text.
    pub program: &'static str,
}

/// Whether requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dry {
    /// They are.
    No,
    /// A curl command is made instead.
    Curl,
    /// A policy that allows it is made instead.
    Policy,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    /// What it was made with.
    pub settings: Settings,
    agent: ureq::Agent,
    /// Host header when the certificate's name differs from the address.
    host: Option<String>,
}

impl Client {
    /// Prepares a client; opens no connection.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let mut settings = settings;
        if let Some(path) = settings.address.strip_prefix("unix://") {
            let connector = UnixConnector { path: path.into() };
            settings.address = "http://localhost".to_owned();
            let config = base_config(&settings, None).build();
            // nothing is looked up for a file, but the agent asks
            let resolver = Resolver { pinned: Some("127.0.0.1:80".to_owned()) };
            let agent = ureq::Agent::with_parts(config, connector, resolver);
            return Ok(Client { settings, agent, host: None });
        }
        let address = &settings.address;
        let https = address.starts_with("https://");
        if !https && !address.starts_with("http://") {
            return Err(format!("address {address:?} must begin with http://, https:// or unix://"));
        }
        let uri: http::Uri = address.parse().map_err(|error| format!("address {address:?}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("address {address:?} has no host"))?.to_string();
        let proxy = match (&settings.proxy, settings.proxy_from_environment) {
            (Some(proxy), _) => Some(ureq::Proxy::new(proxy).map_err(|error| format!("proxy {proxy:?}: {error}"))?),
            (None, true) => ureq::Proxy::try_from_env(),
            (None, false) => None,
        };
        let mut config = base_config(&settings, proxy);
        if https {
            config = config.tls_config(settings.tls.config()?);
        }
        let pinned = settings.tls.server_name.is_some() && https;
        let resolver = Resolver { pinned: pinned.then(|| with_port(&authority, https)) };
        let connector = ureq::unversioned::transport::DefaultConnector::default();
        let agent = ureq::Agent::with_parts(config.build(), connector, resolver);
        Ok(Client { settings, agent, host: pinned.then_some(authority) })
    }

    /// The URL of a request, as errors and curl commands show it.
    pub fn url(&self, request: &Request) -> String {
        let mut url = format!("{}/v1/{}", self.settings.address, encode_path(request.path.trim_start_matches('/')));
        for (i, (key, value)) in request.query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(&encode_query(key));
            url.push('=');
            url.push_str(&encode_query(value));
        }
        url
    }

    /// The headers of a request, in a fixed order.
    pub fn headers(&self, request: &Request) -> Vec<(String, String)> {
        let settings = &self.settings;
        let mut headers = Vec::new();
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        let token = request.token.as_deref().unwrap_or(&settings.token);
        if !token.is_empty() {
            add("X-Vault-Token", token);
        }
        add("X-Vault-Request", "true");
        if let Some(namespace) = settings.namespace.as_deref().filter(|_| !request.root_namespace) {
            add("X-Vault-Namespace", namespace);
        }
        if let Some(ttl) = settings.wrap_ttl.as_deref().filter(|_| request.wrap) {
            add("X-Vault-Wrap-TTL", ttl);
        } else if request.wrap && request.path == "sys/wrapping/wrap" {
            // the endpoint demands wrapping; upstream's client asks for five minutes when told nothing
            add("X-Vault-Wrap-TTL", "5m");
        }
        for mfa in &settings.mfa {
            add("X-Vault-MFA", mfa);
        }
        if settings.policy_override {
            add("X-Vault-Policy-Override", "true");
        }
        if matches!(request.body, Body::Merge(_)) {
            add("Content-Type", "application/merge-patch+json");
        }
        for (name, value) in &settings.headers {
            add(name, value);
        }
        headers
    }

    /// Sends a request and reads the whole answer. A status outside 2xx is an error that carries the answer.
    pub fn call(&self, request: &Request) -> Result<Reply, CallError> {
        let url = self.url(request);
        let body = body_bytes(&request.body);
        if request.dry {
            match self.settings.dry {
                Dry::No => {}
                Dry::Curl => return Err(CallError::Dry(dry::curl(self, request, &url, body.as_deref()))),
                Dry::Policy => return Err(CallError::Dry(dry::policy(request))),
            }
        }
        let mut attempt = 0;
        loop {
            let outcome = self.once(request, &url, |builder| match &body {
                Some(bytes) => builder.body(ureq::SendBody::from_owned_reader(std::io::Cursor::new(bytes.clone()))),
                None => builder.body(ureq::SendBody::none()),
            });
            let again = match &outcome {
                Ok(_) => false,
                Err(error) => worth_retrying(error),
            };
            if !again || attempt >= self.settings.max_retries {
                return outcome;
            }
            std::thread::sleep(self.settings.retry_pause * (1 << attempt.min(3)));
            attempt += 1;
        }
    }

    /// Sends a stream. Never sent twice: the stream is gone after the first try.
    pub fn upload(&self, request: &Request, file: std::fs::File) -> Result<Reply, CallError> {
        let url = self.url(request);
        let length = file.metadata().map(|meta| meta.len()).unwrap_or_default();
        self.once(request, &url, |builder| {
            builder.header("Content-Length", length.to_string()).body(ureq::SendBody::from_owned_reader(file))
        })
    }

    /// Sends a request and hands the answer's body to `sink` as it arrives.
    pub fn download(&self, request: &Request, sink: &mut dyn std::io::Write) -> Result<u64, CallError> {
        let url = self.url(request);
        let response = self.send(request, &url, |builder| builder.body(ureq::SendBody::none()))?;
        let (response, url) = self.redirected(request, response, url)?;
        let status = response.status().as_u16();
        if !(200..300).contains(&status) {
            return Err(refusal(request, &url, status, namespace_of(&response), read_body(response, &url, request)?));
        }
        let failed = |error: std::io::Error| CallError::Failed(format!("{} {url:?}: {error}", title(request.method)));
        let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        std::io::copy(&mut reader, sink).map_err(failed)
    }

    fn once(
        &self,
        request: &Request,
        url: &str,
        body: impl FnOnce(http::request::Builder) -> http::Result<http::Request<ureq::SendBody<'static>>>,
    ) -> Result<Reply, CallError> {
        let response = self.send(request, url, body)?;
        let (response, url) = self.redirected(request, response, url.to_owned())?;
        let status = response.status().as_u16();
        let namespace = namespace_of(&response);
        let body = read_body(response, &url, request)?;
        if (200..300).contains(&status) {
            return Ok(Reply { status, body });
        }
        Err(refusal(request, &url, status, namespace, body))
    }

    fn send(
        &self,
        request: &Request,
        url: &str,
        body: impl FnOnce(http::request::Builder) -> http::Result<http::Request<ureq::SendBody<'static>>>,
    ) -> Result<http::Response<ureq::Body>, CallError> {
        let mut builder = http::Request::builder().method(request.method).uri(self.target(url));
        for (name, value) in self.headers(request) {
            builder = builder.header(name, value);
        }
        if matches!(request.body, Body::Json(_)) {
            builder = builder.header("Content-Type", "application/json");
        }
        if let Some(bytes) = body_bytes(&request.body) {
            builder = builder.header("Content-Length", bytes.len().to_string());
        }
        if let Some(host) = &self.host {
            builder = builder.header("Host", host);
        }
        let failed = |error: String| CallError::Failed(format!("{} {url:?}: {error}", title(request.method)));
        let request = body(builder).map_err(|error| failed(error.to_string()))?;
        self.agent.run(request).map_err(|error| failed(cause(&error)))
    }

    /// Follows one redirect, with the same method and body, as standbys answer.
    fn redirected(
        &self,
        request: &Request,
        response: http::Response<ureq::Body>,
        url: String,
    ) -> Result<(http::Response<ureq::Body>, String), CallError> {
        if !self.settings.follow_redirect || !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
            return Ok((response, url));
        }
        let Some(location) = response.headers().get("location").and_then(|value| value.to_str().ok()) else {
            return Ok((response, url));
        };
        let target = if location.starts_with('/') {
            let authority_end = url.find("://").map_or(0, |at| at + 3);
            let root = url[authority_end..].find('/').map_or(url.len(), |at| authority_end + at);
            format!("{}{location}", &url[..root])
        } else {
            location.to_owned()
        };
        if url.starts_with("https://") && !target.starts_with("https://") {
            return Err(CallError::Failed("redirect would cause protocol downgrade".to_owned()));
        }
        let again = self.send(request, &target, |builder| match body_bytes(&request.body) {
            Some(bytes) => builder.body(ureq::SendBody::from_owned_reader(std::io::Cursor::new(bytes))),
            None => builder.body(ureq::SendBody::none()),
        })?;
        Ok((again, target))
    }

    /// The URL that is really asked for: with the certificate's name in place of the host, if one is set.
    fn target(&self, url: &str) -> String {
        match (&self.host, &self.settings.tls.server_name) {
            (Some(host), Some(name)) => {
                let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
                let shown = port.map_or(name.clone(), |port| format!("{name}:{port}"));
                url.replacen(host, &shown, 1)
            }
            _ => url.to_owned(),
        }
    }
}

fn base_config(
    settings: &Settings,
    proxy: Option<ureq::Proxy>,
) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .timeout_global((!settings.timeout.is_zero()).then_some(settings.timeout))
        .proxy(proxy)
        .accept_encoding("identity")
        .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")))
}

fn body_bytes(body: &Body) -> Option<Vec<u8>> {
    match body {
        Body::None => None,
        Body::Json(value) | Body::Merge(value) => Some(value.to_string().into_bytes()),
    }
}

fn namespace_of(response: &http::Response<ureq::Body>) -> String {
    response.headers().get("x-vault-namespace").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn read_body(response: http::Response<ureq::Body>, url: &str, request: &Request) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_with_config().limit(MAX_REPLY_BYTES).reader();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(CallError::Failed(format!("{} {url:?}: {error}", title(request.method)))),
    }
}

fn refusal(request: &Request, url: &str, status: u16, namespace: String, body: Vec<u8>) -> CallError {
    let parsed = serde_json::from_slice::<Value>(&body).ok();
    let raw = parsed.is_none() && !body.is_empty();
    let errors = match &parsed {
        Some(value) => value["errors"]
            .as_array()
            .map(|errors| errors.iter().map(|error| error.as_str().unwrap_or_default().to_owned()).collect())
            .unwrap_or_default(),
        None if raw => vec![String::from_utf8_lossy(&body).into_owned()],
        None => Vec::new(),
    };
    let (method, url) = (request.method.to_owned(), url.to_owned());
    CallError::Refused(Box::new(Refused { method, url, status, namespace, errors, raw, body }))
}

fn worth_retrying(error: &CallError) -> bool {
    match error {
        CallError::Refused(refused) => matches!(refused.status, 412 | 429 | 500..=599) && refused.status != 501,
        CallError::Failed(_) => true,
        CallError::Dry(_) => false,
    }
}

/// `PUT` as Go's client writes it in errors of the connection: `Put`.
fn title(method: &str) -> String {
    method[..1].to_owned() + &method[1..].to_lowercase()
}

fn cause(error: &ureq::Error) -> String {
    match error {
        // the words scripts look for, which are those of Go's client
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connect: connection refused".to_owned()
        }
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "timed out: the server did not answer in time".to_owned(),
        other => other.to_string(),
    }
}

fn with_port(authority: &str, https: bool) -> String {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    if authority[host_end..].contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:{}", if https { 443 } else { 80 })
    }
}

/// Percent-encodes a path as Go's URL does, so that names with spaces and percent signs arrive as they were typed.
pub fn encode_path(path: &str) -> String {
    encode(path, b"/$&+,:;=@!'()*-._~")
}

fn encode_query(text: &str) -> String {
    encode(text, b"-._~")
}

fn encode(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Looks names up on the calling thread, and sends every name to one address when a server name is pinned.
#[derive(Debug)]
struct Resolver {
    pinned: Option<String>,
}

impl ureq::unversioned::resolver::Resolver for Resolver {
    fn resolve(
        &self,
        uri: &http::Uri,
        _config: &ureq::config::Config,
        _timeout: ureq::unversioned::transport::NextTimeout,
    ) -> Result<ureq::unversioned::resolver::ResolvedSocketAddrs, ureq::Error> {
        use std::net::ToSocketAddrs;
        let authority = match &self.pinned {
            Some(pinned) => pinned.clone(),
            None => with_port(
                uri.authority().ok_or(ureq::Error::HostNotFound)?.as_str(),
                uri.scheme() == Some(&http::uri::Scheme::HTTPS),
            ),
        };
        // user and password, if any, are no part of the name
        let name = authority.rsplit_once('@').map_or(authority.as_str(), |(_, name)| name);
        let mut found = self.empty();
        for address in name.to_socket_addrs()?.take(16) {
            found.push(address);
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}
