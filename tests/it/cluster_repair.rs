//! Nodes of a cluster whose data directory lost something while they were down: each is found out at its start, named in
//! the log, and healed from the others; and where no good copy is left the node stops and says so.

use super::cluster::{Cluster, Node, all_acknowledged_is_there, each_goes_on, writers};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECTOR: usize = 4096;

/// Does something to the directory of a stopped node.
type Damage = fn(&Node);

fn data(node: &Node) -> PathBuf {
    node.scratch.0.join("data")
}

/// Files of a folder whose name ends so, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 0x55;
    fs::write(path, bytes).expect("written");
}

/// A byte in the middle of what the log holds, so that good writes follow.
fn rot_in_the_log(node: &Node) {
    let segment = files(&data(node).join("log"), ".seg").remove(0);
    let bytes = fs::read(&segment).expect("a segment");
    let used = bytes.chunks(SECTOR).take_while(|s| s.iter().any(|b| *b != 0)).count();
    assert!(used > 8, "the log holds {used} sectors");
    flip(&segment, used / 2 * SECTOR + 200);
}

fn lost_segment(node: &Node) {
    for segment in files(&data(node).join("log"), ".seg") {
        fs::remove_file(segment).expect("removed");
    }
}

fn rot_in_the_checkpoint(node: &Node) {
    let chunk = files(&data(node).join("checkpoint"), ".chunk").remove(0);
    let middle = fs::metadata(&chunk).expect("a chunk").len() as usize / 2;
    flip(&chunk, middle);
}

fn lost_votes(node: &Node) {
    fs::remove_file(data(node).join("slots")).expect("removed");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("copied")),
        }
    }
}

