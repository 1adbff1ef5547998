//! One request, as a workload makes it and both protocols write it. A worker fills the same one again and again.

use std::sync::Arc;

/// What is wanted of an answer's body besides its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Take {
    /// Nothing.
    #[default]
    Nothing,
    /// `auth.client_token`.
    Token,
    /// `wrap_info.token`.
    Wrapped,
    /// `lease_id`.
    Lease,
}

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// `GET`, `POST` and so on.
    pub method: &'static str,
    /// What follows `/v1/`, with its query.
    pub path: String,
    /// Sent as `X-Vault-Token`.
    pub token: Option<Arc<str>>,
    /// Sent as `X-Vault-Namespace`.
    pub namespace: Option<Arc<str>>,
    /// Sent as `X-Vault-Wrap-TTL`.
    pub wrap: bool,
    /// JSON, or nothing.
    pub body: Vec<u8>,
    /// What to keep of the answer.
    pub take: Take,
}

impl Call {
    /// Empties it, keeping its buffers.
    pub fn begin(&mut self, method: &'static str) {
        self.method = method;
        self.path.clear();
        self.body.clear();
        (self.token, self.namespace, self.wrap, self.take) = (None, None, false, Take::Nothing);
    }

    /// A request of the setup.
    pub fn of(method: &'static str, path: impl Into<String>, body: Option<&serde_json::Value>) -> Call {
        let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        Call { method, path: path.into(), body, ..Call::default() }
    }

    /// Its header fields beside host and length.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let token = self.token.as_deref().map(|t| ("x-vault-token", t));
        let namespace = self.namespace.as_deref().map(|n| ("x-vault-namespace", n));
        // servers refuse what a browser could be tricked into sending without it, where they are told to
        let mark = Some(("x-vault-request", "true"));
        [mark, token, namespace, self.wrap.then_some(("x-vault-wrap-ttl", "300"))].into_iter().flatten()
    }

    /// Appends it as HTTP/1.1.
    pub fn write_h1(&self, authority: &str, out: &mut Vec<u8>) {
        for part in [self.method, " /v1/", &self.path, " HTTP/1.1\r\nhost: ", authority] {
            out.extend_from_slice(part.as_bytes());
        }
        for (name, value) in self.headers() {
            for part in ["\r\n", name, ": ", value] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        if !self.body.is_empty() || self.method == "POST" {
            out.extend_from_slice(b"\r\ncontent-type: application/json\r\ncontent-length: ");
            out.extend_from_slice(self.body.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_http1() {
        let mut call = Call::of("POST", "sys/mounts/a", Some(&serde_json::json!({"type": "kv"})));
        call.token = Some("t".into());
        let mut out = Vec::new();
        call.write_h1("h:1", &mut out);
        let want = "POST /v1/sys/mounts/a HTTP/1.1\r\nhost: h:1\r\nx-vault-request: true\r\nx-vault-token: t\r\n\
            content-type: application/json\r\ncontent-length: 13\r\n\r\n{\"type\":\"kv\"}";
        assert_eq!(String::from_utf8_lossy(&out), want);
        call.begin("GET");
        out.clear();
        call.write_h1("h:1", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "GET /v1/ HTTP/1.1\r\nhost: h:1\r\nx-vault-request: true\r\n\r\n");
    }
}
