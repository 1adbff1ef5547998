//! The JSON that clients see around every answer. Source: the API reference, "Success envelope": all keys are always
//! present; numbers are plain integers; historical `sys/` paths repeat their data at the top level.

use crate::wrap::WrapInfo;
use ringfence_base::Code;
use ringfence_logical::{Data, Issued, Map, Operation, Response};
use serde_json::{Value, json};

/// What an answer is wrapped in.
pub struct Frame<'a> {
    /// Of the request.
    pub request_id: &'a str,
    /// Type of the mount.
    pub mount_type: &'a str,
    /// Path of the request, to know the historical ones.
    pub path: &'a str,
}

/// Writes the envelope of a response that is not wrapped.
pub fn write(frame: &Frame<'_>, r: &Response) -> Vec<u8> {
    let data_bytes = match &r.data {
        Some(Data::Text(t)) => t.len(),
        _ => 256,
    };
    let mut out = Vec::with_capacity(data_bytes + 320);
    let (lease_id, duration, renewable) = match &r.leased {
        Some(l) => (l.lease_id.as_str(), l.duration, l.renewable),
        None => ("", r.lease_duration, false),
    };
    out.push(b'{');
    if is_historical(frame.path)
        && let Some(Data::Map(m)) = &r.data
    {
        for (k, v) in m {
            if !TOP_LEVEL.contains(&k.as_str()) {
                text(&mut out, k);
                out.push(b':');
                value(&mut out, v);
                out.push(b',');
            }
        }
    }
    out.extend_from_slice(b"\"request_id\":");
    text(&mut out, frame.request_id);
    out.extend_from_slice(b",\"lease_id\":");
    text(&mut out, lease_id);
    out.extend_from_slice(b",\"renewable\":");
    out.extend_from_slice(if renewable { b"true" } else { b"false" });
    out.extend_from_slice(b",\"lease_duration\":");
    number(&mut out, duration);
    out.extend_from_slice(b",\"data\":");
    match &r.data {
        Some(d) => d.write_to(&mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"wrap_info\":null,\"warnings\":");
    if r.warnings.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        serde_json::to_writer(&mut out, &r.warnings).expect("texts always serialise");
    }
    out.extend_from_slice(b",\"auth\":");
    match &r.issued {
        Some(a) => value(&mut out, &auth_block(a)),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"mount_type\":");
    text(&mut out, frame.mount_type);
    out.extend_from_slice(b"}\n");
    out
}

/// Writes the envelope of a wrapped response.
pub fn write_wrapped(info: &WrapInfo, warnings: &[String], mount_type: &str) -> Vec<u8> {
    let v = json!({
        "request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0, "data": null,
        "wrap_info": info.to_json(),
        "warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) },
        "auth": null, "mount_type": mount_type,
    });
    let mut out = serde_json::to_vec(&v).expect("a JSON tree always serialises");
    out.push(b'\n');
    out
}

/// The `auth` block.
pub fn auth_block(a: &Issued) -> Value {
    let mut m = Map::new();
    m.insert("client_token".into(), a.client_token.clone().into());
    m.insert("accessor".into(), a.accessor.clone().into());
    let nothing_yet = a.mfa_requirement.is_some();
    m.insert("policies".into(), if nothing_yet { Value::Null } else { json!(a.policies) });
    if !a.token_policies.is_empty() {
        m.insert("token_policies".into(), json!(a.token_policies));
    }
    if !a.identity_policies.is_empty() {
        m.insert("identity_policies".into(), json!(a.identity_policies));
    }
    m.insert("metadata".into(), json!(a.metadata));
    m.insert("lease_duration".into(), a.lease_duration.into());
    m.insert("renewable".into(), a.renewable.into());
    m.insert("entity_id".into(), a.entity_id.clone().into());
    m.insert("token_type".into(), a.token_type.as_str().into());
    m.insert("orphan".into(), a.orphan.into());
    m.insert("mfa_requirement".into(), a.mfa_requirement.clone().unwrap_or(Value::Null));
    m.insert("num_uses".into(), a.num_uses.into());
    Value::Object(m)
}

