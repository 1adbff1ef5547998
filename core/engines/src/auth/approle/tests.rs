//! AppRole from outside.

use super::Approle;
use crate::fixture::{World, holds};
use proptest::prelude::*;
use ringfence_base::Code;
use ringfence_logical::Operation::{Delete, List, Read, Update};
use ringfence_logical::{Error, Response, TokenType};
use serde_json::{Value, json};

const WRONG: &str = "invalid role or secret ID";

fn world() -> World {
    World::new(Approle)
}

fn with_role(body: Value) -> World {
    let mut w = world();
    assert_eq!(w.post("role/web", body).code, Code::NoContent);
    w
}

fn role_id(w: &mut World) -> String {
    w.get("role/web/role-id").data["role_id"].as_str().unwrap().to_owned()
}

/// Makes a secret-id; answers it and its accessor.
fn secret_id(w: &mut World, body: Value) -> (String, String) {
    let d = w.post("role/web/secret-id", body).data;
    (d["secret_id"].as_str().unwrap().to_owned(), d["secret_id_accessor"].as_str().unwrap().to_owned())
}

fn login(w: &mut World, role_id: &str, secret_id: &str) -> Result<Option<Response>, Error> {
    w.run(Update, "login", json!({"role_id": role_id, "secret_id": secret_id}))
}

fn is_wrong(r: Result<Option<Response>, Error>) {
    let e = r.unwrap_err();
    assert_eq!((e.code, e.errors[0].as_ref(), e.bad_credentials), (Code::Invalid, WRONG, true));
}

#[test]
fn roles_are_kept() {
    let mut w = world();
    assert!(!w.exists("role/web"));
    w.post(
        "role/Web",
        json!({"token_policies": "Dev", "secret_id_num_uses": "5", "secret_id_ttl": "10m", "token_type": "batch"}),
    );
    assert!(w.exists("role/web"));
    assert_eq!(
        w.get("role/WEB").data,
        json!({
            "bind_secret_id": true, "local_secret_ids": false, "secret_id_bound_cidrs": null, "secret_id_num_uses": 5,
            "secret_id_ttl": 600, "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0,
            "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0, "token_policies": ["dev"],
            "token_strictly_bind_ip": false, "token_ttl": 0, "token_type": "batch",
        })
    );
    w.post("role/web", json!({"secret_id_bound_cidrs": "10.0.0.0/8", "token_ttl": "1m"}));
    let read = w.get("role/web").data;
    assert_eq!((&read["secret_id_bound_cidrs"], &read["secret_id_num_uses"]), (&json!(["10.0.0.0/8"]), &json!(5)));
    w.post("role/other", json!({"policies": "x", "token_type": "service", "period": 60}));
    let read = w.get("role/other").data;
    assert_eq!((&read["policies"], &read["period"], &read["token_period"]), (&json!(["x"]), &json!(60), &json!(60)));
    assert_eq!(w.list("role").data["keys"], json!(["other", "web"]));
    assert_eq!(w.delete("role/web").code, Code::NoContent);
    assert_eq!(w.get("role/web").code, Code::NotFound);
    assert_eq!(w.get("role/web/role-id").code, Code::NotFound);
    assert_eq!(w.delete("role/web").code, Code::NoContent);
}

#[test]
fn role_refusals() {
    let mut w = world();
    let plain = |t: &str| (Code::Internal, format!("1 error occurred:\n\t* {t}\n\n"));
    assert_eq!(
        w.refused(Update, "role/web", json!({"bind_secret_id": false})),
        plain("at least one constraint should be enabled on the role")
    );
    assert!(!w.exists("role/web"));
    w.post("role/web", json!({"bind_secret_id": false, "bound_cidr_list": "10.0.0.0/8", "local_secret_ids": true}));
    assert_eq!(w.get("role/web/local-secret-ids").data, json!({"local_secret_ids": true}));
    assert_eq!(
        w.refused(Update, "role/web", json!({"local_secret_ids": false})),
        (Code::Invalid, "local_secret_ids can only be modified during role creation".into())
    );
    assert_eq!(w.refused(Delete, "role/web/bound-cidr-list", Value::Null).0, Code::Internal);
    assert_eq!(w.refused(Update, "role/web", json!({"secret_id_bound_cidrs": "nowhere"})).0, Code::Invalid);
    assert_eq!(w.refused(Update, "role/web", json!({"secret_id_num_uses": -1})).0, Code::Invalid);
}

