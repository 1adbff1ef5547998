//! Tenants over the real binary: whatever form of a name a tenant tries, he stays at home.

use super::harness::{Server, request};
use super::namespaces::{at, tenant};
use serde_json::json;

#[test]
fn ghsa_mwr2_no_form_of_a_name_leads_to_a_neighbour() {
    let s = Server::ready("tenants");
    let (mine, theirs) = (tenant(&s, "mine"), tenant(&s, "theirs"));
    let deeper = tenant(&s, "theirs/deeper");
    for (ns, token) in [("mine", &mine), ("theirs", &theirs), ("theirs/deeper", &deeper)] {
        let secret = json!({"data": {"of": ns}});
        assert_eq!(at(&s, ns, "PUT", "secret/data/x", token, Some(&secret)).status, 200);
    }
    let headers = [
        "",
        "root",
        "/",
        "mine",
        "theirs",
        "/theirs/",
        "theirs/deeper",
        "mine/../theirs",
        "mine//theirs",
        "Theirs",
        "theirs%2f",
        "./theirs",
        "theirs/.",
        "root/theirs",
        " theirs",
        "*",
        "+",
    ];
    let paths = [
        "secret/data/x",
        "theirs/secret/data/x",
        "theirs/deeper/secret/data/x",
        "mine/secret/data/x",
        "../theirs/secret/data/x",
        "%2e%2e/theirs/secret/data/x",
        "mine/../theirs/secret/data/x",
        "//theirs/secret/data/x",
        "theirs%2fsecret/data/x",
        "theirs//secret/data/x",
        "mine%2f..%2ftheirs/secret/data/x",
    ];
    let mut reached = 0;
    for header in headers {
        for path in paths {
            for method in ["GET", "LIST"] {
                let sent = [("X-Vault-Token", mine.as_str()), ("X-Vault-Namespace", header)];
                let Ok(a) = request(s.port, method, path, &sent, None) else { continue };
                let text = String::from_utf8_lossy(&a.body).into_owned();
                assert!(!text.contains("\"of\":\"theirs"), "{method} {header:?} {path}: {text}");
                assert_ne!(a.status, 500, "{method} {header:?} {path}");
                reached += usize::from(text.contains("\"of\":\"mine\""));
            }
        }
    }
    assert!(reached > 0, "the tenant reaches his own");
    // the owner of a namespace above reaches down, not up
    let a = at(&s, "theirs/deeper", "GET", "secret/data/x", &theirs, None);
    assert_eq!(a.json()["data"]["data"]["of"], "theirs/deeper");
    assert_eq!(at(&s, "theirs", "GET", "secret/data/x", &deeper, None).status, 403);
    assert_eq!(at(&s, "", "GET", "theirs/secret/data/x", &deeper, None).status, 403);
}

/// A tenant who may do everything in his namespace made the root namespace his by its other names
/// (CVE-2024-9180, CVE-2025-5999).
#[test]
fn cve_2025_5999_a_tenants_policies_end_at_his_door() {
    let s = Server::ready("tenants-root");
    let mine = tenant(&s, "mine");
    for name in ["root", "Root", "ROOT ", " root", "r\u{f6}\u{f6}t"] {
        let policy = json!({"policy": "path \"*\" { capabilities = [\"sudo\", \"read\"] }"});
        let path = format!("sys/policies/acl/{}", name.replace(' ', "%20"));
        let _ = request(
            s.port,
            "PUT",
            &path,
            &[("X-Vault-Token", mine.as_str()), ("X-Vault-Namespace", "mine")],
            Some(&serde_json::to_vec(&policy).expect("json")),
        );
        let body = json!({"policies": [name], "no_parent": true});
        let a = at(&s, "mine", "PUT", "auth/token/create", &mine, Some(&body));
        if let Some(token) = a.json()["auth"]["client_token"].as_str() {
            assert_eq!(s.get("sys/mounts", token).status, 403, "{name:?}");
            assert_eq!(s.get("sys/policies/acl/default", token).status, 403, "{name:?}");
        }
    }
    // it cannot be made a child either
    for name in ["root", "ROOT", "sys", "auth"] {
        assert_eq!(at(&s, "mine", "PUT", &format!("sys/namespaces/{name}"), &mine, Some(&json!({}))).status, 400);
    }
    // nor does a token that was made in the tenant's namespace carry root's entity or parent out of it
    let a = at(&s, "mine", "PUT", "auth/token/create", &s.root, Some(&json!({"policies": ["all"]})));
    let child = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    assert_eq!(at(&s, "mine", "GET", "sys/mounts", &child, None).status, 200);
    assert_eq!(s.get("sys/mounts", &child).status, 403);
}

#[test]
fn a_token_has_one_cubbyhole_and_it_dies_with_the_token() {
    let s = Server::ready("tenants-cubbyhole");
    let mine = tenant(&s, "mine");
    let a = s.put("auth/token/create", &s.root, &json!({"policies": ["root"]}));
    let visitor = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    let put = |token: &str, value: &str| at(&s, "mine", "PUT", "cubbyhole/x", token, Some(&json!({ "v": value })));
    assert_eq!((put(&mine, "tenant").status, put(&visitor, "visitor").status), (204, 204));
    let read = |ns: &str, token: &str| at(&s, ns, "GET", "cubbyhole/x", token, None);
    assert_eq!(read("mine", &mine).json()["data"]["v"], "tenant");
    assert_eq!(read("mine", &visitor).json()["data"]["v"], "visitor");
    assert_eq!(read("", &visitor).json()["data"]["v"], "visitor");
    assert_eq!(read("mine", &s.root).status, 404);
    // taking the tenant down takes nothing of the visitor's
    assert_eq!(s.request("DELETE", "sys/namespaces/mine", &s.root, None).status, 200);
    assert_eq!(read("", &visitor).json()["data"]["v"], "visitor");
}
