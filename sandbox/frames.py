"""The shared-memory frame between trainer and child: a fixed header, a text area, then plain numbers.

Header (little-endian int64): op, status, runs, batch, itemsize, text length, line. The data area holds, back to back,
scalars (S, R) as float64, inputs (T, R, B), then the answer: gradients (R, G, B), losses (R, B), means (R). The child is
hostile: the trusted side copies an answer first and checks the copy.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from sandbox.contract import ScalarInput, TensorInput

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = struct.Struct("<7q")
_STATUS, _STATUS_AT = struct.Struct("<q"), 8
_TEXT_AT = 64
TEXT_BYTES = 32 * 1024
_DATA_AT = _TEXT_AT + TEXT_BYTES


SPIN_S = 1e-3  # how long either side watches the frame before it sleeps
_YIELD_AFTER_S = 150e-6
SPIN_AFTER = 64  # calls: a probe is over by then; what goes on is training, where every step waits for its loss


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
    def answer_numbers(self) -> int:
        return self.runs * ((self.gradients + 1) * self.batch + 1)

    @property
    def frame_bytes(self) -> int:
        numbers = self.runs * self.tensors * self.batch + self.answer_numbers
        return _DATA_AT + self.scalars * self.runs * 8 + numbers * self.itemsize


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
    rows: tuple[Tensor, ...]  # T of (R, B): the inputs one by one
    answer: Tensor  # flat: gradients, losses, means
    vectors: Tensor  # its gradients and losses, flat
    gradients: Tensor  # (R, G, B)
    losses: Tensor  # (R, B)
    means: Tensor  # (R,)


@dataclass(frozen=True)
class Answer:
    """One call's results as the child gave them, copied out of shared memory; values may be non-finite.

    Attributes:
        numbers: all of the following in one flat tensor.
        gradients: (R, G, B) d mean / d input for the gradient-carrying inputs, in contract order.
        losses: (R, B) per-example losses, detached.
        means: (R,) mean loss per run.
    """

    numbers: Tensor
    gradients: Tensor
    losses: Tensor
    means: Tensor

    def split(self, runs: int) -> list[Answer]:
        """The same in consecutive pieces of `runs` runs."""
        parts = zip(self.gradients.split(runs), self.losses.split(runs), self.means.split(runs), strict=True)  # type: ignore[no-untyped-call]
        return [Answer(self.numbers, *part) for part in parts]

    @property
    def largest(self) -> Tensor:
        """(R,) largest absolute gradient per run, NaN where one is NaN."""
        return self.gradients.abs().amax(dim=(1, 2))


def split_answer(answer: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (R, G, B), losses (R, B) and means (R,) as views of a flat answer."""
    r, g, b = shape.runs, shape.gradients, shape.batch
    gradients, losses, means = answer.split_with_sizes([r * g * b, r * b, r])
    return gradients.view(r, g, b), losses.view(r, b), means


class Frame:
    """One mapped frame. Both sides create one over the same memory file."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.memory = mmap.mmap(descriptor, size)
        self.size = size
        self._views: dict[Shape, Views] = {}

    def close(self) -> None:
        self._views.clear()
        with suppress(BufferError):  # a tensor over it is still alive; the mapping goes with the last one
            self.memory.close()

    def write_header(self, header: Header) -> None:
        h = header
        fields = (h.op, h.status, h.runs, h.batch, h.itemsize, h.text_bytes, h.line)
        _HEADER.pack_into(self.memory, 0, *fields)

    def read_header(self) -> Header:
        return Header(*_HEADER.unpack_from(self.memory, 0))

    def await_status(self, pending: bool, seconds: float) -> None:
        """Watch the header for a request (pending) or an answer, for so long at most.

        Waking a sleeping process costs more than a small loss. This is only a hint for when to look at the channel: the
        byte there is what counts. Where it takes longer, others are let in between looks.
        """
        started = time.perf_counter()
        while (_STATUS.unpack_from(self.memory, _STATUS_AT)[0] == Status.PENDING) is not pending:
            waited = time.perf_counter() - started
            if waited > seconds:
                return
            if waited > _YIELD_AFTER_S:
                os.sched_yield()

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

    def write_scalars(self, values: Sequence[float]) -> None:
        """S * R floats, scalar-major."""
        struct.pack_into(f"<{len(values)}d", self.memory, _DATA_AT, *values)

    def read_scalars(self, count: int) -> tuple[float, ...]:
        return struct.unpack_from(f"<{count}d", self.memory, _DATA_AT)

    def _build(self, shape: Shape) -> Views:
        import torch

        dtype = torch.float64 if shape.itemsize == 8 else torch.float32
        count = shape.tensors * shape.runs * shape.batch
        start = _DATA_AT + shape.scalars * shape.runs * 8
        inputs = torch.frombuffer(self.memory, dtype=dtype, count=count, offset=start)
        after = start + count * shape.itemsize
        answer = torch.frombuffer(self.memory, dtype=dtype, count=shape.answer_numbers, offset=after)
        inputs = inputs.view(shape.tensors, shape.runs, shape.batch)
        return Views(inputs, inputs.unbind(0), answer, answer[: -shape.runs], *split_answer(answer, shape))


def new_memory_file(size: int) -> int:
    """An anonymous memory file of `size` bytes; returns its descriptor."""
    descriptor = os.memfd_create("oracle", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor
