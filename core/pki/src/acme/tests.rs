//! A client of the protocol against the engine; the outside is a table of what hosts answer.

use crate::Pki;
use crate::cert;
use crate::fixture::World;
use crate::pem;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use der::Encode;
use ringfence_base::Code;
use ringfence_logical::{HttpAnswer, Operation, ProbeKind, SideOp, SideResult};
use rustls_pki_types::pem::SectionKind;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;

const BASE: &str = "https://v.example.com/v1/pki";

fn world() -> World {
    let mut w = World::new(Pki);
    w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "ec"}));
    w.post("config/cluster", json!({"path": BASE}));
    w.post("config/acme", json!({"enabled": true}));
    w.post("roles/web", json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "any"}));
    w
}

/// Does the jobs there are at their times until none is left; answers the seconds that it took and how many there were.
fn tried_to_its_end(w: &mut World) -> (u64, usize) {
    let (began, mut done) = (w.now.seconds(), 0);
    while let Some((job, at)) = w.jobs().into_iter().min_by_key(|(_, at)| *at) {
        assert!(job.starts_with("acme/") && done < 100, "{job}");
        w.now = w.now.max(at);
        w.due(&job).unwrap();
        // the worker deletes what was not scheduled anew
        let left = w.jobs().into_iter().any(|(j, next)| j == job && next <= at);
        assert!(!left, "{job} would be due for ever");
        done += 1;
    }
    (w.now.seconds() - began, done)
}

/// What an answer says: status, JSON, location.
struct Said {
    status: u16,
    retry_after: String,
    body: Value,
    text: String,
    location: String,
}

struct Client {
    key: EcdsaKeyPair,
    kid: Option<String>,
    directory: String,
    nonce: String,
}

impl Client {
    fn new(w: &mut World, directory: &str) -> Client {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut c = Client { key, kid: None, directory: directory.into(), nonce: String::new() };
        c.refresh(w);
        c
    }

    fn refresh(&mut self, w: &mut World) {
        let raw = w.get(&format!("{}/new-nonce", self.directory)).response.unwrap().raw.unwrap();
        self.nonce = raw.headers.iter().find(|(n, _)| n == "Replay-Nonce").unwrap().1.clone();
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..])})
    }

    fn jws(&self, url: &str, payload: &str) -> Value {
        let mut header = json!({"alg": "ES256", "nonce": self.nonce, "url": url});
        match &self.kid {
            Some(kid) => header["kid"] = kid.clone().into(),
            None => header["jwk"] = self.jwk(),
        }
        let protected = B64.encode(header.to_string());
        let payload = B64.encode(payload);
        let signature = self.key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
        json!({"protected": protected, "payload": payload, "signature": B64.encode(signature.as_ref())})
    }

    /// Posts to a URL of ours; the next nonce is taken from the answer.
    fn post(&mut self, w: &mut World, url: &str, payload: &str) -> Said {
        let body = self.jws(url, payload);
        self.send(w, url, body)
    }

    fn send(&mut self, w: &mut World, url: &str, body: Value) -> Said {
        let path = url.strip_prefix(BASE).unwrap().trim_start_matches('/').to_owned();
        let answer = w.post(&path, body);
        let raw = answer.response.unwrap().raw.unwrap();
        let header = |n: &str| raw.headers.iter().find(|(k, _)| k == n).map(|(_, v)| v.clone()).unwrap_or_default();
        self.nonce = header("Replay-Nonce");
        let status = match answer.code {
            Code::Ok => 200,
            Code::Custom(n) => n,
            other => panic!("{other:?}"),
        };
        let text = String::from_utf8(raw.body).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Said { status, retry_after: header("Retry-After"), body, text, location: header("Location") }
    }

    fn url(&self, path: &str) -> String {
        format!("{BASE}/{}/{path}", self.directory)
    }

    fn register(&mut self, w: &mut World) {
        let said = self.post(
            w,
            &self.url("new-account"),
            "{\"contact\":[\"mailto:me@example.com\"],\"termsOfServiceAgreed\":true}",
        );
        assert_eq!(said.status, 201, "{}", said.text);
        self.kid = Some(said.location);
    }

    fn order(&mut self, w: &mut World, names: &[&str]) -> Said {
        let ids: Vec<Value> = names.iter().map(|n| json!({"type": "dns", "value": n})).collect();
        self.post(w, &self.url("new-order"), &json!({"identifiers": ids}).to_string())
    }
}

