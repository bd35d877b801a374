//! The rows of a Fiber store, and what marks its channels.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater_nodes::fuzzing::fiber_rows(bytes));
