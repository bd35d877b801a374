//! A MANIFEST of RocksDB: its log and its version edits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::rocksdb_manifest(bytes));
