//! A query of a captured database. Its answer is read as if the database had been made to hurt: a table may be a
//! view that never ends, or that gives more than fits into memory.

use rusqlite::blob::Blob;
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

/// How the name of a column begins that gives the numbers of rows of a table, in whose place the first bytes of a
/// value of those rows are read: `head:TABLE:COLUMN:BYTES`. SQLite's own `substr` reads all of a value first.
const HEAD_PREFIX: &str = "head:";

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
    let mut heads: Vec<Option<Heads<'_>>> = (0..columns)
        .map(|column| Heads::named(statement.column_name(column).ok()?, connection))
        .collect();
    let mut found = Vec::new();
    let mut room = BYTES_MAX;
    let mut rows = statement.query([]).map_err(unread)?;
    while let Some(row) = rows.next().map_err(unread)? {
        let mut cells = Vec::with_capacity(columns);
        let mut bytes = ROW_BYTES;
        for (column, heads) in heads.iter_mut().enumerate() {
            let cell = match row.get_ref(column).map_err(unread)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => match heads {
                    Some(heads) => {
                        bytes += heads.bytes;
                        Cell::Bytes(heads.of(number).map_err(unread)?)
                    }
                    None => Cell::Integer(number),
                },
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

/// The first bytes of the values of a column, row by row.
struct Heads<'a> {
    connection: &'a Connection,
    table: String,
    column: String,
    bytes: usize,
    /// The value that was read last.
    value: Option<Blob<'a>>,
}

impl<'a> Heads<'a> {
    /// As the name of a column of the answer asks for them.
    fn named(name: &str, connection: &'a Connection) -> Option<Heads<'a>> {
        let (table, rest) = name.strip_prefix(HEAD_PREFIX)?.split_once(':')?;
        let (column, bytes) = rest.split_once(':')?;
        let (table, column) = (table.to_owned(), column.to_owned());
        Some(Heads { connection, table, column, bytes: bytes.parse().ok()?, value: None })
    }

    /// Those of the row with this number.
    fn of(&mut self, row: i64) -> rusqlite::Result<Vec<u8>> {
        let value = match self.value.take() {
            Some(mut value) => value.reopen(row).map(|()| value)?,
            None => self.connection.blob_open(
                MAIN_DB,
                self.table.as_str(),
                self.column.as_str(),
                row,
                true,
            )?,
        };
        let mut head = vec![0; self.bytes.min(value.len())];
        value.read_at_exact(&mut head, 0)?;
        self.value = Some(value);
        Ok(head)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE kept (name TEXT, value); \
                 INSERT INTO kept VALUES ('long', zeroblob(20000)), ('short', x'0102'), ('text', 'abcdef'), \
                 ('none', NULL);",
            )
            .unwrap();
        connection
            .execute("UPDATE kept SET value = ? WHERE name = 'long'", [&[7u8; 20_000]])
            .unwrap();
        connection
    }

    #[test]
    fn the_beginnings_of_values_stand_in_place_of_the_numbers_of_their_rows() {
        let sql =
            "SELECT name, rowid AS \"head:kept:value:4\", rowid FROM kept WHERE value IS NOT NULL";
        let found = rows(&mut database(), sql, "kept.sqlite").unwrap();
        let row = |name: &str, head: &[u8], number| {
            vec![Cell::Bytes(name.into()), Cell::Bytes(head.to_vec()), Cell::Integer(number)]
        };
        let expected = [row("long", &[7; 4], 1), row("short", &[1, 2], 2), row("text", b"abcd", 3)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_value_that_has_no_bytes_is_an_error() {
        let sql = "SELECT rowid AS \"head:kept:value:4\" FROM kept";
        let error = rows(&mut database(), sql, "kept.sqlite").unwrap_err();
        assert_ne!(error.kind(), Kind::Bug, "{error}");
        assert_eq!(error.entry(), Some("kept.sqlite"), "{error}");
    }
}
