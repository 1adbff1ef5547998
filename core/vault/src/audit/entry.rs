//! Audit entries as Vault writes them: one JSON object a line, empty fields left out. Source: the API reference, file
//! on audit, sections "Entry JSON" and "HMAC rules".
//!
//! Every string leaf of request and response data becomes `hmac-sha256:<hex>` of the device's salt, except strings
//! that are RFC 3339 times and values under keys that the mount exempts. Keys, numbers, booleans and null never are.
//!
//! Entries are written straight into the line, and what the two lines of a call share (who asks, and what) is written
//! once: with a device on, this is on the way of every request.

use super::device::{Armed, CallerKey};
use super::{Subject, text};
use crate::known::same_secret;
use crate::pipeline::Told;
use crate::wrap::WrapInfo;
use ringfence_base::{Code, Wall};
use ringfence_logical::{Class, Data, Issued, Map, Operation, Response};
use serde_json::Value;
use std::collections::BTreeMap;

/// What both entries of a run tell for one device.
pub struct Shared {
    /// The fields `auth` and `request`.
    fields: Vec<u8>,
    /// When the entries were made.
    time: String,
}

impl Shared {
    /// Writes what both entries tell.
    pub fn of(d: &Armed, s: &Subject<'_>, told: &Told<'_>) -> Shared {
        let mut fields = Vec::with_capacity(2048);
        let token = s.call.token.as_ref().map(|t| {
            let mut text = Vec::new();
            repeated(&mut text, d, t.expose());
            text
        });
        fields.extend_from_slice(b"\"auth\":");
        let allowed = !matches!(told, Told::Refusal(e) if e.code == Code::Denied);
        match s.holder {
            // nearly always the holder's token is the one that the request showed
            Some(holder) if s.call.token.as_ref().is_some_and(|t| same_secret(t.expose(), holder.raw.expose())) => {
                let caller = CallerKey { holder, ns: s.ns.id, allowed, granting: s.granting };
                d.write_caller(&mut fields, caller, |out| auth(out, d, s, allowed));
            }
            _ => auth(&mut fields, d, s, allowed),
        }
        fields.extend_from_slice(b",\"request\":");
        request_block(&mut fields, d, s, token.as_deref());
        Shared { fields, time: s.wall.rfc3339() }
    }

    /// The request entry.
    pub fn request(&self, out: &mut Vec<u8>, told: &Told<'_>) {
        let mut m = self.begin(out, "request");
        error(&mut m, told);
        m.close();
    }

    /// The response entry.
    pub fn response(&self, out: &mut Vec<u8>, d: &Armed, s: &Subject<'_>, told: &Told<'_>) {
        let mut m = self.begin(out, "response");
        response_block(m.at("response"), d, s, told);
        error(&mut m, told);
        m.close();
    }

    fn begin<'o>(&self, out: &'o mut Vec<u8>, kind: &str) -> Object<'o> {
        out.reserve(self.fields.len() + 1024);
        let mut m = Object::open(out);
        m.text("time", &self.time);
        m.text("type", kind);
        m.out.push(b',');
        m.out.extend_from_slice(&self.fields);
        m
    }
}

