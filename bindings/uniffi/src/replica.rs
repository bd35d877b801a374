//! A node's key-value store, kept on a VSS server write by write.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use highwater::Secret;
use highwater_replica as library;
use highwater_replica::local::SqliteStore;
use highwater_replica::remote::{self, VssRemote};
use highwater_replica::{Bound, Classes, ReplicaKeys};

use crate::actor::standard_actor;
use crate::error::{Problem, Result};
use crate::key::Key;
use crate::own::{self, OwnStore};
use crate::same::same;
use crate::vault::time;
use crate::wait::wait;

/// Rows of one look, with their values.
const ROWS: usize = 256;

/// How a server is shown who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum VssAuth {
    /// By signatures with a key that comes from the same secret as all others; the key is the user.
    Signature,
    /// By a JSON Web Token.
    Token,
    /// Not at all: a server on this machine, for development.
    Anonymous,
}

/// A VSS server, and the store on it. It shows nothing of the token that it may hold.
#[derive(uniffi::Object)]
pub struct VssServer {
    url: String,
    store: String,
    auth: VssAuth,
    token: Option<zeroize::Zeroizing<String>>,
    allow_http: bool,
    ca_file: Option<PathBuf>,
    timeout: Option<Duration>,
}

#[uniffi::export]
impl VssServer {
    /// The store `store` of the server whose calls are below `url`, as in `https://vss.example/vss`. Nothing is sent
    /// yet. Who asks is shown by `token` where one is given, else by signatures, unless `auth` says otherwise.
    /// `allow_http` lets requests go out over plain HTTP to other machines; to this one they always may. `ca_file` has
    /// certificates as PEM: the server's must be signed by one of these, whatever the system trusts. After `timeout`, a
    /// minute where there is none, a request is given up and made again.
    ///
    /// # Errors
    /// Input where a token is missing, or is given beside another way.
    #[uniffi::constructor(default(
        auth = None, token = None, allow_http = false, ca_file = None, timeout = None
    ))]
    pub fn new(
        url: String,
        store: String,
        auth: Option<VssAuth>,
        token: Option<String>,
        allow_http: bool,
        ca_file: Option<String>,
        timeout: Option<Duration>,
    ) -> Result<Arc<VssServer>> {
        let token = token.map(zeroize::Zeroizing::new);
        let auth = auth.unwrap_or(match token {
            Some(_) => VssAuth::Token,
            None => VssAuth::Signature,
        });
        match (auth, &token) {
            (VssAuth::Token, None) => {
                return Err(highwater::Error::input("no token was given")
                    .with_remedy("give `token` to `VssServer`")
                    .into());
            }
            (VssAuth::Signature | VssAuth::Anonymous, Some(_)) => {
                return Err(highwater::Error::input("a token is only for `VssAuth.TOKEN`").into());
            }
            (VssAuth::Token, Some(_)) | (VssAuth::Signature | VssAuth::Anonymous, None) => {}
        }
        let ca_file = ca_file.map(PathBuf::from);
        Ok(Arc::new(VssServer { url, store, auth, token, allow_http, ca_file, timeout }))
    }

    /// The URL below which its calls are.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The store's id.
    pub fn store(&self) -> String {
        self.store.clone()
    }

    /// Who holds the store of this key, and what the server has of it; none where it has nothing. Nothing is taken, and
    /// nobody is disturbed.
    ///
    /// # Errors
    /// Denied where the key is not that of the store, or the server does not know us; unavailable where it can't be
    /// asked; input where the key is a passphrase, or the URL is none.
    pub fn holder(&self, key: Arc<Key>) -> Result<Option<Holder>> {
        let keys = self.keys(&key)?;
        let held = library::holder(&self.connect(&keys)?, &keys)?;
        Ok(held.map(Holder::from))
    }
}

