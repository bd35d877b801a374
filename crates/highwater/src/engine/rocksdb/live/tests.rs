//! Databases that write all the while, in this very process: nothing here touches their lock. Each gap
//! between two steps of a capture is as long as the writer takes for some more rows.
#![cfg(feature = "rocksdb")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rust_rocksdb::{
    ColumnFamilyDescriptor, DB, IngestExternalFileOptions, IteratorMode, Options, SstFileWriter,
    WriteBatch,
};

use super::*;
use crate::engine::{DiscoverOptions, Piece, discover};
use crate::env::Faults;

const FAMILIES: [&str; 4] = ["default", "channels", "invoices", "ingested"];
/// Rows are in all of these.
const ROWS_IN: [&str; 3] = ["default", "channels", "invoices"];
const TOTAL: &[u8] = b"total";
/// A table is ingested after each so many rows, where tables are.
const INGEST_EVERY: u64 = 3000;
const CAPTURES: u64 = 8;
/// Rows before the first capture: several tables of each family.
const ROWS_BEFORE: u64 = 12_000;

/// What a database is set to, besides small buffers.
type Set = fn(&mut Options);

fn options(set: Set) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(1 << 20);
    // A family with little in it would keep all logs for long.
    options.set_max_total_wal_size(2 << 20);
    options.set_merge_operator_associative("count", |_, old, new| {
        let count = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let sum = old.map_or(0, count) + new.iter().map(count).sum::<u64>();
        Some(sum.to_le_bytes().to_vec())
    });
    set(&mut options);
    options
}

fn open(path: &Path, set: Set) -> DB {
    let families = FAMILIES.map(|name| {
        let mut options = options(set);
        options.set_enable_blob_files(name == "invoices");
        options.set_min_blob_size(100);
        options.set_enable_blob_gc(true);
        ColumnFamilyDescriptor::new(name, options)
    });
    DB::open_cf_descriptors(&options(set), path, families).unwrap()
}

fn value(row: u64, family: &str) -> Vec<u8> {
    let mut value = vec![0; 220];
    blake3::Hasher::new()
        .update(family.as_bytes())
        .update(&row.to_le_bytes())
        .finalize_xof()
        .fill(&mut value);
    value
}

/// A writer that rests only while nothing is captured. `written` rows are acknowledged.
struct Writer {
    written: Arc<AtomicU64>,
    /// Rows that it may write.
    allowed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    #[expect(clippy::disallowed_methods, reason = "the node goes on beside what captures it")]
    fn start(node: &Path, set: Set, ingests: bool) -> Writer {
        let db = open(&node.join("store"), set);
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let allowed = Arc::new(AtomicU64::new(ROWS_BEFORE));
        let (count, end, most) = (Arc::clone(&written), Arc::clone(&stop), Arc::clone(&allowed));
        let table = node.join("table.sst");
        let thread = std::thread::spawn(move || {
            for row in 0u64.. {
                while row >= most.load(Ordering::Acquire) {
                    if end.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::yield_now();
                }
                let mut batch = WriteBatch::default();
                for name in ROWS_IN {
                    let family = db.cf_handle(name).unwrap();
                    batch.put_cf(&family, row.to_be_bytes(), value(row, name));
                }
                batch.merge_cf(&db.cf_handle("ingested").unwrap(), TOTAL, 1u64.to_le_bytes());
                db.write(&batch).unwrap();
                count.store(row + 1, Ordering::Release);
                if ingests && row % INGEST_EVERY == INGEST_EVERY - 1 {
                    ingest(&db, &table, row);
                }
            }
        });
        Writer { written, allowed, stop, thread: Some(thread) }
    }

    /// Lets it write while `act` runs.
    fn beside<T>(&self, act: impl FnOnce() -> T) -> T {
        self.allowed.store(u64::MAX, Ordering::Release);
        let done = act();
        self.allowed.store(0, Ordering::Release);
        done
    }

