//! Quotas: how many requests in a time, and how many leases at a time, a namespace, a mount, a path or a role may
//! have. The pipeline asks before it looks at a token, and again before a lease is registered; `sys/quotas` keeps the
//! rules.
//!
//! ```text
//! rule       what a quota says and which one speaks    counter   requests counted, shared by all cores
//! ```
//!
//! Leases are not counted, they are looked up: the order of the image tells how many stand below a mount, a path or a
//! namespace in logarithmic time, and tells the same after a crash. Near its limit a quota is exact: the transaction
//! then rests on the range it counted, so of two that would both be the last one only one commits.
//!
//! Never stores a count; never refuses what ends leases.

pub mod counter;
pub mod rule;

use crate::call::Call;
use crate::lease::index::clear_header;
use crate::mount::{MountEntry, Routed, Router};
use crate::namespace::Namespace;
use crate::pipeline::Pass;
use crate::tables;
use crate::token::check;
use crate::token::entry::Header;
pub use counter::Counters;
use counter::{Limit, Metered};
use ringfence_barrier::{HashKind, Txn};
use ringfence_base::duration::SECOND_NS;
use ringfence_base::{Code, MountId, NsId};
use ringfence_logical::{Class, Error};
pub use rule::{Cache, GroupBy, Kind, Rule, Settings, Subject, Table, forget_mount, forget_namespace};

/// Kind of the keyed hash that stands for a group of a quota.
const GROUP_HASH: HashKind = HashKind(73);
/// So close to its limit a lease-count quota takes what it counted into the read set. More transactions than this are
/// never between their reading and their commit at once.
const EXACT_WITHIN: u64 = 4096;

