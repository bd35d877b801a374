"""The whole circle: back up a node that is written, check, restore, compare; and what is refused."""

import faulthandler
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import rows

import highwater
from highwater import BackupOptions, Error, Guard, GuardKind, Kind, RestoreOptions


class Recorder(highwater.Progress):
    """Progress that is written down."""

    def __init__(self):
        self.stages, self.read, self.files, self.threads = [], 0, [], set()

    def stage(self, name, bytes_total):
        self.stages.append((name, bytes_total))

    def bytes(self, count):
        self.threads.add(threading.get_ident())
        self.read += count

    def file(self, path):
        self.files.append(path)


def test_a_node_that_is_written_is_backed_up_checked_and_restored(node, vault, tmp_path):
    with node.writer() as writer:
        before = writer.pay()
        writer.keep_paying()
        options = BackupOptions(node="alice", marks={"height": 7}, tags={"why": "test"})
        report = highwater.backup(vault, str(node.directory), options)
        after = writer.end()
    assert (report.node, report.seq, report.parent) == ("alice", 1, None)
    assert report.marks == {"height": 7}
    assert report.changes.added == 3 and report.changes.changed == 0
    assert {part.name: part.engine for part in report.parts} == {
        "payments.sqlite": "sqlite",
        "files": "files",
    }
    assert report.warnings == []

    [snapshot] = vault.snapshots("alice")
    assert snapshot.id == report.snapshot
    assert snapshot.tags == {"why": "test"}
    assert snapshot.level == highwater.Level.SEALED
    assert snapshot.time.tzinfo is not None

    checked = vault.check(read_data=True)
    assert checked.ok and checked.snapshots == 1 and checked.units > 0 and checked.faults == []

    copy = tmp_path / "copy"
    restored = highwater.restore(vault, str(copy))
    assert restored.snapshot == report.snapshot and Path(restored.target) == copy
    assert restored.quarantined == 0 and restored.kept is None
    for name in ("config", "keys/identity"):
        assert (copy / name).read_bytes() == (node.directory / name).read_bytes()
    found = rows(copy / "payments.sqlite")
    # All that was there before, nothing that came after, and no gap.
    assert found == list(range(1, found[-1] + 1))
    assert before <= found[-1] <= after


def test_what_did_not_change_is_not_stored_again(node, vault):
    first = highwater.backup(vault, str(node.directory))
    node.pay()
    second = highwater.backup(vault, str(node.directory))
    assert second.parent == first.snapshot and second.seq == 2
    assert (second.changes.changed, second.changes.unchanged) == (1, 2)
    assert second.bytes_stored < first.bytes_stored
    assert [snapshot.seq for snapshot in vault.snapshots()] == [1, 2]


def test_a_restore_can_be_tested(node, vault, tmp_path):
    report = highwater.backup(vault, str(node.directory))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert highwater.run_restore_test(vault, str(scratch)) == []
    assert list(scratch.iterdir()) == []
    [snapshot] = vault.snapshots()
    assert (snapshot.id, snapshot.level) == (report.snapshot, highwater.Level.RESTORED)


def test_what_is_excluded_is_left_out(node, vault, tmp_path):
    options = BackupOptions(exclude=["config"], effort=highwater.Effort.DENSE)
    highwater.backup(vault, str(node.directory), options)
    highwater.restore(vault, str(tmp_path / "copy"))
    assert not (tmp_path / "copy" / "config").exists()
    assert (tmp_path / "copy" / "keys").is_dir()


def test_a_guarded_node_is_withheld_until_it_is_released(node, vault, tmp_path):
    report = highwater.backup(
        vault, str(node.directory), BackupOptions(guard=GuardKind.DATABASES)
    )
    assert report.guard == GuardKind.DATABASES
    copy = tmp_path / "copy"
    plan = highwater.plan_restore(vault, str(copy))
    assert plan.hold == GuardKind.DATABASES and plan.reasons
    assert highwater.restore(vault, str(copy)).quarantined == 1
    # A directory stands in its place, so that nothing opens it, and nothing makes a new one.
    assert (copy / "payments.sqlite").is_dir()

    guard = Guard(str(copy))
    standing = guard.show()
    assert standing.snapshot == report.snapshot and standing.quarantined == 1
    assert standing.cause == highwater.StandingCause.RESTORE
    [held] = guard.list()
    assert (held.id, held.state, held.holds) == (
        "payments.sqlite",
        highwater.HeldState.WITHHELD,
        True,
    )
    with pytest.raises(Error.Quarantined) as refused:
        guard.wait_to_start(timeout=timedelta(0))
    assert "Guard.release" in refused.value.remedy
    with pytest.raises(Error.Input):
        guard.release(" ")
    with pytest.raises(Error.NotFound):
        guard.release("it is not there", which="other.sqlite")
    assert (copy / "payments.sqlite").is_dir()

    assert not any(held.holds for held in guard.release("all channels are closed"))
    assert rows(copy / "payments.sqlite") == [1, 2, 3]
    guard.wait_to_start()


