"""The job in this one process, without Flower's transport and without Ray: by the product, or the plain way.

    python -m job.here ours '{"method": "perfit", …}' FILE
    python -m job.here plain '{"method": "perfit", …}' FILE

Writes the arms' scores to FILE, and the most that a GPU's tensors took. The plain way is `job.plain` as it stands: its
messages are answered here, one user after the other, and each loads the base anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fed  # noqa: F401  threads are bounded before torch is loaded

import torch  # isort: skip
from flwr.app import Context, Message, RecordDict
from simulation.in_process import InProcessGrid, run_here, simulated

from fed import strict_json
from fed.settings.settings import Settings
from job.plain import client, server_of


class PlainGrid(InProcessGrid):
    """SuperNodes that are the plain way's clients."""

    def deliver(self, message: Message) -> Message:
        return client(message, self._contexts[message.metadata.dst_node_id])


def ours(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """The arms' scores of the product's run; all users are on one node, so that each can be swapped with another."""
    report = run_here(Settings.parse(config), supernodes=1)
    return dict(strict_json.loads(report.read_text(encoding="utf-8"))["arms"])


def plain(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """Those of the plain way."""
    grid = PlainGrid(simulated(int(config["stage2-users"])), Settings.parse(config), 1)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    with tempfile.TemporaryDirectory(prefix="perfit-plain-") as folder:
        server_of(config, Path(folder), file)(grid, context)
    return dict(json.loads(file.read_text(encoding="utf-8")))


WAYS = {"ours": ours, "plain": plain}


def main(way: str, config: str, file: Path) -> int:
    arms = WAYS[way](json.loads(config), file)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    file.write_text(json.dumps({"arms": arms, "gpu_peak_bytes": peak}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
