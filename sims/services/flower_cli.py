"""Flower's command line, loaded once: `flwr run`, `flwr log` and `flwr ls` of one run are asked of one process."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console import leaving

_SERVING = Path(__file__).with_name("flower_serving.py")


class FlowerCli:
    """The parent's end of such a process; made by `flower_cli`. One command at a time."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self._process, self._mark = process, mark

    def lines(self, *words: str) -> Iterator[str]:
        """What a command prints, line by line as it comes; it ends early where the process is killed.

        Promise: a text that a command prints does not end it (tests/sims/services/test_flower_cli.py).
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        for line in self._process.stdout:
            last, mark, _ = line.partition(self._mark)
            if last:
                yield last
            if mark:
                return

    def json(self, *words: str) -> dict[str, Any]:
        """The answer of a command that is asked for JSON. Raises ValueError with its own words where it failed."""
        return answer("".join(self.lines(*words, "--format", "json")), words[0])

    def kill(self) -> None:
        """End it, also in the middle of a command."""
        self._process.kill()


@contextmanager
def flower_cli(environment: Mapping[str, str]) -> Iterator[FlowerCli]:
    """Such a process; it ends with the context. It says which SuperLink is meant by its environment."""
    mark = secrets.token_hex(16)  # what a log quotes cannot know it
    command = [sys.executable, str(_SERVING), mark]
    with leaving.child(command, env=environment, stdin=subprocess.PIPE, new_session=True) as process:
        try:
            yield FlowerCli(process, mark)
        finally:
            process.kill()


def answer(said: str, command: str) -> dict[str, Any]:
    """The JSON in what one of Flower's commands printed. Raises ValueError where it failed, in its own words."""
    try:
        found, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    except ValueError:
        raise ValueError(said.strip()[-800:] or f"flwr {command} failed") from None
    if found.get("success") is False:
        raise ValueError(str(found.get("error-message") or found))
    return dict(found)
