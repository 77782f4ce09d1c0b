"""A real federation on this machine: a SuperLink, and one SuperNode a device, each a process of its own.

    python sims/devices.py --devices 4
    python sims/devices.py sims/lamp7 --devices 3 --encrypt -c 'rounds=2'
    python sims/devices.py --devices 2 --no-tls --no-auth --capture
    python sims/devices.py --devices 2 --no-namespaces

Devices run the client code of clients/ on a history and a vault of their own; each message is a new process there. TLS
and SuperNode authentication are on, with keys made for this run. As root with iproute2 each device is in a network
namespace of its own, whose only way out is a link to the server. A proxy before each device counts its bytes, and the
link those of its frames; both go into report.json (`bytes.measured`). Everything that was started is stopped by its
pid, also on Ctrl-C, and the namespaces are removed. The last line is the path of report.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import console.installed  # noqa: F401  a Python without the project ends here
from console.command import Parser, at_least_one, options_of, start, told
from farm.federation import run_devices
from simulation.apps import SIMS


def _parser() -> Parser:
    parser = options_of(__doc__)
    add = parser.add_argument
    add("app", type=Path, nargs="?", default=SIMS / "lamp7", help="folder of a Flower app")
    add("--devices", type=int, default=4, metavar="N", help="how many; each gets one user of the data (default 4)")
    add("--tls", action=argparse.BooleanOptionalAction, default=True, help="encrypt all traffic (default)")
    add("--auth", action=argparse.BooleanOptionalAction, default=True, help="registered SuperNodes only (default)")
    add(
        "--namespaces",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="each device in a network namespace of its own (default: as root with iproute2)",
    )
    add("--encrypt", action="store_true", help="seal each vault with a key file of its own")
    add("--strict", action="store_true", help="devices keep their own strict policy (default: exact figures leave)")
    add("--capture", action="store_true", help="keep everything that passes, for a search; meant with --no-tls")
    add("--threads", type=int, default=max(1, (os.cpu_count() or 1) // 4), metavar="N", help="of torch, in each device")
    add("--folder", type=Path, metavar="DIR", help="of server and devices (default: runs/devices/<time>)")
    parser.add_run_config()
    add("--verbose", action="store_true", help="show all of Flower's own lines")
    return parser


@told()
def main() -> int:
    options = _parser().parse_args()
    at_least_one(options, "devices", "threads")
    if options.auth and not options.tls:
        raise ValueError("--no-tls must come with --no-auth: a SuperLink checks keys only under TLS")
    print(run_devices(options))
    return 0


if __name__ == "__main__":
    start(main)
