//! Standbys that answer by themselves what they can without writing: what they answer, what they pass on, how old it may
//! be, and what a client does who wants more.
//!
//! `X-Vault-No-Request-Forwarding` tells who answers: a standby that would pass the call on sends 307 instead.

use super::cluster::{Cluster, PATIENCE, STALE};
use super::harness::{Answer, request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

const POSITION: &str = "X-Vault-Index";

impl Cluster {
    /// Asks a node that is to answer by itself.
    fn alone(&self, through: usize, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
        self.with(through, method, path, &[("X-Vault-Token", token), ("X-Vault-No-Request-Forwarding", "1")], body)
    }

    fn with(
        &self,
        through: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map(|b| serde_json::to_vec(b).expect("json"));
        request(self.nodes[through].port, method, path, headers, body.as_deref())
            .unwrap_or_else(|e| panic!("{method} {path} at {through}: {e}; {}", self.nodes[through].log()))
    }

    /// The active node and the others, once those answer by themselves.
    fn places(&self) -> (usize, Vec<usize>) {
        let active = self.active();
        let standbys: Vec<usize> = (0..self.nodes.len()).filter(|i| *i != active).collect();
        for i in &standbys {
            self.nodes[*i].wait_for("a performance standby", |n| n.health() == 473);
        }
        (active, standbys)
    }

    fn put(&self, through: usize, path: &str, body: &Value) -> Answer {
        let a = self.nodes[through].put(path, &self.root, body);
        assert!(matches!(a.status, 200 | 204), "{path}: {} {:?}", a.status, a.errors());
        a
    }

    /// Stops a process, or lets it go on.
    fn signal(&self, i: usize, what: &str) {
        let id = self.nodes[i].child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([what, &id]).status().expect("kill runs").success());
    }
}

fn position(a: &Answer) -> String {
    a.header(POSITION).unwrap_or_else(|| panic!("no position: {a:?}")).to_owned()
}

fn n_of(a: &Answer) -> u64 {
    a.json()["data"]["data"]["n"].as_u64().unwrap_or(0)
}

