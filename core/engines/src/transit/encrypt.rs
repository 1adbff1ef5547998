//! Encrypt, decrypt, rewrap and data keys: the hot paths. An item costs one AEAD call and base64 both ways; no JSON
//! tree is built of the answer. RSA blocks are opened in a side operation, since that takes milliseconds.

use super::batch::{Fault, Item, Items, Results};
use super::kind::KeyKind;
use super::policy::{Policy, Use};
use super::version::{Material, Version};
use super::{ciphertext, config, derive, store, text};
use ringfence_base::Entropy;
use ringfence_crypto::cipher::{Cipher, CipherKey};
use ringfence_crypto::hash::{Expanded, Hash};
use ringfence_logical::side::{Compute, Computed};
use ringfence_logical::{Args, Cx, Error, Operation, Outcome, Response, SideResult, Step};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

const NOT_FOUND: &str = "encryption key not found";
/// Bytes of base64 that an encrypted item is longer than its text, and of JSON around it.
const ITEM_ROOM_BYTES: usize = 128;

/// The existence check of `encrypt`: a write without a key makes one, and needs `create`.
pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(store::POLICIES, args.str("name").as_bytes()))
}

/// A key and the version last used, so that a batch looks it up once.
struct Keyring {
    policy: Arc<Policy>,
    last: Option<(u64, Arc<Version>)>,
    scratch: Zeroizing<Vec<u8>>,
    nonces: Nonces,
}

impl Keyring {
    fn new(policy: Arc<Policy>) -> Keyring {
        Keyring { policy, last: None, scratch: Zeroizing::new(Vec::new()), nonces: Nonces::default() }
    }

    fn version(&mut self, cx: &mut Cx<'_, '_>, n: u64) -> Result<Arc<Version>, Fault> {
        if let Some((at, version)) = &self.last
            && *at == n
        {
            return Ok(version.clone());
        }
        let version = store::load_version(cx, &self.policy, n).map_err(internal)?;
        self.last = Some((n, version.clone()));
        Ok(version)
    }
}

/// Nonces drawn in one go, since each call of the system's source costs more than a short encryption.
#[derive(Default)]
struct Nonces {
    pool: Vec<u8>,
    at: usize,
}

impl Nonces {
    /// Draws enough for so many items.
    fn provide(&mut self, rng: &mut dyn Entropy, bytes: usize) {
        self.pool.resize(bytes, 0);
        self.at = 0;
        rng.fill(&mut self.pool);
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], Fault> {
        let from = self.at;
        self.at += bytes;
        self.pool.get(from..self.at).ok_or_else(|| Fault::Internal("too few nonces were drawn".into()))
    }
}

fn internal(e: Error) -> Fault {
    Fault::Internal(e.cause.unwrap_or_else(|| e.errors.join("; ")))
}

fn user(e: Error) -> Fault {
    Fault::User(e.errors.join("; "))
}

pub fn encrypt(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let items = Items::read(args, "plaintext", "missing plaintext to encrypt")?;
    let has_context = items.contexts_agree()?;
    let name = args.str("name");
    let mut warnings = Vec::new();
    let policy = match store::load(cx, name)? {
        Some(policy) => {
            if cx.req.op == Operation::Create {
                warnings.push(
                    "Attempted creation of the key during the encrypt operation, but it was created beforehand"
                        .into(),
                );
            }
            policy
        }
        None if cx.req.op == Operation::Create => make(cx, args, has_context)?,
        None => return Err(Error::invalid(NOT_FOUND)),
    };
    policy.alive()?;
    encrypt_items(cx, args, policy, &items, warnings)
}

