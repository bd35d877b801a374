//! How long names may be, and how much a server does at once.

use std::time::Duration;

use highwater_gate::Patience;

/// Characters of a user, and of a store's id.
pub(crate) const NAME_MAX: usize = 120;
/// Characters of a key: exactly the longest one that `ldk-node` makes.
pub(crate) const KEY_MAX: usize = 600;
/// Items of one put, deletes among them.
pub(crate) const ITEMS_MAX: usize = 1000;
/// Bytes of a request other than a put.
pub(crate) const SHORT_MAX: usize = 1 << 20;
/// How many bytes of a request must come each second, once it takes longer than it may wait.
pub(crate) const LEAST_RATE: u64 = 64 << 10;
/// Requests at once on one connection of HTTP/2.
const CALLS_PER_CONNECTION: u32 = 200;
/// Keys of one page.
pub(crate) const PAGE_MAX: u32 = 100;

/// How much a server does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a put. Other requests are short.
    pub body_bytes: usize,
    /// Bytes of memory for all requests and answers at once; one more waits.
    pub memory_bytes: usize,
    /// The same for those of one user; at least what one put takes.
    pub user_bytes: usize,
    /// Requests of one user at once; one more waits.
    pub calls_per_user: usize,
    /// Connections at once; one more takes the place of one that rests, or is closed.
    pub connections: usize,
    /// A request must have begun, and be answered, by then; of a long one 64 KiB a second must come.
    pub request_wait: Duration,
    /// A connection without a request is closed after that.
    pub idle_wait: Duration,
    /// A client that takes nothing of what is sent is given up after that.
    pub write_wait: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 64 << 20,
            memory_bytes: 512 << 20,
            user_bytes: 128 << 20,
            calls_per_user: 256,
            connections: 4096,
            request_wait: Duration::from_secs(30),
            idle_wait: Duration::from_secs(5 * 60),
            write_wait: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// What each connection may cost.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            connections: self.connections,
            calls_per_connection: CALLS_PER_CONNECTION,
            request_wait: self.request_wait,
            idle_wait: self.idle_wait,
            write_wait: self.write_wait,
        }
    }
}
