//! `operator`: initialise, unseal, seal, rotate and look after the server itself.

use super::client::Request;
use super::output::{columns, go_value, table, wrap};
use super::session::{Fail, Outcome, Session, doing, no_data, remote, usage};
use super::status::print_seal_status;
use super::verb::{Kind, Verb, flag, group, verb};
use super::{generate_root, raft, rekey};
use serde_json::{Map, Value, json};

/// The verbs below `operator`.
pub const VERBS: &[Verb] = &[
    verb(
        "init",
        "",
        "Initialise a server",
        &[
            flag("status", Kind::Bool, "Only tell whether it is initialised: exit code 0, or 2 if it is not."),
            flag("key-shares", Kind::Int, "How many shares the unseal key is split into; default 5."),
            flag("key-threshold", Kind::Int, "How many shares unseal; default 3."),
            flag("pgp-keys", Kind::List, "Files with PGP keys to encrypt the shares with."),
            flag("root-token-pgp-key", Kind::Text, "File with a PGP key to encrypt the root token with."),
            flag("recovery-shares", Kind::Int, "How many shares the recovery key is split into; default 5."),
            flag("recovery-threshold", Kind::Int, "How many recovery shares are needed; default 3."),
            flag("recovery-pgp-keys", Kind::List, "Files with PGP keys to encrypt the recovery shares with."),
            flag("stored-shares", Kind::Int, "Accepted for old scripts."),
        ],
        init,
    ),
    verb(
        "unseal",
        "[key]",
        "Give a share of the unseal key",
        &[
            flag("reset", Kind::Bool, "Forget the shares given so far."),
            flag("migrate", Kind::Bool, "Migrate to another seal."),
        ],
        unseal,
    ),
    verb("seal", "", "Seal the server", &[], |session| {
        simple(session, "sys/seal", "Error sealing", "Success! Vault is sealed.")
    }),
    verb("step-down", "", "Make the active node a standby", &[], step_down),
    verb("key-status", "", "Tell about the encryption key", &[], key_status),
    verb("rotate", "", "Begin a new encryption key", &[], rotate),
    verb("members", "", "List the nodes of the cluster", &[], members),
    rekey::REKEY,
    generate_root::GENERATE_ROOT,
    group("raft", "Work with raft storage", raft::VERBS),
    super::diagnose::DIAGNOSE,
    super::unbuilt::OPERATOR[0],
    super::unbuilt::OPERATOR[1],
    super::unbuilt::OPERATOR[2],
    super::unbuilt::OPERATOR[3],
];

/// A request that says nothing but "do it".
fn command(path: &str) -> Request {
    Request { body: no_data(), ..Request::new("PUT", path) }
}

fn simple(session: &mut Session<'_, '_>, path: &str, what: &str, done: &str) -> Outcome {
    session.expect_args(0, 0)?;
    session.call(&command(path)).map_err(doing(what))?;
    session.say(done)
}

fn step_down(session: &mut Session<'_, '_>) -> Outcome {
    let address = session.client()?.settings.address.clone();
    simple(session, "sys/step-down", "Error stepping down", &format!("Success! Stepped down: {address}"))
}

/// Reads files with PGP keys; what is no file is taken as a key in base64.
pub fn pgp_keys(session: &Session<'_, '_>, names: &[String]) -> Result<Vec<String>, Fail> {
    use base64::Engine;
    names
        .iter()
        .map(|name| {
            if name.starts_with("keybase:") {
                return Err(usage(format!("keys are not fetched from the network: {name}")));
            }
            let path = session.io.expand(name.strip_prefix('@').unwrap_or(name));
            if !path.is_file() {
                return Ok(name.clone());
            }
            let bytes = std::fs::read(&path).map_err(|error| usage(format!("{}: {error}", path.display())))?;
            Ok(match std::str::from_utf8(&bytes) {
                Ok(text) if !text.contains("-----BEGIN") => text.trim().to_owned(),
                _ => base64::engine::general_purpose::STANDARD.encode(&bytes),
            })
        })
        .collect()
}

