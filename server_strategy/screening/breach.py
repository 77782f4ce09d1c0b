"""A rule of the server's that a message off the network broke."""

from __future__ import annotations

from reprlib import Repr

from fed.plain_text import plain

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 4


class Breach(ValueError):
    """One plain line with the rule, and what came instead."""

    def __init__(self, rule: str, got: str = "") -> None:
        super().__init__(plain(f"{rule}, got {got}" if got else rule))


def shown(value: object) -> str:
    """A value off the network in a few plain characters, however large it is."""
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number past 64 bits"
    try:
        return plain(_SHORT.repr(value), 80)
    except Exception:  # a stranger's value may not even have a repr
        return f"a {type(value).__name__}"
