//! Clients that are slow, or many, or gone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use highwater_server::{Limits, v1};
use tokio::task::block_in_place;

use crate::world::{Serving, World};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_asks_is_hung_up_on() {
    let world = World::new();
    let mut limits = Limits::default();
    limits.request_wait = SHORT;
    let serving = Serving::of(world.server().limits(limits)).await;
    // Nothing; the beginning of each protocol; a head that never ends.
    for said in ["", "P", "PRI * HTTP/2.0\r\n", "GET /healthz HT", "GET / HTTP/1.1\r\na: b\r\n"] {
        let mut stream = TcpStream::connect(serving.address()).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let mut answer = Vec::new();
        block_in_place(|| stream.read_to_end(&mut answer)).ok();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{said}");
    }
    // A head that arrives byte by byte is no request either: the connection ends while it is written.
    let mut stream = TcpStream::connect(serving.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    block_in_place(|| while stream.write_all(b"a").is_ok() {});
    // A body that never comes.
    let head = "POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                connection: close\r\ncontent-length: 100\r\n\r\n{";
    let answer = serving.raw(head).await;
    assert_ne!(answer.code, 200, "{answer:?}");
    assert_eq!(serving.get("/healthz", "").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_call_is_closed_and_one_with_a_call_is_not() {
    let world = World::empty();
    let mut hold = world.add_held("node");
    let mut limits = Limits::default();
    limits.idle_wait = SHORT;
    let serving = Serving::of(world.server().limits(limits)).await;
    let mut backups = serving.backups().await;
    let id = backups.start_backup(v1::StartBackupRequest::default()).await.unwrap().into_inner().id;
    hold.reached().await;
    let asked = v1::WatchOperationRequest { id };
    let mut watch = backups.watch_operation(asked).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    // Beside the call that lasts, one that has been answered: it is closed after the wait.
    let mut idle = TcpStream::connect(serving.address()).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    block_in_place(|| idle.read_to_string(&mut answer)).ok();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    hold.release();
    let mut last = None;
    while let Some(operation) = watch.message().await.unwrap() {
        last = Some(operation);
    }
    assert_eq!(last.unwrap().state(), v1::State::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_and_a_client_that_goes_gives_its_place_back() {
    let world = World::empty();
    let mut hold = world.add_held("node");
    let mut limits = Limits::default();
    limits.connections = 1;
    let serving = Serving::of(world.server().limits(limits)).await;
    let mut backups = serving.backups().await;
    let id = backups.start_backup(v1::StartBackupRequest::default()).await.unwrap().into_inner().id;
    hold.reached().await;
    let asked = v1::WatchOperationRequest { id };
    let mut watch = backups.watch_operation(asked).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    assert_eq!(serving.get("/healthz", "").await.code, 0);
    // It goes while it watches: the watch ends on the server too, or its place would stay taken.
    drop((watch, backups));
    while serving.get("/healthz", "").await.code != 200 {
        tokio::task::yield_now().await;
    }
    hold.release();
}