def test_a_kind_that_is_known_is_held_back_whatever_was_asked_for(vault, tmp_path):
    validator = tmp_path / "validator"
    (validator / "data").mkdir(parents=True)
    (validator / "config").mkdir()
    state = '{"height": "7", "round": 0, "step": 3}'
    (validator / "data" / "priv_validator_state.json").write_text(state)
    (validator / "config" / "priv_validator_key.json").write_text("{}")
    for options in (None, BackupOptions()):
        report = highwater.backup(vault, str(validator), options)
        assert (report.kinds, report.guard) == (["cometbft"], GuardKind.DATABASES)
        assert report.marks == {"height": 7}
    assert highwater.restore(vault, str(tmp_path / "copy")).quarantined == 1
    assert (tmp_path / "copy" / "data" / "priv_validator_state.json").is_dir()


def test_who_says_that_a_node_needs_no_guard_says_why(node, vault, tmp_path):
    highwater.backup(vault, str(node.directory), BackupOptions(guard=GuardKind.DATABASES))
    with pytest.raises(Error.Input) as refused:
        highwater.backup(vault, str(node.directory), BackupOptions(unguarded=" "))
    assert "reason" in refused.value.message
    # It is remembered by the node, until somebody says otherwise.
    assert highwater.backup(vault, str(node.directory)).guard == GuardKind.DATABASES
    report = highwater.backup(vault, str(node.directory), BackupOptions(unguarded="no money"))
    assert report.guard is None
    assert vault.snapshots()[-1].tags == {"unguarded": "no money"}


def test_errors_have_kinds_and_say_what_can_be_done(node, vault, key, tmp_path):
    with pytest.raises(Error) as missing:
        highwater.Vault.open(str(tmp_path / "nowhere"), key)
    error = missing.value
    assert isinstance(error, Error.NotFound) and error.kind() == Kind.NOT_FOUND
    assert error.entry == str(tmp_path / "nowhere") and error.remedy is None
    assert str(error) == error.message and error.entry in error.message
    assert not isinstance(error, Error.Conflict)

    (tmp_path / "empty").mkdir()
    with pytest.raises(Error.NotFound) as missing:
        highwater.Vault.open(str(tmp_path / "empty"), key)
    error = missing.value
    assert "(`Vault.create`)" in error.remedy
    assert str(error) == f"{error.entry}: {error.message} ({error.remedy})"

    with pytest.raises(Error.Conflict):
        highwater.Vault.create(str(tmp_path / "vault"), key)
    with pytest.raises(Error.Conflict):
        highwater.Key.create_file(str(tmp_path / "vault.key"))
    with pytest.raises(Error.Input):
        highwater.Key.from_recovery_words("these are no words")
    with pytest.raises(Error.NotFound):
        highwater.backup(vault, str(tmp_path / "nothing"))
    with pytest.raises(Error.NotFound):
        highwater.restore(vault, str(tmp_path / "copy"))
    os.chmod(tmp_path / "vault.key", 0o644)
    with pytest.raises(Error.Denied):
        highwater.Key.from_file(str(tmp_path / "vault.key"))


def test_another_key_opens_nothing(vault, tmp_path):
    with pytest.raises(Error.Denied):
        highwater.Vault.open(
            vault.location(), highwater.Key.from_passphrase("correct horse battery staple")
        )
    again = highwater.Vault.open(
        vault.location(), highwater.Key.from_file(str(tmp_path / "vault.key"))
    )
    assert again.id() == vault.id()


def test_recovery_words_open_a_vault(key, tmp_path):
    created = highwater.create_vault_with_recovery(str(tmp_path / "other"), key)
    assert len(created.recovery_words.split()) == 24
    words = highwater.Key.from_recovery_words(created.recovery_words)
    assert highwater.Vault.open(str(tmp_path / "other"), words).id() == created.vault.id()


