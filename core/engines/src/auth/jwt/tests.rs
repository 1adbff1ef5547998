//! jwt and oidc from outside.

use super::Jwt;
use crate::fixture::signer::{Signer, sign_with_secret, token_of};
use crate::fixture::{World, holds};
use ringfence_base::Code;
use ringfence_logical::Operation::{Read, Update};
use ringfence_logical::{Auth, Map, TokenType};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

const NOW: u64 = 1_700_000_000;

fn world() -> World {
    World::new(Jwt)
}

/// A mount that trusts one static key, with a role for the audience `us`.
fn with_key(signer: &Signer) -> World {
    let mut w = world();
    w.post("config", json!({"jwt_validation_pubkeys": signer.public_pem(), "bound_issuer": "https://issuer.test"}));
    w.post(
        "role/Dev",
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "us", "token_policies": "dev",
        "groups_claim": "groups", "claim_mappings": {"mail": "email"}, "token_ttl": "1h", "token_type": "batch"}),
    );
    w
}

fn claims() -> Value {
    json!({"iss": "https://issuer.test", "sub": "alice", "aud": "us", "exp": NOW + 3600, "iat": NOW, "groups": ["g1", "g2"],
        "mail": "a@x"})
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut c = claims.clone();
    match value {
        Value::Null => c.as_object_mut().unwrap().remove(name),
        v => c.as_object_mut().unwrap().insert(name.into(), v),
    };
    c
}

fn login(w: &mut World, token: &str) -> Result<Auth, (Code, String)> {
    match w.run(Update, "login", json!({"role": "dev", "jwt": token})) {
        Ok(r) => Ok(r.unwrap().auth.unwrap()),
        Err(e) => Err((e.code, e.errors[0].to_string())),
    }
}

fn refusal(w: &mut World, token: &str) -> String {
    let (code, text) = login(w, token).unwrap_err();
    assert_eq!(code, Code::Invalid, "{text}");
    text
}

#[test]
fn a_token_becomes_an_identity() {
    let signer = Signer::new("ES256");
    let mut w = with_key(&signer);
    let auth = login(&mut w, &signer.token(&claims())).unwrap();
    assert_eq!((auth.display_name.as_str(), auth.policies.as_slice()), ("alice", &["dev".to_owned()][..]));
    assert_eq!((auth.ttl, auth.token_type), (3600, TokenType::Batch));
    assert_eq!(auth.alias.as_ref().unwrap().name, "alice");
    assert_eq!(auth.alias.as_ref().unwrap().metadata["email"], "a@x");
    assert_eq!((auth.metadata["role"].as_str(), auth.metadata["email"].as_str()), ("dev", "a@x"));
    assert_eq!(auth.group_aliases.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["g1", "g2"]);
    assert_eq!(w.writes, 0, "a login leaves no byte");
    assert!(w.asked.is_empty());
}

#[test]
fn every_claim_counts() {
    let signer = Signer::new("ES256");
    let mut w = with_key(&signer);
    let good = claims();
    let audience =
        "error validating token: invalid audience (aud) claim: audience claim does not match any bound audience";
    for (bad, text) in [
        (with(&good, "iss", json!("https://other.test")), "error validating token: invalid issuer (iss) claim"),
        (with(&good, "iss", Value::Null), "error validating token: invalid issuer (iss) claim"),
        (
            with(&good, "exp", json!(NOW - 100)),
            "error validating token: invalid expiration time (exp) claim: token is expired",
        ),
        (
            with(&good, "nbf", json!(NOW + 900)),
            "error validating token: invalid not before (nbf) claim: token not yet valid",
        ),
        (with(&good, "aud", json!("them")), audience),
        (with(&good, "aud", json!(["them", "others"])), audience),
        (with(&good, "aud", json!([])), audience),
        (with(&good, "aud", json!({"us": "us"})), audience),
        (with(&good, "aud", Value::Null), audience),
        (with(&good, "sub", Value::Null), "claim \"sub\" not found in token"),
        (with(&good, "sub", json!(7)), "claim \"sub\" could not be converted to string"),
        (with(&good, "groups", Value::Null), "\"groups\" claim not found in token"),
        (with(&good, "groups", json!({"a": 1})), "\"groups\" claim could not be converted to string list"),
        (with(&good, "groups", json!([1])), "value 1 in groups claim could not be parsed as string"),
        (with(&good, "mail", json!({"a": 1})), "error converting claim 'mail' to string"),
    ] {
        assert_eq!(refusal(&mut w, &signer.token(&bad)), text);
    }
    assert!(login(&mut w, &signer.token(&with(&good, "aud", json!(["them", "us"])))).is_ok());
    assert!(login(&mut w, &signer.token(&with(&good, "groups", json!("one")))).is_ok());
}

