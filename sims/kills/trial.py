"""What a run has finished, what it ended with, and what became of one kill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fed.privacy.tensor_files import fingerprint, read_tensors
from fed.privacy.vault import PERSONAL

EQUAL, LOUD, DIFFERS, SILENT, MISSED = "equal", "loud", "differs", "silent", "missed"


@dataclass(frozen=True)
class Finished:
    """What is done in a run's folder, as anybody would read it there.

    Attributes:
        rounds: the rows of `rounds.jsonl`, times included, so that a round that is done twice is another.
        users: user's folder -> when its private edit was written.
    """

    rounds: list[dict[str, Any]]
    users: dict[str, int]


def finished(folder: Path | None) -> Finished:
    """What a run had finished when it was killed; a private edit that cannot be read is not."""
    if folder is None or not folder.is_dir():
        return Finished([], {})
    users = {}
    for file in folder.glob(f"vault/*/{PERSONAL}"):
        read_tensors(file)  # a torn one is an error: files are whole or not there
        users[file.parent.name] = file.stat().st_mtime_ns
    rows = folder / "rounds.jsonl"
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    return Finished([json.loads(line) for line in lines], users)


def result(folder: Path) -> dict[str, Any]:
    """What two runs must agree in, bit for bit: the report but for times and places, and the collective edit."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    edit = folder / "collective.safetensors"
    return {
        **{key: report[key] for key in ("arms", "users", "bytes", "stage2_losses", "parameters")},
        "rounds": [{key: value for key, value in row.items() if key != "seconds"} for row in report["rounds"]],
        "collective": fingerprint(read_tensors(edit)[0]) if edit.exists() else "",
    }


@dataclass(frozen=True)
class Outcome:
    """One kill.

    Attributes:
        kind: what was killed.
        at: when or where, in words.
        rounds, users: how many were finished then.
        lost_rounds, lost_users: how many of them were done again.
        ended: "equal" to the unbroken run bit for bit; "loud", one line and a failed command; or "differs",
            "silent"; "missed" where the run was over before it could be killed.
        seconds: from the kill to the end of the run that was killed.
        left: what it left behind: processes and folders, in words; empty where nothing.
        line: the last line that was said.
    """

    kind: str
    at: str
    rounds: int
    users: int
    lost_rounds: int
    lost_users: int
    ended: str
    seconds: float
    left: str = ""
    line: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing is lost, nothing is left behind, and the run ended equal or loudly."""
        return self.ended in (EQUAL, LOUD) and not (self.lost_rounds or self.lost_users or self.left)


def lost(before: Finished, after: Finished) -> tuple[int, int]:
    """(rounds, users) that were finished before and were done again, or are gone."""
    rounds = sum(row not in after.rounds for row in before.rounds)
    users = sum(after.users.get(user) != written for user, written in before.users.items())
    return rounds, users


def table(outcomes: list[Outcome]) -> Table:
    """The outcomes by kind."""
    shown = Table(title="Kills, each with a resume after it")
    for heading in ("killed", "kills", "equal bit for bit", "failed loudly", "otherwise", "rounds, users lost", "left"):
        shown.add_column(heading, justify="left" if heading == "killed" else "right")
    kinds = sorted({outcome.kind for outcome in outcomes})
    for kind in [*kinds, "all"]:
        those = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        ends = [outcome.ended for outcome in those]
        shown.add_row(
            kind,
            str(len(those)),
            str(ends.count(EQUAL)),
            str(ends.count(LOUD)),
            str(len(ends) - ends.count(EQUAL) - ends.count(LOUD)),
            f"{sum(o.lost_rounds for o in those)}, {sum(o.lost_users for o in those)}",
            str(sum(bool(o.left) for o in those)),
            end_section=kind == kinds[-1],
        )
    return shown
