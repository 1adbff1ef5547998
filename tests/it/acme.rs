//! ACME over the real binary: a client of the protocol, and hosts on loopback that prove what it asks for. Only the
//! ports that the protocol prescribes are not the test's to choose; where a process may not bind them it says so and
//! ends.

use super::harness::{Answer, Server, request};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use rcgen::{CertificateParams, CustomExtension, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the hosts answer with.
#[derive(Debug, Default)]
struct Shown {
    /// By host and path.
    pages: BTreeMap<String, String>,
    /// How often the pages of a host and path are not there yet.
    late: BTreeMap<String, u32>,
    /// By name.
    texts: Vec<(String, String)>,
    /// By server name.
    certificates: BTreeMap<String, Arc<CertifiedKey>>,
    /// Names that the name server was asked for.
    asked: Vec<String>,
}

/// Every name of the world has one address, on which a web server, a TLS server and a name server listen.
struct World {
    ip: Ipv4Addr,
    resolver: String,
    shown: Arc<Mutex<Shown>>,
}

impl World {
    /// `None` where ports below 1024 are not for this user.
    fn new(last: u8) -> Option<World> {
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | high & 63, low, last);
        let bind = |port| match TcpListener::bind((ip, port)) {
            Ok(l) => Some(l),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                eprintln!("not run: port {port} is not for this user to bind");
                None
            }
            Err(e) => panic!("{ip}:{port}: {e}"),
        };
        let (web, tls) = (bind(80)?, bind(443)?);
        let names = UdpSocket::bind((ip, 0)).expect("a name server");
        let resolver = names.local_addr().expect("an address").to_string();
        let shown: Arc<Mutex<Shown>> = Arc::default();
        // the threads end with the process
        let s = shown.clone();
        std::thread::spawn(move || serve_pages(&web, &s));
        let s = shown.clone();
        std::thread::spawn(move || serve_tls(&tls, s));
        let s = shown.clone();
        std::thread::spawn(move || serve_names(&names, ip, &s));
        Some(World { ip, resolver, shown })
    }

    fn prove(&self, host: &str, kind: &str, token: &str, print: &str) {
        let proof = format!("{token}.{print}");
        let mark = digest(&SHA256, proof.as_bytes());
        let mut s = self.shown.lock().expect("no panic");
        match kind {
            "http-01" => {
                s.pages.insert(format!("{host}/.well-known/acme-challenge/{token}"), proof);
            }
            "dns-01" => s.texts.push((format!("_acme-challenge.{host}"), B64.encode(mark))),
            _ => {
                let mut params = CertificateParams::default();
                let (san, name) = match host.parse::<Ipv4Addr>() {
                    Ok(ip) => {
                        let [a, b, c, d] = ip.octets();
                        (SanType::IpAddress(ip.into()), format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
                    }
                    Err(_) => (SanType::DnsName(host.try_into().expect("a name")), host.to_owned()),
                };
                params.subject_alt_names = vec![san];
                params.custom_extensions = vec![CustomExtension::new_acme_identifier(mark.as_ref())];
                let key = rcgen::KeyPair::generate().expect("a key");
                let cert = params.self_signed(&key).expect("a certificate");
                let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).expect("a key");
                let made = CertifiedKey::new(vec![cert.der().clone()], signer);
                s.certificates.insert(name, Arc::new(made));
            }
        }
    }
}

fn serve_pages(listener: &TcpListener, shown: &Mutex<Shown>) {
    for stream in listener.incoming().flatten() {
        let mut reader = BufReader::new(stream);
        let mut head: Vec<String> = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
            head.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        let path = head.first().and_then(|l| l.split(' ').nth(1)).unwrap_or("").to_owned();
        let host = head.iter().find_map(|l| l.to_lowercase().strip_prefix("host: ").map(str::to_owned));
        let wanted = host.unwrap_or_default() + &path;
        let page = {
            let mut s = shown.lock().expect("no panic");
            match s.late.get_mut(&wanted) {
                Some(n) if *n > 0 => {
                    *n -= 1;
                    None
                }
                _ => s.pages.get(&wanted).cloned(),
            }
        };
        let answer = match page {
            // a page that says where it is instead is a redirect
            Some(p) if p.starts_with("http") => {
                format!("HTTP/1.1 302 Found\r\nLocation: {p}\r\nContent-Length: 0\r\n")
            }
            Some(p) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{p}", p.len()),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n".to_owned(),
        };
        let end = if answer.contains("\r\n\r\n") { "" } else { "Connection: close\r\n\r\n" };
        let _ = write!(reader.get_mut(), "{answer}{end}");
    }
}

