//! Bad input for every endpoint, taken from the server's own OpenAPI document: whatever is mounted can be asked, so an
//! engine that is added later is covered without a word here. For each field of each operation a value of a wrong type,
//! and for each path what else can be wrong with a request; the answer's status and text by rule, and afterwards not one
//! record of the image has changed. Then a giant text in every field that takes one, which may be refused or taken but
//! may never be a fault of the server.

use super::harness::{Answer, Server, read_answer};
use ringfence_base::Reader;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Operations that take a body and declare no field of it, each for a reason. A new one has to give its own.
const WITHOUT_FIELDS: &[(&str, &str)] = &[
    ("*/{path}", "key-value version 1 and cubbyholes keep any object"),
    ("sys/wrapping/wrap", "answers any object"),
    ("*/rotate*", "does something and needs to know nothing"),
    ("sys/rotate/keyring", "does something and needs to know nothing"),
    ("sys/seal", "does something and needs to know nothing"),
    ("sys/step-down", "does something and needs to know nothing"),
    ("*tidy*", "does something and needs to know nothing"),
    ("sys/storage/raft/snapshot", "takes an archive"),
    ("sys/storage/raft/snapshot-force", "takes an archive"),
    ("sys/locked-users/{mount_accessor}/unlock/{alias_identifier}", "everything stands in the path"),
    ("sys/config/reload/{subsystem}", "everything stands in the path"),
    ("identity/oidc/provider/{name}/authorize", "its fields may come in a query, too"),
    ("identity/oidc/provider/{name}/userinfo", "the token is all it needs"),
    ("sys/internal/specs/openapi", "its fields may come in a query, too"),
    ("sys/plugins/catalog/{type}/{name}", "nothing can be registered"),
    ("auth/token/lookup-self", "a read that clients may write"),
    ("auth/token/revoke-self", "does something and needs to know nothing"),
    ("auth/token/lookup/{token}", "everything stands in the path"),
    ("auth/token/revoke/{token}", "everything stands in the path"),
    ("*/reset/{name}", "everything stands in the path"),
    ("*/reload/{plugin_name}", "everything stands in the path"),
    ("sys/storage/raft/configuration", "a read that clients may write"),
    ("*/oidc/callback", "its fields come in a query"),
    ("identity/mfa/method/duo", "refused whole: it is not built"),
    ("identity/mfa/method/okta", "refused whole: it is not built"),
    ("identity/mfa/method/pingid", "refused whole: it is not built"),
    ("identity/mfa/method/{type}/{method_id}", "refused whole: it is not built"),
    ("*/issuer/{issuer_ref}/revoke", "everything stands in the path"),
    ("*/soft-delete", "everything stands in the path"),
    ("*/soft-delete-restore", "everything stands in the path"),
];

/// Fields of any type, with the reason.
const UNTYPED: &[(&str, &str, &str)] = &[
    ("*", "options", "key-value data: options of a write"),
    ("*/data/{path}", "data", "key-value data"),
    ("*", "batch_input", "a list of objects, or its JSON text; refused by the handler"),
    ("*/config", "jwks_pairs", "a list of objects; refused by the handler"),
    ("identity/oidc/provider/{name}/authorize", "request", "refused whatever it is: request_not_supported"),
    ("identity/oidc/provider/{name}/authorize", "request_uri", "refused whatever it is: request_uri_not_supported"),
    ("*/roles/{name}", "policy_identifiers", "object identifiers, or objects, or JSON text; refused by the handler"),
];

fn fits(pattern: &str, path: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) if rest.ends_with('*') => path.contains(rest.trim_matches('*')),
        (Some(end), _) => path.ends_with(end),
        (_, Some(begin)) => path.starts_with(begin),
        _ => path == pattern,
    }
}

/// Faults that Vault answers with the status of a fault of the server, word for word.
const AS_VAULT: &[&str] = &[
    "1 error occurred:\n\t* username does not exist\n\n",
    "1 error occurred:\n\t* the import path cannot be used with an existing key; use import-version to rotate an \
     existing imported key\n\n",
];

/// One kept connection.
struct Wire {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
    sent: usize,
}

