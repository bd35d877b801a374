//! Many seeds, one seed alone, and gates that are broken.

use super::*;

/// So many seeds are run where nobody asks for more.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[test]
fn many_seeds() {
    if let Some(seed) = number("HIGHWATER_SIM_SEED") {
        run(Plan::of(seed)).unwrap();
        return;
    }
    let seeds = number("HIGHWATER_SIM_SEEDS").unwrap_or(SEEDS);
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    for seed in 0..seeds {
        match run(Plan::of(seed)) {
            Ok(run) => tally.add(&run.tally),
            Err(failure) => failed.push(failure),
        }
    }
    if let Some(first) = failed.iter().min_by_key(|failure| failure.step) {
        let all: Vec<_> = failed.iter().map(|it| (it.plan.seed, it.breach.kind, it.step)).collect();
        panic!("{} of {seeds} seeds failed: {all:?}\n\nthe shortest: {first}", failed.len());
    }
    panic!("{tally:?}");
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..6 {
        let first = run(Plan::of(seed)).unwrap();
        assert_eq!(first.hash, run(Plan::of(seed)).unwrap().hash);
        assert_ne!(first.hash, run(Plan::of(seed + 1)).unwrap().hash);
    }
}

/// Whether a node loses money under a gate that is broken so, within some hundred seeds.
fn is_found(broken: Break, policy: Policy) {
    let mut others = Vec::new();
    for seed in 0..400 {
        let plan = Plan { broken: Some(broken), policy, rogue: None, ..Plan::of(seed) };
        let Err(failed) = run(plan) else { continue };
        if matches!(failed.breach.kind, Kind::Money | Kind::Revoked | Kind::SignedTwice) {
            println!("{broken:?} {seed} {:?}", failed.breach);
            return;
        }
        others.push(failed.breach.kind);
    }
    panic!("nobody lost anything: {others:?}");
}

#[test]
fn a_gate_that_forgets_marks_is_found_out() {
    is_found(Break::ForgetsMarks, Policy::Peer);
}

#[test]
fn a_witness_that_is_raised_late_is_found_out() {
    is_found(Break::RaisesLate, Policy::Witness);
}

#[test]
fn a_gate_that_ignores_epochs_is_found_out() {
    is_found(Break::IgnoresEpochs, Policy::Witness);
}

#[test]
fn a_gate_that_takes_numbers_within_one_is_found_out() {
    is_found(Break::WithinOne, Policy::Peer);
}

#[test]
fn a_free_for_all_is_found_out() {
    is_found(Break::FreeForAll, Policy::Peer);
    is_found(Break::FreeForAll, Policy::Witness);
}
