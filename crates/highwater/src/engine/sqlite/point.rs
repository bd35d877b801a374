//! Where a replicated store in a database stands, read inside the transaction in which its pages are.
//!
//! The table and its keys are those of `docs/replica-format.md`. Nothing of the replica itself is used:
//! a node of any build is read.

use rusqlite::{Connection, OptionalExtension as _};
use serde::Deserialize;

use crate::engine::ReplicaPoint;
use crate::ids::StoreId;

const BOOK: &str =
    "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'highwater_book'";
const VALUE: &str = "SELECT value FROM main.highwater_book WHERE key = ?1";
/// What waits, the newest first: the number of a write, and its first byte.
const QUEUE: &str = "SELECT substr(key, 7), substr(value, 1, 1) FROM main.highwater_book \
                     WHERE key >= CAST('queue/' AS BLOB) AND key < CAST('queue0' AS BLOB) \
                     ORDER BY key DESC";

/// What is needed of a head, and of where it is.
#[derive(Deserialize)]
struct Placed {
    head: Head,
}

#[derive(Deserialize)]
struct Head {
    epoch: u64,
    seq: u64,
}

/// The point of the store in a database; none where there is no store, where it was never replicated,
/// or where its values are half of a restore. Why it can't be told, where it can't.
pub(super) fn read(connection: &Connection) -> Result<Option<ReplicaPoint>, String> {
    let found = connection.query_row(BOOK, [], |_| Ok(())).optional();
    if found.map_err(told)?.is_none() {
        return Ok(None);
    }
    let value = |key: &str| {
        let row = connection.query_row(VALUE, [key.as_bytes()], |row| row.get::<_, Vec<u8>>(0));
        row.optional().map_err(told)
    };
    if value("hydrating")?.is_some() {
        return Ok(None);
    }
    let (Some(check), Some(placed)) = (value("check")?, value("head")?) else { return Ok(None) };
    let Placed { head } =
        serde_json::from_slice(&placed).map_err(|error| format!("its head: {error}"))?;
    Ok(Some(ReplicaPoint {
        store: StoreId::of_check(&check),
        epoch: head.epoch,
        seq: last_visible(connection)?.map_or(head.seq, |seq| seq.max(head.seq)),
        acknowledged: head.seq,
    }))
}

/// The last write that waits for the server and is among the values already. One that goes to the
/// server first is not.
fn last_visible(connection: &Connection) -> Result<Option<u64>, String> {
    let mut statement = connection.prepare(QUEUE).map_err(told)?;
    let mut rows = statement.query([]).map_err(told)?;
    while let Some(row) = rows.next().map_err(told)? {
        let (seq, flags): (Vec<u8>, Vec<u8>) =
            (row.get(0).map_err(told)?, row.get(1).map_err(told)?);
        let (Ok(seq), [flags]) = (<[u8; 8]>::try_from(seq), flags.as_slice()) else {
            return Err("its queue is damaged".to_owned());
        };
        if flags & 1 == 0 {
            return Ok(Some(u64::from_be_bytes(seq)));
        }
    }
    Ok(None)
}

fn told(error: rusqlite::Error) -> String {
    error.to_string()
}
