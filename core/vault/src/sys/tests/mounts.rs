//! Mounts, auth methods, tuning, moves, and what user interfaces see of them.

use super::*;

#[test]
fn a_new_cluster_has_vaults_mounts() {
    let mut w = world();
    let v = get(&mut w, "sys/mounts");
    for (path, kind) in [("cubbyhole/", "cubbyhole"), ("identity/", "identity"), ("sys/", "system")] {
        let m = &v["data"][path];
        assert_eq!(m["type"], kind);
        // repeated at the top level for old clients
        assert_eq!(&v[path], m);
        for key in ["external_entropy_access", "seal_wrap", "local"] {
            assert!(m[key].is_boolean(), "{path} {key}");
        }
        assert!(m["options"].is_null());
        assert_eq!(m["config"]["default_lease_ttl"], 0);
        assert_eq!(m["config"]["force_no_cache"], false);
        assert_eq!(m["uuid"].as_str().expect("uuid").len(), 36);
        let tail = m["accessor"].as_str().expect("accessor").strip_prefix(&format!("{kind}_")).expect("prefix");
        assert!(tail.len() == 8 && tail.bytes().all(|b| b.is_ascii_hexdigit()));
    }
    assert_eq!(v["data"]["sys/"]["config"]["passthrough_request_headers"], json!(["Accept"]));
    let v = get(&mut w, "sys/auth");
    assert_eq!(v["data"]["token/"]["config"]["token_type"], "default-service");
    assert!(v["data"]["token/"]["accessor"].as_str().expect("accessor").starts_with("auth_token_"));
    assert_eq!(get(&mut w, "sys/auth/token")["data"], v["data"]["token/"]);
}

#[test]
fn a_mount_serves_at_once_and_is_gone_at_once() {
    let mut w = world();
    let (code, v) = root(&mut w, Operation::Read, "secret/config", Value::Null);
    assert_eq!(
        (code, error_of(&v)),
        (Code::NotFound, "no handler for route \"secret/config\". route entry not found.")
    );
    set(
        &mut w,
        "sys/mounts/secret",
        json!({
            "type": "kv", "description": "", "local": false, "seal_wrap": false, "external_entropy_access": false,
            "config": {"options": null, "default_lease_ttl": "", "max_lease_ttl": "", "force_no_cache": false},
            "options": {"version": "2"},
        }),
    );
    set(&mut w, "secret/config", json!({}));
    let one = get(&mut w, "sys/mounts/secret");
    assert_eq!(one["data"]["options"], json!({"version": "2"}));
    assert_eq!(one["data"]["type"], "kv");
    assert_eq!(one["type"], "kv");
    let before = w.rows(0x80);
    assert_eq!(before, 1);
    assert_eq!(delete(&mut w, "sys/mounts/secret").0, Code::NoContent);
    assert_eq!(root(&mut w, Operation::Read, "secret/config", Value::Null).0, Code::NotFound);
    // the path is free at once, the old data goes behind it
    set(&mut w, "sys/mounts/secret", json!({"type": "kv-v2"}));
    w.work();
    assert_eq!(w.rows(0x80), 0);
    assert_eq!(get(&mut w, "sys/mounts/secret")["data"]["options"], json!({"version": "2"}));
    // absent is fine
    assert_eq!(delete(&mut w, "sys/mounts/nothing/here").0, Code::NoContent);
    refused(root(&mut w, Operation::Read, "sys/mounts/nothing", Value::Null), "No secret engine mount at nothing/");
    refused(root(&mut w, Operation::Read, "sys/auth/nothing", Value::Null), "No auth engine at nothing/");
}

#[test]
fn aliases_and_versions() {
    let mut w = world();
    for (path, kind, version) in
        [("a", "kv-v1", json!("1")), ("b", "kv-v2", json!("2")), ("c", "generic", json!("1"))]
    {
        set(&mut w, &format!("sys/mounts/{path}"), json!({"type": kind}));
        let v = get(&mut w, &format!("sys/mounts/{path}"));
        assert_eq!((&v["data"]["type"], &v["data"]["options"]["version"]), (&json!("kv"), &version));
    }
    set(&mut w, "sys/mounts/d", json!({"type": "kv"}));
    assert!(get(&mut w, "sys/mounts/d")["data"]["options"].is_null());
    refused(
        post(&mut w, "sys/mounts/e", json!({"type": "kv", "options": {"version": 3}})),
        "invalid version provided: 3",
    );
    refused(
        post(&mut w, "sys/mounts/e", json!({"type": "lab", "options": {"version": "2"}})),
        "secrets engine \"lab\" does not allow setting a version",
    );
    refused(
        post(&mut w, "sys/auth/e", json!({"type": "userpass", "options": {"version": "2"}})),
        "auth method \"userpass\" does not allow setting a version",
    );
}

