//! `operator raft`: the peers of a raft cluster, its snapshots and its autopilot.

use super::client::Request;
use super::output::{go_value, key_value, table};
use super::session::{Fail, Format, Outcome, Session, doing, remote, usage};
use super::snapshot;
use super::verb::{Flag, Kind, Verb, flag, group, verb};
use ringfence_base::duration;
use serde_json::{Map, Value, json};

const DR_TOKEN: Flag = flag("dr-token", Kind::Text, "DR operation token, on a DR secondary.");

/// The verbs below `operator raft`.
pub const VERBS: &[Verb] = &[
    verb("list-peers", "", "List the peers", &[DR_TOKEN], list_peers),
    verb(
        "join",
        "<leader address or auto-join text>",
        "Join a cluster",
        &[
            flag("leader-ca-cert", Kind::Text, "Certificate to verify the leader by; @file reads a file."),
            flag("leader-client-cert", Kind::Text, "Certificate to show the leader; @file reads a file."),
            flag("leader-client-key", Kind::Text, "Key of that certificate; @file reads a file."),
            flag("leader-tls-servername", Kind::Text, "Name to expect in the leader's certificate."),
            flag("retry", Kind::Bool, "Try until it succeeds."),
            flag("non-voter", Kind::Bool, "Join without a vote."),
            flag("auto-join-scheme", Kind::Text, "http or https."),
            flag("auto-join-port", Kind::Int, "Port of the peers that are found."),
        ],
        join,
    ),
    verb("remove-peer", "<id>", "Remove a peer", &[DR_TOKEN], remove_peer),
    verb("promote", "<id>", "Give a peer a vote", &[DR_TOKEN], promote),
    verb("demote", "<id>", "Take a peer's vote", &[DR_TOKEN], demote),
    group("snapshot", "Save, restore and inspect snapshots", snapshot::VERBS),
    group("autopilot", "Work with the autopilot", AUTOPILOT_VERBS),
];

const AUTOPILOT_VERBS: &[Verb] = &[
    verb("state", "", "Print the autopilot's view of the cluster", &[DR_TOKEN], autopilot_state),
    verb("get-config", "", "Print the autopilot's settings", &[DR_TOKEN], autopilot_get),
    verb(
        "set-config",
        "",
        "Change the autopilot's settings",
        &[
            flag("cleanup-dead-servers", Kind::Bool, "Remove dead peers."),
            flag("last-contact-threshold", Kind::Duration, "Silence after which a peer is unhealthy."),
            flag("dead-server-last-contact-threshold", Kind::Duration, "Silence after which a peer is dead."),
            flag("max-trailing-logs", Kind::Int, "Entries a healthy peer may lag behind."),
            flag("min-quorum", Kind::Int, "Peers that are never removed."),
            flag("server-stabilization-time", Kind::Duration, "Time a new peer must be healthy before it votes."),
            flag("disable-upgrade-migration", Kind::Bool, "No automatic moves between versions."),
            DR_TOKEN,
        ],
        autopilot_set,
    ),
];

fn list_peers(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let what = "Error reading the raft cluster configuration";
    let path = "sys/storage/raft/configuration";
    let answer = match session.flags.text("dr-token").filter(|token| !token.is_empty()) {
        Some(token) => {
            let request = Request::put(path, json!({ "dr_operation_token": token }));
            session.call_secret(&request).map_err(doing(what))?
        }
        None => session.read_secret(&Request::get(path)).map_err(doing(what))?,
    };
    let Some(secret) = answer else { return Err(remote("No raft cluster configuration found")) };
    if !session.is_table() {
        return session.print_secret(&secret);
    }
    let mut rows = vec![["Node", "Address", "State", "Voter"].map(str::to_owned).to_vec()];
    let servers = secret.field("config").and_then(|config| config["servers"].as_array());
    for server in servers.into_iter().flatten() {
        let text = |name: &str| server.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
        let state = if server["leader"] == true { "leader" } else { "follower" };
        rows.push(vec![text("node_id"), text("address"), state.to_owned(), (server["voter"] == true).to_string()]);
    }
    session.say(&table(rows))
}

