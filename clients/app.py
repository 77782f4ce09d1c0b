"""The ClientApp. Stage-2 tensors are made in `personalize` and go to the vault; no reply has a place for them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients import messages as host
from clients.edits.received import collective_of, collectives_of
from clients.edits.sent import put_tensors, put_trained
from clients.node import Node
from clients.on_node import on_node
from clients.portions import portions, said
from clients.progress import Progress, say_once
from fed.answering.evaluation import ARMS, evaluate, swap_partners
from fed.communication.on_device import OnDevice
from fed.lamp import rouge_words
from fed.methods import UserRows
from fed.methods.method import Tensors

app = ClientApp()


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


@app.query("refused")
def refused(message: Message, context: Context) -> Message:
    """The server lets this device take no part: say why in its own log. Nothing of the user's is read."""
    print(f"error: the server refuses this device: {host.refusal_of(message)}", file=sys.stderr, flush=True)
    return Message(RecordDict(), reply_to=message)


@app.train()
@on_node
def stage1(message: Message, node: Node) -> RecordDict:
    """Each user trains the collective edit on its own rows, the users of a portion in shared batches."""
    users, method = node.hosted(host.users_of(message), "stage1"), node.method
    round_number = int(str(message.content["config"]["server-round"]))
    reply = RecordDict()
    narrow = OnDevice.of(node.of_run, method.collective_shapes(), node.settings)
    for whole_portion in portions(users):
        # What each user was sent, of whoever can tell; where no user has an edit of its own, the same for all.
        sent_edits = collectives_of(message, whole_portion, method, narrow, content=reply, device=not node.is_simulated)
        if not (portion := list(sent_edits)):
            continue
        start = sent_edits[portion[0]]
        # The users' rows, and where the method keeps them, each user's own edits.
        user_rows = [node.stage1_rows(users[place]) for place in portion]
        if method.keeps_own:
            user_rows = [
                replace(node.with_own_edit(rows, before_round=round_number), given=sent_edits[place])
                for rows, place in zip(user_rows, portion, strict=True)
            ]
        # Training, in shared batches.
        progress = Progress(f"stage 1, round {round_number}, node {node.part}, {said(whole_portion, users)}")
        trained_users = method.train_collective(
            node.base,
            start,
            user_rows,
            round_number=round_number,
            proximal_mu=node.settings.client_mu,
            progress=progress.step,
        )
        # What each user sends, or why it sends nothing.
        for place, trained in zip(portion, trained_users, strict=True):
            if trained.result.error:
                problem = host.TrainingError(trained.result.error)
                host.put_failure(reply, place, problem, device=not node.is_simulated)
                continue
            examples = trained.result.rows // node.settings.local_epochs
            with host.failing_alone(reply, place, device=not node.is_simulated):
                if method.keeps_own:
                    node.of_run.keep_own(trained.user_id, trained.tensors, round_number)
                given = sent_edits[place]
                put_trained(reply, place, trained, method, start=given, round_number=round_number, narrow=narrow)
                host.put_metrics(reply, place, {"num-examples": examples, "train-loss": trained.result.mean_loss})
    return reply


@app.train("pooled")
@on_node
def pooled(message: Message, node: Node) -> RecordDict:
    """Stage 1 as central training: all users' rows as those of the one user that the message is for.

    Simulated nodes all read the run's own data, so this one can stand for the centre.
    """
    (everybody,) = host.users_of(message)
    method = node.method
    # The rows of all users, one user after the other by id; their profile texts are written here too.
    node.roster = node.everyone
    users = [rows for user in node.roster.stage1 if (rows := node.stage1_rows(user).rows)]
    rows = [row for user in users for row in user]
    # One training, with one optimizer and one schedule.
    progress = Progress(f"stage 1, pooled, node {node.part}, {len(users)} users")
    start = collective_of(message, method)
    (trained,) = method.train_collective(
        node.base, start, [UserRows(everybody, rows)], round_number=1, progress=progress.step
    )
    reply = RecordDict()
    if trained.result.error:
        host.put_failure(reply, 0, host.TrainingError(trained.result.error), device=not node.is_simulated)
        return reply
    put_tensors(reply, 0, trained.tensors, method)
    numbers = {"users": len(users), "num-examples": len(rows), "train-loss": trained.result.mean_loss}
    host.put_metrics(reply, 0, numbers)
    return reply


@app.query("adopt")
@on_node
def adopt(message: Message, node: Node) -> RecordDict:
    """Keep the collective edit that stage 1 ended with."""
    users, method = node.hosted(host.users_of(message), "stage2"), node.method
    reply = RecordDict()
    narrow = OnDevice.of(node.of_run, method.collective_shapes(), node.settings)
    edits = collectives_of(message, range(len(users)), method, narrow, content=reply, device=not node.is_simulated)
    if edits:  # the same for all, whether it came whole or as a change
        name = node.vault.write_collective(method.whole(next(iter(edits.values()))))
        reply = RecordDict({**reply, **{f"{place}/node": ConfigRecord({"collective": name}) for place in edits}})
    return reply


