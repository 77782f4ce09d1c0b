"""PEFT's LoRA adapters on the shared base: on for the length of a `with`, filled with one user's numbers at a time.

    h = W x + Σ over the adapters in force of (α / r) B A x        A: (r, in)   B: (out, r)   (Hu et al., 2021)

The base is never copied: PEFT wraps its Linears, and leaving the context takes the wraps off again. Tensors go by the
names under which PEFT saves them. Deliberately absent: dropout (a seed then fixes everything).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fed.base.architecture.text_model import text_config
from fed.base.model import BaseModel


def initial(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """PEFT's start, drawn from `generator`: A uniform in ±1/√in (Kaiming, a = √5), B zero, so that nothing changes."""
    tensors = {}
    for name, shape in shapes.items():
        bound = shape[1] ** -0.5
        tensors[name] = (
            torch.empty(shape).uniform_(-bound, bound, generator=generator)
            if ".lora_A." in name
            else torch.zeros(shape)
        )
    return tensors


class Adapters:
    """The adapters on a base model. Made by `adapted`."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self._model = model
        self._parameters: dict[str, dict[str, torch.nn.Parameter]] = {name: {} for name in names}
        for full, parameter in model.named_parameters():
            for name in names:
                if f".{name}." in full and ".lora_" in full:
                    self._parameters[name][full.replace(f".{name}.", ".")] = parameter

    def parameters(self, name: str) -> dict[str, torch.nn.Parameter]:
        """One adapter's parameters, by the names under which PEFT saves them."""
        return self._parameters[name]

    @torch.no_grad()
    def fill(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Give an adapter these numbers. Raises ValueError where names or shapes are not its own."""
        own = self._parameters[name]
        if {n: tuple(p.shape) for n, p in own.items()} != {n: tuple(t.shape) for n, t in tensors.items()}:
            raise ValueError(f"the tensors for adapter {name!r} must have its {len(own)} names and shapes")
        for key, parameter in own.items():
            parameter.copy_(tensors[key])

    def tensors(self, name: str, order: Sequence[str]) -> dict[str, Tensor]:
        """Copies of an adapter's numbers on the CPU, in `order`."""
        return {key: self._parameters[name][key].detach().cpu().clone() for key in order}

    def use(self, names: Sequence[str], trained: str | None = None) -> None:
        """Put these adapters in force, and let gradients reach `trained` alone."""
        tuner = self._model.base_model
        if names:
            tuner.enable_adapter_layers()
            tuner.set_adapter(list(names))
        else:
            tuner.disable_adapter_layers()
        for name, own in self._parameters.items():
            for parameter in own.values():
                parameter.requires_grad_(name == trained)


@contextmanager
def adapted(base: BaseModel, targets: Mapping[str, Sequence[str]], rank: int, alpha: float) -> Iterator[Adapters]:
    """Put adapters on the base's Linears; the base comes out as it went in, whatever happens.

    Args:
        targets: adapter name -> last names of its Linears, such as {"collective": ("q_proj", "v_proj")}.
    Raises:
        ValueError: PEFT is not installed.
    """
    peft = _import_peft()
    trainable = [(p, p.requires_grad) for p in base.model.parameters()]
    modes = [(module, module.training) for module in base.model.modules()]
    state = torch.random.get_rng_state()  # PEFT draws a start that `fill` writes over
    model: Any = None
    try:
        for name, modules in targets.items():
            config = peft.LoraConfig(
                r=rank, lora_alpha=alpha, target_modules=_of_text(base, modules), lora_dropout=0.0, bias="none"
            )
            if model is None:
                model = peft.get_peft_model(base.model, config, adapter_name=name)
            else:
                model.add_adapter(name, config)
        torch.random.set_rng_state(state)
        model.eval()
        yield Adapters(model, list(targets))
    finally:
        if model is not None:
            model.unload()
            if hasattr(base.model, "peft_config"):
                del base.model.peft_config
        torch.random.set_rng_state(state)
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


def _of_text(base: BaseModel, modules: Sequence[str]) -> list[str]:
    """The targets as PEFT takes them: last names, or whole ones where towers beside the text model share those."""
    config = base.model.config
    if text_config(config) is config:
        return list(modules)
    return [name for name, _, _ in base.skeleton.named(*modules)]


def _import_peft() -> Any:
    try:
        return import_module("peft")
    except ImportError as error:
        raise ValueError(f"the LoRA methods need PEFT, whose import failed ({error}): pip install peft") from error
