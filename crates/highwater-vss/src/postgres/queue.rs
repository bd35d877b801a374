//! Writes that wait, and those that are on their way. What is taken for one transaction names no key
//! that another one on its way names, so that two of them can't wait for one another, and no write
//! overtakes an older one of the same key. Stores that take one transaction after the other (with a
//! fence or a history) are on their way once at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use highwater::{Env, Error};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::backend::{Refusal, StoreName};
use super::super::plan::Effect;

/// Writes that wait; one more waits to wait.
const ROOM: usize = 2048;
/// Writes that are looked at to make a transaction.
const LOOKED_AT: usize = 1024;
/// Most keys of one transaction, unless one write has more.
const KEYS_MAX: usize = 4000;
/// Most bytes of one transaction, unless one write has more.
const BYTES_MAX: usize = 8 << 20;
/// As many keys that wait go beside a transaction on its way. Fewer go with what comes meanwhile: each
/// transaction has a cost of its own.
const KEYS_BESIDE: usize = 128;
/// A transaction that is on its way for so long may wait for somebody: others go beside it.
const LONG: Duration = Duration::from_millis(5);
/// Stores that are remembered as such that take one transaction after the other.
const SERIAL_MAX: usize = 4096;

/// Answers a write.
pub(super) type Answer = oneshot::Sender<Result<(), Refusal>>;

/// A write and who waits for it.
pub(super) struct Job {
    pub(super) store: StoreName,
    pub(super) effects: Vec<Effect>,
    /// As the argument of the function in SQL.
    pub(super) heads: i32,
    pub(super) bytes: usize,
    pub(super) answer: Answer,
}

impl Job {
    /// Answers it.
    pub(super) fn tell(self, answer: Result<(), Refusal>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

/// A write that waits, with hashes of its store and its keys: two that are alike by chance only keep their
/// writes apart.
struct Waiting {
    job: Job,
    store: u64,
    names: Vec<u64>,
    /// Its place among those that wait; one that was taken before has none.
    _room: Option<OwnedSemaphorePermit>,
}

/// What the lanes share.
pub(super) struct Queue {
    line: Mutex<Line>,
    changed: Notify,
    room: Arc<Semaphore>,
    env: Env,
}

#[derive(Default)]
struct Line {
    hasher: RandomState,
    waiting: VecDeque<Waiting>,
    /// Of all that wait.
    keys: usize,
    /// The keys that are on their way.
    named: HashSet<u64>,
    /// Stores, and how many transactions on their way write them.
    stores: HashMap<u64, usize>,
    /// Stores that take one transaction after the other, as far as it is known.
    serial: HashSet<u64>,
    flights: usize,
    /// When the newest of them began.
    begun: Duration,
    lanes: usize,
    closed: bool,
}

/// What goes as one transaction.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    names: Vec<u64>,
    stores: HashSet<u64>,
}

/// Writes on their way; they have landed when this is dropped.
pub(super) struct Flight<'a> {
    queue: &'a Queue,
    batch: Batch,
}

/// Somebody who takes what waits. When the last one has gone, nothing is carried out any more.
pub(super) struct Attendance<'a>(&'a Queue);

/// What a lane does next.
enum Next {
    Fly(Batch),
    /// Nothing, until something has changed, or this has passed.
    Wait(Option<Duration>),
    End,
}

impl Queue {
    pub(super) fn new(env: Env) -> Queue {
        Queue {
            line: Mutex::default(),
            changed: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM)),
            env,
        }
    }

    /// Adds a write, as soon as there is room.
    pub(super) async fn push(&self, job: Job) -> Result<(), Refusal> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| closed())?;
        {
            let mut line = self.line.lock();
            if line.closed {
                return Err(closed());
            }
            let waiting = line.look(job, Some(room));
            line.keys += waiting.names.len();
            line.waiting.push_back(waiting);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Takes part in carrying out what waits.
    pub(super) fn attend(&self) -> Attendance<'_> {
        self.line.lock().lanes += 1;
        Attendance(self)
    }

    /// Takes no write any more; what waits is still carried out.
    pub(super) fn close(&self) {
        self.room.close();
        self.line.lock().closed = true;
        self.changed.notify_waiters();
    }
}

impl Attendance<'_> {
    /// The next transaction; none: nothing waits, and nothing will come any more.
    pub(super) async fn next(&self) -> Option<Flight<'_>> {
        let queue = self.0;
        loop {
            let mut changed = pin!(queue.changed.notified());
            changed.as_mut().enable();
            let next = queue.line.lock().next(queue.env.monotonic());
            match next {
                Next::Fly(batch) => {
                    // There may be enough for another lane.
                    queue.changed.notify_one();
                    return Some(Flight { queue, batch });
                }
                Next::Wait(None) => changed.await,
                Next::Wait(Some(most)) => {
                    // Either way it is looked at again.
                    let _ = tokio::time::timeout(most, changed).await;
                }
                Next::End => return None,
            }
        }
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line.lock();
        line.lanes -= 1;
        if line.lanes == 0 {
            line.closed = true;
            // Whoever waits for an answer is told so by its end.
            line.waiting.clear();
            self.0.room.close();
        }
    }
}

