"""Numbers in fewer bits: what a change of an edit is sent as, and the bytes that it then has.

    float16, bfloat16    the nearest such number
    int8, int4           x ≈ s q    s = max |x| / Q over a row, rounded up to bfloat16    q in −Q..Q, Q = 127 or 7
                         q = ⌊x / s + u⌋ with u uniform in [0, 1): rounded at random, so that the mean of s q is x

A row lies along the longer of a tensor's last two axes, so that LoRA's B (out, r) has r scales, as A (r, in) has.
Bytes, in the tensors' order: all scales, then all codes, two to a byte in int4; of a float16 or bfloat16 number all
lower bytes, then all upper ones. Deflated (`Packing.deflated`) they have one byte more in front, 1 where what follows
is deflated (RFC 1951) and 0 where that would be longer.

Huffman codes alone, without searching for repetitions, for there are none (sims/LOG.md has what each is worth).

Shapes:  n numbers of an edit · m rows, in all its tensors
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST = {"int8": 127, "int4": 7}  # Q
FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
NARROW = (*FLOATS, *LARGEST)
SCALE_BYTES = 2
Shapes = Mapping[str, tuple[int, ...]]


class NotFinite(ValueError):
    """A change has a number that is not finite."""


def rows_of(shape: tuple[int, ...]) -> int:
    """How many rows a tensor has, each with a scale of its own."""
    return math.prod(shape) // max(shape[-2:])


@dataclass(frozen=True)
class Packing:
    """How the tensors of one change travel.

    Attributes:
        shapes: name -> shape, in the order of the wire.
        dtype: of `NARROW`.
        deflated: whether the bytes are entropy-coded where that makes them fewer.
    """

    shapes: dict[str, tuple[int, ...]]
    dtype: str
    deflated: bool = False

    @property
    def numbers(self) -> int:
        """n."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def plain_bytes(self) -> int:
        """Bytes before they are deflated."""
        if self.dtype in FLOATS:
            return 2 * self.numbers
        codes = self.numbers if self.dtype == "int8" else (self.numbers + 1) // 2
        return SCALE_BYTES * sum(map(rows_of, self.shapes.values())) + codes

    @property
    def most_bytes(self) -> int:
        """The most that a packed change has; where it is not deflated, what it has."""
        return self.plain_bytes + self.deflated

    def pack(self, change: Mapping[str, Tensor], draw: torch.Generator) -> NDArray[np.uint8]:
        """The change's bytes; `unpack` says which change they are.

        Args:
            change: tensors of these shapes.
            draw: decides how codes are rounded; nothing is drawn for float16 and bfloat16.
        Raises:
            NotFinite: a number is not.
        """
        if not all(bool(change[name].isfinite().all()) for name in self.shapes):
            raise NotFinite("the change of an edit must be finite")
        if self.dtype in FLOATS:
            largest = torch.finfo(FLOATS[self.dtype]).max
            flat = torch.cat([change[name].detach().cpu().flatten() for name in self.shapes])
            numbers = flat.clamp(-largest, largest).to(FLOATS[self.dtype])
            body = numbers.view(torch.uint8).view(-1, 2).T.contiguous().numpy().tobytes()
        else:
            body = self._coded(change, draw)
        return np.frombuffer(_deflated(body) if self.deflated else body, dtype=np.uint8)

    def unpack(self, packed: NDArray[np.uint8]) -> dict[str, Tensor]:
        """The change that these bytes are, float32: the same on every machine.

        Raises:
            ValueError: they are none; the rule in one line.
        """
        body = packed.tobytes()
        if self.deflated:
            body = _inflated(body, self.plain_bytes)
        elif len(body) != self.plain_bytes:
            raise ValueError(f"a change in {self.dtype} must have {self.plain_bytes} bytes, got {len(body)}")
        if self.dtype in FLOATS:
            planes = torch.frombuffer(bytearray(body), dtype=torch.uint8).view(2, -1).T.contiguous()
            flat = planes.view(FLOATS[self.dtype]).flatten().float()
            if not bool(flat.isfinite().all()):
                raise ValueError("the change of an edit must be finite")
            pieces = flat.split([math.prod(shape) for shape in self.shapes.values()])
            return {n: piece.view(shape) for (n, shape), piece in zip(self.shapes.items(), pieces, strict=True)}
        return self._decoded(body)

    def _coded(self, change: Mapping[str, Tensor], draw: torch.Generator) -> bytes:
        scales, codes = [], []
        for name, shape in self.shapes.items():
            rows = _as_rows(change[name].detach().cpu().double(), shape)
            scale = _rounded_up(rows.abs().amax(dim=1).float() / LARGEST[self.dtype])
            steps = rows / torch.where(scale > 0, scale, 1.0).double().unsqueeze(1)
            drawn = (steps + torch.rand(steps.shape, generator=draw, dtype=torch.float64)).floor()
            largest = LARGEST[self.dtype]
            drawn = torch.where(scale.unsqueeze(1) > 0, drawn, 0.0).clamp(-largest, largest)
            scales.append(scale.to(torch.bfloat16).view(torch.uint8).numpy().tobytes())
            codes.append(drawn.to(torch.int8).flatten())
        return b"".join(scales) + self._code_bytes(torch.cat(codes).numpy())

    def _code_bytes(self, codes: NDArray[np.int8]) -> bytes:
        if self.dtype == "int8":
            return codes.tobytes()
        halves = (np.append(codes, -7) if len(codes) % 2 else codes) + np.int8(LARGEST["int4"])
        return (halves[0::2] | halves[1::2] << 4).astype(np.uint8).tobytes()

    def _decoded(self, body: bytes) -> dict[str, Tensor]:
        split = SCALE_BYTES * sum(map(rows_of, self.shapes.values()))
        scales = torch.frombuffer(bytearray(body[:split]), dtype=torch.bfloat16).float()
        if not bool((scales.isfinite() & (scales >= 0)).all()):
            raise ValueError("the scales of a change must be finite and not negative")
        codes = np.frombuffer(body, dtype=np.int8, offset=split)
        if self.dtype == "int4":
            pairs = codes.view(np.uint8)
            codes = np.stack([pairs & 15, pairs >> 4], axis=1).flatten().astype(np.int8) - np.int8(LARGEST["int4"])
        largest = LARGEST[self.dtype]
        if codes.min() < -largest or codes.max() > largest:
            raise ValueError(f"the codes of a change in {self.dtype} must lie in -{largest}..{largest}")
        numbers = torch.from_numpy(codes[: self.numbers].astype(np.float32))
        change, place, row = {}, 0, 0
        for name, shape in self.shapes.items():
            count, rows = math.prod(shape), rows_of(shape)
            of_rows = numbers[place : place + count].view(rows, -1) * scales[row : row + rows].unsqueeze(1)
            change[name] = _from_rows(of_rows, shape)
            place, row = place + count, row + rows
        if not all(bool(tensor.isfinite().all()) for tensor in change.values()):
            raise ValueError("the change of an edit must be finite")
        return change


