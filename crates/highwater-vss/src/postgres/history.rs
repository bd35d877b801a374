//! What a store was: policies, old values, commits, and the way back to one.

use deadpool_postgres::{Pool, Transaction};
use highwater::ids::Time;
use highwater::{Env, Error};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::backend::{Change, Keep, Policy, Refusal, Restored, StoreName};
use super::super::plan::tag;
use super::failure::failed;
use super::read::{POLICY, free, number, policy_of, take_long};
use super::schema::LOCKS;
use super::write::bucket;

/// A restore holds at most the values of this many keys in memory.
const CHUNK_KEYS: i64 = 1000;
/// It holds at most this many bytes in memory, unless one value has more.
const CHUNK_BYTES: i64 = 8 << 20;
/// Old values that one step of a prune deletes.
const PRUNED_AT_ONCE: i64 = 5000;

/// A store's number and what holds for it, held until the transaction ends.
async fn hold(
    transaction: &Transaction<'_>,
    store: &StoreName,
) -> Result<Option<(i64, Policy)>, Refusal> {
    let sql = format!(
        "SELECT s.id, {POLICY} FROM vss.stores s WHERE s.user_name = $1 AND s.store_id = $2 FOR UPDATE"
    );
    let found = transaction.query_opt(&sql, &[&store.user, &store.id]).await.map_err(failed)?;
    Ok(found.map(|row| (row.get(0), policy_of(&row, 1))))
}

/// Writes what holds for a store.
async fn set(transaction: &Transaction<'_>, id: i64, policy: Policy) -> Result<(), Refusal> {
    let Policy { fence, history, generation, commit, oldest } = policy;
    let (versions, days) =
        (history.map(|keep| i64::from(keep.versions)), history.map(|keep| i64::from(keep.days)));
    transaction
        .execute(
            "UPDATE vss.stores SET fence = $2, keep_versions = $3, keep_days = $4, generation = $5,
                 commit = $6, oldest = $7
             WHERE id = $1",
            &[&id, &fence, &versions, &days, &number(generation), &number(commit), &number(oldest)],
        )
        .await
        .map(drop)
        .map_err(failed)
}

/// Records a commit.
async fn record(
    transaction: &Transaction<'_>,
    id: i64,
    commit: u64,
    now: Time,
    (puts, deletes): (u64, u64),
    restored: Option<u64>,
) -> Result<(), Refusal> {
    transaction
        .execute(
            "INSERT INTO vss.commits (store, number, at, puts, deletes, restored)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                &id,
                &number(commit),
                &now.as_nanos(),
                &number(puts),
                &number(deletes),
                &restored.map(number),
            ],
        )
        .await
        .map(drop)
        .map_err(failed)
}

pub(super) async fn change(
    pool: &Pool,
    store: &StoreName,
    change: Change,
    env: &Env,
) -> Result<Policy, Refusal> {
    let mut connection = free(pool).await?;
    let transaction = connection.transaction().await.map_err(failed)?;
    take_long(&transaction).await?;
    // Waits for all writes that have read the old policy, and keeps others from reading it.
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, $2)", &[&LOCKS, &bucket(store)])
        .await
        .map_err(failed)?;
    transaction
        .execute(
            "INSERT INTO vss.stores (user_name, store_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&store.user, &store.id],
        )
        .await
        .map_err(failed)?;
    let (id, mut policy) = hold(&transaction, store)
        .await?
        .ok_or_else(|| Refusal::Failed(Error::bug("a store that was made is not there")))?;
    policy.fence = change.fence.unwrap_or(policy.fence);
    let history = change.history.unwrap_or(policy.history);
    if history.is_some() != policy.history.is_some() {
        for table in ["old_values", "commits"] {
            let sql = format!("DELETE FROM vss.{table} WHERE store = $1");
            transaction.execute(&sql, &[&id]).await.map_err(failed)?;
        }
        if history.is_some() {
            // What is there now is what the first commit holds.
            policy.commit += 1;
            record(&transaction, id, policy.commit, env.now(), (0, 0), None).await?;
        }
        policy.oldest = policy.commit;
    }
    policy.history = history;
    set(&transaction, id, policy).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(policy)
}

