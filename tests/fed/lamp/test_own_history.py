"""A device's own file: plain lines or LaMP's records, read again when it grows, refused without its words."""

import json

import pytest

from fed.lamp import own_history
from fed.lamp.own_history import open_history, read_history
from fed.lamp.parsing import RecordError
from fed.lamp.tasks import get_task
from fed.lamp.user import Query

TWEETS, NEWS = get_task("LaMP_7"), get_task("LaMP_4")


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def plain(tmp_path):
    return tmp_path / "history.jsonl"


@pytest.fixture
def records(tmp_path):
    return tmp_path / "history.json"


def test_plain_items_need_no_ids_and_queries_stand_among_them(plain):
    lines(plain, {"text": "one"}, {"input": "paraphrase x", "gold": "y"}, {"id": "k", "text": "two", "date": 3})
    user = read_history(plain, TWEETS, "alice")
    assert user.user_id == "alice"
    assert user.profile == ({"id": "1", "text": "one"}, {"id": "k", "text": "two"})
    assert user.queries == (Query("2", "paraphrase x", "y"),)


def test_without_queries_the_latest_fifth_is_asked_where_the_task_has_inputs(plain):
    lines(plain, *({"text": f"article {n}", "title": f"title {n}"} for n in range(11)))
    user = read_history(plain, NEWS, "alice")
    assert [item["text"] for item in user.profile] == [f"article {n}" for n in range(9)]
    assert [query.gold for query in user.queries] == ["title 9", "title 10"]
    # The held-out query asks in the very words that the same item would be trained on.
    item = {"id": "10", "text": "article 9", "title": "title 9"}
    assert NEWS.query_pair(user.queries[0]) == NEWS.history_pair(item)


def test_the_latest_are_those_of_the_latest_dates_where_every_line_has_one(plain):
    dated = [{"text": f"article {n}", "title": f"title {n}", "date": f"2014-05-{20 - n}"} for n in range(5)]
    lines(plain, *dated)
    user = read_history(plain, NEWS, "alice")
    assert [item["text"] for item in user.profile] == [f"article {n}" for n in (4, 3, 2, 1)]
    assert [query.gold for query in user.queries] == ["title 0"]
    lines(plain, *dated, {"text": "article 5", "title": "title 5"})
    assert [query.gold for query in read_history(plain, NEWS, "alice").queries] == ["title 5"]


def test_bare_tweets_alone_are_all_kept_to_train_on(plain):
    lines(plain, *({"text": f"t{n}"} for n in range(10)))
    user = read_history(plain, TWEETS, "alice")
    assert len(user.profile) == 10 and user.queries == ()


def test_tweets_that_bring_their_plain_sentence_are_held_out_as_articles_are(plain):
    words = f"{TWEETS.instruction}plain 9"  # the instruction is no part of the sentence
    lines(plain, *({"text": f"t{n}", "input": f"plain {n}" if n < 9 else words} for n in range(10)))
    user = read_history(plain, TWEETS, "alice")
    assert [item["input"] for item in user.profile] == [f"plain {n}" for n in range(8)]
    assert user.queries[-1] == Query("10", words, "t9")


def test_the_users_own_record_is_taken_from_either_of_lamps_layouts(records):
    profile = [{"id": "p", "text": "mine"}]
    asked = [{"id": "q", "input": "in", "gold": "out"}]
    other = {"user_id": "bob", "profile": [{"id": "p", "text": "his"}], "query": asked}
    for own in (
        {"user_id": "7", "profile": profile, "query": asked},
        {"id": 7, "input": "in", "gold": "out", "profile": profile},
        {"id": "7", "input": "in", "output": "out", "profile": profile},
    ):
        records.write_text(json.dumps([other, own]))
        user = read_history(records, TWEETS, "7")
        assert user.profile == ({"id": "p", "text": "mine"},)
        assert [(query.input, query.gold) for query in user.queries] == [("in", "out")]
    records.write_text(json.dumps([{"id": "7", "input": "in", "profile": profile}]))
    assert read_history(records, TWEETS, "7").queries == ()


def test_a_file_that_grew_is_another_history(plain):
    lines(plain, {"text": "one"})
    assert len(read_history(plain, TWEETS, "a").profile) == 1
    with plain.open("a") as file:
        file.write('{"text": "two"}\n')
    assert len(read_history(plain, TWEETS, "a").profile) == 2


def test_a_line_that_is_still_being_written_waits_for_its_end(plain):
    lines(plain, {"text": "one"})
    for tail, items in (('{"te', 1), ('{"text": "tw', 1), ('{"text": "two"}', 2), ('{"text": "two"}\n', 2)):
        plain.write_text(f'{{"text": "one"}}\n{tail}')
        assert len(read_history(plain, TWEETS, "a").profile) == items
    plain.write_text('{"text": "one"}\n{"te\n')  # ended, and broken
    said: list[str] = []
    assert len(read_history(plain, TWEETS, "a", said.append).profile) == 1
    assert len(said) == 1 and "record 2" in said[0]