#[test]
fn what_cannot_be_mounted() {
    let mut w = world();
    set(&mut w, "sys/mounts/secret", json!({"type": "kv"}));
    set(&mut w, "sys/auth/userpass", json!({"type": "userpass"}));
    for (path, body, text) in [
        ("sys/mounts/x", json!({}), "backend type must be specified as a string"),
        ("sys/mounts/x", json!({"type": "foo"}), "plugin not found in the catalog: foo"),
        ("sys/mounts/x", json!({"type": "userpass"}), "plugin not found in the catalog: userpass"),
        ("sys/auth/x", json!({"type": "kv"}), "plugin not found in the catalog: kv"),
        ("sys/mounts/secret", json!({"type": "kv"}), "path is already in use at secret/"),
        ("sys/mounts/secret/below", json!({"type": "kv"}), "path is already in use at secret/"),
        ("sys/auth/userpass", json!({"type": "userpass"}), "path is already in use at userpass/"),
        ("sys/auth/token", json!({"type": "userpass"}), "path is already in use at token/"),
        ("sys/mounts/sys", json!({"type": "kv"}), "cannot mount \"sys/\""),
        ("sys/mounts/sys/x", json!({"type": "kv"}), "cannot mount \"sys/x/\""),
        ("sys/mounts/auth", json!({"type": "kv"}), "cannot mount \"auth/\""),
        ("sys/mounts/auth/x", json!({"type": "kv"}), "cannot mount \"auth/x/\""),
        ("sys/mounts/identity", json!({"type": "kv"}), "cannot mount \"identity/\""),
        ("sys/mounts/x", json!({"type": "cubbyhole"}), "mount type of \"cubbyhole\" is not mountable"),
        ("sys/mounts/x", json!({"type": "system"}), "mount type of \"system\" is not mountable"),
        ("sys/auth/x", json!({"type": "token"}), "token credential backend cannot be instantiated"),
        ("sys/mounts/x/.. /y", json!({"type": "kv"}), "path cannot contain a leading or trailing whitespace"),
        ("sys/mounts/x//y", json!({"type": "kv"}), "path \"x//y/\" does not match cleaned path"),
        (
            "sys/mounts/x",
            json!({"type": "kv", "config": {"default_lease_ttl": "2h", "max_lease_ttl": "1h"}}),
            "given default lease TTL greater than given max lease TTL",
        ),
        (
            "sys/mounts/x",
            json!({"type": "kv", "config": {"default_lease_ttl": 9999999}}),
            "given default lease TTL greater than system max lease TTL of 2764800",
        ),
        (
            "sys/mounts/x",
            json!({"type": "kv", "config": {"default_lease_ttl": "soon"}}),
            "unable to parse default TTL of soon: time: invalid duration \"soon\"",
        ),
        (
            "sys/mounts/x",
            json!({"type": "kv", "config": {"listing_visibility": "x"}}),
            "invalid listing_visibility x",
        ),
        (
            "sys/auth/x",
            json!({"type": "userpass", "config": {"token_type": "huge"}}),
            "invalid value for 'token_type'",
        ),
        (
            "sys/auth/x",
            json!({"type": "door", "config": {"user_lockout_config": {"lockout_threshold": "3"}}}),
            "tuning of user lockout configuration for auth type \"door\" not allowed",
        ),
    ] {
        refused(post(&mut w, path, body), text);
    }
    assert_eq!(post(&mut w, "sys/mounts/x", json!({"type": "kv", "config": 3})).0, Code::Invalid);
    // a mount above another one nests too
    set(&mut w, "sys/mounts/a/b", json!({"type": "kv"}));
    refused(post(&mut w, "sys/mounts/a", json!({"type": "kv"})), "path is already in use at a/b/");
    // names that only begin alike do not
    set(&mut w, "sys/mounts/secrets", json!({"type": "kv"}));
    set(&mut w, "sys/mounts/userpass", json!({"type": "kv"}));
}

