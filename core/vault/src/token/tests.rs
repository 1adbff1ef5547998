//! Tests of tokens through the pipeline.

use super::*;
use crate::tables;
use crate::testing::{World, error_of};
use ringfence_base::{Code, Wall};
use ringfence_logical::Operation;
use serde_json::{Value, json};

const HOUR: u64 = 3600;

fn login(w: &mut World, name: &str, data: Value) -> Value {
    let (code, v) = w.post(&format!("auth/door/login/{name}"), "", data);
    assert_eq!(code, Code::Ok, "{v}");
    v["auth"].clone()
}

fn text(v: &Value, key: &str) -> String {
    v[key].as_str().unwrap_or_default().to_owned()
}

fn is_dead(w: &mut World, token: &str) -> bool {
    let (code, v) = w.get("auth/token/lookup-self", token);
    match code {
        Code::Ok => false,
        Code::Denied => {
            assert!(error_of(&v).contains("invalid token"), "{v}");
            true
        }
        other => panic!("{other:?} {v}"),
    }
}

#[test]
fn policy_names_have_one_form() {
    let l = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(sanitize(&l(&[" B", "a", "", "b"])), l(&["a", "b"]));
    assert_eq!(sanitize(&l(&["a", "ROOT"])), l(&["root"]));
    assert_eq!(sanitize(&[]), l(&[]));
}

#[test]
fn the_root_token_never_expires_and_looks_at_itself() {
    let mut w = World::new();
    let root = w.root.clone();
    w.sleep(1_000_000_000);
    let (code, v) = w.get("auth/token/lookup-self", &root);
    assert_eq!(code, Code::Ok, "{v}");
    let d = &v["data"];
    assert_eq!(d["id"], json!(root));
    assert_eq!(d["policies"], json!(["root"]));
    assert!(d.get("expire_time").is_some_and(Value::is_null));
    // no lease stands behind this one, but behind a root token that was created there does
    assert!(d.get("issue_time").is_none() && d.get("renewable").is_none(), "{d}");
    let (_, made) = w.post("auth/token/create", &root, json!({"id": "mine"}));
    assert_eq!(made["auth"]["policies"], json!(["root"]));
    let (_, made) = w.get("auth/token/lookup-self", "mine");
    assert!(made["data"]["expire_time"].is_null() && made["data"]["issue_time"].is_string(), "{made}");
    assert_eq!(made["data"]["renewable"], json!(false));
    assert_eq!((&d["ttl"], &d["type"], &d["orphan"]), (&json!(0), &json!("service"), &json!(true)));
    assert!(root.starts_with("hvs.") && root.len() == 28);
    let (code, v) = w.post("auth/token/renew-self", &root, json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "invalid lease ID"));
}

#[test]
fn a_revoked_parent_takes_its_tree_with_it_at_once() {
    let mut w = World::new();
    let root = w.root.clone();
    let parent = w.token(&root, json!({"policies": ["default"], "ttl": "1h"}));
    let policy = r#"path "auth/token/create" { capabilities = ["update"] }"#;
    w.policy("maker", policy);
    let maker = w.token(&root, json!({"policies": ["maker", "default"]}));
    let child = w.token(&maker, json!({}));
    let grandchild = w.token(&child, json!({}));
    let (code, batch) = w.post("auth/token/create", &child, json!({"type": "batch"}));
    assert_eq!(code, Code::Ok, "{batch}");
    let batch = text(&batch["auth"], "client_token");
    assert!(batch.starts_with("hvb."));
    for t in [&parent, &maker, &child, &grandchild, &batch] {
        assert!(!is_dead(&mut w, t));
    }
    let (code, _) = w.post("auth/token/revoke", &root, json!({"token": maker}));
    assert_eq!(code, Code::NoContent);
    // no work was done, and all below are dead
    for t in [&maker, &child, &grandchild, &batch] {
        assert!(is_dead(&mut w, t), "{t}");
    }
    assert!(!is_dead(&mut w, &parent));
    assert_eq!(w.rows(tables::TOKEN), 4, "root, parent, child, grandchild");
    let (ended, wake) = w.work();
    assert_eq!((ended, w.rows(tables::TOKEN), w.rows(tables::ACCESSOR)), (2, 2, 2));
    assert!(wake.is_some(), "parent is due in an hour");
}

