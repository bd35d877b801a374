//! From what the library says to the messages of both interfaces.

use highwater::agent::{Operation, OperationState, ReplicaStanding, Snapshot, Status};
use highwater::guard::Held;
use highwater::ids::{NodeName, Time};
use highwater::vault::Level;
use serde_json::{Value, json};

use crate::v1;

pub(crate) fn timestamp(time: Time) -> prost_types::Timestamp {
    let nanos = time.as_nanos();
    prost_types::Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
    }
}

/// The name of a level in documents.
pub(crate) fn level(level: Level) -> &'static str {
    match level {
        Level::Failed => "failed",
        Level::Sealed => "sealed",
        Level::Restored => "restored",
    }
}

pub(crate) fn operation(operation: &Operation) -> v1::Operation {
    let state = match operation.state {
        OperationState::Queued => v1::State::Queued,
        OperationState::Running => v1::State::Running,
        OperationState::Completed => v1::State::Completed,
        OperationState::Failed => v1::State::Failed,
        OperationState::Cancelled => v1::State::Cancelled,
    };
    v1::Operation {
        id: operation.id.to_string(),
        state: state.into(),
        bytes_done: operation.bytes_done,
        bytes_total: operation.bytes_total,
        started_at: operation.started_at.map(timestamp),
        finished_at: operation.finished_at.map(timestamp),
        reason: operation.reason.clone().unwrap_or_default(),
        snapshot: operation.snapshot.map(|id| id.to_string()).unwrap_or_default(),
        node: operation.node.to_string(),
        task: operation.task.name().to_owned(),
        trigger: operation.trigger.name().to_owned(),
        queued_at: Some(timestamp(operation.queued_at)),
        location: operation.location.clone(),
        kind: operation.kind.clone().unwrap_or_default(),
        stage: operation.stage.clone(),
        warnings: operation.warnings.clone(),
    }
}

pub(crate) fn snapshot(snapshot: &Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        snapshot: snapshot.snapshot.to_string(),
        node: snapshot.node.to_string(),
        time: Some(timestamp(snapshot.time)),
        seq: snapshot.seq.0,
        parent: snapshot.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        level: level(snapshot.level).to_owned(),
        bytes_total: snapshot.bytes_total,
        bytes_read: snapshot.bytes_read,
        bytes_stored: snapshot.bytes_stored,
        marks: snapshot.marks.clone().into_iter().collect(),
        tags: snapshot.tags.clone().into_iter().collect(),
    }
}

pub(crate) fn status(status: &Status) -> v1::NodeStatus {
    v1::NodeStatus {
        node: status.node.to_string(),
        newest: status.newest(Level::Sealed).map(snapshot),
        age_seconds: status.age_seconds(Level::Sealed),
        newest_restored: status.newest(Level::Restored).map(snapshot),
        quarantined: status.quarantined,
        maintenance: status.maintenance,
        failures: status.failures,
        next_backup: status.next_backup.map(timestamp),
        active: status.active.iter().map(operation).collect(),
        warnings: status.warnings.clone(),
        location: status.location.clone(),
    }
}

pub(crate) fn channel(node: &NodeName, held: &Held) -> v1::Channel {
    v1::Channel {
        node: node.to_string(),
        id: held.id.clone(),
        state: word(&held.state),
        reason: held.reason.clone(),
    }
}

pub(crate) fn replica(node: &NodeName, replica: &ReplicaStanding) -> v1::Replica {
    v1::Replica {
        node: node.to_string(),
        backup_exists: replica.backup_exists,
        backup_required: replica.backup_required,
        pending_writes: replica.pending_writes,
        pending_bytes: replica.pending_bytes,
        lag_seconds: replica.lag.map(|lag| lag.as_secs_f64()),
        last_error: replica.last_error.as_ref().map(highwater::Error::summary),
        epoch: replica.epoch,
        state: replica.state.map(|state| word(&state)),
        fenced: replica.fenced,
        acknowledged: replica.acknowledged,
        written: replica.written,
        seen: replica.seen.map(timestamp),
    }
}

/// The word that stands for a value in documents.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// An operation as JSON; its handle is called `operation` as well, as it once was in the parameters of each method.
pub(crate) fn operation_json(operation: &Operation) -> Value {
    json!({
        "id": operation.id,
        "operation": operation.id,
        "node": operation.node,
        "task": operation.task,
        "trigger": operation.trigger,
        "state": operation.state,
        "stage": operation.stage,
        "bytes_done": operation.bytes_done,
        "bytes_total": operation.bytes_total,
        "percent": operation.percent(),
        "queued_at": operation.queued_at,
        "started_at": operation.started_at,
        "finished_at": operation.finished_at,
        "reason": operation.reason,
        "kind": operation.kind,
        "snapshot": operation.snapshot,
        "location": operation.location,
        "warnings": operation.warnings,
    })
}

pub(crate) fn status_json(status: &Status) -> Value {
    json!({
        "node": status.node,
        "newest": status.newest(Level::Sealed),
        "age_seconds": status.age_seconds(Level::Sealed),
        "newest_restored": status.newest(Level::Restored),
        "quarantined": status.quarantined,
        "maintenance": status.maintenance,
        "failures": status.failures,
        "next_backup": status.next_backup,
        "replica": status.replica,
        "active": status.active.iter().map(operation_json).collect::<Vec<_>>(),
        "warnings": status.warnings,
        "location": status.location,
    })
}

pub(crate) fn replica_json(node: &NodeName, replica: &ReplicaStanding) -> Value {
    let mut document = json!(replica);
    document["node"] = json!(node);
    document
}

pub(crate) fn channel_json(node: &NodeName, held: &Held) -> Value {
    json!({ "node": node, "id": held.id, "state": held.state, "reason": held.reason })
}
