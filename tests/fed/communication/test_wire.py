"""A whole edit as one flat array: what arrives is what was sent, whatever changes of it travel in."""

import numpy as np
import pytest
import torch

from fed.communication import wire
from fed.edits.loreft import EditShape

SHAPES = EditShape((1, 5), 3, 8).tensors()


def edit():
    draw = torch.Generator().manual_seed(0)
    return {name: 3 * torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


NARROW = ["float16", "bfloat16", "int8", "int4"]


@pytest.mark.parametrize("dtype", ["float32", *NARROW])
def test_a_whole_edit_arrives_as_it_was_sent_whatever_its_changes_travel_in(dtype):
    sent = edit()
    arrived = wire.unpack(wire.pack(sent, dtype), SHAPES, dtype)
    assert list(arrived) == ["R", "W", "b"]
    for name, tensor in arrived.items():
        assert tensor.dtype == torch.float32 and tensor.shape == SHAPES[name]
        assert torch.equal(tensor, sent[name])


def test_float64_arrives_as_it_was_sent():
    sent = {name: tensor.double() / 3 for name, tensor in edit().items()}
    arrived = wire.unpack(wire.pack(sent, "float64"), SHAPES, "float64")
    for name, tensor in arrived.items():
        assert tensor.dtype == torch.float64 and torch.equal(tensor, sent[name])


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"), [("float32", "f4"), ("float64", "f8"), *((name, "f4") for name in NARROW)]
)
def test_a_packed_edit_is_flat_and_has_the_bytes_of_its_numbers(dtype, numpy_dtype):
    packed = wire.pack(edit(), dtype)
    numbers = EditShape((1, 5), 3, 8).parameters
    assert packed.shape == (numbers,) and packed.dtype == np.dtype(numpy_dtype)
    assert wire.is_narrow(dtype) == (dtype in NARROW)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 4 * 102),
        ("float64", 8 * 102),
        ("float16", 2 * 102),
        ("bfloat16", 2 * 102),
        ("int8", 102 + 2 * 14),  # a scale a row: 6 of R, 6 of D, 2 of b
        ("int4", 51 + 2 * 14),
    ],
)
def test_bytes_on_the_wire_are_those_of_the_edit_or_of_its_change(dtype, size):
    assert wire.bytes_of(SHAPES, dtype) == size
    assert wire.bytes_of({}, dtype) == 0


def test_tensors_are_packed_in_the_mappings_order_row_by_row():
    a, b = torch.arange(4.0).view(2, 2), torch.tensor([9.0])
    assert wire.pack({"a": a, "b": b}).tolist() == [0, 1, 2, 3, 9]
    assert wire.pack({"b": b, "a": a.T}).tolist() == [9, 0, 2, 1, 3]
    swapped = wire.unpack(wire.pack({"b": b, "a": a}), {"b": (1,), "a": (2, 2)})
    assert torch.equal(swapped["a"], a) and torch.equal(swapped["b"], b)


def test_packing_takes_trained_tensors_and_float64_ones():
    x = torch.tensor([1.5, 2.5], dtype=torch.float64, requires_grad=True)
    assert wire.pack({"x": x}).tolist() == [1.5, 2.5] and wire.pack({"x": x}).dtype == np.float32


def test_unpacked_tensors_are_writable_and_share_nothing():
    packed = wire.pack(edit())
    packed.setflags(write=False)  # what comes off the wire is read-only
    arrived = wire.unpack(packed, SHAPES)
    arrived["R"].zero_()
    assert torch.equal(arrived["W"], edit()["W"]) and packed[0] == edit()["R"].flatten()[0]


@pytest.mark.parametrize(
    "change", [lambda a: a[:-1], lambda a: np.append(a, a[:1]), lambda a: a[:0], lambda a: a.reshape(-1, 2)]
)
def test_an_array_of_another_length_or_shape_is_refused(change):
    with pytest.raises(ValueError, match="must be a flat array of 102 numbers, got shape"):
        wire.unpack(change(wire.pack(edit())), SHAPES)


@pytest.mark.parametrize(
    ("array_dtype", "dtype"),
    [
        ("uint16", "float32"),
        ("uint16", "bfloat16"),
        ("uint8", "int8"),
        ("float16", "float32"),
        ("float16", "float16"),
        ("float64", "float32"),
        ("float32", "float64"),
    ],
)
def test_an_array_of_another_dtype_than_agreed_is_refused(array_dtype, dtype):
    with pytest.raises(ValueError, match=array_dtype):
        wire.unpack(np.zeros(102, dtype=array_dtype), SHAPES, dtype)


def test_unpacking_in_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="wire-dtype must be one of"):
        wire.unpack(wire.pack(edit()), SHAPES, "int3")


@pytest.mark.parametrize(
    "call", [lambda: wire.pack(edit(), "int3"), lambda: wire.bytes_of(SHAPES, "int3"), lambda: wire.is_narrow("int3")]
)
def test_an_unknown_dtype_is_refused_with_the_known_ones(call):
    with pytest.raises(ValueError, match="wire-dtype must be one of float32, float16, bfloat16.*, got 'int3'"):
        call()
