//! `policy`: read, write, list, delete and format policies.

use super::client::Request;
use super::io::of_file;
use super::session::{Outcome, Session, doing, remote, usage};
use super::verb::{Verb, verb};
use serde_json::{Value, json};

/// Largest policy file that is taken, bytes.
const MAX_POLICY_BYTES: usize = 1024 * 1024;

/// The verbs below `policy`.
pub const VERBS: &[Verb] = &[
    verb("read", "<name>", "Print a policy", &[], read),
    verb("write", "<name> <file or ->", "Upload a policy", &[], write),
    verb("list", "", "List policies", &[], list),
    verb("delete", "<name>", "Delete a policy", &[], delete),
    verb("fmt", "<file>", "Rewrite a policy file in canonical form", &[], format_file),
];

fn read(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let name = session.arg(0).to_lowercase();
    let answer = session
        .read_secret(&Request::get(format!("sys/policies/acl/{name}")))
        .map_err(doing(format!("Error reading policy named {name}")))?;
    let rules = answer.as_ref().and_then(|secret| secret.field("policy")).and_then(Value::as_str).unwrap_or_default();
    if rules.is_empty() {
        return Err(remote(format!("No policy named: {name}")));
    }
    if session.is_table() {
        return session.say(rules.trim());
    }
    session.print_data(&json!({ "policy": rules }))
}

fn write(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(2, 2)?;
    let given = session.flags.args[0].clone();
    let name = given.trim().to_lowercase();
    let source = session.arg(1).to_owned();
    let bytes = if source == "-" {
        session.io.read_all(MAX_POLICY_BYTES).map_err(|error| remote(format!("Error reading policy: {error}")))?
    } else {
        let path = session.io.expand(&source);
        std::fs::read(path)
            .map_err(|error| remote(format!("Error opening policy file: {}", of_file(&source, &error))))?
    };
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(remote(format!("Error reading policy: larger than {MAX_POLICY_BYTES} bytes")));
    }
    let rules = String::from_utf8(bytes).map_err(|_| remote("Error reading policy: not UTF-8"))?;
    session
        .call(&Request::put(format!("sys/policies/acl/{name}"), json!({ "policy": rules })))
        .map_err(doing("Error uploading policy"))?;
    if name != given {
        session.io.err(&format!("Policy name was converted from \"{given}\" to \"{name}\""));
    }
    session.say(&format!("Success! Uploaded policy: {name}"))
}

fn list(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let answer = session.read_secret(&Request::list("sys/policies/acl")).map_err(doing("Error listing policies"))?;
    let names: Vec<String> = answer
        .as_ref()
        .and_then(|secret| secret.keys())
        .map(|keys| keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    if !session.is_table() {
        return session.print_data(&names);
    }
    for name in names {
        session.io.out(&name);
    }
    Ok(0)
}

fn delete(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let name = session.arg(0).to_lowercase();
    session
        .call(&Request::delete(format!("sys/policies/acl/{name}")))
        .map_err(doing(format!("Error deleting {name}")))?;
    session.say(&format!("Success! Deleted policy: {name}"))
}

fn format_file(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let given = session.arg(0).to_owned();
    let path = session.io.expand(&given);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| usage(format!("Error reading source file: {}: {error}", path.display())))?;
    let formatted =
        ringfence_node::hcl::format(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    std::fs::write(&path, formatted)
        .map_err(|error| usage(format!("Error writing result: {}: {error}", path.display())))?;
    session.say(&format!("Success! Formatted policy: {}", path.display()))
}
