//! The cluster harness against the real binary: a short run with kills and pauses, whose report must hold what happened.
//! It runs over proxies, so it needs no privilege.

use super::harness::{Scratch, binary};
use serde_json::Value;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn run(scratch: &Scratch, more: &[&str]) -> (u8, Value) {
    let out = scratch.0.join("run").display().to_string();
    let server = binary().display().to_string();
    let mut words = vec!["ringfence-jepsen", "run", "smoke", "--quiet", "--net", "proxies", "--seed", "7"];
    words.extend(["--nodes", "1", "--clients", "2", "--binary", &server, "--out", &out]);
    words.extend(more);
    let code = ringfence_jepsen::cli::main(words.iter().map(OsString::from), &Arc::new(AtomicBool::new(false)));
    let text = std::fs::read_to_string(scratch.0.join("run/result.json")).expect("a result");
    (code, serde_json::from_str(&text).expect("json"))
}

/// A node that is killed and paused keeps its promises, and the run leaves a report that can be judged again.
#[test]
fn a_short_run_holds_and_is_reported() {
    let scratch = Scratch::new("jepsen");
    let more = ["--seconds", "5", "--fault", "0.5", "--between", "0.8", "--faults", "kill,pause"];
    let (code, result) = run(&scratch, &more);
    for f in result["findings"].as_array().expect("findings") {
        assert_ne!(f["verdict"], "broken", "{f}");
    }
    assert!([0, 2].contains(&code), "exit code {code}: {result}");
    let folder = scratch.0.join("run");
    let page = std::fs::read_to_string(folder.join("index.html")).expect("a report");
    assert!(page.contains("register-linearizable") && page.contains("<svg") && page.contains("nodes/n1/log"));
    assert!(std::fs::read_to_string(folder.join("junit.xml")).expect("junit").contains("<testcase"));
    let history = folder.join("history.jsonl");
    let text = std::fs::read_to_string(&history).expect("a history");
    assert!(text.lines().count() > 100, "the clients were not at work");
    let check = ["ringfence-jepsen", "check", &history.display().to_string()].map(OsString::from);
    let again = ringfence_jepsen::cli::main(check, &Arc::new(AtomicBool::new(false)));
    assert_eq!(again, code, "the same history, judged again");
    // a history that was tampered with is not believed: the last read of a register shows what nobody wrote
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let read = lines
        .iter()
        .rposition(|l| l.contains("\"type\":\"ok\"") && l.contains("\"register\"") && l.contains("\"f\":\"read\""))
        .expect("a read");
    let mut event: Value = serde_json::from_str(&lines[read]).expect("an event");
    event["value"] = serde_json::json!({"value": 424_242, "version": 1});
    lines[read] = event.to_string();
    std::fs::write(&history, lines.join("\n")).expect("the history");
    let check = ["ringfence-jepsen", "check", &history.display().to_string()].map(OsString::from);
    assert_eq!(ringfence_jepsen::cli::main(check, &Arc::new(AtomicBool::new(false))), 1);
}

/// A clock for tests is refused by the build that people run.
#[test]
fn a_test_clock_is_refused() {
    let scratch = Scratch::new("test-clock");
    let out = std::process::Command::new(binary())
        .args(["server", "-dev"])
        .env("RINGFENCE_TEST_CLOCK", scratch.0.join("clock"))
        .env("HOME", &scratch.0)
        .output()
        .expect("the binary runs");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("RINGFENCE_TEST_CLOCK"), "{out:?}");
}
