"""What memory processes, actors, runs and users take, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from simulation.app_run import run
from simulation.apps import SIMS, settings
from simulation.processes import family
from simulation.seats import Seat

from fed.base import mapped_weights, sources
from fed.base import model as base_model

SHORT = {
    "stage1-users": 0,
    "stage2-users": 0,
    "max-items": 2,
    "max-queries": 2,
    "max-new-tokens": 4,
    "max-length": 48,
    "rounds": 1,
    "fraction": 1.0,
    "local-epochs": 1,
    "stage2-epochs": 1,
    "token-budget": 48,
}


def short(source: str, users: int, out: str) -> dict[str, Any]:
    """The run config of a short run with so many users to federate and as many to personalize."""
    config = json.loads((Path(sources.resolve(source)[1]) / "config.json").read_text(encoding="utf-8"))
    blocks = int(config["num_hidden_layers"])
    layers = f"{blocks // 3},{blocks // 2}"
    return SHORT | {"layers": layers, "data": f"synthetic:{users}", "base-model": source, "output-dir": out}


def two_supernodes(cores: int) -> Seat:
    """A run of two SuperNodes with so many cores an actor, on a SuperLink of its own."""
    return Seat(os.environ, f"num-supernodes=2 client-resources-num-cpus={cores}")


def mapped(pid: int | str, under: Path | None) -> dict[str, int]:
    """Rss, Pss and Private_Dirty of a process's mappings of files in a folder; of all its memory where it is None."""
    sizes = dict.fromkeys(("Rss", "Pss", "Private_Dirty"), 0)
    inside = False
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:  # it has ended
        return sizes
    for line in lines:
        first, *rest = line.split()
        if not first.endswith(":"):
            inside = under is None or (len(rest) > 4 and rest[4].startswith(f"{under}/"))
        elif inside and first[:-1] in sizes:
            sizes[first[:-1]] += 1024 * int(rest[0])
    return sizes


def own_memory() -> int:
    """Bytes of this process that belong to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def hold(source: str, dtype: str) -> None:
    """A process of the part `base`: load, one step, say what it took, and wait to be read."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fed.forward.batching import Row, pad

    AutoTokenizer.from_pretrained(
        sources.resolve(source)[1], trust_remote_code=False
    )  # imports and the tokenizer are not the base
    del AutoModelForCausalLM
    before = own_memory()
    base = base_model.load(source, device="cpu", dtype=dtype)
    loaded = own_memory()
    batch = pad([Row(tuple(range(3, 35)), (5, 6))] * 4, base.pad_id, "cpu")
    states = base.model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
    base.model(inputs_embeds=states, attention_mask=batch.attention_mask).logits.float().logsumexp(-1).sum().backward()
    numbers = sum(p.nbytes for p in base.model.parameters())
    where = mapped_weights.folder_in(Path(sources.resolve(source)[1]), getattr(torch, base.dtype), sources.cache_home())
    said = {"base_bytes": numbers, "own": loaded - before, "dtype": base.dtype, "folder": str(where.resolve())}
    print(json.dumps(said), flush=True)
    sys.stdin.read()


def bench_base(source: str, dtype: str, processes: int) -> dict[str, Any]:
    command = [sys.executable, str(SIMS / "bench_memory.py"), "--hold", "--base-model", source, "--dtype", dtype]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        said = []
        for child in children:
            assert child.stdout is not None
            said.append(json.loads(child.stdout.readline()))
        files = [mapped(child.pid, Path(words["folder"])) for child, words in zip(children, said, strict=True)]
    finally:
        for child in children:
            child.communicate("")
    shared, grown = sum(file["Pss"] for file in files), sum(words["own"] for words in said)
    return {
        "processes": processes,
        "dtype": said[0]["dtype"],
        "base_bytes": said[0]["base_bytes"],
        "file_rss": [file["Rss"] for file in files],
        "file_pss": shared,
        "file_private_dirty": sum(file["Private_Dirty"] for file in files),
        "own_growth": grown,
        "base_over_bytes": (shared + grown) / said[0]["base_bytes"],
    }


