//! Long runs, left out unless asked for: memory under a steady load, and memory for a million entities. What they print
//! is the figure; what they assert are shapes that hold on any machine.
//!
//! ```text
//! cargo test --release -p ringfence-server --test it soak -- --ignored --nocapture --test-threads=1
//! ```
//! `RINGFENCE_SOAK_SECONDS` (180) and `RINGFENCE_SOAK_ENTITIES` (1000000) say how long and how many.

use super::harness::{Answer, Scratch, Server, read_answer};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

/// Memory of the server's process that is in use, KiB.
fn resident_kib(s: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.pid())).expect("a running server");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line of the kernel's");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// A connection that is kept.
struct Caller(BufReader<TcpStream>);

impl Caller {
    fn new(port: u16) -> Caller {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
        Caller(BufReader::new(stream))
    }

    fn call(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let text = format!(
            "{method} /v1/{path} HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(text.as_bytes()).expect("connected");
        read_answer(&mut self.0).expect("an answer")
    }

    fn good(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let a = self.call(method, path, token, body);
        assert!(matches!(a.status, 200 | 204), "{method} {path}: {} {:?}", a.status, a.errors());
        a.json()
    }
}

/// Clients sign in, read, renew and leave; some revoke their tokens and some let them run out. After a first third, in
/// which tables and buffers fill, memory stays where it is.
#[test]
#[ignore = "takes minutes"]
fn cve_2023_5954_memory_is_steady_while_clients_come_and_go() {
    // the log's entries stay in memory until a checkpoint covers them: the run is to see several
    let mut s = Server::blank_at("soak", Scratch::new("soak"), &[("RINGFENCE_CHECKPOINT_LOG_BYTES", "16777216")]);
    s.init(1, 1);
    s.unseal();
    let seconds = setting("RINGFENCE_SOAK_SECONDS", 180);
    let s = &s;
    let put = |path: &str, body: Value| {
        let a = s.put(path, &s.root, &body);
        assert!(matches!(a.status, 200 | 204), "{path}: {:?}", a.errors());
        a.json()
    };
    put("sys/mounts/kv", json!({"type": "kv", "options": {"version": "2"}}));
    put("sys/policies/acl/app", json!({"policy": "path \"kv/data/*\" { capabilities = [\"read\"] }"}));
    for n in 0..1000 {
        put(&format!("kv/data/s{n}"), json!({"data": {"password": "x".repeat(100)}}));
    }
    put("sys/auth/approle", json!({"type": "approle"}));
    let logins: Vec<Value> = ["service", "batch"]
        .map(|kind| {
            let role = format!("auth/approle/role/{kind}");
            put(
                &role,
                json!({"token_type": kind, "token_ttl": "15s", "token_max_ttl": "1m", "token_policies": "app"}),
            );
            let role_id = s.get(&format!("{role}/role-id"), &s.root).json()["data"]["role_id"].clone();
            let secret_id = put(&format!("{role}/secret-id"), json!({}))["data"]["secret_id"].clone();
            json!({"role_id": role_id, "secret_id": secret_id})
        })
        .into();
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..8u64 {
            let (over, done, logins, port) = (&over, &done, &logins, s.port);
            scope.spawn(move || {
                let mut caller = Caller::new(port);
                let mut n = client;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    let is_service = n.is_multiple_of(2);
                    let login = &logins[usize::from(!is_service)];
                    let auth = caller.good("PUT", "auth/approle/login", "", login)["auth"].clone();
                    let token = auth["client_token"].as_str().expect("a token").to_owned();
                    for read in 0..5 {
                        caller.good(
                            "GET",
                            &format!("kv/data/s{}", (n * 7 + read * 131) % 1000),
                            &token,
                            &Value::Null,
                        );
                    }
                    if is_service {
                        caller.good("PUT", "auth/token/renew-self", &token, &json!({}));
                        if n.is_multiple_of(4) {
                            caller.good("PUT", "auth/token/revoke-self", &token, &json!({}));
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(500));
            seen.push(resident_kib(s));
        }
        over.store(true, Ordering::Relaxed);
    });
    let third = seen.len() / 3;
    let mean = |of: &[u64]| of.iter().sum::<u64>() / of.len() as u64;
    let (first, second, last) = (mean(&seen[..third]), mean(&seen[third..2 * third]), mean(&seen[2 * third..]));
    println!(
        "{} rounds in {seconds} s; resident KiB by thirds: {first}, {second}, {last}",
        done.load(Ordering::Relaxed)
    );
    // a round writes some kilobytes: kept for good, those of a third would be many times this
    assert!(last < second + second / 10 + 4096, "memory grows: {seen:?}");
}

/// Each entity costs the same, however many there are already; and the last login costs what the first did.
#[test]
#[ignore = "takes minutes"]
fn entities_cost_memory_in_proportion() {
    const HANDS: u64 = 16;
    let s = Server::ready("entities");
    let total = setting("RINGFENCE_SOAK_ENTITIES", 1_000_000);
    let a = s.put("sys/auth/approle", &s.root, &json!({"type": "approle"}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    let accessor = s.get("sys/auth", &s.root).json()["data"]["approle/"]["accessor"].clone();
    let empty = resident_kib(&s);
    let mut costs = Vec::new();
    let began = Instant::now();
    for quarter in 0..4 {
        let before = resident_kib(&s);
        std::thread::scope(|scope| {
            for hand in 0..HANDS {
                let (s, accessor) = (&s, &accessor);
                scope.spawn(move || {
                    let mut caller = Caller::new(s.port);
                    let (from, to) = (quarter * total / 4, (quarter + 1) * total / 4);
                    for n in (from + hand..to).step_by(HANDS as usize) {
                        let made = caller.good("POST", "identity/entity", &s.root, &json!({"name": format!("e{n}")}));
                        let alias = json!({"name": format!("a{n}"), "canonical_id": made["data"]["id"],
                            "mount_accessor": accessor});
                        caller.good("POST", "identity/entity-alias", &s.root, &alias);
                    }
                });
            }
        });
        let after = resident_kib(&s);
        costs.push((after.saturating_sub(before)) * 1024 * 4 / total.max(1));
    }
    let all = (resident_kib(&s) - empty) * 1024 / total.max(1);
    println!(
        "{total} entities with an alias each in {:.0} s: {all} bytes apiece; by quarters {costs:?}",
        began.elapsed().as_secs_f64()
    );
    // beside the others, one is found at once
    let found = s.put("identity/lookup/entity", &s.root, &json!({"name": format!("e{}", total / 2)}));
    assert_eq!(found.json()["data"]["name"], format!("e{}", total / 2));
    // the first quarter pays for the buffers too; a cost that grows with the count would show in the last
    assert!(costs[3] < 2 * costs[1].max(costs[2]).max(256), "{costs:?}");
}
