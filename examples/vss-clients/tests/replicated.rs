//! A Lightning node of LDK on a replicated store: all of it comes back from the program, on a machine that has
//! nothing but the secret, and the node that was deposed can't write any more.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater::Kind;
use highwater_replica::ldk::{Persistence, classes};
use highwater_replica::local::MemoryStore;
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore, Started};
use ldk_node::bitcoin::Network;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::{Builder, Node};
use tempfile::TempDir;
use vss_clients::{Auth, Served};

const SEED: [u8; 64] = [42; 64];
const LONG: Duration = Duration::from_secs(60);

/// The node's store, on a disk that is gone with it.
fn open(served: &Served, permissions: Permissions) -> (Arc<ReplicatedStore>, Started) {
    let keys = ReplicaKeys::from_entropy(&[9; 32], "node").unwrap();
    let auth = VssAuth::Signature(keys.signing_key());
    let remote = VssRemote::builder(served.url(), "node").auth(auth).build().unwrap();
    let local = Arc::<MemoryStore>::default();
    let (store, started) = ReplicatedStore::builder(local, Arc::new(remote), keys)
        .classes(classes(Persistence::Synchronous))
        .permissions(permissions)
        .open()
        .unwrap();
    (Arc::new(store), started)
}

fn node(store: &Arc<ReplicatedStore>, dir: &Path) -> Node {
    let mut builder = Builder::new();
    builder.set_network(Network::Regtest);
    builder.set_storage_dir_path(dir.to_str().unwrap().to_owned());
    builder.set_entropy_seed_bytes(SEED);
    // Nobody answers there: the node finds no chain.
    builder.set_chain_source_esplora("http://127.0.0.1:9".to_owned(), None);
    builder.build_with_store(Arc::clone(store) as _).unwrap()
}

/// The node blocks threads of the runtime while it waits for the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lightning_node_on_a_replicated_store_comes_back_where_there_is_nothing() {
    let served = Served::start(Auth::Signature).unwrap();
    let dir = TempDir::new().unwrap();
    let new = Permissions { allow_empty: true, ..Permissions::default() };
    let (first_store, started) = open(&served, new);
    assert_eq!(started, Started::New);
    let first = node(&first_store, &dir.path().join("first"));
    let description = Bolt11InvoiceDescription::Direct(Description::new("coffee".into()).unwrap());
    let invoice = first.bolt11_payment().receive(21_000, &description, 3600);
    let payments = first.list_payments();
    let address = first.onchain_payment().new_address().unwrap();
    let node_id = first.node_id();
    first_store.flush(LONG).unwrap();
    let written = first_store.status().unwrap().values;
    assert!(written >= 4, "{written} values");

    // The machine is lost as it stands; another one has nothing.
    let take_over = Some("the machine is lost".to_owned());
    let (second_store, started) =
        open(&served, Permissions { take_over, ..Permissions::default() });
    assert!(matches!(started, Started::Hydrated { values, .. } if values == written));
    let second = node(&second_store, &dir.path().join("second"));
    assert_eq!(second.node_id(), node_id);
    assert_eq!(second.list_payments(), payments);
    assert_eq!(invoice.is_ok(), payments.len() == 1);
    // The wallet knows that it has given that address away.
    assert_ne!(second.onchain_payment().new_address().unwrap(), address);

    // What the first one writes goes nowhere, and it is told.
    let waits = first_store.ended();
    first_store.write("late", "write").unwrap();
    let error = waits.await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.to_string().contains("the machine is lost"), "{error}");
    second_store.flush(LONG).unwrap();
    second_store.release().unwrap();
}
