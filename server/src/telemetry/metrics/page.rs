//! The two pages that show metrics.

use super::histogram::Distribution;
use super::names::{Counter, Sample};
use super::totals::{Interval, Totals};
use super::{GaugeValue, Host, Naming, SEPARATOR};
use ringfence_base::Wall;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What [`Metrics::prometheus`](super::Metrics::prometheus) is.
pub const PROMETHEUS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const NS_PER_MS: f64 = 1e6;

type Labels = Vec<(String, String)>;

/// A named number or distribution, its name dotted and without prefix.
struct Row<T> {
    name: String,
    labels: Labels,
    value: T,
}

/// All distributions.
fn samples(totals: &Totals) -> impl Iterator<Item = Row<&Distribution>> {
    let fixed = Sample::ALL.iter().zip(&totals.samples).map(|(sample, value)| (sample.name().to_owned(), value));
    // the name of a mount or a device within a metric's name: slashes become dashes, as in Vault
    let named = totals.named.iter().map(|(name, value)| (name.replace('/', "-"), value));
    fixed.chain(named).map(|(name, value)| Row { name, labels: Vec::new(), value })
}

/// All counters.
fn counters(totals: &Totals) -> impl Iterator<Item = Row<u64>> {
    let fixed = Counter::ALL.iter().zip(&totals.counters);
    let fixed = fixed.map(|(counter, n)| Row { name: counter.name().to_owned(), labels: Vec::new(), value: *n });
    let statuses = totals.statuses.iter().enumerate().filter(|(_, n)| **n > 0).map(|(at, n)| {
        let code = at + 100;
        let labels = vec![("code".to_owned(), code.to_string()), ("type".to_owned(), format!("{}xx", code / 100))];
        Row { name: "core.response_status_code".to_owned(), labels, value: *n }
    });
    let labelled = totals.labelled.iter().map(|(key, n)| {
        let mut parts = key.split(SEPARATOR).map(str::to_owned);
        let name = parts.next().unwrap_or_default();
        let mut labels = Vec::new();
        while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
            labels.push((label, value));
        }
        Row { name, labels, value: *n }
    });
    fixed.chain(statuses).chain(labelled)
}

impl Naming {
    /// The dotted name with its prefix, unless a filter drops it.
    fn full(&self, name: &str) -> Option<String> {
        // names of the process itself are the same for every program
        let full = match name.starts_with("process_") {
            true => name.to_owned(),
            false => format!("{}.{name}", self.prefix),
        };
        let fits = |filter: &&String| full.starts_with(&filter[1..]);
        let longest =
            self.filters.iter().filter(|filter| filter.is_char_boundary(1)).filter(fits).max_by_key(|f| f.len());
        let keep = longest.map_or(self.keep_others, |filter| filter.starts_with('+'));
        keep.then_some(full)
    }

    /// As [`Naming::full`], of a gauge.
    fn full_gauge(&self, name: &str) -> Option<String> {
        let full = self.full(name)?;
        match &self.host {
            Host::InGauges(host) if full != name => Some(format!("{}.{host}.{name}", self.prefix)),
            _ => Some(full),
        }
    }

    fn with_host(&self, mut labels: Labels) -> Labels {
        if let Host::Label(host) = &self.host {
            labels.push(("host".to_owned(), host.clone()));
        }
        labels
    }
}

fn owned_labels(gauge: &GaugeValue) -> Labels {
    gauge.labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone())).collect()
}

/// Metrics of one name on Prometheus's page.
enum Family {
    Gauge(BTreeMap<Labels, f64>),
    Counter(BTreeMap<Labels, u64>),
    /// Since the start, and lately.
    Summary(BTreeMap<Labels, (Distribution, Distribution)>),
}

/// The page in Prometheus's text format, families in order of their names. Names that differ only in characters that
/// Prometheus does not know become one.
pub(super) fn prometheus(naming: &Naming, totals: &Totals, recent: &Totals, gauges: &[GaugeValue]) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for gauge in gauges {
        let Some(name) = naming.full_gauge(&gauge.name) else { continue };
        let family = families.entry(flat(&name)).or_insert_with(|| Family::Gauge(BTreeMap::new()));
        if let Family::Gauge(rows) = family {
            rows.insert(naming.with_host(owned_labels(gauge)), gauge.value);
        }
    }
    for row in counters(totals) {
        let Some(name) = naming.full(&row.name) else { continue };
        let family = families.entry(flat(&name)).or_insert_with(|| Family::Counter(BTreeMap::new()));
        if let Family::Counter(rows) = family {
            *rows.entry(naming.with_host(row.labels)).or_default() += row.value;
        }
    }
    for (row, lately) in samples(totals).zip(samples(recent)) {
        if row.value.count() == 0 {
            continue;
        }
        let Some(name) = naming.full(&row.name) else { continue };
        let family = families.entry(flat(&name)).or_insert_with(|| Family::Summary(BTreeMap::new()));
        if let Family::Summary(rows) = family {
            let (whole, recent) = rows.entry(naming.with_host(row.labels)).or_default();
            whole.merge(row.value);
            recent.merge(lately.value);
        }
    }
    let mut page = String::with_capacity(16 * 1024);
    for (name, family) in &families {
        family.write(name, &mut page);
    }
    page
}

