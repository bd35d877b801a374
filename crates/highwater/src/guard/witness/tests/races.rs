//! Takeovers: of two copies of a node at most one can act, in every order of their steps.

use std::collections::BTreeSet;

use super::*;
use crate::env::{FaultPoint, Faults};

/// Lets two parties pass one by one, in the order of a schedule; who is done gives way.
struct Turns {
    state: Mutex<(Vec<usize>, [bool; 2])>,
    passed: Condvar,
}

impl Turns {
    /// Bit `n` of `schedule` says whose the `n`th step is.
    fn new(schedule: u32, steps: u32) -> Arc<Turns> {
        let order = (0..steps).rev().map(|at| (schedule >> at & 1) as usize).collect();
        Arc::new(Turns { state: Mutex::new((order, [false; 2])), passed: Condvar::new() })
    }

    fn step<T>(&self, who: usize, act: impl FnOnce() -> T) -> T {
        let mut state = self.state.lock();
        loop {
            let (order, done) = &mut *state;
            while order.last().is_some_and(|&next| done[next]) {
                order.pop();
            }
            if order.last().is_none_or(|&next| next == who) {
                break;
            }
            self.passed.wait(&mut state);
        }
        let acted = act();
        state.0.pop();
        self.passed.notify_all();
        acted
    }

    fn done(&self, who: usize) {
        self.state.lock().1[who] = true;
        self.passed.notify_all();
    }
}

/// A store that is asked in turn, and loses its first acknowledgement where that is wished.
struct InTurn {
    store: MemoryWitness,
    turns: Arc<Turns>,
    who: usize,
    loses: Mutex<bool>,
}

impl InTurn {
    fn pair(store: &MemoryWitness, turns: &Arc<Turns>, loses: [bool; 2]) -> [Arc<InTurn>; 2] {
        [0, 1].map(|who| {
            let (store, turns) = (store.clone(), Arc::clone(turns));
            Arc::new(InTurn { store, turns, who, loses: Mutex::new(loses[who]) })
        })
    }
}

impl WitnessStore for InTurn {
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        self.turns.step(self.who, || self.store.newest())
    }

    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        self.turns.step(self.who, || {
            if std::mem::take(&mut *self.loses.lock()) {
                self.store.fail([PutFault::Unacknowledged]);
            }
            self.store.put_new(number, document)
        })
    }
}

fn take(store: Arc<InTurn>) -> Witness {
    let (turns, who) = (Arc::clone(&store.turns), store.who);
    let taken = Witness::take_over(store, node(), format!("holder {who}"), &env());
    turns.done(who);
    taken.unwrap()
}

/// Which of two can act on a channel; `first` goes first.
fn who_can_act(pair: &[Witness; 2], first: usize) -> Vec<usize> {
    [first, 1 - first]
        .into_iter()
        .filter(|&who| match raise(&pair[who], "a", 50 + who as u64) {
            Ok(raised) => raised == Raised::Durable,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Fenced, "{error}");
                assert!(error.message().contains(&format!("holder {}", 1 - who)), "{error}");
                assert!(error.message().contains("2026"), "{error}");
                false
            }
        })
        .collect()
}

#[test]
fn of_two_that_take_over_at_once_one_can_act_whatever_the_order() {
    for (schedule, case) in (0..1 << 10).flat_map(|schedule| (0..8).map(move |it| (schedule, it))) {
        let store = MemoryWitness::new();
        let turns = Turns::new(schedule, 10);
        let [one, other] = InTurn::pair(&store, &turns, [case & 1 != 0, case & 2 != 0]);
        let pair = std::thread::scope(|scope| {
            let other = scope.spawn(|| take(other));
            [take(one), other.join().unwrap()]
        });
        let epochs: BTreeSet<u64> = pair.iter().map(Witness::epoch).collect();
        assert_eq!(epochs.len(), 2, "one epoch has one owner: {schedule:b} {case}");
        let owner = usize::from(pair[1].epoch() > pair[0].epoch());
        assert_eq!(who_can_act(&pair, case >> 2), [owner], "{schedule:b} {case}");
    }
}

