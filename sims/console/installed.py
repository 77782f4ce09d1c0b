"""Imported first by every command: a Python without the project ends here, with one line and exit code 2.

Only the standard library is imported.
"""

import sys
from importlib.util import find_spec

NEEDED = ("fed", "flwr", "transformers")  # not torch: whoever looks it up is taken to load it


def require() -> None:
    """End the process where something that every command needs is not there."""
    if all(find_spec(name) for name in NEEDED):
        return
    command = " ".join(sys.argv)
    print(
        f"error: this Python ({sys.executable}) has not the project installed: run `make setup` in the checkout, "
        f"then .venv/bin/python {command}",
        file=sys.stderr,
    )
    sys.exit(2)


require()
