use std::time::Duration;

use highwater::Env;
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::plan::{Expect, Then};

const NOW: Duration = Duration::from_secs(100);

type Answered = Receiver<Result<(), Refusal>>;

fn job(store: &str, keys: &[&str]) -> (Job, Answered) {
    let effect = |key: &&str| Effect {
        key: (*key).to_owned(),
        expect: Expect::Any,
        then: Then::Delete,
        order: 0,
    };
    let (answer, answered) = oneshot::channel();
    let store = StoreName { user: "user".to_owned(), id: store.to_owned() };
    let effects = keys.iter().map(effect).collect();
    (Job { store, effects, heads: -1, bytes: 100, answer }, answered)
}

/// Writes that wait, and those who wait for their answers.
#[derive(Default)]
struct Desk {
    line: Line,
    answered: Vec<Answered>,
}

impl Desk {
    fn hand_in(&mut self, store: &str, keys: &[&str]) {
        self.hand_in_with(store, keys, |_| {});
    }

    fn hand_in_with(&mut self, store: &str, keys: &[&str], set: impl FnOnce(&mut Job)) {
        let (mut job, answered) = job(store, keys);
        set(&mut job);
        let waiting = self.line.look(job, None);
        self.line.keys += waiting.names.len();
        self.line.waiting.push_back(waiting);
        self.answered.push(answered);
    }

    /// Enough that a second lane begins.
    fn hand_in_many(&mut self, store: &str) {
        for number in 0..KEYS_BESIDE {
            self.hand_in(store, &[&format!("of many {number}")]);
        }
    }

    fn fly(&mut self, now: Duration) -> Option<Batch> {
        match self.line.next(now) {
            Next::Fly(batch) => Some(batch),
            Next::Wait(_) | Next::End => None,
        }
    }
}

fn keys(batch: &Batch) -> Vec<&str> {
    batch.jobs.iter().flat_map(|job| &job.effects).map(|effect| effect.key.as_str()).collect()
}

#[test]
fn what_names_a_key_that_is_on_its_way_stays_and_so_does_what_comes_after_it() {
    let mut desk = Desk::default();
    desk.hand_in("s", &["a"]);
    let first = desk.fly(NOW).unwrap();
    assert_eq!(keys(&first), ["a"]);

    desk.hand_in("s", &["a", "b"]);
    desk.hand_in("s", &["b"]);
    desk.hand_in("s", &["c"]);
    // The same key of another store is another key.
    desk.hand_in("t", &["a"]);
    desk.hand_in_many("s");
    let second = desk.fly(NOW).unwrap();
    assert_eq!(keys(&second)[..2], ["c", "a"]);
    assert!(!keys(&second).contains(&"b"), "a write was overtaken");

    desk.line.land(&first);
    let third = desk.fly(NOW + LONG).unwrap();
    assert_eq!(keys(&third), ["a", "b"]);
    desk.line.land(&second);
    assert!(desk.fly(NOW + LONG + LONG).is_none(), "b is on its way");
    desk.line.land(&third);
    assert_eq!(keys(&desk.fly(NOW).unwrap()), ["b"]);
    assert_eq!(desk.line.keys, 0);
}

#[test]
fn little_waits_for_what_is_on_its_way_unless_that_takes_long_or_much_waits() {
    let mut desk = Desk::default();
    desk.hand_in("s", &["a"]);
    let first = desk.fly(NOW).unwrap();
    desk.hand_in("s", &["b"]);
    let soon = NOW + LONG / 5;
    assert!(matches!(desk.line.next(soon), Next::Wait(Some(most)) if most == LONG - LONG / 5));
    let second = desk.fly(NOW + LONG).unwrap();
    assert_eq!(keys(&second), ["b"]);

    desk.hand_in_many("s");
    assert_eq!(desk.fly(NOW + LONG).unwrap().jobs.len(), KEYS_BESIDE);
    desk.line.land(&first);
    desk.line.land(&second);
}

