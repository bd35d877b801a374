//! Every method of JSON-RPC, and its errors.

use highwater_server::Scope;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_method_of_json_rpc_answers() {
    let world = World::empty();
    let mut hold = world.add_held("node");
    let serving = world.serve().await;
    let started = serving.rpc("start_backup", json!({ "node": "node" })).await;
    assert_eq!(started["jsonrpc"], "2.0");
    let operation = started["result"]["operation"].clone();
    assert!(operation.is_string(), "{started}");
    hold.reached().await;
    let second = serving.rpc("start_backup", json!({})).await;
    assert_eq!(
        (&second["error"]["code"], &second["error"]["data"]["kind"]),
        (&json!(-32002), &json!("conflict"))
    );
    let status = serving.rpc("get_operation", json!({ "operation": operation })).await;
    assert_eq!(status["result"]["state"], "running");
    let cancelled = serving.rpc("cancel_operation", json!({ "operation": operation })).await;
    assert_eq!(cancelled["result"]["operation"], operation);
    hold.release();

    let again = serving.rpc("start_backup", json!({})).await;
    // The one before may not have ended yet; a conflict then says so.
    let again = match again["result"]["operation"].as_str() {
        Some(operation) => operation.to_owned(),
        None => start_when_free(&world, &serving).await,
    };
    hold.reached().await;
    hold.release();
    let agent = world.agents.find("node").unwrap();
    let waiting = again.clone();
    let done = tokio::task::spawn_blocking(move || agent.wait(waiting.parse().unwrap()).unwrap());
    done.await.unwrap();
    // By place instead of by name.
    let status = serving.rpc("get_operation", json!([again])).await["result"].take();
    assert_eq!((&status["state"], &status["percent"]), (&json!("completed"), &json!(100)));
    assert_eq!(status["bytes_done"], status["bytes_total"]);
    let operations = serving.rpc("list_operations", json!({})).await;
    let states: Vec<&Value> = operations["result"]["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| &o["state"])
        .collect();
    assert_eq!(states, [&json!("completed"), &json!("cancelled")]);
    let list = serving.rpc("list_snapshots", json!({ "node": "node" })).await;
    assert_eq!(list["result"]["snapshots"][0]["snapshot"], status["snapshot"]);
    let info = serving.rpc("get_status", json!({})).await["result"].take();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert!(info["capabilities"].as_array().unwrap().contains(&json!("stream")));
    assert_eq!(info["nodes"][0]["newest"]["snapshot"], status["snapshot"]);
    assert_eq!(serving.rpc("list_channels", json!({})).await["result"]["channels"], json!([]));
}

async fn start_when_free(world: &World, serving: &crate::world::Serving) -> String {
    let mut changes = world.agents.find("node").unwrap().changes();
    loop {
        let started = serving.rpc("start_backup", json!({})).await;
        if let Some(operation) = started["result"]["operation"].as_str() {
            return operation.to_owned();
        }
        changes.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_told_so() {
    let world = World::new();
    let serving = world.serve().await;
    let cases = [
        ("get_operation", json!({ "operation": "no handle" }), -32602),
        ("get_operation", json!({ "operation": "6dd2a1c3-4c0f-4d43-9d4b-0a4f5f8f3a11" }), -32001),
        (
            "cancel_operation",
            json!({ "operation": "6dd2a1c3-4c0f-4d43-9d4b-0a4f5f8f3a11" }),
            -32001,
        ),
        ("get_operation", json!({}), -32602),
        ("get_operation", json!({ "operation": 7 }), -32602),
        ("start_backup", json!({ "node": "../../etc" }), -32001),
        ("start_backup", json!({ "path": "/tmp/x" }), -32602),
        ("start_backup", json!({ "node": "node", "target": "/tmp/x" }), -32602),
        ("release", json!({ "channel": "one", "reason": "known" }), -32005),
        ("release", json!({ "channel": "one" }), -32602),
        ("get_replica", json!({}), -32001),
        ("flush_replica", json!({ "node": "node" }), -32001),
        ("get_replica", json!({ "node": 7 }), -32602),
        ("rpc.discover", json!({}), -32601),
    ];
    for (method, params, code) in cases {
        let answer = serving.rpc(method, params.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{method} {params}: {answer}");
        if code != -32601 {
            assert!(answer["error"]["data"]["kind"].is_string(), "{answer}");
        }
    }
    let answer = serving.post("{", "").await;
    assert_eq!(answer.json()["error"]["code"], -32700);
    let answer = serving.post(r#"{"jsonrpc":"2.0","id":1}"#, "").await;
    assert_eq!(answer.json()["error"]["code"], -32600);
    let calls = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "list_channels" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "nothing" }),
    ];
    let answers = serving.post(&json!(calls).to_string(), "").await.json();
    assert_eq!(answers[0]["result"]["channels"], json!([]));
    assert_eq!(answers[1]["error"]["code"], -32601);
    // A message that is too long, and one that comes in another way.
    let long = json!({ "jsonrpc": "2.0", "id": 1, "method": "x".repeat(2 << 20) }).to_string();
    assert_eq!(serving.post(&long, "").await.code, 413);
    let host = serving.address();
    let form = "application/x-www-form-urlencoded";
    for kind in ["text/plain", form, "multipart/form-data"] {
        let request = format!(
            "POST /rpc HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        assert_eq!(serving.raw(request).await.code, 415, "{kind}");
    }
    assert_eq!(serving.get("/rpc", "").await.code, 405);
    assert_eq!(serving.get("/nothing/here", "").await.code, 404);
}

/// A node that has a JSON-RPC server merges the methods into it.
#[tokio::test(flavor = "multi_thread")]
async fn the_methods_live_in_the_server_of_a_node() {
    use jsonrpsee::server::ServerBuilder;
    let world = World::new();
    let mut module = jsonrpsee::RpcModule::new(());
    module.register_method("node_hello", |_, (), _| "hello").unwrap();
    module.merge(highwater_server::module(world.agents.clone(), Scope::Read).unwrap()).unwrap();
    let server = ServerBuilder::new().build("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let running = server.start(module);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"get_status"}"#;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = crate::world::raw(address, request.into_bytes()).await;
    assert_eq!(answer.json()["result"]["nodes"][0]["node"], "node");
    running.stop().unwrap();
}
