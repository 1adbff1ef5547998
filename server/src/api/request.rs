//! From HTTP to a [`Call`]: method, path, headers and body become typed once, here. Everything is bounded before any
//! of it is authenticated or audited. Source: the API reference, files on routing, headers, verbs.

use super::answer::AnswerHeaders;
use super::json::{self, JsonLimits};
use super::query;
use crate::config::listener::{ForwardedFor, ProxyProtocol};
use base64::Engine as _;
use http::{HeaderMap, Method, Uri};
use ringfence_base::{CanonPath, Entropy, PathError, Secret, duration, entropy, limit};
use ringfence_node::{Call, Code, ControlCall, Cors, Error, Headers, Map, Operation, Parameters};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a listener says of its requests.
#[derive(Debug)]
pub struct Rules {
    /// Largest body, bytes.
    pub max_request_bytes: usize,
    /// Bounds of JSON bodies.
    pub json: JsonLimits,
    /// `X-Vault-Request` is demanded.
    pub require_request_header: bool,
    /// Paths may hold characters that do not print.
    pub disable_printable_check: bool,
    /// Whose `X-Forwarded-For` is believed; `None` leaves the header alone.
    pub forwarded_for: Option<ForwardedFor>,
    /// Connections begin with a header of the PROXY protocol, and whose is believed.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The namespace, ending in a slash, that requests here are made in or below; empty for all of them.
    pub chroot: String,
    /// What this listener leaves out of status answers.
    pub redact: Redact,
    /// A call that demands a later position than the node has goes to the active node, unless it says otherwise itself.
    pub forwards_when_inconsistent: bool,
    /// Nothing but `sys/metrics` is served here.
    pub metrics_only: bool,
    /// `sys/metrics` is not served here.
    pub closed_metrics: bool,
    /// A further path of the measurements, from the server's root.
    pub metrics_path: Option<String>,
    /// `sys/metrics` is answered without a token.
    pub open_metrics: bool,
    /// `sys/in-flight-req` is answered without a token.
    pub open_in_flight: bool,
    /// `sys/rekey` is not served here.
    pub closed_rekey: bool,
    /// `sys/generate-root` is not served here.
    pub closed_generate_root: bool,
    /// Replication's status is not served here.
    pub closed_replication_status: bool,
    /// Cross-origin settings of this listener, instead of the server's.
    pub cors: Option<Cors>,
    /// A head must arrive within this; zero is for ever, as in the next three.
    pub head_timeout: Duration,
    /// A body must.
    pub body_timeout: Duration,
    /// An answer must be made and taken within.
    pub write_timeout: Duration,
    /// A connection without a request is kept so long.
    pub idle_timeout: Duration,
    /// A call may take so long.
    pub call_timeout: Duration,
    /// Headers of the operator's on every response.
    pub answer_headers: AnswerHeaders,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            max_request_bytes: limit::MAX_REQUEST_BYTES,
            json: JsonLimits::default(),
            require_request_header: false,
            disable_printable_check: false,
            forwarded_for: None,
            proxy_protocol: None,
            chroot: String::new(),
            redact: Redact::default(),
            forwards_when_inconsistent: false,
            metrics_only: false,
            closed_metrics: false,
            metrics_path: None,
            open_metrics: false,
            open_in_flight: false,
            closed_rekey: false,
            closed_generate_root: false,
            closed_replication_status: false,
            cors: None,
            write_timeout: Duration::ZERO,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            call_timeout: Duration::from_secs(90),
            answer_headers: AnswerHeaders::default(),
        }
    }
}

