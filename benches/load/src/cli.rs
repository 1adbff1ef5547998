//! The command line: `run`, `compare`, `merge`, `ops`, `limit`.

use crate::client::Client;
use crate::ops::Op;
use crate::report::{About, OwnLimit, Point, Report, Step, merge, time};
use crate::settings::{self, Arrivals, Bound, Settings, TokenType, World};
use crate::target::{Protocol, Target, Trust};
use crate::{html, limit, run, search, setup};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Loads a server that speaks Vault's HTTP API, and reports what it saw.
#[derive(Parser)]
#[command(name = "ringfence-load", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sets up by the API, loads, reports, cleans up.
    Run(Box<Run>),
    /// Puts several results side by side on one page.
    Compare(Several),
    /// Adds up results of generators that loaded one server at the same time.
    Merge(Several),
    /// Lists the operations a mix is made of.
    Ops,
    /// Measures the generator's own limit only.
    Limit(Box<Run>),
}

#[derive(Args)]
struct Several {
    /// Files `result.json`.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Folder for what is written.
    #[arg(long, default_value = "load-report")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Arrive {
    Even,
    Poisson,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Service,
    Batch,
}

#[derive(Args)]
struct Run {
    /// Where the server is.
    #[arg(long, env = "VAULT_ADDR", default_value = "http://127.0.0.1:8200")]
    addr: String,
    /// A token that may set everything up; a root token is simplest.
    #[arg(long, env = "VAULT_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// PEM file of the authorities that signed the server's certificate.
    #[arg(long, env = "VAULT_CACERT")]
    ca_cert: Option<PathBuf>,
    /// Take any certificate.
    #[arg(long)]
    tls_skip_verify: bool,
    /// Speak HTTP/2; without TLS, from its first byte.
    #[arg(long)]
    http2: bool,
    /// Requests in flight on one connection of HTTP/2.
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Operations and weights, as kv2-read=80,kv2-write=20.
    #[arg(long, value_parser = settings::mix, default_value = "kv2-read=80,kv2-write=15,kv2-list=5")]
    mix: std::vec::Vec<(Op, u32)>,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Connections of all threads together.
    #[arg(long, short, default_value_t = 64)]
    connections: usize,
    /// Requests a second of an open loop; a closed loop without.
    #[arg(long)]
    rate: Option<f64>,
    /// How requests of an open loop arrive.
    #[arg(long, value_enum, default_value = "even")]
    arrivals: Arrive,
    /// Look for the highest rate within a bound, as p99=10ms.
    #[arg(long, value_parser = settings::bound, conflicts_with = "rate")]
    search: Option<Bound>,
    /// How often a search halves what it does not know.
    #[arg(long, default_value_t = 4)]
    halvings: usize,
    /// Rest of a connection of a closed loop after an answer.
    #[arg(long, value_parser = settings::duration, default_value = "0")]
    think: Duration,
    /// Time in which the load grows.
    #[arg(long, value_parser = settings::duration, default_value = "0")]
    ramp: Duration,
    /// Time at full load that is not counted.
    #[arg(long, value_parser = settings::duration, default_value = "2s")]
    warm_up: Duration,
    /// Time that is counted; of each step in a search.
    #[arg(long, short, value_parser = settings::duration, default_value = "10s")]
    duration: Duration,
    /// One point of the curves.
    #[arg(long, value_parser = settings::duration, default_value = "1s")]
    interval: Duration,
    /// No answer within this is an error.
    #[arg(long, value_parser = settings::duration, default_value = "30s")]
    timeout: Duration,
    /// How long the generator's own limit is measured.
    #[arg(long, value_parser = settings::duration, default_value = "2s")]
    own_limit: Duration,
    /// The server's process, where it runs on this machine.
    #[arg(long)]
    pid: Option<u32>,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begins the name of every mount, policy and namespace that is made.
    #[arg(long, default_value = "load")]
    prefix: String,
    /// Key-value secrets.
    #[arg(long, default_value_t = 1000)]
    keys: usize,
    /// Folders they lie in.
    #[arg(long, default_value_t = 10)]
    folders: usize,
    /// Exponent of Zipf's law over the keys; uniform without.
    #[arg(long)]
    zipf: Option<f64>,
    /// Length of a secret's value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Tokens the requests are made with.
    #[arg(long, default_value_t = 16)]
    tokens: usize,
    /// Kind of those, and of what logins and token-create yield.
    #[arg(long, value_enum, default_value = "service")]
    token_type: Kind,
    /// Roles, users and lease prefixes.
    #[arg(long, default_value_t = 8)]
    owners: usize,
    /// Leases that are there before the load.
    #[arg(long, default_value_t = 100)]
    leases: usize,
    /// Policies of a token of acl-read.
    #[arg(long, default_value_t = 10)]
    policies: usize,
    /// Rules in each.
    #[arg(long, default_value_t = 50)]
    rules: usize,
    /// Namespaces of namespace-read.
    #[arg(long, default_value_t = 10)]
    namespaces: usize,
    /// A path whose read yields a lease, in place of a mount of the setup's own.
    #[arg(long)]
    lease_path: Option<String>,
    /// Leave what the setup made.
    #[arg(long)]
    keep: bool,
    /// No progress lines.
    #[arg(long, short)]
    quiet: bool,
    /// As the report calls this run.
    #[arg(long, default_value = "run")]
    name: String,
    /// Folder for result.json, curves.csv, percentiles.csv and report.html.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Run {
    fn settings(&self) -> Result<Settings, String> {
        let batch_fails = [Op::TokenRevoke];
        if matches!(self.token_type, Kind::Batch) && self.mix.iter().any(|(op, _)| batch_fails.contains(op)) {
            return Err("batch tokens cannot be revoked: token-revoke goes with --token-type service".into());
        }
        if self.rate.is_some_and(|r| !r.is_finite() || r <= 0.0) {
            return Err("--rate is a number above 0".into());
        }
        if self.zipf.is_some_and(|z| !z.is_finite() || z <= 0.0) {
            return Err("--zipf is a number above 0".into());
        }
        if self.threads == 0 || self.connections < self.threads {
            return Err("there is at least one thread, and a connection for each".into());
        }
        if self.keys == 0 || self.folders == 0 {
            return Err("there is at least one key, in one folder".into());
        }
        if self.duration.is_zero() || self.interval < Duration::from_millis(10) || self.own_limit.is_zero() {
            return Err("--duration and --own-limit are above 0, and --interval is 10ms or more".into());
        }
        if self.prefix.is_empty() || !self.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err("--prefix is made of letters, digits and dashes".into());
        }
        Ok(Settings {
            mix: self.mix.clone(),
            threads: self.threads,
            connections: self.connections,
            streams: if self.http2 { self.streams.max(1) } else { 1 },
            rate: self.rate,
            arrivals: match self.arrivals {
                Arrive::Even => Arrivals::Even,
                Arrive::Poisson => Arrivals::Poisson,
            },
            think: self.think,
            ramp: self.ramp,
            warm_up: self.warm_up,
            span: self.duration,
            interval: self.interval,
            timeout: self.timeout,
            seed: self.seed,
            world: World {
                prefix: self.prefix.clone(),
                keys: self.keys,
                folders: self.folders,
                zipf: self.zipf,
                value_bytes: self.value_bytes,
                tokens: self.tokens,
                token_type: match self.token_type {
                    Kind::Service => TokenType::Service,
                    Kind::Batch => TokenType::Batch,
                },
                owners: self.owners,
                leases: self.leases,
                policies: self.policies,
                rules: self.rules,
                namespaces: self.namespaces,
                lease_path: self.lease_path.clone(),
            },
        })
    }

    fn target(&self) -> Result<Target, String> {
        let protocol = if self.http2 { Protocol::Http2 } else { Protocol::Http1 };
        let trust = match &self.ca_cert {
            Some(file) if !self.tls_skip_verify => Trust::Authorities(file.clone()),
            _ if self.tls_skip_verify || !self.addr.starts_with("https:") => Trust::Anyone,
            _ => return Err("https wants --ca-cert or --tls-skip-verify".into()),
        };
        Target::new(&self.addr, protocol, &trust)
    }

    fn protocol(&self) -> String {
        let http = if self.http2 { "HTTP/2" } else { "HTTP/1.1" };
        let tls = if self.addr.starts_with("https:") { " over TLS" } else { "" };
        format!("{http}{tls}")
    }
}

