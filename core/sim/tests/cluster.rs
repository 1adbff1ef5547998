//! A cluster keeps its promises whatever the network and its nodes do.

use ringfence_sim::{ClusterRun, RestoreRun};

/// Seeds of one run; more by the environment.
fn seeds() -> u64 {
    option_env!("RINGFENCE_SIM_SEEDS").and_then(|v| v.parse().ok()).unwrap_or(6)
}

#[test]
fn three_nodes_keep_what_was_acknowledged() {
    let (mut acknowledged, mut forwarded, mut stood_by, mut losses) = (0, 0, 0, 0);
    let (mut terms, mut installs, mut compared) = (0, 0, 0);
    for seed in 1..=seeds() {
        match (ClusterRun { seed, nodes: 3, steps: 50_000, mutant: None }).go() {
            Ok(r) => {
                acknowledged += r.acknowledged;
                forwarded += r.forwarded;
                stood_by += r.stood_by;
                installs += r.installs;
                losses += r.losses;
                compared += r.compared;
                terms += r.terms;
            }
            Err(v) => panic!("seed {}: {}", v.seed, v.what),
        }
    }
    assert!(acknowledged > 1000, "the clients were not at work: {acknowledged}");
    assert!(forwarded > 100, "no standby passed calls on: {forwarded}");
    assert!(stood_by > 100, "no standby answered by itself: {stood_by}");
    assert!(terms > seeds(), "the lead never changed");
    assert!(installs >= 2 * seeds(), "nobody took over a checkpoint");
    assert!(losses >= seeds() / 3, "no disk was lost: {losses}");
    assert!(compared > 100, "images were not compared");
}

#[test]
fn five_nodes_hold_as_well() {
    if let Err(v) = (ClusterRun { seed: 5, nodes: 5, steps: 50_000, mutant: None }).go() {
        panic!("seed {}: {}", v.seed, v.what);
    }
}

#[test]
fn a_seed_replays_to_the_byte() {
    let run = ClusterRun { seed: 77, nodes: 3, steps: 20_000, mutant: None };
    let (a, b) = (run.go().expect("holds"), run.go().expect("holds"));
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

#[test]
fn a_restored_snapshot_is_there_on_all_nodes_or_on_none() {
    let (mut restores, mut restored) = (0, 0);
    for seed in 1..=seeds() {
        match (RestoreRun { seed }).go() {
            Ok(r) => {
                restores += r.restores;
                restored += r.restored;
            }
            Err(v) => panic!("seed {}: {}", v.seed, v.what),
        }
    }
    assert!(restores > 3 * seeds() && restored > 0, "nothing was restored: {restores}, {restored}");
}