#[test]
fn cve_2024_5798_an_audience_needs_a_role_that_says_for_whom() {
    let signer = Signer::new("ES256");
    let mut w = with_key(&signer);
    w.post("role/dev", json!({"bound_audiences": [], "bound_subject": "alice"}));
    let text = "audience claim found in JWT but no audiences bound to the role";
    for aud in [json!("us"), json!(["us"]), json!([]), json!(""), json!(5)] {
        assert_eq!(refusal(&mut w, &signer.token(&with(&claims(), "aud", aud))), text);
    }
    assert!(login(&mut w, &signer.token(&with(&claims(), "aud", Value::Null))).is_ok());
    w.post("role/dev", json!({"bound_subject": "bob"}));
    let text = "error validating token: invalid subject (sub) claim";
    assert_eq!(refusal(&mut w, &signer.token(&with(&claims(), "aud", Value::Null))), text);
}

#[test]
fn bound_claims_as_text_and_glob() {
    let signer = Signer::new("ES256");
    let mut w = with_key(&signer);
    w.post(
        "role/dev",
        json!({"bound_claims": {"/org/unit": ["a*", "b"], "level": 3}, "bound_claims_type": "string"}),
    );
    let of = |unit: Value, level: Value| with(&with(&claims(), "org", json!({ "unit": unit })), "level", level);
    let against = |name: &str| {
        format!("error validating claims: claim {name:?} does not match any associated bound claim values")
    };
    assert!(login(&mut w, &signer.token(&of(json!("b"), json!(3)))).is_ok());
    assert!(login(&mut w, &signer.token(&of(json!(["x", "b"]), json!(3.0)))).is_ok());
    assert_eq!(refusal(&mut w, &signer.token(&of(json!("abc"), json!(3)))), against("/org/unit"));
    assert_eq!(refusal(&mut w, &signer.token(&of(json!("b"), json!("3")))), against("level"));
    assert_eq!(refusal(&mut w, &signer.token(&of(json!([]), json!(3)))), against("/org/unit"));
    assert_eq!(
        refusal(&mut w, &signer.token(&with(&of(json!("b"), json!(3)), "level", Value::Null))),
        "error validating claims: claim \"level\" is missing"
    );
    w.post("role/dev", json!({"bound_claims": {"/org/unit": ["a*"]}, "bound_claims_type": "glob"}));
    assert!(login(&mut w, &signer.token(&of(json!("abc"), json!(3)))).is_ok());
    assert!(login(&mut w, &signer.token(&of(json!("xabc"), json!(3)))).is_err());
}

#[test]
fn alg_confusion_and_unsigned_tokens() {
    let signer = Signer::new("RS256");
    let mut w = with_key(&signer);
    assert!(login(&mut w, &signer.token(&claims())).is_ok());
    for forged in [
        sign_with_secret("HS256", &claims(), signer.public_pem().as_bytes()),
        token_of(&json!({"alg": "none"}), &claims(), b""),
        token_of(&json!({"alg": "RS256"}), &claims(), b""),
        Signer::new("RS256").token(&claims()),
        Signer::new("ES256").token(&claims()),
    ] {
        assert!(refusal(&mut w, &forged).starts_with("error validating token: "), "{forged}");
    }
    w.post("config", json!({"jwt_validation_pubkeys": signer.public_pem(), "jwt_supported_algs": "ES256"}));
    assert!(refusal(&mut w, &signer.token(&claims())).contains("unsupported signing algorithm \"RS256\""));
}

