//! Audit entries as Vault writes them: one JSON object a line, empty fields left out. Source: the API reference, file
//! on audit, sections "Entry JSON" and "HMAC rules".
//!
//! Every string leaf of request and response data becomes `hmac-sha256:<hex>` of the device's salt, except strings
//! that are RFC 3339 times and values under keys that the mount exempts. Keys, numbers, booleans and null never are.

use super::Subject;
use super::device::Armed;
use crate::pipeline::Told;
use crate::token::check::Holder;
use crate::wrap::WrapInfo;
use ringfence_base::Wall;
use ringfence_logical::{Class, Data, Issued, Map, Operation, Response};
use serde_json::{Value, json};

/// The request entry.
pub fn request(d: &Armed, s: &Subject<'_>, told: &Told<'_>) -> Vec<u8> {
    let mut m = Map::new();
    m.insert("time".into(), s.wall.rfc3339().into());
    m.insert("type".into(), "request".into());
    m.insert("auth".into(), auth(d, s, told));
    m.insert("request".into(), request_block(d, s));
    error(&mut m, told);
    bytes(m)
}

/// The response entry.
pub fn response(d: &Armed, s: &Subject<'_>, told: &Told<'_>) -> Vec<u8> {
    let mut m = Map::new();
    m.insert("time".into(), s.wall.rfc3339().into());
    m.insert("type".into(), "response".into());
    m.insert("auth".into(), auth(d, s, told));
    m.insert("request".into(), request_block(d, s));
    m.insert("response".into(), response_block(d, s, told));
    error(&mut m, told);
    bytes(m)
}

fn bytes(m: Map) -> Vec<u8> {
    serde_json::to_vec(&Value::Object(m)).expect("a JSON tree always serialises")
}

fn error(m: &mut Map, told: &Told<'_>) {
    if let Told::Refusal(e) = told {
        let text = e.text();
        m.insert("error".into(), if text.is_empty() { format!("{:?}", e.code).into() } else { text.into() });
    }
}

/// A token or accessor: hashed unless the device writes raw.
fn secret(d: &Armed, text: &str) -> Value {
    if d.raw { text.into() } else { d.hash(text).into() }
}

fn accessor(d: &Armed, text: &str) -> Value {
    if d.raw || !d.hmac_accessor { text.into() } else { d.hash(text).into() }
}

fn set(m: &mut Map, key: &str, v: Value) {
    let empty = match &v {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
    };
    if !empty {
        m.insert(key.into(), v);
    }
}

fn auth(d: &Armed, s: &Subject<'_>, told: &Told<'_>) -> Value {
    let mut m = Map::new();
    let allowed = !matches!(told, Told::Refusal(e) if e.code == ringfence_base::Code::Denied);
    let mut results = Map::new();
    set(&mut results, "allowed", allowed.into());
    let granting: Vec<Value> = s
        .granting
        .iter()
        .map(|p| {
            let mut g = Map::new();
            set(&mut g, "name", (*p.name).into());
            set(&mut g, "namespace_id", s.ns.external_id.clone().into());
            set(&mut g, "namespace_path", (*p.namespace).into());
            g.insert("type".into(), "acl".into());
            Value::Object(g)
        })
        .collect();
    set(&mut results, "granting_policies", granting.into());
    set(&mut m, "policy_results", Value::Object(results));
    let Some(h) = s.holder else {
        m.insert("token_type".into(), "default".into());
        return Value::Object(m);
    };
    let e = &h.entry;
    m.insert("client_token".into(), secret(d, h.raw.expose()));
    if !e.accessor.is_empty() {
        m.insert("accessor".into(), accessor(d, &e.accessor));
    }
    set(&mut m, "display_name", e.display_name.clone().into());
    let mut all = e.policies.clone();
    all.extend(s.identity_policies.iter().cloned());
    all.sort();
    all.dedup();
    set(&mut m, "policies", json!(all));
    set(&mut m, "token_policies", json!(e.policies));
    set(&mut m, "identity_policies", json!(s.identity_policies));
    set(&mut m, "metadata", json!(e.meta));
    set(&mut m, "num_uses", json!(e.num_uses.max(0)));
    set(&mut m, "entity_id", e.entity_id.clone().into());
    m.insert("token_type".into(), if h.is_batch() { "batch" } else { "service" }.into());
    set(&mut m, "token_ttl", json!(e.creation_ttl));
    set(&mut m, "token_issue_time", e.created.rfc3339_seconds().into());
    Value::Object(m)
}

fn request_block(d: &Armed, s: &Subject<'_>) -> Value {
    let mut m = Map::new();
    m.insert("id".into(), s.call.id.clone().into());
    m.insert("operation".into(), s.op.as_str().into());
    if let Some(r) = s.routed {
        mount_fields(&mut m, s, "mount_running_version");
        let _ = r;
    }
    if let Some(t) = &s.call.token {
        m.insert("client_token".into(), secret(d, t.expose()));
    }
    if let Some(Holder { entry, .. }) = s.holder
        && !entry.accessor.is_empty()
    {
        m.insert("client_token_accessor".into(), accessor(d, &entry.accessor));
    }
    let mut ns = Map::new();
    set(&mut ns, "id", s.ns.external_id.clone().into());
    set(&mut ns, "path", s.ns.path.clone().into());
    m.insert("namespace".into(), Value::Object(ns));
    m.insert("path".into(), s.path.into());
    let exempt = s.routed.map_or(&[][..], |r| &r.entry.config.audit_non_hmac_request_keys);
    set(&mut m, "data", hashed(d, &Value::Object(s.call.data.clone()), exempt));
    if let Some(ip) = s.call.remote {
        m.insert("remote_address".into(), ip.to_string().into());
        set(&mut m, "remote_port", s.call.remote_port.into());
    }
    set(&mut m, "wrap_ttl", s.call.wrap_ttl.into());
    set(&mut m, "headers", headers(d, s));
    Value::Object(m)
}

