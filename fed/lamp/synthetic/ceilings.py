"""What answers would score that know ever more of a synthetic user: the ceilings that a run's arms stand beside.

    copying               the plain sentence of the query itself: what a model gets that repeats its input
    collective register   the sentence in everybody's frame and register, without the user's own words: stage 1's
    ceiling own habits            the tweet as the user most likely writes it: all that can be learned, and no more

`python -m fed.lamp.synthetic.ceilings` prints two users' samples and the ceilings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fed.lamp import metrics
from fed.lamp.cohorts import test_pairs
from fed.lamp.records import open_corpus
from fed.lamp.synthetic.users import USERS, collective_frame, habits_of, make_user, user_ids, write_tweet
from fed.lamp.tasks import Task, get_task
from fed.lamp.user import Query


def ceilings(task: Task, asked: Mapping[str, Sequence[Query]], *, seed: int) -> dict[str, dict[str, float]]:
    """Name -> the scores of the answers that know so much.

    Args:
        task: LaMP_7, the task whose users these are.
        asked: user id -> the queries that were asked.
        seed: of the synthetic users.
    """
    queries = [(user, query) for user, own in asked.items() for query in own]
    golds = [query.gold for _, query in queries]
    plain = [task.query_text(query) for _, query in queries]
    answers = {
        "copying": plain,
        "collective register": [collective_frame(text) for text in plain],
        "own habits": [
            write_tweet(text, habits_of(user, seed=seed)) for (user, _), text in zip(queries, plain, strict=True)
        ],
    }
    return {name: metrics.scores(task, metrics.statistics(task, golds, texts)) for name, texts in answers.items()}


def of_run(
    source: str, task: Task, users: Iterable[str], *, cohorts: str, max_queries: int, held_out: int, seed: int
) -> dict[str, dict[str, float]] | None:
    """The ceilings of what a run asked its users.

    Args:
        source: the run's data; None is returned unless it is synthetic users of LaMP_7, and these, one or more, are
            among them.
        users: who was tested.
        cohorts, max_queries, held_out: which queries they were asked, as `fed.lamp.cohorts.test_pairs` takes them.
        seed: of the synthetic users.
    """
    tested = sorted(users)
    if not tested or task.source_field is not None or source.partition(":")[0] != "synthetic":
        return None
    corpus = open_corpus(source, task, seed=seed)
    if not set(tested) <= {*corpus.cohorts["others"], *corpus.cohorts["test"]}:
        return None
    plan = {"cohorts": cohorts, "max_queries": max_queries, "held_out": held_out}
    pairs = {user: test_pairs(task, corpus.user(user), **plan) for user in tested}  # type: ignore[arg-type]
    return ceilings(task, {user: [query for query, _ in asked] for user, asked in pairs.items()}, seed=seed)


def main(users: int = USERS, seed: int = 0) -> None:
    """Print two users' samples and how much of the golds can be had without knowing the user."""
    task = get_task("LaMP_7")
    for user_id in ("test-0000", "test-0001"):
        user = make_user(user_id, seed=seed)
        print(f"{user_id}: {len(user.profile)} tweets, {len(user.queries)} queries")
        for item in user.profile[:4]:
            print(f"  tweet: {item['text']}")
        for query in user.queries[:2]:
            print(f"  query: {query.input}\n   gold: {query.gold}")
    print(f"ROUGE against the golds of {users} test users, seed {seed}")
    asked = {user_id: make_user(user_id, seed=seed).queries for user_id in user_ids(users)["test"]}
    for name, rouge in ceilings(task, asked, seed=seed).items():
        print(f"  {name:<20} ROUGE-1 {rouge['rouge1']:.3f}  ROUGE-L {rouge['rougeL']:.3f}")


if __name__ == "__main__":
    main()