impl Family {
    /// Writing to a String never fails, so results are let go.
    fn write(&self, name: &str, page: &mut String) {
        let kind = match self {
            Family::Gauge(_) => "gauge",
            Family::Counter(_) => "counter",
            Family::Summary(_) => "summary",
        };
        let _ = write!(page, "# HELP {name} {name}\n# TYPE {name} {kind}\n");
        match self {
            Family::Gauge(rows) => rows.iter().for_each(|(labels, value)| {
                let _ = writeln!(page, "{name}{} {value}", braced(labels, None));
            }),
            Family::Counter(rows) => rows.iter().for_each(|(labels, value)| {
                let _ = writeln!(page, "{name}{} {value}", braced(labels, None));
            }),
            Family::Summary(rows) => rows.iter().for_each(|(labels, (whole, recent))| {
                for share in QUANTILES {
                    let ms = recent.quantile(share).map_or(f64::NAN, |ns| ns / NS_PER_MS);
                    let _ = writeln!(page, "{name}{} {ms}", braced(labels, Some(share)));
                }
                let (braced, sum) = (braced(labels, None), whole.sum_ns as f64 / NS_PER_MS);
                let _ = writeln!(page, "{name}_sum{braced} {sum}\n{name}_count{braced} {}", whole.count());
            }),
        }
    }
}

/// A dotted name as Prometheus wants it.
fn flat(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    let flat: String = name.chars().map(legal).collect();
    if flat.starts_with(|c: char| c.is_ascii_digit()) { format!("_{flat}") } else { flat }
}

fn braced(labels: &Labels, quantile: Option<f64>) -> String {
    let quantile = quantile.map(|share| ("quantile".to_owned(), share.to_string()));
    let all: Vec<String> = labels
        .iter()
        .chain(&quantile)
        .map(|(label, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{}=\"{value}\"", flat(label))
        })
        .collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

/// The page of an interval in the form of Vault's in-memory sink. A counter is counted once per increase of one.
pub(super) fn json(naming: &Naming, interval: &Interval, gauges: &[GaugeValue]) -> Value {
    let seconds = interval.lasted.as_secs_f64();
    let rate = |sum: f64| if seconds > 0.0 { sum / seconds } else { 0.0 };
    let labels = |labels: Labels| -> Value {
        naming
            .with_host(labels)
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .map(|(k, v)| (k, Value::from(v)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let gauges: Vec<Value> = gauges
        .iter()
        .filter_map(|gauge| {
            let name = naming.full_gauge(&gauge.name)?;
            Some(json!({"Name": name, "Value": gauge.value, "Labels": labels(owned_labels(gauge))}))
        })
        .collect();
    let counters: Vec<Value> = counters(&interval.counted)
        .filter(|row| row.value > 0)
        .filter_map(|row| {
            let (name, n) = (naming.full(&row.name)?, row.value as f64);
            Some(json!({
                "Name": name, "Count": row.value, "Rate": rate(n), "Sum": n, "Min": 1.0, "Max": 1.0, "Mean": 1.0,
                "Stddev": 0.0, "Labels": labels(row.labels),
            }))
        })
        .collect();
    let samples: Vec<Value> = samples(&interval.counted)
        .filter_map(|row| {
            let (least, most) = row.value.extremes()?;
            let (count, sum) = (row.value.count(), row.value.sum_ns as f64 / NS_PER_MS);
            Some(json!({
                "Name": naming.full(&row.name)?, "Count": count, "Rate": rate(sum), "Sum": sum,
                "Min": least / NS_PER_MS, "Max": most / NS_PER_MS, "Mean": sum / count as f64,
                "Stddev": row.value.deviation() / NS_PER_MS, "Labels": labels(row.labels),
            }))
        })
        .collect();
    json!({
        "Timestamp": timestamp(interval.began.wall), "Gauges": gauges, "Points": [], "Counters": counters,
        "Samples": samples,
    })
}

/// `2024-05-01 12:00:00 +0000 UTC`
fn timestamp(wall: Wall) -> String {
    format!("{} +0000 UTC", wall.rfc3339_seconds().replace('T', " ").trim_end_matches('Z'))
}
