//! What a run tells: one JSON document, two CSV files, and the merging of runs that loaded one server from several
//! machines. Histograms stand in it whole, as pairs of latency and count, so merged percentiles are true ones.

use crate::ops::Op;
use crate::process::{Machine, Usage};
use crate::run::Seen;
use crate::settings::{Bound, Settings};
use crate::worker::{LATENCY_NS_MAX, histogram};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The percentiles that tables show.
pub const PERCENTILES: [f64; 8] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0];

/// A point of the curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the load began.
    pub at_s: f64,
    /// Whether it lies in the time that counts.
    pub counts: bool,
    /// Answers that came, a second.
    pub requests_per_second: f64,
    /// Errors among them.
    pub errors: u64,
    /// Percentiles of the answers that came. In a merged report, the highest of the parts.
    pub latency_us_p50: f64,
    /// As above.
    pub latency_us_p99: f64,
    /// As above.
    pub latency_us_max: f64,
    /// CPUs the server's process kept busy.
    pub server_cpus: Option<f64>,
    /// Its resident memory.
    pub server_resident_bytes: Option<u64>,
}

/// What the generator itself can do, measured beside the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnLimit {
    /// Against the bare responder.
    pub requests_per_second: f64,
    /// CPU time of the generator.
    pub cpu_us_per_request: f64,
    /// CPU time of the responder.
    pub responder_cpu_us_per_request: f64,
    /// Latency there.
    pub latency_us_p50: f64,
    /// Latency there.
    pub latency_us_p99: f64,
}

/// A step of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The open loop's rate.
    pub asked_per_second: f64,
    /// Good answers a second.
    pub got_per_second: f64,
    /// At the bound's percentile.
    pub latency_us: f64,
    /// Bad answers.
    pub errors: u64,
    /// Whether the bound was held.
    pub holds: bool,
}

/// What the server's process used in the time that counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// At its beginning.
    pub begin: Usage,
    /// At its end.
    pub end: Usage,
}

/// Of one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpReport {
    /// Which.
    pub op: Op,
    /// Good answers.
    pub ok: u64,
    /// Others.
    pub errors: u64,
    /// From when a request was due: pairs of nanoseconds and count.
    pub latency_ns: Vec<(u64, u64)>,
    /// From when it was sent.
    pub service_ns: Vec<(u64, u64)>,
}

/// A kind of error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Operation and status.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// The first of them.
    pub first: String,
}

/// A whole run, or several merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this document's shape.
    pub format: u32,
    /// As the user calls the run.
    pub name: String,
    /// Where the load went.
    pub target: String,
    /// HTTP and TLS.
    pub protocol: String,
    /// As the server tells it.
    pub server_version: String,
    /// When it began, seconds since 1970.
    pub started_unix_s: u64,
    /// Generators.
    pub parts: usize,
    /// How it was run.
    pub settings: Settings,
    /// Where the generators ran.
    pub machines: Vec<Machine>,
    /// What they could have reached, one each.
    pub own_limits: Vec<OwnLimit>,
    /// What a search looked for.
    pub bound: Option<Bound>,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Seconds that count.
    pub span_s: f64,
    /// Good answers in that time.
    pub answered: u64,
    /// All answers in that time.
    pub handled: u64,
    /// Requests without an answer; their ages are among the latencies.
    pub unanswered: u64,
    /// CPU time of the generators, seconds.
    pub client_cpu_s: f64,
    /// By how much the generator itself was late, 99th percentile.
    pub lateness_us_p99: f64,
    /// The server's process, where it could be seen.
    pub server: Option<Server>,
    /// By operation.
    pub ops: Vec<OpReport>,
    /// Errors.
    pub faults: Vec<Fault>,
    /// The curves.
    pub points: Vec<Point>,
}

/// What stands in a report beside the measurement.
pub struct About {
    /// As the user calls the run.
    pub name: String,
    /// Where the load went.
    pub target: String,
    /// HTTP and TLS.
    pub protocol: String,
    /// As the server tells it.
    pub server_version: String,
    /// When it began.
    pub started_unix_s: u64,
}

fn pairs(h: &Histogram<u64>) -> Vec<(u64, u64)> {
    h.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
}

/// Pairs as a histogram again.
pub fn from_pairs<'p>(pairs: impl IntoIterator<Item = &'p (u64, u64)>) -> Histogram<u64> {
    let mut h = histogram();
    for (value, count) in pairs {
        h.saturating_record_n(*value.clamp(&1, &LATENCY_NS_MAX), *count);
    }
    h
}

