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
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// System default of `default_lease_ttl` and `max_lease_ttl`: 32 days. Source: Vault's documented default.
pub const SYSTEM_TTL_SECONDS: u64 = 768 * 3600;

/// What `sys/mounts/:path/tune` changes. What is not tuned is not stored: most mounts of a server are many and plain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountConfig {
    /// Seconds; 0 = the system's.
    #[serde(skip_serializing_if = "is_zero")]
    pub default_lease_ttl: u64,
    /// Seconds; 0 = the system's.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_lease_ttl: u64,
    /// Kept and shown; the image is memory already.
    #[serde(skip_serializing_if = "is_false")]
    pub force_no_cache: bool,
    /// `unauth`, `hidden` or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listing_visibility: String,
    /// Token type that the auth method's logins yield.
    pub token_type: TokenType,
    /// Request keys that audit does not hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audit_non_hmac_request_keys: Vec<String>,
    /// Response keys that audit does not hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audit_non_hmac_response_keys: Vec<String>,
    /// Headers handed to the engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passthrough_request_headers: Vec<String>,
    /// Headers the engine may set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_response_headers: Vec<String>,
    /// Further options that are kept and shown as given (plugin_version, allowed_managed_keys, ...).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, serde_json::Value>,
    /// Lockout settings of this mount, if tuned.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A UUID.
    pub uuid: String,
    /// `kv_1a2b3c4d`, `auth_userpass_1a2b3c4d`.
    pub accessor: String,
    /// Not replicated to other clusters.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// Kept and shown.
    #[serde(default, skip_serializing_if = "is_false")]
    pub seal_wrap: bool,
    /// Kept and shown.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external_entropy_access: bool,
    /// The engine's options; `None` prints as null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
    /// Tuned settings.
    #[serde(default)]
    pub config: MountConfig,
    /// Disabled: nothing routes here, and its data and leases are being removed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tainted: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !b
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
        txn.put(tables::mount_of(self.ns, self.id), &[], &[]);
    }

    /// Takes a mount to another namespace; the caller saves it.
    pub fn move_to(&mut self, txn: &mut Txn<'_>, ns: NsId) {
        txn.delete(&tables::mount_of(self.ns, self.id));
        self.ns = ns;
    }

    /// Deletes the record.
    pub fn remove(txn: &mut Txn<'_>, ns: NsId, id: MountId) {
        txn.delete(&tables::mount(id));
        txn.delete(&tables::mount_of(ns, id));
    }

    /// Numbers of the mounts of a namespace, disabled ones included, that come after `after`.
    pub fn numbers_of(txn: &mut Txn<'_>, ns: NsId, after: Option<MountId>, limit: usize) -> Vec<MountId> {
        let prefix = tables::mounts_of(ns);
        let after = after.map(|id| tables::mount_of(ns, id));
        let keys = txn.list(&prefix, after.as_deref(), limit);
        keys.iter().filter_map(|k| k[prefix.len()..].try_into().ok()).map(|b| MountId(u32::from_be_bytes(b))).collect()
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
    /// Being deleted: shown to who asks for them, reached by nobody.
    dying: BTreeMap<String, Arc<Namespace>>,
    by_ns: BTreeMap<NsId, Arc<Namespace>>,
    by_external: BTreeMap<String, NsId>,
    /// Namespaces with children: the others have no segment to take off a path.
    parents: BTreeSet<String>,
    any_locked: bool,
    mounts: BTreeMap<NsId, BTreeMap<String, Arc<Routed>>>,
    by_id: BTreeMap<MountId, Arc<Routed>>,
}

impl Router {
    /// Builds the router from the tables. Not part of any read set: writers of mounts read the records they rely on.
    pub fn build(txn: &mut Txn<'_>, system: &SystemTtls) -> Result<Router, Error> {
        let mut router = Router { built_at: Router::stamp(txn), ..Router::default() };
        for (_, plain) in txn.peek_prefix(&[tables::NAMESPACE])? {
            router.add_namespace(parse(&plain.bytes)?);
        }
        for (_, plain) in txn.peek_prefix(&[tables::MOUNT])? {
            router.add_mount(parse(&plain.bytes)?, system);
        }
        Ok(router)
    }

