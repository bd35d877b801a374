//! A SQLite database that was captured, read from memory.

use highwater::{Error, Result};
use rusqlite::{Connection, MAIN_DB};

/// How every SQLite database begins; by this the library knows what root may not parse.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Opens a captured database: read-only, and of no file. What was captured of one with a write-ahead log has
/// the log merged in; the two bytes that say so would keep it from being opened in memory.
pub(crate) fn open(content: &[u8]) -> Result<Connection> {
    if !content.starts_with(MAGIC) {
        return Err(Error::corrupt("the captured database is no SQLite database"));
    }
    let mut image = content.to_vec();
    if let Some(versions) = image.get_mut(18..20) {
        versions.fill(1);
    }
    let open = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_in_memory()?;
        connection.deserialize_read_exact(MAIN_DB, image.as_slice(), image.len(), true)?;
        Ok(connection)
    };
    open().map_err(damaged)
}

/// That a database is none that its node writes.
pub(crate) fn damaged(error: rusqlite::Error) -> Error {
    Error::corrupt(format!("the captured database can't be read: {error}")).with_source(error)
}