/// Makes the key that an encryption asked for.
fn make(cx: &mut Cx<'_, '_>, args: &Args, derived: bool) -> Result<Arc<Policy>, Error> {
    if config::upsert_disabled(cx)? {
        return Err(Error::invalid(NOT_FOUND));
    }
    let convergent = args.bool("convergent_encryption");
    if convergent && !derived {
        return Err(Error::invalid(
            "convergent encryption requires derivation to be enabled, so context is required",
        ));
    }
    let kind = match KeyKind::parse(args.str("type"), "")? {
        kind @ KeyKind::Aead(_) => kind,
        other => return Err(Error::invalid(format!("key type {} not supported for this operation", other.name()))),
    };
    let mut policy = Policy::new(args.str("name"), kind);
    policy.derived = derived;
    policy.convergent = if convergent { super::policy::CONVERGENT_VERSION } else { 0 };
    let made = super::version::fresh(kind, 0, cx.rng).map_err(Error::internal)?;
    store::add_version(cx, &mut policy, &made);
    Ok(Arc::new(policy))
}

fn encrypt_items(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    policy: Arc<Policy>,
    items: &Items<'_>,
    warnings: Vec<String>,
) -> Outcome {
    if !policy.kind.encrypts() {
        return Err(Error::invalid(format!("message encryption not supported for key type {}", policy.kind.name())));
    }
    no_associated_data(&policy, items)?;
    let nonce_bytes = if let KeyKind::Aead(cipher) = policy.kind { cipher.nonce_bytes() } else { 0 };
    let mut ring = Keyring::new(policy);
    let fresh_nonces = if ring.policy.convergent == 0 { items.items.len() } else { 0 };
    ring.nonces.provide(cx.rng, fresh_nonces * nonce_bytes);
    let room = items.items.iter().map(|i| i.text.len() + ITEM_ROOM_BYTES).sum();
    let mut results = Results::new(items, room);
    for item in &items.items {
        results.push(item.reference, "", |out| {
            let mut plain = std::mem::take(&mut *ring.scratch);
            plain.clear();
            let sealed = encrypt_item(cx, &mut ring, item, &mut plain, out, |item, plain| {
                plain.reserve(item.text.len() + 48);
                text::decode_into(item.text, plain)
            });
            *ring.scratch = plain;
            sealed
        });
    }
    results.finish(args, warnings)
}

/// RSA takes no associated data.
fn no_associated_data(policy: &Policy, items: &Items<'_>) -> Result<(), Error> {
    if matches!(policy.kind, KeyKind::Aead(_)) {
        return Ok(());
    }
    match items.items.iter().position(|i| i.associated_data.is_some_and(|a| !a.is_empty())) {
        Some(i) => Err(Error::invalid(format!(
            "'[{i}].associated_data' provided for non-AEAD cipher suite {}",
            policy.kind.name()
        ))),
        None => Ok(()),
    }
}

