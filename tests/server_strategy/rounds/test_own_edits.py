"""Methods that send every user an edit of its own: whose edits it is made of, and who gets the mean instead."""

from __future__ import annotations

import torch

from fed import methods
from fed.base.skeleton import Skeleton
from server_strategy.grid.edits.translation import Translation
from server_strategy.rounds.own_edits import OwnEdits
from server_strategy.rounds.screened import Screened
from server_strategy.rounds.strategy import make_strategy


class Sums:
    """A method that sends user 1 nothing of its own, and any other the sum of all users' last b plus its number."""

    def for_each(self, users, latest, before):
        total = sum(edit["b"] for edit in latest.values()) + before["b"]
        return {user: before | {"b": total + user} for user in users if user != 1}


def own_edits(_, translation):
    return [OwnEdits(Sums(), translation)]


def test_in_the_first_round_everybody_gets_the_collective_edit(rounds):
    first = rounds(steps=own_edits)
    messages = first.messages()
    assert len(messages) == 4
    assert all(message.content["arrays"] is messages[0].content["arrays"] for message in messages)


def test_later_each_user_gets_its_own_of_what_all_sent_last_and_who_has_none_the_collective_edit(rounds, edits):
    later = rounds(steps=own_edits)
    later.mean(edits, 1)
    later.mean([None, edits[3], None, None], 2)  # the others' last edits are still those of round 1
    total = edits[0]["b"] + 2 * edits[3]["b"] + edits[2]["b"] + later.start["b"]
    sent = [later.translation.edit_of(message) for message in later.messages(3)]
    assert torch.equal(sent[0]["b"], later.start["b"]) and torch.equal(sent[0]["W"], later.start["W"])
    for number, edit in enumerate(sent[1:], 2):
        torch.testing.assert_close(edit["b"], total + number)
        assert torch.equal(edit["W"], later.start["W"])


def test_a_method_is_given_the_step_where_it_keeps_own_edits_and_else_none(settings):
    for name, steps in (("fedreft", [Screened, OwnEdits]), ("perfit", [Screened])):
        method = methods.make(settings(method=name), Skeleton("tiny", 0, 32, 4, ()))
        translation = Translation(method.collective_shapes(), "float32")
        strategy = make_strategy(settings(method=name), method, translation=translation, on_round=print)
        assert [type(step) for step in strategy._steps] == steps
