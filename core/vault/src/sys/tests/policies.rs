//! ACL policies under both their names, password policies, capabilities.

use super::*;
use base64::Engine as _;

const READER: &str = "path \"secret/*\" { capabilities = [\"read\"] }";

#[test]
fn a_policy_lives_under_both_names() {
    let mut w = world();
    set(&mut w, "sys/policies/acl/reader", json!({"policy": READER}));
    assert_eq!(get(&mut w, "sys/policies/acl/reader")["data"], json!({"name": "reader", "policy": READER}));
    let old = get(&mut w, "sys/policy/reader");
    assert_eq!(old["data"], json!({"name": "reader", "rules": READER}));
    assert_eq!(old["rules"], READER);
    let names = json!(["default", "reader", "root"]);
    assert_eq!(list(&mut w, "sys/policies/acl/").1["data"], json!({"keys": names}));
    for (_, v) in [list(&mut w, "sys/policy/"), (Code::Ok, get(&mut w, "sys/policy"))] {
        assert_eq!(v["data"], json!({"keys": names, "policies": names}));
        assert_eq!((&v["keys"], &v["policies"]), (&names, &names));
    }
    assert_eq!(delete(&mut w, "sys/policy/reader").0, Code::NoContent);
    assert_eq!(delete(&mut w, "sys/policies/acl/reader").0, Code::NoContent);
    absent(root(&mut w, Operation::Read, "sys/policy/reader", Value::Null));
    absent(root(&mut w, Operation::Read, "sys/policies/acl/reader", Value::Null));
}

#[test]
fn texts_come_in_several_coats() {
    let mut w = world();
    let coded = base64::engine::general_purpose::STANDARD.encode(READER);
    set(&mut w, "sys/policies/acl/a", json!({"policy": coded}));
    assert_eq!(get(&mut w, "sys/policies/acl/a")["data"]["policy"], READER);
    set(&mut w, "sys/policies/acl/b", json!({"policy": "{\"path\": {\"x\": {\"capabilities\": [\"read\"]}}}"}));
    let (code, v) = post(&mut w, "sys/policy/c", json!({"rules": READER}));
    assert_eq!((code, &v["warnings"]), (Code::Ok, &json!(["'rules' is deprecated, please use 'policy' instead"])));
    let (code, v) = post(&mut w, "sys/policy/UPPER", json!({"policy": READER}));
    assert_eq!((code, &v["warnings"]), (Code::Ok, &json!(["policy name was converted to upper"])));
    assert_eq!(get(&mut w, "sys/policies/acl/Upper")["data"]["name"], "upper");
    set(&mut w, "sys/policies/acl/team/one", json!({"policy": READER}));
    assert_eq!(get(&mut w, "sys/policies/acl/team/one")["data"]["name"], "team/one");
}

#[test]
fn policies_that_are_refused() {
    let mut w = world();
    for body in [json!({}), json!({"policy": ""})] {
        refused(post(&mut w, "sys/policies/acl/x", body), "'policy' parameter not supplied or empty");
    }
    refused(
        post(&mut w, "sys/policies/acl/x", json!({"policy": "path \"x\" { capabilities = [\"foo\"] }"})),
        "failed to parse policy: path \"x\": invalid capability \"foo\"",
    );
    let (code, v) = post(&mut w, "sys/policies/acl/x", json!({"policy": "path \"x\" {"}));
    assert!(code == Code::Invalid && error_of(&v).starts_with("failed to parse policy: "), "{v}");
    refused(post(&mut w, "sys/policies/acl/root", json!({"policy": READER})), "cannot update \"root\" policy");
    refused(post(&mut w, "sys/policies/acl/ROOT", json!({"policy": READER})), "cannot update \"root\" policy");
    refused(
        post(&mut w, "sys/policies/acl/response-wrapping", json!({"policy": READER})),
        "cannot update \"response-wrapping\" policy",
    );
    refused(delete(&mut w, "sys/policies/acl/root"), "cannot delete \"root\" policy");
    refused(delete(&mut w, "sys/policies/acl/default"), "cannot delete \"default\" policy");
    absent(root(&mut w, Operation::Read, "sys/policies/acl/response-wrapping", Value::Null));
    assert_eq!(get(&mut w, "sys/policies/acl/root")["data"], json!({"name": "root", "policy": ""}));
    let text = get(&mut w, "sys/policies/acl/default")["data"]["policy"].as_str().expect("text").to_owned();
    assert!(text.contains("auth/token/lookup-self"));
    let (code, _) = post(&mut w, "sys/policies/acl/big", json!({"policy": "# ".repeat(1 << 20)}));
    assert_eq!(code, Code::TooLarge);
}

