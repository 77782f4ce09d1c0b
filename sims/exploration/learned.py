"""`explore.py learned`: what do trained edits look like beside δ-vectors, and do they group users as users are?

PerFit is trained once a seed, on the same users. Then, at one block that both edits touch: angles between the
collective edit's rows, the personal ones' and the leading directions of the δ-vectors; and over all blocks, the
personal edits as functions: how many directions hold their variance, whether a user's edits of two trainings are nearer
to each other than to another user's, and groups of users. Made-up users are written to a folder first, so that a seed
of the training is no seed of the users; how they were made says how good the groups are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from cells.run_cells import run_cells
from console.command import Parser, at_least_one
from rich.console import Console

from exploration.figures import CHANCE, DIFFERENCE, OTHER, OWN, SERIES, Drawing, Table, grid, legend, number
from exploration.options import add_context, caption, check, facts, folder, subject
from exploration.sweeps import runs
from exploration.vectors import Array, vectors_of
from fed.atomic_write import write_text
from fed.exploration import clusters, spectrum, subspaces
from fed.lamp.records import open_corpus
from fed.lamp.synthetic.users import habits_of
from fed.lamp.tasks import get_task
from fed.privacy.tensor_files import read_tensors

SUMMARY = "trained edits beside δ-vectors: angles, variance, groups of users, seeds"
WITH_HABITS = ("LaMP_5", "LaMP_7")  # whose made-up users have an opener and a sign-off
Edit = Mapping[str, Array]
Trained = tuple[Edit, dict[str, Edit]]  # the collective edit, and each user's own


def add_options(p: Parser) -> None:
    add_context(p)
    runs.add_options(p)
    p.add_argument("--seeds", type=int, default=2, metavar="N", help="trainings, from --seed on (default: 2)")
    p.add_argument("--groups", type=int, default=8, metavar="N", help="of users (default: 8, as are planted)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    check(options)
    at_least_one(options, "seeds", "jobs", "groups")
    # The trainings: other draws, the same users.
    source = _kept_users(options)
    seeds = range(options.seed, options.seed + options.seeds)
    cells = [runs.cell_of(options, options.task, "perfit", {"data": source}, seed=seed) for seed in seeds]
    root = folder(options) / "cells"
    reports, lost = run_cells(cells, root, console, jobs=options.jobs, runtime=options.runtime)
    for cell, why in lost.items():
        raise ValueError(f"{cell.task} {cell.label} seed {cell.seed} failed: {why}")
    trained = [_edits(cell.run_folder(root)) for cell in reports]
    users = sorted(set.intersection(*(set(personal) for _, personal in trained)))
    if len(users) < 3:
        raise ValueError(f"edits of at least 3 users must be compared, and {len(users)} have one in every training")
    # The δ-vectors of the same users, at a block that both edits touch.
    base = runs.shapes_of(options)
    settings = cells[0].settings()
    blocks, private = settings.edited_layers(base.layers), settings.private_layers(base.layers)
    block = options.layer if options.layer != -1 else private[len(private) // 2]
    if block not in private or block not in blocks:
        raise ValueError(f"--layer must be edited by both edits, one of {', '.join(map(str, private))}, got {block}")
    looked_at = argparse.Namespace(**{**vars(options), "data": source, "layer": block, "users": 0})
    deltas = vectors_of(looked_at, console, subject(looked_at, only=users))
    own = [[personal[user] for user in users] for _, personal in trained]
    return {
        "of": facts(options, base, len(users)) | {"layer": block, "trainings": options.seeds},
        "subspaces": _subspaces(
            trained[0][0]["R"][blocks.index(block)],
            [edit["R"][private.index(block)] for edit in own[0]],
            deltas.own,
        ),
        "functions": _functions(own, options.seed),
        "groups": _groups(own, _planted(options, users), min(options.groups, len(users)), options.seed),
        "users": users,
    }


def _kept_users(options: argparse.Namespace) -> str:
    """The data as a folder: made-up users are written to one, the same for every seed of training."""
    if not options.data.startswith("synthetic"):
        return runs.source_of(options.data)
    task = get_task(options.task)
    corpus = open_corpus(options.data, task, seed=options.seed)
    place = folder(options) / f"users-{options.data.partition(':')[2] or 'all'}-{options.seed}"
    place.mkdir(parents=True, exist_ok=True)
    for cohort, name in (("others", "user_others"), ("test", "user_top_100_history")):
        users = [corpus.user(user) for user in corpus.cohorts[cohort]]
        records = [
            {
                "user_id": user.user_id,
                "profile": list(user.profile),
                "query": [{"id": q.id, "input": q.input, "gold": q.gold} for q in user.queries],
            }
            for user in users
        ]
        file, text = place / f"{name}.json", json.dumps(records)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:  # the reader's cache goes by time
            write_text(file, text)
    return str(place.resolve())


def _planted(options: argparse.Namespace, users: Sequence[str]) -> dict[str, list[str]]:
    """habit -> each user's; nothing where nobody knows."""
    if not options.data.startswith("synthetic") or options.task not in WITH_HABITS:
        return {}
    habits = [habits_of(user, seed=options.seed) for user in users]
    return {"opener": [h.opener for h in habits], "sign-off": [h.sign_off for h in habits]}


