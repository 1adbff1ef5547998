//! `operator rekey`: make new shares of the unseal or recovery key.

use super::client::{Body, Request};
use super::operator::pgp_keys;
use super::output::{go_value, key_value, wrap};
use super::session::{Fail, Outcome, Session, doing, usage};
use super::verb::{Kind, Verb, flag, verb};
use serde_json::{Value, json};

/// `operator rekey`
pub const REKEY: Verb = verb(
    "rekey",
    "[key]",
    "Make new shares of the unseal key",
    &[
        flag("init", Kind::Bool, "Begin."),
        flag("cancel", Kind::Bool, "Give up."),
        flag("status", Kind::Bool, "Tell how far it is."),
        flag("verify", Kind::Bool, "With -init: the new shares count only after being proved. Else: prove them."),
        flag("target", Kind::Text, "barrier or recovery; default barrier."),
        flag("key-shares", Kind::Int, "How many new shares; default 5."),
        flag("key-threshold", Kind::Int, "How many of them are needed; default 3."),
        flag("nonce", Kind::Text, "Nonce of the operation."),
        flag("pgp-keys", Kind::List, "Files with PGP keys to encrypt the new shares with."),
        flag("backup", Kind::Bool, "Keep a copy of the encrypted shares on the server."),
        flag("backup-retrieve", Kind::Bool, "Print that copy."),
        flag("backup-delete", Kind::Bool, "Delete that copy."),
    ],
    rekey,
);

fn base(session: &Session<'_, '_>) -> Result<&'static str, Fail> {
    match session.flags.text_or("target", "barrier").trim().to_ascii_lowercase().as_str() {
        "barrier" => Ok("sys/rekey"),
        "recovery" | "hsm" => Ok("sys/rekey-recovery-key"),
        other => Err(usage(format!("Unknown target: {other}"))),
    }
}

fn is_recovery(base: &str) -> bool {
    base == "sys/rekey-recovery-key"
}

fn rekey(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let base = base(session)?;
    let backup = if is_recovery(base) { "sys/rekey/recovery-key-backup" } else { "sys/rekey/backup" };
    let set = |name: &str| session.flags.is_set(name);
    if set("backup-delete") {
        session.call(&Request::delete(backup)).map_err(doing("Error deleting rekey backed up keys"))?;
        return session.say("Success! Deleted backed up keys (if they existed)");
    }
    if set("backup-retrieve") {
        let answer =
            session.call_secret(&Request::get(backup)).map_err(doing("Error retrieving rekey backed up keys"))?;
        return answer.map_or(Ok(0), |secret| session.print_secret(&secret));
    }
    let verify = set("verify");
    if set("cancel") {
        let path = if verify { format!("{base}/verify") } else { format!("{base}/init") };
        let mut request = Request::delete(path);
        if let Some(nonce) = session.flags.text("nonce") {
            request.body = Body::Json(json!({ "nonce": nonce }));
        }
        session.call(&request).map_err(doing("Error canceling rekey"))?;
        return session.say("Success! Canceled rekeying (if it was started)");
    }
    if set("init") {
        return begin(session, base);
    }
    if set("status") {
        return status(session, base, verify);
    }
    provide(session, base, verify)
}

fn begin(session: &mut Session<'_, '_>, base: &str) -> Outcome {
    let keys = pgp_keys(session, &session.flags.split_list("pgp-keys"))?;
    let backup = session.flags.is_set("backup");
    let body = json!({
        "secret_shares": session.flags.int("key-shares").unwrap_or(5),
        "secret_threshold": session.flags.int("key-threshold").unwrap_or(3),
        "pgp_keys": if keys.is_empty() { Value::Null } else { json!(keys) },
        "backup": backup,
        "require_verification": session.flags.is_set("verify"),
    });
    let answer =
        session.call_json(&Request::put(format!("{base}/init"), body)).map_err(doing("Error initializing rekey"))?;
    if session.is_table() && (keys.is_empty() || !backup) {
        let what = if is_recovery(base) { "recovery" } else { "unseal" };
        let advice = if keys.is_empty() { "-pgp-keys and -backup" } else { "-backup" };
        session.io.err(&wrap(&format!(
            "WARNING! If you lose the keys after they are returned, there is no recovery. Consider canceling this \
             operation and beginning again with {advice}, so that the {what} keys come encrypted and a copy of them \
             stays on the server."
        )));
        session.io.err("");
    }
    print_status(session, &answer, false)
}

fn status(session: &mut Session<'_, '_>, base: &str, verify: bool) -> Outcome {
    let path = if verify { format!("{base}/verify") } else { format!("{base}/init") };
    let answer = session.call_json(&Request::get(path)).map_err(doing("Error reading rekey status"))?;
    print_status(session, &answer, verify)
}

