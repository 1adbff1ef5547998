//! What an enemy tries: each test is named after a class of fault that was published of servers like this one.

use super::harness::{Answer, Scratch, Server, read_answer, request};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

fn kv(s: &Server) {
    for (path, version) in [("secret", "2"), ("plain", "1")] {
        let a =
            s.put(&format!("sys/mounts/{path}"), &s.root, &json!({"type": "kv", "options": {"version": version}}));
        assert_eq!(a.status, 204, "{:?}", a.errors());
    }
}

fn policy(s: &Server, name: &str, text: &str) {
    let a = s.put(&format!("sys/policies/acl/{name}"), &s.root, &json!({"policy": text}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
}

/// A token with one policy of this name and whatever else is asked.
fn token(s: &Server, name: &str, mut more: Value) -> String {
    more["policies"] = json!([name]);
    let a = s.put("auth/token/create", &s.root, &more);
    a.json()["auth"]["client_token"].as_str().map(str::to_owned).unwrap_or_else(|| panic!("{:?}", a.errors()))
}

/// Sends bytes as they are and reads one answer.
fn raw(s: &Server, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", s.port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(bytes).expect("sent");
    read_answer(&mut BufReader::new(stream)).unwrap_or_else(|e| panic!("{e}; log: {}", s.log()))
}

/// Runs the same on so many threads; answers what each found.
fn together<T: Send>(threads: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let f = &f;
        let all: Vec<_> = (0..threads).map(|i| scope.spawn(move || f(i))).collect();
        all.into_iter().map(|t| t.join().expect("a thread")).collect()
    })
}

#[test]
fn cve_2026_3605_another_spelling_of_a_path_does_not_pass_a_denial() {
    let s = Server::ready("spelling");
    kv(&s);
    policy(
        &s,
        "most",
        "path \"secret/*\" { capabilities = [\"create\",\"read\",\"update\",\"delete\",\"list\",\"patch\"] }\n\
         path \"plain/*\" { capabilities = [\"create\",\"read\",\"update\",\"delete\",\"list\"] }\n\
         path \"secret/+/hidden\" { capabilities = [\"deny\"] }\n\
         path \"plain/hidden\" { capabilities = [\"deny\"] }",
    );
    s.put("secret/data/hidden", &s.root, &json!({"data": {"k": "CANARY"}}));
    s.put("plain/hidden", &s.root, &json!({"k": "CANARY"}));
    let t = token(&s, "most", json!({}));
    for path in [
        "hidden",
        "hidden/",
        "/hidden",
        "//hidden",
        "hidden//",
        "%68idden",
        "hidden%2f",
        "%2fhidden",
        "hidden%2F%2F",
        "./hidden",
        "x/../hidden",
        "%2e/hidden",
        "x/%2e%2e/hidden",
        "hidden%00",
        "hidden?version=1",
        "hidden%e2%80%8b",
        "HIDDEN",
        "hidden%20",
        "hidden;x",
        "hidden%3fx",
        "hidden%252f",
    ] {
        for mount in ["secret/data/", "secret/metadata/", "secret/subkeys/", "plain/"] {
            for method in ["GET", "LIST", "DELETE", "PUT", "SCAN"] {
                let body = (method == "PUT").then_some(&b"{\"data\":{\"k\":\"overwritten\"}}"[..]);
                let a = s.request(method, &format!("{mount}{path}"), &t, body);
                assert!(a.status < 500, "{method} {mount}{path}: {}", a.status);
                let text = String::from_utf8_lossy(&a.body).into_owned();
                assert!(!text.contains("CANARY"), "{method} {mount}{path}: {text}");
            }
        }
    }
    assert_eq!(s.get("secret/data/hidden", &s.root).json()["data"]["data"]["k"], "CANARY");
    assert_eq!(s.get("plain/hidden", &s.root).json()["data"]["k"], "CANARY");
}

