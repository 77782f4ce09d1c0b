"""Sign flips counted by hand; the level is simulated in `test_level`."""

import numpy as np
import pytest

from fed.statistics import sign_flip


def test_data_sets_along_leading_axes_are_each_their_own():
    many = np.random.default_rng(0).normal(size=(3, 2, 5))
    assert sign_flip.p_value(many).shape == (3, 2)
    assert sign_flip.p_value(many)[2, 1] == sign_flip.p_value(many[2, 1])


def test_sign_flips_of_three_users_by_hand():
    """Of 1, 2, 4 the eight sums are ±7, ±5, ±3, ±1: two of them are as far as 7."""
    assert sign_flip.p_value(np.array([1.0, 2.0, 4.0])) == 2 / 8
    assert sign_flip.p_value(np.array([1.0, 2.0, -4.0])) == 8 / 8
    assert sign_flip.p_value(np.array([-1.0, 2.0, 4.0])) == 4 / 8


def test_the_smallest_p_of_sign_flips_is_two_in_all_patterns():
    for users in (1, 2, 5, 6, 14):
        assert sign_flip.p_value(np.full(users, 0.1)) == 2 / 2**users  # 0.1 summed in any order rounds otherwise
    assert sign_flip.p_value(np.full(20, 0.1)) == pytest.approx(1 / (sign_flip.DRAWS + 1))


def test_drawn_sign_flips_are_close_to_all_of_them_and_the_same_for_a_seed(monkeypatch):
    differences = np.random.default_rng(5).normal(0.3, 1, size=14)
    exact = sign_flip.p_value(differences)
    monkeypatch.setattr(sign_flip, "EXACT_USERS", 13)
    drawn = sign_flip.p_value(differences)
    assert drawn != exact and drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / sign_flip.DRAWS) ** 0.5)
    assert drawn == sign_flip.p_value(differences) != sign_flip.p_value(differences, seed=1)


def test_the_size_of_a_block_decides_nothing_about_what_is_drawn_but_its_bytes(monkeypatch):
    """Users whose signs fill whole bytes, so that blocks of any size cut the same stream."""
    differences = np.random.default_rng(6).normal(0.2, 1, size=32)
    once = sign_flip.p_value(differences)
    monkeypatch.setattr(sign_flip, "BLOCK", 32 * 1000)
    assert sign_flip.p_value(differences) == once


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip.p_value(np.zeros(8)) == 1.0 and sign_flip.p_value(np.zeros(20)) == 1.0