#[test]
fn what_cannot_be_unmounted() {
    let mut w = world();
    for path in ["sys", "cubbyhole", "identity"] {
        refused(delete(&mut w, &format!("sys/mounts/{path}")), &format!("cannot unmount \"{path}/\""));
    }
    refused(delete(&mut w, "sys/mounts/auth/token"), "cannot unmount \"auth/token/\"");
    refused(delete(&mut w, "sys/auth/token"), "token credential backend cannot be disabled");
}

#[test]
fn disabling_an_auth_method_ends_its_tokens() {
    let mut w = world();
    let login = |w: &mut World, kind: &str| {
        let (_, v) = w.post("auth/door/login/ann", "", json!({"policies": "default", "type": kind}));
        v["auth"]["client_token"].as_str().expect("token").to_owned()
    };
    let tokens = [login(&mut w, "service"), login(&mut w, "batch")];
    for t in &tokens {
        assert_eq!(w.get("auth/token/lookup-self", t).0, Code::Ok);
    }
    assert_eq!(delete(&mut w, "sys/auth/door").0, Code::NoContent);
    for t in &tokens {
        assert_eq!(w.get("auth/token/lookup-self", t).0, Code::Denied);
    }
}

#[test]
fn tuning() {
    let mut w = world();
    set(&mut w, "sys/mounts/secret", json!({"type": "kv", "description": "old", "options": {"version": "1"}}));
    let v = get(&mut w, "sys/mounts/secret/tune");
    assert_eq!(
        v["data"],
        json!({
            "default_lease_ttl": 2764800, "max_lease_ttl": 2764800, "description": "old", "force_no_cache": false,
            "options": {"version": "1"},
        })
    );
    assert_eq!(v["max_lease_ttl"], 2764800);
    set(
        &mut w,
        "sys/mounts/secret/tune",
        json!({"options": null, "default_lease_ttl": "", "max_lease_ttl": "87600h", "force_no_cache": false}),
    );
    set(&mut w, "sys/mounts/secret/tune", json!({"default_lease_ttl": 3600, "description": "new"}));
    let v = get(&mut w, "sys/mounts/secret/tune")["data"].clone();
    assert_eq!((&v["default_lease_ttl"], &v["max_lease_ttl"]), (&json!(3600), &json!(315360000)));
    assert_eq!(v["description"], "new");
    let m = get(&mut w, "sys/mounts/secret")["data"]["config"].clone();
    assert_eq!((&m["default_lease_ttl"], &m["max_lease_ttl"]), (&json!(3600), &json!(315360000)));
    // empty leaves, "system" takes back
    set(&mut w, "sys/mounts/secret/tune", json!({"default_lease_ttl": "", "max_lease_ttl": "system"}));
    let m = get(&mut w, "sys/mounts/secret")["data"]["config"].clone();
    assert_eq!((&m["default_lease_ttl"], &m["max_lease_ttl"]), (&json!(3600), &json!(0)));
    refused(
        post(&mut w, "sys/mounts/secret/tune", json!({"max_lease_ttl": "10m"})),
        "backend max lease TTL of 600 would be less than backend default lease TTL of 3600",
    );
    refused(
        post(&mut w, "sys/mounts/secret/tune", json!({"token_type": "batch"})),
        "'token_type' can only be modified on auth mounts",
    );
    set(
        &mut w,
        "sys/mounts/secret/tune",
        json!({
            "listing_visibility": "unauth", "audit_non_hmac_request_keys": ["a", "b"],
            "audit_non_hmac_response_keys": "c,d", "passthrough_request_headers": "X-A",
            "allowed_response_headers": ["X-B"], "plugin_version": "v1",
        }),
    );
    let v = get(&mut w, "sys/mounts/secret/tune")["data"].clone();
    assert_eq!(v["listing_visibility"], "unauth");
    assert_eq!(v["audit_non_hmac_request_keys"], json!(["a", "b"]));
    assert_eq!(v["audit_non_hmac_response_keys"], json!(["c", "d"]));
    assert_eq!(v["passthrough_request_headers"], json!(["X-A"]));
    assert_eq!(v["allowed_response_headers"], json!(["X-B"]));
    assert_eq!(v["plugin_version"], "v1");
    refused(
        root(&mut w, Operation::Read, "sys/mounts/nope/tune", Value::Null),
        "cannot fetch sysview for path \"nope/\"",
    );
    refused(post(&mut w, "sys/mounts/nope/tune", json!({})), "tune of path \"nope/\" failed: no mount entry found");
    refused(post(&mut w, "sys/mounts/cubbyhole/tune", json!({"max_lease_ttl": "1h"})), "cannot tune \"cubbyhole/\"");
    set(&mut w, "sys/mounts/sys/tune", json!({"audit_non_hmac_request_keys": "x", "default_lease_ttl": ""}));
}

