//! Stores in one SQLite database: no other server is needed, and one file is the backup.
//!
//! Writes go to one thread, which takes all that wait into one transaction (group commit): one sync of
//! the disk serves many. A commit in WAL mode at `synchronous=FULL` syncs the log before readers see it,
//! so that no read reveals what a loss of power could undo. After a crash the log may hold a commit that
//! was never synced: opening checkpoints, which syncs, before anything is read.

mod history;
mod quota;
mod read;
mod schema;
mod write;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use async_trait::async_trait;
use highwater::{Env, Error, Result};
use rusqlite::{Connection, ErrorCode};
use rustix::fs::{FlockOperation, flock};

use crate::backend::{
    Backend, Change, Commit, Digest, Found, Page, Place, Policy, Refusal, Restored, Sizes, Stats,
    StoreName, StoreStats,
};
use crate::plan::Plan;
use crate::quota::{Quota, Usage, UserStats};

use read::Readers;
use write::Writer;

/// The file in a data directory.
pub(crate) const FILE: &str = "vss.sqlite";
/// Locked by the server that serves a data directory.
const LOCK: &str = "vss.lock";

/// Stores in one SQLite database.
pub struct Sqlite {
    writer: Writer,
    readers: Readers,
    /// Held while a server serves it.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens the database of a data directory for serving; makes both where they are missing.
    ///
    /// # Errors
    /// Conflict where another server serves this directory, or where a newer program made the database;
    /// corrupt where it is damaged; denied or unavailable where it can't be written.
    pub fn serve(dir: &Path, env: &Env) -> Result<Sqlite> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| Error::io("making the data directory", error).with_entry(name(dir)))?;
        let lock = lock(&dir.join(LOCK))?;
        make(&dir.join(FILE))?;
        Sqlite::open(dir, env, Some(lock))
    }

    /// Opens the database of a data directory beside the server that may serve it, to administer it.
    ///
    /// # Errors
    /// Not found where there is none; else as [`Sqlite::serve`].
    pub fn administer(dir: &Path, env: &Env) -> Result<Sqlite> {
        if !dir.join(FILE).exists() {
            return Err(Error::not_found("no VSS database is there").with_entry(name(dir)));
        }
        Sqlite::open(dir, env, None)
    }

    fn open(dir: &Path, env: &Env, lock: Option<File>) -> Result<Sqlite> {
        let path = dir.join(FILE);
        let entry = name(&path);
        let connection = schema::open(&path).map_err(|error| failure(&error).with_entry(&entry))?;
        schema::migrate(&connection).map_err(|error| error.with_entry(&entry))?;
        let readers = Readers::open(&path).map_err(|error| failure(&error).with_entry(&entry))?;
        let writer = Writer::start(connection, env)?;
        Ok(Sqlite { writer, readers, _lock: lock })
    }
}

/// An advisory lock, held while the file is open.
fn lock(path: &Path) -> Result<File> {
    let failed = |error: std::io::Error| {
        Error::io("locking the data directory", error).with_entry(name(path))
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::conflict("another server serves this data directory")
                .with_entry(name(path))
                .with_remedy("stop it first, or give this one a data directory of its own"))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Makes an empty file that only its owner reads; SQLite would go by the caller's mask.
fn make(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("making the database", error).with_entry(name(path))),
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// What SQLite says, with a kind.
pub(crate) fn failure(error: &rusqlite::Error) -> Error {
    let text = format!("SQLite: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            Error::unavailable(text).with_remedy("free some space; nothing was written")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::corrupt(text)
            .with_remedy("stop the server and restore its data directory from a backup"),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            Error::denied(text)
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::unavailable(text).with_remedy("another program holds the database; try again")
        }
        Some(ErrorCode::TooBig) => Error::input("a value is larger than SQLite can keep"),
        Some(ErrorCode::SystemIoFailure) => Error::unavailable(text),
        _ => Error::bug(text),
    }
}

pub(crate) fn failed(error: rusqlite::Error) -> Refusal {
    Refusal::Failed(failure(&error))
}

#[async_trait]
impl Backend for Sqlite {
    async fn get(
        &self,
        store: &StoreName,
        key: &str,
        most: usize,
    ) -> Result<Option<Found>, Refusal> {
        let (store, key) = (store.clone(), key.to_owned());
        self.readers.run(move |connection| read::get(connection, &store, &key, most)).await
    }

    fn reads(&self) -> usize {
        read::CONNECTIONS
    }

