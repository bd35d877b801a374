//! Many threads, one put.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Holds the first raise in its put until so many callers stand in line behind it.
struct Gate {
    store: MemoryWitness,
    behind: usize,
    witness: OnceLock<std::sync::Weak<Witness>>,
    gates: AtomicU64,
    panics: bool,
}

impl WitnessStore for Gate {
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        self.store.newest()
    }

    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        if let Some(witness) = self.witness.get()
            && self.gates.fetch_add(1, Ordering::SeqCst) == 0
        {
            let witness = witness.upgrade().unwrap();
            while witness.line().waiting.len() < self.behind {
                std::thread::yield_now();
            }
            assert!(!self.panics, "a store that panics");
        }
        self.store.put_new(number, document)
    }
}

fn gated(store: &MemoryWitness, behind: usize, panics: bool) -> Arc<Witness> {
    let (witness, gates) = (OnceLock::new(), AtomicU64::new(0));
    let gate = Arc::new(Gate { store: store.clone(), behind, witness, gates, panics });
    let node_witness = Witness::take_over(Arc::clone(&gate) as _, node(), "us".to_owned(), &env());
    let witness = Arc::new(node_witness.unwrap());
    gate.witness.set(Arc::downgrade(&witness)).unwrap();
    witness
}

/// The answers of as many threads as there are changes, the first of which leads.
fn together(witness: &Witness, raises: Vec<Vec<Move>>) -> Vec<std::thread::Result<Result<Raised>>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            raises.iter().map(|moves| scope.spawn(|| witness.raise(moves, &[]))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}

#[test]
fn threads_in_line_share_one_put() {
    const THREADS: usize = 64;
    let store = MemoryWitness::new();
    let witness = gated(&store, THREADS - 1, false);
    let puts = store.puts();
    let raises = (1..=THREADS).map(|at| vec![moved(&format!("c{at}"), at as u64, 1)]).collect();
    for answer in together(&witness, raises) {
        assert_eq!(answer.unwrap().unwrap(), Raised::Durable);
    }
    assert_eq!(store.puts() - puts, 2, "the first one, and one for all that waited");
    for at in 1..=THREADS {
        assert_eq!(stored(&store, &format!("c{at}")).unwrap().signed, at as u64);
    }
}

#[test]
fn a_bad_caller_spoils_nobody_elses_put() {
    let store = MemoryWitness::new();
    let witness = gated(&store, 3, false);
    let raises = [1, 2, 7, 3].map(|epoch| {
        let epoch = if epoch == 7 { 7 } else { 1 };
        vec![moved(&format!("c{epoch}"), 1, epoch)]
    });
    let answers = together(&witness, raises.to_vec());
    let kinds: Vec<_> =
        answers.into_iter().map(|it| it.unwrap().map_err(|error| error.kind())).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == Err(Kind::Bug)).count(), 1);
    assert_eq!(kinds.iter().filter(|kind| **kind == Ok(Raised::Durable)).count(), 3);
}

#[test]
fn a_failed_put_fails_all_that_stood_on_it_and_nobody_else() {
    const THREADS: usize = 8;
    let store = MemoryWitness::new();
    let witness = gated(&store, THREADS - 1, false);
    store.fail([PutFault::Lost; PUT_TRIES_MAX as usize]);
    let raises = (0..THREADS).map(|at| vec![moved(&format!("c{at}"), 1, 1)]).collect();
    let answers: Vec<_> = together(&witness, raises).into_iter().map(|it| it.unwrap()).collect();
    // The leader's put failed with it; those behind it stood on one of their own, after it.
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(failed, 1);
    assert_eq!(witness.record().channels.len(), THREADS, "what was in doubt was put again");
}

#[test]
fn a_store_that_panics_leaves_nobody_waiting() {
    let store = MemoryWitness::new();
    let witness = gated(&store, 7, true);
    let raises = (0..8).map(|at| vec![moved(&format!("c{at}"), 1, 1)]).collect();
    let answers = together(&witness, raises);
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1, "the one that led");
    for answer in answers.into_iter().flatten() {
        assert_eq!(answer.unwrap(), Raised::Durable);
    }
    assert_eq!(stored(&store, "c0").unwrap().signed, 1);
}

#[test]
fn threads_that_race_lose_no_number() {
    const THREADS: u64 = 8;
    const MOVES: u64 = 50;
    let store = MemoryWitness::new();
    let witness = start(store.clone(), "us");
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for at in 0..THREADS {
            let (witness, barrier, store) = (&witness, &barrier, &store);
            scope.spawn(move || {
                let channel = format!("c{at}");
                barrier.wait();
                for number in 1..=MOVES {
                    assert_eq!(raise(witness, &channel, number).unwrap(), Raised::Durable);
                    assert_eq!(stored(store, &channel).unwrap().signed, number);
                }
            });
        }
    });
    assert!(store.puts() <= 1 + THREADS * MOVES);
    assert_eq!(witness.record(), Witness::look(&store, &node()).unwrap().unwrap());
}
