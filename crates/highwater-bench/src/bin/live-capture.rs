//! How well, and how fast, a RocksDB is captured while it is written at full speed: `cargo run --release
//! --package highwater-bench --bin live-capture -- ROLE …`.
//!
//! `live-capture write NODE_DIR COUNTER` is a node: four column families, merges, blobs, ingested tables; it
//! writes over its rows again, so that it stays small, and tells in COUNTER how many it has written.
//! `live-capture sequence NODE_DIR` takes a database that `db_bench --benchmarks=fillseq` writes instead.
//! `live-capture take NODE_DIR COUNTER ROUNDS STRETCH_MS`, in the same process namespace or another one,
//! captures it ROUNDS times; each gap between two steps takes up to STRETCH_MS longer. Each copy is opened
//! for writing, and has to be an exact prefix of what was written, with all that was there before.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater::Env;
use highwater::engine::{self, Barrier, CaptureOptions, DiscoverOptions, EntryType, Piece};
use highwater::env::{FaultPoint, Faults};
use highwater_bench::Outcome;
use rust_rocksdb::{
    ColumnFamilyDescriptor, DB, IngestExternalFileOptions, IteratorMode, Options, SstFileWriter,
    WriteBatch,
};

const FAMILIES: [&str; 4] = ["default", "channels", "invoices", "ingested"];
/// Rows of a family; later ones are written over earlier ones.
const KEYS: u64 = 50_000;
/// A table is ingested after each so many rows.
const INGEST_EVERY: u64 = 2_000_000;
const TOTAL: &[u8] = b"total";
const LAST: &[u8] = b"last ingested";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["write", node, counter] => write(Path::new(node), Path::new(counter)),
        ["take", node, counter, rounds, stretch] => {
            take(Path::new(node), Some(Path::new(counter)), rounds.parse()?, stretch.parse()?)
        }
        ["sequence", node, rounds, stretch] => {
            take(Path::new(node), None, rounds.parse()?, stretch.parse()?)
        }
        _ => Err("write NODE_DIR COUNTER | take NODE_DIR COUNTER ROUNDS STRETCH_MS | sequence \
                  NODE_DIR ROUNDS STRETCH_MS"
            .into()),
    }
}

fn open(store: &Path) -> Outcome<DB> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(64 << 20);
    options.set_merge_operator_associative("count", |_, old, new| {
        let count = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        Some((old.map_or(0, count) + new.iter().map(count).sum::<u64>()).to_le_bytes().to_vec())
    });
    let families = FAMILIES.map(|name| {
        let mut options = options.clone();
        options.set_enable_blob_files(name == "invoices");
        options.set_enable_blob_gc(true);
        ColumnFamilyDescriptor::new(name, options)
    });
    Ok(DB::open_cf_descriptors(&options, store, families)?)
}

fn family<'a>(db: &'a DB, name: &str) -> Outcome<impl rust_rocksdb::AsColumnFamilyRef + use<'a>> {
    db.cf_handle(name).ok_or_else(|| format!("no family {name}").into())
}

fn write(node: &Path, counter: &Path) -> Outcome<()> {
    fs::create_dir_all(node)?;
    let db = open(&node.join("store"))?;
    let counter = File::create(counter)?;
    let mut value = [7; 120];
    for row in 0u64.. {
        value[..8].copy_from_slice(&row.to_le_bytes());
        let mut batch = WriteBatch::default();
        for name in &FAMILIES[..3] {
            batch.put_cf(&family(&db, name)?, (row % KEYS).to_be_bytes(), value);
        }
        batch.merge_cf(&family(&db, "ingested")?, TOTAL, 1u64.to_le_bytes());
        db.write(&batch)?;
        counter.write_all_at(&(row + 1).to_le_bytes(), 0)?;
        if row % INGEST_EVERY == INGEST_EVERY - 1 {
            let table = node.with_extension("sst");
            let made = Options::default();
            let mut writer = SstFileWriter::create(&made);
            writer.open(&table)?;
            writer.put(LAST, row.to_le_bytes())?;
            writer.finish()?;
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            let to = family(&db, "ingested")?;
            db.ingest_external_file_cf_opts(&to, &options, vec![&table])?;
        }
    }
    Ok(())
}

/// Makes each gap longer, and counts attempts.
struct Stretched {
    most: u64,
    random: AtomicU64,
    attempts: Arc<AtomicU64>,
}

impl Faults for Stretched {
    fn reached(&self, point: FaultPoint) -> highwater::Result<()> {
        if point == FaultPoint::LiveLogs {
            self.attempts.fetch_add(1, Ordering::Relaxed);
        }
        if point.name().starts_with("live.") && self.most > 0 {
            let mut bytes = [0; 8];
            let number = self.random.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            bytes.copy_from_slice(&blake3::hash(&number).as_bytes()[..8]);
            Env::system().pause(Duration::from_millis(u64::from_le_bytes(bytes) % self.most));
        }
        Ok(())
    }
}