/// The status and whether the body is shown, by Vault's rules for empty answers.
pub fn status(op: Operation, r: Option<&Response>) -> (Code, bool) {
    let Some(r) = r else {
        let absent =
            matches!(op, Operation::Read | Operation::Header | Operation::List | Operation::Scan | Operation::Patch);
        return if absent { (Code::NotFound, false) } else { (Code::NoContent, false) };
    };
    if let Some(code) = r.code {
        return (code, true);
    }
    if matches!(op, Operation::List | Operation::Scan) && r.issued.is_none() {
        let without_keys = match &r.data {
            None => true,
            Some(Data::Map(m)) => match m.get("keys") {
                None => m.is_empty(),
                Some(Value::Array(k)) => k.is_empty(),
                Some(Value::Null) => true,
                Some(_) => false,
            },
            Some(Data::Text(_)) => false,
        };
        if without_keys && r.warnings.is_empty() {
            return (Code::NotFound, false);
        }
    }
    (Code::Ok, true)
}

const TOP_LEVEL: &[&str] =
    &["request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth", "mount_type"];

/// The historical paths whose data is repeated at the top level. Source: the API reference, "Top-level data injection".
fn is_historical(path: &str) -> bool {
    let Some(p) = path.strip_prefix("sys/") else { return false };
    let p = p.trim_end_matches('/');
    let under = |root: &str| p == root || p.strip_prefix(root).is_some_and(|r| r.starts_with('/'));
    under("audit")
        || p.starts_with("audit-hash/")
        || under("auth")
        || p == "config/cors"
        || under("config/auditing/request-headers")
        || matches!(p, "capabilities" | "capabilities-accessor" | "capabilities-self" | "ha-status" | "key-status")
        || under("mounts")
        || under("policy")
        || matches!(p, "rekey/backup" | "rekey/recovery-key-backup" | "remount" | "rotate" | "wrapping/wrap")
}

fn text(out: &mut Vec<u8>, s: &str) {
    serde_json::to_writer(out, s).expect("text always serialises");
}

fn value(out: &mut Vec<u8>, v: &Value) {
    serde_json::to_writer(out, v).expect("a JSON tree always serialises");
}

fn number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(n.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(path: &str) -> Frame<'_> {
        Frame { request_id: "id", mount_type: "kv", path }
    }

    #[test]
    fn every_key_is_always_there() {
        let b = write(&frame("secret/x"), &Response::default());
        let v: Value = serde_json::from_slice(&b).expect("json");
        for k in TOP_LEVEL {
            assert!(v.get(k).is_some(), "{k}");
        }
        assert_eq!(v["lease_duration"], 0);
        assert!(v["data"].is_null());
    }

    #[test]
    fn historical_paths_repeat_their_data() {
        let r = Response::json(json!({"keys": ["a"], "data": {"x": 1}}));
        let v: Value = serde_json::from_slice(&write(&frame("sys/policy"), &r)).expect("json");
        assert_eq!(v["keys"], json!(["a"]));
        assert_eq!(v["data"]["keys"], json!(["a"]));
        let v: Value = serde_json::from_slice(&write(&frame("sys/policies/acl"), &r)).expect("json");
        assert!(v.get("keys").is_none());
    }

    #[test]
    fn empty_answers() {
        assert_eq!(status(Operation::Read, None), (Code::NotFound, false));
        assert_eq!(status(Operation::Update, None), (Code::NoContent, false));
        assert_eq!(status(Operation::List, Some(&Response::keys(vec![]))), (Code::NotFound, false));
        assert_eq!(status(Operation::List, Some(&Response::keys(vec![]).warn("w"))), (Code::Ok, true));
        assert_eq!(status(Operation::List, Some(&Response::json(json!({"other": 1})))), (Code::Ok, true));
        assert_eq!(status(Operation::Read, Some(&Response::default())), (Code::Ok, true));
    }
}
