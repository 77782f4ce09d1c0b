"""One run of the federation: greeting, stage 1 rounds, hand-out, stage 2, evaluation, report."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fed import methods
from fed.atomic_write import write_text
from fed.communication.ledger import Ledger
from fed.privacy.tensor_files import save_tensors
from fed.privacy.vault import NO_COLLECTIVE
from fed.settings.settings import Settings
from server_strategy import personalization
from server_strategy.grid.nodes import find_nodes
from server_strategy.grid.translation import Translation
from server_strategy.grid.user_grid import UserGrid
from server_strategy.grid.work_time import WorkTime
from server_strategy.report import page, report, tables
from server_strategy.rounds.strategy import make_strategy


def say(text: str) -> None:
    print(text, flush=True)


def run(grid: Grid, settings: Settings, folder: Path) -> dict[str, Any]:
    """The whole run; writes its results to `folder` and returns the report.

    Raises:
        RunError: the federation cannot go on. ValueError: bad settings or data.
    """
    began, work = datetime.now(UTC), WorkTime()
    clock = {"total": time.monotonic()}
    federation = find_nodes(grid, settings, warn)
    clock["greeting"] = time.monotonic() - clock["total"]
    base = federation.base
    for user in federation.idle:
        warn(f"user {user!r} has no row to federate on and takes no part in stage 1")
    say(
        f"{settings.app}: {settings.method} on {base['name']}, {base['parameters']:,} parameters, {base['dtype']} on "
        f"{base['device']}; {len(federation.hosts)} users on {federation.nodes} SuperNodes"
    )
    method = methods.make(settings, federation.skeleton)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger()
    translation = Translation(method.collective_shapes(), settings.wire_dtype)
    trainers = {user: federation.hosts[user] for user in federation.stage1}
    testers = {user: federation.hosts[user] for user in federation.stage2}
    rounds: list[dict[str, Any]] = []

    def on_round(row: dict[str, Any]) -> None:
        rounds.append(row)
        write_text(folder / "rounds.jsonl", "".join(json.dumps(r) + "\n" for r in rounds))
        failed = f", {row['failed']} failed" if row["failed"] else ""
        say(
            f"stage 1: round {row['round']}/{settings.rounds} · {row['users']} users{failed} · "
            f"training loss {row['loss']:.4f} · {row['seconds']:.1f} s"
        )

    start = time.monotonic()
    users = list(testers)
    patience = settings.reply_timeout or None
    handed = UserGrid(grid, testers, translation, ledger, patience, work)
    handed.round = settings.rounds + 1
    collective = NO_COLLECTIVE
    if method.collective_shapes():
        stage1 = UserGrid(grid, trainers, translation, ledger, work=work)
        strategy = make_strategy(settings, method, translation, on_round)
        initial = translation.to_record(method.initial_collective())
        result = strategy.start(stage1, initial, num_rounds=settings.rounds, timeout=patience)  # type: ignore[arg-type]
        save_tensors(
            folder / "collective.safetensors",
            translation.from_record(result.arrays),
            {"layers": settings.layers, "base": base["fingerprint"], "method": settings.method},
        )
        collective, users = personalization.hand_out(handed, users, result.arrays, warn)
    else:
        say(f"stage 1: {settings.method} federates nothing")
    clock["stage1"] = time.monotonic() - start

    start = time.monotonic()
    stage2_losses: list[dict[str, float]] = []
    if method.private_shapes():
        say(f"stage 2: {len(users)} users train their private vectors")
        trained, stage2_losses = personalization.personalize(handed, users, collective, warn)
        seconds = time.monotonic() - start
        by_epoch = f", loss by epoch {_losses(stage2_losses)}" if stage2_losses else ""
        say(f"stage 2: {len(trained)} users done{by_epoch} · {seconds:.1f} s")
    else:
        say(f"stage 2: {settings.method} has nothing private")
    clock["stage2"] = time.monotonic() - start

    start = time.monotonic()
    arms = ["base"] + ["stage 1"] * bool(method.collective_shapes())
    say(f"evaluation: {', '.join([*arms, 'stage 1 + 2', 'swapped'] if method.private_shapes() else arms)}")
    found = personalization.test(handed, users, collective, warn)
    clock["evaluate"] = time.monotonic() - start

    clock["total"] = time.monotonic() - clock["total"]
    if work.known:
        clock["clients"] = work.seconds()
    done = report.build(
        settings,
        method,
        federation,
        found=found,
        rounds=rounds,
        stage2_losses=stage2_losses,
        ledger=ledger,
        began=began,
        seconds=clock,
    )
    ledger.write_csv(folder / "bytes.csv")
    page.write_page(done, folder / "report.html")
    write_text(folder / "report.json", report.as_json(done))
    say(tables.render([tables.arms_table(done), tables.bytes_table(done)]))
    say(f"report: {folder / 'report.json'}")
    return done


def warn(text: str) -> None:
    say(f"warning: {text}")


def _losses(rows: list[dict[str, float]]) -> str:
    return " → ".join(f"{row['loss']:.4f}" for row in rows)