/// Encrypts an item: `fill` appends its plain text to the buffer, which holds the ciphertext afterwards.
fn encrypt_item(
    cx: &mut Cx<'_, '_>,
    ring: &mut Keyring,
    item: &Item<'_>,
    buf: &mut Vec<u8>,
    out: &mut String,
    fill: impl FnOnce(&Item<'_>, &mut Vec<u8>) -> Result<(), String>,
) -> Result<(), Fault> {
    let context = text::decode(item.context)?;
    let associated = item.associated_data.map_or(Ok(Vec::new()), text::decode)?;
    let nonce_given = text::decode(item.nonce)?;
    if !nonce_given.is_empty() {
        return Err(Fault::User(match ring.policy.convergent {
            0 => "provided nonce not allowed for this key".into(),
            _ => "nonce provided when not allowed".into(),
        }));
    }
    let n = ring.policy.version_to(Use::Encrypt, item.key_version).map_err(user)?;
    let version = ring.version(cx, n)?;
    let policy = ring.policy.clone();
    match &version.material {
        Material::Aead(own) => {
            let cipher = own.cipher();
            let nonce_bytes = cipher.nonce_bytes();
            buf.resize(nonce_bytes, 0);
            fill(item, buf)?;
            let derived = match policy.derived {
                true => Some(derive::cipher(&policy, &version, cipher, &context)?),
                false => None,
            };
            match &derived {
                Some(d) if policy.convergent > 0 => {
                    let nonce = derive::nonce(&d.nonce_key, &buf[nonce_bytes..], nonce_bytes);
                    buf[..nonce_bytes].copy_from_slice(&nonce);
                }
                _ => buf[..nonce_bytes].copy_from_slice(ring.nonces.take(nonce_bytes)?),
            }
            let nonce = Copied::of(&buf[..nonce_bytes]);
            derived.as_ref().map_or(own, |d| &d.cipher).seal(nonce.bytes(), &associated, buf, nonce_bytes);
        }
        Material::Rsa(_, public) => {
            fill(item, buf)?;
            let block = public.encrypt(Hash::Sha256, buf).map_err(|_| {
                Fault::Internal(
                    "failed to RSA encrypt the plaintext: crypto/rsa: message too long for RSA key size".into(),
                )
            })?;
            buf.zeroize();
            *buf = block;
        }
        _ => return Err(Fault::Internal("a key that does not encrypt".into())),
    }
    out.push_str("\"ciphertext\":\"vault:v");
    out.push_str(&n.to_string());
    out.push(':');
    text::encode_into(buf, out);
    out.push_str("\",\"key_version\":");
    out.push_str(&n.to_string());
    Ok(())
}

/// A nonce beside the buffer it came from.
struct Copied([u8; 24], usize);

impl Copied {
    fn of(nonce: &[u8]) -> Copied {
        let mut bytes = [0; 24];
        bytes[..nonce.len()].copy_from_slice(nonce);
        Copied(bytes, nonce.len())
    }

    fn bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// What a ciphertext says of itself, and what it needs to be opened.
struct Sealed {
    version: Arc<Version>,
    payload: Vec<u8>,
    context: Vec<u8>,
    associated: Vec<u8>,
}

fn read_sealed(cx: &mut Cx<'_, '_>, ring: &mut Keyring, item: &Item<'_>) -> Result<Sealed, Fault> {
    let context = text::decode(item.context)?;
    let associated = item.associated_data.map_or(Ok(Vec::new()), text::decode)?;
    let nonce = text::decode(item.nonce)?;
    if !nonce.is_empty() {
        return Err(Fault::User("provided nonce not allowed for this key".into()));
    }
    let (n, payload) = ciphertext::parse(item.text, &ring.policy, "ciphertext")?;
    let payload = text::decode(payload).map_err(|_| "invalid ciphertext: could not decode base64".to_owned())?;
    Ok(Sealed { version: ring.version(cx, n)?, payload, context, associated })
}

fn open(policy: &Policy, sealed: &Sealed, rng: &mut dyn Entropy) -> Result<Zeroizing<Vec<u8>>, Fault> {
    match &sealed.version.material {
        Material::Aead(own) => {
            let cipher = own.cipher();
            if sealed.payload.len() < cipher.nonce_bytes() {
                return Err(Fault::User("invalid ciphertext length".into()));
            }
            let (nonce, body) = sealed.payload.split_at(cipher.nonce_bytes());
            let with = |key: &CipherKey| {
                key.open(nonce, &sealed.associated, body).map_err(|_| {
                    Fault::User(match cipher {
                        Cipher::Aes128Gcm | Cipher::Aes256Gcm => "cipher: message authentication failed".into(),
                        _ => "chacha20poly1305: message authentication failed".into(),
                    })
                })
            };
            match policy.derived {
                true => with(&derive::cipher(policy, &sealed.version, cipher, &sealed.context)?.cipher),
                false => with(own),
            }
        }
        Material::Rsa(Some(private), _) => private.decrypt(Hash::Sha256, &sealed.payload, rng).map_err(|_| {
            Fault::Internal("failed to RSA decrypt the ciphertext: crypto/rsa: decryption error".into())
        }),
        Material::Rsa(None, _) => {
            Err(Fault::User("requested version for decryption does not contain a private part".into()))
        }
        _ => Err(Fault::Internal("a key that does not decrypt".into())),
    }
}

/// What an item held, or why it was not opened.
type Opened = Vec<Result<Zeroizing<Vec<u8>>, Fault>>;
/// The same in a form that a side operation may hand out more than once: true for the item's own fault.
type Shared = Vec<Result<Zeroizing<Vec<u8>>, (bool, String)>>;
/// What goes on with opened items.
type Then = fn(&mut Cx<'_, '_>, &Args, Arc<Policy>, Opened) -> Outcome;

/// Opens all items and goes on with what they hold: at once, or for RSA after a side operation.
fn open_all(cx: &mut Cx<'_, '_>, ring: &mut Keyring, items: &Items<'_>, args: &Args, then: Then) -> Outcome {
    let policy = ring.policy.clone();
    if !policy.kind.encrypts() {
        return Err(Error::invalid(format!("message decryption not supported for key type {}", policy.kind.name())));
    }
    no_associated_data(&policy, items)?;
    let read: Vec<Result<Sealed, Fault>> = items.items.iter().map(|i| read_sealed(cx, ring, i)).collect();
    if !matches!(policy.kind, KeyKind::Rsa(_)) {
        let opened = read.into_iter().map(|s| s.and_then(|s| open(&policy, &s, cx.rng))).collect();
        return then(cx, args, policy, opened);
    }
    // faults of reading stay here; what is to be opened goes to the pool
    let mut seed = [0u8; 32];
    cx.rng.fill(&mut seed);
    let jobs: Vec<Result<Sealed, (bool, String)>> = read
        .into_iter()
        .map(|s| {
            s.map_err(|f| match f {
                Fault::User(t) => (true, t),
                Fault::Internal(t) => (false, t),
            })
        })
        .collect();
    let work_policy = policy.clone();
    let op = Compute::op("open RSA blocks", move || {
        let mut rng = Expanded::new(seed);
        let opened: Shared = jobs
            .iter()
            .map(|job| match job {
                Ok(sealed) => open(&work_policy, sealed, &mut rng).map_err(|f| match f {
                    Fault::User(t) => (true, t),
                    Fault::Internal(t) => (false, t),
                }),
                Err(fault) => Err(fault.clone()),
            })
            .collect();
        Computed::of(opened)
    });
    let args = args.clone();
    let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| {
        let SideResult::Value(value) = result else {
            return Err(Error::internal(format!("opening RSA blocks: {result:?}")));
        };
        let opened = value.get::<Shared>().ok_or_else(|| Error::internal("another value than texts"))?;
        // the key may have gone or changed meanwhile
        let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid(NOT_FOUND))?;
        policy.alive()?;
        let opened = opened
            .iter()
            .map(|o| match o {
                Ok(text) => Ok(text.clone()),
                Err((true, t)) => Err(Fault::User(t.clone())),
                Err((false, t)) => Err(Fault::Internal(t.clone())),
            })
            .collect();
        then(cx, &args, policy, opened)
    });
    Ok(Step::Side { op, resume })
}