/// After damage to a stopped node: it starts, and is a voter with everything that was acknowledged.
fn heals(cluster: &mut Cluster, i: usize, said: &str) {
    let raft_id = |n: &Node| fs::read(data(n).join("identity")).expect("an identity")[24..32].to_vec();
    let before = cluster.servers((i + 1) % 3);
    let log_before = cluster.nodes[i].log().len();
    let old_id = fs::read(data(&cluster.nodes[i]).join("identity")).map(|b| b[24..32].to_vec()).ok();
    cluster.nodes[i].start("");
    let keys = cluster.keys.clone();
    let node = &cluster.nodes[i];
    node.wait_for("initialised", |n| n.health() == 503);
    let log = node.log()[log_before..].to_owned();
    assert!(log.contains(said) && log.contains("taken back as member"), "{said:?} is not said: {log}");
    assert_ne!(old_id, Some(raft_id(node)), "it speaks under a new id");
    node.unseal(&keys);
    node.wait_for("unsealed", |n| matches!(n.health(), 429 | 473));
    let name = node.name.clone();
    // its old id is gone, and the new one votes
    let begun = Instant::now();
    loop {
        let servers = cluster.servers((i + 1) % 3);
        let voter = servers.iter().any(|s| s["node_id"] == name && s["voter"] == true);
        if voter && servers.len() == 3 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{servers:?}, before {before:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Hands the lead over until this node has it. Who gave it away stays out of elections for ten seconds.
fn make_active(cluster: &Cluster, i: usize) {
    let begun = Instant::now();
    while cluster.active() != i {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} never leads", cluster.nodes[i].name);
        let active = cluster.active();
        cluster.nodes[active].put("sys/step-down", &cluster.root, &json!({}));
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn damage_to_a_minority_is_found_named_and_healed() {
    let mut cluster = Cluster::of_three("mend");
    let i = (cluster.active() + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|o| *o != i).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let told = writers(&cluster, &[others[0], others[1]], &stop);
    let kinds: [(&str, Damage, &str); 4] = [
        ("rot in the log", rot_in_the_log, "Rot in log segment"),
        ("a lost segment", lost_segment, "acknowledged entries up to"),
        ("rot in the checkpoint", rot_in_the_checkpoint, "checkpoint chunk"),
        ("lost votes", lost_votes, "the slots file"),
    ];
    for (what, damage, said) in kinds {
        for _ in 0..6 {
            each_goes_on(&told);
        }
        cluster.nodes[i].kill();
        println!("{what}");
        damage(&cluster.nodes[i]);
        heals(&mut cluster, i, said);
        each_goes_on(&told);
        assert_eq!(
            files(&data(&cluster.nodes[i]), "").iter().filter(|p| p.to_string_lossy().contains("damaged-")).count(),
            1
        );
    }
    stop.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    // healed for good: it starts again as any node, and what it holds is all there is
    cluster.nodes[i].kill();
    cluster.nodes[i].start("");
    cluster.nodes[i].wait_for("a known seal", |n| n.health() == 503);
    cluster.nodes[i].unseal(&cluster.keys);
    cluster.nodes[i].wait_for("unsealed", |n| matches!(n.health(), 429 | 473));
    make_active(&cluster, i);
    let told = told.lock().expect("lock");
    assert!(told.errors.iter().all(|e| e.contains("unknown")), "{:?}", told.errors);
    all_acknowledged_is_there(&cluster, i, &told);
}

#[test]
fn an_older_copy_of_a_directory_never_votes_with_what_it_forgot() {
    let mut cluster = Cluster::of_three("copy");
    let i = (cluster.active() + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|o| *o != i).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let told = writers(&cluster, &[others[0], others[1]], &stop);
    each_goes_on(&told);
    cluster.nodes[i].kill();
    let kept = cluster.nodes[i].scratch.0.join("kept");
    copy(&data(&cluster.nodes[i]), &kept);
    cluster.nodes[i].start("");
    for _ in 0..4 {
        each_goes_on(&told);
    }
    cluster.nodes[i].kill();
    fs::remove_dir_all(data(&cluster.nodes[i])).expect("removed");
    copy(&kept, &data(&cluster.nodes[i]));
    heals(&mut cluster, i, "is an older copy");
    stop.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    make_active(&cluster, i);
    all_acknowledged_is_there(&cluster, i, &told.lock().expect("lock"));
    // emptied altogether, it joins as a new node
    let active = cluster.active();
    let empty = (active + 1) % 3;
    cluster.nodes[empty].kill();
    fs::remove_dir_all(data(&cluster.nodes[empty])).expect("removed");
    let leader = format!("  retry_join {{\n    leader_api_addr = \"{}\"\n  }}\n", cluster.nodes[active].api());
    cluster.nodes[empty].start(&leader);
    let node = &cluster.nodes[empty];
    node.wait_for("a challenge", |n| n.health() == 503);
    // the node that had its name must have fallen silent first
    node.wait_for("unsealed", |n| {
        n.unseal(&cluster.keys);
        matches!(n.health(), 429 | 473)
    });
    let name = node.name.clone();
    cluster.wait_for_voters(|names| names.len() == 3 && names.contains(&name));
    make_active(&cluster, empty);
    all_acknowledged_is_there(&cluster, empty, &told.lock().expect("lock"));
}

/// Starts a process that is to end by itself: its exit code and what it logged.
fn ends(node: &Node) -> (i32, String) {
    let before = node.log().len();
    let mut child = node.command().spawn().expect("the binary starts");
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().expect("waited") {
            break status.code().unwrap_or(-1);
        }
        if begun.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it goes on: {}", node.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    (code, node.log()[before..].to_owned())
}

#[test]
fn with_no_good_copy_left_a_node_stops_and_says_so() {
    let mut cluster = Cluster::of_three("nocopy");
    for n in 0..10 {
        assert_eq!(cluster.write(0, "x", n).map(|a| a.status), Some(200));
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
    for i in [1, 2] {
        rot_in_the_log(&cluster.nodes[i]);
        cluster.nodes[i].env.push(("RINGFENCE_REPAIR_PATIENCE_SECONDS", "2".into()));
    }
    for i in [1, 2] {
        let segments = files(&data(&cluster.nodes[i]).join("log"), ".seg");
        let before: Vec<Vec<u8>> = segments.iter().map(|s| fs::read(s).expect("a segment")).collect();
        let (code, log) = ends(&cluster.nodes[i]);
        assert_eq!(code, 1, "{log}");
        for word in ["Rot in log segment", "no active node took it back within 2 s", "Nothing was changed"] {
            assert!(log.contains(word), "{word:?} is not said: {log}");
        }
        let after: Vec<Vec<u8>> = segments.iter().map(|s| fs::read(s).expect("a segment")).collect();
        assert!(before == after, "nothing was changed");
    }
    // a minority of good copies is no majority: the one that is whole waits, and serves nothing
    cluster.nodes[0].start("");
    cluster.nodes[0].unseal(&cluster.keys);
    assert_ne!(cluster.nodes[0].health(), 200);
    // alone, there is nobody to ask
    let mut lone = Cluster::of_one("lonerot");
    for n in 0..10 {
        assert_eq!(lone.write(0, "x", n).map(|a| a.status), Some(200));
    }
    lone.nodes[0].kill();
    rot_in_the_log(&lone.nodes[0]);
    let (code, log) = ends(&lone.nodes[0]);
    assert!(code == 1 && log.contains("Rot in log segment"), "{code} {log}");
}

/// Saves a snapshot of what a node's cluster holds.
fn save(node: &Node, root: &str, name: &str) -> String {
    let file = node.scratch.0.join(name).display().to_string();
    let (code, out, err) = node.cli(root, &["operator", "raft", "snapshot", "save", &file]);
    assert_eq!(code, 0, "{out}{err}");
    file
}

/// Reads one key through one node until told to stop; what it saw, each value once in its order.
fn reader(cluster: &Cluster, through: usize, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<u64>> {
    let (port, token, stop) = (cluster.nodes[through].port, cluster.root.clone(), stop.clone());
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let headers = [("X-Vault-Token", token.as_str())];
            let Ok(a) = super::harness::request(port, "GET", "secret/data/era", &headers, None) else { continue };
            if a.status == 200 {
                let n = a.json()["data"]["data"]["n"].as_u64().expect("a number");
                if seen.last() != Some(&n) {
                    seen.push(n);
                }
            }
        }
        seen
    })
}

#[test]
fn a_snapshot_is_restored_while_three_nodes_are_up_and_written_to() {
    let mut cluster = Cluster::of_three("back");
    for n in 0..30 {
        assert_eq!(cluster.write(n % 3, &format!("kept{n}"), n as u64).map(|a| a.status), Some(200));
    }
    assert_eq!(cluster.write(0, "era", 1).map(|a| a.status), Some(200));
    let file = save(&cluster.nodes[1], &cluster.root, "one.snap");
    for n in 2..=3 {
        assert_eq!(cluster.write(0, "era", n).map(|a| a.status), Some(200));
    }
    assert_eq!(cluster.write(0, "later", 1).map(|a| a.status), Some(200));
    let stop = Arc::new(AtomicBool::new(false));
    let told = writers(&cluster, &[0, 1, 2], &stop);
    let readers: Vec<_> = (0..3).map(|i| reader(&cluster, i, &stop)).collect();
    each_goes_on(&told);
    let active = cluster.active();
    let (code, out, err) =
        cluster.nodes[active].cli(&cluster.root, &["operator", "raft", "snapshot", "restore", &file]);
    assert_eq!(code, 0, "{out}{err} {}", cluster.nodes[active].log());
    // whoever was told finds it done, through every node, a standby within its bound
    std::thread::sleep(super::cluster::STALE);
    for i in 0..3 {
        assert_eq!(cluster.read(i, "era").json()["data"]["data"]["n"], 1);
        assert_eq!(cluster.read(i, "later").status, 404);
        for n in 0..30u64 {
            assert_eq!(cluster.read(i, &format!("kept{n}")).json()["data"]["data"]["n"], n);
        }
    }
    each_goes_on(&told);
    stop.store(true, Ordering::Relaxed);
    for r in readers {
        // first the one image, then the other, and never back
        assert_eq!(r.join().expect("read"), [3, 1]);
    }
    let told = told.lock().expect("lock");
    println!("writers heard: {:?}, slowest {:?}", told.errors, told.slowest);
    // each node holds it: it is what a restarted one finds, and what each of them serves when it leads
    let standby = (cluster.active() + 1) % 3;
    cluster.nodes[standby].kill();
    cluster.nodes[standby].start("");
    cluster.nodes[standby].wait_for("a known seal", |n| n.health() == 503);
    cluster.nodes[standby].unseal(&cluster.keys);
    cluster.nodes[standby].wait_for("unsealed", |n| matches!(n.health(), 429 | 473));
    for i in [standby, (standby + 1) % 3] {
        make_active(&cluster, i);
        assert_eq!(cluster.read(i, "era").json()["data"]["data"]["n"], 1);
        assert_eq!(cluster.read(i, "later").status, 404);
    }
    assert_eq!(cluster.servers(0).len(), 3);
    assert_eq!(cluster.write(0, "era", 4).map(|a| a.status), Some(200));

    // another cluster's: refused with the reason, unless it is forced; then all nodes wait for that cluster's keys
    let other = Cluster::of_one("backother");
    assert_eq!(other.write(0, "theirs", 9).map(|a| a.status), Some(200));
    let file = save(&other.nodes[0], &other.root, "other.snap");
    let active = cluster.active();
    let restore = |cluster: &Cluster, args: &[&str]| {
        let args = [&["operator", "raft", "snapshot", "restore"][..], args].concat();
        cluster.nodes[active].cli(&cluster.root, &args)
    };
    let (code, _, err) = restore(&cluster, &[&file]);
    assert!(code != 0 && err.contains("using a different set of unseal keys"), "{code} {err}");
    assert_eq!(cluster.read(0, "era").json()["data"]["data"]["n"], 4);
    let (code, out, err) = restore(&cluster, &["-force", &file]);
    assert_eq!(code, 0, "{out}{err}");
    for node in &cluster.nodes {
        node.wait_for("sealed", |n| n.health() == 503);
    }
    for node in &cluster.nodes {
        node.wait_for("unsealed by the keys of the snapshot's cluster", |n| {
            n.unseal(&other.keys);
            matches!(n.health(), 200 | 429 | 473)
        });
    }
    cluster.root = other.root.clone();
    for i in 0..3 {
        cluster.nodes[i].wait_for("the other's data", |n| {
            n.get("secret/data/theirs", &other.root).json()["data"]["data"]["n"] == 9
        });
    }
    assert_eq!(cluster.servers(0).len(), 3);
    assert_eq!(cluster.write(1, "theirs", 10).map(|a| a.status), Some(200));
}

#[test]
fn certificates_change_by_themselves_and_nobody_notices() {
    let mut cluster = Cluster::of_one("cert1");
    // short-lived from the next start on
    let period = ("RINGFENCE_CLUSTER_CERTIFICATE_SECONDS", "4".to_owned());
    cluster.nodes[0].kill();
    cluster.nodes[0].env.push(period.clone());
    cluster.nodes[0].start("");
    cluster.nodes[0].unseal(&cluster.keys);
    cluster.nodes[0].wait_for("unsealed", |n| n.health() == 200);
    for i in 2..=3 {
        let mut node = Node::new(&format!("cert{i}"));
        node.env.push(period.clone());
        node.start("");
        cluster.take_in(node);
    }
    // one that sleeps through several changes must be let in again, and let the others in
    let away = (cluster.active() + 1) % 3;
    cluster.nodes[away].kill();
    let others: Vec<usize> = (0..3).filter(|i| *i != away).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let told = writers(&cluster, &[others[0], others[1]], &stop);
    let changes = |n: &Node| n.log().matches("the cluster port shows a new certificate").count();
    for i in &others {
        let before = changes(&cluster.nodes[*i]);
        cluster.nodes[*i].wait_for("new certificates", |n| changes(n) >= before + 2);
    }
    let certificates = |n: &Node| files(&data(n).join("cluster"), ".der").len() / 2;
    assert!(certificates(&cluster.nodes[others[0]]) >= 3);
    cluster.nodes[away].start("");
    cluster.nodes[away].unseal(&cluster.keys);
    cluster.nodes[away].wait_for("unsealed", |n| matches!(n.health(), 429 | 473));
    let before = changes(&cluster.nodes[away]);
    cluster.nodes[away].wait_for("a new certificate", |n| changes(n) > before);
    assert_eq!(told.lock().expect("lock").errors, Vec::<String>::new(), "nobody notices");
    // and a node that starts under certificates that are all newer than its first
    cluster.nodes[others[1]].kill();
    cluster.nodes[others[1]].start("");
    stop.store(true, Ordering::Relaxed);
    cluster.nodes[others[1]].unseal(&cluster.keys);
    cluster.nodes[others[1]].wait_for("unsealed", |n| matches!(n.health(), 200 | 429 | 473));
    let told = told.lock().expect("lock");
    let fit = |e: &String| e.contains("unknown") || !e.starts_with("500");
    assert!(told.errors.iter().all(fit), "{:?}", told.errors);
    for i in 0..3 {
        all_acknowledged_is_there(&cluster, i, &told);
    }
}

/// A member of a later release is served if it only says more, and told apart if it speaks another language.
#[test]
fn members_of_other_versions_are_told_apart() {
    let mut cluster = Cluster::of_three("vers");
    let active = cluster.active();
    let gone = (active + 1) % 3;
    cluster.nodes[gone].kill();
    let folder = data(&cluster.nodes[gone]);
    let identity = fs::read(folder.join("identity")).expect("an identity");
    let certificate = fs::read(folder.join("cluster/certificate.der")).expect("a certificate");
    let key = fs::read(folder.join("cluster/key.der")).expect("a key");
    let port = cluster.nodes[active].cluster_port;
    let num = |mut v: u64| {
        let mut bytes = Vec::new();
        while v >= 0x80 {
            bytes.push(v as u8 | 0x80);
            v >>= 7;
        }
        bytes.push(v as u8);
        bytes
    };
    let id = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    let to = id(&fs::read(data(&cluster.nodes[active]).join("identity")).expect("an identity")[24..32]);
    let from = id(&identity[24..32]);
    let say = |version: u8, tail: &[u8]| {
        let hello = [&[0xf0, version][..], &identity[8..24], &num(from), &num(to), &[0], tail].concat();
        let framed = [&(hello.len() as u32).to_le_bytes()[..], &hello].concat();
        super::cluster::as_caller(port, certificate.clone().into(), key.clone(), &framed, Some(6))
    };
    // the next minor version: later starts of the directory, and a field that nobody here knows
    let tail = |minor: u64, start: u64| [&num(minor)[..], &num(start), &[7; 8], b"news"].concat();
    let accepted = |heard: &[u8]| heard.len() > 5 && heard[4] == 0xf1 && heard[5] == 1;
    let heard = say(1, &tail(2, 900));
    assert!(accepted(&heard), "{heard:02x?}");
    // the first one, before minor versions
    cluster.nodes[active].wait_for("the end of the call before", |_| accepted(&say(1, &[])));
    // another version, told to both
    cluster.nodes[active].wait_for("a verdict", |_| {
        String::from_utf8_lossy(&say(2, &tail(2, 901)))
            .contains("it speaks version 2 of the peer protocol, this node version 1")
    });
    assert!(cluster.nodes[active].log().contains("it speaks version 2 of the peer protocol"));
    // an older start than the newest one heard: a copy of the directory
    cluster.nodes[active]
        .wait_for("a verdict", |_| String::from_utf8_lossy(&say(1, &tail(1, 3))).contains("older copy"));
    assert_eq!(cluster.write(active, "still", 1).map(|a| a.status), Some(200));
}

#[test]
fn a_rotten_checkpoint_of_the_active_node_is_not_handed_on() {
    let mut cluster = Cluster::of_one("chunk1");
    cluster.nodes[0].kill();
    cluster.nodes[0].env.push(("RINGFENCE_CHECKPOINT_LOG_BYTES", "1048576".into()));
    cluster.nodes[0].start("");
    cluster.nodes[0].unseal(&cluster.keys);
    cluster.nodes[0].wait_for("unsealed", |n| n.health() == 200);
    let body = json!({"data": {"text": "x".repeat(60_000)}});
    let folder = data(&cluster.nodes[0]).join("checkpoint");
    let mut n = 0;
    while !folder.join("manifest").exists() {
        assert_eq!(cluster.nodes[0].put(&format!("secret/data/large{n}"), &cluster.root, &body).status, 200);
        n += 1;
        assert!(n < 500, "no checkpoint is made");
    }
    assert_eq!(cluster.write(0, "x", 7).map(|a| a.status), Some(200));
    for chunk in files(&folder, ".chunk") {
        let middle = fs::metadata(&chunk).expect("a chunk").len() as usize / 2;
        flip(&chunk, middle);
    }
    let mut node = Node::new("chunk2");
    node.start("");
    cluster.take_in(node);
    make_active(&cluster, 1);
    assert_eq!(cluster.read(1, "x").json()["data"]["data"]["n"], 7);
    assert_eq!(cluster.nodes[1].get("secret/data/large0", &cluster.root).json()["data"]["data"], body["data"]);
}
