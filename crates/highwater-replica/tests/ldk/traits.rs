//! The traits of `lightning`, as its documentation has them.

use std::sync::Arc;

use highwater_replica::ldk::Persistence;
use highwater_replica::local::MemoryStore;
use lightning::io::ErrorKind;
use lightning::util::persist::{KVStore, KVStoreSync};

use super::server::Recorder;
use super::{Store, open};

fn store() -> (Arc<Recorder>, Arc<highwater_replica::ReplicatedStore>) {
    let remote = Arc::<Recorder>::default();
    let local = Arc::<MemoryStore>::default();
    let Store::Replicated(store, _) =
        open(local, Arc::clone(&remote) as _, Persistence::Asynchronous)
    else {
        unreachable!()
    };
    (remote, store)
}

#[test]
fn values_are_written_read_listed_and_removed_by_namespaces() {
    let (_, store) = store();
    let sync: &dyn KVStoreSync = &*store;
    for (primary, secondary) in [("", ""), ("payments", ""), ("payments", "old")] {
        assert_eq!(sync.list(primary, secondary).unwrap(), Vec::<String>::new());
        sync.write(primary, secondary, "b", vec![1]).unwrap();
        sync.write(primary, secondary, "a", vec![2]).unwrap();
        sync.write(primary, secondary, "b", vec![3; 100_000]).unwrap();
        assert_eq!(sync.list(primary, secondary).unwrap(), ["a", "b"]);
        assert_eq!(sync.read(primary, secondary, "b").unwrap(), vec![3; 100_000]);
        sync.remove(primary, secondary, "a", false).unwrap();
        sync.remove(primary, secondary, "a", true).unwrap();
        assert_eq!(sync.list(primary, secondary).unwrap(), ["b"]);
        let missing = sync.read(primary, secondary, "a").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn names_that_ldk_would_not_take_are_refused() {
    let (_, store) = store();
    let sync: &dyn KVStoreSync = &*store;
    let long = "x".repeat(121);
    for (primary, secondary, key) in
        [("", "", ""), ("", "s", "k"), ("a/b", "", "k"), ("a", "", "k\0"), ("a", "", &long)]
    {
        let refused = sync.write(primary, secondary, key, vec![1]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{primary}/{secondary}/{key}");
        let later = KVStore::write(&*store, primary, secondary, key, vec![1]);
        let refused = futures::executor::block_on(later).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{primary}/{secondary}/{key}");
    }
}

#[test]
fn of_two_writes_to_one_key_the_second_call_stays() {
    let (_, store) = store();
    let later: &dyn KVStore = &*store;
    for round in 0..50u8 {
        let first = later.write("payments", "", "k", vec![round, 1]);
        let second = later.write("payments", "", "k", vec![round, 2]);
        // Whoever is waited for first, or never.
        if round % 2 == 0 {
            futures::executor::block_on(second).unwrap();
            drop(first);
        } else {
            futures::executor::block_on(async { futures::join!(second, first) }).0.unwrap();
        }
        let read = futures::executor::block_on(later.read("payments", "", "k")).unwrap();
        assert_eq!(read, [round, 2]);
    }
}

#[test]
fn a_monitor_is_on_the_server_when_its_write_is_done_and_a_scorer_never_is() {
    let (remote, store) = store();
    let later: &dyn KVStore = &*store;
    let values = || remote.server.values().keys().filter(|name| name.starts_with("v.")).count();
    let monitor = later.write("monitors", "", "chan", vec![1; 10]);
    // What LDK writes next carries it.
    futures::executor::block_on(later.write("", "", "manager", vec![2; 10])).unwrap();
    futures::executor::block_on(monitor).unwrap();
    assert_eq!(values(), 2);
    futures::executor::block_on(later.write("", "", "scorer", vec![3; 10])).unwrap();
    futures::executor::block_on(later.write("", "", "network_graph", vec![4; 10])).unwrap();
    store.flush(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(values(), 2);
    // What is removed lazily is gone here at once.
    futures::executor::block_on(later.remove("monitors", "", "chan", true)).unwrap();
    assert_eq!(futures::executor::block_on(later.list("monitors", "")).unwrap(), [""; 0]);
}