/// Brings a commit back, some keys at a time: what it holds stays the same while that is written.
pub(super) async fn restore(
    pool: &Pool,
    store: &StoreName,
    to: u64,
    env: &Env,
) -> Result<Restored, Refusal> {
    let conflict = |why: String| Refusal::Conflict(why);
    let mut connection = free(pool).await?;
    let transaction = connection.transaction().await.map_err(failed)?;
    take_long(&transaction).await?;
    // Every write of a store with history waits for its row.
    let (id, mut policy) = hold(&transaction, store)
        .await?
        .ok_or_else(|| conflict("there is no such store".to_owned()))?;
    if policy.history.is_none() {
        return Err(conflict("this store keeps no history".to_owned()));
    }
    if to < policy.oldest || to > policy.commit {
        return Err(conflict(format!(
            "commit {to} is not kept: from {} to {} they are",
            policy.oldest, policy.commit
        )));
    }
    policy.generation += 1;
    policy.commit += 1;
    let now = env.now();
    let back = Back {
        transaction: &transaction,
        id,
        to: number(to),
        commit: number(policy.commit),
        // Above each version that a client can remember, unless a key was written four billion times.
        floor: number(policy.generation << 32 | 1),
        now: now.as_nanos(),
    };
    let puts = back.put_all().await?;
    let deletes = back.delete_others().await?;
    record(&transaction, id, policy.commit, now, (puts, deletes), Some(to)).await?;
    set(&transaction, id, policy).await?;
    transaction.commit().await.map_err(failed)?;
    let Policy { generation, commit, .. } = policy;
    Ok(Restored { commit, generation, puts, deletes })
}

/// A restore under way.
struct Back<'a> {
    transaction: &'a Transaction<'a>,
    id: i64,
    to: i64,
    commit: i64,
    floor: i64,
    now: i64,
}

impl Back<'_> {
    /// Writes all that the commit holds; how many keys.
    async fn put_all(&self) -> Result<u64, Refusal> {
        let (mut last, mut puts): (Option<String>, u64) = (None, 0);
        loop {
            let values = self.after(last.as_deref()).await?;
            let Some(row) = values.last() else { return Ok(puts) };
            last = Some(row.get(0));
            puts += values.len() as u64;
            self.put(&values).await?;
        }
    }

    /// Some of what the commit holds, in the order of keys: key, value, the version that is there now.
    async fn after(&self, last: Option<&str>) -> Result<Vec<Row>, Refusal> {
        // Two statements: an index serves neither of these where one says both.
        let after = if last.is_some() { "key > $3" } else { "key >= $3" };
        let sql = format!(
            "WITH held AS MATERIALIZED (
                 (SELECT key, true AS now, 0::bigint AS until, length(value) AS bytes
                 FROM vss.items WHERE store = $1 AND since <= $2 AND {after}
                 ORDER BY key LIMIT $4)
                 UNION ALL
                 (SELECT key, false, until, length(value) FROM vss.old_values
                 WHERE store = $1 AND since <= $2 AND until > $2 AND {after}
                 ORDER BY key LIMIT $4)),
             chunk AS (
                 SELECT key, now, until, sum(bytes) OVER (ORDER BY key) - bytes AS before
                 FROM held ORDER BY key LIMIT $4)
             SELECT s.key, CASE WHEN s.now THEN i.value ELSE o.value END, i.version
             FROM chunk s
             LEFT JOIN vss.items i ON i.store = $1 AND i.key = s.key
             LEFT JOIN vss.old_values o
                 ON NOT s.now AND o.store = $1 AND o.key = s.key AND o.until = s.until
             WHERE s.before < $5
             ORDER BY s.key"
        );
        let last = last.unwrap_or_default();
        let statement = self.transaction.prepare_cached(&sql).await.map_err(failed)?;
        self.transaction
            .query(&statement, &[&self.id, &self.to, &last, &CHUNK_KEYS, &CHUNK_BYTES])
            .await
            .map_err(failed)
    }

    /// Writes some values over what is there.
    async fn put(&self, values: &[Row]) -> Result<(), Refusal> {
        let keys: Vec<&str> = values.iter().map(|row| row.get(0)).collect();
        let contents: Vec<&[u8]> = values.iter().map(|row| row.get(1)).collect();
        let version = |row: &Row| {
            row.get::<_, Option<i64>>(2).map_or(self.floor, |now| self.floor.max(now + 1))
        };
        let versions: Vec<i64> = values.iter().map(version).collect();
        let tags: Vec<[u8; 32]> = keys
            .iter()
            .zip(&versions)
            .zip(&contents)
            .map(|((key, version), content)| tag(key, *version, content))
            .collect();
        let tags: Vec<&[u8]> = tags.iter().map(<[u8; 32]>::as_slice).collect();
        self.keep("i.key = ANY ($4)", &[&keys]).await?;
        let statement = self
            .transaction
            .prepare_cached(
                "INSERT INTO vss.items AS i (store, key, version, place, since, tag, value)
                 SELECT $1, r.key, r.version, nextval('vss.places') * 1024, $2, r.tag, r.content
                 FROM (
                     SELECT * FROM unnest($3::text[], $4::bigint[], $5::bytea[], $6::bytea[])
                         WITH ORDINALITY AS r (key, version, tag, content, n)
                     ORDER BY n) r
                 ON CONFLICT (store, key) DO UPDATE
                 SET version = excluded.version, since = excluded.since, tag = excluded.tag,
                     value = excluded.value",
            )
            .await
            .map_err(failed)?;
        self.transaction
            .execute(&statement, &[&self.id, &self.commit, &keys, &versions, &tags, &contents])
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Deletes what the commit does not hold: all that was not written; how many keys.
    async fn delete_others(&self) -> Result<u64, Refusal> {
        self.keep("i.since < $2", &[]).await?;
        self.transaction
            .execute(
                "DELETE FROM vss.items WHERE store = $1 AND since < $2",
                &[&self.id, &self.commit],
            )
            .await
            .map_err(failed)
    }

    /// Keeps the values that this commit replaces.
    async fn keep(&self, which: &str, more: &[&(dyn ToSql + Sync)]) -> Result<(), Refusal> {
        let sql = format!(
            "INSERT INTO vss.old_values (store, key, since, until, at, version, tag, value)
             SELECT i.store, i.key, i.since, $2, $3, i.version, i.tag, i.value
             FROM vss.items i WHERE i.store = $1 AND {which}"
        );
        let statement = self.transaction.prepare_cached(&sql).await.map_err(failed)?;
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&self.id, &self.commit, &self.now];
        parameters.extend(more);
        self.transaction.execute(&statement, &parameters).await.map(drop).map_err(failed)
    }
}

