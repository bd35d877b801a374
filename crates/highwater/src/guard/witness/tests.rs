use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::*;
use crate::env::Clock;

mod faults;
mod line;
mod model;
mod races;

/// A clock that stands: pauses take no time.
struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        Time::from_nanos(1_790_000_000_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn pause(&self, _: Duration) {}
}

fn env() -> Env {
    Env::system().with_clock(Still)
}

fn node() -> NodeName {
    "node".parse().unwrap()
}

fn start(store: impl WitnessStore + 'static, holder: &str) -> Witness {
    Witness::take_over(Arc::new(store), node(), holder.to_owned(), &env()).unwrap()
}

/// A channel of a healthy node at its `number`th move, stored under `epoch`.
fn ours(number: u64, epoch: u64) -> Ours {
    Ours { signed: Some(number), revoked: number, received: number, closing: false, epoch }
}

fn moved(channel: &str, number: u64, epoch: u64) -> Move {
    Move { channel: channel.to_owned(), ours: ours(number, epoch) }
}

/// Raises all numbers of a channel, as a node does that stores them under the right epoch.
fn raise(witness: &Witness, channel: &str, number: u64) -> Result<Raised> {
    witness.raise(&[moved(channel, number, witness.epoch())], &[])
}

fn kind(raised: Result<Raised>) -> Kind {
    raised.unwrap_err().kind()
}

/// What the next start would find of a channel.
fn stored(store: &dyn WitnessStore, channel: &str) -> Option<WitnessEntry> {
    Witness::look(store, &node()).unwrap()?.channels.get(channel).copied()
}

fn local_vault() -> (tempfile::TempDir, Arc<crate::vault::Vault>) {
    use crate::vault::{CreateOptions, Location, Secret, Vault};
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let location = Location::Local(dir.path().join("vault"));
    let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
    let vault =
        Vault::create_with(&location, &secret, &CreateOptions::default(), &env()).unwrap().vault;
    (dir, Arc::new(vault))
}

#[test]
fn every_place_of_a_witness_keeps_its_promises() {
    let memory = MemoryWitness::new();
    conformance::run(&|| Box::new(memory.clone()));
    let (_dir, vault) = local_vault();
    conformance::run(&|| Box::new(VaultWitness::new(Arc::clone(&vault), node()).unwrap()));
    let other = VaultWitness::new(vault, "node-2".parse().unwrap()).unwrap();
    assert_eq!(other.newest().unwrap(), None, "each node has its own");
}

#[test]
fn the_next_start_finds_what_was_raised() {
    let store = MemoryWitness::new();
    let first = start(store.clone(), "first");
    assert_eq!((first.epoch(), first.of("a"), first.counter("keys")), (1, None, None));
    let closing = Ours { closing: true, signed: Some(4), ..ours(3, 1) };
    let moves = [moved("a", 7, 1), Move { channel: "b".to_owned(), ours: closing }];
    assert_eq!(first.raise(&moves, &[("keys".to_owned(), 5)]).unwrap(), Raised::Durable);

    let second = start(store, "second");
    assert_eq!(second.epoch(), 2);
    assert_eq!(second.counter("keys"), Some(5));
    let expected = highwater_guard::Witness {
        signed: 7,
        revoked: 7,
        received: 7,
        closing: false,
        continuous: true,
        owned: true,
        epoch: 1,
    };
    assert_eq!(second.of("a"), Some(expected));
    let other = highwater_guard::Witness { signed: 4, revoked: 3, received: 3, ..expected };
    assert_eq!(second.of("b"), Some(highwater_guard::Witness { closing: true, ..other }));
}

#[test]
fn only_what_rose_belongs_to_the_new_epoch() {
    let store = MemoryWitness::new();
    let first = start(store.clone(), "first");
    for channel in ["a", "b"] {
        assert_eq!(raise(&first, channel, 3).unwrap(), Raised::Durable);
    }
    let second = start(store.clone(), "second");
    // What was stored and raised under the old epoch is told again, and stays what it is.
    let puts = store.puts();
    assert_eq!(second.raise(&[moved("a", 3, 1)], &[]).unwrap(), Raised::Durable);
    assert_eq!(store.puts(), puts, "what stands already costs nothing");
    assert_eq!(raise(&second, "b", 4).unwrap(), Raised::Durable);
    assert_eq!(stored(&store, "a").unwrap().epoch, 1);
    assert_eq!(stored(&store, "b").unwrap().epoch, 2);
}