#[test]
fn revoke_orphan_spares_the_children() {
    let mut w = World::new();
    let root = w.root.clone();
    w.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#);
    let parent = w.token(&root, json!({"policies": ["maker", "default"]}));
    let child = w.token(&parent, json!({}));
    let (code, v) = w.post("auth/token/revoke-orphan", &parent, json!({"token": child}));
    assert_eq!(code, Code::Denied, "needs sudo: {v}");
    let (code, _) = w.post("auth/token/revoke-orphan", &root, json!({"token": parent}));
    assert_eq!(code, Code::NoContent);
    assert!(is_dead(&mut w, &parent) && !is_dead(&mut w, &child));
    w.restart();
    assert_eq!(w.work().0, 2, "the child and the marker");
    assert!(!is_dead(&mut w, &child));
    let (_, v) = w.get("auth/token/lookup-self", &child);
    assert_eq!(v["data"]["orphan"], json!(true));
    let (code, v) = w.post("auth/token/revoke-orphan", &root, json!({"token": "hvs.nobody"}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "token to revoke not found"));
}

#[test]
fn time_ends_a_token_before_and_after_the_worker_knows() {
    let mut w = World::new();
    let root = w.root.clone();
    let t = w.token(&root, json!({"policies": ["default"], "ttl": 60}));
    w.sleep(59);
    let (_, v) = w.post("auth/token/renew-self", &t, json!({"increment": 90}));
    assert_eq!(v["auth"]["lease_duration"], json!(90), "{v}");
    w.sleep(89);
    assert!(!is_dead(&mut w, &t));
    w.sleep(1);
    assert!(is_dead(&mut w, &t));
    assert_eq!(w.work().0, 1);
    assert_eq!(w.rows(tables::TOKEN), 1);
    let forever = w.token(&root, json!({"policies": ["default"], "period": "1h"}));
    for _ in 0..2000 {
        w.sleep(HOUR - 2);
        let (code, v) = w.post("auth/token/renew-self", &forever, json!({"increment": 1}));
        assert_eq!((code, &v["auth"]["lease_duration"]), (Code::Ok, &json!(HOUR)), "a period is given again");
        w.sleep(1);
    }
    assert!(!is_dead(&mut w, &forever));
}

#[test]
fn uses_are_counted_even_when_the_policy_refuses() {
    let mut w = World::new();
    let root = w.root.clone();
    let t = w.token(&root, json!({"policies": ["default"], "num_uses": 3}));
    assert_eq!(w.get("sys/policies/acl/x", &t).0, Code::Denied);
    let (_, v) = w.get("auth/token/lookup-self", &t);
    assert_eq!(v["data"]["num_uses"], json!(1));
    let (code, v) = w.post("auth/token/create", &t, json!({}));
    assert_eq!(code, Code::Denied, "{v}");
    assert!(is_dead(&mut w, &t));
    // others that were counted before may still run; then the record goes
    w.sleep(121);
    w.work();
    assert_eq!(w.rows(tables::TOKEN), 1, "a spent token ends");
    // a restricted token makes no children
    w.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#);
    let t = w.token(&root, json!({"policies": ["maker"], "num_uses": 1}));
    let (code, v) = w.post("auth/token/create", &t, json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "restricted use token cannot generate child tokens"));
    assert!(is_dead(&mut w, &t));
}

#[test]
fn batch_tokens_cost_no_write_and_stay_short() {
    let mut w = World::new();
    let root = w.root.clone();
    let data = json!({
        "policies": ["policy-number-01", "policy-number-02", "policy-number-03"], "type": "batch", "ttl": "1h",
        "role": "a-role", "meta": {"username": "somebody"},
    });
    login(&mut w, "somebody", data.clone());
    let before = w.version().index();
    let auth = login(&mut w, "somebody", data);
    assert_eq!(w.version().index(), before, "the entity is known: nothing is written");
    let token = text(&auth, "client_token");
    assert!(token.len() <= 300, "{} characters", token.len());
    assert_eq!((text(&auth, "accessor"), text(&auth, "token_type")), (String::new(), "batch".into()));
    assert_eq!((&auth["renewable"], &auth["lease_duration"]), (&json!(false), &json!(HOUR)));
    assert_ne!(text(&auth, "entity_id"), "");
    for (path, body, why) in [
        ("renew-self", json!({}), "batch tokens cannot be renewed"),
        ("revoke-self", json!({}), "batch tokens cannot be revoked"),
    ] {
        let (code, v) = w.post(&format!("auth/token/{path}"), &token, body);
        assert_eq!((code, error_of(&v)), (Code::Invalid, why), "default policy lets it ask");
    }
    let (_, v) = w.post("auth/token/lookup", &root, json!({"token": token}));
    assert_eq!((&v["data"]["type"], &v["data"]["num_uses"]), (&json!("batch"), &json!(0)));
    // one character changed
    let mut bad = token.clone().into_bytes();
    bad[40] = if bad[40] == b'A' { b'B' } else { b'A' };
    assert!(is_dead(&mut w, std::str::from_utf8(&bad).unwrap()));
    assert!(is_dead(&mut w, &format!("{token}.root")));
    w.sleep(HOUR);
    assert!(is_dead(&mut w, &token));
}