#[derive(Debug)]
struct ByName(Arc<Mutex<Shown>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.lock().expect("no panic").certificates.get(hello.server_name()?).cloned()
    }
}

fn serve_tls(listener: &TcpListener, shown: Arc<Mutex<Shown>>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(shown)));
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let config = Arc::new(config);
    for stream in listener.incoming().flatten() {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let tls = ServerConnection::new(config.clone()).expect("a connection");
        // reads until the client goes, so that the handshake is whole
        let _ = StreamOwned::new(tls, stream).read(&mut [0; 1]);
    }
}

/// Answers A with the world's address and TXT with what was put up; a packet that is no question gets nothing.
fn serve_names(socket: &UdpSocket, ip: Ipv4Addr, shown: &Mutex<Shown>) {
    let mut packet = [0; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut packet) {
        let Some((name, kind, end)) = question(&packet[..n]) else { continue };
        let mut s = shown.lock().expect("no panic");
        s.asked.push(name.clone());
        let answers: Vec<Vec<u8>> = match kind {
            1 => vec![ip.octets().to_vec()],
            16 => {
                let texts = s.texts.iter().filter(|(k, _)| *k == name);
                texts.map(|(_, t)| [&[t.len() as u8], t.as_bytes()].concat()).collect()
            }
            _ => Vec::new(),
        };
        drop(s);
        let mut out =
            [&packet[..2], &[0x81, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0], &packet[12..end]].concat();
        for data in answers {
            out.extend([0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 1, 0, data.len() as u8]);
            out.extend(data);
        }
        let _ = socket.send_to(&out, from);
    }
}

/// Name, type and end of a packet's question.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

/// A client with an account.
struct Client<'s> {
    server: &'s Server,
    base: String,
    key: EcdsaKeyPair,
    kid: Option<String>,
    nonce: String,
}

impl<'s> Client<'s> {
    fn new(server: &'s Server, directory: &str) -> Client<'s> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let base = format!("http://127.0.0.1:{}/v1/pki/{directory}", server.port);
        let nonce =
            server.get(&format!("pki/{directory}/new-nonce"), "").header("replay-nonce").expect("one").to_owned();
        let mut c = Client { server, base, key, kid: None, nonce };
        let made = c.post(&c.url("new-account"), &json!({"termsOfServiceAgreed": true}).to_string());
        assert_eq!(made.status, 201, "{}", made.json());
        c.kid = made.header("location").map(str::to_owned);
        c
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"crv": "P-256", "kty": "EC", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..])})
    }

    /// RFC 7638: the members in their order, nothing between them.
    fn print(&self) -> String {
        let jwk = self.jwk();
        let text = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}", jwk["x"], jwk["y"]);
        B64.encode(digest(&SHA256, text.as_bytes()))
    }

    fn post(&mut self, url: &str, payload: &str) -> Answer {
        let mut header = json!({"alg": "ES256", "nonce": self.nonce, "url": url});
        match &self.kid {
            Some(kid) => header["kid"] = kid.clone().into(),
            None => header["jwk"] = self.jwk(),
        }
        let (protected, payload) = (B64.encode(header.to_string()), B64.encode(payload));
        let signed =
            self.key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).expect("signed");
        let body = json!({"protected": protected, "payload": payload, "signature": B64.encode(signed.as_ref())});
        let path = url.split("/v1/").nth(1).expect("a URL of ours");
        let headers = [("Content-Type", "application/jose+json")];
        let answer =
            request(self.server.port, "POST", path, &headers, Some(body.to_string().as_bytes())).expect("answered");
        self.nonce = answer.header("replay-nonce").expect("a nonce").to_owned();
        answer
    }

    fn order(&mut self, kind: &str, names: &[&str]) -> Answer {
        let ids: Vec<Value> = names.iter().map(|n| json!({"type": kind, "value": n})).collect();
        let answer = self.post(&self.url("new-order"), &json!({"identifiers": ids}).to_string());
        assert_eq!(answer.status, 201, "{}", answer.json());
        answer
    }

    /// Tries one kind of challenge for every authorization of an order; the last answer.
    fn try_all(&mut self, world: &World, order: &Value, kind: &str) -> Value {
        let mut last = Value::Null;
        for url in order["authorizations"].as_array().expect("a list") {
            let authz = self.post(url.as_str().expect("text"), "").json();
            let challenges = authz["challenges"].as_array().expect("a list").clone();
            let one = challenges.iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("{kind}: {authz}"));
            let host = authz["identifier"]["value"].as_str().expect("text");
            world.prove(host, kind, one["token"].as_str().expect("text"), &self.print());
            last = self.post(one["url"].as_str().expect("text"), "{}").json();
        }
        last
    }

    /// Finalizes an order; the names in the certificate as openssl shows them.
    fn certificate(&mut self, order: &Value, names: Vec<SanType>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = names;
        let key = rcgen::KeyPair::generate().expect("a key");
        let csr = params.serialize_request(&key).expect("a request");
        let finalize = order["finalize"].as_str().expect("text").to_owned();
        let done = self.post(&finalize, &json!({"csr": B64.encode(csr.der())}).to_string()).json();
        assert_eq!(done["status"], "valid", "{done}");
        let chain = self.post(done["certificate"].as_str().expect("text"), "").body;
        let mut openssl = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-ext", "subjectAltName"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the openssl command is installed");
        openssl.stdin.take().expect("piped").write_all(&chain).expect("written");
        String::from_utf8(openssl.wait_with_output().expect("its end").stdout).expect("text")
    }
}

