"""A replicated store over a real server: lost and found again, fenced, out of reach, and what is refused."""

import base64
import faulthandler
import json
import shutil
import socket
import sqlite3
import subprocess
import threading
from datetime import timedelta

import pytest
from conftest import rows

import highwater
from highwater import (
    ClassRule,
    Error,
    Kind,
    ReplicaClass,
    ReplicaOptions,
    ReplicatedStore,
    StartKind,
    VssAuth,
    VssServer,
    Write,
)

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_WORDS = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
# Longer than anything here takes, on whatever machine.
LONG = timedelta(minutes=5)
NEW = ReplicaOptions(allow_empty=True)


def words(of=WORDS):
    return highwater.Key.from_recovery_words(of)


def reach(server, store="wallet", **how):
    return VssServer(server.url, store, **how)


def test_a_store_comes_back_from_its_words_on_an_empty_disk(serve, tmp_path):
    server = serve()
    assert reach(server).holder(words()) is None
    rules = [
        ClassRule(prefix=b"channels/", replicated=ReplicaClass.REMOTE_FIRST),
        ClassRule(prefix=b"cache/", replicated=ReplicaClass.LOCAL_ONLY),
    ]
    options = ReplicaOptions(allow_empty=True, rules=rules, owner="alice@phone")
    store = ReplicatedStore.open(str(tmp_path / "one.sqlite"), words(), reach(server), options)
    assert store.started().kind == StartKind.NEW
    store.write(b"peers/1", b"10.0.0.7:9735")
    store.write(b"cache/1", b"can be had again")
    # The server has it when this returns, and, since writes go in order, what was written before.
    store.write(b"channels/1", bytes(range(256)))
    status = store.status()
    assert (status.pending_writes, status.acknowledged, status.values) == (0, status.written, 2)
    assert status.state == highwater.HeadState.OPEN and not status.fenced
    assert status.last_error is None and status.pending_since is None
    held = reach(server).holder(words())
    assert (held.owner, held.values, held.state) == ("alice@phone", 2, highwater.HeadState.OPEN)
    store.release()
    assert reach(server).holder(words()).state == highwater.HeadState.RELEASED
    assert store.read(b"peers/1") == b"10.0.0.7:9735"
    with pytest.raises(Error.Unavailable):
        store.write(b"peers/1", b"elsewhere")
    assert store.wait_for_end() is True

    # The machine is lost: nothing but the words comes to the next one.
    store = ReplicatedStore.open(str(tmp_path / "two.sqlite"), words(), reach(server))
    started = store.started()
    assert (started.kind, started.values) == (StartKind.HYDRATED, 2) and started.bytes > 256
    assert store.list() == [b"channels/1", b"peers/1"]
    assert store.read(b"channels/1") == bytes(range(256))
    assert store.read(b"cache/1") is None
    assert store.status().epoch == status.epoch + 1
    store.stop()

    # On the same disk it goes on, and nothing needs to be given up before.
    del store
    store = ReplicatedStore.open(str(tmp_path / "two.sqlite"), words(), reach(server))
    assert store.started().kind == StartKind.RESUMED


def test_transactions_removals_and_lists(serve, tmp_path):
    server = serve()
    store = ReplicatedStore.open(str(tmp_path / "store.sqlite"), words(), reach(server), NEW)
    store.commit([Write(key=b"a/%03d" % n, value=b"%d" % n) for n in range(600)])
    store.commit([Write(key=b"a/000"), Write(key=b"b", value=b"")])
    store.remove(b"a/001")
    store.remove(b"a/002", lazy=True)
    store.remove(b"was never there")
    assert store.list(b"a/") == [b"a/%03d" % n for n in range(3, 600)]
    assert store.list(b"a/", after=b"a/100", limit=300)[-1] == b"a/400"
    assert store.list(limit=0) == []
    [row] = store.scan(b"b")
    assert (row.key, row.value) == (b"b", b"")
    assert len(store.scan()) == 598
    store.flush(LONG)
    assert store.status().values == 598


