//! A database of the node, opened to be read: its connections, its read transaction, its header.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::failure::{Failure, failed};
use super::stamp::Stamps;
use crate::engine::FoundPart;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;

/// One database and the connections to it.
pub(super) struct Source {
    name: String,
    rel: RelPath,
    path: PathBuf,
    connection: Connection,
    /// Sees commits that happen beside the transaction of `connection`.
    probe: Option<Connection>,
    /// From before the connections were opened, or before the newest begin.
    before: Stamps,
    begun: Option<Begun>,
}

/// A read transaction.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// On the monotonic clock, from just before the lock was asked for.
    at: Duration,
    wal: bool,
}

impl Source {
    /// Opens the database of `part`; with a `probe` where there are others beside it.
    pub(super) fn open(dir: &Path, part: &FoundPart, probe: bool) -> Result<Source> {
        let path = std::path::absolute(part.root.under(dir))
            .map_err(|error| Error::io("can't tell the path of a database", error))?;
        let before = Stamps::take(&path)?;
        let connect = || connect(&path).map_err(|cause| failed("open", &part.name, cause));
        Ok(Source {
            name: part.name.clone(),
            rel: part.root.clone(),
            connection: connect()?,
            probe: if probe { Some(connect()?) } else { None },
            path,
            before,
            begun: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn rel(&self) -> &RelPath {
        &self.rel
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The state on disk before the transaction began.
    pub(super) fn before(&self) -> &Stamps {
        &self.before
    }

    /// Whether the transaction reads beside a write-ahead log, so that no commit waits for it.
    pub(super) fn wal(&self) -> bool {
        self.begun.is_some_and(|begun| begun.wal)
    }

    /// How long a writer could have been kept waiting until now.
    pub(super) fn blocked(&self, env: &Env) -> Duration {
        match self.begun {
            Some(begun) if !begun.wal => env.monotonic().saturating_sub(begun.at),
            _ => Duration::ZERO,
        }
    }

    /// A number that changes with every commit of anybody; 0 where there is only one database.
    pub(super) fn data_version(&self) -> Result<i64, Failure> {
        let Some(probe) = &self.probe else { return Ok(0) };
        Ok(probe.query_row("PRAGMA main.data_version", [], |row| row.get(0))?)
    }

    /// Begins the read transaction, without waiting for a lock.
    pub(super) fn begin(&mut self, env: &Env) -> Result<(), Failure> {
        let at = env.monotonic();
        // Where the file can't be looked at any more, SQLite says why.
        if let Ok(stamps) = Stamps::take(&self.path)
            && stamps.main.inode == self.before.main.inode
        {
            self.before = stamps;
        }
        self.connection.execute_batch("BEGIN")?;
        // The lock is taken by the first statement that reads; this one needs no schema.
        self.connection.query_row("PRAGMA main.schema_version", [], |row| row.get::<_, i64>(0))?;
        let mode: String =
            self.connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
        self.begun = Some(Begun { at, wal: mode.eq_ignore_ascii_case("wal") });
        Ok(())
    }

    /// Ends the read transaction, if there is one.
    pub(super) fn release(&mut self) -> Result<()> {
        self.begun = None;
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection
            .execute_batch("ROLLBACK")
            .map_err(|cause| failed("end the reading of", &self.name, cause))
    }

    /// Closes the second connection, which has done its work.
    pub(super) fn drop_probe(&mut self) {
        self.probe = None;
    }
}

/// A connection that reads only, checkpoints nothing when it is closed, and never waits for a lock:
/// waiting is done where the clock is.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}
