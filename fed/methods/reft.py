"""ReFT: one private LoReFT edit a user and nothing collective, PerFit's ablation (table 4).

    reft-p    at the rank and the layers of PerFit's stage 2: what its private edit does without the collective one
    reft-cp   at the ranks of both stages together, at stage 1's layers: all of PerFit's parameters, none of its sharing

Trained as PerFit's stage 2 is: the user's history, stage 2's epochs, rate and positions.
"""

from __future__ import annotations

from fed.base.skeleton import Skeleton
from fed.edits.loreft import EditShape
from fed.methods.method import LoReFTKeys
from fed.methods.perfit import PerFit
from fed.settings.settings import Settings


class ReFT(PerFit):
    """φ_2 without φ_1: reft-p."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.collective = None


class ReFTCP(ReFT):
    """The same at both ranks together: reft-cp."""

    loreft = LoReFTKeys("layers")

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        rank = settings.stage1_rank + settings.stage2_rank
        self.private = EditShape(settings.edited_layers(base.layers), rank, base.hidden_size)