def test_a_second_owner_fences_the_first(serve, tmp_path):
    server = serve()
    first = ReplicatedStore.open(
        str(tmp_path / "one.sqlite"), words(), reach(server), ReplicaOptions(allow_empty=True, owner="first@host")
    )
    first.write(b"balance", b"7")
    first.flush(LONG)
    with pytest.raises(Error.Fenced) as refused:
        ReplicatedStore.open(str(tmp_path / "two.sqlite"), words(), reach(server))
    assert "first@host" in refused.value.message and "take over" in refused.value.remedy
    with pytest.raises(Error.Input):
        blank = ReplicaOptions(take_over=" ")
        ReplicatedStore.open(str(tmp_path / "two.sqlite"), words(), reach(server), blank)
    assert first.wait_for_end(timeout=timedelta(0)) is False

    told = []

    def wait():
        try:
            told.append(first.wait_for_end())
        except Error as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    burnt = ReplicaOptions(take_over="the first machine has burnt", owner="second@host")
    second = ReplicatedStore.open(str(tmp_path / "two.sqlite"), words(), reach(server), burnt)
    assert second.started().kind == StartKind.HYDRATED and second.read(b"balance") == b"7"

    # It learns of it at its next write, and from then on nothing of it gets through.
    first.write(b"balance", b"8")
    with pytest.raises(Error.Fenced) as fenced:
        first.flush(LONG)
    assert fenced.value.kind() == Kind.FENCED
    waiting.join()
    [error] = told
    assert isinstance(error, Error.Fenced)
    assert "second@host" in error.message and "the first machine has burnt" in error.message
    status = first.status()
    assert status.fenced and status.last_error.kind == Kind.FENCED
    assert "second@host" in status.last_error.text
    with pytest.raises(Error.Fenced):
        first.write(b"balance", b"9")
    second.flush(LONG)
    assert second.read(b"balance") == b"7"
    held = reach(server).holder(words())
    assert (held.owner, held.reason) == ("second@host", "the first machine has burnt")


def test_a_flush_that_times_out_goes_on_behind(serve, tmp_path):
    server = serve()
    store = ReplicatedStore.open(str(tmp_path / "store.sqlite"), words(), reach(server), NEW)
    server.kill()
    store.write(b"payment/1", b"sent")
    assert store.read(b"payment/1") == b"sent"
    with pytest.raises(Error.Unavailable):
        store.flush(timedelta(milliseconds=50))
    status = store.status()
    assert status.pending_writes == 1 and status.pending_bytes > 0
    assert status.pending_since.tzinfo is not None and status.acknowledged < status.written

    server.start()
    store.flush(LONG)
    status = store.status()
    assert (status.pending_writes, status.values) == (0, 1)