#[test]
fn logins_that_name_nothing() {
    let signer = Signer::new("ES256");
    let mut w = world();
    assert_eq!(refusal(&mut w, "x"), "could not load configuration");
    let mut w2 = with_key(&signer);
    let of = |w: &mut World, v: Value| w.refused(Update, "login", v).1;
    assert_eq!(of(&mut w2, json!({"jwt": "x"})), "missing role");
    assert_eq!(of(&mut w2, json!({"role": "Nobody", "jwt": "x"})), "role \"nobody\" could not be found");
    assert_eq!(of(&mut w2, json!({"role": "DEV"})), "missing token");
    w2.post("role/web", json!({"user_claim": "sub", "allowed_redirect_uris": "http://localhost/cb"}));
    assert_eq!(of(&mut w2, json!({"role": "web", "jwt": "x"})), "role with oidc role_type is not allowed");
    w2.remote = "11.0.0.1".parse().ok();
    w2.post("role/dev", json!({"token_bound_cidrs": "10.0.0.0/8"}));
    assert_eq!(login(&mut w2, &signer.token(&claims())).unwrap_err(), (Code::Denied, "permission denied".into()));
}

#[test]
fn roles_are_checked_and_read_back() {
    let mut w = world();
    for (body, text) in [
        (
            json!({"user_claim": "sub"}),
            "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.",
        ),
        (
            json!({"role_type": "jwt", "user_claim": "sub"}),
            "must have at least one bound constraint when creating/updating a role",
        ),
        (json!({"role_type": "jwt", "bound_subject": "x"}), "a user claim must be defined on the role"),
        (json!({"role_type": "x", "user_claim": "sub"}), "invalid 'role_type': x"),
        (
            json!({"role_type": "jwt", "user_claim": "sub", "bound_subject": "x", "bound_claims_type": "re"}),
            "invalid 'bound_claims_type': re",
        ),
        (
            json!({"role_type": "jwt", "user_claim": "sub", "bound_subject": "x", "claim_mappings": {"a": "k", "b": "k"}}),
            "multiple keys are mapped to metadata key \"k\"",
        ),
        (
            json!({"role_type": "jwt", "user_claim": "sub", "bound_subject": "x", "claim_mappings": {"a": "role"}}),
            "metadata key \"role\" is reserved and may not be a mapping destination",
        ),
        (
            json!({"role_type": "jwt", "user_claim": "sub", "bound_claims": {"a": {"b": 1}}}),
            "claim is not a string or list: a",
        ),
    ] {
        assert_eq!(w.refused(Update, "role/r", body), (Code::Invalid, text.into()));
    }
    assert_eq!(w.get("role/r").code, Code::NotFound);
    w.post("role/R", json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "a,b", "clock_skew_leeway": -1, "max_age": "1m"}));
    let read = w.get("role/r").data;
    assert_eq!(
        (&read["bound_audiences"], &read["clock_skew_leeway"], &read["max_age"]),
        (&json!(["a", "b"]), &json!(-1), &json!(60))
    );
    assert_eq!(
        (&read["bound_claims"], &read["role_type"], &read["token_type"]),
        (&Value::Null, &json!("jwt"), &json!("default"))
    );
    assert_eq!(w.list("role").data["keys"], json!(["r"]));
    w.delete("role/r");
    assert_eq!(w.list("role").code, Code::NotFound);
}

#[test]
fn configurations_are_checked() {
    let mut w = world();
    let pem = Signer::new("ES256").public_pem();
    let one = "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url' must be set";
    for (body, text) in [
        (json!({}), one.to_owned()),
        (json!({"jwks_url": "http://x", "jwt_validation_pubkeys": pem}), one.to_owned()),
        (
            json!({"jwt_validation_pubkeys": "junk"}),
            "error parsing public key: data does not contain any valid public keys".into(),
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "jwt_supported_algs": "HS256"}),
            "Invalid supported algorithm: HS256".into(),
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "oidc_client_secret": "s"}),
            "both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC".into(),
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "oidc_client_id": "c"}),
            "'oidc_discovery_url' must be set for OIDC".into(),
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "oidc_response_mode": "fragment"}),
            "invalid response_mode: \"fragment\"".into(),
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "provider_config": {"provider": "azure"}}),
            "provider \"azure\" not found in custom providers".into(),
        ),
        (
            json!({"jwks_url": "http://nobody.test/keys"}),
            "error checking jwks URL: nobody is at http://nobody.test/keys".into(),
        ),
        (
            json!({"oidc_discovery_url": "http://nobody.test/"}),
            "error checking oidc discovery URL: nobody is at http://nobody.test/.well-known/openid-configuration"
                .into(),
        ),
    ] {
        assert_eq!(w.refused(Update, "config", body), (Code::Invalid, text));
    }
    assert_eq!(w.get("config").code, Code::NotFound);
    w.post("config", json!({"jwt_validation_pubkeys": [pem], "default_role": "dev"}));
    assert_eq!(w.get("config").data["jwt_validation_pubkeys"], json!([pem.trim()]));
}

