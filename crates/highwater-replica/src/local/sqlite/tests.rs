//! A look leaves nothing behind, whatever the node does meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use highwater::Kind;

use super::*;

/// Names and sizes in a directory, and the bytes of the database.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            // What SQLite keeps there belongs to no process.
            let bytes = match name.ends_with("-shm") {
                true => Vec::new(),
                false => std::fs::read(entry.path()).unwrap(),
            };
            (name, bytes)
        })
        .collect()
}

fn value(path: &Path) -> Result<Option<Vec<u8>>> {
    SqliteStore::read_only(path, |store| store.get(Space::Data, b"k"))
}

#[test]
fn a_look_at_a_running_node_and_at_one_that_has_ended_leaves_everything_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node ä?#%.sqlite");
    assert_eq!(value(&path).unwrap_err().kind(), Kind::NotFound);
    assert!(files(dir.path()).is_empty());
    let store = SqliteStore::open(&path).unwrap();
    store.write(&[Op::put(Space::Data, *b"k", *b"v")]).unwrap();
    let before = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!((value(&path).unwrap().unwrap(), before), (b"v".to_vec(), 3));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    store.write(&[Op::put(Space::Data, *b"k", *b"w")]).unwrap();
    drop(store);
    let before = files(dir.path());
    assert_eq!(before.len(), 1);
    assert_eq!(value(&path).unwrap().unwrap(), b"w");
    assert_eq!(files(dir.path()), before);
    // Not even where it is asked to.
    let write = [Op::put(Space::Data, *b"k", *b"x")];
    SqliteStore::read_only(&path, |store| store.write(&write)).unwrap_err();
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_look_sees_one_instant_and_is_made_again_where_the_node_begins_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.sqlite");
    let write = |store: &SqliteStore, value: &[u8]| {
        store.write(&[Op::put(Space::Data, *b"k", value)]).unwrap();
    };
    let store = SqliteStore::open(&path).unwrap();
    write(&store, b"1");
    let seen = SqliteStore::read_only(&path, |look| {
        let first = look.get(Space::Data, b"k")?;
        write(&store, b"2");
        Ok((first, look.get(Space::Data, b"k")?))
    });
    let (first, second) = seen.unwrap();
    assert_eq!(first, second);
    drop(store);
    let looks = std::cell::Cell::new(0);
    let begins = SqliteStore::read_only(&path, |look| {
        looks.set(looks.get() + 1);
        if looks.get() == 1 {
            // A node that begins, writes, and ends.
            let long = vec![7; 100_000];
            write(&SqliteStore::open(&path).unwrap(), &long);
        }
        look.get(Space::Data, b"k")
    });
    assert_eq!((begins.unwrap().unwrap().len(), looks.get()), (100_000, 2));
}

#[test]
fn a_log_without_its_node_waits_for_it_and_other_files_are_none_of_a_replica() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.write(&[Op::put(Space::Data, *b"k", *b"v")]).unwrap();
    let copy = dir.path().join("copy.sqlite");
    for end in ["", "-wal"] {
        let name = |path: &Path| format!("{}{end}", path.display());
        std::fs::copy(name(&path), name(&copy)).unwrap();
    }
    let before = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(value(&copy).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before);
    let other = dir.path().join("other.sqlite");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (n)").unwrap();
    assert_eq!(value(&other).unwrap_err().kind(), Kind::NotFound);
    std::fs::write(&other, "no database at all, but a text that is long enough").unwrap();
    assert_eq!(value(&other).unwrap_err().kind(), Kind::Corrupt);
}