fn problem(said: &Said) -> (u16, &str) {
    (said.status, said.body["type"].as_str().unwrap_or("").rsplit(':').next().unwrap_or(""))
}

/// Hosts answer what stands in the table; others cannot be reached.
fn outside(w: &mut World) -> Arc<Mutex<Vec<(String, String)>>> {
    let table: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let shared = table.clone();
    w.outside = Box::new(move |op| match op {
        SideOp::Probe(probe) => {
            assert!(probe.reach.public_addresses_only);
            let rows = shared.lock().unwrap();
            let at = match &probe.what {
                ProbeKind::Texts { name } => format!("dns:{name}"),
                ProbeKind::Leaf { host, server_name, protocol } => format!("{protocol}:{host}:{server_name}"),
            };
            let texts: Vec<&str> = rows.iter().filter(|(k, _)| *k == at).map(|(_, v)| v.as_str()).collect();
            Some(match (&probe.what, texts.first()) {
                (ProbeKind::Texts { .. }, _) => SideResult::Json(json!(texts)),
                (_, Some(digits)) => SideResult::Bytes(Arc::new(hex::decode(digits).unwrap())),
                (_, None) => SideResult::Failed("refused".into()),
            })
        }
        SideOp::Http(ask) => {
            assert!(ask.reach.public_addresses_only);
            let rows = shared.lock().unwrap();
            Some(match rows.iter().find(|(url, _)| *url == ask.url) {
                Some((_, body)) => SideResult::Http(Arc::new(HttpAnswer {
                    status: 200,
                    headers: vec![],
                    body: body.clone().into_bytes(),
                })),
                None => SideResult::Failed("refused".into()),
            })
        }
        _ => None,
    });
    table
}

fn csr(names: &str) -> (String, Vec<u8>) {
    let mut w = World::new(Pki);
    let first = names.split(',').next().unwrap().to_owned();
    let made =
        w.post("intermediate/generate/exported", json!({"common_name": first, "alt_names": names, "key_type": "ec"}));
    let der = pem::first(made.data["csr"].as_str().unwrap(), SectionKind::Csr).unwrap();
    (made.data["private_key"].as_str().unwrap().to_owned(), der)
}

fn prove(c: &mut Client, w: &mut World, table: &Arc<Mutex<Vec<(String, String)>>>, order: &Said) {
    let print = super::jws::thumbprint(&c.jwk()).unwrap();
    for a in order.body["authorizations"].as_array().unwrap() {
        let authz = c.post(w, a.as_str().unwrap(), "");
        let challenge = &authz.body["challenges"][0];
        let token = challenge["token"].as_str().unwrap();
        let host = authz.body["identifier"]["value"].as_str().unwrap();
        table
            .lock()
            .unwrap()
            .push((format!("http://{host}/.well-known/acme-challenge/{token}"), format!("{token}.{print}")));
        let said = c.post(w, challenge["url"].as_str().unwrap(), "{}");
        assert_eq!(said.body["status"], "valid", "{}", said.text);
    }
}

