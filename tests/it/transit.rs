//! Transit over the real binary: what a client of it does in a day, and what a hostile one tries.

use super::harness::{Answer, Server};
use serde_json::{Value, json};

const HELLO: &str = "aGVsbG8=";

fn ready(name: &str) -> Server {
    let s = Server::ready(name);
    let a = s.put("sys/mounts/transit", &s.root, &json!({"type": "transit"}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    s
}

fn post(s: &Server, path: &str, body: Value) -> Answer {
    s.put(&format!("transit/{path}"), &s.root, &body)
}

fn ok(s: &Server, path: &str, body: Value) -> Value {
    let a = post(s, path, body);
    assert_eq!(a.status, 200, "{path}: {:?}", a.errors());
    a.json()["data"].clone()
}

/// Bytes that the log's files hold: a read adds none.
fn index(s: &Server) -> Value {
    s.get("sys/metrics", &s.root).json()["Gauges"]
        .as_array()
        .and_then(|g| g.iter().find(|x| x["Name"].as_str().is_some_and(|n| n.ends_with("applied_index"))).cloned())
        .map_or(Value::Null, |x| x["Value"].clone())
}

#[test]
fn a_day_of_a_key() {
    let mut s = ready("transit-day");
    for kind in ["aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "aes128-gcm96", "rsa-2048"] {
        let made = ok(
            &s,
            &format!("keys/{kind}"),
            json!({"type": kind, "exportable": true, "allow_plaintext_backup": true}),
        );
        assert_eq!(made["type"], kind);
        let before = index(&s);
        let sealed = ok(&s, &format!("encrypt/{kind}"), json!({"plaintext": HELLO}));
        let opened = ok(&s, &format!("decrypt/{kind}"), json!({"ciphertext": sealed["ciphertext"]}));
        assert_eq!(opened, json!({"plaintext": HELLO}));
        assert_eq!(index(&s), before, "nothing was written");
        ok(&s, &format!("keys/{kind}/rotate"), Value::Null);
        let again = ok(&s, &format!("rewrap/{kind}"), json!({"ciphertext": sealed["ciphertext"]}));
        assert!(again["ciphertext"].as_str().is_some_and(|c| c.starts_with("vault:v2:")));
        // what was sealed outlives the process
        if kind == "aes256-gcm96" {
            s.kill();
            s.start();
            s.unseal();
            for c in [&sealed, &again] {
                assert_eq!(
                    ok(&s, "decrypt/aes256-gcm96", json!({"ciphertext": c["ciphertext"]}))["plaintext"],
                    HELLO
                );
            }
        }
        let backup = s.get(&format!("transit/backup/{kind}"), &s.root).json()["data"]["backup"].clone();
        assert_eq!(post(&s, &format!("restore/{kind}-copy"), json!({"backup": backup})).status, 204);
        let copied = ok(&s, &format!("decrypt/{kind}-copy"), json!({"ciphertext": sealed["ciphertext"]}));
        assert_eq!(copied["plaintext"], HELLO);
    }
    for kind in ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "ml-dsa"] {
        let name = format!("s-{kind}");
        ok(&s, &format!("keys/{name}"), json!({"type": kind, "parameter_set": "65"}));
        let signed = ok(&s, &format!("sign/{name}"), json!({"input": HELLO}));
        let valid = ok(&s, &format!("verify/{name}"), json!({"input": HELLO, "signature": signed["signature"]}));
        assert_eq!(valid, json!({"valid": true}));
        let other = ok(&s, &format!("verify/{name}"), json!({"input": "", "signature": signed["signature"]}));
        assert_eq!(other, json!({"valid": false}));
    }
}

#[test]
fn sealing_drops_the_keys_in_use() {
    let s = ready("transit-seal");
    let sealed = {
        ok(&s, "keys/k", Value::Null);
        ok(&s, "encrypt/k", json!({"plaintext": HELLO}))
    };
    assert_eq!(s.put("sys/seal", &s.root, &Value::Null).status, 204);
    assert_eq!(post(&s, "decrypt/k", json!({"ciphertext": sealed["ciphertext"]})).status, 503);
    s.unseal();
    assert_eq!(ok(&s, "decrypt/k", json!({"ciphertext": sealed["ciphertext"]}))["plaintext"], HELLO);
    // a deleted and newly made key of the same name is another key, whatever a core remembers
    for _ in 0..4 {
        ok(&s, "encrypt/k", json!({"plaintext": HELLO}));
    }
    ok(&s, "keys/k/config", json!({"deletion_allowed": true}));
    assert_eq!(s.request("DELETE", "transit/keys/k", &s.root, None).status, 204);
    ok(&s, "keys/k", Value::Null);
    for _ in 0..4 {
        let a = post(&s, "decrypt/k", json!({"ciphertext": sealed["ciphertext"]}));
        assert_eq!((a.status, a.errors()), (400, json!(["cipher: message authentication failed"])));
    }
}

#[test]
fn statuses_of_batches() {
    let s = ready("transit-batch");
    ok(&s, "keys/k", Value::Null);
    let items: Vec<Value> = (0..2000).map(|_| json!({"plaintext": HELLO})).collect();
    let all = ok(&s, "encrypt/k", json!({"batch_input": items}));
    assert_eq!(all["batch_results"].as_array().map(Vec::len), Some(2000));
    let back = ok(&s, "decrypt/k", json!({"batch_input": all["batch_results"]}));
    assert!(back["batch_results"].as_array().is_some_and(|r| r.iter().all(|x| x["plaintext"] == HELLO)));
    let mixed = json!([{"plaintext": HELLO}, {"plaintext": "!"}]);
    let a = post(&s, "encrypt/k", json!({"batch_input": mixed}));
    assert_eq!(a.status, 400);
    assert!(a.json()["data"]["batch_results"][0]["ciphertext"].is_string(), "{}", a.json());
    assert!(a.json().get("errors").is_none());
    let a = post(&s, "encrypt/k", json!({"batch_input": mixed, "partial_failure_response_code": 202}));
    assert_eq!(a.status, 202);
}

#[test]
fn a_key_is_made_only_by_who_may_create() {
    let s = ready("transit-upsert");
    for (name, capability) in [("maker", "create\", \"update"), ("user", "update")] {
        let policy = format!("path \"transit/encrypt/*\" {{ capabilities = [\"{capability}\"] }}");
        s.put(&format!("sys/policies/acl/{name}"), &s.root, &json!({"policy": policy}));
    }
    let token = |policy: &str| {
        let a = s.put("auth/token/create", &s.root, &json!({"policies": [policy], "type": "batch"}));
        a.json()["auth"]["client_token"].as_str().expect("a token").to_owned()
    };
    let (maker, user) = (token("maker"), token("user"));
    let body = json!({"plaintext": HELLO});
    assert_eq!(s.put("transit/encrypt/new", &user, &body).status, 403);
    assert_eq!(s.get("transit/keys/new", &s.root).status, 404);
    assert_eq!(s.put("transit/encrypt/new", &maker, &body).status, 200);
    assert_eq!(s.put("transit/encrypt/new", &user, &body).status, 200);
    assert_eq!(s.get("transit/keys/new", &user).status, 403);
}

#[test]
fn bad_input_changes_nothing_and_the_process_stays() {
    let s = ready("transit-bad");
    ok(&s, "keys/k", Value::Null);
    ok(&s, "keys/r", json!({"type": "rsa-2048"}));
    let junk = ["", "vault:v1:", "vault:v1:AAAA", "vault:v999:AAAA", "\u{0}", "vault:v1:%%%", "vault:v-9:AAAA"];
    for c in junk {
        for path in ["decrypt/k", "rewrap/k", "decrypt/r", "decrypt/none"] {
            let a = post(&s, path, json!({"ciphertext": c}));
            assert!(matches!(a.status, 400 | 500), "{path} {c}: {}", a.status);
        }
        for path in ["verify/r", "verify/k"] {
            let a = post(&s, path, json!({"input": HELLO, "signature": c}));
            // a text of the right form is no signature of this key, which is an answer and no mistake
            let no =
                a.status == 200 && matches!(c, "vault:v1:" | "vault:v1:AAAA") && a.json()["data"]["valid"] == false;
            assert!(a.status == 400 || no, "{path} {c}: {}", a.status);
        }
        assert_eq!(post(&s, "keys/x/import", json!({"ciphertext": c})).status, 400);
        assert_eq!(post(&s, "restore", json!({"backup": c})).status, 400);
    }
    for body in [json!({"batch_input": {"a": 1}}), json!({"batch_input": [[[]]]}), json!({"batch_input": 7})] {
        assert_eq!(post(&s, "encrypt/k", body.clone()).status, 400);
        assert_eq!(post(&s, "sign/r", body).status, 400);
    }
    assert_eq!(s.list("transit/keys", &s.root).json()["data"]["keys"], json!(["k", "r"]));
    assert_eq!(s.get("transit/keys/k", &s.root).json()["data"]["latest_version"], 1);
}

#[test]
fn the_command_line_reaches_it() {
    let s = ready("transit-cli");
    let (code, _, err) = s.cli(&["write", "-f", "transit/keys/cli"]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = s.cli(&["write", "-field=ciphertext", "transit/encrypt/cli", "plaintext=aGVsbG8="]);
    assert_eq!(code, 0, "{err}");
    let (_, out, _) =
        s.cli(&["write", "-field=plaintext", "transit/decrypt/cli", &format!("ciphertext={}", out.trim())]);
    assert_eq!(out.trim(), HELLO);
}

#[test]
fn keys_are_imported_by_the_command_line() {
    let s = ready("transit-import");
    // 32 bytes of sevens
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let (code, out, err) =
        s.cli(&["transit", "import", "transit/keys/own", key, "type=aes256-gcm96", "exportable=true"]);
    assert_eq!((code, out.lines().last()), (0, Some("Success!")), "{out}{err}");
    let v = s.get("transit/export/encryption-key/own", &s.root).json();
    assert_eq!(v["data"]["keys"]["1"], key, "what was imported is what came out");
    let file = s.scratch.0.join("key.b64");
    std::fs::write(&file, "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n").expect("a file");
    let at = format!("@{}", file.display());
    let (code, _, err) = s.cli(&["transit", "import-version", "transit/keys/own", &at, "hash_function=SHA512"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(s.get("transit/keys/own", &s.root).json()["data"]["latest_version"], 2);
    for (args, told) in [
        (
            ["transit", "import", "transit/own", key],
            "expected transit path and key name in the form :path:/keys/:name:",
        ),
        (["transit", "import", "transit/keys/x", "%%"], "error base64 decoding source key material"),
        (["transit", "import", "nowhere/keys/x", key], "no transit mount at nowhere"),
        (["transit", "import-version", "transit/keys/none", key], "failed to call import"),
    ] {
        let (code, _, err) = s.cli(&args);
        assert!(code != 0 && err.contains(told), "{args:?}: {code} {err}");
    }
    assert_eq!(s.list("transit/keys", &s.root).json()["data"]["keys"], json!(["own"]));
}

#[test]
fn codes_and_certificates_of_keys() {
    let s = ready("transit-cmac");
    ok(&s, "keys/c", json!({"type": "aes256-cmac"}));
    let made = ok(&s, "cmac/c", json!({"input": HELLO}));
    assert_eq!(ok(&s, "verify/c", json!({"input": HELLO, "cmac": made["cmac"]})), json!({"valid": true}));
    assert_eq!(ok(&s, "verify/c", json!({"input": "", "cmac": made["cmac"]})), json!({"valid": false}));
    ok(&s, "keys/e", json!({"type": "ecdsa-p256"}));
    ok(&s, "keys/r", json!({"type": "rsa-2048"}));
    for name in ["e", "r"] {
        let csr = ok(&s, &format!("keys/{name}/csr"), json!({}))["csr"].as_str().expect("text").to_owned();
        // the engine of certificates next door takes it
        s.put("sys/mounts/pki", &s.root, &json!({"type": "pki"}));
        s.put("pki/root/generate/internal", &s.root, &json!({"common_name": "root", "key_type": "ec"}));
        let a = s.put("pki/sign-verbatim", &s.root, &json!({"csr": csr, "common_name": "a.example.com"}));
        assert_eq!(a.status, 200, "{:?}", a.errors());
        let v = a.json();
        let (leaf, ca) = (v["data"]["certificate"].as_str(), v["data"]["issuing_ca"].as_str());
        let chain = format!("{}\n{}", leaf.expect("leaf"), ca.expect("ca"));
        assert_eq!(
            post(&s, &format!("keys/{name}/set-certificate"), json!({"certificate_chain": chain})).status,
            204
        );
        let kept = s.get(&format!("transit/export/certificate-chain/{name}"), &s.root).json();
        let kept = kept["data"]["keys"]["1"].as_str().expect("a chain");
        assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 2);
    }
    let other = s.get("transit/export/certificate-chain/r", &s.root).json()["data"]["keys"]["1"].clone();
    let a = post(&s, "keys/e/set-certificate", json!({"certificate_chain": other}));
    assert_eq!((a.status, a.errors()[0].as_str().is_some_and(|e| e.contains("leaf certificate"))), (400, true));
}

/// A body beyond a few kilobytes goes another way through the server, and must say the same.
#[test]
fn long_bodies_keep_to_policies_and_are_audited() {
    let s = ready("transit-long");
    ok(&s, "keys/k", Value::Null);
    let log = s.scratch.0.join("audit.log");
    s.put("sys/audit/file", &s.root, &json!({"type": "file", "options": {"file_path": log}}));
    let policy =
        "path \"transit/encrypt/k\" { capabilities = [\"update\"] denied_parameters = { \"key_version\" = [] } }";
    s.put("sys/policies/acl/strict", &s.root, &json!({"policy": policy}));
    let made = s.put("auth/token/create", &s.root, &json!({"policies": ["strict"]}));
    let token = made.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    let items: Vec<Value> = (0..500).map(|n| json!({"plaintext": HELLO, "reference": n.to_string()})).collect();
    let a = s.put("transit/encrypt/k", &token, &json!({"batch_input": items}));
    assert_eq!(a.status, 200, "{:?}", a.errors());
    assert_eq!(a.json()["data"]["batch_results"][499]["reference"], "499");
    assert_eq!(s.put("transit/encrypt/k", &token, &json!({"batch_input": items, "key_version": 1})).status, 403);
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!(!text.contains(HELLO), "no plaintext stands in the log");
    let lines = text.lines().filter(|l| l.contains("transit/encrypt/k") && l.contains("batch_input")).count();
    assert!(lines >= 2, "the items are audited, as hashes: {lines}");
    // broken only at its end
    let mut broken = json!({"batch_input": items}).to_string();
    broken.pop();
    let a = s.request("PUT", "transit/encrypt/k", &s.root, Some(broken.as_bytes()));
    assert_eq!(a.status, 400);
    assert!(a.errors()[0].as_str().is_some_and(|e| e.starts_with("failed to decode JSON input")), "{:?}", a.errors());
}