/// A JSON object being written.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>) -> Object<'o> {
        out.push(b'{');
        Object { out, first: true }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    /// A key that needs no escapes; its value is to be written next.
    fn at(&mut self, key: &'static str) -> &mut Vec<u8> {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Any key; its value is to be written next.
    fn at_any(&mut self, key: &str) -> &mut Vec<u8> {
        self.separate();
        plain(self.out, key);
        self.out.push(b':');
        self.out
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }

    /// Where it stands, to come back to.
    fn mark(&self) -> (usize, bool) {
        (self.out.len(), self.first)
    }

    /// Takes back what was written since.
    fn back_to(&mut self, (len, first): (usize, bool)) {
        self.out.truncate(len);
        self.first = first;
    }

    fn text(&mut self, key: &'static str, text: &str) {
        plain(self.at(key), text);
    }

    fn text_if_any(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    fn number_if_any(&mut self, key: &'static str, n: u64) {
        if n > 0 {
            plain(self.at(key), &n);
        }
    }

    fn flag_if_set(&mut self, key: &'static str, flag: bool) {
        if flag {
            plain(self.at(key), &true);
        }
    }

    fn list_if_any(&mut self, key: &'static str, list: &[String]) {
        if !list.is_empty() {
            plain(self.at(key), &list);
        }
    }

    fn pairs_if_any(&mut self, key: &'static str, pairs: Option<&BTreeMap<String, String>>) {
        if let Some(p) = pairs.filter(|p| !p.is_empty()) {
            plain(self.at(key), p);
        }
    }
}

/// Writes a value as it is.
fn plain(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("texts, numbers and JSON trees always serialise");
}

/// Writes a secret: hashed unless the device writes raw.
fn secret(out: &mut Vec<u8>, d: &Armed, text: &str) {
    if d.raw { plain(out, text) } else { d.write_hash(out, text) }
}

/// As [`secret`], of one that many entries name: a caller's token or accessor.
fn repeated(out: &mut Vec<u8>, d: &Armed, text: &str) {
    if d.raw { plain(out, text) } else { d.write_repeated_hash(out, text) }
}

fn accessor(out: &mut Vec<u8>, d: &Armed, text: &str) {
    if d.hmac_accessor { repeated(out, d, text) } else { plain(out, text) }
}

fn error(m: &mut Object<'_>, told: &Told<'_>) {
    if let Told::Refusal(e) = told {
        let text = e.text();
        match text.is_empty() {
            true => m.text("error", &format!("{:?}", e.code)),
            false => m.text("error", &text),
        }
    }
}

fn auth(out: &mut Vec<u8>, d: &Armed, s: &Subject<'_>, allowed: bool) {
    let mut m = Object::open(out);
    if allowed || !s.granting.is_empty() {
        let mut results = Object::open(m.at("policy_results"));
        results.flag_if_set("allowed", allowed);
        if !s.granting.is_empty() {
            granting(results.at("granting_policies"), s);
        }
        results.close();
    }
    let Some(h) = s.holder else {
        m.text("token_type", "default");
        return m.close();
    };
    let e = &h.entry;
    repeated(m.at("client_token"), d, h.raw.expose());
    if !e.accessor.is_empty() {
        accessor(m.at("accessor"), d, &e.accessor);
    }
    m.text_if_any("display_name", &e.display_name);
    if s.identity_policies.is_empty() && e.policies.is_sorted() {
        m.list_if_any("policies", &e.policies);
    } else {
        let mut all = e.policies.clone();
        all.extend(s.identity_policies.iter().cloned());
        all.sort();
        all.dedup();
        m.list_if_any("policies", &all);
    }
    m.list_if_any("token_policies", &e.policies);
    m.list_if_any("identity_policies", s.identity_policies);
    m.pairs_if_any("metadata", e.meta.as_ref());
    m.number_if_any("num_uses", e.num_uses.max(0) as u64);
    m.text_if_any("entity_id", &e.entity_id);
    m.text("token_type", if h.is_batch() { "batch" } else { "service" });
    m.number_if_any("token_ttl", e.creation_ttl);
    m.text("token_issue_time", &e.created.rfc3339_seconds());
    m.close();
}

fn granting(out: &mut Vec<u8>, s: &Subject<'_>) {
    out.push(b'[');
    for (i, p) in s.granting.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let mut g = Object::open(out);
        g.text_if_any("name", &p.name);
        // a policy is of the token's namespace, which may be one above the request's
        let id = match &*p.namespace {
            "" => "root",
            path if path == s.ns.path => s.ns.external_id.as_str(),
            _ => "",
        };
        g.text_if_any("namespace_id", id);
        g.text_if_any("namespace_path", &p.namespace);
        g.text("type", "acl");
        g.close();
    }
    out.push(b']');
}

