//! The protocol as one generation of the client sees it: `super::vss` is that generation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use vss_clients::Served;

use super::vss::client::VssClient;
use super::vss::error::VssError;
use super::vss::headers::{FixedHeaders, VssHeaderProvider};
use super::vss::types::{
    DeleteObjectRequest, GetObjectRequest, KeyValue, ListKeyVersionsRequest,
    ListKeyVersionsResponse, PutObjectRequest,
};
use super::vss::util::retry::{
    ExponentialBackoffRetryPolicy, MaxAttemptsRetryPolicy, RetryPolicy as _,
};

type Client = VssClient<MaxAttemptsRetryPolicy<ExponentialBackoffRetryPolicy<VssError>>>;

const ALICE: &str = "0303030303030303030303030303030303030303030303030303030303030303";
const BOB: &str = "0404040404040404040404040404040404040404040404040404040404040404";
const STORE: &str = "wallet";
/// Keys of the listing, and how many of them one put makes.
const KEYS: usize = 250;
const AT_ONCE: usize = 100;

/// The kind of an error, by which a client decides.
fn kind<T>(result: Result<T, VssError>) -> &'static str {
    match result {
        Ok(_) => "no error",
        Err(VssError::NoSuchKeyError(_)) => "no such key",
        Err(VssError::InvalidRequestError(_)) => "invalid",
        Err(VssError::ConflictError(_)) => "conflict",
        Err(VssError::AuthError(_)) => "auth",
        Err(_) => "internal",
    }
}

fn client(served: &Served, headers: Arc<dyn VssHeaderProvider>) -> Client {
    let once = ExponentialBackoffRetryPolicy::new(Duration::from_millis(1)).with_max_attempts(1);
    VssClient::new_with_headers(served.url().to_owned(), once, headers)
}

fn fixed(headers: &[(&str, String)]) -> Arc<dyn VssHeaderProvider> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Arc::new(FixedHeaders::new(headers.collect::<HashMap<_, _>>()))
}

fn item(key: &str, version: i64, value: &[u8]) -> KeyValue {
    KeyValue { key: key.to_owned(), version, value: value.to_vec() }
}

fn put(items: Vec<KeyValue>) -> PutObjectRequest {
    PutObjectRequest {
        store_id: STORE.to_owned(),
        global_version: None,
        transaction_items: items,
        delete_items: Vec::new(),
    }
}

fn get(key: &str) -> GetObjectRequest {
    GetObjectRequest { store_id: STORE.to_owned(), key: key.to_owned() }
}

fn delete(key: &str, version: i64) -> DeleteObjectRequest {
    DeleteObjectRequest { store_id: STORE.to_owned(), key_value: Some(item(key, version, b"")) }
}

async fn read(client: &Client, key: &str) -> (i64, Vec<u8>) {
    let found = client.get_object(&get(key)).await.unwrap().value.unwrap();
    assert_eq!(found.key, key);
    (found.version, found.value)
}

async fn list(
    client: &Client,
    prefix: Option<&str>,
    size: Option<i32>,
    token: Option<String>,
) -> ListKeyVersionsResponse {
    let request = ListKeyVersionsRequest {
        store_id: STORE.to_owned(),
        key_prefix: prefix.map(str::to_owned),
        page_size: size,
        page_token: token,
    };
    client.list_key_versions(&request).await.unwrap()
}

async fn global_version(client: &Client) -> i64 {
    list(client, None, Some(0), None).await.global_version.unwrap()
}

/// All of it, on an empty server that asks nobody who they are.
pub async fn all(served: &Served) {
    let client = client(served, fixed(&[]));
    empty(&client).await;
    versions(&client).await;
    transactions(&client).await;
    deletes(&client).await;
    names_and_values(&client).await;
    pages(&client).await;
}

async fn empty(client: &Client) {
    let page = list(client, None, None, None).await;
    assert!(page.key_versions.is_empty());
    assert_eq!(page.global_version, Some(0));
    assert_eq!(page.next_page_token.unwrap_or_default(), "");
    assert_eq!(kind(client.get_object(&get("missing")).await), "no such key");
}

