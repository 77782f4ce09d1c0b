"""The four arms of a user's test, with a reader whose every answer is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.answering import evaluation
from fed.answering.reader import Loss, Reader
from fed.forward.batching import Row
from fed.lamp.tasks import get_task
from fed.lamp.user import Query

TASK, TAGS = get_task("LaMP_7"), get_task("LaMP_2M")
EOS = 0
NO_END = {"nll_eos": 0.0, "eos_tokens": 0.0}


class FakeReader(Reader):
    """Losses told by the row's first token and the arm; answers told by whose private part is asked for."""

    def __init__(self, answers=None):
        self.answers = answers or {}
        self.scored, self.continued, self.stops = [], [], set()

    def losses(self, questions, on_rows=None):
        self.scored += questions
        if on_rows:
            on_rows(len(questions))
        arm = {(False, None): 1.0, (True, None): 2.0}
        values = [
            q.row.prompt[0] * arm.get((q.collective, q.personal), 10.0 + ord(q.personal or "0")) for q in questions
        ]
        # The end costs a fourth of a row's loss where it has one.
        ends = [q.row.completion[-1] == EOS for q in questions]
        return [
            Loss(value, len(q.row.completion), value / 4 * end, int(end))
            for q, value, end in zip(questions, values, ends, strict=True)
        ]

    def generate(self, questions, *, max_new_tokens, stop, on_rows=None):
        self.continued += questions
        self.stops.add((max_new_tokens, stop))
        if on_rows:
            on_rows(len(questions))
        return [self.answers.get((q.personal, q.collective), "none") for q in questions]


def user(name, numbers, gold="gold"):
    queries = [Query(f"{name}{n}", "input", gold) for n in numbers]
    return evaluation.TestUser(name, queries, [Row((n,), (7,) * n) for n in numbers])


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([], {}),
        (["a"], {"a": None}),
        (["a", "b"], {"a": "b", "b": "a"}),
        (["c", "a", "b"], {"a": "b", "b": "c", "c": "a"}),
    ],
)
def test_partners_are_neighbours_in_a_ring_by_id(users, expected):
    assert evaluation.swap_partners(users) == expected


@given(st.sets(st.text(max_size=3), min_size=2))
def test_everybody_lends_a_part_once_and_nobody_to_itself(users):
    partners = evaluation.swap_partners(list(users))
    assert set(partners) == set(partners.values()) == users
    assert all(user != partner for user, partner in partners.items())


def test_the_sums_of_each_arm_are_those_of_its_own_questions():
    reader, seen = FakeReader(), []
    found = evaluation.evaluate(
        TASK, reader, [user("b", [5]), user("a", [2, 3])], ["b", "a"], max_new_tokens=0, on_rows=seen.append
    )
    a, b = 10.0 + ord("a"), 10.0 + ord("b")
    assert found == {
        "b": {
            "base": {"nll": 5.0, "tokens": 5.0, **NO_END},
            "stage1": {"nll": 10.0, "tokens": 5.0, **NO_END},
            "stage1+2": {"nll": 5 * b, "tokens": 5.0, **NO_END},
            "swapped": {"nll": 5 * a, "tokens": 5.0, **NO_END},
        },
        "a": {
            "base": {"nll": 5.0, "tokens": 5.0, **NO_END},
            "stage1": {"nll": 10.0, "tokens": 5.0, **NO_END},
            "stage1+2": {"nll": 5 * a, "tokens": 5.0, **NO_END},
            "swapped": {"nll": 5 * b, "tokens": 5.0, **NO_END},
        },
    }
    assert tuple(found["a"]) == evaluation.ARMS
    assert reader.continued == [] and sum(seen) == 3 * 4


def test_answers_are_scored_against_the_users_own_golds_arm_by_arm():
    answers = {
        (None, False): "comedy",
        (None, True): "sci-fi",
        ("a", True): " romance\n",
        ("b", True): "Romance",
    }
    reader, seen = FakeReader(answers), []
    found = evaluation.evaluate(
        TAGS,
        reader,
        [user("a", [1, 2], gold="romance"), user("b", [1], gold="sci-fi")],
        ["a", "b"],
        max_new_tokens=8,
        on_rows=seen.append,
    )
    correct = {one: {arm: sums["correct"] for arm, sums in arms.items()} for one, arms in found.items()}
    assert correct == {
        "a": {"base": 0, "stage1": 0, "stage1+2": 2, "swapped": 0},
        "b": {"base": 0, "stage1": 1, "stage1+2": 0, "swapped": 0},
    }
    assert {arms["base"]["count"] for arms in found.values()} == {1.0, 2.0}
    assert found["a"]["stage1"]["predicted/sci-fi"] == 2 and found["a"]["stage1"]["gold/romance"] == 2
    assert found["a"]["stage1"]["nll"] == 2 * (1 + 2)
    assert reader.stops == {(8, "\n")} and reader.continued == reader.scored
    assert sum(seen) == 2 * 3 * 4  # users' queries, arms, losses and answers


def test_a_user_without_a_private_part_has_neither_its_arm_nor_a_partner():
    reader = FakeReader()
    found = evaluation.evaluate(
        TASK, reader, [user("a", [1]), user("b", [1]), user("c", [1])], ["a", "c"], max_new_tokens=0
    )
    assert {one: list(arms) for one, arms in found.items()} == {
        "a": ["base", "stage1", "stage1+2", "swapped"],
        "b": ["base", "stage1"],
        "c": ["base", "stage1", "stage1+2", "swapped"],
    }
    assert found["a"]["swapped"]["nll"] == 10.0 + ord("c") and found["c"]["swapped"]["nll"] == 10.0 + ord("a")
    assert not any(question.personal == "b" for question in reader.scored)


