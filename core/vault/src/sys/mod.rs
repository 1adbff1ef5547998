//! The system backend: `sys/*` of every namespace, an engine like any other, one file a topic. What concerns the
//! machine and not its records (status, unsealing, key ceremonies) is answered by the owner core before the pipeline;
//! what needs the owner core for a part (rotation, snapshots) is a side operation here.
//!
//! Nothing here checks policies: the pipeline has.

pub mod activity;
pub mod audit;
pub mod bootstrap;
pub mod capabilities;
pub mod config;
pub mod leases;
pub mod lockouts;
pub mod mounts;
pub mod namespaces;
pub mod plugins;
pub mod policies;
pub mod quotas;
pub mod raft;
pub mod raw;
pub mod remount;
pub mod settings;
pub mod snapshot_auto;
pub mod status;
pub mod tools;
pub mod ui;
pub mod wrapping;

#[cfg(test)]
mod tests;

use crate::identity::IdentityStore;
use crate::tables;
use crate::token::TokenStore;
pub use activity::TOPIC as CONFIG_ACTIVITY;
pub use bootstrap::{FirstRecords, cluster_facts, first_records, note_version};
use ringfence_barrier::Txn;
use ringfence_base::NsId;
use ringfence_logical::path::Table;
use ringfence_logical::{
    Class, Cx, Engine, Error, Map, Outcome, OwnerOp, Path, Registry, Response, SideOp, SideResult, Step,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Topics in the order in which their paths are tried.
const TOPICS: [&[Path]; 21] = [
    mounts::PATHS,
    remount::PATHS,
    policies::PATHS,
    capabilities::PATHS,
    leases::PATHS,
    wrapping::PATHS,
    audit::PATHS,
    config::PATHS,
    tools::PATHS,
    activity::PATHS,
    status::PATHS,
    raft::PATHS,
    snapshot_auto::PATHS,
    ui::PATHS,
    plugins::PATHS,
    lockouts::PATHS,
    namespaces::PATHS,
    quotas::PATHS,
    raw::PATHS,
    crate::help::PATHS,
    crate::mfa::validate::PATHS,
];

const COUNT: usize = {
    let (mut n, mut topic) = (0, 0);
    while topic < TOPICS.len() {
        n += TOPICS[topic].len();
        topic += 1;
    }
    n
};

/// Every path of the system backend.
static ALL: [Path; COUNT] = {
    let mut all = [Path::new(""); COUNT];
    let (mut n, mut topic) = (0, 0);
    while topic < TOPICS.len() {
        let mut at = 0;
        while at < TOPICS[topic].len() {
            all[n] = TOPICS[topic][at];
            n += 1;
            at += 1;
        }
        topic += 1;
    }
    all
};

/// Its table.
pub static TABLE: Table = Table {
    kind: "system",
    class: Class::Secret,
    help: "Settings and state of the server: mounts, auth methods, policies, leases, audit devices, keys and status.",
    paths: &ALL,
};

/// The engine behind `sys/`.
pub struct SystemBackend;

impl Engine for SystemBackend {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        match job.strip_prefix(snapshot_auto::JOB) {
            Some(name) => snapshot_auto::due(cx, name),
            None => ringfence_logical::nothing(),
        }
    }
}

/// Adds this floor's own engines: the system backend and the token store.
pub fn register(registry: &mut Registry) {
    registry
        .add("system", Box::new(SystemBackend))
        .add("token", Box::new(TokenStore))
        .add("identity", Box::new(IdentityStore));
}

/// Reads a record of the configuration table.
pub fn config_record<T: DeserializeOwned>(txn: &mut Txn<'_>, ns: NsId, topic: &str) -> Result<Option<T>, Error> {
    match txn.get(&tables::config(ns, topic))? {
        None => Ok(None),
        Some(p) => {
            let parsed = serde_json::from_slice(&p.bytes);
            parsed.map(Some).map_err(|e| Error::internal(format!("stored configuration {topic:?}: {e}")))
        }
    }
}

/// Writes a record of the configuration table.
pub fn save_config<T: Serialize>(txn: &mut Txn<'_>, ns: NsId, topic: &str, value: &T) {
    let bytes = serde_json::to_vec(value).expect("a configuration record always serialises");
    txn.put(tables::config(ns, topic), &[], &bytes);
}

/// Asks the owner core and goes on with the JSON it answers.
fn ask_owner(op: OwnerOp, then: fn(&mut Cx<'_, '_>, &Value) -> Outcome) -> Outcome {
    let resume = move |cx: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Json(v) => then(cx, v),
        SideResult::Failed(why) => Err(Error::internal(why.clone())),
        other => Err(Error::internal(format!("the owner core answered {other:?}"))),
    };
    Ok(Step::Side { op: SideOp::Owner(op), resume: Box::new(resume) })
}

/// Asks the owner core to do something that has no answer of its own.
fn tell_owner(op: OwnerOp) -> Outcome {
    let resume = |_: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Failed(why) => Err(Error::internal(why.clone())),
        _ => ringfence_logical::nothing(),
    };
    Ok(Step::Side { op: SideOp::Owner(op), resume: Box::new(resume) })
}

/// The owner's JSON as the `data` of the answer.
fn as_data(_: &mut Cx<'_, '_>, v: &Value) -> Outcome {
    Response::data(object(v)?).done()
}

/// The owner's JSON without envelope.
fn as_bare(_: &mut Cx<'_, '_>, v: &Value) -> Outcome {
    bare(v)
}

/// JSON without envelope.
fn bare(v: &Value) -> Outcome {
    let mut body = serde_json::to_vec(v).expect("a JSON tree always serialises");
    body.push(b'\n');
    Response::raw("application/json", body).done()
}

fn object(v: &Value) -> Result<Map, Error> {
    v.as_object().cloned().ok_or_else(|| Error::internal("the owner core answered no object"))
}
