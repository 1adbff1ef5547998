//! Keys, seal, nodes and counts: what the server tells of itself, most of it by asking the owner core.

use super::bootstrap::versions;
use super::{as_bare, as_data, ask_owner, bare, object, tell_owner};
use crate::host::host;
use crate::tables;
use ringfence_barrier::rotate::{MAX_OPERATIONS, RotateConfig};
use ringfence_barrier::{SHARE_BACKUP, SealError, ShareBackup};
use ringfence_base::Code;
use ringfence_logical::{
    Args, Cx, Error, Field, Map, Outcome, OwnerOp, Path, Raw, Response, SideOp, SideResult, Step, nothing,
};
use serde_json::{Value, json};

const FORMAT: Field = Field::str("format", "prometheus for its text, else JSON.").query();

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("key-status").root_namespace_only().help("The active key's term and age.", "").read(key_status),
    Path::new("rotate").sudo().root_namespace_only().help("Add a key to the keyring and use it.", "").write(rotate),
    Path::new("rotate/keyring").sudo().root_namespace_only().help("Another name of rotate.", "").write(rotate),
    ROTATE_CONFIG.read(read_rotation).write(write_rotation),
    Path { pattern: "rotate/keyring/config", ..ROTATE_CONFIG }.read(read_rotation).write(write_rotation),
    Path::new("rekey/backup")
        .sudo()
        .root_namespace_only()
        .help("Encrypted unseal shares that a rekey kept.", "")
        .read(read_backup)
        .delete(delete_backup),
    Path::new("rekey/recovery-key-backup")
        .sudo()
        .root_namespace_only()
        .help("There are no recovery keys.", "")
        .read(no_backup)
        .delete(keep_nothing),
    Path::new("seal").sudo().root_namespace_only().help("Seal the server.", "").write(seal),
    Path::new("step-down")
        .sudo()
        .root_namespace_only()
        .help("Hand the active node's work over.", "")
        .write(step_down),
    Path::new("ha-status").root_namespace_only().help("The nodes of the cluster.", "").read(ha_status),
    Path::new("host-info").root_namespace_only().help("The machine that answers.", "").read(host_info),
    Path::new("in-flight-req").root_namespace_only().help("Requests under way.", "").read(in_flight),
    Path::new("monitor")
        .fields(&[
            Field::str("log_level", "Least level of messages: trace, debug, info, warn or error.").query(),
            Field::str("log_format", "standard or json.").query(),
        ])
        .root_namespace_only()
        .help("The server's log as it is written.", "The answer goes on until the client ends it.")
        .read(monitor),
    Path::new("metrics").fields(&[FORMAT]).root_namespace_only().help("Measurements.", "").read(metrics),
    Path::new("version-history/?").root_namespace_only().help("Versions that ran here.", "").list(version_history),
    Path::new("seal-backend-status")
        .root_namespace_only()
        .public()
        .help("Health of the seal.", "")
        .read(seal_backend),
    Path::new("replication/status").public().help("Replication is not enabled.", "").read(replication),
    Path::new("replication/dr/status").public().help("Replication is not enabled.", "").read(no_replication),
    Path::new("replication/performance/status").public().help("Replication is not enabled.", "").read(no_replication),
    Path::new("internal/counters/entities").help("How many entities there are.", "").read(count_entities),
    Path::new("internal/counters/tokens").help("How many service tokens there are.", "").read(count_tokens),
    Path::new("internal/counters/requests").help("Not counted any more.", "").read(removed),
];

const ROTATE_CONFIG: Path = Path::new("rotate/config")
    .fields(&[
        Field::bool("enabled", "Rotate without being asked."),
        Field::int("max_operations", "Rotate after so many encryptions."),
        Field::seconds("interval", "Rotate after this time; 0 is never."),
    ])
    .root_namespace_only()
    .help("When the key is rotated without being asked.", "");

fn key_status(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ask_owner(OwnerOp::KeyStatus, |_, v| {
        let shown =
            object(v)?.into_iter().filter(|(k, _)| matches!(k.as_str(), "term" | "install_time" | "encryptions"));
        Response::data(shown.collect()).done()
    })
}

fn rotate(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    tell_owner(OwnerOp::Rotate)
}

fn rotation(cx: &Cx<'_, '_>) -> Result<RotateConfig, Error> {
    RotateConfig::load(cx.txn.view()).map_err(|e| Error::internal(format!("stored rotation rules: {}", e.text())))
}

fn read_rotation(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let c = rotation(cx)?;
    Response::json(json!({
        "enabled": c.enabled, "max_operations": c.max_operations, "interval": c.interval_seconds,
    }))
    .done()
}

fn write_rotation(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut c = rotation(cx)?;
    if let Some(enabled) = args.opt_bool("enabled") {
        c.enabled = enabled;
    }
    if let Some(n) = args.opt_int("max_operations") {
        // 0 is the default again
        c.max_operations = if n == 0 { MAX_OPERATIONS } else { u64::try_from(n).unwrap_or(0) };
    }
    if let Some(s) = args.opt_seconds("interval") {
        c.interval_seconds = s;
    }
    c.check().map_err(|e| Error::invalid(e.text()))?;
    tell_owner(OwnerOp::RotateConfig {
        enabled: c.enabled,
        max_operations: c.max_operations,
        interval: c.interval_seconds,
    })
}

