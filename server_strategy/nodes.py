"""Finding the nodes: wait until all are registered, then ask each whom it hosts and what base model it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fed.skeleton import Skeleton


class RunError(RuntimeError):
    """The run cannot go on; one line with the rule, the value and the fix."""


@dataclass(frozen=True)
class Federation:
    """The nodes' answers put together.

    Attributes:
        hosts: user -> SuperNode. stage1: user -> training rows. stage2: user -> (training rows, queries).
        idle: users without a row to federate on; they take no part in stage 1.
        base: the base model that all nodes run, as `BaseModel.describe` says; skeleton: its shapes.
    """

    hosts: dict[str, int]
    stage1: dict[str, int]
    stage2: dict[str, tuple[int, int]]
    base: dict[str, Any]
    nodes: int
    idle: list[str]
    skeleton: Skeleton


def find_nodes(grid: Grid, timeout: int) -> Federation:
    """Wait for every SuperNode and greet it.

    SuperNodes register after the ServerApp starts; one of them says how many there will be.

    Raises:
        RunError: nobody came in `timeout` seconds, a node refused, or the nodes disagree.
    """
    deadline = time.monotonic() + timeout
    ids = _wait(grid, 1, deadline, timeout)
    answers = _hello(grid, ids[:1])
    expected = int(answers[ids[0]]["parts"])
    if expected > 1:
        ids = _wait(grid, expected, deadline, timeout)
    answers |= _hello(grid, [node for node in ids if node not in answers])
    return _combine(answers)


def _wait(grid: Grid, count: int, deadline: float, timeout: int) -> list[int]:
    while True:
        ids = sorted(grid.get_node_ids())
        if len(ids) >= count:
            return ids
        if time.monotonic() > deadline:
            raise RunError(
                f"{count} SuperNodes must register within node-timeout = {timeout} s, got {len(ids)}; "
                "check that they are running, or raise node-timeout"
            )
        time.sleep(0.2)


def _hello(grid: Grid, ids: list[int]) -> dict[int, Mapping[str, Any]]:
    messages = [Message(RecordDict(), dst_node_id=node, message_type="query.hello") for node in ids]
    answers: dict[int, Mapping[str, Any]] = {}
    for reply in grid.send_and_receive(messages) if messages else []:
        if reply.has_error():
            raise RunError(reply.error.reason)
        answers[reply.metadata.src_node_id] = dict(reply.content["node"])
    missing = [node for node in ids if node not in answers]
    if missing:
        raise RunError(f"every SuperNode must answer, but {len(missing)} of {len(ids)} did not")
    return answers


def _combine(answers: Mapping[int, Mapping[str, Any]]) -> Federation:
    hosts: dict[str, int] = {}
    stage1: dict[str, int] = {}
    stage2: dict[str, tuple[int, int]] = {}
    bases = {node: json.loads(answer["base"]) for node, answer in answers.items()}
    first = bases[min(bases)]
    for node in sorted(answers):
        if bases[node]["fingerprint"] != first["fingerprint"]:
            raise RunError(
                f"all nodes must run one base model, but node {node} runs {bases[node]['name']} "
                f"({bases[node]['fingerprint']}), not {first['name']} ({first['fingerprint']})"
            )
        users = json.loads(answers[node]["users"])
        for user, *_ in users["stage1"] + users["stage2"]:
            if hosts.setdefault(user, node) != node:
                raise RunError(f"a user must live on one node, but {user!r} is on nodes {hosts[user]} and {node}")
        stage1 |= {user: items for user, items in users["stage1"]}
        stage2 |= {user: (items, queries) for user, items, queries in users["stage2"]}
    idle = sorted(user for user, items in stage1.items() if not items)
    stage1 = {user: items for user, items in sorted(stage1.items()) if items}
    if not stage1:
        raise RunError("stage 1 needs a user with rows to train on, and no user has any")
    linears = tuple((name, outputs, inputs) for name, outputs, inputs in json.loads(answers[min(answers)]["linears"]))
    skeleton = Skeleton(first["name"], first["parameters"], first["hidden_size"], first["layers"], linears)
    return Federation(
        dict(sorted(hosts.items())), stage1, dict(sorted(stage2.items())), first, len(answers), idle, skeleton
    )
