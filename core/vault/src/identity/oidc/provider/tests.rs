//! What time does to codes and access tokens; the rest is told over HTTP (`tests/it/oidc.rs`, `tests/clients/oidc`).

use crate::tables;
use crate::testing::World;
use ringfence_base::{Code, NsId};
use serde_json::{Value, json};

const AT: &str = "identity/oidc/provider/default";

/// A world with a client for everybody, and a user; answers the client and the user's token.
fn world() -> (World, Value, String) {
    let mut w = World::new();
    let root = w.root.clone();
    let client = json!({"redirect_uris": "https://app.test/", "assignments": "allow_all", "access_token_ttl": "10m"});
    assert_eq!(w.post("identity/oidc/client/app", &root, client).0, Code::NoContent);
    let client = w.get("identity/oidc/client/app", &root).1["data"].clone();
    let login = w.post("auth/door/login/ann", "", json!({"ttl": "24h"})).1;
    let token = login["auth"]["client_token"].as_str().unwrap_or_else(|| panic!("{login}")).to_owned();
    (w, client, token)
}

fn authorize(w: &mut World, client: &Value, token: &str, more: Value) -> (Code, Value) {
    let mut body = json!({"scope": "openid", "response_type": "code", "redirect_uri": "https://app.test/",
        "client_id": client["client_id"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    w.post(&format!("{AT}/authorize"), token, body)
}

fn exchange(w: &mut World, client: &Value, code: &Value) -> (Code, Value) {
    let body = json!({"grant_type": "authorization_code", "code": code, "redirect_uri": "https://app.test/",
        "client_id": client["client_id"], "client_secret": client["client_secret"]});
    w.post(&format!("{AT}/token"), "", body)
}

#[test]
fn a_code_lives_five_minutes() {
    let (mut w, client, token) = world();
    let code = |w: &mut World| authorize(w, &client, &token, json!({})).1["code"].clone();
    let (first, second) = (code(&mut w), code(&mut w));
    w.now = w.now.plus_seconds(290);
    assert_eq!(exchange(&mut w, &client, &first).0, Code::Ok);
    w.now = w.now.plus_seconds(20);
    let (status, v) = exchange(&mut w, &client, &second);
    assert_eq!((status, &v["error"]), (Code::Invalid, &json!("invalid_grant")));
}

/// Codes that nobody comes for are cleared away by those who ask for others.
#[test]
fn codes_do_not_pile_up() {
    let (mut w, client, token) = world();
    let codes = |w: &mut World| {
        w.write(|txn, _| txn.list(&tables::oidc(NsId::ROOT, super::CODE, ""), None, usize::MAX).len())
    };
    for _ in 0..40 {
        authorize(&mut w, &client, &token, json!({}));
    }
    assert_eq!(codes(&mut w), 40);
    w.now = w.now.plus_seconds(301);
    authorize(&mut w, &client, &token, json!({}));
    assert_eq!(codes(&mut w), 40 - 32 + 1);
    authorize(&mut w, &client, &token, json!({}));
    assert_eq!(codes(&mut w), 2);
}

#[test]
fn a_login_can_be_too_old() {
    let (mut w, client, token) = world();
    w.now = w.now.plus_seconds(100);
    assert_eq!(authorize(&mut w, &client, &token, json!({"max_age": 200})).0, Code::Ok);
    w.now = w.now.plus_seconds(101);
    let (status, v) = authorize(&mut w, &client, &token, json!({"max_age": 200}));
    assert_eq!((status, &v["error"]), (Code::Invalid, &json!("max_age_violation")));
}

#[test]
fn an_access_token_ends() {
    let (mut w, client, token) = world();
    let code = authorize(&mut w, &client, &token, json!({})).1["code"].clone();
    let tokens = exchange(&mut w, &client, &code).1;
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    assert_eq!(tokens["expires_in"], 600);
    assert_eq!(w.get(&format!("{AT}/userinfo"), &access).0, Code::Ok);
    w.now = w.now.plus_seconds(601);
    let (status, v) = w.get(&format!("{AT}/userinfo"), &access);
    assert_eq!((status, &v["error"]), (Code::Custom(401), &json!("invalid_token")));
}
