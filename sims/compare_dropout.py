"""What do devices that drop out cost? Time and loss of stage 1 at several rates, with and without over-selection.

    python sims/compare_dropout.py --rates 0,0.1,0.3 --seeds 0,1,2 --json dropout.json

Runs of lamp7 in this process, on made-up users. A device's pace is drawn once (`slow-rate`), who drops out in each
round; time is simulated (`server_strategy/rounds/participation.py`), the loss is measured: loss per token after stage 1
on the queries. Over-selection asks 1.3 times as many users as a round needs and averages the first to answer; without
it a round waits for all that it asked, until its deadline. FILE is written anew after every run, and a run that it has
is not made again; beside it a figure is written (.png and .svg).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here
import matplotlib
from console import terminal
from console.command import GOES_ON, numbers, options_of, start, told
from console.files import write_json
from console.machine import machine
from rich.progress import Progress
from rich.table import Table
from simulation.apps import parsed, settings
from simulation.in_process import run_here

from fed import strict_json
from server_strategy.grid.nodes import RunError

OVER = (1.0, 1.3)
# Four of lamp7's eight users a round, whose steps take up to a second; a round waits for nobody longer than six.
SMALL: dict[str, Any] = {
    "method": "perfit-stage1",
    "data": "synthetic:16",
    "rounds": 3,
    "fraction": 0.5,
    "local-epochs": 2,
    "max-items": 4,
    "max-queries": 4,
    "max-new-tokens": 0,
    "slow-rate": 2.0,
    "round-deadline": 6.0,
}


@told(stopped=GOES_ON)
def main() -> int:
    p = options_of(__doc__)
    p.add_argument(
        "--rates", type=_rates, default=[0.0, 0.1, 0.3], metavar="R,…", help="drop-rate of each run (0,0.1,0.3)"
    )
    p.add_argument("--seeds", type=numbers, default=[0, 1, 2], metavar="S,…", help="a run each (0,1,2)")
    p.add_run_config("settings of all runs; or a TOML file")
    p.add_argument("--json", type=Path, metavar="FILE", help="results; runs that it has are not made again")
    options = p.parse_args()
    config = SMALL | parsed(options.run_config)
    console, runs = terminal.console(), finished(options.json, config)
    made = {(run["drop_rate"], run["over_selection"], run["seed"]) for run in runs}
    asked = [(rate, over, seed) for rate in options.rates for over in OVER for seed in options.seeds]
    grid = [each for each in asked if each not in made]
    with tempfile.TemporaryDirectory(prefix="perfit-dropout-") as scratch, Progress(console=console) as progress:
        bar = progress.add_task("", total=len(grid))
        for rate, over, seed in grid:
            progress.update(bar, description=f"drop-rate {rate:g}, over-selection {over:g}, seed {seed}")
            changes = {"drop-rate": rate, "over-selection": over, "seed": seed, "output-dir": scratch}
            report = report_of(config | changes)
            runs.append(
                {
                    "drop_rate": rate,
                    "over_selection": over,
                    "seed": seed,
                    "rounds": report["rounds"],
                    "users": mean(row["users"] for row in report["rounds"]),
                    "simulated_seconds": mean(row["simulated_seconds"] for row in report["rounds"]),
                    "loss": report["arms"]["stage1"]["loss_per_token"],
                    "down": report["bytes"]["stage1"]["down"]["payload"],
                }
            )
            progress.update(bar, advance=1)
            if options.json:  # after every run
                write_json(options.json, {"machine": machine(), "settings": config, "runs": runs})
    console.print(table(runs))
    if options.json:
        plot(runs, options.json)
    return 0


def finished(file: Path | None, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that the file has. Raises ValueError where it is of other settings, or no file of this command."""
    if file is None or not file.exists():
        return []
    try:
        content = strict_json.loads(file.read_text(encoding="utf-8"))
        same, runs = content["settings"] == config, list(content["runs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--json must name a new file, or one of this command, got {str(file)!r}") from error
    if not same:
        raise ValueError(f"{str(file)!r} has runs of other settings ({content['settings']}); give another --json")
    return runs


def report_of(config: dict[str, Any]) -> dict[str, Any]:
    """A run's report. Raises ValueError where the run fails, such as by too few replies."""
    run_settings = settings("lamp7", config)
    try:
        with redirect_stdout(StringIO()):
            path = run_here(run_settings)
    except RunError as problem:
        where = f"drop-rate {run_settings.drop_rate:g}, over-selection {run_settings.over_selection:g}"
        raise ValueError(f"the run at {where}, seed {run_settings.seed} failed: {problem}") from None
    return dict(strict_json.loads(path.read_text(encoding="utf-8")))


def _rates(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a rate and over-selection; users, simulated_seconds, loss, down: (mean, standard deviation) over seeds."""
    rows = []
    for rate, over in sorted({(run["drop_rate"], run["over_selection"]) for run in runs}):
        those = [run for run in runs if (run["drop_rate"], run["over_selection"]) == (rate, over)]
        row: dict[str, Any] = {"drop_rate": rate, "over_selection": over}
        for key in ("users", "simulated_seconds", "loss", "down"):
            values = [run[key] for run in those]
            row[key] = (mean(values), stdev(values) if len(values) > 1 else 0.0)
        rows.append(row)
    return rows


def table(runs: Sequence[dict[str, Any]]) -> Table:
    """The summary, ± a standard deviation over seeds."""
    shown = Table(title="Devices that drop out: means over seeds ± a standard deviation")
    for heading in (
        "drop-rate",
        "over-selection",
        "users averaged",
        "simulated s a round",
        "loss per token",
        "KiB down",
    ):
        shown.add_column(heading, justify="right")
    for row in summary(runs):
        (users, _), (seconds, s), (loss, e), (down, _) = (
            row[key] for key in ("users", "simulated_seconds", "loss", "down")
        )
        shown.add_row(
            f"{row['drop_rate']:.0%}",
            f"{row['over_selection']:.0%}",
            f"{users:.2f}",
            f"{seconds:.2f} ± {s:.2f}",
            f"{loss:.4f} ± {e:.4f}",
            f"{down / 1024:,.0f}",
        )
    return shown


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Simulated seconds a round, and loss, against the drop-rate."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    titles = {"simulated_seconds": "Simulated seconds a round", "loss": "Loss per token after stage 1"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for over, style in zip(OVER, ("o-", "s--"), strict=True):
            rows = [row for row in summary(runs) if row["over_selection"] == over]
            if rows:
                points = ([row["drop_rate"] * 100 for row in rows], *zip(*(row[key] for row in rows), strict=True))
                axis.errorbar(points[0], points[1], points[2], fmt=style, capsize=3, label=f"{over:.0%} asked")
        axis.set(xlabel="devices that drop out of a round (%)", title=title)
        axis.grid(True, alpha=0.25)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    for ending in (".png", ".svg"):
        figure.savefig(path.with_suffix(ending), dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    start(main)
