//! What every store keeps: one suite for a local directory, S3 and Azure; and what a probe finds of
//! stores that don't keep it.

use std::sync::Barrier;

use super::*;
use crate::Kind;
use crate::env::Env;
use crate::ids::{NodeName, SnapshotId};
use crate::vault::location::Location;
use crate::vault::seal::ObjectKind;
use crate::vault::servers::{Product, Server};
use crate::vault::{Actor, CreateOptions, Secret, Vault, sealed};

fn remote(server: &Server, prefix: &str) -> Location {
    let location: Location = server.url(prefix).parse().unwrap();
    location.with_settings(server.settings()).unwrap()
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// The suite. `open` gives the same empty store, each time over connections of its own.
fn keeps_its_promises(open: &dyn Fn() -> Store) {
    let store = open();
    assert!(store.is_empty().unwrap());
    small_objects(&store, &open());
    large_objects(&store);
    races(open);
    let found = store.probe(&Env::system()).unwrap();
    assert!(found.traits.create_only, "{found:?}");
    assert!(found.unfit.is_empty() && found.unfenced.is_empty(), "{found:?}");
    for listed in store.list(None).unwrap() {
        assert!(!listed.name.starts_with("intents"), "the probe leaves nothing: {listed:?}");
        store.delete(&listed.name).unwrap();
    }
    assert!(store.is_empty().unwrap());
}

fn small_objects(store: &Store, other: &Store) {
    assert!(store.put_new("a/b/one", &b"0123456789"[..]).unwrap());
    assert!(!other.put_new("a/b/one", &b"other"[..]).unwrap());
    assert_eq!(other.get("a/b/one").unwrap(), &b"0123456789"[..]);
    assert!(store.put_new("a/empty", &b""[..]).unwrap());
    assert_eq!(store.get("a/empty").unwrap(), &b""[..]);
    assert_eq!(other.get_range("a/b/one", 3..7).unwrap(), &b"3456"[..]);
    assert_eq!(other.get_range("a/b/one", 8..20).unwrap(), &b"89"[..]);
    let beyond = other.get_range("a/b/one", 10..12).unwrap_err();
    assert_eq!(beyond.kind(), Kind::Corrupt, "{beyond}");
    for missing in [
        store.get("a/b/two").map(drop),
        store.get_range("a/b/two", 0..1).map(drop),
        store.get("a/b").map(drop),
    ] {
        assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(store.size("a/b/one").unwrap(), Some(10));
    assert_eq!(store.size("a/b/two").unwrap(), None);
    assert!(store.put_new("ab", &b"x"[..]).unwrap());
    let names = |prefix| {
        let listed = other.list(prefix).unwrap();
        listed.into_iter().map(|listed| (listed.name, listed.size)).collect::<Vec<_>>()
    };
    assert_eq!(names(Some("a")), [("a/b/one".to_owned(), 10), ("a/empty".to_owned(), 0)]);
    assert_eq!(names(None).len(), 3);
    assert_eq!(names(Some("c")), []);
    for name in ["a/b/one", "a/b/one", "a/empty", "ab", "never"] {
        store.delete(name).unwrap();
    }
    assert!(other.is_empty().unwrap());
}

fn large_objects(store: &Store) {
    // Less than a part, a part to the byte, several parts and a rest.
    for (number, length) in [(1, 300), (2, 8 << 20), (3, (33 << 20) + 5)] {
        let name = format!("packs/{number}");
        let bytes = noise(number, length);
        let mut upload = store.upload(&name).unwrap();
        for piece in bytes.chunks(1_000_003) {
            upload.write(piece).unwrap();
        }
        assert_eq!(store.size(&name).unwrap(), None, "nothing is seen before the end");
        assert_eq!(upload.finish().unwrap().wait().unwrap(), length as u64);
        assert_eq!(store.get(&name).unwrap(), bytes);
        let middle = store.get_range(&name, 200..250).unwrap();
        assert_eq!(middle, bytes[200..250]);
    }
    for length in [5, 20 << 20] {
        let mut upload = store.upload("packs/given-up").unwrap();
        upload.write(&noise(9, length)).unwrap();
        upload.abort().unwrap();
        assert_eq!(store.size("packs/given-up").unwrap(), None);
    }
    for number in 1..=3 {
        store.delete(&format!("packs/{number}")).unwrap();
    }
    assert!(store.is_empty().unwrap());
}

fn races(open: &dyn Fn() -> Store) {
    let stores: Vec<Store> = (0..6).map(|_| open()).collect();
    for round in 0..8 {
        let name = format!("race/{round}");
        let start = Barrier::new(stores.len());
        let won: Vec<u8> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..)
                .zip(&stores)
                .map(|(number, store)| {
                    let (start, name) = (&start, &name);
                    scope.spawn(move || {
                        start.wait();
                        let won = store.put_new(name, noise(number, 5000)).unwrap();
                        won.then_some(number)
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(stores[0].get(&name).unwrap(), noise(won[0], 5000));
    }
}

#[test]
fn a_local_directory_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Local(dir.path().join("vault"));
    Store::create(&location, &Env::system()).unwrap();
    keeps_its_promises(&|| Store::open(&location, &Env::system()).unwrap());
}

#[test]
fn s3_keeps_its_promises() {
    let Some(server) = Server::start(Product::Moto) else { return };
    let location = remote(&server, "a/prefix");
    keeps_its_promises(&|| Store::open(&location, &Env::system()).unwrap());
}

#[test]
fn azure_keeps_its_promises() {
    let Some(server) = Server::start(Product::Azurite) else { return };
    let location = remote(&server, "a/prefix");
    keeps_its_promises(&|| Store::open(&location, &Env::system()).unwrap());
}

/// What of two vaults in one bucket the one sees of the other.
#[test]
fn a_prefix_hides_what_lies_beside_it() {
    let Some(server) = Server::start(Product::Moto) else { return };
    let open = |prefix| Store::open(&remote(&server, prefix), &Env::system()).unwrap();
    let (one, longer, whole) = (open("a"), open("ab"), open(""));
    assert!(one.put_new("x", &b"1"[..]).unwrap());
    assert!(longer.is_empty().unwrap());
    assert!(longer.put_new("x", &b"2"[..]).unwrap());
    assert_eq!(one.get("x").unwrap(), &b"1"[..]);
    assert_eq!(one.list(None).unwrap().len(), 1);
    let names: Vec<String> =
        whole.list(None).unwrap().into_iter().map(|listed| listed.name).collect();
    assert_eq!(names, ["a/x", "ab/x"]);
    let error = Store::create(&remote(&server, "a"), &Env::system()).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let Some(server) = Server::start(Product::S3rver) else { return };
    let location = remote(&server, "vault");
    for _ in 0..3 {
        let store = Store::open(&location, &Env::system()).unwrap();
        let found = store.probe(&Env::system()).unwrap();
        assert!(!found.traits.create_only && !found.traits.compare_and_set, "{found:?}");
        assert!(found.unfit.is_empty(), "{found:?}");
        let error = found.judge("s3://b", false).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.remedies().contains(&crate::Remedy::Unfenced));
        assert!(store.is_empty().unwrap());
    }
}

#[test]
fn a_store_that_looks_first_and_writes_then_is_found_out() {
    let Some(server) = Server::start(Product::S3sFs) else { return };
    let location = remote(&server, "vault");
    let mut caught = 0;
    for _ in 0..20 {
        let store = Store::open(&location, &Env::system()).unwrap();
        let found = store.probe(&Env::system()).unwrap();
        caught += usize::from(!found.traits.create_only);
    }
    assert_eq!(caught, 20);
}

fn vault_in(server: &Server, unfenced: bool) -> Vault {
    let location = remote(server, "vault");
    let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
    let options = CreateOptions { recovery: false, unfenced };
    Vault::create_with(&location, &secret, &options, &Env::system()).unwrap().vault
}

#[test]
fn a_witness_lives_in_s3() {
    let Some(server) = Server::start(Product::Moto) else { return };
    let vault = vault_in(&server, true);
    assert!(vault.is_fenced(), "a store that is fine is not made worse");
    let node: NodeName = "node".parse().unwrap();
    for number in 1..=10 {
        assert!(vault.put_witness(&node, number, b"{}").unwrap(), "{number}");
        assert!(!vault.put_witness(&node, number, b"{}").unwrap(), "{number} again");
    }
    assert_eq!(vault.newest_witness(&node).unwrap(), Some((10, b"{}".to_vec())));
    // Number 2 was pruned: its name is free, and whoever slept since then must not win it.
    assert!(!vault.put_witness(&node, 2, b"{}").unwrap());
    let won: usize = std::thread::scope(|scope| {
        let racers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| vault.put_witness(&node, 11, b"{}").unwrap())).collect();
        racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn without_a_fence_two_writers_that_meet_are_told() {
    let Some(server) = Server::start(Product::S3rver) else { return };
    let vault = vault_in(&server, true);
    assert!(!vault.is_fenced());
    assert!(vault.warnings()[0].contains("two writers"));
    let node: NodeName = "node".parse().unwrap();
    let snapshot = SnapshotId::from_bytes([7; 16]);
    for _ in 0..12 {
        vault.record_test(&node, snapshot, true).unwrap();
    }
    let names = || {
        let listed = vault.store().list(Some("nodes/node")).unwrap();
        listed.into_iter().map(|listed| listed.name).collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 8);
    let record = vault.node_record(&node).unwrap().unwrap();
    assert_eq!(record.number, 12);

    let twin = format!("nodes/node/{:020}-0123456789abcdef", 12);
    let object = sealed::seal(&vault, ObjectKind::Node, &twin, &record).unwrap();
    assert!(vault.store().put_new(&twin, object).unwrap());
    let error = vault.record_test(&node, snapshot, true).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains(&twin), "{error}");
    // Who only reads goes on.
    assert!(vault.readable_record(&node).unwrap().is_some());
    vault.store().delete(&twin).unwrap();
    vault.record_test(&node, snapshot, true).unwrap();

    for refused in [
        vault.refuse_overwriting_store(),
        vault
            .take_over(&node, &Actor { state_dir: "/nowhere".into(), name: "a".into() }, "b")
            .map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.message().contains("does not keep two writers apart"), "{error}");
    }
    let plain = record_named(&vault, &node, 14);
    assert_eq!(vault.open_node_record(&plain).unwrap_err().kind(), Kind::Corrupt);
}

/// A record under the name that it would have in a vault with a fence.
fn record_named(vault: &Vault, node: &NodeName, number: u64) -> String {
    let name = format!("nodes/{node}/{number:020}");
    let record = vault.node_record(node).unwrap().unwrap();
    let record = crate::vault::NodeRecord { number, ..record };
    let object = sealed::seal(vault, ObjectKind::Node, &name, &record).unwrap();
    assert!(vault.store().put_new(&name, object).unwrap());
    name
}

/// A node that is asynchronous drops its last agent, and with it the vault, wherever it likes.
#[test]
fn a_store_can_be_dropped_where_tasks_run() {
    let dir = tempfile::tempdir().unwrap();
    let location: Location = dir.path().join("vault").to_str().unwrap().parse().unwrap();
    let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
    let made =
        Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop(made) });
}
