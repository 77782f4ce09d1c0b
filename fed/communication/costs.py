"""What a method's tensors weigh, from a base model's shapes alone: analytic costs, to set beside measured ones.

    LoRA:     ΔW = B A                A: (r, in)   B: (out, r)       r · (in + out) numbers a module (Hu et al., 2021)
    LoReFT:   R, W: (Σr, d)  b: (Σr,)                                2 d Σr, with Σr the ranks added over the layers

Every method splits its tensors in three: **federated** ones cross the network in training; **private** ones are a
user's own and never do; **frozen** ones are drawn from a shared seed, equal for everybody, and are kept but not sent.
The paper's methods stand here, for any base and Σr; what a run's method weighs is `fed.methods.method.Method.cost`.
Deliberately absent: optimizer state and activations, which never leave the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fed.base.skeleton import Skeleton
from fed.communication.wire import bytes_of

Shapes = Mapping[str, tuple[int, ...]]

LORA_RANK = LORA_ALPHA = 8  # PerFit paper, section 4, and OPPU: r = 8, and α = 8
ATTENTION = ("q_proj", "k_proj", "v_proj")  # OPPU's stage 1 (its list also names out_proj, which Llama has not)
QUERY_VALUE = ("q_proj", "v_proj")  # OPPU's stage 2, LoRA-P, and LoRA's own choice
PAPER_RANKS = (64, 32)  # Σ rank over layers of stages 1 and 2 on LaMP-7 (PerFit, table 3)


def count(shapes: Shapes) -> int:
    """How many numbers the tensors hold."""
    return sum(math.prod(shape) for shape in shapes.values())


@dataclass(frozen=True)
class Cost:
    """One method's tensors for one user, name to shape, in wire order."""

    method: str
    federated: Shapes = field(default_factory=dict)
    private: Shapes = field(default_factory=dict)
    frozen: Shapes = field(default_factory=dict)

    @property
    def federated_parameters(self) -> int:
        return count(self.federated)

    @property
    def private_parameters(self) -> int:
        return count(self.private)

    def federated_bytes(self, dtype: str = "float32") -> int:
        """Payload bytes of one message, up; down too, where its user has what the change in it is from."""
        return bytes_of(self.federated, dtype)

    def private_bytes(self, dtype: str = "float32") -> int:
        """Payload bytes of one user's private tensors."""
        return bytes_of(self.private, dtype)

    def frozen_bytes(self, dtype: str = "float32") -> int:
        """Bytes of the tensors that a shared seed gives."""
        return bytes_of(self.frozen, dtype)


def loreft_shapes(ranks: int, hidden_size: int, *, biases: bool = True) -> dict[str, tuple[int, ...]]:
    """A LoReFT edit of Σ rank `ranks` over all its layers; without b as the paper's tables count it."""
    if ranks < 1:
        raise ValueError(f"the sum of ranks over layers must be at least 1, got {ranks}")
    shapes: dict[str, tuple[int, ...]] = {"R": (ranks, hidden_size), "W": (ranks, hidden_size)}
    return shapes | {"b": (ranks,)} if biases else shapes


def lora_shapes(base: Skeleton, targets: tuple[str, ...], rank: int = LORA_RANK) -> dict[str, tuple[int, ...]]:
    """LoRA's A (rank, inputs) and B (outputs, rank) on every Linear named so, under the keys that PEFT saves."""
    if rank < 1:
        raise ValueError(f"LoRA's rank must be at least 1, got {rank}")
    shapes: dict[str, tuple[int, ...]] = {}
    for name, outputs, inputs in base.named(*targets):
        shapes[f"base_model.model.{name}.lora_A.weight"] = (rank, inputs)
        shapes[f"base_model.model.{name}.lora_B.weight"] = (outputs, rank)
    return shapes


def perfit(base: Skeleton, ranks: tuple[int, int] = PAPER_RANKS, *, biases: bool = True) -> Cost:
    """PerFit: a federated collective edit, then a private one. ranks: Σ rank over layers of stages 1 and 2.

    With rank biases (b) as trained and sent; `biases=False` as counted in the paper's tables 2 and 3.
    """
    collective, private = (loreft_shapes(r, base.hidden_size, biases=biases) for r in ranks)
    return Cost("perfit", federated=collective, private=private)


def oppu(base: Skeleton) -> Cost:
    """OPPU (Tan et al., 2024): federated LoRA on q, k, v; then a private LoRA on q, v on top of it; r = 8."""
    return Cost("oppu", federated=lora_shapes(base, ATTENTION), private=lora_shapes(base, QUERY_VALUE))


def lora_p(base: Skeleton) -> Cost:
    """LoRA-P (PerFit, section 4): one LoRA per user on q, v, r = 8; nothing is federated."""
    return Cost("lora-p", private=lora_shapes(base, QUERY_VALUE))


def lora_c(base: Skeleton) -> Cost:
    """LoRA-C (PerFit, section 4): OPPU's first stage alone; one federated LoRA for everybody, nothing private."""
    return Cost("lora-c", federated=lora_shapes(base, ATTENTION))


def _half(base: Skeleton, half: str) -> dict[str, tuple[int, ...]]:
    """The A or the B matrices of LoRA on q, v."""
    return {name: shape for name, shape in lora_shapes(base, QUERY_VALUE).items() if f".lora_{half}." in name}


def ffa_lora(base: Skeleton) -> Cost:
    """FFA-LoRA (Sun et al., 2024) on q, v, r = 8: A frozen at a shared draw, only B trained and federated."""
    return Cost("ffa-lora", federated=_half(base, "B"), frozen=_half(base, "A"))


def fedsa_lora(base: Skeleton) -> Cost:
    """FedSA-LoRA (Guo et al., 2024) on q, v, r = 8: both trained; A federated, B each user's own."""
    return Cost("fedsa-lora", federated=_half(base, "A"), private=_half(base, "B"))


ANALYSED: dict[str, Callable[[Skeleton], Cost]] = {
    "perfit": perfit,
    "oppu": oppu,
    "lora-p": lora_p,
    "lora-c": lora_c,
    "ffa-lora": ffa_lora,
    "fedsa-lora": fedsa_lora,
}


def cost(method: str, base: Skeleton, *, ranks: tuple[int, int] = PAPER_RANKS) -> Cost:
    """A method's tensors on a base model; `ranks` (Σ rank of stages 1 and 2) concerns perfit alone.

    Raises:
        ValueError: an unknown method, or a base without the Linears that the method adapts.
    """
    if method not in ANALYSED:
        raise ValueError(f"method must be one of {', '.join(ANALYSED)}, got {method!r}")
    return perfit(base, ranks) if method == "perfit" else ANALYSED[method](base)