#[test]
fn a_standby_answers_what_it_can_without_writing() {
    let cluster = Cluster::of_three("perf");
    let root = cluster.root.as_str();
    let (active, standbys) = cluster.places();
    let (one, other) = (standbys[0], standbys[1]);
    // how it shows
    let v = cluster.nodes[one].get("sys/health", "").json();
    assert_eq!((&v["standby"], &v["performance_standby"]), (&json!(true), &json!(true)));
    for (query, status) in [
        ("", 473),
        ("?perfstandbyok=true", 200),
        ("?performancestandbycode=299", 299),
        ("?perfstandbyok=true&activecode=298", 298),
        ("?performancestandbycode=x", 400),
    ] {
        assert_eq!(cluster.nodes[one].get(&format!("sys/health{query}"), "").status, status, "{query}");
    }
    let v = cluster.nodes[one].get("sys/leader", "").json();
    assert_eq!((&v["performance_standby"], &v["is_self"]), (&json!(true), &json!(false)));
    assert!(v["performance_standby_last_remote_wal"].as_u64() > Some(0));
    assert_eq!(cluster.nodes[active].get("sys/leader", "").json()["performance_standby"], false);
    let (code, out, err) = cluster.nodes[one].cli(root, &["status"]);
    assert!(code == 0 && out.contains("Performance Standby Node"), "{out}{err}");

    // a position has the form that clients take apart
    let a = cluster.put(active, "secret/data/x", &json!({"data": {"n": 7}}));
    let plain = String::from_utf8(STANDARD.decode(position(&a)).expect("base64")).expect("text");
    let parts: Vec<&str> = plain.split(':').collect();
    assert_eq!((parts.len(), parts[0], parts[4].len()), (5, "v1", 64), "{plain}");
    assert!(!parts[1].is_empty() && parts[2].parse::<u64>().is_ok() && parts[3].parse::<u64>().is_ok(), "{plain}");

    // reads of all kinds
    let at = position(&a);
    for i in [one, other, active] {
        let headers = [("X-Vault-Token", root), ("X-Vault-No-Request-Forwarding", "1"), (POSITION, at.as_str())];
        let a = cluster.with(i, "GET", "secret/data/x", &headers, None);
        assert_eq!((a.status, n_of(&a), a.header(POSITION)), (200, 7, None), "{:?}", a.errors());
        for (method, path) in [
            ("LIST", "secret/metadata/"),
            ("GET", "auth/token/lookup-self"),
            ("GET", "sys/policies/acl/default"),
            ("GET", "sys/mounts"),
            ("GET", "sys/auth"),
            ("GET", "sys/internal/ui/mounts"),
        ] {
            let a = cluster.with(i, method, path, &headers, None);
            assert_eq!(a.status, 200, "{method} {path}: {:?}", a.errors());
        }
        for (path, body) in [
            ("sys/capabilities-self", json!({"path": "secret/data/x"})),
            ("auth/token/lookup", json!({"token": root})),
            ("sys/tools/random/16", json!({})),
            ("auth/token/create-orphan", json!({"type": "batch", "policies": ["default"]})),
        ] {
            let a = cluster.with(i, "PUT", path, &headers, Some(&body));
            assert_eq!(a.status, 200, "{path}: {:?}", a.errors());
        }
        assert_eq!(cluster.with(i, "GET", "secret/data/none", &headers, None).status, 404);
    }
    // what writes, or belongs to one node, is passed on; a refusal too, for the active node may know better by now
    let wrap = [("X-Vault-Token", root), ("X-Vault-No-Request-Forwarding", "1"), ("X-Vault-Wrap-TTL", "60")];
    assert_eq!(cluster.with(one, "GET", "secret/data/x", &wrap, None).status, 307);
    for (method, path, body) in [
        ("PUT", "secret/data/x", Some(json!({"data": {"n": 8}}))),
        ("DELETE", "secret/data/x", None),
        ("PUT", "auth/token/create", Some(json!({}))),
        ("PUT", "sys/policies/acl/p", Some(json!({"policy": ""}))),
        ("GET", "sys/ha-status", None),
        ("GET", "sys/storage/raft/snapshot", None),
    ] {
        assert_eq!(cluster.alone(one, method, path, root, body.as_ref()).status, 307, "{method} {path}");
    }
    // and what changes something when there is something to change, even if this node knows of nothing
    for (path, body) in [
        ("auth/token/revoke", json!({"token": "hvs.unknown"})),
        ("sys/leases/revoke", json!({"lease_id": "no/such/lease"})),
        ("auth/token/tidy", json!({})),
    ] {
        assert_eq!(cluster.alone(one, "PUT", path, root, Some(&body)).status, 307, "{path}");
    }
    assert_eq!(cluster.alone(one, "GET", "secret/data/x", "hvs.wrong", None).status, 307);
    assert_eq!(n_of(&cluster.read(active, "x")), 7, "nothing of them was done");
    let a = cluster.nodes[one].get("secret/data/x", "hvs.wrong");
    assert!(a.status == 403 && a.errors().to_string().contains("invalid token"), "{} {:?}", a.status, a.errors());

    // transit
    cluster.put(active, "sys/mounts/transit", &json!({"type": "transit"}));
    let at = position(&cluster.put(active, "transit/keys/k", &json!({})));
    let headers = [("X-Vault-Token", root), ("X-Vault-No-Request-Forwarding", "1"), (POSITION, at.as_str())];
    let a = cluster.with(one, "PUT", "transit/encrypt/k", &headers, Some(&json!({"plaintext": "aGVsbG8="})));
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let cipher = json!({"ciphertext": a.json()["data"]["ciphertext"]});
    let a = cluster.with(other, "PUT", "transit/decrypt/k", &headers, Some(&cipher));
    assert_eq!((a.status, &a.json()["data"]["plaintext"]), (200, &json!("aGVsbG8=")), "{:?}", a.errors());
    // a key that is not there is made by the active node
    let plain = json!({"plaintext": "aGVsbG8="});
    assert_eq!(cluster.with(one, "PUT", "transit/encrypt/new", &headers, Some(&plain)).status, 307);
    assert_eq!(cluster.nodes[one].put("transit/encrypt/new", root, &plain).status, 200);
}

