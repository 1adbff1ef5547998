//! Metrics: counted on each core without locks, summed when somebody reads.
//!
//! ```text
//!   core 0: CoreMetrics ─┐  plain load + store on cells that this core alone writes
//!   core 1: CoreMetrics ─┼─> Metrics ─ totals() ─┬─ prometheus()  totals, quantiles of the last ten minutes
//!   ...                 ─┘      ^                └─ json()        the last completed interval of ten seconds
//!                               └ set(Gauge), sources of labelled gauges, /proc
//! ```
//! Whoever drives the server calls [`Metrics::tick`] every [`INTERVAL`]. Names follow Vault's, so that its dashboards
//! work; what Vault measures and this server does not have (its garbage collector) is left out rather than invented.
//! Values of labels come from configuration (mounts, devices, namespaces), never from an unauthenticated request, and
//! their number is bounded.

mod histogram;
mod names;
mod page;
mod process;
mod table;
#[cfg(test)]
mod tests;
mod totals;

pub use names::{Counter, Gauge, Sample};
pub use page::PROMETHEUS_CONTENT_TYPE;

use crate::config::Telemetry;
use histogram::{Histogram, bump};
use ringfence_base::Now;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use table::Table;
use totals::{History, Totals};

/// How often [`Metrics::tick`] wants to be called.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Most durations with names of their own (routes, devices), and most labelled counters. Further ones are not kept;
/// how often that happened is counted.
const SERIES: usize = 1024;
/// HTTP status numbers from 100 on.
const STATUSES: usize = 500;
/// Separates a counter's name and labels in its key; none of them can hold it.
const SEPARATOR: &str = "\u{1f}";
/// A gauge that nobody has set.
const UNSET: u64 = u64::MAX;

/// The metrics of the process. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    cores: Vec<Core>,
    gauges: [AtomicU64; Gauge::ALL.len()],
    known: Mutex<Known>,
    history: Mutex<History>,
    sources: Mutex<Vec<Source>>,
    naming: Mutex<Naming>,
}

type Source = Box<dyn Fn(&mut Vec<GaugeValue>) + Send>;

/// A gauge with labels, as a source tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugeValue {
    /// Its name, dotted, without the prefix.
    pub name: String,
    /// Label and value.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// How names are written.
#[derive(Clone, Debug)]
pub struct Naming {
    /// What every name begins with: `vault`.
    pub prefix: String,
    /// The host's name and where it goes.
    pub host: Host,
    /// The cluster's name, once it is known.
    pub cluster: String,
    /// `+prefix` keeps, `-prefix` drops; the longest that fits decides.
    pub filters: Vec<String>,
    /// Whether names that no filter fits are kept.
    pub keep_others: bool,
}

/// Where the host's name goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nowhere.
    Hidden,
    /// Into the names of gauges, after the prefix.
    InGauges(String),
    /// Into a label of everything.
    Label(String),
}

impl Default for Naming {
    fn default() -> Self {
        let (prefix, cluster) = ("vault".to_owned(), String::new());
        Naming { prefix, host: Host::Hidden, cluster, filters: Vec::new(), keep_others: true }
    }
}

impl Naming {
    /// As the `telemetry` stanza wants it.
    pub fn of(config: &Telemetry) -> Naming {
        let host = process::hostname();
        Naming {
            prefix: config.metrics_prefix.clone(),
            host: match (config.enable_hostname_label, config.disable_hostname) {
                (true, _) => Host::Label(host),
                (false, true) => Host::Hidden,
                (false, false) => Host::InGauges(host),
            },
            cluster: String::new(),
            filters: config.prefix_filter.clone(),
            keep_others: config.filter_default,
        }
    }
}

/// The cells of one core, on cache lines of their own.
#[repr(align(128))]
struct Core {
    taken: AtomicBool,
    in_flight: AtomicU64,
    counters: [AtomicU64; Counter::ALL.len()],
    statuses: Box<[AtomicU64; STATUSES]>,
    samples: Box<[Histogram]>,
    named: Box<[OnceLock<Box<Histogram>>]>,
    labelled: Box<[AtomicU64]>,
}

/// What stands behind the numbers of series: the same on every core.
#[derive(Default)]
struct Known {
    named: Vec<String>,
    labelled: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // plain data, whole at every moment
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Metrics of so many cores, named as Vault names them.
    pub fn new(cores: usize) -> Metrics {
        let shared = Shared {
            cores: (0..cores).map(|_| Core::new()).collect(),
            gauges: [const { AtomicU64::new(UNSET) }; Gauge::ALL.len()],
            known: Mutex::default(),
            history: Mutex::default(),
            sources: Mutex::default(),
            naming: Mutex::default(),
        };
        Metrics { shared: Arc::new(shared) }
    }