#[test]
fn a_store_that_takes_one_transaction_after_the_other_is_on_its_way_once() {
    let mut desk = Desk::default();
    desk.hand_in_with("fenced", &["head.1"], |job| job.heads = 1);
    let first = desk.fly(NOW).unwrap();
    desk.hand_in_with("fenced", &["head.2"], |job| job.heads = 1);
    desk.hand_in_many("s");
    let second = desk.fly(NOW).unwrap();
    assert_eq!(second.jobs.len(), KEYS_BESIDE);
    assert!(second.jobs.iter().all(|job| job.store.id == "s"));
    desk.line.land(&first);
    assert_eq!(keys(&desk.fly(NOW + LONG).unwrap()), ["head.2"]);

    // One with a history is known by what the database answered.
    let mut desk = Desk::default();
    desk.hand_in("history", &["a"]);
    let mut first = desk.fly(NOW).unwrap();
    desk.line.mark(desk.line.look(first.jobs.pop().unwrap(), None).store);
    desk.hand_in("history", &["b"]);
    assert!(desk.fly(NOW + LONG).is_none());
    desk.line.land(&first);
    assert_eq!(keys(&desk.fly(NOW + LONG).unwrap()), ["b"]);
}

#[test]
fn a_transaction_has_bounds_that_only_one_write_alone_exceeds() {
    let mut desk = Desk::default();
    let many: Vec<String> = (0..=KEYS_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    desk.hand_in("s", &many);
    desk.hand_in("t", &["a"]);
    let alone = desk.fly(NOW).unwrap();
    assert_eq!(alone.jobs.len(), 1);
    desk.line.land(&alone);
    assert_eq!(keys(&desk.fly(NOW).unwrap()), ["a"]);

    let mut desk = Desk::default();
    for key in ["a", "b", "c"] {
        desk.hand_in_with("s", &[key], |job| job.bytes = BYTES_MAX / 2);
    }
    assert_eq!(keys(&desk.fly(NOW).unwrap()), ["a", "b"]);
}

#[test]
fn a_write_that_nobody_waits_for_is_not_carried_out() {
    let mut desk = Desk::default();
    desk.hand_in("s", &["a"]);
    desk.hand_in("s", &["b"]);
    desk.answered.remove(0);
    assert_eq!(keys(&desk.fly(NOW).unwrap()), ["b"]);
    assert_eq!(desk.line.keys, 0);
}

#[tokio::test]
async fn what_waits_when_the_last_lane_has_gone_is_told_so() {
    let queue = Queue::new(Env::system());
    let (lane, other) = (queue.attend(), queue.attend());
    let (waits, answered) = job("s", &["a"]);
    queue.push(waits).await.unwrap();
    drop(lane);
    let (waits, second) = job("s", &["b"]);
    queue.push(waits).await.unwrap();
    drop(other);
    assert!(answered.await.is_err() && second.await.is_err());
    assert!(matches!(queue.push(job("s", &["c"]).0).await, Err(Refusal::Failed(_))));
}

#[tokio::test]
async fn what_waits_at_the_end_is_carried_out_and_what_comes_again_too() {
    let queue = Queue::new(Env::system());
    let lane = queue.attend();
    let (first, answered) = job("s", &["a"]);
    queue.push(first).await.unwrap();
    queue.close();
    assert!(queue.push(job("s", &["b"]).0).await.is_err());

    let mut flight = lane.next().await.unwrap();
    let again = flight.jobs().pop().unwrap();
    assert!(flight.again_once(again).is_none(), "the store was not known to be held");
    drop(flight);
    let mut flight = lane.next().await.unwrap();
    let again = flight.jobs().pop().unwrap();
    flight.again_once(again).expect("it was known, and comes back").tell(Ok(()));
    drop(flight);
    answered.await.unwrap().unwrap();
    assert!(lane.next().await.is_none());
}
