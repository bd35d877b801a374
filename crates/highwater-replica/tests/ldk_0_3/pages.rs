//! Pages: newest first, whatever is written meanwhile, over restarts and machines.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::env::Env;
use highwater_replica::ldk_0_3::{PAGE, Persistence, classes};
use highwater_replica::local::{LocalStore, MemoryStore, SqliteStore};
use highwater_replica::{Class, Classes, FillOptions, ReplicatedStore, Started, restore_to};
use lightning::io;
use lightning::util::persist::{
    KVStoreSync, PageToken, PaginatedKVStore, PaginatedKVStoreSync, PaginatedListResponse,
};

use super::server::Recorder;
use super::{keys, open, store};

fn in_order() -> Classes {
    classes(Persistence::Synchronous)
}

fn write(store: &ReplicatedStore, key: &str) {
    KVStoreSync::write(store, "payments", "", key, vec![1]).unwrap();
}

fn remove(store: &ReplicatedStore, key: &str) {
    KVStoreSync::remove(store, "payments", "", key, false).unwrap();
}

/// One page, by both traits.
fn page(store: &ReplicatedStore, token: Option<&PageToken>) -> io::Result<PaginatedListResponse> {
    PaginatedKVStoreSync::list_paginated(store, "payments", "", token.cloned())
}

/// All pages, one after the other.
fn listed(store: &ReplicatedStore) -> Vec<String> {
    let (mut keys, mut token) = (Vec::new(), None);
    loop {
        let found = page(store, token.as_ref()).unwrap();
        let later = PaginatedKVStore::list_paginated(store, "payments", "", token);
        assert_eq!(futures::executor::block_on(later).unwrap(), found);
        assert!(found.keys.len() <= PAGE);
        keys.extend(found.keys);
        token = found.next_page_token;
        if token.is_none() {
            return keys;
        }
    }
}

fn numbered(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| format!("k{number}")).collect()
}

#[test]
fn pages_have_the_newest_key_first_and_a_token_where_more_follows() {
    let (_, store) = store();
    assert_eq!(page(&store, None).unwrap().keys, Vec::<String>::new());
    for number in 0..PAGE {
        write(&store, &format!("k{number}"));
    }
    let whole = page(&store, None).unwrap();
    assert_eq!((whole.keys, whole.next_page_token), (numbered((0..PAGE).rev()), None));
    for number in PAGE..2 * PAGE + 1 {
        write(&store, &format!("k{number}"));
    }
    // Neither what is written again nor what other namespaces hold changes anything of it.
    for number in (0..PAGE).step_by(3) {
        write(&store, &format!("k{number}"));
    }
    for (primary, secondary) in [("payment", ""), ("payments", "old"), ("payments_", ""), ("", "")]
    {
        KVStoreSync::write(&*store, primary, secondary, "other", vec![1]).unwrap();
        let alone =
            PaginatedKVStoreSync::list_paginated(&*store, primary, secondary, None).unwrap();
        assert_eq!((alone.keys, alone.next_page_token), (vec!["other".to_owned()], None));
    }
    assert_eq!(listed(&store), numbered((0..2 * PAGE + 1).rev()));
    // Who comes back is new.
    remove(&store, "k3");
    remove(&store, "k9");
    write(&store, "k3");
    let mut expected = numbered((0..2 * PAGE + 1).rev().filter(|number| ![3, 9].contains(number)));
    expected.insert(0, "k3".to_owned());
    assert_eq!(listed(&store), expected);
}

#[test]
fn monitors_have_pages_too_and_a_class_makes_no_difference() {
    let (_, store) = store();
    // The ones go to the server first, the others behind.
    for namespace in ["monitors", "payments"] {
        for key in ["a", "c", "b"] {
            KVStoreSync::write(&*store, namespace, "", key, vec![1]).unwrap();
        }
        KVStoreSync::write(&*store, namespace, "", "c", vec![2]).unwrap();
        let keys = PaginatedKVStoreSync::list_paginated(&*store, namespace, "", None).unwrap().keys;
        assert_eq!(keys, ["b", "c", "a"]);
    }
    // And these, but for one, never.
    for key in ["scorer", "manager", "network_graph"] {
        KVStoreSync::write(&*store, "", "", key, vec![1]).unwrap();
    }
    let keys = PaginatedKVStoreSync::list_paginated(&*store, "", "", None).unwrap().keys;
    assert_eq!(keys, ["network_graph", "manager", "scorer"]);
}

