"""One run of the federation: greeting, stage 1 rounds, hand-out, stage 2, evaluation, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fed import methods
from fed.lamp.tasks import get_task
from fed.methods import Method
from fed.resuming.lock import holding
from fed.settings.settings import Settings
from server_strategy import personalization
from server_strategy.checkpoint import resume
from server_strategy.checkpoint.history import History
from server_strategy.grid import hosts
from server_strategy.grid.actors import replace_dead_actors
from server_strategy.grid.edits.broadcasts import Broadcasts
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.nodes import Federation, RunError, find_nodes
from server_strategy.grid.user_grid import UserGrid
from server_strategy.grid.wrapped.reading import ReadingGrid
from server_strategy.grid.wrapped.supervised import SupervisedGrid
from server_strategy.report.run_log import RunLog, say, warn
from server_strategy.rounds import pooled
from server_strategy.screening.replies import Screen
from server_strategy.stage1 import Stage1


def run(grid: Grid, settings: Settings, folder: Path) -> dict[str, Any]:
    """The whole run; writes its results to `folder` and returns the report.

    Raises:
        RunError: the federation cannot go on.
        ValueError: bad settings or data.
    """
    with ExitStack() as held:
        return _run(grid, settings, folder, held)


def _run(grid: Grid, settings: Settings, folder: Path, held: ExitStack) -> dict[str, Any]:
    """`run`, in the course of which the folder is held."""
    lock = holding(folder, f"{folder.name} (process {os.getpid()})", alone=True)
    if settings.resume:
        held.enter_context(lock)
    saved = resume.saved(settings, folder)
    reading = ReadingGrid(grid)
    grid = SupervisedGrid(reading, deadline=settings.run_deadline, warn=warn)
    log = RunLog(settings, folder)
    with log.phase("greeting"):
        federation = find_nodes(grid, settings, log.refuse_node)
    log.greet(federation)
    if len(there := hosts.names()) > 1:
        say(f"Ray: {len(there)} hosts, {', '.join(there[:8])}{', …' if there[8:] else ''}")
    replace_dead_actors(warn)  # the nodes have answered, so Ray's actors are there
    method = methods.make(settings, federation.skeleton)
    if method.collective_shapes():
        require_rows(federation)
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.resume:
        held.enter_context(lock)
    if problem := hosts.apart(settings.resume or f"{settings.output_dir}/{folder.name}"):
        raise RunError(problem)
    history = History(folder, resume.identity(settings, federation), log, method.whole)
    history.begin(saved)
    translation = Translation.of(method.collective_shapes(), settings)
    reading.numbers = translation.numbers
    broadcasts = Broadcasts(translation, settings.seed) if translation.packing else None
    timeout = settings.reply_timeout or None
    work = log.work if federation.simulated else None
    screen = Screen(settings, get_task(settings.task), federation.stage1, federation.stage2)
    trainers, testers = (
        UserGrid(
            grid,
            {user: federation.hosts[user] for user in crowd},
            translation=translation,
            ledger=log.ledger,
            timeout=timeout,
            work=work,
            screen=screen,
            broadcasts=broadcasts,
            on_error=log.add_error,
        )
        for crowd in (federation.stage1, federation.stage2)
    )
    if settings.stage1 == "pooled" and federation.stage1:
        node = federation.hosts[next(iter(federation.stage1))]
        trainers = pooled.centre(grid, node, translation=translation.whole, timeout=timeout, work=work, screen=screen)
    try:
        with log.phase("stage1"):
            collective, users = Stage1(
                trainers=trainers,
                testers=testers,
                method=method,
                history=history,
                rows_of_users=federation.stage1,
                log=log,
                broadcasts=broadcasts,
            ).run()
        with log.phase("stage2"):
            train_private(testers, users, collective, method, log)
        with log.phase("evaluate"):
            statistics = test(testers, users, collective, method)
    except Exception as error:  # whatever ends a run, what it did until then is in its report
        log.write_stopped(method, error)
        raise
    return log.write(method, statistics)


def require_rows(federation: Federation) -> None:
    """Say who has no row to federate on. Raises RunError where nobody has any; asked where the method federates."""
    for user in federation.idle:
        warn(f"user {user!r} has no row to federate on and takes no part in stage 1")
    if not federation.stage1:
        raise RunError("stage 1 needs a user with rows to train on, and no user has any")


def train_private(testers: UserGrid, users: list[str], collective: str, method: Method, log: RunLog) -> None:
    """Stage 2, where the method has anything private.

    Args:
        testers: the grid that the users are in.
        users: who trains.
        collective: the fingerprint of the edit that they train on top of.
        method: what they train.
        log: takes the losses.
    """
    if not method.private_shapes():
        say(f"stage 2: {method.settings.method} has nothing private")
        return
    say(f"stage 2: {len(users)} users train their private vectors")
    trained, losses = personalization.personalize(testers, users, collective, warn)
    log.add_stage2(len(trained), losses)


def test(
    testers: UserGrid, users: list[str], collective: str, method: Method
) -> dict[str, dict[str, Mapping[str, float]]]:
    """The evaluation of all arms that the method has: user -> arm -> additive statistics; arguments as for stage 2."""
    arms = ["base"]
    if method.collective_shapes():
        arms.append("stage 1")
    if method.private_shapes():
        arms += ["stage 1 + 2", "swapped"]
    say(f"evaluation: {', '.join(arms)}")
    return personalization.test(testers, users, collective, warn)
