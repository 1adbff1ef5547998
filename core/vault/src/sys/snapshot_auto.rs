//! `sys/storage/raft/snapshot-auto/*`: snapshots by schedule, into a directory of the active node's. A schedule is a
//! job of the system backend; the owner builds the archive, the server writes it, reads it back and drops what is over
//! the number kept. A snapshot that fails is told of in the status and tried again at the next time.

use super::{config_record, save_config};
use ringfence_base::{NsId, Wall};
use ringfence_logical::{
    Args, Cx, Error, Field, KeepSnapshot, Outcome, OwnerOp, Path, Response, SideOp, SideResult, Step, nothing,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All schedules, by name.
const TOPIC: &str = "raft/snapshot-auto";
/// What became of them, by name.
const STATUS_TOPIC: &str = "raft/snapshot-auto-status";
/// How the jobs of this topic begin.
pub const JOB: &str = "snapshot-auto/";
/// Most schedules: they stand in one record.
const MAX_SCHEDULES: usize = 64;
/// Shortest interval, seconds.
const MIN_INTERVAL_SECONDS: u64 = 1;
/// Longest text of a fault that the status keeps, bytes.
const MAX_FAULT_BYTES: usize = 1024;

const NAME: Field = Field::str("name", "Name of the schedule.");

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("storage/raft/snapshot-auto/config/?")
        .sudo()
        .root_namespace_only()
        .help("Lists the schedules of snapshots.", "")
        .list(list),
    Path::new("storage/raft/snapshot-auto/config/{name}")
        .fields(&[
            NAME,
            Field::seconds("interval", "Time between two snapshots."),
            Field::int("retain", "How many are kept."),
            Field::str("path_prefix", "The directory, on the active node."),
            Field::str("file_prefix", "How the files' names begin."),
            Field::str("storage_type", "Where they are kept: local."),
            Field::int("local_max_space", "Most bytes that the files of this schedule may take."),
        ])
        .sudo()
        .root_namespace_only()
        .help("A schedule of snapshots.", "Files are named <file_prefix>-<nanoseconds since 1970>.snap.")
        .read(read)
        .write(write)
        .delete(delete),
    Path::new("storage/raft/snapshot-auto/status/{name}")
        .fields(&[NAME])
        .root_namespace_only()
        .help("What became of the last snapshots of a schedule.", "")
        .read(status),
];

/// One schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Schedule {
    /// Seconds.
    interval: u64,
    retain: u64,
    path_prefix: String,
    file_prefix: String,
    storage_type: String,
    /// Bytes.
    local_max_space: u64,
}

/// What became of a schedule's snapshots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Status {
    /// The one under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_start: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_end: Option<Wall>,
    #[serde(default)]
    last_error: String,
    #[serde(default)]
    last_url: String,
    #[serde(default)]
    consecutive_errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Wall>,
}

fn schedules(cx: &mut Cx<'_, '_>) -> Result<BTreeMap<String, Schedule>, Error> {
    config_record(cx.txn, NsId::ROOT, TOPIC).map(Option::unwrap_or_default)
}

fn statuses(cx: &mut Cx<'_, '_>) -> Result<BTreeMap<String, Status>, Error> {
    config_record(cx.txn, NsId::ROOT, STATUS_TOPIC).map(Option::unwrap_or_default)
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(schedules(cx)?.into_keys().collect()).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(s) = schedules(cx)?.remove(args.str("name")) else { return nothing() };
    Response::json(serde_json::to_value(s).expect("a schedule always serialises")).done()
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let mut all = schedules(cx)?;
    let mut s = all.get(name).cloned().unwrap_or(Schedule {
        interval: 0,
        retain: 1,
        path_prefix: String::new(),
        file_prefix: "vault-snapshot".into(),
        storage_type: String::new(),
        local_max_space: 0,
    });
    for (field, text) in [
        ("path_prefix", &mut s.path_prefix),
        ("file_prefix", &mut s.file_prefix),
        ("storage_type", &mut s.storage_type),
    ] {
        if let Some(given) = args.opt_str(field) {
            *text = given.to_owned();
        }
    }
    for (field, n) in [("retain", &mut s.retain), ("local_max_space", &mut s.local_max_space)] {
        if let Some(given) = args.opt_int(field) {
            *n = u64::try_from(given).map_err(|_| Error::invalid(format!("{field} cannot be negative")))?;
        }
    }
    s.interval = args.opt_seconds("interval").unwrap_or(s.interval);
    check(&s).map_err(Error::invalid)?;
    if all.len() >= MAX_SCHEDULES && !all.contains_key(name) {
        return Err(Error::invalid(format!("there are {MAX_SCHEDULES} schedules of snapshots already")));
    }
    let next = cx.now.plus_seconds(s.interval);
    let mut told = statuses(cx)?;
    told.entry(name.to_owned()).or_default().next = Some(next);
    all.insert(name.to_owned(), s);
    save_config(cx.txn, NsId::ROOT, TOPIC, &all);
    save_config(cx.txn, NsId::ROOT, STATUS_TOPIC, &told);
    cx.schedule(&format!("{JOB}{name}"), next);
    nothing()
}