/// An issuer that can be made to change its keys, or to be away.
fn issuer(w: &mut World, signer: &Signer) -> (Rc<RefCell<Value>>, Rc<RefCell<bool>>) {
    let (set, away) = (Rc::new(RefCell::new(json!({"keys": [signer.jwk()]}))), Rc::new(RefCell::new(false)));
    let (s, a) = (set.clone(), away.clone());
    w.web = Box::new(move |ask| match *a.borrow() {
        true => Err("connection refused".into()),
        false if ask.url == "https://issuer.test/keys" => Ok((200, s.borrow().clone())),
        false => Ok((404, json!({}))),
    });
    w.post(
        "config",
        json!({"jwks_url": "https://issuer.test/keys", "jwks_ca_pem": "CA", "bound_issuer": "https://issuer.test"}),
    );
    w.post("role/dev", json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "us"}));
    (set, away)
}

#[test]
fn a_key_set_is_kept_and_fetched_anew_for_an_unknown_key() {
    let first = Signer::new("ES256");
    let mut w = world();
    let (set, _) = issuer(&mut w, &first);
    assert_eq!((w.asked.len(), w.asked[0].ca_pem.as_deref()), (1, Some("CA")));
    assert!(login(&mut w, &first.token(&claims())).is_ok());
    assert_eq!((w.asked.len(), w.writes), (1, 0), "the kept set does");
    let mut second = Signer::new("ES256");
    second.id = "key-2".into();
    *set.borrow_mut() = json!({"keys": [second.jwk()]});
    // the kept set is young: nobody is asked
    assert!(
        refusal(&mut w, &second.token(&claims())).contains("no known key successfully validated the token signature")
    );
    assert_eq!(w.asked.len(), 1);
    w.now = w.now.plus_seconds(60);
    assert!(login(&mut w, &second.token(&claims())).is_ok());
    assert_eq!((w.asked.len(), w.writes), (2, 1));
    assert!(w.asked[1].fresh_s >= 10, "a stranger's tokens do not become requests");
    assert!(login(&mut w, &first.token(&claims())).is_err(), "a key that was withdrawn is dead");
}

#[test]
fn an_old_key_set_is_fetched_anew_and_an_absent_issuer_is_borne_for_a_day() {
    let signer = Signer::new("ES256");
    let mut w = world();
    let (set, away) = issuer(&mut w, &signer);
    let token = signer.token(&with(&claims(), "exp", json!(NOW + 1_000_000)));
    w.now = w.now.plus_seconds(3700);
    assert!(login(&mut w, &token).is_ok());
    assert_eq!((w.asked.len(), w.writes), (2, 1));
    *away.borrow_mut() = true;
    w.now = w.now.plus_seconds(3700);
    assert!(login(&mut w, &token).is_ok());
    w.now = w.now.plus_seconds(24 * 3600);
    assert!(refusal(&mut w, &token).contains("fetching keys: connection refused"));
    *away.borrow_mut() = false;
    *set.borrow_mut() = json!({"keys": []});
    assert!(login(&mut w, &token).is_err());
}

