//! What a quota says, where it counts, and which one speaks for a request: the most specific of its kind.
//!
//! ```text
//! role at a mount > path in a mount (longest) > mount > namespace > nearest inheriting namespace above > all
//! ```

use crate::mount::{Routed, Router};
use crate::namespace::Namespace;
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::duration::SECOND_NS;
use ringfence_base::{Index, MountId, NsId};
use ringfence_logical::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Key byte of the record with the settings of all quotas.
const SETTINGS: u8 = b'c';
/// Most quotas of a cluster: every core holds them all.
pub const MAX_QUOTAS: usize = 10_000;
/// Paths that no rate limit counts by default: who operates the server must get through. Source: Vault's documented
/// default.
const EXEMPT: &[&str] = &[
    "sys/generate-recovery-token/attempt",
    "sys/generate-recovery-token/update",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/seal-status",
    "sys/unseal",
];

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Requests in an interval.
    Rate,
    /// Leases that exist at a time.
    Leases,
}

impl Kind {
    /// Key byte.
    pub fn byte(self) -> u8 {
        match self {
            Kind::Rate => b'r',
            Kind::Leases => b'l',
        }
    }

    /// As the API names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rate => "rate-limit",
            Kind::Leases => "lease-count",
        }
    }
}

/// Whose requests count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupBy {
    /// Those of one client address.
    #[default]
    Ip,
    /// All of them.
    None,
    /// Those of one entity; of one address where there is no entity.
    EntityThenIp,
    /// Those of one entity; all others together.
    EntityThenNone,
}

impl GroupBy {
    /// From the API's word.
    pub fn parse(text: &str) -> Option<GroupBy> {
        match text {
            "" | "ip" => Some(GroupBy::Ip),
            "none" => Some(GroupBy::None),
            "entity_then_ip" => Some(GroupBy::EntityThenIp),
            "entity_then_none" => Some(GroupBy::EntityThenNone),
            _ => None,
        }
    }

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupBy::Ip => "ip",
            GroupBy::None => "none",
            GroupBy::EntityThenIp => "entity_then_ip",
            GroupBy::EntityThenNone => "entity_then_none",
        }
    }
}

/// Where a quota counts. It names numbers, so it follows a mount that moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Namespace.
    pub ns: NsId,
    /// Mount, if it is about one.
    pub mount: Option<MountId>,
    /// Path within the mount, without its `*`; empty for all of it.
    pub inner: String,
    /// The path goes on.
    pub glob: bool,
    /// Logins to this role only.
    pub role: String,
}

/// One quota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// A UUID: the counters of a quota that is made anew begin anew.
    pub id: String,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// Where.
    pub scope: Scope,
    /// Counts below the namespace too.
    pub inheritable: bool,
    /// Requests in an interval.
    pub rate: f64,
    /// The same for those who have no entity; zero: the same.
    pub secondary_rate: f64,
    /// Seconds.
    pub interval: u64,
    /// Seconds.
    pub block_interval: u64,
    /// Whose requests count together.
    pub group_by: GroupBy,
    /// Leases at a time.
    pub max_leases: u64,
}

impl Rule {
    /// Reads a quota.
    pub fn load(txn: &mut Txn<'_>, kind: Kind, name: &str) -> Result<Option<Rule>, Error> {
        match txn.get(&tables::quota(kind.byte(), name))? {
            None => Ok(None),
            Some(p) => parse(&p.bytes).map(Some),
        }
    }

    /// Writes it.
    pub fn save(&self, txn: &mut Txn<'_>) {
        let bytes = serde_json::to_vec(self).expect("a quota always serialises");
        txn.put(tables::quota(self.kind.byte(), &self.name), &[], &bytes);
    }

    /// Nanoseconds of its interval.
    pub fn interval_ns(&self) -> u64 {
        self.interval.max(1).saturating_mul(SECOND_NS)
    }

    /// Its path as it is now; `None` if what it was about is gone.
    pub fn path(&self, txn: &Txn<'_>, router: &Router) -> Result<Option<String>, Error> {
        let Some(ns) = router.namespace_by_id(self.scope.ns) else { return Ok(None) };
        let Some(mount) = self.scope.mount else { return Ok(Some(ns.path.clone())) };
        let Some(m) = router.by_id(txn, ns.id, mount)? else { return Ok(None) };
        let star = if self.scope.glob { "*" } else { "" };
        Ok(Some(format!("{}{}{}{star}", m.info.ns_path, m.info.path, self.scope.inner)))
    }
}

/// Settings of all quotas: `sys/quotas/config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Paths, relative to any namespace, that no rate limit counts.
    pub exempt: Vec<String>,
    /// Paths from the root namespace on.
    pub absolute_exempt: Vec<String>,
    /// Refusals are audited.
    pub audit: bool,
    /// Answers tell what is left.
    pub headers: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let exempt = EXEMPT.iter().map(|p| (*p).to_owned()).collect();
        Settings { exempt, absolute_exempt: Vec::new(), audit: false, headers: false }
    }
}

impl Settings {
    /// Reads them.
    pub fn load(txn: &mut Txn<'_>) -> Result<Settings, Error> {
        match txn.get(&tables::quota(SETTINGS, ""))? {
            None => Ok(Settings::default()),
            Some(p) => parse(&p.bytes),
        }
    }

    /// Writes them.
    pub fn save(&self, txn: &mut Txn<'_>) {
        let bytes = serde_json::to_vec(self).expect("settings always serialise");
        txn.put(tables::quota(SETTINGS, ""), &[], &bytes);
    }

