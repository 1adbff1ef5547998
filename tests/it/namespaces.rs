//! Namespaces over the real binary: the command line, the header, crash and restart, deletion.

use super::harness::{Answer, Server, request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A request to a namespace by its header.
pub fn at(s: &Server, ns: &str, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let bytes = body.map(|b| serde_json::to_vec(b).expect("json"));
    let mut headers = vec![("X-Vault-Token", token), ("X-Vault-Namespace", ns)];
    if method == "PATCH" {
        headers.push(("Content-Type", "application/merge-patch+json"));
    }
    request(s.port, method, path, &headers, bytes.as_deref()).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

/// Makes a namespace with a key-value store, a policy for everything in it, and answers a token of it.
pub fn tenant(s: &Server, ns: &str) -> String {
    let a = s.put(&format!("sys/namespaces/{ns}"), &s.root, &json!({}));
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let put = |path: &str, body: &Value| at(s, ns, "PUT", path, &s.root, Some(body));
    assert_eq!(put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).status, 204);
    let all = r#"path "*" { capabilities = ["create", "read", "update", "delete", "list", "patch", "sudo"] }"#;
    assert_eq!(put("sys/policies/acl/all", &json!({ "policy": all })).status, 204);
    let a = put("auth/token/create", &json!({"policies": ["all"], "no_parent": true}));
    assert_eq!(a.status, 200, "{:?}", a.errors());
    a.json()["auth"]["client_token"].as_str().expect("a token").to_owned()
}

/// Waits until a namespace is gone.
fn wait_gone(s: &Server, ns: &str) {
    let begun = Instant::now();
    while s.get(&format!("sys/namespaces/{ns}"), &s.root).status != 404 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{ns} does not go");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_command_line_makes_and_takes_down_namespaces() {
    let s = Server::ready("ns-cli");
    let ok = |args: &[&str]| {
        let (code, out, err) = s.cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    };
    let out = ok(&["namespace", "create", "-custom-metadata=team=x", "a"]);
    assert!(out.contains("path") && out.contains("a/"), "{out}");
    ok(&["namespace", "create", "-namespace=a", "b"]);
    assert!(ok(&["namespace", "list"]).contains("a/"));
    assert!(ok(&["namespace", "list", "-ns=a"]).contains("b/"));
    assert!(ok(&["namespace", "lookup", "a"]).contains("team"));
    assert!(!ok(&["namespace", "patch", "-remove-custom-metadata=team", "a"]).contains("team"));
    ok(&["secrets", "enable", "-namespace=a/b", "-path=secret", "-version=2", "kv"]);
    ok(&["kv", "put", "-namespace=a/b", "secret/app", "k=v"]);
    assert_eq!(ok(&["kv", "get", "-namespace=a/b", "-field=k", "secret/app"]).trim_end(), "v");
    assert_ne!(s.cli(&["kv", "get", "-namespace=a", "secret/app"]).0, 0);
    let out = ok(&["namespace", "lock", "a"]);
    let key = out.lines().find_map(|l| l.strip_prefix("Unlock Key: ")).expect("the unlock key").trim().to_owned();
    let (code, _, err) = s.cli(&["kv", "get", "-namespace=a/b", "secret/app"]);
    assert!(code == 2 && err.contains("has been locked by an administrator"), "{err}");
    ok(&["namespace", "unlock", &format!("-unlock-key={key}"), "a"]);
    ok(&["kv", "get", "-namespace=a/b", "secret/app"]);
    let (code, _, err) = s.cli(&["namespace", "delete", "a"]);
    assert!(code == 2 && err.contains("containing child namespaces"), "{err}");
    ok(&["namespace", "delete", "-namespace=a", "b"]);
    wait_gone(&s, "a/b");
    ok(&["namespace", "delete", "a"]);
    wait_gone(&s, "a");
    assert_eq!(s.list("sys/namespaces", &s.root).status, 404);
}

#[test]
fn a_namespace_survives_a_crash_and_its_answer_names_it() {
    let mut s = Server::ready("ns-crash");
    let t = tenant(&s, "a");
    let data = json!({"data": {"k": "v"}});
    let a = at(&s, "a", "PUT", "secret/data/x", &t, Some(&data));
    assert_eq!((a.status, a.header("x-vault-namespace")), (200, Some("a")));
    s.kill();
    s.start();
    s.unseal();
    for (ns, path) in [("a", "secret/data/x"), ("/a/", "secret/data/x"), ("", "a/secret/data/x")] {
        let a = at(&s, ns, "GET", path, &t, None);
        assert_eq!(a.json()["data"]["data"]["k"], "v", "{ns} {path}: {:?}", a.errors());
    }
    let a = at(&s, "nowhere", "GET", "secret/data/x", &t, None);
    assert_eq!((a.status, a.errors()), (404, json!(["namespace not found"])));
    // a token of the tenant does not operate the machine
    for path in ["sys/audit", "sys/config/cors", "sys/quotas/config", "sys/storage/raft/configuration"] {
        let a = at(&s, "a", "GET", path, &t, None);
        assert_eq!((a.status, a.errors()), (400, json!(["operation unavailable in namespaces"])), "{path}");
    }
}

#[test]
fn a_deletion_goes_on_after_a_crash() {
    let mut s = Server::ready("ns-delete");
    let t = tenant(&s, "a");
    for n in 0..200 {
        at(&s, "a", "PUT", &format!("secret/data/{n}"), &t, Some(&json!({"data": {"k": n}})));
    }
    let a = s.request("DELETE", "sys/namespaces/a", &s.root, None);
    assert_eq!((a.status, a.json()["data"]["status"].clone()), (200, json!("in-progress")));
    // dead on every core from the answer on
    for _ in 0..8 {
        assert_eq!(at(&s, "a", "GET", "secret/data/1", &t, None).status, 404);
        assert_eq!(at(&s, "", "GET", "auth/token/lookup-self", &t, None).status, 403);
    }
    s.kill();
    s.start();
    s.unseal();
    wait_gone(&s, "a");
    // the next tenant of that name finds an empty house
    let t = tenant(&s, "a");
    assert_eq!(at(&s, "a", "LIST", "secret/metadata/", &t, None).status, 404);
}

/// Resident memory of the server, bytes.
fn resident(s: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.pid())).expect("status of the process");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

