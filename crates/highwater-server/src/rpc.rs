//! The same by JSON-RPC 2.0: each call by its name in small letters, with the fields of its request. Parameters come by
//! name or by place; an unknown name is an error.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::post;
use highwater::Env;
use highwater::agent::Task;
use highwater::guard::Held;
use highwater::ids::NodeName;
use http::StatusCode;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::server::{BatchRequestConfig, ServerBuilder, ServerConfig, stop_channel};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::Service as _;

use crate::Agents;
use crate::access;
use crate::api;
use crate::calls::Call;
use crate::convert;
use crate::fault::CallFault;
use crate::limits::Limits;
use crate::state::{Identity, ServerState};
use highwater_gate::Scope;

/// Calls in one request.
const BATCH_MAX: u32 = 20;

/// What the methods of a [`module`] share.
pub struct Faces(Arc<ServerState>);

/// The methods over `agents`, for a node to merge into the JSON-RPC server that it has. That server
/// decides who may call, and `scope` is what each of its callers may do: the methods themselves ask for
/// no token here. With less than [`Scope::Admin`] nobody can release anything from quarantine by them.
///
/// # Errors
/// Bug where two methods have one name.
pub fn module(agents: Agents, scope: Scope) -> highwater::Result<RpcModule<Faces>> {
    let state = ServerState::new(agents, Limits::default(), Env::system());
    methods(Arc::new(ServerState { unasked: scope, ..state }))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OfNode {
    node: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OfOperations {
    node: Option<String>,
    limit: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfOperation {
    #[serde(alias = "operation")]
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfSnapshot {
    snapshot: String,
    #[serde(default)]
    node: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OfCheck {
    node: Option<String>,
    read_data: bool,
    restore_test: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfChannel {
    channel: String,
    reason: String,
    #[serde(default)]
    node: Option<String>,
}

/// `POST /rpc`. Who calls must be known; each method asks for its scope.
pub(crate) fn router(state: &Arc<ServerState>) -> highwater::Result<Router> {
    let bytes = u32::try_from(state.limits.message_bytes).unwrap_or(u32::MAX);
    let config = ServerConfig::builder()
        .http_only()
        .max_request_body_size(bytes)
        .max_connections(u32::try_from(state.limits.connections).unwrap_or(u32::MAX))
        .set_batch_request_config(BatchRequestConfig::Limit(BATCH_MAX))
        .build();
    let (stop, running) = stop_channel();
    let service = ServerBuilder::with_config(config)
        .to_service_builder()
        .build(methods(Arc::clone(state))?, stop);
    let call = move |request: Request| {
        let (mut service, running) = (service.clone(), running.clone());
        async move {
            let _running = running;
            let outcome = Outcome::default();
            let (parts, body) = request.into_parts();
            let mut request = Request::from_parts(parts, body);
            request.extensions_mut().insert(outcome.clone());
            let Ok(response) = service.call(request).await else {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            };
            let mut response = response.map(Body::new);
            if let Some(code) = outcome.code() {
                *response.status_mut() = code;
            }
            response
        }
    };
    let known = from_fn_with_state(Arc::clone(state), access::known);
    Ok(Router::new().route("/rpc", post(call)).layer(known))
}

/// What HTTP says of a call that was refused. Of several in one request it says nothing.
#[derive(Clone, Default)]
struct Outcome(Arc<Mutex<(usize, Option<StatusCode>)>>);

impl Outcome {
    fn code(&self) -> Option<StatusCode> {
        let outcome = self.0.lock();
        outcome.1.filter(|_| outcome.0 == 1)
    }

    fn tell<T>(&self, done: &Result<T, CallFault>) {
        let mut outcome = self.0.lock();
        outcome.0 += 1;
        outcome.1 = match done {
            Ok(_) | Err(CallFault::Error(_)) => None,
            Err(fault) => Some(fault.http_code()),
        };
    }
}

pub(crate) fn methods(state: Arc<ServerState>) -> highwater::Result<RpcModule<Faces>> {
    let mut module = RpcModule::new(Faces(state));
    register(&mut module).map_err(|error| {
        highwater::Error::bug("a method was registered twice").with_source(error)
    })?;
    Ok(module)
}

fn register(module: &mut RpcModule<Faces>) -> Result<(), RegisterMethodError> {
    add(module, "start_backup", |call, asked: OfNode| {
        let node = asked.node.unwrap_or_default();
        Ok(convert::operation_json(&call.begin(&node, Task::Backup)?))
    })?;
    add(module, "get_operation", |call, asked: OfOperation| {
        Ok(convert::operation_json(&call.operation(&asked.id)?.1))
    })?;
    add(module, "cancel_operation", |call, asked: OfOperation| {
        Ok(convert::operation_json(&call.cancel(&asked.id)?))
    })?;
    add(module, "list_operations", |call, asked: OfOperations| {
        let operations = call.operations(&asked.node.unwrap_or_default(), asked.limit)?;
        let operations: Vec<Value> = operations.iter().map(convert::operation_json).collect();
        Ok(json!({ "operations": operations }))
    })?;
    add(module, "list_snapshots", |call, asked: OfNode| {
        let snapshots = call.snapshots(&asked.node.unwrap_or_default())?;
        Ok(json!({ "snapshots": snapshots }))
    })?;
    add(module, "get_snapshot", |call, asked: OfSnapshot| {
        let node = asked.node.unwrap_or_default();
        Ok(json!(call.snapshot(&node, &asked.snapshot)?))
    })?;
    add(module, "check", |call, asked: OfCheck| {
        let node = asked.node.unwrap_or_default();
        Ok(convert::operation_json(&call.check(&node, asked.read_data, asked.restore_test)?))
    })?;
    add(module, "get_status", |call, asked: OfNode| {
        let node = asked.node.unwrap_or_default();
        let nodes: Vec<Value> = call.status(&node)?.iter().map(convert::status_json).collect();
        let capabilities = crate::state::capabilities();
        Ok(json!({ "version": crate::VERSION, "capabilities": capabilities, "nodes": nodes }))
    })?;
    add(module, "list_channels", |call, asked: OfNode| {
        Ok(channels(&call.channels(&asked.node.unwrap_or_default())?))
    })?;
    add(module, "release", |call, asked: OfChannel| {
        let node = asked.node.unwrap_or_default();
        Ok(channels(&call.release(&node, &asked.channel, &asked.reason)?))
    })?;
    add(module, "get_replica", |call, asked: OfNode| {
        let (node, replica) = call.replica(&asked.node.unwrap_or_default())?;
        Ok(convert::replica_json(&node, &replica))
    })?;
    add(module, "flush_replica", |call, asked: OfNode| {
        let (node, replica) = call.flush(&asked.node.unwrap_or_default())?;
        Ok(convert::replica_json(&node, &replica))
    })?;
    let mut aliases = api::CALLS.iter().filter_map(|call| call.alias.zip(call.method));
    aliases.try_for_each(|(alias, method)| module.register_alias(alias, method))
}

fn channels(held: &[(NodeName, Held)]) -> Value {
    let channels: Vec<Value> =
        held.iter().map(|(node, held)| convert::channel_json(node, held)).collect();
    json!({ "channels": channels })
}

fn add<P: DeserializeOwned + Send + 'static>(
    module: &mut RpcModule<Faces>,
    method: &'static str,
    work: fn(Call<'_>, P) -> Result<Value, CallFault>,
) -> Result<(), RegisterMethodError> {
    let registered = module.register_async_method(method, move |params, faces, extensions| {
        // Parsed before the first pause, since what was sent does not outlive it.
        let asked = parse::<P>(&params);
        answer(faces, extensions, method, asked, work)
    });
    registered.map(drop)
}

async fn answer<P: Send + 'static>(
    faces: Arc<Faces>,
    extensions: Extensions,
    method: &'static str,
    asked: Result<P, CallFault>,
    work: fn(Call<'_>, P) -> Result<Value, CallFault>,
) -> Result<Value, ErrorObjectOwned> {
    let found = extensions.get::<Identity>().cloned();
    let identity = found.unwrap_or_else(|| faces.0.stranger());
    let done = faces.0.run(move |state| work(Call { state, identity: &identity, method }, asked?));
    let done = done.await;
    if let Some(outcome) = extensions.get::<Outcome>() {
        outcome.tell(&done);
    }
    Ok(done?)
}

/// Reads parameters; none at all are an empty set of them.
fn parse<P: DeserializeOwned>(params: &Params<'_>) -> Result<P, CallFault> {
    let text = params.as_str().unwrap_or("{}");
    serde_json::from_str(text).map_err(|error| {
        CallFault::Error(highwater::Error::input(format!("the parameters can't be read: {error}")))
    })
}