#[test]
fn mounts_of_several_segments_are_tuned_too() {
    let mut w = world();
    set(&mut w, "sys/mounts/a/b/c", json!({"type": "kv"}));
    set(&mut w, "sys/mounts/a/b/c/tune", json!({"max_lease_ttl": "1h"}));
    assert_eq!(get(&mut w, "sys/mounts/a/b/c/tune")["data"]["max_lease_ttl"], 3600);
    set(&mut w, "sys/auth/a/b", json!({"type": "userpass"}));
    set(&mut w, "sys/auth/a/b/tune", json!({"max_lease_ttl": "1h"}));
    set(&mut w, "sys/mounts/auth/a/b/tune", json!({"default_lease_ttl": "30m"}));
    let v = get(&mut w, "sys/mounts/auth/a/b/tune")["data"].clone();
    assert_eq!((&v["default_lease_ttl"], &v["max_lease_ttl"]), (&json!(1800), &json!(3600)));
    assert_eq!(get(&mut w, "sys/auth/a/b/tune")["data"], v);
}

#[test]
fn an_upgrade_asks_the_engine_in_the_same_transaction() {
    let mut w = world();
    set(&mut w, "sys/mounts/secret", json!({"type": "kv"}));
    let (code, v) = post(&mut w, "sys/mounts/secret/tune", json!({"options": {"version": "2", "more": "x"}}));
    assert_eq!((code, &v["warnings"]), (Code::Ok, &json!(["now 2"])));
    assert_eq!(get(&mut w, "sys/mounts/secret")["data"]["options"], json!({"version": "2", "more": "x"}));
    assert_eq!(w.rows(0x80), 1);
    refused(
        post(&mut w, "sys/mounts/secret/tune", json!({"options": {"version": "1"}})),
        "cannot downgrade mount from version 2",
    );
    refused(
        post(&mut w, "sys/mounts/secret/tune", json!({"options": {"version": ""}})),
        "cannot downgrade mount from version 2",
    );
    refused(
        post(&mut w, "sys/mounts/secret/tune", json!({"options": {"version": "3"}})),
        "invalid version provided: 3",
    );
    // an empty value takes an option away
    let (code, _) = post(&mut w, "sys/mounts/secret/tune", json!({"options": {"more": ""}}));
    assert_eq!(code, Code::Ok);
    assert_eq!(get(&mut w, "sys/mounts/secret")["data"]["options"], json!({"version": "2"}));
}

#[test]
fn auth_methods_are_tuned() {
    let mut w = world();
    set(&mut w, "sys/auth/userpass", json!({"type": "userpass", "config": {"token_type": "batch"}}));
    assert_eq!(get(&mut w, "sys/auth/userpass")["data"]["config"]["token_type"], "batch");
    set(
        &mut w,
        "sys/auth/userpass/tune",
        json!({
            "token_type": "default-batch",
            "user_lockout_config": {"lockout_threshold": "3", "lockout_duration": "10m", "lockout_disable": false},
        }),
    );
    let v = get(&mut w, "sys/auth/userpass/tune")["data"].clone();
    assert_eq!(v["token_type"], "default-batch");
    assert_eq!((&v["user_lockout_threshold"], &v["user_lockout_duration"]), (&json!(3), &json!(600)));
    assert_eq!(v["user_lockout_counter_reset_duration"], 900);
    assert_eq!(
        get(&mut w, "sys/auth/userpass")["data"]["config"]["user_lockout_config"],
        json!({
            "user_lockout_threshold": 3, "user_lockout_duration": 600,
            "user_lockout_counter_reset_duration": 900, "user_lockout_disable": false,
        })
    );
    refused(post(&mut w, "sys/auth/userpass/tune", json!({"token_type": "x"})), "invalid value for 'token_type'");
    refused(
        post(&mut w, "sys/auth/token/tune", json!({"token_type": "batch"})),
        "'token_type' cannot be set for 'token' or 'ns_token' auth mounts",
    );
    set(&mut w, "sys/auth/token/tune", json!({"max_lease_ttl": "1h"}));
    let (_, v) = post(&mut w, "auth/token/create", json!({"ttl": "2h", "policies": "default"}));
    assert_eq!(v["auth"]["lease_duration"], 3600);
}

