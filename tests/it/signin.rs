//! Sign-in methods over the real binary, with issuers, an API server and certificates made for the run.

use super::harness::{Answer, Scratch, Server, binary};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(30);

/// A request as a server of the test sees it.
struct Asked {
    path: String,
    head: String,
    body: String,
}

/// A server of the test on loopback, one connection a request; it ends with the process.
fn serve(answer: impl Fn(&str, &Asked) -> (u16, String) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (count, answer, own) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer), address.clone());
    let served = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, count, own) = (answer.clone(), count.clone(), own.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
                let length =
                    head.to_lowercase().split("content-length: ").nth(1).and_then(|t| t.lines().next()?.parse().ok());
                let mut body = String::new();
                let _ = reader.take(length.unwrap_or(0)).read_to_string(&mut body);
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                count.fetch_add(1, Ordering::SeqCst);
                let (status, text) = answer(&own, &Asked { path, head, body });
                let mut stream = stream;
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
            });
        }
    });
    (address, served)
}

/// An issuer's key.
struct Signer(EcdsaKeyPair, String);

impl Signer {
    fn new(id: &str) -> Signer {
        Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"), id.to_owned())
    }

    fn jwk(&self) -> Value {
        let point = &self.0.public_key().as_ref()[1..];
        json!({"kty": "EC", "crv": "P-256", "kid": self.1, "use": "sig", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[..32]), "y": URL_SAFE_NO_PAD.encode(&point[32..])})
    }

    fn token(&self, claims: &Value) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": self.1})), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn good(a: Answer) -> Value {
    assert!(a.status == 200 || a.status == 204, "{} {:?}", a.status, a.errors());
    a.json()
}

fn refused(a: &Answer, status: u16, text: &str) {
    assert_eq!((a.status, a.errors()), (status, json!([text])));
}

#[test]
fn tokens_of_an_issuer_become_service_and_batch_tokens() {
    let s = Server::ready("jwt");
    let (first, second) = (Signer::new("one"), Arc::new(Signer::new("two")));
    let keys = Arc::new(Mutex::new(json!({"keys": [first.jwk()]})));
    let k = keys.clone();
    let (issuer, asked) = serve(move |_, a| match a.path.as_str() {
        "/keys" => (200, k.lock().expect("keys").to_string()),
        _ => (404, "{}".into()),
    });
    good(s.put("sys/auth/jwt", &s.root, &json!({"type": "jwt"})));
    let bad = s.put("auth/jwt/config", &s.root, &json!({"jwks_url": format!("{issuer}/nothing")}));
    assert_eq!(bad.status, 400);
    assert!(bad.errors()[0].as_str().expect("a text").starts_with("error checking jwks URL: "), "{}", bad.errors());
    good(s.put("auth/jwt/config", &s.root, &json!({"jwks_url": format!("{issuer}/keys"), "default_role": "ci"})));
    good(s.put(
        "sys/policies/acl/ci",
        &s.root,
        &json!({"policy": "path \"sys/mounts\" { capabilities = [\"read\"] }"}),
    ));
    let role = |kind: &str| {
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "ci",
            "groups_claim": "groups", "token_type": kind, "token_ttl": "10m", "token_bound_cidrs": "127.0.0.0/8"})
    };
    good(s.put("auth/jwt/role/ci", &s.root, &role("batch")));
    good(s.put("auth/jwt/role/long", &s.root, &role("service")));
    let claims = json!({"sub": "pipeline", "aud": "vault", "iat": now(), "exp": now() + 600, "groups": ["builders"]});
    let token = first.token(&claims);
    for (role, kind, prefix) in [("", "batch", "hvb."), ("long", "service", "hvs.")] {
        let auth = good(s.put("auth/jwt/login", "", &json!({"role": role, "jwt": token})))["auth"].clone();
        assert_eq!((&auth["token_type"], &auth["lease_duration"]), (&json!(kind), &json!(600)));
        assert_eq!(auth["metadata"]["role"], if role.is_empty() { "ci" } else { role });
        assert_eq!(auth["policies"], json!(["ci", "default"]));
        assert!(!auth["entity_id"].as_str().expect("an entity").is_empty());
        let client = auth["client_token"].as_str().expect("a token");
        assert!(client.starts_with(prefix), "{client}");
        assert_eq!(s.get("sys/mounts", client).status, 200);
        let looked = good(s.get("auth/token/lookup-self", client));
        assert_eq!(looked["data"]["display_name"], "jwt-pipeline");
        let renewed = s.put("auth/token/renew-self", client, &json!({}));
        assert_eq!(renewed.status, if kind == "service" { 200 } else { 400 });
    }
    let before = asked.load(Ordering::SeqCst);
    // the issuer changes its key; the young set is not fetched again, however many tokens name the new key
    *keys.lock().expect("keys") = json!({"keys": [second.jwk()]});
    let fresh = second.token(&claims);
    for _ in 0..20 {
        assert_eq!(s.put("auth/jwt/login", "", &json!({"jwt": fresh})).status, 400);
    }
    assert_eq!(asked.load(Ordering::SeqCst), before);
    // and is fetched once it is not young any more
    let begun = Instant::now();
    while s.put("auth/jwt/login", "", &json!({"jwt": fresh})).status != 200 {
        assert!(begun.elapsed() < PATIENCE, "the new key is never known");
        std::thread::sleep(Duration::from_millis(200));
    }
    refused(
        &s.put("auth/jwt/login", "", &json!({"jwt": token})),
        400,
        "error validating token: error verifying token: no known key successfully validated the token signature",
    );
    // hostile tokens cost nothing but their answer
    for jwt in ["", "a", "....", &"A".repeat(70_000), "e30.e30.", &format!("{fresh}x"), &format!(" {fresh}.x")] {
        assert_eq!(s.put("auth/jwt/login", "", &json!({"jwt": jwt})).status, 400, "{jwt:.20}");
    }
    assert_eq!(s.put("auth/jwt/login", "", &json!({"jwt": {"a": 1}})).status, 400);
    assert_eq!(s.get("sys/health", "").status, 200);
}