fn server(name: &str, config: Value) -> Server {
    let s = Server::ready(name);
    let write = |path: &str, body: Value| {
        let a = s.put(path, &s.root, &body);
        assert!(a.status < 300, "{path}: {}", a.json());
    };
    write("sys/mounts/pki", json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}}));
    write("pki/root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "8760h"}));
    write("pki/config/cluster", json!({"path": format!("http://127.0.0.1:{}/v1/pki", s.port)}));
    write("pki/config/acme", config);
    write("pki/roles/web", json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "any"}));
    s
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a name"))
}

#[test]
fn acme_names_are_proven_over_http_dns_and_tls() {
    let Some(w) = World::new(10) else { return };
    let range = format!("{}/32", w.ip);
    let s = server("acme", json!({"enabled": true, "dns_resolver": w.resolver, "permitted_address_ranges": [range]}));
    for directory in ["acme", "roles/web/acme"] {
        let mut c = Client::new(&s, directory);
        for (kind, names) in [
            ("http-01", &["h.example.com"][..]),
            ("dns-01", &["d.example.com", "*.d.example.com"]),
            ("tls-alpn-01", &["t.example.com", "u.example.com"]),
        ] {
            let order = c.order("dns", names);
            let last = c.try_all(&w, &order.json(), kind);
            assert_eq!(last["status"], "valid", "{kind}: {last}");
            let shown = c.certificate(&order.json(), names.iter().map(|n| dns(n)).collect());
            for n in names {
                assert!(shown.contains(&format!("DNS:{n}")), "{shown}");
            }
        }
    }
    // an address proves itself; nobody has to look it up
    let ip = w.ip.to_string();
    let mut c = Client::new(&s, "acme");
    for kind in ["http-01", "tls-alpn-01"] {
        let order = c.order("ip", &[&ip]);
        let last = c.try_all(&w, &order.json(), kind);
        assert_eq!(last["status"], "valid", "{kind}: {last}");
        let shown = c.certificate(&order.json(), vec![SanType::IpAddress(w.ip.into())]);
        assert!(shown.contains(&format!("IP Address:{ip}")), "{shown}");
    }
    let asked = w.shown.lock().expect("no panic").asked.clone();
    assert!(asked.contains(&"_acme-challenge.d.example.com".to_owned()) && !asked.contains(&ip), "{asked:?}");
}

