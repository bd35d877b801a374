//! The operations of an agent, in a small SQLite database that outlives the process.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, Time};

use super::operation::{Operation, OperationId, State, Task, Trigger};

/// The version of the tables.
const VERSION: i64 = 1;
/// So many operations are kept; older ones go.
const KEPT: u32 = 10_000;

const TABLES: &str = "
    CREATE TABLE operations (
        id TEXT PRIMARY KEY, node TEXT NOT NULL, task TEXT NOT NULL, trigger TEXT NOT NULL,
        state TEXT NOT NULL, bytes_done INTEGER NOT NULL, bytes_total INTEGER NOT NULL,
        queued_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER,
        reason TEXT, kind TEXT, snapshot TEXT, location TEXT NOT NULL, warnings TEXT NOT NULL
    ) STRICT;
    CREATE INDEX operations_queued_at ON operations (queued_at);
    PRAGMA user_version = 1;";

const COLUMNS: &str = "id, node, task, trigger, state, bytes_done, bytes_total, queued_at, \
                       started_at, finished_at, reason, kind, snapshot, location, warnings";

/// The history of one node's operations.
pub(super) struct History {
    connection: Mutex<Connection>,
    name: String,
}

impl History {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// Conflict where a newer program has made it; corrupt where it is damaged.
    pub(super) fn open(path: &Path) -> Result<History> {
        let name = path.display().to_string();
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| Error::io("making the agent's directory", error).entry(&name))?;
        }
        let failed = |error| describe(&name, error);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        match version {
            0 => {
                let transaction = connection.transaction().map_err(failed)?;
                transaction.execute_batch(TABLES).map_err(failed)?;
                transaction.commit().map_err(failed)?;
            }
            VERSION => {}
            _ => {
                return Err(Error::conflict("a newer program keeps its history here")
                    .entry(&name)
                    .hint("run that program, or give the agent another data directory"));
            }
        }
        Ok(History { connection: Mutex::new(connection), name })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an operation as it stands.
    pub(super) fn put(&self, operation: &Operation) -> Result<()> {
        let failed = |error| describe(&self.name, error);
        let warnings = serde_json::to_string(&operation.warnings)
            .map_err(|error| Error::bug("warnings can't be written").source(error))?;
        let connection = self.connection();
        let sql = format!(
            "INSERT OR REPLACE INTO operations ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
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
            let old = "DELETE FROM operations WHERE id IN \
                       (SELECT id FROM operations ORDER BY queued_at DESC LIMIT -1 OFFSET ?)";
            connection.execute(old, [KEPT]).map_err(failed)?;
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
        self.select("ORDER BY queued_at DESC LIMIT ?1", &[&max])
    }

    /// The newest operation of a task that ended in a state.
    pub(super) fn last(&self, task: Task, state: State) -> Result<Option<Operation>> {
        let rest = "WHERE task = ?1 AND state = ?2 ORDER BY queued_at DESC LIMIT 1";
        Ok(self.select(rest, &[&task.name(), &state.name()])?.pop())
    }

    /// Those that a process which has ended left unfinished.
    pub(super) fn unfinished(&self) -> Result<Vec<Operation>> {
        self.select("WHERE state IN ('queued', 'running')", &[])
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

fn parse(row: &Row<'_>) -> Result<Operation> {
    let damaged = |error: rusqlite::Error| {
        Error::corrupt("the history of operations is damaged").source(error)
    };
    let text = |column: usize| row.get::<_, String>(column).map_err(damaged);
    let words = |column: usize| row.get::<_, Option<String>>(column).map_err(damaged);
    let time = |column: usize| {
        row.get::<_, Option<i64>>(column).map(|nanos| nanos.map(Time::from_nanos)).map_err(damaged)
    };
    let count = |column: usize| {
        row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0)).map_err(damaged)
    };
    let unknown = |what: &str| Error::corrupt(format!("the history has an unknown {what}"));
    Ok(Operation {
        id: text(0)?.parse()?,
        node: text(1)?.parse::<NodeName>()?,
        task: Task::parse(&text(2)?).ok_or_else(|| unknown("task"))?,
        trigger: Trigger::parse(&text(3)?).ok_or_else(|| unknown("trigger"))?,
        state: State::parse(&text(4)?).ok_or_else(|| unknown("state"))?,
        stage: String::new(),
        bytes_done: count(5)?,
        bytes_total: count(6)?,
        queued_at: time(7)?.ok_or_else(|| unknown("time"))?,
        started_at: time(8)?,
        finished_at: time(9)?,
        reason: words(10)?,
        kind: words(11)?,
        snapshot: words(12)?.map(|snapshot| snapshot.parse()).transpose()?,
        location: text(13)?,
        warnings: serde_json::from_str(&text(14)?)
            .map_err(|error| Error::corrupt("the history is damaged").source(error))?,
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
    Error::new(kind, format!("the history of operations: {error}")).entry(name).source(error)
}