impl Rules {
    /// Whether the listener's configuration keeps a path from being served here.
    pub fn closes(&self, call: &Call) -> bool {
        let is_metrics = call.path == "sys/metrics";
        if self.metrics_only && !is_metrics || self.closed_metrics && is_metrics {
            return true;
        }
        let Some(path) = call.path.strip_prefix("sys/") else { return false };
        // keys and cores are everybody's: of what belongs to no namespace, a tenant's listener shows the status only
        let status = ["health", "seal-status", "leader", "init"];
        if !self.chroot.is_empty()
            && (!status.contains(&path) || call.op == Operation::Update)
            && ControlCall::of(call).is_some()
        {
            return true;
        }
        // what stands under a policy (the backups of a rekey) is not meant
        let rekey = ["rekey/init", "rekey/update", "rekey/verify", "rekey-recovery-key/"];
        self.closed_rekey && rekey.iter().any(|p| path.starts_with(p))
            || self.closed_generate_root && (path == "generate-root" || path.starts_with("generate-root/"))
            || self.closed_replication_status && path.starts_with("replication/") && path.ends_with("/status")
            || self.closed_replication_status && path == "replication/status"
    }
}

/// What a listener leaves out of the answers that nobody needs a token for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// Addresses of nodes.
    pub addresses: bool,
    /// The cluster's name.
    pub cluster_name: bool,
    /// Versions and build dates.
    pub version: bool,
}

impl Redact {
    /// The members to empty in the answer of a call.
    pub fn of(self, call: &Call) -> &'static [&'static str] {
        match (call.path.as_str(), self.addresses, self.cluster_name, self.version) {
            ("sys/leader", true, ..) => &["leader_address", "leader_cluster_address"],
            ("sys/health" | "sys/seal-status", _, true, true) => &["cluster_name", "version", "build_date"],
            ("sys/health" | "sys/seal-status", _, true, false) => &["cluster_name"],
            ("sys/health" | "sys/seal-status", _, false, true) => &["version", "build_date"],
            _ => &[],
        }
    }
}

/// Where a request came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Address of the client.
    pub remote: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Its certificates, DER, leaf first.
    pub certificates: Arc<Vec<Vec<u8>>>,
}

/// The head of a request, understood; what is left is to read the body if there is one to be read.
pub struct Head {
    call: Call,
    body: Wanted,
    form: bool,
}

/// What to do with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Ignore,
    /// JSON or a form.
    Data,
    /// The bytes as they are, without the size limit of requests (snapshots have their own).
    Raw,
    /// Bytes that an engine reads: its field `body`, in base64.
    Binary,
}

/// Types of bodies that are neither JSON nor a form.
const BINARY_TYPES: &[&str] = &["application/ocsp-request"];

/// Paths whose POST body is a stream of bytes.
const RAW_BODIES: &[&str] = &["sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force"];