/// A page that is put up late: the first two questions find nothing, and nobody but the server itself asks again.
#[test]
fn acme_asks_again_by_itself() {
    let Some(w) = World::new(12) else { return };
    let range = format!("{}/32", w.ip);
    let s =
        server("acme-again", json!({"enabled": true, "dns_resolver": w.resolver, "permitted_address_ranges": range}));
    let mut c = Client::new(&s, "acme");
    let order = c.order("dns", &["late.example.com"]);
    let authz_url = order.json()["authorizations"][0].as_str().expect("text").to_owned();
    let authz = c.post(&authz_url, "").json();
    let one = authz["challenges"].as_array().expect("a list").iter().find(|o| o["type"] == "http-01").expect("one");
    let (url, token) = (one["url"].as_str().expect("text"), one["token"].as_str().expect("text"));
    w.prove("late.example.com", "http-01", token, &c.print());
    let page = format!("late.example.com/.well-known/acme-challenge/{token}");
    w.shown.lock().expect("no panic").late.insert(page.clone(), 2);
    let said = c.post(url, "{}");
    assert_eq!(said.json()["status"], "processing", "{}", said.json());
    assert_eq!(said.json()["error"]["type"], "urn:ietf:params:acme:error:unauthorized");
    let wait = |a: &Answer| a.header("retry-after").and_then(|n| n.parse::<u64>().ok());
    assert!(wait(&said).is_some_and(|n| (1..=2).contains(&n)), "{:?}", said.headers);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let end = loop {
        let a = c.post(url, "");
        if a.json()["status"] != "processing" {
            break a;
        }
        assert!(std::time::Instant::now() < deadline, "{}", a.json());
        std::thread::sleep(Duration::from_secs(wait(&a).expect("it says when")));
    };
    assert_eq!(end.json()["status"], "valid", "{}", end.json());
    assert!(end.json()["error"].is_null() && wait(&end).is_none());
    assert_eq!(w.shown.lock().expect("no panic").late[&page], 0, "both early questions were asked");
    let order_url = order.header("location").expect("one");
    assert_eq!(c.post(order_url, "").json()["status"], "ready");
    let names = c.certificate(&order.json(), vec![dns("late.example.com")]);
    assert!(names.contains("DNS:late.example.com"), "{names}");
}

#[test]
fn cve_2026_5052_acme_reaches_only_what_the_operator_permitted() {
    let Some(w) = World::new(11) else { return };
    let s = server("acme-guard", json!({"enabled": true, "dns_resolver": w.resolver}));
    let mut c = Client::new(&s, "acme");
    let kind_of = |v: &Value| v["error"]["type"].as_str().unwrap_or("").rsplit(':').next().unwrap_or("").to_owned();
    for (kind, name) in [("http-01", "g.example.com"), ("tls-alpn-01", "g.example.com")] {
        let order = c.order("dns", &[name]);
        let last = c.try_all(&w, &order.json(), kind);
        // it will be tried again, and is told what was wrong
        assert_eq!((last["status"].as_str(), kind_of(&last).as_str()), (Some("processing"), "connection"), "{last}");
        assert_eq!(c.post(order.header("location").expect("one"), "").json()["status"], "pending");
    }
    // a redirect leads to no other port and to no address outside of the range
    let range = json!({"permitted_address_ranges": format!("{}/32", w.ip)});
    assert_eq!(s.put("pki/config/acme", &s.root, &range).status, 200);
    for target in [format!("http://{}:{}/v1/sys/health", w.ip, s.port), "http://127.0.0.1/".into()] {
        let order = c.order("dns", &["r.example.com"]).json();
        let authz = c.post(order["authorizations"][0].as_str().expect("text"), "").json();
        let one = authz["challenges"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|c| c["type"] == "http-01")
            .expect("one")
            .clone();
        let page = format!("r.example.com/.well-known/acme-challenge/{}", one["token"].as_str().expect("text"));
        w.shown.lock().expect("no panic").pages.insert(page, target);
        let said = c.post(one["url"].as_str().expect("text"), "{}").json();
        assert_eq!(kind_of(&said), "connection", "{said}");
    }
    // a resolver that is not there
    let nobody = json!({"dns_resolver": format!("{}:1", w.ip)});
    assert_eq!(s.put("pki/config/acme", &s.root, &nobody).status, 200);
    let order = c.order("dns", &["n.example.com"]);
    let last = c.try_all(&w, &order.json(), "dns-01");
    assert_eq!(kind_of(&last), "dns", "{last}");
    assert_eq!(s.get("sys/health", "").status, 200);
}