#[test]
fn no_epoch_is_given_out_again_where_the_witness_was_lost() {
    use highwater_guard::{Evidence, Policy, Reason, Verdict, judge};
    let take = |store: &MemoryWitness, known| {
        let store = Arc::new(store.clone());
        Witness::take_over_above(store, node(), "us".to_owned(), known, &env()).unwrap()
    };
    let lost = MemoryWitness::new();
    (0..7).for_each(|_| drop(start(lost.clone(), "us")));
    let old = take(&lost, 3);
    assert_eq!(old.epoch(), 8, "one above its own, where that is higher");
    assert_eq!(raise(&old, "a", 5).unwrap(), Raised::Durable);
    // A copy of this state, with a 6 that nobody has seen, sleeps while the witness is lost.
    let asleep = ours(6, old.epoch());
    let anew = MemoryWitness::new();
    let next = take(&anew, old.epoch());
    assert_eq!(next.epoch(), 9);
    assert_eq!(raise(&next, "a", 6).unwrap(), Raised::Durable);
    let again = take(&anew, asleep.epoch);
    let evidence =
        Evidence { witness: again.of("a"), policy: Policy::Witness, ..Evidence::default() };
    assert_eq!(judge(&asleep, &evidence), Verdict::Blocked(Reason::MovedElsewhere));
}

#[test]
fn a_move_that_was_stored_under_another_epoch_is_a_bug() {
    let store = MemoryWitness::new();
    drop(start(store.clone(), "first"));
    let second = start(store.clone(), "second");
    for epoch in [0, 1, 3] {
        assert_eq!(kind(second.raise(&[moved("a", 1, epoch)], &[])), Kind::Bug, "{epoch}");
    }
    assert_eq!(stored(&store, "a"), None);
    assert_eq!(raise(&second, "a", 1).unwrap(), Raised::Durable);
}

#[test]
fn a_number_below_the_one_that_stands_is_a_bug_and_changes_nothing() {
    let store = MemoryWitness::new();
    let witness = start(store.clone(), "first");
    let high = Ours { signed: Some(5), revoked: 5, received: 5, closing: true, epoch: 1 };
    let step = |ours| Move { channel: "a".to_owned(), ours };
    let counter = |value| ("keys".to_owned(), value);
    assert_eq!(witness.raise(&[step(high)], &[counter(9)]).unwrap(), Raised::Durable);
    let stands = witness.record();
    for (lower, keys) in [
        (Ours { signed: Some(4), ..high }, 9),
        (Ours { revoked: 4, ..high }, 9),
        (Ours { received: 4, ..high }, 9),
        (Ours { closing: false, ..high }, 9),
        (Ours { signed: None, received: 4, ..high }, 9),
        (high, 8),
    ] {
        let new = moved("b", 1, 1);
        let risen = step(Ours { signed: Some(6), ..high });
        assert_eq!(kind(witness.raise(&[new, risen, step(lower)], &[counter(keys)])), Kind::Bug);
    }
    assert_eq!(witness.record(), stands);
    assert_eq!(Witness::look(&store, &node()).unwrap(), Some(stands));
}

#[test]
fn a_node_that_cant_tell_what_it_signed_is_known_by_what_it_received() {
    let witness = start(MemoryWitness::new(), "first");
    let unknown = Ours { signed: None, received: 4, ..ours(5, 1) };
    let step = Move { channel: "a".to_owned(), ours: unknown };
    assert_eq!(witness.raise(&[step], &[]).unwrap(), Raised::Durable);
    let told = witness.of("a").unwrap();
    assert_eq!((told.signed, told.revoked, told.received), (4, 5, 4));
    let evidence = highwater_guard::Evidence {
        witness: Some(told),
        policy: highwater_guard::Policy::Witness,
        ..Default::default()
    };
    let verdict = highwater_guard::judge(&unknown, &evidence);
    assert_ne!(verdict, highwater_guard::Verdict::Blocked(highwater_guard::Reason::WitnessAhead));
}

