//! Stores in PostgreSQL: many nodes, several server processes over one database.
//!
//! A put is one call of a function in SQL, in one transaction with all that waited while the one before
//! was on its way. An answer goes out once the commit has come back. Every session commits synchronously,
//! whatever the server's default is: then others see a write once it is durable, not before.

mod connect;
mod failure;
mod history;
mod queue;
mod quota;
mod read;
mod schema;
mod tls;
mod write;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use highwater::{Env, Result};

use crate::backend::{
    Backend, Change, Commit, Digest, Found, Page, Place, Policy, Refusal, Restored, Sizes, Stats,
    StoreName, StoreStats,
};
use crate::plan::Plan;
use crate::quota::{Quota, Usage, UserStats};

use connect::Server;
use failure::failure;
use write::Lanes;

/// Connections that read at once.
const READS: usize = 8;
/// Connections of what an administrator asks for.
const OTHERS: usize = 4;
/// Connections of writes that wait for those.
const ASIDES: usize = 4;

/// Stores in one database of PostgreSQL.
pub struct Postgres {
    lanes: Lanes,
    reads: Pool,
    others: Pool,
    asides: Pool,
    env: Env,
}

impl Postgres {
    /// Connects to `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, and makes the tables where they are
    /// missing. Beyond this machine the connection is TLS and the server's certificate verified, by the
    /// system's certificates or those in the file that `sslrootcert` names; `sslmode=disable` turns that
    /// off.
    ///
    /// # Errors
    /// Input where the URL is malformed, or the server would lose what it has acknowledged (`fsync` is
    /// off), or the database is not UTF-8; not found where there is no such database; conflict where a newer program made its tables; denied where
    /// the user may not; unavailable where the server can't be reached.
    pub async fn connect(url: &str, env: Env) -> Result<Postgres> {
        let server = Server::parse(url)?;
        let (mut client, _) = server.session().await.map_err(|error| failure(&error))?;
        connect::check(&client).await?;
        schema::migrate(&mut client).await?;
        let by_index = server.by_index();
        let asides = by_index.pool(ASIDES)?;
        Ok(Postgres {
            lanes: Lanes::start(&by_index, &asides, &env),
            reads: by_index.pool(READS)?,
            others: server.pool(OTHERS)?,
            asides,
            env,
        })
    }
}

#[async_trait]
impl Backend for Postgres {
    fn reads(&self) -> usize {
        READS
    }

    async fn get(
        &self,
        store: &StoreName,
        key: &str,
        most: usize,
    ) -> Result<Option<Found>, Refusal> {
        read::get(&self.reads, store, key, most).await
    }

    async fn put(&self, store: &StoreName, plan: Plan) -> Result<(), Refusal> {
        self.lanes.put(store, plan).await
    }

    async fn delete(&self, store: &StoreName, key: &str, version: i64) -> Result<(), Refusal> {
        self.lanes.delete(store, key, version).await
    }

    async fn list(
        &self,
        store: &StoreName,
        prefix: &str,
        below: Option<Place>,
        size: u32,
    ) -> Result<Page, Refusal> {
        read::list(&self.reads, store, prefix, below, size).await
    }

    async fn policy(&self, store: &StoreName) -> Result<Policy, Refusal> {
        read::policy(&self.reads, store).await
    }

    async fn change(&self, store: &StoreName, change: Change) -> Result<Policy, Refusal> {
        history::change(&self.others, store, change, &self.env).await
    }

    async fn digest(&self, store: &StoreName) -> Result<Digest, Refusal> {
        read::digest(&self.others, store).await
    }

    async fn commits(
        &self,
        store: &StoreName,
        below: Option<u64>,
        size: u32,
    ) -> Result<Vec<Commit>, Refusal> {
        read::commits(&self.reads, store, below, size).await
    }

    async fn restore(&self, store: &StoreName, commit: u64) -> Result<Restored, Refusal> {
        history::restore(&self.others, store, commit, &self.env).await
    }

    async fn prune(&self) -> Result<u64, Refusal> {
        history::prune(&self.others, &self.env).await
    }

    async fn quota(&self, user: &str) -> Result<Quota, Refusal> {
        quota::get(&self.reads, user).await
    }

    async fn everybody(&self) -> Result<Quota, Refusal> {
        quota::everybody(&self.reads).await
    }

    async fn set_quota(&self, user: Option<&str>, quota: Option<Quota>) -> Result<(), Refusal> {
        quota::set(&self.others, user, quota).await
    }

    async fn usage(&self, user: &str) -> Result<Usage, Refusal> {
        quota::usage(&self.others, user).await
    }

    async fn sizes(&self, store: &StoreName, keys: &[String]) -> Result<Sizes, Refusal> {
        quota::sizes(&self.reads, store, keys).await
    }

    async fn users(&self, size: u32) -> Result<Vec<UserStats>, Refusal> {
        quota::users(&self.others, size).await
    }

    async fn stats(&self) -> Result<Stats, Refusal> {
        read::stats(&self.others).await
    }

    async fn stores(&self, size: u32) -> Result<Vec<StoreStats>, Refusal> {
        read::stores(&self.others, size).await
    }

    async fn ready(&self) -> Result<(), Refusal> {
        read::ready(&self.reads).await
    }

    async fn close(&self) {
        self.lanes.close().await;
        for pool in [&self.reads, &self.others, &self.asides] {
            pool.close();
        }
    }
}
