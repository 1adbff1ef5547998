//! Audit over the real binary: Vault's JSON, no secret in a line, no line no effect.

use super::harness::Server;
use serde_json::{Value, json};
use std::path::Path;

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON: {e}: {l}"))).collect()
}

fn audited(name: &str) -> (Server, std::path::PathBuf) {
    let s = Server::ready(name);
    std::fs::create_dir(s.scratch.0.join("audit")).expect("a directory");
    let file = s.scratch.0.join("audit/audit.log");
    let body = json!({"type": "file", "options": {"file_path": file.display().to_string()}});
    let a = s.put("sys/audit/file", &s.root, &body);
    assert_eq!(a.status, 204, "{:?}", a.errors());
    (s, file)
}

#[test]
fn cve_2024_0831_every_request_leaves_two_lines_and_no_secret() {
    let (s, file) = audited("audit");
    let canary = "canary-41c8aa0d";
    s.put("sys/mounts/secret", &s.root, &json!({"type": "kv", "options": {"version": "2"}}));
    let before = lines(&file).len();
    s.put("secret/data/a", &s.root, &json!({"data": {"password": canary, "nested": {"list": [canary]}}}));
    s.get("secret/data/a", &s.root);
    s.get("secret/data/a", "hvs.not-a-token");
    let all = lines(&file);
    assert_eq!(all.len() - before, 6);
    for pair in all[before..].chunks(2) {
        assert_eq!((&pair[0]["type"], &pair[1]["type"]), (&json!("request"), &json!("response")));
        assert_eq!(pair[0]["request"]["id"], pair[1]["request"]["id"]);
    }
    let read = &all[before + 3];
    assert_eq!(read["request"]["operation"], "read");
    assert_eq!(read["request"]["path"], "secret/data/a");
    assert_eq!(read["request"]["mount_type"], "kv");
    let hashed = read["response"]["data"]["data"]["password"].as_str().expect("a hash").to_owned();
    assert!(hashed.starts_with("hmac-sha256:"), "{hashed}");
    let a = s.put("sys/audit-hash/file", &s.root, &json!({"input": canary}));
    assert_eq!(a.json()["data"]["hash"], json!(hashed));
    assert!(
        all[before + 5]["error"].as_str().is_some_and(|e| e.contains("permission denied")),
        "{}",
        all[before + 5]
    );
    let text = std::fs::read_to_string(&file).expect("the file");
    for secret in [canary, s.root.as_str()] {
        assert!(!text.contains(secret), "a secret stands in the audit file");
    }
    let a = s.get("sys/audit", &s.root);
    assert_eq!(a.json()["data"]["file/"]["type"], "file");
}

#[test]
fn no_line_no_effect() {
    let (mut s, file) = audited("audit-blocked");
    s.put("sys/mounts/secret", &s.root, &json!({"type": "kv", "options": {"version": "1"}}));
    assert_eq!(s.put("secret/a", &s.root, &json!({"v": 1})).status, 204);
    // after a restart the device's file cannot be opened: its place is a directory now
    s.kill();
    std::fs::remove_file(&file).expect("the file");
    std::fs::create_dir(&file).expect("a directory in its place");
    s.start();
    s.unseal();
    let a = s.put("secret/a", &s.root, &json!({"v": 2}));
    assert_eq!((a.status, a.errors()), (500, json!(["1 error occurred:\n\t* internal error\n\n"])));
    assert_eq!(s.get("secret/a", &s.root).status, 500);
    s.kill();
    std::fs::remove_dir(&file).expect("the directory");
    s.start();
    s.unseal();
    assert_eq!(s.get("secret/a", &s.root).json()["data"]["v"], 1, "the refused write had an effect");
}

/// A line names the client behind the token, as counts of active clients do.
#[test]
fn lines_name_the_client() {
    let (s, file) = audited("audit-client");
    let make = |policies: &str| {
        let a = s.put("auth/token/create", &s.root, &json!({"policies": policies}));
        a.json()["auth"]["client_token"].as_str().expect("a token").to_owned()
    };
    for policies in ["default", "default", "default,other"] {
        assert_eq!(s.get("auth/token/lookup-self", &make(policies)).status, 200);
    }
    let clients: Vec<Value> = lines(&file)
        .iter()
        .filter(|l| l["type"] == "response" && l["request"]["path"] == "auth/token/lookup-self")
        .map(|l| l["request"]["client_id"].clone())
        .collect();
    assert!(clients.len() == 3 && clients[0].is_string(), "{clients:?}");
    assert!(clients[0] == clients[1] && clients[0] != clients[2], "{clients:?}");
}