/// A cut-off must kill what a node minted from a view that had not seen it yet, and nothing that was minted after.
#[test]
fn cut_offs_kill_exactly_what_was_minted_before_them() {
    let mut w = World::new();
    let root = w.root.clone();
    let batch = |w: &mut World, name: &str, role: &str| {
        text(&login(w, name, json!({"type": "batch", "role": role, "ttl": "1h"})), "client_token")
    };
    let (a, b) = (batch(&mut w, "ann", "web"), batch(&mut w, "bob", "web"));
    let c = batch(&mut w, "cid", "db");
    let ann = {
        let (_, v) = w.get("auth/token/lookup-self", &a);
        text(&v["data"], "entity_id")
    };
    let revoke = |w: &mut World, body: Value| {
        let (code, v) = w.post("auth/token/revoke-batch", &root, body);
        assert_eq!(code, Code::NoContent, "{v}");
    };
    revoke(&mut w, json!({"entity_id": ann}));
    assert!(is_dead(&mut w, &a) && !is_dead(&mut w, &b) && !is_dead(&mut w, &c));
    let a2 = batch(&mut w, "ann", "web");
    assert!(!is_dead(&mut w, &a2), "minted after");
    revoke(&mut w, json!({"mount": "door/", "role": "web"}));
    assert!(is_dead(&mut w, &a2) && is_dead(&mut w, &b) && !is_dead(&mut w, &c));
    let b2 = batch(&mut w, "bob", "web");
    // service tokens are not meant
    let service = text(&login(&mut w, "bob", json!({})), "client_token");
    revoke(&mut w, json!({"all": true}));
    assert!(is_dead(&mut w, &b2) && is_dead(&mut w, &c) && !is_dead(&mut w, &service));
    let (code, _) = w.post("auth/token/revoke-batch", &root, json!({"role": "web"}));
    assert_eq!(code, Code::Invalid);
}

/// The story: a shard runs a login on a view, a cut-off commits, and the login's answer goes out afterwards with a
/// token minted from the older view.
#[test]
fn a_token_minted_from_a_view_without_the_cut_off_is_covered_by_it() {
    let mut w = World::new();
    let root = w.root.clone();
    login(&mut w, "ann", json!({"type": "batch"}));
    let old_view = w.version();
    w.post("auth/token/revoke-batch", &root, json!({"all": true}));
    let mut entry = entry::TokenEntry { policies: vec!["default".into()], ..Default::default() };
    let token = w.write(|txn, pass| {
        let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).unwrap();
        entry.mount = router.at(txn, ringfence_base::NsId::ROOT, TOKEN_MOUNT_PATH).unwrap().unwrap().entry.id;
        let mut late = ringfence_barrier::Txn::new(&old_view, Some(pass.keyring));
        mint::batch(&mut late, pass.sealer, &router, &mut entry).unwrap()
    });
    assert!(is_dead(&mut w, &token));
}

#[test]
fn logins_give_what_mount_and_role_say() {
    let mut w = World::new();
    let auth = login(&mut w, "bob", json!({"policies": ["Dev", "dev", " ops "], "ttl": "2000h", "meta": {"a": "b"}}));
    assert_eq!(auth["policies"], json!(["default", "dev", "ops"]));
    assert_eq!(auth["lease_duration"], json!(768 * HOUR));
    assert_eq!(
        (&auth["renewable"], &auth["orphan"], &auth["metadata"]),
        (&json!(true), &json!(true), &json!({"a": "b"}))
    );
    let (_, v) = w.post("auth/door/login/bob", "", json!({"ttl": "2000h"}));
    assert_eq!(
        v["warnings"],
        json!(["TTL of \"2000h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly"])
    );
    let token = text(&auth, "client_token");
    let (_, v) = w.get("auth/token/lookup-self", &token);
    assert_eq!(v["data"]["display_name"], json!("door-bob"));
    assert_eq!(v["data"]["path"], json!("auth/door/login/bob"));
    assert!(v["data"].get("role").is_none());
    let (code, v) = w.post("auth/door/login/bob", "", json!({"policies": ["root"]}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "auth methods cannot create root tokens"));
    // a bad token header does not break a login, and the same name is the same entity
    let (_, again) = w.post("auth/door/login/bob", "hvs.rubbish", json!({}));
    assert_eq!(again["auth"]["entity_id"], auth["entity_id"]);
}

#[test]
fn the_rules_of_creation() {
    let mut w = World::new();
    let root = w.root.clone();
    w.policy("maker", r#"path "auth/token/create*" { capabilities = ["update"] }"#);
    let maker = w.token(&root, json!({"policies": ["maker", "default"], "ttl": "1h"}));
    let expiring = w.token(&root, json!({"policies": ["root"], "ttl": "1h"}));
    let batch = {
        let (_, v) = w.post("auth/token/create", &root, json!({"policies": ["maker"], "type": "batch"}));
        text(&v["auth"], "client_token")
    };
    let rows: Vec<(&str, Value, &str)> = vec![
        (&maker, json!({"policies": ["other"]}), "child policies must be subset of parent"),
        (&maker, json!({"policies": ["root"]}), "child policies must be subset of parent"),
        (&maker, json!({"no_parent": true}), "root or sudo privileges required to create orphan token"),
        (&maker, json!({"period": "1h"}), "root or sudo privileges required to create periodic token"),
        (&maker, json!({"id": "mine"}), "root or sudo privileges required to specify token id"),
        (&maker, json!({"num_uses": -1}), "number of uses cannot be negative"),
        (&maker, json!({"type": "x"}), "invalid 'token_type' value"),
        (&maker, json!({"entity_alias": "x"}), "'entity_alias' is only allowed in combination with token role"),
        (
            &root,
            json!({"type": "batch", "policies": ["a"], "period": "1h"}),
            "batch tokens cannot have \"period\" set",
        ),
        (&root, json!({"type": "batch", "num_uses": 3}), "batch tokens cannot have \"num_uses\" set"),
        (&root, json!({"type": "batch"}), "batch tokens cannot be root tokens"),
        (&root, json!({"policies": ["response-wrapping"]}), "cannot assign policy \"response-wrapping\""),
        (&expiring, json!({}), "expiring root tokens cannot create non-expiring root tokens"),
        (&batch, json!({}), "batch tokens cannot create more tokens"),
        (&root, json!({"id": "hvs.x"}), "custom token ID cannot have the 's.' prefix"),
        (&root, json!({"id": "a.x"}), "custom token ID cannot contain the '.' character"),
    ];
    for (token, body, why) in rows {
        let (code, v) = w.post("auth/token/create", token, body.clone());
        assert_eq!((code, error_of(&v)), (Code::Invalid, why), "{body}");
    }
    // inherited exactly; default only with the parent's
    let (_, v) = w.post("auth/token/create", &maker, json!({"policies": ["maker"]}));
    assert_eq!(v["auth"]["policies"], json!(["default", "maker"]));
    let (_, v) = w.post("auth/token/create", &maker, json!({"policies": ["maker"], "no_default_policy": true}));
    assert_eq!(v["auth"]["policies"], json!(["maker"]));
    let (_, v) = w.post("auth/token/create-orphan", &maker, json!({"meta": {"k": "v"}, "display_name": "a b"}));
    assert_eq!((&v["auth"]["orphan"], &v["auth"]["metadata"]), (&json!(true), &json!({"k": "v"})));
    let (_, v) = w.post("auth/token/create", &root, json!({"policies": ["nobody"], "odd": 1}));
    assert_eq!(
        v["warnings"],
        json!(["Policy \"nobody\" does not exist", "Endpoint ignored these unrecognized parameters: [odd]"])
    );
    let (code, _) = w.post("auth/token/create", &root, json!({"id": "mine", "policies": ["default"]}));
    assert_eq!(code, Code::Ok);
    assert!(!is_dead(&mut w, "mine"));
    let (code, v) = w.post("auth/token/create", &root, json!({"id": "mine"}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "cannot create a token with a duplicate ID"));
}

#[test]
fn roles_rule_creation_and_renewal() {
    let mut w = World::new();
    let root = w.root.clone();
    let (code, v) = w.post("auth/token/create/none", &root, json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "unknown role none"));
    let (code, _) = w.post(
        "auth/token/roles/app",
        &root,
        json!({"allowed_policies": "a,b", "orphan": true, "period": "1h", "path_suffix": "end", "token_num_uses": 9}),
    );
    assert_eq!(code, Code::NoContent);
    let (_, v) = w.get("auth/token/roles/app", &root);
    assert_eq!(
        (&v["data"]["token_period"], &v["data"]["token_type"], &v["data"]["renewable"]),
        (&json!(HOUR), &json!("default-service"), &json!(true))
    );
    assert_eq!(w.list("auth/token/roles", &root).1["data"]["keys"], json!(["app"]));
    let (_, v) = w.post("auth/token/create/app", &root, json!({"num_uses": 20}));
    let (token, accessor) = (text(&v["auth"], "client_token"), text(&v["auth"], "accessor"));
    assert_eq!(v["auth"]["policies"], json!(["a", "b", "default"]));
    assert_eq!((&v["auth"]["num_uses"], &v["auth"]["orphan"]), (&json!(9), &json!(true)));
    let (_, v) = w.post("auth/token/lookup-accessor", &root, json!({"accessor": accessor}));
    assert_eq!((&v["data"]["role"], &v["data"]["period"]), (&json!("app"), &json!(HOUR)));
    assert_eq!((&v["data"]["path"], &v["data"]["id"]), (&json!("auth/token/create/app/end"), &json!("")));
    w.post("auth/token/roles/app", &root, json!({"token_period": "2h"}));
    let (_, v) = w.post("auth/token/renew-accessor", &root, json!({"accessor": accessor}));
    assert_eq!((&v["auth"]["lease_duration"], &v["auth"]["client_token"]), (&json!(2 * HOUR), &json!("")), "{v}");
    w.delete("auth/token/roles/app", &root);
    let (code, v) = w.post("auth/token/renew", &root, json!({"token": token}));
    assert_eq!(code, Code::Internal);
    assert!(error_of(&v).contains("original token role \"app\" could not be found, not renewing"), "{v}");
    let (code, v) = w.post("auth/token/roles/b", &root, json!({"token_type": "batch", "orphan": true}));
    let why = "'token_type' cannot be 'batch' when role is set to generate renewable tokens";
    assert_eq!((code, error_of(&v)), (Code::Invalid, why));
}