async fn versions(client: &Client) {
    client.put_object(&put(vec![item("k", 0, b"1")])).await.unwrap();
    assert_eq!(read(client, "k").await, (1, b"1".to_vec()));
    // Only if it is absent, which it is not; then one that is behind.
    assert_eq!(kind(client.put_object(&put(vec![item("k", 0, b"x")])).await), "conflict");
    client.put_object(&put(vec![item("k", 1, b"2")])).await.unwrap();
    assert_eq!(kind(client.put_object(&put(vec![item("k", 1, b"x")])).await), "conflict");
    assert_eq!(read(client, "k").await, (2, b"2".to_vec()));
    assert_eq!(kind(client.put_object(&put(vec![item("absent", 3, b"x")])).await), "conflict");
    // Whatever is there; the versions begin anew.
    client.put_object(&put(vec![item("k", -1, b"3")])).await.unwrap();
    assert_eq!(read(client, "k").await, (1, b"3".to_vec()));
}

async fn transactions(client: &Client) {
    let mut both = put(vec![item("a", 0, b"a"), item("b", 0, b"b")]);
    both.delete_items = vec![item("k", 1, b"")];
    both.global_version = Some(0);
    client.put_object(&both).await.unwrap();
    assert_eq!(read(client, "a").await.0, 1);
    assert_eq!(read(client, "b").await.0, 1);
    assert_eq!(kind(client.get_object(&get("k")).await), "no such key");
    assert_eq!(global_version(client).await, 1);
    // One item that does not fit, and nothing happens.
    let mut torn = put(vec![item("a", 1, b"x"), item("b", 7, b"x")]);
    torn.global_version = Some(1);
    assert_eq!(kind(client.put_object(&torn).await), "conflict");
    let mut stale = put(vec![item("a", 1, b"x")]);
    stale.global_version = Some(0);
    assert_eq!(kind(client.put_object(&stale).await), "conflict");
    let mut missing = put(vec![item("a", 1, b"x")]);
    missing.delete_items = vec![item("missing", -1, b"")];
    assert_eq!(kind(client.put_object(&missing).await), "conflict");
    assert_eq!(read(client, "a").await, (1, b"a".to_vec()));
    assert_eq!(global_version(client).await, 1);
    // The global version alone: a fence.
    let mut fence = put(Vec::new());
    fence.global_version = Some(1);
    client.put_object(&fence).await.unwrap();
    assert_eq!(kind(client.put_object(&fence).await), "conflict");
    assert_eq!(global_version(client).await, 2);
}

async fn deletes(client: &Client) {
    client.delete_object(&delete("a", 9)).await.unwrap();
    assert_eq!(read(client, "a").await.0, 1);
    client.delete_object(&delete("a", 1)).await.unwrap();
    assert_eq!(kind(client.get_object(&get("a")).await), "no such key");
    client.delete_object(&delete("a", -1)).await.unwrap();
    client.delete_object(&delete("b", -1)).await.unwrap();
    assert_eq!(kind(client.get_object(&get("b")).await), "no such key");
}

async fn names_and_values(client: &Client) {
    let longest = "k".repeat(600);
    let longer = "k".repeat(601);
    client.put_object(&put(vec![item(&longest, 0, b"long")])).await.unwrap();
    assert_eq!(read(client, &longest).await, (1, b"long".to_vec()));
    client.delete_object(&delete(&longest, 1)).await.unwrap();
    assert_eq!(kind(client.put_object(&put(vec![item(&longer, 0, b"")])).await), "invalid");
    assert_eq!(kind(client.get_object(&get(&longer)).await), "invalid");
    for value in [Vec::new(), vec![0xa5; 3 << 20]] {
        client.put_object(&put(vec![item("value", -1, &value)])).await.unwrap();
        assert!(read(client, "value").await == (1, value));
    }
    client.delete_object(&delete("value", 1)).await.unwrap();
}

