//! One measurement: starts the workers, merges their ticks into the curve, watches the server's process, prints a line an
//! interval, and puts the totals together.

use crate::ops::{Op, Stage};
use crate::process::{self, Usage};
use crate::report::Point;
use crate::settings::Settings;
use crate::target::Target;
use crate::worker::{OpTotals, Schedule, Tick, Totals, Worker, histogram};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What was seen.
pub struct Seen {
    /// Time that counts.
    pub span: Duration,
    /// By operation.
    pub ops: BTreeMap<Op, OpTotals>,
    /// Good answers in that time.
    pub answered: u64,
    /// All answers in that time.
    pub handled: u64,
    /// Without an answer.
    pub unanswered: u64,
    /// Kinds of errors.
    pub faults: BTreeMap<String, (u64, String)>,
    /// The generator's own delay.
    pub lateness: Histogram<u64>,
    /// CPU time of the workers.
    pub cpu: Duration,
    /// The curve.
    pub points: Vec<Point>,
    /// The server's process at the beginning and the end of what counts.
    pub server: Option<(Usage, Usage)>,
}

impl Seen {
    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.span.as_secs_f64()
    }

    /// The workers' CPU time for an answer, microseconds.
    pub fn client_cpu_us(&self) -> f64 {
        if self.handled == 0 { 0.0 } else { self.cpu.as_secs_f64() * 1e6 / self.handled as f64 }
    }

    /// Latencies of all operations.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        for op in self.ops.values() {
            // both have the same bounds
            let _ = all.add(&op.latency);
        }
        all
    }

    /// A percentile of all latencies, microseconds.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.latency().value_at_percentile(percentile) as f64 / 1e3
    }

    /// Bad answers and broken connections.
    pub fn errors(&self) -> u64 {
        self.ops.values().map(|op| op.errors).sum()
    }

    fn add(&mut self, totals: Totals) {
        for (op, t) in totals.ops {
            match self.ops.get_mut(&op) {
                None => {
                    self.ops.insert(op, t);
                }
                Some(have) => {
                    have.ok += t.ok;
                    have.errors += t.errors;
                    // all have the same bounds
                    let _ = (have.latency.add(&t.latency), have.service.add(&t.service));
                }
            }
        }
        self.answered += totals.answered;
        self.handled += totals.handled;
        self.unanswered += totals.unanswered;
        self.cpu += totals.cpu;
        // the same bounds again
        let _ = self.lateness.add(&totals.lateness);
        for (kind, (count, text)) in totals.faults {
            self.faults.entry(kind).or_insert((0, text)).0 += count;
        }
    }
}

/// Loads the target once. `line` is called with each point of the curve as it is whole.
pub fn measure(
    target: &Target,
    settings: &Settings,
    stage: &Stage,
    server: Option<u32>,
    line: &mut dyn FnMut(&Point),
) -> Result<Seen, String> {
    // the threads are there before the first request is due
    let schedule = Schedule::new(Instant::now() + Duration::from_millis(20), settings);
    let (ticks, come) = channel();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..settings.threads)
            .map(|index| {
                let ticks = ticks.clone();
                scope.spawn(move || Worker::new(target, settings, stage, schedule, index, ticks)?.run())
            })
            .collect();
        drop(ticks);
        let (points, usage) = follow(&come, settings, schedule, server, line);
        let mut seen = Seen {
            span: settings.span,
            ops: BTreeMap::new(),
            answered: 0,
            handled: 0,
            unanswered: 0,
            faults: BTreeMap::new(),
            lateness: histogram(),
            cpu: Duration::ZERO,
            points,
            server: usage,
        };
        for worker in workers {
            let totals = worker.join().map_err(|_| "a worker broke".to_owned())?;
            seen.add(totals.map_err(|e| format!("a worker failed: {e}"))?);
        }
        Ok(seen)
    })
}

/// An interval whose workers have not all told yet.
struct Gathering {
    answers: u64,
    errors: u64,
    latency: Histogram<u64>,
}

