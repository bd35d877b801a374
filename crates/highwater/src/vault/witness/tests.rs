use std::sync::Arc;

use zeroize::Zeroizing;

use super::*;
use crate::Control;
use crate::env::Env;
use crate::vault::{CheckOptions, CreateOptions, Location, Secret, check};

const RECORD: &str = include_str!("../../../tests/fixtures/witness.json");

fn node() -> NodeName {
    "node".parse().unwrap()
}

fn record(number: u64) -> WitnessRecord {
    let entry = WitnessEntry {
        signed: 7,
        revoked: 6,
        received: 7,
        closing: false,
        continuous: true,
        epoch: 3,
    };
    let closing = WitnessEntry { closing: true, continuous: false, epoch: 2, ..entry };
    WitnessRecord {
        version: 1,
        node: node(),
        number,
        epoch: 3,
        holder: "user@machine".to_owned(),
        since: Time::from_nanos(1_790_000_000_123_456_789),
        put: PutId::from_bytes([4; 16]),
        channels: [("a".to_owned(), entry), ("ü %".to_owned(), closing)].into(),
        counters: [("keys".to_owned(), u64::MAX)].into(),
        off: Some(WitnessOff {
            reason: "its disk is full".to_owned(),
            since: Time::from_nanos(1_790_000_001_000_000_000),
        }),
    }
}

struct WitnessPlace {
    _dir: tempfile::TempDir,
    vault: Vault,
}

impl WitnessPlace {
    fn new() -> WitnessPlace {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let location = Location::Local(dir.path().join("vault"));
        let secret = Secret::Key(Zeroizing::new([1; 32]));
        let vault =
            Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system())
                .unwrap()
                .vault;
        WitnessPlace { _dir: dir, vault }
    }

    fn put(&self, number: u64) -> bool {
        self.vault.put_witness(&node(), number, &record(number).to_bytes().unwrap()).unwrap()
    }

    /// The numbers that stand.
    fn numbers(&self) -> Vec<u64> {
        self.vault.witness_numbers(&node()).unwrap()
    }

    /// An object as a writer leaves it that dies between putting and listing.
    fn leave(&self, number: u64) {
        let name = witness_name(&node(), number);
        let object = sealed::seal(&self.vault, ObjectKind::Witness, &name, &record(number));
        assert!(self.vault.store().put_new(&name, object.unwrap()).unwrap());
    }

    fn faults(&self) -> Vec<String> {
        let control = Control::new(Env::system());
        let report = check(&self.vault, &CheckOptions::default(), &control).unwrap();
        report.errors.into_iter().map(|fault| fault.entry).collect()
    }
}

#[test]
fn a_witness_record_is_what_it_was() {
    assert_eq!(serde_json::to_string_pretty(&record(12)).unwrap() + "\n", RECORD);
    assert_eq!(WitnessRecord::parse("fixture", RECORD.as_bytes()).unwrap(), record(12));
    let plain = WitnessRecord { off: None, ..record(12) };
    let bytes = plain.to_bytes().unwrap();
    assert!(!String::from_utf8(bytes.clone()).unwrap().contains("off"));
    assert_eq!(WitnessRecord::parse("fixture", &bytes).unwrap(), plain);
}

#[test]
fn a_witness_record_refuses_what_it_does_not_know() {
    let with = |from: &str, to: &str| {
        assert!(RECORD.contains(from), "{from}");
        WitnessRecord::parse("fixture", RECORD.replacen(from, to, 1).as_bytes()).unwrap_err()
    };
    for (from, to) in [
        ("\"version\": 1", "\"version\": 0"),
        ("\"version\": 1", "\"version\": 1, \"later\": 1"),
        ("\"epoch\": 3\n", "\"epoch\": 3, \"later\": 1\n"),
        ("\"reason\"", "\"later\": 1, \"reason\""),
        ("\"signed\": 7", "\"signed\": -1"),
        ("\"node\": \"node\"", "\"node\": \"a/b\""),
        ("0404", "04"),
    ] {
        assert_eq!(with(from, to).kind(), Kind::Corrupt, "{to}");
    }
    let newer = with("\"version\": 1", "\"version\": 2, \"later\": 1");
    assert_eq!((newer.kind(), newer.entry()), (Kind::Input, Some("fixture")));
}

