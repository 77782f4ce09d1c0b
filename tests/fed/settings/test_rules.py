"""Each rule by itself: what it lets pass, what it says, and that a key is required where it has no default."""

from dataclasses import MISSING, dataclass, fields

import pytest

from fed.settings import rules
from fed.settings.rules import SettingsError


@dataclass(frozen=True, kw_only=True)
class Made:
    some_text: str = rules.text("a text")
    some_flag: bool = rules.flag("a flag", default=True)
    some_number: float = rules.number("a number", default=0.5)
    fruit: str = rules.one_of(("apple", "pear"), "a fruit", default="pear")
    rounds: int = rules.at_least(2, "rounds")
    floor: float = rules.at_least(0, "from none", default=1.0)
    rate: float = rules.between(0, 1, "a rate")
    part: float = rules.share("a part", default=1.0)
    none_or_part: float = rules.share("none, or a part", default=0.0, or_none=True)
    one_block: int = rules.block("a block", default=-1)
    layers: str = rules.blocks("blocks")
    positions: str = rules.places("places")
    other_positions: str = rules.places("other places", or_same=True)


FIELDS = {one.name: one for one in fields(Made)}


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("some_text", " ", " "),
        ("some_flag", False, False),
        ("some_number", -3, -3.0),
        ("fruit", "apple", "apple"),
        ("rounds", 2, 2),
        ("floor", 0, 0.0),
        ("rate", 0.999, 0.999),
        ("part", 1, 1.0),
        ("none_or_part", 0, 0.0),
        ("none_or_part", 0.5, 0.5),
        ("one_block", -1, -1),
        ("layers", "0,1,7", "0,1,7"),
        ("layers", "all", "all"),
        ("positions", "f3+l3", "f3+l3"),
        ("other_positions", "same", "same"),
        ("other_positions", "l2", "l2"),
    ],
)
def test_a_value_that_keeps_its_rule_is_held_in_the_fields_type(name, value, held):
    right = rules.checked(FIELDS[name], value)
    assert right == held and type(right) is type(held)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("some_text", "", "some-text must be a text that is not empty, got ''"),
        ("some_text", 3, "some-text must be a text that is not empty, got 3"),
        ("some_flag", 1, "some-flag must be true or false, got 1"),
        ("some_number", "1", "some-number must be a number, got '1'"),
        ("some_number", float("nan"), "some-number must be a finite number, got nan"),
        ("fruit", "plum", "fruit must be one of apple, pear, got 'plum'"),
        ("rounds", 1, "rounds must be at least 2, got 1"),
        ("rounds", 2.0, "rounds must be a whole number, got 2.0"),
        ("rounds", True, "rounds must be a whole number, got True"),
        ("floor", -0.1, "floor must be at least 0, got -0.1"),
        ("rate", 0.0, "rate must lie between 0 and 1, got 0.0"),
        ("rate", 1, "rate must lie between 0 and 1, got 1.0"),
        ("part", 0, "part must lie in (0, 1], got 0.0"),
        ("part", 1.1, "part must lie in (0, 1], got 1.1"),
        ("none_or_part", -0.1, "none-or-part must lie in [0, 1], got -0.1"),
        ("one_block", -2, "one-block must be a block's number from 0, or -1, got -2"),
        ("layers", "2,1", "layers must be 'all' or rising block numbers from 0 such as '10,16,22', got '2,1'"),
        ("layers", "-1", "layers must be 'all' or rising block numbers from 0 such as '10,16,22', got '-1'"),
    ],
)
def test_a_value_that_breaks_its_rule_is_told_by_key_rule_and_value(name, value, said):
    with pytest.raises(SettingsError) as error:
        rules.checked(FIELDS[name], value)
    assert str(error.value) == said


def test_a_name_that_a_registry_gets_later_is_a_choice_too():
    registry = {"one": 1}

    @dataclass(frozen=True, kw_only=True)
    class Registered:
        name: str = rules.one_of(registry, "a name")

    (name,) = fields(Registered)
    with pytest.raises(SettingsError, match="name must be one of one, got 'two'"):
        rules.checked(name, "two")
    registry["two"] = 2
    assert rules.checked(name, "two") == "two"


def test_places_are_told_by_their_own_key_and_same_is_offered_where_it_may_stand():
    with pytest.raises(SettingsError, match=r"^positions must be all, .*got 'same'$"):
        rules.checked(FIELDS["positions"], "same")
    with pytest.raises(SettingsError, match=r"^other-positions must be all, .*got '3'; or same, those of stage 1$"):
        rules.checked(FIELDS["other_positions"], "3")


def test_a_key_without_a_default_is_required_and_every_meaning_is_kept():
    required = {one.name for one in fields(Made) if one.default is MISSING}
    assert required == {"some_text", "rounds", "rate", "layers", "positions", "other_positions"}
    assert FIELDS["fruit"].default == "pear"
    assert [rules.meaning_of(FIELDS[name]) for name in ("some_flag", "part", "layers")] == [
        "a flag",
        "a part",
        "blocks",
    ]


def test_block_numbers_are_read_from_the_text_and_all_names_none():
    assert rules.block_numbers("layers", "0,10,22") == (0, 10, 22)
    assert rules.block_numbers("layers", "all") is None
