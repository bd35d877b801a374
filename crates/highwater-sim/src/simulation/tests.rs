//! Many seeds, one seed alone, and gates that are broken.

use super::*;
use crate::commitment::Commitment;
use crate::ids::Side;
use crate::node::{Command, Input};
use crate::wire::{Body, Message};

/// So many seeds are run where nobody asks for more.
const SEEDS: u64 = 2_000;

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
    // Short searches may not meet all of it.
    if seeds >= SEEDS {
        tally.everything_happened();
    }
}

#[test]
fn some_seeds_under_the_guard_of_the_library() {
    let mut tally = Tally::default();
    for seed in 0..60 {
        tally.add(&run(Plan { real: true, ..Plan::of(seed) }).unwrap().tally);
    }
    assert!(tally.blocked > 0 && tally.cleared > 0 && tally.paid > 0, "{tally:?}");
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..6 {
        let first = run(Plan::of(seed)).unwrap();
        assert_eq!(first.hash, run(Plan::of(seed)).unwrap().hash);
        assert_ne!(first.hash, run(Plan::of(seed + 1)).unwrap().hash);
    }
}

/// A node loses money under a gate that is broken so, within some hundred seeds, or a thousand.
fn is_found_out(broken: Break, policy: Policy, endings: usize) {
    let loses = |seed| {
        let plan = Plan { broken: Some(broken), policy, rogue: None, endings, ..Plan::of(seed) };
        let lost = [Kind::Money, Kind::Revoked, Kind::SignedTwice, Kind::Forgot];
        run(plan).is_err_and(|failed| lost.contains(&failed.breach.kind))
    };
    assert!((0..1_000).any(loses), "nobody lost anything");
}

#[test]
fn a_gate_that_forgets_marks_is_found_out() {
    is_found_out(Break::ForgetsMarks, Policy::Peer, 6);
}

#[test]
fn a_witness_that_is_raised_late_is_found_out() {
    is_found_out(Break::RaisesLate, Policy::Witness, 1);
}

#[test]
fn a_gate_that_ignores_epochs_is_found_out() {
    is_found_out(Break::IgnoresEpochs, Policy::Witness, 1);
}

#[test]
fn a_gate_that_takes_numbers_within_one_is_found_out() {
    is_found_out(Break::WithinOne, Policy::Peer, 1);
}

#[test]
fn a_free_for_all_is_found_out() {
    is_found_out(Break::FreeForAll, Policy::Peer, 6);
    is_found_out(Break::FreeForAll, Policy::Witness, 6);
}

/// A copy of the node may publish it, and needs no move in the witness for that.
#[test]
fn nothing_is_revoked_where_a_close_was_signed() {
    let plan = Plan { policy: Policy::Witness, parties: 2, rogue: None, ..Plan::of(0) };
    let mut world = World::new(plan, Rc::default());
    world.begin().unwrap();
    let id = world.channels.keys().next().unwrap().clone();
    let [victim, liar] = world.channels[&id].ends;
    world.command((victim, 0), Command::Close { channel: id.clone() }).unwrap();
    world.pump().unwrap();
    let live = |world: &World, party: usize| {
        let driver = world.copy((party, 0)).driver.as_ref().unwrap();
        driver.node().live(&id).unwrap().clone()
    };
    let (ours, theirs) = (live(&world, victim), live(&world, liar));
    assert!(ours.is_closing());
    let commitment = Commitment {
        channel: id.clone(),
        owner: Side::Opener,
        number: 1,
        revocation: world.parties[victim].keys.channel(ours.index()).revocation_hash(1),
        balance: ours.balance().clone(),
    };
    let keys = world.parties[liar].keys.channel(theirs.index());
    let signature = keys.signing.sign(&commitment.digest());
    let body = Body::CommitmentSigned { number: 1, signature };
    let says = Input::Message(world.parties[liar].id, Message { channel: id.clone(), body });
    world.input((victim, 0), says, None).unwrap();
    assert_eq!(world.watch.revoked_left.get(&(victim, id.clone())), None);
    assert!(live(&world, victim).stopped().is_some());
}
