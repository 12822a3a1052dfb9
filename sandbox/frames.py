"""The shared-memory frame between trainer and child: a fixed header, a text area, then plain numbers.

Header (little-endian int64): op, status, runs, batch, itemsize, text length, line. The data area holds, back to back,
inputs (T, R, B), scalars (S, R), then the answer: means (R), losses (R, B), gradients (G, R, B). The child is hostile:
the trusted side copies an answer first and checks the copy.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from sandbox.contract import ScalarInput, TensorInput

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = struct.Struct("<7q")
_TEXT_AT = 64
TEXT_BYTES = 32 * 1024
_DATA_AT = _TEXT_AT + TEXT_BYTES


class Op(IntEnum):
    LOAD = 1  # compile the source in the text area and run its module level
    CALL = 2


class Status(IntEnum):
    PENDING = 0
    OK = 1
    CRASH = 2  # the candidate raised
    CONTRACT = 3  # it returned something else than it must
    OUT_OF_MEMORY = 4


@dataclass(frozen=True)
class Shape:
    """What one call carries: `tensors` (R, B) inputs, `gradients` of them wanted, `scalars` per run."""

    tensors: int
    scalars: int
    gradients: int
    runs: int
    batch: int
    itemsize: int  # 4 for float32, 8 for float64

    @property
    def numbers(self) -> int:
        per_run = (self.tensors + 1 + self.gradients) * self.batch + self.scalars + 1
        return per_run * self.runs

    @property
    def frame_bytes(self) -> int:
        # scalars are always float64: beta keeps its full precision as a Python float
        return _DATA_AT + self.numbers * 8


def shape_of(
    tensors: tuple[TensorInput, ...], scalars: tuple[ScalarInput, ...], runs: int, batch: int, itemsize: int
) -> Shape:
    """The shape of a call for a candidate that reads these inputs."""
    gradients = sum(t.carries_gradient for t in tensors)
    return Shape(len(tensors), len(scalars), gradients, runs, batch, itemsize)


@dataclass(frozen=True)
class Header:
    op: int
    status: int
    runs: int
    batch: int
    itemsize: int
    text_bytes: int
    line: int


@dataclass(frozen=True)
class Views:
    """Tensors over the frame's data area for one shape."""

    inputs: Tensor  # (T, R, B)
    scalars: Tensor  # (S, R) float64
    means: Tensor  # (R,)
    losses: Tensor  # (R, B)
    gradients: Tensor  # (G, R, B)


class Frame:
    """One mapped frame. Both sides create one over the same memory file."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.memory = mmap.mmap(descriptor, size)
        self.size = size
        self._views: dict[Shape, Views] = {}

    def close(self) -> None:
        self._views.clear()
        try:
            self.memory.close()
        except BufferError:
            pass  # a tensor over it is still alive; the mapping goes with the last one

    def write_header(self, header: Header) -> None:
        h = header
        fields = (h.op, h.status, h.runs, h.batch, h.itemsize, h.text_bytes, h.line)
        _HEADER.pack_into(self.memory, 0, *fields)

    def read_header(self) -> Header:
        return Header(*_HEADER.unpack_from(self.memory, 0))

    def write_text(self, text: bytes) -> int:
        cut = text[:TEXT_BYTES]
        self.memory[_TEXT_AT : _TEXT_AT + len(cut)] = cut
        return len(cut)

    def read_text(self, length: int) -> bytes:
        return bytes(self.memory[_TEXT_AT : _TEXT_AT + max(0, min(length, TEXT_BYTES))])

    def views(self, shape: Shape) -> Views:
        """Tensors for a shape, cached: building them costs more than a small call."""
        found = self._views.get(shape)
        if found is None:
            found = self._views[shape] = self._build(shape)
        return found

    def _build(self, shape: Shape) -> Views:
        import torch

        dtype = torch.float64 if shape.itemsize == 8 else torch.float32
        t, s, g, r, b = shape.tensors, shape.scalars, shape.gradients, shape.runs, shape.batch
        offset = _DATA_AT

        def take(count: int, kind: torch.dtype) -> Tensor:
            nonlocal offset
            if not count:
                return torch.empty(0, dtype=kind)
            view = torch.frombuffer(self.memory, dtype=kind, count=count, offset=offset)
            offset += count * 8  # 8-byte slots keep every block aligned for both dtypes
            return view

        return Views(
            inputs=take(t * r * b, dtype).view(t, r, b),
            scalars=take(s * r, torch.float64).view(s, r),
            means=take(r, dtype),
            losses=take(r * b, dtype).view(r, b),
            gradients=take(g * r * b, dtype).view(g, r, b),
        )


def new_memory_file(size: int) -> int:
    """An anonymous memory file of `size` bytes; returns its descriptor."""
    descriptor = os.memfd_create("oracle", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor
