//! The one thread that writes: all that waits goes into one transaction, and is answered once that is on
//! the disk.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::thread::JoinHandle;

use highwater::ids::Time;
use highwater::{Env, Error, Kind, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

use super::super::backend::{Policy, Refusal, StoreName, prefix_end};
use super::super::plan::{Effect, Expect, HEAD_PREFIX, Heads, Plan, Then};
use super::{cached, failed, failure, read};

/// Writes that wait at once; one more waits to wait.
const QUEUE: usize = 1024;
/// Most writes of one transaction.
const BATCH: usize = 512;
/// Bytes of values beyond which a transaction takes no more writes: the next writer waits for all of them.
const BATCH_BYTES: usize = 4 << 20;
/// The same where several users wait.
const SHARED_BYTES: usize = 1 << 20;
/// Bytes of a value: a row of SQLite has a billion at most.
const VALUE_MAX: usize = 999_000_000;
/// A write of no more bytes goes with those of others, whatever they have.
const SMALL_BYTES: usize = 64 << 10;
/// Stores whose numbers and policies are remembered.
const STORES: usize = 10_000;

/// Where writes are handed in.
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What gives users their numbers. Two with one number would share their turns, so nobody can choose
    /// one.
    numbers: RandomState,
    env: Env,
}

/// A write and who waits for it.
trait Job: Send {
    fn bytes(&self) -> usize;
    /// Whose turn it is: a number for each user.
    fn user(&self) -> u64;
    /// Does it inside the transaction. An error means that the transaction is of no more use.
    fn work(&mut self, batch: &mut Batch<'_>) -> Result<(), Error>;
    /// Tells how it ended.
    fn answer(self: Box<Self>, committed: &Result<(), Error>);
}

struct Call<T, W> {
    user: u64,
    bytes: usize,
    work: Option<W>,
    done: Option<Result<T, Refusal>>,
    waits: oneshot::Sender<Result<T, Refusal>>,
}

impl<T, W> Job for Call<T, W>
where
    T: Send,
    W: FnOnce(&mut Batch<'_>) -> Result<T, Refusal> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn user(&self) -> u64 {
        self.user
    }

