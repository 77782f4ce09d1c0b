"""Do two runs agree?  `python sims/compare_runs.py A/report.json B/report.json [--within 0.005]`

Prints the largest relative difference of every arm's and every user's scores, and whether `arms` are equal bit for bit.
Exits 1 where a loss differs by more than `--within` (a share of the loss; 0, the default, asks for equal bits), 2
where the reports do not describe the same users and arms.
"""

from __future__ import annotations

from pathlib import Path

import console.installed  # noqa: F401  a Python without the project ends here
from console.command import options_of, start, told
from rich.console import Console
from rich.table import Table
from scores.agreement import differences, in_both, relative, scores

from fed import strict_json


@told(failed=2)
def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("first", type=Path, help="a report.json")
    parser.add_argument("second", type=Path, help="another")
    parser.add_argument("--within", type=float, default=0.0, help="largest share by which a loss may differ")
    options = parser.parse_args()
    first, second = (scores(strict_json.loads(path.read_text())) for path in (options.first, options.second))
    first, second, odd = in_both(first, second)
    rows = list(differences(first, second))
    if not rows:
        raise ValueError("the reports have no arm in common")
    table = Table("arm", "metric", "differs most", "first", "second", "relative difference", "over all users")
    for arm, metric, who, a, b, share in rows:
        whole = relative(first["all users", arm, metric], second["all users", arm, metric])
        shares = (f"{x:.1e}" if x else "0" for x in (share, whole))
        table.add_row(arm, metric, who, f"{a:.6f}", f"{b:.6f}", *shares)
    Console().print(table)
    if odd:
        print(f"only in one of the reports, and not compared: {', '.join(odd)}")
    print("arms and users' scores are " + ("equal, bit for bit" if first == second else "not equal bit for bit"))
    worst = max(share for _, metric, _, _, _, share in rows if metric == "loss_per_token")
    return int(worst > options.within)


if __name__ == "__main__":
    start(main)
