//! Identity over the real binary: what a team does with entities, groups, templated policies and identity tokens, and
//! that all of it is still so after a restart.

use super::harness::{Answer, Server};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

fn write(s: &Server, path: &str, body: Value) -> Value {
    let a = s.put(path, &s.root, &body);
    assert!(matches!(a.status, 200 | 204), "{path}: {} {:?}", a.status, a.errors());
    a.json()["data"].clone()
}

fn read(s: &Server, path: &str) -> Value {
    let a = s.get(path, &s.root);
    assert_eq!(a.status, 200, "{path}: {:?}", a.errors());
    a.json()["data"].clone()
}

fn refused(a: &Answer, text: &str) {
    assert_eq!((a.status, a.errors()), (400, json!([text])));
}

/// A mount of userpass with these users, password `pw`; answers its accessor.
pub fn people(s: &Server, users: &[&str]) -> String {
    write(s, "sys/auth/userpass", json!({"type": "userpass"}));
    for user in users {
        write(s, &format!("auth/userpass/users/{user}"), json!({"password": "pw"}));
    }
    read(s, "sys/auth")["userpass/"]["accessor"].as_str().expect("an accessor").to_owned()
}

fn login(s: &Server, user: &str) -> (String, String) {
    let a = s.put(&format!("auth/userpass/login/{user}"), "", &json!({"password": "pw"}));
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let v = a.json();
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    (text(&v["auth"]["client_token"]), text(&v["auth"]["entity_id"]))
}

fn policy(s: &Server, name: &str, path: &str) {
    let text = format!("path \"{path}\" {{ capabilities = [\"create\", \"update\", \"read\", \"list\"] }}");
    write(s, &format!("sys/policies/acl/{name}"), json!({"policy": text}));
}

fn id(v: &Value) -> String {
    v["id"].as_str().unwrap_or_else(|| panic!("no id in {v}")).to_owned()
}

#[test]
fn a_team_lives_by_groups_and_templates() {
    let mut s = Server::ready("identity-team");
    let accessor = people(&s, &["ann", "bob"]);
    write(&s, "sys/mounts/kv", json!({"type": "kv"}));
    policy(&s, "own", "kv/{{identity.entity.name}}/*");
    policy(&s, "alias", &format!("kv/by-login/{{{{identity.entity.aliases.{accessor}.name}}}}"));
    policy(&s, "team", "kv/{{identity.groups.names.ops.metadata.folder}}/*");
    let ann = id(&write(&s, "identity/entity", json!({"name": "Ann", "policies": "own,alias"})));
    write(&s, "identity/entity-alias", json!({"name": "ann", "mount_accessor": accessor, "canonical_id": ann}));
    let ops = json!({"name": "ops", "metadata": {"folder": "ops"}, "member_entity_ids": [ann]});
    let ops = id(&write(&s, "identity/group", ops));
    write(&s, "identity/group", json!({"name": "all", "policies": "team", "member_group_ids": [ops]}));

    let (token, entity) = login(&s, "ann");
    assert_eq!(entity, ann);
    let (other, _) = login(&s, "bob");
    let body = json!({"k": "v"});
    for path in ["kv/Ann/a", "kv/by-login/ann", "kv/ops/a"] {
        assert_eq!(s.put(path, &token, &body).status, 204, "{path}");
        assert_eq!(s.get(path, &other).status, 403, "{path}");
    }
    for path in ["kv/Bob/a", "kv/by-login/bob", "kv/other/a"] {
        assert_eq!(s.put(path, &token, &body).status, 403, "{path}");
    }
    let look = s.get("auth/token/lookup-self", &token).json();
    assert_eq!(look["data"]["identity_policies"], json!(["alias", "own", "team"]));
    assert_eq!(look["data"]["policies"], json!(["default"]));
    // the default policy lets everybody read his own entity, and nobody else's
    assert_eq!(s.get(&format!("identity/entity/id/{ann}"), &token).status, 200);
    assert_eq!(s.get(&format!("identity/entity/id/{ann}"), &other).status, 403);

    // all of it is in the log
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(s.get("kv/ops/a", &token).status, 200);
    let page = read(&s, "identity/entity/name/ann");
    assert_eq!((&page["id"], &page["direct_group_ids"]), (&json!(ann), &json!([ops])));
    assert_eq!(page["aliases"][0]["mount_path"], "auth/userpass/");

    // a membership that ends counts at the very next request
    write(&s, &format!("identity/group/id/{ops}"), json!({"member_entity_ids": []}));
    assert_eq!(s.get("kv/ops/a", &token).status, 403);
    assert_eq!(s.get("kv/Ann/a", &token).status, 200);
    write(&s, &format!("identity/entity/id/{ann}"), json!({"disabled": true}));
    assert_eq!(s.get("auth/token/lookup-self", &token).status, 403);
    let a = s.put("auth/userpass/login/ann", "", &json!({"password": "pw"}));
    assert_eq!(a.status, 403, "{:?}", a.errors());
    write(&s, &format!("identity/entity/id/{ann}"), json!({"disabled": false}));
    assert_eq!(s.get("kv/Ann/a", &token).status, 200);
    assert_eq!(s.request("DELETE", &format!("identity/entity/id/{ann}"), &s.root, None).status, 204);
    assert_eq!(s.get("kv/Ann/a", &token).status, 403);
}

