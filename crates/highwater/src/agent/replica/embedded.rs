//! The replicated store of the node that the agent is a part of.

use std::sync::Weak;
use std::time::Duration;

use super::{ReplicaSource, ReplicaStanding, ReplicaState, lag};
use crate::error::{Error, Result};
use crate::ids::Time;
use crate::replica::{HeadState, ReplicatedStore};

/// The agent keeps the store neither open nor alive: the node releases it when it likes.
impl ReplicaSource for Weak<ReplicatedStore> {
    fn standing(&self, now: Time) -> ReplicaStanding {
        let told = |error: Error| ReplicaStanding {
            last_error: Some(error),
            ..ReplicaStanding::default()
        };
        let Some(store) = self.upgrade() else { return told(ended()) };
        let status = match store.status() {
            Ok(status) => status,
            Err(error) => return told(error),
        };
        let filling = status.state == HeadState::Filling;
        let waits = status.pending_writes > 0;
        ReplicaStanding {
            backup_exists: Some(!filling && !status.fenced),
            backup_required: Some(waits || filling || status.fenced),
            pending_writes: Some(status.pending_writes),
            pending_bytes: Some(status.pending_bytes),
            lag: Some(lag(status.pending_since.filter(|_| waits), now)),
            last_error: status.last_error,
            epoch: Some(status.epoch),
            state: Some(ReplicaState::from(status.state)),
            fenced: Some(status.fenced),
            acknowledged: Some(status.acknowledged),
            written: Some(status.written),
            seen: None,
        }
    }

    fn flush(&self, wait: Duration) -> Result<()> {
        self.upgrade().ok_or_else(ended)?.flush(wait)
    }
}

impl From<HeadState> for ReplicaState {
    fn from(state: HeadState) -> ReplicaState {
        match state {
            HeadState::Filling => ReplicaState::Filling,
            HeadState::Open => ReplicaState::Open,
            HeadState::Released => ReplicaState::Released,
        }
    }
}

fn ended() -> Error {
    Error::unavailable("the node has closed its replicated store")
        .with_remedy("start the node again")
}
