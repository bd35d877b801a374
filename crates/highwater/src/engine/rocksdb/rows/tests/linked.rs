//! The same with the release of RocksDB that this build has.

use std::fs;
use std::os::unix::fs::FileExt as _;

use rust_rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, DB, DBCompressionType, DataBlockIndexType,
    IngestExternalFileOptions, IteratorMode, Options, SstFileWriter, WriteBatch,
};

use super::*;
use crate::engine::conformance::tests::Holder;
use crate::engine::{CaptureOptions, Captured, DiscoverOptions, capture, discover};
use crate::env::Env;

fn any_key(random: &mut fastrand::Rng) -> Vec<u8> {
    let kind = [0, 1, 16, 64, 64, 200][random.usize(..6)];
    [&[kind], &random.u16(..300).to_be_bytes()[..]].concat()
}

/// Does what a node does, at random: some of it is in tables, some in the log.
fn fill(db: &DB, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..1500_u64 {
        let key = any_key(&mut random);
        match random.u64(..40) {
            0..=27 => db.put(&key, format!("{round} ").repeat(1 + round as usize % 30)).unwrap(),
            28..=32 => db.delete(&key).unwrap(),
            33 => {
                // Once put, and once deleted.
                let once = [&[5], &round.to_be_bytes()[..]].concat();
                db.put(&once, b"once").unwrap();
                if random.u64(..2) == 0 {
                    db.single_delete(&once).unwrap();
                }
            }
            34..=36 => {
                let mut batch = WriteBatch::default();
                let other = any_key(&mut random);
                batch.put(&other, b"batched");
                let (start, end) = if key < other { (key, other) } else { (other, key) };
                if random.u64(..20) == 0 {
                    batch.delete_range(&start, &end);
                }
                batch.put(&start, b"behind");
                db.write(&batch).unwrap();
            }
            37 => {
                let mut end = key.clone();
                end[2] = end[2].saturating_add(9);
                delete_range(db, &key, &end);
            }
            38 if round.is_multiple_of(3) => db.flush().unwrap(),
            39 if round.is_multiple_of(5) => {
                db.compact_range(None::<&[u8]>, None::<&[u8]>);
            }
            _ => {}
        }
    }
}

fn delete_range(db: &DB, start: &[u8], end: &[u8]) {
    let mut batch = WriteBatch::default();
    batch.delete_range(start, end);
    db.write(&batch).unwrap();
}

fn all(db: &DB) -> Rows {
    let rows = db.iterator(IteratorMode::Start);
    rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// All ways to ask give what the database has.
fn same(db: &Path, all: &Rows, what: &str) {
    for prefixes in [
        &[&b""[..]][..],
        &[b"\x00"],
        &[b"\x40", b"\x00", b"\x40\x00"],
        &[b"\x10\x00\x07"],
        &[b"\x05", b"\x07", b"\xff"],
        &[],
    ] {
        let wanted = |key: &[u8]| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let expected: Rows = all
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(rows(db, prefixes).unwrap(), expected, "{what} {prefixes:?}");
    }
}

#[test]
fn rows_of_this_release_are_read_in_all_its_formats() {
    let dir = tempfile::tempdir().unwrap();
    let compressions = [
        DBCompressionType::None,
        DBCompressionType::Snappy,
        DBCompressionType::Lz4,
        DBCompressionType::Zstd,
    ];
    let (mut databases, mut compared) = (0, 0);
    for version in 2..=8 {
        for (number, compression) in compressions.into_iter().enumerate() {
            let partitioned = (number + version as usize).is_multiple_of(2);
            let what = format!("version {version}, {compression:?}, partitioned: {partitioned}");
            let path = dir.path().join(format!("{version}-{number}"));
            let mut table = BlockBasedOptions::default();
            table.set_format_version(version);
            table.set_block_size(512);
            table.set_index_block_restart_interval(1 + number as i32 * 4);
            if number == 2 {
                table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            }
            if partitioned {
                table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
                table.set_metadata_block_size(256);
            }
            let mut options = Options::default();
            options.create_if_missing(true);
            options.set_compression_type(compression);
            options.set_target_file_size_base(8 << 10);
            options.set_block_based_table_factory(&table);
            let db = DB::open(&options, &path).unwrap();
            fill(&db, u64::from(version as u32) * 64 + number as u64 * 977);
            let expected = all(&db);
            drop(db);
            same(&path, &expected, &what);
            databases += 1;
            compared += expected.len();
        }
    }
    // Now and then a deletion of a range leaves little of one.
    assert!(compared > databases * 300, "{compared} rows in {databases} databases");
}

/// Ranges are deleted under a snapshot, so that compactions have to keep what they cover, and cut deletions at
/// the borders of tables.
#[test]
fn deletions_of_ranges_are_obeyed_in_every_level() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 1..12 {
        let path = dir.path().join(seed.to_string());
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_target_file_size_base(4 << 10);
        options.set_max_bytes_for_level_base(16 << 10);
        options.set_level_zero_file_num_compaction_trigger(2);
        let db = DB::open(&options, &path).unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut snapshots = Vec::new();
        for round in 0..800 {
            let key = any_key(&mut random);
            match random.u64(..10) {
                0..=6 => db.put(&key, format!("{seed} {round} ").repeat(20)).unwrap(),
                7 => {
                    let other = any_key(&mut random);
                    let (start, end) = if key < other { (key, other) } else { (other, key) };
                    let end =
                        if random.u64(..3) == 0 { end } else { [&start[..], b"\x80"].concat() };
                    delete_range(&db, &start, &end);
                }
                8 if random.u64(..4) == 0 => snapshots.push(db.snapshot()),
                9 if random.u64(..4) == 0 => db.flush().unwrap(),
                _ => {}
            }
        }
        drop(snapshots);
        let expected = all(&db);
        drop(db);
        same(&path, &expected, &format!("seed {seed}"));
    }
}

