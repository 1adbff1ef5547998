//! The first records of a cluster, and the few that name it. Called by the node at initialisation and at each unseal.

use super::mounts::fresh;
use super::{config_record, save_config};
use crate::host::{API_VERSION, ClusterFacts};
use crate::mount::MountEntry;
use crate::namespace::Namespace;
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{Entropy, NsId, Wall, entropy};
use ringfence_logical::{Class, Error};
use serde::{Deserialize, Serialize};

const CLUSTER_TOPIC: &str = "core/cluster";
const VERSIONS_TOPIC: &str = "core/versions";
/// Versions that are remembered.
const MAX_VERSIONS: usize = 256;

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstRecords {
    /// `vault-cluster-1a2b3c4d`, or as configured.
    pub cluster_name: String,
    /// A UUID.
    pub cluster_id: String,
    /// The token store of the root namespace: where the first root token is of.
    pub token_mount: ringfence_base::MountId,
}

#[derive(Serialize, Deserialize)]
struct Cluster {
    name: String,
    id: String,
}

/// A version that ran here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Semantic version.
    pub version: String,
    /// Log time of its first unseal.
    pub installed: Wall,
    /// RFC 3339.
    pub build_date: String,
}

/// Writes the root namespace, its default mounts and the cluster's name.
///
/// # Errors
/// `Vault is already initialized` if there is a cluster record.
pub fn first_records(
    txn: &mut Txn<'_>,
    rng: &mut dyn Entropy,
    now: Wall,
    cluster_name: Option<&str>,
) -> Result<FirstRecords, Error> {
    if txn.exists(&tables::config(NsId::ROOT, CLUSTER_TOPIC)) {
        return Err(Error::invalid("Vault is already initialized"));
    }
    Namespace::root(entropy::uuid4(rng)).save(txn);
    let token_mount = default_mounts(txn, rng, NsId::ROOT)?;
    let name = match cluster_name {
        Some(given) if !given.is_empty() => given.to_owned(),
        _ => {
            let mut tail = [0u8; 4];
            rng.fill(&mut tail);
            format!("vault-cluster-{}", hex::encode(tail))
        }
    };
    let id = entropy::uuid4(rng);
    save_config(txn, NsId::ROOT, CLUSTER_TOPIC, &Cluster { name: name.clone(), id: id.clone() });
    note_version(txn, now, API_VERSION, &crate::host::Settings::default().build_date)?;
    Ok(FirstRecords { cluster_name: name, cluster_id: id, token_mount })
}

/// Mounts what every namespace has; answers the number of its token store.
pub(super) fn default_mounts(
    txn: &mut Txn<'_>,
    rng: &mut dyn Entropy,
    ns: NsId,
) -> Result<ringfence_base::MountId, Error> {
    let mut add = |class, path: &str, kind: &str, description: &str, fill: fn(&mut MountEntry)| {
        let mut entry = fresh(txn, rng, ns, class, path, kind)?;
        if ns != NsId::ROOT {
            // source: the types that Vault shows for the mounts that every child namespace has
            entry.accessor = entry.accessor.replacen(kind, &format!("ns_{kind}"), 1);
        }
        entry.description = description.to_owned();
        fill(&mut entry);
        entry.save(txn);
        Ok::<_, Error>(entry.id)
    };
    add(Class::Secret, "cubbyhole/", "cubbyhole", "per-token private secret storage", |e| e.local = true)?;
    add(Class::Secret, "identity/", "identity", "identity store", |e| {
        e.config.passthrough_request_headers = vec!["Authorization".into()];
    })?;
    add(Class::Secret, "sys/", "system", "system endpoints used for control, policy and debugging", |e| {
        e.config.passthrough_request_headers = vec!["Accept".into()];
    })?;
    add(Class::Auth, "token/", "token", "token based credentials", |_| {})
}

/// Name and id of the cluster.
///
/// # Errors
/// An internal one where [`first_records`] never ran.
pub fn cluster_facts(txn: &mut Txn<'_>) -> Result<ClusterFacts, Error> {
    let c: Cluster = config_record(txn, NsId::ROOT, CLUSTER_TOPIC)?
        .ok_or_else(|| Error::internal("the image has no record of its cluster"))?;
    Ok(ClusterFacts { name: c.name, id: c.id })
}

/// Versions that ran here, in the order of their first unseal.
pub fn versions(txn: &mut Txn<'_>) -> Result<Vec<Version>, Error> {
    config_record(txn, NsId::ROOT, VERSIONS_TOPIC).map(Option::unwrap_or_default)
}

/// Notes that a version runs here; writes only if it is new. Answers whether it was.
pub fn note_version(txn: &mut Txn<'_>, now: Wall, version: &str, build_date: &str) -> Result<bool, Error> {
    let mut all = versions(txn)?;
    if all.iter().any(|v| v.version == version) {
        return Ok(false);
    }
    all.push(Version { version: version.to_owned(), installed: now, build_date: build_date.to_owned() });
    let excess = all.len().saturating_sub(MAX_VERSIONS);
    all.drain(..excess);
    save_config(txn, NsId::ROOT, VERSIONS_TOPIC, &all);
    Ok(true)
}
