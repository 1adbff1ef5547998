//! `storage` stanzas: where the data lies and, for raft, how the node finds its cluster.

use super::reader::{Block, Reader};
use super::{ConfigError, Environment};
use std::path::PathBuf;
use std::time::Duration;

/// Where the data lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The cluster's own log on this disk.
    Raft(Box<RaftStorage>),
    /// One node's own log on this disk: raft with no peers.
    File {
        /// Folder.
        path: PathBuf,
    },
    /// Memory.
    Inmem,
}

/// Raft storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStorage {
    /// Folder.
    pub path: PathBuf,
    /// The node's name; made and kept when absent.
    pub node_id: Option<String>,
    /// How much slower elections are than they could be; 1 to 10.
    pub performance_multiplier: u64,
    /// Entries kept behind a snapshot.
    pub trailing_logs: u64,
    /// Entries after which a snapshot is due.
    pub snapshot_threshold: u64,
    /// How often that is looked at.
    pub snapshot_interval: Duration,
    /// Largest entry, bytes.
    pub max_entry_size_bytes: u64,
    /// Largest transaction, bytes.
    pub max_transaction_size_bytes: u64,
    /// How often the autopilot acts.
    pub autopilot_reconcile_interval: Duration,
    /// How often the autopilot looks.
    pub autopilot_update_interval: Duration,
    /// Zone, for the autopilot.
    pub autopilot_redundancy_zone: Option<String>,
    /// Version, for the autopilot.
    pub autopilot_upgrade_version: Option<String>,
    /// Where to look for the cluster, in order.
    pub retry_join: Vec<RetryJoin>,
    /// Join without a vote.
    pub retry_join_as_non_voter: bool,
}

/// One place to look for the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryJoin {
    /// Who to ask.
    pub leader: JoinTarget,
    /// Name to expect in the leader's certificate.
    pub leader_tls_servername: Option<String>,
    /// Certificate to verify the leader by.
    pub leader_ca: Option<Pem>,
    /// Certificate to show the leader.
    pub leader_client_cert: Option<Pem>,
    /// Its key.
    pub leader_client_key: Option<Pem>,
}

/// Who to ask for joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinTarget {
    /// A node by its address.
    Address(String),
    /// Nodes found by a cloud's directory.
    Discover {
        /// `provider=.. key=value ..`
        text: String,
        /// `http` or `https`.
        scheme: String,
        /// API port of the nodes.
        port: u16,
    },
}

/// PEM text, or the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// The text itself.
    Text(String),
    /// A file.
    File(PathBuf),
}

impl Storage {
    /// Reads a stanza. The environment may name folder and node.
    pub fn read(
        block: &Block<'_>,
        env: &Environment<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(Storage, Addresses), ConfigError> {
        let from = &block.reader;
        let kind = block.labels[0].to_ascii_lowercase();
        // older configurations set the node's addresses here
        let addresses = Addresses {
            api: from.filled("redirect_addr")?.or(from.filled("api_addr")?),
            cluster: from.filled("cluster_addr")?,
            disable_clustering: from.yes("disable_clustering")?,
        };
        let storage = match kind.as_str() {
            "raft" => Storage::Raft(Box::new(read_raft(from, env, warnings)?)),
            "file" => {
                let path = from.filled("path")?.ok_or_else(|| from.refuse("path must be set"))?;
                Storage::File { path: path.into() }
            }
            "inmem" | "inmem_ha" | "inmem_transactional" | "inmem_transactional_ha" => Storage::Inmem,
            other => {
                return Err(from.refuse(format!("unknown storage type {other:?}: use raft, file or inmem")));
            }
        };
        from.finish(warnings);
        Ok((storage, addresses))
    }
}

/// Addresses that a storage stanza may set for the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// API address.
    pub api: Option<String>,
    /// Cluster address.
    pub cluster: Option<String>,
    /// No cluster port.
    pub disable_clustering: Option<bool>,
}