impl VssServer {
    /// The keys of the store that come from a secret.
    fn keys(&self, key: &Key) -> highwater::Result<ReplicaKeys> {
        match key.secret() {
            Secret::Key(key) => ReplicaKeys::from_entropy(key, &self.store),
            Secret::Mnemonic(words) => ReplicaKeys::from_mnemonic(words, &self.store),
            Secret::Passphrase(_) => Err(highwater::Error::input(
                "a passphrase can be guessed, and a replica has no slot that would slow guessing",
            )
            .with_remedy("take `Key.from_recovery_words` or `Key.from_file`")),
        }
    }

    fn connect(&self, keys: &ReplicaKeys) -> highwater::Result<VssRemote> {
        let auth = match (self.auth, &self.token) {
            (VssAuth::Token, Some(token)) => remote::VssAuth::Bearer(token.to_string()),
            (VssAuth::Signature, _) => remote::VssAuth::Signature(keys.signing_key()),
            (VssAuth::Anonymous | VssAuth::Token, _) => remote::VssAuth::None,
        };
        let mut server =
            VssRemote::builder(&self.url, &self.store).auth(auth).allow_http(self.allow_http);
        if let Some(file) = &self.ca_file {
            server = server.ca_file(file);
        }
        if let Some(timeout) = self.timeout {
            server = server.timeout(timeout);
        }
        server.build()
    }
}

same! {
    /// How a key's writes are replicated.
    pub enum ReplicaClass = library::Class {
        /// The server first: a write returns once the server has it, and is seen here from then on.
        RemoteFirst,
        /// Here first: a write returns once it is durable here, and is sent as soon as can be.
        LocalFirst,
        /// Never sent, and not there after the loss of the machine.
        LocalOnly,
    }
}

impl From<ReplicaClass> for library::Class {
    fn from(class: ReplicaClass) -> library::Class {
        match class {
            ReplicaClass::RemoteFirst => library::Class::RemoteFirst,
            ReplicaClass::LocalFirst => library::Class::LocalFirst,
            ReplicaClass::LocalOnly => library::Class::LocalOnly,
        }
    }
}

/// How the keys with a prefix are replicated. Of several prefixes that fit, the longest counts.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ClassRule {
    /// How the keys begin.
    pub prefix: Vec<u8>,
    /// How they are replicated.
    pub replicated: ReplicaClass,
}

/// Writes that are of use on the server only together with a later write of one key: they are put in the put that has
/// that one, too. A channel's update, for example, waits for the manager that knows of it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Carried {
    /// The key whose next write carries them.
    pub by: Vec<u8>,
    /// Keys with this prefix are carried by any write of that key.
    pub after: Vec<u8>,
    /// Keys with this prefix are carried by a write of that key that contains their value.
    pub within: Vec<u8>,
    /// They are sent without that key after this time.
    pub wait: Duration,
}

impl From<Carried> for library::Carried {
    fn from(carried: Carried) -> library::Carried {
        let Carried { by, after, within, wait } = carried;
        library::Carried { by, after, within, wait }
    }
}

/// What a store does besides the common, and what its start may do that it would not do by itself.
#[derive(Clone, Debug, uniffi::Record)]
pub struct ReplicaOptions {
    /// Begin with nothing where this store and the server are both empty: a new node. A node that had a store and
    /// says so would begin again from nothing, where its server was lost.
    #[uniffi(default = false)]
    pub allow_empty: bool,
    /// Take the store from an owner that has not released it, and why. That one fails at its next write.
    #[uniffi(default = None)]
    pub take_over: Option<String>,
    /// Take what the server has where it is not one instant of its owner's store.
    #[uniffi(default = false)]
    pub accept_inconsistent: bool,
    /// Write over a server that remembers less than this store: it was set back.
    #[uniffi(default = false)]
    pub accept_older: bool,
    /// Who this is, for people who ask who owns the store; the name of the standard actor where there is none.
    #[uniffi(default = None)]
    pub owner: Option<String>,
    /// How the keys with some prefixes are replicated.
    #[uniffi(default)]
    pub rules: Vec<ClassRule>,
    /// How all other keys are; local-first where nothing is said.
    #[uniffi(default = None)]
    pub otherwise: Option<ReplicaClass>,
    /// Writes that are held back until another one can be sent with them.
    #[uniffi(default = None)]
    pub carried: Option<Carried>,
    /// How many writes may wait for the server: a local-first write beyond it waits until fewer do. 100,000 where
    /// nothing is said.
    #[uniffi(default = None)]
    pub pending_writes_max: Option<u64>,
    /// The same in bytes of keys and values; 1 GiB where nothing is said.
    #[uniffi(default = None)]
    pub pending_bytes_max: Option<u64>,
}

