//! The network faces of an agent, on one port: gRPC (`highwater.v1`), JSON-RPC 2.0, metrics, health, a
//! dashboard.

mod agents;
#[cfg(test)]
mod bench;
pub mod client;
mod fault;
mod state;
mod stream;

pub use agents::Agents;
pub use state::Limits;

/// The messages and services of `highwater.v1`.
#[expect(missing_docs, clippy::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("highwater.v1");

    /// The definition, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/highwater.bin"));
}
