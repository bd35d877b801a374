//! A key slot, and the header of a vault.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::key_slot(bytes));
