//! The PKI engine over the real binary. What it makes is judged by the `openssl` command and by webpki in TLS
//! handshakes of rustls.

use super::harness::{Answer, Scratch, Server, request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

fn write(s: &Server, path: &str, body: Value) -> Value {
    let a = s.put(path, &s.root, &body);
    assert!(a.status == 200 || a.status == 204, "{path}: {} {}", a.status, String::from_utf8_lossy(&a.body));
    a.json()["data"].clone()
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("text, not {v}"))
}

fn mount(s: &Server, path: &str) {
    write(s, &format!("sys/mounts/{path}"), json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}}));
}

fn file(dir: &Scratch, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.0.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Runs openssl; answers its output and fails the test if it is not content.
fn openssl(args: &[&str]) -> String {
    let out = Command::new("openssl").args(args).output().expect("the openssl command is installed");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "openssl {args:?}: {said}");
    said
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|c| c.expect("a certificate")).collect()
}

/// A leaf as its user has it.
struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Leaf {
    fn of(data: &Value) -> Leaf {
        let mut chain = certificates(text(&data["certificate"]));
        for c in data["ca_chain"].as_array().into_iter().flatten() {
            chain.extend(certificates(text(c)));
        }
        let key = PrivateKeyDer::from_pem_slice(text(&data["private_key"]).as_bytes()).expect("a key");
        Leaf { chain, key }
    }
}

/// A handshake in memory between a server and a client that shows a certificate too.
fn handshake(root: &str, server: &Leaf, client: &Leaf, crl: Option<&[u8]>, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for c in certificates(root) {
        roots.add(c).expect("a root");
    }
    let roots = Arc::new(roots);
    let crls = crl.map(|der| CertificateRevocationListDer::from(der.to_vec())).into_iter();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .with_crls(crls)
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status()
        .build()
        .expect("a verifier");
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.chain.clone(), server.key.clone_key())?;
    let mut server = ServerConnection::new(Arc::new(config))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(client.chain.clone(), client.key.clone_key())?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

/// The commands of the documentation, in their words.
#[test]
fn the_chain_of_the_documentation_by_command_line() {
    let s = Server::ready("pki-cli");
    let dir = Scratch::new("pki-cli-files");
    let run = |args: &[&str]| {
        let (code, out, err) = s.cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    };
    run(&["secrets", "enable", "pki"]);
    run(&["secrets", "tune", "-max-lease-ttl=87600h", "pki"]);
    let root =
        run(&["write", "-field=certificate", "pki/root/generate/internal", "common_name=Example Root", "ttl=87600h"]);
    run(&["secrets", "enable", "-path=pki_int", "pki"]);
    run(&["secrets", "tune", "-max-lease-ttl=43800h", "pki_int"]);
    let csr =
        run(&["write", "-field=csr", "pki_int/intermediate/generate/internal", "common_name=Example Intermediate"]);
    let csr = file(&dir, "int.csr", csr.as_bytes());
    openssl(&["req", "-in", &csr.display().to_string(), "-noout", "-verify"]);
    let at = format!("csr=@{}", csr.display());
    let signed =
        run(&["write", "-field=certificate", "pki/root/sign-intermediate", &at, "format=pem_bundle", "ttl=43800h"]);
    let signed = file(&dir, "int.pem", signed.as_bytes());
    run(&["write", "pki_int/intermediate/set-signed", &format!("certificate=@{}", signed.display())]);
    run(&[
        "write",
        "pki_int/roles/web-server",
        "allowed_domains=example.com",
        "allow_subdomains=true",
        "max_ttl=2160h",
    ]);
    let leaf = run(&["write", "-format=json", "pki_int/issue/web-server", "common_name=app.example.com", "ttl=24h"]);
    let leaf: Value = serde_json::from_str(&leaf).expect("json");
    let data = &leaf["data"];
    assert_eq!(data["private_key_type"], "rsa");
    let (root_file, leaf_file) =
        (file(&dir, "root.pem", root.as_bytes()), file(&dir, "leaf.pem", text(&data["certificate"]).as_bytes()));
    openssl(&[
        "verify",
        "-x509_strict",
        "-verify_hostname",
        "app.example.com",
        "-purpose",
        "sslserver",
        "-CAfile",
        &root_file.display().to_string(),
        "-untrusted",
        &signed.display().to_string(),
        &leaf_file.display().to_string(),
    ]);
    let leaf = Leaf::of(data);
    handshake(&root, &leaf, &leaf, None, "app.example.com").expect("both sides are content");
    assert!(handshake(&root, &leaf, &leaf, None, "other.example.com").is_err());
    let (code, _, err) = s.cli(&["write", "pki_int/issue/web-server", "common_name=example.com"]);
    assert!(code == 2 && err.contains("common name example.com not allowed by this role"), "{code}: {err}");
}

/// Every kind of key as root and leaf: OpenSSL verifies chain, request, list and OCSP answer; rustls shakes hands and
/// refuses who was revoked.
#[test]
fn every_kind_of_key_is_accepted_by_others() {
    let s = Server::ready("pki-kinds");
    let dir = Scratch::new("pki-kinds-files");
    for (n, (kind, bits, pss)) in [
        ("rsa", 2048, false),
        ("rsa", 3072, true),
        ("ec", 256, false),
        ("ec", 384, false),
        ("ec", 521, false),
        ("ed25519", 0, false),
    ]
    .into_iter()
    .enumerate()
    {
        let m = format!("pki{n}");
        mount(&s, &m);
        let key = json!({"key_type": kind, "key_bits": bits, "use_pss": pss});
        let with = |more: Value| {
            let mut body = key.clone();
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            body
        };
        let root = write(
            &s,
            &format!("{m}/root/generate/internal"),
            with(json!({"common_name": format!("Root {kind} {bits}")})),
        );
        let root = text(&root["certificate"]).to_owned();
        let role = json!({"allowed_domains": "example.com", "allow_subdomains": true, "allow_bare_domains": true});
        write(&s, &format!("{m}/roles/web"), with(role));
        let body = json!({"common_name": "a.example.com", "alt_names": "*.b.example.com,me@example.com", "ip_sans": "10.1.2.3,::1", "ttl": "24h"});
        let leaf = write(&s, &format!("{m}/issue/web"), body.clone());
        let other = write(&s, &format!("{m}/issue/web"), body);
        let name = |what: &str, bytes: &[u8]| file(&dir, &format!("{n}-{what}"), bytes).display().to_string();
        let (ca, cert) = (name("root.pem", root.as_bytes()), name("leaf.pem", text(&leaf["certificate"]).as_bytes()));
        openssl(&["verify", "-x509_strict", "-CAfile", &ca, &cert]);
        let shown = openssl(&["x509", "-in", &cert, "-noout", "-text"]);
        for part in [
            "DNS:a.example.com",
            "DNS:*.b.example.com",
            "email:me@example.com",
            "IP Address:10.1.2.3",
            "TLS Web Server Authentication",
        ] {
            assert!(shown.contains(part), "{kind}: {part} in {shown}");
        }
        assert_eq!(shown.contains("rsassaPss"), pss);
        let csr = write(
            &s,
            &format!("{m}/intermediate/generate/internal"),
            with(json!({"common_name": "x", "alt_names": "a.b"})),
        );
        openssl(&["req", "-in", &name("csr.pem", text(&csr["csr"]).as_bytes()), "-noout", "-verify"]);

        let (leaf_user, other_user) = (Leaf::of(&leaf), Leaf::of(&other));
        // rustls has no P-521 by default in its own signing schemes of TLS 1.2, and none for it in webpki with SHA-256
        handshake(&root, &leaf_user, &other_user, None, "a.example.com")
            .unwrap_or_else(|e| panic!("{kind} {bits}: {e}"));

        write(&s, &format!("{m}/revoke"), json!({"serial_number": other["serial_number"]}));
        let crl = s.get(&format!("{m}/crl"), "");
        assert_eq!((crl.status, crl.header("content-type")), (200, Some("application/pkix-crl")));
        let crl_file = name("crl.der", &crl.body);
        let shown = openssl(&["crl", "-inform", "DER", "-in", &crl_file, "-noout", "-text", "-CAfile", &ca]);
        assert!(shown.contains("verify OK"), "{shown}");
        let serial = text(&other["serial_number"]).replace(':', "").to_uppercase();
        assert!(shown.contains(&serial), "{serial} in {shown}");
        let refused = handshake(&root, &leaf_user, &other_user, Some(&crl.body), "a.example.com");
        assert!(
            matches!(&refused, Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked))),
            "{kind}: {refused:?}"
        );
        handshake(&root, &other_user, &leaf_user, Some(&crl.body), "a.example.com").expect("who was not revoked");

        for (which, data, word) in [("good", &leaf, "good"), ("gone", &other, "revoked")] {
            let pem = name(which, text(&data["certificate"]).as_bytes());
            let asked = dir.0.join(format!("{n}-{which}.req")).display().to_string();
            openssl(&["ocsp", "-issuer", &ca, "-cert", &pem, "-reqout", &asked]);
            let der = std::fs::read(&asked).expect("a request");
            let a = ocsp(&s, &m, &der);
            assert_eq!((a.status, a.header("content-type")), (200, Some("application/ocsp-response")));
            let answered = name("ocsp.der", &a.body);
            // once with its own request, whose nonce must come back, and once for what it says of the certificate
            let said = openssl(&["ocsp", "-issuer", &ca, "-CAfile", &ca, "-reqin", &asked, "-respin", &answered]);
            assert!(said.contains("Response verify OK"), "{kind}: {said}");
            let said =
                openssl(&["ocsp", "-no_nonce", "-issuer", &ca, "-cert", &pem, "-CAfile", &ca, "-respin", &answered]);
            assert!(said.contains("Response verify OK") && said.contains(&format!(": {word}")), "{kind}: {said}");
        }
    }
}

fn ocsp(s: &Server, mount: &str, der: &[u8]) -> Answer {
    request(s.port, "POST", &format!("{mount}/ocsp"), &[("Content-Type", "application/ocsp-request")], Some(der))
        .expect("an answer")
}

/// What relying parties fetch needs no token, has its content type, and is an empty 204 where there is nothing.
#[test]
fn what_relying_parties_fetch() {
    let mut s = Server::ready("pki-fetch");
    mount(&s, "pki");
    for path in ["ca", "ca/pem", "ca_chain", "crl", "crl/pem"] {
        let a = s.get(&format!("pki/{path}"), "");
        assert_eq!((a.status, a.body.len()), (204, 0), "{path}");
    }
    assert_eq!(s.get("pki/cert/01:02", "").status, 404);
    assert_eq!(ocsp(&s, "pki", b"junk").status, 400);
    write(&s, "pki/root/generate/internal", json!({"common_name": "Root", "key_type": "ec"}));
    write(&s, "pki/roles/r", json!({"allow_any_name": true, "key_type": "ec", "generate_lease": true}));
    let leaf = s.put("pki/issue/r", &s.root, &json!({"common_name": "a.b", "ttl": "1h"})).json();
    let serial = text(&leaf["data"]["serial_number"]).to_owned();
    for (path, kind) in [
        ("ca", "application/pkix-cert"),
        ("ca/pem", "application/pem-certificate-chain"),
        ("ca_chain", "application/pkix-cert"),
        ("crl", "application/pkix-crl"),
        ("crl/pem", "application/x-pem-file"),
        ("issuer/default/der", "application/pkix-cert"),
        ("issuer/default/pem", "application/pem-certificate-chain"),
        ("issuer/default/json", "application/json"),
        ("issuer/default/crl", "application/json"),
        ("cert/ca", "application/json"),
        ("cert/crl", "application/json"),
        (&format!("cert/{serial}"), "application/json"),
        (&format!("cert/{serial}/raw"), "application/pkix-cert"),
        (&format!("cert/{serial}/raw/pem"), "application/pem-certificate-chain"),
    ] {
        let a = s.get(&format!("pki/{path}"), "");
        assert_eq!((a.status, a.header("content-type")), (200, Some(kind)), "{path}");
        assert!(!a.body.is_empty());
    }
    assert_eq!(s.list("pki/issuers", "").status, 200);
    for (method, path) in
        [("LIST", "pki/certs"), ("GET", "pki/roles/r"), ("GET", "pki/issuer/default"), ("PUT", "pki/revoke")]
    {
        let body: Option<&[u8]> = (method == "PUT").then_some(b"{}");
        assert_eq!(s.request(method, path, "", body).status, 403, "{path}");
    }
    // the lease's end is the certificate's
    let lease = text(&leaf["lease_id"]).to_owned();
    assert!(lease.starts_with("pki/issue/r/"), "{lease}");
    write(&s, "sys/leases/revoke", json!({"lease_id": lease, "sync": true}));
    let read = s.get(&format!("pki/cert/{serial}"), "").json();
    assert_ne!(read["data"]["revocation_time"], 0);
    // a kill forgets nothing
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(s.get(&format!("pki/cert/{serial}"), "").json()["data"], read["data"]);
}

/// What is no certificate, request or key is refused with a reason and changes nothing; the process stays.
#[test]
fn hostile_certificates_and_requests() {
    let s = Server::ready("pki-hostile");
    mount(&s, "pki");
    write(&s, "pki/root/generate/internal", json!({"common_name": "Root", "key_type": "ec"}));
    write(&s, "pki/roles/r", json!({"allow_any_name": true, "key_type": "ec"}));
    let pem = |label: &str, b64: &str| format!("-----BEGIN {label}-----\n{b64}\n-----END {label}-----\n");
    let junk = [
        String::new(),
        "x".repeat(100),
        pem("CERTIFICATE REQUEST", "MIIB"),
        pem("CERTIFICATE", "MAA="),
        pem("PRIVATE KEY", "MAA="),
        pem("CERTIFICATE REQUEST", &"MIMA////".repeat(40)),
        "\u{0}".repeat(200),
    ];
    for (path, field) in [
        ("pki/sign/r", "csr"),
        ("pki/sign-verbatim", "csr"),
        ("pki/root/sign-intermediate", "csr"),
        ("pki/root/sign-self-issued", "certificate"),
        ("pki/intermediate/set-signed", "certificate"),
        ("pki/issuers/import/bundle", "pem_bundle"),
        ("pki/keys/import", "pem_bundle"),
        ("pki/revoke", "certificate"),
    ] {
        for j in &junk {
            let mut body = serde_json::Map::new();
            body.insert(field.into(), j.clone().into());
            let a = s.put(path, &s.root, &Value::Object(body));
            assert_eq!(a.status, 400, "{path} {j:?}: {}", String::from_utf8_lossy(&a.body));
        }
    }
    assert_eq!(s.list("pki/issuers", "").json()["data"]["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(s.get("sys/health", "").status, 200);
}

/// The frame of ACME over HTTP: absent until it is switched on, then a directory, and nonces by GET and HEAD.
#[test]
fn the_frame_of_acme() {
    let s = Server::ready("pki-acme");
    mount(&s, "pki");
    let a = s.get("pki/acme/directory", "");
    assert_eq!((a.status, a.body.len()), (404, 0));
    let a = s.put("pki/config/acme", &s.root, &json!({"enabled": true}));
    assert_eq!(a.errors(), json!(["ACME feature requires local cluster 'path' field configuration to be set"]));
    write(&s, "pki/root/generate/internal", json!({"common_name": "Root", "key_type": "ec"}));
    let base = format!("http://127.0.0.1:{}/v1/pki", s.port);
    write(&s, "pki/config/cluster", json!({"path": base}));
    write(&s, "pki/config/acme", json!({"enabled": true}));
    let a = s.get("pki/acme/directory", "");
    assert_eq!((a.status, a.header("content-type")), (200, Some("application/json")));
    assert_eq!(a.json()["newNonce"], format!("{base}/acme/new-nonce"));
    for method in ["GET", "HEAD"] {
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let a = head(&s, method, "pki/acme/new-nonce");
            assert!(a.starts_with("HTTP/1.1 200"), "{method}: {a}");
            let nonce =
                a.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("replay-nonce: ").map(str::to_owned));
            nonces.push(nonce.unwrap_or_else(|| panic!("{method}: a nonce in {a}")));
        }
        assert_ne!(nonces[0], nonces[1]);
    }
    let junk = json!({"protected": "e30", "payload": "", "signature": ""}).to_string();
    let headers = [("Content-Type", "application/jose+json")];
    let a = request(s.port, "POST", "pki/acme/new-account", &headers, Some(junk.as_bytes())).expect("an answer");
    assert_eq!((a.status, a.header("content-type")), (403, Some("application/problem+json")));
    assert!(a.header("replay-nonce").is_some());
}

