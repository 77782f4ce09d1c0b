"""The error of a base model that cannot serve, one line with the rule, the value and the fix."""

from __future__ import annotations


class BaseModelError(ValueError):
    """The base model is not there, not whole, or cannot be read or edited."""


def reason(error: Exception) -> str:
    """What a library said of a base that it cannot read, in one line: its first, or the error's name where it is mute.

    A stranger's files can fail in any way, so whoever asks for this catches every Exception.
    """
    return str(error).strip().split("\n")[0] or type(error).__name__