fn read_backup(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let backup = match ShareBackup::load(cx.txn.view()) {
        Ok(b) => b,
        Err(SealError::NoBackup) => return no_backup_kept(),
        Err(e) => return Err(Error::internal(format!("stored share backup: {}", e.text()))),
    };
    let (mut hexed, mut coded) = (Map::new(), Map::new());
    for (fingerprint, share) in &backup.keys {
        push(&mut hexed, fingerprint, hex::encode(share));
        push(&mut coded, fingerprint, base64::Engine::encode(&base64::engine::general_purpose::STANDARD, share));
    }
    Response::json(json!({ "nonce": backup.nonce, "keys": hexed, "keys_base64": coded })).done()
}

/// A fingerprint may stand for several shares.
fn push(map: &mut Map, fingerprint: &str, text: String) {
    if let Value::Array(list) = map.entry(fingerprint).or_insert_with(|| json!([])) {
        list.push(text.into());
    }
}

fn no_backup_kept() -> Outcome {
    Err(Error::invalid("no backed-up keys found"))
}

fn no_backup(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    no_backup_kept()
}

fn keep_nothing(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    nothing()
}

fn delete_backup(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    cx.txn.delete(&SHARE_BACKUP);
    nothing()
}

fn seal(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    tell_owner(OwnerOp::Seal)
}

fn step_down(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    tell_owner(OwnerOp::StepDown)
}

fn ha_status(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ask_owner(OwnerOp::Named("ha-status", Value::Null), as_data)
}

fn host_info(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ask_owner(OwnerOp::Named("host-info", Value::Null), as_data)
}

fn in_flight(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ask_owner(OwnerOp::Named("in-flight-req", Value::Null), as_bare)
}

/// Judges the wish; the edge, which has the log, puts the stream into the answer.
fn monitor(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let level = args.str("log_level").to_ascii_lowercase();
    if !matches!(level.as_str(), "" | "trace" | "debug" | "info" | "notice" | "warn" | "warning" | "error" | "err") {
        return Err(Error::invalid("unknown log level"));
    }
    if !matches!(args.str("log_format"), "" | "standard" | "json") {
        return Err(Error::invalid("unknown log format"));
    }
    Response::raw("text/plain; charset=utf-8", Vec::new()).done()
}

fn metrics(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let accept = host(cx).call.headers.iter().any(|(n, v)| {
        n == "accept" && (v.contains("application/openmetrics-text") || v.contains("prometheus/telemetry"))
    });
    let format = if accept || args.str("format") == "prometheus" { "prometheus" } else { "json" };
    Ok(Step::Side {
        op: SideOp::Owner(OwnerOp::Named("metrics", json!({ "format": format }))),
        resume: Box::new(|_, result| match result {
            SideResult::Text(text) => Response::raw(EXPOSITION, text.clone().into_bytes()).done(),
            SideResult::Bytes(bytes) => Response::raw(EXPOSITION, bytes.to_vec()).done(),
            SideResult::Json(v) => bare(v),
            SideResult::Failed(why) => Err(Error::internal(why.clone())),
            other => Err(Error::internal(format!("the server answered {other:?} for metrics"))),
        }),
    })
}

/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4";

fn version_history(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let all = versions(cx.txn)?;
    let mut info = Map::new();
    let mut before = Value::Null;
    for v in &all {
        info.insert(
            v.version.clone(),
            json!({
                "timestamp_installed": v.installed.rfc3339(),
                "build_date": v.build_date,
                "previous_version": before,
            }),
        );
        before = v.version.clone().into();
    }
    let keys: Vec<&str> = all.iter().map(|v| v.version.as_str()).collect();
    Response::json(json!({ "keys": keys, "key_info": info })).done()
}

fn seal_backend(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    bare(&json!({
        "healthy": true, "backends": [{ "name": "shamir", "healthy": true }], "fully_wrapped": true,
    }))
}

fn replication(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::json(json!({ "dr": { "mode": "disabled" }, "performance": { "mode": "disabled" } })).done()
}

fn no_replication(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::json(json!({ "mode": "disabled" })).done()
}

fn count_entities(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let prefix = tables::entity(cx.mount.ns, "");
    let total = cx.txn.view().count_prefix(&prefix);
    Response::json(json!({ "counters": { "entities": { "total": total } } })).done()
}

fn count_tokens(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    // each service token has one accessor, and those stand by namespace
    let prefix = tables::accessor(cx.mount.ns, &[0; 16]);
    let total = cx.txn.view().count_prefix(&prefix[..prefix.len() - 16]);
    Response::json(json!({ "counters": { "service_tokens": { "total": total } } })).done()
}

fn removed(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Err(Error::new(Code::NotFound, "functionality on this path has been removed"))
}

/// An answer that is a file.
pub(super) fn file(content_type: &str, name: &str, bytes: &[u8]) -> Outcome {
    let headers = vec![
        ("Content-Disposition".to_owned(), format!("attachment; filename={name:?}")),
        ("X-Content-Type-Options".to_owned(), "nosniff".to_owned()),
    ];
    let raw = Raw { content_type: content_type.into(), body: bytes.to_vec(), headers };
    Response { raw: Some(raw), ..Response::default() }.done()
}
