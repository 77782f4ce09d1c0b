"""`explore.py rank`: in how few directions do users' shifts lie? The paper's Table 1, and what chance would give."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from console.command import Parser
from rich.console import Console

from exploration.figures import CHANCE, OTHER, OWN, SERIES, Drawing, Table, grid, legend, logarithmic, number
from exploration.options import add_context, add_device, caption, facts, subject
from exploration.vectors import Array, Result, vectors_of
from fed.exploration.spectrum import SHARES, above_chance, bootstrap, centred, dimensions_for, energies

SUMMARY = "how many directions hold 80, 90, 95 % of the variance (Table 1)"
PAPER = {  # the authors' page: Llama-2-7B, d = 4096, layer 16; r at 80, 90, 95 %
    "LaMP_2M": (1, 3, 12),
    "LaMP_2N": (1, 4, 20),
    "LaMP_3": (3, 18, 93),
    "LaMP_4": (34, 167, 368),
    "LaMP_5": (4, 40, 203),
    "LaMP_7": (3, 32, 177),
}
PAPER_SIZE = 4096
WHOSE = {"own": "own history", "other": "another user's history"}


def add_options(p: Parser) -> None:
    add_context(p)
    add_device(p)


def run(options: argparse.Namespace, console: Console) -> Result:
    looked_at = subject(options)
    vectors = vectors_of(options, console, looked_at)
    spectra = [
        _spectrum(values, whose=whose, centre=centre, seed=options.seed)
        for whose, values in (("own", vectors.own), ("other", vectors.other))
        for centre in (False, True)
    ]
    return {
        "of": facts(options, looked_at.base.skeleton, len(vectors.users)) | {"layer": looked_at.context.layer},
        "spectra": spectra,
        "paper": dict(zip(map(str, SHARES), PAPER[options.task], strict=True)),
    }


def _spectrum(vectors: Array, *, whose: str, centre: bool, seed: int) -> Result:
    energy = energies(centred(vectors) if centre else vectors)
    ranks = {share: dimensions_for(energy, share) for share in SHARES}
    held = bootstrap(vectors, centre=centre, seed=seed)
    chance = above_chance(vectors, centre=centre, seed=seed)
    return {
        "whose": whose,
        "centred": centre,
        "dimensions": {str(share): ranks[share] for share in SHARES},
        "per_mille": {str(share): 1000 * ranks[share] / vectors.shape[1] for share in SHARES},
        "bootstrap": {str(share): held[share] for share in SHARES},
        "random": {str(share): chance.dimensions[share] for share in SHARES},
        "above_chance": chance.above,
        "p_values": chance.p_values,
        "singular_values": np.sqrt(energy).tolist(),
        "cumulative": _cumulative(energy),
        "cumulative_random": _cumulative(chance.energies),
        "most": len(vectors) - centre,
    }


def _cumulative(energy: Array) -> list[float]:
    return (energy.cumsum() / max(energy.sum(), np.finfo(float).tiny)).round(6).tolist()


def words(result: Result) -> list[str]:
    of = result["of"]
    first, middle = result["spectra"][0], result["spectra"][1]
    low, high = str(SHARES[0]), str(SHARES[-1])
    said = [
        f"r at {', '.join(f'{100 * s:.0f} %' for s in SHARES)}: "
        f"{', '.join(str(first['dimensions'][str(s)]) for s in SHARES)} of {of['hidden_size']} "
        f"(the paper, of {PAPER_SIZE}: {', '.join(str(result['paper'][str(s)]) for s in SHARES)}); "
        f"random directions need {number(first['random'][low], 0)} and {number(first['random'][high], 0)} at "
        f"80 and 95 %",
        f"above chance: {first['above_chance']} directions, {middle['above_chance']} of them between users (centred); "
        f"with another's history {result['spectra'][2]['above_chance']} and {result['spectra'][3]['above_chance']}",
    ]
    if of["users"] <= of["hidden_size"]:
        said.append(
            f"{of['users']} users span at most {of['users']} of {of['hidden_size']} dimensions: r is bounded by the "
            "users, so read it beside that of random directions, not beside the paper's"
        )
    return said


def tables(result: Result) -> list[Table]:
    size = result["of"]["hidden_size"]
    rows = []
    for s in result["spectra"]:
        cells = []
        for share in map(str, SHARES):
            low, high = s["bootstrap"][share]
            cells.append(
                f"{s['dimensions'][share]} [{low:.0f}, {high:.0f}], {number(s['per_mille'][share], 1)} ‰; "
                f"{number(s['random'][share], 1)}"
            )
        name = f"{WHOSE[s['whose']]}, {'centred' if s['centred'] else 'uncentred'}"
        rows.append([name, *cells, str(s["above_chance"]), str(s["most"])])
    paper = [f"{r}, {number(1000 * r / PAPER_SIZE, 1)} ‰" for r in result["paper"].values()]
    rows.append(["the paper: Llama-2-7B, block 16", *paper, "", ""])
    head = ("vectors", *(f"r at {100 * share:.0f} %" for share in SHARES), "above chance", "at most")
    title = f"r [bootstrap over users], per mille of d = {size}; r of random directions"
    return [Table(title, head, rows)]


def drawings(result: Result) -> list[Drawing]:
    def paint(figure: Any) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, centre in zip(panels, (False, True), strict=True):
            of_panel = [s for s in result["spectra"] if s["centred"] is centre]
            random = of_panel[0]["cumulative_random"]
            axes.plot(range(1, len(random) + 1), random, color=CHANCE, linestyle=":", label="random directions")
            for s, colour, dash in zip(of_panel, (OWN, OTHER), ("-", "--"), strict=True):
                places = range(1, len(s["cumulative"]) + 1)
                axes.plot(places, s["cumulative"], color=colour, linestyle=dash, label=WHOSE[s["whose"]])
            for share in SHARES:
                axes.axhline(share, color=SERIES[4], linewidth=0.6, alpha=0.6)
            logarithmic(axes)
            axes.set_ylim(0, 1.02)
            axes.set_ylabel(f"share of variance\n({'centred' if centre else 'uncentred'})")
            grid(axes)
        panels[1].set_xlabel("directions (logarithmic)")
        legend(figure)

    return [Drawing("rank", f"Variance that the leading directions hold\n{caption(result['of'])}", 5, paint)]
