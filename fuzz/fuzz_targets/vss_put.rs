//! A put of the Versioned Storage Service, from its bytes to its plan.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater_vss::fuzzing::vss_put(bytes));
