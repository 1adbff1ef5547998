//! Side operations: what a core must not do itself (slow computation, the outside world). A handler answers
//! [`Step::Side`]; its transaction ends there. When the result is in, `resume` runs over a new transaction and reads
//! again what it relied on. A resume may run more than once (a refused transaction is tried again), so it is `Fn`.
//!
//! An effect outside that must not be forgotten by a crash begins with [`Step::Intent`]: what the handler wrote is
//! committed *before* the operation is carried out. Whoever finds the intent later (the lease worker at its due time,
//! a scheduled job, the next request) finishes the effect or undoes it.

use crate::cx::Cx;
use crate::reach::Reach;
use crate::sql::SqlAsk;
use crate::{Error, Response};
use ringfence_base::Secret;

/// What a handler says.
// one a request, moved a few times: cheaper than the allocation of a box
#[allow(clippy::large_enum_variant)]
pub enum Step {
    /// Finished, with an answer or with none.
    Done(Option<Response>),
    /// To be finished after a side operation.
    Side {
        /// What is to be done outside.
        op: SideOp,
        /// What goes on afterwards.
        resume: Resume,
    },
    /// As `Side`, but what the transaction holds is committed first. If it is refused the handler runs again and
    /// nothing is done outside.
    Intent {
        /// What is to be done outside.
        op: SideOp,
        /// What goes on afterwards.
        resume: Resume,
    },
}

/// Goes on after a side operation.
pub type Resume = Box<dyn Fn(&mut Cx<'_, '_>, &SideResult) -> Result<Step, Error> + Send>;

/// A side operation. It carries no keyring.
#[derive(Debug)]
pub enum SideOp {
    /// Hashes a password with bcrypt.
    BcryptHash {
        /// The password.
        password: Secret<Vec<u8>>,
        /// 16 random bytes.
        salt: [u8; 16],
        /// log2 of the rounds.
        cost: u32,
    },
    /// Compares a password with a bcrypt hash.
    BcryptVerify {
        /// The password.
        password: Secret<Vec<u8>>,
        /// `$2b$...`.
        hash: String,
    },
    /// The owner core does it.
    Owner(OwnerOp),
    /// A computation that would hold a core for more than a millisecond: generating an RSA key, a long batch.
    Compute(Compute),
    /// A request to an HTTP server.
    Http(Box<HttpAsk>),
    /// A question that proves who controls a name, other than over HTTP.
    Probe(Box<Probe>),
    /// Statements for an SQL server; the result is [`SideResult::Json`] or [`SideResult::Failed`] with the server's
    /// own words.
    Sql(Box<SqlAsk>),
}

impl SideOp {
    /// It has no effect and asks nobody: it may be done twice, and anywhere.
    pub fn is_computation(&self) -> bool {
        match self {
            SideOp::BcryptHash { .. } | SideOp::BcryptVerify { .. } | SideOp::Compute(_) => true,
            SideOp::Owner(_) | SideOp::Http(_) | SideOp::Probe(_) | SideOp::Sql(_) => false,
        }
    }
}

/// A pure computation with a name for logs. It must need nothing but what it owns.
pub struct Compute {
    /// What it is, for logs; never a secret.
    pub what: &'static str,
    /// The computation.
    pub run: Box<dyn Fn() -> SideResult + Send>,
}

impl Compute {
    /// The side operation of a named computation.
    pub fn op(what: &'static str, run: impl Fn() -> SideResult + Send + 'static) -> SideOp {
        SideOp::Compute(Compute { what, run: Box::new(run) })
    }
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Compute").field(&self.what).finish()
    }
}