impl Flight<'_> {
    /// Takes out what is on its way, to be answered.
    pub(super) fn jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.batch.jobs)
    }

    /// Lets a write wait once more, as the next one.
    pub(super) fn again(&self, job: Job) {
        let mut line = self.queue.line.lock();
        let waiting = line.look(job, None);
        line.mark(waiting.store);
        line.keys += waiting.names.len();
        line.waiting.push_front(waiting);
    }

    /// Somebody holds the store of this write. Where it was not known that it takes one transaction after
    /// the other, that may be a transaction of this process, and the write waits once more; where it was,
    /// it comes back.
    pub(super) fn again_once(&self, job: Job) -> Option<Job> {
        let known = {
            let line = self.queue.line.lock();
            line.serial.contains(&line.hasher.hash_one(&job.store))
        };
        if known {
            return Some(job);
        }
        self.again(job);
        None
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.queue.line.lock().land(&self.batch);
        self.queue.changed.notify_one();
    }
}

impl Line {
    fn look(&self, job: Job, room: Option<OwnedSemaphorePermit>) -> Waiting {
        let store = self.hasher.hash_one(&job.store);
        let mut names: Vec<u64> =
            job.effects.iter().map(|effect| self.hasher.hash_one((store, &effect.key))).collect();
        names.sort_unstable();
        names.dedup();
        Waiting { job, store, names, _room: room }
    }

    /// Remembers that a store takes one transaction after the other.
    fn mark(&mut self, store: u64) {
        if self.serial.len() >= SERIAL_MAX {
            self.serial.clear();
        }
        self.serial.insert(store);
    }

    fn land(&mut self, batch: &Batch) {
        self.flights -= 1;
        for name in &batch.names {
            self.named.remove(name);
        }
        for store in &batch.stores {
            if let Some(count) = self.stores.get_mut(store) {
                *count -= 1;
                if *count == 0 {
                    self.stores.remove(store);
                }
            }
        }
    }

    fn next(&mut self, now: Duration) -> Next {
        let aged = now.saturating_sub(self.begun);
        let few = self.keys < KEYS_BESIDE && aged < LONG;
        if self.flights > 0 && few && !self.waiting.is_empty() {
            return Next::Wait(Some(LONG - aged));
        }
        let batch = self.take();
        if batch.jobs.is_empty() {
            // What waits goes after what is on its way, whose lane looks again when that has landed.
            let end = self.closed && self.waiting.is_empty();
            return if end { Next::End } else { Next::Wait(None) };
        }
        self.flights += 1;
        self.begun = now;
        Next::Fly(batch)
    }

    /// The oldest write that may go, and what goes with it.
    fn take(&mut self) -> Batch {
        let (mut batch, mut left) = (Batch::default(), VecDeque::new());
        let (mut bytes, mut looked_at) = (0, 0);
        // Of those that stay: what comes after them does not overtake them.
        let mut kept: HashSet<u64> = HashSet::new();
        while let Some(waiting) = self.waiting.pop_front() {
            // Nobody waits for it any more.
            if waiting.job.answer.is_closed() {
                self.keys -= waiting.names.len();
                continue;
            }
            looked_at += 1;
            let keys = batch.names.len();
            if looked_at > LOOKED_AT || keys >= KEYS_MAX || bytes >= BYTES_MAX {
                left.push_back(waiting);
                break;
            }
            let fits =
                keys + waiting.names.len() <= KEYS_MAX && bytes + waiting.job.bytes <= BYTES_MAX;
            let after_another = self.stores.contains_key(&waiting.store)
                && (waiting.job.heads >= 0 || self.serial.contains(&waiting.store));
            let apart =
                waiting.names.iter().all(|name| !self.named.contains(name) && !kept.contains(name));
            if apart && !after_another && (fits || batch.jobs.is_empty()) {
                self.keys -= waiting.names.len();
                bytes += waiting.job.bytes;
                self.named.extend(&waiting.names);
                batch.names.extend(&waiting.names);
                batch.stores.insert(waiting.store);
                batch.jobs.push(waiting.job);
            } else {
                kept.extend(&waiting.names);
                left.push_back(waiting);
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        for store in &batch.stores {
            *self.stores.entry(*store).or_default() += 1;
        }
        batch
    }
}

/// The database was closed.
pub(super) fn closed() -> Refusal {
    Refusal::Failed(Error::unavailable("the database is closed"))
}

#[cfg(test)]
mod tests;
