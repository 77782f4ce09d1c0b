"""PerFit's stage 1 alone: the federated collective edit for everybody, nothing private (PerFit, table 4)."""

from __future__ import annotations

from fed.methods.perfit import PerFit
from fed.settings import Settings
from fed.skeleton import Skeleton


class PerFitStage1(PerFit):
    """φ_1 without φ_2; bit for bit the collective edit of a `perfit` run with the same settings."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.private = None