#[test]
fn a_changed_policy_counts_at_once() {
    let mut w = world();
    set(&mut w, "sys/policies/acl/p", json!({"policy": "path \"sys/mounts\" { capabilities = [\"read\"] }"}));
    let root_token = w.root.clone();
    let t = w.token(&root_token, json!({"policies": "p"}));
    assert_eq!(w.get("sys/mounts", &t).0, Code::Ok);
    set(&mut w, "sys/policies/acl/p", json!({"policy": "path \"sys/mounts\" { capabilities = [\"deny\"] }"}));
    assert_eq!(w.get("sys/mounts", &t).0, Code::Denied);
    set(&mut w, "sys/policies/acl/default", json!({"policy": "path \"sys/auth\" { capabilities = [\"read\"] }"}));
    assert_eq!(w.get("sys/auth", &t).0, Code::Ok);
    assert_eq!(w.get("auth/token/lookup-self", &t).0, Code::Denied);
}

#[test]
fn password_policies() {
    let mut w = world();
    let text =
        "length = 12\nrule \"charset\" { charset = \"abc\" min-chars = 2 }\nrule \"charset\" { charset = \"12\" }";
    absent(list(&mut w, "sys/policies/password/"));
    set(&mut w, "sys/policies/password/p", json!({"policy": text}));
    assert_eq!(get(&mut w, "sys/policies/password/p")["data"], json!({"policy": text}));
    assert_eq!(list(&mut w, "sys/policies/password/").1["data"]["keys"], json!(["p"]));
    let password = get(&mut w, "sys/policies/password/p/generate")["data"]["password"].clone();
    let password = password.as_str().expect("text");
    assert!(password.len() == 12 && password.chars().all(|c| "abc12".contains(c)), "{password}");
    let coded = base64::engine::general_purpose::STANDARD.encode(text);
    set(&mut w, "sys/policies/password/q", json!({"policy": coded}));
    assert_eq!(get(&mut w, "sys/policies/password/q")["data"], json!({"policy": text}));
    refused(post(&mut w, "sys/policies/password/x", json!({})), "missing policy");
    refused(
        post(
            &mut w,
            "sys/policies/password/x",
            json!({"policy": "length = 3\nrule \"charset\" { charset = \"a\" }"}),
        ),
        "passwords must be between 4 and 100 characters",
    );
    for path in ["sys/policies/password/x", "sys/policies/password/x/generate"] {
        let (code, v) = root(&mut w, Operation::Read, path, Value::Null);
        assert_eq!((code, error_of(&v)), (Code::NotFound, "policy does not exist"));
    }
    assert_eq!(delete(&mut w, "sys/policies/password/p").0, Code::NoContent);
    assert_eq!(delete(&mut w, "sys/policies/password/p").0, Code::NoContent);
    // password policies are no ACL policies
    assert_eq!(list(&mut w, "sys/policies/acl/").1["data"]["keys"], json!(["default", "root"]));
}

#[test]
fn capabilities() {
    let mut w = world();
    w.policy(
        "p",
        "path \"a/*\" { capabilities = [\"update\", \"read\"] } path \"a/x\" { capabilities = [\"deny\"] }",
    );
    let root_token = w.root.clone();
    let (_, made) = w.post("auth/token/create", &root_token, json!({"policies": "p"}));
    let (t, accessor) = (made["auth"]["client_token"].clone(), made["auth"]["accessor"].clone());
    let (code, v) = post(&mut w, "sys/capabilities", json!({"token": t, "paths": ["a/b", "a/x", "c"]}));
    assert_eq!(code, Code::Ok);
    let wanted = json!({"a/b": ["read", "update"], "a/x": ["deny"], "c": ["deny"]});
    assert_eq!(v["data"], wanted);
    assert_eq!(v["a/b"], json!(["read", "update"]));
    let (_, v) = post(&mut w, "sys/capabilities-accessor", json!({"accessor": accessor, "paths": "a/b,c"}));
    assert_eq!(v["data"], json!({"a/b": ["read", "update"], "c": ["deny"]}));
    let own = t.as_str().expect("token").to_owned();
    let (_, v) = w.post("sys/capabilities-self", &own, json!({"path": "a/b"}));
    assert_eq!(v["data"], json!({"a/b": ["read", "update"], "capabilities": ["read", "update"]}));
    let (_, v) = post(&mut w, "sys/capabilities-self", json!({"paths": ["x"]}));
    assert_eq!(v["data"]["capabilities"], json!(["root"]));
    refused(post(&mut w, "sys/capabilities-self", json!({})), "paths must be supplied");
    refused(post(&mut w, "sys/capabilities", json!({"token": "hvs.no", "paths": "x"})), "invalid token");
    refused(post(&mut w, "sys/capabilities-accessor", json!({"accessor": "no", "paths": "x"})), "invalid accessor");
}
