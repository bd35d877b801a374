//! What a store was: old values, commits, and the way back to one.

use rusqlite::params;

use super::super::backend::{Change, Policy, Refusal, Restored, StoreName};
use super::super::plan::tag;
use super::write::Batch;
use super::{cached, failed};

impl Batch<'_> {
    /// The number of the next commit, where they are counted.
    pub(super) fn begin(&self, policy: Policy) -> Option<i64> {
        policy.history.map(|_| number(policy.commit + 1))
    }

    /// Keeps the value at a place, which `commit` replaces.
    pub(super) fn keep(&self, commit: Option<i64>, place: i64) -> Result<(), Refusal> {
        let Some(commit) = commit else { return Ok(()) };
        cached(
            self.connection,
            "INSERT INTO old (store, since, until, at, version, tag, key, value)
             SELECT store, since, ?2, ?3, version, tag, key, value FROM item WHERE place = ?1",
        )
        .and_then(|mut keep| keep.execute(params![place, commit, self.now.as_nanos()]))
        .map(drop)
        .map_err(failed)
    }

    /// Records a commit.
    pub(super) fn end(
        &mut self,
        name: &StoreName,
        id: i64,
        policy: Policy,
        commit: Option<i64>,
        (puts, deletes): (u64, u64),
        restored: Option<u64>,
    ) -> Result<(), Refusal> {
        let Some(commit) = commit else { return Ok(()) };
        let (puts, deletes) = (number(puts), number(deletes));
        let row = params![id, commit, self.now.as_nanos(), puts, deletes, restored.map(number)];
        cached(
            self.connection,
            "INSERT INTO commits (store, number, at, puts, deletes, restored)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| insert.execute(row))
        .map_err(failed)?;
        self.set(name, id, Policy { commit: commit.cast_unsigned(), ..policy })
    }

    /// Writes what holds for a store.
    fn set(&mut self, name: &StoreName, id: i64, policy: Policy) -> Result<(), Refusal> {
        let Policy { fence, history, generation, commit, oldest } = policy;
        let (versions, days) = (history.map(|keep| keep.versions), history.map(|keep| keep.days));
        let numbers = (number(generation), number(commit), number(oldest));
        cached(
            self.connection,
            "UPDATE store SET fence = ?2, keep_versions = ?3, keep_days = ?4, generation = ?5,
                 commits = ?6, oldest = ?7
             WHERE id = ?1",
        )
        .and_then(|mut update| {
            update.execute(params![id, fence, versions, days, numbers.0, numbers.1, numbers.2])
        })
        .map_err(failed)?;
        self.remember(name, id, policy);
        Ok(())
    }

    pub(super) fn change(&mut self, name: &StoreName, change: Change) -> Result<Policy, Refusal> {
        let (id, mut policy) = self.store(name)?;
        policy.fence = change.fence.unwrap_or(policy.fence);
        let history = change.history.unwrap_or(policy.history);
        if history.is_some() == policy.history.is_some() {
            policy.history = history;
            self.set(name, id, policy)?;
            return Ok(policy);
        }
        for table in ["old", "commits"] {
            cached(self.connection, &format!("DELETE FROM {table} WHERE store = ?1"))
                .and_then(|mut delete| delete.execute([id]))
                .map_err(failed)?;
        }
        policy.history = history;
        policy.oldest = policy.commit;
        if history.is_some() {
            // What is there now is what the first commit holds.
            policy.oldest += 1;
            self.end(name, id, policy, Some(number(policy.oldest)), (0, 0), None)?;
            policy.commit = policy.oldest;
        } else {
            self.set(name, id, policy)?;
        }
        Ok(policy)
    }

    pub(super) fn restore(&mut self, name: &StoreName, to: u64) -> Result<Restored, Refusal> {
        let missing = |why: &str| Refusal::Conflict(why.to_owned());
        let (id, mut policy) =
            self.found(name)?.ok_or_else(|| missing("there is no such store"))?;
        if policy.history.is_none() {
            return Err(missing("this store keeps no history"));
        }
        if to < policy.oldest || to > policy.commit {
            return Err(Refusal::Conflict(format!(
                "commit {to} is not kept: from {} to {} they are",
                policy.oldest, policy.commit
            )));
        }
        policy.generation += 1;
        let commit = Some(number(policy.commit + 1));
        // Above each version that a client can remember, unless a key was written four billion times.
        let floor = number(policy.generation << 32 | 1);
        let (mut puts, mut deletes) = (0, 0);
        for key in self.keys(id, to)? {
            let now = self.now_of(id, &key)?;
            match self.value_at(id, &key, to)? {
                Some(value) => {
                    let version = now.map_or(floor, |(_, version)| floor.max(version + 1));
                    let tag = tag(&key, version, &value);
                    let place = now.map(|(place, _)| place);
                    self.write(id, commit, place, (&key, version, &tag, &value))?;
                    puts += 1;
                }
                None => {
                    if let Some((place, _)) = now {
                        self.remove(commit, place)?;
                        deletes += 1;
                    }
                }
            }
        }
        self.end(name, id, policy, commit, (puts, deletes), Some(to))?;
        let Policy { generation, commit, .. } = policy;
        Ok(Restored { commit: commit + 1, generation, puts, deletes })
    }

    /// All keys that are there, or were at a commit; those that were made earlier first, so that they keep
    /// their order where they have to be made again.
    fn keys(&self, store: i64, at: u64) -> Result<Vec<String>, Refusal> {
        let keys = || {
            cached(
                self.connection,
                "SELECT key, min(first) FROM (
                     SELECT key, place AS first FROM item WHERE store = ?1
                     UNION ALL
                     SELECT key, 9223372036854775807 FROM old
                     WHERE store = ?1 AND since <= ?2 AND until > ?2)
                 GROUP BY key ORDER BY 2, 1",
            )?
            .query_map(params![store, number(at)], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<String>>>()
        };
        keys().map_err(failed)
    }

    /// Place and version of a key that is there.
    fn now_of(&self, store: i64, key: &str) -> Result<Option<(i64, i64)>, Refusal> {
        one(cached(
            self.connection,
            "SELECT place, version FROM item WHERE store = ?1 AND key = ?2",
        )
        .and_then(|mut now| {
            now.query_row(params![store, key], |row| Ok((row.get(0)?, row.get(1)?)))
        }))
    }

    /// What a key held at a commit.
    fn value_at(&self, store: i64, key: &str, at: u64) -> Result<Option<Vec<u8>>, Refusal> {
        one(cached(
            self.connection,
            "SELECT value FROM item WHERE store = ?1 AND key = ?2 AND since <= ?3
             UNION ALL
             SELECT value FROM old WHERE store = ?1 AND key = ?2 AND since <= ?3 AND until > ?3",
        )
        .and_then(|mut value| value.query_row(params![store, key, number(at)], |row| row.get(0))))
    }

    /// Deletes old values, and the commits that can't be restored without them.
    pub(super) fn prune(&mut self, store: i64, old: &[(i64, i64)]) -> Result<(), Refusal> {
        for (value, until) in old {
            // They were read a moment ago: history may have ended and begun since, and a number be that
            // of another one, but then of a later commit.
            cached(self.connection, "DELETE FROM old WHERE id = ?1 AND store = ?2 AND until = ?3")
                .and_then(|mut delete| delete.execute([*value, store, *until]))
                .map_err(failed)?;
        }
        let oldest = old.iter().map(|(_, until)| *until).max().unwrap_or(0);
        for sql in [
            "UPDATE store SET oldest = max(oldest, ?2) WHERE id = ?1",
            "DELETE FROM commits WHERE store = ?1 AND number < ?2",
        ] {
            cached(self.connection, sql)
                .and_then(|mut step| step.execute([store, oldest]))
                .map_err(failed)?;
        }
        self.forget();
        Ok(())
    }
}

/// A row that may be missing.
fn one<T>(found: rusqlite::Result<T>) -> Result<Option<T>, Refusal> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// As SQLite keeps it.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