#[test]
fn channels_that_the_node_lacks_are_named_until_they_are_retired() {
    let store = MemoryWitness::new();
    let first = start(store.clone(), "first");
    let moves = ["a", "b", "c"].map(|channel| moved(channel, 1, 1));
    assert_eq!(first.raise(&moves, &[]).unwrap(), Raised::Durable);
    first.retire("c").unwrap();
    first.retire("never was there").unwrap();

    let second = start(store.clone(), "second");
    assert_eq!(second.lacking(["a", "b", "d"].into_iter()), Vec::<String>::new());
    assert_eq!(second.lacking(["b", "d"].into_iter()), ["a"]);
    assert_eq!(second.lacking([].into_iter()), ["a", "b"]);
    second.retire("a").unwrap();
    assert_eq!(second.lacking(["b"].into_iter()), Vec::<String>::new());
    assert_eq!(stored(&store, "a"), None);
}

#[test]
fn what_was_open_while_it_was_off_is_never_cleared_by_it() {
    let store = MemoryWitness::new();
    let first = start(store.clone(), "first");
    assert_eq!(raise(&first, "a", 1).unwrap(), Raised::Durable);
    assert_eq!(first.switch_off(" ").unwrap_err().kind(), Kind::Input);
    first.switch_off("the vault moves").unwrap();
    let record = Witness::look(&store, &node()).unwrap().unwrap();
    assert_eq!(record.off.unwrap().reason, "the vault moves");
    assert!(!stored(&store, "a").unwrap().continuous);

    // Nothing is written, and nobody is told that it was.
    let puts = store.puts();
    let keys = [("keys".to_owned(), 1)];
    let answer = first.raise(&[moved("a", 2, 1), moved("b", 1, 1)], &keys).unwrap();
    assert_eq!((answer, store.puts()), (Raised::SwitchedOff, puts));
    assert_eq!(kind(first.raise(&[moved("a", 0, 1)], &[])), Kind::Bug);

    // It stays off over a start, until it is switched on.
    let second = start(store.clone(), "second");
    assert_eq!(raise(&second, "b", 1).unwrap(), Raised::SwitchedOff);
    assert_eq!((second.of("b"), second.counter("keys")), (None, None));
    second.switch_on().unwrap();
    for channel in ["a", "c"] {
        assert_eq!(raise(&second, channel, 3).unwrap(), Raised::Durable);
    }
    let third = start(store, "third");
    assert_eq!(third.record().off, None);
    let (a, c) = (third.of("a").unwrap(), third.of("c").unwrap());
    assert_eq!((a.signed, a.continuous, c.signed, c.continuous), (3, false, 3, true));
}

#[test]
fn what_an_operator_released_counts_from_then_on() {
    let store = MemoryWitness::new();
    let first = start(store.clone(), "first");
    let closing = Ours { closing: true, ..ours(9, 1) };
    let step = Move { channel: "a".to_owned(), ours: closing };
    assert_eq!(first.raise(&[step, moved("b", 1, 1)], &[]).unwrap(), Raised::Durable);
    let second = start(store.clone(), "second");
    second.accept("a", &ours(4, second.epoch())).unwrap();
    let released = stored(&store, "a").unwrap();
    assert_eq!((released.signed, released.closing, released.epoch), (4, false, 2));
    assert_eq!(kind(raise(&second, "a", 3)), Kind::Bug);
    assert_eq!(raise(&second, "a", 5).unwrap(), Raised::Durable);
    assert_eq!(stored(&store, "b").unwrap().epoch, 1, "no other channel is touched");
    second.switch_off("why").unwrap();
    second.accept("c", &ours(1, 2)).unwrap();
    assert!(!stored(&store, "c").unwrap().continuous);
}

#[test]
fn it_is_off_only_once_that_is_written_into_it() {
    let store = MemoryWitness::new();
    let witness = start(store.clone(), "first");
    store.cut_off(true);
    assert_eq!(witness.switch_off("gone").unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(kind(raise(&witness, "a", 1)), Kind::Unavailable);
    assert_eq!(witness.record().off, None);
}

#[test]
fn a_record_of_another_witness_is_refused() {
    let store = MemoryWitness::new();
    drop(start(store.clone(), "first"));
    let of = |name: &str| {
        let store = Arc::new(store.clone());
        Witness::take_over(store, name.parse().unwrap(), "other".to_owned(), &env())
    };
    assert_eq!(of("other").unwrap_err().kind(), Kind::Corrupt);
    assert!(store.put_new(2, b"{\"version\":2}").unwrap());
    assert_eq!(of("node").unwrap_err().kind(), Kind::Input);
    assert!(store.put_new(3, b"{\"version\":1}").unwrap());
    assert_eq!(of("node").unwrap_err().kind(), Kind::Corrupt);
}