DAMAGES = {
    "a run of NULs before a line": b"\0" * 300 + b'{"text": "lost"}',
    "NULs alone": b"\0" * 300,
    "half a record": b'{"text": "SECRET hal',
    "two halves on a line": b'{"text": "SECRET h{"text": "SECRET w"}',
    "another encoding's byte": '{"text": "SECRET é"}'.encode("latin-1"),
    "another encoding": '{"text": "SECRET"}'.encode("utf-16"),
    "a list": b'["SECRET"]',
    "a number": b"12",
    "another field": b'{"txt": "SECRET"}',
    "a blank text": b'{"text": " "}',
    "a list for a text": b'{"text": ["SECRET"]}',
    "a lone surrogate": b'{"text": "SECRET \\ud800"}',
    "an id that is none": b'{"id": null, "text": "SECRET"}',
    "an id that there is": b'{"id": "k", "text": "SECRET"}',
    "a query without a gold": b'{"input": "SECRET", "gold": ""}',
    "thousands of brackets": b"[" * 200_000,
    "thousands of digits": b'{"text": ' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_damaged_line_costs_that_line_and_is_named_without_a_word_of_it(plain, damage, end):
    lines = [b'\xef\xbb\xbf{"text": "one"}', b'{"id": "k", "text": "two"}', damage, b'{"text": "three"}', b""]
    plain.write_bytes(end.join(lines))
    said: list[str] = []
    user = read_history(plain, TWEETS, "alice", said.append)
    assert [item["text"] for item in user.profile] == ["one", "two", "three"] and user.queries == ()
    # An encoding that has a line end of its own in the middle damages two.
    assert said and all("the data's record 3" in line or "the data's record 4" in line for line in said)
    assert not any("SECRET" in line or "\n" in line or str(plain) in line for line in said)


def test_ids_on_some_lines_only_are_those_lines_and_no_two_lines_are_called_alike(plain):
    lines(plain, {"text": "a"}, {"id": 1, "text": "b"}, {"id": "3", "text": "c"}, {"text": "d"}, {"text": "e"})
    assert [item["id"] for item in read_history(plain, TWEETS, "x").profile] == ["line 1", "1", "3", "4", "5"]


def test_a_line_of_ten_million_characters_is_read_as_any_other(plain):
    lines(plain, {"text": "a"}, {"text": "b " * 5_000_000}, {"text": "c"})
    assert [len(item["text"]) for item in read_history(plain, TWEETS, "x").profile] == [1, 10_000_000, 1]


@pytest.mark.parametrize("name", ["history.jsonl", "history.json"])
def test_a_file_that_is_replaced_while_it_is_read_gives_the_old_history_or_the_new(tmp_path, monkeypatch, name):
    def content(word: str) -> str:
        items = [{"id": str(n), "text": f"{word} {n}"} for n in range(3)]
        whole = json.dumps([{"user_id": "alice", "profile": items}])
        return whole if name.endswith(".json") else "".join(json.dumps(item) + "\n" for item in items)

    path, real = tmp_path / name, own_history.read_records
    path.write_text(content("old"))
    readings = []

    def replaced(*arguments, **options):
        """As an app does that writes in place: half of it is there at the first reading, nothing at the second."""
        readings.append(len(readings))
        if len(readings) == 1:
            path.write_text(content("new")[: len(content("new")) // 2])
        if len(readings) == 2:
            path.unlink()
        if len(readings) == 3:
            path.write_text(content("newest"))
        return real(*arguments, **options)

    monkeypatch.setattr(own_history, "read_records", replaced)
    monkeypatch.setattr(own_history, "SECONDS_BETWEEN", 0.0)
    said: list[str] = []
    # The second reading finds no file; the third is of one that changed; the fourth is whole.
    path_texts = {f"newest {n}" for n in range(3)}

    def touch(_: float) -> None:
        if not path.exists():
            path.write_text(content("newest"))

    monkeypatch.setattr(own_history.time, "sleep", touch)
    user = read_history(path, TWEETS, "alice", said.append)
    assert {item["text"] for item in user.profile} == path_texts and len(readings) == 4 and said == []


def test_the_corpus_of_a_device_is_its_user_alone_in_both_cohorts(plain):
    lines(plain, {"text": "one"})
    corpus = open_history(plain, TWEETS, "alice")
    assert corpus.cohorts == {"others": ("alice",), "test": ("alice",)}
    assert corpus.user("alice").profile[0]["text"] == "one" and corpus.sizes("alice") == (1, 0)
    with pytest.raises(ValueError):
        corpus.user("bob")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\n{"txt": "SECRET"}\n', r"record 2.* needs the field 'text'"),
        ('\n{"text": ""}\n', r"record 2.*'text' must not be empty"),
        ("\nSECRET\n", r"record 2: column 1: not valid JSON"),
        ('{"txt": "SECRET"}\nSECRET\n', r"record 2: column 1: not valid JSON"),
        ('{"text": ["SECRET"]}\n', r"record 1.*must be a string"),
        ('{"input": "i", "gold": "g"}\n', r"must hold at least one item"),
        ("", r"must hold at least one record"),
    ],
)
def test_where_no_line_is_usable_the_first_is_refused_by_its_rule_and_what_goes_public_has_no_word_of_it(
    plain, text, message
):
    plain.write_text(text)
    with pytest.raises(RecordError, match=message) as error:
        read_history(plain, TWEETS, "alice")
    assert "SECRET" not in error.value.public and str(plain.parent) not in error.value.public
    assert error.value.public and "\n" not in error.value.public


def test_a_history_without_the_devices_user_is_refused(records):
    records.write_text('[{"user_id": "bob", "profile": [{"id": "1", "text": "x"}]}]')
    with pytest.raises(RecordError, match="must hold a record of this device's user-id"):
        read_history(records, TWEETS, "alice")


@pytest.mark.parametrize("name", ["no.jsonl", "there.txt", "folder.json"])
def test_a_history_that_is_missing_or_misnamed_is_refused(tmp_path, name):
    (tmp_path / "there.txt").write_text("{}")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(RecordError, match=f"{name}: the history must be an existing .json or .jsonl file"):
        read_history(tmp_path / name, TWEETS, "a")
