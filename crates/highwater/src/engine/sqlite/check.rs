//! The check of a restored database file, which leaves it and its directory as they are.

use std::os::unix::fs::FileExt as _;

use rusqlite::{Connection, OpenFlags};

use super::failure::failed;
use super::source::open_immutable;
use super::stamp::regular;
use crate::durable;
use crate::engine::{Checked, Depth};
use crate::error::{Error, Result};
use crate::ids;
use crate::rooted::RootedPath;

/// Faults that an error reports.
const FAULTS_MAX: u32 = 5;

/// How the name of the private directory of a copy begins.
const COPY_PREFIX: &str = ".highwater-check-";

/// A database with a log is copied to be opened, up to this size; larger ones only where the full
/// check was asked for.
const COPY_BYTES_MAX: u64 = 256 << 20;

/// What SQLite writes beside a database until a transaction is done.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// The last bytes of a journal that names a super-journal.
const SUPER_JOURNAL: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Checks the database file at `path`, which nobody has open.
///
/// It is opened as immutable: without locks, without a `-wal` or `-shm` beside it. One that has a log
/// beside it, since it was frozen in the middle of its work, is opened as a copy.
///
/// # Errors
/// Corrupt where it is not a database, has another length than its pages, or fails SQLite's own check.
pub(in crate::engine) fn check_here(path: &RootedPath, depth: Depth) -> Result<Checked> {
    let entry = ids::encode(path.path().as_os_str().as_encoded_bytes());
    let meta = regular(path)?;
    let mut checked = Checked::default();
    let logs = LOGS.map(|suffix| path.with_suffix(suffix));
    let mut bytes = 0;
    for log in &logs {
        bytes += durable::stat(log)?.map_or(0, |seen| seen.stx_size);
    }
    if bytes > 0 {
        let unchecked = if names_super_journal(&logs[1])? {
            Some("belongs to a transaction over several databases")
        } else if depth == Depth::Open && bytes.saturating_add(meta.stx_size) > COPY_BYTES_MAX {
            Some("is large")
        } else {
            None
        };
        match unchecked {
            None => check_copy(path, &logs, &entry, depth, &mut checked)?,
            Some(why) => {
                checked.unchecked.push(entry.clone());
                checked.warnings.push(format!(
                    "{entry} was captured with a log that SQLite applies when the node opens it, and \
                     which {why}: until then its content can't be checked"
                ));
            }
        }
        return Ok(checked);
    }
    let connection =
        open_immutable(&path.path()).map_err(|cause| corrupt("open", &entry, cause))?;
    let pages = page_bytes(&connection, &entry)?;
    if pages != meta.stx_size {
        return Err(Error::corrupt(format!(
            "{entry} has {} bytes where its page count says {pages}",
            meta.stx_size
        ))
        .with_entry(entry));
    }
    if depth == Depth::Full {
        check_content(&connection, &entry, &mut checked)?;
    }
    Ok(checked)
}

/// How long a database is by its own count of pages; this reads its schema.
fn page_bytes(connection: &Connection, entry: &str) -> Result<u64> {
    let pragma = |name: &str| {
        connection
            .query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, i64>(0))
            .map_err(|cause| corrupt("read", entry, cause))
    };
    pragma("schema_version")?;
    let pages = pragma("page_count")?.saturating_mul(pragma("page_size")?);
    u64::try_from(pages)
        .map_err(|_| Error::corrupt(format!("{entry} has no size")).with_entry(entry))
}

/// Opens a copy as the node would, which applies the log, and checks that.
fn check_copy(
    path: &RootedPath,
    logs: &[RootedPath],
    entry: &str,
    depth: Depth,
    checked: &mut Checked,
) -> Result<()> {
    let home = Home::beside(path)?;
    let failed = |error| Error::io(format!("can't copy {entry} for its check"), error);
    for file in std::iter::once(path).chain(logs) {
        let mut source = match file.open_file() {
            Ok(source) => source,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        // The log is applied to the copy, whatever the mode of its original.
        let mut copy = home.dir.join(file.name()).create_new().map_err(failed)?;
        std::io::copy(&mut source, &mut copy).map_err(failed)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(home.dir.join(path.name()).path(), flags)
        .map_err(|cause| corrupt("open", entry, cause))?;
    page_bytes(&connection, entry)?;
    if depth == Depth::Full {
        check_content(&connection, entry, checked)?;
    }
    drop(connection);
    home.remove()
}

/// Whether a journal waits for one that spans several databases, which is named by its path: a copy
/// that is rolled back would take the file at that path, the node's own, for done.
fn names_super_journal(journal: &RootedPath) -> Result<bool> {
    let read = || -> std::io::Result<bool> {
        let file = journal.open_file()?;
        let mut tail = [0; SUPER_JOURNAL.len()];
        let Some(position) = file.metadata()?.len().checked_sub(tail.len() as u64) else {
            return Ok(false);
        };
        file.read_exact_at(&mut tail, position)?;
        Ok(tail == SUPER_JOURNAL)
    };
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        read => read.map_err(|error| Error::io("can't read a journal", error)),
    }
}

/// A private directory beside a database, held; removed at the end.
struct Home {
    place: RootedPath,
    dir: RootedPath,
}

impl Home {
    fn beside(path: &RootedPath) -> Result<Home> {
        let mut name = std::ffi::OsString::from(COPY_PREFIX);
        name.push(path.name());
        let place = path.above().join(name);
        let failed = |error| durable::met(&place, "make", error);
        place.make_dir().map_err(failed)?;
        let dir = place.enter().map_err(failed)?;
        Ok(Home { place, dir })
    }

    fn remove(self) -> Result<()> {
        durable::remove_held(&self.place, &self.dir)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A check that failed says why; what it was made on is thrown away.
        let _ = durable::remove_held(&self.place, &self.dir);
    }
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
    Err(Error::corrupt(format!("{entry} fails SQLite's check: {}", faults.join("; ")))
        .with_entry(entry))
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
        return Error::corrupt(error.message()).with_entry(entry).with_source(error);
    }
    error
}
