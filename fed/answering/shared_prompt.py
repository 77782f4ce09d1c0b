"""Losses of several completions of one prompt, which is read once: its keys and values serve all of them.

A classification query asks for the likelihood of 15 labels after 200 tokens of prompt; row by row that is 15 times the
prompt. Here a prompt costs one forward pass and its labels a second one, over the labels' few tokens alone.

Shapes:  G prompts · B completions of them all · W tokens of the longest completion but its last · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fed.answering.reader import Loss
from fed.base.architecture.cache_kinds import empty_cache, mask_after, select_rows, with_cache
from fed.base.model import BaseModel
from fed.forward.batching import Row, pad, under_token_budget

# Told before each forward pass: the prompt (its number) that each row belongs to, and where the row's prompt and all
# its real tokens lie, (B, T) bool each.
Enter = Callable[[Sequence[int], Tensor, Tensor], None]


@torch.no_grad()
def losses(
    base: BaseModel,
    prompts: Sequence[tuple[int, ...]],
    completions: Sequence[Sequence[tuple[int, ...]]],
    enter: Enter,
    *,
    token_budget: int,
    on_rows: Callable[[int], None] | None = None,
) -> list[list[Loss]]:
    """What each completion of each prompt costs, equal to a whole row's up to rounding.

    Args:
        completions: of each prompt, every one of at least one token. token_budget: of one forward pass; a batch's
        cache, where every completion has its prompt's keys and values, may hold twice as many. One prompt is always
        taken. on_rows: called with a number of completions as they finish.
    """
    found: list[list[Loss]] = [[] for _ in prompts]
    cached = [len(own) * (len(p) + max(map(len, own))) for p, own in zip(prompts, completions, strict=True)]
    for picked in under_token_budget(cached, 2 * token_budget):
        owner = [place for place, number in enumerate(picked) for _ in completions[number]]
        ends = [completion for number in picked for completion in completions[number]]
        sums = _batch(base, [prompts[number] for number in picked], owner, ends, picked, enter)
        for place, completion, (nll, last) in zip(owner, ends, sums, strict=True):
            found[picked[place]].append(Loss.of(nll, last, completion, base.end_ids))
        if on_rows:
            on_rows(len(ends))
    return found


def _batch(
    base: BaseModel,
    prompts: Sequence[tuple[int, ...]],
    owner: Sequence[int],
    ends: Sequence[tuple[int, ...]],
    numbers: Sequence[int],
    enter: Enter,
) -> list[tuple[float, float]]:
    """The summed nll of each of `ends`, and that of its last token; the b-th continues `prompts[owner[b]]`."""
    device = base.device
    batch = pad([Row(prompt, ()) for prompt in prompts], base.pad_id, device, left=True, prompts_only=True)
    enter(numbers, batch.prompt, batch.tokens)
    cache = empty_cache(base.model)
    output = base.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=1,
        **with_cache(base.model, cache),
    )
    index = torch.tensor(owner, device=device)
    first = torch.tensor([end[0] for end in ends], device=device)
    # Summed in float64, on the host: a device may have none.
    sums = _nll(output.logits[:, -1])[index].gather(-1, first.unsqueeze(-1)).squeeze(-1).cpu().double()
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
    enter([numbers[place] for place in owner], torch.zeros_like(tokens), tokens)
    select_rows(cache, index)
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
