//! How much users may keep, and what they do.

use std::collections::HashMap;

use deadpool_postgres::Pool;
use tokio_postgres::Row;

use super::super::backend::{Refusal, Sizes, StoreName};
use super::super::quota::{Quota, Usage, UserStats};
use super::failure::failed;
use super::read::{free, long, number, rows, unsigned};

/// The user's own quota, or everybody's.
pub(super) async fn get(pool: &Pool, user: &str) -> Result<Quota, Refusal> {
    let found = rows(
        pool,
        "SELECT q.bytes, q.keys, q.stores FROM vss.quotas q
         WHERE NOT q.everybody AND q.user_name = $1 OR q.everybody ORDER BY q.everybody LIMIT 1",
        &[&user],
    )
    .await?;
    Ok(found.first().map(quota).unwrap_or_default())
}

pub(super) async fn everybody(pool: &Pool) -> Result<Quota, Refusal> {
    let sql = "SELECT bytes, keys, stores FROM vss.quotas WHERE everybody";
    let found = rows(pool, sql, &[]).await?;
    Ok(found.first().map(quota).unwrap_or_default())
}

fn quota(row: &Row) -> Quota {
    let number = |column: usize| row.get::<_, Option<i64>>(column).map(i64::cast_unsigned);
    Quota { bytes: number(0), keys: number(1), stores: number(2) }
}

pub(super) async fn set(
    pool: &Pool,
    user: Option<&str>,
    quota: Option<Quota>,
) -> Result<(), Refusal> {
    let connection = free(pool).await?;
    let (everybody, user) = (user.is_none(), user.unwrap_or_default());
    let done = match quota {
        None => {
            let sql = "DELETE FROM vss.quotas WHERE everybody = $1 AND user_name = $2";
            connection.execute(sql, &[&everybody, &user]).await
        }
        Some(Quota { bytes, keys, stores }) => {
            let sql = "INSERT INTO vss.quotas VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (everybody, user_name)
                DO UPDATE SET bytes = $3, keys = $4, stores = $5";
            let [bytes, keys, stores] = [bytes, keys, stores].map(|most| most.map(number));
            connection.execute(sql, &[&everybody, &user, &bytes, &keys, &stores]).await
        }
    };
    done.map(drop).map_err(failed)
}

/// Counts of each store of some users.
const COUNTS: &str = "
    SELECT s.user_name, i.keys, i.bytes + o.bytes
    FROM vss.stores s
    CROSS JOIN LATERAL (
        SELECT count(*) AS keys,
            coalesce(sum(octet_length(i.key) + octet_length(i.value)), 0)::bigint AS bytes
        FROM vss.items i WHERE i.store = s.id) i
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(octet_length(o.key) + octet_length(o.value)), 0)::bigint AS bytes
        FROM vss.old_values o WHERE o.store = s.id) o
    WHERE s.user_name = ANY ($1)";

pub(super) async fn usage(pool: &Pool, user: &str) -> Result<Usage, Refusal> {
    let counted = count(pool, &[user]).await?;
    Ok(counted.into_values().next().unwrap_or_default())
}

async fn count(pool: &Pool, users: &[&str]) -> Result<HashMap<String, Usage>, Refusal> {
    let mut counted: HashMap<String, Usage> = HashMap::new();
    for row in long(pool, COUNTS, &[&users]).await? {
        let usage = counted.entry(row.get(0)).or_default();
        usage.stores += 1;
        usage.keys += unsigned(&row, 1);
        usage.bytes += unsigned(&row, 2);
    }
    Ok(counted)
}

pub(super) async fn sizes(
    pool: &Pool,
    store: &StoreName,
    keys: &[String],
) -> Result<Sizes, Refusal> {
    let found = rows(
        pool,
        "SELECT s.keep_versions IS NOT NULL, octet_length(i.value)
         FROM vss.stores s
         LEFT JOIN unnest($3::text[]) WITH ORDINALITY AS k (key, n) ON true
         LEFT JOIN vss.items i ON i.store = s.id AND i.key = k.key
         WHERE s.user_name = $1 AND s.store_id = $2 ORDER BY k.n",
        &[&store.user, &store.id, &keys],
    )
    .await?;
    let Some(first) = found.first() else {
        return Ok(Sizes { values: vec![None; keys.len()], ..Sizes::default() });
    };
    let size = |row: &Row| row.get::<_, Option<i32>>(1).and_then(|size| u64::try_from(size).ok());
    // Without keys the store is a row of its own.
    let values = found.iter().take(keys.len()).map(size).collect();
    Ok(Sizes { is_there: true, keeps: first.get(0), values })
}

pub(super) async fn users(pool: &Pool, size: u32) -> Result<Vec<UserStats>, Refusal> {
    let found = rows(
        pool,
        "SELECT user_name FROM vss.stores
         UNION SELECT user_name FROM vss.quotas WHERE NOT everybody ORDER BY 1 LIMIT $1",
        &[&i64::from(size)],
    )
    .await?;
    let names: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut counted = count(pool, &asked).await?;
    let mut stats = Vec::new();
    for user in names {
        let (usage, quota) = (counted.remove(&user).unwrap_or_default(), get(pool, &user).await?);
        stats.push(UserStats { user, usage, quota });
    }
    Ok(stats)
}
