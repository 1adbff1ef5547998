//! The engine SDK: what a secrets engine or an auth method sees of the machine, and what the machine sees of it.
//!
//! An engine is a table of paths ([`Path`]) with plain functions as handlers, and a handful of callbacks
//! ([`Engine`]). From that one table come the matcher, coercion of fields, create-or-update, `?help=1`, OpenAPI,
//! audit marks and metric labels. A handler runs over a transaction ([`Cx`]) and answers a [`Step`]: done, or a side
//! operation with the function that goes on when it is finished. No engine sees a socket, a clock, or another engine.

pub mod args;
pub mod cx;
pub mod engine;
pub mod error;
pub mod field;
pub mod memo;
pub mod parameters;
pub mod path;
pub mod reach;
pub mod redirect;
pub mod request;
pub mod response;
pub mod side;
pub mod sql;

pub use args::Args;
pub use cx::{Cx, Host, Principal};
pub use engine::{Class, Engine, Lease, Registry, Renewal};
pub use error::Error;
pub use field::{Field, Kind};
pub use memo::Memo;
pub use parameters::Parameters;
pub use path::{Path, Table};
pub use reach::Reach;
pub use request::{MountInfo, Request, TokenType};
pub use response::{Alias, Auth, Data, Issued, LeaseTerms, Leased, Raw, Response, nothing};
pub use ringfence_policy::op::Operation;
pub use side::{
    Compute, Computed, HttpAnswer, HttpAsk, KeepSnapshot, OwnerOp, Probe, ProbeKind, Resume, SideOp, SideResult, Step,
};
pub use sql::{SqlAsk, SqlKind, SqlTarget, SqlTls};

/// A JSON object; keys come out sorted, as Go prints maps.
pub type Map = serde_json::Map<String, serde_json::Value>;

/// What a handler answers.
pub type Outcome = Result<Step, Error>;
