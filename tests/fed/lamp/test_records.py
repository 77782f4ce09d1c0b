"""Readers: the development data, LaMP's own layout, and every rule that bad data breaks."""

import copy
import json
import sys
from pathlib import Path

import pytest

from fed.lamp.records import Query, RecordError, open_corpus
from fed.lamp.tasks import TASKS, get_task
from tests.fed.lamp.folders import ITEMS, a_user, write_lamp, write_oppu

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def a_question(question_id):
    return {"id": question_id, "input": "i", "profile": [{"id": "1", "text": "t"}]}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.mark.parametrize("name", TASKS)
def test_every_development_folder_opens_and_counts_as_plain_json_does(name, cache):
    if not (DATA / name).is_dir():
        pytest.skip("no development data on this machine")
    task = get_task(name)
    corpus = open_corpus(str(DATA / name), task, cache_dir=cache)
    assert corpus.task is task
    for cohort, file in (("others", "user_others.json"), ("test", "user_top_100_history.json")):
        plain = json.loads((DATA / name / file).read_text("utf-8"))
        assert corpus.cohorts[cohort] == tuple(sorted(user["user_id"] for user in plain))
        for raw in plain:
            assert corpus.sizes(raw["user_id"]) == (len(raw["profile"]), len(raw["query"]))
            user = corpus.user(raw["user_id"])
            assert user.user_id == raw["user_id"]
            assert user.queries == tuple(Query(**query) for query in raw["query"])
            kept = ("id", *filter(None, (task.source_field,)), task.target_field)
            assert user.profile == tuple({key: item[key] for key in kept} for item in raw["profile"])


def test_a_tweets_plain_sentence_is_kept_where_an_item_brings_it(tmp_path, cache):
    user = a_user("b")
    user["profile"][1]["input"] = "the plain sentence"
    source = write_oppu(tmp_path / "data", [a_user("a")], [user])
    items = open_corpus(source, get_task("LaMP_7"), cache_dir=cache).user("b").profile
    assert items == ({"id": "0", "text": "t"}, {"id": "1", "text": "t", "input": "the plain sentence"})


@pytest.mark.parametrize(
    ("dates", "order"),
    [
        (["2014-05-12", "2009-01-31", "2014-05-11"], "120"),
        (["2014-05-12", "2014-05-12", "2014-05-11"], "201"),  # items of one date as the file has them
        ([2016, 2006, "2011"], "120"),
        (["2014-05", "2014", "2013-12-31"], "210"),
        (["2014-05-12T23:30:00-02:00", "2014-05-13 01:00:00", "2014-05-12T23:59Z"], "210"),
        (["2014-05-12", None, "2014-05-11"], "012"),  # one has none: as the file has them
        (["2014-05-12", "May 11, 2014", "2014-05-11"], "012"),
        (["2014-05-12", True, ""], "012"),
    ],
)
@pytest.mark.parametrize("layout", [write_oppu, write_lamp])
def test_a_history_is_in_the_order_of_its_dates_where_every_item_has_one(tmp_path, cache, layout, dates, order):
    items = [{"id": str(n), "text": "t"} | ({} if date is None else {"date": date}) for n, date in enumerate(dates)]
    if layout is write_oppu:
        source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b") | {"profile": items}])
    else:
        splits = {name: ([a_question(f"{name}")], [{"id": name, "output": "w"}]) for name in ("train", "dev")}
        splits["dev"][0][0]["profile"] = items
        source = write_lamp(tmp_path / "data", splits)
    corpus = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    (user,) = corpus.cohorts["test"]
    assert "".join(item["id"] for item in corpus.user(user).profile) == order


def test_the_parent_folder_opens_too(tmp_path, cache):
    write_oppu(tmp_path / "data" / "LaMP_7", [a_user("a")], [a_user("b")])
    assert open_corpus(str(tmp_path / "data"), get_task("LaMP_7"), cache_dir=cache).user("b").user_id == "b"


def test_oppus_own_folder_names_are_known(tmp_path, cache):
    write_oppu(tmp_path / "tweet_paraphrase", [a_user("a")], [a_user("b")])
    assert open_corpus(str(tmp_path), get_task("LaMP_7"), cache_dir=cache).cohorts["others"] == ("a",)


