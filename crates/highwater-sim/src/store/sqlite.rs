//! The store of a real node: one SQLite database in its directory, in WAL mode, synced at each
//! commit.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use highwater::{Error, Result};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Counters, Record, Store, Stored, StoredChannel};

/// The database's name in the node directory.
pub const DATABASE: &str = "channels.sqlite";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS offers (id TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS channels (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    -- Why it may be stale; NULL: it is live.
    stale TEXT,
    closed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS invoices (preimage TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS payments (hash TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS counters (one INTEGER PRIMARY KEY CHECK (one = 1), state TEXT NOT NULL) STRICT;
";

/// A store in a SQLite database.
pub struct SqliteStore {
    connection: Connection,
}

impl SqliteStore {
    /// Opens the database in the node directory `dir`, and makes it where there is none and `create`.
    pub fn open(dir: &Path, create: bool) -> Result<SqliteStore> {
        let path = dir.join(DATABASE);
        if !create && !path.is_file() {
            return Err(Error::not_found("there is no channel database").with_entry(DATABASE));
        }
        if create {
            // Nobody else may read it, from its first byte; its log and index take its mode.
            std::fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(|error| Error::io(DATABASE, error))?;
        }
        let connection = Connection::open(&path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(SqliteStore { connection })
    }

    /// Marks a channel stale; one that is marked already stays as it is.
    pub(crate) fn mark(&mut self, id: &str) -> Result<()> {
        let sql = "UPDATE channels SET stale = coalesce(stale, '{}') WHERE id = ?1";
        match self.connection.execute(sql, [id]).map_err(failed)? {
            1 => Ok(()),
            _ => Err(Error::not_found("no such channel").with_entry(id)),
        }
    }

    fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let texts = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
        texts.map(|text| parse(&text.map_err(failed)?)).collect()
    }

    fn channels(&self) -> Result<Vec<StoredChannel>> {
        let sql = "SELECT state, stale, closed FROM channels ORDER BY id";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let rows = statement
            .query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (state, stale, closed) = row.map_err(failed)?;
            let stale = stale.as_deref().map(parse).transpose()?;
            Ok(StoredChannel { channel: parse(&state)?, stale, closed })
        })
        .collect()
    }

    fn counters(&self) -> Result<Counters> {
        let text: Option<String> = self
            .connection
            .query_row("SELECT state FROM counters", [], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        text.map_or(Ok(Counters::default()), |text| parse(&text))
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Stored> {
        Ok(Stored {
            offers: self.rows("SELECT state FROM offers ORDER BY id")?,
            channels: self.channels()?,
            invoices: self.rows("SELECT preimage FROM invoices ORDER BY preimage")?,
            payments: self.rows("SELECT state FROM payments ORDER BY hash")?,
            counters: self.counters()?,
        })
    }

    fn commit(&mut self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction().map_err(failed)?;
        for record in records {
            apply(&transaction, record)?;
        }
        transaction.commit().map_err(failed)
    }
}

fn apply(connection: &Connection, record: &Record) -> Result<()> {
    let (sql, parameters) = match record {
        Record::Offer(offer) => (
            "INSERT OR REPLACE INTO offers (id, state) VALUES (?1, ?2)",
            vec![offer.id.to_string(), text(offer)?],
        ),
        Record::Channel(channel) => {
            let id = channel.id().to_string();
            connection.execute("DELETE FROM offers WHERE id = ?1", [&id]).map_err(failed)?;
            (
                "INSERT INTO channels (id, state) VALUES (?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                vec![id, text(channel)?],
            )
        }
        Record::Stale(id, stale) => (
            "UPDATE channels SET stale = ?2 WHERE id = ?1",
            vec![id.to_string(), text(stale)?],
        ),
        Record::Unmark(id, epoch) => (
            "UPDATE channels SET stale = NULL, state = json_set(state, '$.epoch', CAST(?2 AS INTEGER))
             WHERE id = ?1",
            vec![id.to_string(), epoch.to_string()],
        ),
        Record::Closed(id) => {
            ("UPDATE channels SET closed = 1, stale = NULL WHERE id = ?1", vec![id.to_string()])
        }
        Record::Invoice(preimage) => {
            ("INSERT OR IGNORE INTO invoices (preimage) VALUES (?1)", vec![text(preimage)?])
        }
        Record::Payment(payment) => (
            "INSERT OR REPLACE INTO payments (hash, state) VALUES (?1, ?2)",
            vec![payment.hash.to_string(), text(payment)?],
        ),
        Record::Counters(counters) => {
            ("INSERT OR REPLACE INTO counters (one, state) VALUES (1, ?1)", vec![text(counters)?])
        }
    };
    connection.execute(sql, rusqlite::params_from_iter(parameters)).map_err(failed)?;
    Ok(())
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::bug("a record can't be written as JSON").with_source(error))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::corrupt(format!("a record can't be read: {error}")).with_entry(DATABASE)
    })
}

fn failed(error: rusqlite::Error) -> Error {
    Error::unavailable(format!("the channel database: {error}"))
        .with_entry(DATABASE)
        .with_source(error)
}