/// The text of a flag, or of the file it names with `@`.
fn text_or_file(session: &Session<'_, '_>, name: &str, what: &str) -> Result<String, Fail> {
    let given = session.flags.text(name).unwrap_or_default();
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(session.io.expand(path))
            .map_err(|error| usage(format!("Failed to parse leader {what}: {path}: {error}"))),
        None => Ok(given.to_owned()),
    }
}

fn join(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let leader = session.arg(0).to_owned();
    let scheme = session.flags.text("auto-join-scheme").unwrap_or_default().to_owned();
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        return Err(usage(format!("invalid scheme {scheme:?}; must either be http or https")));
    }
    let mut body = json!({
        "leader_ca_cert": text_or_file(session, "leader-ca-cert", "CA certificate")?,
        "leader_client_cert": text_or_file(session, "leader-client-cert", "client certificate")?,
        "leader_client_key": text_or_file(session, "leader-client-key", "client key")?,
        "retry": session.flags.is_set("retry"),
        "non_voter": session.flags.is_set("non-voter"),
    });
    if leader.contains("provider=") {
        body["auto_join"] = json!(leader);
        body["auto_join_scheme"] = json!(scheme);
        body["auto_join_port"] = json!(session.flags.int("auto-join-port").unwrap_or(0));
    } else {
        body["leader_api_addr"] = json!(leader);
    }
    if let Some(name) = session.flags.text("leader-tls-servername") {
        body["leader_tls_servername"] = json!(name);
    }
    let answer = session
        .call_json(&Request::post("sys/storage/raft/join", body))
        .map_err(doing("Error joining the node to the Raft cluster"))?;
    if !session.is_table() {
        return session.print_data(&answer);
    }
    session.say(&key_value([("Joined".to_owned(), (answer["joined"] == true).to_string())]))
}

fn remove_peer(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let id = session.arg(0).to_owned();
    if id.is_empty() {
        return Err(usage("Server id is required"));
    }
    let body = with_dr_token(session, json!({ "server_id": id }));
    session
        .call(&Request::put("sys/storage/raft/remove-peer", body))
        .map_err(doing("Error removing the peer from raft cluster"))?;
    session.say("Peer removed successfully!")
}

fn promote(session: &mut Session<'_, '_>) -> Outcome {
    set_voter(session, "promote", "promoting", "Peer promoted successfully!")
}

fn demote(session: &mut Session<'_, '_>) -> Outcome {
    set_voter(session, "demote", "demoting", "Peer demoted successfully!")
}

fn set_voter(session: &mut Session<'_, '_>, verb: &str, doing_it: &str, done: &str) -> Outcome {
    session.expect_args(1, 1)?;
    let body = with_dr_token(session, json!({ "server_id": session.arg(0) }));
    session
        .call(&Request::put(format!("sys/storage/raft/{verb}"), body))
        .map_err(|e| doing(&format!("Error {doing_it} the peer"))(e))?;
    session.say(done)
}

fn with_dr_token(session: &Session<'_, '_>, mut body: Value) -> Value {
    if let Some(token) = session.flags.text("dr-token").filter(|token| !token.is_empty()) {
        body["dr_operation_token"] = json!(token);
    }
    body
}

/// Reads one of the autopilot's objects, with a DR operation token if one is given.
fn autopilot_read(session: &mut Session<'_, '_>, name: &str, what: &str) -> Result<Option<Map<String, Value>>, Fail> {
    session.expect_args(0, 0)?;
    let path = format!("sys/storage/raft/autopilot/{name}");
    let mut request = Request::get(path);
    if let Some(token) = session.flags.text("dr-token").filter(|token| !token.is_empty()) {
        request = request.with_query("dr_operation_token", token);
    }
    let answer = session.read_secret(&request).map_err(doing(what))?;
    Ok(answer.and_then(|secret| secret.data))
}

