"""Losses of several completions of one prompt, which is read once: its keys and values serve all of them.

A classification query asks for the likelihood of 15 labels after 200 tokens of prompt; row by row that is 15 times the
prompt. Here a prompt costs one forward pass and its labels a second one, over the labels' few tokens alone.

Shapes:  G prompts · B completions of them all · W tokens of the longest completion but its last · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fed.answering.edited_rows import EditedRow
from fed.answering.first_pass import first_pass
from fed.answering.reader import Loss
from fed.base.architecture.cache_kinds import mask_after, select_rows, with_cache
from fed.base.model import BaseModel
from fed.edits.stack import EditStack
from fed.forward.batching import pad, under_token_budget


@torch.no_grad()
def losses(
    base: BaseModel,
    prompts: Sequence[EditedRow],
    completions: Sequence[Sequence[tuple[int, ...]]],
    stack: EditStack,
    *,
    token_budget: int,
    on_rows: Callable[[int], None] | None = None,
) -> list[list[Loss]]:
    """What each completion of each prompt costs, equal to a whole row's up to rounding.

    Args:
        prompts: rows without a completion, and the edits that they and their completions take.
        completions: of each prompt, every one of at least one token.
        stack: not attached.
        token_budget: of one forward pass; a batch's cache, where every completion has its prompt's keys and values, may
        hold twice as many. One prompt is always taken.
        on_rows: called with a number of completions as they finish.
    """
    found: list[list[Loss]] = [[] for _ in prompts]
    cached = [len(own) * (len(p.row) + max(map(len, own))) for p, own in zip(prompts, completions, strict=True)]
    for picked in under_token_budget(cached, 2 * token_budget):
        owner = [place for place, number in enumerate(picked) for _ in completions[number]]
        ends = [completion for number in picked for completion in completions[number]]
        sums = _batch(base, [prompts[number] for number in picked], owner, ends, stack)
        for place, completion, (nll, last) in zip(owner, ends, sums, strict=True):
            found[picked[place]].append(Loss.of(nll, last, completion, base.end_ids))
        if on_rows:
            on_rows(len(ends))
    return found


def _batch(
    base: BaseModel,
    prompts: Sequence[EditedRow],
    owner: Sequence[int],
    ends: Sequence[tuple[int, ...]],
    stack: EditStack,
) -> list[tuple[float, float]]:
    """The summed nll of each of `ends`, and that of its last token; the b-th continues `prompts[owner[b]]`."""
    device = base.device
    batch = pad([prompt.row for prompt in prompts], base.pad_id, device, left=True, prompts_only=True)
    logits, cache = first_pass(base, batch, [prompt.edits for prompt in prompts], stack)
    index = torch.tensor(owner, device=device)
    first = torch.tensor([end[0] for end in ends], device=device)
    # Summed in float64, on the host: a device may have none.
    sums = _nll(logits)[index].gather(-1, first.unsqueeze(-1)).squeeze(-1).cpu().double()
    width = max(map(len, ends)) - 1
    if not width:
        return list(zip(sums.tolist(), sums.tolist(), strict=True))
    tokens = torch.zeros((len(ends), width), dtype=torch.bool)
    ids = torch.full((len(ends), width), base.pad_id, dtype=torch.int64)
    targets = torch.zeros((len(ends), width), dtype=torch.int64)
    for i, end in enumerate(ends):
        tokens[i, : len(end) - 1] = True
        ids[i, : len(end) - 1] = torch.tensor(end[:-1], dtype=torch.int64)
        targets[i, : len(end) - 1] = torch.tensor(end[1:], dtype=torch.int64)
    tokens, ids, targets = tokens.to(device), ids.to(device), targets.to(device)
    select_rows(cache, index)
    with stack.attached(base.model) as attached:
        attached.take([prompts[place].edits for place in owner])
        attached.at(torch.zeros_like(tokens), tokens)
        output = base.model(
            input_ids=ids,
            attention_mask=mask_after(cache, torch.cat([batch.attention_mask[index], tokens.long()], dim=1)),
            position_ids=batch.position_ids[index, -1:] + 1 + torch.arange(width, device=device),
            **with_cache(base.model, cache),
        )
    rest = _nll(output.logits).gather(-1, targets.unsqueeze(-1)).squeeze(-1).cpu().double()
    tokens = tokens.cpu()
    widths = tokens.sum(-1, keepdim=True)
    last = torch.where(widths[:, 0] > 0, rest.gather(-1, (widths - 1).clamp(min=0))[:, 0], sums)
    return list(zip((sums + (rest * tokens).sum(-1)).tolist(), last.tolist(), strict=True))


def _nll(logits: Tensor) -> Tensor:
    """−log softmax, in float32 at least."""
    return -(logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
