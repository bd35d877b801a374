//! A query of a captured database. Its answer is read as if the database had been made to hurt: a table may be a
//! view that never ends, or that gives more than fits into memory.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, MAIN_DB};

use super::failure::failed;
use crate::engine::{Cell, Row};
use crate::error::{Error, Result};

/// No answer has more bytes.
const BYTES_MAX: usize = 64 << 20;
/// What a row takes besides its bytes.
const ROW_BYTES: usize = 64;
/// Steps of SQLite's machine between two counts, and how many counts an answer may take: some seconds.
const STEPS: i32 = 1_000_000;
const COUNTS_MAX: u32 = 300;

/// The rows that `sql` finds, which only reads.
pub(super) fn rows(connection: &mut Connection, sql: &str, entry: &str) -> Result<Vec<Row>> {
    let mut counts = 0;
    let watched = connection.progress_handler(
        STEPS,
        Some(move || {
            counts += 1;
            counts > COUNTS_MAX
        }),
    );
    let found = watched
        .map_err(|cause| failed("query", entry, cause))
        .and_then(|()| answer(connection, sql, entry));
    let unwatched = connection.progress_handler(0, None::<fn() -> bool>);
    let found = found?;
    unwatched.map_err(|cause| failed("query", entry, cause))?;
    Ok(found)
}

fn answer(connection: &Connection, sql: &str, entry: &str) -> Result<Vec<Row>> {
    let unread = |cause| failed("query", entry, cause);
    let mut statement = connection.prepare(sql).map_err(unread)?;
    if !statement.readonly() {
        return Err(Error::bug("a query of a captured database writes").with_entry(entry));
    }
    let columns = statement.column_count();
    let mut found = Vec::new();
    let mut room = BYTES_MAX;
    let mut rows = statement.query([]).map_err(unread)?;
    while let Some(row) = rows.next().map_err(unread)? {
        let mut cells = Vec::with_capacity(columns);
        let mut bytes = ROW_BYTES;
        for column in 0..columns {
            let cell = match row.get_ref(column).map_err(unread)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Integer(number),
                ValueRef::Text(text) | ValueRef::Blob(text) => {
                    bytes = bytes.saturating_add(text.len());
                    // Counted before it is copied.
                    if bytes > room {
                        return Err(too_much(entry));
                    }
                    Cell::Bytes(text.to_vec())
                }
                ValueRef::Real(_) => {
                    return Err(Error::corrupt("a number in the database is no whole one")
                        .with_entry(entry));
                }
            };
            cells.push(cell);
        }
        room = room.checked_sub(bytes).ok_or_else(|| too_much(entry))?;
        found.push(cells);
    }
    Ok(found)
}

fn too_much(entry: &str) -> Error {
    Error::corrupt(format!("a query of the database gives more than {BYTES_MAX} bytes"))
        .with_entry(entry)
}

/// [`rows`] of a database of which all bytes are there, and whose log is empty. It is opened read-only, and of no
/// file.
pub(crate) fn rows_of(content: &[u8], sql: &str, entry: &str) -> Result<Vec<Row>> {
    let mut image = content.to_vec();
    // The two bytes that say that it has a write-ahead log would keep it from being opened.
    if let Some(versions) = image.get_mut(18..20) {
        versions.fill(1);
    }
    let open = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_in_memory()?;
        connection.deserialize_read_exact(MAIN_DB, image.as_slice(), image.len(), true)?;
        Ok(connection)
    };
    let mut connection = open().map_err(|cause| failed("open", entry, cause))?;
    rows(&mut connection, sql, entry)
}
