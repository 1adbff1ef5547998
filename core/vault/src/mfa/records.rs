//! The records of login MFA.
//!
//! ```text
//! [0x20][ns u32] m [method id]                 Method
//!                e [name]                      Enforcement
//!                s [entity id] 0 [method id]   Secret
//!                u [entity id] 0 [method id]   Attempts
//!                r [hash of request id]        a login that waits: see `pending`
//! ```

use super::totp::Algorithm;
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{NsId, Wall};
use ringfence_logical::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

const METHOD: u8 = b'm';
const ENFORCEMENT: u8 = b'e';
const SECRET: u8 = b's';
const ATTEMPTS: u8 = b'u';
pub(super) const PENDING: u8 = b'r';

/// A method of type totp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// A UUID.
    pub id: String,
    /// Free name, may be empty; unique in the namespace.
    pub name: String,
    /// Shown by authenticator programs.
    pub issuer: String,
    /// Seconds a code lives.
    pub period: u64,
    /// Bytes of a secret.
    pub key_size: u64,
    /// Pixels of the barcode's side; 0 = none.
    pub qr_size: u64,
    /// Hash.
    pub algorithm: Algorithm,
    /// 6 or 8.
    pub digits: u32,
    /// Periods before and after the present that are accepted: 0 or 1.
    pub skew: u64,
    /// Wrong codes until the next must wait.
    pub max_validation_attempts: u64,
}

/// When which methods are owed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Enforcement {
    /// A UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Any one of them pays.
    pub methods: Vec<String>,
    /// Mounts.
    pub accessors: Vec<String>,
    /// Types of auth methods.
    pub types: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Entities.
    pub entities: Vec<String>,
}

/// What an entity and its authenticator share.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Secret {
    /// The key of the codes.
    pub key: Vec<u8>,
    /// Log time.
    pub created: Wall,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Codes used and attempts made by an entity with a method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempts {
    /// The latest period whose code was accepted: it and all before it are used up.
    pub used: Option<u64>,
    /// How long that period was, seconds; 0 in records of before this was noted.
    #[serde(default)]
    pub period: u64,
    /// Attempts that failed in a row.
    pub failed: u64,
    /// When those are forgotten.
    pub until: Wall,
}

impl Attempts {
    /// The latest period of this length that is used up. A method's periods may be made longer or shorter: what was
    /// used is then counted in the new ones, as far as they had ended when the old one did.
    pub fn used_in(&self, period: u64, latest: u64) -> Option<u64> {
        let used = match self.period {
            0 => self.used?,
            old if old == period => self.used?,
            old => (self.used?.saturating_add(1).saturating_mul(old) / period).checked_sub(1)?,
        };
        // no code of a period that is still to come was ever accepted: it was counted in other periods
        (used <= latest).then_some(used)
    }
}