#[test]
fn service_accounts_log_in_by_token_review() {
    let s = Server::ready("kubernetes");
    let signer = Signer::new("sa");
    let (api, asked) = serve(move |_, a| {
        if a.path != "/apis/authentication.k8s.io/v1/tokenreviews" || !a.head.contains("Bearer reviewer-token") {
            return (403, "{}".into());
        }
        let review: Value = serde_json::from_str(&a.body).unwrap_or_default();
        let good = review["spec"]["audiences"] == json!(["vault"]);
        let user = json!({"username": "system:serviceaccount:prod:web", "uid": "u1"});
        (201, json!({"status": {"authenticated": good, "user": user, "audiences": ["vault"]}}).to_string())
    });
    good(s.put("sys/auth/kubernetes", &s.root, &json!({"type": "kubernetes"})));
    refused(&s.put("auth/kubernetes/config", &s.root, &json!({})), 400, "no host provided");
    good(s.put(
        "auth/kubernetes/config",
        &s.root,
        &json!({"kubernetes_host": api, "token_reviewer_jwt": "reviewer-token"}),
    ));
    good(s.put(
        "auth/kubernetes/role/web",
        &s.root,
        &json!({"bound_service_account_names": "web", "bound_service_account_namespaces": "pr*", "audience": "vault",
            "token_policies": "web", "token_type": "batch"}),
    ));
    let claims = |name: &str| {
        json!({"iss": "x", "aud": ["vault"], "iat": now(), "exp": now() + 600,
            "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": name, "uid": "u1"}}})
    };
    let login =
        |name: &str| s.put("auth/kubernetes/login", "", &json!({"role": "web", "jwt": signer.token(&claims(name))}));
    let auth = good(login("web"))["auth"].clone();
    assert_eq!((&auth["token_type"], &auth["metadata"]["service_account_uid"]), (&json!("batch"), &json!("u1")));
    let before = asked.load(Ordering::SeqCst);
    refused(&login("other"), 403, "service account name not authorized");
    assert_eq!(asked.load(Ordering::SeqCst), before, "nobody is asked about an account that may not");
    refused(&s.put("auth/kubernetes/login", "", &json!({"role": "no", "jwt": "x"})), 400, "invalid role name \"no\"");
    refused(&s.put("auth/kubernetes/login", "", &json!({"role": "web", "jwt": "x"})), 403, "permission denied");
    let (code, out, err) = s.cli(&[
        "login",
        "-method=kubernetes",
        "-token-only",
        "role=web",
        &format!("jwt={}", signer.token(&claims("web"))),
    ]);
    assert!(code == 0 && out.starts_with("hvb."), "{out}{err}");
}

