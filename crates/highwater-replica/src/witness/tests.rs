//! A witness on a server in memory: what every place promises, and what only this one does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater::env::Clock;
use highwater::guard::{Move, Raised, Witness, WitnessRecord, witness_conformance as conformance};
use highwater::ids::{NodeName, Time};
use highwater::{Kind, Result};
use highwater_guard::Ours;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::remote::{Listed, MemoryRemote, Put, RemoteFault, RemotePut, Versioned};

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

/// Raises all numbers of a healthy channel, as a node does that stores them under the right epoch.
fn raise(witness: &Witness, channel: &str, number: u64) -> Result<Raised> {
    let (signed, epoch) = (Some(number), witness.epoch());
    let ours = Ours { signed, revoked: number, received: number, closing: false, epoch };
    witness.raise(&[Move { channel: channel.to_owned(), ours }], &[])
}

fn kind(raised: Result<Raised>) -> Kind {
    raised.unwrap_err().kind()
}

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], "store").unwrap()
}

fn place(remote: &Arc<impl Remote + 'static>) -> VssWitness {
    VssWitness::new(Arc::clone(remote) as _, keys(), &env())
}

fn server() -> Arc<MemoryRemote> {
    Arc::default()
}

/// A state sealed by another program, by the documentation alone: record 3, at version 2.
const FIXTURE_NAME: &str = "witness.000102030405060708090a0b0c0d0e0f";
const FIXTURE: &str = concat!(
    "01000102030405060708090a0b3715482019b44c657342c45e8067c448d2f660995185313d1740b18916f1e3",
    "12d83ecafc580e2260ba34f8c10a484c4f3f4e7d97f68be3195334"
);

/// The names of the witness's objects, without the root.
fn names(remote: &MemoryRemote) -> Vec<String> {
    let names = remote.values().into_keys().filter(|name| name.starts_with("witness."));
    names.filter(|name| name != "witness.root").collect()
}

fn newest(remote: &Arc<MemoryRemote>) -> WitnessRecord {
    Witness::look(&place(remote), &node()).unwrap().unwrap()
}

/// A server on which others act just before a put.
struct Meanwhile {
    remote: Arc<MemoryRemote>,
    others: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Meanwhile {
    fn on(remote: &Arc<MemoryRemote>, others: impl FnOnce() + Send + 'static) -> Arc<Meanwhile> {
        let others = Mutex::new(vec![Box::new(others) as _]);
        Arc::new(Meanwhile { remote: Arc::clone(remote), others })
    }
}

impl Remote for Meanwhile {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.remote.get(key)
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        let other = self.others.lock().pop();
        if let Some(other) = other {
            other();
        }
        self.remote.put(put)
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        self.remote.list(prefix, page)
    }
}

#[test]
fn a_witness_on_a_server_keeps_the_promises_of_its_contract() {
    let remote = server();
    conformance::run(&|| Box::new(place(&remote)));
    assert_eq!(names(&remote).len(), 1);
}

#[test]
fn of_two_first_starts_one_wins() {
    let remote = server();
    let other = place(&remote);
    let one = Meanwhile::on(&remote, move || assert!(other.put_new(1, b"other").unwrap()));
    assert!(!place(&one).put_new(1, b"one").unwrap());
    assert_eq!(place(&remote).newest().unwrap(), Some((1, b"other".to_vec())));
    assert_eq!(names(&remote).len(), 1);
}

#[test]
fn of_two_takeovers_and_of_a_takeover_and_a_put_one_wins() {
    let remote = server();
    let first = place(&remote);
    assert!(first.put_new(1, b"first").unwrap());
    let other = place(&remote);
    let one = Meanwhile::on(&remote, move || assert!(other.put_new(2, b"other").unwrap()));
    assert!(!place(&one).put_new(2, b"one").unwrap());
    assert!(!first.put_new(2, b"first").unwrap());
    assert!(!first.put_new(3, b"first").unwrap() || names(&remote).len() == 1);

    let remote = server();
    let first = place(&remote);
    assert!(first.put_new(1, b"first").unwrap());
    let next = Meanwhile::on(&remote, move || assert!(first.put_new(2, b"again").unwrap()));
    assert!(!place(&next).put_new(2, b"next").unwrap());
    assert_eq!(place(&remote).newest().unwrap(), Some((2, b"again".to_vec())));
    assert_eq!(names(&remote).len(), 1);
}

#[test]
fn a_start_writes_with_one_round_trip_under_a_name_of_its_own() {
    let remote = server();
    let first = start(place(&remote), "first");
    let name = names(&remote);
    for number in 1..=3 {
        let puts = remote.puts();
        // The first call is the put, and there is no other one: it would be lost.
        remote.fail([None, Some(RemoteFault::Request)]);
        assert_eq!(raise(&first, "a", number).unwrap(), Raised::Durable);
        assert_eq!(remote.puts() - puts, 1);
        remote.set_calm();
    }
    assert_eq!(names(&remote), name);
    let second = start(place(&remote), "second");
    assert_ne!(names(&remote), name);
    assert_eq!(second.of("a").unwrap().signed, 3);
    let told = raise(&first, "a", 4).unwrap_err();
    assert_eq!(told.kind(), Kind::Fenced);
    assert!(told.to_string().contains("second"), "{told}");
    assert_eq!(first.confirm().unwrap_err().kind(), Kind::Fenced);
    second.confirm().unwrap();
    assert_eq!(newest(&remote).channels["a"].signed, 3);
}

#[test]
fn whoever_was_taken_over_fails_on_a_server_that_was_wiped_and_counts_the_same_again() {
    let remote = server();
    let first = start(place(&remote), "first");
    for number in 1..=4 {
        assert_eq!(raise(&first, "a", number).unwrap(), Raised::Durable);
    }
    let before = newest(&remote);
    remote.set_values(BTreeMap::new());
    let second = start(place(&remote), "second");
    for number in 1..=4 {
        assert_eq!(raise(&second, "a", number).unwrap(), Raised::Durable);
    }
    let refilled = newest(&remote);
    assert_eq!((refilled.number, refilled.epoch), (before.number, before.epoch));
    let versions: Vec<i64> = remote.values().into_values().map(|(version, _)| version).collect();
    assert_eq!(versions, [5, 1]);
    assert_eq!(kind(raise(&first, "a", 5)), Kind::Fenced);
    assert_eq!(newest(&remote), refilled);
    assert_eq!(raise(&second, "a", 5).unwrap(), Raised::Durable);
}

#[test]
fn an_equal_number_of_another_history_is_not_written_over() {
    let remote = server();
    let first = place(&remote);
    assert!(first.put_new(1, b"first").unwrap());
    remote.fail([Some(RemoteFault::Request)]);
    assert_eq!(first.put_new(2, b"first").unwrap_err().kind(), Kind::Unavailable);
    remote.set_values(BTreeMap::new());
    assert!(place(&remote).put_new(1, b"other").unwrap());
    for _ in 0..2 {
        assert!(!first.put_new(2, b"first").unwrap());
    }
    assert_eq!(place(&remote).newest().unwrap(), Some((1, b"other".to_vec())));
}

#[test]
fn a_put_that_arrives_late_is_known_again_whenever_it_does() {
    for calls in 0..6 {
        let remote = server();
        let store = place(&remote);
        assert!(store.put_new(1, b"one").unwrap());
        remote.fail([Some(RemoteFault::Late(calls))]);
        assert_eq!(store.put_new(2, b"two").unwrap_err().kind(), Kind::Unavailable);
        assert!(store.put_new(2, b"two").unwrap(), "after {calls} calls");
        assert!(store.put_new(3, b"three").unwrap(), "after {calls} calls");
        assert_eq!(place(&remote).newest().unwrap(), Some((3, b"three".to_vec())));
    }
}