#[test]
fn ingested_tables_have_the_number_that_they_were_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, &path).unwrap();
    for written in [false, true] {
        for key in [b"\x00a", b"\x00b", b"\x00c"] {
            db.put(key, b"before").unwrap();
        }
        let table = dir.path().join(format!("{written}.sst"));
        let mut writer = SstFileWriter::create(&options);
        writer.open(&table).unwrap();
        writer.put(b"\x00a", b"ingested").unwrap();
        writer.delete(b"\x00b").unwrap();
        writer.finish().unwrap();
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(false);
        ingest.set_allow_global_seqno(true);
        db.ingest_external_file_opts(&ingest, vec![table]).unwrap();
        db.put(b"\x00d", format!("{written}")).unwrap();
        let expected = all(&db);
        assert_eq!(expected[&b"\x00a"[..]], b"ingested");
        same(&path, &expected, "ingested");
    }
}

#[test]
fn other_column_families_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut options = Options::default();
    options.create_if_missing(true);
    let mut db = DB::open(&options, &path).unwrap();
    db.create_cf("peers", &options).unwrap();
    db.put(b"\x00flushed", b"default").unwrap();
    let peers = db.cf_handle("peers").unwrap();
    db.put_cf(peers, b"\x00flushed", b"peers").unwrap();
    // The default family has it in a table, and the log stays for the other one.
    db.flush().unwrap();
    db.delete(b"\x00flushed").unwrap();
    db.put(b"\x00again", b"default").unwrap();
    db.flush().unwrap();
    db.compact_range(None::<&[u8]>, None::<&[u8]>);
    db.put_cf(peers, b"\x00again", b"peers").unwrap();
    db.put(b"\x00late", b"default").unwrap();
    let expected = all(&db);
    drop(db);
    assert_eq!(expected.len(), 2);
    same(&path, &expected, "families");
}

#[test]
fn what_only_the_node_can_make_a_value_of_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for flushed in [false, true] {
        let path = dir.path().join(format!("merged-{flushed}"));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_merge_operator_associative("last", |_, before, operands| {
            operands.iter().last().or(before).map(<[u8]>::to_vec)
        });
        let db = DB::open(&options, &path).unwrap();
        db.put(b"\x01key", b"plain").unwrap();
        db.merge(b"\x00key", b"merged").unwrap();
        if flushed {
            db.put(b"\x00other", b"plain").unwrap();
            let held = db.snapshot();
            db.merge(b"\x00key", b"again").unwrap();
            db.flush().unwrap();
            drop(held);
        }
        drop(db);
        assert_eq!(rows(&path, &[b"\x01"]).unwrap().len(), 1);
        let error = rows(&path, &[b"\x00"]).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.message().contains("merged"), "{error}");
    }
    let path = dir.path().join("blobs");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(100);
    let db = DB::open(&options, &path).unwrap();
    db.put(b"\x00key", [7; 200]).unwrap();
    db.put(b"\x01key", b"small").unwrap();
    db.flush().unwrap();
    drop(db);
    assert_eq!(rows(&path, &[b"\x01"]).unwrap().len(), 1);
    assert!(rows(&path, &[b"\x00"]).unwrap_err().message().contains("blob"));
}

#[test]
fn a_log_that_is_compressed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_compression_type(DBCompressionType::Zstd);
    let db = DB::open(&options, &path).unwrap();
    db.put(b"key", b"value").unwrap();
    drop(db);
    let error = rows(&path, &[b"k"]).unwrap_err();
    assert_eq!((error.kind(), error.entry().is_some()), (Kind::Input, true));
    assert!(error.message().contains("compressed"), "{error}");
}

