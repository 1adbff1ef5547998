//! A property that does not catch the machine it is there to catch proves nothing: each mutant is caught, by the property
//! that is named here, and the same seeds without it pass.

use ringfence_sim::{ClusterRun, Mutant, Run, Violation, promise};

/// Seeds that a mutant may live through before it is caught.
const SEEDS: u64 = 12;

fn cluster(seed: u64, mutant: Option<Mutant>) -> Result<(), Violation> {
    ClusterRun { seed, nodes: 3, steps: 50_000, mutant }.go().map(drop)
}

fn alone(seed: u64, mutant: Option<Mutant>) -> Result<(), Violation> {
    Run { seed, lives: 8, operations_a_life: 60, mutant }.go().map(drop)
}

fn caught(mutant: Mutant, run: fn(u64, Option<Mutant>) -> Result<(), Violation>, by: &[&str]) {
    for seed in 1..=SEEDS {
        if let Err(v) = run(seed, Some(mutant)) {
            assert!(by.contains(&v.promise()), "{mutant:?}, seed {seed}, is caught by another property: {}", v.what);
            run(seed, None).unwrap_or_else(|v| panic!("seed {seed} fails without any mutant: {}", v.what));
            return;
        }
    }
    panic!("{mutant:?} lives through {SEEDS} seeds");
}

#[test]
fn a_skipped_fsync_is_caught() {
    // what is missing shows as a lost write, or as a hole in the log that the node refuses to start over
    caught(Mutant::SkippedFsync, alone, &[promise::ACKNOWLEDGED, promise::SERVES]);
}

#[test]
fn a_stale_read_is_caught() {
    caught(Mutant::StaleRead, cluster, &[promise::READS]);
}

#[test]
fn a_lost_guard_is_caught() {
    caught(Mutant::LostGuard, cluster, &[promise::VERSIONS, promise::READS]);
}

#[test]
fn an_unchecked_term_is_caught() {
    caught(Mutant::UncheckedTerm, cluster, &[promise::READS, promise::ACKNOWLEDGED, promise::VERSIONS]);
}

#[test]
fn a_reused_nonce_is_caught() {
    caught(Mutant::ReusedNonce, cluster, &[promise::NONCES]);
}
