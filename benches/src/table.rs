//! What the benches of a whole node say and how they keep their house: rows of a table, memory of this process, the
//! directory, a checkpoint asked for.

use crate::node::{self, Node};
use ringfence_node::{Operation, OwnerConfig};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a checkpoint may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Prints a row.
pub fn told(what: &str, value: f64, unit: &str, budget: &str) {
    let shown = match value {
        v if v >= 1000.0 => grouped(v as u64),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    };
    println!("| {what} | {shown} {unit} | {budget} |");
}

/// Configuration of a node as the benches drive it.
pub fn config() -> OwnerConfig {
    OwnerConfig { shards: node::CORES, ..OwnerConfig::default() }
}

/// A new directory for the data of a bench; `DIRECTORY` in the environment names another place for it.
///
/// # Panics
/// If the place takes none.
pub fn directory(bench: &str) -> PathBuf {
    let place = std::env::var("DIRECTORY").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    let dir = place.join(format!("ringfence-{bench}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the place takes directories");
    dir
}

/// Memory of this process, bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Writes to a key-value mount at `kv/` until a checkpoint is made, so that the log is short and nothing of it is left in
/// memory.
///
/// # Panics
/// If none is made.
pub fn force_checkpoint(node: &mut Node, root: &str) {
    let from = node.checkpoints();
    let began = Instant::now();
    let value = "x".repeat(400_000);
    // the one under way does not count: it began before
    while node.checkpoints() < from + 2 {
        assert!(began.elapsed() < PATIENCE, "a checkpoint is made");
        // refused while the log waits for room: then it is tried again
        let reply = node.ask(Operation::Update, "kv/filler", root, json!({"value": value}));
        if !node::is_good(&reply) {
            node.run_for(Duration::from_millis(20));
        }
    }
    node.until(PATIENCE, |n| n.gauges().pending == 0);
    node.must(Operation::Update, "kv/filler", root, json!({"value": "x"}));
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
