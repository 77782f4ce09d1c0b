"""`explore.py neighbours`: who is near to the collective shift, who is far, and do they write alike? Figures 4 to 7.

The texts that are shown are users' own: they stay in the JSON and the page beside the data, and nowhere else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from console.command import Parser, at_least_one
from rich.console import Console

from exploration.figures import DIFFERENCE, OTHER, OWN, Drawing, Table, grid, legend, number
from exploration.options import add_context, add_device, caption, facts, subject
from exploration.vectors import Result, vectors_of
from fed.exploration.neighbours import STYLES, cosines, distances, placed, style, style_against
from fed.lamp.tasks import Task
from fed.lamp.user import User

SUMMARY = "users near to the collective shift and far from it, with their texts and their style (Figures 4 to 7)"
LETTERS = 160  # of a text that is shown
LABELS = {
    "words": "words a text",
    "word_length": "characters a word",
    "punctuation": "punctuation marks a hundred characters",
    "capitals": "capitals a hundred characters",
    "type_token": "type-token ratio in 50 words",
}


def add_options(p: Parser) -> None:
    add_context(p)
    add_device(p)
    p.add_argument("--show", type=int, default=3, metavar="N", help="users of each kind (default: 3)")
    p.add_argument("--texts", type=int, default=3, metavar="N", help="texts of each of them (default: 3)")


def run(options: argparse.Namespace, console: Console) -> Result:
    at_least_one(options, "show", "texts")
    looked_at = subject(options)
    vectors = vectors_of(options, console, looked_at)
    task, load = looked_at.corpus.task, looked_at.corpus.user
    distance = distances(vectors.own)
    styles = [style(_written(task, load(user))) for user in vectors.users]
    groups = placed(distance, options.show)
    shown = [vectors.users[place] for places in groups.values() for place in places]
    return {
        "of": facts(options, looked_at.base.skeleton, len(vectors.users)) | {"layer": looked_at.context.layer},
        "distances": distance.tolist(),
        "cosines": cosines(vectors.own).tolist(),
        "queries": list(vectors.queries),
        "styles": styles,
        "against_distance": style_against(distance, styles, seed=options.seed),
        "groups": groups,
        "texts": {user: [text[:LETTERS] for text in _written(task, load(user))[-options.texts :]] for user in shown},
        "users": list(vectors.users),
    }


def _written(task: Task, user: User) -> Sequence[str]:
    """What the user wrote: of tasks that are answered by a label, the texts that were labelled."""
    field = task.target_field if task.kind == "generation" else task.source_field or task.target_field
    return [item[field] for item in user.profile]


def words(result: Result) -> list[str]:
    told = [
        f"{LABELS[name]} (ρ = {number(row['rho'])}, p = {row['p']:.2g})"
        for name, row in result["against_distance"].items()
        if row["p"] is not None and row["p"] < 0.05
    ]
    said = "; ".join(told) if told else "none of the measures of style, after correction"
    cosine = np.quantile(result["cosines"], [0.1, 0.5, 0.9])
    return [
        f"goes with the distance from the collective shift: {said}",
        f"a user's cosine with the mean of the others: {number(cosine[1])} (10 to 90 %: {number(cosine[0])} to "
        f"{number(cosine[2])})",
    ]


def tables(result: Result) -> list[Table]:
    rows = [
        [LABELS[name], number(row["rho"]), "–" if row["p"] is None else f"{row['p']:.2g}"]
        for name, row in result["against_distance"].items()
    ]
    shown = [
        [f"{group}: {result['users'][place]}", number(result["distances"][place]), " | ".join(texts)]
        for group, places in result["groups"].items()
        for place in places
        for texts in [result["texts"][result["users"][place]]]
    ]
    return [
        Table("Style against the distance from the collective shift", ("measure", "Spearman's ρ", "p (Holm)"), rows),
        Table("Users and their last texts", ("user", "distance", "texts"), shown),
    ]


def drawings(result: Result) -> list[Drawing]:
    distance = np.array(result["distances"])
    group_of = {place: group for group, places in result["groups"].items() for place in places}
    looks = {"nearest": (OWN, "o"), "midway": (DIFFERENCE, "s"), "farthest": (OTHER, "^")}

    def paint(figure: Any) -> None:
        panels = figure.subplots(3, 2).ravel()
        for axes, name in zip(panels, STYLES, strict=False):
            values = np.array([of_user[name] for of_user in result["styles"]])
            rest = [place for place in range(len(values)) if place not in group_of]
            axes.scatter(distance[rest], values[rest], s=10, color="#667080", label="other users")
            for group, (colour, marker) in looks.items():
                places = result["groups"][group]
                axes.scatter(distance[places], values[places], s=26, color=colour, marker=marker, label=group)
            axes.set_title(LABELS[name], fontsize=8, loc="left")
            axes.tick_params(labelsize=8)
            grid(axes)
        panels[-1].set_axis_off()
        for axes in panels[3:5]:
            axes.set_xlabel("distance (hidden-state units)", fontsize=8)
        legend(figure)

    title = f"How users write, by distance from the collective shift\n{caption(result['of'])}"
    return [Drawing("neighbours", title, 6.2, paint)]