#[test]
fn from_directory_to_certificate_and_revocation() {
    for directory in ["acme", "roles/web/acme", "issuer/default/acme", "issuer/default/roles/web/acme"] {
        let mut w = world();
        let table = outside(&mut w);
        let raw = w.get(&format!("{directory}/directory")).response.unwrap().raw.unwrap();
        let shown: Value = serde_json::from_slice(&raw.body).unwrap();
        assert_eq!(shown["newOrder"], format!("{BASE}/{directory}/new-order"));
        let mut c = Client::new(&mut w, directory);
        c.register(&mut w);
        let order = c.order(&mut w, &["a.example.com", "b.example.com"]);
        assert_eq!((order.status, &order.body["status"]), (201, &json!("pending")));
        let finalize = order.body["finalize"].as_str().unwrap().to_owned();
        let (_, der) = csr("a.example.com,b.example.com");
        let body = json!({"csr": B64.encode(&der)}).to_string();
        assert_eq!(problem(&c.post(&mut w, &finalize, &body)), (403, "orderNotReady"));
        prove(&mut c, &mut w, &table, &order);
        assert_eq!(c.post(&mut w, &order.location, "").body["status"], "ready");
        let (_, other) = csr("a.example.com,c.example.com");
        let refused = c.post(&mut w, &finalize, &json!({"csr": B64.encode(&other)}).to_string());
        assert_eq!(problem(&refused), (400, "badCSR"), "names that were not proven");
        let done = c.post(&mut w, &finalize, &body);
        assert_eq!(done.body["status"], "valid", "{}", done.text);
        let cert_url = done.body["certificate"].as_str().unwrap().to_owned();
        let chain = c.post(&mut w, &cert_url, "").text;
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
        let leaf = pem::first(&chain, SectionKind::Certificate).unwrap();
        let parsed = cert::parse(&leaf).unwrap();
        assert!(!cert::is_ca(&parsed));
        let revoke = json!({"certificate": B64.encode(&leaf), "reason": 1}).to_string();
        let mut stranger = Client::new(&mut w, directory);
        stranger.register(&mut w);
        let url = c.url("revoke-cert");
        assert_eq!(problem(&stranger.post(&mut w, &url, &revoke)), (403, "unauthorized"));
        assert_eq!(problem(&stranger.post(&mut w, &order.location, "")), (400, "malformed"), "another's order");
        assert_eq!(c.post(&mut w, &url, &revoke).status, 200);
        assert_eq!(problem(&c.post(&mut w, &url, &revoke)), (400, "alreadyRevoked"));
        assert_eq!(c.post(&mut w, &c.url("orders"), "").body["orders"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn what_a_directory_refuses() {
    let mut w = world();
    let table = outside(&mut w);
    let mut c = Client::new(&mut w, "roles/web/acme");
    c.register(&mut w);
    for (name, wanted) in [
        ("evil.org", "rejectedIdentifier"),
        ("a.*.example.com", "rejectedIdentifier"),
        ("*.evil.org", "rejectedIdentifier"),
        ("*", "rejectedIdentifier"),
        ("10.0.0.1", "rejectedIdentifier"),
        ("", "rejectedIdentifier"),
    ] {
        assert_eq!(problem(&c.order(&mut w, &[name])).1, wanted, "{name}");
    }
    assert_eq!(problem(&c.order(&mut w, &[])).1, "malformed");
    let order = c.order(&mut w, &["a.example.com"]);
    let a = order.body["authorizations"][0].as_str().unwrap().to_owned();
    let url = c.post(&mut w, &a, "").body["challenges"][0]["url"].as_str().unwrap().to_owned();
    let failed = c.post(&mut w, &url, "{}");
    assert_eq!(
        (failed.body["status"].as_str(), failed.body["error"]["type"].as_str()),
        (Some("processing"), Some("urn:ietf:params:acme:error:connection"))
    );
    assert_eq!(c.post(&mut w, &order.location, "").body["status"], "pending");
    tried_to_its_end(&mut w);
    assert_eq!(c.post(&mut w, &url, "").body["status"], "invalid");
    assert_eq!(c.post(&mut w, &order.location, "").body["status"], "invalid");
    // somebody else's answer
    let order = c.order(&mut w, &["a.example.com"]);
    let a = order.body["authorizations"][0].as_str().unwrap().to_owned();
    let challenge = c.post(&mut w, &a, "").body["challenges"][0].clone();
    let token = challenge["token"].as_str().unwrap();
    table
        .lock()
        .unwrap()
        .push((format!("http://a.example.com/.well-known/acme-challenge/{token}"), format!("{token}.another")));
    assert_eq!(c.post(&mut w, challenge["url"].as_str().unwrap(), "{}").body["status"], "processing");
    tried_to_its_end(&mut w);
    assert_eq!(c.post(&mut w, challenge["url"].as_str().unwrap(), "").body["status"], "invalid");
    // off, and not allowed
    w.post("config/acme", json!({"allowed_roles": "web", "default_directory_policy": "forbid"}));
    let raw = w.get("acme/directory").response.unwrap().raw.unwrap();
    assert_eq!(raw.content_type, "application/problem+json");
    w.post("config/acme", json!({"enabled": false}));
    assert_eq!(w.get("acme/directory").code, Code::NotFound);
    let (_, why) = World::new(Pki).refused(Operation::Update, "config/acme", json!({"enabled": true}));
    assert_eq!(why, "ACME feature requires local cluster 'path' field configuration to be set");
}

/// The challenge of a kind that an authorization offers.
fn challenge(authz: &Said, kind: &str) -> Option<Value> {
    authz.body["challenges"].as_array().unwrap().iter().find(|c| c["type"] == kind).cloned()
}

fn kinds(authz: &Said) -> Vec<&str> {
    authz.body["challenges"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect()
}

#[test]
fn a_challenge_is_tried_again_by_itself() {
    let mut w = world();
    let table = outside(&mut w);
    let mut c = Client::new(&mut w, "acme");
    c.register(&mut w);
    let print = super::jws::thumbprint(&c.jwk()).unwrap();
    let order = c.order(&mut w, &["a.example.com"]);
    let a = order.body["authorizations"][0].as_str().unwrap().to_owned();
    let asked = challenge(&c.post(&mut w, &a, ""), "http-01").unwrap();
    let (url, token) = (asked["url"].as_str().unwrap(), asked["token"].as_str().unwrap());
    let first = c.post(&mut w, url, "{}");
    assert_eq!((first.body["status"].as_str(), first.retry_after.as_str()), (Some("processing"), "2"));
    assert!(first.body["error"].is_object());
    let authz = c.post(&mut w, &a, "");
    assert_eq!((authz.body["status"].as_str(), authz.retry_after.is_empty()), (Some("pending"), false));
    assert_eq!(kinds(&authz).len(), 3, "another way to prove it is still open");
    assert_eq!(challenge(&authz, "dns-01").unwrap()["status"], "pending");
    // the second try fails too, and says later when the third is
    let (job, at) = w.jobs().remove(0);
    w.now = at;
    w.due(&job).unwrap();
    let again = w.jobs();
    assert_eq!((again.len(), again[0].1.seconds() - at.seconds()), (1, 4));
    table
        .lock()
        .unwrap()
        .push((format!("http://a.example.com/.well-known/acme-challenge/{token}"), format!("{token}.{print}")));
    let (_, more) = tried_to_its_end(&mut w);
    assert_eq!(more, 1);
    let end = c.post(&mut w, url, "");
    assert_eq!((end.body["status"].as_str(), end.retry_after.as_str()), (Some("valid"), ""));
    assert!(end.body["error"].is_null() && end.body["validated"].is_string(), "{}", end.text);
    assert_eq!(c.post(&mut w, &order.location, "").body["status"], "ready");
}

#[test]
fn tries_have_an_end_whoever_asks_for_them() {
    let mut w = world();
    outside(&mut w);
    let mut c = Client::new(&mut w, "acme");
    c.register(&mut w);
    let begin = |c: &mut Client, w: &mut World| {
        let order = c.order(w, &["a.example.com"]);
        let authz = c.post(w, order.body["authorizations"][0].as_str().unwrap(), "");
        let url = challenge(&authz, "http-01").unwrap()["url"].as_str().unwrap().to_owned();
        (c.post(w, &url, "{}").body["status"].as_str().unwrap().to_owned(), url)
    };
    let (status, url) = begin(&mut c, &mut w);
    assert_eq!(status, "processing");
    assert_eq!(tried_to_its_end(&mut w), (2 + 4 + 8 + 16 + 32, 5));
    assert_eq!(c.post(&mut w, &url, "{}").body["status"], "invalid", "what ended is not begun anew");
    // a client may have the next try at once, and gets no more of them by it
    let (_, url) = begin(&mut c, &mut w);
    let mut asked = 1;
    while c.post(&mut w, &url, "{}").body["status"] == "processing" {
        asked += 1;
        w.now = w.now.plus_seconds(1);
        assert!(asked < 10);
    }
    assert_eq!((asked + 1, w.jobs().len()), (6, 0), "nothing is left to do of what ended");
    // the worker has other things to do as well: beyond a number nobody waits
    let statuses: Vec<String> = (0..9).map(|_| begin(&mut c, &mut w).0).collect();
    assert!(statuses[..8].iter().all(|s| s == "processing") && statuses[8] == "invalid", "{statuses:?}");
    // switched off, nobody is asked
    w.post("config/acme", json!({"enabled": false}));
    let asked = w.side_ops.len();
    let (job, at) = w.jobs().remove(0);
    w.now = at;
    w.due(&job).unwrap();
    assert_eq!(w.side_ops.len(), asked);
}

#[test]
fn a_star_is_proven_by_dns_alone() {
    for directory in ["acme", "roles/web/acme"] {
        let mut w = world();
        let table = outside(&mut w);
        let mut c = Client::new(&mut w, directory);
        c.register(&mut w);
        let print = super::jws::thumbprint(&c.jwk()).unwrap();
        let order = c.order(&mut w, &["*.a.example.com", "a.example.com"]);
        assert_eq!(order.body["identifiers"][0]["value"], "*.a.example.com");
        for (n, url) in order.body["authorizations"].as_array().unwrap().iter().enumerate() {
            let url = url.as_str().unwrap();
            let authz = c.post(&mut w, url, "");
            assert_eq!(authz.body["identifier"]["value"], "a.example.com");
            assert_eq!(
                (authz.body["wildcard"] == true, kinds(&authz).len()),
                if n == 0 { (true, 1) } else { (false, 3) }
            );
            let asked = challenge(&authz, "dns-01").unwrap();
            let by_http = asked["url"].as_str().unwrap().replace("dns-01", "http-01");
            if n == 0 {
                assert_eq!(problem(&c.post(&mut w, &by_http, "{}")).1, "malformed", "not offered");
            }
            let proof = format!("{}.{print}", asked["token"].as_str().unwrap());
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, proof.as_bytes());
            table.lock().unwrap().push(("dns:_acme-challenge.a.example.com".into(), B64.encode(digest)));
            let said = c.post(&mut w, asked["url"].as_str().unwrap(), "{}");
            assert_eq!(
                (&said.body["status"], &said.body["type"]),
                (&json!("valid"), &json!("dns-01")),
                "{}",
                said.text
            );
            assert_eq!(kinds(&c.post(&mut w, url, "")), ["dns-01"], "the one that was tried");
        }
        let (_, der) = csr("*.a.example.com,a.example.com");
        let body = json!({"csr": B64.encode(&der)}).to_string();
        let done = c.post(&mut w, order.body["finalize"].as_str().unwrap(), &body);
        assert_eq!(done.body["status"], "valid", "{}", done.text);
    }
    let mut w = world();
    w.post(
        "roles/web",
        json!({"allowed_domains": "example.com", "allow_subdomains": true, "allow_wildcard_certificates": false}),
    );
    let mut c = Client::new(&mut w, "roles/web/acme");
    c.register(&mut w);
    assert_eq!(problem(&c.order(&mut w, &["*.example.com"])).1, "rejectedIdentifier");
}

#[test]
fn texts_that_prove_nothing() {
    let mut w = world();
    let table = outside(&mut w);
    let mut c = Client::new(&mut w, "acme");
    c.register(&mut w);
    for text in [None, Some(""), Some("another digest")] {
        let order = c.order(&mut w, &["a.example.com"]);
        let authz = c.post(&mut w, order.body["authorizations"][0].as_str().unwrap(), "");
        table.lock().unwrap().clear();
        table.lock().unwrap().extend(text.map(|t| ("dns:_acme-challenge.a.example.com".to_owned(), t.to_owned())));
        let said = c.post(&mut w, challenge(&authz, "dns-01").unwrap()["url"].as_str().unwrap(), "{}");
        assert_eq!(said.body["error"]["type"], "urn:ietf:params:acme:error:unauthorized");
        tried_to_its_end(&mut w);
        assert_eq!(c.post(&mut w, &order.location, "").body["status"], "invalid");
    }
}

/// A certificate as a TLS-ALPN-01 responder shows it.
fn marked(sans: Vec<GeneralName>, critical: bool, marks: &[Vec<u8>]) -> Vec<u8> {
    let key = crate::key::Spec::parse("ec", 256).unwrap().generate().unwrap();
    let further = marks.iter().map(|m| Extension {
        extn_id: "1.3.6.1.5.5.7.1.31".parse().unwrap(),
        critical,
        extn_value: cert::octets(m).unwrap(),
    });
    let template = cert::Template {
        subject: cert::Subject::default().name().unwrap(),
        sans,
        key_usage: vec![],
        ext_key_usage: vec![],
        policies: None,
        basic: None,
        name_constraints: None,
        further: further.collect(),
        public: key.public().unwrap(),
        subject_key_id: vec![],
        not_before: 1,
        not_after: 2,
        urls: Default::default(),
    };
    let signer = cert::Signer {
        algorithm: key.algorithm(0, false),
        key: &key,
        name: template.subject.clone(),
        key_id: vec![],
    };
    template.sign(&signer, &mut ringfence_base::entropy::SeededEntropy(1)).unwrap().der
}

#[test]
fn certificates_that_prove_a_name_or_an_address() {
    let mut w = world();
    let table = outside(&mut w);
    let mut c = Client::new(&mut w, "acme");
    c.register(&mut w);
    let print = super::jws::thumbprint(&c.jwk()).unwrap();
    let a = || cert::dns("a.example.com").unwrap();
    let address = || cert::ip("192.0.2.34".parse().unwrap());
    type Shape = (&'static str, Vec<GeneralName>, bool, usize, bool, bool);
    let shapes: Vec<Shape> = vec![
        ("a.example.com", vec![a()], true, 1, true, true),
        ("192.0.2.34", vec![address()], true, 1, true, true),
        ("a.example.com", vec![a()], true, 1, false, false),
        ("a.example.com", vec![a()], false, 1, true, false),
        ("a.example.com", vec![a()], true, 0, true, false),
        ("a.example.com", vec![a(), cert::dns("b.example.com").unwrap()], true, 1, true, false),
        ("a.example.com", vec![cert::dns("*.example.com").unwrap()], true, 1, true, false),
        ("a.example.com", vec![address()], true, 1, true, false),
        ("a.example.com", vec![], true, 1, true, false),
    ];
    for (n, (name, sans, critical, marks, ours, good)) in shapes.into_iter().enumerate() {
        let kind = if name.starts_with('a') { "dns" } else { "ip" };
        let body = json!({"identifiers": [{"type": kind, "value": name}]}).to_string();
        let url = c.url("new-order");
        let order = c.post(&mut w, &url, &body);
        let authz = c.post(&mut w, order.body["authorizations"][0].as_str().unwrap(), "");
        assert_eq!(challenge(&authz, "dns-01").is_some(), kind == "dns");
        let asked = challenge(&authz, "tls-alpn-01").unwrap();
        let proof = format!("{}.{}", asked["token"].as_str().unwrap(), if ours { &print } else { "other" });
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, proof.as_bytes());
        let mark = cert::octets(digest.as_ref()).unwrap().to_der().unwrap();
        let shown = marked(sans, critical, &vec![mark; marks]);
        let server_name = if kind == "dns" { name } else { "34.2.0.192.in-addr.arpa" };
        table.lock().unwrap().clear();
        table.lock().unwrap().push((format!("acme-tls/1:{name}:{server_name}"), hex::encode(shown)));
        let said = c.post(&mut w, asked["url"].as_str().unwrap(), "{}");
        assert_eq!(said.body["status"], if good { "valid" } else { "processing" }, "{n}: {}", said.text);
        tried_to_its_end(&mut w);
        let said = c.post(&mut w, asked["url"].as_str().unwrap(), "");
        assert_eq!(said.body["status"], if good { "valid" } else { "invalid" }, "{n}: {}", said.text);
    }
}

#[test]
fn what_validation_may_reach() {
    let mut w = world();
    let set = json!({"dns_resolver": "127.0.0.1:53", "permitted_address_ranges": ["127.0.0.0/8", "fd00::/8"]});
    let shown = w.post("config/acme", set).data;
    assert_eq!(shown["permitted_address_ranges"], json!(["127.0.0.0/8", "fd00::/8"]));
    for (field, value, why) in [
        ("dns_resolver", "ns.example.com:53", "expected IPv4/IPv6 address, likely got hostname"),
        ("dns_resolver", ":53", "got empty address"),
        ("dns_resolver", "127.0.0.1", "address 127.0.0.1: missing port in address"),
        ("dns_resolver", "127.0.0.1:x", "address 127.0.0.1:x: invalid port"),
        ("permitted_address_ranges", "10.0.0.0/40", "\"10.0.0.0/40\" is not a range of addresses"),
    ] {
        let (code, text) = w.refused(Operation::Update, "config/acme", json!({field: value}));
        assert!(code == Code::Invalid && text.ends_with(why), "{text}");
    }
    let seen = Arc::new(Mutex::new(None));
    let kept = seen.clone();
    w.outside = Box::new(move |op| match op {
        SideOp::Http(ask) => {
            *kept.lock().unwrap() = Some(ask.reach.clone());
            Some(SideResult::Failed("no".into()))
        }
        _ => None,
    });
    let mut c = Client::new(&mut w, "acme");
    c.register(&mut w);
    let order = c.order(&mut w, &["a.example.com"]);
    let authz = c.post(&mut w, order.body["authorizations"][0].as_str().unwrap(), "");
    c.post(&mut w, challenge(&authz, "http-01").unwrap()["url"].as_str().unwrap(), "{}");
    let reach = seen.lock().unwrap().clone().unwrap();
    assert!(reach.public_addresses_only && reach.dns_resolver == "127.0.0.1:53");
    assert!(reach.allows("127.0.0.1".parse().unwrap()) && !reach.allows("10.0.0.1".parse().unwrap()));
}

#[test]
fn signatures_nonces_and_urls() {
    let mut w = world();
    let mut c = Client::new(&mut w, "acme");
    let url = c.url("new-account");
    let nonce = c.nonce.clone();
    c.register(&mut w);
    let kid = c.kid.take();
    // the same account again, by its key
    let again = c.post(&mut w, &url, "{}");
    assert_eq!((again.status, Some(again.location)), (200, kid.clone()));
    c.nonce = nonce;
    assert_eq!(problem(&c.post(&mut w, &url, "{}")), (400, "badNonce"), "spent");
    c.nonce = B64.encode([7; 32]);
    assert_eq!(problem(&c.post(&mut w, &url, "{}")), (400, "badNonce"), "never ours");
    c.refresh(&mut w);
    w.now = w.now.plus_seconds(3600);
    assert_eq!(problem(&c.post(&mut w, &url, "{}")), (400, "badNonce"), "old");
    let mut bad = c.jws(&url, "{}");
    bad["payload"] = B64.encode("{\"a\":1}").into();
    assert_eq!(problem(&c.send(&mut w, &url, bad)).1, "malformed", "not what was signed");
    let elsewhere = c.jws(&c.url("new-order"), "{}");
    assert_eq!(problem(&c.send(&mut w, &url, elsewhere)), (403, "unauthorized"), "for another URL");
    c.kid = kid.clone();
    let mut thief = Client::new(&mut w, "acme");
    thief.kid = kid.clone();
    assert_eq!(problem(&thief.order(&mut w, &["a.example.com"])).1, "malformed", "another's kid");
    c.refresh(&mut w);
    c.post(&mut w, &kid.unwrap(), "{\"status\":\"deactivated\"}");
    assert_eq!(problem(&c.order(&mut w, &["a.example.com"])), (403, "unauthorized"));
    for junk in [
        json!({}),
        json!({"protected": "!", "payload": "", "signature": ""}),
        json!({"protected": B64.encode("[]"), "payload": "", "signature": ""}),
    ] {
        assert_eq!(problem(&c.send(&mut w, &url, junk)).1, "malformed");
    }
}

#[test]
fn external_account_binding() {
    let mut w = world();
    w.post("config/acme", json!({"eab_policy": "always-required"}));
    let mut c = Client::new(&mut w, "acme");
    let url = c.url("new-account");
    assert_eq!(problem(&c.post(&mut w, &url, "{}")).1, "externalAccountRequired");
    let eab = w.post("acme/new-eab", json!({})).data;
    assert_eq!((&eab["key_type"], &eab["acme_directory"]), (&json!("hs"), &json!("acme/directory")));
    assert_eq!(w.list("eab").data["keys"], json!([eab["id"]]));
    let bind = |c: &Client, key: &[u8]| {
        let protected = B64.encode(json!({"alg": "HS256", "kid": eab["id"], "url": url}).to_string());
        let payload = B64.encode(c.jwk().to_string());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), format!("{protected}.{payload}").as_bytes());
        json!({"externalAccountBinding": {"protected": protected, "payload": payload, "signature": B64.encode(tag.as_ref())}}).to_string()
    };
    let key = B64.decode(eab["key"].as_str().unwrap()).unwrap();
    let wrong = bind(&c, b"wrong");
    assert_eq!(problem(&c.post(&mut w, &url, &wrong)), (403, "unauthorized"));
    let right = bind(&c, &key);
    let made = c.post(&mut w, &url, &right);
    assert_eq!((made.status, &made.body["externalAccountBinding"]["kid"]), (201, &eab["id"]));
    let mut other = Client::new(&mut w, "acme");
    let twice = bind(&other, &key);
    assert_eq!(problem(&other.post(&mut w, &url, &twice)), (403, "unauthorized"), "used up");
    assert_eq!(w.list("eab").code, Code::NotFound);
}

/// Orders, proves and finalizes by one request; the leaf.
fn obtain(w: &mut World, directory: &str, names: &[&str], request: &[u8]) -> Result<cert::Certificate, String> {
    let table = outside(w);
    let mut c = Client::new(w, directory);
    c.register(w);
    let order = c.order(w, names);
    prove(&mut c, w, &table, &order);
    let finalize = order.body["finalize"].as_str().unwrap().to_owned();
    let done = c.post(w, &finalize, &json!({"csr": B64.encode(request)}).to_string());
    let Some(url) = done.body["certificate"].as_str().map(str::to_owned) else { return Err(done.text) };
    let chain = c.post(w, &url, "").text;
    Ok(cert::parse(&pem::first(&chain, SectionKind::Certificate).unwrap()).unwrap())
}

/// A client proved one name, and put an organization and a second common name into its request: under a verbatim policy
/// the authority signed all of it.
#[test]
fn a_verbatim_policy_signs_nothing_of_the_subject_but_a_proven_name() {
    let mut w = world();
    let mut other = World::new(Pki);
    let body = json!({"common_name": "a.example.com", "key_type": "ec", "organization": "Trusted Bank", "ou": "Root CAs",
        "country": "CH", "serial_number": "77"});
    let made = other.post("intermediate/generate/exported", body);
    let der = pem::first(made.data["csr"].as_str().unwrap(), SectionKind::Csr).unwrap();
    assert!(!cert::serial_attribute(&cert::Request::parse(&der).unwrap().subject).is_empty(), "the request has it");
    let leaf = obtain(&mut w, "acme", &["a.example.com"], &der).unwrap();
    assert_eq!(leaf.tbs_certificate.subject.to_string(), "CN=a.example.com");
}

/// An account that was made in a directory without external binding named itself, by a URL written by hand, in one that
/// asks for it; and who knew a key got the account of another directory for it.
#[test]
fn an_account_speaks_in_its_own_directory_only() {
    let mut w = world();
    w.post("roles/other", json!({"allow_any_name": true, "key_type": "any"}));
    let mut c = Client::new(&mut w, "roles/web/acme");
    c.register(&mut w);
    let kid = c.kid.clone().unwrap();
    c.directory = "roles/other/acme".into();
    c.kid = Some(kid.replace("roles/web", "roles/other"));
    assert_eq!(problem(&c.order(&mut w, &["evil.org"])), (400, "accountDoesNotExist"));
    c.kid = None;
    let asked = c.url("new-account");
    assert_eq!(problem(&c.post(&mut w, &asked, "{\"onlyReturnExisting\":true}")), (400, "accountDoesNotExist"));
    c.register(&mut w);
    assert_ne!(c.kid.as_ref().unwrap().rsplit('/').next(), kid.rsplit('/').next(), "an account of its own");
    assert_eq!(c.order(&mut w, &["evil.org"]).status, 201);
    // and the first is still found by its key, in its own
    c.directory = "roles/web/acme".into();
    c.kid = None;
    let asked = c.url("new-account");
    let again = c.post(&mut w, &asked, "{\"onlyReturnExisting\":true}");
    assert_eq!((again.status, again.location), (200, kid));
}

/// `allowed_issuers` was asked only when the path named the issuer.
#[test]
fn allowed_issuers_bind_whoever_chose_the_issuer() {
    let mut w = world();
    let second =
        w.post("root/generate/internal", json!({"common_name": "Second", "key_type": "ec", "issuer_name": "second"}));
    w.post("config/acme", json!({"allowed_issuers": "second"}));
    let kind = |w: &mut World, d: &str| w.get(&format!("{d}/directory")).response.unwrap().raw.unwrap().content_type;
    const REFUSED: &str = "application/problem+json";
    for directory in ["acme", "roles/web/acme", "issuer/default/acme"] {
        assert_eq!(kind(&mut w, directory), REFUSED, "{directory}: the default issuer is not the second");
    }
    let by_id = format!("issuer/{}/acme", second.data["issuer_id"].as_str().unwrap());
    for directory in ["issuer/second/acme", &by_id] {
        assert_eq!(kind(&mut w, directory), "application/json", "{directory}: the same issuer by name and by id");
    }
    w.patch("roles/web", json!({"issuer_ref": "second"}));
    assert_eq!(kind(&mut w, "roles/web/acme"), "application/json");
}