#[test]
fn logins_that_write_nothing_are_a_standby_s() {
    let cluster = Cluster::of_three("login");
    let (active, standbys) = cluster.places();
    let one = standbys[0];
    cluster.put(active, "sys/auth/userpass", &json!({"type": "userpass"}));
    let user = json!({"password": "p", "token_type": "batch", "token_policies": "default"});
    cluster.put(active, "auth/userpass/users/bob", &user);
    let login = |i: usize, password: &str| {
        cluster.alone(i, "PUT", "auth/userpass/login/bob", "", Some(&json!({"password": password})))
    };
    // the first login makes the entity
    assert_eq!(login(one, "p").status, 307);
    let first = cluster.nodes[one].put("auth/userpass/login/bob", "", &json!({"password": "p"}));
    assert_eq!(first.status, 200, "{:?}", first.errors());
    let a = login(one, "p");
    let token = a.json()["auth"]["client_token"].as_str().unwrap_or_default().to_owned();
    assert!(a.status == 200 && token.starts_with("hvb."), "{} {:?}", a.status, a.errors());
    assert_eq!(a.json()["auth"]["entity_id"], first.json()["auth"]["entity_id"]);
    for i in 0..3 {
        assert_eq!(cluster.alone(i, "GET", "auth/token/lookup-self", &token, None).status, 200, "through {i}");
    }
    // who fails is counted in one place, and good logins count there until that is forgotten
    assert_eq!(login(one, "wrong").status, 307);
    let wrong = json!({"password": "wrong"});
    for i in [0, 1, 2, 0, 1] {
        assert_eq!(cluster.nodes[i].put("auth/userpass/login/bob", "", &wrong).status, 400);
    }
    let good = json!({"password": "p"});
    let a = cluster.nodes[one].put("auth/userpass/login/bob", "", &good);
    assert_eq!((a.status, a.errors()), (403, json!(["permission denied"])), "locked after five");
    // a service token is the active node's to make
    cluster.put(active, "auth/userpass/users/eve", &json!({"password": "p"}));
    let a = cluster.alone(one, "PUT", "auth/userpass/login/eve", "", Some(&json!({"password": "p"})));
    assert_eq!(a.status, 307);
    let a = cluster.nodes[one].put("auth/userpass/login/eve", "", &json!({"password": "p"}));
    let token = a.json()["auth"]["client_token"].as_str().unwrap_or_default().to_owned();
    assert_eq!(cluster.alone(one, "GET", "auth/token/lookup-self", &token, None).status, 200);
    // a token of three uses has three, wherever they are made
    let made = cluster.put(standbys[1], "auth/token/create", &json!({"num_uses": 3})).json();
    let token = made["auth"]["client_token"].as_str().expect("a token").to_owned();
    let codes: Vec<u16> = (0..5).map(|i| cluster.nodes[i % 3].get("auth/token/lookup-self", &token).status).collect();
    assert_eq!(codes, [200, 200, 200, 403, 403]);
}

