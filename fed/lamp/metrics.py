"""LaMP's scores, from sums that can be added across users.

A device counts its own answers; the server adds the counts and divides. The result is that of scoring all
answers in one place, which a mean of users' scores is not (macro-F1 and RMSE are not linear).

    classification   accuracy = correct / count
                     F1 = mean over ALL labels of 2 hit / (gold + predicted), where 0/0 = 0
    rating           MAE = sum |p - g| / count, RMSE = sqrt(sum (p - g)^2 / count)
    generation       mean F-measure of ROUGE-1 and ROUGE-L, no stemmer; where another tokenizer than LaMP's counts
                     their words (`fed.lamp.rouge_words`), LaMP's own beside them, as rouge1_lamp and rougeL_lamp

The rules are those of LaMP's evaluator (`eval/evaluation.py` of the benchmark, arXiv 2304.11406): answers are
stripped and compared case-sensitively; a rating is `float(answer)`, and an answer that is none counts as 1 or
5, whichever is farther from the gold. Two differences: an infinite or NaN rating is none either (there it is
a crash), and ROUGE is a plain mean (there a bootstrap's median, the same to about 1e-3).
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fed.lamp.rouge_words import UnicodeWords
from fed.lamp.tasks import Task

OWN = "_lamp"  # after the name of a metric that is counted in LaMP's words beside another tokenizer's


def statistics(
    task: Task,
    golds: Sequence[str],
    predictions: Sequence[str],
    *,
    rouge_tokenizer: str = "lamp",
) -> dict[str, float]:
    """Additive sums over one set of answers.

    Args:
        task: whose metrics.
        golds: what the users wrote.
        predictions: the answers, in the same order.
        rouge_tokenizer: whose words ROUGE counts, a key of `fed.lamp.rouge_words.TOKENIZERS`.

    Returns:
        Always "count", and the same keys for every set of a task and tokenizer.

    Raises:
        ValueError: the two differ in length, or a gold is not a label of the task.
    """
    if len(golds) != len(predictions):
        raise ValueError(f"golds and predictions must pair up; got {len(golds)} and {len(predictions)}")
    pairs = [(gold.strip(), prediction.strip()) for gold, prediction in zip(golds, predictions, strict=True)]
    unknown = next((gold for gold, _ in pairs if task.labels and gold not in task.labels), None)
    if unknown is not None:
        raise ValueError(f"a gold of {task.name} must be one of {', '.join(task.labels)}; got {unknown!r}")
    if task.kind == "generation":
        sums = _generation(task, pairs, rouge_tokenizer)
    else:
        sums = (_classification if task.kind == "classification" else _rating)(task, pairs)
    return {"count": float(len(pairs)), **sums}


def rouge_of(task: Task, rouge_tokenizer: str) -> tuple[str, ...]:
    """The names of a generation task's sums besides "count", LaMP's own beside another tokenizer's."""
    beside = () if rouge_tokenizer == "lamp" else tuple(f"{metric}{OWN}" for metric in task.metrics)
    return (*task.metrics, *beside)


def merge(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The statistics of several sets of answers taken together; in any order the same, bit for bit."""
    columns: dict[str, list[float]] = {}
    for part in parts:
        for key, value in part.items():
            columns.setdefault(key, []).append(value)
    return {key: math.fsum(values) for key, values in columns.items()}


def scores(task: Task, statistics: Mapping[str, float]) -> dict[str, float]:
    """The task's metrics, keyed by `task.metrics`, and LaMP's own ROUGE where it was counted beside another.

    Raises ValueError when no answer was counted.
    """
    count = statistics.get("count", 0.0)
    if not count > 0:
        raise ValueError(f"{task.name} must have at least one answer to score; got a count of {count:g}")
    if task.kind == "classification":
        return {"accuracy": statistics["correct"] / count, "f1": _macro_f1(task, statistics)}
    if task.kind == "rating":
        return {"mae": statistics["absolute"] / count, "rmse": math.sqrt(statistics["squared"] / count)}
    beside = (f"{metric}{OWN}" for metric in task.metrics if f"{metric}{OWN}" in statistics)
    return {metric: statistics[metric] / count for metric in (*task.metrics, *beside)}


def _classification(task: Task, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    sums = {"correct": float(sum(gold == prediction for gold, prediction in pairs))}
    for label in task.labels:
        sums[f"hit/{label}"] = float(sum(gold == prediction == label for gold, prediction in pairs))
        sums[f"gold/{label}"] = float(sum(gold == label for gold, _ in pairs))
        sums[f"predicted/{label}"] = float(sum(prediction == label for _, prediction in pairs))
    return sums


def _macro_f1(task: Task, sums: Mapping[str, float]) -> float:
    def f1(label: str) -> float:
        either = sums[f"gold/{label}"] + sums[f"predicted/{label}"]
        return 2 * sums[f"hit/{label}"] / either if either else 0.0

    return math.fsum(map(f1, task.labels)) / len(task.labels)


def _rating(task: Task, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    errors = [_rating_of(prediction, float(gold)) - float(gold) for gold, prediction in pairs]
    return {"absolute": math.fsum(map(abs, errors)), "squared": math.fsum(error * error for error in errors)}


def _rating_of(prediction: str, gold: float) -> float:
    try:
        value = float(prediction)
    except ValueError:
        value = math.nan
    if math.isfinite(value * value):
        return value
    return 1.0 if abs(1 - gold) > abs(5 - gold) else 5.0


def _generation(task: Task, pairs: Sequence[tuple[str, str]], rouge_tokenizer: str) -> dict[str, float]:
    sums = {}
    for tokenizer, suffix in ((rouge_tokenizer, ""), ("lamp", OWN))[: 1 + (rouge_tokenizer != "lamp")]:
        scored = [_rouge_scorer(task.metrics, tokenizer).score(gold, prediction) for gold, prediction in pairs]
        for metric in task.metrics:
            sums[f"{metric}{suffix}"] = math.fsum(score[metric].fmeasure for score in scored)
    return sums


@functools.cache
def _rouge_scorer(kinds: tuple[str, ...], tokenizer: str) -> Any:
    rouge_scorer = importlib.import_module("rouge_score.rouge_scorer")  # late: it imports nltk
    words = {"lamp": None, "unicode": UnicodeWords()}[tokenizer]
    return rouge_scorer.RougeScorer(list(kinds), use_stemmer=False, tokenizer=words)
