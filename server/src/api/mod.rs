//! HTTP: from bytes to a call and from a reply to bytes. Thin on purpose: everything that has meaning is behind
//! [`Core::call`].

pub mod answer;
mod cors;
pub mod error;
mod forwarded;
pub mod held;
pub mod json;
pub mod listen;
mod patience;
mod payload;
mod proxied;
pub mod query;
pub mod request;

use crate::rt;
use crate::shard::Core;
use crate::telemetry::metrics::{CoreMetrics, PROMETHEUS_CONTENT_TYPE, Sample};
use crate::telemetry::{self, Format, Level};
use bytes::Bytes;
use cors::Verdict;
use held::Held;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use payload::Payload;
use request::{Head, Origin, Rules, Wanted};
use ringfence_node::{Body, Call, Code, Error, Operation, Raw, Reply, SideResult};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Largest snapshot that may be uploaded, bytes.
const MAX_RAW_BYTES: usize = 4 << 30;

/// Serves one request.
pub async fn serve(core: &Rc<Core>, rules: &Rules, origin: &Origin, request: Request<Incoming>) -> Response<Payload> {
    let begun = rt::now();
    let mut whole = begun;
    let _in_flight = InFlight::of(core);
    let (parts, body) = request.into_parts();
    let namespace = parts.headers.get(NAMESPACE).cloned();
    let (method, path) = (&parts.method, &parts.uri);
    let settings = || rules.cors.clone().or_else(|| core.cors());
    let (page, refusal) = match cors::judge(&parts.method, &parts.headers, settings) {
        Verdict::None => (None, None),
        Verdict::Allow(page) => (Some(page), None),
        Verdict::Refuse(e) => (None, Some(e)),
        Verdict::Answer(answer) => return *answer,
    };
    let seen = match &rules.forwarded_for {
        None => Ok(None),
        Some(trust) => forwarded::origin(trust, origin, &parts.headers).map(Some),
    };
    let head = refusal.map_or(seen, Err).and_then(|seen| {
        let origin = seen.as_ref().unwrap_or(origin);
        core.with_rng(|rng| Head::parse(&parts.method, &parts.uri, &parts.headers, origin, rules, rng))
    });
    let mut held = Held::default();
    let redacted = head.as_ref().map(|h| rules.redact.of(h.call())).unwrap_or_default();
    let call = match head {
        Err(e) => Err(e),
        Ok(h) if h.body() == Wanted::Ignore => Ok(h.without_body()),
        // gigabytes are taken from those only who may bring them; others are refused like any call, without a body
        Ok(h) if h.body() == Wanted::Raw && !core.would_admit(h.call()) => Ok(h.without_body()),
        Ok(h) if core.is_over_limit(h.call()) => Ok(h.without_body()),
        Ok(h) => {
            let (limit, held) = match h.body() {
                Wanted::Raw => (MAX_RAW_BYTES, None),
                _ => (rules.max_request_bytes, Some(&mut held)),
            };
            let coming = listed(core, h.call(), within(rules.body_timeout, collect(body, limit, held)));
            let collected = coming.await;
            whole = rt::now();
            match collected {
                Ok(Ok(bytes)) => h.with_body(bytes, rules),
                Ok(Err(e)) => Err(e),
                Err(_) => Err(Error::invalid("the request body took too long to arrive")),
            }
        }
    };
    let wish = call.as_ref().ok().and_then(LogWish::of);
    let reply = match call {
        Err(e) => Reply::error(&e),
        Ok(call) if rules.closes(&call) => Reply::error(&Error::unsupported_path()),
        Ok(call) if rules.open_in_flight && asks(&call, "sys/in-flight-req") => {
            let all = core.clone().all_under_way().await;
            Reply::json(Code::Ok, all.to_string().into_bytes())
        }
        Ok(call) if rules.open_metrics && asks_metrics(&call) => metrics(core, &call),
        Ok(call) => match within(rules.call_timeout, core.call(call, whole)).await {
            Ok(reply) => reply,
            Err(_) => Reply::error(&Error::new(Code::Internal, "context deadline exceeded")),
        },
    };
    let granted = reply.code == Code::Ok;
    let mut response = respond(redact(reply, redacted), namespace);
    if let Some(wish) = wish.filter(|_| granted) {
        wish.stream(&mut response);
    }
    if let Some(page) = page {
        cors::allow(response.headers_mut(), page);
    }
    rules.answer_headers.apply(response.status().as_u16(), response.headers_mut());
    let took = rt::mono().since(begun.mono);
    core.metrics.observe(Sample::HandleRequest, took);
    core.metrics.status(response.status().as_u16());
    if let Some(level) = telemetry::requests_level() {
        let client =
            origin.remote.map_or_else(|| "unix".to_owned(), |ip| SocketAddr::from((ip, origin.port)).to_string());
        telemetry::log(
            level,
            &format!(
                "completed_request: start_time={} duration={}us client_address={client} status_code={} \
                 request_path={} request_method={method}",
                begun.wall.rfc3339(),
                took / 1000,
                response.status().as_u16(),
                path.path(),
            ),
        );
    }
    response
}