/// Restarts and unseals; answers how long it took from the last key to the first answer that needed the router, what the
/// next one took, and the memory then.
fn started(s: &mut Server, ns: &str) -> (Duration, Duration, u64) {
    s.kill();
    s.start();
    let begun = Instant::now();
    s.unseal();
    let mut asked = begun;
    let took = [0; 16].map(|_| {
        assert_eq!(at(s, ns, "GET", "sys/mounts", &s.root, None).status, 200);
        std::mem::replace(&mut asked, Instant::now()).elapsed()
    });
    (took[0], took[1..].iter().copied().min().unwrap_or_default(), resident(s))
}

/// What many namespaces of five mounts each cost: memory apiece, and time at unseal. How many is told by
/// `RINGFENCE_NAMESPACES` (10,000). Run it with
/// `cargo test --release -p ringfence-server --test it what_ten_thousand -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes: it measures"]
fn what_ten_thousand_namespaces_cost() {
    let count: usize = std::env::var("RINGFENCE_NAMESPACES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut s = Server::ready("ns-many");
    let (empty_time, empty_next, empty) = started(&mut s, "");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let s = &s;
            scope.spawn(move || {
                for n in (worker..count).step_by(8) {
                    let ns = format!("tenant-{n}");
                    assert_eq!(s.put(&format!("sys/namespaces/{ns}"), &s.root, &json!({})).status, 200);
                    for mount in ["secret", "apps", "build"] {
                        let body = json!({"type": "kv", "options": {"version": "2"}});
                        let a = at(s, &ns, "PUT", &format!("sys/mounts/{mount}"), &s.root, Some(&body));
                        assert_eq!(a.status, 204, "{:?}", a.errors());
                    }
                    for method in ["userpass", "approle"] {
                        let path = format!("sys/auth/{method}");
                        let a = at(s, &ns, "PUT", &path, &s.root, Some(&json!({ "type": method })));
                        assert_eq!(a.status, 204, "{:?}", a.errors());
                    }
                }
            });
        }
    });
    println!("{count} namespaces of nine mounts (four of them every namespace's) made in {:?}", begun.elapsed());
    println!("resident while they were made: {} KiB apiece", (resident(&s) - empty) / 1024 / count as u64);
    let (time, next, full) = started(&mut s, "tenant-1");
    println!("unsealed and first request served in {time:?}; without namespaces in {empty_time:?}");
    println!("a later request: {next:?}; without namespaces {empty_next:?}");
    let apiece = (full - empty) / count as u64;
    println!("resident after a restart: {apiece} bytes apiece");
    let begun = Instant::now();
    assert_eq!(s.put("sys/namespaces/one-more", &s.root, &json!({})).status, 200);
    println!("one more made in {:?}", begun.elapsed());
}