impl Wire {
    fn ask(&mut self, method: &str, path: &str, token: &str, body: Option<&[u8]>) -> Answer {
        self.sent += 1;
        for attempt in 0..2 {
            let stream = self.stream.get_or_insert_with(|| {
                let s = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
                s.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
                s.set_nodelay(true).expect("set");
                BufReader::new(s)
            });
            let mut head = format!("{method} /v1/{path} HTTP/1.1\r\nHost: t\r\n");
            if !token.is_empty() {
                head.push_str(&format!("X-Vault-Token: {token}\r\n"));
            }
            if method == "PATCH" {
                head.push_str("Content-Type: application/merge-patch+json\r\n");
            }
            if let Some(b) = body {
                head.push_str(&format!("Content-Length: {}\r\n", b.len()));
            }
            head.push_str("\r\n");
            let mut bytes = head.into_bytes();
            bytes.extend_from_slice(body.unwrap_or_default());
            let sent = stream.get_mut().write_all(&bytes);
            match sent.and_then(|()| read_answer(stream)) {
                Ok(answer) => {
                    if answer.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
                        self.stream = None;
                    }
                    return answer;
                }
                // the connection was closed after the answer before
                Err(_) if attempt == 0 => self.stream = None,
                Err(e) => panic!("{method} {path}: {e}"),
            }
        }
        unreachable!("two attempts end in an answer or a panic");
    }
}

/// Something that an operation takes.
struct Field {
    name: String,
    schema: Value,
}

/// An operation of the document with its path filled in.
struct Operation {
    route: String,
    path: String,
    method: &'static str,
    fields: Vec<Field>,
    takes_body: bool,
    public: bool,
}

/// A path with something in the place of each parameter.
fn filled(route: &str, item: &Value) -> String {
    let mut path = route.to_owned();
    for p in item["parameters"].as_array().into_iter().flatten() {
        let name = p["name"].as_str().expect("a name");
        let sample = if p["schema"]["type"] == "integer" { "7" } else { "x1" };
        path = path.replace(&format!("{{{name}}}"), sample);
    }
    path
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (route, item) in document["paths"].as_object().expect("paths") {
        let route = route.trim_start_matches('/');
        for (key, method) in [("get", "GET"), ("post", "POST"), ("patch", "PATCH"), ("delete", "DELETE")] {
            let Some(op) = item.get(key) else { continue };
            let body = &op["requestBody"]["content"]["application/json"]["schema"]["properties"];
            let takes_body = matches!(method, "POST" | "PATCH");
            let fields = match takes_body {
                true => body.as_object().into_iter().flatten().map(|(n, s)| (n.clone(), s.clone())).collect(),
                false => op["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|p| (p["name"].as_str().expect("a name").to_owned(), p["schema"].clone()))
                    .filter(|(n, _)| n != "list")
                    .collect::<Vec<_>>(),
            };
            all.push(Operation {
                path: filled(route, item),
                route: route.to_owned(),
                method,
                fields: fields.into_iter().map(|(name, schema)| Field { name, schema }).collect(),
                takes_body,
                public: item["x-vault-unauthenticated"] == true,
            });
        }
    }
    all
}

/// A value that the type cannot take; `None` if it takes all.
fn wrong(schema: &Value) -> Option<Value> {
    let nested = json!({"a": {"b": 1}});
    Some(match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("duration")) => json!("soon"),
        (Some("string"), Some("date-time")) => json!("yesterday, or so"),
        (Some("string"), _) => nested,
        (Some("integer" | "number"), _) => json!("several"),
        (Some("boolean"), _) => json!("maybe"),
        (Some("array"), _) if schema["items"]["type"] == "integer" => json!(["one"]),
        (Some("array"), _) => nested,
        (Some("object"), _) => json!(7),
        _ => return None,
    })
}

/// Every record but those that the server writes by itself, by key: sealing draws a fresh nonce, so a record that was
/// written again differs even if it says the same.
fn image(wire: &mut Wire, root: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let archive = wire.ask("GET", "sys/storage/raft/snapshot", root, None);
    assert_eq!(archive.status, 200);
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&archive.body[..]));
    let mut state = Vec::new();
    for entry in tar.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        if entry.path().is_ok_and(|p| p.as_os_str() == "state.bin") {
            entry.read_to_end(&mut state).expect("read");
        }
    }
    let mut r = Reader::new(state.get(8..).expect("a state"));
    let mut records = BTreeMap::new();
    for _ in 0..r.num().expect("a count") {
        let key = r.bytes(1 << 20).expect("a key").to_vec();
        let value = r.bytes(64 << 20).expect("a record").to_vec();
        // 1: seal and counts of sealed records; 2: issuers
        if key[0] > 2 {
            records.insert(key, value);
        }
    }
    records
}

