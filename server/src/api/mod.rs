//! HTTP: from bytes to a call and from a reply to bytes. Thin on purpose: everything that has meaning is behind
//! [`Core::call`].

pub mod error;
pub mod json;
pub mod listen;
pub mod query;
pub mod request;

use crate::rt;
use crate::shard::Core;
use crate::telemetry::metrics::{CoreMetrics, Sample};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use request::{Head, Origin, Rules, Wanted};
use ringfence_node::{Body, Code, Error, Reply};
use std::rc::Rc;
use std::time::Duration;

const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Longest a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest a call may take. Source: Vault's `default_max_request_duration`.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// Largest snapshot that may be uploaded, bytes.
const MAX_RAW_BYTES: usize = 4 << 30;

/// Serves one request.
pub async fn serve(
    core: &Rc<Core>,
    rules: &Rules,
    origin: &Origin,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let begun = rt::now().mono;
    let _in_flight = InFlight::of(core);
    let (parts, body) = request.into_parts();
    let namespace = parts.headers.get(NAMESPACE).cloned();
    let head = core.with_rng(|rng| Head::parse(&parts.method, &parts.uri, &parts.headers, origin, rules, rng));
    let call = match head {
        Err(e) => Err(e),
        Ok(h) if h.body() == Wanted::Ignore => Ok(h.without_body()),
        Ok(h) => {
            let limit = if h.body() == Wanted::Raw { MAX_RAW_BYTES } else { rules.max_request_bytes };
            match rt::timeout(BODY_TIMEOUT, collect(body, limit)).await {
                Ok(Ok(bytes)) => h.with_body(bytes, rules),
                Ok(Err(e)) => Err(e),
                Err(_) => Err(Error::invalid("the request body took too long to arrive")),
            }
        }
    };
    let reply = match call {
        Err(e) => Reply::error(&e),
        Ok(call) => match rt::timeout(CALL_TIMEOUT, core.call(call)).await {
            Ok(reply) => reply,
            Err(_) => Reply::error(&Error::new(Code::Internal, "context deadline exceeded")),
        },
    };
    let response = respond(reply, namespace);
    core.metrics.observe(Sample::HandleRequest, rt::now().mono.since(begun));
    core.metrics.status(response.status().as_u16());
    response
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
async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Error> {
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
