//! The process is killed in the middle of concurrent writes, again and again. Every acknowledged write must be there
//! afterwards, whole; a write without an answer may be there or not, but never in part.

use super::harness::{Server, request};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WRITERS: u64 = 8;

/// How many kills a run makes; more by the environment (a soak sets hundreds).
fn rounds() -> u64 {
    std::env::var("RINGFENCE_CRASH_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(12)
}

#[test]
fn acknowledged_writes_survive_kills() {
    let mut server = Server::ready("crash");
    let a = server.put("sys/mounts/secret", &server.root, &json!({"type": "kv", "options": {"version": "2"}}));
    assert_eq!(a.status, 204);
    // per key: the last acknowledged value and the last one tried
    let state: Arc<Mutex<Vec<(u64, u64)>>> = Arc::new(Mutex::new(vec![(0, 0); WRITERS as usize]));
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 0..rounds() {
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..WRITERS)
            .map(|w| {
                let (stop, state, acknowledged) = (stop.clone(), state.clone(), acknowledged.clone());
                let (port, token) = (server.port, server.root.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let n = {
                            let mut s = state.lock().expect("lock");
                            s[w as usize].1 += 1;
                            s[w as usize].1
                        };
                        let body = serde_json::to_vec(&json!({"data": {"n": n, "pad": "x".repeat(200), "again": n}}));
                        let headers = [("X-Vault-Token", token.as_str())];
                        let path = format!("secret/data/w{w}");
                        match request(port, "PUT", &path, &headers, Some(&body.expect("json"))) {
                            Ok(a) if a.status == 200 => {
                                state.lock().expect("lock")[w as usize].0 = n;
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                            }
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        // a different moment each round; what matters is that writes are under way
        std::thread::sleep(Duration::from_millis(20 + (round * 37) % 150));
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for t in threads {
            t.join().expect("a writer");
        }
        server.start();
        server.unseal();
        for (w, (acked, tried)) in state.lock().expect("lock").iter_mut().enumerate() {
            let a = server.get(&format!("secret/data/w{w}"), &server.root);
            if *acked == 0 && a.status == 404 {
                continue;
            }
            assert_eq!(a.status, 200, "round {round}, writer {w}: {:?}", a.errors());
            let data: Value = a.json()["data"]["data"].clone();
            let n = data["n"].as_u64().expect("a number");
            assert!(n >= *acked && n <= *tried, "round {round}: {n} is not in {acked}..={tried}");
            assert_eq!(data["again"], data["n"], "half a write");
            assert_eq!(data["pad"].as_str().map(str::len), Some(200), "half a write");
            *tried = (*tried).max(n);
            *acked = n;
        }
    }
    assert!(acknowledged.load(Ordering::Relaxed) > rounds(), "the writers were not under way");
}

#[test]
fn no_file_holds_a_secret() {
    let mut server = Server::ready("canary");
    let canary = "canary-7f3a91c2e5";
    server.put("sys/mounts/secret", &server.root, &json!({"type": "kv", "options": {"version": "2"}}));
    server.put("secret/data/a", &server.root, &json!({"data": {"password": canary}}));
    server.put("cubbyhole/a", &server.root, &json!({"password": canary}));
    server.put("sys/auth/userpass", &server.root, &json!({"type": "userpass"}));
    server.put("auth/userpass/users/bob", &server.root, &json!({"password": canary}));
    let login = server.put("auth/userpass/login/bob", "", &json!({"password": canary}));
    let token = login.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    let accessor = login.json()["auth"]["accessor"].as_str().expect("an accessor").to_owned();
    let root = server.root.clone();
    server.signal("TERM");
    assert_eq!(server.wait_end(), Some(0));
    let mut found = Vec::new();
    scan(&server.scratch.0, &mut |path, bytes| {
        for needle in [canary, &token, &accessor, &root] {
            if bytes.windows(needle.len()).any(|w| w == needle.as_bytes()) {
                found.push((path.to_owned(), needle.to_owned()));
            }
        }
    });
    assert!(found.is_empty(), "{found:?}");
}

fn scan(dir: &std::path::Path, see: &mut impl FnMut(&str, &[u8])) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            scan(&path, see);
        } else {
            // the tail of a preallocated segment is zeros: not worth the time
            let bytes = std::fs::read(&path).expect("a file");
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |p| p + 1);
            see(&path.display().to_string(), &bytes[..used]);
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let scratch = super::harness::Scratch::new("full");
    let data = scratch.0.join("data");
    std::fs::create_dir_all(&data).expect("a directory");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=200m", "ringfence-test"])
        .arg(&data)
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        // only root may mount; the simulation covers the same fault without a mount
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    }
    let unmount = Unmount(data.clone());
    let mut server = Server::blank_at("full", scratch, &[]);
    server.init(1, 1);
    server.unseal();
    server.put("sys/mounts/secret", &server.root, &json!({"type": "kv", "options": {"version": "1"}}));
    assert_eq!(server.put("secret/first", &server.root, &json!({"v": "kept"})).status, 204);
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![1u8; 150 << 20]).err();
    // what is prepared is used up first; then the node refuses
    let pad = "x".repeat(900_000);
    let mut refused = None;
    for i in 0..400 {
        let a = server.put(&format!("secret/big{i}"), &server.root, &json!({"pad": pad}));
        if a.status != 204 {
            refused = Some(a);
            break;
        }
    }
    let refused = refused.expect("the disk is never full");
    assert_eq!(refused.status, 507, "{:?}", refused.errors());
    assert!(refused.errors()[0].as_str().is_some_and(|t| t.contains("no space left")), "{:?}", refused.errors());
    assert_eq!(server.get("secret/first", &server.root).json()["data"]["v"], "kept");
    std::fs::remove_file(&ballast).expect("the ballast");
    let begun = std::time::Instant::now();
    while server.put("secret/after", &server.root, &json!({"v": "room"})).status != 204 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not recover: {}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    server.kill();
    drop(server);
    drop(unmount);
}