impl ReplicaOptions {
    /// Those of a call that says nothing.
    fn usual() -> ReplicaOptions {
        ReplicaOptions {
            allow_empty: false,
            take_over: None,
            accept_inconsistent: false,
            accept_older: false,
            owner: None,
            rules: Vec::new(),
            otherwise: None,
            carried: None,
            pending_writes_max: None,
            pending_bytes_max: None,
        }
    }

    fn permissions(&self) -> highwater::Result<library::Permissions> {
        if self.take_over.as_deref().is_some_and(|reason| reason.trim().is_empty()) {
            return Err(highwater::Error::input("`take_over` needs a reason")
                .with_remedy("say why the other owner is gone for good"));
        }
        Ok(library::Permissions {
            take_over: self.take_over.clone(),
            allow_empty: self.allow_empty,
            accept_inconsistent: self.accept_inconsistent,
            accept_older: self.accept_older,
        })
    }

    fn classes(&mut self) -> Classes {
        let otherwise = self.otherwise.unwrap_or(ReplicaClass::LocalFirst).into();
        let rules = std::mem::take(&mut self.rules).into_iter();
        let with =
            |classes: Classes, rule: ClassRule| classes.with(rule.prefix, rule.replicated.into());
        let classes = rules.fold(Classes::all(otherwise), with);
        match self.carried.take() {
            Some(carried) => classes.with_carried(carried.into()),
            None => classes,
        }
    }

    fn bound(&self) -> Bound {
        let usual = Bound::default();
        Bound {
            writes: self.pending_writes_max.unwrap_or(usual.writes),
            bytes: self.pending_bytes_max.unwrap_or(usual.bytes),
        }
    }
}

/// What the start of a store has found, and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum StartKind {
    /// A new node, and a new store on the server.
    New,
    /// The owner goes on.
    Resumed,
    /// The server held nothing of this store, or less than it had acknowledged: all of it is sent.
    Filling,
    /// This store was empty, and has now what the server had.
    Hydrated,
    /// What this version of the package has no word for.
    Other,
}

/// What the start of a store has found, and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Started {
    /// What it was.
    pub kind: StartKind,
    /// Values that were read from the server.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<library::Started> for Started {
    fn from(started: library::Started) -> Started {
        let (kind, values, bytes) = match started {
            library::Started::New => (StartKind::New, 0, 0),
            library::Started::Resumed => (StartKind::Resumed, 0, 0),
            library::Started::Filling => (StartKind::Filling, 0, 0),
            library::Started::Hydrated { values, bytes } => (StartKind::Hydrated, values, bytes),
            _ => (StartKind::Other, 0, 0),
        };
        Started { kind, values, bytes }
    }
}

same! {
    /// What the server's values are.
    pub enum HeadState = library::HeadState {
        /// Not all of the store yet.
        Filling,
        /// One instant of it, and an owner that writes on.
        Open,
        /// The same, and its owner has ended in good order.
        Released,
    }
}

/// Who holds a store on a server, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Holder {
    /// Who, as they call themselves.
    pub owner: String,
    /// Rises with each start of an owner.
    pub epoch: u64,
    /// When that one began.
    pub since: SystemTime,
    /// What the values are.
    pub state: HeadState,
    /// The last write of the owner's that is there.
    pub seq: u64,
    /// Values.
    pub values: u64,
    /// Why it was taken over, where it was.
    pub reason: Option<String>,
}

impl From<library::Holder> for Holder {
    fn from(held: library::Holder) -> Holder {
        Holder {
            owner: held.owner,
            epoch: held.epoch,
            since: time(held.since),
            state: held.state.into(),
            seq: held.seq,
            values: held.values,
            reason: held.reason,
        }
    }
}