def test_a_user_alone_with_a_private_part_has_no_swapped_arm():
    found = evaluation.evaluate(TASK, FakeReader(), [user("a", [1]), user("b", [1])], ["b"], max_new_tokens=0)
    assert list(found["a"]) == ["base", "stage1"] and list(found["b"]) == ["base", "stage1", "stage1+2"]


def test_partners_come_from_the_users_under_test_alone():
    """The reader may hold more private parts than are tested now."""
    found = evaluation.evaluate(TASK, FakeReader(), [user("a", [1])], ["a", "z"], max_new_tokens=0)
    assert list(found["a"]) == ["base", "stage1", "stage1+2"]


def test_every_query_has_a_draw_of_its_own_and_all_its_arms_share_it():
    reader = FakeReader()
    users = [user("a", [1, 2], gold="romance"), user("b", [1], gold="romance")]
    evaluation.evaluate(TAGS, reader, users, ["a", "b"], max_new_tokens=4)
    names = [question.seed_name for question in reader.continued]
    assert len(names) == 12 and set(names) == {("a", "a1"), ("a", "a2"), ("b", "b1")}


def test_scores_pool_all_tokens_and_are_no_mean_of_users():
    parts = [{"nll": 10.0, "tokens": 5.0}, {"nll": 90.0, "tokens": 15.0}]
    assert evaluation.arm_scores(TASK, parts) == {"loss_per_token": 5.0}  # the mean of users would be 4
    assert parts[0] == {"nll": 10.0, "tokens": 5.0}


def test_scores_have_the_tasks_metrics_where_answers_were_given():
    found = evaluation.evaluate(
        TAGS,
        FakeReader({(None, True): "romance"}),
        [user("a", [1, 3], gold="romance"), user("b", [4], gold="sci-fi")],
        [],
        max_new_tokens=4,
    )
    scores = evaluation.arm_scores(TAGS, [arms["stage1"] for arms in found.values()])
    assert scores["loss_per_token"] == 2 * (1 + 3 + 4) / (1 + 3 + 4)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx((2 * 2 / (2 + 3)) / 15)  # romance: 2 hits, 2 golds, 3 answers; all 15 labels
    assert evaluation.arm_scores(TAGS, []) is None


def test_the_loss_without_eos_leaves_out_the_ends_and_their_losses():
    """Rows of three tokens that cost 4 and 8 nats, a fourth of it their end; one of the four rows has no end."""
    one = user("a", [4, 8])
    ended = evaluation.TestUser("a", one.queries, [Row((4,), (7, 7, EOS)), Row((8,), (7, 7, EOS))])
    cut = evaluation.TestUser("b", one.queries, [Row((4,), (7, 7, 7)), Row((8,), (7, 7, EOS))])
    found = evaluation.evaluate(TASK, FakeReader(), [ended, cut], [], max_new_tokens=0)
    assert found["a"]["base"] == {"nll": 12.0, "tokens": 6.0, "nll_eos": 3.0, "eos_tokens": 2.0}
    assert found["b"]["base"] == {"nll": 12.0, "tokens": 6.0, "nll_eos": 2.0, "eos_tokens": 1.0}
    scores = evaluation.arm_scores(TASK, [arms["base"] for arms in found.values()])
    assert scores == {"loss_per_token": 24 / 12, "loss_per_token_without_eos": (24 - 5) / (12 - 3)}


def test_sums_that_do_not_tell_eos_apart_have_the_loss_with_it_alone():
    assert evaluation.arm_scores(TASK, [{"nll": 10.0, "tokens": 5.0}]) == {"loss_per_token": 2.0}


class Letters:
    """A tokenizer for rows whose tokens are the letters' numbers."""

    eos_token_id = EOS

    def decode(self, tokens):
        return " ".join(chr(token) for token in tokens)


def test_what_can_be_written_of_the_golds_is_counted_once_and_stands_beside_every_arms_answers():
    """Golds of four and of two words; two tokens may be written."""
    queries = [Query("1", "x", "a b c d"), Query("2", "x", "a b")]
    rows = [Row((1,), (*map(ord, "abcd"), EOS)), Row((2,), (*map(ord, "ab"), EOS))]
    users = [evaluation.TestUser("a", queries, rows)]
    found = evaluation.evaluate(TASK, FakeReader(), users, [], max_new_tokens=2, tokenizer=Letters())["a"]
    for arm in ("base", "stage1"):
        assert found[arm]["cut_golds"] == 1.0
        assert found[arm]["reachable_rougeL"] == pytest.approx(2 * 1 * 0.5 / 1.5 + 1)


@pytest.mark.parametrize("without", [{"max_new_tokens": 0, "tokenizer": Letters()}, {"max_new_tokens": 2}])
def test_without_answers_or_a_tokenizer_no_gold_is_counted_as_cut(without):
    found = evaluation.evaluate(TASK, FakeReader(), [user("a", [1])], [], **without)
    assert "cut_golds" not in found["a"]["base"]


def test_labels_have_no_ceiling():
    users = [user("a", [1], gold="romance")]
    found = evaluation.evaluate(TAGS, FakeReader(), users, [], max_new_tokens=2, tokenizer=Letters())
    assert "cut_golds" not in found["a"]["base"]
