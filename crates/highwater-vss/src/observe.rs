//! What the service tells of itself: nothing in it names a user, a store, a key or a value.

use std::time::Duration;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A request was answered.
    Answered {
        /// `getObject`, `putObjects`, `deleteObject`, `listKeyVersions`, or another path's name.
        method: &'static str,
        /// The status of the answer.
        code: u16,
        /// From the request's head to the answer.
        took: Duration,
        /// Bytes of the request's body.
        bytes: usize,
    },
    /// Something failed that the client was told of only as an internal error.
    Failed {
        /// What was asked.
        method: &'static str,
        /// What is wrong, for the operator.
        message: String,
    },
}

/// Whoever is told.
pub(crate) type Log = Box<dyn Fn(&Event) + Send + Sync>;