/// A request to an HTTP server outside. The server process carries it out with bounds of its own on top of these.
#[derive(Clone, PartialEq)]
pub struct HttpAsk {
    /// `GET`, `POST`.
    pub method: &'static str,
    /// `http` or `https`.
    pub url: String,
    /// Headers, `authorization` included.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// PEM certificates to trust instead of the machine's.
    pub ca_pem: Option<String>,
    /// Whole time, connecting included.
    pub timeout_ms: u32,
    /// Bytes of the answer's body beyond which it is refused.
    pub max_answer_bytes: usize,
    /// How many redirects to follow.
    pub redirects: u8,
    /// Which addresses it may reach, the redirects' included.
    pub reach: Reach,
    /// A file of the server's machine with PEM certificates to trust if `ca_pem` names none and the file is there.
    pub ca_file: Option<&'static str>,
    /// A file of the server's machine whose text is sent as a bearer token.
    pub bearer_file: Option<&'static str>,
    /// The server may give the answer (or the failure) that the same question got so many seconds ago at most;
    /// 0 = never.
    pub fresh_s: u32,
    /// How often to ask again if there is no answer, or one that says that the server failed.
    pub retries: u8,
}

impl HttpAsk {
    /// A GET with ten seconds, one MiB, no redirects.
    pub fn get(url: impl Into<String>) -> HttpAsk {
        HttpAsk {
            method: "GET",
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            ca_pem: None,
            timeout_ms: 10_000,
            max_answer_bytes: 1 << 20,
            redirects: 0,
            reach: Reach::default(),
            ca_file: None,
            bearer_file: None,
            fresh_s: 0,
            retries: 0,
        }
    }

    /// A POST with the same bounds.
    pub fn post(url: impl Into<String>, content_type: &str, body: Vec<u8>) -> HttpAsk {
        HttpAsk { method: "POST", body, ..HttpAsk::get(url) }.header("content-type", content_type)
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> HttpAsk {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Trusting these certificates, PEM; the machine's if there are none.
    pub fn trusting(mut self, ca_pem: &str) -> HttpAsk {
        self.ca_pem = (!ca_pem.trim().is_empty()).then(|| ca_pem.to_owned());
        self
    }
}

/// Headers and body may hold credentials.
impl std::fmt::Debug for HttpAsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpAsk").field("method", &self.method).field("url", &self.url).finish_non_exhaustive()
    }
}

/// A question that proves who controls a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The question.
    pub what: ProbeKind,
    /// Which addresses it may reach.
    pub reach: Reach,
    /// Whole time, looking the name up included.
    pub timeout_ms: u32,
}

/// The kinds of questions.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeKind {
    /// The texts of a name's TXT records; the result is [`SideResult::Json`], a list, empty if the name has none.
    Texts {
        /// The name, whole.
        name: String,
    },
    /// The certificate that a host shows on port 443 when it is offered one protocol only; the result is
    /// [`SideResult::Bytes`], DER. Nobody vouches for it: the asker judges it.
    Leaf {
        /// DNS name or address to connect to.
        host: String,
        /// Server name of the handshake.
        server_name: String,
        /// The protocol (ALPN), which the peer must take.
        protocol: &'static str,
    },
}

/// What an HTTP server answered.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// 200, 404.
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body, within the bound.
    pub body: Vec<u8>,
}

/// An operation that the owner core performs on the machine itself, for a caller whose policies allowed it.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnerOp {
    /// Drop every key.
    Seal,
    /// Hand leadership over.
    StepDown,
    /// Add a term to the keyring.
    Rotate,
    /// Set the rules of automatic rotation: enabled, most operations, interval in seconds.
    RotateConfig {
        /// Rotate by itself at all.
        enabled: bool,
        /// Encryptions after which a new term is made.
        max_operations: u64,
        /// Seconds after which a new term is made; 0 = never by time.
        interval: u64,
    },
    /// Term, install time and number of encryptions of the keyring, and the rotation rules.
    KeyStatus,
    /// The members of the raft cluster.
    RaftConfiguration,
    /// Write a snapshot; the result is the archive.
    SnapshotSave,
    /// Write a snapshot into a directory of this machine; the result is JSON with its `url` and `bytes`.
    SnapshotKeep(Box<KeepSnapshot>),
    /// Load a snapshot archive.
    SnapshotRestore {
        /// The archive, gzip of tar.
        archive: std::sync::Arc<Vec<u8>>,
        /// Skip the check that our seal made it.
        force: bool,
    },
    /// Anything else by name; arguments and result are JSON.
    Named(&'static str, serde_json::Value),
}