fn read_raft(
    from: &Reader<'_>,
    env: &Environment<'_>,
    warnings: &mut Vec<String>,
) -> Result<RaftStorage, ConfigError> {
    let path = from.filled("path")?;
    let path = env.get("RAFT_PATH").map(str::to_owned).or(path);
    let path = path.ok_or_else(|| from.refuse("path must be set, here or as VAULT_RAFT_PATH"))?.into();
    let node_id = from.filled("node_id")?;
    let node_id = env.get("RAFT_NODE_ID").map(str::to_owned).or(node_id);
    let multiplier = from.count("performance_multiplier")?.unwrap_or(0);
    if multiplier > 10 {
        return Err(from.refuse("performance_multiplier must be between 0 and 10"));
    }
    let non_voter = from.yes("retry_join_as_non_voter")?.unwrap_or(false);
    let non_voter = env.get("RAFT_RETRY_JOIN_AS_NON_VOTER").and_then(super::units::boolean).unwrap_or(non_voter);
    let mut retry_join = Vec::new();
    for block in from.blocks("retry_join", 0)? {
        retry_join.push(read_join(&block.reader)?);
        block.reader.finish(warnings);
    }
    if non_voter && retry_join.is_empty() {
        return Err(from.refuse("retry_join_as_non_voter needs at least one retry_join"));
    }
    // of the upstream engine's own files; they mean nothing to ours
    from.know(&[
        "raft_wal",
        "raft_log_verifier_enabled",
        "raft_log_verification_interval",
        "max_mount_and_namespace_table_entry_size",
        "log_cache_size",
        "max_batch_entries",
        "max_batch_size",
    ]);
    let seconds = Duration::from_secs;
    Ok(RaftStorage {
        path,
        node_id,
        // 0 is "not set", which upstream takes as 5
        performance_multiplier: if multiplier == 0 { 5 } else { multiplier },
        trailing_logs: from.count("trailing_logs")?.filter(|count| *count > 0).unwrap_or(10_000),
        snapshot_threshold: from.count("snapshot_threshold")?.filter(|count| *count > 0).unwrap_or(8192),
        snapshot_interval: from.time("snapshot_interval")?.unwrap_or(seconds(120)),
        max_entry_size_bytes: from.bytes("max_entry_size")?.unwrap_or(1_048_576),
        max_transaction_size_bytes: from.bytes("max_transaction_size")?.unwrap_or(8_388_608),
        autopilot_reconcile_interval: from.time("autopilot_reconcile_interval")?.unwrap_or(seconds(10)),
        autopilot_update_interval: from.time("autopilot_update_interval")?.unwrap_or(seconds(2)),
        autopilot_redundancy_zone: from.filled("autopilot_redundancy_zone")?,
        autopilot_upgrade_version: from.filled("autopilot_upgrade_version")?,
        retry_join,
        retry_join_as_non_voter: non_voter,
    })
}

fn read_join(from: &Reader<'_>) -> Result<RetryJoin, ConfigError> {
    let address = from.filled("leader_api_addr")?;
    let discover = from.filled("auto_join")?;
    let scheme = from.filled("auto_join_scheme")?.unwrap_or_else(|| "https".to_owned());
    let port = from.count("auto_join_port")?.filter(|port| *port > 0).unwrap_or(8200);
    let leader = match (address, discover) {
        (Some(_), Some(_)) => return Err(from.refuse("leader_api_addr and auto_join exclude each other")),
        (None, None) => return Err(from.refuse("leader_api_addr or auto_join must be set")),
        (Some(address), None) => JoinTarget::Address(address),
        (None, Some(text)) => {
            if !matches!(scheme.as_str(), "http" | "https") {
                return Err(from.refuse("auto_join_scheme must be http or https"));
            }
            let port = u16::try_from(port).map_err(|_| from.refuse("auto_join_port must be a port"))?;
            JoinTarget::Discover { text, scheme, port }
        }
    };
    let pem = |text: &'static str, file: &'static str| -> Result<Option<Pem>, ConfigError> {
        let (text, file) = (from.filled(text)?, from.filled(file)?);
        Ok(text.map(Pem::Text).or_else(|| file.map(|file| Pem::File(file.into()))))
    };
    Ok(RetryJoin {
        leader,
        leader_tls_servername: from.filled("leader_tls_servername")?,
        leader_ca: pem("leader_ca_cert", "leader_ca_cert_file")?,
        leader_client_cert: pem("leader_client_cert", "leader_client_cert_file")?,
        leader_client_key: pem("leader_client_key", "leader_client_key_file")?,
    })
}