    fn work(&mut self, batch: &mut Batch<'_>) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        match work(batch) {
            Err(Refusal::Failed(error)) => Err(error),
            done => {
                self.done = Some(done);
                Ok(())
            }
        }
    }

    fn answer(self: Box<Self>, committed: &Result<(), Error>) {
        let answer = match (committed, self.done) {
            (Ok(()), Some(done)) => done,
            // What was refused has nothing to commit.
            (Err(_), Some(Err(refusal))) => Err(refusal),
            (Err(error), _) => Err(Refusal::Failed(error.clone())),
            (Ok(()), None) => Err(Refusal::Failed(Error::bug("a write was left out"))),
        };
        // Whoever asked may have gone.
        let _ = self.waits.send(answer);
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, env: &Env) -> Result<Writer> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let own = env.clone();
        let thread = std::thread::Builder::new()
            .name("vss-writer".to_owned())
            .spawn(move || write(connection, jobs, &own))
            .map_err(|error| Error::io("starting the writer", error))?;
        Ok(Writer {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            numbers: RandomState::new(),
            env: env.clone(),
        })
    }

    pub(super) fn now(&self) -> Time {
        self.env.now()
    }

    /// Runs `work` in a transaction, and returns once that is durable. Users take turns.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        user: &str,
        bytes: usize,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let closed = || Refusal::Failed(Error::unavailable("the database is closed"));
        let queue = self.queue.lock().clone();
        let (waits, answer) = oneshot::channel();
        let user = self.numbers.hash_one(user);
        let call = Call { user, bytes, work: Some(work), done: None, waits };
        queue.ok_or_else(closed)?.send(Box::new(call)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Lets all that waits end.
    pub(super) async fn close(&self) {
        self.queue.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic there has been told to those who waited.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Takes what waits, until nobody can ask any more.
fn write(mut connection: Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>, env: &Env) {
    let mut known = Known::default();
    let mut broken: Option<Error> = None;
    let mut turns = Turns::default();
    while turns.gather(&mut jobs) {
        let batch = turns.take();
        if let Some(error) = &broken {
            batch.into_iter().for_each(|job| job.answer(&Err(error.clone())));
            continue;
        }
        let (answers, fatal) = commit(&mut connection, &mut known, batch, env);
        for (job, answer) in answers {
            job.answer(&answer);
        }
        broken = fatal;
    }
    // What the log holds goes to the database; should that fail, the next start does it.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// Writes that wait, by user: one of each in turn.
#[derive(Default)]
struct Turns {
    order: VecDeque<u64>,
    waiting: HashMap<u64, VecDeque<Box<dyn Job>>>,
    count: usize,
}

impl Turns {
    /// Waits for a write, and takes in all that are there; false: none will come any more.
    fn gather(&mut self, jobs: &mut mpsc::Receiver<Box<dyn Job>>) -> bool {
        if self.count == 0 {
            let Some(job) = jobs.blocking_recv() else { return false };
            self.add(job);
        }
        while self.count < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            self.add(job);
        }
        true
    }

    fn add(&mut self, job: Box<dyn Job>) {
        self.count += 1;
        match self.waiting.get_mut(&job.user()) {
            Some(waiting) => waiting.push_back(job),
            None => {
                self.order.push_back(job.user());
                self.waiting.insert(job.user(), VecDeque::from([job]));
            }
        }
    }

    /// The writes of the next transaction. Those of one user stay in order.
    fn take(&mut self) -> Vec<Box<dyn Job>> {
        let most = if self.order.len() > 1 { SHARED_BYTES } else { BATCH_BYTES };
        let (mut batch, mut bytes, mut later) = (Vec::new(), 0, VecDeque::new());
        while batch.len() < BATCH
            && let Some(user) = self.order.pop_front()
        {
            let Some(waiting) = self.waiting.get_mut(&user) else { continue };
            let next = waiting.front().map_or(0, |job| job.bytes());
            let fits = bytes + next <= most || next <= SMALL_BYTES && bytes <= 2 * most;
            if !fits && !batch.is_empty() {
                // It is the first of the next transaction.
                later.push_back(user);
                continue;
            }
            if let Some(job) = waiting.pop_front() {
                bytes += job.bytes();
                self.count -= 1;
                batch.push(job);
            }
            if waiting.is_empty() {
                self.waiting.remove(&user);
            } else {
                self.order.push_back(user);
            }
        }
        later.append(&mut self.order);
        self.order = later;
        batch
    }
}

type Answers = Vec<(Box<dyn Job>, Result<(), Error>)>;

/// One transaction, and what each of its writes is told. The second value stands where nothing can be
/// written any more: a sync that failed once may succeed the next time without having written anything,
/// so only a new start, which reads what is there, may go on.
fn commit(
    connection: &mut Connection,
    known: &mut Known,
    mut jobs: Vec<Box<dyn Job>>,
    env: &Env,
) -> (Answers, Option<Error>) {
    let outcome = transact(connection, known, &mut jobs, env);
    let Err(broken) = outcome else {
        return (jobs.into_iter().map(|job| (job, Ok(()))).collect(), None);
    };
    known.forget();
    let fatal = broken.fatal.then(|| {
        let error = broken.error.clone().told_as(|why| format!("an earlier write failed: {why}"));
        error
            .with_kind(Kind::Unavailable)
            .instead(["start the server again once the disk is well".into()])
    });
    (jobs.into_iter().map(|job| (job, Err(broken.error.clone()))).collect(), fatal)
}

struct Broken {
    error: Error,
    fatal: bool,
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Broken {
        let fatal = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        Broken { error: failure(&error), fatal }
    }
}

fn transact(
    connection: &mut Connection,
    known: &mut Known,
    jobs: &mut [Box<dyn Job>],
    env: &Env,
) -> Result<(), Broken> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    known.look(&transaction)?;
    let now = env.now();
    for job in jobs {
        let mut batch = Batch { connection: &transaction, known, now };
        if let Err(error) = job.work(&mut batch) {
            // The rollback is that of the transaction, dropped. Input and output fail visibly at the
            // commit; a rollback after them is no more than best.
            return Err(Broken { error, fatal: false });
        }
    }
    Ok(transaction.commit()?)
}

/// Stores as the writer last saw them.
#[derive(Default)]
struct Known {
    stores: HashMap<StoreName, (i64, Policy)>,
    /// Changes when another connection has written.
    data_version: i64,
}

impl Known {
    fn forget(&mut self) {
        self.stores.clear();
    }

    fn look(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let version = cached(connection, "PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if version != self.data_version || self.stores.len() > STORES {
            self.forget();
            self.data_version = version;
        }
        Ok(())
    }
}

/// One transaction, as a write sees it.
pub(super) struct Batch<'a> {
    pub(super) connection: &'a Connection,
    known: &'a mut Known,
    pub(super) now: Time,
}