#[test]
fn role_ids_are_unique() {
    let mut w = with_role(json!({}));
    let first = role_id(&mut w);
    assert_eq!(first.len(), 36);
    w.post("role/web", json!({"token_ttl": 5}));
    assert_eq!(role_id(&mut w), first, "a change keeps it");
    w.post("role/web/role-id", json!({"role_id": "mine"}));
    w.post("role/other", json!({}));
    assert_eq!(
        w.refused(Update, "role/other/role-id", json!({"role_id": "mine"})),
        (Code::Invalid, "role_id already in use".into())
    );
    assert_eq!(w.refused(Update, "role/third", json!({"role_id": "mine"})).1, "role_id already in use");
    assert_eq!(w.refused(Update, "role/web/role-id", json!({})).1, "missing role_id");
    assert_eq!(
        w.refused(Update, "role/none/role-id", json!({"role_id": "x"})),
        (Code::NotFound, "role \"none\" does not exist".into())
    );
    let (secret, _) = secret_id(&mut w, json!({}));
    assert!(login(&mut w, "mine", &secret).is_ok());
    is_wrong(login(&mut w, &first, &secret));
    w.delete("role/web");
    assert_eq!(w.post("role/other/role-id", json!({"role_id": "mine"})).code, Code::NoContent);
}

#[test]
fn each_field_has_a_path() {
    let mut w = with_role(json!({}));
    for (path, field, value, reset) in [
        ("policies", "token_policies", json!(["a", "b"]), json!([])),
        ("bind-secret-id", "bind_secret_id", json!(true), json!(true)),
        ("secret-id-num-uses", "secret_id_num_uses", json!(3), json!(0)),
        ("secret-id-ttl", "secret_id_ttl", json!(60), json!(0)),
        ("secret-id-bound-cidrs", "secret_id_bound_cidrs", json!(["10.0.0.0/8"]), Value::Null),
        ("bound-cidr-list", "bound_cidr_list", json!(["10.0.0.0/8"]), Value::Null),
        ("token-bound-cidrs", "token_bound_cidrs", json!(["10.0.0.0/8"]), json!([])),
        ("token-ttl", "token_ttl", json!(30), json!(0)),
        ("token-max-ttl", "token_max_ttl", json!(300), json!(0)),
        ("token-num-uses", "token_num_uses", json!(7), json!(0)),
        ("period", "token_period", json!(60), json!(0)),
    ] {
        let path = format!("role/web/{path}");
        assert_eq!(w.post(&path, json!({field: value})).code, Code::NoContent, "{path}");
        assert_eq!(w.get(&path).data, json!({field: value}), "{path}");
        assert_eq!(w.refused(Update, &path, json!({})), (Code::Invalid, format!("missing {field}")));
        assert_eq!(w.delete(&path).code, Code::NoContent);
        assert_eq!(w.get(&path).data, json!({field: reset}), "{path}");
        let nobody = path.replace("web", "none");
        assert_eq!(w.get(&nobody).code, Code::NotFound);
        assert_eq!(w.delete(&nobody).code, Code::NoContent);
        assert_eq!(w.refused(Update, &nobody, json!({field: value})).0, Code::NotFound);
    }
    assert_eq!(w.get("role/web/local-secret-ids").data, json!({"local_secret_ids": false}));
    w.post("role/web/policies", json!({"policies": "x"}));
    assert_eq!(w.get("role/web/policies").data, json!({"policies": ["x"], "token_policies": ["x"]}));
}

