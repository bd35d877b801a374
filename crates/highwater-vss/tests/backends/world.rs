//! Backends for a test, and short ways to ask them.

use std::any::Any;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::error::VssError;
use api::kv_store::KvStore;
use api::types::{
    DeleteObjectRequest, DeleteObjectResponse, GetObjectRequest, GetObjectResponse, KeyValue,
    ListKeyVersionsRequest, ListKeyVersionsResponse, PutObjectRequest, PutObjectResponse,
};
use async_trait::async_trait;
use bytes::Bytes;
use highwater::Env;
use highwater::env::Clock;
use highwater::ids::Time;
use highwater_vss::{Backend, Plan, Postgres, Refusal, Service, Sqlite, StoreName};

use crate::cluster::Cluster;

/// The protocol over a backend, and what must stay as long as it is there.
pub(crate) struct Held {
    pub(crate) service: Service,
    _stays: Box<dyn Any + Send + Sync>,
}

/// In a directory of its own.
pub(crate) fn on_sqlite() -> Held {
    let dir = tempfile::tempdir().unwrap();
    let backend = Sqlite::serve(dir.path(), &Env::system()).unwrap();
    Held { service: Service::new(Arc::new(backend)), _stays: Box::new(dir) }
}

/// In a database of its own.
pub(crate) async fn on_postgresql() -> Held {
    let cluster = Cluster::shared();
    let backend = Postgres::connect(&cluster.database(), Env::system()).await.unwrap();
    Held { service: Service::new(Arc::new(backend)), _stays: Box::new(cluster) }
}

#[async_trait]
impl KvStore for Held {
    async fn get(
        &self,
        user: String,
        request: GetObjectRequest,
    ) -> Result<GetObjectResponse, VssError> {
        self.service.get(user, request).await
    }

    async fn put(
        &self,
        user: String,
        request: PutObjectRequest,
    ) -> Result<PutObjectResponse, VssError> {
        self.service.put(user, request).await
    }

    async fn delete(
        &self,
        user: String,
        request: DeleteObjectRequest,
    ) -> Result<DeleteObjectResponse, VssError> {
        self.service.delete(user, request).await
    }

    async fn list_key_versions(
        &self,
        user: String,
        request: ListKeyVersionsRequest,
    ) -> Result<ListKeyVersionsResponse, VssError> {
        self.service.list_key_versions(user, request).await
    }
}

/// A clock that stands until it is set forward.
#[derive(Clone)]
pub(crate) struct Standing(pub(crate) Arc<AtomicI64>);

impl Standing {
    pub(crate) fn new() -> Standing {
        Standing(Arc::new(AtomicI64::new(1_000_000_000_000_000_000)))
    }

    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn env(&self) -> Env {
        Env::system().with_clock(self.clone())
    }
}

impl Clock for Standing {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed).unsigned_abs())
    }

    fn pause(&self, duration: Duration) {
        self.forward(duration);
    }
}

/// Numbers that a seed fixes.
pub(crate) struct Chance(Mutex<fastrand::Rng>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// One below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.0.lock().unwrap().u64(..end)
    }

    pub(crate) fn one_in(&self, end: u64) -> bool {
        self.below(end) == 0
    }

    pub(crate) fn of<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

pub(crate) fn store(id: &str) -> StoreName {
    StoreName { user: "user".to_owned(), id: id.to_owned() }
}

pub(crate) fn item(key: &str, version: i64, value: &[u8]) -> KeyValue {
    KeyValue { key: key.to_owned(), version, value: Bytes::copy_from_slice(value) }
}

/// A plan of these items.
pub(crate) fn plan(items: &[(&str, i64, &[u8])], deletes: &[(&str, i64)]) -> Plan {
    Plan::of(PutObjectRequest {
        store_id: String::new(),
        global_version: None,
        transaction_items: items.iter().map(|(key, at, value)| item(key, *at, value)).collect(),
        delete_items: deletes.iter().map(|(key, at)| item(key, *at, b"")).collect(),
    })
    .unwrap()
}

/// A value and its version.
pub(crate) async fn get(
    backend: &(impl Backend + ?Sized),
    name: &StoreName,
    key: &str,
) -> Option<(i64, Bytes)> {
    // First as one that is too long.
    let short = backend.get(name, key, 0).await.unwrap()?;
    let found = backend.get(name, key, short.bytes).await.unwrap()?;
    assert_eq!(
        (found.bytes, short.value.is_some()),
        (found.value.as_ref()?.len(), short.bytes == 0)
    );
    Some((found.version, found.value?))
}

/// All of a store, newest first, with values.
pub(crate) async fn all(backend: &dyn Backend, name: &StoreName) -> Vec<(String, i64, Bytes)> {
    let (mut found, mut below) = (Vec::new(), None);
    loop {
        let page = backend.list(name, "", below, 100).await.unwrap();
        for (key, version) in page.keys {
            let (held, value) = get(backend, name, &key).await.unwrap();
            assert_eq!(held, version);
            found.push((key, version, value));
        }
        below = page.next;
        if below.is_none() {
            return found;
        }
    }
}

/// The kind of a refusal.
pub(crate) fn kind<T>(answer: &Result<T, Refusal>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(Refusal::Conflict(_)) => "conflict",
        Err(Refusal::Invalid(_)) => "invalid",
        Err(Refusal::Failed(error)) => panic!("{error}"),
    }
}
