//! A listing of the Versioned Storage Service: its bytes and its page token.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater_vss::fuzzing::vss_list(bytes));
