//! Damage in the tables of a RocksDB is found by the backup that reads them first.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use highwater::Kind;
use highwater::engine::CheckpointHook;
use rust_rocksdb::checkpoint::Checkpoint;
use rust_rocksdb::{DB, Options};

use super::*;

fn store(bench: &Bench, options: &mut Options, rows: u32) -> DB {
    options.create_if_missing(true);
    let db = DB::open(options, bench.node().join("store")).unwrap();
    for row in 0..rows {
        db.put(row.to_be_bytes(), noise(row.into(), 100)).unwrap();
    }
    db.flush().unwrap();
    db
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == end)).collect()
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_damaged_table_fails_the_backup_and_what_stands_stays() {
    let bench = Bench::new();
    drop(store(&bench, &mut Options::default(), 2000));
    let first = bench.backup();
    assert_eq!(first.warnings, [""; 0]);
    let state = tree(&bench.node());
    let table = files(&bench.node().join("store"), "sst").remove(0);
    let before = bench.objects("packs");
    flip(&table, 5000);
    let error = bench.backup_as("alice", &BackupOptions::default(), &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    let name = format!("store/{}", table.file_name().unwrap().to_str().unwrap());
    assert_eq!(error.entry(), Some(name.as_str()));
    assert!(error.message().contains("block at byte"), "{error}");
    assert!(error.hint().unwrap().contains("restore the database"), "{error:?}");
    assert_eq!(bench.objects("packs"), before, "nothing of it is left");
    assert_eq!(bench.objects("intents"), [""; 0].map(PathBuf::from));
    assert_eq!(bench.vault.snapshots(None).unwrap().len(), 1);
    bench.assert_restores(first.snapshot, &state);
    flip(&table, 5000);
    bench.backup();
    // The MANIFEST tells how long a table is.
    fs::File::options().write(true).open(&table).unwrap().set_len(5000).unwrap();
    let error = bench.backup_as("alice", &BackupOptions::default(), &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.message().contains("has 5000 bytes and should have"), "{error}");
}

/// What the disk changes under the file's time is found where every file is read.
#[test]
fn silent_damage_is_found_where_all_is_read() {
    let bench = Bench::new();
    drop(store(&bench, &mut Options::default(), 2000));
    bench.backup();
    let table = files(&bench.node().join("store"), "sst").remove(0);
    let times = fs::metadata(&table).unwrap();
    flip(&table, 777);
    let file = fs::File::options().write(true).open(&table).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    drop(file);
    bench.backup();
    let mut rehash = BackupOptions::default();
    rehash.rehash = true;
    assert_eq!(kind(bench.backup_as("alice", &rehash, &control())), Kind::Corrupt);
}

#[test]
fn a_checkpoint_is_verified_as_the_database_is() {
    let bench = Bench::new();
    let mut options = Options::default();
    options.set_enable_blob_files(true);
    options.set_min_blob_size(50);
    let db = Arc::new(store(&bench, &mut options, 2000));
    let with_hook = || {
        let db = Arc::clone(&db);
        let hook: CheckpointHook = Arc::new(move |dir: &Path| {
            let checkpoint = Checkpoint::new(&db).map_err(|error| error.to_string())?;
            checkpoint.create_checkpoint(dir).map_err(|error| error.to_string().into())
        });
        let mut options = BackupOptions::default();
        options.rehash = true;
        options.capture.hooks.push(("store".to_owned(), hook));
        options
    };
    bench.backup_with(&with_hook());
    for end in ["sst", "blob"] {
        let file = files(&bench.node().join("store"), end).remove(0);
        flip(&file, 300);
        let error = bench.backup_as("alice", &with_hook(), &control()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{end}: {error}");
        assert!(error.entry().unwrap().ends_with(end), "{error}");
        flip(&file, 300);
    }
    bench.backup_with(&with_hook());
}

#[test]
fn a_table_that_can_not_be_verified_is_stored_with_a_warning() {
    let bench = Bench::new();
    let mut options = Options::default();
    options.set_prefix_extractor(rust_rocksdb::SliceTransform::create_fixed_prefix(2));
    options.set_allow_mmap_reads(true);
    options.set_plain_table_factory(&rust_rocksdb::PlainTableFactoryOptions {
        user_key_length: 0,
        bloom_bits_per_key: 10,
        hash_table_ratio: 0.75,
        index_sparseness: 16,
        huge_page_tlb_size: 0,
        encoding_type: rust_rocksdb::KeyEncodingType::Plain,
        full_scan_mode: false,
        store_index_in_file: false,
    });
    drop(store(&bench, &mut options, 10));
    let report = bench.backup();
    let [warning] = &*report.warnings else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("plain table: store/"), "{warning}");
}
