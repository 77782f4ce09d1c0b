"""What stage 2 learns from where a history has no inputs: bare rows, or pairs with the base's own plain wordings."""

from __future__ import annotations

import pytest

from clients.device.node_config import NodeConfig
from clients.node import Node
from fed.lamp.tasks import get_task
from fed.settings.methods import METHODS
from tests.integration.in_process import RUN_ID, federate

TASK = get_task("LaMP_7")


@pytest.fixture
def node(settings, bare_tweets, talkative_base):
    """node(method="oppu", …) -> the only node of a run on bare tweets with history-rows = "pairs"."""

    def make(**changes):
        here = {"data": bare_tweets, "base_model": talkative_base, "history_rows": "pairs", **changes}
        return Node(settings(**here), NodeConfig(part=0, parts=1), RUN_ID)

    return make


def prompts(node, rows):
    return [node.base.tokenizer.decode(row.prompt) for row in rows]


def test_bare_rows_are_the_cue_and_pairs_are_in_the_very_form_of_a_query(node):
    bare, pairs = node(history_rows="bare"), node()
    user = pairs.roster.stage2[0]
    before, after = bare.stage2_rows(user).rows, pairs.stage2_rows(user).rows
    assert set(prompts(bare, before)) == {"tweet:"}
    assert [row.completion for row in before] == [row.completion for row in after]
    for prompt in prompts(pairs, after):
        assert prompt.startswith(TASK.instruction) and prompt.endswith("\ntweet:")
        assert len(prompt) > len(TASK.instruction) + len("\ntweet:")
    assert pairs.stage1_rows(pairs.roster.stage1[0]) == bare.stage1_rows(bare.roster.stage1[0])
    assert pairs.test_user(user) == bare.test_user(user)  # the queries
    assert pairs.sizes() == bare.sizes()


def test_all_methods_get_the_same_rows_and_the_base_writes_them_once(node, monkeypatch):
    first = node()
    user = first.roster.stage2[0]
    rows = first.stage2_rows(user).rows
    monkeypatch.setattr("fed.prompts.plain_wording.generate", None)  # to be called by nobody again
    for method in METHODS:
        assert node(method=method).stage2_rows(user).rows == rows
    for other in first.roster.stage2:
        node().stage2_rows(other)  # written with the first user's, in shared batches


def test_held_out_items_are_asked_by_their_wordings(node):
    bare, pairs = node(history_rows="bare", held_out=2), node(held_out=2)
    user = pairs.roster.stage2[0]
    before, after = bare.test_user(user), pairs.test_user(user)
    assert [query.gold for query in before.queries] == [query.gold for query in after.queries]
    for query, prompt in zip(after.queries, prompts(pairs, after.rows), strict=True):
        assert query.input != TASK.instruction and prompt == f"{query.input}\ntweet:"
    assert {query.input for query in before.queries} == {TASK.instruction}


def test_a_row_with_a_wording_retrieves_from_the_items_before_it(node):
    alone, after = node(max_length=1024), node(max_length=1024, retrieved=1)
    user = alone.roster.stage2[0]
    tweets = [item["text"] for item in alone.corpus.user(user).profile]
    plain, more = prompts(alone, alone.stage2_rows(user).rows), prompts(after, after.stage2_rows(user).rows)
    for place, (short, long) in enumerate(zip(plain, more, strict=True), start=len(tweets) - len(plain)):
        assert long.endswith(f"\n\n{short}")
        assert long.removesuffix(f"\n\n{short}").removeprefix("tweet: ") in tweets[:place]


def test_cohort_all_divides_the_queries_by_the_data_alone(node):
    bare, pairs = node(history_rows="bare", cohorts="all"), node(cohorts="all")
    user = pairs.roster.stage2[0]
    pairs.stage2_rows(user)
    assert pairs.stage1_rows(user) == bare.stage1_rows(user) and pairs.test_user(user) == bare.test_user(user)


def test_a_history_with_inputs_gets_nothing_written(settings):
    with_inputs = Node(settings(history_rows="pairs"), NodeConfig(part=0, parts=1), RUN_ID)
    plain = Node(settings(), NodeConfig(part=0, parts=1), RUN_ID)
    for user in plain.roster.stage2:
        assert with_inputs.stage2_rows(user) == plain.stage2_rows(user)
    assert not list(with_inputs.vault.root.glob("*/personal.plain.*"))


def test_wordings_of_no_use_are_told_in_one_line_and_their_rows_are_bare(settings, bare_tweets, tiny_base, capsys):
    node = Node(
        settings(data=bare_tweets, base_model=str(tiny_base), history_rows="pairs"), NodeConfig(part=0, parts=1), RUN_ID
    )
    head = node.base.model.lm_head.weight
    before = head.detach().clone()
    try:
        head.data.zero_()  # every token as likely: the first, which ends the text
        rows = [prompts(node, node.stage2_rows(user).rows) for user in node.roster.stage2]
    finally:
        head.data.copy_(before)
    count = sum(map(len, rows))
    assert count > 10 and {prompt for prompts in rows for prompt in prompts} == {"tweet:"}
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert told == [f"warning: {count} of {count} plain wordings are empty or copies; their rows stay bare"]


def test_pairs_train_other_private_edits_than_bare_rows_and_leave_stage_1_as_it_is(
    settings, bare_tweets, talkative_base, tmp_path
):
    def run(rows):
        here = {"data": bare_tweets, "base_model": talkative_base, "output_dir": str(tmp_path / rows)}
        return federate(settings(history_rows=rows, max_new_tokens=0, stage2_positions="answer", **here), 2)[0]

    bare, pairs = run("bare"), run("pairs")
    for before, after in zip(bare["users"], pairs["users"], strict=True):
        for arm in ("base", "stage1"):
            assert before["arms"][arm] == after["arms"][arm]
        assert before["arms"]["stage1+2"] != after["arms"]["stage1+2"]
