//! History on both backends: back to a commit, and back again; what a prune leaves.

use std::sync::Arc;
use std::time::Duration;

use highwater_vss::{Backend, Change, Keep, Postgres, Sqlite};

use crate::cluster::Cluster;
use crate::world::{Standing, all, kind, plan, store};

/// Asks the same of both, and hands over the clock.
pub(crate) async fn on_both(check: impl AsyncFn(Arc<dyn Backend>, Standing)) {
    let clock = Standing::new();
    let dir = tempfile::tempdir().unwrap();
    check(Arc::new(Sqlite::serve(dir.path(), &clock.env()).unwrap()), clock).await;
    let clock = Standing::new();
    let cluster = Cluster::shared();
    let postgres = Postgres::connect(&cluster.database(), clock.env()).await.unwrap();
    check(Arc::new(postgres), clock).await;
}

fn history(versions: u32, days: u32) -> Change {
    Change { fence: None, history: Some(Some(Keep { versions, days })) }
}

/// Keys and values in the order of keys; their versions rise.
async fn values(backend: &dyn Backend, id: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = all(backend, &store(id))
        .await
        .into_iter()
        .map(|(key, _, value)| (key, value.to_vec()))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_store_goes_back_to_a_commit_and_back_again() {
    on_both(async |backend, clock| {
        let (backend, name) = (backend.as_ref(), store("s"));
        // More than a restore has in memory at once, in keys and in bytes.
        let many: Vec<String> = (0..1500).map(|number| format!("k{number:04}")).collect();
        let large = vec![7_u8; 3 << 20];
        for keys in many.chunks(900) {
            let items: Vec<(&str, i64, &[u8])> =
                keys.iter().map(|key| (key.as_str(), 0, b"first".as_slice())).collect();
            backend.put(&name, plan(&items, &[])).await.unwrap();
        }
        for key in ["l0", "l1", "l2", "l3"] {
            backend.put(&name, plan(&[(key, 0, &large)], &[])).await.unwrap();
        }
        let begun = backend.change(&name, history(100, 100)).await.unwrap();
        assert_eq!((begun.commit, begun.oldest), (1, 1));
        let first = values(backend, "s").await;

        clock.forward(Duration::from_secs(1));
        for keys in many.chunks(900) {
            let items: Vec<(&str, i64, &[u8])> =
                keys.iter().map(|key| (key.as_str(), 1, b"second".as_slice())).collect();
            backend.put(&name, plan(&items, &[])).await.unwrap();
        }
        backend
            .put(&name, plan(&[("new", 0, b"new"), ("l0", 1, b"small")], &[("l1", 1)]))
            .await
            .unwrap();
        backend.delete(&name, "k0000", -1).await.unwrap();
        let second = values(backend, "s").await;
        let before = backend.policy(&name).await.unwrap();
        assert_eq!(before.commit, 5);

        let back = backend.restore(&name, 1).await.unwrap();
        assert_eq!((back.commit, back.generation, back.puts, back.deletes), (6, 1, 1504, 1));
        assert_eq!(values(backend, "s").await, first);
        for (_, version, _) in all(backend, &name).await {
            assert_eq!(version, (1 << 32) + 1);
        }
        // A client that has not noticed: none of its versions fit.
        let stale = backend.put(&name, plan(&[("k0001", 2, b"stale")], &[])).await;
        assert_eq!(kind(&stale), "conflict");

        let again = backend.restore(&name, 5).await.unwrap();
        assert_eq!((again.commit, again.generation), (7, 2));
        assert_eq!(values(backend, "s").await, second);
        let commits = backend.commits(&name, None, 2).await.unwrap();
        let shape: Vec<_> = commits.iter().map(|made| (made.commit, made.restored)).collect();
        assert_eq!(shape, [(7, Some(5)), (6, Some(1))]);
        let commits = backend.commits(&name, Some(6), 100).await.unwrap();
        let shape: Vec<_> =
            commits.iter().map(|made| (made.commit, made.puts, made.deletes)).collect();
        assert_eq!(shape, [(5, 0, 1), (4, 2, 1), (3, 600, 0), (2, 900, 0), (1, 0, 0)]);

        for missing in [0, 8] {
            assert_eq!(kind(&backend.restore(&name, missing).await), "conflict");
        }
        assert_eq!(kind(&backend.restore(&store("none"), 1).await), "conflict");
    })
    .await;
}

#[tokio::test]
async fn a_prune_keeps_what_the_policy_says() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    on_both(async |backend, clock| {
        let (backend, name) = (backend.as_ref(), store("s"));
        backend.change(&name, history(2, 3)).await.unwrap();
        // Commit 2 makes the key; commits 3 to 8 replace it, a day apart.
        for version in 0..7 {
            clock.forward(DAY);
            backend.put(&name, plan(&[("k", version, &[version as u8])], &[])).await.unwrap();
        }
        assert_eq!(backend.stats().await.unwrap().old_values, 6);
        // Those replaced 4 and 5 days ago go; the one of 3 days ago stays.
        assert_eq!(backend.prune().await.unwrap(), 2);
        assert_eq!(backend.prune().await.unwrap(), 0);
        let policy = backend.policy(&name).await.unwrap();
        assert_eq!((policy.oldest, policy.commit), (4, 8));
        let commits = backend.commits(&name, None, 100).await.unwrap();
        assert_eq!(commits.iter().map(|made| made.commit).collect::<Vec<_>>(), [8, 7, 6, 5, 4]);
        assert_eq!(kind(&backend.restore(&name, 3).await), "conflict");
        backend.restore(&name, 4).await.unwrap();
        assert_eq!(values(backend, "s").await, [("k".to_owned(), vec![2])]);
        // The newest two stay for ever.
        clock.forward(DAY * 100);
        assert_eq!(backend.prune().await.unwrap(), 3);
        assert_eq!(backend.policy(&name).await.unwrap().oldest, 7);
        backend.restore(&name, 7).await.unwrap();
        assert_eq!(values(backend, "s").await, [("k".to_owned(), vec![5])]);

        // Off and on again: nothing of before.
        backend.change(&name, Change { fence: None, history: Some(None) }).await.unwrap();
        assert_eq!(backend.stats().await.unwrap().old_values, 0);
        let policy = backend.change(&name, history(2, 3)).await.unwrap();
        assert_eq!((policy.oldest, policy.commit), (11, 11));
        assert_eq!(kind(&backend.restore(&name, 10).await), "conflict");
    })
    .await;
}
