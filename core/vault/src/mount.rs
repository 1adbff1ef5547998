//! The mount table: one record per mount, keyed by its number, and the router built from all of them.
//!
//! The router is derived state: valid while the mount and namespace tables stand still, rebuilt by whoever finds it
//! stale. It knows paths; the keys of a mount's data know numbers only.

use crate::namespace::Namespace;
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{Index, MountId, NsId, Reader};
use ringfence_logical::{Class, Error, MountInfo, TokenType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// System default of `default_lease_ttl` and `max_lease_ttl`: 32 days. Source: Vault's documented default.
pub const SYSTEM_TTL_SECONDS: u64 = 768 * 3600;

/// What `sys/mounts/:path/tune` changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountConfig {
    /// Seconds; 0 = the system's.
    pub default_lease_ttl: u64,
    /// Seconds; 0 = the system's.
    pub max_lease_ttl: u64,
    /// Kept and shown; the image is memory already.
    pub force_no_cache: bool,
    /// `unauth`, `hidden` or empty.
    pub listing_visibility: String,
    /// Token type that the auth method's logins yield.
    pub token_type: TokenType,
    /// Request keys that audit does not hash.
    pub audit_non_hmac_request_keys: Vec<String>,
    /// Response keys that audit does not hash.
    pub audit_non_hmac_response_keys: Vec<String>,
    /// Headers handed to the engine.
    pub passthrough_request_headers: Vec<String>,
    /// Headers the engine may set.
    pub allowed_response_headers: Vec<String>,
    /// Further options that are kept and shown as given (plugin_version, allowed_managed_keys, ...).
    pub other: BTreeMap<String, serde_json::Value>,
    /// Lockout settings of this mount, if tuned.
    pub user_lockout: Option<UserLockout>,
}

/// When a user is locked out after wrong credentials. Source: Vault's `user_lockout` stanza.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserLockout {
    /// Wrong attempts until the lock.
    pub threshold: u64,
    /// Seconds the lock lasts.
    pub duration: u64,
    /// Seconds after which an unlocked count is forgotten.
    pub counter_reset: u64,
    /// Off.
    pub disable: bool,
}

impl Default for UserLockout {
    fn default() -> Self {
        UserLockout { threshold: 5, duration: 900, counter_reset: 900, disable: false }
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountEntry {
    /// Number, unique in the cluster for all time.
    pub id: MountId,
    /// Namespace.
    pub ns: NsId,
    /// Secrets engine or auth method.
    pub class: Class,
    /// Path within the namespace and class, without `auth/`, ends in `/`.
    pub path: String,
    /// `kv`, `system`, `userpass`.
    pub kind: String,
    /// Free text.
    pub description: String,
    /// A UUID.
    pub uuid: String,
    /// `kv_1a2b3c4d`, `auth_userpass_1a2b3c4d`.
    pub accessor: String,
    /// Not replicated to other clusters.
    pub local: bool,
    /// Kept and shown.
    pub seal_wrap: bool,
    /// Kept and shown.
    pub external_entropy_access: bool,
    /// The engine's options; `None` prints as null.
    pub options: Option<BTreeMap<String, String>>,
    /// Tuned settings.
    #[serde(default)]
    pub config: MountConfig,
    /// Disabled: nothing routes here, and its data and leases are being removed.
    #[serde(default)]
    pub tainted: bool,
}

impl MountEntry {
    /// Reads a mount by number.
    pub fn load(txn: &mut Txn<'_>, id: MountId) -> Result<Option<MountEntry>, Error> {
        match txn.get(&tables::mount(id))? {
            None => Ok(None),
            Some(p) => parse(&p.bytes).map(Some),
        }
    }

    /// Writes the record.
    pub fn save(&self, txn: &mut Txn<'_>) {
        let bytes = serde_json::to_vec(self).expect("a mount entry always serialises");
        txn.put(tables::mount(self.id), &[], &bytes);
    }

    /// Path within the namespace: `secret/`, `auth/userpass/`.
    pub fn full_path(&self) -> String {
        match self.class {
            Class::Secret => self.path.clone(),
            Class::Auth => format!("auth/{}", self.path),
        }
    }

    /// Effective default lease time, seconds.
    pub fn default_ttl(&self, system: &SystemTtls) -> u64 {
        let own = if self.config.default_lease_ttl > 0 { self.config.default_lease_ttl } else { system.default };
        own.min(self.max_ttl(system))
    }

    /// Effective longest lease time, seconds.
    pub fn max_ttl(&self, system: &SystemTtls) -> u64 {
        if self.config.max_lease_ttl > 0 { self.config.max_lease_ttl } else { system.max }
    }

    /// What the engine is told of its mount.
    pub fn info(&self, ns_path: &str, system: &SystemTtls) -> MountInfo {
        MountInfo {
            id: self.id,
            ns: self.ns,
            ns_path: ns_path.to_owned(),
            path: self.full_path(),
            kind: self.kind.clone(),
            class: self.class,
            accessor: self.accessor.clone(),
            uuid: self.uuid.clone(),
            options: self.options.clone().unwrap_or_default(),
            default_ttl: self.default_ttl(system),
            max_ttl: self.max_ttl(system),
            token_type: self.config.token_type,
        }
    }

    /// The `version` option.
    pub fn version(&self) -> Option<&str> {
        self.options.as_ref().and_then(|o| o.get("version")).map(String::as_str)
    }
}

/// The system's lease times, from the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemTtls {
    /// Seconds.
    pub default: u64,
    /// Seconds.
    pub max: u64,
}

impl Default for SystemTtls {
    fn default() -> Self {
        SystemTtls { default: SYSTEM_TTL_SECONDS, max: SYSTEM_TTL_SECONDS }
    }
}

/// A mount as the router holds it.
#[derive(Debug)]
pub struct Routed {
    /// The record.
    pub entry: MountEntry,
    /// What the engine is told.
    pub info: MountInfo,
}

/// Where a request goes: the longest mount path that begins its path, per namespace.
#[derive(Debug, Default)]
pub struct Router {
    /// Index of the later of the two tables it was built from.
    pub built_at: Index,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    mounts: BTreeMap<NsId, BTreeMap<String, Arc<Routed>>>,
    by_id: BTreeMap<MountId, Arc<Routed>>,
}

impl Router {
    /// Builds the router from the tables. Not part of any read set: writers of mounts read the records they rely on.
    pub fn build(txn: &mut Txn<'_>, system: &SystemTtls) -> Result<Router, Error> {
        let mut router = Router { built_at: Router::stamp(txn), ..Router::default() };
        let mut paths: BTreeMap<NsId, String> = BTreeMap::new();
        for (_, plain) in txn.peek_prefix(&[tables::NAMESPACE])? {
            let ns: Namespace = parse(&plain.bytes)?;
            paths.insert(ns.id, ns.path.clone());
            router.namespaces.insert(ns.path.clone(), Arc::new(ns));
        }
        for (_, plain) in txn.peek_prefix(&[tables::MOUNT])? {
            let entry: MountEntry = parse(&plain.bytes)?;
            if entry.tainted {
                continue;
            }
            let ns_path = paths.get(&entry.ns).map_or("", String::as_str);
            let info = entry.info(ns_path, system);
            let routed = Arc::new(Routed { entry, info });
            router.by_id.insert(routed.entry.id, routed.clone());
            router.mounts.entry(routed.entry.ns).or_default().insert(routed.info.path.clone(), routed);
        }
        Ok(router)
    }

