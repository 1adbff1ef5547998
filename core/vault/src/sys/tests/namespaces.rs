//! Namespaces through the pipeline of a node in memory: life, addressing, locks, moves, deletion to the last row.

use crate::testing::{World, error_of, told};
use ringfence_base::Code;
use ringfence_logical::Operation::{self, Delete, List, Patch, Read, Scan, Update};
use serde_json::{Value, json};

/// Sends a request to a namespace by its header.
fn at(w: &mut World, ns: &str, op: Operation, path: &str, token: &str, data: Value) -> (Code, Value) {
    let mut call = w.blank(op, path, token, data);
    call.namespace = Some(ns.to_owned());
    told(w.send(call))
}

/// As root.
fn root(w: &mut World, ns: &str, op: Operation, path: &str, data: Value) -> (Code, Value) {
    let token = w.root.clone();
    at(w, ns, op, path, &token, data)
}

fn make(w: &mut World, path: &str) -> Value {
    let (code, v) = root(w, "", Update, &format!("sys/namespaces/{path}"), json!({}));
    assert_eq!(code, Code::Ok, "{v}");
    v["data"].clone()
}

/// A token made in a namespace by root.
fn token_in(w: &mut World, ns: &str, policies: &[&str]) -> (String, String) {
    let body = json!({"policies": policies, "no_parent": true});
    let (code, v) = root(w, ns, Update, "auth/token/create", body);
    assert_eq!(code, Code::Ok, "{v}");
    let text = |k: &str| v["auth"][k].as_str().unwrap().to_owned();
    (text("client_token"), text("accessor"))
}

fn policy_in(w: &mut World, ns: &str, name: &str, text: &str) {
    let (code, v) = root(w, ns, Update, &format!("sys/policies/acl/{name}"), json!({ "policy": text }));
    assert_eq!(code, Code::NoContent, "{v}");
}

const ALL: &str =
    r#"path "*" { capabilities = ["create", "read", "update", "delete", "list", "patch", "scan", "sudo"] }"#;

#[test]
fn make_show_change_list() {
    let mut w = World::new();
    assert_eq!(root(&mut w, "", List, "sys/namespaces/", json!(null)).0, Code::NotFound);
    let (code, v) = root(&mut w, "", Update, "sys/namespaces/a", json!({"custom_metadata": {"team": "x"}}));
    assert_eq!(code, Code::Ok, "{v}");
    let a = v["data"].clone();
    assert_eq!((&a["path"], &a["custom_metadata"]), (&json!("a/"), &json!({"team": "x"})));
    assert_eq!(a["id"].as_str().unwrap().len(), 5);
    assert_eq!((&a["locked"], &a["tainted"]), (&json!(false), &json!(false)));
    // again is no error and changes what is given
    let (_, again) = root(&mut w, "", Update, "sys/namespaces/a", json!({}));
    assert_eq!(again["data"], a);
    make(&mut w, "a/b");
    let (code, v) = root(&mut w, "a", Update, "sys/namespaces/c", json!({}));
    assert_eq!((code, &v["data"]["path"]), (Code::Ok, &json!("a/c/")));
    make(&mut w, "z");
    let keys =
        |w: &mut World, ns: &str, op, q: Value| root(w, ns, op, "sys/namespaces/", q).1["data"]["keys"].clone();
    assert_eq!(keys(&mut w, "", List, json!(null)), json!(["a/", "z/"]));
    assert_eq!(keys(&mut w, "a", List, json!(null)), json!(["b/", "c/"]));
    assert_eq!(keys(&mut w, "", Scan, json!(null)), json!(["a/", "a/b/", "a/c/", "z/"]));
    assert_eq!(keys(&mut w, "", List, json!({"after": "a"})), json!(["z/"]));
    assert_eq!(keys(&mut w, "", Scan, json!({"after": "a/", "limit": "2"})), json!(["a/b/", "a/c/"]));
    let (_, v) = root(&mut w, "", List, "sys/namespaces/", json!(null));
    assert_eq!(v["data"]["key_info"]["a/"]["id"], a["id"]);
    let patch = json!({"custom_metadata": {"team": null, "cost": "7"}});
    let (code, v) = root(&mut w, "", Patch, "sys/namespaces/a", patch);
    assert_eq!((code, &v["data"]["custom_metadata"]), (Code::Ok, &json!({"cost": "7"})));
    let (_, v) = root(&mut w, "", Read, "sys/namespaces/a/b", json!(null));
    assert_eq!(v["data"]["path"], "a/b/");
    assert_eq!(root(&mut w, "", Read, "sys/namespaces/none", json!(null)).0, Code::NotFound);
    assert_eq!(root(&mut w, "", Patch, "sys/namespaces/none", json!({})).0, Code::NotFound);
    let (_, v) = root(&mut w, "", Read, "sys/internal/ui/namespaces", json!(null));
    assert_eq!(v["data"]["keys"], json!(["a/", "z/"]));
}

