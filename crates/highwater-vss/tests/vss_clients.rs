//! The protocol's own suite, over HTTP and through the newest published client, which shows who it is by
//! signatures; and what that client is told where something is wrong.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

extern crate vss_api as api;

#[path = "postgres/mod.rs"]
mod cluster;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use highwater::Env;
use highwater_vss::{Auth, Backend, Postgres, Running, Sqlite, VssServer};
use tempfile::TempDir;
use vss_api::error::VssError;
use vss_api::kv_store::KvStore;
use vss_api::types::{
    DeleteObjectRequest, DeleteObjectResponse, GetObjectRequest, GetObjectResponse,
    ListKeyVersionsRequest, ListKeyVersionsResponse, PutObjectRequest, PutObjectResponse,
};
use vss_client_ng::client::VssClient;
use vss_client_ng::error::VssError as ClientError;
use vss_client_ng::headers::sigs_auth::SigsAuthProvider;
use vss_client_ng::headers::{FixedHeaders, VssHeaderProvider};
use vss_client_ng::prost::Message;
use vss_client_ng::types as client;
use vss_client_ng::util::retry::{
    ExponentialBackoffRetryPolicy, MaxAttemptsRetryPolicy, RetryPolicy as _,
};

use cluster::Cluster;

type Client = VssClient<MaxAttemptsRetryPolicy<ExponentialBackoffRetryPolicy<ClientError>>>;

/// Whose key of a signature it is.
const ALICE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const BOB: &str = "0202020202020202020202020202020202020202020202020202020202020202";

/// A server in this process, and a client of it.
struct OverHttp<D> {
    client: Client,
    server: Running,
    _database: D,
}

impl<D> OverHttp<D> {
    async fn start(backend: Arc<dyn Backend>, database: D) -> OverHttp<D> {
        let server = VssServer::builder(backend).auth(Auth::signature()).start().await.unwrap();
        let client = connect(&server, signed(ALICE));
        OverHttp { client, server, _database: database }
    }
}

async fn over_sqlite() -> OverHttp<TempDir> {
    let dir = TempDir::new().unwrap();
    let backend = Arc::new(Sqlite::serve(dir.path(), &Env::system()).unwrap());
    OverHttp::start(backend, dir).await
}

async fn over_postgresql() -> OverHttp<Arc<Cluster>> {
    let cluster = Cluster::shared();
    let backend = Postgres::connect(&cluster.database(), Env::system()).await.unwrap();
    OverHttp::start(Arc::new(backend), cluster).await
}

fn signed(key: &str) -> Arc<dyn VssHeaderProvider> {
    Arc::new(SigsAuthProvider::new(key.parse().unwrap(), HashMap::new()))
}

/// A client that asks once: what it is told is what the server says.
fn connect(server: &Running, headers: Arc<dyn VssHeaderProvider>) -> Client {
    let url = format!("http://{}/vss", server.address());
    let once = ExponentialBackoffRetryPolicy::new(Duration::from_millis(1)).with_max_attempts(1);
    VssClient::new_with_headers(url, once, headers)
}

/// The client has the messages once more, as types of its own.
fn convert<T: Message + Default>(message: &impl Message) -> T {
    T::decode(message.encode_to_vec().as_slice()).unwrap()
}

/// What a client was told, as the suite expects it.
fn told(error: ClientError) -> VssError {
    match error {
        ClientError::NoSuchKeyError(text) => VssError::NoSuchKeyError(text),
        ClientError::InvalidRequestError(text) => VssError::InvalidRequestError(text),
        ClientError::ConflictError(text) => VssError::ConflictError(text),
        ClientError::AuthError(text) => VssError::AuthError(text),
        other => VssError::InternalServerError(other.to_string()),
    }
}

/// The user is whose key signs, whatever the suite says.
#[async_trait]
impl<D: Send + Sync> KvStore for OverHttp<D> {
    async fn get(
        &self,
        _user: String,
        request: GetObjectRequest,
    ) -> Result<GetObjectResponse, VssError> {
        let answer = self.client.get_object(&convert(&request)).await;
        answer.map(|answer| convert(&answer)).map_err(told)
    }

    async fn put(
        &self,
        _user: String,
        request: PutObjectRequest,
    ) -> Result<PutObjectResponse, VssError> {
        let answer = self.client.put_object(&convert(&request)).await;
        answer.map(|answer| convert(&answer)).map_err(told)
    }

