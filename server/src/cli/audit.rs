//! `audit`: enable, disable and list audit devices.

use super::client::Request;
use super::kvargs;
use super::output::{go_value, table};
use super::session::{Outcome, Session, doing, sanitized, usage, with_slash};
use super::verb::{Kind, Verb, flag, verb};
use serde_json::{Map, Value, json};

/// The verbs below `audit`.
pub const VERBS: &[Verb] = &[
    verb(
        "enable",
        "<type> [key=value...]",
        "Enable an audit device",
        &[
            flag("path", Kind::Text, "Its name; default its type."),
            flag("description", Kind::Text, "What it is for."),
            flag("local", Kind::Bool, "Not replicated."),
        ],
        enable,
    ),
    verb("disable", "<path>", "Disable an audit device", &[], disable),
    verb("list", "", "List audit devices", &[], list),
];

fn enable(session: &mut Session<'_, '_>) -> Outcome {
    if session.flags.args.is_empty() {
        return Err(usage(
            "Error enabling audit device: audit type missing. Valid types include 'file', 'socket' and 'syslog'.",
        ));
    }
    let kind = session.arg(0).to_owned();
    let path = with_slash(session.flags.text("path").filter(|path| !path.is_empty()).unwrap_or(&kind));
    let args = session.flags.args[1..].to_vec();
    let interactive = session.interactive();
    let options = kvargs::parse_texts(session.io, &args, interactive)
        .map_err(|error| usage(format!("Failed to parse K=V data: {error}")))?;
    let body = json!({
        "type": kind,
        "description": session.flags.text_or("description", ""),
        "options": options,
        "local": session.flags.is_set("local"),
    });
    session
        .call(&Request::put(format!("sys/audit/{}", path.trim_matches('/')), body))
        .map_err(doing("Error enabling audit device"))?;
    session.say(&format!("Success! Enabled the {kind} audit device at: {path}"))
}

fn disable(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let path = with_slash(&sanitized(session.arg(0)));
    session
        .call(&Request::delete(format!("sys/audit/{}", path.trim_end_matches('/'))))
        .map_err(doing("Error disabling audit device"))?;
    session.say(&format!("Success! Disabled audit device (if it was enabled) at: {path}"))
}

fn list(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let answer = session.call_json(&Request::get("sys/audit")).map_err(doing("Error listing audits"))?;
    let from = answer.get("data").filter(|data| data.is_object()).unwrap_or(&answer);
    let devices: Map<String, Value> = from
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, device)| path.ends_with('/') && device.is_object())
        .map(|(path, device)| (path.clone(), device.clone()))
        .collect();
    if !session.is_table() {
        return session.print_data(&devices);
    }
    if devices.is_empty() {
        session.io.out("No audit devices are enabled.");
        return Ok(2);
    }
    let mut rows = vec![vec!["Path".to_owned(), "Type".to_owned(), "Description".to_owned()]];
    if session.detailed {
        rows[0].extend(["Replication".to_owned(), "Options".to_owned()]);
    }
    for (path, device) in &devices {
        let text = |name: &str| device.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
        let mut row = vec![path.clone(), text("type"), text("description")];
        if session.detailed {
            row.push(if device["local"].as_bool() == Some(true) { "local" } else { "replicated" }.to_owned());
            let options = device["options"].as_object().into_iter().flatten();
            row.push(options.map(|(key, value)| format!("{key}={}", go_value(value))).collect::<Vec<_>>().join(" "));
        }
        rows.push(row);
    }
    session.say(&table(rows))
}