#[test]
fn nobody_reads_behind_what_he_was_told() {
    let cluster = Cluster::of_three_with("told", "replication {\n  best_effort_wal_wait_duration = \"5ms\"\n}\n");
    let root = cluster.root.as_str();
    let (active, standbys) = cluster.places();
    let (mut alone, mut early) = (0, 0);
    for n in 1..=150u64 {
        let i = standbys[n as usize % 2];
        // written through a standby, read from it
        assert_eq!(cluster.write(i, "own", n).map(|a| a.status), Some(200));
        let a = cluster.alone(i, "GET", "secret/data/own", root, None);
        match a.status {
            200 => assert_eq!(n_of(&a), n, "read behind one's own write"),
            // it was not sure to be level
            307 => {}
            other => panic!("{other}: {:?}", a.errors()),
        }
        alone += u64::from(a.status == 200);
        // written elsewhere, read with its position: the value, or word that it is not there yet
        let at = position(&cluster.write(active, "told", n).expect("an answer"));
        let headers = [("X-Vault-Token", root), (POSITION, at.as_str())];
        let a = cluster.with(i, "GET", "secret/data/told", &headers, None);
        match a.status {
            200 => assert_eq!(n_of(&a), n, "read behind a position"),
            412 => assert_eq!(a.errors(), json!(["required index state not present"])),
            other => panic!("{other}: {:?}", a.errors()),
        }
        early += u64::from(a.status == 412);
        // unless the active node may be asked instead
        let headers = [headers[0], headers[1], ("X-Vault-Inconsistent", "forward-active-node")];
        let a = cluster.with(i, "GET", "secret/data/told", &headers, None);
        assert_eq!((a.status, n_of(&a)), (200, n), "{:?}", a.errors());
    }
    println!("{alone} of 150 reads were answered by the standby, {early} were told to come again");
    assert!(alone > 75, "{alone}");
    // several positions: the latest counts; one that nobody gave out is refused on every node
    let ours = position(&cluster.write(active, "told", 200).expect("an answer"));
    for text in ["x", "djE6YzoxOjA6", &ours.replace(&ours[40..44], "AAAA"), &"A".repeat(3000)] {
        for i in 0..3 {
            let headers = [("X-Vault-Token", root), (POSITION, ours.as_str()), (POSITION, text)];
            let a = cluster.with(i, "GET", "secret/data/told", &headers, None);
            assert_eq!((a.status, a.errors()), (400, json!(["invalid x-vault-index"])), "{text}");
        }
    }
}

#[test]
fn what_a_core_remembers_follows_the_log() {
    let cluster = Cluster::of_three("derived");
    let root = cluster.root.as_str();
    let (active, standbys) = cluster.places();
    let rule = |path: &str| json!({"policy": format!("path \"{path}\" {{ capabilities = [\"read\"] }}")});
    cluster.put(active, "secret/data/x", &json!({"data": {"n": 1}}));
    for round in 0..5 {
        cluster.put(active, "sys/policies/acl/p", &rule("secret/data/x"));
        let a = cluster.put(active, "auth/token/create", &json!({"policies": ["p"]}));
        let (mut at, token) = (position(&a), a.json()["auth"]["client_token"].as_str().expect("one").to_owned());
        let read = |at: &str| -> Vec<u16> {
            let headers = [("X-Vault-Token", token.as_str()), ("X-Vault-No-Request-Forwarding", "1"), (POSITION, at)];
            // several times, so that both cores of a node have seen it
            let ask = |i: &usize| cluster.with(*i, "GET", "secret/data/x", &headers, None).status;
            standbys.iter().flat_map(|i| [ask(i), ask(i), ask(i), ask(i)]).collect()
        };
        assert_eq!(read(&at), [200; 8], "round {round}");
        // a policy, the mount, the token: each change is seen by the first request that shows its position
        at = position(&cluster.put(active, "sys/policies/acl/p", &rule("secret/data/y")));
        assert_eq!(read(&at), [307; 8], "round {round}: refused here, so the active node is asked");
        at = position(&cluster.put(active, "sys/policies/acl/p", &rule("secret/data/x")));
        assert_eq!(read(&at), [200; 8], "round {round}");
        at = position(&cluster.put(active, "auth/token/revoke", &json!({"token": token})));
        assert_eq!(read(&at), [307; 8], "round {round}");
        // and within the bound by those that show none
        let a = cluster.put(active, "auth/token/create", &json!({"policies": ["p"]}));
        let token = a.json()["auth"]["client_token"].as_str().expect("one").to_owned();
        for i in 0..3 {
            assert_eq!(cluster.nodes[i].get("secret/data/x", &token).status, 200);
        }
        cluster.put(standbys[round % 2], "auth/token/revoke", &json!({"token": token}));
        std::thread::sleep(STALE);
        for i in 0..3 {
            assert_eq!(cluster.nodes[i].get("secret/data/x", &token).status, 403, "round {round}, node {i}");
        }
    }
    cluster.put(active, "sys/mounts/gone", &json!({"type": "kv"}));
    let at = position(&cluster.put(active, "gone/a", &json!({"n": 1})));
    let headers = [("X-Vault-Token", root), ("X-Vault-No-Request-Forwarding", "1"), (POSITION, at.as_str())];
    assert_eq!(cluster.with(standbys[0], "GET", "gone/a", &headers, None).status, 200);
    let a = cluster.nodes[active].ask("DELETE", "sys/mounts/gone", root, None);
    let at = position(&a);
    let headers = [headers[0], headers[1], (POSITION, at.as_str())];
    assert_eq!(cluster.with(standbys[0], "GET", "gone/a", &headers, None).status, 404);
}

