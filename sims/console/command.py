"""The options of a command: errors in one line, lists of numbers."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the options)\n")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
