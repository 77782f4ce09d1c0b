"""What `pip install .` brings is enough for a device, from the first message to the last, and brings no simulator."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from clients import footprint

REPOSITORY = Path(__file__).resolve().parents[2]
ABSENT = ("ray", "pyreft", "pyvene", "peft", "datasets", "matplotlib", "pandas", "sklearn", "scipy", "pytest")

DEVICE = """
import importlib.util, json, sys
sys.path[:0] = [sys.argv[1]]
absent, config, run_config = (json.loads(text) for text in sys.argv[2:5])
assert not [name for name in absent if importlib.util.find_spec(name)], "the isolation leaks"

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from clients.app import app
from fed import methods
from fed.base import model as base_model
from fed.communication import wire
from fed.settings.settings import Settings

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
context = Context(run_id=7, node_id=2, node_config=config, state=RecordDict(), run_config=run_config)
settings = Settings.parse(run_config)
method = methods.make(settings, base_model.load(settings.base_source).skeleton)
host = {"host": ConfigRecord({"users": json.dumps([config["user-id"]])})}
edit = ArrayRecord({"edit": Array(wire.pack(method.initial_collective(), settings.wire_dtype))})

def ask(kind, **records):
    reply = app(Message(RecordDict({**host, **records}), dst_node_id=2, message_type=kind), context)
    assert not reply.has_error(), (kind, reply.error)
    return reply.content

print("users", ask("query.hello")["node"]["users"])
trained = ask("train", arrays=edit, config=ConfigRecord({"server-round": 1}))
name = ask("query.adopt", arrays=trained["0/arrays"])["0/node"]["collective"]
which = {"config": ConfigRecord({"collective": name})}
print("steps", ask("train.personalize", **which)["0/metrics"]["steps"])
print("arms", sorted({key.split("/")[0] for key in ask("evaluate", **which)["0/metrics"]}))
print("loaded", sorted(name for name in absent if name in sys.modules))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with what `pip install .` puts into site-packages, as links, and nothing else."""
    folder = tmp_path_factory.mktemp("site-packages")
    for name, distribution in footprint.needed().items():
        if name == footprint.DISTRIBUTION:
            continue
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            target = Path(str(distribution.locate_file(top)))
            if target.exists() and not (folder / top).exists():
                (folder / top).symlink_to(target)
    for package in ("fed", "clients"):
        (folder / package).symlink_to(REPOSITORY / package)
    return folder


def test_a_device_runs_a_whole_federation_with_what_pip_install_brings(site, tiny_base, tmp_path, open_policy):
    app = tomllib.loads((REPOSITORY / "sims" / "lamp7" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    tiny = {"base-model": str(tiny_base), "layers": "1,2", "max-new-tokens": 3, "dtype": "float32"}
    history = tmp_path / "history.jsonl"
    tweets = [{"text": f"tweet number {n}"} for n in range(6)]
    asked = [{"input": f"paraphrase {n}", "gold": f"p {n}"} for n in range(4)]
    history.write_text("".join(json.dumps(line) + "\n" for line in tweets + asked))
    config = {"user-id": "alice", "history": str(history), "vault": str(tmp_path / "vault"), "policy": open_policy}
    arguments = [str(site), *(json.dumps(value) for value in (ABSENT, config, app | tiny))]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", DEVICE, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"alice", 2' in done.stdout and "steps 6" in done.stdout
    assert "arms ['base', 'stage1', 'stage1+2']" in done.stdout and "loaded []" in done.stdout
    assert len(list((tmp_path / "vault").glob("*/personal.safetensors"))) == 1


def test_the_footprint_counts_what_is_needed_and_nothing_of_the_simulator(capsys):
    assert footprint.main() == 0
    lines = capsys.readouterr().out.strip().splitlines()
    names = {line.split()[2] for line in lines[:-1]}
    assert {"flwr", "torch", "transformers", "numpy", "safetensors", "gguf", "cryptography"} <= names
    assert not {"ray", "pyreft", "pyvene", "peft", "datasets", "matplotlib", "pandas", "scipy"} & names
    total = sum(float(line.split()[0]) for line in lines[:-1])
    assert float(lines[-1].split()[0]) == pytest.approx(total, abs=0.1 * len(lines)) and total > 100


def test_a_package_that_is_not_installed_is_named(capsys, monkeypatch):
    monkeypatch.setattr(footprint, "DISTRIBUTION", "no-such-package-anywhere")
    monkeypatch.setattr(footprint, "needed", lambda: footprint.metadata.distribution("no-such-package-anywhere"))
    assert footprint.main() == 1
    assert "'no-such-package-anywhere' is not" in capsys.readouterr().err