impl Head {
    /// Understands method, path and headers.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn parse(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        origin: &Origin,
        rules: &Rules,
        rng: &mut dyn Entropy,
    ) -> Result<Head, Error> {
        let path = canonical_path(uri.path(), rules)?;
        let mut seen = Seen::of(headers);
        if rules.require_request_header && seen.request != Some("true") {
            return Err(Error::new(Code::Precondition, "missing 'X-Vault-Request' header"));
        }
        let mut data = Map::new();
        let mut wants_list = method.as_str() == "LIST";
        let mut wants_scan = method.as_str() == "SCAN";
        let mut help = method.as_str() == "HELP";
        if let Some(q) = uri.query() {
            let mut parsed = query::data(q);
            if parsed.remove("help").is_some_and(|v| v != "") {
                help = true;
            }
            if *method == Method::GET {
                wants_list |= flag(&mut parsed, "list")?;
                wants_scan |= flag(&mut parsed, "scan")?;
                if wants_list && wants_scan {
                    return Err(Error::bare(Code::Invalid));
                }
            }
            if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                data = parsed;
            }
        }
        let (op, mut body) = match method.as_str() {
            _ if help => (Operation::Help, Wanted::Ignore),
            "GET" | "LIST" | "SCAN" if wants_scan => (Operation::Scan, Wanted::Ignore),
            "GET" | "LIST" if wants_list => (Operation::List, Wanted::Ignore),
            "GET" => (Operation::Read, Wanted::Ignore),
            "POST" | "PUT" => (Operation::Update, Wanted::Data),
            "PATCH" => (Operation::Patch, Wanted::Data),
            "DELETE" => (Operation::Delete, Wanted::Ignore),
            "HEAD" if path.as_str() == "sys/health" => (Operation::Header, Wanted::Ignore),
            // ACME clients fetch a nonce by HEAD (RFC 8555 7.2)
            "HEAD" if path.as_str().ends_with("/acme/new-nonce") => (Operation::Read, Wanted::Ignore),
            _ => return Err(Error::bare(Code::Unsupported)),
        };
        let path = match op {
            Operation::List | Operation::Scan => path.into_dir().into_string(),
            _ => path.into_string(),
        };
        if op == Operation::Update && RAW_BODIES.contains(&path.as_str()) {
            body = Wanted::Raw;
        }
        let content_type = seen.content_type.unwrap_or("");
        if op == Operation::Patch {
            check_patch_type(content_type)?;
        }
        if body == Wanted::Data && BINARY_TYPES.contains(&content_type) {
            body = Wanted::Binary;
        }
        seen.must_be_text()?;
        let token = seen.token()?;
        let (wrap_ttl, wrap_jwt) = seen.wrapping()?;
        if rules.forwards_when_inconsistent && !seen.rest.mention("x-vault-inconsistent:") {
            seen.rest.push("x-vault-inconsistent", "forward-active-node");
        }
        let call = Call {
            id: entropy::uuid4(rng),
            op,
            path,
            namespace: within(&rules.chroot, seen.namespace),
            token,
            data: data.into(),
            no_body: true,
            remote: origin.remote,
            remote_port: origin.port,
            wrap_ttl,
            wrap_jwt,
            headers: std::mem::take(&mut seen.rest),
            raw_body: None,
            peer_certificates: origin.certificates.clone(),
            mfa: std::mem::take(&mut seen.mfa),
        };
        let form = content_type.split(';').next().is_some_and(|t| t.trim() == "application/x-www-form-urlencoded");
        Ok(Head { call, body, form })
    }

    /// What to do with the body.
    pub fn body(&self) -> Wanted {
        self.body
    }

    /// The call as far as the head tells it.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Takes the body and yields the call.
    ///
    /// # Errors
    /// What the client is to be told of its body.
    pub fn with_body(mut self, body: Vec<u8>, rules: &Rules) -> Result<Call, Error> {
        match self.body {
            Wanted::Ignore => {}
            Wanted::Raw => {
                self.call.no_body = body.is_empty();
                self.call.raw_body = Some(Arc::new(body));
            }
            Wanted::Binary => {
                self.call.no_body = body.is_empty();
                let text = base64::engine::general_purpose::STANDARD.encode(&body);
                self.call.data = Map::from_iter([("body".to_owned(), text.into())]).into();
            }
            Wanted::Data => {
                let first = body.iter().find(|b| !b.is_ascii_whitespace());
                let parsed = if self.form && !matches!(first, Some(b'{' | b'[') | None) {
                    Some(json::form(&body)).filter(|m| !m.is_empty()).map(Parameters::from)
                } else {
                    json::object(body, &rules.json).map_err(|r| Error::invalid(r.0))?
                };
                self.call.no_body = parsed.is_none();
                self.call.data = parsed.unwrap_or_default();
            }
        }
        Ok(self.call)
    }

    /// Yields the call of a request without a body.
    pub fn without_body(self) -> Call {
        self.call
    }
}

/// The namespace that a request asks for, below the one that its listener is bound to.
fn within(chroot: &str, asked: Option<&str>) -> Option<String> {
    match asked {
        _ if chroot.is_empty() => asked.map(str::to_owned),
        None => Some(chroot.to_owned()),
        Some(below) => Some(format!("{chroot}{}", below.trim_start_matches('/'))),
    }
}

