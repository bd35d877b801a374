//! Puts and deletes. What arrives while earlier ones are on their way goes as one transaction by one
//! call (group commit), and is answered once its commit has come back.

use std::sync::Arc;

use deadpool_postgres::Pool;
use highwater::{Env, Error};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::super::backend::{Refusal, StoreName};
use super::super::plan::{Effect, Expect, HEAD_PREFIX, Heads, Plan, Then};
use super::connect::{POOL_WAIT, STATEMENT_MAX, Server};
use super::failure::{failed, failure, lost, no_connection, passes, too_large};
use super::queue::{Attendance, Flight, Job, Queue, closed};

/// Connections that write.
const LANES: usize = 2;
/// Bytes of one write: PostgreSQL takes less than 1 GiB in one value, arrays among them.
const BYTES_MAX: usize = 900 << 20;
/// How often a transaction is tried that others got in the way of. Each time somebody else's has landed.
const ATTEMPTS: u32 = 50;
/// Writes of a lane that wait for stores which somebody holds for long; with more the lane waits as well.
const ASIDE: usize = 256;
/// The number of locks that stores are spread over: a change of a policy waits for, and holds up, the stores of one.
const BUCKETS: i32 = 64;

const PUT: &str = "SELECT vss.put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Where writes are handed in.
pub(super) struct Lanes {
    queue: Arc<Queue>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Lanes {
    /// Starts the lanes; what has to wait for long goes by `aside`.
    pub(super) fn start(server: &Server, aside: &Pool, env: &Env) -> Lanes {
        let queue = Arc::new(Queue::new(env.clone()));
        let tasks = (0..LANES).map(|_| {
            let lane = Lane {
                session: None,
                server: server.clone(),
                aside: aside.clone(),
                asides: JoinSet::new(),
                env: env.clone(),
            };
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { lane.run(&queue.attend()).await })
        });
        Lanes { tasks: Mutex::new(tasks.collect()), queue }
    }

    /// Carries out a plan.
    pub(super) async fn put(&self, store: &StoreName, plan: Plan) -> Result<(), Refusal> {
        let heads = match plan.heads {
            Heads::Fenced { before } => i32::try_from(before).unwrap_or(i32::MAX),
            Heads::Unfenced => -1,
        };
        self.hand_in(store, plan.bytes(), plan.effects, heads).await
    }

    /// Deletes a key where it has this version, or any for −1.
    pub(super) async fn delete(
        &self,
        store: &StoreName,
        key: &str,
        version: i64,
    ) -> Result<(), Refusal> {
        let expect = match version {
            -1 => Expect::Present,
            _ => Expect::Version(version),
        };
        let effect = Effect { key: key.to_owned(), expect, then: Then::Delete, order: 0 };
        self.hand_in(store, key.len(), vec![effect], LONE_DELETE).await
    }

    async fn hand_in(
        &self,
        store: &StoreName,
        bytes: usize,
        effects: Vec<Effect>,
        heads: i32,
    ) -> Result<(), Refusal> {
        if bytes > BYTES_MAX {
            return Err(too_many_bytes());
        }
        let (answer, done) = oneshot::channel();
        self.queue.push(Job { store: store.clone(), effects, heads, bytes, answer }).await?;
        done.await.map_err(|_| closed())?
    }

    /// Lets all that waits end.
    pub(super) async fn close(&self) {
        self.queue.close();
        let tasks: Vec<_> = self.tasks.lock().drain(..).collect();
        for task in tasks {
            // A panic there has been told to those who waited.
            let _ = task.await;
        }
    }
}

/// As `heads` of the function in SQL.
const LONE_DELETE: i32 = -2;

fn too_many_bytes() -> Refusal {
    Refusal::Invalid("more bytes than PostgreSQL takes in one put".to_owned())
}

/// The lock of a store's policy. Every process must find the same one: it does not go by a hash of Rust,
/// which another version may reckon otherwise.
pub(super) fn bucket(store: &StoreName) -> i32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(store.user.len() as u64).to_le_bytes());
    hasher.update(store.user.as_bytes()).update(store.id.as_bytes());
    i32::from(hasher.finalize().as_bytes()[0]) % BUCKETS
}

/// A connection, with what is prepared on it.
#[derive(Clone)]
struct Session {
    client: Arc<Client>,
    put: Statement,
}