/// Unmounts when the test ends, well or not.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Right after a restart the last entries of the log are not applied yet. A share was judged by the seal as it was before
/// them: after a rekey the old key opened the seal, and the new one was refused.
#[test]
fn a_share_is_judged_by_the_newest_seal() {
    let mut s = Server::ready("crash-rekey");
    for _ in 0..5 {
        let old = s.keys[0].clone();
        let a = s.put("sys/rekey/init", "", &json!({"secret_shares": 1, "secret_threshold": 1}));
        let nonce = a.json()["nonce"].clone();
        let a = s.put("sys/rekey/update", "", &json!({"key": old, "nonce": nonce}));
        assert_eq!(a.status, 200, "{:?}", a.errors());
        s.keys = vec![a.json()["keys_base64"][0].as_str().expect("a key").to_owned()];
        s.kill();
        s.start();
        let a = s.put("sys/unseal", "", &json!({"key": old}));
        assert_eq!(a.status, 400, "the old key opens nothing any more");
        s.unseal();
        assert_eq!(s.get("sys/mounts", &s.root).status, 200);
    }
}

/// After a restore the counter of mass revocations went on from the snapshot's, below the eras of batch tokens made
/// since: those lived on, whatever was cut off, and spoke in a namespace that was given the number of theirs again.
#[test]
fn no_batch_token_outlives_a_restore() {
    let mut s = Server::ready("restore-batch");
    let made = |path: &str, body: Value| {
        let a = s.put(path, &s.root, &body);
        assert!(matches!(a.status, 200 | 204), "{path}: {:?}", a.errors());
        a.json()
    };
    let archive = s.get("sys/storage/raft/snapshot", &s.root).body;
    made("sys/namespaces/early", json!({}));
    made(
        "early/sys/policies/acl/all",
        json!({"policy": "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"list\", \"sudo\"] }"}),
    );
    for _ in 0..3 {
        made("auth/token/revoke-batch", json!({"all": true}));
        made("early/auth/token/revoke-batch", json!({"all": true}));
    }
    let batch = |ns: &str, policy: &str| {
        let body = json!({"type": "batch", "policies": policy, "no_parent": true, "ttl": "1h"});
        let v = made(&format!("{ns}auth/token/create-orphan"), body);
        v["auth"]["client_token"].as_str().expect("a token").to_owned()
    };
    let (here, early) = (batch("", "default"), batch("early/", "all"));
    let service = made("auth/token/create", json!({"policies": "default"}));
    let service = service["auth"]["client_token"].as_str().expect("a token");
    assert_eq!(s.get("auth/token/lookup-self", &here).status, 200);
    assert_eq!(s.get("early/sys/policies/acl", &early).status, 200);
    let restore = || {
        let a = s.request("POST", "sys/storage/raft/snapshot", &s.root, Some(&archive));
        assert_eq!(a.status, 204, "{:?}", a.errors());
    };
    restore();
    let dead = |token: &str| s.get("auth/token/lookup-self", token).status == 403;
    assert!(dead(&here) && dead(service));
    // the next namespace gets the number of the one that is gone, and the token's text may be written for it
    made("sys/namespaces/late", json!({}));
    made(
        "late/sys/policies/acl/all",
        json!({"policy": "path \"*\" { capabilities = [\"read\", \"list\", \"sudo\"] }"}),
    );
    let suffix = batch("late/", "all");
    let suffix = suffix.rsplit_once('.').expect("a suffix").1;
    let forged = format!("{}.{suffix}", early.rsplit_once('.').expect("a suffix").0);
    assert_eq!(s.get("late/sys/policies/acl", &forged).status, 403);
    // what is made now lives, and dies by the next cut-off and by the next restore
    let first = batch("", "default");
    assert!(!dead(&first));
    made("auth/token/revoke-batch", json!({"all": true}));
    assert!(dead(&first));
    let second = batch("", "default");
    assert!(!dead(&second));
    restore();
    assert!(dead(&second));
    let third = batch("", "default");
    s.kill();
    s.start();
    s.unseal();
    let alive = |token: &str| s.get("auth/token/lookup-self", token).status == 200;
    assert!(alive(&third) && !alive(&second), "the floor is durable");
}