pub fn decrypt(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let items = Items::read(args, "ciphertext", "missing ciphertext to decrypt")?;
    if !items.is_batch && items.items[0].text.is_empty() {
        return Err(Error::invalid("missing ciphertext to decrypt"));
    }
    items.contexts_agree()?;
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid(NOT_FOUND))?;
    policy.alive()?;
    open_all(cx, &mut Keyring::new(policy), &items, args, show)
}

/// The answer of a decryption.
fn show(_: &mut Cx<'_, '_>, args: &Args, _: Arc<Policy>, opened: Opened) -> Outcome {
    let items = Items::read(args, "ciphertext", "missing ciphertext to decrypt")?;
    let room = items.items.iter().map(|i| i.text.len() + ITEM_ROOM_BYTES).sum();
    let mut results = Results::new(&items, room);
    for (item, plain) in items.items.iter().zip(opened) {
        results.push(item.reference, "\"plaintext\":\"\"", |out| {
            let plain = plain?;
            out.push_str("\"plaintext\":\"");
            text::encode_into(&plain, out);
            out.push('"');
            Ok(())
        });
    }
    results.finish(args, Vec::new())
}

pub fn rewrap(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let items = Items::read(args, "ciphertext", "missing ciphertext to decrypt")?;
    if !items.is_batch && items.items[0].text.is_empty() {
        return Err(Error::invalid("missing ciphertext to decrypt"));
    }
    items.contexts_agree()?;
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid(NOT_FOUND))?;
    policy.alive()?;
    open_all(cx, &mut Keyring::new(policy), &items, args, seal_again)
}

