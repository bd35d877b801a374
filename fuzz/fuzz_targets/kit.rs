//! The recovery kit: its file, its header and what is sealed in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::kit(bytes));
