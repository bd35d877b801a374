//! What is read of SQLite's files without SQLite: headers, and the end of a journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::sqlite(bytes));