/// The head of an answer whose length says nothing of its body.
fn head(s: &Server, method: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut c = std::net::TcpStream::connect(("127.0.0.1", s.port)).expect("a connection");
    write!(c, "{method} /v1/{path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    c.read_to_string(&mut text).expect("an answer");
    text
}

/// Intermediates made, made again, found and verified over two mounts by the verbs for it.
#[test]
fn pki_verbs_of_the_command_line() {
    let s = Server::ready("pki-verbs");
    for path in ["root", "int"] {
        mount(&s, path);
    }
    let run = |args: &[&str]| {
        let (code, out, err) = s.cli(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    };
    write(&s, "root/root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "87600h"}));
    let made = run(&[
        "pki",
        "issue",
        "-format=json",
        "-issuer_name=first",
        "root/issuer/default",
        "int/",
        "common_name=First",
        "organization=O",
        "key_type=ec",
        "ttl=4380h",
    ]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert_eq!(made["data"]["issuer_name"], "first");
    let table = run(&["pki", "verify-sign", "root/issuer/default", "int/issuer/first"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[..2], [["issuer:root/issuer/default"], ["issued:int/issuer/first"]], "{table}");
    for name in ["subject_match", "path_match", "trust_match", "key_id_match", "signature_match"] {
        assert!(rows.contains(&vec![name, "true"]), "{name}: {table}");
    }
    let table = run(&["pki", "verify-sign", "int/issuer/first", "root/issuer/default"]);
    assert_eq!(table.matches("false").count(), 5, "{table}");
    // again like the first: with another key, and with the same
    run(&[
        "pki",
        "reissue",
        "-issuer_name=second",
        "root/issuer/default",
        "int/issuer/first",
        "int",
        "common_name=Second",
    ]);
    run(&[
        "pki",
        "reissue",
        "-type=existing",
        "-issuer_name=third",
        "root/issuer/default",
        "int/issuer/first",
        "int",
    ]);
    let issuer = |name: &str| s.get(&format!("int/issuer/{name}"), &s.root).json()["data"].clone();
    let (first, second, third) = (issuer("first"), issuer("second"), issuer("third"));
    assert!(first["key_id"] == third["key_id"] && first["key_id"] != second["key_id"]);
    let subject = |data: &Value| {
        let dir = Scratch::new("pki-verbs-files");
        let path = file(&dir, "c.pem", text(&data["certificate"]).as_bytes());
        openssl(&["x509", "-in", &path.display().to_string(), "-noout", "-subject"])
    };
    assert!(subject(&second).contains("O = O") && subject(&second).contains("CN = Second"), "{}", subject(&second));
    assert_eq!(subject(&first), subject(&third));
    let listed = run(&["pki", "list-intermediates", "-format=json", "root/issuer/default"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    for data in [&first, &second, &third] {
        assert_eq!(listed[format!("int/issuer/{}", text(&data["issuer_id"]))], true, "{listed}");
    }
    let (code, _, err) = s.cli(&["pki", "verify-sign", "root/issuer/none", "int/issuer/first"]);
    assert!(code == 2 && err.contains("unable to read root/issuer/none"), "{code} {err}");
    let (code, _, err) = s.cli(&["pki", "issue", "root/issuer/default", "int"]);
    assert!(code == 1 && err.contains("Not enough arguments"), "{code} {err}");
}

/// A role's template is filled from the caller's entity, by the real identity store.
#[test]
fn templates_of_roles_are_the_callers() {
    let s = Server::ready("pki-templates");
    mount(&s, "pki");
    write(&s, "pki/root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "87600h"}));
    let role = json!({
        "allowed_domains": "{{identity.entity.name}}.example.com,{{identity.entity.metadata.team}}.example.org",
        "allowed_domains_template": true, "allow_bare_domains": true, "key_type": "ec", "ttl": "1h",
    });
    write(&s, "pki/roles/own", role);
    write(&s, "sys/policies/acl/issue", json!({"policy": "path \"pki/issue/own\" { capabilities = [\"update\"] }"}));
    write(&s, "sys/auth/userpass", json!({"type": "userpass"}));
    write(&s, "auth/userpass/users/alice", json!({"password": "long enough", "token_policies": "issue"}));
    let accessor = s.get("sys/auth", &s.root).json()["data"]["userpass/"]["accessor"].clone();
    let made = write(&s, "identity/entity", json!({"name": "alice", "metadata": {"team": "blue"}}));
    write(
        &s,
        "identity/entity-alias",
        json!({"name": "alice", "canonical_id": made["id"], "mount_accessor": accessor}),
    );
    let login = s.put("auth/userpass/login/alice", "", &json!({"password": "long enough"})).json();
    let token = text(&login["auth"]["client_token"]).to_owned();
    for (name, status) in [
        ("alice.example.com", 200),
        ("blue.example.org", 200),
        ("bob.example.com", 400),
        ("{{identity.entity.name}}.example.com", 400),
    ] {
        let answer = s.put("pki/issue/own", &token, &json!({"common_name": name}));
        assert_eq!(answer.status, status, "{name}: {}", answer.json());
    }
    // root has no entity
    assert_eq!(s.put("pki/issue/own", &s.root, &json!({"common_name": "alice.example.com"})).status, 400);
}

/// The health check finds what is wrong, says it in both forms, and its exit code tells how bad it is.
#[test]
fn pki_health_is_checked_by_the_command_line() {
    let s = Server::ready("pki-health");
    mount(&s, "pki");
    write(&s, "pki/root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "87600h"}));
    write(
        &s,
        "pki/roles/web",
        json!({"allow_any_name": true, "key_type": "ec", "allow_localhost": false, "ttl": "1h"}),
    );
    write(&s, "pki/issue/web", json!({"common_name": "a.example.com"}));
    let checked = |args: &[&str]| {
        let (code, out, err) = s.cli(&[&["pki", "health-check", "-format=json"], args].concat());
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        (code, found)
    };
    let (code, found) = checked(&["pki"]);
    assert_eq!(code, 3, "{found}");
    let status = |found: &Value, check: &str| text(&found[check][0]["status"]).to_owned();
    for (check, wanted) in [
        ("ca_validity_period", "ok"),
        ("crl_validity_period", "ok"),
        ("root_issued_leaves", "warning"),
        ("role_allows_localhost", "ok"),
        ("role_no_store_false", "warning"),
        ("tidy_last_run", "warning"),
        ("enable_auto_tidy", "informational"),
        ("too_many_certs", "ok"),
        ("enable_acme_issuance", "informational"),
        ("allow_acme_headers", "not_applicable"),
    ] {
        assert_eq!(status(&found, check), wanted, "{check}: {found}");
    }
    assert_eq!(checked(&["-return-indicator=critical", "pki"]).0, 0);
    let dir = Scratch::new("pki-health-files");
    let config = json!({"ca_validity_period": {"enabled": true, "root_expiry_critical": "36500d"}}).to_string();
    let config = file(&dir, "health.json", config.as_bytes());
    let config = format!("-health-config={}", config.display());
    let (code, found) = checked(&["-default-disabled", &config, "pki"]);
    assert_eq!((code, found.as_object().map(|m| m.len())), (4, Some(1)), "{found}");
    assert_eq!(status(&found, "ca_validity_period"), "critical");
    let (code, out, _) = s.cli(&["pki", "health-check", "pki"]);
    assert!(code == 3 && out.starts_with("ca_validity_period\n------------------\nstatus"), "{out}");
    let (code, out, _) = s.cli(&["pki", "health-check", "-list", "pki"]);
    assert!(code == 0 && out.contains("\"certs_to_inspect\": 100"), "{out}");
    write(&s, "sys/policies/acl/none", json!({"policy": "path \"nothing\" { capabilities = [\"read\"] }"}));
    let token = s.put("auth/token/create", &s.root, &json!({"policies": "none"})).json();
    let bare = s.cli_as(text(&token["auth"]["client_token"]), &["pki", "health-check", "-format=json", "pki"]);
    assert_eq!(bare.0, 6, "{bare:?}");
}
