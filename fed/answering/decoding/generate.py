"""Decoding with edits of its own for every row.

Rows of many users and of several arms share a batch, and arms of one prompt share the pass over it as far as they are
one (`fed.answering.first_pass`). Prompts are padded on the left, keys and values are cached, and a row that has ended
leaves the batch. Sampling draws from one generator a row, so a row's text does not depend on its neighbours; greedy
answers of equal prompts under the same edits are written once. What a base's cache cannot serve is left out for that
base (`fed.base.architecture.cache_kinds`): batches then have prompts of one length, ended rows stay in them, or every
new token reads the whole rows again.

Shapes:  B rows · T tokens · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.answering.decoding import static_steps
from fed.answering.decoding.steps import GrowingSteps, Steps
from fed.answering.edited_rows import EditedRow
from fed.answering.first_pass import first_pass
from fed.base.model import BaseModel
from fed.edits.stack import EditStack
from fed.forward.batching import Row, pad, under_token_budget


@dataclass(frozen=True)
class Decoding:
    """Greedy at temperature 0; the paper samples with T = 0.1, top-k 10, top-p 0.9.

    Attributes:
        static: keys and values in buffers of full length (`static_steps`), where the base can be read so.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 10
    top_p: float = 0.9
    static: bool = False


@torch.no_grad()
def generate(
    base: BaseModel,
    rows: Sequence[EditedRow],
    stack: EditStack,
    decoding: Decoding,
    *,
    generators: Sequence[torch.Generator] | None = None,
    token_budget: int = 4096,
    stop: str | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> list[str]:
    """Continue each row's prompt until an end of a text, the text `stop`, or `max_new_tokens`; ends are cut off.

    Ends are all that the base names, and a row also ends where the base can read no further.

    Blank text before the first word does not count as an answer, so a leading line break does not stop a row.

    Args:
        generators: one per row, for temperature > 0.
        token_budget: padded prompt and new tokens of one batch, which bounds the cache.
        stop: such as a line break, where a task's answer is one line.
        on_rows: called with a number of rows as they finish.
    Returns:
        the new text of each row, in order.
    Raises:
        ValueError: a row that names an edit which the stack has not, or a temperature without generators.
    """
    if decoding.temperature:
        return _texts(base, rows, stack, decoding, generators, token_budget, stop, on_rows)
    distinct = list(dict.fromkeys((row.row.question, row.edits) for row in rows))
    asked = [EditedRow(Row(question, ()), edits) for question, edits in distinct]
    texts = _texts(base, asked, stack, decoding, None, token_budget, stop, on_rows)
    if on_rows and len(rows) > len(distinct):
        on_rows(len(rows) - len(distinct))
    text_of = dict(zip(distinct, texts, strict=True))
    return [text_of[row.row.question, row.edits] for row in rows]


def _texts(
    base: BaseModel,
    rows: Sequence[EditedRow],
    stack: EditStack,
    decoding: Decoding,
    generators: Sequence[torch.Generator] | None,
    token_budget: int,
    stop: str | None,
    on_rows: Callable[[int], None] | None,
) -> list[str]:
    """The text of each row, batch by batch."""
    texts = [""] * len(rows)
    # Rows of one prompt side by side: those of a batch share the pass over it.
    first_place: dict[tuple[int, ...], int] = {}
    for place, row in enumerate(rows):
        first_place.setdefault(row.row.question, place)
    order = sorted(range(len(rows)), key=lambda place: first_place[rows[place].row.question])
    sizes = [len(rows[place].row.question) + decoding.max_new_tokens for place in order]
    for picked in _batches(base, sizes, token_budget):
        places = [order[i] for i in picked]
        draws = [generators[i] for i in places] if generators is not None else None
        answers = _decode(base, [rows[i] for i in places], decoding, stack, draws, stop)
        for i, new in zip(places, answers, strict=True):
            text = base.tokenizer.decode(new, skip_special_tokens=True)
            texts[i] = text.strip().split(stop)[0] if stop else text
        if on_rows:
            on_rows(len(places))
    return texts


def _batches(base: BaseModel, sizes: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Rows' places, batch by batch: of one length each where the base cannot pad on the left."""
    if base.serves.left:
        yield from under_token_budget(sizes, token_budget)
        return
    for size in sorted(set(sizes)):
        places = [place for place, one in enumerate(sizes) if one == size]
        for batch in under_token_budget([size] * len(places), token_budget):
            yield [places[i] for i in batch]


def _decode(
    base: BaseModel,
    rows: Sequence[EditedRow],
    decoding: Decoding,
    stack: EditStack,
    generators: Sequence[torch.Generator] | None,
    stop: str | None,
) -> list[list[int]]:
    """The new tokens of each row of one batch."""
    # The first pass reads the prompts, under the edits of all rows.
    batch = pad([row.row for row in rows], base.pad_id, base.device, left=True, prompts_only=True)
    edits, most = [row.edits for row in rows], decoding.max_new_tokens
    logits, cache = first_pass(base, batch, edits, stack)
    with stack.attached(base.model) as attached:
        steps: Steps
        if decoding.static and static_steps.serve(base, batch, most):
            steps = static_steps.StaticSteps(base, batch, cache, edits, attached, most)
        else:
            steps = GrowingSteps(base, batch, cache, edits, attached)
        return _continued(base, rows, decoding, logits, steps, generators, stop)


def _continued(
    base: BaseModel,
    rows: Sequence[EditedRow],
    decoding: Decoding,
    logits: Tensor,
    steps: Steps,
    generators: Sequence[torch.Generator] | None,
    stop: str | None,
) -> list[list[int]]:
    """The new tokens of each row, one a step, from the logits (B, V) after the prompts on."""
    in_batch = list(range(len(rows)))  # whom each row of the batch continues
    going_on = set(in_batch)
    new: list[list[int]] = [[] for _ in rows]
    for step in range(decoding.max_new_tokens):
        # Every row that goes on gets its next token, or ends with it.
        living = [k for k, i in enumerate(in_batch) if i in going_on]
        draws = [generators[in_batch[k]] for k in living] if generators is not None else None
        logits = logits.float()
        tokens = [base.pad_id] * len(in_batch)
        picked = _pick(logits[living] if len(living) < len(in_batch) else logits, decoding, draws).tolist()
        for k, token in zip(living, picked, strict=True):
            i, tokens[k] = in_batch[k], token
            if token not in base.end_ids:
                new[i].append(token)
            if token in base.end_ids or _is_over(base, rows[i], new[i], stop):
                going_on.remove(i)
        if not going_on or step + 1 == decoding.max_new_tokens:
            break
        # Rows that have ended leave the batch; the others' tokens are read.
        staying = [k for k, i in enumerate(in_batch) if i in going_on]
        if len(staying) < len(in_batch) and steps.keep(staying):
            in_batch, tokens = [in_batch[k] for k in staying], [tokens[k] for k in staying]
        logits = steps.read(tokens)
    return new


def _is_over(base: BaseModel, row: EditedRow, new: Sequence[int], stop: str | None) -> bool:
    """Whether a row's new tokens end it: the base can read no further, or the text `stop` is among them."""
    if base.context is not None and len(row.row.question) + len(new) > base.context:
        return True
    return bool(stop and stop in base.tokenizer.decode(new).lstrip())


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
