"""Scores, against hand computations, `rouge_score` itself, and the textbook formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from fed.lamp import metrics
from fed.lamp.tasks import get_task

NEWS, STARS, TWEETS = get_task("LaMP_2N"), get_task("LaMP_3"), get_task("LaMP_7")


def score(task, golds, predictions):
    return metrics.scores(task, metrics.statistics(task, golds, predictions))


def test_accuracy_and_macro_f1_over_all_fifteen_labels():
    golds = ["crime", "crime", "travel", "women"]
    predictions = ["crime", "travel", "travel", "sports"]
    # crime: 2*1/(2+1) = 2/3; travel: 2*1/(1+2) = 2/3; women, sports and the eleven absent ones: 0
    assert score(NEWS, golds, predictions) == pytest.approx({"accuracy": 2 / 4, "f1": (2 / 3 + 2 / 3) / 15})


def test_labels_are_stripped_but_case_and_unknown_answers_count_as_wrong():
    golds = ["crime", "crime", "crime"]
    # one hit; "Crime" and "a crime" are no label: crime: 2*1/(3+1) = 1/2
    assert score(NEWS, golds, [" crime\n", "Crime", "a crime"]) == pytest.approx({"accuracy": 1 / 3, "f1": 0.5 / 15})


def test_perfect_answers_of_one_label_do_not_make_a_perfect_macro_f1():
    assert score(NEWS, ["crime"], ["crime"]) == pytest.approx({"accuracy": 1.0, "f1": 1 / 15})


@given(st.lists(st.tuples(st.sampled_from(NEWS.labels), st.sampled_from((*NEWS.labels, "none"))), min_size=1))
def test_macro_f1_is_the_mean_of_precision_recall_f1s(pairs):
    def f1(label):
        hit = sum(g == p == label for g, p in pairs)
        predicted, gold = sum(p == label for _, p in pairs), sum(g == label for g, _ in pairs)
        precision, recall = hit / predicted if predicted else 0, hit / gold if gold else 0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0

    golds, predictions = zip(*pairs, strict=True)
    assert score(NEWS, golds, predictions)["f1"] == pytest.approx(sum(map(f1, NEWS.labels)) / 15)


def test_mae_and_rmse_of_ratings():
    # errors 0, 1, -2
    assert score(STARS, ["3", "4", "5"], ["3", "5.0", " 3 "]) == pytest.approx({"mae": 1.0, "rmse": math.sqrt(5 / 3)})


@pytest.mark.parametrize(("gold", "taken_for"), [("1", 5), ("2", 5), ("3", 5), ("4", 1), ("5", 1)])
@pytest.mark.parametrize("answer", ["", "five", "4 stars", "nan", "inf", "1e999", "-1e200"])
def test_a_rating_that_is_no_number_counts_as_the_farthest_extreme(gold, taken_for, answer):
    # |1 - 3| > |5 - 3| is false, so LaMP's evaluator takes 5 for a gold of 3
    assert score(STARS, [gold], [answer])["mae"] == abs(taken_for - int(gold))


def test_rouge_is_the_plain_mean_of_rouge_scores_f_measures_without_a_stemmer():
    golds = ["the cats are running ", "hello world", "Ünï code", "x"]
    predictions = [" the cat ran home", "world hello", "uni code", ""]
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    each = [scorer.score(g.strip(), p.strip()) for g, p in zip(golds, predictions, strict=True)]
    got = score(TWEETS, golds, predictions)
    for kind in ("rouge1", "rougeL"):
        assert got[kind] == pytest.approx(sum(one[kind].fmeasure for one in each) / 4)
    assert got["rouge1"] != got["rougeL"]


def test_rouge_by_hand():
    # 2 of 4 and 3 words shared: P = 2/3, R = 2/4; in order only "a b": the same; reversed: longest is 1
    assert score(TWEETS, ["a b c d"], ["a b e"]) == pytest.approx({"rouge1": 4 / 7, "rougeL": 4 / 7})
    assert score(TWEETS, ["a b c d"], ["b a e"]) == pytest.approx({"rouge1": 4 / 7, "rougeL": 2 / 7})


@pytest.mark.parametrize("task", [NEWS, STARS, TWEETS], ids=lambda task: task.name)
@given(data=st.data())
def test_merged_users_score_as_if_all_answers_were_in_one_place(task, data):
    answers = st.sampled_from(task.labels or ("lol so good", "so good smh", "nothing"))
    users = data.draw(st.lists(st.lists(st.tuples(answers, answers), max_size=4), min_size=1, max_size=5))
    parts = [metrics.statistics(task, [g for g, _ in user], [p for _, p in user]) for user in users]
    flat = [pair for user in users for pair in user]
    merged = metrics.merge(parts)
    assert merged == metrics.merge(reversed(parts))
    assert merged == pytest.approx(metrics.statistics(task, [g for g, _ in flat], [p for _, p in flat]))
    if flat:
        assert metrics.scores(task, merged) == pytest.approx(score(task, *zip(*flat, strict=True)))


def test_statistics_are_flat_floats_with_a_count_and_the_same_keys_for_any_answers():
    for task in (NEWS, STARS, TWEETS):
        gold = task.labels[0] if task.labels else "a"
        one, none = metrics.statistics(task, [gold], [gold]), metrics.statistics(task, [], [])
        assert one.keys() == none.keys()
        assert all(type(value) is float for value in (*one.values(), *none.values()))
        assert (one["count"], none["count"]) == (1.0, 0.0)


def test_scoring_nothing_is_refused():
    with pytest.raises(ValueError, match="LaMP_7 must have at least one answer to score; got a count of 0"):
        metrics.scores(TWEETS, metrics.statistics(TWEETS, [], []))
    with pytest.raises(ValueError, match="at least one answer"):
        metrics.scores(TWEETS, metrics.merge([]))


def test_unpaired_answers_and_unknown_golds_are_refused():
    with pytest.raises(ValueError, match="must pair up; got 2 and 1"):
        metrics.statistics(TWEETS, ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="a gold of LaMP_3 must be one of 1, 2, 3, 4, 5; got '6'"):
        metrics.statistics(STARS, ["6"], ["5"])


@given(
    st.lists(
        st.tuples(st.sampled_from(NEWS.labels[:4]), st.sampled_from((*NEWS.labels, "Crime", "", "none"))), min_size=1
    )
)
def test_accuracy_and_macro_f1_are_scikit_learns_over_all_labels_also_absent_ones(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    golds, predictions = map(list, zip(*pairs, strict=True))
    expected = {
        "accuracy": sklearn.accuracy_score(golds, predictions),
        "f1": sklearn.f1_score(golds, predictions, labels=list(NEWS.labels), average="macro", zero_division=0),
    }
    assert score(NEWS, golds, predictions) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from(STARS.labels), st.sampled_from(("1", "2.5", " 4", "x", "5"))), min_size=1))
def test_mae_and_rmse_are_scikit_learns_with_the_farthest_extreme_for_no_number(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    golds = [float(gold) for gold, _ in pairs]
    taken = [(1.0 if gold > 3 else 5.0) if p == "x" else float(p) for gold, (_, p) in zip(golds, pairs, strict=True)]
    expected = {
        "mae": sklearn.mean_absolute_error(golds, taken),
        "rmse": sklearn.mean_squared_error(golds, taken) ** 0.5,
    }
    assert score(STARS, *zip(*pairs, strict=True)) == pytest.approx(expected)
