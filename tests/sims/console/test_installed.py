"""Commands run by a Python that has not the project: one line that says so and what to run, and exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

COMMANDS = sorted(path.name for path in (REPOSITORY / "sims").glob("*.py"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_the_project_ends_in_one_line(name):
    # -S: without what is installed, -E: without PYTHONPATH; as an ordinary python3 has it.
    done = subprocess.run(
        [sys.executable, "-S", "-E", f"sims/{name}", "--some", "option"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: this Python ({sys.executable}) has not the project installed: run `make setup` in")
    assert line.endswith(f"then .venv/bin/python sims/{name} --some option")
