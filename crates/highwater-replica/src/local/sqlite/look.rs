//! A look at a database from a process that is not its node: nothing is created beside it, and none of
//! its content written.
//!
//! While the node runs, its log (`-wal`) and the index of that (`-shm`) are there, and SQLite reads through
//! them as any reader does. Once it has ended in good order neither is, and a plain open would make both,
//! perhaps as a user whose files the node can't open: then it is read as a file that nobody writes, and
//! looked at again afterwards whether that was so. A node that ends in the middle of a look is not the last
//! one that has its log open: it leaves it to its next start.

use std::fmt::Write as _;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::{Error, Result};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{BUSY_MAX, SqliteStore, failed};
use crate::local::LocalStore;

/// A node that begins or ends meanwhile makes a look worthless; then there is another one.
const TRIES: u32 = 3;

/// Of a database that nobody has open: inode, size and time.
type Rest = (u64, u64, (i64, i64));

impl SqliteStore {
    /// Reads from a database whose node may be another process, which may write on; `read` sees one
    /// instant. It may be called again, where the node began or ended meanwhile.
    ///
    /// # Errors
    /// Not found where the database, or the replica's tables in it, are not there; unavailable where it
    /// has to be recovered first, which the node does at its start; what `read` says.
    pub fn read_only<T>(path: &Path, read: impl Fn(Arc<dyn LocalStore>) -> Result<T>) -> Result<T> {
        let named = |error: Error| error.with_entry(path.display().to_string());
        let whole = path.canonicalize().map_err(|error| missing(path, error))?;
        highwater::engine::refuse_for_root(&whole)?;
        for _ in 0..TRIES {
            let rest = at_rest(&whole).map_err(named)?;
            let connection =
                connect(&whole, rest.is_some()).map_err(|error| failed(path, error))?;
            let known = connection.query_row(
                "SELECT count(*) FROM sqlite_master WHERE name IN ('highwater_data', 'highwater_book')",
                [],
                |row| row.get::<_, i64>(0),
            );
            if known.map_err(|error| failed(path, error))? != 2 {
                return Err(named(Error::not_found(
                    "there is no replicated store in the database",
                )));
            }
            let store = SqliteStore { connection: Mutex::new(connection), path: path.to_owned() };
            let done = read(Arc::new(store));
            if rest.is_none() || at_rest(&whole).map_err(named)? == rest {
                return done;
            }
        }
        Err(named(Error::unavailable("the database is opened or closed at this moment")))
    }
}

/// Whether nobody has it open, and how it lies there.
fn at_rest(path: &Path) -> Result<Option<Rest>> {
    let meta = |end: &str| -> Result<Option<Metadata>> {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::metadata(PathBuf::from(name)) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("looking at the node's store", error)),
        }
    };
    let main = meta("")?.ok_or_else(|| Error::not_found("there is no such database"))?;
    if !main.is_file() {
        return Err(Error::input("the node's store is no file"));
    }
    let filled = |meta: Option<Metadata>| meta.is_some_and(|meta| meta.len() > 0);
    let (log, index) = (meta("-wal")?, meta("-shm")?.is_some());
    match (log.is_some() && index, index || filled(log) || filled(meta("-journal")?)) {
        (true, _) => Ok(None),
        (false, false) => Ok(Some((main.ino(), main.len(), (main.mtime(), main.mtime_nsec())))),
        (false, true) => Err(Error::unavailable("the database has to be recovered first")
            .with_remedy("the node does so at its start")),
    }
}

/// One read transaction, from now on.
fn connect(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = match immutable {
        true => Connection::open_with_flags(uri(path), flags | OpenFlags::SQLITE_OPEN_URI)?,
        false => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(BUSY_MAX)?;
    // Else the last one to close it would end the node's log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("BEGIN")?;
    Ok(connection)
}

/// A file that nobody writes, whatever the bytes of its name.
fn uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1&mode=ro");
    uri
}

fn missing(path: &Path, error: std::io::Error) -> Error {
    let name = path.display().to_string();
    match error.kind() {
        ErrorKind::NotFound => Error::not_found("there is no such database").with_entry(name),
        _ => Error::io("looking at the node's store", error).with_entry(name),
    }
}
