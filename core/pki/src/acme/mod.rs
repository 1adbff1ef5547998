//! ACME (RFC 8555): accounts, orders, challenges, certificates, revocation.
//!
//! ```text
//! area a   acct/<id>                  an account, JSON
//!          thumb/<dir>/<thumbprint>   id of the account with this key in a directory
//!          thumb/<thumbprint>         the same, of accounts made before directories had an index each
//!          eab/<id>                   an external account binding that nobody used yet, JSON
//!          order/<account>/<id>       an order, JSON
//!          authz/<account>/<id>       an authorization, JSON
//!          serial/<serial>            id of the account that a certificate was issued to
//!          used/<issued, hex>/<nonce> a nonce that was spent; forgotten when it would be refused for its age
//! ```
//!
//! A nonce is no record until it is spent: it carries its time and a keyed hash, so that handing nonces out writes
//! nothing and any node judges those of any other.

mod account;
mod challenge;
mod config;
mod directory;
mod jws;
mod order;
mod paths;
mod revocation;
#[cfg(test)]
mod tests;

pub use challenge::due;
pub use paths::PATHS;

/// Area of everything here.
const ACME: u8 = b'a';
