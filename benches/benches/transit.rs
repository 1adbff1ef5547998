//! Transit without the network: the engine's own handler over a transaction, beside the bare cipher with base64 on both
//! sides. `cargo bench -p ringfence-benches --bench transit`. The same over HTTP is `--bench http -- --only transit`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::{Issuer, Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, MountId, NsId, Wall};
use ringfence_crypto::Provider;
use ringfence_crypto::cipher::Cipher;
use ringfence_logical::engine::Registered;
use ringfence_logical::{Args, Class, Cx, Host, Memo, MountInfo, Operation, Parameters, Request, Step, TokenType};
use ringfence_store::Image;
use serde_json::{Value, json};
use std::time::Instant;

const ITEMS: usize = 1_000;
const ROUNDS: usize = 30;

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
        let mut rng = SeededEntropy(1);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(1), &mut rng);
        let mut image = Image::new();
        let version = image.publish();
        let mut txn = Txn::new(&version, None);
        let mut issuer = Issuer::register(&mut txn, "bench", Wall(1), &mut rng);
        let batch = txn.finish_clear(Wall(1)).ok().and_then(|f| f.batch).expect("an issuer is written");
        image.apply(Index(1), &batch);
        let sealer = issuer.sealer(&keyring);
        let mount = MountInfo {
            id: MountId(1),
            ns: NsId::ROOT,
            ns_path: String::new(),
            path: "transit/".into(),
            kind: "transit".into(),
            class: Class::Secret,
            accessor: String::new(),
            uuid: String::new(),
            options: Default::default(),
            default_ttl: 1,
            max_ttl: 1,
            token_type: TokenType::Default,
        };
        World { image, keyring, sealer, rng, mount, host: Alone(Memo::default()), next: 2 }
    }

    /// Runs a request; answers its data and the nanoseconds from the body's text to the answer's.
    fn run(&mut self, engine: &Registered, path: &str, body: String) -> (Value, u64) {
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
        let body = Parameters::of_text(body).expect("an object without escapes");
        let m = engine.matcher.find(engine.engine.table(), path).expect("the path exists");
        let args = Args::parse(m.path.fields, &m.captures, body).expect("the fields fit");
        let handler = m.path.handler(Operation::Update).expect("it is written to");
        let Ok(Step::Done(Some(response))) = handler(&mut cx, &args) else { panic!("{path} is answered") };
        let took = began.elapsed().as_nanos() as u64;
        let done = txn.finish(&mut self.sealer, Wall(2)).expect("it seals");
        if let Some(batch) = done.batch {
            self.image.apply(Index(self.next), &batch);
            self.next += 1;
        }
        (response.data.map_or(Value::Null, |d| Value::Object(d.into_map())), took)
    }
}

fn main() {
    let registry = ringfence_engines::registry();
    let engine = registry.find(Class::Secret, "transit", None).expect("transit is registered");
    let mut w = World::new();
    for kind in ["aes256-gcm96", "chacha20-poly1305"] {
        w.run(engine, &format!("keys/{kind}"), json!({"type": kind}).to_string());
        let cipher = if kind == "aes256-gcm96" { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        for bytes in [16, 256, 4096] {
            let plaintext = STANDARD.encode(vec![7u8; bytes]);
            let batch = json!({"batch_input": vec![json!({"plaintext": plaintext}); ITEMS]}).to_string();
            let (mut own, mut raw) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                own.push(w.run(engine, &format!("encrypt/{kind}"), batch.clone()).1);
                raw.push(raw_batch(cipher, &plaintext));
            }
            own.sort_unstable();
            raw.sort_unstable();
            let (own, raw) = (own[ROUNDS / 2] as f64, raw[ROUNDS / 2] as f64);
            println!(
                "{kind}, {bytes} bytes, batch of {ITEMS}: {:.0} ns an item, raw AEAD and base64 {:.0} ns: {:.2}",
                own / ITEMS as f64,
                raw / ITEMS as f64,
                raw / own
            );
        }
    }
}

/// The same work with nothing around it.
fn raw_batch(cipher: Cipher, plaintext: &str) -> u64 {
    let key = cipher.key(&[1; 32]).expect("32 bytes");
    let mut nonces = vec![0; ITEMS * 12];
    ringfence_base::Entropy::fill(&mut SeededEntropy(3), &mut nonces);
    let (mut buf, mut out) = (Vec::new(), String::with_capacity(ITEMS * plaintext.len() * 2));
    let began = Instant::now();
    for nonce in nonces.chunks(12) {
        buf.clear();
        buf.extend_from_slice(nonce);
        STANDARD.decode_vec(plaintext, &mut buf).expect("base64");
        key.seal(nonce, b"", &mut buf, 12);
        STANDARD.encode_string(&buf, &mut out);
    }
    std::hint::black_box(&out);
    began.elapsed().as_nanos() as u64
}
