//! What one request was told is done is seen by the next, on every core: cores remember callers that they have
//! verified, and each thing a caller rests on is changed here under a token that both cores know.

use crate::harness::Server;
use serde_json::{Value, json};

/// So many connections in a row land on every core of two, as good as surely.
const KNOCKS: usize = 24;

fn server() -> Server {
    let s = Server::ready("seen");
    let root = s.root.clone();
    assert_eq!(s.put("sys/mounts/secret", &root, &json!({"type": "kv", "options": {"version": "2"}})).status, 204);
    assert_eq!(s.put("secret/data/a", &root, &json!({"data": {"k": "v"}})).status, 200);
    allow(&s, "secret/data/*");
    s
}

fn allow(s: &Server, path: &str) {
    let text = format!(
        "path \"{path}\" {{ capabilities = [\"read\"] }}\npath \"auth/token/create\" {{ capabilities = [\"update\"] }}"
    );
    assert_eq!(s.put("sys/policies/acl/app", &s.root, &json!({"policy": text})).status, 204);
}

fn token(s: &Server, parent: &str, body: Value) -> String {
    let made = s.put("auth/token/create", parent, &body);
    assert_eq!(made.status, 200, "{}", made.json());
    made.json()["auth"]["client_token"].as_str().expect("a token").to_owned()
}

/// Every core answers this, on a connection of its own each time.
fn all_say(s: &Server, token: &str, path: &str, status: u16, why: &str) {
    for _ in 0..KNOCKS {
        assert_eq!(s.get(path, token).status, status, "{why}");
    }
}

#[test]
fn a_change_is_seen_by_the_next_request_on_every_core() {
    let s = server();
    let root = s.root.clone();
    for kind in ["batch", "service"] {
        let parent = token(&s, &root, json!({"policies": ["app"]}));
        let of_parent = token(&s, &parent, json!({"type": kind}));
        let other = token(&s, &root, json!({"type": kind, "policies": ["app"]}));
        all_say(&s, &of_parent, "secret/data/a", 200, "known");
        all_say(&s, &other, "secret/data/a", 200, "known");

        allow(&s, "secret/data/b");
        all_say(&s, &of_parent, "secret/data/a", 403, "the policy was changed");
        allow(&s, "secret/data/*");
        all_say(&s, &of_parent, "secret/data/a", 200, "and changed back");

        assert_eq!(s.put("auth/token/revoke", &root, &json!({"token": parent})).status, 204);
        all_say(&s, &of_parent, "secret/data/a", 403, "the parent was revoked");
        all_say(&s, &other, "secret/data/a", 200, "another's was not");

        let moved = s.put("sys/remount", &root, &json!({"from": "secret", "to": "moved"}));
        assert_eq!(moved.status, 200, "{}", moved.json());
        all_say(&s, &other, "secret/data/a", 404, "the mount was moved away");
        all_say(&s, &root, "moved/data/a", 200, "it is there now");
        let back = s.put("sys/remount", &root, &json!({"from": "moved", "to": "secret"}));
        assert_eq!(back.status, 200, "{}", back.json());
        all_say(&s, &other, "secret/data/a", 200, "and back");
    }
    let batch = token(&s, &root, json!({"type": "batch", "policies": ["app"]}));
    all_say(&s, &batch, "secret/data/a", 200, "known");
    let cut = s.put("auth/token/revoke-batch", &root, &json!({"all": true}));
    assert!(matches!(cut.status, 200 | 204), "{}", cut.json());
    all_say(&s, &batch, "secret/data/a", 403, "all batch tokens were cut off");

    let again = token(&s, &root, json!({"type": "batch", "policies": ["app"]}));
    all_say(&s, &again, "secret/data/a", 200, "known");
    assert_eq!(s.put("sys/seal", &root, &json!({})).status, 204);
    all_say(&s, &again, "secret/data/a", 503, "sealed");
    s.unseal();
    all_say(&s, &again, "secret/data/a", 200, "unsealed");
}
