"""FedReFT: federated ReFT with all-but-me aggregation (Siddika et al., 2025, arXiv 2508.20295), PerFit's neighbour.

    round:  m_k = geometric median of the last edits of all clients but k       (server; `average.geometric_weights`)
            v_k ← λ_k v_k + (1 − λ_k) m_k                                       (client; then trained on its rows)
            λ_k = σ(L(m_k) − L(v_k))                                            L: loss per token on the client's rows

Every client keeps an edit of its own and takes in what the others learned, the less the better its own does on its own
rows. No code is published, and how λ adapts is our choice: the two edits weigh as the probabilities e^−L that they give
a token. (The λ of least local loss would nearly always be 1, for those are the rows that v_k was fitted to.) Medians
and mixes are of the affine maps, brought back to rank r by `average.svd_mean`, and not of R, W and b entry by entry.

In the two stages of a run: stage 1 is these rounds; the final edit that everybody is handed is the median of the last
round's clients. Stage 2 is one more local round, from the mix with that median, on the user's history and with stage
2's epochs and rate; its result stays on the device and takes the place of the collective edit instead of following it.
Users that took no part in stage 1 (`cohorts = "paper"`) start it from the median itself.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Reader
from fed.answering.scoring import losses
from fed.averages.geometric_median import geometric_median
from fed.averages.svd import svd_mean
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.edits.loreft import EditBank
from fed.edits.stack import EditStack, Layer
from fed.forward.budget import Budget
from fed.methods.edit_reader import EditReader, on_base
from fed.methods.method import LocalTraining, LoReFTKeys, Tensors, Trained, UserRows
from fed.methods.perfit import PerFit
from fed.settings.settings import Settings


class FedReFT(PerFit):
    """One edit a client, mixed with the other clients' and trained, round after round."""

    keeps_own = True
    loreft = LoReFTKeys("layers", "positions", replaces=True)

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.private, self.private_positions = self.collective, self.positions

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        return geometric_median(replies, before)

    def for_each(
        self, users: Sequence[Hashable], latest: Mapping[Hashable, Tensors], before: Tensors
    ) -> dict[Hashable, Tensors]:
        others = {user: [latest[one] for one in latest if one != user] for user in users}
        return {user: geometric_median(edits, before) for user, edits in others.items() if edits}

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        return self._fit_from_mix([replace(user, given=user.given or start) for user in training.users], training)

    def fit_private(self, collective: Tensors, training: LocalTraining) -> list[Trained]:
        return self._fit_from_mix([replace(user, given=collective) for user in training.users], training)

    def _fit_from_mix(self, users: Sequence[UserRows], training: LocalTraining) -> list[Trained]:
        assert self.collective
        bank = EditBank.from_tensors(self.collective, self.starts(training.base, users))
        return self._fit(EditStack(Layer(bank, self.positions)), replace(training, users=users))

    def starts(self, base: BaseModel, users: Sequence[UserRows]) -> list[Tensors]:
        """Where each user starts: at the mix of its own edit and the given one; where it has none, at the given one."""
        starts = [user.given or {} for user in users]
        mixing = [i for i, user in enumerate(users) if user.own is not None]
        own = [{n: t.to(starts[i][n]) for n, t in (users[i].own or {}).items()} for i in mixing]
        of_own, of_given = (
            self._losses(base, [users[i] for i in mixing], edits) for edits in (own, [starts[i] for i in mixing])
        )
        for k, i in enumerate(mixing):
            share = own_share(of_own[k], of_given[k])
            starts[i] = svd_mean([own[k], starts[i]], [share, 1 - share], own[k])
        return starts

    def _losses(self, base: BaseModel, users: Sequence[UserRows], edits: Sequence[Tensors]) -> list[float]:
        """Loss per token of each user's rows under its edit."""
        if not users:
            return []
        assert self.collective
        bank = EditBank.from_tensors(self.collective, edits)
        stack = on_base(EditStack(Layer(bank, self.positions)), base)
        rows = [EditedRow(row, (i,)) for i, user in enumerate(users) for row in user.rows]
        found = losses(base, rows, stack, budget=Budget(2 * self.settings.token_budget))
        means, start = [], 0
        for user in users:
            part = found[start : start + len(user.rows)]
            start += len(user.rows)
            means.append(math.fsum(loss.nll for loss in part) / sum(loss.tokens for loss in part))
        return means

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        names = sorted(private)
        shared, own = self.shared_layer(collective), self.own_layer([private[name] for name in names])
        return EditReader(self, base, collective=shared, personal=own, names=names, replaces=True)


def own_share(own: float, given: float) -> float:
    """λ: the weight of a client's own edit by the losses per token, in nats, of its own and of the given edit."""
    return 1 / (1 + math.exp(min(own - given, 700.0)))