def _edits(run: Path) -> Trained:
    """A finished run's collective edit and its users' own, float64."""

    def numbers(file: Path) -> tuple[Edit, dict[str, str]]:
        tensors, header = read_tensors(file)
        return {name: tensor.double().numpy() for name, tensor in tensors.items()}, header

    collective, _ = numbers(run / "collective.safetensors")
    personal = [numbers(file) for file in sorted((run / "vault").glob("*/personal.safetensors"))]
    return collective, {header["user_id"]: edit for edit, header in personal}


def _subspaces(collective: Array, personal: Sequence[Array], deltas: Array) -> dict[str, Any]:
    """Angles in degrees, the smallest first and averaged over users; beside each what random subspaces have."""
    rank, own_rank, size = len(collective), len(personal[0]), deltas.shape[1]
    leading = spectrum.directions(deltas, min(rank, *deltas.shape))

    def mean(pairs: Sequence[tuple[Array, Array]]) -> list[float]:
        return np.mean([subspaces.principal_angles(a, b) for a, b in pairs], axis=0).tolist()

    def beside(angles: list[float], a: int, b: int) -> dict[str, Any]:
        return {"angles": angles, "random": subspaces.random_angles(a, b, size).tolist()}

    neighbours = list(zip(personal, [*personal[1:], personal[0]], strict=True))
    count = len(leading)
    return {
        "angles": {
            "collective and δ": beside(mean([(collective, leading)]), rank, count),
            "personal and δ": beside(mean([(R, leading) for R in personal]), own_rank, count),
            "personal and collective": beside(mean([(R, collective) for R in personal]), own_rank, rank),
            "personal and another's": beside(mean(neighbours), own_rank, own_rank),
        },
        "share_of_δ": {
            "collective": subspaces.share_within(deltas, collective),
            "collective_chance": rank / size,
            "personal_own": float(
                np.mean([subspaces.share_within(v[None], R) for v, R in zip(deltas, personal, strict=True)])
            ),
            "personal_chance": own_rank / size,
        },
    }


def _functions(own: Sequence[Sequence[Edit]], seed: int) -> dict[str, Any]:
    """Variance of the first training's edits, and how every two trainings agree."""
    products = subspaces.inner_products(own[0])
    energy = subspaces.function_energies(products)
    found: dict[str, Any] = {
        "dimensions": {str(share): spectrum.dimensions_for(energy, share) for share in spectrum.SHARES},
        "cumulative": (energy.cumsum() / max(energy.sum(), np.finfo(float).tiny)).tolist(),
        "trainings": [],
    }
    for a, b in permutations(range(len(own)), 2):
        between = subspaces.inner_products(own[a], own[b])
        squares = [np.diag(subspaces.inner_products(edits)) for edits in (own[a], own[b])]
        apart = squares[0][:, None] + squares[1][None] - 2 * between
        distances = [subspaces.function_distances(subspaces.inner_products(edits)) for edits in (own[a], own[b])]
        rho, p = clusters.distances_agree(*distances, seed=seed)
        users = len(apart)
        found["trainings"].append(
            {
                "pair": [a, b],
                "nearest_is_own": float((apart.argmin(1) == np.arange(users)).mean()),
                "chance": 1 / users,
                "distances_rho": rho,
                "distances_p": p,
            }
        )
    return found


