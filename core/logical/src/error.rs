//! What a client is told when a request fails: a [`Code`] and the texts, word for word as Vault words them.

use crate::Map;
use ringfence_base::Code;
use std::borrow::Cow;

/// A refusal or a fault at the request's edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The kind; one file in `server` turns it into a status number.
    pub code: Code,
    /// The texts of the `errors` array, possibly none.
    pub errors: Vec<Cow<'static, str>>,
    /// Data shown beside the errors (batch endpoints).
    pub data: Option<Box<Map>>,
    /// For the server's log only; never a secret.
    pub cause: Option<String>,
    /// The caller offered credentials and they were wrong: counts towards a user lockout.
    pub bad_credentials: bool,
    /// The refusal is an outcome of its own: what the handler wrote (a counted attempt) is committed with it.
    pub keeps_writes: bool,
}

impl Error {
    /// An error with one text.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Error {
        Error {
            code,
            errors: vec![text.into()],
            data: None,
            cause: None,
            bad_credentials: false,
            keeps_writes: false,
        }
    }

    /// An error whose `errors` array is empty.
    pub fn bare(code: Code) -> Error {
        Error { code, errors: Vec::new(), data: None, cause: None, bad_credentials: false, keeps_writes: false }
    }

    /// The client's mistake (400).
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Code::Invalid, text)
    }

    /// Wrong credentials (400) that count towards a lockout.
    pub fn credentials(text: impl Into<Cow<'static, str>>) -> Error {
        Error { bad_credentials: true, ..Error::invalid(text) }
    }

    /// The ACL's refusal in Go's multi-error form (403).
    pub fn denied() -> Error {
        Error::new(Code::Denied, "1 error occurred:\n\t* permission denied\n\n")
    }

    /// A token that is unknown, expired or revoked (403).
    pub fn bad_token() -> Error {
        Error::new(Code::Denied, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
    }

    /// No token at all, or one outside its bounds (403).
    pub fn denied_plain() -> Error {
        Error::new(Code::Denied, "permission denied")
    }

    /// Nothing there: 404 with `errors: []`.
    pub fn not_found() -> Error {
        Error::bare(Code::NotFound)
    }

    /// The mount has no such path (404).
    pub fn unsupported_path() -> Error {
        Error::multi(Code::NotFound, "unsupported path")
    }

    /// The path has no such operation (405).
    pub fn unsupported_operation() -> Error {
        Error::multi(Code::Unsupported, "unsupported operation")
    }

    /// One text in Go's multi-error form: `1 error occurred:\n\t* <text>\n\n`.
    pub fn multi(code: Code, text: &str) -> Error {
        Error::new(code, format!("1 error occurred:\n\t* {text}\n\n"))
    }

    /// A plain Go error of a backend (500), in the multi-error form.
    pub fn plain(text: &str) -> Error {
        Error::multi(Code::Internal, text)
    }

    /// An unexpected fault: the client sees `internal error`, the log sees the cause (500).
    pub fn internal(cause: impl Into<String>) -> Error {
        Error { cause: Some(cause.into()), ..Error::multi(Code::Internal, "internal error") }
    }

    /// Adds a cause for the log.
    pub fn because(mut self, cause: impl Into<String>) -> Error {
        self.cause = Some(cause.into());
        self
    }

    /// All texts in one line, for audit's `error` field.
    pub fn text(&self) -> String {
        self.errors.join("; ")
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.code, self.text())
    }
}

impl std::error::Error for Error {}

impl From<ringfence_barrier::BarrierError> for Error {
    fn from(e: ringfence_barrier::BarrierError) -> Error {
        Error::internal(format!("barrier: {e}"))
    }
}

impl From<ringfence_base::CodecError> for Error {
    fn from(e: ringfence_base::CodecError) -> Error {
        Error::internal(format!("stored record: {e}"))
    }
}

/// Go's multi-error text of several messages.
pub fn multi_text(texts: &[String]) -> String {
    let head = match texts.len() {
        1 => "1 error occurred:".to_owned(),
        n => format!("{n} errors occurred:"),
    };
    let mut out = head;
    for t in texts {
        out.push_str("\n\t* ");
        out.push_str(t);
    }
    out.push_str("\n\n");
    out
}