fn canonical_path(raw: &str, rules: &Rules) -> Result<CanonPath, Error> {
    if rules.metrics_path.as_deref() == Some(raw) {
        return CanonPath::parse("sys/metrics").map_err(|_| Error::bare(Code::Invalid));
    }
    if let Some(inner) = raw.strip_prefix("/v1/")
        && raw.len() <= limit::MAX_PATH_BYTES
        && !inner.starts_with('/')
        && !inner.contains('%')
        && let Ok(path) = CanonPath::parse(inner)
    {
        // nearly all: nothing to decode, and what stands before it is canonical
        return Ok(path);
    }
    let Some(decoded) = query::decode_path(raw) else { return Err(Error::bare(Code::Invalid)) };
    let parsed = match CanonPath::parse(&decoded) {
        Err(PathError::NotPrintable) if rules.disable_printable_check => {
            // the operator allows it; everything else of the canonical form still holds
            let printable: String = decoded.chars().filter(|c| !c.is_control()).collect();
            CanonPath::parse(&printable)
        }
        other => other,
    };
    let path = match parsed {
        Ok(p) => p,
        Err(PathError::Relative) => return Err(Error::invalid("relative paths not supported")),
        Err(PathError::NotPrintable) => return Err(Error::bare(Code::Invalid)),
        Err(PathError::TooLong) => return Err(Error::invalid("path is too long")),
    };
    match path.as_str().strip_prefix("v1/") {
        Some(inner) => CanonPath::parse(inner).map_err(|_| Error::bare(Code::Invalid)),
        None => Err(Error::not_found()),
    }
}

fn flag(data: &mut Map, name: &str) -> Result<bool, Error> {
    match data.remove(name) {
        None => Ok(false),
        Some(serde_json::Value::String(s)) if !s.is_empty() => {
            ringfence_node::parse_bool(&s).ok_or_else(|| Error::bare(Code::Invalid))
        }
        Some(_) => Err(Error::bare(Code::Invalid)),
    }
}

/// What the headers say, from one walk over them: each look-up by name would hash anew. The first of a name counts.
#[derive(Default)]
struct Seen<'h> {
    token: Option<&'h str>,
    bearer: Option<&'h str>,
    namespace: Option<&'h str>,
    request: Option<&'h str>,
    wrap_ttl: Option<&'h str>,
    wrap_format: Option<&'h str>,
    content_type: Option<&'h str>,
    mfa: Vec<String>,
    /// Headers that audit or an engine may ask for; those that the machine reads itself are left out.
    rest: Headers,
    /// Places in [`MUST_BE_TEXT`] of headers that are none.
    no_text: u8,
}

/// A header that changes what a request means must be text: read as absent, it would mean something else.
const MUST_BE_TEXT: [&str; 5] =
    ["x-vault-namespace", "x-vault-wrap-ttl", "x-vault-wrap-format", "x-vault-token", "x-vault-index"];