/// Root-protected paths with the operations that are served there.
const SUDO: &[(&str, &str)] = &[
    ("LIST", "auth/token/accessors"),
    ("LIST", "auth/token/accessors/"),
    ("PUT", "auth/token/revoke-orphan"),
    ("PUT", "auth/token/revoke-batch"),
    ("GET", "sys/audit"),
    ("PUT", "sys/audit/x"),
    ("DELETE", "sys/audit/x"),
    ("PUT", "sys/auth/x"),
    ("DELETE", "sys/auth/x"),
    ("GET", "sys/auth/token/tune"),
    ("PUT", "sys/auth/token/tune"),
    ("PUT", "sys/mounts/auth/token/tune"),
    ("GET", "sys/config/auditing/request-headers"),
    ("PUT", "sys/config/auditing/request-headers/x-a"),
    ("GET", "sys/config/auditing/request-headers/x-a"),
    ("DELETE", "sys/config/auditing/request-headers/x-a"),
    ("GET", "sys/config/cors"),
    ("PUT", "sys/config/cors"),
    ("DELETE", "sys/config/cors"),
    ("LIST", "sys/config/ui/headers"),
    ("GET", "sys/config/ui/headers/x-a"),
    ("PUT", "sys/config/ui/headers/x-a"),
    ("DELETE", "sys/config/ui/headers/x-a"),
    ("GET", "sys/leases"),
    ("LIST", "sys/leases/lookup/"),
    ("LIST", "sys/leases/lookup/secret/"),
    ("PUT", "sys/leases/revoke-force/secret"),
    ("PUT", "sys/leases/revoke-prefix/secret"),
    ("PUT", "sys/revoke-force/secret"),
    ("PUT", "sys/revoke-prefix/secret"),
    ("PUT", "sys/leases/tidy"),
    ("GET", "sys/plugins/catalog/secret"),
    ("GET", "sys/plugins/catalog/secret/kv"),
    ("LIST", "sys/raw"),
    ("GET", "sys/raw/core"),
    ("PUT", "sys/raw/core"),
    ("DELETE", "sys/raw/core"),
    ("PUT", "sys/remount"),
    ("PUT", "sys/rotate"),
    ("PUT", "sys/rotate/keyring"),
    ("GET", "sys/rekey/backup"),
    ("DELETE", "sys/rekey/backup"),
    ("PUT", "sys/step-down"),
    ("PUT", "sys/seal"),
];

/// What answers without a token.
const OPEN: &[(&str, &str)] = &[
    ("GET", "sys/health"),
    ("HEAD", "sys/health"),
    ("GET", "sys/init"),
    ("GET", "sys/seal-status"),
    ("GET", "sys/leader"),
    ("PUT", "sys/unseal"),
    ("GET", "sys/rekey/init"),
    ("GET", "sys/generate-root/attempt"),
    ("PUT", "sys/decode-token"),
    ("PUT", "sys/wrapping/lookup"),
    ("GET", "sys/replication/status"),
    ("GET", "sys/internal/specs/openapi"),
    ("GET", "sys/internal/ui/mounts"),
    ("GET", "sys/internal/ui/namespaces"),
    ("GET", "sys/internal/ui/feature-flags"),
];

