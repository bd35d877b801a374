//! Stores, opened and written as the node does (`crates/fiber-store/src/native.rs` and `sqlite.rs` of the node).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fiber_types::sample::{StoreSample, deterministic_hash};
use rocksdb::prelude::*;
use rocksdb::{DB, DBCompressionType, IteratorMode, WriteBatch};
use rusqlite::Connection;

use crate::Outcome;
use crate::sample::Sample;

/// Rows, by their keys.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What keeps a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    RocksDb,
    Sqlite,
}

/// An open store.
pub enum Store {
    RocksDb(DB),
    Sqlite(Connection),
}

impl Store {
    /// Opens the store in `dir`, or makes it.
    ///
    /// # Errors
    /// What the database says.
    pub fn open(dir: &Path, backend: Backend) -> Outcome<Store> {
        match backend {
            Backend::RocksDb => {
                let mut options = rocksdb::Options::default();
                options.create_if_missing(true);
                options.set_compression_type(DBCompressionType::Lz4);
                Ok(Store::RocksDb(DB::open(&options, dir)?))
            }
            Backend::Sqlite => {
                fs::create_dir_all(dir)?;
                let database = Connection::open(dir.join("data.sqlite"))?;
                database.execute_batch(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                     PRAGMA mmap_size = 268435456; PRAGMA cache_size = -65536; \
                     CREATE TABLE IF NOT EXISTS kv_store (key BLOB PRIMARY KEY NOT NULL, \
                     value BLOB NOT NULL) WITHOUT ROWID;",
                )?;
                Ok(Store::Sqlite(database))
            }
        }
    }

    /// Puts rows, all or none.
    ///
    /// # Errors
    /// What the database says.
    pub fn put(&mut self, rows: &Rows) -> Outcome<()> {
        match self {
            Store::RocksDb(database) => {
                let mut batch = WriteBatch::default();
                rows.iter().try_for_each(|(key, value)| batch.put(key, value))?;
                database.write(&batch)?;
            }
            Store::Sqlite(database) => {
                let transaction = database.transaction()?;
                for (key, value) in rows {
                    let put = "INSERT OR REPLACE INTO kv_store (key, value) VALUES (?1, ?2)";
                    transaction.execute(put, (key, value))?;
                }
                transaction.commit()?;
            }
        }
        Ok(())
    }

    /// All that is in it.
    ///
    /// # Errors
    /// What the database says.
    pub fn rows(&self) -> Outcome<Rows> {
        match self {
            Store::RocksDb(database) => {
                let all = database.iterator(IteratorMode::Start);
                Ok(all.map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
            }
            Store::Sqlite(database) => {
                let mut all = database.prepare("SELECT key, value FROM kv_store")?;
                let rows = all.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
        }
    }

    /// Moves what was written so far from the log into a table.
    ///
    /// # Errors
    /// What the database says.
    pub fn flush(&self) -> Outcome<()> {
        match self {
            Store::RocksDb(database) => database.flush().map_err(Into::into),
            Store::Sqlite(database) => {
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                Ok(database.query_row(checkpoint, (), |_| Ok(()))?)
            }
        }
    }
}

/// The rows of channels, with their index and the version of the store.
pub fn channel_rows(version: &str, samples: &[Sample]) -> Rows {
    let mut rows = Rows::from([(b"db-version".to_vec(), version.as_bytes().to_vec())]);
    for sample in samples {
        rows.insert(sample.key(), sample.value.clone());
        rows.insert(sample.index_key(), sample.index.clone());
    }
    rows
}

/// Rows of other kinds, which are to stay as they are.
pub fn other_rows(seed: u64) -> Rows {
    let mut rows = Rows::new();
    add::<fiber_types::PersistentNetworkActorState>(&mut rows, seed);
    add::<fiber_types::CkbInvoice>(&mut rows, seed);
    add::<fiber_types::BroadcastMessage>(&mut rows, seed);
    add::<fiber_types::PaymentCustomRecords>(&mut rows, seed);
    add::<fiber_types::ChannelOpenRecord>(&mut rows, seed);
    // Next to the kinds that are marked.
    for kind in [1, 63, 65] {
        rows.insert(
            [&[kind][..], &deterministic_hash(seed, u32::from(kind))].concat(),
            vec![kind; 40],
        );
    }
    rows
}

fn add<T: StoreSample>(rows: &mut Rows, seed: u64) {
    for (number, value) in T::sample_bytes(seed).into_iter().enumerate() {
        let key = [&[T::STORE_PREFIX][..], &deterministic_hash(seed, number as u32)].concat();
        rows.insert(key, value);
    }
}

/// A node directory with such a store: keys, settings, and `fiber/store`.
///
/// # Errors
/// What the file system or the database says.
pub fn make_node(dir: &Path, backend: Backend, rows: &Rows) -> Outcome<Store> {
    for (name, content) in [
        ("config.yml", "fiber:\n  listening_addr: \"/ip4/127.0.0.1/tcp/8228\"\n"),
        ("ckb/key", "an encrypted key"),
        ("fiber/sk", "the key of the node"),
        ("fiber/backups/1/CURRENT", "the node's own copy"),
    ] {
        let path = dir.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, content)?;
    }
    let mut store = Store::open(&dir.join("fiber/store"), backend)?;
    store.put(rows)?;
    Ok(store)
}

/// Copies a directory with all that is in it.
///
/// # Errors
/// What the file system says.
pub fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