/// How a replicated store stands.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
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
    /// Their bytes.
    pub pending_bytes: u64,
    /// When the oldest of them was written.
    pub pending_since: Option<SystemTime>,
    /// Values on the server.
    pub values: u64,
    /// Why the last put did not land, where it did not.
    pub last_error: Option<Problem>,
    /// Another owner writes: this node must not act any more.
    pub fenced: bool,
}

impl From<library::ReplicaStatus> for ReplicaStatus {
    fn from(status: library::ReplicaStatus) -> ReplicaStatus {
        ReplicaStatus {
            epoch: status.epoch,
            state: status.state.into(),
            acknowledged: status.acknowledged,
            written: status.written,
            pending_writes: status.pending_writes,
            pending_bytes: status.pending_bytes,
            pending_since: status.pending_since.map(time),
            values: status.values,
            last_error: status.last_error.map(Problem::from),
            fenced: status.fenced,
        }
    }
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Write {
    /// The key, any bytes.
    pub key: Vec<u8>,
    /// The value; none deletes the key, whether it is there or not.
    #[uniffi(default = None)]
    pub value: Option<Vec<u8>>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A node's store in a SQLite database, and its copy on a VSS server, which gets every write, sealed, in the order of
/// the writes. It may be used by many threads. Nothing else in this process may open the database.
///
/// An object that is dropped ends without giving the store up; the next start on the same database goes on.
#[derive(uniffi::Object)]
pub struct ReplicatedStore {
    inner: Arc<library::ReplicatedStore>,
    started: Started,
    /// Behind the store: it is unmarked once the database is closed.
    _own: OwnStore,
}

impl ReplicatedStore {
    pub(crate) fn inner(&self) -> &Arc<library::ReplicatedStore> {
        &self.inner
    }
}

#[uniffi::export]
impl ReplicatedStore {
    /// Opens the database, makes it where it is missing, becomes the owner of the store on the server, and fills an
    /// empty database from there. All that leaves the machine is sealed under keys that come from `key` and the store's
    /// id: the words of a wallet or a key file.
    ///
    /// # Errors
    /// Not found where the database and the server are both empty, and `allow_empty` was not said; fenced where
    /// somebody else owns the store, or this database is a copy of the owner's; conflict where both have values that
    /// have nothing to do with one another, or this process has the database open; denied where the key is not that of
    /// the store, or the server does not know us; corrupt where the server's values are not what they were; unavailable
    /// where it can't be asked; input where the key is a passphrase, or the URL is none.
    #[uniffi::constructor(default(options = None))]
    pub fn open(
        database: String,
        key: Arc<Key>,
        server: Arc<VssServer>,
        options: Option<ReplicaOptions>,
    ) -> Result<Arc<ReplicatedStore>> {
        let mut options = options.unwrap_or_else(ReplicaOptions::usual);
        let permissions = options.permissions()?;
        let owner = match options.owner.take() {
            Some(owner) => owner,
            None => standard_actor()?.name,
        };
        let keys = server.keys(&key)?;
        let remote = server.connect(&keys)?;
        let path = Path::new(&database);
        own::refuse_open_store(path)?;
        let local = SqliteStore::open(path)?;
        let own = OwnStore::of(path)?;
        let (inner, started) =
            library::ReplicatedStore::builder(Arc::new(local), Arc::new(remote), keys)
                .classes(options.classes())
                .bound(options.bound())
                .owner(owner)
                .permissions(permissions)
                .open()?;
        Ok(Arc::new(ReplicatedStore { inner: Arc::new(inner), started: started.into(), _own: own }))
    }

    /// What its start has found, and done.
    pub fn started(&self) -> Started {
        self.started
    }

    /// A value; none where the key is missing.
    pub fn read(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.read(&key)?)
    }

    /// Writes one value. Returns once it is durable here, or, where the key is remote-first, once the server has it.
    ///
    /// # Errors
    /// Fenced where another owner writes to the server: this node must not act any more. What the database says.
    pub fn write(&self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        Ok(self.inner.write(key, value)?)
    }

    /// Deletes one key, whether it is there or not. With `lazy`, for a delete that is no harm where it gets lost, the
    /// server is not waited for, whatever the class of the key.
    ///
    /// # Errors
    /// As a write.
    #[uniffi::method(default(lazy = false))]
    pub fn remove(&self, key: Vec<u8>, lazy: bool) -> Result<()> {
        match lazy {
            true => self.inner.remove_lazily(key)?,
            false => self.inner.remove(key)?,
        }
        Ok(())
    }

    /// Writes all or nothing, here and on the server. Where a key of it is remote-first, all of it is.
    ///
    /// # Errors
    /// As a write; input where it has more than 100,000 writes or 1 GiB.
    pub fn commit(&self, writes: Vec<Write>) -> Result<()> {
        let write = |Write { key, value }| library::Write { key, value };
        Ok(self.inner.commit(writes.into_iter().map(write).collect())?)
    }

    /// The keys that begin with `prefix`, or all, in order, from the first one above `after`; at most `limit` of them.
    #[uniffi::method(default(prefix = None, after = None, limit = None))]
    pub fn list(
        &self,
        prefix: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
        limit: Option<u32>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.rows(prefix, after, limit, |key, _| keys.push(key))?;
        Ok(keys)
    }

    /// The same keys with their values.
    #[uniffi::method(default(prefix = None, after = None, limit = None))]
    pub fn scan(
        &self,
        prefix: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
        limit: Option<u32>,
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.rows(prefix, after, limit, |key, value| rows.push(Row { key, value }))?;
        Ok(rows)
    }

    /// How it stands.
    pub fn status(&self) -> Result<ReplicaStatus> {
        Ok(self.inner.status()?.into())
    }

    /// Returns once the server has all that was written before.
    ///
    /// # Errors
    /// Unavailable once `timeout` has passed, and the sending goes on behind; fenced where another owner writes.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        Ok(self.inner.flush(timeout)?)
    }