fn init(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    if session.flags.is_set("status") {
        return init_status(session);
    }
    let aside = Request::get("sys/seal-status").aside().in_root_namespace();
    let seal = session.call_json(&aside).map_err(|error| remote(error.to_string()))?;
    let auto = seal["recovery_seal"] == true;
    let flags = &session.flags;
    let shares = flags.int("key-shares").unwrap_or(if auto { 0 } else { 5 });
    let threshold = flags.int("key-threshold").unwrap_or(if auto { 0 } else { 3 });
    let recovery_shares = flags.int("recovery-shares").unwrap_or(5);
    let recovery_threshold = flags.int("recovery-threshold").unwrap_or(3);
    let keys = pgp_keys(session, &flags.split_list("pgp-keys"))?;
    let recovery_keys = pgp_keys(session, &flags.split_list("recovery-pgp-keys"))?;
    let root_key = pgp_keys(session, &flags.split_list("root-token-pgp-key"))?;
    let mut body = Map::new();
    let mut add = |name: &str, value: Value| body.insert(name.to_owned(), value);
    add("secret_shares", json!(shares));
    add("secret_threshold", json!(threshold));
    add("pgp_keys", if keys.is_empty() { Value::Null } else { json!(keys) });
    add("root_token_pgp_key", json!(root_key.first().map_or("", String::as_str)));
    if auto {
        add("recovery_shares", json!(recovery_shares));
        add("recovery_threshold", json!(recovery_threshold));
        add("recovery_pgp_keys", if recovery_keys.is_empty() { Value::Null } else { json!(recovery_keys) });
    }
    let request = Request::put("sys/init", Value::Object(body)).in_root_namespace();
    let answer = session.call_json(&request).map_err(doing("Error initializing"))?;
    let (recovery_shares, recovery_threshold) = if auto { (recovery_shares, recovery_threshold) } else { (0, 0) };
    if !session.is_table() {
        let list = |name: &str| answer.get(name).filter(|keys| keys.is_array()).cloned().unwrap_or_else(|| json!([]));
        let stored = list("keys").as_array().is_none_or(Vec::is_empty);
        return session.print_data(&json!({
            "unseal_keys_b64": list("keys_base64"),
            "unseal_keys_hex": list("keys"),
            "unseal_shares": if stored { 1 } else { shares },
            "unseal_threshold": if stored { 1 } else { threshold },
            "recovery_keys_b64": list("recovery_keys_base64"),
            "recovery_keys_hex": list("recovery_keys"),
            "recovery_keys_shares": recovery_shares,
            "recovery_keys_threshold": recovery_threshold,
            "root_token": answer["root_token"],
        }));
    }
    let unseal_keys = print_keys(session, &answer, "keys", "Unseal Key");
    let recovery_keys = print_keys(session, &answer, "recovery_keys", "Recovery Key");
    session.io.out(&format!("\nInitial Root Token: {}\n", go_value(&answer["root_token"])));
    if unseal_keys > 0 {
        session.io.out(&wrap(&format!(
            "Vault initialized with {shares} key shares and a key threshold of {threshold}. Please keep the shares \
             printed above in different safe places: when the server is sealed, restarted or stopped, at least \
             {threshold} of them are needed before it serves again."
        )));
        session.io.out("");
        session.io.out(&wrap(&format!(
            "The root key itself is kept nowhere. With fewer than {threshold} shares nothing can bring it back, and \
             the server stays sealed for ever."
        )));
        session.io.out("");
        session.io.out(&wrap(&format!(
            "New shares can be made by a quorum of the present ones: see \"{} operator rekey\".",
            session.program
        )));
    } else {
        session.io.out("Success! Vault is initialized");
    }
    if recovery_keys > 0 {
        session.io.out("");
        session.io.out(&wrap(&format!(
            "Recovery key initialized with {recovery_shares} key shares and a key threshold of {recovery_threshold}. \
             Please keep the shares printed above in different safe places."
        )));
    }
    Ok(0)
}

/// Prints numbered keys, base64 where the server has it; answers how many.
fn print_keys(session: &mut Session<'_, '_>, answer: &Value, name: &str, title: &str) -> usize {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let (hex, base64) = (list(name), list(&format!("{name}_base64")));
    let shown = if base64.len() == hex.len() { &base64 } else { &hex };
    for (i, key) in shown.iter().enumerate() {
        session.io.out(&format!("{title} {}: {}", i + 1, go_value(key)));
    }
    shown.len()
}

