"""What finished cells say: differences with intervals, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from exploration.figures import MARKERS, SERIES, Drawing, Table, grid, legend, number

from averages.attacks import ATTACKS
from averages.cells import SHARES
from fed.statistics import holm, paired_t

Results = Sequence[dict[str, Any]]
AGAINST = "fedavg"  # what an average is held against
SPANS = {"round 1": slice(1), "last round": slice(-1, None), "all rounds": slice(None)}


def of_drift(results: Results, epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Finished honest cells at one drift: average -> its cells, seed by seed."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        cell = result["cell"]
        if cell["epochs"] == epochs and not cell["attack"] and "rounds" in result:
            cells.setdefault(cell["average"], []).append(result)
    return cells


def differences(results: Results) -> list[dict[str, Any]]:
    """Every average minus `AGAINST`, drift by drift, after the first round, the last one, and over all rounds.

    A user's difference is the mean over the seeds that both have; the interval is the 95 % t interval over users, p is
    corrected (Holm) for all averages and drifts after as many rounds.
    """
    rows = []
    for epochs in sorted({result["cell"]["epochs"] for result in results}):
        cells = of_drift(results, epochs)
        against = {result["cell"]["seed"]: result for result in cells.get(AGAINST, [])}
        for average, own in cells.items():
            pairs = [(one, against[one["cell"]["seed"]]) for one in own if one["cell"]["seed"] in against]
            if average == AGAINST or not pairs:
                continue
            for what in SPANS:
                by_seed = np.array([_of_users(one, what) - _of_users(other, what) for one, other in pairs])
                users = by_seed.mean(0)
                low, high = paired_t.interval(users) if len(users) > 1 else (None, None)
                rows.append(
                    {
                        "average": average,
                        "epochs": epochs,
                        "of": what,
                        "seeds": len(pairs),
                        "users": len(users),
                        "difference": float(users.mean()),
                        "low": None if low is None else float(low),
                        "high": None if high is None else float(high),
                        "p": paired_t.p_value(users) if len(users) > 1 else None,
                        "by_seed": by_seed.mean(1).tolist(),
                    }
                )
    for what in SPANS:
        family = [row for row in rows if row["of"] == what]
        for row, p in zip(family, holm.corrected([row["p"] for row in family]), strict=True):
            row["p"] = p
    return rows


def _of_users(result: dict[str, Any], what: str) -> Any:
    """Loss per token of each test user, sorted by id."""
    rounds = result["rounds"][SPANS[what]]
    return np.array([[n / t for _, (n, t) in sorted(one["users"].items())] for one in rounds]).mean(0)


def tables(results: Results) -> list[Table]:
    """Loss after each round, a table a drift; then the differences."""
    made = []
    for epochs in sorted({result["cell"]["epochs"] for result in results}):
        cells = of_drift(results, epochs)
        rows = [["base, untrained", f"{own[0]['base_loss']:.3f}"] for own in list(cells.values())[:1]]
        for average, own in cells.items():
            losses = np.array([[one["loss"] for one in result["rounds"]] for result in own])
            off = max(one["orthogonality_error"] for result in own for one in result["rounds"])
            rows.append([average, *(_spread(losses[:, place]) for place in range(losses.shape[1])), f"{off:.1g}"])
        rounds = max((len(row) - 2 for row in rows[1:]), default=0)
        head = ("average", *(f"round {place + 1}" for place in range(rounds)), "|R Rᵀ − I|")
        made.append(Table(f"Loss per token, local epochs {epochs}: mean ± standard deviation over seeds", head, rows))
    gaps = [
        [
            row["average"],
            str(row["epochs"]),
            row["of"],
            number(row["difference"], 4),
            f"[{number(row['low'], 4)}, {number(row['high'], 4)}]",
            "–" if row["p"] is None else f"{row['p']:.3g}",
            ", ".join(number(value, 4) for value in row["by_seed"]),
        ]
        for row in differences(results)
    ]
    head = ("average", "epochs", "after", f"minus {AGAINST}", "95 % over users", "p (Holm)", "seed by seed")
    return [*made, Table("Below zero: better", head, gaps)]


def _spread(values: Any) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def drawing(results: Results, name: str, of: str) -> Drawing:
    """Loss by round, a panel a drift, a line an average; the points are means over seeds. name: of its files."""
    drifts = sorted({result["cell"]["epochs"] for result in results})

    def paint(figure: Any) -> None:
        panels = figure.subplots(1, len(drifts), sharey=True, squeeze=False)[0]
        for axes, epochs in zip(panels, drifts, strict=True):
            for place, (average, own) in enumerate(of_drift(results, epochs).items()):
                losses = np.array([[one["loss"] for one in result["rounds"]] for result in own]).mean(0)
                style = {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)]}
                axes.plot(range(1, len(losses) + 1), losses, markersize=4, label=average, **style)
                axes.set_xticks(range(1, len(losses) + 1))
            axes.set_title(f"local epochs {epochs}", fontsize=9)
            axes.set_xlabel("round")
            grid(axes)
        panels[0].set_ylabel("loss per token")
        legend(figure, 3)

    return Drawing(name, f"Test loss of the collective edit after each round\n{of}", 3.4, paint)


def attack_tables(results: Results) -> list[Table]:
    """A table an attack: the loss after the last round of every average by the share of users who lie.

    That of the backdoor has the loss of the attacker's answer behind the trigger too.
    """
    names = list(dict.fromkeys(result["cell"]["average"] for result in results))
    by_cell = {(r["cell"]["average"], r["cell"]["attack"], r["cell"]["share"]): r for r in results}

    def shown(average: str, attack: str, share: float, key: str = "loss") -> str:
        result = by_cell.get((average, attack, share))
        if result is None:
            return ""
        return "refused" if "refused" in result else f"{result['rounds'][-1][key]:.3f}"

    made = []
    for attack in ATTACKS:
        head = ["average", "honest", *(f"{share:.0%}" for share in SHARES)]
        rows = [[name, shown(name, "", 0.0), *(shown(name, attack, share) for share in SHARES)] for name in names]
        if attack == "backdoor":
            head += [f"answer, {share:.0%}" for share in SHARES]
            rows = [[*row, *(shown(row[0], attack, share, attack) for share in SHARES)] for row in rows]
        made.append(Table(f"Loss per token after the last round, {attack}, by share of users who lie", head, rows))
    return made
