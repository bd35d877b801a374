use std::fs;

use std::path::Path;

use super::*;
use crate::Kind;

#[test]
fn current_names_one_manifest() {
    assert_eq!(manifest_name(b"MANIFEST-000005\n").unwrap(), "MANIFEST-000005");
    for wrong in [&b""[..], b"MANIFEST-000005", b"MANIFEST-\n", b"../x\n", b"MANIFEST-5/..\n"] {
        assert_eq!(manifest_name(wrong).unwrap_err().kind(), Kind::Corrupt);
    }
}

/// A record as a log file holds it.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut covered = vec![kind];
    covered.extend_from_slice(payload);
    let mut bytes = records::mask(crc32c::crc32c(&covered)).to_le_bytes().to_vec();
    bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&covered);
    bytes
}

fn table(number: u8) -> Vec<u8> {
    vec![7, 0, number, 100, 1, b'a', 1, b'z']
}

fn numbers(version: &Version) -> Vec<u64> {
    version.tables().into_keys().collect()
}

#[test]
fn a_torn_tail_ends_the_manifest_and_a_broken_middle_does_not() {
    let whole = [record(1, &table(5)), record(1, &table(6))].concat();
    assert_eq!(numbers(&parse("MANIFEST-000001", &whole).unwrap()), [5, 6]);
    let first = record(1, &table(5)).len();
    for end in first..whole.len() {
        assert_eq!(numbers(&parse("MANIFEST-000001", &whole[..end]).unwrap()), [5], "{end}");
    }
    for broken in 0..first {
        let mut bytes = whole.clone();
        bytes[broken] ^= 1;
        let found = parse("MANIFEST-000001", &bytes);
        assert_eq!(found.unwrap_err().kind(), Kind::Corrupt, "{broken}");
    }
    let mut preallocated = whole.clone();
    preallocated.resize(whole.len() + 5000, 0);
    assert_eq!(numbers(&parse("MANIFEST-000001", &preallocated).unwrap()), [5, 6]);
    assert_eq!(parse("MANIFEST-000001", b"").unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn an_atomic_group_counts_whole_or_not_at_all() {
    let in_group = |number, remaining| {
        let mut edit = table(number);
        edit.extend([0xAC, 0x02, remaining]);
        record(1, &edit)
    };
    let whole = [record(1, &table(5)), in_group(6, 1), in_group(7, 0)].concat();
    assert_eq!(numbers(&parse("MANIFEST-000001", &whole).unwrap()), [5, 6, 7]);
    let torn = [record(1, &table(5)), in_group(6, 1)].concat();
    assert_eq!(numbers(&parse("MANIFEST-000001", &torn).unwrap()), [5]);
}

#[test]
fn an_atomic_group_that_has_no_end_is_not_held() {
    // A record of 16 bytes, so that none crosses the border of a block.
    let edit = record(1, &[0xAC, 0x02, 1, 4, 1, 4, 1, 4, 1]);
    assert!(parse("MANIFEST-000001", &edit.repeat(GROUP_EDITS_MAX)).is_ok());
    let error = parse("MANIFEST-000001", &edit.repeat(GROUP_EDITS_MAX + 1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn what_is_not_known_is_passed_over_only_where_the_format_allows() {
    let mut ignorable = table(5);
    ignorable.extend([0xE8, 0x40, 2, 9, 9]);
    assert!(parse("MANIFEST-000001", &record(1, &ignorable)).is_ok());
    let mut essential = table(5);
    essential.extend([0xE8, 0x07, 2, 9, 9]);
    assert!(parse("MANIFEST-000001", &record(1, &essential)).is_err());
}

#[test]
fn records_cross_blocks() {
    let large: Vec<u8> = (0..40).flat_map(|_| vec![b'n'; 2000]).collect();
    let mut edit = vec![1, 0x80, 0xF1, 0x04];
    assert_eq!(large.len(), 80_000);
    edit.extend_from_slice(&large);
    let (first, rest) = edit.split_at(BLOCK_BYTES - 7);
    let (middle, last) = rest.split_at(BLOCK_BYTES - 7);
    let bytes =
        [record(2, first), record(3, middle), record(4, last), record(1, &table(9))].concat();
    let version = parse("MANIFEST-000001", &bytes).unwrap();
    assert_eq!(version.families[&0].comparator.as_ref().map(String::len), Some(80_000));
    assert_eq!(numbers(&version), [9]);
    assert!(parse("MANIFEST-000001", &[record(1, &table(9)), record(3, middle)].concat()).is_err());
}

fn held(path: &Path) -> RootedPath {
    RootedPath::open(path).unwrap()
}

#[test]
fn one_that_is_missing_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(&held(dir.path())).unwrap_err().kind(), Kind::NotFound);
    fs::write(dir.path().join("CURRENT"), "MANIFEST-000001\n").unwrap();
    assert_eq!(read(&held(dir.path())).unwrap_err().kind(), Kind::NotFound);
}

#[cfg(feature = "rocksdb")]
mod real {
    use rust_rocksdb::{BlockBasedOptions, DB, Options};

    use super::*;

    fn options() -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(1000);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(1.0);
        options.set_block_based_table_factory(&BlockBasedOptions::default());
        options
    }

    fn open(path: &Path, names: &[&str]) -> DB {
        // The engine changes nothing of its own accord between two looks at it.
        let still = || {
            let mut options = options();
            options.set_disable_auto_compactions(true);
            options
        };
        DB::open_cf_with_opts(&still(), path, names.iter().map(|name| (name, still()))).unwrap()
    }

    fn assert_as_the_engine_says(db: &DB, path: &Path) {
        let version = read(&held(path)).unwrap();
        let mut expected: Vec<(String, u64)> = db
            .live_files()
            .unwrap()
            .iter()
            .map(|file| {
                let number = file.name.trim_start_matches('/').trim_end_matches(".sst");
                (file.column_family_name.clone(), number.parse().unwrap())
            })
            .collect();
        expected.sort();
        let mut found: Vec<(String, u64)> = version
            .families
            .values()
            .flat_map(|family| family.tables.keys().map(|&number| (family.name.clone(), number)))
            .collect();
        found.sort();
        assert_eq!(found, expected);
        for (number, table) in version.tables() {
            let size = fs::metadata(path.join(format!("{number:06}.sst"))).unwrap().len();
            assert_eq!((table.size, table.path_id), (size, 0));
        }
        for number in version.blobs() {
            assert!(path.join(format!("{number:06}.blob")).exists(), "{number}");
        }
    }

    fn blobs_on_disk(path: &Path) -> BTreeSet<u64> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.to_str()?.strip_suffix(".blob")?.parse().ok()).collect()
    }

    #[test]
    fn it_says_what_the_engine_says_through_a_databases_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let mut db = open(&path, &["default", "peers", "gone"]);
        assert_as_the_engine_says(&db, &path);
        for round in 0..4u8 {
            for key in 0..50u8 {
                for name in ["default", "peers", "gone"] {
                    let family = db.cf_handle(name).unwrap();
                    db.put_cf(&family, [key], vec![round; 10]).unwrap();
                    db.put_cf(&family, [b'b', key], vec![round; 5000]).unwrap();
                    db.flush_cf(&family).unwrap();
                    if key % 10 != 0 {
                        break;
                    }
                }
            }
            assert_as_the_engine_says(&db, &path);
            db.compact_range_cf(&db.cf_handle("default").unwrap(), None::<&[u8]>, None::<&[u8]>);
            assert_as_the_engine_says(&db, &path);
        }
        db.drop_cf("gone").unwrap();
        assert_as_the_engine_says(&db, &path);
        let names = |version: &Version| -> Vec<String> {
            version.families.values().map(|family| family.name.clone()).collect()
        };
        assert_eq!(names(&read(&held(&path)).unwrap()), ["default", "peers"]);
        let sequence = db.latest_sequence_number();
        drop(db);

        // Reopened, so that what is obsolete is gone and the rest is all live.
        let db = open(&path, &["default", "peers"]);
        assert_as_the_engine_says(&db, &path);
        let version = read(&held(&path)).unwrap();
        assert_eq!(version.blobs(), blobs_on_disk(&path));
        assert!(!version.blobs().is_empty());
        assert_eq!(version.families[&0].comparator.as_deref(), Some("leveldb.BytewiseComparator"));
        assert!(version.sequence <= sequence && version.sequence > 0);
    }

    #[test]
    fn any_prefix_of_a_real_manifest_is_a_version_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let db = open(&path, &["default", "peers"]);
        db.put("key", "value").unwrap();
        db.flush().unwrap();
        drop(db);
        let name = read(&held(&path)).unwrap().manifest;
        let bytes = fs::read(path.join(&name)).unwrap();
        for end in 0..=bytes.len() {
            let found = parse(&name, &bytes[..end]);
            assert!(found.is_ok() || end < 100, "{end}: {found:?}");
        }
    }
}
