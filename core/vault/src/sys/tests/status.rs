//! What the server tells of itself, and what it has the owner core do.

use super::*;
use crate::call::Body;
use ringfence_logical::{OwnerOp, SideOp, SideResult};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// An owner core that answers as the real one is asked to, and remembers what it was told.
fn owner(w: &mut World) -> Rc<RefCell<Vec<OwnerOp>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    w.outside = Box::new(move |op| {
        let SideOp::Owner(op) = op else { panic!("{op:?}") };
        log.borrow_mut().push(op.clone());
        match op {
            OwnerOp::KeyStatus => {
                SideResult::Json(json!({"term": 3, "install_time": "2026-01-01T00:00:00Z", "encryptions": 5, "x": 1}))
            }
            OwnerOp::RaftConfiguration => SideResult::Json(json!({"config": {"index": 0, "servers": [
                {"address": "10.0.0.1:8201", "leader": true, "node_id": "n1", "protocol_version": "3", "voter": true},
            ]}})),
            OwnerOp::SnapshotSave => SideResult::Bytes(Arc::new(b"archive".to_vec())),
            OwnerOp::Named("ha-status", _) => SideResult::Json(json!({"nodes": [{"hostname": "a"}]})),
            OwnerOp::Named("autopilot-state", _) => SideResult::Json(json!({"healthy": true, "leader": "n1"})),
            OwnerOp::Named("host-info", _) => SideResult::Json(json!({"memory": {"total": 1}})),
            OwnerOp::Named("in-flight-req", _) => SideResult::Json(json!({"id": {"request_path": "x"}})),
            OwnerOp::Named("metrics", v) if v["format"] == "prometheus" => {
                SideResult::Text("requests_total 1\n".into())
            }
            OwnerOp::Named("metrics", _) => SideResult::Json(json!({"Gauges": []})),
            _ => SideResult::Json(Value::Null),
        }
    });
    seen
}

#[test]
fn keys() {
    let mut w = world();
    let seen = owner(&mut w);
    let v = get(&mut w, "sys/key-status");
    let shown = json!({"term": 3, "install_time": "2026-01-01T00:00:00Z", "encryptions": 5});
    assert_eq!((&v["data"], &v["term"]), (&shown, &json!(3)));
    set(&mut w, "sys/rotate", Value::Null);
    assert_eq!(
        get(&mut w, "sys/rotate/config")["data"],
        json!({"enabled": true, "max_operations": 3865470566u64, "interval": 0})
    );
    set(&mut w, "sys/rotate/config", json!({"interval": "48h", "max_operations": 2000000, "enabled": "false"}));
    let told = OwnerOp::RotateConfig { enabled: false, max_operations: 2_000_000, interval: 172_800 };
    assert_eq!(*seen.borrow(), [OwnerOp::KeyStatus, OwnerOp::Rotate, told]);
    for body in [json!({"interval": "1h"}), json!({"max_operations": 5}), json!({"max_operations": -1})] {
        assert_eq!(post(&mut w, "sys/rotate/config", body).0, Code::Invalid);
    }
    refused(root(&mut w, Operation::Read, "sys/rekey/backup", Value::Null), "no backed-up keys found");
    assert_eq!(delete(&mut w, "sys/rekey/backup").0, Code::NoContent);
}

#[test]
fn seal_and_step_down() {
    let mut w = world();
    let seen = owner(&mut w);
    set(&mut w, "sys/seal", Value::Null);
    set(&mut w, "sys/step-down", Value::Null);
    assert_eq!(*seen.borrow(), [OwnerOp::Seal, OwnerOp::StepDown]);
    assert_eq!(root(&mut w, Operation::Read, "sys/seal", Value::Null).0, Code::Unsupported);
    assert_eq!(w.post("sys/seal", "", Value::Null).0, Code::Denied);
    w.outside = Box::new(|_| SideResult::Failed("the disk is on fire".into()));
    let (code, v) = post(&mut w, "sys/rotate", Value::Null);
    assert_eq!((code, error_of(&v)), (Code::Internal, "1 error occurred:\n\t* internal error\n\n"));
    assert_eq!(w.cause.as_deref(), Some("the disk is on fire"));
    w.outside = Box::new(|_| SideResult::Refused(Error::invalid("not now")));
    refused(post(&mut w, "sys/step-down", Value::Null), "not now");
}

