//! Every method of gRPC, and every code.

use highwater::{Error, Kind};
use highwater_server::v1::{self, State};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::world::World;

fn kind(status: &Status) -> &str {
    status.metadata().get("highwater-kind").map_or("", |kind| kind.to_str().unwrap())
}

fn of(node: &str) -> v1::StartBackupRequest {
    v1::StartBackupRequest { node: node.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_of_grpc_answers() {
    let world = World::new();
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    let started = backups.start_backup(of("")).await.unwrap().into_inner();
    assert_eq!((started.node.as_str(), started.trigger.as_str()), ("node", "manual"));
    let asked = v1::WatchOperationRequest { id: started.id.clone() };
    let watch = backups.watch_operation(asked).await.unwrap().into_inner();
    let seen: Vec<v1::Operation> = watch.map(Result::unwrap).collect().await;
    let last = seen.last().unwrap().clone();
    assert_eq!((last.state(), last.reason.as_str()), (State::Completed, ""));
    assert!(last.bytes_total > 0 && last.bytes_done == last.bytes_total);
    assert!(seen.iter().all(|one| one.bytes_done <= one.bytes_total));
    assert!(last.queued_at.unwrap().seconds <= last.finished_at.unwrap().seconds);

    let asked = v1::GetOperationRequest { id: started.id.clone() };
    assert_eq!(backups.get_operation(asked).await.unwrap().into_inner(), last);
    // One that has ended is watched to its end at once.
    let asked = v1::WatchOperationRequest { id: started.id.clone() };
    let watch = backups.watch_operation(asked).await.unwrap().into_inner();
    let seen: Vec<v1::Operation> = watch.map(Result::unwrap).collect().await;
    assert!(seen.iter().eq([&last]), "{seen:?}");
    // And it stays as it is.
    let asked = v1::CancelOperationRequest { id: started.id.clone() };
    assert_eq!(backups.cancel_operation(asked).await.unwrap().into_inner(), last);

    let asked = v1::ListSnapshotsRequest::default();
    let snapshots = backups.list_snapshots(asked).await.unwrap().into_inner().snapshots;
    assert_eq!(snapshots.len(), 1);
    assert_eq!((&snapshots[0].snapshot, snapshots[0].level.as_str()), (&last.snapshot, "sealed"));
    for name in ["latest", &last.snapshot, &last.snapshot[..8]] {
        let asked = v1::GetSnapshotRequest { snapshot: name.to_owned(), node: "node".to_owned() };
        assert_eq!(backups.get_snapshot(asked).await.unwrap().into_inner(), snapshots[0]);
    }
    let status = backups.get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    for capability in ["backup", "check", "restore_test", "guard", "stream", "stream.resume"] {
        assert!(status.capabilities.iter().any(|one| one == capability), "{capability}");
    }
    let node = &status.nodes[0];
    assert_eq!(node.newest.as_ref(), Some(&snapshots[0]));
    assert_eq!((node.maintenance, node.failures, node.quarantined), (false, 0, Some(0)));

    for (read_data, restore_test, task) in
        [(false, false, "check"), (true, false, "check_data"), (false, true, "restore_test")]
    {
        let asked = v1::CheckRequest { node: String::new(), read_data, restore_test };
        let started = backups.check(asked).await.unwrap().into_inner();
        assert_eq!(started.task, task);
        let asked = v1::WatchOperationRequest { id: started.id };
        let watch = backups.watch_operation(asked).await.unwrap().into_inner();
        let last = watch.map(Result::unwrap).collect::<Vec<_>>().await.pop().unwrap();
        assert_eq!((last.state(), last.reason.as_str()), (State::Completed, ""));
    }
    let asked = v1::CheckRequest { read_data: true, restore_test: true, ..Default::default() };
    assert_eq!(backups.check(asked).await.unwrap_err().code(), Code::InvalidArgument);
    let asked = v1::ListOperationsRequest { node: "node".to_owned(), limit: 2 };
    let operations = backups.list_operations(asked).await.unwrap().into_inner().operations;
    let tasks: Vec<&str> = operations.iter().map(|operation| operation.task.as_str()).collect();
    assert_eq!(tasks, ["restore_test", "check_data"]);
    let snapshots = backups.list_snapshots(v1::ListSnapshotsRequest::default()).await.unwrap();
    assert_eq!(snapshots.into_inner().snapshots[0].level, "restored");
    serving.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_is_a_conflict_and_a_cancelled_one_leaves_nothing() {
    let world = World::empty();
    let mut hold = world.add_held("node");
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    let first = backups.start_backup(of("node")).await.unwrap().into_inner();
    hold.reached().await;
    let second = backups.start_backup(of("node")).await.unwrap_err();
    assert_eq!((second.code(), kind(&second)), (Code::Aborted, "conflict"));
    assert!(second.message().contains(&first.id), "{second}");

    let asked = v1::WatchOperationRequest { id: first.id.clone() };
    let mut watch = backups.watch_operation(asked).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().state(), State::Running);
    let asked = v1::CancelOperationRequest { id: first.id };
    backups.cancel_operation(asked).await.unwrap();
    hold.release();
    let mut last = None;
    while let Some(operation) = watch.message().await.unwrap() {
        last = Some(operation);
    }
    assert_eq!(last.unwrap().state(), State::Cancelled);
    let snapshots = backups.list_snapshots(v1::ListSnapshotsRequest::default()).await.unwrap();
    assert_eq!(snapshots.into_inner().snapshots, []);
    // The next one is free to go.
    backups.start_backup(of("node")).await.unwrap();
    hold.reached().await;
    hold.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_are_told_apart() {
    let world = World::new();
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    let unknown = "6dd2a1c3-4c0f-4d43-9d4b-0a4f5f8f3a11";
    let cases = [
        ("", Code::InvalidArgument, "input"),
        ("7", Code::InvalidArgument, "input"),
        ("../../etc/passwd", Code::InvalidArgument, "input"),
        ("6dd2a1c3-4c0f-4d43-9d4b-0a4f5f8f3a1", Code::InvalidArgument, "input"),
        (unknown, Code::NotFound, "not_found"),
    ];
    for (id, code, word) in cases {
        let id = id.to_owned();
        let got = backups.get_operation(v1::GetOperationRequest { id: id.clone() }).await;
        let cancelled = backups.cancel_operation(v1::CancelOperationRequest { id: id.clone() });
        let cancelled = cancelled.await;
        let watched = backups.watch_operation(v1::WatchOperationRequest { id: id.clone() }).await;
        for status in [got.unwrap_err(), cancelled.unwrap_err(), watched.unwrap_err()] {
            assert_eq!((status.code(), kind(&status)), (code, word), "{id}: {status}");
        }
    }
}

/// No field of a request is a path; what looks like one is a name that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn no_caller_names_a_path() {
    use prost::Message as _;
    let definition = prost_types::FileDescriptorSet::decode(v1::DESCRIPTORS).unwrap();
    let file = definition.file.iter().find(|file| file.package() == "highwater.v1").unwrap();
    let requests = file.message_type.iter().filter(|message| message.name().ends_with("Request"));
    let mut fields: Vec<&str> =
        requests.flat_map(|message| message.field.iter().map(|field| field.name())).collect();
    fields.sort_unstable();
    fields.dedup();
    let known = [
        "channel",
        "id",
        "limit",
        "node",
        "offset",
        "read_data",
        "reason",
        "restore_test",
        "since",
        "snapshot",
        "target_height",
    ];
    assert_eq!(fields, known);

    let world = World::new();
    world.add("other");
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    let mut guard = serving.guard().await;
    let before = listing(world.dir.path());
    let long = "a".repeat(10_000);
    for name in ["../node", "/etc", "..", ".", "node/", "no\0de", "%2e%2e", "node;ls", " ", &long] {
        let node = name.to_owned();
        let (channel, reason) = (name.to_owned(), "why".to_owned());
        let (check, snapshot) = (v1::CheckRequest::default(), name.to_owned());
        let mut refused = vec![
            backups.start_backup(of(name)).await.map(drop),
            backups.check(v1::CheckRequest { node: node.clone(), ..check }).await.map(drop),
            backups.list_snapshots(v1::ListSnapshotsRequest { node: node.clone() }).await.map(drop),
            backups.get_status(v1::GetStatusRequest { node: node.clone() }).await.map(drop),
            guard.list_channels(v1::ListChannelsRequest { node: node.clone() }).await.map(drop),
        ];
        let asked = v1::ListOperationsRequest { node: node.clone(), limit: 0 };
        refused.push(backups.list_operations(asked).await.map(drop));
        let asked = v1::GetSnapshotRequest { node: "node".to_owned(), snapshot };
        refused.push(backups.get_snapshot(asked).await.map(drop));
        let asked = v1::ReleaseRequest { node: "node".to_owned(), channel, reason };
        refused.push(guard.release(asked).await.map(drop));
        let asked = v1::StreamRequest { node, snapshot: "latest".to_owned(), ..Default::default() };
        refused.push(backups.stream(asked).await.map(drop));
        for status in refused {
            let code = status.unwrap_err().code();
            let refused =
                matches!(code, Code::NotFound | Code::InvalidArgument | Code::PermissionDenied);
            assert!(refused, "{name}: {code}");
        }
    }
    // Without a name, of two nodes neither is meant.
    let status = backups.start_backup(of("")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.metadata().get("highwater-hint").unwrap().to_str().unwrap().contains("other"));
    assert_eq!(listing(world.dir.path()), before);
}

/// All files and directories below a directory, but for those of histories and the lock of a latch.
fn listing(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("agent.sqlite") || name == "quarantine.lock" {
            continue;
        }
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_has_its_code_its_word_and_its_hint() {
    fn why<const KIND: usize>() -> Error {
        Error::new(KINDS[KIND].0, "no vault today")
            .with_remedy("wait — or don't")
            .with_entry("the entry")
    }
    const KINDS: [(Kind, Code, i64); 11] = [
        (Kind::Bug, Code::Internal, -32603),
        (Kind::Input, Code::InvalidArgument, -32602),
        (Kind::NotFound, Code::NotFound, -32001),
        (Kind::Conflict, Code::Aborted, -32002),
        (Kind::Corrupt, Code::DataLoss, -32003),
        (Kind::Fenced, Code::FailedPrecondition, -32004),
        (Kind::Stale, Code::FailedPrecondition, -32004),
        (Kind::Quarantined, Code::FailedPrecondition, -32004),
        (Kind::Denied, Code::PermissionDenied, -32005),
        (Kind::Unavailable, Code::Unavailable, -32006),
        (Kind::Interrupted, Code::Cancelled, -32007),
    ];
    const WHY: [fn() -> Error; 11] = [
        why::<0>, why::<1>, why::<2>, why::<3>, why::<4>, why::<5>, why::<6>, why::<7>, why::<8>,
        why::<9>, why::<10>,
    ];
    let world = World::empty();
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    for ((expected, code, number), why) in KINDS.into_iter().zip(WHY) {
        let node = expected.name().to_owned();
        world.add_without_vault(&node, why);
        let asked = v1::ListSnapshotsRequest { node: node.clone() };
        let status = backups.list_snapshots(asked).await.unwrap_err();
        assert_eq!((status.code(), kind(&status)), (code, expected.name()));
        let text = |key| status.metadata().get(key).unwrap().to_str().unwrap();
        assert_eq!(text("highwater-hint"), "wait %E2%80%94 or don't");
        assert_eq!(text("highwater-entry"), "the entry");
        assert_eq!(status.message(), "the entry: no vault today");

        let answer = serving.rpc("backup_list", serde_json::json!({ "node": node })).await;
        let error = &answer["error"];
        assert_eq!(
            (error["code"].as_i64(), &error["data"]["kind"]),
            (Some(number), &serde_json::json!(expected.name()))
        );
        assert_eq!(error["data"]["hint"], "wait — or don't");
        assert_eq!(error["data"]["entry"], "the entry");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_the_server_stops() {
    let world = World::empty();
    let mut hold = world.add_held("node");
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    let id = backups.start_backup(of("")).await.unwrap().into_inner().id;
    hold.reached().await;
    let asked = v1::WatchOperationRequest { id };
    let mut watch = backups.watch_operation(asked).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().state(), State::Running);
    drop(backups);
    let (ended, stopped) = tokio::join!(
        async {
            loop {
                match watch.message().await {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        },
        serving.running.shutdown()
    );
    stopped.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    hold.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_and_health_answer() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let world = World::new();
    let serving = world.serve().await;
    let mut health = HealthClient::new(serving.channel().await);
    for service in ["", "highwater.v1.Backups", "highwater.v1.Guard"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let mut reflection = ServerReflectionClient::new(serving.channel().await);
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::iter([asked])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["highwater.v1.Backups", "highwater.v1.Guard", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}
