//! What fuzzers call, one function for each thing that comes over the network. Each takes any bytes,
//! and panics where a promise about them is broken. No program calls them: `fuzz/` does.

use std::sync::{Arc, LazyLock};

use highwater::Env;
use jsonrpsee::RpcModule;
use tokio::runtime::{Builder, Runtime};

use crate::Agents;
use crate::limits::Limits;
use crate::rpc::{Faces, methods};
use crate::state::ServerState;

/// A server without agents, and what its calls run on.
static SERVER: LazyLock<(Runtime, RpcModule<Faces>)> = LazyLock::new(|| {
    let limits = Limits { requests_per_second: u32::MAX, ..Limits::default() };
    let state = ServerState::new(Agents::default(), limits, Env::system());
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime is made");
    (runtime, methods(Arc::new(state)).expect("each method has a name of its own"))
});

/// What a request says of who sends it: its values of `Authorization`, `Origin` and `Host`, one a line.
pub fn auth(bytes: &[u8]) {
    crate::access::fuzzing::access(bytes);
}

/// The body of a JSON-RPC request with one call. Every answer is one, of the same version.
pub fn json_rpc(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (runtime, module) = &*SERVER;
    let Ok((answer, _)) = runtime.block_on(module.raw_json_request(text, 1)) else { return };
    let answer: serde_json::Value = serde_json::from_str(answer.get()).expect("an answer is JSON");
    assert_eq!(answer["jsonrpc"], "2.0");
    assert!(answer.get("result").is_some() != answer.get("error").is_some(), "{answer}");
}

#[cfg(test)]
mod tests;
