//! What is quarantined is listed and released by both interfaces.

use highwater::Control;
use highwater::Env;
use highwater::agent::{Agent, Task};
use highwater::backup::BackupOptions;
use highwater::guard::HeldState;
use highwater::ids::GuardKind;
use highwater::restore::{self, RestoreOptions};
use highwater::vault::Selector;
use highwater_server::v1;
use serde_json::json;
use tokio::task::block_in_place;
use tonic::Code;

use crate::world::{World, make_node};

/// A world whose node was restored without proof that it is current.
fn restored() -> (World, Agent) {
    let world = World::empty();
    let guarded = BackupOptions { guard: Some(GuardKind::Databases), ..BackupOptions::default() };
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
        let options = RestoreOptions { selector: latest, force: true, ..RestoreOptions::default() };
        let plan = restore::plan(&vault, &node, &options).unwrap();
        restore::run(&vault, &plan, &Control::new(Env::system())).unwrap();
    });
    (world, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_quarantined_is_listed_and_released_with_a_reason() {
    let (world, agent) = restored();
    let serving = world.serve().await;
    let mut guard = serving.guard().await;
    let asked = v1::ListChannelsRequest { node: String::new() };
    let channels = guard.list_channels(asked).await.unwrap().into_inner().channels;
    assert_eq!(channels.len(), 1);
    assert_eq!((channels[0].node.as_str(), channels[0].state.as_str()), ("node", "withheld"));
    let listed = serving.rpc("guard_list", json!({})).await;
    assert_eq!(listed["result"]["channels"][0]["id"], json!(channels[0].id));
    assert_eq!(listed["result"]["channels"][0]["state"], "withheld");
    let mut backups = serving.backups().await;
    let status = backups.get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.nodes[0].quarantined, Some(1));

    let release = |channel: &str, reason: &str| v1::ReleaseRequest {
        node: String::new(),
        channel: channel.to_owned(),
        reason: reason.to_owned(),
    };
    for (channel, reason, code) in [
        ("", "known to be current", Code::InvalidArgument),
        (channels[0].id.as_str(), " ", Code::InvalidArgument),
        ("another", "known to be current", Code::NotFound),
    ] {
        let status = guard.release(release(channel, reason)).await.unwrap_err();
        assert_eq!(status.code(), code, "{channel} {reason}");
    }
    let refused =
        serving.rpc("guard_release", json!({ "channel": channels[0].id, "reason": "" })).await;
    assert_eq!(refused["error"]["code"], -32602);
    assert!(agent.quarantine().unwrap()[0].state == HeldState::Withheld);

    let asked = json!({ "channel": channels[0].id, "reason": "the other disk burned" });
    let released = serving.rpc("guard_release", asked).await;
    assert_eq!(released["result"]["channels"][0]["state"], "released");
    let asked = v1::ListChannelsRequest { node: "node".to_owned() };
    let channels = guard.list_channels(asked).await.unwrap().into_inner().channels;
    assert_eq!(channels[0].state, "released");
    assert!(channels[0].reason.contains("the other disk burned"), "{channels:?}");
    assert!(
        rusqlite::Connection::open(world.path("node/state.sqlite"))
            .unwrap()
            .query_row("SELECT n FROM t", [], |row| row.get::<_, i64>(0))
            .is_ok()
    );
}
