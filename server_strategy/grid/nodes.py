"""Finding the nodes: wait until all are registered, ask each whom it hosts and what base model it runs, and believe it
within rules (`server_strategy.screening.greeting`).

The base model is the server's own where the server of a federation of devices has a copy (`fed.base.facts.here`), else
that of most nodes. A user lives on one node: a second device that says it hosts the same user stays out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fed.base import facts
from fed.base.skeleton import Skeleton
from fed.plain_text import plain
from fed.settings.settings import Settings
from server_strategy.screening.breach import Breach
from server_strategy.screening.greeting import Greeting, greeting

TOLD_WITHIN = 10.0  # seconds that a device has to hear why it takes no part


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
        simulated: whether its nodes are simulated ones, and not devices.
    """

    hosts: dict[str, int]
    stage1: dict[str, int]
    stage2: dict[str, tuple[int, int]]
    base: dict[str, Any]
    nodes: int
    idle: list[str]
    skeleton: Skeleton
    simulated: bool = True


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
    answers, refused = _hello(grid, ids if settings.min_nodes else ids[:1], timeout, settings)
    if not settings.min_nodes and not answers:  # the node that was greeted cannot serve; another may
        more, refused_too = _hello(grid, [node for node in ids if node not in refused], timeout, settings)
        answers, refused = answers | more, refused | refused_too
    if not answers:
        raise RunError(next(iter(refused.values()), f"none of {len(ids)} SuperNodes answered"))
    # Greet the rest.
    expected = Counter(answer.parts for answer in answers.values()).most_common(1)[0][0]
    if expected > 1:
        ids = _wait(grid, expected, deadline, settings.node_timeout)
    rest = [node for node in ids if node not in answers and node not in refused]
    more, refused_too = _hello(grid, rest, timeout, settings)
    answers, refused = answers | more, refused | refused_too
    for node in [node for node, answer in answers.items() if answer.parts != expected]:
        refused[node] = f"parts must be {expected}, as most nodes say, got {answers.pop(node).parts}"
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
    turned_away: dict[int, str] = {}
    federation = _combine(answers, settings, warn, turned_away)
    _tell(grid, turned_away)
    return federation


def _tell(grid: Grid, reasons: Mapping[int, str]) -> None:
    """Tell devices that greeted well why they take no part; whether they hear it changes nothing."""
    messages = [
        Message(
            RecordDict({"refusal": ConfigRecord({"reason": reason})}), dst_node_id=node, message_type="query.refused"
        )
        for node, reason in reasons.items()
    ]
    if messages:
        list(grid.send_and_receive(messages, timeout=TOLD_WITHIN))


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


def _hello(
    grid: Grid, ids: list[int], timeout: float | None, settings: Settings
) -> tuple[dict[int, Greeting], dict[int, str]]:
    """(greetings, reasons of those that refused or are refused) by node; a node may be in neither."""
    messages = [Message(RecordDict(), dst_node_id=node, message_type="query.hello") for node in ids]
    answers: dict[int, Greeting] = {}
    refused: dict[int, str] = {}
    for place, reply in answered(grid.send_and_receive(messages, timeout=timeout) if messages else [], messages):
        node = messages[place].metadata.dst_node_id
        if reply.has_error():
            refused[node] = plain(reply.error.reason or "no reason was given")
            continue
        try:
            answers[node] = greeting(reply, settings)
        except Breach as breach:
            refused[node] = str(breach)
    return answers, refused