/// An item that is there.
struct There {
    place: i64,
    version: i64,
}

impl Batch<'_> {
    /// A store, where it is there.
    pub(super) fn found(&mut self, name: &StoreName) -> Result<Option<(i64, Policy)>, Refusal> {
        if let Some(found) = self.known.stores.get(name) {
            return Ok(Some(*found));
        }
        let found = read::store(self.connection, name).map_err(failed)?;
        if let Some(found) = found {
            self.known.stores.insert(name.clone(), found);
        }
        Ok(found)
    }

    /// A store, made where it is not there.
    pub(super) fn store(&mut self, name: &StoreName) -> Result<(i64, Policy), Refusal> {
        if let Some(found) = self.found(name)? {
            return Ok(found);
        }
        let id =
            cached(self.connection, "INSERT INTO store (user, name) VALUES (?1, ?2) RETURNING id")
                .and_then(|mut insert| {
                    insert.query_row(params![name.user, name.id], |row| row.get(0))
                })
                .map_err(failed)?;
        let made = (id, Policy::default());
        self.known.stores.insert(name.clone(), made);
        Ok(made)
    }

    /// Looks at every store anew.
    pub(super) fn forget(&mut self) {
        self.known.forget();
    }

    /// Remembers what holds now for a store.
    pub(super) fn remember(&mut self, name: &StoreName, id: i64, policy: Policy) {
        self.known.stores.insert(name.clone(), (id, policy));
    }

    /// Carries out a plan. What it expects is looked at first: a plan that is refused has done nothing.
    pub(super) fn put(&mut self, name: &StoreName, plan: &Plan) -> Result<(), Refusal> {
        if plan.largest() > VALUE_MAX {
            return Err(Refusal::Invalid(format!("a value has more than {VALUE_MAX} bytes")));
        }
        let found = self.found(name)?;
        let policy = found.map(|(_, policy)| policy).unwrap_or_default();
        if policy.fence {
            self.check_fence(found.map(|(id, _)| id), plan.heads)?;
        }
        let mut there = Vec::with_capacity(plan.effects.len());
        for effect in &plan.effects {
            let item = match found {
                None => None,
                Some((id, _)) => self.item(id, &effect.key)?,
            };
            let fits = match (effect.expect, &item) {
                (Expect::Any, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
                (Expect::Version(version), Some(item)) => item.version == version,
                (Expect::Absent, Some(_)) | (Expect::Present | Expect::Version(_), None) => false,
            };
            if !fits {
                return Err(Refusal::Conflict("a version is not the one expected".to_owned()));
            }
            there.push(item);
        }
        let (id, policy) = self.store(name)?;
        let commit = self.begin(policy);
        let (mut puts, mut deletes) = (0, 0);
        let mut work: Vec<(&Effect, Option<There>)> = plan.effects.iter().zip(there).collect();
        // Keys that are made get their places in this order.
        work.sort_by_key(|(effect, _)| effect.order);
        for (effect, item) in work {
            match (&effect.then, item) {
                (Then::Put { version, value, tag }, item) => {
                    self.write(
                        id,
                        commit,
                        item.map(|item| item.place),
                        (&effect.key, *version, tag, value),
                    )?;
                    puts += 1;
                }
                (Then::Delete, Some(item)) => {
                    self.remove(commit, item.place)?;
                    deletes += 1;
                }
                (Then::Delete, None) => {}
            }
        }
        self.end(name, id, policy, commit, (puts, deletes), None)
    }

    /// Whether a put may land in a fenced store.
    fn check_fence(&self, store: Option<i64>, heads: Heads) -> Result<(), Refusal> {
        let Heads::Fenced { before } = heads else {
            return Err(Refusal::Invalid(format!(
                "this store is fenced: a put must be conditional on the one key under `{HEAD_PREFIX}`, \
                 and leave one"
            )));
        };
        let end = prefix_end(HEAD_PREFIX).unwrap_or_default();
        let count: u32 = cached(
            self.connection,
            "SELECT count(*) FROM item WHERE store = ?1 AND key >= ?2 AND key < ?3",
        )
        .and_then(|mut count| count.query_row(params![store, HEAD_PREFIX, end], |row| row.get(0)))
        .map_err(failed)?;
        if count != before {
            return Err(Refusal::Conflict("another one holds the head of this store".to_owned()));
        }
        Ok(())
    }

    fn item(&self, store: i64, key: &str) -> Result<Option<There>, Refusal> {
        cached(self.connection, "SELECT place, version FROM item WHERE store = ?1 AND key = ?2")
            .and_then(|mut item| {
                item.query_row(params![store, key], |row| {
                    Ok(There { place: row.get(0)?, version: row.get(1)? })
                })
                .optional()
            })
            .map_err(failed)
    }

    /// Writes a value over the one at `place`, or as a new one.
    pub(super) fn write(
        &self,
        store: i64,
        commit: Option<i64>,
        place: Option<i64>,
        (key, version, tag, value): (&str, i64, &[u8; 32], &[u8]),
    ) -> Result<(), Refusal> {
        let since = commit.unwrap_or(0);
        let written = match place {
            Some(place) => {
                self.keep(commit, place)?;
                cached(
                    self.connection,
                    "UPDATE item SET version = ?2, since = ?3, tag = ?4, value = ?5 WHERE place = ?1",
                )
                .and_then(|mut update| update.execute(params![place, version, since, tag, value]))
            }
            None => cached(
                self.connection,
                "INSERT INTO item (store, version, since, tag, key, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .and_then(|mut insert| insert.execute(params![store, version, since, tag, key, value])),
        };
        written.map(drop).map_err(failed)
    }

    /// Deletes the item at a place.
    pub(super) fn remove(&self, commit: Option<i64>, place: i64) -> Result<(), Refusal> {
        self.keep(commit, place)?;
        cached(self.connection, "DELETE FROM item WHERE place = ?1")
            .and_then(|mut delete| delete.execute([place]))
            .map(drop)
            .map_err(failed)
    }

    pub(super) fn delete(
        &mut self,
        name: &StoreName,
        key: &str,
        version: i64,
    ) -> Result<(), Refusal> {
        let Some((id, policy)) = self.found(name)? else { return Ok(()) };
        if policy.fence {
            return Err(Refusal::Invalid(
                "this store is fenced: delete by a put that is conditional on its head".to_owned(),
            ));
        }
        match self.item(id, key)? {
            Some(item) if version == -1 || item.version == version => {
                let commit = self.begin(policy);
                self.remove(commit, item.place)?;
                self.end(name, id, policy, commit, (0, 1), None)
            }
            // A wrong version deletes nothing, and nobody is told: so is the protocol.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(user: u64, bytes: usize) -> Box<dyn Job> {
        let (waits, _) = oneshot::channel();
        let work = |_: &mut Batch<'_>| Ok(());
        Box::new(Call { user, bytes, work: Some(work), done: None, waits })
    }

    fn take(turns: &mut Turns) -> Vec<(u64, usize)> {
        turns.take().iter().map(|job| (job.user(), job.bytes())).collect()
    }

    #[test]
    fn users_take_turns_and_keep_their_order() {
        let mut turns = Turns::default();
        for bytes in 1..=5 {
            turns.add(job(1, bytes));
        }
        turns.add(job(2, 9));
        assert_eq!(take(&mut turns), [(1, 1), (2, 9), (1, 2), (1, 3), (1, 4), (1, 5)]);
        assert_eq!(turns.count, 0);
    }

    #[test]
    fn who_writes_much_holds_others_up_by_little() {
        const LARGE: usize = 1 << 20;
        let mut turns = Turns::default();
        for _ in 0..16 {
            turns.add(job(1, LARGE));
        }
        assert_eq!(take(&mut turns).len(), 4, "alone, as much as one transaction takes");
        turns.add(job(2, 10));
        assert_eq!(take(&mut turns), [(1, LARGE), (2, 10)], "it goes with the first that is taken");
        turns.add(job(2, LARGE));
        assert_eq!(take(&mut turns), [(1, LARGE)]);
        assert_eq!(take(&mut turns), [(2, LARGE)]);
    }
}
