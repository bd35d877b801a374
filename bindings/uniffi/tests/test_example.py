"""The example is run as its reader would run it."""

import subprocess
import sys
from pathlib import Path

from conftest import rows

EXAMPLE = Path(__file__).parents[1] / "examples" / "backup.py"


def test_the_example_backs_up_and_restores_in_twenty_lines(node, tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) <= 20
    places = [str(node.directory), str(tmp_path / "safe"), str(tmp_path / "copy")]
    run = subprocess.run(
        [sys.executable, str(EXAMPLE), *places], check=True, capture_output=True, text=True
    )
    assert f"bytes are in {tmp_path / 'copy'}" in run.stdout
    assert rows(tmp_path / "copy" / "payments.sqlite") == [1, 2, 3]


def test_the_readme_shows_the_example():
    readme = (EXAMPLE.parents[1] / "README.md").read_text()
    assert EXAMPLE.read_text() in readme
