//! Every method of gRPC, and every code.

use highwater_server::v1;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_started_and_watched_to_its_end() {
    let world = World::new();
    let serving = world.serve().await;
    let mut backups = serving.backups().await;
    let asked = v1::StartBackupRequest { node: String::new() };
    let started = backups.start_backup(asked).await.unwrap().into_inner();
    let asked = v1::WatchOperationRequest { id: started.id.clone() };
    let mut watch = backups.watch_operation(asked).await.unwrap().into_inner();
    let mut last = None;
    while let Some(operation) = watch.message().await.unwrap() {
        last = Some(operation);
    }
    let last = last.unwrap();
    assert_eq!((last.state(), last.reason.as_str()), (v1::State::Completed, ""));
    let status = backups.get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.nodes[0].newest.as_ref().unwrap().snapshot, last.snapshot);
    serving.running.shutdown().await.unwrap();
}
