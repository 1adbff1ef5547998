//! Tests of the engine over a server that is a list of what it was told.

use super::Database;
use crate::fixture::World;
use ringfence_base::Code;
use ringfence_logical::{Lease, Operation, SideOp, SideResult};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

/// A server: what it was told, and whether it is there.
#[derive(Default)]
struct Server {
    /// Statements, and `knock <url>`.
    told: Vec<String>,
    /// Answers of the next asks, first first; without one all is well.
    answers: Vec<Result<(), String>>,
}

fn world() -> (World, Rc<RefCell<Server>>) {
    let mut w = World::new(Database);
    let server = Rc::new(RefCell::new(Server::default()));
    let seen = server.clone();
    w.outside = Box::new(move |op| {
        let SideOp::Sql(ask) = op else { return None };
        let mut s = seen.borrow_mut();
        if ask.statements.is_empty() {
            s.told.push(format!("knock {}", ask.target.url.expose()));
        }
        s.told.extend(ask.statements.iter().map(|t| t.expose().clone()));
        let answer = if s.answers.is_empty() { Ok(()) } else { s.answers.remove(0) };
        Some(match answer {
            Ok(()) => SideResult::Json(Value::Null),
            Err(why) => SideResult::Failed(why),
        })
    });
    (w, server)
}

const URL: &str = "postgresql://{{username}}:{{password}}@db:5432/app";

fn configured() -> (World, Rc<RefCell<Server>>) {
    let (mut w, server) = world();
    w.post("config/pg", json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": URL, "username": "root", "password": "first",
        "allowed_roles": "web,static",
    }));
    w.post("roles/web", json!({
        "db_name": "pg", "default_ttl": "1h", "max_ttl": "24h",
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT x TO \"{{name}}\""],
    }));
    server.borrow_mut().told.clear();
    (w, server)
}

fn take(server: &Rc<RefCell<Server>>) -> Vec<String> {
    std::mem::take(&mut server.borrow_mut().told)
}

fn fail(server: &Rc<RefCell<Server>>, why: &str) {
    server.borrow_mut().answers.push(Err(why.into()));
}

#[test]
fn a_connection_is_verified_shown_without_its_secrets_and_changed() {
    let (mut w, server) = configured();
    let v = w.get("config/pg").data;
    assert_eq!(v["connection_details"], json!({"connection_url": URL, "username": "root"}));
    assert_eq!(
        (&v["allowed_roles"], &v["plugin_name"]),
        (&json!(["web", "static"]), &json!("postgresql-database-plugin"))
    );
    assert_eq!(v["root_credentials_rotate_statements"], json!([]));
    w.post("config/pg", json!({"username": "o'brien@x"}));
    assert_eq!(take(&server), ["knock postgresql://o%27brien%40x:first@db:5432/app"], "the password stays");
    fail(&server, "FATAL: password authentication failed for first");
    let (code, text) = w.refused(Operation::Update, "config/pg", json!({"username": "y"}));
    assert_eq!(code, Code::Invalid);
    assert_eq!(
        text,
        "error creating database object: error verifying connection: FATAL: password authentication failed for [password]"
    );
    assert_eq!(w.get("config/pg").data["connection_details"]["username"], json!("o'brien@x"), "nothing changed");
    let a = w.post(
        "config/two",
        json!({
            "plugin_name": "postgresql-database-plugin", "verify_connection": false,
            "connection_url": "postgres://u:open@h/db",
        }),
    );
    assert!(a.response.unwrap().warnings[0].starts_with("Password found in connection_url"));
    assert_eq!(w.get("config/two").data["connection_details"]["connection_url"], json!("postgres://u:xxxxx@h/db"));
    assert_eq!(w.list("config").data["keys"], json!(["pg", "two"]));
    w.delete("config/two");
    assert_eq!(w.get("config/two").code, Code::NotFound);
}

#[test]
fn connections_that_cannot_be_are_refused() {
    let (mut w, _) = world();
    for (body, want) in [
        (json!({}), "empty plugin name"),
        (json!({"plugin_name": "x"}), "plugin not found in the catalog"),
        (json!({"plugin_name": "mysql-database-plugin"}), "connection_url cannot be empty"),
        (json!({"plugin_name": "mysql-database-plugin", "connection_url": "x"}), "not of the form"),
        (
            json!({"plugin_name": "postgresql-database-plugin", "connection_url": URL, "username": "{{password}}"}),
            "username and/or password cannot contain the template variables",
        ),
        (
            json!({"plugin_name": "postgresql-database-plugin", "connection_url": URL, "username_template": "{{ oops }}"}),
            "function \"oops\" not defined",
        ),
        (
            json!({"plugin_name": "postgresql-database-plugin", "connection_url": URL, "password_authentication": "md5"}),
            "not a valid password authentication type",
        ),
    ] {
        let (code, text) = w.refused(Operation::Update, "config/x", body.clone());
        assert_eq!(code, Code::Invalid);
        assert!(text.contains(want), "{body}: {text}");
    }
    assert_eq!(w.records(), 1, "only the issuer");
}

