"""The log of a run: what it prints, how long its phases take, what crossed, and the files that it leaves.

    log = RunLog(settings, folder)
    with log.phase("stage1"):
        …
    log.write(method, statistics)

In the folder: `rounds.jsonl` and `collective.safetensors`, written anew after every round, so that one can watch, and
the edit of the last finished round is there whatever becomes of the run; at the end `report.json`, then `bytes.csv` and
`report.html`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fed import strict_json
from fed.atomic_write import write_text, writing
from fed.communication.ledger import PHASES, Entry, Ledger
from fed.methods import Method
from fed.methods.method import Tensors
from fed.plain_text import plain
from fed.privacy.tensor_files import save_tensors
from fed.settings.settings import Settings
from server_strategy.grid.nodes import Federation
from server_strategy.grid.work_time import WorkTime
from server_strategy.report import comparisons, page, report, tables, verdict


def say(text: str) -> None:
    """One line for the operator, at once."""
    print(text, flush=True)


def warn(text: str) -> None:
    """One line about something that went wrong while the run goes on; it may quote texts off the network."""
    say(f"warning: {plain(text)}")


class RunLog:
    """Begins with the run; the grids enter bytes and working time into `ledger` and `work`.

    Args:
        settings: the run's.
        folder: where the files go; it must exist before the first of them is written.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self.ledger, self.work = Ledger(), WorkTime()
        self._began = datetime.now(UTC)
        self._start = self._phase_start = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._server_seconds: dict[str, float] = {}
        self._federation: Federation | None = None
        self._rounds: list[dict[str, Any]] = []
        self._stage2_losses: list[dict[str, float]] = []
        self._errors: list[dict[str, Any]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside is this phase of the run; its seconds go into the report under this name.

        Those in which no client was at work are the server's: its own work, packing, messages and polling.
        """
        self._phase_start, since = time.monotonic(), time.time()
        try:
            yield
        finally:
            self._seconds[name] = time.monotonic() - self._phase_start
            at_work = self.work.seconds(since, time.time())
            self._server_seconds[name] = max(0.0, self._seconds[name] - at_work)

    def greet(self, federation: Federation) -> None:
        """Enter who takes part, on which base model, and say it."""
        self._federation = federation
        base, settings = federation.base, self._settings
        say(
            f"{settings.app}: {settings.method} on {base['name']}, {base['parameters']:,} parameters, {base['dtype']} "
            f"on {base['device']}; {len(federation.hosts)} users on {federation.nodes} SuperNodes"
        )
        for line in base.get("left_out", []):
            say(f"left out on this base, whose cache cannot serve it: {line}")

    def refuse_node(self, line: str) -> None:
        """Enter a line about a node that takes no part, and say it."""
        self._errors.append({"phase": "greeting", "round": 0, "user": None, "reason": plain(line)})
        warn(line)

    def add_error(self, phase: str, number: int, user: str, reason: str) -> None:
        """Enter why a user's reply was no good; of stage 1 say it here, where nobody else does."""
        self._errors.append({"phase": phase, "round": number, "user": user, "reason": plain(reason)})
        if phase == "stage1" and number <= self._settings.stage1_rounds:
            warn(f"user {user!r}, round {number}: {reason}")

    def add_round(self, row: dict[str, Any]) -> None:
        """Enter a round of stage 1, as `CollectiveStrategy` records it, and say how it went."""
        self._rounds.append(row)
        self._write_rounds()
        failed = f", {row['failed']} failed" if row["failed"] else ""
        what = "pooled" if self._settings.stage1 == "pooled" else f"round {row['round']}/{self._settings.rounds}"
        loss = "not told" if row["loss"] is None else f"{row['loss']:.4f}"
        say(f"stage 1: {what} · {row['users']} users{failed} · training loss {loss} · {row['seconds']:.1f} s")

    def go_on(
        self, rows: Sequence[dict[str, Any]], entries: Sequence[Entry], errors: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Take over the rounds, the bytes and the errors of a run that was broken off, and say it.

        Args:
            rows: of its finished rounds.
            entries: of its ledger, after the last of them.
            errors: until then; those of its greeting are left out, which is made anew.
        """
        self._errors += [error for error in errors if error["phase"] != "greeting"]
        self._rounds = list(rows)
        for entry in entries:
            self.ledger.add(entry)
        self._write_rounds()
        say(f"resumed: {len(rows)} rounds of stage 1 are finished" if rows else "resumed: no round is finished yet")

    def _write_rounds(self) -> None:
        write_text(self._folder / "rounds.jsonl", "".join(strict_json.dumps(row) + "\n" for row in self._rounds))

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rows of the finished rounds."""
        return list(self._rounds)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What was entered of replies that were no good, and of nodes that take no part."""
        return list(self._errors)

    def keep_collective(self, edit: Tensors) -> None:
        """Keep the collective edit as it is after a round, the last one's in the end."""
        assert self._federation is not None
        header = {
            "layers": self._settings.layers,
            "base": self._federation.base["fingerprint"],
            "method": self._settings.method,
        }
        save_tensors(self._folder / "collective.safetensors", edit, header)

    def add_stage2(self, users: int, losses: Sequence[dict[str, float]]) -> None:
        """Enter what stage 2 did, inside its phase, and say it.

        Args:
            users: how many have private tensors now.
            losses: {"epoch", "loss"} of each epoch, the mean over rows of all users.
        """
        self._stage2_losses = list(losses)
        by_epoch = " → ".join(f"{row['loss']:.4f}" for row in losses)
        said = f", loss by epoch {by_epoch}" if losses else ""
        say(f"stage 2: {users} users done{said} · {time.monotonic() - self._phase_start:.1f} s")

    def write_stopped(self, method: Method, error: Exception) -> None:
        """The same for a run that an error ended; what fails here hides no error of the run's."""
        try:
            self.write(method, {}, stopped=plain(f"{type(error).__name__}: {error}"))
        except Exception as defect:
            warn(f"the report of the run that ended early could not be written: {defect}")

    def _server_part(self, reporting: float) -> dict[str, Any]:
        """Seconds in which no client was at work, by phase; and their share of all since the greeting.

        Args:
            reporting: seconds that scores, intervals and ceilings took.
        """
        phases = {name: self._server_seconds[name] for name in PHASES if name in self._server_seconds}
        seconds = {**phases, "report": reporting}
        in_all = sum(self._seconds[name] for name in phases) + reporting
        return {
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "share": round(sum(seconds.values()) / in_all, 4) if in_all else None,
        }

    def write(
        self,
        method: Method,
        statistics: Mapping[str, Mapping[str, Mapping[str, float]]],
        *,
        stopped: str | None = None,
    ) -> dict[str, Any]:
        """End the run: write its files, print its tables, and return the report.

        Promise: report.json comes first; where a file after it cannot be written, it is there, and so are the tables
        (tests/server_strategy/report/test_run_log.py).

        Args:
            method: what was run.
            statistics: user -> arm -> additive statistics, as the evaluation returns them.
            stopped: why the run ended before its end; None where it did not.
        Raises:
            OSError: a file cannot be written, and which.
        """
        assert self._federation is not None
        seconds = {"total": time.monotonic() - self._start, **self._seconds}
        if self.work.known:
            seconds["clients"] = self.work.seconds()
        report_began = time.monotonic()
        content = report.build(
            self._settings,
            method,
            self._federation,
            statistics=statistics,
            rounds=self._rounds,
            stage2_losses=self._stage2_losses,
            ledger=self.ledger,
            began=self._began,
            seconds=seconds,
            errors=self._errors,
            stopped=stopped,
        )
        if self.work.known:
            content["seconds"]["server"] = self._server_part(time.monotonic() - report_began)
        with (
            writing(self._folder / "report.json") as building,
            building.open("w", encoding="utf-8", newline="") as file,
        ):
            file.writelines(report.as_json(content))
        problems: list[OSError] = []
        for write, name in ((self.ledger.write_csv, "bytes.csv"), (partial(page.write_page, content), "report.html")):
            try:
                write(self._folder / name)
            except OSError as problem:
                problems.append(problem)
        arms, differences = tables.arms_table(content), comparisons.comparisons_table(content)
        say(tables.render([arms, differences, tables.bytes_table(content)]))
        for sentence in (verdict.verdict(content)[0], *verdict.ceiling(content)):
            say(sentence)
        if problems:
            say(f"report, and no more: {self._folder / 'report.json'}")
            raise problems[0]
        say(f"report: {self._folder / 'report.json'}")  # the last line of a run that is whole: `sims/run.py` ends on it
        return content