fn print_status(session: &mut Session<'_, '_>, status: &Value, verify: bool) -> Outcome {
    if !session.is_table() {
        return session.print_data(status);
    }
    let text = |name: &str| status.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    let mut rows: Vec<(&str, String)> = Vec::new();
    if verify {
        rows.push(("Started", text("started")));
        rows.push(("New Shares", text("n")));
        rows.push(("New Threshold", text("t")));
        rows.push(("Verification Nonce", text("nonce")));
        rows.push(("Verification Progress", format!("{}/{}", count("progress"), count("t"))));
    } else {
        rows.push(("Nonce", text("nonce")));
        rows.push(("Started", text("started")));
        if status["started"] == true {
            let (progress, required) = (count("progress"), count("required"));
            let proving = if progress == required { " (verification in progress)" } else { "" };
            rows.push(("Rekey Progress", format!("{progress}/{required}{proving}")));
            rows.push(("New Shares", text("n")));
            rows.push(("New Threshold", text("t")));
            rows.push(("Verification Required", (status["verification_required"] == true).to_string()));
            if !text("verification_nonce").is_empty() {
                rows.push(("Verification Nonce", text("verification_nonce")));
            }
        }
        if status["pgp_fingerprints"].as_array().is_some_and(|prints| !prints.is_empty()) {
            rows.push(("PGP Fingerprints", text("pgp_fingerprints")));
            rows.push(("Backup", (status["backup"] == true).to_string()));
        }
    }
    session.say(&key_value(rows.into_iter().map(|(key, value)| (key.to_owned(), value))))
}

/// A share for an operation under way: from the argument, standard input or the person; with the operation's nonce.
pub fn share(session: &mut Session<'_, '_>, nonce: &str, title: &str, kind: &str) -> Result<(String, String), Fail> {
    let given = session.flags.text("nonce").unwrap_or_default().to_owned();
    let (key, nonce) = match session.arg(0) {
        "-" => {
            let bytes = session
                .io
                .read_all(64 * 1024)
                .map_err(|error| usage(format!("Failed to read from stdin: {error}")))?;
            (String::from_utf8_lossy(&bytes).into_owned(), given)
        }
        "" => {
            if !session.interactive() {
                return Err(usage(wrap(
                    "Refusing to read from stdin with -non-interactive specified; specify nonce via the -nonce flag",
                )));
            }
            session.io.err(&format!("{title}: {nonce}"));
            let asked = session.io.ask_hidden(&format!("{kind} Key (will be hidden): "));
            let key = asked.map_err(|error| usage(format!("No key was given: {error}")))?;
            (key, nonce.to_owned())
        }
        key => (key.to_owned(), given),
    };
    if nonce.is_empty() {
        return Err(usage("Missing nonce value: specify it via the -nonce flag"));
    }
    Ok((key.trim().to_owned(), nonce))
}

fn provide(session: &mut Session<'_, '_>, base: &str, verify: bool) -> Outcome {
    let (asked, update) = if verify { ("verify", "verify") } else { ("init", "update") };
    let path = format!("{base}/{asked}");
    let before = session.call_json(&Request::get(path).aside()).map_err(doing("Error getting rekey status"))?;
    if before["started"] != true {
        return Err(usage(wrap(&format!(
            "No rekey is in progress. Start a rekey process by running \"{} operator rekey -init\".",
            session.program
        ))));
    }
    let kind = if is_recovery(base) { "Recovery" } else { "Unseal" };
    let nonce = before["nonce"].as_str().unwrap_or_default().to_owned();
    let (key, nonce) = share(session, &nonce, "Rekey operation nonce", kind)?;
    let request = Request::put(format!("{base}/{update}"), json!({ "key": key, "nonce": nonce }));
    let answer = session.call_json(&request).map_err(doing("Error posting unseal key"))?;
    if answer["complete"] != true {
        return status(session, base, verify);
    }
    if !session.is_table() {
        return session.print_data(&answer);
    }
    if verify {
        return session.say(&wrap(
            "Rekey verification successful. The rekey operation is complete and the new keys are now active.",
        ));
    }
    session.io.out("");
    print_new_keys(session, &answer);
    finish(session, base, &before, &answer)
}

fn print_new_keys(session: &mut Session<'_, '_>, answer: &Value) {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let (hex, base64, prints) = (list("keys"), list("keys_base64"), list("pgp_fingerprints"));
    let shown = if base64.len() == hex.len() { base64 } else { hex };
    for (i, key) in shown.iter().enumerate() {
        let key = go_value(key);
        session.io.out(&match prints.get(i) {
            Some(print) => format!("Key {} fingerprint: {}; value: {key}", i + 1, go_value(print)),
            None => format!("Key {}: {key}", i + 1),
        });
    }
}

fn finish(session: &mut Session<'_, '_>, base: &str, before: &Value, answer: &Value) -> Outcome {
    let (shares, threshold) = (go_value(&before["n"]), go_value(&before["t"]));
    let what = if is_recovery(base) { "recovery" } else { "unseal" };
    if let Some(nonce) = answer["nonce"].as_str().filter(|nonce| !nonce.is_empty()) {
        session.io.out(&format!("\nOperation nonce: {nonce}"));
    }
    session.io.out("");
    if before["verification_required"] != true {
        return session.say(&wrap(&format!(
            "Vault {what} keys rekeyed to {shares} key shares and a key threshold of {threshold}. Please keep the \
             shares printed above in different safe places; the old ones are worthless now."
        )));
    }
    session.io.out(&wrap(&format!(
        "A new {what} key was made, split into {shares} key shares with a key threshold of {threshold}. It is not in \
         force before it is proved: give {threshold} of the shares printed above to \"{} operator rekey -verify\".",
        session.program
    )));
    session.io.out("");
    session.io.err(&wrap(
        "Do not discard the present shares before that: if the operation is canceled or the server sealed, the new \
         shares are void and the present ones stay valid.",
    ));
    status(session, base, true)
}
