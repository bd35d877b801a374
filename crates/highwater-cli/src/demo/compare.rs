//! Compares the restored node row by row with what had been written.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use highwater::engine;
use highwater::{Error, Result};
use rusqlite::{Connection, OpenFlags};

use super::writer::sqlite_error;
use super::{node, rows};

/// Rows that were compared and found equal.
pub(super) struct Rows {
    pub(super) rocksdb: u64,
    pub(super) sqlite: u64,
}

/// Compares everything; the SQLite must hold `acknowledged` payments at least.
pub(super) fn node(dir: &Path, acknowledged: u64) -> Result<Rows> {
    files(dir)?;
    Ok(Rows { rocksdb: store(dir)?, sqlite: ledger(dir, acknowledged)? })
}

fn differs(entry: &str, what: impl Into<String>) -> Error {
    Error::bug(what)
        .with_entry(entry)
        .with_remedy("the restored node is not what was backed up: report it")
}

/// Read from its files alone; where the program has RocksDB's own library, the restore has opened it by that as well.
fn store(dir: &Path) -> Result<u64> {
    let found = engine::rocksdb::rows(&dir.join(node::STORE), &[b""])?;
    for (row, (key, value)) in (0..).zip(&found) {
        if key[..] != rows::key(row) || *value != rows::value(node::STORE, row) {
            return Err(differs(node::STORE, format!("row {row} differs")));
        }
    }
    let count = found.len() as u64;
    if count != rows::ROWS {
        return Err(differs(node::STORE, format!("{count} rows instead of {}", rows::ROWS)));
    }
    Ok(count)
}

fn ledger(dir: &Path, acknowledged: u64) -> Result<u64> {
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(dir.join(node::LEDGER), flags)?;
        let balance: i64 =
            connection.query_row("SELECT payments FROM balance", (), |row| row.get(0))?;
        let mut query = connection.prepare("SELECT id, body FROM payment ORDER BY id")?;
        let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((balance, rows.collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?))
    };
    let (balance, payments) = read().map_err(sqlite_error)?;
    for (row, (id, body)) in (1..).zip(&payments) {
        if u64::try_from(*id) != Ok(row) || *body != rows::value(node::LEDGER, row) {
            return Err(differs(node::LEDGER, format!("payment {row} differs")));
        }
    }
    let count = payments.len() as u64;
    if u64::try_from(balance) != Ok(count) {
        let wrong = format!("{count} payments, and a balance of {balance}");
        return Err(differs(node::LEDGER, wrong));
    }
    if count < acknowledged {
        let wrong = format!("{count} payments, although {acknowledged} were acknowledged");
        return Err(differs(node::LEDGER, wrong));
    }
    Ok(count)
}

fn files(dir: &Path) -> Result<()> {
    let read = |name: &str| std::fs::read(dir.join(name)).map_err(|error| Error::io(name, error));
    if read(node::KEY)? != node::key_bytes() {
        return Err(differs(node::KEY, "the key differs"));
    }
    let metadata =
        std::fs::metadata(dir.join(node::KEY)).map_err(|error| Error::io(node::KEY, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode != node::KEY_MODE {
        return Err(differs(node::KEY, format!("the key has mode {mode:04o}")));
    }
    if read(node::CONFIG)? != node::CONFIG_TEXT.as_bytes() {
        return Err(differs(node::CONFIG, "the configuration differs"));
    }
    let target = std::fs::read_link(dir.join(node::LINK));
    if target.map_err(|error| Error::io(node::LINK, error))? != Path::new(node::CONFIG) {
        return Err(differs(node::LINK, "the link leads elsewhere"));
    }
    Ok(())
}
