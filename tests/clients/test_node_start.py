"""A device loads its base without the collector; a simulated node, whose process lives on, with it."""

from __future__ import annotations

import gc
import json
import tomllib
from pathlib import Path

import pytest

from clients.collector import without_collector
from clients.device.node_config import NodeConfig
from clients.node import Node
from fed.base import model as base_model
from fed.settings.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_inside_and_what_was_made_is_frozen():
    before = gc.get_freeze_count()
    with without_collector():
        assert not gc.isenabled()
        made = [[number] for number in range(5_000)]
    assert gc.isenabled() and gc.get_freeze_count() >= before + len(made)


def test_the_collector_is_back_after_an_error_and_stays_off_where_it_was_off():
    with pytest.raises(OSError), without_collector():
        raise OSError
    assert gc.isenabled()
    gc.disable()
    with without_collector():
        pass
    assert not gc.isenabled()


@pytest.mark.parametrize("device", [True, False])
def test_only_a_device_loads_its_base_so(tiny_base, tmp_path, monkeypatch, device):
    app = tomllib.loads((REPOSITORY / "sims" / "lamp7" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    chosen = Settings.parse(app | {"base-model": str(tiny_base), "layers": "1,2", "output-dir": str(tmp_path)})
    config: dict[str, object] = {"partition-id": 0, "num-partitions": 1}
    if device:
        history = tmp_path / "history.jsonl"
        history.write_text("".join(json.dumps({"text": f"tweet {n}"}) + "\n" for n in range(6)))
        config = {"user-id": "alice", "history": str(history), "vault": str(tmp_path / "vault")}
    node = Node(chosen, NodeConfig.parse(config), 1)
    load, collecting = base_model.load, []

    def watched(*arguments, **words):
        collecting.append(gc.isenabled())
        return load(*arguments, **words)

    monkeypatch.setattr(base_model, "load", watched)
    assert node.base is node.base
    assert collecting == [not device] and gc.isenabled()
    assert (gc.get_freeze_count() > 0) == device
