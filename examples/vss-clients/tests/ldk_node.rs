//! A Lightning node of LDK that keeps its state on the program: all of it comes back from there, into an
//! empty directory, from the seed alone.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldk_node::bitcoin::Network;
use ldk_node::lightning::io;
use ldk_node::lightning::util::persist::{KVStore, KVStoreSync};
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::{Builder, Node};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use vss_client_v06::client::VssClient;
use vss_client_v06::error::VssError;
use vss_client_v06::headers::FixedHeaders;
use vss_client_v06::types::ListKeyVersionsRequest;
use vss_client_v06::util::retry::{ExponentialBackoffRetryPolicy, RetryPolicy as _};
use vss_clients::{Auth, Outcome, Served};

const STORE: &str = "node";
const USER: &str = "wallet";
const SEED: [u8; 64] = [42; 64];
const PEER_SEED: [u8; 64] = [43; 64];

/// An Esplora server that knows of no fees and no blocks: a node starts with it, and finds no chain.
async fn esplora() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the runtime of the test.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut stream).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match first.contains(" /fee-estimates ") {
        true => ("200 OK", "{}"),
        false => ("404 Not Found", ""),
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await
}

/// A node of that seed, in that directory.
fn builder(esplora: SocketAddr, dir: &Path) -> Builder {
    let mut builder = Builder::new();
    builder.set_network(Network::Regtest);
    builder.set_storage_dir_path(dir.to_str().unwrap().to_owned());
    builder.set_entropy_seed_bytes(SEED);
    builder.set_chain_source_esplora(format!("http://{}", esplora), None);
    builder
}

/// A node on the server, in that directory.
fn node(served: &Served, esplora: SocketAddr, dir: &Path, token: &str) -> Node {
    let builder = builder(esplora, dir);
    let headers = HashMap::from([("Authorization".to_owned(), format!("Bearer {token}"))]);
    let url = served.url().to_owned();
    builder.build_with_vss_store_and_fixed_headers(url, STORE.to_owned(), headers).unwrap()
}

/// A node beside it, that keeps its state itself.
fn peer(esplora: SocketAddr, dir: &Path) -> Node {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut builder = Builder::new();
    builder.set_network(Network::Regtest);
    builder.set_storage_dir_path(dir.to_str().unwrap().to_owned());
    builder.set_entropy_seed_bytes(PEER_SEED);
    builder.set_chain_source_esplora(format!("http://{}", esplora), None);
    builder.set_listening_addresses(vec![format!("127.0.0.1:{port}").parse().unwrap()]).unwrap();
    builder.build_with_fs_store().unwrap()
}

/// What the node keeps on the server: names that only it can read, and versions.
async fn kept(served: &Served, token: &str) -> Vec<(String, i64)> {
    let headers = HashMap::from([("Authorization".to_owned(), format!("Bearer {token}"))]);
    let once = ExponentialBackoffRetryPolicy::<VssError>::new(Duration::from_millis(1))
        .with_max_attempts(1);
    let url = served.url().to_owned();
    let client = VssClient::new_with_headers(url, once, Arc::new(FixedHeaders::new(headers)));
    let request = ListKeyVersionsRequest {
        store_id: STORE.to_owned(),
        key_prefix: None,
        page_size: None,
        page_token: None,
    };
    let page = client.list_key_versions(&request).await.unwrap();
    assert_eq!(page.next_page_token.unwrap_or_default(), "");
    page.key_versions.into_iter().map(|item| (item.key, item.version)).collect()
}

/// The node blocks threads of the runtime while it waits for the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lightning_node_comes_back_from_its_seed_and_the_server() {
    let served = Served::start(Auth::Jwt).unwrap();
    let token = served.token(USER, 3600).unwrap();
    let esplora = esplora().await;
    let peer_dir = TempDir::new().unwrap();
    let peer = peer(esplora, peer_dir.path());
    peer.start().unwrap();

    let first_dir = TempDir::new().unwrap();
    let first = node(&served, esplora, first_dir.path(), &token);
    first.start().unwrap();
    let address = peer.listening_addresses().unwrap().remove(0);
    first.connect(peer.node_id(), address.clone(), true).unwrap();
    let description = Bolt11InvoiceDescription::Direct(Description::new("coffee".into()).unwrap());
    let invoice = first.bolt11_payment().receive(21_000, &description, 3600).unwrap();
    let first_address = first.onchain_payment().new_address().unwrap();
    let node_id = first.node_id();
    first.stop().unwrap();
    drop(first);
    first_dir.close().unwrap();

    let before = kept(&served, &token).await;
    for (key, version) in &before {
        println!("{version} {key}");
        // The node's own names do not leave it.
        assert!(!key.contains("manager") && !key.contains("payments"), "{key}");
    }
    // Channel manager, network graph, scorer, wallet, peers, payments and the version of all that.
    assert!(before.len() >= 8, "{before:?}");

    let second_dir = TempDir::new().unwrap();
    let second = node(&served, esplora, second_dir.path(), &token);
    assert_eq!(second.node_id(), node_id);
    let payments = second.list_payments();
    assert_eq!(payments.len(), 1);
    assert_eq!(payments[0].amount_msat, Some(21_000));
    let hash = invoice.payment_hash().to_string();
    assert!(format!("{:?}", payments[0].kind).contains(&hash), "{:?}", payments[0].kind);
    let peers = second.list_peers();
    assert!(
        peers.iter().any(|found| found.node_id == peer.node_id() && found.address == address),
        "{peers:?}"
    );
    // The wallet knows that it has given that address away.
    assert_ne!(second.onchain_payment().new_address().unwrap(), first_address);
    second.start().unwrap();
    second.stop().unwrap();
    // The same keys, each of them still one: nothing was made a second time under another name.
    let after = kept(&served, &token).await;
    let names = |kept: &[(String, i64)]| {
        let mut names: Vec<String> = kept.iter().map(|(key, _)| key.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&before), names(&after));
    peer.stop().unwrap();
}

