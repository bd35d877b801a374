//! What an agent does from its start to its end.

use super::*;
use crate::engine::HoldHook;
use crate::vault::Level;

#[test]
fn a_backup_is_an_operation_that_outlives_the_agent() {
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    let done = completed(&agent, Task::Backup);
    assert!(done.snapshot.is_some() && done.bytes_total > 0);
    assert_eq!((done.bytes_done, done.percent()), (done.bytes_total, Some(100)));
    assert!(done.queued_at <= done.started_at.unwrap() && done.started_at <= done.finished_at);
    assert_eq!(agent.status().snapshots.unwrap().len(), 1);
    agent.stop();
    drop(agent);
    let agent = place.builder().start().unwrap();
    assert_eq!(agent.operation(done.id).unwrap(), done);
    assert_eq!(agent.status().last_backup, Some(done));
    let tested = completed(&agent, Task::RestoreTest);
    let status = agent.status();
    assert_eq!(status.restore_tested, tested.finished_at);
    assert_eq!(status.newest(Level::Restored).unwrap().snapshot, tested.snapshot.unwrap());
}

#[test]
fn the_first_backup_comes_soon_after_the_start() {
    let place = AgentPlace::new();
    let rules = Rules { first_after: Some(Duration::ZERO), ..Rules::default() };
    let agent = place.builder().rules(rules).start().unwrap();
    let done = until(&agent, || {
        agent.operations(10).unwrap().into_iter().find(|one| one.state.is_final())
    });
    assert_eq!((done.state, done.trigger), (OperationState::Completed, Trigger::Start));
}

#[test]
fn schedule_events_and_restore_tests_come_by_themselves() {
    let place = AgentPlace::new();
    let hands = Hands::new();
    let hour = Duration::from_secs(60 * 60);
    let rules = Rules {
        backup: Some(Cadence::Every(hour)),
        restore_test: Some(3 * hour),
        ..Rules::default()
    };
    let agent = place.builder().rules(rules).env(hands.env()).start().unwrap();
    let ended = |count: usize| {
        until(&agent, || {
            let operations = agent.operations(100).unwrap();
            let all =
                operations.len() == count && operations.iter().all(|one| one.state.is_final());
            all.then_some(operations)
        })
    };
    let newest = |operations: &[Operation]| {
        assert_eq!(operations[0].state, OperationState::Completed, "{:?}", operations[0].reason);
        (operations[0].task, operations[0].trigger)
    };
    hands.pass(&agent, Duration::from_secs(10));
    // The first backup, and then there is something to test.
    assert_eq!(newest(&ended(2)), (Task::RestoreTest, Trigger::Schedule));
    agent.changed();
    hands.pass(&agent, Duration::from_secs(5));
    assert_eq!(newest(&ended(3)), (Task::Backup, Trigger::Event));
    hands.pass(&agent, hour);
    assert_eq!(newest(&ended(4)), (Task::Backup, Trigger::Schedule));
    assert_eq!(agent.operations(2).unwrap().len(), 2);
    let next = agent.status().next_backup.unwrap();
    assert_eq!(next.seconds_since(hands.now()), hour.as_secs());
}

#[test]
fn a_second_backup_is_a_conflict_and_unknown_and_malformed_handles_are_told_apart() {
    let place = AgentPlace::new();
    let (door, options) = door();
    let agent = place.builder().options_from(options).start().unwrap();
    let first = agent.begin(Task::Backup).unwrap();
    door.reached.recv().unwrap();
    let error = agent.begin(Task::Backup).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains(&first.id.to_string()));
    let unknown: OperationId = "4b9f9c1e-0000-4000-8000-000000000000".parse().unwrap();
    for error in [agent.operation(unknown), agent.cancel(unknown), agent.wait(unknown)] {
        assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!("no handle".parse::<OperationId>().unwrap_err().kind(), Kind::Input);
    door.open.send(()).unwrap();
    assert_eq!(agent.wait(first.id).unwrap().state, OperationState::Completed);
}

