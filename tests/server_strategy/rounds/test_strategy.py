"""A round: what its steps see and change, what is averaged, and what ends the run."""

from __future__ import annotations

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from fed.averages.entrywise import fedavg
from fed.averages.svd import svd_mean
from server_strategy.grid.nodes import RunError
from server_strategy.rounds.step import Step
from server_strategy.rounds.strategy import TooFewReplies

AVERAGES = {"svd": svd_mean, "fedavg": lambda edits, weights, _: fedavg(edits, weights)}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-6)


class Seen(Step):
    """Writes down which users it sees, in which round."""

    def __init__(self, name="", log=None):
        self.name, self.log = name, [] if log is None else log

    def before_messages(self, current, messages):
        self.log.append((self.name, "messages", current.number, sorted(m.metadata.dst_node_id for m in messages)))
        return messages

    def after_replies(self, current, replies):
        self.log.append((self.name, "replies", current.number, [r.metadata.src_node_id for r in replies]))
        return replies


class NearStart(Step):
    """Screening: leaves out users whose W is further from the round's start than `limit`."""

    def __init__(self, translation, limit):
        self.translation, self.limit = translation, limit

    def after_replies(self, current, replies):
        moves = [self.translation.edit_of(reply)["W"] - current.start["W"] for reply in replies]
        return [reply for reply, move in zip(replies, moves, strict=True) if float(move.abs().max()) <= self.limit]


class Halved(Step):
    """Clipping: halves what every user did to b."""

    def __init__(self, translation):
        self.translation = translation

    def after_replies(self, current, replies):
        for reply in replies:
            edit = self.translation.edit_of(reply)
            self.translation.put_edit(reply, edit | {"b": (edit["b"] + current.start["b"]) / 2})
        return replies


class Told(Step):
    """Tells every user the same word, and user 2 a word of its own."""

    def before_messages(self, current, messages):
        for_all = ConfigRecord({"word": "all"})
        for message in messages:
            word = ConfigRecord({"word": "you"}) if message.metadata.dst_node_id == 2 else for_all
            message.content = RecordDict({**message.content, "told": word})
        return messages


def test_without_steps_a_round_is_the_mean_of_the_users_that_could_train(rounds, edits):
    for name, average in AVERAGES.items():
        plain = rounds(average=name)
        mean = plain.mean([edits[0], None, edits[2], edits[3]], examples=(1, 5, 2, 3), losses=(1.0, 9.0, 2.0, 3.0))
        assert_same(mean, average([edits[0], edits[2], edits[3]], [1, 2, 3], plain.start))
        (row,) = plain.rows
        assert (row["round"], row["users"], row["failed"]) == (1, 3, 1)
        assert row["loss"] == pytest.approx((1 * 1.0 + 2 * 2.0 + 3 * 3.0) / 6)


def test_steps_run_in_the_order_of_the_list_and_never_see_a_failed_reply(rounds, edits):
    log = []
    both = rounds(steps=[Seen("first", log), Seen("second", log)])
    both.mean([edits[0], None, edits[2], edits[3]], 4)
    names = ("first", "second")
    assert log == [
        *((name, "messages", 4, [1, 2, 3, 4]) for name in names),
        *((name, "replies", 4, [1, 3, 4]) for name in names),
    ]


@pytest.mark.parametrize("name", AVERAGES)
def test_users_that_a_step_leaves_out_count_as_users_but_not_in_mean_and_loss(rounds, edits, name):
    edits[1]["W"] = edits[1]["W"] + 100
    screened = rounds(average=name, steps=lambda _, translation: [NearStart(translation, 50.0)])
    mean = screened.mean(edits, examples=(1, 5, 2, 3), losses=(1.0, 9.0, 2.0, 3.0))
    assert_same(mean, AVERAGES[name]([edits[0], edits[2], edits[3]], [1, 2, 3], screened.start))
    (row,) = screened.rows
    assert (row["users"], row["failed"]) == (4, 0)
    assert row["loss"] == pytest.approx((1 * 1.0 + 2 * 2.0 + 3 * 3.0) / 6)


@pytest.mark.parametrize("name", AVERAGES)
def test_an_edit_that_a_step_changes_is_averaged_as_changed(rounds, edits, name):
    clipped = rounds(average=name, steps=lambda _, translation: [Halved(translation)])
    changed = [edit | {"b": (edit["b"] + clipped.start["b"]) / 2} for edit in edits]
    assert_same(clipped.mean(edits), AVERAGES[name](changed, [1, 1, 1, 1], clipped.start))


def test_a_record_that_a_step_adds_reaches_its_users_and_what_they_share_stays_shared(rounds):
    told = rounds(steps=[Told()])
    contents = [message.content for message in told.messages()]
    assert [content["told"]["word"] for content in contents] == ["all", "you", "all", "all"]
    assert all(content["arrays"] is contents[0]["arrays"] for content in contents)
    assert contents[3]["told"] is contents[0]["told"]


def test_a_round_in_which_nobody_could_train_ends_the_run_before_any_step(rounds):
    seen = Seen()
    with pytest.raises(RunError, match="round 1: none of 4 users could train; the first: the loss is nan"):
        rounds(steps=[seen]).mean([None] * 4)
    assert [entry[1] for entry in seen.log] == ["messages"]


def test_a_round_that_nobody_answers_ends_the_run(rounds):
    silent = rounds()
    silent.messages()
    with pytest.raises(RunError, match="round 1: none of 0 users could train; the first: no reply came"):
        silent.strategy.aggregate_train(1, [])


def test_steps_that_leave_nobody_end_the_run(rounds, edits):
    strict = rounds(steps=lambda _, translation: [NearStart(translation, 0.0)])
    with pytest.raises(RunError, match="round 1: a reply must be left to average, and the steps left none of 4"):
        strict.mean(edits)


def test_a_round_needs_min_replies_left_after_the_steps_and_ends_the_run_with_fewer(rounds_of, edits):
    enough = rounds_of("fedavg", "svd", min_replies=3)
    enough.mean([edits[0], None, edits[2], edits[3]])
    assert [row["users"] for row in enough.rows] == [3]
    with pytest.raises(RunError, match="round 2: min-replies = 3 users' replies must be left to average, got 2 of 4"):
        enough.mean([edits[0], None, None, edits[3]], 2)
    assert len(enough.rows) == 1


@pytest.mark.parametrize("missing", ["failed", "screened out"])
def test_no_step_keeps_a_reply_of_a_round_that_has_too_few_and_is_repeated(rounds_of, edits, missing):
    ran = rounds_of("fedavg", "svd", method="fedreft", min_replies=4)
    edits[2] = None if missing == "failed" else {name: tensor * 1e3 for name, tensor in edits[2].items()}
    with pytest.raises(TooFewReplies, match="got 3 of 4"):
        ran.mean(edits)
    messages = ran.messages()  # as of a first round: what users sent in vain is in nobody's edit
    assert all(message.content["arrays"] is messages[0].content["arrays"] for message in messages)


def test_a_mean_that_is_not_finite_ends_the_run_and_no_round_is_recorded(rounds, edits):
    edits[2]["b"] = edits[2]["b"] * float("inf")
    spoilt = rounds(average="fedavg")
    with pytest.raises(RunError, match="round 1: the averaged edit is not finite; lower stage1-lr"):
        spoilt.mean(edits)
    assert spoilt.rows == []
