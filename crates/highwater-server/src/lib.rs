//! The network faces of an agent, on one port: gRPC (`highwater.v1`), JSON-RPC 2.0, metrics, health, a
//! dashboard.

mod access;
mod agents;
pub mod api;
mod audit;
#[cfg(test)]
mod bench;
mod calls;
pub mod client;
mod convert;
mod dashboard;
mod fault;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod health;
mod limits;
mod metrics;
mod rpc;
mod server;
mod state;
mod stream;

pub use agents::Agents;
pub use highwater_gate::{NewToken, Scope, TokenInfo, Tokens};
pub use limits::Limits;
pub use rpc::{Faces, module};
pub use server::{Running, Server, ServerBuilder};

/// The version that is reported to clients.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The messages and services of `highwater.v1`.
#[expect(missing_docs, clippy::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("highwater.v1");

    /// The definition, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/highwater.bin"));
}