/// What must not: besides the list above, the ordinary paths.
const CLOSED: &[(&str, &str)] = &[
    ("GET", "sys/mounts"),
    ("PUT", "sys/mounts/x"),
    ("GET", "sys/auth"),
    ("GET", "sys/policies/acl/default"),
    ("LIST", "sys/policies/acl"),
    ("GET", "sys/policy"),
    ("GET", "sys/metrics"),
    ("GET", "sys/host-info"),
    ("GET", "sys/in-flight-req"),
    ("GET", "sys/key-status"),
    ("GET", "sys/ha-status"),
    ("GET", "sys/config/state/sanitized"),
    ("GET", "sys/loggers"),
    ("GET", "sys/internal/counters/tokens"),
    ("GET", "sys/internal/ui/resultant-acl"),
    ("GET", "sys/locked-users"),
    ("GET", "sys/storage/raft/configuration"),
    ("GET", "sys/storage/raft/snapshot"),
    ("PUT", "sys/storage/raft/snapshot"),
    ("PUT", "sys/storage/raft/snapshot-force"),
    ("PUT", "sys/tools/random"),
    ("PUT", "sys/wrapping/wrap"),
    ("PUT", "sys/wrapping/rewrap"),
    ("PUT", "sys/capabilities-self"),
    ("PUT", "auth/token/create"),
    ("GET", "auth/token/lookup-self"),
    ("PUT", "auth/token/renew-self"),
    ("GET", "cubbyhole/x"),
    ("LIST", "cubbyhole/"),
    ("GET", "secret/data/x"),
    ("GET", "nowhere/x"),
];

#[test]
fn protected_paths_need_sudo_and_closed_paths_a_token() {
    let s = Server::ready("sudo");
    kv(&s);
    let every = "\"create\",\"read\",\"update\",\"delete\",\"list\",\"patch\"";
    policy(&s, "every", &format!("path \"*\" {{ capabilities = [{every}] }}"));
    // granted sudo elsewhere does not help here
    policy(&s, "elsewhere", &format!("path \"secret/*\" {{ capabilities = [{every}, \"sudo\"] }}"));
    let t = {
        let a = s.put("auth/token/create", &s.root, &json!({"policies": ["every", "elsewhere"]}));
        a.json()["auth"]["client_token"].as_str().expect("a token").to_owned()
    };
    let send = |method: &str, path: &str, token: &str| {
        s.request(method, path, token, (method == "PUT").then_some(&b"{}"[..])).status
    };
    for (method, path) in SUDO {
        assert_eq!(send(method, path, &t), 403, "{method} {path} without sudo");
        assert_eq!(send(method, path, ""), 403, "{method} {path} without a token");
    }
    for (method, path) in CLOSED {
        assert_eq!(send(method, path, ""), 403, "{method} {path} without a token");
        assert_eq!(send(method, path, "hvs.madeup"), 403, "{method} {path} with a made-up token");
    }
    for (method, path) in OPEN {
        assert!(![403, 500].contains(&send(method, path, "")), "{method} {path} is open");
    }
    // the same paths open with sudo: the refusals above were about it
    for (method, path) in SUDO.iter().filter(|(_, p)| !matches!(*p, "sys/seal" | "sys/rotate" | "sys/rotate/keyring"))
    {
        assert_ne!(send(method, path, &s.root), 403, "{method} {path} as root");
    }
    assert_eq!(s.get("sys/seal-status", "").json()["sealed"], false);
}

#[test]
fn cve_2025_64761_no_other_spelling_of_root_makes_a_root_token() {
    let s = Server::ready("rootname");
    policy(&s, "maker", "path \"auth/token/*\" { capabilities = [\"create\",\"update\",\"sudo\"] }");
    let t = token(&s, "maker", json!({}));
    for name in ["root", "Root", "ROOT ", " root", "root\t", "\u{a0}root", "response-wrapping", "Control-Group"] {
        for body in [json!({"policies": [name]}), json!({"policies": ["maker", name]}), json!({"policies": name})] {
            let a = s.put("auth/token/create", &t, &body);
            let granted = a.json()["auth"]["policies"].to_string();
            assert!(a.status == 400 || !granted.contains("root"), "{name:?}: {} {granted}", a.status);
            assert!(!granted.contains("response-wrapping") && !granted.contains("control-group"), "{granted}");
        }
        // nor can the policy itself be written under another name
        let path = format!("sys/policies/acl/{}", name.trim().replace('\u{a0}', "%C2%A0"));
        let a = s.put(&path, &s.root, &json!({"policy": "path \"x\" { capabilities = [\"read\"] }"}));
        assert!(a.status == 400 || name.contains('\u{a0}'), "{name:?}: {}", a.status);
    }
}