def test_oppus_separate_labels_stand_in_for_missing_golds(tmp_path, cache):
    user = a_user("b")
    del user["query"][0]["gold"]
    source = write_oppu(tmp_path / "data", [a_user("a")], [user])
    labels = {"task": "LaMP_7", "golds": [{"id": "q0", "output": "l0"}, {"id": "q1", "output": "l1"}]}
    (tmp_path / "data" / "user_top_100_history_label.json").write_text(json.dumps(labels))
    corpus = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    assert [query.gold for query in corpus.user("b").queries] == ["l0", "w"]


def test_json_lines_hold_one_user_a_line(tmp_path, cache):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("c"), a_user("b")], suffix=".jsonl")
    assert open_corpus(source, get_task("LaMP_7"), cache_dir=cache).cohorts["test"] == ("b", "c")


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("as_list", [True, False])
def test_lamps_own_layout_makes_each_question_a_user(tmp_path, cache, split, as_list):
    splits = {
        "train": (
            [a_question("10"), a_question(11)],
            [{"id": 11, "output": "x"}, {"id": "10", "output": "y"}],
        ),
        split: ([a_question("20")], [{"id": "20", "output": "z"}]),
    }
    source = write_lamp(tmp_path / "data", splits, as_list)
    corpus = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    assert corpus.cohorts == {"others": ("10", "11"), "test": ("20",)}
    assert corpus.user("11").queries == (Query("11", "i", "x"),)
    assert corpus.user("20").profile == ({"id": "1", "text": "t"},)
    assert corpus.sizes("20") == (1, 1)


def test_lamps_dev_split_is_preferred_to_its_test_split(tmp_path, cache):
    splits = {s: ([a_question(s)], [{"id": s, "output": "x"}]) for s in ("train", "dev", "test")}
    source = write_lamp(tmp_path / "data", splits)
    assert open_corpus(source, get_task("LaMP_7"), cache_dir=cache).cohorts["test"] == ("dev",)


def test_lamps_name_for_both_lamp_2_tasks_is_accepted(tmp_path, cache):
    question = {"id": "1", "input": "i", "profile": [{"id": "1", **ITEMS["LaMP_2N"]}]}
    splits = {split: ([{**question, "id": split}], [{"id": split, "output": "women"}]) for split in ("train", "dev")}
    source = write_lamp(tmp_path / "data", splits, task="LaMP_2")
    corpus = open_corpus(source, get_task("LaMP_2N"), cache_dir=cache)
    assert corpus.user("dev").queries[0].gold == "women"


@pytest.mark.parametrize(
    ("questions", "golds", "message"),
    [
        (
            ["1", "2"],
            ["1"],
            r"train_questions.json: record 2 \(user_id '2'\): every question must have a gold",
        ),
        (["1"], ["1", "2"], r"train_outputs.json: every gold must have a question .*; got '2'"),
        (["1"], ["1", "1"], r"train_outputs.json: record 2: every gold must have an id of its own; got '1'"),
        (["1", "1"], ["1"], r"record 2 \(user_id '1'\): every user id must occur once, and .* record 1"),
    ],
)
def test_questions_and_golds_must_match_both_ways(tmp_path, cache, questions, golds, message):
    splits = {
        "train": ([a_question(one) for one in questions], [{"id": one, "output": "x"} for one in golds]),
        "dev": ([a_question("9")], [{"id": "9", "output": "x"}]),
    }
    with pytest.raises(RecordError, match=message):
        open_corpus(write_lamp(tmp_path / "data", splits), get_task("LaMP_7"), cache_dir=cache)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"task": "LaMP_4", "golds": []}, "the outputs' 'task' must be LaMP_7; got 'LaMP_4'"),
        ({"task": "LaMP_7"}, "needs the field 'golds'"),
        ("x", "must be a list of"),
        ([{"id": "1"}], "record 1: a gold needs the field 'output'"),
        ([{"output": "1"}], "record 1: a gold needs the field 'id'"),
        ([7], "record 1: a gold must be a JSON object; got 7"),
    ],
)
def test_bad_outputs_are_refused(tmp_path, cache, outputs, message):
    splits = {"train": ([a_question("1")], []), "dev": ([a_question("9")], [{"id": "9", "output": "x"}])}
    source = write_lamp(tmp_path / "data", splits)
    (tmp_path / "data" / "train_outputs.json").write_text(json.dumps(outputs))
    with pytest.raises(RecordError, match=message):
        open_corpus(source, get_task("LaMP_7"), cache_dir=cache)