fn headers(d: &Armed, s: &Subject<'_>) -> Value {
    let mut m = Map::new();
    for (name, value) in s.call.headers.iter() {
        if let Some((name, hmac)) = d.headers.iter().find(|(n, _)| n == name) {
            let v = if *hmac && !d.raw { d.hash(value).into() } else { Value::from(value) };
            match m.get_mut(name) {
                Some(Value::Array(list)) => list.push(v),
                _ => {
                    m.insert(name.clone(), Value::Array(vec![v]));
                }
            }
        }
    }
    Value::Object(m)
}

fn mount_fields(m: &mut Map, s: &Subject<'_>, version_key: &str) {
    let Some(r) = s.routed else { return };
    m.insert("mount_point".into(), r.info.path.clone().into());
    m.insert("mount_type".into(), r.entry.kind.clone().into());
    m.insert("mount_accessor".into(), r.entry.accessor.clone().into());
    m.insert(version_key.into(), format!("v{}+builtin.vault", crate::host::API_VERSION).into());
    let class = match r.entry.class {
        Class::Secret => "secret",
        Class::Auth => "auth",
    };
    m.insert("mount_class".into(), class.into());
}

fn response_block(d: &Armed, s: &Subject<'_>, told: &Told<'_>) -> Value {
    let mut m = Map::new();
    mount_fields(&mut m, s, "mount_running_plugin_version");
    if let Told::Response { response: Some(r), wrapped } = told {
        if let Some(i) = &r.issued {
            m.insert("auth".into(), issued(d, i));
        }
        if let Some(l) = &r.leased {
            m.insert("secret".into(), json!({"lease_id": l.lease_id}));
        }
        match wrapped {
            Some(w) => {
                m.insert("wrap_info".into(), wrap_info(d, w));
            }
            None => {
                let exempt = s.routed.map_or(&[][..], |r| &r.entry.config.audit_non_hmac_response_keys);
                set(&mut m, "data", response_data(d, s.op, r, exempt));
            }
        }
        set(&mut m, "warnings", json!(r.warnings));
    }
    Value::Object(m)
}

fn response_data(d: &Armed, op: Operation, r: &Response, exempt: &[String]) -> Value {
    if let Some(raw) = &r.raw {
        let body = String::from_utf8_lossy(&raw.body);
        let body = if d.raw { Value::from(&*body) } else { d.hash(&body).into() };
        return json!({"http_content_type": raw.content_type, "http_raw_body": body});
    }
    let mut v = match &r.data {
        None => return Value::Null,
        Some(Data::Map(m)) => Value::Object(m.clone()),
        Some(Data::Text(t)) => serde_json::from_str(t).unwrap_or(Value::Null),
    };
    if d.elide_lists && matches!(op, Operation::List | Operation::Scan) {
        for key in ["keys", "key_info"] {
            let n = match v.get(key) {
                Some(Value::Array(a)) => a.len(),
                Some(Value::Object(o)) => o.len(),
                _ => continue,
            };
            v[key] = n.into();
        }
    }
    hashed(d, &v, exempt)
}

fn issued(d: &Armed, i: &Issued) -> Value {
    let mut m = Map::new();
    if !i.client_token.is_empty() {
        m.insert("client_token".into(), secret(d, &i.client_token));
    }
    if !i.accessor.is_empty() {
        m.insert("accessor".into(), accessor(d, &i.accessor));
    }
    set(&mut m, "display_name", i.display_name.clone().into());
    set(&mut m, "policies", json!(i.policies));
    set(&mut m, "token_policies", json!(i.token_policies));
    set(&mut m, "identity_policies", json!(i.identity_policies));
    set(&mut m, "metadata", json!(i.metadata));
    set(&mut m, "num_uses", i.num_uses.into());
    set(&mut m, "entity_id", i.entity_id.clone().into());
    m.insert("token_type".into(), i.token_type.as_str().into());
    set(&mut m, "token_ttl", i.lease_duration.into());
    if i.issued_at != Wall(0) {
        m.insert("token_issue_time".into(), i.issued_at.rfc3339_seconds().into());
    }
    Value::Object(m)
}

fn wrap_info(d: &Armed, w: &WrapInfo) -> Value {
    let mut m = Map::new();
    m.insert("ttl".into(), w.ttl.into());
    m.insert("token".into(), secret(d, &w.token));
    m.insert("accessor".into(), accessor(d, &w.accessor));
    m.insert("creation_time".into(), w.creation_time.rfc3339().into());
    m.insert("creation_path".into(), w.creation_path.clone().into());
    if let Some(a) = w.wrapped_accessor.as_ref().filter(|a| !a.is_empty()) {
        m.insert("wrapped_accessor".into(), accessor(d, a));
    }
    Value::Object(m)
}

/// Hashes every string leaf.
fn hashed(d: &Armed, v: &Value, exempt: &[String]) -> Value {
    if d.raw {
        return v.clone();
    }
    match v {
        Value::String(s) if Wall::parse_rfc3339(s).is_some() => v.clone(),
        Value::String(s) => d.hash(s).into(),
        Value::Array(a) => a.iter().map(|x| hashed(d, x, exempt)).collect(),
        Value::Object(o) => Value::Object(
            o.iter()
                .map(|(k, x)| {
                    let x = if exempt.contains(k) && !x.is_object() { x.clone() } else { hashed(d, x, exempt) };
                    (k.clone(), x)
                })
                .collect(),
        ),
        other => other.clone(),
    }
}
