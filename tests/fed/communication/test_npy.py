"""Numbers from an npy file's bytes, which may say anything of themselves."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.communication import npy


def saved(array: np.ndarray, **says: object) -> bytes:
    buffer = BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | says
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_what_numpy_saves_is_read_as_it_was(dtype):
    array = (np.arange(12) / 7).astype(dtype).reshape(3, 4)
    buffer = BytesIO()
    np.save(buffer, array)
    read = npy.numbers(buffer.getvalue(), (3, 4), dtype)
    assert np.array_equal(read, array) and read.dtype == array.dtype


@pytest.mark.parametrize(
    "says",
    [
        {"shape": (10**12,)},
        {"shape": (2, 2)},
        {"descr": "<i4"},
        {"descr": "|O"},
        {"descr": ">f4"},
        {"fortran_order": True},
    ],
)
def test_a_header_that_says_anything_else_is_refused_before_a_number_is_read(says):
    with pytest.raises(ValueError, match="the header of an edit must say float32 of shape"):
        npy.numbers(saved(np.zeros(4, dtype="float32"), **says), (4,), "float32")


@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda tail: b"\x93NUMPY\x01\x00" + tail))
def test_any_bytes_are_four_numbers_or_a_value_error(data):
    try:
        assert npy.numbers(data, (4,), "float32").shape == (4,)
    except ValueError as error:
        assert "\n" not in str(error)
