"""`explore.py steer`: what does a δ-vector do when it is added at decoding, dose by dose, and what the trained edit?

    h + α s  at one block, from the prompt's last token on; s is the user's own δ-vector, another user's, or the mean of
    all others' (the collective shift without the user)

on the test queries of the users whom PerFit is trained and tested on, so the trained edit's loss stands beside the
curve: the same rows, the same base. The bare base's loss must be the run's own, or the command fails.
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
from exploration.options import add_context, caption, facts, subject
from exploration.sweeps import runs
from exploration.vectors import Array, vectors_of
from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.base.model import BaseModel
from fed.exploration.steering import steering
from fed.forward.batching import Row, tokenize
from fed.lamp.cohorts import test_pairs
from fed.methods.edit_reader import on_base
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
    task, base = looked_at.corpus.task, looked_at.base
    rows = {
        user: tokenize(
            [
                pair
                for _, pair in test_pairs(
                    task,
                    looked_at.corpus.user(user),
                    cohorts=settings.cohorts,
                    max_queries=settings.max_queries,
                    held_out=settings.held_out,
                )
            ],
            base.tokenizer,
            settings.max_length,
        )
        for user in vectors.users
    }
    # The curves: each user's loss per token at every dose of every direction.
    count = len(vectors.users)
    directions = {
        "own": vectors.own,
        "other": np.roll(vectors.own, -1, axis=0),
        "mean": (vectors.own.sum(0) - vectors.own) / max(1, count - 1),
    }
    curves = {
        name: _curves(base, list(rows.values()), of_users, options.doses, looked_at.context.layer, console)
        for name, of_users in directions.items()
    }
    start = options.doses.index(0.0)
    bare = [float(curves["own"][user, start]) for user in range(count)]
    expected = [trained["users"][user]["base"] for user in vectors.users]
    if not np.allclose(bare, expected, rtol=TOLERANCE):
        raise ValueError(f"the base's losses must be those of the run, {expected}, and are {bare}")
    best = int(curves["own"].mean(0).argmin())
    return {
        "of": facts(options, base.skeleton, count) | {"layer": looked_at.context.layer},
        "doses": options.doses,
        "losses": {name: values.tolist() for name, values in curves.items()},
        "trained": {
            arm: [trained["users"][user][arm] for user in vectors.users]
            for arm in ("stage1", "stage1+2", "swapped")
            if all(arm in trained["users"][user] for user in vectors.users)
        },
        "best_dose": options.doses[best],
        "tests": {
            "own at its best dose minus none": _gap(curves["own"][:, best] - curves["own"][:, start]),
            "own minus another's, at that dose": _gap(curves["own"][:, best] - curves["other"][:, best]),
            "own minus the mean of the others, at that dose": _gap(curves["own"][:, best] - curves["mean"][:, best]),
            "own at its best dose minus stage 1 + 2": _gap(
                curves["own"][:, best] - np.array([trained["users"][user]["stage1+2"] for user in vectors.users])
            ),
        },
    }


def _curves(
    base: BaseModel, rows: list[list[Row]], directions: Array, doses: list[float], layer: int, console: Console
) -> Array:
    """(users, doses) loss per token of each user's rows."""
    stack = on_base(steering(torch.from_numpy(directions), doses, layer), base)
    found = np.zeros((len(rows), len(doses)))
    for user in track(range(len(rows)), "dose by dose", console=console, transient=True):
        asked = [EditedRow(row, (user * len(doses) + dose,)) for dose in range(len(doses)) for row in rows[user]]
        answered = losses(base, asked, stack)
        size = len(rows[user])
        for dose in range(len(doses)):
            of_dose = answered[dose * size : (dose + 1) * size]
            found[user, dose] = sum(loss.nll for loss in of_dose) / sum(loss.tokens for loss in of_dose)
    return found


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
    means = {name: np.mean(values, axis=0) for name, values in result["losses"].items()}
    rows = [
        [f"{dose:g}", *(number(float(means[name][i]), 3) for name in WHOSE)] for i, dose in enumerate(result["doses"])
    ]
    rows += [[f"trained, {arm}", number(float(np.mean(v)), 3), "", ""] for arm, v in result["trained"].items()]
    return [Table("Loss per token, mean over users", ("dose α", *WHOSE.values()), rows)]


def drawings(result: dict[str, Any]) -> list[Drawing]:
    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, (colour, marker, dash) in LOOKS.items():
            values = np.mean(result["losses"][name], axis=0)
            axes.plot(
                result["doses"], values, color=colour, marker=marker, linestyle=dash, markersize=4, label=WHOSE[name]
            )
        for arm, (colour, dash) in {"stage1": (CHANCE, "--"), "stage1+2": (INK, "-")}.items():
            if arm in result["trained"]:
                height = float(np.mean(result["trained"][arm]))
                axes.axhline(height, color=colour, linestyle=dash, linewidth=1, label=f"trained, {arm}")
        axes.set_xscale("symlog", linthresh=0.05)
        axes.set_xticks(result["doses"], [f"{dose:g}" for dose in result["doses"]], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("dose α")
        axes.set_ylabel("loss per token, mean over users\n(lower is better)")
        grid(axes)
        legend(figure)

    return [Drawing("steer", f"δ-vectors added at decoding\n{caption(result['of'])}", 4.4, paint)]
