"""Real federations on this machine: SuperLink and SuperNodes as processes, hurt, listened to, and compared.

A run without TLS, captured, beside the same users in simulation, is read by several tests: of the smallest federation
there is, and by night of a larger one. By night, too: a run with TLS and keys in which devices are killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from farm import device as device_module
from farm import farm as device_farm
from farm import federation, keys
from simulation import processes
from simulation.apps import settings_of
from simulation.in_process import run_here

from fed.communication.ledger import DIRECTIONS, PHASES
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.sealed import Secret
from fed.privacy.tensor_files import read_tensors
from fed.privacy.vault import PERSONAL, SEALED, Vault

REPOSITORY = Path(__file__).resolve().parents[2]

APP = REPOSITORY / "sims" / "lamp7"


def short(tiny_base: Path, output: Path, **changes: object) -> str:
    keys: dict[str, object] = {
        "base-model": str(tiny_base),
        "layers": "1,2",
        "data": "synthetic:2",
        "cohorts": "all",
        "rounds": 2,
        "fraction": 1.0,
        "max-items": 4,
        "max-queries": 2,
        "max-new-tokens": 4,
        "dtype": "float32",
        "output-dir": str(output),
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    return " ".join(f"{key}={json.dumps(value)}" for key, value in keys.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("devices")


@dataclass(frozen=True)
class Plain:
    """A run of devices on loopback without TLS, everything captured.

    Attributes:
        devices: how many.
        rounds: of stage 1.
        folder: what the server and the devices wrote.
        results: where the run's own folder is.
        done: the command as it ended.
    """

    devices: int
    rounds: int
    folder: Path
    results: Path
    done: subprocess.CompletedProcess[str]


SMALLEST, LARGER = (2, 1), (3, 2)  # devices, rounds


@pytest.fixture(
    scope="module",
    params=[pytest.param(size, marks=pytest.mark.nightly) for size in (SMALLEST, LARGER)],
    ids=lambda size: "{}x{}".format(*size),
)
def plain_run(request, tiny_base, folder) -> Plain:
    """`python sims/devices.py` with so many devices and rounds."""
    devices, rounds = request.param
    farm, results = folder / f"plain-{devices}", folder / f"plain-{devices}-runs"
    command = [sys.executable, str(REPOSITORY / "sims" / "devices.py"), "--devices", str(devices)]
    command += ["--no-tls", "--no-auth", "--no-namespaces", "--capture", "--folder", str(farm)]
    command += ["-c", short(tiny_base, results, rounds=rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    return Plain(devices, rounds, farm, results, done)


@pytest.fixture(scope="module")
def plain_report(plain_run) -> dict:
    done = plain_run.done
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())


def test_the_last_line_is_the_report_and_no_process_is_left(plain_run, plain_report):
    said, devices, rounds = plain_run.done.stdout, plain_run.devices, plain_run.rounds
    pids = [int(pid) for pid in re.findall(r"SuperNode (\d+)", said)]
    assert len(pids) == devices and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    (port,) = re.findall(r"SuperLink on port (\d+)", said)
    with socket.socket() as probe:
        assert probe.connect_ex((device_farm.HOST, int(port))), "something still listens"
    assert plain_report["supernodes"] == devices and len(plain_report["users"]) == devices
    steps = (f"stage 1: round {rounds}/{rounds}", f"stage 2: {devices} users done")
    for words in (*steps, ": stage 2, node 0, 1 users: step"):
        assert words in said


def test_the_server_s_database_and_its_journal_are_its_owner_s_alone(plain_run, plain_report):
    files = sorted((plain_run.folder / "server").glob("state.db*"))
    assert files and {path.stat().st_mode & 0o777 for path in files} == {0o600}


def assert_same_run(devices: dict, simulated: dict) -> None:
    """The same arms, losses and bytes sent up, bit for bit."""
    assert devices["users"] == simulated["users"] and devices["arms"] == simulated["arms"]
    assert [row["loss"] for row in devices["rounds"]] == [row["loss"] for row in simulated["rounds"]]
    for phase in PHASES:
        up = devices["bytes"][phase]["up"], simulated["bytes"][phase]["up"]
        assert up[0] == up[1]


def test_devices_and_simulated_nodes_of_one_user_each_give_the_same_arms_bit_for_bit(
    plain_run, plain_report, tiny_base, tmp_path
):
    # The simulation has four users; with `all`, the first by id are those of the devices.
    count = plain_run.devices
    same = short(tiny_base, tmp_path, rounds=plain_run.rounds, stage1_users=count, stage2_users=count)
    simulated = json.loads(run_here(settings_of(APP, [same]), supernodes=count).read_text())
    assert_same_run(plain_report, simulated)


@pytest.mark.nightly
@pytest.mark.parametrize("plain_run", [LARGER], indirect=True)
def test_devices_and_a_simulation_on_ray_with_one_user_a_supernode_give_the_same_arms_bit_for_bit(
    plain_run, plain_report, tiny_base, folder
):
    command = [sys.executable, str(REPOSITORY / "sims" / "run.py"), str(APP), "-c"]
    command += [short(tiny_base, folder / "simulated", stage1_users=3, stage2_users=3)]
    command += ["--federation-config", "num-supernodes=3 client-resources-num-cpus=1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(plain_report, json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text()))


def windows(raw: bytes, size: int = 48) -> set[bytes]:
    """Pieces of a tensor at four places: any of them in a stream betrays it, however the stream is cut."""
    if len(raw) < size:
        return {raw} if len(raw) >= 16 else set()
    return {raw[start : start + size] for start in {0, len(raw) // 3 & ~7, 2 * len(raw) // 3 & ~7, len(raw) - size}}


def needles(tensors: dict[str, torch.Tensor]) -> set[bytes]:
    """Each tensor raw, as npy, as safetensors hold it, and in bf16 and fp16: they differ by dtype alone."""
    found: set[bytes] = set()
    for tensor in tensors.values():
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            found |= windows(tensor.to(dtype).contiguous().view(torch.uint8).numpy().tobytes())
            found |= windows(tensor.mT.to(dtype).contiguous().view(torch.uint8).numpy().tobytes())
    return {needle for needle in found if len(set(needle)) > 4}  # zeros are everywhere


def haystacks(*folders: Path) -> list[bytes]:
    return [path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def test_no_stage_2_tensor_is_in_any_traffic_or_on_the_servers_disk(plain_run, plain_report):
    farm, results = plain_run.folder, plain_run.results
    traffic = haystacks(*(device / "capture" for device in farm.iterdir() if device.name != "server"))
    disk = haystacks(farm / "server", results)
    assert sum(map(len, traffic)) > 66_667 * plain_run.devices and len(disk) > 5
    private = [read_tensors(path)[0] for path in farm.glob(f"*/vault/*/{PERSONAL}")]
    assert len(private) == plain_run.devices
    for tensors in private:
        for needle in needles(tensors):
            assert not any(needle in one for one in traffic + disk)
    # The same search finds what did cross: the collective edit, in the traffic and on the server's disk.
    (path,) = results.glob("*/collective.safetensors")
    crossed = windows(read_tensors(path)[0]["W"].numpy().tobytes())
    assert all(any(needle in one for one in traffic) for needle in crossed)
    assert all(any(needle in one for one in disk) for needle in crossed)


def test_no_word_of_a_users_history_is_in_any_traffic_or_on_the_servers_disk(plain_run, plain_report):
    farm = plain_run.folder
    captured = (device / "capture" for device in farm.iterdir() if device.name != "server")
    seen = haystacks(farm / "server", plain_run.results, *captured)
    histories = list(farm.glob("*/history.json"))
    assert len(histories) == plain_run.devices
    for path in histories:
        (user,) = json.loads(path.read_text())
        texts = [item["text"] for item in user["profile"]] + [query["gold"] for query in user["query"]]
        assert len(texts) > 20
        assert not any(text.encode() in one for text in texts for one in seen)


def test_the_proxies_count_is_in_the_report_beside_the_ledgers(plain_run, plain_report):
    measured = plain_report["bytes"]["measured"]
    assert set(measured["devices"]) == {user["user_id"] for user in plain_report["users"]} and not measured["tls"]
    for way in DIRECTIONS:
        ledger = sum(plain_report["bytes"][phase][way]["wire"] for phase in PHASES)
        assert sum(device[way]["ledger"] for device in measured["devices"].values()) == ledger
        assert all(device[way]["measured"] > device[way]["ledger"] for device in measured["devices"].values())
    counted = sum(device[way]["measured"] for device in measured["devices"].values() for way in DIRECTIONS)
    assert sum(p["up"] + p["down"] for p in measured["paths"].values()) == counted
    assert measured["paths"]["/v1/fleet/pull-messages"]["exchanges"] >= 5 * plain_run.devices
    said = plain_run.done.stdout
    assert "Bytes on the wire" in said and "on the link" not in said
    rows = {line.split()[1] for line in said.splitlines() if line.startswith((" polling", " heartbeat"))}
    assert rows == {"pull-messages", "send-node-heartbeat"}


class Hurt:
    """The run with TLS and keys: what happened to whom."""

    def __init__(self, farm, settings, overrides):
        self.farm, self.settings, self.overrides = farm, settings, overrides
        self.folder: Path | None = None
        self.problem: BaseException | None = None
        self.files_when_killed: dict[str, list[str]] = {}

    def federate(self):
        try:
            self.folder = federation.federate(self.farm, APP, self.overrides, self.settings)
        except BaseException as problem:
            self.problem = problem

    def wait_for(self, device, words: str, count: int = 1, seconds: float = 150) -> None:
        deadline = time.monotonic() + seconds
        while device.log.read_text(errors="replace").count(words) < count:
            assert time.monotonic() < deadline and self.problem is None, (words, device.log.read_text()[-2000:])
            time.sleep(0.05)

    def kill(self, device) -> None:
        self.farm.kill(device)
        vault = Path(device.config["vault"])
        self.files_when_killed[device.user] = [p.name for p in vault.rglob("*") if p.is_file()]


@pytest.fixture(scope="module")
def hurt(tiny_base, folder):
    """Four devices: one killed in stage 1, one in stage 2, one restarted in stage 1, one well."""
    overrides = [short(tiny_base, folder / "hurt-runs", min_nodes=4, reply_timeout=40, max_new_tokens=0)]
    settings = settings_of(APP, overrides)
    corpus = open_corpus(settings.data, get_task(settings.task), seed=settings.seed)
    with device_farm.Farm(folder / "hurt") as farm:
        farm.start_server()
        four = [
            federation.equip(farm, corpus, settings, user, encrypt=True) for user in federation.choose_users(corpus, 4)
        ]
        for device in four:
            farm.start(device)
        it = Hurt(farm, settings, overrides)
        thread = threading.Thread(target=it.federate)
        thread.start()
        for device in (four[0], four[2]):
            it.wait_for(device, "Receiving: train message")
        it.kill(four[0])
        farm.restart(four[2])
        it.wait_for(four[1], "Receiving: train.personalize message")
        it.kill(four[1])
        thread.join(240)
        assert not thread.is_alive()
        yield it, four


@pytest.mark.nightly
def test_a_run_goes_on_without_what_was_killed_and_the_restarted_device_is_back(hurt):
    it, four = hurt
    assert it.problem is None and it.folder is not None
    report = json.loads((it.folder / "report.json").read_text())
    assert [row["users"] for row in report["rounds"]] == [2, 3]  # the restarted one is back in the second round
    own = {user["user_id"]: user["arms"]["stage1+2"] for user in report["users"]}
    assert set(own) == {four[2].user, four[3].user} and None not in own.values()
    log = (it.folder / "run.log").read_text()
    for lost in four[:2]:
        assert f"warning: user '{lost.user}'" in log


@pytest.mark.nightly
def test_no_vault_is_torn_and_what_was_finished_is_there(hurt):
    it, four = hurt
    for device in four:
        vault = Vault(Path(device.config["vault"]), Secret.from_key_file(Path(device.config["vault-key-file"])))
        if device in four[:2]:  # killed before they had finished
            assert not vault.has(device.user)
            assert not [name for name in it.files_when_killed[device.user] if "personal." in name]
        else:
            assert vault.open(device.user).tensors["R"].shape[1] == 4
            assert [path.name for path in vault.folder(device.user).iterdir()] == [SEALED]


@pytest.mark.nightly
def test_killed_devices_take_part_again_in_the_next_run(hurt):
    it, four = hurt
    for device in four[:2]:
        it.farm.start_until_connected(device)
    again = [it.overrides[0].replace("rounds=2", "rounds=1")]
    settings = settings_of(APP, again)
    report = json.loads((federation.federate(it.farm, APP, again, settings) / "report.json").read_text())
    own = {user["user_id"]: user["arms"]["stage1+2"] for user in report["users"]}
    assert len(own) == 4 and None not in own.values()


@pytest.fixture(scope="module")
def guarded(folder):
    """A SuperLink with TLS that takes registered keys only, and no run."""
    with device_farm.Farm(folder / "guarded") as farm:
        farm.start_server()
        yield farm


def stranger(farm, name: str, **changes):
    return farm.add(name, {"user-id": name, "vault": str(farm.folder / name / "vault")}, **changes)


def ended(device, seconds: float = 60) -> str:
    """The log of a device that is turned away or gives up."""
    assert device.process is not None
    device.process.wait(seconds)
    assert device.process.returncode != 0
    said = device.log.read_text(errors="replace")
    assert device_module.CONNECTED not in said and "PRIVATE KEY" not in said
    return said


def test_a_key_that_is_not_registered_gets_nothing(guarded):
    device = stranger(guarded, "mallory", register=False)
    guarded.start(device)
    assert ended(device).count("Failed to initialize the connection") == 1
    assert "PRIVATE KEY" not in (guarded.server / "superlink.log").read_text(errors="replace")


def test_a_registered_key_gets_in(guarded):
    device = stranger(guarded, "alice")
    guarded.start_until_connected(device)
    assert device.starts == 1


def test_a_server_of_another_ca_is_not_talked_to(guarded, folder):
    device = stranger(guarded, "careful")
    keys.make_server_keys(folder / "other-keys", ["localhost", device_farm.HOST])
    device.extra = ["--root-certificates", str(folder / "other-keys" / "ca.crt"), "--max-retries", "1"]
    guarded.start(device)
    assert "CERTIFICATE_VERIFY_FAILED" in ended(device)


@pytest.mark.nightly
def test_a_server_whose_certificate_has_expired_is_not_talked_to(folder):
    now = datetime.now(UTC)
    with device_farm.Farm(folder / "expired", auth=False) as farm:
        farm.certificate = {"begins": now - timedelta(days=2), "ends": now - timedelta(days=1)}
        farm.start_server()
        device = stranger(farm, "alice")
        device.extra = ["--max-retries", "1"]
        farm.start(device)
        assert "certificate has expired" in ended(device)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "0"], "at least 1"),
        (["--devices", "99", "-c", 'data="synthetic:2"'], "at most the data's 4 users, got 99"),
        (["--devices", "1", "-c", "rounds=0"], "rounds must be at least 1"),
        (["--devices", "1", "--folder", "{used}"], "--folder must be new or empty"),
        (["--devices", "1", "--no-tls"], "--no-tls must come with --no-auth"),
    ],
)
def test_a_mistake_gives_one_line_before_anything_is_started(command, tiny_base, tmp_path, arguments, words):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    given = [argument.format(used=tmp_path / "used") for argument in arguments]
    ended = command("devices", "-c", short(tiny_base, tmp_path / "runs"), *given)
    assert ended.code == 1 and ended.out == ""
    assert words in ended.err and len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "until", "fewest"),
    [
        (["--devices", "1", "--no-tls", "--no-auth"], ("  ",), 2),  # the SuperLink, and a SuperNode that begins
        pytest.param(["--devices", "2"], ("Using SuperLink", "lamp7:"), 3, marks=pytest.mark.nightly),
    ],
    ids=["at the start", "in the middle"],
)
def test_ctrl_c_stops_every_process(tiny_base, tmp_path, options, until, fewest):
    command = [sys.executable, str(REPOSITORY / "sims" / "devices.py"), *options, "--no-namespaces"]
    command += ["--folder", str(tmp_path / "f"), "-c", short(tiny_base, tmp_path / "runs")]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith(until):
            break
    leaders = [int(pid) for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()]
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130 and said.strip().splitlines()[-1] == "stopped"
    assert len(leaders) >= fewest
    for leader in leaders:
        assert processes.alive(processes.offspring(leader)) == []