#[test]
fn accessors_lead_to_tokens() {
    let mut w = World::new();
    let root = w.root.clone();
    let t = w.token(&root, json!({"policies": ["default"]}));
    let (_, v) = w.post("auth/token/lookup", &root, json!({"token": t}));
    let accessor = text(&v["data"], "accessor");
    let keys = w.list("auth/token/accessors", &root).1["data"]["keys"].clone();
    assert_eq!(keys.as_array().map(Vec::len), Some(2));
    assert!(keys.as_array().unwrap().contains(&json!(accessor)));
    let (code, v) = w.post("auth/token/lookup-accessor", &root, json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "missing accessor"));
    assert_eq!(w.post("auth/token/revoke-accessor", &root, json!({"accessor": accessor})).0, Code::NoContent);
    assert!(is_dead(&mut w, &t));
    let (code, v) = w.post("auth/token/lookup-accessor", &root, json!({"accessor": accessor}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "invalid accessor"));
    let (code, v) = w.post("auth/token/revoke-accessor", &root, json!({"accessor": accessor}));
    assert_eq!((code, &v["warnings"]), (Code::Ok, &json!(["No token found with this accessor"])));
    assert!(v.get("data").is_some_and(Value::is_null), "{v}");
    let (code, v) = w.post("auth/token/lookup", &root, json!({"token": t}));
    assert_eq!((code, error_of(&v)), (Code::Denied, "bad token"));
    assert_eq!(w.post("auth/token/revoke", &root, json!({"token": t})).0, Code::NoContent);
    let (code, v) = w.post("auth/token/renew", &root, json!({"token": t}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "token not found"));
    let (code, v) = w.post("auth/token/tidy", &root, json!({}));
    assert_eq!((code, &v["warnings"][0]), (Code::Accepted, &json!(paths::TIDY_STARTED)));
    assert!(v.get("data").is_some_and(Value::is_null), "{v}");
}

#[test]
fn bound_addresses() {
    let mut w = World::new();
    let root = w.root.clone();
    for (cidr, ok) in [("10.0.0.0/8", true), ("192.168.0.0/16", false)] {
        w.post("auth/token/roles/here", &root, json!({"token_bound_cidrs": [cidr]}));
        let (_, v) = w.post("auth/token/create/here", &root, json!({"policies": ["default"]}));
        let t = text(&v["auth"], "client_token");
        let (code, v) = w.get("auth/token/lookup-self", &t);
        match ok {
            true => assert_eq!(code, Code::Ok, "{v}"),
            false => assert_eq!((code, error_of(&v)), (Code::Denied, "permission denied")),
        }
    }
}

