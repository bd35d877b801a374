//! What a request says of who sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    highwater_server::fuzzing::auth(bytes);
    highwater_vss::fuzzing::auth(bytes);
});
