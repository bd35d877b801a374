//! Several processes' worth of writers over one database of PostgreSQL, and a server that dies under them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater::Env;
use highwater_vss::{Backend, Change, Keep, Postgres, Refusal};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::world::{get, kind, plan, store};

async fn connect(url: &str) -> Arc<Postgres> {
    Arc::new(Postgres::connect(url, Env::system()).await.unwrap())
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

/// Every writer adds 1 to both keys, in whatever order they come, conditional on what it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_between_two_servers() {
    const WRITERS: usize = 16;
    const EACH: u64 = 12;
    let cluster = Cluster::shared();
    let url = cluster.database();
    let servers = [connect(&url).await, connect(&url).await];
    let name = store("counter");
    let zero = 0_u64.to_le_bytes();
    servers[0].put(&name, plan(&[("a", 0, &zero), ("b", 0, &zero)], &[])).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (server, name) = (Arc::clone(&servers[writer % 2]), name.clone());
        writers.spawn(async move {
            let mut landed = 0;
            while landed < EACH {
                let (a, first) = get(server.as_ref(), &name, "a").await.unwrap();
                let (b, second) = get(server.as_ref(), &name, "b").await.unwrap();
                let more = [&first, &second].map(|value| (number(value) + 1).to_le_bytes());
                let answer =
                    server.put(&name, plan(&[("a", a, &more[0]), ("b", b, &more[1])], &[])).await;
                landed += u64::from(kind(&answer) == "ok");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let all = WRITERS as u64 * EACH;
    for key in ["a", "b"] {
        let (version, value) = get(servers[1].as_ref(), &name, key).await.unwrap();
        assert_eq!((version, number(&value)), (i64::try_from(all).unwrap() + 1, all));
    }
}

/// Each of many keys is made once, whoever comes first, and unconditional writes of the same keys never
/// fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_make_a_key_one_succeeds() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let servers = [connect(&url).await, connect(&url).await];
    let made = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..16_usize {
        let (server, made) = (Arc::clone(&servers[writer % 2]), Arc::clone(&made));
        writers.spawn(async move {
            for round in 0..10 {
                let name = store(&format!("round {round}"));
                let keys = ["k0", "k1", "k2"].map(|key| (key, 0, b"once".as_slice()));
                let answer = server.put(&name, plan(&keys, &[])).await;
                made.fetch_add(u64::from(kind(&answer) == "ok"), Ordering::Relaxed);
                let any = [("x", -1, b"any".as_slice()), ("y", -1, b"any")];
                server.put(&name, plan(&any, &[])).await.unwrap();
                // Deleted and made again by all at once.
                server.delete(&name, "x", -1).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(made.load(Ordering::Relaxed), 10);
}

/// Requests that go in one transaction don't share their fate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_harms_nobody_else() {
    let cluster = Cluster::shared();
    let server = connect(&cluster.database()).await;
    let (name, fenced) = (store("s"), store("fenced"));
    server.change(&fenced, Change { fence: Some(true), history: None }).await.unwrap();
    for round in 0..20 {
        let mut writers = JoinSet::new();
        for writer in 0..32 {
            let (server, name, fenced) = (Arc::clone(&server), name.clone(), fenced.clone());
            writers.spawn(async move {
                let key = format!("{round} {writer}");
                // Of a fenced store nothing may be written without its head, on a condition or without one.
                let any = if round % 2 == 0 { 0 } else { -1 };
                let (expected, answer) = match writer % 4 {
                    0 => ("conflict", server.put(&name, plan(&[(&key, 7, b"")], &[])).await),
                    1 => ("invalid", server.put(&fenced, plan(&[(&key, any, b"")], &[])).await),
                    _ => ("ok", server.put(&name, plan(&[(&key, 0, b"")], &[])).await),
                };
                assert_eq!(kind(&answer), expected);
                let name = if writer % 4 == 1 { &fenced } else { &name };
                let there = get(server.as_ref(), name, &key).await.is_some();
                assert_eq!(there, expected == "ok");
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    }
}

/// Once a fence stands, no put without a head lands; once history is kept, none is left out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_policy_is_a_barrier_for_every_server() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let servers = [connect(&url).await, connect(&url).await];
    for round in 0..8 {
        let name = store(&format!("s{round}"));
        let stands = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..8_usize {
            let (server, name) = (Arc::clone(&servers[writer % 2]), name.clone());
            let stands = Arc::clone(&stands);
            // Half of them put on no condition.
            let version = if writer % 4 < 2 { 0 } else { -1 };
            writers.spawn(async move {
                let mut landed = 0_u64;
                loop {
                    let late = stands.load(Ordering::SeqCst);
                    let key = format!("{writer} {landed}");
                    let answer = server.put(&name, plan(&[(&key, version, b"v")], &[])).await;
                    match kind(&answer) {
                        "ok" => assert!(!late, "a put has landed after the fence stood"),
                        other => {
                            assert_eq!(other, "invalid");
                            return landed;
                        }
                    }
                    landed += 1;
                }
            });
        }
        // Some are on their way.
        while servers[0].stats().await.unwrap().keys < 20 {}
        let keep = Keep { versions: 10, days: 1 };
        let change = Change { fence: None, history: Some(Some(keep)) };
        servers[0].change(&name, change).await.unwrap();
        let counted = servers[0].digest(&name).await.unwrap();
        let change = Change { fence: Some(true), history: None };
        let policy = servers[1].change(&name, change).await.unwrap();
        let digest = servers[1].digest(&name).await.unwrap();
        stands.store(true, Ordering::SeqCst);
        let mut landed = 0;
        while let Some(done) = writers.join_next().await {
            landed += done.unwrap();
        }
        let after = servers[0].digest(&name).await.unwrap();
        assert_eq!((after, after.count), (digest, landed));
        // Each put since history began is a commit.
        assert_eq!(after.count - counted.count, policy.commit - counted.commit);
    }
}

/// Of two that hold the same head, one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_store_has_one_head_whoever_writes() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let servers = [connect(&url).await, connect(&url).await];
    let name = store("s");
    servers[0].change(&name, Change { fence: Some(true), history: None }).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..12_usize {
        let (server, name) = (Arc::clone(&servers[writer % 2]), name.clone());
        // Each begins with a head of its own name.
        writers.spawn(async move {
            let head = format!("head.{writer}");
            kind(&server.put(&name, plan(&[(&head, 0, b"mine")], &[])).await) == "ok"
        });
    }
    let mut landed = 0;
    while let Some(done) = writers.join_next().await {
        landed += u32::from(done.unwrap());
    }
    assert_eq!(landed, 1);
    let page = servers[0].list(&name, "head.", None, 100).await.unwrap();
    assert_eq!(page.keys.len(), 1);
    let (head, version) = &page.keys[0];
    let taken = servers[1].put(&name, plan(&[("head.new", 0, b"")], &[(head, *version)])).await;
    assert_eq!(kind(&taken), "ok");
    let old = servers[0].put(&name, plan(&[(head, *version, b"")], &[])).await;
    assert_eq!(kind(&old), "conflict");
    assert_eq!(kind(&servers[0].delete(&name, "head.new", -1).await), "invalid");
    // By itself, and on no condition: so it goes the short way.
    let without = servers[1].put(&name, plan(&[("value", -1, b"")], &[])).await;
    assert_eq!(kind(&without), "invalid");
    assert!(get(servers[0].as_ref(), &name, "value").await.is_none());
}

/// On one thread all of these are handed in before the first is on its way: they go as one transaction.
#[tokio::test]
async fn heads_that_come_together_are_told_apart() {
    let cluster = Cluster::shared();
    let server = connect(&cluster.database()).await;
    for round in 0..5 {
        let name = store(&format!("s{round}"));
        server.change(&name, Change { fence: Some(true), history: None }).await.unwrap();
        let heads: Vec<String> = (0..12).map(|number| format!("head.{number}")).collect();
        let puts = heads.iter().map(|head| server.put(&name, plan(&[(head, 0, b"mine")], &[])));
        let answers = futures::future::join_all(puts).await;
        let landed = answers.iter().filter(|answer| kind(answer) == "ok").count();
        let page = server.list(&name, "head.", None, 100).await.unwrap();
        assert_eq!((landed, page.keys.len()), (1, 1));
    }
}

/// What was acknowledged is there after a crash, and the servers go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_postgresql_loses_nothing_that_was_acknowledged() {
    let cluster = Arc::new(Cluster::start(&[]));
    let url = cluster.database();
    let servers = [connect(&url).await, connect(&url).await];
    let mut acknowledged: BTreeMap<String, i64> = BTreeMap::new();
    for round in 0..4 {
        let down = Arc::new(AtomicBool::new(false));
        let landed = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..16_usize {
            let server = Arc::clone(&servers[writer % 2]);
            let (down, landed) = (Arc::clone(&down), Arc::clone(&landed));
            writers.spawn(async move {
                let key = format!("{round} {writer}");
                let name = store(&format!("s{}", writer % 5));
                let mut version = 0;
                loop {
                    let value = vec![b'v'; 2500];
                    let put = plan(&[(&key, version, &value), ("beside", -1, b"")], &[]);
                    match server.put(&name, put).await {
                        Ok(()) => version += 1,
                        Err(Refusal::Failed(error)) => {
                            assert_eq!(error.kind(), highwater::Kind::Unavailable, "{error}");
                            assert!(down.load(Ordering::SeqCst), "{error}");
                            return (key, version);
                        }
                        Err(refusal) => panic!("{refusal}"),
                    }
                    landed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while landed.load(Ordering::SeqCst) < 100 {
            tokio::task::yield_now().await;
        }
        down.store(true, Ordering::SeqCst);
        let (stopping, crash) = (Arc::clone(&cluster), round % 2 == 0);
        let stop = move || if crash { stopping.kill() } else { stopping.stop() };
        tokio::task::spawn_blocking(stop).await.unwrap();
        while let Some(done) = writers.join_next().await {
            let (key, version) = done.unwrap();
            acknowledged.insert(key, version);
        }
        assert!(servers[0].ready().await.is_err());
        let starting = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || starting.start_again()).await.unwrap();
        // The recovery may take a moment longer than the start.
        let ready = async {
            for server in &servers {
                while server.ready().await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap();
        for (key, version) in &acknowledged {
            let writer: usize = key.split(' ').nth(1).unwrap().parse().unwrap();
            let name = store(&format!("s{}", writer % 5));
            let found = get(servers[0].as_ref(), &name, key).await.map_or(0, |(at, _)| at);
            // One more may have landed, whose answer was lost.
            assert!(found == *version || found == version + 1, "{key}: {found}, not {version}");
        }
    }
}

/// A restore, or whoever else holds a store for long, holds up that store and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_held_holds_up_no_other() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let server = connect(&url).await;
    let held = store("held");
    let keep = Keep { versions: 10, days: 1 };
    server.change(&held, Change { fence: None, history: Some(Some(keep)) }).await.unwrap();
    server.put(&held, plan(&[("a", 0, b"1")], &[])).await.unwrap();

    let (mut other, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let transaction = other.transaction().await.unwrap();
    transaction
        .execute("SELECT 1 FROM vss.stores WHERE store_id = 'held' FOR UPDATE", &[])
        .await
        .unwrap();
    let waits = {
        let (server, held) = (Arc::clone(&server), held.clone());
        tokio::spawn(async move { server.put(&held, plan(&[("a", 1, b"2")], &[])).await })
    };
    // More stores than lanes: one of them is on the same.
    for number in 0..40 {
        server.put(&store(&format!("s{number}")), plan(&[("a", 0, b"")], &[])).await.unwrap();
    }
    assert!(!waits.is_finished());
    transaction.rollback().await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(get(server.as_ref(), &held, "a").await.unwrap().0, 2);
    server.close().await;
    let closed = server.put(&held, plan(&[("a", -1, b"")], &[])).await;
    assert!(matches!(closed, Err(Refusal::Failed(_))), "{closed:?}");
}
