//! Cross-origin requests of browsers: which origins are answered, and what a preflight is told. The settings are those
//! of `sys/config/cors`, or a listener's own. Source: the API reference, "CORS".

use super::error;
use super::payload::Payload;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, Response};
use ringfence_node::{Code, Cors, Error};

/// Methods that a page of another origin may use.
const METHODS: &[&str] = &["DELETE", "GET", "OPTIONS", "POST", "PUT", "LIST", "PATCH"];
const METHODS_TEXT: &str = "DELETE,GET,OPTIONS,POST,PUT,LIST,PATCH";

/// What to do with a request that names its origin.
pub enum Verdict {
    /// Nothing: it names none, or cross-origin requests are off.
    None,
    /// Serve it and allow the origin in the answer.
    Allow(HeaderValue),
    /// It was a preflight: this is the answer.
    Answer(Box<Response<Payload>>),
    /// The origin is not welcome.
    Refuse(Error),
}

/// Judges a request. `settings` are asked for only if it names an origin.
pub fn judge(method: &Method, headers: &HeaderMap, settings: impl FnOnce() -> Option<Cors>) -> Verdict {
    let Some(origin) = headers.get(ORIGIN).filter(|o| !o.is_empty()) else { return Verdict::None };
    let Some(cors) = settings().filter(|c| c.enabled) else { return Verdict::None };
    let text = origin.to_str().unwrap_or("");
    let welcome = cors.allowed_origins.iter().any(|o| o == "*" || o == text);
    if !welcome {
        return Verdict::Refuse(Error::new(Code::Denied, "origin not allowed"));
    }
    if *method != Method::OPTIONS {
        return Verdict::Allow(origin.clone());
    }
    let mut answer = Response::new(Payload::default());
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|m| m.to_str().ok()).unwrap_or("");
    if !METHODS.contains(&wanted) {
        *answer.status_mut() = error::status(Code::Unsupported);
        return Verdict::Answer(Box::new(answer));
    }
    let map = answer.headers_mut();
    allow(map, origin.clone());
    map.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS_TEXT));
    if let Ok(names) = HeaderValue::from_str(&cors.allowed_headers.join(",")) {
        map.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    map.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    Verdict::Answer(Box::new(answer))
}

/// Tells the browser that the page may read the answer.
pub fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &str, headers: &[(&'static str, &'static str)], origins: &[&str]) -> Verdict {
        let mut map = HeaderMap::new();
        for (k, v) in headers {
            map.insert(*k, HeaderValue::from_static(v));
        }
        let cors = Cors {
            enabled: !origins.is_empty(),
            allowed_origins: origins.iter().map(|o| (*o).to_owned()).collect(),
            allowed_headers: vec!["X-Vault-Token".into(), "X-A".into()],
        };
        judge(&method.parse().expect("method"), &map, || Some(cors))
    }

    #[test]
    fn origins() {
        let page = ("origin", "https://a.example");
        assert!(matches!(judged("GET", &[], &["*"]), Verdict::None));
        assert!(matches!(judged("GET", &[page], &[]), Verdict::None));
        assert!(matches!(judged("GET", &[page], &["*"]), Verdict::Allow(_)));
        assert!(matches!(judged("GET", &[page], &["https://a.example"]), Verdict::Allow(_)));
        assert!(matches!(judged("GET", &[page], &["https://b.example"]), Verdict::Refuse(_)));
        let Verdict::Answer(no) = judged("OPTIONS", &[page], &["*"]) else { panic!("no answer") };
        assert_eq!(no.status(), 405);
        let asks = ("access-control-request-method", "LIST");
        let Verdict::Answer(yes) = judged("OPTIONS", &[page, asks], &["*"]) else { panic!("no answer") };
        assert_eq!(
            (yes.status().as_u16(), &yes.headers()["access-control-allow-headers"]),
            (200, &"X-Vault-Token,X-A".parse().expect("value"))
        );
        assert_eq!(yes.headers()["access-control-allow-origin"], "https://a.example");
    }
}
