//! Quotas through the pipeline of a node in memory.

use crate::testing::{World, error_of, told};
use ringfence_base::Code;
use ringfence_logical::Operation::{self, Delete, List, Read, Update};
use serde_json::{Value, json};

fn root(w: &mut World, op: Operation, path: &str, data: Value) -> (Code, Value) {
    let token = w.root.clone();
    w.call(op, path, &token, data)
}

fn quota(w: &mut World, path: &str, data: Value) {
    let (code, v) = root(w, Update, &format!("sys/quotas/{path}"), data);
    assert_eq!(code, Code::NoContent, "{v}");
}

/// How many of so many requests pass.
fn passed(w: &mut World, path: &str, n: usize) -> usize {
    let token = w.root.clone();
    (0..n).filter(|_| w.get(path, &token).0 != Code::Quota).count()
}

#[test]
fn rules_are_kept_and_shown() {
    let mut w = World::new();
    assert_eq!(root(&mut w, List, "sys/quotas/rate-limit/", json!(null)).0, Code::NotFound);
    quota(&mut w, "rate-limit/g", json!({"rate": 100.5, "interval": "2m", "block_interval": 30}));
    quota(&mut w, "rate-limit/m", json!({"path": "lab", "rate": "5", "group_by": "none"}));
    let (_, v) = root(&mut w, Read, "sys/quotas/rate-limit/g", json!(null));
    let d = &v["data"];
    assert_eq!((&d["rate"], &d["interval"], &d["block_interval"]), (&json!(100.5), &json!(120), &json!(30)));
    assert_eq!((&d["type"], &d["path"], &d["inheritable"]), (&json!("rate-limit"), &json!(""), &json!(true)));
    let (_, v) = root(&mut w, Read, "sys/quotas/rate-limit/m", json!(null));
    assert_eq!((&v["data"]["path"], &v["data"]["group_by"]), (&json!("lab/"), &json!("none")));
    let (_, v) = root(&mut w, List, "sys/quotas/rate-limit/", json!(null));
    assert_eq!(v["data"]["keys"], json!(["g", "m"]));
    for (path, body, why) in [
        ("rate-limit/x", json!({"rate": 0}), "'rate' is invalid"),
        ("rate-limit/x", json!({"rate": -1}), "'rate' is invalid"),
        ("rate-limit/x", json!({"rate": 1, "path": "none/"}), "invalid mount path \"none/\""),
        ("rate-limit/x", json!({"rate": 1}), "quota rule with similar properties exists under the name \"g\""),
        ("rate-limit/x", json!({"rate": 1, "path": "lab", "inheritable": true}), "inheritable"),
        ("rate-limit/x", json!({"rate": 1, "path": "lab", "role": "r"}), "auth method"),
        ("rate-limit/x", json!({"rate": 1, "path": "auth/door", "group_by": "moon"}), "'group_by' is invalid"),
        ("lease-count/x", json!({"max_leases": 0}), "'max_leases' is invalid"),
    ] {
        let (code, v) = root(&mut w, Update, &format!("sys/quotas/{path}"), body);
        assert!(code == Code::Invalid && error_of(&v).contains(why), "{v}");
    }
    // it follows its mount
    root(&mut w, Update, "sys/remount", json!({"from": "lab", "to": "lab2"}));
    let (_, v) = root(&mut w, Read, "sys/quotas/rate-limit/m", json!(null));
    assert_eq!(v["data"]["path"], "lab2/");
    // and goes with it
    root(&mut w, Delete, "sys/mounts/lab2", json!(null));
    w.work();
    assert_eq!(root(&mut w, Read, "sys/quotas/rate-limit/m", json!(null)).0, Code::NotFound);
    assert_eq!(root(&mut w, Delete, "sys/quotas/rate-limit/g", json!(null)).0, Code::NoContent);
    assert_eq!(root(&mut w, Read, "sys/quotas/rate-limit/g", json!(null)).0, Code::NotFound);
}

