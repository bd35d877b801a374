//! How much a server does at once, and for one caller.

use std::collections::HashMap;
use std::time::Duration;

use highwater_gate::Patience;
use parking_lot::Mutex;

/// How many callers are counted separately; beyond them, those that have been idle longest are forgotten.
const CALLERS_MAX: usize = 4096;

/// How much a server does at once.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Streams of archives at once.
    pub streams: usize,
    /// Bytes of a message that it reads.
    pub message_bytes: usize,
    /// Requests a second of one caller, on average; twice as many may come in one moment.
    pub requests_per_second: u32,
    /// Connections at once; one more takes the place of one that rests, or is closed.
    pub connections: usize,
    /// Calls at once on one connection.
    pub calls_per_connection: u32,
    /// Calls at once that look at agents and vaults; one more waits.
    pub calls: usize,
    /// A connection must have brought its first request by then, and a request its whole body.
    pub request_wait: Duration,
    /// A connection without a call is closed after that.
    pub idle_wait: Duration,
    /// A client that takes nothing of what is sent is given up after that.
    pub write_wait: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams: 4,
            message_bytes: 1 << 20,
            requests_per_second: 100,
            connections: 512,
            calls_per_connection: 100,
            calls: 32,
            request_wait: Duration::from_secs(10),
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
            calls_per_connection: self.calls_per_connection,
            request_wait: self.request_wait,
            idle_wait: self.idle_wait,
            write_wait: self.write_wait,
        }
    }
}

/// A bucket of tokens for each caller: it fills steadily, and each request takes one out.
pub(crate) struct Buckets {
    per_second: f64,
    callers: Mutex<HashMap<String, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Duration,
}

impl Buckets {
    pub(crate) fn new(requests_per_second: u32) -> Buckets {
        Buckets { per_second: f64::from(requests_per_second.max(1)), callers: Mutex::default() }
    }

    /// Whether a caller may make one more request at `now`, a time that never goes back.
    pub(crate) fn take(&self, caller: &str, now: Duration) -> bool {
        let full = self.per_second * 2.0;
        let fill = |bucket: &Bucket| {
            let passed = now.saturating_sub(bucket.at).as_secs_f64();
            (bucket.left + passed * self.per_second).min(full)
        };
        let mut callers = self.callers.lock();
        if callers.len() >= CALLERS_MAX && !callers.contains_key(caller) {
            callers.retain(|_, bucket| fill(bucket) < full);
            let oldest = callers.iter().min_by_key(|(_, bucket)| bucket.at);
            let oldest = oldest.map(|(caller, _)| caller.clone());
            if let Some(oldest) = oldest.filter(|_| callers.len() >= CALLERS_MAX) {
                callers.remove(&oldest);
            }
        }
        let bucket = callers.entry(caller.to_owned()).or_insert(Bucket { left: full, at: now });
        bucket.left = fill(bucket);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}
