//! Several processes that form a cluster over loopback: joining, forwarding, hand-over, loss of the active node, nodes
//! taken out and coming back, and everything that is refused on the way.

use super::harness::{Answer, Scratch, binary, free_port, request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Everything a test waits for happens within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A standby's answers are at most so old: the bound that `docs/cluster.md` tells.
pub const STALE: Duration = Duration::from_millis(600);

/// One process of a cluster.
pub struct Node {
    pub name: String,
    pub port: u16,
    pub cluster_port: u16,
    pub scratch: Scratch,
    pub child: Option<Child>,
    /// Further text of the configuration's top level.
    pub top: String,
    pub env: Vec<(&'static str, String)>,
}

impl Node {
    pub fn new(name: &str) -> Node {
        let scratch = Scratch::new(&format!("cluster-{name}"));
        Node {
            name: name.to_owned(),
            port: free_port(),
            cluster_port: free_port(),
            scratch,
            child: None,
            top: String::new(),
            env: Vec::new(),
        }
    }

    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the process and waits until it answers.
    pub fn start(&mut self, further: &str) {
        let text = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"{}\"\n{further}}}\nlistener \"tcp\" {{\n  address = \
             \"127.0.0.1:{}\"\n  cluster_address = \"127.0.0.1:{}\"\n  tls_disable = true\n}}\napi_addr = \
             \"{}\"\ncluster_addr = \"https://127.0.0.1:{}\"\n{}",
            self.scratch.0.join("data").display(),
            self.name,
            self.port,
            self.cluster_port,
            self.api(),
            self.cluster_port,
            self.top
        );
        let config = self.scratch.0.join("config.hcl");
        std::fs::write(&config, text).expect("the configuration");
        self.child = Some(self.command().spawn().expect("the binary starts"));
        let begun = Instant::now();
        while self.try_ask("GET", "sys/health", "", None).is_none() {
            assert!(begun.elapsed() < PATIENCE, "{} does not answer: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process over the configuration that was written last.
    pub fn command(&self) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.scratch.0.join("log"));
        let mut command = Command::new(binary());
        command
            .args(["server", &format!("-config={}", self.scratch.0.join("config.hcl").display())])
            .env("RINGFENCE_CORES", "2")
            .envs(self.env.iter().map(|(k, v)| (*k, v)))
            .current_dir(&self.scratch.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log file"));
        command
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut c) = self.child.take() {
            let _ = c.kill();
            let _ = c.wait();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default()
    }

    pub fn try_ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Option<Answer> {
        let body = body.map(|b| serde_json::to_vec(b).expect("json"));
        request(self.port, method, path, &[("X-Vault-Token", token)], body.as_deref()).ok()
    }

    pub fn ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
        self.try_ask(method, path, token, body)
            .unwrap_or_else(|| panic!("{method} {path} at {}: no answer; {}", self.name, self.log()))
    }

    pub fn get(&self, path: &str, token: &str) -> Answer {
        self.ask("GET", path, token, None)
    }

    pub fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.ask("PUT", path, token, Some(body))
    }

    pub fn health(&self) -> u16 {
        self.get("sys/health", "").status
    }

    pub fn unseal(&self, keys: &[String]) -> Answer {
        let mut last = None;
        for key in keys {
            last = Some(self.put("sys/unseal", "", &json!({ "key": key })));
        }
        last.expect("a key")
    }

    /// Asks until what is looked for is there.
    pub fn wait_for(&self, what: &str, found: impl Fn(&Node) -> bool) {
        let begun = Instant::now();
        while !found(self) {
            assert!(begun.elapsed() < PATIENCE, "{}: never {what}; {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs our own command line against this node.
    pub fn cli(&self, token: &str, args: &[&str]) -> (i32, String, String) {
        let out = Command::new(binary())
            .args(args)
            .env("VAULT_ADDR", self.api())
            .env("VAULT_TOKEN", token)
            .env("HOME", &self.scratch.0)
            .stdin(Stdio::null())
            .output()
            .expect("the command line runs");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub keys: Vec<String>,
    pub root: String,
}

impl Cluster {
    /// One node, initialised with three shares of which two are needed.
    pub fn of_one(name: &str) -> Cluster {
        Cluster::of_one_with(name, "")
    }

    pub fn of_one_with(name: &str, top: &str) -> Cluster {
        let mut first = Node::new(name);
        first.top = top.to_owned();
        first.start("");
        let v = first.put("sys/init", "", &json!({"secret_shares": 3, "secret_threshold": 2})).json();
        let keys = v["keys_base64"].as_array().expect("keys").iter().take(2);
        let keys: Vec<String> = keys.map(|k| k.as_str().expect("text").to_owned()).collect();
        let root = v["root_token"].as_str().expect("token").to_owned();
        assert_eq!(first.unseal(&keys).json()["sealed"], false);
        let kv = json!({"type": "kv", "options": {"version": "2"}});
        assert_eq!(first.put("sys/mounts/secret", &root, &kv).status, 204);
        let rules = json!({"server_stabilization_time": "1s"});
        assert_eq!(first.put("sys/storage/raft/autopilot/configuration", &root, &rules).status, 204);
        Cluster { nodes: vec![first], keys, root }
    }

    /// Three nodes that vote.
    pub fn of_three(name: &str) -> Cluster {
        Cluster::of_three_with(name, "")
    }

    pub fn of_three_with(name: &str, top: &str) -> Cluster {
        let mut cluster = Cluster::of_one_with(&format!("{name}1"), top);
        for i in 2..=3 {
            let mut node = Node::new(&format!("{name}{i}"));
            node.top = top.to_owned();
            node.start("");
            cluster.take_in(node);
        }
        cluster
    }

    /// Joins a node by the command line, unseals it and waits until it votes.
    pub fn take_in(&mut self, node: Node) {
        let leader = self.nodes[0].api();
        let (code, out, err) = node.cli("", &["operator", "raft", "join", &leader]);
        assert_eq!((code, out.contains("true")), (0, true), "{out}{err}");
        let status = node.get("sys/seal-status", "").json();
        assert_eq!((&status["initialized"], &status["sealed"]), (&json!(true), &json!(true)));
        assert_eq!((&status["t"], &status["n"]), (&json!(2), &json!(3)));
        let a = node.unseal(&self.keys);
        assert_eq!(a.status, 200, "{:?}", a.errors());
        node.wait_for("unsealed", |n| n.get("sys/seal-status", "").json()["sealed"] == false);
        let name = node.name.clone();
        self.nodes.push(node);
        self.wait_for_voters(|names| names.contains(&name));
    }

    pub fn servers(&self, through: usize) -> Vec<Value> {
        let a = self.nodes[through].get("sys/storage/raft/configuration", &self.root);
        a.json()["data"]["config"]["servers"].as_array().cloned().unwrap_or_default()
    }

    pub fn wait_for_voters(&self, found: impl Fn(&[String]) -> bool) {
        let begun = Instant::now();
        loop {
            let voters = self.servers(0).into_iter().filter(|s| s["voter"] == true);
            let names: Vec<String> = voters.map(|s| s["node_id"].as_str().unwrap_or_default().to_owned()).collect();
            if found(&names) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "voters {names:?}; {}", self.nodes[0].log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The node that evaluates, once there is one.
    pub fn active(&self) -> usize {
        let begun = Instant::now();
        loop {
            let up = |n: &Node| n.try_ask("GET", "sys/health", "", None).is_some_and(|a| a.status == 200);
            if let Some(i) = self.nodes.iter().position(up) {
                return i;
            }
            assert!(begun.elapsed() < PATIENCE, "no node is active; {}", self.nodes[0].log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn write(&self, through: usize, key: &str, n: u64) -> Option<Answer> {
        let body = json!({"data": {"n": n}});
        self.nodes[through].try_ask("PUT", &format!("secret/data/{key}"), &self.root, Some(&body))
    }

    pub fn read(&self, through: usize, key: &str) -> Answer {
        self.nodes[through].get(&format!("secret/data/{key}"), &self.root)
    }
}

/// What writers have had acknowledged and tried, by key; and what else they heard.
#[derive(Default)]
pub struct Told {
    pub keys: BTreeMap<String, (u64, u64)>,
    pub errors: Vec<String>,
    pub slowest: Duration,
}

/// Writers over some nodes, a key each, until told to stop.
pub fn writers(cluster: &Cluster, over: &[usize], stop: &Arc<AtomicBool>) -> Arc<Mutex<Told>> {
    let told: Arc<Mutex<Told>> = Arc::default();
    for (w, node) in over.iter().enumerate() {
        let (port, token) = (cluster.nodes[*node].port, cluster.root.clone());
        let (told, stop) = (told.clone(), stop.clone());
        let key = format!("w{w}");
        told.lock().expect("lock").keys.insert(key.clone(), (0, 0));
        std::thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                if let Some(k) = told.lock().expect("lock").keys.get_mut(&key) {
                    k.1 = n;
                }
                let body = serde_json::to_vec(&json!({"data": {"n": n}})).expect("json");
                let begun = Instant::now();
                let headers = [("X-Vault-Token", token.as_str())];
                let answer = request(port, "PUT", &format!("secret/data/{key}"), &headers, Some(&body));
                let mut t = told.lock().expect("lock");
                t.slowest = t.slowest.max(begun.elapsed());
                match answer {
                    Ok(a) if a.status == 200 => {
                        if let Some(k) = t.keys.get_mut(&key) {
                            k.0 = n;
                        }
                    }
                    Ok(a) => t.errors.push(format!("{} {}", a.status, a.errors())),
                    Err(e) => t.errors.push(e.to_string()),
                }
            }
        });
    }
    told
}

/// Waits until each writer has had a further write acknowledged.
pub fn each_goes_on(told: &Arc<Mutex<Told>>) {
    let acknowledged = |t: &Told| t.keys.values().map(|(acked, _)| *acked).collect::<Vec<u64>>();
    let before = acknowledged(&told.lock().expect("lock"));
    let begun = Instant::now();
    while !acknowledged(&told.lock().expect("lock")).iter().zip(&before).all(|(now, then)| now > then) {
        assert!(begun.elapsed() < PATIENCE, "writers stand still: {:?}", told.lock().expect("lock").errors);
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn all_acknowledged_is_there(cluster: &Cluster, through: usize, told: &Told) {
    // a standby shows what was acknowledged so long before
    std::thread::sleep(STALE);
    for (key, (acked, tried)) in &told.keys {
        let a = cluster.read(through, key);
        let n = a.json()["data"]["data"]["n"].as_u64().unwrap_or(0);
        assert!(n >= *acked && n <= *tried, "{key} is {n}, not in {acked}..={tried}: {:?}", a.errors());
    }
}

#[test]
fn three_nodes_serve_as_one() {
    let cluster = Cluster::of_three("one");
    let active = cluster.active();
    let (code, out, err) = cluster.nodes[1].cli(&cluster.root, &["operator", "raft", "list-peers"]);
    assert_eq!((code, out.matches("true").count(), out.matches("leader").count()), (0, 3, 1), "{out}{err}");
    for i in 0..3 {
        let a = cluster.write(i, &format!("x{i}"), i as u64).expect("an answer");
        assert_eq!(a.status, 200, "{:?}", a.errors());
    }
    for through in 0..3 {
        for i in 0..3u64 {
            cluster.nodes[through]
                .wait_for("the write", |_| cluster.read(through, &format!("x{i}")).json()["data"]["data"]["n"] == i);
        }
        let node = &cluster.nodes[through];
        assert_eq!(node.health(), if through == active { 200 } else { 473 });
        assert_eq!(node.get("sys/health?perfstandbyok=true", "").status, 200);
        let v = node.get("sys/leader", "").json();
        assert_eq!(v["leader_address"], cluster.nodes[active].api());
        assert_eq!((&v["is_self"], &v["ha_enabled"]), (&json!(through == active), &json!(true)));
        // wrapped there, opened here
        let wrap = [("X-Vault-Token", cluster.root.as_str()), ("X-Vault-Wrap-TTL", "60")];
        let a = request(node.port, "GET", "secret/data/x1", &wrap, None).expect("an answer").json();
        let token = a["wrap_info"]["token"].as_str().expect("a token").to_owned();
        let a = cluster.nodes[(through + 1) % 3].put("sys/wrapping/unwrap", &token, &json!({}));
        assert_eq!(a.json()["data"]["data"]["n"], 1, "{:?}", a.errors());
    }
    let standby = &cluster.nodes[(active + 1) % 3];
    let headers = [("X-Vault-Token", cluster.root.as_str()), ("X-Vault-No-Request-Forwarding", "1")];
    let a = request(standby.port, "PUT", "secret/data/x1", &headers, Some(b"{}")).expect("an answer");
    let there = format!("{}/v1/secret/data/x1", cluster.nodes[active].api());
    assert_eq!((a.status, a.header("location")), (307, Some(there.as_str())));
    let a = standby.put("sys/seal", &cluster.root, &json!({}));
    assert_eq!(a.errors(), json!(["vault cannot seal when in standby mode; please restart instead"]));
    assert_eq!((a.status, standby.put("sys/step-down", &cluster.root, &json!({})).status), (500, 204));
    // no token, or a wrong one, is judged by the active node as its own
    assert_eq!(standby.get("secret/data/x1", "").status, 403);
    assert_eq!(standby.get("secret/data/x1", "hvs.wrong").status, 403);
    let v = standby.get("sys/ha-status", &cluster.root).json();
    let rows = v["data"]["nodes"].as_array().expect("nodes");
    assert_eq!((rows.len(), rows.iter().filter(|r| r["active_node"] == true).count()), (3, 1));
    standby.wait_for("a healthy state", |n| {
        let v = n.get("sys/storage/raft/autopilot/state", &cluster.root).json()["data"].clone();
        v["healthy"] == true && v["failure_tolerance"] == 1 && v["voters"].as_array().map(Vec::len) == Some(3)
    });
    // a snapshot is saved through any node
    let file = cluster.nodes[0].scratch.0.join("all.snap");
    let (code, out, err) =
        standby.cli(&cluster.root, &["operator", "raft", "snapshot", "save", file.to_str().expect("a path")]);
    assert_eq!((code, file.exists()), (0, true), "{out}{err}");
}

#[test]
fn a_hand_over_loses_no_request() {
    let cluster = Cluster::of_three("hand");
    let stop = Arc::new(AtomicBool::new(false));
    let told = writers(&cluster, &[0, 1, 2, 0, 1, 2], &stop);
    each_goes_on(&told);
    for _ in 0..2 {
        let before = cluster.active();
        let (code, out, err) = cluster.nodes[before].cli(&cluster.root, &["operator", "step-down"]);
        assert_eq!(code, 0, "{out}{err}");
        cluster.nodes[before].wait_for("a standby", |n| n.health() == 473);
        each_goes_on(&told);
        assert_ne!(cluster.active(), before);
    }
    stop.store(true, Ordering::Relaxed);
    let told = told.lock().expect("lock");
    assert_eq!(told.errors, Vec::<String>::new());
    println!("slowest write over two hand-overs: {:?}", told.slowest);
    all_acknowledged_is_there(&cluster, 0, &told);
}

#[test]
fn the_loss_of_the_active_node_is_survived() {
    let mut cluster = Cluster::of_three("loss");
    for round in 0..2 {
        let lost = cluster.active();
        let others: Vec<usize> = (0..3).filter(|i| *i != lost).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let told = writers(&cluster, &[others[0], others[1], others[0], others[1]], &stop);
        each_goes_on(&told);
        cluster.nodes[lost].kill();
        each_goes_on(&told);
        stop.store(true, Ordering::Relaxed);
        let told = told.lock().expect("lock");
        println!("round {round}: slowest write over the loss: {:?}, errors {:?}", told.slowest, told.errors);
        // what was under way has no known outcome; nothing else fails
        assert!(told.errors.len() <= 4 && told.errors.iter().all(|e| e.contains("unknown")), "{:?}", told.errors);
        all_acknowledged_is_there(&cluster, others[0], &told);
        // it comes back sealed, and follows the log all the same
        cluster.nodes[lost].start("");
        assert_eq!(cluster.nodes[lost].health(), 503);
        assert_eq!(cluster.write(others[0], "late", round).map(|a| a.status), Some(200));
        let applied = |n: &Node| n.get("sys/leader", "").json()["raft_applied_index"].as_u64().unwrap_or(0);
        let now = applied(&cluster.nodes[cluster.active()]);
        cluster.nodes[lost].wait_for("as far as the others", |n| applied(n) >= now);
        assert_eq!(cluster.nodes[lost].get("secret/data/late", &cluster.root).status, 503);
        cluster.nodes[lost].unseal(&cluster.keys);
        // a plain standby until it knows that it is level
        cluster.nodes[lost].wait_for("unsealed", |n| n.health() == 473);
        assert_eq!(cluster.read(lost, "late").json()["data"]["data"]["n"], round);
    }
}

#[test]
fn a_node_is_taken_out_and_comes_back_empty() {
    let mut cluster = Cluster::of_three("out");
    let active = cluster.active();
    let gone = (active + 1) % 3;
    let name = cluster.nodes[gone].name.clone();
    let (code, out, err) = cluster.nodes[active].cli(&cluster.root, &["operator", "raft", "remove-peer", &name]);
    assert_eq!(code, 0, "{out}{err}");
    cluster.nodes[gone].wait_for("removed", |n| n.health() == 530);
    assert_eq!(cluster.nodes[gone].get("sys/seal-status", "").json()["removed_from_cluster"], true);
    assert_eq!(cluster.write(active, "without", 1).map(|a| a.status), Some(200));
    assert_eq!(cluster.servers(active).len(), 2);
    let mut node = cluster.nodes.remove(gone);
    node.kill();
    std::fs::remove_dir_all(node.scratch.0.join("data")).expect("emptied");
    node.start("");
    cluster.take_in(node);
    let through = cluster.nodes.len() - 1;
    assert_eq!(cluster.read(through, "without").json()["data"]["data"]["n"], 1);
    assert_eq!(cluster.servers(0).len(), 3);
    // without a vote and back
    let name = cluster.nodes[through].name.clone();
    let votes = |c: &Cluster| c.servers(0).iter().any(|s| s["node_id"] == name.as_str() && s["voter"] == true);
    let begun = Instant::now();
    assert_eq!(cluster.nodes[0].cli(&cluster.root, &["operator", "raft", "demote", &name]).0, 0);
    while votes(&cluster) {
        assert!(begun.elapsed() < PATIENCE, "it keeps its vote");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(cluster.nodes[0].cli(&cluster.root, &["operator", "raft", "promote", &name]).0, 0);
    cluster.wait_for_voters(|names| names.contains(&name));
}

#[test]
fn a_configured_node_joins_by_itself() {
    let mut first = Node::new("auto1");
    let mut second = Node::new("auto2");
    // nobody is there yet, then nobody is initialised
    let addresses = format!(
        "  retry_join {{\n    leader_api_addr = \"{}\"\n  }}\n  retry_join {{\n    leader_api_addr = \"{}\"\n  }}\n",
        second.api(),
        first.api()
    );
    second.start(&addresses);
    first.start("");
    let v = first.put("sys/init", "", &json!({"secret_shares": 1, "secret_threshold": 1})).json();
    let key = v["keys_base64"][0].as_str().expect("a key").to_owned();
    let root = v["root_token"].as_str().expect("a token").to_owned();
    first.unseal(std::slice::from_ref(&key));
    second.wait_for("challenged", |n| n.get("sys/seal-status", "").json()["initialized"] == true);
    second.unseal(&[key]);
    second.wait_for("unsealed", |n| n.health() == 473);
    assert_eq!(second.get("sys/mounts", &root).status, 200);
    // one that is in is told so
    let a = second.put("sys/storage/raft/join", "", &json!({"leader_api_addr": first.api()}));
    assert_eq!((a.status, a.json()), (200, json!({"joined": true})));
}

#[test]
fn who_does_not_belong_is_refused() {
    let cluster = Cluster::of_one("door");
    let inside = &cluster.nodes[0];
    let mut stranger = Node::new("stranger");
    stranger.start("");
    let join = |n: &Node, body: Value| n.put("sys/storage/raft/join", "", &body);
    for (body, status, why) in [
        (json!({}), 400, "no leader API address"),
        (json!({"leader_api_addr": stranger.api()}), 400, "this node's own address"),
        (json!({"leader_api_addr": "ftp://x"}), 400, "must begin with http"),
        (json!({"auto_join": "provider=aws"}), 400, "the provider"),
        (json!({"leader_api_addr": "http://127.0.0.1:1"}), 500, "does not answer"),
    ] {
        let a = join(&stranger, body);
        assert_eq!((a.status, a.errors().to_string().contains(why)), (status, true), "{:?}", a.errors());
    }
    assert_eq!(stranger.get("sys/seal-status", "").json()["initialized"], false);
    // the shares of another cluster open nothing
    let other = Cluster::of_one("other");
    assert_eq!(join(&stranger, json!({"leader_api_addr": inside.api()})).json(), json!({"joined": true}));
    let a = stranger.unseal(&other.keys);
    assert_eq!((a.status, a.errors().to_string().contains("message authentication failed")), (400, true));
    assert_eq!(cluster.servers(0).len(), 1);
    // an answer that nobody was asked for, and one that is not sealed by the key
    for body in [json!({"server_id": "x", "answer": "AAAA"}), json!({"server_id": "", "answer": ""})] {
        let a = inside.put("sys/storage/raft/bootstrap/answer", "", &body);
        assert_eq!((a.status, a.errors()), (400, json!(["invalid answer given"])));
    }
    for i in 0..40 {
        let a = inside.put("sys/storage/raft/bootstrap/challenge", "", &json!({"server_id": format!("x{i}")}));
        assert_eq!(a.status, 200);
    }
    let a = inside.put("sys/storage/raft/bootstrap/answer", "", &json!({"server_id": "x39", "answer": "AAAA"}));
    assert_eq!((a.status, a.errors()), (400, json!(["invalid answer given"])));
    assert_eq!(inside.put("sys/storage/raft/bootstrap/challenge", "", &json!({})).status, 400);
    // two nodes with one name, while the first is up
    let mut twin = Node::new("door1");
    twin.name = inside.name.clone();
    twin.start("");
    assert_eq!(join(&twin, json!({"leader_api_addr": inside.api()})).json(), json!({"joined": true}));
    let a = twin.unseal(&cluster.keys);
    assert_eq!((a.status, a.errors().to_string().contains("is in use by a member that is up")), (500, true), "{a:?}");
    assert_eq!(cluster.servers(0).len(), 1);
    // what is no node gets nothing from the cluster port
    let junk: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096], &[0x16, 3, 1, 0xff, 0xff], b""];
    for bytes in junk {
        let mut s = TcpStream::connect(("127.0.0.1", inside.cluster_port)).expect("the port is open");
        s.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        // it may have been closed already
        let _ = s.write_all(bytes);
        let _ = s.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        let _ = s.read_to_end(&mut heard);
        assert!(heard.len() < 64, "an alert at most: {heard:?}");
    }
    assert_eq!(inside.health(), 200);
    assert_eq!(cluster.write(0, "still", 1).map(|a| a.status), Some(200));
    // whoever has the shares gets in in the end
    assert_eq!(stranger.unseal(&cluster.keys).status, 200);
    stranger.wait_for("unsealed", |n| n.health() == 473);
    assert_eq!(stranger.get("secret/data/still", &cluster.root).json()["data"]["data"]["n"], 1);
}

/// Believes any certificate: the stranger's side of a handshake.
#[derive(Debug)]
struct Gullible(rustls::crypto::WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// What the cluster port answers to a stranger with a certificate of its own who sends these bytes.
fn as_stranger(port: u16, bytes: &[u8]) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    as_caller(port, certificate, key.serialize_der(), bytes, None)
}

/// What it answers to a caller with this certificate; to its end, or as many bytes as are awaited.
pub fn as_caller(
    port: u16,
    certificate: rustls_pki_types::CertificateDer<'static>,
    key: Vec<u8>,
    bytes: &[u8],
    awaited: Option<usize>,
) -> Vec<u8> {
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(algorithms)))
        .with_client_auth_cert(vec![certificate], key)
        .expect("a client");
    config.alpn_protocols = vec![b"ringfence-peer/1".to_vec()];
    let name = rustls_pki_types::ServerName::try_from("ringfence-node").expect("a name");
    let tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
    let tcp = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    tcp.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut stream = rustls::StreamOwned::new(tls, tcp);
    stream.write_all(bytes).expect("sent");
    stream.flush().expect("sent");
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        heard.extend_from_slice(&buffer[..n]);
        if awaited.is_some_and(|enough| heard.len() >= enough) {
            break;
        }
    }
    heard
}

#[test]
fn forged_and_truncated_frames_get_nowhere() {
    let cluster = Cluster::of_one("forged");
    let node = &cluster.nodes[0];
    let framed = |frame: &[u8]| [&(frame.len() as u32).to_le_bytes()[..], frame].concat();
    // the cluster's id stands in the directory's identity, behind its magic: somebody may have got hold of it
    let identity = std::fs::read(node.scratch.0.join("data/identity")).expect("an identity");
    let hello = |cluster: &[u8], version: u8| [&[0xf0, version][..], cluster, &[7, 8, 0]].concat();
    let heard = as_stranger(node.cluster_port, &framed(&hello(&identity[8..24], 1)));
    assert!(String::from_utf8_lossy(&heard).contains("not a member"), "{heard:?}");
    let heard = as_stranger(node.cluster_port, &framed(&hello(&[9; 16], 1)));
    assert!(String::from_utf8_lossy(&heard).contains("another cluster"), "{heard:?}");
    for bytes in [framed(b""), framed(&[0xf0]), framed(&[1; 100]), vec![0xff; 8], vec![0xff, 0xff, 0, 0, 1]] {
        assert_eq!(as_stranger(node.cluster_port, &bytes), b"", "{bytes:?}");
    }
    assert_eq!(cluster.write(0, "still", 1).map(|a| a.status), Some(200));
}

/// The nodes are found by a name: each of its addresses is asked, and one that answers nothing does no harm.
#[test]
fn a_node_joins_by_a_name_that_is_looked_up() {
    let mut cluster = Cluster::of_one("dns1");
    let port = cluster.nodes[0].port;
    let mut node = Node::new("dns2");
    node.start(&format!(
        "retry_join {{\n auto_join = \"provider=dns name=localhost\"\n auto_join_scheme = \"http\"\n \
         auto_join_port = {port}\n}}"
    ));
    node.wait_for("a challenge", |n| n.get("sys/seal-status", "").json()["initialized"] == true);
    assert_eq!(node.unseal(&cluster.keys).status, 200);
    node.wait_for("unsealed", |n| n.get("sys/seal-status", "").json()["sealed"] == false);
    let name = node.name.clone();
    cluster.nodes.push(node);
    cluster.wait_for_voters(|names| names.contains(&name));
    // by the API, and what cannot be looked up
    let third = {
        let mut n = Node::new("dns3");
        n.start("");
        n
    };
    let join = |body: Value| third.put("sys/storage/raft/join", "", &body);
    let a = join(json!({"auto_join": "provider=aws tag_key=x"}));
    assert_eq!(a.status, 400);
    assert!(a.errors()[0].to_string().contains("the provider"), "{:?}", a.errors());
    let a =
        join(json!({"auto_join": "provider=dns name=localhost", "auto_join_scheme": "http", "auto_join_port": port}));
    assert_eq!((a.status, &a.json()["joined"]), (200, &json!(true)), "{:?}", a.errors());
}
