"""Shared fixtures: tiny random Llamas with a real tokenizer, trained-looking edits, and an edit engine to compare with.

Nothing here is loaded from disk or from a hub. The reference engine is written against transformers alone and uses
nothing of `fed.edits.hooks`, `fed.edits.loreft`, `fed.edits.positions` or a cache of keys and values.
"""

from __future__ import annotations

import resource
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fed.base.architecture import grouped_attention
from fed.base.model import BaseModel
from fed.base.random_base import HIDDEN, save_tiny
from fed.base.random_base import tiny_llama as make_llama
from fed.base.random_base import tiny_tokenizer as make_tokenizer
from fed.edits.loreft import EditBank, EditShape
from fed.edits.stiefel import random_rows
from fed.settings.settings import Settings

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent

torch.set_num_threads(1)  # two cores are shared, and the models are tiny
# A busy machine is no failure: wall-clock limits of Hypothesis are off.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


def _exact(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Float64 all the way: transformers' norm and eager softmax compute in float32 whatever the weights are."""
    for layer in model.model.layers:
        for name in ("input_layernorm", "post_attention_layernorm"):
            setattr(layer, name, _norm_like(getattr(layer, name)))
    model.model.norm = _norm_like(model.model.norm)
    model.set_attn_implementation("sdpa")
    return model


def _norm_like(norm: nn.Module) -> nn.RMSNorm:
    native = nn.RMSNorm(norm.weight.shape[0], eps=norm.variance_epsilon)
    native.weight = norm.weight
    return native


# Files whose tests share a fixture that starts processes: with two workers of pytest, one worker takes all of them.
TOGETHER = {
    "flower_run": ("sims/test_run.py", "sims/simulation/test_in_process.py", "sims/test_bench_scale.py"),
    "kept_worker": (
        "sims/test_compare_methods.py",
        "sims/test_compare_comm.py",
        "sims/test_explore_sweeps.py",
        "sims/test_search.py",
    ),
}


def group_of(nodeid: str) -> str:
    """The tests that one worker takes: a file's, or those of files that belong together."""
    file = nodeid.partition("::")[0]
    return next((group for group, files in TOGETHER.items() if file.removeprefix("tests/") in files), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """pytest-xdist's scheduler by scope, with ours; its `--dist loadgroup` is mute under pytest 9."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # in the order below
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of sims/ first: they are the longest, and wait for processes."""
    items.sort(key=lambda item: not item.path.is_relative_to(TESTS / "sims"))


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """The factory of tiny models, for tests that save one to a folder; eager attention."""
    return make_llama


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """The factory of tokenizers, one token a character."""
    return make_tokenizer


@pytest.fixture(scope="session")
def make_base() -> Callable[..., BaseModel]:
    """A frozen tiny base in the named dtype; the same seed gives the same weights."""

    def make(dtype: str = "float32", seed: int = 0, **changes: Any) -> BaseModel:
        model = _exact(make_llama(seed, **changes)) if dtype == "float64" else make_llama(seed, **changes)
        model.to(getattr(torch, dtype)).requires_grad_(False).eval()
        grouped_attention.use(model)
        return BaseModel("tiny", model, make_tokenizer(), dtype, "cpu", "0" * 16)

    return make


@pytest.fixture(scope="session")
def tiny32(make_base: Callable[..., BaseModel]) -> BaseModel:
    return make_base("float32")


@pytest.fixture(scope="session")
def tiny64(make_base: Callable[..., BaseModel]) -> BaseModel:
    return make_base("float64")


@pytest.fixture(scope="session")
def random_bank() -> Callable[..., EditBank]:
    """Edits as training leaves them: R orthonormal, W and b some way from the identity edit."""

    def make(
        users: int = 1,
        *,
        layers: Sequence[int] = (1, 2),
        rank: int = 2,
        seed: int = 0,
        scale: float = 0.3,
        dtype: torch.dtype = torch.float64,
    ) -> EditBank:
        draw = torch.Generator().manual_seed(seed)
        size = (users, len(layers), rank, HIDDEN)
        R = random_rows(size, draw)
        W = R + scale * torch.randn(size, generator=draw)
        b = scale * torch.randn(size[:-1], generator=draw)
        # float32 rows are orthonormal to 1e-7 only: finish in the dtype that was asked for
        R = torch.linalg.qr(R.to(dtype).mT).Q.mT.contiguous()
        return EditBank(EditShape(tuple(layers), rank, HIDDEN), R, W.to(dtype), b.to(dtype))

    return make


@pytest.fixture(scope="session")
def hooks_of() -> Callable[[nn.Module], int]:
    """How many forward hooks and pre-hooks hang anywhere in a model: 0 when it is clean."""

    def count(model: nn.Module) -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    return count


@pytest.fixture(scope="session")
def reference_logits() -> Callable[..., Tensor]:
    """Logits (T, V) of one unpadded row under edits, from transformers and the paper's formula alone.

    edits: (bank, user, mask) in the order of composition; mask: T bools, where that edit applies.
    """

    def hook(R: Tensor, W: Tensor, b: Tensor, mask: Sequence[bool]) -> Callable[..., Tensor]:
        def edit(_module: nn.Module, _inputs: Any, h: Tensor) -> Tensor:
            out = h.clone()
            for t in (t for t, applies in enumerate(mask) if applies):
                x = h[0, t]
                out[0, t] = x + R.T @ (W @ x + b - R @ x)
            return out

        return edit

    def logits(base: BaseModel, ids: Sequence[int], edits: Sequence[tuple[EditBank, int, Sequence[bool]]]) -> Tensor:
        handles = []
        for bank, user, mask in edits:
            for place, layer in enumerate(bank.shape.blocks):
                R, W, b = (bank.parameters()[name][user, place].detach() for name in ("R", "W", "b"))
                handles.append(base.model.model.layers[layer].register_forward_hook(hook(R, W, b, mask)))
        try:
            with torch.no_grad():
                return base.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()

    return logits


@pytest.fixture
def no_room_past() -> Callable[[int], AbstractContextManager[None]]:
    """no_room_past(1000): inside, a file past so many bytes cannot be written, as on a full disk."""

    @contextmanager
    def limited(count: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama and its tokenizer in a folder, as a user would have a base model."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def open_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a policy that accepts every run and lets exact figures out, for devices of made-up users."""
    file = tmp_path_factory.mktemp("policy") / "open.toml"
    file.write_text("open = true\n")
    return str(file)


@pytest.fixture(scope="session")
def tiny_chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template: `[user]…</s>[assistant]`."""
    folder = tmp_path_factory.mktemp("tiny-chat-llama")
    save_tiny(folder)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def settings_in(tiny_base: Path) -> Callable[..., Settings]:
    """settings_in(folder, rounds=2, …) -> Settings of a short LaMP_7 run on the tiny base; keys with `_` for `-`."""
    file = REPOSITORY / "sims" / "lamp7" / "pyproject.toml"
    config = tomllib.loads(file.read_text())["tool"]["flwr"]["app"]["config"]
    short = {
        "base-model": str(tiny_base),
        "data": "synthetic:6",
        "layers": "1,2",
        "stage1-rank": 3,
        "stage2-rank": 2,
        "rounds": 2,
        "fraction": 0.5,
        "stage1-lr": 0.005,
        "stage2-lr": 0.005,
        "local-epochs": 1,
        "stage2-epochs": 1,
        "max-items": 5,
        "max-queries": 2,
        "max-new-tokens": 6,
        "batch-size": 4,
        "positions": "all",
        "stage2-positions": "same",
        "average": "svd",
        "strategy": "fedavg",
        "engine": "batched",
        "cohorts": "paper",
        "temperature": 0.0,
    }

    def make(folder: Path, **changes: object) -> Settings:
        here = {"output-dir": str(folder)} | {key.replace("_", "-"): value for key, value in changes.items()}
        return Settings.parse({**config, **short, **here})

    return make


@pytest.fixture
def settings(settings_in: Callable[..., Settings], tmp_path: Path) -> Callable[..., Settings]:
    """settings(rounds=2, …) -> those settings, with results in a folder of the test's own."""

    def make(**changes: object) -> Settings:
        return settings_in(tmp_path / "runs", **changes)

    return make