fn autopilot_get(session: &mut Session<'_, '_>) -> Outcome {
    let Some(config) = autopilot_read(session, "configuration", "Error reading the autopilot configuration")? else {
        return Ok(0);
    };
    if !session.is_table() {
        return session.print_data(&config);
    }
    let rows = [
        ("Cleanup Dead Servers", "cleanup_dead_servers"),
        ("Last Contact Threshold", "last_contact_threshold"),
        ("Dead Server Last Contact Threshold", "dead_server_last_contact_threshold"),
        ("Server Stabilization Time", "server_stabilization_time"),
        ("Min Quorum", "min_quorum"),
        ("Max Trailing Logs", "max_trailing_logs"),
        ("Disable Upgrade Migration", "disable_upgrade_migration"),
    ];
    let rows = rows.into_iter().filter_map(|(title, name)| Some((title.to_owned(), go_value(config.get(name)?))));
    session.say(&key_value(rows))
}

fn autopilot_set(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let mut body = Map::new();
    for name in ["cleanup-dead-servers", "disable-upgrade-migration"] {
        if session.flags.given(name) {
            body.insert(name.replace('-', "_"), json!(session.flags.is_set(name)));
        }
    }
    for name in ["max-trailing-logs", "min-quorum"] {
        if let Some(count) = session.flags.int(name).filter(|count| *count > 0) {
            body.insert(name.replace('-', "_"), json!(count));
        }
    }
    for name in ["last-contact-threshold", "dead-server-last-contact-threshold", "server-stabilization-time"] {
        if let Some(ns) = session.flags.duration_ns(name).filter(|ns| *ns > 0) {
            body.insert(name.replace('-', "_"), json!(duration::go_string(ns)));
        }
    }
    let body = with_dr_token(session, Value::Object(body));
    let answer = session
        .call_secret(&Request::put("sys/storage/raft/autopilot/configuration", body))
        .map_err(doing("Error changing the autopilot configuration"))?;
    answer.map_or(Ok(0), |secret| session.print_secret(&secret))
}

fn autopilot_state(session: &mut Session<'_, '_>) -> Outcome {
    let Some(state) = autopilot_read(session, "state", "Error checking autopilot state")? else { return Ok(0) };
    match session.format {
        // there is no table of it: a tree says more
        Format::Table | Format::Pretty => session.say(&state_text(&state)),
        _ => session.print_data(&state),
    }
}

fn state_text(state: &Map<String, Value>) -> String {
    let text = |name: &str| state.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
    let mut lines = vec![
        format!("{:<33}{}", "Healthy:", text("healthy")),
        format!("{:<33}{}", "Failure Tolerance:", text("failure_tolerance")),
        format!("{:<33}{}", "Leader:", text("leader")),
    ];
    for (title, name) in [("Voters:", "voters"), ("Non Voters:", "non_voters")] {
        let ids = state.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        if !ids.is_empty() || name == "voters" {
            lines.push(title.to_owned());
            lines.extend(ids.iter().map(|id| format!("   {}", go_value(id))));
        }
    }
    if state.get("optimistic_failure_tolerance").and_then(Value::as_u64).unwrap_or(0) > 0 {
        lines.push(format!("{:<33}{}", "Optimistic Failure Tolerance:", text("optimistic_failure_tolerance")));
    }
    lines.push("Servers:".to_owned());
    for (id, server) in state.get("servers").and_then(Value::as_object).into_iter().flatten() {
        lines.push(format!("   {id}"));
        for (title, name) in [
            ("Name:", "name"),
            ("Address:", "address"),
            ("Status:", "status"),
            ("Node Status:", "node_status"),
            ("Healthy:", "healthy"),
            ("Last Contact:", "last_contact"),
            ("Last Term:", "last_term"),
            ("Last Index:", "last_index"),
            ("Version:", "version"),
            ("Upgrade Version:", "upgrade_version"),
            ("Redundancy Zone:", "redundancy_zone"),
            ("Node Type:", "node_type"),
        ] {
            if let Some(value) = server.get(name).filter(|value| !value.is_null() && **value != json!("")) {
                lines.push(format!("      {title:<19}{}", go_value(value)));
            }
        }
    }
    lines.join("\n")
}