fn init_status(session: &mut Session<'_, '_>) -> Outcome {
    let answer = match session.call_json(&Request::get("sys/init").in_root_namespace()) {
        Ok(answer) => answer,
        // 2 means "not initialised" here
        Err(super::client::CallError::Dry(text)) => return Err(Fail::Dry(text)),
        Err(error) => return Err(usage(format!("Error checking init status: {error}"))),
    };
    let done = answer["initialized"] == true;
    if session.is_table() {
        session.io.out(if done { "Vault is initialized" } else { "Vault is not initialized" });
    } else {
        session.print_data(&json!({ "initialized": done }))?;
    }
    Ok(if done { 0 } else { 2 })
}

fn unseal(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    if session.flags.is_set("reset") {
        let request = Request::put("sys/unseal", json!({ "reset": true })).in_root_namespace();
        let seal = session.call_json(&request).map_err(doing("Error resetting unseal process"))?;
        return print_seal_status(session, seal);
    }
    let mut key = session.arg(0).to_owned();
    if key.is_empty() {
        if !session.interactive() {
            return Err(usage(wrap(
                "Refusing to read from stdin with -non-interactive specified; specify unseal key as an argument to \
                 this command",
            )));
        }
        let asked = session.io.ask_hidden("Unseal Key (will be hidden): ");
        key = asked.map_err(|error| usage(format!("No unseal key was given: {error}")))?.trim().to_owned();
    }
    let body = json!({ "key": key, "migrate": session.flags.is_set("migrate") });
    let request = Request::put("sys/unseal", body).in_root_namespace();
    let seal = session.call_json(&request).map_err(doing("Error unsealing"))?;
    print_seal_status(session, seal)
}

fn read_key_status(session: &mut Session<'_, '_>) -> Result<Map<String, Value>, Fail> {
    let request = Request { dry: true, ..Request::get("sys/key-status") };
    let answer = session.call_secret(&request).map_err(doing("Error reading key status"))?;
    answer.and_then(|secret| secret.data).ok_or_else(|| remote("Error reading key status: empty answer"))
}

fn key_status_text(status: &Map<String, Value>) -> String {
    let text = |name: &str| status.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
    let rows = [
        ("Key Term", text("term")),
        ("Install Time", short_time(&text("install_time"))),
        ("Encryption Count", text("encryptions")),
    ];
    columns(&rows.map(|(key, value)| vec![key.to_owned(), value]))
}

/// `2024-05-06T07:08:09Z` as RFC 822 writes it: `06 May 24 07:08 UTC`.
fn short_time(text: &str) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts = || -> Option<String> {
        let (year, rest) = text.split_once('-')?;
        let (month, rest) = rest.split_once('-')?;
        let (day, clock) = rest.split_once('T')?;
        let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some(format!("{day} {month} {} {} UTC", year.get(2..4)?, clock.get(..5)?))
    };
    if text.ends_with('Z') { parts().unwrap_or_else(|| text.to_owned()) } else { text.to_owned() }
}

fn key_status(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let status = read_key_status(session)?;
    if session.is_table() { session.say(&key_status_text(&status)) } else { session.print_data(&status) }
}

fn rotate(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    session.call(&command("sys/rotate")).map_err(doing("Error rotating key"))?;
    let status = read_key_status(session)?;
    if session.is_table() {
        session.say(&format!("Success! Rotated key\n\n{}", key_status_text(&status)))
    } else {
        session.print_data(&status)
    }
}

fn members(session: &mut Session<'_, '_>) -> Outcome {
    let answer =
        session.call_secret(&Request::get("sys/ha-status")).map_err(doing("Error reading the cluster's members"))?;
    let data = answer.and_then(|secret| secret.data).unwrap_or_default();
    if !session.is_table() {
        return session.print_data(&data);
    }
    let names =
        ["Host Name", "API Address", "Cluster Address", "Active Node", "Version", "Upgrade Version", "Last Echo"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for node in data.get("nodes").and_then(Value::as_array).into_iter().flatten() {
        let fields =
            ["hostname", "api_address", "cluster_address", "active_node", "version", "upgrade_version", "last_echo"];
        let text = |name: &str| node.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
        rows.push(fields.map(text).to_vec());
    }
    session.say(&table(rows))
}

#[cfg(test)]
mod tests {
    use super::short_time;

    #[test]
    fn times_in_the_short_form() {
        assert_eq!(short_time("2024-05-06T07:08:09.123Z"), "06 May 24 07:08 UTC");
        assert_eq!(short_time("soon"), "soon");
    }
}