#[test]
fn an_account_comes_and_goes_with_its_lease() {
    let (mut w, server) = configured();
    let a = w.get("creds/web");
    let (name, password) = (a.data["username"].as_str().unwrap().to_owned(), a.data["password"].as_str().unwrap());
    assert!(name.starts_with("v--web-") && name.len() <= 63, "{name}");
    assert_eq!(password.len(), 20);
    let told = take(&server);
    assert_eq!(told.len(), 2);
    assert!(
        told[0].starts_with(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' VALID UNTIL '2023-11-14 2")),
        "{told:?}"
    );
    let terms = a.response.unwrap().lease.unwrap();
    assert_eq!((terms.ttl, terms.max_ttl, terms.renewable), (3600, 86_400, true));
    assert!(w.jobs().is_empty(), "the lease took the intent's place");

    let lease = Lease { secret: "creds".into(), internal: terms.internal, path: "creds/web".into(), increment: 60 };
    let step = w.with_engine(|e, cx| e.renew(cx, &lease)).unwrap();
    w.finish(Operation::Renew, "", step).unwrap();
    assert!(take(&server)[0].starts_with(&format!("ALTER ROLE \"{name}\" VALID UNTIL '2023-11-14 22:14:")));
    w.delete("roles/web");
    let refused = w.with_engine(|e, cx| e.renew(cx, &lease).map(|_| ())).unwrap_err();
    assert!(refused.text().contains("could not find role with name \"web\""));
    fail(&server, "the server is gone");
    let step = w.with_engine(|e, cx| e.revoke(cx, &lease)).unwrap();
    assert!(w.finish(Operation::Revoke, "", step).unwrap_err().text().contains("the server is gone"));
    let step = w.with_engine(|e, cx| e.revoke(cx, &lease)).unwrap();
    w.finish(Operation::Revoke, "", step).unwrap();
    assert!(take(&server).last().unwrap().contains("DROP ROLE"));
}

#[test]
fn a_creation_that_fails_is_undone_and_says_why() {
    let (mut w, server) = configured();
    fail(&server, "failed to execute query: ERROR: syntax error (SQLSTATE 42601)");
    let (code, text) = w.refused(Operation::Read, "creds/web", Value::Null);
    assert_eq!(code, Code::Internal);
    assert!(text.contains("ERROR: syntax error (SQLSTATE 42601)"), "{text}");
    let jobs = w.jobs();
    assert_eq!((jobs.len(), jobs[0].1 <= w.now), (1, true), "undone at once");
    take(&server);
    fail(&server, "away");
    assert!(w.due(&jobs[0].0).is_err(), "the worker tries again");
    w.due(&jobs[0].0).unwrap();
    assert!(take(&server)[1].contains("DROP ROLE"));
    let before = w.records();
    w.due(&jobs[0].0).unwrap();
    assert_eq!((take(&server).len(), w.records()), (0, before), "once");
    for (role, body, want) in [
        ("nobody", json!({}), "unknown role: nobody"),
        ("other", json!({"db_name": "pg", "creation_statements": ["X"]}), "\"other\" is not an allowed role"),
        (
            "lost",
            json!({"db_name": "none", "creation_statements": ["X"]}),
            "failed to find entry for connection with name: \"none\"",
        ),
        ("web", json!({"creation_statements": []}), "empty creation statements"),
    ] {
        if body != json!({}) {
            w.post(&format!("roles/{role}"), body);
        }
        assert!(w.refused(Operation::Read, &format!("creds/{role}"), Value::Null).1.contains(want));
    }
}

#[test]
fn an_intent_that_nobody_settled_is_undone() {
    let (mut w, server) = configured();
    // the process dies after the account was made: the step after the intent never comes
    let args = |w: &mut World| {
        w.transaction(Operation::Read, "creds/web", |cx| {
            let map = serde_json::Map::from_iter([("name".to_owned(), json!("web"))]);
            let args = ringfence_logical::Args::parse(
                super::paths::PATHS.iter().find(|p| p.pattern == "creds/{name}").unwrap().fields,
                &[],
                map,
            )?;
            super::creds::read(cx, &args).map(|_| ())
        })
    };
    args(&mut w).unwrap();
    let jobs = w.jobs();
    assert_eq!(jobs.len(), 1);
    assert!(jobs[0].1 > w.now, "the side operation has its time");
    w.due(&jobs[0].0).unwrap();
    assert!(take(&server)[0].contains("DROP ROLE"));
}

#[test]
fn the_root_password_is_never_lost() {
    let (mut w, server) = configured();
    w.post("rotate-root/pg", Value::Null);
    let told = take(&server);
    let second =
        told[0].strip_prefix("ALTER ROLE \"root\" WITH PASSWORD '").unwrap().trim_end_matches("'").to_owned();
    w.post("config/pg", json!({}));
    assert_eq!(take(&server), [format!("knock postgresql://root:{second}@db:5432/app")]);
    assert!(w.jobs().is_empty());

    // the server took it, but nobody heard: the new one opens
    fail(&server, "timed out");
    w.refused(Operation::Update, "rotate-root/pg", Value::Null);
    let third = take(&server)[0]
        .strip_prefix("ALTER ROLE \"root\" WITH PASSWORD '")
        .unwrap()
        .trim_end_matches("'")
        .to_owned();
    assert!(w.refused(Operation::Update, "rotate-root/pg", Value::Null).1.contains("being settled"));
    assert_eq!(w.jobs()[0].0, "root/pg");
    w.due("root/pg").unwrap();
    assert_eq!(take(&server), [format!("knock postgresql://root:{third}@db:5432/app")]);

    // the server refused it: the old one opens
    fail(&server, "no");
    w.refused(Operation::Update, "rotate-root/pg", Value::Null);
    fail(&server, "password authentication failed");
    w.due("root/pg").unwrap();
    assert!(take(&server)[2].ends_with(&format!("root:{third}@db:5432/app")));
    w.post("rotate-root/pg", Value::Null);

    // neither answers: it stays open
    fail(&server, "no");
    w.refused(Operation::Update, "rotate-root/pg", Value::Null);
    fail(&server, "away");
    fail(&server, "away");
    assert!(w.due("root/pg").is_err());
    w.due("root/pg").unwrap();
    w.post(
        "config/none",
        json!({"plugin_name": "mysql-database-plugin", "connection_url": "u:p@tcp(h)/", "verify_connection": false}),
    );
    assert!(
        w.refused(Operation::Update, "rotate-root/none", Value::Null)
            .1
            .contains("unable to rotate root credentials: no username in configuration")
    );
}

#[test]
fn static_accounts_are_rotated() {
    let (mut w, server) = configured();
    w.post("static-roles/static", json!({"db_name": "pg", "username": "app", "rotation_period": "1h"}));
    let first = w.get("static-creds/static").data;
    assert_eq!(
        take(&server),
        [format!("ALTER ROLE \"app\" WITH PASSWORD '{}'", first["password"].as_str().unwrap())]
    );
    let (job, at) = w.jobs().pop().unwrap();
    assert_eq!((job.as_str(), at.seconds().abs_diff(w.now.seconds() + 3600) < 5), ("static/static", true));
    w.due(&job).unwrap();
    assert!(take(&server).is_empty(), "not before its time");

    w.now = at;
    fail(&server, "away");
    w.due(&job).unwrap();
    let tried = take(&server);
    assert_eq!(w.get("static-creds/static").data["password"], first["password"]);
    let retry = w.jobs()[0].1;
    assert!(retry > w.now && retry < w.now.plus_seconds(60));
    w.now = retry;
    w.due(&job).unwrap();
    assert_eq!(take(&server), tried, "the same password again");
    let second = w.get("static-creds/static").data;
    assert_eq!(tried, [format!("ALTER ROLE \"app\" WITH PASSWORD '{}'", second["password"].as_str().unwrap())]);

    w.post("rotate-role/static", Value::Null);
    fail(&server, "away");
    let (_, text) = w.refused(Operation::Update, "rotate-role/static", Value::Null);
    assert!(
        text.contains("unable to finish rotating credentials; retries will continue in the background"),
        "{text}"
    );
    w.post("static-roles/static", json!({"rotation_schedule": "0 0 * * *", "rotation_window": "2h"}));
    assert_eq!(w.get("static-roles/static").data["rotation_schedule"], json!("0 0 * * *"));
    w.delete("static-roles/static");
    assert!(w.jobs().is_empty());
}

#[test]
fn static_roles_that_cannot_be_are_refused() {
    let (mut w, server) = configured();
    for (body, want) in [
        (json!({}), "username is a required field to create a static account"),
        (json!({"username": "a"}), "database name is a required field"),
        (json!({"username": "a", "db_name": "pg"}), "must be provided to create a static account"),
        (
            json!({"username": "a", "db_name": "pg", "rotation_period": 4}),
            "rotation_period must be 5 seconds or more",
        ),
        (
            json!({"username": "a", "db_name": "pg", "rotation_period": 5, "rotation_schedule": "* * * * *"}),
            "mutually exclusive",
        ),
        (
            json!({"username": "a", "db_name": "pg", "rotation_schedule": "nonsense"}),
            "could not parse rotation_schedule",
        ),
        (
            json!({"username": "a", "db_name": "pg", "rotation_schedule": "* * * * *", "rotation_window": 5}),
            "rotation_window must be",
        ),
        (
            json!({"username": "a", "db_name": "pg", "rotation_period": 5, "rotation_window": "1h"}),
            "rotation_window is invalid",
        ),
    ] {
        let (_, text) = w.refused(Operation::Update, "static-roles/static", body.clone());
        assert!(text.contains(want), "{body}: {text}");
    }
    fail(&server, "no such role");
    let body = json!({"username": "a", "db_name": "pg", "rotation_period": 5});
    assert!(w.refused(Operation::Update, "static-roles/static", body).1.contains("no such role"));
    assert_eq!((w.get("static-roles/static").code, w.jobs().len()), (Code::NotFound, 0), "it was not taken over");
    assert_eq!(
        w.refused(Operation::Update, "static-roles/web", json!({})).1,
        "Role and Static Role names must be unique"
    );
    assert_eq!(w.refused(Operation::Read, "static-creds/x", Value::Null).1, "unknown role: x");
}

#[test]
fn a_verifier_leaves_in_place_of_the_password() {
    let (mut w, server) = configured();
    w.post("config/pg", json!({"password_authentication": "scram-sha-256"}));
    take(&server);
    let a = w.get("creds/web");
    let told = take(&server);
    assert!(told[0].contains("PASSWORD 'SCRAM-SHA-256$4096:"), "{told:?}");
    assert!(!told.concat().contains(a.data["password"].as_str().unwrap()));
}

#[test]
fn a_certificate_for_an_account() {
    let (mut w, server) = configured();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let cert = ca.self_signed(&key).unwrap();
    let config = json!({"ca_cert": cert.pem(), "ca_private_key": key.serialize_pem(), "key_type": "ec",
        "common_name_template": "{{ .RoleName }}-{{ random 8 }}"});
    w.post(
        "roles/web",
        json!({"credential_type": "client_certificate", "credential_config": config,
        "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN"}),
    );
    assert!(w.get("roles/web").data["credential_config"].get("ca_private_key").is_none());
    let a = w.get("creds/web").data;
    let name = a["username"].as_str().unwrap();
    assert!(name.starts_with("web-"));
    assert_eq!(take(&server), [format!("CREATE ROLE \"{name}\" LOGIN")]);
    let pem = a["client_certificate"].as_str().unwrap();
    assert!(
        pem.starts_with("-----BEGIN CERTIFICATE-----") && a["private_key"].as_str().unwrap().contains("PRIVATE KEY")
    );
    assert_eq!(a["private_key_type"], json!("ec"));
    for (config, want) in [
        (json!({"nonsense": 1}), "is not one of"),
        (json!({}), "ca_cert and ca_private_key are required"),
        (json!({"ca_cert": "x", "ca_private_key": "y"}), "ca_private_key"),
    ] {
        let body = json!({"credential_type": "client_certificate", "credential_config": config});
        assert!(w.refused(Operation::Update, "roles/web", body).1.contains(want));
    }
    assert_eq!(
        w.refused(Operation::Update, "roles/web", json!({"credential_type": "x"})).1,
        "invalid credential_type \"x\""
    );
}

/// A write asked the server about what it would make, and by the time the answer was in another write had changed the
/// connection: what was kept had been verified by nobody.
#[test]
fn what_two_writes_make_together_is_verified_too() {
    let (mut w, _) = configured();
    let write = |body: Value| {
        move |cx: &mut ringfence_logical::Cx<'_, '_>| {
            let engine = super::TABLE.paths.iter().find(|p| p.pattern == "config/{name}").unwrap();
            let body = body.as_object().unwrap().clone();
            let args = ringfence_logical::Args::parse(engine.fields, &[("name", "pg")], body)?;
            super::connection::write(cx, &args)
        }
    };
    let url = "postgresql://{{username}}:{{password}}@evil:5432/app";
    let step = w.with_engine(|_, cx| write(json!({"password": "second"}))(cx)).unwrap();
    let ringfence_logical::Step::Side { op: SideOp::Sql(ask), resume } = step else { panic!("a question was due") };
    assert_eq!(ask.target.url.expose(), "postgresql://root:second@db:5432/app");
    w.post("config/pg", json!({"connection_url": url, "verify_connection": false}));
    let step = w.with_engine(|_, cx| resume(cx, &SideResult::Json(Value::Null))).unwrap();
    let ringfence_logical::Step::Side { op: SideOp::Sql(ask), resume } = step else { panic!("it was kept unasked") };
    assert_eq!(ask.target.url.expose(), "postgresql://root:second@evil:5432/app");
    let e = w.with_engine(|_, cx| resume(cx, &SideResult::Failed("no route to second".into()))).unwrap_err();
    assert!(e.text().ends_with("error verifying connection: no route to [password]"), "{}", e.text());
}