fn read<T: DeserializeOwned>(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<T>, Error> {
    match txn.get(key)? {
        None => Ok(None),
        Some(p) => parse(&p.bytes).map(Some),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored MFA record: {e}")))
}

fn write<T: Serialize>(txn: &mut Txn<'_>, key: Vec<u8>, value: &T) {
    let bytes = serde_json::to_vec(value).expect("a record of MFA always serialises");
    txn.put(key, &[], &bytes);
}

fn scan<T: DeserializeOwned>(txn: &mut Txn<'_>, prefix: &[u8]) -> Result<Vec<T>, Error> {
    txn.scan(prefix, None, usize::MAX)?.iter().map(|(_, p)| parse(&p.bytes)).collect()
}

/// Reads a method.
pub fn method(txn: &mut Txn<'_>, ns: NsId, id: &str) -> Result<Option<Method>, Error> {
    read(txn, &tables::mfa(ns, METHOD, &[id.as_bytes()]))
}

/// All methods of a namespace.
pub fn methods(txn: &mut Txn<'_>, ns: NsId) -> Result<Vec<Method>, Error> {
    scan(txn, &tables::mfa(ns, METHOD, &[]))
}

/// Writes a method.
pub fn save_method(txn: &mut Txn<'_>, ns: NsId, m: &Method) {
    write(txn, tables::mfa(ns, METHOD, &[m.id.as_bytes()]), m);
}

/// Deletes a method.
pub fn delete_method(txn: &mut Txn<'_>, ns: NsId, id: &str) {
    txn.delete(&tables::mfa(ns, METHOD, &[id.as_bytes()]));
}

/// Reads an enforcement.
pub fn enforcement(txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<Enforcement>, Error> {
    read(txn, &tables::mfa(ns, ENFORCEMENT, &[name.as_bytes()]))
}

/// All enforcements of a namespace, by name.
pub fn enforcements(txn: &mut Txn<'_>, ns: NsId) -> Result<Vec<Enforcement>, Error> {
    scan(txn, &tables::mfa(ns, ENFORCEMENT, &[]))
}

/// Writes an enforcement.
pub fn save_enforcement(txn: &mut Txn<'_>, ns: NsId, e: &Enforcement) {
    write(txn, tables::mfa(ns, ENFORCEMENT, &[e.name.as_bytes()]), e);
}

/// Deletes an enforcement.
pub fn delete_enforcement(txn: &mut Txn<'_>, ns: NsId, name: &str) {
    txn.delete(&tables::mfa(ns, ENFORCEMENT, &[name.as_bytes()]));
}

/// Lets the enforcements of a namespace that name one entity name another instead.
pub fn rename_entity(txn: &mut Txn<'_>, ns: NsId, from: &str, to: &str) -> Result<(), Error> {
    for mut e in enforcements(txn, ns)? {
        if !e.entities.iter().any(|id| id == from) {
            continue;
        }
        e.entities.retain(|id| id != from);
        e.entities.push(to.to_owned());
        e.entities.sort();
        e.entities.dedup();
        save_enforcement(txn, ns, &e);
    }
    Ok(())
}

fn of_entity(ns: NsId, kind: u8, entity: &str, method: &str) -> Vec<u8> {
    tables::mfa(ns, kind, &[entity.as_bytes(), &[0], method.as_bytes()])
}

/// The secret of an entity for a method.
pub fn secret(txn: &mut Txn<'_>, ns: NsId, method: &str, entity: &str) -> Result<Option<Secret>, Error> {
    read(txn, &of_entity(ns, SECRET, entity, method))
}

/// Writes a secret.
pub fn save_secret(txn: &mut Txn<'_>, ns: NsId, method: &str, entity: &str, secret: &Secret) {
    write(txn, of_entity(ns, SECRET, entity, method), secret);
}

/// Deletes a secret, and what is known of its codes.
pub fn delete_secret(txn: &mut Txn<'_>, ns: NsId, method: &str, entity: &str) {
    txn.delete(&of_entity(ns, SECRET, entity, method));
    txn.delete(&of_entity(ns, ATTEMPTS, entity, method));
}

/// Ids of the methods for which an entity has a secret.
pub fn secrets_of(txn: &mut Txn<'_>, ns: NsId, entity: &str) -> Result<Vec<String>, Error> {
    let prefix = of_entity(ns, SECRET, entity, "");
    let keys = txn.list(&prefix, None, usize::MAX);
    Ok(keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect())
}

/// Deletes everything of an entity.
pub fn forget_entity(txn: &mut Txn<'_>, ns: NsId, entity: &str) -> Result<(), Error> {
    for method in secrets_of(txn, ns, entity)? {
        delete_secret(txn, ns, &method, entity);
    }
    Ok(())
}

/// What is known of an entity's codes of a method.
pub fn attempts(txn: &mut Txn<'_>, ns: NsId, method: &str, entity: &str) -> Result<Attempts, Error> {
    Ok(read(txn, &of_entity(ns, ATTEMPTS, entity, method))?.unwrap_or_default())
}

/// Notes what is known of an entity's codes of a method.
pub fn save_attempts(txn: &mut Txn<'_>, ns: NsId, method: &str, entity: &str, a: &Attempts) {
    write(txn, of_entity(ns, ATTEMPTS, entity, method), a);
}