impl Report {
    /// Of one measurement.
    pub fn new(about: About, settings: &Settings, own_limit: OwnLimit, seen: &Seen) -> Report {
        Report {
            format: 1,
            name: about.name,
            target: about.target,
            protocol: about.protocol,
            server_version: about.server_version,
            started_unix_s: about.started_unix_s,
            parts: 1,
            settings: settings.clone(),
            machines: vec![crate::process::machine()],
            own_limits: vec![own_limit],
            bound: None,
            steps: Vec::new(),
            span_s: seen.span.as_secs_f64(),
            answered: seen.answered,
            handled: seen.handled,
            unanswered: seen.unanswered,
            client_cpu_s: seen.cpu.as_secs_f64(),
            lateness_us_p99: seen.lateness.value_at_percentile(99.0) as f64 / 1e3,
            server: seen.server.map(|(begin, end)| Server { begin, end }),
            ops: (seen.ops.iter())
                .map(|(op, t)| OpReport {
                    op: *op,
                    ok: t.ok,
                    errors: t.errors,
                    latency_ns: pairs(&t.latency),
                    service_ns: pairs(&t.service),
                })
                .collect(),
            faults: (seen.faults.iter())
                .map(|(kind, (count, first))| Fault { kind: kind.clone(), count: *count, first: first.clone() })
                .collect(),
            points: seen.points.clone(),
        }
    }

    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.span_s
    }

    /// Bad answers.
    pub fn errors(&self) -> u64 {
        self.ops.iter().map(|op| op.errors).sum()
    }

    /// Latencies of all operations.
    pub fn latency(&self) -> Histogram<u64> {
        from_pairs(self.ops.iter().flat_map(|op| &op.latency_ns))
    }

    /// The generators' CPU time for a request, microseconds.
    pub fn client_cpu_us(&self) -> f64 {
        self.client_cpu_s * 1e6 / self.handled.max(1) as f64
    }

    /// The server's CPU time for a request, microseconds.
    pub fn server_cpu_us(&self) -> Option<f64> {
        self.server.map(|s| (s.end.cpu_s - s.begin.cpu_s) * 1e6 / self.handled.max(1) as f64)
    }

    /// What the server's memory grew by for a request, bytes.
    pub fn server_growth_bytes(&self) -> Option<f64> {
        let grown = |s: Server| s.end.resident_bytes as f64 - s.begin.resident_bytes as f64;
        self.server.map(|s| grown(s) / self.handled.max(1) as f64)
    }

    /// What the generators together could have reached.
    pub fn own_limit_per_second(&self) -> f64 {
        self.own_limits.iter().map(|l| l.requests_per_second).sum()
    }

    /// The generator's limit and what it means for this run, in words.
    pub fn own_limit_text(&self) -> String {
        let limit = self.own_limit_per_second();
        let share = self.rate() / limit * 100.0;
        let own = self.client_cpu_us();
        let mut text = format!(
            "The generator's own limit: {limit:.0} requests/s against a bare responder, with the same protocol, threads \
             and connections; this run reached {share:.0} % of that. CPU of the generator: {own:.1} us a request"
        );
        // writing into a string cannot fail
        let _ = match self.server_cpu_us() {
            Some(server) if own < server => write!(text, ", of the server: {server:.1} us."),
            Some(server) => write!(
                text,
                ", of the server: {server:.1} us. THE GENERATOR COSTS MORE THAN THE SERVER: take other machines for it."
            ),
            None => write!(text, ". The server's CPU was not seen (--pid)."),
        };
        if share > 70.0 {
            text.push_str(" The figure is near that limit: it tells of the generator as much as of the server.");
        }
        text
    }

    /// A summary for a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {} over {}\n", self.name, self.target, self.protocol);
        let h = self.latency();
        let asked = self.settings.rate.map_or(String::new(), |r| format!(" of {r:.0} asked for"));
        let (rate, span, answered, errors) = (self.rate(), self.span_s, self.answered, self.errors());
        let _ = writeln!(
            text,
            "{rate:.1} requests/s{asked} over {span:.1} s: {answered} good, {errors} errors, {} unanswered",
            self.unanswered
        );
        for p in PERCENTILES {
            let _ = write!(text, "p{p} {}  ", time(h.value_at_percentile(p) as f64 / 1e3));
        }
        text.push('\n');
        for op in &self.ops {
            let h = from_pairs(&op.latency_ns);
            let us = |p| time(h.value_at_percentile(p) as f64 / 1e3);
            let (name, ok, errors) = (op.op.name(), op.ok, op.errors);
            let _ = writeln!(
                text,
                "  {name:<20} {ok:>10} good {errors:>6} errors  p50 {:>9}  p99 {:>9}  p99.9 {:>9}",
                us(50.0),
                us(99.0),
                us(99.9)
            );
        }
        for f in &self.faults {
            let _ = writeln!(text, "  error {} x{}: {}", f.kind, f.count, f.first.trim());
        }
        if let Some(bound) = self.bound {
            let best = self.steps.iter().filter(|s| s.holds).map(|s| s.asked_per_second).fold(0.0, f64::max);
            let _ = writeln!(text, "highest rate with p{} within {:?}: {best:.0}/s", bound.percentile, bound.latency);
        }
        if let (Some(s), Some(growth)) = (self.server, self.server_growth_bytes()) {
            let mib = s.end.resident_bytes as f64 / f64::from(1 << 20);
            let _ = writeln!(text, "server: {mib:.1} MiB resident, grown by {growth:.1} bytes a request");
        }
        text.push_str(&self.own_limit_text());
        text.push('\n');
        text
    }

    /// The curves, one line a point.
    pub fn curves_csv(&self) -> String {
        let mut text = String::from(
            "at_s,counts,requests_per_second,errors,latency_us_p50,latency_us_p99,latency_us_max,server_cpus,\
             server_resident_bytes\n",
        );
        for p in &self.points {
            let cpus = p.server_cpus.map_or(String::new(), |c| format!("{c:.3}"));
            let resident = p.server_resident_bytes.map_or(String::new(), |b| b.to_string());
            let _ = writeln!(
                text,
                "{:.3},{},{:.1},{},{:.1},{:.1},{:.1},{cpus},{resident}",
                p.at_s,
                p.counts,
                p.requests_per_second,
                p.errors,
                p.latency_us_p50,
                p.latency_us_p99,
                p.latency_us_max
            );
        }
        text
    }

    /// Percentiles by operation, one line each; `all` for all together.
    pub fn percentiles_csv(&self) -> String {
        let mut text = String::from("op,ok,errors,percentile,latency_us,service_us\n");
        let service = from_pairs(self.ops.iter().flat_map(|op| &op.service_ns));
        let ok = self.ops.iter().map(|op| op.ok).sum();
        let mut rows = vec![("all", ok, self.errors(), self.latency(), service)];
        for op in &self.ops {
            rows.push((op.op.name(), op.ok, op.errors, from_pairs(&op.latency_ns), from_pairs(&op.service_ns)));
        }
        for (name, ok, errors, latency, service) in rows {
            for p in PERCENTILES {
                let us = |h: &Histogram<u64>| h.value_at_percentile(p) as f64 / 1e3;
                let _ = writeln!(text, "{name},{ok},{errors},{p},{:.1},{:.1}", us(&latency), us(&service));
            }
        }
        text
    }
}

