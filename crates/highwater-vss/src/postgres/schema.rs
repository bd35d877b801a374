//! The tables: made, or brought to this program's version, at every start.

use highwater::{Error, Result};
use tokio_postgres::Client;

use super::failure::failure;

/// What brings the tables from each version to the next.
const STEPS: &[&str] = &[include_str!("1.sql"), include_str!("2.sql"), include_str!("3.sql")];
/// The class of this program's advisory locks; it stands in the SQL as well.
pub(super) const LOCKS: i32 = 1_215_714_131;
/// The lock of whoever changes tables. Those of stores are not below 0.
const MIGRATION: i32 = -1;

/// Makes the tables, or brings them up to date. Several processes may do so at once.
///
/// # Errors
/// Conflict where a newer program made them; denied where the user may not.
pub(super) async fn migrate(client: &mut Client) -> Result<()> {
    let told = |error| failure(&error);
    let transaction = client.transaction().await.map_err(told)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, $2)", &[&LOCKS, &MIGRATION])
        .await
        .map_err(told)?;
    let there: bool = transaction
        .query_one("SELECT to_regclass('vss.schema_version') IS NOT NULL", &[])
        .await
        .map_err(told)?
        .get(0);
    if !there {
        transaction
            .batch_execute(
                "CREATE SCHEMA IF NOT EXISTS vss;
                 CREATE TABLE vss.schema_version (number int NOT NULL);
                 INSERT INTO vss.schema_version VALUES (0);",
            )
            .await
            .map_err(told)?;
    }
    let version: i32 = transaction
        .query_one("SELECT max(number) FROM vss.schema_version", &[])
        .await
        .map_err(told)?
        .get(0);
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(steps) = STEPS.get(done..) else {
        return Err(Error::conflict("a newer program made the tables of this database")
            .with_remedy("run that program; this one has changed nothing"));
    };
    for step in steps {
        transaction.batch_execute(step).await.map_err(told)?;
    }
    if !steps.is_empty() {
        let newest = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
        transaction
            .execute("UPDATE vss.schema_version SET number = $1", &[&newest])
            .await
            .map_err(told)?;
    }
    transaction.commit().await.map_err(told)
}
