"""A device's own rules: strict where the file is silent, one line for what cannot be read."""

import tomllib
from dataclasses import fields

import pytest

from fed.policy.policy import OPEN, RANGES, STRICT, Policy, PolicyError, Range
from fed.settings.settings import keys
from tests.conftest import REPOSITORY


def test_a_key_that_is_left_out_keeps_the_strict_default(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('tasks = ["LaMP_7"]\nmin-rows = 20\nloss-step = 0\n[ranges]\nmax-items = [20, 40]\n')
    policy = Policy.read(file)
    assert policy.tasks == ("LaMP_7",) and policy.min_rows == 20 and policy.loss_step == 0
    assert policy.ranges["max-items"] == Range(20, 40) and policy.ranges["rounds"] == RANGES["rounds"]
    same = {one.name for one in fields(Policy)} - {"tasks", "min_rows", "loss_step", "ranges"}
    assert all(getattr(policy, name) == getattr(STRICT, name) for name in same)
    assert not STRICT.open and OPEN.open and not (STRICT.data or STRICT.hub or STRICT.run_base)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks = [", "its file must be TOML"),
        ("taks = []", "every key must be one of .*'taks'"),
        ("tasks = 'LaMP_7'", "tasks must be a list of texts"),
        ("open = 1", "open must be true or false"),
        ("min-rows = 0.5", "min-rows must be a whole number from 0"),
        ("min-rows = true", "min-rows must be a whole number from 0"),
        ("loss-step = -1.0", "loss-step must be a number from 0"),
        ("loss-step = inf", "loss-step must be a number from 0"),
        ("ranges = 3", "ranges must be a table"),
        ("[ranges]\nseed = [1, 2]", "a range must be of one of .*'seed'"),
        ("[ranges]\nrounds = [1]", "the range of rounds must be"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_that_names_the_key(tmp_path, text, words):
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=words) as error:
        Policy.read(file)
    assert "\n" not in str(error.value) and str(tmp_path) not in error.value.public
    with pytest.raises(PolicyError, match="its file must be readable"):
        Policy.read(tmp_path / "none.toml")


def test_a_range_is_closed_and_has_steps_from_its_beginning():
    items = RANGES["max-items"]
    assert [n for n in (0, 1, 7, 8, 9, 12, 20, 4096, 4100) if items.has(n)] == [8, 12, 20, 4096]
    assert not items.has(float("nan")) and not items.has(float("inf"))
    assert str(items) == "8 to 4096 in steps of 4" and str(Range(1, 2)) == "1 to 2"


# Numbers of a run config that a device needs no range of, and why.
UNRANGED = {
    "the server's own": "stage1-users stage2-users fraction server-lr momentum attackers node-timeout min-nodes "
    "reply-timeout min-replies norm-bound drop-rate slow-rate round-deadline over-selection run-deadline",
    "bounded by its own rule: a part of a whole, or a block's number": "warmup top-p style-layer",
    "rank-share bounds it": "exact-rank",
    "max-length bounds what it adds": "retrieved",
    "a gradient's size changes no step of AdamW's": "clip",
    "draws, whatever they are": "seed temperature top-k",
}


def test_every_number_that_a_device_computes_with_has_a_range():
    numbers = {key for key, one in keys().items() if one.type in ("int", "float")}
    unranged = {key for some in UNRANGED.values() for key in some.split()}
    assert unranged.isdisjoint(RANGES) and unranged | set(RANGES) - {"layers"} == numbers


def test_every_app_s_settings_are_within_the_strict_ranges_but_for_few_queries():
    outside = {}
    for file in sorted((REPOSITORY / "sims").glob("lamp*/pyproject.toml")):
        config = tomllib.loads(file.read_text())["tool"]["flwr"]["app"]["config"]
        of_app = {key for key, numbers in RANGES.items() if key != "layers" and not numbers.has(float(config[key]))}
        outside[file.parent.name] = of_app - {"max-queries"} - ({"max-items"} if config["max-items"] == 0 else set())
    assert len(outside) == 6 and set().union(*outside.values()) == set()
