//! How a node's replica stands, as its agent shows it.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::ids::Time;

/// Tells an agent how its node's replica stands: the node's own store, or an observer in another process.
///
/// The agent shows what it is told in its [`Status`](super::Status), from where metrics and the faces of a server have it.
pub trait ReplicaSource: Send + Sync {
    /// How it stands at `now`: from memory, or from the node's own store. No server is asked.
    fn standing(&self, now: Time) -> ReplicaStanding;

    /// Returns once the server has all that was written before.
    ///
    /// # Errors
    /// Fenced where another owner writes; unavailable once `wait` has passed, which goes on behind;
    /// conflict where only the node itself can send.
    fn flush(&self, wait: Duration) -> Result<()>;
}

/// What a server has of a node's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Nothing, and it never had.
    Absent,
    /// Nothing, or less than it has acknowledged.
    Lost,
    /// Not all of it yet.
    Filling,
    /// One instant of it, and an owner that writes on.
    Open,
    /// The same, and its owner has ended in good order.
    Released,
}

impl ReplicaState {
    /// The state's name in documents.
    pub fn name(self) -> &'static str {
        match self {
            ReplicaState::Absent => "absent",
            ReplicaState::Lost => "lost",
            ReplicaState::Filling => "filling",
            ReplicaState::Open => "open",
            ReplicaState::Released => "released",
        }
    }
}

/// How a replica stands. What is not known is `None`, never a zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplicaStanding {
    /// Whether the server has one whole instant of this store. Not where another owner has taken it.
    pub backup_exists: Option<bool>,
    /// Whether something is still to be sent, or to be decided: writes wait, the server is being filled or
    /// has lost what it had, or another owner writes.
    pub backup_required: Option<bool>,
    /// The number of writes that are durable here and not on the server.
    pub pending_writes: Option<u64>,
    /// The bytes of these writes.
    pub pending_bytes: Option<u64>,
    /// The age of the oldest of them, zero where none waits; seconds in documents.
    #[serde(rename = "lag_seconds", serialize_with = "seconds")]
    pub lag: Option<Duration>,
    /// Why writes don't get through, or why it can't be told whether they do.
    #[serde(serialize_with = "summary")]
    pub last_error: Option<Error>,
    /// The number of the ownership under which this store writes.
    pub epoch: Option<u64>,
    /// What the server has.
    pub state: Option<ReplicaState>,
    /// Whether another owner writes: this store must not act any more.
    pub fenced: Option<bool>,
    /// The last write that the server is known to have.
    pub acknowledged: Option<u64>,
    /// The last write of the node.
    pub written: Option<u64>,
    /// When the server was last asked; `None` where the node itself tells what it was answered.
    pub seen: Option<Time>,
}

/// An error as documents have it: what it says, without the ways out.
fn summary<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(Error::summary).serialize(serializer)
}

fn seconds<S: Serializer>(lag: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    lag.map(|lag| lag.as_secs_f64()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_name_the_fields_that_callers_rely_on() {
        let standing = ReplicaStanding {
            lag: Some(Duration::from_millis(1500)),
            state: Some(ReplicaState::Filling),
            ..ReplicaStanding::default()
        };
        let document = serde_json::to_value(&standing).unwrap();
        assert_eq!(
            (&document["lag_seconds"], &document["state"]),
            (&1.5.into(), &"filling".into())
        );
        for name in ["backup_exists", "backup_required", "pending_writes", "pending_bytes", "epoch"]
        {
            assert!(document[name].is_null() && document.get(name).is_some(), "{name}");
        }
        assert_eq!(standing.state.unwrap().name(), document["state"]);
    }
}
