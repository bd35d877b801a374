//! The store of a node that is replicated: any ordered key-value store with transactions.

use highwater::Result;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use memory::MemoryStore;
#[cfg(feature = "rocksdb")]
pub use rocksdb::RocksStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// What a key belongs to. The two never meet: a key may be in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The node's own values.
    Data,
    /// What the replica keeps beside them: queue, head, tags.
    Book,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Where.
    pub space: Space,
    /// The key, any bytes.
    pub key: Vec<u8>,
    /// The value; none deletes the key, whether it is there or not.
    pub value: Option<Vec<u8>>,
}

impl Op {
    /// Writes a value.
    pub fn put(space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Op {
        Op { space, key: key.into(), value: Some(value.into()) }
    }

    /// Deletes a key.
    pub fn delete(space: Space, key: impl Into<Vec<u8>>) -> Op {
        Op { space, key: key.into(), value: None }
    }
}

/// Keys and values, in ascending order of the keys' bytes.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A key-value store with two spaces and transactions. It passes [`conformance`].
pub trait LocalStore: Send + Sync {
    /// A value; none where the key is missing.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// At most `limit` rows whose keys begin with `prefix`, in order, from the first key above `after`.
    fn scan(&self, space: Space, prefix: &[u8], after: Option<&[u8]>, limit: usize)
    -> Result<Rows>;

    /// One transaction, its steps in order: all of them, durable when this returns, or none.
    ///
    /// # Errors
    /// After an error it is not known which; the next read says.
    fn write(&self, ops: &[Op]) -> Result<()>;

    /// The same, durable with the next [`write`](LocalStore::write) at the latest: until then a machine that
    /// stops may lose it, whole, and with it what was applied after it.
    ///
    /// # Errors
    /// As [`LocalStore::write`].
    fn apply(&self, ops: &[Op]) -> Result<()> {
        self.write(ops)
    }
}
