"""What `-c` is read as: key=value pairs and TOML files, and nothing that Flower would silently skip. The preflight."""

import io
import shutil
import sys
import zipfile

import pytest
from cells.plan import method_of
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import parse_config_args
from simulation import apps


def test_pairs_and_files_are_read_in_order_and_later_ones_win(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('rounds = 7\nfraction = 1.0\nlayers = "1,2"  # a comment\nprofile = true\n')
    assert apps.parsed(["seed=1 data='a b'", str(file), 'seed=2 rounds=8 positions="f1+l2"']) == {
        "seed": 2, "data": "a b", "rounds": 8, "fraction": 1.0, "layers": "1,2", "profile": True, "positions": "f1+l2",
    }  # fmt: skip
    assert apps.parsed([]) == {}


@pytest.mark.parametrize(
    "override", ["", "rounds", "rounds=3 seed", "rounds=3 and seed=1", 'rounds=3 data="a b', "rounds=two words"]
)
def test_a_word_that_is_no_pair_is_refused_and_not_skipped(override):
    with pytest.raises(ValueError, match="-c must be key=value pairs with texts in quotes, got "):
        apps.parsed(["seed=1", override])


def test_flower_itself_would_skip_it():
    assert parse_config_args(["rounds=3 seed"]) == {"rounds": 3}


def test_a_method_has_its_settings_after_colons_by_the_same_rule():
    assert method_of("rag:retrieved=4:profile=true") == {"method": "rag", "retrieved": 4, "profile": True}
    with pytest.raises(ValueError, match="such as rag:retrieved=4, got 'rag:retrieved=4 more'"):
        method_of("rag:retrieved=4 more")


def test_a_method_whose_library_is_not_installed_is_refused_before_anything_starts(tiny_base, monkeypatch):
    settings = apps.settings("lamp7", {"method": "oppu", "average": "fedavg", "base-model": str(tiny_base)})
    apps.preflight(settings)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match="method 'oppu' .* needs peft, not installed: peft; make setup"):
        apps.preflight(settings)


def test_turns_need_a_base_with_a_chat_template_before_anything_starts(tiny_base):
    with pytest.raises(ValueError, match="a chat template, .* set prompt-format='plain'"):
        apps.preflight(apps.settings("lamp7", {"base-model": str(tiny_base), "prompt-format": "chat"}))


def test_rows_longer_than_the_bases_context_are_refused_before_anything_starts(tiny_base):
    with pytest.raises(ValueError, match="max-length must .* context of 512 tokens, got 600; set max-length=512"):
        apps.preflight(apps.settings("lamp7", {"base-model": str(tiny_base), "max-length": 600}))


@pytest.mark.parametrize("name", ["lamp7", "lamp4", "lamp2n"])
def test_a_bundle_has_settings_alone_whatever_lies_in_the_apps_folder_and_what_stays_is_named(tmp_path, name):
    app = tmp_path / name
    shutil.copytree(apps.SIMS / name, app)
    assert apps.left_out(app) is None
    people = (
        "data/users.json",
        "data/deep/users.jsonl",
        "notes.md",
        "users.json",
        "secret.yaml",
        "a.py",
        "own.toml",
    )
    for file in people:
        (app / file).parent.mkdir(parents=True, exist_ok=True)
        (app / file).write_text("SECRET")
    names = set(zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))).namelist())
    assert "pyproject.toml" in names and not names & set(people)
    told = apps.left_out(app)
    assert told is not None and "data/ (2 files)" in told and "users.json" in told and "a.py" in told


def test_a_device_that_is_not_here_and_a_base_that_is_not_whole_are_refused_before_anything_starts(tiny_base, tmp_path):
    short = {"base-model": str(tiny_base)}
    apps.preflight(apps.settings("lamp7", short | {"device": "cpu"}))
    with pytest.raises(ValueError, match="device must be there, got 'xpu:3'"):
        apps.preflight(apps.settings("lamp7", short | {"device": "xpu:3"}))
    shutil.copytree(tiny_base, tmp_path / "half")
    (tmp_path / "half" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="must hold a tokenizer"):
        apps.preflight(apps.settings("lamp7", {"base-model": str(tmp_path / "half")}))


@pytest.mark.parametrize(
    ("federation", "cores", "each"),
    [
        ({}, 2, None),  # Flower's own two
        ({}, 1, None),
        ({}, 16, 8),
        ({"num-supernodes": 3}, 16, 5),
        ({"num-supernodes": 20}, 16, None),
        ({"init-args-num-cpus": 6}, 16, 3),
        ({"client-resources-num-cpus": 1}, 16, 1),
    ],
)
def test_actors_share_out_the_cores_where_nothing_is_said_of_theirs(federation, cores, each):
    shared = apps.with_all_cores(federation, cores)
    assert shared.pop("client-resources-num-cpus", None) == each
    federation.pop("client-resources-num-cpus", None)
    assert shared == federation


@pytest.mark.parametrize(
    ("federation", "least"),
    [
        ('num-supernodes="many"', 1),
        ("num-supernodes=0", 1),
        ("num-supernodes=2.5", 1),
        ("init-args-num-cpus=-1", 1),
        ("init-args-num-gpus=true", 0),
    ],
)
def test_a_federation_is_counted_in_whole_numbers(federation, least):
    key = federation.partition("=")[0]
    with pytest.raises(ValueError, match=f"^{key} must be a whole number of at least {least}, got "):
        apps.federation_of(federation)
    assert apps.federation_of(f'{key}="4"') == {key: "4"}
