//! Who gets through: names and origins on loopback, tokens everywhere, and the record of both.

use std::os::unix::fs::PermissionsExt as _;

use highwater::Kind;
use highwater_server::{Limits, v1};
use serde_json::json;
use tonic::Code;

use crate::world::{Serving, World, bearing};

const INFO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"get_status"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_in_the_operators_browser_gets_nothing() {
    let world = World::new();
    let serving = world.serve().await;
    let address = serving.address();
    let port = address.port();
    let ask = |host: String, more: &str| {
        let (length, more) = (INFO.len(), more.to_owned());
        serving.raw(format!(
            "POST /rpc HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {length}\r\n{more}\r\n{INFO}"
        ))
    };
    // A page whose own name was bound anew to this machine.
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", ""]
    {
        assert_eq!(ask(format!("{host}:{port}"), "").await.code, 403, "{host}");
    }
    let without = format!(
        "POST /rpc HTTP/1.1\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{INFO}",
        INFO.len()
    );
    assert!(matches!(serving.raw(without).await.code, 400 | 403));
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]"] {
        assert_eq!(ask(format!("{host}:{port}"), "").await.code, 200, "{host}");
    }
    // A page of another origin; `null` is one in a frame of its own.
    for origin in ["https://evil.example", "null", "http://localhost", "http://127.0.0.1:1"] {
        let more = format!("origin: {origin}\r\n");
        assert_eq!(ask(address.to_string(), &more).await.code, 403, "{origin}");
    }
    let own = format!("origin: http://{address}\r\n");
    let answer = ask(address.to_string(), &own).await;
    assert_eq!(answer.code, 200);
    assert!(answer.headers.contains("x-content-type-options: nosniff"), "{}", answer.headers);
    assert!(!answer.headers.contains("access-control-allow"), "{}", answer.headers);
    // What a browser asks before it sends: no.
    let preflight = format!(
        "OPTIONS /rpc HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\norigin: \
         https://evil.example\r\naccess-control-request-method: POST\r\n\r\n"
    );
    assert_eq!(serving.raw(preflight).await.code, 403);
    // The same for gRPC: the target of HTTP/2 is the host.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let evil = endpoint.origin("http://evil.example".parse().unwrap()).connect().await.unwrap();
    let mut backups = v1::backups_client::BackupsClient::new(evil);
    let status = backups.get_status(v1::GetStatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_needs_tls_and_tokens() {
    let world = World::new();
    let anywhere = "0.0.0.0:0".parse().unwrap();
    let (tokens, _) = world.tokens();
    let refused = [
        world.server().listen(anywhere),
        world.server().listen(anywhere).tokens(tokens),
        world.server().listen(anywhere).tls(world.path("cert.pem"), world.path("key.pem")),
        world.server().listen("[::]:0".parse().unwrap()),
        world.server().listen("[::ffff:10.0.0.1]:0".parse().unwrap()),
    ];
    for builder in refused {
        let error = builder.start().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.hint().is_some_and(|hint| hint.contains("token")), "{error}");
    }
    let loopback = "[::1]:0".parse().unwrap();
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        world.server().listen(loopback).start().await.unwrap();
    }
}