fn request_block(out: &mut Vec<u8>, d: &Armed, s: &Subject<'_>, token: Option<&[u8]>) {
    let mut m = Object::open(out);
    m.text("id", &s.call.id);
    if let Some(client) = s.client_id {
        m.text("client_id", client);
    }
    m.text("operation", s.op.as_str());
    mount_fields(&mut m, s, "mount_running_version");
    if let Some(written) = token {
        m.at("client_token").extend_from_slice(written);
    }
    if let Some(h) = s.holder
        && !h.entry.accessor.is_empty()
    {
        accessor(m.at("client_token_accessor"), d, &h.entry.accessor);
    }
    let mut ns = Object::open(m.at("namespace"));
    ns.text_if_any("id", &s.ns.external_id);
    ns.text_if_any("path", &s.ns.path);
    ns.close();
    m.text("path", s.path);
    if !s.call.data.is_empty() {
        let exempt = s.routed.map_or(&[][..], |r| &r.entry.config.audit_non_hmac_request_keys);
        hashed_object(m.at("data"), d, &s.call.data, exempt, false);
    }
    if let Some(ip) = s.call.remote {
        m.text("remote_address", &ip.to_string());
        m.number_if_any("remote_port", s.call.remote_port.into());
    }
    m.number_if_any("wrap_ttl", s.call.wrap_ttl);
    headers(&mut m, d, s);
    m.close();
}

fn headers(m: &mut Object<'_>, d: &Armed, s: &Subject<'_>) {
    let told = |name: &str| s.call.headers.iter().any(|(n, _)| n == name);
    if !d.headers.iter().any(|(name, _)| told(name)) {
        return;
    }
    let mut all = Object::open(m.at("headers"));
    for (name, hmac) in d.headers.iter().filter(|(name, _)| told(name)) {
        let out = all.at_any(name);
        let mut separator = b'[';
        for (_, value) in s.call.headers.iter().filter(|(n, _)| n == name) {
            out.push(separator);
            if *hmac {
                secret(out, d, value)
            } else {
                plain(out, value)
            }
            separator = b',';
        }
        out.push(b']');
    }
    all.close();
}

fn mount_fields(m: &mut Object<'_>, s: &Subject<'_>, version_key: &'static str) {
    let Some(r) = s.routed else { return };
    m.text("mount_point", &r.info.path);
    m.text("mount_type", &r.entry.kind);
    m.text("mount_accessor", &r.entry.accessor);
    let version = m.at(version_key);
    version.extend_from_slice(b"\"v");
    version.extend_from_slice(crate::host::API_VERSION.as_bytes());
    version.extend_from_slice(b"+builtin.vault\"");
    m.text(
        "mount_class",
        match r.entry.class {
            Class::Secret => "secret",
            Class::Auth => "auth",
        },
    );
}

fn response_block(out: &mut Vec<u8>, d: &Armed, s: &Subject<'_>, told: &Told<'_>) {
    let mut m = Object::open(out);
    mount_fields(&mut m, s, "mount_running_plugin_version");
    if let Told::Response { response: Some(r), wrapped } = told {
        if let Some(i) = &r.issued {
            issued(m.at("auth"), d, i);
        }
        if let Some(l) = &r.leased {
            let mut secret = Object::open(m.at("secret"));
            secret.text("lease_id", &l.lease_id);
            secret.close();
        }
        match wrapped {
            Some(w) => wrap_info(m.at("wrap_info"), d, w),
            None => {
                let exempt = s.routed.map_or(&[][..], |r| &r.entry.config.audit_non_hmac_response_keys);
                response_data(&mut m, d, s.op, r, exempt);
            }
        }
        m.list_if_any("warnings", &r.warnings);
    }
    m.close();
}