/// Everything that can be mounted is, once.
fn mount_all(s: &Server) {
    for (kind, place) in [("secret", "sys/mounts"), ("auth", "sys/auth")] {
        let listed = s.list(&format!("sys/plugins/catalog/{kind}"), &s.root).json();
        for name in listed["data"]["keys"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            let a = s.put(&format!("{place}/in-{name}"), &s.root, &json!({"type": name}));
            assert!(a.status == 204 || a.status == 200, "{name}: {:?}", a.errors());
        }
    }
    let v2 = json!({"type": "kv", "options": {"version": "2"}});
    assert_eq!(s.put("sys/mounts/in-kv2", &s.root, &v2).status, 204);
}

#[test]
fn every_operation_refuses_what_it_cannot_take() {
    let s = Server::ready("inputs");
    mount_all(&s);
    let mut wire = Wire { port: s.port, stream: None, sent: 0 };
    let document = wire.ask("GET", "sys/internal/specs/openapi", &s.root, None).json();
    let all = operations(&document);
    assert!(all.len() > 200, "{}", all.len());
    let before = image(&mut wire, &s.root);
    let mut faults: Vec<String> = Vec::new();
    let mut told = |what: String, a: &Answer| {
        faults.push(format!("{what}: {} {}", a.status, String::from_utf8_lossy(&a.body).trim_end()));
    };

    for op in &all {
        let name = format!("{} {}", op.method, op.route);
        if op.takes_body && op.fields.is_empty() && !WITHOUT_FIELDS.iter().any(|(p, _)| fits(p, &op.route)) {
            faults_of(
                &mut told,
                &name,
                "takes a body and declares no field: declare them, or name it in WITHOUT_FIELDS",
            );
        }
        for field in &op.fields {
            let Some(value) = wrong(&field.schema) else {
                if !UNTYPED.iter().any(|(p, f, _)| (*p == "*" || fits(p, &op.route)) && *f == field.name) {
                    faults_of(
                        &mut told,
                        &name,
                        &format!("field {:?} has no type: give it one, or name it in UNTYPED", field.name),
                    );
                }
                continue;
            };
            let a = if op.takes_body {
                let body = json!({ field.name.as_str(): value }).to_string();
                wire.ask(op.method, &op.path, &s.root, Some(body.as_bytes()))
            } else {
                // a query holds texts only, so a text takes all of them
                let Some(text) = value.as_str().filter(|_| field.schema["type"] != "array") else { continue };
                let text = text.replace(' ', "%20");
                // what is only a folder is only listed
                let method = if op.path.ends_with('/') { "LIST" } else { op.method };
                wire.ask(method, &format!("{}?{}={text}", op.path, field.name), &s.root, None)
            };
            let text = a.errors()[0].as_str().unwrap_or("").to_owned();
            let rule = format!("error converting input for field {:?}", field.name);
            if a.status != 400 || !text.contains("Field validation failed") || !text.contains(&rule) {
                told(format!("{name} with {}={value}", field.name), &a);
            }
        }
        if op.takes_body && !op.route.contains("raft/snapshot") {
            for body in ["{\"a\":", "[1]", "\"text\"", "{\"a\":1}}", "{\"a\":\"\u{1}\"}", "\u{0}"] {
                let a = wire.ask(op.method, &op.path, &s.root, Some(body.as_bytes()));
                let text = a.errors()[0].as_str().unwrap_or("").to_owned();
                if a.status != 400
                    || !text.starts_with("failed to decode JSON input") && !text.starts_with("error parsing JSON")
                {
                    told(format!("{name} with the body {body:?}"), &a);
                }
            }
        }
        if !op.public {
            for token in
                ["", "hvs.AAAAAAAAAAAAAAAAAAAAAAAA", "hvb.AAAA", "s.x", "eyJhbGciOiJFUzUxMiJ9.e30.AA", "\u{e9}"]
            {
                let a = wire.ask(op.method, &op.path, token, op.takes_body.then_some(b"{}"));
                // a token with bytes that are no text is bad input, not a bad token; unwrap has a text of its own
                let ok =
                    a.status == 403 || a.status == 400 && (token == "\u{e9}" || op.route == "sys/wrapping/unwrap");
                if !ok || a.errors().as_array().is_none_or(Vec::is_empty) {
                    told(format!("{name} with the token {token:?}"), &a);
                }
            }
        }
    }
    // verbs that a path does not have
    for (route, item) in document["paths"].as_object().expect("paths") {
        let path = filled(route.trim_start_matches('/'), item);
        for (key, method) in [("get", "GET"), ("post", "POST"), ("patch", "PATCH"), ("delete", "DELETE")] {
            if item.get(key).is_some() || path.ends_with('/') {
                continue;
            }
            let a = wire.ask(method, &path, &s.root, matches!(method, "POST" | "PATCH").then_some(b"{}"));
            if a.status != 405 || a.errors() != json!(["1 error occurred:\n\t* unsupported operation\n\n"]) {
                told(format!("{method} {route}, which it does not have"), &a);
            }
        }
    }
    // paths that nobody has
    let roots: BTreeSet<&str> = all
        .iter()
        .filter_map(|op| op.route.strip_prefix("auth/").unwrap_or(&op.route).split_once('/').map(|(m, _)| m))
        .collect();
    assert!(roots.len() > 5, "{roots:?}");
    for path in ["no-such-mount/x", "sys/no-such-path", "auth/token/no-such-path", "auth/none/login/x"] {
        for method in ["GET", "PUT", "DELETE", "LIST"] {
            let a = wire.ask(method, path, &s.root, (method == "PUT").then_some(b"{}"));
            if a.status != 404 || a.errors().as_array().is_none_or(Vec::is_empty) {
                told(format!("{method} {path}, which is nowhere"), &a);
            }
        }
    }
    // a body that is announced and far too long is refused before it is sent
    for op in all.iter().filter(|op| op.takes_body && !op.route.contains("raft/snapshot")) {
        let mut stream = TcpStream::connect(("127.0.0.1", s.port)).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let head = format!(
            "{} /v1/{} HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {}\r\nContent-Type: application/merge-patch+json\r\n\
             Content-Length: 99999999\r\n\r\n",
            op.method, op.path, s.root
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let a = read_answer(&mut BufReader::new(stream)).expect("an answer");
        if a.status != 413 || a.errors() != json!(["http: request body too large"]) {
            told(format!("{} {} with a giant body", op.method, op.route), &a);
        }
    }
    assert!(faults.is_empty(), "{} faults of {} requests:\n{}", faults.len(), wire.sent, faults.join("\n"));
    assert!(wire.sent > 2000, "{}", wire.sent);

    let after = image(&mut wire, &s.root);
    let changed: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|k| before.get(*k) != after.get(*k))
        .map(|k| String::from_utf8_lossy(k).into_owned())
        .collect();
    assert!(changed.is_empty(), "bad input changed records: {changed:?}");
    assert_eq!(s.get("sys/health", "").status, 200);
}

