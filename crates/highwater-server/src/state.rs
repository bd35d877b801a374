//! What all faces of a server share.

use crate::Agents;

/// How much a server does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams of archives at once.
    pub streams: usize,
    /// Bytes of a message that it reads.
    pub message_bytes: usize,
    /// Requests a second of one caller, on average.
    pub requests_per_second: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { streams: 4, message_bytes: 1 << 20, requests_per_second: 100 }
    }
}

/// What all faces of a server share.
#[expect(dead_code, reason = "the faces follow")]
pub(crate) struct State {
    pub(crate) agents: Agents,
    pub(crate) limits: Limits,
}
