//! A node that crashes at any disk operation keeps what it acknowledged.

use ringfence_sim::Run;

/// Seeds of one run; more by the environment.
fn seeds() -> u64 {
    option_env!("RINGFENCE_SIM_SEEDS").and_then(|v| v.parse().ok()).unwrap_or(24)
}

#[test]
fn acknowledgements_survive_crashes_at_any_operation() {
    let (mut acknowledged, mut checkpoints, mut tips) = (0, 0, 0);
    for seed in 1..=seeds() {
        match (Run { seed, lives: 10, operations_a_life: 60, mutant: None }).go() {
            Ok(r) => {
                acknowledged += r.acknowledged;
                tips += r.tips;
                checkpoints += u64::from(r.checkpoint > 0);
            }
            Err(v) => panic!("seed {}: {}", v.seed, v.what),
        }
    }
    assert!(acknowledged > 1000, "the clients were not at work: {acknowledged}");
    assert!(checkpoints > 0, "no run reached a checkpoint");
    assert!(tips > 0, "nobody met at the tip");
}

#[test]
fn a_seed_replays_to_the_byte() {
    let run = Run { seed: 77, lives: 4, operations_a_life: 40, mutant: None };
    let (a, b) = (run.go().expect("holds"), run.go().expect("holds"));
    assert_eq!((a.digest, a.acknowledged, a.operations), (b.digest, b.acknowledged, b.operations));
}
