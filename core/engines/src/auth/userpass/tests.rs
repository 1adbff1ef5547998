//! Userpass from outside.

use super::Userpass;
use super::login::NOBODY;
use crate::fixture::{World, holds};
use ringfence_base::Code;
use ringfence_base::entropy::SeededEntropy;
use ringfence_crypto::password;
use ringfence_logical::Operation::{Read, Update};
use ringfence_logical::{Map, TokenType};
use serde_json::{Value, json};

const WRONG: &str = "invalid username or password";

fn world() -> World {
    World::new(Userpass)
}

/// A cheap hash, so that tests do not spend their time in bcrypt.
fn cheap(text: &str) -> String {
    password::hash(text.as_bytes(), 4, &mut SeededEntropy(1)).unwrap()
}

fn with_bob() -> World {
    let mut w = world();
    w.post("users/bob", json!({"password_hash": cheap("hunter2"), "token_policies": "Dev,ops", "token_ttl": "1h"}));
    w
}

#[test]
fn the_dummy_hash_is_one() {
    assert!(password::is_hash(NOBODY) && NOBODY.starts_with("$2a$10$"));
}

#[test]
fn users_are_kept() {
    let mut w = world();
    assert!(!w.exists("users/bob"));
    assert_eq!(w.refused(Update, "users/bob", json!({})), (Code::Invalid, "missing password".into()));
    assert_eq!(
        w.post("users/Bob", json!({"password": "hunter2", "policies": "dev", "ttl": 60})).code,
        Code::NoContent
    );
    assert_eq!(w.side_ops.len(), 1);
    assert!(w.exists("users/bob"));
    let read = w.get("users/BOB").data;
    assert_eq!(
        (&read["token_policies"], &read["policies"], &read["ttl"]),
        (&json!(["dev"]), &json!(["dev"]), &json!(60))
    );
    assert!(read.get("max_ttl").is_none() && read.get("password").is_none() && read.get("password_hash").is_none());
    w.post("users/alice", json!({"password_hash": cheap("x")}));
    assert_eq!(w.list("users").data["keys"], json!(["alice", "bob"]));
    assert_eq!(w.post("users/bob", json!({"token_ttl": 5})).code, Code::NoContent, "the password stays");
    assert_eq!(w.delete("users/bob").code, Code::NoContent);
    assert_eq!(w.get("users/bob").code, Code::NotFound);
    assert_eq!(w.delete("users/bob").code, Code::NoContent);
    w.delete("users/alice");
    assert_eq!(w.list("users").code, Code::NotFound);
}

#[test]
fn a_password_is_hashed_and_opens() {
    let mut w = world();
    w.post("users/bob", json!({"password": "hunter2"}));
    let auth = w.post("login/bob", json!({"password": "hunter2"})).response.unwrap().auth.unwrap();
    assert_eq!(auth.display_name, "bob");
    assert_eq!(auth.alias.unwrap().name, "bob");
    assert_eq!(auth.metadata["username"], "bob");
    assert!(w.side_ops.iter().all(|s| !s.contains("hunter2")));
}

#[test]
fn login_takes_what_the_user_says() {
    let mut w = with_bob();
    let auth = w.post("login/BOB", json!({"password": "hunter2"})).response.unwrap().auth.unwrap();
    assert_eq!(auth.policies, ["dev", "ops"]);
    assert_eq!((auth.ttl, auth.token_type), (3600, TokenType::Default));
    assert_eq!(w.writes, 0, "a login leaves no byte");
}

#[test]
fn unknown_users_and_wrong_passwords_look_the_same() {
    let mut w = with_bob();
    for (path, word) in [("login/bob", "wrong"), ("login/nobody", "hunter2")] {
        let e = w.run(Update, path, json!({"password": word})).unwrap_err();
        assert_eq!((e.code, e.errors[0].as_ref(), e.bad_credentials), (Code::Invalid, WRONG, true));
    }
    assert_eq!(w.side_ops.len(), 2, "both cost a comparison");
    assert!(w.side_ops[1].contains(NOBODY));
    let missing = w.refused(Update, "login/bob", json!({}));
    assert_eq!(missing, (Code::Internal, "1 error occurred:\n\t* missing password\n\n".into()));
    assert_eq!(w.refused(Read, "login/bob", Value::Null).0, Code::Unsupported);
}

