//! Counting what stands and what waits, by month, namespace and mount, and the shapes that the API shows it in.

use super::{FirstUse, Kind, Month, Row, Waiting, read_key, rows};
use crate::mount::Router;
use crate::tables::Hash;
use ringfence_barrier::{BarrierError, Txn};
use ringfence_base::{MountId, NsId};
use ringfence_logical::Error;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that one report reads at most.
const MAX_ROWS: usize = 500_000;

/// Clients of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    entities: u64,
    tokens: u64,
}

impl Counts {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Entity => self.entities += 1,
            Kind::Token => self.tokens += 1,
        }
    }

    /// As the API shows it, with the names it had before too.
    pub fn json(&self) -> Value {
        json!({
            "acme_clients": 0,
            "clients": self.entities + self.tokens,
            "distinct_entities": self.entities,
            "entity_clients": self.entities,
            "non_entity_clients": self.tokens,
            "non_entity_tokens": self.tokens,
            "secret_syncs": 0,
        })
    }
}

/// Clients by namespace and mount.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All.
    pub total: Counts,
    by_namespace: BTreeMap<NsId, (Counts, BTreeMap<MountId, Counts>)>,
}

impl Tally {
    fn add(&mut self, ns: NsId, mount: MountId, kind: Kind) {
        self.total.add(kind);
        let (all, mounts) = self.by_namespace.entry(ns).or_default();
        all.add(kind);
        mounts.entry(mount).or_default().add(kind);
    }

    /// True if nobody was there.
    pub fn is_empty(&self) -> bool {
        self.total == Counts::default()
    }
}

/// A range of months.
#[derive(Debug, Default)]
pub struct Report {
    /// Each client once, by its first month.
    pub all: Tally,
    /// Everybody of a month, and those of them whom no earlier month of the range had seen.
    pub months: BTreeMap<Month, (Tally, Tally)>,
}

impl Report {
    /// Counts the clients of the months from `from` to `to` whose namespace is asked for.
    ///
    /// # Errors
    /// There are too many rows for one answer.
    pub fn of(
        txn: &Txn<'_>,
        waiting: &Waiting,
        (from, to): (Month, Month),
        asked: impl Fn(NsId) -> bool,
    ) -> Result<Report, Error> {
        let mut seen: BTreeSet<Hash> = BTreeSet::new();
        let mut report = Report::default();
        // the lock is not held while rows are read
        let lately: Vec<_> = waiting
            .lock()
            .range((from, Hash::default())..(to.next(), Hash::default()))
            .map(|(at, first)| (*at, (first.ns, first.mount, first.kind)))
            .collect();
        let mut waits = lately.into_iter().peekable();
        let mut last = None;
        let mut stood = rows(txn, from, to).filter_map(|(key, _)| read_key(key)).peekable();
        // two sorted streams into one: what waits and stands counts as what stands
        for n in 0.. {
            if n >= MAX_ROWS {
                return Err(Error::invalid(format!(
                    "more than {MAX_ROWS} clients were active in these months; ask for fewer months"
                )));
            }
            let place = |row: &(Month, Hash, NsId, MountId, Kind)| (row.0, row.1);
            let (a, b) = (stood.peek().map(place), waits.peek().map(|(at, _)| *at));
            let ((month, client), (ns, mount, kind)) = match (a, b) {
                (None, None) => break,
                (Some(a), b) if b.is_none_or(|b| a <= b) => {
                    if b == Some(a) {
                        waits.next();
                    }
                    let Some(row) = stood.next() else { break };
                    (a, (row.2, row.3, row.4))
                }
                _ => {
                    let Some(first) = waits.next() else { break };
                    first
                }
            };
            // two nodes may each have written a first use: of a client that changed its method with the active node
            if last.replace((month, client)) == Some((month, client)) || !asked(ns) {
                continue;
            }
            let (everybody, new) = report.months.entry(month).or_default();
            everybody.add(ns, mount, kind);
            if seen.insert(client) {
                new.add(ns, mount, kind);
                report.all.add(ns, mount, kind);
            }
        }
        Ok(report)
    }
}