#[test]
fn a_server_that_was_set_back_is_found_out() {
    let remote = server();
    let witness = start(place(&remote), "us");
    let before = remote.values();
    assert_eq!(raise(&witness, "a", 1).unwrap(), Raised::Durable);
    remote.set_values(before);
    assert_eq!(kind(raise(&witness, "a", 2)), Kind::Corrupt);
    remote.set_values(BTreeMap::new());
    assert_eq!(kind(raise(&witness, "a", 2)), Kind::Corrupt);
    assert_eq!(witness.confirm().unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_lost_or_doubled_or_foreign_or_older_object_is_refused() {
    let remote = server();
    let first = place(&remote);
    assert!(first.put_new(1, b"one").unwrap());
    let old = remote.values();
    assert!(first.put_new(2, b"two").unwrap());
    let stands = remote.values();
    let name = &names(&remote)[0];
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Versioned>)| {
        let mut values = stands.clone();
        change(&mut values);
        remote.set_values(values);
        // With and without knowing the name.
        let told = [place(&remote).newest(), place(&remote).put_new(3, b"x").map(|_| None)];
        let kinds = told.map(|told| told.unwrap_err().kind());
        assert_eq!(kinds[0], kinds[1]);
        kinds[0]
    };
    assert_eq!(refused(&|values| drop(values.remove(name))), Kind::Corrupt, "lost");
    let second = format!("witness.{}", "0".repeat(32));
    let doubled = |values: &mut BTreeMap<String, Versioned>| {
        let one = values[name].clone();
        values.insert(second.clone(), one);
    };
    assert_eq!(refused(&doubled), Kind::Corrupt, "two of them");
    let moved = |values: &mut BTreeMap<String, Versioned>| {
        let one = values.remove(name).unwrap();
        values.insert(second.clone(), one);
    };
    assert_eq!(refused(&moved), Kind::Denied, "another name");
    let named = |values: &mut BTreeMap<String, Versioned>| {
        let one = values.remove(name).unwrap();
        values.insert("witness.mine".to_owned(), one);
    };
    assert_eq!(refused(&named), Kind::Corrupt, "a name that nobody gave");
    let older = |values: &mut BTreeMap<String, Versioned>| {
        values.insert(name.clone(), (2, old[name].1.clone()));
    };
    assert_eq!(refused(&older), Kind::Corrupt, "the state before, at the version of now");
    let flipped = |values: &mut BTreeMap<String, Versioned>| {
        *values.get_mut(name).unwrap().1.last_mut().unwrap() ^= 1;
    };
    assert_eq!(refused(&flipped), Kind::Denied, "a changed bit");

    remote.set_values(stands.clone());
    let others = ReplicaKeys::from_entropy(&[8; 32], "store").unwrap();
    let others = VssWitness::new(Arc::clone(&remote) as _, others, &env());
    assert_eq!(others.newest().unwrap_err().kind(), Kind::Denied);
    let elsewhere = ReplicaKeys::from_entropy(&[7; 32], "elsewhere").unwrap();
    let elsewhere = VssWitness::new(Arc::clone(&remote) as _, elsewhere, &env());
    assert_eq!(elsewhere.put_new(3, b"x").unwrap_err().kind(), Kind::Denied);
    assert_eq!(remote.values(), stands);
    let text = remote.values().into_values().flat_map(|(_, value)| value).collect::<Vec<u8>>();
    assert!(!text.windows(3).any(|bytes| bytes == b"two"), "it is sealed");
}

#[test]
fn a_start_that_writes_for_long_takes_another_name() {
    let remote = server();
    let witness = start(place(&remote), "us");
    let mut seen = BTreeSet::from_iter(names(&remote));
    for number in 1..=200 {
        assert_eq!(raise(&witness, "a", number).unwrap(), Raised::Durable);
        seen.extend(names(&remote));
        assert_eq!(names(&remote).len(), 1);
    }
    assert_eq!(seen.len(), 4, "64 states under one name");
    assert_eq!(start(place(&remote), "next").of("a").unwrap().signed, 200);
}

#[test]
fn whatever_call_goes_wrong_a_start_and_its_writes_get_through() {
    for fault in
        [RemoteFault::Request, RemoteFault::Answer, RemoteFault::Late(1), RemoteFault::Late(4)]
    {
        for at in 0..12 {
            let remote = server();
            let first = start(place(&remote), "first");
            assert_eq!(raise(&first, "a", 1).unwrap(), Raised::Durable);
            remote.fail((0..at).map(|_| None).chain([Some(fault)]));
            let second = start(place(&remote), "second");
            for number in 2..5 {
                let told = raise(&second, "a", number);
                assert_eq!(told.unwrap(), Raised::Durable, "{fault:?} at call {at}");
            }
            assert_eq!(kind(raise(&first, "a", 2)), Kind::Fenced);
            assert_eq!(newest(&remote).channels["a"].signed, 4);
            assert_eq!((newest(&remote).epoch, names(&remote).len()), (2, 1));
        }
    }
}

#[test]
fn a_state_that_another_program_has_sealed_opens() {
    let (remote, fixture) = (server(), hex::decode(FIXTURE).unwrap());
    remote.set_values(BTreeMap::from([
        (FIXTURE_NAME.to_owned(), (2, fixture)),
        ("witness.root".to_owned(), (1, Vec::new())),
    ]));
    let store = place(&remote);
    assert_eq!(store.newest().unwrap(), Some((3, b"the record".to_vec())));
    assert!(store.put_new(4, b"the next").unwrap());
    assert!(!names(&remote).contains(&FIXTURE_NAME.to_owned()));
}

#[derive(Clone, Debug)]
enum Step {
    Start(usize),
    Raise { copy: usize, channel: usize },
    Confirm(usize),
    Fail(Vec<Option<RemoteFault>>),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        3 => Just(None),
        1 => Just(Some(RemoteFault::Request)),
        1 => Just(Some(RemoteFault::Answer)),
        1 => (0..12u32).prop_map(|calls| Some(RemoteFault::Late(calls))),
    ];
    prop_oneof![
        2 => (0..3usize).prop_map(Step::Start),
        8 => (0..3usize, 0..2usize).prop_map(|(copy, channel)| Step::Raise { copy, channel }),
        1 => (0..3usize).prop_map(Step::Confirm),
        3 => prop::collection::vec(fault, 1..12).prop_map(Step::Fail),
    ]
}