/// The user and the provider in one: whoever authorises is let back at once.
#[test]
fn the_code_flow_through_a_provider() {
    let mut s = Server::ready("oidc");
    let signer = Arc::new(Signer::new("op"));
    let nonces = Arc::new(Mutex::new(String::new()));
    let (sg, n) = (signer.clone(), nonces.clone());
    let (provider, _) = serve(move |own, a| {
        match a.path.as_str() {
        "/.well-known/openid-configuration" => (
            200,
            json!({"issuer": own, "authorization_endpoint": format!("{own}/auth"), "token_endpoint": format!("{own}/token"),
                "jwks_uri": format!("{own}/keys")})
            .to_string(),
        ),
        "/keys" => (200, json!({"keys": [sg.jwk()]}).to_string()),
        "/token" if a.body.contains("code=c0de") && a.body.contains("code_verifier=") => {
            let nonce = n.lock().expect("nonce").clone();
            let claims = json!({"iss": own, "sub": "alice", "aud": "us", "iat": now(), "exp": now() + 600, "nonce": nonce});
            (200, json!({"id_token": sg.token(&claims), "access_token": "at"}).to_string())
        }
        _ => (400, json!({"error": "invalid_grant"}).to_string()),
    }
    });
    good(s.put("sys/auth/oidc", &s.root, &json!({"type": "oidc"})));
    good(s.put(
        "auth/oidc/config",
        &s.root,
        &json!({"oidc_discovery_url": provider, "oidc_client_id": "us", "oidc_client_secret": "s3cret", "default_role": "web",
            "jwt_supported_algs": "ES256"}),
    ));
    good(s.put(
        "auth/oidc/role/web",
        &s.root,
        &json!({"user_claim": "sub", "allowed_redirect_uris": "http://localhost:8250/oidc/callback", "token_policies": "web"}),
    ));
    let begun = good(s.put(
        "auth/oidc/oidc/auth_url",
        "",
        &json!({"redirect_uri": "http://localhost:8251/oidc/callback", "client_nonce": "mine"}),
    ));
    let url = begun["data"]["auth_url"].as_str().expect("a URL").to_owned();
    assert!(url.starts_with(&format!("{provider}/auth?")), "{url}");
    let of = |name: &str| {
        let all = url.split_once('?').expect("a query").1.split('&').filter_map(|p| p.split_once('='));
        all.filter(|(k, _)| *k == name).map(|(_, v)| v.to_owned()).next().unwrap_or_default()
    };
    *nonces.lock().expect("nonce") = of("nonce");
    let back = |s: &Server, nonce: &str| {
        s.get(&format!("auth/oidc/oidc/callback?code=c0de&state={}&client_nonce={nonce}", of("state")), "")
    };
    refused(&back(&s, "other"), 400, "Vault login failed. invalid client_nonce");
    let token = good(back(&s, "mine"))["auth"]["client_token"].as_str().expect("a token").to_owned();
    assert_eq!(good(s.get("auth/token/lookup-self", &token))["data"]["display_name"], "oidc-alice");
    // the state is spent, also after a restart
    refused(&back(&s, "mine"), 400, "Vault login failed. Expired or missing OAuth state.");
    s.kill();
    s.start();
    s.unseal();
    refused(&back(&s, "mine"), 400, "Vault login failed. Expired or missing OAuth state.");
}

