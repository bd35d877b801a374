//! What is read: one statement, and so one instant, for each question.

use std::pin::pin;

use bytes::Bytes;
use deadpool_postgres::{Object, Pool};
use futures::TryStreamExt as _;
use highwater::Error;
use highwater::ids::Time;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};

use super::super::backend::{
    Commit, Digest, Found, Keep, Page, Place, Policy, Refusal, Stats, StoreName, StoreStats, Sum,
    prefix_end,
};
use super::super::limits::KEY_MAX;
use super::connect::LONG_MAX;
use super::failure::{failed, no_connection};

/// Where more keys than this have a prefix, a listing goes by place and skips the others: then they are
/// no more than so rare.
const FEW: i64 = 4000;

/// A policy's columns.
pub(super) const POLICY: &str =
    "s.fence, s.keep_versions, s.keep_days, s.generation, s.commit, s.oldest";

/// A connection that is free.
pub(super) async fn free(pool: &Pool) -> Result<Object, Refusal> {
    pool.get().await.map_err(no_connection)
}

/// Rows of a statement that is prepared once for each connection.
pub(super) async fn rows(
    pool: &Pool,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Refusal> {
    let connection = free(pool).await?;
    let statement = connection.prepare_cached(sql).await.map_err(failed)?;
    connection.query(&statement, parameters).await.map_err(failed)
}

/// A policy from six columns.
pub(super) fn policy_of(row: &Row, first: usize) -> Policy {
    let small = |column: usize| {
        row.get::<_, Option<i64>>(first + column)
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    };
    Policy {
        fence: row.get(first),
        history: small(1).zip(small(2)).map(|(versions, days)| Keep { versions, days }),
        generation: unsigned(row, first + 3),
        commit: unsigned(row, first + 4),
        oldest: unsigned(row, first + 5),
    }
}

pub(super) fn unsigned(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).cast_unsigned()
}

/// As PostgreSQL keeps it.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) async fn get(
    pool: &Pool,
    store: &StoreName,
    key: &str,
    most: usize,
) -> Result<Option<Found>, Refusal> {
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    let found = rows(
        pool,
        "SELECT i.version, octet_length(i.value),
             CASE WHEN octet_length(i.value) <= $4 THEN i.value END FROM vss.stores s JOIN vss.items i ON i.store = s.id AND i.key = $3
         WHERE s.user_name = $1 AND s.store_id = $2",
        &[&store.user, &store.id, &key, &most],
    )
    .await?;
    Ok(found.first().map(|row| Found {
        version: row.get(0),
        bytes: usize::try_from(row.get::<_, i32>(1)).unwrap_or_default(),
        value: row.get::<_, Option<&[u8]>>(2).map(Bytes::copy_from_slice),
    }))
}

/// All keys, newest first.
const ALL: &str = "
    WITH s AS (SELECT s.id FROM vss.stores s WHERE s.user_name = $1 AND s.store_id = $2)
    SELECT g.version, p.key, p.version, p.place
    FROM (SELECT 1) one
    LEFT JOIN (
        SELECT i.version FROM vss.items i
        WHERE i.store = (SELECT id FROM s) AND i.key = 'global_version') g ON true
    LEFT JOIN (
        SELECT i.key, i.version, i.place FROM vss.items i
        WHERE i.store = (SELECT id FROM s) AND i.place < $3 AND i.key <> 'global_version'
        ORDER BY i.place DESC LIMIT $4) p ON true
    ORDER BY p.place DESC";

