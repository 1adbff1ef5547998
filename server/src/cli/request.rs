//! Requests of the command line, their answers and their refusals, as values.

use serde_json::Value;

/// What a request carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON. `Value::Null` goes over the wire as `null`: how "no data" is written.
    Json(Value),
    /// A JSON merge patch.
    Merge(Value),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// HTTP method.
    pub method: &'static str,
    /// Path behind `/v1/`.
    pub path: String,
    /// Query parameters.
    pub query: Vec<(String, String)>,
    /// What it carries.
    pub body: Body,
    /// Token instead of the client's.
    pub token: Option<String>,
    /// Whether `-wrap-ttl` applies.
    pub wrap: bool,
    /// Whether the dry modes apply.
    pub dry: bool,
    /// Namespace header instead of the client's.
    pub root_namespace: bool,
}

impl Request {
    /// A request without query and body.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Request {
            method,
            path: path.into(),
            query: Vec::new(),
            body: Body::None,
            token: None,
            wrap: true,
            dry: true,
            root_namespace: false,
        }
    }

    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// GET with `list=true`, which passes every proxy.
    pub fn list(path: impl Into<String>) -> Self {
        Self::new("GET", path).with_query("list", "true")
    }

    /// PUT with a JSON body.
    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Request { body: Body::Json(body), ..Self::new("PUT", path) }
    }

    /// POST with a JSON body.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Request { body: Body::Json(body), ..Self::new("POST", path) }
    }

    /// PATCH with a merge patch.
    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        Request { body: Body::Merge(body), ..Self::new("PATCH", path) }
    }

    /// DELETE.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path)
    }

    /// Adds a query parameter.
    pub fn with_query(mut self, key: &str, value: &str) -> Self {
        self.query.push((key.to_owned(), value.to_owned()));
        self
    }

    /// For look-ups before the request proper: neither wrapped nor printed instead of sent.
    pub fn aside(mut self) -> Self {
        self.wrap = false;
        self.dry = false;
        self
    }

    /// Sends it without a namespace, whatever the settings say.
    pub fn in_root_namespace(mut self) -> Self {
        self.root_namespace = true;
        self
    }
}

/// An answer with a good status.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// Why a call gave no good answer.
#[derive(Debug)]
pub enum CallError {
    /// The server refused.
    Refused(Box<Refused>),
    /// No answer came.
    Failed(String),
    /// A dry mode is on: this is to be printed instead.
    Dry(String),
}

/// A refusal of the server.
#[derive(Debug)]
pub struct Refused {
    /// HTTP method of the request.
    pub method: String,
    /// URL of the request.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// Namespace the server answered for, if it said so.
    pub namespace: String,
    /// Error texts.
    pub errors: Vec<String>,
    /// The body was not JSON; `errors` holds it raw.
    pub raw: bool,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl CallError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            CallError::Refused(refused) => Some(refused.status),
            _ => None,
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Refused(refused) => refused.fmt(f),
            CallError::Failed(text) | CallError::Dry(text) => f.write_str(text),
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Error making API request.\n\n")?;
        if !matches!(self.namespace.as_str(), "" | "root" | "root/") {
            writeln!(f, "Namespace: {}", self.namespace)?;
        }
        let what = if self.raw { "Raw Message" } else { "Errors" };
        write!(f, "URL: {} {}\nCode: {}. {what}:\n\n", self.method, self.url, self.status)?;
        if self.raw {
            return f.write_str(&self.errors.concat());
        }
        for (i, error) in self.errors.iter().enumerate() {
            write!(f, "{}* {error}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}