/// What a rate limit says to a request.
pub struct Said {
    /// Within the limit.
    pub allowed: bool,
    /// Headers of the answer.
    pub headers: Vec<(&'static str, String)>,
    /// A refusal is audited.
    pub audit: bool,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Count it.
    Count,
    /// It was counted in an earlier run: say what is left.
    Again,
    /// Say whether it would be within the limit.
    Would,
}

/// Counts a request against the rate limit that speaks for it; `None` if none does.
pub fn meter(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    router: &Router,
    call: &Call,
    path: &str,
    subject: &Subject<'_>,
    ask: Ask,
) -> Result<Option<Said>, Error> {
    let table = pass.core.caches.borrow_mut().quotas.table(txn)?;
    if table.is_empty(Kind::Rate) || table.exempts(subject.ns, path) {
        return Ok(None);
    }
    let Some(rule) = table.choose(Kind::Rate, router, subject) else { return Ok(None) };
    let (rate, group) = group_of(pass, txn, router, call, rule);
    let limit = Limit {
        requests: (rate.round() as u64).max(1),
        interval_ns: rule.interval_ns(),
        block_ns: rule.block_interval.saturating_mul(SECOND_NS),
    };
    let number = |text: String| {
        let hash = pass.keyring.index_hash(GROUP_HASH, text.as_bytes());
        u64::from_be_bytes(hash[..8].try_into().expect("a hash has sixteen bytes"))
    };
    let quota = number(rule.id.clone());
    let key = number(format!("{}/{group}", rule.id));
    let counters = &pass.core.vault.rates;
    let metered = match ask {
        Ask::Count => counters.take(key, quota, &limit, pass.now),
        Ask::Again => Metered { allowed: true, ..counters.peek(key, quota, &limit, pass.now) },
        Ask::Would => counters.peek(key, quota, &limit, pass.now),
    };
    let headers = headers(&metered, &limit, table.settings.headers);
    Ok(Some(Said { allowed: metered.allowed, headers, audit: table.settings.audit }))
}

fn headers(m: &Metered, limit: &Limit, wanted: bool) -> Vec<(&'static str, String)> {
    let seconds = m.wait_ns.div_ceil(SECOND_NS).to_string();
    let mut headers = Vec::new();
    if wanted {
        headers.push(("x-ratelimit-limit", limit.requests.to_string()));
        headers.push(("x-ratelimit-remaining", m.remaining.to_string()));
        headers.push(("x-ratelimit-reset", seconds.clone()));
    }
    if !m.allowed {
        headers.push(("retry-after", seconds));
    }
    headers
}

/// The rate for the group that a request belongs to, and the group's name.
fn group_of(pass: &Pass<'_>, txn: &mut Txn<'_>, router: &Router, call: &Call, rule: &Rule) -> (f64, String) {
    let ip = || call.remote.map_or_else(String::new, |ip| format!("ip {ip}"));
    let mut entity = || {
        let raw = call.token.as_ref()?;
        let holder = check::authenticate(txn, pass.keyring, router, raw.expose(), pass.now, call.remote).ok()?;
        let id = holder.entry.entity_id;
        (!id.is_empty()).then(|| format!("entity {id}"))
    };
    let second = if rule.secondary_rate > 0.0 { rule.secondary_rate } else { rule.rate };
    match rule.group_by {
        GroupBy::Ip => (rule.rate, ip()),
        GroupBy::None => (rule.rate, String::new()),
        GroupBy::EntityThenIp => entity().map_or_else(|| (second, ip()), |e| (rule.rate, e)),
        GroupBy::EntityThenNone => entity().map_or((second, String::new()), |e| (rule.rate, e)),
    }
}

/// The refusal of a rate limit.
pub fn too_many(path: &str) -> Error {
    Error::new(Code::Quota, format!("request path {path:?}: rate limit quota exceeded"))
}

/// Refuses one more lease, or service token, where the quota that speaks for it is used up. Called with the lease's
/// rows in the transaction already; an error throws them away.
pub fn admit_lease(
    pass: &Pass<'_>,
    txn: &mut Txn<'_>,
    router: &Router,
    path: &str,
    subject: &Subject<'_>,
) -> Result<(), Error> {
    let table = pass.core.caches.borrow_mut().quotas.table(txn)?;
    if table.is_empty(Kind::Leases) {
        return Ok(());
    }
    let Some(rule) = table.choose(Kind::Leases, router, subject) else { return Ok(()) };
    let counted = count(txn, router, rule)?;
    if counted.leases.saturating_add(EXACT_WITHIN) >= rule.max_leases {
        counted.ranges.iter().for_each(|range| txn.guard_prefix(range));
    }
    match counted.leases >= rule.max_leases {
        false => Ok(()),
        true => Err(Error::new(
            Code::Quota,
            format!("1 error occurred:\n\t* request path {path:?}: lease count quota exceeded\n\n"),
        )),
    }
}

/// Leases that a quota counts, in a view.
pub struct Counted {
    /// How many.
    pub leases: u64,
    /// What was counted, as key prefixes.
    ranges: Vec<Vec<u8>>,
}

/// How many leases and service tokens stand where a quota counts, as the view of the transaction has it.
pub fn count(txn: &Txn<'_>, router: &Router, rule: &Rule) -> Result<Counted, Error> {
    let at = &rule.scope;
    let mut ranges = Vec::new();
    let mount = match at.mount {
        Some(id) => router.by_id(txn, at.ns, id)?,
        None => None,
    };
    match (mount, at.ns) {
        (Some(m), _) if m.entry.class == Class::Auth => {
            // a token's key does not tell its mount, its clear header does
            ranges.push(accessors(m.entry.ns));
            return Ok(Counted { leases: tokens_of(txn, m), ranges });
        }
        (Some(m), _) => ranges.push(tables::lease(m.entry.id, &at.inner)),
        (None, NsId::ROOT) => ranges.extend([vec![tables::LEASE], vec![tables::TOKEN]]),
        (None, ns) => {
            let below = router.namespace_by_id(ns).filter(|_| rule.inheritable);
            let deeper = below.into_iter().flat_map(|n| router.below(&n.path, "")).map(|n| n.id);
            for ns in std::iter::once(ns).chain(deeper) {
                ranges.push(accessors(ns));
                // numbers of its mounts are enough, auth methods' have no leases under them
                ranges.extend(MountEntry::peek_numbers(txn, ns)?.into_iter().map(|id| tables::lease(id, "")));
            }
        }
    }
    Ok(Counted { leases: ranges.iter().map(|r| txn.view().count_prefix(r)).sum(), ranges })
}

fn accessors(ns: NsId) -> Vec<u8> {
    [&[tables::ACCESSOR][..], &ns.0.to_be_bytes()].concat()
}

/// Service tokens that an auth method gave: a walk over the clear headers of the namespace's tokens.
fn tokens_of(txn: &Txn<'_>, m: &Routed) -> u64 {
    let view = txn.view();
    let mount: MountId = m.entry.id;
    let end = ringfence_barrier::prefix_end(&[tables::TOKEN]);
    let rows = view.scan(
        std::ops::Bound::Included(&[tables::TOKEN]),
        end.as_deref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
    );
    let is_of =
        |record: &[u8]| clear_header(record).and_then(|h| Header::decode(h).ok()).is_some_and(|h| h.mount == mount);
    rows.filter(|(_, record)| is_of(record)).count() as u64
}

/// The namespace of a quota's path, its mount and the path within it.
///
/// # Errors
/// `invalid mount path` where no mount serves it.
pub fn scope_of(
    txn: &Txn<'_>,
    router: &Router,
    root: &std::sync::Arc<Namespace>,
    path: &str,
) -> Result<rule::Scope, Error> {
    let trimmed = path.trim_start_matches('/');
    let (bare, glob) = match trimmed.strip_suffix('*') {
        Some(bare) => (bare, true),
        None => (trimmed, false),
    };
    let with_slash =
        if bare.is_empty() || bare.ends_with('/') || glob { bare.to_owned() } else { format!("{bare}/") };
    let (ns, rest) = router.descend(root, &with_slash);
    let scope = rule::Scope { ns: ns.id, ..rule::Scope::default() };
    if rest.is_empty() {
        return Ok(scope);
    }
    let invalid = || Error::invalid(format!("invalid mount path {trimmed:?}"));
    let (m, inner) = router.route(txn, ns.id, rest)?.ok_or_else(invalid)?;
    // the slash was only lent to find a mount that was named without it
    let inner = if glob || trimmed.ends_with('/') { inner } else { inner.trim_end_matches('/') };
    let glob = glob && !inner.is_empty();
    Ok(rule::Scope { mount: Some(m.entry.id), inner: inner.to_owned(), glob, ..scope })
}