/// Keys with a prefix, newest first. They are looked for by key; where they are many, by place. The
/// prefix is compared so that no index can serve it there: the one by place gives the order.
const PREFIX: &str = "
    WITH s AS (SELECT s.id FROM vss.stores s WHERE s.user_name = $1 AND s.store_id = $2),
    few AS MATERIALIZED (
        SELECT i.key, i.version, i.place FROM vss.items i
        WHERE i.store = (SELECT id FROM s) AND i.key >= $5 AND i.key < $6
        ORDER BY i.key LIMIT $7::bigint + 1),
    p AS (
        SELECT * FROM (
            SELECT f.key, f.version, f.place FROM few f
            WHERE (SELECT count(*) FROM few) <= $7 AND f.place < $3 AND f.key <> 'global_version'
            ORDER BY f.place DESC LIMIT $4) few
        UNION ALL
        SELECT * FROM (
            SELECT i.key, i.version, i.place FROM vss.items i
            WHERE (SELECT count(*) FROM few) > $7 AND i.store = (SELECT id FROM s) AND i.place < $3
                AND left(i.key, length($5)) = $5 AND i.key <> 'global_version'
            ORDER BY i.place DESC LIMIT $4) many)
    SELECT g.version, p.key, p.version, p.place
    FROM (SELECT 1) one
    LEFT JOIN (
        SELECT i.version FROM vss.items i
        WHERE i.store = (SELECT id FROM s) AND i.key = 'global_version') g ON true
    LEFT JOIN p ON true
    ORDER BY p.place DESC";

pub(super) async fn list(
    pool: &Pool,
    store: &StoreName,
    prefix: &str,
    below: Option<Place>,
    size: u32,
) -> Result<Page, Refusal> {
    // One more than fits tells whether there is a next page.
    let limit = if size == 0 { 0 } else { i64::from(size) + 1 };
    let below = below.unwrap_or(Place::MAX);
    let found = if prefix.is_empty() || limit == 0 {
        rows(pool, ALL, &[&store.user, &store.id, &below, &limit]).await?
    } else {
        // No key is above so many of the last character.
        let end = prefix_end(prefix).unwrap_or_else(|| char::MAX.to_string().repeat(KEY_MAX + 1));
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&store.user, &store.id, &below, &limit, &prefix, &end, &FEW];
        rows(pool, PREFIX, &parameters).await?
    };
    let global: Option<i64> = found.first().and_then(|row| row.get(0));
    let mut page = Page { global_version: global.unwrap_or(0), ..Page::default() };
    let mut last = None;
    for row in &found {
        let Some(key) = row.get::<_, Option<String>>(1) else { break };
        if page.keys.len() == size as usize {
            page.next = last;
            break;
        }
        page.keys.push((key, row.get(2)));
        last = Some(row.get(3));
    }
    Ok(page)
}

pub(super) async fn policy(pool: &Pool, store: &StoreName) -> Result<Policy, Refusal> {
    let sql =
        format!("SELECT {POLICY} FROM vss.stores s WHERE s.user_name = $1 AND s.store_id = $2");
    let found = rows(pool, &sql, &[&store.user, &store.id]).await?;
    Ok(found.first().map(|row| policy_of(row, 0)).unwrap_or_default())
}

/// Lets the statements of a transaction take long.
pub(super) async fn take_long(transaction: &Transaction<'_>) -> Result<(), Refusal> {
    let set = format!("SET LOCAL statement_timeout = {}", LONG_MAX.as_millis());
    transaction.batch_execute(&set).await.map_err(failed)
}