/// An OpenID provider, and what its token endpoint answers.
fn provider(signer: Signer) -> (World, Rc<RefCell<Value>>, Rc<Signer>) {
    let mut w = world();
    let tokens = Rc::new(RefCell::new(Value::Null));
    let signer = Rc::new(signer);
    let (t, s) = (tokens.clone(), signer.clone());
    w.web = Box::new(move |ask| match ask.url.as_str() {
        "https://op.test/.well-known/openid-configuration" => Ok((
            200,
            json!({"issuer": "https://op.test", "authorization_endpoint": "https://op.test/auth", "token_endpoint":
                "https://op.test/token", "userinfo_endpoint": "https://op.test/me", "jwks_uri": "https://op.test/keys"}),
        )),
        "https://op.test/keys" => Ok((200, json!({"keys": [s.jwk()]}))),
        "https://op.test/token" => Ok((if t.borrow()["error"].is_null() { 200 } else { 400 }, t.borrow().clone())),
        "https://op.test/me" => Ok((200, json!({"sub": "alice", "groups": ["told"], "iss": "https://evil.test"}))),
        other => panic!("{other}"),
    });
    w.post("config", config_with(json!({})));
    w.post(
        "role/web",
        json!({"user_claim": "sub", "groups_claim": "groups", "oidc_scopes": "profile", "max_age": 600,
        "allowed_redirect_uris": "http://localhost:8250/oidc/callback"}),
    );
    (w, tokens, signer)
}

/// The provider's configuration with more in it.
fn config_with(more: Value) -> Value {
    let mut config = json!({"oidc_discovery_url": "https://op.test/", "oidc_client_id": "us",
        "oidc_client_secret": "CANARY", "default_role": "web"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn query_of(url: &str) -> Map {
    let plain = |s: &str| {
        let mut out = Vec::new();
        let mut bytes = s.bytes();
        while let Some(b) = bytes.next() {
            match b {
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                b => out.push(b),
            }
        }
        String::from_utf8(out).unwrap()
    };
    let query = url.split_once('?').unwrap().1;
    query.split('&').map(|p| p.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), plain(v).into())).collect()
}

fn begin(w: &mut World, nonce: &str) -> Map {
    let body = json!({"redirect_uri": "http://localhost:4711/oidc/callback", "client_nonce": nonce});
    let url = w.post("oidc/auth_url", body).data["auth_url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://op.test/auth?"), "{url}");
    assert_eq!(w.writes, 0, "beginning a login leaves no byte");
    query_of(&url)
}

fn id_token(signer: &Signer, nonce: &Value) -> Value {
    json!({"id_token": signer.token(&json!({"iss": "https://op.test", "sub": "alice", "aud": "us", "nonce": nonce,
        "exp": NOW + 600, "iat": NOW, "auth_time": NOW})), "access_token": "at"})
}

fn back(w: &mut World, state: &Value, nonce: &str) -> Result<Auth, String> {
    let body = json!({"state": state, "code": "c0de", "client_nonce": nonce});
    w.run(Read, "oidc/callback", body).map(|r| r.unwrap().auth.unwrap()).map_err(|e| e.errors[0].to_string())
}

#[test]
fn the_code_flow() {
    let (mut w, tokens, signer) = provider(Signer::new("RS256"));
    let sent = begin(&mut w, "mine");
    assert_eq!(
        (&sent["scope"], &sent["response_type"], &sent["client_id"]),
        (&json!("openid profile"), &json!("code"), &json!("us"))
    );
    assert_eq!((&sent["max_age"], &sent["code_challenge_method"]), (&json!("600"), &json!("S256")));
    *tokens.borrow_mut() = id_token(&signer, &sent["nonce"]);
    assert_eq!(back(&mut w, &sent["state"], "other").unwrap_err(), "Vault login failed. invalid client_nonce");
    let auth = back(&mut w, &sent["state"], "mine").unwrap();
    assert_eq!((auth.display_name.as_str(), auth.metadata["role"].as_str()), ("alice", "web"));
    assert_eq!(auth.group_aliases[0].name, "told", "the provider's word beside the token counts");
    let exchange = w.asked.iter().rfind(|a| a.url.ends_with("/token")).unwrap();
    let form = query_of(&format!("?{}", String::from_utf8(exchange.body.clone()).unwrap()));
    assert_eq!(
        (&form["code"], &form["redirect_uri"]),
        (&json!("c0de"), &json!("http://localhost:4711/oidc/callback"))
    );
    use base64::Engine as _;
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_str().unwrap().as_bytes());
    assert_eq!(json!(url.encode(digest)), sent["code_challenge"], "RFC 7636 4.6");
    // once only
    assert_eq!(
        back(&mut w, &sent["state"], "mine").unwrap_err(),
        "Vault login failed. Expired or missing OAuth state."
    );
}

