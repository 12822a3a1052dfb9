"""What mapping a batch-coupled loss over many runs of a packed call gains over calling it run by run.

    python -m benchmarks.packing [--repeats 20]

For each number of runs with equal scalars: milliseconds a run, mapped and one by one in turns, and how many times less that
is. In this process, without a child: what a child adds does not depend on it (`python -m benchmarks.oracle`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.child import load
from sandbox.draws import draw
from sandbox.frames import Frame, new_memory_file, shape_of
from sandbox.packed import Answers, Entry

BATCH = 32
GROUPS = 4  # values of beta
SIZES = (8, 16, 40, 80)


@dataclass(frozen=True)
class Row:
    """Medians, ms a run."""

    loss: str
    runs: int
    alone_ms: float
    mapped_ms: float


class _Packed:
    """One packed call of a known loss: `each` runs at each of a few betas."""

    def __init__(self, name: str, each: int, mapped: bool) -> None:
        objective = known_objective(PAIRS.name, name)
        tensors, scalars = PAIRS.tensors_of(objective.inputs), PAIRS.scalars_of(objective.inputs)
        self.runs = GROUPS * each
        self._shape = shape_of(tensors, scalars, self.runs, BATCH, 4)
        self._frame = Frame(new_memory_file(self._shape.frame_bytes), self._shape.frame_bytes)
        given = draw(PAIRS, (self.runs, BATCH), 0, lambda g, s: 3 * torch.randn(s, generator=g, dtype=torch.float64))
        for place, spec in zip(self._frame.views(self._shape).rows, tensors, strict=True):
            place.copy_(given[spec.name])
        self._frame.write_scalars([0.1 * (1 + run % GROUPS) for _ in scalars for run in range(self.runs)])
        entry = Entry(PAIRS.function, tensors, scalars, mapped=mapped)
        self._answers = Answers(load(objective.candidate.source, PAIRS.function), entry)

    def ms(self) -> float:
        started = time.perf_counter()
        self._answers.write(self._frame, self._shape)
        return 1e3 * (time.perf_counter() - started) / self.runs


def measure(name: str, each: int, repeats: int) -> Row:
    """One loss at one number of runs with equal scalars."""
    alone, mapped = _Packed(name, each, False), _Packed(name, each, True)
    pairs = [(alone.ms(), mapped.ms()) for _ in range(repeats + 1)][1:]  # the first one compares
    return Row(name, each, statistics.median(a for a, _ in pairs), statistics.median(m for _, m in pairs))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("loss                runs with equal scalars   one by one, ms/run   mapped   times less")
    for name in ("aot", "kto_pair", "orpo"):
        for each in SIZES:
            row = measure(name, each, repeats)
            ratio = row.alone_ms / row.mapped_ms
            print(f"{row.loss:20}{row.runs:23}{row.alone_ms:21.3f}{row.mapped_ms:9.3f}{ratio:13.1f}")


if __name__ == "__main__":
    main()
