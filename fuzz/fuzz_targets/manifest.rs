//! A manifest and the other documents of a vault.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::manifest(bytes));
