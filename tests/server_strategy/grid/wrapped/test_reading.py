"""Replies off the network, read one by one: whatever bytes one node sends, the others' replies arrive and are used.

On a real SuperLink's state and handlers, and Flower's own grid (`superlink`); only HTTP is left out.
"""

from __future__ import annotations

from datetime import timedelta

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from server_strategy.grid.wrapped import reading
from server_strategy.grid.wrapped.reading import ReadingGrid
from server_strategy.report import page, report
from server_strategy.run import run
from tests.server_strategy.grid.wrapped.superlink import SuperLink, made, name
from tests.server_strategy.grid.wrapped.wire_lies import EMPTY, HARMLESS, READ, READABLE, UNREADABLE, holding, pushed
from tests.server_strategy.screening.canned import FOUR, USERS, Canned, written

LIED = 1  # the liar's place among the nodes


@pytest.fixture
def ask(monkeypatch):
    """ask(push, grid=ReadingGrid) -> ({place: reply}, the SuperLink) of three nodes, one of which lies."""
    monkeypatch.setattr(reading, "PAUSE", 0.01)

    def exchange(push, grid=ReadingGrid, timeout=10.0):
        link = SuperLink(3)

        def answer(node, message):
            place = link.nodes.index(node)
            honest = RecordDict({"n": ConfigRecord({"place": place})})
            push(link, message, honest) if place == LIED else link.reply(message, honest)

        link.answer = answer
        messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in link.nodes]
        replies = grid(link.grid).send_and_receive(messages, timeout=timeout)
        asked = {message.metadata.message_id: place for place, message in enumerate(messages)}
        return {asked.get(reply.metadata.reply_to_message_id): reply for reply in replies}, link

    return exchange


def honest_ones(replies):
    return {place: reply.content["n"]["place"] for place, reply in replies.items() if reply.has_content()}


@pytest.mark.parametrize(("push", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_reply_that_cannot_be_read_is_an_error_and_the_others_arrive(ask, push, words):
    replies, link = ask(push)
    assert honest_ones(replies) == {0: 0, 2: 2}
    assert words in (replies[LIED].error.reason or "no reason was given")
    assert replies[LIED].metadata.src_node_id == link.nodes[LIED]


@pytest.mark.parametrize("push", HARMLESS.values(), ids=HARMLESS)
def test_a_reply_answers_what_the_superlink_says_and_not_what_it_says_itself(ask, push):
    replies, link = ask(push)
    assert honest_ones(replies) == {0: 0, 1: 1, 2: 2}
    assert replies[LIED].metadata.src_node_id == link.nodes[LIED]


@pytest.mark.parametrize("kind", ["a body that is no protobuf", "a record as content", "a RecordDict that is no JSON"])
def test_flower_s_own_grid_breaks_on_such_replies(ask, kind):
    with pytest.raises(Exception):  # noqa: B017  whatever its reader raises
        ask(UNREADABLE[kind][0], grid=lambda grid: grid)


def test_parts_that_are_never_uploaded_hold_nobody_up_and_are_an_error_when_their_time_is_over(ask):
    replies, _ = ask(pushed([made("Message", [], b"late")], upload=False), timeout=0.3)
    assert honest_ones(replies) == {0: 0, 2: 2} and LIED not in replies

    def late(link, request, honest):
        pushed([made("Message", [], b"late")], upload=False)(link, request, honest)
        for session in link.state._object_push_sessions.values():
            session.expires_at -= timedelta(hours=1)

    replies, _ = ask(late)
    assert "must be uploaded, and in time" in replies[LIED].error.reason


def test_what_the_superlink_cannot_serve_is_one_node_s_error(ask):
    def broken(link, request, honest):
        get_object = link.state.get_object
        link.state.get_object = lambda run_id, key: 1 / 0 if key == name(EMPTY) else get_object(run_id, key)
        holding(EMPTY)(link, request, honest)

    replies, _ = ask(broken)
    assert honest_ones(replies) == {0: 0, 2: 2}
    assert "the SuperLink must be able to hand a reply on, got HTTPStatusError" in replies[LIED].error.reason


def test_a_superlink_that_is_gone_ends_the_run(ask):
    def gone(link, request, honest):
        raise httpx.ConnectError("gone")

    with pytest.raises(httpx.ConnectError):
        ask(gone)


def test_an_edit_is_read_where_the_run_has_one_so_large_and_nothing_larger(ask):
    def edit(link, request, _):
        link.reply(request, RecordDict({"arrays": ArrayRecord({"edit": Array(np.zeros(1_200_000, np.float32))})}))

    def knowing(numbers):
        def grid(inner):
            known = ReadingGrid(inner)
            known.numbers = numbers
            return known

        return grid

    assert "must have at most" in ask(edit, grid=knowing(50_000))[0][LIED].error.reason
    assert ask(edit, grid=knowing(1_200_000))[0][LIED].content["arrays"]["edit"].numpy().size == 1_200_000


# The server's whole run on such nodes


@pytest.fixture
def serve(settings, monkeypatch):
    """serve({message type: push}) -> report.json of a run on four devices, one of which lies."""
    monkeypatch.setattr(page, "write_page", lambda content, path: None)
    monkeypatch.setattr(report, "git_commit", lambda: "unknown")
    monkeypatch.setattr(reading, "PAUSE", 0.01)

    def served(lies):
        link, four = SuperLink(4), settings(**{**FOUR, "fraction": 1.0, "max_items": 0})
        canned, nodes = Canned(four), sorted(link.nodes)
        link.identify()

        def answer(node, message):
            place = nodes.index(node)
            honest = canned.honest(message, place)
            lie = lies.get(message.metadata.message_type) if place == LIED else None
            lie(link, message, honest) if lie else link.reply(message, honest)

        link.answer = answer
        run(link.grid, four, four.run_folder(7))
        return written(four)

    return served


@pytest.mark.parametrize(("push", "words"), READABLE.values(), ids=READABLE)
def test_what_flower_can_read_is_screened(serve, push, words, capsys):
    told = serve({"train": push})
    (error,) = told["errors"]
    assert (error["phase"], error["user"]) == ("stage1", USERS[LIED]) and words in error["reason"]
    assert told["stopped"] is None and told["rounds"][0]["users"] == 3
    assert not any("\x1b" in line or line.startswith("error:") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("kind", ["query.hello", "train", "query.adopt", "train.personalize", "evaluate"])
def test_in_any_phase_a_reply_that_cannot_be_read_is_that_nodes_error_and_the_run_goes_on(serve, kind):
    told = serve({kind: UNREADABLE["a record as content"][0]})
    (error,) = told["errors"]
    assert READ in error["reason"] and told["stopped"] is None
    assert [user["user_id"] for user in told["users"] if user["user_id"] != USERS[LIED]] == USERS[:1] + USERS[2:]