#[test]
fn a_device_that_cannot_be_written_is_refused() {
    let s = Server::ready("audit-bad");
    let enable = |body: Value| s.put("sys/audit/x", &s.root, &body);
    let a = enable(json!({"type": "file"}));
    assert_eq!(a.status, 400, "{:?}", a.errors());
    let a = enable(json!({"type": "file", "options": {"file_path": "/nonexistent/dir/audit.log"}}));
    assert_eq!(a.status, 400, "{:?}", a.errors());
    let a = enable(json!({"type": "carrier-pigeon"}));
    assert_eq!((a.status, a.errors()), (400, json!(["unknown backend type: \"carrier-pigeon\""])));
    for place in ["data/log/x.log", "config.hcl"] {
        let path = s.scratch.0.join(place).display().to_string();
        let a = enable(json!({"type": "file", "options": {"file_path": path}}));
        assert_eq!(a.status, 400, "{place}: {:?}", a.errors());
    }
    assert_eq!(s.get("sys/audit", &s.root).json()["data"], json!({}));
}

/// The policies that granted a request were noted only if the core knew of devices already: not in the first line after
/// a restart.
#[test]
fn the_first_line_after_a_restart_names_the_granting_policies() {
    let (mut s, file) = audited("audit-granting");
    let policy = json!({"policy": "path \"sys/mounts\" { capabilities = [\"read\"] }"});
    assert_eq!(s.put("sys/policies/acl/look", &s.root, &policy).status, 204);
    let v = s.put("auth/token/create", &s.root, &json!({"policies": "look"})).json();
    let token = v["auth"]["client_token"].as_str().expect("a token").to_owned();
    s.kill();
    s.start();
    s.unseal();
    let before = lines(&file).len();
    assert_eq!(s.get("sys/mounts", &token).status, 200);
    let all = lines(&file);
    assert_eq!(all.len() - before, 2);
    for line in &all[before..] {
        let named = &line["auth"]["policy_results"]["granting_policies"];
        assert_eq!(named[0]["name"], "look", "{line}");
    }
}

/// A write that was too large for the log was answered and never told to the devices.
#[test]
fn a_write_that_is_too_large_leaves_its_lines() {
    let (s, file) = audited("audit-large");
    let before = lines(&file).len();
    let a =
        s.put("auth/token/create", &s.root, &json!({"meta": {"a": "x".repeat(900_000), "b": "x".repeat(900_000)}}));
    assert_eq!(a.status, 500);
    let all = lines(&file);
    let of_it: Vec<&Value> = all[before..].iter().filter(|l| l["request"]["path"] == "auth/token/create").collect();
    assert_eq!(of_it.len(), 2, "{:?}", a.errors());
    assert_eq!((&of_it[0]["type"], &of_it[1]["type"]), (&json!("request"), &json!("response")));
    assert!(of_it[1]["error"].as_str().is_some_and(|e| e.contains("too large")), "{}", of_it[1]);
    assert!(of_it[1]["auth"]["policies"].is_array(), "{}", of_it[1]);
}

/// CVE-2025-6000: an audit file that somebody could run, with a first line of his choice, was a way to run code.
#[test]
fn cve_2025_6000_an_audit_device_writes_nothing_that_can_be_run() {
    let s = Server::ready("audit-run");
    let own = s.scratch.0.join("audit.log").display().to_string();
    let program = super::harness::binary().display().to_string();
    for options in [
        json!({"file_path": own, "mode": "0700"}),
        json!({"file_path": own, "mode": "0601"}),
        json!({"file_path": own, "prefix": "#!/bin/sh\nid\n"}),
        json!({"file_path": own, "prefix": "#!/bin/sh"}),
        json!({"file_path": program}),
        json!({"file_path": s.scratch.0.join("data/x").display().to_string()}),
    ] {
        let a = s.put("sys/audit/x", &s.root, &json!({"type": "file", "options": options}));
        assert_eq!(a.status, 400, "{options}: {:?}", a.errors());
    }
    assert!(!std::path::Path::new(&own).exists());
    assert_eq!(s.get("sys/audit", &s.root).json()["data"], json!({}));
}