#[test]
fn a_deleted_user_does_not_come_in_by_a_comparison_under_way() {
    // the verdict was "yes" when the user went: the resumed login must look again
    let mut w = with_bob();
    let step = w
        .transaction(Update, "login/bob", |cx| {
            super::login::verify(cx, "bob".into(), ringfence_base::Secret::new(b"hunter2".to_vec()))
        })
        .unwrap();
    let ringfence_logical::Step::Side { op, resume } = step else { panic!("a comparison was due") };
    let verdict = ringfence_logical::side::perform(&op);
    w.delete("users/bob");
    let again = w.transaction(Update, "login/bob", |cx| resume(cx, &verdict)).unwrap();
    let ringfence_logical::Step::Side { op, .. } = again else { panic!("compared with what is no longer there") };
    assert!(format!("{op:?}").contains(NOBODY));
}

#[test]
fn addresses_bind() {
    let mut w = with_bob();
    w.post("users/bob", json!({"token_bound_cidrs": "10.0.0.0/8"}));
    assert!(w.run(Update, "login/bob", json!({"password": "hunter2"})).is_ok());
    w.remote = "11.0.0.1".parse().ok();
    assert_eq!(
        w.refused(Update, "login/bob", json!({"password": "hunter2"})),
        (Code::Denied, "permission denied".into())
    );
}

#[test]
fn password_and_policies_have_paths_of_their_own() {
    let mut w = with_bob();
    let unknown = (Code::Internal, "1 error occurred:\n\t* username does not exist\n\n".to_owned());
    assert_eq!(w.refused(Update, "users/no/password", json!({"password": "x"})), unknown);
    assert_eq!(w.refused(Update, "users/no/policies", json!({"policies": "x"})), unknown);
    assert_eq!(w.refused(Update, "users/bob/password", json!({})), (Code::Invalid, "missing password".into()));
    assert_eq!(w.post("users/bob/password", json!({"password_hash": cheap("new")})).code, Code::NoContent);
    assert!(w.run(Update, "login/bob", json!({"password": "hunter2"})).is_err());
    assert!(w.run(Update, "login/bob", json!({"password": "new"})).is_ok());
    w.post("users/bob/policies", json!({"policies": "a,b"}));
    assert_eq!(w.get("users/bob").data["policies"], json!(["a", "b"]));
    w.post("users/bob/policies", json!({"token_policies": ["c"]}));
    assert_eq!(w.get("users/bob").data["token_policies"], json!(["c"]));
}

#[test]
fn bad_passwords_are_refused() {
    let mut w = world();
    for body in [
        json!({"password": "CANARY".repeat(13)}),
        json!({"password_hash": "CANARY"}),
        json!({"password": "CANARY", "password_hash": cheap("x")}),
        json!({"password": {"a": "CANARY"}}),
        json!({"password": "CANARY", "token_ttl": 9, "token_max_ttl": 5}),
    ] {
        assert_eq!(w.refused(Update, "users/bob", body).0, Code::Invalid);
    }
    let _ = w.run(Update, "login/bob", json!({"password": "CANARY"}));
    assert!(w.error_texts.iter().all(|t| !t.contains("CANARY")), "{:?}", w.error_texts);
    assert!(w.side_ops.iter().all(|t| !t.contains("CANARY")));
}

#[test]
fn nothing_of_a_password_is_stored_in_the_clear() {
    let mut w = world();
    let hash = cheap("hunter2");
    w.post("users/bob", json!({"password_hash": hash}));
    let image = w.image_bytes();
    assert!(!holds(&image, "hunter2") && !holds(&image, &hash));
}

#[test]
fn renewal_looks_at_the_user_again() {
    let mut w = with_bob();
    let auth = w.post("login/bob", json!({"password": "hunter2"})).response.unwrap().auth.unwrap();
    let renew = |w: &mut World, policies: &[&str], internal: &Map| {
        let policies: Vec<String> = policies.iter().map(|p| (*p).to_owned()).collect();
        w.with_engine(|e, cx| e.renew_token(cx, &policies, internal))
    };
    assert_eq!(renew(&mut w, &["default", "ops", "dev"], &auth.internal).unwrap().ttl, 3600);
    w.post("users/bob", json!({"token_policies": "dev"}));
    let e = renew(&mut w, &["default", "ops", "dev"], &auth.internal).unwrap_err();
    assert_eq!(e.errors[0], "policies have changed, not renewing");
    w.delete("users/bob");
    assert!(renew(&mut w, &["dev"], &auth.internal).is_err());
}
