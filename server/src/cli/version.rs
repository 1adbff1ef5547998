//! `version`, `version-history` and `print`: what this program is and what it uses.

use super::client::Request;
use super::output::{go_value, table};
use super::session::{Outcome, Session, doing, remote};
use super::verb::{Verb, verb};
use serde_json::Value;

/// `version`
pub const VERSION: Verb = verb("version", "", "Print this program's version", &[], |session| session.say(&text()));
/// `version-history`
pub const VERSION_HISTORY: Verb =
    verb("version-history", "", "Print the versions that the cluster ran", &[], version_history);
/// The verbs below `print`.
pub const PRINT_VERBS: &[Verb] = &[verb("token", "", "Print the token in use", &[], print_token)];

/// Name and version.
pub fn text() -> String {
    format!("Ringfence v{}", env!("CARGO_PKG_VERSION"))
}

fn print_token(session: &mut Session<'_, '_>) -> Outcome {
    let token = session.client()?.settings.token.clone();
    session.say(&token)
}

fn version_history(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let answer =
        session.read_secret(&Request::list("sys/version-history")).map_err(doing("Error reading version history"))?;
    let Some(secret) = answer.filter(|secret| secret.data.is_some()) else {
        return Err(remote("Invalid response returned from Vault"));
    };
    if !session.is_table() {
        return session.print_data(&secret);
    }
    let (Some(keys), Some(info)) = (secret.keys(), secret.field("key_info").and_then(Value::as_object)) else {
        return Err(remote("Invalid response returned from Vault"));
    };
    let mut rows = vec![vec!["Version".to_owned(), "Installation Time".to_owned(), "Build Date".to_owned()]];
    for key in keys.iter().filter_map(Value::as_str) {
        let entry = info.get(key).unwrap_or(&Value::Null);
        let text = |name: &str| entry.get(name).filter(|value| !value.is_null()).map(go_value);
        rows.push(vec![
            key.to_owned(),
            text("timestamp_installed").unwrap_or_default(),
            text("build_date").or_else(|| text("commit_date")).unwrap_or_default(),
        ]);
    }
    session.say(&table(rows))
}
