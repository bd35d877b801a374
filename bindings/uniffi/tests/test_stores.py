"""A vault in an object store: a real server of S3's language on this machine."""

import os
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest
from conftest import rows

import highwater
from highwater import Error

# One write at a time, as the stores that it plays do: its own create-only puts are no such.
MOTO = """
import io, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
inner, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
def app(environ, start_response):
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return inner(environ, start_response)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with lock:
        return inner(environ, start_response)
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


def installed():
    """Where scripts/setup keeps what object stores are tested with."""
    home = os.environ.get("STORE_SERVERS")
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        home = f"{cache}/highwater/store-servers"
    return Path(home) / "moto" / "bin" / "python"


@pytest.fixture
def settings():
    """A server with a bucket, as settings of a vault."""
    python = installed()
    if not python.exists():
        pytest.skip(f"SKIPPED: {python} is missing; `scripts/setup` installs it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(python), "-c", MOTO, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "Running on" not in (line := process.stderr.readline()):
        assert line, "the server has ended"
    # It tells of each request, and would stop where nobody reads that.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    endpoint = f"http://127.0.0.1:{port}"
    make = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(make).close()
    yield {
        "aws_access_key_id": "test-key-id",
        "aws_secret_access_key": "test-secret",
        "aws_endpoint_url": endpoint,
        "aws_region": "us-east-1",
    }
    process.kill()
    process.communicate()


def test_a_vault_in_a_bucket_is_made_opened_and_restored_from(node, key, settings, tmp_path, monkeypatch):
    url = "s3://bucket/backups/node"
    vault = highwater.Vault.create(url, key, settings)
    assert vault.location() == url
    report = highwater.backup(vault, str(node.directory))
    with pytest.raises(Error.Conflict):
        highwater.Vault.create(url, key, settings)

    # From the environment, where no settings are given.
    for name, value in settings.items():
        monkeypatch.setenv(name.upper(), value)
    vault = highwater.Vault.open(url, key)
    [snapshot] = vault.snapshots()
    assert snapshot.id == report.snapshot and vault.check(read_data=True).ok
    highwater.restore(vault, str(tmp_path / "copy"))
    assert rows(tmp_path / "copy" / "payments.sqlite") == [1, 2, 3]

    # An agent opens it by the same settings, whatever the environment says by then.
    vault = highwater.Vault.open(url, key, settings)
    for name in settings:
        monkeypatch.setenv(name.upper(), "wrong")
    rules = highwater.AgentRules(backup_at_start=False)
    agent = highwater.Agent.start(
        vault, str(node.directory), highwater.AgentOptions(rules=rules)
    )
    operation = agent.wait(agent.begin(highwater.Task.BACKUP).id)
    assert operation.state == highwater.OperationState.COMPLETED


def test_what_a_store_does_not_take_is_told(key):
    with pytest.raises(Error.Input) as refused:
        highwater.Vault.open("s3://bucket/node", key, {"aws_colour": "blue"})
    assert "aws_colour" in refused.value.message
    with pytest.raises(Error.Input):
        highwater.Vault.open("/nowhere", key, {"aws_region": "us-east-1"})
    with pytest.raises(Error.Input) as unknown:
        highwater.Vault.open("ftp://host/node", key)
    assert "s3://BUCKET/PREFIX" in unknown.value.remedy
