"""What every command has: options whose errors are one line, exit codes, and values that several commands check.

0    it is done                         1    `error: …`, one line: a ValueError or OSError
2    `error: …`, one line: a bad option 130  `stopped`: Ctrl-C (143 after SIGTERM, by `leaving`)
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, ParamSpec

from console import leaving

GOES_ON = "stopped; the same command goes on where it stood"
RUNTIMES = ("in-process", "flower")
P = ParamSpec("P")


class Parser(argparse.ArgumentParser):
    """The options of a command; a bad one is an error of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the options)\n")

    def add_run_config(self, words: str = "override settings; or a TOML file") -> None:
        """The option -c, as often as one likes (`simulation.apps.parsed`)."""
        self.add_argument("-c", "--run-config", action="append", default=[], metavar="'KEY=VALUE …'", help=words)

    def add_runtime(self) -> None:
        """Where cells run: --jobs, --runtime, and --device (`device_of`)."""
        self.add_argument(
            "--jobs",
            type=int,
            default=1,
            metavar="N",
            help="cells at a time, each on its part of the cores (default: 1)",
        )
        self.add_argument(
            "--runtime",
            default="in-process",
            choices=RUNTIMES,
            help="in a kept process, or each on Flower and Ray, equal bit for bit (default: %(default)s)",
        )
        self.add_argument("--device", default="auto", help="of every cell: cuda, cpu, … (default: %(default)s)")


def options_of(description: str | None, examples: str = "") -> Parser:
    """A parser whose help shows the command's docstring, and its examples, as they are written."""
    form = argparse.RawDescriptionHelpFormatter
    return Parser(description=description, epilog=examples, formatter_class=form)


def told(*, stopped: str = "stopped", failed: int = 1) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorates a command's `main`: what it raises is told in one line and becomes an exit code.

    Promise: no mistake ends in a traceback (tests/sims/console/test_command.py).

    Args:
        stopped: what is said after Ctrl-C.
        failed: the exit code of an error.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def told_main(*arguments: P.args, **options: P.kwargs) -> int:
            try:
                return main(*arguments, **options)
            except (ValueError, OSError, subprocess.SubprocessError) as problem:
                tell(problem)
                return failed
            except KeyboardInterrupt:
                print(stopped, file=sys.stderr)
                return 130

        return told_main

    return decorate


def tell(problem: object) -> None:
    """One line `error: …` on stderr."""
    print(f"error: {' '.join(str(problem).split()).removeprefix('error: ')}", file=sys.stderr)


def start(main: Callable[[], int]) -> NoReturn:
    """The end of a command's file: run it, and leave by one door, also on Ctrl-C and SIGTERM."""
    leaving.once()
    sys.exit(main())


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(part) for part in text.split(",")]


def at_least_one(options: argparse.Namespace, *names: str) -> None:
    """Raises ValueError where one of these options, whole numbers, is below 1."""
    for name in names:
        if (value := getattr(options, name.replace("-", "_"))) < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")


def device_of(options: argparse.Namespace) -> dict[str, str]:
    """--device as a setting of every cell; nothing where it is left to the machine."""
    return {} if options.device == "auto" else {"device": options.device}


def parts_of(text: str, parts: Sequence[str]) -> set[str]:
    """The parts of a bench that are asked for, with commas between them. Raises ValueError for an unknown one."""
    wanted = set(text.split(","))
    if unknown := wanted - set(parts):
        raise ValueError(f"parts must be among {', '.join(parts)}, got {', '.join(sorted(unknown))}")
    return wanted