/// Microseconds as people read them.
pub fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0}us"),
        us if us < 1e6 => format!("{:.2}ms", us / 1e3),
        us => format!("{:.2}s", us / 1e6),
    }
}

/// One report of several that loaded one server at the same time: counts and histograms are added up.
pub fn merge(reports: &[Report]) -> Result<Report, String> {
    let (first, rest) = reports.split_first().ok_or("nothing to merge")?;
    let mut all = first.clone();
    for r in rest {
        if (r.format, r.span_s) != (all.format, all.span_s) {
            return Err(format!("{}: another format or span than {}", r.name, all.name));
        }
        all.parts += r.parts;
        all.settings.rate = all.settings.rate.zip(r.settings.rate).map(|(a, b)| a + b);
        all.settings.connections += r.settings.connections;
        all.settings.threads += r.settings.threads;
        all.machines.extend_from_slice(&r.machines);
        all.own_limits.extend_from_slice(&r.own_limits);
        all.answered += r.answered;
        all.handled += r.handled;
        all.unanswered += r.unanswered;
        all.client_cpu_s += r.client_cpu_s;
        all.lateness_us_p99 = all.lateness_us_p99.max(r.lateness_us_p99);
        // those that saw the server's process saw the same one
        all.server = all.server.or(r.server);
        for f in &r.faults {
            match all.faults.iter_mut().find(|have| have.kind == f.kind) {
                Some(have) => have.count += f.count,
                None => all.faults.push(f.clone()),
            }
        }
        for op in &r.ops {
            match all.ops.iter_mut().find(|have| have.op == op.op) {
                Some(have) => {
                    have.ok += op.ok;
                    have.errors += op.errors;
                    have.latency_ns = pairs(&from_pairs(have.latency_ns.iter().chain(&op.latency_ns)));
                    have.service_ns = pairs(&from_pairs(have.service_ns.iter().chain(&op.service_ns)));
                }
                None => all.ops.push(op.clone()),
            }
        }
        for (have, point) in all.points.iter_mut().zip(&r.points) {
            have.requests_per_second += point.requests_per_second;
            have.errors += point.errors;
            have.latency_us_p50 = have.latency_us_p50.max(point.latency_us_p50);
            have.latency_us_p99 = have.latency_us_p99.max(point.latency_us_p99);
            have.latency_us_max = have.latency_us_max.max(point.latency_us_max);
            have.server_cpus = have.server_cpus.or(point.server_cpus);
            have.server_resident_bytes = have.server_resident_bytes.or(point.server_resident_bytes);
        }
        all.points.truncate(r.points.len());
        all.steps.clear();
    }
    all.ops.sort_by_key(|op| op.op);
    Ok(all)
}

