"""Numbers in fewer bits: what is read is what was sent, as near as the bits allow, and nothing else is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fed.communication.quantization import LARGEST, NARROW, Packing
from fed.randomness import generator

SHAPES = {"R": (2, 3, 20), "D": (2, 3, 20), "b": (2, 3), "B": (30, 3)}
NUMBERS = 2 * 120 + 6 + 90


def change(size: float = 1.0, shapes: dict | None = None) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {name: size * torch.randn(shape, generator=draw) for name, shape in (shapes or SHAPES).items()}


def through(packing: Packing, tensors: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    return packing.unpack(packing.pack(tensors, generator(seed)))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float16", 2 * NUMBERS),
        ("bfloat16", 2 * NUMBERS),
        ("int8", NUMBERS + 2 * (6 + 6 + 2 + 3)),  # rows of R, D, b, and B's columns
        ("int4", NUMBERS // 2 + 2 * (6 + 6 + 2 + 3)),
    ],
)
def test_a_packed_change_has_the_bytes_that_its_shapes_say(dtype, size):
    packing = Packing(SHAPES, dtype)
    packed = packing.pack(change(), generator(0))
    assert packed.dtype == np.uint8 and packed.shape == (size,)
    assert packing.plain_bytes == packing.most_bytes == size


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e4])
def test_what_is_read_is_within_a_step_of_what_was_sent(dtype, size):
    sent = change(size)
    read = through(Packing(SHAPES, dtype), sent)
    assert list(read) == list(SHAPES)
    for name, tensor in read.items():
        assert tensor.dtype == torch.float32 and tensor.shape == SHAPES[name]
        if dtype in LARGEST:
            along = 0 if name == "B" else -1
            step = sent[name].abs().amax(along, keepdim=True) / LARGEST[dtype] * (1 + 2**-7)
        else:
            step = sent[name].abs() * (2**-8 if dtype == "bfloat16" else 2**-11) + (dtype == "float16") * 2**-24
        assert bool(((tensor - sent[name]).abs() <= step * (1 + 1e-6)).all())


@pytest.mark.parametrize("dtype", LARGEST)
def test_codes_are_rounded_at_random_so_that_their_mean_is_what_was_sent(dtype):
    sent = {"D": change(shapes={"D": (4, 200)})["D"]}
    packing = Packing({"D": (4, 200)}, dtype)
    draws = torch.stack([through(packing, sent, seed)["D"] for seed in range(400)])
    step = sent["D"].abs().amax(1, keepdim=True) / LARGEST[dtype]
    # The mean of 400 draws, each off by less than a step, within 6 standard errors.
    assert bool(((draws.mean(0) - sent["D"]).abs() <= 6 * 0.5 * step / 20).all())
    assert float(draws.std(0).max()) > 0


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("deflated", [False, True])
def test_the_same_draw_gives_the_same_bytes_and_zeros_stay_zeros(dtype, deflated):
    packing = Packing(SHAPES, dtype, deflated)
    assert packing.pack(change(), generator(1)).tobytes() == packing.pack(change(), generator(1)).tobytes()
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    assert all(bool((tensor == 0).all()) for tensor in through(packing, zeros).values())


@pytest.mark.parametrize("dtype", NARROW)
def test_deflating_changes_bytes_and_no_number_and_is_left_out_where_it_does_not_pay(dtype):
    shapes = {"D": (8, 576)}
    sent = change(1e-3, shapes)
    plain, deflated = Packing(shapes, dtype), Packing(shapes, dtype, True)
    short = deflated.pack(sent, generator(0))
    assert len(short) < plain.plain_bytes and short[0] == 1
    assert torch.equal(deflated.unpack(short)["D"], through(plain, sent)["D"])
    tiny = {"D": (1, 4)}
    long = Packing(tiny, dtype, True).pack(change(1.0, tiny), generator(0))
    assert len(long) == Packing(tiny, dtype, True).most_bytes and long[0] == 0
    assert torch.equal(
        Packing(tiny, dtype, True).unpack(long)["D"], through(Packing(tiny, dtype), change(1.0, tiny))["D"]
    )


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_change_that_is_not_finite_is_not_packed(dtype, value):
    broken = change()
    broken["D"][0, 0, 0] = value
    with pytest.raises(ValueError, match="the change of an edit must be finite"):
        Packing(SHAPES, dtype).pack(broken, generator(0))


def test_what_is_larger_than_float16_can_say_is_its_largest_number():
    read = through(Packing({"b": (2,)}, "float16"), {"b": torch.tensor([1e9, -1e9])})
    assert read["b"].tolist() == [65504.0, -65504.0]


def _with(packed: np.ndarray, place: int, *values: int) -> np.ndarray:
    broken = packed.copy()
    broken[place : place + len(values)] = values
    return broken


@pytest.mark.parametrize(
    ("dtype", "damage", "rule"),
    [
        ("int8", lambda p: _with(p, 0, 0xC0, 0x7F), "the scales of a change must be finite and not negative"),  # NaN
        ("int8", lambda p: _with(p, 0, 0x80, 0x7F), "the scales of a change must be finite and not negative"),
        ("int4", lambda p: _with(p, 0, 0x80, 0xBF), "the scales of a change must be finite and not negative"),  # −1
        ("int8", lambda p: _with(p, 40, 0x80), "the codes of a change in int8 must lie in -127..127"),
        ("int4", lambda p: _with(p, 40, 0xF0), "the codes of a change in int4 must lie in -7..7"),
        ("int8", lambda p: _with(p, 0, 0x7F, 0x7F), "the change of an edit must be finite"),  # 127 times the largest
        ("int8", lambda p: p[:-1], "a change in int8 must have 370 bytes, got 369"),
        ("int4", lambda p: np.append(p, p[:1]), "a change in int4 must have 202 bytes, got 203"),
        ("bfloat16", lambda p: _with(p, 336, 0x7F), "the change of an edit must be finite"),
        ("float16", lambda p: p[:0], "a change in float16 must have 672 bytes, got 0"),
    ],
)
def test_bytes_that_are_no_change_are_refused_by_the_rule_that_they_break(dtype, damage, rule):
    packing = Packing(SHAPES, dtype)
    packed = packing.pack(change(), generator(0))
    if dtype == "bfloat16":  # whose first number has its lower byte here, and its upper one in the second half
        packed = _with(packed, 0, 0x80)
    with pytest.raises(ValueError, match=rule):
        packing.unpack(damage(packed))


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p[:-1],
        lambda p: np.append(p, p[:1]),
        lambda p: p[:0],
        lambda p: _with(p, 0, 2),
        lambda p: _with(p, 0, 0),
        lambda p: np.append(p[:1], np.zeros(40, dtype=np.uint8)),
    ],
)
def test_deflated_bytes_that_are_not_whole_are_refused(damage):
    shapes = {"D": (8, 576)}
    packing = Packing(shapes, "int4", True)
    with pytest.raises(ValueError, match="a deflated change must be one of 2320 bytes, whole"):
        packing.unpack(damage(packing.pack(change(1.0, shapes), generator(0))))


@given(st.binary(max_size=400), st.sampled_from(NARROW), st.booleans())
def test_any_bytes_are_a_change_or_a_value_error(data, dtype, deflated):
    packing = Packing({"D": (3, 8), "b": (3,)}, dtype, deflated)
    for body in (data, data[: packing.most_bytes].ljust(packing.most_bytes, b"\0")):
        try:
            read = packing.unpack(np.frombuffer(body, dtype=np.uint8))
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert all(bool(tensor.isfinite().all()) for tensor in read.values())
