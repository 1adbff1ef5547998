//! The database engine against a real PostgreSQL and a real MariaDB.

use crate::databases::{ADMIN_PASSWORD, Mariadb, Postgres};
use crate::harness::Server;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

const CREATION: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; \
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\";";

/// A server with a mount and a connection to PostgreSQL.
fn connected(name: &str, pg: &Postgres) -> Server {
    let s = Server::ready(name);
    let a = s.put("sys/mounts/database", &s.root, &json!({"type": "database"}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    write(
        &s,
        "database/config/pg",
        json!({
            "plugin_name": "postgresql-database-plugin", "connection_url": pg.url(),
            "username": "admin", "password": ADMIN_PASSWORD, "allowed_roles": "*",
        }),
    );
    write(&s, "database/roles/web", json!({"db_name": "pg", "creation_statements": CREATION, "default_ttl": "1h"}));
    pg.admin("CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (7)");
    s
}

fn write(s: &Server, path: &str, body: Value) {
    let a = s.put(path, &s.root, &body);
    assert!(matches!(a.status, 200 | 204), "{path}: {} {:?}", a.status, a.errors());
}

fn creds(s: &Server, role: &str) -> (String, String, String) {
    let a = s.get(&format!("database/creds/{role}"), &s.root);
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let v = a.json();
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    (text(&v["lease_id"]), text(&v["data"]["username"]), text(&v["data"]["password"]))
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Accounts of live leases, by the leases' listing.
fn lease_count(s: &Server, role: &str) -> usize {
    s.list(&format!("sys/leases/lookup/database/creds/{role}"), &s.root).json()["data"]["keys"]
        .as_array()
        .map_or(0, Vec::len)
}

#[test]
fn accounts_live_as_long_as_their_leases() {
    let pg = Postgres::start();
    let s = connected("db", &pg);
    let (lease, user, password) = creds(&s, "web");
    assert_eq!(pg.query(&user, &password, "SELECT x FROM t"), Ok("7".into()));
    assert!(user.starts_with("v-root-web-") && password.len() == 20, "{user}");
    let a = s.put("sys/leases/renew", &s.root, &json!({"lease_id": lease, "increment": 7200}));
    assert_eq!((a.status, &a.json()["lease_duration"]), (200, &json!(7200)), "{:?}", a.errors());
    let valid = pg.admin(&format!(
        "SELECT extract(epoch FROM rolvaliduntil - now()) > 7000 FROM pg_roles WHERE rolname = '{user}'"
    ));
    assert_eq!(valid, "t");
    write(&s, "sys/leases/revoke", json!({"lease_id": lease}));
    assert!(pg.query(&user, &password, "SELECT 1").is_err());
    assert!(pg.accounts().is_empty());

    // by time, by prefix, by the death of the token, by the end of the mount
    write(&s, "database/roles/short", json!({"db_name": "pg", "creation_statements": CREATION, "default_ttl": "1s"}));
    creds(&s, "short");
    until("the end of the lease", || pg.accounts().is_empty());
    for _ in 0..20 {
        creds(&s, "web");
    }
    assert_eq!((pg.accounts().len(), lease_count(&s, "web")), (20, 20));
    write(&s, "sys/leases/revoke-prefix/database/creds/web", json!({}));
    until("the end of the prefix", || pg.accounts().is_empty());
    let child = s.put("auth/token/create", &s.root, &json!({"policies": "root"})).json()["auth"]["client_token"]
        .as_str()
        .expect("token")
        .to_owned();
    assert_eq!(s.get("database/creds/web", &child).status, 200);
    write(&s, "auth/token/revoke", json!({"token": child}));
    until("the end of the token's account", || pg.accounts().is_empty());
    creds(&s, "web");
    let a = s.request("DELETE", "sys/mounts/database", &s.root, None);
    assert_eq!(a.status, 204);
    until("the end of the mount's accounts", || pg.accounts().is_empty());
}

#[test]
fn what_fails_leaves_no_account_and_tells_why() {
    let pg = Postgres::start();
    let s = connected("db-fail", &pg);
    let bad = format!("{CREATION} SELECT nonsense;");
    write(&s, "database/roles/bad", json!({"db_name": "pg", "creation_statements": bad}));
    let a = s.get("database/creds/bad", &s.root);
    assert_eq!(a.status, 500);
    let text = a.errors().to_string();
    assert!(text.contains("column \\\"nonsense\\\" does not exist (SQLSTATE 42703)"), "{text}");
    assert!(pg.accounts().is_empty() && lease_count(&s, "bad") == 0);
    let a = s.put("database/config/pg2", &s.root, &json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": pg.url(), "username": "admin", "password": "wrong-pass",
    }));
    assert_eq!(a.status, 400);
    let text = a.errors().to_string();
    assert!(
        text.contains("error creating database object: error verifying connection: ")
            && text.contains("password authentication failed"),
        "{text}"
    );
    assert!(!text.contains("wrong-pass"));
    assert_eq!(s.get("database/config/pg2", &s.root).status, 404);
}

#[test]
fn cve_2026_39946_hostile_names_stay_names() {
    let pg = Postgres::start();
    let s = connected("db-quote", &pg);
    for (i, hostile) in
        ["x\\\"; DROP TABLE t; --", "x'; DROP TABLE t; --", "$$; DROP TABLE t; --"].into_iter().enumerate()
    {
        let template = format!("v-{{{{ \"{hostile}\" }}}}-{i}");
        write(&s, "database/config/pg", json!({"username_template": template}));
        let (lease, user, password) = creds(&s, "web");
        assert!(user.contains("DROP TABLE"), "{user}");
        assert_eq!(pg.query(&user, &password, "SELECT x FROM t"), Ok("7".into()), "{user}");
        write(&s, "sys/leases/revoke", json!({"lease_id": lease}));
        assert!(pg.accounts().is_empty());
    }
}

#[test]
fn root_and_static_passwords_are_rotated() {
    let pg = Postgres::start();
    let s = connected("db-rotate", &pg);
    pg.admin("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'boss-pass'; CREATE ROLE app LOGIN PASSWORD 'app-pass'");
    write(
        &s,
        "database/config/pg",
        json!({"username": "boss", "password": "boss-pass", "password_authentication": "scram-sha-256"}),
    );
    write(&s, "database/rotate-root/pg", json!({}));
    assert!(pg.query("boss", "boss-pass", "SELECT 1").is_err(), "the old password is dead");
    let (_, user, password) = creds(&s, "web");
    assert_eq!(pg.query(&user, &password, "SELECT x FROM t"), Ok("7".into()));

    write(&s, "database/static-roles/app", json!({"db_name": "pg", "username": "app", "rotation_period": 5}));
    let first = s.get("database/static-creds/app", &s.root).json()["data"].clone();
    let of = |v: &Value| v["password"].as_str().expect("password").to_owned();
    assert_eq!(pg.query("app", &of(&first), "SELECT 1"), Ok("1".into()));
    assert!(pg.query("app", "app-pass", "SELECT 1").is_err());
    until("the next rotation", || {
        s.get("database/static-creds/app", &s.root).json()["data"]["password"] != first["password"]
    });
    let second = s.get("database/static-creds/app", &s.root).json()["data"].clone();
    assert_eq!(pg.query("app", &of(&second), "SELECT 1"), Ok("1".into()));
    write(&s, "database/static-roles/app", json!({"rotation_period": "24h"}));
    write(&s, "database/rotate-role/app", json!({}));
    let third = s.get("database/static-creds/app", &s.root).json()["data"].clone();
    assert_ne!(third["password"], second["password"]);
    assert_eq!(pg.query("app", &of(&third), "SELECT 1"), Ok("1".into()));
}

#[test]
fn a_server_that_is_away_backs_off_alone_and_heals() {
    let mut pg = Postgres::start();
    let s = connected("db-away", &pg);
    let (lease, ..) = creds(&s, "web");
    pg.stop();
    let a = s.put("sys/leases/revoke", &s.root, &json!({"lease_id": lease}));
    assert_eq!(a.status, 400, "{:?}", a.errors());
    assert!(a.errors().to_string().contains("failed to connect"), "{:?}", a.errors());
    let a = s.put("sys/leases/revoke", &s.root, &json!({"lease_id": lease, "sync": false}));
    assert_eq!(a.status, 202);
    // others are served meanwhile
    write(&s, "sys/mounts/kv", json!({"type": "kv"}));
    write(&s, "kv/a", json!({"x": 1}));
    pg.resume();
    until("the end of the account", || pg.accounts().is_empty());
    let (_, user, password) = creds(&s, "web");
    assert_eq!(pg.query(&user, &password, "SELECT x FROM t"), Ok("7".into()));
}

#[test]
fn accounts_equal_leases_after_kills() {
    let pg = Postgres::start();
    let mut s = connected("db-kill", &pg);
    // what clients were told: lease and account
    let told: std::sync::Mutex<Vec<(String, String)>> = Default::default();
    for round in 0..3 {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (s, stop, told) = (&s, &stop, &told);
            for client in 0..4 {
                scope.spawn(move || {
                    for n in 0..200 {
                        if stop.load(std::sync::atomic::Ordering::Relaxed) {
                            return;
                        }
                        // one of the clients ends what others were given
                        let known = told.lock().expect("lock").get(n / 2).map(|(lease, _)| lease.clone());
                        if let (0, Some(lease)) = (client, known) {
                            if s.try_put("sys/leases/revoke", &s.root, &json!({"lease_id": lease})).is_none() {
                                return;
                            }
                            continue;
                        }
                        let Some(a) = s.try_get("database/creds/web", &s.root) else { return };
                        let v = a.json();
                        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                        if a.status == 200 {
                            let both = (text(&v["lease_id"]), text(&v["data"]["username"]));
                            told.lock().expect("lock").push(both);
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(150 + 130 * round));
            s.signal("KILL");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        s.kill();
        s.start();
        s.unseal();
        // intents of the life before are undone when their time is up, and what a request began to end is ended
        let told = told.lock().expect("lock");
        until("accounts equal leases", || {
            let accounts = pg.accounts();
            let lives =
                |lease: &String| s.put("sys/leases/lookup", &s.root, &json!({"lease_id": lease})).status == 200;
            accounts.len() == lease_count(&s, "web")
                && told.iter().all(|(lease, user)| lives(lease) == accounts.iter().any(|a| a == user))
        });
    }
    assert!(lease_count(&s, "web") > 0);
    write(&s, "sys/leases/revoke-prefix/database/creds/web", json!({}));
    until("the end of all", || pg.accounts().is_empty() && lease_count(&s, "web") == 0);
}

#[test]
fn mariadb_accounts() {
    let db = Mariadb::start();
    let s = Server::ready("db-maria");
    write(&s, "sys/mounts/database", json!({"type": "database"}));
    write(
        &s,
        "database/config/m",
        json!({
            "plugin_name": "mysql-database-plugin", "connection_url": db.url(), "username": "admin",
            "password": ADMIN_PASSWORD, "allowed_roles": "*",
        }),
    );
    let creation = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON *.* TO '{{name}}'@'%';";
    write(&s, "database/roles/web", json!({"db_name": "m", "creation_statements": creation}));
    let (lease, user, password) = creds(&s, "web");
    assert!(user.len() <= 32);
    assert_eq!(db.query(&user, &password, "SELECT 7"), Ok("7".into()));
    write(&s, "sys/leases/revoke", json!({"lease_id": lease}));
    assert!(db.query(&user, &password, "SELECT 7").is_err());
    // statements about accounts are not undone by a rollback: what is left of a half creation is removed
    write(
        &s,
        "database/roles/bad",
        json!({"db_name": "m", "creation_statements": format!("{creation} SELECT nonsense;")}),
    );
    let a = s.get("database/creds/bad", &s.root);
    assert!(a.status == 500 && a.errors().to_string().contains("Error 1054"), "{:?}", a.errors());
    let count = || db.query("admin", ADMIN_PASSWORD, "SELECT count(*) FROM mysql.user WHERE user LIKE 'v-%'");
    until("the end of the half-made account", || count() == Ok("0".into()));
    db.query("admin", ADMIN_PASSWORD, "CREATE USER 'app'@'%' IDENTIFIED BY 'x'; CREATE USER 'boss'@'%' IDENTIFIED BY 'bo''ss'; GRANT ALL ON *.* TO 'boss'@'%' WITH GRANT OPTION").expect("accounts");
    write(&s, "database/config/m", json!({"username": "boss", "password": "bo'ss"}));
    write(&s, "database/rotate-root/m", json!({}));
    assert!(db.query("boss", "bo'ss", "SELECT 1").is_err());
    write(&s, "database/static-roles/app", json!({"db_name": "m", "username": "app", "rotation_period": "1h"}));
    let v = s.get("database/static-creds/app", &s.root).json();
    assert_eq!(db.query("app", v["data"]["password"].as_str().expect("password"), "SELECT 7"), Ok("7".into()));
}

#[test]
fn a_certificate_opens_the_database() {
    let mut pg = Postgres::start();
    let s = connected("db-cert", &pg);
    // an authority, a certificate of the server, and the rule that accounts prove themselves by certificate
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let ca_cert = ca.self_signed(&ca_key).expect("certificate");
    let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::from_pem(&ca_key.serialize_pem()).expect("key"));
    let key = rcgen::KeyPair::generate().expect("key");
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".into()])
        .expect("parameters")
        .signed_by(&key, &issuer)
        .expect("certificate");
    pg.stop();
    pg.file("ca.pem", &ca_cert.pem());
    pg.file("server.crt", &cert.pem());
    pg.file("server.key", &key.serialize_pem());
    pg.file("postgresql.auto.conf", "ssl = on\nssl_ca_file = 'ca.pem'\n");
    pg.file("pg_hba.conf", "hostssl all +bycert 127.0.0.1/32 cert\nhost all all 127.0.0.1/32 scram-sha-256\n");
    pg.resume();
    pg.admin("CREATE ROLE bycert");
    write(
        &s,
        "database/config/pg",
        json!({
            "connection_url": pg.url().replace("sslmode=disable", "sslmode=verify-full"), "tls_ca": ca_cert.pem(),
        }),
    );
    write(
        &s,
        "database/roles/cert",
        json!({
            "db_name": "pg", "credential_type": "client_certificate",
            "credential_config": {"ca_cert": ca_cert.pem(), "ca_private_key": ca_key.serialize_pem(), "key_type": "ec"},
            "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN IN ROLE bycert",
        }),
    );
    let v = s.get("database/creds/cert", &s.root).json();
    let user = v["data"]["username"].as_str().expect("name");
    // the engine's own client shows it: a second connection as that account, which may not verify otherwise
    write(
        &s,
        "database/config/other",
        json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "tls_ca": ca_cert.pem(), "username": user,
            "connection_url": format!("postgresql://{{{{username}}}}@127.0.0.1:{}/postgres?sslmode=verify-full", pg.port),
            "tls_certificate": v["data"]["client_certificate"], "private_key": v["data"]["private_key"],
        }),
    );
    let a = s.put("database/config/none", &s.root, &json!({
        "plugin_name": "postgresql-database-plugin", "tls_ca": ca_cert.pem(), "username": user,
        "connection_url": format!("postgresql://{{{{username}}}}@127.0.0.1:{}/postgres?sslmode=verify-full", pg.port),
    }));
    assert_eq!(a.status, 400, "without its certificate it is nobody");
    // the certificate is for 127.0.0.1: under another name `verify-full` refuses it, also beside a weaker mode, and
    // `verify-ca` does not mind (the strict modes were weakened to `require` before they were looked at)
    for (mode, wanted) in [
        ("sslmode=verify-full", 400),
        ("sslmode=require&sslmode=verify-full", 400),
        ("sslmode=verify-full&sslmode=disable", 400),
        ("sslmode=verify-ca", 204),
    ] {
        let url = pg.url().replace("127.0.0.1", "localhost").replace("sslmode=disable", mode);
        let a = s.put("database/config/pg", &s.root, &json!({"connection_url": url}));
        assert_eq!(a.status, wanted, "{mode}: {:?}", a.errors());
        if wanted == 400 {
            assert!(a.errors().to_string().contains("certificate"), "{:?}", a.errors());
        }
    }
    let strangers = json!({"tls_ca": cert.pem()});
    assert_eq!(
        s.put("database/config/pg", &s.root, &strangers).status,
        400,
        "the server is not trusted by another authority"
    );
}
