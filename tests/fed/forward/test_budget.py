"""How many tokens a batch that is decoded may take."""

from __future__ import annotations

from fed.base import random_base
from fed.base.model import BaseModel
from fed.forward.budget import decoded


def test_a_small_base_decodes_sixteen_times_the_tokens_and_no_base_fewer_than_four(tiny32: BaseModel) -> None:
    assert decoded(tiny32, 384) == 16 * 384
    assert decoded(tiny32, 1 << 20) == 4 << 20  # a whole cache of it would take 2 GB, but so many were asked for


def test_between_them_keys_and_values_as_wide_as_the_states_take_half_a_gigabyte() -> None:
    base = random_base.load("random:tiny", device="cpu", dtype="float64")
    token = 2 * 4 * 32 * 8  # keys and values of four blocks, d = 32, in float64
    assert decoded(base, 30_000) == (512 << 20) // token
