//! A store in SQLite.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{Error, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{LocalStore, Op, Rows, Space};

mod look;
#[cfg(test)]
mod tests;

/// How long another program may hold the database.
const BUSY_MAX: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS highwater_data (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS highwater_book (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;";

/// A store in two tables of a SQLite database, `highwater_data` and `highwater_book`, in WAL mode; each
/// transaction is on the disk when it returns.
pub struct SqliteStore {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the database, and makes what is missing of it.
    ///
    /// # Errors
    /// Corrupt where it is not a database; denied or unavailable where it can't be written.
    pub fn open(path: impl Into<PathBuf>) -> Result<SqliteStore> {
        let path = path.into();
        highwater::engine::refuse_for_root(&path)?;
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY_MAX)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch(TABLES)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed(&path, error))?;
        Ok(SqliteStore { connection: Mutex::new(connection), path })
    }

    /// Makes an empty file for a database, where nothing is yet; only this user may read it.
    ///
    /// # Errors
    /// Conflict where something is there; what the file system says.
    pub(crate) fn create(path: &Path) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let made = File::options().write(true).create_new(true).mode(0o600).open(path);
        made.map(drop).map_err(|error| {
            Error::io("making the database", error).with_entry(path.display().to_string())
        })
    }

    /// Renames a database that nobody has open to a name that does not exist yet.
    ///
    /// # Errors
    /// Conflict where something is there, or somebody has it open; what the file system says.
    pub fn move_to(from: &Path, to: &Path) -> Result<()> {
        let store = SqliteStore::open(from)?;
        let busy: i64 = store.run(|connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        })?;
        if busy != 0 {
            return Err(Error::conflict("somebody has the database open")
                .with_entry(from.display().to_string()));
        }
        drop(store);
        let failed = |error: std::io::Error| {
            Error::io("moving the database", error).with_entry(to.display().to_string())
        };
        renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
            .map_err(|error| failed(error.into()))?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    /// Deletes a database that nobody has open.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(path: &Path) -> Result<()> {
        for end in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            match std::fs::remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("deleting the database", error)
                        .with_entry(path.display().to_string()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn run<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&mut self.connection.lock()).map_err(|error| failed(&self.path, error))
    }
}

fn table(space: Space) -> &'static str {
    match space {
        Space::Data => "highwater_data",
        Space::Book => "highwater_book",
    }
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let text = format!("the node's store: {error}");
    let found = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::corrupt(text),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            Error::denied(text)
        }
        _ => Error::unavailable(text),
    };
    found.with_entry(path.display().to_string()).with_source(error)
}

impl LocalStore for SqliteStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let sql = format!("SELECT value FROM {} WHERE key = ?1", table(space));
        self.run(|connection| {
            connection.prepare_cached(&sql)?.query_row([key], |row| row.get(0)).optional()
        })
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows> {
        // The key above which rows are; an empty blob is below every key, and a key may be it.
        let sql = format!(
            "SELECT key, value FROM {} WHERE key >= ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key LIMIT ?3",
            table(space)
        );
        let from = after.map_or(prefix, |after| after.max(prefix));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![from, after, limit])?;
            let mut found = Rows::new();
            while let Some(row) = rows.next()? {
                let key: Vec<u8> = row.get(0)?;
                if !key.starts_with(prefix) {
                    break;
                }
                found.push((key, row.get(1)?));
            }
            Ok(found)
        })
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        self.run(|connection| put(connection, ops))
    }

    fn apply(&self, ops: &[Op]) -> Result<()> {
        self.run(|connection| {
            // The log is written in one order: a commit that is synced makes durable those that were not.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let applied = put(connection, ops);
            connection.pragma_update(None, "synchronous", "FULL")?;
            applied
        })
    }
}

fn put(connection: &mut Connection, ops: &[Op]) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for Op { space, key, value } in ops {
        let table = table(*space);
        match value {
            Some(value) => transaction
                .prepare_cached(&format!(
                    "INSERT INTO {table} (key, value) VALUES (?1, ?2)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                ))?
                .execute(params![key, value])?,
            None => transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))?
                .execute([key])?,
        };
    }
    transaction.commit()
}