def _groups(
    own: Sequence[Sequence[Edit]], planted: Mapping[str, Sequence[str]], count: int, seed: int
) -> dict[str, Any]:
    """Each training's groups, and how well they agree with planted habits and with each other."""
    distances = [subspaces.function_distances(subspaces.inner_products(edits)) for edits in own]
    labels = [clusters.average_linkage(distance, count) for distance in distances]
    habits = {}
    for habit, words_of in planted.items():
        indices = [clusters.adjusted_rand_index(of_training, words_of) for of_training in labels]
        nearest = [clusters.nearest_agree(distance, words_of) for distance in distances]
        habits[habit] = {
            "adjusted_rand_index": indices,
            "p": [
                clusters.chance_of(index, of_training, words_of, seed=seed)
                for index, of_training in zip(indices, labels, strict=True)
            ],
            "nearest_agrees": [share for share, _ in nearest],
            "nearest_by_chance": nearest[0][1],
        }
    between = [clusters.adjusted_rand_index(labels[0], other) for other in labels[1:]]
    return {"count": count, "labels": labels, "habits": habits, "between_trainings": between}


def words(result: dict[str, Any]) -> list[str]:
    of_delta = result["subspaces"]["share_of_δ"]
    angle = result["subspaces"]["angles"]["collective and δ"]
    functions, said = result["functions"], []
    said.append(
        f"the collective edit's rows hold {100 * of_delta['collective']:.1f} % of the δ-vectors' squared length, by "
        f"chance {100 * of_delta['collective_chance']:.1f} %; smallest angle {number(angle['angles'][0], 1)}°, of "
        f"random subspaces {number(angle['random'][0], 1)}°"
    )
    said.append(
        f"a user's own rows hold {100 * of_delta['personal_own']:.1f} % of the user's δ-vector, by chance "
        f"{100 * of_delta['personal_chance']:.1f} %"
    )
    need = functions["dimensions"]
    said.append(
        f"as functions, {', '.join(str(r) for r in need.values())} directions hold 80, 90, 95 % of what differs "
        f"between {result['of']['users']} users' edits"
    )
    for t in functions["trainings"][:1]:
        said.append(
            f"two trainings: {100 * t['nearest_is_own']:.0f} % of users have their own edit nearest (chance "
            f"{100 * t['chance']:.0f} %); distances between users agree with ρ = {number(t['distances_rho'])}, "
            f"p = {t['distances_p']:.2g}"
        )
    for habit, found in result["groups"]["habits"].items():
        said.append(
            f"planted {habit}: adjusted Rand index {', '.join(number(i) for i in found['adjusted_rand_index'])} "
            f"(p {', '.join(f'{p:.2g}' for p in found['p'])}); the nearest other has the same one in "
            f"{', '.join(f'{100 * s:.0f} %' for s in found['nearest_agrees'])}, by chance "
            f"{100 * found['nearest_by_chance']:.0f} %"
        )
    return said


def tables(result: dict[str, Any]) -> list[Table]:
    rows = [
        [name, ", ".join(number(a, 0) for a in pair["angles"][:6]), ", ".join(number(a, 0) for a in pair["random"][:6])]
        for name, pair in result["subspaces"]["angles"].items()
    ]
    return [Table("Principal angles in degrees, smallest first", ("subspaces", "angles", "random ones'"), rows)]


def drawings(result: dict[str, Any]) -> list[Drawing]:
    of = caption(result["of"])

    def angles(figure: Any) -> None:
        axes = figure.add_subplot()
        looks = zip((OWN, DIFFERENCE, OTHER, SERIES[3]), "os^D", strict=True)
        for (name, pair), (colour, marker) in zip(result["subspaces"]["angles"].items(), looks, strict=True):
            places = range(1, len(pair["angles"]) + 1)
            axes.plot(places, pair["angles"], color=colour, marker=marker, markersize=4, label=name)
            axes.plot(places, pair["random"], color=colour, linestyle=":", linewidth=1)
        axes.plot([], [], color=CHANCE, linestyle=":", label="random subspaces")
        axes.set_ylim(0, 92)
        axes.set_xlabel("principal angle, smallest first")
        axes.set_ylabel("degrees")
        grid(axes)
        legend(figure)

    def variance(figure: Any) -> None:
        axes = figure.add_subplot()
        held = result["functions"]["cumulative"]
        axes.plot(range(1, len(held) + 1), held, color=DIFFERENCE, marker="o", markersize=3)
        for share in spectrum.SHARES:
            axes.axhline(share, color=CHANCE, linewidth=0.6)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("directions in the space of functions")
        axes.set_ylabel("share of variance between users")
        grid(axes)

    return [
        Drawing("learned-angles", f"Trained edits and δ-vectors as subspaces\n{of}", 4, angles),
        Drawing("learned-variance", f"Personal edits as functions\n{of}", 3.2, variance),
    ]