#[test]
fn a_raise_beside_a_takeover_is_seen_or_fenced() {
    for (schedule, loses) in (0..1 << 8).flat_map(|schedule| [(schedule, false), (schedule, true)])
    {
        let store = MemoryWitness::new();
        let turns = Turns::new(schedule, 8);
        let [one, other] = InTurn::pair(&store, &Turns::new(0, 0), [loses, false]);
        let [one, other] = [one, other].map(|it| {
            let (store, loses) = (it.store.clone(), Mutex::new(*it.loses.lock()));
            Arc::new(InTurn { store, turns: Arc::clone(&turns), who: it.who, loses })
        });
        let original =
            Witness::owning(one, node(), start(store.clone(), "holder 0").record(), &env());
        let (raised, copy) = std::thread::scope(|scope| {
            let copy = scope.spawn(|| take(other));
            let raised = raise(&original, "a", 7);
            turns.done(0);
            (raised, copy.join().unwrap())
        });
        match raised {
            // It left before the takeover: the copy knows.
            Ok(raised) => {
                assert_eq!(raised, Raised::Durable);
                assert_eq!(copy.of("a").unwrap().signed, 7, "{schedule:b}");
            }
            Err(error) => assert_eq!(error.kind(), Kind::Fenced, "{schedule:b}: {error}"),
        }
        assert_eq!(who_can_act(&[original, copy], 0), [1], "{schedule:b}");
    }
}

#[test]
fn of_many_that_take_over_at_once_the_last_can_act() {
    const TAKERS: usize = 8;
    let store = MemoryWitness::new();
    let barrier = std::sync::Barrier::new(TAKERS);
    let taken: Vec<Witness> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..TAKERS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    start(store.clone(), "one of many")
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let epochs: BTreeSet<u64> = taken.iter().map(Witness::epoch).collect();
    assert_eq!(epochs, (1..=TAKERS as u64).collect());
    for witness in &taken {
        let raised = raise(witness, "a", witness.epoch());
        assert_eq!(raised.is_ok(), witness.epoch() == TAKERS as u64);
    }
}

/// The original raises to 5 and sleeps; a copy takes over and raises `more` times; the original
/// wakes up.
fn deposed_wakes_up(open: &dyn Fn() -> Arc<dyn WitnessStore>, more: u64) {
    let take = |holder: &str| Witness::take_over(open(), node(), holder.to_owned(), &env());
    let original = take("original").unwrap();
    assert_eq!(raise(&original, "a", 5).unwrap(), Raised::Durable);
    let copy = take("copy").unwrap();
    for number in 6..6 + more {
        assert_eq!(raise(&copy, "a", number).unwrap(), Raised::Durable);
    }
    let stands = open().newest().unwrap();
    let error = raise(&original, "a", 6).unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.message().contains("copy"), "{error}");
    assert!(!original.of("a").unwrap().owned, "it clears nothing any more");
    for call in [original.retire("a"), original.switch_off("why"), original.switch_on()] {
        assert_eq!(call.unwrap_err().kind(), Kind::Fenced);
    }
    assert_eq!(open().newest().unwrap(), stands, "nothing of the deposed is there");
    assert_eq!(raise(&copy, "a", 100).unwrap(), Raised::Durable, "the copy goes on");
}

#[test]
fn the_deposed_is_fenced_also_where_its_number_was_pruned() {
    for more in [0, 1, 5, 6, 7, 8, 9, 20] {
        let memory = MemoryWitness::new();
        deposed_wakes_up(&|| Arc::new(memory.clone()), more);
        let (_dir, vault) = local_vault();
        let open = || VaultWitness::new(Arc::clone(&vault), node()).unwrap();
        deposed_wakes_up(&|| Arc::new(open()), more);
    }
}

#[test]
fn the_deposed_asks_nobody_any_more() {
    let store = MemoryWitness::new();
    let original = start(store.clone(), "original");
    let copy = start(store.clone(), "copy");
    assert_eq!(kind(raise(&original, "a", 1)), Kind::Fenced);
    let puts = store.puts();
    store.cut_off(true);
    assert_eq!(kind(raise(&original, "a", 1)), Kind::Fenced, "it does not even try");
    assert_eq!(store.puts(), puts);
    store.cut_off(false);
    assert_eq!(raise(&copy, "a", 1).unwrap(), Raised::Durable);
}

/// Lets a copy take over, and go on until numbers are pruned, while a put of the original waits to
/// become visible.
struct WhileAsleep {
    vault: OnceLock<Arc<crate::vault::Vault>>,
    more: u64,
    asleep: Mutex<bool>,
    copy: Arc<Mutex<Option<Witness>>>,
}

