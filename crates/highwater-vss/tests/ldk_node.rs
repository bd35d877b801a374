//! Stores as `ldk-node` writes them, by the client crate's own code, read over HTTP.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use highwater::Env;
use highwater_replica::ldk_node::{LdkNodeKey, LdkNodeKeys, LdkNodeSchema, LdkNodeStore};
use highwater_replica::local::{LocalStore as _, MemoryStore, Space};
use highwater_replica::remote::VssRemote;
use highwater_vss::{Auth, Sqlite, VssServer};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vss_client_ng::client::VssClient;
use vss_client_ng::error::VssError;
use vss_client_ng::headers::FixedHeaders;
use vss_client_ng::prost::Message as _;
use vss_client_ng::types::{KeyValue, PutObjectRequest};
use vss_client_ng::util::key_obfuscator::KeyObfuscator;
use vss_client_ng::util::retry::{
    ExponentialBackoffRetryPolicy, MaxAttemptsRetryPolicy, RetryPolicy as _,
};
use vss_client_ng::util::storable_builder::{EntropySource, StorableBuilder};

type Client = VssClient<MaxAttemptsRetryPolicy<ExponentialBackoffRetryPolicy<VssError>>>;
type Values = BTreeMap<LdkNodeKey, Vec<u8>>;

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// What `ldk-node` derives from these words, as another program has derived it.
const VALUES_KEY: &str = "9013c57ecf6c65447868136e02e123e888cf537b93d87449b92088551883e49c";
const NAMES_KEY: &str = "6047523031dc82e9732e3335243d5e55b44651fe0b1c37862498e480412fab1a";

struct Zeros;

impl EntropySource for Zeros {
    fn fill_bytes(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

fn key(digits: &str) -> [u8; 32] {
    hex::decode(digits).unwrap().try_into().unwrap()
}

fn named(primary: &str, secondary: &str, key: &str) -> LdkNodeKey {
    let [primary, secondary, key] = [primary, secondary, key].map(str::to_owned);
    LdkNodeKey { primary, secondary, key }
}

/// The name of a value, and what it is bound to.
fn name(schema: LdkNodeSchema, of: &LdkNodeKey) -> (String, Vec<u8>) {
    let LdkNodeKey { primary, secondary, key } = of;
    let names = KeyObfuscator::new(self::key(NAMES_KEY));
    match schema {
        LdkNodeSchema::V0 if primary.is_empty() => (names.obfuscate(key), Vec::new()),
        LdkNodeSchema::V0 => {
            (format!("{primary}#{secondary}#{}", names.obfuscate(key)), Vec::new())
        }
        LdkNodeSchema::V1 => {
            let place = names.obfuscate(&format!("{primary}#{secondary}"));
            let name = format!("{place}#{}", names.obfuscate(key));
            (name.clone(), name.into_bytes())
        }
    }
}

async fn write(client: &Client, schema: LdkNodeSchema, of: &LdkNodeKey, value: &[u8]) {
    let (name, bound) = name(schema, of);
    let sealed = StorableBuilder::new(Zeros);
    let sealed = sealed.build(value.to_vec(), -1, &self::key(VALUES_KEY), &bound);
    let item = KeyValue { key: name, version: -1, value: sealed.encode_to_vec() };
    let request = PutObjectRequest {
        store_id: schema.number().to_string(),
        global_version: None,
        transaction_items: vec![item],
        delete_items: Vec::new(),
    };
    client.put_object(&request).await.unwrap();
}

fn values() -> Values {
    let of = |primary: &str, secondary: &str, key: &str, value: Vec<u8>| {
        (named(primary, secondary, key), value)
    };
    let mut values = Values::from([
        of("", "", "manager", vec![1; 40_000]),
        of("", "", "network_graph", Vec::new()),
        of("bdk_wallet", "", "descriptor", b"wpkh".to_vec()),
        of("monitors", "", "00ff_0", vec![2; 2 << 20]),
        of("monitor_updates", "00ff_0", "7", vec![3; 300]),
    ]);
    values.extend((0..250u32).map(|number| {
        of("payments", "", &format!("{number:064x}"), number.to_le_bytes().to_vec())
    }));
    values
}

#[test]
fn both_schemas_as_the_client_crate_writes_them_are_read_over_http() {
    let (dir, runtime) = (TempDir::new().unwrap(), Runtime::new().unwrap());
    let backend = Arc::new(Sqlite::serve(dir.path(), &Env::system()).unwrap());
    let start = VssServer::builder(backend).auth(Auth::none()).start();
    let running = runtime.block_on(start).unwrap();
    let url = format!("http://{}/vss", running.address());
    let once = ExponentialBackoffRetryPolicy::new(Duration::from_millis(1)).with_max_attempts(1);
    let headers = Arc::new(FixedHeaders::new(HashMap::new()));
    let client = VssClient::new_with_headers(url.clone(), once, headers);
    for schema in [LdkNodeSchema::V0, LdkNodeSchema::V1] {
        runtime.block_on(async {
            for (key, value) in &values() {
                write(&client, schema, key, value).await;
            }
            if schema == LdkNodeSchema::V1 {
                write(&client, schema, &named("", "", "vss_schema_version"), &[1, 0]).await;
            }
        });
        let remote = VssRemote::builder(&url, schema.number().to_string()).build().unwrap();
        let keys = LdkNodeKeys::from_mnemonic(WORDS, "").unwrap();
        let store = LdkNodeStore::open(Arc::new(remote), keys).unwrap();
        assert_eq!(store.schema(), schema);
        let local = MemoryStore::default();
        let done = store.copy_to(&local).unwrap();
        assert_eq!(done.values, values().len() as u64);
        let rows = local.scan(Space::Data, b"", None, usize::MAX).unwrap();
        let expected =
            values().into_iter().map(|(LdkNodeKey { primary, secondary, key }, value)| {
                (format!("{primary}/{secondary}/{key}").into_bytes(), value)
            });
        assert!(rows.into_iter().collect::<BTreeMap<_, _>>() == expected.collect());
    }
    runtime.block_on(running.shutdown()).unwrap();
}
