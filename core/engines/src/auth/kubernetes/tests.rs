//! kubernetes from outside.

use super::Kubernetes;
use crate::fixture::World;
use crate::fixture::signer::Signer;
use ringfence_base::Code;
use ringfence_logical::Auth;
use ringfence_logical::Operation::Update;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

const NOW: u64 = 1_700_000_000;

fn claims() -> Value {
    json!({"iss": "kubernetes/serviceaccount", "aud": ["vault"], "exp": NOW + 3600, "iat": NOW, "sub": "system:serviceaccount:prod:web",
        "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "web", "uid": "uid-1"}}})
}

fn good_review() -> Value {
    json!({"status": {"authenticated": true, "audiences": ["vault"],
        "user": {"username": "system:serviceaccount:prod:web", "uid": "uid-1"}}})
}

/// A mount, and what the API server says of tokens.
fn world() -> (World, Rc<RefCell<Value>>, Signer) {
    let mut w = World::new(Kubernetes);
    let review = Rc::new(RefCell::new(good_review()));
    let r = review.clone();
    w.web = Box::new(move |ask| match ask.url.strip_prefix("https://k8s.test").unwrap() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => Ok((201, r.borrow().clone())),
        "/api/v1/namespaces/prod" => Ok((200, json!({"metadata": {"labels": {"team": "a"}}}))),
        "/api/v1/namespaces/prod/serviceaccounts/web" => Ok((
            200,
            json!({"metadata": {"annotations":
            {"vault.hashicorp.com/alias-metadata-team": "a", "vault.hashicorp.com/alias-metadata-service_account_uid": "x", "other": "y"}}}),
        )),
        other => Err(format!("nothing at {other}")),
    });
    w.post("config", json!({"kubernetes_host": "https://k8s.test/", "token_reviewer_jwt": "CANARY"}));
    w.post(
        "role/web",
        json!({"bound_service_account_names": "web", "bound_service_account_namespaces": "pro*",
        "audience": "vault", "policies": "web", "ttl": "1h"}),
    );
    (w, review, Signer::new("ES256"))
}

fn login(w: &mut World, token: &str) -> Result<Auth, (Code, String)> {
    match w.run(Update, "login", json!({"role": "web", "jwt": token})) {
        Ok(r) => Ok(r.unwrap().auth.unwrap()),
        Err(e) => Err((e.code, e.errors[0].to_string())),
    }
}

fn denied() -> (Code, String) {
    (Code::Denied, "permission denied".into())
}

#[test]
fn an_account_logs_in() {
    let (mut w, _, signer) = world();
    let auth = login(&mut w, &signer.token(&claims())).unwrap();
    assert_eq!((auth.display_name.as_str(), auth.alias.unwrap().name.as_str()), ("prod-web", "uid-1"));
    assert_eq!(auth.policies, ["web"]);
    for (key, value) in [
        ("role", "web"),
        ("service_account_name", "web"),
        ("service_account_namespace", "prod"),
        ("service_account_secret_name", ""),
        ("service_account_uid", "uid-1"),
    ] {
        assert_eq!(auth.metadata[key], value);
    }
    let ask = &w.asked[0];
    let body: Value = serde_json::from_slice(&ask.body).unwrap();
    assert_eq!((&body["kind"], &body["spec"]["audiences"]), (&json!("TokenReview"), &json!(["vault"])));
    assert!(ask.headers.contains(&("authorization".into(), "Bearer CANARY".into())));
    assert_eq!(w.writes, 0);
    assert!(w.side_ops.iter().all(|s| !s.contains("CANARY")), "{:?}", w.side_ops);
}

#[test]
fn who_reviews() {
    let (mut w, _, signer) = world();
    let token = signer.token(&claims());
    w.post("config", json!({"kubernetes_host": "https://k8s.test"}));
    login(&mut w, &token).unwrap();
    let ask = w.asked.last().unwrap().clone();
    assert!(ask.bearer_file.is_some() && ask.ca_file.is_some(), "a pod's own, if there is one");
    assert!(ask.headers.contains(&("authorization".into(), format!("Bearer {token}"))), "else the client's");
    w.post("config", json!({"kubernetes_host": "https://k8s.test", "disable_local_ca_jwt": true}));
    login(&mut w, &token).unwrap();
    let ask = w.asked.last().unwrap();
    assert!(ask.bearer_file.is_none() && ask.ca_file.is_none());
}

#[test]
fn tokens_that_are_not_let_in() {
    let (mut w, review, signer) = world();
    let mut change = |f: &dyn Fn(&mut Value)| {
        let mut c = claims();
        f(&mut c);
        login(&mut w, &signer.token(&c)).unwrap_err()
    };
    let not = |what: &str| (Code::Denied, format!("{what} not authorized"));
    assert_eq!(
        change(&|c| c["kubernetes.io"]["serviceaccount"]["name"] = json!("web2")),
        not("service account name")
    );
    assert_eq!(change(&|c| c["kubernetes.io"]["namespace"] = json!("dev")), not("namespace"));
    assert_eq!(change(&|c| c["kubernetes.io"]["namespace"] = json!("pro/../x")), denied());
    assert_eq!(change(&|c| c["aud"] = json!("other")), denied());
    assert_eq!(change(&|c| c["aud"] = json!([])), denied());
    assert_eq!(change(&|c| c["exp"] = json!(NOW - 600)), denied());
    assert_eq!(
        change(&|c| c["kubernetes.io"]["serviceaccount"]["uid"] = json!("uid-2")),
        denied(),
        "the review says otherwise"
    );
    for bad in [
        json!({"status": {"authenticated": false}}),
        json!({"status": {"authenticated": true, "error": "x", "user": good_review()["status"]["user"]}}),
        json!({"status": {"authenticated": true, "audiences": ["other"], "user": good_review()["status"]["user"]}}),
        json!({"status": {"authenticated": "true"}}),
        json!([]),
    ] {
        *review.borrow_mut() = bad;
        assert_eq!(login(&mut w, &signer.token(&claims())).unwrap_err(), denied());
    }
    assert_eq!(login(&mut w, "junk").unwrap_err(), denied());
    assert_eq!(
        w.refused(Update, "login", json!({"role": "Nobody", "jwt": "x"})),
        (Code::Invalid, "invalid role name \"nobody\"".into())
    );
    assert_eq!(w.refused(Update, "login", json!({"role": "web"})), (Code::Invalid, "missing jwt".into()));
    w.web = Box::new(|_| Err("connection refused".into()));
    assert_eq!(login(&mut w, &signer.token(&claims())).unwrap_err(), denied());
}

#[test]
fn configured_keys_and_issuer_count_too() {
    let (mut w, _, signer) = world();
    w.post("config", json!({"kubernetes_host": "https://k8s.test", "pem_keys": Signer::new("ES256").public_pem()}));
    assert_eq!(login(&mut w, &signer.token(&claims())).unwrap_err(), denied());
    assert!(w.asked.is_empty(), "nobody is asked about a forgery");
    w.post("config", json!({"kubernetes_host": "https://k8s.test", "pem_keys": signer.public_pem(), "disable_iss_validation": false}));
    assert!(login(&mut w, &signer.token(&claims())).is_ok());
    w.post(
        "config",
        json!({"kubernetes_host": "https://k8s.test", "issuer": "https://k8s", "disable_iss_validation": false}),
    );
    assert_eq!(login(&mut w, &signer.token(&claims())).unwrap_err(), denied());
}

#[test]
fn tokens_of_old_clusters() {
    let (mut w, _, signer) = world();
    w.post("role/web", json!({"audience": "", "alias_name_source": "serviceaccount_name"}));
    let old = json!({"iss": "kubernetes/serviceaccount", "kubernetes.io/serviceaccount/namespace": "prod",
        "kubernetes.io/serviceaccount/secret.name": "web-token", "kubernetes.io/serviceaccount/service-account.name": "web",
        "kubernetes.io/serviceaccount/service-account.uid": "uid-1"});
    let auth = login(&mut w, &signer.token(&old)).unwrap();
    assert_eq!(auth.alias.unwrap().name, "prod/web");
    assert_eq!(auth.metadata["service_account_secret_name"], "web-token");
}

#[test]
fn namespaces_by_label_and_metadata_by_annotation() {
    let (mut w, _, signer) = world();
    let selector = |team: &str| {
        json!({"bound_service_account_namespaces": [], "bound_service_account_namespace_selector":
        json!({"matchLabels": {"team": team}}).to_string()})
    };
    w.post("role/web", selector("a"));
    assert!(login(&mut w, &signer.token(&claims())).is_ok());
    w.post("role/web", selector("b"));
    assert_eq!(
        login(&mut w, &signer.token(&claims())).unwrap_err(),
        (Code::Denied, "namespace not authorized".into())
    );
    w.post("role/web", selector("a"));
    w.post("config", json!({"kubernetes_host": "https://k8s.test", "use_annotations_as_alias_metadata": true}));
    let alias = login(&mut w, &signer.token(&claims())).unwrap().alias.unwrap();
    assert_eq!((alias.metadata["team"].as_str(), alias.metadata["service_account_uid"].as_str()), ("a", "uid-1"));
    assert!(!alias.metadata.contains_key("other"));
}

#[test]
fn configuration_and_roles_are_checked() {
    let (mut w, _, _) = world();
    assert_eq!(w.refused(Update, "config", json!({})), (Code::Invalid, "no host provided".into()));
    assert!(
        w.refused(Update, "config", json!({"kubernetes_host": "https://x", "pem_keys": "x"}))
            .1
            .starts_with("error parsing public key")
    );
    let read = w.get("config").data;
    assert_eq!(
        (&read["token_reviewer_jwt_set"], &read["kubernetes_host"], &read["disable_iss_validation"]),
        (&json!(true), &json!("https://k8s.test"), &json!(true))
    );
    assert!(read.get("token_reviewer_jwt").is_none());
    for (body, text) in [
        (json!({}), "\"bound_service_account_names\" can not be empty"),
        (
            json!({"bound_service_account_names": "a"}),
            "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not set",
        ),
        (
            json!({"bound_service_account_names": "a,*", "bound_service_account_namespaces": "b"}),
            "can not mix \"*\" with values",
        ),
        (
            json!({"bound_service_account_names": "a", "bound_service_account_namespaces": "b", "alias_name_source": "x"}),
            "invalid alias_name_source \"x\"",
        ),
    ] {
        assert_eq!(w.refused(Update, "role/r", body), (Code::Invalid, text.into()));
    }
    let read = w.get("role/web").data;
    assert_eq!(
        (&read["policies"], &read["ttl"], &read["alias_name_source"]),
        (&json!(["web"]), &json!(3600), &json!("serviceaccount_uid"))
    );
}
