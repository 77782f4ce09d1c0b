"""Answers in LaMP's submission format, and their scores against a set of golds.

    {"task": "LaMP_4", "golds": [{"id": "…", "output": "…"}, …]}      predictions and golds look alike

A run keeps each user's answers beside its private tensors, one file an arm, and sends none of them to the server. This
joins and scores such files, or any submission, against LaMP's outputs or the test users of a data folder:

    python -m fed.lamp.submission LaMP_4 runs/lamp4/ID/vault/*/answers/stage1+2.json --data /data/LaMP_4
    python -m fed.lamp.submission LaMP_4 mine.json --golds dev_outputs.json
    python -m fed.lamp.submission LaMP_4 runs/lamp4/ID/vault/*/answers/stage1+2.json --join mine.json

As in LaMP's evaluator, the ids of predictions and golds must be the same set. It knows one name for LaMP_2N and
LaMP_2M, LaMP_2, which stands in files of both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fed.atomic_write import write_text
from fed.lamp import metrics
from fed.lamp.layouts import read_golds
from fed.lamp.records import open_corpus
from fed.lamp.tasks import TASKS, Task, get_task


def write(path: Path, task: Task, answers: Mapping[str, str]) -> None:
    """Write id -> answer as a submission: by rename, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "task": task.name.rstrip("MN"),
        "golds": [{"id": one, "output": answer} for one, answer in answers.items()],
    }
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n", mode=0o600)


def read(paths: Sequence[Path], task: Task) -> dict[str, str]:
    """id -> output of all the files together. Raises ValueError for another task, an id that repeats, no text."""
    found: dict[str, str] = {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"a submission must be an existing file, got {str(path)!r}; correct the path")
        for one, output in read_golds(path, task).items():
            if one in found:
                raise ValueError(f"every id must be answered once, and {one!r} is again in {path}; leave one file out")
            if not isinstance(output, str):
                raise ValueError(f"{path}: the output of {one!r} must be a text, got {output!r}")
            found[one] = output
    return found


def score(task: Task, golds: Mapping[str, str], predictions: Mapping[str, str]) -> dict[str, float]:
    """The task's metrics. Raises ValueError where the ids of the two are not the same set."""
    if golds.keys() != predictions.keys():
        missing, extra = sorted(golds.keys() - predictions.keys()), sorted(predictions.keys() - golds.keys())
        shown = f"unanswered such as {missing[:3]}" if missing else f"unknown such as {extra[:3]}"
        raise ValueError(
            f"predictions and golds must have the same ids, and {len(missing)} golds are unanswered and {len(extra)} "
            f"predictions unknown ({shown}); a run answers all queries with max-queries=0 stage2-users=0"
        )
    ids = sorted(golds)
    return metrics.scores(
        task, metrics.statistics(task, [golds[one] for one in ids], [predictions[one] for one in ids])
    )


def golds_of(folder: Path, task: Task) -> dict[str, str]:
    """id -> gold of every query of a data folder's test users. Raises ValueError."""
    corpus = open_corpus(str(folder), task)
    found: dict[str, str] = {}
    for user in corpus.cohorts["test"]:
        for query in corpus.user(user).queries:
            if query.id in found:
                raise ValueError(f"query ids must differ across users to be scored together; {query.id!r} repeats")
            found[query.id] = query.gold
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fed.lamp.submission",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("predictions", nargs="+", type=Path, metavar="FILE", help="submissions; several are joined")
    parser.add_argument("--golds", type=Path, metavar="FILE", help="LaMP's outputs to score against")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a data folder whose test users' golds to score against"
    )
    parser.add_argument("--join", type=Path, metavar="FILE", help="write all predictions as one submission")
    chosen = parser.parse_args(arguments)
    try:
        task = get_task(chosen.task)
        if chosen.golds and chosen.data:
            raise ValueError("give --golds or --data, not both")
        if not (chosen.golds or chosen.data or chosen.join):
            raise ValueError("give --golds FILE or --data DIR to score against, or --join FILE to write")
        predictions = read(chosen.predictions, task)
        if chosen.join:
            write(chosen.join, task, predictions)
            print(f"wrote {chosen.join}: {len(predictions)} answers")
        if chosen.golds or chosen.data:
            golds = read([chosen.golds], task) if chosen.golds else golds_of(chosen.data, task)
            print(json.dumps({"count": len(golds), **score(task, golds, predictions)}))
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
