//! The replicated store of the node that the agent is a part of.

use std::sync::{Arc, Weak};
use std::time::Duration;

use highwater::agent::{ReplicaSource, ReplicaStanding, ReplicaState};
use highwater::ids::Time;
use highwater::{Error, Result};

use super::super::head::HeadState;
use super::super::store::ReplicatedStore;
use super::lag;

/// The replicated store of the node that the agent is a part of. It keeps the store neither open nor alive: the
/// node releases it when it likes.
#[derive(Clone, Debug)]
pub struct OwnReplica(Weak<ReplicatedStore>);

impl OwnReplica {
    /// What an agent is given of a store: `Agent::builder(…).replica(OwnReplica::of(&store))`.
    pub fn of(store: &Arc<ReplicatedStore>) -> OwnReplica {
        OwnReplica(Arc::downgrade(store))
    }
}

impl ReplicaSource for OwnReplica {
    fn standing(&self, now: Time) -> ReplicaStanding {
        let told = |error: Error| ReplicaStanding {
            last_error: Some(error),
            ..ReplicaStanding::default()
        };
        let Some(store) = self.0.upgrade() else { return told(ended()) };
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
        self.0.upgrade().ok_or_else(ended)?.flush(wait)
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