#[test]
fn the_vault_keeps_the_promises_of_a_witness() {
    let place = Arc::new(WitnessPlace::new());
    struct Shared(Arc<WitnessPlace>);
    impl crate::guard::WitnessStore for Shared {
        fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
            self.0.vault.newest_witness(&node())
        }
        fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
            self.0.vault.put_witness(&node(), number, document)
        }
    }
    crate::guard::witness_conformance::run(&|| Box::new(Shared(Arc::clone(&place))));
    assert_eq!(place.numbers(), (94..=101).collect::<Vec<_>>(), "eight are kept, and no stray");
}

#[test]
fn a_store_that_overwrites_is_refused() {
    let mut place = WitnessPlace::new();
    place.vault.refuse_overwriting_store().unwrap();
    place.vault.header.store.create_only = false;
    let error = place.vault.refuse_overwriting_store().unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    let vault = Arc::new(place.vault);
    assert!(crate::guard::VaultWitness::new(vault, node()).is_err());
}

#[test]
fn a_free_number_is_not_won_below_a_higher_one() {
    let place = WitnessPlace::new();
    (1..=20).for_each(|number| assert!(place.put(number)));
    for asleep in 1..=20 {
        assert!(!place.put(asleep));
        assert_eq!(place.numbers(), (13..=20).collect::<Vec<_>>(), "it takes its stray along");
    }
}

#[test]
fn a_number_without_the_one_before_it_is_not_won() {
    let place = WitnessPlace::new();
    assert!(!place.put(2));
    assert!(place.numbers().is_empty());
    assert!(place.put(1));
    assert!(!place.put(3));
    assert_eq!(place.numbers(), [1]);
}

#[test]
fn a_record_that_another_one_was_built_on_stays() {
    let place = WitnessPlace::new();
    assert!(place.put(1));
    // Somebody puts 3 on our 2 before we list.
    place.leave(3);
    assert!(!place.put(2));
    assert_eq!(place.numbers(), [1, 2, 3]);
    assert!(place.put(4), "whoever put 3 goes on");
}

#[test]
fn what_a_dead_writer_left_counts_for_nobody_and_goes() {
    let place = WitnessPlace::new();
    (1..=20).for_each(|number| assert!(place.put(number)));
    place.leave(5);
    let newest = place.vault.newest_witness(&node()).unwrap().unwrap();
    assert_eq!(newest.0, 20);
    assert!(!place.put(6), "the stray before it is no proof");
    assert!(place.put(21));
    assert_eq!(place.numbers(), (14..=21).collect::<Vec<_>>());
}

#[test]
fn a_check_opens_witness_records() {
    let place = WitnessPlace::new();
    (1..=3).for_each(|number| assert!(place.put(number)));
    assert_eq!(place.faults(), Vec::<String>::new());
    let store = place.vault.store();
    let name = witness_name(&node(), 2);
    let mut damaged = store.get(&name).unwrap().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    // Another node's record, and one under another number, open nowhere else.
    let moved = store.get(&witness_name(&node(), 3)).unwrap();
    store.delete(&name).unwrap();
    assert!(store.put_new(&name, damaged).unwrap());
    assert!(store.put_new("witness/other/00000000000000000003", moved.clone()).unwrap());
    assert!(store.put_new("witness/node/3", moved).unwrap());
    let other = WitnessRecord { number: 9, ..record(8) };
    let misnamed = witness_name(&node(), 8);
    let object = sealed::seal(&place.vault, ObjectKind::Witness, &misnamed, &other).unwrap();
    assert!(store.put_new(&misnamed, object).unwrap());
    let node_record = "witness/node/00000000000000000007";
    let object = sealed::seal(&place.vault, ObjectKind::Node, node_record, &record(7)).unwrap();
    assert!(store.put_new(node_record, object).unwrap());
    let expected = [
        name.as_str(),
        node_record,
        &misnamed,
        "witness/node/3",
        "witness/other/00000000000000000003",
    ];
    assert_eq!(place.faults(), expected);
}

#[test]
fn a_damaged_newest_record_is_no_older_one() {
    let place = WitnessPlace::new();
    (1..=3).for_each(|number| assert!(place.put(number)));
    let name = witness_name(&node(), 3);
    place.vault.store().delete(&name).unwrap();
    assert!(place.vault.store().put_new(&name, &b"HWSEALED"[..]).unwrap());
    let error = place.vault.newest_witness(&node()).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(name.as_str())));
}
