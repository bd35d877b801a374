//! The journal of a restore.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::restore_journal(bytes));