/// Rows of a question that goes over much.
pub(super) async fn long(
    pool: &Pool,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Refusal> {
    let mut connection = free(pool).await?;
    let transaction =
        connection.build_transaction().read_only(true).start().await.map_err(failed)?;
    take_long(&transaction).await?;
    let found = transaction.query(sql, parameters).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(found)
}

pub(super) async fn digest(pool: &Pool, store: &StoreName) -> Result<Digest, Refusal> {
    let mut connection = free(pool).await?;
    let transaction =
        connection.build_transaction().read_only(true).start().await.map_err(failed)?;
    take_long(&transaction).await?;
    // One statement, so that all is of one instant; the row of the store comes with each tag, and once
    // where there is none.
    let tags = transaction
        .query_raw(
            "SELECT s.generation, s.commit, i.tag
             FROM vss.stores s LEFT JOIN vss.items i ON i.store = s.id
             WHERE s.user_name = $1 AND s.store_id = $2",
            [&store.user, &store.id],
        )
        .await
        .map_err(failed)?;
    let mut tags = pin!(tags);
    let (mut sum, mut count, mut policy) = (Sum::default(), 0, Policy::default());
    while let Some(row) = tags.try_next().await.map_err(failed)? {
        (policy.generation, policy.commit) = (unsigned(&row, 0), unsigned(&row, 1));
        if let Some(tag) = row.get::<_, Option<&[u8]>>(2) {
            let tag = tag
                .try_into()
                .map_err(|_| Refusal::Failed(Error::corrupt("a tag is not 32 bytes long")))?;
            sum.add(tag);
            count += 1;
        }
    }
    let Policy { generation, commit, .. } = policy;
    Ok(Digest { count, sum: sum.bytes(), generation, commit })
}

pub(super) async fn commits(
    pool: &Pool,
    store: &StoreName,
    below: Option<u64>,
    size: u32,
) -> Result<Vec<Commit>, Refusal> {
    let found = rows(
        pool,
        "SELECT c.number, c.at, c.puts, c.deletes, c.restored
         FROM vss.stores s JOIN vss.commits c ON c.store = s.id
         WHERE s.user_name = $1 AND s.store_id = $2 AND c.number < $3
         ORDER BY c.number DESC LIMIT $4",
        &[&store.user, &store.id, &below.map_or(i64::MAX, number), &i64::from(size)],
    )
    .await?;
    let commit = |row: &Row| Commit {
        commit: unsigned(row, 0),
        time: Time::from_nanos(row.get(1)),
        puts: unsigned(row, 2),
        deletes: unsigned(row, 3),
        restored: row.get::<_, Option<i64>>(4).map(i64::cast_unsigned),
    };
    Ok(found.iter().map(commit).collect())
}

pub(super) async fn stats(pool: &Pool) -> Result<Stats, Refusal> {
    let found = long(
        pool,
        "SELECT (SELECT count(*) FROM vss.stores), i.*, o.*
         FROM (SELECT count(*), coalesce(sum(length(value)), 0)::bigint FROM vss.items) i,
             (SELECT count(*), coalesce(sum(length(value)), 0)::bigint FROM vss.old_values) o",
        &[],
    )
    .await?;
    let of = |row: &Row| Stats {
        stores: unsigned(row, 0),
        keys: unsigned(row, 1),
        bytes: unsigned(row, 2),
        old_values: unsigned(row, 3),
        old_bytes: unsigned(row, 4),
    };
    Ok(found.first().map(of).unwrap_or_default())
}

pub(super) async fn stores(pool: &Pool, size: u32) -> Result<Vec<StoreStats>, Refusal> {
    let sql = format!(
        "SELECT s.user_name, s.store_id, i.keys, i.bytes, o.keys, {POLICY}
         FROM (SELECT * FROM vss.stores ORDER BY user_name, store_id LIMIT $1) s
         CROSS JOIN LATERAL (
             SELECT count(*) AS keys, coalesce(sum(length(i.value)), 0)::bigint AS bytes
             FROM vss.items i WHERE i.store = s.id) i
         CROSS JOIN LATERAL (
             SELECT count(*) AS keys FROM vss.old_values o WHERE o.store = s.id) o
         ORDER BY s.user_name, s.store_id"
    );
    let found = long(pool, &sql, &[&i64::from(size)]).await?;
    let of = |row: &Row| StoreStats {
        user: row.get(0),
        store: row.get(1),
        keys: unsigned(row, 2),
        bytes: unsigned(row, 3),
        old_values: unsigned(row, 4),
        policy: policy_of(row, 5),
    };
    Ok(found.iter().map(of).collect())
}

pub(super) async fn ready(pool: &Pool) -> Result<(), Refusal> {
    let found = rows(pool, "SELECT current_setting('transaction_read_only')::boolean", &[]).await?;
    match found.first().map(|row| row.get(0)) {
        Some(false) => Ok(()),
        _ => Err(Refusal::Failed(
            Error::unavailable("PostgreSQL takes no writes: it is a standby, or read-only")
                .with_remedy("name the primary in the URL"),
        )),
    }
}
