"""Decoding with one edit per row, and the loss per token of given completions.

Rows of many users and of several arms share a batch: a row says whether the collective edit applies and whose
personalized edit follows. Prompts are padded on the left, keys and values are cached, and a row that has ended
leaves the batch. Sampling draws from one generator a row, so a row's text does not depend on its neighbours.

Shapes:  B rows · T tokens · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.answering.edited_rows import EditedRow, open_session, positions_of, set_rows
from fed.base.model import BaseModel
from fed.edits.hooks import EditSession
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.forward.batching import pad, under_token_budget


@dataclass(frozen=True)
class Decoding:
    """Greedy at temperature 0; the paper samples with T = 0.1, top-k 10, top-p 0.9."""

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 10
    top_p: float = 0.9


@torch.no_grad()
def generate(
    base: BaseModel,
    rows: Sequence[EditedRow],
    decoding: Decoding,
    positions: Positions,
    *,
    collective: EditBank | None = None,
    personal: EditBank | None = None,
    personal_positions: Positions | None = None,
    generators: Sequence[torch.Generator] | None = None,
    token_budget: int = 4096,
    stop: str | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> list[str]:
    """Continue each row's prompt until EOS, the text `stop`, or `max_new_tokens`; EOS and `stop` are cut off.

    Blank text before the first word does not count as an answer, so a leading line break does not stop a row.

    Args:
        generators: one per row, for temperature > 0. stop: such as a line break, where a task's answer is
        one line. personal_positions: as in `losses`. token_budget: padded prompt and new tokens of one
        batch, which bounds the cache.
    Returns:
        the new text of each row, in order.
    """
    where = positions_of(positions, personal_positions, collective, personal)
    texts = [""] * len(rows)
    sizes = [len(row.row.prompt) + decoding.max_new_tokens for row in rows]
    with open_session(base, collective, personal) as session:
        for picked in under_token_budget(sizes, token_budget):
            chosen = [rows[i] for i in picked]
            draws = [generators[i] for i in picked] if generators is not None else None
            flags = (collective is not None, personal is not None)
            ids = _decode(base, chosen, decoding, where, session, flags, draws, stop)
            for i, new in zip(picked, ids, strict=True):
                text = base.tokenizer.decode(new, skip_special_tokens=True)
                texts[i] = text.strip().split(stop)[0] if stop else text
            if on_rows:
                on_rows(len(picked))
    return texts


def _decode(
    base: BaseModel,
    rows: Sequence[EditedRow],
    decoding: Decoding,
    positions: Sequence[Positions],
    session: EditSession,
    flags: tuple[bool, bool],
    generators: Sequence[torch.Generator] | None,
    stop: str | None,
) -> list[list[int]]:
    device, eos = base.device, base.tokenizer.eos_token_id
    batch = pad([row.row for row in rows], base.pad_id, device, left=True, prompts_only=True)
    set_rows(session, rows, *flags, device)
    session.set_masks([p.mask(batch.prompt, batch.tokens) for p in positions])
    from transformers import DynamicCache  # here: a second that a process which generates nothing need not spend

    cache = DynamicCache(config=base.model.config)
    alive = list(range(len(rows)))
    new: list[list[int]] = [[] for _ in rows]
    ids, attention, position = batch.input_ids, batch.attention_mask, batch.position_ids
    for step in range(decoding.max_new_tokens):
        output = base.model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        draws = [generators[i] for i in alive] if generators is not None else None
        chosen = _pick(output.logits[:, -1].float(), decoding, draws).tolist()
        for i, token in zip(alive, chosen, strict=True):
            if token != eos:
                new[i].append(token)
        ended = [
            token == eos or (bool(stop) and str(stop) in base.tokenizer.decode(new[i]).lstrip())
            for i, token in zip(alive, chosen, strict=True)
        ]
        keep = [k for k, done in enumerate(ended) if not done]
        if not keep or step + 1 == decoding.max_new_tokens:
            break
        position = position[:, -1:] + 1
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], dim=1)
        ids = torch.tensor(chosen, device=device).unsqueeze(1)
        if len(keep) < len(alive):
            index = torch.tensor(keep, device=device)
            cache.batch_select_indices(index)
            ids, attention, position = ids[index], attention[index], position[index]
            alive = [alive[k] for k in keep]
            set_rows(session, [rows[i] for i in alive], *flags, device)
        # A generated token belongs to the completion.
        session.set_masks([torch.full((len(alive), 1), p.generated, device=device) for p in positions])
    return new


def _pick(logits: Tensor, decoding: Decoding, generators: Sequence[torch.Generator] | None) -> Tensor:
    """(B, V) logits to (B,) tokens: the arg max, or a draw after temperature, top-k and top-p."""
    if decoding.temperature == 0.0:
        return logits.argmax(-1)
    if generators is None:
        raise ValueError("sampling needs one generator per row")
    values, order = (logits / decoding.temperature).topk(min(decoding.top_k, logits.shape[-1]), dim=-1)
    probabilities = values.softmax(-1)
    outside = probabilities.cumsum(-1) - probabilities >= decoding.top_p
    probabilities = probabilities.masked_fill(outside, 0.0).cpu()
    drawn = [torch.multinomial(p, 1, generator=g) for p, g in zip(probabilities, generators, strict=True)]
    return order.gather(-1, torch.stack(drawn).to(order.device)).squeeze(-1)