def answered(replies: Iterable[Message], requests: Sequence[Message]) -> Iterator[tuple[int, Message]]:
    """The first reply to each request, and its place among them; what answers no request is left out.

    The SuperLink answers in its own name for a node that is gone, so the sender does not tell; the message's id does,
    which a Grid gives to a request as it sends it. Without one it is the sender and the type, of several the first.
    """
    by_id = {
        request.metadata.message_id: place for place, request in enumerate(requests) if request.metadata.message_id
    }
    by_sender: dict[tuple[int, str], int] = {}
    for place, request in enumerate(requests):
        by_sender.setdefault((request.metadata.dst_node_id, request.metadata.message_type), place)
    seen: set[int] = set()
    for reply in replies:
        meta = reply.metadata
        place = by_id.get(meta.reply_to_message_id, by_sender.get((meta.src_node_id, meta.message_type), -1))
        if place >= 0 and place not in seen:
            seen.add(place)
            yield place, reply


def _combine(
    answers: Mapping[int, Greeting], settings: Settings, warn: Callable[[str], None], turned_away: dict[int, str]
) -> Federation:
    """The greetings as one federation; `turned_away` takes why devices stay out. Raises RunError where none is left."""
    hosts: dict[str, int] = {}
    stage1: dict[str, int] = {}
    stage2: dict[str, tuple[int, int]] = {}
    leader = _leader(answers, settings, warn)
    for node in sorted(answers):
        answer = answers[node]
        # Nodes of the run's base model alone.
        if answer.shapes != leader.shapes:
            problem = (
                f"all nodes must run one base model, but node {node} runs {answer.base['name']} "
                f"({answer.base['fingerprint']}), not {leader.base['name']} ({leader.base['fingerprint']})"
            )
            if answer.base["fingerprint"] == leader.base["fingerprint"]:
                problem = f"node {node} says of the base model {leader.base['name']} shapes that it has not"
            if answer.parts:
                raise RunError(problem)
            warn(f"{problem}; it takes no part")
            turned_away[node] = problem
            continue
        # Users on one node each.
        if taken := sorted(answer.users & hosts.keys()):
            problem = f"a user must live on one node, but {taken[0]!r} is on nodes {hosts[taken[0]]} and {node}"
            if answer.parts:
                raise RunError(problem)
            warn(f"{problem}; node {node} takes no part: a user takes part with one device, so stop the other")
            turned_away[node] = f"user {taken[0]!r} takes part with another device already; stop one of the two"
            continue
        hosts |= dict.fromkeys(answer.users, node)
        stage1 |= answer.stage1
        stage2 |= answer.stage2
    # Who can federate.
    idle = sorted(user for user, items in stage1.items() if not items)
    stage1 = {user: items for user, items in sorted(stage1.items()) if items}
    base = leader.base
    skeleton = Skeleton(base["name"], base["parameters"], base["hidden_size"], base["layers"], leader.linears)
    return Federation(
        dict(sorted(hosts.items())),
        stage1,
        dict(sorted(stage2.items())),
        base,
        len(set(hosts.values())),
        idle,
        skeleton,
        bool(leader.parts),
    )


def _leader(answers: Mapping[int, Greeting], settings: Settings, warn: Callable[[str], None]) -> Greeting:
    """The greeting whose base model is the run's, of its nodes the first; of devices the server's own, if it has it."""
    ordered = [answers[node] for node in sorted(answers)]
    own = facts.here(settings.base_source) if not ordered[0].parts else None
    if own is not None:
        fingerprint, shapes = own
        expected = (shapes.parameters, shapes.hidden_size, shapes.layers, shapes.linears)
        for answer in ordered:
            if answer.shapes[1:] == expected and fingerprint in (None, answer.base["fingerprint"]):
                return answer
        warn(f"no node runs the server's own base-model {settings.base_model!r}; its facts are those of most nodes")
    counts = Counter(answer.shapes for answer in ordered)
    (shapes_of_most, most), *others = counts.most_common(2)
    if others and others[0][1] == most:
        names = sorted({answer.base["name"] for answer in ordered if counts[answer.shapes] == most})
        raise RunError(
            f"all nodes must run one base model, and as many run one as another ({', '.join(names)}); "
            "give the server a copy as base-model, or start all nodes on one"
        )
    return next(answer for answer in ordered if answer.shapes == shapes_of_most)