#[test]
fn a_token_goes_on_where_its_key_and_its_neighbours_are_gone() {
    let (_, store) = store();
    (0..3 * PAGE).for_each(|number| write(&store, &format!("k{number}")));
    let first = page(&store, None).unwrap();
    let token = first.next_page_token.unwrap();
    // The last of the first page, and those before and behind it.
    let gone = 2 * PAGE - 5..2 * PAGE + 5;
    gone.for_each(|number| remove(&store, &format!("k{number}")));
    // One of them comes back; it was given, and is not given again.
    write(&store, &format!("k{}", 2 * PAGE));
    let second = page(&store, Some(&token)).unwrap();
    assert_eq!(second.keys, numbered((PAGE - 5..2 * PAGE - 5).rev()));
    // All that follows goes too.
    (0..2 * PAGE).for_each(|number| remove(&store, &format!("k{number}")));
    let none = page(&store, Some(&token)).unwrap();
    assert_eq!((none.keys, none.next_page_token), (Vec::new(), None));
}

#[test]
fn what_is_no_token_of_this_namespace_is_refused() {
    let (_, store) = store();
    for number in 0..PAGE + 1 {
        write(&store, &format!("k{number}"));
        KVStoreSync::write(&*store, "payments", "old", &format!("k{number}"), vec![1]).unwrap();
    }
    let token = page(&store, None).unwrap().next_page_token.unwrap();
    assert!(page(&store, Some(&token)).is_ok());
    let refused = |namespaces: (&str, &str), token: &str| {
        let token = Some(PageToken::new(token.to_owned()));
        let (primary, secondary) = namespaces;
        let error =
            PaginatedKVStoreSync::list_paginated(&*store, primary, secondary, token.clone())
                .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{token:?}: {error}");
        assert!(error.to_string().contains("page token"), "{error}");
        let later = PaginatedKVStore::list_paginated(&*store, primary, secondary, token);
        assert!(futures::executor::block_on(later).is_err());
    };
    let text = token.as_str();
    refused(("payments", "old"), text);
    refused(("", ""), text);
    for junk in ["", "k3", "é", "0000000000000000é", &"f".repeat(32), &"0".repeat(1 << 16)] {
        refused(("payments", ""), junk);
    }
    for place in 0..text.len() {
        refused(("payments", ""), &text[..place]);
        let mut changed = text.as_bytes().to_vec();
        changed[place] ^= 1;
        refused(("payments", ""), &String::from_utf8(changed).unwrap());
    }
    refused(("payments", ""), &format!("{text}0"));
    // The namespaces themselves are looked at first.
    let error = PaginatedKVStoreSync::list_paginated(&*store, "", "old", None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_token_goes_on_after_a_restart_and_new_keys_stay_out_of_its_pages() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorder>::default());
    let start = || open(Arc::clone(&local) as _, Arc::clone(&remote) as _, in_order());
    let (store, _) = start();
    (0..2 * PAGE + 10).for_each(|number| write(&store, &format!("k{number}")));
    let first = page(&store, None).unwrap();
    store.stop().unwrap();
    drop(store);
    let (store, started) = start();
    assert_eq!(started, Started::Resumed);
    // The newest ones go, and others come in their place.
    (PAGE + 10..2 * PAGE + 10).for_each(|number| remove(&store, &format!("k{number}")));
    store.stop().unwrap();
    drop(store);
    let (store, _) = start();
    (0..PAGE).for_each(|number| write(&store, &format!("new{number}")));
    let second = page(&store, first.next_page_token.as_ref()).unwrap();
    assert_eq!(second.keys, numbered((10..PAGE + 10).rev()));
    let third = page(&store, second.next_page_token.as_ref()).unwrap();
    assert_eq!((third.keys, third.next_page_token), (numbered((0..10).rev()), None));
    assert_eq!(listed(&store)[..2], ["new49", "new48"]);
}

#[test]
fn a_store_that_comes_back_from_the_server_has_the_order_of_its_last_writes() {
    let remote = Arc::<Recorder>::default();
    let empty = || Arc::<MemoryStore>::default() as Arc<dyn LocalStore>;
    let (store, _) = open(empty(), Arc::clone(&remote) as _, in_order());
    (0..PAGE + 20).for_each(|number| write(&store, &format!("k{number}")));
    write(&store, "k5");
    let token = page(&store, None).unwrap().next_page_token;
    store.flush(std::time::Duration::from_secs(60)).unwrap();
    drop(store);
    let (store, started) = open(empty(), Arc::clone(&remote) as _, in_order());
    assert!(matches!(started, Started::Hydrated { .. }), "{started:?}");
    let mut expected = numbered((0..PAGE + 20).rev().filter(|number| *number != 5));
    expected.insert(0, "k5".to_owned());
    assert_eq!(listed(&store), expected);
    // Numbers were given anew: a token of before would go on anywhere.
    assert_eq!(page(&store, token.as_ref()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    // From here on it is the order in which they came.
    write(&store, "k7");
    write(&store, "new");
    expected.insert(0, "new".to_owned());
    assert_eq!(listed(&store), expected);
}

#[test]
fn a_database_that_was_restored_for_a_node_has_that_order_too() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, store) = store();
    ["b", "c", "a", "b"].iter().for_each(|key| write(&store, key));
    store.release().unwrap();
    drop(store);
    let (path, options) = (dir.path().join("node.sqlite"), FillOptions::default());
    restore_to(&path, Arc::clone(&remote) as _, &keys(), &options, &Env::system()).unwrap();
    let local = Arc::new(SqliteStore::open(&path).unwrap());
    let (store, started) = open(local, remote, in_order());
    assert_eq!(started, Started::Resumed);
    assert_eq!(listed(&store), ["b", "a", "c"]);
}

