"""Find a base model, make its files ready, and say what it is.  `python -m fed.base [SOURCE]`"""

from __future__ import annotations

import sys

from fed.base.model import load
from fed.base.sources import EMBEDDED

if __name__ == "__main__":
    base = load(sys.argv[1] if len(sys.argv) > 1 else EMBEDDED)
    print(f"{base.name}: {base.skeleton.parameters:,} parameters, {base.dtype} on {base.device}, {base.fingerprint}")