#[test]
fn sudo_where_vault_wants_it() {
    let mut w = world();
    w.policy("admin", "path \"sys/*\" { capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\"] }");
    let root = w.root.clone();
    let t = w.token(&root, json!({"policies": "admin"}));
    assert_eq!(w.post("sys/mounts/secret", &t, json!({"type": "kv"})).0, Code::NoContent);
    assert_eq!(w.get("sys/auth", &t).0, Code::Ok);
    for (path, body) in [
        ("sys/auth/userpass", json!({"type": "userpass"})),
        ("sys/auth/token/tune", json!({})),
        ("sys/mounts/auth/token/tune", json!({})),
        ("sys/remount", json!({"from": "secret", "to": "other"})),
        ("sys/audit/file", json!({"type": "file"})),
        ("sys/config/cors", json!({"allowed_origins": "*"})),
        ("sys/rotate", json!({})),
        ("sys/seal", json!({})),
        ("sys/step-down", json!({})),
    ] {
        assert_eq!(w.post(path, &t, body).0, Code::Denied, "{path}");
    }
}

#[test]
fn a_move_keeps_the_data_and_ends_the_leases() {
    let mut w = world();
    let root_token = w.root.clone();
    let (_, v) = w.get("lab/creds/plain", &root_token);
    let lease = v["lease_id"].as_str().expect("lease").to_owned();
    let accessor = get(&mut w, "sys/mounts/lab")["data"]["accessor"].clone();
    let (code, v) = post(&mut w, "sys/remount", json!({"from": "lab", "to": "place/two"}));
    assert_eq!(code, Code::Ok, "{v}");
    let id = v["data"]["migration_id"].as_str().expect("id").to_owned();
    assert_eq!(v["migration_id"], json!(id));
    assert!(v["warnings"][0].as_str().expect("warning").starts_with("Mount move has been queued."));
    let v = get(&mut w, &format!("sys/remount/status/{id}"));
    assert_eq!(
        v["data"]["migration_info"],
        json!({"source_mount": "lab/", "target_mount": "place/two/", "status": "success"})
    );
    absent(root(&mut w, Operation::Read, "sys/remount/status/other", Value::Null));
    assert_eq!(get(&mut w, "sys/mounts/place/two")["data"]["accessor"], accessor);
    assert_eq!(w.get("lab/creds/plain", &root_token).0, Code::NotFound);
    assert_eq!(w.get("place/two/creds/plain", &root_token).0, Code::Ok);
    refused(post(&mut w, "sys/leases/lookup", json!({"lease_id": lease})), "invalid lease");
}

#[test]
fn moves_that_are_refused() {
    let mut w = world();
    set(&mut w, "sys/mounts/secret", json!({"type": "kv"}));
    set(&mut w, "sys/auth/userpass", json!({"type": "userpass"}));
    for (from, to, text) in [
        ("", "x", "both 'from' and 'to' path must be specified as a string"),
        ("nope", "x", "no matching mount at \"nope/\""),
        ("secret", "lab", "path already in use at \"lab/\""),
        ("sys", "x", "cannot remount \"sys/\""),
        ("secret", "sys/x", "cannot remount to \"sys/x/\""),
        ("auth/token", "auth/x", "cannot remount \"auth/token/\""),
        ("auth/userpass", "x", "cannot remount auth mount to non-auth mount \"x/\""),
        ("secret", "auth/x", "cannot remount secrets mount to auth mount \"auth/x/\""),
        ("secret", "a//b", "path \"a//b/\" does not match cleaned path"),
    ] {
        refused(post(&mut w, "sys/remount", json!({"from": from, "to": to})), text);
    }
    let (code, _) = post(&mut w, "sys/remount", json!({"from": "auth/userpass/", "to": "/auth/people"}));
    assert_eq!(code, Code::Ok);
    assert_eq!(get(&mut w, "sys/auth/people")["data"]["type"], "userpass");
}

