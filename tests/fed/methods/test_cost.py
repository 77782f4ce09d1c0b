"""What a method weighs, from the shapes that it trains: against numbers by hand, packed edits, and the registry."""

import tomllib
from pathlib import Path

import pytest
import torch

from fed import methods
from fed.answering.reader import Reader
from fed.base.skeleton import Skeleton, skeleton
from fed.communication import changes, costs, wire
from fed.edits.loreft import EditBank, EditShape
from fed.methods.method import Method
from fed.settings.methods import METHODS, Entry
from fed.settings.settings import Settings

APP = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"
OF_PAPERS = ("lora-c", "lora-p", "oppu", "ffa-lora", "fedsa-lora")


def settings(**changes):
    config = tomllib.loads(APP.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    plan = {"layers": "10,16,22", "stage2-layers": "same", "stage1-rank": 8, "stage2-rank": 4, "average": "svd"}
    return Settings.parse(config | plan | {key.replace("_", "-"): value for key, value in changes.items()})


def cost_of(base, **changes):
    return methods.make(settings(**changes), base).cost


@pytest.mark.parametrize(
    ("method", "federated", "private"),
    [
        ("perfit", 24 * 1152 + 24, 12 * 1152 + 12),
        ("perfit-stage1", 24 * 1152 + 24, 0),
        ("reft-p", 0, 12 * 1152 + 12),
        ("reft-cp", 0, 36 * 1152 + 36),
        ("fedreft", 24 * 1152 + 24, 24 * 1152 + 24),
        ("stylevector", 0, 576),
        ("non-personalized", 0, 0),
        ("rag", 0, 0),
        ("pag", 0, 0),
        ("lora-p", 0, 30 * 8 * (576 + 576 + 576 + 192)),
    ],
)
def test_a_runs_method_costs_its_ranks_over_its_layers(method, federated, private):
    """d = 576, three layers, ranks 8 and 4: 2 d Σr + Σr numbers; LoRA on 30 blocks' q (576 → 576) and v (576 → 192)."""
    cost = cost_of(skeleton("smollm2-135m"), method=method)
    assert (cost.method, cost.federated_parameters, cost.private_parameters) == (method, federated, private)


@pytest.mark.parametrize("method", OF_PAPERS)
def test_the_papers_methods_run_with_the_tensors_that_their_analysis_has(method):
    base = skeleton("smollm2-135m")
    assert cost_of(base, method=method) == costs.cost(method, base)


@pytest.mark.parametrize("dtype", wire.WIRE_DTYPES)
def test_perfits_analytic_payload_is_that_of_a_packed_edit_or_change(dtype):
    base = skeleton("smollm2-135m")
    cost = cost_of(base, layers="1,3,8", stage1_rank=5, stage2_rank=2)
    for rank, analytic in ((5, cost.federated_bytes(dtype)), (2, cost.private_bytes(dtype))):
        shape = EditShape((1, 3, 8), rank, base.hidden_size)
        edit = EditBank.identity(shape, [torch.Generator()]).tensors(0)
        whole = wire.pack(edit, dtype).nbytes
        assert whole == shape.parameters * (8 if dtype == "float64" else 4)
        if wire.is_narrow(dtype):
            start = {name: torch.zeros_like(tensor) for name, tensor in edit.items()}
            packing = changes.packing(shape.tensors(), dtype)
            assert analytic == changes.sent(start, edit, packing, torch.Generator()).packed.nbytes < whole
        else:
            assert analytic == whole


def test_a_frozen_r_is_kept_and_not_sent():
    base = skeleton("smollm2-135m")
    whole, cost = (cost_of(base, layers="10,16", average=average) for average in ("svd", "frozen-r"))
    assert cost.federated == {"D": (2, 8, 576), "b": (2, 8)} and cost.frozen == {"R": (2, 8, 576)}
    assert cost.federated_bytes() + cost.frozen_bytes() == whole.federated_bytes()
    assert cost.private == whole.private and not whole.frozen


def test_an_exact_average_costs_all_the_rows_that_are_sent():
    base = skeleton("smollm2-135m")
    assert cost_of(base, average="exact").federated["R"] == (3, 576, 576)
    assert cost_of(base, average="exact", exact_rank=20).federated["R"] == (3, 20, 576)


def test_perfit_by_sum_of_ranks_weighs_what_its_layers_times_rank_weigh():
    base = skeleton("smollm2-135m")
    by_layers, by_sum = cost_of(base), costs.cost("perfit", base, ranks=(24, 12))
    assert by_sum.federated_parameters == by_layers.federated_parameters == 24 * (2 * 576 + 1)
    assert by_sum.private_parameters == by_layers.private_parameters == 12 * (2 * 576 + 1)


def test_all_layers_of_the_settings_are_the_models_own():
    cost = cost_of(skeleton("qwen2.5-0.5b"), layers="all", stage1_rank=1)
    assert cost.federated["R"] == (24, 1, 896)


class Own(Method):
    """A method that this project does not have: two tensors of names that nothing else knows."""

    def collective_shapes(self):
        return {"gain": (4, 3)}

    def private_shapes(self):
        return {"offset": (5,)}

    def frozen_shapes(self):
        return {"axes": (4, 4)}

    def reader(self, base, collective, private) -> Reader:
        raise NotImplementedError


def test_a_method_of_ones_own_costs_its_shapes(monkeypatch):
    monkeypatch.setitem(METHODS, "own", Entry(f"{__name__}.Own"))
    cost = cost_of(Skeleton("tiny", 0, 32, 23, ()), method="own")
    assert cost == costs.Cost("own", {"gain": (4, 3)}, {"offset": (5,)}, {"axes": (4, 4)})
    assert (cost.federated_bytes("float16"), cost.private_bytes(), cost.frozen_bytes()) == (24, 20, 64)


def test_a_lora_of_ones_own_must_say_what_it_adapts(monkeypatch):
    monkeypatch.setitem(METHODS, "own-lora", Entry("fed.methods.lora.Lora"))
    with pytest.raises(ValueError, match="method must be one of perfit, oppu, .*, got 'own-lora'"):
        cost_of(skeleton("smollm2-135m"), method="own-lora")