/// A development server with TLS, and the command line against it.
struct Tls {
    child: Child,
    port: u16,
    scratch: Scratch,
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tls {
    fn start(name: &str) -> Tls {
        let scratch = Scratch::new(name);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let log = std::fs::File::create(scratch.0.join("log")).expect("a file");
        let child = Command::new(binary())
            .args(["server", "-dev", "-dev-tls", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-tls-cert-dir={}", scratch.0.display()))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("HOME", &scratch.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let tls = Tls { child, port, scratch };
        let begun = Instant::now();
        while tls.cli(&["status"]).0 != 0 {
            let log = std::fs::read_to_string(tls.scratch.0.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "{:?} {log}", tls.cli(&["status"]));
            std::thread::sleep(Duration::from_millis(50));
        }
        tls
    }

    fn cli(&self, args: &[&str]) -> (i32, String) {
        let out = Command::new(binary())
            .args(args)
            .env("VAULT_ADDR", format!("https://127.0.0.1:{}", self.port))
            .env("VAULT_CACERT", self.scratch.0.join("vault-ca.pem"))
            .env("VAULT_TOKEN", "root")
            .env("HOME", &self.scratch.0)
            .stdin(Stdio::null())
            .output()
            .expect("the command line runs");
        (
            out.status.code().unwrap_or(-1),
            [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat(),
        )
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.scratch.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    fn login(&self, made: Option<&(String, String)>) -> (i32, String) {
        let (mut flags, files);
        flags = vec!["login", "-method=cert", "-token-only"];
        if let Some((certificate, key)) = made {
            files = [format!("-client-cert={certificate}"), format!("-client-key={key}")];
            flags.extend(files.iter().map(String::as_str));
        }
        self.cli(&flags)
    }
}

#[test]
fn clients_log_in_by_their_certificates() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let s = Tls::start("cert");
    let authority = || {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, "clients");
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = p.self_signed(&key).expect("a certificate").pem();
        (p, key, pem)
    };
    let made_so_far = std::sync::atomic::AtomicU32::new(0);
    let client = |by: &(CertificateParams, KeyPair, String), name: &str| {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, name);
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let made = p.signed_by(&key, &Issuer::from_params(&by.0, &by.1)).expect("a certificate");
        let n = made_so_far.fetch_add(1, Ordering::Relaxed);
        let certificate = s.file(&format!("{name}-{n}.pem"), &made.pem());
        (certificate, s.file(&format!("{name}-{n}.key"), &key.serialize_pem()))
    };
    let ours = authority();
    let web = client(&ours, "web");
    let ca = s.file("ca.pem", &ours.2);
    let ok = |(code, text): (i32, String)| assert_eq!(code, 0, "{text}");
    ok(s.cli(&["auth", "enable", "cert"]));
    ok(s.cli(&[
        "write",
        "auth/cert/certs/web",
        &format!("certificate=@{ca}"),
        "allowed_common_names=we*",
        "token_type=batch",
    ]));
    let (code, token) = s.login(Some(&web));
    assert!(code == 0 && token.starts_with("hvb."), "{token}");
    let refused = |(code, text): (i32, String), why: &str| assert!(code == 2 && text.contains(why), "{code} {text}");
    refused(s.login(None), "client certificate must be supplied");
    refused(s.login(Some(&client(&ours, "db"))), "no chain matching all constraints could be found");
    let theirs = authority();
    refused(s.login(Some(&client(&theirs, "web"))), "invalid certificate or no client certificate supplied");
    // one certificate, itself
    ok(s.cli(&["write", "auth/cert/certs/web", &format!("certificate=@{}", web.0), "token_type=service"]));
    let (code, token) = s.login(Some(&web));
    assert!(code == 0 && token.starts_with("hvs."), "{token}");
    refused(s.login(Some(&client(&ours, "web"))), "invalid certificate or no client certificate supplied");
    // its token is renewed on a connection of the same client only
    let renew = |flags: &[&str]| {
        let token = format!("VAULT_TOKEN={}", token.trim());
        let mut all = vec![binary().to_str().expect("a path"), "token", "renew"];
        all.extend(flags);
        let out = Command::new("env")
            .arg(token)
            .args(all)
            .env("VAULT_ADDR", format!("https://127.0.0.1:{}", s.port))
            .env("VAULT_CACERT", s.scratch.0.join("vault-ca.pem"))
            .env("HOME", &s.scratch.0)
            .output()
            .expect("the command line runs");
        (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    ok(renew(&[&format!("-client-cert={}", web.0), &format!("-client-key={}", web.1)]));
    refused(renew(&[]), "client certificate must be supplied");
    assert!(Path::new(&web.0).exists());
}

/// CVE-2025-6004: a lock is of the user, however the name is written.
#[test]
fn cve_2025_6004_a_lockout_is_not_passed_by_case_or_spaces() {
    let s = Server::ready("lockout-names");
    good(s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"})));
    good(s.put("auth/userpass/users/bob", &s.root, &json!({"password": "hunter2"})));
    let login =
        |name: &str, word: &str| s.put(&format!("auth/userpass/login/{name}"), "", &json!({"password": word}));
    for name in ["bob", "Bob", "BOB", "bOb", "boB"] {
        refused(&login(name, "wrong"), 400, "invalid username or password");
    }
    let begun = Instant::now();
    while login("bob", "hunter2").status != 403 {
        assert!(begun.elapsed() < PATIENCE, "never locked");
        std::thread::sleep(Duration::from_millis(20));
    }
    for name in ["bob", "Bob", "BOB"] {
        refused(&login(name, "hunter2"), 403, "permission denied");
    }
    for name in ["bob%20", "%20bob", "bob%09", "bob%00", "b%C3%B6b", "bob/", "bob%2F"] {
        assert_ne!(login(name, "hunter2").status, 200, "{name}");
    }
}

/// CVE-2025-6010: names that exist are answered as names that do not.
#[test]
fn cve_2025_6010_users_are_not_enumerated() {
    let s = Server::ready("enumeration");
    good(s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"})));
    good(s.put("auth/userpass/users/bob", &s.root, &json!({"password": "hunter2"})));
    let login = |name: &str| s.put(&format!("auth/userpass/login/{name}"), "", &json!({"password": "wrong"}));
    let (known, unknown) = (login("bob"), login("eve"));
    assert_eq!((known.status, known.errors()), (unknown.status, unknown.errors()));
    let no_password = |name: &str| s.put(&format!("auth/userpass/login/{name}"), "", &json!({}));
    assert_eq!(no_password("bob").errors(), no_password("eve").errors());
    assert_eq!(no_password("bob").status, no_password("eve").status);
}

#[test]
fn passwords_and_tools() {
    let s = Server::ready("tools");
    let policy = "length = 24\nrule \"charset\" { charset = \"abc\" min-chars = 3 }\nrule \"charset\" { charset = \"0123\" min-chars = 4 }\n";
    good(s.put("sys/policies/password/p", &s.root, &json!({"policy": policy})));
    assert_eq!(good(s.get("sys/policies/password/p", &s.root))["data"]["policy"], policy);
    assert_eq!(good(s.list("sys/policies/password", &s.root))["data"]["keys"], json!(["p"]));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let made = good(s.get("sys/policies/password/p/generate", &s.root))["data"]["password"].clone();
        let made = made.as_str().expect("a password").to_owned();
        let count = |set: &str| made.chars().filter(|c| set.contains(*c)).count();
        assert!(made.len() == 24 && count("abc") >= 3 && count("0123") >= 4 && count("abc0123") == 24, "{made}");
        seen.insert(made);
    }
    assert_eq!(seen.len(), 20);
    refused(&s.get("sys/policies/password/none", &s.root), 404, "policy does not exist");
    for (text, part) in [
        ("length = 3\nrule \"charset\" { charset = \"abc\" }", "passwords must be between 4 and 100 characters"),
        ("length = 101\nrule \"charset\" { charset = \"abc\" }", "passwords must be between 4 and 100 characters"),
        ("length = 5\nrule \"charset\" { charset = \"abc\" min-chars = 6 }", ""),
        ("length = 8\nrule \"words\" { charset = \"abc\" }", "invalid password policy"),
        ("length = ", ""),
    ] {
        let a = s.put("sys/policies/password/bad", &s.root, &json!({"policy": text}));
        assert_eq!(a.status, 400, "{text}");
        assert!(a.errors()[0].as_str().expect("a text").contains(part), "{text}: {}", a.errors());
    }
    assert_eq!(s.get("sys/policies/password/bad", &s.root).status, 404);
    let random = |path: &str, body: Value| s.put(&format!("sys/tools/random{path}"), &s.root, &body);
    for (path, body, length) in [
        ("", json!({}), 44),
        ("/16", json!({"format": "hex"}), 32),
        ("/platform/8", json!({"format": "hex"}), 16),
        ("", json!({"bytes": 131_072, "format": "hex"}), 262_144),
    ] {
        let made = good(random(path, body))["data"]["random_bytes"].as_str().expect("bytes").len();
        assert_eq!(made, length);
    }
    refused(&random("", json!({"bytes": 0})), 400, "'bytes' cannot be less than 1");
    refused(&random("/131073", json!({})), 400, "'bytes' should be less than 131072");
    refused(&random("", json!({"format": "x"})), 400, "unsupported encoding format x; must be \"hex\" or \"base64\"");
    let hash = |path: &str, body: Value| s.put(&format!("sys/tools/hash{path}"), &s.root, &body);
    // "abc", FIPS 180-4 and 202
    for (algorithm, sum) in [
        ("", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("/sha2-224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("/sha3-224", "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        ("/sha3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
    ] {
        assert_eq!(good(hash(algorithm, json!({"input": "YWJj"})))["data"]["sum"], sum);
    }
    refused(&hash("/md5", json!({"input": "YWJj"})), 400, "unsupported algorithm md5");
    assert!(
        hash("", json!({"input": "*"})).errors()[0]
            .as_str()
            .expect("a text")
            .starts_with("unable to decode input as base64: ")
    );
}
