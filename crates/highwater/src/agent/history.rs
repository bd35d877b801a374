//! The operations of an agent, in a small SQLite database that outlives the process.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, Time};

use super::operation::{Operation, OperationId, OperationState, Task, Trigger};

/// The version of the tables.
const VERSION: i64 = 1;
/// How many operations are kept; older ones are deleted, except the last success of each task.
pub(super) const KEPT: u32 = 10_000;
/// How long somebody who looks into it with another program may keep it locked.
const BUSY_MAX: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE operations (
        id TEXT PRIMARY KEY, node TEXT NOT NULL, task TEXT NOT NULL, trigger TEXT NOT NULL,
        state TEXT NOT NULL, bytes_done INTEGER NOT NULL, bytes_total INTEGER NOT NULL,
        queued_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER,
        reason TEXT, kind TEXT, snapshot TEXT, location TEXT NOT NULL, warnings TEXT NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;";

const COLUMNS: &str = "id, node, task, trigger, state, bytes_done, bytes_total, queued_at, \
                       started_at, finished_at, reason, kind, snapshot, location, warnings";

/// Older ones than those that are kept. The order is that of `rowid`, in which they were asked for: a
/// clock may have been set back.
const OLD: &str = "
    DELETE FROM operations
    WHERE rowid <= (SELECT rowid FROM operations ORDER BY rowid DESC LIMIT 1 OFFSET ?1)
    AND rowid NOT IN (SELECT max(rowid) FROM operations WHERE state = 'completed' GROUP BY task)";

/// The history of one node's operations.
pub(super) struct History {
    connection: Mutex<Connection>,
    name: String,
    /// A damaged one was put aside.
    pub(super) warning: Option<String>,
}

impl History {
    /// Opens it, or makes it, in a directory that no other agent uses. A damaged one is put aside: an
    /// agent that lacks its memory is better than none.
    ///
    /// # Errors
    /// Conflict where a newer program has made it; denied or unavailable where it can't be written.
    pub(super) fn open(path: &Path, now: Time) -> Result<History> {
        match History::open_whole(path) {
            Err(error) if error.kind() == Kind::Corrupt => {
                let aside = put_aside(path, now)?;
                let warning = format!(
                    "the history of operations was damaged ({}); it was put aside as {}, and \
                     begun anew",
                    error.summary(),
                    aside.display()
                );
                History::open_whole(path)
                    .map(|history| History { warning: Some(warning), ..history })
            }
            opened => opened,
        }
    }

    fn open_whole(path: &Path) -> Result<History> {
        let name = path.display().to_string();
        // SQLite would make it as readable as the caller's mask allows. It is never opened here where it
        // exists: closing it would drop the locks of whoever has it open in this process.
        let fresh = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match fresh {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("making the history of operations", error).with_entry(&name));
            }
            _ => {}
        }
        let failed = |error| describe(&name, error);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY_MAX).map_err(failed)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        if version > VERSION {
            return Err(Error::conflict("a newer program keeps its history here")
                .with_entry(&name)
                .with_remedy("run that program, or give the agent another data directory"));
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        if version == 0 {
            let transaction = connection.transaction().map_err(failed)?;
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        let check: String =
            connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(failed)?;
        if check != "ok" {
            return Err(
                Error::corrupt(format!("the history of operations: {check}")).with_entry(&name)
            );
        }
        let history = History { connection: Mutex::new(connection), name, warning: None };
        // What can't be read now could not be read later.
        history.list(KEPT)?;
        Ok(history)
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }

    /// Writes an operation as it stands.
    pub(super) fn put(&self, operation: &Operation) -> Result<()> {
        let failed = |error| describe(&self.name, error);
        let warnings = serde_json::to_string(&operation.warnings)
            .map_err(|error| Error::bug("warnings can't be written").with_source(error))?;
        let connection = self.connection();
        let sql = format!(
            "INSERT INTO operations ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) \
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, \
             bytes_done = excluded.bytes_done, bytes_total = excluded.bytes_total, \
             started_at = excluded.started_at, finished_at = excluded.finished_at, \
             reason = excluded.reason, kind = excluded.kind, snapshot = excluded.snapshot, \
             warnings = excluded.warnings"
        );
        let put = connection.prepare_cached(&sql).and_then(|mut statement| {
            statement.execute(params![
                operation.id.to_string(),
                operation.node.as_str(),
                operation.task.name(),
                operation.trigger.name(),
                operation.state.name(),
                i64::try_from(operation.bytes_done).unwrap_or(i64::MAX),
                i64::try_from(operation.bytes_total).unwrap_or(i64::MAX),
                operation.queued_at.as_nanos(),
                operation.started_at.map(Time::as_nanos),
                operation.finished_at.map(Time::as_nanos),
                operation.reason,
                operation.kind,
                operation.snapshot.map(|snapshot| snapshot.to_string()),
                operation.location,
                warnings,
            ])
        });
        put.map_err(failed)?;
        if operation.state.is_final() {
            connection.execute(OLD, [KEPT]).map_err(failed)?;
        }
        Ok(())
    }

    /// One operation.
    pub(super) fn get(&self, id: OperationId) -> Result<Option<Operation>> {
        let sql = format!("SELECT {COLUMNS} FROM operations WHERE id = ?");
        let found = self.connection().query_row(&sql, [id.to_string()], |row| Ok(parse(row)));
        found.optional().map_err(|error| describe(&self.name, error))?.transpose()
    }

    /// The newest operations, newest first.
    pub(super) fn list(&self, max: u32) -> Result<Vec<Operation>> {
        self.select("ORDER BY rowid DESC LIMIT ?1", &[&max])
    }

    /// The newest operation of a task that succeeded.
    pub(super) fn last_success(&self, task: Task) -> Result<Option<Operation>> {
        let rest = "WHERE task = ?1 AND state = 'completed' ORDER BY rowid DESC LIMIT 1";
        Ok(self.select(rest, &[&task.name()])?.pop())
    }

    /// The newest operation of a task that succeeded or failed.
    pub(super) fn last_ended(&self, task: Task) -> Result<Option<Operation>> {
        let rest = "WHERE task = ?1 AND state IN ('completed', 'failed') \
                    ORDER BY rowid DESC LIMIT 1";
        Ok(self.select(rest, &[&task.name()])?.pop())
    }

    /// Those that a process which has ended left unfinished.
    pub(super) fn unfinished(&self) -> Result<Vec<Operation>> {
        self.select("WHERE state IN ('queued', 'running') ORDER BY rowid", &[])
    }

    fn select(&self, rest: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Operation>> {
        let failed = |error| describe(&self.name, error);
        let connection = self.connection();
        let sql = format!("SELECT {COLUMNS} FROM operations {rest}");
        let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
        let rows = statement.query_map(values, |row| Ok(parse(row))).map_err(failed)?;
        let mut operations = Vec::new();
        for row in rows {
            operations.push(row.map_err(failed)??);
        }
        Ok(operations)
    }
}

/// Moves the history and what SQLite keeps beside it out of the way; nothing is deleted.
fn put_aside(path: &Path, now: Time) -> Result<PathBuf> {
    let beside = |path: &Path, suffix: &str| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = beside(path, &format!(".damaged-{}", now.as_nanos()));
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(path, suffix), beside(&aside, suffix));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("putting a damaged history aside", error)
                    .with_entry(from.display().to_string()));
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn parse(row: &Row<'_>) -> Result<Operation> {
    let damaged = |error: rusqlite::Error| {
        Error::corrupt("the history of operations is damaged").with_source(error)
    };
    let text = |column: usize| row.get::<_, String>(column).map_err(damaged);
    let corrupt =
        |error: Error| Error::corrupt(format!("the history of operations: {}", error.summary()));
    let words = |column: usize| row.get::<_, Option<String>>(column).map_err(damaged);
    let time = |column: usize| {
        row.get::<_, Option<i64>>(column).map(|nanos| nanos.map(Time::from_nanos)).map_err(damaged)
    };
    let count = |column: usize| {
        row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0)).map_err(damaged)
    };
    let unknown = |what: &str| Error::corrupt(format!("the history has an unknown {what}"));
    Ok(Operation {
        id: text(0)?.parse().map_err(corrupt)?,
        node: text(1)?.parse::<NodeName>().map_err(corrupt)?,
        task: Task::parse(&text(2)?).ok_or_else(|| unknown("task"))?,
        trigger: Trigger::parse(&text(3)?).ok_or_else(|| unknown("trigger"))?,
        state: OperationState::parse(&text(4)?).ok_or_else(|| unknown("state"))?,
        stage: String::new(),
        bytes_done: count(5)?,
        bytes_total: count(6)?,
        queued_at: time(7)?.ok_or_else(|| unknown("time"))?,
        started_at: time(8)?,
        finished_at: time(9)?,
        reason: words(10)?,
        kind: words(11)?,
        snapshot: words(12)?.map(|snapshot| snapshot.parse().map_err(corrupt)).transpose()?,
        location: text(13)?,
        warnings: serde_json::from_str(&text(14)?)
            .map_err(|error| Error::corrupt("the history is damaged").with_source(error))?,
    })
}

fn describe(name: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    let kind = match error.sqlite_error_code() {
        Some(Code::NotADatabase | Code::DatabaseCorrupt) => Kind::Corrupt,
        Some(Code::PermissionDenied | Code::ReadOnly | Code::AuthorizationForStatementDenied) => {
            Kind::Denied
        }
        _ => Kind::Unavailable,
    };
    let told = Error::new(kind, format!("the history of operations: {error}")).with_entry(name);
    let told = match kind {
        Kind::Corrupt => told,
        _ => told.with_remedy("make room, or give the agent a data directory that it may write"),
    };
    told.with_source(error)
}