#[test]
fn what_a_new_namespace_holds() {
    let mut w = World::new();
    make(&mut w, "a");
    let (_, v) = root(&mut w, "a", Read, "sys/mounts", json!(null));
    let mounts = v["data"].as_object().unwrap();
    assert_eq!(mounts.keys().collect::<Vec<_>>(), ["cubbyhole/", "identity/", "sys/"]);
    assert_eq!(mounts["sys/"]["type"], "ns_system");
    assert!(mounts["sys/"]["accessor"].as_str().unwrap().starts_with("ns_system_"));
    let (_, v) = root(&mut w, "a", Read, "sys/auth", json!(null));
    assert_eq!(v["data"]["token/"]["type"], "ns_token");
    let (_, v) = root(&mut w, "a", List, "sys/policies/acl/", json!(null));
    assert_eq!(v["data"]["keys"], json!(["default"]));
}

#[test]
fn refusals() {
    let mut w = World::new();
    make(&mut w, "a");
    for (path, why) in [
        ("root", "reserved"),
        ("SYS", "reserved"),
        ("a b", "spaces"),
        ("x*", "not allowed"),
        ("none/b", "parent namespace \"none/\" does not exist"),
        ("lab", "path is already in use at lab/"),
    ] {
        let (code, v) = root(&mut w, "", Update, &format!("sys/namespaces/{path}"), json!({}));
        assert!(code == Code::Invalid && error_of(&v).contains(why), "{path}: {v}");
    }
    let (code, v) = root(&mut w, "", Update, "sys/namespaces/b", json!({"custom_metadata": {"n": 1}}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "custom_metadata values must be strings"));
    let (code, v) = root(&mut w, "", Update, "sys/mounts/a/kv", json!({"type": "lab"}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "path is already in use at a/"));
    let (code, v) = root(&mut w, "none", Read, "sys/mounts", json!(null));
    assert_eq!((code, error_of(&v)), (Code::NotFound, "namespace not found"));
    // what the machine has once is not in a tenant's hands, whoever asks
    for (op, path) in [
        (Update, "sys/rotate"),
        (Update, "sys/seal"),
        (Read, "sys/audit"),
        (Read, "sys/config/cors"),
        (Read, "sys/key-status"),
        (Read, "sys/metrics"),
        (Read, "sys/quotas/config"),
        (Update, "sys/quotas/rate-limit/x"),
        (Read, "sys/storage/raft/configuration"),
    ] {
        for token in [w.root.clone(), String::new()] {
            let (code, v) = at(&mut w, "a", op, path, &token, json!(null));
            assert_eq!((code, error_of(&v)), (Code::Invalid, "operation unavailable in namespaces"), "{path}");
        }
    }
    make(&mut w, "a/b");
    let (code, v) = root(&mut w, "", Delete, "sys/namespaces/a", json!(null));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "cannot delete namespace (\"a/\") containing child namespaces"));
    let (code, v) = root(&mut w, "", Delete, "sys/namespaces/none", json!(null));
    assert_eq!((code, &v["warnings"][0]), (Code::Ok, &json!("requested namespace does not exist")));
}

#[test]
fn header_and_path_name_a_namespace_together() {
    let mut w = World::new();
    make(&mut w, "a");
    make(&mut w, "a/b");
    let secret = root(&mut w, "a/b", Read, "sys/mounts/cubbyhole", json!(null)).1["data"]["uuid"].clone();
    for (header, path) in [
        ("a/b", "sys/mounts/cubbyhole"),
        ("/a/b/", "sys/mounts/cubbyhole"),
        ("a", "b/sys/mounts/cubbyhole"),
        ("", "a/b/sys/mounts/cubbyhole"),
        ("root", "a/b/sys/mounts/cubbyhole"),
    ] {
        let (code, v) = root(&mut w, header, Read, path, json!(null));
        assert_eq!((code, &v["data"]["uuid"]), (Code::Ok, &secret), "{header} {path}");
    }
}

#[test]
fn tokens_reach_their_own_namespace_and_what_their_policies_name_below() {
    let mut w = World::new();
    make(&mut w, "a");
    make(&mut w, "a/b");
    make(&mut w, "z");
    policy_in(&mut w, "a", "all", ALL);
    let (t, _) = token_in(&mut w, "a", &["all"]);
    assert!(t.starts_with("hvs.") && t.matches('.').count() == 2, "{t}");
    for (ns, want) in [("a", Code::Ok), ("a/b", Code::Ok), ("", Code::Denied), ("z", Code::Denied)] {
        assert_eq!(at(&mut w, ns, Read, "sys/mounts", &t, json!(null)).0, want, "{ns}");
    }
    let (_, v) = at(&mut w, "a", Read, "auth/token/lookup-self", &t, json!(null));
    assert_eq!(v["data"]["namespace_path"], "a/");
    // a policy of root that names a path in a namespace reaches it
    w.policy("into", r#"path "a/sys/mounts" { capabilities = ["read"] }"#);
    let r = w.root.clone();
    let t = w.token(&r, json!({"policies": ["into"]}));
    for (ns, want) in [("a", Code::Ok), ("a/b", Code::Denied), ("", Code::Denied)] {
        assert_eq!(at(&mut w, ns, Read, "sys/mounts", &t, json!(null)).0, want, "{ns}");
    }
    // the root policy is root's alone
    let (code, v) = root(&mut w, "a", Update, "auth/token/create", json!({"policies": ["root"]}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "root tokens may not be created from a non-root namespace"));
}

/// An id of another tenant's, learnt somehow, was enough to revoke his lease or token: the policies of the caller's
/// own namespace were asked.
#[test]
fn cve_2026_40264_ids_of_another_namespace_are_worth_nothing() {
    let mut w = World::new();
    for ns in ["a", "z"] {
        make(&mut w, ns);
        policy_in(&mut w, ns, "all", ALL);
        let (code, v) = root(&mut w, ns, Update, "sys/mounts/lab", json!({"type": "lab"}));
        assert_eq!(code, Code::NoContent, "{v}");
    }
    let (mine, _) = token_in(&mut w, "z", &["all"]);
    let (victim, accessor) = token_in(&mut w, "a", &["all"]);
    let (code, v) = at(&mut w, "a", Read, "lab/creds/plain", &victim, json!(null));
    assert_eq!(code, Code::Ok, "{v}");
    let lease = v["lease_id"].as_str().unwrap().to_owned();
    let r = w.root.clone();
    let (_, v) = w.post("auth/token/create", &r, json!({}));
    let root_accessor = v["auth"]["accessor"].clone();
    let before = w.image_keys();
    for ns in ["z", "", "a"] {
        for (path, body) in [
            ("sys/leases/lookup", json!({"lease_id": lease})),
            ("sys/leases/renew", json!({"lease_id": lease})),
            ("sys/leases/revoke", json!({"lease_id": lease})),
            ("sys/revoke", json!({"lease_id": lease})),
            ("sys/leases/revoke-prefix/lab", json!({})),
            ("auth/token/lookup-accessor", json!({"accessor": accessor})),
            ("auth/token/revoke-accessor", json!({"accessor": accessor})),
            ("auth/token/revoke", json!({"token": victim})),
            ("auth/token/lookup", json!({"token": victim})),
        ] {
            if path.contains("prefix") && ns == "z" {
                continue;
            }
            let (code, v) = at(&mut w, ns, Update, path, &mine, body);
            assert_eq!(code, Code::Denied, "{ns} {path} {v}");
        }
        let (code, _) = at(&mut w, ns, Update, &format!("sys/leases/revoke/{lease}"), &mine, json!({}));
        assert_eq!(code, Code::Denied);
    }
    // nor does the accessor of a root-namespace token, which names no namespace
    let (code, v) = at(&mut w, "z", Update, "auth/token/lookup-accessor", &mine, json!({"accessor": root_accessor}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "invalid accessor"));
    let (code, _) =
        at(&mut w, "z", Update, "sys/capabilities-accessor", &mine, json!({"accessor": accessor, "paths": ["x"]}));
    assert_eq!(code, Code::Invalid);
    assert_eq!(w.image_keys(), before, "nothing changed");
    // who may do it over there may do it from anywhere
    let (code, v) = root(&mut w, "z", Update, "sys/leases/lookup", json!({"lease_id": lease}));
    assert_eq!((code, &v["data"]["id"]), (Code::Ok, &json!(lease)));
    let (code, _) = root(&mut w, "", Update, "auth/token/revoke-accessor", json!({"accessor": accessor}));
    assert_eq!(code, Code::NoContent);
    assert_eq!(at(&mut w, "a", Read, "auth/token/lookup-self", &victim, json!(null)).0, Code::Denied);
}

#[test]
fn a_locked_namespace_answers_its_unlocking_only() {
    let mut w = World::new();
    make(&mut w, "a");
    make(&mut w, "a/b");
    policy_in(&mut w, "a", "op", r#"path "sys/namespaces/*" { capabilities = ["create", "update"] }"#);
    let (t, _) = token_in(&mut w, "a", &["op"]);
    let (code, v) = root(&mut w, "", Update, "sys/namespaces/api-lock/lock/a", json!({}));
    let key = v["data"]["unlock_key"].as_str().unwrap().to_owned();
    assert_eq!((code, key.len()), (Code::Ok, 24));
    for ns in ["a", "a/b"] {
        let (code, v) = root(&mut w, ns, Read, "sys/mounts", json!(null));
        let text = "API access to this namespace has been locked by an administrator - \"a/\" must be unlocked to gain \
                    access.";
        assert_eq!((code, error_of(&v)), (Code::Unavailable, text), "{ns}");
    }
    let (_, v) = root(&mut w, "", Read, "sys/namespaces/a", json!(null));
    assert_eq!(v["data"]["locked"], true);
    assert_eq!(root(&mut w, "", Update, "sys/namespaces/api-lock/lock/a", json!({})).0, Code::Invalid);
    let (code, v) = at(&mut w, "a", Update, "sys/namespaces/api-lock/unlock", &t, json!({"unlock_key": "wrong"}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "incorrect unlock key"));
    let (code, _) = at(&mut w, "a", Update, "sys/namespaces/api-lock/unlock", &t, json!({}));
    assert_eq!(code, Code::Invalid);
    let (code, v) = at(&mut w, "a", Update, "sys/namespaces/api-lock/unlock", &t, json!({"unlock_key": key}));
    assert_eq!(code, Code::NoContent, "{v}");
    assert_eq!(root(&mut w, "a/b", Read, "sys/mounts", json!(null)).0, Code::Ok);
    // sudo needs no key
    root(&mut w, "a", Update, "sys/namespaces/api-lock/lock", json!({}));
    let (code, v) = root(&mut w, "a", Update, "sys/namespaces/api-lock/unlock", json!({}));
    assert_eq!((code, &v["warnings"][0]), (Code::Ok, &json!("Namespace unlocked using sudo capabilities")));
    let (code, v) = root(&mut w, "", Update, "sys/namespaces/api-lock/lock", json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "root namespace cannot be locked"));
}

/// Unlocking what was not locked stopped the server (GHSA-8w8f).
#[test]
fn ghsa_8w8f_unlocking_the_unlocked_is_a_plain_refusal() {
    let mut w = World::new();
    make(&mut w, "a");
    for body in [json!({}), json!({"unlock_key": "x"}), json!({"unlock_key": ""})] {
        let (code, v) = root(&mut w, "", Update, "sys/namespaces/api-lock/unlock/a", body);
        assert_eq!((code, error_of(&v)), (Code::Invalid, "namespace \"a/\" is not locked"));
    }
}

/// Leases outlived their namespace (CVE-2026-45808 and its like), and so did tokens and secrets.
#[test]
fn cve_2026_45808_a_deleted_namespace_leaves_nothing_behind() {
    let mut w = World::new();
    // whatever counts for ever is drawn once before the comparison
    make(&mut w, "before");
    root(&mut w, "", Delete, "sys/namespaces/before", json!(null));
    w.work();
    let empty = w.image_keys();
    make(&mut w, "a");
    policy_in(&mut w, "a", "all", ALL);
    root(&mut w, "a", Update, "sys/mounts/lab", json!({"type": "lab"}));
    root(&mut w, "a", Update, "sys/auth/door", json!({"type": "door"}));
    root(&mut w, "", Update, "sys/quotas/rate-limit/q", json!({"path": "a/", "rate": 1e6}));
    root(&mut w, "", Update, "sys/quotas/lease-count/q", json!({"path": "a/lab", "max_leases": 100}));
    let (t, _) = token_in(&mut w, "a", &["all"]);
    let (code, v) = at(&mut w, "a", Update, "auth/door/login/bob", "", json!({"policies": ["all"]}));
    assert_eq!(code, Code::Ok, "{v}");
    let bob = v["auth"]["client_token"].as_str().unwrap().to_owned();
    let (_, v) = at(&mut w, "a", Update, "auth/token/create", &t, json!({"type": "batch", "ttl": "1h"}));
    let batch = v["auth"]["client_token"].as_str().unwrap().to_owned();
    let r = w.root.clone();
    let mut call = w.blank(Update, "sys/wrapping/wrap", &r, json!({"x": 1}));
    (call.namespace, call.wrap_ttl) = (Some("a".into()), 60);
    let (code, _) = told(w.send(call));
    assert_eq!(code, Code::Ok);
    at(&mut w, "a", Update, "auth/token/roles/r", &t, json!({"allowed_policies": "x"}));
    for role in ["plain", "outside"] {
        for token in [&t, &bob] {
            assert_eq!(at(&mut w, "a", Read, &format!("lab/creds/{role}"), token, json!(null)).0, Code::Ok);
        }
    }
    w.outside = Box::new(|_| ringfence_logical::SideResult::Json(json!({})));
    let (code, v) = root(&mut w, "", Delete, "sys/namespaces/a", json!(null));
    assert_eq!((code, &v["data"]["status"]), (Code::Ok, &json!("in-progress")));
    // dead from the answer on, whatever the worker has done
    for token in [&t, &bob, &batch] {
        for ns in ["a", ""] {
            let (code, _) = at(&mut w, ns, Read, "auth/token/lookup-self", token, json!(null));
            assert!(matches!(code, Code::NotFound | Code::Denied), "{code:?}");
        }
    }
    let (_, v) = root(&mut w, "", Read, "sys/namespaces/a", json!(null));
    assert_eq!(v["data"]["tainted"], true);
    let (code, v) = root(&mut w, "", Update, "sys/namespaces/a", json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "namespace with that name exists and is currently tainted"));
    w.work();
    assert_eq!(w.image_keys(), empty);
    assert_eq!(root(&mut w, "", Read, "sys/namespaces/a", json!(null)).0, Code::NotFound);
    // and the place is free
    make(&mut w, "a");
    assert_eq!(at(&mut w, "a", Read, "auth/token/lookup-self", &t, json!(null)).0, Code::Denied);
}

#[test]
fn a_lease_that_cannot_be_revoked_holds_its_namespace_until_it_is_forced() {
    let mut w = World::new();
    make(&mut w, "a");
    root(&mut w, "a", Update, "sys/mounts/lab", json!({"type": "lab"}));
    let (code, v) = root(&mut w, "a", Update, "lab/broken", json!({"value": true}));
    assert_eq!(code, Code::NoContent, "{v}");
    assert_eq!(root(&mut w, "a", Read, "lab/creds/broken", json!(null)).0, Code::Ok);
    root(&mut w, "", Delete, "sys/namespaces/a", json!(null));
    w.work();
    let (code, v) = root(&mut w, "", Read, "sys/namespaces/a", json!(null));
    assert_eq!((code, &v["data"]["tainted"]), (Code::Ok, &json!(true)));
    root(&mut w, "", Delete, "sys/namespaces/a", json!({"force": "true"}));
    w.work();
    assert_eq!(root(&mut w, "", Read, "sys/namespaces/a", json!(null)).0, Code::NotFound);
}

#[test]
fn a_mount_moves_between_namespaces() {
    let mut w = World::new();
    make(&mut w, "a");
    make(&mut w, "z");
    root(&mut w, "a", Update, "sys/mounts/lab", json!({"type": "lab"}));
    let (_, v) = root(&mut w, "a", Read, "lab/creds/plain", json!(null));
    let lease = v["lease_id"].as_str().unwrap().to_owned();
    let uuid = root(&mut w, "a", Read, "sys/mounts/lab", json!(null)).1["data"]["uuid"].clone();
    let (code, v) = root(&mut w, "", Update, "sys/remount", json!({"from": "a/lab", "to": "z/lab2"}));
    assert_eq!(code, Code::Ok, "{v}");
    let (_, v) = root(&mut w, "z", Read, "sys/mounts/lab2", json!(null));
    assert_eq!(v["data"]["uuid"], uuid);
    assert_eq!(root(&mut w, "a", Read, "sys/mounts/lab", json!(null)).0, Code::Invalid);
    assert_eq!(root(&mut w, "", Update, "sys/leases/lookup", json!({"lease_id": lease})).0, Code::Invalid);
    w.work();
    // the old namespace does not hold it any more: deleting it leaves the mount alone
    root(&mut w, "", Delete, "sys/namespaces/a", json!(null));
    w.work();
    assert_eq!(root(&mut w, "z", Read, "lab2/creds/plain", json!(null)).0, Code::Ok);
    // a namespace cannot reach outside itself
    policy_in(&mut w, "z", "all", ALL);
    let (t, _) = token_in(&mut w, "z", &["all"]);
    let (code, v) = at(&mut w, "z", Update, "sys/remount", &t, json!({"from": "lab2", "to": "../lab3"}));
    assert_eq!(code, Code::Invalid, "{v}");
}

#[test]
fn lists_in_pages_and_filtered_by_policy() {
    let mut w = World::new();
    for _ in 0..5 {
        let r = w.root.clone();
        w.get("lab/creds/plain", &r);
    }
    let all = root(&mut w, "", List, "sys/leases/lookup/lab/creds/plain/", json!(null)).1["data"]["keys"].clone();
    let all: Vec<String> = serde_json::from_value(all).unwrap();
    assert_eq!(all.len(), 5);
    let mut paged = Vec::new();
    loop {
        let after = paged.last().cloned().unwrap_or_default();
        let query = json!({"after": after, "limit": "2"});
        let (code, v) = root(&mut w, "", List, "sys/leases/lookup/lab/creds/plain/", query);
        if code == Code::NotFound {
            break;
        }
        let page: Vec<String> = serde_json::from_value(v["data"]["keys"].clone()).unwrap();
        assert!(page.len() <= 2);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let (_, v) = root(&mut w, "", Scan, "sys/leases/lookup/", json!({"limit": "3"}));
    let first: Vec<String> = all[..3].iter().map(|n| format!("lab/creds/plain/{n}")).collect();
    assert_eq!(v["data"]["keys"], json!(first));
    let (_, v) = root(&mut w, "", Scan, "sys/leases/lookup/", json!({"after": first[2]}));
    assert_eq!(v["data"]["keys"].as_array().unwrap().len(), 2);
    // accessors
    for _ in 0..4 {
        let r = w.root.clone();
        w.token(&r, json!({}));
    }
    let (_, v) = root(&mut w, "", List, "auth/token/accessors/", json!(null));
    let mut all: Vec<String> = serde_json::from_value(v["data"]["keys"].clone()).unwrap();
    let mut paged: Vec<String> = Vec::new();
    while paged.len() < all.len() {
        let query = json!({"after": paged.last().cloned().unwrap_or_default(), "limit": "2"});
        let (_, v) = root(&mut w, "", List, "auth/token/accessors/", query);
        paged.extend(serde_json::from_value::<Vec<String>>(v["data"]["keys"].clone()).unwrap());
    }
    paged.sort();
    all.sort();
    assert_eq!(paged, all);
    // policies, and what a policy lets be seen of them
    for name in ["p1", "p2", "p3"] {
        w.policy(name, "");
    }
    let (_, v) = root(&mut w, "", List, "sys/policies/acl/", json!({"after": "default", "limit": "2"}));
    assert_eq!(v["data"]["keys"], json!(["p1", "p2"]));
    w.policy(
        "some",
        r#"path "sys/policies/acl" {
             capabilities = ["list"]
             list_scan_response_keys_filter_path = "{{ .path }}{{ .key }}"
           }
           path "sys/policies/acl/p2" { capabilities = ["read"] }"#,
    );
    let r = w.root.clone();
    let t = w.token(&r, json!({"policies": ["some"], "no_default_policy": true}));
    let (code, v) = w.list("sys/policies/acl/", &t);
    assert_eq!((code, &v["data"]["keys"]), (Code::Ok, &json!(["p2"])));
}
