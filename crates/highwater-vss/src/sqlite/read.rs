//! What is read, on connections of its own: a read never waits for a write.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater::Error;
use highwater::ids::Time;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Semaphore;
use vss_api::kv_store::GLOBAL_VERSION_KEY;

use super::super::backend::{
    Commit, Digest, Found, Keep, Page, Place, Policy, Refusal, Stats, StoreName, StoreStats, Sum,
    prefix_end,
};
use super::{cached, failed, schema};

/// Connections that read at once.
pub(super) const CONNECTIONS: usize = 4;
/// Where more keys than this have a prefix, a listing goes by place and skips the others: then they are
/// no more than so rare.
const FEW: u32 = 4000;
/// Old values that one step of a prune deletes.
const PRUNED_AT_ONCE: u32 = 5000;

/// Connections for reads.
pub(super) struct Readers {
    free: Arc<Semaphore>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Readers> {
        let connections: rusqlite::Result<Vec<Connection>> =
            (0..CONNECTIONS).map(|_| schema::open_reader(path)).collect();
        Ok(Readers {
            free: Arc::new(Semaphore::new(CONNECTIONS)),
            connections: Arc::new(Mutex::new(connections?)),
        })
    }

    /// Runs `work` on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let closed = |_| Refusal::Failed(Error::unavailable("the database is closed"));
        let place = Arc::clone(&self.free).acquire_owned().await.map_err(closed)?;
        let connections = Arc::clone(&self.connections);
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connections
                .lock()
                .pop()
                .ok_or_else(|| Refusal::Failed(Error::bug("a place without a connection")))?;
            let done = work(&mut connection);
            connections.lock().push(connection);
            drop(place);
            done.map_err(failed)
        });
        done.await.unwrap_or_else(|error| {
            Err(Refusal::Failed(Error::bug("a read has panicked").with_source(error)))
        })
    }

    pub(super) fn close(&self) {
        self.free.close();
        self.connections.lock().clear();
    }
}

/// A store's number and what holds for it.
pub(super) fn store(
    connection: &Connection,
    name: &StoreName,
) -> rusqlite::Result<Option<(i64, Policy)>> {
    cached(
        connection,
        "SELECT id, fence, keep_versions, keep_days, generation, commits, oldest FROM store
         WHERE user = ?1 AND name = ?2",
    )?
    .query_row(params![name.user, name.id], |row| Ok((row.get(0)?, policy_of(row, 1)?)))
    .optional()
}

/// A policy from six columns.
fn policy_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Policy> {
    let (versions, days): (Option<u32>, Option<u32>) = (row.get(first + 1)?, row.get(first + 2)?);
    Ok(Policy {
        fence: row.get(first)?,
        history: versions.zip(days).map(|(versions, days)| Keep { versions, days }),
        generation: unsigned(row, first + 3)?,
        commit: unsigned(row, first + 4)?,
        oldest: unsigned(row, first + 5)?,
    })
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(super) fn get(
    connection: &Connection,
    name: &StoreName,
    key: &str,
    most: usize,
) -> rusqlite::Result<Option<Found>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    cached(
        connection,
        "SELECT version, length(value), CASE WHEN length(value) <= ?4 THEN value END FROM item
         WHERE store = (SELECT id FROM store WHERE user = ?1 AND name = ?2) AND key = ?3",
    )?
    .query_row(params![name.user, name.id, key, most], |row| {
        Ok(Found {
            version: row.get(0)?,
            bytes: usize::try_from(unsigned(row, 1)?).unwrap_or(usize::MAX),
            value: row.get::<_, Option<Vec<u8>>>(2)?.map(Bytes::from),
        })
    })
    .optional()
}

pub(super) fn list(
    connection: &mut Connection,
    name: &StoreName,
    prefix: &str,
    below: Option<Place>,
    size: u32,
) -> rusqlite::Result<Page> {
    // One instant for the page and the global version.
    let connection = connection.transaction()?;
    let Some((store, _)) = store(&connection, name)? else { return Ok(Page::default()) };
    let global = cached(&connection, "SELECT version FROM item WHERE store = ?1 AND key = ?2")?
        .query_row(params![store, GLOBAL_VERSION_KEY], |row| row.get(0))
        .optional()?;
    let mut page = Page { global_version: global.unwrap_or(0), ..Page::default() };
    if size == 0 {
        return Ok(page);
    }
    let (size, below) = (size as usize, below.unwrap_or(Place::MAX));
    // One more than fits tells whether there is a next page.
    let mut found = match few(&connection, store, prefix, below)? {
        Some(few) => few,
        None => by_place(&connection, store, prefix, below, size + 1)?,
    };
    let more = found.len() > size;
    found.truncate(size);
    page.next = found.last().map(|(place, ..)| *place).filter(|_| more);
    page.keys = found.into_iter().map(|(_, key, version)| (key, version)).collect();
    Ok(page)
}

type Listed = (Place, String, i64);

