//! A mount of one engine over a real image, keyring and transactions, for the tests of this crate. Requests go through
//! the engine's own path table and coercion, as in the vault floor; each runs in a transaction of its own.

use ringfence_barrier::{HashKind, Issuer, Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Code, Index, MountId, NsId, Wall};
use ringfence_crypto::Provider;
use ringfence_logical::path::Matcher;
use ringfence_logical::side::perform;
use ringfence_logical::{
    Args, Cx, Engine, Error, Host, HttpAnswer, HttpAsk, Memo, MountInfo, Operation, Parameters, Principal, Request,
    Response, SideOp, SideResult, Step, TokenType,
};
use ringfence_store::Image;
use serde_json::{Map, Value, json};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

pub struct World {
    engine: Arc<dyn Engine>,
    matcher: Matcher,
    image: Image,
    keyring: Keyring,
    sealer: Sealer,
    rng: SeededEntropy,
    next: u64,
    memo: Memo,
    pub mount: MountInfo,
    pub principal: Option<Principal>,
    /// What templates name (`identity.entity.name`), and what stands for it.
    pub identity: Vec<(String, String)>,
    pub remote: Option<IpAddr>,
    /// Moves one second a request, so that dates differ.
    pub now: Wall,
    /// Writes of the last request.
    pub writes: usize,
    /// Every text that any error ever told, causes included.
    pub error_texts: Vec<String>,
    /// What the side operations were, in order.
    pub side_ops: Vec<String>,
    /// Answers side operations in place of the real world; `None` from it means: as usual.
    pub outside: Outside,
    /// The client's certificates, leaf first.
    pub peer_certificates: Vec<Vec<u8>>,
    /// Answers HTTP questions.
    pub web: Web,
    /// The questions that it got.
    pub asked: Vec<HttpAsk>,
    /// Bodies come as texts, as long ones do, where they can.
    pub texts: bool,
}

/// Stands in for the outside.
pub type Outside = Box<dyn FnMut(&SideOp) -> Option<SideResult>>;

/// Answers HTTP questions; an error is no answer at all.
pub type Web = Box<dyn FnMut(&HttpAsk) -> Result<(u16, Value), String>>;

struct FakeHost<'k> {
    keyring: &'k Keyring,
    memo: &'k Memo,
    identity: &'k [(String, String)],
}

impl Host for FakeHost<'_> {
    fn as_any(&self) -> &dyn Any {
        &NOTHING
    }

    fn keyed_hash(&self, kind: &str, bytes: &[u8]) -> [u8; 16] {
        self.keyring.index_hash(HashKind(128), &[kind.as_bytes(), &[0], bytes].concat())
    }

    fn memo(&self) -> Option<&Memo> {
        Some(self.memo)
    }

    /// Knows of an entity what [`World::identity`] says, and fills the whole text or nothing.
    fn fill_template(&self, _: &mut Txn<'_>, _: &str, text: &str) -> Result<Option<String>, Error> {
        let filled = self.identity.iter().fold(text.to_owned(), |t, (k, v)| t.replace(&format!("{{{{{k}}}}}"), v));
        Ok((!filled.contains("{{")).then_some(filled))
    }
}

static NOTHING: () = ();

/// An answer as a client would see it.
#[derive(Debug)]
pub struct Answer {
    pub code: Code,
    pub data: Value,
    pub response: Option<Response>,
}