#[test]
fn what_comes_back_is_judged() {
    let (mut w, tokens, signer) = provider(Signer::new("RS256"));
    let sent = begin(&mut w, "");
    let lost = "Vault login failed. Expired or missing OAuth state.";
    for state in
        [json!(""), json!("st_x"), json!("st_e30.AAAA"), json!(format!("{}x", sent["state"].as_str().unwrap()))]
    {
        assert_eq!(back(&mut w, &state, "").unwrap_err(), lost);
    }
    *tokens.borrow_mut() = json!({"error": "invalid_grant"});
    assert_eq!(
        back(&mut w, &sent["state"], "").unwrap_err(),
        "Vault login failed. Error exchanging oidc code: \"invalid_grant\" (status 400)"
    );
    *tokens.borrow_mut() = id_token(&signer, &json!("another"));
    assert_eq!(
        back(&mut w, &sent["state"], "").unwrap_err(),
        "Vault login failed. Token verification failed. invalid nonce"
    );
    *tokens.borrow_mut() = id_token(&Signer::new("RS256"), &sent["nonce"]);
    assert!(back(&mut w, &sent["state"], "").unwrap_err().contains("no known key"));
    let e = w.run(Read, "oidc/callback", json!({"state": sent["state"], "error": "access_denied"})).unwrap_err();
    assert_eq!(e.errors[0], "Vault login failed. Provider returned error: access_denied");
    let e = w.run(Read, "oidc/callback", json!({"state": sent["state"]})).unwrap_err();
    assert_eq!(e.errors[0], "Vault login failed. No code or id_token received.");
    *tokens.borrow_mut() = id_token(&signer, &sent["nonce"]);
    w.now = w.now.plus_seconds(301);
    assert_eq!(back(&mut w, &sent["state"], "").unwrap_err(), lost);
    assert!(w.error_texts.iter().all(|t| !t.contains("CANARY")));
}

/// OpenID Connect Core 5.3.2: where neither the token nor the provider's word beside it names a subject, the two were taken
/// to be about the same one.
#[test]
fn user_info_without_its_subject_is_refused() {
    let (mut w, tokens, signer) = provider(Signer::new("RS256"));
    w.post(
        "role/web",
        json!({"user_claim": "email", "groups_claim": "groups", "oidc_scopes": "profile", "max_age": 600,
        "allowed_redirect_uris": "http://localhost:8250/oidc/callback"}),
    );
    let told = Rc::new(RefCell::new(Value::Null));
    let (mut rest, t) = (std::mem::replace(&mut w.web, Box::new(|_| panic!("replaced"))), told.clone());
    w.web = Box::new(move |ask| match ask.url.as_str() {
        "https://op.test/me" => Ok((200, t.borrow().clone())),
        _ => rest(ask),
    });
    for (in_token, beside, good) in [
        (json!("alice"), json!({"sub": "alice", "groups": ["told"]}), true),
        (json!("alice"), json!({"sub": "bob", "groups": ["admins"]}), false),
        (json!("alice"), json!({"groups": ["admins"]}), false),
        (Value::Null, json!({"groups": ["admins"]}), false),
        (json!(""), json!({"sub": "", "groups": ["admins"]}), false),
        (json!(7), json!({"sub": 7, "groups": ["admins"]}), false),
    ] {
        let sent = begin(&mut w, "");
        let mut claims = json!({"iss": "https://op.test", "sub": in_token, "aud": "us", "nonce": sent["nonce"],
            "email": "a@op.test", "exp": w.now.seconds() + 600, "iat": w.now.seconds(), "auth_time": w.now.seconds()});
        if in_token.is_null() {
            claims.as_object_mut().unwrap().remove("sub");
        }
        *tokens.borrow_mut() = json!({"id_token": signer.token(&claims), "access_token": "at"});
        *told.borrow_mut() = beside.clone();
        let got = back(&mut w, &sent["state"], "");
        assert_eq!(got.is_ok(), good, "{in_token} {beside}: {got:?}");
        if let Err(why) = got {
            assert!(why.contains("it tells of another subject") || why.contains("sub"), "{why}");
        }
    }
}

