"""The terminal that the commands print tables to; into a file or a pipe, wide enough that no table is cut."""

from __future__ import annotations

from rich.console import Console


def console(width: int = 140) -> Console:
    """A terminal of its own width; elsewhere of `width` columns."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=width)
