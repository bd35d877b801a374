//! A node in two states, old and new, each of which can be told from its databases' rows alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use rust_rocksdb::{DB, IteratorMode, Options};

/// The RocksDB, inside the node directory.
pub(crate) const STORE: &str = "store";
/// The SQLite.
pub(crate) const LEDGER: &str = "ledger.sqlite";
/// A text that stands in the configuration and in the key file, and nowhere else.
pub(crate) const SECRET: &str = "the-quick-brown-secret-of-the-node";
const FAMILIES: [&str; 3] = ["default", "channels", "invoices"];

/// Which state a node is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Old,
    New,
}

impl Age {
    fn rows(self) -> u64 {
        match self {
            Age::Old => 60,
            Age::New => 90,
        }
    }

    fn of_rows(rows: u64) -> Age {
        [Age::Old, Age::New]
            .into_iter()
            .find(|age| age.rows() == rows)
            .unwrap_or_else(|| panic!("{rows} rows are neither the old nor the new state"))
    }
}

/// Makes a node in its old state.
pub(crate) fn make(dir: &Path) {
    fs::create_dir(dir).unwrap();
    fill_store(dir, 0..Age::Old.rows());
    fill_ledger(dir, 0..Age::Old.rows());
    write(dir, "node.key", 0o400, format!("key {SECRET}\n").as_bytes());
    write(dir, "config.toml", 0o640, format!("# {SECRET}\nalias = \"old\"\n").as_bytes());
    write(dir, "gone.txt", 0o600, b"only the old state has it\n");
    write(dir, "blob.bin", 0o600, &bytes("blob", 1, 1 << 20));
    fs::create_dir_all(dir.join("notes/deep")).unwrap();
    write(&dir.join("notes/deep"), "a.txt", 0o600, b"a\n");
    symlink("config.toml", dir.join("current.toml")).unwrap();
}

/// Takes it from its old state to the new one.
pub(crate) fn go_on(dir: &Path) {
    fill_store(dir, Age::Old.rows()..Age::New.rows());
    fill_ledger(dir, Age::Old.rows()..Age::New.rows());
    write(dir, "config.toml", 0o600, format!("# {SECRET}\nalias = \"new\"\n").as_bytes());
    fs::remove_file(dir.join("gone.txt")).unwrap();
    write(dir, "come.txt", 0o600, b"only the new state has it\n");
    write(dir, "blob.bin", 0o600, &bytes("blob", 2, 3 << 20));
}

/// Opens both databases as a node does at its start, and tells the state that they agree on. It
/// changes the directory: give it a copy.
pub(crate) fn start(dir: &Path) -> Result<Age, String> {
    let store = open_store(dir);
    let ledger = open_ledger(dir);
    if let (Ok(store), Ok(ledger)) = (&store, &ledger) {
        assert_eq!(store, ledger, "the databases are a mixture");
    }
    store.and(ledger)
}

fn write(dir: &Path, name: &str, mode: u32, content: &[u8]) {
    let path = dir.join(name);
    if path.exists() {
        fs::remove_file(&path).unwrap();
    }
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fill_store(dir: &Path, rows: std::ops::Range<u64>) {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let store = DB::open_cf(&options, dir.join(STORE), FAMILIES).unwrap();
    for name in FAMILIES {
        let family = store.cf_handle(name).unwrap();
        for row in rows.clone() {
            // The last rows are in the log alone.
            if row == rows.end - 10 {
                store.flush_cf(family).unwrap();
            }
            store.put_cf(family, row.to_be_bytes(), bytes(name, row, 300)).unwrap();
        }
    }
    store.flush_wal(true).unwrap();
}

/// An error where it can't be opened; what opens must be exactly one of the states.
fn open_store(dir: &Path) -> Result<Age, String> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let store =
        DB::open_cf(&options, dir.join(STORE), FAMILIES).map_err(|error| error.to_string())?;
    let ages = FAMILIES.map(|name| {
        let family = store.cf_handle(name).unwrap();
        let rows = store.iterator_cf(family, IteratorMode::Start);
        let count = (0..).zip(rows).map(|(number, row): (u64, _)| {
            let (key, value) = row.unwrap();
            assert_eq!(*key, number.to_be_bytes());
            assert_eq!(*value, *bytes(name, number, 300));
        });
        Age::of_rows(count.count() as u64)
    });
    assert!(ages.iter().all(|age| *age == ages[0]), "column families of two states: {ages:?}");
    Ok(ages[0])
}

fn fill_ledger(dir: &Path, rows: std::ops::Range<u64>) {
    let ledger = Connection::open(dir.join(LEDGER)).unwrap();
    ledger
        .execute_batch(
            "PRAGMA journal_mode = wal;
             CREATE TABLE IF NOT EXISTS payment (id INTEGER PRIMARY KEY, body BLOB NOT NULL);",
        )
        .unwrap();
    for row in rows {
        let body = bytes(LEDGER, row, 700);
        ledger.execute("INSERT INTO payment VALUES (?1, ?2)", (row.cast_signed(), body)).unwrap();
    }
}

fn open_ledger(dir: &Path) -> Result<Age, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let text = |error: rusqlite::Error| error.to_string();
    let ledger = Connection::open_with_flags(dir.join(LEDGER), flags).map_err(text)?;
    let verdict: String =
        ledger.query_row("PRAGMA integrity_check", (), |row| row.get(0)).map_err(text)?;
    assert_eq!(verdict, "ok");
    let mut query = ledger.prepare("SELECT id, body FROM payment ORDER BY id").unwrap();
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let count = (0..).zip(rows).map(|(number, row): (u64, _)| {
        let (id, body): (i64, Vec<u8>) = row.unwrap();
        assert_eq!((id, body), (number.cast_signed(), bytes(LEDGER, number, 700)));
    });
    Ok(Age::of_rows(count.count() as u64))
}

/// Bytes that look random and follow from their place.
pub(crate) fn bytes(name: &str, row: u64, length: usize) -> Vec<u8> {
    let seed = name.bytes().fold(row.wrapping_add(1), |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
