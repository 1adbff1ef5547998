//! The OpenID provider: applications log their users in by us (OpenID Connect Core 1.0, code flow).
//!
//! ```text
//! scopes       scope/*: what a claim is made of          assignments   assignment/*: who may use which client
//! clients      client/*: the applications                providers     provider/*: issuers; their .well-known
//! authorize    user's token      > code                  exchange      client, code > tokens
//! access       the access token                          userinfo      access token > claims
//! ```
//!
//! Whoever holds a Vault token with an entity is logged in already; our authorisation endpoint is an API call of his,
//! which yields a code. A code is good for one exchange, right or wrong. Records beside those of identity tokens:
//! `[0x21][ns u32] s [scope]`, `a [assignment]`, `l [client]`, `i [client id]` (its client's name), `p [provider]`,
//! `d [end of life, 10 hex][keyed hash of the code, 32 hex]` (what the code was given for).

pub mod access;
pub mod assignments;
pub mod authorize;
pub mod clients;
pub mod exchange;
pub mod providers;
pub mod scopes;
pub mod userinfo;

#[cfg(test)]
mod tests;

use ringfence_base::Code;
use ringfence_logical::{Outcome, Raw, Response};
use serde_json::Value;

/// Kind of the records of scopes.
const SCOPE: u8 = b's';
/// Kind of the records of assignments.
const ASSIGNMENT: u8 = b'a';
/// Kind of the records of clients.
const CLIENT: u8 = b'l';
/// Kind of the records that lead from a client id to its client.
const CLIENT_ID: u8 = b'i';
/// Kind of the records of providers.
const PROVIDER: u8 = b'p';
/// Kind of the records of codes.
const CODE: u8 = b'd';

/// The scope of OpenID Connect itself.
const OPENID: &str = "openid";

/// What was wrong with a request of the protocol: an error code of the protocol, and a text for people.
pub struct Wrong {
    /// Code of the protocol.
    error: &'static str,
    /// For people.
    description: String,
}

fn wrong<T>(error: &'static str, description: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { error, description: description.into() })
}

/// An answer of the protocol: bare JSON.
fn answer(code: Code, body: &Value, headers: &[(&str, &str)]) -> Outcome {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let raw = Raw { content_type: "application/json".into(), body: body.to_string().into_bytes(), headers };
    Response { raw: Some(raw), ..Response::default() }.code(code).done()
}
