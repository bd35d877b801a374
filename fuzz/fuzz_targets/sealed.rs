//! A sealed document: its frame, what is sealed in it, the index of a pack.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::sealed(bytes));
