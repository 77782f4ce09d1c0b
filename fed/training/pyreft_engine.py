"""The reference engine: users trained one after the other by pyreft's own LoReFT intervention (pyreft 0.1.0).

Source: Wu et al. 2024, LoReFT. Minibatches, loss, schedule, clipping and AdamW's constants are those of
`fed.training.train.train`, the product, which is held against this. The model call, the edit's arithmetic, its
positions and its orthogonality are pyreft's and pyvene's. What makes the two curves close instead of equal:

- pyreft moves R in coordinates: Rᵀ = B H(X), B a fixed (d, d) orthogonal matrix with random columns, H a
  product of Householder reflections; AdamW and clipping see X. `fed.training.train.train` steps R itself and retracts.
  A reflection I − 2vvᵀ turns twice as far as v moves, so X takes half the rate here. (One rate for all, as in
  pyreft's own trainer, moves R twice as far as ours, and the curves part.)
- AdamW's step depends on the axes. B's are random; `fed.training.train.train` steps R in random axes too, but in others
  (`fed.training.optimizer.axes_of`). On a random Llama the curves stay within 3 %.
- Weight decay is AdamW's own, of W and b towards zero; `fed.training.train.train` pulls W towards R. X takes none: its
  diagonal holds the signs of R's rows as −1 and is read through `int()`, so any decay at all makes R zero.
- Under a bf16 base the edit is added in float32 and rounded once, not rounded and then added.

Traps of pyvene that this module steps around: every model call begins and ends by silently removing *all*
forward hooks of the model (frozen layers, the choice of logits, transformers' own captures); building an
intervention draws from the global generator; a row with fewer positions than its neighbours needs a filler,
and a filler that repeats a real position counts that position's gradient twice.

Shapes:  L edited blocks · r rank · d hidden size · B rows · T tokens
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn

from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.edits.stack import EditStack
from fed.forward.batching import Batch, Row
from fed.forward.completion_loss import Chosen, completion_nll, logits_only_where
from fed.randomness import generator
from fed.training import one_user
from fed.training.optimizer import BETAS, EPSILON
from fed.training.plan import TrainSettings, UserResult
from fed.training.train import check_users

ROTATION_RATE = 0.5  # share of the learning rate that X takes; see above


def train(
    base: BaseModel,
    stack: EditStack,
    rows: Sequence[Sequence[Row]],
    generators: Sequence[torch.Generator],
    settings: TrainSettings,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
) -> list[UserResult]:
    """Train the edits of the stack's last layer, in place; arguments and result as in `fed.training.train.train`.

    Raises:
        ValueError: pyreft is not installed, or a user without rows.
    """
    check_users(stack, rows, generators)
    pyreft = _import_pyreft()
    results = []
    for user, (own, g) in enumerate(zip(rows, generators, strict=True)):
        alone = stack.alone(user)
        results.append(_train_one(pyreft, base, alone, own, g, settings, on_step))
        for name, edits in stack.trained.bank.parameters().items():
            edits[user] = alone.trained.bank.parameters()[name][0]
    return results


def _train_one(
    pyreft: Any,
    base: BaseModel,
    stack: EditStack,
    rows: Sequence[Row],
    g: torch.Generator,
    settings: TrainSettings,
    on_step: Callable[[int, int, float], None] | None,
) -> UserResult:
    """Train the one edit of the stack's last layer, in place."""
    frozen, bank = stack.frozen, stack.trained.bank
    # pyreft's model stands around a base that the frozen layers edit already.
    with _left_clean(base.model), frozen.attached(base.model) as attached:
        columns = generator(g.initial_seed(), "pyreft's random columns")
        reft, interventions = _reft_model(pyreft, base, bank, int(torch.randint(2**62, (), generator=columns)))
        start = [t.detach().clone() for t in _edit(interventions)]

        def squared_distance() -> Tensor:
            now = zip(_edit(interventions), start, strict=True)
            return torch.stack([(t - t0).square().sum() for t, t0 in now]).sum()

        def summed_nll(batch: Batch) -> Tensor:
            wide = _one_wider(batch)
            attached.take([frozen.edits_of(0)] * wide.size)
            attached.at(wide.prompt, wide.tokens)
            return _summed_nll(reft, wide, stack.trained.positions, choose)

        with logits_only_where(base.model) as choose:
            result = one_user.fit(
                rows,
                g,
                settings,
                _adamw(interventions, settings),
                lambda picked: one_user.accumulate(base, picked, settings.token_budget, summed_nll),
                squared_distance,
                on_step,
            )
        _copy_back(interventions, bank)
    return result


def _import_pyreft() -> Any:
    try:
        with redirect_stdout(io.StringIO()):  # pyvene prints an advertisement of its optional backend
            return import_module("pyreft")
    except ImportError as error:
        raise ValueError(
            f"engine 'pyreft' needs pyreft, whose import failed ({error}): "
            "pip install 'pyvene>=0.1.8' datasets && pip install --no-deps pyreft==0.1.0"
        ) from error


