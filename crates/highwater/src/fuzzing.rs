//! What fuzzers call, one function for each thing that is read from other hands. Each takes any bytes,
//! and panics where a promise about them is broken. No program calls them: `fuzz/` does.

/// A MANIFEST of RocksDB, and CURRENT.
pub fn rocksdb_manifest(bytes: &[u8]) {
    crate::engine::fuzzing::manifest(bytes);
}

/// A table of RocksDB.
pub fn rocksdb_table(bytes: &[u8]) {
    crate::engine::fuzzing::table(bytes);
}

/// What the index, a partition of it and the properties of a table of RocksDB hold.
pub fn rocksdb_block(bytes: &[u8]) {
    crate::engine::fuzzing::block(bytes);
}

/// A blob file of RocksDB.
pub fn rocksdb_blob(bytes: &[u8]) {
    crate::engine::fuzzing::blob(bytes);
}

/// The rows of a RocksDB: its logs and its tables.
pub fn rocksdb_rows(bytes: &[u8]) {
    crate::engine::fuzzing::rows(bytes);
}

/// The first bytes of any file; a SQLite with a log beside it.
pub fn sqlite(bytes: &[u8]) {
    crate::engine::fuzzing::sqlite(bytes);
}

/// A page file of LMDB, libmdbx, bbolt or redb.
pub fn pages(bytes: &[u8]) {
    crate::engine::fuzzing::pages(bytes);
}

/// The journal of a restore.
pub fn restore_journal(bytes: &[u8]) {
    crate::restore::fuzzing::journal(bytes);
}

/// The latch of a quarantined node.
pub fn guard_latch(bytes: &[u8]) {
    crate::guard::fuzzing::latch(bytes);
}

/// An archive.
pub fn archive(bytes: &[u8]) {
    crate::archive::fuzzing::archive(bytes);
}

/// A recovery kit, and what is sealed in it.
pub fn kit(bytes: &[u8]) {
    crate::kit::fuzzing::kit(bytes);
}

/// A key slot, or the header of a vault.
pub fn key_slot(bytes: &[u8]) {
    crate::vault::fuzzing::key_slot(bytes);
}

/// A sealed document, and what is sealed in it.
pub fn sealed(bytes: &[u8]) {
    crate::vault::fuzzing::sealed(bytes);
}

/// A manifest, or another document of a vault.
pub fn manifest(bytes: &[u8]) {
    crate::vault::fuzzing::documents(bytes);
}

/// The runs of a file's units.
pub fn runs(bytes: &[u8]) {
    crate::vault::fuzzing::runs(bytes);
}

#[cfg(test)]
mod tests;
