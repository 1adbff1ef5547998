//! Long lists over the real binary: in pages, all at once below a folder, and filtered by policy.

use super::harness::Server;
use serde_json::{Value, json};

fn keys(v: &Value) -> Vec<String> {
    v["data"]["keys"].as_array().into_iter().flatten().filter_map(|k| k.as_str().map(str::to_owned)).collect()
}

/// All keys of a list, a page at a time.
fn paged(s: &Server, path: &str, token: &str, limit: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().map_or(String::new(), |k| format!("&after={k}"));
        let a = s.get(&format!("{path}?list=true&limit={limit}{after}"), token);
        if a.status == 404 {
            return all;
        }
        assert_eq!(a.status, 200, "{:?}", a.errors());
        let page = keys(&a.json());
        assert!(!page.is_empty() && page.len() <= limit);
        all.extend(page);
    }
}

#[test]
fn pages_and_scans_show_everything_once() {
    let s = Server::ready("lists");
    for (mount, version) in [("one", "1"), ("two", "2")] {
        let body = json!({"type": "kv", "options": {"version": version}});
        assert_eq!(s.put(&format!("sys/mounts/{mount}"), &s.root, &body).status, 204);
    }
    let mut names: Vec<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    for name in names.iter().map(String::as_str).chain(["d/x", "d/e/y"]) {
        assert_eq!(s.put(&format!("one/{name}"), &s.root, &json!({"a": 1})).status, 204);
        assert_eq!(s.put(&format!("two/data/{name}"), &s.root, &json!({"data": {"a": 1}})).status, 200);
    }
    let whole: Vec<String> = ["d/e/y", "d/x"].iter().map(|n| (*n).to_owned()).chain(names.clone()).collect();
    names.insert(0, "d/".into());
    for path in ["one/", "two/metadata/"] {
        assert_eq!(paged(&s, path, &s.root, 7), names, "{path}");
        assert_eq!(keys(&s.list(path, &s.root).json()), names);
        for (method, at) in [("SCAN", path.to_owned()), ("GET", format!("{path}?scan=true"))] {
            assert_eq!(keys(&s.request(method, &at, &s.root, None).json()), whole, "{method} {at}");
        }
    }
    assert_eq!(s.get("one/?list=true&scan=true", &s.root).status, 400);
    // accessors, policies, namespaces
    for n in 0..9 {
        s.put("auth/token/create", &s.root, &json!({"display_name": format!("t{n}")}));
        let policy = json!({"policy": "path \"x\" { capabilities = [\"read\"] }"});
        assert_eq!(s.put(&format!("sys/policies/acl/p{n}"), &s.root, &policy).status, 204);
        assert_eq!(s.put(&format!("sys/namespaces/n{n}"), &s.root, &json!({})).status, 200);
    }
    for path in ["auth/token/accessors", "sys/policies/acl", "sys/namespaces"] {
        let mut whole = keys(&s.list(path, &s.root).json());
        let mut pages = paged(&s, path, &s.root, 4);
        assert!(whole.len() >= 9, "{path}");
        whole.sort();
        pages.sort();
        assert_eq!(pages, whole, "{path}");
    }
    // a scan is a right of its own
    let policy = r#"path "one/*" { capabilities = ["list"] }"#;
    s.put("sys/policies/acl/lister", &s.root, &json!({ "policy": policy }));
    let a = s.put("auth/token/create", &s.root, &json!({"policies": ["lister"]}));
    let token = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    assert_eq!(s.list("one/", &token).status, 200);
    assert_eq!(s.request("SCAN", "one/", &token, None).status, 403);
}

#[test]
fn a_listing_shows_what_the_caller_may_reach() {
    let s = Server::ready("lists-filter");
    s.put("sys/mounts/kv", &s.root, &json!({"type": "kv", "options": {"version": "2"}}));
    for name in ["mine", "yours", "team/mine", "other/yours"] {
        s.put(&format!("kv/data/{name}"), &s.root, &json!({"data": {"a": 1}}));
    }
    let policy = r#"
        path "kv/metadata/*" {
            capabilities = ["list", "scan"]
            list_scan_response_keys_filter_path = "{{ .path | replace \"kv/metadata/\" \"kv/data/\" }}{{ .key }}"
        }
        path "kv/data/mine" { capabilities = ["read"] }
        path "kv/data/team/*" { capabilities = ["read"] }
    "#;
    let a = s.put("sys/policies/acl/some", &s.root, &json!({ "policy": policy }));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    let a = s.put("auth/token/create", &s.root, &json!({"policies": ["some"]}));
    let token = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    assert_eq!(keys(&s.list("kv/metadata/", &token).json()), ["mine", "team/"]);
    assert_eq!(keys(&s.request("SCAN", "kv/metadata/", &token, None).json()), ["mine", "team/mine"]);
    // nothing to see is nothing there
    assert_eq!(s.list("kv/metadata/other/", &token).status, 404);
}
