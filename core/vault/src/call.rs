//! A request as it enters the machine and the reply as it leaves: HTTP is already behind, the envelope is ours.

use ringfence_base::{Code, Secret};
use ringfence_logical::{Operation, Parameters};
use std::net::IpAddr;
use std::sync::Arc;

/// A request from the edge. Everything in it is bounded by the edge; nothing is trusted.
#[derive(Clone, Debug)]
pub struct Call {
    /// A UUID, in audit and envelope.
    pub id: String,
    /// What is asked; POST and PUT arrive as `Update`, the existence check may turn them into `Create`.
    pub op: Operation,
    /// Canonical path without `/v1/` and leading slash.
    pub path: String,
    /// The namespace header, as given.
    pub namespace: Option<String>,
    /// The token, from `X-Vault-Token` or `Authorization: Bearer`.
    pub token: Option<Secret<String>>,
    /// Parsed body (writes) or query (reads).
    pub data: Parameters,
    /// A write came without any body (or with `null`).
    pub no_body: bool,
    /// Client address.
    pub remote: Option<IpAddr>,
    /// Client port.
    pub remote_port: u16,
    /// Wanted wrapping time in seconds; 0 = none.
    pub wrap_ttl: u64,
    /// The wrapping token is wanted as a JWT.
    pub wrap_jwt: bool,
    /// Remaining headers, for audit and pass-through.
    pub headers: Headers,
    /// The body as it came, for the few endpoints that take no JSON (snapshot restore).
    pub raw_body: Option<Arc<Vec<u8>>>,
    /// The client's certificates, DER, leaf first.
    pub peer_certificates: Arc<Vec<Vec<u8>>>,
    /// `X-Vault-MFA` values.
    pub mfa: Vec<String>,
}

/// Request headers in one allocation: names in lower case, values as they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(String);

impl Headers {
    /// None yet, with room for so many bytes of names and values.
    pub fn with_capacity(bytes: usize) -> Headers {
        Headers(String::with_capacity(bytes))
    }

    /// Adds a header. A name or value that holds a line break is not a header and is left out.
    pub fn push(&mut self, name: &str, value: &str) {
        if !name.contains(['\n', ':']) && !value.contains('\n') {
            self.0.push_str(name);
            self.0.push(':');
            self.0.push_str(value);
            self.0.push('\n');
        }
    }

    /// Whether such a text, in lower case, stands anywhere in them: cheaper than a walk, and nearly always no.
    pub fn mention(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    /// All headers in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|l| l.split_once(':'))
    }
}

/// A body on its way out.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// None: 204 and the like.
    Empty,
    /// JSON text.
    Json(Vec<u8>),
    /// Something else.
    Raw(ringfence_logical::Raw),
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// What became of it.
    pub code: Code,
    /// The body.
    pub body: Body,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// Without a body.
    pub fn empty(code: Code) -> Reply {
        Reply { code, body: Body::Empty, headers: Vec::new() }
    }

    /// With a JSON body.
    pub fn json(code: Code, body: Vec<u8>) -> Reply {
        Reply { code, body: Body::Json(body), headers: Vec::new() }
    }

    /// The errors envelope.
    pub fn error(e: &ringfence_logical::Error) -> Reply {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(b"{\"errors\":");
        serde_json::to_writer(&mut body, &e.errors).expect("texts always serialise");
        if let Some(d) = &e.data {
            body.extend_from_slice(b",\"data\":");
            serde_json::to_writer(&mut body, d).expect("a JSON tree always serialises");
        }
        body.extend_from_slice(b"}\n");
        Reply::json(e.code, body)
    }
}
