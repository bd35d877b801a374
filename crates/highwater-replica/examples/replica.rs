//! A node's store, kept on a server write by write: the disk is lost, and an empty one is filled from the
//! server: `cargo run --example replica`. All of it happens in a temporary directory, and the server in this process.
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater::{Kind, Result};
use highwater_replica::local::SqliteStore;
use highwater_replica::remote::MemoryRemote;
use highwater_replica::{Class, Classes, Permissions, ReplicaKeys, ReplicatedStore, Started};

/// What the keys come from: the words of the node's wallet. Nobody else can read what is on the server.
const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    // In its place a node has `VssRemote::builder(url, store)`.
    let server = Arc::<MemoryRemote>::default();

    let new = Permissions { allow_empty: true, ..Permissions::default() };
    let (store, _) = open(&dir.path().join("first.sqlite"), &server, new)?;
    store.write("monitors/1", "state 7")?; // The server has it when this returns.
    store.write("peers/1", "10.0.0.7:9735")?; // Durable here; the server gets it as soon as can be.
    store.flush(Duration::from_secs(10))?;
    let status = store.status()?;
    println!("written: {} values, {} not yet sent", status.values, status.pending_writes);

    // The machine is lost. Nobody has given the store up, so its next owner must say why it takes it.
    drop(store);
    let disk = dir.path().join("second.sqlite");
    match open(&disk, &server, Permissions::default()) {
        Err(error) if error.kind() == Kind::Fenced => println!("refused: {error}"),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("a second owner had no need to take the store over".into()),
    }
    let take_over = Some("the first machine has burnt".to_owned());
    let (store, started) =
        open(&disk, &server, Permissions { take_over, ..Permissions::default() })?;
    if let Started::Hydrated { values, bytes } = started {
        println!("filled from the server: {values} values, {bytes} bytes");
    }
    for (key, value) in store.scan(b"", None, 10)? {
        println!("{}: {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }

    // A node that ends in good order gives the store up.
    store.release()?;
    Ok(())
}

fn open(
    path: &Path,
    server: &Arc<MemoryRemote>,
    permissions: Permissions,
) -> Result<(ReplicatedStore, Started)> {
    let local = Arc::new(SqliteStore::open(path)?);
    let keys = ReplicaKeys::from_mnemonic(WORDS, "my-node")?;
    ReplicatedStore::builder(local, Arc::clone(server) as _, keys)
        .classes(Classes::all(Class::LocalFirst).with("monitors/", Class::RemoteFirst))
        .owner("operator@node-1")
        .permissions(permissions)
        .open()
}