    /// The index up to which a router may have been built to be valid for this view.
    pub fn stamp(txn: &Txn<'_>) -> Index {
        txn.changed(tables::MOUNT, None).max(txn.changed(tables::NAMESPACE, None))
    }

    /// The namespace at a path (empty = root, else ends in `/`).
    pub fn namespace(&self, path: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(path)
    }

    /// A namespace by number.
    pub fn namespace_by_id(&self, id: NsId) -> Option<&Arc<Namespace>> {
        self.namespaces.values().find(|n| n.id == id)
    }

    /// Takes namespace segments off the start of a path, as long as they name children of `from`.
    pub fn descend<'p>(&self, from: &Arc<Namespace>, path: &'p str) -> (Arc<Namespace>, &'p str) {
        let (mut ns, mut rest) = (from.clone(), path);
        while self.namespaces.len() > 1 {
            let Some(slash) = rest.find('/') else { break };
            let child = format!("{}{}", ns.path, &rest[..=slash]);
            match self.namespaces.get(&child) {
                Some(n) => (ns, rest) = (n.clone(), &rest[slash + 1..]),
                None => break,
            }
        }
        (ns, rest)
    }

    /// The mount that serves a path and the path within it. `secret` without a slash finds the mount `secret/` too.
    pub fn route<'p>(&self, ns: NsId, path: &'p str) -> Option<(&Arc<Routed>, &'p str)> {
        let mounts = self.mounts.get(&ns)?;
        let mut end = path.len();
        loop {
            // candidates are prefixes that end in a slash, longest first
            let slash = path[..end].rfind('/')?;
            if let Some(m) = mounts.get(&path[..=slash]) {
                return Some((m, &path[slash + 1..]));
            }
            if slash == 0 {
                return None;
            }
            end = slash;
        }
    }

    /// As [`Router::route`], and a path that is a mount without its slash finds that mount.
    pub fn route_loose<'p>(&self, ns: NsId, path: &'p str) -> Option<(&Arc<Routed>, &'p str)> {
        let with_slash = format!("{path}/");
        if let Some(m) = self.mounts.get(&ns).and_then(|m| m.get(&with_slash)) {
            return Some((m, ""));
        }
        self.route(ns, path)
    }

    /// A mount by its full path in a namespace (`secret/`, `auth/userpass/`).
    pub fn at(&self, ns: NsId, full_path: &str) -> Option<&Arc<Routed>> {
        self.mounts.get(&ns)?.get(full_path)
    }

    /// A mount by number.
    pub fn by_id(&self, id: MountId) -> Option<&Arc<Routed>> {
        self.by_id.get(&id)
    }

    /// A mount by accessor.
    pub fn by_accessor(&self, accessor: &str) -> Option<&Arc<Routed>> {
        self.by_id.values().find(|m| m.entry.accessor == accessor)
    }

    /// All mounts of a namespace in path order.
    pub fn mounts(&self, ns: NsId) -> impl Iterator<Item = &Arc<Routed>> {
        self.mounts.get(&ns).into_iter().flat_map(BTreeMap::values)
    }

    /// All mounts.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Routed>> {
        self.by_id.values()
    }

    /// A mount whose path contains, or is contained in, this full path: mounts must not nest.
    pub fn conflict(&self, ns: NsId, full_path: &str) -> Option<&Arc<Routed>> {
        self.mounts(ns).find(|m| m.info.path.starts_with(full_path) || full_path.starts_with(&m.info.path))
    }
}

/// Draws the next mount number: one above the highest ever used. The counter is a record of its own so that a number
/// is never given twice, also after its mount is gone.
pub fn next_mount_id(txn: &mut Txn<'_>) -> Result<MountId, Error> {
    let key = tables::config(NsId::ROOT, "core/next-mount");
    let next = match txn.get(&key)? {
        None => 1,
        Some(p) => Reader::new(&p.bytes).be32()?,
    };
    txn.put(key, &[], &(next + 1).to_be_bytes());
    Ok(MountId(next))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored record: {e}")))
}
