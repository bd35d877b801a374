//! The gRPC services `highwater.v1.Backups`, `highwater.v1.Guard` and `highwater.v1.Replicas`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use futures::stream::{self, Stream};
use highwater::agent::{Operation, Task};
use highwater::{Error, Kind, Result};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tower::{Service, ServiceExt as _};

use crate::access;
use crate::calls::Call;
use crate::convert;
use crate::fault::CallFault;
use crate::state::{Identity, ServerState};
use crate::v1;
use crate::v1::backups_server::{Backups, BackupsServer};
use crate::v1::guard_server::{Guard, GuardServer};
use crate::v1::replicas_server::{Replicas, ReplicasServer};
use highwater_gate::RunningCall;

/// The services, what reflects them, and the standard service for health. Health needs no token.
pub(crate) async fn router(state: &Arc<ServerState>) -> Result<Router> {
    let services = Services(Arc::clone(state));
    let bytes = state.limits.message_bytes;
    let backups = BackupsServer::new(services.clone()).max_decoding_message_size(bytes);
    let guard = GuardServer::new(services.clone()).max_decoding_message_size(bytes);
    let replicas = ReplicasServer::new(services).max_decoding_message_size(bytes);
    let failed = |error| Error::bug("the definition can't be reflected").with_source(error);
    let reflection = reflected().build_v1().map_err(failed)?;
    // What clients ask that were made before there was a v1, Python's for one.
    let reflection_alpha = reflected().build_v1alpha().map_err(failed)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<BackupsServer<Services>>().await;
    reporter.set_serving::<GuardServer<Services>>().await;
    reporter.set_serving::<ReplicasServer<Services>>().await;
    let readers = from_fn_with_state(Arc::clone(state), access::readers);
    Ok(Router::new()
        .merge(service(reflection))
        .merge(service(reflection_alpha))
        .layer(readers)
        .merge(service(backups))
        .merge(service(guard))
        .merge(service(replicas))
        .merge(service(health)))
}

fn reflected<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn service<S>(service: S) -> Router
where
    S: Service<http::Request<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    let path = format!("/{}/{{*method}}", S::NAME);
    let taken = service.map_request(|request: axum::extract::Request| request.map(Body::new));
    Router::new().route_service(&path, taken)
}

/// What is sent bit by bit.
type Sent<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services.
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Arc<ServerState>);

impl Services {
    fn identity<T>(&self, request: &Request<T>) -> Identity {
        let found = request.extensions().get::<Identity>().cloned();
        found.unwrap_or_else(|| self.0.stranger())
    }

    async fn call<Q: Send + 'static, A: Send + 'static>(
        &self,
        method: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Call<'_>, Q) -> Result<A, CallFault> + Send + 'static,
    ) -> Result<Response<A>, Status> {
        let identity = self.identity(&request);
        let asked = request.into_inner();
        let answer =
            self.0.run(move |state| work(Call { state, identity: &identity, method }, asked));
        Ok(Response::new(answer.await?))
    }
}

#[tonic::async_trait]
impl Backups for Services {
    async fn start_backup(
        &self,
        request: Request<v1::StartBackupRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let work = |call: Call<'_>, asked: v1::StartBackupRequest| {
            Ok(convert::operation(&call.begin(&asked.node, Task::Backup)?))
        };
        self.call("StartBackup", request, work).await
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let work = |call: Call<'_>, asked: v1::GetOperationRequest| {
            Ok(convert::operation(&call.operation(&asked.id)?.1))
        };
        self.call("GetOperation", request, work).await
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let work = |call: Call<'_>, asked: v1::ListOperationsRequest| {
            let operations = call.operations(&asked.node, asked.limit)?;
            let operations = operations.iter().map(convert::operation).collect();
            Ok(v1::ListOperationsResponse { operations })
        };
        self.call("ListOperations", request, work).await
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let work = |call: Call<'_>, asked: v1::CancelOperationRequest| {
            Ok(convert::operation(&call.cancel(&asked.id)?))
        };
        self.call("CancelOperation", request, work).await
    }

    type WatchOperationStream = Sent<v1::Operation>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Sent<v1::Operation>>, Status> {
        let running = RunningCall::of(request.extensions());
        let work = |call: Call<'_>, asked: v1::WatchOperationRequest| {
            // Listening begins before the operation is read, so that no change is missed.
            let changes = call.operation(&asked.id)?.0.changes();
            Ok((changes, call.operation(&asked.id)?.1))
        };
        let (changes, operation) = self.call("WatchOperation", request, work).await?.into_inner();
        let (state, stopping) = (Arc::clone(&self.0), self.0.stopping.subscribe());
        let watch =
            OperationWatch { state, changes, stopping, sent: None, operation, _running: running };
        Ok(Response::new(Box::pin(stream::unfold(Some(watch), OperationWatch::next))))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let work = |call: Call<'_>, asked: v1::ListSnapshotsRequest| {
            let snapshots = call.snapshots(&asked.node)?;
            let snapshots = snapshots.iter().map(convert::snapshot).collect();
            Ok(v1::ListSnapshotsResponse { snapshots })
        };
        self.call("ListSnapshots", request, work).await
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::Snapshot>, Status> {
        let work = |call: Call<'_>, asked: v1::GetSnapshotRequest| {
            Ok(convert::snapshot(&call.snapshot(&asked.node, &asked.snapshot)?))
        };
        self.call("GetSnapshot", request, work).await
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let work = |call: Call<'_>, asked: v1::CheckRequest| {
            Ok(convert::operation(&call.check(&asked.node, asked.read_data, asked.restore_test)?))
        };
        self.call("Check", request, work).await
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let work = |call: Call<'_>, asked: v1::GetStatusRequest| {
            let nodes = call.status(&asked.node)?.iter().map(convert::status).collect();
            Ok(v1::GetStatusResponse {
                version: crate::VERSION.to_owned(),
                capabilities: crate::state::capabilities(),
                nodes,
            })
        };
        self.call("GetStatus", request, work).await
    }

    type StreamStream = Sent<v1::StreamResponse>;

    async fn stream(
        &self,
        request: Request<v1::StreamRequest>,
    ) -> Result<Response<Sent<v1::StreamResponse>>, Status> {
        let (identity, running) = (self.identity(&request), RunningCall::of(request.extensions()));
        let sent = crate::stream::stream(&self.0, identity, running, request.into_inner()).await?;
        Ok(Response::new(sent))
    }
}