@contextmanager
def _left_clean(model: nn.Module) -> Iterator[None]:
    """Put back the blocks' hooks, the parameters' requires_grad and the modules' train/eval mode.

    A model call that raises leaves pyvene's hooks behind: `_reft_model` turns its sweeping clean-up off.
    """
    blocks = decoder_blocks(model)
    tables: list[Any] = [t for x in blocks for t in (x._forward_hooks, x._forward_hooks_with_kwargs)]
    hooks = [(table, dict(table)) for table in tables]
    trainable = [(p, p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for table, before in hooks:
            table.clear()
            table.update(before)
        for p, flag in trainable:
            p.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


def _reft_model(pyreft: Any, base: BaseModel, bank: EditBank, seed: int) -> tuple[Any, list[Any]]:
    """A ReftModel around the base with the bank's edit in it; its interventions in the bank's layer order.

    Args:
        seed: of the d − r columns that complete Rᵀ to the parametrization's (d, d) matrix B.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        interventions = [intervention(pyreft, R, W, b) for R, W, b in bank.rows(None)]
    blocks = decoder_blocks(base.model)
    path = next(name for name, module in base.model.named_modules() if module is blocks)
    # A path makes the same hook as "block_output", also for models that pyvene has no table of names for.
    representations = [
        {"component": f"{path}[{layer}].output", "low_rank_dimension": bank.shape.rank, "intervention": made}
        for layer, made in zip(bank.shape.blocks, interventions, strict=True)
    ]
    config = pyreft.ReftConfig(representations=representations)
    reft = pyreft.get_reft_model(base.model, config, set_device=False)
    reft.set_device(base.device, set_model=False)
    # Else every call drops the frozen layers and the choice of logits.
    reft._remove_forward_hooks = lambda: None
    return reft, interventions


def intervention(pyreft: Any, R: Tensor, W: Tensor, b: Tensor) -> Any:
    """pyreft's LoreftIntervention with one layer's R (r, d), W (r, d) and b (r,), on the CPU, in R's dtype.

    pyreft keeps Rᵀ, (d, r). Assigning it goes through the parametrization's right inverse, which completes it
    to (d, d) and gives it back to rounding, so that training stays on the manifold.
    """
    rank, hidden = R.shape
    made = pyreft.LoreftIntervention(embed_dim=hidden, low_rank_dimension=rank, dtype=R.dtype, dropout=0.0)
    made.rotate_layer.to(R.dtype)
    with torch.no_grad():
        made.rotate_layer.weight = R.detach().cpu().mT.contiguous()
        made.learned_source.weight.copy_(W)
        made.learned_source.bias.copy_(b)
    # pyreft widens h for R but not for W: a bf16 base would meet a float32 W.
    made.learned_source.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(R.dtype),))
    return made


def _edit(interventions: Sequence[Any]) -> list[Tensor]:
    """R, W, b of each intervention, as functions of its trainable numbers."""
    tensors = []
    for i in interventions:
        tensors += [i.rotate_layer.weight.mT, i.learned_source.weight, i.learned_source.bias]
    return tensors


def _adamw(interventions: Sequence[Any], settings: TrainSettings) -> torch.optim.AdamW:
    rotations = [i.rotate_layer.parametrizations.weight.original for i in interventions]
    sources = [p for i in interventions for p in i.learned_source.parameters()]
    groups = [
        {"params": rotations, "share": ROTATION_RATE, "weight_decay": 0.0},
        {"params": sources, "share": 1.0, "weight_decay": settings.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=BETAS, eps=EPSILON)


@torch.no_grad()
def _copy_back(interventions: Sequence[Any], bank: EditBank) -> None:
    edits = _edit(interventions)
    for k in range(len(bank.shape.blocks)):
        for into, trained in zip((bank.R, bank.W, bank.b), edits[3 * k : 3 * k + 3], strict=True):
            into[0, k] = trained


def _summed_nll(reft: Any, batch: Batch, positions: Positions, choose: Chosen) -> Tensor:
    """The completions' nll under pyreft's interventions at these positions; the batch as `_one_wider` makes it."""
    mask = positions.mask(batch.prompt, batch.tokens)
    locations = {"sources->base": (None, [unit_locations(mask)] * len(reft.interventions))}

    def forward(**inputs: Any) -> Any:
        return reft(inputs, unit_locations=locations)[1]

    return completion_nll(cast(Any, forward), batch, choose)[0].sum()


def _one_wider(batch: Batch) -> Batch:
    """The batch with one more column of padding on the right, which no token sees and no label needs."""
    tensors = (batch.input_ids, batch.attention_mask, batch.position_ids, batch.prompt, batch.tokens)
    return Batch(*(torch.cat([t, torch.zeros_like(t[:, :1])], dim=1) for t in tensors))


def unit_locations(mask: Tensor) -> list[list[int]]:
    """(B, T) bool to pyvene's positions: B lists of equal length, filled up with the last column, T − 1.

    pyreft's own fillers point at a pad token that it puts before the row; behind the row it moves no token.
    """
    rows = [row.nonzero()[:, 0].tolist() for row in mask]
    width = max(1, *(len(row) for row in rows))
    return [row + [mask.shape[1] - 1] * (width - len(row)) for row in rows]
