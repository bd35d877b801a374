//! The body of a JSON-RPC request, up to the call.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| highwater_server::fuzzing::json_rpc(bytes));