    fn rows(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.allowed.store(0, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn ingest(db: &DB, table: &Path, row: u64) {
    let made = Options::default();
    let mut writer = SstFileWriter::create(&made);
    writer.open(table).unwrap();
    writer.put([b"row".as_slice(), &row.to_be_bytes()].concat(), row.to_be_bytes()).unwrap();
    writer.finish().unwrap();
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    let family = db.cf_handle("ingested").unwrap();
    db.ingest_external_file_cf_opts(&family, &options, vec![table]).unwrap();
}

/// Lets the writer write up to so many rows at each step of a capture.
struct Stretched {
    written: Arc<AtomicU64>,
    most: u64,
    random: AtomicU64,
}

impl Faults for Stretched {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point.name().starts_with("live.") {
            let seed = self.random.fetch_add(1, Ordering::Relaxed);
            let more = fastrand::Rng::with_seed(seed).u64(..=self.most);
            let end = self.written.load(Ordering::Acquire) + more;
            while self.written.load(Ordering::Acquire) < end {
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}

fn found(node: &Path) -> (RootedPath, FoundPart) {
    let layout = discover(node, &DiscoverOptions::default()).unwrap();
    (layout.held().clone(), layout.parts[0].clone())
}

fn copied(image: &Image, copy: &Path) -> PathBuf {
    for (index, entry) in image.set.entries().iter().enumerate() {
        let path = entry.path.under(copy);
        if entry.kind == EntryType::Dir {
            fs::create_dir_all(&path).unwrap();
            continue;
        }
        let mut content = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            if let Piece::Data(bytes) = piece {
                content.extend_from_slice(bytes);
            }
            Ok(())
        };
        image.set.stream(index, &mut sink).unwrap();
        assert_eq!(content.len() as u64, entry.size, "{}", entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    copy.join("store")
}

/// Rows of a copy, opened for writing by the engine: a prefix of what was written, and nothing else.
fn rows_of(copy: &Path, set: Set) -> u64 {
    let db = open(copy, set);
    let counts = ROWS_IN.map(|name| {
        let family = db.cf_handle(name).unwrap();
        let rows = (0u64..).zip(db.iterator_cf(&family, IteratorMode::Start));
        let rows = rows.map(|(number, row)| {
            let (key, found) = row.unwrap();
            assert_eq!(*key, number.to_be_bytes(), "a row of {name} is missing");
            assert_eq!(*found, *value(number, name));
        });
        rows.count() as u64
    });
    assert_eq!(counts, [counts[0]; 3]);
    let family = db.cf_handle("ingested").unwrap();
    let total = db
        .get_cf(&family, TOTAL)
        .unwrap()
        .map_or(0, |total| u64::from_le_bytes(total.as_slice().try_into().unwrap()));
    assert_eq!(total, counts[0], "what was merged is not what was put");
    let ingested = |row: u64| {
        db.get_cf(&family, [b"row".as_slice(), &row.to_be_bytes()].concat()).unwrap().is_some()
    };
    for row in
        (0..counts[0] + 10 * INGEST_EVERY).filter(|row| row % INGEST_EVERY == INGEST_EVERY - 1)
    {
        // Between the row and the next one it may be there or not.
        assert!(
            row + 1 == counts[0] || !ingested(row) || row < counts[0],
            "{row} was ingested later"
        );
    }
    counts[0]
}

/// Captures again and again, and looks at each copy.
fn capture_all(set: Set, ingests: bool, most: u64) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    fs::create_dir(&node).unwrap();
    let writer = Writer::start(&node, set, ingests);
    while writer.rows() < ROWS_BEFORE {
        std::thread::yield_now();
    }
    let (held, part) = found(&node);
    let mut warnings = Vec::new();
    for round in 0..CAPTURES {
        let written = Arc::clone(&writer.written);
        let faults = Stretched { written, most, random: AtomicU64::new(round << 20) };
        let before = writer.rows();
        let env = Env::system().with_faults(faults);
        let image = writer.beside(|| capture(&held, &part, &env)).unwrap();
        // The last one may be in the log, and not yet be counted.
        let after = writer.rows() + 1;
        let copy = copied(&image, &dir.path().join(format!("copy-{round}")));
        let rows = rows_of(&copy, set);
        assert!((before..=after).contains(&rows), "{rows} of {before} to {after}");
        if ingests {
            let db = open(&copy, set);
            let family = db.cf_handle("ingested").unwrap();
            for row in
                (0..rows.saturating_sub(1)).filter(|row| row % INGEST_EVERY == INGEST_EVERY - 1)
            {
                let key = [b"row".as_slice(), &row.to_be_bytes()].concat();
                assert!(
                    db.get_cf(&family, key).unwrap().is_some(),
                    "the table of row {row} is missing"
                );
            }
        }
        warnings.push(image.warnings);
    }
    warnings
}

#[test]
fn a_database_that_writes_is_captured_as_a_prefix_of_its_writes() {
    let warnings = capture_all(|_| {}, false, 0);
    assert!(warnings.concat().is_empty(), "{warnings:?}");
}

#[test]
fn gaps_between_the_steps_lose_nothing() {
    capture_all(|_| {}, false, 3000);
}

#[test]
fn tables_that_are_ingested_are_of_the_same_instant() {
    capture_all(|_| {}, true, 700);
}

#[test]
fn a_flush_of_all_families_at_once_counts_whole() {
    capture_all(|options| options.set_atomic_flush(true), false, 1500);
}

#[test]
fn a_manifest_that_rolls_is_followed() {
    capture_all(|options| options.set_max_manifest_file_size(2000), false, 50);
}

#[test]
fn logs_whose_files_are_used_again_are_copied() {
    capture_all(|options| options.set_recycle_log_file_num(4), false, 200);
}

#[test]
fn compressed_logs_are_captured() {
    capture_all(
        |options| options.set_wal_compression_type(rust_rocksdb::DBCompressionType::Zstd),
        false,
        200,
    );
}

#[test]
fn a_log_that_is_held_back_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("store"), |options| options.set_manual_wal_flush(true));
    db.put(b"written", b"1").unwrap();
    db.flush_wal(false).unwrap();
    db.put(b"held back", b"1").unwrap();
    let (held, part) = found(dir.path());
    let image = capture(&held, &part, &Env::system()).unwrap();
    assert!(image.warnings[0].contains("manual_wal_flush"), "{:?}", image.warnings);
    let copy = open(&copied(&image, &dir.path().join("copy")), |_| {});
    assert!(copy.get(b"written").unwrap().is_some());
    assert!(copy.get(b"held back").unwrap().is_none());
}

#[test]
fn a_database_that_opens_without_its_logs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("store"), |_| {});
    db.put(b"row", b"1").unwrap();
    let (held, part) = found(dir.path());
    let store = dir.path().join("store");
    let names = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
    let path = names.filter(|path| path.to_string_lossy().contains("OPTIONS-")).max().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("best_efforts_recovery=false"));
    fs::write(&path, text.replace("best_efforts_recovery=false", "best_efforts_recovery=true"))
        .unwrap();
    let error = capture(&held, &part, &Env::system()).err().unwrap();
    assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("store")));
}

/// Whoever owns the directory can put there what is called as a log.
#[test]
fn what_is_only_called_as_a_log_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let db = open(&store, |_| {});
    db.put(b"row", b"1").unwrap();
    let (held, part) = found(dir.path());
    fs::create_dir(store.join("900001.log")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", store.join("900002.log")).unwrap();
    let image = capture(&held, &part, &Env::system()).unwrap();
    let copy = copied(&image, &dir.path().join("copy"));
    assert!(!copy.join("900001.log").exists() && !copy.join("900002.log").exists());
    assert!(open(&copy, |_| {}).get(b"row").unwrap().is_some());
}

/// A record that is changed is no end of a log: what follows it was acknowledged.
#[test]
fn a_damaged_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("store"), |_| {});
    for row in 0u64..100 {
        db.put(row.to_be_bytes(), [7; 100]).unwrap();
    }
    let (held, part) = found(dir.path());
    let place = part
        .entries
        .iter()
        .find(|path| matches!(FileName::of(path.name()), Some(FileName::Log(_))));
    let path = place.unwrap().under(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = capture(&held, &part, &Env::system()).err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.entry().unwrap().ends_with(".log"), "{error}");
}
