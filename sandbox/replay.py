"""A few of a trial's calls, kept so that a fresh child can be asked the same again.

The probe sees a candidate before training, and a candidate may behave until training is well under way. Which calls are
kept is drawn from the system's randomness: it changes no score, and no candidate can know it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.frames import Shape, split_answer
from sandbox.packed import alike

KEPT = 4


@dataclass(frozen=True)
class Call:
    """One call and its answer: `inputs` (T, R, B), `scalars` scalar-major, `numbers` all of the answer, `number` from 1."""

    number: int
    inputs: Tensor
    scalars: tuple[float, ...]
    numbers: Tensor

    def gap(self, numbers: Tensor) -> float | None:
        """How far another answer to the same inputs is from this one; None if every bit is the same."""
        bits = torch.int64 if numbers.dtype == torch.float64 else torch.int32
        if torch.equal(self.numbers.view(bits), numbers.view(bits)):
            return None
        return float((self.numbers - numbers).abs().nan_to_num(nan=torch.inf).max())

    def rounds_to(self, numbers: Tensor, shape: Shape) -> bool:
        """Whether another answer differs by no more than rounding, in every run."""
        pairs = list(zip(_by_run(self.numbers, shape), _by_run(numbers, shape), strict=True))
        return all(alike(x[run], y[run]) for x, y in pairs for run in range(shape.runs))


def _by_run(numbers: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """(R, G * B) gradients and (R, B + 1) losses with their mean: what is compared on one scale."""
    gradients, losses, means = split_answer(numbers, shape)
    return gradients.flatten(1), torch.cat([losses, means[:, None]], 1)


class Recorder:
    """A uniform sample of the calls so far, at most `KEPT` (Vitter 1985, algorithm R)."""

    def __init__(self) -> None:
        self._seen = 0
        self._kept: list[Call] = []
        self._random = random.SystemRandom()

    def offer(self, inputs: Tensor, scalars: tuple[float, ...], numbers: Tensor) -> None:
        """One more call. `inputs` may be shared memory: it is copied if it is kept."""
        self._seen += 1
        place = self._seen - 1 if self._seen <= KEPT else self._random.randrange(self._seen)
        if place >= KEPT:
            return
        call = Call(self._seen, inputs.clone(), scalars, numbers)
        if place < len(self._kept):
            self._kept[place] = call
        else:
            self._kept.append(call)

    def shuffled(self) -> list[Call]:
        """The kept calls in random order."""
        return self._random.sample(self._kept, len(self._kept))
