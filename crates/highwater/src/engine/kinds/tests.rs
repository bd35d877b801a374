//! Rows of captured RocksDBs.
#![cfg(feature = "rocksdb")]

use std::fs;
use std::path::Path;

use rust_rocksdb::{DB, Options};

use super::*;
use crate::engine::{CaptureOptions, DiscoverOptions, capture, discover};
use crate::env::Env;

/// A number for each wanted row of the databases in `stores`, and what kept some from being read.
fn numbers(node: &Path, room: u64) -> (BTreeMap<String, u64>, Vec<Error>) {
    let layout = discover(node, &DiscoverOptions::default()).unwrap();
    let options = CaptureOptions { allow_no_barrier: true, ..CaptureOptions::default() };
    let mut parts = capture(&layout, &options, &Env::system()).unwrap().parts;
    let mut captured = CapturedFiles::of(&layout, &mut parts);
    captured.room = room;
    let (mut found, mut errors) = (BTreeMap::new(), Vec::new());
    for name in ["stores/a", "stores/b", "stores/c"] {
        match captured.rows(&name.parse().unwrap(), &[b"n/"]) {
            Ok(rows) => found.extend(rows.into_iter().map(|(key, value)| {
                let name = format!("{name}:{}", String::from_utf8(key).unwrap());
                (name, u64::from_be_bytes(value.try_into().unwrap()))
            })),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => errors.push(error),
        }
    }
    (found, errors)
}

fn write(path: &Path, numbers: &[(&str, u64)], flush: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, path).unwrap();
    for (key, number) in numbers {
        db.put(key, number.to_be_bytes()).unwrap();
    }
    if flush {
        db.flush().unwrap();
    }
}

#[test]
fn marks_come_from_the_wanted_rows_of_each_database() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("stores/a"), &[("n/1", 1), ("n/2", 2), ("other", 3)], true);
    write(&dir.path().join("stores/a"), &[("n/1", 5)], false);
    write(&dir.path().join("stores/b"), &[("n/1", 7)], false);
    write(&dir.path().join("elsewhere"), &[("n/1", 9)], false);
    let (found, errors) = numbers(dir.path(), ROWS_BYTES_MAX);
    assert!(errors.is_empty(), "{errors:?}");
    let expected = [("stores/a:n/1", 5), ("stores/a:n/2", 2), ("stores/b:n/1", 7)];
    let expected: BTreeMap<String, u64> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(found, expected);
}

#[test]
fn rows_that_can_not_be_read_are_told_and_keep_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("stores/b"), &[("n/1", 7)], false);
    let damaged = dir.path().join("stores/a");
    write(&damaged, &[("n/1", 1)], true);
    let tables = fs::read_dir(&damaged).unwrap().map(|entry| entry.unwrap().path());
    let table = tables.into_iter().find(|path| path.extension().is_some_and(|end| end == "sst"));
    let table = table.unwrap();
    let mut bytes = fs::read(&table).unwrap();
    bytes[3] ^= 1;
    fs::write(&table, bytes).unwrap();
    let (found, errors) = numbers(dir.path(), ROWS_BYTES_MAX);
    assert_eq!(found, BTreeMap::from([("stores/b:n/1".to_owned(), 7)]));
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    let said = error.summary();
    assert!(said.contains("stores/a") && said.contains("damaged"), "{said}");
}

#[test]
fn rows_of_all_databases_share_their_memory() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        write(&dir.path().join("stores").join(name), &[("n/1", 1), ("n/2", 2)], true);
    }
    let (found, errors) = numbers(dir.path(), 700);
    assert_eq!((found.len(), errors.len()), (4, 1), "{errors:?}");
}
