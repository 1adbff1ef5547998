//! `sim --seed N` replays a run; `sim --seeds A..B` sweeps; `--nodes 3` makes it a cluster,
//! `--database` gives the node a database with accounts. Exit code 1 on a broken promise, with its seed.

use ringfence_sim::{AccountsRun, ClusterRun, Run};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let number = |name: &str, preset: u64| value(name).and_then(|v| v.parse().ok()).unwrap_or(preset);
    let (first, last) = match (value("--seed"), value("--seeds")) {
        (Some(s), _) => s.parse().map(|n: u64| (n, n + 1)).unwrap_or((1, 2)),
        (None, Some(range)) => {
            let (a, b) = range.split_once("..").unwrap_or(("1", "33"));
            (a.parse().unwrap_or(1), b.parse().unwrap_or(33))
        }
        _ => (1, 33),
    };
    let (lives, operations_a_life) = (number("--lives", 12), number("--operations", 60));
    let nodes = number("--nodes", 1) as usize;
    if nodes > 1 {
        let steps = number("--steps", 100_000);
        for seed in first..last {
            match (ClusterRun { seed, nodes, steps, mutant: None }).go() {
                Ok(r) => println!("seed {seed}: {r:?}"),
                Err(v) => {
                    println!("seed {}: BROKEN: {}", v.seed, v.what);
                    std::process::exit(1);
                }
            }
        }
        return;
    }
    if args.iter().any(|a| a == "--database") {
        for seed in first..last {
            match (AccountsRun { seed, lives, operations_a_life, lies: false }).go() {
                Ok(r) => println!("seed {seed}: {r:?}"),
                Err(v) => {
                    println!("seed {}: BROKEN: {}", v.seed, v.what);
                    std::process::exit(1);
                }
            }
        }
        return;
    }
    for seed in first..last {
        match (Run { seed, lives, operations_a_life, mutant: None }).go() {
            Ok(r) => println!(
                "seed {seed}: {} crashes, {} disk operations, {} acknowledged, checkpoint at {}, digest {:016x}",
                r.crashes, r.operations, r.acknowledged, r.checkpoint, r.digest
            ),
            Err(v) => {
                println!("seed {}: BROKEN: {}", v.seed, v.what);
                std::process::exit(1);
            }
        }
    }
}
