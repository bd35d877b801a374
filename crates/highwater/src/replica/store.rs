//! The store that a node uses.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::book::{Book, Queued};
use super::class::{Class, Classes};
use super::commit::Committer;
use super::head::HeadState;
use super::keys::ReplicaKeys;
use super::local::{LocalStore, Rows, Space};
use super::owner::{Permissions, Start, Started};
use super::remote::Remote;
use super::sender::{Sender, Step};
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::ids::Time;

/// Before a put is tried again; longer each time, up to the second of the two.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Values and keys of one transaction: it has to fit into one put.
const TRANSACTION_WRITES_MAX: usize = 400;
const TRANSACTION_BYTES_MAX: usize = 8 << 20;

/// One write of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key, any bytes.
    pub key: Vec<u8>,
    /// The value; none deletes the key, whether it is there or not.
    pub value: Option<Vec<u8>>,
}

/// What may wait for the server, before writes wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Writes.
    pub writes: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl Default for Bound {
    fn default() -> Bound {
        Bound { writes: 100_000, bytes: 1 << 30 }
    }
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// The number of this start's ownership.
    pub epoch: u64,
    /// What the server's values are.
    pub state: HeadState,
    /// The last write that the server is known to have.
    pub acknowledged: u64,
    /// The last write here.
    pub written: u64,
    /// Writes that wait,
    pub pending_writes: u64,
    /// and their bytes.
    pub pending_bytes: u64,
    /// When the oldest of them was written.
    pub pending_since: Option<Time>,
    /// Values on the server.
    pub values: u64,
    /// Why the last put did not land, where it did not.
    pub last_error: Option<String>,
    /// Another owner writes: this one must not act any more.
    pub fenced: bool,
}

/// How a replicated store is opened.
pub struct ReplicaBuilder {
    local: Arc<dyn LocalStore>,
    remote: Arc<dyn Remote>,
    keys: ReplicaKeys,
    classes: Classes,
    bound: Bound,
    owner: String,
    permissions: Permissions,
    env: Env,
}

impl ReplicaBuilder {
    /// Which keys are replicated, and how; all of them local-first where nothing is said.
    #[must_use]
    pub fn classes(mut self, classes: Classes) -> ReplicaBuilder {
        self.classes = classes;
        self
    }

    /// How much may wait for the server: a local-first write beyond it waits until less does.
    #[must_use]
    pub fn bound(mut self, bound: Bound) -> ReplicaBuilder {
        self.bound = bound;
        self
    }

    /// Who this is, for people who ask who owns a store.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> ReplicaBuilder {
        self.owner = owner.into();
        self
    }

    /// What this start may do that it would not do by itself.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> ReplicaBuilder {
        self.permissions = permissions;
        self
    }

    /// Clock and randomness.
    #[must_use]
    pub fn env(mut self, env: Env) -> ReplicaBuilder {
        self.env = env;
        self
    }

    /// Becomes the owner of the store on the server, or says why not; fills this store from it where it is
    /// empty. Then the store can be used, and the sender runs.
    ///
    /// # Errors
    /// Denied where the keys are not those of this store, or of the server's; fenced where somebody else
    /// owns it, or where this store is a copy of the owner's; conflict where both have values that have
    /// nothing to do with one another; not found where both are empty; corrupt where the server's values
    /// are not what they were; unavailable where the server can't be asked.
    pub fn open(self) -> Result<(ReplicatedStore, Started)> {
        let book = Book { local: Arc::clone(&self.local) };
        let classes = self.classes.clone();
        let start = Start {
            book: book.clone(),
            remote: self.remote,
            keys: Arc::new(self.keys),
            env: self.env.clone(),
            owner: &self.owner,
            permissions: &self.permissions,
            is_replicated: &|key| classes.of(key) != Class::LocalOnly,
        };
        let (sender, started) = start.run()?;
        let shared = Arc::new(Shared {
            local: self.local,
            committer: Committer::new(book, self.classes, self.env.clone(), sender.held.head.seq)?,
            bound: self.bound,
            state: Mutex::new(State::of(&sender)),
            moved: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name("highwater-replica".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.send(sender)
            })
            .map_err(|error| Error::io("starting the sender", error))?;
        Ok((ReplicatedStore { shared, thread: Mutex::new(Some(thread)) }, started))
    }
}