def test_a_restore_over_a_node_keeps_it_and_is_undone(node, vault):
    highwater.backup(vault, str(node.directory))
    node.pay()
    with pytest.raises(Error.Conflict) as refused:
        highwater.restore(vault, str(node.directory))
    assert "RestoreOptions.over_existing" in refused.value.remedy
    [refusal] = highwater.plan_restore(vault, str(node.directory)).refusals
    assert refusal == str(refused.value)
    assert rows(node.database) == [1, 2, 3, 4]

    over = RestoreOptions(over_existing=True)
    plan = highwater.plan_restore(vault, str(node.directory), over)
    assert plan.exchange == highwater.Exchange.WHOLE and plan.refusals == []
    report = highwater.restore(vault, str(node.directory), over)
    assert Path(report.kept).is_dir() and report.kept == plan.keep
    assert rows(node.database) == [1, 2, 3]
    [kept] = highwater.kept(str(node.directory))
    assert (kept.number, kept.restored, kept.path) == (1, False, report.kept)

    assert highwater.recover(str(node.directory)) == highwater.Outcome.NOTHING
    assert highwater.rollback(str(node.directory)) == highwater.Outcome.OLD
    assert rows(node.database) == [1, 2, 3, 4]
    again = highwater.rollback(str(node.directory), highwater.Undo.ROLLBACK)
    assert again == highwater.Outcome.NEW
    assert rows(node.database) == [1, 2, 3]


def test_there_is_nothing_to_undo_where_nothing_was_restored(node):
    with pytest.raises(Error.NotFound):
        highwater.rollback(str(node.directory))


