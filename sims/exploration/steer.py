"""`explore.py steer`: what does a δ-vector do when it is added at decoding, dose by dose, and what the trained edit?

    h + α s  at one block, from the prompt's last token on; s is the user's own δ-vector, another user's, or the mean of
    all others' (the collective shift without the user)

on the test queries of the users whom PerFit is trained and tested on, so what the trained edit costs and scores stands
beside the curves: the same rows, the same base, answers decoded alike. The bare base's loss must be the run's own, or
the command fails.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from console.command import Parser
from rich.console import Console
from rich.progress import track

from exploration.figures import CHANCE, DIFFERENCE, INK, OTHER, OWN, Drawing, Table, grid, legend, number
from exploration.options import Subject, add_context, caption, facts, subject
from exploration.sweeps import runs
from exploration.vectors import Array, vectors_of
from fed import methods
from fed.answering.choice import Choice
from fed.answering.evaluation import TestUser, losses_and_answers
from fed.answering.reader import Question
from fed.edits.steering import steering
from fed.forward.batching import tokenize
from fed.lamp import metrics
from fed.lamp.cohorts import test_pairs
from fed.methods.edit_reader import EditReader
from fed.settings.settings import Settings
from fed.statistics import paired_t

SUMMARY = "δ-vectors added at decoding, dose by dose, beside the trained edit"
WHOSE = {"own": "the own δ-vector", "other": "another user's", "mean": "the mean of the others"}
LOOKS = {"own": (OWN, "o", "-"), "other": (OTHER, "s", "--"), "mean": (DIFFERENCE, "^", ":")}
TOLERANCE = 0.02  # of the base's loss per token between two orders of adding the same bfloat16 numbers


def _doses(text: str) -> list[float]:
    return sorted({0.0, *(float(part) for part in text.split(","))})


def add_options(p: Parser) -> None:
    add_context(p)
    runs.add_options(p)
    p.add_argument(
        "--doses",
        type=_doses,
        default=_doses("-0.5,0.05,0.1,0.2,0.5,1,2"),
        metavar="A,…",
        help="α; 0 is always among them (default: -0.5,0.05,0.1,0.2,0.5,1,2)",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    # The trained edit, and on which users and rows it was tested.
    cell = runs.cell_of(options, options.task, "perfit", {})
    settings = cell.settings()
    (trained,) = runs.outcomes(options, [cell], console)
    looked_at = subject(options, only=sorted(trained["users"]))
    vectors = vectors_of(options, console, looked_at)
    users = [_tested(looked_at, settings, user) for user in vectors.users]
    # The curves: each user's loss per token and score at every dose of every direction.
    count = len(users)
    directions = {
        "own": vectors.own,
        "other": np.roll(vectors.own, -1, axis=0),
        "mean": (vectors.own.sum(0) - vectors.own) / max(1, count - 1),
    }
    curves = {
        name: _curves(looked_at, settings, users, of_users, options.doses, console)
        for name, of_users in directions.items()
    }
    losses = {name: loss for name, (loss, _) in curves.items()}
    start = options.doses.index(0.0)
    bare = [float(losses["own"][user, start]) for user in range(count)]
    expected = [trained["users"][user.user_id]["base"] for user in users]
    if not np.allclose(bare, expected, rtol=TOLERANCE):
        raise ValueError(f"the base's losses must be those of the run, {expected}, and are {bare}")
    best = int(losses["own"].mean(0).argmin())
    return {
        "of": facts(options, looked_at.base.skeleton, count) | {"layer": looked_at.context.layer},
        "doses": options.doses,
        "losses": {name: values.tolist() for name, values in losses.items()},
        "trained": _of_trained(trained["users"], users),
        "metric": runs.main_metric(options.task),
        "scores": {name: score.tolist() for name, (_, score) in curves.items() if score is not None},
        "trained_scores": _of_trained(trained["user_scores"], users),
        "best_dose": options.doses[best],
        "tests": {
            "own at its best dose minus none": _gap(losses["own"][:, best] - losses["own"][:, start]),
            "own minus another's, at that dose": _gap(losses["own"][:, best] - losses["other"][:, best]),
            "own minus the mean of the others, at that dose": _gap(losses["own"][:, best] - losses["mean"][:, best]),
            "own at its best dose minus stage 1 + 2": _gap(
                losses["own"][:, best] - np.array([trained["users"][user.user_id]["stage1+2"] for user in users])
            ),
        },
    }


def _tested(looked_at: Subject, settings: Settings, user_id: str) -> TestUser:
    """A user's test queries as the run asked them."""
    pairs = test_pairs(
        looked_at.corpus.task,
        looked_at.corpus.user(user_id),
        cohorts=settings.cohorts,
        max_queries=settings.max_queries,
        held_out=settings.held_out,
    )
    rows = tokenize(
        [pair for _, pair in pairs],
        looked_at.base.tokenizer,
        settings.max_length,
        prompt_format=settings.prompt_format,
    )
    return TestUser(user_id, [query for query, _ in pairs], rows)


