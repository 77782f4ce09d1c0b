"""Every method through the whole app: measured payload = analytic payload, and nothing private on the wire."""

from __future__ import annotations

import pytest

from fed import base_model, costs
from fed.ledger import PHASES
from fed.settings import METHODS
from fed.vault import PERSONAL, read_tensors
from tests.integration.in_process import federate

pytest.importorskip("peft")
LOREFT = {"perfit", "perfit-stage1", "reft-p", "reft-cp"}
ENGINE = {name: "batched" if name in LOREFT else "none" for name in METHODS}
ENGINE |= dict.fromkeys(("lora-c", "lora-p", "oppu"), "peft")


@pytest.mark.parametrize(
    ("method", "wire_dtype"), [(m, "float32") for m in METHODS] + [(m, "bfloat16") for m in ("perfit", "oppu")]
)
def test_the_measured_payload_is_the_analytic_one(settings, method, wire_dtype):
    run = settings(method=method, wire_dtype=wire_dtype, fraction=0.5, max_new_tokens=3)
    report, grid, folder = federate(run, 2)
    cost = costs.of_run(run, base_model.load(run.base_source).skeleton)
    one = cost.federated_bytes(wire_dtype)
    trained = sum(row["users"] for row in report["rounds"])
    assert trained == (6 if one else 0)  # two rounds of half of six users
    assert report["parameters"]["stage1"] == cost.federated_parameters
    assert report["parameters"]["stage2"] == cost.private_parameters
    assert (report["method"], report["engine"]) == (method, ENGINE[method])
    expected = {
        ("stage1", "down"): one * (trained + len(report["users"]) * bool(one)),  # rounds, then the hand-out
        ("stage1", "up"): one * trained,
    }
    for phase in PHASES:
        for way in ("down", "up"):
            assert report["bytes"][phase][way]["payload"] == expected.get((phase, way), 0), (phase, way)
    vaults = list((folder / "vault").glob(f"*/{PERSONAL}"))
    assert len(vaults) == (6 if cost.private_parameters else 0)
    for path in vaults:
        assert {n: tuple(t.shape) for n, t in read_tensors(path)[0].items()} == dict(cost.private)
    arms = {arm for arm, found in report["arms"].items() if found is not None}
    assert arms == {"base"} | ({"stage1"} if one else set()) | ({"stage1+2", "swapped"} if vaults else set())
    losses = {arm: report["arms"][arm]["loss_per_token"] for arm in arms}
    assert len(set(losses.values())) == len(losses)  # each arm's tensors do something
    assert method in (folder / "report.html").read_text(encoding="utf-8")


def test_stage_1_alone_is_perfits_stage_1_and_reft_p_is_its_stage_2_on_the_bare_base(settings, tmp_path):
    runs = {
        name: federate(settings(method=name, max_new_tokens=0, output_dir=str(tmp_path / name)), 2)
        for name in ("perfit", "perfit-stage1", "reft-p", "reft-cp")
    }
    arms = {name: report["arms"] for name, (report, _, _) in runs.items()}
    assert arms["perfit-stage1"]["base"] == arms["reft-p"]["base"] == arms["perfit"]["base"]
    assert arms["perfit-stage1"]["stage1"] == arms["perfit"]["stage1"]
    assert runs["perfit-stage1"][0]["rounds"][-1]["loss"] == runs["perfit"][0]["rounds"][-1]["loss"]
    assert runs["reft-p"][0]["parameters"]["stage2"] == runs["perfit"][0]["parameters"]["stage2"]
    both = sum(runs["perfit"][0]["parameters"][stage] for stage in ("stage1", "stage2"))
    assert runs["reft-cp"][0]["parameters"] == {**runs["reft-p"][0]["parameters"], "stage2": both}
    own = [arms[name]["stage1+2"]["loss_per_token"] for name in ("perfit", "reft-p", "reft-cp")]
    assert len(set(own)) == 3
