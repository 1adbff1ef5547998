//! `pki`: what stands between two mounts of the PKI engine. Each verb is a few requests in the caller's name; what two
//! certificates are to each other is read by the engine's own code.

use super::client::Request;
use super::kvargs;
use super::output;
use super::pki_health;
use super::session::{Fail, Outcome, Session, doing, remote, sanitized, usage};
use super::verb::{Flag, Kind, Verb, flag, verb};
use ringfence_node::relation::{Relation, parameters_of, relation};
use serde_json::{Map, Value, json};

const TYPE: Flag = flag("type", Kind::Text, "Key of the new certificate: internal, existing or kms.");
const ISSUER_NAME: Flag = flag("issuer_name", Kind::Text, "Name of the new issuer.");
const MATCHES: &[Flag] = &[
    flag("subject_match", Kind::Bool, "Ask that subject and issuer name are the same. Default true."),
    flag("key_id_match", Kind::Bool, "Ask that the key ids are the same. Default true."),
    flag("path_match", Kind::Bool, "Ask that the parent stands in the chain. Default false."),
    flag("direct_sign", Kind::Bool, "Ask that the parent's key signed it. Default true."),
    flag("indirect_sign", Kind::Bool, "Ask that signatures lead to the parent. Default true."),
];

/// The verbs below `pki`.
pub const VERBS: &[Verb] = &[
    verb(
        "health-check",
        "<mount>",
        "Look for what an operator should mend",
        pki_health::FLAGS,
        pki_health::health_check,
    ),
    verb(
        "issue",
        "<parent> <child mount> <key=value>...",
        "Make an intermediate in a mount",
        &[TYPE, ISSUER_NAME],
        issue,
    ),
    verb("list-intermediates", "<parent> [child]...", "Find what an issuer issued", MATCHES, list_intermediates),
    verb(
        "reissue",
        "<parent> <template> <child mount> [key=value]...",
        "Make an intermediate like another",
        &[TYPE, ISSUER_NAME],
        reissue,
    ),
    verb("verify-sign", "<parent> <child>", "Tell whether one certificate issued another", &[], verify_sign),
];

/// An issuer as its mount tells of it.
struct Issuer {
    data: Map<String, Value>,
}

impl Issuer {
    fn read(session: &mut Session<'_, '_>, path: &str) -> Result<Issuer, Fail> {
        let answer =
            session.read_secret(&Request::get(path)).map_err(doing(format!("error: unable to read {path}")))?;
        match answer.and_then(|secret| secret.data) {
            Some(data) if data.contains_key("certificate") => Ok(Issuer { data }),
            _ => Err(remote(format!("error: unable to find a certificate at {path}"))),
        }
    }

    fn text(&self, name: &str) -> &str {
        self.data.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn chain(&self) -> Vec<String> {
        let texts = self.data.get("ca_chain").and_then(Value::as_array);
        texts.into_iter().flatten().filter_map(|c| c.as_str().map(str::to_owned)).collect()
    }

    /// What speaks for this one having issued the other.
    fn issued(&self, other: &Issuer) -> Result<Relation, Fail> {
        relation(self.text("certificate"), other.text("certificate"), &other.chain()).map_err(remote)
    }
}

fn verify_sign(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(2, 2)?;
    let (parent, child) = (sanitized(session.arg(0)), sanitized(session.arg(1)));
    let (above, below) = (Issuer::read(session, &parent)?, Issuer::read(session, &child)?);
    let found = above.issued(&below)?;
    if !session.is_table() {
        let fields: Map<String, Value> =
            found.fields().map(|(name, is)| (name.to_owned(), is.into())).into_iter().collect();
        return session.print_data(&fields);
    }
    let mut rows = vec![vec!["field".to_owned(), "value".to_owned()]];
    rows.extend(found.fields().map(|(name, is)| vec![name.to_owned(), is.to_string()]));
    session.io.out(&format!("issuer:{parent}\nissued:{child}\n\n{}", output::table(rows)));
    Ok(0)
}

fn list_intermediates(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, usize::MAX)?;
    let parent = sanitized(session.arg(0));
    let above = Issuer::read(session, &parent)?;
    let given: Vec<String> = session.flags.args.iter().skip(1).map(|path| sanitized(path.trim())).collect();
    let children = if given.is_empty() { every_issuer(session)? } else { given };
    let asks = |name: &str, default: bool| session.flags.text(name).map_or(default, |text| text == "true");
    let (subject, key_id, path) =
        (asks("subject_match", true), asks("key_id_match", true), asks("path_match", false));
    let (direct, indirect) = (asks("direct_sign", true), asks("indirect_sign", true));
    let mut found: Vec<(String, bool)> = Vec::new();
    for child in children {
        let r = above.issued(&Issuer::read(session, &child)?)?;
        let fits = (r.subject || !subject)
            && (r.key_id || !key_id)
            && (r.path || !path)
            && (r.signature || !direct)
            && (r.trust || !indirect);
        found.push((child, fits));
    }
    if !session.is_table() {
        let all: Map<String, Value> = found.into_iter().map(|(child, fits)| (child, fits.into())).collect();
        return session.print_data(&all);
    }
    let mut rows = vec![vec!["intermediate".to_owned(), "match?".to_owned()]];
    rows.extend(found.into_iter().map(|(child, fits)| vec![child, fits.to_string()]));
    session.io.out(&output::table(rows));
    Ok(0)
}

