//! HTTP: from bytes to a call and from a reply to bytes. Thin on purpose: everything that has meaning is behind
//! [`Core::call`].

pub mod answer;
pub mod error;
mod forwarded;
pub mod held;
pub mod json;
pub mod listen;
mod patience;
pub mod query;
pub mod request;

use crate::rt;
use crate::shard::Core;
use crate::telemetry::metrics::{CoreMetrics, PROMETHEUS_CONTENT_TYPE, Sample};
use bytes::Bytes;
use held::Held;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use request::{Head, Origin, Rules, Wanted};
use ringfence_node::{Body, Call, Code, Error, Operation, Raw, Reply, SideResult};
use std::rc::Rc;
use std::time::Duration;

const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Largest snapshot that may be uploaded, bytes.
const MAX_RAW_BYTES: usize = 4 << 30;

/// Serves one request.
pub async fn serve(
    core: &Rc<Core>,
    rules: &Rules,
    origin: &Origin,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let begun = rt::now();
    let mut whole = begun;
    let _in_flight = InFlight::of(core);
    let (parts, body) = request.into_parts();
    let namespace = parts.headers.get(NAMESPACE).cloned();
    let seen = match &rules.forwarded_for {
        None => Ok(None),
        Some(trust) => forwarded::origin(trust, origin, &parts.headers).map(Some),
    };
    let head = seen.and_then(|seen| {
        let origin = seen.as_ref().unwrap_or(origin);
        core.with_rng(|rng| Head::parse(&parts.method, &parts.uri, &parts.headers, origin, rules, rng))
    });
    let mut held = Held::default();
    let call = match head {
        Err(e) => Err(e),
        Ok(h) if h.body() == Wanted::Ignore => Ok(h.without_body()),
        // gigabytes are taken from those only who may bring them; others are refused like any call, without a body
        Ok(h) if h.body() == Wanted::Raw && !core.would_admit(h.call()) => Ok(h.without_body()),
        Ok(h) => {
            let (limit, held) = match h.body() {
                Wanted::Raw => (MAX_RAW_BYTES, None),
                _ => (rules.max_request_bytes, Some(&mut held)),
            };
            let collected = within(rules.body_timeout, collect(body, limit, held)).await;
            whole = rt::now();
            match collected {
                Ok(Ok(bytes)) => h.with_body(bytes, rules),
                Ok(Err(e)) => Err(e),
                Err(_) => Err(Error::invalid("the request body took too long to arrive")),
            }
        }
    };
    let reply = match call {
        Err(e) => Reply::error(&e),
        Ok(call) if rules.open_metrics && asks_metrics(&call) => metrics(core, &call),
        Ok(call) => match within(rules.call_timeout, core.call(call, whole)).await {
            Ok(reply) => reply,
            Err(_) => Reply::error(&Error::new(Code::Internal, "context deadline exceeded")),
        },
    };
    let mut response = respond(reply, namespace);
    rules.answer_headers.apply(response.status().as_u16(), response.headers_mut());
    core.metrics.observe(Sample::HandleRequest, rt::mono().since(begun.mono));
    core.metrics.status(response.status().as_u16());
    response
}

/// Does a call read the measurements, which a listener may show to anybody?
fn asks_metrics(call: &Call) -> bool {
    call.op == Operation::Read && call.path == "sys/metrics" && call.namespace.as_deref().unwrap_or("").is_empty()
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
fn respond(reply: Reply, namespace: Option<HeaderValue>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
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
        Body::Json(bytes) => *response.body_mut() = Full::from(bytes),
        Body::Raw(raw) => {
            if let Ok(v) = HeaderValue::from_str(&raw.content_type) {
                headers.insert(CONTENT_TYPE, v);
            }
            for (name, value) in &raw.headers {
                if let (Ok(n), Ok(v)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                    headers.insert(n, v);
                }
            }
            *response.body_mut() = Full::from(raw.body);
        }
    }
    response
}
