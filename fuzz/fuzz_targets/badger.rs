//! The files of a Badger database, as ev-node has one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater_nodes::fuzzing::badger(bytes));