#[test]
fn logins_that_cannot_begin_get_no_url() {
    let (mut w, _, _) = provider(Signer::new("RS256"));
    let ask = |w: &mut World, v: Value| w.post("oidc/auth_url", v).data["auth_url"].clone();
    assert_eq!(ask(&mut w, json!({"redirect_uri": "http://evil.test/oidc/callback"})), json!(""));
    w.post("role/dev", json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "us"}));
    assert_eq!(ask(&mut w, json!({"role": "dev", "redirect_uri": "http://localhost:8250/oidc/callback"})), json!(""));
    assert_eq!(w.refused(Update, "oidc/auth_url", json!({})).1, "missing redirect_uri");
    assert_eq!(
        w.refused(Update, "oidc/auth_url", json!({"role": "x", "redirect_uri": "y"})).1,
        "role \"x\" could not be found"
    );
    assert!(w.get("config").data.get("oidc_client_secret").is_none());
    let image = w.image_bytes();
    assert!(!holds(&image, "CANARY"));
    let signer = Signer::new("ES256");
    let mut w = with_key(&signer);
    assert_eq!(w.refused(Update, "oidc/auth_url", json!({})).1, "OIDC login is not configured for this mount");
}

#[test]
fn used_states_are_cleared_away() {
    let (mut w, tokens, signer) = provider(Signer::new("RS256"));
    let base = w.records();
    for _ in 0..5 {
        let sent = begin(&mut w, "");
        *tokens.borrow_mut() = id_token(&signer, &sent["nonce"]);
        back(&mut w, &sent["state"], "").unwrap();
        w.now = w.now.plus_seconds(100);
    }
    assert!(w.records() <= base + 4, "{}", w.records() - base);
}

#[test]
fn renewal_needs_the_role() {
    let signer = Signer::new("ES256");
    let mut w = with_key(&signer);
    let auth = login(&mut w, &signer.token(&claims())).unwrap();
    assert_eq!(w.with_engine(|e, cx| e.renew_token(cx, &[], &auth.internal)).unwrap().ttl, 3600);
    w.delete("role/dev");
    assert!(w.with_engine(|e, cx| e.renew_token(cx, &[], &auth.internal)).is_err());
}

/// A provider that posts: the answer is kept until the client that began the login comes for it, without the code.
#[test]
fn what_the_provider_posts_is_kept_for_the_client() {
    let (mut w, tokens, signer) = provider(Signer::new("RS256"));
    w.post("config", config_with(json!({"oidc_response_mode": "form_post"})));
    let sent = begin(&mut w, "mine");
    assert_eq!(sent["response_mode"], "form_post");
    *tokens.borrow_mut() = id_token(&signer, &sent["nonce"]);
    let posted = |w: &mut World, state: &Value, code: &str| {
        w.run(Update, "oidc/callback", json!({"state": state, "code": code})).map(|r| r.unwrap().raw.unwrap())
    };
    assert_eq!(
        posted(&mut w, &json!("st_x.y"), "c0de").unwrap_err().errors[0],
        "Vault login failed. Expired or missing OAuth state."
    );
    assert_eq!(posted(&mut w, &sent["state"], "c0de").unwrap().content_type, "text/html");
    // the first answer counts
    posted(&mut w, &sent["state"], "stranger's").unwrap();
    assert!(posted(&mut w, &sent["state"], &"x".repeat(17_000)).is_err());
    let come = |w: &mut World, nonce: &str| {
        let body = json!({"state": sent["state"], "code": "no_code", "client_nonce": nonce});
        w.run(Read, "oidc/callback", body).map(|r| r.unwrap().auth.unwrap()).map_err(|e| e.errors[0].to_string())
    };
    assert_eq!(come(&mut w, "other").unwrap_err(), "Vault login failed. invalid client_nonce");
    assert_eq!(come(&mut w, "mine").unwrap().display_name, "alice");
    let exchange = w.asked.iter().rfind(|a| a.url.ends_with("/token")).unwrap();
    assert!(String::from_utf8(exchange.body.clone()).unwrap().contains("code=c0de&"));
    assert_eq!(come(&mut w, "mine").unwrap_err(), "Vault login failed. Expired or missing OAuth state.");
    assert!(!holds(&w.image_bytes(), "c0de"));
}

