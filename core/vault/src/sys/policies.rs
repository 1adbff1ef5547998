//! `sys/policy`, `sys/policies/*`: ACL policies under their old and new paths, password policies.

use crate::page;
use crate::policies;
use crate::tables;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::Txn;
use ringfence_base::{Code, NsId, limit};
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use ringfence_policy::{PasswordPolicy, Policy, builtin};
use serde_json::json;

const NAME: Field = Field::str("name", "Name of the policy; lower case.");
const POLICY: Field = Field::str("policy", "The policy, HCL or JSON, as it is or in base64.");
const ACL: &[Field] = &[NAME, POLICY, Field::str("rules", "Old name of policy.").deprecated()];
const PASSWORD: &[Field] = &[NAME, POLICY];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("policy/?").help("Lists ACL policies; old name of policies/acl.", "").read(list_old).list(list_old),
    Path::new("policy/{name..}")
        .fields(ACL)
        .help("An ACL policy; old name of policies/acl.", "")
        .read(read_old)
        .write(write)
        .delete(delete),
    Path::new("policies/acl/?").fields(page::FIELDS).help("Lists ACL policies.", "").read(list).list(list),
    Path::new("policies/acl/{name..}")
        .fields(ACL)
        .help("An ACL policy.", "Tokens name policies; what a policy grants changes with its text at once.")
        .read(read)
        .write(write)
        .delete(delete),
    Path::new("policies/password/?").fields(page::FIELDS).help("Lists password policies.", "").list(list_password),
    Path::new("policies/password/{name:any}/generate")
        .fields(PASSWORD)
        .help("Makes a password by a policy.", "")
        .read(generate),
    Path::new("policies/password/{name:any}")
        .fields(PASSWORD)
        .help("How engines make up passwords.", "")
        .read(read_password)
        .write(write_password)
        .delete(delete_password),
];

/// Room that a sealed record takes beyond its text.
const SEALING_ROOM_BYTES: usize = 256;

/// The text of a policy in a request, out of base64 if it is in it.
fn given_text(text: &str) -> Result<String, Error> {
    let plain = match STANDARD.decode(text).map(String::from_utf8) {
        Ok(Ok(decoded)) => decoded,
        _ => text.to_owned(),
    };
    if plain.len() + SEALING_ROOM_BYTES > limit::MAX_VALUE_BYTES {
        return Err(Error::new(Code::TooLarge, "policy is too large"));
    }
    Ok(plain)
}

fn list_old(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let names = policies::names(cx.txn, cx.mount.ns)?;
    Response::json(json!({ "keys": names, "policies": names })).done()
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(page::of(args, policies::names(cx.txn, cx.mount.ns)?)).done()
}

/// Canonical name and text; `None` if there is no such policy to be shown.
fn find(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Option<(String, String)>, Error> {
    let name = args.str("name").to_lowercase();
    if builtin::is_internal(&name) {
        return Ok(None);
    }
    if name == builtin::ROOT && cx.mount.ns == NsId::ROOT {
        return Ok(Some((name, String::new())));
    }
    Ok(policies::text(cx.txn, cx.mount.ns, &name)?.map(|text| (name, text)))
}

fn read_old(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match find(cx, args)? {
        Some((name, text)) => Response::json(json!({ "name": name, "rules": text })).done(),
        None => nothing(),
    }
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match find(cx, args)? {
        Some((name, text)) => Response::json(json!({ "name": name, "policy": text })).done(),
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_lowercase();
    if let Some(refusal) = builtin::refuse_update(&name) {
        return Err(Error::invalid(refusal));
    }
    let mut warnings = Vec::new();
    if name != args.str("name") {
        warnings.push(format!("policy name was converted to {name}"));
    }
    let mut text = args.str("policy");
    if text.is_empty() && !args.str("rules").is_empty() {
        text = args.str("rules");
        warnings.push("'rules' is deprecated, please use 'policy' instead".into());
    }
    if text.is_empty() {
        return Err(Error::invalid("'policy' parameter not supplied or empty"));
    }
    let text = given_text(text)?;
    Policy::parse(&name, &text).map_err(|e| Error::invalid(format!("failed to parse policy: {e}")))?;
    policies::save(cx.txn, cx.mount.ns, &name, &text);
    match warnings.is_empty() {
        true => nothing(),
        false => Response { warnings, ..Response::default() }.done(),
    }
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_lowercase();
    if let Some(refusal) = builtin::refuse_delete(&name) {
        return Err(Error::invalid(refusal));
    }
    policies::delete(cx.txn, cx.mount.ns, &name);
    nothing()
}

pub(crate) fn password_text(txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<String>, Error> {
    let stored = txn.get(&tables::policy(ns, tables::POLICY_PASSWORD, name))?;
    Ok(stored.map(|p| String::from_utf8_lossy(&p.bytes).into_owned()))
}

/// The password policy of this name, for engines that make up passwords.
pub fn password_policy(txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<PasswordPolicy>, Error> {
    let Some(text) = password_text(txn, ns, name)? else { return Ok(None) };
    let parsed = PasswordPolicy::parse(&text);
    parsed.map(Some).map_err(|e| Error::internal(format!("stored password policy {name:?} does not parse: {e}")))
}

fn absent() -> Error {
    Error::new(Code::NotFound, "policy does not exist")
}

fn list_password(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let prefix = tables::policy(cx.mount.ns, tables::POLICY_PASSWORD, "");
    let keys = cx.txn.list(&prefix, None, usize::MAX);
    let names = keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect();
    Response::keys(page::of(args, names)).done()
}

fn read_password(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let text = password_text(cx.txn, cx.mount.ns, args.str("name"))?.ok_or_else(absent)?;
    Response::json(json!({ "policy": text })).done()
}

fn write_password(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if args.str("policy").is_empty() {
        return Err(Error::invalid("missing policy"));
    }
    let text = given_text(args.str("policy"))?;
    let policy = PasswordPolicy::parse(&text).map_err(|e| Error::invalid(e.to_string()))?;
    policy.check(cx.rng).map_err(|e| Error::invalid(e.to_string()))?;
    let key = tables::policy(cx.mount.ns, tables::POLICY_PASSWORD, args.str("name"));
    cx.txn.put(key, &[], text.as_bytes());
    nothing()
}

fn delete_password(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    cx.txn.delete(&tables::policy(cx.mount.ns, tables::POLICY_PASSWORD, args.str("name")));
    nothing()
}

fn generate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let policy = password_policy(cx.txn, cx.mount.ns, args.str("name"))?.ok_or_else(absent)?;
    let password = policy.generate(cx.rng).map_err(|e| Error::plain(&e.to_string()))?;
    Response::json(json!({ "password": password })).done()
}