#[test]
fn a_standby_that_hears_nobody_falls_silent() {
    let cluster = Cluster::of_three("quiet");
    let (active, standbys) = cluster.places();
    let (one, other) = (standbys[0], standbys[1]);
    cluster.put(active, "secret/data/x", &json!({"data": {"n": 1}}));
    std::thread::sleep(STALE);
    assert_eq!(cluster.alone(one, "GET", "secret/data/x", &cluster.root, None).status, 200);
    cluster.signal(active, "-STOP");
    cluster.signal(other, "-STOP");
    std::thread::sleep(STALE);
    // nobody can write now, but it cannot know that
    let begun = Instant::now();
    let a = cluster.alone(one, "GET", "secret/data/x", &cluster.root, None);
    assert!(matches!(a.status, 307 | 500), "{} {:?}", a.status, a.json());
    assert_eq!(cluster.nodes[one].health(), 429, "a plain standby");
    assert!(begun.elapsed() < PATIENCE);
    cluster.signal(active, "-CONT");
    cluster.signal(other, "-CONT");
    let (_, standbys) = cluster.places();
    let ask = |i: usize| cluster.alone(i, "GET", "secret/data/x", &cluster.root, None).status == 200;
    for i in standbys {
        cluster.nodes[i].wait_for("an answer of its own", |_| ask(i));
    }
}

#[test]
fn it_is_switched_off_by_configuration() {
    let cluster = Cluster::of_three_with("off", "disable_performance_standby = true\n");
    let active = cluster.active();
    let one = (active + 1) % 3;
    let at = position(&cluster.put(active, "secret/data/x", &json!({"data": {"n": 1}})));
    assert_eq!(cluster.nodes[one].health(), 429);
    assert_eq!(cluster.nodes[one].get("sys/leader", "").json()["performance_standby"], false);
    assert_eq!(cluster.alone(one, "GET", "secret/data/x", &cluster.root, None).status, 307);
    let headers = [("X-Vault-Token", cluster.root.as_str()), (POSITION, at.as_str())];
    let a = cluster.with(one, "GET", "secret/data/x", &headers, None);
    assert_eq!((a.status, n_of(&a)), (200, 1), "passed on, as ever");
    // nothing waits for the standby's own image
    for n in 0..20 {
        assert_eq!(cluster.write(one, "y", n).map(|a| a.status), Some(200));
        assert_eq!(n_of(&cluster.read(one, "y")), n);
    }
}