/// Empties the members of an answer that its listener keeps to itself.
fn redact(mut reply: Reply, members: &'static [&'static str]) -> Reply {
    if let (false, Body::Json(bytes)) = (members.is_empty(), &mut reply.body)
        && let Ok(serde_json::Value::Object(mut said)) = serde_json::from_slice(bytes)
    {
        for name in members {
            if let Some(v) = said.get_mut(*name) {
                *v = "".into();
            }
        }
        *bytes = serde_json::Value::Object(said).to_string().into_bytes();
    }
    reply
}

/// Does a call read the measurements, which a listener may show to anybody?
fn asks_metrics(call: &Call) -> bool {
    asks(call, "sys/metrics")
}

/// Does a call read a path of the root namespace?
fn asks(call: &Call, path: &str) -> bool {
    call.op == Operation::Read && call.path == path && call.namespace.as_deref().unwrap_or("").is_empty()
}

/// A request for the log as it is written: judged and audited as any other, then answered by a stream.
struct LogWish {
    level: Level,
    format: Format,
}

impl LogWish {
    fn of(call: &Call) -> Option<LogWish> {
        let said = |name| call.data.get(name).and_then(|v| v.as_str()).unwrap_or("");
        asks(call, "sys/monitor").then(|| LogWish {
            level: Level::parse(said("log_level")).unwrap_or(Level::Info),
            format: if said("log_format") == "json" { Format::Json } else { Format::Standard },
        })
    }

    fn stream(self, response: &mut Response<Payload>) {
        match telemetry::monitor(self.level, self.format) {
            Some(monitor) => *response.body_mut() = Payload::Log(monitor, None),
            None => {
                *response.status_mut() = error::status(Code::Unavailable);
                let text = Bytes::from_static(b"{\"errors\":[\"too many monitors are open\"]}\n");
                *response.body_mut() = Payload::Whole(Full::from(text));
            }
        }
    }
}

/// Waits for a body; while it does not come, its request is shown among those under way.
async fn listed<F: Future>(core: &Rc<Core>, call: &Call, body: F) -> F::Output {
    let mut body = pin!(body);
    let mut shown = None;
    std::future::poll_fn(|cx| {
        let polled = body.as_mut().poll(cx);
        if polled.is_pending() && shown.is_none() {
            shown = Some(core.arriving(call));
        }
        polled
    })
    .await
}

/// The measurements without a token, sealed or not.
fn metrics(core: &Core, call: &Call) -> Reply {
    let accepts = |(name, value): (&str, &str)| {
        name == "accept" && (value.contains("application/openmetrics-text") || value.contains("prometheus/telemetry"))
    };
    let text = call.headers.iter().any(accepts) || call.data.get("format").is_some_and(|f| f == "prometheus");
    let format = if text { "prometheus" } else { "json" };
    match core.fact("metrics", &serde_json::json!({ "format": format })) {
        SideResult::Json(v) => Reply::json(Code::Ok, v.to_string().into_bytes()),
        SideResult::Text(text) => Reply {
            code: Code::Ok,
            body: Body::Raw(Raw {
                content_type: PROMETHEUS_CONTENT_TYPE.into(),
                body: text.into_bytes(),
                headers: Vec::new(),
            }),
            headers: Vec::new(),
        },
        _ => Reply::error(&Error::new(Code::Internal, "metrics are not to be had")),
    }
}

/// A future with a limit; zero is none.
async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, rt::Elapsed> {
    if limit.is_zero() { Ok(future.await) } else { rt::timeout(limit, future).await }
}

/// Counts a request as under way, also one whose client goes away before the answer.
struct InFlight<'c>(&'c CoreMetrics);

impl<'c> InFlight<'c> {
    fn of(core: &'c Core) -> InFlight<'c> {
        core.metrics.enter();
        InFlight(&core.metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Reads a body of at most `limit` bytes.
async fn collect(mut body: Incoming, limit: usize, mut held: Option<&mut Held>) -> Result<Vec<u8>, Error> {
    let too_large = || Error::new(Code::TooLarge, "http: request body too large");
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut out = Vec::with_capacity((body.size_hint().lower() as usize).min(1 << 20));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::invalid(format!("failed to read the request body: {e}")))?;
        if let Some(data) = frame.data_ref() {
            if out.len() + data.len() > limit {
                return Err(too_large());
            }
            if held.as_mut().is_some_and(|h| !h.grow(out.len() + data.len())) {
                return Err(Error::new(Code::Unavailable, "too many large request bodies are under way; try again"));
            }
            out.extend_from_slice(data);
        }
    }
    Ok(out)
}

/// Writes a reply.
fn respond(reply: Reply, namespace: Option<HeaderValue>) -> Response<Payload> {
    let mut response = Response::new(Payload::default());
    *response.status_mut() = error::status(reply.code);
    let headers = response.headers_mut();
    // with the date that hyper adds, and without growing in between
    headers.reserve(6);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(ns) = namespace {
        headers.insert(NAMESPACE, ns);
    }
    for (name, value) in reply.headers {
        if let Ok(v) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), v);
        }
    }
    match reply.body {
        Body::Empty => {}
        Body::Json(bytes) => *response.body_mut() = Payload::Whole(Full::from(bytes)),
        Body::Raw(raw) => {
            if let Ok(v) = HeaderValue::from_str(&raw.content_type) {
                headers.insert(CONTENT_TYPE, v);
            }
            for (name, value) in &raw.headers {
                if let (Ok(n), Ok(v)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                    headers.insert(n, v);
                }
            }
            *response.body_mut() = Payload::Whole(Full::from(raw.body));
        }
    }
    response
}
