"""What a base's cache can serve: keys and values of every token, of a window, latent ones; states of convolutions and
linear attention; hybrids of these.

Four features go on from what was read before: decoding, batches that ended rows leave, prompts that several completions
share, and prefixes that serve every step of a training. A cache of plain or windowed keys and values serves the first
three; any other is asked: short made-up rows are read in each of these ways and as whole rows, and where the numbers
differ, or the cache refuses, the feature is left out for that base. Results are then those of whole rows.

Promise: with or without a feature a row's numbers are those of the whole row, alone
(`tests/families/test_families.py`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Largest difference in log-probability, in units of its spread over the vocabulary, that rounding may make.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
_PROMPTS, _MORE = (5, 3), 3  # tokens of the made-up prompts, and of what follows each


@dataclass(frozen=True)
class Served:
    """The features that a base's cache can serve.

    Attributes:
        steps: a token is read after cached ones. left: prompts of different lengths share a batch, padded on the left.
        leaving: rows leave a batch, and are repeated in it. several: more than one token is read after cached ones.
        prefix: every token's keys and values are kept in every block, as they are read.
    """

    steps: bool = True
    left: bool = True
    leaving: bool = True
    several: bool = True
    prefix: bool = True

    @property
    def shared_prompt(self) -> bool:
        """Whether the completions of one prompt can share the pass over it."""
        return self.steps and self.left and self.leaving and self.several

    def left_out(self) -> list[str]:
        """A line for each feature that this base goes without, for the report."""
        lines = {
            "no cache: each new token reads the whole row again": self.steps,
            "prompts of one length alone share a batch of answers": self.left,
            "rows that have ended stay in their batch": self.leaving or not self.steps,
            "labels of one prompt are read as whole rows": self.shared_prompt,
            "tokens before every edited one are read in each training step": self.prefix,
        }
        return [line for line, served in lines.items() if not served]


def empty_cache(model: Any) -> Any:
    """A cache of the kind that this model's configuration asks for, with nothing in it."""
    from transformers import DynamicCache  # here: a second that a process without a model need not spend

    return DynamicCache(config=model.config)


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """The arguments of a pass that reads and fills a cache (None: without one), by the name that this model takes.

    transformers renames `past_key_values` to `cache`; a model swallows the other name without a word where it has
    neither under an alias (mamba does), and then every pass begins with nothing.
    """
    return {_cache_name(model) or "past_key_values": cache, "use_cache": cache is not None}


def _cache_name(model: Any) -> str | None:
    takes = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in takes), None)


def select_rows(cache: Any, index: Tensor) -> None:
    """Leave these rows in a cache, (B,) int64, in this order; one may be named more than once."""
    for layer in cache.layers:
        # A state beside keys and values is reordered with them; the other method would pass it over.
        if hasattr(layer, "conv_states") or not hasattr(layer, "batch_select_indices"):
            layer.reorder_cache(index)
        else:
            layer.batch_select_indices(index)


def mask_after(cache: Any, attention_mask: Tensor) -> Tensor | None:
    """The mask of a pass that goes on from a cache; None where it has states alone, and no keys that a mask could hide.

    Args:
        attention_mask: (B, P + T) int64, of what was read and of what is to be read.
    """
    return attention_mask if any(hasattr(layer, "keys") for layer in cache.layers) else None


def served_by(model: Any, blocks: int) -> Served:
    """The features that a model's cache can serve; some short passes unless it is of a kind that serves all.

    Args:
        model: a transformers causal LM, without edits.
        blocks: how many decoder blocks it has.
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    kinds = [type(layer) for layer in empty_cache(model).layers]
    stateless = not getattr(model, "_is_stateful", False) and _cache_name(model) is not None
    prefix = stateless and len(kinds) == blocks and all(kind is DynamicLayer for kind in kinds)
    if stateless and kinds and all(kind in (DynamicLayer, DynamicSlidingWindowLayer) for kind in kinds):
        return Served(prefix=prefix)
    return _asked(model)


@torch.no_grad()
def _asked(model: Any) -> Served:
    """Each feature, tried on made-up rows."""
    probe = _Probe(model)
    if not probe.agrees([0], [], by_token=True):
        return Served(steps=False, left=False, several=False, prefix=False)
    left = probe.agrees([0, 1], [], by_token=True)
    both = [0, 1] if left else [0, 0]
    return Served(
        left=left,
        leaving=probe.agrees(both, [1, 0, 1], by_token=True) and probe.agrees(both, [1], by_token=True),
        several=probe.agrees(both, [], by_token=False),
        prefix=False,
    )


class _Probe:
    """Two made-up rows, and what the model says of their last tokens when it reads them whole."""

    def __init__(self, model: Any) -> None:
        self._model = model
        count = int(model.get_input_embeddings().weight.shape[0])
        size = max(_PROMPTS) + _MORE
        self._rows = [[(7 * place + 11 * row + 3) % count for place in range(size)] for row in range(len(_PROMPTS))]
        self._whole = [
            self._log_p(self._pass([self._rows[row][: length + _MORE]], None)[:, -_MORE:])
            for row, length in enumerate(_PROMPTS)
        ]

    def agrees(self, rows: list[int], selected: list[int], *, by_token: bool) -> bool:
        """Whether the tokens after the prompts are as in the whole rows.

        Args:
            rows: a batch of the made-up ones.
            selected: places in the batch, taken after the prompts are read; [] leaves it as it is.
            by_token: one token a pass, or all at once.
        """
        try:
            lengths = [_PROMPTS[row] for row in rows]
            cache = empty_cache(self._model)
            self._pass([self._rows[row][:length] for row, length in zip(rows, lengths, strict=True)], cache)
            pads = [max(lengths) - length for length in lengths]
            if selected:
                select_rows(cache, torch.tensor(selected, device=self._model.device))
                rows, lengths, pads = ([one[i] for i in selected] for one in (rows, lengths, pads))
            said = []
            for step in range(_MORE) if by_token else [0]:
                count = 1 if by_token else _MORE
                starts = [length + step for length in lengths]
                tokens = [self._rows[row][s : s + count] for row, s in zip(rows, starts, strict=True)]
                said.append(self._pass(tokens, cache, starts, pads))
            log_p = self._log_p(torch.cat(said, dim=1))
        except Exception:  # a cache may refuse in any way; the feature is then left out
            return False
        farthest = torch.stack([(own - self._whole[row][0]).abs().max() for row, own in zip(rows, log_p, strict=True)])
        # Each row by itself: a NaN is at no distance that another row's would be larger than.
        return bool((farthest <= _ROUNDING[self._model.dtype] * torch.cat(self._whole).std()).all())

    def _pass(
        self, tokens: list[list[int]], cache: Any, starts: list[int] | None = None, pads: list[int] | None = None
    ) -> Tensor:
        """Logits of tokens: prompts, padded on the left; or what follows `starts` cached tokens behind `pads` pads."""
        width, device = max(map(len, tokens)), self._model.device
        ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=device)
        if starts is None or pads is None:
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
            places = (mask.cumsum(-1) - 1).clamp(min=0)
        else:
            mask = torch.tensor([[0] * p + [1] * (s + width) for p, s in zip(pads, starts, strict=True)], device=device)
            places = torch.tensor([[s + i for i in range(width)] for s in starts], device=device)
        output = self._model(
            input_ids=ids,
            attention_mask=mask if starts is None else mask_after(cache, mask),
            position_ids=places,
            **with_cache(self._model, cache),
        )
        return output.logits[:, -width:]

    @staticmethod
    def _log_p(logits: Tensor) -> Tensor:
        return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
