//! The node that the demo generates. Every value follows from its place, so that a restored row can
//! be compared without a copy of the original.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use highwater::{Env, Error, Result};
use rust_rocksdb::{DB, Options};

/// The RocksDB, inside the node directory.
pub(super) const STORE: &str = "store";
/// The SQLite.
pub(super) const LEDGER: &str = "ledger.sqlite";
/// The key file, mode 0400.
pub(super) const KEY: &str = "node.key";
/// Its mode.
pub(super) const KEY_MODE: u32 = 0o400;
/// The configuration.
pub(super) const CONFIG: &str = "config.toml";
/// Its content.
pub(super) const CONFIG_TEXT: &str = "alias = \"demo\"\nlisten = \"127.0.0.1:9735\"\n";
/// A link to the configuration.
pub(super) const LINK: &str = "current.toml";
/// The RocksDB's column families.
pub(super) const FAMILIES: [&str; 3] = ["default", "channels", "invoices"];
/// Rows of each.
pub(super) const ROWS: u64 = 4000;
/// So many of them are flushed to a table; the others are in the log alone.
const ROWS_FLUSHED: u64 = 3900;
/// Bytes of a value.
const VALUE_BYTES: usize = 512;
/// How old the tables are made.
const TABLE_AGE: Duration = Duration::from_secs(3600);

/// Makes the node in `dir`; its RocksDB is closed, with rows that are in the log alone.
pub(super) fn make(dir: &Path, env: &Env) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(dir).map_err(|error| Error::io("node", error))?;
    fill_store(&dir.join(STORE)).map_err(store_error)?;
    age_tables(&dir.join(STORE), env)?;
    let write = |name: &str, mode: u32, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(dir.join(name));
        file.and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
            .map_err(|error| Error::io(name, error))
    };
    write(KEY, KEY_MODE, &key_bytes())?;
    write(CONFIG, 0o600, CONFIG_TEXT.as_bytes())?;
    std::os::unix::fs::symlink(CONFIG, dir.join(LINK)).map_err(|error| Error::io(LINK, error))
}

/// The key of a row.
pub(super) fn key(row: u64) -> [u8; 8] {
    row.to_be_bytes()
}

/// The value of a row of a column family (or of the ledger): bytes that look random.
pub(super) fn value(family: &str, row: u64) -> Vec<u8> {
    let mut state = family.bytes().fold(row.wrapping_add(1), |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    while bytes.len() < VALUE_BYTES {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes
}

/// The content of the key file.
pub(super) fn key_bytes() -> Vec<u8> {
    value(KEY, 0)
}

/// An error of the demo's own RocksDB.
pub(super) fn store_error(error: rust_rocksdb::Error) -> Error {
    Error::unavailable(format!("the demo's RocksDB: {error}")).with_entry(STORE)
}

fn fill_store(path: &Path) -> Result<(), rust_rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let store = DB::open_cf(&options, path, FAMILIES)?;
    let put = |rows: std::ops::Range<u64>, flush: bool| {
        for name in FAMILIES {
            let family = store.cf_handle(name).expect("the column family was opened by this name");
            for row in rows.clone() {
                store.put_cf(family, key(row), value(name, row))?;
            }
            if flush {
                store.flush_cf(family)?;
            }
        }
        Ok(())
    };
    put(0..ROWS_FLUSHED, true)?;
    put(ROWS_FLUSHED..ROWS, false)?;
    store.flush_wal(true)
}

/// Gives the tables the age that those of a running node have: a file that was written a moment ago
/// is read again by the next backup, since its times can't tell it from its successor.
fn age_tables(store: &Path, env: &Env) -> Result<()> {
    let failed = |error| Error::io(STORE, error);
    let now = Duration::from_nanos(u64::try_from(env.now().as_nanos()).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH + now.saturating_sub(TABLE_AGE);
    for entry in std::fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let table = std::fs::File::options().write(true).open(path).map_err(failed)?;
            table.set_modified(time).map_err(failed)?;
        }
    }
    Ok(())
}