#[test]
fn a_header_that_is_no_text_is_not_read_as_absent() {
    let s = Server::ready("headers");
    let root = s.root.clone();
    let get = |header: &[u8]| {
        let mut bytes = format!("GET /v1/auth/token/lookup-self HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {root}\r\n");
        bytes.push_str("Connection: close\r\n");
        raw(&s, &[bytes.as_bytes(), header, b"\r\n\r\n"].concat()).status
    };
    assert_eq!(get(b"X-A: b"), 200);
    // a tenant's name that cannot be read must not mean the root namespace, nor a wish for wrapping no wrapping
    assert_eq!(get(b"X-Vault-Namespace: t\xc3\xa9nant"), 400);
    assert_eq!(get(b"X-Vault-Wrap-TTL: 60\xff"), 400);
    for absent in ["nobody", "nobody/", "/nobody", "root/nobody", "ROOT", "..", "%2e"] {
        assert_eq!(get(format!("X-Vault-Namespace: {absent}").as_bytes()), 404, "{absent}");
    }
    for itself in ["", "/", "root", "root/", " / "] {
        assert_eq!(get(format!("X-Vault-Namespace: {itself}").as_bytes()), 200, "{itself:?}");
    }
}

#[test]
fn a_wish_for_wrapping_is_never_lost() {
    let s = Server::ready("wrapwish");
    let ask = |ttl: &str| {
        let headers = [("X-Vault-Token", s.root.as_str()), ("X-Vault-Wrap-TTL", ttl)];
        request(s.port, "GET", "auth/token/lookup-self", &headers, None).expect("an answer")
    };
    for ttl in ["1", "1s", "0.5s", "1ns", "300ms", "9223372036", "106751d", "9223372036s"] {
        let a = ask(ttl);
        assert_eq!(a.status, 200, "{ttl}: {:?}", a.errors());
        assert!(a.json()["wrap_info"]["token"].is_string() && a.json()["data"].is_null(), "{ttl}: {}", a.json());
    }
    for ttl in ["-1", "-1s", "soon", "9223372037", "99999999999999999999", "1h-1s", "1e3", "0x10"] {
        assert_eq!(ask(ttl).status, 400, "{ttl}");
    }
}