#[test]
fn the_most_specific_limit_speaks() {
    let mut w = World::new();
    quota(&mut w, "rate-limit/g", json!({"rate": 6}));
    quota(&mut w, "rate-limit/m", json!({"path": "lab/", "rate": 4}));
    quota(&mut w, "rate-limit/p", json!({"path": "lab/creds/*", "rate": 2}));
    w.sleep(1);
    assert_eq!(passed(&mut w, "lab/creds/plain", 9), 2);
    assert_eq!(passed(&mut w, "lab/other", 9), 4);
    assert_eq!(passed(&mut w, "sys/mounts", 9), 6);
    w.sleep(1);
    assert_eq!(passed(&mut w, "lab/creds/plain", 9), 2, "the next interval");
    root(&mut w, Delete, "sys/quotas/rate-limit/p", json!(null));
    w.sleep(1);
    assert_eq!(passed(&mut w, "lab/creds/plain", 9), 4);
}

#[test]
fn a_refusal_says_when_to_come_again() {
    let mut w = World::new();
    quota(&mut w, "config", json!({"enable_rate_limit_response_headers": true}));
    quota(&mut w, "rate-limit/m", json!({"path": "lab/", "rate": 1, "interval": "10s", "block_interval": "1m"}));
    let root_token = w.root.clone();
    let call = w.blank(Read, "lab/none", &root_token, json!(null));
    let reply = w.send(call);
    let header = |r: &crate::call::Reply, n: &str| {
        r.headers.iter().find(|(k, _)| *k == n).map(|(_, v)| v.clone()).unwrap_or_default()
    };
    assert_eq!(
        (header(&reply, "x-ratelimit-limit"), header(&reply, "x-ratelimit-remaining")),
        ("1".into(), "0".into())
    );
    assert_eq!(header(&reply, "retry-after"), "");
    let call = w.blank(Read, "lab/none", &root_token, json!(null));
    let reply = w.send(call);
    assert_eq!(header(&reply, "retry-after"), "60");
    assert!(header(&reply, "x-ratelimit-reset").parse::<u64>().unwrap() > 0);
    let (code, v) = told(reply);
    assert_eq!((code, error_of(&v)), (Code::Quota, "request path \"lab/none\": rate limit quota exceeded"));
    // another address counts for itself
    let mut call = w.blank(Read, "lab/none", &root_token, json!(null));
    call.remote = Some("10.9.9.9".parse().unwrap());
    assert_ne!(told(w.send(call)).0, Code::Quota);
    w.sleep(59);
    assert_eq!(passed(&mut w, "lab/none", 1), 0, "blocked");
    w.sleep(10);
    assert_eq!(passed(&mut w, "lab/none", 1), 1);
}

#[test]
fn who_operates_gets_through_and_a_token_is_not_looked_at_first() {
    let mut w = World::new();
    quota(&mut w, "rate-limit/g", json!({"rate": 1}));
    let exempt = json!({"rate_limit_exempt_paths": ["sys/mounts", "sys/quotas"]});
    w.sleep(1);
    quota(&mut w, "config", exempt);
    assert_eq!(passed(&mut w, "sys/mounts", 5), 5);
    w.sleep(1);
    let codes: Vec<Code> = (0..3).map(|_| w.get("lab/x", "no token at all").0).collect();
    assert_eq!(codes, [Code::Denied, Code::Quota, Code::Quota]);
}

