//! What an engine answers.

use crate::request::TokenType;
use crate::{Map, Outcome, Step};
use ringfence_base::Code;
use serde_json::Value;
use std::collections::BTreeMap;

/// The `data` of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// A JSON object.
    Map(Map),
    /// A JSON object already written as text: hot reads pass stored text on without building a tree.
    Text(String),
}

impl Data {
    /// As a JSON object, parsing the text form.
    pub fn into_map(self) -> Map {
        match self {
            Data::Map(m) => m,
            Data::Text(t) => serde_json::from_str(&t).unwrap_or_default(),
        }
    }

    /// Appends the JSON text.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Data::Map(m) => serde_json::to_writer(&mut *out, m).expect("a JSON tree always serialises"),
            Data::Text(t) => out.extend_from_slice(t.as_bytes()),
        }
    }
}

/// A body that bypasses the envelope.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Raw {
    /// Content type.
    pub content_type: String,
    /// The bytes.
    pub body: Vec<u8>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// The alias that a login proves.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Alias {
    /// Name within the mount, in the method's one normal form.
    pub name: String,
    /// Refreshed at every login.
    pub metadata: BTreeMap<String, String>,
}

/// What a login proves and asks for; the token core turns it into a token.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Auth {
    /// Shown in lookups and audit, without the mount's prefix (the core adds it).
    pub display_name: String,
    /// Policies from role or user.
    pub policies: Vec<String>,
    /// Do not add `default`.
    pub no_default_policy: bool,
    /// Metadata of the token.
    pub metadata: BTreeMap<String, String>,
    /// Who it is; an entity is found or made.
    pub alias: Option<Alias>,
    /// External groups.
    pub group_aliases: Vec<Alias>,
    /// Wanted life, seconds; 0 = the mount's default.
    pub ttl: u64,
    /// The role's longest life, seconds; 0 = the mount's.
    pub max_ttl: u64,
    /// Seconds; 0 = not periodic.
    pub period: u64,
    /// Seconds; 0 = none.
    pub explicit_max_ttl: u64,
    /// 0 = unlimited.
    pub num_uses: u64,
    /// What the role says.
    pub token_type: TokenType,
    /// `a.b.c.d/n` texts.
    pub bound_cidrs: Vec<String>,
    /// Role name for cut-offs and quotas.
    pub role: String,
    /// Kept with the token and given back at renewal.
    pub internal: Map,
}

/// The lease that a secret comes with.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LeaseTerms {
    /// Names the secret type for renew and revoke.
    pub secret: &'static str,
    /// Seconds; 0 = the mount's default.
    pub ttl: u64,
    /// Seconds; 0 = the mount's longest.
    pub max_ttl: u64,
    /// May be renewed.
    pub renewable: bool,
    /// Kept with the lease, sealed.
    pub internal: Map,
}

/// The `auth` block of an answer: a token that was made, renewed or looked at.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Issued {
    /// The token itself; empty where the API hides it.
    pub client_token: String,
    /// Empty for a batch token.
    pub accessor: String,
    /// Token and identity policies together, sorted.
    pub policies: Vec<String>,
    /// The token's own.
    pub token_policies: Vec<String>,
    /// From entity and groups; left out when empty.
    pub identity_policies: Vec<String>,
    /// `None` prints as null.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Seconds.
    pub lease_duration: u64,
    /// May be renewed.
    pub renewable: bool,
    /// Entity, or empty.
    pub entity_id: String,
    /// `service` or `batch`.
    pub token_type: TokenType,
    /// Has no parent.
    pub orphan: bool,
    /// Uses left; 0 = unlimited.
    pub num_uses: u64,
    /// Display name, for audit.
    pub display_name: String,
    /// When it was made, for audit.
    pub issued_at: ringfence_base::Wall,
    /// `mfa_requirement` of a two-phase login.
    pub mfa_requirement: Option<Value>,
}

/// A lease that was registered or renewed.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Leased {
    /// `database/creds/role/<24 characters>`.
    pub lease_id: String,
    /// Seconds.
    pub duration: u64,
    /// May be renewed.
    pub renewable: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Response {
    /// The object under `data`.
    pub data: Option<Data>,
    /// Texts under `warnings`.
    pub warnings: Vec<String>,
    /// A login's proof.
    pub auth: Option<Auth>,
    /// A token made by the core: the answer's `auth` block.
    pub issued: Option<Issued>,
    /// A lease to register.
    pub lease: Option<LeaseTerms>,
    /// A lease registered or renewed by the core.
    pub leased: Option<Leased>,
    /// A body that replaces the envelope.
    pub raw: Option<Raw>,
    /// A status other than the usual one.
    pub code: Option<Code>,
    /// `lease_duration` of an answer without lease (kv version 1).
    pub lease_duration: u64,
    /// The accessor of a wrapped credential, for `wrap_info.wrapped_accessor`.
    pub wrapped_accessor: Option<String>,
    /// Wrap the answer for so many seconds even if the client did not ask.
    pub force_wrap: Option<u64>,
}

impl Response {
    /// With a JSON object as data.
    pub fn data(map: Map) -> Response {
        Response { data: Some(Data::Map(map)), ..Response::default() }
    }

    /// With a JSON value that must be an object.
    pub fn json(v: Value) -> Response {
        match v {
            Value::Object(m) => Response::data(m),
            other => panic!("data is an object, not {other}"),
        }
    }

    /// With data already written.
    pub fn text(json_object: String) -> Response {
        Response { data: Some(Data::Text(json_object)), ..Response::default() }
    }

    /// A list answer: 404 at the edge when empty.
    pub fn keys(keys: Vec<String>) -> Response {
        let mut m = Map::new();
        if !keys.is_empty() {
            m.insert("keys".into(), keys.into());
        }
        Response::data(m)
    }

    /// A body outside the envelope.
    pub fn raw(content_type: &str, body: Vec<u8>) -> Response {
        Response {
            raw: Some(Raw { content_type: content_type.into(), body, headers: Vec::new() }),
            ..Response::default()
        }
    }

    /// With one more warning.
    pub fn warn(mut self, text: impl Into<String>) -> Response {
        self.warnings.push(text.into());
        self
    }

    /// With another status.
    pub fn code(mut self, code: Code) -> Response {
        self.code = Some(code);
        self
    }

    /// As the outcome of a handler.
    pub fn done(self) -> Outcome {
        Ok(Step::Done(Some(self)))
    }
}

/// No response at all: 204 for writes, 404 for reads.
pub fn nothing() -> Outcome {
    Ok(Step::Done(None))
}
