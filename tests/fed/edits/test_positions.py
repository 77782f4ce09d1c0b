"""Which tokens an edit touches, told by a table, under padding on either side."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fed.edits.positions import Positions
from fed.forward.batching import Row, pad

# rule, prompt tokens, completion tokens, the edited ones (1) among prompt and completion
CASES = [
    ("all", 4, 2, "1111 11"),
    ("prompt", 4, 2, "1111 00"),
    ("last", 4, 2, "0001 00"),
    ("last", 1, 2, "0 00"),
    ("answer", 4, 2, "0001 11"),
    ("answer", 1, 0, "0 "),
    ("answer", 2, 2, "01 11"),  # a bare tweet's cue
    ("answer", 1, 2, "0 11"),
    ("f1", 4, 2, "1000 00"),
    ("f3", 4, 2, "1110 00"),
    ("f3", 2, 2, "11 00"),
    ("l1", 4, 2, "0001 00"),
    ("l3", 4, 2, "0111 00"),
    ("l9", 4, 2, "0111 00"),
    ("l4", 5, 2, "01111 00"),
    ("l1", 2, 1, "01 0"),
    ("l2", 2, 1, "01 0"),
    ("l2", 1, 1, "0 0"),
    ("f1+l2", 2, 1, "11 0"),  # asked for
    ("f0+l2", 2, 1, "01 0"),
    ("f3+l3", 8, 3, "11100111 000"),
    ("f3+l3", 6, 1, "111111 0"),
    ("f3+l3", 5, 1, "11111 0"),  # shorter than N + M: each token once
    ("f1+l2", 4, 0, "1011 "),
    ("f2+l1", 1, 1, "1 0"),
    ("f0+l2", 4, 1, "0011 0"),
    ("f2+l0", 4, 1, "1100 0"),
    ("f12+l10", 4, 1, "1111 0"),
    ("all", 0, 2, " 11"),
    ("all-f1", 4, 2, "0111 11"),
    ("all-f3", 2, 2, "00 11"),
    ("all-f12", 2, 2, "00 11"),
    ("prompt-f1", 4, 2, "0111 00"),
    ("prompt-f2", 1, 2, "0 00"),
    ("all-f1", 0, 2, " 11"),
]


def batch(lengths, left):
    return pad([Row((5,) * p, (6,) * c) for p, c in lengths], 0, "cpu", left=left)


@pytest.mark.parametrize(("rule", "prompt", "completion", "expected"), CASES)
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("left", [False, True])
def test_the_table_of_positions(rule, prompt, completion, expected, padding, left):
    bits = [c == "1" for c in expected.replace(" ", "")]
    assert len(bits) == prompt + completion
    blank = [False] * padding
    rows = batch([(prompt, completion), (prompt + completion + padding, 0)], left)
    mask = Positions.parse(rule).mask(rows.prompt, rows.tokens)
    assert mask.dtype == torch.bool
    assert mask[0].tolist() == (blank + bits if left else bits + blank)


RULES = st.one_of(
    st.sampled_from(["all", "prompt", "last", "answer"]),
    st.builds("{}-f{}".format, st.sampled_from(["all", "prompt"]), st.integers(1, 9)),
    st.builds("f{}".format, st.integers(1, 9)),
    st.builds("l{}".format, st.integers(1, 9)),
    st.builds("f{}+l{}".format, st.integers(0, 9), st.integers(1, 9)),
)
LENGTHS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)).filter(sum), min_size=1, max_size=6)


@given(RULES, LENGTHS)
def test_the_mask_under_left_padding_is_that_under_right_padding_shifted(rule, lengths):
    right, left = batch(lengths, False), batch(lengths, True)
    positions = Positions.parse(rule)
    on_right = positions.mask(right.prompt, right.tokens)
    on_left = positions.mask(left.prompt, left.tokens)
    for i, (prompt, completion) in enumerate(lengths):
        n = prompt + completion
        assert on_left[i, -n:].tolist() == on_right[i, :n].tolist()
        assert not on_left[i, :-n].any() and not on_right[i, n:].any()


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 20))
def test_first_and_last_count_their_tokens(first, last, prompt):
    if not first + last:
        return
    rows = batch([(prompt, 2)], False)
    mask = Positions.parse(f"f{first}+l{last}").mask(rows.prompt, rows.tokens)
    expected = [t < first or (t > 0 and t >= prompt - last) for t in range(prompt)] + [False, False]
    assert mask[0].tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "All", "first", "f", "l", "f0", "l0", "f0+l0", "+l3", "f3+", "f3l3", "l3+f3", "f-1", "f3 + l3",
     "f3+l3+f1", "all ", "3", "all-f0", "all-f", "all-l1", "last-f1", "all-f1-f1", "all+f1"],
)  # fmt: skip
def test_any_other_rule_is_refused_with_the_value(text):
    with pytest.raises(ValueError, match="positions must be") as error:
        Positions.parse(text)
    assert repr(text) in str(error.value) and "\n" not in str(error.value)


def test_a_rule_followed_by_a_line_break_is_refused():
    with pytest.raises(ValueError, match="positions must be"):
        Positions.parse("f3+l3\n")


@given(RULES, st.integers(1, 12))
def test_no_edited_token_lies_before_the_first_that_a_rule_may_touch(rule, prompt):
    rows = batch([(prompt, 2)], False)
    mask = Positions.parse(rule).mask(rows.prompt, rows.tokens)[0].tolist()
    first = Positions.parse(rule).untouched(prompt)
    assert first < prompt and not any(mask[:first])


@given(st.one_of(st.sampled_from(["last", "answer"]), st.builds("l{}".format, st.integers(1, 9))), LENGTHS)
def test_the_last_tokens_never_hold_the_first_one(rule, lengths):
    rows = batch(lengths, False)
    mask = Positions.parse(rule).mask(rows.prompt, rows.tokens)
    for i, (prompt, _) in enumerate(lengths):
        if prompt:
            assert not mask[i, 0]
        if prompt > 1:
            assert mask[i, prompt - 1]  # and always the last one, where it is another
            first = Positions.parse(rule).untouched(prompt)
            assert mask[i].tolist().index(True) == first > 0