fn faults_of(told: &mut impl FnMut(String, &Answer), name: &str, what: &str) {
    told(format!("{name} {what}"), &Answer { status: 0, headers: Vec::new(), body: Vec::new() });
}

#[test]
fn a_giant_text_in_any_field_is_never_a_fault_of_the_server() {
    let s = Server::ready("giants");
    mount_all(&s);
    let mut wire = Wire { port: s.port, stream: None, sent: 0 };
    let document = wire.ask("GET", "sys/internal/specs/openapi", &s.root, None).json();
    let giant = "x".repeat(70_000);
    let mut faults = Vec::new();
    for op in operations(&document).iter().filter(|op| op.takes_body) {
        for field in &op.fields {
            let value = match field.schema["type"].as_str() {
                Some("string") => json!(giant),
                Some("array") => json!([giant]),
                Some("object") => json!({ giant.as_str(): giant }),
                _ => continue,
            };
            let body = json!({ field.name.as_str(): value }).to_string();
            let a = wire.ask(op.method, &op.path, &s.root, Some(body.as_bytes()));
            let as_vault = a.errors()[0].as_str().is_some_and(|e| AS_VAULT.contains(&e));
            if a.status >= 500 && !as_vault {
                faults.push(format!("{} {} {}: {} {:?}", op.method, op.route, field.name, a.status, a.errors()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(s.get("sys/health", "").status, 200);
}