@app.train("personalize")
@on_node
def stage2(message: Message, node: Node) -> RecordDict:
    """Each user trains its private tensors, a portion in shared batches, and keeps them in the vault.

    Promise: who is done is left alone, the others get what they would have (tests/integration/test_resume.py).
    """
    users, method = node.hosted(host.users_of(message), "stage2"), node.method
    collective = str(message.content["config"]["collective"])
    shared = node.vault.read_collective(collective)
    base = node.facts.fingerprint
    reply = RecordDict()
    for portion in portions(users):
        # Who is done; a portion that is not whole is trained whole, in its own batches.
        finished = {place: node.of_run.done(users[place], base=base, collective=collective) for place in portion}
        done = {place: told for place, told in finished.items() if told is not None}
        for place, told in done.items():
            host.put_metrics(reply, place, told)
        if len(done) == len(portion):
            continue
        user_rows = [node.stage2_rows(users[place]) for place in portion]
        if method.keeps_own:
            user_rows = [node.with_own_edit(rows, before_round=sys.maxsize) for rows in user_rows]
        progress = Progress(f"stage 2, node {node.part}, {said(portion, users)}")
        trained_users = method.train_private(node.base, shared, user_rows, progress=progress.step)
        edits: dict[int, tuple[Tensors, host.Numbers]] = {}
        for place, rows, trained in zip(portion, user_rows, trained_users, strict=True):
            if place in done:
                continue
            if trained.result.error:
                diverged = host.TrainingError(trained.result.error)
                host.put_failure(reply, place, diverged, device=not node.is_simulated)
                continue
            epochs = trained.result.epoch_losses(node.settings.stage2_epochs)
            numbers: host.Numbers = {"num-examples": len(rows.rows), "steps": trained.result.steps}
            numbers |= {f"epoch-{i + 1}": loss for i, loss in enumerate(epochs)}
            edits[place] = trained.tensors, numbers
        # Into the vault, the portion's users together.
        of_users = {users[place]: edit for place, edit in edits.items()}
        problems = node.of_run.write(of_users, base=base, collective=collective)
        for place, (_, numbers) in edits.items():
            if problem := problems.get(users[place]):
                host.put_failure(reply, place, problem, device=not node.is_simulated)
            else:
                host.put_metrics(reply, place, numbers)
    return reply


@app.evaluate()
@on_node
def test(message: Message, node: Node) -> RecordDict:
    """The four arms on each user's queries; sums go back, texts and tensors stay."""
    users, method = node.hosted(host.users_of(message), "stage2"), node.method
    collective = str(message.content["config"]["collective"])
    base = node.base
    progress = Progress(f"evaluate, node {node.part}, {len(users)} users")
    shared = node.vault.read_collective(collective)
    reply = RecordDict()  # a user whose private edit cannot be read has an error, and nobody is swapped with it
    use = {"method": node.settings.method, "task": node.settings.task}
    torn = node.of_run.unreadable(users, base=base.fingerprint, collective=collective, **use)
    host.put_failures(reply, users, torn, device=not node.is_simulated)
    having = [user for user in users if node.vault.has(user, collective=collective, **use) and user not in torn]
    partners = swap_partners(having)
    queries = without = 0
    for whole_portion in portions(users):
        # The users' queries; the private tensors of the users and of those that they are swapped with.
        if not (portion := [place for place in whole_portion if users[place] not in torn]):
            continue
        tests = [node.test_user(users[place]) for place in portion]
        names = {users[place] for place in portion} & partners.keys()
        names |= {partner for user in names if (partner := partners[user]) is not None}
        private = {user: node.vault.read(user, base=base.fingerprint, collective=collective, **use) for user in names}
        queries += sum(len(user.rows) for user in tests)
        without += rouge_words.unseen(query.gold for user in tests for query in user.queries)[0]
        # Of the portions to come the users are known, not the queries: as many as so far, each.
        total = 2 * len(ARMS) * (queries * len(users) // (whole_portion[-1] + 1))
        statistics = evaluate(
            node.task,
            method.reader(base, shared, private),
            tests,
            sorted(private),
            partners=partners,
            has_collective=bool(method.collective_shapes()),
            max_new_tokens=node.settings.max_new_tokens,
            choice=node.choice,
            tokenizer=base.tokenizer,
            rouge_tokenizer=node.settings.rouge_tokenizer,
            on_answers=node.keep_answers if node.is_simulated else None,
            on_rows=lambda count, total=total: progress.rows(count, total),  # type: ignore[misc]
        )
        # Sums alone go back.
        for place in portion:
            by_arm = statistics[users[place]]
            flat = {f"{arm}/{name}": value for arm, sums in by_arm.items() for name, value in sums.items()}
            host.put_metrics(reply, place, dict(flat))
    # What was trained before for the same use has been replaced by something that works.
    node.vault.retire(partners, collective=collective, **use)
    scored_in_words = node.task.kind == "generation" and node.settings.max_new_tokens > 0
    if scored_in_words and node.settings.rouge_tokenizer == "lamp" and (text := rouge_words.warning(without, queries)):
        say_once(f"warning: {text}")
    return reply
