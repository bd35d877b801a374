//! A SQLite database in memory, changed there and read back.

use highwater::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB};

/// How every SQLite database begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// So many steps of SQLite's machine, so many times, are all that is done with one: some ten million rows.
const STEPS: i32 = 1_000_000;
const COUNTS_MAX: u32 = 1000;

/// Opens a database to read it.
pub(super) fn open(content: &[u8]) -> Result<Connection> {
    in_memory(content, true)
}

/// Opens a database to change it in memory. It is one of a node that keeps no write-ahead log: with one, its
/// main file alone is not all of it.
pub(super) fn open_to_write(content: &[u8]) -> Result<Connection> {
    if !content.starts_with(MAGIC) {
        return Err(Error::corrupt("it is not a SQLite database"));
    }
    if content.get(18..20) != Some(&[1, 1]) {
        return Err(Error::corrupt("it may have a write-ahead log, which its node never writes")
            .with_remedy("restore the node again, or another snapshot"));
    }
    in_memory(content, false)
}

fn in_memory(content: &[u8], read_only: bool) -> Result<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_in_memory()?;
        // What a schema brings with it is not run.
        for (option, on) in [
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        ] {
            connection.set_db_config(option, on)?;
        }
        connection.deserialize_read_exact(MAIN_DB, content, content.len(), read_only)?;
        let mut counts = 0;
        let too_many = move || {
            counts += 1;
            counts > COUNTS_MAX
        };
        connection.progress_handler(STEPS, Some(too_many))?;
        Ok(connection)
    };
    open().map_err(damaged)
}

/// The bytes of a database that was changed in memory.
pub(super) fn image(database: &mut Connection) -> Result<Vec<u8>> {
    database.serialize(MAIN_DB).map(|data| data.to_vec()).map_err(damaged)
}

/// That a database is none that its node writes.
pub(super) fn damaged(error: rusqlite::Error) -> Error {
    Error::corrupt(format!("the database can't be read: {error}")).with_source(error)
}
