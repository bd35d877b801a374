//! The runs of a file's units.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::runs(bytes));
