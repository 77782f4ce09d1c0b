"""Decoding with one edit per row, and the loss per token of given completions.

Rows of many users and of several arms share a batch: a row says whether the collective edit applies and whose
personalized edit follows. Prompts are padded on the left, keys and values are cached, and a row that has ended
leaves the batch. Sampling draws from one generator a row, so a row's text does not depend on its neighbours.

Shapes:  B rows · T tokens · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from fed import shared_prompt
from fed.activations import ActivationCache, resumed, stacked
from fed.base_model import BaseModel
from fed.batching import Row, pad, under_token_budget
from fed.completion_loss import completion_nll, logits_only_where
from fed.hooks import EditSession, Stage, edited
from fed.loreft import EditBank
from fed.positions import Positions


@dataclass(frozen=True)
class EditedRow:
    """A row to read or to continue, and its edits.

    Attributes:
        collective: whether the stage-1 edit applies. personal: whose stage-2 edit follows, an index into
        the bank, or None for nobody's.
    """

    row: Row
    collective: bool = False
    personal: int | None = None


@dataclass(frozen=True)
class Decoding:
    """Greedy at temperature 0; the paper samples with T = 0.1, top-k 10, top-p 0.9."""

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 10
    top_p: float = 0.9


@contextmanager
def _session(base: BaseModel, collective: EditBank | None, personal: EditBank | None) -> Iterator[EditSession]:
    stages = [Stage(bank) for bank in (collective, personal) if bank is not None]
    with edited(base.model, stages) as session:
        yield session


def _where(
    positions: Positions, personal_positions: Positions | None, collective: EditBank | None, personal: EditBank | None
) -> list[Positions]:
    """The positions of each stage that `_session` opens."""
    own = personal_positions or positions
    return [p for p, bank in ((positions, collective), (own, personal)) if bank is not None]


def _set_rows(
    session: EditSession,
    rows: Sequence[EditedRow],
    has_collective: bool,
    has_personal: bool,
    device: str,
) -> None:
    indices: list[Tensor | None] = []
    actives: list[Tensor | None] = []
    if has_collective:
        indices.append(None)
        actives.append(torch.tensor([row.collective for row in rows], device=device))
    elif any(row.collective for row in rows):
        raise ValueError("a row asks for the collective edit, but none is given")
    if has_personal:
        indices.append(torch.tensor([row.personal or 0 for row in rows], device=device))
        actives.append(torch.tensor([row.personal is not None for row in rows], device=device))
    elif any(row.personal is not None for row in rows):
        raise ValueError("a row asks for a personalized edit, but none are given")
    session.set_rows(indices, actives)
    session.gather()


@torch.no_grad()
def losses(
    base: BaseModel,
    rows: Sequence[EditedRow],
    positions: Positions,
    *,
    collective: EditBank | None = None,
    personal: EditBank | None = None,
    personal_positions: Positions | None = None,
    token_budget: int = 2048,
    activation_cache: int = 0,
    on_rows: Callable[[int], None] | None = None,
) -> list[tuple[float, int]]:
    """(summed negative log-likelihood of the completion in nats, its tokens) for each row, EOS included.

    Rows with one prompt and one pair of edits, such as a query's labels, share the pass over the prompt.
    `personal_positions`: where the personalized edits apply; None: at `positions`, as the collective one.
    `activation_cache`: bytes for rows' states below the first edit, which a row's arms then share.
    """
    where = _where(positions, personal_positions, collective, personal)
    groups: dict[tuple[tuple[int, ...], bool, int | None], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.row.prompt, row.collective, row.personal), []).append(i)
    shared = [places for places in groups.values() if len(places) > 1]
    alone = [places[0] for places in groups.values() if len(places) == 1]
    found: dict[int, tuple[float, int]] = {}
    first = min((layer for bank in (collective, personal) if bank for layer in bank.shape.layers), default=None)
    distinct = list(dict.fromkeys(rows[i].row for i in alone))
    kept = None
    if first is not None:
        kept = ActivationCache().of(base, [distinct], first, token_budget, activation_cache)
    states = dict(zip(distinct, kept[0], strict=True)) if kept else {}
    with (
        resumed(base.model, first) if kept and first is not None else nullcontext() as give,
        _session(base, collective, personal) as session,
        logits_only_where(base.model) as choose,
    ):
        for part in under_token_budget([len(rows[i].row) for i in alone], token_budget):
            chosen = [rows[alone[i]] for i in part]
            batch = pad([row.row for row in chosen], base.pad_id, base.device)
            if give is not None:
                give(stacked([states[row.row] for row in chosen]))
            _set_rows(session, chosen, collective is not None, personal is not None, base.device)
            session.set_masks([p.mask(batch.prompt, batch.tokens) for p in where])
            nll, row_of = completion_nll(base.model, batch, choose)
            sums = torch.zeros(len(chosen), dtype=torch.float64).index_add_(0, row_of.cpu(), nll.double().cpu())
            for i, row, value in zip(part, chosen, sums.tolist(), strict=True):
                found[alone[i]] = (value, len(row.row.completion))
            if on_rows:
                on_rows(len(part))
    with _session(base, collective, personal) as session:

        def enter(numbers: Sequence[int], prompt: Tensor, tokens: Tensor) -> None:
            reading = [rows[shared[number][0]] for number in numbers]
            _set_rows(session, reading, collective is not None, personal is not None, base.device)
            session.set_masks([p.mask(prompt, tokens) for p in where])

        together = shared_prompt.losses(
            base,
            [rows[places[0]].row.prompt for places in shared],
            [[rows[i].row.completion for i in places] for places in shared],
            enter,
            token_budget=token_budget,
            on_rows=on_rows,
        )
    for places, values in zip(shared, together, strict=True):
        found |= zip(places, values, strict=True)
    return [found[i] for i in range(len(rows))]


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
    where = _where(positions, personal_positions, collective, personal)
    texts = [""] * len(rows)
    sizes = [len(row.row.prompt) + decoding.max_new_tokens for row in rows]
    with _session(base, collective, personal) as session:
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
    _set_rows(session, rows, *flags, device)
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
            _set_rows(session, [rows[i] for i in alive], *flags, device)
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