#[tonic::async_trait]
impl Guard for Services {
    async fn list_channels(
        &self,
        request: Request<v1::ListChannelsRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        let work = |call: Call<'_>, asked: v1::ListChannelsRequest| {
            let channels = call.channels(&asked.node)?;
            let channels = channels.iter().map(|(node, held)| convert::channel(node, held));
            Ok(v1::ListChannelsResponse { channels: channels.collect() })
        };
        self.call("ListChannels", request, work).await
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        let work = |call: Call<'_>, asked: v1::ReleaseRequest| {
            let channels = call.release(&asked.node, &asked.channel, &asked.reason)?;
            let channels = channels.iter().map(|(node, held)| convert::channel(node, held));
            Ok(v1::ListChannelsResponse { channels: channels.collect() })
        };
        self.call("Release", request, work).await
    }
}

#[tonic::async_trait]
impl Replicas for Services {
    async fn get_replica(
        &self,
        request: Request<v1::GetReplicaRequest>,
    ) -> Result<Response<v1::Replica>, Status> {
        let work = |call: Call<'_>, asked: v1::GetReplicaRequest| {
            let (node, replica) = call.replica(&asked.node)?;
            Ok(convert::replica(&node, &replica))
        };
        self.call("GetReplica", request, work).await
    }

    async fn flush_replica(
        &self,
        request: Request<v1::FlushReplicaRequest>,
    ) -> Result<Response<v1::Replica>, Status> {
        let work = |call: Call<'_>, asked: v1::FlushReplicaRequest| {
            let (node, replica) = call.flush(&asked.node)?;
            Ok(convert::replica(&node, &replica))
        };
        self.call("FlushReplica", request, work).await
    }
}

/// An operation that is watched. It is driven by the client's reading, and ends with it.
struct OperationWatch {
    state: Arc<ServerState>,
    changes: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    sent: Option<Operation>,
    operation: Operation,
    _running: Option<RunningCall>,
}

impl OperationWatch {
    /// The next thing to send, and what follows it: nothing after the end of the operation.
    async fn next(
        watch: Option<OperationWatch>,
    ) -> Option<(Result<v1::Operation, Status>, Option<OperationWatch>)> {
        let mut watch = watch?;
        match watch.step().await {
            Ok(()) => {
                let message = convert::operation(&watch.operation);
                watch.sent = Some(watch.operation.clone());
                let ended = watch.operation.state.is_final();
                Some((Ok(message), (!ended).then_some(watch)))
            }
            Err(fault) => Some((Err(fault.into()), None)),
        }
    }

    /// Waits until the operation is another one than was sent.
    async fn step(&mut self) -> Result<(), CallFault> {
        while self.sent.as_ref() == Some(&self.operation) {
            tokio::select! {
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return Err(stops().into());
                    }
                }
                _ = self.stopping.wait_for(|stopping| *stopping) => return Err(stops().into()),
            }
            let id = self.operation.id.to_string();
            let read = self.state.run(move |state| Ok(state.agents.operation(&id)?.1));
            self.operation = read.await?;
        }
        Ok(())
    }
}

fn stops() -> Error {
    Error::new(Kind::Unavailable, "the server stops")
        .with_remedy("connect again, and ask for the operation by its handle")
}
