"""Holm's correction on worked examples."""

import pytest

from fed.statistics import holm


def test_holm_on_a_worked_example():
    """0.01 · 4, 0.02 · 3, then 0.03 · 2 = 0.06, and 0.04 · 1 may not fall below it."""
    assert holm.corrected([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_counts_only_what_has_a_p_and_stops_at_one():
    assert holm.corrected([None, 0.03, None, 0.6, 0.7]) == [None, pytest.approx(0.09), None, 1.0, 1.0]
    assert holm.corrected([]) == [] and holm.corrected([0.03]) == [0.03]
