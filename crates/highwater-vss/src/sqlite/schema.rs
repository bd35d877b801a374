//! The tables, and how a connection is set up.

use std::path::Path;
use std::time::Duration;

use highwater::{Error, Result};
use rusqlite::{Connection, OpenFlags};

use super::failure;

/// The version of the tables.
const VERSION: i64 = 2;
/// How long another program, such as an administrator's, may hold the database.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 64;

/// `item.place` grows with each key that is made, so that listings go by it; an update keeps it. `since`
/// is the commit that wrote the value, and `until` the one that replaced it: a store at commit `c` is its
/// items with `since <= c` and its old values with `since <= c < until`. The values stand last, so that
/// what is asked of a row without them does not read their pages.
const TABLES: &str = "
    CREATE TABLE store (
        id INTEGER PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL,
        fence INTEGER NOT NULL DEFAULT 0, keep_versions INTEGER, keep_days INTEGER,
        generation INTEGER NOT NULL DEFAULT 0, commits INTEGER NOT NULL DEFAULT 0,
        oldest INTEGER NOT NULL DEFAULT 0, UNIQUE (user, name)
    ) STRICT;
    CREATE TABLE item (
        place INTEGER PRIMARY KEY, store INTEGER NOT NULL, version INTEGER NOT NULL,
        since INTEGER NOT NULL, tag BLOB NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX item_key ON item (store, key);
    CREATE INDEX item_store ON item (store);
    CREATE TABLE old (
        id INTEGER PRIMARY KEY, store INTEGER NOT NULL, since INTEGER NOT NULL,
        until INTEGER NOT NULL, at INTEGER NOT NULL, version INTEGER NOT NULL, tag BLOB NOT NULL,
        key TEXT NOT NULL, value BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX old_key ON old (store, key, until);
    CREATE TABLE commits (
        store INTEGER NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,
        puts INTEGER NOT NULL, deletes INTEGER NOT NULL, restored INTEGER,
        PRIMARY KEY (store, number)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// What users may keep: of the row for everybody `user` is empty.
const QUOTAS: &str = "
    CREATE TABLE quota (
        everybody INTEGER NOT NULL, user TEXT NOT NULL, bytes INTEGER, keys INTEGER,
        stores INTEGER, PRIMARY KEY (everybody, user)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 2;";

/// A connection that writes. What an earlier process has left in the log is on the disk afterwards.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set_up(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    // Syncs the log and what it is copied to. Somebody who reads meanwhile keeps it from being emptied,
    // not from being synced.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    set_up(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Makes the tables where they are missing.
///
/// # Errors
/// Conflict where a newer program made them.
pub(super) fn migrate(connection: &Connection) -> Result<()> {
    let failed = |error| failure(&error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let done = make(connection);
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    connection.execute_batch(end).map_err(failed)?;
    done
}

fn make(connection: &Connection) -> Result<()> {
    let failed = |error| failure(&error);
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let steps: &[&str] = match version {
        0 => &[TABLES, QUOTAS],
        1 => &[QUOTAS],
        VERSION => &[],
        _ => {
            return Err(Error::conflict("a newer program made this database")
                .with_remedy("run that program; this one has changed nothing"));
        }
    };
    steps.iter().try_for_each(|step| connection.execute_batch(step)).map_err(failed)
}