#[test]
fn lists_lookups_and_merges() {
    let s = Server::ready("identity-lists");
    let accessor = people(&s, &["ann", "bob"]);
    let (_, ann) = login(&s, "ann");
    let (_, bob) = login(&s, "bob");
    let keys = |path: &str| s.list(path, &s.root).json()["data"]["keys"].as_array().map_or(0, Vec::len);
    assert_eq!(
        (keys("identity/entity/id"), keys("identity/entity/name"), keys("identity/entity-alias/id")),
        (2, 2, 2)
    );
    let info = s.list("identity/entity/id", &s.root).json()["data"]["key_info"][&ann].clone();
    assert_eq!(info["aliases"][0]["mount_accessor"], accessor.as_str());
    assert_eq!(s.list("identity/group/id", &s.root).status, 404);
    let found =
        s.put("identity/lookup/entity", &s.root, &json!({"alias_name": "ANN", "alias_mount_accessor": accessor}));
    assert_eq!(found.json()["data"]["id"], ann.as_str());
    assert_eq!(s.put("identity/lookup/entity", &s.root, &json!({"name": "nobody"})).status, 204);
    assert_eq!(s.get("identity/entity/id/nobody", &s.root).errors(), json!([]));
    refused(&s.put("identity/lookup/entity", &s.root, &json!({})), "query parameter not supplied");
    refused(&s.put("identity/entity", &s.root, &json!({"policies": " ROOT"})), "policies cannot contain root");
    refused(
        &s.put("identity/entity-alias", &s.root, &json!({"name": "x"})),
        "'id' or 'mount_accessor' and 'name' must be provided",
    );
    // both have an alias at the mount: one must be chosen
    let merge = json!({"to_entity_id": ann, "from_entity_ids": [bob]});
    let a = s.put("identity/entity/merge", &s.root, &merge);
    assert_eq!(a.status, 400);
    let alias = read(&s, &format!("identity/entity/id/{bob}"))["aliases"][0]["id"].clone();
    let merge = json!({"to_entity_id": ann, "from_entity_ids": [bob], "conflicting_alias_ids_to_keep": [alias]});
    write(&s, "identity/entity/merge", merge);
    assert_eq!(login(&s, "bob").1, ann);
    // hostile shapes change nothing and the process stays
    let before = keys("identity/entity/id");
    for (path, body) in [
        ("identity/entity", json!({"metadata": [1, 2]})),
        ("identity/entity", json!({"metadata": {"k": {"deep": 1}}})),
        ("identity/entity", json!({"name": {"a": 1}})),
        ("identity/group", json!({"type": "odd"})),
        ("identity/group", json!({"member_entity_ids": {"a": 1}})),
        ("identity/entity/merge", json!({"from_entity_ids": 5})),
        ("identity/oidc/role/r", json!({"key": "default", "template": "{{"})),
        ("identity/oidc/key/k", json!({"rotation_period": "soon"})),
    ] {
        let a = s.put(path, &s.root, &body);
        assert_eq!(a.status, 400, "{path} {body}: {:?}", a.errors());
    }
    assert_eq!(keys("identity/entity/id"), before);
    assert_eq!(s.list("identity/group/id", &s.root).status, 404);
}

