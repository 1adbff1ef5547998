//! Accounts in a database are the accounts of live leases, through crashes of the node and failures of the database.

use ringfence_sim::AccountsRun;

fn seeds() -> u64 {
    option_env!("RINGFENCE_SIM_SEEDS").and_then(|v| v.parse().ok()).unwrap_or(8)
}

#[test]
fn accounts_are_those_of_live_leases() {
    let (mut told, mut made, mut failures, mut revoked, mut compared) = (0, 0, 0, 0, 0);
    for seed in 1..=seeds() {
        match (AccountsRun { seed, lives: 8, operations_a_life: 60, lies: false }).go() {
            Ok(r) => {
                told += r.told;
                made += r.created;
                failures += r.failures;
                revoked += r.revoked;
                compared += r.compared;
            }
            Err(v) => panic!("seed {}: {}", v.seed, v.what),
        }
    }
    assert!(told > 50 && revoked > 10 && failures > 50 && compared > 20, "{told} {revoked} {failures} {compared}");
    assert!(made > told, "no account was made that nobody was told of: {made}");
}

#[test]
fn a_database_that_keeps_what_it_says_it_dropped_is_found_out() {
    let found =
        (1..=4).filter_map(|seed| (AccountsRun { seed, lives: 6, operations_a_life: 60, lies: true }).go().err());
    assert!(found.into_iter().any(|v| v.what.contains("account")), "the comparison compares nothing");
}

#[test]
fn a_seed_replays_to_the_byte() {
    let run = AccountsRun { seed: 5, lives: 3, operations_a_life: 40, lies: false };
    let (a, b) = (run.go().expect("holds"), run.go().expect("holds"));
    assert_eq!((a.digest, a.created, a.told), (b.digest, b.created, b.told));
}
