//! A replicated store where LDK takes a store: what is written through its trait `KVStoreSync` is read again on
//! another machine: `cargo run --example ldk --features ldk`. Stores and server are in this process.
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::sync::Arc;

use highwater::Result;
use highwater_replica::ldk::{Persistence, classes};
use highwater_replica::local::MemoryStore;
use highwater_replica::remote::MemoryRemote;
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};
use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as MONITORS, KVStoreSync,
};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let server = Arc::<MemoryRemote>::default();
    // What LDK is given: `MonitorUpdatingPersister::new(store, …)`, or `build_with_store(store)` of `ldk-node`.
    let store: Arc<dyn KVStoreSync> = Arc::new(open(&server)?);
    store.write(MONITORS, "", "channel-1", b"update 41".to_vec()).map_err(told)?;
    store.write("", "", "manager", b"one channel".to_vec()).map_err(told)?;
    println!("written: {:?} of {MONITORS}", store.list(MONITORS, "").map_err(told)?);

    // The machine is lost, and another one begins with nothing.
    drop(store);
    let store: Arc<dyn KVStoreSync> = Arc::new(open(&server)?);
    let monitor = store.read(MONITORS, "", "channel-1").map_err(told)?;
    println!("read on another machine: {}", String::from_utf8(monitor)?);
    Ok(())
}

/// LDK's errors are errors of the standard library only where its dependencies are built so.
fn told(error: lightning::io::Error) -> String {
    error.to_string()
}

/// Over an empty store of its own; a node has a `SqliteStore` or a `RocksStore`, and a `VssRemote`.
fn open(server: &Arc<MemoryRemote>) -> Result<ReplicatedStore> {
    // An empty disk and an empty server are taken for a new node; a disk alone, for a machine that was lost.
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("the machine is lost".to_owned()),
        ..Permissions::default()
    };
    let (local, keys) = (MemoryStore::default(), ReplicaKeys::from_entropy(&[7; 32], "my-node")?);
    let builder = ReplicatedStore::builder(Arc::new(local), Arc::clone(server) as _, keys);
    let builder = builder.classes(classes(Persistence::Synchronous)).permissions(permissions);
    Ok(builder.open()?.0)
}
