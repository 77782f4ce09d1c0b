"""The error of a base model that cannot serve, one line with the rule, the value and the fix."""

from __future__ import annotations


class BaseModelError(ValueError):
    """The base model is not there, not whole, or cannot be read or edited."""
