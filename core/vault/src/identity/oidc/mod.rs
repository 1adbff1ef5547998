//! Identity tokens: signed statements (JWT) of who a caller is, that others check without asking us.
//!
//! ```text
//! signing   key pairs, signatures, JWK      keys      identity/oidc/key/*, rotation
//! roles     identity/oidc/role/*            template  claims from a JSON text with places to fill
//! tokens    token/:role, introspect         discovery issuer, .well-known/*
//! provider  OpenID Connect for applications that log their users in by us
//! ```
//!
//! Records: `[0x21][ns u32] k [key name]`, `r [role name]`, `c`; of [`provider`] its own. Private keys are sealed like every record and
//! leave through no path.

pub mod discovery;
pub mod keys;
pub mod provider;
pub mod roles;
pub mod signing;
pub mod template;
pub mod tokens;

use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::NsId;
use ringfence_logical::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Kind of the records of keys.
const KEY: u8 = b'k';
/// Kind of the records of roles.
const ROLE: u8 = b'r';
/// Kind of the record of the issuer.
const CONFIG: u8 = b'c';

fn load<T: DeserializeOwned>(txn: &mut Txn<'_>, ns: NsId, kind: u8, name: &str) -> Result<Option<T>, Error> {
    match txn.get(&tables::oidc(ns, kind, name))? {
        None => Ok(None),
        Some(p) => serde_json::from_slice(&p.bytes)
            .map(Some)
            .map_err(|e| Error::internal(format!("stored record of identity tokens: {e}"))),
    }
}

fn save<T: Serialize>(txn: &mut Txn<'_>, ns: NsId, kind: u8, name: &str, value: &T) {
    let bytes = serde_json::to_vec(value).expect("a record of identity tokens always serialises");
    txn.put(tables::oidc(ns, kind, name), &[], &bytes);
}

fn names(txn: &mut Txn<'_>, ns: NsId, kind: u8) -> Vec<String> {
    let prefix = tables::oidc(ns, kind, "");
    let keys = txn.list(&prefix, None, usize::MAX);
    keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect()
}
