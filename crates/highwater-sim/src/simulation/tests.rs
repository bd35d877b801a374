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
    let mut tally = Tally::default();
    for seed in 0..number("HIGHWATER_SIM_SEEDS").unwrap_or(SEEDS) {
        tally.add(&run(Plan::of(seed)).unwrap().tally);
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
