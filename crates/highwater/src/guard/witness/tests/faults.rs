//! Lost calls and lost answers: what was told to be durable is, and nothing else ever counts.

use super::*;

const FAULTS: [Option<PutFault>; 4] =
    [None, Some(PutFault::Lost), Some(PutFault::Unacknowledged), Some(PutFault::Delayed)];

#[test]
fn a_lost_acknowledgement_is_read_back() {
    let store = MemoryWitness::new();
    store.fail([PutFault::Unacknowledged]);
    let witness = start(store.clone(), "us");
    assert_eq!((witness.epoch(), store.puts()), (1, 1));
    store.fail([PutFault::Unacknowledged]);
    assert_eq!(raise(&witness, "a", 1).unwrap(), Raised::Durable);
    assert_eq!(store.puts(), 2, "it is found, not put again");
    assert_eq!(raise(&witness, "a", 2).unwrap(), Raised::Durable);
}

#[test]
fn a_lost_put_is_tried_again_so_often_and_no_oftener() {
    let store = MemoryWitness::new();
    let witness = start(store.clone(), "us");
    store.fail([PutFault::Lost; 3]);
    assert_eq!(raise(&witness, "a", 1).unwrap(), Raised::Durable);
    let puts = store.puts();
    store.fail([PutFault::Lost; 4]);
    let error = raise(&witness, "a", 2).unwrap_err();
    assert_eq!((error.kind(), store.puts() - puts), (Kind::Unavailable, 4));
    assert!(error.hint().unwrap().contains("nothing is signed"));
    assert_eq!(witness.of("a").unwrap().signed, 1, "nothing of it counts");
    assert_eq!(raise(&witness, "a", 2).unwrap(), Raised::Durable);
}

#[test]
fn nothing_is_read_back_where_nothing_is_in_doubt() {
    struct ReadOnce(MemoryWitness, Mutex<bool>);
    impl WitnessStore for ReadOnce {
        fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
            assert!(!std::mem::replace(&mut *self.1.lock(), true), "read again");
            self.0.newest()
        }
        fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
            self.0.put_new(number, document)
        }
    }
    let witness = start(ReadOnce(MemoryWitness::new(), Mutex::new(false)), "us");
    for number in 1..=3 {
        assert_eq!(raise(&witness, "a", number).unwrap(), Raised::Durable);
    }
}

#[test]
fn nothing_counts_while_the_witness_is_unreachable() {
    let store = MemoryWitness::new();
    let witness = start(store.clone(), "us");
    assert_eq!(raise(&witness, "a", 1).unwrap(), Raised::Durable);
    store.cut_off(true);
    for number in 2..5 {
        assert_eq!(kind(raise(&witness, "a", number)), Kind::Unavailable);
        assert_eq!(witness.of("a").unwrap().signed, 1);
    }
    let gone = Witness::take_over(Arc::new(store.clone()), node(), "next".to_owned(), &env());
    assert_eq!(gone.unwrap_err().kind(), Kind::Unavailable);
    store.cut_off(false);
    assert_eq!(stored(&store, "a").unwrap().signed, 1);
    assert_eq!(raise(&witness, "a", 5).unwrap(), Raised::Durable);
    assert_eq!(stored(&store, "a").unwrap().signed, 5);
}

#[test]
fn a_record_that_arrives_late_is_found_before_the_next_one() {
    let store = MemoryWitness::new();
    let witness = start(store.clone(), "us");
    store.fail([PutFault::Delayed; 4]);
    assert_eq!(kind(raise(&witness, "a", 1)), Kind::Unavailable);
    store.deliver();
    assert_eq!(stored(&store, "a").unwrap().signed, 1);
    let puts = store.puts();
    assert_eq!(raise(&witness, "b", 1).unwrap(), Raised::Durable);
    assert_eq!(store.puts() - puts, 1);
    assert_eq!((stored(&store, "a").unwrap().signed, stored(&store, "b").unwrap().signed), (1, 1));
}

/// All ways in which five puts can fail, with delayed ones arriving before any of the raises.
#[test]
fn whatever_is_lost_what_was_told_durable_is() {
    for case in 0..4usize.pow(5) * 8 {
        let (faults, deliveries) = (case / 8, case % 8);
        let script: Vec<_> = (0..5).map(|at| FAULTS[faults / 4usize.pow(at) % 4]).collect();
        let store = MemoryWitness::new();
        let scripted = Scripted { store: store.clone(), script: Mutex::new(script) };
        let witness = start(scripted, "us");
        for number in 1..=3 {
            if deliveries >> (number - 1) & 1 != 0 {
                store.deliver();
            }
            match raise(&witness, "a", number) {
                Ok(raised) => {
                    assert_eq!(raised, Raised::Durable);
                    assert_eq!(stored(&store, "a").unwrap().signed, number, "{case}");
                }
                Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{case}: {error}"),
            }
            let known = witness.of("a").map_or(0, |known| known.signed);
            let there = stored(&store, "a").map_or(0, |entry| entry.signed);
            assert!(known <= there && there <= number, "{case}");
        }
        assert_eq!(raise(&witness, "a", 4).unwrap(), Raised::Durable, "{case}");
        store.deliver();
        assert_eq!(stored(&store, "a").unwrap().signed, 4, "{case}");
        assert_eq!(raise(&witness, "a", 5).unwrap(), Raised::Durable, "{case}");
    }
}

