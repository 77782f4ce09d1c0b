"""The corpus cache: parsed once, read again when a file changes, sound when several processes build it."""

import multiprocessing
import os
from pathlib import Path

import pytest

from fed.lamp import records
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from tests.fed.lamp.folders import a_user, write_oppu


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_second_open_parses_nothing(tmp_path, cache, monkeypatch):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    first = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)

    def refuse(*args, **kwargs):
        raise AssertionError("parsed again")

    monkeypatch.setattr(records, "_rows", refuse)
    monkeypatch.setattr("fed.lamp.json_files.array.json.JSONDecoder", refuse)
    second = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    assert second.cohorts == first.cohorts
    assert second.sizes("b") == (2, 2)
    monkeypatch.undo()
    assert second.user("b") == first.user("b")


def test_a_changed_file_is_read_again(tmp_path, cache):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    write_oppu(tmp_path / "data", [a_user("a")], [a_user("c")])
    os.utime(tmp_path / "data" / "user_top_100_history.json", ns=(1, 1))
    assert open_corpus(source, get_task("LaMP_7"), cache_dir=cache).cohorts["test"] == ("c",)


@pytest.mark.parametrize("ours", [False, True])
def test_the_cache_is_one_memory_mapped_entry_under_the_cache_folder(tmp_path, monkeypatch, ours):
    monkeypatch.delenv("PERFIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if ours:
        monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "xdg" / "perfit-fed"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    open_corpus(source, get_task("LaMP_7"))
    (entry,) = (tmp_path / "xdg" / "perfit-fed" / "lamp").iterdir()
    assert [path.suffix for path in entry.iterdir()] == [".arrow"]
    assert entry.name.startswith("LaMP_7-")


def test_a_corpus_of_several_arrow_files_is_one(tmp_path, cache, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", "1KB")  # 500 MB ordinarily
    monkeypatch.setattr(records, "_USERS_A_BATCH", 4)
    users = [a_user(f"b{n:02d}") for n in range(30)]
    for n, user in enumerate(users):
        user["query"][0]["gold"] = f"gold {n}"
    source = write_oppu(tmp_path / "data", [a_user("a")], users)
    corpus = open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    assert len(list(cache.glob("*/*.arrow"))) > 2
    for n, user_id in enumerate(corpus.cohorts["test"]):
        assert corpus.user(user_id).queries[0].gold == f"gold {n}"


def _open_in_another_process(source, cache, barrier, answers):
    barrier.wait()
    answers.put(open_corpus(source, get_task("LaMP_7"), cache_dir=cache).user("b7").profile[0]["text"])


def test_concurrent_builders_end_with_one_sound_entry(tmp_path, cache):
    users = [a_user(f"b{n}") for n in range(50)]
    source = write_oppu(tmp_path / "data", [a_user("a")], users)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    builders = [
        context.Process(target=_open_in_another_process, args=(source, cache, barrier, answers)) for _ in range(3)
    ]
    for builder in builders:
        builder.start()
    assert [answers.get(timeout=120) for _ in builders] == ["t"] * 3
    for builder in builders:
        builder.join()
    (entry,) = cache.iterdir()
    assert len(open_corpus(source, get_task("LaMP_7"), cache_dir=cache).cohorts["test"]) == 50


def test_losing_the_race_to_build_an_entry_is_no_error(tmp_path, cache, monkeypatch):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    open_corpus(source, get_task("LaMP_7"), cache_dir=cache)
    (entry,) = cache.iterdir()
    files = records.find_files(Path(source), get_task("LaMP_7"))
    records._build(entry, files, get_task("LaMP_7"))
    assert list(cache.iterdir()) == [entry]
    assert open_corpus(source, get_task("LaMP_7"), cache_dir=cache).user("b").user_id == "b"


def test_an_unwritable_cache_folder_is_named(tmp_path):
    source = write_oppu(tmp_path / "data", [a_user("a")], [a_user("b")])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="the cache folder must be writable; got .*set PERFIT_CACHE"):
        open_corpus(source, get_task("LaMP_7"), cache_dir=tmp_path / "file" / "cache")
