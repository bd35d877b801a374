//! A replicated store under the traits of `lightning` 0.3: those that 0.2 has too, by the same tests, and pages.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

// What the tests of both versions call it.
extern crate lightning_0_3 as lightning;

mod pages;
#[allow(dead_code, reason = "the nodes of the other tests ask it for more")]
#[path = "../ldk/server.rs"]
mod server;
#[path = "../ldk/traits.rs"]
mod traits;

use std::sync::Arc;

use highwater_replica::ldk_0_3::{Persistence, classes};
use highwater_replica::local::{LocalStore, MemoryStore};
use highwater_replica::{Classes, Permissions, Remote, ReplicaKeys, ReplicatedStore, Started};
use lightning::util::persist::{MigratableKVStore, MigratableKVStoreSync};

use server::Recorder;

type Names = Vec<(String, String, String)>;

/// A store of its own, and what it has sent.
fn store() -> (Arc<Recorder>, Box<ReplicatedStore>) {
    let remote = Arc::<Recorder>::default();
    let (local, with) = (Arc::<MemoryStore>::default(), classes(Persistence::Asynchronous));
    (Arc::clone(&remote), Box::new(open(local, remote, with).0))
}

/// All names in a store, by both traits that this version has for it.
fn all_keys(store: &ReplicatedStore) -> lightning::io::Result<Names> {
    let later = futures::executor::block_on(MigratableKVStore::list_all_keys(store));
    let now = MigratableKVStoreSync::list_all_keys(store);
    assert_eq!(now.as_ref().ok(), later.as_ref().ok());
    now
}

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], "node").unwrap()
}

fn open(
    local: Arc<dyn LocalStore>,
    remote: Arc<dyn Remote>,
    classes: Classes,
) -> (ReplicatedStore, Started) {
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("the machine is lost".to_owned()),
        ..Permissions::default()
    };
    let builder = ReplicatedStore::builder(local, remote, keys());
    builder.classes(classes).permissions(permissions).open().unwrap()
}
