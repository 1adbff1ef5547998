//! The mount table: one record per mount, keyed by its number, and the router built from all of them.
//!
//! The router is derived state: valid while the mount and namespace tables stand still, brought up to date by whoever
//! finds it stale. It knows paths; the keys of a mount's data know numbers only. The mounts of a namespace are read when
//! something is first looked for in there, so many tenants cost nothing at an unseal.

use crate::namespace::{NO_MOUNT, Namespace};
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{Index, MountId, NsId, Reader};
use ringfence_logical::{Class, Error, MountInfo, TokenType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
        let after = tables::mount_of(ns, after.unwrap_or(NO_MOUNT));
        let keys = txn.list(&prefix, Some(&after), limit);
        keys.iter()
            .filter_map(|k| k[prefix.len()..].try_into().ok())
            .map(|b| MountId(u32::from_be_bytes(b)))
            .collect()
    }

    /// Numbers of all mounts of a namespace as the view has them, disabled ones included; not recorded.
    pub fn peek_numbers(txn: &Txn<'_>, ns: NsId) -> Result<Vec<MountId>, Error> {
        let prefix = tables::mounts_of(ns);
        let keys = crate::lease::peek_keys(txn, &prefix, Some(&tables::mount_of(ns, NO_MOUNT)), usize::MAX);
        keys.iter().map(|key| Ok(MountId(Reader::new(&key[prefix.len()..]).be32()?))).collect()
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

/// No namespace has this number: its mark tells of records that were edited by hand.
const EDITED: NsId = NsId(u32::MAX);

/// To be called by who writes or deletes a record as bytes: routers look at marks, and bytes leave none.
pub fn note_edit(txn: &mut Txn<'_>, key: &[u8]) {
    if matches!(key.first(), Some(&tables::MOUNT | &tables::NAMESPACE)) {
        txn.put(tables::mount_of(EDITED, NO_MOUNT), &[], &[]);
    }
}

/// The mounts of a namespace.
#[derive(Debug, Default)]
struct Mounts {
    by_path: BTreeMap<String, Arc<Routed>>,
    by_id: BTreeMap<MountId, Arc<Routed>>,
}

/// The mounts of a namespace, once somebody asked for one. Routers share it for as long as the namespace's part of the
/// tables stands still: all of them would read the same.
type Slot = Arc<OnceLock<Mounts>>;

/// Where a request goes: the longest mount path that begins its path, per namespace.
///
/// All that is in it is shared: a copy is a copy of pointers. So the cores of a process share one router
/// ([`SharedRouter`]), and a change costs a look at every namespace's mark and a reading of those that changed. Of a
/// namespace it has the record; the mounts are read by the first who asks, from the view that the router is of.
#[derive(Clone, Debug, Default)]
pub struct Router {
    /// Index of the later of the two tables it was built from.
    pub built_at: Index,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Being deleted: shown to who asks for them, reached by nobody.
    dying: BTreeMap<String, Arc<Namespace>>,
    /// Living ones and those being deleted.
    by_ns: BTreeMap<NsId, Arc<Namespace>>,
    by_external: BTreeMap<String, NsId>,
    locked: usize,
    /// Of the living.
    mounts: BTreeMap<NsId, Slot>,
    system: SystemTtls,
}

/// The newest router of a process, so that what one core has built no other has to.
#[derive(Default)]
pub struct SharedRouter(Mutex<Option<(u64, Arc<Router>)>>);

impl SharedRouter {
    /// The newest router of an epoch: of the present licences to seal, because a restored image may go on at an index
    /// at which another image stood before.
    pub fn newest(&self, epoch: u64) -> Option<Arc<Router>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().filter(|(e, _)| *e == epoch).map(|(_, r)| r.clone())
    }

    /// Offers a router; an older one of the same epoch makes room.
    pub fn offer(&self, epoch: u64, router: &Arc<Router>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(e, r)| *e != epoch || r.built_at < router.built_at) {
            *slot = Some((epoch, router.clone()));
        }
    }

    /// Forgets it: the node was sealed.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Router {
    /// Builds the router from the tables. Not part of any read set: writers of mounts read the records they rely on.
    pub fn build(txn: &mut Txn<'_>, system: &SystemTtls) -> Result<Router, Error> {
        let mut router = Router { built_at: Router::stamp(txn), system: *system, ..Router::default() };
        for (_, plain) in txn.peek_prefix(&[tables::NAMESPACE])? {
            router.add_namespace(parse(&plain.bytes)?);
        }
        Ok(router)
    }

    /// Brings a router of an earlier view up to this one: the namespaces whose part of the tables changed since, and
    /// the new ones, are read again.
    pub fn refresh(&mut self, txn: &mut Txn<'_>, system: &SystemTtls) -> Result<(), Error> {
        if txn.changed(tables::MOUNT_OF, Some(MountId(EDITED.0))) > self.built_at {
            *self = Router::build(txn, system)?;
            return Ok(());
        }
        let since = std::mem::replace(&mut self.built_at, Router::stamp(txn));
        let changed = |ns: &NsId| txn.changed(tables::MOUNT_OF, Some(MountId(ns.0))) > since;
        let mut stale: Vec<NsId> = self.by_ns.keys().copied().filter(changed).collect();
        // numbers only grow, so what is new stands behind all that is known
        let newest = self.by_ns.keys().next_back().map(|ns| tables::namespace(*ns));
        for key in crate::lease::peek_keys(txn, &[tables::NAMESPACE], newest.as_deref(), usize::MAX) {
            stale.push(NsId(Reader::new(&key[1..]).be32()?));
        }
        for id in stale {
            self.forget(id);
            let Some((_, plain)) = txn.peek_prefix(&tables::namespace(id))?.pop() else { continue };
            self.add_namespace(parse(&plain.bytes)?);
        }
        Ok(())
    }

    /// All it holds and would read, for comparisons.
    #[cfg(test)]
    pub fn told(&self, txn: &Txn<'_>) -> String {
        let full: Vec<_> =
            self.mounts.keys().map(|ns| (ns, self.mounts(txn, *ns).unwrap().collect::<Vec<_>>())).collect();
        format!("{:#?}", (&self.namespaces, &self.dying, &self.by_ns, &self.by_external, self.locked, full))
    }

    /// Namespaces whose mounts were read.
    #[cfg(test)]
    pub fn entered(&self) -> Vec<NsId> {
        self.mounts.iter().filter(|(_, slot)| slot.get().is_some()).map(|(ns, _)| *ns).collect()
    }

    fn forget(&mut self, id: NsId) {
        self.mounts.remove(&id);
        let Some(ns) = self.by_ns.remove(&id) else { return };
        let tree = if ns.tainted { &mut self.dying } else { &mut self.namespaces };
        if tree.get(&ns.path).is_some_and(|there| there.id == id) {
            tree.remove(&ns.path);
        }
        self.by_external.remove(&ns.external_id);
        self.locked -= usize::from(ns.lock.is_some() && !ns.tainted);
    }

    fn add_namespace(&mut self, ns: Namespace) {
        let ns = Arc::new(ns);
        self.by_external.insert(ns.external_id.clone(), ns.id);
        self.by_ns.insert(ns.id, ns.clone());
        if ns.tainted {
            self.dying.insert(ns.path.clone(), ns);
        } else {
            self.locked += usize::from(ns.lock.is_some());
            self.mounts.insert(ns.id, Slot::default());
            self.namespaces.insert(ns.path.clone(), ns);
        }
    }

    /// The mounts of a namespace that is not being deleted, read if nobody has asked for one yet.
    ///
    /// # Errors
    /// Records that do not read, and a view of other mounts than the router's: routers share what was read, so what one
    /// view has must not be taken for what another has.
    fn mounts_in(&self, txn: &Txn<'_>, ns: NsId) -> Result<Option<&Mounts>, Error> {
        let Some(slot) = self.mounts.get(&ns) else { return Ok(None) };
        if let Some(mounts) = slot.get() {
            return Ok(Some(mounts));
        }
        if Router::stamp(txn) != self.built_at {
            return Err(Error::internal("a router was asked about mounts of another view than its own"));
        }
        let read = self.read_mounts(txn, ns)?;
        // two cores may have read at once: they have read the same
        Ok(Some(slot.get_or_init(|| read)))
    }

    fn read_mounts(&self, txn: &Txn<'_>, ns: NsId) -> Result<Mounts, Error> {
        let mut mounts = Mounts::default();
        let Some(home) = self.namespace_by_id(ns) else { return Ok(mounts) };
        for id in MountEntry::peek_numbers(txn, ns)? {
            let Some(entry) = peek_mount(txn, id)?.filter(|e| e.ns == ns && !e.tainted) else { continue };
            let info = entry.info(&home.path, &self.system);
            let routed = Arc::new(Routed { entry, info });
            mounts.by_id.insert(id, routed.clone());
            mounts.by_path.insert(routed.info.path.clone(), routed);
        }
        Ok(mounts)
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
        self.by_ns.get(&id).filter(|n| !n.tainted)
    }

    /// A namespace by the suffix that its tokens, accessors and leases carry; the root namespace's carry none.
    pub fn namespace_by_external_id(&self, external_id: &str) -> Option<&Arc<Namespace>> {
        self.namespace_by_id(*self.by_external.get(external_id)?).filter(|n| !n.is_root())
    }

    /// True if a short name is in use, by the root namespace or by one that is being deleted too.
    pub fn is_external_id_taken(&self, external_id: &str) -> bool {
        self.by_external.contains_key(external_id)
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

    fn has_living_children(&self, ns: &Namespace) -> bool {
        let beyond = (Bound::Excluded(ns.path.as_str()), Bound::Unbounded);
        self.namespaces.range::<str, _>(beyond).next().is_some_and(|(path, _)| path.starts_with(&ns.path))
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
        if self.locked == 0 {
            return None;
        }
        self.lineage(ns).find(|n| n.lock.is_some())
    }

    /// Takes namespace segments off the start of a path, as long as they name children of `from`.
    pub fn descend<'p>(&self, from: &Arc<Namespace>, path: &'p str) -> (Arc<Namespace>, &'p str) {
        let (mut ns, mut rest) = (from.clone(), path);
        // a leaf has no segment to take off
        while let Some(slash) = rest.find('/').filter(|_| self.has_living_children(&ns)) {
            let child = format!("{}{}", ns.path, &rest[..=slash]);
            match self.namespaces.get(&child) {
                Some(n) => (ns, rest) = (n.clone(), &rest[slash + 1..]),
                None => break,
            }
        }
        (ns, rest)
    }

    /// The mount that serves a path and the path within it.
    pub fn route<'p>(
        &self,
        txn: &Txn<'_>,
        ns: NsId,
        path: &'p str,
    ) -> Result<Option<(&Arc<Routed>, &'p str)>, Error> {
        let Some(mounts) = self.mounts_in(txn, ns)? else { return Ok(None) };
        let mut end = path.len();
        // candidates are prefixes that end in a slash, longest first
        while let Some(slash) = path[..end].rfind('/') {
            if let Some(m) = mounts.by_path.get(&path[..=slash]) {
                return Ok(Some((m, &path[slash + 1..])));
            }
            end = slash;
        }
        Ok(None)
    }

    /// The mount that a path names without its last slash, which is how people ask for its help.
    pub fn named(&self, txn: &Txn<'_>, ns: NsId, path: &str) -> Result<Option<&Arc<Routed>>, Error> {
        self.at(txn, ns, &format!("{path}/"))
    }

    /// A mount by its full path in a namespace (`secret/`, `auth/userpass/`).
    pub fn at(&self, txn: &Txn<'_>, ns: NsId, full_path: &str) -> Result<Option<&Arc<Routed>>, Error> {
        Ok(self.mounts_in(txn, ns)?.and_then(|mounts| mounts.by_path.get(full_path)))
    }

    /// A mount by number. It is looked for in the namespace `near` first, where what names a mount mostly has it; its
    /// record tells where it is otherwise.
    pub fn by_id(&self, txn: &Txn<'_>, near: NsId, id: MountId) -> Result<Option<&Arc<Routed>>, Error> {
        if let Some(m) = self.mounts_in(txn, near)?.and_then(|mounts| mounts.by_id.get(&id)) {
            return Ok(Some(m));
        }
        match peek_mount(txn, id)? {
            Some(e) if e.ns != near && !e.tainted => {
                Ok(self.mounts_in(txn, e.ns)?.and_then(|mounts| mounts.by_id.get(&id)))
            }
            _ => Ok(None),
        }
    }

    /// A mount of a namespace by accessor.
    pub fn by_accessor(&self, txn: &Txn<'_>, ns: NsId, accessor: &str) -> Result<Option<&Arc<Routed>>, Error> {
        Ok(self.mounts(txn, ns)?.find(|m| m.entry.accessor == accessor))
    }

    /// All mounts of a namespace in path order.
    pub fn mounts<'r>(
        &'r self,
        txn: &Txn<'_>,
        ns: NsId,
    ) -> Result<impl Iterator<Item = &'r Arc<Routed>> + use<'r>, Error> {
        Ok(self.mounts_in(txn, ns)?.into_iter().flat_map(|mounts| mounts.by_path.values()))
    }

    /// A mount whose path contains, or is contained in, this full path: mounts must not nest.
    pub fn conflict(&self, txn: &Txn<'_>, ns: NsId, full_path: &str) -> Result<Option<&Arc<Routed>>, Error> {
        Ok(self.mounts(txn, ns)?.find(|m| m.info.path.starts_with(full_path) || full_path.starts_with(&m.info.path)))
    }

    /// The child namespace that would take the requests of a mount at this full path.
    pub fn conflicting_namespace(&self, ns: NsId, full_path: &str) -> Option<&Arc<Namespace>> {
        let parent = self.namespace_by_id(ns)?;
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

/// A mount's record as the view has it, not recorded in the read set.
fn peek_mount(txn: &Txn<'_>, id: MountId) -> Result<Option<MountEntry>, Error> {
    match txn.peek_prefix(&tables::mount(id))?.pop() {
        None => Ok(None),
        Some((_, plain)) => parse(&plain.bytes).map(Some),
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored record: {e}")))
}
