//! How much users may keep, and what they do.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::backend::{Refusal, Sizes, StoreName};
use super::super::quota::{Quota, Usage, UserStats};
use super::write::Batch;
use super::{cached, failed, read};

/// The user's own quota, or everybody's.
pub(super) fn get(connection: &Connection, user: &str) -> rusqlite::Result<Quota> {
    let sql = "SELECT bytes, keys, stores FROM quota
        WHERE everybody = 0 AND user = ?1 OR everybody = 1 ORDER BY everybody LIMIT 1";
    let found = cached(connection, sql)?.query_row([user], quota).optional()?;
    Ok(found.unwrap_or_default())
}

pub(super) fn everybody(connection: &Connection) -> rusqlite::Result<Quota> {
    let sql = "SELECT bytes, keys, stores FROM quota WHERE everybody = 1";
    Ok(cached(connection, sql)?.query_row([], quota).optional()?.unwrap_or_default())
}

fn quota(row: &Row<'_>) -> rusqlite::Result<Quota> {
    let number = |column: usize| {
        let number: Option<i64> = row.get(column)?;
        Ok::<_, rusqlite::Error>(number.map(i64::cast_unsigned))
    };
    Ok(Quota { bytes: number(0)?, keys: number(1)?, stores: number(2)? })
}

/// Counts without reading a value: its length stands before it.
pub(super) fn usage(connection: &mut Connection, user: &str) -> rusqlite::Result<Usage> {
    let connection = connection.transaction()?;
    let mut stores = cached(&connection, "SELECT id FROM store WHERE user = ?1")?;
    let ids = stores.query_map([user], |row| row.get(0))?;
    let mut usage = Usage::default();
    for id in ids {
        let id: i64 = id?;
        let ((keys, bytes), (_, old)) =
            (count(&connection, "item", id)?, count(&connection, "old", id)?);
        usage.stores += 1;
        usage.keys += keys;
        usage.bytes += bytes + old;
    }
    Ok(usage)
}

/// Rows of a store, and bytes of their keys and values.
fn count(connection: &Connection, table: &str, store: i64) -> rusqlite::Result<(u64, u64)> {
    let sql = format!(
        "SELECT count(*), ifnull(sum(octet_length(key) + length(value)), 0) FROM {table}
         WHERE store = ?1"
    );
    let row = |row: &Row<'_>| Ok((read::unsigned(row, 0)?, read::unsigned(row, 1)?));
    cached(connection, &sql)?.query_row([store], row)
}

pub(super) fn sizes(
    connection: &mut Connection,
    store: &StoreName,
    keys: &[String],
) -> rusqlite::Result<Sizes> {
    let connection = connection.transaction()?;
    let Some((id, policy)) = read::store(&connection, store)? else {
        return Ok(Sizes { values: vec![None; keys.len()], ..Sizes::default() });
    };
    let sql = "SELECT length(value) FROM item WHERE store = ?1 AND key = ?2";
    let mut size = cached(&connection, sql)?;
    let values = keys
        .iter()
        .map(|key| size.query_row(params![id, key], |row| read::unsigned(row, 0)).optional())
        .collect::<rusqlite::Result<_>>()?;
    Ok(Sizes { is_there: true, keeps: policy.history.is_some(), values })
}

pub(super) fn users(connection: &mut Connection, size: u32) -> rusqlite::Result<Vec<UserStats>> {
    let names: Vec<String> = connection
        .prepare(
            "SELECT user FROM store UNION SELECT user FROM quota WHERE everybody = 0
             ORDER BY 1 LIMIT ?1",
        )?
        .query_map([size], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut stats = Vec::new();
    for user in names {
        let (usage, quota) = (usage(connection, &user)?, get(connection, &user)?);
        stats.push(UserStats { user, usage, quota });
    }
    Ok(stats)
}

impl Batch<'_> {
    pub(super) fn set_quota(
        &mut self,
        user: Option<&str>,
        quota: Option<Quota>,
    ) -> Result<(), Refusal> {
        let (everybody, user) = (user.is_none(), user.unwrap_or_default());
        let number = |most: Option<u64>| most.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
        let done = match quota {
            None => cached(self.connection, "DELETE FROM quota WHERE everybody = ?1 AND user = ?2")
                .and_then(|mut delete| delete.execute(params![everybody, user])),
            Some(Quota { bytes, keys, stores }) => cached(
                self.connection,
                "INSERT OR REPLACE INTO quota (everybody, user, bytes, keys, stores)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .and_then(|mut insert| {
                let row = params![everybody, user, number(bytes), number(keys), number(stores)];
                insert.execute(row)
            }),
        };
        done.map(drop).map_err(failed)
    }
}
