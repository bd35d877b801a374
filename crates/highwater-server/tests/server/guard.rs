//! What is quarantined is listed and released by both interfaces.

use highwater::Control;
use highwater::Env;
use highwater::agent::{Agent, Task};
use highwater::backup::BackupOptions;
use highwater::guard::HeldState;
use highwater::ids::GuardKind;
use highwater::restore::{self, RestoreOptions};
use highwater::vault::Selector;
use highwater_server::{Scope, v1};
use serde_json::json;
use tokio::task::block_in_place;
use tonic::Code;

use crate::world::{Serving, World, bearing, make_node};

/// A world whose node was restored without proof that it is current.
fn restored() -> (World, Agent) {
    let world = World::empty();
    let mut guarded = BackupOptions::default();
    guarded.guard = Some(GuardKind::Databases);
    let node = make_node(&world.path("node"));
    let builder = Agent::builder(&node, world.vault(), world.actor())
        .data_dir(world.path("data"))
        .options(guarded);
    let agent = world.add_agent(builder);
    block_in_place(|| {
        let id = agent.begin(Task::Backup).unwrap().id;
        assert_eq!(agent.wait(id).unwrap().reason, None);
        let vault = agent.vault().get().unwrap();
        let latest = Selector { snapshot: "latest".to_owned(), ..Selector::default() };
        let mut options = RestoreOptions::default();
        options.selector = latest;
        options.force = true;
        let plan = restore::plan(&vault, &node, &options).unwrap();
        restore::run(&vault, &plan, &options, &Control::new(Env::system())).unwrap();
    });
    (world, agent)
}

fn release(channel: &str, reason: &str) -> v1::ReleaseRequest {
    let (channel, reason) = (channel.to_owned(), reason.to_owned());
    v1::ReleaseRequest { node: String::new(), channel, reason }
}

/// Whoever reaches the port of a server that asks for no tokens could start a node on old state.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_releases_without_a_token() {
    let (world, agent) = restored();
    let serving = Serving::of(world.server().audit(world.path("audit.jsonl"))).await;
    let held = agent.quarantine().unwrap();
    let asked = json!({ "channel": held[0].id, "reason": "let me" });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "release", "params": asked });
    let answer = serving.post(&call.to_string(), "").await;
    let error = &answer.json()["error"];
    assert_eq!((answer.code, error["code"].as_i64()), (403, Some(-32005)), "{error}");
    assert_eq!(error["data"]["kind"], "denied", "{error}");
    assert!(error["message"].as_str().unwrap().contains("`admin`"), "{error}");
    let mut guard = serving.guard().await;
    let status = guard.release(release(&held[0].id, "let me")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.metadata().get("highwater-kind").unwrap(), "denied");
    // What the node has as its own server says who may, and no more than that.
    let module = highwater_server::module(world.agents.clone(), Scope::Backup).unwrap();
    let (answer, _) = module.raw_json_request(&call.to_string(), 1).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(answer.get()).unwrap();
    assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");

    assert_eq!(agent.quarantine().unwrap(), held, "nothing was released");
    let outcomes: Vec<String> =
        world.audit().iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["denied", "denied"]);
    // A backup is no danger: it can be had without a token, on loopback.
    let begun = serving.rpc("start_backup", json!({})).await;
    assert!(begun["result"]["operation"].is_string(), "{begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_quarantined_is_listed_and_released_with_a_reason() {
    let (world, agent) = restored();
    let (tokens, [_, _, admin]) = world.tokens();
    let serving = Serving::of(world.server().tokens(tokens)).await;
    let header = format!("authorization: Bearer {admin}\r\n");
    let mut guard = serving.guard().await;
    let asked = bearing(&admin, v1::ListChannelsRequest { node: String::new() });
    let channels = guard.list_channels(asked).await.unwrap().into_inner().channels;
    assert_eq!(channels.len(), 1);
    assert_eq!((channels[0].node.as_str(), channels[0].state.as_str()), ("node", "withheld"));
    let listed = serving.rpc_with(&header, "list_channels", json!({})).await;
    assert_eq!(listed["result"]["channels"][0]["id"], json!(channels[0].id));
    assert_eq!(listed["result"]["channels"][0]["state"], "withheld");
    let mut backups = serving.backups().await;
    let asked = bearing(&admin, v1::GetStatusRequest::default());
    let status = backups.get_status(asked).await.unwrap().into_inner();
    assert_eq!(status.nodes[0].quarantined, Some(1));

    let release = |channel: &str, reason: &str| bearing(&admin, release(channel, reason));
    for (channel, reason, code) in [
        ("", "known to be current", Code::InvalidArgument),
        (channels[0].id.as_str(), " ", Code::InvalidArgument),
        ("another", "known to be current", Code::NotFound),
    ] {
        let status = guard.release(release(channel, reason)).await.unwrap_err();
        assert_eq!(status.code(), code, "{channel} {reason}");
    }
    let asked = json!({ "channel": channels[0].id, "reason": "" });
    let refused = serving.rpc_with(&header, "release", asked).await;
    assert_eq!(refused["error"]["code"], -32602);
    assert!(agent.quarantine().unwrap()[0].state == HeldState::Withheld);

    let asked = json!({ "channel": channels[0].id, "reason": "the other disk burned" });
    let released = serving.rpc_with(&header, "release", asked).await;
    let row = &released["result"]["channels"][0];
    assert_eq!(row["state"], "released", "{released}");
    assert!(row["reason"].as_str().unwrap().contains("the other disk burned"), "{released}");
    let asked = bearing(&admin, v1::ListChannelsRequest { node: "node".to_owned() });
    let channels = guard.list_channels(asked).await.unwrap().into_inner().channels;
    // Once nothing is withheld, nothing of the quarantine is left.
    assert_eq!(channels, []);
    assert!(
        rusqlite::Connection::open(world.path("node/state.sqlite"))
            .unwrap()
            .query_row("SELECT n FROM t", [], |row| row.get::<_, i64>(0))
            .is_ok()
    );
}
