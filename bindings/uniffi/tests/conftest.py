"""A vault, a node with a SQLite of its own, a process that writes it, and a server of stores."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import highwater

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
row = database.execute("SELECT coalesce(max(n), 0) FROM payment").fetchone()[0]
# A line for each row once it is durable, and one row for each line that is asked for; `*`: until the end of input.
import select
go_on = False
while True:
    if not go_on or select.select([sys.stdin], [], [], 0)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        go_on = line.strip() == "*"
    row += 1
    database.execute("INSERT INTO payment VALUES (?)", (row,))
    print(row, flush=True)
"""


class Node:
    """A node directory with a SQLite in write-ahead mode, and plain files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "payments.sqlite"
        (directory / "keys").mkdir(parents=True)
        (directory / "keys" / "identity").write_bytes(b"secret")
        (directory / "config").write_text("network = regtest\n")
        connection = sqlite3.connect(self.database)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE payment (n INTEGER PRIMARY KEY)")
        connection.commit()
        connection.close()

    def pay(self, count: int = 1) -> None:
        """Adds rows, by a connection that is closed again."""
        connection = sqlite3.connect(self.database)
        for _ in range(count):
            connection.execute("INSERT INTO payment SELECT coalesce(max(n), 0) + 1 FROM payment")
        connection.commit()
        connection.close()

    def writer(self) -> "Writer":
        return Writer(self.database)


class Writer:
    """Another process that has the database open, as a running node has."""

    def __init__(self, database: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(database)], stdin=pipe, stdout=pipe, text=True
        )

    def pay(self) -> int:
        """One more row; tells its number once it is durable."""
        self._ask("\n")
        return int(self.process.stdout.readline())

    def keep_paying(self) -> None:
        """Row after row, until it is ended."""
        self._ask("*\n")

    def end(self) -> int:
        """Ends it; tells the number of the last row."""
        told, _ = self.process.communicate()
        assert self.process.returncode == 0
        return int(told.split()[-1]) if told.split() else 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def _ask(self, line: str) -> None:
        self.process.stdin.write(line)
        self.process.stdin.flush()


def rows(database: Path) -> list[int]:
    """The rows of a database that passes SQLite's own check."""
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = [n for (n,) in connection.execute("SELECT n FROM payment ORDER BY n")]
    connection.close()
    return found


class Server:
    """`highwater vss serve` on a port of its own."""

    def __init__(self, program: str, directory: Path, arguments: list[str]) -> None:
        self.program, self.directory, self.arguments = program, directory, arguments
        self.address, self.process = "127.0.0.1:0", None

    def start(self) -> "Server":
        """Starts it, or starts it again with what its disk holds, on the port that it had."""
        serve = [self.program, "vss", "serve", "--data-dir", str(self.directory), "--json"]
        serve += ["--listen", self.address, *self.arguments]
        # The variable that names the program is none of its settings.
        variables = {name: value for name, value in os.environ.items() if name != "HIGHWATER_PROGRAM"}
        self.process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=variables)
        line = self.process.stdout.readline()
        assert line, "the server has not started"
        self.address = json.loads(line)["address"]
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://{self.address}/vss"


@pytest.fixture
def serve(tmp_path):
    """Starts servers of stores, by the program that HIGHWATER_PROGRAM names."""
    program = os.environ.get("HIGHWATER_PROGRAM")
    if not program:
        pytest.skip("SKIPPED: HIGHWATER_PROGRAM names no program `highwater` that serves stores")
    servers = []

    def start(*arguments: str) -> Server:
        directory = tmp_path / f"stores-{len(servers)}"
        servers.append(Server(program, directory, list(arguments)))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Nothing of the user's own is touched: the standard actor keeps its state here."""
    monkeypatch.setenv("HIGHWATER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("USER", "operator")


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path / "node")
    node.pay(3)
    return node


@pytest.fixture
def key(tmp_path):
    return highwater.Key.create_file(str(tmp_path / "vault.key"))


@pytest.fixture
def vault(tmp_path, key):
    return highwater.Vault.create(str(tmp_path / "vault"), key)