/// The issuers of all PKI mounts that the caller may list.
fn every_issuer(session: &mut Session<'_, '_>) -> Result<Vec<String>, Fail> {
    let mounts = session.call_secret(&Request::get("sys/mounts")).map_err(doing("error: unable to list mounts"))?;
    let mounts = mounts.and_then(|secret| secret.data).unwrap_or_default();
    let mut out = Vec::new();
    for (path, _) in mounts.iter().filter(|(_, mount)| mount["type"] == "pki") {
        let listed = session
            .read_secret(&Request::list(format!("{path}issuers")))
            .map_err(doing(format!("error: unable to list the issuers of {path}")))?;
        let keys = listed.as_ref().and_then(|secret| secret.keys().cloned()).unwrap_or_default();
        out.extend(keys.iter().filter_map(Value::as_str).map(|id| format!("{path}issuer/{id}")));
    }
    Ok(out)
}

fn issue(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(3, usize::MAX)?;
    let (parent, mount) = (sanitized(session.arg(0)), sanitized(session.arg(1)));
    let options = options(session, 2)?;
    make(session, &parent, &mount, options)
}

fn reissue(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(3, usize::MAX)?;
    let (parent, template, mount) = (sanitized(session.arg(0)), sanitized(session.arg(1)), sanitized(session.arg(2)));
    let given = options(session, 3)?;
    let like = Issuer::read(session, &template)?;
    let mut all = parameters_of(like.text("certificate")).map_err(|why| remote(format!("{template}: {why}")))?;
    if session.flags.text_or("type", "internal") == "existing" {
        all.insert("key_ref".into(), like.text("key_id").into());
    }
    all.extend(given);
    make(session, &parent, &mount, all)
}

fn options(session: &mut Session<'_, '_>, from: usize) -> Result<Map<String, Value>, Fail> {
    let words: Vec<String> = session.flags.args.iter().skip(from).cloned().collect();
    let interactive = session.interactive();
    kvargs::parse(session.io, &words, interactive).map_err(|why| usage(format!("Failed to parse options: {why}")))
}

/// Makes a request in the mount, has the parent sign it, and takes the certificate in.
fn make(session: &mut Session<'_, '_>, parent: &str, mount: &str, options: Map<String, Value>) -> Outcome {
    let kind = session.flags.text_or("type", "internal").to_owned();
    if !matches!(kind.as_str(), "internal" | "existing" | "kms") {
        return Err(usage(format!("unknown type {kind:?}: must be internal, existing or kms")));
    }
    let name = session.flags.text_or("issuer_name", "").to_owned();
    // read first: without a parent nothing is made
    let parent_data = Issuer::read(session, parent)?;
    let path = format!("{mount}/intermediate/generate/{kind}");
    let mut asked = options.clone();
    // the request's signature is made by the new key, the certificate's by the parent's
    asked.remove("issuer_name");
    let request = session.call_secret(&Request::put(&path, Value::Object(asked)));
    let request = request.map_err(doing(format!("failed generating a request at {path}")))?;
    let Some(csr) = request.as_ref().and_then(|secret| secret.field("csr").cloned()) else {
        return Err(remote(format!("no request in the answer of {path}")));
    };
    let mut sign = options;
    sign.retain(|name, _| !matches!(name.as_str(), "key_ref" | "key_type" | "key_bits" | "key_name" | "issuer_name"));
    sign.insert("csr".into(), csr);
    sign.insert("format".into(), "pem_bundle".into());
    let path = format!("{parent}/sign-intermediate");
    let signed = session.call_secret(&Request::put(&path, Value::Object(sign)));
    let signed = signed.map_err(doing(format!("failed signing the request at {path}")))?;
    let Some(bundle) = signed.as_ref().and_then(|secret| secret.field("certificate")?.as_str().map(str::to_owned))
    else {
        return Err(remote(format!("no certificate in the answer of {path}")));
    };
    // the chain up to the parent comes along, so that the mount can show it
    let mut parts = vec![bundle.trim().to_owned()];
    for above in parent_data.chain() {
        if !bundle.contains(above.trim()) {
            parts.push(above.trim().to_owned());
        }
    }
    let path = format!("{mount}/issuers/import/cert");
    let imported = session.call_secret(&Request::put(&path, json!({ "pem_bundle": parts.join("\n") })));
    let imported = imported.map_err(doing(format!("failed importing the certificate at {path}")))?;
    let mapping =
        imported.as_ref().and_then(|secret| secret.field("mapping")?.as_object().cloned()).unwrap_or_default();
    let ours = imported
        .as_ref()
        .and_then(|secret| secret.field("imported_issuers")?.as_array().cloned())
        .unwrap_or_default();
    // of what came in, the new issuer is the one whose key is here
    let has_key =
        |id: &&Value| id.as_str().and_then(|id| mapping.get(id)?.as_str()).is_some_and(|key| !key.is_empty());
    let Some(id) = ours.iter().find(has_key).and_then(Value::as_str) else {
        return Err(remote(format!("the import at {path} made no issuer with a key")));
    };
    let path = format!("{mount}/issuer/{id}");
    if !name.is_empty() {
        session
            .call_secret(&Request::patch(&path, json!({ "issuer_name": name })))
            .map_err(doing(format!("failed naming the new issuer at {path}")))?;
    }
    let shown = session.read_secret(&Request::get(&path)).map_err(doing(format!("failed reading {path}")))?;
    match shown {
        Some(secret) => session.print_secret_or_field(&secret),
        None => Err(remote(format!("no issuer at {path}"))),
    }
}