#[test]
fn identity_tokens_are_checked_by_what_is_published() {
    let mut s = Server::ready("identity-tokens");
    people(&s, &["ann"]);
    policy(&s, "tokens", "identity/oidc/token/*");
    let (token, ann) = login(&s, "ann");
    write(&s, &format!("identity/entity/id/{ann}"), json!({"policies": "tokens", "metadata": {"team": "blue"}}));
    write(&s, "identity/oidc/key/k", json!({"algorithm": "ES256", "allowed_client_ids": "*"}));
    let template = "{\"team\": {{identity.entity.metadata.team}}, \"groups\": {{identity.entity.groups.names}}}";
    write(&s, "identity/oidc/role/r", json!({"key": "k", "template": template, "ttl": "1h"}));
    write(&s, "identity/oidc/role/rsa", json!({"key": "default", "ttl": "1h"}));
    let a = s.get("identity/oidc/token/r", &token);
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let jwt = a.json()["data"]["token"].as_str().expect("a token").to_owned();

    let discovery = s.get("identity/oidc/.well-known/openid-configuration", "");
    assert_eq!(discovery.header("Cache-Control"), Some("max-age=3600"));
    let issuer = discovery.json()["issuer"].as_str().expect("an issuer").to_owned();
    assert_eq!(issuer, format!("http://127.0.0.1:{}/v1/identity/oidc", s.port));
    let claims = checked(&s, &jwt);
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(issuer), &json!(ann)));
    assert_eq!((&claims["team"], &claims["groups"]), (&json!("blue"), &json!([])));

    // the default key is made when it is first needed; its kind is RSA
    let a = s.get("identity/oidc/token/rsa", &token);
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let rsa = a.json()["data"]["token"].clone();
    let introspect =
        |s: &Server, token: &Value| s.put("identity/oidc/introspect", &s.root, &json!({"token": token})).json();
    assert_eq!(introspect(&s, &rsa), json!({"active": true}));

    // after a rotation and a restart, too
    write(&s, "identity/oidc/key/k/rotate", json!({}));
    s.kill();
    s.start();
    s.unseal();
    checked(&s, &jwt);
    assert_eq!(introspect(&s, &json!(jwt)), json!({"active": true}));
    write(&s, &format!("identity/entity/id/{ann}"), json!({"disabled": true}));
    assert_eq!(introspect(&s, &json!(jwt))["active"], false);
    let (code, out, err) = s.cli(&["read", "-format=json", "identity/oidc/key/k"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("ES256") && !out.contains("private"), "{out}");
}

/// Checks an ES256 token as a stranger would: with the published keys only.
fn checked(s: &Server, jwt: &str) -> Value {
    let keys = s.get("identity/oidc/.well-known/keys", "").json();
    let part = |n: usize| URL_SAFE_NO_PAD.decode(jwt.split('.').nth(n).expect("three parts")).expect("base64url");
    let header: Value = serde_json::from_slice(&part(0)).expect("a header");
    let jwk = keys["keys"].as_array().expect("keys").iter().find(|k| k["kid"] == header["kid"]).expect("the key");
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("text")).expect("base64url");
    let point = [&[4u8][..], &number("x"), &number("y")].concat();
    let signed = &jwt[..jwt.rfind('.').expect("three parts")];
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(signed.as_bytes(), &part(2)).expect("the signature holds");
    serde_json::from_slice(&part(1)).expect("claims")
}