fn check(s: &Schedule) -> Result<(), String> {
    match s.storage_type.as_str() {
        "local" => {}
        "" => return Err("storage_type must be specified".into()),
        "aws-s3" | "google-gcs" | "azure-blob" => {
            return Err(format!("storage_type {} is not served: local is", s.storage_type));
        }
        other => return Err(format!("unknown storage_type {other:?}")),
    }
    if s.interval < MIN_INTERVAL_SECONDS {
        return Err("interval must be specified".into());
    }
    if s.retain == 0 {
        return Err("retain must be at least 1".into());
    }
    if s.path_prefix.is_empty() {
        return Err("path_prefix must be specified".into());
    }
    if !s.path_prefix.starts_with('/') {
        return Err("path_prefix must be an absolute path".into());
    }
    if s.path_prefix.contains('\0') || s.path_prefix.split('/').any(|part| part == "..") {
        return Err("path_prefix must not lead upwards".into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if s.file_prefix.is_empty() || s.file_prefix.len() > 128 || !s.file_prefix.chars().all(plain) {
        return Err("file_prefix must be letters, digits, '-', '_' and '.'".into());
    }
    if s.local_max_space == 0 {
        return Err("local_max_space must be specified".into());
    }
    Ok(())
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let (mut all, mut told) = (schedules(cx)?, statuses(cx)?);
    if all.remove(name).is_some() {
        told.remove(name);
        save_config(cx.txn, NsId::ROOT, TOPIC, &all);
        save_config(cx.txn, NsId::ROOT, STATUS_TOPIC, &told);
        cx.unschedule(&format!("{JOB}{name}"));
    }
    nothing()
}

fn status(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if !schedules(cx)?.contains_key(name) {
        return nothing();
    }
    let s = statuses(cx)?.remove(name).unwrap_or_default();
    let time = |t: Option<Wall>| t.map_or(Value::Null, |t| t.rfc3339().into());
    Response::json(json!({
        "consecutive_errors": s.consecutive_errors,
        "last_snapshot_start": time(s.last_start),
        "last_snapshot_end": time(s.last_end),
        "last_snapshot_error": s.last_error,
        "last_snapshot_url": s.last_url,
        "next_snapshot_start": time(s.next),
        "snapshot_start": time(s.started),
        "snapshot_url": "",
    }))
    .done()
}

/// The time of a schedule has come.
pub fn due(cx: &mut Cx<'_, '_>, name: &str) -> Outcome {
    let Some(s) = schedules(cx)?.remove(name) else { return nothing() };
    let mut told = statuses(cx)?;
    told.entry(name.to_owned()).or_default().started = Some(cx.now);
    save_config(cx.txn, NsId::ROOT, STATUS_TOPIC, &told);
    let (name, interval, begun) = (name.to_owned(), s.interval, cx.now);
    Ok(Step::Intent {
        op: SideOp::Owner(OwnerOp::SnapshotKeep(Box::new(KeepSnapshot {
            directory: s.path_prefix,
            file_prefix: s.file_prefix,
            retain: s.retain,
            max_bytes: s.local_max_space,
        }))),
        resume: Box::new(move |cx, result| {
            let mut told = statuses(cx)?;
            // deleted meanwhile
            let Some(status) = told.get_mut(&name) else { return nothing() };
            status.started = None;
            (status.last_start, status.last_end) = (Some(begun), Some(cx.now));
            match result {
                SideResult::Json(v) => {
                    status.last_url = v["url"].as_str().unwrap_or("").to_owned();
                    (status.last_error, status.consecutive_errors) = (String::new(), 0);
                }
                other => {
                    let why = match other {
                        SideResult::Failed(why) => why.clone(),
                        SideResult::Refused(e) => e.errors.join("; "),
                        other => format!("a snapshot gave {other:?}"),
                    };
                    status.last_error = why.chars().take(MAX_FAULT_BYTES).collect();
                    status.consecutive_errors += 1;
                }
            }
            // the times keep their distance; those that were missed are not made up for
            let mut next = begun.plus_seconds(interval);
            if next <= cx.now {
                next = cx.now.plus_seconds(interval);
            }
            status.next = Some(next);
            save_config(cx.txn, NsId::ROOT, STATUS_TOPIC, &told);
            cx.schedule(&format!("{JOB}{name}"), next);
            nothing()
        }),
    })
}
