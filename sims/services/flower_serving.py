"""Flower's command line as a process that runs command after command: its import, a second, is paid once.

    python flower_serving.py MARK

A line of input is a command, a JSON list of words as `flwr` takes them; what it prints is followed by MARK and its exit
code. It runs by its path, and imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
import traceback

import click
from flwr.cli.app import app


def run(words: list[str]) -> int:
    """One command; its exit code."""
    try:
        code = app(words, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as problem:
        problem.show(sys.stdout)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception:  # whatever it raises is told; the next command may do better
        traceback.print_exc(file=sys.stdout)
    return 1


def main() -> None:
    mark = sys.argv[1]
    for line in sys.stdin:
        code = run(json.loads(line))
        print(f"{mark} {code}", flush=True)


if __name__ == "__main__":
    main()
