//! The store that a node uses.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use highwater::env::Env;
use highwater::ids::Time;
use highwater::{Error, Kind, Result};

use super::book::{Book, Queued};
use super::class::{Class, Classes};
use super::head::HeadState;
use super::keys::ReplicaKeys;
use super::local::{LocalStore, Rows, Space};
use super::order;
use super::owner::{Permissions, Start, Started};
use super::remote::Remote;
use super::shared::{End, Goal, Shared};
use super::sync::{Builder, JoinHandle};
use super::write::{Bound, Write};

/// Writes of one transaction, and their keys and values: it is one transaction of the local store, too.
const TRANSACTION_WRITES_MAX: usize = 100_000;
const TRANSACTION_BYTES_MAX: usize = 1 << 30;

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
    /// The number of writes that wait.
    pub pending_writes: u64,
    /// The bytes of the writes that wait.
    pub pending_bytes: u64,
    /// When the oldest of them was written.
    pub pending_since: Option<Time>,
    /// Values on the server.
    pub values: u64,
    /// Why the last put did not land, where it did not.
    pub last_error: Option<Error>,
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
    /// Which keys are replicated, and how; all of them local-first by default.
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
        let local = Arc::clone(&self.local);
        let book = if self.classes.in_order { Book::in_order(local)? } else { Book::of(local) };
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
        let (mut sender, started) = start.run()?;
        sender.carried = self.classes.carried.clone();
        let shared = Shared::new(book, self.classes, self.bound, self.env, &sender)?;
        let shared = Arc::new(shared);
        let sends = spawn("highwater-replica", {
            let shared = Arc::clone(&shared);
            move || shared.send(sender)
        })?;
        let commits = spawn("highwater-commit", {
            let shared = Arc::clone(&shared);
            move || shared.lead()
        });
        // Nobody could end what sends.
        let commits = commits.inspect_err(|_| shared.abandon())?;
        shared.set_threads((sends, commits));
        Ok((ReplicatedStore { shared }, started))
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| Error::io("starting the replica", error))
}