#[test]
fn entities_count_for_themselves() {
    let mut w = World::new();
    let login = |w: &mut World, who: &str| {
        let (_, v) = w.post(&format!("auth/door/login/{who}"), "", json!({"policies": ["default"]}));
        v["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let (a, b) = (login(&mut w, "a"), login(&mut w, "b"));
    quota(
        &mut w,
        "rate-limit/t",
        json!({
            "path": "auth/token", "rate": 3, "group_by": "entity_then_ip", "secondary_rate": 1
        }),
    );
    w.sleep(1);
    for t in [&a, &b] {
        let n = (0..5).filter(|_| w.get("auth/token/lookup-self", t).0 == Code::Ok).count();
        assert_eq!(n, 3);
    }
    let n = (0..5).filter(|_| w.get("auth/token/lookup-self", "nobody").0 != Code::Quota).count();
    assert_eq!(n, 1);
}

#[test]
fn a_role_has_its_own_limit() {
    let mut w = World::new();
    quota(&mut w, "rate-limit/d", json!({"path": "auth/door", "rate": 4}));
    quota(&mut w, "rate-limit/r", json!({"path": "auth/door", "rate": 2, "role": "batch-job"}));
    w.sleep(1);
    let mut n = |role: &str| {
        let body = json!({"policies": ["default"], "role": role});
        (0..6).filter(|_| w.post("auth/door/login/x", "", body.clone()).0 == Code::Ok).count()
    };
    assert_eq!((n("batch-job"), n("other")), (2, 4));
}

#[test]
fn leases_are_limited_by_what_stands() {
    let mut w = World::new();
    let exceeded = "1 error occurred:\n\t* request path \"lab/creds/plain\": lease count quota exceeded\n\n";
    root(&mut w, Read, "lab/creds/plain", json!(null));
    // one stands before the quota does
    quota(&mut w, "lease-count/l", json!({"path": "lab", "max_leases": 3}));
    for _ in 0..2 {
        assert_eq!(root(&mut w, Read, "lab/creds/plain", json!(null)).0, Code::Ok);
    }
    let (code, v) = root(&mut w, Read, "lab/creds/plain", json!(null));
    assert_eq!((code, error_of(&v)), (Code::Quota, exceeded));
    let (_, v) = root(&mut w, Read, "sys/quotas/lease-count/l", json!(null));
    assert_eq!((&v["data"]["counter"], &v["data"]["max_leases"]), (&json!(3), &json!(3)));
    // a crash forgets nothing: nothing was remembered
    w.restart();
    assert_eq!(root(&mut w, Read, "lab/creds/plain", json!(null)).0, Code::Quota);
    root(&mut w, Update, "sys/leases/revoke-prefix/lab", json!({}));
    w.work();
    assert_eq!(root(&mut w, Read, "lab/creds/plain", json!(null)).0, Code::Ok);
}

#[test]
fn two_that_would_both_be_the_last_are_not_both_committed() {
    let mut w = World::new();
    quota(&mut w, "lease-count/l", json!({"path": "lab", "max_leases": 1}));
    let view = w.version();
    let token = w.root.clone();
    let calls: Vec<_> = (0..2).map(|_| w.blank(Read, "lab/creds/plain", &token, json!(null))).collect();
    let done: Vec<bool> = calls
        .into_iter()
        .map(|c| {
            let finished = w.run_at(&view, c);
            w.commit(finished)
        })
        .collect();
    assert_eq!(done, [true, false]);
}

#[test]
fn service_tokens_count_and_batch_tokens_do_not() {
    let mut w = World::new();
    quota(&mut w, "lease-count/d", json!({"path": "auth/door", "max_leases": 2}));
    let mut login = |kind: &str| w.post("auth/door/login/x", "", json!({"policies": ["default"], "type": kind})).0;
    assert_eq!([(); 3].map(|()| login("service")), [Code::Ok, Code::Ok, Code::Quota]);
    assert_eq!(login("batch"), Code::Ok);
    let (_, v) = root(&mut w, Read, "sys/quotas/lease-count/d", json!(null));
    assert_eq!(v["data"]["counter"], 2);
    // other mounts are not meant; a namespace is all of its mounts
    let r = w.root.clone();
    w.token(&r, json!({}));
    root(&mut w, Update, "sys/namespaces/a", json!({}));
    quota(&mut w, "lease-count/a", json!({"path": "a/", "max_leases": 1}));
    let mut make = || {
        let mut call = w.blank(Update, "auth/token/create", &r, json!({"policies": ["default"]}));
        call.namespace = Some("a".into());
        told(w.send(call)).0
    };
    assert_eq!((make(), make()), (Code::Ok, Code::Quota));
}

#[test]
fn namespaces_inherit_what_says_so() {
    let mut w = World::new();
    for ns in ["a", "a/b"] {
        root(&mut w, Update, &format!("sys/namespaces/{ns}"), json!({}));
    }
    quota(&mut w, "rate-limit/a", json!({"path": "a", "rate": 2}));
    w.sleep(1);
    assert_eq!((passed(&mut w, "a/sys/mounts", 5), passed(&mut w, "a/b/sys/mounts", 5)), (2, 5));
    quota(&mut w, "rate-limit/a", json!({"path": "a", "rate": 2, "inheritable": true}));
    w.sleep(1);
    assert_eq!(passed(&mut w, "a/b/sys/mounts", 5), 2);
    quota(&mut w, "rate-limit/b", json!({"path": "a/b", "rate": 3}));
    w.sleep(1);
    assert_eq!(passed(&mut w, "a/b/sys/mounts", 5), 3);
}