/// Copies of a node over a server that loses calls, answers, and delivers puts late.
fn run(steps: Vec<Step>) {
    let remote = server();
    let mut copies: [Option<Witness>; 3] = [None, None, None];
    // By channel: the highest number that a copy was told to be durable.
    let mut durable: BTreeMap<String, u64> = BTreeMap::new();
    let mut epoch = 0;
    for step in steps {
        match step {
            Step::Start(copy) => {
                let store = Arc::new(place(&remote));
                let taken = Witness::take_over(store, node(), format!("copy {copy}"), &env());
                if let Ok(taken) = &taken {
                    assert!(taken.epoch() > epoch);
                    epoch = taken.epoch();
                    for (channel, number) in &durable {
                        assert!(taken.of(channel).unwrap().signed >= *number, "{channel}");
                    }
                }
                copies[copy] = taken.ok();
            }
            Step::Raise { copy, channel } => {
                let Some(copy) = &copies[copy] else { continue };
                let channel = format!("c{channel}");
                let known = copy.of(&channel).map_or(0, |entry| entry.signed);
                if raise(copy, &channel, known + 1).is_ok() {
                    assert_eq!(copy.epoch(), epoch, "a deposed copy has written");
                    durable.insert(channel, known + 1);
                }
            }
            Step::Confirm(copy) => {
                let Some(copy) = &copies[copy] else { continue };
                assert!(copy.confirm().is_err() || copy.epoch() == epoch);
            }
            Step::Fail(faults) => remote.fail(faults),
        }
        assert!(names(&remote).len() <= 1);
    }
    // On a good day everything is there, and the owner goes on.
    remote.set_calm();
    if durable.is_empty() {
        return;
    }
    let last = start(place(&remote), "last");
    for (channel, number) in &durable {
        assert!(last.of(channel).unwrap().signed >= *number, "{channel}");
    }
    for copy in copies.iter().flatten() {
        assert_eq!(kind(raise(copy, "c0", 1_000)), Kind::Fenced);
    }
    assert_eq!(raise(&last, "c0", 1_000).unwrap(), Raised::Durable);
}

proptest! {
    #[test]
    fn what_was_told_to_be_durable_stays_and_only_the_newest_start_writes(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        run(steps);
    }
}
