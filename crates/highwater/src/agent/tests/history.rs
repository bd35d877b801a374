//! The history of operations, as a file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::agent::history::{History, KEPT};
use crate::agent::operation::{Operation, OperationId, OperationState, Task, Trigger};
use crate::ids::Time;
use crate::{Env, Kind};

fn operation(task: Task, state: OperationState, second: i64) -> Operation {
    let time = Time::from_nanos(second * 1_000_000_000);
    Operation {
        id: OperationId::random(&Env::system()).unwrap(),
        node: "node".parse().unwrap(),
        task,
        trigger: Trigger::Schedule,
        state,
        stage: String::new(),
        bytes_done: 3,
        bytes_total: u64::MAX >> 1,
        queued_at: time,
        started_at: Some(time),
        finished_at: state.is_final().then_some(time),
        reason: Some("a 'reason'".to_owned()),
        kind: Some("conflict".to_owned()),
        snapshot: Some(crate::ids::SnapshotId::random(&Env::system()).unwrap()),
        location: "/vault".to_owned(),
        warnings: vec!["one".to_owned(), "two".to_owned()],
    }
}

fn open(dir: &Path) -> History {
    History::open(&dir.join("agent.sqlite"), Time::from_nanos(7)).unwrap()
}

#[test]
fn an_operation_is_read_as_it_was_written_and_only_its_owner_may() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = operation(Task::Backup, OperationState::Running, 1);
    open(dir.path()).put(&written).unwrap();
    let history = open(dir.path());
    assert_eq!(history.get(written.id).unwrap().as_ref(), Some(&written));
    assert_eq!(history.unfinished().unwrap(), [written.clone()]);
    written.state = OperationState::Completed;
    written.finished_at = Some(Time::from_nanos(9));
    history.put(&written).unwrap();
    assert_eq!(history.list(10).unwrap(), [written]);
    assert_eq!(history.unfinished().unwrap(), []);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn the_newest_is_the_one_that_was_asked_for_last_whatever_a_clock_said() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path());
    let first = operation(Task::Backup, OperationState::Completed, 2_000_000_000);
    let second = operation(Task::Backup, OperationState::Failed, 1_000_000_000);
    for operation in [&first, &second, &first] {
        history.put(operation).unwrap();
    }
    assert_eq!(history.list(1).unwrap().first(), Some(&second));
    assert_eq!(history.last_ended(Task::Backup).unwrap(), Some(second));
    assert_eq!(history.last_success(Task::Backup).unwrap(), Some(first));
    assert_eq!(history.last_ended(Task::RestoreTest).unwrap(), None);
}

#[test]
fn old_operations_go_but_for_the_last_success_of_each_task() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path());
    history.connection().execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
    let tested = operation(Task::RestoreTest, OperationState::Completed, 1);
    history.put(&tested).unwrap();
    let old = operation(Task::Backup, OperationState::Completed, 2);
    history.put(&old).unwrap();
    history
        .connection()
        .execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1) \
             INSERT INTO operations SELECT 'many-' || n, node, task, trigger, state, bytes_done, \
             bytes_total, queued_at, started_at, finished_at, reason, kind, snapshot, location, \
             warnings FROM operations, n WHERE id = ?2",
            rusqlite::params![KEPT, old.id.to_string()],
        )
        .unwrap();
    let newest = operation(Task::Backup, OperationState::Completed, 3);
    history.put(&newest).unwrap();
    let count: u32 = history
        .connection()
        .query_row("SELECT count(*) FROM operations", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, KEPT + 1);
    assert_eq!(history.get(old.id).unwrap(), None);
    assert_eq!(history.last_success(Task::RestoreTest).unwrap(), Some(tested));
    assert_eq!(history.list(1).unwrap(), [newest]);
}

#[test]
fn a_damaged_history_is_put_aside_and_nothing_of_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sqlite");
    let written = operation(Task::Backup, OperationState::Completed, 1);
    let damages: [fn(&Path); 3] = [
        |path| {
            std::fs::write(path, b"no database at all, but longer than its header".repeat(9))
                .unwrap()
        },
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[4096..].fill(0x5a);
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            let database = rusqlite::Connection::open(path).unwrap();
            database.execute("UPDATE operations SET state = 'lost'", []).unwrap();
        },
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let history = open(dir.path());
        history.put(&written).unwrap();
        drop(history);
        damage(&path);
        let damaged = std::fs::read(&path).unwrap();
        let now = Time::from_nanos(i64::try_from(index).unwrap());
        let history = History::open(&path, now).unwrap();
        assert!(history.warning.as_ref().is_some_and(|warning| warning.contains("put aside")));
        assert_eq!(history.list(10).unwrap(), []);
        history.put(&written).unwrap();
        let aside = dir.path().join(format!("agent.sqlite.damaged-{index}"));
        assert_eq!(std::fs::read(aside).unwrap(), damaged);
    }
}

#[test]
fn the_history_of_a_newer_program_is_a_conflict_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sqlite");
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("CREATE TABLE later (n); PRAGMA user_version = 2;").unwrap();
    drop(newer);
    let bytes = std::fs::read(&path).unwrap();
    let error = History::open(&path, Time::from_nanos(0)).err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.hint().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
