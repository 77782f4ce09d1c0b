"""All parts of `gpu.sh` in tables, the goals, and the exit code: 1 where a part failed.

    python -m gpu.summary OUT COMMIT DEVICE

Reads OUT/parts.tsv (name, exit code, seconds; -1: no time was left) and the parts' JSON; writes OUT/summary.json.
A goal that is missed is no failure, and what was not measured is said to be so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from console.files import write_json
from rich.console import Console
from rich.table import Table

STOPPED = 124  # `timeout`'s code of a part that it ended; the grid is meant to go on until then
TIMES_PYREFT, SHARE = 10.0, 0.40
ENGINES = {"pyreft": "pyreft", "peft": "PEFT LoRA", "alone": "ours, alone", "together": "ours, together"}


def parts_of(out: Path) -> list[dict[str, Any]]:
    """The parts in the order they ran, each with how it ended."""
    parts = []
    for line in (out / "parts.tsv").read_text(encoding="utf-8").splitlines():
        name, code, seconds = line.split("\t")
        ended = {0: "done", -1: "no time left", STOPPED: "stopped at its limit"}.get(int(code), f"failed, code {code}")
        failed = int(code) not in (0, -1) and not (name == "grid" and int(code) == STOPPED)
        parts.append({"part": name, "ended": ended, "seconds": int(seconds), "failed": failed})
    return parts


def numbers_of(out: Path, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Part -> what its JSON says, of those that ended well in this call or an earlier one."""
    files = {part["part"]: out / f"{part['part']}.json" for part in parts if part["ended"] == "done"}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def goals(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal, what was measured (None: nothing), and whether it is met."""
    cases = [case for name in ("engine", "engine-4k") for case in numbers.get(name, {}).get("train", ())]
    times = [case["together_over_pyreft"] for case in cases if case["rows"] == 16]
    shares = [
        case["share_of_peak"]["together"]
        for case in numbers.get("engine-4k", {}).get("train", ())
        if "share_of_peak" in case
    ]
    found = (
        (f"at least {TIMES_PYREFT:.0f} × pyreft, one user after the other, with users of 16 rows", TIMES_PYREFT, times),
        (f"at least {SHARE:.0%} of the device's bf16 peak at 4,096 tokens a pass", SHARE, shares),
    )
    return [
        {"goal": text, "measured": max(values, default=None), "met": max(values, default=0.0) >= least}
        for text, least, values in found
    ]


def training(numbers: Mapping[str, Any]) -> Table:
    """A row for each engine of each case."""
    table = Table(title="Training of private edits", title_justify="left")
    for name in (
        "part",
        "users × rows",
        "engine",
        "tokens/s",
        "× pyreft",
        "of the peak",
        "users a minute",
        "peak memory",
    ):
        table.add_column(name, justify="left" if name in ("part", "engine") else "right")
    for part, result in numbers.items():
        for case in result.get("train", ()) if part.startswith("engine") else ():
            slow = case["engines"]["pyreft"]["tokens_per_second"]
            for key, engine in case["engines"].items():
                share = case.get("share_of_peak", {}).get(key)
                table.add_row(
                    part,
                    f"{case['users']} × {case['rows']}",
                    ENGINES[key],
                    f"{engine['tokens_per_second']:,.0f}",
                    f"{engine['tokens_per_second'] / slow:.2f}",
                    "" if share is None else f"{share:.1%}",
                    f"{case['users_per_minute'][key]:,.0f}",
                    f"{engine['peak_bytes'] / 1e9:.2f} GB",
                )
    return table


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """What the tables have no place for."""
    said = []
    for part, result in numbers.items():
        if part.startswith("engine") and (case := result.get("generate")):
            mixed, alone = (case["engines"][name]["tokens_per_second"] for name in ("mixed", "one by one"))
            said.append(
                f"{part}: {case['rows']} edits decoded in one batch {mixed:,.0f} tokens/s, alone {alone:,.0f}; "
                f"{'by a CUDA graph' if case['replayed'] else 'in buffers of full length (no GPU: no graph)'} "
                f"{case['static_over_mixed']:.2f} × the batch, {case['equal_static_texts']} of its texts"
            )
    fused, plain = (numbers.get(part, {}) for part in ("engine", "engine-plain"))
    if fused.get("fused_kernels") and plain.get("train"):
        rates = [result["train"][0]["engines"]["together"]["tokens_per_second"] for result in (fused, plain)]
        said.append(f"fused kernels: {rates[0] / rates[1]:.2f} × as fast as without them")
    else:
        said.append("fused kernels: not measured, liger-kernel is not here, does not know the base, or there is no GPU")
    for way, row in numbers.get("job", {}).get("summary", {}).items():
        said.append(f"the whole job, {way}: {row['seconds']:.0f} s ({row['times_seconds']:.2f} × ours)")
    return said


def main(out: Path, commit: str, device: str) -> int:
    console = Console()
    parts = parts_of(out)
    numbers = numbers_of(out, parts)
    aims = goals(numbers)
    where = next((result["machine"] for result in numbers.values() if "machine" in result), device)
    console.print(f"{where}; commit {commit}", highlight=False)
    table = Table(title="Parts", title_justify="left")
    for name in ("part", "ended", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for part in parts:
        table.add_row(part["part"], part["ended"], str(part["seconds"]))
    console.print(table)
    console.print(training(numbers))
    for line in lines(numbers):
        console.print(line, highlight=False, soft_wrap=True)
    for aim in aims:
        met = "met" if aim["met"] else "not met"
        measured = "not measured" if aim["measured"] is None else f"{aim['measured']:.2f}, {met}"
        text = f"goal: {aim['goal']}: {measured}"
        console.print(text, highlight=False, soft_wrap=True)
    tables = out / "grid" / "tables.md"
    if tables.is_file():
        console.print(f"grid: {tables}", highlight=False, soft_wrap=True)
    summary = {"commit": commit, "machine": where, "device": device, "parts": parts, "goals": aims, "numbers": numbers}
    write_json(out / "summary.json", summary)
    return int(any(part["failed"] for part in parts))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