/// Settings from words, for tests.
#[cfg(test)]
pub fn settings_of(words: &[&str]) -> Result<Settings, String> {
    let words = ["ringfence-load"].iter().chain(words);
    match Line::try_parse_from(words).map_err(|e| e.to_string())?.command {
        Command::Run(r) => r.settings(),
        _ => Err("not a run".into()),
    }
}

/// Runs the command line; answers the process's exit code: 0, 1 for a failure, 2 for words it does not know.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(e) => {
            // what goes wrong with printing help has nowhere to be told
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match line.command {
        Command::Run(r) => load(&r).map(|report| print!("{}", report.text())),
        Command::Compare(s) => read_all(&s.results).and_then(|all| {
            write(&s.out, "compare.html", &html::page(&all))?;
            all.iter().for_each(|r| println!("{}", r.text()));
            Ok(())
        }),
        Command::Merge(s) => read_all(&s.results).and_then(|all| {
            let merged = merge(&all)?;
            write_all(&s.out, &merged)?;
            print!("{}", merged.text());
            Ok(())
        }),
        Command::Ops => {
            Op::ALL.iter().for_each(|op| println!("{:<20} {}", op.name(), op.what()));
            Ok(())
        }
        Command::Limit(r) => own_limit(&r).map(|limit| {
            println!(
                "{:.0} requests/s, {:.2} us CPU a request; the bare responder: {:.2} us; p50 {} p99 {}",
                limit.requests_per_second,
                limit.cpu_us_per_request,
                limit.responder_cpu_us_per_request,
                time(limit.latency_us_p50),
                time(limit.latency_us_p99)
            );
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringfence-load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn own_limit(r: &Run) -> Result<OwnLimit, String> {
    limit::measure(&r.target()?, &r.settings()?, r.own_limit)
}

fn load(r: &Run) -> Result<Report, String> {
    let (settings, target) = (r.settings()?, r.target()?);
    if r.pid.is_some_and(|pid| crate::process::usage(pid).is_none()) {
        return Err("--pid: no such process on this machine".into());
    }
    let say = |text: &str| {
        if !r.quiet {
            eprintln!("{text}");
        }
    };
    let health = Client::new(&target, "").send(crate::call::Call::of("GET", "sys/health", None))?;
    if !matches!(health.status, 200 | 429 | 473) {
        return Err(format!("{}: sys/health says {}: {}", r.addr, health.status, health.body));
    }
    let mut stage = setup::blank(&r.token, &settings);
    say("setting up");
    let report = setup::make(&target, &mut stage, &settings).and_then(|()| {
        say("measuring the generator's own limit");
        let limit = limit::measure(&target, &settings, r.own_limit)?;
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let about = About {
            name: r.name.clone(),
            target: r.addr.clone(),
            protocol: r.protocol(),
            server_version: health.body["version"].as_str().unwrap_or("unknown").to_owned(),
            started_unix_s: since_1970.map_or(0, |d| d.as_secs()),
        };
        match r.search {
            None => {
                let seen = run::measure(&target, &settings, &stage, r.pid, &mut |p| say(&progress(p)))?;
                Ok(Report::new(about, &settings, limit, &seen))
            }
            Some(bound) => searched(r, bound, &target, &settings, &stage, about, limit, &|s| say(&step_line(s))),
        }
    });
    if !r.keep {
        say("cleaning up");
        let cleaned = setup::unmake(&target, &stage);
        // what went wrong first is what the user wants to know
        if report.is_ok() {
            cleaned?;
        }
    }
    let report = report?;
    if let Some(out) = &r.out {
        write_all(out, &report)?;
    }
    Ok(report)
}

#[allow(clippy::too_many_arguments)]
fn searched(
    r: &Run,
    bound: Bound,
    target: &Target,
    settings: &Settings,
    stage: &crate::ops::Stage,
    about: About,
    limit: OwnLimit,
    say: &dyn Fn(&Step),
) -> Result<Report, String> {
    let (steps, best) = search::highest(target, settings, stage, r.pid, bound, r.halvings, &mut |s| say(s))?;
    let (rate, seen) = best.ok_or("the server holds the bound at no rate that was tried")?;
    let mut at_best = settings.clone();
    at_best.rate = Some(rate);
    let mut report = Report::new(about, &at_best, limit, &seen);
    (report.bound, report.steps) = (Some(bound), steps);
    Ok(report)
}

fn progress(p: &Point) -> String {
    let phase = if p.counts { "" } else { " (warming up)" };
    let cpus = p.server_cpus.map_or(String::new(), |c| format!("  server {c:.2} CPUs"));
    let (at, rate, errors) = (p.at_s, p.requests_per_second, p.errors);
    let (p50, p99, max) = (time(p.latency_us_p50), time(p.latency_us_p99), time(p.latency_us_max));
    format!("{at:7.1} s  {rate:9.0}/s  p50 {p50:>8}  p99 {p99:>8}  max {max:>8}  errors {errors}{cpus}{phase}")
}

fn step_line(s: &Step) -> String {
    let (asked, got, latency) = (s.asked_per_second, s.got_per_second, time(s.latency_us));
    let holds = if s.holds { "holds" } else { "fails" };
    format!("  {asked:9.0}/s asked  {got:9.0}/s got  latency {latency:>8}  errors {}  {holds}", s.errors)
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Report>, String> {
    let read = |file: &PathBuf| {
        let text = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("{}: not a result: {e}", file.display()))
    };
    files.iter().map(read).collect()
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = dir.join(name);
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|e| format!("{}: {e}", path.display()))
}

fn write_all(dir: &Path, report: &Report) -> Result<(), String> {
    let json = serde_json::to_string(report).map_err(|e| e.to_string())?;
    write(dir, "result.json", &json)?;
    write(dir, "curves.csv", &report.curves_csv())?;
    write(dir, "percentiles.csv", &report.percentiles_csv())?;
    write(dir, "report.html", &html::page(std::slice::from_ref(report)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_words() {
        for words in [
            &["run", "--rate", "0"][..],
            &["run", "--threads", "0"],
            &["run", "--mix", "token-revoke", "--token-type", "batch"],
            &["run", "--rate", "5", "--search", "p99=1ms"],
            &["run", "--prefix", "a/b"],
            &["run", "--keys", "0"],
            &["run", "--duration", "0"],
            &["run", "--interval", "1us"],
        ] {
            assert!(settings_of(words).is_err(), "{words:?}");
        }
        assert!(settings_of(&["run"]).is_ok());
    }
}