#[test]
fn nobody_waits_for_a_running_backup_but_who_asks_to() {
    let place = AgentPlace::new();
    let (door, options) = door();
    let agent = place.builder().options_from(options).start().unwrap();
    let asked = agent.begin(Task::Backup).unwrap();
    door.reached.recv().unwrap();
    agent.changed();
    let status = agent.status();
    assert_eq!((status.active.len(), status.active[0].state), (1, OperationState::Running));
    assert_eq!(agent.operations(10).unwrap()[0].state, OperationState::Running);
    let waited = agent.wait_for(asked.id, Duration::from_millis(1)).unwrap();
    assert_eq!((waited.state, waited.percent()), (OperationState::Running, None));
    agent.set_rules(quiet(), Retention::default()).unwrap();
    door.open.send(()).unwrap();
    assert_eq!(agent.wait(asked.id).unwrap().state, OperationState::Completed);
}

#[test]
fn what_is_cancelled_leaves_nothing_wherever_it_stands() {
    let place = AgentPlace::new();
    let (door, options) = door();
    let agent = place.builder().options_from(options).start().unwrap();
    let running = agent.begin(Task::Backup).unwrap();
    door.reached.recv().unwrap();
    let queued = agent.begin(Task::RestoreTest).unwrap();
    let cancelled = agent.cancel(queued.id).unwrap();
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert_eq!(agent.wait(queued.id).unwrap(), cancelled);
    assert_eq!(agent.cancel(running.id).unwrap().state, OperationState::Running);
    door.open.send(()).unwrap();
    let ended = agent.wait(running.id).unwrap();
    assert_eq!((ended.state, ended.kind.as_deref()), (OperationState::Cancelled, None));
    assert_eq!(agent.cancel(running.id).unwrap(), ended);
    assert_eq!((place.snapshots(), agent.status().failures), (0, 0));
    door.open.send(()).unwrap();
    completed(&agent, Task::Backup);
    assert_eq!(agent.operations(10).unwrap().len(), 3);
}

