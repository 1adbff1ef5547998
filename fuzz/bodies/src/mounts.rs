//! Engines that read formats others made: certificate requests, bundles, revocation lists, OCSP questions, signed ACME
//! requests, one-time password addresses, SSH keys. Each body gives its bytes to the engine's own handler over a mount
//! in memory; what the handler writes is thrown away, so every input meets the same mount.

use ringfence_barrier::{Issuer, Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Code, Index, MountId, NsId, Wall};
use ringfence_crypto::Provider;
use ringfence_logical::{
    Args, Class, Cx, Error, Host, Map, MountInfo, Operation, Registry, Request, Step, TokenType,
};
use ringfence_store::Image;
use serde_json::{Value, json};
use std::cell::OnceCell;

/// A mount as its operator set it up.
struct Mount {
    registry: Registry,
    image: Image,
    keyring: Keyring,
    sealer: Sealer,
    info: MountInfo,
    next: u64,
}

struct Alone;

impl Host for Alone {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn keyed_hash(&self, _: &str, _: &[u8]) -> [u8; 16] {
        [0; 16]
    }
}

impl Mount {
    fn new(class: Class, kind: &str, setup: &[(&str, Value)]) -> Mount {
        let mut registry = ringfence_engines::registry();
        ringfence_pki::register(&mut registry);
        let mut rng = SeededEntropy(1);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(1), &mut rng);
        let mut image = Image::new();
        let version = image.publish();
        let mut txn = Txn::new(&version, None);
        let mut issuer = Issuer::register(&mut txn, "fuzz", Wall(1), &mut rng);
        let batch = txn.finish_clear(Wall(1)).ok().and_then(|f| f.batch).expect("an issuer is written");
        image.apply(Index(1), &batch);
        let sealer = issuer.sealer(&keyring);
        let info = MountInfo {
            id: MountId(1),
            ns: NsId::ROOT,
            ns_path: String::new(),
            path: format!("{kind}/"),
            kind: kind.into(),
            class,
            accessor: String::new(),
            uuid: String::new(),
            options: Default::default(),
            default_ttl: 3600,
            max_ttl: 36_000,
            token_type: TokenType::Default,
        };
        let mut mount = Mount { registry, image, keyring, sealer, info, next: 2 };
        for (path, body) in setup {
            let (answer, batch) = mount.call(Operation::Update, path, object(body.clone()));
            answer.unwrap_or_else(|e| panic!("{path}: {e:?}"));
            if let Some(batch) = batch {
                mount.image.apply(Index(mount.next), &batch);
                mount.next += 1;
            }
        }
        mount
    }

    /// Runs one request; what it would have written comes along.
    fn call(
        &mut self,
        op: Operation,
        path: &str,
        body: Map,
    ) -> (Result<Step, Error>, Option<ringfence_store::Batch>) {
        let engine = self.registry.find(self.info.class, &self.info.kind, None).expect("the engine is registered");
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        let req = Request {
            id: String::new(),
            op,
            path: path.into(),
            remote: None,
            wrap_ttl: 0,
            headers: Vec::new(),
            peer_certificates: Default::default(),
        };
        let mut cx = Cx {
            txn: &mut txn,
            mount: &self.info,
            req: &req,
            principal: None,
            now: Wall::from_seconds(1_700_000_000),
            rng: &mut SeededEntropy(2),
            host: &Alone,
        };
        let m = engine.matcher.find(engine.engine.table(), path).expect("the path exists");
        let answer = Args::parse(m.path.fields, &m.captures, body).and_then(|args| {
            let handler = m.path.handler(op).expect("the operation exists");
            handler(&mut cx, &args)
        });
        let batch = txn.finish(&mut self.sealer, Wall(2)).expect("it seals").batch;
        (answer, batch)
    }

    /// Hands an input over; whatever it is, it is answered or refused as the client's mistake.
    fn survive(&mut self, path: &str, body: Value) {
        let (answer, batch) = self.call(Operation::Update, path, object(body));
        match answer {
            Ok(Step::Done(r)) => {
                let code = r.and_then(|r| r.code);
                assert!(!matches!(code, Some(Code::Internal | Code::Custom(500))), "{path}: {code:?}");
            }
            // a key of RSA, or a question to the outside: the operation is not the input's any more
            Ok(_) => {}
            Err(e) => {
                assert!(e.code != Code::Internal, "{path}: {e:?}");
                assert!(
                    batch.is_none_or(|b| b.ops.is_empty()) || path.contains("acme"),
                    "{path}: refused, yet it writes"
                );
            }
        }
    }
}

fn object(v: Value) -> Map {
    match v {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}

fn base64(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

thread_local! {
    static PKI: OnceCell<std::cell::RefCell<Mount>> = const { OnceCell::new() };
    static TOTP: OnceCell<std::cell::RefCell<Mount>> = const { OnceCell::new() };
    static SSH: OnceCell<std::cell::RefCell<Mount>> = const { OnceCell::new() };
    static CERT: OnceCell<std::cell::RefCell<Mount>> = const { OnceCell::new() };
}

fn pki(run: impl FnOnce(&mut Mount)) {
    let setup = || {
        Mount::new(
            Class::Secret,
            "pki",
            &[
                ("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "36000s"})),
                ("config/cluster", json!({"path": "https://v.example.com/v1/pki"})),
                ("config/acme", json!({"enabled": true})),
                (
                    "roles/any",
                    json!({
                        "allow_any_name": true, "key_type": "any", "require_cn": false, "enforce_hostnames": false,
                        "allowed_uri_sans": "*", "allowed_other_sans": "*", "allowed_serial_numbers": "*",
                        "allowed_user_ids": "*",
                    }),
                ),
            ],
        )
    };
    PKI.with(|m| run(&mut m.get_or_init(|| setup().into()).borrow_mut()));
}

/// A certificate request in DER, by a role and verbatim.
pub fn certificate_request(data: &[u8]) {
    pki(|m| {
        m.survive("sign/any", json!({"csr": base64(data)}));
        m.survive("sign-verbatim", json!({"csr": base64(data)}));
        m.survive("root/sign-intermediate", json!({"csr": base64(data), "common_name": "I", "use_csr_values": true}));
    });
}

/// Certificates and keys in PEM.
pub fn certificate_bundle(data: &[u8]) {
    pki(|m| {
        m.survive("issuers/import/bundle", json!({"pem_bundle": text(data)}));
        m.survive("keys/import", json!({"pem_bundle": text(data)}));
        m.survive("revoke", json!({"certificate": text(data)}));
        m.survive("root/sign-self-issued", json!({"certificate": text(data)}));
    });
}

/// An OCSP question in DER.
pub fn ocsp_request(data: &[u8]) {
    pki(|m| m.survive("ocsp", json!({"body": base64(data)})));
}

/// A signed request of ACME: protected header, payload and signature, a line each; or a JSON body.
pub fn acme_request(data: &[u8]) {
    use base64::Engine as _;
    let url = |part: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part);
    let body = match serde_json::from_slice::<Value>(data) {
        Ok(body @ Value::Object(_)) => body,
        _ => {
            let mut parts = data.splitn(3, |b| *b == b'\n');
            let mut part = || url(parts.next().unwrap_or_default());
            json!({"protected": part(), "payload": part(), "signature": part()})
        }
    };
    pki(|m| {
        for path in ["acme/new-account", "acme/new-order", "acme/revoke-cert", "acme/challenge/x/dns-01"] {
            m.survive(path, body.clone());
        }
    });
}

/// A certificate revocation list in PEM or DER, as the auth method of certificates takes it.
pub fn revocation_list(data: &[u8]) {
    CERT.with(|m| {
        let m = m.get_or_init(|| Mount::new(Class::Auth, "cert", &[]).into());
        let body = if data.starts_with(b"-----") { text(data) } else { base64(data) };
        m.borrow_mut().survive("crls/x", json!({"crl": body}));
    });
}

/// An address of a one-time password secret.
pub fn totp_address(data: &[u8]) {
    TOTP.with(|m| {
        let m = m.get_or_init(|| Mount::new(Class::Secret, "totp", &[]).into());
        m.borrow_mut().survive("keys/x", json!({"url": text(data)}));
    });
}

/// A public key as OpenSSH writes it, or an authority's private one.
pub fn ssh_key(data: &[u8]) {
    let setup = || {
        Mount::new(
            Class::Secret,
            "ssh",
            &[
                ("config/ca", json!({"generate_signing_key": true, "key_type": "ed25519"})),
                (
                    "roles/any",
                    json!({"key_type": "ca", "allow_user_certificates": true, "allowed_users": "*", "default_user": "u"}),
                ),
            ],
        )
    };
    SSH.with(|m| {
        let m = m.get_or_init(|| setup().into());
        m.borrow_mut().survive("sign/any", json!({"public_key": text(data)}));
        m.borrow_mut().survive("config/ca", json!({"private_key": text(data), "public_key": text(data)}));
    });
}