/// What the program has made of the store, under the keys that it gave.
struct Rows(Mutex<BTreeMap<String, Vec<u8>>>);

type Answered<T> = Pin<Box<dyn Future<Output = Result<T, io::Error>> + Send>>;

impl Rows {
    /// The rows of a database, as any program reads them.
    fn of(database: &Path) -> Rows {
        let script = "import sqlite3, sys\n\
            rows = sqlite3.connect(sys.argv[1]).execute(\n\
                'select hex(key), hex(value) from highwater_data')\n\
            for row in rows: print(' '.join(row))";
        let output = Command::new("python3").args(["-c", script]).arg(database).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let bytes = |digits: &str| -> Vec<u8> {
            let pairs = (0..digits.len()).step_by(2);
            pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
        };
        let rows = String::from_utf8(output.stdout).unwrap();
        let rows = rows.lines().map(|line| {
            let (key, value) = line.split_once(' ').unwrap();
            (String::from_utf8(bytes(key)).unwrap(), bytes(value))
        });
        Rows(Mutex::new(rows.collect()))
    }
}

impl KVStoreSync for Rows {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        let rows = self.0.lock().unwrap();
        let found = rows.get(&format!("{primary}/{secondary}/{key}"));
        found.cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, key.to_owned()))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> Result<(), io::Error> {
        self.0.lock().unwrap().insert(format!("{primary}/{secondary}/{key}"), buf);
        Ok(())
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        _lazy: bool,
    ) -> Result<(), io::Error> {
        self.0.lock().unwrap().remove(&format!("{primary}/{secondary}/{key}"));
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let place = format!("{primary}/{secondary}/");
        let rows = self.0.lock().unwrap();
        Ok(rows.keys().filter_map(|key| key.strip_prefix(&place)).map(str::to_owned).collect())
    }
}

impl KVStore for Rows {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Answered<Vec<u8>> {
        let read = KVStoreSync::read(self, primary, secondary, key);
        Box::pin(async move { read })
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, buf: Vec<u8>) -> Answered<()> {
        let written = KVStoreSync::write(self, primary, secondary, key, buf);
        Box::pin(async move { written })
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> Answered<()> {
        let removed = KVStoreSync::remove(self, primary, secondary, key, lazy);
        Box::pin(async move { removed })
    }

    fn list(&self, primary: &str, secondary: &str) -> Answered<Vec<String>> {
        let listed = KVStoreSync::list(self, primary, secondary);
        Box::pin(async move { listed })
    }
}

/// Runs `replica migrate` on the node's store.
fn migrate(served: &Served, database: &Path, seed: &Path, token: &Path) -> Outcome<()> {
    let mut command = Command::new(std::env::var_os("VSS_PROGRAM").ok_or("VSS_PROGRAM")?);
    command.args(["replica", "migrate", "--server", served.url(), "--from-store", STORE, "--json"]);
    command.arg("--seed-file").arg(seed).arg("--token-file").arg(token).arg(database);
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{output:?}").into()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_the_node_wrote_by_itself_is_migrated() {
    let served = Served::start(Auth::Jwt).unwrap();
    let token = served.token(USER, 3600).unwrap();
    let (esplora, dir) = (esplora().await, TempDir::new().unwrap());
    let first = node(&served, esplora, &dir.path().join("first"), &token);
    first.start().unwrap();
    let description = Bolt11InvoiceDescription::Direct(Description::new("coffee".into()).unwrap());
    first.bolt11_payment().receive(21_000, &description, 3600).unwrap();
    let address = first.onchain_payment().new_address().unwrap();
    let (node_id, payments) = (first.node_id(), first.list_payments());
    first.stop().unwrap();
    drop(first);
    let before = kept(&served, &token).await;

    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("seed"), SEED).unwrap();
    std::fs::write(file("other-seed"), PEER_SEED).unwrap();
    std::fs::write(file("token"), &token).unwrap();
    let denied = migrate(&served, &file("none"), &file("other-seed"), &file("token"));
    assert!(denied.unwrap_err().to_string().contains("denied"));
    assert!(!file("none").exists());
    migrate(&served, &file("node.sqlite"), &file("seed"), &file("token")).unwrap();
    assert_eq!(kept(&served, &token).await, before, "nothing is written to the old store");

    let rows = Rows::of(&file("node.sqlite"));
    let keys: Vec<String> = rows.0.lock().unwrap().keys().cloned().collect();
    // All but the one that says which schema the store has.
    assert_eq!(keys.len(), before.len() - 1, "{keys:?}");
    assert!(keys.contains(&"//manager".to_owned()), "{keys:?}");
    let second = builder(esplora, &file("second")).build_with_store(Arc::new(rows)).unwrap();
    assert_eq!((second.node_id(), second.list_payments()), (node_id, payments));
    // The wallet knows that it has given that address away.
    assert_ne!(second.onchain_payment().new_address().unwrap(), address);
    second.start().unwrap();
    second.stop().unwrap();
}
