//! `monitor` and `debug`: what a running server can be asked about itself.

use super::client::Request;
use super::output::json;
use super::session::{Outcome, Session, doing, usage};
use super::verb::{Kind, Verb, flag, verb};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// `monitor`
pub const MONITOR: Verb = verb(
    "monitor",
    "",
    "Stream the log of a server",
    &[
        flag("log-level", Kind::Text, "Least level of messages; default info."),
        flag("log-format", Kind::Text, "standard or json; default standard."),
    ],
    monitor,
);

/// `debug`
pub const DEBUG: Verb = verb(
    "debug",
    "",
    "Collect what a server tells of itself into an archive",
    &[
        flag("duration", Kind::Duration, "How long to collect; default 2m."),
        flag("interval", Kind::Duration, "How often to ask for status; default 30s."),
        flag("metrics-interval", Kind::Duration, "Accepted for old scripts: metrics are asked for at -interval."),
        flag("output", Kind::Text, "The archive; default ringfence-debug-<time>.tar.gz."),
        flag("compress", Kind::Bool, "Accepted for old scripts: the archive is always compressed."),
        flag(
            "target",
            Kind::List,
            "What to collect: config, host, metrics, replication-status, server-status, requests. Default all.",
        ),
    ],
    debug,
);

fn monitor(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let level = session.flags.text_or("log-level", "info").to_owned();
    let format = session.flags.text_or("log-format", "standard").to_owned();
    let mut request = Request::get("sys/monitor").with_query("log_level", &level).with_query("log_format", &format);
    request.wrap = false;
    if session.flags.is_set("output-curl-string") || session.flags.is_set("output-policy") {
        session.call(&request).map_err(doing("Error starting the monitor"))?;
    }
    session.stream(&request).map_err(doing("Error starting the monitor"))?;
    Ok(0)
}

/// A target's name, its file and the paths that are asked.
const TARGETS: &[(&str, &str, &[&str])] = &[
    ("config", "config.json", &["sys/config/state/sanitized"]),
    ("host", "host_info.json", &["sys/host-info"]),
    ("metrics", "metrics.json", &["sys/metrics"]),
    ("replication-status", "replication_status.json", &["sys/replication/status"]),
    ("server-status", "server_status.json", &["sys/health", "sys/seal-status"]),
    ("requests", "requests.json", &["sys/in-flight-req"]),
];

fn debug(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let time = |flag: &str, preset: u64| match session.flags.duration_ns(flag) {
        Some(ns) => Duration::from_nanos(u64::try_from(ns).unwrap_or(0)),
        None => Duration::from_secs(preset),
    };
    let (duration, interval) = (time("duration", 120), time("interval", 30).max(Duration::from_secs(1)));
    let wanted = session.flags.split_list("target");
    if let Some(unknown) = wanted.iter().find(|w| !TARGETS.iter().any(|t| t.0 == w.as_str())) {
        let known: Vec<&str> = TARGETS.iter().map(|t| t.0).collect();
        return Err(usage(format!("Invalid target {unknown:?}; use {}", known.join(", "))));
    }
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let name = session.flags.text_or("output", &format!("ringfence-debug-{stamp}.tar.gz")).to_owned();
    let path = session.io.expand(&name);
    let failed = |error: std::io::Error| usage(format!("Error writing {}: {error}", path.display()));
    let options = &mut std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;

    let chosen: Vec<_> = TARGETS.iter().filter(|t| wanted.is_empty() || wanted.iter().any(|w| w == t.0)).collect();
    let mut found: Vec<Vec<Value>> = vec![Vec::new(); chosen.len()];
    let (begun, mut errors) = (Instant::now(), Vec::new());
    session.io.err(&format!("Collecting for {}s into {}", duration.as_secs(), path.display()));
    loop {
        for (target, found) in chosen.iter().zip(&mut found) {
            // what does not change is asked once
            if !found.is_empty() && matches!(target.0, "config" | "host") {
                continue;
            }
            let mut row = serde_json::Map::new();
            row.insert("seconds".into(), json!(begun.elapsed().as_secs()));
            for asked in target.2 {
                match session.call_json(&Request::get(*asked).aside()) {
                    Ok(answer) => drop(row.insert((*asked).into(), answer)),
                    Err(error) => errors.push(json!({ "target": target.0, "error": error.to_string() })),
                }
            }
            found.push(Value::Object(row));
        }
        let left = duration.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(interval));
    }
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let folder = format!("ringfence-debug-{stamp}");
    let index = json!({
        "version": 1, "duration_seconds": duration.as_secs(), "interval_seconds": interval.as_secs(),
        "targets": chosen.iter().map(|t| t.0).collect::<Vec<_>>(), "errors": errors,
    });
    let mut add = |name: &str, value: &Value| {
        let text = json(value);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())
    };
    add("index.json", &index).map_err(failed)?;
    for (target, found) in chosen.iter().zip(found) {
        add(target.1, &Value::Array(found)).map_err(failed)?;
    }
    let ended =
        archive.into_inner().and_then(GzEncoder::finish).and_then(|mut f| f.flush().and_then(|()| f.sync_all()));
    ended.map_err(failed)?;
    session.say(&format!("Success! Bundle written to: {}", path.display()))
}
