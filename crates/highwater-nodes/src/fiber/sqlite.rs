//! A store in SQLite: the table `kv_store` of `data.sqlite`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{Error, Kind, Result};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::store::{Medium, uri};
use super::{PREFIXES, Rows};

/// Rows of channels are some KiB each: a store that has more of them is none that a node could load.
const ROWS_BYTES_MAX: usize = 1 << 30;

/// A database that nobody else has open.
pub(super) struct Sqlite {
    /// Its main file, there or where it waits.
    pub(super) file: PathBuf,
    pub(super) withheld: bool,
    /// A log is withheld with it, so that SQLite would not find it.
    pub(super) log_withheld: bool,
}

impl Medium for Sqlite {
    fn rows(&self) -> Result<Rows> {
        if self.log_withheld {
            return Err(Error::conflict(
                "the store is withheld together with a log that belongs to it",
            )
            .with_remedy("release it, or restore the node again"));
        }
        rows(&self.reader()?)
    }

    /// In one transaction, of which nothing is left in a log.
    fn put(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if self.withheld {
            return Err(Error::conflict(
                "the store is withheld, and nothing is written to it there",
            ));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut database =
            Connection::open_with_flags(&self.file, flags).map_err(|error| failed(&error))?;
        write(&mut database, puts)?;
        database.close().map_err(|(_, error)| failed(&error))?;
        self.settled()
    }
}

impl Sqlite {
    /// What is in a log counts, and can be read only where SQLite may put it into its place. Without one
    /// nothing is written, wherever the file is.
    fn reader(&self) -> Result<Connection> {
        refuse_anothers(&self.file)?;
        let immutable = self.withheld || !self.has_log()?;
        let flags = OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = if immutable {
            let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("{}?immutable=1", uri(&self.file)), flags)
        } else {
            let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE;
            Connection::open_with_flags(&self.file, flags)
        };
        let database = database.map_err(|error| failed(&error))?;
        distrust(&database)?;
        Ok(database)
    }

    fn log(&self) -> PathBuf {
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        log.into()
    }

    fn has_log(&self) -> Result<bool> {
        match fs::symlink_metadata(self.log()) {
            Ok(found) => Ok(found.len() > 0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("looking at the log of a store", error)),
        }
    }

    /// That nothing newer than the main file is left beside it, durably.
    fn settled(&self) -> Result<()> {
        if self.has_log()? {
            return Err(Error::conflict("the log of the store could not be put into its place")
                .with_remedy("look who has the store open, and restore the node again"));
        }
        let dir = self.file.parent().unwrap_or(Path::new("."));
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        sync(dir).map_err(|error| Error::io("making a store durable", error))
    }
}

/// A database is parsed by code that is not safe from what it reads: root would do so with rights that others
/// could want to borrow.
fn refuse_anothers(file: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let found = fs::symlink_metadata(file);
    if found.map_err(|error| Error::io("looking at a store", error))?.uid() == 0 {
        return Ok(());
    }
    Err(Error::input("root does not open another user's SQLite database")
        .with_remedy("restore as that user: its channels are marked as well then"))
}

/// Whoever made the file may have put statements of his own into it.
fn distrust(database: &Connection) -> Result<()> {
    let set = "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; \
               PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON;";
    // Nobody else has it open; who does will not be gone in a moment.
    database.busy_timeout(Duration::ZERO).map_err(|error| failed(&error))?;
    database.execute_batch(set).map_err(|error| failed(&error))
}

/// The one table of a store has rows of its own, and nothing happens when they are written.
fn check_schema(database: &Connection) -> Result<()> {
    let plain = "SELECT count(*) FILTER (WHERE name = 'kv_store' AND type = 'table' AND rootpage > 0), \
                 count(*) FILTER (WHERE type IN ('view', 'trigger')) FROM sqlite_schema";
    let counts = database.query_row(plain, [], |row| Ok((row.get(0)?, row.get(1)?)));
    match counts.map_err(|error| failed(&error))? {
        (1_i64, 0_i64) => Ok(()),
        _ => Err(Error::corrupt(
            "the database is none that a Fiber node makes: it has not one plain table, kv_store",
        )),
    }
}

fn rows(database: &Connection) -> Result<Rows> {
    check_schema(database)?;
    let mut rows = Rows::new();
    let mut left = ROWS_BYTES_MAX;
    let select = "SELECT key, value FROM kv_store WHERE key >= ?1 AND (?2 IS NULL OR key < ?2)";
    let mut select = database.prepare(select).map_err(|error| failed(&error))?;
    for prefix in PREFIXES {
        let mut found = select.query((prefix, after(prefix))).map_err(|error| failed(&error))?;
        while let Some(row) = found.next().map_err(|error| failed(&error))? {
            let blob = |column| {
                row.get_ref(column)
                    .map_err(|error| failed(&error))?
                    .as_blob()
                    .map_err(|_| Error::corrupt("the store has a row that is not bytes"))
            };
            let (key, value) = (blob(0)?, blob(1)?);
            left = left.checked_sub(key.len().saturating_add(value.len())).ok_or_else(|| {
                Error::corrupt(format!(
                    "the store has more than {ROWS_BYTES_MAX} bytes of channels"
                ))
            })?;
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(rows)
}

/// The first key behind all that begin with `prefix`.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after = prefix.get(..=kept)?.to_vec();
    *after.last_mut()? += 1;
    Some(after)
}

fn write(database: &mut Connection, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    let failed = |error| failed(&error);
    distrust(database)?;
    database
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA query_only = OFF;")
        .map_err(failed)?;
    check_schema(database)?;
    let transaction =
        database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    for (key, value) in puts {
        let update = "UPDATE kv_store SET value = ?2 WHERE key = ?1";
        if transaction.execute(update, (key, value)).map_err(failed)? != 1 {
            return Err(Error::conflict("a row that was in the store is gone"));
        }
    }
    transaction.commit().map_err(failed)?;
    // Of a database with a rollback journal this does nothing.
    let busy =
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    match busy.map_err(failed)? {
        0 => Ok(()),
        _ => Err(Error::conflict("somebody else has the store open")),
    }
}

/// What SQLite says of a database that it can't read or write.
fn failed(error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    let kind = match error.sqlite_error_code() {
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => Kind::Conflict,
        Some(Code::PermissionDenied | Code::ReadOnly) => Kind::Denied,
        Some(Code::DiskFull | Code::SystemIoFailure | Code::CannotOpen | Code::OutOfMemory) => {
            Kind::Unavailable
        }
        _ => Kind::Corrupt,
    };
    Error::new(kind, format!("SQLite: {error}"))
}
