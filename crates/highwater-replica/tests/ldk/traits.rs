//! The traits of `lightning`, as its documentation has them: the same tests for each version of it.

use highwater_replica::ReplicatedStore;
use lightning::io::ErrorKind;
use lightning::util::persist::{self, KVStore, KVStoreSync, migrate_kv_store_data};

use super::{all_keys, store};

/// The one trait alone, whatever else a store can do.
fn waiting(store: &ReplicatedStore) -> &impl KVStore {
    store
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
    let later = waiting(&store);
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
    let later = waiting(&store);
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

#[test]
fn the_names_of_ldk_are_those_that_are_replicated_with_care() {
    let (remote, store) = store();
    let values = || remote.server.values().keys().filter(|name| name.starts_with("v.")).count();
    let monitors = [
        (
            persist::CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
            persist::CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
        ),
        (persist::CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE, "chan"),
        (
            persist::ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
            persist::ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
        ),
    ];
    for (before, (primary, secondary)) in monitors.into_iter().enumerate() {
        KVStoreSync::write(&*store, primary, secondary, "1", vec![1]).unwrap();
        assert_eq!(values(), before + 1, "{primary} is not on the server");
    }
    let graph = (
        persist::NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
        persist::NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE,
        persist::NETWORK_GRAPH_PERSISTENCE_KEY,
    );
    let scorer = (
        persist::SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
        persist::SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
        persist::SCORER_PERSISTENCE_KEY,
    );
    for (primary, secondary, key) in [graph, scorer] {
        KVStoreSync::write(&*store, primary, secondary, key, vec![1]).unwrap();
    }
    store.flush(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(values(), monitors.len());
    let longest = "x".repeat(persist::KVSTORE_NAMESPACE_KEY_MAX_LEN);
    let alphabet = persist::KVSTORE_NAMESPACE_KEY_ALPHABET;
    KVStoreSync::write(&*store, &longest, &longest, alphabet, vec![1]).unwrap();
    assert_eq!(KVStoreSync::list(&*store, &longest, &longest).unwrap(), [alphabet]);
}

#[test]
fn all_of_a_store_moves_to_another_one_or_none_of_it() {
    let ((_, mut from), (_, mut to)) = (store(), store());
    let mut names = Vec::new();
    for (primary, secondary) in [("", ""), ("payments", ""), ("payments", "old"), ("peers", "")] {
        for number in 0..100 {
            let key = format!("k{number}");
            KVStoreSync::write(&*from, primary, secondary, &key, vec![number]).unwrap();
            names.push((primary.to_owned(), secondary.to_owned(), key));
        }
    }
    KVStoreSync::remove(&*from, "", "", "k7", false).unwrap();
    names.retain(|(primary, _, key)| !primary.is_empty() || key != "k7");
    names.sort();
    let sorted = |store: &ReplicatedStore| {
        let mut all = all_keys(store).unwrap();
        all.sort();
        all
    };
    assert_eq!(sorted(&from), names);
    migrate_kv_store_data(&mut *from, &mut *to).unwrap();
    assert_eq!(sorted(&to), names);
    assert_eq!(KVStoreSync::read(&*to, "payments", "old", "k41").unwrap(), [41]);
    // What LDK has no names for would be left behind without a word.
    for foreign in ["mine", "a/b/c/d", "a//", "/b/c", "a/b/c d"] {
        ReplicatedStore::write(&from, foreign, "1").unwrap();
        let refused = all_keys(&from).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{foreign}");
        ReplicatedStore::remove(&from, foreign).unwrap();
    }
    assert_eq!(sorted(&from), names);
}