def _curves(
    looked_at: Subject,
    settings: Settings,
    users: list[TestUser],
    directions: Array,
    doses: list[float],
    console: Console,
) -> tuple[Array, Array | None]:
    """(users, doses) loss per token of each user's rows, and the metric of its answers, drawn as the run draws them;
    None where the run gives no answers.
    """
    task, base = looked_at.corpus.task, looked_at.base
    choice = None
    if settings.answer == "choice":
        choice = Choice.of(task, base.tokenizer, settings.max_length, settings.prompt_format)
    shifts = steering(torch.from_numpy(directions).float(), doses, looked_at.context.layer)
    names = [f"{user.user_id} {dose}" for user in users for dose in doses]
    reader = EditReader(methods.make(settings, base.skeleton), base, personal=shifts, names=names)
    per_token, score = np.zeros((2, len(users), len(doses)))
    for place, user in enumerate(track(users, "dose by dose", console=console, transient=True)):
        golds = [query.gold for query in user.queries]
        questions = [
            Question(row, False, f"{user.user_id} {dose}", (user.user_id, query.id))
            for dose in doses
            for query, row in zip(user.queries, user.rows, strict=True)
        ]
        nlls, answers = losses_and_answers(reader, questions, golds * len(doses), settings.max_new_tokens, choice)
        for dose in range(len(doses)):
            span = slice(dose * len(golds), (dose + 1) * len(golds))
            per_token[place, dose] = sum(loss.nll for loss in nlls[span]) / sum(loss.tokens for loss in nlls[span])
            if answers is not None:
                sums = metrics.statistics(task, golds, answers[span], rouge_tokenizer=settings.rouge_tokenizer)
                score[place, dose] = metrics.scores(task, sums)[runs.main_metric(task.name)]
    return per_token, score if settings.max_new_tokens else None


def _of_trained(of_users: dict[str, dict[str, float]], users: list[TestUser]) -> dict[str, list[float]]:
    """The trained arms that all these users have, user by user."""
    return {
        arm: [of_users[user.user_id][arm] for user in users]
        for arm in ("stage1", "stage1+2", "swapped")
        if all(arm in of_users.get(user.user_id, {}) for user in users)
    }


def _gap(differences: Array) -> dict[str, float | None]:
    """Mean over users, its t interval and p."""
    low, high = paired_t.interval(differences)
    return {
        "difference": float(differences.mean()),
        "low": float(low),
        "high": float(high),
        "p": paired_t.p_value(differences),
    }


def words(result: dict[str, Any]) -> list[str]:
    said = [f"the own δ-vector's best dose is {result['best_dose']:g} (chosen on the same queries: it flatters)"]
    for name, gap in result["tests"].items():
        p = "" if gap["p"] is None else f", p = {gap['p']:.2g}"
        said.append(
            f"{name}: loss per token {number(gap['difference'], 3)} [{number(gap['low'], 3)}, "
            f"{number(gap['high'], 3)}]{p}"
        )
    return said


def tables(result: dict[str, Any]) -> list[Table]:
    head = ("dose α", *WHOSE.values())
    made = []
    for what, by_direction, trained in _panels(result):
        means = {name: np.mean(values, axis=0) for name, values in by_direction.items()}
        rows = [[f"{dose:g}", *(number(float(means[name][i]), 3) for name in WHOSE)]
                for i, dose in enumerate(result["doses"])]  # fmt: skip
        rows += [[f"trained, {arm}", number(float(np.mean(v)), 3), "", ""] for arm, v in trained.items()]
        made.append(Table(f"{what[0].upper()}{what[1:]}, mean over users", head, rows))
    return made


def _panels(result: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What is drawn against the dose: its name, its curves and the trained arms'. Without answers the loss alone."""
    loss = ("loss per token (lower is better)", result["losses"], result["trained"])
    if not result.get("scores"):
        return [loss]
    return [loss, (runs.metric_label(result["metric"]), result["scores"], result["trained_scores"])]


def drawings(result: dict[str, Any]) -> list[Drawing]:
    panels = _panels(result)

    def paint(figure: Any) -> None:
        every = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (what, by_direction, trained) in zip(every, panels, strict=True):
            for name, (colour, marker, dash) in LOOKS.items():
                values = np.mean(by_direction[name], axis=0)
                axes.plot(
                    result["doses"], values, color=colour, marker=marker, linestyle=dash, markersize=4,
                    label=WHOSE[name],
                )  # fmt: skip
            for arm, (colour, dash) in {"stage1": (CHANCE, "--"), "stage1+2": (INK, "-")}.items():
                if arm in trained:
                    height = float(np.mean(trained[arm]))
                    axes.axhline(height, color=colour, linestyle=dash, linewidth=1, label=f"trained, {arm}")
            axes.set_ylabel(what.replace(" (", ", mean over users\n("), fontsize=8)
            axes.set_xscale("symlog", linthresh=0.05)
            axes.set_xticks(result["doses"], [f"{dose:g}" for dose in result["doses"]], fontsize=8)
            axes.minorticks_off()
            grid(axes)
        axes.set_xlabel("dose α")
        legend(figure)

    title = f"δ-vectors added at decoding\n{caption(result['of'])}"
    return [Drawing("steer", title, 1.6 + 2.8 * len(panels), paint)]