struct Lane {
    session: Option<Session>,
    server: Server,
    aside: Pool,
    asides: JoinSet<()>,
    env: Env,
}

/// Why a call has no outcomes.
enum Trouble {
    /// There is no connection, and so nothing was asked.
    Unconnected(Error),
    Postgres(tokio_postgres::Error),
    /// Nothing has come back for too long.
    Silent,
    /// Others got in the way, again and again.
    Contended,
}

impl Trouble {
    /// Whether it is of the connection, and not of what was asked.
    fn is_of_connection(&self) -> bool {
        match self {
            Trouble::Postgres(error) => lost(error),
            Trouble::Unconnected(_) | Trouble::Silent => true,
            Trouble::Contended => false,
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Trouble::Postgres(error) if too_large(error) => too_many_bytes(),
            Trouble::Postgres(error) => Refusal::Failed(failure(error)),
            Trouble::Unconnected(error) => Refusal::Failed(error.clone()),
            Trouble::Silent => Refusal::Failed(
                Error::unavailable("PostgreSQL does not answer")
                    .with_remedy("whether the write has landed is not known"),
            ),
            Trouble::Contended => Refusal::Failed(
                Error::unavailable("others write the same keys again and again")
                    .with_remedy("try again"),
            ),
        }
    }
}

impl Lane {
    async fn run(mut self, queue: &Attendance<'_>) {
        while let Some(flight) = queue.next().await {
            self.commit(flight).await;
            while self.asides.try_join_next().is_some() {}
            if self.asides.len() >= ASIDE {
                self.asides.join_next().await;
            }
        }
        while self.asides.join_next().await.is_some() {}
    }

    /// One transaction. Where it fails for what was asked of it, each write is tried by itself: a bad one
    /// harms nobody else.
    async fn commit(&mut self, mut flight: Flight<'_>) {
        let batch = flight.jobs();
        match self.attempt(&batch).await {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    self.tell(&flight, job, outcome);
                }
            }
            Err(trouble) if batch.len() > 1 && !trouble.is_of_connection() => {
                for job in batch {
                    match self.attempt(std::slice::from_ref(&job)).await {
                        Ok(outcomes) => self.tell(&flight, job, first(&outcomes)),
                        Err(trouble) => job.tell(Err(trouble.refusal())),
                    }
                }
            }
            Err(trouble) => {
                for job in batch {
                    job.tell(Err(trouble.refusal()));
                }
            }
        }
    }

    fn tell(&mut self, flight: &Flight<'_>, job: Job, outcome: i32) {
        match outcome {
            AGAIN => flight.again(job),
            HELD => {
                let Some(job) = flight.again_once(job) else { return };
                let (pool, env) = (self.aside.clone(), self.env.clone());
                self.asides.spawn(async move {
                    let done = aside(&pool, &job, &env).await;
                    job.tell(done);
                });
            }
            outcome => job.tell(result(outcome)),
        }
    }

    async fn attempt(&mut self, jobs: &[Job]) -> Result<Vec<i32>, Trouble> {
        for _ in 0..ATTEMPTS {
            let session = self.session().await?;
            match call(&session.client, &session.put, jobs, false, &self.env).await {
                Err(Trouble::Postgres(error)) if passes(&error) => {}
                Err(trouble) if trouble.is_of_connection() => {
                    self.session = None;
                    return Err(trouble);
                }
                done => return done,
            }
        }
        Err(Trouble::Contended)
    }

    /// The lane's connection, made anew where it has ended.
    async fn session(&mut self) -> Result<Session, Trouble> {
        if let Some(session) = &self.session
            && !session.client.is_closed()
        {
            return Ok(session.clone());
        }
        let making = async {
            let (client, _) = self.server.session().await?;
            let put = client.prepare(PUT).await?;
            Ok(Session { client: Arc::new(client), put })
        };
        let session = tokio::time::timeout(POOL_WAIT, making)
            .await
            .map_err(|_| Trouble::Unconnected(Error::unavailable("PostgreSQL does not answer")))?
            .map_err(|error: tokio_postgres::Error| Trouble::Unconnected(failure(&error)))?;
        self.session = Some(session.clone());
        Ok(session)
    }
}

/// Outcomes of the function in SQL.
const DONE: i32 = 0;
const MISMATCH: i32 = 1;
const FENCED: i32 = 2;
const OTHER_HEADS: i32 = 3;
const AGAIN: i32 = 4;
const NOTHING: i32 = 5;
const HELD: i32 = 6;

