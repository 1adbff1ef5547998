//! `status`, and the seal status that unsealing prints as well.

use super::client::{CallError, Request};
use super::output::{go_value, key_value};
use super::session::{Fail, Outcome, Session, usage};
use super::verb::{Verb, verb};
use serde_json::{Map, Value, json};

/// `status`
pub const STATUS: Verb = verb("status", "", "Print seal and cluster status", &[], status);

fn status(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    // 2 means sealed here, so every error leaves with 1
    let failed = |error: CallError| match error {
        CallError::Dry(text) => Fail::Dry(text),
        error => usage(format!("Error checking seal status: {error}")),
    };
    if let Err(Fail::Error { text, .. }) = session.client() {
        return Err(usage(text));
    }
    let seal = session.call_json(&Request::get("sys/seal-status").in_root_namespace()).map_err(failed)?;
    let sealed = seal["sealed"].as_bool().unwrap_or(true);
    let code = match session.flags.text("field").map(str::to_owned) {
        Some(name) => {
            let all = with_leader(session, seal)?;
            let value = match name.as_str() {
                "ha_mode" => Some(json!(if all["is_self"] == true { "active" } else { "standby" })),
                _ => all.get(&name).cloned(),
            };
            session.print_field(value, &name, "seal status")?
        }
        None => print_seal_status(session, seal)?,
    };
    Ok(if sealed { 2 } else { code })
}

/// The seal status with what the leader call adds.
fn with_leader(session: &mut Session<'_, '_>, seal: Value) -> Result<Map<String, Value>, Fail> {
    let request = Request { dry: false, ..Request::get("sys/leader").in_root_namespace() };
    let leader = match session.call_json(&request) {
        Ok(leader) => leader,
        // a sealed node cannot ask who leads, but it would not be refusing if it stood alone
        Err(error) if error.to_string().contains("Vault is sealed") => json!({ "ha_enabled": true }),
        Err(error) => return Err(usage(format!("Error checking leader status: {error}"))),
    };
    let Value::Object(mut all) = seal else { return Err(usage("the server's seal status is not understood")) };
    for name in [
        "ha_enabled",
        "is_self",
        "active_time",
        "leader_address",
        "leader_cluster_address",
        "performance_standby",
        "performance_standby_last_remote_wal",
        "last_wal",
        "raft_committed_index",
        "raft_applied_index",
    ] {
        let value = leader.get(name).cloned().unwrap_or(Value::Null);
        let says_nothing = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_u64() == Some(0),
            _ => false,
        };
        if name == "ha_enabled" {
            all.insert(name.to_owned(), json!(value == true));
        } else if !says_nothing {
            all.insert(name.to_owned(), value);
        }
    }
    Ok(all)
}

/// Prints a seal status, asking the server what else there is to say.
pub fn print_seal_status(session: &mut Session<'_, '_>, seal: Value) -> Outcome {
    let all = with_leader(session, seal)?;
    if !session.is_table() {
        return session.print_data(&all);
    }
    session.say(&key_value(rows(&all)))
}

fn rows(all: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |name: &str| all.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
    let yes = |name: &str| all.get(name) == Some(&Value::Bool(true));
    let count = |name: &str| all.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| rows.push((key.to_owned(), value));
    let recovery = yes("recovery_seal");
    add("Seal Type", text("type"));
    if recovery {
        add("Recovery Seal Type", text("recovery_seal_type"));
    }
    add("Initialized", yes("initialized").to_string());
    add("Sealed", yes("sealed").to_string());
    add(if recovery { "Total Recovery Shares" } else { "Total Shares" }, count("n").to_string());
    add("Threshold", count("t").to_string());
    if yes("sealed") {
        add("Unseal Progress", format!("{}/{}", count("progress"), count("t")));
        add("Unseal Nonce", text("nonce"));
    }
    if yes("migration") {
        add("Seal Migration in Progress", "true".to_owned());
    }
    for (title, name) in [
        ("Version", "version"),
        ("Build Date", "build_date"),
        ("Commit Date", "commit_date"),
        ("Storage Type", "storage_type"),
    ] {
        if !text(name).is_empty() {
            add(title, text(name));
        }
    }
    if yes("removed_from_cluster") {
        add("Removed From Cluster", "true".to_owned());
    }
    if !text("cluster_name").is_empty() && !text("cluster_id").is_empty() {
        add("Cluster Name", text("cluster_name"));
        add("Cluster ID", text("cluster_id"));
    }
    add("HA Enabled", yes("ha_enabled").to_string());
    if yes("ha_enabled") && !yes("sealed") {
        add("HA Cluster", text("leader_cluster_address"));
        add("HA Mode", if yes("is_self") { "active" } else { "standby" }.to_owned());
        let since = text("active_time");
        if yes("is_self") && !since.is_empty() && !since.starts_with("0001-01-01") {
            add("Active Since", since);
        }
        if !yes("is_self") {
            if !text("leader_address").is_empty() {
                add("Active Node Address", text("leader_address"));
            }
            add("Performance Standby Node", yes("performance_standby").to_string());
            if yes("performance_standby") {
                add("Performance Standby Last Remote WAL", count("performance_standby_last_remote_wal").to_string());
            }
        }
    }
    for (title, name) in [
        ("Raft Committed Index", "raft_committed_index"),
        ("Raft Applied Index", "raft_applied_index"),
        ("Last WAL", "last_wal"),
    ] {
        if count(name) > 0 {
            add(title, count(name).to_string());
        }
    }
    rows
}