#[test]
fn a_disabled_mount_takes_its_tokens_and_data_along() {
    let mut w = World::new();
    let root = w.root.clone();
    let service = text(&login(&mut w, "bob", json!({})), "client_token");
    let batch = text(&login(&mut w, "bob", json!({"type": "batch"})), "client_token");
    let (tokens, aliases) = (w.rows(tables::TOKEN), w.rows(tables::ALIAS));
    w.write(|txn, pass| {
        let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).unwrap();
        let door = router.at(txn, ringfence_base::NsId::ROOT, "auth/door/").unwrap().unwrap().entry.clone();
        crate::mount::MountEntry { tainted: true, ..door.clone() }.save(txn);
        crate::lease::tombstone::mount_removed(txn, pass.now, door.id).unwrap();
    });
    assert!(is_dead(&mut w, &service) && is_dead(&mut w, &batch));
    w.restart();
    w.work();
    assert_eq!((w.rows(tables::TOKEN), w.rows(tables::ALIAS)), (tokens - 1, aliases - 1));
    assert_eq!(w.rows(tables::TOMBSTONE), 1, "the counter of eras stays");
    assert!(!is_dead(&mut w, &root));
}

#[test]
fn revoke_prefix_covers_the_tokens_of_a_path_and_no_later_ones() {
    let mut w = World::new();
    let root = w.root.clone();
    let bob = text(&login(&mut w, "bob", json!({})), "client_token");
    let ann = text(&login(&mut w, "ann", json!({})), "client_token");
    let (code, v) = w.post("sys/leases/revoke-prefix/auth/door/login/bob", &root, json!({}));
    assert_eq!(code, Code::NoContent, "{v}");
    assert!(is_dead(&mut w, &bob) && !is_dead(&mut w, &ann));
    let later = text(&login(&mut w, "bob", json!({})), "client_token");
    assert!(!is_dead(&mut w, &later), "made under the standing tombstone");
    w.work();
    assert!(!is_dead(&mut w, &later) && is_dead(&mut w, &bob));
    assert_eq!(w.rows(tables::TOMBSTONE), 1);
    assert_eq!(w.rows(tables::TOKEN), 3);
}

