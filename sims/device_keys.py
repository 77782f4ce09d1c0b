"""Keys of a federation of devices: a CA, the server's certificate, and one key pair a SuperNode.

    python sims/device_keys.py server keys --host fed.example.org --host 192.0.2.7     ca.crt server.crt server.key
    python sims/device_keys.py device keys/alice                                       alice alice.pub

A device is given ca.crt and its own private key; `flwr supernode register` is given the .pub. The CA's own key signs
once and is kept nowhere: a new server certificate is a new CA. The same by openssl and ssh-keygen: clients/README.md.
"""

from __future__ import annotations

from pathlib import Path

import console.installed  # noqa: F401  a Python without the project ends here
from console.command import options_of, start, told
from farm.keys import make_device_key, make_server_keys


@told()
def main() -> int:
    parser = options_of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    server = commands.add_parser("server", help="a CA and a server certificate")
    server.add_argument("folder", type=Path)
    server.add_argument("--host", action="append", required=True, help="a name or address of the server; repeatable")
    device = commands.add_parser("device", help="one SuperNode's key pair")
    device.add_argument("path", type=Path, help="of the private key; the public one gets .pub")
    options = parser.parse_args()
    try:
        if options.command == "server":
            make_server_keys(options.folder, options.host)
            print(f"{options.folder}: ca.crt for every device; server.crt, server.key and ca.crt for the SuperLink")
        else:
            public = make_device_key(options.path)
            print(f"{options.path} for the device alone; {public} for: flwr supernode register {public}")
    except FileExistsError as error:
        raise ValueError(f"a key is never overwritten, and {error.filename!r} exists") from error
    return 0


if __name__ == "__main__":
    start(main)
