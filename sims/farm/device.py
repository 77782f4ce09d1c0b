"""One device of a farm: its process, its log, its proxy and link."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from farm.counting_proxy import CountingProxy
from farm.network_namespaces import Link

CONNECTED = "SuperNode ID:"  # what a SuperNode logs when the server has taken it


@dataclass
class Device:
    """One SuperNode: whose it is, where its files lie, and the process while it runs."""

    user: str
    folder: Path
    config: dict[str, str]
    proxy: CountingProxy
    link: Link | None = None
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    extra: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "supernode.log"

    @property
    def node_config(self) -> str:
        return " ".join(f"{key}={json.dumps(value)}" for key, value in self.config.items())