/// A report for the tests of this crate.
#[cfg(test)]
pub fn sample(name: &str, latencies_us: &[u64]) -> Report {
    let mut h = histogram();
    latencies_us.iter().for_each(|us| h.saturating_record(us * 1000));
    let settings = crate::cli::settings_of(&["run", "--mix", "kv2-read"]).expect("good words");
    let limit = OwnLimit {
        requests_per_second: 1000.0,
        cpu_us_per_request: 5.0,
        responder_cpu_us_per_request: 5.0,
        latency_us_p50: 10.0,
        latency_us_p99: 20.0,
    };
    let point = Point {
        at_s: 0.0,
        counts: true,
        requests_per_second: latencies_us.len() as f64,
        errors: 0,
        latency_us_p50: 1.0,
        latency_us_p99: 2.0,
        latency_us_max: 3.0,
        server_cpus: Some(0.5),
        server_resident_bytes: None,
    };
    let usage = |cpu_s, resident_bytes| Usage { cpu_s, resident_bytes };
    let count = latencies_us.len() as u64;
    Report {
        format: 1,
        name: name.into(),
        target: "http://h".into(),
        protocol: "HTTP/1.1".into(),
        server_version: "1".into(),
        started_unix_s: 0,
        parts: 1,
        settings,
        machines: Vec::new(),
        own_limits: vec![limit],
        bound: None,
        steps: Vec::new(),
        span_s: 1.0,
        answered: count,
        handled: count,
        unanswered: 0,
        client_cpu_s: count as f64 * 4e-6,
        lateness_us_p99: 0.0,
        server: Some(Server { begin: usage(1.0, 100), end: usage(1.0 + count as f64 * 8e-6, 300) }),
        ops: vec![OpReport { op: Op::Kv2Read, ok: count, errors: 0, latency_ns: pairs(&h), service_ns: pairs(&h) }],
        faults: Vec::new(),
        points: vec![point.clone(), Point { at_s: 1.0, ..point }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percentiles of merged runs are those of all their answers, not some mean of percentiles.
    #[test]
    fn merged_histograms_are_true() {
        let fast: Vec<u64> = vec![10; 99];
        let a = sample("a", &fast);
        let b = sample("b", &[5000]);
        let merged = merge(&[a, b]).expect("they fit");
        assert_eq!((merged.answered, merged.parts, merged.own_limits.len()), (100, 2, 2));
        let near = |p, us: f64| (merged.latency().value_at_percentile(p) as f64 / 1e3 - us).abs() < us / 500.0;
        assert!(near(99.0, 10.0) && near(99.5, 5000.0));
        assert!((merged.points[0].requests_per_second - 100.0).abs() < 1e-9);
    }

    #[test]
    fn json_goes_round() {
        let report = sample("a", &[1, 2, 300_000]);
        let text = serde_json::to_string(&report).expect("plain data");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("the same"), report);
        assert!(merge(&[]).is_err());
    }

    #[test]
    fn the_limit_is_stated() {
        let mut r = sample("a", &[10; 900]);
        let text = r.own_limit_text();
        assert!(
            text.contains("1000 requests/s") && text.contains("90 %") && text.contains("near that limit"),
            "{text}"
        );
        r.client_cpu_s *= 10.0;
        assert!(r.own_limit_text().contains("COSTS MORE"));
        r.server = None;
        assert!(r.text().contains("not seen"));
    }
}
