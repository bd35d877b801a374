//! What this server has beside the protocol, as JSON under `/highwater/v1/`: an owner can compare a store
//! by its digest, fence it, and have its history kept. What protects a store can be turned on here, and
//! only an administrator, who has the database, turns it off.

use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vss_api::error::VssError;

use crate::Service;
use crate::backend::{Change, Keep, Policy};
use crate::http::{Call, document};
use crate::limits::{ITEMS_MAX, KEY_MAX, NAME_MAX, PAGE_MAX};
use crate::service::{refused, store_name};

/// Commits of one answer.
const COMMITS_MAX: u32 = 1000;

/// What a client can rely on: absent from a server that lacks it.
pub(crate) fn capabilities() -> Response {
    let known = json!({
        "server": "highwater", "version": env!("CARGO_PKG_VERSION"), "protocol": 0,
        "extensions": ["digest", "fence", "history"],
        "limits": {
            "items": ITEMS_MAX, "key": KEY_MAX, "store_id": NAME_MAX, "page": PAGE_MAX,
        },
    });
    document(StatusCode::OK, known.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    store_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRequest {
    store_id: String,
    fence: Option<bool>,
    history: Option<Keep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryRequest {
    store_id: String,
    below: Option<u64>,
    size: Option<u32>,
}

pub(crate) async fn serve(
    service: &Service,
    call: Call,
    user: String,
    body: &[u8],
) -> Result<Response, VssError> {
    let backend = service.backend();
    let answer = match call {
        Call::Digest => {
            let Of { store_id } = parse(body)?;
            let digest = backend.digest(&store_name(user, store_id)?).await.map_err(refused)?;
            json!({
                "count": digest.count, "digest": hex::encode(digest.sum),
                "generation": digest.generation, "commit": digest.commit,
            })
        }
        Call::Policy => policy(service, user, parse(body)?).await?,
        Call::History => {
            let HistoryRequest { store_id, below, size } = parse(body)?;
            let size = size.unwrap_or(PAGE_MAX).min(COMMITS_MAX);
            let store = store_name(user, store_id)?;
            let commits = backend.commits(&store, below, size).await.map_err(refused)?;
            json!({ "commits": commits })
        }
        _ => return Err(VssError::InvalidRequestError("there is no such call here".to_owned())),
    };
    Ok(document(StatusCode::OK, answer.to_string()))
}

/// Reads a policy, or makes it stricter.
async fn policy(service: &Service, user: String, wanted: PolicyRequest) -> Result<Value, VssError> {
    let backend = service.backend();
    let store = store_name(user, wanted.store_id)?;
    let mut policy = backend.policy(&store).await.map_err(refused)?;
    if wanted.fence == Some(false) || wanted.history.is_some_and(|keep| is_less(keep, policy)) {
        return Err(VssError::AuthError("only an administrator makes a policy weaker".to_owned()));
    }
    if wanted.fence.is_some() || wanted.history.is_some() {
        let change = Change { fence: wanted.fence, history: wanted.history.map(Some) };
        policy = backend.change(&store, change).await.map_err(refused)?;
    }
    Ok(json!(policy))
}

fn is_less(keep: Keep, policy: Policy) -> bool {
    policy.history.is_some_and(|now| keep.versions < now.versions || keep.days < now.days)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, VssError> {
    serde_json::from_slice(body).map_err(|error| {
        VssError::InvalidRequestError(format!("the body is not what this call takes: {error}"))
    })
}
