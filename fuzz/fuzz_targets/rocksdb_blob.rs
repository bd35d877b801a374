//! A blob file of RocksDB.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::rocksdb_blob(bytes));
