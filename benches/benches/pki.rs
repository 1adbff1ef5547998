//! The PKI engine without the network: the engine's own handlers over transactions, beside the bare signature of the
//! issuer's key. `cargo bench -p ringfence-benches --bench pki`.
//!
//! Each request is measured from its parsed body to its answer, and where it writes to its sealed batch; the image's
//! work comes after, as it does in the server, on another core.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use ringfence_barrier::{Issuer, Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, MountId, NsId, Wall};
use ringfence_crypto::Provider;
use ringfence_logical::engine::Registered;
// the allocator that the server runs with
use ringfence_logical::{Args, Class, Cx, Host, Memo, MountInfo, Operation, Registry, Request, Step, TokenType};
use ringfence_server as _;
use ringfence_store::Image;
use serde_json::{Value, json};
use std::time::Instant;

/// Certificates of each kind that are measured.
const ROUNDS: usize = 2_000;
/// Bytes of what is signed: about those of a certificate without its signature.
const MESSAGE_BYTES: usize = 400;
/// Revocations that are measured at each number of revoked certificates.
const REVOKED_ROUNDS: usize = 200;
/// How many "many" is; `RINGFENCE_BENCH_REVOKED` says otherwise.
const MANY: usize = 100_000;

struct Alone(Memo);

impl Host for Alone {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn keyed_hash(&self, _: &str, _: &[u8]) -> [u8; 16] {
        [0; 16]
    }

    fn memo(&self) -> Option<&Memo> {
        Some(&self.0)
    }
}

struct World {
    registry: Registry,
    image: Image,
    keyring: Keyring,
    sealer: Sealer,
    rng: SeededEntropy,
    mount: MountInfo,
    host: Alone,
    next: u64,
}

impl World {
    fn new() -> World {
        let mut registry = Registry::default();
        ringfence_pki::register(&mut registry);
        let mut rng = SeededEntropy(1);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(1), &mut rng);
        let mut image = Image::new();
        let version = image.publish();
        let mut txn = Txn::new(&version, None);
        let mut issuer = Issuer::register(&mut txn, "bench", Wall(1), &mut rng);
        let batch = txn.finish_clear(Wall(1)).ok().and_then(|f| f.batch).expect("an issuer is written");
        image.apply(Index(1), &batch);
        let sealer = issuer.sealer(&keyring);
        let ten_years = 87_600 * 3600;
        let mount = MountInfo {
            id: MountId(1),
            ns: NsId::ROOT,
            ns_path: String::new(),
            path: "pki/".into(),
            kind: "pki".into(),
            class: Class::Secret,
            accessor: String::new(),
            uuid: String::new(),
            options: Default::default(),
            default_ttl: ten_years,
            max_ttl: ten_years,
            token_type: TokenType::Default,
        };
        let mut w = World { registry, image, keyring, sealer, rng, mount, host: Alone(Memo::default()), next: 2 };
        w.run("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "87600h"}));
        let role =
            json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "ttl": "720h"});
        w.run("roles/stored", role.clone());
        let mut unstored = role;
        unstored["no_store"] = true.into();
        w.run("roles/unstored", unstored);
        w
    }

    fn engine(&self) -> &Registered {
        self.registry.find(Class::Secret, "pki", None).expect("pki is registered")
    }

    /// Runs a request; answers its data and how many nanoseconds it took.
    fn run(&mut self, path: &str, body: Value) -> (Value, u64) {
        let Value::Object(body) = body else { panic!("a body is an object") };
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        let req = Request {
            id: String::new(),
            op: Operation::Update,
            path: path.into(),
            remote: None,
            wrap_ttl: 0,
            headers: Vec::new(),
            peer_certificates: Default::default(),
        };
        let engine = self.registry.find(Class::Secret, "pki", None).expect("pki is registered");
        let mut cx = Cx {
            txn: &mut txn,
            mount: &self.mount,
            req: &req,
            principal: None,
            now: Wall::from_seconds(1_700_000_000),
            rng: &mut self.rng,
            host: &self.host,
        };
        let began = Instant::now();
        let m = engine.matcher.find(engine.engine.table(), path).expect("the path exists");
        let args = Args::parse(m.path.fields, &m.captures, body).expect("the fields fit");
        let handler = m.path.handler(Operation::Update).expect("it is written to");
        let response = match handler(&mut cx, &args) {
            Ok(Step::Done(r)) => r,
            other => panic!("{path}: {other:?}"),
        };
        let done = txn.finish(&mut self.sealer, Wall(2)).expect("it seals");
        let took = began.elapsed().as_nanos() as u64;
        if let Some(batch) = done.batch {
            self.image.apply(Index(self.next), &batch);
            self.next += 1;
        }
        (response.and_then(|r| r.data).map_or(Value::Null, |d| Value::Object(d.into_map())), took)
    }

    fn issue(&mut self) -> String {
        let made = self.run("issue/stored", json!({"common_name": "a.example.com"})).0;
        made["serial_number"].as_str().expect("a serial number").to_owned()
    }

    /// The median of revocations, at the number of revoked certificates that there is now.
    fn revoke(&mut self) -> u64 {
        let serials: Vec<String> = (0..REVOKED_ROUNDS).map(|_| self.issue()).collect();
        median(serials.iter().map(|s| self.run("revoke", json!({"serial_number": s})).1).collect())
    }
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let mut w = World::new();
    assert_eq!(w.engine().engine.table().kind, "pki");
    let signs = bare_signature();
    let makes = bare_key();
    println!("bare: ECDSA P-256 signature {signs} ns, key {makes} ns");
    let csr = w.run("intermediate/generate/internal", json!({"common_name": "a.example.com", "key_type": "ec"})).0;
    let sign = json!({"csr": csr["csr"], "common_name": "a.example.com"});
    let issue = json!({"common_name": "a.example.com"});
    for (what, path, body, bare) in [
        ("sign, not stored", "sign/unstored", &sign, signs),
        ("sign, stored", "sign/stored", &sign, signs),
        ("issue, not stored", "issue/unstored", &issue, signs),
        ("issue, stored", "issue/stored", &issue, signs),
    ] {
        let took = median((0..ROUNDS).map(|_| w.run(path, body.clone()).1).collect());
        let with_key = if path.starts_with("issue") { bare + makes } else { bare };
        println!(
            "{what}: {took} ns, {:.0} a second; of the bare signature's rate {:.2}, of signature and key {:.2}",
            1e9 / took as f64,
            bare as f64 / took as f64,
            with_key as f64 / took as f64
        );
    }
    let few = w.revoke();
    let many = std::env::var("RINGFENCE_BENCH_REVOKED").ok().and_then(|n| n.parse().ok()).unwrap_or(MANY);
    // the same list in a store that has outgrown the caches, and then the long list in that store: so what the list costs
    // stands apart from what memory costs
    let issued: Vec<String> = (REVOKED_ROUNDS..many).map(|_| w.issue()).collect();
    let beside = w.revoke();
    for serial in issued {
        w.run("revoke", json!({"serial_number": serial}));
    }
    let among = w.revoke();
    println!(
        "revoke among {REVOKED_ROUNDS}: {few} ns, beside {many} more certificates {beside} ns; among {many}: {among} \
         ns; {:.2} of the first, {:.2} of the second",
        among as f64 / few as f64,
        among as f64 / beside as f64
    );
}

/// A signature with nothing around it.
fn bare_signature() -> u64 {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let (rng, message) = (SystemRandom::new(), [7; MESSAGE_BYTES]);
    let one = || {
        let began = Instant::now();
        std::hint::black_box(key.sign(&rng, &message).expect("a signature"));
        began.elapsed().as_nanos() as u64
    };
    median((0..ROUNDS).map(|_| one()).collect())
}

/// A key with nothing around it.
fn bare_key() -> u64 {
    let one = || {
        let began = Instant::now();
        std::hint::black_box(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"));
        began.elapsed().as_nanos() as u64
    };
    median((0..ROUNDS).map(|_| one()).collect())
}
