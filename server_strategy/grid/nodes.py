"""Finding the nodes: wait until all are registered, then ask each whom it hosts and what base model it runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fed.base.skeleton import Skeleton
from fed.settings.settings import Settings


class RunError(RuntimeError):
    """The run cannot go on; one line with the rule, the value and the fix."""


@dataclass(frozen=True)
class Federation:
    """The nodes' answers put together.

    Attributes:
        hosts: user -> SuperNode.
        stage1: user -> training rows.
        stage2: user -> (training rows, queries).
        base: the base model that all nodes run, as `BaseModel.describe` says.
        nodes: how many SuperNodes host a user.
        idle: users without a row to federate on; they take no part in stage 1.
        skeleton: the base model's shapes.
    """

    hosts: dict[str, int]
    stage1: dict[str, int]
    stage2: dict[str, tuple[int, int]]
    base: dict[str, Any]
    nodes: int
    idle: list[str]
    skeleton: Skeleton


def find_nodes(grid: Grid, settings: Settings, warn: Callable[[str], None]) -> Federation:
    """Wait for the SuperNodes and greet them.

    SuperNodes register after the ServerApp starts; a simulated one says how many there will be, devices do not
    (`min-nodes`). A device that refuses, is silent, or runs another base model stays out, with a warning.

    Args:
        grid: the SuperNodes.
        settings: the run's.
        warn: called with a line about each node that stays out.
    Raises:
        RunError: nobody came in `node-timeout` seconds, a simulated node refused, or the nodes disagree.
    """
    # Greet devices all at once; of a simulation one node, which says how many there will be.
    deadline = time.monotonic() + settings.node_timeout
    ids = _wait(grid, max(1, settings.min_nodes), deadline, settings.node_timeout)
    timeout = settings.reply_timeout or None
    answers, refused = _hello(grid, ids if settings.min_nodes else ids[:1], timeout)
    if not settings.min_nodes and not answers:  # the node that was greeted cannot serve; another may
        more, refused_too = _hello(grid, [node for node in ids if node not in refused], timeout)
        answers, refused = answers | more, refused | refused_too
    if not answers:
        raise RunError(next(iter(refused.values()), f"none of {len(ids)} SuperNodes answered"))
    # Greet the rest.
    expected = max(int(answer["parts"]) for answer in answers.values())
    if expected > 1:
        ids = _wait(grid, expected, deadline, settings.node_timeout)
    more, refused_too = _hello(grid, [node for node in ids if node not in answers and node not in refused], timeout)
    answers, refused = answers | more, refused | refused_too
    silent = [node for node in ids if node not in answers and node not in refused]
    # Who is missing: in a simulation an error, of devices a warning.
    if expected:
        if refused:
            raise RunError(next(iter(refused.values())))
        if silent:
            raise RunError(f"every SuperNode must answer, but {len(silent)} of {len(ids)} did not")
    refused |= {node: "it did not answer" for node in silent}
    for node in sorted(refused):
        warn(f"node {node} takes no part: {refused[node]}")
    return _combine(answers, warn)


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


def _hello(grid: Grid, ids: list[int], timeout: float | None) -> tuple[dict[int, Mapping[str, Any]], dict[int, str]]:
    """(answers, reasons of those that refused) by node; a node may be in neither."""
    messages = [Message(RecordDict(), dst_node_id=node, message_type="query.hello") for node in ids]
    answers: dict[int, Mapping[str, Any]] = {}
    refused: dict[int, str] = {}
    for reply in grid.send_and_receive(messages, timeout=timeout) if messages else []:
        node = messages[request_of(reply, messages)].metadata.dst_node_id
        if reply.has_error():
            refused[node] = reply.error.reason or "no reason was given"
        else:
            answers[node] = dict(reply.content["node"])
    return answers, refused


def request_of(reply: Message, requests: Sequence[Message]) -> int:
    """Which of the requests a reply answers; of several to one node and of one type, the first.

    The SuperLink answers in its own name for a node that is gone, so the sender does not tell; the message's id does,
    which a Grid gives to a request as it sends it.
    """
    for place, request in enumerate(requests):
        if request.metadata.message_id and request.metadata.message_id == reply.metadata.reply_to_message_id:
            return place
    sender = (reply.metadata.src_node_id, reply.metadata.message_type)
    return [(request.metadata.dst_node_id, request.metadata.message_type) for request in requests].index(sender)


def _combine(answers: dict[int, Mapping[str, Any]], warn: Callable[[str], None]) -> Federation:
    """The answers as one federation. Raises RunError where they do not make one."""
    hosts: dict[str, int] = {}
    stage1: dict[str, int] = {}
    stage2: dict[str, tuple[int, int]] = {}
    # The base model of most nodes is the run's.
    bases = {node: json.loads(answer["base"]) for node, answer in answers.items()}
    counts = Counter(base["fingerprint"] for base in bases.values())
    commonest = counts.most_common(1)[0][0]
    leader = next(node for node in sorted(bases) if bases[node]["fingerprint"] == commonest)
    first = bases[leader]
    # Users of the nodes that run it, each on one node.
    for node in sorted(answers):
        if bases[node]["fingerprint"] != first["fingerprint"]:
            problem = (
                f"all nodes must run one base model, but node {node} runs {bases[node]['name']} "
                f"({bases[node]['fingerprint']}), not {first['name']} ({first['fingerprint']})"
            )
            if int(answers[node]["parts"]) or list(counts.values()).count(max(counts.values())) > 1:
                raise RunError(problem)
            warn(f"{problem}; it takes no part")
            continue
        users = json.loads(answers[node]["users"])
        for user, *_ in users["stage1"] + users["stage2"]:
            if hosts.setdefault(user, node) != node:
                raise RunError(f"a user must live on one node, but {user!r} is on nodes {hosts[user]} and {node}")
        stage1 |= {user: items for user, items in users["stage1"]}
        stage2 |= {user: (items, queries) for user, items, queries in users["stage2"]}
    # Who can federate.
    idle = sorted(user for user, items in stage1.items() if not items)
    stage1 = {user: items for user, items in sorted(stage1.items()) if items}
    if not stage1:
        raise RunError("stage 1 needs a user with rows to train on, and no user has any")
    # The shapes of the base model.
    linears = tuple((name, outputs, inputs) for name, outputs, inputs in json.loads(answers[leader]["linears"]))
    skeleton = Skeleton(first["name"], first["parameters"], first["hidden_size"], first["layers"], linears)
    return Federation(
        dict(sorted(hosts.items())),
        stage1,
        dict(sorted(stage2.items())),
        first,
        len(set(hosts.values())),
        idle,
        skeleton,
    )
