//! The check of a restored database file, which leaves it and its directory as they are.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::failure::failed;
use super::source::open_immutable;
use super::stamp::{regular, sibling};
use crate::engine::{Checked, Depth};
use crate::error::{Error, Result};
use crate::ids;

/// Faults that an error reports.
const FAULTS_MAX: u32 = 5;

/// Checks the database file at `path`, which nobody has open.
///
/// It is opened as immutable: without locks, without a `-wal` or `-shm` beside it.
///
/// # Errors
/// Corrupt where it is no database, has another length than its pages, or fails SQLite's own check.
pub(in crate::engine) fn check(path: &Path, depth: Depth) -> Result<Checked> {
    let entry = ids::encode(path.as_os_str().as_bytes());
    let meta = regular(path)?;
    let mut checked = Checked::default();
    for suffix in ["-wal", "-journal"] {
        if fs::symlink_metadata(sibling(path, suffix)).is_ok_and(|meta| meta.len() > 0) {
            checked.warnings.push(format!(
                "{entry} was captured with a `{suffix}` that SQLite applies when the node opens \
                 it; until then its content can't be checked"
            ));
        }
    }
    if !checked.warnings.is_empty() {
        return Ok(checked);
    }
    let connection = open_immutable(path).map_err(|cause| corrupt("open", &entry, cause))?;
    let pragma = |name: &str| {
        connection
            .query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, i64>(0))
            .map_err(|cause| corrupt("read", &entry, cause))
    };
    pragma("schema_version")?;
    let pages = pragma("page_count")?.saturating_mul(pragma("page_size")?);
    if u64::try_from(pages).ok() != Some(meta.len()) {
        return Err(Error::corrupt(format!(
            "{entry} has {} bytes where its page count says {pages}",
            meta.len()
        ))
        .entry(entry));
    }
    if depth == Depth::Full {
        check_content(&connection, &entry, &mut checked)?;
    }
    Ok(checked)
}

/// Runs SQLite's own check. Where it stumbles over what only the node knows (a collation, a
/// tokenizer), each table is checked by itself, and those that can't be are named.
fn check_content(connection: &Connection, entry: &str, checked: &mut Checked) -> Result<()> {
    match integrity(connection, None) {
        Ok(faults) => return report(entry, &faults),
        Err(cause) if is_foreign(&cause) => {}
        Err(cause) => return Err(corrupt("check", entry, cause)),
    }
    let unread = |cause| corrupt("read the schema of", entry, cause);
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .map_err(unread)?;
    let tables: Vec<String> =
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(unread)?;
    for table in tables {
        match integrity(connection, Some(&table)) {
            Ok(faults) => report(entry, &faults)?,
            Err(cause) if is_foreign(&cause) => checked.warnings.push(format!(
                "{entry}: the table `{table}` could not be checked, it needs what only the node \
                 has ({cause})"
            )),
            Err(cause) => return Err(corrupt("check", entry, cause)),
        }
    }
    Ok(())
}

/// The faults that SQLite finds in `table`, or in all.
fn integrity(connection: &Connection, table: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let argument = match table {
        Some(table) => format!("'{}'", table.replace('\'', "''")),
        None => FAULTS_MAX.to_string(),
    };
    let mut statement = connection.prepare(&format!("PRAGMA main.integrity_check({argument})"))?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let lines: Vec<String> = rows.take(FAULTS_MAX as usize).collect::<rusqlite::Result<_>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

fn report(entry: &str, faults: &[String]) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::corrupt(format!("{entry} fails SQLite's check: {}", faults.join("; "))).entry(entry))
}

/// Whether an error comes from what a database may need beyond SQLite itself.
fn is_foreign(cause: &rusqlite::Error) -> bool {
    let text = cause.to_string();
    ["no such collation sequence", "no such module", "no such function", "no such tokenizer"]
        .iter()
        .any(|known| text.contains(known))
}

/// A restored file that SQLite refuses is not what was captured, whatever SQLite calls it.
fn corrupt(what: &str, entry: &str, cause: rusqlite::Error) -> Error {
    let error = failed(what, entry, cause);
    if matches!(error.kind(), crate::Kind::Unavailable | crate::Kind::Corrupt) {
        return Error::corrupt(error.message()).entry(entry).source(error);
    }
    error
}
