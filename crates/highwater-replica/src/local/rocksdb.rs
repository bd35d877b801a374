//! A store in RocksDB.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use highwater::{Error, Result};
use rust_rocksdb::{
    AsColumnFamilyRef, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, ErrorKind,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{LocalStore, Op, Rows, Space};

/// The column families of a database of its own.
const DATA: &str = "highwater_data";
const BOOK: &str = "highwater_book";

/// A store in two column families of a RocksDB; each transaction is on the disk when it returns.
pub struct RocksStore {
    db: Arc<DB>,
    data: String,
    book: String,
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocksStore({})", self.db.path().display())
    }
}

impl RocksStore {
    /// Opens a database of its own, with the column families `highwater_data` and `highwater_book`, and
    /// creates whatever is missing.
    ///
    /// # Errors
    /// Conflict where somebody has it open; corrupt where it is damaged; input where it is the database of
    /// something else; denied or unavailable where it can't be written.
    pub fn open(path: impl AsRef<Path>) -> Result<RocksStore> {
        let path = path.as_ref();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Each write was synced before it was acknowledged: the end of the log may be torn, and what is
        // damaged before it is no crash.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        let family = |name| ColumnFamilyDescriptor::new(name, Options::default());
        let db = DB::open_cf_descriptors(&options, path, [family(DATA), family(BOOK)])
            .map_err(|error| failed(path, error))?;
        Ok(RocksStore { db: Arc::new(db), data: DATA.to_owned(), book: BOOK.to_owned() })
    }

    /// A store over two column families of a database that the node has open. Nobody else may write them
    /// while this is used, and they must be ordered by bytes, which is RocksDB's default.
    ///
    /// # Errors
    /// Input where a family is missing, or both are the same.
    pub fn over(
        db: Arc<DB>,
        data_cf: impl Into<String>,
        book_cf: impl Into<String>,
    ) -> Result<RocksStore> {
        let (data, book) = (data_cf.into(), book_cf.into());
        if data == book {
            return Err(Error::input(format!("{data} can't be both values and book")));
        }
        for name in [&data, &book] {
            if db.cf_handle(name).is_none() {
                return Err(Error::input(format!("the database has no column family {name}"))
                    .with_entry(db.path().display().to_string())
                    .with_remedy("make it before, and open the database with it"));
            }
        }
        Ok(RocksStore { db, data, book })
    }

    fn family(&self, space: Space) -> Result<impl AsColumnFamilyRef + '_> {
        let name = match space {
            Space::Data => &self.data,
            Space::Book => &self.book,
        };
        self.db.cf_handle(name).ok_or_else(|| {
            Error::input(format!("the column family {name} was dropped"))
                .with_entry(self.db.path().display().to_string())
                .with_remedy("the replica needs it; nobody may drop it while it runs")
        })
    }

    fn failed(&self, error: rust_rocksdb::Error) -> Error {
        failed(self.db.path(), error)
    }
}

fn failed(path: &Path, error: rust_rocksdb::Error) -> Error {
    let text = format!("the node's store: {error}");
    let found = match error.kind() {
        ErrorKind::Corruption => Error::corrupt(text),
        ErrorKind::InvalidArgument | ErrorKind::NotSupported => Error::input(text),
        ErrorKind::IOError if error.as_ref().contains("lock") => {
            Error::conflict(text).with_remedy("does another process have it open?")
        }
        ErrorKind::IOError if error.as_ref().contains("Permission denied") => Error::denied(text),
        _ => Error::unavailable(text),
    };
    found.with_entry(path.display().to_string()).with_source(error)
}

impl LocalStore for RocksStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(&self.family(space)?, key).map_err(|error| self.failed(error))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows> {
        let family = self.family(space)?;
        let from = after.map_or(prefix, |after| after.max(prefix));
        let mut options = ReadOptions::default();
        // The node may have given the family an extractor of prefixes, by which a seek would skip keys.
        options.set_total_order_seek(true);
        let mode = IteratorMode::From(from, Direction::Forward);
        let mut found = Rows::new();
        for row in self.db.iterator_cf_opt(&family, options, mode) {
            let (key, value) = row.map_err(|error| self.failed(error))?;
            if found.len() >= limit || !key.starts_with(prefix) {
                break;
            }
            if after.is_none_or(|after| &*key > after) {
                found.push((key.into(), value.into()));
            }
        }
        Ok(found)
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        self.put(ops, true)
    }

    fn apply(&self, ops: &[Op]) -> Result<()> {
        self.put(ops, false)
    }
}

impl RocksStore {
    /// The log is written in one order: what is synced makes durable what was not.
    fn put(&self, ops: &[Op], sync: bool) -> Result<()> {
        let (data, book) = (self.family(Space::Data)?, self.family(Space::Book)?);
        let mut batch = WriteBatch::default();
        for Op { space, key, value } in ops {
            match (space, value) {
                (Space::Data, Some(value)) => batch.put_cf(&data, key, value),
                (Space::Data, None) => batch.delete_cf(&data, key),
                (Space::Book, Some(value)) => batch.put_cf(&book, key, value),
                (Space::Book, None) => batch.delete_cf(&book, key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(&batch, &options).map_err(|error| self.failed(error))
    }
}
