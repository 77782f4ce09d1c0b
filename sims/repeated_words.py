"""How many answers of finished runs repeat a word?  `python sims/repeated_words.py runs/methods --word @user`

A loss can fall while answers get stuck on a word that is likely anywhere. Reads the answers that a simulation keeps in
its vault, of all runs under a folder, and counts by task, method and arm those in which the word stands `--times` times
or more. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import console.installed  # noqa: F401  a Python without the project ends here
from console import terminal
from console.command import Parser, at_least_one, options_of, start, told
from rich.table import Table

from fed import strict_json
from fed.answering.evaluation import ARMS
from fed.lamp import submission
from fed.lamp.tasks import get_task

Row = tuple[str, str, str]  # task, method, arm


def parser() -> Parser:
    p = options_of(__doc__)
    p.add_argument("runs", type=Path, help="a run's folder, or one with the folders of several")
    p.add_argument("--word", required=True, metavar="TEXT", help="what is looked for, as it stands in the answers")
    p.add_argument("--times", type=int, default=3, metavar="N", help="from how often on (default: %(default)s)")
    return p


def counted(runs: Path, word: str, times: int) -> tuple[Counter[Row], Counter[Row]]:
    """(answers, those that repeat the word) by task, method and arm. Raises ValueError where there are no answers."""
    answers: Counter[Row] = Counter()
    repeating: Counter[Row] = Counter()
    for path in sorted(runs.rglob("report.json")):
        report = strict_json.loads(path.read_text(encoding="utf-8"))
        task = get_task(report["data"]["task"])
        for arm in ARMS:
            row = (task.name, str(report["method"]), arm)
            files = sorted(path.parent.glob(f"vault/*/answers/{arm}.json"))
            texts = submission.read(files, task).values()
            answers[row] += len(texts)
            repeating[row] += sum(text.count(word) >= times for text in texts)
    if not answers.total():
        raise ValueError(
            f"the folder must have runs with answers in their vaults, and {str(runs)!r} has none; a simulation writes "
            "them where max-new-tokens is above 0"
        )
    return answers, repeating


@told()
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    at_least_one(options, "times")
    answers, repeating = counted(options.runs, options.word, options.times)
    shown = Table("task", "method", "arm", "answers", f"{options.word!r} {options.times} × or more", "share")
    for row, number in sorted(answers.items(), key=lambda item: (*item[0][:2], ARMS.index(item[0][2]))):
        if number:
            shown.add_row(*row, str(number), str(repeating[row]), f"{repeating[row] / number:.1%}")
    terminal.console().print(shown)
    return 0


if __name__ == "__main__":
    start(main)