    /// Waits until no write gets through any more. True where the store was ended from here; false where `timeout`
    /// passes before. A node that must not act once another owner writes waits here in a thread of its own.
    ///
    /// # Errors
    /// Fenced where another owner writes, with who it is and why.
    #[uniffi::method(default(timeout = None))]
    pub fn wait_for_end(&self, timeout: Option<Duration>) -> Result<bool> {
        match wait(self.inner.ended(), timeout) {
            Some(Ok(())) => Ok(true),
            Some(Err(error)) => Err(error.into()),
            None => Ok(false),
        }
    }

    /// Ends in good order: sends what waits, and gives the store up, so that the next owner need not take it over. What
    /// is here can still be read.
    ///
    /// # Errors
    /// Fenced where another owner writes; unavailable where the server does not take it: then the store is not
    /// released, and the next start here goes on.
    pub fn release(&self) -> Result<()> {
        Ok(self.inner.release()?)
    }

    /// Ends at once. What waits is sent by the next start.
    ///
    /// # Errors
    /// Fenced where another owner writes.
    pub fn stop(&self) -> Result<()> {
        Ok(self.inner.stop()?)
    }
}

impl ReplicatedStore {
    fn rows(
        &self,
        prefix: Option<Vec<u8>>,
        mut after: Option<Vec<u8>>,
        limit: Option<u32>,
        mut take: impl FnMut(Vec<u8>, Vec<u8>),
    ) -> Result<()> {
        let prefix = prefix.unwrap_or_default();
        let mut left = limit.map_or(usize::MAX, |limit| limit as usize);
        while left > 0 {
            let rows = self.inner.scan(&prefix, after.as_deref(), left.min(ROWS))?;
            let Some((last, _)) = rows.last() else { break };
            (after, left) = (Some(last.clone()), left - rows.len());
            rows.into_iter().for_each(|(key, value)| take(key, value));
        }
        Ok(())
    }
}
