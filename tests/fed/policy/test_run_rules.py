"""Which runs a strict device refuses, by one rule each, without looking at anything but settings and facts."""

import pytest

from fed.base.facts import of
from fed.policy.policy import OPEN, STRICT, Policy, PolicyError
from fed.policy.run_rules import check_base, check_settings, check_source

ACCEPTED = {"max_items": 8, "max_queries": 8, "batch_size": 4, "base_model": "embedded"}


def check(run, policy=STRICT, *, own_history=True, own_base=False):
    check_settings(policy, run, own_history=own_history, own_base=own_base)


def test_a_run_within_the_rules_is_accepted(settings):
    check(settings(**ACCEPTED))
    check(settings(**ACCEPTED | {"max_items": 0, "max_queries": 0}))
    check(settings(**ACCEPTED | {"base_model": "/a/b"}), own_base=True)
    check(settings(**ACCEPTED), Policy(data=True), own_history=False)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"max_items": 1}, "max-items must be 0 or 8 to 4096 in steps of 4"),
        ({"max_items": 9}, "max-items must be 0 or 8 to 4096"),
        ({"max_queries": 1}, "max-queries must be 0 or 8 to 256"),
        ({"max_length": 17}, "max-length must be 64 to 2048 in steps of 32"),
        ({"max_length": 65}, "max-length must be"),
        ({"dtype": "float64"}, "dtype must be one of auto, float32"),
        ({"wire_dtype": "float64"}, "wire-dtype must be one of"),
        ({"batch_size": 1}, "batch-size must be 2 to 64"),
        ({"local_epochs": 11}, "local-epochs must be 1 to 10"),
        ({"stage2_epochs": 11}, "stage2-epochs must be"),
        ({"rounds": 101}, "rounds must be"),
        ({"stage1_rank": 65}, "stage1-rank must be 1 to 64"),
        ({"stage2_lr": 0.5}, "stage2-lr must be"),
        ({"weight_decay": 1e9}, "weight-decay must be 0 to 1"),
        ({"proximal_mu": 1e30}, "proximal-mu must be 0 to 10"),
        ({"style_strength": 1e30}, "style-strength must be 0 to 2"),
        ({"style_strength": -0.5}, "style-strength must be"),
        ({"method": "oppu"}, "method must be one of perfit"),
        ({"base_model": "someone/else"}, "base-model must be named by the device itself"),
    ],
)
def test_a_setting_outside_is_refused_by_its_rule_and_the_public_part_has_no_value(settings, changes, rule):
    run = settings(**ACCEPTED | changes)
    with pytest.raises(PolicyError, match=rule) as error:
        check(run)
    assert error.value.public in str(error.value) and "got" not in error.value.public
    check(run, OPEN)


def test_tasks_and_prompt_forms_are_the_device_s_to_choose(settings):
    with pytest.raises(PolicyError, match="task must be one of LaMP_4"):
        check(settings(**ACCEPTED), Policy(tasks=("LaMP_4",)))
    with pytest.raises(PolicyError, match="prompt-format must be one of chat"):
        check(settings(**ACCEPTED), Policy(prompt_formats=("chat",)))
    plain = Policy(prompts=("plain",))
    check(settings(**ACCEPTED), plain)
    for changes in ({"retrieved": 1}, {"profile": True}, {"history_rows": "pairs"}):
        check(settings(**ACCEPTED | changes))
        with pytest.raises(PolicyError, match="prompts must be of the forms plain"):
            check(settings(**ACCEPTED | changes), plain)


def test_the_run_s_data_and_a_hub_are_not_touched_unless_the_device_says_so(settings, monkeypatch):
    with pytest.raises(PolicyError, match="a history of its own"):
        check(settings(**ACCEPTED), own_history=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PolicyError, match="on the device already"):
        check_source(STRICT, "nobody/knows-this-model")
    check_source(Policy(hub=True), "nobody/knows-this-model")
    check_source(STRICT, "embedded")


def test_the_base_and_the_edits_size_are_held_against_its_facts(settings, tiny32):
    facts = of(tiny32)
    run = settings(**ACCEPTED)
    check_base(STRICT, run, facts)
    check_base(Policy(bases=(facts.fingerprint,)), run, facts)
    with pytest.raises(PolicyError, match="the base model must be one"):
        check_base(Policy(bases=("f" * 16,)), run, facts)
    with pytest.raises(PolicyError, match="stage2-rank must be at most 4 for this base model"):
        check_base(STRICT, settings(**ACCEPTED | {"stage2_rank": 5}), facts)
    for rank in (0, 5):  # 0: the hidden size
        with pytest.raises(PolicyError, match="exact-rank must be at most 4 for this base model"):
            check_base(STRICT, settings(**ACCEPTED | {"average": "exact", "exact_rank": rank}), facts)
    with pytest.raises(PolicyError, match="layers must name 1 to 1 blocks"):
        check_base(Policy.of({"ranges": {"layers": [1, 1]}}), run, facts)
