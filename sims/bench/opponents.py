"""What the engine is measured against: users trained one after the other by pyreft, and by PEFT's LoRA.

Both loops are what their libraries' own trainers do for a step (pyreft's `ReftTrainer.compute_loss`; transformers' loss
of a PEFT model): the loss from logits at every position, autograd, `clip_grad_norm_`, `torch.optim.AdamW`. They get the
same frozen base, dtype, rows, minibatches and rates as ours, and none of the trainers' logging and checkpoints.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fed.base.model import BaseModel
from fed.communication import costs
from fed.edits.lora import adapted, initial
from fed.edits.loreft import EditBank
from fed.forward.batching import Row, minibatches, pad
from fed.training.plan import TrainSettings
from fed.training.pyreft_engine import intervention

IGNORED = -100  # transformers' label of a position without a loss


def pyreft_alone(
    base: BaseModel, edit: EditBank, rows: Sequence[Row], plan: TrainSettings, generator: torch.Generator
) -> list[float]:
    """One user's step losses under pyreft, starting from `edit` (one user), edits at every token."""
    with redirect_stdout(io.StringIO()):  # pyvene prints an advertisement
        import pyreft

    interventions = [intervention(pyreft, R, W, b) for R, W, b in edit.rows(None)]
    config = pyreft.ReftConfig(
        representations=[
            {"layer": block, "component": "block_output", "low_rank_dimension": edit.shape.rank, "intervention": made}
            for block, made in zip(edit.shape.blocks, interventions, strict=True)
        ]
    )
    reft = pyreft.get_reft_model(base.model, config, set_device=False)
    reft.set_device(base.device, set_model=False)
    compute_loss: Any = pyreft.ReftTrainer.compute_loss

    def loss_of(inputs: dict[str, Tensor]) -> Tensor:
        where = torch.arange(inputs["input_ids"].shape[1]).expand(len(interventions), *inputs["input_ids"].shape)
        return compute_loss(SimpleNamespace(), reft, inputs | {"intervention_locations": where.permute(1, 0, 2)})

    trained = [parameter for made in interventions for parameter in made.parameters()]
    return _loop(base, trained, rows, plan, generator, loss_of)


def lora_alone(base: BaseModel, rows: Sequence[Row], plan: TrainSettings, generator: torch.Generator) -> list[float]:
    """One user's step losses under PEFT's LoRA, r = α = 8 on q and v."""
    with adapted(base, {"own": costs.QUERY_VALUE}, costs.LORA_RANK, costs.LORA_ALPHA) as adapters:
        shapes = {name: tuple(p.shape) for name, p in adapters.parameters("own").items()}
        adapters.fill("own", initial(shapes, torch.Generator().manual_seed(0)))
        adapters.use(["own"], trained="own")
        trained = list(adapters.parameters("own").values())

        def loss_of(inputs: dict[str, Tensor]) -> Tensor:
            loss: Tensor = base.model(**inputs, use_cache=False).loss
            return loss

        return _loop(base, trained, rows, plan, generator, loss_of)


def _loop(
    base: BaseModel,
    parameters: Sequence[nn.Parameter],
    rows: Sequence[Row],
    plan: TrainSettings,
    generator: torch.Generator,
    loss_of: Callable[[dict[str, Tensor]], Tensor],
) -> list[float]:
    steps = minibatches(len(rows), plan.batch_size, plan.epochs, generator)
    optimizer = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=0.0)
    losses = []
    for step, picked in enumerate(steps):
        batch = pad([rows[i] for i in picked], base.pad_id, base.device)
        labels = batch.input_ids.masked_fill(~batch.labels, IGNORED)
        loss = loss_of({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels})
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimizer.param_groups[0]["lr"] = plan.rate_at(step, len(steps))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses
