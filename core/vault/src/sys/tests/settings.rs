//! `sys/config/*`, audit devices, tools, locked users, raw records.

use super::*;
use crate::host::{CoreState, Settings, Vault};
use crate::lockout;
use ringfence_logical::{OwnerOp, SideOp, SideResult};
use std::cell::RefCell;
use std::rc::Rc;

#[test]
fn cors() {
    let mut w = world();
    assert_eq!(get(&mut w, "sys/config/cors")["data"], json!({"enabled": false}));
    set(&mut w, "sys/config/cors", json!({"allowed_origins": "https://a, https://b", "allowed_headers": ["X-Mine"]}));
    let v = get(&mut w, "sys/config/cors");
    assert_eq!(v["data"]["allowed_origins"], json!(["https://a", "https://b"]));
    assert_eq!((&v["enabled"], &v["allowed_origins"]), (&json!(true), &json!(["https://a", "https://b"])));
    let headers = v["data"]["allowed_headers"].as_array().expect("list").clone();
    assert!(headers.contains(&json!("X-Mine")) && headers.contains(&json!("X-Vault-Token")));
    refused(
        post(&mut w, "sys/config/cors", json!({"allowed_origins": ["*", "https://a"]})),
        "to allow all origins the '*' must be the only value for allowed_origins",
    );
    refused(post(&mut w, "sys/config/cors", json!({})), "at least one origin or the wildcard must be provided");
    assert_eq!(delete(&mut w, "sys/config/cors").0, Code::NoContent);
    assert_eq!(get(&mut w, "sys/config/cors")["data"], json!({"enabled": false}));
}

#[test]
fn headers_of_the_interface() {
    let mut w = world();
    absent(list(&mut w, "sys/config/ui/headers/"));
    set(&mut w, "sys/config/ui/headers/x-frame-options", json!({"values": ["A", "B"]}));
    set(&mut w, "sys/config/ui/headers/X-Other", json!({"value": "C"}));
    assert_eq!(list(&mut w, "sys/config/ui/headers/").1["data"]["keys"], json!(["X-Frame-Options", "X-Other"]));
    assert_eq!(get(&mut w, "sys/config/ui/headers/X-FRAME-options")["data"], json!({"value": "A"}));
    let (_, v) =
        root(&mut w, Operation::Read, "sys/config/ui/headers/X-Frame-Options", json!({"multivalue": "true"}));
    assert_eq!(v["data"], json!({"values": ["A", "B"]}));
    refused(
        post(&mut w, "sys/config/ui/headers/x-vault-x", json!({"values": ["A"]})),
        "X-Vault headers cannot be set",
    );
    refused(post(&mut w, "sys/config/ui/headers/X-A", json!({})), "header 'values' cannot be empty");
    refused(post(&mut w, "sys/config/ui/headers/a b", json!({"values": "x"})), "invalid header name \"a b\"");
    refused(
        post(&mut w, "sys/config/ui/headers/X-A", json!({"values": ["a\r\nb"]})),
        "header values cannot hold control characters",
    );
    assert_eq!(delete(&mut w, "sys/config/ui/headers/X-Other").0, Code::NoContent);
    absent(root(&mut w, Operation::Read, "sys/config/ui/headers/X-Other", Value::Null));
}

#[test]
fn audited_headers() {
    let mut w = world();
    set(&mut w, "sys/config/auditing/request-headers/X-Foo", json!({"hmac": true}));
    let one = get(&mut w, "sys/config/auditing/request-headers/X-FOO");
    assert_eq!((&one["data"], &one["X-FOO"]), (&json!({"X-FOO": {"hmac": true}}), &json!({"hmac": true})));
    let all = get(&mut w, "sys/config/auditing/request-headers");
    assert_eq!(all["data"]["headers"]["x-foo"], json!({"hmac": true}));
    assert_eq!(all["headers"]["user-agent"], json!({"hmac": false}));
    assert_eq!(delete(&mut w, "sys/config/auditing/request-headers/x-foo").0, Code::NoContent);
    refused(
        root(&mut w, Operation::Read, "sys/config/auditing/request-headers/X-Foo", Value::Null),
        "Could not find header in config",
    );
}

/// Answers every side operation the same way and remembers them.
fn answering(w: &mut World, result: SideResult) -> Rc<RefCell<Vec<OwnerOp>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    w.outside = Box::new(move |op| {
        if let SideOp::Owner(op) = op {
            log.borrow_mut().push(op.clone());
        }
        result.clone()
    });
    seen
}

#[test]
fn an_audit_device_is_tried_before_it_counts() {
    let mut w = world();
    assert_eq!(get(&mut w, "sys/audit")["data"], json!({}));
    let body = json!({"type": "file", "description": "d", "options": {"file_path": "/a/b"}, "local": true});
    let seen = answering(&mut w, SideResult::Json(Value::Null));
    set(&mut w, "sys/audit/file", body.clone());
    match &seen.borrow()[..] {
        [OwnerOp::Named("audit-test", device)] => {
            assert_eq!((&device["path"], &device["kind"]), (&json!("file/"), &json!("file")));
        }
        other => panic!("{other:?}"),
    }
    let v = get(&mut w, "sys/audit");
    let shown = json!({
        "type": "file", "description": "d", "options": {"file_path": "/a/b"}, "local": true, "path": "file/",
    });
    assert_eq!((&v["data"]["file/"], &v["file/"]), (&shown, &shown));
    refused(post(&mut w, "sys/audit/file", body.clone()), "path already in use");
    refused(post(&mut w, "sys/audit/file/x", body.clone()), "path already in use");
    refused(post(&mut w, "sys/audit/x", json!({"type": "tape"})), "unknown backend type: \"tape\"");
    refused(post(&mut w, "sys/audit/x", json!({"type": "file"})), "file_path is required");
    refused(post(&mut w, "sys/audit/x", json!({"type": "socket"})), "address is required");
    let (code, v) =
        post(&mut w, "sys/audit/x", json!({"type": "file", "options": {"file_path": "x", "log_raw": "maybe"}}));
    assert!(code == Code::Invalid && error_of(&v).contains("ParseBool"), "{v}");

    answering(&mut w, SideResult::Failed("no such directory".into()));
    refused(
        post(&mut w, "sys/audit/two", json!({"type": "file", "options": {"path": "/x"}})),
        "audit backend failed test message: no such directory",
    );
    assert!(get(&mut w, "sys/audit")["data"].get("two/").is_none());

    let (_, one) = post(&mut w, "sys/audit-hash/file", json!({"input": "secret"}));
    let hash = one["data"]["hash"].as_str().expect("hash").to_owned();
    assert!(hash.starts_with("hmac-sha256:") && hash.len() == 12 + 64);
    assert_eq!(one["hash"], json!(hash));
    assert_eq!(post(&mut w, "sys/audit-hash/file", json!({"input": "secret"})).1["data"]["hash"], json!(hash));
    assert_ne!(post(&mut w, "sys/audit-hash/file", json!({"input": "other"})).1["data"]["hash"], json!(hash));
    refused(post(&mut w, "sys/audit-hash/x", json!({"input": "a"})), "unknown audit backend \"x/\"");
    assert_eq!(delete(&mut w, "sys/audit/file").0, Code::NoContent);
    assert_eq!(delete(&mut w, "sys/audit/file").0, Code::NoContent);
    assert_eq!(get(&mut w, "sys/audit")["data"], json!({}));
}

#[test]
fn loggers_and_reload() {
    let mut w = world();
    let seen = answering(&mut w, SideResult::Json(json!({"raft": "info"})));
    assert_eq!(get(&mut w, "sys/loggers")["data"], json!({"raft": "info"}));
    set(&mut w, "sys/loggers/raft", json!({"level": "DEBUG"}));
    assert_eq!(delete(&mut w, "sys/loggers").0, Code::NoContent);
    refused(post(&mut w, "sys/loggers", json!({"level": "loud"})), "invalid level provided: loud");
    refused(post(&mut w, "sys/loggers", json!({})), "level is required");
    set(&mut w, "sys/config/reload/listener", json!({}));
    let named = |name, v| OwnerOp::Named(name, v);
    assert_eq!(
        *seen.borrow(),
        [
            named("loggers", json!({"name": "", "change": null})),
            named("loggers", json!({"name": "raft", "change": {"level": "debug"}})),
            named("loggers", json!({"name": "", "change": "reset"})),
            named("reload", json!({"subsystem": "listener"})),
        ]
    );
}

#[test]
fn random_bytes() {
    let mut w = world();
    let text = |v: &Value| v["data"]["random_bytes"].as_str().expect("text").to_owned();
    let (_, v) = post(&mut w, "sys/tools/random", json!({}));
    assert_eq!(text(&v).len(), 44);
    let (_, v) = post(&mut w, "sys/tools/random/16", json!({"format": "hex"}));
    assert_eq!(text(&v).len(), 32);
    let (_, v) = post(&mut w, "sys/tools/random/platform/3", json!({}));
    assert_eq!(text(&v).len(), 4);
    let (_, v) = post(&mut w, "sys/tools/random/all", json!({"bytes": "6"}));
    assert_eq!(text(&v).len(), 8);
    let (_, other) = post(&mut w, "sys/tools/random/all", json!({"bytes": "6"}));
    assert_ne!(text(&v), text(&other));
    for (path, body, why) in [
        ("sys/tools/random", json!({"bytes": 0}), "'bytes' cannot be less than 1"),
        ("sys/tools/random/-4", json!({}), "'bytes' cannot be less than 1"),
        ("sys/tools/random", json!({"bytes": 131073}), "'bytes' should be less than 131072"),
        (
            "sys/tools/random/x",
            json!({}),
            "error parsing url-set byte count: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            "sys/tools/random",
            json!({"format": "octal"}),
            "unsupported encoding format octal; must be \"hex\" or \"base64\"",
        ),
    ] {
        refused(post(&mut w, path, body), why);
    }
}

#[test]
fn hashes() {
    let mut w = world();
    // of "abc", FIPS 180-4 and FIPS 202 examples
    for (algorithm, sum) in [
        ("sha2-224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("sha2-256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("sha3-224", "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        ("sha3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
    ] {
        let (_, v) = post(&mut w, &format!("sys/tools/hash/{algorithm}"), json!({"input": "YWJj"}));
        assert_eq!(v["data"]["sum"], sum);
        let (_, v) = post(&mut w, "sys/tools/hash", json!({"input": "YWJj", "algorithm": algorithm}));
        assert_eq!(v["data"]["sum"], sum);
    }
    for (algorithm, chars) in [("sha2-384", 64), ("sha2-512", 88), ("sha3-384", 64), ("sha3-512", 88)] {
        let body = json!({"input": "YWJj", "algorithm": algorithm, "format": "base64"});
        let (_, v) = post(&mut w, "sys/tools/hash", body);
        assert_eq!(v["data"]["sum"].as_str().expect("text").len(), chars);
    }
    refused(post(&mut w, "sys/tools/hash/md5", json!({"input": "YWJj"})), "unsupported algorithm md5");
    refused(
        post(&mut w, "sys/tools/hash", json!({"input": "YW-j"})),
        "unable to decode input as base64: illegal base64 data at input byte 2",
    );
}

#[test]
fn locked_users() {
    let mut w = world();
    set(&mut w, "sys/auth/userpass", json!({"type": "userpass"}));
    assert_eq!(get(&mut w, "sys/locked-users")["data"], json!({"by_namespace": [], "total": 0}));
    let accessor = get(&mut w, "sys/auth/userpass")["data"]["accessor"].as_str().expect("accessor").to_owned();
    let (until, now) = (w.now.plus_seconds(900), w.now);
    let mount = w.write(|txn, pass| {
        let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).expect("router");
        let mount = router.at(txn, ringfence_base::NsId::ROOT, "auth/userpass/").unwrap().expect("mount").clone();
        assert!(lockout::rules(&mount, &Default::default()).is_some());
        lockout::lock(txn, pass.keyring, mount.entry.id, "ann", until);
        lockout::lock(txn, pass.keyring, mount.entry.id, "bob", until.plus_seconds(60));
        mount.entry.id
    });
    let is_locked = |w: &World, at| w.read(|txn, k| lockout::is_locked(txn, k, mount, "ann", at).expect("reads"));
    assert!(is_locked(&w, now) && !is_locked(&w, until));
    let v = get(&mut w, "sys/locked-users");
    assert_eq!(
        v["data"],
        json!({
            "total": 2,
            "by_namespace": [{
                "namespace_id": "root", "namespace_path": "", "counts": 2,
                "mount_accessors": [{
                    "mount_accessor": accessor, "counts": 2, "alias_identifiers": ["ann", "bob"],
                }],
            }],
        })
    );
    set(&mut w, &format!("sys/locked-users/{accessor}/unlock/ann"), json!({}));
    set(&mut w, &format!("sys/locked-users/{accessor}/unlock/nobody"), json!({}));
    assert!(!is_locked(&w, now));
    let (_, v) = root(&mut w, Operation::Read, "sys/locked-users", json!({"mount_accessor": accessor}));
    assert_eq!(v["data"]["total"], 1);
    w.sleep(1000);
    assert_eq!(get(&mut w, "sys/locked-users")["data"]["total"], 0);
    refused(post(&mut w, "sys/locked-users/no/unlock/ann", json!({})), "mount accessor \"no\" not found");
}

#[test]
fn the_configuration_without_secrets() {
    let mut w = world();
    assert_eq!(get(&mut w, "sys/config/state/sanitized")["data"], json!({}));
    let mut registry = ringfence_logical::Registry::new();
    crate::sys::register(&mut registry);
    let settings = Settings { sanitized: json!({"log_level": "info"}), ..Settings::default() };
    w.replace_core(CoreState::new(std::sync::Arc::new(Vault::new(registry, settings))));
    assert_eq!(get(&mut w, "sys/config/state/sanitized")["data"], json!({"log_level": "info"}));
}

#[test]
fn raw_records_only_where_configured() {
    let mut w = world();
    let (code, v) = root(&mut w, Operation::Read, "sys/raw/03/00000001", Value::Null);
    assert_eq!((code, error_of(&v)), (Code::NotFound, "1 error occurred:\n\t* unsupported path\n\n"));
    let mut registry = ringfence_logical::Registry::new();
    crate::sys::register(&mut registry);
    let settings = Settings { raw_storage_endpoint: true, ..Settings::default() };
    w.replace_core(CoreState::new(std::sync::Arc::new(Vault::new(registry, settings))));
    let (_, v) = list(&mut w, "sys/raw/");
    assert!(v["data"]["keys"].as_array().expect("keys").contains(&json!("03/")), "{v}");
    assert!(!v["data"]["keys"].as_array().expect("keys").contains(&json!("02/")));
    let (_, v) = list(&mut w, "sys/raw/03/");
    assert_eq!(v["data"]["keys"][0], "00000001");
    let value = get(&mut w, "sys/raw/03/00000001")["data"]["value"].as_str().expect("text").to_owned();
    assert!(value.contains("cubbyhole"));
    set(&mut w, "sys/raw/03/00000001", json!({"value": value.replace("per-token", "PER-TOKEN")}));
    assert!(
        get(&mut w, "sys/mounts")["data"]["cubbyhole/"]["description"].as_str().expect("text").starts_with("PER")
    );
    for path in ["core/keyring", "01/00000003", "02/00000001"] {
        refused(
            root(&mut w, Operation::Read, &format!("sys/raw/{path}"), Value::Null),
            &format!("cannot read '{path}'"),
        );
        refused(post(&mut w, &format!("sys/raw/{path}"), json!({"value": ""})), &format!("cannot write '{path}'"));
        refused(delete(&mut w, &format!("sys/raw/{path}")), &format!("cannot delete '{path}'"));
    }
    refused(post(&mut w, "sys/raw/03/01", json!({"value": "", "encoding": "x"})), "invalid encoding \"x\"");
    absent(root(&mut w, Operation::Read, "sys/raw/03/ffffffff", Value::Null));
    let root_token = w.root.clone();
    w.policy("p", "path \"sys/raw/*\" { capabilities = [\"read\"] }");
    let t = w.token(&root_token, json!({"policies": "p"}));
    assert_eq!(w.get("sys/raw/03/00000001", &t).0, Code::Denied);
}
