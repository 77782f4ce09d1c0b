"""What the product is for, on the real base: stage 1 beats the base, stage 2 beats stage 1, one's own beats another's.

The default app with fewer users and rows. The same assertions must fail where private tensors are made of noise, or the
average keeps the edit that round 1 began with: a product that trained nothing would not pass.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from fed import methods
from fed.answering.evaluation import ARMS, arm_scores
from fed.base import model as base_model
from fed.communication.ledger import Ledger
from fed.lamp.tasks import get_task
from fed.methods.method import Method
from fed.privacy.vault import Vault
from fed.settings.settings import Settings
from server_strategy import personalization
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.nodes import find_nodes
from server_strategy.grid.user_grid import UserGrid
from server_strategy.grid.work_time import WorkTime
from tests.integration.in_process import RecordingGrid, federate

APP = Path(__file__).resolve().parents[2] / "sims" / "lamp7" / "pyproject.toml"
LEAST = 0.05  # of ROUGE-L between own and swapped, and of what each stage adds


def settings(folder: Path, **changes: object) -> Settings:
    config = tomllib.loads(APP.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    few = {"stage1-users": 4, "stage2-users": 3, "max-items": 16, "max-queries": 2, "output-dir": str(folder)}
    return Settings.parse({**config, **few, **{key.replace("_", "-"): value for key, value in changes.items()}})


def shows_the_method(arms: dict) -> None:
    loss = {arm: scores["loss_per_token"] for arm, scores in arms.items() if scores}
    rouge = {arm: scores["rougeL"] for arm, scores in arms.items() if scores}
    assert loss["base"] > loss["stage1"] > loss["stage1+2"] and loss["swapped"] > loss["stage1+2"], loss
    assert rouge["stage1+2"] > rouge["stage1"] + LEAST and rouge["stage1+2"] > rouge["swapped"] + LEAST, rouge


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(settings, report, grid, folder) of the run that shows it."""
    run = settings(tmp_path_factory.mktemp("shows"))
    return run, *federate(run, 1)


def test_the_arms_are_in_order_and_ones_own_vectors_beat_anothers(shown):
    _, report, _, _ = shown
    shows_the_method(report["arms"])


def test_noise_in_the_place_of_private_tensors_does_not_pass(shown, monkeypatch):
    run, report, _, folder = shown
    opened = Vault.read

    def noise(vault: Vault, user: str, **expected: str) -> dict[str, torch.Tensor]:
        """Edits of the size that training left, in directions that nobody trained."""
        tensors = opened(vault, user, **expected)
        draw = torch.Generator().manual_seed(len(user) + ord(user[-1]))
        mixed = {n: t.flatten()[torch.randperm(t.numel(), generator=draw)].view_as(t) for n, t in tensors.items()}
        return mixed | {"R": torch.linalg.qr(mixed["R"].mT).Q.mT.contiguous()}

    monkeypatch.setattr(Vault, "read", noise)
    arms = arms_once_more(run, folder)
    assert arms["stage1"] == report["arms"]["stage1"]
    with pytest.raises(AssertionError):
        shows_the_method(arms)


def test_an_average_that_keeps_the_first_edit_does_not_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(Method, "average", lambda self, name, replies, weights, before: before)
    report, _, _ = federate(settings(tmp_path, stage1_users=1, stage2_users=2, max_items=2, max_queries=1), 1)
    assert report["arms"]["stage1"] == report["arms"]["base"]
    with pytest.raises(AssertionError):
        shows_the_method(report["arms"])


def arms_once_more(run: Settings, folder: Path) -> dict:
    """The arms of a finished run, its users asked once more with what their vaults give out now."""
    grid, users, collective = regrouped(run, folder)
    statistics = personalization.test(grid, users, collective, lambda text: None)
    task = get_task(run.task)
    return {arm: arm_scores(task, [sums[arm] for sums in statistics.values()]) for arm in ARMS}


def regrouped(run: Settings, folder: Path) -> tuple[UserGrid, list[str], str]:
    """(a grid of the run's testers, they, the collective edit's fingerprint)."""
    nodes = RecordingGrid(1, run)
    federation = find_nodes(nodes, run, lambda text: None)
    hosts = {user: federation.hosts[user] for user in federation.stage2}
    method = methods.make(run, base_model.load(run.base_source).skeleton)
    translation = Translation(method.collective_shapes(), run.wire_dtype)
    grid = UserGrid(nodes, hosts, translation=translation, ledger=Ledger(), timeout=None, work=WorkTime())
    vault = Vault(folder / "vault")
    return grid, list(hosts), vault.header(next(iter(hosts)))["collective"]