#[test]
fn each_node_writes_the_lines_of_what_it_answers() {
    let cluster = Cluster::of_three_with("lines", "replication {\n  allow_forwarding_via_header = true\n}\n");
    let root = cluster.root.as_str();
    let (active, standbys) = cluster.places();
    let one = standbys[0];
    cluster.put(active, "secret/data/x", &json!({"data": {"n": 1}}));
    // the same text names another file for each process
    let device = json!({"type": "file", "options": {"file_path": "/proc/self/cwd/audit.log", "log_raw": "true"}});
    let at = position(&cluster.put(active, "sys/audit/file", &device));
    let lines = |i: usize, id: &str| -> Vec<String> {
        let text = std::fs::read_to_string(cluster.nodes[i].scratch.0.join("audit.log")).unwrap_or_default();
        let of = |l: &&str| l.contains(id);
        let entry = |l: &str| serde_json::from_str::<Value>(l).expect("a line")["type"].as_str().map(str::to_owned);
        text.lines().filter(of).filter_map(entry).collect()
    };
    let id_of = |a: &Answer| a.json()["request_id"].as_str().expect("an id").to_owned();
    let headers = [("X-Vault-Token", root), (POSITION, at.as_str())];
    let own = id_of(&cluster.with(one, "GET", "secret/data/x", &headers, None));
    assert_eq!((lines(one, &own), lines(active, &own)), (vec!["request".into(), "response".into()], vec![]));
    // passed on, by nature or by wish: the active node's
    let sent = id_of(&cluster.put(one, "secret/data/x", &json!({"data": {"n": 2}})));
    let headers = [headers[0], headers[1], ("X-Vault-Forward", "active-node")];
    let wished = id_of(&cluster.with(one, "GET", "secret/data/x", &headers, None));
    for id in [sent, wished] {
        assert_eq!((lines(one, &id), lines(active, &id)), (vec![], vec!["request".into(), "response".into()]));
    }
    // a standby whose only device takes nothing answers nothing
    let file = cluster.nodes[one].scratch.0.join("audit.log");
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("a directory in its place");
    cluster.signal(one, "-HUP");
    let begun = Instant::now();
    let mut status = 200;
    while status == 200 && begun.elapsed() < Duration::from_secs(10) {
        status = cluster.with(one, "GET", "secret/data/x", &headers[..2], None).status;
    }
    assert_eq!(status, 500);
    assert_eq!(cluster.with(active, "GET", "secret/data/x", &headers[..2], None).status, 200);
}

/// A restore takes away what was made after the snapshot and leaves no mark where it stood; standbys that have derived
/// routes from it forget them all the same.
#[test]
fn a_restored_snapshot_is_what_standbys_answer_from() {
    let cluster = Cluster::of_three("back");
    let root = cluster.root.as_str();
    let (active, _) = cluster.places();
    cluster.put(active, "secret/data/x", &json!({"data": {"n": 1}}));
    let file = cluster.nodes[active].scratch.0.join("all.snap");
    let file = file.to_str().expect("a path");
    let (code, out, err) = cluster.nodes[active].cli(root, &["operator", "raft", "snapshot", "save", file]);
    assert_eq!(code, 0, "{out}{err}");
    cluster.put(active, "sys/namespaces/late", &json!({}));
    cluster.put(active, "late/sys/mounts/kv", &json!({"type": "kv"}));
    cluster.put(active, "late/kv/a", &json!({"n": 1}));
    let at = position(&cluster.put(active, "secret/data/x", &json!({"data": {"n": 2}})));
    let (_, standbys) = cluster.places();
    let headers = [("X-Vault-Token", root), ("X-Vault-No-Request-Forwarding", "1"), (POSITION, at.as_str())];
    for i in &standbys {
        assert_eq!(cluster.with(*i, "GET", "late/kv/a", &headers, None).status, 200);
    }
    let (code, out, err) = cluster.nodes[active].cli(root, &["operator", "raft", "snapshot", "restore", file]);
    assert_eq!(code, 0, "{out}{err}");
    for i in standbys {
        let ask = |path: &str| cluster.alone(i, "GET", path, root, None);
        cluster.nodes[i].wait_for("the snapshot's data", |_| {
            let a = ask("secret/data/x");
            a.status == 200 && n_of(&a) == 1
        });
        let a = ask("late/kv/a");
        assert_eq!(a.status, 404, "{:?}", a.json());
        // both cores of the node
        for _ in 0..8 {
            let headers =
                [("X-Vault-Token", root), ("X-Vault-No-Request-Forwarding", "1"), ("X-Vault-Namespace", "late/")];
            let a = cluster.with(i, "GET", "sys/mounts", &headers, None);
            assert_eq!((a.status, a.errors()), (404, json!(["namespace not found"])), "{:?}", a.json());
        }
    }
    assert_eq!(cluster.write(0, "x", 3).map(|a| a.status), Some(200));
}