/// Keys with a prefix, newest first, where they are few; none where they are many.
fn few(
    connection: &Connection,
    store: i64,
    prefix: &str,
    below: Place,
) -> rusqlite::Result<Option<Vec<Listed>>> {
    let Some(end) = prefix_end(prefix) else { return Ok(None) };
    let mut places = cached(
        connection,
        "SELECT place FROM item WHERE store = ?1 AND key >= ?2 AND key < ?3 LIMIT ?4",
    )?
    .query_map(params![store, prefix, end, FEW + 1], |row| row.get(0))?
    .collect::<rusqlite::Result<Vec<Place>>>()?;
    if places.len() > FEW as usize {
        return Ok(None);
    }
    places.retain(|place| *place < below);
    places.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
    let mut row = cached(connection, "SELECT key, version FROM item WHERE place = ?1")?;
    let mut found = Vec::new();
    for place in places {
        let (key, version): (String, i64) =
            row.query_row([place], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if key != GLOBAL_VERSION_KEY {
            found.push((place, key, version));
        }
        if found.len() > super::super::limits::PAGE_MAX as usize {
            break;
        }
    }
    Ok(Some(found))
}

/// Keys with a prefix, newest first, by walking over all.
fn by_place(
    connection: &Connection,
    store: i64,
    prefix: &str,
    below: Place,
    size: usize,
) -> rusqlite::Result<Vec<Listed>> {
    let mut statement = cached(
        connection,
        "SELECT place, key, version FROM item WHERE store = ?1 AND place < ?2 ORDER BY place DESC",
    )?;
    let mut rows = statement.query(params![store, below])?;
    let mut found = Vec::new();
    while found.len() < size
        && let Some(row) = rows.next()?
    {
        let key = row.get_ref(1)?.as_str()?;
        if key.starts_with(prefix) && key != GLOBAL_VERSION_KEY {
            found.push((row.get(0)?, key.to_owned(), row.get(2)?));
        }
    }
    Ok(found)
}

pub(super) fn policy(connection: &Connection, name: &StoreName) -> rusqlite::Result<Policy> {
    Ok(store(connection, name)?.map(|(_, policy)| policy).unwrap_or_default())
}

pub(super) fn digest(connection: &mut Connection, name: &StoreName) -> rusqlite::Result<Digest> {
    let connection = connection.transaction()?;
    let (mut sum, mut count) = (Sum::default(), 0);
    let found = store(&connection, name)?;
    if let Some((store, _)) = found {
        let mut statement = cached(&connection, "SELECT tag FROM item WHERE store = ?1")?;
        let mut rows = statement.query([store])?;
        while let Some(row) = rows.next()? {
            sum.add(&row.get(0)?);
            count += 1;
        }
    }
    let policy = found.map(|(_, policy)| policy).unwrap_or_default();
    let Policy { generation, commit, .. } = policy;
    Ok(Digest { count, sum: sum.bytes(), generation, commit })
}

pub(super) fn commits(
    connection: &Connection,
    name: &StoreName,
    below: Option<u64>,
    size: u32,
) -> rusqlite::Result<Vec<Commit>> {
    let below = below.map_or(i64::MAX, |below| i64::try_from(below).unwrap_or(i64::MAX));
    let commit = |row: &Row<'_>| {
        Ok(Commit {
            commit: unsigned(row, 0)?,
            time: Time::from_nanos(row.get(1)?),
            puts: unsigned(row, 2)?,
            deletes: unsigned(row, 3)?,
            restored: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
        })
    };
    cached(
        connection,
        "SELECT number, at, puts, deletes, restored FROM commits
         WHERE store = (SELECT id FROM store WHERE user = ?1 AND name = ?2) AND number < ?3
         ORDER BY number DESC LIMIT ?4",
    )?
    .query_map(params![name.user, name.id, below, size], commit)?
    .collect()
}

/// The stores that keep history.
pub(super) fn keeping(connection: &mut Connection) -> rusqlite::Result<Vec<(i64, Keep)>> {
    let keep = |row: &Row<'_>| Ok((row.get(0)?, Keep { versions: row.get(1)?, days: row.get(2)? }));
    cached(
        connection,
        "SELECT id, keep_versions, keep_days FROM store
         WHERE keep_versions IS NOT NULL AND keep_days IS NOT NULL",
    )?
    .query_map([], keep)?
    .collect()
}

/// Old values that a store need not keep: their numbers, and the commit that replaced each.
pub(super) fn prunable(
    connection: &Connection,
    store: i64,
    keep: Keep,
    before: i64,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    cached(
        connection,
        "SELECT id, until FROM (
             SELECT id, until, at, row_number() OVER (PARTITION BY key ORDER BY until DESC) AS rank
             FROM old WHERE store = ?1)
         WHERE rank > ?2 AND at < ?3 ORDER BY until LIMIT ?4",
    )?
    .query_map(params![store, keep.versions, before, PRUNED_AT_ONCE], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?
    .collect()
}

pub(super) fn stats(connection: &mut Connection) -> rusqlite::Result<Stats> {
    let one = |sql: &str| -> rusqlite::Result<(u64, u64)> {
        connection.query_row(sql, [], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))
    };
    let (stores, _) = one("SELECT count(*), 0 FROM store")?;
    let (keys, bytes) = one("SELECT count(*), ifnull(sum(length(value)), 0) FROM item")?;
    let (old_values, old_bytes) = one("SELECT count(*), ifnull(sum(length(value)), 0) FROM old")?;
    Ok(Stats { stores, keys, bytes, old_values, old_bytes })
}

pub(super) fn stores(connection: &mut Connection, size: u32) -> rusqlite::Result<Vec<StoreStats>> {
    let stats = |row: &Row<'_>| {
        Ok(StoreStats {
            user: row.get(0)?,
            store: row.get(1)?,
            keys: unsigned(row, 2)?,
            bytes: unsigned(row, 3)?,
            old_values: unsigned(row, 4)?,
            policy: policy_of(row, 5)?,
        })
    };
    connection
        .prepare(
            "SELECT user, name,
                 (SELECT count(*) FROM item WHERE item.store = store.id),
                 (SELECT ifnull(sum(length(value)), 0) FROM item WHERE item.store = store.id),
                 (SELECT count(*) FROM old WHERE old.store = store.id),
                 fence, keep_versions, keep_days, generation, commits, oldest
             FROM store ORDER BY user, name LIMIT ?1",
        )?
        .query_map([size], stats)?
        .collect()
}