async fn pages(client: &Client) {
    let names: Vec<String> = (0..KEYS).map(|number| format!("list/{number}")).collect();
    for names in names.chunks(AT_ONCE) {
        let items = names.iter().map(|name| item(name, 0, b"v")).collect();
        client.put_object(&put(items)).await.unwrap();
    }
    // An update keeps its place.
    client.put_object(&put(vec![item("list/7", 1, b"v")])).await.unwrap();
    client.put_object(&put(vec![item("other", 0, b"v")])).await.unwrap();
    let (mut found, mut token, mut first) = (Vec::new(), None, true);
    loop {
        let page = list(client, Some("list/"), Some(40), token).await;
        assert!(page.key_versions.len() <= 40);
        assert_eq!(page.global_version, first.then_some(2));
        first = false;
        found.extend(page.key_versions.into_iter().map(|item| (item.key, item.version)));
        token = page.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    // The newest first; puts of one transaction have an order among them that nobody promises.
    let newest: HashSet<&str> = found[..KEYS % AT_ONCE].iter().map(|(key, _)| &key[..]).collect();
    let made: HashSet<&str> = names[KEYS - KEYS % AT_ONCE..].iter().map(|key| &key[..]).collect();
    assert_eq!(newest, made);
    let versions: HashMap<&str, i64> =
        found.iter().map(|(key, version)| (&key[..], *version)).collect();
    assert_eq!((found.len(), versions.len()), (KEYS, KEYS));
    assert_eq!((versions["list/7"], versions["list/8"]), (2, 1));
    let page = list(client, None, Some(1000), None).await;
    assert_eq!(page.key_versions.len(), 100);
    assert_eq!(page.key_versions[0].key, "other");
    let astray = ListKeyVersionsRequest {
        store_id: STORE.to_owned(),
        key_prefix: None,
        page_size: None,
        page_token: Some("nowhere".to_owned()),
    };
    assert_eq!(kind(client.list_key_versions(&astray).await), "invalid");
}

/// Whose key signs is the user, and who does not sign is nobody.
pub async fn signatures(served: &Served) {
    let key = unique("signed");
    let (alice, bob) = (client(served, super::signed(ALICE)), client(served, super::signed(BOB)));
    alice.put_object(&put(vec![item(&key, 0, b"alice's")])).await.unwrap();
    assert_eq!(kind(bob.get_object(&get(&key)).await), "no such key");
    let nobody = client(served, fixed(&[]));
    assert_eq!(kind(nobody.get_object(&get(&key)).await), "auth");
    let old = format!("02{}{}1", "11".repeat(32), "22".repeat(64));
    let forged = client(served, fixed(&[("Authorization", old)]));
    assert_eq!(kind(forged.get_object(&get(&key)).await), "auth");
    assert_eq!(read(&alice, &key).await, (1, b"alice's".to_vec()));
}

/// Who the token is made for is the user, for as long as it is valid.
pub async fn tokens(served: &Served) {
    let key = unique("token");
    let with =
        |token: String| client(served, fixed(&[("Authorization", format!("Bearer {token}"))]));
    let alice = with(served.token("alice", 3600).unwrap());
    let bob = with(served.token("bob", 3600).unwrap());
    alice.put_object(&put(vec![item(&key, 0, b"alice's")])).await.unwrap();
    assert_eq!(kind(bob.get_object(&get(&key)).await), "no such key");
    let late = with(served.token("alice", -3600).unwrap());
    assert_eq!(kind(late.get_object(&get(&key)).await), "auth");
    let mut forged = served.token("alice", 3600).unwrap();
    forged.replace_range(forged.len() - 9..forged.len() - 1, "AAAAAAAA");
    assert_eq!(kind(with(forged).get_object(&get(&key)).await), "auth");
    assert_eq!(kind(client(served, fixed(&[])).get_object(&get(&key)).await), "auth");
    assert_eq!(read(&alice, &key).await, (1, b"alice's".to_vec()));
}

/// Writes something for the other generations.
pub async fn leave(served: &Served, key: &str) {
    let client = client(served, super::signed(ALICE));
    client.put_object(&put(vec![item(key, -1, key.as_bytes())])).await.unwrap();
}

/// Finds what another generation has written.
pub async fn find(served: &Served, key: &str) {
    let client = client(served, super::signed(ALICE));
    assert_eq!(read(&client, key).await, (1, key.as_bytes().to_vec()));
}

/// A key of this generation's own.
fn unique(name: &str) -> String {
    format!("{name} in {}", module_path!())
}
