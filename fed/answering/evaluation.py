"""The four arms of a user's test: base, stage 1, stage 1 + 2, and stage 1 with another user's stage 2.

Vectors that are truly personal get worse when swapped. Partners come from the same node alone, for private edits
never travel; a user alone on its node has no swapped arm. What leaves here are additive sums, never a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fed.answering import ceiling
from fed.answering.choice import Choice
from fed.answering.reader import Loss, Question, Reader
from fed.forward.batching import Row
from fed.lamp import metrics
from fed.lamp.tasks import Task
from fed.lamp.user import Query

ARMS = ("base", "stage1", "stage1+2", "swapped")
Report = dict[str, Any]  # as report.json holds it


@dataclass(frozen=True)
class TestUser:
    """One user's test queries and their tokenized rows (prompt and gold completion)."""

    user_id: str
    queries: Sequence[Query]
    rows: Sequence[Row]


def swap_partners(users: Sequence[str]) -> dict[str, str | None]:
    """Each user's next neighbour by id, the last one's being the first; None for a user alone."""
    ordered = sorted(users)
    if len(ordered) < 2:
        return dict.fromkeys(ordered)
    return {user: ordered[(i + 1) % len(ordered)] for i, user in enumerate(ordered)}


def evaluate(
    task: Task,
    reader: Reader,
    users: Sequence[TestUser],
    private: Sequence[str],
    *,
    has_collective: bool = True,
    max_new_tokens: int,
    partners: Mapping[str, str | None] | None = None,
    choice: Choice | None = None,
    tokenizer: Any = None,
    rouge_tokenizer: str = "lamp",
    on_answers: Callable[[TestUser, str, Sequence[str]], None] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """user -> arm -> additive statistics.

    Of the golds' losses: `nll` (nats) and `tokens`, and the share that their EOS tokens have in both, `nll_eos` and
    `eos_tokens`. Where answers are given: those of `fed.lamp.metrics`; where they are texts: those of
    `fed.answering.ceiling`.

    Args:
        private: the users whose stage-2 edits the reader holds; others have neither `stage1+2` nor partner.
        has_collective: whether the method federates anything; without it there is no arm `stage1`, and `stage1+2`
        is stage 2 alone.
        max_new_tokens: of each answer; 0 skips the answers and leaves the losses.
        partners: with whom each of `private` is swapped, where `users` are not all of a node's; None: `swap_partners`.
        choice: the labels to choose from; None: the answer is decoded.
        tokenizer: of the rows; None: what max-new-tokens cuts of the golds is not counted.
        rouge_tokenizer: whose words ROUGE counts.
        on_answers: called with a user, an arm and the answers to its queries; they go nowhere else.
        on_rows: called with a number of rows as they finish, 2 · users · queries · arms in all.
    """
    if partners is None:
        partners = swap_partners([u.user_id for u in users if u.user_id in private])
    questions, spans = _questions(users, private, partners, has_collective)
    # The golds' losses and the answers, of all users and arms together.
    golds = [query.gold for user, _, _ in spans for query in user.queries]
    losses, answers = losses_and_answers(reader, questions, golds, max_new_tokens, choice, on_rows)
    # What the golds themselves would score, as far as they can be written: the same in every arm.
    ceilings: dict[str, dict[str, float]] = {}
    if tokenizer is not None and max_new_tokens and task.kind == "generation":
        for user in users:
            golds = [query.gold for query in user.queries]
            texts = ceiling.written(golds, user.rows, tokenizer, max_new_tokens)
            ceilings[user.user_id] = ceiling.statistics(task, golds, texts, rouge_tokenizer=rouge_tokenizer)
    # Each user's sums, arm by arm.
    found: dict[str, dict[str, dict[str, float]]] = {user.user_id: {} for user in users}
    for user, arm, span in spans:
        sums = {name: float(sum(getattr(loss, name) for loss in losses[span])) for name in Loss._fields}
        if answers is not None:
            golds = [query.gold for query in user.queries]
            sums |= metrics.statistics(task, golds, answers[span], rouge_tokenizer=rouge_tokenizer)
            sums |= ceilings.get(user.user_id, {})
            if on_answers:
                on_answers(user, arm, answers[span])
        found[user.user_id][arm] = sums
    return found


def _questions(
    users: Sequence[TestUser],
    private: Sequence[str],
    partners: Mapping[str, str | None],
    has_collective: bool,
) -> tuple[list[Question], list[tuple[TestUser, str, slice]]]:
    """Every query under each arm of its user, and (user, arm, which of the questions are theirs)."""
    questions: list[Question] = []
    spans: list[tuple[TestUser, str, slice]] = []
    for user in users:
        mine = user.user_id if user.user_id in private else None
        arms: dict[str, tuple[bool, str | None]] = {"base": (False, None)}
        if has_collective:
            arms["stage1"] = (True, None)
        if mine is not None:
            arms["stage1+2"] = (has_collective, mine)
            if partners[mine] is not None:
                arms["swapped"] = (has_collective, partners[mine])
        for arm, (collective, personal) in arms.items():
            start = len(questions)
            for query, row in zip(user.queries, user.rows, strict=True):
                # All arms of a query draw the same numbers: where edits change nothing, nor does chance.
                questions.append(Question(row, collective, personal, (user.user_id, query.id)))
            spans.append((user, arm, slice(start, len(questions))))
    return questions, spans


def losses_and_answers(
    reader: Reader,
    questions: Sequence[Question],
    golds: Sequence[str],
    max_new_tokens: int,
    choice: Choice | None,
    on_rows: Callable[[int], None] | None = None,
) -> tuple[list[Loss], list[str] | None]:
    """Of each question what its gold costs, and its answer: one of the labels, or decoded; None at 0 new tokens."""
    if not max_new_tokens:
        return reader.losses(questions, on_rows), None
    if choice is not None:
        return _choose(reader, questions, golds, choice, on_rows)
    losses = reader.losses(questions, on_rows)
    stop = "\n"  # an answer is one line in every LaMP task
    return losses, reader.generate(questions, max_new_tokens=max_new_tokens, stop=stop, on_rows=on_rows)


def _choose(
    reader: Reader,
    questions: Sequence[Question],
    golds: Sequence[str],
    choice: Choice,
    on_rows: Callable[[int], None] | None,
) -> tuple[list[Loss], list[str]]:
    """(loss and tokens of each question's gold, the answers): the gold is one of the labels, so it is scored once."""
    count, finished = len(choice.labels), 0

    def progress(rows: int) -> None:
        # A question counts as two rows, its loss and its answer, as where it is decoded.
        nonlocal finished
        before, finished = finished, finished + rows
        if on_rows and (new := 2 * finished // count - 2 * before // count):
            on_rows(new)

    asked = [replace(question, row=row) for question in questions for row in choice.rows(question.row.prompt)]
    scored = reader.losses(asked, progress)
    of_each = [scored[start : start + count] for start in range(0, len(scored), count)]
    answers = [choice.best([loss.nll for loss in own]) for own in of_each]
    return [own[choice.labels.index(gold.strip())] for own, gold in zip(of_each, golds, strict=True)], answers


def arm_scores(task: Task, parts: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """One arm's scores over users, None without queries: loss per token, all tokens pooled, with the golds' EOS tokens
    and without them; the task's metrics. Of devices that let out only one of the two it is that one.
    """
    if not any(part.get("tokens") or part.get("count") for part in parts):
        return None
    total = metrics.merge(parts)
    scores = {"loss_per_token": total["nll"] / total["tokens"]} if total.get("tokens") else {}
    words = total.get("tokens", 0.0) - total.get("eos_tokens", 0.0)  # sums written earlier do not tell EOS tokens apart
    if "nll_eos" in total and words:
        scores["loss_per_token_without_eos"] = (total["nll"] - total["nll_eos"]) / words
    if total.get("count"):
        scores |= metrics.scores(task, total)
    return scores


def last_arm(report: Report) -> str:
    """The arm that a method ends with."""
    return next(arm for arm in ("stage1+2", "stage1", "base") if report["arms"][arm] is not None)