fn count(counter: Option<&Path>) -> Outcome<u64> {
    let Some(counter) = counter else { return Ok(0) };
    let mut bytes = [0; 8];
    File::open(counter)?.read_exact_at(&mut bytes, 0)?;
    Ok(u64::from_le_bytes(bytes))
}

#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn take(node: &Path, counter: Option<&Path>, rounds: u64, stretch: u64) -> Outcome<()> {
    let layout = engine::discover(node, &DiscoverOptions::default())?;
    println!("round\tattempts\tms\trows");
    for round in 0..rounds {
        let attempts = Arc::new(AtomicU64::new(0));
        let random = AtomicU64::new(round << 32 | u64::from(std::process::id()));
        let faults = Stretched { most: stretch, random, attempts: Arc::clone(&attempts) };
        let env = Env::system().with_faults(faults);
        let before = count(counter)?;
        let start = env.monotonic();
        let captured = engine::capture(&layout, &CaptureOptions::default(), &env)?;
        let took = env.monotonic() - start;
        // A row may be in the log before it is counted.
        let after = count(counter)? + 1;
        if captured.barrier != Barrier::Live {
            return Err(format!("the barrier is {:?}", captured.barrier).into());
        }
        let copy = copied(captured, &node.with_extension("copy"))?;
        let rows = match counter {
            Some(_) => rows_of(&copy)?,
            None => sequence_of(&copy)?,
        };
        if counter.is_some() && !(before..=after).contains(&rows) {
            return Err(format!("{rows} rows, where there were {before} to {after}").into());
        }
        fs::remove_dir_all(&copy)?;
        println!("{round}\t{}\t{}\t{rows}", attempts.load(Ordering::Relaxed), took.as_millis());
    }
    Ok(())
}

fn copied(captured: engine::Captured, copy: &Path) -> Outcome<PathBuf> {
    for mut part in captured.parts {
        for (index, entry) in part.entries().to_vec().iter().enumerate() {
            let path = entry.path.under(copy);
            match entry.kind {
                EntryType::Dir => fs::create_dir_all(&path)?,
                EntryType::File => {
                    fs::create_dir_all(path.parent().unwrap_or(copy))?;
                    let file = File::create(path)?;
                    let mut at = 0;
                    part.stream(index, &mut |piece| {
                        if let Piece::Data(bytes) = piece {
                            file.write_all_at(bytes, at)
                                .map_err(|error| highwater::Error::io("the copy", error))?;
                            at += bytes.len() as u64;
                        }
                        Ok(())
                    })?;
                }
                _ => {}
            }
        }
        part.finish()?;
    }
    Ok(copy.to_owned())
}

/// How many rows were written when the copy was: each family has the last one of each key.
fn rows_of(copy: &Path) -> Outcome<u64> {
    let db = open(&copy.join("store"))?;
    let number = |bytes: &[u8]| bytes[..8].try_into().map(u64::from_le_bytes);
    let ingested = family(&db, "ingested")?;
    let rows = db.get_cf(&ingested, TOTAL)?.map_or(Ok(0), |total| number(&total))?;
    for name in &FAMILIES[..3] {
        let mut keys = 0;
        for row in db.iterator_cf(&family(&db, name)?, IteratorMode::Start) {
            let (key, value) = row?;
            let (key, row) = (u64::from_be_bytes(key[..8].try_into()?), number(&value)?);
            if row % KEYS != key || row >= rows || row + KEYS < rows {
                return Err(format!("{name}: key {key} has row {row} of {rows}").into());
            }
            keys += 1;
        }
        if keys != rows.min(KEYS) {
            return Err(format!("{name}: {keys} keys of {rows} rows").into());
        }
    }
    let last = db.get_cf(&ingested, LAST)?.map(|last| number(&last)).transpose()?;
    // Of the row that was written last, the table may not have come yet.
    let least = rows.saturating_sub(1) / INGEST_EVERY;
    let tables = last.map_or(0, |row| row / INGEST_EVERY + 1);
    if tables != least && tables != rows / INGEST_EVERY {
        return Err(format!("{tables} tables were ingested at row {rows}").into());
    }
    Ok(rows)
}

/// How many keys of a sequence there are, none of them missing; RocksDB's own program finds no fault.
fn sequence_of(copy: &Path) -> Outcome<u64> {
    let store = copy.join("store");
    let db = format!("--db={}", store.display());
    let checked = std::process::Command::new("ldb").args([&db, "checkconsistency"]).output()?;
    if !checked.status.success() {
        return Err(format!("ldb checkconsistency: {checked:?}").into());
    }
    let db = DB::open(&Options::default(), store)?;
    let mut rows = 0u64;
    for row in db.iterator(IteratorMode::Start) {
        let (key, _) = row?;
        if u64::from_be_bytes(key[..8].try_into()?) != rows {
            return Err(format!("key {rows} is missing").into());
        }
        rows += 1;
    }
    Ok(rows)
}