/// One table for each kind of key, and a log.
fn small(path: &Path) -> Rows {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_disable_auto_compactions(true);
    let db = DB::open(&options, path).unwrap();
    for kind in [0_u8, 64, 200] {
        for number in 0..50_u8 {
            db.put([kind, number], vec![number; 40]).unwrap();
        }
        db.flush().unwrap();
    }
    db.put([0, 7], b"late").unwrap();
    db.delete([64, 9]).unwrap();
    all(&db)
}

fn files(db: &Path, end: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
    found.sort();
    found
}

#[test]
fn a_table_without_a_wanted_row_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let expected = small(&path);
    let tables = files(&path, "sst");
    assert_eq!(tables.len(), 3);
    fs::remove_file(&tables[1]).unwrap();
    let found = rows(&path, &[&[0], &[200]]).unwrap();
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|(key, value)| expected[key] == *value));
    let error = rows(&path, &[&[64]]).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.entry().unwrap().ends_with(".sst"), "{error}");
}

/// Every byte of a table that is read: it is told, or it changes nothing.
#[test]
fn a_flipped_byte_gives_an_error_or_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let expected = small(&path);
    let first: Rows = expected.into_iter().filter(|(key, _)| key[0] == 0).collect();
    let table = files(&path, "sst").remove(0);
    let sound = fs::read(&table).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&table).unwrap();
    let mut told = 0;
    for at in 0..sound.len() {
        file.write_all_at(&[sound[at] ^ (1 << (at % 8))], at as u64).unwrap();
        match rows(&path, &[&[0]]) {
            Ok(rows) => assert_eq!(rows, first, "byte {at}"),
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Corrupt | Kind::Input), "{error}");
                told += 1;
            }
        }
        file.write_all_at(&sound[at..=at], at as u64).unwrap();
    }
    // The blocks that are not needed for these rows (filters) may be anything.
    assert!(told * 10 > sound.len() * 8, "{told} of {} bytes", sound.len());
}

#[test]
fn a_current_that_waits_elsewhere_leads_to_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let expected = small(&path);
    let waits = dir.path().join("0");
    fs::rename(path.join("CURRENT"), &waits).unwrap();
    assert_eq!(rows(&path, &[b""]).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(rows_withheld(&path, &waits, &[b""]).unwrap(), expected);
    fs::write(&waits, "MANIFEST-none\n").unwrap();
    assert_eq!(rows_withheld(&path, &waits, &[b""]).unwrap_err().kind(), Kind::Corrupt);
}

fn take(node: &Path) -> Captured {
    let layout = discover(node, &DiscoverOptions::default()).unwrap();
    capture(&layout, &CaptureOptions::default(), &Env::system()).unwrap()
}

/// A part as an embedder's own capture may be: nothing of it can be opened.
struct Streams(Box<dyn PartCapture>);

impl PartCapture for Streams {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn engine(&self) -> crate::engine::EngineKind {
        self.0.engine()
    }
    fn engine_version(&self) -> Option<String> {
        self.0.engine_version()
    }
    fn consistency(&self) -> crate::engine::Consistency {
        self.0.consistency()
    }
    fn entries(&self) -> &[crate::engine::SourceEntry] {
        self.0.entries()
    }
    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(crate::engine::Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        self.0.stream(entry, sink)
    }
    fn finish(self: Box<Self>) -> Result<crate::engine::Finished> {
        self.0.finish()
    }
}

/// At rest, and held as a node that has it open holds it: what is written after the barrier is not seen.
#[test]
fn a_capture_has_the_rows_of_its_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node/store");
    fs::create_dir(dir.path().join("node")).unwrap();
    let expected = small(&path);
    let node = dir.path().join("node");
    let root = RelPath::from_bytes(b"store").unwrap();
    let log = files(&path, "log").pop().unwrap();
    for live in [false, true] {
        let holder = live.then(|| Holder::record(&path.join("LOCK")));
        let mut captured_now = take(&node);
        let before = fs::read(&log).unwrap();
        if live {
            // What a node writes after the barrier: here one more record of what it has written before.
            let again = [before.clone(), before[..20].to_vec()].concat();
            fs::write(&log, again).unwrap();
        }
        let found =
            captured(captured_now.parts[0].as_mut(), &root, &[b""], &mut (1 << 20)).unwrap();
        assert_eq!(found, expected, "live: {live}");
        let mut streams = Streams(captured_now.parts.remove(0));
        let found = captured(&mut streams, &root, &[b""], &mut (1 << 20)).unwrap();
        assert_eq!(found, expected, "live: {live}");
        Box::new(streams).finish().unwrap();
        fs::write(&log, before).unwrap();
        drop(holder);
    }
}