/// Where a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepSnapshot {
    /// An absolute path.
    pub directory: String,
    /// Files are `<file_prefix>-<nanoseconds since 1970>.snap`.
    pub file_prefix: String,
    /// How many are kept, at least one.
    pub retain: u64,
    /// Most bytes that all of them may take.
    pub max_bytes: u64,
}

/// What came of a side operation.
#[derive(Clone, Debug)]
pub enum SideResult {
    /// A JSON value.
    Json(serde_json::Value),
    /// Bytes.
    Bytes(std::sync::Arc<Vec<u8>>),
    /// Refused with what the client shall see.
    Refused(Error),
    /// A text (a hash).
    Text(String),
    /// A yes or no (a comparison).
    Verdict(bool),
    /// What an HTTP server answered. No answer at all is `Failed`.
    Http(std::sync::Arc<HttpAnswer>),
    /// What a computation made; the resume knows its type.
    Value(Computed),
    /// It failed; the reason is for the log.
    Failed(String),
}

/// A value of any type, shared because a resume may run again.
#[derive(Clone)]
pub struct Computed(pub std::sync::Arc<dyn std::any::Any + Send + Sync>);

impl Computed {
    /// Wraps a value.
    pub fn of<T: Send + Sync + 'static>(value: T) -> SideResult {
        SideResult::Value(Computed(std::sync::Arc::new(value)))
    }

    /// The value, if it is of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl std::fmt::Debug for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Computed")
    }
}

/// Carries a side operation out; owner operations go to the owner core instead and are not for this. Called by the server's pool of threads and by the simulator, never on a core.
pub fn perform(op: &SideOp) -> SideResult {
    match op {
        SideOp::BcryptHash { password, salt, cost } => {
            match ringfence_crypto::password::hash(password.expose(), *cost, &mut Drawn(*salt)) {
                Ok(text) => SideResult::Text(text),
                Err(why) => SideResult::Failed(format!("bcrypt: {why:?}")),
            }
        }
        SideOp::Owner(op) => SideResult::Failed(format!("{op:?} belongs to the owner core")),
        SideOp::Compute(c) => (c.run)(),
        SideOp::Sql(ask) => SideResult::Failed(format!("{ask:?}: nothing here reaches out")),
        SideOp::Probe(ask) => SideResult::Failed(format!("{ask:?}: nothing here reaches out")),
        SideOp::Http(ask) => SideResult::Failed(format!("{ask:?}: nothing here reaches out")),
        SideOp::BcryptVerify { password, hash } => {
            SideResult::Verdict(ringfence_crypto::password::verify(password.expose(), hash))
        }
    }
}

/// Gives out the 16 bytes that the handler drew, so that the pool needs no randomness of its own.
struct Drawn([u8; 16]);

impl ringfence_base::Entropy for Drawn {
    fn fill(&mut self, buf: &mut [u8]) {
        for (b, d) in buf.iter_mut().zip(self.0.iter().cycle()) {
            *b = *d;
        }
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Done(r) => f.debug_tuple("Done").field(r).finish(),
            Step::Side { op, .. } => f.debug_struct("Side").field("op", op).finish_non_exhaustive(),
            Step::Intent { op, .. } => f.debug_struct("Intent").field("op", op).finish_non_exhaustive(),
        }
    }
}

impl Step {
    /// The answer of a finished step (tests).
    pub fn into_response(self) -> Option<Response> {
        match self {
            Step::Done(r) => r,
            Step::Side { .. } | Step::Intent { .. } => None,
        }
    }
}

impl From<Response> for Step {
    fn from(r: Response) -> Step {
        Step::Done(Some(r))
    }
}
