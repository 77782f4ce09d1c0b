"""The ClientApp. Stage-2 tensors are made in `personalize` and go to the vault; no reply has a place for them."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import wraps

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients import host
from clients.node import Node
from clients.node_config import NodeConfig
from clients.progress import Progress
from fed.evaluation import ARMS, evaluate
from fed.settings import Settings

app = ClientApp()

Handler = Callable[[Message, Node], RecordDict]


def on_node(handler: Handler) -> Callable[[Message, Context], Message]:
    """Build the node for a message; a broken rule becomes an error reply, and the node stays connected.

    A device says all of it in its own log and the bare rule to the server; of a simulation the operator sees all.
    """

    @wraps(handler)
    def handle(message: Message, context: Context) -> Message:
        device = "partition-id" not in context.node_config
        began = time.time()
        try:
            config = NodeConfig.parse(context.node_config)
            node = Node(Settings.parse(context.run_config), config, context.run_id)
            content = handler(message, node)
            if node.is_simulated:
                host.put_timing(content, began, time.time())
            return Message(content, reply_to=message)
        except (ValueError, OSError) as error:
            return host.refuse(message, error, device=device)
        except Exception as error:  # a defect; its text could hold anything, and Flower would send it on
            if not device:
                raise
            traceback.print_exc()
            return host.refuse(message, error, device=True)

    return handle


@app.query("hello")
@on_node
def hello(message: Message, node: Node) -> RecordDict:
    """Whom this node hosts, how much data each has, and what base model it runs."""
    facts = node.facts
    return RecordDict(
        {
            "node": ConfigRecord(
                {
                    "part": node.part,
                    "parts": node.parts,
                    "users": json.dumps(node.sizes()),
                    "base": json.dumps(facts.description | {"fingerprint": facts.fingerprint}),
                    "linears": json.dumps(facts.skeleton.linears),
                }
            )
        }
    )


@app.train()
@on_node
def stage1(message: Message, node: Node) -> RecordDict:
    """Each user trains the collective edit on its own rows, all users in one batch."""
    users, method = node.hosted(host.users_of(message), "stage1"), node.method
    config = message.content["config"]
    round_number = int(str(config["server-round"]))
    rows = [node.stage1_rows(user) for user in users]
    if method.keeps_own:
        given = (host.collective_of(message, method, node.settings, place) for place, _ in enumerate(users))
        rows = [replace(node.with_own(row), given=one) for row, one in zip(rows, given, strict=True)]
    progress = Progress(f"stage 1, round {round_number}, node {node.part}, {len(users)} users")
    trained = method.train_collective(
        node.base,
        host.collective_of(message, method, node.settings),
        rows,
        round_number=round_number,
        proximal_mu=float(str(config.get("proximal-mu", 0.0))),
        progress=progress.step,
    )
    reply = RecordDict()
    for place, one in enumerate(trained):
        if one.result.error:
            host.put_error(reply, place, one.result.error)
            continue
        if method.keeps_own:
            node.keep_own(one)
        host.put_tensors(reply, place, one.tensors, method, node.settings)
        host.put_metrics(
            reply,
            place,
            {
                "num-examples": one.result.rows // node.settings.local_epochs,
                "train-loss": one.result.mean_loss,
            },
        )
    return reply


@app.query("adopt")
@on_node
def adopt(message: Message, node: Node) -> RecordDict:
    """Keep the collective edit that stage 1 ended with."""
    users, method = node.hosted(host.users_of(message), "stage2"), node.method
    name = node.vault.write_collective(host.collective_of(message, method, node.settings))
    return RecordDict({f"{place}/node": ConfigRecord({"collective": name}) for place, _ in enumerate(users)})


@app.train("personalize")
@on_node
def stage2(message: Message, node: Node) -> RecordDict:
    """Each user trains its private tensors, all users in one batch, and keeps them in the vault."""
    users, method = node.hosted(host.users_of(message), "stage2"), node.method
    collective = str(message.content["config"]["collective"])
    progress = Progress(f"stage 2, node {node.part}, {len(users)} users")
    rows = [node.stage2_rows(user) for user in users]
    if method.keeps_own:
        rows = [node.with_own(row) for row in rows]
    trained = method.train_private(node.base, node.vault.read_collective(collective), rows, progress=progress.step)
    reply = RecordDict()
    for place, one in enumerate(trained):
        if one.result.error:
            host.put_error(reply, place, one.result.error)
            continue
        node.vault.write(
            one.user_id,
            one.tensors,
            base=node.base.fingerprint,
            collective=collective,
            settings=node.settings.as_json(),
        )
        epochs = one.result.epoch_losses(node.settings.stage2_epochs)
        losses: dict[str, int | float] = {f"epoch-{i + 1}": loss for i, loss in enumerate(epochs)}
        host.put_metrics(reply, place, {"num-examples": len(rows[place].rows), "steps": one.result.steps} | losses)
    return reply


@app.evaluate()
@on_node
def test(message: Message, node: Node) -> RecordDict:
    """The four arms on each user's queries; sums go back, texts and tensors stay."""
    users, method = node.hosted(host.users_of(message), "stage2"), node.method
    collective = str(message.content["config"]["collective"])
    base = node.base
    private = {
        user: node.vault.read(user, base=base.fingerprint, collective=collective)
        for user in users
        if node.vault.has(user)
    }
    tests = [node.test_user(user) for user in users]
    total = 2 * len(ARMS) * sum(len(user.rows) for user in tests)
    progress = Progress(f"evaluate, node {node.part}, {len(users)} users")
    found = evaluate(
        node.task,
        method.reader(base, node.vault.read_collective(collective), private),
        tests,
        sorted(private),
        has_collective=bool(method.collective_shapes()),
        max_new_tokens=node.settings.max_new_tokens,
        choice=node.choice,
        on_answers=node.keep_answers if node.is_simulated else None,
        on_rows=lambda count: progress.rows(count, total),
    )
    reply = RecordDict()
    for place, user in enumerate(users):
        flat = {f"{arm}/{name}": value for arm, sums in found[user].items() for name, value in sums.items()}
        host.put_metrics(reply, place, dict(flat))
    return reply
