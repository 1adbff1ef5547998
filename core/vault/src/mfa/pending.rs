//! Logins that wait for their second factor: what the login proved, sealed, for five minutes, under a keyed hash of the
//! request id that the client was given. The expiry is a job of the namespace's identity store.

use super::records::PENDING;
use crate::mount::Router;
use crate::tables;
use ringfence_barrier::{HashKind, Keyring, Txn};
use ringfence_base::{MountId, NsId, Wall};
use ringfence_logical::cx::{job_header, job_key};
use ringfence_logical::{Auth, Cx, Error, Outcome, nothing};
use serde::{Deserialize, Serialize};

/// Kind of the keyed hash that stands for a request id.
const REQUEST_HASH: HashKind = HashKind(69);
/// How long a login waits. Source: Vault's documented five minutes.
const LIFE_SECONDS: u64 = 300;
/// Begins the name of the job that ends a wait.
pub const EXPIRY_JOB: &str = "mfa-pending/";

/// A login that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// What it proved.
    pub auth: Auth,
    /// At which mount.
    pub mount: MountId,
    /// Path of the login within the namespace.
    pub path: String,
    /// Log time after which it is worth nothing.
    pub until: Wall,
}

fn hash(keyring: &Keyring, id: &str) -> [u8; 16] {
    keyring.index_hash(REQUEST_HASH, id.as_bytes())
}

fn store(txn: &Txn<'_>, router: &Router, ns: NsId) -> Result<Option<MountId>, Error> {
    Ok(router.at(txn, ns, "identity/")?.map(|m| m.entry.id))
}

/// Files a login under a fresh request id.
#[allow(clippy::too_many_arguments)]
pub fn file(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    ns: NsId,
    id: &str,
    auth: Auth,
    mount: MountId,
    path: &str,
    now: Wall,
) -> Result<(), Error> {
    let hash = hash(keyring, id);
    let p = Pending { auth, mount, path: path.to_owned(), until: now.plus_seconds(LIFE_SECONDS) };
    let bytes = serde_json::to_vec(&p).expect("a waiting login always serialises");
    txn.put(tables::mfa(ns, PENDING, &[&hash]), &[], &bytes);
    if let Some(store) = store(txn, router, ns)? {
        txn.put(job_key(store, &format!("{EXPIRY_JOB}{}", hex::encode(hash))), &job_header(store, p.until), &[]);
    }
    Ok(())
}

/// The login behind a request id of this namespace, if it still waits.
pub fn find(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, id: &str, now: Wall) -> Result<Option<Pending>, Error> {
    let Some(plain) = txn.get(&tables::mfa(ns, PENDING, &[&hash(keyring, id)]))? else { return Ok(None) };
    let p: Pending =
        serde_json::from_slice(&plain.bytes).map_err(|e| Error::internal(format!("stored login: {e}")))?;
    Ok((now < p.until).then_some(p))
}

/// Ends the wait.
pub fn forget(txn: &mut Txn<'_>, keyring: &Keyring, router: &Router, ns: NsId, id: &str) -> Result<(), Error> {
    let hash = hash(keyring, id);
    txn.delete(&tables::mfa(ns, PENDING, &[&hash]));
    if let Some(store) = store(txn, router, ns)? {
        txn.delete(&job_key(store, &format!("{EXPIRY_JOB}{}", hex::encode(hash))));
    }
    Ok(())
}

/// The job: the wait is over.
pub fn expire(cx: &mut Cx<'_, '_>, hash: &str) -> Outcome {
    if let Ok(hash) = hex::decode(hash) {
        cx.txn.delete(&tables::mfa(cx.mount.ns, PENDING, &[&hash]));
    }
    nothing()
}