    fn add_namespace(&mut self, ns: Namespace) {
        let ns = Arc::new(ns);
        if ns.tainted {
            self.dying.insert(ns.path.clone(), ns);
            return;
        }
        self.any_locked |= ns.lock.is_some();
        if !ns.is_root() {
            self.parents.insert(Namespace::split(&ns.path).0.to_owned());
        }
        self.by_external.insert(ns.external_id.clone(), ns.id);
        self.by_ns.insert(ns.id, ns.clone());
        self.namespaces.insert(ns.path.clone(), ns);
    }

    /// A disabled mount, and one of a namespace that is not there, is reached by nobody.
    fn add_mount(&mut self, entry: MountEntry, system: &SystemTtls) {
        let Some(ns) = self.by_ns.get(&entry.ns).filter(|_| !entry.tainted) else { return };
        let info = entry.info(&ns.path, system);
        let routed = Arc::new(Routed { entry, info });
        self.by_id.insert(routed.entry.id, routed.clone());
        self.mounts.entry(routed.entry.ns).or_default().insert(routed.info.path.clone(), routed);
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
        self.by_ns.get(&id)
    }

    /// A namespace by the suffix that its tokens, accessors and leases carry; the root namespace's carry none.
    pub fn namespace_by_external_id(&self, external_id: &str) -> Option<&Arc<Namespace>> {
        self.by_ns.get(self.by_external.get(external_id)?).filter(|n| !n.is_root())
    }

    /// True if a short name is in use, by the root namespace or by one that is being deleted too.
    pub fn is_external_id_taken(&self, external_id: &str) -> bool {
        self.by_external.contains_key(external_id) || self.dying.values().any(|n| n.external_id == external_id)
    }

    /// The namespace being deleted at a path.
    pub fn dying(&self, path: &str) -> Option<&Arc<Namespace>> {
        self.dying.get(path)
    }

    /// Namespaces below a path in path order, those being deleted among them; paths beyond `after`, if given.
    pub fn below<'r>(&'r self, path: &'r str, after: &str) -> impl Iterator<Item = &'r Arc<Namespace>> {
        let from = if after > path { after.to_owned() } else { path.to_owned() };
        let beyond = (Bound::Excluded(from.clone()), Bound::Unbounded);
        let mut live = self.namespaces.range(beyond.clone()).take_while(move |(p, _)| p.starts_with(path)).peekable();
        let mut dying = self.dying.range(beyond).take_while(move |(p, _)| p.starts_with(path)).peekable();
        std::iter::from_fn(move || match (live.peek(), dying.peek()) {
            (Some(l), Some(d)) if d.0 < l.0 => dying.next(),
            (Some(_), _) => live.next(),
            (None, _) => dying.next(),
        })
        .map(|(_, ns)| ns)
    }

    /// True if a namespace has children that are not gone yet.
    pub fn has_children(&self, ns: &Namespace) -> bool {
        self.below(&ns.path, "").next().is_some()
    }

    /// A namespace and all above it, nearest first.
    pub fn lineage<'r>(&'r self, ns: &'r Arc<Namespace>) -> impl Iterator<Item = &'r Arc<Namespace>> {
        std::iter::successors(Some(ns), |n| match n.is_root() {
            true => None,
            false => self.namespaces.get(Namespace::split(&n.path).0),
        })
    }

    /// The locked namespace that keeps a namespace from being used: itself or one above it.
    pub fn locked_by<'r>(&'r self, ns: &'r Arc<Namespace>) -> Option<&'r Arc<Namespace>> {
        if !self.any_locked {
            return None;
        }
        self.lineage(ns).find(|n| n.lock.is_some())
    }

    /// Takes namespace segments off the start of a path, as long as they name children of `from`.
    pub fn descend<'p>(&self, from: &Arc<Namespace>, path: &'p str) -> (Arc<Namespace>, &'p str) {
        let (mut ns, mut rest) = (from.clone(), path);
        while self.parents.contains(&ns.path) {
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

    /// The child namespace that would take the requests of a mount at this full path.
    pub fn conflicting_namespace(&self, ns: NsId, full_path: &str) -> Option<&Arc<Namespace>> {
        let parent = self.by_ns.get(&ns)?;
        let first = full_path.split_inclusive('/').next()?;
        self.namespaces.get(&format!("{}{first}", parent.path))
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