fn response_data(m: &mut Object<'_>, d: &Armed, op: Operation, r: &Response, exempt: &[String]) {
    if let Some(raw) = &r.raw {
        let mut body = Object::open(m.at("data"));
        body.text("http_content_type", &raw.content_type);
        secret(body.at("http_raw_body"), d, &String::from_utf8_lossy(&raw.body));
        return body.close();
    }
    let elide = d.elide_lists && matches!(op, Operation::List | Operation::Scan);
    match &r.data {
        None => {}
        Some(Data::Map(o)) if o.is_empty() => {}
        Some(Data::Map(o)) => hashed_object(m.at("data"), d, o, exempt, elide),
        Some(Data::Text(t)) => {
            let begun = m.mark();
            if t != "{}" && !elide && text::hashed_object(m.at("data"), d, t, exempt).is_some() {
                return;
            }
            m.back_to(begun);
            match serde_json::from_str::<Map>(t) {
                Ok(o) if !o.is_empty() => hashed_object(m.at("data"), d, &o, exempt, elide),
                _ => {}
            }
        }
    }
}

fn issued(out: &mut Vec<u8>, d: &Armed, i: &Issued) {
    let mut m = Object::open(out);
    if !i.client_token.is_empty() {
        secret(m.at("client_token"), d, &i.client_token);
    }
    if !i.accessor.is_empty() {
        accessor(m.at("accessor"), d, &i.accessor);
    }
    m.text_if_any("display_name", &i.display_name);
    m.list_if_any("policies", &i.policies);
    m.list_if_any("token_policies", &i.token_policies);
    m.list_if_any("identity_policies", &i.identity_policies);
    m.pairs_if_any("metadata", i.metadata.as_ref());
    m.number_if_any("num_uses", i.num_uses);
    m.text_if_any("entity_id", &i.entity_id);
    m.text("token_type", i.token_type.as_str());
    m.number_if_any("token_ttl", i.lease_duration);
    if i.issued_at != Wall(0) {
        m.text("token_issue_time", &i.issued_at.rfc3339_seconds());
    }
    m.close();
}

fn wrap_info(out: &mut Vec<u8>, d: &Armed, w: &WrapInfo) {
    let mut m = Object::open(out);
    plain(m.at("ttl"), &w.ttl);
    secret(m.at("token"), d, &w.token);
    accessor(m.at("accessor"), d, &w.accessor);
    m.text("creation_time", &w.creation_time.rfc3339());
    m.text("creation_path", &w.creation_path);
    if let Some(a) = w.wrapped_accessor.as_ref().filter(|a| !a.is_empty()) {
        accessor(m.at("wrapped_accessor"), d, a);
    }
    m.close();
}

/// Writes an object with every string leaf hashed. `elide` shows the lists of a list answer by their lengths.
pub(super) fn hashed_object(out: &mut Vec<u8>, d: &Armed, o: &Map, exempt: &[String], elide: bool) {
    let mut m = Object::open(out);
    for (k, x) in o {
        let out = m.at_any(k);
        let length = match x {
            Value::Array(a) => Some(a.len()),
            Value::Object(o) => Some(o.len()),
            _ => None,
        };
        match length {
            Some(n) if elide && matches!(k.as_str(), "keys" | "key_info") => plain(out, &n),
            _ if d.raw || (exempt.contains(k) && !x.is_object()) => plain(out, x),
            _ => hashed(out, d, x, exempt),
        }
    }
    m.close();
}

/// Writes a string leaf: hashed, unless it is a time.
pub(super) fn hashed_text(out: &mut Vec<u8>, d: &Armed, s: &str) {
    match Wall::parse_rfc3339(s) {
        Some(_) => plain(out, s),
        // often an empty field, which is the same everywhere
        None if s.is_empty() => d.write_repeated_hash(out, s),
        None => d.write_hash(out, s),
    }
}

/// Writes a value with every string leaf hashed.
fn hashed(out: &mut Vec<u8>, d: &Armed, v: &Value, exempt: &[String]) {
    match v {
        Value::String(s) => hashed_text(out, d, s),
        Value::Array(a) => {
            out.push(b'[');
            for (i, x) in a.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                hashed(out, d, x, exempt);
            }
            out.push(b']');
        }
        Value::Object(o) => hashed_object(out, d, o, exempt, false),
        other => plain(out, other),
    }
}