    fn exempts(&self, ns: &Namespace, path: &str) -> bool {
        let whole = format!("{}{path}", ns.path);
        self.exempt.iter().any(|e| covers(e, path)) || self.absolute_exempt.iter().any(|e| covers(e, &whole))
    }
}

/// A path, or all below it; a `*` at the end stands for anything.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => {
            let bare = pattern.trim_end_matches('/');
            path.strip_prefix(bare).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

/// Every quota of one kind, by where it counts.
#[derive(Debug, Default)]
struct Book {
    global: Option<Arc<Rule>>,
    by_ns: BTreeMap<NsId, Arc<Rule>>,
    by_mount: BTreeMap<MountId, Vec<Arc<Rule>>>,
}

/// All quotas of a view.
#[derive(Debug, Default)]
pub struct Table {
    /// Settings of all.
    pub settings: Settings,
    rate: Book,
    leases: Book,
}

/// What a request is to the quotas.
#[derive(Clone, Copy)]
pub struct Subject<'s> {
    /// Namespace that serves it.
    pub ns: &'s Arc<Namespace>,
    /// Mount that serves it.
    pub routed: Option<&'s Routed>,
    /// Path within the mount.
    pub inner: &'s str,
    /// Role of a login, or empty.
    pub role: &'s str,
}

impl Table {
    fn build(txn: &Txn<'_>) -> Result<Table, Error> {
        let mut table = Table::default();
        for (key, plain) in txn.peek_prefix(&[tables::QUOTA])? {
            if key.get(1) == Some(&SETTINGS) {
                table.settings = parse(&plain.bytes)?;
                continue;
            }
            let rule: Arc<Rule> = Arc::new(parse(&plain.bytes)?);
            let book = match rule.kind {
                Kind::Rate => &mut table.rate,
                Kind::Leases => &mut table.leases,
            };
            match (rule.scope.mount, rule.scope.ns) {
                (Some(mount), _) => book.by_mount.entry(mount).or_default().push(rule),
                (None, NsId::ROOT) => book.global = Some(rule),
                (None, ns) => drop(book.by_ns.insert(ns, rule)),
            }
        }
        Ok(table)
    }

    /// True if nothing is limited.
    pub fn is_empty(&self, kind: Kind) -> bool {
        let book = self.book(kind);
        book.global.is_none() && book.by_ns.is_empty() && book.by_mount.is_empty()
    }

    /// True if a quota of a mount is about one of its roles.
    pub fn knows_roles(&self, kind: Kind, mount: MountId) -> bool {
        self.book(kind).by_mount.get(&mount).is_some_and(|rules| rules.iter().any(|r| !r.scope.role.is_empty()))
    }

    /// The quota that speaks for a request.
    pub fn choose(&self, kind: Kind, router: &Router, s: &Subject<'_>) -> Option<&Arc<Rule>> {
        let book = self.book(kind);
        let of_mount = s.routed.and_then(|m| book.by_mount.get(&m.entry.id)).and_then(|rules| {
            let fits = |r: &&Arc<Rule>| {
                let at = &r.scope;
                let path =
                    if at.glob { s.inner.starts_with(&at.inner) } else { at.inner.is_empty() || s.inner == at.inner };
                path && (at.role.is_empty() || at.role == s.role)
            };
            // role before path, long before short, exact before open
            rules.iter().filter(fits).max_by_key(|r| (!r.scope.role.is_empty(), r.scope.inner.len(), !r.scope.glob))
        });
        of_mount
            .or_else(|| book.by_ns.get(&s.ns.id))
            .or_else(|| {
                if book.by_ns.is_empty() {
                    return None;
                }
                let mut above = router.lineage(s.ns).skip(1);
                above.find_map(|n| book.by_ns.get(&n.id).filter(|r| r.inheritable))
            })
            .or(book.global.as_ref())
    }

    /// True if no rate limit counts a path.
    pub fn exempts(&self, ns: &Namespace, path: &str) -> bool {
        self.settings.exempts(ns, path)
    }

    fn book(&self, kind: Kind) -> &Book {
        match kind {
            Kind::Rate => &self.rate,
            Kind::Leases => &self.leases,
        }
    }
}

/// One core's compiled quotas, valid while their table stands still.
#[derive(Default)]
pub struct Cache {
    at: Index,
    table: Option<Rc<Table>>,
}

impl Cache {
    /// The quotas of this view.
    pub fn table(&mut self, txn: &Txn<'_>) -> Result<Rc<Table>, Error> {
        let at = txn.changed(tables::QUOTA, None);
        if let Some(t) = self.table.as_ref().filter(|_| self.at == at) {
            return Ok(t.clone());
        }
        let table = Rc::new(Table::build(txn)?);
        (self.at, self.table) = (at, Some(table.clone()));
        Ok(table)
    }
}

/// Removes the quotas of a namespace that is gone.
pub fn forget_namespace(txn: &mut Txn<'_>, ns: NsId) -> Result<(), Error> {
    // a mount that moved took its own along, and a mount that goes takes them with it
    forget(txn, |s| s.mount.is_none() && s.ns == ns)
}

/// Removes the quotas of a mount that is gone.
pub fn forget_mount(txn: &mut Txn<'_>, mount: MountId) -> Result<(), Error> {
    forget(txn, |s| s.mount == Some(mount))
}

fn forget(txn: &mut Txn<'_>, about: impl Fn(&Scope) -> bool) -> Result<(), Error> {
    for kind in [Kind::Rate, Kind::Leases] {
        for (key, plain) in txn.scan(&tables::quota(kind.byte(), ""), None, MAX_QUOTAS)? {
            if about(&parse::<Rule>(&plain.bytes)?.scope) {
                txn.delete(&key);
            }
        }
    }
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("stored quota: {e}")))
}