#[test]
fn a_store_without_the_order_that_fills_itself_from_the_server_gets_it_later() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorder>::default());
    let (store, _) = open(Arc::<MemoryStore>::default(), Arc::clone(&remote) as _, in_order());
    ["b", "c", "a"].iter().for_each(|key| write(&store, key));
    store.release().unwrap();
    drop(store);
    let start = |with| open(Arc::clone(&local) as _, Arc::clone(&remote) as _, with);
    let (store, started) = start(Classes::all(Class::LocalOnly));
    assert!(matches!(started, Started::Hydrated { .. }), "{started:?}");
    // Nothing of this is sent: the head stays what it was when the store was filled.
    write(&store, "0");
    remove(&store, "c");
    drop(store);
    assert_eq!(listed(&start(in_order()).0), ["b", "a", "0"]);
}

#[test]
fn a_store_of_before_gets_an_order_and_keeps_it() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorder>::default());
    let start = |with| open(Arc::clone(&local) as _, Arc::clone(&remote) as _, with).0;
    let without = || Classes::all(Class::LocalFirst);
    let store = start(without());
    ["b", "c", "a"].iter().for_each(|key| write(&store, key));
    let error = page(&store, None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    drop(store);
    let store = start(in_order());
    assert_eq!(listed(&store), ["c", "b", "a"]);
    write(&store, "0");
    write(&store, "a");
    assert_eq!(listed(&store), ["0", "c", "b", "a"]);
    drop(store);
    // An older program deletes, makes, and makes again.
    let store = start(without());
    ["c", "b", "0"].iter().for_each(|key| remove(&store, key));
    ["z", "y", "0"].iter().for_each(|key| write(&store, key));
    drop(store);
    let store = start(in_order());
    assert_eq!(listed(&store), ["z", "y", "0", "a"]);
}

/// Writers create, change, delete and create again, while others go from page to page.
#[test]
fn pages_are_right_while_others_write() {
    const STAY: usize = 3 * PAGE;
    const ROUNDS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let local = SqliteStore::open(dir.path().join("node.sqlite")).unwrap();
    let (store, _) = open(Arc::new(local), Arc::<Recorder>::default(), in_order());
    for number in 0..STAY {
        write(&store, &format!("stays{number}"));
        write(&store, &format!("goes{number}"));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let number = (round * 3 + writer) % STAY;
                        write(store, &format!("stays{number}"));
                        remove(store, &format!("goes{number}"));
                        write(store, &format!("new{round}-{writer}"));
                        if round % 2 == 0 {
                            write(store, &format!("goes{number}"));
                        }
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = false;
                    while !last {
                        last = done.load(Ordering::SeqCst);
                        each_once(&listed_slowly(&store), STAY);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    // What the rows say is what is there.
    let rows: BTreeSet<String> = listed(&store).into_iter().collect();
    let all = KVStoreSync::list(&store, "payments", "").unwrap();
    assert_eq!(rows, all.into_iter().collect());
}

/// All pages while others write.
fn listed_slowly(store: &ReplicatedStore) -> Vec<String> {
    let (mut keys, mut token) = (Vec::new(), None);
    loop {
        let found = page(store, token.as_ref()).unwrap();
        keys.extend(found.keys);
        token = found.next_page_token;
        if token.is_none() {
            return keys;
        }
    }
}

/// No key twice, and each that stays, in the order in which they came.
fn each_once(keys: &[String], stay: usize) {
    let mut times: HashMap<&str, usize> = HashMap::new();
    keys.iter().for_each(|key| *times.entry(key).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "a key is given twice");
    let stayed: Vec<&String> = keys.iter().filter(|key| key.starts_with("stays")).collect();
    let expected: Vec<String> = (0..stay).rev().map(|number| format!("stays{number}")).collect();
    assert!(stayed.into_iter().eq(&expected), "a key is missing, or in another place");
}
