//! `/healthz` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use highwater::agent::{Agent, Task};
use highwater::env::Clock;
use highwater::ids::Time;
use highwater::{Env, Error};
use serde_json::json;
use tokio::task::block_in_place;

use crate::world::{Serving, World, make_node};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_once_each_node_has_a_verified_backup() {
    let world = World::empty();
    let serving = world.serve().await;
    let asked = async |expected: u16| {
        let answer = serving.get("/readyz", "").await;
        assert_eq!(answer.code, expected, "{answer:?}");
        answer.json()
    };
    assert_eq!(serving.get("/healthz", "").await.code, 200);
    assert_eq!(asked(503).await["reasons"], json!(["no_node"]));
    let agent = world.add("node");
    while agent.status().snapshots.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked(503).await["reasons"], json!(["no_backup"]));
    block_in_place(|| agent.wait(agent.begin(Task::Backup).unwrap().id)).unwrap();
    let ready = asked(200).await;
    assert_eq!((&ready["ready"], &ready["reasons"]), (&json!(true), &json!([])));
    assert_eq!(ready["nodes"][0]["node"], "node");
    // One node that is not ready is enough.
    world.add_without_vault("lost", || Error::unavailable("no network"));
    let lost = asked(503).await;
    assert_eq!(lost["reasons"], json!(["vault_not_seen"]));
    assert_eq!(serving.get("/healthz", "").await.code, 200);
    world.agents.remove("lost");
    asked(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_too_old_makes_a_server_not_ready() {
    let world = World::empty();
    let ahead = Arc::new(AtomicI64::new(0));
    let env = Env::system().with_clock(Ahead(Arc::clone(&ahead), Env::system()));
    let node = make_node(&world.path("node"));
    let agent = world.add_agent(Agent::builder(node, world.vault(), world.actor()).env(env));
    block_in_place(|| agent.wait(agent.begin(Task::Backup).unwrap().id)).unwrap();
    let serving = Serving::of(world.server()).await;
    assert_eq!(serving.get("/readyz", "").await.code, 200);
    ahead.store(27 * 60 * 60, Ordering::Relaxed);
    let answer = serving.get("/readyz", "").await;
    assert_eq!((answer.code, &answer.json()["reasons"]), (503, &json!(["backup_too_old"])));
}

/// A clock that is so many seconds ahead.
struct Ahead(Arc<AtomicI64>, Env);

impl Clock for Ahead {
    fn now(&self) -> Time {
        let ahead = self.0.load(Ordering::Relaxed) * 1_000_000_000;
        Time::from_nanos(self.1.now().as_nanos() + ahead)
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn pause(&self, duration: Duration) {
        self.1.pause(duration);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_that_but_not_of_whom() {
    let world = World::empty();
    world.add_without_vault("treasure", || Error::unavailable("no network"));
    let (tokens, [read, ..]) = world.tokens();
    let serving = Serving::of(world.server().tokens(tokens)).await;
    let answer = serving.get("/readyz", "").await;
    assert_eq!((answer.code, answer.json()["ready"].clone()), (503, json!(false)));
    assert!(!answer.body.contains("treasure"), "{}", answer.body);
    let known = serving.get("/readyz", &format!("authorization: Bearer {read}\r\n")).await;
    assert_eq!(known.json()["nodes"][0]["node"], "treasure");
    let healthy = serving.get("/healthz", "").await;
    assert_eq!((healthy.code, healthy.json()), (200, json!({ "healthy": true })));
}
