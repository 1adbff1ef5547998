//! The load generator against the real binary: short runs, whose reports must hold what happened. No speed is asserted.

use super::harness::{Scratch, Server};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the generator in this process; answers its result, and the folder it wrote.
fn load(s: &Server, scratch: &Scratch, name: &str, more: &[&str]) -> (Value, PathBuf) {
    let out = scratch.0.join(name);
    let (addr, pid) = (format!("http://127.0.0.1:{}", s.port), s.pid().to_string());
    let mut words = vec!["ringfence-load", "run", "--quiet", "--addr", &addr, "--token", &s.root, "--pid", &pid];
    words.extend(["--connections", "4", "--warm-up", "100ms", "--duration", "600ms", "--interval", "100ms"]);
    words.extend(["--own-limit", "100ms", "--keys", "20", "--tokens", "3", "--owners", "2", "--leases", "6"]);
    let folder = out.display().to_string();
    words.extend(["--name", name, "--out", &folder]);
    words.extend(more);
    let code = ringfence_load::cli::main(words.iter().map(OsString::from));
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS), "{words:?}");
    let text = std::fs::read_to_string(out.join("result.json")).expect("a result");
    (serde_json::from_str(&text).expect("json"), out)
}

fn sum(result: &Value, key: &str) -> u64 {
    let ops = result["ops"].as_array().expect("operations");
    ops.iter().map(|op| op[key].as_u64().expect("a count")).sum()
}

/// Every operation that the server has an engine for is asked for and answered well, in closed loop.
#[test]
fn every_operation_is_answered() {
    let (s, scratch) = (Server::ready("load-ops"), Scratch::new("load-ops-out"));
    let mounts = s.get("sys/mounts", &s.root).json()["data"].clone();
    for (name, mix, seen) in [
        ("kv", "kv1-read,kv1-write,kv1-list,kv2-read,kv2-write,kv2-list,acl-read,health", 8),
        ("login", "approle-login,userpass-login", 2),
        ("jwt", "jwt-login", 1),
        ("namespaces", "namespace-read", 1),
        ("tokens", "token-create,token-renew,token-revoke,token-lookup,cubbyhole-read,cubbyhole-write", 6),
        ("wrap", "wrap,unwrap", 2),
        ("leases", "lease-create,lease-renew,lease-lookup,lease-list", 4),
        ("revoke", "lease-create=9,lease-revoke-prefix", 2),
    ] {
        let (result, _) = load(&s, &scratch, name, &["--mix", mix, "--zipf", "1.1"]);
        assert_eq!(sum(&result, "errors"), 0, "{name}: {}", result["faults"]);
        assert_eq!(result["faults"], json!([]), "{name}");
        // a slow machine may not come to each of many operations within the span, but to the first ones it must
        let ops = result["ops"].as_array().expect("operations").len();
        assert!((1..=seen).contains(&ops) && sum(&result, "ok") > 0, "{name}: {ops} operations");
    }
    let left = s.get("sys/mounts", &s.root).json()["data"].clone();
    assert_eq!(left, mounts, "what the setup mounted is gone");
    let policies = s.list("sys/policies/acl", &s.root).json()["data"]["keys"].clone();
    assert!(!policies.to_string().contains("load-"), "{policies}");
}

/// An open loop tells of each request that was due; reports stand alone, merge and compare.
#[test]
fn reports_of_an_open_loop() {
    let (s, scratch) = (Server::ready("load-open"), Scratch::new("load-open-out"));
    let more = ["--mix", "kv2-read=4,kv2-write", "--rate", "100", "--threads", "2", "--token-type", "batch"];
    let (one, first) = load(&s, &scratch, "one", &more);
    let (_, second) = load(&s, &scratch, "two", &more);
    // 60 requests are due in the span; each is answered, an error, or without an answer, and none is left out
    let accounted = sum(&one, "ok") + sum(&one, "errors") + one["unanswered"].as_u64().expect("a count");
    assert!((58..=62).contains(&accounted), "{accounted} requests");
    assert!(one["own_limits"][0]["requests_per_second"].as_f64().expect("a rate") > 0.0);
    assert!(one["server"]["end"]["resident_bytes"].as_u64().expect("bytes") > 1 << 20, "the process was seen");
    let html = std::fs::read_to_string(first.join("report.html")).expect("a page");
    assert!(html.contains("own limit") && html.contains("<svg") && !html.contains("src="));
    assert!(!html.contains(&s.root), "no token stands in a report");
    let curves = std::fs::read_to_string(first.join("curves.csv")).expect("curves");
    assert_eq!(curves.lines().count(), 1 + 7, "a line an interval: {curves}");

    let both = [first.join("result.json"), second.join("result.json")].map(|p| p.display().to_string());
    let out = scratch.0.join("both").display().to_string();
    for command in ["merge", "compare"] {
        let words = ["ringfence-load", command, &both[0], &both[1], "--out", &out];
        let code = ringfence_load::cli::main(words.iter().map(OsString::from));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    }
    let merged = std::fs::read(scratch.0.join("both/result.json")).expect("merged");
    let merged: Value = serde_json::from_slice(&merged).expect("json");
    assert_eq!(merged["parts"], json!(2));
    assert_eq!(merged["settings"]["rate"], json!(200.0));
    assert!(std::fs::read_to_string(scratch.0.join("both/compare.html")).expect("a page").contains("one and two"));
}

/// A token without rights is told what was refused, and the server is as it was.
#[test]
fn a_refused_setup_says_so() {
    let s = Server::ready("load-refused");
    let addr = format!("http://127.0.0.1:{}", s.port);
    let words = ["ringfence-load", "run", "--quiet", "--addr", &addr, "--token", "nobody", "--duration", "100ms"];
    let code = ringfence_load::cli::main(words.iter().map(OsString::from));
    assert_ne!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(s.get("sys/health", "").status, 200);
}