class Line(threading.Thread):
    """A line to a server that goes through this interpreter: where a call keeps its lock, nothing gets through."""

    def __init__(self, server):
        super().__init__(daemon=True)
        host, port = server.address.split(":")
        self.server, self.carried = (host, int(port)), 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/vss"

    def run(self):
        while True:
            here, _ = self.listening.accept()
            there = socket.create_connection(self.server)
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
                self.carried += len(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def __enter__(self):
        # Where a call keeps the interpreter's lock, all of this stands still: then this ends the process.
        faulthandler.dump_traceback_later(300, exit=True)
        self.start()
        return self

    def __exit__(self, *_):
        faulthandler.cancel_dump_traceback_later()


def test_the_interpreter_runs_on_while_a_store_waits_for_its_server(serve, tmp_path):
    server = serve()
    with Line(server) as line:
        options = ReplicaOptions(allow_empty=True, otherwise=ReplicaClass.REMOTE_FIRST)
        store = ReplicatedStore.open(
            str(tmp_path / "one.sqlite"), words(), VssServer(line.url, "wallet"), options
        )
        for number in range(10):
            before = line.carried
            store.write(b"key", b"%d" % number)
            assert line.carried > before
        store.remove(b"key")
        store.flush(LONG)
        store.release()
        store = ReplicatedStore.open(
            str(tmp_path / "two.sqlite"), words(), VssServer(line.url, "wallet"), options
        )
        store.release()


def test_what_is_missing_or_wrong_is_told(serve, tmp_path):
    server = serve("--auth", "none")
    place = str(tmp_path / "store.sqlite")
    anonymous = reach(server, auth=VssAuth.ANONYMOUS)
    with pytest.raises(Error.NotFound) as missing:
        ReplicatedStore.open(place, words(), anonymous)
    assert "(`ReplicaOptions.allow_empty`)" in missing.value.remedy
    with pytest.raises(Error.Input) as guessable:
        ReplicatedStore.open(place, highwater.Key.from_passphrase("correct horse"), anonymous)
    assert "Key.from_recovery_words" in guessable.value.remedy
    with pytest.raises(Error.Input) as plain:
        ReplicatedStore.open(place, words(), VssServer("http://vss.example/vss", "wallet"))
    assert "`allow_http`" in plain.value.remedy
    with pytest.raises(Error.Input):
        VssServer(server.url, "wallet", auth=VssAuth.TOKEN)
    with pytest.raises(Error.Input):
        VssServer(server.url, "wallet", auth=VssAuth.SIGNATURE, token="secret")
    assert "secret" not in repr(VssServer(server.url, "wallet", token="secret"))

    store = ReplicatedStore.open(place, words(), anonymous, NEW)
    store.write(b"key", b"value")
    store.release()
    with pytest.raises(Error.Denied):
        ReplicatedStore.open(str(tmp_path / "other.sqlite"), words(OTHER_WORDS), anonymous)
    server.kill()
    with pytest.raises(Error.Unavailable) as away:
        ReplicatedStore.open(str(tmp_path / "third.sqlite"), words(), anonymous)
    assert server.url in str(away.value)


def token(directory, **claims):
    """A token as a login service makes it, and the file of the key that it is verified with."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("SKIPPED: there is no openssl, which signs the token")
    private, public = str(directory / "private.pem"), str(directory / "public.pem")
    made = [openssl, "genpkey", "-quiet", "-algorithm", "RSA", "-out", private]
    subprocess.run(made, check=True)
    subprocess.run([openssl, "pkey", "-in", private, "-pubout", "-out", public], check=True)

    def part(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    claims = {"sub": "alice", "exp": 4102444800, **claims}
    signed = part(json.dumps({"alg": "RS256", "typ": "JWT"}).encode()) + b"."
    signed += part(json.dumps(claims).encode())
    signing = [openssl, "dgst", "-sha256", "-sign", private]
    signature = subprocess.run(signing, input=signed, check=True, capture_output=True).stdout
    return (signed + b"." + part(signature)).decode(), public


def test_a_token_opens_the_server_that_asks_for_one(serve, tmp_path):
    good, public = token(tmp_path)
    server = serve("--auth", "jwt", "--jwt-key", public)
    place = str(tmp_path / "store.sqlite")
    for wrong in (reach(server, token=good[:-2]), reach(server)):
        with pytest.raises(Error.Denied):
            ReplicatedStore.open(place, words(), wrong, NEW)
    store = ReplicatedStore.open(place, words(), reach(server, token=good), NEW)
    store.write(b"key", b"value")
    store.flush(LONG)


def test_one_connection_at_a_time_has_the_database_of_a_store(serve, tmp_path):
    server = serve()
    place = str(tmp_path / "store.sqlite")
    connection = sqlite3.connect(place)
    connection.execute("CREATE TABLE other (n INTEGER)")
    with pytest.raises(Error.Conflict) as refused:
        ReplicatedStore.open(place, words(), reach(server), NEW)
    assert refused.value.entry == place
    connection.close()
    store = ReplicatedStore.open(place, words(), reach(server), NEW)
    with pytest.raises(Error.Conflict):
        ReplicatedStore.open(place, words(), reach(server))
    store.write(b"key", b"value")
    store.release()
    del store
    ReplicatedStore.open(place, words(), reach(server))


def test_the_node_of_a_store_is_backed_up_and_restored_with_it(serve, node, vault, tmp_path):
    server = serve()
    place = str(node.directory / "store.sqlite")
    store = ReplicatedStore.open(place, words(), reach(server), NEW)
    store.write(b"key", b"value")
    # It is open in this process by the very copy of SQLite that captures it.
    highwater.backup(vault, str(node.directory), highwater.BackupOptions(allow_no_barrier=True))
    store.write(b"key", b"later")
    connection = sqlite3.connect(place)
    with pytest.raises(Error.Conflict) as refused:
        highwater.backup(vault, str(node.directory))
    assert refused.value.entry == "store.sqlite"
    connection.close()

    copy = tmp_path / "copy"
    highwater.restore(vault, str(copy))
    assert rows(copy / "payments.sqlite") == [1, 2, 3]
    connection = sqlite3.connect(copy / "store.sqlite")
    [[value]] = connection.execute("SELECT value FROM highwater_data WHERE key = ?", (b"key",))
    assert value == b"value"
    connection.close()
    # What was restored is an old state of the owner's, and may not go on.
    store.flush(LONG)
    with pytest.raises(Error.Fenced):
        ReplicatedStore.open(str(copy / "store.sqlite"), words(), reach(server))
