//! The command line.

use crate::check::{self, Finding, Limits, Verdict};
use crate::cluster::{Cluster, NetKind, Plan};
use crate::history::History;
use crate::nemesis::{self, Pace};
use crate::report;
use crate::run::{Facts, Outcome, Run};
use crate::{gaps, scenario, work};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Everything held, and was put to the test.
pub const PASSED: u8 = 0;
/// Something was broken.
pub const BROKEN: u8 = 1;
/// Nobody can tell.
pub const UNKNOWN: u8 = 2;
/// There was nothing to judge: the harness, its arguments or the machine.
pub const NOT_RUN: u8 = 3;
/// Somebody interrupted it.
pub const INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(name = "ringfence-jepsen", version, about = "Does to a cluster whatever may happen to one, and judges it")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a named scenario
    Run {
        /// Its name; `list` tells all
        scenario: String,
        #[command(flatten)]
        options: Options,
    },
    /// Runs all faults, composed, for some minutes
    Chaos {
        /// How long
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        #[command(flatten)]
        options: Options,
    },
    /// Measures how long writes wait for a new active node: after a kill, and after a request to hand over
    Gaps {
        /// Kills and hand-overs
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        #[command(flatten)]
        options: Options,
    },
    /// Judges a history again
    Check {
        /// A history.jsonl
        history: PathBuf,
        /// Longest search for one key, seconds
        #[arg(long, default_value_t = 30.0)]
        per_key: f64,
        /// Writes a report into this folder
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Tells scenarios, workloads and faults
    List,
}

#[derive(Args)]
struct Options {
    /// Draws operations and faults; the report names it
    #[arg(long)]
    seed: Option<u64>,
    /// Number of nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds under faults, instead of the scenario's
    #[arg(long)]
    seconds: Option<f64>,
    /// Workloads instead of the scenario's
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Faults or families of them, instead of the scenario's
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Clients of each workload
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// Mean rest of a client between two calls, milliseconds
    #[arg(long, default_value_t = 60)]
    rest_ms: u64,
    /// How long a client waits for an answer, seconds
    #[arg(long, default_value_t = 5.0)]
    patience: f64,
    /// Mean length of a fault, seconds
    #[arg(long, default_value_t = 4.0)]
    fault: f64,
    /// Mean rest between two faults of one lane, seconds
    #[arg(long, default_value_t = 4.0)]
    between: f64,
    /// The server's binary
    #[arg(long, env = "RINGFENCE_BINARY", default_value = "ringfence")]
    binary: PathBuf,
    /// Another build of it, for rolling upgrades
    #[arg(long)]
    other_binary: Option<PathBuf>,
    /// The binary was built with the feature test-clock
    #[arg(long)]
    test_clock: bool,
    /// How nodes are joined
    #[arg(long, value_enum, default_value_t = NetKind::Auto)]
    net: NetKind,
    /// Folder of the report
    #[arg(long)]
    out: Option<PathBuf>,
    /// Longest search for one key, seconds
    #[arg(long, default_value_t = 30.0)]
    per_key: f64,
    /// Says nothing but the verdicts
    #[arg(long)]
    quiet: bool,
}

/// Runs a command line; answers the exit code.
pub fn main(words: impl IntoIterator<Item = OsString>, interrupted: &Arc<AtomicBool>) -> u8 {
    let cli = match Cli::try_parse_from(words) {
        Ok(c) => c,
        Err(e) => {
            // help and version are no failures
            let code = if e.use_stderr() { NOT_RUN } else { PASSED };
            let _ = e.print();
            return code;
        }
    };
    let done = match cli.command {
        Verb::List => {
            list();
            return PASSED;
        }
        Verb::Check { history, per_key, out } => judge(&history, seconds(per_key), out.as_deref()),
        Verb::Run { scenario, options } => start(&scenario, None, options, interrupted),
        Verb::Gaps { rounds, options } => measure(rounds, options, interrupted),
        Verb::Chaos { minutes, options } => start("chaos", Some(60.0 * minutes), options, interrupted),
    };
    done.unwrap_or_else(|e| {
        eprintln!("{e}");
        if interrupted.load(Ordering::Relaxed) { INTERRUPTED } else { NOT_RUN }
    })
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or_default()
}

fn code(found: &[Finding]) -> u8 {
    match check::worst(found) {
        Verdict::Passed => PASSED,
        Verdict::Broken => BROKEN,
        Verdict::Unknown => UNKNOWN,
    }
}

