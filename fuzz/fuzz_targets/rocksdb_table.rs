//! A table of RocksDB: from its footer to the last block that it leads to.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::rocksdb_table(bytes));
