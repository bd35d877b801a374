"""An agent of a node: backups by schedule, on request and after changes, and how it all stands."""

import sqlite3
from datetime import datetime, timedelta, timezone

import pytest
from conftest import rows

import highwater
from highwater import (
    Agent,
    AgentOptions,
    AgentRules,
    BackupOptions,
    Error,
    Kind,
    Level,
    OperationState,
    ReplicaOptions,
    ReplicatedStore,
    Retention,
    Task,
    Trigger,
    VssServer,
)

# Longer than anything here takes, on whatever machine.
LONG = timedelta(minutes=5)
# Nothing comes by itself.
QUIET = AgentRules(backup_at_start=False, debounce=timedelta(0))


def until(agent, holds):
    """Waits until something holds that changes with the agent's operations."""
    seen = 0
    while not (found := holds()):
        now = agent.wait_for_change(seen, LONG)
        assert now > seen, "nothing changed for long"
        seen = now
    return found


def ended(agent, trigger):
    for operation in agent.operations():
        if operation.trigger == trigger and operation.finished_at:
            return operation
    return None


def test_a_change_brings_a_backup_and_so_does_a_request(node, vault, tmp_path):
    options = AgentOptions(rules=QUIET, backup=BackupOptions(node="alice", tags={"by": "agent"}))
    agent = Agent.start(vault, str(node.directory), options)
    assert agent.node() == "alice"
    status = agent.status()
    assert status.last_backup is None and status.next_backup is None and status.replica is None
    assert status.active == [] and status.warnings == []

    agent.changed()
    event = until(agent, lambda: ended(agent, Trigger.EVENT))
    assert (event.task, event.state) == (Task.BACKUP, OperationState.COMPLETED)
    assert (event.percent, event.reason, event.kind) == (100, None, None)
    assert event.queued_at <= event.started_at <= event.finished_at

    node.pay()
    begun = agent.begin(Task.BACKUP)
    done = agent.wait(begun.id, LONG)
    assert (done.trigger, done.state) == (Trigger.MANUAL, OperationState.COMPLETED)
    assert [snapshot.id for snapshot in vault.snapshots("alice")] == [event.snapshot, done.snapshot]
    assert vault.snapshots()[0].tags == {"by": "agent"}
    assert agent.operation(begun.id) == done
    assert [operation.id for operation in agent.operations(1)] == [done.id]

    tested = agent.wait(agent.begin(Task.RESTORE_TEST).id)
    assert (tested.state, tested.snapshot) == (OperationState.COMPLETED, done.snapshot)
    status = agent.status()
    assert status.node == "alice" and status.failures == 0 and status.quarantined == 0
    assert status.stale is False and status.age < LONG and not status.maintenance
    assert [seen.seq for seen in status.snapshots] == [1, 2]
    assert status.snapshots[-1].level == Level.RESTORED
    assert (status.last_backup, status.last_restore_test) == (done, tested)
    assert abs(datetime.now(timezone.utc) - status.now) < LONG
    assert status.restore_tested is not None

    agent.stop()
    with pytest.raises(Error.Conflict):
        agent.begin(Task.BACKUP)
    # The history is that of the directory: the next agent has it.
    agent = Agent.start(vault, str(node.directory), options)
    assert agent.operation(done.id).snapshot == done.snapshot
    highwater.restore(vault, str(tmp_path / "copy"))
    assert rows(tmp_path / "copy" / "payments.sqlite") == [1, 2, 3, 4]


def test_rules_bring_backups_and_restore_tests_by_themselves(node, vault):
    rules = AgentRules(
        backup_cron="0 0 1 1 *", first_after=timedelta(0), restore_test_every=timedelta(seconds=1)
    )
    agent = Agent.start(vault, str(node.directory), AgentOptions(rules=rules))
    first = until(agent, lambda: ended(agent, Trigger.START))
    assert first.state == OperationState.COMPLETED
    assert until(agent, lambda: agent.status().restore_tested)
    following = agent.status().next_backup
    assert (following.month, following.day, following.hour, following.minute) == (1, 1, 0, 0)

    agent.set_rules(AgentRules(backup_every=timedelta(seconds=1)))
    scheduled = until(agent, lambda: ended(agent, Trigger.SCHEDULE))
    assert scheduled.state == OperationState.COMPLETED
    with pytest.raises(Error.Input):
        agent.set_rules(AgentRules(backup_every=timedelta(milliseconds=1)))
    with pytest.raises(Error.Input):
        agent.set_rules(AgentRules(backup_cron="never"))
    with pytest.raises(Error.Input):
        agent.set_rules(AgentRules(backup_cron="0 0 * * *", backup_every=timedelta(hours=1)))