def put(*path):
    """An edit of a user: the last argument replaces what is at the path; `...` removes it."""

    def edit(user):
        target = user
        for key in path[:-2]:
            target = target[key]
        if path[-1] is ...:
            del target[path[-2]]
        else:
            target[path[-2]] = path[-1]

    return edit


@pytest.mark.parametrize(
    ("task", "edit", "message"),
    [
        (
            "LaMP_7",
            put("user_id", ...),
            r"record 2: a user needs the field 'user_id'; got \['profile', 'query'\]",
        ),
        (
            "LaMP_7",
            put("user_id", None),
            r"record 2: a user's 'user_id' must be a string or an integer; got None",
        ),
        ("LaMP_7", put("user_id", True), r"must be a string or an integer; got True"),
        ("LaMP_7", put("user_id", " "), r"a user's 'user_id' must not be empty"),
        (
            "LaMP_7",
            put("user_id", "a"),
            r"every user id must occur once, and user_others.json record 1 has it",
        ),
        ("LaMP_7", put("user_id", "b"), r"every user id must occur once, and .*history.json record 1 has it"),
        ("LaMP_7", put("profile", ...), r"\(user_id 'x'\): a user needs the field 'profile'"),
        ("LaMP_7", put("profile", {}), r"a user's 'profile' must be a list; got \{\}"),
        ("LaMP_7", put("profile", []), r"a user's profile must hold at least one item; got \[\]"),
        ("LaMP_7", put("profile", 1, "t"), r"profile item 2 must be a JSON object; got 't'"),
        ("LaMP_7", put("profile", 0, "id", ...), r"profile item 1 needs the field 'id'; got \['text'\]"),
        (
            "LaMP_7",
            put("profile", 0, "id", 1),
            r"every profile item of a user must have an id of its own; got '1'",
        ),
        ("LaMP_7", put("profile", 1, "text", ...), r"profile item 2 needs the field 'text'; got \['id'\]"),
        ("LaMP_7", put("profile", 1, "text", 3), r"profile item 2's 'text' must be a string; got 3"),
        (
            "LaMP_7",
            put("profile", 1, "text", " \n"),
            r"profile item 2's 'text' must not be empty; got ' \\n'",
        ),
        ("LaMP_7", put("profile", 1, "text", "a\ud83d"), r"'text' must be valid Unicode; got '\\ud83d'"),
        ("LaMP_4", put("profile", 1, "title", ...), r"profile item 2 needs the field 'title'"),
        (
            "LaMP_2N",
            put("profile", 1, "category", "cats"),
            r"must be a label of LaMP_2N; got 'cats'; use one of",
        ),
        ("LaMP_2N", put("profile", 1, "category", 3), r"'category' must be a string; got 3"),
        ("LaMP_3", put("profile", 1, "score", 6), r"'score' must be a label of LaMP_3; got '6'"),
        ("LaMP_3", put("profile", 1, "score", True), r"'score' must be a string; got True"),
        ("LaMP_3", put("profile", 1, "score", 4.0), r"'score' must be a string; got 4.0"),
        ("LaMP_7", put("query", ...), r"a user needs the field 'query'"),
        ("LaMP_7", put("query", []), r"a test user must have at least one query; got \[\]"),
        (
            "LaMP_7",
            put("query", 0, "id", "q1"),
            r"every query of a user must have an id of its own; got 'q1'",
        ),
        ("LaMP_7", put("query", 0, "input", ...), r"query 1 needs the field 'input'"),
        ("LaMP_7", put("query", 0, "input", ["i"]), r"query 1's 'input' must be a string; got \['i'\]"),
        ("LaMP_7", put("query", 0, "gold", ""), r"query 1's 'gold' must not be empty; got ''"),
        ("LaMP_7", put("query", 0, "gold", ...), r"query 1 needs the field 'gold'"),
        (
            "LaMP_2N",
            put("query", 0, "gold", "Travel"),
            r"query 1's 'gold' must be a label of LaMP_2N; got 'Travel'",
        ),
        ("LaMP_3", put("query", 0, "gold", "9"), r"query 1's 'gold' must be a label of LaMP_3; got '9'"),
    ],
)
def test_a_bad_record_is_refused_with_its_file_number_and_rule(tmp_path, cache, task, edit, message):
    bad = a_user("x", task)
    edit(bad)
    source = write_oppu(tmp_path / "data", [a_user("a", task)], [a_user("b", task), bad])
    with pytest.raises(RecordError, match=message) as caught:
        open_corpus(source, get_task(task), cache_dir=cache)
    assert str(caught.value).startswith(f"{source}/user_top_100_history.json: record 2")
    assert "\n" not in str(caught.value)
    assert not any(cache.iterdir())  # nothing half-built is left