    async fn put(&self, store: &StoreName, plan: Plan) -> Result<(), Refusal> {
        let (store, user, bytes) = (store.clone(), store.user.clone(), plan.bytes());
        self.writer.run(&user, bytes, move |batch| batch.put(&store, &plan)).await
    }

    async fn delete(&self, store: &StoreName, key: &str, version: i64) -> Result<(), Refusal> {
        let (user, store, key) = (store.user.clone(), store.clone(), key.to_owned());
        self.writer.run(&user, 0, move |batch| batch.delete(&store, &key, version)).await
    }

    async fn list(
        &self,
        store: &StoreName,
        prefix: &str,
        below: Option<Place>,
        size: u32,
    ) -> Result<Page, Refusal> {
        let (store, prefix) = (store.clone(), prefix.to_owned());
        self.readers
            .run(move |connection| read::list(connection, &store, &prefix, below, size))
            .await
    }

    async fn policy(&self, store: &StoreName) -> Result<Policy, Refusal> {
        let store = store.clone();
        self.readers.run(move |connection| read::policy(connection, &store)).await
    }

    async fn change(&self, store: &StoreName, change: Change) -> Result<Policy, Refusal> {
        let (user, store) = (store.user.clone(), store.clone());
        self.writer.run(&user, 0, move |batch| batch.change(&store, change)).await
    }

    async fn digest(&self, store: &StoreName) -> Result<Digest, Refusal> {
        let store = store.clone();
        self.readers.run(move |connection| read::digest(connection, &store)).await
    }

    async fn commits(
        &self,
        store: &StoreName,
        below: Option<u64>,
        size: u32,
    ) -> Result<Vec<Commit>, Refusal> {
        let store = store.clone();
        self.readers.run(move |connection| read::commits(connection, &store, below, size)).await
    }

    async fn restore(&self, store: &StoreName, commit: u64) -> Result<Restored, Refusal> {
        let (user, store) = (store.user.clone(), store.clone());
        self.writer.run(&user, 0, move |batch| batch.restore(&store, commit)).await
    }

    async fn prune(&self) -> Result<u64, Refusal> {
        let mut pruned = 0;
        let stores = self.readers.run(read::keeping).await?;
        for (store, keep) in stores {
            loop {
                let before = self.writer.now().as_nanos();
                let before = before
                    .saturating_sub(i64::try_from(keep.time().as_nanos()).unwrap_or(i64::MAX));
                let old = self
                    .readers
                    .run(move |connection| read::prunable(connection, store, keep, before))
                    .await?;
                if old.is_empty() {
                    break;
                }
                pruned += old.len() as u64;
                self.writer.run("", 0, move |batch| batch.prune(store, &old)).await?;
            }
        }
        Ok(pruned)
    }

    async fn quota(&self, user: &str) -> Result<Quota, Refusal> {
        let user = user.to_owned();
        self.readers.run(move |connection| quota::get(connection, &user)).await
    }

    async fn everybody(&self) -> Result<Quota, Refusal> {
        self.readers.run(|connection| quota::everybody(connection)).await
    }

    async fn set_quota(&self, user: Option<&str>, quota: Option<Quota>) -> Result<(), Refusal> {
        let user = user.map(str::to_owned);
        self.writer.run("", 0, move |batch| batch.set_quota(user.as_deref(), quota)).await
    }

    async fn usage(&self, user: &str) -> Result<Usage, Refusal> {
        let user = user.to_owned();
        self.readers.run(move |connection| quota::usage(connection, &user)).await
    }

    async fn sizes(&self, store: &StoreName, keys: &[String]) -> Result<Sizes, Refusal> {
        let (store, keys) = (store.clone(), keys.to_vec());
        self.readers.run(move |connection| quota::sizes(connection, &store, &keys)).await
    }

    async fn users(&self, size: u32) -> Result<Vec<UserStats>, Refusal> {
        self.readers.run(move |connection| quota::users(connection, size)).await
    }

    async fn stats(&self) -> Result<Stats, Refusal> {
        self.readers.run(read::stats).await
    }

    async fn stores(&self, size: u32) -> Result<Vec<StoreStats>, Refusal> {
        self.readers.run(move |connection| read::stores(connection, size)).await
    }

    async fn ready(&self) -> Result<(), Refusal> {
        self.writer.run("", 0, |_| Ok(())).await
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close();
    }
}

/// A connection for one question, prepared once.
pub(crate) fn cached<'a>(
    connection: &'a Connection,
    sql: &str,
) -> rusqlite::Result<rusqlite::CachedStatement<'a>> {
    connection.prepare_cached(sql)
}
