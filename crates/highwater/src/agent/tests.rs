//! An agent on a real node directory and a real vault.

use std::time::Duration;

use super::*;
use crate::vault::{Location, Secret, Vault};

fn vault(dir: &Path) -> Vault {
    let location: Location = dir.join("vault").to_str().unwrap().parse().unwrap();
    let secret = Secret::Key(zeroize::Zeroizing::new([7; 32]));
    Vault::create(&location, &secret, false, &Env::system()).unwrap().vault
}

fn node(dir: &Path) -> PathBuf {
    let node = dir.join("node");
    std::fs::create_dir(&node).unwrap();
    let database = rusqlite::Connection::open(node.join("state.sqlite")).unwrap();
    database.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1);").unwrap();
    node
}

fn quiet() -> Rules {
    Rules { first_after: None, ..Rules::default() }
}

#[test]
fn a_backup_is_an_operation_that_outlives_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let actor = Actor { state_dir: dir.path().join("state"), name: "test".to_owned() };
    let node = node(dir.path());
    let source = VaultSource::from(vault(dir.path()));
    let start =
        || Agent::builder(&node, source.clone(), actor.clone()).rules(quiet()).start().unwrap();
    let agent = start();
    let asked = agent.begin(Task::Backup).unwrap();
    let done = agent.wait(asked.id).unwrap();
    assert_eq!((done.state, done.reason), (State::Completed, None));
    assert!(done.snapshot.is_some() && done.bytes_total > 0);
    assert_eq!(done.bytes_done, done.bytes_total);
    let status = agent.status();
    assert_eq!(status.snapshots.unwrap().len(), 1);
    agent.stop();
    drop(agent);
    let agent = start();
    assert_eq!(agent.operation(asked.id).unwrap().state, State::Completed);
    let tested = agent.wait(agent.begin(Task::RestoreTest).unwrap().id).unwrap();
    assert_eq!((tested.state, tested.reason), (State::Completed, None));
}

#[test]
fn the_first_backup_comes_soon_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let actor = Actor { state_dir: dir.path().join("state"), name: "test".to_owned() };
    let rules = Rules { first_after: Some(Duration::ZERO), ..Rules::default() };
    let agent = Agent::builder(node(dir.path()), vault(dir.path()), actor).rules(rules).start();
    let agent = agent.unwrap();
    let mut changes = agent.changes();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let done = runtime.block_on(async {
        loop {
            let operations = agent.operations(10).unwrap();
            if let Some(done) = operations.into_iter().find(|one| one.state.is_final()) {
                return done;
            }
            changes.changed().await.unwrap();
        }
    });
    assert_eq!((done.state, done.trigger), (State::Completed, Trigger::Start));
}