/// Its puts fail as its script says, from the end of it; the first one, a takeover, does not.
struct Scripted {
    store: MemoryWitness,
    script: Mutex<Vec<Option<PutFault>>>,
}

impl WitnessStore for Scripted {
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        self.store.newest()
    }

    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        if number > 1 {
            self.store.fail(self.script.lock().pop().flatten());
        }
        self.store.put_new(number, document)
    }
}

/// A takeover whose record arrives after the next one's, or in the middle of it.
#[test]
fn a_takeover_in_doubt_is_no_second_owner() {
    let store = MemoryWitness::new();
    store.fail([PutFault::Delayed; 5]);
    let lost = Witness::take_over(Arc::new(store.clone()), node(), "lost".to_owned(), &env());
    assert_eq!(lost.unwrap_err().kind(), Kind::Unavailable);
    let next = start(store.clone(), "next");
    store.deliver();
    assert_eq!(raise(&next, "a", 1).unwrap(), Raised::Durable);

    store.fail([PutFault::Delayed]);
    let third = start(store.clone(), "third");
    store.deliver();
    assert_eq!(raise(&third, "a", 2).unwrap(), Raised::Durable);
    assert_eq!(kind(raise(&next, "a", 2)), Kind::Fenced);
}

#[test]
fn a_witness_that_forgets_what_it_confirmed_is_found_out() {
    for left in [0, 1, 2] {
        let store = MemoryWitness::new();
        let witness = start(store.clone(), "us");
        for number in 1..=3 {
            assert_eq!(raise(&witness, "a", number).unwrap(), Raised::Durable);
        }
        store.forget_above(left);
        // The place in memory takes a number with a gap below it; a vault does not.
        store.fail([PutFault::Lost]);
        assert_eq!(kind(raise(&witness, "a", 4)), Kind::Corrupt, "{left}");
        assert_eq!(kind(raise(&witness, "a", 4)), Kind::Corrupt, "{left}: again");
    }
}

#[test]
fn a_vault_that_lost_records_takes_none_on_top_of_them() {
    let (dir, vault) = local_vault();
    let witness = start(VaultWitness::new(vault, node()).unwrap(), "us");
    for number in 1..=3 {
        assert_eq!(raise(&witness, "a", number).unwrap(), Raised::Durable);
    }
    std::fs::remove_file(dir.path().join("vault/witness/node/00000000000000000004")).unwrap();
    assert_eq!(kind(raise(&witness, "a", 4)), Kind::Corrupt);
    std::fs::remove_dir_all(dir.path().join("vault/witness")).unwrap();
    assert_eq!(kind(raise(&witness, "a", 4)), Kind::Corrupt);
}

#[test]
fn a_vault_that_is_gone_is_unreachable() {
    let (dir, vault) = local_vault();
    let witness = start(VaultWitness::new(Arc::clone(&vault), node()).unwrap(), "us");
    let store = Arc::new(VaultWitness::new(vault, node()).unwrap());
    let (there, away) = (dir.path().join("vault"), dir.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    assert_eq!(kind(raise(&witness, "a", 1)), Kind::Unavailable);
    // What is left of a disk that was unmounted is an empty directory.
    std::fs::create_dir(&there).unwrap();
    let next = Witness::take_over(store, node(), "next".to_owned(), &env());
    assert_eq!(next.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(kind(raise(&witness, "a", 1)), Kind::Unavailable);
    std::fs::remove_dir_all(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    assert_eq!(raise(&witness, "a", 1).unwrap(), Raised::Durable);
}

/// What is no passing trouble is told as it is, at once.
#[test]
fn a_store_that_refuses_is_not_asked_again() {
    struct Refuses(MemoryWitness, Mutex<u32>);
    impl WitnessStore for Refuses {
        fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
            self.0.newest()
        }
        fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
            *self.1.lock() += 1;
            if number > 1 {
                return Err(Error::denied("read only"));
            }
            self.0.put_new(number, document)
        }
    }
    let store = Arc::new(Refuses(MemoryWitness::new(), Mutex::new(0)));
    let us = Witness::take_over(Arc::clone(&store) as _, node(), "us".to_owned(), &env()).unwrap();
    assert_eq!(kind(raise(&us, "a", 1)), Kind::Denied);
    assert_eq!(*store.1.lock(), 2);
    let next = Witness::take_over(store, node(), "next".to_owned(), &env());
    assert_eq!(next.unwrap_err().kind(), Kind::Denied);
}