#[test]
fn nodes_and_measurements() {
    let mut w = world();
    owner(&mut w);
    assert_eq!(get(&mut w, "sys/ha-status")["nodes"], json!([{"hostname": "a"}]));
    assert_eq!(get(&mut w, "sys/host-info")["data"]["memory"]["total"], 1);
    assert_eq!(get(&mut w, "sys/in-flight-req"), json!({"id": {"request_path": "x"}}));
    assert_eq!(get(&mut w, "sys/metrics"), json!({"Gauges": []}));
    let root_token = w.root.clone();
    for accept in [false, true] {
        let data = if accept { Value::Null } else { json!({"format": "prometheus"}) };
        let mut call = w.blank(Operation::Read, "sys/metrics", &root_token, data);
        if accept {
            call.headers.push("accept", "application/openmetrics-text; version=1.0.0");
        }
        let Body::Raw(raw) = w.send(call).body else { panic!("text") };
        assert_eq!(raw.body, b"requests_total 1\n");
        assert!(raw.content_type.starts_with("text/plain; version=0.0.4"));
    }
}

#[test]
fn raft() {
    let mut w = world();
    let seen = owner(&mut w);
    let v = get(&mut w, "sys/storage/raft/configuration");
    assert_eq!(v["data"]["config"]["servers"][0]["node_id"], "n1");
    let v = get(&mut w, "sys/storage/raft/autopilot/state")["data"].clone();
    assert_eq!((&v["healthy"], &v["leader"]), (&json!(true), &json!("n1")));
    for wish in ["promote", "demote"] {
        set(&mut w, &format!("sys/storage/raft/{wish}"), json!({"server_id": "n2"}));
        assert_eq!(seen.borrow().last(), Some(&OwnerOp::Named(wish, json!({"server_id": "n2"}))));
        refused(post(&mut w, &format!("sys/storage/raft/{wish}"), json!({})), "no server id provided");
    }
    set(&mut w, "sys/storage/raft/remove-peer", json!({"server_id": "n2"}));
    assert_eq!(seen.borrow().last(), Some(&OwnerOp::Named("remove-peer", json!({"server_id": "n2"}))));
    refused(post(&mut w, "sys/storage/raft/remove-peer", json!({})), "no server id provided");
}

#[test]
fn snapshots() {
    let mut w = world();
    let seen = owner(&mut w);
    let root_token = w.root.clone();
    let call = w.blank(Operation::Read, "sys/storage/raft/snapshot", &root_token, Value::Null);
    let reply = w.send(call);
    let Body::Raw(raw) = reply.body else { panic!("a file") };
    assert_eq!(
        (reply.code, raw.content_type.as_str(), &raw.body[..]),
        (Code::Ok, "application/gzip", &b"archive"[..])
    );
    assert!(
        raw.headers.iter().any(|(n, v)| n == "Content-Disposition" && v.contains("attachment; filename=\"test-"))
    );
    assert!(raw.headers.contains(&("X-Content-Type-Options".into(), "nosniff".into())));
    refused(post(&mut w, "sys/storage/raft/snapshot", Value::Null), "no snapshot in the request body");
    for (path, force) in [("sys/storage/raft/snapshot", false), ("sys/storage/raft/snapshot-force", true)] {
        let mut call = w.blank(Operation::Update, path, &root_token, Value::Null);
        call.raw_body = Some(Arc::new(b"bytes".to_vec()));
        assert_eq!(w.send(call).code, Code::NoContent);
        let archive = Arc::new(b"bytes".to_vec());
        assert_eq!(seen.borrow().last(), Some(&OwnerOp::SnapshotRestore { archive, force }));
    }
}

#[test]
fn autopilot_rules() {
    let mut w = world();
    let v = get(&mut w, "sys/storage/raft/autopilot/configuration");
    assert_eq!(
        v["data"],
        json!({
            "cleanup_dead_servers": false, "last_contact_threshold": "10s",
            "dead_server_last_contact_threshold": "24h0m0s", "max_trailing_logs": 1000, "min_quorum": 0,
            "server_stabilization_time": "10s", "disable_upgrade_migration": false,
        })
    );
    let path = "sys/storage/raft/autopilot/configuration";
    set(&mut w, path, json!({"cleanup_dead_servers": true, "min_quorum": 3, "last_contact_threshold": "5s"}));
    let v = get(&mut w, path)["data"].clone();
    assert_eq!((&v["min_quorum"], &v["last_contact_threshold"]), (&json!(3), &json!("5s")));
    refused(
        post(&mut w, path, json!({"min_quorum": 0})),
        "min_quorum must be set when cleanup_dead_servers is set and it should at least be 3; \
         cleanup_dead_servers: true, min_quorum: 0x0",
    );
    refused(
        post(&mut w, path, json!({"dead_server_last_contact_threshold": "30s"})),
        "dead_server_last_contact_threshold should not be set to less than 1m; received: 30s",
    );
}