/// A node's store, and its copy on a server. Shared by all threads of the node.
pub struct ReplicatedStore {
    shared: Arc<Shared>,
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
        self.shared.book.local.get(Space::Data, key)
    }

    /// At most `limit` rows whose keys begin with `prefix`, in order, from the first key above `after`.
    ///
    /// # Errors
    /// What the local store says.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Rows> {
        self.shared.book.local.scan(Space::Data, prefix, after, limit)
    }

    /// At most `limit` keys of a group, newest first, each with its number: of those behind `after`, which is one
    /// that was given before, whether it is there yet or not. A group is what a key begins with, up to its last
    /// `/`.
    ///
    /// A key has its number from when it is first seen here until it is deleted. So whoever goes on like this finds
    /// each key that is there all the while exactly once, and none twice, whatever is written meanwhile; what comes
    /// meanwhile is newer than all that it finds.
    ///
    /// # Errors
    /// Input where the store's classes are not [in order](Classes::in_order), or `after` is not of this group; what
    /// the local store says.
    pub fn newest(
        &self,
        group: &[u8],
        after: Option<(u64, &[u8])>,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        let book = &self.shared.book;
        if !book.is_in_order() {
            return Err(Error::input(
                "this store does not remember in which order its keys came to be",
            )
            .with_remedy("open it with `Classes::in_order`"));
        }
        order::newest(&*book.local, group, after, limit)
    }

    /// Which order that is: another one, where all numbers were given anew.
    #[cfg(feature = "ldk-0-3")]
    pub(super) fn which_order(&self) -> Result<Vec<u8>> {
        Ok(order::which(&*self.shared.book.local)?.unwrap_or_default())
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
    /// where it has more than 100,000 writes or 1 GiB. What the local store says.
    pub fn commit(&self, writes: Vec<Write>) -> Result<()> {
        self.commit_as(writes, false)
    }

    /// The same, without waiting for the server, whatever the class of the key: for a delete that is no
    /// harm where it gets lost.
    ///
    /// # Errors
    /// As [`ReplicatedStore::commit`].
    pub fn remove_lazily(&self, key: impl Into<Vec<u8>>) -> Result<()> {
        self.commit_as(vec![Write { key: key.into(), value: None }], true)
    }

    fn commit_as(&self, writes: Vec<Write>, lazy: bool) -> Result<()> {
        check(&writes)?;
        let committed = self.shared.commit(writes, lazy)?;
        match committed.remote_first {
            true => self.shared.wait_for(committed.seq),
            false => Ok(()),
        }
    }

    /// As [`ReplicatedStore::commit`], for a caller that waits in no thread. Its place among all writes is
    /// fixed when this returns, and it is written whether the future is waited for or not. Beyond the
    /// bound the future waits, not the write.
    ///
    /// # Errors
    /// As [`ReplicatedStore::commit`].
    pub fn submit(&self, writes: Vec<Write>) -> impl Future<Output = Result<()>> + Send + 'static {
        self.submit_as(writes, false)
    }

    pub(super) fn submit_as(
        &self,
        writes: Vec<Write>,
        lazy: bool,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        let submitted = check(&writes).and_then(|()| shared.submit(writes, lazy));
        async move {
            let ended = |_| Error::unavailable("the replica has ended");
            let outcome = submitted?.await.map_err(ended)?;
            let committed = outcome?;
            shared.reached(shared.goal(&committed)).await.map_err(ended)?
        }
    }

    /// Ready once no write gets through any more, with the reason if another owner writes, which shows at
    /// the next put. A node that must not act then waits for this in the background.
    pub fn ended(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let ended = self.shared.reached(Goal::End);
        async move {
            match ended.await {
                Ok(Err(error)) if error.kind() == Kind::Fenced => Err(error),
                _ => Ok(()),
            }
        }
    }

    /// Returns once the server has all that was written before.
    ///
    /// # Errors
    /// Fenced where another owner writes; unavailable once `wait` has passed, which goes on behind.
    pub fn flush(&self, wait: Duration) -> Result<()> {
        self.shared.flush(wait)
    }

    /// How it stands.
    ///
    /// # Errors
    /// What the local store says.
    pub fn status(&self) -> Result<ReplicaStatus> {
        let acknowledged = self.shared.state().acknowledged;
        let oldest = self.shared.book.queued(acknowledged, 1)?;
        let state = self.shared.state();
        let (pending_writes, pending_bytes) = state.line.pending();
        Ok(ReplicaStatus {
            epoch: state.epoch,
            state: state.head,
            acknowledged: state.acknowledged,
            written: state.line.written(),
            pending_writes,
            pending_bytes,
            pending_since: oldest.first().map(|queued: &Queued| queued.at),
            values: state.values,
            last_error: state.fenced.clone().or_else(|| state.last_error.clone()),
            fenced: state.fenced.is_some(),
        })
    }

    /// Ends in good order: sends what waits, and gives the store up, so that the next owner need not take
    /// it over. What is here can still be read; the local store is closed when this is dropped.
    ///
    /// # Errors
    /// Fenced where another owner writes; unavailable where the server does not take it: then it is not
    /// released, and the next start here goes on.
    pub fn release(&self) -> Result<()> {
        self.end(End::Release)
    }

    /// Ends at once. What waits is sent by the next start.
    ///
    /// # Errors
    /// As the sender has ended.
    pub fn stop(&self) -> Result<()> {
        self.end(End::Stop)
    }

    fn end(&self, end: End) -> Result<()> {
        let Some((sends, commits)) = self.shared.end(end) else { return Ok(()) };
        let panicked = |_| Error::bug("a thread of the replica has panicked");
        commits.join().map_err(panicked)?;
        sends.join().map_err(panicked)?
    }
}

/// Whether a transaction is of a bearable size.
fn check(writes: &[Write]) -> Result<()> {
    let bytes = |write: &Write| write.key.len() + write.value.as_ref().map_or(0, Vec::len);
    let total: usize = writes.iter().map(bytes).sum();
    if writes.len() <= TRANSACTION_WRITES_MAX && total <= TRANSACTION_BYTES_MAX {
        return Ok(());
    }
    Err(Error::input(format!(
        "a transaction of {} writes and {total} bytes is too large",
        writes.len()
    ))
    .with_remedy(format!(
        "it may have {TRANSACTION_WRITES_MAX} writes and {TRANSACTION_BYTES_MAX} bytes"
    )))
}

impl Drop for ReplicatedStore {
    fn drop(&mut self) {
        // What ends without a word is stopped; the next start goes on.
        let _ = self.end(End::Stop);
    }
}