fn start(name: &str, length: Option<f64>, o: Options, interrupted: &Arc<AtomicBool>) -> Result<u8, String> {
    let s = scenario::named(name)?;
    let seed = o.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let names = match o.faults.is_empty() {
        true => s.faults.iter().map(|f| (*f).to_owned()).collect(),
        false => o.faults,
    };
    let workloads = if o.workloads.is_empty() { s.workload_names() } else { o.workloads };
    if let Some(w) = workloads.iter().find(|w| !work::ALL.contains(&w.as_str())) {
        return Err(format!("no workload is called {w:?}; `ringfence-jepsen list` tells all"));
    }
    if o.nodes == 0 || o.nodes > 200 {
        return Err("a cluster has 1 to 200 nodes".into());
    }
    let folder = o.out.unwrap_or_else(|| PathBuf::from(format!("jepsen-{name}-{seed}")));
    if folder.join("history.jsonl").exists() {
        return Err(format!("{} holds a run already", folder.display()));
    }
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    // processes are started from elsewhere, and configurations name whole paths
    let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    let run = Run {
        name: name.to_owned(),
        seed,
        length: length.or(o.seconds).map_or(s.length(), seconds),
        nodes: o.nodes,
        workloads,
        faults: scenario::faults(&names)?,
        clients: o.clients,
        rest: Duration::from_millis(o.rest_ms),
        patience: seconds(o.patience),
        pace: Pace { rest: seconds(o.between), length: seconds(o.fault) },
        binary: binary(&o.binary)?,
        other_binary: o.other_binary.as_deref().map(binary).transpose()?,
        clocks: o.test_clock,
        net: o.net,
        folder: folder.clone(),
        limits: Limits { per_key: seconds(o.per_key), ..Limits::default() },
    };
    let say = |text: &str| {
        if !o.quiet {
            eprintln!("{text}");
        }
    };
    say(&format!("{name}, seed {seed}, {:?}: {}", run.length, folder.display()));
    let outcome = run.go(interrupted.clone(), say)?;
    report::write(&folder, &outcome).map_err(|e| format!("{}: {e}", folder.display()))?;
    tell(&outcome);
    println!("{}", folder.join("index.html").display());
    Ok(if outcome.facts.interrupted { INTERRUPTED } else { code(&outcome.findings) })
}

fn measure(rounds: usize, o: Options, interrupted: &Arc<AtomicBool>) -> Result<u8, String> {
    if !(3..=200).contains(&o.nodes) {
        return Err("a cluster that survives the loss of a node has 3 to 200".into());
    }
    let folder = o.out.unwrap_or_else(|| PathBuf::from("jepsen-gaps"));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    let plan = Plan {
        nodes: o.nodes,
        binary: binary(&o.binary)?,
        folder,
        net: o.net,
        own_disks: false,
        clocks: o.test_clock,
    };
    let cluster = Cluster::build(plan)?;
    cluster.form()?;
    work::set_up(&cluster)?;
    let found = gaps::measure(&cluster, rounds, interrupted)?;
    for (what, all) in [("killed", &found.kills), ("handed over", &found.hand_overs)] {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|p| gaps::percentile(all, p).unwrap_or_default());
        println!(
            "{what:<12} {:>4} times   p50 {p50:>6.0} ms   p90 {p90:>6.0} ms   p99 {p99:>6.0} ms   max {max:>6.0} ms",
            all.len()
        );
    }
    println!("writes lost by hand-overs: {}", found.lost.len());
    found.lost.iter().take(10).for_each(|why| println!("  {why}"));
    Ok(if found.lost.is_empty() { PASSED } else { BROKEN })
}

/// A binary by its path, or by its name beside ours or on the way.
fn binary(path: &Path) -> Result<PathBuf, String> {
    if path.components().count() > 1 {
        return path.canonicalize().map_err(|e| format!("{}: {e}", path.display()));
    }
    let beside = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned));
    let way = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&way))
        .map(|dir| dir.join(path))
        .find(|p| p.is_file())
        .ok_or_else(|| format!("{}: not found; --binary says where the server is", path.display()))
}

fn judge(history: &Path, per_key: Duration, out: Option<&Path>) -> Result<u8, String> {
    let h = History::read(history)?;
    let findings = check::judge(&h, &[], Limits { per_key, ..Limits::default() });
    let facts = Facts {
        scenario: format!("{}, judged again", history.display()),
        seconds: h.end as f64 / 1e9,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        ..Facts::default()
    };
    let outcome = Outcome { facts, history: h, findings };
    tell(&outcome);
    if let Some(folder) = out {
        std::fs::create_dir_all(folder)
            .and_then(|()| report::write(folder, &outcome))
            .map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    Ok(code(&outcome.findings))
}

fn tell(o: &Outcome) {
    for f in &o.findings {
        println!("{:<24} {:<8} {}", f.property, format!("{:?}", f.verdict).to_lowercase(), f.notes.join("; "));
    }
}

fn list() {
    println!("scenarios");
    for s in scenario::ALL {
        println!("  {:<20} {} ({} s)", s.name, s.about, s.seconds);
    }
    println!("workloads");
    for w in work::ALL {
        println!("  {w:<20} {}", work::about(w));
    }
    println!("faults");
    for n in nemesis::ALL {
        println!("  {:<20} {}", n.name, n.about);
    }
}