    /// Names them otherwise.
    pub fn set_naming(&self, naming: Naming) {
        *lock(&self.shared.naming) = naming;
    }

    /// The cluster's name, for the label of that name.
    pub fn set_cluster(&self, name: &str) {
        name.clone_into(&mut lock(&self.shared.naming).cluster);
    }

    /// The writing side of a core. One at a time: the core's cells have one writer.
    ///
    /// # Panics
    /// There is no such core, or its writing side is held already.
    pub fn core(&self, core: usize) -> CoreMetrics {
        let was_taken = self.shared.cores[core].taken.swap(true, Ordering::AcqRel);
        assert!(!was_taken, "a core's metrics are written by one holder");
        let held = Held { shared: Arc::clone(&self.shared), core, here: PhantomData };
        CoreMetrics { held: Rc::new(held), numbers: Rc::default() }
    }

    /// Sets a gauge, from any thread.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.shared.gauges[gauge as usize].store(value.min(UNSET - 1), Ordering::Relaxed);
    }

    /// Adds a source of gauges that is asked whenever somebody reads.
    pub fn add_source(&self, source: impl Fn(&mut Vec<GaugeValue>) + Send + 'static) {
        lock(&self.shared.sources).push(Box::new(source));
    }

    /// Ends an interval. Call it every [`INTERVAL`].
    pub fn tick(&self, now: Now) {
        let totals = self.totals();
        lock(&self.shared.history).tick(now, totals);
    }

    /// The page that Prometheus reads (text exposition format 0.0.4).
    pub fn prometheus(&self, now: Now) -> String {
        let totals = self.totals();
        let recent = lock(&self.shared.history).recent(now.mono, &totals);
        let naming = lock(&self.shared.naming).clone();
        page::prometheus(&naming, &totals, &recent, &self.gauges())
    }

    /// The last completed interval, as `sys/metrics` shows it without a format.
    pub fn json(&self, now: Now) -> serde_json::Value {
        let totals = self.totals();
        let interval = lock(&self.shared.history).last_interval(now, totals);
        let naming = lock(&self.shared.naming).clone();
        page::json(&naming, &interval, &self.gauges())
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        {
            let known = lock(&self.shared.known);
            totals.named = known.named.iter().map(|name| (name.clone(), Default::default())).collect();
            totals.labelled = known.labelled.iter().map(|key| (key.clone(), 0)).collect();
        }
        for core in &self.shared.cores {
            core.add_to(&mut totals);
        }
        totals
    }

    fn gauges(&self) -> Vec<GaugeValue> {
        let cluster = lock(&self.shared.naming).cluster.clone();
        let labels = |of_cluster: bool| if of_cluster { vec![("cluster", cluster.clone())] } else { Vec::new() };
        let mut all: Vec<GaugeValue> = Gauge::ALL
            .iter()
            .map(|gauge| (gauge, self.shared.gauges[*gauge as usize].load(Ordering::Relaxed)))
            .filter(|(_, value)| *value != UNSET)
            .map(|(gauge, value)| GaugeValue {
                name: gauge.name().to_owned(),
                labels: labels(gauge.is_of_cluster()),
                value: value as f64,
            })
            .collect();
        let in_flight = self.shared.cores.iter().map(|core| core.in_flight.load(Ordering::Relaxed));
        let in_flight = in_flight.fold(0, u64::wrapping_add);
        let value = in_flight as f64;
        all.push(GaugeValue { name: "core.in_flight_requests".to_owned(), labels: Vec::new(), value });
        all.extend(process::gauges());
        lock(&self.shared.sources).iter().for_each(|source| source(&mut all));
        all
    }
}