/// Deletes old values that no policy keeps; how many.
pub(super) async fn prune(pool: &Pool, env: &Env) -> Result<u64, Refusal> {
    let stores = {
        let connection = free(pool).await?;
        let sql = "SELECT id FROM vss.stores WHERE keep_versions IS NOT NULL ORDER BY id";
        connection.query(sql, &[]).await.map_err(failed)?
    };
    let mut pruned = 0;
    for row in stores {
        while let step @ 1.. = prune_some(pool, row.get(0), env).await? {
            pruned += step;
        }
    }
    Ok(pruned)
}

/// One step: the oldest of those that a store need not keep. A commit that can't be restored without them
/// goes with them, in one transaction.
async fn prune_some(pool: &Pool, id: i64, env: &Env) -> Result<u64, Refusal> {
    let mut connection = free(pool).await?;
    let transaction = connection.transaction().await.map_err(failed)?;
    take_long(&transaction).await?;
    let held = transaction
        .query_opt(
            "SELECT keep_versions, keep_days FROM vss.stores
             WHERE id = $1 AND keep_versions IS NOT NULL FOR UPDATE",
            &[&id],
        )
        .await
        .map_err(failed)?;
    let Some(held) = held else { return Ok(0) };
    let small = |column| u32::try_from(held.get::<_, i64>(column)).unwrap_or(u32::MAX);
    let keep = Keep { versions: small(0), days: small(1) };
    let kept = i64::try_from(keep.time().as_nanos()).unwrap_or(i64::MAX);
    let before = env.now().as_nanos().saturating_sub(kept);
    let row = transaction
        .query_one(
            "WITH gone AS (
                 SELECT o.key, o.until FROM (
                     SELECT key, until, at,
                         row_number() OVER (PARTITION BY key ORDER BY until DESC) AS rank
                     FROM vss.old_values WHERE store = $1) o
                 WHERE o.rank > $2 AND o.at < $3 ORDER BY o.until LIMIT $4),
             deleted AS (
                 DELETE FROM vss.old_values o USING gone
                 WHERE o.store = $1 AND o.key = gone.key AND o.until = gone.until
                 RETURNING o.until)
             SELECT count(*), coalesce(max(until), 0) FROM deleted",
            &[&id, &i64::from(keep.versions), &before, &PRUNED_AT_ONCE],
        )
        .await
        .map_err(failed)?;
    let (deleted, oldest): (i64, i64) = (row.get(0), row.get(1));
    if deleted > 0 {
        for sql in [
            "UPDATE vss.stores SET oldest = greatest(oldest, $2) WHERE id = $1",
            "DELETE FROM vss.commits WHERE store = $1 AND number < $2",
        ] {
            transaction.execute(sql, &[&id, &oldest]).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
    }
    Ok(deleted.cast_unsigned())
}
