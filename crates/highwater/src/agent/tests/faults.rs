//! What fails, fails an operation; the agent and the node go on.

use super::*;
use crate::control::Control;
use crate::engine::HoldHook;
use crate::env::{FaultPoint, Faults};
use crate::restore::{self, RestoreOptions};
use crate::vault::{Level, Selector};

#[test]
fn a_panic_of_a_hook_fails_the_operation_and_nothing_else() {
    let place = AgentPlace::new();
    let hold: HoldHook = Arc::new(|_| panic!("while the writers are held"));
    let turns = Mutex::new(0);
    let options = move || {
        let mut options = BackupOptions::default();
        let mut turn = turns.lock();
        *turn += 1;
        match *turn {
            1 => panic!("in the options"),
            2 => options.capture.hold = Some(Arc::clone(&hold)),
            3 => return Err(Error::unavailable("not now")),
            _ => {}
        }
        Ok(options)
    };
    let agent = place.builder().options_from(options).start().unwrap();
    let failures = [
        ("bug", "in the options"),
        ("bug", "while the writers are held"),
        ("unavailable", "not now"),
    ];
    for (index, (kind, words)) in failures.into_iter().enumerate() {
        let failed = run(&agent, Task::Backup);
        assert_eq!(
            (failed.state, failed.kind.as_deref()),
            (OperationState::Failed, Some(kind)),
            "{words}"
        );
        assert!(failed.reason.as_ref().unwrap().contains(words), "{:?}", failed.reason);
        let status = agent.status();
        assert_eq!(status.failures, u32::try_from(index).unwrap() + 1);
        assert_eq!((status.last_backup, place.snapshots()), (Some(failed), 0));
    }
    completed(&agent, Task::Backup);
    assert_eq!(agent.status().failures, 0);
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_panic_of_a_checkpoint_hook_fails_the_operation_and_the_next_one_succeeds() {
    use rust_rocksdb::{DB, checkpoint::Checkpoint};
    let place = AgentPlace::new();
    std::fs::remove_file(place.node().join("state.sqlite")).unwrap();
    let store = DB::open_default(place.node().join("store")).unwrap();
    store.put("height", "7").unwrap();
    let turns = Mutex::new(0);
    let hook: crate::engine::CheckpointHook = Arc::new(move |target| {
        let mut turn = turns.lock();
        *turn += 1;
        match *turn {
            1 => panic!("before the checkpoint"),
            2 => {
                Checkpoint::new(&store)?.create_checkpoint(target)?;
                panic!("after the checkpoint")
            }
            3 => Err("the store says no".into()),
            _ => Ok(Checkpoint::new(&store)?.create_checkpoint(target)?),
        }
    });
    let mut options = BackupOptions::default();
    options.capture.hooks.push(("store".to_owned(), hook));
    let agent = place.builder().options(options).start().unwrap();
    for words in ["before the checkpoint", "after the checkpoint", "store"] {
        let failed = run(&agent, Task::Backup);
        assert_eq!(failed.state, OperationState::Failed);
        assert!(failed.reason.as_ref().unwrap().contains(words), "{:?}", failed.reason);
        assert_eq!(place.snapshots(), 0);
    }
    completed(&agent, Task::Backup);
    completed(&agent, Task::RestoreTest);
    // Nothing is left of the checkpoints that came to nothing.
    let names = std::fs::read_dir(place.node()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: std::collections::BTreeSet<_> = names.collect();
    assert_eq!(names, [OWN_DIR, "store"].map(Into::into).into());
}

#[test]
fn a_vault_that_can_not_be_reached_fails_backups_until_it_can() {
    let place = AgentPlace::new();
    let hands = Hands::new();
    let broken = Arc::new(Mutex::new(0));
    let source = {
        let (broken, at) = (Arc::clone(&broken), location(place.dir.path()));
        VaultSource::new("the vault", move || {
            let mut tries = broken.lock();
            *tries += 1;
            match *tries {
                1 => panic!("the key store has gone"),
                2..=4 => Err(Error::unavailable("no route to the vault")),
                _ => Vault::open_with(&at, &secret(), &Env::system()),
            }
        })
    };
    let builder = Agent::builder(place.node(), source, place.actor()).rules(quiet());
    let agent = builder.env(hands.env()).start().unwrap();
    let told = |words: &str| agent.status().warnings.concat().contains(words).then_some(());
    until(&agent, || told("the key store has gone"));
    let failed = run(&agent, Task::Backup);
    assert_eq!(failed.kind.as_deref(), Some("unavailable"));
    assert!(agent.status().warnings.concat().contains("no route"));
    assert_eq!((agent.status().snapshots, agent.status().failures), (None, 1));
    // It is looked at again without anybody asking.
    let mut changes = agent.changes();
    while agent.status().snapshots.is_none() {
        changes.mark_unchanged();
        hands.pass(&agent, Duration::from_secs(300));
        futures::executor::block_on(changes.changed()).unwrap();
    }
    assert!(agent.status().warnings.is_empty());
    completed(&agent, Task::Backup);
}

#[test]
fn a_history_that_can_not_be_written_keeps_no_backup_from_being_made() {
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    let first = completed(&agent, Task::Backup);
    let read_only = |on: bool| {
        let connection = agent.0.worker.history.connection();
        connection.pragma_update(None, "query_only", on).unwrap();
    };
    read_only(true);
    let second = completed(&agent, Task::Backup);
    assert!(agent.status().warnings.concat().contains("history"));
    assert_eq!(agent.operation(second.id).unwrap(), second);
    assert_eq!(agent.operations(10).unwrap(), [second.clone(), first.clone()]);
    assert_eq!(agent.status().last_backup.as_ref(), Some(&second));
    assert_eq!(agent.0.worker.history.get(second.id).unwrap(), None);
    read_only(false);
    let third = completed(&agent, Task::Backup);
    assert!(agent.status().warnings.is_empty());
    agent.stop();
    drop(agent);
    let agent = place.builder().start().unwrap();
    assert_eq!(agent.operations(10).unwrap(), [third, second, first]);
}

#[test]
fn a_full_disk_under_the_history_is_no_other_trouble() {
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    let connection = agent.0.worker.history.connection();
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection.pragma_query(None, "page_count", |_| Ok(())).unwrap();
    let max = format!("PRAGMA max_page_count = {pages}");
    connection.query_row(&max, [], |_| Ok(())).unwrap();
    drop(connection);
    // Until the pages that it has are full.
    let full = std::iter::repeat_with(|| run(&agent, Task::Check)).take(100);
    let told = full.into_iter().any(|_| agent.status().warnings.concat().contains("full"));
    assert!(told, "{:?}", agent.status().warnings);
    completed(&agent, Task::Backup);
}

#[test]
fn a_damaged_history_keeps_no_agent_from_its_work() {
    let place = AgentPlace::new();
    let own = place.node().join(OWN_DIR);
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("agent.sqlite"), "not any more".repeat(999)).unwrap();
    let agent = place.builder().start().unwrap();
    assert!(agent.status().warnings.concat().contains("put aside"));
    completed(&agent, Task::Backup);
}

#[test]
fn another_agent_that_prunes_the_vault_fails_no_backup_and_the_policy_is_applied_later() {
    let place = AgentPlace::new();
    let hands = Hands::new();
    let retention = Retention { last: 1, ..Retention::default() };
    let builder = place.builder().retention(retention).env(hands.env());
    let agent = builder.start().unwrap();
    let other = place.actor().lock_vault(place.source.get().unwrap().id()).unwrap();
    for _ in 0..2 {
        assert_eq!(completed(&agent, Task::Backup).warnings, Vec::<String>::new());
    }
    let seen = || agent.status().snapshots.map_or(0, |snapshots| snapshots.len());
    assert_eq!((seen(), agent.status().failures), (2, 0));
    assert!(agent.status().warnings.is_empty());
    drop(other);
    hands.pass(&agent, Duration::from_secs(60 * 60));
    until(&agent, || (place.snapshots() == 1).then_some(()));
    agent.stop();
    assert!(agent.status().warnings.is_empty());
}

#[test]
fn a_node_whose_restore_was_interrupted_is_in_maintenance_and_not_backed_up() {
    struct Stop;
    impl Faults for Stop {
        fn reached(&self, point: FaultPoint) -> Result<()> {
            match point {
                FaultPoint::RestoreExchange => Err(Error::interrupted()),
                _ => Ok(()),
            }
        }
    }
    let place = AgentPlace::new();
    let elsewhere = place.dir.path().join("agent");
    let agent = place.builder().data_dir(&elsewhere).start().unwrap();
    completed(&agent, Task::Backup);
    assert!(!agent.status().maintenance);
    let vault = place.source.get().unwrap();
    let selector = Selector { snapshot: "latest".to_owned(), ..Selector::default() };
    let options = RestoreOptions { selector, force: true, ..RestoreOptions::default() };
    let plan = restore::plan(&vault, &place.node(), &options).unwrap();
    let control = Control::new(Env::system().with_faults(Stop));
    restore::run(&vault, &plan, &options, &control).unwrap_err();
    let failed = run(&agent, Task::Backup);
    assert_eq!((failed.state, failed.kind.as_deref()), (OperationState::Failed, Some("conflict")));
    assert!(agent.status().maintenance);
    assert_eq!(place.snapshots(), 1);
    restore::recover(&place.node(), &Control::new(Env::system())).unwrap();
    assert!(!agent.status().maintenance);
    completed(&agent, Task::Backup);
}

#[test]
fn nothing_to_restore_fails_a_restore_test() {
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    let failed = run(&agent, Task::RestoreTest);
    assert_eq!((failed.state, failed.kind.as_deref()), (OperationState::Failed, Some("not_found")));
}

#[test]
fn a_snapshot_that_fails_its_restore_test_shows_and_is_not_built_on() {
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    completed(&agent, Task::Backup);
    let packs = place.dir.path().join("vault/packs");
    let mut damaged = 0;
    let mut dirs = vec![packs];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            bytes[half] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let failed = run(&agent, Task::RestoreTest);
    assert_eq!((failed.state, failed.kind.as_deref()), (OperationState::Failed, Some("corrupt")));
    let status = agent.status();
    assert_eq!(status.snapshots.as_ref().unwrap()[0].level, Level::Failed);
    assert!(status.newest(Level::Sealed).is_none() && status.restore_tested.is_none());
    assert_eq!(status.last_restore_test, Some(failed));
    let anew = completed(&agent, Task::Backup);
    assert!(anew.warnings.concat().contains("stored anew"));
    completed(&agent, Task::RestoreTest);
    assert_eq!(agent.status().newest(Level::Restored).unwrap().snapshot, anew.snapshot.unwrap());
}

#[test]
fn what_a_killed_restore_test_left_is_removed_at_the_next_start() {
    let place = AgentPlace::new();
    let scratch = place.dir.path().join("scratch");
    let start = || place.builder().scratch(&scratch).start().unwrap();
    let agent = start();
    completed(&agent, Task::Backup);
    completed(&agent, Task::RestoreTest);
    agent.stop();
    let own = agent.0.worker.scratch.clone();
    assert!(own.starts_with(&scratch) && !own.exists());
    drop(agent);
    std::fs::create_dir_all(own.join(".highwater-test-1/node")).unwrap();
    std::fs::write(scratch.join("another's"), "stays").unwrap();
    let agent = start();
    completed(&agent, Task::Check);
    assert!(!own.exists() && scratch.join("another's").exists());
}

#[test]
fn a_thread_that_ends_by_a_panic_keeps_nobody_waiting() {
    struct Broken(Arc<Mutex<bool>>);
    impl crate::env::Random for Broken {
        fn fill(&self, bytes: &mut [u8]) -> Result<()> {
            assert!(!*self.0.lock(), "no randomness");
            bytes.fill_with(|| 7);
            crate::env::Random::fill(&System, bytes)
        }
    }
    struct System;
    impl crate::env::Random for System {
        fn fill(&self, bytes: &mut [u8]) -> Result<()> {
            let random: [u8; 64] = Env::system().random()?;
            bytes.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
            Ok(())
        }
    }
    let place = AgentPlace::new();
    let broken = Arc::new(Mutex::new(false));
    let env = Env::system().with_random(Broken(Arc::clone(&broken)));
    let (door, options) = door();
    let agent = place.builder().options_from(options).env(env).start().unwrap();
    let asked = agent.begin(Task::Backup).unwrap();
    door.reached.recv().unwrap();
    *broken.lock() = true;
    door.open.send(()).unwrap();
    let failed = agent.wait(asked.id).unwrap();
    assert_eq!((failed.state, failed.kind.as_deref()), (OperationState::Failed, Some("bug")));
    assert!(agent.status().warnings.concat().contains("the agent has ended"));
    assert_eq!(agent.begin(Task::Backup).unwrap_err().kind(), Kind::Conflict);
    agent.stop();
}