#[test]
fn what_a_token_may_do() {
    let mut w = World::new();
    let root = w.root.clone();
    w.policy("p", r#"path "lab/creds/*" { capabilities = ["read", "list"] }"#);
    let t = w.token(&root, json!({"policies": ["p"]}));
    let (_, v) = w.post("sys/capabilities", &root, json!({"token": t, "paths": ["lab/creds/x"]}));
    assert_eq!(v["data"]["lab/creds/x"], json!(["list", "read"]), "{v}");
    assert_eq!(v["data"]["capabilities"], json!(["list", "read"]));
    let (_, v) = w.post("sys/capabilities-self", &root, json!({"paths": ["a", "b"]}));
    assert_eq!((&v["data"]["a"], v["data"].get("capabilities")), (&json!(["root"]), None));
    let (code, v) = w.post("sys/capabilities", &root, json!({"token": "x", "paths": ["a"]}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "invalid token"));
}

/// The story: a write is evaluated, the token is revoked, and only then does the write reach the owner.
#[test]
fn a_revoked_tokens_late_write_loses() {
    let mut w = World::new();
    let root = w.root.clone();
    w.policy("maker", r#"path "auth/token/create" { capabilities = ["update"] }"#);
    let parent = w.token(&root, json!({"policies": ["maker"]}));
    let child = w.token(&parent, json!({}));
    let view = w.version();
    // evaluated over the old view: relies on the child and on its parent
    let reads = w.write(|txn, pass| {
        let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).unwrap();
        let mut late = ringfence_barrier::Txn::new(&view, Some(pass.keyring));
        check::find(&mut late, pass.keyring, &router, &child, pass.now).unwrap().unwrap();
        late.put(tables::config(ringfence_base::NsId::ROOT, "x"), &[], b"late");
        late.finish(&mut pass.sealer.borrow_mut(), pass.now).unwrap()
    });
    w.post("auth/token/revoke", &root, json!({"token": parent}));
    assert!(!w.commit(reads), "the owner refuses it");
    assert_eq!(w.call(Operation::Read, "auth/token/lookup-self", &child, Value::Null).0, Code::Denied);
}

/// A caller that a core has verified is remembered; whatever it rested on may change, and the next request sees it.
#[test]
fn what_a_known_caller_rests_on_is_seen_to_change() {
    let look = |w: &mut World, token: &str| w.get("lab/box/x", token).0;
    let make = |w: &mut World, kind: &str| {
        let root = w.root.clone();
        w.policy(
            "reader",
            "path \"lab/*\" { capabilities = [\"read\"] }\npath \"auth/token/*\" { capabilities = [\"update\"] }",
        );
        let parent = w.token(&root, json!({"policies": ["reader"], "ttl": "1h"}));
        let token = w.token(&parent, json!({"type": kind, "ttl": "10m"}));
        for _ in 0..3 {
            assert_ne!(look(w, &token), Code::Denied);
        }
        (parent, token)
    };
    for kind in ["batch", "service"] {
        // its policy
        let mut w = World::new();
        let (_, token) = make(&mut w, kind);
        w.policy("reader", "path \"other/*\" { capabilities = [\"read\"] }");
        assert_eq!(look(&mut w, &token), Code::Denied, "{kind}: policy");
        // its parent
        let mut w = World::new();
        let root = w.root.clone();
        let (parent, token) = make(&mut w, kind);
        let (code, _) = w.post("auth/token/revoke", &root, json!({"token": parent}));
        assert_eq!(code, Code::NoContent);
        assert_eq!(look(&mut w, &token), Code::Denied, "{kind}: parent");
        // its time, without any write
        let mut w = World::new();
        let (_, token) = make(&mut w, kind);
        w.sleep(599);
        assert_ne!(look(&mut w, &token), Code::Denied, "{kind}: still alive");
        w.sleep(2);
        assert_eq!(look(&mut w, &token), Code::Denied, "{kind}: time");
        // a mass revocation of what its mount issued
        let mut w = World::new();
        let (_, token) = make(&mut w, kind);
        w.write(|txn, pass| {
            let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).unwrap();
            let mount = router.at(txn, ringfence_base::NsId::ROOT, "auth/token/").unwrap().unwrap().entry.id;
            crate::lease::tombstone::tokens(txn, pass.now, mount, "").unwrap();
        });
        assert_eq!(look(&mut w, &token), Code::Denied, "{kind}: tombstone");
    }
    // a parent's earlier end is the batch token's too
    let mut w = World::new();
    let (_, token) = make(&mut w, "batch");
    let root = w.root.clone();
    let (code, _) = w.post("auth/token/revoke-batch", &root, json!({"all": true}));
    assert!(matches!(code, Code::NoContent | Code::Ok), "{code:?}");
    assert_eq!(look(&mut w, &token), Code::Denied, "cut off");
}

/// A write of a known caller rests on all that proved it: it loses against the revocation that came in between.
#[test]
fn a_late_write_of_a_known_caller_loses() {
    let mut w = World::new();
    let root = w.root.clone();
    w.policy("writer", "path \"auth/token/revoke-self\" { capabilities = [\"update\"] }");
    let token = w.token(&root, json!({"policies": ["writer"], "type": "service"}));
    for _ in 0..2 {
        w.get("lab/box/x", &token);
    }
    let before = w.version();
    let call = w.blank(Operation::Update, "auth/token/revoke-self", &token, json!({}));
    let late = w.run_at(&before, call);
    assert!(late.batch.is_some(), "it would write");
    let (code, _) = w.post("auth/token/revoke", &root, json!({"token": token}));
    assert_eq!(code, Code::NoContent);
    assert!(!w.commit(late));
}

/// An entity was cut off, and the batch tokens of those who had been merged into it lived on: they name the old id.
#[test]
fn a_cut_off_covers_the_entities_that_were_merged() {
    let mut w = World::new();
    let root = w.root.clone();
    let batch =
        |w: &mut World, name: &str| text(&login(w, name, json!({"type": "batch", "ttl": "1h"})), "client_token");
    let (old, other) = (batch(&mut w, "ann"), batch(&mut w, "bob"));
    let from = text(&w.get("auth/token/lookup-self", &old).1["data"], "entity_id");
    for name in ["to", "last"] {
        w.post("identity/entity", &root, json!({"name": name}));
    }
    let id = |w: &mut World, name: &str| text(&w.get(&format!("identity/entity/name/{name}"), &root).1["data"], "id");
    let (to, last) = (id(&mut w, "to"), id(&mut w, "last"));
    for (from, to) in [(&from, &to), (&to, &last)] {
        let body = json!({"to_entity_id": to, "from_entity_ids": [from]});
        assert_eq!(w.post("identity/entity/merge", &root, body).0, Code::NoContent);
    }
    assert!(!is_dead(&mut w, &old));
    assert_eq!(w.post("auth/token/revoke-batch", &root, json!({"entity_id": last})).0, Code::NoContent);
    assert!(is_dead(&mut w, &old) && !is_dead(&mut w, &other));
    // by the id that it had, too
    let new = batch(&mut w, "ann");
    assert!(!is_dead(&mut w, &new), "minted after");
    assert_eq!(w.post("auth/token/revoke-batch", &root, json!({"entity_id": from})).0, Code::NoContent);
    assert!(is_dead(&mut w, &new));
}