impl World {
    pub fn new(engine: impl Engine + 'static) -> World {
        let mut rng = SeededEntropy(5);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(1), &mut rng);
        let mut image = Image::new();
        let version = image.publish();
        let mut txn = Txn::new(&version, None);
        let mut issuer = Issuer::register(&mut txn, "node", Wall(1), &mut rng);
        let batch = txn.finish_clear(Wall(1)).unwrap().batch.unwrap();
        image.apply(Index(1), &batch);
        let sealer = issuer.sealer(&keyring);
        let table = engine.table();
        let mount = MountInfo {
            id: MountId(7),
            ns: NsId::ROOT,
            ns_path: String::new(),
            path: "mount/".into(),
            kind: table.kind.into(),
            class: table.class,
            accessor: "kind_12345678".into(),
            uuid: "u".into(),
            options: Default::default(),
            default_ttl: 2_764_800,
            max_ttl: 2_764_800,
            token_type: TokenType::DefaultService,
        };
        World {
            matcher: Matcher::new(table),
            engine: Arc::new(engine),
            image,
            keyring,
            sealer,
            rng,
            next: 2,
            memo: Memo::default(),
            mount,
            principal: Some(Principal { token_hash: [1; 16], ..Principal::default() }),
            identity: Vec::new(),
            remote: "10.1.2.3".parse().ok(),
            now: Wall::from_seconds(1_700_000_000),
            writes: 0,
            error_texts: Vec::new(),
            side_ops: Vec::new(),
            outside: Box::new(|_| None),
            peer_certificates: Vec::new(),
            web: Box::new(|ask| Err(format!("nobody is at {}", ask.url))),
            asked: Vec::new(),
            texts: false,
        }
    }

    /// Decoded records that are kept.
    pub fn remembered(&self) -> usize {
        self.memo.len()
    }

    /// Replaces the engine, keeping what is stored.
    pub fn remount(&mut self, engine: impl Engine + 'static) {
        self.matcher = Matcher::new(engine.table());
        self.engine = Arc::new(engine);
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ok(Operation::Read, path, Value::Null)
    }

    pub fn list(&mut self, path: &str) -> Answer {
        self.ok(Operation::List, path, Value::Null)
    }

    pub fn post(&mut self, path: &str, body: Value) -> Answer {
        self.ok(Operation::Update, path, body)
    }

    pub fn patch(&mut self, path: &str, body: Value) -> Answer {
        self.ok(Operation::Patch, path, body)
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.ok(Operation::Delete, path, Value::Null)
    }

    /// The one text of a refusal, and its code.
    pub fn refused(&mut self, op: Operation, path: &str, body: Value) -> (Code, String) {
        match self.run(op, path, body) {
            Err(e) => (e.code, e.errors.first().map(|t| t.to_string()).unwrap_or_default()),
            Ok(r) => panic!("{op:?} {path} was to be refused: {r:?}"),
        }
    }

    pub fn ok(&mut self, op: Operation, path: &str, body: Value) -> Answer {
        let response = self.run(op, path, body).unwrap_or_else(|e| panic!("{op:?} {path}: {e:?}"));
        let listing = matches!(op, Operation::List | Operation::Scan);
        let data = response.clone().and_then(|r| r.data).map_or(Value::Null, |d| Value::Object(d.into_map()));
        let code = match &response {
            None if matches!(op, Operation::Read | Operation::Patch) || listing => Code::NotFound,
            None => Code::NoContent,
            Some(r) if listing && data == json!({}) && r.code.is_none() => Code::NotFound,
            Some(r) => r.code.unwrap_or(Code::Ok),
        };
        Answer { code, data, response }
    }

    /// Runs one request to its end, side operations included.
    pub fn run(&mut self, op: Operation, path: &str, body: Value) -> Result<Option<Response>, Error> {
        self.now = self.now.plus_seconds(1);
        let raw = body.as_object().cloned().unwrap_or_default();
        let path = match op {
            Operation::List | Operation::Scan if !path.is_empty() && !path.ends_with('/') => format!("{path}/"),
            _ => path.to_owned(),
        };
        let outcome = self.steps(op, &path, raw);
        if let Err(e) = &outcome {
            self.error_texts.extend(e.errors.iter().map(|t| t.to_string()));
            self.error_texts.extend(e.cause.clone());
        }
        outcome
    }

    fn steps(&mut self, op: Operation, path: &str, raw: Map<String, Value>) -> Result<Option<Response>, Error> {
        let table = self.engine.table();
        let m = self.matcher.find(table, path).ok_or_else(Error::unsupported_path)?;
        let handler = m.path.handler(op).ok_or_else(Error::unsupported_operation)?;
        let (declared, captures) = (m.path, m.captures.clone());
        let raw = match Parameters::of_text(Value::Object(raw.clone()).to_string()) {
            Ok(kept) if self.texts => kept,
            _ => raw.into(),
        };
        let args = Args::parse(declared.fields, &captures, raw)?;
        let step = self.transaction(op, path, |cx| handler(cx, &args))?;
        let mut r = self.finish(op, path, step)?;
        if let (Some(r), false) = (&mut r, declared.free_form) {
            r.warnings.extend(args.warnings());
        }
        Ok(r)
    }

    /// Has the engine do a job that is due, to its end.
    pub fn due(&mut self, job: &str) -> Result<(), Error> {
        let step = self.with_engine(|engine, cx| engine.due(cx, job))?;
        self.finish(Operation::Update, job, step).map(|_| ())
    }

    /// Carries out what a step asks for until it is done.
    pub fn finish(&mut self, op: Operation, path: &str, mut step: Step) -> Result<Option<Response>, Error> {
        loop {
            match step {
                Step::Done(r) => return Ok(r),
                // the transaction was committed with what it held, an intent's included
                Step::Side { op: side, resume } | Step::Intent { op: side, resume } => {
                    self.side_ops.push(format!("{side:?}"));
                    let result = match ((self.outside)(&side), &side) {
                        (Some(result), _) => result,
                        (None, SideOp::Http(ask)) => self.answer(ask),
                        (None, other) => perform(other),
                    };
                    step = self.transaction(op, path, |cx| resume(cx, &result))?;
                }
            }
        }
    }

    fn answer(&mut self, ask: &HttpAsk) -> SideResult {
        self.asked.push(ask.clone());
        match (self.web)(ask) {
            // bytes that are no JSON stand as a text with a mark
            Ok((status, body)) => {
                let body = match body.as_str().and_then(|t| t.strip_prefix("hex:")) {
                    Some(digits) => hex::decode(digits).unwrap(),
                    None => serde_json::to_vec(&body).unwrap(),
                };
                SideResult::Http(Arc::new(HttpAnswer { status, headers: Vec::new(), body }))
            }
            Err(why) => SideResult::Failed(why),
        }
    }

    /// What the existence check of a path says.
    pub fn exists(&mut self, path: &str) -> bool {
        let table = self.engine.table();
        let m = self.matcher.find(table, path).unwrap();
        let check = m.path.exists.unwrap();
        let args = Args::parse(m.path.fields, &m.captures, Map::new()).unwrap();
        self.transaction(Operation::Update, path, |cx| check(cx, &args)).unwrap()
    }

    /// Runs something over a transaction of the mount and commits it if it did not fail.
    pub fn transaction<T>(
        &mut self,
        op: Operation,
        path: &str,
        f: impl FnOnce(&mut Cx<'_, '_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        let request = Request {
            id: "id".into(),
            op,
            path: path.into(),
            remote: self.remote,
            wrap_ttl: 0,
            headers: Vec::new(),
            peer_certificates: Arc::new(self.peer_certificates.clone()),
        };
        let host = FakeHost { keyring: &self.keyring, memo: &self.memo, identity: &self.identity };
        let mut cx = Cx {
            txn: &mut txn,
            mount: &self.mount,
            req: &request,
            principal: self.principal.as_ref(),
            now: self.now,
            rng: &mut self.rng,
            host: &host,
        };
        let out = f(&mut cx);
        self.writes = 0;
        if out.is_ok() {
            let done = txn.finish(&mut self.sealer, self.now).unwrap();
            if let Some(batch) = done.batch {
                self.writes = batch.ops.len();
                self.image.apply(Index(self.next), &batch);
                self.next += 1;
            }
        }
        out
    }

    /// Calls the engine outside of its paths: renewals, revocations, options.
    pub fn with_engine<T>(
        &mut self,
        f: impl FnOnce(&dyn Engine, &mut Cx<'_, '_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let engine = self.engine.clone();
        self.transaction(Operation::Update, "", |cx| f(&*engine, cx))
    }

    /// Every key and sealed value of the image, one after the other.
    pub fn image_bytes(&mut self) -> Vec<u8> {
        let version = self.image.publish();
        let mut out = Vec::new();
        for (key, value) in version.scan_prefix(b"") {
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        out
    }

    /// Jobs that are scheduled, with their times.
    pub fn jobs(&mut self) -> Vec<(String, Wall)> {
        let prefix = ringfence_logical::cx::job_key(self.mount.id, "");
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        let rows = txn.scan(&prefix, None, usize::MAX).unwrap();
        rows.into_iter()
            .map(|(k, p)| {
                let due = u64::from_be_bytes(p.header[..8].try_into().unwrap());
                (String::from_utf8_lossy(&k[prefix.len()..]).into_owned(), Wall(due))
            })
            .collect()
    }

    /// How many records the image holds.
    pub fn records(&mut self) -> u64 {
        self.image.publish().len()
    }
}

/// True if a byte string stands in another.
pub fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

/// An issuer of signed tokens.
pub mod signer {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
    use aws_lc_rs::{hmac, rsa};
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    enum Pair {
        Rsa(Box<RsaKeyPair>),
        Ec(EcdsaKeyPair, &'static str),
        Ed(Ed25519KeyPair),
    }

    pub struct Signer {
        algorithm: &'static str,
        pair: Pair,
        pub id: String,
    }

    pub fn token_of(header: &Value, claims: &Value, signature: &[u8]) -> String {
        format!("{}.{}", signed_part(header, claims), URL_SAFE_NO_PAD.encode(signature))
    }

    fn signed_part(header: &Value, claims: &Value) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    /// A token under a secret, as nobody here accepts it.
    pub fn sign_with_secret(algorithm: &str, claims: &Value, secret: &[u8]) -> String {
        let header = json!({"alg": algorithm});
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        token_of(&header, claims, hmac::sign(&key, signed_part(&header, claims).as_bytes()).as_ref())
    }

    impl Signer {
        pub fn new(algorithm: &'static str) -> Signer {
            let ec = |rule, curve| Pair::Ec(EcdsaKeyPair::generate(rule).unwrap(), curve);
            let pair = match algorithm {
                "ES256" => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
                "ES384" => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
                "ES512" => ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
                "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
                _ => Pair::Rsa(Box::new(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap())),
            };
            Signer { algorithm, pair, id: "key-1".into() }
        }

        pub fn token(&self, claims: &Value) -> String {
            let header = json!({"alg": self.algorithm, "kid": self.id, "typ": "JWT"});
            token_of(&header, claims, &self.sign(signed_part(&header, claims).as_bytes()))
        }

        fn sign(&self, message: &[u8]) -> Vec<u8> {
            let rng = SystemRandom::new();
            match &self.pair {
                Pair::Ec(pair, _) => pair.sign(&rng, message).unwrap().as_ref().to_vec(),
                Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
                Pair::Rsa(pair) => {
                    let rule: &'static dyn signature::RsaEncoding = match self.algorithm {
                        "RS256" => &signature::RSA_PKCS1_SHA256,
                        "RS384" => &signature::RSA_PKCS1_SHA384,
                        "RS512" => &signature::RSA_PKCS1_SHA512,
                        "PS256" => &signature::RSA_PSS_SHA256,
                        "PS384" => &signature::RSA_PSS_SHA384,
                        _ => &signature::RSA_PSS_SHA512,
                    };
                    let mut made = vec![0; pair.public_modulus_len()];
                    pair.sign(rule, &rng, message, &mut made).unwrap();
                    made
                }
            }
        }

        pub fn jwk(&self) -> Value {
            let text = |b: &[u8]| URL_SAFE_NO_PAD.encode(b);
            let mut jwk = match &self.pair {
                Pair::Rsa(pair) => {
                    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
                    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                    let spki = SubjectPublicKeyInfo::from_der(der.as_ref()).unwrap().1;
                    let Ok(x509_parser::public_key::PublicKey::RSA(key)) = spki.parsed() else {
                        panic!("an RSA key")
                    };
                    json!({"kty": "RSA", "n": text(key.modulus), "e": text(key.exponent)})
                }
                Pair::Ec(pair, curve) => {
                    let point = &pair.public_key().as_ref()[1..];
                    let (x, y) = point.split_at(point.len() / 2);
                    json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
                }
                Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}),
            };
            jwk["kid"] = json!(self.id);
            jwk["use"] = json!("sig");
            jwk
        }

        pub fn public_pem(&self) -> String {
            let der: PublicKeyX509Der<'_> = match &self.pair {
                Pair::Rsa(pair) => pair.public_key().as_der().unwrap(),
                Pair::Ec(pair, _) => pair.public_key().as_der().unwrap(),
                Pair::Ed(pair) => pair.public_key().as_der().unwrap(),
            };
            let text = STANDARD.encode(der.as_ref());
            let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
        }
    }
}
