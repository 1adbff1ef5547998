//! What a stranger tries first, and what bad input gets.

use super::harness::{Server, free_port, request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn kv2(s: &Server) {
    let a = s.put("sys/mounts/secret", &s.root, &json!({"type": "kv", "options": {"version": "2"}}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
}

#[test]
fn shares_in_any_order_and_form() {
    let mut s = Server::blank("shares");
    assert_eq!(s.get("sys/health", "").status, 501);
    s.init(5, 3);
    assert_eq!(s.get("sys/health", "").status, 503);
    let a = s.put("sys/unseal", "", &json!({"key": s.keys[4]}));
    assert_eq!((a.json()["progress"].clone(), a.json()["sealed"].clone()), (json!(1), json!(true)));
    // the same share again does not advance and is no error
    let a = s.put("sys/unseal", "", &json!({"key": s.keys[4]}));
    assert_eq!((a.status, a.json()["progress"].clone()), (200, json!(1)));
    let a = s.put("sys/unseal", "", &json!({"reset": true}));
    assert_eq!(a.json()["progress"], 0);
    for k in [2, 0] {
        s.put("sys/unseal", "", &json!({"key": s.keys[k]}));
    }
    let a = s.put("sys/unseal", "", &json!({"key": s.keys[3]}));
    assert_eq!(a.json()["sealed"], false, "{}", a.json());
    assert_eq!(s.get("sys/health", "").status, 200);
    let a = s.put("sys/init", "", &json!({"secret_shares": 1, "secret_threshold": 1}));
    assert_eq!((a.status, a.errors()), (400, json!(["Vault is already initialized"])));
}

#[test]
fn sealed_answers_no_data() {
    let mut s = Server::ready("sealed");
    kv2(&s);
    s.put("secret/data/a", &s.root, &json!({"data": {"k": "v"}}));
    assert_eq!(s.put("sys/seal", &s.root, &Value::Null).status, 204);
    for path in ["secret/data/a", "sys/mounts", "auth/token/lookup-self", "sys/policies/acl/default"] {
        let a = s.get(path, &s.root);
        assert_eq!((a.status, a.errors()), (503, json!(["Vault is sealed"])), "{path}");
    }
    assert_eq!(s.get("sys/seal-status", "").json()["sealed"], true);
    s.unseal();
    assert_eq!(s.get("secret/data/a", &s.root).json()["data"]["data"]["k"], "v");
    s.signal("TERM");
    assert_eq!(s.wait_end(), Some(0));
}

#[test]
fn bad_input_gets_vaults_words() {
    let s = Server::ready("bad");
    kv2(&s);
    let root = [("X-Vault-Token", s.root.as_str())];
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>| {
        request(s.port, method, path, headers, body).expect("an answer")
    };
    let a = send("GET", "secret/data/x", &[], None);
    assert_eq!((a.status, a.errors()), (403, json!(["permission denied"])));
    let a = send("GET", "secret/data/x", &[("X-Vault-Token", "hvs.nonsense")], None);
    let bad_token = json!(["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]);
    assert_eq!((a.status, a.errors()), (403, bad_token));
    let a = send("GET", "nowhere/at/all", &root, None);
    assert_eq!(a.status, 404);
    assert!(a.errors()[0].as_str().is_some_and(|t| t.contains("no handler for route")), "{:?}", a.errors());
    let a = send("GET", "secret/data/absent", &root, None);
    assert_eq!((a.status, a.errors()), (404, json!([])));
    assert_eq!(send("PUT", "secret/data/x", &root, Some(b"{not json")).status, 400);
    assert_eq!(send("PUT", "secret/data/x", &root, Some(b"[1]")).status, 400);
    let a = send("PUT", "secret/data/x", &root, Some(b"{}"));
    assert_eq!((a.status, a.errors()), (400, json!(["no data provided"])));
    let deep = format!("{}1{}", "{\"a\":".repeat(400), "}".repeat(400));
    assert_eq!(send("PUT", "secret/data/x", &root, Some(deep.as_bytes())).status, 400);
    let a = send("PUT", "secret/data/x/", &root, Some(b"{}"));
    assert_eq!((a.status, a.errors()), (400, json!(["cannot write to a path ending in '/'"])));
    let a = send("GET", "secret/data/../data/x", &root, None);
    assert_eq!((a.status, a.errors()), (400, json!(["relative paths not supported"])));
    assert_eq!(send("BREW", "secret/data/x", &root, None).status, 405);
    let a = send("PATCH", "secret/data/x", &root, Some(b"{}"));
    assert_eq!(a.status, 400);
    let giant = vec![b' '; 33 << 20];
    let a = send("PUT", "secret/data/x", &root, Some(&giant));
    assert_eq!(a.status, 413, "{:?}", a.errors());
    assert!(a.errors()[0].as_str().is_some_and(|t| t.contains("request body too large")));
    assert_eq!(a.header("content-type"), Some("application/json"));
    assert_eq!(a.header("cache-control"), Some("no-store"));
    // a share is read before anything is said of the seal; a ceremony has nothing to reset
    let a = send("PUT", "sys/unseal", &[], Some(br#"{"key": "%%%"}"#));
    assert_eq!((a.status, a.errors()), (400, json!(["'key' must be a valid hex or base64 string"])));
    let a = send("PUT", "sys/unseal", &[], Some(b"{}"));
    let either = "'key' must be specified in request body as JSON, or 'reset' set to true";
    assert_eq!((a.status, a.errors()), (400, json!([either])));
    let a = send("PUT", "sys/generate-root/update", &[], Some(br#"{"nonce": "n"}"#));
    assert_eq!((a.status, a.errors()), (400, json!(["'key' must be specified in request body as JSON"])));
    // nothing of all that changed anything, and the process lives
    assert_eq!(s.list("secret/metadata/", &s.root).status, 404);
    assert_eq!(s.get("sys/health", "").status, 200);
}

#[test]
fn the_command_line_does_what_people_type() {
    let s = Server::ready("cli");
    let ok = |args: &[&str]| {
        let (code, out, err) = s.cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    };
    assert!(
        ok(&["secrets", "enable", "-path=secret", "-version=2", "kv"])
            .contains("Enabled the kv secrets engine at: secret/")
    );
    ok(&["kv", "put", "secret/app", "user=a", "pass=b"]);
    assert_eq!(ok(&["kv", "get", "-field=pass", "secret/app"]).trim_end(), "b");
    ok(&["policy", "list"]);
    // an engine that takes whatever lies below it has a root all the same
    for root in ["secret", "secret/", "cubbyhole"] {
        let help = ok(&["path-help", root]);
        assert!(help.starts_with("## DESCRIPTION") && help.contains("## PATHS"), "{root}: {help}");
    }
    let (code, _, err) = s.cli(&["status", &format!("-address=http://127.0.0.1:{}", free_port())]);
    assert!(
        code == 1 && err.contains("Error checking seal status: Get ") && err.contains("connection refused"),
        "{err}"
    );
    ok(&["token", "lookup"]);
    assert_eq!(s.cli(&["kv", "get", "secret/none"]).0, 2);
    assert_eq!(s.cli(&["status"]).0, 0);
    ok(&["operator", "seal"]);
    assert_eq!(s.cli(&["status"]).0, 2);
}

#[test]
fn a_wrapping_token_opens_once() {
    let s = Server::ready("wrap");
    kv2(&s);
    s.put("secret/data/a", &s.root, &json!({"data": {"k": "v"}}));
    let headers = [("X-Vault-Token", s.root.as_str()), ("X-Vault-Wrap-TTL", "60")];
    let a = request(s.port, "GET", "secret/data/a", &headers, None).expect("an answer");
    let token = a.json()["wrap_info"]["token"].as_str().expect("a wrapping token").to_owned();
    // many at once: one of them gets the secret
    let opened: usize = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..16).map(|_| scope.spawn(|| s.put("sys/wrapping/unwrap", &token, &Value::Null))).collect();
        tries
            .into_iter()
            .map(|t| t.join().expect("a try"))
            .filter(|a| {
                assert!(a.status == 200 || a.status == 400, "{} {:?}", a.status, a.errors());
                a.status == 200 && a.json()["data"]["data"]["k"] == "v"
            })
            .count()
    });
    assert_eq!(opened, 1);
    let a = s.put("sys/wrapping/unwrap", &token, &Value::Null);
    assert_eq!(a.errors(), json!(["wrapping token is not valid or does not exist"]));
}

#[test]
fn n_uses_are_n_uses() {
    let s = Server::ready("uses");
    let a = s.put("auth/token/create", &s.root, &json!({"num_uses": 5, "policies": ["default"]}));
    let token = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    let worked: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..12).map(|_| scope.spawn(|| s.get("auth/token/lookup-self", &token).status)).collect();
        tries.into_iter().map(|t| t.join().expect("a try")).filter(|status| *status == 200).count()
    });
    assert_eq!(worked, 5);
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let s = Server::ready("lock");
    let config = s.scratch.0.join("config.hcl");
    let out = std::process::Command::new(super::harness::binary())
        .args(["server", &format!("-config={}", config.display())])
        .output()
        .expect("it runs");
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("in use by another process"), "{text}");
}

#[test]
fn a_snapshot_brings_the_data_back() {
    let mut s = Server::ready("snapshot");
    kv2(&s);
    s.put("secret/data/a", &s.root, &json!({"data": {"k": "then"}}));
    let file = s.scratch.0.join("backup.snap").display().to_string();
    let (code, out, err) = s.cli(&["operator", "raft", "snapshot", "save", &file]);
    assert_eq!(code, 0, "{out}{err}");
    s.put("secret/data/a", &s.root, &json!({"data": {"k": "later"}}));
    s.put("secret/data/b", &s.root, &json!({"data": {"k": "new"}}));
    // a damaged archive changes nothing
    let mut bytes = std::fs::read(&file).expect("the archive");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let a = s.request("POST", "sys/storage/raft/snapshot", &s.root, Some(&bytes));
    assert_eq!(a.status, 400, "{:?}", a.errors());
    assert_eq!(s.get("secret/data/b", &s.root).status, 200);
    let (code, out, err) = s.cli(&["operator", "raft", "snapshot", "restore", &file]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(s.get("secret/data/a", &s.root).json()["data"]["data"]["k"], "then");
    assert_eq!(s.get("secret/data/b", &s.root).status, 404);
    // what is written afterwards, and all of it after a crash
    assert_eq!(s.put("secret/data/c", &s.root, &json!({"data": {"k": "after"}})).status, 200);
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(s.get("secret/data/a", &s.root).json()["data"]["data"]["k"], "then");
    assert_eq!(s.get("secret/data/b", &s.root).status, 404);
    assert_eq!(s.get("secret/data/c", &s.root).json()["data"]["data"]["k"], "after");
    // another cluster's snapshot is refused unless forced
    let mut other = Server::ready("snapshot-other");
    let archive = std::fs::read(&file).expect("the archive");
    let a = other.request("POST", "sys/storage/raft/snapshot", &other.root, Some(&archive));
    assert_eq!(a.status, 400);
    assert!(a.errors()[0].as_str().is_some_and(|t| t.starts_with("could not verify hash file")), "{:?}", a.errors());
    let a = other.request("POST", "sys/storage/raft/snapshot-force", &other.root, Some(&archive));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    assert_eq!(other.get("sys/seal-status", "").json()["sealed"], true);
    other.keys = s.keys.clone();
    other.unseal();
    assert_eq!(other.get("secret/data/a", &s.root).json()["data"]["data"]["k"], "then");
}

#[test]
fn five_wrong_passwords_lock_a_user_out() {
    let s = Server::ready("lockout");
    s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"}));
    s.put("auth/userpass/users/bob", &s.root, &json!({"password": "right"}));
    let login = |name: &str, password: &str| {
        s.put(&format!("auth/userpass/login/{name}"), "", &json!({"password": password}))
    };
    for _ in 0..5 {
        let a = login("bob", "wrong");
        assert_eq!((a.status, a.errors()), (400, json!(["invalid username or password"])));
    }
    let begun = std::time::Instant::now();
    while login("BOB", "right").status != 403 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "never locked");
    }
    let accessor = s.get("sys/auth/userpass", &s.root).json()["data"]["accessor"].as_str().expect("text").to_owned();
    let a = s.put(&format!("sys/locked-users/{accessor}/unlock/bob"), &s.root, &Value::Null);
    assert_eq!(a.status, 204, "{:?}", a.errors());
    assert_eq!(login("bob", "right").status, 200);
}

#[test]
fn rekey_rotate_and_a_new_root_token() {
    let mut s = Server::blank("ceremony");
    s.init(3, 2);
    s.unseal();
    let old = s.keys.clone();
    let a = s.put("sys/rekey/init", "", &json!({"secret_shares": 1, "secret_threshold": 1}));
    let nonce = a.json()["nonce"].clone();
    s.put("sys/rekey/update", "", &json!({"key": old[0], "nonce": nonce}));
    let a = s.put("sys/rekey/update", "", &json!({"key": old[2], "nonce": nonce}));
    assert_eq!(a.json()["complete"], true, "{:?}", a.errors());
    s.keys = vec![a.json()["keys_base64"][0].as_str().expect("a key").to_owned()];
    assert_eq!(s.put("sys/rotate", &s.root, &Value::Null).status, 204);
    assert_eq!(s.get("sys/key-status", &s.root).json()["data"]["term"], 2);
    kv2(&s);
    s.put("secret/data/a", &s.root, &json!({"data": {"k": "v"}}));
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(s.get("secret/data/a", &s.root).json()["data"]["data"]["k"], "v");
    let a = s.put("sys/generate-root/attempt", "", &json!({}));
    let (nonce, otp) = (a.json()["nonce"].clone(), a.json()["otp"].clone());
    let a = s.put("sys/generate-root/update", "", &json!({"key": s.keys[0], "nonce": nonce}));
    let encoded = a.json()["encoded_token"].clone();
    let a = s.put("sys/decode-token", "", &json!({"encoded_token": encoded, "otp": otp}));
    let token = a.json()["data"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(s.get("auth/token/lookup-self", &token).json()["data"]["policies"], json!(["root"]));
}

#[test]
fn a_token_ends_by_itself_and_takes_its_children_along() {
    let s = Server::ready("expiry");
    let a = s.put("auth/token/create", &s.root, &json!({"ttl": "2s", "policies": ["root"]}));
    let parent = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    let a = s.put("auth/token/create", &parent, &json!({"ttl": "1h", "policies": ["default"]}));
    let child = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    assert_eq!(s.get("auth/token/lookup-self", &child).status, 200);
    let begun = std::time::Instant::now();
    while s.get("auth/token/lookup-self", &child).status == 200 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it outlives its parent");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(begun.elapsed() > std::time::Duration::from_secs(1), "it ended early");
    // the worker clears the rows away: their accessors are gone
    let accessors = || s.list("auth/token/accessors", &s.root).json()["data"]["keys"].as_array().map_or(0, Vec::len);
    while accessors() > 1 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the rows stay");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn batch_tokens_are_cut_off_together() {
    let s = Server::ready("batch");
    kv2(&s);
    s.put("sys/policies/acl/reader", &s.root, &json!({"policy": "path \"secret/*\" { capabilities = [\"read\"] }"}));
    s.put("secret/data/a", &s.root, &json!({"data": {"k": "v"}}));
    s.put("sys/auth/approle", &s.root, &json!({"type": "approle"}));
    let role = json!({"token_policies": "reader", "token_type": "batch", "token_ttl": "1h"});
    assert_eq!(s.put("auth/approle/role/app", &s.root, &role).status, 204);
    let id = s.get("auth/approle/role/app/role-id", &s.root).json()["data"]["role_id"].clone();
    let secret = s.put("auth/approle/role/app/secret-id", &s.root, &json!({})).json()["data"]["secret_id"].clone();
    let login = || {
        let a = s.put("auth/approle/login", "", &json!({"role_id": id, "secret_id": secret}));
        a.json()["auth"]["client_token"].as_str().map(str::to_owned).unwrap_or_else(|| panic!("{:?}", a.errors()))
    };
    let (one, two) = (login(), login());
    assert!(one.starts_with("hvb."), "{one}");
    for t in [&one, &two] {
        assert_eq!(s.get("secret/data/a", t).json()["data"]["data"]["k"], "v");
    }
    let a = s.put("auth/token/revoke", &s.root, &json!({"token": one}));
    assert_eq!((a.status, a.errors()), (400, json!(["batch tokens cannot be revoked"])));
    let a = s.put("auth/token/revoke-batch", &s.root, &json!({"all": true}));
    assert!(a.status < 300, "{:?}", a.errors());
    for t in [&one, &two] {
        assert_eq!(s.get("secret/data/a", t).status, 403);
    }
    assert_eq!(s.get("secret/data/a", &login()).status, 200);
}

/// Whoever was active is counted from memory at once, and from the image after the process was killed.
#[test]
fn active_clients_are_counted_and_outlive_the_process() {
    let mut s = Server::ready("active");
    let on = s.put("sys/internal/counters/config", &s.root, &json!({"enabled": "enable"}));
    assert_eq!(on.status, 204, "{:?}", on.errors());
    s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"}));
    for name in ["ann", "bob"] {
        s.put(&format!("auth/userpass/users/{name}"), &s.root, &json!({"password": "p"}));
        for _ in 0..2 {
            let a = s.put(&format!("auth/userpass/login/{name}"), "", &json!({"password": "p"}));
            let token = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
            assert_eq!(s.get("auth/token/lookup-self", &token).status, 200);
        }
    }
    let counts = |s: &Server| {
        let a = s.get("sys/internal/counters/activity/monthly", &s.root);
        assert_eq!(a.status, 200, "{:?}", a.errors());
        let data = a.json()["data"].clone();
        let mount = data["by_namespace"][0]["mounts"][0]["mount_path"].clone();
        (data["entity_clients"].clone(), data["clients"].clone(), mount)
    };
    let both = (json!(2), json!(2), json!("auth/userpass/"));
    assert_eq!(counts(&s), both);
    let begun = Instant::now();
    while s.get("sys/internal/counters/config", &s.root).json()["data"]["queries_available"] != true {
        assert!(begun.elapsed() < Duration::from_secs(30), "no row is written");
        std::thread::sleep(Duration::from_millis(100));
    }
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(counts(&s), both);
    let a = s.get("sys/internal/counters/activity", &s.root).json();
    assert_eq!(a["data"]["months"].as_array().map(Vec::len), Some(12), "{a}");
    assert_eq!(a["data"]["total"]["clients"], 2);
    let csv = s.get("sys/internal/counters/activity/export?format=csv", &s.root);
    let text = String::from_utf8(csv.body).expect("text");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("client_id,client_type,namespace_id,") && text.contains("auth/userpass/"), "{text}");
}

#[test]
fn metrics_have_vaults_names() {
    let s = Server::ready("metrics");
    for _ in 0..5 {
        s.get("sys/mounts", &s.root);
    }
    let a = s.get("sys/metrics?format=prometheus", &s.root);
    assert_eq!(a.status, 200, "{:?}", a.errors());
    assert!(a.header("content-type").is_some_and(|t| t.starts_with("text/plain")), "{:?}", a.headers);
    let page = String::from_utf8(a.body).expect("text");
    let count = page
        .lines()
        .find_map(|l| l.strip_prefix("vault_core_handle_request_count "))
        .and_then(|n| n.trim().parse::<f64>().ok());
    assert!(count.is_some_and(|n| n >= 5.0), "{page}");
    let v = s.get("sys/metrics", &s.root).json();
    assert!(v["Gauges"].is_array() && v["Samples"].is_array(), "{v}");
}
