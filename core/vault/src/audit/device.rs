//! Audit devices: their records, their options, their salts.

use crate::known::same_secret;
use crate::tables;
use crate::token::check::Holder;
use ringfence_barrier::{Txn, key_hash};
use ringfence_base::{Entropy, NsId, Secret, entropy};
use ringfence_crypto::{HmacKey, Provider, hmac_sha256};
use ringfence_logical::Error;
use ringfence_policy::acl::GrantingPolicy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// An audit device as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// `file/`: ends in a slash.
    pub path: String,
    /// `file`, `syslog`, `socket`.
    pub kind: String,
    /// Free text.
    pub description: String,
    /// As given.
    pub options: BTreeMap<String, String>,
    /// Not replicated.
    pub local: bool,
    /// A random UUID as text: the key of this device's hashes.
    pub salt: String,
}

/// A device and a salted hash, ready for use.
pub struct Armed {
    /// The record.
    pub device: Rc<Device>,
    /// Nothing is hashed.
    pub raw: bool,
    /// Accessors are hashed.
    pub hmac_accessor: bool,
    /// Lists show their lengths only.
    pub elide_lists: bool,
    prefix: String,
    /// The salt as a key of hashes.
    key: HmacKey,
    /// Hashes of texts that come again and again.
    repeated: RefCell<Vec<Option<Repeated>>>,
    /// What was written of callers.
    callers: RefCell<Vec<Option<CallerBlock>>>,
    /// Request headers to write, lower-case name and whether hashed.
    pub headers: Rc<Vec<(String, bool)>>,
}

/// A text and how its hash is written.
struct Repeated {
    text: Secret<String>,
    written: Box<[u8]>,
}

/// Everything that decides what an entry tells of its caller. One verification of a token is one `Rc`, with one set of
/// identity policies.
#[derive(Clone, Copy)]
pub struct CallerKey<'a> {
    /// The verified token.
    pub holder: &'a Rc<Holder>,
    /// Namespace of the request.
    pub ns: NsId,
    /// It was let through.
    pub allowed: bool,
    /// By these policies.
    pub granting: &'a [GrantingPolicy],
}

struct CallerBlock {
    /// Held, so that its address is nobody else's.
    holder: Rc<Holder>,
    ns: NsId,
    allowed: bool,
    granting: Vec<GrantingPolicy>,
    written: Box<[u8]>,
}

/// Callers a device keeps blocks of, per core.
const CALLERS: usize = 256;

/// Texts a device keeps hashes of, per core; one that falls on another's place takes it.
const REPEATED: usize = 1024;

/// Topic of the record of audited request headers under the configuration table.
pub const HEADERS_TOPIC: &str = "audited-headers";

impl Device {
    /// A device with a fresh salt.
    pub fn new(path: &str, kind: &str, rng: &mut dyn Entropy) -> Device {
        Device {
            path: path.to_owned(),
            kind: kind.to_owned(),
            description: String::new(),
            options: BTreeMap::new(),
            local: false,
            salt: entropy::uuid4(rng),
        }
    }

    /// Reads a device.
    pub fn load(txn: &mut Txn<'_>, ns: NsId, path: &str) -> Result<Option<Device>, Error> {
        txn.get(&tables::audit(ns, path))?.map(|p| parse(&p.bytes)).transpose()
    }

    /// Writes the record.
    pub fn save(&self, txn: &mut Txn<'_>, ns: NsId) {
        let bytes = serde_json::to_vec(self).expect("a device always serialises");
        txn.put(tables::audit(ns, &self.path), &[], &bytes);
    }

    /// Deletes the record; absent is fine.
    pub fn delete(txn: &mut Txn<'_>, ns: NsId, path: &str) {
        txn.delete(&tables::audit(ns, path));
    }

    /// All devices of a namespace by path.
    pub fn list(txn: &mut Txn<'_>, ns: NsId) -> Result<Vec<Device>, Error> {
        let rows = txn.scan(&tables::audit(ns, ""), None, usize::MAX)?;
        rows.iter().map(|(_, p)| parse(&p.bytes)).collect()
    }

    /// As `sys/audit` shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "type": self.kind, "description": self.description, "options": self.options,
            "local": self.local, "path": self.path,
        })
    }

    fn option_is(&self, name: &str, preset: bool) -> bool {
        match self.options.get(name) {
            None => preset,
            Some(v) => ringfence_logical::args::parse_bool(v).unwrap_or(preset),
        }
    }
}