#[test]
fn stopping_cancels_what_runs_and_what_waits_and_waits_for_it() {
    let place = AgentPlace::new();
    let (door, options) = door();
    let agent = place.builder().options_from(options).start().unwrap();
    let running = agent.begin(Task::Backup).unwrap();
    door.reached.recv().unwrap();
    let queued = agent.begin(Task::Check).unwrap();
    std::thread::scope(|scope| {
        let stops = [scope.spawn(|| agent.stop()), scope.spawn(|| agent.stop())];
        until(&agent, || agent.begin(Task::CheckData).err());
        door.open.send(()).unwrap();
        for stop in stops {
            stop.join().unwrap();
            assert!(agent.status().active.is_empty());
        }
    });
    for id in [running.id, queued.id] {
        assert_eq!(agent.operation(id).unwrap().state, OperationState::Cancelled);
    }
    assert_eq!(agent.begin(Task::Backup).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(place.snapshots(), 0);
}

#[test]
fn an_agent_that_is_dropped_while_a_backup_runs_has_let_go_of_everything() {
    let place = AgentPlace::new();
    let (door, options) = door();
    let agent = place.builder().options_from(options).start().unwrap();
    let id = agent.begin(Task::Backup).unwrap().id;
    door.reached.recv().unwrap();
    let second = place.builder().start().err().unwrap();
    assert_eq!(second.kind(), Kind::Conflict);
    let changes = agent.changes();
    std::thread::scope(|scope| {
        let dropped = scope.spawn(move || drop(agent));
        let mut changes = changes;
        futures::executor::block_on(changes.changed()).unwrap();
        door.open.send(()).unwrap();
        dropped.join().unwrap();
    });
    let agent = place.builder().start().unwrap();
    assert_eq!(agent.operation(id).unwrap().state, OperationState::Cancelled);
    assert_eq!(place.snapshots(), 0);
    completed(&agent, Task::Backup);
}

#[test]
fn an_operation_that_a_killed_process_left_has_failed() {
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    let mut left = completed(&agent, Task::Backup);
    agent.stop();
    (left.state, left.finished_at) = (OperationState::Running, None);
    agent.0.worker.history.put(&left).unwrap();
    drop(agent);
    let agent = place.builder().start().unwrap();
    let found = agent.operation(left.id).unwrap();
    assert_eq!((found.state, found.kind.as_deref()), (OperationState::Failed, Some("interrupted")));
    assert_eq!(agent.status().last_backup, Some(found));
}

#[test]
fn progress_never_exceeds_what_there_is_to_do() {
    let place = AgentPlace::new();
    let (door, options) = door();
    let agent = place.builder().options_from(options).start().unwrap();
    let id = agent.begin(Task::Backup).unwrap().id;
    door.reached.recv().unwrap();
    let mut changes = agent.changes();
    door.open.send(()).unwrap();
    loop {
        let seen = agent.operation(id).unwrap();
        assert!(seen.bytes_done <= seen.bytes_total, "{seen:?}");
        if seen.state.is_final() {
            assert_eq!((seen.bytes_done, seen.percent()), (seen.bytes_total, Some(100)));
            assert!(seen.stage.is_empty());
            return;
        }
        futures::executor::block_on(changes.changed()).unwrap();
    }
}

#[test]
fn an_event_that_tells_more_bytes_than_there_are_is_not_shown() {
    use crate::control::Event;
    let place = AgentPlace::new();
    let agent = place.builder().start().unwrap();
    let active = super::super::active::Active::new(completed(&agent, Task::Backup));
    let control = active.control(&Env::system(), &agent.0.worker.changes);
    control.report(Event::Bytes(10));
    assert_eq!((active.now().bytes_done, active.now().bytes_total), (0, 0));
    control.report(Event::Stage { name: "capture", bytes_total: 100 });
    control.report(Event::Bytes(60));
    control.report(Event::Stage { name: "commit", bytes_total: 0 });
    assert_eq!((active.now().bytes_done, active.now().bytes_total), (60, 100));
    control.report(Event::Bytes(60));
    assert_eq!(active.now().bytes_done, 100);
}

#[test]
fn marks_are_those_of_the_barrier_and_two_databases_share_it() {
    let place = AgentPlace::new();
    place.database("second.sqlite");
    let height = Arc::new(Mutex::new(6));
    let hold: HoldHook = {
        let height = Arc::clone(&height);
        Arc::new(move |capture| {
            let mut height = height.lock();
            // It rises until the writers are held.
            *height += 1;
            capture([("height".to_owned(), *height)].into());
            Ok(())
        })
    };
    let options = move || {
        let mut options = BackupOptions::default();
        options.capture.hold = Some(Arc::clone(&hold));
        Ok(options)
    };
    let agent = place.builder().options_from(options).start().unwrap();
    let done = [completed(&agent, Task::Backup), completed(&agent, Task::Backup)];
    let snapshots = agent.status().snapshots.unwrap();
    let marks: Vec<u64> = snapshots.iter().map(|snapshot| snapshot.marks["height"]).collect();
    assert_eq!(marks, [7, 8]);
    // Two of one second are two, in order.
    let ids: Vec<_> = snapshots.iter().map(|snapshot| Some(snapshot.snapshot)).collect();
    assert_eq!(ids, done.map(|done| done.snapshot));
    assert!(snapshots[0].seq < snapshots[1].seq);
}

#[test]
fn what_an_agent_writes_is_never_captured_and_no_node_directory_is_made() {
    let place = AgentPlace::new();
    let inside = place.node().join("agent");
    for builder in [place.builder().data_dir(&inside), place.builder().scratch(&inside)] {
        assert_eq!(builder.start().err().unwrap().kind(), Kind::Input);
    }
    let _ = std::fs::remove_dir(&inside);
    let mistyped = place.dir.path().join("nodes");
    let agent = Agent::builder(&mistyped, place.source.clone(), place.actor()).start();
    assert_eq!(agent.err().unwrap().kind(), Kind::NotFound);
    assert!(!mistyped.exists());
    let agent = place.builder().start().unwrap();
    completed(&agent, Task::Backup);
    let manifest = place.source.get().unwrap().snapshots(None).unwrap().remove(0).manifest;
    let entries = manifest.parts.iter().flat_map(|part| &part.entries);
    let names: Vec<String> = entries.map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["state.sqlite"]);
}

#[test]
fn a_stopped_agent_lets_another_one_begin_while_somebody_still_reads_it() {
    let place = AgentPlace::new();
    let first = place.builder().start().unwrap();
    let reader = first.clone();
    assert_eq!(place.builder().start().err().unwrap().kind(), Kind::Conflict);
    first.stop();
    let second = place.builder().start().unwrap();
    assert!(reader.operations(10).unwrap().is_empty());
    drop((first, reader));
    // The end of the first one takes nothing from the second.
    assert_eq!(place.builder().start().err().unwrap().kind(), Kind::Conflict);
    second.stop();
}