/// A node's store, and its copy on a server. Shared by all threads of the node.
pub struct ReplicatedStore {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

struct Shared {
    local: Arc<dyn LocalStore>,
    committer: Committer,
    bound: Bound,
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    epoch: u64,
    head: HeadState,
    values: u64,
    acknowledged: u64,
    last_error: Option<String>,
    fenced: Option<String>,
    ending: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// At once.
    Stop,
    /// Once all is on the server, which is told so.
    Release,
}

impl State {
    fn of(sender: &Sender) -> State {
        let head = &sender.held.head;
        State {
            epoch: head.epoch,
            head: head.state,
            values: head.sum.count,
            acknowledged: head.seq,
            last_error: None,
            fenced: None,
            ending: None,
        }
    }
}

impl ReplicatedStore {
    /// A store over `local`, kept on `remote` under `keys`.
    pub fn builder(
        local: Arc<dyn LocalStore>,
        remote: Arc<dyn Remote>,
        keys: ReplicaKeys,
    ) -> ReplicaBuilder {
        ReplicaBuilder {
            local,
            remote,
            keys,
            classes: Classes::all(Class::LocalFirst),
            bound: Bound::default(),
            owner: "unknown".to_owned(),
            permissions: Permissions::default(),
            env: Env::system(),
        }
    }

    /// A value; none where the key is missing.
    ///
    /// # Errors
    /// What the local store says.
    pub fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.local.get(Space::Data, key)
    }

