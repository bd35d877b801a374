//! The rows of a RocksDB: any log, any table, and writes of which it is known what they come to.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::rocksdb_rows(bytes));
