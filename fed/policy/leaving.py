"""Every number that leaves a device, and what becomes of it on the way.

    count   as it is from `min-rows` on, 0 below it; at most `most-rows`, where it counts rows
    loss    a mean over at least `min-rows` rows, rounded to `loss-step`; else it does not leave
    score   a mean over at least `min-rows` queries, rounded to `score-step`, of labels down; else it does not leave
    edit    the tensors of stage 1, where they were trained on at least `min-rows` rows; else an error in their place

Statistics of the evaluation are sums, which the server adds and divides: what is rounded is the mean that the device's
own numbers give, and the sum that leaves is that mean times its count. A number that is not listed here does not leave.

Promise: what leaves under the default rules is what stands in the table of clients/PRIVACY.md, and nothing else
(tests/integration/test_leaving.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fed.answering.evaluation import ARMS
from fed.policy.policy import Policy

Number = int | float


@dataclass(frozen=True)
class Leaving:
    """A number, or a family of numbers, in a reply.

    Attributes:
        phase: of the run, in words.
        message: the type of the message that it answers.
        name: where it stands in the reply: `<record>/<field>`; * stands for any text.
        kind: count, loss, score, edit or fact.
        over: of a loss or score that is a sum, the field that it is divided by; "" where it is a mean already.
        says: what it is.
        reveals: what it can reveal of the user's texts.
    """

    phase: str
    message: str
    name: str
    kind: str
    says: str
    reveals: str
    over: str = ""


_SIZE = "how much the user writes, and by how much it grew between two runs"
_FIT = "how well texts like the user's fit what the server sent: style and topic, summed up over the rows"
LEAVES: tuple[Leaving, ...] = (
    Leaving("greeting", "query.hello", "node/users", "count", "rows to train on, queries, by stage", _SIZE),
    Leaving("greeting", "query.hello", "node/base", "fact", "the base model: name, shapes, dtype, device, fingerprint",
            "what machine it is"),
    Leaving("greeting", "query.hello", "node/linears", "fact", "the base model's linear maps, their shapes",
            "nothing that the base model does not"),
    Leaving("greeting", "query.hello", "node/part*", "fact", "0 on a device: nodes of a simulation", "nothing"),
    Leaving("stage 1", "train", "arrays/edit", "edit", "the collective edit, trained on the user's rows",
            "the most of all: an edit of few rows and steps can be inverted to texts like them"),
    Leaving("stage 1", "train", "metrics/num-examples", "count", "rows trained on", _SIZE),
    Leaving("stage 1", "train", "metrics/train-loss", "loss", "mean loss over rows and epochs", _FIT),
    Leaving("hand-out", "query.adopt", "node/collective", "fact", "fingerprint of the edit that came",
            "nothing: the server sent it"),
    Leaving("stage 2", "train.personalize", "metrics/num-examples", "count", "rows trained on", _SIZE),
    Leaving("stage 2", "train.personalize", "metrics/steps", "count", "optimizer steps", _SIZE),
    Leaving("stage 2", "train.personalize", "metrics/epoch-*", "loss", "mean loss of an epoch, over all rows", _FIT),
    Leaving("evaluation", "evaluate", "metrics/*/count", "count", "queries asked, by arm", _SIZE),
    Leaving("evaluation", "evaluate", "metrics/*/tokens", "count", "tokens of all golds",
            "the mean length of the golds"),
    Leaving("evaluation", "evaluate", "metrics/*/eos_tokens", "count", "golds that end within max-length",
            "whether long ones are among them"),
    Leaving("evaluation", "evaluate", "metrics/*/nll", "loss", "summed loss of all golds", _FIT, over="tokens"),
    Leaving("evaluation", "evaluate", "metrics/*/nll_eos", "loss", "summed loss of their ends", _FIT,
            over="eos_tokens"),
    Leaving("evaluation", "evaluate", "metrics/*/*", "score",
            "the task's sums: hits, errors, ROUGE, ceilings, golds by label",
            "how well the edits serve this user; of labels, how often each is the gold", over="count"),
)  # fmt: skip
# What a count is for: it leaves where that does.
_COUNTS_OF = {"tokens": "loss", "eos_tokens": "loss", "count": "score"}


def leaving_of(message: str, name: str) -> Leaving | None:
    """The first entry of LEAVES that a number of a reply falls under."""
    return next((one for one in LEAVES if one.message == message and fnmatchcase(name, one.name)), None)


def training_numbers(policy: Policy, message: str, values: Mapping[str, Number]) -> dict[str, Number]:
    """The numbers of a training (`num-examples` rows) as they leave."""
    rows = int(values.get("num-examples", 0))
    return _let_out(policy, message, "metrics/", values, rows)


def test_sums(policy: Policy, values: Mapping[str, Number]) -> dict[str, Number]:
    """The evaluation's sums, `<arm>/<name>`, as they leave: of each arm all of them, or none."""
    left: dict[str, Number] = {}
    for arm in ARMS:
        sums = {name.removeprefix(f"{arm}/"): value for name, value in values.items() if name.startswith(f"{arm}/")}
        # Where no answers were given nothing counts the queries but their ends, of which there is one at most.
        queries = int(sums.get("count", sums.get("eos_tokens", 0)))
        if sums and queries >= policy.min_rows:
            of_arm = _let_out(policy, "evaluate", f"metrics/{arm}/", sums, queries)
            left |= {f"{arm}/{name}": value for name, value in of_arm.items()}
    return left


def counted(policy: Policy, rows: int) -> int:
    """A number of rows or queries as it leaves."""
    return 0 if rows < policy.min_rows else min(rows, policy.most_rows)


def _let_out(policy: Policy, message: str, prefix: str, values: Mapping[str, Number], rows: int) -> dict[str, Number]:
    """These values by their kinds; all of them are over so many rows."""
    enough = rows >= policy.min_rows
    withheld = {kind for kind, leaves in (("loss", policy.losses), ("score", policy.scores)) if not (enough and leaves)}
    left: dict[str, Number] = {}
    for name, value in values.items():
        entry = leaving_of(message, prefix + name)
        if entry is None or entry.kind in withheld or _COUNTS_OF.get(name) in withheld:
            continue
        if entry.kind == "count":
            left[name] = (min(value, policy.most_rows) if name in ("num-examples", "count") else value) if enough else 0
        elif entry.kind == "loss":
            left[name] = _rounded(value, values.get(entry.over, 0) if entry.over else 1, policy.loss_step)
        elif entry.kind == "score":
            # Of labels always down, so that they never add up to more queries than there were.
            left[name] = _rounded(value, values.get(entry.over, 0), policy.score_step, down="/" in name)
    return left


def _rounded(total: Number, count: Number, step: float, *, down: bool = False) -> float:
    """The total again, its mean over `count` rounded to a multiple of `step`, or down to one; 0 of nothing."""
    if not count:
        return 0.0
    if not step:
        return float(total)
    steps = total / count / step
    return (math.floor(steps + 1e-9) if down else round(steps)) * step * count