/// The hash that a device writes for a text.
pub fn hash(device: &Device, text: &str) -> String {
    format!("hmac-sha256:{}", hex::encode(hmac_sha256(device.salt.as_bytes(), text.as_bytes())))
}

/// All devices, ready for use.
pub fn arm_all(txn: &mut Txn<'_>) -> Result<Vec<Rc<Armed>>, Error> {
    let rows = txn.peek_prefix(&[tables::AUDIT])?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let headers = Rc::new(audited_headers(txn)?);
    rows.iter().map(|(_, p)| Ok(Rc::new(Armed::new(parse(&p.bytes)?, headers.clone())))).collect()
}

/// Request headers that audit writes, with whether they are hashed. `correlation-id` and `user-agent` are in the
/// clear unless configured otherwise, as in Vault.
pub fn audited_headers(txn: &mut Txn<'_>) -> Result<Vec<(String, bool)>, Error> {
    let stored = txn.get(&tables::config(NsId::ROOT, HEADERS_TOPIC))?;
    let mut map: BTreeMap<String, bool> =
        [("correlation-id".to_owned(), false), ("user-agent".to_owned(), false)].into();
    if let Some(p) = stored {
        let set: BTreeMap<String, bool> = parse(&p.bytes)?;
        map.extend(set);
    }
    Ok(map.into_iter().collect())
}

impl Armed {
    /// A device and the request headers to write.
    pub fn new(device: Device, headers: Rc<Vec<(String, bool)>>) -> Armed {
        Armed {
            raw: device.option_is("log_raw", false),
            hmac_accessor: device.option_is("hmac_accessor", true),
            elide_lists: device.option_is("elide_list_responses", false),
            prefix: device.options.get("prefix").cloned().unwrap_or_default(),
            key: Provider::AwsLc.hmac_key(device.salt.as_bytes()),
            repeated: RefCell::default(),
            callers: RefCell::default(),
            headers,
            device: Rc::new(device),
        }
    }

    /// Appends what `write` makes of a caller, or what it made of the same caller before.
    pub fn write_caller(&self, out: &mut Vec<u8>, caller: CallerKey<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut all = self.callers.borrow_mut();
        if all.is_empty() {
            all.resize_with(CALLERS, || None);
        }
        // an allocation is aligned, so its low bits say nothing
        let place = (Rc::as_ptr(caller.holder) as usize >> 5) % CALLERS;
        match &all[place] {
            Some(known)
                if Rc::ptr_eq(&known.holder, caller.holder)
                    && known.ns == caller.ns
                    && known.allowed == caller.allowed
                    && known.granting == caller.granting =>
            {
                out.extend_from_slice(&known.written);
            }
            _ => {
                let at = out.len();
                write(out);
                let granting = caller.granting.to_vec();
                let CallerKey { holder, ns, allowed, .. } = caller;
                let written = out[at..].into();
                all[place] = Some(CallerBlock { holder: holder.clone(), ns, allowed, granting, written });
            }
        }
    }

    /// Appends the hash of a text as a JSON string.
    pub fn write_hash(&self, out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(b"\"hmac-sha256:");
        let at = out.len();
        out.resize(at + 64, 0);
        hex::encode_to_slice(self.key.sign(&[text.as_bytes()]), &mut out[at..]).expect("32 bytes are 64 digits");
        out.push(b'"');
    }

    /// As [`Armed::write_hash`], of a text that is likely to come again: its hash is kept with the device, on this core.
    pub fn write_repeated_hash(&self, out: &mut Vec<u8>, text: &str) {
        let mut all = self.repeated.borrow_mut();
        if all.is_empty() {
            all.resize_with(REPEATED, || None);
        }
        let bytes = text.as_bytes();
        // the end tells tokens apart, which begin alike
        let place = key_hash(&bytes[bytes.len().saturating_sub(32)..]) as usize % REPEATED;
        match &all[place] {
            Some(known) if same_secret(known.text.expose(), text) => out.extend_from_slice(&known.written),
            _ => {
                let at = out.len();
                self.write_hash(out, text);
                let written = out[at..].into();
                all[place] = Some(Repeated { text: Secret::new(text.to_owned()), written });
            }
        }
    }

    /// A line of this device, from what writes its entry.
    pub fn line(&self, entry: impl FnOnce(&mut Vec<u8>)) -> super::Line {
        let mut bytes = self.prefix.as_bytes().to_vec();
        entry(&mut bytes);
        bytes.push(b'\n');
        super::Line { device: self.device.clone(), bytes }
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored record: {e}")))
}