/// An identity token may come posted instead of a code; in a query it is not looked at.
#[test]
fn a_posted_identity_token_needs_no_exchange() {
    let (mut w, _, signer) = provider(Signer::new("RS256"));
    let types = json!({"oidc_response_mode": "form_post", "oidc_response_types": "id_token"});
    w.post("config", config_with(types));
    w.post("role/web", json!({"groups_claim": ""}));
    let sent = begin(&mut w, "mine");
    assert_eq!((&sent["response_type"], sent.get("code_challenge")), (&json!("id_token"), None));
    let token = id_token(&signer, &sent["nonce"])["id_token"].clone();
    let come = |w: &mut World, token: Value| {
        let body = json!({"state": sent["state"], "client_nonce": "mine", "id_token": token});
        w.run(Read, "oidc/callback", body).map(|r| r.unwrap().auth.unwrap()).map_err(|e| e.errors[0].to_string())
    };
    assert_eq!(come(&mut w, token.clone()).unwrap_err(), "Vault login failed. No code or id_token received.");
    w.run(Update, "oidc/callback", json!({"state": sent["state"], "id_token": token})).unwrap();
    assert_eq!(come(&mut w, json!("")).unwrap().display_name, "alice");
    assert!(w.asked.iter().all(|a| !a.url.ends_with("/token")));
}

/// The browser comes back to the server; the client asks until it has.
#[test]
fn direct_callback() {
    let (mut w, tokens, signer) = provider(Signer::new("RS256"));
    w.post("role/web", json!({"callback_mode": "direct", "poll_interval": "2s"}));
    assert_eq!(w.get("role/web").data["poll_interval"], 2);
    assert_eq!(
        w.refused(Update, "role/web", json!({"callback_mode": "device"})).1,
        "invalid 'callback_mode': device"
    );
    let redirect = "http://localhost:4711/oidc/callback";
    assert_eq!(w.refused(Update, "oidc/auth_url", json!({"redirect_uri": redirect})).1, "missing client_nonce");
    let begun = w.post("oidc/auth_url", json!({"redirect_uri": redirect, "client_nonce": "mine"})).data;
    assert_eq!(begun["poll_interval"], "2");
    let sent = query_of(begun["auth_url"].as_str().unwrap());
    assert_eq!(sent["state"], begun["state"]);
    *tokens.borrow_mut() = id_token(&signer, &sent["nonce"]);
    let poll = |w: &mut World, nonce: &str| {
        let body = json!({"state": begun["state"], "client_nonce": nonce});
        w.run(Update, "oidc/poll", body).map(|r| r.unwrap().auth.unwrap()).map_err(|e| e.errors[0].to_string())
    };
    assert_eq!(poll(&mut w, "mine").unwrap_err(), "authorization_pending");
    // the browser does not know the nonce and gets no token
    let page = w.run(Read, "oidc/callback", json!({"state": begun["state"], "code": "c0de"})).unwrap().unwrap();
    assert!(page.auth.is_none() && page.raw.is_some());
    assert_eq!(poll(&mut w, "").unwrap_err(), "Vault login failed. invalid client_nonce");
    assert_eq!(poll(&mut w, "mine").unwrap().display_name, "alice");
    assert_eq!(poll(&mut w, "mine").unwrap_err(), "Vault login failed. Expired or missing OAuth state.");
}

/// Anybody may begin logins and post answers; what that leaves is bounded and goes with time.
#[test]
fn answers_that_nobody_comes_for_are_bounded() {
    let (mut w, _, _) = provider(Signer::new("RS256"));
    let base = w.records();
    let mut n = 0;
    let mut post = |w: &mut World| {
        n += 1;
        let begin = json!({"redirect_uri": "http://localhost:4711/oidc/callback", "client_nonce": n.to_string()});
        let url = w.post("oidc/auth_url", begin).data["auth_url"].clone();
        let state = query_of(url.as_str().unwrap())["state"].clone();
        w.run(Update, "oidc/callback", json!({"state": state, "code": "x"}))
    };
    let began = w.now;
    for _ in 0..1024 {
        // all at once
        w.now = began;
        post(&mut w).unwrap();
    }
    w.now = began;
    assert_eq!(w.records(), base + 1024);
    assert_eq!(post(&mut w).unwrap_err().code, Code::Quota);
    w.now = w.now.plus_seconds(301);
    post(&mut w).unwrap();
    assert!(w.records() < base + 1024);
}