/// A server with tokens and a record; the texts of tokens for reading, backups, everything.
async fn guarded(world: &World) -> (Serving, [String; 3]) {
    let (tokens, texts) = world.tokens();
    let builder = world.server().tokens(tokens).audit(world.path("audit.jsonl"));
    (Serving::of(builder).await, texts)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_needs_a_token_of_its_scope() {
    let world = World::new();
    let (serving, [read, backup, admin]) = guarded(&world).await;
    let mut backups = serving.backups().await;
    let mut guard = serving.guard().await;
    let unknown = format!("hw_{}", "0".repeat(64));
    for token in ["", &unknown, "hw_", &read[..60], &read.to_uppercase()] {
        let asked = bearing(token, v1::GetStatusRequest::default());
        let status = backups.get_status(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{token}");
    }
    let status = backups.get_status(v1::GetStatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(serving.post(INFO, "").await.code, 401);
    assert_eq!(serving.post(INFO, "authorization: Basic aHdfOg==\r\n").await.code, 401);
    for (path, code) in [("/metrics", 401), ("/healthz", 200), ("/readyz", 503)] {
        assert_eq!(serving.get(path, "").await.code, code, "{path}");
    }

    // What each scope may do: looking, backups, releases.
    let codes =
        [(&read, [true, false, false]), (&backup, [true, true, false]), (&admin, [true; 3])];
    for (token, [reads, starts, releases]) in codes {
        let header = format!("authorization: Bearer {token}\r\n");
        let looked = backups.get_status(bearing(token, v1::GetStatusRequest::default())).await;
        assert_eq!(looked.is_ok(), reads);
        let id = "6dd2a1c3-4c0f-4d43-9d4b-0a4f5f8f3a11".to_owned();
        let may = |allowed: bool| if allowed { Code::NotFound } else { Code::PermissionDenied };
        let asked = bearing(token, v1::CancelOperationRequest { id });
        assert_eq!(backups.cancel_operation(asked).await.unwrap_err().code(), may(starts));
        let asked = v1::CheckRequest { node: "none".to_owned(), ..Default::default() };
        let status = backups.check(bearing(token, asked)).await.unwrap_err();
        assert_eq!(status.code(), may(starts));
        let asked = v1::StartBackupRequest { node: "none".to_owned() };
        let status = backups.start_backup(bearing(token, asked)).await.unwrap_err();
        assert_eq!(status.code(), may(starts));
        // Of a new backup; of one that is there it is reading.
        let asked = v1::StreamRequest { node: "none".to_owned(), ..Default::default() };
        let status = backups.stream(bearing(token, asked.clone())).await.err().unwrap();
        assert_eq!(status.code(), may(starts));
        let asked = v1::StreamRequest { snapshot: "latest".to_owned(), ..asked };
        let status = backups.stream(bearing(token, asked)).await.err().unwrap();
        assert_eq!(status.code(), Code::NotFound);
        let asked = v1::ReleaseRequest { channel: "one".to_owned(), ..Default::default() };
        let asked = v1::ReleaseRequest { reason: "known".to_owned(), ..asked };
        let status = guard.release(bearing(token, asked)).await.unwrap_err();
        assert_eq!(status.code(), may(releases));

        assert_eq!(serving.post(INFO, &header).await.code, 200);
        let call = |method: &str, params| {
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
        };
        let start = serving.post(&call("start_backup", json!({ "node": "none" })), &header).await;
        assert_eq!(start.code, if starts { 200 } else { 403 });
        let asked = json!({ "channel": "one", "reason": "known" });
        let release = serving.post(&call("release", asked), &header).await;
        assert_eq!(release.code, if releases { 200 } else { 403 });
        let kind = if releases { "not_found" } else { "denied" };
        assert_eq!(release.json()["error"]["data"]["kind"], kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_what_changes_something_are_on_record() {
    let world = World::new();
    let (serving, [read, backup, _]) = guarded(&world).await;
    let mut backups = serving.backups().await;
    backups.get_status(bearing(&read, v1::GetStatusRequest::default())).await.unwrap();
    assert_eq!(world.audit(), Vec::<serde_json::Value>::new());
    let asked = || v1::StartBackupRequest { node: "node".to_owned() };
    backups.start_backup(bearing(&read, asked())).await.unwrap_err();
    backups.start_backup(bearing("hw_wrong", asked())).await.unwrap_err();
    backups.start_backup(asked()).await.unwrap_err();
    let id = backups.start_backup(bearing(&backup, asked())).await.unwrap().into_inner().id;
    let cancel = v1::CancelOperationRequest { id: id.clone() };
    backups.cancel_operation(bearing(&backup, cancel)).await.unwrap();
    let nowhere = v1::StartBackupRequest { node: "../../etc".to_owned() };
    backups.start_backup(bearing(&backup, nowhere)).await.unwrap_err();
    let lines = world.audit();
    let seen: Vec<[&str; 4]> = lines
        .iter()
        .map(|line| {
            ["caller", "method", "about", "outcome"].map(|key| line[key].as_str().unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ["read-caller", "StartBackup", "node", "denied"],
            ["-", "/highwater.v1.Backups/StartBackup", "", "unauthenticated"],
            ["backup-caller", "StartBackup", "node", "allowed"],
            ["backup-caller", "CancelOperation", &id, "allowed"],
            ["backup-caller", "StartBackup", "../../etc", "allowed"],
            ["backup-caller", "StartBackup", "../../etc", "not_found"],
        ]
    );
    assert!(lines.iter().all(|line| line["address"] == "127.0.0.1" && line["time"].is_string()));
    // The second one without a known token is told when its time is over, or the server ends.
    drop(backups);
    serving.running.shutdown().await.unwrap();
    let last = world.audit().pop().unwrap();
    assert_eq!((&last["about"], &last["repeated"]), (&"node".into(), &1.into()), "{last}");
    let file = std::fs::metadata(world.path("audit.jsonl")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(world.path("audit.jsonl")).unwrap();
    assert!(!text.contains("hw_"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cant_be_recorded_is_not_done() {
    let world = World::new();
    let (tokens, [read, backup, _]) = world.tokens();
    let dir = world.path("log");
    std::fs::create_dir(&dir).unwrap();
    let serving = Serving::of(world.server().tokens(tokens).audit(dir.join("audit.jsonl"))).await;
    std::fs::remove_dir_all(&dir).unwrap();
    let mut backups = serving.backups().await;
    for token in [&read, &backup] {
        let asked = bearing(token, v1::StartBackupRequest::default());
        let status = backups.start_backup(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    let agent = world.agents.find("node").unwrap();
    assert_eq!(agent.operations(10).unwrap(), []);
    // Looking needs no record.
    backups.get_status(bearing(&read, v1::GetStatusRequest::default())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_asks_too_often_is_told_to_wait() {
    let world = World::new();
    let (tokens, [read, backup, _]) = world.tokens();
    let mut limits = Limits::default();
    limits.requests_per_second = 1;
    let serving = Serving::of(world.server().tokens(tokens).limits(limits)).await;
    let mut backups = serving.backups().await;
    let mut codes = Vec::new();
    for _ in 0..20 {
        let asked = bearing(&read, v1::GetStatusRequest::default());
        codes.push(backups.get_status(asked).await.map_or_else(|s| s.code(), |_| Code::Ok));
    }
    assert_eq!(codes[..2], [Code::Ok; 2]);
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    let header = format!("authorization: Bearer {read}\r\n");
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(serving.post(INFO, &header).await.code);
    }
    assert!(seen.contains(&429), "{seen:?}");
    // Another caller has an allowance of its own.
    backups.get_status(bearing(&backup, v1::GetStatusRequest::default())).await.unwrap();
}