impl<'h> Seen<'h> {
    fn of(headers: &'h HeaderMap) -> Seen<'h> {
        // most requests carry few and short ones: one allocation serves them
        let mut seen = Seen { rest: Headers::with_capacity(256), ..Seen::default() };
        let mut before = "";
        for (name, value) in headers {
            let name = name.as_str();
            // values of one name come one after another
            let is_first = name != before;
            before = name;
            let Ok(text) = value.to_str() else {
                if is_first && let Some(at) = MUST_BE_TEXT.iter().position(|n| *n == name) {
                    seen.no_text |= 1 << at;
                }
                continue;
            };
            let place = match name {
                "host" | "connection" | "content-length" | "accept-encoding" => continue,
                "x-vault-token" => {
                    if is_first {
                        seen.token = Some(text);
                    }
                    continue;
                }
                "authorization" => {
                    if let Some(bearer) = text.strip_prefix("Bearer ") {
                        let first = Some(bearer.trim()).filter(|t| !t.is_empty());
                        seen.bearer = seen.bearer.or(first);
                        continue;
                    }
                    None
                }
                "x-vault-mfa" => {
                    seen.mfa.push(text.to_owned());
                    None
                }
                "x-vault-namespace" => Some(&mut seen.namespace),
                "x-vault-request" => Some(&mut seen.request),
                "x-vault-wrap-ttl" => Some(&mut seen.wrap_ttl),
                "x-vault-wrap-format" => Some(&mut seen.wrap_format),
                "content-type" => Some(&mut seen.content_type),
                _ => None,
            };
            if let Some(place) = place.filter(|_| is_first) {
                *place = Some(text);
            }
            seen.rest.push(name, text);
        }
        seen
    }

    fn must_be_text(&self) -> Result<(), Error> {
        match MUST_BE_TEXT.get(self.no_text.trailing_zeros() as usize) {
            None => Ok(()),
            Some(name) => Err(Error::invalid(format!("header {name} holds characters that do not print"))),
        }
    }

    fn token(&self) -> Result<Option<Secret<String>>, Error> {
        match self.token.filter(|t| !t.is_empty()).or(self.bearer) {
            Some(t) if t.len() > limit::MAX_TOKEN_BYTES => Err(Error::denied_plain()),
            other => Ok(other.map(|t| Secret::new(t.to_owned()))),
        }
    }

    /// Seconds, rounded up, and whether a JWT is wanted.
    fn wrapping(&self) -> Result<(u64, bool), Error> {
        let jwt = self.wrap_format == Some("jwt");
        let Some(text) = self.wrap_ttl.filter(|t| !t.is_empty()) else { return Ok((0, jwt)) };
        match duration::parse_ns(text) {
            None => {
                Err(Error::invalid(format!("error parsing X-Vault-Wrap-TTL header: time: invalid duration {text:?}")))
            }
            Some(ns) if ns < 0 => Err(Error::invalid("requested wrap ttl cannot be negative")),
            // rounded up: who asks for less than a second asks for wrapping all the same
            Some(ns) => Ok(((ns as u128).div_ceil(duration::SECOND_NS as u128) as u64, jwt)),
        }
    }
}

fn check_patch_type(content_type: &str) -> Result<(), Error> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    if kind.is_empty() {
        return Err(Error::invalid("mime: no media type"));
    }
    if kind != "application/merge-patch+json" {
        return Err(Error::new(
            Code::MediaType,
            format!("PATCH requires Content-Type of application/merge-patch+json, provided {kind}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    fn head(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Result<Head, Error> {
        let method = Method::from_bytes(method.as_bytes()).expect("method");
        let mut map = HeaderMap::new();
        for (k, v) in headers {
            map.append(*k, v.parse().expect("value"));
        }
        let origin = Origin::default();
        Head::parse(&method, &uri.parse().expect("uri"), &map, &origin, &Rules::default(), &mut SeededEntropy(1))
    }

    fn call(method: &str, uri: &str) -> Call {
        head(method, uri, &[]).map(Head::without_body).expect("accepted")
    }

    #[test]
    fn verbs() {
        assert_eq!(call("GET", "/v1/secret/a").op, Operation::Read);
        assert_eq!(call("GET", "/v1/secret/a?list=true").op, Operation::List);
        assert_eq!(call("GET", "/v1/secret/a?list=true").path, "secret/a/");
        assert_eq!(call("LIST", "/v1/secret/a").path, "secret/a/");
        assert_eq!(call("SCAN", "/v1/secret/a").op, Operation::Scan);
        assert_eq!(call("GET", "/v1/x?help=1").op, Operation::Help);
        assert_eq!(call("DELETE", "/v1/x?versions=1&versions=2").data["versions"], serde_json::json!(["1", "2"]));
        assert_eq!(head("TRACE", "/v1/x", &[]).err().map(|e| e.code), Some(Code::Unsupported));
        assert_eq!(head("HEAD", "/v1/secret/x", &[]).err().map(|e| e.code), Some(Code::Unsupported));
        assert_eq!(call("HEAD", "/v1/sys/health").op, Operation::Header);
        assert_eq!(head("GET", "/v1/x?list=maybe", &[]).err().map(|e| e.code), Some(Code::Invalid));
    }

    #[test]
    fn paths() {
        assert_eq!(call("GET", "/v1//secret//a%20b").path, "secret/a b");
        assert_eq!(head("GET", "/v2/x", &[]).err().map(|e| e.code), Some(Code::NotFound));
        assert_eq!(head("GET", "/", &[]).err().map(|e| e.code), Some(Code::NotFound));
        let e = head("GET", "/v1/a/%2e%2e/b", &[]).err().expect("refused");
        assert_eq!(e.errors, ["relative paths not supported"]);
        assert_eq!(head("GET", "/v1/a%00b", &[]).err().map(|e| e.code), Some(Code::Invalid));
    }

    /// CVE-2026-4525: a mount that is handed the `Authorization` header was handed the caller's token with it.
    #[test]
    fn cve_2026_4525_no_header_that_is_handed_on_holds_the_token() {
        for headers in [
            &[("authorization", "Bearer abc")][..],
            &[("x-vault-token", "abc"), ("authorization", "Bearer abc")],
            &[("x-vault-token", "abc"), ("x-vault-token", "abc")],
            &[("authorization", "Bearer x"), ("authorization", "Bearer abc")],
            &[("authorization", "Bearer  abc  ")],
        ] {
            let c = head("GET", "/v1/x", headers).map(Head::without_body).expect("accepted");
            assert!(c.token.is_some());
            assert!(c.headers.iter().all(|(_, value)| !value.contains("abc")), "{headers:?}");
        }
        // what is no token of ours is the mount's affair
        let c = head("GET", "/v1/x", &[("authorization", "Basic abc")]).map(Head::without_body).expect("accepted");
        assert!(c.token.is_none() && c.headers.iter().any(|(name, _)| name == "authorization"));
    }

    #[test]
    fn headers_become_typed() {
        let c = head("GET", "/v1/x", &[("authorization", "Bearer  abc "), ("x-vault-wrap-ttl", "5m"), ("x-a", "b")])
            .map(Head::without_body)
            .expect("accepted");
        assert_eq!(c.token.as_ref().map(|t| t.expose().as_str()), Some("abc"));
        assert_eq!(c.wrap_ttl, 300);
        assert_eq!(
            c.headers.iter().collect::<Vec<_>>(),
            [("x-wrap", "x")][..0]
                .to_vec()
                .into_iter()
                .chain([("x-vault-wrap-ttl", "5m"), ("x-a", "b")])
                .collect::<Vec<_>>()
        );
        for bad in ["soon", "-5"] {
            assert_eq!(head("GET", "/v1/x", &[("x-vault-wrap-ttl", bad)]).err().map(|e| e.code), Some(Code::Invalid));
        }
        assert_eq!(
            head("PATCH", "/v1/x", &[("content-type", "application/json")]).err().map(|e| e.code),
            Some(Code::MediaType)
        );
        assert_eq!(head("PATCH", "/v1/x", &[]).err().map(|e| e.code), Some(Code::Invalid));
    }

    #[test]
    fn bodies() {
        let rules = Rules::default();
        let post =
            || head("POST", "/v1/x", &[("content-type", "application/x-www-form-urlencoded")]).expect("accepted");
        assert_eq!(post().with_body(b"{\"a\":1}".to_vec(), &rules).expect("json").data["a"], 1);
        assert_eq!(post().with_body(b"a=1".to_vec(), &rules).expect("form").data["a"], "1");
        assert!(post().with_body(b"null".to_vec(), &rules).expect("null").no_body);
        assert!(head("POST", "/v1/x", &[]).expect("ok").with_body(b"[1]".to_vec(), &rules).is_err());
        let raw = head("POST", "/v1/sys/storage/raft/snapshot", &[]).expect("ok");
        assert_eq!(raw.body(), Wanted::Raw);
    }
}
