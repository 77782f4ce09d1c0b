"""The other tasks' synthetic users: valid records, the same everywhere, with a shared rule and a personal one."""

import pytest

from fed.lamp.records import open_corpus
from fed.lamp.synthetic import tasks as synthetic_tasks
from fed.lamp.synthetic import users as synthetic
from fed.lamp.tasks import TASKS, get_task

OTHERS = [task for task in TASKS.values() if task.source_field is not None]
USERS = [f"test-{n:04d}" for n in range(20)]


def answered(task, user):
    """(text, answer) of every item and query."""
    items = [(item[task.source_field], item[task.target_field]) for item in user.profile]
    return items + [(task.query_text(query), query.gold) for query in user.queries]


@pytest.mark.parametrize("task", OTHERS, ids=lambda task: task.name)
def test_users_are_valid_distinct_and_the_same_for_one_seed(task):
    corpus = open_corpus("synthetic:3", task, seed=2)
    assert {len(ids) for ids in corpus.cohorts.values()} == {3}
    for user_id in corpus.cohorts["test"]:
        user = corpus.user(user_id)
        assert corpus.sizes(user_id) == (len(user.profile), len(user.queries)) == (32, 24)
        pairs = answered(task, user)
        assert len({text for text, _ in pairs}) == 56 and all(text.strip() and answer.strip() for text, answer in pairs)
        assert all(query.input.startswith(task.instruction) for query in user.queries)
        assert not task.labels or {answer for _, answer in pairs} <= set(task.labels)
        assert synthetic_tasks.make_user(task, user_id, seed=2) == user != synthetic_tasks.make_user(task, user_id)
    with pytest.raises(ValueError, match="must be like 'test-0003'"):
        synthetic_tasks.make_user(task, "nobody")


def test_tweets_are_those_of_the_first_synthetic_task():
    assert synthetic_tasks.make_user(get_task("LaMP_7"), "test-0001") == synthetic.make_user("test-0001")


@pytest.mark.parametrize("name", ["LaMP_2N", "LaMP_2M"])
def test_a_text_names_two_labels_and_the_user_chooses_the_favourite(name):
    task, kept, total = get_task(name), 0, 0
    favourites = set()
    for user_id in USERS:
        pairs = answered(task, synthetic_tasks.make_user(task, user_id))
        counts = {label: sum(answer == label for _, answer in pairs) for label in task.labels}
        own = set(sorted(counts, key=counts.__getitem__, reverse=True)[: synthetic_tasks.FAVOURITES])
        favourites.add(frozenset(own))
        for text, answer in pairs:
            assert answer in text
            kept, total = kept + (answer in own), total + 1
    assert len(favourites) == len(USERS) and 0.9 < kept / total < 0.99


def test_ratings_follow_the_words_and_the_users_own_scale():
    task, gaps = get_task("LaMP_3"), {}
    for user_id in USERS:
        for text, answer in answered(task, synthetic_tasks.make_user(task, user_id)):
            words = text.partition("It is ")[2]
            (level,) = {
                n for n, level in enumerate(synthetic_tasks.LEVELS, 1) if any(words.startswith(f"{w},") for w in level)
            }
            gaps.setdefault(user_id, []).append(int(answer) - level)
    means = [sum(own) / len(own) for own in gaps.values()]
    assert any(mean < -0.5 for mean in means) and any(mean > 0.5 for mean in means) and any(mean == 0 for mean in means)
    assert all(set(own) <= {-1, 0, 1} for own in gaps.values())


@pytest.mark.parametrize("name", ["LaMP_4", "LaMP_5"])
def test_a_title_is_the_first_sentence_in_the_users_own_words(name):
    task = get_task(name)
    first, second = (synthetic_tasks.make_user(task, user_id) for user_id in USERS[:2])
    habits = synthetic.habits_of(USERS[0])
    openers = [f", {habits.opener} and" in answer for _, answer in answered(task, first)]
    assert 0.8 < sum(openers) / len(openers) <= 1
    assert sum(f", {habits.opener} and" in answer for _, answer in answered(task, second)) < 5
    text, title = answered(task, first)[0]
    shared = synthetic.collective_register(text.partition(". ")[0] if ". " in text else text)
    assert set(shared.split()) & set(title.split())