impl WhileAsleep {
    fn act(&self) -> Witness {
        let vault = Arc::clone(self.vault.get().unwrap());
        let copy = start(VaultWitness::new(vault, node()).unwrap(), "copy");
        for number in 1..=self.more {
            assert_eq!(raise(&copy, "a", number).unwrap(), Raised::Durable);
        }
        copy
    }
}

impl Faults for WhileAsleep {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        let sleeps = point == FaultPoint::LocalPutLink && std::mem::take(&mut *self.asleep.lock());
        if sleeps {
            // On a thread of its own: this one is inside the store's runtime.
            let copy = std::thread::scope(|scope| scope.spawn(|| self.act()).join().unwrap());
            *self.copy.lock() = Some(copy);
        }
        Ok(())
    }
}

#[test]
fn a_writer_that_sleeps_in_the_middle_of_its_put_never_succeeds() {
    use crate::vault::{Location, Secret, Vault};
    for more in [0, 1, 7, 8, 9, 30] {
        let (dir, vault) = local_vault();
        let copy = Arc::new(Mutex::new(None));
        let hook = Arc::new(WhileAsleep {
            vault: OnceLock::from(vault),
            more,
            asleep: Mutex::new(false),
            copy: Arc::clone(&copy),
        });
        struct Hook(Arc<WhileAsleep>);
        impl Faults for Hook {
            fn reached(&self, point: FaultPoint) -> Result<()> {
                self.0.reached(point)
            }
        }
        let location = Location::Local(dir.path().join("vault"));
        let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
        let hooked = env().with_faults(Hook(Arc::clone(&hook)));
        let same_vault = Arc::new(Vault::open_with(&location, &secret, &hooked).unwrap());
        let store = VaultWitness::new(same_vault, node()).unwrap();
        let original = start(store, "original");
        *hook.asleep.lock() = true;
        assert_eq!(kind(raise(&original, "a", 1)), Kind::Fenced, "{more}");
        let copy = copy.lock().take().unwrap();
        assert_eq!(raise(&copy, "a", 100).unwrap(), Raised::Durable, "{more}");
        let stands = std::fs::read_dir(dir.path().join("vault/witness/node")).unwrap().count();
        assert!(stands <= 8, "{more}: {stands}");
    }
}

/// What a machine that is cloned while the node runs has two of: the same record, the same epoch.
fn twins(store: &MemoryWitness) -> [Witness; 2] {
    let original = start(store.clone(), "twin");
    assert_eq!(raise(&original, "a", 1).unwrap(), Raised::Durable);
    let record = original.record();
    let twin = Witness::owning(Arc::new(store.clone()), node(), record, &env());
    [original, twin]
}

#[test]
fn of_a_running_clone_and_its_original_one_can_act() {
    for first in [0, 1] {
        // The same numbers under the same epoch, or others: only the first put is anybody's.
        for number in [2, 3] {
            for fault in [None, Some(PutFault::Unacknowledged), Some(PutFault::Lost)] {
                let store = MemoryWitness::new();
                let pair = twins(&store);
                store.fail(fault);
                assert_eq!(raise(&pair[first], "a", 2).unwrap(), Raised::Durable);
                store.fail(fault);
                assert_eq!(kind(raise(&pair[1 - first], "a", number)), Kind::Fenced);
                assert_eq!(kind(raise(&pair[1 - first], "a", 9)), Kind::Fenced);
                assert_eq!(raise(&pair[first], "a", 9).unwrap(), Raised::Durable);
            }
        }
    }
}

#[test]
fn a_copy_that_moved_first_condemns_the_original_at_its_next_start() {
    use highwater_guard::{Evidence, Policy, Reason, Verdict, judge};
    let store = MemoryWitness::new();
    let first = start(store.clone(), "original");
    assert_eq!(raise(&first, "a", 5).unwrap(), Raised::Durable);
    // The original signs 6, durable locally, and dies before the witness has it; a copy of its
    // state at 5 starts, is clear, and signs another 6.
    let original = ours(6, first.epoch());
    let copy = start(store.clone(), "copy");
    let judged = |witness: &Witness, ours: &Ours| {
        let witness = witness.of("a");
        judge(ours, &Evidence { witness, policy: Policy::Witness, ..Evidence::default() })
    };
    assert!(matches!(judged(&copy, &ours(5, 1)), Verdict::Clear(_)));
    assert_eq!(raise(&copy, "a", 6).unwrap(), Raised::Durable);
    let again = start(store, "original again");
    assert_eq!(judged(&again, &original), Verdict::Blocked(Reason::MovedElsewhere));
}
