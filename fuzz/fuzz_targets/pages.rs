//! The page files of LMDB, libmdbx, bbolt and redb.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::pages(bytes));