def test_broken_json_and_foreign_bytes_are_refused_through_the_corpus(tmp_path, cache):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    for text in (b'[{"user_id" 1}]', b'[{"user_id": "\xff"}]'):
        (tmp_path / "data" / "user_others.json").write_bytes(text)
        with pytest.raises(RecordError, match="user_others.json: record 1"):
            open_corpus(source, get_task("LaMP_7"), cache_dir=cache)


def test_ids_and_ratings_may_be_integers_and_become_strings(tmp_path, cache):
    source = write_oppu(tmp_path / "data", [a_user(1, "LaMP_3")], [a_user(2, "LaMP_3")])
    corpus = open_corpus(source, get_task("LaMP_3"), cache_dir=cache)
    assert corpus.cohorts == {"others": ("1",), "test": ("2",)}
    assert corpus.user("2").profile[0] == {"id": "0", "text": "t", "score": "4"}
    assert corpus.user("2").queries[0] == Query("q0", "i0", "5")


def test_others_may_have_no_queries(tmp_path, cache):
    quiet = a_user("a") | {"query": []}
    source = write_oppu(tmp_path / "data", [quiet], [a_user("b")])
    assert open_corpus(source, get_task("LaMP_7"), cache_dir=cache).sizes("a") == (2, 0)


def test_opening_a_folder_without_datasets_says_what_to_install(tmp_path, cache, monkeypatch):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", None)
    with pytest.raises(ImportError, match=r"pip install 'perfit-fed\[sim\]'"):
        open_corpus(source, get_task("LaMP_7"), cache_dir=cache)


def test_a_missing_folder_an_empty_one_and_another_tasks_are_refused(tmp_path, cache):
    task = get_task("LaMP_7")
    with pytest.raises(
        ValueError, match="must be 'synthetic' or an existing folder; got '.*nowhere'; correct .* -c 'data="
    ):
        open_corpus(str(tmp_path / "nowhere"), task, cache_dir=cache)
    (tmp_path / "user_others.json").write_text("[]")
    with pytest.raises(ValueError, match=r"must hold user_others.json .* got \['user_others.json'\]; add"):
        open_corpus(str(tmp_path), task, cache_dir=cache)
    source = write_oppu(tmp_path / "LaMP_4", [a_user("a")], [a_user("b")])
    with pytest.raises(ValueError, match="the folder must hold LaMP_7; got .*, named for LaMP_4"):
        open_corpus(source, task, cache_dir=cache)


def test_an_unknown_user_is_refused(tmp_path, cache):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    corpus = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    for ask in (corpus.user, corpus.sizes):
        with pytest.raises(ValueError, match="must be in its cohorts; got 'nobody'"):
            ask("nobody")


def test_a_users_lists_are_not_shared_between_loads(tmp_path, cache):
    corpus = open_corpus(write_oppu(tmp_path / "d", [a_user("a")], [a_user("b")]), get_task("LaMP_7"), cache_dir=cache)
    before = copy.deepcopy(corpus.user("b"))
    corpus.user("b").profile[0]["text"] = "changed"
    assert corpus.user("b") == before