fn result(outcome: i32) -> Result<(), Refusal> {
    match outcome {
        DONE | NOTHING => Ok(()),
        MISMATCH => Err(Refusal::Conflict("a version is not the one expected".to_owned())),
        FENCED => Err(Refusal::Invalid(format!(
            "this store is fenced: a put must be conditional on the one key under `{HEAD_PREFIX}`, and \
             leave one"
        ))),
        OTHER_HEADS => {
            Err(Refusal::Conflict("another one holds the head of this store".to_owned()))
        }
        _ => Err(Refusal::Failed(Error::bug("an outcome that is not known"))),
    }
}

fn first(outcomes: &[i32]) -> i32 {
    outcomes.first().copied().unwrap_or(-1)
}

/// A write by itself, which waits for whoever holds its store.
async fn aside(pool: &Pool, job: &Job, env: &Env) -> Result<(), Refusal> {
    let connection = pool.get().await.map_err(no_connection)?;
    let put = connection.prepare_cached(PUT).await.map_err(failed)?;
    for _ in 0..ATTEMPTS {
        match call(&connection, &put, std::slice::from_ref(job), true, env).await {
            Ok(outcomes) => return result(first(&outcomes)),
            Err(Trouble::Postgres(error)) if passes(&error) => {}
            Err(trouble) => {
                // It may still be at work: nobody else gets it.
                drop(deadpool_postgres::Object::take(connection));
                return Err(trouble.refusal());
            }
        }
    }
    Err(Trouble::Contended.refusal())
}

/// Calls the function in SQL: an outcome for each job.
async fn call(
    client: &Client,
    put: &Statement,
    jobs: &[Job],
    wait: bool,
    env: &Env,
) -> Result<Vec<i32>, Trouble> {
    let mut rows: Vec<(&Job, &Effect, i32)> = Vec::new();
    for (job, number) in jobs.iter().zip(1..) {
        rows.extend(job.effects.iter().map(|effect| (job, effect, number)));
    }
    rows.sort_by_key(|(job, effect, _)| (&job.store, &effect.key));
    let buckets: Vec<i32> = jobs.iter().map(|job| bucket(&job.store)).collect();
    let users: Vec<&str> = jobs.iter().map(|job| job.store.user.as_str()).collect();
    let names: Vec<&str> = jobs.iter().map(|job| job.store.id.as_str()).collect();
    let heads: Vec<i32> = jobs.iter().map(|job| job.heads).collect();
    let requests: Vec<i32> = rows.iter().map(|(.., number)| *number).collect();
    let keys: Vec<&str> = rows.iter().map(|(_, effect, _)| effect.key.as_str()).collect();
    let expects: Vec<i64> = rows.iter().map(|(_, effect, _)| expect(effect.expect)).collect();
    let orders: Vec<i32> =
        rows.iter().map(|(_, effect, _)| i32::try_from(effect.order).unwrap_or(i32::MAX)).collect();
    let (mut versions, mut tags, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (_, effect, _) in &rows {
        let (written, tag, content): (i64, &[u8], &[u8]) = match &effect.then {
            Then::Put { version, value, tag } => (*version, tag, value),
            Then::Delete => (0, &[], &[]),
        };
        versions.push(written);
        tags.push(tag);
        values.push(content);
    }
    let now = env.now().as_nanos();
    let parameters: [&(dyn ToSql + Sync); 13] = [
        &buckets, &users, &names, &heads, &requests, &keys, &expects, &versions, &orders, &tags,
        &values, &now, &wait,
    ];
    let asked = client.query_one(put, &parameters);
    // Longer than the server's own bound: only where nothing comes from there.
    match tokio::time::timeout(STATEMENT_MAX * 2, asked).await {
        Ok(Ok(row)) => row.try_get(0).map_err(Trouble::Postgres),
        Ok(Err(error)) => Err(Trouble::Postgres(error)),
        Err(_) => Err(Trouble::Silent),
    }
}

/// As `expects` of the function in SQL.
fn expect(expect: Expect) -> i64 {
    match expect {
        Expect::Any => -1,
        Expect::Present => -2,
        Expect::Absent => 0,
        Expect::Version(version) if version > 0 => version,
        // Nothing has it.
        Expect::Version(_) => -3,
    }
}
