"""`explore.py shift`: is there a shift that all users share, and is it more than what any context does? Figure 2."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from console.command import Parser
from rich.console import Console

from exploration.figures import DIFFERENCE, FAINT, INK, OTHER, OWN, Drawing, Table, grid, legend, number
from exploration.options import add_context, add_device, caption, facts, subject
from exploration.vectors import Array, Result, vectors_of
from fed.exploration.collective_shift import agreement, collective_shift, cosine, on_principal_axes

SUMMARY = "the mean shift, against its error and against other users' histories (Figure 2)"
LEVEL = 0.05
COORDINATES = 5
NAMES = {"own": "own history", "other": "another's history", "difference": "own minus another's"}
COLOURS = {"own": OWN, "other": OTHER, "difference": DIFFERENCE}


def add_options(p: Parser) -> None:
    add_context(p)
    add_device(p)


def run(options: argparse.Namespace, console: Console) -> Result:
    looked_at = subject(options)
    vectors = vectors_of(options, console, looked_at)
    sets = {"own": vectors.own, "other": vectors.other, "difference": vectors.own - vectors.other}
    # In the control user i's queries meet the lender's history: with whom does what is personal go?
    lender = [vectors.users.index(vectors.lender[user]) for user in vectors.users]
    personal = {
        "history": agreement(vectors.other, vectors.own[lender], seed=options.seed),
        "queries": agreement(vectors.other, vectors.own, seed=options.seed),
    }
    places, mean, shares = on_principal_axes(vectors.own)
    return {
        "of": facts(options, looked_at.base.skeleton, len(vectors.users)) | {"layer": looked_at.context.layer},
        "tests": {name: _tested(values, options.seed) for name, values in sets.items()},
        "cosine_of_means": cosine(vectors.own.mean(0), vectors.other.mean(0)),
        "personal": {name: {"cosine": c, "p": p} for name, (c, p) in personal.items()},
        "axes": {"users": places.tolist(), "mean": mean.tolist(), "shares": shares.tolist()},
        "coordinates": {name: values[:, :COORDINATES].tolist() for name, values in sets.items()},
    }


def _tested(vectors: Array, seed: int) -> Result:
    shift = collective_shift(vectors, seed=seed)
    return {
        "length": float(np.linalg.norm(shift.mean)),
        "p_whole": shift.p_whole,
        "coordinates_found": int((shift.p_values < LEVEL).sum()),
        "share": shift.share,
        "over_error": [float(min(max(t, -1e6), 1e6)) for t in shift.over_error],
        "p_values": shift.p_values.tolist(),
    }


def words(result: Result) -> list[str]:
    own, other, difference = (result["tests"][name] for name in ("own", "other", "difference"))
    history, queries = result["personal"]["history"], result["personal"]["queries"]
    size = result["of"]["hidden_size"]
    told = "is" if difference["p_whole"] < LEVEL else "is not"
    return [
        f"all users share a shift: p = {own['p_whole']:.2g} as a whole, {own['coordinates_found']} of {size} "
        f"coordinates (Holm), {100 * own['share']:.0f} % of the mean squared length"
        if own["p_whole"] < LEVEL
        else f"no shift that all users share is seen: p = {own['p_whole']:.2g}",
        f"another user's history gives {100 * other['share']:.0f} % and a mean whose cosine with it is "
        f"{result['cosine_of_means']:.3f}; the mean of own minus another's {told} told from zero: "
        f"p = {difference['p_whole']:.2g}, {difference['coordinates_found']} coordinates, "
        f"length {difference['length']:.1f} beside {own['length']:.1f}",
        f"what differs between users goes with whose history was read (cosine {number(history['cosine'])}, p = "
        f"{history['p']:.2g}) and with whose queries were asked ({number(queries['cosine'])}, p = {queries['p']:.2g})",
    ]


def tables(result: Result) -> list[Table]:
    rows = [
        [
            NAMES[name],
            number(t["length"]),
            f"{100 * t['share']:.0f} %",
            f"{t['p_whole']:.2g}",
            str(t["coordinates_found"]),
        ]
        for name, t in result["tests"].items()
    ]
    head = ("vectors", "length of the mean", "shared by all", "p, as a whole", "coordinates, p < 5 % (Holm)")
    return [Table("The mean shift of all users", head, rows)]


def drawings(result: Result) -> list[Drawing]:
    of = caption(result["of"])

    def users(figure: Any) -> None:
        axes = figure.add_subplot()
        x, y = np.array(result["axes"]["users"]).T
        axes.scatter(x, y, s=22, color=OWN, alpha=0.75, label="a user")
        axes.scatter(*result["axes"]["mean"], s=130, marker="*", color=OTHER, zorder=4, label="the mean of all")
        axes.scatter(0, 0, s=60, marker="+", color=INK, zorder=4, label="no shift")
        for side, share in zip("xy", result["axes"]["shares"], strict=True):
            number_of = "first" if side == "x" else "second"
            words_of = f"{number_of} principal axis\n(hidden-state units, {100 * share:.0f} % of variance)"
            axes.set(**{f"{side}label": words_of})
        grid(axes)
        legend(figure, 3)

    def violins(figure: Any) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, name in zip(panels, ("own", "other"), strict=True):
            values = np.array(result["coordinates"][name])
            parts = axes.violinplot(values, positions=range(values.shape[1]), widths=0.8, showmeans=True)
            for body in parts["bodies"]:
                body.set(facecolor=COLOURS[name], edgecolor=COLOURS[name], alpha=0.35)
            for key in ("cmeans", "cbars", "cmins", "cmaxes"):
                parts[key].set(color=COLOURS[name], linewidth=1)
            axes.axhline(0, color=FAINT, linewidth=0.8)
            axes.set_ylabel(f"{NAMES[name]}\n(hidden-state units)")
            grid(axes)
        panels[1].set_xticks(range(np.array(result["coordinates"]["own"]).shape[1]))
        panels[1].set_xlabel("coordinate of the hidden state")

    def errors(figure: Any) -> None:
        axes = figure.add_subplot()
        for (name, t), dash in zip(result["tests"].items(), ("-", "--", ":"), strict=True):
            values = np.sort(np.abs(t["over_error"]))[::-1]
            axes.plot(range(1, len(values) + 1), values, color=COLOURS[name], linestyle=dash, label=NAMES[name])
        axes.set_xlabel("coordinates, in order")
        axes.set_ylabel("|mean over its standard error|")
        axes.set_ylim(bottom=0)
        grid(axes)
        legend(figure)

    return [
        Drawing("shift-users", f"Users' shifts on two principal axes\n{of}", 4, users),
        Drawing("shift-coordinates", f"The first {COORDINATES} coordinates over users\n{of}", 4.6, violins),
        Drawing("shift-errors", f"How sure is the mean shift, coordinate by coordinate?\n{of}", 3.6, errors),
    ]
