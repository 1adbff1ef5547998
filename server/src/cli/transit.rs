//! `transit import` and `transit import-version`: bring a key into a transit mount, wrapped on this machine for the
//! server's wrapping key. The key itself is never sent.

use super::client::Request;
use super::kvargs;
use super::session::{Outcome, Session, doing, remote, usage};
use super::verb::{Verb, verb};
use crate::rt::OsEntropy;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

/// The verbs below `transit`.
pub const VERBS: &[Verb] = &[
    verb("import", "<mount>/keys/<name> <key or @file> [key=value..]", "Import a key", &[], |s| import(s, "import")),
    verb(
        "import-version",
        "<mount>/keys/<name> <key or @file> [key=value..]",
        "Import a new version of a key that was imported",
        &[],
        |s| import(s, "import_version"),
    ),
];

fn import(session: &mut Session<'_, '_>, endpoint: &str) -> Outcome {
    session.expect_args(2, usize::MAX)?;
    let path = session.arg(0).trim_matches('/').to_owned();
    let Some((mount, name)) = path.rsplit_once("/keys/").filter(|(m, n)| !m.is_empty() && !n.is_empty()) else {
        return Err(usage("expected transit path and key name in the form :path:/keys/:name:"));
    };
    let given = session.arg(1).to_owned();
    let given = Zeroizing::new(match given.strip_prefix('@') {
        None => given,
        Some(file) => {
            let at = session.io.expand(file);
            std::fs::read_to_string(&at).map_err(|e| usage(format!("error reading {}: {e}", at.display())))?
        }
    });
    let key = STANDARD
        .decode(given.trim())
        .map(Zeroizing::new)
        .map_err(|e| usage(format!("error base64 decoding source key material: {e}")))?;
    let options = session.flags.args.get(2..).unwrap_or_default().to_vec();
    let interactive = session.interactive();
    let mut data = kvargs::parse(session.io, &options, interactive).map_err(usage)?;

    session.say_in_table("Retrieving transit wrapping key.")?;
    let at = format!("{mount}/wrapping_key");
    let answer = session.read_secret(&Request::get(at)).map_err(doing("failed to retrieve the wrapping key"))?;
    let public = answer.as_ref().and_then(|s| s.field("public_key")).and_then(Value::as_str);
    let public = public.ok_or_else(|| remote(format!("no transit mount at {mount}")))?;
    session.say_in_table("Wrapping source key with ephemeral key.")?;
    let hash = data.get("hash_function").and_then(Value::as_str).unwrap_or("SHA256").to_owned();
    let wrapped = ringfence_node::wrap_for_pem(public, &hash, &key, &mut OsEntropy::new())
        .map_err(|why| usage(format!("failed to wrap the source key: {why}")))?;
    session.say_in_table("Submitting wrapped key.")?;
    data.insert("ciphertext".into(), STANDARD.encode(wrapped).into());
    data.insert("hash_function".into(), hash.into());
    session
        .call(&Request::put(format!("{mount}/keys/{name}/{endpoint}"), Value::Object(data)))
        .map_err(doing("failed to call import"))?;
    session.say_in_table("Success!")
}
