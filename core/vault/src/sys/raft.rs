//! `sys/storage/raft/*`: members and snapshots. The owner core does the work; joining is answered before the pipeline.

use super::status::file;
use super::{as_data, ask_owner, config_record, save_config, tell_owner};
use crate::host::host;
use ringfence_barrier::Txn;
use ringfence_base::NsId;
use ringfence_base::duration::go_seconds;
use ringfence_logical::{
    Args, Cx, Error, Field, Outcome, OwnerOp, Path, Response, SideOp, SideResult, Step, nothing,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const AUTOPILOT_TOPIC: &str = "raft/autopilot";
/// Source: Vault's documented bound.
const MIN_DEAD_SERVER_SECONDS: u64 = 60;

const SERVER: &[Field] =
    &[Field::str("server_id", "Name of the node."), Field::str("dr_operation_token", "Not needed here.").secret()];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("storage/raft/configuration")
        .root_namespace_only()
        .help("The members of the cluster.", "")
        .read(configuration)
        .write(configuration),
    Path::new("storage/raft/remove-peer")
        .fields(SERVER)
        .root_namespace_only()
        .help("Take a node out of the cluster.", "")
        .write(remove_peer),
    Path::new("storage/raft/promote")
        .fields(SERVER)
        .root_namespace_only()
        .help("Give a node a vote.", "It votes as soon as it has kept up for a while.")
        .write(promote),
    Path::new("storage/raft/demote")
        .fields(SERVER)
        .root_namespace_only()
        .help("Take a node's vote.", "It goes on to follow.")
        .write(demote),
    Path::new("storage/raft/snapshot")
        .root_namespace_only()
        .help("All data as one file.", "GET writes it, POST loads it.")
        .read(save)
        .write(restore),
    Path::new("storage/raft/snapshot-force")
        .root_namespace_only()
        .help("Loads a snapshot of another seal.", "")
        .write(restore_any),
    Path::new("storage/raft/autopilot/state")
        .root_namespace_only()
        .help("Health of the cluster.", "")
        .read(autopilot_state),
    Path::new("storage/raft/autopilot/configuration")
        .fields(&[
            Field::bool("cleanup_dead_servers", "Take dead nodes out."),
            Field::seconds("last_contact_threshold", "After which a node is unhealthy."),
            Field::seconds("dead_server_last_contact_threshold", "After which a node is dead."),
            Field::int("max_trailing_logs", "Entries behind after which a node is unhealthy."),
            Field::int("min_quorum", "Nodes that stay whatever happens."),
            Field::seconds("server_stabilization_time", "Healthy so long before a node votes."),
            Field::bool("disable_upgrade_migration", "Kept and shown."),
            Field::str("dr_operation_token", "Not needed here.").secret(),
        ])
        .root_namespace_only()
        .help("Rules of the cluster's upkeep.", "")
        .read(read_autopilot)
        .write(write_autopilot),
];

fn configuration(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ask_owner(OwnerOp::RaftConfiguration, as_data)
}

fn remove_peer(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match args.str("server_id") {
        "" => Err(Error::invalid("no server id provided")),
        id => tell_owner(OwnerOp::Named("remove-peer", json!({ "server_id": id }))),
    }
}

fn save(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Ok(Step::Side {
        op: SideOp::Owner(OwnerOp::SnapshotSave),
        resume: Box::new(|cx, result| match result {
            SideResult::Bytes(archive) => {
                let h = host(cx);
                let name = format!("{}-{}.snap", h.cluster.name, h.wall.rfc3339_seconds().replace(':', ""));
                file("application/gzip", &name, archive)
            }
            SideResult::Failed(why) => Err(Error::internal(why.clone())),
            other => Err(Error::internal(format!("a snapshot gave {other:?}"))),
        }),
    })
}

fn restore(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    load(cx, false)
}

fn restore_any(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    load(cx, true)
}

fn load(cx: &mut Cx<'_, '_>, force: bool) -> Outcome {
    match host(cx).call.raw_body.clone() {
        Some(archive) if !archive.is_empty() => tell_owner(OwnerOp::SnapshotRestore { archive, force }),
        _ => Err(Error::invalid("no snapshot in the request body")),
    }
}

