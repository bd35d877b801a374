//! Many threads, one put.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Holds the first raise in its put until so many callers stand in line behind it.
struct Gate {
    store: MemoryWitness,
    behind: usize,
    witness: OnceLock<std::sync::Weak<Witness>>,
    gates: AtomicU64,
    panics: bool,
    fails_after_first: AtomicBool,
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
        } else if self.fails_after_first.load(Ordering::SeqCst) {
            return Err(Error::unavailable("no answer"));
        }
        self.store.put_new(number, document)
    }
}

fn gated(store: &MemoryWitness, behind: usize, panics: bool) -> (Arc<Gate>, Arc<Witness>) {
    let (witness, gates) = (OnceLock::new(), AtomicU64::new(0));
    let (store, fails_after_first) = (store.clone(), AtomicBool::new(false));
    let gate = Gate { store, behind, witness, gates, panics, fails_after_first };
    let gate = Arc::new(gate);
    let node_witness = Witness::take_over(Arc::clone(&gate) as _, node(), "us".to_owned(), &env());
    let witness = Arc::new(node_witness.unwrap());
    gate.witness.set(Arc::downgrade(&witness)).unwrap();
    (gate, witness)
}

type Answer = std::thread::Result<Result<Raised>>;

/// The answers of as many threads as there are raises. The first one leads; the others come once it
/// is in its put, so that all of them stand in line behind it.
fn together((gate, witness): &(Arc<Gate>, Arc<Witness>), raises: Vec<Vec<Move>>) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = raises
            .iter()
            .enumerate()
            .map(|(at, moves)| {
                while at == 1 && gate.gates.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                scope.spawn(|| witness.raise(moves, &[]))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}

#[test]
fn threads_in_line_share_one_put() {
    const THREADS: usize = 64;
    let store = MemoryWitness::new();
    let gated = gated(&store, THREADS - 1, false);
    let puts = store.puts();
    let raises = (1..=THREADS).map(|at| vec![moved(&format!("c{at}"), at as u64, 1)]).collect();
    for answer in together(&gated, raises) {
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
    let gated = gated(&store, 3, false);
    let raises = [("a", 1), ("b", 1), ("bad", 7), ("c", 1)]
        .map(|(channel, epoch)| vec![moved(channel, 1, epoch)]);
    let answers = together(&gated, raises.to_vec());
    let kinds: Vec<_> =
        answers.into_iter().map(|it| it.unwrap().map_err(|error| error.kind())).collect();
    let durable = Ok(Raised::Durable);
    assert_eq!(kinds, [durable, durable, Err(Kind::Bug), durable]);
    let record = Witness::look(&store, &node()).unwrap().unwrap();
    assert_eq!(record.channels.into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_failed_put_fails_those_that_stood_on_it_and_nobody_else() {
    const THREADS: usize = 8;
    let store = MemoryWitness::new();
    let raises = || (0..THREADS).map(|at| vec![moved(&format!("c{at}"), 1, 1)]).collect();
    // The leader's put fails; those behind it stand on one of their own, which finds its in doubt.
    let alone = gated(&store, THREADS - 1, false);
    store.fail([PutFault::Lost; PUT_TRIES_MAX as usize]);
    let answers = together(&alone, raises());
    let failed: Vec<bool> =
        answers.iter().map(|answer| answer.as_ref().unwrap().is_err()).collect();
    assert_eq!(failed, [true, false, false, false, false, false, false, false]);
    assert_eq!(alone.1.record().channels.len(), THREADS, "what was in doubt was put again");

    // And the other way round: one put that all behind the leader share fails for all of them.
    let store = MemoryWitness::new();
    let shared = gated(&store, THREADS - 1, false);
    let scripted = Arc::clone(&shared.0);
    scripted.fails_after_first.store(true, Ordering::SeqCst);
    let answers = together(&shared, raises());
    for (at, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap().map_err(|error| (error.kind(), error.message().to_owned()));
        match at {
            0 => assert_eq!(answer, Ok(Raised::Durable)),
            _ => assert_eq!(answer.unwrap_err().0, Kind::Unavailable),
        }
    }
    assert_eq!(shared.1.record().channels.len(), 1);
}

#[test]
fn a_store_that_panics_leaves_nobody_waiting() {
    let store = MemoryWitness::new();
    let gated = gated(&store, 7, true);
    let raises = (0..8).map(|at| vec![moved(&format!("c{at}"), 1, 1)]).collect();
    for (at, answer) in together(&gated, raises).into_iter().enumerate() {
        match at {
            0 => assert!(answer.is_err(), "it led"),
            _ => assert_eq!(answer.unwrap().unwrap(), Raised::Durable),
        }
    }
    assert_eq!(stored(&store, "c0").unwrap().signed, 1, "what was in doubt was put");
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