def test_a_policy_says_which_snapshots_stay(node, vault):
    options = AgentOptions(rules=QUIET, retention=Retention(last=2, tags={"keep": None}))
    agent = Agent.start(vault, str(node.directory), options)
    for _ in range(4):
        node.pay()
        assert agent.wait(agent.begin(Task.BACKUP).id).state == OperationState.COMPLETED
    # The policy is applied between operations.
    for _ in range(100):
        agent.wait(agent.begin(Task.CHECK).id)
        if len(vault.snapshots()) == 2:
            break
    assert [snapshot.seq for snapshot in vault.snapshots()] == [3, 4]


def test_a_backup_that_fails_shows_and_the_next_one_succeeds(node, vault):
    agent = Agent.start(vault, str(node.directory), AgentOptions(rules=QUIET))
    # Each backup looks whether this process has opened a database meanwhile.
    connection = sqlite3.connect(node.database)
    failed = agent.wait(agent.begin(Task.BACKUP).id)
    assert (failed.state, failed.kind) == (OperationState.FAILED, Kind.CONFLICT)
    assert "payments.sqlite" in failed.reason and failed.snapshot is None
    status = agent.status()
    assert status.failures == 1 and status.last_backup == failed
    connection.close()
    assert agent.wait(agent.begin(Task.BACKUP).id).state == OperationState.COMPLETED
    assert agent.status().failures == 0

    with pytest.raises(Error.NotFound):
        agent.operation("00000000-0000-4000-8000-000000000000")
    with pytest.raises(Error.Input):
        agent.operation("the last one")
    with pytest.raises(Error.NotFound):
        agent.flush_replica(LONG)
    with pytest.raises(Error.Conflict):
        Agent.start(vault, str(node.directory))


class Slow(highwater.Writers):
    """Writers that are asked to hold still, and keep the backup waiting until they are let go on."""

    def __init__(self, agent):
        self.agent, self.cancelled = agent, None

    def hold(self):
        # From a thread of the agent's, while the main thread waits for the operation.
        [running] = self.agent[0].status().active
        assert running.state == OperationState.RUNNING
        self.cancelled = self.agent[0].cancel(running.id)
        return {}

    def go_on(self):
        pass


def test_an_operation_is_cancelled_and_leaves_nothing(node, vault):
    holder = []
    slow = Slow(holder)
    options = AgentOptions(rules=QUIET, backup=BackupOptions(writers=slow))
    agent = Agent.start(vault, str(node.directory), options)
    holder.append(agent)
    operation = agent.wait(agent.begin(Task.BACKUP).id)
    # The agent must not belong to its own hook.
    holder.clear()
    assert operation.state == OperationState.CANCELLED and slow.cancelled.id == operation.id
    assert vault.snapshots() == []


def test_the_replica_of_the_node_is_told_and_flushed(serve, node, vault, tmp_path):
    server = serve()
    words = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    store = ReplicatedStore.open(
        str(node.directory / "store.sqlite"),
        highwater.Key.from_recovery_words(words),
        VssServer(server.url, "wallet"),
        ReplicaOptions(allow_empty=True),
    )
    options = AgentOptions(
        rules=QUIET,
        replica=store,
        backup=BackupOptions(allow_no_barrier=True),
        data_directory=str(tmp_path / "agent"),
    )
    agent = Agent.start(vault, str(node.directory), options)
    server.kill()
    store.write(b"key", b"value")
    replica = agent.status().replica
    assert (replica.pending_writes, replica.backup_required) == (1, True)
    with pytest.raises(Error.Unavailable):
        agent.flush_replica(timedelta(milliseconds=50))
    server.start()
    flushed = agent.flush_replica(LONG)
    assert (flushed.pending_writes, flushed.backup_required) == (0, False)
    assert flushed.backup_exists and flushed.fenced is False and flushed.lag == timedelta(0)
    assert flushed.state == highwater.ReplicaState.OPEN
    assert flushed.acknowledged == flushed.written == store.status().written
    # The store is open in this process, by the copy of SQLite that captures it.
    assert agent.wait(agent.begin(Task.BACKUP).id).state == OperationState.COMPLETED

    # It is the node's to keep: the agent does not.
    store.release()
    del store
    options.replica = None
    assert agent.status().replica.last_error.kind == Kind.UNAVAILABLE