/// `by_namespace`: those with most clients first, at most `limit` of them.
///
/// # Errors
/// A mount's record cannot be read.
pub fn namespaces_json(txn: &Txn<'_>, router: &Router, tally: &Tally, limit: usize) -> Result<Value, Error> {
    let clients = |c: &Counts| c.entities + c.tokens;
    let mut all: Vec<_> = tally.by_namespace.iter().collect();
    all.sort_by_key(|(id, (counts, _))| (std::cmp::Reverse(clients(counts)), **id));
    all.truncate(limit);
    let rows = all.into_iter().map(|(id, (counts, mounts))| {
        let ns = router.namespace_by_id(*id);
        let mut mounts: Vec<_> = mounts.iter().collect();
        mounts.sort_by_key(|(id, counts)| (std::cmp::Reverse(clients(counts)), **id));
        let mounts: Vec<Value> = mounts
            .into_iter()
            .map(|(mount, counts)| {
                Ok(json!({ "mount_path": mount_path(txn, router, *id, *mount)?, "counts": counts.json() }))
            })
            .collect::<Result<_, Error>>()?;
        Ok(json!({
            "namespace_id": ns.map_or_else(|| "deleted".to_owned(), |n| n.external_id.clone()),
            "namespace_path": ns.map_or_else(|| "deleted namespace".to_owned(), |n| n.path.clone()),
            "counts": counts.json(),
            "mounts": mounts,
        }))
    });
    rows.collect()
}

fn mount_path(txn: &Txn<'_>, router: &Router, ns: NsId, id: MountId) -> Result<String, Error> {
    Ok(router.by_id(txn, ns, id)?.map_or_else(|| "deleted mount".to_owned(), |m| m.entry.full_path()))
}

/// One month of `months`; one without clients is told by nulls.
///
/// # Errors
/// A mount's record cannot be read.
pub fn month_json(
    txn: &Txn<'_>,
    router: &Router,
    month: Month,
    told: Option<&(Tally, Tally)>,
) -> Result<Value, Error> {
    let timestamp = month.begin().rfc3339();
    Ok(match told {
        None => json!({ "timestamp": timestamp, "counts": null, "namespaces": null, "new_clients": null }),
        Some((everybody, new)) => json!({
            "timestamp": timestamp,
            "counts": everybody.total.json(),
            "namespaces": namespaces_json(txn, router, everybody, usize::MAX)?,
            "new_clients": {
                "counts": new.total.json(),
                "namespaces": namespaces_json(txn, router, new, usize::MAX)?,
            },
        }),
    })
}

/// One client of an export.
pub struct Line {
    /// Its first use in the range.
    pub first: FirstUse,
}

impl Line {
    /// Every client of the months once, by its first month.
    ///
    /// # Errors
    /// More than `limit` clients, or a row cannot be opened.
    pub fn all(
        txn: &Txn<'_>,
        waiting: &Waiting,
        (from, to): (Month, Month),
        limit: usize,
    ) -> Result<Vec<Line>, Error> {
        let mut seen: BTreeMap<Hash, FirstUse> = BTreeMap::new();
        let keyring = txn.keyring().ok_or(BarrierError::Sealed)?;
        let mut add = |client: Hash, first: FirstUse| {
            let known = seen.entry(client).or_insert_with(|| first.clone());
            if first.at < known.at {
                *known = first;
            }
            match seen.len() > limit {
                true => Err(Error::invalid(format!("more than {limit} clients; ask for fewer months"))),
                false => Ok(()),
            }
        };
        for (key, record) in rows(txn, from, to) {
            let Some((_, client, ns, mount, kind)) = read_key(key) else { continue };
            let plain = keyring.open(txn.view(), key, record).map_err(BarrierError::from)?;
            let row: Row = serde_json::from_slice(&plain.bytes)
                .map_err(|e| Error::internal(format!("stored row of an active client: {e}")))?;
            add(client, FirstUse { ns, mount, kind, at: row.at, client_id: row.id })?;
        }
        for ((month, client), first) in waiting.lock().iter() {
            if (from..=to).contains(month) {
                add(*client, first.clone())?;
            }
        }
        let mut lines: Vec<Line> = seen.into_values().map(|first| Line { first }).collect();
        lines.sort_by(|a, b| (a.first.at, &a.first.client_id).cmp(&(b.first.at, &b.first.client_id)));
        Ok(lines)
    }

    /// Names and values, in the order of the columns.
    ///
    /// # Errors
    /// A mount's record cannot be read.
    pub fn fields(&self, txn: &Txn<'_>, router: &Router) -> Result<Vec<(&'static str, Value)>, Error> {
        let ns = router.namespace_by_id(self.first.ns);
        let mount = router.by_id(txn, self.first.ns, self.first.mount)?;
        Ok(vec![
            ("client_id", self.first.client_id.clone().into()),
            ("client_type", if self.first.kind == Kind::Entity { "entity" } else { "non-entity-token" }.into()),
            ("namespace_id", ns.map_or("", |n| n.external_id.as_str()).into()),
            ("namespace_path", ns.map_or("", |n| n.path.as_str()).into()),
            ("mount_accessor", mount.map_or("", |m| m.entry.accessor.as_str()).into()),
            ("mount_path", mount.map_or_else(String::new, |m| m.entry.full_path()).into()),
            ("mount_type", mount.map_or("", |m| m.entry.kind.as_str()).into()),
            ("timestamp", self.first.at.seconds().into()),
        ])
    }
}