def _as_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(m, n / m), whose rows lie along the longer of the last two axes."""
    if len(shape) > 1 and shape[-2] > shape[-1]:
        tensor = tensor.mT
    return tensor.reshape(rows_of(shape), -1)


def _from_rows(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `_as_rows`."""
    if len(shape) > 1 and shape[-2] > shape[-1]:
        return rows.reshape(*shape[:-2], shape[-1], shape[-2]).mT.contiguous()
    return rows.reshape(shape)


def _rounded_up(scale: Tensor) -> Tensor:
    """The next bfloat16 number that is not smaller, of float32 ones that are not negative; as float32."""
    bits = scale.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _deflated(body: bytes) -> bytes:
    """The bytes with a byte in front that says whether they are deflated, which they are where that is shorter."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    short = machine.compress(body) + machine.flush()
    return b"\x01" + short if len(short) < len(body) else b"\x00" + body


def _inflated(body: bytes, size: int) -> bytes:
    """The inverse of `_deflated`; no more than `size` bytes are ever made. Raises ValueError."""
    rule = f"a deflated change must be one of {size} bytes, whole"
    if body[:1] == b"\x00" and len(body) == size + 1:
        return body[1:]
    if body[:1] != b"\x01" or len(body) > size:
        raise ValueError(rule)
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = machine.decompress(body[1:], size + 1)
    except zlib.error:
        raise ValueError(rule) from None
    if len(plain) != size or not machine.eof or machine.unused_data:
        raise ValueError(rule)
    return plain