/// Merges ticks until the workers are gone.
fn follow(
    come: &Receiver<Tick>,
    settings: &Settings,
    schedule: Schedule,
    server: Option<u32>,
    line: &mut dyn FnMut(&Point),
) -> (Vec<Point>, Option<(Usage, Usage)>) {
    let mut gathered: BTreeMap<usize, Gathering> = BTreeMap::new();
    let mut usages: BTreeMap<usize, Usage> = BTreeMap::new();
    let mut points = Vec::new();
    let (mut first, mut last) = (None, None);
    // half an interval after its end, every worker that lives has told it
    let told = |interval: usize| schedule.begin + settings.interval.mul_f64(interval as f64 + 1.5);
    loop {
        let now = Instant::now();
        if now >= schedule.count && first.is_none() {
            first = server.and_then(process::usage);
        }
        if now >= schedule.end && last.is_none() {
            last = server.and_then(process::usage);
        }
        let interval = now.saturating_duration_since(schedule.begin).as_nanos() / settings.interval.as_nanos().max(1);
        if let (Some(pid), Ok(i)) = (server, usize::try_from(interval))
            && !usages.contains_key(&i)
            && let Some(usage) = process::usage(pid)
        {
            usages.insert(i, usage);
        }
        while now >= told(points.len()) && now < schedule.end {
            let point = point(points.len(), gathered.remove(&points.len()), &usages, settings);
            line(&point);
            points.push(point);
        }
        let marks = [told(points.len()), schedule.count, schedule.end, now + settings.interval / 4];
        let next = marks.into_iter().filter(|m| *m > now).min().unwrap_or(now);
        match come.recv_timeout(next - now) {
            Ok(tick) => {
                let fresh = || Gathering { answers: 0, errors: 0, latency: histogram() };
                let g = gathered.entry(tick.interval).or_insert_with(fresh);
                g.answers += tick.answers;
                g.errors += tick.errors;
                // all have the same bounds
                let _ = g.latency.add(&tick.latency);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // the last interval that is whole; what follows is the drain
    let whole = ((schedule.end - schedule.begin).as_nanos() / settings.interval.as_nanos().max(1)) as usize;
    while points.len() < whole {
        let point = point(points.len(), gathered.remove(&points.len()), &usages, settings);
        line(&point);
        points.push(point);
    }
    (points, first.zip(last))
}

fn point(i: usize, g: Option<Gathering>, usages: &BTreeMap<usize, Usage>, settings: &Settings) -> Point {
    let interval = settings.interval.as_secs_f64();
    let at = i as f64 * interval;
    let (from, to) = (usages.get(&i), usages.get(&(i + 1)));
    let ready = (settings.ramp + settings.warm_up).as_secs_f64();
    let (answers, errors, latency) = g.map_or((0, 0, histogram()), |g| (g.answers, g.errors, g.latency));
    let us = |percentile| latency.value_at_percentile(percentile) as f64 / 1e3;
    Point {
        at_s: at,
        counts: at + 1e-9 >= ready,
        requests_per_second: answers as f64 / interval,
        errors,
        latency_us_p50: us(50.0),
        latency_us_p99: us(99.0),
        latency_us_max: us(100.0),
        server_cpus: from.zip(to).map(|(a, b)| (b.cpu_s - a.cpu_s).max(0.0) / interval),
        server_resident_bytes: from.map(|u| u.resident_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings_of;
    use crate::target::{Protocol, Trust};
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers requests one after another on one connection, and rests before those in `slow`.
    fn server(slow: impl Fn(usize) -> Duration + Send + 'static) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let addr = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("the load connects");
            let (mut buf, mut n) = ([0; 4096], 0);
            while socket.read(&mut buf).is_ok_and(|got| got > 0) {
                std::thread::sleep(slow(n));
                n += 1;
                if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").is_err() {
                    return;
                }
            }
        });
        format!("http://{addr}")
    }

    fn run(url: &str, words: &[&str]) -> Seen {
        let all: Vec<&str> =
            ["run", "--mix", "health", "-c", "1", "--warm-up", "0"].iter().chain(words).copied().collect();
        let settings = settings_of(&all).expect("good words");
        let target = Target::new(url, Protocol::Http1, &Trust::Anyone).expect("a URL");
        measure(&target, &settings, &crate::setup::blank("", &settings), None, &mut |_| {}).expect("it runs")
    }

    /// Coordinated omission: one answer of a hundred and more takes half a second, and a closed loop would see one slow
    /// request. Those that were due meanwhile waited too, and the corrected latencies tell so.
    #[test]
    fn a_stall_is_seen_by_all_it_held_up() {
        let stall = |n| if n == 20 { Duration::from_millis(500) } else { Duration::ZERO };
        let seen = run(&server(stall), &["--rate", "100", "--duration", "1s", "--interval", "100ms"]);
        let op = &seen.ops[&Op::Health];
        let slow = |h: &Histogram<u64>| h.count_between(100_000_000, crate::worker::LATENCY_NS_MAX);
        assert!(slow(&op.latency) >= 30, "corrected: {} slow", slow(&op.latency));
        assert!(slow(&op.service) < slow(&op.latency) / 2, "from sending: {} slow", slow(&op.service));
        assert_eq!(op.ok + op.errors + seen.unanswered, 100, "every request that was due is accounted for");
    }

    /// A server that stops answering: what was due counts with its age, and the run ends.
    #[test]
    fn silence_is_slow_and_not_absent() {
        let silent = |n| if n >= 5 { Duration::from_secs(60) } else { Duration::ZERO };
        let words = ["--rate", "50", "--duration", "400ms", "--interval", "100ms", "--timeout", "200ms"];
        let seen = run(&server(silent), &words);
        let op = &seen.ops[&Op::Health];
        assert_eq!(op.ok + op.errors + seen.unanswered, 20, "all are accounted for");
        assert!(seen.unanswered + op.errors >= 10 && !op.latency.is_empty());
        assert!(seen.faults.contains_key("connection"), "{:?}", seen.faults);
    }

    /// A closed loop rests after each answer, and the curve has a point an interval.
    #[test]
    fn think_time_and_curve() {
        let words = ["--think", "50ms", "--duration", "500ms", "--interval", "100ms"];
        let seen = run(&server(|_| Duration::ZERO), &words);
        assert!((1..=10).contains(&seen.answered), "{} answers", seen.answered);
        assert_eq!(seen.points.len(), 5);
    }

    /// Both protocols, with and without TLS, against the bare responder.
    #[test]
    fn the_own_limit_in_every_protocol() {
        for (protocol, url) in [
            (Protocol::Http1, "http://127.0.0.1:1"),
            (Protocol::Http2, "http://127.0.0.1:1"),
            (Protocol::Http1, "https://127.0.0.1:1"),
            (Protocol::Http2, "https://127.0.0.1:1"),
        ] {
            let settings = settings_of(&["run", "--threads", "2", "-c", "4"]).expect("good words");
            let target = Target::new(url, protocol, &Trust::Anyone).expect("a URL");
            let limit = crate::limit::measure(&target, &settings, Duration::from_millis(150)).expect("it is reached");
            assert!(limit.requests_per_second > 0.0 && limit.cpu_us_per_request > 0.0, "{url} {protocol:?}");
        }
    }
}