#[test]
fn versions_and_counts() {
    let mut w = world();
    let (_, v) = list(&mut w, "sys/version-history/");
    assert_eq!(v["data"]["keys"], json!([crate::host::API_VERSION]));
    let now = w.now;
    assert!(w.write(|txn, _| crate::sys::note_version(txn, now, "1.18.0", "2027-01-01T00:00:00Z").expect("writes")));
    assert!(!w.write(|txn, _| crate::sys::note_version(txn, now, "1.18.0", "").expect("reads")));
    let (_, v) = list(&mut w, "sys/version-history/");
    assert_eq!(v["data"]["key_info"]["1.18.0"]["previous_version"], crate::host::API_VERSION);
    assert_eq!(v["data"]["key_info"]["1.18.0"]["build_date"], "2027-01-01T00:00:00Z");

    assert_eq!(
        get(&mut w, "sys/internal/counters/tokens")["data"],
        json!({"counters": {"service_tokens": {"total": 1}}})
    );
    w.post("auth/door/login/ann", "", json!({}));
    assert_eq!(get(&mut w, "sys/internal/counters/tokens")["data"]["counters"]["service_tokens"]["total"], 2);
    assert_eq!(
        get(&mut w, "sys/internal/counters/entities")["data"],
        json!({"counters": {"entities": {"total": 1}}})
    );
    let (code, v) = root(&mut w, Operation::Read, "sys/internal/counters/requests", Value::Null);
    assert_eq!((code, error_of(&v)), (Code::NotFound, "functionality on this path has been removed"));
}

#[test]
fn what_there_is_not() {
    let mut w = world();
    let (code, v) = w.get("sys/replication/status", "");
    assert_eq!(code, Code::Ok);
    assert_eq!(v["data"], json!({"dr": {"mode": "disabled"}, "performance": {"mode": "disabled"}}));
    assert_eq!(w.get("sys/replication/dr/status", "").1["data"]["mode"], "disabled");
    for path in ["sys/license/status", "sys/pprof", "sys/managed-keys", "sys/experiments"] {
        let (code, v) = root(&mut w, Operation::Read, path, Value::Null);
        assert_eq!((code, error_of(&v)), (Code::NotFound, "1 error occurred:\n\t* unsupported path\n\n"), "{path}");
    }
    absent(list(&mut w, "sys/namespaces/"));
    absent(root(&mut w, Operation::Read, "sys/namespaces/a", Value::Null));
    assert_eq!(get(&mut w, "sys/internal/ui/namespaces")["data"], json!({"keys": []}));
    assert_eq!(w.get("sys/internal/ui/feature-flags", "").1, json!({"feature_flags": []}));
}

#[test]
fn the_catalogue() {
    let mut w = world();
    let v = get(&mut w, "sys/plugins/catalog")["data"].clone();
    assert_eq!(v["secret"], json!(["kv", "lab"]));
    assert_eq!(v["auth"], json!(["door", "userpass"]));
    assert_eq!(v["database"], json!([]));
    assert_eq!(v["detailed"].as_array().expect("list").len(), 4);
    assert_eq!(list(&mut w, "sys/plugins/catalog/secret/").1["data"]["keys"], json!(["kv", "lab"]));
    absent(list(&mut w, "sys/plugins/catalog/database/"));
    assert_eq!(get(&mut w, "sys/plugins/catalog/auth/userpass")["data"]["builtin"], true);
    absent(root(&mut w, Operation::Read, "sys/plugins/catalog/auth/kv", Value::Null));
    assert_eq!(post(&mut w, "sys/plugins/catalog/secret/x", json!({"sha256": "0"})).0, Code::Invalid);
    assert_eq!(root(&mut w, Operation::Read, "sys/plugins/catalog/x/y", Value::Null).0, Code::Invalid);
}

#[test]
fn the_cluster_is_named_once() {
    let w = world();
    let (facts, again) = w.read(|txn, _| {
        let again = crate::sys::first_records(txn, &mut ringfence_base::entropy::SeededEntropy(1), w.now, None);
        (crate::sys::cluster_facts(txn).expect("facts"), again)
    });
    assert_eq!((facts.name.as_str(), facts.id.len()), ("test", 36));
    assert_eq!(again.expect_err("refused").errors[0], "Vault is already initialized");
}
