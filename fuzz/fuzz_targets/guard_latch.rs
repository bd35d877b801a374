//! The latch of a quarantined node.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater::fuzzing::guard_latch(bytes));