#[test]
fn two_mounts_at_one_path_cannot_both_commit() {
    let mut w = world();
    set(&mut w, "sys/mounts/one", json!({"type": "kv"}));
    let version = w.version();
    let root_token = w.root.clone();
    set(&mut w, "sys/mounts/two", json!({"type": "kv"}));
    // neither the move nor the new mount writes what the other one wrote; both looked whether the path was free
    let moved = w.blank(Operation::Update, "sys/remount", &root_token, json!({"from": "one", "to": "two"}));
    let nested = w.blank(Operation::Update, "sys/mounts/two/below", &root_token, json!({"type": "kv"}));
    for overtaken in [moved, nested] {
        let finished = w.run_at(&version, overtaken);
        assert!(finished.batch.is_some(), "it saw a free path");
        assert!(!w.commit(finished));
    }
}

#[test]
fn the_interface_sees_what_the_caller_may_see() {
    let mut w = world();
    set(&mut w, "sys/mounts/secret", json!({"type": "kv-v2", "description": "mine"}));
    set(&mut w, "sys/mounts/other", json!({"type": "kv"}));
    set(&mut w, "sys/auth/userpass", json!({"type": "userpass", "config": {"listing_visibility": "unauth"}}));
    let (code, v) = w.get("sys/internal/ui/mounts", "");
    assert_eq!(code, Code::Ok);
    assert_eq!(v["data"]["secret"], json!({}));
    assert_eq!(v["data"]["auth"], json!({"userpass/": {"type": "userpass", "description": "", "options": null}}));
    w.policy("mine", "path \"secret/data/a/*\" { capabilities = [\"read\"] }");
    let root = w.root.clone();
    let t = w.token(&root, json!({"policies": "mine"}));
    let (_, v) = w.get("sys/internal/ui/mounts", &t);
    assert_eq!(v["data"]["secret"]["secret/"]["options"], json!({"version": "2"}));
    assert!(v["data"]["secret"]["secret/"]["uuid"].is_string());
    assert!(v["data"]["secret"].get("other/").is_none());
    // the default policy reaches these
    assert!(v["data"]["secret"].get("cubbyhole/").is_some());
    assert!(v["data"]["auth"].get("token/").is_some());
    // a bad token is no token
    assert_eq!(w.get("sys/internal/ui/mounts", "hvs.bad").1["data"]["secret"], json!({}));

    let (code, v) = w.get("sys/internal/ui/mounts/secret/data/a/b", &t);
    assert_eq!((code, &v["data"]["path"]), (Code::Ok, &json!("secret/")));
    assert_eq!(v["data"]["options"]["version"], "2");
    assert_eq!(w.get("sys/internal/ui/mounts/secret", &t).1["data"]["path"], "secret/");
    for (path, token) in [("other/x", t.as_str()), ("nope", &t), ("secret", ""), ("secret", "hvs.bad")] {
        let (code, v) = w.get(&format!("sys/internal/ui/mounts/{path}"), token);
        let text = format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
        );
        assert_eq!((code, error_of(&v)), (Code::Denied, text.as_str()));
    }
    assert_eq!(w.get("sys/internal/ui/mounts/auth/token/x", &root).1["data"]["path"], "auth/token/");
}

#[test]
fn resultant_acl() {
    let mut w = world();
    let v = get(&mut w, "sys/internal/ui/resultant-acl");
    assert_eq!(v["data"]["root"], true);
    w.policy("mine", "path \"a/b\" { capabilities = [\"read\"] } path \"c/*\" { capabilities = [\"list\"] }");
    let root = w.root.clone();
    let t = w.token(&root, json!({"policies": "mine"}));
    let (_, v) = w.get("sys/internal/ui/resultant-acl", &t);
    assert_eq!(v["data"]["root"], false);
    assert_eq!(v["data"]["exact_paths"]["a/b"]["capabilities"], json!(["read"]));
    assert_eq!(v["data"]["glob_paths"]["c/"]["capabilities"], json!(["list"]));
}