    async fn delete(
        &self,
        _user: String,
        request: DeleteObjectRequest,
    ) -> Result<DeleteObjectResponse, VssError> {
        let answer = self.client.delete_object(&convert(&request)).await;
        answer.map(|answer| convert(&answer)).map_err(told)
    }

    async fn list_key_versions(
        &self,
        _user: String,
        request: ListKeyVersionsRequest,
    ) -> Result<ListKeyVersionsResponse, VssError> {
        let answer = self.client.list_key_versions(&convert(&request)).await;
        answer.map(|answer| convert(&answer)).map_err(told)
    }
}

mod sqlite {
    use vss_api::define_kv_store_tests;

    define_kv_store_tests!(Suite, super::OverHttp<super::TempDir>, super::over_sqlite().await);
}

mod postgresql {
    use vss_api::define_kv_store_tests;

    define_kv_store_tests!(
        Suite,
        super::OverHttp<std::sync::Arc<super::Cluster>>,
        super::over_postgresql().await
    );
}

fn get(store: &str, key: &str) -> client::GetObjectRequest {
    client::GetObjectRequest { store_id: store.to_owned(), key: key.to_owned() }
}

fn put(store: &str, key: &str, version: i64, value: &[u8]) -> client::PutObjectRequest {
    let item = client::KeyValue { key: key.to_owned(), version, value: value.to_vec() };
    client::PutObjectRequest {
        store_id: store.to_owned(),
        global_version: None,
        transaction_items: vec![item],
        delete_items: Vec::new(),
    }
}

/// Nobody sees what somebody else keeps under the same names.
#[tokio::test]
async fn a_key_that_signs_has_stores_of_its_own() {
    let served = over_sqlite().await;
    let (alice, bob) = (&served.client, connect(&served.server, signed(BOB)));
    alice.put_object(&put("wallet", "k", 0, b"alice's")).await.unwrap();
    let missing = bob.get_object(&get("wallet", "k")).await.unwrap_err();
    assert!(matches!(missing, ClientError::NoSuchKeyError(_)), "{missing}");
    bob.put_object(&put("wallet", "k", 0, b"bob's")).await.unwrap();
    let found = alice.get_object(&get("wallet", "k")).await.unwrap().value.unwrap();
    assert_eq!((found.version, &found.value[..]), (1, &b"alice's"[..]));
}

/// Each error is the kind that the client decides by, and none is one that it would try again for minutes.
#[tokio::test]
async fn the_newest_client_is_told_the_kind_of_each_error() {
    let served = over_sqlite().await;
    let client = &served.client;
    let missing = client.get_object(&get("s", "k")).await.unwrap_err();
    assert!(matches!(missing, ClientError::NoSuchKeyError(_)), "{missing}");
    client.put_object(&put("s", "k", 0, b"1")).await.unwrap();
    let again = client.put_object(&put("s", "k", 0, b"2")).await.unwrap_err();
    assert!(matches!(again, ClientError::ConflictError(_)), "{again}");
    let long = client.put_object(&put("s", &"k".repeat(601), -1, b"1")).await.unwrap_err();
    assert!(matches!(long, ClientError::InvalidRequestError(_)), "{long}");
    client.put_object(&put("s", &"k".repeat(600), -1, b"1")).await.unwrap();
    let nobody = connect(&served.server, Arc::new(FixedHeaders::new(HashMap::new())));
    let refused = nobody.get_object(&get("s", "k")).await.unwrap_err();
    assert!(matches!(refused, ClientError::AuthError(_)), "{refused}");
    // A path that is no call of the protocol is an error that it understands, too.
    let url = format!("http://{}/other", served.server.address());
    let once = ExponentialBackoffRetryPolicy::new(Duration::from_millis(1)).with_max_attempts(1);
    let astray = VssClient::new_with_headers(url, once, signed(ALICE));
    let refused = astray.get_object(&get("s", "k")).await.unwrap_err();
    assert!(matches!(refused, ClientError::InvalidRequestError(_)), "{refused}");
}

/// A value as large as a channel monitor can grow arrives whole, both ways.
#[tokio::test]
async fn a_large_value_comes_back_whole() {
    let served = over_sqlite().await;
    let value: Vec<u8> = (0..32 << 20_u32).map(|place| (place % 251) as u8).collect();
    served.client.put_object(&put("s", "monitor", -1, &value)).await.unwrap();
    let found = served.client.get_object(&get("s", "monitor")).await.unwrap().value.unwrap();
    assert!(found.version == 1 && found.value[..] == value[..]);
}
