//! Footers, indexes and blocks of names of a table of RocksDB, each by itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::rocksdb_block(bytes));