    /// At most `limit` rows whose keys begin with `prefix`, in order, from the first key above `after`.
    ///
    /// # Errors
    /// What the local store says.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Rows> {
        self.shared.local.scan(Space::Data, prefix, after, limit)
    }

    /// Writes one value.
    ///
    /// # Errors
    /// As [`ReplicatedStore::commit`].
    pub fn write(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<()> {
        self.commit(vec![Write { key: key.into(), value: Some(value.into()) }])
    }

    /// Deletes one key, whether it is there or not.
    ///
    /// # Errors
    /// As [`ReplicatedStore::commit`].
    pub fn remove(&self, key: impl Into<Vec<u8>>) -> Result<()> {
        self.commit(vec![Write { key: key.into(), value: None }])
    }

    /// Writes all or nothing. Where a key of it is remote-first, all of it is: this returns once the
    /// server has it. Else it returns once it is durable here.
    ///
    /// # Errors
    /// Fenced where another owner writes to the server: nothing was told to have been written. Input
    /// where it does not fit into one put. What the local store says.
    pub fn commit(&self, writes: Vec<Write>) -> Result<()> {
        let bytes = |write: &Write| write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        let total: usize = writes.iter().map(bytes).sum();
        if writes.len() > TRANSACTION_WRITES_MAX
            || (total > TRANSACTION_BYTES_MAX && writes.len() > 1)
        {
            return Err(Error::input(format!(
                "a transaction of {} writes and {total} bytes is too large for one put",
                writes.len()
            ))
            .hint(format!(
                "it takes {TRANSACTION_WRITES_MAX} writes of {TRANSACTION_BYTES_MAX} bytes together, or one \
                 larger value"
            )));
        }
        self.shared.room()?;
        let committed = self.shared.committer.commit(writes)?;
        // The sender sees it from here on, if it has not before.
        drop(self.shared.state());
        self.shared.moved.notify_all();
        match committed.remote_first {
            true => self.shared.wait_for(committed.seq),
            false => Ok(()),
        }
    }

    /// Returns once the server has all that was written before.
    ///
    /// # Errors
    /// Fenced where another owner writes; unavailable once `wait` has passed, which goes on behind.
    pub fn flush(&self, wait: Duration) -> Result<()> {
        let goal = self.shared.committer.seq();
        let state = self.shared.state();
        let reached = |state: &mut State| state.acknowledged < goal && state.fenced.is_none();
        let waited = self.shared.moved.wait_timeout_while(state, wait, reached);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &state.fenced {
            return Err(Error::fenced(why.clone()));
        }
        if state.acknowledged < goal {
            let why = state.last_error.clone().unwrap_or_else(|| "it takes long".to_owned());
            return Err(Error::unavailable(format!(
                "{} writes still wait: {why}",
                self.shared.committer.waiting().0
            )));
        }
        Ok(())
    }

    /// How it stands.
    ///
    /// # Errors
    /// What the local store says.
    pub fn status(&self) -> Result<ReplicaStatus> {
        let written = self.shared.committer.seq();
        let book = Book { local: Arc::clone(&self.shared.local) };
        let oldest = book.queued(self.shared.state().acknowledged, 1)?;
        let (pending_writes, pending_bytes) = self.shared.committer.waiting();
        let state = self.shared.state();
        Ok(ReplicaStatus {
            epoch: state.epoch,
            state: state.head,
            acknowledged: state.acknowledged,
            written,
            pending_writes,
            pending_bytes,
            pending_since: oldest.first().map(|queued: &Queued| queued.at),
            values: state.values,
            last_error: state.fenced.clone().or_else(|| state.last_error.clone()),
            fenced: state.fenced.is_some(),
        })
    }

    /// Ends in good order: sends what waits, and gives the store up, so that the next owner need not take
    /// it over.
    ///
    /// # Errors
    /// Fenced where another owner writes; unavailable where the server does not take it: then it is not
    /// released, and the next start here goes on.
    pub fn release(self) -> Result<()> {
        self.end(End::Release)
    }

    /// Ends at once. What waits is sent by the next start.
    ///
    /// # Errors
    /// As the sender has ended.
    pub fn stop(self) -> Result<()> {
        self.end(End::Stop)
    }

    fn end(&self, end: End) -> Result<()> {
        self.shared.state().ending = Some(end);
        self.shared.moved.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let panicked = |_| Err(Error::bug("the sender has panicked"));
        thread.map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for ReplicatedStore {
    fn drop(&mut self) {
        // What ends without a word is stopped; the next start goes on.
        let _ = self.end(End::Stop);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no more than the bound waits for the server.
    fn room(&self) -> Result<()> {
        let full = |state: &mut State| {
            let (writes, bytes) = self.committer.waiting();
            let over = writes >= self.bound.writes || bytes >= self.bound.bytes;
            over && state.fenced.is_none() && state.ending.is_none()
        };
        let state =
            self.moved.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        check_open(&state)
    }

    fn wait_for(&self, seq: u64) -> Result<()> {
        let waits = |state: &mut State| {
            state.acknowledged < seq && state.fenced.is_none() && state.ending != Some(End::Stop)
        };
        let state =
            self.moved.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        if state.acknowledged >= seq {
            return Ok(());
        }
        check_open(&state)
    }

    /// The sender's thread.
    fn send(&self, mut sender: Sender) -> Result<()> {
        let ended = self.send_until_the_end(&mut sender);
        if let Err(error) = &ended {
            self.give_up(error);
        }
        ended
    }

    fn send_until_the_end(&self, sender: &mut Sender) -> Result<()> {
        let mut pause = RETRY_FIRST;
        loop {
            let ending = self.state().ending;
            if ending == Some(End::Stop) {
                return Ok(());
            }
            match sender.step()? {
                Step::Landed(writes, bytes) => {
                    pause = RETRY_FIRST;
                    self.landed(sender, writes, bytes);
                }
                Step::Idle if ending == Some(End::Release) => {
                    sender.release()?;
                    self.landed(sender, 0, 0);
                    return Ok(());
                }
                Step::Idle => self.wait_for_work(sender),
                Step::Uncertain(error) if ending.is_some() => return Err(error),
                Step::Uncertain(error) => {
                    let mut state = self.state();
                    state.last_error = Some(error.to_string());
                    let stays = |state: &mut State| state.ending.is_none();
                    let waited = self.moved.wait_timeout_while(state, pause, stays);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    fn landed(&self, sender: &Sender, writes: u64, bytes: u64) {
        self.committer.sent(writes, bytes);
        self.committer.settle(sender.held.head.seq);
        let mut state = self.state();
        let ending = state.ending;
        *state = State { ending, ..State::of(sender) };
        self.moved.notify_all();
    }

    fn wait_for_work(&self, sender: &Sender) {
        let sent = sender.held.head.seq;
        let idle = |state: &mut State| state.ending.is_none() && self.committer.seq() <= sent;
        let waited = self.moved.wait_while(self.state(), idle);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// No write gets through any more.
    fn give_up(&self, error: &Error) {
        let mut state = self.state();
        match error.kind() {
            Kind::Fenced => state.fenced = Some(error.to_string()),
            _ => state.last_error = Some(error.to_string()),
        }
        state.ending = Some(End::Stop);
        self.moved.notify_all();
    }
}

/// Whether writes are still taken.
fn check_open(state: &State) -> Result<()> {
    if let Some(why) = &state.fenced {
        return Err(Error::fenced(why.clone()).hint("this node must stop, and not act any more"));
    }
    match state.ending {
        None => Ok(()),
        Some(_) => Err(Error::unavailable(
            state.last_error.clone().unwrap_or_else(|| "the replica has ended".to_owned()),
        )),
    }
}