#[test]
fn cve_2023_6337_gigabytes_are_not_taken_from_strangers() {
    let s = Server::ready("upload");
    kv(&s);
    for path in ["snapshot", "snapshot-force"] {
        let head = format!(
            "POST /v1/sys/storage/raft/{path} HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000000\r\nX-Vault-Token: \
             hvs.madeup\r\n\r\n"
        );
        // refused by the head alone: not one byte of the body was sent
        assert_eq!(raw(&s, head.as_bytes()).status, 403, "{path}");
    }
    // a chunked body of no stated length meets the bound as well
    let mut stream = TcpStream::connect(("127.0.0.1", s.port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let head = "PUT /v1/secret/data/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let chunk = [&b"100000\r\n"[..], &vec![b' '; 1 << 20], b"\r\n"].concat();
    // the server may close before all of it is written
    (0..34).try_for_each(|_| stream.write_all(&chunk)).unwrap_or_default();
    if let Ok(a) = read_answer(&mut BufReader::new(stream)) {
        assert_eq!(a.status, 413);
    }
    assert_eq!(s.get("sys/health", "").status, 200);
}

#[test]
fn a_limited_token_is_used_so_often_and_no_more() {
    let s = {
        let mut s = Server::blank_at("uses", Scratch::new("uses"), &[("RINGFENCE_CORES", "2")]);
        s.init(1, 1);
        s.unseal();
        s
    };
    kv(&s);
    policy(&s, "rw", "path \"plain/*\" { capabilities = [\"create\",\"read\",\"update\"] }");
    s.put("plain/x", &s.root, &json!({"k": "v"}));
    for uses in [1usize, 2, 5] {
        let t = token(&s, "rw", json!({"num_uses": uses}));
        let done = together(12, |i| match i % 2 {
            0 => s.get("plain/x", &t).status,
            _ => s.put(&format!("plain/y{uses}/{i}"), &t, &json!({"k": "v"})).status,
        });
        let good = done.iter().filter(|c| matches!(c, 200 | 204)).count();
        assert_eq!(good, uses, "{done:?}");
        assert!(done.iter().all(|c| matches!(c, 200 | 204 | 403)), "{done:?}");
        assert_eq!(s.get("plain/x", &t).status, 403);
        // refused writes left nothing behind
        let written =
            s.list(&format!("plain/y{uses}"), &s.root).json()["data"]["keys"].as_array().map_or(0, Vec::len);
        assert!(written <= uses, "{written} written by {uses} uses");
    }
    // a wrapped answer is opened by exactly one of many
    for by_body in [false, true] {
        let a = request(
            s.port,
            "GET",
            "plain/x",
            &[("X-Vault-Token", s.root.as_str()), ("X-Vault-Wrap-TTL", "60")],
            None,
        );
        let w = a.expect("an answer").json()["wrap_info"]["token"].as_str().expect("a token").to_owned();
        let opened = together(8, |i| match (by_body, i % 3) {
            (true, _) => s.put("sys/wrapping/unwrap", &s.root, &json!({"token": w})).status,
            (false, 0) => s.get("cubbyhole/response", &w).status,
            (false, _) => s.put("sys/wrapping/unwrap", &w, &Value::Null).status,
        });
        assert_eq!(opened.iter().filter(|c| **c == 200).count(), 1, "{opened:?}");
    }
}

#[test]
fn a_revoked_token_or_policy_is_gone_on_every_core() {
    let s = {
        let mut s = Server::blank_at("revoked", Scratch::new("revoked"), &[("RINGFENCE_CORES", "2")]);
        s.init(1, 1);
        s.unseal();
        s
    };
    kv(&s);
    s.put("plain/x", &s.root, &json!({"k": "v"}));
    let open = "path \"plain/*\" { capabilities = [\"create\",\"read\",\"update\"] }";
    policy(&s, "p", open);
    let t = token(&s, "p", json!({}));
    // each connection may land on either core
    let all = |want: u16| (0..12).for_each(|_| assert_eq!(s.get("plain/x", &t).status, want));
    for _ in 0..5 {
        all(200);
        assert_eq!(s.request("DELETE", "sys/policies/acl/p", &s.root, None).status, 204);
        all(403);
        policy(&s, "p", open);
    }
    // a restored snapshot brings the policies of its time back, on every core, though the index stands still
    let archive = s.get("sys/storage/raft/snapshot", &s.root).body;
    policy(&s, "p", "path \"plain/*\" { capabilities = [\"deny\"] }");
    all(403);
    let a = s.request("POST", "sys/storage/raft/snapshot", &s.root, Some(&archive));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    all(200);
    assert_eq!(s.put("auth/token/revoke", &s.root, &json!({"token": t})).status, 204);
    all(403);
}

#[test]
fn seals_under_load_lose_no_acknowledged_write() {
    let s = Server::ready("sealload");
    kv(&s);
    let acknowledged = together(5, |i| {
        let mut good = Vec::new();
        for n in 0..25 {
            if i == 4 {
                if n % 12 == 0 {
                    s.put("sys/seal", &s.root, &Value::Null);
                    assert_eq!(s.get("plain/w0-0", &s.root).status, 503, "sealed and answering");
                    s.unseal();
                    s.put("sys/rotate", &s.root, &Value::Null);
                }
                continue;
            }
            let a = s.put(&format!("plain/w{i}-{n}"), &s.root, &json!({"n": n}));
            match a.status {
                204 => good.push(format!("plain/w{i}-{n}")),
                500 | 503 => {}
                other => panic!("{other}: {:?}", a.errors()),
            }
        }
        good
    });
    for path in acknowledged.concat() {
        assert_eq!(s.get(&path, &s.root).status, 200, "{path} was acknowledged");
    }
}

#[test]
fn cve_2025_6203_hostile_bodies_are_refused_and_nothing_breaks() {
    let s = Server::ready("bodies");
    kv(&s);
    s.put("sys/auth/approle", &s.root, &json!({"type": "approle"}));
    let many: serde_json::Map<String, Value> = (0..10_000).map(|i| (format!("p{i}"), json!(i))).collect();
    let values = [
        json!(-1),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e308),
        json!("9223372037s"),
        json!("106752d"),
        json!("9".repeat(400)),
        json!("\u{0}"),
        json!("١٢"),
        json!(["0.0.0.0/99", "::/200", "fe80::1%eth0"]),
        json!({}),
        json!([[[]]]),
        Value::Object(many),
        json!("path \"a\" {".repeat(2000)),
        json!("{{identity.entity.id"),
        json!("(".repeat(5000)),
    ];
    let fields: &[(&str, &[&str])] = &[
        ("auth/token/create", &["ttl", "explicit_max_ttl", "period", "num_uses", "policies", "meta", "id", "type"]),
        (
            "auth/token/roles/r",
            &["token_ttl", "token_bound_cidrs", "token_num_uses", "path_suffix", "allowed_policies"],
        ),
        ("secret/config", &["max_versions", "delete_version_after"]),
        ("secret/metadata/m", &["max_versions", "delete_version_after", "custom_metadata"]),
        ("secret/data/d", &["data", "options"]),
        ("secret/destroy/d", &["versions"]),
        ("sys/policies/acl/z", &["policy"]),
        ("sys/policies/password/z", &["policy"]),
        ("sys/mounts/secret/tune", &["max_lease_ttl", "options", "audit_non_hmac_request_keys"]),
        ("sys/tools/random", &["bytes", "format"]),
        ("sys/capabilities-self", &["paths"]),
        ("sys/rotate/config", &["max_operations", "interval"]),
        ("sys/unseal", &["key"]),
        ("sys/rekey/init", &["secret_shares", "pgp_keys"]),
        ("sys/generate-root/attempt", &["otp", "pgp_key"]),
        ("sys/decode-token", &["encoded_token", "otp"]),
        ("sys/wrapping/unwrap", &["token"]),
        ("auth/approle/role/r", &["secret_id_ttl", "token_period", "secret_id_bound_cidrs", "role_id"]),
        ("auth/approle/login", &["role_id", "secret_id"]),
    ];
    for (path, names) in fields {
        for name in *names {
            for v in &values {
                let a = s.put(path, &s.root, &json!({*name: v}));
                let shown = v.to_string().chars().take(40).collect::<String>();
                assert!(a.status < 500, "{path} {name}={shown}: {} {:?}", a.status, a.errors());
            }
        }
    }
    for path in
        ["?list=", "?list=2", "?list=true&scan=true", "?help=1", "?version=-1", "?version=9e99", "?%zz", "?a=%ff"]
    {
        for method in ["GET", "LIST", "SCAN", "DELETE"] {
            let a = raw(
                &s,
                format!(
                    "{method} /v1/secret/data/d{path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX-Vault-Token: {}\r\n\r\n",
                    s.root
                )
                .as_bytes(),
            );
            assert!(a.status < 500, "{method} {path}: {}", a.status);
        }
    }
    assert_eq!(s.get("sys/health", "").status, 200);
    assert!(!s.log().contains("panicked"), "{}", s.log());
}

#[test]
fn cve_2025_4166_secrets_appear_in_no_log_line_and_no_error() {
    let s = Server::ready("canary");
    kv(&s);
    let file = s.scratch.0.join("audit.log");
    let a = s.put("sys/audit/file", &s.root, &json!({"type": "file", "options": {"file_path": file}}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"}));
    let mut errors = String::new();
    let mut put = |path: &str, body: Value| {
        let a = s.put(path, &s.root, &body);
        if a.status >= 400 {
            errors.push_str(&String::from_utf8_lossy(&a.body));
        }
        a
    };
    put("secret/data/a", json!({"data": {"k": "CANARY1", "deep": [{"x": "CANARY2"}]}}));
    put("plain/a", json!({"k": "CANARY3"}));
    put("auth/userpass/users/u", json!({"password": "CANARY4"}));
    put("auth/userpass/login/u", json!({"password": "CANARY5"}));
    put("auth/token/create", json!({"id": "CANARY6"}));
    put("auth/token/lookup", json!({"token": "CANARY7"}));
    put("auth/token/revoke", json!({"token": "CANARY8"}));
    put("sys/wrapping/unwrap", json!({"token": "CANARY9"}));
    put("sys/wrapping/wrap", json!({"x": "CANARY10"}));
    put("sys/unseal", json!({"key": "CANARY11"}));
    put("sys/decode-token", json!({"encoded_token": "CANARY12", "otp": "CANARY13"}));
    put("secret/data/a", json!({"data": "CANARY14"}));
    put("secret/data/a", json!({"data": {"k": "CANARY15"}, "options": {"cas": "CANARY"}}));
    s.get("secret/data/a", &s.root);
    let a = s.request("PUT", "secret/data/a", &s.root, Some(b"{\"data\": {\"k\": \"CANARY16\" nonsense"));
    errors.push_str(&String::from_utf8_lossy(&a.body));
    s.get("secret/data/a", "hvs.CANARY17");
    let audit = std::fs::read_to_string(&file).expect("the audit file");
    assert!(audit.lines().count() > 20, "{audit}");
    for (what, text) in [("audit", &audit), ("log", &s.log())] {
        let bad = text.lines().find(|l| l.contains("CANARY") || l.contains(&s.root));
        assert!(bad.is_none(), "{what}: {}", bad.unwrap_or_default());
    }
    // an option's own text may be told in the error about it, a secret may not
    assert!(!errors.replace("\\\"CANARY\\\"", "").contains("CANARY"), "{errors}");
}

/// What a server asks of its engines only, renewals and revocations of leases and the like, is no method of requests
/// (GHSA-rh46): with whatever rights, whatever the case.
#[test]
fn ghsa_rh46_what_engines_are_asked_inside_is_nobodys_method() {
    let s = Server::ready("methods");
    kv(&s);
    s.put("plain/a", &s.root, &json!({"v": "1"}));
    for method in ["RENEW", "REVOKE", "ROLLBACK", "ALIASLOOKAHEAD", "RESOLVE-ROLE", "CREATE", "TRACE", "get"] {
        for path in ["plain/a", "sys/mounts", "auth/token/lookup-self"] {
            let a = s.request(method, path, &s.root, None);
            assert_eq!(a.status, 405, "{method} {path}: {:?}", a.errors());
        }
    }
    assert_eq!(s.get("plain/a", &s.root).json()["data"]["v"], "1");
}

/// Strangers ask for challenges to join and answer none (CVE-2024-8185): a few wait, the others are forgotten.
#[test]
fn cve_2024_8185_challenges_that_nobody_answers_are_forgotten() {
    let s = Server::ready("challenges");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", s.pid())).expect("status of the process");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    let ask = |n: usize| {
        let name = format!("{n}-{}", "x".repeat(60_000));
        s.put("sys/storage/raft/bootstrap/challenge", "", &json!({ "server_id": name }))
    };
    (0..50).for_each(|n| drop(ask(n)));
    let before = resident();
    for n in 50..650 {
        let a = ask(n);
        assert!(matches!(a.status, 200 | 400), "{:?}", a.errors());
    }
    // six hundred of them kept would be 36 MB
    assert!(resident() < before + 20_000_000, "{before} became {}", resident());
    assert_eq!(s.get("sys/health", "").status, 200);
}
