//! Audit devices: their records, their options, their salts.

use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{Entropy, NsId, entropy};
use ringfence_crypto::{HmacKey, Provider, hmac_sha256};
use ringfence_logical::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
    /// Request headers to write, lower-case name and whether hashed.
    pub headers: Rc<Vec<(String, bool)>>,
}

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
    rows.iter()
        .map(|(_, p)| {
            let device: Device = parse(&p.bytes)?;
            Ok(Rc::new(Armed {
                raw: device.option_is("log_raw", false),
                hmac_accessor: device.option_is("hmac_accessor", true),
                elide_lists: device.option_is("elide_list_responses", false),
                prefix: device.options.get("prefix").cloned().unwrap_or_default(),
                key: Provider::AwsLc.hmac_key(device.salt.as_bytes()),
                headers: headers.clone(),
                device: Rc::new(device),
            }))
        })
        .collect()
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
    /// Appends the hash of a text as a JSON string.
    pub fn write_hash(&self, out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(b"\"hmac-sha256:");
        let at = out.len();
        out.resize(at + 64, 0);
        hex::encode_to_slice(self.key.sign(&[text.as_bytes()]), &mut out[at..]).expect("32 bytes are 64 digits");
        out.push(b'"');
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
