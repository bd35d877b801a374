//! What every store keeps: one suite for a local directory, S3 and Azure.

use std::sync::Barrier;

use super::*;
use crate::Kind;
use crate::vault::{CreateOptions, Secret, Vault};

#[cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
mod remote;

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
