"""Does a run survive? Kill one at random, again and again, and go on with it each time.

    python sims/kill.py --kills 50 --json kills.json

A small run with a tiny base is made once without a break. Then it is begun again for each kill, killed by SIGKILL, and
gone on with (`resume`); what was finished must not be done again, and the end must be that of the unbroken run, bit for
bit. What is killed, and when, is drawn by --seed:

    process, mid-message, mid-write                  of a run in one process: at a moment, at a message, in a write
    actor, simulation, superlink, command, group     of a run on Flower and Ray; the simulation holds the ServerApp

Exits 1 where a finished round or user was lost, a run ended otherwise in silence, or something was left behind.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from bisect import bisect
from dataclasses import asdict
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here

import fed  # noqa: F401  threads are bounded before torch is loaded

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from console import terminal
from console.command import Parser, at_least_one, options_of, start, told
from console.files import write_json
from kills import in_process, on_flower
from kills.trial import DIFFERS, EQUAL, LOUD, MISSED, SILENT, Outcome, finished, lost, result, table
from rich.progress import Progress
from simulation.apps import settings

from fed.base.random_base import save_tiny

RUN = "1"  # a folder's name where there is no Flower to draw one
KINDS = (*in_process.KINDS, *on_flower.KINDS)


@told()
def main() -> int:
    options = _options().parse_args()
    at_least_one(options, "kills")
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"--kinds must be among {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    draw = random.Random(options.seed)
    outcomes: list[Outcome] = []
    console = terminal.console()
    with tempfile.TemporaryDirectory(prefix="perfit-kill-") as scratch, Progress(console=console) as progress:
        bench = Bench(Path(scratch), draw)
        bar = progress.add_task("the unbroken run", total=options.kills)
        until = time.monotonic() + options.minutes * 60
        for number in range(options.kills):
            if time.monotonic() > until:
                break
            kind = kinds[number % len(kinds)]
            progress.update(bar, description=f"kill {number + 1}: {kind}")
            outcomes.append(outcome := bench.kill(kind))
            progress.console.print(
                f"{kind} {outcome.at}: {outcome.ended}{' · ' + outcome.line if outcome.line else ''}"
            )
            progress.update(bar, advance=1)
            if options.json:  # after every kill: the last may be an hour away
                write_json(options.json, {"seed": options.seed, "kills": [asdict(each) for each in outcomes]})
    console.print(table(outcomes))
    if len(outcomes) < options.kills:
        print(f"{len(outcomes)} of {options.kills} kills in {options.minutes} minutes")
    return int(not all(outcome.good for outcome in outcomes))


def _options() -> Parser:
    parser = options_of(__doc__)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="KIND,…", help="in turn (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=600, help="begin no kill after so many (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every kill there")
    return parser


class Bench:
    """A small run, unbroken once in a process and once on Flower, and killed as often as one likes.

    Args:
        scratch: an empty folder.
        draw: draws the moments.
    """

    def __init__(self, scratch: Path, draw: random.Random) -> None:
        self._scratch, self._draw, self._number = scratch, draw, 0
        torch.set_num_threads(1)  # this process is forked
        save_tiny(scratch / "tiny")
        self._unbroken: dict[str, Any] = {}  # what the run ends with, in a process
        self._unbroken_on_flower: dict[str, Any] = {}  # and there: with other threads it may round otherwise
        self._extent: in_process.Extent | None = None
        self._marks: tuple[float, ...] = ()  # of the unbroken run on Flower

    def config(self, folder: Path, **changes: object) -> dict[str, Any]:
        """The run: six users, three rounds, one batch each."""
        return {
            "base-model": str(self._scratch / "tiny"),
            "data": "synthetic:6",
            "layers": "1,2",
            "rounds": 3,
            "fraction": 1.0,
            "max-items": 3,
            "max-queries": 1,
            "max-new-tokens": 0,
            "strategy": "fedadam",
            "output-dir": str(folder),
            **changes,
        }

    def kill(self, kind: str) -> Outcome:
        """One kill, and the run that goes on after it."""
        self._number += 1
        home = self._scratch / str(self._number)
        home.mkdir()
        try:
            return self._kill_process(kind, home) if kind in in_process.KINDS else self._kill_flower(kind, home)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _kill_process(self, kind: str, home: Path) -> Outcome:
        extent, draw = self._measured(), self._draw
        folder, log = home / RUN, home / "log"
        # The run, killed.
        if kind == "process":
            moment = draw.uniform(0, extent.seconds)
            at, ended = f"after {moment:.2f} s", in_process.run(self._settings(home), folder, log, seconds=moment)
        elif kind == "mid-message":
            point = draw.randrange(extent.messages)
            at, ended = f"at {point}", in_process.run(self._settings(home), folder, log, message=point)
        else:
            point = draw.randrange(extent.writes)
            at, ended = f"at {point}", in_process.run(self._settings(home), folder, log, write=point)
        before = finished(folder)
        # The run, gone on with; where it had not begun, begun again.
        begun = (folder / "checkpoint.safetensors").exists()
        resumed = self._settings(home, **({"resume": str(folder)} if begun else {}))
        again = in_process.run(resumed, folder, log)
        return self._outcome(kind, at, before, folder, failed=again.failed, seconds=ended.seconds, line=again.line)

    def _kill_flower(self, kind: str, home: Path) -> Outcome:
        if not self._marks:
            whole = on_flower.run("lamp7", self.config(home / "unbroken"))
            if whole.report is None:
                raise ValueError(f"the unbroken run on Flower must complete, and it ended with: {whole.line}")
            self._unbroken_on_flower = result(whole.report.parent)
            self._marks = whole.marks
        # The run, killed.
        moment = self._draw.uniform(0, self._marks[-1])
        lines = bisect(self._marks[:-1], moment) - 1  # those that an unbroken run has said by then
        after = moment - self._marks[lines]
        ended = on_flower.run("lamp7", self.config(home / "runs"), kind=kind, lines=lines, after=after)
        at = f"{after:.1f} s after line {lines}"
        folders = [path for path in (home / "runs").glob("*") if path.is_dir()]
        folder = folders[0] if folders else None
        before = finished(folder)
        if not ended.hit:
            rounds, users = len(before.rounds), len(before.users)
            return Outcome(kind, at, rounds, users, 0, 0, MISSED, round(ended.seconds, 2), ended.left, ended.line)
        if ended.report is not None:  # it went on by itself
            return self._outcome(
                kind, at, before, ended.report.parent, failed=False, seconds=ended.seconds, left=ended.left
            )
        if kind not in ("command", "group") and not ended.line.startswith("error: "):
            return Outcome(
                kind, at, len(before.rounds), len(before.users), 0, 0, SILENT, ended.seconds, ended.left, ended.line
            )
        # The run, gone on with; where it had not begun, begun again.
        begun = folder is not None and (folder / "checkpoint.safetensors").exists()
        changes = {"resume": str(folder)} if begun else {}
        again = on_flower.run("lamp7", self.config(home / "runs", **changes))
        folder = again.report.parent if again.report else folder
        left = ", ".join(filter(None, (ended.left, again.left)))
        line = "" if again.report else again.line
        return self._outcome(
            kind,
            at,
            before,
            folder,
            failed=again.report is None,
            seconds=ended.seconds,
            left=left,
            line=line or ended.line,
        )

    def _outcome(
        self, kind: str, at: str, before: Any, folder: Path | None, *, failed: bool, seconds: float, left: str = "",
        line: str = "",
    ) -> Outcome:  # fmt: skip
        after = finished(folder)
        if failed or folder is None:
            ended = LOUD if line.startswith("error: ") else SILENT
        else:
            unbroken = self._unbroken if kind in in_process.KINDS else self._unbroken_on_flower
            ended = EQUAL if result(folder) == unbroken else DIFFERS
        rounds, users = lost(before, after)
        said = line if line.startswith("error: ") else ""
        return Outcome(
            kind, at, len(before.rounds), len(before.users), rounds, users, ended, round(seconds, 2), left, said
        )

    def _settings(self, home: Path, **changes: object) -> Any:
        return settings("lamp7", self.config(home, **changes))

    def _measured(self) -> in_process.Extent:
        """How long the unbroken run is, in a process; made once."""
        if self._extent is None:
            home = self._scratch / "unbroken"
            home.mkdir()
            ended = in_process.run(self._settings(home), home / RUN, home / "log")
            if ended.failed:
                raise ValueError(f"the unbroken run must complete, and it ended with: {ended.line}")
            self._extent = in_process.extent(ended)
            self._unbroken = result(home / RUN)
        return self._extent


if __name__ == "__main__":
    start(main)
