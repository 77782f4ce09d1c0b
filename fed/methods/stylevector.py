"""StyleVector: a user's style as one direction of the hidden states, found without training (Zhang et al., 2025).

    ŷ = the base's own answer to x                                 a style-free answer, for each (x, y) of the history
    s = mean over the history of h_ℓ(x ⊕ y) − h_ℓ(x ⊕ ŷ)           at the last token of each, the end-of-text left out
    φ(h) = h + α s                                                 at block ℓ, wherever an answer's token is read off

ℓ is `style-layer` (−1: the middle block) and α `style-strength`. The answers ŷ are decoded greedily. In a loss, as in
decoding, s is added from the prompt's last token on (`answer` in `fed.edits.positions`). s, (d,) numbers, is the user's
private tensor; nothing is federated. A history without inputs (LaMP_7, bare rows) has one x for its tweets, the cue.

h + α s is an edit of one row (`fed.edits.steering`), so the code that reads edits reads this one too.

Shapes:  d hidden size
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Reader
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.edits.stack import BARE
from fed.edits.steering import steering
from fed.forward.batching import Row, tokenize
from fed.forward.budget import decoded
from fed.forward.hidden_states import last_token
from fed.forward.tokenization import UNCUT
from fed.lamp.tasks import get_task
from fed.methods.edit_reader import EditReader
from fed.methods.method import LocalTraining, Method, Progress, Tensors, Trained
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from fed.training.plan import UserResult

STYLE = "style"


class StyleVector(Method):
    """One private direction a user."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        if settings.style_layer >= base.layers:
            raise SettingsError(f"style-layer must lie in 0..{base.layers - 1} or be -1, got {settings.style_layer}")
        self.layer = base.layers // 2 if settings.style_layer == -1 else settings.style_layer
        self.hidden_size = base.hidden_size

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        return {STYLE: (self.hidden_size,)}

    def fit_private(self, collective: Tensors, training: LocalTraining) -> list[Trained]:
        base, users = training.base, training.users
        rows = [row for user in users for row in user.rows]
        directions = self.directions(base, rows, self.style_free(base, rows, training.progress))
        made = []
        for user, own in zip(users, directions.split([len(user.rows) for user in users]), strict=True):
            s = own.mean(0).cpu()
            result = UserResult(error="" if bool(s.isfinite().all()) else "its style vector is not finite")
            made.append(Trained(user.user_id, {STYLE: s}, result))
        return made

    def style_free(self, base: BaseModel, rows: Sequence[Row], progress: Progress | None = None) -> list[list[int]]:
        """The tokens of ŷ for each row: what the base itself answers, worded as a completion is, without an end."""
        s = self.settings
        unlike = sorted({row.prompt for row in rows})  # a bare cue is asked once
        done = 0

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(done, len(unlike), float("nan"))

        answers = generate(
            base,
            [EditedRow(Row(prompt, ())) for prompt in unlike],
            BARE,
            Decoding(s.max_new_tokens or get_task(s.task).max_new_tokens),
            token_budget=decoded(base, s.token_budget),
            stop="\n",
            on_rows=on_rows,
        )
        tokens = {
            prompt: self._as_completion(base, answer) if answer else []
            for prompt, answer in zip(unlike, answers, strict=True)
        }
        return [tokens[row.prompt] for row in rows]

    def _as_completion(self, base: BaseModel, answer: str) -> list[int]:
        """An answer's tokens as they follow a prompt, which ends in the task's cue; without an end."""
        s = self.settings
        pair = (f"{get_task(s.task).cue}:", f" {answer}")
        (row,) = tokenize([pair], base.tokenizer, UNCUT, prompt_format=s.prompt_format)
        return list(row.completion[:-1])

    def directions(self, base: BaseModel, rows: Sequence[Row], style_free: Sequence[Sequence[int]]) -> Tensor:
        """h_ℓ(x ⊕ y) − h_ℓ(x ⊕ ŷ) of each row: (rows, d) float32, float64 under a float64 base."""
        own = [
            row.prompt + (row.completion[:-1] if row.completion[-1] in base.end_ids else row.completion) for row in rows
        ]
        free = [row.prompt + tuple(answer) for row, answer in zip(rows, style_free, strict=True)]
        states = last_token(base, [*own, *free], self.layer, token_budget=2 * self.settings.token_budget)
        states = states if base.dtype == "float64" else states.float()
        return states[: len(rows)] - states[len(rows) :]

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        names = sorted(private)
        own = None
        if names:
            directions = torch.stack([private[name][STYLE] for name in names])
            own = steering(directions, (self.settings.style_strength,), self.layer)
        return EditReader(self, base, personal=own, names=names)