/// A restored snapshot brought the counter of mass revocations back, so that batch tokens made after the snapshot had
/// eras of the future: no cut-off reached them, and they spoke in namespaces that were given their number again.
#[test]
fn a_restore_kills_every_batch_token_and_no_era_comes_twice() {
    let mut w = World::new();
    let root = w.root.clone();
    let batch = |w: &mut World| text(&login(w, "ann", json!({"type": "batch", "ttl": "1h"})), "client_token");
    for _ in 0..3 {
        w.post("auth/token/revoke-batch", &root, json!({"all": true}));
    }
    let before = batch(&mut w);
    let service = text(&login(&mut w, "ann", json!({})), "client_token");
    // what a restore leaves in the image besides the snapshot's own records
    let floor = crate::lease::tombstone::floor_of_restore(None, None, w.now).unwrap();
    w.write(|txn, _| txn.put_clear(vec![crate::tables::ERA_FLOOR], floor.to_be_bytes().to_vec()));
    assert!(is_dead(&mut w, &before) && !is_dead(&mut w, &service));
    let after = batch(&mut w);
    assert!(!is_dead(&mut w, &after));
    w.post("auth/token/revoke-batch", &root, json!({"all": true}));
    assert!(is_dead(&mut w, &after), "eras go on above the floor");
    let last = batch(&mut w);
    assert!(!is_dead(&mut w, &last));
}

#[test]
fn the_floor_of_a_restore_is_above_both_images() {
    use crate::lease::tombstone::floor_of_restore as floor;
    let now = Wall::from_seconds(1_800_000_000);
    let first = floor(None, None, now).unwrap();
    let stored = first.to_be_bytes();
    // again at once, over either; and by a clock that went back
    for again in
        [floor(Some(&stored), None, now), floor(None, Some(&stored), now), floor(None, Some(&stored), Wall(0))]
    {
        assert!(again.unwrap() >= first + (1 << 24));
    }
    // two clusters that restore the same snapshot, one after the other
    assert!(floor(None, None, now.plus_seconds(1)).unwrap() >= first + (1 << 24));
    for damaged in [&b""[..], &[1; 7], &[0xff; 8]] {
        assert_eq!(floor(None, Some(damaged), now), None, "{damaged:?}");
    }
}

/// A method may have to ask outside before a renewal (cert: whether the certificate was revoked since the login).
#[test]
fn a_renewal_waits_for_what_its_method_asks_outside() {
    use ringfence_logical::SideResult;
    let mut w = World::new();
    let (_, v) = w.post("auth/door/login/ann", "", json!({"role": "asked", "ttl": "1h", "policies": "p"}));
    let (token, accessor) = (v["auth"]["client_token"].clone(), v["auth"]["accessor"].clone());
    let (own, root) = (token.as_str().unwrap().to_owned(), w.root.clone());
    let renew = |w: &mut World| {
        [
            w.post("auth/token/renew-self", &own, json!({})),
            w.post("auth/token/renew", &root, json!({"token": token})),
            w.post("auth/token/renew-accessor", &root, json!({"accessor": accessor})),
        ]
    };
    w.sleep(60);
    for (code, v) in renew(&mut w) {
        assert_eq!((code, &v["auth"]["lease_duration"]), (Code::Ok, &json!(3600)), "{v}");
    }
    let due = |w: &mut World| w.get("auth/token/lookup-self", &own).1["data"]["expire_time"].clone();
    let before = due(&mut w);
    w.sleep(60);
    for says in [SideResult::Json(json!({"good": false})), SideResult::Failed("nobody answers".into())] {
        let text = format!("{says:?}");
        w.outside = Box::new(move |_| match &says {
            SideResult::Json(v) => SideResult::Json(v.clone()),
            _ => SideResult::Failed("nobody answers".into()),
        });
        for (code, v) in renew(&mut w) {
            assert_eq!((code, &v["errors"][0]), (Code::Invalid, &json!("not let in any more")), "{text}");
        }
    }
    assert_eq!(due(&mut w), before, "a refused renewal changes nothing");
}
