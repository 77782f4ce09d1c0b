"""What every subcommand of `explore.py` is asked, and the base, the users and the words that follow from it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells.cell import content_of
from console.command import Parser

from fed.base import model as base_model
from fed.base import random_base, sources
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.exploration.delta_vectors import Context
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import TASKS, get_task
from fed.settings.paths import base_source
from server_strategy.report.report import git_commit

Facts = dict[str, Any]  # what a result is of, as its JSON holds it under "of"


def add(p: Parser) -> None:
    p.add_argument("--data", default="synthetic", metavar="DIR", help="LaMP or OPPU layout; default: made-up users")
    p.add_argument("--task", default="LaMP_7", choices=TASKS, metavar="T", help=f"of {', '.join(TASKS)}")
    p.add_argument("--base-model", default=sources.EMBEDDED, metavar="BASE", help="as in a run; default: %(default)s")
    p.add_argument("--layer", type=int, default=-1, metavar="L", help="decoder block, from 0 (default: the middle one)")
    p.add_argument("--users", type=int, default=0, metavar="N", help="the first by id; 0 takes all (default)")
    p.add_argument("--seed", type=int, default=0, help="of every draw (default: %(default)s)")
    p.add_argument("--out", type=Path, default=Path("runs/explore"), metavar="DIR", help="default: %(default)s")


def add_device(p: Parser) -> None:
    """Where it is computed; subcommands that run cells have `Parser.add_runtime` instead."""
    p.add_argument("--device", default="auto", help="cuda, cpu, … (default: %(default)s)")


def add_context(p: Parser) -> None:
    """What stands before a query."""
    p.add_argument("--retrieved", type=int, default=4, metavar="K", help="items of history before a query (default: 4)")
    p.add_argument("--max-queries", type=int, default=0, metavar="N", help="a user's first ones; 0: all (default)")
    p.add_argument("--max-length", type=int, default=1024, metavar="N", help="tokens of a prompt (default: 1024)")


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes:
        users: ids, sorted, of both cohorts; those without a query left out.
        context: with the layer that was asked for.
    """

    base: BaseModel
    corpus: Corpus
    users: tuple[str, ...]
    context: Context
    content: str


def check(options: argparse.Namespace) -> None:
    """Raises ValueError for a number that cannot be."""
    for name, least in (("users", 0), ("retrieved", 1), ("max_queries", 0), ("max_length", 128), ("seed", 0)):
        if (value := getattr(options, name, least)) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def layer_of(options: argparse.Namespace, base: Skeleton) -> int:
    """The block that was asked for. Raises ValueError where the base has it not."""
    layer = base.layers // 2 if options.layer == -1 else int(options.layer)
    if not 0 <= layer < base.layers:
        raise ValueError(f"--layer must lie in 0..{base.layers - 1} or be -1, got {options.layer}")
    return layer


def subject(options: argparse.Namespace, *, only: Sequence[str] = ()) -> Subject:
    """Open the data, then load the base. only: these users. Raises ValueError for what cannot be had."""
    check(options)
    task = get_task(options.task)
    corpus = open_corpus(options.data, task, seed=options.seed)
    users = sorted(user for ids in corpus.cohorts.values() for user in ids if corpus.sizes(user)[1])
    if len(users) < 2:
        raise ValueError(f"{options.data} must have at least 2 users with queries, and has {len(users)}")
    base = load_base(options)
    context = Context(layer_of(options, base.skeleton), options.retrieved, options.max_length, options.max_queries)
    content = f"{content_of(options.data, task.name)} {options.seed if corpus.source.startswith('synthetic') else ''}"
    return Subject(base, corpus, tuple(only or users[: options.users or None]), context, content)


def load_base(options: argparse.Namespace) -> BaseModel:
    load = random_base.load if options.base_model.startswith(random_base.PREFIX) else base_model.load
    return load(base_source(options.base_model), device=options.device)


def folder(options: argparse.Namespace) -> Path:
    """Where a task's results are; those of several tasks, `tasks`."""
    return Path(options.out) / ("tasks" if "tasks" in options else options.task)


def facts(options: argparse.Namespace, base: Skeleton, users: int) -> Facts:
    """What a result is of. users: how many it is of."""
    return {
        "task": options.tasks.replace(",", ", ") if "tasks" in options else options.task,
        "data": options.data if options.data.startswith("synthetic") else Path(options.data).resolve().name,
        "base": base.name.partition(" (")[0],
        "blocks": base.layers,
        "hidden_size": base.hidden_size,
        "users": users,
        "seed": options.seed,
        "commit": git_commit(),
    }


def caption(of: Facts) -> str:
    """`LaMP_4 of data, SmolLM2-135M-Instruct, 34 users, seed 0`, for the title of a figure."""
    layer = f", block {of['layer']} of {of['blocks']}" if "layer" in of else ""
    return f"{of['task']} of {of['data']}, {of['base']}{layer}, {of['users']} users, seed {of['seed']}"