def test_damage_is_found_by_a_check_and_refused_by_a_restore(node, vault, tmp_path):
    highwater.backup(vault, str(node.directory))
    [pack] = [path for path in (tmp_path / "vault" / "packs").rglob("*") if path.is_file()]
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    report = vault.check(read_data=True)
    assert not report.ok and report.faults[0].problem
    assert report.faults[0].snapshots == [vault.snapshots()[0].id]
    again = highwater.Vault.open(
        vault.location(), highwater.Key.from_file(str(tmp_path / "vault.key"))
    )
    with pytest.raises(Error.Corrupt):
        highwater.restore(again, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_snapshot_goes_to_another_vault_as_an_archive(node, vault, key, tmp_path):
    first = highwater.backup(vault, str(node.directory))
    node.pay()
    second = highwater.backup(vault, str(node.directory))
    one, two = str(tmp_path / "one.hwa"), str(tmp_path / "two.hwa")
    exported = vault.export_archive(first.snapshot, one)
    assert exported.bytes == os.path.getsize(one) and exported.since is None
    assert vault.export_archive("latest", two, since=first.snapshot).since == first.snapshot
    with pytest.raises(Error.Conflict):
        vault.export_archive("latest", two)

    with pytest.raises(Error.Input):
        vault.import_archives([])
    report = vault.import_archives([one, two])
    assert [imported.already_there for imported in report.snapshots] == [True, True]
    assert [imported.snapshot for imported in report.snapshots] == [
        first.snapshot,
        second.snapshot,
    ]
    other = highwater.Vault.create(str(tmp_path / "other"), key)
    with pytest.raises(Error.Input):
        other.import_archives([one])


def test_progress_tells_stages_bytes_and_files(node, vault, tmp_path):
    told = Recorder()
    report = highwater.backup(vault, str(node.directory), progress=told)
    assert ("capture", report.bytes_total) in told.stages
    assert told.stages[-1][0] == "commit"
    assert told.read == report.bytes_total
    assert sorted(told.files) == ["config", "keys/identity", "payments.sqlite"]

    told = Recorder()
    highwater.restore(vault, str(tmp_path / "copy"), progress=told)
    assert [name for name, _ in told.stages][-1] == "exchange"


class Waiting(Recorder):
    """Progress that waits for another thread of Python's, which counts meanwhile."""

    def __init__(self):
        super().__init__()
        self.asked, self.counted, self.count = threading.Event(), threading.Event(), 0
        self.other = threading.Thread(target=self.counting)

    def counting(self):
        self.asked.wait()
        for _ in range(1000):
            self.count += 1
        self.counted.set()

    def bytes(self, count):
        super().bytes(count)
        self.asked.set()
        self.counted.wait()

    def __enter__(self):
        # Where a call keeps the interpreter's lock, all of this stands still: then this ends the process.
        faulthandler.dump_traceback_later(300, exit=True)
        self.other.start()
        return self

    def __exit__(self, *_):
        self.asked.set()
        self.other.join()
        faulthandler.cancel_dump_traceback_later()


def test_the_interpreter_runs_on_while_a_call_works(node, vault, tmp_path):
    here = threading.get_ident()
    with Waiting() as told:
        highwater.backup(vault, str(node.directory), progress=told)
        assert told.count == 1000
    # These two call back from threads of the library's, which need the lock that this thread would keep.
    with Waiting() as told:
        vault.check(read_data=True, progress=told)
        assert told.count == 1000 and here not in told.threads
    with Waiting() as told:
        highwater.restore(vault, str(tmp_path / "copy"), progress=told)
        assert told.count == 1000 and here not in told.threads


def test_a_call_is_cancelled_and_leaves_nothing(node, vault, tmp_path):
    cancel = highwater.Cancel()

    class Stopping(Recorder):
        def file(self, path):
            cancel.cancel()

    with pytest.raises(Error.Interrupted):
        highwater.backup(vault, str(node.directory), progress=Stopping(), cancel=cancel)
    assert cancel.is_cancelled()
    assert vault.snapshots() == []
    # It stops what comes after as well, and nothing that it was not given to.
    with pytest.raises(Error.Interrupted):
        highwater.backup(vault, str(node.directory), cancel=cancel)
    highwater.backup(vault, str(node.directory))
    with pytest.raises(Error.Interrupted):
        highwater.restore(vault, str(tmp_path / "copy"), cancel=cancel)
    assert not (tmp_path / "copy").exists()


def test_a_callback_that_raises_stops_the_call_and_is_told(node, vault):
    class Raising(Recorder):
        def file(self, path):
            raise ValueError("the screen is full")

    cancel = highwater.Cancel()
    with pytest.raises(Error.Interrupted) as stopped:
        highwater.backup(vault, str(node.directory), progress=Raising(), cancel=cancel)
    assert "the screen is full" in stopped.value.message
    assert not cancel.is_cancelled()
    assert vault.snapshots() == []


class Holding(highwater.Writers):
    """Writers of a node that lives in this process."""

    def __init__(self, marks=None):
        self.marks, self.calls = marks, []

    def hold(self):
        self.calls.append("hold")
        if self.marks is None:
            raise highwater.CallbackError.Failed("the node is about to stop")
        return self.marks

    def go_on(self):
        self.calls.append("go on")


def test_the_node_is_held_while_its_instant_is_taken(node, vault):
    holding = Holding({"height": 21})
    report = highwater.backup(vault, str(node.directory), BackupOptions(writers=holding))
    assert holding.calls == ["hold", "go on"]
    assert report.marks == {"height": 21}

    holding = Holding()
    with pytest.raises(Error) as failed:
        highwater.backup(vault, str(node.directory), BackupOptions(writers=holding))
    assert "the node is about to stop" in str(failed.value)
    assert holding.calls == ["hold"]
    assert len(vault.snapshots()) == 1


LOCKED = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
try:
    database.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("not locked")
"""


def ask_for_the_lock(database):
    """What another process that wants to write is told."""
    asked = [sys.executable, "-c", LOCKED, str(database)]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_that_this_process_has_open_is_not_backed_up(node, vault, mode):
    connection = sqlite3.connect(node.database, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("BEGIN IMMEDIATE")
    assert ask_for_the_lock(node.database) == "database is locked"
    with pytest.raises(Error.Conflict) as refused:
        highwater.backup(vault, str(node.directory))
    assert refused.value.entry == "payments.sqlite"
    assert "back up from another process" in refused.value.remedy
    assert vault.snapshots() == []
    # What a capture would have dropped.
    assert ask_for_the_lock(node.database) == "database is locked"
    connection.execute("ROLLBACK")

    # That another process has it open is what backups are made for.
    script = "import sys, highwater as h; h.backup(h.Vault.open(sys.argv[1], h.Key.from_file(sys.argv[2])), sys.argv[3])"
    key = str(node.directory.parent / "vault.key")
    subprocess.run(
        [sys.executable, "-c", script, vault.location(), key, str(node.directory)], check=True
    )
    assert len(vault.snapshots()) == 1
    connection.close()
    highwater.backup(vault, str(node.directory))


def test_a_directory_in_which_this_process_has_a_file_open_is_not_exchanged(node, vault):
    highwater.backup(vault, str(node.directory))
    over = RestoreOptions(over_existing=True)
    connection = sqlite3.connect(node.database)
    with pytest.raises(Error.Conflict) as refused:
        highwater.restore(vault, str(node.directory), over)
    assert refused.value.entry.endswith("payments.sqlite")
    [refusal] = highwater.plan_restore(vault, str(node.directory), over).refusals
    assert refusal == str(refused.value)
    connection.close()
    highwater.restore(vault, str(node.directory), over)
    connection = sqlite3.connect(node.database)
    with pytest.raises(Error.Conflict):
        highwater.rollback(str(node.directory))
    connection.close()
    highwater.rollback(str(node.directory))


def test_the_actor_is_the_user_of_this_machine_or_is_given(node, vault, tmp_path):
    standard = highwater.standard_actor()
    assert standard.state_directory == str(tmp_path / "state")
    assert standard.name.startswith("operator@")
    actor = highwater.Actor(state_directory=str(tmp_path / "elsewhere"), name="agent@node")
    highwater.backup(vault, str(node.directory), BackupOptions(actor=actor))
    assert (tmp_path / "elsewhere" / "writer").is_file()
    # Another installation does not own the node.
    with pytest.raises(Error.Fenced):
        highwater.backup(vault, str(node.directory))
