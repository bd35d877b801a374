//! How long names may be, and how much a server does at once.

use std::time::Duration;

/// Characters of a user, and of a store's id.
pub(crate) const NAME_MAX: usize = 120;
/// Characters of a key: exactly the longest one that `ldk-node` makes.
pub(crate) const KEY_MAX: usize = 600;
/// Items of one put, deletes among them.
pub(crate) const ITEMS_MAX: usize = 1000;
/// Keys of one page.
pub(crate) const PAGE_MAX: u32 = 100;

/// How much a server does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request.
    pub body_bytes: usize,
    /// Bytes of all requests that are in memory at once; one more waits.
    pub bodies_bytes: usize,
    /// Connections at once; one more is closed.
    pub connections: usize,
    /// A request must have arrived by then, and be answered by then once more.
    pub request_wait: Duration,
    /// A connection without a request is closed after that.
    pub idle_wait: Duration,
    /// A client that takes nothing of what is sent is given up after that.
    pub write_wait: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 1 << 30,
            bodies_bytes: 1 << 30,
            connections: 4096,
            request_wait: Duration::from_secs(30),
            idle_wait: Duration::from_secs(5 * 60),
            write_wait: Duration::from_secs(60),
        }
    }
}
