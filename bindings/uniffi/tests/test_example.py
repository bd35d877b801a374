"""The examples are run as their readers would run them."""

import subprocess
import sys
from pathlib import Path

from conftest import rows

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "backup.py"
REPLICA = EXAMPLES / "replica.py"


def test_the_example_backs_up_and_restores_in_twenty_lines(node, tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) <= 20
    places = [str(node.directory), str(tmp_path / "safe"), str(tmp_path / "copy")]
    run = subprocess.run(
        [sys.executable, str(EXAMPLE), *places], check=True, capture_output=True, text=True
    )
    assert f"bytes are in {tmp_path / 'copy'}" in run.stdout
    assert rows(tmp_path / "copy" / "payments.sqlite") == [1, 2, 3]


def test_a_wallet_comes_back_from_its_words_in_forty_lines(serve, tmp_path):
    assert len(REPLICA.read_text().splitlines()) <= 40
    url, words = serve().url, tmp_path / "words"
    words.write_text("legal winner thank year wave sausage worth useful legal winner thank yellow\n")

    def run(disk, *more):
        asked = [sys.executable, str(REPLICA), url, str(words), str(tmp_path / disk), *more]
        return subprocess.run(asked, capture_output=True, text=True)

    refused = run("first", "channels/1", "open")
    assert refused.returncode != 0 and "say that this is a new node" in refused.stderr
    first = run("first", "channels/1", "open", "new")
    assert first.stdout.splitlines() == ["NEW: 0 values came from the server", "channels/1 = open"]
    # The first disk is lost.
    second = run("second", "peers/1", "10.0.0.7")
    assert second.stdout.splitlines() == [
        "HYDRATED: 1 values came from the server",
        "channels/1 = open",
        "peers/1 = 10.0.0.7",
    ]
    # The first one turns up again: its state is old, and it says so.
    third = run("first", "channels/1", "closed")
    assert third.returncode != 0 and "somebody else has these words in use" in third.stderr


def test_the_readme_shows_the_examples():
    readme = (EXAMPLES.parent / "README.md").read_text()
    for example in (EXAMPLE, REPLICA):
        assert example.read_text() in readme
