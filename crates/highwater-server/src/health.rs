//! `/healthz`: the process serves. `/readyz`: its nodes are safe, as far as it knows.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State as Shared};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use highwater::agent::{ReplicaState, Status};
use highwater::vault::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::fault::document;
use crate::state::{Identity, ServerState};

pub(crate) fn router(state: Arc<ServerState>) -> Router {
    Router::new().route("/healthz", get(healthy)).route("/readyz", get(ready)).with_state(state)
}

async fn healthy() -> Response {
    document(StatusCode::OK, &json!({ "healthy": true }))
}

/// 200 where each agent has seen its vault, no restore goes on, each node has a verified backup that is
/// not too old and lacks nothing that an earlier one has, and no replica is fenced or lost; else 503. The body says what is wrong; of which node, only to who may read that.
async fn ready(
    Shared(state): Shared<Arc<ServerState>>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let found = state.run(move |state| {
        state.take(&identity)?;
        let statuses = state.agents.all().into_iter().map(|agent| agent.status());
        let nodes: Vec<(Status, Vec<&str>)> = statuses
            .map(|status| {
                let wrong = wrong(&status);
                (status, wrong)
            })
            .collect();
        Ok((nodes, identity.caller.is_some()))
    });
    match found.await {
        Ok((nodes, known)) => answer(&nodes, known),
        Err(fault) => fault.into_response(),
    }
}

/// What keeps a node from being ready.
fn wrong(status: &Status) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if status.maintenance {
        wrong.push("maintenance");
    }
    if status.snapshots.is_none() {
        wrong.push("vault_not_seen");
    }
    match status.newest(Level::Sealed) {
        None if status.snapshots.is_some() => wrong.push("no_backup"),
        Some(_) if status.future().is_some() => wrong.push("backup_in_the_future"),
        Some(_) if status.is_stale() == Some(true) => wrong.push("backup_too_old"),
        _ => {}
    }
    if status.shrunk().is_some() {
        wrong.push("backup_shrunk");
    }
    if let Some(replica) = &status.replica {
        if replica.fenced == Some(true) {
            wrong.push("replica_fenced");
        }
        if replica.state == Some(ReplicaState::Lost) {
            wrong.push("replica_lost");
        }
    }
    wrong
}

fn answer(nodes: &[(Status, Vec<&str>)], known: bool) -> Response {
    let mut reasons: Vec<&str> = nodes.iter().flat_map(|(_, wrong)| wrong).copied().collect();
    reasons.sort_unstable();
    reasons.dedup();
    if nodes.is_empty() {
        reasons.push("no_node");
    }
    let code = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut body = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    if known {
        let nodes = nodes.iter().map(|(status, wrong)| {
            let age = status.age_seconds(Level::Sealed);
            json!({ "node": status.node, "reasons": wrong, "age_seconds": age })
        });
        body["nodes"] = Value::Array(nodes.collect());
    }
    document(code, &body)
}
