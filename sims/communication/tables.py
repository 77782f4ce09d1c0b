"""The tables of `compare_comm.py`: each scenario's rows for people (rich) and for programs (CSV and JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from console.files import Rows
from rich import box
from rich.table import Table

from communication.frontier import OPPU, WIDE, shown
from fed.communication.wire import is_narrow
from server_strategy.report.tables import human_bytes

Report = dict[str, Any]


def tables(report: Report) -> list[Table]:
    """The paper's table, the methods' tensors and the three scenarios."""
    settings, scenarios = report["settings"], report["scenarios"]
    base, dtype = report["model"], settings["wire_dtype"]
    ways = "up" if is_narrow(dtype) else "down = up"
    return [
        _table(
            "PerFit's tables 2 and 3, recomputed (Llama-2-7B; rank biases left out, as in the paper)",
            ["table", "LaMP", "stage", "PerFit parameters", "of the base", "OPPU parameters", "less than OPPU's"],
            [
                [
                    str(row["table"]),
                    row["task"],
                    str(row["stage"]),
                    f"{row['perfit_parameters']:,}",
                    f"{row['percent_of_base']:.4f} %",
                    f"{row['oppu_parameters']:,}",
                    f"{row['reduction_percent']:.2f} %",
                ]
                for row in report["paper_table"]
            ],
        ),
        _table(
            f"One user's tensors on {base['name']} ({base['parameters']:,} parameters), {dtype}",
            ["method", "federated", "bytes", "private", "bytes"],
            [
                [
                    row["method"],
                    f"{row['federated_parameters']:,}",
                    human_bytes(row["federated_bytes"]),
                    f"{row['private_parameters']:,}",
                    human_bytes(row["private_bytes"]),
                ]
                for row in report["methods"]
            ],
        ),
        _table(
            f"(a) Federated training: {settings['users']:,} users, {settings['rounds']:,} rounds, "
            f"fraction {settings['fraction']:g}",
            ["method", "users\na round", f"user's message\n{ways}", f"round\n{ways}", "hand-out",
             "total", "mean\na user"],
            [
                [row["method"], f"{row['sampled']:,}"]
                + [human_bytes(row[key]) for key in ("message_up", "round_up", "hand_out", "total", "per_user")]
                for row in scenarios["federated"]
            ],
        ),
        _storage_table(scenarios["storage"]),
        _serving_table(scenarios["serving"]),
    ]  # fmt: skip


def measured_tables(runs: Sequence[dict[str, Any]], quality: Rows) -> list[Table]:
    """Measured against analytic payload, message by message, and scenario (d)."""
    return [
        _table(
            "Measured in the Flower app, against the analysis (payload of one message)",
            ["method", "phase", "way", "messages", "measured", "analytic", "equal", "record\n+", "wire\n+", "in all"],
            [
                [
                    row["method"],
                    row["phase"],
                    row["direction"],
                    f"{row['messages']:,}",
                    f"{row['measured_payload']:,} B",
                    f"{row['analytic_payload']:,} B",
                    "yes" if row["equal"] else "NO",
                    *(_each(row[key], row["messages"]) for key in ("record_overhead", "wire_overhead")),
                    human_bytes(row["total_payload"]),
                ]
                for run in runs
                for row in run["messages"]
                if row["messages"]
            ],
        ),
        _table(
            "(d) Quality against bytes, all test users",
            ["method", "", "payload in all", "private\nparameters", "loss\nper token", "ROUGE-L"],
            [
                [
                    row["method"],
                    row["stage"],
                    human_bytes(row["total_payload"]),
                    f"{row['private_parameters']:,}",
                    f"{row['loss_per_token']:.4f}",
                    "" if row["rougeL"] is None else f"{row['rougeL']:.4f}",
                ]
                for row in quality
            ],
        ),
    ]


def frontier_tables(report: Report) -> list[Table]:
    """Bytes of a message up by every lever, counted; and where runs were made, what they are worth."""
    by = {(row["frozen_r"], row["rank"], row["dtype"]): row for row in report["counted"]}
    dtypes = list(dict.fromkeys(dtype for _, _, dtype in by))
    counted = _table(
        f"Bytes of one user's message up, counted on {report['model']}: PerFit, and times fewer than OPPU's float32",
        ["R", "rank", *dtypes],
        [
            ["frozen" if frozen else "sent", str(rank)]
            + [f"{by[frozen, rank, d]['bytes']:,} B, {by[frozen, rank, d]['times']:.0f} ×" for d in dtypes]
            for frozen, rank in dict.fromkeys((frozen, rank) for frozen, rank, _ in by)
        ],
    )
    if "measured" not in report:
        return [counted]
    return [
        counted,
        _table(
            f"Measured: up of one user a round, loss per token after stage 2, seed {report['settings']['seed']}",
            ["lever", "payload", "fewer", "wire", "fewer", "loss", f"% above {WIDE}", f"% above {OPPU}", "goal"],
            shown(report["measured"]),
        ),
        _table(
            f"Entropy coding of the change that {WIDE} made, bytes",
            ["dtype", "plain", "deflated", "zlib", "LZMA"],
            [
                [row["dtype"], *(_of_plain(row[key], row["plain"]) for key in ("plain", "deflated", "zlib", "lzma"))]
                for row in report["codings"]
            ],
        ),
    ]


def _of_plain(size: int | None, plain: int) -> str:
    return "–" if size is None else f"{size:,}" if size == plain else f"{size:,} ({100 * size / plain - 100:+.1f} %)"


def _each(total: int, messages: int) -> str:
    return f"{total / messages:,.0f} B" if messages else ""


def _storage_table(rows: Rows) -> Table:
    crowds = sorted({row["users"] for row in rows})
    by = {(row["method"], row["users"]): row for row in rows}
    return _table(
        "(b) Provisioning and storage; a server that holds every user's private tensors",
        [
            "method",
            "new device\nreceives",
            "device\nkeeps",
            "of it\nprivate",
            *(f"server,\n{n:,} users" for n in crowds),
        ],
        [
            [method]
            + [human_bytes(by[method, crowds[0]][key]) for key in ("provision", "device", "private")]
            + [human_bytes(by[method, users]["server"]) for users in crowds]
            for method in dict.fromkeys(row["method"] for row in rows)
        ],
    )


def _serving_table(rows: Rows) -> Table:
    uplinks = sorted({row["uplink_mbit_s"] for row in rows})
    by = {(row["method"], row["uplink_mbit_s"]): row for row in rows}
    return _table(
        f"(c) Edge-cloud serving: private tensors uploaded at each use, {rows[0]['uses_per_day']:,} uses a day",
        ["method", "upload\na use", "upload\na day", *(f"s a use,\n{uplink:g} Mbit/s" for uplink in uplinks)],
        [
            [method]
            + [human_bytes(by[method, uplinks[0]][key]) for key in ("use", "day")]
            + [f"{by[method, uplink]['seconds_per_use']:.3f}" for uplink in uplinks]
            for method in dict.fromkeys(row["method"] for row in rows)
        ],
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", min_width=len(title))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