/// The rules of upkeep. All times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Autopilot {
    /// Take dead nodes out.
    pub cleanup_dead_servers: bool,
    /// After which a node is unhealthy.
    pub last_contact_threshold: u64,
    /// After which a node is dead.
    pub dead_server_last_contact_threshold: u64,
    /// Entries behind after which a node is unhealthy.
    pub max_trailing_logs: u64,
    /// Nodes that stay whatever happens.
    pub min_quorum: u64,
    /// Healthy so long before a node votes.
    pub server_stabilization_time: u64,
    /// Kept and shown.
    pub disable_upgrade_migration: bool,
}

impl Default for Autopilot {
    fn default() -> Self {
        // source: Vault's documented defaults
        Autopilot {
            cleanup_dead_servers: false,
            last_contact_threshold: 10,
            dead_server_last_contact_threshold: 24 * 3600,
            max_trailing_logs: 1000,
            min_quorum: 0,
            server_stabilization_time: 10,
            disable_upgrade_migration: false,
        }
    }
}

/// The rules in force.
pub fn autopilot(txn: &mut Txn<'_>) -> Result<Autopilot, Error> {
    config_record(txn, NsId::ROOT, AUTOPILOT_TOPIC).map(Option::unwrap_or_default)
}

fn read_autopilot(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let a = autopilot(cx.txn)?;
    Response::json(json!({
        "cleanup_dead_servers": a.cleanup_dead_servers,
        "last_contact_threshold": go_seconds(a.last_contact_threshold),
        "dead_server_last_contact_threshold": go_seconds(a.dead_server_last_contact_threshold),
        "max_trailing_logs": a.max_trailing_logs,
        "min_quorum": a.min_quorum,
        "server_stabilization_time": go_seconds(a.server_stabilization_time),
        "disable_upgrade_migration": a.disable_upgrade_migration,
    }))
    .done()
}

fn write_autopilot(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut a = autopilot(cx.txn)?;
    for (name, flag) in [
        ("cleanup_dead_servers", &mut a.cleanup_dead_servers),
        ("disable_upgrade_migration", &mut a.disable_upgrade_migration),
    ] {
        *flag = args.opt_bool(name).unwrap_or(*flag);
    }
    for (name, seconds) in [
        ("last_contact_threshold", &mut a.last_contact_threshold),
        ("dead_server_last_contact_threshold", &mut a.dead_server_last_contact_threshold),
        ("server_stabilization_time", &mut a.server_stabilization_time),
    ] {
        *seconds = args.opt_seconds(name).unwrap_or(*seconds);
    }
    for (name, n) in [("max_trailing_logs", &mut a.max_trailing_logs), ("min_quorum", &mut a.min_quorum)] {
        if let Some(given) = args.opt_int(name) {
            *n = u64::try_from(given).map_err(|_| Error::invalid(format!("{name} cannot be negative")))?;
        }
    }
    if a.cleanup_dead_servers && a.min_quorum < 3 {
        return Err(Error::invalid(format!(
            "min_quorum must be set when cleanup_dead_servers is set and it should at least be 3; \
             cleanup_dead_servers: true, min_quorum: {:#x}",
            a.min_quorum
        )));
    }
    if a.dead_server_last_contact_threshold < MIN_DEAD_SERVER_SECONDS {
        return Err(Error::invalid(format!(
            "dead_server_last_contact_threshold should not be set to less than 1m; received: {}",
            go_seconds(a.dead_server_last_contact_threshold)
        )));
    }
    save_config(cx.txn, NsId::ROOT, AUTOPILOT_TOPIC, &a);
    nothing()
}

fn autopilot_state(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ask_owner(OwnerOp::Named("autopilot-state", Value::Null), as_data)
}

fn promote(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    set_voter("promote", args)
}

fn demote(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    set_voter("demote", args)
}

fn set_voter(wish: &'static str, args: &Args) -> Outcome {
    match args.str("server_id") {
        "" => Err(Error::invalid("no server id provided")),
        id => tell_owner(OwnerOp::Named(wish, json!({ "server_id": id }))),
    }
}