#[test]
fn a_login_proves_role_and_secret() {
    let mut w = with_role(json!({"token_policies": "dev", "token_ttl": "5m", "token_type": "batch"}));
    let id = role_id(&mut w);
    let made = w.post("role/web/secret-id", json!({"metadata": r#"{"team":"x","role_name":"forged"}"#}));
    let accessor = made.data["secret_id_accessor"].as_str().unwrap().to_owned();
    assert_eq!(made.response.unwrap().wrapped_accessor, Some(accessor));
    assert_eq!((&made.data["secret_id_ttl"], &made.data["secret_id_num_uses"]), (&json!(0), &json!(0)));
    let secret = made.data["secret_id"].as_str().unwrap().to_owned();
    let auth = login(&mut w, &id, &secret).unwrap().unwrap().auth.unwrap();
    assert_eq!(w.writes, 0, "a login with a secret-id without limit leaves no byte");
    assert_eq!(
        (auth.policies.as_slice(), auth.ttl, auth.token_type),
        (&["dev".to_owned()][..], 300, TokenType::Batch)
    );
    assert_eq!(auth.alias.unwrap().name, id);
    assert_eq!((auth.metadata["role_name"].as_str(), auth.metadata["team"].as_str()), ("web", "x"));
    assert_eq!(auth.role, "web");
    is_wrong(login(&mut w, &id, "wrong"));
    is_wrong(login(&mut w, "wrong", &secret));
    is_wrong(login(&mut w, "wrong", ""));
    assert_eq!(w.refused(Update, "login", json!({"secret_id": secret})), (Code::Invalid, "missing role_id".into()));
    assert_eq!(w.refused(Update, "login", json!({"role_id": id})), (Code::Invalid, "missing secret_id".into()));
    w.post("role/web", json!({"bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8"}));
    assert!(login(&mut w, &id, "").is_ok(), "bound by address alone");
}

#[test]
fn addresses_bind() {
    let mut w = with_role(json!({"secret_id_bound_cidrs": "10.0.0.0/8"}));
    let id = role_id(&mut w);
    let outside = w.refused(Update, "role/web/secret-id", json!({"cidr_list": "11.0.0.0/8"}));
    assert!(outside.1.contains("should be a subset of CIDR blocks on the role"));
    assert_eq!(
        w.refused(Update, "role/web/secret-id", json!({"cidr_list": "x"})).1,
        "failed to validate CIDR blocks"
    );
    let (narrow, _) = secret_id(&mut w, json!({"cidr_list": "10.9.0.0/16"}));
    let (wide, _) = secret_id(&mut w, json!({"token_bound_cidrs": "10.1.0.0/16"}));
    assert_eq!(
        login(&mut w, &id, &narrow).unwrap_err().errors[0],
        "source address \"10.1.2.3\" unauthorized through CIDR restrictions on the secret ID"
    );
    assert_eq!(login(&mut w, &id, &wide).unwrap().unwrap().auth.unwrap().bound_cidrs, ["10.1.0.0/16"]);
    w.remote = "10.2.0.1".parse().ok();
    assert_eq!(login(&mut w, &id, &wide).unwrap_err().code, Code::Denied);
    w.remote = "1.2.3.4".parse().ok();
    assert!(
        login(&mut w, &id, &wide).unwrap_err().errors[0].contains("unauthorized by CIDR restrictions on the role")
    );
}

#[test]
fn secret_ids_are_bounded_by_the_role() {
    let mut w = with_role(json!({"secret_id_num_uses": 3, "secret_id_ttl": 100}));
    let made = w.post("role/web/secret-id", json!({})).data;
    assert_eq!((&made["secret_id_num_uses"], &made["secret_id_ttl"]), (&json!(3), &json!(100)));
    let made = w.post("role/web/secret-id", json!({"num_uses": 2, "ttl": "30s"})).data;
    assert_eq!((&made["secret_id_num_uses"], &made["secret_id_ttl"]), (&json!(2), &json!(30)));
    for n in [0, 4] {
        assert_eq!(
            w.refused(Update, "role/web/secret-id", json!({"num_uses": n})),
            (Code::Invalid, "num_uses cannot be higher than the role's secret_id_num_uses".into())
        );
    }
    for t in [0, 101] {
        assert_eq!(
            w.refused(Update, "role/web/secret-id", json!({"ttl": t})),
            (Code::Invalid, "ttl cannot be longer than the role's secret_id_ttl".into())
        );
    }
    assert!(
        w.refused(Update, "role/web/secret-id", json!({"metadata": "CANARY"}))
            .1
            .starts_with("failed to parse metadata: ")
    );
    assert!(w.error_texts.iter().all(|t| !t.contains("CANARY")));
    assert_eq!(
        w.refused(Update, "role/none/secret-id", json!({})),
        (Code::NotFound, "role \"none\" does not exist".into())
    );
    w.post("role/free", json!({"bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8"}));
    assert_eq!(
        w.refused(Update, "role/free/secret-id", json!({})),
        (Code::Invalid, "bind_secret_id is not set on the role".into())
    );
}

#[test]
fn secret_ids_expire() {
    let mut w = with_role(json!({"secret_id_ttl": 100}));
    let id = role_id(&mut w);
    let (secret, accessor) = secret_id(&mut w, json!({}));
    let due = w.now.plus_seconds(100);
    let shown = w.post("role/web/secret-id/lookup", json!({"secret_id": secret})).data;
    assert_eq!(shown["expiration_time"], json!(due.rfc3339()));
    assert!(login(&mut w, &id, &secret).is_ok());
    w.now = due;
    is_wrong(login(&mut w, &id, &secret));
    assert_eq!(w.list("role/web/secret-id").code, Code::NotFound);
    assert_eq!(w.post("role/web/secret-id/lookup", json!({"secret_id": secret})).code, Code::NoContent);
    assert_eq!(
        w.refused(Update, "role/web/secret-id-accessor/lookup", json!({"secret_id_accessor": accessor})).0,
        Code::NotFound,
        "the lookup cleared it away"
    );
}

#[test]
fn secret_ids_are_looked_up_and_destroyed() {
    let mut w = with_role(json!({}));
    let (secret, accessor) = secret_id(&mut w, json!({"metadata": r#"{"a":"b"}"#, "num_uses": 4}));
    let created = w.now.rfc3339();
    let want = json!({
        "cidr_list": [], "creation_time": created, "expiration_time": "0001-01-01T00:00:00Z", "last_updated_time": created,
        "metadata": {"a": "b"}, "secret_id_accessor": accessor, "secret_id_num_uses": 4, "secret_id_ttl": 0,
        "token_bound_cidrs": [],
    });
    assert_eq!(w.post("role/web/secret-id/lookup", json!({"secret_id": secret})).data, want);
    assert_eq!(w.post("role/web/secret-id-accessor/lookup", json!({"secret_id_accessor": accessor})).data, want);
    assert_eq!(w.list("role/web/secret-id").data["keys"], json!([accessor]));
    assert_eq!(w.post("role/web/secret-id/lookup", json!({"secret_id": "unknown"})).code, Code::NoContent);
    assert_eq!(
        w.refused(Update, "role/web/secret-id-accessor/lookup", json!({"secret_id_accessor": "x"})),
        (Code::NotFound, "failed to find accessor entry for secret_id_accessor: \"x\"".into())
    );
    assert_eq!(
        w.refused(Update, "role/web/secret-id/destroy", json!({"secret_id": "x"})),
        (Code::Invalid, "invalid secret id".into())
    );
    assert_eq!(w.refused(Update, "role/web/secret-id/destroy", json!({})).1, "missing secret_id");
    assert_eq!(w.refused(Update, "role/web/secret-id-accessor/destroy", json!({})).1, "missing secret_id_accessor");
    assert_eq!(w.post("role/web/secret-id/destroy", json!({"secret_id": secret})).code, Code::NoContent);
    assert_eq!(
        w.refused(Update, "role/web/secret-id-accessor/destroy", json!({"secret_id_accessor": accessor})).0,
        Code::NotFound
    );
    let (secret, accessor) = secret_id(&mut w, json!({}));
    assert!(w.run(Delete, "role/web/secret-id-accessor/destroy", json!({"secret_id_accessor": accessor})).is_ok());
    let id = role_id(&mut w);
    is_wrong(login(&mut w, &id, &secret));
}

#[test]
fn cve_2023_24999_an_accessor_of_another_role_is_out_of_reach() {
    let mut w = with_role(json!({}));
    w.post("role/mine", json!({}));
    let (secret, accessor) = secret_id(&mut w, json!({}));
    for path in ["role/mine/secret-id-accessor/lookup", "role/mine/secret-id-accessor/destroy"] {
        assert_eq!(
            w.refused(Update, path, json!({"secret_id_accessor": accessor})),
            (Code::Denied, "invalid secret id accessor".into())
        );
    }
    assert_eq!(w.post("role/mine/secret-id/lookup", json!({"secret_id": secret})).code, Code::NoContent);
    let id = role_id(&mut w);
    assert!(login(&mut w, &id, &secret).is_ok());
    let mine = w.get("role/mine/role-id").data["role_id"].as_str().unwrap().to_owned();
    is_wrong(login(&mut w, &mine, &secret));
}

#[test]
fn custom_secret_ids() {
    let mut w = with_role(json!({}));
    let made = w.post("role/web/custom-secret-id", json!({"secret_id": "my own", "ttl": 60})).data;
    assert_eq!((&made["secret_id"], &made["secret_id_ttl"]), (&json!("my own"), &json!(60)));
    assert_eq!(
        w.refused(Update, "role/web/custom-secret-id", json!({"secret_id": "my own"})),
        (Code::Invalid, "failed to store secret_id: SecretID is already registered".into())
    );
    assert_eq!(w.refused(Update, "role/web/custom-secret-id", json!({})).1, "missing secret_id");
    let id = role_id(&mut w);
    assert!(login(&mut w, &id, "my own").is_ok());
    w.now = w.now.plus_seconds(60);
    assert_eq!(
        w.post("role/web/custom-secret-id", json!({"secret_id": "my own"})).code,
        Code::Ok,
        "the old one expired"
    );
}

#[test]
fn a_deleted_role_takes_its_secret_ids_along() {
    let mut w = with_role(json!({"role_id": "fixed"}));
    let bare = w.records();
    let (secret, _) = secret_id(&mut w, json!({}));
    w.delete("role/web");
    w.post("role/web", json!({"role_id": "fixed"}));
    is_wrong(login(&mut w, "fixed", &secret));
    assert_eq!(w.list("role/web/secret-id").code, Code::NotFound);
    assert_eq!(w.records(), bare);
}

#[test]
fn tidy_clears_what_is_dead() {
    let mut w = with_role(json!({"secret_id_ttl": 100}));
    let bare = w.records();
    for _ in 0..5 {
        secret_id(&mut w, json!({}));
    }
    w.now = w.now.plus_seconds(200);
    let (alive, _) = secret_id(&mut w, json!({}));
    // each is two records; one more is the job that would do this by itself
    assert_eq!(w.records(), bare + 12 + 1);
    let a = w.post("tidy/secret-id", json!({}));
    assert_eq!(a.code, Code::Accepted);
    assert_eq!(
        a.response.unwrap().warnings,
        [
            "Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs."
        ]
    );
    assert_eq!(w.records(), bare + 2 + 1);
    let id = role_id(&mut w);
    assert!(login(&mut w, &id, &alive).is_ok());
    // entries whose role's number is gone
    w.transaction(Update, "", |cx| {
        let entry = super::secret_id::SecretId { accessor: "stray".into(), ..Default::default() };
        super::secret_id::register(cx, &[9; 24], &entry);
        Ok(())
    })
    .unwrap();
    w.post("tidy/secret-id", json!({}));
    assert_eq!(w.records(), bare + 2 + 1);
}

/// Nobody has to call the endpoint: what expires is cleared away within the hour, however much it is.
#[test]
fn what_is_dead_is_cleared_away_by_itself() {
    let mut w = with_role(json!({}));
    let bare = w.records();
    secret_id(&mut w, json!({}));
    assert!(w.jobs().is_empty(), "what never expires is not looked at");
    let began = w.now;
    for _ in 0..1500 {
        w.now = began;
        secret_id(&mut w, json!({"ttl": 60}));
    }
    w.now = began;
    secret_id(&mut w, json!({"ttl": 7200}));
    let (job, at) = w.jobs()[0].clone();
    // a call takes a second here
    assert!(w.jobs().len() == 1 && (3600..3602).contains(&(at.since(began) / 1_000_000_000)), "{at:?}");
    w.now = at;
    w.due(&job).unwrap();
    assert_eq!(w.jobs()[0].1, w.now.plus_seconds(1), "the rest follows soon");
    w.now = w.now.plus_seconds(1);
    w.due(&job).unwrap();
    // two secret-ids, their accessors, and the job for the one that expires
    assert_eq!((w.records() - bare, w.jobs()[0].1), (4 + 1, w.now.plus_seconds(3600)));
    w.now = w.now.plus_seconds(3600);
    w.due(&job).unwrap();
    // a job that is done and does not come again is taken away by whoever called it
    assert_eq!((w.records() - bare, w.jobs()[0].1), (2 + 1, w.now), "the last one is gone, and no other round comes");
}

#[test]
fn names_that_prove_stand_only_as_hashes() {
    let mut w = with_role(json!({"role_id": "CANARY-role-id"}));
    let (secret, accessor) = secret_id(&mut w, json!({}));
    w.post("role/web/custom-secret-id", json!({"secret_id": "CANARY-secret"}));
    let image = w.image_bytes();
    assert!(!holds(&image, "CANARY") && !holds(&image, &secret) && !holds(&image, &accessor));
    for body in [
        json!({"role_id": "CANARY", "secret_id": "CANARY"}),
        json!({"role_id": "CANARY-role-id", "secret_id": "CANARY"}),
        json!({"role_id": "CANARY-role-id", "secret_id": {"a": "CANARY"}}),
    ] {
        let _ = w.refused(Update, "login", body);
    }
    let _ = w.refused(Update, "role/web/secret-id/destroy", json!({"secret_id": "CANARY"}));
    assert!(w.error_texts.iter().all(|t| !t.contains("CANARY")), "{:?}", w.error_texts);
}

#[test]
fn renewal_looks_at_the_role_again() {
    let mut w = with_role(json!({"token_ttl": 60, "token_max_ttl": 600}));
    let id = role_id(&mut w);
    let (secret, _) = secret_id(&mut w, json!({}));
    let auth = login(&mut w, &id, &secret).unwrap().unwrap().auth.unwrap();
    w.post("role/web", json!({"token_ttl": 90}));
    let renewed = w.with_engine(|e, cx| e.renew_token(cx, &[], &auth.internal)).unwrap();
    assert_eq!((renewed.ttl, renewed.max_ttl), (90, 600));
    w.delete("role/web");
    assert!(w.with_engine(|e, cx| e.renew_token(cx, &[], &auth.internal)).is_err());
}

#[test]
fn methods_that_are_not_there() {
    let mut w = with_role(json!({}));
    assert_eq!(w.refused(Read, "login", Value::Null).0, Code::Unsupported);
    assert_eq!(w.refused(List, "role/web/secret-id/lookup", Value::Null).0, Code::Unsupported);
    assert_eq!(w.refused(Read, "role/-bad", Value::Null).0, Code::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A secret-id with N uses works exactly N times, however the logins fall between wrong ones.
    #[test]
    fn n_uses_are_n(n in 1u64..6, tries in proptest::collection::vec(any::<bool>(), 1..12)) {
        let mut w = with_role(json!({}));
        let id = role_id(&mut w);
        let bare = w.records();
        let (secret, _) = secret_id(&mut w, json!({"num_uses": n}));
        let mut left = n;
        for right in tries {
            if right {
                prop_assert_eq!(login(&mut w, &id, &secret).is_ok(), left > 0);
                left = left.saturating_sub(1);
            } else {
                prop_assert!(login(&mut w, &id, "wrong").is_err());
            }
            let shown = w.post("role/web/secret-id/lookup", json!({"secret_id": secret}));
            if left > 0 {
                prop_assert_eq!(&shown.data["secret_id_num_uses"], &json!(left));
            } else {
                prop_assert_eq!(shown.code, Code::NoContent);
                prop_assert_eq!(w.records(), bare);
            }
        }
    }
}