impl Core {
    fn new() -> Core {
        Core {
            taken: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            statuses: Box::new([const { AtomicU64::new(0) }; STATUSES]),
            samples: Sample::ALL.iter().map(|_| Histogram::new()).collect(),
            named: (0..SERIES).map(|_| OnceLock::new()).collect(),
            labelled: (0..SERIES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn add_to(&self, totals: &mut Totals) {
        fn add(totals: &mut [u64], cells: &[AtomicU64]) {
            totals.iter_mut().zip(cells).for_each(|(total, cell)| *total += cell.load(Ordering::Relaxed));
        }
        totals.counters.resize(Counter::ALL.len(), 0);
        totals.statuses.resize(STATUSES, 0);
        totals.samples.resize(Sample::ALL.len(), Default::default());
        add(&mut totals.counters, &self.counters);
        add(&mut totals.statuses, &self.statuses[..]);
        totals.samples.iter_mut().zip(&self.samples).for_each(|(total, histogram)| histogram.add_to(total));
        for ((_, total), histogram) in totals.named.iter_mut().zip(&self.named) {
            if let Some(histogram) = histogram.get() {
                histogram.add_to(total);
            }
        }
        for ((_, total), cell) in totals.labelled.iter_mut().zip(&self.labelled) {
            *total += cell.load(Ordering::Relaxed);
        }
    }
}

/// This core's memory of which series has which number.
#[derive(Default)]
struct Numbers {
    named: Table,
    labelled: Table,
}

/// The writing side of one core; clones write to the same cells and stay on the core. No call waits or, in the long
/// run, allocates.
#[derive(Clone)]
pub struct CoreMetrics {
    held: Rc<Held>,
    numbers: Rc<Numbers>,
}

struct Held {
    shared: Arc<Shared>,
    core: usize,
    here: PhantomData<Rc<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.cores[self.core].taken.store(false, Ordering::Release);
    }
}

/// A token that was made, for its labels.
#[derive(Clone, Copy, Debug)]
pub struct TokenCreation<'a> {
    /// The auth method's type; `token` for the token store.
    pub auth_method: &'a str,
    /// Where that method is mounted.
    pub mount_point: &'a str,
    /// The namespace's path.
    pub namespace: &'a str,
    /// `service` or `batch`.
    pub token_type: &'a str,
    /// Its lifetime; zero for ever.
    pub ttl_seconds: u64,
}

impl CoreMetrics {
    /// A duration, nanoseconds.
    pub fn observe(&self, sample: Sample, ns: u64) {
        self.core().samples[sample as usize].observe(ns);
    }

    /// Counts.
    pub fn add(&self, counter: Counter, n: u64) {
        bump(&self.core().counters[counter as usize], n);
    }

    /// A request has begun.
    pub fn enter(&self) {
        bump(&self.core().in_flight, 1);
    }

    /// A request has ended.
    pub fn leave(&self) {
        bump(&self.core().in_flight, u64::MAX);
    }

    /// A response with this HTTP status.
    pub fn status(&self, code: u16) {
        if let Some(cell) = usize::from(code).checked_sub(100).and_then(|at| self.core().statuses.get(at)) {
            bump(cell, 1);
        }
    }

    /// How long a mount (`secret/`) took for an operation (`read`).
    pub fn route(&self, operation: &str, mount: &str, ns: u64) {
        self.observe_named(&["route.", operation, ".", mount], ns);
    }

    /// How long an audit device (`file/`) took for lines of this kind.
    pub fn audit_device(&self, path: &str, kind: AuditKind, ns: u64) {
        let last = match kind {
            AuditKind::Request => ".log_request",
            AuditKind::Response => ".log_response",
        };
        self.observe_named(&["audit.", path, last], ns);
    }

    /// A token was made.
    pub fn token_created(&self, token: TokenCreation<'_>) {
        let labels = [
            ("auth_method", token.auth_method),
            ("creation_ttl", names::ttl_bucket(token.ttl_seconds)),
            ("mount_point", token.mount_point),
            ("namespace", if token.namespace.is_empty() { "root" } else { token.namespace }),
            ("token_type", token.token_type),
        ];
        self.add_labelled("token.creation", &labels, 1);
    }

    /// Counts under labels. Their values must come from configuration, not from clients' choice.
    pub fn add_labelled(&self, name: &'static str, labels: &[(&'static str, &str)], n: u64) {
        let parts = labels.iter().flat_map(|(label, value)| [SEPARATOR, label, SEPARATOR, value]);
        let number = self.numbers.labelled.number(std::iter::once(name).chain(parts), |key| {
            number(&mut lock(&self.held.shared.known).labelled, key)
        });
        match number {
            Some(number) => bump(&self.core().labelled[number], n),
            None => self.add(Counter::SeriesDropped, 1),
        }
    }

    fn observe_named(&self, parts: &[&str], ns: u64) {
        let number = self
            .numbers
            .named
            .number(parts.iter().copied(), |key| number(&mut lock(&self.held.shared.known).named, key));
        match number {
            Some(number) => self.core().named[number].get_or_init(|| Box::new(Histogram::new())).observe(ns),
            None => self.add(Counter::SeriesDropped, 1),
        }
    }

    fn core(&self) -> &Core {
        &self.held.shared.cores[self.held.core]
    }
}

/// Which lines of audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditKind {
    /// Request lines.
    Request,
    /// Response lines.
    Response,
}

/// The number of a key among all cores', a new one if there is one left.
fn number(known: &mut Vec<String>, key: &str) -> Option<usize> {
    let found = known.iter().position(|known| known == key);
    found.or_else(|| {
        (known.len() < SERIES).then(|| {
            known.push(key.to_owned());
            known.len() - 1
        })
    })
}