def bench_actors(source: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The most that the weights' files took in all processes of a run with two actors."""
    best: dict[str, Any] = {"processes": 0, "file_rss": 0, "file_pss": 0}

    def look(pid: int) -> None:
        files = [mapped(member, sources.cache_home()) for member in family(pid)]
        files = [file for file in files if file["Rss"] > 32 << 20]
        seen = {"processes": len(files)} | {
            f"file_{name.lower()}": sum(file[name] for file in files) for name in ("Rss", "Pss", "Private_Dirty")
        }
        if (seen["processes"], seen["file_rss"]) > (best["processes"], best["file_rss"]):
            best.update(seen)

    with tempfile.TemporaryDirectory(prefix="perfit-memory-") as out:
        run(
            "lamp7",
            short(source, 4, out),
            say=lambda line: say(f"actors: {line[:70]}"),
            seat=two_supernodes(cores=1),
            each_second=look,
        )
    return best


def bench_runs(source: str, sizes: list[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Peak PSS of all processes of whole runs, as `sims/run.py` tells it."""
    peaks = {}
    with tempfile.TemporaryDirectory(prefix="perfit-memory-") as out:
        for users in sizes:

            def heard(line: str, users: int = users) -> None:
                say(f"{users} users: {line[:70]}")

            finished = run("lamp7", short(source, users, out), say=heard, seat=two_supernodes(cores=2))
            peaks[users] = finished.measured_peak()
    return {"peak_bytes": peaks, "most_over_fewest": peaks[sizes[-1]] / peaks[sizes[0]]}


def bench_stage2(source: str, users: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The largest PSS of the process in each tenth of the users, one message for all of them."""
    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from clients.app import app
    from clients.device.node_config import NodeConfig
    from clients.node import Node

    # A node that hosts all users, and a message for all of them.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as Flower sets in its processes
    bands = [0] * 10
    with tempfile.TemporaryDirectory(prefix="perfit-memory-") as out:
        config = short(source, users, out)
        run_settings = settings("lamp7", config)
        where: dict[str, int | float | str | bytes] = {"partition-id": 0, "num-partitions": 1}
        node = Node(run_settings, NodeConfig.parse(where), 1)
        collective = node.vault.write_collective(node.method.initial_collective())
        content = RecordDict(
            {
                "config": ConfigRecord({"collective": collective}),
                "host": ConfigRecord({"users": json.dumps(list(node.roster.stage2))}),
            }
        )
        # Its memory, by the tenth of the users at which the vault stands, while the ClientApp answers.
        ended = threading.Event()

        def watch() -> None:
            while True:  # once at the least, however soon the users are done
                done = sum(1 for _ in node.vault.root.glob("*/personal.*"))
                band = min(10 * done // users, 9)
                bands[band] = max(bands[band], mapped("self", None)["Pss"])
                say(f"stage 2: {done} of {users} users")
                if ended.wait(0.5):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            context = Context(1, 1, where, RecordDict(), run_settings.as_config())  # type: ignore[arg-type]
            reply = app(Message(content, dst_node_id=1, message_type="train.personalize"), context)
        finally:
            ended.set()
            watcher.join()
        if reply.has_error():
            raise ValueError(reply.error.reason)
        trained = sum(1 for _ in node.vault.root.glob("*/personal.*"))
    seen = [peak for peak in bands if peak]
    return {"users": trained, "peak_by_tenth": bands, "last_over_second": seen[-1] / seen[min(1, len(seen) - 1)]}


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def show(result: dict[str, Any], console: Console) -> None:
    if base := result.get("base"):
        console.print(
            f"{base['processes']} processes, base of {gigabytes(base['base_bytes'])} in {base['dtype']}: file pages "
            f"{gigabytes(base['file_pss'])} PSS (RSS {', '.join(map(gigabytes, base['file_rss']))}; written to: "
            f"{gigabytes(base['file_private_dirty'])}), own growth {gigabytes(base['own_growth'])}: "
            f"{base['base_over_bytes']:.2f} × the base's bytes"
        )
    if actors := result.get("actors"):
        console.print(
            f"{actors['processes']} Ray actors: file pages {gigabytes(actors['file_rss'])} RSS in sum, "
            f"{gigabytes(actors['file_pss'])} PSS"
        )
    if runs := result.get("runs"):
        peaks = ", ".join(f"{users} users {gigabytes(peak)}" for users, peak in runs["peak_bytes"].items())
        console.print(f"whole runs: {peaks}: {runs['most_over_fewest']:.2f} ×")
    if stage2 := result.get("stage2"):
        peaks = ", ".join(f"{peak / 1e9:.3f}" for peak in stage2["peak_by_tenth"])
        console.print(f"stage 2 of {stage2['users']} users in one message, peak GB by tenth of them: {peaks}")