/// Encrypts under the wanted version what a rewrap opened.
fn seal_again(cx: &mut Cx<'_, '_>, args: &Args, policy: Arc<Policy>, opened: Opened) -> Outcome {
    let items = Items::read(args, "ciphertext", "missing ciphertext to decrypt")?;
    let nonce_bytes = if let KeyKind::Aead(cipher) = policy.kind { cipher.nonce_bytes() } else { 0 };
    let mut ring = Keyring::new(policy);
    ring.nonces.provide(cx.rng, items.items.len() * nonce_bytes);
    let mut results = Results::new(&items, items.items.iter().map(|i| i.text.len() + ITEM_ROOM_BYTES).sum());
    for (item, plain) in items.items.iter().zip(opened) {
        results.push(item.reference, "", |out| {
            let plain = plain?;
            let mut buf = Vec::with_capacity(plain.len() + 48);
            encrypt_item(cx, &mut ring, item, &mut buf, out, |_, buf| {
                buf.extend_from_slice(&plain);
                Ok(())
            })
        });
    }
    results.finish(args, Vec::new())
}

pub fn datakey(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let shown = match args.str("plaintext") {
        "plaintext" => true,
        "wrapped" => false,
        _ => return Err(Error::invalid("Invalid path, must be 'plaintext' or 'wrapped'")),
    };
    text::decode(args.str("context")).map_err(|_| Error::invalid("failed to base64-decode context"))?;
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid(NOT_FOUND))?;
    policy.alive()?;
    if !policy.kind.encrypts() {
        return Err(Error::invalid(format!("message encryption not supported for key type {}", policy.kind.name())));
    }
    let bits = args.int("bits");
    if !matches!(bits, 128 | 256 | 512) {
        return Err(Error::invalid("invalid bit length"));
    }
    let mut key = Zeroizing::new(vec![0; bits as usize / 8]);
    cx.rng.fill(&mut key);
    let item = Item {
        text: "",
        context: args.str("context"),
        nonce: args.str("nonce"),
        associated_data: args.opt_str("associated_data"),
        key_version: args.int("key_version"),
        reference: "",
    };
    if !matches!(policy.kind, KeyKind::Aead(_)) && item.associated_data.is_some_and(|a| !a.is_empty()) {
        let name = policy.kind.name();
        return Err(Error::invalid(format!("'associated_data' provided for non-AEAD cipher suite {name}")));
    }
    let mut ring = Keyring::new(policy);
    ring.nonces.provide(cx.rng, 24);
    let mut out = String::from("{");
    let sealed = encrypt_item(cx, &mut ring, &item, &mut Vec::with_capacity(key.len() + 48), &mut out, |_, buf| {
        buf.extend_from_slice(&key);
        Ok(())
    });
    match sealed {
        Ok(()) => {}
        Err(Fault::User(text)) => return Err(Error::invalid(text)),
        Err(Fault::Internal(text)) => return Err(Error::plain(&text)),
    }
    if shown {
        out.push_str(",\"plaintext\":\"");
        text::encode_into(&key, &mut out);
        out.push('"');
    }
    out.push('}');
    Response::text(out).done()
}
